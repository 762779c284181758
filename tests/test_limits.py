"""What is too long, too many or read in two ways, from clients and from pages: refused by name, in little time.

Limits of single fields are in test_validation.py, of connections in test_http.py; here is what takes more than one of
them, or took more time than its length.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import cattrs
import h11._readers
import pytest
import trio

import cdp
import cleariflow
from cdp import visit
from cdp.errors import TooLarge
from cdp.network import parse_url
from cdp.options import MAX_GLOB_CHARS, MAX_HEADER_CHARS, MAX_TEXT, Length, PageOptions, WaitFor
from cdp.page import MAX_REPORTED_CHARS
from cdp.validation import MAX_FAULTS, ValidationError, converter, faults_of, fields_of
from cdp.visit import Progress, Visit
from cleariflow import KEPT_FIELD_CHARS, MAX_HEAD_BYTES, MAX_HEADERS, REQUEST_CLASSES, Config, State, parse_request
from tests.conftest import LOOPBACK
from tests.site import Answer, Exchange, Site, noise
from tests.site import page as document
from tests.test_fuzz import parts_of, places_of, put
from tests.test_http import JSON, Api, ends, error, faults, head, open_api, served
from tests.test_service import URL, Gate

CONFIG = Config()
# The event loop may stand still so long. What is meant took from a second to hours, and the machine may be slow.
STILL_S = 1.0


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A service without a browser; its fetches may reach the test site."""
    async with open_api(tmp_path, allow_network=(LOOPBACK,)) as api:
        yield api


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Api]:
    """No page ever loads."""
    async with open_api(tmp_path, Gate()) as api:
        yield api


@contextlib.contextmanager
def in_little_time(limit_s: float = STILL_S) -> Iterator[None]:
    started = time.process_time()
    yield
    assert time.process_time() - started < limit_s


def refusals(**fields: Any) -> dict[str, str]:
    """The faults of a screenshot's request, by field."""
    try:
        parse_request("screenshot", fields, CONFIG)
    except ValidationError as error:
        return {fault.field: fault.message for fault in error.faults}
    return {}


# ---- Requests --------------------------------------------------------------------------------------------------------


TEXT_FIELDS = {
    json.dumps({name: place}): (
        {name: place},
        next((one.maximum for one in parts_of(leaf)[0] if isinstance(one, Length)), 2**20),
    )
    for cls in REQUEST_CLASSES.values()
    for name, kind in fields_of(cls).items()
    for place, leaf in places_of(kind)
    if parts_of(leaf)[1] is str
}
UNITS = (".", "a", " ", "/", ":", "@", "a.", "1.", "\ufdfa", "%61", "[", "+", "a=b; ", "é.", "Android 1; ", "Chrome/1.")


def test_texts_of_actions_are_among_those_tried() -> None:
    assert {'{"url": null}', '{"actions": [{"type": "goto", "url": null}]}'} <= TEXT_FIELDS.keys()


@pytest.mark.parametrize("field", TEXT_FIELDS)
def test_longest_text_takes_little_time(field: str) -> None:
    place, longest = TEXT_FIELDS[field]
    # What takes the square of the length is told by the first, and would take hours for the second.
    for length in (min(longest, 20_000), longest):
        for unit in UNITS:
            for beginning, end in (("", "@"), ("http://", "\x7f")):
                text = beginning + unit * ((length - len(beginning + end)) // len(unit)) + end
                with in_little_time():
                    refusals(**({"html": "x"} if "url" not in place else {}) | put(place, text))


def test_faults_that_are_not_told_are_not_made() -> None:
    # The hint of each, `did you mean X?`, takes its time.
    with pytest.raises(cattrs.BaseValidationError) as caught:
        converter.structure([{f"name{index}": 1 for index in range(MAX_FAULTS)}] * 100, list[WaitFor])
    assert len(faults_of(caught.value)) < 2 * MAX_FAULTS


@pytest.mark.parametrize("part", ["http://{}/", "http://{}:p@a.b/", "http://u:{}@a.b/", "{}", "http://{}"])
@pytest.mark.parametrize("unit", ["\ufdfa", "%C3%BC", "ü.", "."])
def test_authority_of_any_length_takes_little_time(part: str, unit: str) -> None:
    with in_little_time(), contextlib.suppress(ValueError):
        parse_url(part.format(unit * (2_000_000 // len(unit))))


@pytest.mark.parametrize(
    ("url", "limit"), [(f"http://{'a' * 1001}/", 1000), (f"http://{'u' * 2**14}@a.b/", 2**14)], ids=["host", "all"]
)
def test_long_authority_is_told_with_its_limit(url: str, limit: int) -> None:
    assert f"at most {limit} are allowed" in refusals(url=url)["url"]


@pytest.mark.parametrize("part", ["http://{}:p@a.b/", "http://u:{}@a.b/"], ids=["user", "password"])
@pytest.mark.parametrize("text", ["u" * (MAX_TEXT + 1), "%00"], ids=["long", "NUL"])
def test_credentials_in_a_url_have_the_limits_of_auth(part: str, text: str) -> None:
    assert refusals(url=part.format("u" * MAX_TEXT)) == {}
    assert list(refusals(url=part.format(text))) == ["url"]


def test_long_header_is_told_with_its_limit() -> None:
    longest = "v" * (MAX_HEADER_CHARS - 3)
    assert refusals(url=URL, headers={"X-A": longest}) == {}
    assert f"at most {MAX_HEADER_CHARS} are allowed" in refusals(url=URL, headers={"X-A": longest + "v"})["headers.X-A"]


def test_globs_have_a_limit_in_all() -> None:
    globs = ["g" * 4096] * (MAX_GLOB_CHARS // 4096)
    assert refusals(url=URL, block_urls=globs) == {}
    assert f"at most {MAX_GLOB_CHARS} are allowed" in refusals(url=URL, block_urls=[*globs, "g"])["block_urls"]


async def test_queue_has_a_limit_of_characters(held: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "MAX_QUEUED_CHARS", 10_000)
    await held.submit()
    await held.submit(html="x" * 6000, url=None)
    last = await held.submit(html="x" * 6000, url=None)
    body = {"request": {"html": "x"}}
    assert "10000 characters" in (await error(await held.post("/scrape/v1/jobs", body), 429, "queue_full"))["message"]
    held.service.cancel(last)
    assert (await held.post("/scrape/v1/jobs", body)).status_code == 202


async def test_list_cuts_long_urls(held: Api) -> None:
    await held.submit(url=f"{URL}{'a' * 10_000}")
    (row,) = (await (await held.get("/v1/jobs")).get_json())["jobs"]
    assert row["url"] == f"{URL}{'a' * 10_000}"[:KEPT_FIELD_CHARS]


# ---- Heads of requests -----------------------------------------------------------------------------------------------


def test_h11_still_has_what_is_replaced() -> None:
    for name in ("header_field_re", "chunk_header_re"):
        assert b"*+" in getattr(h11._readers, name).pattern


CHUNKED = head("POST", "/v1/scrape", f"Content-Type: {JSON}", "Transfer-Encoding: chunked")
SLOW_TO_READ = {
    "spaces": head("GET", "/livez")[:-2] + b"X:" + b" " * 60_000 + b"\0\r\n\r\n",
    "folds": head("GET", "/livez")[:-2] + b"X:" + b"\r\n " * 20_000 + b"\0\r\n\r\n",
    "words": head("GET", "/livez")[:-2] + b"X:" + b" a" * 30_000 + b"\0\r\n\r\n",
    "extension": CHUNKED + b"5;" + b" " * 60_000 + b"\n\r\n",
    "trailer": CHUNKED + b"0\r\nX:" + b" " * 60_000 + b"\0\r\n\r\n",
}


@pytest.mark.parametrize("kind", SLOW_TO_READ)
async def test_hostile_head_takes_little_time(tmp_path: Path, kind: str) -> None:
    async with served(tmp_path) as server, await server.connect() as stream:
        with in_little_time():
            await stream.send_all(SLOW_TO_READ[kind])
            assert (await ends(stream)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "header",
    [
        ("Accept", "a/b" + " " * 60_000 + "c"),
        ("Accept", ",".join(f"a/b{number};q=0.1" for number in range(6000))),
        ("If-None-Match", '"a",' * 15_000),
        ("Range", "bytes=" + "1-1," * 15_000),
        ("Cookie", "a=b; " * 12_000),
        ("Content-Type", JSON + ";a=" + '"\\' * 30_000),
        ("Authorization", "Basic " + "=" * 60_000),
    ],
    ids=lambda header: header[0],
)
async def test_long_header_takes_little_time(api: Api, header: tuple[str, str]) -> None:
    job = await api.ended()
    with in_little_time():
        for method, path in (("POST", "/v1/scrape"), ("GET", f"/v1/jobs/{job.id}/result")):
            answer = await api.client.open(
                path, method=method, data=json.dumps({"url": URL}), headers={"Content-Type": JSON, header[0]: header[1]}
            )
            assert answer.status_code < 500


@pytest.mark.parametrize(
    ("lines", "limit"),
    [
        ([f"X-A: {'a' * MAX_HEAD_BYTES}"], MAX_HEAD_BYTES),
        ([f"X-{number}: a" for number in range(MAX_HEADERS)], MAX_HEADERS),
    ],
    ids=["bytes", "count"],
)
async def test_head_over_a_limit_is_told_with_it(tmp_path: Path, lines: list[str], limit: int) -> None:
    async with served(tmp_path) as server, await server.connect() as stream:
        await stream.send_all(head("GET", "/livez", *lines, "Connection: close"))
        answer = await ends(stream)
    assert str(limit).encode() in answer.partition(b"\r\n\r\n")[2]
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))


async def test_head_of_the_limit_is_read(tmp_path: Path) -> None:
    lines = [f"X-{number}: {'a' * 600}" for number in range(MAX_HEADERS - 2)]
    async with served(tmp_path) as server, await server.connect() as stream:
        request = head("GET", "/livez", *lines, "Connection: close")
        # It is read as it comes.
        for piece in (request[:50_000], request[50_000:]):
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert (await ends(stream)).startswith(b"HTTP/1.1 200 ")


NO_HTTP = {
    "noise": (b"\x16\x03\x01\r\n\r\n", 400),
    "version": (b"GET / HTTP/9\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "endless head": (b"GET / HTTP/1.1\r\nX: " + b"a" * 2 * MAX_HEAD_BYTES, 431),
    "coding": (head("POST", "/v1/jobs", "Transfer-Encoding: gzip"), 400),
}


@pytest.mark.parametrize("kind", NO_HTTP)
async def test_what_is_no_http_is_refused_in_json(tmp_path: Path, kind: str) -> None:
    sent, status = NO_HTTP[kind]
    async with served(tmp_path) as server, await server.connect() as stream:
        await stream.send_all(sent)
        got, _, body = (await ends(stream)).partition(b"\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "target",
    [
        *("?x", "*", "http://[", "http://localhost/livez", "localhost:80", "//livez", "/scrape//livez", "/./livez"),
        *(
            "/scrape%2Flivez",
            "/scrape/..%2flivez",
            "/screenshot/../livez",
            "/livez%00",
            "/livez/",
            "/livez;a",
            "/LIVEZ",
        ),
    ],
)
async def test_target_that_is_no_route_of_ours_is_404(tmp_path: Path, target: str) -> None:
    async with served(tmp_path) as server, await server.connect() as stream:
        await stream.send_all(head("GET", target, "Connection: close"))
        got, _, body = (await ends(stream)).partition(b"\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 404 ")
    assert json.loads(body)["error"]["code"] == "not_found"


HIDDEN = head("GET", "/livez")
LENGTH = f"Content-Length: {len(HIDDEN) + 5}"
SMUGGLED = {
    "both": (["Transfer-Encoding: chunked", LENGTH], b"0\r\n\r\n" + HIDDEN),
    "both, the other first": ([LENGTH, "Transfer-Encoding: chunked"], b"0\r\n\r\n" + HIDDEN),
    "two lengths": (["Content-Length: 5", LENGTH], b"0\r\n\r\n" + HIDDEN),
    "two lengths in one": (["Content-Length: 0, 5"], HIDDEN),
    "negative": (["Content-Length: -1"], HIDDEN),
    "plus": (["Content-Length: +0"], HIDDEN),
    "hexadecimal": (["Content-Length: 0x0"], HIDDEN),
    "huge": ([f"Content-Length: {'9' * 21}"], HIDDEN),
    "two codings": (["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], b"0\r\n\r\n" + HIDDEN),
    "space before the colon": (["Transfer-Encoding : chunked"], b"0\r\n\r\n" + HIDDEN),
    "vertical tab": (["Transfer-Encoding: \x0bchunked"], b"0\r\n\r\n" + HIDDEN),
    "bare return": (["X: a\rTransfer-Encoding: chunked"], b"0\r\n\r\n" + HIDDEN),
    "bare return in an extension": (["Transfer-Encoding: chunked"], b"0;a\rb\r\n\r\n" + HIDDEN),
    "chunk longer than told": (["Transfer-Encoding: chunked"], b"1\r\n{}\r\n0\r\n\r\n" + HIDDEN),
    "negative chunk": (["Transfer-Encoding: chunked"], b"-1\r\n\r\n" + HIDDEN),
    "two hosts": (["Host: b"], HIDDEN),
}


@pytest.mark.parametrize("prefix", ["", "/screenshot", "/scrape"])
@pytest.mark.parametrize("kind", SMUGGLED)
async def test_body_read_in_two_ways_hides_no_request(tmp_path: Path, prefix: str, kind: str) -> None:
    lines, body = SMUGGLED[kind]
    async with served(tmp_path) as server, await server.connect() as stream:
        await stream.send_all(head("POST", f"{prefix}/v1/jobs", f"Content-Type: {JSON}", *lines) + body)
        answer = await ends(stream)
    assert answer.startswith(b"HTTP/1.1 4")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_encoded_body_is_not_decoded(api: Api) -> None:
    body = gzip.compress(json.dumps({"url": URL}).encode())
    await error(await api.post("/v1/scrape", body, Content_Encoding="gzip"), 415, "unsupported_media_type")
    plain = await api.post("/v1/scrape", {"url": URL}, Content_Encoding="identity")
    assert plain.status_code == 200


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Range"])
@pytest.mark.parametrize("date", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 +99999999999999"])
async def test_date_of_many_digits_is_refused(api: Api, name: str, date: str) -> None:
    job = await api.ended()
    part = {"Range": "bytes=0-1"} if name == "If-Range" else {}
    answer = await api.client.get(f"/v1/jobs/{job.id}/result", headers=part | {name: date})
    assert "If-Modified-Since" in await faults(answer)


@pytest.mark.parametrize("tag", ["*", '"x"'])
async def test_result_never_changes_so_that_if_match_always_fits(api: Api, tag: str) -> None:
    job = await api.ended()
    assert (await api.get(f"/v1/jobs/{job.id}/result", If_Match=tag)).status_code == 200


@pytest.mark.parametrize(
    ("given", "begin", "end"),
    [
        ("0-0", 0, 1),
        ("2-4", 2, 5),
        ("5-", 5, None),
        ("-5", -5, None),
        ("-99999", 0, None),
        ("0-99999", 0, None),
        (f"3-{'9' * 18}", 3, None),
    ],
)
async def test_range_is_cut_at_the_end_of_a_result(tmp_path: Path, given: str, begin: int, end: int | None) -> None:
    async with served(tmp_path) as server, await server.connect() as stream:
        job = await server.ended()
        path = f"/v1/jobs/{job.id}/result"
        whole = await (await server.get(path)).get_data(as_text=False)
        await stream.send_all(head("GET", path, f"Range: bytes={given}", "Connection: close"))
        got, _, part = (await ends(stream)).partition(b"\r\n\r\n")
    first, last, _ = slice(begin, end).indices(len(whole))
    assert got.startswith(b"HTTP/1.1 206 ")
    assert b"content-range: bytes %d-%d/%d\r\n" % (first, last - 1, len(whole)) in got.lower()
    assert part == whole[begin:end]


@pytest.mark.parametrize("given", ["99999-", "4-2", "-0", "-", "0-1,3-4", "9" * 5000 + "-", "a-b", "-5-", "1--5"])
async def test_range_that_there_is_not_is_416(api: Api, given: str) -> None:
    job = await api.ended()
    answer = await api.get(f"/v1/jobs/{job.id}/result", Range=f"bytes={given}")
    await error(answer, 416, "invalid_request")
    assert answer.headers["Content-Range"].startswith("bytes */")


# ---- Connections -----------------------------------------------------------------------------------------------------


async def drip(stream: trio.SocketStream, within_s: float) -> None:
    """Send a byte now and then until the service closes."""
    with trio.fail_after(within_s), contextlib.suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(b"x")
            await trio.sleep(0.02)


async def test_dripping_body_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "BODY_S", 0.2)
    async with served(tmp_path) as server, await server.connect() as stream:
        await stream.send_all(head("POST", "/scrape/v1/jobs", f"Content-Type: {JSON}", "Content-Length: 10000"))
        await drip(stream, 3)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [("POST", "/nothing", JSON), ("POST", "/v1/jobs", "text/plain"), ("PUT", "/livez", JSON), ("GET", "/livez", JSON)],
)
async def test_rest_of_a_body_that_nobody_wants_is_not_waited_for(
    tmp_path: Path, method: str, path: str, kind: str
) -> None:
    async with served(tmp_path) as server, await server.connect() as stream:
        await stream.send_all(head(method, path, f"Content-Type: {kind}", "Content-Length: 1000000"))
        await drip(stream, 3)


@pytest.mark.parametrize("sent", [b"", b"GET /liv", HIDDEN, CHUNKED + b"5\r\n{", b"\0\r\n\r\n", *SLOW_TO_READ.values()])
async def test_connection_leaves_no_task(tmp_path: Path, sent: bytes) -> None:
    async with served(tmp_path) as server:
        async with await server.connect() as stream:
            await stream.send_all(HIDDEN)
            await stream.receive_some()
        await trio.testing.wait_all_tasks_blocked(0.05)
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(5):
            async with await server.connect() as stream:
                await stream.send_all(sent)
                await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(3):
            while trio.lowlevel.current_statistics().tasks_living > before:
                await trio.testing.wait_all_tasks_blocked(0.01)


# ---- Pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"X:" + b" " * 100_000, b"X:" + b"\r\n " * 50_000], ids=["spaces", "folds"])
async def test_hostile_answer_takes_little_time(api: Api, site: Site, line: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send_raw(b"HTTP/1.1 200 OK\r\n" + line + b"\0\r\n\r\n")

    url = site.add_route("/slow-to-read", answer)
    with in_little_time():
        job = await api.ended(url=url, render=False)
    assert job.error == "navigation failed: net::ERR_INVALID_HTTP_RESPONSE"


async def test_cookie_of_many_digits_is_left_out(api: Api, site: Site) -> None:
    odd = [("Set-Cookie", "a=b; expires=1 Jan " + "1" * 5000), ("Set-Cookie", "c=d")]
    target = site.url("/echo-cookies")
    url = site.add("/odd", b"", status=302, headers=[*odd, ("Location", target)])
    job = await api.ended(url=url, render=False)
    assert job.state is State.DONE
    assert site.requests[-1].header("cookie") == "c=d"


async def test_meta_cuts_what_a_server_makes_long(api: Api, site: Site) -> None:
    long = "a" * (MAX_REPORTED_CHARS + 10)

    async def answer(exchange: Exchange) -> Answer:
        if exchange.request.query != long:
            return Answer(status=302, headers=(("Location", f"/long?{long}"),))
        return Answer(document("x", title=long))

    job = await api.ended(url=site.add_route("/long", answer), render=False)
    meta = job.result_meta
    assert meta is not None
    assert [len(meta[name]) for name in ("title", "url")] == [MAX_REPORTED_CHARS] * 2
    first = site.add("/first", b"", status=302, headers=[("Location", f"/long?{long}")])
    again = site.add("/again", b"", status=302, headers=[("Location", f"/first?{long}")])
    other = (await api.ended(url=again, render=False)).result_meta
    assert other is not None
    assert other["redirects"] == [again, f"{first}?{long}"[:MAX_REPORTED_CHARS]]


def steps(*actions: dict[str, Any], url: str) -> PageOptions:
    return parse_request("screenshot", {"url": url, "actions": list(actions)}, CONFIG)


async def test_values_of_all_actions_have_a_limit(page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "MAX_VALUES_CHARS", 2500)
    told = {"type": "evaluate", "script": "'a'.repeat(1000)"}
    for count, is_refused in ((2, False), (3, True)):
        one = Visit(page, steps(*[told] * count, url=site.url("/ok")), Progress())
        await one.open()
        with pytest.raises(TooLarge, match="in all") if is_refused else contextlib.nullcontext():
            await one.make_ready()


async def test_pictures_of_all_actions_have_a_limit(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit, "MAX_PICTURES_BYTES", 250_000)
    shots = [{"type": "screenshot", "name": f"shot{number}"} for number in range(10)]
    one = Visit(page, steps(*shots, url=site.add("/noise", noise(400, 300))), Progress())
    await one.open()
    with pytest.raises(TooLarge, match="pictures of actions 0 to"):
        await one.make_ready()
    assert 1 < len(one.records) < 10


async def test_glob_and_a_long_url_do_not_hold_the_browser(page: cdp.Page, site: Site) -> None:
    asked = b"<script>fetch('/blocked?' + 'a'.repeat(2000000)).catch(() => { document.title = 'blocked' })</script>"
    options = PageOptions(url=site.add("/asks", asked), block_urls=("*" + "a" * 4000 + "b", "*/blocked*"))
    await page.prepare(options)
    assert options.url is not None
    with trio.fail_after(8):
        await page.navigate(options.url)
        await page.wait_for_expression("document.title === 'blocked'")
