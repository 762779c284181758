"""cdp/launcher.py: real browsers, and shell scripts in their place for what a real one does not do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import trio

from cdp import launcher
from cdp.errors import LaunchError
from cdp.launcher import STDERR_CHUNK_BYTES, STDERR_CHUNKS, find_browser, launch

QUICK_S = 20
"""Far longer than anything here takes: only a hang gets there."""
LISTENS = 'echo "DevTools listening on ws://127.0.0.1:9/devtools/browser/A" >&2'

FULL_CHROMIUM = pytest.param(
    "chromium", marks=pytest.mark.skipif(not shutil.which("chromium"), reason="full Chromium is not installed")
)

Script = Callable[[str], Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Makes an executable of a few lines of shell."""

    def make(lines: str, name: str = "stand-in-headless") -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """Where profile folders are made."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    return folder


def group(pgid: int) -> list[psutil.Process]:
    """The living processes of a process group."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pgid and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


# Finding


def test_find_browser_gives_a_binary_and_no_wrapper_script() -> None:
    with find_browser().open("rb") as file:
        assert file.read(4) == b"\x7fELF"


@pytest.mark.parametrize("name", [FULL_CHROMIUM])
def test_find_browser_gives_the_binary_of_a_wrapper_that_is_named(name: str) -> None:
    with find_browser(name).open("rb") as file:
        assert file.read(4) == b"\x7fELF"


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        (["chromium", "chromium-headless-shell"], "chromium-headless-shell"),
        (["google-chrome", "chromium"], "chromium"),
        (["google-chrome-stable"], "google-chrome-stable"),
    ],
)
def test_find_browser_prefers_the_headless_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[..., Path], installed: list[str], expected: str
) -> None:
    for name in installed:
        script("exit 0", name)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser() == tmp_path / expected


def test_find_browser_takes_a_path(script: Script) -> None:
    path = script("exit 0")
    assert find_browser(str(path)) == path


def test_find_browser_takes_a_name_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
    path = script("exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser("stand-in-headless") == path


def test_find_browser_names_the_missing_one() -> None:
    with pytest.raises(LaunchError, match=r"'/nowhere/chromium'.*--browser"):
        find_browser("/nowhere/chromium")


def test_find_browser_tells_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="apt install chromium-headless-shell"):
        find_browser()


# Starting


async def test_launch_gives_an_endpoint_that_listens(profiles: Path) -> None:
    async with launch(find_browser(), profile_root=profiles) as process:
        host, _, port = process.endpoint.removeprefix("ws://").partition("/")[0].partition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.aclose()


@pytest.mark.parametrize("name", [None, FULL_CHROMIUM])
async def test_launch_starts_in_a_folder_with_a_long_name(tmp_path: Path, name: str | None) -> None:
    # Full Chromium makes a Unix socket below TMPDIR, whose path ends at 107 bytes.
    root = tmp_path / ("a" * 100)
    root.mkdir()
    async with launch(find_browser(name), profile_root=root) as process:
        assert process.endpoint


async def test_launch_gives_the_pid_of_the_browser_itself(profiles: Path) -> None:
    async with launch(find_browser(), profile_root=profiles) as process:
        assert Path(psutil.Process(process.pid).exe()) == find_browser()


async def test_launch_reads_an_endpoint_that_comes_in_pieces(script: Script) -> None:
    # The pause only makes it likely that the pieces are read one by one.
    pieces = r"printf 'DevTools listening on ws://127.0.0.1:4' >&2; sleep 0.2; printf '000/devtools/browser/A\n' >&2"
    with trio.fail_after(QUICK_S):
        async with launch(script(f"{pieces}; exec sleep 1000")) as process:
            assert process.endpoint == "ws://127.0.0.1:4000/devtools/browser/A"


async def test_launch_reads_an_endpoint_after_other_lines(script: Script) -> None:
    with trio.fail_after(QUICK_S):
        async with launch(script(f"yes something else | head -c 1000000 >&2; {LISTENS}; exec sleep 1000")) as process:
            assert process.endpoint == "ws://127.0.0.1:9/devtools/browser/A"


async def test_launch_tells_what_a_crashing_browser_said(script: Script) -> None:
    path = script("echo 'error while loading shared libraries: libnss3.so' >&2; exit 127")
    # Its end and its last words become known at the same moment, in either order: several tries to meet both.
    for _ in range(10):
        with pytest.raises(LaunchError, match=r"stand-in-headless ended at its start: error while .* libnss3\.so$"):
            async with launch(path):
                pass


async def test_launch_tells_that_a_silent_browser_crashed(script: Script) -> None:
    with pytest.raises(LaunchError, match=r"stand-in-headless ended at its start$"):
        async with launch(script("exit 1")):
            pass


async def test_launch_tells_only_the_end_of_a_long_complaint(script: Script) -> None:
    with pytest.raises(LaunchError, match=r"the last word$") as caught:
        async with launch(script("yes complaint | head -c 100000 >&2; echo the last word >&2; exit 1")):
            pass
    assert len(str(caught.value)) < 2500


async def test_launch_gives_up_a_browser_that_does_not_listen(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "START_TIMEOUT_S", 0.2)
    with pytest.raises(LaunchError, match=r"did not listen within 0\.2 s: still thinking$"):
        async with launch(script("echo still thinking >&2; exec sleep 1000")):
            pass


async def test_launch_names_an_executable_that_is_missing() -> None:
    with pytest.raises(LaunchError, match="/nowhere/chromium"):
        async with launch(Path("/nowhere/chromium")):
            pass


async def test_launch_without_setpriv_names_an_executable_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LaunchError, match="cannot start /nowhere/chromium"):
        async with launch(Path("/nowhere/chromium")):
            pass


async def test_launch_without_room_for_a_profile_is_a_launch_error(tmp_path: Path, script: Script) -> None:
    with pytest.raises(LaunchError, match="missing"):
        async with launch(script(LISTENS), profile_root=tmp_path / "missing"):
            pass


@pytest.mark.parametrize("lines", ["exit 1", "sleep 1000 & exec sleep 1000"])
async def test_launch_that_fails_leaves_no_profile(
    script: Script, profiles: Path, monkeypatch: pytest.MonkeyPatch, lines: str
) -> None:
    monkeypatch.setattr(launcher, "START_TIMEOUT_S", 0.2)
    with pytest.raises(LaunchError):
        async with launch(script(lines), profile_root=profiles):
            pass
    assert list(profiles.iterdir()) == []


async def test_launch_that_fails_leaves_no_process(script: Script, tmp_path: Path) -> None:
    with pytest.raises(LaunchError):
        async with launch(script(f"sleep 1000 & echo $$ > {tmp_path}/pid; exit 1")):
            pass
    assert group(int((tmp_path / "pid").read_text())) == []


async def test_launch_cancelled_while_it_waits_leaves_nothing(script: Script, profiles: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ready")
    path = script(f"sleep 1000 & echo $$ > {tmp_path}/ready; exec sleep 1000")
    async with trio.open_nursery() as nursery:

        async def start() -> None:
            async with launch(path, profile_root=profiles):
                pass

        nursery.start_soon(start)
        with trio.fail_after(QUICK_S):
            pid = int(await trio.Path(tmp_path / "ready").read_text())
        nursery.cancel_scope.cancel()
    assert (group(pid), list(profiles.iterdir())) == ([], [])


# What it starts with


async def arguments(path: Path, tmp_path: Path, *switches: str) -> list[str]:
    """The arguments that a stand-in gets; it writes them to a file."""
    with pytest.raises(LaunchError):
        async with launch(path, switches):
            pass
    return (tmp_path / "arguments").read_text().splitlines()


async def test_launch_puts_the_caller_s_switches_behind_its_own(script: Script, tmp_path: Path) -> None:
    path = script(f'printf "%s\\n" "$@" > {tmp_path}/arguments')
    given = await arguments(path, tmp_path, "--lang=fr", "--window-size=9,9")
    assert given[-3:] == ["--lang=fr", "--window-size=9,9", "about:blank"]


@pytest.mark.parametrize(("name", "expected"), [("chrome-headless-shell", False), ("chromium", True)])
async def test_launch_asks_only_a_full_browser_to_be_headless(
    script: Callable[..., Path], tmp_path: Path, name: str, expected: bool
) -> None:
    path = script(f'printf "%s\\n" "$@" > {tmp_path}/arguments', name)
    assert ("--headless=new" in await arguments(path, tmp_path)) is expected


@pytest.mark.parametrize(("user", "expected"), [(0, True), (1000, False)])
async def test_launch_gives_the_sandbox_up_only_for_root(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, expected: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    path = script(f'printf "%s\\n" "$@" > {tmp_path}/arguments')
    assert ("--no-sandbox" in await arguments(path, tmp_path)) is expected


async def test_launch_hands_no_proxy_settings_down(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:3128")
    given = await arguments(script(f"env > {tmp_path}/arguments"), tmp_path)
    assert [line for line in given if "proxy.example" in line] == []


async def test_launch_keeps_temporary_files_within_the_profile(script: Script, tmp_path: Path, profiles: Path) -> None:
    with pytest.raises(LaunchError):
        async with launch(
            script(f'realpath "$TMPDIR" > {tmp_path}/arguments; echo > $TMPDIR/x'), profile_root=profiles
        ):
            pass
    assert (tmp_path / "arguments").read_text().startswith(f"{profiles}/cleariflow-profile-")


async def test_launch_sets_the_clock_of_the_browser_to_utc(script: Script, tmp_path: Path) -> None:
    assert "TZ=UTC" in await arguments(script(f"env > {tmp_path}/arguments"), tmp_path)


# Running


async def test_launch_drains_stderr_for_ever(script: Script) -> None:
    # Chromium would stop at the first 64 KiB that nobody reads.
    with trio.fail_after(QUICK_S):
        async with launch(script(f"{LISTENS}; head -c 40000000 /dev/zero >&2")) as process:
            await process.exited.wait()


async def test_launch_keeps_little_of_stderr(script: Script) -> None:
    with trio.fail_after(QUICK_S):
        async with launch(script(f"{LISTENS}; head -c 40000000 /dev/zero >&2")) as process:
            await process.exited.wait()
            assert sum(map(len, process.stderr)) <= STDERR_CHUNKS * STDERR_CHUNK_BYTES


async def test_launch_tells_when_the_browser_was_killed(profiles: Path) -> None:
    async with launch(find_browser(), profile_root=profiles) as process:
        assert not process.exited.is_set()
        os.kill(process.pid, signal.SIGKILL)
        with trio.fail_after(QUICK_S):
            await process.exited.wait()


# Ending


async def test_launch_ends_the_whole_process_group(profiles: Path) -> None:
    async with launch(find_browser(), profile_root=profiles) as process:
        assert len(group(process.pid)) > 1
    assert group(process.pid) == []


async def test_launch_ends_helpers_that_outlive_the_main_process(script: Script, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    async with launch(script(f"sleep 1000 & {LISTENS}; read go < {tmp_path}/go; exit 0")) as process:
        with trio.fail_after(QUICK_S):
            await trio.Path(tmp_path / "go").write_text("go\n")
            await process.exited.wait()
        assert len(group(process.pid)) == 1
    assert group(process.pid) == []


async def test_launch_reaps_the_main_process(profiles: Path) -> None:
    # Its leading thread looks dead some time before the last one is: several tries to meet that moment.
    for _ in range(5):
        async with launch(find_browser(), profile_root=profiles) as process:
            pass
        assert not psutil.pid_exists(process.pid)


async def test_launch_removes_the_profile(profiles: Path) -> None:
    async with launch(find_browser(), profile_root=profiles):
        assert len(list(profiles.iterdir())) == 1
    assert list(profiles.iterdir()) == []


async def test_launch_cancelled_leaves_nothing(profiles: Path) -> None:
    with trio.CancelScope() as scope:
        async with launch(find_browser(), profile_root=profiles) as process:
            scope.cancel()
            await trio.sleep_forever()
    assert (group(process.pid), list(profiles.iterdir())) == ([], [])


async def test_launch_leaves_the_body_s_exception_as_it_is(profiles: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with launch(find_browser(), profile_root=profiles):
            raise KeyError("mine")


async def test_launch_whose_body_raises_leaves_nothing(profiles: Path) -> None:
    with pytest.raises(KeyError):
        async with launch(find_browser(), profile_root=profiles) as process:
            raise KeyError("mine")
    assert (group(process.pid), list(profiles.iterdir())) == ([], [])


async def test_launch_whose_browser_was_killed_leaves_nothing(profiles: Path) -> None:
    async with launch(find_browser(), profile_root=profiles) as process:
        os.kill(process.pid, signal.SIGKILL)
        with trio.fail_after(QUICK_S):
            await process.exited.wait()
    assert (group(process.pid), list(profiles.iterdir())) == ([], [])


async def test_launch_ends_a_browser_that_hangs(profiles: Path) -> None:
    async with launch(find_browser(), profile_root=profiles) as process:
        os.kill(process.pid, signal.SIGSTOP)
    assert (group(process.pid), list(profiles.iterdir())) == ([], [])


def test_browser_dies_with_the_process_that_launched_it(tmp_path: Path) -> None:
    program = """
        import sys, trio
        from pathlib import Path
        from cdp.launcher import find_browser, launch

        async def main():
            async with launch(find_browser(), profile_root=Path(sys.argv[1])) as process:
                print(process.pid, flush=True)
                await trio.sleep_forever()

        trio.run(main)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as owner:
        assert owner.stdout is not None
        members = group(int(owner.stdout.readline()))
        owner.kill()
    gone, alive = psutil.wait_procs(members, timeout=QUICK_S)
    assert gone
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
