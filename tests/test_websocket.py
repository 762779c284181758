"""cdp/websocket.py: whole texts on their short way, all else as the library has it; the peer writes its own frames."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio_websocket
import wsproto
import wsproto.events
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from cdp import connection as connection_module
from cdp.connection import WRITE_TIMEOUT_S, Connection, open_connection
from cdp.errors import CDPError, SessionClosed, TooLarge
from cdp.tasks import open_tasks
from cdp.websocket import RECEIVE_BYTES, Websocket, open_websocket

LIMIT_BYTES = 2**20
TEXT, CONTINUATION, BINARY, CLOSE, PING, PONG = 1, 0, 2, 8, 9, 10
SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, 65_537)


def frame(payload: bytes | str, opcode: int = TEXT, *, is_last: bool = True) -> bytes:
    """A frame as a server sends it."""
    data = payload.encode() if isinstance(payload, str) else payload
    head = bytes([(0x80 if is_last else 0) | opcode])
    if len(data) < 126:
        return head + bytes([len(data)]) + data
    if len(data) < 2**16:
        return head + struct.pack("!BH", 126, len(data)) + data
    return head + struct.pack("!BQ", 127, len(data)) + data


@attrs.define(eq=False)
class Peer:
    """The server's end; `got` is what it understood of what the client sent."""

    stream: trio.abc.Stream
    protocol: wsproto.WSConnection = attrs.field(factory=lambda: wsproto.WSConnection(wsproto.ConnectionType.SERVER))
    got: list[wsproto.events.Event] = attrs.field(factory=list)

    async def shake_hands(self) -> bytes:
        """Read the client's request; returns the answer to it."""
        while True:
            self.protocol.receive_data(await self.stream.receive_some())
            for event in self.protocol.events():
                if isinstance(event, wsproto.events.Request):
                    return self.protocol.send(wsproto.events.AcceptConnection())

    async def read(self) -> None:
        """Take in what the client sends, as long as it does."""
        while data := await self.stream.receive_some():
            self.protocol.receive_data(data)
            self.got += self.protocol.events()
        self.protocol.receive_data(None)

    @property
    def texts(self) -> list[str]:
        """The whole texts that came."""
        return "".join(
            event.data + ("\n" if event.message_finished else "")
            for event in self.got
            if isinstance(event, wsproto.events.TextMessage)
        ).split("\n")[:-1]


@attrs.define(eq=False)
class Pair:
    """Both ends of a websocket that is open; `taken` are the texts that came the short way."""

    websocket: Websocket
    peer: Peer
    taken: list[str] = attrs.field(factory=list)

    async def send(self, data: bytes) -> None:
        """Have the peer send bytes, and wait until they are read."""
        await self.peer.stream.send_all(data)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def open_pair(
    cut: Callable[[bytes], list[bytes]] = lambda answer: [answer], *, hand_over: bool = True
) -> AsyncIterator[Pair]:
    """`cut`: the pieces in which the answer to the handshake comes."""
    ours, theirs = memory_stream_pair()
    peer = Peer(theirs)

    async def answer() -> None:
        for piece in cut(await peer.shake_hands()):
            await theirs.send_all(piece)
            await wait_all_tasks_blocked()

    async with open_tasks() as tasks:
        tasks.start_soon(answer)
        async with open_websocket(
            ours, "127.0.0.1:1", "/devtools", max_message_bytes=LIMIT_BYTES, timeout_s=10
        ) as websocket:
            pair = Pair(websocket, peer)
            if hand_over:
                websocket.hand_over(pair.taken.append)
            yield pair


# Reading


@pytest.mark.parametrize("size", SIZES)
async def test_text_of_each_size_is_handed_over(size: int) -> None:
    async with open_pair() as pair:
        await pair.send(frame("x" * size))
        assert pair.taken == ["x" * size]


async def test_texts_of_one_read_are_handed_over_in_order() -> None:
    texts = [str(number) * number for number in range(200)]
    async with open_pair() as pair:
        await pair.send(b"".join(map(frame, texts)))
        assert pair.taken == texts


@pytest.mark.parametrize("size", [3, 130, 65_540])
async def test_text_may_be_cut_anywhere(size: int) -> None:
    text = ("aé€😀" * size)[:size]
    data = frame(text) + frame("next")
    cuts = range(1, len(data)) if size < 1000 else [*range(1, 20), 30_000, *range(len(data) - 12, len(data))]
    async with open_pair() as pair:
        for cut in cuts:
            pair.taken.clear()
            await pair.send(data[:cut])
            await pair.send(data[cut:])
            assert pair.taken == [text, "next"]


async def test_text_may_come_byte_by_byte() -> None:
    async with open_pair() as pair:
        for byte in frame("é" * 100) + frame("next", PING) + frame("last"):
            await pair.send(bytes([byte]))
        assert pair.taken == ["é" * 100, "last"]


async def test_text_may_be_as_large_as_the_limit() -> None:
    async with open_pair() as pair:
        data = frame("x" * LIMIT_BYTES)
        assert len(data) > RECEIVE_BYTES
        await pair.send(data)
        assert [len(text) for text in pair.taken] == [LIMIT_BYTES]


async def test_text_that_is_no_utf_8_is_handed_over_with_its_faults_marked() -> None:
    async with open_pair() as pair:
        await pair.send(frame(b"a\xffb\xc3") + frame("next"))
        assert pair.taken == ["a\ufffdb\ufffd", "next"]


async def test_text_in_fragments_is_a_message() -> None:
    first, rest = "aé".encode()[:2], "aé".encode()[2:]
    async with open_pair() as pair:
        await pair.send(
            frame("before")
            + frame(first, is_last=False)
            + frame(rest, CONTINUATION, is_last=False)
            + frame("!", CONTINUATION)
            + frame("after")
        )
        assert (pair.taken, await pair.websocket.get_message()) == (["before", "after"], "aé!")


@pytest.mark.parametrize("cut", range(1, 12))
async def test_ping_between_fragments_is_answered(cut: int) -> None:
    data = frame("a", is_last=False) + frame("p", PING) + frame("b", CONTINUATION)
    async with open_pair() as pair, open_tasks() as tasks:
        tasks.start_soon(pair.peer.read)
        await pair.send(data[:cut])
        await pair.send(data[cut:])
        assert await pair.websocket.get_message() == "ab"
        assert [event.payload for event in pair.peer.got if isinstance(event, wsproto.events.Pong)] == [b"p"]


async def test_ping_between_texts_is_answered() -> None:
    async with open_pair() as pair, open_tasks() as tasks:
        tasks.start_soon(pair.peer.read)
        await pair.send(frame("a") + frame("p" * 125, PING) + frame("b"))
        assert pair.taken == ["a", "b"]
        assert [event.payload for event in pair.peer.got if isinstance(event, wsproto.events.Pong)] == [b"p" * 125]


@pytest.mark.parametrize("size", SIZES)
async def test_binary_is_a_message(size: int) -> None:
    async with open_pair() as pair:
        # A frame of text inside is part of it.
        payload = (frame("inside") * (size // 8 + 1))[:size]
        await pair.send(frame(payload, BINARY) + frame("after"))
        assert (await pair.websocket.get_message(), pair.taken) == (payload, ["after"])


@pytest.mark.parametrize("size", [130, 65_540])
async def test_binary_may_be_cut_in_its_head(size: int) -> None:
    data = frame(b"x" * size, BINARY) + frame("after")
    async with open_pair() as pair:
        for cut in range(1, 12):
            await pair.send(data[:cut])
            await pair.send(data[cut:])
            assert await pair.websocket.get_message() == b"x" * size
        assert pair.taken == ["after"] * 11


async def test_text_before_anybody_takes_it_is_a_message() -> None:
    async with open_pair(hand_over=False) as pair:
        await pair.send(frame("early"))
        pair.websocket.hand_over(pair.taken.append)
        await pair.send(frame("late"))
        assert (await pair.websocket.get_message(), pair.taken) == ("early", ["late"])


async def test_text_in_the_read_that_ends_the_handshake_is_not_lost() -> None:
    async with open_pair(lambda answer: [answer + frame("early")], hand_over=False) as pair:
        assert await pair.websocket.get_message() == "early"


async def test_handshake_may_be_cut_anywhere() -> None:
    lengths: list[int] = []

    def measure(answer: bytes) -> list[bytes]:
        lengths.append(len(answer))
        return [answer]

    async with open_pair(measure):
        pass
    for at in range(1, lengths[0]):
        async with open_pair(lambda answer, at=at: [answer[:at], answer[at:]]) as pair:
            await pair.send(frame("short") + frame("two\r\n\r\nparts") + frame("way"))
            assert pair.taken == ["short", "two\r\n\r\nparts", "way"]


# The end


async def test_text_over_the_limit_closes_with_its_code() -> None:
    async with open_pair() as pair, open_tasks() as tasks:
        tasks.start_soon(pair.peer.read)
        await pair.send(frame("before") + frame("x" * (LIMIT_BYTES + 1)))
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await pair.websocket.get_message()
        assert (caught.value.reason.code, pair.taken) == (1009, ["before"])


async def test_text_over_the_limit_is_refused_before_it_is_there() -> None:
    async with open_pair() as pair, open_tasks() as tasks:
        tasks.start_soon(pair.peer.read)
        await pair.send(b"\x81\x7f" + struct.pack("!Q", 2**40) + b"x" * 2 * LIMIT_BYTES)
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await pair.websocket.get_message()
        assert caught.value.reason.code == 1009


async def test_connection_that_gets_a_text_over_the_limit_is_too_large() -> None:
    async with open_pair(hand_over=False) as pair, open_tasks() as tasks:
        connection = Connection(pair.websocket, SessionClosed)
        pair.websocket.hand_over(connection.take)
        tasks.start_soon(pair.peer.read)
        tasks.start_soon(connection.run)
        await pair.send(frame("x" * (LIMIT_BYTES + 1)))
        with pytest.raises(TooLarge):
            await connection.send("Page.enable")


@pytest.mark.parametrize("cut", [0, 1, 3, 5, 40])
async def test_close_in_the_middle_of_a_text_is_a_close(cut: int) -> None:
    async with open_pair() as pair:
        await pair.send(frame("whole") + frame("x" * 200)[:cut])
        await pair.peer.stream.aclose()
        with pytest.raises(trio_websocket.ConnectionClosed):
            await pair.websocket.get_message()
        assert pair.taken == ["whole"]


async def test_texts_before_the_close_are_handed_over() -> None:
    async with open_pair() as pair, open_tasks() as tasks:
        tasks.start_soon(pair.peer.read)
        await pair.send(frame("last") + frame(struct.pack("!H", 1001), CLOSE))
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await pair.websocket.get_message()
        assert (caught.value.reason.code, pair.taken) == (1001, ["last"])


async def test_what_is_no_frame_closes() -> None:
    async with open_pair() as pair, open_tasks() as tasks:
        tasks.start_soon(pair.peer.read)
        await pair.send(frame("before") + b"\xf3\x01x")
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await pair.websocket.get_message()
        assert (caught.value.reason.code, pair.taken) == (1002, ["before"])


# Writing


@pytest.mark.parametrize("size", SIZES)
async def test_text_of_each_size_is_sent(size: int) -> None:
    async with open_pair() as pair, open_tasks() as tasks:
        tasks.start_soon(pair.peer.read)
        await pair.websocket.send_messages(["x" * size])
        await wait_all_tasks_blocked()
        assert pair.peer.texts == ["x" * size]


async def test_texts_are_sent_in_order() -> None:
    texts = ["", "a", "é€😀" * 50, "x" * 70_000, "last"]
    async with open_pair() as pair, open_tasks() as tasks:
        tasks.start_soon(pair.peer.read)
        await pair.websocket.send_messages(texts)
        await wait_all_tasks_blocked()
        assert pair.peer.texts == texts


async def test_senders_and_answers_to_pings_take_turns() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    texts = {letter: [f"{letter}{number}" * 30_000 for number in range(5)] for letter in "abcd"}
    # Sockets, since these take large writes piece by piece.
    async with listener, await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]) as ours:
        theirs = await listener.accept()
        peer = Peer(theirs)

        def pongs() -> int:
            return sum(isinstance(event, wsproto.events.Pong) for event in peer.got)

        async def serve() -> None:
            await theirs.send_all(await peer.shake_hands())
            await theirs.send_all(frame("p", PING) * 20)
            await peer.read()

        async with theirs, open_tasks() as tasks:
            tasks.start_soon(serve)
            async with open_websocket(
                ours, "127.0.0.1:1", "/devtools", max_message_bytes=LIMIT_BYTES, timeout_s=10
            ) as websocket:
                with trio.fail_after(20):
                    async with trio.open_nursery() as senders:
                        for some in texts.values():
                            senders.start_soon(websocket.send_messages, some)
                    while len(peer.texts) < 20 or pongs() < 20:  # noqa: ASYNC110
                        await trio.sleep(0.01)
        for letter, some in texts.items():
            assert [text for text in peer.texts if text.startswith(letter)] == some


async def test_send_after_the_close_raises_it() -> None:
    async with open_pair() as pair, open_tasks() as tasks:
        tasks.start_soon(pair.peer.read)
        await pair.send(frame(struct.pack("!H", 1001), CLOSE))
        with pytest.raises(trio_websocket.ConnectionClosed):
            await pair.websocket.send_messages(["late"])


async def test_send_to_a_peer_that_is_gone_raises_its_close() -> None:
    async with open_pair() as pair:
        await pair.peer.stream.aclose()
        with pytest.raises(trio_websocket.ConnectionClosed):
            await pair.websocket.send_messages(["late"])


async def test_send_that_finds_the_peer_gone_raises_its_close() -> None:
    async with open_pair() as pair:
        # Before the end has been read.
        pair.peer.stream.receive_stream.close()  # type: ignore[attr-defined]
        with pytest.raises(trio_websocket.ConnectionClosed):
            await pair.websocket.send_messages(["late"])


async def test_write_that_the_peer_does_not_take_is_given_up(autojump_clock: MockClock) -> None:
    async with open_pair(hand_over=False) as pair, open_tasks() as tasks:
        connection = Connection(pair.websocket, SessionClosed)
        tasks.start_soon(connection.run)
        errors: list[CDPError] = []

        async def send() -> None:
            with pytest.raises(SessionClosed) as caught:
                await connection.send("Page.enable")
            errors.append(caught.value)

        # A memory stream takes everything: here it waits for room that never comes.
        blocked = pair.websocket._short._stream
        blocked.send_stream.send_all_hook = trio.sleep_forever  # type: ignore[attr-defined]
        began = trio.current_time()
        async with trio.open_nursery() as senders:
            for _ in range(3):
                senders.start_soon(send)
        assert trio.current_time() - began == WRITE_TIMEOUT_S == connection_module.WRITE_TIMEOUT_S
        assert len(errors) == 3


@pytest.mark.parametrize("reset", [False, True])
async def test_end_before_the_handshake_is_answered_is_no_answer(reset: bool) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if reset:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    async with open_tasks() as tasks:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tasks.start_soon(trio.serve_listeners, hang_up, [listener])
        port = listener.socket.getsockname()[1]
        # Sooner than CONNECT_TIMEOUT_S.
        with trio.fail_after(5):
            with pytest.raises(SessionClosed, match="cannot connect to the browser: "):
                async with open_connection(f"ws://127.0.0.1:{port}/devtools", lost=SessionClosed):
                    pass
