"""A page's main frame: which document it shows, how far that one is, and whether it is about to leave."""

from __future__ import annotations

import math
from typing import Any

import attrs
import trio

from . import network
from .egress import Ledger
from .errors import CDPError, ConnectionClosed, NavigationError, NotAPage, TooLarge
from .traffic import Traffic

# UTF-8 bytes of one document.
MAX_HTML_BYTES = 64 * 2**20
# So many documents in a row that the page itself leads to are followed, as browsers follow redirects.
MAX_DOCUMENTS = 20
# A page that says it will move on within this time is waited for.
REFRESH_DUE_S = 5.0

MOVES = (
    "Page.frameScheduledNavigation",
    "Page.frameClearedScheduledNavigation",
    "Page.frameStartedLoading",
    "Page.frameStoppedLoading",
)
_MARKUP = ("text/html", "application/xhtml+xml")


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
    # The answer, or its rest, did not come.
    failed: bool = False


class MainFrame:
    """See the module; its page tells it of every event."""

    def __init__(self, frame_id: str, traffic: Traffic, ledger: Ledger) -> None:
        self.frame_id = frame_id
        self.document = Document()
        self.url = "about:blank"
        # How many documents came since the last navigation of ours, and whether one of them was read to its end.
        self.documents = 0
        self.complete = False
        # The document that stopped loading last: by its load event, or by `window.stop()` without one.
        self.stopped_at = ""
        # The document whose next one is not waited for any longer.
        self.not_followed: str | None = None
        self._exchanges: dict[str, Exchange] = {}
        self._traffic = traffic
        self._ledger = ledger
        # It has set out for another document; it says that it will at this time.
        self._navigating = False
        self._moves_at = math.inf
        # It says that it will set out, to itself too.
        self._scheduled = False

    def apply(self, method: str, params: dict[str, Any]) -> None:
        """Take in an event of the Page domain about any frame, or of the Network domain about a document."""
        if method == "Page.frameNavigated":
            if params["frame"]["id"] == self.frame_id:
                self._navigated(params["frame"])
        elif params.get("frameId", self.frame_id) != self.frame_id:
            return
        elif method == "Page.lifecycleEvent":
            self._reached(params["name"], params["loaderId"])
        elif method in MOVES:
            self._moved(method, params)
        else:
            self._record_exchange(method, params)

    def _reached(self, moment: str, loader_id: str) -> None:
        if moment == "init" or loader_id != self.document.loader_id:
            self.document = Document(loader_id)
        self.document.lifecycle.add(moment)
        if moment == "DOMContentLoaded":
            # Not "load": what a document does while its load event lasts may end it before that is told.
            self.complete = self.complete or self.document.unreachable_url is None
        if moment == "load":
            # The end of a film's document, which the film takes over, is not told.
            self._traffic.give_up([loader_id])

    def _navigated(self, frame: dict[str, Any]) -> None:
        self.url = frame["url"]
        # Plans of the document before go with it, and may not be told to be over.
        self._navigating, self._moves_at, self._scheduled = False, math.inf, False
        self.documents += 1
        self._traffic.forget_others(frame["loaderId"])
        if frame["loaderId"] != self.document.loader_id:
            self.document = Document(frame["loaderId"])
        self.document.unreachable_url = frame.get("unreachableUrl")

    def _moved(self, method: str, params: dict[str, Any]) -> None:
        """It begins or ends to load, or plans to move on or no more."""
        if method == "Page.frameScheduledNavigation":
            self._scheduled = True
            # A page that refreshes itself now and then is not on its way elsewhere.
            same = params["url"].partition("#")[0] == self.url.partition("#")[0]
            if params["reason"] != "metaTagRefresh" or not same:
                self._moves_at = trio.current_time() + params["delay"]
        elif method == "Page.frameClearedScheduledNavigation":
            self._moves_at, self._scheduled = math.inf, False
        else:
            self._navigating = method == "Page.frameStartedLoading"
            if not self._navigating:
                self.stopped_at = self.document.loader_id
                self._traffic.give_up([self.stopped_at])

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
            exchange.net_error, exchange.failed = params["errorText"], True
            return
        response = params["response"]
        exchange.status_code = response["status"]
        exchange.content_type = response["mimeType"] or None
        headers = {name.lower(): value for name, value in response["headers"].items()}
        length = headers.get("content-length", "")
        # A hostile one has thousands of digits.
        if length.isdigit() and len(length) < 20:
            exchange.size_bytes = int(length)

    @property
    def moving(self) -> bool:
        """Whether it is on its way to another document, or says that it will be soon."""
        if self.not_followed == self.document.loader_id:
            return False
        return self._navigating or self._moves_at <= trio.current_time() + REFRESH_DUE_S

    @property
    def leaves(self) -> bool:
        """Whether it is on its way to another document, or says that it will be, however late."""
        return self._navigating or self._scheduled

    @property
    def exchange(self) -> Exchange | None:
        """That of the current document; None for one that did not come over the network."""
        return self._exchanges.get(self.document.loader_id)

    def fault(self) -> CDPError | None:
        """Why the document will not come to its load event, or should not."""
        if self.documents > MAX_DOCUMENTS:
            return NavigationError("net::ERR_TOO_MANY_REDIRECTS")
        exchange = self.exchange
        if exchange is None or exchange.status_code is None:
            return None
        if exchange.failed:
            # Its body broke off.
            return NavigationError(exchange.net_error)
        if (exchange.size_bytes or 0) > MAX_HTML_BYTES and exchange.content_type in _MARKUP:
            limit = f"the limit of {MAX_HTML_BYTES // 2**20} MiB"
            return TooLarge(f"a document of {exchange.size_bytes} bytes is over {limit}")
        return None

    def answered(self, loader_id: str) -> bool:
        """Whether a server answered the request for a document."""
        exchange = self._exchanges.get(loader_id)
        return exchange is not None and exchange.status_code is not None

    def failure(self, loader_id: str, net_error: str | None = None, *, is_download: bool = False) -> CDPError:
        """Why a navigation gave no document."""
        exchange = self._exchanges.get(loader_id)
        if exchange is not None and (is_download or exchange.status_code in (204, 205)):
            reason = "a download" if is_download else f"the server answered {exchange.status_code}, without a document"
            return NotAPage(reason, exchange.content_type, exchange.size_bytes)
        if is_download:
            return NotAPage("a download")
        # Chromium reports whatever its proxy could not do as one error; the door knows which.
        cause = self._ledger.failure_at(*network.endpoint_of(exchange.url)) if exchange is not None else None
        if cause is not None:
            return cause.error()
        net_error = net_error or (exchange.net_error if exchange is not None else "net::ERR_FAILED")
        if net_error == "net::ERR_PROXY_CONNECTION_FAILED":
            # With the network service its contexts' proxies are gone (Chromium 156): what is left leads to no door.
            return ConnectionClosed("the browser lost its network service")
        return NavigationError(net_error)
