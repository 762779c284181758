"""What the egress door costs: python -m bench.relay [ROUNDS]

Pages of a site in a process of its own, captured through our door and by a direct connection of Chromium's, by turns in
one run: one at a time for the latency, two at a time for the captures a second.
"""

from __future__ import annotations

import statistics
import sys
import time
from types import SimpleNamespace
from typing import Any

import attrs
import trio

import cdp
from bench.pages import open_pages
from bench.tables import Table, show

ROUNDS = 15
AT_ONCE = 2
BATCH = 6
PAGES = ("tiny", "megabytes", "images")
WAYS = ("door", "direct")


@attrs.define
class Measured:
    """Of one page, one way."""

    latencies_ms: list[float] = attrs.field(factory=list)
    rates: list[float] = attrs.field(factory=list)
    """Captures a second."""
    own_cpu_ms: list[float] = attrs.field(factory=list)
    """Of this process, without Chromium's: one capture."""


def by_way(browser: cdp.Browser) -> Any:
    """Has the next pages open one way or the other."""
    through_door = browser._create_context

    async def directly(door: object) -> str:
        return await through_door(SimpleNamespace(proxy_url="direct://"))  # type: ignore[arg-type]

    def choose(way: str) -> None:
        browser._create_context = through_door if way == "door" else directly  # type: ignore[method-assign]

    return choose


async def capture(browser: cdp.Browser, url: str, way: str) -> None:
    """One picture, from the opening of the page on."""
    async with browser.open_page() as page:
        await page.navigate(url)
        await page.screenshot()
        assert (page.ledger.connections > 0) == (way == "door")


async def measure(rounds: int) -> Table:
    """A row for each page and way, and what the door changes."""
    policy = cdp.AddressPolicy.parse(["127.0.0.0/8"])
    found = {page: {way: Measured() for way in WAYS} for page in PAGES}
    async with open_pages() as pages, cdp.open_browser(policy=policy) as browser:
        choose = by_way(browser)
        for round_number in range(-1, rounds):  # the first one warms up
            for page, ways in found.items():
                url = pages.urls[page]
                for way in WAYS[:: 1 if round_number % 2 else -1]:
                    choose(way)
                    began, cpu = time.perf_counter(), time.process_time()
                    await capture(browser, url, way)
                    one_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
                    began = time.perf_counter()
                    await captures(browser, url, way)
                    all_s = time.perf_counter() - began
                    if round_number >= 0:
                        ways[way].latencies_ms.append(one_s * 1000)
                        ways[way].own_cpu_ms.append(cpu_s * 1000)
                        ways[way].rates.append(BATCH / all_s)
    return tabulate(found)


async def captures(browser: cdp.Browser, url: str, way: str) -> None:
    """`BATCH` of them, `AT_ONCE` at once."""
    left = BATCH

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await capture(browser, url, way)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(work)


def tabulate(found: dict[str, dict[str, Measured]]) -> Table:
    """Medians; the change is the door's against the direct way, the median of the rounds' own ratios."""
    columns = ("page", "way", "latency ms", "best ms", "p90 ms", "captures/s", "own CPU ms")
    table = Table("What the egress door costs", columns)
    for page, ways in found.items():
        for way, measured in ways.items():
            latencies = sorted(measured.latencies_ms)
            cells = (statistics.median(latencies), latencies[0], latencies[len(latencies) * 9 // 10])
            own = (statistics.median(measured.rates), statistics.median(measured.own_cpu_ms))
            table.rows.append((page, way, *cells, *own))
        door, direct = ways["door"], ways["direct"]
        latency, rate = (
            (statistics.median(a / b for a, b in zip(ours, theirs, strict=True)) - 1) * 100
            for ours, theirs in ((door.latencies_ms, direct.latencies_ms), (door.rates, direct.rates))
        )
        best = (min(door.latencies_ms) / min(direct.latencies_ms) - 1) * 100
        table.rows.append((page, "change in %", latency, best, None, rate, None))
    table.notes.append("On a machine that others use, the best latency tells more than the median.")
    return table


if __name__ == "__main__":
    show([trio.run(measure, int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)])
