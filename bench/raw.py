"""The yardstick: the shortest loop over the protocol that makes a picture in a fresh browser context.

A worker (see batches.py) on one socket with flat sessions. For each capture it sends what a picture needs and nothing
more; a command waits for the reply to an earlier one only where it needs its result, or where Chromium demands it.
Measured against it, on a tiny page: `--remote-debugging-pipe` is as fast; not to wait for the disposal makes captures
one at a time come 5 % faster and each 5 % later, and changes nothing at 2 and 4 at once.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio

from bench.batches import HEIGHT_PX, WIDTH_PX, Taken, lines, obey
from cdp.launcher import find_browser
from tests.compare import SWITCHES

# A quiet start (facts.md) beside what pixels depend on; nothing that makes it fast.
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
CLOSING_S = 2.0
LISTENING = b"DevTools listening on "


class Websocket:
    """As much of RFC 6455 as Chromium's end needs: text messages in one frame each. The mask is zero."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = bytearray()
        self._lock = trio.Lock()

    async def shake_hands(self, host: str, path: str) -> None:
        """Turn the HTTP connection into a websocket."""
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        await self._stream.send_all(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        while b"\r\n\r\n" not in self._received:
            self._received += await self._stream.receive_some()
        answer, _, self._received = self._received.partition(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101"), answer

    async def send(self, text: str) -> None:
        """Send a message of less than 64 KiB."""
        data = text.encode()
        length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        async with self._lock:
            await self._stream.send_all(b"\x81" + length + bytes(4) + data)

    async def receive(self) -> bytes:
        """The next message."""
        await self._have(2)
        assert self._received[0] == 0x81, "neither whole nor text"
        length = self._received[1]
        extra = {126: 2, 127: 8}.get(length, 0)
        if extra:
            await self._have(2 + extra)
            length = int.from_bytes(self._received[2 : 2 + extra], "big")
        await self._have(2 + extra + length)
        message = bytes(self._received[2 + extra : 2 + extra + length])
        del self._received[: 2 + extra + length]
        return message

    async def _have(self, count: int) -> None:
        while len(self._received) < count:
            data = await self._stream.receive_some(2**18)
            assert data, "the browser closed its socket"
            self._received += data


@attrs.define(eq=False)
class Command:
    """A command in flight."""

    result: dict[str, Any] = attrs.field(factory=dict)
    answered: trio.Event = attrs.field(factory=trio.Event)


class Browser:
    """Commands over one websocket."""

    def __init__(self, websocket: Websocket) -> None:
        self._websocket = websocket
        self._last_id = 0
        self._commands: dict[int, Command] = {}
        self._loaded: dict[str, trio.Event] = {}

    async def post(self, method: str, session_id: str | None = None, **params: Any) -> Command:
        """Send a command."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if session_id is not None:
            message["sessionId"] = session_id
        command = self._commands[self._last_id] = Command()
        await self._websocket.send(json.dumps(message))
        return command

    async def send(self, method: str, session_id: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        command = await self.post(method, session_id, **params)
        await command.answered.wait()
        return command.result

    async def read(self) -> None:
        """Take in replies and load events for ever."""
        while True:
            message = json.loads(await self._websocket.receive())
            if "id" in message:
                assert "error" not in message, message
                command = self._commands.pop(message["id"])
                command.result = message["result"]
                command.answered.set()
            elif message["method"] == "Page.loadEventFired":
                self._loaded[message["sessionId"]].set()

    async def capture(self, url: str, taken: Taken) -> None:
        """See `batches.Capture`."""
        context_id = (await self.send("Target.createBrowserContext"))["browserContextId"]
        target = {"url": "about:blank", "browserContextId": context_id, "width": WIDTH_PX, "height": HEIGHT_PX}
        target_id = (await self.send("Target.createTarget", **target))["targetId"]
        session_id = (await self.send("Target.attachToTarget", targetId=target_id, flatten=True))["sessionId"]
        loaded = self._loaded[session_id] = trio.Event()
        # Answered before the navigation: else its load event can be lost (facts.md).
        await self.send("Page.enable", session_id)
        await self.post("Page.navigate", session_id, url=url)
        await loaded.wait()
        shot = await self.send("Page.captureScreenshot", session_id, format="png", optimizeForSpeed=True)
        disposal = await self.post("Target.disposeBrowserContext", browserContextId=context_id)
        taken(base64.b64decode(shot["data"]))
        await disposal.answered.wait()
        del self._loaded[session_id]


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Launch Chromium and connect to it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        switches = ["--remote-debugging-port=0", f"--user-data-dir={profile}", *QUIET, *SWITCHES]
        if os.geteuid() == 0:
            switches.append("--no-sandbox")
        command = [str(find_browser()), *switches, "about:blank"]
        process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE)
        assert process.stderr is not None
        async with trio.open_nursery() as nursery:
            try:
                said = lines(process.stderr)
                while not (line := await anext(said)).startswith(LISTENING):
                    pass
                nursery.start_soon(drain, said)
                address = urlsplit(line.removeprefix(LISTENING).decode())
                assert address.hostname is not None
                assert address.port is not None
                async with await trio.open_tcp_stream(address.hostname, address.port) as stream:
                    websocket = Websocket(stream)
                    await websocket.shake_hands(address.netloc, address.path)
                    browser = Browser(websocket)
                    nursery.start_soon(browser.read)
                    yield browser
                    await browser.post("Browser.close")
                    nursery.cancel_scope.cancel()
            finally:
                # By itself it ends together with its helpers, which else write into the folder that is being removed.
                with trio.move_on_after(CLOSING_S, shield=True):
                    await process.wait()
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


async def drain(said: AsyncIterator[bytes]) -> None:
    """A full pipe would stop the browser."""
    async for _ in said:
        pass


async def main() -> None:
    """Be a worker."""
    async with open_browser() as browser:
        await obey(browser.capture)


if __name__ == "__main__":
    trio.run(main)
