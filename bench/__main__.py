"""How fast everything is: tables (report.md), their figures (report.json) and plots (PNG) in a folder.

    python -m bench [--quick] [--only SECTION,...] [--out FOLDER]

Two contenders on one page: `--only captures --contenders raw,service-load --pages tiny`. Before and after: with
`--service-src FOLDER` the service of another checkout takes part in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from bench import backlog, captures, load, startup, store
from bench.contenders import NAMES, TOOLS
from bench.options import COUNTS, Options
from bench.tables import Table, show

PAGES = ("tiny", "document", "app")
Section = Callable[[Options], Awaitable[list[Table]]]
SECTIONS: dict[str, Section] = {
    "captures": captures.measure_captures,
    "scrapes": captures.measure_scrapes,
    "submissions": load.measure_submissions,
    "clients": load.measure_clients,
    "store": store.measure_store,
    "start": startup.measure_start,
    "backlog": backlog.measure_backlog,
    "sizes": captures.measure_sizes,
}


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("/tmp/cleariflow-bench"), metavar="FOLDER")
    parser.add_argument("--only", type=words, default=tuple(SECTIONS), metavar="SECTION,...", help=", ".join(SECTIONS))
    parser.add_argument(
        "--rounds", type=int, help="of captures; default: 2, or 1 with --quick; scrapes and sizes have half as many"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller stores, shorter waits")
    parser.add_argument("--contenders", type=words, default=NAMES, metavar="NAME,...", help=", ".join(NAMES))
    parser.add_argument("--pages", type=words, default=PAGES, metavar="NAME,...", help=", ".join(COUNTS))
    parser.add_argument("--at", type=numbers, default=(1, 2, 4), metavar="NUMBER,...", help="captures at once")
    parser.add_argument(
        "--service-arg", action="append", default=[], metavar="FLAG", help="for the service; repeatable"
    )
    parser.add_argument(
        "--service-src", action="append", default=[], type=Path, metavar="FOLDER", help="another checkout; repeatable"
    )
    given = parser.parse_args()
    options = Options(
        rounds=given.rounds or (1 if given.quick else 2),
        contenders=given.contenders,
        pages=given.pages,
        at=given.at,
        service_args=tuple(given.service_arg),
        sources=tuple(source.resolve() for source in given.service_src),
        quick=given.quick,
    )
    for known, asked in ((SECTIONS, given.only), (NAMES, options.contenders), (COUNTS, options.pages)):
        if unknown := set(asked) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    if set(TOOLS) & set(options.contenders) and shutil.which("node") is None:
        parser.error(f"{' and '.join(TOOLS)} need Node.js: install it, or leave them out by --contenders")
    given.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Table]] = {}
    for name in given.only:
        began = time.monotonic()
        found[name] = trio.run(measure, SECTIONS[name], options)
        show(found[name])
        print(f"({name}: {time.monotonic() - began:.0f} s)\n", flush=True)
        write(given.out, found)
        draw(given.out, name, found[name])
    return 0


async def measure(section: Section, options: Options) -> list[Table]:
    """Run a section; SIGTERM and SIGINT end it, and all that it has started."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                number = await anext(signals)
                nursery.cancel_scope.cancel()
                stopped.append(number)

            stopped: list[int] = []
            nursery.start_soon(stop)
            tables = await section(options)
            nursery.cancel_scope.cancel()
    if stopped:
        sys.exit(128 + stopped[0])
    return tables


def draw(folder: Path, name: str, tables: list[Table]) -> None:
    """The section's plot, if it has one."""
    try:
        from bench import plots
    except ImportError as error:
        print(f"no plots: {error}; pip install '.[bench]'\n")
        return
    if plot := plots.draw(name, tables, folder):
        print(f"plot: {plot}\n", flush=True)


def write(folder: Path, found: dict[str, list[Table]]) -> None:
    """All that was found so far."""
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    figures = {name: [table.document() for table in tables] for name, tables in found.items()}
    (folder / "report.json").write_text(json.dumps({"command": sys.argv, "machine": machine} | figures, indent=1))
    text = "\n".join(table.markdown() for tables in found.values() for table in tables)
    (folder / "report.md").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
