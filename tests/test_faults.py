"""Browsers, websockets and processes that stop, break or lie: every attempt ends in bounded time and leaves nothing.

Virtual browsers are TCP servers that speak the protocol up to a certain command; they are launched through an
executable that only tells their address. Real ones lose processes, or have them stopped.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import attrs
import psutil
import pytest
import trio
import wsproto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.events import AcceptConnection, CloseConnection, Message, Request, TextMessage

import cdp
import cleariflow
from cdp import browser as browser_module
from cdp import connection as connection_module
from cdp import egress, launcher, pool, scrape
from cdp.browser import connect_browser, open_browser
from cdp.connection import open_connection
from cdp.errors import CDPError, ConnectionClosed, LaunchError, NavigationError, TargetCrashed
from cdp.tasks import in_thread, open_tasks
from cleariflow import (
    JOB_TRANSITIONS,
    LOSSES_ALLOWED,
    Config,
    Job,
    Service,
    ServiceError,
    State,
    Step,
    Store,
    open_service,
)

from .site import Answer, Exchange, Site, page
from .test_service import FakePool, MemoryStore

QUICK_S = 20
"""Far longer than anything here takes: only a hang gets there."""


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """No file descriptor may be left by the body."""
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


# ---- A browser from a script -----------------------------------------------------------------------------------------

Break = Callable[[trio.SocketStream], Awaitable[None]]
"""What becomes of a socket at the command where a virtual browser breaks; the command is never answered."""


async def silence(stream: trio.SocketStream) -> None:
    """Reads on and answers nothing."""
    while await stream.receive_some():
        pass


async def deafness(stream: trio.SocketStream) -> None:
    """Reads nothing any more."""
    await trio.sleep_forever()


def sending(name: str, data: bytes) -> Break:
    """Sends these bytes, and then nothing."""

    async def send(stream: trio.SocketStream) -> None:
        await stream.send_all(data)
        await silence(stream)

    send.__name__ = name
    return send


# The head of a text of 1000 bytes, and 5 of them.
half_a_frame = sending("half_a_frame", b"\x81\x7e\x03\xe8hello")
# A frame that ends within its own length.
half_a_head = sending("half_a_head", b"\x81\x7f\x00\x00")
garbage = sending("garbage", bytes(range(256)) * 8)
# A text that is no UTF-8.
bad_text = sending("bad_text", b"\x81\x02\xff\xfe")
# As only clients send it.
masked_frame = sending("masked_frame", b"\x81\x85abcdhello")
# It closes in order, and then pings: nobody may answer any more.
close_frame = sending("close_frame", b"\x88\x02\x03\xe8\x89\x00\x89\x00")
# Messages that are no replies, or are to nobody.
NONSENSE = (b"", b"{", b"[]", b"null", b'{"id":"1"}', b'{"id":99}', b'{"method":5}', b"[" * 120)
nonsense = sending("nonsense", b"".join(bytes((0x81, len(text))) + text for text in NONSENSE))


async def endless_message(stream: trio.SocketStream) -> None:
    """Fragments of one message that never ends; over the limit of its size the connection does."""
    await stream.send_all(b"\x01\x7e\xff\xff" + b"a" * 0xFFFF)
    while True:
        await stream.send_all(b"\x00\x7e\xff\xff" + b"a" * 0xFFFF)


async def end(stream: trio.SocketStream) -> None:
    """Closes without a close frame."""
    await stream.aclose()


async def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.socket.close()


BREAKS: tuple[Break, ...] = (
    silence,
    half_a_frame,
    half_a_head,
    endless_message,
    garbage,
    bad_text,
    masked_frame,
    end,
    reset,
    close_frame,
    nonsense,
)
"""All but `deafness`, which only a large command meets."""

REPLIES: dict[str, dict[str, Any]] = {
    "Browser.getVersion": {"product": "Virtual/1", "userAgent": "Virtual"},
    "Target.createBrowserContext": {"browserContextId": "C"},
    "Target.createTarget": {"targetId": "T"},
    "Page.navigate": {"loaderId": "L2", "frameId": "T"},
    "Page.createIsolatedWorld": {"executionContextId": 1},
    "Runtime.callFunctionOn": {"result": {"value": {"scripted": True, "url": "about:blank", "title": ""}}},
    "Runtime.evaluate": {"result": {"objectId": "O"}},
    "DOM.getOuterHTML": {"outerHTML": "<p>virtual</p>"},
}
"""Of the commands that answer with more than `{}`."""


@attrs.define
class Virtual:
    """A browser that breaks at a command; `commands` are those that it got."""

    at: str = ""
    how: Break = silence
    commands: list[str] = attrs.field(factory=list)
    endpoint: str = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        text = ""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                while True:
                    protocol.receive_data(await stream.receive_some() or None)
                    for event in protocol.events():
                        if isinstance(event, Request):
                            if self.at == "handshake":
                                await self.how(stream)
                                return
                            await stream.send_all(protocol.send(AcceptConnection()))
                        elif isinstance(event, TextMessage):
                            text += event.data
                            if not event.message_finished:
                                continue
                            command, text = json.loads(text), ""
                            self.commands.append(command["method"])
                            if command["method"] == self.at:
                                await self.how(stream)
                                return
                            for message in self.answers(command):
                                await stream.send_all(protocol.send(Message(json.dumps(message))))
                        elif isinstance(event, CloseConnection):
                            return

    def answers(self, command: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The reply to a command, and the events that go with it."""
        yield {"id": command["id"], "result": REPLIES.get(command["method"], {})}
        loader = {"Page.setLifecycleEventsEnabled": "L1", "Page.navigate": "L2"}.get(command["method"])
        if loader == "L2":
            yield {"method": "Page.frameNavigated", "params": {"frame": {"id": "T", "loaderId": "L2", "url": "x:"}}}
        for name in ("init", "load") if loader else ():
            yield {"method": "Page.lifecycleEvent", "params": {"frameId": "T", "loaderId": loader, "name": name}}


@asynccontextmanager
async def open_virtual(at: str, how: Break) -> AsyncIterator[Virtual]:
    """A virtual browser that listens."""
    virtual = Virtual(at, how)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, open_tasks() as tasks:
        virtual.endpoint = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/devtools/browser/A"
        tasks.start_soon(trio.serve_listeners, virtual.serve, [listener])
        yield virtual


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All the bounds of cdp, shorter."""
    for module, name, seconds in (
        (connection_module, "CONNECT_TIMEOUT_S", 0.3),
        (connection_module, "WRITE_TIMEOUT_S", 0.3),
        (browser_module, "CONTEXT_TIMEOUT_S", 0.3),
        (browser_module, "DISPOSE_TIMEOUT_S", 0.3),
    ):
        monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr(connection_module, "MAX_MESSAGE_BYTES", 2**20)
    monkeypatch.setattr(pool, "BACK_OFF_S", (0.01,))


@pytest.fixture
def generous(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Gives a browser that answers its usual time, where nothing shall run into these bounds."""

    def give() -> None:
        monkeypatch.setattr(browser_module, "CONTEXT_TIMEOUT_S", 5.0)
        monkeypatch.setattr(browser_module, "DISPOSE_TIMEOUT_S", 5.0)

    return give


# ---- Websockets ------------------------------------------------------------------------------------------------------


async def drip(stream: trio.SocketStream) -> None:
    """A handshake that never ends."""
    await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\n")
    while True:
        await stream.send_all(b"X-More: of it\r\n")
        await trio.sleep(0.01)


@pytest.mark.parametrize("how", [silence, garbage, endless_message, end, reset, drip], ids=lambda how: how.__name__)
async def test_handshake_that_goes_wrong_is_a_launch_error(how: Break, quick: None) -> None:
    with nothing_left_open():
        async with open_virtual("handshake", how) as virtual:
            with trio.fail_after(5), pytest.raises(LaunchError, match="the browser does not answer"):
                async with connect_browser(virtual.endpoint):
                    pass


@pytest.mark.parametrize("how", BREAKS, ids=lambda how: how.__name__)
async def test_browser_whose_first_answer_goes_wrong_is_a_launch_error(how: Break, quick: None) -> None:
    with nothing_left_open():
        async with open_virtual("Browser.getVersion", how) as virtual:
            with trio.fail_after(5), pytest.raises(LaunchError, match="the browser does not answer"):
                async with connect_browser(virtual.endpoint):
                    pass


@pytest.mark.parametrize("how", [*BREAKS, deafness], ids=lambda how: how.__name__)
async def test_page_whose_socket_goes_wrong_never_hangs(how: Break, quick: None, generous: Callable[[], None]) -> None:
    generous()
    with nothing_left_open():
        async with (
            open_virtual("Page.setDocumentContent", how) as virtual,
            connect_browser(virtual.endpoint) as browser,
        ):
            with trio.fail_after(5), suppress(CDPError):
                async with browser.open_page() as page:
                    with trio.move_on_after(0.2):
                        await page.session.send("Page.setDocumentContent")
                    # More than fits into a socket that nobody reads.
                    with trio.move_on_after(0.05):
                        await page.session.send("Page.setDocumentContent", html="x" * 2**24)
            # Only its own page.
            assert not browser.ended.is_set()
            with trio.fail_after(5):
                async with browser.open_page():
                    pass


async def test_command_that_a_browser_does_not_take_ends_with_its_time(quick: None) -> None:
    async with open_virtual("Page.setDocumentContent", deafness) as virtual:
        async with open_connection(virtual.endpoint) as connection:
            with suppress(ConnectionClosed), trio.move_on_after(0.1):
                await connection.send("Page.setDocumentContent")
            with trio.fail_after(5), pytest.raises(ConnectionClosed, match=r"took no command for 0\.3 s"):
                await connection.send("Page.setDocumentContent", html="x" * 2**24)


# ---- Attempts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[str], str]:
    """Makes an executable of a few lines of shell."""

    def make(lines: str) -> str:
        path = tmp_path / "stand-in-headless"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        return str(path)

    return make


def listening(endpoint: str) -> str:
    """Shell of a browser with this address, as far as its launcher can tell."""
    return f"echo 'DevTools listening on {endpoint}' >&2; exec sleep 1000"


@asynccontextmanager
async def open_run(tmp_path: Path, **fields: Any) -> AsyncIterator[Service]:
    """A service, for pages of the test site; it must end in bounded time too."""
    with trio.CancelScope() as closing:
        config = Config(**{"data_dir": str(tmp_path / "data"), "allow_network": ("127.0.0.0/8",), **fields})
        async with open_service(config) as service:
            yield service
            closing.deadline = trio.current_time() + QUICK_S
    assert not closing.cancelled_caught


async def ended(service: Service, given: dict[str, Any], kind: Any = "scrape") -> Job:
    """A job of this request, at its end."""
    job = await service.submit(kind, given)
    with trio.fail_after(QUICK_S):
        await service.wait(job)
    assert job.ended
    return job


SOCKET_FAULTS = (silence, half_a_frame, end)
Outcome = tuple[str | None, int, int]
LOST: dict[Break, Outcome] = dict.fromkeys(SOCKET_FAULTS, ("browser_lost", 2, 3))
PAGE_ONLY: dict[Break, Outcome] = {
    silence: ("timeout", 1, 1),
    half_a_frame: ("timeout", 1, 1),
    end: ("page_crashed", 1, 1),
}
OUTCOMES: dict[str, dict[Break, Outcome]] = {
    "Target.createBrowserContext": LOST,
    "Target.createTarget": LOST,
    # Of a page that dies while it opens only the second costs the browser.
    "Page.enable": {**LOST, end: ("browser_lost", 2, 2)},
    "Page.navigate": PAGE_ONLY,
    "DOM.getOuterHTML": PAGE_ONLY,
    "Target.disposeBrowserContext": dict.fromkeys(SOCKET_FAULTS, (None, 1, 2)),
}
"""By the command at which a browser breaks, and how: the job's error, its attempts, and browsers started meanwhile."""


@pytest.mark.parametrize("how", SOCKET_FAULTS, ids=lambda how: how.__name__)
@pytest.mark.parametrize("command", OUTCOMES)
async def test_attempt_on_a_browser_that_breaks_ends_in_time(
    command: str,
    how: Break,
    quick: None,
    generous: Callable[[], None],
    tmp_path: Path,
    stand_in: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleariflow, "LOSSES_ALLOWED", 1)
    code, attempts, launches = OUTCOMES[command][how]
    timeout_ms = 300
    if launches == 1:
        generous()
    if code is None:
        # Closing outlasts the attempt, which must not cost what was made in time.
        timeout_ms = 1000
        monkeypatch.setattr(browser_module, "DISPOSE_TIMEOUT_S", 1.0)
    with nothing_left_open():
        async with open_virtual(command, how) as virtual:
            browser = stand_in(listening(virtual.endpoint))
            # None ahead: those that die while they open cost browsers, too.
            async with open_run(tmp_path, browser=browser, workers=1, pages_ahead=0) as service:
                job = await ended(service, {"url": "http://127.0.0.1/", "wait_until": "load", "timeout_ms": timeout_ms})
                assert (job.error_code, job.attempts) == (code, attempts)
                with trio.fail_after(QUICK_S):
                    while service.pool.launches < launches:
                        await service.pool.changed()
                assert service.pool.launches == launches


# ---- Executables that are no browsers --------------------------------------------------------------------------------

NOBODY = "ws://127.0.0.1:9/devtools/browser/A"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param("exec sleep 1000", "did not listen within 0.5 s", id="silent"),
        pytest.param("exit 3", "ended at its start", id="gone"),
        pytest.param("echo no libnss3 >&2; exit 127", "ended at its start: no libnss3", id="complains"),
        pytest.param(listening(NOBODY), "cannot connect", id="deaf"),
        # Its end may be seen before its words are.
        pytest.param(f"echo 'DevTools listening on {NOBODY}' >&2", "cannot connect|ended at", id="listened-and-gone"),
        pytest.param("trap '' TERM INT HUP; while :; do sleep 1; done", "did not listen within 0.5 s", id="stubborn"),
        pytest.param(listening("ws://127.0.0.1/nowhere"), "did not listen", id="lost"),
    ],
)
async def test_service_tells_why_its_browser_does_not_start(
    lines: str, said: str, quick: None, tmp_path: Path, stand_in: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "START_TIMEOUT_S", 0.5)
    with nothing_left_open():
        async with open_run(tmp_path, browser=stand_in(lines)) as service:
            with trio.fail_after(QUICK_S):
                while service.pool.fault is None:
                    await service.pool.changed()
            assert re.search(said, service.pool.fault)
    assert os.listdir(tmp_path / "data" / "tmp") == []


async def test_browser_that_floods_stderr_starts_all_the_same(
    quick: None, tmp_path: Path, stand_in: Callable[[str], str]
) -> None:
    async with open_virtual("", silence) as virtual:
        flood = f"head -c 100000000 /dev/zero >&2; echo; {listening(virtual.endpoint)}"
        resident = psutil.Process().memory_info().rss
        with trio.fail_after(QUICK_S):
            async with open_browser(stand_in(flood)) as browser:
                assert browser.product == "Virtual/1"
        assert psutil.Process().memory_info().rss - resident < 50_000_000


# ---- Chromium whose processes are killed or stopped ------------------------------------------------------------------


def processes(service: Service, kind: str) -> list[psutil.Process]:
    """The processes of its browser of one kind, such as `renderer` or `network.mojom.NetworkService`."""
    assert service.pool.browser is not None
    found = []
    for process in psutil.Process(service.pool.browser.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any(part.endswith(f"type={kind}") for part in process.cmdline()):
                found.append(process)
    return found


def strike(service: Service, kind: str, number: signal.Signals) -> None:
    """Send a signal to all processes of a kind; there must be one."""
    struck = processes(service, kind)
    assert struck, kind
    for process in struck:
        process.send_signal(number)


NETWORK = "network.mojom.NetworkService"
PICTURE = {"viewport": {"width": 100, "height": 60}, "wait_until": "load"}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a live browser keeps on a busy machine, and a dead one uses up soon."""
    for name in ("CONTEXT_TIMEOUT_S", "PICTURE_TIMEOUT_S", "DISPOSE_TIMEOUT_S"):
        monkeypatch.setattr(browser_module, name, 1.5)
    monkeypatch.setattr(pool, "BACK_OFF_S", (0.01,))


@pytest.fixture
def gate(site: Site) -> trio.Event:
    """Until it is set, the page `/gate` is not answered."""
    opened = trio.Event()

    async def answer(exchange: Exchange) -> Answer:
        await opened.wait()
        return Answer(page("<p>at last</p>"))

    site.add_route("/gate", answer)
    return opened


def failures(job: Job) -> list[str]:
    """The codes of its attempts that failed."""
    return [noted["code"] for noted in job.attempt_errors]


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        pytest.param("renderer", ["page_crashed"], id="renderer"),
        pytest.param("gpu-process", [], id="gpu"),
        pytest.param(NETWORK, ["browser_lost"], id="network"),
    ],
)
async def test_process_killed_costs_one_attempt_and_no_browser(
    kind: str, codes: list[str], patient: None, tmp_path: Path, site: Site, gate: trio.Event
) -> None:
    async with open_run(tmp_path, workers=1, pages_ahead=0) as service:
        job = await service.submit("screenshot", {"url": site.url("/gate"), **PICTURE})
        await site.seen("/gate")
        strike(service, kind, signal.SIGKILL)
        gate.set()
        with trio.fail_after(QUICK_S):
            await service.wait(job)
        assert failures(job) == codes
        after = await ended(service, {"url": site.url("/ok"), **PICTURE}, "screenshot")
        assert (after.state, after.attempts, service.pool.launches) == (State.DONE, 1, 1)


async def test_pages_ahead_that_lost_the_network_service_are_replaced(
    patient: None, tmp_path: Path, site: Site
) -> None:
    async with open_run(tmp_path, workers=3) as service:
        await ended(service, {"url": site.url("/ok")})
        strike(service, NETWORK, signal.SIGKILL)
        # The browser has a new one, without the proxies of contexts that were there.
        job = await ended(service, {"url": site.url("/ok"), **PICTURE}, "screenshot")
        assert (job.state, failures(job), service.pool.launches) == (State.DONE, ["browser_lost"], 1)


async def test_browser_that_can_start_no_renderer_is_replaced(patient: None, tmp_path: Path, site: Site) -> None:
    async with open_run(tmp_path, workers=1) as service:
        await ended(service, {"url": site.url("/ok")})
        strike(service, "zygote", signal.SIGKILL)
        # The first may still get the renderer that was started ahead.
        jobs = [await ended(service, {"url": site.url("/ok"), "timeout_ms": 5000}) for _ in range(2)]
        assert [job.state for job in jobs] == [State.DONE] * 2
        assert {*failures(jobs[0]), *failures(jobs[1])} == {"browser_lost"}
        assert service.pool.retired == {"ended": 1}


async def test_stopped_renderer_is_its_page_s_timeout(
    patient: None, tmp_path: Path, site: Site, gate: trio.Event
) -> None:
    async with open_run(tmp_path, workers=1, pages_ahead=0) as service:
        job = await service.submit("scrape", {"url": site.url("/gate"), "timeout_ms": 1500})
        await site.seen("/gate")
        strike(service, "renderer", signal.SIGSTOP)
        gate.set()
        with trio.fail_after(QUICK_S):
            await service.wait(job)
        assert failures(job) == ["timeout"]
        after = await ended(service, {"url": site.url("/ok")})
        assert (after.state, after.attempts, service.pool.launches) == (State.DONE, 1, 1)


async def test_browser_that_draws_nothing_is_replaced(patient: None, tmp_path: Path, site: Site) -> None:
    async with open_run(tmp_path, workers=1) as service:
        await ended(service, {"url": site.url("/ok")})
        strike(service, "gpu-process", signal.SIGSTOP)
        job = await ended(service, {"url": site.url("/ok"), "timeout_ms": 1000, **PICTURE}, "screenshot")
        assert (job.state, failures(job), service.pool.launches) == (State.DONE, ["browser_lost"], 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NETWORK, "zygote"])
async def test_browser_whose_helper_is_stopped_is_replaced(
    kind: str, patient: None, tmp_path: Path, site: Site
) -> None:
    async with open_run(tmp_path, workers=1, pages_ahead=0) as service:
        await ended(service, {"url": site.url("/ok")})
        strike(service, kind, signal.SIGSTOP)
        job = await ended(service, {"url": site.url("/ok"), "timeout_ms": 2000})
        assert (job.state, failures(job), service.pool.launches) == (State.DONE, ["browser_lost"], 2)


# ---- Pages that end their renderer, or never do ----------------------------------------------------------------------


@attrs.frozen
class Eater:
    """A page that does harm: `script`, the code of the failure, and how long it is given."""

    script: str
    code: str
    timeout_ms: int = 15_000


EATERS = {
    "heap": Eater("const kept = []; for (;;) kept.push(new Array(1e5).fill({}))", "page_crashed"),
    "loop": Eater("for (;;);", "timeout", 1000),
    "loop-of-microtasks": Eater("(function again() { Promise.resolve().then(again) })()", "timeout", 1000),
}


@pytest.mark.parametrize("harm", EATERS)
async def test_page_that_eats_its_renderer_costs_no_neighbour_anything(
    harm: str, tmp_path: Path, site: Site, gate: trio.Event
) -> None:
    eater = EATERS[harm]
    url = site.add("/eater", f"<script>onload = () => setTimeout(() => {{ {eater.script} }}, 50)</script><p>eats")
    async with open_run(tmp_path, workers=2, browser_arg=("--js-flags=--max-old-space-size=32",)) as service:
        neighbour = await service.submit("scrape", {"url": site.url("/gate")})
        await site.seen("/gate")
        job = await ended(service, {"url": url, "wait_ms": 10_000, "timeout_ms": eater.timeout_ms})
        assert failures(job) == [eater.code]
        gate.set()
        with trio.fail_after(QUICK_S):
            await service.wait(neighbour)
        assert (neighbour.state, neighbour.attempts, service.pool.launches) == (State.DONE, 1, 1)


# ---- Work in threads -------------------------------------------------------------------------------------------------


async def test_job_cancelled_while_its_document_is_read_gives_its_worker_back(tmp_path: Path, site: Site) -> None:
    url = site.add("/large", "<p>a <b>word</b>" * 500_000)
    threads = trio.to_thread.current_default_thread_limiter()
    async with open_run(tmp_path, workers=1) as service:
        job = await service.submit("scrape", {"url": url, "render": False, "outputs": ["markdown"]})
        await site.seen("/large")
        with trio.fail_after(QUICK_S):
            # Nothing tells when a thread has begun.
            while not threads.borrowed_tokens:  # noqa: ASYNC110
                await trio.sleep(0.005)
        with trio.fail_after(1):
            service.cancel(job)
            await service.wait(await service.submit("scrape", {"url": site.url("/ok"), "render": False}))


async def test_look_up_without_a_thread_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # A page that starts workers without end can take all that a container may have.
    async def getaddrinfo(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    assert await egress._look_up("example.test", 80) == []


async def test_call_without_a_thread_is_a_fault_that_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_sync(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    with pytest.raises(OSError, match="new thread") as caught:
        await in_thread(len, "")
    assert caught.value.errno in cleariflow.DISK_ERRORS


async def test_lookups_that_last_take_no_thread_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = trio.to_thread.current_default_thread_limiter()
    before, answer = limiter.total_tokens, threading.Event()

    def never(host: bytes, port: int, family: int, kind: int, protocol: int, flags: int) -> list[object]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "is no address")
        answer.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    try:
        with trio.move_on_after(0.2):
            async with trio.open_nursery() as nursery:
                for number in range(egress.LOOKUP_THREADS + 10):
                    nursery.start_soon(egress.connect, cdp.AddressPolicy.parse(()), f"{number}.example", 80)
        # Nobody waits for them any more, and they still go on.
        assert limiter.borrowed_tokens == egress.LOOKUP_THREADS
        assert limiter.available_tokens == before
    finally:
        answer.set()


@pytest.mark.parametrize("before", [0, 1, scrape.SEARCH_SLICE - 3, scrape.SEARCH_SLICE, scrape.SEARCH_SLICE + 1])
@pytest.mark.parametrize("tag", ["<script>", "<p onload = 'x'>", "<META http-equiv='refresh'>"])
def test_script_is_found_wherever_it_stands(tag: str, before: int) -> None:
    text = "a" * before
    assert scrape.has_scripts(f"{text}{tag}{text}")
    assert not scrape.has_scripts(f"{text}<p>{text}")


# ---- Random events ---------------------------------------------------------------------------------------------------

LOST_BROWSER = ConnectionClosed("the browser is lost")
ENDS: dict[str, Exception | None] = {
    "succeed": None,
    "refuse": NavigationError("net::ERR_CERT_DATE_INVALID"),
    "reset": NavigationError("net::ERR_CONNECTION_RESET"),
    "crash": TargetCrashed("the page's renderer process died"),
    "lose": LOST_BROWSER,
    "break": RuntimeError("a bug of ours"),
}
"""How an attempt may end, by what its page raises."""
EVENTS = st.one_of(
    st.tuples(st.just("submit"), st.integers(-1, 1)),
    st.tuples(st.just("retrying"), st.integers(1, 2)),
    st.tuples(st.just("call"), st.just(0)),
    st.tuples(st.sampled_from(("cancel", "leave", "storm", *ENDS)), st.integers(0, 3)),
    st.tuples(st.sampled_from(("no browser", "browser", "kill", "restart", "drain", "wait")), st.just(0)),
)


class Play:
    """A service over fakes that random events happen to, and what must hold after each."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.final: dict[str, dict[str, Any]] = {}
        self.states: dict[str, State] = {}
        self.pages: list[tuple[str, trio.MemorySendChannel[Exception | None]]] = []
        self.calls: list[trio.CancelScope] = []
        self.stored: dict[str, dict[str, Any]] = {}

    async def visit(self, url: str) -> None:
        """A page that is open until the play ends it."""
        send, receive = trio.open_memory_channel[Exception | None](1)
        self.pages.append((url, send))
        try:
            error = await receive.receive()
        finally:
            self.pages.remove((url, send))
        if error is not None:
            raise error

    async def run(self, events: list[tuple[str, int]]) -> None:
        while True:
            rest = await self.live(events)
            if not rest:
                return
            events = rest

    async def live(self, events: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """One run of the service; returns the events after its end."""
        pool, store = FakePool(self.visit), MemoryStore()
        for document in self.stored.values():
            job = Job.from_document(store.next_number(), document)
            store.jobs[job.id], store.stored[job.id] = job, document
        self.states = {job.id: job.state for job in store.jobs.values()}
        config = Config(workers=2)
        service = Service(config, cast(Store, store), cast(cdp.Pool, pool), config.policy)
        service.recover()
        self.calls.clear()
        async with open_tasks() as tasks:
            for _ in range(config.workers):
                tasks.start_soon(service.work)
            for index, (event, number) in enumerate(events):
                await self.happen(event, number, service, pool, tasks)
                await wait_all_tasks_blocked()
                self.check(service, store, pool)
                if event == "kill":
                    # As it is on disk at this moment.
                    self.stored = dict(store.stored)
                    return events[index + 1 :] or [("wait", 0)]
                if event in ("restart", "drain"):
                    break
            else:
                await self.finish(service, store, pool)
                return []
        self.check_stopped(service, store)
        self.stored = dict(store.stored)
        return events[index + 1 :] or [("wait", 0)]

    async def happen(self, event: str, number: int, service: Service, pool: FakePool, tasks: trio.Nursery) -> None:
        jobs = list(service.store.jobs.values())
        if event in ("submit", "retrying"):
            fields = {"retries": number} if event == "retrying" else {}
            job = await service.submit("scrape", {"url": PLAY_URL, **fields}, 0 if fields else number)
            self.acknowledged.add(job.id)
        elif event == "call":
            tasks.start_soon(self.call, service)
        elif event == "leave" and number < len(self.calls):
            self.calls[number].cancel()
        elif event == "cancel" and jobs:
            service.cancel(cast(Job, jobs[number % len(jobs)]))
        elif event == "storm":
            for _ in range(LOSSES_ALLOWED + 2):
                if self.pages:
                    self.pages[number % len(self.pages)][1].send_nowait(LOST_BROWSER)
                await wait_all_tasks_blocked()
        elif event in ENDS and self.pages:
            self.pages[number % len(self.pages)][1].send_nowait(ENDS[event])
        elif event in ("no browser", "browser"):
            pool.browser = object() if event == "browser" else None
            pool.fault = None if event == "browser" else "gone"
            pool.notify()
        elif event == "drain":
            await service.drain(1)
        elif event == "wait":
            await trio.sleep(10)

    async def call(self, service: Service) -> None:
        """A client of a synchronous call, who may leave."""
        with trio.CancelScope() as scope:
            self.calls.append(scope)
            with suppress(ServiceError):
                await service.capture("scrape", {"url": PLAY_URL})
        self.calls.remove(scope)

    def check(self, service: Service, store: MemoryStore, pool: FakePool) -> None:
        """What must hold whenever nothing moves."""
        assert self.acknowledged <= store.jobs.keys(), "a job was lost"
        queued = {job.id for job in service._schedule}
        assert queued == {job.id for job in store.jobs.values() if job.state is State.QUEUED}
        running = {job.id for job in store.jobs.values() if job.state is State.RUNNING}
        assert running == service._running.keys()
        assert len(running) <= service.config.workers
        assert pool.pages_open == len(self.pages) <= len(running)
        called = [job for job in store.jobs.values() if job.sync and not job.ended]
        assert len(called) == len(self.calls), "a call outlived its client"
        for job in store.jobs.values():
            if not job.sync or job.ended:
                assert store.stored[job.id] == job.document(), "memory is ahead of the store"
            assert self.states.get(job.id, State.QUEUED) is job.state, "a state was changed past the table"
            if job.ended:
                assert self.final.setdefault(job.id, job.document()) == job.document(), "an ended job changed"
            assert job.losses <= LOSSES_ALLOWED + 1
            assert (job.state is State.DONE) == bool(job.artifacts)
            assert all(one.file in store.files for one in job.artifacts.values()) or job.id not in self.fresh(store)

    def fresh(self, store: MemoryStore) -> set[str]:
        """Jobs of this run, whose files the store in memory has."""
        return store.jobs.keys() - self.stored.keys()

    def check_stopped(self, service: Service, store: MemoryStore) -> None:
        """After an orderly end nothing runs, and what has not ended is queued."""
        assert {job.id for job in service._schedule} == {job.id for job in store.jobs.values() if not job.ended}
        for job in store.jobs.values():
            assert job.state is not State.RUNNING
            assert store.stored[job.id] == job.document() if not job.sync or job.ended else True
        assert not self.pages
        assert not service._running

    async def finish(self, service: Service, store: MemoryStore, pool: FakePool) -> None:
        """With a browser, and pages that load, every job comes to its end."""
        pool.browser, pool.fault = object(), None
        pool.notify()
        with trio.fail_after(1000):
            while not all(job.ended for job in store.jobs.values()):
                for _, send in self.pages:
                    with suppress(trio.WouldBlock):
                        send.send_nowait(None)
                await trio.sleep(1)
        self.check(service, store, pool)


PLAY_URL = "http://8.8.8.8/"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EVENTS, max_size=25))
def test_random_events_lose_no_job_and_break_no_invariant(
    monkeypatch: pytest.MonkeyPatch, events: list[tuple[str, int]]
) -> None:
    play = Play()
    change = cleariflow.transition

    def noted(job: Job, step: Step, **changes: Any) -> None:
        before = job.state
        assert play.states.get(job.id, State.QUEUED) is before
        change(job, step, **changes)
        assert job.state is JOB_TRANSITIONS[before, step]
        play.states[job.id] = job.state

    monkeypatch.setattr(cleariflow, "transition", noted)
    try:
        trio.run(play.run, events, clock=MockClock(autojump_threshold=0))
    finally:
        monkeypatch.undo()
