"""Measured by turns: captures beside everybody else's, scrapes, and captures by services of different sizes."""

from __future__ import annotations

import io
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.contenders import RAW, Contender, ServiceContender, open_contenders, open_service, screenshot
from bench.options import Options
from bench.pages import open_pages
from bench.tables import Table
from bench.turns import EXPLANATION, Contest, by_turns, ratios, tables, warm_up
from tests.compare import difference

SCRAPES: dict[str, dict[str, Any]] = {
    "load": {"wait_until": "load"},
    "auto": {"wait_until": "auto"},
    "render: false": {"render": False},
}
# A browser that is replaced in a turn would take the count of its CPU with it.
SAME_BROWSER = ("--browser-uses", "0")
WORKERS = (1, 2, 3, 4, 6, 8)
BROWSERS = (1, 2)


async def measure_captures(options: Options) -> list[Table]:
    """All contenders on all pages."""
    warnings: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        flags = [*SAME_BROWSER, "--workers", str(max(options.at)), *options.service_args]
        async with (
            open_pages() as pages,
            open_contenders(options.contenders, Path(folder), flags, options.sources) as contenders,
        ):
            for page in options.pages:
                pictures = {one.name: await warm_up(one, pages, page, max(options.at)) for one in contenders}
                warnings += [f"WARNING: {page}: {difference}" for difference in compare(pictures)]
            contests = [
                Contest(page, [(one, at) for one in contenders], options.count(page))
                for page in options.pages
                for at in options.at
            ]
            turns = await by_turns(pages, contests, options.rounds)
    found = tables(turns, "Captures")
    found[-1].notes += [EXPLANATION, *warnings]
    return [*found, ratios(found)] if RAW in options.contenders else found


def compare(pictures: dict[str, bytes]) -> list[str]:
    """Pictures that are not as large as the first, and the service's whose pixels are not those of the raw loop."""
    decoded = {name: np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")) for name, data in pictures.items()}
    first = next(iter(decoded))
    found = []
    for name, picture in decoded.items():
        by_pixel = first == RAW and name.startswith("service")
        if (by_pixel or picture.shape != decoded[first].shape) and (said := difference(picture, decoded[first])):
            found.append(f"{name} differs from {first}: {said}")
    return found


async def measure_scrapes(options: Options) -> list[Table]:
    """Documents, with a browser and without."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [*SAME_BROWSER, "--workers", str(max(options.at)), *options.service_args]
        async with open_pages() as pages, open_service(Path(folder), *flags) as server:
            contests = []
            for page in options.pages:
                contenders = [ServiceContender(name, server, "scrape", fields) for name, fields in SCRAPES.items()]
                for contender in contenders:
                    await warm_up(contender, pages, page, max(options.at))
                *rendered, plain = contenders
                for at in options.at:
                    contests.append(Contest(page, [(one, at) for one in rendered], options.count(page)))
                    contests.append(Contest(page, [(plain, at)], 10 * options.count(page)))
            return tables(await by_turns(pages, contests, options.fewer_rounds), "Scrapes", "scrapes")


async def measure_sizes(options: Options) -> list[Table]:
    """Services of different sizes, each with as many clients as workers, on the first two pages."""
    async with open_pages() as pages, AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        entries: list[tuple[Contender, int]] = []
        for browsers in BROWSERS:
            for workers in WORKERS:
                flags = ["--workers", str(workers), "--browsers", str(browsers), *SAME_BROWSER, *options.service_args]
                server = await stack.enter_async_context(open_service(folder / f"{workers}-{browsers}", *flags))
                name = f"{browsers} browser{'s' * (browsers > 1)}"
                entries.append((ServiceContender(name, server, "screenshot", screenshot("load")), workers))
        contests = [Contest(page, entries, options.count(page)) for page in options.pages[:2]]
        for contest in contests:
            for contender, at in entries:
                await warm_up(contender, pages, contest.page, at)
        return tables(await by_turns(pages, contests, options.fewer_rounds), "Sizes of the service, wait_until: load")
