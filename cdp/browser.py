"""One running Chromium, and pages in it: each in a browser context of its own behind its own egress door."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import trio

from .authorities import Authorities
from .capture import MAX_PIXELS
from .connection import Connection, open_connection
from .egress import AddressPolicy, Door, open_door
from .errors import CDPError, ConnectionClosed, LaunchError, SessionClosed, TargetCrashed
from .launcher import BrowserProcess, find_browser, launch
from .options import Viewport
from .page import Page, max_message_bytes
from .tasks import open_tasks

# Opening takes 42 ms and closing 4 ms; a browser that needs this long for either is hung. So is one that answers, but
# whose zygote was killed (no renderer starts), or whose network service or gpu process is stopped (Chromium 156).
CONTEXT_TIMEOUT_S = 10.0
PICTURE_TIMEOUT_S = 10.0
DISPOSE_TIMEOUT_S = 10.0
# A wait of this length that took twice as long was our own loop's fault.
ATTENTION_S = 1.0

DEFAULT_VIEWPORT = Viewport()
MAX_PAGE_MESSAGE_BYTES = max_message_bytes(MAX_PIXELS)


class Browser:
    """A running browser; made by `open_browser`.

    `product` is its name and version, `pages_open` and `pages_opened` count. `ended` is set once it can be used no
    more: its process ended, its socket closed, or it did not do what every browser does (`condemned` then says what).
    """

    def __init__(
        self,
        connection: Connection,
        endpoint: str,
        policy: AddressPolicy,
        version: dict[str, str],
        max_message_bytes: int,
    ) -> None:
        # Of the main process, where it was launched by us.
        self.pid: int | None = None
        self.product = version["product"]
        self.pages_open = 0
        self.pages_opened = 0
        # One after the other.
        self._died_opening = 0
        self.condemned: str | None = None
        self.ended = connection.ended
        self._connection = connection
        self._pages_url = endpoint.partition("/devtools/")[0] + "/devtools/page/"
        self._policy = policy
        self._max_message_bytes = max_message_bytes
        # Many sites refuse what calls itself headless.
        self._user_agent = version["userAgent"].replace("HeadlessChrome", "Chrome")

    def condemn(self, reason: str) -> None:
        """Give the browser up: what it holds can only be freed by its end."""
        if self.condemned is None:
            self.condemned = reason
        # Whoever waits for an answer on its socket, in a shielded clean-up too, need wait no longer.
        self._connection.give_up(f"the browser is given up: {reason}")

    async def answers(self, within_s: float) -> bool:
        """Whether it answers a command within this time, without the seconds in which our own loop lagged.

        A browser that ended does: nothing is waited for any more.
        """
        answered = trio.Event()

        async def ask() -> None:
            with suppress(CDPError):
                await self._connection.send("Browser.getVersion")
            answered.set()

        async with open_tasks() as tasks:
            tasks.start_soon(ask)
            rounds = within_s / ATTENTION_S
            # A loop that lags all the time must not keep a hung browser.
            for _ in range(math.ceil(3 * rounds)):
                if answered.is_set() or rounds <= 0:
                    break
                began = trio.current_time()
                with trio.move_on_after(ATTENTION_S):
                    await answered.wait()
                if trio.current_time() - began < 2 * ATTENTION_S:
                    rounds -= 1
        return answered.is_set()

    @asynccontextmanager
    async def open_page(self, *, viewport: Viewport = DEFAULT_VIEWPORT) -> AsyncIterator[Page]:
        """A page with nothing in it, ready to be prepared and navigated.

        Raises ConnectionClosed when the browser is gone, or draws nothing any more. Resource handling: the context,
        with all that the page stored and started, is disposed of when the body ends, within `DISPOSE_TIMEOUT_S`; a
        browser that does not manage is condemned, as is one that opens no page within `CONTEXT_TIMEOUT_S`.
        """
        self.pages_open += 1
        self.pages_opened += 1
        try:
            async with open_door(self._policy) as door:
                context_id = ""
                page: Page | None = None
                fault: BaseException | None = None
                # Shielded while it opens: a context whose id never reached us could not be disposed of, and no attempt
                # would last long enough to tell a browser that opens no page any more.
                try:
                    with trio.move_on_after(CONTEXT_TIMEOUT_S, shield=True) as opening:
                        context_id = await self._create_context(door)
                        target_id = await self._create_target(context_id)
                        async with self._attach(target_id, context_id, door, viewport) as page:
                            opening.deadline, opening.shield = math.inf, False
                            self._died_opening = 0
                            yield page
                    if opening.cancelled_caught:
                        self.condemn("it opened no page")
                        raise ConnectionClosed(f"the browser opened no page within {CONTEXT_TIMEOUT_S:g} s")
                except (SessionClosed, TargetCrashed, trio.Cancelled) as error:
                    fault = error
                    if page is not None or isinstance(error, trio.Cancelled):
                        raise
                    # No fault of what it was to show. Without its zygote a browser starts no renderer any more.
                    self._died_opening += 1
                    if self._died_opening > 1:
                        self.condemn("its pages die while they open")
                    raise ConnectionClosed("the page died while it opened") from error
                finally:
                    usable = not context_id or await self._dispose(context_id)
                    if usable and page is not None and page.picture_cut:
                        usable = await self._draws()
                    if not usable and fault is not None:
                        # A dying browser closes the sockets of its pages first; a hung one lets their time run out.
                        raise ConnectionClosed(f"the browser is lost: {self.condemned or 'it ended'}") from fault
        finally:
            self.pages_open -= 1

    async def _create_context(self, door: Door) -> str:
        reply = await self._connection.send(
            "Target.createBrowserContext",
            disposeOnDetach=True,
            proxyServer=door.proxy_url,
            # Loopback is not bypassed either.
            proxyBypassList="<-loopback>",
        )
        return str(reply["browserContextId"])

    async def _create_target(self, context_id: str) -> str:
        *_, reply = await self._connection.send_all(
            ("Browser.setDownloadBehavior", {"behavior": "deny", "browserContextId": context_id}),
            # Nothing granted is everything denied: full Chromium would ask, and wait for an answer without end.
            ("Browser.grantPermissions", {"permissions": [], "browserContextId": context_id}),
            ("Target.createTarget", {"url": "about:blank", "browserContextId": context_id}),
        )
        return str(reply["targetId"])

    @asynccontextmanager
    async def _attach(self, target_id: str, context_id: str, door: Door, viewport: Viewport) -> AsyncIterator[Page]:
        url = self._pages_url + target_id

        async def grant(permissions: list[str]) -> None:
            await self._connection.send(
                "Browser.grantPermissions", permissions=permissions, browserContextId=context_id
            )

        async with (
            open_connection(url, lost=SessionClosed, max_message_bytes=self._max_message_bytes) as session,
            open_tasks() as tasks,
        ):
            page = Page(
                session,
                target_id,
                door=door,
                grant=grant,
                product=self.product,
                user_agent=self._user_agent,
                viewport=viewport,
            )
            await tasks.start(page.follow)
            await page.enable()
            yield page

    async def _draws(self) -> bool:
        """Whether an empty page can still be drawn; False when the browser is gone or condemned."""
        with trio.move_on_after(PICTURE_TIMEOUT_S, shield=True) as scope:
            try:
                async with self.open_page() as page:
                    await page.draw()
            except CDPError:
                # Of that page only; a browser that is lost is so for everybody.
                pass
        if scope.cancelled_caught:
            self.condemn(f"it drew no page within {PICTURE_TIMEOUT_S:g} s")
        return not self.ended.is_set()

    async def _dispose(self, context_id: str) -> bool:
        """Close a context; False when the browser is gone or condemned."""
        with trio.move_on_after(DISPOSE_TIMEOUT_S, shield=True) as scope:
            try:
                await self._connection.send("Target.disposeBrowserContext", browserContextId=context_id)
            except ConnectionClosed:
                return False
            except CDPError as error:
                self.condemn(f"it refused to close a context: {error}")
        if scope.cancelled_caught:
            self.condemn(f"it closed no context within {DISPOSE_TIMEOUT_S:g} s")
        return self.condemned is None


@asynccontextmanager
async def open_browser(
    executable: str | Path | None = None,
    *,
    switches: Iterable[str] = (),
    policy: AddressPolicy | None = None,
    profile_root: Path | None = None,
    authorities: Authorities | None = None,
    max_message_bytes: int = MAX_PAGE_MESSAGE_BYTES,
) -> AsyncIterator[Browser]:
    """Launch a Chromium and connect to it.

    `executable` is a path or a name on PATH, by default the first of `launcher.BROWSER_NAMES`; `policy` says what its
    pages may reach, by default the public internet only; `authorities` are trusted beside its own. Raises LaunchError.
    Resource handling: when the body ends the browser's whole process group is gone, and its profile folder too.
    """
    path = find_browser(str(executable) if executable is not None else None)
    policy = policy or AddressPolicy.parse(())
    with ExitStack() as closed:
        async with launch(path, switches, profile_root=profile_root, authorities=authorities) as process:
            # Until it has ended, also while nobody is connected.
            closed.enter_context(_own_port(policy, process.endpoint))
            async with (
                connect_browser(process.endpoint, policy=policy, max_message_bytes=max_message_bytes) as browser,
                open_tasks() as tasks,
            ):
                browser.pid = process.pid
                tasks.start_soon(_end_with_process, process, browser)
                yield browser


@contextmanager
def _own_port(policy: AddressPolicy, endpoint: str) -> Iterator[None]:
    """Keep pages from a debugging port."""
    port = urlsplit(endpoint).port or 0
    policy.own_ports.add(port)
    try:
        yield
    finally:
        policy.own_ports.discard(port)


async def _end_with_process(process: BrowserProcess, browser: Browser) -> None:
    await process.exited.wait()
    browser.ended.set()


@asynccontextmanager
async def connect_browser(
    endpoint: str, *, policy: AddressPolicy | None = None, max_message_bytes: int = MAX_PAGE_MESSAGE_BYTES
) -> AsyncIterator[Browser]:
    """Connect to a browser that runs already, at the websocket URL of its browser-wide session.

    Raises LaunchError when it does not answer. The browser stays; the contexts opened by this connection go with it.
    """
    policy = policy or AddressPolicy.parse(())
    answered = False
    with _own_port(policy, endpoint):
        try:
            async with open_connection(endpoint, lost=ConnectionClosed) as connection:
                with trio.fail_after(CONTEXT_TIMEOUT_S):
                    version = await connection.send("Browser.getVersion")
                answered = True
                yield Browser(connection, endpoint, policy, version, max_message_bytes)
        except (CDPError, KeyError, trio.TooSlowError) as error:
            if answered:
                raise
            raise LaunchError(f"the browser does not answer as one: {error or 'timeout'}") from error
