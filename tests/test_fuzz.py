"""Whatever a client sends, over a real socket to the real process: no 5xx, no hang, no growth, no traceback.

What is sent is made of the request classes themselves, so that a new field is among it without a word here: values
within the limits of its type, just beyond them, and of no sense. Then every route with odd paths, queries and headers,
and bytes that are hardly HTTP, in pieces, several requests at once.

The short form is the same in every run. The long one (`-m slow`) takes a seed of its own and prints it;
`FUZZ_SEED` repeats it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import random
import re
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import quote, urlencode

import attrs
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from cdp.options import Action, Length, OneOrMore, Range
from cdp.validation import ValidationError, fields_of
from cleariflow import (
    ERROR_CODES,
    HTTP_STATUS,
    REQUEST_CLASSES,
    Config,
    ListQuery,
    ReadQuery,
    ServiceName,
    StatusPattern,
    parse_request,
    request_document,
)
from tests.test_end_to_end import LISTENING, PROGRAM

JSON = b"application/json"
# Longest wait for an answer.
ANSWER_S = 10.0
# After so long without a byte the rest of a broken exchange is given up, by closing our side.
SILENCE_S = 0.15
# What a service may hold more after the second half of the examples than after the first: its own room to breathe.
MORE_FILES, MORE_THREADS, MORE_BYTES = 4, 4, 24 * 2**20

CODES = {*HTTP_STATUS, *ERROR_CODES, "conflict"}


class Hang(BaseException):
    """No answer came in time. No Exception: hypothesis would look for a shorter example, and hang with each."""


# ---- The service under test ------------------------------------------------------------------------------------------


@attrs.frozen
class Reply:
    """One answer, as far as it came."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    whole: bool
    """All that its head announces is there."""

    @property
    def is_json(self) -> bool:
        return self.headers.get(b"content-type", b"").startswith(JSON)


@attrs.define(eq=False)
class Target:
    """A running service and the lines of its log."""

    process: subprocess.Popen[str]
    port: int
    site: str
    log: list[str]

    @contextlib.contextmanager
    def connection(self, sent: bytes) -> Iterator[socket.socket]:
        """A connection on which nothing takes longer than `ANSWER_S`."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), ANSWER_S) as stream:
                yield stream
        except TimeoutError as error:
            raise Hang(f"no answer within {ANSWER_S:g} s to {sent!r}") from error

    def exchange(self, *pieces: bytes) -> bytes:
        """What comes back until the service closes, each piece sent by itself; it must close in time."""
        got = bytearray()
        with self.connection(b"".join(pieces)) as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # It may refuse before it has all.
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    stream.sendall(piece)
            stream.settimeout(SILENCE_S)
            with contextlib.suppress(ConnectionError):
                while True:
                    try:
                        chunk = stream.recv(2**16)
                    except TimeoutError:
                        if stream.gettimeout() == ANSWER_S:
                            raise
                        stream.settimeout(ANSWER_S)
                        # It waits for more, which does not come.
                        stream.shutdown(socket.SHUT_WR)
                        continue
                    if not chunk:
                        break
                    got += chunk
        return bytes(got)

    def ask(self, method: str, target: str, body: bytes | None = None, *lines: bytes) -> Reply:
        """One request on a connection of its own, and its answer, held to the contract."""
        length = [b"Content-Type: application/json", b"Content-Length: %d" % len(body)] if body is not None else []
        head = [f"{method} {target} HTTP/1.1".encode(), b"Host: localhost", b"Connection: close", *length, *lines]
        request = b"\r\n".join([*head, b"", b""]) + (body or b"")
        with self.connection(request) as stream:
            with contextlib.suppress(ConnectionError):
                stream.sendall(request)
            got = bytearray()
            with contextlib.suppress(ConnectionError):
                while chunk := stream.recv(2**18):
                    got += chunk
        replies = read_replies(bytes(got), bodiless=method == "HEAD")
        assert len(replies) == 1, got[:500]
        hold_to_contract(replies[0], may_be_empty=method == "HEAD")
        return replies[0]

    def figures(self) -> dict[str, int]:
        """What must not grow; after the answer to one more request, so that what was closed is gone."""
        self.ask("GET", "/livez")
        process = psutil.Process(self.process.pid)
        return {
            "files": process.num_fds(),
            "threads": process.num_threads(),
            "bytes": process.memory_info().rss,
            "running": len(json.loads(self.ask("GET", "/v1/jobs?status=running").body)["jobs"]),
        }

    def at_rest(self) -> dict[str, int]:
        """The figures once no job runs and no file of a connection is left that was open a moment ago."""
        lowest = self.figures()
        for _ in range(2000):
            now = self.figures()
            if now["running"] == 0 and now["files"] >= lowest["files"]:
                return now
            lowest = now
        return lowest

    def faults(self) -> list[str]:
        """Lines of the log that nobody outside may cause."""
        return [line for line in self.log if re.search(r"ERROR|Traceback|a connection broke|internal", line)]


class Pages(BaseHTTPRequestHandler):
    """A small page under every path."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>small</title><p id=a>words <a href=/b>more</a><input>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A service for all tests here, with a browser and with pages to open."""
    flags = ["--port", "0", "--allow-network", "127.0.0.0/8", "--workers", "2", "--queue-limit", "100000"]
    folder = tmp_path_factory.mktemp("fuzzed")
    command = [sys.executable, str(PROGRAM), *flags, "--data-dir", str(folder)]
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Pages) as pages,
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        log: list[str] = []
        found = None
        while found is None:
            log.append(process.stderr.readline())
            assert log[-1], f"it ended before it listened: {log}"
            found = LISTENING.search(log[-1])
        threads = [
            threading.Thread(target=pages.serve_forever),
            threading.Thread(target=log.extend, args=[process.stderr]),
        ]
        for thread in threads:
            thread.start()
        yield Target(process, int(found[1].rpartition(":")[2]), f"http://127.0.0.1:{pages.server_port}", log)
        process.terminate()
        process.wait(30)
        pages.shutdown()
        for thread in threads:
            thread.join(10)


# ---- What the contract says of any answer ----------------------------------------------------------------------------


def read_replies(got: bytes, *, bodiless: bool = False) -> list[Reply]:
    """The answers in what came; a body that another answer follows, or none, had none."""
    replies = []
    while got:
        head, end, rest = got.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        found = re.fullmatch(rb"HTTP/1\.1 (\d{3}) .*", first)
        assert found is not None, got[:500]
        assert end, got[:500]
        status = int(found[1])
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
        size = int(headers.get(b"content-length", b"0"))
        body = b""
        if headers.get(b"transfer-encoding") == b"chunked" and not bodiless:
            body, rest = read_chunks(rest)
            size = len(body)
        elif not (bodiless or status in (204, 304) or status < 200 or re.match(rb"HTTP/1\.1 \d{3} ", rest)):
            body, rest = rest[:size], rest[size:]
        replies.append(Reply(status, headers, body, len(body) == size))
        got = rest
    return replies


def read_chunks(data: bytes) -> tuple[bytes, bytes]:
    """A chunked body and what follows it."""
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        count = int(size or b"0", 16)
        body, data = body + data[:count], data[count + 2 :]
        if count == 0:
            return body, data


def hold_to_contract(reply: Reply, *, may_be_empty: bool = False) -> None:
    """Section 4 of the contract, for any answer to anything."""
    shown = (reply.status, reply.headers, reply.body[:2000])
    assert reply.status < 500, shown
    assert b"Traceback" not in reply.body, shown
    assert b'File "' not in reply.body, shown
    if reply.status < 400 or not reply.whole:
        return
    if may_be_empty and not reply.body:
        return
    assert reply.is_json, shown
    told = json.loads(reply.body)
    assert told["ok"] is False, shown
    error = told["error"]
    assert error["code"] in CODES, shown
    assert error["message"], shown
    if reply.status == 400 and "job_id" not in error:
        assert isinstance(error["field"], str), shown
        assert all(fault.keys() == {"field", "message"} for fault in error["faults"]), shown


# ---- Values of the request classes -----------------------------------------------------------------------------------

Strategy = st.SearchStrategy[Any]

# Texts that mean something where a field is called so, at any depth; all others get any text.
SITE = "http://site.invalid"
TEXTS: Mapping[str, Sequence[str]] = {
    "url": [
        f"{SITE}/",
        f"{SITE}/a?b=c#d",
        "localhost:1",
        "http://10.0.0.1/",
        "http://[::1]/",
        "a.invalid",
        "ftp://a.b",
    ],
    "base_url": [f"{SITE}/", f"{SITE}/base/"],
    "html": ["<p id=a>x", "", "<title>t</title><script>document.title = 'u'</script>", "\ufeff<p>"],
    "referer": [f"{SITE}/from"],
    "selector": ["#a", "p", "text=words", "xpath=//p", "[", "a:has(b)", "text=", "*"],
    "to": ["top", "bottom", "#a"],
    "locale": ["en-US", "de-CH", "x", "zh-Hant-TW-u-nu-hanidec"],
    "timezone": ["UTC", "Europe/Zurich", "Mars/Olympus", "../etc/passwd"],
    "device": ["iPhone 15", "Pixel 5", "Nokia"],
    "key": ["Enter", "a", "Control+A", "Control++", "+", "Hyper+Q"],
    "name": ["one", "two", "image", "../x", "a b", "__Host-a", "a=b"],
    "domain": ["site.invalid", ".site.invalid", "127.0.0.1", "."],
    "path": ["/", "/a", "a"],
    "api_key": ["key"],
    "user_agent": ["Agent/1.0", "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0 Safari/537.36"],
    "expression": ["1", "false", "await 1", "("],
    "wait_for_expression": ["1", "document.title", "("],
    "script": ["1", "({}).x.y", "new Array(9)", "document.title", "1n", "while (0);", "Symbol()"],
    "js": ["1", "throw 1", "("],
    "css": ["p { color: red }", "}"],
}
ODD_TEXTS = [
    *("", " ", "\0", "\ud800", "a\r\nb: c", "\u202e", "\ufdfa", "'\"<>&;", "%00", "../" * 9, "{}", "null", "-1"),
    *("file:///etc/passwd", "http://[", "http://a.b:99999/", "http://169.254.169.254/", "javascript:1", "x" * 5000),
    *("http://user:pa%00ss@site.invalid/", "https://" + "a" * 300 + ".invalid", "//x", "\\\\x", "__class__", "💥"),
]
any_text = st.sampled_from(ODD_TEXTS) | st.text(st.characters(exclude_categories=()), max_size=20)
ODD_NUMBERS = [0, -1, 2**31, 2**63, 10**400, -0.0, 1e308, 5e-324, math.nan, math.inf]
any_number = st.sampled_from(ODD_NUMBERS) | st.floats()
any_value = st.recursive(
    st.none() | st.booleans() | any_number | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=5,
)


def parts_of(kind: Any) -> tuple[tuple[Any, ...], Any]:
    """What stands beside a type in `Annotated`, and the type, without None."""
    extras: tuple[Any, ...] = ()
    while True:
        arms = [arm for arm in get_args(kind) if arm is not type(None)]
        if get_origin(kind) is Annotated:
            kind, *more = arms
            extras += tuple(more)
        elif get_origin(kind) in (Union, types.UnionType) and len(arms) == 1:
            (kind,) = arms
        else:
            return extras, kind


def places_of(kind: Any) -> Iterator[tuple[Any, Any]]:
    """Ways to put one thing, written `None`, into a value of a type, and the type of that thing."""
    _, bare = parts_of(kind)
    yield None, kind
    if attrs.has(bare) and bare is not StatusPattern:
        inner = [(name, one) for name, kind in fields_of(bare).items() for one in places_of(kind)]
        yield from (({name: place}, leaf) for name, (place, leaf) in inner)
    elif bare == Action:
        for cls in get_args(Action):
            (name, *_) = get_args(fields_of(cls)["type"])
            yield from (({"type": name} | (place or {}), leaf) for place, leaf in places_of(cls))
    elif get_origin(bare) is tuple:
        yield from (([place], leaf) for place, leaf in places_of(get_args(bare)[0]))


def put(place: Any, thing: Any) -> Any:
    """The value with the thing in its place."""
    if place is None:
        return thing
    if isinstance(place, list):
        return [put(place[0], thing)]
    return {name: put(inner, thing) if name != "type" else inner for name, inner in place.items()}


@functools.cache
def good(kind: Any, field: str = "") -> Strategy:
    """Values that a type and its limits allow; its ends are as likely as all between."""
    extras, bare = parts_of(kind)
    length = next((extra for extra in extras if isinstance(extra, Length)), Length(0, 40))
    limits = next((extra for extra in extras if isinstance(extra, Range)), Range())
    beside = [good(extra) for extra in extras if isinstance(extra, type) and attrs.has(extra)]
    arms = get_args(bare)
    made: Strategy
    if bare is bool:
        made = st.booleans()
    elif bare in (int, float):
        low, high = limits.minimum, limits.maximum
        if bare is int:
            made = st.integers(None if low is None else math.ceil(low), None if high is None else math.floor(high))
        else:
            low = math.nextafter(limits.above, math.inf) if limits.above is not None else low
            made = st.floats(low, high, allow_nan=False, allow_infinity=False)
        made |= st.sampled_from([bare(end) for end in (low, high) if end is not None] or [bare(1)])
    elif bare is str:
        plain = st.characters(exclude_categories=("Cs", "Cc"))
        made = st.text(plain, min_size=length.minimum, max_size=min(length.maximum, length.minimum + 20))
        if field in TEXTS:
            made = st.sampled_from(TEXTS[field]) | st.sampled_from(TEXTS[field]) | made
    elif get_origin(bare) is Literal:
        made = st.sampled_from(arms)
    elif attrs.has(bare):
        made = st.sampled_from([404, "4xx", "5XX"]) if bare is StatusPattern else good_object(bare)
    elif get_origin(bare) is tuple:
        item = good(arms[0], field)
        # Some may come twice.
        made = st.lists(item, min_size=length.minimum, max_size=min(length.maximum, length.minimum + 2))
        made |= item if OneOrMore() in extras else st.nothing()
    elif bare == Mapping[str, str]:
        made = st.dictionaries(st.sampled_from(["X-A", "accept", "Cookie", "sec-x", "a b"]), any_text, max_size=2)
    elif get_origin(bare) in (Union, types.UnionType):
        made = st.one_of([good(arm, field) for arm in arms])
    else:
        raise TypeError(f"teach this function what {bare} is")
    return st.one_of([made, *beside])


def good_object(cls: type) -> Strategy:
    fields = fields_of(cls)
    required = {field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING}
    values = {name: good(kind, name) for name, kind in fields.items()}
    return st.fixed_dictionaries(
        {name: values[name] for name in required},
        optional={name: one for name, one in values.items() if name not in required},
    )


@functools.cache
def near(kind: Any, field: str = "") -> Strategy:
    """Values just beyond a type's limits, or of another type."""
    extras, bare = parts_of(kind)
    beyond: list[Any] = []
    for extra in extras:
        if isinstance(extra, Range):
            ends = [(extra.minimum, -1), (extra.maximum, 1), (extra.above, 0)]
            beyond += [value for end, step in ends if end is not None for value in (end + step, int(end) + step)]
        elif isinstance(extra, Length):
            counts = [count for count in (extra.minimum - 1, extra.maximum + 1) if 0 <= count < 5000]
            beyond += ["x" * count if bare is str else [None] * count for count in counts]
    made = st.sampled_from(beyond) if beyond else st.nothing()
    if attrs.has(bare) and bare is not StatusPattern:
        made |= mixed(bare)
    elif get_origin(bare) is tuple:
        made |= st.lists(near(get_args(bare)[0], field), min_size=1, max_size=2)
    elif get_origin(bare) in (Union, types.UnionType):
        made |= st.one_of([near(arm, field) for arm in get_args(bare)])
    return made | any_value


@functools.cache
def mixed(cls: type) -> Strategy:
    """An object of a class, most of it good."""
    fields = fields_of(cls)

    @st.composite
    def draw_one(draw: st.DrawFn) -> dict[str, Any]:
        names = draw(st.lists(st.sampled_from(sorted(fields)), max_size=5, unique=True))
        made = {name: near if draw(one_in_four) else good for name in names}
        given = {name: draw(make(fields[name], name)) for name, make in made.items()}
        if draw(one_in_four):
            given[draw(any_text)] = draw(any_value)
        return given

    return draw_one()


one_in_four = st.sampled_from([False, False, False, True])


@st.composite
def requests(draw: st.DrawFn, service: ServiceName) -> dict[str, Any]:
    """A request of a service; most have a URL."""
    request: dict[str, Any] = draw(mixed(REQUEST_CLASSES[service]))
    if "url" not in request and "html" not in request and not draw(one_in_four):
        request["url"] = draw(st.sampled_from(TEXTS["url"][:2]))
    return request


services = st.sampled_from(sorted(REQUEST_CLASSES))


@st.composite
def submissions(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path and a body to post there."""
    service = draw(services)
    body: Any = {"request": draw(requests(service))}
    if draw(one_in_four):
        body["priority"] = draw(st.integers(-(2**31), 2**31 - 1) | any_value)
    if draw(one_in_four):
        body["service"] = draw(services | any_value)
    if draw(one_in_four):
        body = draw(st.sampled_from([body["request"], [body]]) | any_value)
    path = draw(st.sampled_from([f"/{service}/v1/jobs", f"/{service}/v1/jobs", "/v1/jobs"]))
    data = json.dumps(body, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    if draw(one_in_four):
        data = draw(mutations(data))
    return path, data


# ---- Bytes -----------------------------------------------------------------------------------------------------------

PIECES = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b'"', b"\\", b"=", b"%", b"/", b"?", b"#", b"\xff"),
    *(b"%00", b"%2f", b"%2e%2e/", b"../", b"//", b"*", b"http://[", b"http://a/", b"HTTP/1.0", b"HTTP/9.9", b"GET "),
    *(b"\r\nHost: b", b"\r\n folded", b"\r\nContent-Length: 5", b"\r\nContent-Length: -1", b"\r\nContent-Length: 5, 5"),
    *(b"\r\nTransfer-Encoding: chunked", b"\r\nExpect: 100-continue", b"\r\nUpgrade: websocket\r\nConnection: upgrade"),
    *(b"\r\nContent-Encoding: gzip", b"\r\nConnection: close", b"\r\n\r\n", b"0\r\n\r\n", b"5;x=y\r\n", b"[" * 99),
    *(b'{"request": ', b"9" * 999, b"X: " + b" " * 999, b"\r\nX-HTTP-Method-Override: DELETE", b"\r\nUpgrade: h2c"),
]


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with some taken out, doubled, or others in between."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.sampled_from([0, 0, 1, 2, 10, 100])))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=4) | st.just(data[at:until] * 2))
        data = data[:at] + piece + data[until:]
    return data


def raw(method: str, path: str, body: bytes = b"", *lines: str) -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *length, *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


LAST = raw("GET", "/livez", b"", "Connection: close")
RAW = [
    LAST,
    raw("GET", "/v1/jobs?limit=2"),
    raw("GET", "/v1/jobs/00000000-0000-4000-8000-000000000000?wait=0"),
    raw("POST", "/v1/jobs", b'{"request": {}}'),
    raw("POST", "/scrape/v1/scrape", b'{"url": "ftp://a"}', "Expect: 100-continue"),
    raw("POST", "/v1/screenshot", b"", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n",
    raw("GET", "/v1/scrape?url=ftp://a.b&viewport.width=8"),
    raw("OPTIONS", "/v1/jobs"),
    raw("HEAD", "/readyz"),
    raw("CONNECT", "localhost:80"),
    raw("TRACE", "/"),
]


@st.composite
def wire(draw: st.DrawFn) -> list[bytes]:
    """Pieces to send on one connection: requests hurt in some place, or noise, cut at some places."""
    parts = draw(st.lists(st.sampled_from(RAW).flatmap(mutations) | st.sampled_from(RAW), min_size=1, max_size=3))
    data = b"".join(parts) + LAST if not draw(one_in_four) else draw(st.binary(max_size=300)) + b"".join(parts)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if end > start]


# ---- Reading ---------------------------------------------------------------------------------------------------------

header_value = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30)
READ_HEADERS: Mapping[str, Sequence[str]] = {
    "Range": [
        "bytes=0-4",
        "bytes=-5",
        "bytes=5-",
        "bytes=0-0,2-3",
        "bytes=-0",
        "bytes=1-1,3-4",
        "bytes=9-1",
        "bytes=0-999",
    ],
    "If-None-Match": ["*", '"x"', 'W/"x", ' * 99, '"'],
    "If-Match": ["*", '"x"'],
    "If-Range": ['"x"', "Mon, 01 Jan 2024 00:00:00 GMT", "0"],
    "If-Modified-Since": [
        *("Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 99999999999 00:00:00 GMT", "0", "9" * 5000),
        "Mon, 01 Jan 2024 00:00:00 +99999999999999",
    ],
    "If-Unmodified-Since": ["Mon, 01 Jan 0001 00:00:00 +2359"],
    "Accept": ["*/*", "image/*", "text/html;q=x", "a/b;" * 99, ",".join(f"a/{n};q=0.{n}" for n in range(300)), "q=1;"],
    "Accept-Encoding": ["gzip", "br;q=0"],
    "Authorization": ["Bearer x", "Basic x", "Basic " + "=" * 99, "Digest a", "Bearer"],
    "X-API-Key": ["x"],
    "Cookie": ["a=b", "=" * 99, '"; ' * 99],
    "Content-Encoding": ["gzip"],
    "Content-Type": ["text/plain", "application/json; charset=utf-16", 'application/json; a="', "multipart/form-data"],
    "Sec-Fetch-Site": ["cross-site", "x"],
    "Origin": ["http://other.invalid", "null"],
    "X-Forwarded-Host": ["other.invalid"],
    "X-HTTP-Method-Override": ["DELETE"],
}
header_line = st.sampled_from(sorted(READ_HEADERS)).flatmap(
    lambda name: (st.sampled_from(READ_HEADERS[name]) | header_value).map(
        lambda value: f"{name}: {value}".encode("latin-1")
    )
)
# {0} is a job that is done.
PATHS = [
    *("/v1/jobs/{0}/result", "/v1/jobs/{0}/result", "/v1/jobs/{0}/result", "/v1/jobs/{0}/result/html", "/v1/jobs/{0}"),
    *("/v1/jobs", "/v1/jobs", "/v1/jobs/x", "/v1/screenshot", "/v1/scrape", "/livez", "/readyz", "/", "/v1"),
    *("/v1/jobs/", "/v1/jobs/{0}/retry", "/v1/jobs/{0}/events", "/metrics", "/livez%00", "/v1/events"),
    *("//v1/jobs", "/v1//jobs", "/./v1/jobs", "/v1/../v1/jobs", "/screenshot/../scrape/v1/jobs", "/scrape%2fv1/jobs"),
    *("/%73crape/v1/jobs", "/v1/jobs/{0}%2fresult", "/v1/jobs/{0}/result/..%2f..%2fjobs.journal", "/v1/jobs/%00"),
    *(
        "/v1/jobs/{0}/result/%2e%2e",
        "/v1/jobs/..",
        "/v1/jobs/%ff%fe",
        "/v1/jobs/" + "x" * 3000,
        "?",
        "*",
        "http://[::1",
    ),
    *("http://other.invalid/livez", "localhost:80", "/v1/jobs;x=y", "/v1/jobs#x", "/v1/jobs\\x", "/scrape", "http://["),
]
METHODS = ["GET", "GET", "GET", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "TRACE", "CONNECT", "POST", "get", "X"]


def query_values(cls: type) -> Strategy:
    """Query parameters for the fields of a class, dotted where one holds others."""
    names = []
    for name, kind in fields_of(cls).items():
        _, bare = parts_of(kind)
        names.append(name)
        if attrs.has(bare):
            names += [f"{name}.{inner}" for inner in fields_of(bare)]
    names += ["", ".", "..", "a.b.c.d.e.f", "viewport.__class__", "__init__", "url.url", "headers.X.Y", "wait.x"]
    known = ["1", "0", "true", "-1", "60", "1e308", "inf", "nan", "9" * 5000, "queued", '{"a": 1}', "[" * 99]
    text = st.sampled_from(known) | any_text.map(lambda given: given.encode(errors="replace").decode())
    return st.lists(st.tuples(st.sampled_from(names), text), max_size=4)


@st.composite
def readings(draw: st.DrawFn) -> tuple[str, str, list[bytes], bytes | None]:
    """Method, target, header lines and body of a request; never one that opens a page."""
    method, path = draw(st.sampled_from(METHODS)), draw(st.sampled_from(PATHS))
    cls = {"/v1/jobs": ListQuery, "/v1/screenshot": REQUEST_CLASSES["screenshot"]}.get(path, ReadQuery)
    pairs = draw(query_values(cls))
    if path in ("/v1/screenshot", "/v1/scrape"):
        pairs = [pair for pair in pairs if pair[0] not in ("url", "html")]
    query = urlencode(pairs)
    if draw(one_in_four):
        query += draw(st.sampled_from(["&", "&&=&", "&%", "&%ff=%fe", "?", "&a" * 500, "&wait=0&wait=0", ";limit=1"]))
    lines = draw(st.lists(header_line, max_size=3))
    body = draw(st.binary(max_size=50)) if method in ("POST", "PUT", "PATCH") else None
    return method, f"{path}?{query}" if query else path, lines, body


# ---- The runs --------------------------------------------------------------------------------------------------------


def fuzz(target: Target, strategy: Strategy, check: Callable[[Any], None], examples: int, number: int) -> None:
    """Check so many examples; half of them twice over may not make the service grow."""

    def run(count: int, start: int) -> dict[str, int]:
        @seed(start)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def run_all(example: Any) -> None:
            check(example)

        run_all()
        return target.at_rest()

    before = run(examples // 2, number)
    after = run(examples // 2, number + 1)
    assert after["files"] <= before["files"] + MORE_FILES, (before, after)
    assert after["threads"] <= before["threads"] + MORE_THREADS, (before, after)
    assert after["bytes"] <= before["bytes"] + MORE_BYTES, (before, after)
    assert target.process.poll() is None
    assert target.faults() == []


def fresh_seed() -> int:
    """Printed, so that a run can be repeated."""
    number = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(2**31))
    print(f"FUZZ_SEED={number}")
    return number


def fuzz_submissions(target: Target, examples: int, number: int, captures: int) -> None:
    """Submit; of what is taken some run to their end, the others are cancelled."""
    left = captures

    def check(example: tuple[str, bytes]) -> None:
        nonlocal left
        path, body = example
        body = body.replace(SITE.encode(), target.site.encode())
        reply = target.ask("POST", path, body)
        assert reply.status in (202, 400, 415), (reply, body)
        if reply.status == 400:
            return
        job_id = json.loads(reply.body)["job_id"]
        if left > 0 and (shorter := in_little_time(body)) is not None:
            left -= 1
            run_to_its_end(target, path, shorter)
        assert target.ask("DELETE", f"/v1/jobs/{job_id}").status == 200

    fuzz(target, submissions(), check, examples, number)


def in_little_time(body: bytes) -> bytes | None:
    """The submission with a time limit of its own."""
    given = json.loads(body)
    given["request"] |= {"timeout_ms": 2500, "retries": 0}
    return json.dumps(given).encode()


def run_to_its_end(target: Target, path: str, body: bytes) -> None:
    reply = target.ask("POST", path, body)
    if reply.status == 400:
        return
    job_id = json.loads(reply.body)["job_id"]
    for _ in range(10):
        job = json.loads(target.ask("GET", f"/v1/jobs/{job_id}?wait=8&result=false").body)
        if job["status"] in ("done", "failed"):
            break
    assert job["status"] in ("done", "failed"), (job, body)
    if job["status"] == "failed":
        detail = job["error_detail"]
        assert detail["code"] in ERROR_CODES.keys() - {"internal", "worker_lost", "browser_lost"}, (job, body)
        assert job["meta"]["attempts"] == 1, (job, body)


def fuzz_readings(target: Target, examples: int, number: int) -> None:
    """Any method and target, with any headers, while there is a result to read."""
    request = json.dumps({"request": {"url": target.site, "render": False}}).encode()
    submitted = target.ask("POST", "/scrape/v1/jobs", request)
    job_id = json.loads(submitted.body)["job_id"]
    assert json.loads(target.ask("GET", f"/v1/jobs/{job_id}?wait=8").body)["status"] == "done"

    def check(example: tuple[str, str, list[bytes], bytes | None]) -> None:
        method, path, lines, body = example
        path = quote(path.format(job_id), safe="%/?&=:;#[]*.+\\,@!$'()~")
        head = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", b"Connection: close", *lines]
        if body is not None:
            head.append(b"Content-Length: %d" % len(body))
        got = target.exchange(b"\r\n".join([*head, b"", b""]) + (body or b""))
        replies = read_replies(got, bodiless=method == "HEAD")
        assert len(replies) == 1, (example, got[:500])
        hold_to_contract(replies[0], may_be_empty=method == "HEAD")
        assert replies[0].whole or method == "HEAD", (example, got[:500])
        assert not 300 <= replies[0].status < 400 or replies[0].status == 304, (example, replies)

    fuzz(target, readings(), check, examples, number)


def fuzz_wire(target: Target, examples: int, number: int) -> None:
    """Bytes that are hardly HTTP."""

    def check(pieces: list[bytes]) -> None:
        # hypercorn refuses a websocket by itself, and the body of an answer to HEAD is not there.
        empty = re.search(b"websocket|HEAD", b"".join(pieces), re.IGNORECASE) is not None
        for reply in read_replies(target.exchange(*pieces)):
            hold_to_contract(reply, may_be_empty=empty)

    fuzz(target, wire(), check, examples, number)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(services.flatmap(lambda service: st.tuples(st.just(service), requests(service))))
def test_request_that_is_taken_is_the_same_when_it_is_read_again(example: tuple[ServiceName, dict[str, Any]]) -> None:
    service, fields = example
    try:
        request = parse_request(service, fields, Config())
    except ValidationError:
        return
    assert parse_request(service, request_document(request), Config()) == attrs.evolve(request, api_key=None)


FIELDS = sorted({name for cls in REQUEST_CLASSES.values() for name in fields_of(cls)})


@pytest.mark.parametrize("field", FIELDS)
def test_field_takes_or_refuses_odd_values_wherever_they_stand(field: str) -> None:
    for service, cls in REQUEST_CLASSES.items():
        for place, _ in places_of(fields_of(cls).get(field, str)):
            for value in (*ODD_TEXTS, *ODD_NUMBERS, None, True, [], {}, [[]], {"": ""}, {"\ud800": {}}):
                with contextlib.suppress(ValidationError):
                    request = parse_request(service, {"url": f"{SITE}/", field: put(place, value)}, Config())
                    # It is text and numbers that everybody takes.
                    json.dumps(request_document(request), ensure_ascii=False, allow_nan=False).encode()


def test_submissions_of_any_kind_are_taken_or_refused_by_name(target: Target) -> None:
    fuzz_submissions(target, 120, 1, captures=6)


def test_readings_of_any_kind_have_an_answer_of_the_contract(target: Target) -> None:
    fuzz_readings(target, 300, 1)


def test_bytes_of_any_kind_have_an_answer_or_an_end(target: Target) -> None:
    fuzz_wire(target, 150, 1)


@pytest.mark.slow
def test_many_submissions_of_any_kind_are_taken_or_refused_by_name(target: Target) -> None:
    fuzz_submissions(target, 4000, fresh_seed(), captures=200)


@pytest.mark.slow
def test_many_readings_of_any_kind_have_an_answer_of_the_contract(target: Target) -> None:
    fuzz_readings(target, 8000, fresh_seed())


@pytest.mark.slow
def test_many_bytes_of_any_kind_have_an_answer_or_an_end(target: Target) -> None:
    fuzz_wire(target, 4000, fresh_seed())
