"""One attempt on a real page: every field of a request does something, every trouble of a page has its code."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import pytest
import trio
from PIL import Image
from trio.testing import MockClock

import cdp
import cleariflow
from cdp.visit import Progress
from cleariflow import (
    LATE_CAPTURE_S,
    Config,
    JobFailed,
    Output,
    ServiceName,
    attempt,
    parse_request,
)
from tests.conftest import LOOPBACK
from tests.site import (
    AUTH_PASSWORD,
    AUTH_USER,
    BOX_COLOUR,
    BOX_PAINTED,
    ENCODED_TEXTS,
    FONT_BARS,
    OK_BOX_PX,
    OK_TEXT,
    OK_TITLE,
    QUADRANT_COLOURS,
    RED,
    SLOW_IMAGE_COLOUR,
    STORM_ALERTS,
    TAMPER_TEXT,
    TRANSPARENT_DOT_COLOUR,
    WHITE,
    Site,
    open_site,
    page,
)

CONFIG = Config()
MAX_PIXELS = CONFIG.max_pixels
# Fetches without a browser may reach the test site too.
POLICY = cdp.AddressPolicy.parse([LOOPBACK])


async def made(browser: cdp.Browser, service: ServiceName, **fields: Any) -> Output:
    """What one attempt makes of a request."""
    parsed = parse_request(service, fields, CONFIG)
    with trio.fail_after(60):
        return await attempt(browser.open_page, parsed, policy=POLICY, max_pixels=MAX_PIXELS, progress=Progress())


async def html(browser: cdp.Browser, **fields: Any) -> str:
    return (await made(browser, "scrape", **fields)).main.data.decode()


async def picture(browser: cdp.Browser, **fields: Any) -> Image.Image:
    return Image.open(BytesIO((await made(browser, "screenshot", **{"format": "png"} | fields)).main.data))


async def pixel(browser: cdp.Browser, x: int, y: int, **fields: Any) -> Any:
    return (await picture(browser, **fields)).convert("RGB").getpixel((x, y))


async def failure(browser: cdp.Browser, service: ServiceName = "scrape", **fields: Any) -> JobFailed:
    """Why an attempt failed, within its time and 5 s."""
    started = trio.current_time()
    late_s = LATE_CAPTURE_S if fields.get("on_timeout") == "capture" else 0
    with pytest.raises(JobFailed) as caught:
        await made(browser, service, **fields)
    assert trio.current_time() - started < fields.get("timeout_ms", 30_000) / 1000 + late_s + 5
    return caught.value


async def echoed(browser: cdp.Browser, site: Site, **fields: Any) -> dict[str, str]:
    """The headers of the page's request as the site saw them."""
    await made(browser, "scrape", url=site.url("/echo"), **fields)
    return dict((await site.seen("/echo")).headers)


# Tells what the page sees of itself.
TELL = '<p id="told"></p><script>document.getElementById("told").textContent = JSON.stringify({expression})</script>'


async def told(browser: cdp.Browser, site: Site, expression: str, **fields: Any) -> Any:
    """The value of a JavaScript expression in the page."""
    head = '<meta name="viewport" content="width=device-width">'
    url = site.add("/tell", page(TELL.replace("{expression}", expression), head))
    found = re.search(r'<p id="told">(.*?)</p>', await html(browser, url=url, **fields))
    assert found is not None
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))


# ---- What to show ----------------------------------------------------------------------------------------------------


async def test_url_is_shown(browser: cdp.Browser, site: Site) -> None:
    assert OK_TEXT in await html(browser, url=site.url("/ok"))


async def test_html_is_shown(browser: cdp.Browser) -> None:
    assert "<p>my own</p>" in await html(browser, html="<!doctype html><p>my own</p>")


async def test_html_keeps_every_character(browser: cdp.Browser) -> None:
    assert "Ünï 日本 😀 &amp; \u2028" in await html(browser, html="<!doctype html><p>Ünï 日本 😀 &amp; \u2028</p>")


async def test_html_runs_its_scripts(browser: cdp.Browser) -> None:
    assert "<b>2</b>" in await html(browser, html="<script>document.write('<b>' + (1 + 1) + '</b>')</script>")


async def test_html_without_a_base_is_about_blank(browser: cdp.Browser) -> None:
    meta = (await made(browser, "scrape", html="<p>")).meta
    assert (meta["url"], meta["status_code"]) == ("about:blank", 200)


async def test_html_with_a_base_has_its_address(browser: cdp.Browser, site: Site) -> None:
    base = site.url("/base/")
    meta = (await made(browser, "scrape", html="<p>", base_url=base)).meta
    assert (meta["url"], meta["status_code"]) == (base, 200)


async def test_base_url_resolves_links(browser: cdp.Browser, site: Site) -> None:
    given = {"html": '<img src="../image.png" style="display:block">', "base_url": site.url("/a/b")}
    shown = await pixel(browser, 20, 20, **given)
    assert [request.path for request in site.requests] == ["/image.png"]
    assert shown == SLOW_IMAGE_COLOUR


@pytest.mark.parametrize(
    "path", ["/", "/a", "/a?b=c", "/a#part", "/a*b?", "/%20x", "/ü", "/a/../b", '/"<>', "/a?ü=1", "/a\\b", "/a|b^c`"]
)
async def test_html_is_shown_whatever_the_base_url_looks_like(browser: cdp.Browser, site: Site, path: str) -> None:
    assert "my own" in await html(browser, html="<p>my own</p>", base_url=site.url(path))
    assert site.requests == []


async def test_html_with_a_base_is_not_shown_to_what_comes_later(browser: cdp.Browser, site: Site) -> None:
    # The page loads itself again: that is the server's.
    url = site.add("/again", page('<p id="theirs">theirs</p>'))
    given = "<p>mine</p><script>if (!location.search) location.replace('?2')</script>"
    assert "theirs" in await html(browser, html=given, base_url=url)


async def test_base_url_with_headers_sends_them_to_its_origin(browser: cdp.Browser, site: Site) -> None:
    await made(browser, "screenshot", html='<img src="/image.png">', base_url=site.url("/"), headers={"X-A": "1"})
    assert (await site.seen("/image.png")).header("x-a") == "1"


# ---- The picture -----------------------------------------------------------------------------------------------------


async def test_viewport_is_exact(browser: cdp.Browser, site: Site) -> None:
    shown = await picture(browser, url=site.url("/colours"), viewport={"width": 333, "height": 222})
    assert shown.size == (333, 222)
    corners = ((0, 0), (332, 0), (0, 221), (332, 221))
    assert tuple(shown.convert("RGB").getpixel(corner) for corner in corners) == QUADRANT_COLOURS


async def test_default_viewport_is_that_of_the_contract(browser: cdp.Browser, site: Site) -> None:
    assert (await picture(browser, url=site.url("/ok"))).size == (1280, 800)


@pytest.mark.parametrize(("scale", "size"), [(2, (200, 100)), (1.5, (150, 75)), (0.5, (50, 25))])
async def test_scale_factor_multiplies_the_pixels(
    browser: cdp.Browser, site: Site, scale: float, size: tuple[int, int]
) -> None:
    viewport = {"width": 100, "height": 50, "device_scale_factor": scale}
    assert (await picture(browser, url=site.url("/ok"), viewport=viewport)).size == size


async def test_scale_factor_is_told_to_the_page(browser: cdp.Browser, site: Site) -> None:
    assert await told(browser, site, "devicePixelRatio", viewport={"device_scale_factor": 2}) == 2


async def test_size_is_told_to_the_page(browser: cdp.Browser, site: Site) -> None:
    viewport = {"width": 801, "height": 602}
    assert await told(browser, site, "[innerWidth, innerHeight]", viewport=viewport) == [801, 602]


@pytest.mark.parametrize(("mobile", "width"), [(True, 980), (False, 400)])
async def test_mobile_lays_out_as_a_phone(browser: cdp.Browser, site: Site, mobile: bool, width: int) -> None:
    # Without a viewport meta tag a phone lays out 980 px.
    url = site.add("/wide", page(TELL.replace("{expression}", "document.documentElement.clientWidth")))
    assert f'"told">{width}<' in await html(browser, url=url, viewport={"width": 400, "mobile": mobile})


@pytest.mark.parametrize("touch", [True, False])
async def test_touch_offers_touch_events(browser: cdp.Browser, site: Site, touch: bool) -> None:
    viewport = {"touch": touch}
    assert await told(browser, site, "navigator.maxTouchPoints > 0", viewport=viewport) is touch


@pytest.mark.parametrize(("image_format", "start"), [("png", b"\x89PNG"), ("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")])
async def test_format_is_that_of_the_file(browser: cdp.Browser, site: Site, image_format: str, start: bytes) -> None:
    output = await made(browser, "screenshot", url=site.url("/ok"), format=image_format)
    assert output.main.data.startswith(start)
    assert (output.main.content_type, output.main.extension) == (f"image/{image_format}", image_format)


async def test_format_is_jpeg_by_default(browser: cdp.Browser, site: Site) -> None:
    assert (await made(browser, "screenshot", url=site.url("/ok"))).main.content_type == "image/jpeg"


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
async def test_lower_quality_is_a_smaller_file(browser: cdp.Browser, site: Site, image_format: str) -> None:
    url = site.add("/gradient", page("<h1>Text</h1>" * 20, "<style>body{background:linear-gradient(red,blue)}</style>"))
    sizes = [
        len((await made(browser, "screenshot", url=url, format=image_format, quality=quality)).main.data)
        for quality in (5, 60, 100)
    ]
    assert sizes == sorted(set(sizes))


async def test_optimising_for_speed_makes_a_larger_png(browser: cdp.Browser, site: Site) -> None:
    sizes = [
        len((await made(browser, "screenshot", url=site.url("/echo"), format="png", optimize_for_speed=fast)).main.data)
        for fast in (False, True)
    ]
    assert sizes[0] < sizes[1]


async def test_full_page_is_whole(browser: cdp.Browser, site: Site) -> None:
    bands = "".join(f'<div style="height:500px;background:rgb({i * 20},0,0)"></div>' for i in range(10))
    url = site.add("/bands", page(bands, "<style>body{margin:0}</style>"))
    shown = (await picture(browser, url=url, full_page=True)).convert("RGB")
    assert shown.size == (1280, 5000)
    assert [shown.getpixel((640, 500 * i + 250)) for i in range(10)] == [(i * 20, 0, 0) for i in range(10)]


async def test_without_full_page_only_the_viewport_is_shown(browser: cdp.Browser, site: Site) -> None:
    assert (await picture(browser, url=site.url("/tall"))).size == (1280, 800)


async def test_selector_is_the_box_of_the_element(browser: cdp.Browser, site: Site) -> None:
    shown = (await picture(browser, url=site.url("/box"), selector="#box")).convert("RGB")
    left, top, right, bottom = BOX_PAINTED
    assert abs(shown.width - (right - left)) <= 1
    assert abs(shown.height - (bottom - top)) <= 1
    assert shown.getpixel((shown.width // 2, shown.height // 2)) == BOX_COLOUR


async def test_selector_is_awaited(browser: cdp.Browser, site: Site) -> None:
    assert (await picture(browser, url=site.url("/late-element"), selector="#late")).height < 100


@pytest.mark.parametrize("selector", ["#box", "xpath=//*[@id='box']", "text=Hello from"])
async def test_selector_may_be_of_each_kind(browser: cdp.Browser, site: Site, selector: str) -> None:
    assert (await picture(browser, url=site.url("/ok"), selector=selector)).height <= 100


async def test_clip_is_a_rectangle_of_the_page(browser: cdp.Browser, site: Site) -> None:
    clip = {"x": 50, "y": 90, "width": 100, "height": 20}
    shown = (await picture(browser, url=site.url("/ok"), clip=clip)).convert("RGB")
    assert (shown.size, shown.getpixel((49, 9)), shown.getpixel((50, 9)), shown.getpixel((49, 10))) == (
        (100, 20),
        RED,
        WHITE,
        WHITE,
    )


@pytest.mark.parametrize("image_format", ["png", "webp"])
async def test_transparent_leaves_the_ground_out(browser: cdp.Browser, site: Site, image_format: str) -> None:
    shown = await picture(browser, url=site.url("/transparent"), format=image_format, transparent=True, full_page=False)
    rgba = shown.convert("RGBA")
    assert rgba.getpixel((700, 500))[3] == 0  # type: ignore[index]
    assert rgba.getpixel((25, 25))[3] == 255  # type: ignore[index]


async def test_ground_is_white_without_transparent(browser: cdp.Browser, site: Site) -> None:
    shown = (await picture(browser, url=site.url("/transparent"))).convert("RGBA")
    assert shown.getpixel((700, 500)) == (255, 255, 255, 255)
    assert shown.getpixel((25, 25)) == (*TRANSPARENT_DOT_COLOUR, 255)


async def test_resized_picture_has_its_size(browser: cdp.Browser, site: Site) -> None:
    output = await made(browser, "screenshot", url=site.url("/ok"), resize={"width": 64}, format="png")
    assert Image.open(BytesIO(output.main.data)).size == (64, 40)
    assert (output.meta["width"], output.meta["height"]) == (64, 40)


async def test_size_of_the_picture_is_told(browser: cdp.Browser, site: Site) -> None:
    viewport = {"width": 300, "height": 200, "device_scale_factor": 2}
    meta = (await made(browser, "screenshot", url=site.url("/ok"), viewport=viewport)).meta
    assert (meta["width"], meta["height"]) == (600, 400)


# ---- The browser's guise ---------------------------------------------------------------------------------------------


async def test_user_agent_is_sent(browser: cdp.Browser, site: Site) -> None:
    assert (await echoed(browser, site, user_agent="Agent/1.0"))["user-agent"] == "Agent/1.0"


async def test_user_agent_is_told_to_the_page(browser: cdp.Browser, site: Site) -> None:
    assert await told(browser, site, "navigator.userAgent", user_agent="Agent/1.0") == "Agent/1.0"


async def test_default_user_agent_does_not_say_headless(browser: cdp.Browser, site: Site) -> None:
    agent = (await echoed(browser, site))["user-agent"]
    assert "Chrome/" in agent
    assert "Headless" not in agent


async def test_cookies_are_sent(browser: cdp.Browser, site: Site) -> None:
    shown = await html(browser, url=site.url("/echo-cookies"), cookies="a=b; c=d=e")
    assert '{"a": "b", "c": "d=e"}' in shown


async def test_cookie_of_another_host_is_not_sent(browser: cdp.Browser, site: Site) -> None:
    cookies = [{"name": "a", "value": "b", "domain": "example.com"}, {"name": "c", "value": "d"}]
    assert '{"c": "d"}' in await html(browser, url=site.url("/echo-cookies"), cookies=cookies)


async def test_language_zone_and_scheme_are_told_to_the_page(browser: cdp.Browser, site: Site) -> None:
    zone = "Intl.DateTimeFormat().resolvedOptions().timeZone"
    expression = f"[navigator.language, {zone}, matchMedia('(prefers-color-scheme: dark)').matches]"
    given = {"locale": "de-CH", "timezone": "Europe/Zurich", "color_scheme": "dark"}
    assert await told(browser, site, expression, **given) == ["de-CH", "Europe/Zurich", True]


async def test_object_of_render_reaches_the_page(browser: cdp.Browser, site: Site) -> None:
    render = {"viewport": {"width": 333}, "user_agent": "Agent/1.0"}
    assert await told(browser, site, "[innerWidth, navigator.userAgent]", render=render) == [333, "Agent/1.0"]


async def test_device_is_told_to_the_page(browser: cdp.Browser, site: Site) -> None:
    expression = "[innerWidth, devicePixelRatio, /iPhone/.test(navigator.userAgent)]"
    assert await told(browser, site, expression, device="iPhone 15") == [393, 3, True]


async def test_http_only_cookie_is_hidden_from_scripts(browser: cdp.Browser, site: Site) -> None:
    cookies = [{"name": "a", "value": "b", "http_only": True}, {"name": "c", "value": "d"}]
    assert await told(browser, site, "document.cookie", cookies=cookies) == "c=d"


async def test_headers_are_sent(browser: cdp.Browser, site: Site) -> None:
    seen = await echoed(browser, site, headers={"X-A": "1", "Accept-Language": "fr", "x-empty": ""})
    assert (seen["x-a"], seen["accept-language"], seen["x-empty"]) == ("1", "fr", "")


async def test_headers_go_to_their_own_origin_only(browser: cdp.Browser, site: Site) -> None:
    images = f'<img src="/image.png?own"><img src="{site.url("/image.png?other", host="localhost")}">'
    await made(browser, "screenshot", url=site.add("/images-of-two", page(images)), headers={"X-A": "1"})
    await site.seen("/image.png", count=2)
    seen = {request.query: request.header("x-a") for request in site.requests if request.path == "/image.png"}
    assert seen == {"own": "1", "other": None}


async def test_headers_do_not_survive_a_redirect_to_another_origin(browser: cdp.Browser, site: Site) -> None:
    target = site.url("/echo", host="localhost")
    await made(browser, "scrape", url=site.url(f"/redirect-to?url={target}"), headers={"X-A": "1"})
    assert (await site.seen("/redirect-to")).header("x-a") == "1"
    assert (await site.seen("/echo")).header("x-a") is None


SCRIPTED = "<p>plain</p><script>document.write('<b>' + 'scripted</b>')</script>"


@pytest.mark.parametrize(("javascript", "scripted"), [(True, True), (False, False)])
async def test_javascript_false_runs_no_scripts(
    browser: cdp.Browser, site: Site, javascript: bool, scripted: bool
) -> None:
    url = site.add("/scripted", page(SCRIPTED))
    assert ("<b>scripted" in await html(browser, url=url, javascript=javascript)) is scripted


@pytest.mark.parametrize(("render", "colour"), [(True, (0, 0, 255)), (False, WHITE)])
async def test_render_false_is_a_picture_without_scripts(
    browser: cdp.Browser, site: Site, render: bool, colour: tuple[int, int, int]
) -> None:
    url = site.add("/blue", page("<script>document.documentElement.style.background = '#00f'</script>"))
    assert await pixel(browser, 5, 5, url=url, render=render) == colour


async def test_noscript_is_shown_without_javascript(browser: cdp.Browser, site: Site) -> None:
    url = site.add("/noscript", page('<noscript><div style="height:90px;background:red"></div></noscript>'))
    assert await pixel(browser, 50, 50, url=url, javascript=False) == RED


# ---- Waiting ---------------------------------------------------------------------------------------------------------


# Asked for by the load event, so that the event itself does not wait for it.
FONT_ON_LOAD = """<style>@font-face { font-family: late; src: url("/font.ttf?ms=300") } body { margin: 0 }
    span { position: absolute; font: 30px late, serif; background: #000 }</style>
    <script>onload = () => {
        document.body.innerHTML = "<span>iiiiiiiiii</span>"; document.fonts.load("30px late") }</script>"""
IMAGE_ON_LOAD = """<style>body { margin: 0 } img { display: block }</style>
    <script>onload = () => { document.body.innerHTML = '<img src="/image.png?delay_ms=300">' }</script>"""


@pytest.mark.parametrize(("wait_until", "colour"), [("auto", (0, 0, 0)), ("load", WHITE)])
async def test_auto_waits_for_fonts(
    browser: cdp.Browser, site: Site, wait_until: str, colour: tuple[int, int, int]
) -> None:
    # In the web font, which is monospaced, the bar is more than twice as wide as in the other one.
    url = site.add("/font-on-load", page("", FONT_ON_LOAD))
    assert await pixel(browser, int(FONT_BARS[0].width) - 10, 15, url=url, wait_until=wait_until) == colour


@pytest.mark.parametrize(("wait_until", "colour"), [("auto", SLOW_IMAGE_COLOUR), ("load", WHITE)])
async def test_auto_waits_for_images_in_view(
    browser: cdp.Browser, site: Site, wait_until: str, colour: tuple[int, int, int]
) -> None:
    # The box is there before the picture.
    head = IMAGE_ON_LOAD.replace("<img ", "<img width=200 height=100 ")
    url = site.add("/image-on-load", page("", head))
    assert await pixel(browser, 20, 20, url=url, wait_until=wait_until) == colour


async def test_load_does_not_wait_for_what_comes_after_it(browser: cdp.Browser, site: Site) -> None:
    url = site.url("/images?insert_ms=100&delay_ms=300")
    assert await pixel(browser, 20, 20, url=url, wait_until="load") == WHITE


async def test_networkidle_waits_for_what_comes_after_load(browser: cdp.Browser, site: Site) -> None:
    url = site.url("/images?insert_ms=50&delay_ms=200")
    assert await pixel(browser, 20, 20, url=url, wait_until="networkidle") == SLOW_IMAGE_COLOUR


@pytest.mark.parametrize("wait_until", ["domcontentloaded", "commit"])
async def test_earlier_moments_do_not_wait_for_the_load(browser: cdp.Browser, site: Site, wait_until: str) -> None:
    assert "text at once" in await html(browser, url=site.url("/never-loads"), wait_until=wait_until)


@pytest.mark.parametrize("wait_until", ["load", "networkidle"])
async def test_later_moments_wait_for_the_load(browser: cdp.Browser, site: Site, wait_until: str) -> None:
    told = await failure(browser, url=site.url("/never-loads"), wait_until=wait_until, timeout_ms=400)
    assert told.code == "timeout"


@pytest.mark.parametrize("wait_until", ["auto", "load", "domcontentloaded", "networkidle", "commit"])
async def test_html_of_the_client_reaches_every_moment(browser: cdp.Browser, wait_until: str) -> None:
    assert "my own" in await html(browser, html="<p>my own</p>", wait_until=wait_until)


@pytest.mark.parametrize(
    ("wait", "there", "gone"),
    [
        ("#late", 'id="late"', None),
        ({"selector": "#late", "state": "visible"}, 'id="late"', None),
        ({"selector": "#late", "state": "attached"}, 'id="late"', None),
        ({"selector": "#gone", "state": "detached"}, None, 'id="gone"'),
        ({"selector": "#gone", "state": "hidden"}, None, 'id="gone"'),
        ({"selector": "#hidden", "state": "hidden"}, 'id="hidden"', None),
        ({"selector": "#hidden", "state": "attached"}, 'id="hidden"', None),
        ("xpath=//p[@id='late']", 'id="late"', None),
        ("text=late but here", 'id="late"', None),
        (["#late", {"selector": "#gone", "state": "detached"}], 'id="late"', 'id="gone"'),
    ],
)
async def test_wait_for_waits_for_the_state(
    browser: cdp.Browser, site: Site, wait: Any, there: str | None, gone: str | None
) -> None:
    body = (await html(browser, url=site.url("/late-element"), wait_for=wait)).partition("<script>")
    text = body[0] + body[2].partition("</script>")[2]
    assert there is None or there in text
    assert gone is None or gone not in text


async def test_wait_for_expression_waits_until_it_is_true(browser: cdp.Browser, site: Site) -> None:
    expression = "new Promise(done => setTimeout(() => done(document.querySelector('#late')), 10))"
    shown = await html(browser, url=site.url("/late-element"), wait_for_expression=expression)
    assert 'id="late"' in shown.partition("</script>")[2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"wait_for_expression": "("}, "SyntaxError"),
        ({"js": "("}, "SyntaxError"),
        ({"js": ["1", "throw new Error('my own')"]}, "my own"),
    ],
)
async def test_script_of_the_client_that_fails_is_a_script_error(
    browser: cdp.Browser, site: Site, fields: dict[str, Any], message: str
) -> None:
    told = await failure(browser, url=site.url("/ok"), **fields)
    assert (told.code, told.retryable) == ("script_error", False)
    assert message in str(told)


async def test_wait_ms_delays_the_capture(browser: cdp.Browser, site: Site) -> None:
    output = await made(browser, "scrape", url=site.url("/ok"), wait_ms=250)
    assert 250 <= output.meta["timings"]["wait"] < 1000


# ---- Injection and actions -------------------------------------------------------------------------------------------


async def test_scripts_come_before_waits_and_waits_before_actions(browser: cdp.Browser, site: Site) -> None:
    # Each step needs what the one before it made.
    later = "document.body.insertAdjacentHTML('beforeend', '<p id=made>made</p>')"
    shown = await html(
        browser,
        url=site.url("/ok"),
        js=f"setTimeout(() => {later}, 50)",
        wait_for="#made",
        actions=[{"type": "evaluate", "script": "document.querySelector('#made').textContent = 'acted on'"}],
    )
    assert '<p id="made">acted on</p>' in shown


async def test_css_is_seen_in_the_picture(browser: cdp.Browser, site: Site) -> None:
    given = {"url": site.url("/ok"), "css": ["#box { background: #00f !important }", "#box { color: red }"]}
    assert await pixel(browser, 50, 90, **given) == (0, 0, 255)


async def test_hidden_element_is_not_seen_and_removed_one_is_not_there(browser: cdp.Browser, site: Site) -> None:
    assert await pixel(browser, 50, 90, url=site.url("/ok"), hide_selectors="#box") == WHITE
    assert 'id="box"' not in await html(browser, url=site.url("/ok"), remove_selectors=["#nothing", "#box"])


async def test_elements_are_hidden_in_the_document_that_actions_open(browser: cdp.Browser, site: Site) -> None:
    actions = [{"type": "goto", "url": site.url("/ok")}]
    given = {"url": site.url("/colours"), "wait_until": "load", "hide_selectors": "#box", "actions": actions}
    assert await pixel(browser, 50, 90, **given) == WHITE


async def test_what_actions_opened_is_captured(browser: cdp.Browser, site: Site) -> None:
    actions = [{"type": "goto", "url": site.url("/status/404")}]
    output = await made(browser, "scrape", url=site.url("/ok"), actions=actions)
    assert (output.meta["url"], output.meta["status_code"]) == (site.url("/status/404"), 404)
    assert "Status 404" in output.main.data.decode()


async def test_pictures_of_actions_come_after_the_main_one(browser: cdp.Browser, site: Site) -> None:
    actions = [{"type": "screenshot", "name": "box", "selector": "#box"}, {"type": "screenshot", "name": "whole"}]
    output = await made(browser, "screenshot", url=site.url("/ok"), actions=actions, format="webp")
    shown = {name: Image.open(BytesIO(part.data)) for name, part in output.parts.items()}
    assert [(name, image.format) for name, image in shown.items()] == [
        *[("image", "WEBP"), ("box", "WEBP"), ("whole", "WEBP")]
    ]
    assert (shown["box"].size, shown["whole"].size) == ((OK_BOX_PX, OK_BOX_PX), (1280, 800))
    assert [record["type"] for record in output.meta["actions"]] == ["screenshot", "screenshot"]


async def test_failed_action_ends_the_attempt(browser: cdp.Browser, site: Site) -> None:
    actions = [{"type": "evaluate", "script": "1"}, {"type": "click", "selector": "#nothing", "timeout_ms": 50}]
    told = await failure(browser, url=site.url("/ok"), actions=actions)
    assert (told.code, told.index, told.retryable) == ("action_failed", 1, False)


async def test_action_cannot_reach_a_blocked_target(browser: cdp.Browser, site: Site) -> None:
    actions = [{"type": "goto", "url": site.url("/redirect-to?url=http://10.0.0.1/")}]
    told = await failure(browser, url=site.url("/ok"), actions=actions, timeout_ms=8000)
    assert (told.code, told.index) == ("action_failed", 0)
    assert "10.0.0.1" in str(told)


# ---- Timeouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "fields", "what"),
    [
        ("/never", {}, "the server did not answer"),
        ("/drip", {"wait_until": "load"}, "wait_until: load"),
        ("/never-loads", {"wait_until": "load"}, "wait_until: load; requests in flight: http://"),
        ("/never-loads", {"wait_until": "networkidle"}, "wait_until: networkidle"),
        ("/ok", {"wait_ms": 60_000}, "wait_ms was not over"),
        ("/ok", {"wait_for_expression": "window.never"}, "'window.never' was not true"),
        ("/ok", {"js": "new Promise(() => {})"}, "css and js were not injected"),
    ],
)
async def test_timeout_tells_what_did_not_come(
    browser: cdp.Browser, site: Site, path: str, fields: dict[str, Any], what: str
) -> None:
    told = await failure(browser, url=site.url(path), timeout_ms=600, **fields)
    assert (told.code, told.retryable) == ("timeout", True)
    assert str(told).startswith("timeout after 600 ms: ")
    assert what in str(told)


async def test_action_that_is_not_done_in_time_is_named(browser: cdp.Browser, site: Site) -> None:
    actions = [{"type": "hover", "selector": "body"}, {"type": "click", "selector": "#nothing"}]
    told = await failure(browser, url=site.url("/ok"), actions=actions, timeout_ms=900)
    assert (told.code, told.retryable, told.index) == ("action_failed", False, 1)
    assert str(told).startswith("action 1 (click): ")


async def test_optional_action_leaves_time_for_the_rest(browser: cdp.Browser, site: Site) -> None:
    actions = [{"type": "click", "selector": "#cookie-banner", "optional": True}]
    output = await made(browser, "scrape", url=site.url("/ok"), actions=actions, timeout_ms=3000)
    assert [record["ok"] for record in output.meta["actions"]] == [False]


async def test_credentials_in_the_url_are_used_and_not_told(browser: cdp.Browser, site: Site) -> None:
    url = site.url("/auth").replace("//", f"//{AUTH_USER}:{AUTH_PASSWORD}@")
    output = await made(browser, "scrape", url=url)
    assert (output.meta["status_code"], output.meta["url"]) == (200, site.url("/auth"))


async def test_markdown_leaves_out_what_nobody_sees(browser: cdp.Browser) -> None:
    document = '<p>seen</p><p style="display:none">unseen</p><p style="visibility:hidden">nor this</p>'
    output = await made(browser, "scrape", html=document, outputs=["markdown", "html"])
    assert output.parts["markdown"].data.strip() == b"seen"
    assert b"unseen" in output.parts["html"].data
    assert b"hidden=" not in output.parts["html"].data


async def test_timeout_is_kept_before_there_is_a_page(autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def hang() -> AsyncIterator[cdp.Page]:
        await trio.sleep_forever()
        raise AssertionError
        yield

    parsed = parse_request("scrape", {"url": "http://a.b", "timeout_ms": 700}, CONFIG)
    started = trio.current_time()
    with pytest.raises(JobFailed, match="timeout after 700 ms") as caught:
        await attempt(hang, parsed, policy=POLICY, max_pixels=MAX_PIXELS, progress=Progress())
    assert (caught.value.code, trio.current_time() - started) == ("timeout", 0.7)


@pytest.mark.parametrize(
    ("selector", "why"), [("#hidden", "it is hidden"), ("xpath=//nothing", "it is not in the document")]
)
async def test_selector_that_never_comes_is_named(browser: cdp.Browser, site: Site, selector: str, why: str) -> None:
    told = await failure(browser, url=site.url("/late-element"), wait_for=selector, timeout_ms=600)
    assert (told.code, told.retryable) == ("selector_not_found", False)
    assert str(told) == f"selector {selector!r} was not visible ({why}) within 600 ms"


async def test_wait_has_a_time_of_its_own(browser: cdp.Browser, site: Site) -> None:
    wait = {"selector": "#nothing", "timeout_ms": 100}
    told = await failure(browser, url=site.url("/ok"), wait_for=wait, timeout_ms=20_000)
    message = "selector '#nothing' was not visible within 100 ms: it is not in the document"
    assert (told.code, str(told)) == ("selector_not_found", message)


async def test_selector_of_the_picture_that_never_comes_is_named(browser: cdp.Browser, site: Site) -> None:
    told = await failure(browser, "screenshot", url=site.url("/ok"), selector="#nothing", timeout_ms=500)
    assert told.code == "selector_not_found"


@pytest.mark.parametrize("selector", ["a[", "xpath=][", "xpath=1+1", ":nothing()"])
@pytest.mark.parametrize("field", ["wait_for", "selector"])
async def test_selector_that_does_not_parse_is_an_invalid_request(
    browser: cdp.Browser, site: Site, selector: str, field: str
) -> None:
    told = await failure(browser, "screenshot", url=site.url("/ok"), **{field: selector})
    assert told.code == "invalid_request"
    assert selector in str(told)


@pytest.mark.parametrize(
    ("path", "fields", "unfinished"),
    [
        ("/never-loads", {"wait_until": "load"}, "wait_until: load"),
        ("/drip", {"wait_until": "load"}, "wait_until: load"),
        ("/ok", {"wait_ms": 60_000}, "wait_ms was not over"),
        ("/ok", {"wait_for": "#nothing"}, "selector '#nothing' was not visible"),
    ],
)
async def test_on_timeout_capture_shows_what_there_is(
    browser: cdp.Browser, site: Site, path: str, fields: dict[str, Any], unfinished: str
) -> None:
    output = await made(browser, "scrape", url=site.url(path), timeout_ms=600, on_timeout="capture", **fields)
    (warning,) = output.meta["warnings"]
    assert warning.startswith("captured after 600 ms: ")
    assert unfinished in warning
    # A document that has begun without a byte so far is empty.
    assert path == "/drip" or b"<body" in output.main.data


async def test_on_timeout_capture_tells_what_was_done(browser: cdp.Browser, site: Site) -> None:
    actions = [{"type": "screenshot", "name": "first"}, {"type": "wait", "ms": 60_000}]
    given = {"url": site.url("/ok"), "actions": actions, "timeout_ms": 900, "on_timeout": "capture"}
    output = await made(browser, "scrape", **given)
    assert [record["index"] for record in output.meta["actions"]] == [0]
    assert list(output.parts) == ["html", "first"]
    (warning,) = output.meta["warnings"]
    assert "action 1 (wait)" in warning


async def test_on_timeout_capture_takes_the_picture(browser: cdp.Browser, site: Site) -> None:
    given = {"url": site.url("/ok"), "wait_ms": 60_000, "timeout_ms": 800, "on_timeout": "capture"}
    assert await pixel(browser, 50, 50, **given) == RED


async def test_on_timeout_capture_of_no_document_is_a_timeout(browser: cdp.Browser, site: Site) -> None:
    told = await failure(browser, url=site.url("/never"), timeout_ms=400, on_timeout="capture")
    assert told.code == "timeout"


@pytest.mark.parametrize(("on_timeout", "query"), [("fail", ""), ("fail", "?after_ms=50"), ("capture", "?after_ms=50")])
async def test_endless_script_ends_in_time(
    browser: cdp.Browser, site: Site, on_timeout: str, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleariflow, "LATE_CAPTURE_S", 0.5)
    fields = {"wait_ms": 10_000, "timeout_ms": 500, "on_timeout": on_timeout}
    told = await failure(browser, url=site.url(f"/endless-script{query}"), **fields)
    assert told.code == "timeout"
    assert OK_TEXT in await html(browser, url=site.url("/ok"))


# ---- Trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "code", "retryable", "message"),
    [
        ("/204", "not_a_page", False, "not a page: the server answered 204, without a document"),
        ("/205", "not_a_page", False, "not a page: the server answered 205, without a document"),
        ("/download", "not_a_page", False, "not a page: a download (application/zip, 1234 bytes)"),
        ("/reset", "navigation_failed", True, "navigation failed: net::ERR_CONNECTION_RESET"),
        ("/empty", "navigation_failed", True, "navigation failed: net::ERR_EMPTY_RESPONSE"),
        ("/bad-http", "navigation_failed", False, "navigation failed: net::ERR_INVALID_HTTP_RESPONSE"),
        ("/redirect-loop", "navigation_failed", False, "navigation failed: net::ERR_TOO_MANY_REDIRECTS"),
    ],
)
async def test_trouble_of_the_page_has_its_code_and_costs_the_next_job_nothing(
    browser: cdp.Browser, site: Site, path: str, code: str, retryable: bool, message: str
) -> None:
    told = await failure(browser, url=site.url(path), timeout_ms=5000)
    assert (told.code, told.retryable) == (code, retryable)
    assert str(told).startswith(message)
    assert OK_TEXT in await html(browser, url=site.url("/ok"))


async def test_name_that_does_not_resolve_is_retryable(browser: cdp.Browser) -> None:
    told = await failure(browser, url="http://no-such-host.invalid/")
    assert (told.code, told.retryable) == ("navigation_failed", True)
    assert str(told) == "navigation failed: net::ERR_NAME_NOT_RESOLVED"


async def test_refused_connection_is_retryable(browser: cdp.Browser) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    told = await failure(browser, url=f"http://127.0.0.1:{port}/")
    assert (told.code, told.retryable) == ("navigation_failed", True)
    assert str(told) == "navigation failed: net::ERR_CONNECTION_REFUSED"


async def test_bad_certificate_is_not_retryable(browser: cdp.Browser) -> None:
    async with open_site(tls=True) as site:
        told = await failure(browser, url=site.url("/ok"))
    assert (told.code, told.retryable) == ("navigation_failed", False)
    assert str(told) == "navigation failed: net::ERR_CERT_AUTHORITY_INVALID"


async def test_bad_certificate_can_be_ignored(browser: cdp.Browser) -> None:
    async with open_site(tls=True) as site:
        assert OK_TEXT in await html(browser, url=site.url("/ok"), ignore_tls_errors=True)


async def test_unsafe_port_is_not_retryable(browser: cdp.Browser) -> None:
    told = await failure(browser, url="http://127.0.0.1:6667/")
    assert (told.code, told.retryable) == ("navigation_failed", False)


@pytest.mark.parametrize(
    "target", ["http://10.0.0.1/", "http://169.254.169.254/latest/meta-data/", "http://[::1]:8080/"]
)
@pytest.mark.parametrize("way", ["/redirect-to", "/js-redirect"])
async def test_way_to_a_blocked_target_is_blocked(browser: cdp.Browser, site: Site, target: str, way: str) -> None:
    told = await failure(browser, url=site.url(f"{way}?url={target}"), timeout_ms=8000)
    assert (told.code, told.retryable) == ("blocked_target", False)


@pytest.mark.parametrize("target", ["http://10.0.0.1/", "http://127.0.0.1:1/", "http://no-such-host.invalid/"])
async def test_page_that_moves_to_a_dead_address_keeps_its_document(
    browser: cdp.Browser, site: Site, target: str
) -> None:
    move = f"<p>good</p><script>onload = () => setTimeout(() => location = '{target}', 50)</script>"
    url = site.add("/moves", page(move))
    output = await made(browser, "scrape", url=url, wait_ms=400)
    assert "<p>good</p>" in output.main.data.decode()
    assert (output.meta["url"], len(output.meta["warnings"])) == (url, 1)


async def test_server_that_is_reached_by_redirects_is_shown(browser: cdp.Browser, site: Site) -> None:
    output = await made(browser, "scrape", url=site.url("/redirect/3"))
    assert OK_TEXT in output.main.data.decode()
    assert (output.meta["url"], output.meta["status_code"]) == (site.url("/ok"), 200)
    assert output.meta["redirects"] == [site.url(f"/redirect/{left}") for left in (3, 2, 1)]


@pytest.mark.parametrize("render", [True, False])
@pytest.mark.parametrize(("path", "pattern"), [("/status/404", "4xx"), ("/status/503", 503), ("/ok", "2xx")])
async def test_unwanted_status_fails(
    browser: cdp.Browser, site: Site, path: str, pattern: str | int, render: bool
) -> None:
    told = await failure(browser, url=site.url(path), fail_on_status=[301, pattern], render=render)
    assert (told.code, told.retryable) == ("http_error", False)


async def test_unwanted_status_of_what_actions_open_fails(browser: cdp.Browser, site: Site) -> None:
    actions = [{"type": "goto", "url": site.url("/status/500")}]
    told = await failure(browser, url=site.url("/ok"), actions=actions, fail_on_status=["5xx"])
    assert (told.code, "500" in str(told)) == ("http_error", True)


@pytest.mark.parametrize("fields", [{"url": "/status/404"}, {"html": "<p>"}])
async def test_other_status_does_not_fail(browser: cdp.Browser, site: Site, fields: dict[str, str]) -> None:
    given = {name: site.url(text) if name == "url" else text for name, text in fields.items()}
    await made(browser, "scrape", **given, fail_on_status=["5xx", 403])


@pytest.mark.parametrize("status", [404, 500, 403])
async def test_page_of_an_error_status_is_shown(browser: cdp.Browser, site: Site, status: int) -> None:
    output = await made(browser, "scrape", url=site.url(f"/status/{status}"))
    assert output.meta["status_code"] == status
    assert f"Status {status}" in output.main.data.decode()


@pytest.mark.parametrize("service", ["screenshot", "scrape"])
async def test_empty_error_page_is_a_page(browser: cdp.Browser, site: Site, service: ServiceName) -> None:
    assert (await made(browser, service, url=site.url("/status/404-empty"))).meta["status_code"] == 404


@pytest.mark.parametrize(
    ("path", "text"), [("/alert", "after the alert"), ("/alert-storm", "after the storm"), ("/unload-dialog", "stay")]
)
async def test_dialog_stops_nothing(browser: cdp.Browser, site: Site, path: str, text: str) -> None:
    assert text in await html(browser, url=site.url(path))


async def test_dialog_is_a_warning(browser: cdp.Browser, site: Site) -> None:
    warnings = (await made(browser, "scrape", url=site.url("/alert"))).meta["warnings"]
    assert warnings == ["alert dialog answered: stop here"]


async def test_storm_of_dialogs_is_few_warnings(browser: cdp.Browser, site: Site) -> None:
    warnings = (await made(browser, "scrape", url=site.url("/alert-storm"))).meta["warnings"]
    assert len(warnings) < STORM_ALERTS


async def crashed(browser: cdp.Browser, site: Site, **fields: Any) -> JobFailed:
    """The failure of an attempt whose page crashes in the phase that never ends."""
    pages: list[cdp.Page] = []

    @asynccontextmanager
    async def open_page() -> AsyncIterator[cdp.Page]:
        async with browser.open_page() as opened:
            pages.append(opened)
            yield opened

    async def crash() -> None:
        await site.seen("/never")
        with pytest.raises(cdp.errors.TargetCrashed):
            await pages[0].session.send("Page.crash")

    parsed = parse_request("scrape", {"url": site.url("/never-loads"), "timeout_ms": 12_000, **fields}, CONFIG)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash)
        with pytest.raises(JobFailed) as caught:
            await attempt(open_page, parsed, policy=POLICY, max_pixels=MAX_PIXELS, progress=Progress())
    return caught.value


@pytest.mark.parametrize("fields", [{}, {"wait_until": "commit", "wait_for": "#nothing"}])
async def test_crash_of_the_page_has_its_code(browser: cdp.Browser, site: Site, fields: dict[str, Any]) -> None:
    told = await crashed(browser, site, **fields)
    assert (told.code, told.retryable) == ("page_crashed", True)
    assert OK_TEXT in await html(browser, url=site.url("/ok"))


async def test_crash_during_a_fixed_delay_is_noticed_at_once(browser: cdp.Browser, site: Site) -> None:
    with trio.fail_after(5):
        told = await crashed(browser, site, wait_until="commit", wait_ms=10_000)
    assert told.code == "page_crashed"


async def test_picture_over_the_pixel_limit_is_too_large(browser: cdp.Browser, site: Site) -> None:
    parsed = parse_request("screenshot", {"url": site.url("/tall"), "full_page": True, "format": "png"}, CONFIG)
    with pytest.raises(JobFailed, match="over the limit of 1000000 pixels") as caught:
        await attempt(browser.open_page, parsed, policy=POLICY, max_pixels=1_000_000, progress=Progress())
    assert (caught.value.code, caught.value.retryable) == ("too_large", False)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
async def test_picture_over_the_limit_of_its_format_is_too_large(
    browser: cdp.Browser, site: Site, image_format: str
) -> None:
    url = site.add("/very-tall", page('<div style="height:70000px">'))
    told = await failure(browser, "screenshot", url=url, full_page=True, format=image_format, viewport={"width": 100})
    assert told.code == "too_large"


async def test_element_without_a_box_is_not_found(browser: cdp.Browser, site: Site) -> None:
    told = await failure(browser, "screenshot", url=site.url("/late-element"), selector="#hidden", timeout_ms=500)
    assert told.code == "selector_not_found"


# ---- The document ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ENCODED_TEXTS)
async def test_document_has_the_right_characters(browser: cdp.Browser, site: Site, path: str) -> None:
    output = await made(browser, "scrape", url=site.url(path))
    assert ENCODED_TEXTS[path] in output.main.data.decode()
    assert output.main.content_type == "text/html; charset=utf-8"


async def test_document_has_its_doctype(browser: cdp.Browser, site: Site) -> None:
    assert (await html(browser, url=site.url("/ok"))).startswith("<!DOCTYPE html>")


async def test_document_without_a_doctype_gets_none(browser: cdp.Browser, site: Site) -> None:
    assert (await html(browser, url=site.add("/quirks", "<p>quirks</p>"))).startswith("<html>")


async def test_document_is_the_live_one(browser: cdp.Browser, site: Site) -> None:
    url = site.add("/live", page("<p>old</p><script>document.querySelector('p').textContent = 'new'</script>"))
    assert "<p>new</p>" in await html(browser, url=url)


@pytest.mark.parametrize("service", ["screenshot", "scrape"])
async def test_tampering_page_is_shown_as_it_is(browser: cdp.Browser, site: Site, service: ServiceName) -> None:
    output = await made(browser, service, url=site.url("/tamper"))
    if service == "scrape":
        assert TAMPER_TEXT in output.main.data.decode()
    else:
        assert (output.meta["width"], output.meta["height"]) == (1280, 800)


async def test_half_of_a_surrogate_pair_is_replaced(browser: cdp.Browser, site: Site) -> None:
    url = site.add("/half", page(r"<p>x</p><script>document.querySelector('p').textContent = 'a\ud800b'</script>"))
    assert "<p>a?b</p>" in await html(browser, url=url)


# ---- Outputs ---------------------------------------------------------------------------------------------------------

ARTICLE = """<article id="a"><h1>The <em>heading</em></h1><p>Shown <span style="display:none">unseen</span></p>
    <a href="/next?a=b#c" rel="next">On</a></article><p>outside</p>"""


async def test_all_outputs_come_from_one_load(browser: cdp.Browser, site: Site) -> None:
    url = site.add("/article", page(ARTICLE, title="The title"))
    outputs = ["text", "screenshot", "links", "metadata", "markdown", "html"]
    output = await made(browser, "scrape", url=url, outputs=outputs)
    assert [request.path for request in site.requests] == ["/article"]
    assert set(output.parts) == set(outputs)
    assert output.main is output.parts["html"]
    assert "<h1>The <em>heading</em></h1>" in output.main.data.decode()
    assert output.parts["text"].data.decode().split() == ["The", "heading", "Shown", "On", "outside"]
    assert output.parts["markdown"].data.decode().startswith("# The *heading*")
    (link,) = json.loads(output.parts["links"].data)
    assert (link["url"], link["text"], link["rel"]) == (site.url("/next?a=b#c"), "On", "next")
    assert json.loads(output.parts["metadata"].data)["title"] == "The title"
    assert Image.open(BytesIO(output.parts["screenshot"].data)).size == (1280, 800)


async def test_selector_limits_the_outputs_to_its_element(browser: cdp.Browser, site: Site) -> None:
    url = site.add("/article", page(ARTICLE, title="The title"))
    outputs = ["html", "text", "metadata", "screenshot"]
    output = await made(browser, "scrape", url=url, outputs=outputs, selector="text=The heading")
    assert output.main.data == b"<h1>The <em>heading</em></h1>"
    assert output.parts["text"].data == b"The heading"
    assert Image.open(BytesIO(output.parts["screenshot"].data)).height < 100
    # Of the whole page all the same.
    assert json.loads(output.parts["metadata"].data)["title"] == "The title"


async def test_element_of_a_scrape_is_awaited(browser: cdp.Browser, site: Site) -> None:
    assert 'id="late"' in await html(browser, url=site.url("/late-element"), selector="#late")
    told = await failure(browser, url=site.url("/ok"), selector="#nothing", timeout_ms=400)
    message = "selector '#nothing' was not attached (it is not in the document) within 400 ms"
    assert (told.code, str(told)) == ("selector_not_found", message)


SHADOW = """<div id="host"></div><script>
    document.querySelector("#host").attachShadow({mode: "open"}).innerHTML = "<p>in the shadow</p>"</script>"""


@pytest.mark.parametrize("include", [True, False])
async def test_shadow_roots_are_included_on_demand(browser: cdp.Browser, site: Site, include: bool) -> None:
    url = site.add("/shadow", page(SHADOW))
    shown = await html(browser, url=url, selector="#host", include_shadow_dom=include)
    assert ("<p>in the shadow</p>" in shown, "shadowrootmode" in shown) == (include, include)


# ---- Without a browser -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def no_browser() -> AsyncIterator[cdp.Page]:
    """Where no page may be opened."""
    raise AssertionError("a page was opened")
    yield


async def fetched(url: str, **fields: Any) -> Output:
    """What a scrape makes without a browser."""
    parsed = parse_request("scrape", {"url": url, "render": False, **fields}, CONFIG)
    with trio.fail_after(30):
        return await attempt(no_browser, parsed, policy=POLICY, max_pixels=MAX_PIXELS, progress=Progress())


async def test_document_without_a_browser_is_as_the_server_sent_it(site: Site) -> None:
    url = site.add("/scripted", page(SCRIPTED, title="The\n title &amp; more"))
    output = await fetched(url)
    assert output.main.data == page(SCRIPTED, title="The\n title &amp; more")
    assert output.main.content_type == "text/html; charset=utf-8"
    assert (output.meta["title"], output.meta["browser"], output.meta["warnings"]) == ("The title & more", None, [])


async def test_fetch_tells_where_it_ended(site: Site) -> None:
    meta = (await fetched(site.url("/redirect/2"))).meta
    assert (meta["url"], meta["status_code"]) == (site.url("/ok"), 200)
    assert meta["redirects"] == [site.url("/redirect/2"), site.url("/redirect/1")]
    assert list(meta["timings"]) == ["open", "navigate", "capture"]
    assert meta["duration_ms"] == meta["elapsed_ms"]


async def test_fetch_sends_what_is_asked_for(site: Site) -> None:
    await fetched(site.url("/echo"), headers={"X-A": "1"}, cookies="a=b", referer="http://a.b/", locale="de-CH")
    seen = await site.seen("/echo")
    sent = [seen.header(name) for name in ("x-a", "cookie", "referer", "accept-language")]
    assert sent == ["1", "a=b", "http://a.b/", "de-CH,de;q=0.9"]
    assert "Chrome/" in (seen.header("user-agent") or "")


async def test_outputs_of_a_fetch_are_those_of_its_html(site: Site) -> None:
    url = site.add("/article", page(ARTICLE, title="The title"))
    output = await fetched(url, outputs=["text", "links", "metadata"], selector="#a")
    assert output.main is output.parts["text"]
    assert b"heading" in output.main.data
    assert b"outside" not in output.main.data
    assert [link["url"] for link in json.loads(output.parts["links"].data)] == [site.url("/next?a=b#c")]
    assert json.loads(output.parts["metadata"].data)["title"] == "The title"


@pytest.mark.parametrize(
    ("path", "fields", "code", "retryable"),
    [
        ("/reset", {}, "navigation_failed", True),
        ("/download", {}, "not_a_page", False),
        ("/redirect-to?url=http://10.0.0.1/", {}, "blocked_target", False),
        ("/never", {"timeout_ms": 200}, "timeout", True),
        ("/ok", {"selector": "#nothing"}, "selector_not_found", False),
        ("/ok", {"selector": "a["}, "invalid_request", False),
    ],
)
async def test_trouble_of_a_fetch_has_its_code(
    site: Site, path: str, fields: dict[str, Any], code: str, retryable: bool
) -> None:
    with pytest.raises(JobFailed) as caught:
        await fetched(site.url(path), **fields)
    assert (caught.value.code, caught.value.retryable) == (code, retryable)


@pytest.mark.parametrize(
    ("body", "fields", "requests", "product"),
    [
        ("<p>plain</p>", {}, 1, False),
        ("<p>plain</p>", {"outputs": ["text", "links"], "selector": "p"}, 1, False),
        (SCRIPTED, {}, 2, True),
        ("<p onclick='x()'>", {}, 2, True),
        # Told without a look at the document.
        ("<p>plain</p>", {"wait_ms": 1}, 1, True),
        ("<p>plain</p>", {"outputs": ["screenshot"]}, 1, True),
        ("<p>plain</p>", {"selector": "text=plain"}, 1, True),
    ],
)
async def test_auto_takes_a_browser_where_one_is_needed(
    browser: cdp.Browser, site: Site, body: str, fields: dict[str, Any], requests: int, product: bool
) -> None:
    output = await made(browser, "scrape", url=site.add("/auto", page(body)), render="auto", **fields)
    assert (len(site.requests), output.meta["browser"] is not None) == (requests, product)


async def test_auto_shows_what_scripts_make(browser: cdp.Browser, site: Site) -> None:
    assert "<b>scripted" in await html(browser, url=site.add("/scripted", page(SCRIPTED)), render="auto")


async def test_auto_leaves_what_is_no_document_to_the_browser(browser: cdp.Browser, site: Site) -> None:
    assert (await failure(browser, url=site.url("/download"), render="auto")).code == "not_a_page"


# ---- What is told ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["screenshot", "scrape"])
async def test_meta_tells_about_the_page(browser: cdp.Browser, site: Site, service: ServiceName) -> None:
    meta = (await made(browser, service, url=site.url("/ok"))).meta
    assert (meta["url"], meta["status_code"], meta["title"], meta["warnings"]) == (site.url("/ok"), 200, OK_TITLE, [])
    assert meta["browser"] == browser.product


@pytest.mark.parametrize("service", ["screenshot", "scrape"])
async def test_timings_add_up(browser: cdp.Browser, site: Site, service: ServiceName) -> None:
    meta = (await made(browser, service, url=site.url("/ok"))).meta
    phases = ["open", "prepare", "navigate", "arrive", "inject", "requests", "fonts", "images", "frames", "wait"]
    assert [phase for phase in meta["timings"] if phase in phases] == phases
    assert list(meta["timings"])[-1] == "capture"
    assert abs(sum(meta["timings"].values()) - meta["elapsed_ms"]) <= len(meta["timings"])


async def test_scrape_tells_its_duration_too(browser: cdp.Browser, site: Site) -> None:
    meta = (await made(browser, "scrape", url=site.url("/ok"))).meta
    assert meta["duration_ms"] == meta["elapsed_ms"]


async def test_phases_are_told_as_they_begin(browser: cdp.Browser, site: Site) -> None:
    phases: list[str] = []
    parsed = parse_request("scrape", {"url": site.url("/late-element"), "wait_for": "#late"}, CONFIG)
    await attempt(browser.open_page, parsed, policy=POLICY, max_pixels=MAX_PIXELS, progress=Progress(phases.append))
    assert phases[:4] == ["prepare", "navigate", "arrive", "inject"]
    assert phases[-5:] == ["frames", "wait_for", "wait", "capture", "close"]


# ---- What is left ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ok", "/never", "/never-loads", "/download", "/endless-script"])
async def test_nothing_of_an_attempt_is_left(browser: cdp.Browser, site: Site, path: str) -> None:
    try:
        await made(browser, "scrape", url=site.url(path), timeout_ms=400 if path != "/ok" else 30_000)
    except JobFailed:
        assert path != "/ok"
    assert browser.pages_open == 0
    with trio.fail_after(5):
        await site.connections_settled()


async def test_nothing_goes_from_one_attempt_to_the_next(browser: cdp.Browser, site: Site) -> None:
    await made(browser, "scrape", url=site.url("/set-cookie?name=left&value=over"))
    assert '<pre id="cookies">{}</pre>' in await html(browser, url=site.url("/echo-cookies"))


async def test_cancelled_attempt_closes_its_page(browser: cdp.Browser, site: Site) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: made(browser, "scrape", url=site.url("/never")))
        await site.seen("/never")
        nursery.cancel_scope.cancel()
    assert browser.pages_open == 0
    with trio.fail_after(1):
        await site.connections_settled()
