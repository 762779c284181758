"""cdp/connection.py: over a transport in memory and in virtual time; `open_connection` over a real socket."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import pytest
import trio
import trio_websocket
from trio.testing import MockClock, wait_all_tasks_blocked

from cdp import connection as module
from cdp.connection import BACKLOG_CHARS, BACKLOG_EVENTS, EVENT_CHARS, WRITE_TIMEOUT_S, Connection, open_connection
from cdp.errors import CDPError, CommandError, ConnectionClosed, SessionClosed, TargetCrashed, TooLarge
from cdp.tasks import open_tasks

TICK = "Page.lifecycleEvent"
TOCK = "Page.frameNavigated"


@attrs.define(eq=False)
class Wire:
    """The browser's end of a connection, in memory."""

    sent: list[dict[str, Any]] = attrs.field(factory=list)
    """Commands as they went out whole."""
    cut: int = 0
    """Writes that ended before the message was out."""
    open: trio.Event = attrs.field(factory=trio.Event)
    """Until it is set, writes wait."""
    closed: trio_websocket.ConnectionClosed | None = None
    """What writes raise."""
    _messages: tuple[trio.MemorySendChannel[Any], trio.MemoryReceiveChannel[Any]] = attrs.field(
        factory=lambda: trio.open_memory_channel[Any](math.inf)
    )

    async def send_messages(self, texts: Iterable[str]) -> None:
        try:
            await self.open.wait()
        except trio.Cancelled:
            self.cut += 1
            raise
        if self.closed is not None:
            raise self.closed
        self.sent += map(json.loads, texts)

    async def get_message(self) -> str | bytes:
        message: str | bytes | Exception = await self._messages[1].receive()
        if isinstance(message, Exception):
            raise message
        return message

    def feed(self, message: object) -> None:
        """Let the browser send a message: a text or bytes as they are, anything else as JSON."""
        self._messages[0].send_nowait(
            message if isinstance(message, str | bytes | Exception) else json.dumps(message, separators=(",", ":"))
        )

    def reply(self, command_id: int, **result: object) -> None:
        self.feed({"id": command_id, "result": result})

    def event(self, method: str, **params: object) -> None:
        self.feed({"method": method, "params": params})

    def close(self, code: int | None = 1006) -> None:
        """End the connection: with a close code, or None for a socket that just went away."""
        self.closed = trio_websocket.ConnectionClosed(
            None if code is None else trio_websocket.CloseReason(code=code, reason="")
        )
        self.feed(self.closed)


@attrs.define(eq=False)
class Call:
    """A call that runs in a task of its own."""

    value: Any = None
    error: CDPError | None = None
    over: trio.Event = attrs.field(factory=trio.Event)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self, function: Callable[[], Awaitable[Any]]) -> None:
        with self.scope:
            try:
                self.value = await function()
            except CDPError as error:
                self.error = error
        self.over.set()


def begin(nursery: trio.Nursery, function: Callable[[], Awaitable[Any]]) -> Call:
    """Start a call in the background."""
    call = Call()
    nursery.start_soon(call.run, function)
    return call


@pytest.fixture
def wire() -> Wire:
    wire = Wire()
    wire.open.set()
    return wire


@pytest.fixture
async def connection(wire: Wire) -> AsyncIterator[Connection]:
    """A connection that is read as long as the test runs."""
    connection = Connection(wire, SessionClosed)
    async with open_tasks() as tasks:
        tasks.start_soon(connection.run)
        yield connection


# Commands


async def test_send_writes_the_method_and_its_parameters(
    connection: Connection, wire: Wire, nursery: trio.Nursery
) -> None:
    begin(nursery, lambda: connection.send("Page.navigate", url="http://a/"))
    await wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    assert wire.sent == [{"id": 1, "method": "Page.navigate", "params": {"url": "http://a/"}}]


async def test_send_returns_the_result(connection: Connection, wire: Wire, nursery: trio.Nursery) -> None:
    call = begin(nursery, lambda: connection.send("Page.enable"))
    await wait_all_tasks_blocked()
    wire.reply(1, frameId="A")
    await call.over.wait()
    assert call.value == {"frameId": "A"}


async def test_send_matches_replies_that_come_out_of_order(
    connection: Connection, wire: Wire, nursery: trio.Nursery
) -> None:
    calls = []
    for method in ("A.a", "B.b", "C.c"):
        calls.append(begin(nursery, lambda method=method: connection.send(method)))
        await wait_all_tasks_blocked()
    for message in reversed(wire.sent):
        wire.reply(message["id"], of=message["method"])
    await wait_all_tasks_blocked()
    assert [call.value for call in calls] == [{"of": "A.a"}, {"of": "B.b"}, {"of": "C.c"}]


async def test_send_takes_a_reply_that_comes_before_the_write_returns() -> None:
    class Quick(Wire):
        async def send_messages(self, texts: Iterable[str]) -> None:
            for text in texts:
                self.reply(json.loads(text)["id"], early=True)
            await wait_all_tasks_blocked()

    connection = Connection(Quick(), SessionClosed)
    async with open_tasks() as tasks:
        tasks.start_soon(connection.run)
        assert await connection.send("Page.enable") == {"early": True}


async def test_send_raises_the_browser_s_refusal(connection: Connection, wire: Wire, nursery: trio.Nursery) -> None:
    call = begin(nursery, lambda: connection.send("Page.bogus"))
    await wait_all_tasks_blocked()
    wire.feed({"id": 1, "error": {"code": -32601, "message": "'Page.bogus' wasn't found"}})
    await call.over.wait()
    assert isinstance(call.error, CommandError)
    assert (call.error.method, call.error.code, call.error.message) == (
        "Page.bogus",
        -32601,
        "'Page.bogus' wasn't found",
    )


async def test_send_refused_leaves_the_connection_usable(
    connection: Connection, wire: Wire, nursery: trio.Nursery
) -> None:
    call = begin(nursery, lambda: connection.send("Page.bogus"))
    await wait_all_tasks_blocked()
    wire.feed({"id": 1, "error": {"code": 1, "message": "no"}})
    await call.over.wait()
    again = begin(nursery, lambda: connection.send("Page.enable"))
    await wait_all_tasks_blocked()
    wire.reply(2, fine=True)
    await again.over.wait()
    assert again.value == {"fine": True}


async def test_send_cancelled_leaves_the_connection_usable(
    connection: Connection, wire: Wire, nursery: trio.Nursery
) -> None:
    call = begin(nursery, lambda: connection.send("Page.enable"))
    await wait_all_tasks_blocked()
    call.scope.cancel()
    await call.over.wait()
    again = begin(nursery, lambda: connection.send("Page.disable"))
    await wait_all_tasks_blocked()
    wire.reply(1, late=True)
    wire.reply(2, fine=True)
    await again.over.wait()
    assert again.value == {"fine": True}


async def test_send_cancelled_forgets_its_command(connection: Connection, autojump_clock: MockClock) -> None:
    with trio.move_on_after(1):
        await connection.send("Page.enable")
    assert not connection._commands


async def test_send_cancelled_while_it_writes_lets_the_message_go_out_whole(
    connection: Connection, wire: Wire, nursery: trio.Nursery
) -> None:
    wire.open = trio.Event()
    call = begin(nursery, lambda: connection.send("Page.enable"))
    await wait_all_tasks_blocked()
    call.scope.cancel()
    await wait_all_tasks_blocked()
    wire.open.set()
    await call.over.wait()
    assert (wire.cut, [message["method"] for message in wire.sent]) == (0, ["Page.enable"])


async def test_send_gives_a_transport_that_blocks_its_time_and_no_more(
    connection: Connection, wire: Wire, autojump_clock: MockClock
) -> None:
    wire.open = trio.Event()
    start = autojump_clock.current_time()
    with pytest.raises(SessionClosed, match="took no command"):
        await connection.send("Page.enable")
    assert autojump_clock.current_time() - start == pytest.approx(WRITE_TIMEOUT_S)


async def test_send_over_a_blocked_transport_ends_the_commands_in_flight(
    connection: Connection, wire: Wire, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    waiting = begin(nursery, lambda: connection.send("Page.enable"))
    await wait_all_tasks_blocked()
    wire.open = trio.Event()
    with pytest.raises(SessionClosed):
        await connection.send("Page.disable")
    await waiting.over.wait()
    assert isinstance(waiting.error, SessionClosed)


async def test_send_raises_the_fault_that_its_write_meets(connection: Connection, wire: Wire) -> None:
    wire.closed = trio_websocket.ConnectionClosed(trio_websocket.CloseReason(code=1006, reason=""))
    with pytest.raises(SessionClosed, match="1006"):
        await connection.send("Page.enable")


async def test_send_all_writes_every_command_before_any_reply(
    connection: Connection, wire: Wire, nursery: trio.Nursery
) -> None:
    begin(nursery, lambda: connection.send_all(("A.a", {"x": 1}), ("B.b", {}), ("C.c", {})))
    await wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    assert [message["method"] for message in wire.sent] == ["A.a", "B.b", "C.c"]


async def test_send_all_returns_results_in_the_order_of_its_commands(
    connection: Connection, wire: Wire, nursery: trio.Nursery
) -> None:
    call = begin(nursery, lambda: connection.send_all(("A.a", {}), ("B.b", {}), ("C.c", {})))
    await wait_all_tasks_blocked()
    for message in reversed(wire.sent):
        wire.reply(message["id"], of=message["method"])
    await call.over.wait()
    assert [result["of"] for result in call.value] == ["A.a", "B.b", "C.c"]


async def test_send_all_keeps_its_own_replies_while_others_send(
    connection: Connection, wire: Wire, nursery: trio.Nursery
) -> None:
    # Both wait in their first write; then their commands alternate on the wire.
    wire.open = trio.Event()
    first = begin(nursery, lambda: connection.send_all(("A.a", {}), ("A.b", {})))
    second = begin(nursery, lambda: connection.send_all(("B.a", {}), ("B.b", {})))
    await wait_all_tasks_blocked()
    wire.open.set()
    await wait_all_tasks_blocked()
    for message in wire.sent:
        wire.reply(message["id"], of=message["method"])
    await first.over.wait()
    await second.over.wait()
    assert [result["of"] for result in first.value + second.value] == ["A.a", "A.b", "B.a", "B.b"]


async def test_send_all_raises_the_first_refusal(connection: Connection, wire: Wire, nursery: trio.Nursery) -> None:
    call = begin(nursery, lambda: connection.send_all(("A.a", {}), ("B.b", {}), ("C.c", {})))
    await wait_all_tasks_blocked()
    wire.reply(1)
    wire.feed({"id": 2, "error": {"code": 1, "message": "second"}})
    wire.feed({"id": 3, "error": {"code": 1, "message": "third"}})
    await call.over.wait()
    assert isinstance(call.error, CommandError)
    assert (call.error.method, call.error.message) == ("B.b", "second")


async def test_post_does_not_wait_for_the_reply(connection: Connection, wire: Wire) -> None:
    with trio.fail_after(1):
        await connection.post("Page.handleJavaScriptDialog", accept=True)
    assert wire.sent == [{"id": 1, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}]


async def test_post_refused_harms_nobody(connection: Connection, wire: Wire, nursery: trio.Nursery) -> None:
    await connection.post("Page.bogus")
    wire.feed({"id": 1, "error": {"code": 1, "message": "no"}})
    call = begin(nursery, lambda: connection.send("Page.enable"))
    await wait_all_tasks_blocked()
    wire.reply(2, fine=True)
    await call.over.wait()
    assert call.value == {"fine": True}


async def test_post_raises_the_fault(connection: Connection, wire: Wire) -> None:
    wire.close()
    await connection.ended.wait()
    with pytest.raises(SessionClosed):
        await connection.post("Page.enable")


@pytest.mark.parametrize(
    "message", [b'{"id":1,"result":{}}', "", "no JSON", "[]", '{"id":99,"result":{}}', '{"method":"No.body"}']
)
async def test_run_passes_over_what_concerns_nobody(
    connection: Connection, wire: Wire, nursery: trio.Nursery, message: object
) -> None:
    call = begin(nursery, lambda: connection.send("Page.enable"))
    await wait_all_tasks_blocked()
    wire.feed(message)
    wire.reply(1, fine=True)
    await call.over.wait()
    assert call.value == {"fine": True}


# Faults


@pytest.mark.parametrize(("code", "error"), [(1006, SessionClosed), (1000, SessionClosed), (None, SessionClosed)])
async def test_close_ends_every_command(
    connection: Connection, wire: Wire, nursery: trio.Nursery, code: int | None, error: type[CDPError]
) -> None:
    calls = [begin(nursery, lambda: connection.send("Page.enable")) for _ in range(3)]
    await wait_all_tasks_blocked()
    wire.close(code)
    for call in calls:
        await call.over.wait()
    assert [type(call.error) for call in calls] == [error] * 3


async def test_close_names_its_code(connection: Connection, wire: Wire) -> None:
    wire.close(1011)
    await connection.ended.wait()
    with pytest.raises(SessionClosed, match="1011"):
        connection.check()


async def test_close_for_a_message_over_the_limit_is_too_large(
    connection: Connection, wire: Wire, nursery: trio.Nursery
) -> None:
    call = begin(nursery, lambda: connection.send("DOM.getOuterHTML"))
    await wait_all_tasks_blocked()
    wire.close(1009)
    await call.over.wait()
    assert isinstance(call.error, TooLarge)


async def test_close_ends_every_subscription(connection: Connection, wire: Wire, nursery: trio.Nursery) -> None:
    async def follow(method: str) -> None:
        with connection.subscribe(method) as events:
            async for _ in events:
                pass

    calls = [begin(nursery, lambda method=method: follow(method)) for method in (TICK, TOCK)]
    await wait_all_tasks_blocked()
    wire.close()
    for call in calls:
        await call.over.wait()
    assert [type(call.error) for call in calls] == [SessionClosed] * 2


async def test_close_does_not_take_a_reply_back(connection: Connection, wire: Wire, nursery: trio.Nursery) -> None:
    call = begin(nursery, lambda: connection.send("Page.enable"))
    await wait_all_tasks_blocked()
    wire.reply(1, fine=True)
    wire.close()
    await call.over.wait()
    assert call.value == {"fine": True}


async def test_close_is_what_the_next_call_sees(connection: Connection, wire: Wire) -> None:
    wire.close()
    await connection.ended.wait()
    with pytest.raises(SessionClosed):
        await connection.send("Page.enable")
    assert wire.sent == []


async def test_close_ends_the_reader_without_an_error(wire: Wire) -> None:
    wire.close()
    with trio.fail_after(1):
        await Connection(wire, ConnectionClosed).run()


async def test_first_fault_stays(connection: Connection, wire: Wire) -> None:
    wire.event("Inspector.targetCrashed")
    wire.close(1009)
    await wait_all_tasks_blocked()
    with pytest.raises(TargetCrashed):
        connection.check()


async def test_live_connection_has_no_fault(connection: Connection) -> None:
    connection.check()
    assert not connection.ended.is_set()


async def test_crash_of_the_target_ends_every_command(
    connection: Connection, wire: Wire, nursery: trio.Nursery
) -> None:
    # The socket stays open and nothing is answered any more.
    call = begin(nursery, lambda: connection.send("Page.navigate"))
    await wait_all_tasks_blocked()
    wire.event("Inspector.targetCrashed")
    await call.over.wait()
    assert isinstance(call.error, TargetCrashed)


async def test_crash_of_the_target_ends_every_subscription(connection: Connection, wire: Wire) -> None:
    with connection.subscribe(TICK) as events:
        wire.event("Inspector.targetCrashed")
        with pytest.raises(TargetCrashed):
            await anext(events)


# Events


async def test_subscription_gives_the_events_asked_for_in_order(connection: Connection, wire: Wire) -> None:
    with connection.subscribe(TICK, TOCK) as events:
        wire.event(TICK, number=1)
        wire.event("Page.other", number=2)
        wire.event(TOCK, number=3)
        wire.event(TICK, number=4)
        seen = [await anext(events) for _ in range(3)]
    assert [(event.method, event.params()["number"]) for event in seen] == [(TICK, 1), (TOCK, 3), (TICK, 4)]


async def test_subscription_counts_what_nobody_has_taken(connection: Connection, wire: Wire) -> None:
    with connection.subscribe(TICK) as events:
        wire.event(TICK)
        wire.event(TICK)
        await wait_all_tasks_blocked()
        await anext(events)
        assert len(events) == 1


async def test_subscriptions_to_one_event_all_get_it(connection: Connection, wire: Wire) -> None:
    with connection.subscribe(TICK) as one, connection.subscribe(TICK) as other:
        wire.event(TICK, number=1)
        assert [(await anext(events)).params() for events in (one, other)] == [{"number": 1}] * 2


async def test_subscription_gets_nothing_after_its_end(connection: Connection, wire: Wire) -> None:
    with connection.subscribe(TICK) as events:
        pass
    wire.event(TICK)
    await wait_all_tasks_blocked()
    assert len(events) == 0


async def test_subscription_gives_what_came_before_the_fault_first(connection: Connection, wire: Wire) -> None:
    with connection.subscribe(TICK) as events:
        wire.event(TICK, number=1)
        wire.close()
        await connection.ended.wait()
        assert (await anext(events)).params() == {"number": 1}
        with pytest.raises(SessionClosed):
            await anext(events)


async def test_subscription_waiting_can_be_cancelled(
    connection: Connection, wire: Wire, autojump_clock: MockClock
) -> None:
    with connection.subscribe(TICK) as events:
        with trio.move_on_after(1) as scope:
            await anext(events)
        wire.event(TICK, number=1)
        assert scope.cancelled_caught
        assert (await anext(events)).params() == {"number": 1}


async def test_reader_does_not_wait_for_a_consumer(connection: Connection, wire: Wire, nursery: trio.Nursery) -> None:
    with connection.subscribe(TICK):
        call = begin(nursery, lambda: connection.send("Page.enable"))
        await wait_all_tasks_blocked()
        for _ in range(BACKLOG_EVENTS):
            wire.event(TICK)
        wire.reply(1, fine=True)
        await call.over.wait()
    assert call.value == {"fine": True}


async def test_subscription_over_its_events_ends_the_connection(
    connection: Connection, wire: Wire, nursery: trio.Nursery
) -> None:
    with connection.subscribe(TICK):
        call = begin(nursery, lambda: connection.send("Page.enable"))
        await wait_all_tasks_blocked()
        for _ in range(BACKLOG_EVENTS + 1):
            wire.event(TICK)
        await call.over.wait()
    assert isinstance(call.error, SessionClosed)
    assert TICK in str(call.error)


async def test_subscription_over_its_characters_ends_the_connection(connection: Connection, wire: Wire) -> None:
    text = json.dumps({"method": TICK, "params": {"a": "a" * (EVENT_CHARS - 200)}}, separators=(",", ":"))
    with connection.subscribe(TICK):
        for _ in range(BACKLOG_CHARS // len(text) + 1):
            connection.check()
            wire.feed(text)
            await wait_all_tasks_blocked()
        with pytest.raises(SessionClosed, match="more"):
            connection.check()


async def test_subscription_that_is_read_takes_any_number_of_events(connection: Connection, wire: Wire) -> None:
    text = json.dumps({"method": TICK, "params": {"a": "a" * (EVENT_CHARS - 200)}}, separators=(",", ":"))
    with connection.subscribe(TICK) as events:
        for _ in range(2 * BACKLOG_CHARS // len(text)):
            wire.feed(text)
            await anext(events)
    connection.check()


async def test_subscription_over_its_limit_keeps_no_more(connection: Connection, wire: Wire) -> None:
    with connection.subscribe(TICK) as events:
        for _ in range(BACKLOG_EVENTS + 100):
            wire.event(TICK)
        await wait_all_tasks_blocked()
        assert len(events) <= BACKLOG_EVENTS + 1


async def test_subscription_drops_a_giant_event(connection: Connection, wire: Wire) -> None:
    with connection.subscribe(TICK) as events:
        wire.event(TICK, url="a" * EVENT_CHARS)
        wire.event(TICK, number=2)
        assert (await anext(events)).params() == {"number": 2}
    connection.check()


async def test_giant_events_that_nobody_reads_cost_nothing(connection: Connection, wire: Wire) -> None:
    with connection.subscribe(TICK) as events:
        giant = json.dumps({"method": "Page.navigatedWithinDocument", "params": {"url": "a" * EVENT_CHARS}})
        for _ in range(BACKLOG_CHARS // EVENT_CHARS + 1):
            wire.feed(giant)
        await wait_all_tasks_blocked()
        assert len(events) == 0
    connection.check()


# Over a real socket

Handler = Callable[[trio_websocket.WebSocketConnection], Awaitable[None]]


@asynccontextmanager
async def open_server(handler: Handler) -> AsyncIterator[str]:
    """A websocket server in place of the browser; its URL."""

    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        websocket = await request.accept()
        with suppress(trio_websocket.ConnectionClosed):
            await handler(websocket)

    async with open_tasks() as tasks:
        server = await tasks.start(trio_websocket.serve_websocket, serve, "127.0.0.1", 0, None)
        yield f"ws://127.0.0.1:{server.port}/devtools/page/A"


async def answer_bytes(websocket: trio_websocket.WebSocketConnection) -> None:
    """Answer every command with as many characters as it asks for."""
    while True:
        command = json.loads(await websocket.get_message())
        result = {"data": "a" * command["params"]["characters"]}
        await websocket.send_message(json.dumps({"id": command["id"], "result": result}))


async def test_open_connection_takes_a_message_of_many_mib() -> None:
    async with open_server(answer_bytes) as url, open_connection(url) as connection:
        assert len((await connection.send("Page.captureScreenshot", characters=2**23))["data"]) == 2**23


async def test_open_connection_ends_for_a_message_over_its_limit() -> None:
    async with open_server(answer_bytes) as url, open_connection(url, max_message_bytes=2**20) as connection:
        with pytest.raises(TooLarge):
            await connection.send("Page.captureScreenshot", characters=2**21)


async def test_open_connection_leaves_the_body_s_exception_as_it_is() -> None:
    async with open_server(answer_bytes) as url:
        with pytest.raises(KeyError, match="mine"):
            async with open_connection(url):
                raise KeyError("mine")


async def test_open_connection_closes_its_socket_when_cancelled() -> None:
    gone = trio.Event()

    async def watch(websocket: trio_websocket.WebSocketConnection) -> None:
        try:
            await websocket.get_message()
        except trio_websocket.ConnectionClosed:
            gone.set()

    async with open_server(watch) as url:
        with trio.CancelScope() as scope:
            async with open_connection(url):
                scope.cancel()
                await trio.sleep_forever()
        with trio.fail_after(5):
            await gone.wait()


async def test_open_connection_ended_refuses_further_calls() -> None:
    async with open_server(answer_bytes) as url:
        async with open_connection(url, lost=SessionClosed) as connection:
            pass
        with pytest.raises(SessionClosed):
            await connection.send("Page.enable")


async def test_open_connection_raises_its_error_when_nobody_listens() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(SessionClosed, match="cannot connect"):
        async with open_connection(f"ws://127.0.0.1:{port}/devtools/page/A", lost=SessionClosed):
            pass


async def test_open_connection_raises_its_error_when_the_other_side_is_no_websocket() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, open_tasks() as tasks:
        tasks.start_soon(trio.serve_listeners, refuse, [listener])
        port = listener.socket.getsockname()[1]
        with pytest.raises(ConnectionClosed, match="cannot connect"):
            async with open_connection(f"ws://127.0.0.1:{port}/devtools/page/A"):
                pass


async def test_open_connection_gives_up_one_who_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.05)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        with pytest.raises(ConnectionClosed, match="cannot connect"):
            async with open_connection(f"ws://127.0.0.1:{port}/devtools/page/A"):
                pass
