"""One document without a browser: a plain GET by the egress policy, with a browser's headers, cookies and errors.

h11 speaks HTTP, as no client fits: httpx leaves the generators of unread bodies behind, of which trio warns. Redirects,
credentials and limits are Chromium's, so that a client meets the same errors as with a browser. Digest authentication
is our own: the standard library's knows neither SHA-256 (before Python 3.14) nor session keys.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import html
import itertools
import re
import secrets
import ssl
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from email.message import Message
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import Request, parse_http_list, parse_keqv_list

import attrs
import certifi
import h11._readers
import trio
import webencodings

from . import network
from .authorities import Authorities
from .document import absolute_url
from .egress import BAD_PORTS, AddressPolicy, Failure, Ledger, connect
from .emulation import languages
from .errors import NavigationError, NotAPage, TooLarge
from .frame import MAX_HTML_BYTES
from .options import Auth, Cookie, PageOptions

MAX_REDIRECTS = 19
"""Chromium 156 follows so many and gives up at the twentieth."""
MAX_ENCODINGS = 3
"""Content encodings around each other; each may multiply the work of the next."""
MAX_COOKIES = 180
"""Taken from one answer, as many as Chromium keeps per site; a hostile head has 40,000."""
MAX_COOKIE_CHARS = 2**12
"""Of one line; in a longer one the standard library may meet a number that it cannot read, and writes a traceback."""
MAX_HEAD_BYTES = 2**18
"""Status line and headers of an answer, as in Chromium."""
MAX_CHALLENGE_CHARS = 2**13
RECEIVE_BYTES = 2**16
PRESCAN_BYTES = 1024
"""How far a document's own word about its encoding is looked for (HTML Standard, "encoding sniffing algorithm")."""
SNIFF_BYTES = 1445
"""What decides about the kind of a body without a content type (MIME Sniffing Standard)."""
ESCAPE_SLICE = 2**20
PIECE_BYTES = 2**18
"""A decoder gives no more at once, whatever a bomb would become."""

# h11 0.16 looks for white space before a value, for the value, and for white space after it: in a line of nothing else
# that ends in a fault this takes the square of its length (2 minutes for `MAX_HEAD_BYTES`, while everybody waits), and
# a chunk's extension the same. What is possessive is not tried again. For our own server too, which has h11 as well.
_OWN = h11._readers.header_field_re.pattern.replace(rb"[ \t]*", rb"[ \t]*+")
h11._readers.header_field_re = re.compile(_OWN)
h11._readers.chunk_header_re = re.compile(rb"(?P<chunk_size>[0-9A-Fa-f]{1,20})(?P<chunk_ext>;[^\r\n]*+)?[ \t]*+\r\n")

# Of Chromium 156, without the exchange format that only browsers read.
_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,image/jxl,image/avif,image/webp,image/apng,*/*;q=0.8"
# As a browser says it: many sites answer others with something else.
USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
_REDIRECTS = (301, 302, 303, 307, 308)
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
_CHARSET = re.compile(r";\s*charset\s*=\s*[\"']?([^\s\"';]+)", re.IGNORECASE)


@attrs.frozen
class Fetched:
    """A document and where it came from."""

    url: str
    """The URL at the end of all redirects, without credentials."""
    status_code: int
    redirects: tuple[str, ...]
    """The URLs whose servers redirected, the first first."""
    html: str
    """The document. A text or JSON document is wrapped in `<pre>`, as browsers do to show it."""
    ledger: Ledger
    """What passed on the way."""


async def fetch(
    policy: AddressPolicy,
    options: PageOptions,
    *,
    user_agent: str = USER_AGENT,
    max_bytes: int = MAX_HTML_BYTES,
    authorities: Authorities | None = None,
    ledger: Ledger | None = None,
) -> Fetched:
    """Get the document at `options.url`, which is canonical.

    Of the options, `url`, `headers`, `cookies`, `referer`, `auth`, `user_agent`, `locale` and `ignore_tls_errors`
    count. `user_agent` is what is said without the option. `max_bytes` is the limit of the decoded body.
    `authorities` are trusted beside those that certifi lists, as Chromium has its own. What passes is counted in
    `ledger`, by default a new one, up to the policy's own `max_bytes`.

    Raises NavigationError, NotAPage, TooLarge. Cancellation closes the connection at once.
    """
    checked = not options.ignore_tls_errors
    trust = await trio.to_thread.run_sync(_tls, checked, authorities, abandon_on_cancel=True)
    ledger = ledger or policy.ledger()
    return await _Fetch(policy, trust, options, user_agent, max_bytes, ledger).run()


@functools.cache
def _tls(checked: bool, authorities: Authorities | None) -> ssl.SSLContext:
    # Reading the authorities takes 30 ms, once.
    context = ssl.create_default_context(cafile=certifi.where())
    if authorities is not None:
        authorities.trust_in(context)
    if not checked:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


# ---- One connection --------------------------------------------------------------------------------------------------


Headers = list[tuple[bytes, bytes]]


class _Counted(trio.abc.Stream):
    """A socket whose bytes are counted; raises TooLarge over the ledger's limit."""

    def __init__(self, sock: trio.SocketStream, ledger: Ledger) -> None:
        self._sock = sock
        self._ledger = ledger

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._count(sent=len(data))
        await self._sock.send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._sock.receive_some(max_bytes)
        self._count(received=len(data))
        return data

    async def wait_send_all_might_not_block(self) -> None:
        await self._sock.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._sock.aclose()

    def _count(self, *, received: int = 0, sent: int = 0) -> None:
        self._ledger.count(received=received, sent=sent)
        if self._ledger.over.is_set():
            raise TooLarge(self._ledger.over_text)


class _Connection:
    """HTTP/1.1 with one server, for one request."""

    def __init__(self, sock: trio.SocketStream, ledger: Ledger) -> None:
        self.sock = sock
        self.received = False
        """Something came."""
        self.response: h11.Response | None = None
        """The head of the answer, once it is there."""
        self._stream: trio.abc.Stream = _Counted(sock, ledger)
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def secure(self, trust: ssl.SSLContext, host: str) -> None:
        # https_compatible: a server that ends without close_notify reads as an end, as in browsers.
        self._stream = trio.SSLStream(self._stream, trust, server_hostname=host, https_compatible=True)
        await self._stream.do_handshake()

    async def ask(self, target: str, headers: Headers) -> h11.Response:
        """Send a GET and wait for the head of the answer."""
        events = (h11.Request(method="GET", target=target, headers=headers), h11.EndOfMessage())
        await self._stream.send_all(b"".join(self._protocol.send(event) or b"" for event in events))
        while not isinstance(event := await self.next_event(), h11.Response):
            pass
        self.response = event
        return event

    async def next_event(self) -> h11.Event:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            data = await self._stream.receive_some(RECEIVE_BYTES)
            self.received = self.received or bool(data)
            self._protocol.receive_data(bytes(data))
        assert not isinstance(event, type)
        return event


# ---- The exchange ----------------------------------------------------------------------------------------------------


class _Fetch:
    """One document, from the first request to the last byte."""

    def __init__(
        self,
        policy: AddressPolicy,
        trust: ssl.SSLContext,
        options: PageOptions,
        user_agent: str,
        max_bytes: int,
        ledger: Ledger,
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._trust = trust
        self._options = options
        self._user_agent = options.user_agent or user_agent
        self._max_bytes = max_bytes
        url = absolute_url(None, options.url or "")
        assert url is not None
        self._url, self._credentials = _without_credentials(url)
        self._own_origin = network.origin_of(self._url)
        self._own_credentials = options.auth or self._credentials
        self._authorization: str | None = None
        """The answer to the challenge of the current URL."""
        self._redirects: list[str] = []
        self._cookies = Cookies()
        for cookie in options.cookies:
            self._cookies.add(cookie, self._url)

    async def run(self) -> Fetched:
        """Follow redirects and challenges to the document."""
        while True:
            host, port = network.endpoint_of(self._url)
            if port in BAD_PORTS:
                # Without asking the policy, as Chromium.
                raise NavigationError("net::ERR_UNSAFE_PORT")
            sock = await connect(self._policy, host, port)
            if isinstance(sock, Failure):
                self._ledger.record(host, port, sock)
                raise sock.error()
            self._ledger.connected(host, port)
            connection = _Connection(sock, self._ledger)
            try:
                if self._url.startswith("https:"):
                    await connection.secure(self._trust, host)
                response = await connection.ask(_target(self._url), self._headers())
                self._cookies.take(_values(response, "set-cookie"), self._url)
                if not self._goes_on(response):
                    return await self._read(connection, response)
            except (trio.BrokenResourceError, h11.RemoteProtocolError, zlib.error) as error:
                raise NavigationError(f"net::ERR_{_fault(error, connection)}") from error
            finally:
                # Needs no await, so that cancellation leaves nothing open.
                connection.sock.socket.close()

    def _headers(self) -> Headers:
        spoken = languages(self._options.locale)
        headers = {
            "Host": urlsplit(self._url).netloc,
            "Connection": "keep-alive",
            "Upgrade-Insecure-Requests": "1",
            "User-Agent": self._user_agent,
            # As Chromium makes it of a locale, which has one or two.
            "Accept-Language": ",".join(spoken) + (";q=0.9" if len(spoken) == 2 else ""),
            "Accept": _ACCEPT,
            "Sec-Fetch-Site": "none",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-User": "?1",
            "Sec-Fetch-Dest": "document",
        }
        if network.origin_of(self._url) == self._own_origin:
            if self._options.referer is not None:
                headers["Referer"] = self._options.referer
            headers = _merged(headers, self._options.headers)
        # Nothing else can be decoded here, whatever the client says.
        ours = {"Accept-Encoding": "gzip, deflate"}
        if self._authorization is not None:
            ours["Authorization"] = self._authorization
        if cookies := self._cookies.header(self._url):
            ours["Cookie"] = cookies
        headers = _merged(headers, ours)
        return [(name.encode(), value.strip().encode(errors="replace")) for name, value in headers.items()]

    def _goes_on(self, response: h11.Response) -> bool:
        """Whether another request must follow, which is then ready to be made."""
        location = next(filter(None, _values(response, "location")), None)
        if response.status_code in _REDIRECTS and location is not None:
            self._redirect(location)
            return True
        if response.status_code == 401 and self._authorization is None:
            self._authorization = self._answer(_values(response, "www-authenticate"))
            return self._authorization is not None
        return False

    def _redirect(self, location: str) -> None:
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
        self._authorization = None

    def _answer(self, challenges: list[str]) -> str | None:
        """The answer to a challenge, where there are credentials for the origin that asks."""
        own = network.origin_of(self._url) == self._own_origin
        auth = self._own_credentials if own else self._credentials
        if auth is None:
            return None
        parameters = _by_scheme(challenges)
        digest = _digest(auth, parameters["digest"], _target(self._url)) if "digest" in parameters else None
        if digest is None and "basic" in parameters:
            return "Basic " + b64encode(f"{auth.username}:{auth.password}".encode()).decode()
        return digest

    async def _read(self, connection: _Connection, response: h11.Response) -> Fetched:
        """The document of the last answer."""
        if response.status_code in (204, 205):
            raise NotAPage(f"the server answered {response.status_code}, without a document")
        said_type, charset = _content_type(response)
        _check_page(response, said_type)
        decoders = _decoders(response)
        body = bytearray()
        while isinstance(event := await connection.next_event(), h11.Data):
            for piece in _decoded(decoders, bytes(event.data)):
                body += piece
                if len(body) > self._max_bytes:
                    raise TooLarge(f"the document is over the limit of {self._max_bytes // 2**20} MiB of HTML")
                await trio.lowlevel.checkpoint()
        if said_type in (None, "text/plain"):
            _check_page(response, _sniffed(body))
        is_markup = _MARKUP_TYPES.fullmatch(said_type or _sniffed(body)) is not None
        # Up to 0.5 s for what is over the limit by little, and 1.5 s to escape it.
        text = await trio.to_thread.run_sync(_text, bytes(body), charset, is_markup, abandon_on_cancel=True)
        return Fetched(self._url, response.status_code, tuple(self._redirects), text, self._ledger)


def _text(body: bytes, charset: str | None, is_markup: bool) -> str:
    """The document as HTML."""
    text = decode(body, charset)
    if is_markup:
        return text
    # Slice by slice, between which other threads get the interpreter.
    slices = (text[at : at + ESCAPE_SLICE] for at in range(0, len(text), ESCAPE_SLICE))
    return f"<pre>\n{''.join(html.escape(one, quote=False) for one in slices)}</pre>"


def _target(url: str) -> str:
    """What a request line says of a URL."""
    return urlsplit(url)._replace(scheme="", netloc="", fragment="").geturl()


def _without_credentials(url: str) -> tuple[str, Auth | None]:
    """A URL without user and password, and these."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, None
    auth = Auth(unquote(parts.username or ""), unquote(parts.password or ""))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), auth


def _merged(own: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in network.merged_headers(own, extra)}


def _values(response: h11.Response, name: str) -> list[str]:
    """All values of a header, in UTF-8 as far as they are, else byte by byte."""
    return [_header_text(value) for key, value in response.headers if key == name.encode()]


def _header_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


# ---- Faults ----------------------------------------------------------------------------------------------------------

# By OpenSSL's codes (`X509_V_ERR_*`); most others mean that there is no chain to an authority that is trusted.
_CERTIFICATE_FAULTS = {9: "DATE_INVALID", 10: "DATE_INVALID", 62: "COMMON_NAME_INVALID", 64: "COMMON_NAME_INVALID"}
_CIPHER_REASONS = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "SSLV3_ALERT_HANDSHAKE_FAILURE")


def _fault(error: Exception, connection: _Connection) -> str:
    """What Chromium calls what became of a connection, without `net::ERR_`."""
    if isinstance(error, zlib.error):
        return "CONTENT_DECODING_FAILED"
    if isinstance(error, h11.RemoteProtocolError):
        return _protocol_fault(error, connection)
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"CERT_{_CERTIFICATE_FAULTS.get(cause.verify_code, 'AUTHORITY_INVALID')}"
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return "SSL_VERSION_OR_CIPHER_MISMATCH" if cause.reason in _CIPHER_REASONS else "SSL_PROTOCOL_ERROR"
    if isinstance(cause, OSError) and cause.errno in (errno.ECONNRESET, errno.EPIPE):
        return "CONNECTION_RESET"
    return "CONNECTION_CLOSED"


def _protocol_fault(error: h11.RemoteProtocolError, connection: _Connection) -> str:
    if connection.response is None:
        if error.error_status_hint == 431:
            return "RESPONSE_HEADERS_TOO_BIG"
        return "INVALID_HTTP_RESPONSE" if connection.received else "EMPTY_RESPONSE"
    # Only h11's words tell a body that ends early from one that is no HTTP.
    if "peer closed connection" not in str(error):
        return "INVALID_CHUNKED_ENCODING"
    chunked = _values(connection.response, "transfer-encoding")
    return "INCOMPLETE_CHUNKED_ENCODING" if chunked else "CONTENT_LENGTH_MISMATCH"


# ---- Authentication --------------------------------------------------------------------------------------------------

_SCHEME_START = re.compile(r"(?:^|,)\s*([A-Za-z]+)(?:\s+(?=[^\s=])|\s*(?=,|$))")
_HASHES = {"MD5": "md5", "SHA-256": "sha256"}


def _by_scheme(challenges: list[str]) -> dict[str, str]:
    """The parameters of each scheme, the first of each, by its name in lower case."""
    found: dict[str, str] = {}
    for value in challenges:
        starts = list(_SCHEME_START.finditer(value[:MAX_CHALLENGE_CHARS]))
        for start, following in itertools.zip_longest(starts, starts[1:]):
            found.setdefault(start[1].lower(), value[start.end() : following.start() if following else None])
    return found


def _digest(auth: Auth, challenge: str, target: str) -> str | None:
    """The answer to a digest challenge (RFC 7616); None for one that nobody understands."""
    try:
        said = {key.lower(): value for key, value in parse_keqv_list(parse_http_list(challenge)).items()}
    except (ValueError, IndexError):
        return None
    algorithm, session, _ = said.get("algorithm", "MD5").upper().partition("-SESS")
    qops = {qop.strip().lower() for qop in said.get("qop", "").split(",")}
    if algorithm not in _HASHES or not {"realm", "nonce"} <= said.keys() or qops.isdisjoint(("", "auth")):
        return None

    def digest(*parts: str) -> str:
        return hashlib.new(_HASHES[algorithm], ":".join(parts).encode(), usedforsecurity=False).hexdigest()

    client_nonce, count = secrets.token_hex(8), "00000001"
    secret = digest(auth.username, said["realm"], auth.password)
    if session:
        secret = digest(secret, said["nonce"], client_nonce)
    middle = (count, client_nonce, "auth") if "auth" in qops else ()
    quoted = {
        "username": auth.username,
        "realm": said["realm"],
        "nonce": said["nonce"],
        "uri": target,
        "response": digest(secret, said["nonce"], *middle, digest("GET", target)),
        "cnonce": client_nonce,
        **({"opaque": said["opaque"]} if "opaque" in said else {}),
    }
    bare = {"algorithm": said["algorithm"]} if "algorithm" in said else {}
    if middle:
        bare |= {"qop": "auth", "nc": count}
    escaped = {key: re.sub(r'(["\\])', r"\\\1", value) for key, value in quoted.items()}
    parts = [f'{key}="{value}"' for key, value in escaped.items()] + [f"{key}={value}" for key, value in bare.items()]
    return "Digest " + ", ".join(parts)


# ---- Kinds of answers ------------------------------------------------------------------------------------------------


def _content_type(response: h11.Response) -> tuple[str | None, str | None]:
    """MIME type and charset as the server says them; None for what it does not say, or says in no valid form."""
    said = _values(response, "content-type")
    types = [found[1].lower() for value in said if (found := _MIME_TYPE.match(value))]
    charsets = [found[1] for value in said if (found := _CHARSET.search(value))]
    return types[-1] if types else None, charsets[-1] if charsets else None


def _check_page(response: h11.Response, content_type: str | None) -> None:
    """Raise NotAPage for an answer that is no document; without a content type it may be one."""
    disposition = next(iter(_values(response, "content-disposition")), "").partition(";")[0].strip().lower()
    if not disposition or "=" in disposition or disposition == "inline":
        if content_type is None or _SHOWN_TYPES.fullmatch(content_type):
            return
        if content_type.startswith("text/") and content_type not in _DOWNLOADED_TEXTS:
            return
        kinds = {"application/pdf": "a PDF", "image": "an image", "audio": "a sound", "video": "a video"}
        kind = kinds.get(content_type) or kinds.get(content_type.partition("/")[0], "a download")
    else:
        kind = "a download"
    length = next(iter(_values(response, "content-length")), None)
    raise NotAPage(kind, content_type, int(length) if length is not None else None)


_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_MARKUP_START = re.compile(rb"[\t\n\f\r ]*<(?:!doctype html|!--|\??[a-z][a-z0-9]*[ />?])", re.IGNORECASE)


def _sniffed(body: bytearray) -> str:
    """The MIME type of a body that the server gave none (MIME Sniffing Standard, the parts that matter here)."""
    head = bytes(body[:SNIFF_BYTES])
    if head.startswith(b"%PDF-"):
        return "application/pdf"
    if not head.startswith(_BYTE_ORDER_MARKS) and _BINARY.search(head):
        return "application/octet-stream"
    return "text/html" if _MARKUP_START.match(head) else "text/plain"


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


def _decoders(response: h11.Response) -> list[Inflater]:
    """What undoes the encodings of a body, the last one first."""
    said = ",".join(_values(response, "content-encoding")).lower().split(",")
    names = [name for part in said if (name := part.strip()) not in ("", "identity")]
    if not {"gzip", "x-gzip", "deflate", "br", "zstd"}.issuperset(names):
        # Chromium leaves the body as it is when it does not know one of them.
        return []
    if len(names) > MAX_ENCODINGS or not {"br", "zstd"}.isdisjoint(names):
        raise NavigationError("net::ERR_CONTENT_DECODING_FAILED")
    return [Inflater(name) for name in reversed(names)]


def _decoded(decoders: list[Inflater], data: bytes) -> Iterator[bytes]:
    if not decoders:
        yield data
        return
    for piece in decoders[0].feed(data):
        yield from _decoded(decoders[1:], piece)


_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_DECLARED = re.compile(rb"<(?:meta\s[^>]*?charset|\?xml\s[^>]*?encoding)\s*=\s*[\"']?\s*([^\s\"'/>;]+)", re.IGNORECASE)


def decode(body: bytes, charset: str | None) -> str:
    """The text of a document: by its byte order mark, the server's word, its own word, else UTF-8 or windows-1252.

    What is no text in its encoding becomes U+FFFD.
    """
    encoding = webencodings.lookup(charset or "")
    for label in _DECLARED.findall(_COMMENT.sub(b"", body[:PRESCAN_BYTES])):
        if encoding is None and (encoding := webencodings.lookup(label.decode("latin-1"))):
            # A document whose declaration could be read is not in UTF-16 (HTML Standard).
            encoding = webencodings.UTF8 if encoding.name.startswith("utf-16") else encoding
    if encoding is None:
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    return webencodings.decode(body, encoding or "windows-1252", "replace")[0]


# ---- Cookies ---------------------------------------------------------------------------------------------------------


class Cookies:
    """The cookies of one fetch: the client's and those that servers set on the way."""

    def __init__(self) -> None:
        # One that names no domain stays with its host, as in browsers.
        self._jar = CookieJar(DefaultCookiePolicy(strict_ns_domain=DefaultCookiePolicy.DomainStrictNonDomain))

    def add(self, cookie: Cookie, page_url: str) -> None:
        """A cookie of the client's, which belongs to the page's host unless it says otherwise."""
        if cookie.expires is not None and 0 <= cookie.expires <= time.time():
            return
        line = f"{cookie.name}={cookie.value}; Path={cookie.path or '/'}" + ("; Secure" if cookie.secure else "")
        owner = network.parse_url(cookie.url) if cookie.url else page_url
        if cookie.domain:
            owner = f"http://{cookie.domain.removeprefix('.')}/"
            line += f"; Domain={cookie.domain}" if cookie.domain.startswith(".") else ""
        self.take([line], owner)

    def take(self, lines: list[str], url: str) -> None:
        """The cookies of `Set-Cookie` headers in an answer from a URL; what a browser would refuse is left out."""
        # One at a time: a later line may take back what an earlier one set.
        for line in lines[:MAX_COOKIES]:
            if len(line) > MAX_COOKIE_CHARS:
                continue
            message = Message()
            message["Set-Cookie"] = line
            answer: Any = SimpleNamespace(info=lambda message=message: message)
            self._jar.extract_cookies(answer, Request(url))

    def header(self, url: str) -> str | None:
        """The value of the header `Cookie`, longer paths first."""
        request = Request(url)
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie")
