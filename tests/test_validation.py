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
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cdp.options import (
    Action,
    Auth,
    Check,
    Click,
    Cookie,
    Evaluate,
    Goto,
    Hover,
    Point,
    Press,
    Scroll,
    Select,
    Shoot,
    TypeText,
    Wait,
    WaitFor,
)
from cdp.texts import nested, value_of
from cdp.validation import MAX_ECHO, MAX_FAULTS, ValidationError, fields_of, load_json, nearest, structure
from cleariflow import (
    BROWSER_FIELDS,
    REQUEST_CLASSES,
    SCRIPT_FIELDS,
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
AUTH = {"username": "a", "password": "b"}
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

TEXT_FIELDS = (
    *("url", "html", "base_url", "user_agent", "selector", "api_key", "referer", "locale", "timezone", "device"),
    *("wait_for_expression", "auth.username", "auth.password"),
)
BOOLEAN_FIELDS = (
    *("javascript", "full_page", "transparent", "optimize_for_speed", "viewport.mobile", "viewport.touch"),
    *("reduced_motion", "bypass_csp", "ignore_tls_errors", "block_ads", "scroll_page", "disable_animations"),
)
TEXT_LIST_FIELDS = ("css", "js", "hide_selectors", "remove_selectors")

STRICTNESS = [
    *[(name, value) for name in TEXT_FIELDS for value in NOT_TEXTS],
    *[
        (name, value)
        for name in ("quality", "timeout_ms", "wait_ms", "retries", "max_height", "padding", "viewport.width")
        for value in NOT_INTEGERS
    ],
    *[
        (name, value)
        for name in ("viewport.device_scale_factor", "clip.x", "clip.y", "clip.width", "clip.height")
        for value in NOT_NUMBERS
    ],
    *[(f"geolocation.{name}", value) for name in ("latitude", "accuracy") for value in NOT_NUMBERS],
    *[(name, value) for name in BOOLEAN_FIELDS for value in NOT_BOOLEANS],
    *[("render", value) for value in NOT_BOOLEANS if value != {}],
    *[
        (name, value)
        for name in ("viewport", "clip", "headers", "auth", "geolocation", "resize")
        for value in NOT_OBJECTS
    ],
    *[
        (name, value)
        for name in ("format", "wait_until", "on_timeout", "color_scheme", "media", "resize.fit")
        for value in (*NOT_TEXTS, "", "JPEG", "nothing")
    ],
    *[(name, value) for name in TEXT_LIST_FIELDS for value in (1, True, {}, 1.5)],
    *[
        (name, value)
        for name in ("block_urls", "block_resources", "fail_on_status", "actions")
        for value in NOT_TEXT_LISTS
    ],
    *[("cookies", value) for value in (1, True, {}, {"a": "b"}, 1.5)],
]


RESTS: dict[str, dict[str, Any]] = {
    "clip": {"x": 0, "y": 0, "width": 1, "height": 1},
    "geolocation": {"latitude": 0, "longitude": 0},
    "auth": {"username": "a", "password": "b"},
    "resize": {"width": 1, "height": 1},
}


def placed(name: str, value: Any) -> dict[str, Any]:
    """A request that is right but for one value under a dotted name."""
    given: dict[str, Any] = {"url": URL}
    *parents, leaf = name.split(".")
    place = given
    for parent in parents:
        place = place.setdefault(parent, RESTS.get(parent, {}).copy())
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
    ("retries", 0, 5, -1, 6),
    ("geolocation.latitude", -90, 90, -90.1, 90.1),
    ("geolocation.longitude", -180, 180, -180.1, 180.1),
    ("geolocation.accuracy", 0, 100_000, -1, 100_001),
    ("resize.width", 1, 7680, 0, 7681),
    ("resize.height", 1, 7680, 0, 7681),
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


@pytest.mark.parametrize("name", TEXT_FIELDS)
@pytest.mark.parametrize("text", ["a\ud800", "\udfff", "a\0b"])
def test_text_that_is_no_text_is_a_fault(name: str, text: str) -> None:
    assert name in faults(placed(name, text))


@pytest.mark.parametrize("name", [name for name in TEXT_FIELDS if name != "html" and not name.startswith("auth.")])
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


def test_missing_field_of_an_object_is_required() -> None:
    assert faults({"url": URL, "auth": {"username": "a"}}) == {"auth.password": "is required"}


def test_missing_field_of_a_list_item_is_required() -> None:
    assert faults({"url": URL, "cookies": [{"name": "a"}]}) == {"cookies[0].value": "is required"}


PICTURE_FIELDS = {
    "format": "png",
    "quality": 80,
    "full_page": True,
    "max_height": 5,
    "scroll_page": True,
    "padding": 5,
    "clip": {"x": 0, "y": 0, "width": 1, "height": 1},
    "transparent": False,
    "resize": {"width": 5},
    "disable_animations": True,
    "optimize_for_speed": True,
}


@pytest.mark.parametrize("name", PICTURE_FIELDS)
def test_scrape_refuses_fields_of_a_picture(name: str) -> None:
    assert faulty("scrape", **{name: PICTURE_FIELDS[name]}) == [name]


@pytest.mark.parametrize(("name", "value"), [("outputs", ["html"]), ("include_shadow_dom", False)])
def test_screenshot_refuses_fields_of_a_scrape(name: str, value: Any) -> None:
    assert faulty(**{name: value}) == [name]


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
    "unknown names in render": {"url": URL, "render": {f"field{index}": 1 for index in range(50_000)}},
    "one long name in render": {"url": URL, "render": {"u" * 5_000_000: 1}},
    "actions": {"url": URL, "actions": [{}] * 50_000},
    "type of an action": {"url": URL, "actions": [{"type": "u" * 5_000_000}]},
    "unknown names in an action": {
        "url": URL,
        "actions": [{"type": "hover", "selector": "a", **{f"field{index}": 1 for index in range(50_000)}}],
    },
    "style sheets": {"url": URL, "css": [1] * 50_000},
    "statuses": {"url": URL, "fail_on_status": ["x"] * 50_000},
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
        ({"max_height": 500}, "max_height"),
        ({"padding": 5}, "padding"),
        ({"padding": 5, "full_page": True}, "padding"),
        ({"resize": {}}, "resize"),
        ({"resize": {"width": 5, "fit": "cover"}}, "resize.fit"),
        ({"resize": {"height": 5, "fit": "fill"}}, "resize.fit"),
        ({"javascript": False, "js": "1"}, "js"),
        ({"javascript": False, "wait_for_expression": "1"}, "wait_for_expression"),
        ({"render": False, "js": "1"}, "js"),
        ({"render": False, "wait_for_expression": "1"}, "wait_for_expression"),
        ({"device": "iPhone 15", "user_agent": "a"}, "user_agent"),
        ({"device": "iPhone 15", "viewport": {"width": 5}}, "viewport"),
        ({"device": "iPhone 15.5"}, "device"),
        ({"locale": "german"}, "locale"),
        ({"locale": "de_CH"}, "locale"),
        ({"timezone": "Europe Zurich"}, "timezone"),
        ({"referer": "ftp://a.b"}, "referer"),
        ({"actions": [{"type": "screenshot", "name": "image"}]}, "actions[0].name"),
        ({"actions": [{"type": "screenshot", "name": "html"}]}, "actions[0].name"),
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
        {"full_page": True, "max_height": 500, "scroll_page": True},
        {"selector": "a", "padding": 5},
        {"resize": {"width": 5}},
        {"resize": {"width": 5, "height": 5, "fit": "fill"}},
        {"javascript": False, "css": "a{}", "hide_selectors": "a", "actions": [{"type": "click", "selector": "a"}]},
        {"device": "iPhone 15", "viewport": {}},
        {"locale": "zh-Hant-TW", "timezone": "America/Argentina/Buenos_Aires"},
        {"color_scheme": "dark", "reduced_motion": False, "media": "print"},
        {"auth": {"username": "", "password": ""}, "referer": "http://a.b/c?d"},
        {"html": "<p>", "url": None, "base_url": URL, "auth": AUTH, "referer": URL, "headers": {"X": "1"}},
    ],
)
def test_agreeing_fields_are_taken(fields: dict[str, Any]) -> None:
    parsed(**fields)


@pytest.mark.parametrize("name", ["headers", "auth", "referer"])
def test_what_goes_to_an_origin_needs_one(name: str) -> None:
    value = {"headers": {"X-A": "1"}, "auth": AUTH, "referer": URL}[name]
    assert list(faults({"html": "<p>", name: value})) == [name]


def test_device_counts_for_the_pixels() -> None:
    # 393 x 659 at three times its size.
    config = Config(max_pixels=1_000_000)
    assert list(faults({"url": URL, "device": "iPhone 15"}, config=config)) == ["viewport"]


# ---- Render ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [True, False, "auto"])
@pytest.mark.parametrize("service", SERVICES)
def test_render_takes_each_of_its_values(service: ServiceName, value: Any) -> None:
    assert parsed(service, render=value).render == value


@pytest.mark.parametrize("value", ["true", "AUTO", "", 1, 0, None, [], "no"])
def test_render_refuses_what_is_none_of_them(value: Any) -> None:
    assert faulty(render=value) == ["render"]


RENDER_FIELDS: dict[str, Any] = {
    "viewport": {"width": 5},
    "device": "iPhone 15",
    "user_agent": "Agent/1.0",
    "locale": "de-CH",
    "timezone": "Europe/Zurich",
    "color_scheme": "dark",
    "reduced_motion": True,
    "media": "print",
    "geolocation": {"latitude": 1, "longitude": 2},
    "javascript": False,
    "wait_until": "load",
    "wait_for": "#a",
    "wait_for_expression": "true",
    "wait_ms": 5,
    "timeout_ms": 500,
    "on_timeout": "capture",
}


@pytest.mark.parametrize("name", RENDER_FIELDS)
def test_object_of_render_is_the_same_at_top_level(name: str) -> None:
    value = RENDER_FIELDS[name]
    assert parsed(render={name: value}) == parsed(**{name: value}) != parsed()


def test_field_at_top_level_wins_over_that_of_render() -> None:
    request = parsed(render={"wait_ms": 5, "wait_until": "load"}, wait_ms=0)
    assert (request.wait_ms, request.wait_until, request.render) == (0, "load", True)


def test_empty_object_of_render_is_the_default() -> None:
    assert parsed(render={}) == parsed()


@pytest.mark.parametrize(
    ("render", "names"),
    [
        ({"viewport": {"width": 0}}, ["render.viewport.width"]),
        ({"viewport": {"widht": 5}}, ["render.viewport.widht"]),
        ({"wait_for": ["#a", 5]}, ["render.wait_for[1]"]),
        ({"javascript": False, "wait_for_expression": "1"}, ["render.wait_for_expression"]),
        ({"device": "no phone"}, ["render.device"]),
        ({"timeout_ms": 120_001}, ["render.timeout_ms"]),
        ({"wait_ms": "5", "url": "http://a.b"}, ["render.url", "render.wait_ms"]),
        ({"render": True}, ["render.render"]),
        ({"api_key": "x", "headers": {}, "selector": "a"}, ["render.api_key", "render.headers", "render.selector"]),
    ],
)
def test_faults_of_an_object_of_render_have_its_name(render: dict[str, Any], names: list[str]) -> None:
    assert sorted(faulty(render=render)) == names


def test_unknown_field_of_render_comes_with_all_other_faults() -> None:
    assert set(faulty(render={"wait_sm": 5}, quality=101)) == {"render.wait_sm", "quality"}
    assert faults({"url": URL, "render": {"wait_sm": 5}})["render.wait_sm"] == "unknown field; did you mean wait_ms?"


def test_fault_at_top_level_keeps_its_name_beside_render() -> None:
    assert faulty(wait_ms=-1, render={"wait_ms": 5}) == ["wait_ms"]


BROWSER_VALUES: dict[str, Any] = {
    "device": "iPhone 15",
    "viewport": {"width": 5},
    "timezone": "Europe/Zurich",
    "color_scheme": "dark",
    "reduced_motion": True,
    "media": "print",
    "geolocation": {"latitude": 1, "longitude": 2},
    "wait_for": "a",
    "wait_for_expression": "1",
    "wait_ms": 5,
    "bypass_csp": True,
    "block_resources": ["image"],
    "block_urls": ["*"],
    "block_ads": True,
    "wait_until": "networkidle",
    "css": "a",
    "js": "a",
    "hide_selectors": "a",
    "remove_selectors": "a",
    "actions": [{"type": "hover", "selector": "a"}],
    "include_shadow_dom": True,
    "outputs": ["html", "screenshot"],
}


@pytest.mark.parametrize("name", BROWSER_VALUES)
def test_scrape_without_a_browser_refuses_what_needs_one(name: str) -> None:
    parsed("scrape", **{name: BROWSER_VALUES[name]})
    assert faulty("scrape", render=False, **{name: BROWSER_VALUES[name]}) == [name]


def test_document_of_the_client_needs_a_browser() -> None:
    assert list(faults({"html": "<p>", "render": False}, "scrape")) == ["html"]


def test_every_field_that_needs_a_browser_is_known() -> None:
    # A name that is written wrong would never be refused.
    assert {*SCRIPT_FIELDS, *BROWSER_FIELDS} <= fields_of(ScrapeRequest).keys()
    assert {*BROWSER_VALUES, "html", "javascript"} - {"outputs"} == {*SCRIPT_FIELDS, *BROWSER_FIELDS}


def test_scrape_without_a_browser_takes_fields_at_their_defaults() -> None:
    fields = {"wait_until": "auto", "timezone": "UTC", "viewport": {"width": 1280}, "wait_ms": 0}
    assert parsed("scrape", render=False, **fields).render is False


def test_scrape_without_a_browser_takes_the_rest() -> None:
    fields = {"headers": {"X-A": "1"}, "cookies": "a=b", "auth": AUTH, "user_agent": "x", "locale": "de"}
    more = {"referer": URL, "ignore_tls_errors": True, "selector": "p", "outputs": ["text", "links", "metadata"]}
    assert parsed("scrape", render=False, **fields, **more).render is False


def test_configured_ceiling_limits_the_timeout() -> None:
    config = Config(max_timeout=0.5)
    assert list(faults({"url": URL, "timeout_ms": 501}, config=config)) == ["timeout_ms"]


@pytest.mark.parametrize(("ceiling_s", "timeout_ms"), [(10.0, 10_000), (0.5, 500), (30.0, 30_000), (120.0, 30_000)])
def test_default_timeout_is_the_configured_ceiling_where_that_is_lower(ceiling_s: float, timeout_ms: int) -> None:
    assert parse_request("scrape", {"url": URL}, Config(max_timeout=ceiling_s)).timeout_ms == timeout_ms


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
        # They become `auth`.
        ("http://user:pass@example.com", "http://example.com/"),
    ],
)
def test_url_becomes_canonical(url: str, canonical: str) -> None:
    # Compared without percent-encoding of the path, which may or may not be done here.
    assert (parse_request("scrape", {"url": url}, CONFIG).url or "").replace("%C3%BC", "ü") == canonical


def test_time_zone_that_nobody_knows_is_a_fault() -> None:
    assert faults({"url": URL, "timezone": "Mars/Olympus"}) == {"timezone": "is no time zone that is known here"}


def test_credentials_in_the_url_become_auth() -> None:
    assert parse_request("scrape", {"url": "http://me%40x:p%3Aw@example.com/a"}, CONFIG).auth == Auth("me@x", "p:w")


def test_credentials_in_the_url_contradict_auth() -> None:
    assert list(faults({"url": "http://me:pw@example.com/", "auth": {"username": "a", "password": "b"}})) == ["auth"]


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


# ---- Lists and outputs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXT_LIST_FIELDS)
@pytest.mark.parametrize(("given", "meant"), [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ())])
def test_list_may_be_one_text(name: str, given: Any, meant: tuple[str, ...]) -> None:
    assert getattr(parsed(**{name: given}), name) == meant


@pytest.mark.parametrize("name", TEXT_LIST_FIELDS)
@pytest.mark.parametrize(("given", "field"), [([""], "[0]"), (["a", 1], "[1]"), (["a"] * 101, "")])
def test_fault_in_a_list_has_its_index(name: str, given: Any, field: str) -> None:
    assert faulty(**{name: given}) == [name + field]


@pytest.mark.parametrize(("name", "limit"), [("css", 2**20), ("js", 2**20), ("hide_selectors", 4096)])
def test_item_of_a_list_has_a_limit(name: str, limit: int) -> None:
    parsed(**{name: "a" * limit})
    assert faulty(**{name: "a" * (limit + 1)}) == [f"{name}[0]"]


def test_kinds_of_resources_are_known() -> None:
    assert parsed(block_resources=["image", "websocket"]).block_resources == ("image", "websocket")
    assert faulty(block_resources=["image", "picture"]) == ["block_resources[1]"]


@pytest.mark.parametrize(
    ("given", "texts"), [(["4xx", 500], ["4xx", "500"]), (["5XX", "404"], ["5xx", "404"]), ([599, 100], ["599", "100"])]
)
def test_statuses_are_numbers_or_classes(given: list[Any], texts: list[str]) -> None:
    assert [pattern.text for pattern in parsed(fail_on_status=given).fail_on_status] == texts


@pytest.mark.parametrize("status", ["4x", "xxx", "6xx", 99, 600, 404.0, True, None, "", "404 ", "0404", {}, "٤xx"])
def test_status_that_is_none_is_a_fault(status: Any) -> None:
    assert faulty(fail_on_status=[404, status]) == ["fail_on_status[1]"]


@pytest.mark.parametrize("outputs", [["html"], ["text", "html"], ["screenshot"], ["metadata", "links", "markdown"]])
def test_outputs_keep_their_order(outputs: list[str]) -> None:
    request = parsed("scrape", outputs=outputs)
    assert isinstance(request, ScrapeRequest)
    assert list(request.outputs) == outputs


@pytest.mark.parametrize(
    ("outputs", "field"),
    [([], "outputs"), ("html", "outputs"), (["pdf"], "outputs[0]"), (["html", 1], "outputs[1]"), (None, "outputs")],
)
def test_output_that_there_is_not_is_a_fault(outputs: Any, field: str) -> None:
    assert faulty("scrape", outputs=outputs) == [field]


# ---- Actions ---------------------------------------------------------------------------------------------------------

ACTIONS: list[tuple[dict[str, Any], Action]] = [
    ({"type": "click", "selector": "a"}, Click(type="click", selector="a")),
    (
        {"type": "click", "selector": "a", "button": "right", "count": 2, "timeout_ms": 5, "optional": True},
        Click(type="click", selector="a", button="right", count=2, timeout_ms=5, optional=True),
    ),
    ({"type": "hover", "selector": "a"}, Hover(type="hover", selector="a")),
    ({"type": "type", "text": "x"}, TypeText(type="type", text="x")),
    (
        {"type": "write", "text": "", "selector": "a", "delay_ms": 5, "clear": True},
        TypeText(type="type", text="", selector="a", delay_ms=5, clear=True),
    ),
    ({"type": "press", "key": "Control+A"}, Press(type="press", key="Control+A")),
    ({"type": "select", "selector": "a", "value": "b"}, Select(type="select", selector="a", value=("b",))),
    ({"type": "select", "selector": "a", "value": ["b", ""]}, Select(type="select", selector="a", value=("b", ""))),
    ({"type": "check", "selector": "a"}, Check(type="check", selector="a")),
    ({"type": "uncheck", "selector": "a"}, Check(type="uncheck", selector="a")),
    ({"type": "scroll"}, Scroll(type="scroll")),
    ({"type": "scroll", "to": "bottom"}, Scroll(type="scroll", to="bottom")),
    ({"type": "scroll", "to": {"x": 1, "y": 2.5}}, Scroll(type="scroll", to=Point(1, 2.5))),
    ({"type": "scroll", "by": -5, "selector": "a"}, Scroll(type="scroll", by=-5.0, selector="a")),
    ({"type": "scroll", "by": {"x": 5}}, Scroll(type="scroll", by=Point(5, 0))),
    ({"type": "wait", "ms": 0}, Wait(type="wait", ms=0)),
    ({"type": "wait", "milliseconds": 5}, Wait(type="wait", ms=5)),
    ({"type": "wait", "selector": "a"}, Wait(type="wait", selector="a")),
    ({"type": "wait", "expression": "1"}, Wait(type="wait", expression="1")),
    ({"type": "goto", "url": "a.b/ü"}, Goto(type="goto", url="https://a.b/ü")),
    ({"type": "evaluate", "script": "1"}, Evaluate(type="evaluate", script="1")),
    ({"type": "executeJavascript", "script": "1"}, Evaluate(type="evaluate", script="1")),
    ({"type": "screenshot", "name": "A-1_b.png"}, Shoot(type="screenshot", name="A-1_b.png")),
]


@pytest.mark.parametrize(("given", "meant"), ACTIONS, ids=[json.dumps(given) for given, _ in ACTIONS])
def test_action_takes_each_of_its_forms(given: dict[str, Any], meant: Action) -> None:
    assert parsed(actions=[given]).actions == (meant,)


@pytest.mark.parametrize(
    ("action", "field"),
    [
        *[(value, "") for value in (None, 1, "click", [], True)],
        *[({"type": value}, ".type") for value in (None, 1, "", "Click", "klick", [], {})],
        ({}, ".type"),
        ({"selector": "a"}, ".type"),
        ({"type": "click"}, ".selector"),
        ({"type": "click", "selector": ""}, ".selector"),
        ({"type": "click", "selector": "a", "count": 4}, ".count"),
        ({"type": "click", "selector": "a", "button": "back"}, ".button"),
        ({"type": "click", "selector": "a", "text": "b"}, ".text"),
        ({"type": "hover", "selector": "a", "timeout_ms": 600_001}, ".timeout_ms"),
        ({"type": "hover", "selector": "a", "optional": 1}, ".optional"),
        ({"type": "type"}, ".text"),
        ({"type": "type", "text": "a", "delay_ms": 1001}, ".delay_ms"),
        ({"type": "press", "key": "Nothing"}, ".key"),
        ({"type": "press", "key": "Hyper+a"}, ".key"),
        ({"type": "select", "selector": "a"}, ".value"),
        ({"type": "select", "selector": "a", "value": [1]}, ".value[0]"),
        ({"type": "scroll", "to": 5}, ".to"),
        ({"type": "scroll", "to": {"z": 5}}, ".to.z"),
        ({"type": "scroll", "by": "5"}, ".by"),
        ({"type": "scroll", "by": 1_000_001}, ".by"),
        ({"type": "scroll", "to": "top", "by": 5}, ".by"),
        ({"type": "wait"}, ""),
        ({"type": "wait", "ms": 5, "selector": "a"}, ""),
        ({"type": "wait", "ms": 600_001}, ".ms"),
        ({"type": "goto", "url": "file:///etc/passwd"}, ".url"),
        ({"type": "goto", "url": "/path"}, ".url"),
        ({"type": "goto"}, ".url"),
        ({"type": "evaluate", "script": ""}, ".script"),
        ({"type": "screenshot"}, ".name"),
        *[({"type": "screenshot", "name": name}, ".name") for name in ("", "a/b", "..", ".a", "a b", "ä", "x" * 65)],
    ],
)
def test_fault_of_an_action_has_its_index(action: Any, field: str) -> None:
    assert faulty(actions=[{"type": "scroll"}, action]) == [f"actions[1]{field}"]


def test_unknown_action_names_the_nearest_one() -> None:
    assert faults({"url": URL, "actions": [{"type": "clck"}]})["actions[0].type"].endswith("did you mean click?")


def test_names_of_pictures_are_unique() -> None:
    shot = {"type": "screenshot", "name": "a"}
    assert faulty(actions=[shot, {"type": "scroll"}, shot]) == ["actions[2].name"]


def test_faults_of_all_actions_come_in_one_answer() -> None:
    actions = [{"type": "wait"}, {"type": "goto", "url": "ftp://a"}, {"type": "press", "key": "x", "selector": 1}]
    assert set(faulty(actions=actions[:2], quality=101)) == {"actions[0]", "actions[1].url", "quality"}
    assert faulty(actions=actions) == ["actions[2].selector"]


def test_too_many_actions_are_a_fault() -> None:
    parsed(actions=[{"type": "scroll"}] * 100)
    assert faulty(actions=[{"type": "scroll"}] * 101) == ["actions"]


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
        ("true", "render", True),
        ("FALSE", "render", False),
        ("0", "render", False),
        ("auto", "render", "auto"),
        ('{"wait_ms": 5}', "render", {"wait_ms": 5}),
        ("maybe", "render", "maybe"),
        ("p{color:red}", "css", "p{color:red}"),
        ("[data-x]{color:red}", "css", "[data-x]{color:red}"),
        ('["a", "b"]', "css", ["a", "b"]),
        ('[{"type": "click"}]', "actions", [{"type": "click"}]),
        ('["4xx", 500]', "fail_on_status", ["4xx", 500]),
        ("2", "retries", 2),
        ("png", "format", "png"),
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
    more = [("resize.width", "5"), ("auth.username", "5"), ("render.viewport.width", "7"), ("render.wait_ms", "3")]
    assert nested(pairs + more, ScreenshotRequest) == {
        "url": URL,
        "viewport": {"width": 800, "mobile": True},
        "headers": {"X-A": "1"},
        "resize": {"width": 5},
        "auth": {"username": "5"},
        "render": {"viewport": {"width": 7}, "wait_ms": 3},
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
    *("type", "text", "to", "by", "ms", "url", "script", "optional", "latitude", "username", "fit", "timeout_ms"),
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
        *("click", "scroll", "wait", "goto", "screenshot", "write", "auto", "4xx", "iPhone 15", "Control+A"),
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


@hypothesis_settings(deadline=None)
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
    st.sampled_from(["example.com", "EXAMPLE.com", "bücher.example", "[2001:4860::1]", "8.8.8.8"]),
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
good_point = st.fixed_dictionaries({}, optional={"x": st.floats(-9, 9), "y": st.integers(-9, 9)})
good_action = st.one_of(
    st.sampled_from([given for given, _ in ACTIONS if given["type"] != "screenshot"]),
    st.fixed_dictionaries({"type": st.just("scroll")}, optional={"to": good_text | good_point}),
    st.fixed_dictionaries({"type": st.just("scroll"), "by": good_point | st.floats(-9, 9) | st.integers(-9, 9)}),
    st.fixed_dictionaries({"type": st.just("goto"), "url": good_url}, optional={"optional": st.booleans()}),
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
    "locale": st.sampled_from(["en-US", "de-CH", "zh-Hant-TW"]),
    "timezone": st.sampled_from(["UTC", "Europe/Zurich"]),
    "color_scheme": st.sampled_from(["light", "dark"]),
    "reduced_motion": st.booleans(),
    "media": st.sampled_from(["screen", "print"]),
    "geolocation": st.fixed_dictionaries(
        {"latitude": st.floats(-90, 90) | st.integers(-90, 90), "longitude": st.floats(-180, 180)},
        optional={"accuracy": st.floats(0, 100)},
    ),
    "auth": st.fixed_dictionaries({"username": st.sampled_from(["", "a"]), "password": good_text}),
    "referer": good_url,
    "bypass_csp": st.booleans(),
    "ignore_tls_errors": st.booleans(),
    "block_resources": st.lists(st.sampled_from(["image", "font", "xhr"]), max_size=3),
    "block_urls": st.lists(good_text, max_size=2),
    "block_ads": st.booleans(),
    "css": good_text | st.lists(good_text, max_size=2),
    "hide_selectors": good_text | st.lists(good_text, max_size=2),
    "remove_selectors": good_text | st.lists(good_text, max_size=2),
    "fail_on_status": st.lists(st.sampled_from(["4xx", "5XX", 404, "404", 200]), max_size=3),
    "retries": st.integers(0, 5),
    "render": st.booleans() | st.just("auto"),
    "actions": st.lists(good_action, max_size=3),
}
good_picture = st.fixed_dictionaries(
    {},
    optional={
        "quality": st.integers(1, 100),
        "format": st.sampled_from(["jpeg", "webp"]),
        "optimize_for_speed": st.booleans(),
        "disable_animations": st.booleans(),
        "scroll_page": st.booleans(),
        "resize": st.fixed_dictionaries({"width": st.integers(1, 99)}, optional={"height": st.integers(1, 99)}),
    },
) | st.fixed_dictionaries(
    {"format": st.sampled_from(["png", "webp"])},
    optional={"transparent": st.booleans(), "full_page": st.booleans()},
)
good_area = st.sampled_from(
    [{}, {"selector": "#a", "padding": 5}, {"clip": {"x": 0.5, "y": 1, "width": 2.5, "height": 3}}]
)


# The first request of each kind pays for its hooks.
@hypothesis_settings(deadline=None)
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
    if service == "scrape" and given.get("render") is False:
        del given["render"]
    if given.get("render") is False:
        given.pop("javascript", None)
    if "selector" in given or "clip" in given:
        given.pop("full_page", None)
    request = parse_request(service, given, CONFIG)
    document = json.loads(json.dumps(request_document(request)))
    assert parse_request(service, document, CONFIG) == attrs.evolve(request, api_key=None)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"render": False},
        {"render": "auto"},
        {"render": {"wait_ms": 5, "viewport": {"width": 7}}},
        {"html": "<p>", "url": None, "base_url": "http://a.b/ü"},
        {"device": "iPhone 15", "js": ["1", "2"], "wait_for_expression": "1"},
        {"full_page": True, "max_height": 500},
        {"fail_on_status": ["4xx", 500]},
        {"actions": [given for given, _ in ACTIONS]},
    ],
)
def test_document_parses_to_the_same_request(fields: dict[str, Any]) -> None:
    request = parsed(**fields)
    assert parse_request("screenshot", request_document(request), CONFIG) == request


def test_document_of_a_scrape_parses_to_the_same_request() -> None:
    request = parsed("scrape", outputs=["text", "html"], selector="p", include_shadow_dom=True)
    assert parse_request("scrape", request_document(request), CONFIG) == request


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


def test_position_without_a_url_is_a_fault() -> None:
    given = {"html": "<p>", "geolocation": {"latitude": 1, "longitude": 2}}
    assert list(faults(given)) == ["geolocation"]
