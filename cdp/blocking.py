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
import re
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


# Of a longer URL the middle does not count: a glob of 4096 characters takes 0.1 s at most.
_MAX_MATCHED = 2**14


def matches(glob: str, url: str) -> bool:
    """Whether the whole URL is what the glob says: `*` any text, `?` one character, all else itself."""
    half = _MAX_MATCHED // 2
    return _pattern(glob).fullmatch(url if len(url) <= 2 * half else url[:half] + url[-half:]) is not None


@functools.lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    """The glob as a regular expression whose time grows with the product of both lengths and no faster.

    What stands between two `*` is taken at the first place where it fits, for good (an atomic group): a later place
    never makes a match possible that an earlier one does not.
    """
    first, *others = (re.escape(part).replace(r"\?", ".") for part in re.split(r"\*+", glob))
    between = "".join(f"(?>.*?{part})" for part in others[:-1])
    return re.compile(first + between + "".join(f".*{part}" for part in others[-1:]), re.DOTALL)


@attrs.frozen
class Rules:
    """What is not requested: kinds, and URLs (without their fragments) by globs."""

    resources: tuple[ResourceType, ...] = ()
    urls: tuple[str, ...] = ()

    def patterns(self) -> list[dict[str, str]]:
        """What `Fetch.enable` must hold up so that `blocks` can be asked about it; it may hold up more."""
        types = dict.fromkeys(_SEEN_AS.get(name, name) for kind in self.resources for name in _TYPES[kind])
        return [{"urlPattern": "*", "resourceType": name, "requestStage": "Request"} for name in types] + [
            # The backslash, an escape there, is a character like others in our globs.
            {"urlPattern": glob.replace("\\", "\\\\"), "requestStage": "Request"}
            for glob in self.urls
        ]

    def blocks(self, resource_type: str, url: str, headers: Mapping[str, str] | None = None) -> bool:
        """Whether a held-up request is one of these, by what `Fetch.requestPaused` says of it.

        The document of the main frame is not to be asked about.
        """
        kinds = _kinds_of(resource_type, {name.lower(): value for name, value in (headers or {}).items()})
        return not kinds.isdisjoint(self.resources) or any(matches(glob, url) for glob in self.urls)

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
