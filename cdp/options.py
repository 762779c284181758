"""What a client may ask of a page: frozen values, each field declared once with its type, limits, default and text.

The text of a field is the string in its `Annotated` type; limits are `Range` and `Length`. Validation, the command line
and the documentation read them from here. Durations are in ms, sizes in CSS pixels. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Annotated, Literal

import attrs


@attrs.frozen
class Range:
    """Limits of a number, both inclusive; `above` excludes its own value."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None

    def check(self, value: float) -> None:
        """Raise ValueError naming the limits."""
        low = self.minimum is not None and value < self.minimum
        high = self.maximum is not None and value > self.maximum
        under = self.above is not None and value <= self.above
        if low or high or under:
            # A JSON integer may be too large for a float.
            shown = f", not {value:.10g}" if abs(value) < 1e15 else ""
            raise ValueError(f"must be {self}{shown}")

    def __str__(self) -> str:
        parts = [
            f"more than {self.above:.10g}" if self.above is not None else "",
            f"at least {self.minimum:.10g}" if self.minimum is not None else "",
            f"at most {self.maximum:.10g}" if self.maximum is not None else "",
        ]
        return " and ".join(part for part in parts if part)


@attrs.frozen
class Length:
    """Limits of a text's characters or a list's items, both inclusive."""

    minimum: int = 0
    maximum: int = 2**31

    def check(self, value: Sized) -> None:
        """Raise ValueError naming the limit."""
        unit = "characters" if isinstance(value, str) else "items"
        if len(value) < self.minimum:
            raise ValueError("must not be empty" if self.minimum == 1 else f"needs at least {self.minimum} {unit}")
        if len(value) > self.maximum:
            raise ValueError(f"has {len(value)} {unit}, at most {self.maximum} are allowed")


MAX_DELAY_MS = 600_000
MAX_TEXT = 4096
MAX_ITEMS = 100
# Chromium's own ceiling of a URL.
MAX_URL = 2**21
# A picture beyond this has no pixel format that Chromium can make; `--max-pixels` is far below.
MAX_EXTENT = 1_000_000

Milliseconds = Annotated[int, Range(0, MAX_DELAY_MS)]
Selector = Annotated[str, Length(1, MAX_TEXT)]


@attrs.frozen
class Viewport:
    """The area a page is laid out in."""

    width: Annotated[int, Range(1, 7680), "width in CSS pixels"] = 1280
    height: Annotated[int, Range(1, 7680), "height in CSS pixels"] = 800
    device_scale_factor: Annotated[float, Range(0.1, 4), "image pixels per CSS pixel"] = 1.0
    mobile: Annotated[bool, "lay out as a phone does: viewport meta tag, overlay scrollbars"] = False
    touch: Annotated[bool, "offer touch events"] = False


@attrs.frozen
class Cookie:
    """A cookie set before the page is opened; without `url` and `domain` it belongs to the request's URL."""

    name: Annotated[str, Length(1, MAX_TEXT)]
    value: Annotated[str, Length(0, MAX_TEXT)]
    url: Annotated[str, Length(1, MAX_URL), "URL whose host, path and scheme it belongs to"] | None = None
    domain: Annotated[str, Length(1, 255), "host; with a leading dot its subdomains too"] | None = None
    path: Annotated[str, Length(1, 1024), "path prefix"] | None = None
    expires: Annotated[float, Range(minimum=-1), "seconds since 1970; without it a session cookie"] | None = None
    http_only: Annotated[bool, "hidden from scripts"] = False
    secure: Annotated[bool, "sent over https only"] = False
    same_site: Annotated[Literal["Strict", "Lax", "None"], "when other sites' requests carry it"] | None = None


@attrs.frozen
class WaitFor:
    """An element to wait for."""

    selector: Annotated[Selector, "CSS, `xpath=...` or `text=...`"]
    state: Annotated[
        Literal["attached", "visible", "hidden", "detached"],
        "attached: in the document; visible: has a box and is not hidden; hidden: not visible; detached: not there",
    ] = "visible"
    timeout_ms: Annotated[Milliseconds, "fail after this long; without it when the whole attempt does"] | None = None


@attrs.frozen
class Clip:
    """A rectangle in page coordinates."""

    x: Annotated[float, Range(0, MAX_EXTENT), "left edge in CSS pixels from the page's left"]
    y: Annotated[float, Range(0, MAX_EXTENT), "top edge in CSS pixels from the page's top"]
    width: Annotated[float, Range(above=0, maximum=MAX_EXTENT), "width in CSS pixels"]
    height: Annotated[float, Range(above=0, maximum=MAX_EXTENT), "height in CSS pixels"]


WaitUntil = Literal["auto", "load", "domcontentloaded", "networkidle", "commit"]


@attrs.frozen(kw_only=True, slots=False)
class PageOptions:
    """What to open, in which browser, and when it is ready."""

    url: Annotated[str, Length(1, MAX_URL), "absolute http(s) URL; a bare host name means https"] | None = None
    html: Annotated[str, "a document to render instead of a URL"] | None = None
    base_url: Annotated[str, Length(1, MAX_URL), "the URL that `html` appears to come from"] | None = None
    viewport: Annotated[Viewport, "the area the page is laid out in"] = Viewport()
    user_agent: Annotated[str, Length(1, MAX_TEXT), "instead of the browser's own"] | None = None
    javascript: Annotated[bool, "false: the page's scripts do not run"] = True
    cookies: Annotated[tuple[Cookie, ...], Length(0, MAX_ITEMS), 'a list of cookies, or a "a=b; c=d" string'] = ()
    headers: Annotated[Mapping[str, str], Length(0, MAX_ITEMS), "extra headers to the URL's own origin"] = attrs.field(
        factory=dict
    )
    wait_until: Annotated[
        WaitUntil,
        "auto: load, then fonts ready and images in view decoded, each with a budget; load: the load event; "
        "domcontentloaded: the document is parsed; networkidle: no request for 500 ms; commit: the document starts",
    ] = "auto"
    wait_for: Annotated[
        tuple[WaitFor, ...], Length(0, MAX_ITEMS), "a selector, a {selector, state, timeout_ms}, or a list"
    ] = ()
    wait_ms: Annotated[Milliseconds, "extra fixed delay"] = 0


@attrs.frozen(kw_only=True, slots=False)
class CaptureOptions:
    """What the picture shows and how it is encoded."""

    format: Annotated[Literal["jpeg", "png", "webp"], "the picture's encoding"] = "jpeg"
    quality: Annotated[int, Range(1, 100), "of jpeg and webp, 80 by default"] | None = None
    full_page: Annotated[bool, "the whole page, not only the viewport"] = False
    selector: Annotated[Selector, "only the first element that matches"] | None = None
    clip: Annotated[Clip, "only this rectangle of the page"] | None = None
    transparent: Annotated[bool, "png and webp: no white behind the page"] = False
    optimize_for_speed: Annotated[bool, "encode faster into more bytes"] = True


DEFAULT_QUALITY = 80
