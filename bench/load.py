"""What clients cost the service: python -m bench.load [CLIENTS] [ROUNDS] [WAIT_S]

The real program in a process of its own; all figures are of that process alone, without its browsers.
    long-polls  CLIENTS at once on queued jobs, ROUNDS times WAIT_S; below 1 % of one core with 1,000 of them at 60 s
    rates       submissions and reads of ended jobs a second
    big answer  a picture of 42 MB, read by four clients at once: memory at most a few MB for each
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import trio

from bench import usage
from bench.clients import Client, all_at_once, open_clients
from bench.options import Options
from bench.pages import open_pages
from bench.tables import Table, show
from tests.site import noise, open_site, page
from tests.test_end_to_end import open_server

CLIENTS, ROUNDS, WAIT_S = 1000, 2, 60.0
# Within the run of everything.
SHORT_WAIT_S, QUICK_WAIT_S = 20.0, 6.0
IDLE_S = 10.0
# As many connections at once for the rates.
BUSY_CLIENTS = 8
RATE_S = 5.0
READERS = 4


async def long_polls(folder: Path, url: str, count: int, rounds: int, wait_s: float) -> Table:
    """All jobs but the first, which hangs, stay queued."""
    table = Table(
        f"Long-polls on {count:,} queued jobs",
        ("clients", "s", "% of a core", "while all wait", "own CPU ms each", "KB each", "files"),
    )
    async with open_server(folder, "--workers", "1", "--max-timeout", "3600") as server:
        pid = server.process.pid
        jobs: list[str] = []
        async with open_clients(server, BUSY_CLIENTS) as clients:

            async def submit(index: int, client: Client) -> None:
                for _ in range(index, count + 1, BUSY_CLIENTS):
                    jobs.append(await client.submit("scrape", {"url": url, "timeout_ms": 3_600_000}))

            await all_at_once(clients, submit)
        await trio.sleep(2)
        before = usage.cpu_s(pid)
        await trio.sleep(IDLE_S)
        cpu_s = usage.cpu_s(pid) - before
        table.rows.append(("none", IDLE_S, cpu_s / IDLE_S * 100, None, None, None, None))
        quiet_kb, quiet_files = usage.memory_kb(pid, "VmRSS"), usage.open_files(pid)
        async with open_clients(server, count) as clients:

            async def poll(index: int, client: Client) -> None:
                await client.ask("GET", f"/v1/jobs/{jobs[index + 1]}?wait={wait_s}")

            for number in range(rounds):
                before = usage.cpu_s(pid)
                waiting: list[float] = []
                async with trio.open_nursery() as nursery:

                    async def look(into: list[float] = waiting) -> None:
                        await trio.sleep(wait_s * 0.5)
                        before = usage.cpu_s(pid)
                        await trio.sleep(wait_s * 0.4)
                        into.append((usage.cpu_s(pid) - before) / (wait_s * 0.4) * 100)
                        into.append((usage.memory_kb(pid, "VmRSS") - quiet_kb) / count)
                        into.append(usage.open_files(pid) - quiet_files)

                    nursery.start_soon(look)
                    took_s = await all_at_once(clients, poll)
                cpu_s = usage.cpu_s(pid) - before
                while_waiting, each_kb, files = waiting
                cells = (cpu_s / took_s * 100, while_waiting, cpu_s / count * 1000, each_kb, files)
                table.rows.append((f"{count:,}, round {number + 1}", took_s, *cells))
    return table


async def rates(folder: Path, url: str, never: str) -> Table:
    """One job runs; what is submitted stays queued."""
    table = Table(f"Requests by {BUSY_CLIENTS} clients", ("request", "a second", "p50 ms", "p99 ms", "own CPU ms"))
    async with open_server(folder, "--workers", "1", "--queue-limit", "1000000") as server:
        async with open_clients(server, 1) as (client,):
            done = await client.submit("scrape", {"url": url})
            await client.ended(done)
            await client.submit("scrape", {"url": never, "timeout_ms": 100_000})
        body = b'{"request": {"url": "%s"}}' % url.encode()
        cases = {
            "submission, on disk": ("POST", "/scrape/v1/jobs", body),
            "read of an ended job": ("GET", f"/v1/jobs/{done}", b""),
            "read without its output": ("GET", f"/v1/jobs/{done}?result=false", b""),
            "read of its /result": ("GET", f"/v1/jobs/{done}/result", b""),
        }
        async with open_clients(server, BUSY_CLIENTS) as clients:
            for name, case in cases.items():
                taken_ms: list[float] = []
                until = trio.current_time() + RATE_S

                async def insist(
                    index: int,
                    client: Client,
                    case: tuple[str, str, bytes] = case,
                    until: float = until,
                    taken_ms: list[float] = taken_ms,
                ) -> None:
                    while (began := trio.current_time()) < until:
                        await client.ask(*case)
                        taken_ms.append((trio.current_time() - began) * 1000)

                before = usage.cpu_s(server.process.pid)
                took_s = await all_at_once(clients, insist)
                cpu_ms = (usage.cpu_s(server.process.pid) - before) / len(taken_ms) * 1000
                quantiles = map(float, np.quantile(taken_ms, (0.5, 0.99)))
                table.rows.append((name, len(taken_ms) / took_s, *quantiles, cpu_ms))
    return table


async def big_answer(folder: Path, pictured: str, scraped: str) -> Table:
    """A picture of noise and a long document of many kinds of letters."""
    table = Table(f"Big answers, read by {READERS} at once", ("answer", "MB", "MB/s", "own CPU s", "own peak MB each"))
    async with open_server(folder, "--workers", "1") as server:
        pid = server.process.pid
        viewport = {"width": 4000, "height": 3500}
        async with open_clients(server, 1) as (client,):
            picture = await client.submit("screenshot", {"url": pictured, "format": "png", "viewport": viewport})
            document = await client.submit("scrape", {"url": scraped, "timeout_ms": 100_000})
            for job in (picture, document):
                await client.ended(job, "&result=false")
        async with open_clients(server, READERS) as clients:
            for name, job in (("picture", picture), ("document", document)):
                for form, path in (("/result", f"/v1/jobs/{job}/result"), ("JSON", f"/v1/jobs/{job}")):
                    usage.forget_peak(pid)
                    before_s, before_kb = usage.cpu_s(pid), usage.memory_kb(pid, "VmRSS")
                    lengths: list[int] = []

                    async def fetch(index: int, client: Client, path: str = path, into: list[int] = lengths) -> None:
                        into.append(await client.ask("GET", path))

                    took_s = await all_at_once(clients, fetch)
                    cpu_s = usage.cpu_s(pid) - before_s
                    peak_mb = (usage.memory_kb(pid, "VmHWM") - before_kb) / 1000 / READERS
                    total_mb = sum(lengths) / 1e6
                    table.rows.append((f"{name} as {form}", total_mb / READERS, total_mb / took_s, cpu_s, peak_mb))
    return table


async def measure_submissions(options: Options) -> list[Table]:
    """The rates."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_pages() as pages:
            return [await rates(Path(folder), pages.urls["tiny"], pages.urls["never"])]


async def measure_clients(options: Options) -> list[Table]:
    """The long-polls, shorter."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_pages() as pages:
            wait_s = QUICK_WAIT_S if options.quick else SHORT_WAIT_S
            return [await long_polls(Path(folder), pages.urls["never"], CLIENTS, 1, wait_s)]


async def main(clients: int, rounds: int, wait_s: float) -> None:
    """Measure and print."""
    async with open_site() as site:
        # Letters that JSON escapes, where nothing lays them out.
        letters = 'W\u00f6rter "und" Zeichen \u2013 \u6f22 \U0001f600\n' * 1_000_000
        document = site.add("/document", page(f"<script type=text/plain>{letters}</script>"))
        pictured = site.add("/noise", noise(4000, 3500))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            show([await big_answer(folder / "big", pictured, document)])
            show([await rates(folder / "rates", site.url("/ok"), site.url("/never"))])
            show([await long_polls(folder / "polls", site.url("/never"), clients, rounds, wait_s)])


if __name__ == "__main__":
    given = sys.argv[1:] + [""] * 3
    trio.run(main, int(given[0] or CLIENTS), int(given[1] or ROUNDS), float(given[2] or WAIT_S))
