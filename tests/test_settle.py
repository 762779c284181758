"""cdp/settle.py and cdp/traffic.py: what is waited for after the load event, and for how long."""

from __future__ import annotations

import re

import pytest
import trio

import cdp
from cdp import page as page_module
from cdp import settle
from cdp.options import PageOptions
from cdp.traffic import MAX_TRACKED, STREAM_SILENCE_S, Traffic

from .site import OK_TEXT, Answer, Exchange, Site

QUICK_S = 10
SENT = "Network.requestWillBeSent"


def sent(request_id: str, kind: str = "Image", url: str = "http://a/", loader_id: str = "L") -> str:
    """The text of a request event, as Chromium orders it."""
    return (
        f'{{"method":"{SENT}","params":{{"requestId":"{request_id}","loaderId":"{loader_id}","documentURL":"http://d/",'
        f'"request":{{"url":"{url}","method":"GET","headers":{{}}}},"timestamp":1,"type":"{kind}"}}}}'
    )


def about(request_id: str, more: str = "") -> str:
    """The text of any later event of a request."""
    return f'{{"method":"Network.x","params":{{"requestId":"{request_id}","timestamp":2{more}}}}}'


# ---- Traffic ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["Network.loadingFinished", "Network.loadingFailed"])
def test_request_is_in_flight_until_its_end(end: str) -> None:
    traffic = Traffic()
    traffic.note(SENT, sent("1"), 0)
    assert traffic.in_flight(100) == ["1"]
    traffic.note(end, about("1"), 100)
    assert traffic.in_flight(100) == []
    assert traffic.quiet_s(103) == 3


@pytest.mark.parametrize("kind", ["EventSource", "Ping", "Preflight", "CSPViolationReport"])
def test_request_that_may_last_does_not_count(kind: str) -> None:
    traffic = Traffic()
    traffic.note(SENT, sent("1", kind), 0)
    assert traffic.in_flight(0) == []


def test_fetch_with_its_headers_counts_while_bytes_come() -> None:
    traffic = Traffic()
    traffic.note(SENT, sent("1", "Fetch"), 0)
    assert traffic.in_flight(50) == ["1"]
    traffic.note("Network.responseReceived", about("1", ',"type":"Fetch"'), 50)
    traffic.note("Network.dataReceived", about("1"), 60)
    assert traffic.in_flight(60 + STREAM_SILENCE_S / 2) == ["1"]
    assert traffic.in_flight(60 + STREAM_SILENCE_S) == []


def test_image_with_its_headers_counts_until_its_end() -> None:
    traffic = Traffic()
    traffic.note(SENT, sent("1"), 0)
    traffic.note("Network.responseReceived", about("1", ',"type":"Image"'), 50)
    assert traffic.in_flight(1000) == ["1"]


def test_film_with_its_headers_does_not_count() -> None:
    traffic = Traffic()
    traffic.note(SENT, sent("1", "Media"), 0)
    assert traffic.in_flight(0) == ["1"]
    traffic.note("Network.responseReceived", about("1", ',"type":"Media"'), 1)
    assert traffic.in_flight(1) == []


def test_new_document_forgets_the_requests_of_the_one_before() -> None:
    traffic = Traffic()
    for request_id, loader_id in (("old", "L1"), ("frame", "F"), ("L2", "L2"), ("new", "L2")):
        traffic.note(SENT, sent(request_id, loader_id=loader_id), 0)
    traffic.forget_others("L2")
    assert traffic.in_flight(0) == ["L2", "new"]


def test_shown_names_some_urls() -> None:
    traffic = Traffic()
    for at in range(5):
        traffic.note(SENT, sent(str(at), url=f"http://a/{at}"), 0)
    assert traffic.shown(traffic.in_flight(0)) == "http://a/0, http://a/1, http://a/2 and 2 more"


def test_shown_cuts_a_long_url() -> None:
    traffic = Traffic()
    traffic.note(SENT, sent("1", url="http://a/" + "x" * 10_000), 0)
    assert len(traffic.shown(["1"])) == 200


def test_traffic_is_bounded() -> None:
    traffic = Traffic()
    for at in range(MAX_TRACKED + 10):
        traffic.note(SENT, sent(str(at)), 0)
    assert len(traffic.in_flight(0)) == MAX_TRACKED


@pytest.mark.parametrize("url", ["blob:http://a/1", "data:text/plain,x"])
def test_request_that_needs_no_network_does_not_count(url: str) -> None:
    traffic = Traffic()
    traffic.note(SENT, sent("1", url=url), 0)
    assert traffic.in_flight(0) == []


def test_words_of_a_page_do_not_pass_for_a_kind() -> None:
    traffic = Traffic()
    traffic.note(SENT, sent("1", url=r"http://a/?\"type\":\"EventSource\""), 0)
    assert traffic.in_flight(0) == ["1"]


# ---- What `auto` waits for -------------------------------------------------------------------------------------------


async def settled(page: cdp.Page, url: str, *, whole_page: bool = False) -> list[str]:
    """The steps that settling took, within its time."""
    steps: list[str] = []
    await page.navigate(url)
    with trio.fail_after(QUICK_S):
        await page.settle(steps.append, whole_page=whole_page)
    return steps


async def answer_after(site: Site, seconds: float, body: str = "late") -> str:
    """A URL that takes its time."""

    async def later(exchange: Exchange) -> Answer:
        await exchange.hold(seconds)
        return Answer(body.encode())

    return site.add_route("/later", later)


async def test_page_without_scripts_waits_for_no_quiet(page: cdp.Page, site: Site) -> None:
    assert await settled(page, site.url("/ok")) == ["requests", "fonts", "images", "frames"]


async def test_data_block_is_no_script(page: cdp.Page, site: Site) -> None:
    url = site.add("/data", '<script type="application/ld+json">{}</script>')
    assert "quiet" not in await settled(page, url)


LATER = "setTimeout(() => { document.title = 'two' }, 150)"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"%s><title>one</title>%s</svg>'
LATER_IN_SVG = LATER.replace("document.title", "document.querySelector(`title`).textContent")
SCRIPTED = {
    "script": f"<script>{LATER}</script>",
    "script that is gone": f"<script>{LATER}; document.currentScript.remove()</script>",
    "script of an old type": f'<script type="text/jscript">{LATER}</script>',
    "script of a picture": f"<svg><script>{LATER}</script></svg>",
    "script of a shadow": f"<div><template shadowrootmode=open><script>{LATER}</script></template></div>",
    "load of the body": f'<body onload="{LATER}">',
    "show of the page": f'<body onpageshow="{LATER}">',
    "load of a picture": f'<img src="/image.png" onload="{LATER}">',
    "fault of a picture": f'<img src="/status/404" onerror="{LATER}">',
    "load of a style sheet": f'<link rel="stylesheet" href="/late.css" onload="{LATER}">',
    "animation": f'<style>@keyframes k {{}} p {{animation: k .1s}}</style><p onanimationend="{LATER}">x',
    "frame": f'<iframe srcdoc="<script>{LATER.replace("document", "parent.document")}</script>"></iframe>',
}
STILL = {
    "data block": '<script type="application/ld+json">{}</script>',
    "link": '<a href="javascript:foo()">x</a>',
    "style": "<style>p {color: red}</style><p>x",
    "field": "<input><input type=date><select><option>1</select><video controls></video>",
    "template": f"<template><script>{LATER}</script></template>",
    "words": f"<noscript><script>{LATER}</script></noscript><!-- <script>{LATER}</script> -->",
}


@pytest.mark.parametrize("kind", SCRIPTED)
async def test_document_that_may_change_is_watched(page: cdp.Page, site: Site, kind: str) -> None:
    site.add("/late.css", "", "text/css")
    url = site.add("/scripted", f"<!DOCTYPE html><title>one</title>{SCRIPTED[kind]}")
    assert "quiet" in await settled(page, url)
    await page.sleep(0.3)
    assert (await page.info()).title == "two"


@pytest.mark.parametrize(
    "document", [SVG % ("", f"<script>{LATER_IN_SVG}</script>"), SVG % (f' onload="{LATER_IN_SVG}"', "")]
)
async def test_picture_that_may_change_is_watched(page: cdp.Page, site: Site, document: str) -> None:
    assert "quiet" in await settled(page, site.add("/scripted.svg", document, "image/svg+xml"))
    await page.sleep(0.3)
    assert (await page.info()).title == "two"


@pytest.mark.parametrize("kind", STILL)
async def test_document_that_cannot_change_is_not_watched(page: cdp.Page, site: Site, kind: str) -> None:
    assert "quiet" not in await settled(page, site.add("/still", f"<!DOCTYPE html>{STILL[kind]}"))


async def test_scripts_that_are_off_are_not_watched(page: cdp.Page, site: Site) -> None:
    await page.prepare(PageOptions(javascript=False))
    assert "quiet" not in await settled(page, site.add("/off", f"<title>one</title>{SCRIPTED['script']}"))


async def test_document_that_takes_the_place_of_a_still_one_is_looked_at_anew(page: cdp.Page, site: Site) -> None:
    documents = [
        '<meta http-equiv="refresh" content="1"><title>one</title>',
        f"<title>new</title><script>{LATER}</script>",
    ]

    async def next_one(exchange: Exchange) -> Answer:
        return Answer(documents[len([one for one in site.requests if one.path == "/next"]) > 1].encode())

    await page.navigate(site.add_route("/next", next_one))
    assert (await page.info()).title == "one"
    await page.sleep(1.6)
    assert (await page.info()).title == "two"
    assert not page.at_rest


async def test_page_whose_refresh_fails_is_kept(page: cdp.Page, site: Site) -> None:
    url = site.add("/leaves", '<meta http-equiv="refresh" content="1; url=http://10.0.0.1/"><p>stays')
    await page.navigate(url)
    await page.sleep(1.5)
    assert page.warnings[0].startswith("the page moved on to http://10.0.0.1/, which failed")
    assert [one.path for one in site.requests].count("/leaves") == 1


async def test_request_in_flight_at_load_is_waited_for(page: cdp.Page, site: Site) -> None:
    later = await answer_after(site, 0.8)
    url = site.add("/app", f"<p id=a></p><script>fetch('{later}').then(r => r.text()).then(t => a.append(t))</script>")
    await settled(page, url)
    assert await page.call("() => document.getElementById('a').textContent") == "late"


async def test_document_that_changes_is_waited_for(page: cdp.Page, site: Site) -> None:
    script = "let n = 0; const t = setInterval(() => { a.append('.'); if (++n == 8) clearInterval(t) }, 25)"
    await settled(page, site.add("/steps", f"<p id=a></p><script>{script}</script>"))
    assert await page.call("() => document.getElementById('a').textContent") == "........"
    assert page.warnings == []


async def test_document_that_says_that_it_is_busy_is_waited_for(page: cdp.Page, site: Site) -> None:
    script = "setTimeout(() => a.removeAttribute('aria-busy'), 250)"
    url = site.add("/busy", f'<p id="a" aria-busy="true">loading</p><script>{script}</script>')
    await settled(page, url)
    assert not await page.call("() => document.getElementById('a').hasAttribute('aria-busy')")


async def test_busy_element_that_nobody_sees_is_not_waited_for(page: cdp.Page, site: Site) -> None:
    await settled(page, site.add("/busy", '<p aria-busy="true" style="opacity:0">loading</p><script>0</script>'))
    assert page.warnings == []


@pytest.mark.parametrize("name", ["changedAt", "endless", "noCaret", "cleariflow"])
async def test_frame_with_a_name_of_ours_is_in_nobody_s_way(page: cdp.Page, site: Site, name: str) -> None:
    await settled(page, site.add("/named", f'<iframe name="{name}"></iframe><input autofocus><script>1</script>'))
    await page.screenshot()
    assert page.warnings == []


async def test_request_that_was_given_up_is_not_waited_for_again(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "REQUESTS_BUDGET_S", 0.2)
    await settled(page, site.add("/poll", "<script>fetch('/never')</script>"))
    page.warnings.clear()
    await page.settle()
    assert page.warnings == []


async def test_document_that_never_rests_is_given_up(page: cdp.Page, site: Site) -> None:
    url = site.add("/clock", "<p id=a></p><script>setInterval(() => a.textContent = Math.random(), 10)</script>")
    await settled(page, url)
    assert page.warnings == ["given up after 0.5 s: the document keeps changing"]


CHART = """<canvas id="c" width="200" height="100"></canvas><script>
const began = performance.now(), brush = c.getContext('2d');
const draw = () => {
  const part = Math.min(1, (performance.now() - began) / 700);
  brush.fillRect(0, 0, 200 * part, 100);
  if (part < 1) requestAnimationFrame(draw);
};
draw();
</script>"""


async def test_canvas_is_waited_for_while_it_is_drawn(page: cdp.Page, site: Site) -> None:
    assert "canvas" in await settled(page, site.add("/chart", CHART))
    alpha = "() => document.getElementById('c').getContext('2d').getImageData(198, 50, 1, 1).data[3]"
    assert await page.call(alpha) == 255


async def test_canvas_that_never_rests_is_no_fault(page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "CANVAS_BUDGET_S", 0.3)
    await settled(page, site.add("/chart", CHART.replace("if (part < 1)", "brush.clearRect(0, 0, 200, 100);")))
    assert page.warnings == []


async def test_poll_is_given_up_once(page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "REQUESTS_BUDGET_S", 0.2)
    await settled(page, site.add("/poll", "<script>fetch('/never')</script>"))
    assert page.warnings == [f"given up after 0.2 s: requests in flight: {site.url('/never')}"]


@pytest.mark.parametrize(
    "script",
    ["new EventSource('/drip')", "new WebSocket(`ws://${location.host}/never`)", "navigator.sendBeacon('/never')"],
)
async def test_stream_without_end_is_not_waited_for(page: cdp.Page, site: Site, script: str) -> None:
    await settled(page, site.add("/stream", f"<script>{script}</script>"))
    assert page.warnings == []


async def test_fetch_whose_body_is_never_read_is_not_waited_for(page: cdp.Page, site: Site) -> None:
    url = site.add("/unread", "<script>fetch('/drip')</script>")
    await settled(page, url)
    assert page.warnings == []


@pytest.mark.parametrize("path", ["/js-redirect", "/meta-refresh", "/meta-refresh?seconds=1"])
async def test_redirect_by_the_page_is_followed(page: cdp.Page, site: Site, path: str) -> None:
    await settled(page, site.url(path))
    assert OK_TEXT in await page.html()


async def test_redirect_after_load_is_followed_to_its_end(page: cdp.Page, site: Site) -> None:
    later = await answer_after(site, 0.5, "<p>the end</p>")
    url = site.add("/after", f"<script>onload = () => setTimeout(() => {{ location = '{later}' }}, 20)</script>")
    await settled(page, url)
    assert "the end" in await page.html()


async def test_refresh_of_the_same_page_is_not_waited_for(page: cdp.Page, site: Site) -> None:
    url = site.add("/again", '<meta http-equiv="refresh" content="1">')
    await settled(page, url)
    assert [request.path for request in site.requests if request.path == "/again"] == ["/again"]


async def test_refresh_far_away_is_not_waited_for(page: cdp.Page, site: Site) -> None:
    await settled(page, site.url("/meta-refresh?seconds=60"))
    assert OK_TEXT not in await page.html()


async def test_page_that_moves_without_end_is_given_up(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "MAX_MOVES", 3)
    url = site.add("/on", "<script>onload = () => setTimeout(() => { location = '?' + Math.random() }, 30)</script>")
    await settled(page, url)
    assert page.warnings == ["the page moved on more than 3 times"]


async def test_move_to_no_document_ends_the_wait(page: cdp.Page, site: Site) -> None:
    url = site.add("/to-204", "<p>stays<script>onload = () => { location = '/204' }</script>")
    await settled(page, url)
    assert "stays" in await page.html()


async def test_whole_page_loads_lazy_images_below(page: cdp.Page, site: Site) -> None:
    url = site.add("/lazy", '<div style="height:9000px"></div><img loading="lazy" src="/image.png?delay_ms=200">')
    await settled(page, url, whole_page=True)
    assert await page.call("() => document.images[0].naturalWidth") > 0


async def test_service_worker_and_its_stream_hold_nothing(page: cdp.Page, site: Site) -> None:
    site.add("/sw.js", "addEventListener('fetch', e => e.respondWith(new Promise(() => {})))", "text/javascript")
    url = site.add("/with-sw", "<p>here<script>navigator.serviceWorker.register('/sw.js')</script>")
    await settled(page, url)
    assert page.warnings == []


# ---- networkidle -----------------------------------------------------------------------------------------------------


async def test_networkidle_waits_for_a_chain(page: cdp.Page, site: Site) -> None:
    later = await answer_after(site, 0.4)
    url = site.add(
        "/chain",
        f"<p id=a></p><script>fetch('{later}').then(() => fetch('{later}')).then(() => a.append('x'))</script>",
    )
    await page.navigate(url, wait_until="networkidle")
    assert await page.call("() => document.getElementById('a').textContent") == "x"


async def test_networkidle_is_reached_though_a_body_is_never_read(page: cdp.Page, site: Site) -> None:
    url = site.add("/unread", "<script>fetch('/drip')</script>")
    with trio.fail_after(QUICK_S):
        await page.navigate(url, wait_until="networkidle")


async def test_networkidle_waits_for_a_poll(page: cdp.Page, site: Site) -> None:
    url = site.add("/poll", "<script>fetch('/never')</script>")
    with trio.move_on_after(1.5) as scope:
        await page.navigate(url, wait_until="networkidle")
    assert scope.cancelled_caught


# ---- Scrolling through -----------------------------------------------------------------------------------------------

SPY = """<div style="height:6000px"></div><img id="lazy" width="200" height="100"><script>
new IntersectionObserver(([entry]) => { if (entry.isIntersecting) lazy.src = '/image.png' }).observe(lazy);
</script>"""
GROWING = """<div id="all"></div><script>
let left = 4;
const grow = () => { const box = document.createElement('div'); box.style.height = '1500px'; all.append(box); };
grow();
addEventListener('scroll', () => {
  if (left && scrollY + innerHeight > document.body.scrollHeight - 100) { left--; grow(); }
});
</script>"""


async def test_scroll_through_loads_what_an_observer_loads(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/spy", SPY))
    await page.scroll_through()
    assert await page.call("() => [document.images[0].naturalWidth > 0, scrollY]") == [True, 0]


async def test_scroll_through_goes_on_while_the_page_grows(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/growing", GROWING))
    await page.scroll_through()
    assert await page.call("() => document.body.scrollHeight") > 7000


async def test_scroll_through_ends_at_the_height_asked_for(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/spy", SPY))
    await page.scroll_through(3000)
    assert await page.call("() => document.images[0].naturalWidth") == 0


async def test_scroll_through_gives_up_a_page_without_end(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "SCROLL_BUDGET_S", 0.6)
    await page.navigate(site.add("/endless", GROWING.replace("left--", "left++")))
    await page.scroll_through()
    assert page.warnings == ["given up after 0.6 s: the page is not scrolled through"]
    assert await page.call("() => scrollY") == 0


# ---- Pages that leave ------------------------------------------------------------------------------------------------


async def test_page_on_its_way_to_nowhere_is_given_up_and_kept(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "MOVE_BUDGET_S", 0.3)
    await settled(page, site.add("/leaves", "<p>stays<script>onload = () => { location = '/never' }</script>"))
    assert page.warnings == ["given up after 0.3 s: the page is on its way to another document"]
    assert "stays" in await page.html()
    await page.screenshot()


@pytest.mark.parametrize(
    "moment",
    [
        "onload = () => {%s}",
        # The browser's error page is there before the load event is over.
        "onload = () => {%s; const start = Date.now(); while (Date.now() < start + 300);}",
        "onload = () => setTimeout(() => {%s}, 30)",
    ],
    ids=["at-load", "while-load-lasts", "after-load"],
)
async def test_page_that_leaves_for_a_blocked_address_is_kept(page: cdp.Page, site: Site, moment: str) -> None:
    script = moment % "location = 'http://10.0.0.1/'"
    await settled(page, site.add("/leaves", f"<p>stays<script>{script}</script>"))
    (warning,) = page.warnings
    assert warning.startswith("the page moved on to http://10.0.0.1/, which failed: 10.0.0.1 is not a public address")
    assert "stays" in await page.html()


async def test_content_that_leaves_for_a_blocked_address_is_kept(page: cdp.Page) -> None:
    await page.set_content("<p>stays<script>onload = () => { location = 'http://10.0.0.1/' }</script>", None)
    await page.settle()
    assert "stays" in await page.html()


# ---- Dead resources --------------------------------------------------------------------------------------------------

DEAD = {
    "picture": '<img src="/never" width="10" height="10">',
    "style sheet": '<link rel="stylesheet" href="/never">',
    "script": '<script src="/never"></script>',
    "script of its own time": '<script async src="/never"></script>',
    "frame": '<iframe src="/never"></iframe>',
    "font": "<style>@font-face{font-family:f;src:url(/never)} p{font-family:f}</style>",
    "background": '<div style="width:9px;height:9px;background:url(/never)"></div>',
}


@pytest.mark.parametrize("kind", DEAD)
async def test_dead_resource_is_hung_up_on(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(page_module, "LOAD_SILENCE_S", 0.4)
    url = site.add("/dead", f"<!DOCTYPE html>{DEAD[kind]}<p>the rest")
    with trio.fail_after(QUICK_S):
        await page.navigate(url, wait_until="auto")
        await page.settle()
    (warning,) = (one for one in page.warnings if " of the page: " in one)
    assert re.fullmatch(rf"given up after 0\.4\d* s of the page: {site.url('/never')}", warning)
    assert "the rest" in await page.text()


async def test_all_of_many_dead_resources_are_hung_up_on(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "LOAD_SILENCE_S", 0.4)
    url = site.add("/dead", "".join(f'<script src="/never?{at}"></script>' for at in range(12)) + "<p>the rest")
    with trio.fail_after(QUICK_S):
        await page.navigate(url, wait_until="auto")
    assert "the rest" in await page.text()


async def test_page_that_is_slow_but_comes_is_not_given_up(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "LOAD_SILENCE_S", 0.5)

    async def drop_by_drop(exchange: Exchange) -> None:
        await exchange.send_raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/css\r\nContent-Length: 6\r\n\r\n")
        for byte in b"p{x:y}":
            await exchange.hold(0.25)
            await exchange.send_raw(bytes([byte]))

    site.add_route("/slow.css", drop_by_drop)
    await page.navigate(site.add("/slowly", '<link rel="stylesheet" href="/slow.css"><p>here'), wait_until="auto")
    assert page.warnings == []


async def test_resource_that_comes_drop_by_drop_is_hung_up_on(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "LOAD_DROPS_S", 0.8)

    async def drip(exchange: Exchange) -> None:
        await exchange.send_raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/css\r\n\r\n")
        while True:
            await exchange.hold(0.1)
            await exchange.send_raw(b" ")

    site.add_route("/drip.css", drip)
    with trio.fail_after(QUICK_S):
        await page.navigate(site.add("/drips", '<link rel="stylesheet" href="/drip.css"><p>here'), wait_until="auto")
    assert "here" in await page.text()
    assert page.warnings[0].endswith(f" of the page: {site.url('/drip.css')}")


async def test_document_without_an_end_is_stopped_in_time(page: cdp.Page, site: Site) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.send_raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
        while True:
            await exchange.send_raw(b"<p>and on")
            await exchange.hold(0.1)

    with trio.fail_after(2):
        await page.navigate(site.add_route("/endless", drip), wait_until="auto")
        assert "and on" in await page.text()
    assert page.warnings[0].endswith(f" of the page: {site.url('/endless')}")


async def test_dead_document_is_waited_for(page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "LOAD_SILENCE_S", 0.1)
    with trio.move_on_after(0.6) as scope:
        await page.navigate(site.url("/never"), wait_until="auto")
    assert scope.cancelled_caught
    assert page.warnings == []


@pytest.mark.parametrize("worker", ["new Worker('/worker.js')", "new Worker('/worker.js', {type: 'module'})"])
async def test_script_of_a_worker_is_not_waited_for(page: cdp.Page, site: Site, worker: str) -> None:
    site.add("/worker.js", "0", "text/javascript")
    with trio.fail_after(QUICK_S):
        await page.navigate(site.add("/works", f"<script>{worker}</script>"), wait_until="networkidle")
        await page.settle()
    assert page.warnings == []
