"""What a run of the bench is asked for."""

from __future__ import annotations

from pathlib import Path

import attrs

COUNTS = {"tiny": 16, "document": 8, "app": 8, "swagger": 8}
"""Captures in one turn, by page."""


@attrs.frozen(kw_only=True)
class Options:
    """See `python -m bench --help`."""

    rounds: int
    contenders: tuple[str, ...]
    pages: tuple[str, ...]
    at: tuple[int, ...]
    service_args: tuple[str, ...]
    sources: tuple[Path, ...]
    quick: bool

    @property
    def fewer_rounds(self) -> int:
        """Where nobody's ratio hangs on them."""
        return max(1, self.rounds // 2)

    def count(self, page: str) -> int:
        """Captures in one turn."""
        return COUNTS[page] // 2 if self.quick else COUNTS[page]
