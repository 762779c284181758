"""One page: a tab in its own browser context, driven over its own websocket.

The order is prepare, navigate (or set_content), waits and actions, then any number of captures. A page follows what
happens to its main frame by itself, answers dialogs, and sees to the requests that are held up on their way.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, TypeVar

import attrs
import trio

from . import capture, emulation, injection, interception, network, settle, traffic
from .blocking import Rules, ad_filter
from .connection import Connection, Subscription
from .egress import Door
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
from .frame import MAX_DOCUMENTS, MAX_HTML_BYTES, MOVES, MainFrame
from .options import CaptureOptions, PageOptions, RenderOptions, Viewport, WaitFor, WaitUntil
from .selectors import ELEMENT, ELEMENT_STATE, SEEN_AS, reached
from .settle import quietly
from .tasks import open_tasks

T = TypeVar("T")

# Text of the page's own that is reported about it; a page may make its title or URL as long as it likes.
MAX_REPORTED_CHARS = 2**13
# How long nothing may come of what a page loads before `auto` hangs up on it, and how long it may come drop by drop;
# then, how long it may take to go on. The share of the attempt's time that the document itself may take.
LOAD_SILENCE_S = 6.0
LOAD_DROPS_S = 15.0
DOCUMENT_SHARE = 0.8
HUNG_UP_SILENCE_S = 1.0
MAX_HANG_UPS = 5
# How often an element is looked for: at first at once, later as often as a person would notice.
POLL_S = (0.01, 0.02, 0.05, 0.1)
# For the news that the renderer died; a live one answers within a few ms.
CRASH_NEWS_S = 1.0
# What is told to stop answers within this time, else it is told again, so often.
STOPPED_S = 0.3
MAX_STOPS = 3
# How long a document that is opened again may take.
BEGINNING_S = 3.0
# Dialogs and new windows can come without end.
MAX_DIALOGS_TOLD = 20
# Even a wait of 0 ms looks once.
FIRST_LOOK_S = 0.1

_LIFECYCLE: dict[WaitUntil, str] = {
    "auto": "load",
    "load": "load",
    "domcontentloaded": "DOMContentLoaded",
    "networkidle": "load",
    "commit": "init",
}
_EVENTS = (
    "Page.lifecycleEvent",
    "Page.frameNavigated",
    *MOVES,
    "Page.javascriptDialogOpening",
    "Page.windowOpen",
    "Page.downloadWillBegin",
    *traffic.EVENTS,
    *interception.EVENTS,
)
# Each line for the console, errors too, goes to the browser's main process, without any brake: some talkative pages and
# a busy host, and it answers nothing any more, for all its pages (3 GB of backlog after 10 s). So a document says a
# thousand things and is silent then. A proxy looks like the function itself, also to the page.
_LESS_TALK = """(() => {
  let left = 1000;
  const call = Reflect.apply;
  for (const [name, say] of Object.entries(console)) {
    if (typeof say !== 'function') continue;
    console[name] = new Proxy(say, {
      apply(say, self, words) { if (left > 0) { left--; return call(say, self, words); } }
    });
  }
  const hush = event => { if (left > 0) left--; else event.preventDefault(); };
  addEventListener('error', hush);
  addEventListener('unhandledrejection', hush);
})()"""
_NOT_ACTIVE = "Not attached to an active page"
# The field that is at fault when the browser refuses a command.
_REFUSED_FIELDS = {
    "Emulation.setTimezoneOverride": "timezone",
    "Emulation.setLocaleOverride": "locale",
    "Emulation.setUserAgentOverride": "user_agent",
    "Network.setCookies": "cookies",
}
# What the browser answers when the document a command meant is not there any more (Chromium 156).
_CONTEXT_GONE = ("Cannot find context", "Execution context was destroyed", "Inspected target navigated or closed")

# The document's root where it has no body: a lone SVG or XML document.
_TEXT = """function () {
  const node = this instanceof Document ? this.body ?? this.documentElement : this;
  return node instanceof HTMLElement ? node.innerText : node?.textContent ?? '';
}"""
_SELF = "function () { return this; }"
# What JSON cannot tell and JavaScript takes for false.
_FALSY = ("0n", "-0", "NaN")


def max_message_bytes(max_pixels: int) -> int:
    """The largest message that a job may need: a picture of so many pixels, or a document of `MAX_HTML_BYTES`."""
    # Uncompressed RGBA, a third more in base64; a document of nothing but quotes doubles in JSON.
    return max(max_pixels * 4 * 4 // 3, MAX_HTML_BYTES * 2) + 2**20


def _printable(text: str) -> str:
    """The page's text without halves of surrogate pairs, which no encoding takes."""
    return text.encode(errors="replace").decode()


async def pause(attempt: int) -> None:
    """Wait before the next look at something, the longer the more there were."""
    await trio.sleep(POLL_S[min(attempt // 5, len(POLL_S) - 1)])


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
        self,
        session: Connection,
        target_id: str,
        *,
        door: Door,
        grant: Callable[[list[str]], Awaitable[None]],
        product: str,
        user_agent: str,
        viewport: Viewport,
    ) -> None:
        self.session = session
        self.ledger = door.ledger
        # The browser's name and version.
        self.product = product
        self.warnings: list[str] = []
        # Its time ran out while a picture was being made: the browser itself may draw no more.
        self.picture_cut = False
        self._user_agent = user_agent
        self._door = door
        # Grants permissions to the page's context, and denies all others.
        self._grant = grant
        # What the page meets now, and the script for each new document.
        self._render = RenderOptions(viewport=viewport)
        self._script_id = ""
        self.traffic = traffic.Traffic()
        # A page target's main frame has the target's id.
        self._frame = MainFrame(target_id, self.traffic, door.ledger)
        # Of the empty page it was opened with; `set_content` without a base writes into that one.
        self._blank_loader_id = ""
        self._written = False
        self._events: Subscription | None = None
        self._changed = trio.Event()
        self._world: tuple[str, int] | None = None
        self._interception = interception.Interception(session, target_id, door.ledger, self.warn)
        self._injected = injection.Injected()
        # The document that got what is injected.
        self._dressed = ""
        self._referer: str | None = None
        self._block_ads = False
        self._kept = False
        # Of a document that does not change by itself, and that nobody changed since, with its loader's id.
        self._glance: tuple[str, settle.Glance] | None = None
        # The URL that was opened last, while it can be opened once more.
        self._opened_url: str | None = None
        # The browser's own page about the navigation that failed last, which may come late.
        self._refused = ""
        # The document that was waited for last.
        self._arrived_at = ""

    @property
    def gone(self) -> bool:
        """Whether it, its renderer or its browser ended."""
        return self.session.ended.is_set()

    @property
    def viewport(self) -> Viewport:
        """The area the page is laid out in."""
        return self._render.viewport

    @property
    def javascript(self) -> bool:
        """Whether the page's scripts run."""
        return self._render.javascript

    # Following the main frame

    async def follow(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep up with the browser's events, and with the page's traffic, until the session ends.

        The page's owner runs it as a task. Over the limit of the traffic the session ends with TooLarge.
        """
        async with open_tasks() as tasks:
            tasks.start_soon(self._end_over_limit)
            await self._follow(task_status)

    async def _end_over_limit(self) -> None:
        await self.ledger.over.wait()
        self.session.give_up(self.ledger.over_text, TooLarge)

    async def _follow(self, task_status: trio.TaskStatus[None]) -> None:
        with self.session.subscribe(*_EVENTS) as self._events:
            task_status.started()
            try:
                async for event in self._events:
                    if event.method in traffic.EVENTS:
                        self.traffic.note(event.method, event.text, trio.current_time())
                    # A page may load thousands of resources; only its documents are read whole.
                    if event.method not in traffic.EVENTS or '"type":"Document"' in event.text:
                        await self._apply(event.method, event.params())
                    self._wake()
            except CDPError:
                # Whoever waits meets the same fault in `_until`.
                self._wake()

    def _wake(self) -> None:
        # Every waiter holds this one; who comes later waits for the next.
        self._changed.set()
        self._changed = trio.Event()

    async def _apply(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.javascriptDialogOpening":
            # `beforeunload` must not keep the page; a confirm or prompt is dismissed as by an absent user.
            accept = params["type"] in ("alert", "beforeunload")
            self._mention(f"{params['type']} dialog answered: {params['message'][:200]}")
            await self.session.post("Page.handleJavaScriptDialog", accept=accept)
        elif method == "Page.windowOpen":
            self._mention(f"a new window was not opened: {params['url']}")
        elif method == "Page.downloadWillBegin":
            self._mention(f"a download was not kept: {params['url']}")
        elif method in interception.EVENTS:
            await self._interception.handle(method, params)
        else:
            self._frame.apply(method, params)

    def warn(self, sentence: str) -> None:
        """Tell the client something; the page's own words in it are cut."""
        self.warnings.append(_printable(sentence[:MAX_REPORTED_CHARS]))

    def _mention(self, sentence: str) -> None:
        """Tell what a page can do without end, while few warnings were told."""
        if len(self.warnings) < MAX_DIALOGS_TOLD:
            self.warn(sentence)

    async def _until(self, reached_it: Callable[[], bool]) -> None:
        while not reached_it():
            self.session.check()
            await self._changed.wait()

    async def _caught_up(self) -> None:
        """Wait until every event that came before now has been followed."""
        events = self._events
        await self._until(lambda: events is None or len(events) == 0)

    async def until_event(self) -> None:
        """Wait until something happens to the page."""
        self.session.check()
        await self._changed.wait()
        self.session.check()

    @property
    def moving(self) -> bool:
        """Whether it is on its way to another document, or says that it will be soon."""
        return self._frame.moving

    async def while_here(self, use: Callable[[], Awaitable[None]]) -> bool:
        """Run something; cancelled, and False, when the document is replaced meanwhile, or is about to be."""
        with trio.CancelScope() as scope:
            async with open_tasks() as tasks:
                tasks.start_soon(self._cancel_when_replaced, scope, True)
                await use()
        return not scope.cancelled_caught

    async def arrive(self, budget_s: float = math.inf) -> None:
        """When the page is on its way to another document, wait until that one is loaded.

        A page says so itself: by a script (`location = ...`), a form, or a `<meta http-equiv=refresh>` that is due
        within `REFRESH_DUE_S`. After the budget it is given up with a warning. Raises NavigationError when it left for
        a dead address and cannot be brought back.
        """
        await self._caught_up()
        with trio.move_on_after(budget_s) as scope:
            await self._until(lambda: self._frame.documents > MAX_DOCUMENTS or (not self.moving and self._is_loaded()))
        if scope.cancelled_caught:
            await self.stay(f"given up after {budget_s:g} s: the page is on its way to another document")
        elif self._frame.documents > MAX_DOCUMENTS and self.moving:
            await self._hold(f"the page moved on more than {MAX_DOCUMENTS} times")
            # The last one has only begun.
            with trio.move_on_after(budget_s):
                await self._until(self._is_loaded)
            await self.stop()
        self._arrived_at = self._frame.document.loader_id
        await self.come_back()

    def _is_loaded(self) -> bool:
        """Whether the document is one that was waited for as far as the client wants it, or has come to its end."""
        document = self._frame.document
        ended = "load" in document.lifecycle or document.loader_id == self._frame.stopped_at
        return document.loader_id == self._arrived_at or ended or self._frame.fault() is not None

    async def stop(self) -> None:
        """Stop what the page is still loading.

        From the start of a navigation until its document begins, Chromium 156 answers no command that needs the page.
        """
        # Refused while one document gives way to the next.
        with contextlib.suppress(CommandError):
            await self.session.send("Page.stopLoading")

    async def stay(self, why: str) -> None:
        """Keep the document that is there as it is, with a warning: wherever the page wants to go, it does not."""
        await self._hold(why)
        for _ in range(MAX_STOPS):
            await self.stop()
            # Where one document is just giving way to the next, that is refused or comes too early.
            if await self._answers(STOPPED_S):
                break
        if "DOMContentLoaded" not in self._frame.document.lifecycle:
            # One that was stopped at its beginning is never drawn (Chromium 156). Opened again, it goes nowhere.
            with trio.move_on_after(BEGINNING_S), contextlib.suppress(NavigationError, NotAPage):
                await self.navigate(self._frame.url, hold=False)

    async def _hold(self, why: str) -> None:
        self.warn(why)
        self._frame.not_followed = self._frame.document.loader_id
        self._interception.stay()
        await self.session.send_all(*self._interception.commands())

    async def come_back(self) -> None:
        """Where the page left for a dead address before anything could hold it, open its URL once more and keep it.

        Raises NavigationError when there is none to come back to.
        """
        if self._frame.document.unreachable_url is None:
            return
        url, self._opened_url = self._opened_url, None
        if url is None:
            raise self._frame.failure(self._frame.document.loader_id)
        await self.keep_document()
        await self.navigate(url)

    # Preparing

    async def enable(self) -> None:
        """Switch on what every job needs; answered before any navigation, or its load events are lost."""
        *_, script = await self.session.send_all(
            # Tells of a renderer that died before this session was there: nothing below would be answered.
            ("Inspector.enable", {}),
            ("Page.enable", {}),
            ("Page.setLifecycleEventsEnabled", {"enabled": True}),
            # The bodies of answers are not kept: only what the server said about the document is read.
            ("Network.enable", {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0}),
            *emulation.at_first(self._render, product=self.product, user_agent=self._user_agent),
            self._run_first(),
        )
        self._script_id = script.get("identifier", "")
        # The empty page's own load is over, so that the next one seen is the client's.
        await self._until(lambda: "load" in self._frame.document.lifecycle)
        self._blank_loader_id = self._frame.document.loader_id

    @property
    def _first_script(self) -> str:
        """What has to run before the scripts of any document."""
        return f"{_LESS_TALK};{emulation.first_script(self._render.viewport)}"

    def _run_first(self) -> tuple[str, dict[str, Any]]:
        """The command that has it run in each new document, with the witness."""
        return "Page.addScriptToEvaluateOnNewDocument", {"source": f"{self._first_script};{settle.WITNESS}"}

    async def prepare(self, options: PageOptions) -> None:
        """Make the page what the options ask for; `html`, `url` and the waits are left to the other methods."""
        options = emulation.resolved(options, self.product)
        page_url = options.url or options.base_url
        commands = emulation.changes(self._render, options, product=self.product, user_agent=self._user_agent)
        resized = options.viewport != self._render.viewport
        self._render = options
        if options.geolocation is not None:
            await self._grant(emulation.permissions(options))
        if options.cookies:
            cookies = [network.cookie_params(cookie, page_url) for cookie in options.cookies]
            commands.append(("Network.setCookies", {"cookies": cookies}))
        if options.bypass_csp:
            commands.append(("Page.setBypassCSP", {"enabled": True}))
        if options.ignore_tls_errors:
            commands.append(("Security.setIgnoreCertificateErrors", {"ignore": True}))
        rules = Rules(options.block_resources, options.block_urls)
        commands += rules.commands()
        self._injected = injection.Injected.of(options)
        self._referer = options.referer
        self._block_ads = options.block_ads
        self._interception.block(rules)
        if page_url:
            self._interception.add_to_origin(network.origin_of(page_url), dict(options.headers), options.auth)
        commands += self._interception.commands()
        if resized:
            commands.append(("Page.removeScriptToEvaluateOnNewDocument", {"identifier": self._script_id}))
            commands.append(self._run_first())
        try:
            replies = await self.session.send_all(*commands)
        except CommandError as error:
            field = _REFUSED_FIELDS.get(error.method)
            raise InvalidOption(f"{field or 'the browser refuses the request'}: {error}") from error
        if resized:
            self._script_id = replies[-1].get("identifier", "")

    # Opening

    async def navigate(self, url: str, *, wait_until: WaitUntil = "load", hold: bool = True) -> None:
        """Open a URL and wait for its document to get as far as `wait_until` (`auto` counts as `load`).

        Without `hold`, a page that moves on to a document that fails is opened once more for what comes next; with it,
        the one before is kept, for a few ms of CPU.

        Redirects by the page itself before that point are followed. Raises NavigationError, NotAPage.
        """
        earlier = (self._frame.document.loader_id, self._refused)
        self._glance = None
        if self.has_document:
            await self.keep_document()
        self._frame.complete, self._frame.documents = False, 0
        if self._block_ads:
            # Anew for each: a listed site that is meant is shown.
            self._door.refuse = ad_filter(network.endpoint_of(url)[0])
        # Once: where a page goes from here is not the client's referer's doing.
        referer, self._referer = self._referer, None
        reply, failures = await self._begin(url, referer)
        if reply.get("errorText") == "net::ERR_ABORTED" and not failures:
            await self._hear_of_crash()
            if not (reply.get("isDownload") or self._frame.answered(reply.get("loaderId", ""))):
                # So ends what the network service had when it died; what comes then is told as that (Chromium 156).
                reply, failures = await self._begin(url, referer)
        loader_id = reply.get("loaderId", "")
        if reply.get("errorText") or reply.get("isDownload"):
            # What keeps the document before aborts the navigation, which hides why.
            net_error = failures[0] if failures else reply.get("errorText")
            self._refused = loader_id
            raise self._frame.failure(loader_id, net_error, is_download=reply.get("isDownload", False))
        if not loader_id:
            # Another place in the document that is there already.
            return
        await self._reach(wait_until, earlier)
        await self._caught_up()
        exchange = self._frame.exchange
        self._opened_url = url if self._frame.complete else None
        if self._frame.document.unreachable_url is not None:
            await self.come_back()
            return
        if exchange is not None and exchange.content_type == "application/pdf":
            # The headless shell downloads it; full Chromium shows a viewer that captures blank.
            raise NotAPage("a PDF", exchange.content_type, exchange.size_bytes)
        if hold:
            await self.hold()

    async def _begin(self, url: str, referer: str | None) -> tuple[dict[str, Any], list[str]]:
        """Have a navigation begin; returns the reply, and how its request failed where that was held up."""
        with self._interception.own_navigation() as failures:
            reply = await self.session.send(
                "Page.navigate", url=url, referrer=referer, referrerPolicy="unsafeUrl" if referer else None
            )
            await self._caught_up()
        return reply, failures

    async def set_content(self, html: str, base_url: str | None, *, wait_until: WaitUntil = "load") -> None:
        """Show a document of the client's own, as `about:blank` or as if it came from `base_url`."""
        await self.keep_document()
        if base_url is not None:
            self._interception.answer_with(html)
            await self.session.send_all(*self._interception.commands())
            await self.navigate(base_url, wait_until=wait_until)
            return
        # The same loader writes the document anew; its life begins again with `init`.
        self._frame.document.lifecycle.clear()
        self._written = True
        await self.session.send_all(
            # The empty document was there before the script for new ones. (No witness: this is a script, too.)
            ("Runtime.evaluate", {"expression": self._first_script}),
            ("Page.setDocumentContent", {"frameId": self._frame.frame_id, "html": html}),
        )
        await self._reach(wait_until, ())

    async def _reach(self, wait_until: WaitUntil, earlier: Collection[str]) -> None:
        """Wait until a document other than the earlier ones got so far."""
        event = _LIFECYCLE[wait_until]

        def reached_it() -> bool:
            document = self._frame.document
            ended = (
                event in document.lifecycle
                or document.loader_id == self._frame.stopped_at
                or self._frame.fault() is not None
            )
            return document.loader_id not in earlier and ended

        if wait_until == "auto":
            await self._load_or_give_up(earlier, reached_it)
        else:
            await self._until(reached_it)
        if event not in self._frame.document.lifecycle:
            await self._hear_of_crash()
            if (fault := self._frame.fault()) is not None:
                raise fault
        self._arrived_at = self._frame.document.loader_id
        if wait_until == "networkidle":
            await settle.network_idle(self)

    async def _hear_of_crash(self) -> None:
        """After loading has stopped: raise TargetCrashed if the renderer's death did that, which is told later."""
        await self._answers(CRASH_NEWS_S)

    async def _answers(self, within_s: float) -> bool:
        """Whether the renderer answers within this time; raises TargetCrashed, SessionClosed where it is gone."""
        with trio.move_on_after(within_s) as scope:
            await self.session.send("Page.getLayoutMetrics")
        return not scope.cancelled_caught

    async def _load_or_give_up(self, earlier: Collection[str], is_loaded: Callable[[], bool]) -> None:
        """Wait for the load event, but not for dead resources: when nothing comes any more, we hang up on them.

        The page goes on as when a server does that: what follows a dead script or picture still gets its turn. Nor for
        what comes drop by drop without an end; of the document itself, most of the attempt's time is waited for.
        """
        started = trio.current_time()
        # Of what is left of the attempt, so that there is time for the rest.
        left_s = trio.current_effective_deadline() - started
        silence_s, drops_s = min(LOAD_SILENCE_S, left_s / 3), min(LOAD_DROPS_S, left_s / 2)
        silent_since = started
        for _ in range(MAX_HANG_UPS):
            while not is_loaded():
                now = trio.current_time()
                loading = self.traffic.in_flight(now)
                if self._frame.document.loader_id in ("", *earlier):
                    # There is nothing yet to go on with.
                    given_up_at = math.inf
                elif self._frame.document.loader_id in loading:
                    given_up_at = started + left_s * DOCUMENT_SHARE
                else:
                    given_up_at = min(max(silent_since, self.traffic.moved_at) + silence_s, started + drops_s)
                if now >= given_up_at:
                    break
                with trio.move_on_at(given_up_at):
                    await self.until_event()
            else:
                return
            shown = self.traffic.shown(loading) or "the load event"
            if not any(warning.endswith(f" of the page: {shown}") for warning in self.warnings):
                self.warn(f"given up after {trio.current_time() - started:.3g} s of the page: {shown}")
            if self._frame.document.loader_id in loading:
                await self.stop()
                return
            self._door.hang_up([network.endpoint_of(url) for url in self.traffic.urls(loading)])
            silent_since, silence_s, drops_s = trio.current_time(), min(silence_s, HUNG_UP_SILENCE_S), math.inf

    async def keep_document(self) -> None:
        """From now on, hold up the documents that the page moves on to: one that fails leaves the one before.

        Called before whatever can make it move. A page that cannot is a few ms of CPU cheaper without.
        """
        self._glance = None
        if not self._kept:
            self._kept = True
            self._interception.keep_document()
            await self.session.send_all(*self._interception.commands())

    async def hold(self) -> None:
        """`keep_document` before a wait, for a page that can make itself move."""
        if self._kept:
            return
        scripted = True

        async def look() -> None:
            nonlocal scripted
            scripted = (await self.glance()).scripted

        # A page that sets out answers no more. A refresh is announced after the load event only.
        await self._caught_up()
        if "load" in self._frame.document.lifecycle and not self._frame.leaves and await self.while_here(look):
            await self._caught_up()
        if scripted or self._frame.leaves:
            await self.keep_document()

    async def glance(self) -> settle.Glance:
        """A look at the document; of one that cannot change by itself, and that nobody changed, that of before."""
        if (still := self._still) is not None:
            return still
        loader_id = self._frame.document.loader_id
        seen = settle.Glance(**await self.call(settle.GLANCE, self.javascript, MAX_REPORTED_CHARS))
        if "load" in self._frame.document.lifecycle and not (seen.scripted or self._kept):
            self._glance = (loader_id, seen)
        return seen

    @property
    def _still(self) -> settle.Glance | None:
        """The glance at a document that is as it was then."""
        if self._glance is None or self._glance[0] != self._frame.document.loader_id:
            return None
        return self._glance[1]

    @property
    def at_rest(self) -> bool:
        """Whether it is known that nothing in the document moves."""
        still = self._still
        return still is not None and not still.moves

    def still_loading(self, among: Iterable[str] | None = None) -> str:
        """What is in flight, all or of some requests, for a message; empty when nothing is."""
        return self.traffic.shown(self.traffic.in_flight(trio.current_time(), among))

    @property
    def has_document(self) -> bool:
        """Whether a document of the client's has begun, so that there is something to capture."""
        begun = self._written or self._frame.document.loader_id != self._blank_loader_id
        return begun and self._frame.document.unreachable_url is None

    @property
    def status_code(self) -> int | None:
        """The HTTP status of the current document; None for one that did not come over HTTP."""
        exchange = self._frame.exchange
        return exchange.status_code if exchange is not None else None

    @property
    def redirects(self) -> list[str]:
        """The URLs whose servers redirected to the current document, the first first."""
        exchange = self._frame.exchange
        return exchange.redirects if exchange is not None else []

    # Waiting

    async def settle(self, tell: Callable[[str], None] = quietly, *, whole_page: bool = False) -> None:
        """After load: see `settle.settle`."""
        await self.hold()
        await settle.settle(self, tell, whole_page=whole_page)

    async def scroll_through(self, max_height: int | None = None) -> None:
        """Bring lazy content to load: see `settle.scroll_through`."""
        self._glance = None
        await self.hold()
        await settle.scroll_through(self, max_height)

    async def dress(self) -> None:
        """Inject style sheets and hide or remove elements, as the options ask, into a document that did not get them.

        Elements to be removed may have come again: they are taken out each time. Raises InvalidSelector.
        """
        loader_id = self._frame.document.loader_id
        if self._injected.into_document and self._dressed != loader_id:
            self._glance = None
            await injection.dress(self, self._injected)
            self._dressed = loader_id
        elif self._injected.remove_selectors:
            self._glance = None
            await injection.remove_again(self, self._injected)

    async def run_scripts(self) -> None:
        """Run the scripts of `js`, one after the other, and follow the page where they lead. Raises ScriptError."""
        for index, script in enumerate(self._injected.js):
            try:
                await self._run(script)
            except ScriptError as error:
                raise ScriptError(f"js[{index}]: {error}") from error
            # A navigation shows when the script is over.
            await settle.frames_painted(self)
            await self.arrive()

    async def wait_for_expression(self, expression: str) -> None:
        """Wait until a script's value is truthy; what it throws counts as not yet.

        Raises ScriptError for one that does not parse.
        """
        for attempt in range(2**31):
            try:
                result = await self._run(expression)
                if "objectId" in result or result.get("value") or result.get("unserializableValue", "0n") not in _FALSY:
                    return
            except ScriptError as error:
                # One that is thrown while the script runs, by JSON.parse say, tells where.
                if str(error).startswith("SyntaxError") and "\n    at " not in str(error):
                    raise
            await pause(attempt)

    async def wait_for(self, wait: WaitFor, tell: Callable[[str], None] = quietly) -> None:
        """Wait until an element is in a state; `tell` hears in which it is instead.

        Raises InvalidSelector, and SelectorNotFound after the wait's own `timeout_ms`.
        """
        await self.hold()
        seen = "detached"
        timeout_s = float("inf") if wait.timeout_ms is None else max(wait.timeout_ms / 1000, FIRST_LOOK_S)
        with trio.move_on_after(timeout_s) as scope:
            for attempt in range(2**31):
                found = await self.call(ELEMENT_STATE, wait.selector)
                if "error" in found:
                    raise InvalidSelector(f"selector {wait.selector!r}: {found['error']}")
                seen = found["state"]
                if reached(wait.state, seen):
                    return
                tell(SEEN_AS[seen])
                await pause(attempt)
        if scope.cancelled_caught:
            message = f"selector {wait.selector!r} was not {wait.state} within {wait.timeout_ms} ms: {SEEN_AS[seen]}"
            raise SelectorNotFound(message)

    async def sleep(self, seconds: float) -> None:
        """Wait, but not for a page that is gone."""
        if seconds > 0:
            await self.hold()
        with trio.move_on_after(seconds):
            await self._until(lambda: False)

    # Reading

    async def info(self) -> PageInfo:
        """URL and title of the current document."""
        said = await self.glance()
        return PageInfo(network.without_credentials(_printable(said.url)), _printable(said.title))

    async def html(self, selector: str | None = None, *, include_shadow_dom: bool = False) -> str:
        """The live document as HTML, doctype included, or the first element of a selector (`DOM.getOuterHTML`).

        Read by the browser, not by the page's scripts, which may have replaced everything. Shadow roots are written as
        `<template shadowrootmode>`. May hold lone surrogates. Raises TooLarge over `MAX_HTML_BYTES`, InvalidSelector,
        SelectorNotFound.
        """

        async def read(world: int) -> str:
            got = await self.session.send(
                "DOM.getOuterHTML",
                objectId=await self._object(world, selector),
                includeShadowDOM=include_shadow_dom,
            )
            html: str = got["outerHTML"]
            return html

        await self.dress()
        html = await self._in_world(read)
        if len(html) > MAX_HTML_BYTES or len(html.encode(errors="replace")) > MAX_HTML_BYTES:
            raise TooLarge(f"the document is over the limit of {MAX_HTML_BYTES // 2**20} MiB of HTML")
        return html

    async def text(self, selector: str | None = None) -> str:
        """What a reader sees, of the page or of an element. Raises InvalidSelector, SelectorNotFound."""

        async def read(world: int) -> str:
            reply = await self.session.send(
                "Runtime.callFunctionOn",
                functionDeclaration=_TEXT,
                objectId=await self._object(world, selector),
                returnByValue=True,
            )
            return _printable(str(reply["result"].get("value", "")))

        await self.dress()
        return await self._in_world(read)

    async def scroll_into_view(self, selector: str) -> None:
        """Scroll an element that has a box into view, if it is not. Raises InvalidSelector, SelectorNotFound."""

        async def scroll(world: int) -> None:
            await self.session.send("DOM.scrollIntoViewIfNeeded", objectId=await self._object(world, selector))

        await self._in_world(scroll)

    async def _object(self, world: int, selector: str | None) -> str:
        """The browser's name of the document, or of the first element of a selector."""
        if selector is None:
            reply = await self.session.send("Runtime.evaluate", expression="document", contextId=world)
        else:
            reply = await self.session.send(
                "Runtime.callFunctionOn",
                functionDeclaration=ELEMENT,
                arguments=[{"value": selector}],
                executionContextId=world,
            )
        if "exceptionDetails" in reply:
            said = reply["exceptionDetails"].get("exception", {}).get("description", "does not parse")
            raise InvalidSelector(f"selector {selector!r}: {_printable(said.partition(chr(10))[0])}")
        if "objectId" not in reply["result"]:
            raise SelectorNotFound(f"the element of selector {selector!r} is not in the document")
        object_id: str = reply["result"]["objectId"]
        return object_id

    async def screenshot(
        self, options: CaptureOptions | None = None, *, max_pixels: int = capture.MAX_PIXELS
    ) -> capture.Picture:
        """A picture of the viewport, or of what the options name.

        Raises TooLarge, SelectorNotFound, InvalidSelector.
        """
        options = options or CaptureOptions(format="png")
        while True:
            # It may have left while nothing held it.
            await self.come_back()
            # Chromium 156 never answers a capture during which the document is replaced, or refuses it.
            self.picture_cut = False
            with trio.CancelScope() as replaced:
                async with open_tasks() as tasks:
                    tasks.start_soon(self._cancel_when_replaced, replaced)
                    try:
                        await self.dress()
                        return await capture.screenshot(self, options, max_pixels)
                    except trio.Cancelled:
                        self.picture_cut = True
                        raise
                    except CommandError as error:
                        if not error.message.startswith(_NOT_ACTIVE):
                            raise

    async def draw(self) -> None:
        """Return once the browser has drawn something of the page."""
        await self.session.send("Page.captureScreenshot", clip={"x": 0, "y": 0, "width": 1, "height": 1, "scale": 1})

    async def _cancel_when_replaced(self, scope: trio.CancelScope, ahead: bool = False) -> None:
        loader_id = self._frame.document.loader_id
        # The session's end is met by whatever runs in the scope.
        with contextlib.suppress(CDPError):
            await self._until(lambda: self._frame.document.loader_id != loader_id or (ahead and self.moving))
            scope.cancel()

    # The page's own world

    async def evaluate(self, script: str) -> Any:
        """The value, awaited and as JSON has it, of an expression or of the last statement of a script of the client's.

        `await` may stand anywhere. None when it made the page move on. Raises ScriptError.
        """
        result = await self._run(script)
        if "objectId" not in result:
            return result.get("value", result.get("unserializableValue"))
        try:
            told = await self._result_of(
                "Runtime.callFunctionOn", objectId=result["objectId"], functionDeclaration=_SELF, returnByValue=True
            )
        except ScriptError as error:
            # Most scripts are run for what they do: `$('#x').hide()` gives all of jQuery.
            self.warn(f"the value of a script is not told: {error}")
            return None
        return told.get("value")

    async def _run(self, script: str) -> dict[str, Any]:
        """What a script of the client's gives, as the protocol describes it."""
        await self.keep_document()
        # `replMode` lets `await` stand at the top; a promise as the last value is awaited by the second command.
        result = await self._result_of(
            "Runtime.evaluate", expression=script, replMode=True, awaitPromise=True, userGesture=True
        )
        if result.get("subtype") == "promise":
            result = await self._result_of("Runtime.awaitPromise", promiseObjectId=result["objectId"])
        return result

    async def _result_of(self, method: str, **params: Any) -> dict[str, Any]:
        try:
            reply = await self.session.send(method, **params)
        except CommandError as error:
            if error.message.startswith(_CONTEXT_GONE):
                return {}
            raise ScriptError(f"the value cannot be told: {error.message}") from error
        if "exceptionDetails" in reply:
            details = reply["exceptionDetails"]
            thrown = details.get("exception", {})
            said = thrown.get("description") or thrown.get("value") or details["text"]
            raise ScriptError(_printable(str(said)[:MAX_REPORTED_CHARS]))
        result: dict[str, Any] = reply["result"]
        return result

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
            loader_id = self._frame.document.loader_id
            try:
                if self._world is None or self._world[0] != loader_id:
                    reply = await self.session.send(
                        "Page.createIsolatedWorld", frameId=self._frame.frame_id, worldName="cleariflow"
                    )
                    self._world = (loader_id, reply["executionContextId"])
                return await use(self._world[1])
            except CommandError as error:
                if not error.message.startswith(_CONTEXT_GONE):
                    raise
                self._world = None
