"""Captures a second while jobs are queued: that it does not matter how many."""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio

from bench.clients import Client, all_at_once, open_clients
from bench.contenders import open_service, screenshot
from bench.options import Options
from bench.pages import Pages, open_pages
from bench.tables import Cell, Table
from bench.usage import measured
from tests.test_end_to_end import Server

QUEUED = (1, 10, 100, 1_000, 10_000)
QUICK_QUEUED = QUEUED[:4]
WORKERS = 2
# At each length; the first ones warm the browser up.
CAPTURES, WARMING = 32, 4
CLIENTS = 16


async def measure_backlog(options: Options) -> list[Table]:
    """A new service for each length."""
    table = Table(
        "Captures against the number of queued jobs (tiny, wait_until: load)",
        ("queued", "captures/s", "own CPU ms", "browser CPU ms", "own MB"),
    )
    flags = ["--workers", str(WORKERS), "--queue-limit", "20000", *options.service_args]
    async with open_pages() as pages:
        for queued in QUICK_QUEUED if options.quick else QUEUED:
            with tempfile.TemporaryDirectory() as folder:
                async with open_service(Path(folder), *flags) as server:
                    table.rows.append(await _measure(pages, server, queued))
    return [table]


async def _measure(pages: Pages, server: Server, queued: int) -> tuple[Cell, ...]:
    """Pages that never load occupy the workers while all is queued; what is measured passes what stays queued."""
    request = {"url": pages.urls["tiny"]} | screenshot("load")
    async with open_clients(server, CLIENTS) as clients:
        first = clients[0]
        never = {"url": pages.urls["never"], "timeout_ms": 120_000}
        plugs = [await first.submit("screenshot", never, 2) for _ in range(WORKERS)]

        async def fill(index: int, client: Client) -> None:
            for _ in range(index, queued, CLIENTS):
                await client.submit("screenshot", request)

        await all_at_once(clients, fill)
        jobs = [await first.submit("screenshot", request, 1) for _ in range(WARMING + CAPTURES)]
        for plug in plugs:
            await first.ask("DELETE", f"/v1/jobs/{plug}")
        for job in jobs[:WARMING]:
            await first.ended(job, "&result=false")
        began = trio.current_time()
        async with measured(server.process.pid) as usage:
            for job in jobs[WARMING:]:
                await first.ended(job, "&result=false")
        rate = CAPTURES / (trio.current_time() - began)
    each = usage.each(CAPTURES)
    return queued, rate, each.own_cpu_s * 1000, each.browser_cpu_s * 1000, each.own_peak_mb
