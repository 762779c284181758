"""README.md and docs: every block of commands, and every program, runs and does what it says.

A document's `sh` blocks run one after the other as one script of bash, in an empty folder, beside a server of its own
whose data folder is `cleariflow-data` there. `http://127.0.0.1:8000` is that server, `https://example.com` the test
site, and `curl` fails where the server does. A block that cannot run says why in a comment: `<!-- not run: why -->`. A
`python` block is a program of its own, `<!-- example: name -->`, with a test below.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import httpx
import pytest
import trio
from PIL import Image

from tests.site import Site, page
from tests.test_end_to_end import PROGRAM, QUICK_S, Server, open_server

ROOT = Path(__file__).parent.parent
DOCUMENTS = {path.name: path for path in (ROOT / "README.md", ROOT / "SECURITY.md", *sorted(ROOT.glob("docs/*.md")))}
SERVER, WEB = "http://127.0.0.1:8000", "https://example.com"
TITLE, TEXT, HEIGHT_PX = "Example Domain", "This domain is for examples.", 1700
PAGE = page(f"<h1>{TITLE}</h1><p>{TEXT}</p>", f"<style>html {{ height: {HEIGHT_PX}px }}</style>", TITLE)


@attrs.frozen
class Block:
    """A block of a document."""

    document: str
    comment: str
    language: str
    text: str


BLOCK = re.compile(r"(?:<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> Iterator[Block]:
    """All of a language."""
    for name, path in DOCUMENTS.items():
        for comment, found, text in BLOCK.findall(path.read_text()):
            if found == language:
                yield Block(name, comment, found, text)


SCRIPTS: dict[str, str] = {}
for block in blocks("sh"):
    if not block.comment.startswith("not run: "):
        SCRIPTS[block.document] = SCRIPTS.get(block.document, "") + block.text
# Only these are short enough for every run of the tests.
QUICK = ("README.md", "api.md")
PROGRAMS = {block.comment.removeprefix("example: "): block for block in blocks("python")}


def with_places(text: str, places: dict[str, str]) -> str:
    """A text with other addresses."""
    for former, new in places.items():
        text = text.replace(former, new)
    return text


@pytest.fixture
async def example(site: Site) -> Site:
    """The site that stands for example.com."""
    for path in ("/", "/article"):
        site.add(path, PAGE)
    return site


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server for one document, whose browser runs."""
    async with open_server(tmp_path / "cleariflow-data", "--workers", "2") as server, server.client() as client:
        # It waits for the browser.
        await client.post("/v1/scrape", json={"html": "<p>Text"})
        yield server


def environment(folder: Path) -> dict[str, str]:
    """Where `cleariflow` is on PATH, and pages may reach the test site."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    command = programs / "cleariflow"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{PROGRAM}" "$@"\n')
    command.chmod(0o755)
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "CLEARIFLOW_ALLOW_NETWORK": "127.0.0.0/8"}


@pytest.mark.parametrize(
    "document", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SCRIPTS]
)
async def test_commands_do_what_they_say(document: str, tmp_path: Path, server: Server, example: Site) -> None:
    text = with_places(SCRIPTS[document], {SERVER: server.url, WEB: example.url("").rstrip("/")})
    script = f'curl() {{ command curl --fail --show-error "$@"; }}\n{text}'
    with trio.fail_after(QUICK_S):
        ended = await trio.run_process(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment(tmp_path),
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    assert ended.returncode == 0, ended.stderr.decode()
    for name in re.findall(r"(?: -o|>) ([\w.-]+\.(?:png|jpeg|webp|html|md|jsonl))\b", SCRIPTS[document]):
        check_file(tmp_path / name)


def check_file(path: Path) -> None:
    """Whether a file is of the kind that its name says, and of the page."""
    if path.suffix in (".png", ".jpeg", ".webp"):
        with Image.open(path) as image:
            image.load()
            assert image.format == path.suffix[1:].upper()
    else:
        assert TEXT in path.read_text()


def test_commands_of_every_document_are_known() -> None:
    """A document without commands that run would be a mistake of `blocks`."""
    assert {"README.md", "api.md", "request.md", "settings.md", "deployment.md"} <= set(SCRIPTS)


def test_every_fence_is_a_block() -> None:
    for name, path in DOCUMENTS.items():
        text = path.read_text()
        assert len(re.findall("^```", text, re.MULTILINE)) == 2 * len(BLOCK.findall(text)), name


# ---- Programs --------------------------------------------------------------------------------------------------------


def program(name: str, folder: Path, places: dict[str, str]) -> list[str]:
    """The command that runs an example."""
    file = folder / "program.py"
    file.write_text(with_places(PROGRAMS[name].text, places))
    return [sys.executable, "-W", "error", str(file)]


async def run(name: str, folder: Path, places: dict[str, str] | None = None) -> str:
    """What an example prints."""
    command = program(name, folder, places or {})
    with trio.fail_after(QUICK_S):
        ended = await trio.run_process(command, cwd=folder, check=False, capture_stdout=True, capture_stderr=True)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode()


CHECKED: set[str] = set()


def example_test(name: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Mark the test of an example."""
    CHECKED.add(name)
    return lambda test: test


def test_every_program_has_a_test() -> None:
    assert set(PROGRAMS) == CHECKED


@pytest.fixture
def places(server: Server, example: Site) -> dict[str, str]:
    """The real addresses of what a client meets."""
    return {SERVER: server.url, WEB: example.url("").rstrip("/")}


@example_test("readme")
async def test_readme_s_program_makes_a_picture(tmp_path: Path) -> None:
    assert re.fullmatch(r"done \d{3,} bytes\n", await run("readme", tmp_path))


@example_test("client")
async def test_client_saves_the_picture(tmp_path: Path, places: dict[str, str]) -> None:
    await run("client", tmp_path, places)
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (1280, HEIGHT_PX)


@example_test("events")
async def test_events_are_followed_to_the_end(tmp_path: Path, places: dict[str, str]) -> None:
    told = await run("events", tmp_path, places)
    *steps, heading, _, text = told.splitlines()
    assert (heading, text) == (f"# {TITLE}", TEXT)
    assert steps[-1] == "done"
    assert any(re.fullmatch(r" *\d+% [a-z_]+", step) for step in steps)


@pytest.mark.slow
@example_test("service")
async def test_service_without_http_makes_pictures(tmp_path: Path) -> None:
    told = await run("service", tmp_path)
    for name, line in zip(("Anna", "Ben", "Cleo"), told.splitlines(), strict=True):
        assert re.fullmatch(rf"{name}: done, \d+ ms", line)
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size == (1280, 800)


@pytest.mark.slow
@example_test("cdp")
async def test_browser_alone_takes_a_picture(tmp_path: Path, example: Site) -> None:
    address = example.url("").removeprefix("http://").rstrip("/")
    assert await run("cdp", tmp_path, {"127.0.0.1:3000": address}) == f"200 800 {HEIGHT_PX} {TITLE}\n"
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (800, HEIGHT_PX)


@asynccontextmanager
async def running(
    name: str, folder: Path, places: dict[str, str]
) -> AsyncIterator[tuple[httpx.AsyncClient, trio.Process]]:
    """A client of an example that serves, and its process."""
    command = program(name, folder, places)
    process = await trio.lowlevel.open_process(command, cwd=folder, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        log = b""
        with trio.fail_after(QUICK_S):
            while (found := re.search(rb"Running on (http://\S+)", log)) is None:
                piece = await process.stderr.receive_some()
                assert piece, log.decode()
                log += piece
        async with httpx.AsyncClient(base_url=found[1].decode(), timeout=QUICK_S, trust_env=False) as client:
            yield client, process
    finally:
        await process.stderr.aclose()
        if process.returncode is None:
            process.kill()
            await process.wait()


@example_test("mounted")
async def test_mounted_service_serves_beside_the_program_s_own(tmp_path: Path) -> None:
    async with running("mounted", tmp_path, {'"127.0.0.1:8000"': '"127.0.0.1:0"'}) as (client, process):
        invoice = await client.get("/invoice/7.png")
        assert (invoice.status_code, invoice.headers["content-type"]) == (200, "image/png")
        answer = await client.post("/shots/scrape/v1/jobs", json={"request": {"html": "<p>Text", "outputs": ["text"]}})
        location = answer.headers["location"]
        assert location == f"/shots/v1/jobs/{answer.json()['job_id']}"
        events = await client.get(f"{location}/events")
        assert '"status": "done"' in events.text
        assert (await client.get(f"{location}/result")).text == "Text"
        assert (await client.get("/shots/")).headers["content-type"] == "text/html; charset=utf-8"
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(QUICK_S):
            assert await process.wait() == 0
