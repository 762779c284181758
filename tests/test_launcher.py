"""cdp/launcher.py: real browsers, and shell scripts in their place for what a real one does not do."""

from __future__ import annotations

import json
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
from cdp.launcher import STDERR_CHUNK_BYTES, STDERR_CHUNKS, BrowserProcess, find_browser, launch

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


async def environment(process: BrowserProcess) -> dict[str, str]:
    """What a process was started with."""
    pairs = (await trio.Path(f"/proc/{process.pid}/environ").read_text()).split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


async def test_launch_hands_only_down_what_a_browser_needs(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("CLEARIFLOW_API_KEY", "AWS_SECRET_ACCESS_KEY", "https_proxy", "ALL_PROXY", "SSLKEYLOGFILE")
    needed = ("LC_ALL", "FONTCONFIG_PATH", "XDG_DATA_DIRS")
    for name in (*secrets, *needed):
        monkeypatch.setenv(name, "/given")
    async with launch(find_browser(), profile_root=profiles) as process:
        given = await environment(process)
    assert {name for name, value in given.items() if value == "/given"} == set(needed)


async def test_launch_gives_a_browser_a_home_of_its_own(profiles: Path) -> None:
    async with launch(find_browser(), profile_root=profiles) as process:
        (profile,) = profiles.iterdir()
        assert (await environment(process))["HOME"] == str(profile)


async def test_launch_leaves_a_browser_its_user_s_fonts(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    async with launch(find_browser(), profile_root=profiles) as process:
        assert (await environment(process))["XDG_DATA_HOME"] == "/home/somebody/.local/share"


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


# The sandbox

# A page of a plain user's browser, open until stdin ends; says the browser's pid and why it has no sandbox.
PLAIN_USER = """
    # What a look-up imports late is not for everybody to read, when Python is root's own.
    import encodings.idna, json, os, sys, tempfile, trio
    from pathlib import Path
    import cdp, cdp.launcher

    async def main(root):
        async with cdp.launcher.launch(cdp.launcher.find_browser(), profile_root=root) as process:
            policy = cdp.AddressPolicy.parse(())
            async with cdp.connect_browser(process.endpoint, policy=policy) as browser, browser.open_page():
                print(json.dumps([process.pid, process.sandbox_fault]), flush=True)
                await trio.to_thread.run_sync(sys.stdin.read)

    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        trio.run(main, Path(root))
"""
# What Docker's seccomp profile does: no user namespaces (EPERM), no clone3, whose flags no filter sees (ENOSYS).
NO_NAMESPACES = """
    import ctypes, platform, struct
    clone, unshare = {"x86_64": (56, 272), "aarch64": (220, 97)}[platform.machine()]
    load, equal, has, end = 0x20, 0x15, 0x45, 0x06
    rules = [
        (load, 0, 0, 0), (equal, 4, 0, 435), (equal, 1, 0, clone), (equal, 0, 3, unshare), (load, 0, 0, 16),
        (has, 2, 1, 0x10000000), (end, 0, 0, 0x50000 | 38), (end, 0, 0, 0x7FFF0000), (end, 0, 0, 0x50000 | 1),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, program, 0, 0) == 0
"""


def confinement(pid: int) -> tuple[int, int, int]:
    """How many seccomp filters and process number spaces a process is in, and whether it can gain rights."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["Seccomp_filters"]), len(status["NSpid"].split()), int(status["NoNewPrivs"])


def plain_user_s_page(*programs: str) -> tuple[str | None, bool]:
    """Why a plain user's browser has no sandbox, and whether its page has one."""
    with subprocess.Popen(
        [sys.executable, "-c", "".join(map(textwrap.dedent, programs))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as owner:
        assert owner.stdout is not None
        pid, fault = json.loads(owner.stdout.readline())
        renderers = [one.pid for one in group(pid) if "--type=renderer" in one.cmdline()]
        assert renderers
        filters, spaces, _ = confinement(pid)
        confined = [
            inner_filters > filters and inner_spaces > spaces and no_new == 1
            for inner_filters, inner_spaces, no_new in map(confinement, renderers)
        ]
    return fault, all(confined)


def test_plain_user_s_pages_are_in_the_sandbox() -> None:
    # A system that allows none is told of.
    fault, confined = plain_user_s_page(PLAIN_USER)
    assert confined is (fault is None)


def test_plain_user_s_pages_come_without_a_sandbox_where_none_can_be() -> None:
    fault, confined = plain_user_s_page(NO_NAMESPACES, PLAIN_USER)
    assert (confined, fault) == (False, "a seccomp filter, as containers have, forbids the system calls that make it")


WRITES_ARGUMENTS = 'printf "%s\\n" "$@" > {}/arguments'
FATAL = "[1122/051909.863569:FATAL:content/browser/zygote_host/zygote_host_impl_linux.cc:"
LAST_WORDS = (
    f"{FATAL}132] No usable sandbox! If you are running on Ubuntu",
    # Its zygote's, where a seccomp filter forbids chroot; the setuid helper's, where a container has not its rights.
    f"Check failed: sys_chroot(x) == 0; {FATAL}254] Failed to receive hello message from zygote",
    f"Failed to move to new namespace: {FATAL}228] Zygote process exited prematurely with exit code 1",
    "[1122/053927:FATAL:sandbox/linux/services/credentials.cc:137] Check failed: . : Function not implemented (38)",
)
NEEDS_NO_SANDBOX = 'case "$*" in *--no-sandbox*) ;; *) echo "{}" >&2; exit 1;; esac'.format


@pytest.fixture
def plain_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests is not root, as far as the launcher knows."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.usefixtures("plain_user")
async def test_launch_tries_the_sandbox_first(script: Script, tmp_path: Path) -> None:
    assert "--no-sandbox" not in await arguments(script(WRITES_ARGUMENTS.format(tmp_path)), tmp_path)


@pytest.mark.usefixtures("plain_user")
@pytest.mark.parametrize("words", LAST_WORDS, ids=["none", "no-chroot", "no-rights", "no-call"])
async def test_launch_goes_without_a_sandbox_where_the_browser_finds_none(
    script: Script, profiles: Path, words: str
) -> None:
    path = script(f"{NEEDS_NO_SANDBOX(words)}; {LISTENS}; exec sleep 1000")
    async with launch(path, profile_root=profiles) as process:
        assert process.sandbox_fault
        # Of the first try nothing is left.
        assert len(list(profiles.iterdir())) == 1


@pytest.mark.usefixtures("plain_user")
async def test_launch_keeps_the_sandbox_of_a_browser_that_fails_otherwise(script: Script, tmp_path: Path) -> None:
    path = script(f"echo once >> {tmp_path}/starts; echo no libraries >&2; exit 1")
    with pytest.raises(LaunchError, match="no libraries"):
        async with launch(path):
            pass
    assert (tmp_path / "starts").read_text() == "once\n"


@pytest.mark.usefixtures("plain_user")
async def test_launch_never_takes_the_sandbox_of_a_browser_that_had_one(script: Script, tmp_path: Path) -> None:
    path = script(f"{LISTENS}; exec sleep 1000")
    async with launch(path) as process:
        assert process.sandbox_fault is None
    script(f"{NEEDS_NO_SANDBOX(LAST_WORDS[1])}; {LISTENS}; exec sleep 1000")
    with pytest.raises(LaunchError, match="hello message"):
        async with launch(path):
            pass


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


async def test_launch_tells_why_root_s_browser_has_no_sandbox(
    script: Script, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    async with launch(script(f"{NEEDS_NO_SANDBOX('root')}; {LISTENS}; exec sleep 1000")):
        pass
    assert told(caplog) == ["pages run without Chromium's sandbox: Chromium has none for root; run it as another user"]


@pytest.mark.usefixtures("plain_user")
async def test_launch_tells_that_a_switch_takes_the_sandbox_away(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    path = script(f"{NEEDS_NO_SANDBOX('')}; {LISTENS}; exec sleep 1000")
    async with launch(path, ["--no-sandbox"]):
        pass
    assert told(caplog) == ["pages run without Chromium's sandbox: --no-sandbox is given"]


@pytest.mark.usefixtures("plain_user")
async def test_launch_tells_nothing_of_a_sandbox_that_is_on(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    async with launch(script(f"{LISTENS}; exec sleep 1000")) as process:
        assert process.sandbox_fault is None
    assert told(caplog) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("sys/user/max_user_namespaces", "0\n", "sysctl user.max_user_namespaces is 0"),
        ("sys/kernel/unprivileged_userns_clone", "0\n", "sysctl kernel.unprivileged_userns_clone is 0"),
        ("sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", "apparmor_restrict_unprivileged_userns is 1"),
        ("self/status", "Name:\tx\nSeccomp:\t2\n", "a seccomp filter"),
        ("self/status", "Name:\tx\nSeccomp:\t0\n", "the system does not let a plain user make it"),
    ],
    ids=["max", "clone", "apparmor", "seccomp", "unknown"],
)
def test_system_fault_names_what_forbids_a_sandbox(tmp_path: Path, name: str, content: str, said: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_text(content)
    assert said in launcher._system_fault(tmp_path)


# The debugging port


async def answer(endpoint: str, method: str, path: str, *headers: str) -> int:
    """The status of what the debugging port says to a request."""
    host, _, port = endpoint.removeprefix("ws://").partition("/")[0].partition(":")
    lines = (f"{method} {path} HTTP/1.1", *(headers or (f"Host: {host}:{port}",)), "", "")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all("\r\n".join(lines).encode())
        return int((await stream.receive_some()).split()[1])


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + "A" * 22 + "==",
)


async def test_debugging_port_takes_no_websocket_of_a_web_page(browser_endpoint: str) -> None:
    address = browser_endpoint.removeprefix("ws://").partition("/")
    request = ("GET", "/" + address[2], f"Host: {address[0]}", *UPGRADE)
    with trio.fail_after(QUICK_S):
        assert await answer(browser_endpoint, *request) == 101
        for origin in ("https://example.com", "http://localhost:8000", "null"):
            assert await answer(browser_endpoint, *request, f"Origin: {origin}") == 403


async def test_debugging_port_is_not_reached_by_a_name(browser_endpoint: str) -> None:
    # A name that leads to 127.0.0.1, as in DNS rebinding.
    with trio.fail_after(QUICK_S):
        assert await answer(browser_endpoint, "GET", "/json/version") == 200
        assert await answer(browser_endpoint, "GET", "/json/version", "Host: rebound.example:9222") == 500


async def test_debugging_port_opens_nothing_for_a_link(browser_endpoint: str) -> None:
    with trio.fail_after(QUICK_S):
        assert await answer(browser_endpoint, "GET", "/json/new?about:blank") == 405
