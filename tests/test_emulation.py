"""cdp/emulation.py and cdp/devices.py: each field as the page sees it and as the server does."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cdp
from cdp import devices, emulation
from cdp.errors import InvalidOption
from cdp.options import Geolocation, PageOptions, Range, RenderOptions, Viewport

from .site import SeenRequest, Site

PRODUCT = "HeadlessChrome/156.0.8078.79"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0"
WINDOWS_CHROME = f"{WINDOWS} {CHROME} Safari/537.36"
FIREFOX = f"{WINDOWS[:-1]}; rv:150.0) Gecko/20100101 Firefox/150.0"
PHONE = Viewport(390, 844, device_scale_factor=3, mobile=True, touch=True)
HIGH_ENTROPY = """navigator.userAgentData.getHighEntropyValues(
    ["architecture", "bitness", "model", "platformVersion", "fullVersionList", "wow64", "formFactors"])"""
IN_WORKER = """new Promise(resolve => {
  const code = new Blob([`postMessage(%s)`], {type: "text/javascript"});
  new Worker(URL.createObjectURL(code)).onmessage = event => resolve(event.data);
})"""
POSITION = """new Promise(resolve => navigator.geolocation.getCurrentPosition(
    ({coords}) => resolve([coords.latitude, coords.longitude, coords.accuracy]), error => resolve(error.code)))"""


async def opened(page: cdp.Page, site: Site, **fields: Any) -> SeenRequest:
    """What the server got for a page with these options."""
    await page.prepare(PageOptions(**fields))
    await page.navigate(site.url("/echo"))
    return await site.seen("/echo")


# Viewport


@pytest.mark.parametrize("viewport", [Viewport(), Viewport(1900, 1000), PHONE])
async def test_viewport_is_the_screen_s_size(page: cdp.Page, site: Site, viewport: Viewport) -> None:
    await opened(page, site, viewport=viewport)
    assert await page.evaluate("[screen.width, screen.height]") == [viewport.width, viewport.height]


OUTER = "<script>const outer = [outerWidth, outerHeight]</script>"


@pytest.mark.parametrize("viewport", [Viewport(), Viewport(1900, 1000), PHONE])
async def test_window_is_as_large_as_the_viewport(page: cdp.Page, site: Site, viewport: Viewport) -> None:
    await page.prepare(PageOptions(viewport=viewport))
    await page.navigate(site.add("/outer", OUTER))
    assert await page.evaluate("outer") == [viewport.width, viewport.height]


@pytest.mark.parametrize("viewport", [Viewport(), Viewport(1900, 1000), PHONE])
async def test_window_of_a_document_of_the_client_s_is_as_large_as_the_viewport(
    page: cdp.Page, viewport: Viewport
) -> None:
    await page.prepare(PageOptions(viewport=viewport))
    await page.set_content(OUTER, None)
    assert await page.evaluate("outer") == [viewport.width, viewport.height]


async def test_window_of_a_frame_is_as_large_as_the_viewport(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/framed", f"<iframe src='{site.add('/outer', OUTER)}'></iframe>"))
    assert await page.evaluate("[frames[0].outerWidth, frames[0].outerHeight]") == [1280, 800]


@pytest.mark.parametrize("script", ["var outerWidth = 7", "'use strict'; outerWidth = 7", "window.outerWidth = 7"])
async def test_size_of_the_window_can_be_replaced_by_the_page(page: cdp.Page, site: Site, script: str) -> None:
    await page.navigate(site.add("/own", f"<script>{script}</script>"))
    assert await page.evaluate("outerWidth") == 7


def test_new_page_is_not_told_what_it_is() -> None:
    told = [method for method, _ in emulation.at_first(RenderOptions(), product=PRODUCT, user_agent=WINDOWS_CHROME)]
    assert told == [
        "Emulation.setDeviceMetricsOverride",
        "Emulation.setUserAgentOverride",
        "Emulation.setLocaleOverride",
        "Emulation.setTimezoneOverride",
    ]


@pytest.mark.parametrize(
    "options",
    [
        RenderOptions(viewport=PHONE),
        RenderOptions(color_scheme="dark"),
        RenderOptions(reduced_motion=False),
        RenderOptions(media="print"),
        RenderOptions(geolocation=Geolocation(1, 2)),
        RenderOptions(javascript=False),
    ],
)
def test_new_page_is_told_what_it_is_not(options: RenderOptions) -> None:
    browser = {"product": PRODUCT, "user_agent": WINDOWS_CHROME}
    plain = emulation.at_first(RenderOptions(), **browser)
    assert len(emulation.at_first(options, **browser)) == len(plain) + 1


@pytest.mark.parametrize(
    ("viewport", "orientation"),
    [
        (Viewport(), ["landscape-primary", 0]),
        (PHONE, ["portrait-primary", 0]),
        (Viewport(844, 390, mobile=True), ["landscape-primary", 90]),
    ],
)
async def test_viewport_says_how_the_screen_is_held(
    page: cdp.Page, site: Site, viewport: Viewport, orientation: list[object]
) -> None:
    await opened(page, site, viewport=viewport)
    assert await page.evaluate("[screen.orientation.type, screen.orientation.angle]") == orientation


@pytest.mark.parametrize(("viewport", "width"), [(PHONE, 390), (attrs.evolve(PHONE, mobile=False), 390)])
async def test_viewport_scale_is_the_page_s(page: cdp.Page, site: Site, viewport: Viewport, width: int) -> None:
    url = site.add("/meta", '<meta name="viewport" content="width=device-width"><p>text</p>')
    await page.prepare(PageOptions(viewport=viewport))
    await page.navigate(url)
    assert await page.evaluate("[innerWidth, devicePixelRatio]") == [width, 3]


@pytest.mark.parametrize(("mobile", "width"), [(True, 500), (False, 390)])
async def test_mobile_honours_the_viewport_meta_tag(page: cdp.Page, site: Site, mobile: bool, width: int) -> None:
    url = site.add("/meta", '<meta name="viewport" content="width=500"><p>text</p>')
    await page.prepare(PageOptions(viewport=Viewport(390, 844, mobile=mobile)))
    await page.navigate(url)
    assert await page.evaluate("document.documentElement.clientWidth") == width


@pytest.mark.parametrize(("touch", "points"), [(True, emulation.TOUCH_POINTS), (False, 0)])
async def test_touch_is_seen_by_the_page(page: cdp.Page, site: Site, touch: bool, points: int) -> None:
    await opened(page, site, viewport=Viewport(touch=touch))
    seen = await page.evaluate(
        "[navigator.maxTouchPoints, 'ontouchstart' in window, matchMedia('(pointer: coarse)').matches]"
    )
    assert seen == [points, touch, touch]


async def test_viewport_without_touch_comes_with_a_mouse(page: cdp.Page, site: Site) -> None:
    await opened(page, site)
    assert await page.evaluate("matchMedia('(hover: hover) and (pointer: fine)').matches")


# Language


async def test_locale_is_in_the_header(page: cdp.Page, site: Site) -> None:
    request = await opened(page, site, locale="de-CH")
    assert request.header("accept-language") == "de-CH,de;q=0.9"


async def test_locale_is_the_navigator_s(page: cdp.Page, site: Site) -> None:
    await opened(page, site, locale="de-CH")
    assert await page.evaluate("[navigator.language, ...navigator.languages]") == ["de-CH", "de-CH", "de"]


async def test_locale_is_that_of_intl(page: cdp.Page, site: Site) -> None:
    await opened(page, site, locale="de-DE")
    assert await page.evaluate("(1234.5).toLocaleString()") == "1.234,5"


async def test_locale_is_american_by_default(page: cdp.Page, site: Site) -> None:
    request = await opened(page, site)
    assert (request.header("accept-language"), await page.evaluate("Intl.NumberFormat().resolvedOptions().locale")) == (
        "en-US,en;q=0.9",
        "en-US",
    )


@pytest.mark.parametrize(
    ("locale", "languages"),
    [
        ("de-CH", ["de-CH", "de"]),
        ("fr", ["fr"]),
        ("DE-ch", ["de-CH", "de"]),
        ("zh-hant-tw", ["zh-Hant-TW", "zh"]),
        ("th-TH-u-nu-thai", ["th-TH", "th"]),
        ("es-419", ["es-419", "es"]),
    ],
)
def test_languages_end_with_the_plain_one(locale: str, languages: list[str]) -> None:
    assert emulation.languages(locale) == languages


# Time and place


async def test_timezone_is_the_page_s(page: cdp.Page, site: Site) -> None:
    await opened(page, site, timezone="Asia/Tokyo")
    zone = "Intl.DateTimeFormat().resolvedOptions().timeZone"
    assert await page.evaluate(f"[{zone}, new Date(0).getHours()]") == ["Asia/Tokyo", 9]


async def test_timezone_is_utc_by_default(page: cdp.Page, site: Site) -> None:
    await opened(page, site)
    assert await page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone") == "UTC"


async def test_timezone_unknown_to_the_browser_is_refused(page: cdp.Page) -> None:
    with pytest.raises(InvalidOption, match="timezone"):
        await page.prepare(PageOptions(timezone="Europe/Nowhere"))


async def test_geolocation_is_told_to_the_page(page: cdp.Page, site: Site) -> None:
    await opened(page, site, geolocation=Geolocation(47.37, 8.54, 25))
    assert await page.evaluate(POSITION) == [47.37, 8.54, 25]


async def test_geolocation_is_denied_by_default(page: cdp.Page, site: Site) -> None:
    await opened(page, site)
    assert await page.evaluate(POSITION) == 1


@pytest.mark.parametrize("geolocation", [None, Geolocation(47.37, 8.54)])
async def test_permissions_are_denied(page: cdp.Page, site: Site, geolocation: Geolocation | None) -> None:
    await opened(page, site, geolocation=geolocation)
    states = """Promise.all(["notifications", "camera", "clipboard-read", "midi"].map(
        async name => (await navigator.permissions.query({name})).state))"""
    assert await page.evaluate(states) == ["denied"] * 4


# Media


@pytest.mark.parametrize(
    ("fields", "query"),
    [
        ({"color_scheme": "dark", "media": "print"}, "print and (prefers-color-scheme: dark)"),
        ({"color_scheme": "light", "media": "screen"}, "screen and (prefers-color-scheme: light)"),
        ({}, "screen and (prefers-color-scheme: light)"),
        ({"reduced_motion": True}, "(prefers-reduced-motion: reduce)"),
        ({"reduced_motion": False}, "(prefers-reduced-motion: no-preference)"),
    ],
)
async def test_media_query_matches(page: cdp.Page, site: Site, fields: dict[str, Any], query: str) -> None:
    await opened(page, site, **fields)
    assert await page.evaluate(f"matchMedia('{query}').matches")


async def test_javascript_off_runs_no_script(page: cdp.Page, site: Site) -> None:
    url = site.add("/script", '<p id="text">before</p><script>text.textContent = "after"</script>')
    await page.prepare(PageOptions(javascript=False))
    await page.navigate(url)
    assert "before" in await page.html()


# User agent, in the browser


async def test_user_agent_is_sent(page: cdp.Page, site: Site) -> None:
    request = await opened(page, site, user_agent=WINDOWS_CHROME)
    assert request.header("user-agent") == WINDOWS_CHROME


async def test_user_agent_is_the_navigator_s(page: cdp.Page, site: Site) -> None:
    await opened(page, site, user_agent=WINDOWS_CHROME)
    assert await page.evaluate("[navigator.userAgent, navigator.platform]") == [WINDOWS_CHROME, "Win32"]


async def test_user_agent_is_a_worker_s_too(page: cdp.Page, site: Site) -> None:
    await opened(page, site, user_agent=FIREFOX)
    assert await page.evaluate(IN_WORKER % "navigator.userAgent") == FIREFOX


async def test_user_agent_of_the_browser_s_own_hides_headless(page: cdp.Page, site: Site) -> None:
    request = await opened(page, site)
    said = [str(request.headers), await page.evaluate("navigator.userAgent"), str(await page.evaluate(HIGH_ENTROPY))]
    assert not [text for text in said if "Headless" in text]


async def test_client_hints_of_the_browser_s_own_are_chromium_s(page: cdp.Page, site: Site) -> None:
    request = await opened(page, site)
    hints = emulation.client_hints("Chrome/" + page.product.partition("/")[2], page.product, own=True)
    assert hints is not None
    assert request.header("sec-ch-ua") == ", ".join(f'"{one["brand"]}";v="{one["version"]}"' for one in hints["brands"])


async def test_client_hints_are_made_as_the_browser_makes_its_own(page: cdp.Page, site: Site) -> None:
    await page.session.send("Emulation.setUserAgentOverride", userAgent="")
    await page.navigate(site.url("/echo"))
    own = await page.evaluate(HIGH_ENTROPY)
    # The headless shell has a brand of its own, full Chromium none but Chromium.
    plain = "HeadlessChrome" not in str(own["brands"])
    made = emulation.client_hints(await page.evaluate("navigator.userAgent"), page.product, own=plain)
    said = json.loads(json.dumps(own).replace("HeadlessChrome", "Google Chrome"))
    assert made == {name: said[name] for name in made or ()}


async def test_client_hints_of_a_user_agent_are_sent(page: cdp.Page, site: Site) -> None:
    request = await opened(page, site, user_agent=WINDOWS_CHROME)
    names = ("sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform")
    brands = '"Not:A-Brand";v="8", "Chromium";v="156", "Google Chrome";v="156"'
    assert [request.header(name) for name in names] == [brands, "?0", '"Windows"']


async def test_client_hints_of_a_user_agent_are_the_page_s(page: cdp.Page, site: Site) -> None:
    await opened(page, site, user_agent=WINDOWS_CHROME)
    made = emulation.client_hints(WINDOWS_CHROME, page.product)
    seen = await page.evaluate(HIGH_ENTROPY)
    assert made == {name: seen[name] for name in made or ()}


async def test_client_hints_are_not_sent_for_a_firefox(page: cdp.Page, site: Site) -> None:
    request = await opened(page, site, user_agent=FIREFOX)
    assert not [name for name, _ in request.headers if name.startswith("sec-ch-")]


async def test_client_hints_of_a_firefox_are_empty(page: cdp.Page, site: Site) -> None:
    await opened(page, site, user_agent=FIREFOX)
    assert await page.evaluate("navigator.userAgentData.brands.length + navigator.userAgentData.platform") == "0"


# User agents and what agrees with them


def hints_of(user_agent: str) -> dict[str, Any]:
    hints = emulation.client_hints(user_agent, PRODUCT)
    assert hints is not None
    return hints


@pytest.mark.parametrize(
    ("user_agent", "system"),
    [
        (WINDOWS_CHROME, ("Windows", "10.0.0", "x86", "64", "")),
        (f"Mozilla/5.0 (Windows NT 10.0) {CHROME}", ("Windows", "10.0.0", "x86", "32", "")),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {CHROME}", ("macOS", "10.15.7", "x86", "64", "")),
        (f"Mozilla/5.0 (X11; Linux x86_64) {CHROME}", ("Linux", "", "x86", "64", "")),
        (f"Mozilla/5.0 (X11; Linux aarch64) {CHROME}", ("Linux", "", "arm", "64", "")),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {CHROME}", ("Chrome OS", "14541.0.0", "x86", "64", "")),
        (f"Mozilla/5.0 (Linux; Android 14; Pixel 7) {CHROME} Mobile", ("Android", "14.0.0", "", "", "Pixel 7")),
        (f"Mozilla/5.0 (Linux; Android 11; Pixel 4a (5G)) {CHROME}", ("Android", "11.0.0", "", "", "Pixel 4a (5G)")),
        (f"Mozilla/5.0 (Linux; Android 8.1.0; SM-T837A Build/X1) {CHROME}", ("Android", "8.1.0", "", "", "SM-T837A")),
        (f"Mozilla/5.0 (Linux; Android 10; K) {CHROME} Mobile", ("Android", "10.0.0", "", "", "")),
        (f"Mozilla/5.0 (Linux; Android 10) {CHROME} Mobile", ("Android", "10.0.0", "", "", "")),
        (f"Mozilla/5.0 (PlayThing) {CHROME}", ("Unknown", "", "", "", "")),
    ],
)
def test_client_hints_tell_the_user_agent_s_system(user_agent: str, system: tuple[str, ...]) -> None:
    hints = hints_of(user_agent)
    names = ("platform", "platformVersion", "architecture", "bitness", "model")
    assert tuple(hints[name] for name in names) == system


@pytest.mark.parametrize(
    ("user_agent", "brand", "version", "full"),
    [
        (f"{WINDOWS} {CHROME}", "Google Chrome", "156", "156.0.8078.79"),
        (f"{WINDOWS} {CHROME} Edg/156.0.0.0", "Microsoft Edge", "156", "156.0.8078.79"),
        (f"{WINDOWS} {CHROME} Edg/155.0.2.1", "Microsoft Edge", "155", "155.0.2.1"),
        (f"{WINDOWS} Chrome/150.0.1.2 Safari", "Google Chrome", "150", "150.0.1.2"),
        (f"{WINDOWS} Chrome/150 Safari", "Google Chrome", "150", "150"),
    ],
)
def test_client_hints_name_the_product(user_agent: str, brand: str, version: str, full: str) -> None:
    hints = hints_of(user_agent)
    assert {"brand": brand, "version": version} in hints["brands"]
    assert {"brand": brand, "version": full} in hints["fullVersionList"]


def test_client_hints_of_a_chromium_name_no_other_product() -> None:
    assert len(hints_of(f"{WINDOWS} Ubuntu Chromium/156.0.0.0 {CHROME}")["brands"]) == 2


@pytest.mark.parametrize(
    ("user_agent", "mobile", "form"),
    [
        (WINDOWS_CHROME, False, "Desktop"),
        (f"Mozilla/5.0 (Linux; Android 14; Pixel 7) {CHROME} Mobile Safari/537.36", True, "Mobile"),
        (f"Mozilla/5.0 (Linux; Android 14; SM-X710) {CHROME} Safari/537.36", False, "Tablet"),
    ],
)
def test_client_hints_tell_the_form(user_agent: str, mobile: bool, form: str) -> None:
    hints = hints_of(user_agent)
    assert (hints["mobile"], hints["formFactors"]) == (mobile, [form])


@pytest.mark.parametrize(
    "user_agent",
    [
        FIREFOX,
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/150.0",
        "Mozilla/5.0 (Windows NT 6.1) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.1.2 Safari/537.36",
        "curl/8.0",
    ],
)
def test_client_hints_are_none_for_who_sends_none(user_agent: str) -> None:
    assert emulation.client_hints(user_agent, PRODUCT) is None


@pytest.mark.parametrize(
    ("user_agent", "platform"),
    [
        (WINDOWS_CHROME, "Win32"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", "MacIntel"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X)", "iPhone"),
        ("Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X)", "iPad"),
        ("Mozilla/5.0 (Linux; Android 14; Pixel 7)", "Linux armv81"),
        ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0)", "Linux x86_64"),
        ("Mozilla/5.0 (X11; Linux aarch64)", "Linux aarch64"),
        ("curl/8.0", ""),
    ],
)
def test_platform_agrees_with_the_user_agent(user_agent: str, platform: str) -> None:
    assert emulation.platform(user_agent) == platform


WORDS = st.sampled_from(
    ["Mozilla/5.0 (", "Linux; ", "Android 14; ", "Android", "Pixel 7", " Build/", ") ", "; wv)", "Chrome/", "156", ".0"]
) | st.sampled_from(["Edg/", "Windows NT 10.0", "Intel Mac OS X 10_15", "CrOS x86_64 1.2", "Headless", " "])


@given(st.lists(WORDS | st.text(max_size=5), max_size=12).map("".join))
def test_client_hints_are_made_of_any_user_agent(user_agent: str) -> None:
    hints = emulation.client_hints(user_agent, PRODUCT)
    assert hints is None or all(one["version"] for one in hints["brands"])


# Devices


async def test_device_is_what_the_page_sees(page: cdp.Page, site: Site) -> None:
    url = site.add("/meta", '<meta name="viewport" content="width=device-width"><p>text</p>')
    await page.prepare(PageOptions(device="iPhone 15"))
    await page.navigate(url)
    seen = await page.evaluate(
        "[innerWidth, innerHeight, devicePixelRatio, navigator.platform, 'ontouchstart' in window]"
    )
    assert seen == [393, 659, 3, "iPhone", True]


async def test_device_with_chrome_has_the_browser_s_version(page: cdp.Page, site: Site) -> None:
    request = await opened(page, site, device="Pixel 7")
    major = page.product.partition("/")[2].partition(".")[0]
    assert f"(Linux; Android 14; Pixel 7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 Mobile" in (
        request.header("user-agent") or ""
    )


async def test_device_with_chrome_sends_its_client_hints(page: cdp.Page, site: Site) -> None:
    request = await opened(page, site, device="Pixel 7")
    hints = await page.evaluate(HIGH_ENTROPY)
    assert (request.header("sec-ch-ua-mobile"), request.header("sec-ch-ua-platform")) == ("?1", '"Android"')
    assert (hints["model"], hints["platformVersion"]) == ("Pixel 7", "14.0.0")


@pytest.mark.parametrize(
    "name",
    ["iPhone 17 Pro", "iPad Pro 11", "Pixel 10", "Galaxy S24", "Desktop Chrome", "Desktop Safari", "Desktop Edge"],
)
def test_device_table_has_what_people_ask_for(name: str) -> None:
    assert name in devices.names()


def test_device_names_are_matched_without_case() -> None:
    assert devices.device("iphone 15 LANDSCAPE", PRODUCT) == devices.device("iPhone 15 landscape", PRODUCT)


def test_device_unknown_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="'iPhone 15 Pro'"):
        devices.device("iPhone 15Pro", PRODUCT)


def test_device_far_from_every_name_names_none() -> None:
    with pytest.raises(ValueError, match=r"no device that is known here\Z"):
        devices.device("toaster", PRODUCT)


def every_device() -> dict[str, devices.Device]:
    return {name: devices.device(name, PRODUCT) for name in devices.names()}


def test_device_lies_in_landscape() -> None:
    turned = {name: one.viewport for name, one in every_device().items() if name.endswith("landscape")}
    assert not [name for name, viewport in turned.items() if viewport.width <= viewport.height]


def test_device_is_within_the_limits_of_a_request() -> None:
    for field, hint in get_type_hints(Viewport, include_extras=True).items():
        for limit in [one for one in hint.__metadata__ if isinstance(one, Range)]:
            for device in every_device().values():
                limit.check(getattr(device.viewport, field))


def test_device_leaves_no_placeholder() -> None:
    assert not [name for name, device in every_device().items() if "{" in device.user_agent]


def test_resolved_puts_viewport_and_user_agent_in_place_of_the_device() -> None:
    options = emulation.resolved(PageOptions(url="https://example.org/", device="iPhone 15"), PRODUCT)
    device = devices.device("iPhone 15", PRODUCT)
    assert options == PageOptions(url="https://example.org/", viewport=device.viewport, user_agent=device.user_agent)


def test_resolved_leaves_options_without_a_device() -> None:
    options = PageOptions(url="https://example.org/")
    assert emulation.resolved(options, PRODUCT) is options


def test_viewport_of_a_device_is_its_own() -> None:
    assert emulation.viewport_of(RenderOptions(device="iPhone 15")) == devices.device("iPhone 15", PRODUCT).viewport


@pytest.mark.parametrize("device", [None, "toaster"])
def test_viewport_of_no_device_is_the_options(device: str | None) -> None:
    assert emulation.viewport_of(RenderOptions(device=device, viewport=PHONE)) == PHONE


# Faults and changes


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"device": "iFone 15"}, "device"),
        ({"device": "iPhone 15", "user_agent": "mine"}, "user_agent"),
        ({"device": "iPhone 15", "viewport": PHONE}, "viewport"),
        ({"locale": "german"}, "locale"),
        ({"locale": "de_CH"}, "locale"),
        ({"locale": "en-US,de"}, "locale"),
        ({"timezone": "Europe Zurich"}, "timezone"),
        ({"timezone": "/etc/passwd"}, "timezone"),
    ],
)
def test_faults_name_the_field(fields: dict[str, Any], fault: str) -> None:
    assert [field for field, _ in emulation.faults(RenderOptions(**fields))] == [fault]


@pytest.mark.parametrize("locale", ["de", "de-CH", "zh-Hant-TW", "es-419", "de-AT-1996", "th-TH-u-nu-thai", "gsw"])
def test_faults_have_nothing_against_a_locale(locale: str) -> None:
    assert list(emulation.faults(RenderOptions(locale=locale))) == []


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Zurich", "America/Argentina/Buenos_Aires", "Etc/GMT-3"])
def test_faults_have_nothing_against_a_timezone(timezone: str) -> None:
    assert list(emulation.faults(RenderOptions(timezone=timezone))) == []


def changed(former: RenderOptions, options: RenderOptions) -> list[str]:
    commands = emulation.changes(former, options, product=PRODUCT, user_agent=WINDOWS_CHROME)
    return [method for method, _ in commands]


def test_changes_are_none_between_equals() -> None:
    assert changed(RenderOptions(), PageOptions(url="https://example.org/")) == []


def test_changes_are_only_what_differs() -> None:
    assert changed(RenderOptions(), RenderOptions(color_scheme="dark")) == ["Emulation.setEmulatedMedia"]


def test_changes_take_a_place_back() -> None:
    placed = RenderOptions(geolocation=Geolocation(1, 2))
    assert changed(placed, RenderOptions()) == ["Emulation.clearGeolocationOverride"]


async def test_changes_bring_a_page_back(page: cdp.Page, site: Site) -> None:
    await page.prepare(PageOptions(timezone="Asia/Tokyo", locale="de-DE", user_agent=FIREFOX, viewport=PHONE))
    request = await opened(page, site)
    zone = "Intl.DateTimeFormat().resolvedOptions()"
    seen = await page.evaluate(f"[{zone}.timeZone, {zone}.locale, innerWidth, navigator.maxTouchPoints]")
    assert (seen, "Firefox" in str(request.headers)) == (["UTC", "en-US", 1280, 0], False)
