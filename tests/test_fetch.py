"""Documents fetched without a browser: redirects, cookies, credentials, encodings, limits, and Chromium's errors."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import zlib
from typing import Any

import pytest
import trio

import cdp
from cdp.egress import Ledger
from cdp.errors import NavigationError, NotAPage, TooLarge
from cdp.fetch import (
    MAX_COOKIES,
    MAX_REDIRECTS,
    Cookies,
    Fetched,
    Inflater,
    decode,
    fetch,
)
from cdp.options import Auth, Cookie, PageOptions
from tests.site import (
    AUTH_PASSWORD,
    AUTH_USER,
    DOWNLOAD_BYTES,
    ENCODED_TEXTS,
    OK_TEXT,
    Answer,
    Exchange,
    Site,
    open_site,
)

QUICK_S = 5.0
AGENT = "Test/1.0"


@pytest.fixture
def get(policy: cdp.AddressPolicy) -> Any:
    """Fetches a URL with options, within a few seconds."""

    async def get(url: str, *, max_bytes: int = 2**20, **options: Any) -> Fetched:
        with trio.fail_after(QUICK_S):
            return await fetch(policy, PageOptions(url=url, **options), user_agent=AGENT, max_bytes=max_bytes)

    return get


async def failure(get: Any, url: str, **options: Any) -> NavigationError:
    with pytest.raises(NavigationError) as caught:
        await get(url, **options)
    return caught.value


def add_raw(site: Site, path: str, data: bytes) -> str:
    """Serve bytes as they are, then close."""

    async def handler(exchange: Exchange) -> None:
        await exchange.send_raw(data)

    return site.add_route(path, handler)


# The document


async def test_fetch_gives_the_document(get: Any, site: Site) -> None:
    got = await get(site.url("/ok"))
    assert OK_TEXT in got.html
    assert (got.url, got.status_code, got.redirects) == (site.url("/ok"), 200, ())


async def test_fetch_leaves_no_connection(get: Any, site: Site) -> None:
    await get(site.url("/ok"))
    with trio.fail_after(QUICK_S):
        await site.connections_settled()


async def test_fetch_gives_an_error_page(get: Any, site: Site) -> None:
    got = await get(site.url("/status/404"))
    assert (got.status_code, "Status 404" in got.html) == (404, True)


async def test_fetch_gives_an_empty_error_page(get: Any, site: Site) -> None:
    got = await get(site.url("/status/500-empty"))
    assert (got.status_code, got.html) == (500, "")


async def test_fetch_keeps_the_fragment_and_does_not_send_it(get: Any, site: Site) -> None:
    got = await get(site.url("/ok?a=1#here"))
    assert got.url == site.url("/ok?a=1#here")
    assert (await site.seen("/ok")).query == "a=1"


async def test_fetch_encodes_the_url(get: Any, site: Site) -> None:
    await get(site.url("/grüße"))
    assert site.requests[0].path == "/gr%C3%BC%C3%9Fe"


async def test_fetch_shows_text_as_browsers_do(get: Any, site: Site) -> None:
    assert (await get(site.add("/t", "a < b\n", "text/plain"))).html == "<pre>\na &lt; b\n</pre>"


async def test_fetch_shows_json_as_browsers_do(get: Any, site: Site) -> None:
    assert (await get(site.add("/j", '{"a": 1}', "application/json"))).html == '<pre>\n{"a": 1}</pre>'


# What is sent


async def sent(get: Any, site: Site, **options: Any) -> dict[str, str]:
    await get(site.url("/ok"), **options)
    return dict(site.requests[-1].headers)


async def test_headers_are_those_of_a_browser(get: Any, site: Site) -> None:
    seen = await sent(get, site)
    assert seen["user-agent"] == AGENT
    assert seen["accept"].startswith("text/html,application/xhtml+xml,")
    assert seen["accept-language"] == "en-US,en;q=0.9"
    assert seen["accept-encoding"] == "gzip, deflate"
    assert seen["host"] == f"127.0.0.1:{site.port}"
    assert "cookie" not in seen
    assert "authorization" not in seen


async def test_options_set_headers(get: Any, site: Site) -> None:
    seen = await sent(get, site, user_agent="Mine", locale="de-CH", referer="https://from.example/")
    assert seen["user-agent"] == "Mine"
    assert seen["accept-language"] == "de-CH,de;q=0.9"
    assert seen["referer"] == "https://from.example/"


async def test_headers_of_the_client_replace_others(get: Any, site: Site) -> None:
    seen = await sent(get, site, headers={"ACCEPT": "x/y", "X-A": "ü", "Accept-Encoding": "br"})
    assert (seen["accept"], seen["x-a"]) == ("x/y", "ü".encode().decode("latin-1"))
    assert seen["accept-encoding"] == "gzip, deflate"


async def test_headers_stay_with_the_origin(get: Any, site: Site) -> None:
    async with open_site() as other:
        await get(
            site.url(f"/redirect-to?url={other.url('/ok')}"),
            headers={"X-A": "1"},
            referer="https://from.example/",
            cookies=(Cookie("a", "1", domain="nowhere.example"),),
        )
        assert (await site.seen("/redirect-to")).header("x-a") == "1"
        seen = await other.seen("/ok")
        assert (seen.header("x-a"), seen.header("referer"), seen.header("cookie")) == (None, None, None)


async def test_headers_come_back_with_the_origin(get: Any, site: Site) -> None:
    async with open_site() as other:
        back = other.url(f"/redirect-to?url={site.url('/ok')}")
        await get(site.url(f"/redirect-to?url={back}"), headers={"X-A": "1"})
    assert (await site.seen("/ok")).header("x-a") == "1"


# Redirects


async def test_redirects_are_told(get: Any, site: Site) -> None:
    got = await get(site.url("/redirect/3"))
    assert got.redirects == tuple(site.url(f"/redirect/{left}") for left in (3, 2, 1))
    assert (got.url, OK_TEXT in got.html) == (site.url("/ok"), True)


async def test_redirect_does_not_wait_for_its_body(get: Any, site: Site) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.send_raw(b"HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 9\r\n\r\n")
        await exchange.hold()

    with trio.fail_after(2):
        assert OK_TEXT in (await get(site.add_route("/stalling", handler))).html


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_statuses(get: Any, site: Site, status: int) -> None:
    assert (await get(site.url(f"/redirect-to?status={status}"))).url == site.url("/ok")


async def test_redirects_are_as_many_as_in_chromium(get: Any, site: Site) -> None:
    assert len((await get(site.url(f"/redirect/{MAX_REDIRECTS}"))).redirects) == MAX_REDIRECTS
    error = await failure(get, site.url(f"/redirect/{MAX_REDIRECTS + 1}"))
    assert error.net_error == "net::ERR_TOO_MANY_REDIRECTS"


async def test_browser_follows_as_many_redirects(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url(f"/redirect/{MAX_REDIRECTS}"))
    with pytest.raises(NavigationError, match="ERR_TOO_MANY_REDIRECTS"):
        await page.navigate(site.url(f"/redirect/{MAX_REDIRECTS + 1}"))


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/ok", "/ok"),
        ("ok", "/ok"),
        ("?a b", "/at?a%20b"),
        ("\\ok", "/ok"),
        ("//127.0.0.1:{port}/ok", "/ok"),
        ("/ok#there", "/ok#there"),
    ],
)
async def test_redirect_resolves_its_location(get: Any, site: Site, location: str, path: str) -> None:
    async def handler(exchange: Exchange) -> Answer:
        if exchange.request.query:
            return Answer(b"<p>query</p>")
        return Answer(status=302, headers=(("Location", location.format(port=site.port)),))

    assert (await get(site.add_route("/at", handler))).url == site.url(path)


async def test_redirect_keeps_the_fragment(get: Any, site: Site) -> None:
    assert (await get(site.url("/redirect-to#part"))).url == site.url("/ok#part")


@pytest.mark.parametrize("location", ["", None])
async def test_redirect_without_location_is_a_document(get: Any, site: Site, location: str | None) -> None:
    headers = [] if location is None else [("Location", location)]
    got = await get(site.add("/nowhere", "<p>stay</p>", status=302, headers=headers))
    assert (got.status_code, got.html) == (302, "<p>stay</p>")


@pytest.mark.parametrize(
    ("location", "net_error"),
    [
        ("file:///etc/passwd", "UNSAFE_REDIRECT"),
        ("data:text/html,x", "UNSAFE_REDIRECT"),
        ("javascript:1", "UNSAFE_REDIRECT"),
        ("http://[::bad/", "INVALID_REDIRECT"),
        ("http:///", "INVALID_REDIRECT"),
        ("http://127.0.0.1:6000/", "UNSAFE_PORT"),
        ("http://nobody.invalid/", "NAME_NOT_RESOLVED"),
    ],
)
async def test_redirect_to_where_nobody_may_go(get: Any, site: Site, location: str, net_error: str) -> None:
    error = await failure(get, site.add("/away", "", status=302, headers=[("Location", location)]))
    assert (error.net_error, error.blocked) == (f"net::ERR_{net_error}", None)


async def test_redirect_to_a_blocked_address(get: Any, site: Site) -> None:
    error = await failure(get, site.url("/redirect-to?url=http://10.0.0.1/"))
    assert error.blocked is not None
    assert "10.0.0.1" in error.blocked


# Faults


async def test_blocked_address_is_told(site: Site) -> None:
    with pytest.raises(NavigationError) as caught:
        await fetch(cdp.AddressPolicy(), PageOptions(url=site.url("/ok")), user_agent=AGENT)
    assert caught.value.blocked is not None
    assert site.requests == []


async def test_name_that_does_not_resolve(get: Any) -> None:
    error = await failure(get, "http://nobody.invalid/")
    assert (error.net_error, error.blocked) == ("net::ERR_NAME_NOT_RESOLVED", None)


async def test_name_that_is_too_long(get: Any) -> None:
    assert (await failure(get, f"http://{'a.' * 150}example/")).net_error == "net::ERR_NAME_NOT_RESOLVED"


async def test_port_where_nobody_listens(get: Any) -> None:
    async with open_site() as gone:
        url = gone.url("/ok")
    assert (await failure(get, url)).net_error == "net::ERR_CONNECTION_REFUSED"


@pytest.mark.parametrize(
    ("path", "net_error"),
    [
        ("/redirect-loop", "TOO_MANY_REDIRECTS"),
        ("/reset", "CONNECTION_RESET"),
        ("/empty", "EMPTY_RESPONSE"),
        ("/bad-http", "INVALID_HTTP_RESPONSE"),
    ],
)
async def test_broken_connections(get: Any, site: Site, path: str, net_error: str) -> None:
    assert (await failure(get, site.url(path))).net_error == f"net::ERR_{net_error}"


@pytest.mark.parametrize(
    ("rest", "net_error"),
    [
        (b"Content-Length: 100\r\n\r\n<p>cut", "CONTENT_LENGTH_MISMATCH"),
        (b"Transfer-Encoding: chunked\r\n\r\n6\r\n<p>cut\r\n", "INCOMPLETE_CHUNKED_ENCODING"),
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n<p>cut\r\n", "INVALID_CHUNKED_ENCODING"),
        (b"X-Long: " + b"x" * 600_000 + b"\r\n\r\n", "RESPONSE_HEADERS_TOO_BIG"),
        (b"Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\nno gzip", "CONTENT_DECODING_FAILED"),
        (b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\nno br", "CONTENT_DECODING_FAILED"),
    ],
)
async def test_broken_answers(get: Any, site: Site, rest: bytes, net_error: str) -> None:
    url = add_raw(site, "/broken", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + rest)
    assert (await failure(get, url)).net_error == f"net::ERR_{net_error}"


async def test_reset_within_the_body(get: Any, site: Site) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.send_raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100\r\n\r\n<p>")
        await exchange.reset()

    assert (await failure(get, site.add_route("/r", handler))).net_error == "net::ERR_CONNECTION_RESET"


@pytest.mark.parametrize("path", ["/never", "/drip", "/slow?seconds=60"])
async def test_cancelled_fetch_closes_its_connection(policy: cdp.AddressPolicy, site: Site, path: str) -> None:
    with trio.fail_after(QUICK_S):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_seen, site, path.partition("?")[0], scope)
                await fetch(policy, PageOptions(url=site.url(path)), user_agent=AGENT)
        assert scope.cancelled_caught
        await site.connections_settled()


async def _cancel_when_seen(site: Site, path: str, scope: trio.CancelScope) -> None:
    await site.seen(path)
    scope.cancel()


# TLS


async def test_certificate_of_nobody(get: Any) -> None:
    async with open_site(tls=True) as secure:
        assert (await failure(get, secure.url("/ok"))).net_error == "net::ERR_CERT_AUTHORITY_INVALID"
        assert secure.requests == []


async def test_certificate_of_nobody_may_be_ignored(get: Any) -> None:
    async with open_site(tls=True) as secure:
        assert OK_TEXT in (await get(secure.url("/ok"), ignore_tls_errors=True)).html


async def test_tls_with_a_server_that_has_none(get: Any, site: Site) -> None:
    error = await failure(get, site.url("/ok").replace("http:", "https:"))
    assert error.net_error in ("net::ERR_SSL_PROTOCOL_ERROR", "net::ERR_CONNECTION_CLOSED")


# Answers that are no pages


@pytest.mark.parametrize("path", ["/204", "/205"])
async def test_answer_without_a_document(get: Any, site: Site, path: str) -> None:
    with pytest.raises(NotAPage, match=f"answered {path[1:]}"):
        await get(site.url(path))


async def test_download(get: Any, site: Site) -> None:
    with pytest.raises(NotAPage, match="a download") as caught:
        await get(site.url("/redirect-to?url=/download"))
    assert (caught.value.content_type, caught.value.size_bytes) == ("application/zip", DOWNLOAD_BYTES)


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/pdf", "a PDF"),
        ("image/png", "an image"),
        ("audio/mpeg", "a sound"),
        ("video/mp4", "a video"),
        ("text/csv", "a download"),
        ("text/calendar", "a download"),
        ("application/x-unknown", "a download"),
        ("multipart/mixed", "a download"),
    ],
)
async def test_content_types_that_are_no_pages(get: Any, site: Site, content_type: str, kind: str) -> None:
    with pytest.raises(NotAPage, match=kind) as caught:
        await get(site.add("/x", "x", content_type))
    assert caught.value.content_type == content_type


async def test_body_of_what_is_no_page_is_not_read(get: Any, site: Site) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.send_raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nContent-Length: 99\r\n\r\n")
        await exchange.hold()

    with pytest.raises(NotAPage) as caught:
        await get(site.add_route("/endless", handler))
    assert caught.value.size_bytes == 99


@pytest.mark.parametrize(
    "content_type",
    ["text/css", "application/javascript", "application/ld+json", "application/rss+xml", "image/svg+xml", "foo", "*/*"],
)
async def test_content_types_that_are_pages(get: Any, site: Site, content_type: str) -> None:
    assert "words" in (await get(site.add("/x", "<p>words</p>", content_type))).html


@pytest.mark.parametrize(
    ("disposition", "is_page"),
    [("attachment", False), ("foo; filename=x", False), ("inline; filename=x", True), ("filename=x", True), ("", True)],
)
async def test_content_dispositions(get: Any, site: Site, disposition: str, is_page: bool) -> None:
    url = site.add("/x", "<p>x</p>", headers=[("Content-Disposition", disposition)])
    if is_page:
        assert (await get(url)).html == "<p>x</p>"
    else:
        with pytest.raises(NotAPage, match="a download"):
            await get(url)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"<!doctype html><p>x", "<!doctype html><p>x"),
        (b"just words", "<pre>\njust words</pre>"),
        (b"<html>", "<html>"),
    ],
)
async def test_body_without_a_content_type_is_looked_at(get: Any, site: Site, body: bytes, shown: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert (await get(add_raw(site, "/x", head + body))).html == shown


@pytest.mark.parametrize(("body", "kind"), [(b"%PDF-1.4", "a PDF"), (b"\x00\x01\x02" * 2000, "a download")])
async def test_body_without_a_content_type_that_is_no_page(get: Any, site: Site, body: bytes, kind: str) -> None:
    with pytest.raises(NotAPage, match=kind):
        await get(add_raw(site, "/x", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body))


async def test_bytes_that_claim_to_be_text(get: Any, site: Site) -> None:
    with pytest.raises(NotAPage, match="application/octet-stream"):
        await get(site.add("/x", b"\x00\x01\x02" * 9, "text/plain"))


# Bodies and their limit


async def test_body_of_the_limit_is_taken(get: Any, site: Site) -> None:
    got = await get(site.url("/big-html?bytes=100000"), max_bytes=100_000)
    assert len(got.html) == 100_000


async def test_body_over_the_limit_is_refused(get: Any, site: Site) -> None:
    with pytest.raises(TooLarge, match="limit of 2 MiB of HTML"):
        await get(site.url(f"/big-html?bytes={2**21 + 1}"), max_bytes=2**21)


@pytest.mark.parametrize("layers", [1, 2])
async def test_bomb_is_refused_without_being_unpacked(get: Any, site: Site, layers: int) -> None:
    bomb = bytes(2**27)
    for _ in range(layers):
        bomb = gzip.compress(bomb, 9, mtime=0)
    url = site.add("/bomb", bomb, headers=[("Content-Encoding", ", ".join(["gzip"] * layers))])
    with pytest.raises(TooLarge):
        await get(url)


def test_bomb_comes_in_bounded_pieces() -> None:
    pieces = Inflater("gzip").feed(gzip.compress(bytes(2**24)))
    assert len(next(pieces)) <= 2**18


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b"<p>words</p>", mtime=0)),
        ("x-gzip", gzip.compress(b"<p>words</p>", mtime=0)),
        ("GZIP", gzip.compress(b"<p>words</p>", mtime=0) + b"trailing"),
        ("deflate", zlib.compress(b"<p>words</p>")),
        ("deflate", zlib.compress(b"<p>words</p>", wbits=-15)),
        ("deflate, gzip", gzip.compress(zlib.compress(b"<p>words</p>"), mtime=0)),
        ("identity", b"<p>words</p>"),
        ("unheard-of", b"<p>words</p>"),
    ],
)
async def test_body_is_unpacked(get: Any, site: Site, encoding: str, packed: bytes) -> None:
    got = await get(site.add("/x", packed, headers=[("Content-Encoding", encoding)]))
    assert got.html == "<p>words</p>"


@pytest.mark.parametrize("path", ENCODED_TEXTS)
async def test_text_is_decoded(get: Any, site: Site, path: str) -> None:
    assert f'<p id="text">{ENCODED_TEXTS[path]}</p>' in (await get(site.url(path))).html


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        ("ü".encode(), None, "ü"),
        (b"\xfc", None, "ü"),
        (b"\xfc", "utf-8", "\ufffd"),
        (b"\xef\xbb\xbf\xc3\xbc", "windows-1252", "ü"),
        (b"\xfe\xff\x00a", None, "a"),
        (b"\xf1", "l1", "ñ"),
        (b"\xf1", "no such charset", "ñ"),
        ('<meta charset="shift_jis">表'.encode("cp932"), None, '<meta charset="shift_jis">表'),
        ("<meta charset=utf-16>ü".encode(), None, "<meta charset=utf-16>ü"),
        (b'<meta charset="koi8-r">' + b"\xc1", "windows-1251", '<meta charset="koi8-r">Б'),
    ],
)
def test_decode(body: bytes, charset: str | None, text: str) -> None:
    assert decode(body, charset) == text


@pytest.mark.parametrize(
    ("head", "is_declared"),
    [
        (b"<meta charset=koi8-r>", True),
        (b'<META id=a CharSet = "koi8-r" />', True),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">', True),
        (b'<?xml version="1.0" encoding="koi8-r"?><a/>', True),
        (b"<!-- <meta charset=big5> --><meta charset=koi8-r>", True),
        (b"<meta charset=unheard-of><meta charset=koi8-r>", True),
        (b" " * 1024 + b"<meta charset=koi8-r>", False),
        (b"<metadata charset=koi8-r>", False),
    ],
)
def test_decode_takes_the_document_s_own_word(head: bytes, is_declared: bool) -> None:
    assert decode(head + b"\xc1", None)[-1] == ("а" if is_declared else "Á")


# Cookies


async def carried(get: Any, url: str, **options: Any) -> dict[str, str]:
    """The cookies that /echo-cookies got in the end."""
    found = re.search(r'<pre id="cookies">(.*)</pre>', (await get(url, **options)).html)
    assert found is not None
    cookies: dict[str, str] = json.loads(found[1])
    return cookies


async def test_cookies_of_the_request_are_sent(get: Any, site: Site) -> None:
    cookies = (Cookie("a", "1"), Cookie("b", "ü"), Cookie("c", "3", path="/other"), Cookie("d", "4", secure=True))
    seen = await carried(get, site.url("/echo-cookies"), cookies=cookies)
    assert seen == {"a": "1", "b": "ü".encode().decode("latin-1")}


async def test_cookies_of_servers_on_the_way_are_sent(get: Any, site: Site) -> None:
    headers = [("Location", "/echo-cookies"), ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Path=/other")]
    assert await carried(get, site.add("/set", "", status=302, headers=headers)) == {"a": "1"}


async def test_cookies_stay_with_their_host(get: Any, site: Site) -> None:
    target = site.url("/echo-cookies", host="localhost")
    assert await carried(get, site.url(f"/redirect-to?url={target}"), cookies=(Cookie("a", "1"),)) == {}


@pytest.mark.parametrize(
    ("line", "url", "is_sent"),
    [
        ("a=1", "http://www.example.com/dir/page", True),
        ("a=1", "http://www.example.com/dir/other", True),
        ("a=1", "http://www.example.com/dirty", False),
        ("a=1; Path=/", "http://www.example.com/", True),
        ("a=1; Path=/", "http://example.com/", False),
        ("a=1; Path=/", "http://sub.www.example.com/", False),
        ("a=1; Path=/; Domain=example.com", "http://other.example.com/", True),
        ("a=1; Path=/; Domain=.example.com", "http://example.com/", True),
        ("a=1; Path=/; Domain=example.com", "http://badexample.com/", False),
        ("a=1; Path=/; Domain=com", "http://other.com/", False),
        ("a=1; Path=/; Domain=other.example", "http://www.example.com/", False),
        ("a=1; Path=/; Secure", "https://www.example.com/", True),
        ("a=1; Path=/; Max-Age=60", "http://www.example.com/", True),
        ("a=1; Path=/; Max-Age=0", "http://www.example.com/", False),
        ("a=1; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "http://www.example.com/", False),
        ("a=1; Path=/; Expires=Thu, 01 Jan 2099 00:00:00 GMT", "http://www.example.com/", True),
        ("a=1; Path=/; Expires=nonsense", "http://www.example.com/", True),
        ("a=1; Path=/; Secure", "http://www.example.com/", False),
    ],
)
def test_cookies_keep_to_the_rules(line: str, url: str, is_sent: bool) -> None:
    jar = Cookies()
    jar.take([line], "http://www.example.com/dir/page")
    assert bool(jar.header(url)) == is_sent


def test_cookies_forget_what_a_server_takes_back() -> None:
    jar = Cookies()
    jar.take(["a=1", "b=2", "a=; Max-Age=0"], "http://example.com/")
    assert jar.header("http://example.com/") == "b=2"


def test_cookies_take_no_more_from_one_answer_than_its_limit() -> None:
    jar = Cookies()
    jar.take([f"a{number}=1" for number in range(2 * MAX_COOKIES)], "http://example.com/")
    assert (jar.header("http://example.com/") or "").count("=") == MAX_COOKIES


def test_cookies_send_longer_paths_first() -> None:
    jar = Cookies()
    jar.take(["a=1; Path=/", "a=2; Path=/dir"], "http://example.com/")
    assert jar.header("http://example.com/dir/") == "a=2; a=1"


@pytest.mark.parametrize(
    ("cookie", "url", "is_sent"),
    [
        (Cookie("a", "1", domain="example.com"), "http://www.example.com/", False),
        (Cookie("a", "1", domain=".example.com"), "http://www.example.com/", True),
        (Cookie("a", "1", url="https://example.com/x"), "https://example.com/", True),
        (Cookie("a", "1", url="https://example.com/x"), "https://page.example/", False),
        (Cookie("a", "1", expires=1), "http://page.example/", False),
        (Cookie("a", "1", expires=-1), "http://page.example/", True),
    ],
)
def test_cookies_take_the_clients(cookie: Cookie, url: str, is_sent: bool) -> None:
    jar = Cookies()
    jar.add(cookie, "http://page.example/")
    assert bool(jar.header(url)) == is_sent


# Authentication

AUTH = Auth(AUTH_USER, AUTH_PASSWORD)


async def test_basic_challenge_is_answered(get: Any, site: Site) -> None:
    got = await get(site.url("/auth"), auth=AUTH)
    assert (got.status_code, "let in" in got.html) == (200, True)


async def test_credentials_are_not_sent_unasked(get: Any, site: Site) -> None:
    await get(site.url("/ok"), auth=AUTH)
    assert site.requests[0].header("authorization") is None


async def test_wrong_credentials_give_the_page_that_says_so(get: Any, site: Site) -> None:
    got = await get(site.url("/auth"), auth=Auth("user", "wrong"))
    assert (got.status_code, "kept out" in got.html, len(site.requests)) == (401, True, 2)


async def test_credentials_in_the_url_are_used_and_not_told(get: Any, site: Site) -> None:
    got = await get(site.url("/auth").replace("://", f"://{AUTH_USER}:{AUTH_PASSWORD}@"))
    assert (got.status_code, got.url) == (200, site.url("/auth"))


async def test_credentials_stay_with_the_origin(get: Any, site: Site) -> None:
    async with open_site() as other:
        got = await get(site.url(f"/redirect-to?url={other.url('/auth')}"), auth=AUTH)
        assert got.status_code == 401
        assert all(request.header("authorization") is None for request in other.requests)


def add_digest(site: Site, challenge: str, name: str, qop: str) -> str:
    """A page behind digest authentication, checked by the words of RFC 7616."""

    def digest(text: str) -> str:
        return hashlib.new(name, text.encode()).hexdigest()

    async def handler(exchange: Exchange) -> Answer:
        said = dict(re.findall(r'(\w+)="?([^",]*)"?', exchange.request.header("authorization") or ""))
        secret = digest(f"{AUTH_USER}:a realm:{AUTH_PASSWORD}")
        if "-sess" in challenge:
            secret = digest(f"{secret}:n1:{said.get('cnonce')}")
        proof = digest("GET:/digest?a=1")
        middle = f"{said.get('nc')}:{said.get('cnonce')}:{qop}:" if qop else ""
        if said.get("response") == digest(f"{secret}:n1:{middle}{proof}") and said.get("opaque") == "o":
            return Answer(b"<p>let in</p>")
        headers = (("WWW-Authenticate", challenge),)
        return Answer(b"<p>kept out</p>", status=401, headers=headers)

    site.add_route("/digest", handler)
    return site.url("/digest?a=1")


@pytest.mark.parametrize(
    ("parameters", "name", "qop"),
    [
        ("", "md5", ""),
        (', qop="auth"', "md5", "auth"),
        (', qop="auth-int, auth", algorithm=SHA-256', "sha256", "auth"),
        (', qop="auth", algorithm=MD5-sess', "md5", "auth"),
    ],
)
async def test_digest_challenge_is_answered(get: Any, site: Site, parameters: str, name: str, qop: str) -> None:
    challenge = f'Basic realm="b", Digest realm="a realm", nonce="n1", opaque="o"{parameters}'
    assert (await get(add_digest(site, challenge, name, qop), auth=AUTH)).html == "<p>let in</p>"


@pytest.mark.parametrize(
    "challenge",
    [
        "Digest",
        "Digest realm=x",
        "Digest realm=x, nonce=y, algorithm=none",
        "Negotiate",
        "",
        'Digest x="',
        "Digest realm=, nonce=y",
    ],
)
async def test_challenge_that_nobody_understands_gives_its_page(get: Any, site: Site, challenge: str) -> None:
    url = site.add("/x", "<p>kept out</p>", status=401, headers=[("WWW-Authenticate", challenge)])
    assert (await get(url, auth=AUTH)).html == "<p>kept out</p>"


async def test_basic_header_is_utf_8(get: Any, site: Site) -> None:
    await get(site.url("/auth"), auth=Auth("ü", "€"))
    expected = base64.b64encode("ü:€".encode()).decode()
    assert site.requests[-1].header("authorization") == f"Basic {expected}"


# What passes


async def test_fetch_counts_what_passes(get: Any, site: Site) -> None:
    got = await get(site.add("/counted", "x" * 100_000))
    meta = got.ledger.as_meta()
    assert meta["connections"] == 1
    assert 100_000 < meta["bytes_received"] < 101_000
    assert 100 < meta["bytes_sent"] < 2_000


async def test_fetch_counts_every_connection_and_tls(policy: cdp.AddressPolicy, site: Site) -> None:
    async with open_site(tls=True) as secure:
        url = site.url(f"/redirect-to?url={secure.url('/ok')}")
        got = await fetch(policy, PageOptions(url=url, ignore_tls_errors=True), user_agent=AGENT)
    assert got.ledger.connections == 2
    # The handshake and its certificates too.
    assert got.ledger.bytes_received > 1_000 + len(got.html)


async def test_fetch_counts_a_refusal(site: Site) -> None:
    ledger = Ledger()
    with pytest.raises(NavigationError):
        await fetch(cdp.AddressPolicy(), PageOptions(url=site.url("/ok")), ledger=ledger)
    assert ledger.blocked == [f"127.0.0.1:{site.port}"]


@pytest.mark.parametrize("secure", [False, True])
async def test_fetch_over_the_traffic_limit_is_too_large(secure: bool) -> None:
    policy = cdp.AddressPolicy.parse(["127.0.0.0/8"], max_bytes=10**6)
    ledger = Ledger(policy.max_bytes)
    async with open_site(tls=secure) as site:
        url = site.add("/big", "x" * 10**7)
        with pytest.raises(TooLarge, match=r"1000000 bytes \(--max-traffic\)"):
            await fetch(policy, PageOptions(url=url, ignore_tls_errors=True), ledger=ledger)
        with trio.fail_after(QUICK_S):
            await site.connections_settled()
    assert 10**6 < ledger.bytes_received < 10**6 + 2**18


@pytest.mark.parametrize("host", ["example.com", "8.8.8.8", "0x8080808"])
async def test_fetch_refuses_ports_that_no_page_needs(get: Any, host: str) -> None:
    assert "no web page lives there" in ((await failure(get, f"http://{host}:6379/")).blocked or "")
