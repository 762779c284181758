"""Which of a page's requests are under way. Pure: it reads events, and the caller's clock.

Websockets, event streams, beacons and preflights do not count. The browser does not report the end of a `fetch` whose
body the page never reads: one that has its headers counts only while bytes keep coming.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import attrs

EVENTS = (
    "Network.requestWillBeSent",
    "Network.responseReceived",
    "Network.dataReceived",
    "Network.loadingFinished",
    "Network.loadingFailed",
)
# A stream that is silent for so long is not waited for.
STREAM_SILENCE_S = 0.2
# A page may have more; those are not counted.
MAX_TRACKED = 5000

# The protocol writes these parameters first; a page's own text cannot stand before them, and its quotes are escaped.
_REQUEST_ID = re.compile(r'"requestId":"([^"]*)"')
_LOADER_ID = re.compile(r'"loaderId":"([^"]*)"')
_URL = re.compile(r'"request":\{"url":("(?:[^"\\]|\\.){0,200})')
_NOT_COUNTED = (
    '"type":"EventSource"',
    '"type":"Ping"',
    '"type":"Preflight"',
    '"type":"CSPViolationReport"',
    # The end of a worker's script is not told: it belongs to no document, or is not on the network.
    '"loaderId":"",',
    '"request":{"url":"blob:',
    '"request":{"url":"data:',
)


@attrs.define
class _Request:
    loader_id: str
    url: str
    # Of a fetch that has its headers: when something came last.
    streamed_at: float | None = None


class Traffic:
    """The requests in flight of one page."""

    def __init__(self) -> None:
        self._requests: dict[str, _Request] = {}
        # When something last came or went.
        self.moved_at = 0.0

    def note(self, method: str, text: str, now: float) -> None:
        """Take in one of `EVENTS`, as the text it came in."""
        found = _REQUEST_ID.search(text)
        if found is None:
            return
        request_id = found[1]
        request = self._requests.get(request_id)
        if method == "Network.requestWillBeSent":
            if any(kind in text for kind in _NOT_COUNTED) or len(self._requests) >= MAX_TRACKED:
                return
            loader = _LOADER_ID.search(text)
            self._requests[request_id] = _Request(loader[1] if loader else "", _url_in(text))
        elif request is None:
            return
        elif method == "Network.responseReceived":
            if '"type":"Fetch"' in text:
                request.streamed_at = now
            elif '"type":"Media"' in text:
                # A film is loaded as far as it is played.
                del self._requests[request_id]
        elif method == "Network.dataReceived":
            if request.streamed_at is not None:
                request.streamed_at = now
        else:
            del self._requests[request_id]
        self.moved_at = now

    def give_up(self, request_ids: Iterable[str]) -> None:
        """Count these no longer: they are known to be over, or nobody waits for them."""
        for request_id in request_ids:
            self._requests.pop(request_id, None)

    def forget_others(self, loader_id: str) -> None:
        """A new document replaced the one before: whose requests it took along may not be told."""
        self._requests = {
            request_id: request
            for request_id, request in self._requests.items()
            if loader_id in (request_id, request.loader_id)
        }

    def in_flight(self, now: float, among: Iterable[str] | None = None) -> list[str]:
        """The ids of requests under way, all or those of `among`."""
        return [
            request_id
            for request_id in (self._requests if among is None else among)
            if (request := self._requests.get(request_id)) is not None
            and (request.streamed_at is None or now - request.streamed_at < STREAM_SILENCE_S)
        ]

    def quiet_s(self, now: float) -> float:
        """For how long nothing has been in flight."""
        return 0.0 if self.in_flight(now) else now - self.moved_at

    def urls(self, request_ids: Iterable[str]) -> list[str]:
        """The requests' URLs, each cut at 200 characters."""
        return [self._requests[request_id].url for request_id in request_ids if request_id in self._requests]

    def shown(self, request_ids: Iterable[str]) -> str:
        """Some of the requests' URLs, for a message."""
        urls = self.urls(request_ids)
        return ", ".join(urls[:3]) + (f" and {len(urls) - 3} more" if len(urls) > 3 else "")


def _url_in(text: str) -> str:
    """The URL of a request event, cut."""
    found = _URL.search(text)
    try:
        url: str = json.loads(found[1] + '"') if found else "?"
    except ValueError:
        # Cut within an escape.
        return "?"
    return url.encode(errors="replace").decode()
