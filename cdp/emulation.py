"""The browser that a page meets, as commands: viewport, touch, user agent, language, time zone, media, place, scripts.

What Chromium 156 cannot do: `navigator.vendor` is `Google Inc.` whatever the user agent says, `navigator.userAgentData`
is there (without brands) beside a user agent that has none, and workers keep the browser's own `navigator.languages`
and `navigator.platform`.
"""

from __future__ import annotations

import contextlib
import functools
import re
import zoneinfo
from collections.abc import Iterator
from typing import Any, TypeVar

import attrs

from . import devices
from .options import RenderOptions, Viewport

Command = tuple[str, dict[str, Any]]
T = TypeVar("T", bound=RenderOptions)

# What a phone's touch screen can tell apart; Chromium's own emulation of one says so too.
TOUCH_POINTS = 5
# The first Chrome that sends client hints.
_FIRST_WITH_HINTS = 89

# Where a device's version does not matter.
_ANY_PRODUCT = "Chrome/0"

# BCP 47: language, script, region, variants, Unicode extension.
_LOCALE = re.compile(
    r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-(?:[A-Za-z]{2}|[0-9]{3}))?"
    r"(-(?:[A-Za-z0-9]{5,8}|[0-9][A-Za-z0-9]{3}))*(-u(?:-[A-Za-z0-9]{2,8})+)?"
)
_TIMEZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")


# ---- What was asked for ----------------------------------------------------------------------------------------------


def faults(options: RenderOptions) -> Iterator[tuple[str, str]]:
    """Field and fault for what no browser would take. A time zone that is well formed may still be unknown to it."""
    if options.device is not None:
        try:
            resolved(options, _ANY_PRODUCT)
        except ValueError as error:
            yield "device", str(error)
        if options.user_agent is not None:
            yield "user_agent", "contradicts device, which has one"
        if options.viewport != RenderOptions().viewport:
            yield "viewport", "contradicts device, which has one"
    if not _LOCALE.fullmatch(options.locale):
        yield "locale", "is not a language tag such as de-CH"
    if not _TIMEZONE.fullmatch(options.timezone):
        yield "timezone", "is not the name of a time zone such as Europe/Zurich"
    elif not _is_time_zone(options.timezone) and _is_time_zone("Europe/Zurich"):
        # (A slim container knows none at all: there the browser is left to judge.)
        yield "timezone", "is no time zone that is known here"


def _is_time_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False
    return True


def resolved(options: T, product: str) -> T:
    """The options with the device's viewport and user agent in its place; raises ValueError for an unknown one."""
    if options.device is None:
        return options
    device = devices.device(options.device, product)
    return attrs.evolve(options, device=None, viewport=device.viewport, user_agent=device.user_agent)


def viewport_of(options: RenderOptions) -> Viewport:
    """The viewport of the device, or of its own; an unknown device counts as none."""
    with contextlib.suppress(ValueError):
        return resolved(options, _ANY_PRODUCT).viewport
    return options.viewport


# ---- Commands --------------------------------------------------------------------------------------------------------


def first_script(viewport: Viewport) -> str:
    """What has to run before the scripts of each document.

    It makes the window as large as the viewport: the browser's are not (`launcher.SWITCHES`). And without the look at
    `innerWidth`, a phone's page would be laid out in that width only after a first look at it (without RenderDocument).
    """
    return f"""for (const [name, size] of [['outerWidth', {viewport.width}], ['outerHeight', {viewport.height}]]) {{
  const define = how => Object.defineProperty(window, name, {{enumerable: true, configurable: true, ...how}});
  // A script may put its own in their place.
  define({{get: () => size, set(value) {{ define({{value, writable: true}}); }}}});
}}
innerWidth;"""


def commands(options: RenderOptions, *, product: str, user_agent: str) -> list[Command]:
    """All that makes a new page meet the options, without a device; one command a method, in a fixed order.

    `product` and `user_agent` are the browser's own (`Browser.getVersion`), the latter without `Headless`.
    """
    viewport, place = options.viewport, options.geolocation
    upright = viewport.height > viewport.width
    metrics = {
        "width": viewport.width,
        "height": viewport.height,
        "deviceScaleFactor": viewport.device_scale_factor,
        "mobile": viewport.mobile,
        # Else a headless browser's window is the screen, smaller than the viewport.
        "screenWidth": viewport.width,
        "screenHeight": viewport.height,
        "screenOrientation": {
            "type": "portraitPrimary" if upright else "landscapePrimary",
            # A phone is turned from upright, a desktop screen stands as it is.
            "angle": 90 if viewport.mobile and not upright else 0,
        },
    }
    agent: dict[str, Any] = {
        "userAgent": options.user_agent or user_agent,
        # Chromium adds the q-values; given here, they would end up in navigator.languages.
        "acceptLanguage": ",".join(languages(options.locale)),
        "platform": platform(options.user_agent or user_agent),
    }
    # A browser's own user agent is that of a Chromium, not of a Google Chrome.
    metadata = client_hints(options.user_agent or user_agent, product, own=options.user_agent is None)
    if metadata is not None:
        agent["userAgentMetadata"] = metadata
    motion = {None: "", True: "reduce", False: "no-preference"}[options.reduced_motion]
    features = [
        {"name": "prefers-color-scheme", "value": options.color_scheme or ""},
        {"name": "prefers-reduced-motion", "value": motion},
    ]
    return [
        ("Emulation.setDeviceMetricsOverride", metrics),
        ("Emulation.setTouchEmulationEnabled", {"enabled": viewport.touch, "maxTouchPoints": TOUCH_POINTS}),
        ("Emulation.setUserAgentOverride", agent),
        ("Emulation.setLocaleOverride", {"locale": options.locale}),
        ("Emulation.setTimezoneOverride", {"timezoneId": options.timezone}),
        ("Emulation.setEmulatedMedia", {"media": options.media or "", "features": features}),
        (
            "Emulation.setGeolocationOverride",
            {"latitude": place.latitude, "longitude": place.longitude, "accuracy": place.accuracy},
        )
        if place is not None
        else ("Emulation.clearGeolocationOverride", {}),
        ("Emulation.setScriptExecutionDisabled", {"value": not options.javascript}),
    ]


# What a new page is without any command, wherever its browser comes from.
_AS_IT_IS: tuple[Command, ...] = (
    ("Emulation.setTouchEmulationEnabled", {"enabled": False, "maxTouchPoints": TOUCH_POINTS}),
    (
        "Emulation.setEmulatedMedia",
        {
            "media": "",
            "features": [
                {"name": "prefers-color-scheme", "value": ""},
                {"name": "prefers-reduced-motion", "value": ""},
            ],
        },
    ),
    ("Emulation.clearGeolocationOverride", {}),
    ("Emulation.setScriptExecutionDisabled", {"value": False}),
)


@functools.lru_cache(maxsize=64)
def at_first(options: RenderOptions, *, product: str, user_agent: str) -> tuple[Command, ...]:
    """What brings a new page to the options: each command is a part of what it costs."""
    wanted = commands(options, product=product, user_agent=user_agent)
    return tuple(command for command in wanted if command not in _AS_IT_IS)


def changes(former: RenderOptions, options: RenderOptions, *, product: str, user_agent: str) -> list[Command]:
    """What brings a page that has met `former` to the options."""
    known = commands(former, product=product, user_agent=user_agent)
    wanted = [one for one in commands(options, product=product, user_agent=user_agent) if one not in known]
    if options.timezone != former.timezone:
        # While one is in force, Chromium 156 takes any name for the next and goes on with the former one.
        wanted.insert(0, ("Emulation.setTimezoneOverride", {"timezoneId": ""}))
    return wanted


def permissions(options: RenderOptions) -> list[str]:
    """What a page is granted (`Browser.PermissionType`); whatever is not in the list is to be denied."""
    return ["geolocation"] if options.geolocation is not None else []


def languages(locale: str) -> list[str]:
    """navigator.languages of somebody who reads this locale: `["de-CH", "de"]`."""
    tag = re.sub("-u-.*", "", locale, flags=re.IGNORECASE)
    language, *others = tag.split("-")
    cased = [one.upper() if len(one) == 2 else one.title() if len(one) == 4 else one for one in others]
    return list(dict.fromkeys(("-".join((language.lower(), *cased)), language.lower())))


# ---- User agents -----------------------------------------------------------------------------------------------------


def platform(user_agent: str) -> str:
    """navigator.platform of a browser with this user agent; empty for its own."""
    for word, name in (
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Linux armv81"),
        ("Windows", "Win32"),
        ("Macintosh", "MacIntel"),
        ("CrOS", "Linux x86_64"),
    ):
        if word in user_agent:
            return name
    found = re.search(r"Linux (x86_64|i686|aarch64|armv7l)", user_agent)
    return found[0] if found is not None else ""


def client_hints(user_agent: str, product: str, *, own: bool = False) -> dict[str, Any] | None:
    """The `Emulation.UserAgentMetadata` that agrees with a user agent; None for a browser that sends no client hints.

    `own`: it is the running browser's own, which claims no brand but Chromium.
    """
    found = re.search(r"Chrome/(\d{1,9}[\d.]{0,30})", user_agent)
    if found is None or (major := int(_major(found[1]))) < _FIRST_WITH_HINTS:
        return None
    chromium = _full_version(found[1], product)
    brands = [_grease(major), ("Chromium", chromium)]
    if edge := re.search(r"\bEdgA?/(\d{1,9}[\d.]{0,30})", user_agent):
        brands.append(("Microsoft Edge", _full_version(edge[1], product)))
    elif not own and "Chromium/" not in user_agent:
        brands.append(("Google Chrome", chromium))
    brands = [brands[index] for index in _order(major, len(brands))]
    name, version, architecture, bitness, model = _system(user_agent)
    mobile = " Mobile" in user_agent
    return {
        "brands": [{"brand": brand, "version": _major(version)} for brand, version in brands],
        "fullVersionList": [{"brand": brand, "version": version} for brand, version in brands],
        "platform": name,
        "platformVersion": version,
        "architecture": architecture,
        "bitness": bitness,
        "model": model,
        "mobile": mobile,
        "wow64": "WOW64" in user_agent,
        "formFactors": ["Mobile" if mobile else "Tablet" if name == "Android" else "Desktop"],
    }


def _major(version: str) -> str:
    return version.partition(".")[0]


def _full_version(version: str, product: str) -> str:
    """The version that a reduced one (`156.0.0.0`) stands for: the running browser's, when that is the same major."""
    own = product.partition("/")[2]
    if version in (_major(own), f"{_major(own)}.0.0.0"):
        return own
    return version.rstrip(".")


# As Chromium makes them (components/embedder_support/user_agent_utils.cc): a brand that means nothing, and an order,
# both changing with the major version, so that nobody can rely on them. 156 gives `Not:A-Brand` 8 in the first place.
_GREASE_CHARS = (" ", "(", ":", "-", ".", "/", ")", ";", "=", "?", "_")
_GREASE_VERSIONS = ("8", "99", "24")
_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def _grease(major: int) -> tuple[str, str]:
    first, second = (_GREASE_CHARS[number % len(_GREASE_CHARS)] for number in (major, major + 1))
    return f"Not{first}A{second}Brand", f"{_GREASE_VERSIONS[major % len(_GREASE_VERSIONS)]}.0.0.0"


def _order(major: int, count: int) -> list[int]:
    """Which brand comes at each place."""
    places = _ORDERS[major % 6] if count == 3 else (major % 2, (major + 1) % 2)
    return sorted(range(count), key=lambda index: places[index])


def _system(user_agent: str) -> tuple[str, str, str, str, str]:
    """Platform, its version, architecture, bitness and model, as client hints name them."""
    if found := re.search(
        r"Android (\d+(?:\.\d+)*)(?:; (?:[a-z]{2}-[a-z]{2}; )?([^;]+?))?(?: Build/|; wv\)|\) )", user_agent
    ):
        # `K` is what a reduced user agent puts in the place of every model.
        return "Android", _three(found[1]), "", "", "" if found[2] in (None, "K") else found[2]
    if "Windows NT" in user_agent:
        return "Windows", "10.0.0", "x86", "64" if re.search("Win64|WOW64|x64", user_agent) else "32", ""
    if found := re.search(r"Intel Mac OS X (\d+(?:[_.]\d+)*)", user_agent):
        return "macOS", _three(found[1].replace("_", ".")), "x86", "64", ""
    if found := re.search(r"CrOS (\S+) (\d+(?:\.\d+)*)", user_agent):
        architecture, bitness = _processor(found[1])
        return "Chrome OS", _three(found[2]), architecture, bitness, ""
    if found := re.search(r"Linux ([a-z0-9_]+)", user_agent):
        return ("Linux", "", *_processor(found[1]), "")
    return "Unknown", "", "", "", ""


def _processor(name: str) -> tuple[str, str]:
    """Architecture and bitness of what `uname -m` says."""
    return "arm" if name.startswith(("arm", "aarch")) else "x86", "64" if "64" in name else "32"


def _three(version: str) -> str:
    return ".".join([*version.split("."), "0", "0"][:3])
