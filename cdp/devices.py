"""Named devices: the viewport and the user agent of phones, tablets and desktop browsers.

The table, `devices.json`, was made from the device descriptors of Playwright 1.65.1 (npm `playwright-core`, file
`deviceDescriptorsSource.json`; Copyright (c) Microsoft Corporation, Apache License 2.0), which go back to Puppeteer's
(Copyright 2017 Google Inc., Apache License 2.0). Changed: devices that nobody sells any more are left out, `{major}`
stands for the running browser's version, and a Safari's version is that of its iOS.
"""

from __future__ import annotations

import difflib
import functools
import json
from importlib.resources import files
from typing import Any

import attrs

from .options import Viewport

_LANDSCAPE = " landscape"


@attrs.frozen
class Device:
    """What a page sees of a device."""

    viewport: Viewport
    user_agent: str


@functools.cache
def _table() -> dict[str, tuple[str, Viewport, str]]:
    """Name, viewport and template of the user agent, by the name in lower case."""
    rows: dict[str, dict[str, Any]] = json.loads(files(__package__).joinpath("devices.json").read_bytes())
    table = {}
    for name, row in rows.items():
        # Whatever can be turned is held in a hand.
        held = "landscape" in row
        for turned, size in ((name, row["viewport"]), (name + _LANDSCAPE, row.get("landscape"))):
            if size is not None:
                width, height = size
                viewport = Viewport(width, height, device_scale_factor=row["scale"], mobile=held, touch=held)
                table[turned.lower()] = (turned, viewport, row["user_agent"])
    return table


def names() -> tuple[str, ...]:
    """Every name, in the table's order."""
    return tuple(name for name, _, _ in _table().values())


def device(name: str, product: str) -> Device:
    """A device by its name, with the version of `product` (such as `HeadlessChrome/156.0.8078.79`) if it is a Chrome.

    Upper and lower case are the same. Raises ValueError with the nearest names when there is no such device.
    """
    if name.lower() not in _table():
        near = difflib.get_close_matches(name.lower(), _table(), n=3)
        known = ", ".join(repr(_table()[one][0]) for one in near)
        raise ValueError("is no device that is known here" + (f"; near it: {known}" if known else ""))
    _, viewport, template = _table()[name.lower()]
    return Device(viewport, template.replace("{major}", product.partition("/")[2].partition(".")[0]))
