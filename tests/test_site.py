"""What the other tests rely on when they use the test web site."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from tests import pages
from tests.site import (
    AUTH_PASSWORD,
    AUTH_USER,
    DOWNLOAD_BYTES,
    ENCODED_TEXTS,
    HTML_TYPE,
    OK_TEXT,
    TALL_BANDS,
    Answer,
    Exchange,
    Site,
    band_colour,
    open_site,
)

QUICK_S = 5
"""Far longer than anything here takes: only a hang gets there."""


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site() as site:
        yield site


@pytest.fixture
async def client(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=site.url(""), trust_env=False, timeout=QUICK_S) as client:
        yield client


async def connect(site: Site, path: str) -> trio.SocketStream:
    """A raw connection that has asked for `path`."""
    stream = await trio.open_tcp_stream(site.host, site.port)
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode())
    return stream


async def read_all(stream: trio.SocketStream) -> bytes:
    with trio.fail_after(QUICK_S):
        return b"".join([bytes(part) async for part in stream])


# What the site tells about its clients


async def test_site_records_each_request_whole(site: Site, client: httpx.AsyncClient) -> None:
    await client.post("/echo?a=1&b=2", headers={"X-Test": "yes"}, content=b"body")
    (request,) = site.requests
    assert (request.method, request.path, request.query, request.body) == ("POST", "/echo", "a=1&b=2", b"body")
    assert request.header("x-test") == "yes"
    assert request.argument("b", "") == "2"


async def test_seen_waits_for_a_request_to_come(site: Site, client: httpx.AsyncClient) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.get, "/ok?first")
        nursery.start_soon(client.get, "/ok?second")
        with trio.fail_after(QUICK_S):
            await site.seen("/ok", count=2)
    assert {request.query for request in site.requests} == {"first", "second"}


async def test_seen_knows_earlier_requests(site: Site, client: httpx.AsyncClient) -> None:
    await client.get("/ok?early")
    with trio.fail_after(QUICK_S):
        assert (await site.seen("/ok")).query == "early"


async def test_open_connections_falls_when_a_client_leaves(site: Site) -> None:
    async with await connect(site, "/never"):
        await site.seen("/never")
        assert site.open_connections == 1
    with trio.fail_after(QUICK_S):
        await site.connections_settled()
    assert site.open_connections == 0


async def test_site_ends_promptly_with_clients_waiting() -> None:
    with trio.fail_after(QUICK_S):
        async with open_site() as site:
            streams = [await connect(site, path) for path in ("/never", "/drip", "/slow?seconds=60")]
            for path in ("/never", "/drip", "/slow"):
                await site.seen(path)
    for stream in streams:
        await stream.aclose()
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream(site.host, site.port)


# Answers


async def test_echo_shows_the_headers(client: httpx.AsyncClient) -> None:
    text = (await client.get("/echo", headers={"X-Test": "one<two"})).text
    shown = json.loads(text.partition('<pre id="request">')[2].partition("</pre>")[0].replace("&lt;", "<"))
    assert ["x-test", "one<two"] in shown["headers"]


async def test_one_connection_serves_several_requests(site: Site, client: httpx.AsyncClient) -> None:
    for _ in range(3):
        assert OK_TEXT in (await client.get("/ok")).text
    assert site.open_connections == 1


async def test_redirect_chain_has_the_length_asked_for(client: httpx.AsyncClient) -> None:
    answer = await client.get("/redirect/3", follow_redirects=True)
    assert [hop.url.path for hop in answer.history] == ["/redirect/3", "/redirect/2", "/redirect/1"]
    assert answer.url.path == "/ok"


async def test_redirect_loop_never_ends(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.TooManyRedirects):
        await client.get("/redirect-loop", follow_redirects=True)


@pytest.mark.parametrize(
    ("path", "status", "empty"),
    [
        ("/status/404", 404, False),
        ("/status/500", 500, False),
        ("/status/404-empty", 404, True),
        ("/204", 204, True),
        ("/205", 205, True),
        ("/nowhere", 404, False),
    ],
)
async def test_status_and_body(client: httpx.AsyncClient, path: str, status: int, empty: bool) -> None:
    answer = await client.get(path)
    assert (answer.status_code, not answer.content) == (status, empty)


async def test_download_is_an_attachment_of_known_size(client: httpx.AsyncClient) -> None:
    answer = await client.get("/download")
    assert (answer.headers["Content-Type"], len(answer.content)) == ("application/zip", DOWNLOAD_BYTES)
    assert answer.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("path", "encoding", "content_type"),
    [
        ("/sjis", "shift_jis", "text/html; charset=Shift_JIS"),
        ("/cp1251", "cp1251", "text/html; charset=windows-1251"),
        ("/utf16", "utf-16", "text/html"),
    ],
)
async def test_encoded_page_holds_its_text(
    client: httpx.AsyncClient, path: str, encoding: str, content_type: str
) -> None:
    answer = await client.get(path)
    assert answer.headers["Content-Type"] == content_type
    assert ENCODED_TEXTS[path] in answer.content.decode(encoding)


@pytest.mark.parametrize("size", [300, 12_345, 1_000_000])
async def test_big_html_has_exactly_the_size_asked_for(client: httpx.AsyncClient, size: int) -> None:
    assert len((await client.get(f"/big-html?bytes={size}")).content) == size


async def test_auth_lets_the_right_password_in_only(client: httpx.AsyncClient) -> None:
    wrong = await client.get("/auth", auth=(AUTH_USER, "wrong"))
    right = await client.get("/auth", auth=(AUTH_USER, AUTH_PASSWORD))
    assert (wrong.status_code, right.status_code) == (401, 200)


async def test_slow_image_is_a_picture(client: httpx.AsyncClient) -> None:
    assert (await client.get("/image.png?delay_ms=1")).content.startswith(b"\x89PNG")


async def test_font_is_a_font(client: httpx.AsyncClient) -> None:
    assert (await client.get("/font.ttf?ms=1")).content.startswith(b"\x00\x01\x00\x00")


def test_band_colours_differ_in_every_channel() -> None:
    for channel in range(3):
        assert len({band_colour(index)[channel] for index in range(TALL_BANDS)}) == TALL_BANDS


# Broken answers


async def test_drip_sends_headers_then_bytes(site: Site) -> None:
    async with await connect(site, "/drip") as stream:
        with trio.fail_after(QUICK_S):
            assert (await stream.receive_some()).endswith(b"\r\n\r\n")
            assert await stream.receive_some() == b"d"


async def test_reset_resets(site: Site) -> None:
    async with await connect(site, "/reset") as stream:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await read_all(stream)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_empty_ends_in_order_without_a_byte(site: Site) -> None:
    async with await connect(site, "/empty") as stream:
        assert await read_all(stream) == b""


async def test_bad_http_is_not_http(site: Site) -> None:
    async with await connect(site, "/bad-http") as stream:
        assert not (await read_all(stream)).startswith(b"HTTP/")


async def test_site_survives_clients_that_speak_no_http(site: Site, client: httpx.AsyncClient) -> None:
    for garbage in (b"\x16\x03\x01garbage\r\n\r\n", b"GET\r\n\r\n"):
        stream = await trio.open_tcp_stream(site.host, site.port)
        async with stream:
            await stream.send_all(garbage)
            assert await read_all(stream) == b""
    assert (await client.get("/ok")).status_code == 200


async def test_site_survives_a_client_that_resets(site: Site, client: httpx.AsyncClient) -> None:
    stream = await connect(site, "/slow?seconds=60")
    await site.seen("/slow")
    # Linger time zero: close() sends RST.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    await stream.aclose()
    assert (await client.get("/ok")).status_code == 200
    assert site.faults == []


async def test_handler_fault_is_answered_and_kept(site: Site, client: httpx.AsyncClient) -> None:
    assert (await client.get("/redirect/many")).status_code == 500
    (fault,) = site.faults
    assert isinstance(fault, ValueError)


# Pages of a test's own


async def test_added_page_goes_before_a_built_in_one(site: Site, client: httpx.AsyncClient) -> None:
    url = site.add("/ok", "mine", content_type="text/plain", status=418, headers=[("X-Mine", "yes")])
    answer = await client.get(url)
    assert (answer.text, answer.status_code, answer.headers["X-Mine"]) == ("mine", 418, "yes")


async def test_added_route_sees_its_request(site: Site, client: httpx.AsyncClient) -> None:
    async def upper(exchange: Exchange) -> Answer:
        return Answer(exchange.request.query.upper().encode())

    answer = await client.get(site.add_route("/upper", upper) + "?word")
    assert (answer.text, answer.headers["Content-Type"]) == ("WORD", HTML_TYPE)


async def test_folder_gives_its_files_only(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "page.css").write_text("p {}")
    site.add_folder("/files/", tmp_path / "shared")
    async with await connect(site, "/files/../secret.txt") as stream:
        assert b" 404 " in await stream.receive_some()
    async with await connect(site, "/files/page.css") as stream:
        assert b"Content-Type: text/css; charset=utf-8" in await stream.receive_some()


# TLS


@pytest.fixture
async def tls_site() -> AsyncIterator[Site]:
    async with open_site(tls=True) as site:
        yield site


async def test_tls_site_serves_who_trusts_it(tls_site: Site) -> None:
    async with httpx.AsyncClient(trust_env=False, verify=tls_site.client_tls()) as client:
        assert OK_TEXT in (await client.get(tls_site.url("/ok"))).text


async def test_tls_site_is_refused_by_who_does_not(tls_site: Site) -> None:
    transport = await trio.open_tcp_stream(tls_site.host, tls_site.port)
    stream = trio.SSLStream(transport, ssl.create_default_context(), server_hostname=tls_site.host)
    with trio.fail_after(QUICK_S), pytest.raises(trio.BrokenResourceError) as caught:
        await stream.do_handshake()
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    await trio.aclose_forcefully(stream)


async def test_tls_site_can_reset(tls_site: Site) -> None:
    transport = await trio.open_tcp_stream(tls_site.host, tls_site.port)
    stream = trio.SSLStream(transport, tls_site.client_tls(), server_hostname=tls_site.host)
    await stream.send_all(b"GET /reset HTTP/1.1\r\nHost: a\r\n\r\n")
    with trio.fail_after(QUICK_S), pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    await trio.aclose_forcefully(stream)


# Pages that nobody here wrote


async def test_mounted_app_finds_everything_on_the_site(site: Site, client: httpx.AsyncClient) -> None:
    start = (await client.get(pages.mount(site).swagger_url)).text
    assert "/swagger/swagger-ui-bundle.js" in start
    for file in ("swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "swagger-ui.css", "openapi.json"):
        assert (await client.get(pages.SWAGGER_PREFIX + file)).status_code == 200


async def test_mounted_document_is_long(site: Site, client: httpx.AsyncClient) -> None:
    document = await client.get(pages.mount(site).document_url)
    assert len(document.content) > 400_000
    assert (await client.get(pages.DOCUMENT_PREFIX + "_static/style.css")).status_code == 200
