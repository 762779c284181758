"""What clients cost the service: python -m bench.load [CLIENTS] [ROUNDS] [WAIT_S]

The real program in a process of its own; all figures are of that process alone, without its browsers.
    long-polls  CLIENTS at once on queued jobs, ROUNDS times WAIT_S; below 1 % of one core with 1,000 of them at 60 s
    rates       submissions and reads of ended jobs a second
    big answer  a picture of 42 MB, read by four clients at once: memory at most a few MB for each
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from tests.site import noise, open_site, page
from tests.test_end_to_end import Server, ended, open_server, raw_request, submit

CLIENTS, ROUNDS, WAIT_S = 1000, 2, 60.0
# As many connections at once for the rates.
BUSY_CLIENTS = 8
RATE_S = 5.0
READERS = 4
TICKS = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Usage:
    """What the service has used until now."""

    cpu_s: float
    resident_kb: int
    peak_kb: int
    files: int


def usage(server: Server) -> Usage:
    """Of the service's own process."""
    own = Path(f"/proc/{server.process.pid}")
    fields = (own / "stat").read_text().rpartition(")")[2].split()
    sizes = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", (own / "status").read_text(), re.MULTILINE))
    cpu_s = (int(fields[11]) + int(fields[12])) / TICKS
    return Usage(cpu_s, int(sizes["VmRSS"]), int(sizes["VmHWM"]), len(os.listdir(own / "fd")))


def forget_peak(server: Server) -> None:
    """Begin the peak of resident memory anew."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


class Client:
    """One connection that is kept; it looks at no more of an answer than its length."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None
        self._rest = b""

    async def ask(self, method: str, path: str, body: bytes = b"") -> int:
        """Send a request and read its answer; returns the length of the body."""
        if self._stream is None:
            self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        await self._stream.send_all(raw_request(method, path, body))
        while b"\r\n\r\n" not in self._rest:
            self._rest += await self._more()
        answer, _, self._rest = self._rest.partition(b"\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")), answer
        if (found := re.search(rb"(?i)\r\ncontent-length: (\d+)", answer)) is None:
            length = await self._skip_chunks()
        else:
            length = int(found[1])
            await self._skip(length)
        if re.search(rb"(?i)\r\nconnection: close", answer):
            await self.aclose()
        return length

    async def aclose(self) -> None:
        """The next request opens a new connection."""
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None

    async def _more(self) -> bytes:
        assert self._stream is not None
        data = bytes(await self._stream.receive_some(2**18))
        assert data, "the service closed the connection"
        return data

    async def _skip(self, count: int) -> None:
        while len(self._rest) < count:
            count -= len(self._rest)
            self._rest = await self._more()
        self._rest = self._rest[count:]

    async def _skip_chunks(self) -> int:
        total = 0
        while True:
            while b"\r\n" not in self._rest:
                self._rest += await self._more()
            line, _, self._rest = self._rest.partition(b"\r\n")
            await self._skip(int(line, 16) + 2)
            if line == b"0":
                return total
            total += int(line, 16)


@asynccontextmanager
async def open_clients(server: Server, count: int) -> AsyncIterator[list[Client]]:
    """Clients of the service."""
    clients = [Client(int(server.url.rpartition(":")[2])) for _ in range(count)]
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


async def long_polls(folder: Path, url: str, count: int, rounds: int, wait_s: float) -> None:
    """All jobs but the first, which hangs, stay queued."""
    async with (
        open_server(folder, "--workers", "1", "--max-timeout", "3600") as server,
        server.client() as client,
    ):
        jobs = [await submit(client, "scrape", url=url, timeout_ms=3_600_000) for _ in range(count + 1)]
        await trio.sleep(2)
        before = usage(server)
        await trio.sleep(10)
        quiet = usage(server)
        print(f"idle, {count} jobs queued: {(quiet.cpu_s - before.cpu_s) * 10:.2f} % of a core")
        async with open_clients(server, count) as clients:

            async def poll(index: int, client: Client) -> None:
                await client.ask("GET", f"/v1/jobs/{jobs[index + 1]}?wait={wait_s}")

            for number in range(rounds):
                start = usage(server)
                async with trio.open_nursery() as nursery:
                    if wait_s > 4:

                        async def look(start: Usage = start) -> None:
                            await trio.sleep(wait_s - 2)
                            now = usage(server)
                            each = (now.resident_kb - quiet.resident_kb) / count
                            print(f"    waiting: {each:.0f} KB for each client, {now.files - quiet.files} files more")

                        nursery.start_soon(look)
                    took = await all_at_once(clients, poll)
                cpu_s = usage(server).cpu_s - start.cpu_s
                print(
                    f"round {number + 1}: {count} long-polls of {wait_s:g} s in {took:.1f} s: "
                    f"{cpu_s / took:.2%} of a core, {cpu_s / count * 1000:.2f} ms each"
                )


async def rates(folder: Path, url: str) -> None:
    """One job runs; what is submitted stays queued."""
    async with open_server(folder, "--workers", "1", "--queue-limit", "1000000") as server, server.client() as client:
        done = await submit(client, "scrape", url=url)
        await ended(client, done)
        hung = url.rpartition("/")[0] + "/never"
        await submit(client, "scrape", url=hung, timeout_ms=100_000)
        body = b'{"request": {"url": "%s"}}' % url.encode()
        cases = {
            "submissions": ("POST", "/scrape/v1/jobs", body),
            "reads of an ended job": ("GET", f"/v1/jobs/{done}", b""),
            "reads without its output": ("GET", f"/v1/jobs/{done}?result=false", b""),
            "reads of its /result": ("GET", f"/v1/jobs/{done}/result", b""),
        }
        async with open_clients(server, BUSY_CLIENTS) as clients:
            for name, case in cases.items():
                answers = 0
                until = trio.current_time() + RATE_S

                async def insist(
                    index: int, client: Client, case: tuple[str, str, bytes] = case, until: float = until
                ) -> None:
                    nonlocal answers
                    while trio.current_time() < until:
                        await client.ask(*case)
                        answers += 1

                start = usage(server).cpu_s
                took = await all_at_once(clients, insist)
                cpu_ms = (usage(server).cpu_s - start) / answers * 1000
                print(f"{name}: {answers / took:.0f} a second, {cpu_ms:.2f} ms of CPU each")


async def big_answer(folder: Path, pictured: str, scraped: str) -> None:
    """A picture of noise and a long document of many kinds of letters."""
    async with open_server(folder, "--workers", "1") as server, server.client() as client:
        viewport = {"width": 4000, "height": 3500}
        jobs = {
            "picture": await submit(client, "screenshot", url=pictured, format="png", viewport=viewport),
            "document": await submit(client, "scrape", url=scraped, timeout_ms=100_000),
        }
        for job in jobs.values():
            told: dict[str, object] = {}
            while told.get("status") not in ("done", "failed"):
                told = (await client.get(f"/v1/jobs/{job}?wait=20&result=false")).json()
            assert told["status"] == "done", told
        async with open_clients(server, READERS) as clients:
            for name, job in jobs.items():
                for form, path in (("/result", f"/v1/jobs/{job}/result"), ("JSON", f"/v1/jobs/{job}")):
                    forget_peak(server)
                    before = usage(server)
                    lengths = []

                    async def fetch(index: int, client: Client, path: str = path, into: list[int] = lengths) -> None:
                        into.append(await client.ask("GET", path))

                    took = await all_at_once(clients, fetch)
                    after = usage(server)
                    total_mb = sum(lengths) / 1e6
                    print(
                        f"{name} as {form}: {READERS} x {total_mb / READERS:.0f} MB at {total_mb / took:.0f} MB/s, "
                        f"{after.cpu_s - before.cpu_s:.2f} s of CPU, "
                        f"peak {(after.peak_kb - before.resident_kb) / 1000 / READERS:.1f} MB for each"
                    )


async def main(clients: int, rounds: int, wait_s: float) -> None:
    """Measure and print."""
    async with open_site() as site:
        # Letters that JSON escapes, where nothing lays them out.
        letters = 'W\u00f6rter "und" Zeichen \u2013 \u6f22 \U0001f600\n' * 1_000_000
        document = site.add("/document", page(f"<script type=text/plain>{letters}</script>"))
        pictured = site.add("/noise", noise(4000, 3500))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            await big_answer(folder / "big", pictured, document)
            await rates(folder / "rates", site.url("/ok"))
            await long_polls(folder / "polls", site.url("/never"), clients, rounds, wait_s)


if __name__ == "__main__":
    given = sys.argv[1:] + [""] * 3
    trio.run(main, int(given[0] or CLIENTS), int(given[1] or ROUNDS), float(given[2] or WAIT_S))
