"""Supervised browsers: some number of them kept running, and pages opened in the one with the fewest, or ahead.

Opening a page takes half as long as a capture of a small one. A task of the pool's opens each, ahead where that is
asked for, and closes it when nobody waits for that any more.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import signal
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

import attrs
import trio

from .browser import Browser
from .errors import CDPError, ConnectionClosed, LaunchError, SessionClosed, TargetCrashed
from .page import Page
from .processes import of_group
from .tasks import in_thread, open_tasks

logger = logging.getLogger("cdp")

OpenBrowser = Callable[[], AbstractAsyncContextManager[Browser]]
OpenPage = Callable[[], AbstractAsyncContextManager[Page]]
# Why a browser was given up.
Retirement = Literal["ended", "uses", "memory", "idle"]

# Waits after launches that failed, or browsers that ended before `STABLE_S`: a missing browser is noticed when it is
# installed, without a busy loop.
BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)
STABLE_S = 10.0
# Between two looks at a browser's memory, and at how long nobody used it.
LOOK_S = 1.0
# Between two questions of the watchdog, and how long a browser may leave one unanswered.
WATCH_S = 5.0
HUNG_S = 10.0
# Of pages whose work is done; who ends with more of them on their way out waits for its own.
MAX_CLOSING = 4


@attrs.frozen(kw_only=True)
class Limits:
    """When a browser is replaced though it runs; None is never."""

    uses: int | None = None
    """Pages opened in it."""
    memory_bytes: int | None = None
    """Held by its processes together. A page with more than half of that loses its renderer instead, and over twice
    that nothing is waited for."""
    idle_s: float | None = None
    """Without a page in any browser; the next page starts one again."""


NO_LIMITS = Limits()


@attrs.frozen
class Usage:
    """What the processes of all browsers use, or used."""

    processes: int
    held_bytes: int
    """As `Limits.memory_bytes` counts it."""
    cpu_s: float
    """Since the pool was opened; it never falls. What a browser used after the last look at it is not in it."""


@attrs.frozen
class PageCounts:
    """How many pages there are."""

    in_use: int
    ahead: int
    """Open, or opening, for nobody yet."""
    opened: int
    """Since the pool was opened."""


@attrs.define(eq=False)
class _Hosted:
    """A page in the keeping of a task, which opens and closes it."""

    life: _Life
    page: Page | None = None
    opened: trio.Event = attrs.field(factory=trio.Event)
    """Or not: then `fault` says why."""
    released: trio.Event = attrs.field(factory=trio.Event)
    closed: trio.Event = attrs.field(factory=trio.Event)
    taken: bool = False
    user: trio.CancelScope | None = None
    thrown: BaseException | None = None
    """What ended its use, where the closing may know better."""
    fault: Exception | None = None
    context: contextvars.Context = attrs.field(factory=contextvars.Context)
    """Of who took it: what the log tells with it."""


@attrs.define(eq=False)
class _Life:
    """A browser in the pool."""

    browser: Browser
    alone: bool = False
    pages: int = 0
    """That were opened by the pool."""
    cpu_s: float = 0.0
    """The most that was seen: a process that has ended, and not been waited for yet, is missed."""
    hosts: set[_Hosted] = attrs.field(factory=set)
    ahead: deque[_Hosted] = attrs.field(factory=deque)
    """Those of them that nobody has taken yet."""
    retired: trio.Event = attrs.field(factory=trio.Event)
    """It gets no further pages."""
    reason: str = ""
    """Then one of `ended` (a hung one too), `uses`, `memory`, `idle`."""
    reserved: bool = False
    """For the body of `Pool.alone`."""


class Pool:
    """Browsers that are relaunched when they end, hang or reach a limit; made by `open_pool`.

    A browser at a limit is replaced at once, and closed when its last page is. `fault` is the text of the last launch
    that failed, None while browsers run; `launches`, `failures` (of launches), `retired` (by reason) and
    `renderers_killed` count.
    """

    def __init__(
        self, tasks: trio.Nursery, open_one: OpenBrowser, browsers: int, limits: Limits, pages_ahead: int
    ) -> None:
        self.fault: str | None = None
        self.launches = self.failures = 0
        self.retired: Counter[Retirement] = Counter()
        self.renderers_killed = 0
        # Why the last browser was given up.
        self._lost = ""
        # Browsers were closed since nobody needed them.
        self._asleep = False
        self._tasks = tasks
        self._open_one = open_one
        self._limits = limits
        self._pages_ahead = pages_ahead
        self._lives: list[_Life] = []
        self._lonely = trio.Semaphore(browsers)
        self._closing = False
        self._changed = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        # Of browsers that have ended.
        self._pages_opened, self._cpu_s = 0, 0.0
        # Pages that are open, or wait for a browser; and since when there are none.
        self._users = 0
        self._unused_since = trio.current_time()

    @property
    def browser(self) -> Browser | None:
        """The running browser with the fewest pages, or None."""
        life = self._freest()
        return life.browser if life is not None else None

    @property
    def available(self) -> bool:
        """Whether a page can be had: a browser runs, or is started when one is asked for."""
        return self._asleep or self.browser is not None

    @property
    def state(self) -> str:
        """Whether there is a browser, and why not, in words."""
        if self.browser is not None:
            return f"{self.browser.product} runs"
        if self._asleep:
            return "no browser runs; the next job starts one"
        if self.fault is not None:
            return f"no browser can be started: {self.fault}"
        return "the browser is starting" + (f"; the one before was given up: {self._lost}" if self._lost else "")

    @property
    def pages(self) -> PageCounts:
        """How many there are of each kind."""
        hosts = [hosted for life in self._lives for hosted in life.hosts]
        in_use = sum(hosted.taken and not hosted.released.is_set() for hosted in hosts)
        return PageCounts(
            in_use=in_use + sum(life.browser.pages_open for life in self._lives if life.alone),
            ahead=sum(len(life.ahead) for life in self._lives),
            opened=self._pages_opened + sum(life.browser.pages_opened for life in self._lives),
        )

    async def usage(self) -> Usage:
        """What the browsers use now; a look at all processes of the machine."""
        lives = list(self._lives)
        found = [(0, 0, 0.0)] * len(lives)
        with contextlib.suppress(OSError):
            found = await in_thread(
                lambda: [_usage(life.browser.pid) for life in lives], abandon_on_cancel=True, limiter=self._thread
            )
        for life, (_, _, cpu_s) in zip(lives, found, strict=True):
            if life in self._lives:
                life.cpu_s = max(life.cpu_s, cpu_s)
        cpu_s = self._cpu_s + sum(life.cpu_s for life in self._lives)
        return Usage(sum(count for count, _, _ in found), sum(held for _, held, _ in found), cpu_s)

    def _usable(self) -> list[_Life]:
        return [
            life for life in self._lives if not (life.alone or life.retired.is_set() or life.browser.ended.is_set())
        ]

    def _freest(self) -> _Life | None:
        return min(self._usable(), key=lambda life: life.browser.pages_open, default=None)

    def give_up(self) -> None:
        """Let nobody wait for a browser's answer any more, and start none: the pool is about to be closed."""
        self._closing = True
        for life in self._lives:
            life.browser.condemn("the pool is closed")

    def wake(self) -> None:
        """Have browsers started that were closed since nobody needed them."""
        if self._asleep:
            self._asleep = False
            self._notify()

    async def ready(self) -> None:
        """Wait until a browser runs."""
        self.wake()
        while self.browser is None:
            await self.changed()

    async def changed(self) -> None:
        """Wait until a browser has started, or failed to."""
        await self._changed.wait()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[OpenPage]:
        """A browser that nobody else uses, started for the body, which gets its `open_page`.

        There a page that takes its browser with it harms nobody. Waits where as many as the pool keeps are in use;
        where none can be started, it is the pool's own `open_page`.
        """
        async with self._lonely:
            try:
                # Not a child of the body's: cancelled with it, it could not close a page.
                life: _Life = await self._tasks.start(self._live, True)
            except (LaunchError, ConnectionClosed) as error:
                self.failures += 1
                logger.warning("no browser for one page alone: %s", error)
                yield self.open_page
                return
            try:
                yield life.browser.open_page
            finally:
                life.reserved = False

    @asynccontextmanager
    async def open_page(self) -> AsyncIterator[Page]:
        """`Browser.open_page` of a running browser, or a page that was opened ahead; waits for a browser.

        A page whose use ended well is closed after the body's end, by the pool.
        """
        self._users += 1
        try:
            hosted = await self._take()
            async with self._used(hosted) as page:
                yield page
        finally:
            self._users -= 1
            self._unused_since = trio.current_time()
            self._open_ahead()

    async def _take(self) -> _Hosted:
        """A page for one user."""
        while True:
            await self.ready()
            # One that is open, else one that soon will be, else a new one.
            ahead = [hosted for life in self._usable() for hosted in life.ahead]
            hosted = min(ahead, key=lambda one: not one.opened.is_set(), default=None)
            if hosted is None:
                life = self._freest()
                assert life is not None
                hosted = self._host_one(life)
            hosted.taken, hosted.context = True, contextvars.copy_context()
            if hosted in hosted.life.ahead:
                hosted.life.ahead.remove(hosted)
            self._open_ahead()
            # Shielded, as `Browser.open_page` itself: no attempt would last long enough to tell a browser that opens no
            # page any more.
            with trio.CancelScope(shield=True):
                await hosted.opened.wait()
            if hosted.page is None:
                raise hosted.fault or ConnectionClosed("the pool is closed")
            if not hosted.page.gone:
                return hosted
            # Its renderer died while it waited.
            hosted.released.set()

    @asynccontextmanager
    async def _used(self, hosted: _Hosted) -> AsyncIterator[Page]:
        assert hosted.page is not None
        with trio.CancelScope() as hosted.user:
            try:
                yield hosted.page
            except BaseException as error:
                if isinstance(error, (SessionClosed, TargetCrashed, trio.Cancelled)):
                    # Whether it was the browser's end shows when the page is closed.
                    hosted.thrown = error
                    hosted.released.set()
                    with trio.CancelScope(shield=True):
                        await hosted.closed.wait()
                    if hosted.fault is not None and hosted.fault is not error:
                        raise hosted.fault from error
                elif isinstance(error, ConnectionClosed):
                    # What it lost, those that wait have lost too.
                    self._drop_ahead(hosted.life)
                    self._open_ahead()
                raise
            finally:
                hosted.released.set()
            closing = [one for life in self._lives for one in life.hosts if one.released.is_set()]
            if len(closing) > MAX_CLOSING:
                await hosted.closed.wait()
        if hosted.user.cancelled_caught:
            raise ConnectionClosed("the pool is closed")

    def _open_ahead(self) -> None:
        """Have as many pages ready as are wanted, or on their way."""
        uses = self._limits.uses
        # Where all is in use, one more is enough to keep the browser busy; idle ones cost it 1 to 3 % then.
        wanted = max(self._pages_ahead - self._users, min(1, self._pages_ahead))
        while sum(len(life.ahead) for life in self._usable()) < wanted:
            # The last use of a browser is for who needs it.
            lives = [life for life in self._usable() if uses is None or life.pages + 1 < uses]
            if not lives or self._closing:
                return
            life = min(lives, key=lambda life: len(life.hosts))
            life.ahead.append(self._host_one(life))

    def _drop_ahead(self, life: _Life) -> None:
        """Close the pages that nobody has taken yet."""
        for hosted in life.ahead:
            hosted.released.set()
        life.ahead.clear()

    def _host_one(self, life: _Life) -> _Hosted:
        life.pages += 1
        if self._limits.uses is not None and life.pages >= self._limits.uses:
            self._retire(life, "uses", f"{self._limits.uses} pages were opened in it")
        hosted = _Hosted(life)
        life.hosts.add(hosted)
        # Not in the context of who happens to be here: another may take it.
        contextvars.Context().run(self._tasks.start_soon, self._host, hosted)
        return hosted

    async def _host(self, hosted: _Hosted) -> None:
        """Open a page, and close it when it is released."""
        life = hosted.life
        try:
            with trio.CancelScope() as scope:
                async with life.browser.open_page() as page:
                    hosted.page = page
                    hosted.opened.set()
                    await hosted.released.wait()
                    if isinstance(hosted.thrown, trio.Cancelled):
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
                    elif hosted.thrown is not None:
                        raise hosted.thrown
        except CDPError as error:
            hosted.fault = error
            if not (hosted.taken or life.browser.ended.is_set()):
                logger.warning("a page that was opened ahead is lost: %s", error)
        except Exception as error:
            hosted.fault = error
            if hosted.thrown is None and (hosted.released.is_set() or not hosted.taken):
                # Nobody else will.
                hosted.context.run(logger.error, "the task of a page broke", exc_info=error)
        finally:
            life.hosts.discard(hosted)
            if hosted in life.ahead:
                life.ahead.remove(hosted)
            if hosted.user is not None and not hosted.released.is_set():
                hosted.user.cancel()
            hosted.opened.set()
            hosted.closed.set()

    async def keep(self) -> None:
        """Keep one browser running for ever; a pool's owner runs it once for each browser."""
        failures = 0
        while not self._closing:
            while self._asleep:
                await self.changed()
            began = trio.current_time()
            try:
                life: _Life = await self._tasks.start(self._live)
            except (LaunchError, ConnectionClosed) as error:
                reason = "launch"
                self.failures += 1
                self.fault = str(error)
                self._notify()
                logger.error("browser not started: %s", error)
            else:
                await life.retired.wait()
                reason = life.reason
            is_failure = reason not in ("uses", "idle") and trio.current_time() - began < STABLE_S
            failures = failures + 1 if is_failure else 0
            if failures:
                await trio.sleep(BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1])

    async def _live(self, alone: bool = False, *, task_status: trio.TaskStatus[_Life]) -> None:
        """One browser, from its launch until its last page is closed; `alone`, until it is reserved no more."""
        life: _Life | None = None
        try:
            async with self._open_one() as browser:
                life = _Life(browser, alone, reserved=alone)
                self.launches += 1
                for_whom = ", for one job alone" if alone else ""
                logger.info("browser started: %s, pid %s%s", browser.product, browser.pid, for_whom)
                self._lives.append(life)
                try:
                    if not alone:
                        self.fault = None
                        self._open_ahead()
                        self._notify()
                    task_status.started(life)
                    async with open_tasks() as tasks:
                        tasks.start_soon(self._watch_answers, browser)
                        await self._watch(life)
                finally:
                    self._lives.remove(life)
                    self._pages_opened += browser.pages_opened
                    self._cpu_s += life.cpu_s
        except (LaunchError, ConnectionClosed) as error:
            if life is None:
                raise
            self._retire(life, "ended", str(error))

    def _retire(self, life: _Life, reason: Retirement, text: str) -> None:
        """Open no further page in a browser, and let its successor start."""
        if life.retired.is_set():
            return
        life.reason, self._lost = reason, text
        life.retired.set()
        self._drop_ahead(life)
        self.retired[reason] += 1
        self._asleep = self._asleep or reason == "idle"
        level = logging.WARNING if reason in ("ended", "memory") and not self._closing else logging.INFO
        logger.log(level, "browser %s is given up (%s): %s", life.browser.pid, reason, text)

    async def _watch_answers(self, browser: Browser) -> None:
        """Condemn the browser when it hangs."""
        while not browser.ended.is_set():
            with trio.move_on_after(WATCH_S):
                await browser.ended.wait()
            if not await browser.answers(HUNG_S):
                browser.condemn(f"it answered nothing for {HUNG_S:g} s")

    async def _watch(self, life: _Life) -> None:
        """Return when a browser has ended, or is retired and its last page is closed."""
        browser, limits = life.browser, self._limits
        while not browser.ended.is_set():
            if (life.alone or life.retired.is_set()) and not (browser.pages_open or life.hosts or life.reserved):
                return
            with trio.move_on_after(LOOK_S):
                await browser.ended.wait()
            if limits.memory_bytes is not None and browser.pages_open:
                await self._check_memory(life, limits.memory_bytes)
            unused_s = trio.current_time() - self._unused_since
            if limits.idle_s is not None and not (life.alone or self._users) and unused_s >= limits.idle_s:
                self._retire(life, "idle", f"no page was open for {limits.idle_s:g} s")
        self._retire(life, "ended", browser.condemned or "it ended")

    async def _check_memory(self, life: _Life, ceiling: int) -> None:
        # Not trio's own threads: name look-ups, which hostile pages can make last, share them.
        try:
            held = await in_thread(_held_bytes, life.browser.pid, abandon_on_cancel=True, limiter=self._thread)
        except OSError:
            return
        total = sum(size for size, _, _ in held)
        if total <= ceiling:
            return
        size, pid, is_renderer = max(held)
        if is_renderer and size > ceiling / 2:
            # The neighbours are not to blame. A renderer holds one context: one page's attempt.
            logger.warning("renderer %d is killed: it holds %d of %d MB", pid, size >> 20, ceiling >> 20)
            self.renderers_killed += 1
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            return
        text = f"its processes hold {total >> 20} of {ceiling >> 20} MB"
        self._retire(life, "memory", text)
        if total > 2 * ceiling:
            life.browser.condemn(text)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _held_bytes(group: int | None) -> list[tuple[int, int, bool]]:
    """Of each process of a group: the bytes it holds, its pid, and whether it is a renderer."""
    members = of_group(group) if group is not None else []
    return [(process.held_bytes(), process.pid, process.is_renderer()) for process in members]


def _usage(group: int | None) -> tuple[int, int, float]:
    """Of a group: how many processes, the bytes they hold, and their CPU time."""
    members = of_group(group) if group is not None else []
    return len(members), sum(one.held_bytes() for one in members), sum(one.cpu_s() for one in members)


@asynccontextmanager
async def open_pool(
    open_one: OpenBrowser, *, browsers: int = 1, limits: Limits = NO_LIMITS, pages_ahead: int = 0
) -> AsyncIterator[Pool]:
    """Keep `browsers` browsers, each opened by `open_one`, until the body ends.

    Of `pages_ahead` pages, those that are not in use are ready; one at least.
    """
    async with open_tasks() as tasks:
        pool = Pool(tasks, open_one, browsers, limits, pages_ahead)
        for _ in range(browsers):
            tasks.start_soon(pool.keep)
        yield pool
