"""trio-websocket, with a short way for what nearly all messages are: one whole frame of text.

Such a frame is read and written here, without wsproto's objects and a task between, which took a third of our CPU of a
small capture. The handshake, pings, closing, fragments and whatever is wrong stay the library's.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import cast

import trio
import trio_websocket

from .tasks import open_tasks

# 2**18 reads 16 MiB three to four times faster than trio-websocket's 4 KiB.
RECEIVE_BYTES = 2**18
MAX_HEAD_BYTES = 2**16
_END_OF_HEAD = b"\r\n\r\n"
# FIN and the opcode of text.
_WHOLE_TEXT = 0x81


def _text_frame(text: str) -> bytes:
    """A text message in one frame, as a client sends it (RFC 6455).

    Its mask is zero: masks keep a page's bytes from looking like a request to a proxy, and there is none on the way.
    """
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return struct.pack("!BBI", _WHOLE_TEXT, 0x80 | size, 0) + payload
    if size < 2**16:
        return struct.pack("!BBHI", _WHOLE_TEXT, 0x80 | 126, size, 0) + payload
    return struct.pack("!BBQI", _WHOLE_TEXT, 0x80 | 127, size, 0) + payload


class _ShortWay(trio.abc.Stream):
    """The stream that trio-websocket reads: without whole text frames, once there is a `take`, which gets these.

    A text over the limit passes, so that the library refuses it.
    """

    def __init__(self, stream: trio.abc.Stream, max_message_bytes: int) -> None:
        self.take: Callable[[str], None] | None = None
        # Called when nothing more will come.
        self.at_end: Callable[[], None] = lambda: None
        self._stream = stream
        self._max_message_bytes = max_message_bytes
        self._lock = trio.StrictFIFOLock()
        self._data = bytearray()
        # So many bytes, of those that are there and of those that come, are the library's.
        self._passing = 0
        self._is_open = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not (passed := self._next()):
            try:
                more = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.at_end()
                raise
            if not more:
                self.at_end()
                return b""
            self._data += more
        return passed

    def _next(self) -> bytes:
        """Hand over the texts that are there; returns what is the library's before the next one."""
        data = self._data
        while not self._passing:
            if not self._is_open:
                end = data.find(_END_OF_HEAD)
                if end < 0 and len(data) < MAX_HEAD_BYTES:
                    break
                self._is_open = True
                self._passing = end + len(_END_OF_HEAD) if end >= 0 else len(data)
                break
            begin, size = _payload(data)
            if len(data) < begin:
                break
            if self.take is None or data[0] != _WHOLE_TEXT or size > self._max_message_bytes:
                self._passing = begin + size
            elif len(data) < begin + size:
                break
            else:
                with memoryview(data) as view:
                    text = str(view[begin : begin + size], "utf-8", "replace")
                del data[: begin + size]
                self.take(text)
        passed = bytes(data[: self._passing])
        del data[: len(passed)]
        self._passing -= len(passed)
        return passed

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._lock:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _payload(data: bytearray) -> tuple[int, int]:
    """Where the payload of the first frame begins, and its size; where the head is not whole, its least end."""
    if len(data) < 2:
        return 2, 0
    size = data[1]
    if size < 126:
        return 2, size
    begin = 4 if size == 126 else 10
    return begin, int.from_bytes(data[2:begin], "big")


class Websocket:
    """A client's websocket; made by `open_websocket`."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection, short: _ShortWay) -> None:
        self._websocket = websocket
        self._short = short

    def hand_over(self, take: Callable[[str], None]) -> None:
        """From now on, texts go to `take`, which must not raise, as they are read, whoever waits in `get_message`."""
        self._short.take = take

    async def get_message(self) -> str | bytes:
        """The next message that is handed over to nobody. Raises trio_websocket.ConnectionClosed."""
        return await self._websocket.get_message()

    async def send_messages(self, texts: Iterable[str]) -> None:
        """Send texts with one write. Raises trio_websocket.ConnectionClosed."""
        if self._websocket.closed is not None:
            raise trio_websocket.ConnectionClosed(self._websocket.closed)
        try:
            await self._short.send_all(b"".join(map(_text_frame, texts)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise trio_websocket.ConnectionClosed(self._websocket.closed) from None


@asynccontextmanager
async def open_websocket(
    stream: trio.abc.Stream, host: str, path: str, *, max_message_bytes: int, timeout_s: float
) -> AsyncIterator[Websocket]:
    """A websocket over a connected stream. Raises as trio-websocket does, and TooSlowError where no answer comes."""
    short = _ShortWay(stream, max_message_bytes)
    async with open_tasks() as tasks:
        with trio.fail_after(timeout_s) as handshake:
            # An end before the answer is told to nobody by trio-websocket 0.12, which waits on.
            short.at_end = handshake.cancel
            websocket = await trio_websocket.wrap_client_stream(
                tasks,
                # It takes any stream.
                cast("trio.SocketStream", short),
                host,
                path,
                max_message_size=max_message_bytes,
                receive_buffer_size=RECEIVE_BYTES,
            )
        short.at_end = lambda: None
        yield Websocket(websocket, short)
