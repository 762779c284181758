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


@attrs.frozen
class OneOrMore:
    """Marks a list that may be given as a single item."""


MAX_DELAY_MS = 600_000
MAX_TEXT = 4096
MAX_ITEMS = 100
# Of all `block_urls`: each URL that a page asks for is held against them while everybody else waits.
MAX_GLOB_CHARS = 2**15
# Of one of `headers`, with its name; servers refuse more.
MAX_HEADER_CHARS = 2**14
# Chromium's own ceiling of a URL.
MAX_URL = 2**21
# A picture beyond this has no pixel format that Chromium can make; `--max-pixels` is far below.
MAX_EXTENT = 1_000_000
# Of one injected style sheet or script, or of a text that is typed; the request body has its own limit.
MAX_SCRIPT = 2**20

Milliseconds = Annotated[int, Range(0, MAX_DELAY_MS)]
Selector = Annotated[str, Length(1, MAX_TEXT)]
Script = Annotated[str, Length(1, MAX_SCRIPT)]
Distance = Annotated[float, Range(-MAX_EXTENT, MAX_EXTENT)]


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

    name: Annotated[str, Length(1, MAX_TEXT), "its name"]
    value: Annotated[str, Length(0, MAX_TEXT), "its value, as it is sent"]
    url: Annotated[str, Length(1, MAX_URL), "URL whose host and scheme it belongs to"] | None = None
    domain: Annotated[str, Length(1, 255), "host; with a leading dot its subdomains too"] | None = None
    path: Annotated[str, Length(1, 1024), "path prefix; `/` by default"] | None = None
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


@attrs.frozen
class Geolocation:
    """A place on earth."""

    latitude: Annotated[float, Range(-90, 90), "degrees north"]
    longitude: Annotated[float, Range(-180, 180), "degrees east"]
    accuracy: Annotated[float, Range(0, 100_000), "radius in metres"] = 10.0


@attrs.frozen
class Auth:
    """Credentials for HTTP basic and digest authentication, given to the URL's own origin only."""

    username: Annotated[str, Length(0, MAX_TEXT), "the name"]
    password: Annotated[str, Length(0, MAX_TEXT), "the password"] = attrs.field(repr=False)


# ---- Actions


@attrs.frozen
class Point:
    """A place, or a distance, in CSS pixels."""

    x: Annotated[Distance, "to the right"] = 0.0
    y: Annotated[Distance, "downwards"] = 0.0


@attrs.frozen(kw_only=True)
class Step:
    """What every action has."""

    timeout_ms: Annotated[Milliseconds, "fail after this long; without it when the whole attempt does"] | None = None
    optional: Annotated[bool, "true: a failure is noted and the next action follows"] = False


@attrs.frozen(kw_only=True)
class Click(Step):
    """Click an element: scrolled into view, once it is visible, at rest and not covered."""

    type: Literal["click"]
    selector: Annotated[Selector, "the element"]
    button: Annotated[Literal["left", "middle", "right"], "of the mouse"] = "left"
    count: Annotated[int, Range(1, 3), "2 is a double click"] = 1


@attrs.frozen(kw_only=True)
class Hover(Step):
    """Move the mouse over an element."""

    type: Literal["hover"]
    selector: Annotated[Selector, "the element"]


@attrs.frozen(kw_only=True)
class TypeText(Step):
    """Type a text with key events."""

    type: Literal["type"]
    text: Annotated[str, Length(0, MAX_SCRIPT), "what to type"]
    selector: Annotated[Selector, "the field; without it the focused one"] | None = None
    delay_ms: Annotated[int, Range(0, 1000), "between two keys"] = 0
    clear: Annotated[bool, "empty the field first"] = False


@attrs.frozen(kw_only=True)
class Press(Step):
    """Press a key, with modifiers as in `Control+A`."""

    type: Literal["press"]
    key: Annotated[str, Length(1, 100), "as KeyboardEvent.key names it: `Enter`, `ArrowDown`, `a`, `Control+A`"]
    selector: Annotated[Selector, "focused first"] | None = None


@attrs.frozen(kw_only=True)
class Select(Step):
    """Choose an option of a `<select>`."""

    type: Literal["select"]
    selector: Annotated[Selector, "the `<select>`"]
    value: Annotated[tuple[str, ...], OneOrMore(), Length(0, MAX_ITEMS), "value or label; a list where several can be"]


@attrs.frozen(kw_only=True)
class Check(Step):
    """Bring a check box or radio button into a state, by a click where it is not in it."""

    type: Literal["check", "uncheck"]
    selector: Annotated[Selector, "the box or its label"]


@attrs.frozen(kw_only=True)
class Scroll(Step):
    """Scroll the page, or the element of `selector`."""

    type: Literal["scroll"]
    selector: Annotated[Selector, "what to scroll; without it the page"] | None = None
    to: Annotated[Selector | Point, "`top`, `bottom`, a selector, or `{x, y}`"] | None = None
    by: Annotated[Distance | Point, "pixels downwards, or `{x, y}`"] | None = None


@attrs.frozen(kw_only=True)
class Wait(Step):
    """Wait for one of: a time, an element, an expression."""

    type: Literal["wait"]
    ms: Annotated[Milliseconds, "a time"] | None = None
    selector: Annotated[Selector, "an element that is visible"] | None = None
    expression: Annotated[Script, "JavaScript, awaited until truthy"] | None = None


@attrs.frozen(kw_only=True)
class Goto(Step):
    """Open another URL."""

    type: Literal["goto"]
    url: Annotated[str, Length(1, MAX_URL), "absolute http(s) URL; a bare host name means https"]


@attrs.frozen(kw_only=True)
class Evaluate(Step):
    """Run JavaScript in the page; its value, awaited, is returned."""

    type: Literal["evaluate"]
    script: Annotated[Script, "an expression, or statements whose last value counts"]


@attrs.frozen(kw_only=True)
class Shoot(Step):
    """Take a picture as the page is now: of the viewport or of one element."""

    type: Literal["screenshot"]
    name: Annotated[str, Length(1, 64), "letters, digits, `-`, `_` and `.`; where the result has it"]
    selector: Annotated[Selector, "only this element"] | None = None


Action = Click | Hover | TypeText | Press | Select | Check | Scroll | Wait | Goto | Evaluate | Shoot

# ---- Requests

WaitUntil = Literal["auto", "load", "domcontentloaded", "networkidle", "commit"]
Format = Literal["jpeg", "png", "webp"]
ResourceType = Literal[
    "image",
    "font",
    "stylesheet",
    "script",
    "media",
    "xhr",
    "fetch",
    "websocket",
    "eventsource",
    "manifest",
    "texttrack",
    "ping",
    "frame",
    "other",
]


@attrs.frozen(kw_only=True, slots=False)
class RenderOptions:
    """The browser that a page meets, and when the page is ready."""

    viewport: Annotated[Viewport, "the area the page is laid out in"] = Viewport()
    device: Annotated[str, Length(1, 100), "a named device: viewport, scale, touch and user agent"] | None = None
    user_agent: (
        Annotated[str, Length(1, MAX_TEXT), "instead of the browser's own; client hints agree with it"] | None
    ) = None
    locale: Annotated[
        str, Length(1, 100), "language tag such as `de-CH`: Accept-Language, navigator.languages and Intl"
    ] = "en-US"
    timezone: Annotated[str, Length(1, 100), "IANA name such as `Europe/Zurich`"] = "UTC"
    color_scheme: Annotated[Literal["light", "dark"], "CSS prefers-color-scheme"] | None = None
    reduced_motion: Annotated[bool, "CSS prefers-reduced-motion"] | None = None
    media: Annotated[Literal["screen", "print"], "CSS media type"] | None = None
    geolocation: Annotated[Geolocation, "where the page is told that it is; grants the permission"] | None = None
    javascript: Annotated[bool, "false: the page's scripts do not run"] = True
    wait_until: Annotated[
        WaitUntil,
        "auto: load, then what it was still loading, a quiet document, canvases at rest, fonts, images in view, each "
        "with a budget; "
        "load: the load event; domcontentloaded: the document is parsed; "
        "networkidle: no request for 500 ms; commit: the document starts",
    ] = "auto"
    wait_for: Annotated[
        tuple[WaitFor, ...], Length(0, MAX_ITEMS), "a selector, a {selector, state, timeout_ms}, or a list"
    ] = ()
    wait_for_expression: Annotated[Script, "JavaScript, awaited until truthy"] | None = None
    wait_ms: Annotated[Milliseconds, "extra fixed delay"] = 0


@attrs.frozen(kw_only=True, slots=False)
class PageOptions(RenderOptions):
    """What to open, and how the page is prepared."""

    url: Annotated[str, Length(1, MAX_URL), "absolute http(s) URL; a bare host name means https"] | None = None
    html: Annotated[str, "a document to render instead of a URL"] | None = None
    base_url: Annotated[str, Length(1, MAX_URL), "the URL that `html` appears to come from"] | None = None
    cookies: Annotated[tuple[Cookie, ...], Length(0, MAX_ITEMS), 'a list of cookies, or a "a=b; c=d" string'] = ()
    headers: Annotated[
        Mapping[str, str],
        Length(0, MAX_ITEMS),
        f"extra headers to the URL's own origin, each at most {MAX_HEADER_CHARS:,} characters with its name",
    ] = attrs.field(factory=dict)
    referer: Annotated[str, Length(1, MAX_TEXT), "the URL that the first request says it comes from"] | None = None
    auth: Annotated[Auth, "credentials for HTTP basic and digest authentication"] | None = None
    bypass_csp: Annotated[bool, "the page's Content-Security-Policy is ignored"] = False
    ignore_tls_errors: Annotated[bool, "certificates are not checked"] = False
    block_resources: Annotated[
        tuple[ResourceType, ...], Length(0, MAX_ITEMS), "kinds of requests that are not made"
    ] = ()
    block_urls: Annotated[
        tuple[Annotated[str, Length(1, MAX_TEXT)], ...],
        Length(0, MAX_ITEMS),
        f"globs of whole URLs that are not requested: `*` any text, `?` one character; at most {MAX_GLOB_CHARS:,} "
        "characters in all",
    ] = ()
    block_ads: Annotated[bool, "requests to hosts of a bundled list of advertisers and trackers are not made"] = False
    css: Annotated[tuple[Script, ...], OneOrMore(), Length(0, MAX_ITEMS), "style sheets added after load"] = ()
    js: Annotated[tuple[Script, ...], OneOrMore(), Length(0, MAX_ITEMS), "scripts run after load"] = ()
    hide_selectors: Annotated[
        tuple[Selector, ...], OneOrMore(), Length(0, MAX_ITEMS), "elements made invisible; their room stays"
    ] = ()
    remove_selectors: Annotated[
        tuple[Selector, ...], OneOrMore(), Length(0, MAX_ITEMS), "elements taken out of the document"
    ] = ()
    actions: Annotated[tuple[Action, ...], Length(0, MAX_ITEMS), "steps before the capture"] = ()


@attrs.frozen
class Resize:
    """The size that a picture is brought to, in image pixels."""

    width: Annotated[int, Range(1, 7680), "in image pixels"] | None = None
    height: Annotated[int, Range(1, 7680), "in image pixels"] | None = None
    fit: Annotated[
        Literal["inside", "cover", "fill"],
        "inside: as large as fits, in proportion; cover: filled, what sticks out is cut off (right, left, below); "
        "fill: stretched",
    ] = "inside"


@attrs.frozen(kw_only=True, slots=False)
class CaptureOptions:
    """What the picture shows and how it is encoded."""

    format: Annotated[Format, "the picture's encoding"] = "jpeg"
    quality: Annotated[int, Range(1, 100), "of jpeg and webp, 80 by default"] | None = None
    full_page: Annotated[bool, "the whole page, not only the viewport"] = False
    max_height: Annotated[int, Range(1, MAX_EXTENT), "of full_page: cut below so many CSS pixels"] | None = None
    scroll_page: Annotated[bool, "scroll through the page first, so that lazy content is loaded"] = False
    selector: Annotated[Selector, "only the first element that matches"] | None = None
    padding: Annotated[int, Range(0, 7680), "CSS pixels around the element of selector"] = 0
    clip: Annotated[Clip, "only this rectangle of the page"] | None = None
    transparent: Annotated[bool, "png and webp: no white behind the page"] = False
    resize: Annotated[Resize, "bring the picture to this size"] | None = None
    disable_animations: Annotated[bool, "animations are finished, endless ones reset, the text cursor hidden"] = True
    optimize_for_speed: Annotated[bool, "encode faster into more bytes"] = True


DEFAULT_QUALITY = 80

OutputName = Literal["html", "text", "markdown", "links", "metadata", "screenshot"]


@attrs.frozen(kw_only=True, slots=False)
class ScrapeOptions:
    """Which forms of a document are wanted."""

    selector: Annotated[Selector, "only the first element that matches"] | None = None
    include_shadow_dom: Annotated[bool, "shadow roots too, in HTML as `<template shadowrootmode>`"] = False
    outputs: Annotated[
        tuple[OutputName, ...],
        Length(1, 6),
        "html; text: what a reader sees; markdown; links: [{url, text, rel}]; metadata: title, description and more; "
        "screenshot: of the viewport, or of the element of selector",
    ] = ("html",)
