"""The command line: flags into requests and settings, faults and exit codes, and captures without a server."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from PIL import Image

import cdp
import cleariflow
from cdp.errors import LaunchError
from cdp.options import Auth, Clip, Cookie, Geolocation, Resize, Viewport, Wait, WaitFor
from cdp.scrape import Part
from cdp.validation import fields_of
from cleariflow import (
    REQUEST_CLASSES,
    Config,
    JobFailed,
    LineFormatter,
    Output,
    Request,
    ServiceName,
    StatusPattern,
    Store,
    main,
)
from tests.site import OK_TEXT, RED, Site

PROGRAM = Path(__file__).parent.parent / "cleariflow.py"


class Captured(list[tuple[Request, dict[str, Any]]]):
    """The requests that came through, each with the settings of its browser."""

    parts: dict[str, Part]
    fault: Exception | None = None


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Captured:
    """Captures without a browser."""
    captured = Captured()
    captured.parts = {"image": Part(b"DATA", "image/png")}
    settings: dict[str, Any] = {}

    class FakePool:
        open_page = None
        available = True

        def give_up(self) -> None:
            pass

    @asynccontextmanager
    async def open_browser(executable: str | None, **others: Any) -> AsyncIterator[None]:
        settings.update(executable=executable, **others)
        yield

    @asynccontextmanager
    async def open_pool(open_one: cdp.pool.OpenBrowser, **others: Any) -> AsyncIterator[FakePool]:
        async with open_one():
            yield FakePool()

    async def attempt(open_page: object, parsed: Request, **others: Any) -> Output:
        captured.append((parsed, settings | others))
        if captured.fault is not None:
            raise captured.fault
        meta = {"width": 1, "height": 2, "elapsed_ms": 3, "warnings": ["a warning"]}
        return Output(captured.parts, meta)

    monkeypatch.setattr(cdp, "open_browser", open_browser)
    monkeypatch.setattr(cdp, "open_pool", open_pool)
    monkeypatch.setattr(cleariflow, "attempt", attempt)
    # The handlers of this process are pytest's.
    monkeypatch.setattr(cleariflow, "set_up_logging", lambda *_: None)
    return captured


def only(captured: Captured) -> Request:
    ((request, _),) = captured
    return request


# ---- Flags of a request ----------------------------------------------------------------------------------------------

FLAGS: list[tuple[str, str, str, Any]] = [
    ("viewport.width", "--viewport.width", "800", Viewport(width=800)),
    ("viewport.height", "--viewport.height", "600", Viewport(height=600)),
    ("viewport.device_scale_factor", "--viewport.device-scale-factor", "2", Viewport(device_scale_factor=2)),
    ("viewport.mobile", "--viewport.mobile", "true", Viewport(mobile=True)),
    ("viewport.touch", "--viewport.touch", "true", Viewport(touch=True)),
    ("viewport", "--viewport", '{"width": 5}', Viewport(width=5)),
    ("user_agent", "--user-agent", "Agent/1.0", "Agent/1.0"),
    ("javascript", "--javascript", "false", False),
    ("cookies", "--cookies", "a=b; c=d", (Cookie("a", "b"), Cookie("c", "d"))),
    ("cookies", "--cookies", '[{"name": "a", "value": "b"}]', (Cookie("a", "b"),)),
    ("headers", "--headers", '{"X-A": "1"}', {"X-A": "1"}),
    ("wait_until", "--wait-until", "load", "load"),
    ("wait_for", "--wait-for", "#a", (WaitFor("#a"),)),
    ("wait_for", "--wait-for", '["#a", "#b"]', (WaitFor("#a"), WaitFor("#b"))),
    ("wait_ms", "--wait-ms", "50", 50),
    ("timeout_ms", "--timeout-ms", "5000", 5000),
    ("on_timeout", "--on-timeout", "capture", "capture"),
    ("render", "--render", "auto", "auto"),
    ("wait_ms", "--render", '{"wait_ms": 5}', 5),
    ("locale", "--locale", "de-CH", "de-CH"),
    ("device", "--device", "iPhone 15", "iPhone 15"),
    ("reduced_motion", "--reduced-motion", "false", False),
    ("geolocation", "--geolocation", '{"latitude": 1, "longitude": -2.5}', Geolocation(1, -2.5)),
    ("auth", "--auth", '{"username": "a", "password": "b"}', Auth("a", "b")),
    ("block_resources", "--block-resources", '["image", "font"]', ("image", "font")),
    ("css", "--css", "p{color:red}", ("p{color:red}",)),
    ("js", "--js", '["1", "2"]', ("1", "2")),
    ("hide_selectors", "--hide-selectors", "[data-x]", ("[data-x]",)),
    ("fail_on_status", "--fail-on-status", '["4xx", 500]', (StatusPattern("4xx"), StatusPattern("500"))),
    ("retries", "--retries", "2", 2),
    ("actions", "--actions", '[{"type": "wait", "ms": 5}]', (Wait(type="wait", ms=5),)),
]
PICTURE_FLAGS: list[tuple[str, str, str, Any]] = [
    ("render", "--render", "false", False),
    ("format", "--format", "webp", "webp"),
    ("quality", "--quality", "50", 50),
    ("full_page", "--full-page", "true", True),
    ("selector", "--selector", "#a", "#a"),
    ("clip", "--clip", '{"x": 1, "y": 2, "width": 3, "height": 4}', Clip(1, 2, 3, 4)),
    ("optimize_for_speed", "--optimize-for-speed", "false", False),
    ("resize", "--resize.width", "5", Resize(width=5)),
    ("disable_animations", "--disable-animations", "false", False),
]


@pytest.mark.parametrize(("field", "flag", "text", "value"), FLAGS + PICTURE_FLAGS)
def test_flag_sets_its_field(captured: Captured, field: str, flag: str, text: str, value: Any) -> None:
    assert main(["screenshot", "a.b", "-o", "-", flag, text]) == 0
    assert getattr(only(captured), field.partition(".")[0]) == value


@pytest.mark.parametrize(("field", "flag", "text", "value"), FLAGS)
def test_scrape_has_the_flags_of_both(captured: Captured, field: str, flag: str, text: str, value: Any) -> None:
    assert main(["scrape", "a.b", flag, text]) == 0
    assert getattr(only(captured), field.partition(".")[0]) == value


@pytest.mark.parametrize(
    ("service", "name"), [(service, name) for service, cls in REQUEST_CLASSES.items() for name in fields_of(cls)]
)
def test_every_field_of_a_request_is_a_flag(
    service: ServiceName, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([service, "--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    if name == "url":
        assert "URL" in shown
    elif name == "api_key":
        # There is nobody to show it to.
        assert "--api-key" not in shown
    else:
        assert f"--{name.replace('_', '-')}" in shown


def test_transparent_is_a_flag(captured: Captured) -> None:
    assert main(["screenshot", "a.b", "-o", "-", "--format", "png", "--transparent"]) == 0
    assert getattr(only(captured), "transparent", None) is True


def test_flags_of_a_clip_are_one_field(captured: Captured) -> None:
    flags = ["--clip.x", "1", "--clip.y", "2", "--clip.width", "3.5", "--clip.height", "4"]
    assert main(["screenshot", "a.b", "-o", "-", *flags]) == 0
    assert getattr(only(captured), "clip", None) == Clip(1, 2, 3.5, 4)


@pytest.mark.parametrize("flag", ["--full-page", "--full_page", "--full-page=true", "--full-page=1"])
def test_boolean_flag_needs_no_value(captured: Captured, flag: str) -> None:
    assert main(["screenshot", "a.b", "-o", "-", flag]) == 0
    assert getattr(only(captured), "full_page", None) is True


def test_flags_of_an_object_are_one_field(captured: Captured) -> None:
    flags = ["--geolocation.latitude", "47", "--geolocation.longitude=-8.5", "--auth.username", "5"]
    assert main(["scrape", "a.b", *flags, "--auth.password", "true"]) == 0
    assert (only(captured).geolocation, only(captured).auth) == (Geolocation(47, -8.5), Auth("5", "true"))


def test_boolean_flag_leaves_the_url_alone(captured: Captured) -> None:
    assert main(["screenshot", "--full-page", "a.b", "-o", "-"]) == 0
    assert only(captured).url == "https://a.b/"


def test_underscores_may_stand_for_dashes(captured: Captured) -> None:
    assert main(["scrape", "a.b", "--wait_ms", "5"]) == 0
    assert only(captured).wait_ms == 5


def test_html_needs_no_url(captured: Captured) -> None:
    assert main(["scrape", "--html", "<p>", "--base-url", "http://a.b/c"]) == 0
    assert (only(captured).html, only(captured).base_url) == ("<p>", "http://a.b/c")


@pytest.mark.parametrize(
    ("file", "image_format"),
    [("x.png", "png"), ("x.PNG", "png"), ("x.jpg", "jpeg"), ("x.jpeg", "jpeg"), ("x.webp", "webp"), ("x", "jpeg")],
)
def test_format_comes_from_the_suffix(captured: Captured, tmp_path: Path, file: str, image_format: str) -> None:
    assert main(["screenshot", "a.b", "-o", str(tmp_path / file)]) == 0
    assert getattr(only(captured), "format", None) == image_format


def test_flag_wins_over_the_suffix(captured: Captured, tmp_path: Path) -> None:
    assert main(["screenshot", "a.b", "-o", str(tmp_path / "x.img"), "--format", "webp"]) == 0
    assert getattr(only(captured), "format", None) == "webp"


def test_scrape_has_no_format(captured: Captured, tmp_path: Path) -> None:
    assert main(["scrape", "a.b", "-o", str(tmp_path / "x.png")]) == 0


def test_settings_reach_the_browser(captured: Captured) -> None:
    flags = ["--browser", "chromium", "--browser-arg=--a", "--browser-arg=--b", "--allow-network", "10.0.0.0/8"]
    assert main(["scrape", "a.b", *flags, "--max-pixels", "1234567"]) == 0
    ((_, settings),) = captured
    assert (settings["executable"], settings["switches"]) == ("chromium", ("--a", "--b"))
    assert settings["max_pixels"] == 1_234_567
    assert settings["policy"].judge_host("10.1.2.3") is None


# ---- Output ----------------------------------------------------------------------------------------------------------


def test_output_is_written_to_the_file(captured: Captured, tmp_path: Path) -> None:
    assert main(["screenshot", "a.b", "-o", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").read_bytes() == b"DATA"


@pytest.mark.parametrize(
    "arguments", [["screenshot", "a.b", "-o", "-"], ["scrape", "a.b"], ["scrape", "a.b", "-o", "-"]]
)
def test_output_goes_to_standard_output(
    captured: Captured, capfdbinary: pytest.CaptureFixture[bytes], arguments: list[str]
) -> None:
    assert main(arguments) == 0
    assert capfdbinary.readouterr().out == b"DATA"


PARTS = {
    "html": Part("<p>ü".encode(), "text/html; charset=utf-8"),
    "links": Part(b"[1]", "application/json; charset=utf-8"),
    "a.b": Part(b"DATA", "image/png"),
}


def test_further_outputs_are_files_beside_the_first(captured: Captured, tmp_path: Path) -> None:
    captured.parts = PARTS
    assert main(["scrape", "a.b", "-o", str(tmp_path / "x.html")]) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "x.html": "<p>ü".encode(),
        "x-links.json": b"[1]",
        "x-a.b.png": b"DATA",
    }


def test_several_outputs_on_standard_output_are_json(
    captured: Captured, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    captured.parts = PARTS
    assert main(["scrape", "a.b"]) == 0
    result = json.loads(capfdbinary.readouterr().out)
    assert (result["html"], result["links"], result["meta"]["elapsed_ms"]) == ("<p>ü", [1], 3)
    assert result["screenshots"] == {"a.b": {"image_base64": "REFUQQ==", "content_type": "image/png"}}


def test_summary_and_warnings_go_to_standard_error(
    captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.png"
    assert main(["screenshot", "a.b", "-o", str(file)]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["warning: a warning", f"{file}: image/png, 1 x 2 px, 4 bytes, 3 ms"]


@pytest.mark.parametrize("place", ["no-such-folder/x.png", "."])
def test_output_that_cannot_be_written_is_a_fault(
    captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    assert main(["screenshot", "a.b", "-o", f"{tmp_path}/{place}"]) in (1, 2)
    assert capsys.readouterr().err.startswith("cleariflow: ")


# ---- Faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["screenshot", "a.b"], ["cleariflow: -o: is required: -o page.png, or -o - for standard output"]),
        (["scrape"], ["cleariflow: url: is required, or html"]),
        (["scrape", "ftp://a.b"], ["cleariflow: url: scheme 'ftp' is not allowed; http and https are"]),
        (
            ["scrape", "a.b", "--wait-ms", "-1", "--timeout-ms", "soon"],
            [
                "cleariflow: wait_ms: must be at least 0 and at most 600000, not -1",
                "cleariflow: timeout_ms: must be an integer, not a text",
            ],
        ),
        (
            ["screenshot", "a.b", "-o", "x.jpg", "--transparent"],
            ["cleariflow: format: jpeg has no transparency: ask for png or webp"],
        ),
        (
            ["scrape", "a.b", "--max-pixels", "0"],
            ["cleariflow: --max-pixels (CLEARIFLOW_MAX_PIXELS): must be at least 1, not 0"],
        ),
    ],
)
def test_fault_is_told_and_the_exit_code_is_2(
    captured: Captured, capsys: pytest.CaptureFixture[str], arguments: list[str], lines: list[str]
) -> None:
    assert main(arguments) == 2
    assert sorted(capsys.readouterr().err.splitlines()) == sorted(lines)
    assert captured == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["scrape", "a.b", "--nonsense"],
        ["scrape", "a.b", "--quality", "5"],
        ["scrape", "a.b", "--port", "5"],
        ["scrape", "a.b", "c.d"],
        ["scrape", "a.b", "--timeout", "5"],
        ["print", "a.b"],
        ["--disk-quota", "5"],
        ["--api-key", "x"],
        ["keys", "make"],
        ["keys"],
        ["--wait-ms", "5"],
        ["serve", "a.b"],
    ],
)
def test_unknown_flag_or_command_is_refused(captured: Captured, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "fault", [JobFailed("timeout", "timeout after 5 ms"), LaunchError("no Chromium was found")], ids=["job", "launch"]
)
def test_failed_capture_is_told_and_the_exit_code_is_1(
    captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    captured.fault = fault
    assert main(["screenshot", "a.b", "-o", str(tmp_path / "x.png")]) == 1
    assert capsys.readouterr().err == f"cleariflow: {fault}\n"
    assert not (tmp_path / "x.png").exists()


def test_variables_are_checked_by_every_command(
    captured: Captured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLEARIFLOW_KEYS", "x")
    assert main(["scrape", "a.b"]) == 2
    assert "CLEARIFLOW_KEYS" in capsys.readouterr().err


# ---- Serving ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that would be served."""
    configs: list[Config] = []

    async def serve(config: Config) -> None:
        configs.append(config)

    monkeypatch.setattr(cleariflow, "serve", serve)
    monkeypatch.setattr(cleariflow, "set_up_logging", lambda *_: None)
    return configs


@pytest.mark.parametrize("arguments", [["--port", "5"], ["serve", "--port", "5"], ["--port=5"]])
def test_serving_is_what_runs_without_a_command(served: list[Config], arguments: list[str]) -> None:
    assert main(arguments) == 0
    assert [config.port for config in served] == [5]


def test_no_argument_serves(served: list[Config]) -> None:
    assert main([]) == 0
    assert len(served) == 1


def test_open_is_a_flag(served: list[Config]) -> None:
    assert main(["--open", "--host", "0.0.0.0", "--allow-host", "a", "--allow-host", "b"]) == 0
    (config,) = served
    assert (config.open, config.host, config.allow_host) == (True, "0.0.0.0", ("a", "b"))


def test_all_faults_of_serving_are_told(served: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "x", "--workers", "0", "--host", "0.0.0.0"]) == 2
    told = capsys.readouterr().err
    assert all(f"cleariflow: --{name} (CLEARIFLOW_" in told for name in ("port", "workers", "host"))
    assert served == []


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "set_up_logging", lambda *_: None)


def test_port_in_use_is_a_fault(quiet: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--port", str(taken.getsockname()[1]), "--data-dir", str(tmp_path)]) == 2
    assert "choose another --port" in capsys.readouterr().err


def test_host_that_is_not_of_this_machine_is_a_fault(
    quiet: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--host", "192.0.2.1", "--open", "--data-dir", str(tmp_path)]) == 2
    assert "cannot listen on 192.0.2.1" in capsys.readouterr().err


def test_data_folder_in_use_is_a_fault(quiet: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held, over = threading.Event(), threading.Event()

    async def hold() -> None:
        store = Store(tmp_path)
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            held.set()
            await trio.to_thread.run_sync(over.wait)
            nursery.cancel_scope.cancel()

    # Signals are for the main thread, where `main` runs.
    other = threading.Thread(target=trio.run, args=(hold,))
    other.start()
    try:
        assert held.wait(10)
        assert main(["--port", "0", "--data-dir", str(tmp_path)]) == 2
    finally:
        over.set()
        other.join()
    assert "in use" in capsys.readouterr().err


# ---- Logs ------------------------------------------------------------------------------------------------------------


def record(**fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "cleariflow", "levelname": "INFO", "msg": "said %d", "args": (5,)} | fields)


def test_json_line_has_its_members() -> None:
    line = json.loads(LineFormatter("json").format(record(job_id="an-id")))
    assert line.pop("time")
    assert line == {"level": "info", "logger": "cleariflow", "message": "said 5", "job_id": "an-id"}


def test_json_line_has_no_empty_members() -> None:
    assert json.loads(LineFormatter("json").format(record())).keys() == {"time", "level", "logger", "message"}


def test_json_line_is_one_line_with_its_traceback() -> None:
    try:
        raise ValueError("a\nbug")
    except ValueError:
        text = LineFormatter("json").format(record(exc_info=sys.exc_info()))
    assert "\n" not in text
    assert "ValueError: a\nbug" in json.loads(text)["traceback"]


def test_text_line_names_the_job() -> None:
    assert LineFormatter("text").format(record(job_id="an-id")).endswith("INFO    job an-id: said 5")


def test_text_line_without_a_job_names_none() -> None:
    assert LineFormatter("text").format(record()).endswith("INFO    said 5")


# ---- The real thing --------------------------------------------------------------------------------------------------

NETWORK = ("--allow-network", "127.0.0.0/8")


async def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The program's end; a file name `-` gives the bytes."""
    command = [sys.executable, str(PROGRAM), *arguments]
    with trio.fail_after(40):
        return await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)


async def test_screenshot_is_a_file(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "page.png"
    done = await run("screenshot", site.url("/ok"), "-o", str(file), *NETWORK, "--viewport.width", "300")
    assert (done.returncode, done.stdout) == (0, b"")
    shown = Image.open(file).convert("RGB")
    assert (shown.size, shown.getpixel((50, 50))) == ((300, 800), RED)


async def test_scrape_is_on_standard_output(site: Site) -> None:
    done = await run("scrape", site.url("/ok"), *NETWORK)
    assert (done.returncode, OK_TEXT in done.stdout.decode()) == (0, True)


async def test_screenshot_on_standard_output_is_a_picture(site: Site) -> None:
    done = await run("screenshot", site.url("/ok"), "-o", "-", *NETWORK, "--format", "webp")
    assert (done.returncode, Image.open(BytesIO(done.stdout)).format) == (0, "WEBP")


async def test_loopback_is_blocked_without_a_flag(site: Site) -> None:
    done = await run("scrape", site.url("/ok"))
    assert (done.returncode, done.stdout, site.requests) == (1, b"", [])
    assert done.stderr.startswith(b"cleariflow: blocked target")


async def test_failed_capture_shows_no_traceback(site: Site) -> None:
    done = await run("scrape", site.url("/reset"), *NETWORK)
    assert (done.returncode, done.stderr) == (1, b"cleariflow: navigation failed: net::ERR_CONNECTION_RESET\n")


async def test_missing_browser_says_what_to_do(tmp_path: Path) -> None:
    done = await run("scrape", "a.b", "--browser", str(tmp_path / "no-browser"))
    assert done.returncode == 1
    assert b"no-browser" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["serve", "--help"]])
async def test_help_is_shown(arguments: list[str]) -> None:
    done = await run(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"usage: cleariflow" in done.stdout


async def test_interrupted_capture_leaves_nothing(site: Site, tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "scrape", site.url("/never"), *NETWORK]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE, env=environment)
    assert process.stderr is not None
    async with process.stderr:
        with trio.fail_after(40):
            await site.seen("/never")
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            told = b"".join([chunk async for chunk in process.stderr])
            await process.wait()
    assert (process.returncode, told) == (130, b"")
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    assert list(tmp_path.iterdir()) == []


# ---- What is not dropped without a word ------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--wait-for", "--timeout-ms", "--max-pixels"])
def test_flag_given_twice_is_a_fault(quiet: None, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scrape", "a.b", flag, "1", flag, "2"]) == 2
    assert "is given twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "flags", "reason"),
    [("a.gif", [], "no format is named .gif"), ("a.png", ["--format", "jpeg"], ".png contradicts --format jpeg")],
)
def test_name_that_lies_about_the_format_is_a_fault(
    quiet: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, flags: list[str], reason: str
) -> None:
    assert main(["screenshot", "a.b", "-o", str(tmp_path / name), *flags]) == 2
    assert reason in capsys.readouterr().err


async def test_terminated_capture_leaves_nothing(site: Site, tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "scrape", site.url("/never"), *NETWORK]
    process = await trio.lowlevel.open_process(command, env=os.environ | {"TMPDIR": str(tmp_path)})
    with trio.fail_after(40):
        await site.seen("/never")
        process.terminate()
        await process.wait()
    assert (process.returncode, list(tmp_path.iterdir())) == (143, [])
