"""The same pages and options by us, by puppeteer and by playwright, pictures compared pixel by pixel.

    python -m tests.compare [--only GLOB] [--out FOLDER]

Both tools come from npm into a cache folder and start the same browser with the same switches. The rule is that every
picture of ours equals puppeteer's, in size and in every pixel; where puppeteer cannot do a case, playwright's. What
differs for a reason stands in `KNOWN`. The run ends with 1 when a picture differs from the one that it follows.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import numpy as np
import trio
from PIL import Image

import cdp
from cdp.launcher import find_browser
from cdp.options import CaptureOptions, PageOptions
from tests.site import Site, open_site

from .cases import CASES, DOCUMENTS, TOOLS, Case, Tool, files

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("CLEARIFLOW_COMPARE_CACHE", "/tmp/cleariflow-compare"))
# What matters for pixels and is not a default of both tools.
SWITCHES = (
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--disable-gpu",
    "--lang=en-US",
)
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
CASE_TIMEOUT_S = 30
TOOL_TIMEOUT_S = 300

KNOWN: Mapping[str, str] = MappingProxyType(
    {
        "long-full-scrolled": "we scroll back to the top first: a fixed header stands at the top of the picture",
        "element-edge": "a clip with a negative corner shows another place in Chromium; ours is cut at the page's edge",
        "phone-full-scrolled": "as long-full-scrolled",
        "lazy-layout-full": "they leave what `content-visibility: auto` skips empty, and how much that is, is chance",
    }
)
"""Cases (globs) in which our picture differs from the one it follows, and why."""

ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "element-huge-0.5x": "playwright scrolls elsewhere: a gradient's dither",
        "long-full-0.5x": "half pixels at the edges of sticky boxes",
        "element-*": "playwright takes every pixel touched, puppeteer rounds each corner",
        "clip-fraction-*": "playwright leaves a clip's fractions to Chromium",
        "phone-*element": "playwright loses touch emulation beyond the viewport, and does not round",
        "phone-*full*": "playwright loses touch emulation beyond the viewport",
        "phone-*": "playwright rounds the size of the zoomed-out viewport, not of the picture",
        "generic-fonts": "playwright sets generic font families of its own",
    }
)
"""Cases (globs) in which the two tools differ from each other, and why; we follow puppeteer."""


def _reason(table: Mapping[str, str], name: str) -> str | None:
    return next((reason for pattern, reason in table.items() if fnmatchcase(name, pattern)), None)


@attrs.frozen
class Row:
    """One case: the sizes of the pictures, and None or a difference for each pair."""

    name: str
    sizes: Mapping[Tool, tuple[int, int] | str]
    """In image pixels; the reason where a tool gave no picture, `-` where it cannot do the case."""
    us_puppeteer: str | None
    us_playwright: str | None
    puppeteer_playwright: str | None
    followed: Tool

    @property
    def differs(self) -> str | None:
        """How ours differs from the picture it follows."""
        return self.us_puppeteer if self.followed == "puppeteer" else self.us_playwright


def install() -> Path:
    """The folder whose `node_modules` holds both tools; installed by npm when it is not there yet.

    Raises subprocess.CalledProcessError with npm's own words.
    """
    wanted = (HERE / "package.json").read_text()
    stamp = CACHE / "installed.json"
    if not stamp.is_file() or stamp.read_text() != wanted:
        CACHE.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", CACHE)
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--ignore-scripts"]
        subprocess.run(command, cwd=CACHE, check=True, timeout=180)
        stamp.write_text(wanted)
    return CACHE


def serve(site: Site) -> None:
    """Put every document and file on the site."""
    for path, text in DOCUMENTS.items():
        site.add(path, text)
    for path, (body, content_type) in files().items():
        site.add(path, body, content_type)


async def _shoot_ours(cases: Iterable[Case], site: Site, folder: Path) -> None:
    """Take every case's picture with our own package."""
    policy = cdp.AddressPolicy.parse(["127.0.0.0/8"])
    async with cdp.open_browser(policy=policy) as browser:
        for case in cases:
            if "us" in case.without:
                continue
            file = folder / f"{case.name}.us"
            try:
                with trio.fail_after(CASE_TIMEOUT_S):
                    file.write_bytes(await _take(browser, case, site.url(case.path)))
            except (cdp.errors.CDPError, trio.TooSlowError) as error:
                file.with_suffix(".us.error").write_text(f"{type(error).__name__}: {error}")


async def _take(browser: cdp.Browser, case: Case, url: str) -> bytes:
    page_options = PageOptions(
        url=url,
        viewport=case.viewport,
        color_scheme=case.color_scheme,
        reduced_motion=case.reduced_motion or None,
        media=case.media,
    )
    capture_options = CaptureOptions(
        format=case.format,
        quality=case.quality,
        full_page=case.full_page,
        selector=case.selector,
        clip=case.clip,
        transparent=case.transparent,
        disable_animations=case.disable_animations,
    )
    async with browser.open_page() as page:
        await page.prepare(page_options)
        await page.navigate(url)
        await page.evaluate(f"await {case.script}")
        return (await page.screenshot(capture_options)).data


async def _shoot_theirs(tool: Tool, cases: Iterable[Case], site: Site, folder: Path, modules: Path) -> None:
    """Take every case's picture with one of the two tools, in one run of node."""
    items = [
        {
            **attrs.asdict(case),
            "url": site.url(case.path),
            "script": case.script,
            "clip": attrs.asdict(case.clip) if case.clip is not None else None,
        }
        for case in cases
        if tool not in case.without
    ]
    plan = {
        "executablePath": str(find_browser()),
        "args": [*SWITCHES, *(["--no-sandbox"] if os.geteuid() == 0 else [])],
        "modules": str(modules),
        "folder": str(folder),
        "cases": items,
    }
    file = folder / f"{tool}.json"
    file.write_text(json.dumps(plan))
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment["TZ"] = "UTC"
    with trio.fail_after(TOOL_TIMEOUT_S):
        await trio.run_process(["node", str(HERE / "shoot.mjs"), tool, str(file)], env=environment)


def _read(folder: Path, case: Case, tool: Tool) -> Pixels | str:
    """The decoded picture as height x width x RGBA, or the reason why there is none."""
    if tool in case.without:
        return "-"
    file = folder / f"{case.name}.{tool}"
    if not file.is_file():
        reason = folder / f"{case.name}.{tool}.error"
        return f"error: {reason.read_text() if reason.is_file() else 'no picture'}"
    with Image.open(file) as image:
        return np.asarray(image.convert("RGBA"))


def difference(one: Pixels | str, other: Pixels | str) -> str | None:
    """None when two pictures are equal, else the first thing that is not."""
    if isinstance(one, str):
        return one
    if isinstance(other, str):
        return other
    if one.shape != other.shape:
        return f"size {one.shape[1]}x{one.shape[0]} / {other.shape[1]}x{other.shape[0]}"
    apart = (one != other).any(axis=2)
    count = int(apart.sum())
    if not count:
        return None
    y, x = (int(value) for value in np.argwhere(apart)[0])
    most = int(np.abs(one.astype(np.int16) - other).max())
    sides = f"{one[y, x].tolist()} / {other[y, x].tolist()}"
    return f"{count} px ({count / apart.size:.2%}), by at most {most}; first at {x},{y}: {sides}"


def row(folder: Path, case: Case) -> Row:
    """The pictures of one case, taken before, compared."""
    pictures = {tool: _read(folder, case, tool) for tool in TOOLS}
    sizes = {
        tool: picture if isinstance(picture, str) else (picture.shape[1], picture.shape[0])
        for tool, picture in pictures.items()
    }
    return Row(
        name=case.name,
        sizes=sizes,
        us_puppeteer=difference(pictures["us"], pictures["puppeteer"]),
        us_playwright=difference(pictures["us"], pictures["playwright"]),
        puppeteer_playwright=difference(pictures["puppeteer"], pictures["playwright"]),
        followed="playwright" if "puppeteer" in case.without else "puppeteer",
    )


async def compare(folder: Path, only: str = "*") -> list[Row]:
    """Take all pictures into a folder, `NAME.TOOL`, and compare them; writes `report.json` and `report.txt` too."""
    modules = await trio.to_thread.run_sync(install)
    cases = [case for case in CASES if fnmatchcase(case.name, only)]
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        for old in folder.glob(f"{case.name}.*"):
            old.unlink()
    async with open_site() as site:
        serve(site)
        # One after the other: a page that lacks processor time may paint a frame late.
        await _shoot_ours(cases, site, folder)
        for tool in TOOLS[1:]:
            await _shoot_theirs(tool, cases, site, folder, modules)
    rows = [row(folder, case) for case in cases]
    (folder / "report.json").write_text(json.dumps([attrs.asdict(row) for row in rows], indent=1))
    (folder / "report.txt").write_text(report(rows))
    return rows


def unexplained(rows: Iterable[Row]) -> dict[str, str]:
    """What differs from the picture that it follows without a reason in `KNOWN`."""
    return {row.name: row.differs for row in rows if row.differs is not None and _reason(KNOWN, row.name) is None}


def _mark(said: str | None) -> str:
    if said is None:
        return "equal"
    return "-" if said == "-" else "DIFFER"


def report(rows: Iterable[Row]) -> str:
    """The table as text, with counts."""
    rows = list(rows)
    columns = ("us_puppeteer", "us_playwright", "puppeteer_playwright")
    lines = [f"{'case':28} {'us=pupp':8} {'us=playw':8} {'pu=pl':8} {'size':11} first difference"]
    for row in rows:
        marks = [_mark(getattr(row, column)) for column in columns]
        size = next((f"{said[0]}x{said[1]}" for said in row.sizes.values() if not isinstance(said, str)), "none")
        said = next((said for column in columns if (said := getattr(row, column)) not in (None, "-")), "")
        table = ELSEWHERE if row.differs is None else KNOWN
        if said and (reason := _reason(table, row.name)):
            said += f" [{reason}]"
        lines.append(f"{row.name:28} {marks[0]:8} {marks[1]:8} {marks[2]:8} {size:11} {said}".rstrip())
    for column in columns:
        marks = [_mark(getattr(row, column)) for row in rows]
        counts = f"{marks.count('equal')} equal, {marks.count('DIFFER')} differ, {marks.count('-')} not comparable"
        lines.append(f"{column.replace('_', ' = ')}: {counts}")
    return "\n".join(lines) + "\n"
