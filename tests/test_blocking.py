"""cdp/blocking.py: globs, kinds and the list of advertisers by themselves, then what a page still gets."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cdp
from cdp import blocking
from cdp.blocking import Rules, ad_filter, matches
from cdp.options import PageOptions, ResourceType

from .site import Answer, Exchange, Site

# Globs


@pytest.mark.parametrize(
    ("glob", "url"),
    [
        ("https://a.org/", "https://a.org/"),
        ("*", ""),
        ("*", "https://a.org/"),
        ("https://a.org/*", "https://a.org/"),
        ("https://a.org/*.png", "https://a.org/x/y.png"),
        ("*/ads/*", "https://a.org/ads/x?y"),
        ("https://?.org/", "https://a.org/"),
        ("*a.org*b", "https://a.org/a.org/b"),
        ("*ab", "aab"),
        ("**a**", "a"),
        ("https://a.org/[x]+\\d.(y)", "https://a.org/[x]+\\d.(y)"),
        ("*\nx", "a\n\nx"),
    ],
)
def test_glob_matches(glob: str, url: str) -> None:
    assert matches((glob,), url)


@pytest.mark.parametrize(
    ("glob", "url"),
    [
        ("a.org", "https://a.org/"),
        ("https://a.org/", "https://a.org/x"),
        ("https://a.org/", "http://https://a.org/"),
        ("https://A.org/*", "https://a.org/"),
        ("https://?.org/", "https://.org/"),
        ("https://?.org/", "https://ab.org/"),
        ("*.png", "https://a.org/x.png?y"),
        ("https://a.org/.", "https://a.org/x"),
        ("ab*ba", "aba"),
        ("a", "a\n"),
    ],
)
def test_glob_does_not_match(glob: str, url: str) -> None:
    assert not matches((glob,), url)


@given(st.text("ab?*.", max_size=12), st.text("ab.", max_size=12))
def test_glob_matches_as_the_plain_definition_says(glob: str, url: str) -> None:
    def plain(glob: str, url: str) -> bool:
        if glob.startswith("*"):
            return plain(glob[1:], url) or (bool(url) and plain(glob, url[1:]))
        if not glob or not url:
            return glob == url
        return glob[0] in ("?", url[0]) and plain(glob[1:], url[1:])

    assert matches((glob,), url) == plain(glob, url)


@pytest.mark.parametrize(
    "glob", ["a*a*a*a*a*a*a*a*b", "*a" * 2000 + "b", "*" + "a?" * 2000 + "b*", "*" + "?" * 4000 + "b"]
)
def test_glob_takes_no_time_on_a_hostile_url(glob: str) -> None:
    assert not matches((glob,), "a" * 2**21)


def test_glob_looks_at_both_ends_of_a_long_url() -> None:
    assert matches(("https://a.org/*.png",), "https://a.org/" + "x" * 2**20 + ".png")


# Rules


def test_rules_hold_up_nothing_by_default() -> None:
    assert (Rules().patterns(), Rules().commands()) == ([], [])


def test_rules_hold_up_a_kind_everywhere() -> None:
    assert Rules(("image",)).patterns() == [{"urlPattern": "*", "resourceType": "Image", "requestStage": "Request"}]


def test_rules_hold_up_a_type_once() -> None:
    assert [one["resourceType"] for one in Rules(("xhr", "fetch", "eventsource")).patterns()].count("XHR") == 1


def test_rules_leave_globs_to_us() -> None:
    assert Rules(("image",), ("*a*",)).patterns() == [{"urlPattern": "*", "requestStage": "Request"}]


def test_rules_take_a_backslash_for_itself() -> None:
    assert Rules(urls=("*\\?",)).blocks("Script", "https://a.org/\\x")


@pytest.mark.parametrize(
    ("kind", "resource_type", "headers"),
    [
        ("image", "Image", {}),
        ("xhr", "XHR", {"Accept": "*/*"}),
        ("fetch", "XHR", {"Accept": "*/*"}),
        ("eventsource", "XHR", {"Accept": "text/event-stream"}),
        ("media", "Media", {"Range": "bytes=0-"}),
        ("texttrack", "Media", {"Accept": "*/*"}),
        ("frame", "Document", {}),
        ("ping", "CSPViolationReport", {}),
    ],
)
def test_rules_block_a_kind(kind: ResourceType, resource_type: str, headers: dict[str, str]) -> None:
    assert Rules((kind,)).blocks(resource_type, "https://a.org/", headers)


@pytest.mark.parametrize(
    ("kind", "resource_type", "headers"),
    [
        ("image", "Script", {}),
        ("xhr", "XHR", {"accept": "text/event-stream"}),
        ("eventsource", "XHR", {"Accept": "*/*"}),
        ("media", "Media", {}),
        ("texttrack", "Media", {"range": "bytes=0-"}),
        ("websocket", "XHR", {}),
    ],
)
def test_rules_do_not_block_another_kind(kind: ResourceType, resource_type: str, headers: dict[str, str]) -> None:
    assert not Rules((kind,)).blocks(resource_type, "https://a.org/", headers)


def test_rules_block_a_url_of_any_kind() -> None:
    assert Rules(urls=("https://b.org/*", "*/x")).blocks("Script", "https://a.org/x")


@pytest.mark.parametrize("globs", [("https://a.org/*",), ("http*",)])
def test_rules_leave_websockets_alone_when_no_glob_can_mean_one(globs: tuple[str, ...]) -> None:
    assert Rules(urls=globs).commands() == []


# What a page gets

PAGE = """<!doctype html><link rel="icon" href="data:,"><link rel="stylesheet" href="/of/stylesheet">
<style>@font-face { font-family: late; src: url(/of/font) } p { font-family: late }</style><p>text</p>
<img src="/of/image"><script src="/of/script"></script><iframe src="/of/frame"></iframe>
<video src="/of/media" muted autoplay><track default src="/of/texttrack"></video>
<script>
document.querySelector("video").textTracks[0].mode = "showing";
fetch("/of/fetch").catch(() => 0);
const xhr = new XMLHttpRequest(); xhr.open("GET", "/of/xhr"); xhr.send();
const source = new EventSource("/of/eventsource"); source.onerror = () => source.close();
navigator.sendBeacon("/of/ping");
new Worker("/of/other");
const socket = new WebSocket("ws://" + location.host + "/of/websocket");
</script>"""
# Nothing headless asks for a manifest.
ASKED = tuple(kind for kind in get_args(ResourceType) if kind != "manifest")
SOCKET = """new Promise(resolve => {
  const socket = new WebSocket(%r);
  socket.onopen = () => resolve("open");
  socket.onclose = event => resolve("closed " + event.code);
})"""
FETCH_IN_WORKER = """new Promise(resolve => {
  const code = `fetch(%r).then(() => postMessage("came"), () => postMessage("failed"))`;
  new Worker(URL.createObjectURL(new Blob([code], {type: "text/javascript"}))).onmessage = event => resolve(event.data);
})"""
IMAGE = """new Promise(resolve => {
  const image = new Image();
  image.onload = () => resolve("came");
  image.onerror = () => resolve("failed");
  image.src = %r;
})"""


async def accept(exchange: Exchange) -> Answer | None:
    """Open a websocket and leave it at that."""
    key = exchange.request.header("sec-websocket-key")
    if key is None:
        return Answer(b"no websocket", status=400)
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    await exchange.send_raw(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
    await exchange.hold()
    return None


@pytest.fixture
def all_kinds(site: Site) -> str:
    """The URL of a page that asks for everything."""
    for kind in ASKED:
        content_type = {"script": "text/javascript", "other": "text/javascript", "stylesheet": "text/css"}
        site.add(f"/of/{kind}", "", content_type.get(kind, "text/plain"))
    site.add_route("/of/websocket", accept)
    return site.add("/all", PAGE)


async def opened(page: cdp.Page, url: str, **fields: Any) -> None:
    await page.prepare(PageOptions(url=url, **fields))
    await page.navigate(url)


def asked(site: Site) -> set[str]:
    return {request.path.removeprefix("/of/") for request in site.requests if request.path.startswith("/of/")}


async def test_page_asks_for_every_kind(page: cdp.Page, site: Site, all_kinds: str) -> None:
    await opened(page, all_kinds)
    for kind in ASKED:
        await site.seen(f"/of/{kind}")


# Those that the browser does not tell apart by itself, and one that it does.
@pytest.mark.parametrize("kind", ["image", "xhr", "eventsource", "media", "texttrack", "websocket", "other"])
async def test_block_resources_keeps_a_kind_back(
    page: cdp.Page, site: Site, all_kinds: str, kind: ResourceType
) -> None:
    blocked = {"xhr", "fetch"} if kind == "xhr" else {kind}
    await opened(page, all_kinds, block_resources=(kind,))
    for other in ASKED:
        if other not in blocked:
            await site.seen(f"/of/{other}")
    assert not asked(site) & blocked


async def test_block_resources_keeps_all_kinds_back(page: cdp.Page, site: Site, all_kinds: str) -> None:
    await opened(page, all_kinds, block_resources=ASKED)
    assert asked(site) == set()


async def test_block_resources_shows_the_page_itself(page: cdp.Page, site: Site) -> None:
    await opened(page, site.url("/redirect/2"), block_resources=("frame",), block_urls=("*",))
    assert page.status_code == 200


async def test_block_urls_keeps_a_url_back(page: cdp.Page, site: Site) -> None:
    await opened(page, site.url("/ok"), block_urls=("*/image.png?which=*", "https://elsewhere.test/*"))
    assert await page.evaluate(IMAGE % site.url("/image.png?which=1")) == "failed"


async def test_block_urls_lets_others_pass(page: cdp.Page, site: Site) -> None:
    await opened(page, site.url("/ok"), block_urls=("*/image.png",))
    assert await page.evaluate(IMAGE % site.url("/image.png?which=1")) == "came"


async def test_block_urls_holds_for_a_dedicated_worker(page: cdp.Page, site: Site) -> None:
    await opened(page, site.url("/ok"), block_urls=("*/echo",))
    assert await page.evaluate(FETCH_IN_WORKER % site.url("/echo")) == "failed"


async def test_block_urls_holds_for_the_own_headers_page_too(page: cdp.Page, site: Site) -> None:
    await opened(page, site.url("/ok"), block_urls=("*/image.png",), headers={"X-Mine": "1"})
    assert await page.evaluate(IMAGE % site.url("/image.png")) == "failed"


# Websockets


def socket_url(site: Site, path: str = "/socket") -> str:
    return site.add_route(path, accept).replace("http", "ws", 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"block_resources": ("websocket",)},
        {"block_urls": ("ws://127.0.0.1:*/sock?t",)},
        {"block_urls": ("https://elsewhere.test/*", "*/socke?")},
    ],
)
async def test_websocket_blocked_fails_without_a_connection(page: cdp.Page, site: Site, fields: dict[str, Any]) -> None:
    url = socket_url(site)
    await opened(page, site.url("/ok"), **fields)
    answer = await page.evaluate(SOCKET % url)
    assert (answer, [request for request in site.requests if request.path == "/socket"]) == ("closed 1006", [])


@pytest.mark.parametrize("fields", [{}, {"block_urls": ("ws://*/other", "*.png")}])
async def test_websocket_not_blocked_opens(page: cdp.Page, site: Site, fields: dict[str, Any]) -> None:
    url = socket_url(site)
    await opened(page, site.url("/ok"), **fields)
    assert await page.evaluate(SOCKET % url) == "open"


async def test_websocket_blocked_leaves_no_failure(page: cdp.Page, site: Site) -> None:
    url = socket_url(site)
    await opened(page, site.url("/ok"), block_resources=("websocket",))
    await page.evaluate(SOCKET % url)
    assert page.ledger.failures == {}


async def test_websocket_of_a_frame_is_blocked(page: cdp.Page, site: Site) -> None:
    url = socket_url(site)
    await opened(page, site.add("/framed", "<iframe srcdoc='<p>text'></iframe>"), block_resources=("websocket",))
    inner = (SOCKET % url).replace("new WebSocket", "new frames[0].WebSocket")
    assert await page.evaluate(inner) == "closed 1006"


async def test_websocket_class_looks_native(page: cdp.Page, site: Site) -> None:
    await opened(page, site.url("/ok"), block_resources=("websocket",))
    looks = (
        "[WebSocket.name, WebSocket.OPEN, /native code/.test(WebSocket), WebSocket.prototype.constructor === WebSocket]"
    )
    assert await page.evaluate(looks) == ["WebSocket", 1, True, True]


# Advertisers

IS_AD_HOST = ad_filter("www.example.org")


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files("cdp").joinpath("adhosts.json").read_text())
    return found


@pytest.mark.parametrize(
    "host",
    [
        *("securepubads.g.doubleclick.net", "www.google-analytics.com", "pagead2.googlesyndication.com"),
        *("www.googletagmanager.com", "static.criteo.net", "cdn.taboola.com", "hotjar.com", "Script.Hotjar.COM."),
        *("px.ads.linkedin.com", "bat.bing.com", "analytics.tiktok.com", "mc.yandex.ru", "c.amazon-adsystem.com"),
    ],
)
def test_ad_host_is_known(host: str) -> None:
    assert IS_AD_HOST(host)


@pytest.mark.parametrize(
    "host",
    [
        *("example.org", "www.google.com", "www.bing.com", "www.linkedin.com", "www.microsoft.com", "www.apple.com"),
        *("fonts.gstatic.com", "ajax.googleapis.com", "cdn.jsdelivr.net", "cdnjs.cloudflare.com", "i.ytimg.com"),
        *("www.amazon.com", "github.com", "en.wikipedia.org", "cdn.jwplayer.com", "s.yimg.com", "js.stripe.com"),
        *("doubleclick.net.example.org", "notdoubleclick.net", "net", "", "127.0.0.1", "::1", "a." * 100),
    ],
)
def test_ad_host_is_none_of_what_people_come_to_see(host: str) -> None:
    assert not IS_AD_HOST(host)


def test_ad_filter_lets_a_listed_site_have_its_own() -> None:
    refuse = ad_filter("www.hotjar.com")
    assert [refuse("www.hotjar.com"), refuse("script.hotjar.com"), refuse("doubleclick.net")] == [False, False, True]


def test_ad_list_is_of_plain_hosts(table: dict[str, Any]) -> None:
    assert not [host for host in table["hosts"] if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host)]


def test_ad_list_is_sorted_without_doubles(table: dict[str, Any]) -> None:
    assert table["hosts"] == sorted(set(table["hosts"]))


def test_ad_list_has_nothing_below_an_entry(table: dict[str, Any]) -> None:
    assert not [host for host in table["hosts"] if IS_AD_HOST(host.partition(".")[2])]


def test_ad_list_keeps_its_exceptions(table: dict[str, Any]) -> None:
    assert not [host for host in table["left_out"] if IS_AD_HOST(host)]


def test_ad_list_names_its_source_and_licence(table: dict[str, Any]) -> None:
    assert ("third-party-web" in table["source"], "Permission is hereby granted" in table["licence"]) == (True, True)


@pytest.fixture
def localhost_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "_ad_hosts", lambda: frozenset({"localhost"}))


@pytest.mark.usefixtures("localhost_is_listed")
async def test_block_ads_refuses_a_listed_host(page: cdp.Page, site: Site) -> None:
    await opened(page, site.url("/ok"), block_ads=True)
    assert await page.evaluate(IMAGE % site.url("/image.png", "localhost")) == "failed"
    # It is no blocked target.
    assert (page.ledger.ads_blocked > 0, page.ledger.blocked, page.ledger.failures) == (True, [], {})


@pytest.mark.usefixtures("localhost_is_listed")
async def test_block_ads_holds_for_websockets(page: cdp.Page, site: Site) -> None:
    url = socket_url(site).replace("127.0.0.1", "localhost")
    await opened(page, site.url("/ok"), block_ads=True)
    assert await page.evaluate(SOCKET % url) == "closed 1006"


@pytest.mark.usefixtures("localhost_is_listed")
async def test_block_ads_lets_a_listed_site_have_its_own(page: cdp.Page, site: Site) -> None:
    await opened(page, site.url("/ok", "localhost"), block_ads=True)
    assert await page.evaluate(IMAGE % site.url("/image.png", "localhost")) == "came"


@pytest.mark.usefixtures("localhost_is_listed")
async def test_block_ads_is_off_by_default(page: cdp.Page, site: Site) -> None:
    await opened(page, site.url("/ok"))
    assert await page.evaluate(IMAGE % site.url("/image.png", "localhost")) == "came"
