"""Supervised browsers: some number of them kept running, and pages opened in the one with the fewest."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from .browser import Browser
from .errors import ConnectionClosed, LaunchError
from .page import Page
from .tasks import open_tasks

logger = logging.getLogger("cdp")

# Waits after launches that failed, or browsers that ended before `STABLE_S`: a missing browser is noticed when it is
# installed, without a busy loop.
BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)
STABLE_S = 10.0


class Pool:
    """Browsers that are relaunched when they end; made by `open_pool`.

    `fault` is the text of the last launch that failed, None while browsers run.
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        self.launches = 0
        self._browsers: list[Browser] = []
        self._changed = trio.Event()

    @property
    def browser(self) -> Browser | None:
        """The running browser with the fewest pages, or None."""
        running = [browser for browser in self._browsers if not browser.ended.is_set()]
        return min(running, key=lambda browser: browser.pages_open, default=None)

    async def ready(self) -> None:
        """Wait until a browser runs."""
        while self.browser is None:
            await self.changed()

    async def changed(self) -> None:
        """Wait until a browser has started, or failed to."""
        await self._changed.wait()

    @asynccontextmanager
    async def open_page(self) -> AsyncIterator[Page]:
        """`Browser.open_page` of a running browser; waits for one."""
        await self.ready()
        assert self.browser is not None
        async with self.browser.open_page() as page:
            yield page

    async def keep(self, open_one: Callable[[], AbstractAsyncContextManager[Browser]]) -> None:
        """Keep one browser running for ever; a pool's owner runs it once for each browser."""
        failures = 0
        while True:
            began = trio.current_time()
            try:
                async with open_one() as browser:
                    self.fault = None
                    self.launches += 1
                    self._browsers.append(browser)
                    self._notify()
                    logger.info("browser started: %s, pid %d", browser.product, browser.pid)
                    try:
                        await browser.ended.wait()
                    finally:
                        self._browsers.remove(browser)
                    logger.warning("browser %d is given up: %s", browser.pid, browser.condemned or "it ended")
            except (LaunchError, ConnectionClosed) as error:
                self.fault = str(error)
                self._notify()
                logger.error("browser not started: %s", error)
            failures = failures + 1 if trio.current_time() - began < STABLE_S else 0
            if failures:
                await trio.sleep(BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1])

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def open_pool(
    open_one: Callable[[], AbstractAsyncContextManager[Browser]], *, browsers: int = 1
) -> AsyncIterator[Pool]:
    """Keep `browsers` browsers, each opened by `open_one`, until the body ends."""
    pool = Pool()
    async with open_tasks() as tasks:
        for _ in range(browsers):
            tasks.start_soon(pool.keep, open_one)
        yield pool
