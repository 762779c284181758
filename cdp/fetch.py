"""One document without a browser: a plain GET through the egress door, with a browser's headers, cookies and errors.

Redirects, cookies, authentication and decoding are done here, by the rules and within the limits of Chromium, so that
a client meets the same errors as with a browser. One TCP connection is kept along redirects where the servers let it.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import html
import http.cookiejar
import itertools
import re
import secrets
import ssl
import time
import zlib
from base64 import b64encode
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from urllib.parse import unquote, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import attrs
import certifi
import h11
import trio
import webencodings

from . import network
from .document import absolute_url
from .egress import AddressPolicy, Door, FailureKind, host_literal, open_door
from .errors import CDPError, InvalidOption, NavigationError, NotAPage, TooLarge
from .options import Auth, Cookie, PageOptions
from .page import MAX_HTML_BYTES

MAX_REDIRECTS = 19
"""Chromium 156 follows so many and gives up at the twentieth."""
MAX_ENCODINGS = 3
"""Content encodings around each other; each may multiply the work of the next."""
MAX_COOKIES = 180
"""Kept per fetch, as many as Chromium keeps per site."""
MAX_HEAD_BYTES = 2**18
"""Status line and headers of an answer, as in Chromium."""
MAX_CHALLENGE_CHARS = 2**13
RECEIVE_BYTES = 2**16
DRAIN_BYTES = 2**16
"""The body of a redirect or a challenge is read up to here, for up to `DRAIN_S`, so that its connection can go on."""
DRAIN_S = 0.2
PRESCAN_BYTES = 1024
"""How far a document's own word about its encoding is looked for (HTML Standard, "encoding sniffing algorithm")."""
SNIFF_BYTES = 1445
"""What decides about the kind of a body without a content type (MIME Sniffing Standard)."""
PIECE_BYTES = 2**18
"""A decoder gives no more at once, whatever a bomb would become."""

# Of Chromium 156, without the exchange format that only browsers read.
_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,image/jxl,image/avif,image/webp,image/apng,*/*;q=0.8"
_ENCODINGS = frozenset(("gzip", "x-gzip", "deflate", "br", "zstd"))
_DECODED = frozenset(("gzip", "x-gzip", "deflate"))
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = (
    "0 1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113 115 117 119 123 "
    "135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601 636 989 990 993 "
    "995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665 6666 6667 6668 6669 6679 6697 10080"
)
# Bad ports of the Fetch Standard, which Chromium refuses too.
_UNSAFE_PORTS = frozenset(map(int, _PORTS.split(" ")))
_TEXTS = (
    "calendar comma-separated-values csv directory ldif ofx qif rtf tab-separated-values tsv vcalendar vcard "
    "vnd.sun.j2me.app-descriptor x-calendar x-csv x-ms-iqy x-ms-odc x-qif x-vcalendar x-vcard x-vcf"
)
# Texts that Chromium 156 downloads; it shows all others.
_DOWNLOADED_TEXTS = frozenset(f"text/{name}" for name in _TEXTS.split(" "))
_SHOWN_TYPES = re.compile(
    r"application/(?:json|xml|xhtml\+xml|(?:x-)?(?:javascript|ecmascript))|[^/]+/[^/]+\+(?:xml|json)"
)
_MARKUP_TYPES = re.compile(r"text/(?:html|xml)|application/xml|[^/]+/[^/]+\+xml")
_MIME_TYPE = re.compile(r"\s*([!#$%&'+.^_`|~0-9A-Za-z-]+/[!#$%&'+.^_`|~0-9A-Za-z-]+)\s*(?:;|$)")


@attrs.frozen
class Fetched:
    """A document and where it came from."""

    url: str
    """The URL at the end of all redirects, without credentials."""
    status_code: int
    redirects: tuple[str, ...]
    """The URLs whose servers redirected, the first first."""
    content_type: str
    """The MIME type, sniffed where the server names none."""
    html: str
    """The document. A text or JSON document is wrapped in `<pre>`, as browsers do to show it."""


async def fetch(
    policy: AddressPolicy,
    options: PageOptions,
    *,
    user_agent: str,
    max_bytes: int = MAX_HTML_BYTES,
    trust: ssl.SSLContext | None = None,
) -> Fetched:
    """Get the document at `options.url`.

    Of the options, `url`, `headers`, `cookies`, `referer`, `auth`, `user_agent`, `locale` and `ignore_tls_errors`
    count. `user_agent` is what is said without the option. `max_bytes` is the limit of the decoded body. `trust` is
    the TLS context, by default one with the authorities that certifi lists, as Chromium has its own.

    Raises NavigationError, NotAPage, TooLarge, and InvalidOption for a URL or header that no request can carry.
    Cancellation closes the connection at once.
    """
    assert options.url is not None
    try:
        url = absolute_url(None, network.parse_url(options.url)) or ""
    except ValueError as error:
        raise InvalidOption(f"url {error}") from error
    if trust is None or options.ignore_tls_errors:
        # Reading the authorities takes 30 ms, once.
        trust = await trio.to_thread.run_sync(_unverified if options.ignore_tls_errors else _verified)
    async with open_door(policy) as door:
        run = _Fetch(door, trust, options, user_agent, max_bytes, url)
        try:
            return await run.run()
        finally:
            run.close()


def _context(*, verified: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certifi.where() if verified else None)
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


@functools.cache
def _verified() -> ssl.SSLContext:
    return _context(verified=True)


@functools.cache
def _unverified() -> ssl.SSLContext:
    return _context(verified=False)


def accept_language(locale: str) -> str:
    """The header that Chromium makes of a locale: `de-CH,de;q=0.9`."""
    language, dash, _ = locale.partition("-")
    return f"{locale},{language};q=0.9" if dash else locale


# ---- One connection --------------------------------------------------------------------------------------------------


Headers = list[tuple[bytes, bytes]]


@attrs.define(eq=False)
class _Connection:
    """HTTP/1.1 with one server. Closing it needs no await, so that cancellation leaves nothing open."""

    origin: str
    transport: trio.SocketStream
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    protocol: h11.Connection = attrs.field(
        factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    )
    received: bool = False
    """Something came since the last request."""
    used: bool = False
    """It has carried an exchange before; the server may have closed it meanwhile."""

    async def ask(self, target: str, headers: Headers) -> h11.Response:
        """Send a GET and wait for the head of the answer."""
        if self.protocol.our_state is h11.DONE:
            self.protocol.start_next_cycle()
            self.used = True
        self.received = False
        request = h11.Request(method="GET", target=target, headers=headers)
        data = (self.protocol.send(request) or b"") + (self.protocol.send(h11.EndOfMessage()) or b"")
        await self.stream.send_all(data)
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("no answer")

    async def body(self) -> AsyncGenerator[bytes]:
        """The body as it is sent, without its transfer encoding."""
        while isinstance(event := await self._next_event(), h11.Data):
            yield bytes(event.data)

    async def _next_event(self) -> h11.Event:
        while (event := self.protocol.next_event()) is h11.NEED_DATA:
            data = await self.stream.receive_some(RECEIVE_BYTES)
            self.received = self.received or bool(data)
            self.protocol.receive_data(bytes(data))
        assert not isinstance(event, type)
        return event

    @property
    def is_idle(self) -> bool:
        """Whether the next request may go here."""
        return self.protocol.our_state is h11.DONE and self.protocol.their_state is h11.DONE

    def close(self) -> None:
        """Close the socket, whatever state it is in."""
        self.transport.socket.close()


async def _through_door(transport: trio.SocketStream, host: str, port: int) -> bool:
    """Ask the door for a server (RFC 1928), by name; whether it is connected."""
    name = host.encode()
    if len(name) > 255:
        return False
    request = b"\x05\x01\x00" + b"\x05\x01\x00\x03" + bytes((len(name),)) + name + port.to_bytes(2, "big")
    await transport.send_all(request)
    reply = b""
    # The choice of no authentication, then the answer, which always has an IPv4 address.
    while len(reply) < 2 + 10:
        data = await transport.receive_some(2 + 10 - len(reply))
        if not data:
            return False
        reply += data
    return reply[3] == 0


# ---- The exchange ----------------------------------------------------------------------------------------------------


class _Fetch:
    """One document, from the first request to the last byte."""

    def __init__(
        self, door: Door, trust: ssl.SSLContext, options: PageOptions, user_agent: str, max_bytes: int, url: str
    ) -> None:
        self._door = door
        self._trust = trust
        self._options = options
        self._user_agent = options.user_agent or user_agent
        self._max_bytes = max_bytes
        self._url, self._credentials = _without_credentials(url)
        self._own_origin = network.origin_of(self._url)
        self._own_credentials = options.auth or self._credentials
        self._redirects: list[str] = []
        self._cookies = CookieJar()
        for cookie in options.cookies:
            self._cookies.add(cookie, self._url)
        self._connection: _Connection | None = None

    def close(self) -> None:
        """Close the connection, if any."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def run(self) -> Fetched:
        """Follow redirects and challenges to the document."""
        authorization: str | None = None
        while True:
            response = await self._ask(authorization)
            self._cookies.take(_values(response, "set-cookie"), self._url)
            location = _location(response)
            if location is not None:
                await self._drain(response)
                self._redirect(location)
                authorization = None
                continue
            if response.status_code == 401 and authorization is None:
                authorization = self._authorization(response)
                if authorization is not None:
                    await self._drain(response)
                    continue
            return await self._read(response)

    async def _ask(self, authorization: str | None) -> h11.Response:
        """The head of the answer to a GET of the current URL."""
        parts = urlsplit(self._url)
        if parts.port in _UNSAFE_PORTS:
            raise NavigationError("net::ERR_UNSAFE_PORT")
        target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        headers = self._headers(authorization)
        try:
            connection = await self._connected()
            try:
                return await connection.ask(target, headers)
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                if not connection.used or connection.received:
                    raise
            # The server had closed the kept connection before it saw the request.
            self.close()
            connection = await self._connected()
            return await connection.ask(target, headers)
        except (trio.BrokenResourceError, h11.ProtocolError) as error:
            raise self._failure(error, None) from error

    async def _connected(self) -> _Connection:
        """The connection for the current URL: the last one, or a new one."""
        origin, (host, port) = network.origin_of(self._url), network.endpoint_of(self._url)
        if self._connection is not None and self._connection.origin == origin and self._connection.is_idle:
            return self._connection
        self.close()
        transport = await trio.open_tcp_stream("127.0.0.1", self._door.port)
        self._connection = connection = _Connection(origin, transport, transport)
        if not await _through_door(transport, host, port):
            cause = self._door.ledger.failure_at(host, port)
            if cause is None:
                raise NavigationError("net::ERR_NAME_NOT_RESOLVED")
            raise NavigationError(cause.net_error, blocked=cause.text if cause.kind is FailureKind.blocked else None)
        if urlsplit(self._url).scheme == "https":
            # https_compatible: a server that ends without close_notify reads as an end, as in browsers.
            stream = trio.SSLStream(transport, self._trust, server_hostname=host, https_compatible=True)
            await stream.do_handshake()
            connection.stream = stream
        return connection

    def _headers(self, authorization: str | None) -> Headers:
        options = self._options
        headers = {
            "Host": urlsplit(self._url).netloc,
            "Connection": "keep-alive",
            "Upgrade-Insecure-Requests": "1",
            "User-Agent": self._user_agent,
            "Accept-Language": accept_language(options.locale),
            "Accept": _ACCEPT,
            "Sec-Fetch-Site": "none",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-User": "?1",
            "Sec-Fetch-Dest": "document",
        }
        if network.origin_of(self._url) == self._own_origin:
            if options.referer is not None:
                headers["Referer"] = options.referer
            headers = {item["name"]: item["value"] for item in network.merged_headers(headers, options.headers)}
        if authorization is not None:
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            headers["Authorization"] = authorization
        # Nothing else can be decoded here, whatever the client says.
        headers = {name: value for name, value in headers.items() if name.lower() != "accept-encoding"}
        headers["Accept-Encoding"] = "gzip, deflate"
        cookies = self._cookies.header(self._url)
        if cookies:
            headers["Cookie"] = cookies
        return [(name.encode(), value.encode(errors="replace")) for name, value in headers.items()]

    def _redirect(self, location: str) -> None:
        """Go on to where the server points."""
        target = absolute_url(self._url, location)
        if target is not None and urlsplit(target).scheme not in ("http", "https"):
            raise NavigationError("net::ERR_UNSAFE_REDIRECT")
        try:
            target = network.parse_url(target or "")
        except ValueError as error:
            raise NavigationError("net::ERR_INVALID_REDIRECT") from error
        if "#" not in target and "#" in self._url:
            target += "#" + self._url.partition("#")[2]
        if len(self._redirects) == MAX_REDIRECTS:
            raise NavigationError("net::ERR_TOO_MANY_REDIRECTS")
        self._redirects.append(self._url)
        self._url, self._credentials = _without_credentials(target)

    def _authorization(self, response: h11.Response) -> str | None:
        """The answer to a challenge, where there are credentials for the origin that asks."""
        own = network.origin_of(self._url) == self._own_origin
        auth = self._own_credentials if own else self._credentials
        if auth is None:
            return None
        challenges = _challenges(_values(response, "www-authenticate"))
        digest = _digest(auth, challenges["digest"], self._url) if "digest" in challenges else None
        if digest is None and "basic" in challenges:
            return "Basic " + b64encode(f"{auth.username}:{auth.password}".encode()).decode()
        return digest

    async def _drain(self, response: h11.Response) -> None:
        """Read the rest of a short body, which lets the connection be used again."""
        assert self._connection is not None
        if (_size_bytes(response) or 0) > DRAIN_BYTES:
            return
        count = 0
        with trio.move_on_after(DRAIN_S):
            try:
                async with aclosing(self._connection.body()) as pieces:
                    async for piece in pieces:
                        count += len(piece)
                        if count > DRAIN_BYTES:
                            return
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                # Nobody needs that body.
                self.close()

    async def _read(self, response: h11.Response) -> Fetched:
        """The document of the last answer."""
        if response.status_code in (204, 205):
            raise NotAPage(f"the server answered {response.status_code}, without a document")
        said_type, charset = _content_type(response)
        kind = _refusal(response, said_type)
        if kind is not None:
            raise NotAPage(kind, said_type, _size_bytes(response))
        body = bytearray()
        try:
            async with aclosing(self._decoded_body(response)) as pieces:
                async for piece in pieces:
                    sniffed = len(body) >= SNIFF_BYTES
                    body += piece
                    if len(body) > self._max_bytes:
                        raise TooLarge(f"the document is over the limit of {_shown(self._max_bytes)} of HTML")
                    if not sniffed and len(body) >= SNIFF_BYTES:
                        _check_sniffed(said_type, body, response)
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise self._failure(error, response) from error
        _check_sniffed(said_type, body, response)
        content_type = said_type or _sniffed(body)
        text = await trio.to_thread.run_sync(decode, bytes(body), charset)
        if not _MARKUP_TYPES.fullmatch(content_type):
            text = f"<pre>\n{html.escape(text, quote=False)}</pre>"
        return Fetched(self._url, response.status_code, tuple(self._redirects), content_type, text)

    async def _decoded_body(self, response: h11.Response) -> AsyncGenerator[bytes]:
        assert self._connection is not None
        encodings = [
            part.strip().lower() for value in _values(response, "content-encoding") for part in value.split(",")
        ]
        encodings = [name for name in encodings if name not in ("", "identity")]
        if not _ENCODINGS.issuperset(encodings):
            # Chromium leaves the body as it is when it does not know one of them.
            encodings = []
        if len(encodings) > MAX_ENCODINGS or not _DECODED.issuperset(encodings):
            raise NavigationError("net::ERR_CONTENT_DECODING_FAILED")
        decoders = [Inflater(name) for name in reversed(encodings)]
        async with aclosing(self._connection.body()) as pieces:
            async for raw in pieces:
                try:
                    for piece in _decoded(decoders, raw):
                        yield piece
                        await trio.lowlevel.checkpoint()
                except zlib.error as error:
                    raise NavigationError("net::ERR_CONTENT_DECODING_FAILED") from error

    def _failure(self, error: Exception, response: h11.Response | None) -> CDPError:
        """What Chromium would have called a fault of the connection."""
        if isinstance(error, h11.LocalProtocolError):
            return InvalidOption(f"the request cannot be sent: {error}")
        if isinstance(error, h11.RemoteProtocolError):
            began = self._connection is not None and self._connection.received
            return NavigationError(_protocol_error(error, response, began=began))
        cause = self._door.ledger.failure_at(*network.endpoint_of(self._url))
        if cause is not None:
            return NavigationError(cause.net_error)
        if isinstance(error.__cause__, ssl.SSLError):
            return NavigationError(_tls_error(error.__cause__))
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ECONNRESET, errno.EPIPE):
            return NavigationError("net::ERR_CONNECTION_RESET")
        return NavigationError("net::ERR_CONNECTION_CLOSED")


_CERTIFICATE_ERRORS = {
    9: "DATE_INVALID",  # not yet valid
    10: "DATE_INVALID",
    23: "REVOKED",
    62: "COMMON_NAME_INVALID",
    64: "COMMON_NAME_INVALID",  # an IP address
    66: "WEAK_KEY",
    68: "WEAK_SIGNATURE_ALGORITHM",
    # No chain to an authority that is trusted.
    **dict.fromkeys((2, 18, 19, 20, 21, 24, 27), "AUTHORITY_INVALID"),
}
_CIPHER_REASONS = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "SSLV3_ALERT_HANDSHAKE_FAILURE")


def _tls_error(error: ssl.SSLError) -> str:
    """Chromium's name of a TLS fault; certificates by OpenSSL's codes (`X509_V_ERR_*`)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"net::ERR_CERT_{_CERTIFICATE_ERRORS.get(error.verify_code, 'INVALID')}"
    if isinstance(error, ssl.SSLEOFError):
        return "net::ERR_CONNECTION_CLOSED"
    if error.reason in _CIPHER_REASONS:
        return "net::ERR_SSL_VERSION_OR_CIPHER_MISMATCH"
    return "net::ERR_SSL_PROTOCOL_ERROR"


def _protocol_error(error: h11.RemoteProtocolError, response: h11.Response | None, *, began: bool) -> str:
    """Chromium's name of what the server did to HTTP; `began` when something came."""
    if response is None:
        if error.error_status_hint == 431:
            return "net::ERR_RESPONSE_HEADERS_TOO_BIG"
        return "net::ERR_INVALID_HTTP_RESPONSE" if began else "net::ERR_EMPTY_RESPONSE"
    # Only h11's words tell a body that ends early from one that is no HTTP.
    if "peer closed connection" not in str(error):
        return "net::ERR_INVALID_CHUNKED_ENCODING"
    chunked = _values(response, "transfer-encoding")
    return "net::ERR_INCOMPLETE_CHUNKED_ENCODING" if chunked else "net::ERR_CONTENT_LENGTH_MISMATCH"


def _without_credentials(url: str) -> tuple[str, Auth | None]:
    """A URL without user and password, and these."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, None
    auth = Auth(unquote(parts.username or ""), unquote(parts.password or ""))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), auth


def _values(response: h11.Response, name: str) -> list[str]:
    """All values of a header, in UTF-8 as far as they are, else byte by byte."""
    values = [value for key, value in response.headers if key == name.encode()]
    return [_header_text(value) for value in values]


def _header_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _location(response: h11.Response) -> str | None:
    """Where a redirect points; an answer without a place to go is a document."""
    if response.status_code not in _REDIRECTS:
        return None
    return next((value for value in _values(response, "location") if value), None)


# ---- Authentication --------------------------------------------------------------------------------------------------

_SCHEME_START = re.compile(r"(?:^|,)\s*([A-Za-z]+)(?:\s+(?=[^\s=])|\s*(?=,|$))")
_HASHES: Mapping[str, str] = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}


def _challenges(values: list[str]) -> dict[str, str]:
    """The parameters of each scheme, the first of each, by its name in lower case."""
    found: dict[str, str] = {}
    for value in values:
        starts = list(_SCHEME_START.finditer(value[:MAX_CHALLENGE_CHARS]))
        for start, following in itertools.zip_longest(starts, starts[1:]):
            found.setdefault(start[1].lower(), value[start.end() : following.start() if following else None])
    return found


def _digest(auth: Auth, challenge: str, url: str) -> str | None:
    """The answer to a digest challenge (RFC 7616); None for one that nobody understands."""
    try:
        said = {key.lower(): value for key, value in parse_keqv_list(parse_http_list(challenge)).items()}
    except (ValueError, IndexError):
        return None
    algorithm, session, _ = said.get("algorithm", "MD5").upper().partition("-SESS")
    qops = [qop.strip().lower() for qop in said.get("qop", "").split(",")]
    if algorithm not in _HASHES or not {"realm", "nonce"} <= said.keys() or not {"", "auth"} & set(qops):
        return None

    def digest(text: str) -> str:
        return hashlib.new(_HASHES[algorithm], text.encode(), usedforsecurity=False).hexdigest()

    target = urlsplit(url)._replace(scheme="", netloc="", fragment="").geturl()
    client_nonce, count = secrets.token_hex(8), "00000001"
    secret = digest(f"{auth.username}:{said['realm']}:{auth.password}")
    if session:
        secret = digest(f"{secret}:{said['nonce']}:{client_nonce}")
    proof = digest(f"GET:{target}")
    quoted = {"username": auth.username, "realm": said["realm"], "nonce": said["nonce"], "uri": target}
    bare = {"algorithm": said["algorithm"]} if "algorithm" in said else {}
    if "auth" in qops:
        quoted["response"] = digest(f"{secret}:{said['nonce']}:{count}:{client_nonce}:auth:{proof}")
        quoted["cnonce"] = client_nonce
        bare |= {"qop": "auth", "nc": count}
    else:
        quoted["response"] = digest(f"{secret}:{said['nonce']}:{proof}")
    if "opaque" in said:
        quoted["opaque"] = said["opaque"]
    escaped = [re.sub(r'(["\\])', r"\\\1", value) for value in quoted.values()]
    parts = [f'{key}="{value}"' for key, value in zip(quoted, escaped, strict=True)]
    return "Digest " + ", ".join(parts + [f"{key}={value}" for key, value in bare.items()])


# ---- Kinds of answers ------------------------------------------------------------------------------------------------


def _size_bytes(response: h11.Response) -> int | None:
    length = next(iter(_values(response, "content-length")), "")
    # A hostile one has thousands of digits.
    return int(length) if length.isdecimal() and length.isascii() and len(length) < 20 else None


def _content_type(response: h11.Response) -> tuple[str | None, str | None]:
    """MIME type and charset as the server says them; None for what it does not say, or says in no valid form."""
    said = _values(response, "content-type")
    valid = [match for value in said if (match := _MIME_TYPE.match(value)) is not None]
    charset = next(
        (
            found[1]
            for value in reversed(said)
            if (found := re.search(r";\s*charset\s*=\s*[\"']?([^\s\"';]+)", value, re.I))
        ),
        None,
    )
    return (valid[-1][1].lower() if valid else None), charset


def _refusal(response: h11.Response, content_type: str | None) -> str | None:
    """Why an answer is no document; None for one that is, or that may be."""
    disposition = next(iter(_values(response, "content-disposition")), "").partition(";")[0].strip().lower()
    if disposition and "=" not in disposition and disposition != "inline":
        return "a download"
    if content_type is None or _SHOWN_TYPES.fullmatch(content_type):
        return None
    if content_type.startswith("text/") and content_type not in _DOWNLOADED_TEXTS:
        return None
    if content_type == "application/pdf":
        return "a PDF"
    named = {"image": "an image", "audio": "a sound", "video": "a video"}
    return named.get(content_type.partition("/")[0], "a download")


def _shown(size_bytes: int) -> str:
    return f"{size_bytes // 2**20} MiB" if size_bytes >= 2**20 else f"{size_bytes} bytes"


_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16le"), (b"\xfe\xff", "utf-16be"))
_MARKUP_START = re.compile(rb"[\t\n\f\r ]*<(?:!doctype html|!--|\??[a-z][a-z0-9]*[ />?])", re.IGNORECASE)


def _sniffed(body: bytes | bytearray) -> str:
    """The MIME type of a body that the server gave none (MIME Sniffing Standard, the parts that matter here)."""
    head = bytes(body[:SNIFF_BYTES])
    if head.startswith(b"%PDF-"):
        return "application/pdf"
    if not head.startswith(tuple(mark for mark, _ in _BYTE_ORDER_MARKS)) and _BINARY.search(head):
        return "application/octet-stream"
    return "text/html" if _MARKUP_START.match(head) else "text/plain"


def _check_sniffed(said_type: str | None, body: bytearray, response: h11.Response) -> None:
    """Raise NotAPage for a body that turns out to be no text where the server did not say so."""
    if said_type not in (None, "text/plain"):
        return
    found = _sniffed(body)
    if found == "application/octet-stream" or (said_type is None and found == "application/pdf"):
        raise NotAPage("a PDF" if found == "application/pdf" else "a download", found, _size_bytes(response))


# ---- Decoding --------------------------------------------------------------------------------------------------------


class Inflater:
    """A gzip or deflate decoder that gives bounded pieces; what follows the first gzip member is ignored."""

    def __init__(self, encoding: str) -> None:
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS if encoding == "deflate" else zlib.MAX_WBITS | 16)
        # Some servers send deflate without its wrapper; the first bytes tell.
        self._may_be_raw = encoding == "deflate"

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes become; raises zlib.error."""
        while data and not self._zlib.eof:
            try:
                piece = self._zlib.decompress(data, PIECE_BYTES)
            except zlib.error:
                if not self._may_be_raw:
                    raise
                self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
                piece = self._zlib.decompress(data, PIECE_BYTES)
            self._may_be_raw = False
            data = self._zlib.unconsumed_tail
            if piece:
                yield piece


def _decoded(decoders: list[Inflater], data: bytes) -> Iterator[bytes]:
    if not decoders:
        yield data
        return
    for piece in decoders[0].feed(data):
        yield from _decoded(decoders[1:], piece)


_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_META = re.compile(rb"<meta(?=[\s/])((?:[^>\"']|\"[^\"]*\"|'[^']*')*)>", re.IGNORECASE)
_META_ATTRIBUTE = re.compile(rb"([^\s/>=\"']+)\s*(?:=\s*(\"[^\"]*\"|'[^']*'|[^\s>\"']+))?")
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?([^\s\"';]+)", re.IGNORECASE)
_XML_DECLARATION = re.compile(rb"<\?xml\s[^>]*?encoding\s*=\s*[\"']([^\"']+)[\"']")


def declared_charset(body: bytes) -> str | None:
    """The encoding that a document names in its first `PRESCAN_BYTES`, None for one that does not."""
    head = _COMMENT.sub(b"", body[:PRESCAN_BYTES])
    xml = _XML_DECLARATION.match(head)
    if xml is not None:
        return xml[1].decode("latin-1")
    for meta in _META.finditer(head):
        attributes: dict[bytes, bytes] = {}
        for name, value in _META_ATTRIBUTE.findall(meta[1]):
            attributes.setdefault(name.lower(), value.strip(b"\"'"))
        label = attributes.get(b"charset")
        if label is None and attributes.get(b"http-equiv", b"").lower() == b"content-type":
            found = _CHARSET.search(attributes.get(b"content", b""))
            label = found[1] if found is not None else None
        if label is not None and webencodings.lookup(label.decode("latin-1")) is not None:
            return label.decode("latin-1")
    return None


def decode(body: bytes, charset: str | None) -> str:
    """The text of a document: by its byte order mark, the server's word, its own word, else UTF-8 or windows-1252.

    What is no text in its encoding becomes U+FFFD.
    """
    for mark, name in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(name, "replace")
    encoding = webencodings.lookup(charset) if charset is not None else None
    if encoding is None:
        declared = declared_charset(body)
        encoding = webencodings.lookup(declared) if declared is not None else None
        if encoding is not None and encoding.name.startswith("utf-16"):
            # A document whose declaration could be read is not in UTF-16 (HTML Standard).
            encoding = webencodings.UTF8
    if encoding is None:
        try:
            return body.decode()
        except UnicodeDecodeError:
            return body.decode("windows-1252", "replace")
    text: str = encoding.codec_info.decode(body, "replace")[0]
    return text


# ---- Cookies ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class StoredCookie:
    """A cookie and where it is sent (RFC 6265)."""

    name: str
    value: str
    host: str
    subdomains: bool
    path: str
    secure: bool
    expires: float | None = None

    def belongs_to(self, url: str) -> bool:
        """Whether a request for the URL carries it."""
        parts = urlsplit(url)
        host, path = parts.hostname or "", parts.path or "/"
        if host != self.host and not (self.subdomains and host.endswith(f".{self.host}")):
            return False
        if self.secure and parts.scheme != "https":
            return False
        if not path.startswith(self.path):
            return False
        return self.path.endswith("/") or path[len(self.path) : len(self.path) + 1] in ("", "/")


class CookieJar:
    """The cookies of one fetch: the client's and those that servers set on the way."""

    def __init__(self) -> None:
        self._cookies: dict[tuple[str, str, bool, str], StoredCookie] = {}

    def _store(self, cookie: StoredCookie) -> None:
        key = (cookie.name, cookie.host, cookie.subdomains, cookie.path)
        if cookie.expires is not None and cookie.expires <= time.time():
            self._cookies.pop(key, None)
        elif key in self._cookies or len(self._cookies) < MAX_COOKIES:
            self._cookies[key] = cookie

    def add(self, cookie: Cookie, page_url: str) -> None:
        """A cookie of the client's, which belongs to the page's host unless it says otherwise."""
        owner = urlsplit(network.parse_url(cookie.url) if cookie.url else page_url)
        host = (cookie.domain or owner.hostname or "").lower()
        secure = cookie.secure or (cookie.url is not None and owner.scheme == "https")
        expires = None if cookie.expires is None or cookie.expires < 0 else cookie.expires
        self._store(
            StoredCookie(
                cookie.name,
                cookie.value,
                host.removeprefix("."),
                host.startswith("."),
                cookie.path or "/",
                secure,
                expires,
            )
        )

    def take(self, lines: list[str], url: str) -> None:
        """The cookies of `Set-Cookie` headers in an answer from a URL; what a browser would refuse is left out."""
        for line in lines[:MAX_COOKIES]:
            cookie = _parsed_cookie(line, url)
            if cookie is not None:
                self._store(cookie)

    def header(self, url: str) -> str:
        """The value of the header `Cookie`, longer paths first."""
        fitting = [cookie for cookie in self._cookies.values() if cookie.belongs_to(url)]
        fitting.sort(key=lambda cookie: -len(cookie.path))
        return "; ".join(f"{cookie.name}={cookie.value}" if cookie.name else cookie.value for cookie in fitting)


def _parsed_cookie(line: str, url: str) -> StoredCookie | None:
    """The cookie of one `Set-Cookie` header (RFC 6265bis section 5.6), None for one that is refused."""
    pair, *rest = line.split(";")
    name, equals, value = pair.partition("=")
    name, value = (name.strip(), value.strip()) if equals else ("", name.strip())
    if len((name + value).encode()) > network.MAX_COOKIE_BYTES or not (name or value):
        return None
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line):
        return None
    attributes: dict[str, str] = {}
    for attribute in rest:
        key, _, said = attribute.partition("=")
        # The last of each counts; longer ones are ignored.
        if len(said) <= 1024:
            attributes[key.strip().lower()] = said.strip()
    parts = urlsplit(url)
    origin_host, secure = parts.hostname or "", "secure" in attributes
    domain = attributes.get("domain", "").removeprefix(".").lower()
    # No list of public suffixes: names of one label and addresses are what can be told without.
    parent = "." in domain and host_literal(origin_host) is None and origin_host.endswith(f".{domain}")
    if domain not in ("", origin_host) and not parent:
        return None
    path = attributes.get("path", "")
    if not path.startswith("/"):
        path = parts.path[: parts.path.rfind("/")] or "/"
    if secure and parts.scheme != "https":
        return None
    prefix = name.lower()
    if prefix.startswith(("__secure-", "__host-")) and not secure:
        return None
    if prefix.startswith("__host-") and (domain or path != "/"):
        return None
    return StoredCookie(name, value, domain or origin_host, bool(domain), path, secure, _expiry(attributes))


def _expiry(attributes: dict[str, str]) -> float | None:
    """When a cookie ends, in seconds since 1970; None for one that stays."""
    age = attributes.get("max-age", "")
    if re.fullmatch(r"-?[0-9]{1,20}", age):
        return time.time() + int(age) if int(age) > 0 else 0.0
    date = attributes.get("expires", "")
    if not date or len(date) > 100:
        return None
    try:
        ends: float | None = http.cookiejar.http2time(date)  # type: ignore[attr-defined]  # not in the stubs
    except (ValueError, OverflowError):
        return None
    return ends
