"""Pictures: what rectangle, whether it can be encoded, and how the browser is asked for it."""

from __future__ import annotations

import io
import math
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import attrs
import imagesize
import trio

from . import settle
from .connection import Connection
from .emulation import TOUCH_POINTS, Command
from .errors import InvalidSelector, SelectorNotFound, TooLarge
from .options import DEFAULT_QUALITY, CaptureOptions, Clip, Resize, Viewport
from .selectors import ELEMENT_BOX, ROOTS

if TYPE_CHECKING:
    from .page import Page

# The encoders' own ends (libjpeg's is below the format's 65,535). Chromium 156 answers a picture beyond them with an
# empty string and no error.
FORMAT_EXTENT_PX = {"webp": 16_383, "jpeg": 65_500}
MAX_PIXELS = 64_000_000
TOUCH: Command = ("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": TOUCH_POINTS})
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
            f"a {image_format} picture of {width_px} x {height_px} px is over the format's {limit} px a side: "
            "ask for png, max_height or resize"
        )
    if width_px * height_px > max_pixels:
        raise TooLarge(
            f"a picture of {width_px} x {height_px} px is over the limit of {max_pixels} pixels (--max-pixels): "
            "ask for max_height, a clip or a smaller scale"
        )


# Animations with an end are brought there, endless ones to their beginning, as playwright does it; those that follow
# the scroll position have no time of their own. The caret is hidden only where a field has it: a rule for all elements
# costs a long document its styles once more.
# -> {moved: whether there were animations, changed: whether `_THAW` has something to do}
_FREEZE = (
    "() => {"
    + ROOTS
    + """
  const kept = globalThis[Symbol.for('cleariflow')] ??= {};
  kept.endless ??= [];
  let moved = false;
  for (const animation of roots.flatMap(root => root.getAnimations())) {
    if (!(animation.timeline instanceof DocumentTimeline) || animation.playbackRate === 0) continue;
    moved = true;
    try {
      if (Number.isFinite(animation.effect.getComputedTiming().endTime)) animation.finish();
      else { animation.cancel(); kept.endless.push(animation); }
    } catch {}
  }
  const focused = roots.map(root => root.activeElement).some(node => node !== null && node !== document.body);
  if (focused && kept.noCaret === undefined) {
    kept.noCaret = new CSSStyleSheet();
    kept.noCaret.replaceSync('*, *::before, *::after { caret-color: transparent !important; }');
    document.adoptedStyleSheets.push(kept.noCaret);
  }
  return {moved, changed: kept.endless.length > 0 || kept.noCaret !== undefined};
}"""
)
_THAW = """() => {
  const kept = globalThis[Symbol.for('cleariflow')];
  for (const animation of kept.endless.splice(0)) animation.play();
  const at = document.adoptedStyleSheets.indexOf(kept.noCaret);
  if (at >= 0) document.adoptedStyleSheets.splice(at, 1);
  kept.noCaret = undefined;
}"""
# Parts of long documents are laid out near the viewport only (`content-visibility: auto`); elsewhere they are blank.
# -> how many there were
_SHOW_ALL = """() => {
  const all = [...document.querySelectorAll('*')];
  const skipped = all.filter(node => getComputedStyle(node).contentVisibility === 'auto');
  for (const node of skipped) node.style.setProperty('content-visibility', 'visible', 'important');
  return skipped.length;
}"""
_SCROLL_HOME = """() => {
  const away = window.scrollX !== 0 || window.scrollY !== 0;
  if (away) window.scrollTo({top: 0, left: 0, behavior: 'instant'});
  return away;
}"""


async def screenshot(page: Page, options: CaptureOptions, max_pixels: int) -> Picture:
    """A picture of the page as it is now. Raises TooLarge, SelectorNotFound, InvalidSelector."""
    frozen = {"moved": False, "changed": False}
    if options.disable_animations and not page.at_rest:
        frozen = await page.call(_FREEZE)
    if frozen["moved"]:
        # What ended may have begun something else.
        await settle.frames_painted(page)
        frozen = await page.call(_FREEZE)
    area, beyond_viewport = await _area(page, options)
    encoding = options if options.resize is None else attrs.evolve(options, format="png", quality=None)
    picture = await take_picture(
        page.session,
        encoding,
        area=area,
        beyond_viewport=beyond_viewport,
        viewport=page.viewport,
        max_pixels=max_pixels,
    )
    if frozen["changed"]:
        await page.call(_THAW)
    return picture if options.resize is None else await resized(page, picture, options, max_pixels)


async def _area(page: Page, options: CaptureOptions) -> tuple[Clip, bool]:
    """The rectangle to show, in page coordinates, and whether it may reach out of the viewport."""
    beyond_viewport = options.full_page or options.clip is not None or options.selector is not None
    if beyond_viewport and await page.call(_SHOW_ALL):
        await settle.images_ready(page, whole_page=True)
        await settle.frames_painted(page)
    if options.clip is not None:
        return round_box(options.clip), True
    if options.selector is not None:
        await _element_box(page, options.selector)
        # Lazy content starts to load, and what is fixed to the viewport stands where puppeteer has it. Not by a script:
        # the protocol's command ignores `scroll-behavior: smooth`.
        await page.scroll_into_view(options.selector)
        box = await _element_box(page, options.selector)
        return element_area(box, options.selector, options.padding, await _content_size(page)), True
    if options.full_page:
        # What is fixed to the viewport is drawn where the page is scrolled to: once, and at the top.
        if await page.call(_SCROLL_HOME):
            await settle.frames_painted(page)
        width, height = await _content_size(page)
        return Clip(0, 0, width, height if options.max_height is None else min(height, options.max_height)), True
    return Clip(0, 0, page.viewport.width, page.viewport.height), False


async def _element_box(page: Page, selector: str) -> dict[str, float]:
    box: dict[str, Any] = await page.call(ELEMENT_BOX, selector)
    if "error" in box:
        raise InvalidSelector(f"selector {selector!r}: {box['error']}")
    if "missing" in box:
        raise SelectorNotFound(f"the element of selector {selector!r} is {box['missing']}")
    return box


async def _content_size(page: Page) -> tuple[float, float]:
    size = (await page.session.send("Page.getLayoutMetrics"))["cssContentSize"]
    return size["width"], size["height"]


# -> the base64 of a picture scaled to `size` of which `crop` is kept. By the browser's own scaler and encoder.
_RESIZE = """async (data, width, height, cropWidth, cropHeight, type, quality) => {
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], {type: 'image/png'}), {
    resizeWidth: width, resizeHeight: height, resizeQuality: 'high'});
  const canvas = new OffscreenCanvas(cropWidth, cropHeight);
  canvas.getContext('2d').drawImage(bitmap, Math.floor((cropWidth - width) / 2), 0);
  const blob = await canvas.convertToBlob({type, quality});
  const made = new Uint8Array(await blob.arrayBuffer());
  let text = '';
  for (let at = 0; at < made.length; at += 32768) text += String.fromCharCode(...made.subarray(at, at + 32768));
  return btoa(text);
}"""


def resized_extent(width: int, height: int, resize: Resize) -> tuple[int, int, int, int]:
    """Width and height that a picture is scaled to, and those of what is kept of it."""
    across = (resize.width or math.inf) / width
    down = (resize.height or math.inf) / height
    if resize.fit == "fill":
        assert resize.width is not None
        assert resize.height is not None
        return resize.width, resize.height, resize.width, resize.height
    scale = min(across, down) if resize.fit == "inside" else max(across, down)
    scaled = max(1, _round(width * scale)), max(1, _round(height * scale))
    if resize.fit == "inside":
        return *scaled, *scaled
    assert resize.width is not None
    assert resize.height is not None
    return *scaled, resize.width, resize.height


async def resized(page: Page, picture: Picture, options: CaptureOptions, max_pixels: int) -> Picture:
    """The picture in the size that `options.resize` asks for, encoded as they ask."""
    assert options.resize is not None
    extent = resized_extent(picture.width, picture.height, options.resize)
    check_extent(extent[0], extent[1], 1, options.format, max_pixels)
    content_type = f"image/{options.format}"
    data = await decode_base64(
        await page.call(
            _RESIZE,
            await encode_base64(picture.data),
            *extent,
            content_type,
            (options.quality or DEFAULT_QUALITY) / 100,
        )
    )
    return Picture(data, content_type, *extent[2:])


async def take_picture(
    session: Connection,
    options: CaptureOptions,
    *,
    area: Clip,
    beyond_viewport: bool,
    viewport: Viewport,
    max_pixels: int,
) -> Picture:
    """`Page.captureScreenshot` of an area in page coordinates.

    Raises TooLarge before anything is drawn. `beyond_viewport` False means that the area is the viewport itself.
    """
    scale, touch = viewport.device_scale_factor, viewport.touch
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
    if touch and beyond_viewport:
        # Such a picture makes Chromium 156 apply its preferences anew, a mouse among them, before and after the frame.
        commands.append(TOUCH)
    encoded: str = next(reply["data"] for reply in await session.send_all(*commands) if "data" in reply)
    if touch and beyond_viewport:
        await session.send_all(TOUCH)
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


async def encode_base64(data: bytes) -> str:
    """The base64 text of bytes; that of many is made in a thread."""
    if len(data) <= DECODE_SLICE:
        return b64encode(data).decode()
    return await trio.to_thread.run_sync(lambda: b64encode(data).decode(), abandon_on_cancel=True)


def element_area(
    box: dict[str, float], selector: str, padding: int = 0, page_size: tuple[float, float] = (math.inf, math.inf)
) -> Clip:
    """The area of an element's box, whole pixels, and the padding around it as far as the page reaches.

    Raises SelectorNotFound when nothing of the element lies on the page.
    """
    left, top = max(0.0, box["x"]), max(0.0, box["y"])
    right, bottom = box["x"] + box["width"], box["y"] + box["height"]
    if right <= left or bottom <= top:
        raise SelectorNotFound(f"the element of selector {selector!r} lies outside of the page")
    area = round_box(Clip(left, top, right - left, bottom - top))
    if not padding:
        return area
    left, top = max(0, area.x - padding), max(0, area.y - padding)
    right = max(area.x + area.width, min(area.x + area.width + padding, page_size[0]))
    bottom = max(area.y + area.height, min(area.y + area.height + padding, page_size[1]))
    return Clip(left, top, right - left, bottom - top)
