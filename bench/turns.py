"""Contenders by turns in one run, and what each used meanwhile.

In each round, for each page and each number at once, every contender has its turn; who begins changes with the round.
Ratios are of the same round, so that a machine whose speed drifts does not change them.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence

import attrs
import numpy as np
import trio

from bench.contenders import RAW, Contender
from bench.pages import Pages
from bench.tables import Cell, Table
from bench.usage import Usage, cpu_s, measured

WARMING = 4
# Before those that count, or as many as are at once. A service has no more pages ready than it has workers.
LEAD = 4
# Of those that count, at least so many times as are at once: they often end together.
ENOUGH = 3
# What is made ready or cleared away after a turn takes 0.1 s.
SETTLING_S = 0.2
# Between them stands the rate's, named by what is made.
COLUMNS_BEFORE = ("at once", "contender")
COLUMNS_AFTER = (
    "of raw",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "CPU ms",
    "own CPU ms",
    "browser CPU ms",
    "own MB",
    "browser MB",
)
EXPLANATION = (
    "captures/s: median of the rounds, each while as many captures are under way as stand in the first column; of raw: "
    "median of the rounds' own ratios; latency: of all captures, from the start of one until its picture is there, in "
    "bytes. CPU of one capture: of the whole machine (with the site and the client), of the contender's own process, "
    "of its browser's processes. MB: peaks; RSS of the process, memory without mapped files of the browser's."
)


@attrs.frozen
class Contest:
    """Those who take turns on one page, each with its number of captures at once; `count` in a turn."""

    page: str
    entries: Sequence[tuple[Contender, int]]
    count: int


@attrs.frozen
class Turn:
    """One turn of one contender, and what was used meanwhile."""

    latencies_ms: list[float]
    rate: float
    """Captures a second."""
    usage: Usage
    """For each capture."""
    others: float
    """The share of the machine's CPU that neither the contender used nor the site nor the bench."""


Turns = dict[tuple[str, int, str], list[Turn]]
"""By page, number at once and contender, a turn for each round."""


async def take_turn(contender: Contender, pages: Pages, url: str, count: int, at: int) -> Turn:
    """Some captures, measured while as many are under way as there shall be.

    The first ones may profit from what was made ready while others had their turn. What is made ready for the next one
    after the last one's end is counted as used, and does not burden whoever is next.
    """
    lead, count = max(LEAD, at), max(count, ENOUGH * at)
    made = lead + count + at - 1
    ours = cpu_s(os.getpid()) + cpu_s(pages.pid)
    async with measured(contender.pid) as usage:
        batch = await contender.run(url, made, at)
        await trio.sleep(SETTLING_S)
    ours = cpu_s(os.getpid()) + cpu_s(pages.pid) - ours
    rate = count / (batch.ends_s[lead + count - 1] - batch.ends_s[lead - 1])
    others = 1 - (usage.own_cpu_s + usage.browser_cpu_s + ours) / usage.machine_cpu_s
    return Turn(batch.latencies_ms[lead : lead + count], rate, usage.each(made), others)


async def by_turns(pages: Pages, contests: Sequence[Contest], rounds: int) -> Turns:
    """Everybody's turns."""
    turns: Turns = {}
    for number in range(rounds):
        for contest in contests:
            begins = number % len(contest.entries)
            for contender, at in (*contest.entries[begins:], *contest.entries[:begins]):
                turn = await take_turn(contender, pages, pages.urls[contest.page], contest.count, at)
                turns.setdefault((contest.page, at, contender.name), []).append(turn)
    return turns


async def warm_up(contender: Contender, pages: Pages, page: str, at: int) -> bytes:
    """Some captures nobody counts; returns the last picture."""
    return (await contender.run(pages.urls[page], max(at, WARMING), at, picture=True)).picture


def tables(turns: Turns, title: str, made: str = "captures") -> list[Table]:
    """A table for each page, in the order of the contests."""
    found: dict[str, Table] = {}
    columns = (*COLUMNS_BEFORE, f"{made}/s", *COLUMNS_AFTER)
    for page, at, name in sorted(turns, key=lambda key: key[1]):
        table = found.setdefault(page, Table(f"{title}: {page}", columns))
        table.rows.append(_row(turns, page, at, name))
    for page, table in found.items():
        mine = [turn for (of, _, _), each in turns.items() if of == page for turn in each]
        others = statistics.mean(turn.others for turn in mine)
        rounds = len(next(iter(turns.values())))
        table.notes.append(f"{rounds} rounds; others on this machine had {others:.1%} of its used CPU.")
        table.drop_empty()
    return list(found.values())


def ratios(found: Sequence[Table]) -> Table:
    """The ratios to the raw loop of all tables."""
    keys = [(table, at) for table in found for at in dict.fromkeys(table.column("at once"))]
    pages = [table.title.rpartition(" ")[2] for table, _ in keys]
    columns = ("contender", *(f"{page}, {at}" for page, (_, at) in zip(pages, keys, strict=True)))
    names = dict.fromkeys(found[0].column("contender"))
    rows: list[tuple[Cell, ...]] = [
        (name, *(table.where("contender", name).where("at once", at).column("of raw")[0] for table, at in keys))
        for name in names
    ]
    return Table("Captures a second, of the raw loop's: page, at once", columns, rows)


def _row(turns: Turns, page: str, at: int, name: str) -> tuple[Cell, ...]:
    own = turns[page, at, name]
    latencies = [latency for turn in own for latency in turn.latencies_ms]
    ratio = None
    if (raw := turns.get((page, at, RAW))) is not None:
        ratio = statistics.median(ours.rate / theirs.rate for ours, theirs in zip(own, raw, strict=True))
    return (
        at,
        name,
        statistics.median(turn.rate for turn in own),
        ratio,
        *map(float, np.quantile(latencies, (0.5, 0.95, 0.99))),
        statistics.mean(turn.usage.machine_cpu_s for turn in own) * 1000,
        statistics.mean(turn.usage.own_cpu_s for turn in own) * 1000,
        statistics.mean(turn.usage.browser_cpu_s for turn in own) * 1000,
        max(turn.usage.own_peak_mb for turn in own),
        max(turn.usage.browser_peak_mb for turn in own),
    )
