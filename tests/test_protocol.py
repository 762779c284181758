"""cdp/protocol.py: messages as the browser reads and writes them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp.protocol import Event, Reply, decode, encode

# The same inputs in every run, and nothing left in the checkout.
same_inputs = settings(derandomize=True, database=None, deadline=None)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def test_encode_makes_one_command() -> None:
    text = encode(7, "Page.navigate", {"url": "http://example.com/"})
    assert json.loads(text) == {"id": 7, "method": "Page.navigate", "params": {"url": "http://example.com/"}}


def test_encode_leaves_out_parameters_that_are_none() -> None:
    assert json.loads(encode(1, "Fetch.continueRequest", {"requestId": "a", "headers": None}))["params"] == {
        "requestId": "a"
    }


@pytest.mark.parametrize("value", [False, 0, "", [], {}])
def test_encode_keeps_parameters_that_are_only_empty(value: object) -> None:
    assert json.loads(encode(1, "Page.enable", {"value": value}))["params"] == {"value": value}


def test_encode_writes_a_lone_surrogate_as_an_escape() -> None:
    assert "\\ud800" in encode(1, "Page.navigate", {"url": "\ud800"})


def test_decode_finds_a_reply() -> None:
    reply = decode('{"id":12,"result":{"frameId":"A"}}')
    assert isinstance(reply, Reply)
    assert (reply.id, reply.parse()["result"]) == (12, {"frameId": "A"})


def test_decode_finds_an_error_reply() -> None:
    reply = decode('{"id":3,"error":{"code":-32601,"message":"no such method"}}')
    assert isinstance(reply, Reply)
    assert reply.parse()["error"]["code"] == -32601


def test_decode_finds_an_event() -> None:
    event = decode('{"method":"Page.loadEventFired","params":{"timestamp":1.5}}')
    assert isinstance(event, Event)
    assert (event.method, event.params()) == ("Page.loadEventFired", {"timestamp": 1.5})


def test_decode_gives_an_event_without_parameters_empty_ones() -> None:
    event = decode('{"method":"Inspector.targetCrashed"}')
    assert isinstance(event, Event)
    assert event.params() == {}


def test_decode_does_not_parse_an_event() -> None:
    # Most events have no reader, and a page can make them 40 MB long.
    assert isinstance(decode('{"method":"Page.navigatedWithinDocument","params":{"url":"broken'), Event)


def test_decode_does_not_parse_a_reply() -> None:
    assert isinstance(decode('{"id":1,"result":{"data":"broken'), Reply)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{ "id": 5, "result": {} }', 5),
        ('{"result":{},"id":5}', 5),
        ('{"result":{"method":"Page.a"},"id":5}', 5),
        ('{"id":5}', 5),
        ('{"id":12345678901,"result":{}}', 12345678901),
    ],
)
def test_decode_finds_a_reply_in_any_order(text: str, expected: int) -> None:
    reply = decode(text)
    assert isinstance(reply, Reply)
    assert reply.id == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"params":{"id":5},"method":"Page.frameResized"}',
        '{ "method" : "Page.frameResized" }',
        '{"sessionId":"A","method":"Page.frameResized","params":{}}',
    ],
)
def test_decode_finds_an_event_in_any_order(text: str) -> None:
    event = decode(text)
    assert isinstance(event, Event)
    assert event.method == "Page.frameResized"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        '"id"',
        "{}",
        '{"id":"5"}',
        '{"id":5.5}',
        '{"id":true}',
        '{"id":null}',
        '{"method":5}',
        '{"params":{}}',
        "[" * 100_000,
    ],
)
def test_decode_gives_none_for_what_is_neither(text: str) -> None:
    assert decode(text) is None


@same_inputs
@given(st.text())
def test_decode_raises_for_no_text(text: str) -> None:
    decode(text)


@same_inputs
@given(st.integers(1, 2**31), st.dictionaries(st.text(), json_values.filter(lambda value: value is not None)))
def test_encode_loses_nothing(command_id: int, params: dict[str, object]) -> None:
    assert json.loads(encode(command_id, "Page.navigate", params)) == {
        "id": command_id,
        "method": "Page.navigate",
        "params": params,
    }


@same_inputs
@given(st.integers(0, 2**40), json_values)
def test_decode_finds_every_reply_of_a_browser(command_id: int, result: object) -> None:
    reply = decode(json.dumps({"id": command_id, "result": result}, separators=(",", ":")))
    assert isinstance(reply, Reply)
    assert (reply.id, reply.parse()["result"]) == (command_id, result)
