"""The real process, over a real socket, on pages that nobody here wrote: what a user gets, what an end leaves."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import attrs
import httpx
import psutil
import pytest
import trio
from PIL import Image

from cdp.tasks import open_tasks
from tests.pages import (
    DOCUMENT_COLOURS,
    DOCUMENT_TEXTS,
    DOCUMENT_TITLE,
    GUIDE_HEIGHT_PX,
    GUIDE_TITLE,
    SWAGGER_COLOURS,
    SWAGGER_READY,
    SWAGGER_TEXTS,
    SWAGGER_TITLE,
    mount,
)
from tests.site import OK_TEXT, RED, WHITE, Answer, Exchange, Site, bare_stream, noise, page

PROGRAM = Path(__file__).parent.parent / "cleariflow.py"
LISTENING = re.compile(r"listening on (http://[\d.]+:\d+)")
# Longest wait for one thing; a fault shows as TooSlowError here and not as a run that hangs.
QUICK_S = 30
# What an end takes beyond its grace: hypercorn's own 1 s, the browser's 0.2 s, a slow machine.
EXIT_S = 5


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; where nobody reaps orphans, they stay as zombies."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@attrs.define(eq=False)
class Server:
    """A running `python cleariflow.py`."""

    process: trio.Process
    folder: Path
    url: str = ""
    log: list[str] = attrs.field(factory=list)
    children: set[psutil.Process] = attrs.field(factory=set)
    """All that were ever seen."""

    async def read_log(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep its stderr drained; started once it listens."""
        assert self.process.stderr is not None
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            self.log += [line.decode() for line in lines]
            if not self.url and (found := LISTENING.search("\n".join(self.log))):
                self.url = found[1]
                task_status.started()
        if not self.url:
            raise AssertionError("it ended before it listened:\n" + "\n".join(self.log))

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=QUICK_S, trust_env=False)

    def look(self) -> list[psutil.Process]:
        """Its children of now, remembered for `leftovers`."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        self.children.update(found)
        return found

    def browser(self) -> psutil.Process:
        """Chromium's main process."""
        self.look()
        (main,) = [child for child in psutil.Process(self.process.pid).children() if "chrom" in child.name()]
        return main

    async def leftovers(self) -> list[str]:
        """What is still there of it when there should be nothing: processes (after a moment) and profile folders."""
        await trio.to_thread.run_sync(lambda: psutil.wait_procs(filter(is_alive, self.children), timeout=5))
        return [*map(str, filter(is_alive, self.children)), *os.listdir(self.folder / "tmp")]

    async def end(self, *signals: signal.Signals) -> tuple[int, float]:
        """Send signals and wait for the exit; returns its code and how long it took."""
        self.look()
        started = trio.current_time()
        for number in signals:
            self.process.send_signal(number)
        with trio.fail_after(QUICK_S + EXIT_S):
            code = await self.process.wait()
        return code, trio.current_time() - started


def program(folder: Path) -> list[str]:
    """The command that serves on a free port."""
    network = ["--allow-network", "127.0.0.0/8"]
    return [sys.executable, str(PROGRAM), "--port", "0", "--data-dir", str(folder), *network]


@asynccontextmanager
async def open_command(
    command: Sequence[str], folder: Path, *, end: signal.Signals = signal.SIGKILL, **options: Any
) -> AsyncIterator[Server]:
    """Start a command that serves, with this data folder; gets the signal at the end if it still runs."""
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE, **options)
    server = Server(process, folder)
    assert process.stderr is not None
    async with process.stderr, open_tasks() as tasks:
        try:
            with trio.fail_after(QUICK_S):
                await tasks.start(server.read_log)
            yield server
        finally:
            if process.returncode is None:
                process.send_signal(end)
                with trio.CancelScope(shield=True):
                    await process.wait()


def open_server(folder: Path, *flags: str) -> AbstractAsyncContextManager[Server]:
    """Start the program on a free port; killed at the end if it still runs."""
    return open_command([*program(folder), *flags], folder)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A service of the test's own."""
    async with open_server(tmp_path, "--workers", "2") as server:
        yield server


@pytest.fixture
async def own(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the test's own service."""
    async with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """The URL and the log of a service that tests share as long as they leave it as it was."""
    process = subprocess.Popen(
        [*program(tmp_path_factory.mktemp("shared")), "--workers", "2"], stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        log = [next(line for line in process.stderr if LISTENING.search(line))]
        drain = threading.Thread(target=log.extend, args=(process.stderr,))
        drain.start()
        found = LISTENING.search(log[0])
        assert found is not None
        yield found[1], log
        process.terminate()
        process.wait(QUICK_S)
        drain.join(QUICK_S)


@pytest.fixture
async def client(shared: tuple[str, list[str]]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the shared service."""
    async with httpx.AsyncClient(base_url=shared[0], timeout=QUICK_S, trust_env=False) as client:
        yield client


async def submit(client: httpx.AsyncClient, service: str, **request: Any) -> str:
    """The id of a new job."""
    answer = await client.post(f"/{service}/v1/jobs", json={"request": request})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """The job once it has ended."""
    with trio.fail_after(QUICK_S):
        while True:
            job: dict[str, Any] = (await client.get(f"/v1/jobs/{job_id}?wait=20")).json()
            if job["status"] in ("done", "failed"):
                return job


async def run(client: httpx.AsyncClient, service: str, **request: Any) -> dict[str, Any]:
    """The result of a job that must succeed."""
    job = await ended(client, await submit(client, service, **request))
    assert job["status"] == "done", job
    result: dict[str, Any] = job["result"]
    return result


def picture(result: dict[str, Any]) -> Image.Image:
    """The picture of a result."""
    return Image.open(BytesIO(base64.b64decode(result["image_base64"]))).convert("RGB")


class Gate:
    """A page of a test site that is answered once the gate is open."""

    def __init__(self, site: Site, path: str = "/gate") -> None:
        self._open = trio.Event()
        self.path = path
        self.url = site.add_route(path, self._answer)

    async def _answer(self, exchange: Exchange) -> Answer:
        while not self._open.is_set():
            await exchange.hold(0.05)
        return Answer(page("<p>through the gate</p>"))

    def open(self) -> None:
        self._open.set()


# ---- Foreign pages ---------------------------------------------------------------------------------------------------


async def test_single_page_app_is_pictured(client: httpx.AsyncClient, site: Site) -> None:
    result = await run(client, "screenshot", url=mount(site).swagger_url, wait_for=SWAGGER_READY, format="png")
    shown = picture(result)
    assert {place: shown.getpixel(place) for place in SWAGGER_COLOURS} == SWAGGER_COLOURS
    assert (shown.size, result["meta"]["title"]) == ((1280, 800), SWAGGER_TITLE)


async def test_single_page_app_is_scraped_as_its_scripts_left_it(client: httpx.AsyncClient, site: Site) -> None:
    result = await run(client, "scrape", url=mount(site).swagger_url, wait_for=SWAGGER_READY)
    assert [text for text in SWAGGER_TEXTS if text not in result["html"]] == []


async def test_long_document_is_scraped_whole(client: httpx.AsyncClient, site: Site) -> None:
    result = await run(client, "scrape", url=mount(site).document_url)
    assert [text for text in DOCUMENT_TEXTS if text not in result["html"]] == []
    assert result["html"].lstrip().lower().startswith("<!doctype html>")
    assert (result["meta"]["title"], result["meta"]["status_code"]) == (DOCUMENT_TITLE, 200)


async def test_long_document_is_pictured_with_its_styles(client: httpx.AsyncClient, site: Site) -> None:
    shown = picture(await run(client, "screenshot", url=mount(site).document_url, format="png"))
    assert {place: shown.getpixel(place) for place in DOCUMENT_COLOURS} == DOCUMENT_COLOURS


async def test_document_too_tall_for_a_picture_is_refused(client: httpx.AsyncClient, site: Site) -> None:
    job = await ended(client, await submit(client, "screenshot", url=mount(site).document_url, full_page=True))
    assert (job["status"], job["error_detail"]) == ("failed", {"code": "too_large", "retryable": False})


async def test_guide_is_pictured_whole(client: httpx.AsyncClient, site: Site) -> None:
    result = await run(client, "screenshot", url=mount(site).guide_url, full_page=True)
    assert (result["meta"]["height"], result["meta"]["title"]) == (GUIDE_HEIGHT_PX, GUIDE_TITLE)
    assert picture(result).size == (1280, GUIDE_HEIGHT_PX)


# ---- The reference's clients -----------------------------------------------------------------------------------------


async def curl(*arguments: str) -> tuple[int, dict[str, Any]]:
    """The status and the JSON that curl got."""
    command = ["curl", "--silent", "--noproxy", "*", "--max-time", str(QUICK_S), "-w", "\n%{http_code}", *arguments]
    done = await trio.run_process(command, capture_stdout=True)
    body, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(body)


@pytest.mark.parametrize("way", ["prefix", "host"])
@pytest.mark.parametrize("service", ["screenshot", "scrape"])
async def test_curl_of_the_reference_gets_its_answers(
    shared: tuple[str, list[str]], site: Site, service: str, way: str
) -> None:
    base = f"{shared[0]}/{service}" if way == "prefix" else shared[0]
    host = [] if way == "prefix" else ["-H", f"Host: {service}.localhost"]
    body = json.dumps({"request": {"url": site.url("/ok"), "api_key": "YOUR_KEY"}, "priority": 5})
    status, created = await curl(
        *host, "-X", "POST", f"{base}/v1/jobs", "-H", "Content-Type: application/json", "-d", body
    )
    assert (status, list(created)) == (202, ["job_id"])
    with trio.fail_after(QUICK_S):
        while True:
            status, job = await curl(*host, f"{base}/v1/jobs/{created['job_id']}?wait=1")
            assert status == 200
            if job["status"] not in ("queued", "running"):
                break
    assert job.keys() == {"job_id", "status", "result", "meta"}
    assert (job["job_id"], job["status"], job["result"]["ok"]) == (created["job_id"], "done", True)
    if service == "screenshot":
        assert job["result"].keys() == {"ok", "image_base64", "content_type", "meta"}
        assert job["result"]["image_base64"].startswith("/9j/")
    else:
        assert job["result"].keys() == {"ok", "html", "meta"}
        assert OK_TEXT in job["result"]["html"]
        assert job["result"]["meta"].keys() >= {"url", "status_code", "duration_ms"}


async def test_synchronous_call_gives_the_bare_picture(client: httpx.AsyncClient, site: Site) -> None:
    body = {"url": site.url("/ok"), "format": "png"}
    answer = await client.post("/v1/screenshot", json=body, headers={"Accept": "image/*"})
    shown = Image.open(BytesIO(answer.content)).convert("RGB")
    assert (answer.headers["Content-Type"], shown.getpixel((50, 50)), shown.getpixel((700, 500))) == (
        "image/png",
        RED,
        WHITE,
    )


async def test_legacy_form_gives_the_bare_document(client: httpx.AsyncClient, site: Site) -> None:
    answer = await client.get("/v1/scrape", params={"url": site.url("/ok")}, headers={"Accept": "text/html"})
    assert (answer.headers["Content-Type"], OK_TEXT in answer.text) == ("text/html; charset=utf-8", True)


async def test_result_is_read_in_parts(client: httpx.AsyncClient, site: Site) -> None:
    job_id = await submit(client, "scrape", url=site.url("/ok"))
    await ended(client, job_id)
    whole = (await client.get(f"/v1/jobs/{job_id}/result")).content
    part = await client.get(f"/v1/jobs/{job_id}/result", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])


async def test_head_of_a_result_has_no_body(client: httpx.AsyncClient, site: Site) -> None:
    job_id = await submit(client, "scrape", url=site.url("/ok"))
    await ended(client, job_id)
    whole = (await client.get(f"/v1/jobs/{job_id}/result")).content
    head = await client.head(f"/v1/jobs/{job_id}/result")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(whole)))


@pytest.mark.parametrize("body", [b"\xff", b"[" * 10**5, b'{"request": {"url": "http://10.0.0.1"}}'])
async def test_bad_body_is_refused_over_a_socket(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/scrape/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["ok"]) == (400, False)


# By a bare connection: httpx sends a body to its end, and leaves a generator behind when it cannot.
@pytest.mark.parametrize(
    ("length", "parts"),
    [
        (f"Content-Length: {6 * 2**20}", [b" " * 1000]),
        ("Transfer-Encoding: chunked", [b"100000\r\n" + b" " * 2**20 + b"\r\n"] * 6),
    ],
    ids=["announced", "chunked"],
)
async def test_body_over_its_limit_is_refused_before_it_is_read_whole(
    client: httpx.AsyncClient, length: str, parts: list[bytes]
) -> None:
    head = "POST /scrape/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    async with await connect(client) as stream:
        await stream.send_all(f"{head}{length}\r\n\r\n".encode())
        with contextlib.suppress(trio.BrokenResourceError):
            # Refused while it still sends.
            for part in parts:
                await stream.send_all(part)
        with trio.fail_after(QUICK_S):
            assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 413")


async def test_own_api_cannot_be_captured(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/scrape", json={"url": f"{client.base_url}/livez"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "blocked_target")


async def test_own_api_cannot_be_captured_by_a_name_or_a_redirect(client: httpx.AsyncClient, site: Site) -> None:
    async def lead(exchange: Exchange) -> Answer:
        return Answer(b"", status=302, headers=(("Location", f"{client.base_url}/livez"),))

    for url in (f"http://localhost:{client.base_url.port}/livez", site.add_route("/leads", lead)):
        job = await ended(client, await submit(client, "scrape", url=url))
        assert (job["status"], job["error_detail"]["code"]) == ("failed", "blocked_target")


async def test_ready_service_says_so(client: httpx.AsyncClient, site: Site) -> None:
    await run(client, "scrape", url=site.url("/ok"))
    assert (await client.get("/readyz")).json()["ok"] is True


async def test_log_has_job_ids_and_no_secrets(server: Server, own: httpx.AsyncClient, site: Site) -> None:
    headers = {"X-A": "hush"}
    job_id = await submit(own, "scrape", url=site.url("/ok"), headers=headers, cookies="a=hush", api_key="hush")
    await ended(own, job_id)
    await server.end(signal.SIGTERM)
    assert [line for line in server.log if job_id in line]
    assert not [line for line in server.log if "hush" in line]
    assert b"hush" not in b"".join(path.read_bytes() for path in (server.folder / "artifacts").iterdir())


# ---- Ends ------------------------------------------------------------------------------------------------------------


async def test_acknowledged_jobs_survive_a_kill(tmp_path: Path, site: Site) -> None:
    gate = Gate(site)
    async with open_server(tmp_path, "--workers", "1") as server, server.client() as client:
        done = await submit(client, "scrape", url=site.url("/ok"))
        await ended(client, done)
        running = await submit(client, "scrape", url=gate.url)
        await site.seen(gate.path)
        queued = [await submit(client, "screenshot", url=site.url("/ok")) for _ in range(3)]
        await server.end(signal.SIGKILL)
    gate.open()
    async with open_server(tmp_path, "--workers", "2") as server, server.client() as client:
        jobs = [await ended(client, job_id) for job_id in (done, running, *queued)]
    assert [job["status"] for job in jobs] == ["done"] * 5
    assert [job["meta"]["attempts"] for job in jobs] == [1, 2, 1, 1, 1]


async def test_kill_leaves_no_browser(tmp_path: Path, site: Site) -> None:
    async with open_server(tmp_path) as server, server.client() as client:
        await run(client, "scrape", url=site.url("/ok"))
        await server.end(signal.SIGKILL)
    async with open_server(tmp_path) as again:
        await again.end(signal.SIGTERM)
    assert await server.leftovers() == []


async def test_stopped_helpers_of_a_killed_service_are_ended_by_the_next(tmp_path: Path, site: Site) -> None:
    # What is stopped does not notice that its browser is gone.
    async with open_server(tmp_path) as server, server.client() as client:
        await run(client, "scrape", url=site.url("/ok"))
        main = server.browser()
        for helper in main.children(recursive=True):
            helper.suspend()
        await server.end(signal.SIGKILL)
        assert any(map(is_alive, server.children - {main}))
    async with open_server(tmp_path) as again:
        assert await server.leftovers() == [path.name for path in (tmp_path / "tmp").iterdir()]
        assert any("of a former run's browsers" in line for line in again.log)


async def test_browser_that_nobody_needs_is_closed_until_somebody_does(tmp_path: Path, site: Site) -> None:
    async with open_server(tmp_path, "--browser-idle", "0.5") as server, server.client() as client:
        await run(client, "scrape", url=site.url("/ok"))
        server.look()
        assert await server.leftovers() == []
        assert (await client.get("/readyz")).status_code == 200
        await run(client, "scrape", url=site.url("/ok"))
        answer = await client.post("/v1/scrape", json={"url": site.url("/ok")})
        assert answer.status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_within_the_grace_and_keeps_the_jobs(
    tmp_path: Path, site: Site, number: signal.Signals
) -> None:
    gate = Gate(site)
    async with open_server(tmp_path, "--workers", "1", "--grace", "1") as server, server.client() as client:
        running = await submit(client, "scrape", url=gate.url)
        await site.seen(gate.path)
        queued = await submit(client, "screenshot", url=site.url("/ok"))
        code, took = await server.end(number)
        assert (code, took < 1 + EXIT_S) == (0, True)
        assert await server.leftovers() == []
        assert not [line for line in server.log if "Traceback" in line]
    gate.open()
    async with open_server(tmp_path) as server, server.client() as client:
        jobs = [await ended(client, job_id) for job_id in (running, queued)]
    assert [(job["status"], job["meta"]["attempts"]) for job in jobs] == [("done", 2), ("done", 1)]


async def test_running_job_ends_within_the_grace(tmp_path: Path, site: Site) -> None:
    gate = Gate(site)
    async with open_server(tmp_path, "--workers", "1") as server, server.client() as client:
        job_id = await submit(client, "scrape", url=gate.url)
        await site.seen(gate.path)
        server.process.terminate()
        # Refusing work is the sign that it drains.
        with trio.fail_after(QUICK_S):
            while (await client.get("/readyz")).status_code != 503:
                pass
        gate.open()
        assert (await server.end())[0] == 0
    async with open_server(tmp_path) as server, server.client() as client:
        job = await ended(client, job_id)
    assert (job["status"], job["meta"]["attempts"]) == ("done", 1)


async def test_second_signal_ends_at_once(tmp_path: Path, site: Site) -> None:
    async with open_server(tmp_path, "--grace", "600") as server, server.client() as client:
        await submit(client, "scrape", url=site.url("/never"))
        await site.seen("/never")
        server.process.terminate()
        with trio.fail_after(QUICK_S):
            while (await client.get("/readyz")).status_code != 503:
                pass
        code, took = await server.end(signal.SIGTERM)
        assert (code, took < EXIT_S) == (0, True)
        assert await server.leftovers() == []


async def test_idle_service_ends_with_nothing_left(server: Server) -> None:
    code, took = await server.end(signal.SIGTERM)
    assert (code, took < EXIT_S, await server.leftovers()) == (0, True, [])


async def test_signals_while_all_is_closed_change_nothing(server: Server, own: httpx.AsyncClient) -> None:
    # An open connection makes the closing last.
    await own.get("/livez")
    async with trio.open_nursery() as nursery:

        async def insist() -> None:
            while server.process.returncode is None:
                server.process.terminate()
                await trio.sleep(0.05)

        nursery.start_soon(insist)
        code, _ = await server.end(signal.SIGTERM)
    assert (code, await server.leftovers()) == (0, [])


async def test_running_synchronous_call_is_told_that_the_service_drains(tmp_path: Path, site: Site) -> None:
    answers: list[httpx.Response] = []

    async def call() -> None:
        answers.append(await client.post("/v1/scrape", json={"url": site.url("/never")}))

    async with open_server(tmp_path, "--grace", "1") as server, server.client() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await site.seen("/never")
            await server.end(signal.SIGTERM)
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [(503, "draining")]


async def test_long_poll_is_answered_when_the_service_ends(tmp_path: Path, site: Site) -> None:
    jobs: list[dict[str, Any]] = []

    async def poll(job_id: str) -> None:
        jobs.append((await client.get(f"/v1/jobs/{job_id}?wait=30")).json())

    async with open_server(tmp_path, "--grace", "1") as server, server.client() as client:
        job_id = await submit(client, "scrape", url=site.url("/never"))
        await site.seen("/never")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll, job_id)
            await server.end(signal.SIGTERM)
    assert [job["status"] for job in jobs] == ["running"]


# ---- Clients that misbehave ------------------------------------------------------------------------------------------


def raw_request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def connect(client: httpx.AsyncClient, *, receive_bytes: int | None = None) -> trio.SocketStream:
    """A bare connection to where the client goes, with a small receive buffer where one is given."""
    assert client.base_url.port is not None
    return await bare_stream(client.base_url.port, receive_bytes=receive_bytes)


async def large_result(client: httpx.AsyncClient, site: Site) -> str:
    """A job whose result, a picture of noise, is 12 MB: more than all buffers between server and client take."""
    url = site.add("/noise", noise(2000, 2000))
    job_id = await submit(client, "screenshot", url=url, format="png", viewport={"width": 2000, "height": 2000})
    assert (await ended(client, job_id))["status"] == "done"
    return job_id


@pytest.mark.parametrize("rest", ["", "/result"])
async def test_client_that_stops_reading_does_not_hold_up_the_exit(
    server: Server, own: httpx.AsyncClient, site: Site, rest: str
) -> None:
    job_id = await large_result(own, site)
    async with await connect(own, receive_bytes=4096) as stream:
        await stream.send_all(raw_request("GET", f"/v1/jobs/{job_id}{rest}"))
        # The first bytes are here, the rest is stuck in the server.
        assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 200")
        code, took = await server.end(signal.SIGTERM)
    # It is cut off after 5 s.
    assert (code, took < 5 + EXIT_S) == (0, True)
    assert await server.leftovers() == []


async def test_client_that_stops_reading_does_not_hold_up_others(client: httpx.AsyncClient, site: Site) -> None:
    job_id = await large_result(client, site)
    async with await connect(client, receive_bytes=4096) as stream:
        await stream.send_all(raw_request("GET", f"/v1/jobs/{job_id}"))
        await stream.receive_some(100)
        with trio.fail_after(10):
            await run(client, "scrape", url=site.url("/ok"))


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_client_that_leaves_takes_its_call_with_it(client: httpx.AsyncClient, site: Site, method: str) -> None:
    url = site.url("/never")
    async with await connect(client) as stream:
        if method == "POST":
            await stream.send_all(raw_request("POST", "/v1/screenshot", json.dumps({"url": url}).encode()))
        else:
            await stream.send_all(raw_request("GET", f"/v1/screenshot?url={url}"))
        await site.seen("/never")
    with trio.fail_after(5):
        await site.connections_settled()
    (row,) = [row for row in (await client.get("/v1/jobs")).json()["jobs"] if row["url"] == url]
    assert (await ended(client, row["job_id"]))["error_detail"]["code"] == "cancelled"


async def test_queued_call_of_a_client_that_leaves_never_starts(tmp_path: Path, site: Site) -> None:
    gate = Gate(site)
    async with open_server(tmp_path, "--workers", "1") as server, server.client() as client:
        first = await submit(client, "scrape", url=gate.url)
        await site.seen(gate.path)
        async with await connect(client) as stream:
            await stream.send_all(raw_request("POST", "/v1/scrape", json.dumps({"url": site.url("/ok")}).encode()))
            with trio.fail_after(QUICK_S):
                while len((await client.get("/v1/jobs")).json()["jobs"]) < 2:
                    pass
        with trio.fail_after(QUICK_S):
            while (await client.get("/v1/jobs?status=failed")).json()["jobs"] == []:
                pass
        gate.open()
        await ended(client, first)
    assert [request.path for request in site.requests if request.path == "/ok"] == []


async def test_client_that_leaves_a_long_poll_leaves_the_job(client: httpx.AsyncClient, site: Site) -> None:
    gate = Gate(site)
    job_id = await submit(client, "scrape", url=gate.url)
    async with await connect(client) as stream:
        await stream.send_all(raw_request("GET", f"/v1/jobs/{job_id}?wait=30"))
        await site.seen(gate.path)
    gate.open()
    assert (await ended(client, job_id))["status"] == "done"


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 100,
        b"POST /v1/jobs HTTP/1.1\r\n",
        # HTTP/2 with prior knowledge: its empty settings, then a window of no size.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    ],
)
async def test_garbage_on_a_connection_costs_nobody_else_anything(
    shared: tuple[str, list[str]], client: httpx.AsyncClient, sent: bytes
) -> None:
    async with await connect(client) as stream:
        await stream.send_all(sent)
        assert (await client.get("/livez")).status_code == 200
    assert not [line for line in shared[1] if "Traceback" in line]


@pytest.mark.parametrize(
    "head", ["GET /livez HTTP/1.0", "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close"], ids=["1.0", "close"]
)
async def test_connection_ends_with_its_last_answer(client: httpx.AsyncClient, head: str) -> None:
    async with await connect(client) as stream:
        await stream.send_all(f"{head}\r\n\r\n".encode())
        with trio.fail_after(3):
            answer = b"".join([chunk async for chunk in stream])
    assert answer.endswith(b'{"ok": true}')


async def test_upgrade_to_http2_is_not_made(client: httpx.AsyncClient) -> None:
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": ""}
    answer = await client.get("/livez", headers=upgrade)
    assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")


async def test_websocket_is_refused(client: httpx.AsyncClient) -> None:
    lines = ["GET /v1/jobs HTTP/1.1", "Host: a..b", "Connection: Upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
    async with await connect(client) as stream:
        await stream.send_all("\r\n".join(lines).encode())
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 403 ")


# ---- The browser's end -----------------------------------------------------------------------------------------------


async def test_jobs_on_a_killed_browser_run_again(server: Server, own: httpx.AsyncClient, site: Site) -> None:
    gates = [Gate(site, f"/gate/{index}") for index in range(2)]
    jobs = [await submit(own, "scrape", url=gate.url) for gate in gates]
    for gate in gates:
        await site.seen(gate.path)
    server.browser().kill()
    for gate in gates:
        await site.seen(gate.path, count=2)
        gate.open()
    ends = [await ended(own, job_id) for job_id in jobs]
    assert [(job["status"], job["meta"]["attempts"]) for job in ends] == [("done", 2)] * 2


@pytest.mark.slow
async def test_jobs_on_a_hung_browser_run_again(server: Server, own: httpx.AsyncClient, site: Site) -> None:
    await run(own, "scrape", url=site.url("/ok"))
    hung = server.browser()
    hung.suspend()
    job = await ended(own, await submit(own, "scrape", url=site.url("/ok"), timeout_ms=3000))
    assert (job["status"], job["meta"]["attempts"]) == ("done", 2)
    assert not hung.is_running()


async def test_queued_jobs_run_on_the_next_browser(server: Server, own: httpx.AsyncClient, site: Site) -> None:
    await run(own, "scrape", url=site.url("/ok"))
    server.browser().kill()
    jobs = [await ended(own, await submit(own, "scrape", url=site.url("/ok"))) for _ in range(3)]
    assert [job["status"] for job in jobs] == ["done"] * 3


async def test_crashed_page_costs_its_own_job_only(server: Server, own: httpx.AsyncClient, site: Site) -> None:
    hit = await submit(own, "scrape", url=site.url("/never-loads"), wait_until="load")
    await site.seen("/never")
    for child in server.look():
        if "--type=renderer" in child.cmdline():
            child.kill()
    job = await ended(own, hit)
    assert (job["error_detail"], job["meta"]["attempts"]) == ({"code": "page_crashed", "retryable": True}, 1)
    assert (await run(own, "scrape", url=site.url("/ok")))["ok"] is True
