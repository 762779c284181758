"""Fixtures: one Chromium for the whole run, a site and a page in a fresh context for each test that asks.

The run fails when a profile folder or a child process of ours is left.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import trio

import cdp
from cdp.launcher import find_browser, launch

from .site import Site, open_site

LOOPBACK = "127.0.0.0/8"


@pytest.fixture(scope="session", autouse=True)
def temporary_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything temporary of this run, profiles included, lies here; nothing of the browsers' may be left."""
    root = tmp_path_factory.mktemp("temporary")
    former, tempfile.tempdir = tempfile.tempdir, str(root)
    yield root
    tempfile.tempdir = former
    assert not list(root.glob("**/cleariflow-profile-*")), "a profile folder was left"
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "chrom" in child.name()], "a browser was left"


@pytest.fixture(scope="session")
def browser_endpoint(temporary_root: Path) -> Iterator[str]:
    """The websocket URL of a browser that runs as long as the tests, in a trio loop of its own."""
    started: queue.SimpleQueue[tuple[str, trio.Event, trio.lowlevel.TrioToken]] = queue.SimpleQueue()

    async def run() -> None:
        async with launch(find_browser()) as process:
            over = trio.Event()
            started.put((process.endpoint, over, trio.lowlevel.current_trio_token()))
            await over.wait()

    # Not one of trio's worker threads: the browser would die with it.
    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    endpoint, over, token = started.get(timeout=30)
    yield endpoint
    trio.from_thread.run_sync(over.set, trio_token=token)
    thread.join(timeout=10)


@pytest.fixture
def policy() -> cdp.AddressPolicy:
    """Pages may reach the test site."""
    return cdp.AddressPolicy.parse([LOOPBACK])


@pytest.fixture
async def browser(browser_endpoint: str, policy: cdp.AddressPolicy) -> AsyncIterator[cdp.Browser]:
    """A connection to the shared browser."""
    async with cdp.connect_browser(browser_endpoint, policy=policy) as browser:
        yield browser


@pytest.fixture
async def page(browser: cdp.Browser) -> AsyncIterator[cdp.Page]:
    """A page in a context of its own."""
    async with browser.open_page() as page:
        yield page


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """The test site, new for each test."""
    async with open_site() as site:
        yield site
