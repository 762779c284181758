"""Our package `cdp` without the service: a worker (see batches.py) that makes pictures as the service does."""

from __future__ import annotations

import functools

import trio

import cdp
from bench.batches import HEIGHT_PX, WIDTH_PX, Taken, obey
from cdp.options import CaptureOptions, PageOptions, Viewport
from cdp.visit import Progress, Visit

VIEWPORT = Viewport(width=WIDTH_PX, height=HEIGHT_PX)
SHOT = CaptureOptions(format="png")


async def capture(pool: cdp.Pool, url: str, taken: Taken) -> None:
    """See `batches.Capture`."""
    async with pool.open_page() as page:
        visit = Visit(page, PageOptions(url=url, viewport=VIEWPORT, wait_until="load"), Progress(), shot=SHOT)
        await visit.open()
        await visit.make_ready()
        taken((await page.screenshot(SHOT)).data)


async def main() -> None:
    """Be a worker."""
    policy = cdp.AddressPolicy.parse(["127.0.0.0/8"])
    async with cdp.open_pool(functools.partial(cdp.open_browser, policy=policy), pages_ahead=2) as pool:
        await pool.ready()
        await obey(functools.partial(capture, pool))


if __name__ == "__main__":
    trio.run(main)
