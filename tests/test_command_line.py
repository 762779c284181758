"""The command line: flags into requests and settings, faults and exit codes, and captures without a server."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
import trio.testing
from PIL import Image

import cdp
import cleariflow
from cdp.errors import LaunchError
from cdp.options import Auth, Clip, Cookie, Geolocation, Resize, Viewport, Wait, WaitFor
from cdp.scrape import Part
from cdp.validation import fields_of
from cleariflow import (
    COMMANDS,
    ERROR_CODES,
    EXIT_CODES,
    EXITS,
    KEY_ACTIONS,
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
    faults: dict[str, Exception]
    """By the paths of URLs."""
    alone = 0
    """Browsers that were asked for one page only."""

    @property
    def urls(self) -> list[str | None]:
        return [request.url for request, _ in self]


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Captured:
    """Captures without a browser."""
    captured = Captured()
    captured.parts = {"image": Part(b"DATA", "image/png")}
    captured.faults = {}
    settings: dict[str, Any] = {}

    class FakePool:
        open_page = None
        available = True

        @asynccontextmanager
        async def alone(self) -> AsyncIterator[None]:
            captured.alone += 1
            yield

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
        fault = captured.faults.get((parsed.url or "").rpartition("/")[2], captured.fault)
        if fault is not None:
            raise fault
        meta = {"width": 1, "height": 2, "elapsed_ms": 3, "warnings": ["a warning"]}
        return Output(captured.parts, meta)

    monkeypatch.setattr(cdp, "open_browser", open_browser)
    monkeypatch.setattr(cdp, "open_pool", open_pool)
    monkeypatch.setattr(cleariflow, "attempt", attempt)
    # The handlers of this process are pytest's.
    monkeypatch.setattr(cleariflow, "set_up_logging", lambda *_: None)
    monkeypatch.setattr(cleariflow, "RETRY_DELAYS_S", (0.0,) * 5)
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


def shown_help(*arguments: str) -> str:
    """What the program prints of a help text, 80 columns wide."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(StringIO()) as shown:
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--help"])
    assert caught.value.code == 0
    return shown.getvalue()


@pytest.mark.parametrize("service", REQUEST_CLASSES)
def test_help_has_every_field_once(service: ServiceName) -> None:
    # A flag begins its line.
    flags = re.findall(r"^  (?:-\w \w+, )?--([a-z_.-]+)", shown_help(service), re.MULTILINE)
    fields = [name.replace("_", "-") for name in fields_of(REQUEST_CLASSES[service]) if name not in ("url", "api_key")]
    assert {name: flags.count(name) for name in fields} == dict.fromkeys(fields, 1)


@pytest.mark.parametrize("service", REQUEST_CLASSES)
def test_help_has_no_api_key(service: ServiceName) -> None:
    # There is nobody to show it to.
    assert "--api-key" not in shown_help(service)


HELP_TEXTS = [(), *((command,) for command in COMMANDS), *(("keys", action) for action in KEY_ACTIONS)]


@pytest.mark.parametrize("arguments", HELP_TEXTS, ids=" ".join)
def test_help_fits_the_terminal(arguments: tuple[str, ...]) -> None:
    assert [line for line in shown_help(*arguments).splitlines() if len(line) > 80] == []


def test_help_names_every_command() -> None:
    assert [command for command in COMMANDS if f"\n  {command} " not in shown_help()] == []


@pytest.mark.parametrize("service", REQUEST_CLASSES)
def test_help_of_captures_has_every_exit_code(service: ServiceName) -> None:
    told = shown_help(service).partition("exit codes")[2]
    assert re.findall(r"^  (\d+) ", told, re.MULTILINE) == [str(code) for code in EXITS]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("screenshot",), "the picture's encoding (default: jpeg)"),
        (("screenshot",), "of jpeg and webp, 80 by default (1 to 100)"),
        (("screenshot",), "--full-page               the whole page"),
        (("serve",), "queued jobs; more are refused with 429 (1 to 1,000,000; default: 10000)"),
    ],
)
def test_help_tells_limits_and_defaults(arguments: tuple[str, ...], text: str) -> None:
    assert text in re.sub(r"\n {20,}", " ", shown_help(*arguments))


def test_every_exit_code_of_a_failure_is_of_a_known_one() -> None:
    assert EXIT_CODES.keys() <= {*ERROR_CODES, "no_browser"}


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
    assert main(["scrape", "a.b", "--wait_ms", "5", "--viewport.device_scale_factor=2", "--viewport.mobile"]) == 0
    assert (only(captured).wait_ms, only(captured).viewport.device_scale_factor) == (5, 2)


def test_words_of_a_list_may_be_written_with_commas(captured: Captured) -> None:
    assert main(["scrape", "a.b", "--block-resources", "image,font"]) == 0
    assert only(captured).block_resources == ("image", "font")


def test_urls_may_stand_around_flags(captured: Captured) -> None:
    assert main(["scrape", "a.b", "--json", "c.d", "--javascript", "false", "e.f"]) == 0
    assert sorted(map(str, captured.urls)) == ["https://a.b/", "https://c.d/", "https://e.f/"]


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


def test_output_in_no_folder_is_a_fault(captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["screenshot", "a.b", "-o", f"{tmp_path}/no-such-folder/x.png"]) == 2
    assert capsys.readouterr().err.endswith("cannot be written: there is no such folder\n")
    assert captured == []


def test_output_that_cannot_be_written_is_told(
    captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.b.jpeg").mkdir()
    assert main(["screenshot", "a.b", "-o", f"{tmp_path}/"]) == 1
    assert capsys.readouterr().err == f"cleariflow: {tmp_path}/a.b.jpeg cannot be written: Is a directory\n"


def test_main_output_is_written_last(captured: Captured, tmp_path: Path) -> None:
    """Where it is, `-n` takes the others to be there, too."""
    captured.parts = PARTS
    (tmp_path / "x-links.json").mkdir()
    assert main(["scrape", "a.b", "-o", str(tmp_path / "x.html")]) == 1
    assert "x.html" not in files(tmp_path)


def test_json_has_names_that_are_no_utf8(captured: Captured, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = os.fsdecode(bytes(tmp_path) + b"/\xff/")
    assert main(["screenshot", "a.b", "-o", place, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["files"] == {"image": f"{place}a.b.jpeg"}


# ---- Several URLs ----------------------------------------------------------------------------------------------------

SEVERAL = ["a.b/c", "a.b/d/", "http://a.b/c"]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("new/folder/", ["new/folder/a.b-c-2.webp", "new/folder/a.b-c.webp", "new/folder/a.b-d.webp"]),
        (".", ["a.b-c-2.webp", "a.b-c.webp", "a.b-d.webp"]),
        ("{host}/{number}", ["a.b/1.webp", "a.b/2.webp", "a.b/3.webp"]),
        ("x-{host}.webp", ["x-a.b-2.webp", "x-a.b-3.webp", "x-a.b.webp"]),
        ("{name}.webp", ["a.b-c-2.webp", "a.b-c.webp", "a.b-d.webp"]),
    ],
)
def test_files_are_named_by_their_urls(captured: Captured, tmp_path: Path, place: str, names: list[str]) -> None:
    assert main(["screenshot", *SEVERAL, "-o", f"{tmp_path}/{place}", "--format", "webp"]) == 0
    assert files(tmp_path) == names


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        ("html", ["document.html"]),
        ("links,markdown", ["document-markdown.md", "document.json"]),
        ("screenshot,text", ["document-screenshot.jpeg", "document.txt"]),
    ],
)
def test_ending_is_that_of_the_main_output(captured: Captured, tmp_path: Path, outputs: str, names: list[str]) -> None:
    every = {
        "html": Part(b"", "text/html; charset=utf-8"),
        "text": Part(b"", "text/plain; charset=utf-8"),
        "links": Part(b"", "application/json; charset=utf-8"),
        "markdown": Part(b"", "text/markdown; charset=utf-8"),
        "screenshot": Part(b"", "image/jpeg"),
    }
    wanted = sorted(outputs.split(","), key=lambda name: name == "screenshot")
    captured.parts = {name: every[name] for name in wanted}
    assert main(["scrape", "--html", "<p>", "-o", f"{tmp_path}/", "--outputs", outputs]) == 0
    assert files(tmp_path) == names


def test_numbers_are_as_wide_as_the_largest(captured: Captured, tmp_path: Path) -> None:
    assert main(["scrape", *["a.b"] * 10, "-o", f"{tmp_path}/{{number}}.html"]) == 0
    assert (files(tmp_path)[0], files(tmp_path)[-1]) == ("01.html", "10.html")


def test_urls_come_from_a_file(captured: Captured, tmp_path: Path) -> None:
    file = tmp_path / "urls.txt"
    file.write_text("\ufeff# a comment\na.b/1\n\n  # a comment\n  a.b/2#fragment  \r\n")
    assert main(["scrape", "a.b/0", "-i", str(file), "--json", "-j", "1"]) == 0
    assert captured.urls == ["https://a.b/0", "https://a.b/1", "https://a.b/2#fragment"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read: No such file"), (b"# nothing\n", "has no URL"), (b"a.b\n\xff", "it is not UTF-8")],
)
def test_file_without_urls_is_a_fault(
    captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "urls").write_bytes(content)
    assert main(["scrape", "--urls", str(tmp_path / "urls")]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert reason in told


def test_so_many_captures_are_made_at_once(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, at_once, most = cleariflow.attempt, 0, 0

    async def attempt(*arguments: Any, **others: Any) -> Output:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await trio.testing.wait_all_tasks_blocked()
        at_once -= 1
        return await inner(*arguments, **others)

    monkeypatch.setattr(cleariflow, "attempt", attempt)
    assert main(["scrape", *["a.b"] * 5, "--json", "--jobs", "3"]) == 0
    assert (most, len(captured)) == (3, 5)


def test_existing_file_is_replaced(captured: Captured, tmp_path: Path) -> None:
    (tmp_path / "a.b.jpeg").write_bytes(b"old")
    assert main(["screenshot", "a.b", "-o", f"{tmp_path}/"]) == 0
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"DATA"]


def test_existing_file_may_be_left(captured: Captured, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.b.jpeg").write_bytes(b"old")
    assert main(["screenshot", "a.b", "c.d", "-o", f"{tmp_path}/", "-n", "--json", "-q", "-j", "1"]) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.b.jpeg": b"old", "c.d.jpeg": b"DATA"}
    assert json.loads(capfd.readouterr().out.splitlines()[0]) == {
        "url": "https://a.b/",
        "ok": True,
        "files": {"image": f"{tmp_path}/a.b.jpeg"},
        "skipped": True,
    }


def test_json_has_the_results_without_a_place(captured: Captured, capfd: pytest.CaptureFixture[str]) -> None:
    captured.faults = {"bad": JobFailed("timeout", "timeout after 5 ms")}
    assert main(["screenshot", "a.b/good", "a.b/bad", "--json", "-j", "1"]) == 4
    good, bad = map(json.loads, capfd.readouterr().out.splitlines())
    assert good == {
        "url": "https://a.b/good",
        "ok": True,
        "image_base64": "REFUQQ==",
        "content_type": "image/png",
        "meta": {"width": 1, "height": 2, "elapsed_ms": 3, "warnings": ["a warning"]},
    }
    error = {"code": "timeout", "message": "timeout after 5 ms"}
    assert bad == {"url": "https://a.b/bad", "ok": False, "error": error}


def test_json_has_the_files_with_a_place(captured: Captured, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    captured.parts = PARTS
    assert main(["scrape", "http://u:p@x.y", "-o", str(tmp_path / "x.html"), "--json"]) == 0
    (line,) = map(json.loads, capfd.readouterr().out.splitlines())
    assert (line["url"], line["ok"], line["meta"]["elapsed_ms"]) == ("http://x.y/", True, 3)
    names = {"html": "x.html", "links": "x-links.json", "a.b": "x-a.b.png"}
    assert line["files"] == {name: f"{tmp_path}/{file}" for name, file in names.items()}


def test_each_failure_names_its_url(captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captured.faults = {"1": JobFailed("timeout", "timeout after 5 ms"), "2": JobFailed("internal", "no\x1b[2J luck")}
    assert main(["scrape", "a.b/1", "a.b/2", "a.b/3", "-o", f"{tmp_path}/", "-q", "-j", "1"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "cleariflow: https://a.b/1: timeout after 5 ms",
        "cleariflow: https://a.b/2: no\\x1b[2J luck",
    ]
    assert files(tmp_path) == ["a.b-3.html"]


def test_failure_that_is_a_bug_costs_its_own_capture(
    captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    captured.faults = {"1": ZeroDivisionError("a bug")}
    assert main(["scrape", "a.b/1", "a.b/2", "-o", f"{tmp_path}/", "-j", "1"]) == 1
    assert "internal error" in capsys.readouterr().err
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]
    assert files(tmp_path) == ["a.b-2.html"]


def test_missing_browser_is_told_once(captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captured.fault = LaunchError("no Chromium was found: install one")
    assert main(["scrape", "a.b/1", "a.b/2", "-o", f"{tmp_path}/"]) == 6
    assert capsys.readouterr().err == "cleariflow: no Chromium was found: install one\n"


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        (["navigation_failed", "http_error", "not_a_page"], 3),
        (["timeout", "timeout"], 4),
        (["blocked_target"], 5),
        (["browser_lost"], 6),
        (["selector_not_found", "action_failed", "script_error"], 7),
        (["invalid_request"], 2),
        (["too_large", "page_crashed", "internal"], 1),
        (["timeout", "blocked_target"], 1),
        ([], 0),
    ],
)
def test_exit_code_is_of_the_kind_of_failure(captured: Captured, faults: list[str], code: int) -> None:
    captured.faults = {str(number): JobFailed(fault, "it failed") for number, fault in enumerate(faults)}
    urls = [f"a.b/{number}" for number in range(len(faults))]
    assert main(["scrape", *urls, "a.b/good", "--json", "-q"]) == code


@pytest.mark.parametrize(("retries", "attempts"), [("0", 1), ("2", 3)])
def test_retries_are_made(captured: Captured, retries: str, attempts: int) -> None:
    captured.fault = JobFailed("timeout", "timeout after 5 ms")
    assert main(["scrape", "a.b", "--retries", retries]) == 4
    assert len(captured) == attempts


def test_lost_browser_costs_no_retry(captured: Captured) -> None:
    captured.fault = JobFailed("browser_lost", "the browser ended")
    assert main(["scrape", "a.b"]) == 6
    assert (len(captured), captured.alone) == (4, 2)


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
            [
                "scrape",
                "a.b",
                "--fromat=png",
                "--time-out",
                "5",
                "ftp://a.b",
                "--wait-ms",
                "x",
                "-j",
                "0",
                "-o",
                "{nam}",
            ],
            [
                "cleariflow: --fromat: unknown flag",
                "cleariflow: --time-out: unknown flag; did you mean --timeout-ms?",
                "cleariflow: --workers (CLEARIFLOW_WORKERS): must be at least 1 and at most 256, not 0",
                "cleariflow: -o: {nam} is unknown: {name}, {host} and {number} are known",
                "cleariflow: URL 2: scheme 'ftp' is not allowed; http and https are",
                "cleariflow: wait_ms: must be an integer, not a text",
            ],
        ),
        (
            ["scrape", "a.b", "c.d"],
            [
                "cleariflow: -o: is required for several URLs: a folder (-o results/) or a pattern (-o "
                "'{host}-{number}.png')"
            ],
        ),
        (
            ["scrape", "a.b", "c.d", "-o", "x.html"],
            ["cleariflow: -o: 'x.html' is one file: a folder ends with a slash, and a pattern has {name} or {number}"],
        ),
        (["screnshot", "a.b"], ["cleariflow: there is no such command; did you mean screenshot?"]),
        (["print"], [f"cleariflow: there is no such command; there are {', '.join(COMMANDS)}"]),
        (["serve", "a.b"], ["cleariflow: serve takes no further arguments"]),
        (["--prot", "5"], ["cleariflow: --prot: unknown flag; did you mean --port?"]),
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
        ["scrape", "a.b", "--timeout", "5"],
        ["--disk-quota", "5"],
        ["--api-key", "x"],
        ["--wait-ms", "5"],
    ],
)
def test_unknown_flag_is_refused(captured: Captured, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert "unknown flag" in capsys.readouterr().err
    assert captured == []


@pytest.mark.parametrize("arguments", [["keys", "make"], ["keys"], ["scrape", "a.b", "--wait-ms"]])
def test_what_argparse_refuses_is_wrong_usage(captured: Captured, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_line_of_a_wrong_url_is_told(captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "urls").write_text("a.b\n\nhttp://user:secret@\nx y\n")
    assert main(["scrape", "-i", str(tmp_path / "urls"), "--json"]) == 2
    told = capsys.readouterr().err
    assert re.findall("--urls line ([0-9])", told) == ["3", "4"]
    assert "secret" not in told


@pytest.mark.parametrize(
    ("fault", "code"),
    [(JobFailed("timeout", "timeout after 5 ms"), 4), (LaunchError("no Chromium was found"), 6)],
    ids=["job", "launch"],
)
def test_failed_capture_is_told_and_leaves_nothing(
    captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Exception, code: int
) -> None:
    captured.fault = fault
    assert main(["screenshot", "a.b", "-o", str(tmp_path / "x.png")]) == code
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
    assert (done.returncode, done.stdout, site.requests) == (5, b"", [])
    assert done.stderr.startswith(b"cleariflow: blocked target")


async def test_failed_capture_shows_no_traceback(site: Site) -> None:
    done = await run("scrape", site.url("/reset"), *NETWORK)
    assert (done.returncode, done.stderr) == (3, b"cleariflow: navigation failed: net::ERR_CONNECTION_RESET\n")


async def test_missing_browser_says_what_to_do(tmp_path: Path) -> None:
    done = await run("scrape", "a.b", "--browser", str(tmp_path / "no-browser"))
    assert (done.returncode, len(done.stderr.splitlines())) == (6, 1)
    assert b"no-browser" in done.stderr
    assert b"apt install" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["serve", "--help"]])
async def test_help_is_shown(arguments: list[str]) -> None:
    done = await run(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"usage: cleariflow" in done.stdout


async def test_urls_of_standard_input_are_captured_on_one_browser(site: Site, tmp_path: Path) -> None:
    urls = [site.url(path) for path in ("/ok", "/reset", "/tall", "/ok?again")]
    command = [sys.executable, str(PROGRAM), "screenshot", "-i", "-", "-o", f"{tmp_path}/", "--format", "png", "--json"]
    with trio.fail_after(40):
        done = await trio.run_process(
            [*command, *NETWORK], stdin="\n".join(urls).encode(), capture_stdout=True, capture_stderr=True, check=False
        )
    lines = {line["url"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert (done.returncode, lines.keys()) == (3, set(urls))
    assert lines[urls[1]]["error"]["code"] == "navigation_failed"
    host = urls[0].removeprefix("http://").removesuffix("/ok").replace(":", "-")
    assert files(tmp_path) == [f"{host}-{end}.png" for end in ("ok-again", "ok", "tall")]
    assert lines[urls[3]]["files"] == {"image": f"{tmp_path}/{host}-ok-again.png"}
    assert {path.read_bytes()[:4] for path in tmp_path.iterdir()} == {b"\x89PNG"}
    # One line each, and no bar where stderr is no terminal.
    assert len(done.stderr.splitlines()) == 4
    assert b"\r" not in done.stderr


def read_terminal(ours: int) -> bytes:
    """All that is shown until nobody has the terminal open."""
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):
        # EIO is its end.
        while chunk := terminal.read(4096):
            shown += chunk
    return shown


async def test_bar_is_on_a_terminal(site: Site, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, str(PROGRAM), "scrape", site.url("/ok"), site.url("/reset"), "-o", f"{tmp_path}/"]
    with trio.fail_after(40):
        process = await trio.lowlevel.open_process([*command, *NETWORK], stderr=theirs)
        os.close(theirs)
        shown = await trio.to_thread.run_sync(read_terminal, ours)
        assert await process.wait() == 3
    assert b"0/2" in shown
    assert b"/ok: navigate" in shown
    assert b"1/2" in shown
    # The cursor is back.
    assert b"\x1b[?25l" not in shown.rpartition(b"\x1b[?25h")[2]
    assert shown.endswith(b"1 done, 1 failed, of 2\r\n")


def test_captures_go_on_when_nobody_reads_what_is_told(
    captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    code = None
    # Closing it fails, too.
    with contextlib.suppress(BrokenPipeError), open(theirs, "w") as nobody:
        monkeypatch.setattr(sys, "stderr", nobody)
        code = main(["scrape", "a.b/1", "a.b/2", "-o", f"{tmp_path}/"])
    assert (code, files(tmp_path)) == (0, ["a.b-1.html", "a.b-2.html"])


async def test_end_of_the_reader_ends_quietly(site: Site) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, str(PROGRAM), "scrape", site.url("/ok"), site.url("/never"), "--json", "-q", *NETWORK]
    with os.fdopen(theirs, "wb") as pipe, trio.fail_after(40):
        done = await trio.run_process(command, stdout=pipe, capture_stderr=True, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


FAILING = [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]


async def shell(redirection: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The program's end where the shell has redirected its standard streams."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, str(PROGRAM), *arguments]
    # Without a buffer argparse fails to write the text, and says nothing.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with trio.fail_after(40):
        return await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, env=environment)


@pytest.mark.parametrize(("redirection", "reason"), FAILING, ids=["full", "closed"])
async def test_text_that_cannot_be_shown_is_told(redirection: str, reason: str) -> None:
    done = await shell(redirection, "--version")
    assert (done.returncode, done.stderr.decode()) == (1, f"cleariflow: standard output: {reason}\n")


@pytest.mark.parametrize(("redirection", "reason"), FAILING, ids=["full", "closed"])
async def test_result_that_cannot_be_shown_is_told(site: Site, redirection: str, reason: str) -> None:
    done = await shell(redirection, "scrape", site.url("/ok"), "--render", "false", "-q", *NETWORK)
    told = f"cleariflow: standard output cannot be written: {reason}\n"
    assert (done.returncode, done.stderr.decode()) == (1, told)


async def test_key_that_cannot_be_shown_is_told(tmp_path: Path) -> None:
    done = await shell(">/dev/full", "keys", "add", "anna", "--data-dir", str(tmp_path))
    assert (done.returncode, done.stderr.decode().splitlines()) == (
        1,
        [
            "cleariflow: nobody has seen the key: revoke anna and add it again",
            "cleariflow: standard output: No space left on device",
        ],
    )


async def test_urls_of_a_closed_standard_input_are_a_fault() -> None:
    done = await shell("<&-", "scrape", "-i", "-")
    assert (done.returncode, done.stderr) == (2, b"cleariflow: --urls: '-' cannot be read: Bad file descriptor\n")


async def test_closed_standard_error_changes_nothing(site: Site) -> None:
    done = await shell("2>&-", "scrape", site.url("/ok"), "--render", "false", *NETWORK)
    assert (done.returncode, done.stdout.decode().count(OK_TEXT), done.stderr) == (0, 1, b"")
    assert b"bytes" not in done.stdout


async def test_scrape_by_plain_fetches_needs_no_browser(site: Site, tmp_path: Path) -> None:
    done = await run("scrape", site.url("/ok"), "--render", "false", "--browser", str(tmp_path / "none"), *NETWORK)
    assert (done.returncode, OK_TEXT in done.stdout.decode()) == (0, True)


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


async def test_terminated_run_leaves_whole_files_only(site: Site, tmp_path: Path) -> None:
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    urls = [site.url("/ok"), site.url("/never"), site.url("/never?again")]
    command = [sys.executable, str(PROGRAM), "scrape", *urls, "-o", f"{out}/", "-j", "3", *NETWORK]
    environment = os.environ | {"TMPDIR": str(temporary)}
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE, env=environment)
    assert process.stderr is not None
    with trio.fail_after(40):
        # It tells of the first.
        assert b"text/html" in await process.stderr.receive_some()
        await site.seen("/never")
        process.terminate()
        await process.wait()
    assert (process.returncode, list(temporary.iterdir())) == (143, [])
    assert [OK_TEXT in path.read_text() for path in out.iterdir()] == [True]
