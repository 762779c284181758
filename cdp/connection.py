"""One websocket to the browser: commands, their replies, and subscriptions to events.

Invariants
    C1  The reader never awaits a consumer and never raises for a remote fault: it sets the fault, which ends every
        command in flight and every subscription, and which the next call sees.
    C2  A write is never cut half-way by the caller's cancellation (that would kill the connection for everybody); the
        wait for the reply always can be.
    C3  What a page makes the browser send is bounded: events nobody subscribed to are dropped unparsed, a single
        event over `EVENT_CHARS` is dropped, a subscription over `BACKLOG_EVENTS` or `BACKLOG_CHARS` ends its page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import attrs
import h11
import trio
import trio_websocket
import wsproto.utilities

from .errors import CDPError, CommandError, ConnectionClosed, SessionClosed, TargetCrashed, TooLarge
from .protocol import Event, Reply, decode, encode
from .tasks import open_tasks
from .websocket import open_websocket

# trio-websocket's default of 1 MiB closes on a 2 MiB message.
MAX_MESSAGE_BYTES = 2**28
# The events this package reads are below 100 KB; a page's own URLs can make them as large as it likes.
EVENT_CHARS = 2**24
BACKLOG_EVENTS = 10_000
BACKLOG_CHARS = 2**26
# The browser process reads its sockets on a thread of its own: a command not taken within this time will never be.
WRITE_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
_NO_WEBSOCKET = (trio_websocket.HandshakeError, wsproto.utilities.ProtocolError, h11.ProtocolError)


class Transport(Protocol):
    """What a connection needs of a websocket; a pair of memory channels in tests.

    Both raise `trio_websocket.ConnectionClosed`.
    """

    async def send_messages(self, texts: Iterable[str]) -> None: ...

    async def get_message(self) -> str | bytes: ...


@attrs.define(eq=False)
class _Command:
    """A command in flight; `reply` stays None when the connection ended first."""

    reply: Reply | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)


class Subscription:
    """Events of the methods asked for, in the order they came: `async for event in subscription`.

    Raises the connection's fault once the events that came before it are taken.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._backlog: deque[Event] = deque()
        self._backlog_chars = 0
        self._arrival = trio.Event()

    def _wake(self) -> None:
        self._arrival.set()

    def _put(self, event: Event) -> bool:
        """Keep the event; False when the backlog is over its limits."""
        if len(event.text) > EVENT_CHARS:
            return True
        self._backlog.append(event)
        self._backlog_chars += len(event.text)
        self._wake()
        return len(self._backlog) <= BACKLOG_EVENTS and self._backlog_chars <= BACKLOG_CHARS

    def __len__(self) -> int:
        """How many events came that nobody has taken yet."""
        return len(self._backlog)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while not self._backlog:
            self._connection.check()
            self._arrival = trio.Event()
            await self._arrival.wait()
        event = self._backlog.popleft()
        self._backlog_chars -= len(event.text)
        return event


class Connection:
    """Commands and events over one transport.

    `lost` is the error that stands for the loss of this connection. Safe for any number of tasks.
    """

    def __init__(self, transport: Transport, lost: type[CDPError]) -> None:
        self._transport = transport
        self._lost = lost
        self._last_id = 0
        self._commands: dict[int, _Command] = {}
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._fault: tuple[type[CDPError], str] | None = None
        # Set once, by `_end`: no command will be answered from then on.
        self.ended = trio.Event()

    def check(self) -> None:
        """Raise the fault that ended this connection, if one did."""
        if self._fault is not None:
            error, message = self._fault
            raise error(message)

    async def send(self, method: str, /, **params: Any) -> dict[str, Any]:
        """Send one command and return its result.

        Raises CommandError when the browser refuses it, and the connection's fault (SessionClosed or ConnectionClosed,
        TargetCrashed, TooLarge) when it will not be answered. When cancelled, the command may still be carried out.
        """
        (result,) = await self.send_all((method, params))
        return result

    async def send_all(self, *commands: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Send commands without waiting between them and return their results, in order. Else as `send`."""
        waiting: dict[int, tuple[str, _Command]] = {}
        try:
            for method, _ in commands:
                self._last_id += 1
                waiting[self._last_id] = (method, command := _Command())
                self._commands[self._last_id] = command
            await self._post(encode(number, *command) for number, command in zip(waiting, commands, strict=True))
            return [await self._result(method, command) for method, command in waiting.values()]
        finally:
            for command_id in waiting:
                del self._commands[command_id]

    async def post(self, method: str, /, **params: Any) -> None:
        """Send one command whose result, a refusal included, nobody needs."""
        self._last_id += 1
        await self._post([encode(self._last_id, method, params)])

    async def _post(self, messages: Iterable[str]) -> None:
        self.check()
        with trio.move_on_after(WRITE_TIMEOUT_S, shield=True) as scope:
            try:
                await self._transport.send_messages(messages)
            except trio_websocket.ConnectionClosed as closed:
                self._end(*self._fault_of(closed))
        if scope.cancelled_caught:
            self._end(self._lost, f"the browser took no command for {WRITE_TIMEOUT_S:g} s")
        self.check()

    async def _result(self, method: str, command: _Command) -> dict[str, Any]:
        await command.ended.wait()
        if command.reply is None:
            self.check()
            raise AssertionError("a command ended without a reply on a live connection")
        message = command.reply.parse()
        if "error" in message:
            error = message["error"]
            raise CommandError(method, error.get("code", 0), error.get("message", "unknown error"))
        result: dict[str, Any] = message.get("result", {})
        return result

    @contextmanager
    def subscribe(self, *methods: str) -> Iterator[Subscription]:
        """Events of these methods from now on. Open it before sending the command that causes them."""
        subscription = Subscription(self)
        for method in methods:
            self._subscriptions.setdefault(method, []).append(subscription)
        try:
            yield subscription
        finally:
            for method in methods:
                self._subscriptions[method].remove(subscription)

    def give_up(self, reason: str, error: type[CDPError] | None = None) -> None:
        """End it from our side: nothing more is sent, and nothing waited for. `error` stands for it, else `lost`."""
        self._end(error or self._lost, reason)

    async def run(self) -> None:
        """Read until the transport closes; the owner runs it as a task of its own."""
        while True:
            try:
                text = await self._transport.get_message()
            except trio_websocket.ConnectionClosed as closed:
                self._end(*self._fault_of(closed))
                return
            if isinstance(text, str):
                self.take(text)

    def take(self, text: str) -> None:
        """Take in one message of the browser's."""
        message = decode(text)
        if isinstance(message, Reply):
            if command := self._commands.get(message.id):
                command.reply = message
                command.ended.set()
        elif isinstance(message, Event):
            self._dispatch(message)

    def _dispatch(self, event: Event) -> None:
        if self._fault is not None:
            # Read on, so that the socket can be closed in order, but keep nothing: nobody follows any more.
            return
        if event.method == "Inspector.targetCrashed":
            # Nothing in flight is answered any more, and the socket stays open.
            self._end(TargetCrashed, "the page's renderer process died")
        for subscription in self._subscriptions.get(event.method, ()):
            if not subscription._put(event):
                self._end(SessionClosed, f"the page caused more {event.method} events than can be followed")

    def _fault_of(self, closed: trio_websocket.ConnectionClosed) -> tuple[type[CDPError], str]:
        """The one place where trio-websocket's error becomes one of ours."""
        reason = closed.reason
        if reason is not None and reason.code == 1009:
            return TooLarge, "the browser sent a message over the limit"
        return self._lost, f"the connection to the browser closed ({reason.code if reason else 'no reason'})"

    def _end(self, error: type[CDPError], message: str) -> None:
        if self._fault is not None:
            return
        self._fault = (error, message)
        self.ended.set()
        for command in self._commands.values():
            command.ended.set()
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription._wake()


@asynccontextmanager
async def open_connection(
    url: str, *, lost: type[CDPError] = ConnectionClosed, max_message_bytes: int = MAX_MESSAGE_BYTES
) -> AsyncIterator[Connection]:
    """Connect to a websocket of the browser, `ws://127.0.0.1:PORT/devtools/...`.

    Raises `lost` when it cannot be reached. Resource handling: the socket is closed when the body ends.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            stream = await trio.open_tcp_stream(parts.hostname, parts.port)
    except (OSError, trio.TooSlowError) as error:
        raise lost(_cannot_connect(error)) from error
    try:
        # The stream is ours: trio-websocket does not close it after a failed handshake or a message over the limit. Nor
        # is there a closing handshake: under cancellation its reader is gone and nobody would answer.
        async with stream, AsyncExitStack() as stack:
            try:
                websocket = await stack.enter_async_context(
                    open_websocket(
                        stream,
                        f"{parts.hostname}:{parts.port}",
                        parts.path,
                        max_message_bytes=max_message_bytes,
                        timeout_s=CONNECT_TIMEOUT_S,
                    )
                )
            except (trio.TooSlowError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed) as error:
                raise lost(_cannot_connect(error)) from error
            connection = Connection(websocket, lost)
            websocket.hand_over(connection.take)
            tasks = await stack.enter_async_context(open_tasks())
            tasks.start_soon(connection.run)
            try:
                yield connection
            finally:
                connection.give_up("the connection was closed")
    except ExceptionGroup as group:
        # trio-websocket raises in a task of its own: a refusal of the handshake, and what it cannot answer to an answer
        # that is no websocket's.
        refused, others = group.split(_NO_WEBSOCKET)
        if refused is None or others is not None:
            raise
        raise lost(_cannot_connect(refused.exceptions[0])) from group


def _cannot_connect(error: BaseException) -> str:
    return f"cannot connect to the browser: {str(error) or 'no answer'}"
