"""cdp/capture.py and `Page.screenshot`: sizes, colours and encodings, pixel by pixel."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import trio
from numpy.typing import NDArray
from PIL import Image

import cdp
from cdp import capture
from cdp.capture import Picture, check_extent, decode_base64, element_area, round_box, take_picture
from cdp.errors import InvalidSelector, SelectorNotFound, TooLarge
from cdp.options import CaptureOptions, Clip, PageOptions, Resize, Viewport, WaitFor

from .site import (
    BOX_COLOUR,
    BOX_PAINTED,
    FAR_COLOUR,
    FAR_RECT,
    OK_BOX_PX,
    QUADRANT_COLOURS,
    RED,
    ROT_BOUNDS,
    ROT_COLOUR,
    TALL_BAND_PX,
    TALL_BANDS,
    TALL_WIDTH_PX,
    TRANSPARENT_DOT_COLOUR,
    WHITE,
    Site,
    band_colour,
)

QUICK_S = 20
GRADIENT = (
    '<!DOCTYPE html><body style="margin:0;height:100vh;background:'
    'conic-gradient(red,yellow,lime,aqua,blue,magenta,red),repeating-linear-gradient(45deg,#000 0 3px,#fff 3px 7px)">'
)
"""Something that costs bytes."""

Pixels = NDArray[np.uint8]


def image_of(picture: Picture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data))
    image.load()
    return image


def pixels(picture: Picture) -> Pixels:
    """Rows of columns of RGB."""
    return np.asarray(image_of(picture).convert("RGB"))


def colours(part: Pixels) -> set[tuple[int, ...]]:
    """The different colours in a part of a picture."""
    flat = part.reshape(-1, part.shape[-1])
    if (flat == flat[0]).all():
        # Most are of one colour, and sorting takes a minute for 51 million pixels.
        flat = flat[:1]
    return {tuple(map(int, colour)) for colour in np.unique(flat, axis=0)}


async def open_at(page: cdp.Page, url: str, viewport: Viewport) -> None:
    await page.prepare(PageOptions(url=url, viewport=viewport))
    await page.navigate(url)


def png(**options: Any) -> CaptureOptions:
    return CaptureOptions(format="png", **options)


# The viewport


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5, 2.0, 3.0])
async def test_viewport_is_exact(page: cdp.Page, site: Site, scale: float) -> None:
    await open_at(page, site.url("/colours"), Viewport(width=304, height=204, device_scale_factor=scale))
    shown = pixels(await page.screenshot())
    height, width = shown.shape[:2]
    assert (width, height) == (304 * scale, 204 * scale)
    quadrants = [
        shown[top : top + height // 2, left : left + width // 2] for top in (0, height // 2) for left in (0, width // 2)
    ]
    assert [colours(quadrant) for quadrant in quadrants] == [{colour} for colour in QUADRANT_COLOURS]


async def test_viewport_is_1280_by_800_by_default(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    picture = await page.screenshot()
    assert (picture.width, picture.height) == (1280, 800)


async def test_viewport_shows_the_page(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    shown = pixels(await page.screenshot())
    assert colours(shown[:OK_BOX_PX, :OK_BOX_PX]) == {RED}
    assert colours(shown[:OK_BOX_PX, OK_BOX_PX:]) == {WHITE}
    assert colours(shown[400:]) == {WHITE}


async def test_viewport_has_no_scroll_bars(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tall"))
    assert colours(pixels(await page.screenshot())) == {band_colour(0)}


@pytest.mark.parametrize("size", [(1, 1), (7680, 10), (10, 7680)])
async def test_viewport_of_an_extreme_size_is_exact(page: cdp.Page, site: Site, size: tuple[int, int]) -> None:
    await open_at(page, site.url("/ok"), Viewport(width=size[0], height=size[1]))
    picture = await page.screenshot()
    assert (picture.width, picture.height) == size


async def test_viewport_of_a_phone_is_exact(page: cdp.Page, site: Site) -> None:
    viewport = Viewport(width=390, height=844, device_scale_factor=3, mobile=True, touch=True)
    await open_at(page, site.url("/colours"), viewport)
    picture = await page.screenshot()
    assert (picture.width, picture.height) == (1170, 2532)


async def test_viewport_of_a_page_that_still_loads_is_shown(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/never-loads"), wait_until="commit")
    with trio.fail_after(QUICK_S):
        await page.wait_for(WaitFor("#text"))
        assert len(colours(pixels(await page.screenshot()))) > 1


async def test_viewport_without_javascript_is_shown(page: cdp.Page, site: Site) -> None:
    await page.prepare(PageOptions(url=site.url("/ok"), javascript=False))
    await page.navigate(site.url("/ok"))
    assert colours(pixels(await page.screenshot())[:OK_BOX_PX, :OK_BOX_PX]) == {RED}


async def test_screenshot_can_be_taken_again_after_a_cancelled_one(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tall"))
    with trio.move_on_after(0.01):
        await page.screenshot(png(full_page=True))
    await page.navigate(site.url("/ok"))
    assert colours(pixels(await page.screenshot())[:OK_BOX_PX, :OK_BOX_PX]) == {RED}


async def test_screenshot_of_a_page_that_moves_on_meanwhile_is_that_of_the_next_document(
    page: cdp.Page, site: Site
) -> None:
    # Five documents, each of which moves on right after its load.
    site.add(
        "/hops",
        "<script>const left = +location.search.slice(1); onload = () => setTimeout(() => {"
        "location = left ? '/hops?' + (left - 1) : '/ok' }, 5)</script>",
    )
    await page.navigate(site.url("/hops?5"))
    with trio.fail_after(QUICK_S):
        while True:
            picture = await page.screenshot()
            if (await page.info()).url == site.url("/ok"):
                break
        assert picture.width == 1280
        assert colours(pixels(await page.screenshot())[:OK_BOX_PX, :OK_BOX_PX]) == {RED}


# The whole page


async def test_full_page_is_whole_band_by_band(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tall"))
    shown = pixels(await page.screenshot(png(full_page=True)))
    assert shown.shape[:2] == (TALL_BANDS * TALL_BAND_PX, TALL_WIDTH_PX)
    bands = [colours(shown[at : at + TALL_BAND_PX]) for at in range(0, TALL_BANDS * TALL_BAND_PX, TALL_BAND_PX)]
    assert bands == [{band_colour(index)} for index in range(TALL_BANDS)]


async def test_full_page_of_a_short_page_is_the_viewport(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    picture = await page.screenshot(png(full_page=True))
    assert (picture.width, picture.height) == (1280, 800)


async def test_full_page_is_as_wide_as_the_page(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/box"))
    picture = await page.screenshot(png(full_page=True))
    expected = (FAR_RECT.x + FAR_RECT.width, FAR_RECT.y + FAR_RECT.height)
    assert (picture.width, picture.height) == expected


async def test_full_page_heeds_the_scale_factor(page: cdp.Page, site: Site) -> None:
    await open_at(page, site.url("/box"), Viewport(device_scale_factor=0.5))
    shown = pixels(await page.screenshot(png(full_page=True)))
    assert shown.shape[:2] == ((FAR_RECT.y + FAR_RECT.height) / 2, (FAR_RECT.x + FAR_RECT.width) / 2)
    assert colours(shown[-45:, -80:]) == {FAR_COLOUR}


async def test_full_page_starts_at_the_top_of_a_page_that_scrolled(page: cdp.Page, site: Site) -> None:
    site.add(
        "/scrolled",
        '<div style="height:100px;background:red"></div><div style="height:3000px"></div>'
        "<style>body{margin:0}</style><script>onload = () => scrollTo(0, 1000)</script>",
    )
    await page.navigate(site.url("/scrolled"))
    assert colours(pixels(await page.screenshot(png(full_page=True)))[:100]) == {RED}


# An element


async def test_element_box_is_exact(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/box"))
    shown = pixels(await page.screenshot(png(selector="#box")))
    left, top, right, bottom = BOX_PAINTED
    assert shown.shape[:2] == (bottom - top, right - left)
    assert colours(shown) == {BOX_COLOUR}


async def test_element_box_at_twice_the_scale_is_exact(page: cdp.Page, site: Site) -> None:
    await open_at(page, site.url("/box"), Viewport(device_scale_factor=2))
    shown = pixels(await page.screenshot(png(selector="#box")))
    left, top, right, bottom = BOX_PAINTED
    assert shown.shape[:2] == (2 * (bottom - top), 2 * (right - left))
    # At this scale its edges lie between whole CSS pixels.
    assert colours(shown[2:-2, 2:-2]) == {BOX_COLOUR}


async def test_element_turned_is_whole(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/box"))
    shown = pixels(await page.screenshot(png(selector="#rot")))
    height, width = shown.shape[:2]
    assert (width, height) == (round(ROT_BOUNDS.width), round(ROT_BOUNDS.height))
    assert colours(shown[height // 2 : height // 2 + 1, width // 2 : width // 2 + 1]) == {ROT_COLOUR}
    edges = [shown[0], shown[-1], shown[:, 0], shown[:, -1]]
    assert all(len(colours(edge)) > 1 for edge in edges)


async def test_element_beyond_the_viewport_is_exact(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/box"))
    shown = pixels(await page.screenshot(png(selector="#far")))
    assert shown.shape[:2] == (FAR_RECT.height, FAR_RECT.width)
    assert colours(shown) == {FAR_COLOUR}


async def test_element_of_a_page_that_scrolled_is_exact(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/box"))
    await page.call("() => scrollTo(2000, 3000)")
    assert colours(pixels(await page.screenshot(png(selector="#box")))) == {BOX_COLOUR}


async def test_element_within_a_scrolling_one_is_exact(page: cdp.Page, site: Site) -> None:
    site.add(
        "/inner",
        '<div style="width:200px;height:200px;overflow:auto"><div style="height:1000px"></div>'
        '<div id="box" style="width:50px;height:40px;background:red"></div></div>',
    )
    await page.navigate(site.url("/inner"))
    shown = pixels(await page.screenshot(png(selector="#box")))
    assert (shown.shape[:2], colours(shown)) == ((40, 50), {RED})


async def test_element_after_another_one_is_exact(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/box"))
    await page.screenshot(png(selector="#far"))
    assert colours(pixels(await page.screenshot(png(selector="#box")))) == {BOX_COLOUR}


async def test_element_of_a_page_that_replaced_built_ins_is_exact(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tamper"))
    shown = pixels(await page.screenshot(png(selector="#box")))
    assert (shown.shape[:2], colours(shown)) == ((40, 80), {BOX_COLOUR})


async def test_element_partly_left_of_the_page_is_cut(page: cdp.Page, site: Site) -> None:
    url = site.add("/cut", '<div id="box" style="position:absolute;left:-30px;top:-10px;width:50px;height:40px">')
    await page.navigate(url)
    picture = await page.screenshot(png(selector="#box"))
    assert (picture.width, picture.height) == (20, 30)


@pytest.mark.parametrize(
    ("style", "reason"),
    [
        ("display:none", "is not visible"),
        ("height:0", "is not visible"),
        ("position:absolute;left:-500px;width:50px;height:50px", "lies outside of the page"),
    ],
)
async def test_element_without_a_picture_is_not_found(page: cdp.Page, site: Site, style: str, reason: str) -> None:
    await page.navigate(site.add("/unseen", f'<div id="box" style="{style}"></div>'))
    with pytest.raises(SelectorNotFound, match=f"'#box' {reason}"):
        await page.screenshot(png(selector="#box"))


async def test_element_that_is_missing_is_not_found(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    with pytest.raises(SelectorNotFound, match="'#nobody' is not in the document"):
        await page.screenshot(png(selector="#nobody"))


async def test_element_with_an_invalid_selector_is_told(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    with pytest.raises(InvalidSelector, match="'p:nope'"):
        await page.screenshot(png(selector="p:nope"))


# A rectangle


async def test_clip_is_exact(page: cdp.Page, site: Site) -> None:
    await open_at(page, site.url("/colours"), Viewport(width=400, height=300))
    shown = pixels(await page.screenshot(png(clip=Clip(190, 140, 30, 40))))
    assert shown.shape[:2] == (40, 30)
    parts = [shown[:10, :10], shown[:10, 10:], shown[10:, :10], shown[10:, 10:]]
    assert [colours(part) for part in parts] == [{colour} for colour in QUADRANT_COLOURS]


async def test_clip_heeds_the_scale_factor(page: cdp.Page, site: Site) -> None:
    await open_at(page, site.url("/ok"), Viewport(device_scale_factor=2))
    shown = pixels(await page.screenshot(png(clip=Clip(90, 90, 20, 10))))
    assert shown.shape[:2] == (20, 40)
    assert (colours(shown[:, :20]), colours(shown[:, 20:])) == ({RED}, {WHITE})


async def test_clip_beyond_the_viewport_is_exact(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/box"))
    shown = pixels(await page.screenshot(png(clip=Clip(*FAR_RECT))))
    assert (shown.shape[:2], colours(shown)) == ((FAR_RECT.height, FAR_RECT.width), {FAR_COLOUR})


async def test_clip_beyond_the_page_is_white(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    shown = pixels(await page.screenshot(png(clip=Clip(2000, 5000, 20, 10))))
    assert (shown.shape[:2], colours(shown)) == ((10, 20), {WHITE})


# Transparency


def assert_transparent(picture: Picture, tolerance: int) -> None:
    image = image_of(picture).convert("RGBA")
    dot, half, nothing = (image.getpixel((x, 25)) for x in (25, 125, 75))
    assert dot == pytest.approx((*TRANSPARENT_DOT_COLOUR, 255), abs=tolerance)
    assert half == pytest.approx((0, 0, 255, 128), abs=max(1, tolerance))
    assert isinstance(nothing, tuple)
    assert nothing[3] == 0


@pytest.mark.parametrize(("image_format", "tolerance"), [("png", 0), ("webp", 12)])
async def test_transparent_viewport_has_alpha(page: cdp.Page, site: Site, image_format: Any, tolerance: int) -> None:
    await page.navigate(site.url("/transparent"))
    options = CaptureOptions(format=image_format, transparent=True)
    assert_transparent(await page.screenshot(options), tolerance)


@pytest.mark.parametrize("area", [{"full_page": True}, {"clip": Clip(0, 0, 200, 100)}])
async def test_transparent_area_has_alpha(page: cdp.Page, site: Site, area: dict[str, Any]) -> None:
    await page.navigate(site.url("/transparent"))
    assert_transparent(await page.screenshot(png(transparent=True, **area)), 0)


async def test_picture_that_is_not_transparent_is_white_below(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/transparent"))
    shown = pixels(await page.screenshot())
    assert colours(shown[25:26, 75:76]) == {WHITE}


async def test_picture_after_a_transparent_one_is_white_below(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/transparent"))
    await page.screenshot(png(transparent=True))
    image = image_of(await page.screenshot()).convert("RGBA")
    assert image.getpixel((75, 25)) == (*WHITE, 255)


# Encodings


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
async def test_picture_is_in_the_format_asked_for(page: cdp.Page, site: Site, image_format: Any) -> None:
    await page.navigate(site.url("/ok"))
    picture = await page.screenshot(CaptureOptions(format=image_format))
    image = image_of(picture)
    assert (image.format, picture.content_type) == (image_format.upper(), f"image/{image_format}")


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
async def test_picture_tells_its_size(page: cdp.Page, site: Site, image_format: Any) -> None:
    await open_at(page, site.url("/ok"), Viewport(width=123, height=77, device_scale_factor=2))
    picture = await page.screenshot(CaptureOptions(format=image_format))
    assert (picture.width, picture.height) == image_of(picture).size == (246, 154)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
async def test_quality_costs_bytes(page: cdp.Page, image_format: Any) -> None:
    await page.set_content(GRADIENT, None)
    sizes = [
        len((await page.screenshot(CaptureOptions(format=image_format, quality=quality))).data)
        for quality in (1, 50, 100)
    ]
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
async def test_quality_is_80_by_default(page: cdp.Page, image_format: Any) -> None:
    await page.set_content(GRADIENT, None)
    one = await page.screenshot(CaptureOptions(format=image_format))
    other = await page.screenshot(CaptureOptions(format=image_format, quality=80))
    assert one.data == other.data


async def test_optimizing_for_speed_costs_bytes(page: cdp.Page) -> None:
    await page.set_content(GRADIENT, None)
    fast, small = [await page.screenshot(png(optimize_for_speed=speed)) for speed in (True, False)]
    assert len(fast.data) > len(small.data)


async def test_optimizing_for_speed_changes_no_pixel(page: cdp.Page) -> None:
    await page.set_content(GRADIENT, None)
    fast, small = [await page.screenshot(png(optimize_for_speed=speed)) for speed in (True, False)]
    assert np.array_equal(pixels(fast), pixels(small))


async def test_screenshot_is_a_png_by_default(page: cdp.Page) -> None:
    assert (await page.screenshot()).content_type == "image/png"


# Limits


class Session:
    """A session whose browser answers with what the test says, or must not be asked at all."""

    def __init__(self, data: str | None = None) -> None:
        self.data = data

    async def send_all(self, *commands: object) -> list[dict[str, Any]]:
        assert self.data is not None, "the browser was asked"
        return [{"data": self.data} for _ in commands]


async def draw(session: Session, options: CaptureOptions, width: float, height: float) -> Picture:
    area = Clip(0, 0, width, height)
    return await take_picture(session, options, area=area, beyond_viewport=True, viewport=Viewport(), max_pixels=10**9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image_format", "width", "height"),
    [("webp", 16_384, 1), ("webp", 1, 16_384), ("jpeg", 65_501, 1), ("jpeg", 1, 65_501), ("png", 40_000, 40_000)],
)
async def test_picture_that_cannot_be_encoded_is_refused_before_it_is_drawn(
    image_format: Any, width: int, height: int
) -> None:
    with pytest.raises(TooLarge):
        await draw(Session(), CaptureOptions(format=image_format), width, height)


async def test_picture_that_the_browser_could_not_encode_is_too_large() -> None:
    with pytest.raises(TooLarge, match="could not encode a webp picture"):
        await draw(Session(""), CaptureOptions(format="webp"), 1, 1)


@pytest.mark.parametrize(("image_format", "height"), [("webp", 16_383), ("jpeg", 65_500)])
async def test_picture_at_the_end_of_its_format_is_made(page: cdp.Page, image_format: Any, height: int) -> None:
    await page.set_content("<p>small</p>", None)
    picture = await page.screenshot(CaptureOptions(format=image_format, clip=Clip(0, 0, 8, height)))
    assert image_of(picture).size == (8, height)


async def test_full_page_beyond_its_format_is_too_large(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tall"))
    with pytest.raises(TooLarge, match="a webp picture of 1280 x 40000 px is over the format's 16383 px"):
        await page.screenshot(CaptureOptions(format="webp", full_page=True))


async def test_picture_over_the_limit_of_pixels_is_too_large(page: cdp.Page, site: Site) -> None:
    await open_at(page, site.url("/ok"), Viewport(width=100, height=50, device_scale_factor=2))
    with pytest.raises(TooLarge, match="a picture of 200 x 100 px is over the limit of 19999 pixels"):
        await page.screenshot(max_pixels=19_999)


async def test_picture_at_the_limit_of_pixels_is_made(page: cdp.Page, site: Site) -> None:
    await open_at(page, site.url("/ok"), Viewport(width=100, height=50, device_scale_factor=2))
    picture = await page.screenshot(max_pixels=20_000)
    assert (picture.width, picture.height) == (200, 100)


@pytest.mark.parametrize("area", [{"full_page": True}, {"clip": Clip(0, 0, 200, 101)}, {"selector": "body"}])
async def test_limit_of_pixels_holds_for_every_area(page: cdp.Page, area: dict[str, Any]) -> None:
    await page.set_content('<!DOCTYPE html><body style="margin:0;width:200px;height:900px">', None)
    with pytest.raises(TooLarge):
        await page.screenshot(png(**area), max_pixels=20_000)


@pytest.mark.parametrize(
    ("width", "height", "scale", "image_format", "max_pixels"),
    [
        (16_383, 1, 1, "webp", 10**9),
        (8_191.5, 1, 2, "webp", 10**9),
        (65_500, 1, 1, "jpeg", 10**9),
        (100_000, 1, 1, "png", 10**9),
        (10, 10, 1, "png", 100),
        (10, 10, 0.5, "png", 25),
    ],
)
def test_check_extent_takes(width: float, height: float, scale: float, image_format: str, max_pixels: int) -> None:
    check_extent(width, height, scale, image_format, max_pixels)


@pytest.mark.parametrize(
    ("width", "height", "scale", "image_format", "max_pixels"),
    [
        (16_383.1, 1, 1, "webp", 10**9),
        (1, 8_192, 2, "webp", 10**9),
        (1, 65_500.5, 1, "jpeg", 10**9),
        (10, 10.1, 1, "png", 100),
        (10, 10, 2, "png", 399),
    ],
)
def test_check_extent_refuses(width: float, height: float, scale: float, image_format: str, max_pixels: int) -> None:
    with pytest.raises(TooLarge):
        check_extent(width, height, scale, image_format, max_pixels)


# Boxes and bytes


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Clip(1, 2, 3, 4), Clip(1, 2, 3, 4)),
        (Clip(0.5, 0.5, 1, 1), Clip(1, 1, 1, 1)),
        (Clip(0.4, 0.4, 1, 1), Clip(0, 0, 1, 1)),
        (Clip(100.3, 50.7, 200.4, 120.4), Clip(100, 51, 201, 120)),
        (Clip(2.5, 2.5, 3, 3), Clip(3, 3, 3, 3)),
        (Clip(10, 10, 0.1, 0.1), Clip(10, 10, 1, 1)),
    ],
)
def test_round_box_takes_corners_to_the_nearest_pixel(box: Clip, expected: Clip) -> None:
    assert round_box(box) == expected


def test_element_area_is_cut_at_the_page() -> None:
    assert element_area({"x": -5, "y": -6, "width": 20, "height": 30}, "#box") == Clip(0, 0, 15, 24)


@pytest.mark.parametrize(("x", "y"), [(-10, 0), (0, -10), (-11, -11)])
def test_element_area_outside_of_the_page_is_none(x: float, y: float) -> None:
    with pytest.raises(SelectorNotFound):
        element_area({"x": x, "y": y, "width": 10, "height": 10}, "#box")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 6, 7, 11, 12, 13, 1000])
async def test_decode_base64_gives_every_byte(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(capture, "DECODE_SLICE", 8)
    data = bytes(index % 251 for index in range(size))
    assert await decode_base64(base64.b64encode(data).decode()) == data


def test_decode_slice_holds_whole_groups() -> None:
    assert capture.DECODE_SLICE % 4 == 0


@pytest.mark.slow
async def test_picture_of_as_many_pixels_as_are_allowed_is_whole(page: cdp.Page) -> None:
    await page.set_content("<body style='margin:0;width:8000px;height:8000px;background:rgb(0,96,160)'>", None)
    picture = await page.screenshot(CaptureOptions(format="png", clip=Clip(0, 0, 8000, 8000)))
    with Image.open(io.BytesIO(picture.data)) as image:
        assert image.size == (8000, 8000)
        assert {image.getpixel(at)[:3] for at in ((0, 0), (7999, 0), (0, 7999), (7999, 7999))} == {(0, 96, 160)}


@pytest.mark.parametrize("after_ms", [10, 15, 20, 30])
async def test_picture_of_a_page_that_moves_on_is_of_where_it_went(page: cdp.Page, site: Site, after_ms: int) -> None:
    # Chromium 156 never answers a capture during which the document is replaced: 8 of 15 at 10 ms.
    script = f"onload = () => setTimeout(() => location = '/ok', {after_ms})"
    url = site.add("/moves", f"<script>{script}</script>")
    with trio.fail_after(10):
        for _ in range(5):
            await page.navigate(url)
            await page.settle()
            assert (await page.screenshot()).width == 1280


# Full pages: what hangs on the viewport

FIXED = """<!DOCTYPE html><style>body{margin:0} section{height:100vh;background:#00f} section+section{background:#0f0}
header{position:fixed;top:0;left:0;right:0;height:20px;background:#f00}
aside{position:sticky;top:40px;height:20px;background:#ff0}</style>
<header></header><section><aside></aside></section><section></section><section></section>"""
SMALL = Viewport(300, 200)


async def full(page: cdp.Page, html: str, viewport: Viewport = SMALL, **options: Any) -> Pixels:
    await page.prepare(PageOptions(html=html, viewport=viewport))
    await page.set_content(html, None)
    return pixels(await page.screenshot(png(full_page=True, **options)))


async def test_full_page_does_not_stretch_viewport_units(page: cdp.Page) -> None:
    assert (await full(page, FIXED)).shape == (600, 300, 3)


async def test_full_page_has_what_is_fixed_and_sticky_once(page: cdp.Page) -> None:
    column = (await full(page, FIXED))[:, 150]
    assert [int((column == colour).all(axis=1).sum()) for colour in ((255, 0, 0), (255, 255, 0))] == [20, 20]
    assert tuple(column[0]) == (255, 0, 0)


async def test_full_page_of_a_page_that_scrolled_has_what_is_fixed_at_the_top(page: cdp.Page) -> None:
    html = FIXED + "<script>scrollTo(0, 250)</script>"
    assert tuple((await full(page, html))[0, 150]) == (255, 0, 0)


async def test_full_page_is_cut_at_max_height(page: cdp.Page) -> None:
    assert (await full(page, FIXED, max_height=250)).shape == (250, 300, 3)


async def test_max_height_beyond_the_page_changes_nothing(page: cdp.Page) -> None:
    assert (await full(page, FIXED, max_height=5000)).shape == (600, 300, 3)


async def test_full_page_of_a_phone_keeps_its_touch(page: cdp.Page) -> None:
    html = "<!DOCTYPE html><style>body{margin:0;height:900px} @media(pointer:coarse){body{background:#0f0}}"
    await full(page, html, Viewport(300, 200, mobile=True, touch=True))
    assert colours(pixels(await page.screenshot(png(full_page=True)))) == {(0, 255, 0)}
    assert await page.call("() => matchMedia('(pointer: coarse)').matches")


async def test_full_page_shows_what_is_laid_out_near_the_viewport_only(page: cdp.Page) -> None:
    style = "body,p{margin:0} div{content-visibility:auto;contain-intrinsic-size:100px} p{height:100px;background:red}"
    shown = await full(page, f"<!DOCTYPE html><style>{style}</style>" + "<div><p></p></div>" * 60)
    assert shown.shape == (6000, 300, 3)
    assert colours(shown) == {(255, 0, 0)}


# Padding

BOX = """<!DOCTYPE html><style>body{margin:0;background:#0f0} div{position:absolute;left:%dpx;top:40px;width:50px;
height:30px;background:#00f}</style><div id="box"></div>"""


async def test_padding_shows_what_is_around(page: cdp.Page) -> None:
    await page.set_content(BOX % 100, None)
    shown = pixels(await page.screenshot(png(selector="#box", padding=10)))
    assert shown.shape == (50, 70, 3)
    assert colours(shown[10:40, 10:60]) == {(0, 0, 255)}
    assert colours(shown[:10]) == {(0, 255, 0)}


async def test_padding_ends_at_the_page(page: cdp.Page) -> None:
    await page.set_content(BOX % 5, None)
    assert pixels(await page.screenshot(png(selector="#box", padding=10))).shape == (50, 65, 3)


async def test_element_where_scrolling_is_smooth_is_exact(page: cdp.Page) -> None:
    style = ":root{scroll-behavior:smooth} body{height:9000px} #box{margin-top:6000px;background:#00f}"
    await page.set_content(f'<!DOCTYPE html><style>{style}</style><div id="box"><br></div>', None)
    assert colours(pixels(await page.screenshot(png(selector="#box")))) == {(0, 0, 255)}


# Resizing

HALVES = '<!DOCTYPE html><body style="margin:0;height:100vh;background:linear-gradient(90deg,#f00 50%,#00f 50%)">'


async def resized(page: cdp.Page, **resize: Any) -> Pixels:
    await page.prepare(PageOptions(html=HALVES, viewport=Viewport(400, 200)))
    await page.set_content(HALVES, None)
    return pixels(await page.screenshot(png(resize=Resize(**resize))))


@pytest.mark.parametrize(
    ("resize", "size"),
    [
        ({"width": 100}, (50, 100)),
        ({"height": 100}, (100, 200)),
        ({"width": 100, "height": 100}, (50, 100)),
        ({"width": 300, "height": 90, "fit": "fill"}, (90, 300)),
        ({"width": 100, "height": 100, "fit": "cover"}, (100, 100)),
        ({"width": 800}, (400, 800)),
    ],
)
async def test_resize_gives_the_size(page: cdp.Page, resize: dict[str, Any], size: tuple[int, int]) -> None:
    assert (await resized(page, **resize)).shape[:2] == size


async def test_resize_to_cover_keeps_the_middle(page: cdp.Page) -> None:
    shown = await resized(page, width=100, height=100, fit="cover")
    assert (tuple(shown[50, 5]), tuple(shown[50, 95])) == ((255, 0, 0), (0, 0, 255))


async def test_resize_to_cover_keeps_the_top(page: cdp.Page) -> None:
    html = '<!DOCTYPE html><body style="margin:0;height:200px;background:linear-gradient(#f00 50%,#00f 50%)">'
    await page.prepare(PageOptions(html=html, viewport=Viewport(100, 200)))
    await page.set_content(html, None)
    shown = pixels(await page.screenshot(png(resize=Resize(width=100, height=90, fit="cover"))))
    assert colours(shown) == {(255, 0, 0)}


async def test_resize_to_fill_stretches(page: cdp.Page) -> None:
    shown = await resized(page, width=100, height=400, fit="fill")
    assert (tuple(shown[200, 20]), tuple(shown[200, 80])) == ((255, 0, 0), (0, 0, 255))


@pytest.mark.parametrize("image_format", ["jpeg", "webp", "png"])
async def test_resize_keeps_the_format(page: cdp.Page, image_format: Any) -> None:
    await page.set_content(HALVES, None)
    picture = await page.screenshot(CaptureOptions(format=image_format, resize=Resize(width=64)))
    assert (image_of(picture).format, picture.content_type) == (image_format.upper(), f"image/{image_format}")
    assert image_of(picture).size == (picture.width, picture.height) == (64, 40)


async def test_resize_keeps_transparency(page: cdp.Page) -> None:
    await page.set_content("<p>", None)
    picture = await page.screenshot(png(transparent=True, resize=Resize(width=64)))
    assert image_of(picture).convert("RGBA").getpixel((60, 30))[3] == 0  # type: ignore[index]


async def test_resize_beyond_the_limit_is_too_large(page: cdp.Page) -> None:
    await page.set_content("<p>", None)
    with pytest.raises(TooLarge):
        await page.screenshot(png(resize=Resize(width=7680)), max_pixels=2_000_000)


async def test_resize_of_a_picture_too_tall_for_its_format_is_made(page: cdp.Page) -> None:
    shown = await full(page, '<!DOCTYPE html><body style="margin:0;height:70000px">', Viewport(20, 200))
    assert shown.shape[0] == 70_000
    picture = await page.screenshot(CaptureOptions(format="jpeg", full_page=True, resize=Resize(height=700)))
    assert picture.height == 700


async def test_resize_is_not_held_by_a_page_that_replaced_built_ins(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tamper"))
    assert (await page.screenshot(png(resize=Resize(width=64)))).width == 64


# Animations

MOVING = """<!DOCTYPE html><style>body{margin:0} div{width:100px;height:20px;background:#f00}
@keyframes go{to{background:#00f}} @keyframes spin{from{background:#0f0} to{background:#ff0}}
#once{animation:go 60s linear forwards} #slow{transition:background 60s linear}
#ever{animation:spin 60s linear infinite}
</style><div id="once"></div><div id="slow"></div><div id="ever"></div><div id="script"></div>"""
START = """() => {
  const find = id => document.getElementById(id);
  getComputedStyle(find('slow')).backgroundColor;
  find('slow').style.background = '#00f';
  find('script').animate([{background: '#00f'}], {duration: 60000, fill: 'forwards'});
}"""


async def moving(page: cdp.Page, **options: Any) -> list[tuple[int, ...]]:
    await page.set_content(MOVING, None)
    await page.call(START)
    shown = pixels(await page.screenshot(png(**options)))
    return [tuple(map(int, shown[y, 50])) for y in (10, 30, 50, 70)]


async def test_animations_are_finished(page: cdp.Page) -> None:
    assert await moving(page) == [(0, 0, 255), (0, 0, 255), (255, 0, 0), (0, 0, 255)]


async def test_animations_go_on_when_they_may(page: cdp.Page) -> None:
    once, slow, _, script = await moving(page, disable_animations=False)
    assert all(colour[0] > 200 and colour[2] < 50 for colour in (once, slow, script))


async def test_endless_animations_go_on_after_the_picture(page: cdp.Page) -> None:
    await moving(page)
    assert await page.call("() => document.getElementById('ever').getAnimations()[0].playState") == "running"


async def test_animation_in_a_shadow_root_is_finished(page: cdp.Page) -> None:
    await page.set_content('<!DOCTYPE html><style>body{margin:0}</style><div id="host"></div>', None)
    inner = MOVING.partition(">")[2].replace("`", "")
    await page.call("html => { document.getElementById('host').attachShadow({mode: 'open'}).innerHTML = html }", inner)
    shown = pixels(await page.screenshot(png()))
    assert tuple(shown[10, 50]) == (0, 0, 255)


async def test_caret_is_hidden(page: cdp.Page) -> None:
    html = "<!DOCTYPE html><style>input{caret-color:#f00;font-size:60px;outline:0;border:0}</style><input autofocus>"
    await page.set_content(html, None)
    await page.call("() => document.querySelector('input').focus()")
    reds = [
        int((pixels(await page.screenshot(png(disable_animations=off)))[..., 1] < 50).sum()) for off in (True, False)
    ]
    assert reds[0] == 0
    assert reds[1] > 0


# Elements on pages with another origin


async def test_element_of_a_zoomed_phone_page_is_exact(page: cdp.Page, site: Site) -> None:
    head = '<!DOCTYPE html><meta name="viewport" content="width=device-width,initial-scale=2"><body style="margin:0">'
    box = '<div id="a" style="position:absolute;left:300px;top:900px;width:50px;height:50px;background:#0f0"></div>'
    url = site.add("/zoomed", f'{head}{box}<div style="height:2000px"></div>')
    await open_at(page, url, Viewport(400, 800, mobile=True))
    assert colours(pixels(await page.screenshot(png(selector="#a")))) == {(0, 255, 0)}


async def test_element_of_a_page_from_right_to_left_is_whole(page: cdp.Page, site: Site) -> None:
    style = "width:2000px;height:100px;background:linear-gradient(90deg,#f00 50%,#00f 50%)"
    url = site.add("/rtl", f'<!DOCTYPE html><html dir="rtl"><body style="margin:0"><div style="{style}"></div>')
    await open_at(page, url, SMALL)
    shown = pixels(await page.screenshot(png(selector="div")))
    assert shown.shape == (100, 2000, 3)
    assert (tuple(shown[50, 5]), tuple(shown[50, 1995])) == ((255, 0, 0), (0, 0, 255))
