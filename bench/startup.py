"""How long the service takes from its start to readiness, and to its first picture."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import trio

from bench.clients import Client
from bench.contenders import open_service, screenshot
from bench.options import Options
from bench.pages import open_pages
from bench.tables import Cell, Table

STARTS, QUICK_STARTS = 10, 3
POLL_S = 0.002


async def until_ready(client: Client) -> None:
    """Ask until the service says so."""
    while True:
        if await client.is_ready():
            return
        await trio.sleep(POLL_S)


async def measure_start(options: Options) -> list[Table]:
    """On an empty data folder each time, with all files in the system's cache but for the first."""
    taken: dict[str, list[float]] = {"listening": [], "/readyz says 200": [], "first picture": []}
    async with open_pages() as pages:
        for _ in range(1 + (QUICK_STARTS if options.quick else STARTS)):
            with tempfile.TemporaryDirectory() as folder:
                began = trio.current_time()
                async with open_service(Path(folder), *options.service_args) as server:
                    moments = [trio.current_time()]
                    client = Client(server.url)
                    await until_ready(client)
                    moments.append(trio.current_time())
                    await client.run("screenshot", {"url": pages.urls["tiny"]} | screenshot("load"))
                    moments.append(trio.current_time())
                    await client.aclose()
            for name, moment in zip(taken, moments, strict=True):
                taken[name].append((moment - began) * 1000)
    rows: list[tuple[Cell, ...]] = [
        (name, *map(float, np.quantile(each[1:], (0, 0.5, 1)))) for name, each in taken.items()
    ]
    return [Table("Start of the service", ("from its start until", "best ms", "median ms", "worst ms"), rows)]
