"""Requests that a page may not make: by kind, by URL, and to the hosts of advertisers and trackers.

Kinds and URLs are a matter of the Fetch domain, which sees what a page, its frames and its dedicated workers ask for,
but not what its shared and service workers do. Websockets never pass there (nor does `Network.setBlockedURLs` or an
offline rule stop them in Chromium 156): those of the page and its frames meet a script, those of workers nothing.
Chromium does not tell `fetch()` from XMLHttpRequest at that point, so `fetch` and `xhr` name the same requests;
a worker's script counts as `other`.

Hosts are refused by the egress door, which covers workers and websockets as well and costs the page nothing. They are
in `adhosts.json`: the domains that third-party-web 0.30.0 of 2026-09-14 (npm; MIT License, Copyright (c) 2019 Patrick
Hulce) has under ad, analytics and tag-manager, without those that also carry what people come to see (`left_out`), and
with the trackers' own hosts below such ones (`added`). Lists in the language of EasyList are under the GPL or CC
BY-SA; the StevenBlack list, MIT by name, holds parts for non-commercial use only.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import attrs

from .options import ResourceType

# The Fetch domain's names for our kinds (Chromium 156). What `fetch()` asks for is an XHR there, and Fetch a prefetch;
# websockets do not pass, and nothing headless asks for a manifest.
_TYPES: Mapping[ResourceType, tuple[str, ...]] = {
    "image": ("Image",),
    "font": ("Font",),
    "stylesheet": ("Stylesheet",),
    "script": ("Script",),
    "media": ("Media",),
    "xhr": ("XHR",),
    "fetch": ("XHR",),
    "websocket": (),
    "eventsource": ("EventSource",),
    "manifest": (),
    "texttrack": ("TextTrack",),
    "ping": ("Ping", "CSPViolationReport"),
    "frame": ("Document",),
    "other": ("Other", "Fetch"),
}
# What these come as; a header tells them from the others.
_SEEN_AS = {"EventSource": "XHR", "TextTrack": "Media"}

# A blocked websocket is one to a port that Chromium refuses by itself: an error event, without a connection.
_WEBSOCKET_SCRIPT = r"""((globs, Native) => {
  const patterns = globs.map(glob => new RegExp(
    "^" + glob.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*+/g, ".*").replace(/\?/g, ".") + "$", "s"));
  const blocked = address => {
    try {
      const url = new URL(address, document.baseURI);
      const text = url.href.slice(0, url.href.length - url.hash.length).replace(/^http/, "ws");
      return patterns.some(pattern => pattern.test(text));
    } catch { return false; }
  };
  window.WebSocket = new Proxy(Native, {
    construct: (target, [address, ...rest], wanted) =>
      Reflect.construct(target, [blocked(address) ? "wss://blocked.invalid:1" : address, ...rest], wanted),
  });
  Native.prototype.constructor = window.WebSocket;
})(%s, WebSocket)"""


# Of a longer URL the middle does not count.
_MAX_MATCHED = 2**14


class _Globs:
    """Globs as one automaton: bit by bit a place in one of them, set while the text fits up to there.

    The time grows with the length of the text and hardly with that of the globs. A regular expression takes the product
    of both: a second a URL.
    """

    def __init__(self, globs: tuple[str, ...]) -> None:
        # Places where a glob begins, where it ends, and where any text may follow; those that a character leads to.
        self._begins = self._ends = self._stars = self._any = 0
        self._leads: dict[str, int] = {}
        bit = 1
        for glob in globs:
            self._begins |= bit
            for char in glob:
                if char == "*":
                    self._stars |= bit
                    continue
                bit <<= 1
                if char == "?":
                    self._any |= bit
                elif char.isascii():
                    # A URL has no others; without limit each would be as long as all globs.
                    self._leads[char] = self._leads.get(char, 0) | bit
            self._ends |= bit
            bit <<= 1
        self._leads = {char: places | self._any for char, places in self._leads.items()}

    def match(self, text: str) -> bool:
        """Whether one of them is the whole text."""
        leads, fits = self._leads, self._begins
        for char in text:
            fits = fits << 1 & leads.get(char, self._any) | fits & self._stars
            if not fits:
                return False
        return fits & self._ends != 0


_compiled = functools.lru_cache(maxsize=16)(_Globs)


def matches(globs: tuple[str, ...], url: str) -> bool:
    """Whether the whole URL is what a glob says: `*` any text, `?` one character, all else itself."""
    half = _MAX_MATCHED // 2
    return _compiled(globs).match(url if len(url) <= 2 * half else url[:half] + url[-half:])


@attrs.frozen
class Rules:
    """What is not requested: kinds, and URLs (without their fragments) by globs."""

    resources: tuple[ResourceType, ...] = ()
    urls: tuple[str, ...] = ()

    def patterns(self) -> list[dict[str, str]]:
        """What `Fetch.enable` must hold up so that `blocks` can be asked about it; it may hold up more."""
        every = {"urlPattern": "*", "requestStage": "Request"}
        if self.urls:
            # Not the globs themselves, although it costs a page of 200 requests a tenth of its time: the browser takes
            # the product of both lengths for each, 13 s for one of 4096 characters and a URL of 2 MB, and answers
            # nobody meanwhile (Chromium 156).
            return [every]
        types = dict.fromkeys(_SEEN_AS.get(name, name) for kind in self.resources for name in _TYPES[kind])
        return [every | {"resourceType": name} for name in types]

    def blocks(self, resource_type: str, url: str, headers: Mapping[str, str] | None = None) -> bool:
        """Whether a held-up request is one of these, by what `Fetch.requestPaused` says of it.

        The document of the main frame is not to be asked about.
        """
        kinds = _kinds_of(resource_type, {name.lower(): value for name, value in (headers or {}).items()})
        return not kinds.isdisjoint(self.resources) or matches(self.urls, url)

    def commands(self) -> list[tuple[str, dict[str, Any]]]:
        """What must be sent beside `Fetch.enable`, before the page is opened."""
        globs = ["*"] if "websocket" in self.resources else [glob for glob in self.urls if glob[0] in "*?w"]
        if not globs:
            return []
        return [
            (
                "Page.addScriptToEvaluateOnNewDocument",
                {"source": _WEBSOCKET_SCRIPT % json.dumps(globs), "runImmediately": True},
            )
        ]


def _kinds_of(resource_type: str, headers: Mapping[str, str]) -> set[ResourceType]:
    """Our names for a held-up request; `headers` have their names in lower case."""
    if resource_type == "XHR" and headers.get("accept") == "text/event-stream":
        resource_type = "EventSource"
    elif resource_type == "Media" and "range" not in headers:
        # The browser asks for every sound and film by its bytes, for a track as a whole.
        resource_type = "TextTrack"
    return {kind for kind, types in _TYPES.items() if resource_type in types}


# ---- Advertisers and trackers ----------------------------------------------------------------------------------------


@functools.cache
def _ad_hosts() -> frozenset[str]:
    """Domains of the bundled list; each stands for its subdomains too."""
    table: dict[str, list[str]] = json.loads(files(__package__).joinpath("adhosts.json").read_bytes())
    return frozenset(table["hosts"])


def _listed(host: str) -> frozenset[str]:
    """The entries of the list that stand for a host."""
    labels = host.lower().rstrip(".").split(".")
    return _ad_hosts().intersection(".".join(labels[index:]) for index in range(max(0, len(labels) - 8), len(labels)))


def ad_filter(own_host: str) -> Callable[[str], bool]:
    """Whether a host is to be refused on a page of `own_host`: who opens a listed site gets all of it."""
    own = _listed(own_host)
    return lambda host: bool(_listed(host) - own)
