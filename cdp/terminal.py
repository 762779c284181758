"""What a run tells on the terminal: a line for each end, a bar while it lasts, and data on standard output."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Hashable
from typing import Any

import click

from .texts import printable


def write_out(data: bytes) -> None:
    """Write to standard output. Not by Python's buffer: given up in the middle, it would hold the exit."""
    place = sys.stdout.fileno()
    if os.isatty(place) and not data.endswith(b"\n"):
        data += b"\n"
    left = memoryview(data)
    while left:
        left = left[os.write(place, left) :]


class Display:
    """What a person sees on stderr: a line for each end and, on a terminal, a bar with what is under way."""

    def __init__(self, count: int, quiet: bool) -> None:
        self.failed = self._done = 0
        self._count, self._quiet = count, quiet
        # Of all that is under way, what it is called and where it is.
        self._phases: dict[Hashable, tuple[str, str]] = {}
        self._bar: Any = None
        if sys.stderr.isatty() and not quiet:
            look: dict[str, Any] = {"width": 20, "bar_template": "\x1b[K[%(bar)s] %(info)s", "show_pos": True}
            self._bar = click.progressbar(
                length=count, file=sys.stderr, item_show_func=lambda _: self._under_way(), **look
            )

    def _under_way(self) -> str:
        """What the bar says beside its figures, in the room that they leave."""
        failed = f"{self.failed} failed  " if self.failed else ""
        if not self._phases:
            return failed
        name, phase = next(reversed(self._phases.values()))
        more = f" and {len(self._phases) - 1} more" if len(self._phases) > 1 else ""
        room = shutil.get_terminal_size().columns - len(f"{failed}: {phase}{more}") - 2 * len(str(self._count)) - 37
        return f"{failed}{printable(name)[: max(room, 0)]}: {phase}{more}"

    def show(self, key: Hashable, name: str, phase: str) -> None:
        """Show the phase that something is in, and by which name."""
        self._phases.pop(key, None)
        self._phases[key] = name, phase
        if self._bar is not None:
            self._bar.render_progress()

    def leave(self, key: Hashable) -> None:
        """Count what has ended."""
        self._phases.pop(key, None)
        self._done += 1
        if self._bar is not None:
            self._bar.update(1)

    def clear(self, more: str = "") -> None:
        """Take the bar away, until something changes."""
        if self._bar is not None:
            print(f"\r\x1b[K{more}", end="", file=sys.stderr, flush=True)

    def tell(self, text: str, always: bool = False) -> None:
        """One line; `always`: also when little is to be told."""
        if always or not self._quiet:
            self.clear()
            # That nobody reads it must not end what it tells of.
            with contextlib.suppress(OSError):
                print(printable(text), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the terminal as it was, and sum up there."""
        self.clear("\x1b[?25h")
        if self._bar is not None and self._count > 1:
            self.tell(f"{self._done - self.failed} done, {self.failed} failed, of {self._count}")
