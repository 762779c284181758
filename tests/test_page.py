"""cdp/page.py: navigation and its troubles, preparing, waiting, reading. Pictures are in test_capture.py."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from PIL import Image

import cdp
from cdp import frame, settle
from cdp import page as module
from cdp.actions import perform
from cdp.errors import InvalidOption, NavigationError, NotAPage, SessionClosed, TargetCrashed, TooLarge
from cdp.options import CaptureOptions, Click, Cookie, PageOptions, Viewport, WaitFor, WaitUntil

from .site import (
    DOWNLOAD_BYTES,
    ENCODED_TEXTS,
    FONT_BARS,
    OK_TEXT,
    OK_TITLE,
    SLOW_IMAGE_SIZE,
    STORM_ALERTS,
    TAMPER_TEXT,
    Answer,
    Exchange,
    Site,
    open_site,
)

QUICK_S = 20
"""Far longer than anything here takes: only a hang gets there."""
SIZE = "id => { const box = document.querySelector(id).getBoundingClientRect(); return [box.width, box.height] }"
DRAWN = "selector => document.querySelector(selector).naturalWidth"


def pre(document: str, selector: str) -> Any:
    """The JSON in the element that /echo and /echo-cookies show."""
    found = re.search(rf'<pre id="{selector}">(.*?)</pre>', document, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found[1]))


async def assert_good(browser: cdp.Browser, site: Site) -> None:
    """The next page of the same browser is right."""
    async with browser.open_page() as page:
        await page.navigate(site.url("/ok"))
        assert OK_TEXT in await page.html()


# Navigation


async def test_navigate_shows_the_document(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    info = await page.info()
    assert (info.url, info.title) == (site.url("/ok"), OK_TITLE)


@pytest.mark.parametrize("status", [200, 206, 401, 404, 418, 503])
async def test_navigate_tells_the_status(page: cdp.Page, site: Site, status: int) -> None:
    await page.navigate(site.url(f"/status/{status}"))
    assert page.status_code == status


@pytest.mark.parametrize("status", [404, 500])
async def test_navigate_takes_an_error_without_a_body_for_a_page(page: cdp.Page, site: Site, status: int) -> None:
    await page.navigate(site.url(f"/status/{status}-empty"))
    assert (page.status_code, page.has_document) == (status, True)


async def test_navigate_follows_redirects(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/redirect/3"))
    assert ((await page.info()).url, page.status_code) == (site.url("/ok"), 200)


async def test_navigate_follows_a_redirect_to_an_error(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/redirect-to?url=/status/404"))
    assert page.status_code == 404


@pytest.mark.parametrize("path", ["/js-redirect", "/js-redirect?url=/status/404", "/meta-refresh"])
async def test_navigate_follows_a_page_that_moves_on_while_it_loads(page: cdp.Page, site: Site, path: str) -> None:
    target = "/status/404" if "404" in path else "/ok"
    await page.navigate(site.url(path))
    with trio.fail_after(QUICK_S):
        # A refresh of 0 s happens right after the load.
        await page.wait_for(WaitFor("#text"))
        while (await page.info()).url != site.url(target):  # noqa: ASYNC110
            await trio.sleep(0.01)
    await page._caught_up()
    assert page.status_code == (404 if "404" in target else 200)


async def test_navigate_again_shows_the_second_document(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/status/404"))
    await page.navigate(site.url("/ok"))
    assert (page.status_code, OK_TEXT in await page.html()) == (200, True)


async def test_navigate_takes_an_answer_without_content_type(page: cdp.Page, site: Site) -> None:
    async def bare(exchange: Exchange) -> Answer:
        return Answer(b"<!DOCTYPE html><p>bare</p>", None)

    await page.navigate(site.add_route("/bare", bare))
    assert "<p>bare</p>" in await page.html()


async def test_navigate_shows_plain_text(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/text", "plain & simple", "text/plain"))
    assert "plain &amp; simple" in await page.html()


async def test_has_document_is_false_before_anything_was_opened(page: cdp.Page) -> None:
    assert not page.has_document


async def test_has_document_is_true_after_a_navigation(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    assert page.has_document


async def test_has_document_is_false_after_a_refused_connection(page: cdp.Page) -> None:
    with pytest.raises(NavigationError):
        await page.navigate("http://127.0.0.1:1/")
    assert not page.has_document


async def test_has_document_is_true_once_a_document_began_that_never_loads(page: cdp.Page, site: Site) -> None:
    with trio.move_on_after(0.5):
        await page.navigate(site.url("/never-loads"))
    assert page.has_document


async def test_status_code_is_none_for_what_did_not_come_over_http(page: cdp.Page) -> None:
    await page.set_content("<p>own</p>", None)
    assert page.status_code is None


@pytest.mark.parametrize("wait_until", ["commit", "domcontentloaded"])
async def test_navigate_waits_no_longer_than_asked_for(page: cdp.Page, site: Site, wait_until: WaitUntil) -> None:
    with trio.fail_after(QUICK_S):
        await page.navigate(site.url("/never-loads"), wait_until=wait_until)


@pytest.mark.parametrize("wait_until", ["load", "auto", "networkidle"])
async def test_navigate_waits_for_the_load(page: cdp.Page, site: Site, wait_until: WaitUntil) -> None:
    with trio.fail_after(QUICK_S):
        await page.navigate(site.url("/images?delay_ms=200"), wait_until=wait_until)
    assert await page.call(DRAWN, "#image") == SLOW_IMAGE_SIZE[0]


async def test_navigate_until_domcontentloaded_has_the_whole_text(page: cdp.Page, site: Site) -> None:
    async def slowly(exchange: Exchange) -> None:
        await exchange.send_raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<p>first</p>")
        await exchange.hold(0.2)
        await exchange.send_raw(b"<p>last</p>")

    await page.navigate(site.add_route("/slowly", slowly), wait_until="domcontentloaded")
    assert "<p>last</p>" in await page.html()


async def test_navigate_until_networkidle_waits_for_what_scripts_fetch(page: cdp.Page, site: Site) -> None:
    site.add(
        "/late-fetch",
        "<script>onload = async () => { document.title = await (await fetch('/slow?seconds=0.2')).text() }</script>",
    )
    await page.navigate(site.url("/late-fetch"), wait_until="networkidle")
    assert "slow but sure" in (await page.info()).title


# Trouble


async def test_navigate_to_a_name_that_does_not_resolve(browser: cdp.Browser, page: cdp.Page, site: Site) -> None:
    with trio.fail_after(QUICK_S), pytest.raises(NavigationError) as caught:
        await page.navigate("http://nobody.invalid/")
    assert (caught.value.net_error, caught.value.blocked) == ("net::ERR_NAME_NOT_RESOLVED", None)
    await assert_good(browser, site)


async def test_navigate_to_a_port_where_nobody_listens(browser: cdp.Browser, page: cdp.Page, site: Site) -> None:
    with trio.fail_after(QUICK_S), pytest.raises(NavigationError) as caught:
        await page.navigate("http://127.0.0.1:1/".replace(":1/", ":9/"))
    assert caught.value.net_error in ("net::ERR_CONNECTION_REFUSED", "net::ERR_UNSAFE_PORT")
    async with open_site() as gone:
        url = gone.url("/ok")
    with trio.fail_after(QUICK_S), pytest.raises(NavigationError) as caught:
        await page.navigate(url)
    assert (caught.value.net_error, caught.value.blocked) == ("net::ERR_CONNECTION_REFUSED", None)
    await assert_good(browser, site)


async def test_navigate_to_a_certificate_of_nobody(browser: cdp.Browser, page: cdp.Page, site: Site) -> None:
    async with open_site(tls=True) as secure:
        with trio.fail_after(QUICK_S), pytest.raises(NavigationError) as caught:
            await page.navigate(secure.url("/ok"))
    assert (caught.value.net_error, caught.value.blocked) == ("net::ERR_CERT_AUTHORITY_INVALID", None)
    await assert_good(browser, site)


@pytest.mark.parametrize(
    ("path", "net_error"),
    [
        ("/redirect-loop", "net::ERR_TOO_MANY_REDIRECTS"),
        ("/reset", "net::ERR_CONNECTION_RESET"),
        ("/empty", "net::ERR_EMPTY_RESPONSE"),
        ("/bad-http", "net::ERR_INVALID_HTTP_RESPONSE"),
        ("/redirect-to?url=http://nobody.invalid/", "net::ERR_NAME_NOT_RESOLVED"),
        ("/redirect-to?url=http://127.0.0.1:6000/", "net::ERR_UNSAFE_PORT"),
        ("/redirect-to?url=file:///etc/passwd", "net::ERR_UNSAFE_REDIRECT"),
        ("/js-redirect?url=http://nobody.invalid/", "net::ERR_NAME_NOT_RESOLVED"),
        ("/js-redirect?url=/reset", "net::ERR_CONNECTION_RESET"),
    ],
)
async def test_navigate_tells_the_fault(
    browser: cdp.Browser, page: cdp.Page, site: Site, path: str, net_error: str
) -> None:
    with trio.fail_after(QUICK_S), pytest.raises(NavigationError) as caught:
        await page.navigate(site.url(path))
    assert (caught.value.net_error, caught.value.blocked) == (net_error, None)
    await assert_good(browser, site)


async def test_navigate_tells_that_a_script_moved_on_to_a_blocked_address(page: cdp.Page, site: Site) -> None:
    with trio.fail_after(QUICK_S), pytest.raises(NavigationError) as caught:
        await page.navigate(site.url("/js-redirect?url=http://10.0.0.1/"))
    assert caught.value.blocked is not None
    assert "10.0.0.1" in caught.value.blocked


@pytest.mark.parametrize("path", ["/204", "/205"])
async def test_navigate_to_an_answer_without_a_document(
    browser: cdp.Browser, page: cdp.Page, site: Site, path: str
) -> None:
    with trio.fail_after(QUICK_S), pytest.raises(NotAPage, match=f"answered {path[1:]}"):
        await page.navigate(site.url(path))
    await assert_good(browser, site)


async def test_navigate_to_a_download(browser: cdp.Browser, page: cdp.Page, site: Site) -> None:
    with trio.fail_after(QUICK_S), pytest.raises(NotAPage, match="a download") as caught:
        await page.navigate(site.url("/download"))
    assert (caught.value.content_type, caught.value.size_bytes) == ("application/zip", DOWNLOAD_BYTES)
    await assert_good(browser, site)


async def test_navigate_to_a_download_behind_a_redirect(page: cdp.Page, site: Site) -> None:
    with trio.fail_after(QUICK_S), pytest.raises(NotAPage) as caught:
        await page.navigate(site.url("/redirect-to?url=/download"))
    assert (caught.value.content_type, caught.value.size_bytes) == ("application/zip", DOWNLOAD_BYTES)


async def test_navigate_to_a_pdf(browser: cdp.Browser, page: cdp.Page, site: Site) -> None:
    # The headless shell has no viewer: it is a download.
    with trio.fail_after(QUICK_S), pytest.raises(NotAPage) as caught:
        await page.navigate(site.url("/file.pdf"))
    assert caught.value.content_type == "application/pdf"
    await assert_good(browser, site)


@pytest.mark.parametrize("path", ["/never", "/drip", "/never-loads", "/endless-script"])
async def test_navigate_without_an_end_can_be_cancelled(browser: cdp.Browser, site: Site, path: str) -> None:
    start = trio.current_time()
    with trio.move_on_after(0.3) as scope:
        async with browser.open_page() as page:
            await page.navigate(site.url(path))
    assert scope.cancelled_caught
    assert trio.current_time() - start < 2
    await assert_good(browser, site)


async def test_endless_script_after_the_load_can_be_cancelled(browser: cdp.Browser, site: Site) -> None:
    start = trio.current_time()
    with trio.move_on_after(0.5) as scope:
        async with browser.open_page() as page:
            await page.navigate(site.url("/endless-script?after_ms=1"))
            await site.seen("/endless-script")
            await page.wait_for(WaitFor("#nobody"))
    assert scope.cancelled_caught
    assert trio.current_time() - start < 2
    await assert_good(browser, site)


async def test_pages_go_on_beside_an_endless_script(browser: cdp.Browser, site: Site) -> None:
    async with browser.open_page() as busy:
        with trio.move_on_after(0.2):
            await busy.navigate(site.url("/endless-script"))
        with trio.fail_after(QUICK_S):
            await assert_good(browser, site)


@pytest.mark.parametrize("path", ["/never", "/endless-script"])
async def test_closed_page_closes_its_connections(browser: cdp.Browser, site: Site, path: str) -> None:
    with trio.move_on_after(0.2):
        async with browser.open_page() as page:
            await page.navigate(site.url(path))
    with trio.fail_after(QUICK_S):
        await site.connections_settled()


async def test_alert_is_answered(browser: cdp.Browser, page: cdp.Page, site: Site) -> None:
    with trio.fail_after(QUICK_S):
        await page.navigate(site.url("/alert"))
    assert "after the alert" in await page.html()
    await assert_good(browser, site)


async def test_alert_is_a_warning(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/alert"))
    assert page.warnings == ["alert dialog answered: stop here"]


async def test_confirm_and_prompt_are_dismissed(page: cdp.Page, site: Site) -> None:
    with trio.fail_after(QUICK_S):
        await page.navigate(site.url("/confirm-on-load"))
        assert (await page.info()).title == "false null"


async def test_storm_of_alerts_is_answered(browser: cdp.Browser, page: cdp.Page, site: Site) -> None:
    with trio.fail_after(QUICK_S):
        await page.navigate(site.url("/alert-storm"))
        assert "after the storm" in await page.html()
    await assert_good(browser, site)


async def test_storm_of_alerts_gives_few_warnings(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/alert-storm"))
    assert len(page.warnings) < STORM_ALERTS / 2


async def test_page_that_objects_to_being_left_is_left(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/unload-dialog"))
    with trio.fail_after(QUICK_S):
        await page.navigate(site.url("/ok"))
    assert OK_TEXT in await page.html()


async def test_page_that_objects_to_being_left_after_a_click_is_left(page: cdp.Page, site: Site) -> None:
    # Chromium asks only where there was a gesture.
    await page.navigate(site.url("/unload-dialog"))
    for kind in ("mousePressed", "mouseReleased"):
        await page.session.send("Input.dispatchMouseEvent", type=kind, x=9, y=9, button="left", clickCount=1)
    with trio.fail_after(QUICK_S):
        await page.navigate(site.url("/ok"))
    assert (OK_TEXT in await page.html(), page.warnings) == (True, ["beforeunload dialog answered: "])


@pytest.mark.parametrize("target", ["http://nobody.invalid/", "http://10.0.0.1/", "/reset", "/204"])
async def test_move_after_the_load_that_fails_keeps_the_document(page: cdp.Page, site: Site, target: str) -> None:
    site.add("/moves", f"<title>kept</title><p>kept</p><script>function move() {{ location = '{target}' }}</script>")
    await page.navigate(site.url("/moves"))
    await page.call("() => { document.body.append(document.createElement('i')) }")
    await page.session.send("Runtime.evaluate", expression="move()")
    with trio.fail_after(QUICK_S):
        if target == "/204":
            await site.seen("/204")
        while target != "/204" and not page.warnings:
            await page.until_event()
    assert "<i></i>" in await page.html()
    assert page.has_document


@pytest.mark.parametrize(
    ("target", "reason"),
    [("http://nobody.invalid/", "nobody.invalid has no address"), ("http://10.0.0.1/", "is not a public address")],
)
async def test_move_after_the_load_that_fails_is_a_warning(
    page: cdp.Page, site: Site, target: str, reason: str
) -> None:
    site.add("/moves", f"<script>onload = () => setTimeout(() => {{ location = '{target}' }}, 100)</script>")
    await page.navigate(site.url("/moves"))
    with trio.fail_after(QUICK_S):
        while not page.warnings:
            await page.until_event()
    (warning,) = page.warnings
    assert f"moved on to {target}" in warning
    assert reason in warning


async def test_move_after_the_load_that_succeeds_is_followed(page: cdp.Page, site: Site) -> None:
    site.add("/moves", "<script>onload = () => setTimeout(() => { location = '/status/404' }, 100)</script>")
    await page.navigate(site.url("/moves"))
    with trio.fail_after(QUICK_S):
        await page.wait_for(WaitFor("text=Status 404"))
    assert (page.status_code, page.warnings) == (404, [])


async def test_frame_that_fails_is_no_warning(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    await page.call(
        "() => new Promise(done => { const frame = document.createElement('iframe'); frame.onload = done;"
        "frame.src = 'http://nobody.invalid/'; document.body.append(frame) })"
    )
    assert (page.warnings, page.has_document) == ([], True)


async def test_frame_that_loads_first_does_not_end_the_wait(page: cdp.Page, site: Site) -> None:
    site.add("/frames", '<iframe src="/ok"></iframe><img id="image" src="/image.png?delay_ms=300">', status=404)
    await page.navigate(site.url("/frames"))
    assert (await page.call(DRAWN, "#image"), page.status_code) == (SLOW_IMAGE_SIZE[0], 404)


async def test_redirects_are_told_in_order(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/redirect/3"))
    assert page.redirects == [site.url(f"/redirect/{left}") for left in (3, 2, 1)]


async def test_redirects_of_a_direct_document_are_none(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    assert page.redirects == []


async def test_navigate_survives_a_length_of_thousands_of_digits(page: cdp.Page, site: Site) -> None:
    async def boast(exchange: Exchange) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nContent-Disposition: attachment\r\n"
        await exchange.send_raw(f"{head}Content-Length: {'9' * 5000}\r\n\r\nshort".encode())

    with trio.fail_after(QUICK_S), pytest.raises((NavigationError, NotAPage)):
        await page.navigate(site.add_route("/boast", boast))


async def test_sleep_ends_after_its_time(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    start = trio.current_time()
    await page.sleep(0.1)
    assert 0.1 <= trio.current_time() - start < QUICK_S


async def test_sleep_ends_with_its_page(browser: cdp.Browser) -> None:
    async def sleep() -> None:
        async with browser.open_page() as page:
            await page.session.post("Page.crash")
            await page.sleep(1000)

    with trio.fail_after(QUICK_S), pytest.raises(TargetCrashed):
        await sleep()


async def test_navigate_refused_by_the_browser_is_a_navigation_error(page: cdp.Page, site: Site) -> None:
    with pytest.raises(NavigationError) as caught:
        await page.navigate("http://127.0.0.1:6000/")
    assert caught.value.net_error == "net::ERR_UNSAFE_PORT"


# Giants


@pytest.mark.parametrize("path", ["/push-state-40mb", "/console-40mb"])
async def test_giant_event_costs_nothing_of_the_neighbours(browser: cdp.Browser, site: Site, path: str) -> None:
    longest_s = 0.0
    over = trio.Event()

    async def attempt() -> None:
        with trio.move_on_after(10):
            try:
                async with browser.open_page() as page:
                    await page.navigate(site.url(path))
                    await page.html()
            except (SessionClosed, TooLarge):
                # It may cost its own attempt.
                pass
        over.set()

    async with browser.open_page() as neighbour, trio.open_nursery() as nursery:
        await neighbour.navigate(site.url("/ok"))
        nursery.start_soon(attempt)
        await site.seen(path)
        while not over.is_set():
            start = trio.current_time()
            assert OK_TEXT in await neighbour.html()
            longest_s = max(longest_s, trio.current_time() - start)
            await trio.sleep(0.01)
    # Far more than it takes (0.3 s): they must not wait for the end of the other attempt.
    assert longest_s < 5
    await assert_good(browser, site)


@pytest.mark.parametrize("pixels", [1, 64_000_000])
def test_max_message_bytes_has_room_for_a_picture_and_a_document(pixels: int) -> None:
    picture_bytes = pixels * 4 * 4 / 3
    assert module.max_message_bytes(pixels) > max(picture_bytes, module.MAX_HTML_BYTES)


async def test_info_cuts_what_a_page_says_of_itself(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/long", f"<title>{'t' * 100_000}</title>") + "#" + "u" * 100_000)
    info = await page.info()
    assert (len(info.url), len(info.title)) == (module.MAX_REPORTED_CHARS, module.MAX_REPORTED_CHARS)


# Headers

HEADERS = {"X-Test": "from the client", "Accept": "text/x-own"}


async def test_headers_go_to_the_page(page: cdp.Page, site: Site) -> None:
    await page.prepare(PageOptions(url=site.url("/ok"), headers=HEADERS))
    await page.navigate(site.url("/ok"))
    request = await site.seen("/ok")
    assert (request.header("x-test"), request.header("accept")) == ("from the client", "text/x-own")


async def test_headers_go_to_sub_requests_of_the_same_origin(page: cdp.Page, site: Site) -> None:
    url = site.add("/parent", '<img src="/image.png"><script>fetch("/fetched")</script>')
    await page.prepare(PageOptions(url=url, headers=HEADERS))
    await page.navigate(url)
    seen = [(await site.seen(path)).header("x-test") for path in ("/image.png", "/fetched")]
    assert seen == ["from the client"] * 2


async def test_headers_follow_a_redirect_within_the_origin(page: cdp.Page, site: Site) -> None:
    url = site.url("/redirect/2")
    await page.prepare(PageOptions(url=url, headers=HEADERS))
    await page.navigate(url)
    assert [request.header("x-test") for request in site.requests] == ["from the client"] * 3


async def test_headers_do_not_follow_a_redirect_to_another_origin(page: cdp.Page, site: Site) -> None:
    async with open_site() as other:
        url = site.url(f"/redirect-to?url={other.url('/ok')}")
        await page.prepare(PageOptions(url=url, headers=HEADERS))
        await page.navigate(url)
        request = await other.seen("/ok")
    assert (request.header("x-test"), request.header("accept") == HEADERS["Accept"]) == (None, False)


async def test_headers_do_not_go_to_sub_requests_of_another_origin(page: cdp.Page, site: Site) -> None:
    async with open_site() as other:
        url = site.add("/parent", f'<img src="{other.url("/image.png")}"><iframe src="{other.url("/ok")}"></iframe>')
        await page.prepare(PageOptions(url=url, headers=HEADERS))
        await page.navigate(url)
        seen = [(await other.seen(path)).header("x-test") for path in ("/image.png", "/ok")]
    assert seen == [None, None]


async def test_headers_do_not_go_where_another_host_name_leads(page: cdp.Page, site: Site) -> None:
    url = site.add("/parent", f'<img src="{site.url("/image.png", host="localhost")}">')
    await page.prepare(PageOptions(url=url, headers=HEADERS))
    await page.navigate(url)
    assert (await site.seen("/image.png")).header("x-test") is None


async def test_headers_leave_the_others_of_a_request(page: cdp.Page, site: Site) -> None:
    url = site.add(
        "/post",
        "<form method=post action=/target><input name=a value=b></form><script>document.forms[0].submit()</script>",
    )
    await page.prepare(PageOptions(url=url, headers={"X-Test": "1"}))
    await page.navigate(url)
    request = await site.seen("/target")
    assert (request.method, request.body, request.header("x-test"), request.header("content-type")) == (
        "POST",
        b"a=b",
        "1",
        "application/x-www-form-urlencoded",
    )


async def test_headers_with_every_kind_of_character_arrive_as_they_are(page: cdp.Page, site: Site) -> None:
    value = "".join(map(chr, (*range(0x21, 0x7F), 0x20, 0x41)))
    await page.prepare(PageOptions(url=site.url("/ok"), headers={"X-Test": value}))
    await page.navigate(site.url("/ok"))
    assert (await site.seen("/ok")).header("x-test") == value


# Cookies


async def cookies_sent(page: cdp.Page, url: str, *cookies: Cookie) -> dict[str, str]:
    await page.prepare(PageOptions(url=url, cookies=cookies))
    await page.navigate(url)
    sent: dict[str, str] = pre(await page.html(), "cookies")
    return sent


async def test_cookie_belongs_to_the_page_by_default(page: cdp.Page, site: Site) -> None:
    assert await cookies_sent(page, site.url("/echo-cookies"), Cookie("a", "b")) == {"a": "b"}


async def test_cookie_of_the_page_is_not_sent_elsewhere(page: cdp.Page, site: Site) -> None:
    await cookies_sent(page, site.url("/echo-cookies"), Cookie("a", "b"))
    await page.navigate(site.url("/echo-cookies", host="localhost"))
    assert pre(await page.html(), "cookies") == {}


async def test_cookie_with_a_domain_is_sent_there_only(page: cdp.Page, site: Site) -> None:
    cookies = (Cookie("here", "1", domain="127.0.0.1"), Cookie("there", "2", domain="localhost"))
    assert await cookies_sent(page, site.url("/echo-cookies", host="localhost"), *cookies) == {"there": "2"}


async def test_cookie_with_a_url_is_sent_there_only(page: cdp.Page, site: Site) -> None:
    cookies = (Cookie("here", "1", url=site.url("/")), Cookie("there", "2", url=site.url("/", host="localhost")))
    assert await cookies_sent(page, site.url("/echo-cookies"), *cookies) == {"here": "1"}


async def test_cookie_with_a_path_is_sent_below_it_only(page: cdp.Page, site: Site) -> None:
    cookies = (Cookie("above", "1", path="/"), Cookie("beside", "2", path="/other"))
    assert await cookies_sent(page, site.url("/echo-cookies"), *cookies) == {"above": "1"}


async def test_cookie_that_is_http_only_is_hidden_from_scripts(page: cdp.Page, site: Site) -> None:
    site.add("/read", "<script>document.title = document.cookie</script>")
    await page.prepare(PageOptions(url=site.url("/read"), cookies=(Cookie("a", "b"), Cookie("c", "d", http_only=True))))
    await page.navigate(site.url("/read"))
    assert (await page.info()).title == "a=b"


async def test_cookie_that_expired_is_not_sent(page: cdp.Page, site: Site) -> None:
    cookies = (Cookie("old", "1", expires=1), Cookie("new", "2", expires=4_000_000_000))
    assert await cookies_sent(page, site.url("/echo-cookies"), *cookies) == {"new": "2"}


async def test_cookie_that_the_browser_refuses_is_an_invalid_option(page: cdp.Page, site: Site) -> None:
    with pytest.raises(InvalidOption, match="Invalid cookie fields"):
        await page.prepare(PageOptions(url=site.url("/ok"), cookies=(Cookie("a=b; c", "d"),)))


# Emulation


async def echoed(page: cdp.Page, site: Site) -> dict[str, str]:
    """The headers of a request, names in lower case."""
    await page.navigate(site.url("/echo"))
    return dict(pre(await page.html(), "request")["headers"])


async def test_user_agent_does_not_say_headless(page: cdp.Page, site: Site) -> None:
    headers = await echoed(page, site)
    assert re.search(r" Chrome/\d+", headers["user-agent"])
    assert "headless" not in str(headers).lower()


async def test_user_agent_does_not_say_headless_to_scripts(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/agent", "<script>document.title = navigator.userAgent</script>"))
    assert re.search(r" Chrome/\d+", (await page.info()).title)
    assert "headless" not in (await page.info()).title.lower()


async def test_user_agent_given_is_sent(page: cdp.Page, site: Site) -> None:
    await page.prepare(PageOptions(url=site.url("/echo"), user_agent="Own/1.0"))
    assert (await echoed(page, site))["user-agent"] == "Own/1.0"


async def test_user_agent_given_is_what_scripts_see(page: cdp.Page, site: Site) -> None:
    url = site.add("/agent", "<script>document.title = navigator.userAgent</script>")
    await page.prepare(PageOptions(url=url, user_agent="Own/1.0"))
    await page.navigate(url)
    assert (await page.info()).title == "Own/1.0"


async def test_accept_language_is_american_english_by_default(page: cdp.Page, site: Site) -> None:
    assert (await echoed(page, site))["accept-language"] == "en-US,en;q=0.9"


async def test_accept_language_stays_with_a_user_agent_of_the_client(page: cdp.Page, site: Site) -> None:
    await page.prepare(PageOptions(url=site.url("/echo"), user_agent="Own/1.0"))
    assert (await echoed(page, site))["accept-language"] == "en-US,en;q=0.9"


async def test_languages_that_scripts_see_are_american_english(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/languages", "<script>document.title = navigator.languages.join()</script>"))
    assert (await page.info()).title == "en-US,en"


async def test_clock_of_a_page_is_utc(page: cdp.Page, site: Site) -> None:
    url = site.add("/clock", "<script>document.title = Intl.DateTimeFormat().resolvedOptions().timeZone</script>")
    await page.navigate(url)
    assert (await page.info()).title == "UTC"


VIEWPORT_SCRIPT = (
    "<script>document.title = [innerWidth, innerHeight, devicePixelRatio, navigator.maxTouchPoints].join()</script>"
)


@pytest.mark.parametrize(
    ("viewport", "expected"),
    [
        (Viewport(), "1280,800,1,0"),
        (Viewport(width=400, height=300), "400,300,1,0"),
        (Viewport(width=400, height=300, device_scale_factor=2.5), "400,300,2.5,0"),
        (Viewport(width=400, height=300, touch=True), "400,300,1,5"),
    ],
)
async def test_viewport_is_what_the_page_sees(page: cdp.Page, site: Site, viewport: Viewport, expected: str) -> None:
    url = site.add("/viewport", VIEWPORT_SCRIPT)
    await page.prepare(PageOptions(url=url, viewport=viewport))
    await page.navigate(url)
    assert (await page.info()).title == expected


async def test_viewport_that_is_mobile_heeds_the_meta_tag(page: cdp.Page, site: Site) -> None:
    url = site.add("/mobile", f'<meta name="viewport" content="width=600">{VIEWPORT_SCRIPT}')
    await page.prepare(PageOptions(url=url, viewport=Viewport(width=300, height=400, mobile=True)))
    await page.navigate(url)
    assert (await page.info()).title.partition(",")[0] == "600"


async def test_javascript_off_runs_no_script(page: cdp.Page, site: Site) -> None:
    url = site.add("/script", "<title>before</title><script>document.title = 'after'</script><noscript>none</noscript>")
    await page.prepare(PageOptions(url=url, javascript=False))
    await page.navigate(url)
    assert (await page.info()).title == "before"


async def test_javascript_off_shows_what_is_for_browsers_without(page: cdp.Page, site: Site) -> None:
    url = site.add("/script", "<noscript><p id='none'>none</p></noscript>")
    await page.prepare(PageOptions(url=url, javascript=False))
    await page.navigate(url)
    with trio.fail_after(QUICK_S):
        await page.wait_for(WaitFor("#none"))


async def test_javascript_off_settles(page: cdp.Page, site: Site) -> None:
    url = site.url("/images?delay_ms=50")
    await page.prepare(PageOptions(url=url, javascript=False))
    await page.navigate(url)
    await page.settle()
    assert page.warnings == []


# Documents of the client's own

DOCUMENT = '<!DOCTYPE html><title>Own</title><a id="link" href="next?a#b">next</a><img src="/image.png">'


async def test_set_content_shows_the_document(page: cdp.Page) -> None:
    await page.set_content("<!DOCTYPE html><title>Own</title><p>own text</p>", None)
    assert ((await page.info()).title, "own text" in await page.html()) == ("Own", True)


async def test_set_content_without_a_base_is_about_blank(page: cdp.Page) -> None:
    await page.set_content(DOCUMENT, None)
    assert (await page.info()).url == "about:blank"


async def test_set_content_without_a_base_is_a_document(page: cdp.Page) -> None:
    await page.set_content("<p>own</p>", None)
    assert page.has_document


@pytest.mark.parametrize("wait_until", ["commit", "domcontentloaded", "load", "networkidle", "auto"])
async def test_set_content_without_a_base_ends_its_waits(page: cdp.Page, wait_until: WaitUntil) -> None:
    with trio.fail_after(QUICK_S):
        await page.set_content("<p>own</p>", None, wait_until=wait_until)


async def test_set_content_without_a_base_waits_for_its_images(page: cdp.Page, site: Site) -> None:
    await page.set_content(f'<img id="image" src="{site.url("/image.png?delay_ms=200")}">', None)
    assert await page.call(DRAWN, "#image") == SLOW_IMAGE_SIZE[0]


async def test_set_content_without_a_base_runs_scripts(page: cdp.Page) -> None:
    await page.set_content("<script>document.title = 'ran'</script>", None)
    assert (await page.info()).title == "ran"


async def test_set_content_without_a_base_and_javascript_runs_no_script(page: cdp.Page) -> None:
    await page.prepare(PageOptions(html="", javascript=False))
    await page.set_content("<title>before</title><script>document.title = 'ran'</script>", None)
    assert (await page.info()).title == "before"


async def test_set_content_with_a_base_has_its_url(page: cdp.Page, site: Site) -> None:
    await page.set_content(DOCUMENT, site.url("/folder/page?query#part"))
    assert (await page.info()).url == site.url("/folder/page?query#part")


async def test_set_content_with_a_base_resolves_links(page: cdp.Page, site: Site) -> None:
    await page.set_content(DOCUMENT, site.url("/folder/page"))
    link = await page.call("() => document.getElementById('link').href")
    assert link == site.url("/folder/next?a#b")


async def test_set_content_with_a_base_does_not_ask_its_server(page: cdp.Page, site: Site) -> None:
    await page.set_content(DOCUMENT, site.url("/folder/page"))
    assert [request.path for request in site.requests] == ["/image.png"]


@pytest.mark.parametrize("path", ["/ü/日本?ü=1", "/a/../b", "/{x}|y'\"", "/a*b?c*", "?query", "/page#part"])
async def test_set_content_with_a_base_that_the_browser_spells_otherwise_is_shown(
    page: cdp.Page, site: Site, path: str
) -> None:
    with trio.fail_after(QUICK_S):
        await page.set_content("<title>Own</title>", site.url(path))
    assert ((await page.info()).title, site.requests) == ("Own", [])


async def test_set_content_with_a_base_leaves_frames_their_own_documents(page: cdp.Page, site: Site) -> None:
    await page.set_content('<title>Own</title><iframe src="/ok"></iframe>', site.url("/ok"))
    assert [request.path for request in site.requests] == ["/ok"]


async def test_set_content_with_a_base_sends_the_headers_to_no_other_origin(page: cdp.Page, site: Site) -> None:
    async with open_site() as other:
        document, url = f'<iframe src="{other.url("/ok")}"></iframe>', site.url("/folder/page")
        await page.prepare(PageOptions(html=document, base_url=url, headers=HEADERS))
        await page.set_content(document, url)
        assert (await other.seen("/ok")).header("x-test") is None


async def test_set_content_with_a_base_needs_no_server(page: cdp.Page) -> None:
    with trio.fail_after(QUICK_S):
        await page.set_content("<title>Own</title>", "https://nobody.invalid/page")
    assert (await page.info()).title == "Own"


async def test_set_content_with_a_base_has_its_origin(page: cdp.Page, site: Site) -> None:
    await page.set_content("<script>onload = () => fetch('/post', {method: 'POST'})</script>", site.url("/folder/page"))
    with trio.fail_after(QUICK_S):
        assert (await site.seen("/post")).header("origin") == site.url("")


async def test_set_content_with_a_base_has_status_200(page: cdp.Page, site: Site) -> None:
    await page.set_content(DOCUMENT, site.url("/folder/page"))
    assert page.status_code == 200


async def test_set_content_with_a_base_keeps_every_character(page: cdp.Page, site: Site) -> None:
    text = "Grüße, 日本語, 😀, \x85"
    await page.set_content(f"<p>{text}</p>", site.url("/folder/page"))
    assert f"<p>{text}</p>" in await page.html()


async def test_set_content_without_a_base_keeps_every_character(page: cdp.Page) -> None:
    text = "Grüße, 日本語, 😀, \x85"
    await page.set_content(f"<p>{text}</p>", None)
    assert f"<p>{text}</p>" in await page.html()


async def test_set_content_with_a_base_stands_in_only_once(page: cdp.Page, site: Site) -> None:
    await page.set_content("<script>if (!location.search) location.replace('/ok?')</script>", site.url("/ok"))
    with trio.fail_after(QUICK_S):
        await page.wait_for(WaitFor("#box"))


async def test_set_content_with_a_base_sends_the_headers(page: cdp.Page, site: Site) -> None:
    url = site.url("/folder/page")
    await page.prepare(PageOptions(html=DOCUMENT, base_url=url, headers=HEADERS))
    await page.set_content(DOCUMENT, url)
    assert (await site.seen("/image.png")).header("x-test") == "from the client"


async def test_set_content_with_a_base_sends_the_cookies(page: cdp.Page, site: Site) -> None:
    url = site.url("/folder/page")
    await page.prepare(PageOptions(html=DOCUMENT, base_url=url, cookies=(Cookie("a", "b"),)))
    await page.set_content(DOCUMENT, url)
    assert (await site.seen("/image.png")).header("cookie") == "a=b"


async def test_set_content_takes_a_large_document(page: cdp.Page) -> None:
    with trio.fail_after(QUICK_S):
        await page.set_content(f"<p>large</p><!--{'x' * 4_000_000}-->", None)
    assert len(await page.html()) > 4_000_000


# Settling


async def test_settle_waits_for_fonts(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/fonts?ms=300"))
    await page.settle()
    assert await page.call(SIZE, "#narrow") == pytest.approx(FONT_BARS[0][2:], abs=0.1)


async def test_settle_waits_for_an_image_that_came_into_view(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/images?insert_ms=0&delay_ms=300"))
    await page.wait_for(WaitFor("#image", "attached"))
    # A picture without a size has no box yet: this one has.
    await page.call("() => { const image = document.images[0]; image.width = 200; image.height = 100 }")
    await page.settle()
    assert await page.call(DRAWN, "#image") == SLOW_IMAGE_SIZE[0]


async def test_settle_gives_images_up_with_a_warning(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "REQUESTS_BUDGET_S", 0.2)
    await page.navigate(site.url("/ok"))
    await page.call("() => { document.body.innerHTML = '<img src=/never width=50 height=50>' }")
    with trio.fail_after(QUICK_S):
        await page.settle()
    requests, images = page.warnings
    assert requests == f"given up after 0.2 s: requests in flight: {site.url('/never')}"
    assert images == "given up after 0.25 s: images in view are not ready"


async def test_settle_gives_fonts_up_with_a_warning(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "REQUESTS_BUDGET_S", 0.2)
    await page.navigate(site.url("/fonts?ms=60000"), wait_until="domcontentloaded")
    with trio.fail_after(QUICK_S):
        await page.settle()
    assert "given up after 0.25 s: fonts are not ready" in page.warnings


async def test_settle_does_not_wait_for_images_below(page: cdp.Page, site: Site) -> None:
    site.add("/below", '<div style="height:5000px"></div><img src="/never" width="50" height="50" loading="lazy">')
    await page.navigate(site.url("/below"), wait_until="domcontentloaded")
    await page.settle()
    assert page.warnings == []


async def test_settle_takes_a_broken_image_for_ready(page: cdp.Page, site: Site) -> None:
    site.add("/broken", '<img src="/status/404" width="50" height="50"><img src="data:," width="50" height="50">')
    await page.navigate(site.url("/broken"))
    await page.settle()
    assert page.warnings == []


async def test_settle_is_not_held_by_a_page_that_replaced_built_ins(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tamper"))
    await page.settle()
    assert page.warnings == []


@pytest.mark.parametrize("name", ["fonts", "images", "title", "URL"])
async def test_form_with_the_name_of_a_built_in_is_in_nobody_s_way(page: cdp.Page, site: Site, name: str) -> None:
    url = site.add("/form", f'<title>Right</title><form name="{name}"></form>')
    await page.navigate(url)
    await page.settle()
    info = await page.info()
    assert (info.url, info.title, "<form" in await page.html()) == (url, "Right", True)


# Reading


async def test_html_has_the_doctype(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    assert (await page.html()).startswith("<!DOCTYPE html><html")


async def test_html_has_a_public_doctype(page: cdp.Page, site: Site) -> None:
    doctype = '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1.dtd">'
    await page.navigate(site.add("/strict", f"{doctype}<p>strict</p>"))
    assert (await page.html()).startswith(doctype)


async def test_html_invents_no_doctype(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/quirks", "<p>quirks</p>"))
    assert (await page.html()).startswith("<html")


async def test_html_is_the_live_document(page: cdp.Page, site: Site) -> None:
    url = site.add("/live", "<p id=a>before</p><script>onload = () => { a.textContent = 'after' }</script>")
    await page.navigate(url)
    assert '<p id="a">after</p>' in await page.html()


async def test_html_is_right_in_a_page_that_replaced_built_ins(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tamper"))
    document = await page.html()
    assert document.startswith("<!DOCTYPE html>")
    assert f'<p id="text">{TAMPER_TEXT}</p>' in document


async def test_info_is_right_in_a_page_that_replaced_built_ins(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tamper"))
    info = await page.info()
    assert (info.url, info.title) == (site.url("/tamper"), "Tampering")


@pytest.mark.parametrize("path", ENCODED_TEXTS)
async def test_html_is_in_the_right_characters(page: cdp.Page, site: Site, path: str) -> None:
    await page.navigate(site.url(path))
    assert f'<p id="text">{ENCODED_TEXTS[path]}</p>' in await page.html()


async def test_html_may_hold_half_a_character(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/half", "<p id=a></p><script>a.textContent = 'x\\ud83dy'</script>"))
    assert re.search(r'<p id="a">x[\ud83d\ufffd]y</p>', await page.html())


async def test_html_is_read_while_the_page_still_loads(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/never-loads"), wait_until="commit")
    with trio.fail_after(QUICK_S):
        await page.wait_for(WaitFor("#text"))
        assert "text at once" in await page.html()


async def test_html_is_that_of_the_next_document_after_a_move(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/status/200"))
    await page.html()
    await page.navigate(site.url("/ok"))
    assert OK_TEXT in await page.html()


async def test_html_over_its_limit_is_too_large(page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await page.navigate(site.add("/large", f"<p>large</p><!--{'x' * 2**20}-->"))
    monkeypatch.setattr(module, "MAX_HTML_BYTES", 2**20)
    with pytest.raises(TooLarge, match="limit of 1 MiB"):
        await page.html()


async def test_document_announced_over_the_limit_is_too_large(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "MAX_HTML_BYTES", 2**20)

    async def announce(exchange: Exchange) -> None:
        await exchange.send_raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9000000\r\n\r\n<p>begun"
        )
        await exchange.hold()

    with pytest.raises(TooLarge, match="limit of 1 MiB"), trio.fail_after(QUICK_S):
        await page.navigate(site.add_route("/large", announce))


async def test_navigation_after_one_that_failed_is_judged_by_itself(browser: cdp.Browser, site: Site) -> None:
    # The browser's own page about the failure came late in one of four.
    for _ in range(8):
        async with browser.open_page() as page:
            with pytest.raises(NavigationError):
                await page.navigate("http://127.0.0.1:1/")
            await page.navigate(site.url("/ok"))
            assert OK_TEXT in await page.html()


async def test_page_that_moves_on_before_its_load_without_end_is_an_error(page: cdp.Page, site: Site) -> None:
    url = site.add("/on", "<p>shown<script>location = '?' + Math.random()</script>")
    with trio.fail_after(QUICK_S), pytest.raises(NavigationError, match="ERR_TOO_MANY_REDIRECTS"):
        await page.navigate(url)


async def test_page_that_loads_itself_again_without_end_is_held(page: cdp.Page, site: Site) -> None:
    with trio.fail_after(QUICK_S):
        await page.navigate(site.add("/again", "<p>shown<script>onload = () => location.reload()</script>"))
        await page.settle()
        assert "shown" in await page.html()
    assert any("moved on more than" in warning for warning in page.warnings)


async def test_page_that_leaves_again_and_again_is_held(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "MOVE_BUDGET_S", 0.3)
    url = site.add("/leaving", "<p>shown<script>setInterval(() => { location = '/never' }, 10)</script>")
    with trio.fail_after(QUICK_S):
        await page.navigate(url)
        await page.settle()
        assert "shown" in await page.html()
        await page.screenshot()


@pytest.mark.parametrize("wait_until", ["auto", "load", "networkidle"])
async def test_page_that_stops_itself_is_shown(page: cdp.Page, site: Site, wait_until: WaitUntil) -> None:
    with trio.fail_after(QUICK_S):
        await page.navigate(site.add("/stops", "<p>shown<script>window.stop()</script>"), wait_until=wait_until)
        await page.settle()
    assert "shown" in await page.html()
    assert page.warnings == []


async def test_download_that_the_page_starts_is_told(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/starts", "<script>onload = () => { location = '/download' }</script>"))
    await page.settle()
    assert page.warnings == [f"a download was not kept: {site.url('/download')}"]


async def test_html_at_its_limit_is_taken(page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await page.navigate(site.url("/big-html?bytes=10000"))
    size = len((await page.html()).encode())
    monkeypatch.setattr(module, "MAX_HTML_BYTES", size)
    assert len(await page.html()) == size


async def test_html_limit_counts_bytes(page: cdp.Page, monkeypatch: pytest.MonkeyPatch) -> None:
    await page.set_content("<p>" + "日" * 1000 + "</p>", None)
    monkeypatch.setattr(module, "MAX_HTML_BYTES", 2000)
    with pytest.raises(TooLarge):
        await page.html()


async def test_answer_of_absurd_length_is_shown(page: cdp.Page, site: Site) -> None:
    # More digits than Python makes a number of.
    async def answer(exchange: Exchange) -> None:
        await exchange.send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"1" * 5000 + b"\r\n\r\nhello")

    with trio.move_on_after(5):
        await page.navigate(site.add_route("/absurd", answer), wait_until="commit")
    page.session.check()
    assert page.status_code in (200, None)


# What is not HTML

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="50"><rect width="100" height="50" fill="red"/></svg>'


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("application/json", '{"a": 1}', '{"a": 1}'),
        ("text/plain", "plain words", "plain words"),
        ("application/xml", "<a><b>inner</b></a>", "inner"),
        ("image/svg+xml", SVG, ""),
        (
            "application/xhtml+xml",
            '<html xmlns="http://www.w3.org/1999/xhtml"><body><p>strict</p></body></html>',
            "strict",
        ),
    ],
)
async def test_document_that_is_no_html_is_shown(
    page: cdp.Page, site: Site, content_type: str, body: str, text: str
) -> None:
    url = site.add("/other", body, content_type)
    await page.prepare(PageOptions(url=url, css=("* { top: 0 }",), remove_selectors=("#none",)))
    await page.navigate(url)
    await page.settle()
    assert text in await page.text()
    assert len((await page.screenshot()).data) > 500
    assert page.warnings == []


async def test_picture_that_is_opened_is_shown(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/image.png"))
    await page.settle()
    assert await page.call(DRAWN, "img") == SLOW_IMAGE_SIZE[0]


async def test_film_that_cannot_be_played_is_a_page(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/film", "RIFF", "video/mp4"))
    with trio.fail_after(QUICK_S):
        await page.settle()
        await page.screenshot()


@pytest.mark.parametrize(
    ("head", "net_error"),
    [
        (b"Content-Length: 5000", "net::ERR_CONTENT_LENGTH_MISMATCH"),
        (b"Transfer-Encoding: chunked", "net::ERR_INCOMPLETE_CHUNKED_ENCODING"),
        (b"Content-Encoding: gzip", "net::ERR_CONTENT_DECODING_FAILED"),
    ],
)
async def test_document_that_breaks_off_is_an_error(page: cdp.Page, site: Site, head: bytes, net_error: str) -> None:
    async def answer(exchange: Exchange) -> None:
        body = b"20\r\n<p>begun, and then" if b"chunked" in head else b"<p>begun, and then"
        await exchange.send_raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + head + b"\r\n\r\n" + body)

    with pytest.raises(NavigationError) as caught, trio.fail_after(QUICK_S):
        await page.navigate(site.add_route("/broken-off", answer))
    assert caught.value.net_error == net_error


# ---- Talkative pages -------------------------------------------------------------------------------------------------

FLOODS = {
    "console": "setInterval(() => { for (let i = 0; i < 200; i++) console.log('a'.repeat(1000)) }, 1)",
    "errors": "for (let i = 0; i < 50; i++) setInterval(() => { throw new Error('a'.repeat(1000)) }, 0)",
    "rejections": "setInterval(() => { for (let i = 0; i < 200; i++) Promise.reject(new Error('a'.repeat(1000))) }, 1)",
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_talkative_page_is_silenced(flood: str, page: cdp.Page, site: Site) -> None:
    said = 0
    with page.session.subscribe("Runtime.consoleAPICalled", "Runtime.exceptionThrown") as told:
        await page.session.send("Runtime.enable")
        await page.navigate(site.add("/flood", f"<script>{FLOODS[flood]}</script>"))
        with trio.move_on_after(0.5):
            async for _ in told:
                said += 1
    assert 0 < said <= 1000


async def test_silenced_console_looks_like_the_real_one(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    seen = await page.evaluate(
        "[String(console.log), typeof console.table, console.log.name, console.log('') === undefined]"
    )
    assert seen == ["function () { [native code] }", "function", "log", True]


# What passes the door


async def test_refused_sub_resource_is_one_warning_per_host_and_port(page: cdp.Page, site: Site) -> None:
    tags = "".join(f'<img src="http://10.0.0.1:{port}/{name}">' for port in (80, 8080) for name in "ab")
    await page.navigate(site.add("/refused", tags))
    assert sorted(page.ledger.warnings) == [
        f"10.0.0.1:{port} was not reached: 10.0.0.1 is not a public address; --allow-network 10.0.0.1 would allow it"
        for port in (80, 8080)
    ]


async def test_page_counts_what_passes(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/counted", "x" * 100_000))
    meta = page.ledger.as_meta()
    assert meta["connections"] >= 1
    assert 100_000 < meta["bytes_received"] < 110_000
    assert meta["bytes_sent"] > 100


@pytest.fixture
async def limited(browser_endpoint: str) -> AsyncIterator[cdp.Page]:
    """A page that may load 3 MB."""
    policy = cdp.AddressPolicy.parse(["127.0.0.0/8"], max_bytes=3_000_000)
    async with cdp.connect_browser(browser_endpoint, policy=policy) as browser, browser.open_page() as page:
        yield page


@pytest.mark.parametrize("kind", ["document", "background"])
async def test_page_over_the_traffic_limit_is_too_large(limited: cdp.Page, site: Site, kind: str) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.send_raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>")
        while True:
            await exchange.send_raw(b"x" * 2**16)

    url = site.add_route("/endless", endless)
    if kind == "background":
        url = site.add("/calm", "<script>fetch('/endless').then(answer => answer.text())</script>")

    async def stay_there() -> None:
        await limited.navigate(url, wait_until="commit")
        await limited.sleep(2 * QUICK_S)

    with trio.fail_after(QUICK_S), pytest.raises(TooLarge, match=r"3000000 bytes \(--max-traffic\)"):
        await stay_there()
    assert limited.ledger.bytes_received < 3_000_000 + 4 * 2**17


async def test_page_over_the_traffic_limit_cannot_be_captured(limited: cdp.Page, site: Site) -> None:
    await limited.navigate(site.add("/calm", "<p>calm"))
    limited.ledger.count(received=3_000_000)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(TooLarge, match="--max-traffic"):
        await limited.screenshot()


@pytest.mark.parametrize("url", ["http://127.0.0.1:6379/", "http://localhost:5432/", "http://example.com:11211/"])
async def test_navigate_to_a_port_that_no_page_needs_is_blocked(page: cdp.Page, url: str) -> None:
    with trio.fail_after(QUICK_S), pytest.raises(NavigationError) as caught:
        await page.navigate(url)
    assert "no web page lives there" in (caught.value.blocked or "")


async def test_debugging_port_stays_refused_when_another_user_of_the_browser_is_gone(
    browser: cdp.Browser, browser_endpoint: str, policy: cdp.AddressPolicy, page: cdp.Page
) -> None:
    async with cdp.connect_browser(browser_endpoint, policy=policy):
        pass
    place = browser_endpoint.removeprefix("ws://").partition("/")[0]
    with pytest.raises(NavigationError, match="is this service's own"):
        await page.navigate(f"http://{place}/json/version")


# Pages without scripts

MOVING = "<style>@keyframes k {{ from {{ background: red }} to {{ background: lime }} }}{}</style><div id=a></div>"
BOX = "#a { width: 300px; height: 300px; %s }"
QUIET_PAGES = {
    "text": "<p>text",
    "field with the caret": "<style>input { font-size: 60px }</style><input autofocus value=words>",
    "animation": MOVING.format(BOX % "animation: k 9s linear forwards"),
    "animation without an end": MOVING.format(BOX % "animation: k 9s linear infinite"),
    "animation that waits": MOVING.format(BOX % "animation: k 9s linear 1s forwards"),
    "transition": MOVING.format(
        BOX % "background: lime; transition: background 9s; @starting-style { background: red }"
    ),
    "lazy picture": '<img loading=lazy src="/image.png?delay_ms=200">',
    "picture below": '<div style="height:3000px"></div><img loading=lazy src="/image.png?delay_ms=100">',
    "frame": '<iframe src="/ok"></iframe>',
    "font": '<style>@font-face { font-family: f; src: url("/font.ttf?ms=200") } p { font: 40px f }</style><p>words',
}


def pixels(picture: cdp.Picture) -> bytes:
    with Image.open(io.BytesIO(picture.data)) as image:
        return image.convert("RGB").tobytes()


@pytest.mark.parametrize("full_page", [False, True])
@pytest.mark.parametrize("kind", QUIET_PAGES)
async def test_picture_of_a_page_at_rest_is_that_of_one_looked_at_again(
    page: cdp.Page, site: Site, kind: str, full_page: bool
) -> None:
    await page.navigate(site.add("/still", f"<!DOCTYPE html>{QUIET_PAGES[kind]}"), wait_until="auto")
    await page.settle(whole_page=full_page)
    options = CaptureOptions(format="png", full_page=full_page)
    first = await page.screenshot(options)
    # From now on nothing is known of it.
    await page.keep_document()
    await page.settle(whole_page=full_page)
    assert pixels(first) == pixels(await page.screenshot(options))


@pytest.mark.parametrize("wait_until", ["load", "auto"])
async def test_animation_of_an_injected_sheet_is_brought_to_its_end(
    page: cdp.Page, site: Site, wait_until: WaitUntil
) -> None:
    css = MOVING.format(BOX % "animation: k 9s linear forwards").partition("<style>")[2].partition("</style>")[0]
    url = site.add("/still", "<!DOCTYPE html><style>body { margin: 0 }</style><div id=a></div>")
    await page.prepare(PageOptions(url=url, css=(css,)))
    await page.navigate(url, wait_until=wait_until)
    await page.dress()
    if wait_until == "auto":
        await page.settle()
    with Image.open(io.BytesIO((await page.screenshot()).data)) as image:
        assert image.convert("RGB").getpixel((100, 100)) == (0, 255, 0)


async def test_animation_of_an_action_is_brought_to_its_end(page: cdp.Page, site: Site) -> None:
    sheet = "#b:focus ~ #a { background: lime } #a { background: red; transition: background 9s } body { margin: 0 }"
    sheet += "#b { position: absolute; top: 500px }"
    await page.navigate(
        site.add("/still", f"<!DOCTYPE html><style>{sheet}{BOX % ''}</style><input id=b><div id=a></div>")
    )
    await page.settle()
    assert page.at_rest
    await perform(page, Click(type="click", selector="#b"), 0)
    with Image.open(io.BytesIO((await page.screenshot()).data)) as image:
        assert image.convert("RGB").getpixel((100, 100)) == (0, 255, 0)


async def test_info_right_after_a_script_is_new(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/still", "<!DOCTYPE html><title>one</title>"))
    assert (await page.info()).title == "one"
    await page.evaluate("document.title = 'two'; history.replaceState(null, '', '/other')")
    assert await page.info() == module.PageInfo(site.url("/other"), "two")


async def test_info_right_after_an_action_is_new(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/still", "<!DOCTYPE html><a href='#there'>go</a>"))
    await page.settle()
    assert page.at_rest
    await perform(page, Click(type="click", selector="a"), 0)
    assert (await page.info()).url == site.url("/still#there")
