"""What the egress door costs: python -m bench.relay [ROUNDS]

Pages of a site in a process of its own, captured through our door and by a direct connection of Chromium's, by turns in
one run: one at a time for the latency, two at a time for the captures a second. The last line is the table as JSON.
"""

from __future__ import annotations

import io
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import attrs
import trio
from PIL import Image

import cdp
from tests.site import open_site

ROUNDS = 15
AT_ONCE = 2
BATCH = 6
IMAGES = 50
DOCUMENT_BYTES = 2_000_000
WAYS = ("door", "direct")


@attrs.define
class Measured:
    """Of one page, one way."""

    latencies_ms: list[float] = attrs.field(factory=list)
    rates: list[float] = attrs.field(factory=list)
    """Captures a second."""
    own_cpu_ms: list[float] = attrs.field(factory=list)
    """Of this process, without Chromium's: one capture."""


def noise(seed: int) -> bytes:
    """A picture of 30 KB."""
    file = io.BytesIO()
    Image.frombytes("RGB", (100, 100), random.Random(seed).randbytes(30_000)).save(file, "PNG")
    return file.getvalue()


async def serve() -> None:
    """Run the site until it is killed; its pages' URLs go to standard output."""
    async with open_site() as site:
        paragraph = "<p>" + "words of a long document " * 20
        urls = {
            "tiny page": site.add("/tiny", "<p>tiny"),
            "2 MB document": site.add("/long", paragraph * (DOCUMENT_BYTES // len(paragraph))),
        }
        for number in range(IMAGES):
            site.add(f"/image-{number}", noise(number), "image/png")
        tags = "".join(f"<img src=/image-{number}>" for number in range(IMAGES))
        urls[f"{IMAGES} images"] = site.add("/images", tags)
        print(json.dumps(urls), flush=True)
        await trio.sleep_forever()


@contextmanager
def site() -> Iterator[dict[str, str]]:
    """URLs by the pages' names."""
    command = [sys.executable, "-m", "bench.relay", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


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


async def main(rounds: int) -> None:
    """Measure and print."""
    policy = cdp.AddressPolicy.parse(["127.0.0.0/8"])
    with site() as urls:
        table = {name: {way: Measured() for way in WAYS} for name in urls}
        async with cdp.open_browser(policy=policy) as browser:
            choose = by_way(browser)
            for round_number in range(-1, rounds):  # the first one warms up
                for name, url in urls.items():
                    for way in WAYS[:: 1 if round_number % 2 else -1]:
                        choose(way)
                        began, cpu = time.perf_counter(), time.process_time()
                        await capture(browser, url, way)
                        one_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
                        began = time.perf_counter()
                        await captures(browser, url, way)
                        all_s = time.perf_counter() - began
                        if round_number >= 0:
                            measured = table[name][way]
                            measured.latencies_ms.append(one_s * 1000)
                            measured.own_cpu_ms.append(cpu_s * 1000)
                            measured.rates.append(BATCH / all_s)
    show(table)


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


def show(table: dict[str, dict[str, Measured]]) -> None:
    """Medians; the change is the door's against the direct way, the median of the rounds' own ratios.

    On a machine that others use, the best latency tells more than the median.
    """
    print(f"{'page':16} {'way':7} {'latency ms':>10} {'best':>6} {'p90':>6} {'captures/s':>11} {'own CPU ms':>11}")
    rows = []
    for name, ways in table.items():
        for way, measured in ways.items():
            p90 = sorted(measured.latencies_ms)[len(measured.latencies_ms) * 9 // 10]
            row = {
                "page": name,
                "way": way,
                "latency_ms": round(statistics.median(measured.latencies_ms), 1),
                "latency_best_ms": round(min(measured.latencies_ms), 1),
                "latency_p90_ms": round(p90, 1),
                "captures_per_s": round(statistics.median(measured.rates), 2),
                "own_cpu_ms": round(statistics.median(measured.own_cpu_ms), 1),
            }
            rows.append(row)
            print(
                f"{name:16} {way:7} {row['latency_ms']:10} {row['latency_best_ms']:6} {row['latency_p90_ms']:6} "
                f"{row['captures_per_s']:11} {row['own_cpu_ms']:11}"
            )
        door, direct = ways["door"], ways["direct"]
        latency, rate = (
            (statistics.median(a / b for a, b in zip(ours, theirs, strict=True)) - 1) * 100
            for ours, theirs in ((door.latencies_ms, direct.latencies_ms), (door.rates, direct.rates))
        )
        best = (min(door.latencies_ms) / min(direct.latencies_ms) - 1) * 100
        print(f"{'':16} {'change':7} {latency:+9.1f}% {best:+5.0f}% {'':6} {rate:+10.1f}%")
    print(json.dumps({"cores": os.cpu_count(), "rounds": len(next(iter(table.values()))["door"].rates), "rows": rows}))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        trio.run(serve)
    else:
        trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
