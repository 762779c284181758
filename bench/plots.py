"""Plots of what the bench found, as PNG; they need matplotlib (`pip install '.[bench]'`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from bench.tables import Table

SIZE = (5.0, 4.0)
"""Inches of one diagram."""


def draw(name: str, tables: Sequence[Table], folder: Path) -> Path | None:
    """The plot of a section, None where it has none."""
    if (plot := PLOTS.get(name)) is None:
        return None
    file = folder / f"{name}.png"
    plot(tables).savefig(file, dpi=100)
    return file


def by_turns(tables: Sequence[Table]) -> Figure:
    """For each page (a column) latency and rate against how many ran at once."""
    tables = [table for table in tables if "at once" in table.columns]
    figure, axes = _figure(2, len(tables))
    for (above, below), table in zip(axes.T, tables, strict=True):
        rate = table.columns[2]
        for name in dict.fromkeys(table.column("contender")):
            mine = table.where("contender", name)
            at = mine.column("at once")
            (line,) = above.plot(at, mine.column("p50 ms"), marker="o", label=name)
            above.plot(at, mine.column("p95 ms"), linestyle="--", color=line.get_color())
            below.plot(at, mine.column(rate), marker="o", label=name, color=line.get_color())
        for diagram in (above, below):
            diagram.set_xticks(sorted(set(table.column("at once"))))
        _label(above, table.title, "at once", "latency ms: median, p95 dashed")
        _label(below, "", "at once", rate)
    return figure


def store(tables: Sequence[Table]) -> Figure:
    """What one change and whole-store operations cost at size."""
    (table,) = tables
    figure, ((left, right),) = _figure(1, 2)
    for axes, names, unit in (
        (left, ("queued us", "running us", "done us"), "us of one change, without fsync"),
        (right, ("newest 100 ms", "filter ms", "fold ms"), "ms"),
    ):
        for name in names:
            axes.plot(table.column("jobs"), table.column(name), marker="o", label=name)
        _label(axes, table.title, "jobs", unit, logarithmic=True)
    return figure


def backlog(tables: Sequence[Table]) -> Figure:
    """Captures a second against the queue's length."""
    (table,) = tables
    figure, ((axes,),) = _figure(1, 1)
    axes.plot(table.column("queued"), table.column("captures/s"), marker="o", label="captures/s")
    _label(axes, table.title, "queued jobs", "captures/s", logarithmic=True)
    return figure


PLOTS: dict[str, Callable[[Sequence[Table]], Figure]] = {
    "captures": by_turns,
    "scrapes": by_turns,
    "sizes": by_turns,
    "store": store,
    "backlog": backlog,
}


def _figure(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(SIZE[0] * columns, SIZE[1] * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _label(axes: Axes, title: str, x: str, y: str, *, logarithmic: bool = False) -> None:
    """From zero on: differences look as large as they are."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
