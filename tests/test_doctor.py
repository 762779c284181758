"""`cleariflow doctor`: what it finds on a good system, and on one where this or that is missing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import socket
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

import cleariflow
from cdp import doctor
from cdp.doctor import Finding
from cdp.launcher import SHARED_MEMORY_BYTES, find_browser
from cdp.proxy import Proxy
from cleariflow import DISK_RESERVE_BYTES, Config, examine_port, main
from tests.test_http import open_api, serve_api

LIBERATION = "<dir>/usr/share/fonts/truetype/liberation</dir><dir>/usr/share/fonts/truetype/liberation2</dir>"
NO_SANDBOX = "Chromium has none for root"


def levels(findings: list[Finding]) -> dict[str, str]:
    """The worst of each subject."""
    order = ("ok", "warning", "error")
    return {
        one.subject: max((other.level for other in findings if other.subject == one.subject), key=order.index)
        for one in findings
    }


async def of_browser(**given: Any) -> list[Finding]:
    findings: list[Finding] = []
    await doctor.examine_browser(findings.append, given.pop("name", None), **given)
    return findings


# ---- Real browsers ---------------------------------------------------------------------------------------------------


async def test_good_browser_draws_everything() -> None:
    findings = await of_browser()
    seen = levels(findings)
    sandbox = seen.pop("sandbox")
    assert seen == {"browser": "ok", "picture": "ok", "fonts": "ok"}
    assert (sandbox == "ok") == (os.geteuid() != 0)
    assert [one for one in findings if one.subject == "browser" and str(find_browser()) in one.text]


@pytest.mark.parametrize(
    ("fonts", "seen", "packages"),
    [
        (
            LIBERATION,
            {"picture": "ok", "fonts": "warning"},
            ["fonts-noto-cjk", "fonts-noto-core", "fonts-noto-color-emoji"],
        ),
        (
            "",
            {"picture": "error", "fonts": "warning"},
            ["fonts-liberation", "fonts-noto-cjk", "fonts-noto-core", "fonts-noto-color-emoji"],
        ),
    ],
    ids=["Latin only", "none"],
)
async def test_missing_fonts_are_found(
    fonts: str, seen: dict[str, str], packages: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "fonts.conf"
    settings.write_text(f"<fontconfig>{fonts}<cachedir>{tmp_path}</cachedir></fontconfig>")
    monkeypatch.setenv("FONTCONFIG_FILE", str(settings))
    findings = [one for one in await of_browser() if one.subject in seen]
    assert levels(findings) == seen
    assert [one.mend for one in findings if one.level != "ok"] == [f"apt install {package}" for package in packages]


async def test_missing_browser_is_found(tmp_path: Path) -> None:
    (finding,) = await of_browser(name=str(tmp_path / "none"))
    assert (finding.level, finding.subject) == ("error", "browser")
    assert "apt install chromium-headless-shell" in str(finding.mend)


async def test_browser_that_ends_at_once_is_found(tmp_path: Path) -> None:
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\necho 'error while loading shared libraries: libnss3.so' >&2\nexit 127\n")
    broken.chmod(0o700)
    (finding,) = await of_browser(name=str(broken))
    assert finding.level == "error"
    assert "libnss3.so" in finding.text
    assert "it brings the libraries" in str(finding.mend)


# ---- Judgements ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "level"), [("HeadlessChrome/156.0.1.2", "ok"), ("Chrome/99.0.4844.51", "warning"), ("Fork", "ok")]
)
def test_old_browser_is_found(product: str, level: str) -> None:
    finding = doctor.judge_version(Path("/usr/bin/chromium"), product)
    assert (finding.level, product in finding.text, finding.mend is None) == (level, True, level == "ok")


def test_sandbox_of_root_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--user" in str(doctor.judge_sandbox(NO_SANDBOX, ()).mend)


def test_sandbox_that_a_switch_takes_is_explained() -> None:
    assert doctor.judge_sandbox("--no-sandbox is given", ["--no-sandbox"]).mend == "leave --no-sandbox out"


@pytest.mark.parametrize(
    ("setting", "value", "command"),
    [
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_setting_that_forbids_the_sandbox_is_named(
    setting: str, value: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "sys" / setting).parent.mkdir(parents=True)
    (tmp_path / "sys" / setting).write_text(f"{value}\n")
    finding = doctor.judge_sandbox("it takes user namespaces", (), tmp_path)
    assert (finding.level, str(finding.mend).partition(",")[0]) == ("warning", command)


def test_seccomp_filter_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "seccomp=FILE" in str(doctor.judge_sandbox("a seccomp filter forbids it", (), tmp_path).mend)


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (doctor.judge_shared_memory(SHARED_MEMORY_BYTES), "ok"),
        (doctor.judge_shared_memory(2**26), "warning"),
        (doctor.judge_shared_memory(0), "warning"),
        (doctor.judge_files(1000, 1000), "ok"),
        (doctor.judge_files(resource.RLIM_INFINITY, 1000), "ok"),
        (doctor.judge_files(999, 1000), "warning"),
        (doctor.judge_processes(None), "ok"),
        (doctor.judge_processes(doctor.FEWEST_PROCESSES), "ok"),
        (doctor.judge_processes(100), "warning"),
        (doctor.judge_memory(2**31), "ok"),
        (doctor.judge_memory(2**29), "warning"),
        (doctor.judge_clock(datetime.now(UTC)), "ok"),
        (doctor.judge_clock(datetime(1970, 1, 2, tzinfo=UTC)), "error"),
    ],
)
def test_what_is_too_little_is_found(finding: Finding, level: str) -> None:
    assert (finding.level, finding.mend is None) == (level, level == "ok")


def test_this_system_can_be_examined() -> None:
    assert {one.subject for one in doctor.examine_system(10)} >= {"shared memory", "open files", "memory", "clock"}


@pytest.mark.parametrize("line", ["0::/own", "3:pids:/own"])
def test_narrowest_control_group_counts(line: str, tmp_path: Path) -> None:
    membership, folder = tmp_path / "cgroup", tmp_path / ("pids" if "pids" in line else "")
    membership.write_text(f"2:cpu:/other\n{line}\n")
    for group, most in ((folder, "900"), (folder / "own", "300"), (tmp_path / "other", "1")):
        group.mkdir(parents=True, exist_ok=True)
        (group / "pids.max").write_text(f"{most}\n")
        (group / "pids.current").write_text("40\n")
    assert doctor.processes_left(tmp_path, membership) == 260
    (folder / "own" / "pids.max").write_text("max\n")
    assert doctor.processes_left(tmp_path, membership) == 860


async def test_proxy_that_answers_is_found() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        proxy = Proxy.parse(f"http://anna:hush@127.0.0.1:{listener.socket.getsockname()[1]}")
        finding = await doctor.examine_proxy(proxy)
    assert finding.level == "ok"


async def test_proxy_that_is_not_there_is_found() -> None:
    finding = await doctor.examine_proxy(Proxy.parse("socks5://anna:hush@127.0.0.1:1"))
    assert (finding.level, "hush" in str(finding)) == ("error", False)


# ---- The data folder and the port ------------------------------------------------------------------------------------


def folder_levels(folder: Path, budget_bytes: int = 1) -> dict[str, str]:
    return levels(list(doctor.examine_folder(folder, DISK_RESERVE_BYTES, budget_bytes)))


@pytest.mark.parametrize("name", ["", "not/yet/made"])
def test_folder_that_can_be_written_is_good(tmp_path: Path, name: str) -> None:
    assert folder_levels(tmp_path / name) == {"data folder": "ok", "disk": "ok"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [Path("/proc/none"), Path("/dev/null")])
def test_folder_that_cannot_be_written_is_found(folder: Path) -> None:
    assert folder_levels(folder) == {"data folder": "error"}


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that this user may not enter; root may enter all, and is another meanwhile."""
    tmp_path.chmod(0)
    own = os.geteuid()
    os.seteuid(own or 65534)
    try:
        yield tmp_path
    finally:
        os.seteuid(own)
        tmp_path.chmod(0o700)


def test_folder_below_one_that_may_not_be_entered_is_found(closed: Path) -> None:
    assert folder_levels(closed / "x" / "y") == {"data folder": "error"}


def test_disk_with_too_little_room_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_levels(tmp_path, 2**60)["disk"] == "warning"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=DISK_RESERVE_BYTES - 1))
    assert folder_levels(tmp_path)["disk"] == "error"


def test_results_that_are_there_count_as_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=DISK_RESERVE_BYTES))
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "a.png").write_bytes(b"12345")
    assert folder_levels(tmp_path, DISK_RESERVE_BYTES + 5)["disk"] == "ok"
    assert folder_levels(tmp_path, DISK_RESERVE_BYTES + 6)["disk"] == "warning"


def test_slow_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SLOW_FSYNC_S", 0.0)
    assert folder_levels(tmp_path)["data folder"] == "warning"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens who is no HTTP server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_free_port_is_good(tmp_path: Path) -> None:
    finding = await examine_port(Config(data_dir=str(tmp_path), port=0))
    assert (finding.level, finding.text) == ("ok", "port 0 of 127.0.0.1 is free")


async def test_port_of_another_program_is_found(tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "LIVE_S", 0.1)
    finding = await examine_port(Config(data_dir=str(tmp_path), port=taken))
    assert (finding.level, f"'sport = :{taken}'" in str(finding.mend)) == ("error", True)


async def test_port_that_resets_connections_is_found(tmp_path: Path) -> None:
    async def reset(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, reset, [listener])
        finding = await examine_port(Config(data_dir=str(tmp_path), port=listener.socket.getsockname()[1]))
        nursery.cancel_scope.cancel()
    assert (finding.level, finding.subject) == ("error", "port")


async def test_port_that_answers_endlessly_is_left(tmp_path: Path) -> None:
    sent = 0

    async def chat(stream: trio.SocketStream) -> None:
        nonlocal sent
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"x" * 2**16)
                sent += 2**16

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, chat, [listener])
        finding = await examine_port(Config(data_dir=str(tmp_path), port=listener.socket.getsockname()[1]))
        nursery.cancel_scope.cancel()
    assert finding.level == "error"
    # Kernel buffers take a part of it.
    assert sent < 2**24


async def test_port_of_a_running_service_is_good(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api, serve_api(api) as server:
        finding = await examine_port(Config(data_dir=str(tmp_path), port=server.port))
    assert (finding.level, "this data folder" in finding.text) == ("ok", True)


async def test_service_at_another_port_is_told(tmp_path: Path) -> None:
    async with open_api(tmp_path):
        finding = await examine_port(Config(data_dir=str(tmp_path), port=0))
        assert (finding.level, "runs at another" in finding.text) == ("ok", True)


# ---- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the browser, which other tests start; and the logs as they are."""

    async def look(tell: doctor.Tell, *_: object, **__: object) -> None:
        tell(Finding("browser", "ok", "a\nbrowser"))

    monkeypatch.setattr(doctor, "examine_browser", look)
    monkeypatch.setattr(cleariflow, "set_up_logging", lambda *_: None)


def flags(tmp_path: Path) -> list[str]:
    return ["--data-dir", str(tmp_path), "--disk-budget", "1", "--port", "0"]


def test_good_system_gives_exit_code_0(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *flags(tmp_path)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert f"ok       data folder    {tmp_path} can be written" in told[1]
    assert told[-1] == r"ok       browser        a\nbrowser"


def test_error_gives_exit_code_1(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *flags(Path("/proc/none"))]) == 1
    told = capsys.readouterr().out
    assert "error    data folder    /proc/none cannot be written" in told
    assert "-> chown -R" in told


def test_faults_of_settings_are_findings(
    quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARIFLOW_PROXY", "ftp://anna:hush@127.0.0.1:1")
    monkeypatch.setenv("CLEARIFLOW_ODD", "1")
    given = ["--host", "0.0.0.0", "--ca-file", "/none", "--workers", "many"]
    assert main(["doctor", "--json", *flags(tmp_path), *given]) == 1
    out = capsys.readouterr().out
    found = json.loads(out)
    faults = [one["text"] for one in found["findings"] if one["subject"] == "settings"]
    assert (found["ok"], len(faults), "hush" in out) == (False, 5, False)
    for name in ("--host", "--ca-file", "--workers", "--proxy", "CLEARIFLOW_ODD"):
        assert [text for text in faults if name in text]
    # What has no fault counts.
    assert str(tmp_path) in out


def test_warning_gives_exit_code_0(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--data-dir", str(tmp_path), "--port", "0", "--disk-budget", str(2**60)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["level"] for one in found["findings"]} >= {"ok", "warning"}


def test_doctor_takes_no_other_words(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--full-page"]) == 2
    assert "--full-page" in capsys.readouterr().err


async def test_running_service_is_left_alone(tmp_path: Path) -> None:
    """The look at its lock neither takes nor loses it."""
    async with open_api(tmp_path) as api:
        await examine_port(Config(data_dir=str(tmp_path), port=0))
        await api.ended()
        with open(tmp_path / "jobs.journal", "rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
