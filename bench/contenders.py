"""Who takes part: the raw loop, our service, our package, and the tools that others use. All stay up while others run.

Each is one process with a browser below it. The service is asked over HTTP, by the bench itself; the others are workers
(see batches.py). All have the same Chromium, the same switches for pixels, and a fresh browser context per capture.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from bench.batches import HEIGHT_PX, WIDTH_PX, Batch, Taken, lines, run_batch
from bench.clients import open_clients
from cdp.launcher import find_browser
from tests.compare import SWITCHES, install
from tests.test_end_to_end import Server, open_command, program

HERE = Path(__file__).parent
RAW, CDP, TOOLS = "raw", "cdp", ("playwright", "puppeteer")
# By the name of the contender, what it asks the service for.
WAITS = {"service-load": "load", "service-auto": "auto"}
NAMES = (RAW, *WAITS, CDP, *TOOLS)


class Contender(Protocol):
    """One of them."""

    name: str

    @property
    def pid(self) -> int:
        """Of its own process; the browser's are below it."""
        ...

    async def run(self, url: str, count: int, at: int, *, picture: bool = False) -> Batch:
        """Make `count` captures, `at` at once; with the last picture where asked for."""
        ...


@attrs.define
class Worker:
    """A contender that is a worker."""

    name: str
    process: trio.Process
    answers: AsyncIterator[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    async def run(self, url: str, count: int, at: int, *, picture: bool = False) -> Batch:
        assert self.process.stdin is not None
        order = {"url": url, "count": count, "at": at, "picture": picture}
        await self.process.stdin.send_all(json.dumps(order).encode() + b"\n")
        answer = json.loads(await anext(self.answers))
        return Batch(answer["latencies_ms"], answer["ends_s"], base64.b64decode(answer["picture"] or ""))


@asynccontextmanager
async def open_worker(name: str, command: Sequence[str | Path]) -> AsyncIterator[Worker]:
    """A worker that is ready; it ends with its standard input."""
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    # In a session of its own: a signal to the bench's group leaves it the time to clear away.
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment | {"TZ": "UTC"},
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        answers = lines(process.stdout)
        assert json.loads(await anext(answers)) == {"ready": True}
        yield Worker(name, process, answers)
    finally:
        with trio.move_on_after(10, shield=True):
            await process.stdin.aclose()
            await process.wait()
        process.kill()


def open_python(name: str, module: str) -> AbstractAsyncContextManager[Worker]:
    """A worker of our own."""
    return open_worker(name, [sys.executable, "-m", module])


@asynccontextmanager
async def open_tool(tool: str) -> AsyncIterator[Worker]:
    """Puppeteer or playwright, from npm."""
    modules = await trio.to_thread.run_sync(install)
    plan = {
        "executablePath": str(find_browser()),
        "args": [*SWITCHES, *(["--no-sandbox"] if os.geteuid() == 0 else [])],
        "modules": str(modules),
        "viewport": {"width": WIDTH_PX, "height": HEIGHT_PX},
    }
    async with open_worker(tool, ["node", HERE / "shoot.mjs", tool, json.dumps(plan)]) as worker:
        yield worker


@attrs.define
class ServiceContender:
    """The service, asked over HTTP: submit, long-poll, and all decoding."""

    name: str
    server: Server
    service: str
    fields: dict[str, Any]
    """Of the requests, beside the URL."""

    @property
    def pid(self) -> int:
        return self.server.process.pid

    async def run(self, url: str, count: int, at: int, *, picture: bool = False) -> Batch:
        # New ones each time: the service closes connections that are idle for 5 s.
        async with open_clients(self.server, at) as clients:

            async def capture(url: str, taken: Taken) -> None:
                client = clients.pop()
                result = (await client.run(self.service, {"url": url, **self.fields}))["result"]
                taken(base64.b64decode(result["image_base64"]) if "image_base64" in result else result["html"].encode())
                clients.append(client)

            return await run_batch(capture, url, count, at)


def screenshot(wait_until: str) -> dict[str, Any]:
    """What the service is asked for, so that its picture is everybody's."""
    viewport = {"width": WIDTH_PX, "height": HEIGHT_PX}
    return {"format": "png", "viewport": viewport, "wait_until": wait_until}


def open_service(folder: Path, *flags: str, source: Path = HERE.parent) -> AbstractAsyncContextManager[Server]:
    """The program, of this checkout or another one; ended by SIGTERM."""
    command = [sys.executable, str(source / "cleariflow.py"), *program(folder)[2:], *flags]
    return open_command(command, folder, end=signal.SIGTERM)


@asynccontextmanager
async def open_contenders(
    names: Sequence[str], folder: Path, flags: Sequence[str], sources: Sequence[Path]
) -> AsyncIterator[list[Contender]]:
    """Start some of `NAMES`; the service's once more for each other checkout in `sources`."""
    async with AsyncExitStack() as stack:
        found: list[Contender] = []
        if RAW in names:
            found.append(await stack.enter_async_context(open_python(RAW, "bench.raw")))
        waits = {name: wait for name, wait in WAITS.items() if name in names}
        for number, source in enumerate([HERE.parent, *sources] if waits else []):
            server = await stack.enter_async_context(open_service(folder / str(number), *flags, source=source))
            for name, wait in waits.items():
                label = f"{name}@{source.name}" if number else name
                found.append(ServiceContender(label, server, "screenshot", screenshot(wait)))
        if CDP in names:
            found.append(await stack.enter_async_context(open_python(CDP, "bench.package")))
        for tool in TOOLS:
            if tool in names:
                found.append(await stack.enter_async_context(open_tool(tool)))
        yield found
