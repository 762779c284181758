"""What the bench found: tables, as Markdown for the eye and as JSON."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import attrs

Cell = str | int | float | None


def shown(value: Cell) -> str:
    """Three figures of a number are enough."""
    if not isinstance(value, float):
        return "-" if value is None else f"{value:,}" if isinstance(value, int) else value
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


@attrs.define
class Table:
    """Figures in rows; `notes` are sentences below it."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)

    def column(self, name: str) -> list[Any]:
        """What stands in one column."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def where(self, name: str, value: Cell) -> Table:
        """The rows with a value in one column."""
        rows = [row for row, cell in zip(self.rows, self.column(name), strict=True) if cell == value]
        return attrs.evolve(self, rows=rows)

    def drop_empty(self) -> None:
        """Leave out the columns in which nothing stands."""
        kept = [any(cell is not None for cell in column) for column in zip(*self.rows, strict=True)]
        self.columns = tuple(itertools.compress(self.columns, kept))
        self.rows = [tuple(itertools.compress(row, kept)) for row in self.rows]

    def markdown(self) -> str:
        """Aligned, so that it reads without being rendered; columns of numbers stand to the right."""
        lines = [self.columns, *(tuple(map(shown, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        right = [
            all(isinstance(cell, int | float | None) for cell in column) for column in zip(*self.rows, strict=True)
        ]
        texts = [
            "| "
            + " | ".join(
                text.rjust(width) if at_right else text.ljust(width)
                for text, width, at_right in zip(line, widths, right, strict=True)
            )
            + " |"
            for line in lines
        ]
        rule = "|".join(
            "-" * (width + 1) + (":" if at_right else "-") for width, at_right in zip(widths, right, strict=True)
        )
        texts.insert(1, f"|{rule}|")
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"### {self.title}\n\n" + "\n".join(texts) + f"\n{notes}"

    def document(self) -> dict[str, Any]:
        """For JSON: a row is an object."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": self.notes}


def show(tables: Iterable[Table]) -> None:
    """Print tables."""
    for table in tables:
        print(table.markdown(), flush=True)
