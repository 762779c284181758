"""The local web site that tests capture from: good pages, odd ones and hostile ones.

    async with open_site() as site:
        url = site.url("/ok")

Plain trio on a real socket of 127.0.0.1; requests are read by h11, whatever must be broken is written by hand. The
facts that tests compare with (colours, boxes, texts) are constants of this module, so that a page and its tests cannot
part. No fault of one connection reaches another one: network faults end their connection, a handler's own fault is
answered with 500 and kept in `site.faults`.

Contents: exported facts - requests and answers - one connection - the site - routes, in the order fixed pages,
status and redirects, time, broken connections, pictures, fonts and images, encodings, hostile pages, the rest.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import mimetypes
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote

import attrs
import h11
import trio
import trustme
from PIL import Image

from cdp.tasks import open_tasks

# -- Facts that tests compare with -------------------------------------------------------------------------------------

HTML_TYPE = "text/html; charset=utf-8"

OK_TITLE = "The OK page"
OK_TEXT = "Hello from the test site."
OK_BOX_PX = 100
"""The red square of /ok covers 0..99 in both directions; the page is white elsewhere."""

RED = (255, 0, 0)
WHITE = (255, 255, 255)

TALL_WIDTH_PX = 1280
TALL_BANDS = 40
TALL_BAND_PX = 1000


def band_colour(index: int) -> tuple[int, int, int]:
    """The colour of band `index` (0..39) of /tall; in no channel do two bands share a value."""
    # Odd steps, modulo 256: a permutation of the channel's values.
    return (index * 53 + 17) % 256, (index * 101 + 71) % 256, (index * 197 + 29) % 256


class Rect(NamedTuple):
    """A rectangle in page coordinates (CSS pixels)."""

    x: float
    y: float
    width: float
    height: float


BOX_RECT = Rect(100.3, 50.7, 200.4, 120.4)
"""#box of /box as laid out."""
BOX_PAINTED = (100, 51, 301, 171)
"""#box as painted at scale 1 (left, top, right, bottom; ends excluded): each edge snaps to the nearest pixel."""
BOX_COLOUR = (0, 96, 160)
ROT_RECT = Rect(500, 100, 120, 60)
"""#rot of /box before it is turned by ROT_DEGREES about its centre."""
ROT_DEGREES = 30
ROT_BOUNDS = Rect(493.04, 74.02, 133.92, 111.96)
"""What getBoundingClientRect gives for #rot, to two decimals."""
ROT_COLOUR = (200, 80, 0)
FAR_RECT = Rect(3000, 5000, 160, 90)
"""#far of /box: outside a 1280x800 viewport in both directions."""
FAR_COLOUR = (80, 0, 120)

QUADRANT_COLOURS = ((220, 20, 60), (34, 139, 34), (30, 144, 255), (255, 215, 0))
"""/colours: top left, top right, bottom left, bottom right."""

TRANSPARENT_DOT_COLOUR = (10, 200, 30)
"""/transparent: the opaque square 0..49; a half transparent blue one covers 100..149, nothing else is painted."""

SLOW_IMAGE_COLOUR = (0, 160, 80)
"""/images: its picture covers 200x100 px from 0,0 on."""
SLOW_IMAGE_SIZE = (200, 100)

FONT_BARS = (Rect(0, 0, 180, 40), Rect(0, 60, 180, 40))
"""/fonts: its two black bars once the web font, which is monospaced, is there; with the fallback the first one is less
than half as wide as the second."""

ENCODED_TEXTS = {
    "/sjis": "日本語のページ、表示テスト。ソ能表",
    "/cp1251": "Съешь же ещё этих мягких французских булок, да выпей чаю №5",
    "/utf16": "Grüße, Ελληνικά, 日本語, 😀",
}
"""The text of #text by page. 'ソ', '能' and '表' have a backslash as second byte in Shift_JIS."""

TAMPER_TEXT = "The original text of a page that tampers"
AUTH_USER, AUTH_PASSWORD = "user", "pass"
DOWNLOAD_BYTES = 1234
STORM_ALERTS = 100

# -- Requests and answers ----------------------------------------------------------------------------------------------


@attrs.frozen
class SeenRequest:
    """One request as it arrived."""

    method: str
    path: str
    """Without the query, still percent-encoded."""
    query: str
    """Without the question mark, as sent."""
    headers: list[tuple[str, str]]
    """In the order of arrival, names in lower case."""
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header, None without one."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def argument(self, name: str, default: str) -> str:
        """The first value of a query parameter."""
        return parse_qs(self.query, keep_blank_values=True).get(name, [default])[0]


@attrs.frozen
class Answer:
    """What a handler wants sent; Content-Length and `Cache-Control: no-store` are added."""

    body: bytes = b""
    content_type: str | None = HTML_TYPE
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class ClientGone(Exception):
    """The client hung up while its answer was still being waited for."""


Handler = Callable[["Exchange"], Awaitable[Answer | None]]
"""Answers one request; None when it wrote to the stream itself: the connection is closed then."""


def page(body: str, head: str = "", title: str = "Test page") -> bytes:
    """An HTML document in UTF-8."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>{head}</head>\n'
        f"<body>{body}</body></html>\n"
    ).encode()


def noise(width_px: int, height_px: int) -> bytes:
    """A page that no format compresses."""
    script = f"""
        const brush = document.querySelector("canvas").getContext("2d");
        const image = brush.createImageData({width_px}, {height_px});
        for (let i = 0; i < image.data.length; i += 50000) crypto.getRandomValues(image.data.subarray(i, i + 50000));
        for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
        brush.putImageData(image, 0, 0)"""
    canvas = f'<canvas width={width_px} height={height_px} style="display:block"></canvas>'
    return page(f"{canvas}<script>{script}</script>", "<style>body{margin:0}</style>")


async def bare_stream(port: int, *, receive_bytes: int | None = None) -> trio.SocketStream:
    """A connection to a port of this machine, with a small receive buffer where one is given."""
    plain = trio.socket.socket()
    try:
        if receive_bytes is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await plain.connect(("127.0.0.1", port))
    except BaseException:
        plain.close()
        raise
    return trio.SocketStream(plain)


def css_colour(colour: tuple[int, int, int]) -> str:
    return f"rgb({colour[0]},{colour[1]},{colour[2]})"


def css_rect(rect: Rect) -> str:
    """The inline style that puts an element at `rect`."""
    return f"position:absolute;left:{rect.x}px;top:{rect.y}px;width:{rect.width}px;height:{rect.height}px"


# -- One connection ----------------------------------------------------------------------------------------------------


class Exchange:
    """One request and the connection that it came on."""

    def __init__(self, request: SeenRequest, connection: Connection) -> None:
        self.request = request
        self._connection = connection

    async def hold(self, seconds: float = math.inf) -> None:
        """Wait, but no longer than the client stays.

        Raises ClientGone: the client hung up. What it sent ahead meanwhile is kept for the next request.
        """
        with trio.move_on_after(seconds):
            while data := await self._connection.stream.receive_some():
                self._connection.protocol.receive_data(bytes(data))
            raise ClientGone

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, past the HTTP machinery."""
        await self._connection.stream.send_all(data)

    async def reset(self) -> None:
        """Close with a TCP reset instead of an orderly end."""
        # A linger time of zero makes close() discard what is unsent and send RST (socket(7)).
        transport = self._connection.transport
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.socket.close()


class Connection:
    """One client's connection: reads requests, has them answered, as long as both sides want to go on."""

    def __init__(self, site: Site, transport: trio.SocketStream, tls: ssl.SSLContext | None) -> None:
        self.transport = transport
        self.stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = transport
        if tls is not None:
            # https_compatible: a client that ends without close_notify, as Chromium does, reads as an end, not a fault.
            self.stream = trio.SSLStream(transport, tls, server_side=True, https_compatible=True)
        # 1 MiB of headers: tests send large cookies.
        self.protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
        self._site = site

    async def run(self) -> None:
        """Serve until one side ends the connection."""
        while (request := await self._read_request()) is not None:
            answer = await self._site.handle(Exchange(request, self))
            if answer is None:
                return
            await self._send(request.method, answer)
            if self.protocol.our_state is not h11.DONE or self.protocol.their_state is not h11.DONE:
                return
            self.protocol.start_next_cycle()

    async def _read_request(self) -> SeenRequest | None:
        """The next request with its body, None when the client has ended the connection."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            match self.protocol.next_event():
                case h11.NEED_DATA:
                    self.protocol.receive_data(bytes(await self.stream.receive_some()))
                case h11.Request() as head:
                    pass
                case h11.Data(data=data):
                    body += data
                case h11.EndOfMessage() if head is not None:
                    path, _, query = head.target.decode("latin-1").partition("?")
                    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
                    return SeenRequest(head.method.decode(), path, query, headers, bytes(body))
                case _:
                    return None

    async def _send(self, method: str, answer: Answer) -> None:
        headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        if answer.content_type is not None:
            headers.append(("Content-Type", answer.content_type))
        if not any(name.lower() == "cache-control" for name, _ in answer.headers):
            headers.append(("Cache-Control", "no-store"))
        if answer.status == HTTPStatus.NO_CONTENT:
            headers = [pair for pair in headers if pair[0] != "Content-Length"]
        reason = HTTPStatus(answer.status).phrase.encode()
        head = h11.Response(status_code=answer.status, headers=headers, reason=reason)
        wire = [self.protocol.send(head)]
        if answer.body and method != "HEAD":
            wire.append(self.protocol.send(h11.Data(data=answer.body)))
        wire.append(self.protocol.send(h11.EndOfMessage()))
        await self.stream.send_all(b"".join(part or b"" for part in wire))


# -- The site ----------------------------------------------------------------------------------------------------------


class Site:
    """A running site; made by `open_site`."""

    def __init__(self, port: int, authority: trustme.CA | None) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self.requests: list[SeenRequest] = []
        """Every request that arrived whole, in order."""
        self.open_connections = 0
        self.faults: list[Exception] = []
        """What handlers raised; each was answered with 500."""
        self._authority = authority
        self._routes: dict[str, Handler] = {}
        self._folders: dict[str, Path] = {}
        self._changed = trio.Event()
        """Set and replaced on every request and every change of `open_connections`."""

    def url(self, path: str, host: str | None = None) -> str:
        """The absolute URL of a path; `host` names another one that leads here, such as localhost (another origin)."""
        return f"{'https' if self._authority else 'http'}://{host or self.host}:{self.port}{path}"

    def add(
        self,
        path: str,
        body: str | bytes,
        content_type: str = HTML_TYPE,
        status: int = 200,
        headers: Iterable[tuple[str, str]] = (),
    ) -> str:
        """Serve a page of the test's own at `path` and return its URL; it goes before a built-in route."""
        answer = Answer(body.encode() if isinstance(body, str) else body, content_type, status, tuple(headers))

        async def handler(_exchange: Exchange) -> Answer:
            return answer

        return self.add_route(path, handler)

    def add_route(self, path: str, handler: Handler) -> str:
        """Let a handler of the test's own answer `path` and return its URL."""
        self._routes[path] = handler
        return self.url(path)

    def add_folder(self, prefix: str, folder: Path) -> str:
        """Serve the files of a folder below `prefix`, which ends with a slash, and return its URL."""
        self._folders[prefix] = folder.resolve()
        return self.url(prefix)

    def client_tls(self) -> ssl.SSLContext:
        """A client's TLS context that trusts this site's certificate, as no browser does."""
        context = ssl.create_default_context()
        if self._authority is not None:
            self._authority.configure_trust(context)
        return context

    async def seen(self, path: str, count: int = 1) -> SeenRequest:
        """Wait until `path` was asked for `count` times, earlier requests included; returns that request."""
        while len(hits := [request for request in self.requests if request.path == path]) < count:
            await self._changed.wait()
        return hits[count - 1]

    async def connections_settled(self, count: int = 0) -> None:
        """Wait until at most `count` connections are open."""
        while self.open_connections > count:
            await self._changed.wait()

    async def handle(self, exchange: Exchange) -> Answer | None:
        """Record a request and answer it."""
        self.requests.append(exchange.request)
        self._notify()
        try:
            return await self._find(unquote(exchange.request.path))(exchange)
        except (ClientGone, OSError, trio.BrokenResourceError):
            return None
        except Exception as error:
            # Kept broad: whatever a page's handler does wrong, the other connections of the test go on.
            self.faults.append(error)
            return Answer(repr(error).encode(), "text/plain; charset=utf-8", 500)

    def _find(self, path: str) -> Handler:
        if handler := self._routes.get(path) or ROUTES.get(path):
            return handler
        for prefix, folder in self._folders.items():
            file = (folder / path.removeprefix(prefix)).resolve()
            if path.startswith(prefix) and file.is_relative_to(folder) and file.is_file():
                return _file_handler(file)
        for prefix, handler in ROUTES_BELOW.items():
            if path.startswith(prefix):
                return handler
        return _not_found

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _serve(self, transport: trio.SocketStream, tls: ssl.SSLContext | None) -> None:
        """One connection, from its first byte to its end; raises nothing but cancellation."""
        self.open_connections += 1
        self._notify()
        connection = Connection(self, transport, tls)
        try:
            await connection.run()
            await connection.stream.aclose()
        except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        finally:
            # The transport itself: a TLS stream would wait for the client's farewell.
            transport.socket.close()
            self.open_connections -= 1
            self._notify()


@asynccontextmanager
async def open_site(tls: bool = False) -> AsyncIterator[Site]:
    """A site on a free port of 127.0.0.1, closed with all its connections when the body ends.

    With `tls` it speaks https only, with a certificate of an authority made for this run: Chromium refuses it with
    ERR_CERT_AUTHORITY_INVALID.
    """
    authority = context = None
    if tls:
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    site = Site(listener.socket.getsockname()[1], authority)

    async def serve(transport: trio.SocketStream) -> None:
        await site._serve(transport, context)

    async with listener, open_tasks() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield site


# -- Routes ------------------------------------------------------------------------------------------------------------

ROUTES: dict[str, Handler] = {}
"""By exact path."""
ROUTES_BELOW: dict[str, Handler] = {}
"""By prefix, for paths that end with an argument."""


def route(path: str) -> Callable[[Handler], Handler]:
    """Register a handler: for `path`, or for everything below when it ends with a slash."""

    def register(handler: Handler) -> Handler:
        (ROUTES_BELOW if path.endswith("/") else ROUTES)[path] = handler
        return handler

    return register


def fixed(
    path: str,
    body: bytes,
    content_type: str | None = HTML_TYPE,
    status: int = 200,
    headers: tuple[tuple[str, str], ...] = (),
) -> None:
    """Register a page that never changes."""
    answer = Answer(body, content_type, status, headers)

    async def handler(_exchange: Exchange) -> Answer:
        return answer

    ROUTES[path] = handler


def _file_handler(file: Path) -> Handler:
    async def handler(_exchange: Exchange) -> Answer:
        kind, _ = mimetypes.guess_type(file.name)
        if kind is not None and (kind.startswith("text/") or kind == "application/javascript"):
            kind += "; charset=utf-8"
        return Answer(await trio.Path(file).read_bytes(), kind or "application/octet-stream")

    return handler


async def _not_found(exchange: Exchange) -> Answer:
    return Answer(page(f"<h1>Not found: {html.escape(exchange.request.path)}</h1>"), status=404)


def _seconds(exchange: Exchange, name: str, default: str, unit: float = 1.0) -> float:
    return float(exchange.request.argument(name, default)) * unit


# Fixed pages

# A tiny page: title, a red square of 100x100 px in the corner, a line of text.
fixed(
    "/ok",
    page(
        f'<div id="box" style="width:{OK_BOX_PX}px;height:{OK_BOX_PX}px;background:{css_colour(RED)}"></div>'
        f'<p id="text">{OK_TEXT}</p>',
        "<style>body{margin:0}</style>",
        OK_TITLE,
    ),
)
# 204 and 205: answers that are no pages.
fixed("/204", b"", None, status=204)
fixed("/205", b"", None, status=205)
# A download of 1234 bytes.
fixed(
    "/download",
    bytes(DOWNLOAD_BYTES),
    "application/zip",
    headers=(("Content-Disposition", 'attachment; filename="data.zip"'),),
)
# A one-page PDF, shown inline where a viewer exists.
fixed(
    "/file.pdf",
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
    "application/pdf",
)


@route("/echo")
async def echo(exchange: Exchange) -> Answer:
    """The request as JSON in #request: method, path, query, headers (list of pairs), body."""
    request = exchange.request
    seen = attrs.asdict(request) | {"body": request.body.decode("utf-8", "replace")}
    return Answer(page(f'<pre id="request">{html.escape(json.dumps(seen), quote=False)}</pre>', title="Echo"))


@route("/echo-cookies")
async def echo_cookies(exchange: Exchange) -> Answer:
    """The cookies that were sent, as a JSON object in #cookies."""
    pairs = [pair.partition("=") for pair in (exchange.request.header("cookie") or "").split("; ") if pair]
    cookies = json.dumps({name: value for name, _, value in pairs})
    return Answer(page(f'<pre id="cookies">{html.escape(cookies, quote=False)}</pre>', title="Cookies"))


@route("/set-cookie")
async def set_cookie(exchange: Exchange) -> Answer:
    """Sets ?name= to ?value= for the whole site."""
    name, value = exchange.request.argument("name", "name"), exchange.request.argument("value", "value")
    return Answer(page("<p>cookie set</p>"), headers=(("Set-Cookie", f"{name}={value}; Path=/"),))


@route("/auth")
async def auth(exchange: Exchange) -> Answer:
    """Basic authentication, `user` and `pass`."""
    expected = "Basic " + base64.b64encode(f"{AUTH_USER}:{AUTH_PASSWORD}".encode()).decode()
    if exchange.request.header("authorization") == expected:
        return Answer(page('<p id="text">let in</p>', title="Let in"))
    headers = (("WWW-Authenticate", 'Basic realm="test", charset="UTF-8"'),)
    return Answer(page('<p id="text">kept out</p>', title="Kept out"), status=401, headers=headers)


# Status and redirects


@route("/status/")
async def status(exchange: Exchange) -> Answer:
    """/status/404: that status with a page; /status/404-empty: without a body."""
    code, _, empty = exchange.request.path.removeprefix("/status/").partition("-")
    if empty:
        return Answer(b"", HTML_TYPE, int(code))
    return Answer(page(f'<h1 id="text">Status {code}</h1>', title=f"Status {code}"), status=int(code))


def _redirect(target: str, status: int = 302) -> Answer:
    return Answer(page("<p>moved</p>"), status=status, headers=(("Location", target),))


@route("/redirect/")
async def redirect(exchange: Exchange) -> Answer:
    """/redirect/N: N redirects, the last one to /ok."""
    left = int(exchange.request.path.removeprefix("/redirect/")) - 1
    return _redirect(f"/redirect/{left}" if left > 0 else "/ok")


@route("/redirect-loop")
async def redirect_loop(_exchange: Exchange) -> Answer:
    """Redirects to itself for ever."""
    return _redirect("/redirect-loop")


@route("/redirect-to")
async def redirect_to(exchange: Exchange) -> Answer:
    """Redirects to ?url= with ?status= (302)."""
    target = quote(exchange.request.argument("url", "/ok"), safe=":/?#[]@!$&'()*+,;=%")
    return _redirect(target, int(exchange.request.argument("status", "302")))


@route("/js-redirect")
async def js_redirect(exchange: Exchange) -> Answer:
    """Moves on to ?url= (/ok) by script while it loads."""
    target = json.dumps(exchange.request.argument("url", "/ok")).replace("<", "\\u003c")
    return Answer(page('<p id="text">about to move</p>', f"<script>location.replace({target})</script>"))


@route("/meta-refresh")
async def meta_refresh(exchange: Exchange) -> Answer:
    """Moves on to ?url= (/ok) by a meta tag after ?seconds= (0)."""
    seconds, target = exchange.request.argument("seconds", "0"), exchange.request.argument("url", "/ok")
    content = html.escape(f"{seconds}; url={target}")
    return Answer(page('<p id="text">about to move</p>', f'<meta http-equiv="refresh" content="{content}">'))


# Time


@route("/slow")
async def slow(exchange: Exchange) -> Answer:
    """Answers after ?seconds= (1)."""
    await exchange.hold(_seconds(exchange, "seconds", "1"))
    return Answer(page('<p id="text">slow but sure</p>', title="Slow"))


@route("/never")
async def never(exchange: Exchange) -> None:
    """Takes the request and never answers."""
    await exchange.hold()


@route("/drip")
async def drip(exchange: Exchange) -> None:
    """Headers at once, then a byte a second for ever."""
    await exchange.send_raw(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
        b"Connection: close\r\n\r\n"
    )
    while True:
        await exchange.hold(1)
        await exchange.send_raw(b"d")


# Text at once, but its image never comes: no load event.
fixed("/never-loads", page('<p id="text">text at once</p><img id="image" src="/never?image" width="50" height="50">'))


@route("/endless-script")
async def endless_script(exchange: Exchange) -> Answer:
    """A script without end: while the page loads, or ?after_ms= after its load."""
    after = exchange.request.argument("after_ms", "")
    script = f"addEventListener('load', () => setTimeout(spin, {int(after)}))" if after else "spin()"
    return Answer(page(f'<p id="text">before the script</p><script>function spin() {{ for (;;); }} {script}</script>'))


# #late appears 300 ms after the load, #gone leaves then, #hidden is never visible.
fixed(
    "/late-element",
    page(
        '<p id="gone">going</p><p id="hidden" style="display:none">hidden</p><script>addEventListener("load", () => '
        'setTimeout(() => { document.getElementById("gone").remove(); const late = document.createElement("p");'
        'late.id = "late"; late.textContent = "late but here"; document.body.append(late) }, 300))</script>'
    ),
)

# Broken connections


@route("/reset")
async def reset(exchange: Exchange) -> None:
    """A TCP reset right after the request."""
    await exchange.reset()


@route("/empty")
async def empty(_exchange: Exchange) -> None:
    """Closes in order, without a byte of an answer."""


@route("/bad-http")
async def bad_http(exchange: Exchange) -> None:
    """Answers with something that is not HTTP."""
    await exchange.send_raw(b"This is not an HTTP answer.\r\n\r\n")


# Pictures

# 1280 x 40000 px in 40 bands, band i in band_colour(i).
fixed(
    "/tall",
    page(
        "".join(f'<div id="band{i}" style="background:{css_colour(band_colour(i))}"></div>' for i in range(TALL_BANDS)),
        f"<style>body{{margin:0}} div{{width:{TALL_WIDTH_PX}px;height:{TALL_BAND_PX}px}}</style>",
    ),
)
# #box at a fractional place, #rot turned, #far beyond the viewport.
fixed(
    "/box",
    page(
        f'<div id="box" style="{css_rect(BOX_RECT)};background:{css_colour(BOX_COLOUR)}"></div>'
        f'<div id="rot" style="{css_rect(ROT_RECT)};background:{css_colour(ROT_COLOUR)};'
        f'transform:rotate({ROT_DEGREES}deg)"></div>'
        f'<div id="far" style="{css_rect(FAR_RECT)};background:{css_colour(FAR_COLOUR)}"></div>'
    ),
)
# Four solid quadrants of the viewport.
fixed(
    "/colours",
    page(
        "".join(
            f'<div style="position:fixed;left:{50 * (i % 2)}vw;top:{50 * (i // 2)}vh;width:50vw;height:50vh;'
            f'background:{css_colour(colour)}"></div>'
            for i, colour in enumerate(QUADRANT_COLOURS)
        )
    ),
)
# No background of its own: an opaque square, a half transparent one, nothing else.
fixed(
    "/transparent",
    page(
        f'<div style="{css_rect(Rect(0, 0, 50, 50))};background:{css_colour(TRANSPARENT_DOT_COLOUR)}"></div>'
        f'<div style="{css_rect(Rect(100, 0, 50, 50))};background:rgba(0,0,255,.5)"></div>'
    ),
)

# Fonts and images


@route("/fonts")
async def fonts(exchange: Exchange) -> Answer:
    """Two black bars, "iiiiiiiiii" and "MMMMMMMMMM" in a web font that comes after ?ms= (500)."""
    ms = int(exchange.request.argument("ms", "500"))
    style = (
        f'@font-face {{ font-family: late; font-display: block; src: url("/font.ttf?ms={ms}") }} body {{ margin: 0 }}'
        " span { position: absolute; left: 0; height: 40px; font: 30px late, serif; background: #000; color: #000 }"
    )
    bars = "".join(
        f'<span id="{name}" style="top:{bar.y}px">{letter * 10}</span>'
        for name, letter, bar in zip(("narrow", "wide"), "iM", FONT_BARS, strict=True)
    )
    return Answer(page(bars, f"<style>{style}</style>"))


def liberation_mono() -> Path:
    """The font file of the Debian package fonts-liberation (before version 2) or fonts-liberation2."""
    folder = Path("/usr/share/fonts/truetype")
    files = sorted(folder.glob("liberation*/LiberationMono-Bold.ttf"))
    if not files:
        raise FileNotFoundError(f"no LiberationMono-Bold.ttf below {folder}: run make setup")
    return files[0]


@route("/font.ttf")
async def font(exchange: Exchange) -> Answer:
    """The bold Liberation Mono after ?ms= (0)."""
    await exchange.hold(_seconds(exchange, "ms", "0", 0.001))
    return Answer(await trio.Path(liberation_mono()).read_bytes(), "font/ttf")


@route("/images")
async def images(exchange: Exchange) -> Answer:
    """A picture in view that comes after ?delay_ms= (500); with ?insert_ms= it is only put in that long after load."""
    tag = f'<img id="image" src="/image.png?delay_ms={int(exchange.request.argument("delay_ms", "500"))}">'
    insert_ms = exchange.request.argument("insert_ms", "")
    if insert_ms:
        put = f"setTimeout(() => document.body.insertAdjacentHTML('afterbegin', '{tag}'), {int(insert_ms)})"
        tag = f"<script>addEventListener('load', () => {put})</script>"
    return Answer(page(tag, "<style>body{margin:0} img{display:block}</style>"))


@route("/image.png")
async def image(exchange: Exchange) -> Answer:
    """A solid picture after ?delay_ms= (0)."""
    await exchange.hold(_seconds(exchange, "delay_ms", "0", 0.001))
    data = io.BytesIO()
    Image.new("RGB", SLOW_IMAGE_SIZE, SLOW_IMAGE_COLOUR).save(data, "PNG")
    return Answer(data.getvalue(), "image/png")


# Encodings


def _encoded(path: str) -> str:
    text = ENCODED_TEXTS[path]
    return f'<!DOCTYPE html>\n<html><head><title>{text[:6]}</title></head><body><p id="text">{text}</p></body></html>'


# Shift_JIS and windows-1251, declared in Content-Type only.
fixed("/sjis", _encoded("/sjis").encode("shift_jis"), "text/html; charset=Shift_JIS")
fixed("/cp1251", _encoded("/cp1251").encode("cp1251"), "text/html; charset=windows-1251")
# UTF-16, declared by its byte order mark only.
fixed("/utf16", b"\xff\xfe" + _encoded("/utf16").encode("utf-16-le"), "text/html")

# Hostile pages

# Asks for attention while it loads.
fixed("/alert", page('<script>alert("stop here")</script><p id="text">after the alert</p>'))
# A hundred alerts while it loads, then one every 10 ms.
fixed(
    "/alert-storm",
    page(
        f"<script>for (let i = 0; i < {STORM_ALERTS}; i++) alert(i); setInterval(() => alert('again'), 10)</script>"
        '<p id="text">after the storm</p>'
    ),
)
# Asks two questions on load; the title tells the answers.
fixed(
    "/confirm-on-load",
    page(
        '<p id="text">question</p><script>onload = () => '
        '{ document.title = confirm("sure?") + " " + prompt("name?", "nobody") }</script>'
    ),
)
# Objects to being left. Chromium asks the user only where there was a gesture, such as a click.
fixed(
    "/unload-dialog",
    page(
        '<p id="text">stay</p><script>addEventListener("beforeunload", event => '
        '{ event.preventDefault(); event.returnValue = "stay" })</script>'
    ),
)
# Lies about its own content through everything that a naive client would ask.
fixed(
    "/tamper",
    page(
        f'<p id="text">{TAMPER_TEXT}</p><div id="box" style="{css_rect(Rect(200, 100, 80, 40))};'
        f'background:{css_colour(BOX_COLOUR)}"></div>'
        """<script>
const lie = (owner, name, value) =>
    Object.defineProperty(owner, name, {get: () => value, set() { throw new Error("tampered") }, configurable: true});
const fail = () => { throw new Error("tampered") };
for (const name of ["outerHTML", "innerHTML", "getHTML"]) lie(Element.prototype, name, "<p>a lie</p>");
for (const name of ["outerHTML", "documentElement", "doctype", "body", "contentType", "characterSet", "readyState"])
    lie(document, name, "a lie");
for (const name of ["textContent", "childNodes", "nodeType", "nodeName", "ownerDocument", "isConnected"])
    lie(Node.prototype, name, "a lie");
for (const owner of [Document.prototype, Element.prototype, document])
    for (const name of ["querySelector", "querySelectorAll", "getElementById"]) owner[name] = () => null;
Element.prototype.getBoundingClientRect = () => ({x: 0, y: 0, width: 1, height: 1});
window.getComputedStyle = window.requestAnimationFrame = window.XMLSerializer = fail;
HTMLImageElement.prototype.decode = () => new Promise(() => {});
lie(Document.prototype, "fonts", {ready: {then() {}}});
window.JSON = {stringify: () => '"a lie"', parse: fail};
Array.prototype.toJSON = Object.prototype.toJSON = String.prototype.toJSON = () => "a lie";
for (const name of ["then", "value", "result", "type", "width", "height"])
    Object.defineProperty(Object.prototype, name, {__proto__: null, get: () => undefined, set: fail});
Array.from = Array.prototype.map = Array.prototype.push = Function.prototype.call = Function.prototype.apply = fail;
window.Promise = window.Map = window.Set = window.MutationObserver = undefined;
window.tampered = "to the end";
</script>""",
        title="Tampering",
    ),
)


@route("/push-state-40mb")
async def push_state_40mb(exchange: Exchange) -> Answer:
    """Moves its own address to one of ?bytes= (40 million) on load."""
    size = int(exchange.request.argument("bytes", "40000000"))
    script = f"onload = () => history.pushState(null, '', '#' + 'a'.repeat({size}))"
    return Answer(page(f'<p id="text">long address</p><script>{script}</script>'))


@route("/console-40mb")
async def console_40mb(exchange: Exchange) -> Answer:
    """Writes a console line of ?bytes= (40 million) on load."""
    size = int(exchange.request.argument("bytes", "40000000"))
    return Answer(page(f'<p id="text">talker</p><script>onload = () => console.log("a".repeat({size}))</script>'))


@route("/big-html")
async def big_html(exchange: Exchange) -> Answer:
    """A document of exactly ?bytes= (1 million): paragraphs of 100 bytes, an unbroken text as the rest."""
    size = int(exchange.request.argument("bytes", "1000000"))
    frame = page('<p id="text">big</p>\n\n')
    start, end = frame.split(b"\n\n")
    count, rest = divmod(size - len(start) - len(end), 100)
    return Answer(start + (b"<p>" + b"x" * 92 + b"</p>\n") * count + b"y" * rest + end)
