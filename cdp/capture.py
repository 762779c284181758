"""Pictures: what rectangle, whether it can be encoded, and how the browser is asked for it."""

from __future__ import annotations

import io
import math
from base64 import b64decode
from typing import Any

import attrs
import imagesize
import trio

from .connection import Connection
from .errors import SelectorNotFound, TooLarge
from .options import DEFAULT_QUALITY, CaptureOptions, Clip

# The encoders' own ends (libjpeg's is below the format's 65,535). Chromium 156 answers a picture beyond them with an
# empty string and no error.
FORMAT_EXTENT_PX = {"webp": 16_383, "jpeg": 65_500}
MAX_PIXELS = 64_000_000
# Decoding holds the interpreter; slices of this many characters (a multiple of four) let other tasks in between.
DECODE_SLICE = 2**22


@attrs.frozen
class Picture:
    """An encoded picture: `width` and `height` are image pixels."""

    data: bytes
    content_type: str
    width: int
    height: int


def round_box(box: Clip) -> Clip:
    """The whole pixels of a fractional box, rounded as puppeteer does: each corner to the nearest."""
    x, y = _round(box.x), _round(box.y)
    return Clip(x, y, max(1, _round(box.width + box.x - x)), max(1, _round(box.height + box.y - y)))


def _round(value: float) -> int:
    """Half goes up, as JavaScript's Math.round."""
    return math.floor(value + 0.5)


def check_extent(width: float, height: float, scale: float, image_format: str, max_pixels: int) -> None:
    """Raise TooLarge when a picture of this size (CSS pixels) cannot or must not be made."""
    width_px, height_px = math.ceil(width * scale), math.ceil(height * scale)
    limit = FORMAT_EXTENT_PX.get(image_format)
    if limit is not None and max(width_px, height_px) > limit:
        raise TooLarge(
            f"a {image_format} picture of {width_px} x {height_px} px is over the format's {limit} px a side"
        )
    if width_px * height_px > max_pixels:
        raise TooLarge(f"a picture of {width_px} x {height_px} px is over the limit of {max_pixels} pixels")


async def take_picture(
    session: Connection, options: CaptureOptions, *, area: Clip, beyond_viewport: bool, scale: float, max_pixels: int
) -> Picture:
    """`Page.captureScreenshot` of an area in page coordinates.

    Raises TooLarge before anything is drawn. `beyond_viewport` False means that the area is the viewport itself.
    """
    check_extent(area.width, area.height, scale, options.format, max_pixels)
    params: dict[str, Any] = {"format": options.format, "optimizeForSpeed": options.optimize_for_speed}
    if options.format != "png":
        params["quality"] = options.quality or DEFAULT_QUALITY
    if beyond_viewport:
        params |= {"captureBeyondViewport": True, "clip": {**attrs.asdict(area), "scale": 1}}
    commands: list[tuple[str, dict[str, Any]]] = [("Page.captureScreenshot", params)]
    if options.transparent:
        clear = {"r": 0, "g": 0, "b": 0, "a": 0}
        commands.insert(0, ("Emulation.setDefaultBackgroundColorOverride", {"color": clear}))
    encoded: str = (await session.send_all(*commands))[-1]["data"]
    if options.transparent:
        # Not sent along with the others: it would be carried out before the frame is drawn (Chromium 156).
        await session.send("Emulation.setDefaultBackgroundColorOverride")
    if not encoded:
        raise TooLarge(f"the browser could not encode a {options.format} picture of this size")
    data = await decode_base64(encoded)
    width, height = imagesize.get(io.BytesIO(data))
    return Picture(data, f"image/{options.format}", width, height)


async def decode_base64(text: str) -> bytes:
    """The bytes of a base64 text; a long one is decoded in a thread, slice by slice."""
    if len(text) <= DECODE_SLICE:
        return b64decode(text)
    return await trio.to_thread.run_sync(
        lambda: b"".join(b64decode(text[at : at + DECODE_SLICE]) for at in range(0, len(text), DECODE_SLICE)),
        abandon_on_cancel=True,
    )


def element_area(box: dict[str, float], selector: str) -> Clip:
    """The area of an element's box, whole pixels; raises SelectorNotFound when nothing of it lies on the page."""
    left, top = max(0.0, box["x"]), max(0.0, box["y"])
    right, bottom = box["x"] + box["width"], box["y"] + box["height"]
    if right <= left or bottom <= top:
        raise SelectorNotFound(f"the element of selector {selector!r} lies outside of the page")
    return round_box(Clip(left, top, right - left, bottom - top))
