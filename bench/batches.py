"""Some captures of one page, so many at once: how every contender is driven, in the bench itself or by a worker.

A worker is a process of its own. It takes orders on standard input and answers on standard output, one JSON a line:

    {"ready": true}                                            once, by the worker
    {"url": "...", "count": 12, "at": 2, "picture": false}     an order
    {"latencies_ms": [...], "ends_s": [...], "picture": null}  its answer; the last picture, in base64, if asked for
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import trio

WIDTH_PX, HEIGHT_PX = 1280, 800

Taken = Callable[[bytes], None]
Capture = Callable[[str, Taken], Awaitable[None]]
"""One capture of a URL in a fresh browser context; `taken` is called with the picture, what follows is clean-up."""


@attrs.frozen
class Batch:
    """What some captures took, in the order in which they ended."""

    latencies_ms: list[float]
    """From the beginning of each until its picture was there, in bytes."""
    ends_s: list[float]
    """When that was, by any clock."""
    picture: bytes
    """The last one."""


async def run_batch(capture: Capture, url: str, count: int, at: int) -> Batch:
    """Make `count` captures, `at` at once."""
    latencies_ms: list[float] = []
    ends_s: list[float] = []
    picture = b""
    left = count

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()

            def taken(data: bytes, began: float = began) -> None:
                nonlocal picture
                picture = data
                ends_s.append(time.perf_counter())
                latencies_ms.append((ends_s[-1] - began) * 1000)

            await capture(url, taken)

    async with trio.open_nursery() as nursery:
        for _ in range(at):
            nursery.start_soon(work)
    return Batch(latencies_ms, ends_s, picture)


async def lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    """The lines of a stream, without their ends."""
    rest = bytearray()
    async for chunk in stream:
        rest += chunk
        # A picture comes in many pieces: looked for in the new ones only.
        if b"\n" in chunk:
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield bytes(line)


async def obey(capture: Capture) -> None:
    """Be a worker until standard input ends."""
    answer(ready=True)
    async for line in lines(trio.lowlevel.FdStream(sys.stdin.fileno())):
        order = json.loads(line)
        batch = await run_batch(capture, order["url"], order["count"], order["at"])
        picture = base64.b64encode(batch.picture).decode() if order["picture"] else None
        answer(latencies_ms=batch.latencies_ms, ends_s=batch.ends_s, picture=picture)


def answer(**fields: object) -> None:
    print(json.dumps(fields), flush=True)
