"""Requests from JSON and from texts: what is taken, what is refused, and how each fault is told."""

from __future__ import annotations

import contextlib
import json
import math
import time
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp.options import Cookie, WaitFor
from cdp.texts import nested, value_of
from cdp.validation import MAX_ECHO, MAX_FAULTS, ValidationError, fields_of, load_json, nearest, structure
from cleariflow import (
    REQUEST_CLASSES,
    Config,
    ListQuery,
    ReadQuery,
    Request,
    ScrapeRequest,
    ScreenshotRequest,
    ServiceName,
    Submission,
    parse_request,
    request_document,
)

CONFIG = Config()
URL = "http://example.com/"
SERVICES: tuple[ServiceName, ...] = ("screenshot", "scrape")


def parsed(service: ServiceName = "screenshot", **fields: Any) -> Request:
    """A request for `URL` with more fields."""
    return parse_request(service, {"url": URL, **fields}, CONFIG)


def faults(given: Any, service: ServiceName = "screenshot", config: Config = CONFIG) -> dict[str, str]:
    """The message of each fault by its field."""
    with pytest.raises(ValidationError) as caught:
        parse_request(service, given, config)
    assert caught.value.code == "invalid_request"
    return {fault.field: fault.message for fault in caught.value.faults}


def faulty(service: ServiceName = "screenshot", **fields: Any) -> list[str]:
    """The names of the faults of a request that has a good URL."""
    return list(faults({"url": URL, **fields}, service))


# ---- Strictness ------------------------------------------------------------------------------------------------------

NOT_TEXTS = (1, 1.5, True, [], {}, ["x"], {"a": "b"})
NOT_INTEGERS = ("1", 1.0, 1.5, True, False, [], {}, [1], math.inf, math.nan, 1e300)
NOT_NUMBERS = ("1", "", True, [], {}, math.nan, math.inf, -math.inf, 10**400)
NOT_BOOLEANS = (0, 1, "true", "", "yes", [], {}, 1.0)
NOT_OBJECTS = (1, "x", True, [], [{}], 1.5)
NOT_TEXT_LISTS = (1, True, {}, "x")

STRICTNESS = [
    *[(name, value) for name in ("url", "html", "base_url", "user_agent", "api_key") for value in NOT_TEXTS],
    *[("selector", value) for value in NOT_TEXTS],
    *[(name, value) for name in ("quality", "timeout_ms", "wait_ms") for value in NOT_INTEGERS],
    *[("viewport.width", value) for value in NOT_INTEGERS],
    *[("viewport.device_scale_factor", value) for value in NOT_NUMBERS],
    *[(f"clip.{name}", value) for name in ("x", "y", "width", "height") for value in NOT_NUMBERS],
    *[
        (name, value)
        for name in ("render", "javascript", "full_page", "transparent", "optimize_for_speed")
        for value in NOT_BOOLEANS
    ],
    *[(f"viewport.{name}", value) for name in ("mobile", "touch") for value in NOT_BOOLEANS],
    *[(name, value) for name in ("viewport", "clip", "headers") for value in NOT_OBJECTS],
    *[
        (name, value)
        for name in ("format", "wait_until", "on_timeout")
        for value in (*NOT_TEXTS, "", "JPEG", "nothing")
    ],
    *[("cookies", value) for value in (1, True, {}, {"a": "b"}, 1.5)],
]


def placed(name: str, value: Any) -> dict[str, Any]:
    """A request that is right but for one value under a dotted name."""
    given: dict[str, Any] = {"url": URL}
    *parents, leaf = name.split(".")
    place = given
    for parent in parents:
        rest = {"x": 0, "y": 0, "width": 1, "height": 1} if parent == "clip" else {}
        place = place.setdefault(parent, rest)
    place[leaf] = value
    return given


@pytest.mark.parametrize(("name", "value"), STRICTNESS)
def test_value_of_another_type_is_a_fault_of_its_field(name: str, value: Any) -> None:
    assert name in faults(placed(name, value))


@pytest.mark.parametrize("value", [1, True, None, [1], {"state": "visible"}, [[]], {"selector": 1}, ["#a", 1]])
def test_wait_for_refuses_what_is_no_selector(value: Any) -> None:
    assert all(name.startswith("wait_for") for name in faulty(wait_for=value))


LIMITS = [
    ("viewport.width", 1, 7680, 0, 7681),
    ("viewport.height", 1, 7680, 0, 7681),
    ("viewport.device_scale_factor", 1, 4, 0.09, 4.01),
    ("quality", 1, 100, 0, 101),
    ("wait_ms", 0, 600_000, -1, 600_001),
    ("timeout_ms", 1, 120_000, 0, 120_001),
    ("clip.x", 0, 1_000_000, -0.1, 1_000_001),
    ("clip.width", 0.1, 1_000, 0, 1_000_001),
]


@pytest.mark.parametrize(("name", "low", "high", "under", "over"), LIMITS)
def test_limits_include_their_own_values(name: str, low: float, high: float, under: float, over: float) -> None:
    parse_request("screenshot", placed(name, low), CONFIG)
    parse_request("screenshot", placed(name, high), CONFIG)


@pytest.mark.parametrize(("name", "low", "high", "under", "over"), LIMITS)
@pytest.mark.parametrize("end", ["under", "over"])
def test_number_beyond_its_limits_is_a_fault(
    name: str, low: float, high: float, under: float, over: float, end: str
) -> None:
    assert list(faults(placed(name, under if end == "under" else over))) == [name]


@pytest.mark.parametrize("name", ["quality", "viewport.width", "wait_ms", "timeout_ms"])
@pytest.mark.parametrize("value", [10**18, -(10**18), 10**400, -(10**400), 2**63, 2**64])
def test_huge_integer_is_a_fault(name: str, value: int) -> None:
    assert list(faults(placed(name, value))) == [name]


def test_limit_is_named_in_the_message() -> None:
    assert faults(placed("quality", 101)) == {"quality": "must be at least 1 and at most 100, not 101"}


def test_type_is_named_in_the_message() -> None:
    assert faults(placed("quality", "80")) == {"quality": "must be an integer, not a text"}


def test_choices_are_named_in_the_message() -> None:
    assert faults(placed("format", "gif")) == {"format": "must be one of jpeg, png, webp"}


TEXT_FIELDS = ("url", "html", "base_url", "user_agent", "selector", "api_key")


@pytest.mark.parametrize("name", TEXT_FIELDS)
@pytest.mark.parametrize("text", ["a\ud800", "\udfff", "a\0b"])
def test_text_that_is_no_text_is_a_fault(name: str, text: str) -> None:
    assert name in faults(placed(name, text))


@pytest.mark.parametrize("name", ["url", "base_url", "user_agent", "selector", "api_key"])
def test_empty_text_is_a_fault(name: str) -> None:
    assert faults(placed(name, ""))[name] == "must not be empty"


def test_empty_html_is_a_document() -> None:
    assert parse_request("scrape", {"html": ""}, CONFIG).html == ""


@pytest.mark.parametrize("given", [None, 1, "x", [], True, [{"url": URL}]])
@pytest.mark.parametrize("service", SERVICES)
def test_request_must_be_an_object(given: Any, service: ServiceName) -> None:
    assert list(faults(given, service)) == ["request"]


def test_null_stands_for_an_optional_field_not_given() -> None:
    assert parsed(selector=None, user_agent=None, quality=None) == parsed()


@pytest.mark.parametrize("name", ["viewport", "wait_ms", "render", "cookies", "headers", "format"])
def test_null_is_no_value_of_a_field_with_a_default(name: str) -> None:
    assert faulty(**{name: None}) == [name]


# ---- Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [("fullpage", "full_page"), ("fullPage", "full_page"), ("timeout", "timeout_ms"), ("view_port", "viewport")],
)
def test_unknown_field_names_the_nearest_one(name: str, meant: str) -> None:
    assert faults({"url": URL, name: 1}) == {name: f"unknown field; did you mean {meant}?"}


def test_unknown_field_far_from_all_names_none() -> None:
    assert faults({"url": URL, "xyzzy": 1}) == {"xyzzy": "unknown field"}


def test_unknown_field_of_an_object_is_dotted() -> None:
    assert faulty(viewport={"widht": 800}) == ["viewport.widht"]


def test_unknown_field_of_a_list_item_has_its_index() -> None:
    assert faulty(wait_for=["#a", {"selector": "#b", "stat": "hidden"}]) == ["wait_for[1].stat"]


def test_missing_field_of_a_list_item_is_required() -> None:
    assert faults({"url": URL, "cookies": [{"name": "a"}]}) == {"cookies[0].value": "is required"}


LATER_FIELDS = (
    *("actions", "referer", "locale", "timezone", "auth", "device", "color_scheme", "reduced_motion", "media"),
    *("geolocation", "wait_for_expression", "bypass_csp", "ignore_tls_errors", "block_resources", "block_urls"),
    *("block_ads", "css", "js", "hide_selectors", "remove_selectors", "fail_on_status", "retries", "max_height"),
    *("scroll_page", "padding", "resize", "disable_animations", "include_shadow_dom", "outputs"),
)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("name", LATER_FIELDS)
def test_field_of_a_later_issue_is_refused(name: str, service: ServiceName) -> None:
    assert list(faults({"url": URL, name: True}, service)) == [name]


PICTURE_FIELDS = {
    "format": "png",
    "quality": 80,
    "full_page": True,
    "selector": "a",
    "clip": {"x": 0, "y": 0, "width": 1, "height": 1},
    "transparent": False,
    "optimize_for_speed": True,
}


@pytest.mark.parametrize("name", PICTURE_FIELDS)
def test_scrape_refuses_fields_of_a_picture(name: str) -> None:
    assert faulty("scrape", **{name: PICTURE_FIELDS[name]}) == [name]


@pytest.mark.parametrize("name", ["", ".", "a.b", "[", "a[0]", "\ud800", "\0", "__class__", "self", "🦀"])
def test_odd_name_is_an_unknown_field(name: str) -> None:
    assert list(faults({"url": URL, name: 1})) == [name]


def test_long_name_is_cut_in_the_answer() -> None:
    assert faulty(**{"n" * 5000: 1}) == ["n" * MAX_ECHO]


def test_nearest_of_a_name_like_no_other_is_nothing() -> None:
    assert nearest("zzz", ["width", "height"]) == ""


def test_nearest_is_a_sentence_to_append() -> None:
    assert nearest("heigth", ["width", "height"]) == "; did you mean height?"


# ---- All faults in one answer ----------------------------------------------------------------------------------------


def test_faults_of_all_fields_come_in_one_answer() -> None:
    given = {"url": URL, "qualty": 5, "viewport": {"width": 0, "hight": 1}, "wait_for": [1], "cookies": [{"name": ""}]}
    assert set(faults(given)) == {
        "qualty",
        "viewport.width",
        "viewport.hight",
        "wait_for[0]",
        "cookies[0].name",
        "cookies[0].value",
    }


def test_faults_between_fields_come_with_those_of_fields() -> None:
    assert set(faulty(quality="x", format="jpeg", transparent=True, base_url="http://a.b")) == {
        "quality",
        "format",
        "base_url",
    }


@pytest.mark.parametrize("name", ["a.b", "a[0]", "[", "n" * (MAX_ECHO + 1)])
def test_parse_request_keeps_the_other_faults_beside_an_odd_name(name: str) -> None:
    assert set(faulty(quality=101, base_url="http://a.b", **{name: 1})) == {"quality", "base_url", name[:MAX_ECHO]}


def test_parse_request_keeps_the_first_faults_of_very_many() -> None:
    given = {"url": URL, "quality": 101, **{f"unknown{index:03}": 1 for index in range(MAX_FAULTS + 10)}}
    assert "quality" in faults(given)


def test_faults_are_limited_in_number() -> None:
    given = {"url": URL, **{f"unknown{index:03}": 1 for index in range(3 * MAX_FAULTS)}}
    assert len(faults(given)) == MAX_FAULTS


def test_message_is_limited_in_length() -> None:
    with pytest.raises(ValidationError) as caught:
        parse_request("scrape", {f"unknown{index:05}": 1 for index in range(5000)}, CONFIG)
    assert len(str(caught.value)) < MAX_FAULTS * 2 * MAX_ECHO


def test_fault_is_told_once() -> None:
    with pytest.raises(ValidationError) as caught:
        parse_request("screenshot", {"url": 5}, CONFIG)
    assert [fault.field for fault in caught.value.faults] == ["url"]


# Part of a body of the largest size allowed; the event loop stands still while it is looked at.
HOSTILE_SIZES: dict[str, dict[str, Any]] = {
    "unknown names": {f"field{index}": 1 for index in range(50_000)},
    "one long name": {"u" * 5_000_000: 1},
    "empty cookies": {"url": URL, "cookies": [{}] * 50_000},
    "cookie text": {"url": URL, "cookies": "a=b;" * 200_000},
    "waits": {"url": URL, "wait_for": [1] * 50_000},
    "good waits": {"url": URL, "wait_for": ["a"] * 100_000},
    "headers": {"url": URL, "headers": {f"X {index}": "1" for index in range(100_000)}},
    "unknown names inside": {"url": URL, "viewport": {f"field{index}": 1 for index in range(50_000)}},
}


@pytest.mark.parametrize("kind", HOSTILE_SIZES)
def test_hostile_sizes_are_refused_quickly(kind: str) -> None:
    started = time.process_time()
    faults(HOSTILE_SIZES[kind])
    # Looking at each item takes from 1 to 5 s, at the whole only some 50 ms.
    assert time.process_time() - started < 0.5


# ---- Between fields --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("given", [{}, {"url": None}, {"html": None}, {"wait_ms": 5}])
def test_url_or_html_is_required(given: dict[str, Any], service: ServiceName) -> None:
    assert faults(given, service) == {"url": "is required, or html"}


def test_url_and_html_exclude_each_other() -> None:
    assert faulty(html="<p>") == ["html"]


def test_base_url_needs_html() -> None:
    assert faulty(base_url="http://a.b/") == ["base_url"]


def test_base_url_goes_with_html() -> None:
    assert parse_request("scrape", {"html": "<p>", "base_url": "a.b"}, CONFIG).base_url == "https://a.b/"


CLIP = {"x": 0, "y": 0, "width": 10, "height": 10}


@pytest.mark.parametrize(
    ("fields", "faulty_field"),
    [
        ({"full_page": True, "selector": "a"}, "selector"),
        ({"full_page": True, "clip": CLIP}, "clip"),
        ({"selector": "a", "clip": CLIP}, "clip"),
        ({"full_page": True, "selector": "a", "clip": CLIP}, "clip"),
        ({"format": "png", "quality": 80}, "quality"),
        ({"transparent": True}, "format"),
        ({"transparent": True, "format": "jpeg"}, "format"),
        ({"render": False, "javascript": True}, "javascript"),
        ({"timeout_ms": 120_001}, "timeout_ms"),
        ({"viewport": {"width": 7680, "height": 7680, "device_scale_factor": 2}}, "viewport"),
        ({"clip": {"x": 0, "y": 0, "width": 100_000, "height": 100_000}}, "clip"),
    ],
)
def test_contradicting_fields_are_refused(fields: dict[str, Any], faulty_field: str) -> None:
    assert faulty(**fields) == [faulty_field]


@pytest.mark.parametrize(
    "fields",
    [
        {"full_page": False, "selector": "a"},
        {"format": "webp", "quality": 80},
        {"format": "png", "transparent": True},
        {"format": "webp", "transparent": True},
        {"render": False},
        {"render": False, "javascript": False},
        {"timeout_ms": 120_000},
    ],
)
def test_agreeing_fields_are_taken(fields: dict[str, Any]) -> None:
    parsed(**fields)


def test_render_false_waits_for_a_later_issue_in_a_scrape() -> None:
    assert faulty("scrape", render=False) == ["render"]


@pytest.mark.parametrize("value", ["auto", {"javascript": False}])
def test_render_takes_only_booleans_yet(value: Any) -> None:
    assert faulty(render=value) == ["render"]


def test_configured_ceiling_limits_the_timeout() -> None:
    config = Config(max_timeout=0.5)
    assert list(faults({"url": URL, "timeout_ms": 501}, config=config)) == ["timeout_ms"]


def test_default_timeout_over_the_configured_ceiling_is_a_fault_that_names_the_setting() -> None:
    assert "--max-timeout" in faults({"url": URL}, config=Config(max_timeout=10))["timeout_ms"]


def test_configured_pixels_limit_the_viewport() -> None:
    config = Config(max_pixels=1280 * 800)
    parse_request("screenshot", {"url": URL}, config)
    assert list(faults({"url": URL, "viewport": {"width": 1281}}, config=config)) == ["viewport"]


# ---- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "chrome://version", "data:text/html,x", "javascript:alert(1)", "about:blank"),
        *("view-source:http://a.b", "ftp://a.b/", "ws://a.b/", "blob:http://a.b/x", "FILE:///x", " javascript:1"),
        *("http:", "http://", "http:///path", "http:/a.b", "http:a.b", "//a.b/", "/path", "word", "", "?", "#"),
        *("http://a.b:99999/", "http://a.b:x/", "http://a b/", "http://a.b/\n", "http://a.b\\@c.d/", "http://[::1"),
        *("http://a.b/\tx", "http://%61.b/", "http://a.b:-1/", "http://[1.2.3.4]/"),
        *("mailto:a@b.c", "http://a\u3000b/", "http://1.2.3.4.5/", "http://user@/"),
    ],
)
@pytest.mark.parametrize("name", ["url", "base_url"])
def test_unfit_url_is_a_fault(url: str, name: str) -> None:
    given = {"url": url} if name == "url" else {"html": "x", "base_url": url}
    assert list(faults(given)) == [name]


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("example.com", "https://example.com/"),
        ("example.com:8080", "https://example.com:8080/"),
        ("example.com:8080/a?b#c", "https://example.com:8080/a?b#c"),
        ("localhost:3000", "https://localhost:3000/"),
        ("localhost", "https://localhost/"),
        ("HTTP://EXAMPLE.com:80", "http://example.com/"),
        ("https://example.com:443/x", "https://example.com/x"),
        (" http://example.com/ ", "http://example.com/"),
        ("http://bücher.example/ü", "http://xn--bcher-kva.example/ü"),
        ("http://[::1]:80/", "http://[::1]/"),
        ("http://user:pass@example.com", "http://user:pass@example.com/"),
    ],
)
def test_url_becomes_canonical(url: str, canonical: str) -> None:
    # Compared without percent-encoding of the path, which may or may not be done here.
    assert (parse_request("scrape", {"url": url}, CONFIG).url or "").replace("%C3%BC", "ü") == canonical


@pytest.mark.parametrize("scheme", ["file", "chrome", "data", "javascript", "view-source", "about", "ftp"])
def test_refused_scheme_is_named(scheme: str) -> None:
    assert f"'{scheme}'" in faults({"url": f"{scheme}:x"})["url"]


# ---- Headers and cookies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("X-A", text) for text in ("a\r\nB: c", "a\n", "\r", "\x01", "\x7f", "\x00", "日", "\ud800")],
        *[(name, "1") for name in ("", "X A", "X:A", "X-Ä", "X\r\n", "X\0", "(x)", "\ud800")],
        *[
            (name, "1")
            for name in ("Host", "content-length", "Transfer-Encoding", "Connection", "Cookie", "User-Agent")
        ],
        *[(name, "1") for name in ("Sec-Fetch-Site", "Proxy-Authorization", "Expect", "Upgrade", "Te", "Keep-Alive")],
        *[("X-A", value) for value in (1, None, True, ["a"], {"a": "b"}, 1.5)],
    ],
)
def test_header_that_cannot_be_sent_is_a_fault_of_its_name(name: str, value: Any) -> None:
    assert faulty(headers={name: value}) == [f"headers.{name}"]


@pytest.mark.parametrize("value", ["", " ", "a\tb", "\xe4", "x" * 10_000, "a: b; c=d"])
def test_header_value_of_legal_characters_is_taken(value: str) -> None:
    assert dict(parsed(headers={"X-A": value}).headers) == {"X-A": value}


def test_all_faulty_headers_are_named() -> None:
    assert faulty(headers={"Host": "x", "X-Good": "1", "X-A": "\n"}) == ["headers.Host", "headers.X-A"]


def test_too_many_headers_are_a_fault() -> None:
    assert faulty(headers={f"X-{index}": "1" for index in range(101)}) == ["headers"]


def test_headers_need_an_origin() -> None:
    assert list(faults({"html": "<p>", "headers": {"X-A": "1"}})) == ["headers"]


def test_cookie_text_is_a_list_of_cookies() -> None:
    assert parsed(cookies="a=b; c=d=e;").cookies == (Cookie("a", "b"), Cookie("c", "d=e"))


@pytest.mark.parametrize("text", ["a", "=b", "a=b; c", ";=;"])
def test_cookie_text_without_a_name_is_a_fault(text: str) -> None:
    assert faulty(cookies=text) == ["cookies"]


def test_cookie_faults_have_their_index() -> None:
    cookies = [{"name": "a", "value": "b"}, {"name": "a", "value": "b", "same_site": "lax", "expires": "x"}]
    assert set(faulty(cookies=cookies)) == {"cookies[1].same_site", "cookies[1].expires"}


def test_cookie_without_any_host_is_a_fault() -> None:
    given = {"html": "x", "cookies": [{"name": "a", "value": "b", "domain": "x.y"}, {"name": "a", "value": "b"}]}
    assert list(faults(given)) == ["cookies[1]"]


def test_cookie_url_is_checked_like_the_first() -> None:
    assert faulty(cookies=[{"name": "a", "value": "b", "url": "file:///x"}]) == ["cookies[0].url"]


def test_too_many_cookies_are_a_fault() -> None:
    assert faulty(cookies=[{"name": "a", "value": "b"}] * 101) == ["cookies"]


# Chromium 156 answers `Invalid cookie fields` or `Invalid characters` to each of these.
@pytest.mark.parametrize(
    "fields",
    [
        {"user_agent": "a\nb"},
        {"user_agent": "a\rb"},
        {"cookies": [{"name": "a\x01", "value": "b"}]},
        {"cookies": [{"name": "a", "value": "b\n"}]},
        {"cookies": [{"name": "a", "value": "b;c"}]},
        {"cookies": [{"name": "a;b", "value": "c"}]},
        {"cookies": [{"name": "a=b", "value": "c"}]},
        {"cookies": [{"name": " a", "value": "b"}]},
        {"cookies": [{"name": "a", "value": "b", "path": "no-slash"}]},
        {"cookies": [{"name": "a", "value": "b" * 4096}]},
        {"cookies": [{"name": "__Secure-a", "value": "b"}]},
        {"cookies": [{"name": "__Host-a", "value": "b"}]},
        {"cookies": [{"name": "a", "value": "b", "same_site": "None"}]},
        {"cookies": "a=\x01"},
    ],
)
def test_values_that_no_browser_takes_are_refused(fields: dict[str, Any]) -> None:
    (name,) = {name.partition("[")[0] for name in faulty(**fields)}
    assert [name] == list(fields)


# ---- Waits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("#a", (WaitFor("#a"),)),
        (["#a", {"selector": "#b", "state": "hidden"}], (WaitFor("#a"), WaitFor("#b", "hidden"))),
        ({"selector": "#a", "timeout_ms": 5}, (WaitFor("#a", timeout_ms=5),)),
        ([], ()),
    ],
)
def test_wait_for_takes_each_of_its_forms(given: Any, meant: tuple[WaitFor, ...]) -> None:
    assert parsed(wait_for=given).wait_for == meant


# ---- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"nonsense", b"{'a': 1}", b"[1,]", b'{"a": 1}}', b'"\xff"', b"\xff\xfe{\x00}\x00"),
        *(b"\xef\xbb\xbf{}", b"NaN", b"[Infinity]", b"-Infinity", b'"\x01"', b'"\\ud8"', b"\x00", b"1" * 5000),
        *(b'{"a":1,"a":2}', b'{"a":{"b":1,"b":1}}'),
        *(b"[" * 200_000, b'{"a":' * 100_000, b"[" * 200_000 + b"]" * 200_000, b"tru", b"'"),
    ],
)
def test_load_json_refuses_what_is_not_json(body: bytes) -> None:
    with pytest.raises(ValidationError) as caught:
        load_json(body)
    assert [fault.field for fault in caught.value.faults] == [""]
    assert len(str(caught.value)) < 2 * MAX_ECHO


def test_load_json_names_the_byte_that_is_not_utf8() -> None:
    with pytest.raises(ValidationError, match="not UTF-8 at byte 2"):
        load_json(b'{"\xff": 1}')


def test_load_json_takes_utf8() -> None:
    assert load_json('{"ä": "😀"}'.encode()) == {"ä": "😀"}


@given(st.binary(max_size=200))
def test_load_json_raises_nothing_but_validation_errors(body: bytes) -> None:
    with contextlib.suppress(ValidationError):
        load_json(body)


SUBMISSION_FAULTS = [
    ({}, ["request"]),
    ({"request": 5}, ["request"]),
    ({"request": []}, ["request"]),
    ({"request": {}, "priority": "high"}, ["priority"]),
    ({"request": {}, "priority": 1.0}, ["priority"]),
    ({"request": {}, "priority": True}, ["priority"]),
    ({"request": {}, "priority": 2**31}, ["priority"]),
    ({"request": {}, "priority": -(2**31) - 1}, ["priority"]),
    ({"request": {}, "service": "print"}, ["service"]),
    ({"request": {}, "service": 5}, ["service"]),
    ({"request": {}, "prioritiy": 5}, ["prioritiy"]),
    ({"priority": "x", "service": "y", "z": 1}, ["priority", "request", "service", "z"]),
    ([], [""]),
    ("x", [""]),
    (None, [""]),
]


@pytest.mark.parametrize(("given", "names"), SUBMISSION_FAULTS)
def test_submission_names_its_faults(given: Any, names: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        structure(given, Submission)
    assert sorted(fault.field for fault in caught.value.faults) == names


@pytest.mark.parametrize("priority", [-(2**31), 0, 2**31 - 1])
def test_submission_takes_the_whole_range_of_priorities(priority: int) -> None:
    assert structure({"request": {}, "priority": priority}, Submission).priority == priority


# ---- Texts of queries and command lines ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("true", "full_page", True),
        ("TRUE", "full_page", True),
        ("1", "full_page", True),
        ("false", "full_page", False),
        ("0", "full_page", False),
        ("yes", "full_page", "yes"),
        ("", "full_page", ""),
        ("80", "quality", 80),
        ("-5", "quality", -5),
        ("8.5", "quality", "8.5"),
        ("x", "quality", "x"),
        ("9" * 5000, "quality", "9" * 5000),
        ("80", "user_agent", "80"),
        ("true", "user_agent", "true"),
        ('{"a": 1}', "user_agent", '{"a": 1}'),
        ("[data-x]", "selector", "[data-x]"),
        ('["#a", "#b"]', "wait_for", ["#a", "#b"]),
        ("[data-x]", "wait_for", "[data-x]"),
        ("#a", "wait_for", "#a"),
        ("a=b", "cookies", "a=b"),
        ('{"X-A": "1"}', "headers", {"X-A": "1"}),
        ('{"width": 5}', "viewport", {"width": 5}),
        ("[" * 100_000, "viewport", "[" * 100_000),
    ],
)
def test_value_of_means_what_the_field_takes(text: str, field: str, value: Any) -> None:
    assert value_of(text, fields_of(ScreenshotRequest)[field]) == value


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_number_text_that_is_not_finite_is_a_fault(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        structure(nested([("wait", text)], ReadQuery), ReadQuery)
    assert [fault.field for fault in caught.value.faults] == ["wait"]


def test_nested_builds_objects_of_dotted_names() -> None:
    pairs = [("url", URL), ("viewport.width", "800"), ("viewport.mobile", "true"), ("headers.X-A", "1")]
    assert nested(pairs, ScreenshotRequest) == {
        "url": URL,
        "viewport": {"width": 800, "mobile": True},
        "headers": {"X-A": "1"},
    }


@pytest.mark.parametrize(
    "names",
    [
        ("url", "url"),
        ("viewport.width", "viewport.width"),
        ("viewport", "viewport.width"),
        ("viewport.width", "viewport"),
        ("viewport.width", "viewport.width.x"),
    ],
)
def test_nested_refuses_a_name_given_twice(names: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="is given twice"):
        nested([(name, "1") for name in names], ScreenshotRequest)


def test_nested_refuses_a_name_below_a_value() -> None:
    pairs = [("viewport.width", "800"), ("viewport.width.x.y", "1")]
    with pytest.raises(ValidationError):
        structure(nested(pairs, ScreenshotRequest), ScreenshotRequest)


@pytest.mark.parametrize("name", ["", ".", "..", "a.b.c.d.e.f", "viewport.", ".width", "viewport.x.y.z.q"])
def test_nested_name_of_nothing_is_an_unknown_field(name: str) -> None:
    with pytest.raises(ValidationError):
        structure(nested([(name, "1")], ScreenshotRequest), ScreenshotRequest)


@given(
    st.lists(st.tuples(st.text(max_size=12) | st.sampled_from(["viewport.width", "a.b", "url"]), st.text()), max_size=5)
)
def test_query_raises_nothing_but_validation_errors(pairs: list[tuple[str, str]]) -> None:
    for cls in (ScreenshotRequest, ScrapeRequest, ReadQuery, ListQuery):
        with contextlib.suppress(ValidationError):
            structure(nested(pairs, cls), cls)


# ---- Any request -----------------------------------------------------------------------------------------------------

# Names that exist, so that values reach the fields; values of every kind, so that most of them are wrong.
NAMES = sorted({name for cls in REQUEST_CLASSES.values() for name in fields_of(cls)})
INNER_NAMES = [
    "width",
    "height",
    "device_scale_factor",
    "mobile",
    "x",
    "y",
    "name",
    "value",
    "selector",
    "state",
    "domain",
]
any_text = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    [
        URL,
        "a.b",
        "#a",
        "a=b; c=d",
        "png",
        "hidden",
        "\ud800",
        "\0",
        "http://[",
        "http://a:b@c.d:5/?q#f",
        "1.2.3.4",
        "::1",
    ]
)
any_scalar = st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.just(10**400)
any_json = st.recursive(
    any_scalar,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER_NAMES) | any_text, inner, max_size=4)
    ),
    max_leaves=8,
)
any_request = st.dictionaries(st.sampled_from(NAMES) | any_text, any_json, max_size=6) | any_json


@given(any_request)
def test_any_json_raises_nothing_but_validation_errors(given: Any) -> None:
    for service in SERVICES:
        try:
            parse_request(service, given, CONFIG)
        except ValidationError as error:
            # The answer can always be written.
            json.dumps([attrs.asdict(fault) for fault in error.faults]).encode()


good_text = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters=";="), min_size=1, max_size=10
).filter(lambda text: text.strip() == text)
good_url = st.builds(
    lambda host, port, path, query, fragment: f"http://{host}{port}/{path}{query}{fragment}",
    st.sampled_from(["example.com", "EXAMPLE.com", "bücher.example", "[2001:4860::1]", "8.8.8.8", "u:p@a.b"]),
    st.sampled_from(["", ":80", ":8080"]),
    st.text(
        st.characters(min_codepoint=33, exclude_categories=("Cs", "Cc", "Z"), exclude_characters="?#\\"), max_size=8
    ),
    st.sampled_from(["", "?", "?a=b&c=%C3%BC", "?ü"]),
    st.sampled_from(["", "#", "#part"]),
)
good_wait = good_text | st.fixed_dictionaries(
    {"selector": good_text},
    optional={
        "state": st.sampled_from(["attached", "visible", "hidden", "detached"]),
        "timeout_ms": st.integers(0, 600_000),
    },
)
good_fields = {
    "api_key": good_text,
    "viewport": st.fixed_dictionaries(
        {},
        optional={
            "width": st.integers(1, 1000),
            "height": st.integers(1, 1000),
            "device_scale_factor": st.floats(1, 4) | st.integers(1, 4),
            "mobile": st.booleans(),
            "touch": st.booleans(),
        },
    ),
    "user_agent": st.sampled_from(["Agent/1.0", "ä"]),
    "javascript": st.booleans(),
    "cookies": st.just("a=b; c=d")
    | st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["a", "b"]), "value": st.sampled_from(["", "x"])},
            optional={
                "url": good_url,
                "domain": st.just("example.com"),
                "path": st.just("/"),
                "expires": st.integers(0, 2**40) | st.floats(0, 1e12),
                "http_only": st.booleans(),
                "secure": st.booleans(),
                "same_site": st.sampled_from(["Strict", "Lax", "None"]),
            },
        ).map(lambda cookie: cookie | ({"secure": True} if cookie.get("same_site") == "None" else {})),
        max_size=3,
    ),
    "headers": st.dictionaries(st.sampled_from(["X-A", "x-b"]), st.sampled_from(["", "1", "\xe4"]), max_size=2),
    "wait_until": st.sampled_from(["auto", "load", "domcontentloaded", "networkidle", "commit"]),
    "wait_for": good_wait | st.lists(good_wait, max_size=3),
    "wait_ms": st.integers(0, 600_000),
    "timeout_ms": st.integers(1, 120_000),
    "on_timeout": st.sampled_from(["fail", "capture"]),
}
good_picture = st.fixed_dictionaries(
    {},
    optional={
        "quality": st.integers(1, 100),
        "format": st.sampled_from(["jpeg", "webp"]),
        "optimize_for_speed": st.booleans(),
    },
) | st.fixed_dictionaries(
    {"format": st.sampled_from(["png", "webp"])},
    optional={"transparent": st.booleans(), "full_page": st.booleans()},
)
good_area = st.sampled_from([{}, {"selector": "#a"}, {"clip": {"x": 0.5, "y": 1, "width": 2.5, "height": 3}}])


@given(
    st.fixed_dictionaries({"url": good_url}, optional=good_fields)
    | st.fixed_dictionaries({"html": st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))}),
    good_picture,
    good_area,
    st.sampled_from(SERVICES),
)
def test_accepted_request_survives_its_document(
    base: dict[str, Any], picture: dict[str, Any], area: dict[str, Any], service: ServiceName
) -> None:
    given = base | (picture | area if service == "screenshot" else {})
    if "selector" in given or "clip" in given:
        given.pop("full_page", None)
    request = parse_request(service, given, CONFIG)
    document = json.loads(json.dumps(request_document(request)))
    assert parse_request(service, document, CONFIG) == attrs.evolve(request, api_key=None)


@pytest.mark.parametrize("fields", [{}, {"render": False}, {"html": "<p>", "url": None, "base_url": "http://a.b/ü"}])
def test_document_parses_to_the_same_request(fields: dict[str, Any]) -> None:
    request = parsed(**fields)
    assert parse_request("screenshot", request_document(request), CONFIG) == request


@pytest.mark.parametrize("service", SERVICES)
def test_document_holds_what_differs_from_the_defaults_only(service: ServiceName) -> None:
    assert {name for name, value in request_document(parsed(service)).items() if value} == {"url"}


@pytest.mark.parametrize("service", SERVICES)
def test_key_is_not_in_the_document(service: ServiceName) -> None:
    assert "hush-hush" not in json.dumps(request_document(parsed(service, api_key="hush-hush")))


@pytest.mark.parametrize("service", SERVICES)
def test_key_is_not_in_the_repr(service: ServiceName) -> None:
    assert "hush-hush" not in repr(parsed(service, api_key="hush-hush"))


@pytest.mark.parametrize("key", ["hush-hush\0", "hush-hush" * 1000])
def test_key_is_not_in_its_own_fault(key: str) -> None:
    assert "hush" not in faults({"url": URL, "api_key": key})["api_key"]


def test_viewport_of_no_pixel_is_a_fault() -> None:
    # Chromium never answers a capture of it.
    viewport = {"width": 9, "height": 800, "device_scale_factor": 0.1}
    with pytest.raises(ValidationError, match="viewport: makes a picture of no pixel"):
        parse_request("screenshot", {"url": "https://a.b", "viewport": viewport}, Config())
