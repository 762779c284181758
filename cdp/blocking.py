"""Requests that a page may not make: by kind, by URL."""

from __future__ import annotations

import re
from typing import Any

import attrs

from .options import ResourceType

# The browser's kinds (`Network.ResourceType`) behind each of ours.
KINDS: dict[ResourceType, tuple[str, ...]] = {
    "image": ("Image",),
    "font": ("Font",),
    "stylesheet": ("Stylesheet",),
    "script": ("Script",),
    "media": ("Media",),
    "xhr": ("XHR",),
    "fetch": ("Fetch",),
    "websocket": ("WebSocket",),
    "eventsource": ("EventSource",),
    "manifest": ("Manifest",),
    "texttrack": ("TextTrack",),
    "ping": ("Ping", "CSPViolationReport"),
    "frame": ("Document",),
    "other": ("Other", "Prefetch", "SignedExchange", "FedCM"),
}


def matches(glob: str, text: str) -> bool:
    """Whether the whole text is what the glob says: `*` any text, `?` one character, all else itself."""
    at, star, resume, here = 0, -1, 0, 0
    while here < len(text):
        if at < len(glob) and glob[at] == "*":
            star, resume, at = at, here, at + 1
        elif at < len(glob) and glob[at] in ("?", text[here]):
            at, here = at + 1, here + 1
        elif star >= 0:
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return all(left == "*" for left in glob[at:])


@attrs.frozen
class Rules:
    """What is not requested."""

    resources: tuple[ResourceType, ...] = ()
    urls: tuple[str, ...] = ()

    def patterns(self) -> list[dict[str, str]]:
        """What the Fetch domain must hold up, so that `blocks` can be asked about it; may be more."""
        kinds = [kind for resource in self.resources for kind in KINDS[resource] if kind != "WebSocket"]
        return [{"urlPattern": "*", "resourceType": kind, "requestStage": "Request"} for kind in kinds] + [
            {"urlPattern": re.sub(r"\\", r"\\\\", glob), "requestStage": "Request"} for glob in self.urls
        ]

    def blocks(self, resource_type: str, url: str) -> bool:
        """Whether a held-up request of a browser's kind is one of these."""
        return any(resource_type in KINDS[resource] for resource in self.resources) or any(
            matches(glob, url) for glob in self.urls
        )

    def commands(self) -> list[tuple[str, dict[str, Any]]]:
        """What must be sent beside `Fetch.enable`."""
        return []
