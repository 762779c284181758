"""One page: a tab in its own browser context, driven over its own websocket.

The order is prepare, navigate (or set_content), waits, then any number of captures. A page follows what happens to its
main frame by itself, answers dialogs, and adds the request's headers to requests of its own origin.
"""

from __future__ import annotations

import contextlib
import math
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import attrs
import trio

from . import capture, network
from .connection import Connection, Subscription
from .egress import FailureKind, Ledger
from .errors import (
    CDPError,
    CommandError,
    InvalidOption,
    InvalidSelector,
    NavigationError,
    NotAPage,
    ScriptError,
    SelectorNotFound,
    TooLarge,
)
from .options import CaptureOptions, Clip, PageOptions, Viewport, WaitFor, WaitUntil
from .selectors import ELEMENT_BOX, ELEMENT_STATE, reached
from .tasks import open_tasks

T = TypeVar("T")

# UTF-8 bytes of one document.
MAX_HTML_BYTES = 64 * 2**20
# Text of the page's own that is reported about it; a page may make its title or URL as long as it likes.
MAX_REPORTED_CHARS = 2**13
# What `auto` gives each of its waits before it goes on with a warning.
FONTS_BUDGET_S = 3.0
IMAGES_BUDGET_S = 3.0
# A page that says it will move on within this time is waited for.
REFRESH_DUE_S = 5.0
# How often an element is looked for: at first at once, later as often as a person would notice.
POLL_S = (0.01, 0.02, 0.05, 0.1)
# Even a wait of 0 ms looks once.
FIRST_LOOK_S = 0.1

_LIFECYCLE: dict[WaitUntil, str] = {
    "auto": "load",
    "load": "load",
    "domcontentloaded": "DOMContentLoaded",
    "networkidle": "networkIdle",
    "commit": "init",
}
_EVENTS = (
    "Page.lifecycleEvent",
    "Page.frameNavigated",
    "Page.frameScheduledNavigation",
    "Page.frameClearedScheduledNavigation",
    "Page.frameStartedLoading",
    "Page.frameStoppedLoading",
    "Page.javascriptDialogOpening",
    "Network.requestWillBeSent",
    "Network.responseReceived",
    "Network.loadingFailed",
    "Fetch.requestPaused",
)
_MOVES = (
    "Page.frameScheduledNavigation",
    "Page.frameClearedScheduledNavigation",
    "Page.frameStartedLoading",
    "Page.frameStoppedLoading",
)
_NOT_ACTIVE = "Not attached to an active page"
# What the browser answers when the document a command meant is not there any more (Chromium 156).
_CONTEXT_GONE = ("Cannot find context", "Execution context was destroyed", "Inspected target navigated or closed")

_PAGE_INFO = "limit => ({url: document.URL.slice(0, limit), title: document.title.slice(0, limit)})"
_FONTS_READY = "() => document.fonts.ready.then(() => true)"
# Images whose box meets the viewport; one that fails to load counts as done.
_IMAGES_READY = """() => Promise.allSettled([...document.images].filter(image => {
  const box = image.getBoundingClientRect();
  return box.width > 0 && box.height > 0 && box.bottom > 0 && box.right > 0
    && box.top < innerHeight && box.left < innerWidth;
}).map(image => image.decode())).then(() => true)"""


def max_message_bytes(max_pixels: int) -> int:
    """The largest message that a job may need: a picture of so many pixels, or a document of `MAX_HTML_BYTES`."""
    # Uncompressed RGBA, a third more in base64; a document of nothing but quotes doubles in JSON.
    return max(max_pixels * 4 * 4 // 3, MAX_HTML_BYTES * 2) + 2**20


def _same_document(url: str, other: str) -> bool:
    """Whether two URLs differ in their fragments only."""
    return url.partition("#")[0] == other.partition("#")[0]


def _printable(text: str) -> str:
    """The page's text without halves of surrogate pairs, which no encoding takes."""
    return text.encode(errors="replace").decode()


@attrs.define
class Document:
    """A document of the main frame and what its server answered."""

    loader_id: str = ""
    lifecycle: set[str] = attrs.field(factory=set)
    # The URL that could not be loaded where the browser shows its own error page.
    unreachable_url: str | None = None


@attrs.define
class Exchange:
    """The request of a main-frame document; `status_code` and what follows are known once the headers came."""

    url: str
    # The URLs that redirected to this one, the first first.
    redirects: list[str] = attrs.field(factory=list)
    status_code: int | None = None
    content_type: str | None = None
    size_bytes: int | None = None
    net_error: str = "net::ERR_FAILED"


@attrs.frozen
class PageInfo:
    """What a page says of itself, each cut at `MAX_REPORTED_CHARS`."""

    url: str
    title: str


class Page:
    """See the module. Methods raise SessionClosed or TargetCrashed when the page is gone.

    `warnings` are sentences about what was given up or answered for the client.
    """

    def __init__(
        self, session: Connection, target_id: str, *, ledger: Ledger, product: str, user_agent: str, viewport: Viewport
    ) -> None:
        self.session = session
        self.ledger = ledger
        # The browser's name and version.
        self.product = product
        self.warnings: list[str] = []
        # A page target's main frame has the target's id.
        self._frame_id = target_id
        self._user_agent = user_agent
        self._viewport = viewport
        self._document = Document()
        self._url = "about:blank"
        # Of the empty page it was opened with; `set_content` without a base writes into that one.
        self._blank_loader_id = ""
        self._written = False
        self._exchanges: dict[str, Exchange] = {}
        self._events: Subscription | None = None
        self._changed = trio.Event()
        self._world: tuple[str, int] | None = None
        self._origin: str | None = None
        self._headers: dict[str, str] = {}
        # The base64 body that stands in for the server's answer, once.
        self._content: str | None = None
        # A document is there; it is kept when the page moves on to an address that fails.
        self._loaded = False
        # The main frame is loading; it is about to move on at this time.
        self._loading = False
        self._moves_at = math.inf

    # Following the main frame

    async def follow(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep up with the browser's events until the session ends; the page's owner runs it as a task."""
        with self.session.subscribe(*_EVENTS) as self._events:
            task_status.started()
            try:
                async for event in self._events:
                    # A page may load thousands of resources; only its documents matter here.
                    if event.method.startswith("Network.re") and '"type":"Document"' not in event.text:
                        continue
                    await self._apply(event.method, event.params())
                    self._changed.set()
            except CDPError:
                # Whoever waits meets the same fault in `_until`.
                self._changed.set()

    async def _apply(self, method: str, params: dict[str, Any]) -> None:
        document = self._document
        if method == "Page.lifecycleEvent":
            if params["frameId"] != self._frame_id:
                return
            if params["name"] == "init" or params["loaderId"] != document.loader_id:
                document = self._document = Document(params["loaderId"])
            document.lifecycle.add(params["name"])
        elif method == "Page.frameNavigated":
            if params["frame"]["id"] == self._frame_id:
                self._url = params["frame"]["url"]
                if params["frame"]["loaderId"] != document.loader_id:
                    document = self._document = Document(params["frame"]["loaderId"])
                document.unreachable_url = params["frame"].get("unreachableUrl")
        elif method in _MOVES:
            if params["frameId"] == self._frame_id:
                self._move(method, params)
        elif method == "Page.javascriptDialogOpening":
            # `beforeunload` must not keep the page; a confirm or prompt is dismissed as by an absent user.
            accept = params["type"] in ("alert", "beforeunload")
            if len(self.warnings) < 20:
                self.warnings.append(f"{params['type']} dialog answered: {_printable(params['message'][:200])}")
            await self.session.post("Page.handleJavaScriptDialog", accept=accept)
        elif method == "Fetch.requestPaused":
            await self._resume(params)
        elif params.get("frameId", self._frame_id) == self._frame_id:
            self._record_exchange(method, params)

    def _move(self, method: str, params: dict[str, Any]) -> None:
        """The main frame begins or ends to load, or plans to move on or no more."""
        if method == "Page.frameScheduledNavigation":
            # A page that refreshes itself now and then is not on its way elsewhere.
            if params["reason"] != "metaTagRefresh" or not _same_document(params["url"], self._url):
                self._moves_at = trio.current_time() + params["delay"]
        elif method == "Page.frameClearedScheduledNavigation":
            self._moves_at = math.inf
        else:
            self._loading = method == "Page.frameStartedLoading"

    def _record_exchange(self, method: str, params: dict[str, Any]) -> None:
        loader_id = params["requestId"]
        if method == "Network.requestWillBeSent":
            # Sent again for every redirect, with the same id.
            former = self._exchanges.get(loader_id)
            redirects = [*former.redirects, former.url] if former is not None else []
            self._exchanges[loader_id] = Exchange(params["request"]["url"], redirects)
            return
        exchange = self._exchanges.get(loader_id)
        if exchange is None:
            return
        if method == "Network.loadingFailed":
            exchange.net_error = params["errorText"]
            return
        response = params["response"]
        exchange.status_code = response["status"]
        exchange.content_type = response["mimeType"] or None
        headers = {name.lower(): value for name, value in response["headers"].items()}
        length = headers.get("content-length", "")
        # A hostile one has thousands of digits.
        if length.isdigit() and len(length) < 20:
            exchange.size_bytes = int(length)

    async def _resume(self, params: dict[str, Any]) -> None:
        """Let a request of the own origin go on with the client's headers, or answer it with the client's document."""
        request = params["request"]
        if "responseErrorReason" in params or "responseStatusCode" in params:
            await self._resume_response(params)
            return
        if self._content is not None and params["frameId"] == self._frame_id:
            body, self._content = self._content, None
            await self.session.post(
                "Fetch.fulfillRequest",
                requestId=params["requestId"],
                responseCode=200,
                responseHeaders=[{"name": "Content-Type", "value": "text/html; charset=utf-8"}],
                body=body,
            )
            return
        own = self._headers and network.origin_of(request["url"]) == self._origin
        headers = network.merged_headers(request["headers"], self._headers) if own else None
        await self.session.post("Fetch.continueRequest", requestId=params["requestId"], headers=headers)

    async def _resume_response(self, params: dict[str, Any]) -> None:
        """Let an answer pass; a document that failed to come is aborted, which keeps the one shown."""
        url, request_id = params["request"]["url"], params["requestId"]
        if params["frameId"] != self._frame_id or "responseErrorReason" not in params:
            await self.session.post("Fetch.continueRequest", requestId=request_id)
            return
        cause = self.ledger.failure_at(*network.endpoint_of(url))
        reason = cause.text if cause is not None else params["responseErrorReason"]
        self.warnings.append(f"the page moved on to {_printable(url[:MAX_REPORTED_CHARS])}, which failed: {reason}")
        await self.session.post("Fetch.failRequest", requestId=request_id, errorReason="Aborted")

    async def _until(self, reached_it: Callable[[], bool]) -> None:
        while not reached_it():
            self.session.check()
            self._changed = trio.Event()
            await self._changed.wait()

    async def _caught_up(self) -> None:
        """Wait until every event that came before now has been followed."""
        events = self._events
        await self._until(lambda: events is None or len(events) == 0)

    async def arrive(self) -> None:
        """When the page is on its way to another document, wait until that one is loaded.

        A page says so itself: by a script (`location = ...`), a form, or a `<meta http-equiv=refresh>` that is due
        within `REFRESH_DUE_S`.
        """
        await self._until(lambda: not self._loading and self._moves_at > trio.current_time() + REFRESH_DUE_S)

    # Preparing

    async def enable(self) -> None:
        """Switch on what every job needs; answered before any navigation, or its load events are lost."""
        await self.session.send_all(
            ("Page.enable", {}),
            ("Page.setLifecycleEventsEnabled", {"enabled": True}),
            # The bodies of answers are not kept: only what the server said about the document is read.
            ("Network.enable", {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0}),
            *self._emulation(self._viewport, self._user_agent),
        )
        # The empty page's own load is over, so that the next one seen is the client's.
        await self._until(lambda: "load" in self._document.lifecycle)
        self._blank_loader_id = self._document.loader_id

    def _emulation(self, viewport: Viewport, user_agent: str) -> list[tuple[str, dict[str, Any]]]:
        metrics = {
            "width": viewport.width,
            "height": viewport.height,
            "deviceScaleFactor": viewport.device_scale_factor,
            "mobile": viewport.mobile,
        }
        agent: dict[str, Any] = {"userAgent": user_agent, "acceptLanguage": "en-US,en"}
        return [
            ("Emulation.setDeviceMetricsOverride", metrics),
            ("Emulation.setTouchEmulationEnabled", {"enabled": viewport.touch, "maxTouchPoints": 5}),
            ("Emulation.setUserAgentOverride", agent),
        ]

    async def prepare(self, options: PageOptions) -> None:
        """Make the page what the options ask for; `html`, `url` and the waits are left to the other methods."""
        page_url = options.url or options.base_url
        commands = []
        if options.viewport != self._viewport or options.user_agent:
            self._viewport = options.viewport
            commands += self._emulation(options.viewport, options.user_agent or self._user_agent)
        if not options.javascript:
            commands.append(("Emulation.setScriptExecutionDisabled", {"value": True}))
        if options.cookies:
            cookies = [network.cookie_params(cookie, page_url) for cookie in options.cookies]
            commands.append(("Network.setCookies", {"cookies": cookies}))
        if options.headers and page_url:
            # Fetch with the own origin as its pattern: setExtraHTTPHeaders would send them to every origin.
            self._headers = dict(options.headers)
            self._origin = network.origin_of(page_url)
            commands.append(("Fetch.enable", {"patterns": self._patterns()}))
        try:
            await self.session.send_all(*commands)
        except CommandError as error:
            raise InvalidOption(f"the browser refuses the request: {error}") from error

    def _patterns(self) -> list[dict[str, str]]:
        """What requests are held up for, as it is now."""
        document = {"urlPattern": "*", "resourceType": "Document"}
        patterns = []
        if self._content is not None:
            # By type, not by URL: the browser writes paths its own way. The first document is the main frame's.
            patterns.append(document | {"requestStage": "Request"})
        if self._headers:
            patterns.append({"urlPattern": network.url_pattern(f"{self._origin}/"), "requestStage": "Request"})
        if self._loaded:
            patterns.append(document | {"requestStage": "Response"})
        return patterns

    # Opening

    async def navigate(self, url: str, *, wait_until: WaitUntil = "load") -> None:
        """Open a URL and wait for its document to get as far as `wait_until` (`auto` counts as `load`).

        Redirects by the page itself before that point are followed. Raises NavigationError, NotAPage.
        """
        before = self._document.loader_id
        reply = await self.session.send("Page.navigate", url=url)
        loader_id = reply.get("loaderId", "")
        if reply.get("errorText") or reply.get("isDownload"):
            await self._caught_up()
            raise self._failure(loader_id, reply.get("errorText", ""), is_download=reply.get("isDownload", False))
        event = _LIFECYCLE[wait_until]
        await self._until(lambda: self._document.loader_id != before and event in self._document.lifecycle)
        await self._caught_up()
        loader_id = self._document.loader_id
        exchange = self._exchanges.get(loader_id)
        if self._document.unreachable_url is not None:
            # The page moved on to a dead or blocked address before it was loaded.
            raise self._failure(loader_id, exchange.net_error if exchange else "net::ERR_FAILED", is_download=False)
        if exchange is not None and exchange.content_type == "application/pdf":
            # The headless shell downloads it; full Chromium shows a viewer that captures blank.
            raise NotAPage("a PDF", exchange.content_type, exchange.size_bytes)
        await self._keep_document()

    async def set_content(self, html: str, base_url: str | None, *, wait_until: WaitUntil = "load") -> None:
        """Show a document of the client's own, as `about:blank` or as if it came from `base_url`."""
        if base_url is not None:
            self._content = b64encode(html.encode(errors="replace")).decode()
            await self.session.send("Fetch.enable", patterns=self._patterns())
            await self.navigate(base_url, wait_until=wait_until)
            return
        # The same loader writes the document anew; its life begins again with `init`.
        self._document.lifecycle.clear()
        self._written = True
        await self.session.send("Page.setDocumentContent", frameId=self._frame_id, html=html)
        await self._until(lambda: _LIFECYCLE[wait_until] in self._document.lifecycle)
        await self._keep_document()

    async def _keep_document(self) -> None:
        self._loaded = True
        await self.session.send("Fetch.enable", patterns=self._patterns())

    def _failure(self, loader_id: str, net_error: str, *, is_download: bool) -> CDPError:
        """Why a navigation gave no document."""
        exchange = self._exchanges.get(loader_id)
        if exchange is not None and (is_download or exchange.status_code in (204, 205)):
            reason = "a download" if is_download else f"the server answered {exchange.status_code}, without a document"
            return NotAPage(reason, exchange.content_type, exchange.size_bytes)
        if is_download:
            return NotAPage("a download")
        # Chromium reports whatever its proxy could not do as one error; the door knows which.
        cause = self.ledger.failure_at(*network.endpoint_of(exchange.url)) if exchange is not None else None
        if cause is not None:
            return NavigationError(cause.net_error, blocked=cause.text if cause.kind is FailureKind.blocked else None)
        return NavigationError(net_error)

    @property
    def has_document(self) -> bool:
        """Whether a document of the client's has begun, so that there is something to capture."""
        begun = self._written or self._document.loader_id != self._blank_loader_id
        return begun and self._document.unreachable_url is None

    @property
    def status_code(self) -> int | None:
        """The HTTP status of the current document; None for one that did not come over HTTP."""
        exchange = self._exchanges.get(self._document.loader_id)
        return exchange.status_code if exchange is not None else None

    @property
    def redirects(self) -> list[str]:
        """The URLs whose servers redirected to the current document, the first first."""
        exchange = self._exchanges.get(self._document.loader_id)
        return exchange.redirects if exchange is not None else []

    # Waiting

    async def settle(self) -> None:
        """After load: fonts ready and images in view decoded, each given up with a warning after its budget."""
        for script, budget_s, what in (
            (_FONTS_READY, FONTS_BUDGET_S, "fonts"),
            (_IMAGES_READY, IMAGES_BUDGET_S, "images in view"),
        ):
            with trio.move_on_after(budget_s) as scope:
                await self.call(script)
            if scope.cancelled_caught:
                self.warnings.append(f"{what} not ready after {budget_s:g} s")

    async def wait_for(self, wait: WaitFor) -> None:
        """Wait until an element is in a state.

        Raises InvalidSelector, and SelectorNotFound after the wait's own `timeout_ms`.
        """
        timeout_s = float("inf") if wait.timeout_ms is None else max(wait.timeout_ms / 1000, FIRST_LOOK_S)
        with trio.move_on_after(timeout_s) as scope:
            for attempt in range(2**31):
                found = await self.call(ELEMENT_STATE, wait.selector)
                if "error" in found:
                    raise InvalidSelector(f"selector {wait.selector!r}: {found['error']}")
                if reached(wait.state, found["state"]):
                    return
                await trio.sleep(POLL_S[min(attempt // 5, len(POLL_S) - 1)])
        if scope.cancelled_caught:
            raise SelectorNotFound(f"selector {wait.selector!r} was not {wait.state} within {wait.timeout_ms} ms")

    async def sleep(self, seconds: float) -> None:
        """Wait, but not for a page that is gone."""
        with trio.move_on_after(seconds):
            await self._until(lambda: False)

    # Reading

    async def info(self) -> PageInfo:
        """URL and title of the current document."""
        said = await self.call(_PAGE_INFO, MAX_REPORTED_CHARS)
        return PageInfo(_printable(said["url"]), _printable(said["title"]))

    async def html(self) -> str:
        """The live document as HTML, doctype included (`DOM.getOuterHTML`).

        Read by the browser, not by the page's scripts, which may have replaced everything. May hold lone surrogates.
        Raises TooLarge over `MAX_HTML_BYTES`.
        """

        async def read(world: int) -> str:
            reply = await self.session.send("Runtime.evaluate", expression="document", contextId=world)
            got = await self.session.send("DOM.getOuterHTML", objectId=reply["result"]["objectId"])
            html: str = got["outerHTML"]
            return html

        html = await self._in_world(read)
        if len(html) > MAX_HTML_BYTES or len(html.encode(errors="replace")) > MAX_HTML_BYTES:
            raise TooLarge(f"the document is over the limit of {MAX_HTML_BYTES // 2**20} MiB of HTML")
        return html

    async def screenshot(
        self, options: CaptureOptions | None = None, *, max_pixels: int = capture.MAX_PIXELS
    ) -> capture.Picture:
        """A picture of the viewport, or of what the options name.

        Raises TooLarge, SelectorNotFound, InvalidSelector.
        """
        options = options or CaptureOptions(format="png")
        while True:
            # Chromium 156 never answers a capture during which the document is replaced, or refuses it.
            with trio.CancelScope() as replaced:
                async with open_tasks() as tasks:
                    tasks.start_soon(self._cancel_when_replaced, replaced)
                    try:
                        return await self._capture(options, max_pixels)
                    except CommandError as error:
                        if not error.message.startswith(_NOT_ACTIVE):
                            raise

    async def _cancel_when_replaced(self, scope: trio.CancelScope) -> None:
        loader_id = self._document.loader_id
        # The session's end is met by the capture itself.
        with contextlib.suppress(CDPError):
            await self._until(lambda: self._document.loader_id != loader_id)
            scope.cancel()

    async def _capture(self, options: CaptureOptions, max_pixels: int) -> capture.Picture:
        viewport = self._viewport
        if options.clip is not None:
            area, beyond_viewport = options.clip, True
        elif options.selector is not None:
            box = await self.call(ELEMENT_BOX, options.selector)
            if "error" in box:
                raise InvalidSelector(f"selector {options.selector!r}: {box['error']}")
            if "missing" in box:
                raise SelectorNotFound(f"the element of selector {options.selector!r} is {box['missing']}")
            area, beyond_viewport = capture.element_area(box, options.selector), True
        elif options.full_page:
            size = (await self.session.send("Page.getLayoutMetrics"))["cssContentSize"]
            area, beyond_viewport = Clip(0, 0, size["width"], size["height"]), True
        else:
            area, beyond_viewport = Clip(0, 0, viewport.width, viewport.height), False
        return await capture.take_picture(
            self.session,
            options,
            area=area,
            beyond_viewport=beyond_viewport,
            scale=viewport.device_scale_factor,
            max_pixels=max_pixels,
        )

    # The page's own world

    async def evaluate(self, script: str) -> Any:
        """The value, awaited and as JSON has it, of an expression or of the last statement of a script of the client's.

        `await` may stand anywhere. None when it made the page move on. Raises ScriptError.
        """
        try:
            reply = await self.session.send(
                "Runtime.evaluate",
                expression=script,
                awaitPromise=True,
                returnByValue=True,
                userGesture=True,
                # Lets `await` stand at the top.
                replMode=True,
            )
        except CommandError as error:
            if error.message.startswith(_CONTEXT_GONE):
                return None
            raise ScriptError(f"the value cannot be told: {error.message}") from error
        if "exceptionDetails" in reply:
            details = reply["exceptionDetails"]
            thrown = details.get("exception", {}).get("description") or details.get("exception", {}).get("value")
            raise ScriptError(_printable(str(thrown or details["text"])[:MAX_REPORTED_CHARS]))
        return reply["result"].get("value")

    # The isolated world

    async def call(self, function: str, *arguments: object) -> Any:
        """Call a JavaScript function of ours and return its awaited value."""

        async def call(world: int) -> Any:
            reply = await self.session.send(
                "Runtime.callFunctionOn",
                functionDeclaration=function,
                arguments=[{"value": argument} for argument in arguments],
                executionContextId=world,
                awaitPromise=True,
                returnByValue=True,
            )
            if "exceptionDetails" in reply:
                raise CommandError("Runtime.callFunctionOn", 0, reply["exceptionDetails"].get("text", "script failed"))
            return reply["result"].get("value")

        return await self._in_world(call)

    async def _in_world(self, use: Callable[[int], Awaitable[T]]) -> T:
        """What `use` gives in our isolated world; asked again in the next document when a navigation took it away."""
        while True:
            loader_id = self._document.loader_id
            try:
                if self._world is None or self._world[0] != loader_id:
                    reply = await self.session.send(
                        "Page.createIsolatedWorld", frameId=self._frame_id, worldName="cleariflow"
                    )
                    self._world = (loader_id, reply["executionContextId"])
                return await use(self._world[1])
            except CommandError as error:
                if not error.message.startswith(_CONTEXT_GONE):
                    raise
                self._world = None
