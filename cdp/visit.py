"""A page's way from opening to the moment of its capture, as the options ask: prepare, navigate, inject, wait, act."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import trio

from .actions import Record, perform
from .capture import MAX_PIXELS
from .errors import TooLarge
from .options import CaptureOptions, PageOptions, WaitFor
from .page import Page
from .settle import MOVE_BUDGET_S

# How much of an expression a message repeats.
MAX_ECHO = 100
# Of all pictures, and of the JSON of all values, that the actions of one visit give: they are held until it ends.
MAX_PICTURES_BYTES = 2**28
MAX_VALUES_CHARS = 2**20

# The waits of `settle`: what has not come, should time run out in one.
_SETTLING = {
    "requests": "requests were in flight",
    "quiet": "the document was changing",
    "canvas": "a canvas was being drawn",
    "fonts": "fonts were not ready",
    "images": "images were not ready",
    "frames": "nothing was painted",
}

# In their order; what acts or scrolls settles more than once. A plain fetch has `navigate`, `capture` and `close`.
PHASES = (
    *("open", "prepare", "navigate", "arrive", "inject", *_SETTLING),
    *("wait_for", "wait_for_expression", "wait", "actions", "scroll", "capture", "close"),
)


class Progress:
    """Which phase an attempt is in, and how many ms each took; `on_phase` is told of each.

    `unfinished` says what has not come, should time run out in this phase.
    """

    def __init__(self, on_phase: Callable[[str], None] = lambda phase: None) -> None:
        self.phase = "open"
        self.unfinished = "no page could be opened"
        # Of the action that is under way.
        self.index: int | None = None
        self.timings: dict[str, int] = {}
        self._on_phase = on_phase
        self._since = self._started = trio.current_time()

    def enter(self, phase: str, unfinished: str) -> None:
        """End the phase before and begin this one."""
        now = trio.current_time()
        self.timings[self.phase] = self.timings.get(self.phase, 0) + round((now - self._since) * 1000)
        self.phase, self.unfinished, self._since = phase, unfinished, now
        self._on_phase(phase)

    @property
    def phases_s(self) -> dict[str, float]:
        """How many seconds each phase took so far, the present one too."""
        phases_s = {phase: took_ms / 1000 for phase, took_ms in self.timings.items()}
        phases_s[self.phase] = phases_s.get(self.phase, 0.0) + trio.current_time() - self._since
        return phases_s

    @property
    def elapsed_ms(self) -> int:
        """Since the attempt began."""
        return round((trio.current_time() - self._started) * 1000)


@attrs.define
class Visit:
    """One page on its way.

    `shot` is what the picture will show, where there will be one; `selector` is the element that the capture needs.
    `records` tell what became of the actions so far.
    """

    page: Page
    options: PageOptions
    progress: Progress
    shot: CaptureOptions | None = None
    selector: WaitFor | None = None
    max_pixels: int = MAX_PIXELS
    records: list[Record] = attrs.field(factory=list)

    async def open(self) -> None:
        """Prepare the page and load its document. Raises NavigationError, NotAPage, InvalidOption."""
        page, options, progress = self.page, self.options, self.progress
        progress.enter("prepare", "the page could not be prepared")
        await page.prepare(options)
        progress.enter("navigate", "the server did not answer")
        if options.url is not None:
            await page.navigate(options.url, wait_until=options.wait_until, hold=options.wait_until == "auto")
        else:
            assert options.html is not None
            await page.set_content(options.html, options.base_url, wait_until=options.wait_until)
        if options.wait_until == "auto":
            progress.enter("arrive", "the page was on its way to another document")
            await page.arrive(MOVE_BUDGET_S)

    async def make_ready(self) -> None:
        """Inject, wait and act, until the page can be captured.

        Raises ScriptError, InvalidSelector, SelectorNotFound, ActionFailed, TooLarge.
        """
        self.progress.enter("inject", "css and js were not injected")
        await self.page.dress()
        await self.page.run_scripts()
        await self._settle()
        await self._wait()
        await self._act()
        if self.shot is not None and self.shot.scroll_page:
            self.progress.enter("scroll", "the page was not scrolled through")
            await self.page.scroll_through(self.shot.max_height)
            await self._settle()
        await self.page.come_back()

    async def _settle(self) -> None:
        if self.options.wait_until == "auto":
            beyond = self.shot is not None and (self.shot.full_page or self.shot.clip is not None)
            await self.page.settle(lambda step: self.progress.enter(step, _SETTLING[step]), whole_page=beyond)

    async def _wait(self) -> None:
        page, options, progress = self.page, self.options, self.progress
        for wait in (*options.wait_for, *([self.selector] if self.selector is not None else ())):
            missing = f"selector {wait.selector!r} was not {wait.state}"
            progress.enter("wait_for", missing)

            def tell(why: str, missing: str = missing) -> None:
                progress.unfinished = f"{missing} ({why})"

            await page.wait_for(wait, tell)
        if options.wait_for_expression is not None:
            progress.enter("wait_for_expression", f"{options.wait_for_expression[:MAX_ECHO]!r} was not true")
            await page.wait_for_expression(options.wait_for_expression)
        progress.enter("wait", "wait_ms was not over")
        await page.sleep(options.wait_ms / 1000)

    async def _act(self) -> None:
        encoding = CaptureOptions()
        if self.shot is not None:
            encoding = CaptureOptions(
                format=self.shot.format, quality=self.shot.quality, transparent=self.shot.transparent
            )
        pictures_bytes = values_chars = 0
        for index, action in enumerate(self.options.actions):

            def tell(sentence: str, index: int = index, kind: str = action.type) -> None:
                self.progress.unfinished = f"action {index} ({kind}): {sentence}"

            self.progress.enter("actions", "")
            self.progress.index = index
            record = await perform(
                self.page, action, index, picture_options=encoding, max_pixels=self.max_pixels, tell=tell
            )
            self.records.append(record)
            pictures_bytes += len(record.picture.data) if record.picture is not None else 0
            values_chars += len(json.dumps(record.value))
            if pictures_bytes > MAX_PICTURES_BYTES:
                limit = f"{MAX_PICTURES_BYTES // 2**20} MiB"
                raise TooLarge(f"the pictures of actions 0 to {index} are over the limit of {limit} in all")
            if values_chars > MAX_VALUES_CHARS:
                limit = f"{MAX_VALUES_CHARS // 2**10} KiB of JSON"
                raise TooLarge(f"the values of actions 0 to {index} are over the limit of {limit} in all")
        if self.options.actions:
            await self._settle()
