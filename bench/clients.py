"""A client of the service that costs little: plain sockets that are kept, no more of HTTP than the service speaks."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from tests.test_end_to_end import Server, raw_request


class Client:
    """One connection that is kept."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self._stream: trio.SocketStream | None = None
        self._rest = b""

    async def ask(self, method: str, path: str, body: bytes = b"") -> int:
        """Send a request that must succeed; returns the length of the answer's body, at which it does not look."""
        status, length = await self._answer(method, path, body, None)
        assert status in (200, 202), status
        return length

    async def fetch(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Send a request that must succeed; returns the answer's body."""
        pieces: list[bytes] = []
        status, _ = await self._answer(method, path, body, pieces)
        answer = b"".join(pieces)
        assert status in (200, 202), answer
        return answer

    async def is_ready(self) -> bool:
        """Whether the service says so."""
        status, _ = await self._answer("GET", "/readyz", b"", None)
        return status == 200

    async def submit(self, service: str, request: dict[str, Any], priority: int = 0) -> str:
        """The id of a new job."""
        body = json.dumps({"request": request, "priority": priority}).encode()
        return str(json.loads(await self.fetch("POST", f"/{service}/v1/jobs", body))["job_id"])

    async def ended(self, job_id: str, query: str = "") -> dict[str, Any]:
        """A job that must succeed, once it has."""
        while True:
            job: dict[str, Any] = json.loads(await self.fetch("GET", f"/v1/jobs/{job_id}?wait=60{query}"))
            if job["status"] not in ("queued", "running"):
                assert job["status"] == "done", job
                return job

    async def run(self, service: str, request: dict[str, Any]) -> dict[str, Any]:
        """Submit a job and wait for its end."""
        return await self.ended(await self.submit(service, request))

    async def aclose(self) -> None:
        """The next request opens a new connection."""
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None

    async def _answer(self, method: str, path: str, body: bytes, into: list[bytes] | None) -> tuple[int, int]:
        """The status and the length of the body."""
        if self._stream is None:
            self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        await self._stream.send_all(raw_request(method, path, body))
        while b"\r\n\r\n" not in self._rest:
            self._rest += await self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        if (found := re.search(rb"(?i)\r\ncontent-length: (\d+)", head)) is None:
            length = await self._chunks(into)
        else:
            length = int(found[1])
            await self._take(length, into)
        if re.search(rb"(?i)\r\nconnection: close", head):
            await self.aclose()
        return int(head[9:12]), length

    async def _more(self) -> bytes:
        assert self._stream is not None
        data = bytes(await self._stream.receive_some(2**18))
        assert data, "the service closed the connection"
        return data

    async def _take(self, count: int, into: list[bytes] | None) -> None:
        while True:
            piece, self._rest = self._rest[:count], self._rest[count:]
            count -= len(piece)
            if into is not None:
                into.append(piece)
            if not count:
                return
            self._rest = await self._more()

    async def _chunks(self, into: list[bytes] | None) -> int:
        total = 0
        while True:
            while b"\r\n" not in self._rest:
                self._rest += await self._more()
            line, _, self._rest = self._rest.partition(b"\r\n")
            size = int(line, 16)
            await self._take(size, into)
            await self._take(2, None)
            if not size:
                return total
            total += size


@asynccontextmanager
async def open_clients(server: Server, count: int) -> AsyncIterator[list[Client]]:
    """Clients of the service."""
    clients = [Client(server.url) for _ in range(count)]
    async with AsyncExitStack() as stack:
        for client in clients:
            stack.push_async_callback(client.aclose)
        yield clients


async def all_at_once(clients: list[Client], ask: Callable[[int, Client], Awaitable[object]]) -> float:
    """The seconds it took until the last was done."""
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for index, client in enumerate(clients):
            nursery.start_soon(ask, index, client)
    return trio.current_time() - started
