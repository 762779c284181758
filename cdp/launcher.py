"""The browser process: found, started in a process group and a profile folder of its own, ended without a trace."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from .errors import LaunchError
from .processes import note_group, of_group
from .tasks import in_thread, open_tasks

# The headless shell starts in 0.1 s and captures about three times as fast as `chromium --headless` (Chromium 156).
BROWSER_NAMES = (
    "chromium-headless-shell",
    "chrome-headless-shell",
    "headless_shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
# Debian's names are shell wrappers; the headless shell's does not exec, so that killing its pid leaves the browser.
WRAPPED = {
    "chromium-headless-shell": Path("/usr/lib/chromium/chromium-headless-shell"),
    "chromium": Path("/usr/lib/chromium/chromium"),
}
INSTALL_HINT = "install one (Debian: apt install chromium-headless-shell) or name it with --browser"

SWITCHES = (
    "--remote-debugging-port=0",
    # Pictures as puppeteer and playwright make them.
    "--hide-scrollbars",
    # A desktop has a mouse: else `(hover: hover)` and `(pointer: fine)` are false, as on a phone.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
    # Popups are not opened; the page's session tells of them.
    "--block-new-web-contents",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--mute-audio",
    # Software raster: GPU raster cuts or repeats pictures taller than 16384 px.
    "--disable-gpu",
    # Quiet: nothing of the browser's own on the network, no dialogs of a first run.
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--metrics-recording-only",
    "--no-pings",
    "--password-store=basic",
    "--use-mock-keychain",
    # Pages in the background (all of ours are) run at full speed.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-hang-monitor",
    # A page session sees the requests and the pixels of cross-site frames only while they share its process.
    "--disable-site-isolation-trials",
    "--disable-features=IsolateOrigins,site-per-process,Translate,MediaRouter,OptimizationHints,DialMediaRouteProvider",
    # Nothing passes the egress door by: no UDP, no name look-up and no direct connection by the browser itself. Each
    # context has a proxy of its own; whoever has none meets the discard port.
    "--disable-quic",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--proxy-server=socks5://127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--lang=en-US",
)
# Containers give /dev/shm 64 MB by default, less than one large picture; below this size files in TMPDIR are used.
SHARED_MEMORY_BYTES = 2**29

START_TIMEOUT_S = 20.0
EXIT_TIMEOUT_S = 3.0
# What is kept of stderr: a page's console output can arrive there whole (40 MB were seen).
STDERR_CHUNKS = 64
STDERR_CHUNK_BYTES = 2**10
ENDPOINT_BYTES = 2**14
_LISTENING = re.compile(rb"DevTools listening on (ws://[^\s/]+:\d+/\S*)\s")


def find_browser(name: str | None = None) -> Path:
    """The browser's binary: the one named (a path, or a name on PATH), else the first of `BROWSER_NAMES` on PATH.

    A Debian wrapper script is replaced by the binary it starts. Raises LaunchError.
    """
    for candidate in (name,) if name else BROWSER_NAMES:
        if found := shutil.which(candidate):
            path = Path(found).absolute()
            wrapped = WRAPPED.get(path.name)
            if wrapped is not None and path.parent == Path("/usr/bin") and os.access(wrapped, os.X_OK):
                return wrapped
            return path
    if name:
        raise LaunchError(f"no browser at {name!r}: {INSTALL_HINT}")
    raise LaunchError(f"no Chromium found on PATH: {INSTALL_HINT}")


@attrs.define(eq=False)
class BrowserProcess:
    """A running browser.

    `endpoint` is the websocket URL of its browser-wide session, `exited` is set when its main process has ended.
    """

    pid: int
    endpoint: str
    stderr: deque[bytes]
    exited: trio.Event


@asynccontextmanager
async def launch(
    executable: Path, switches: Iterable[str] = (), *, profile_root: Path | None = None
) -> AsyncIterator[BrowserProcess]:
    """Start a browser and wait until it listens.

    Raises LaunchError with the last lines of its stderr when it does not. Resource handling: when the body ends the
    whole process group is killed, its main process reaped and the profile folder removed, all of it shielded and
    bounded. The browser also dies with this process (parent-death signal, where `setpriv` exists).
    """
    try:
        profile = Path(tempfile.mkdtemp(prefix="cleariflow-profile-", dir=profile_root))
    except OSError as error:
        raise LaunchError(f"cannot make a profile folder: {error}") from error
    try:
        async with open_tasks() as tasks:
            process, stderr_fd = _spawn(executable, profile, switches)
            stderr: deque[bytes] = deque(maxlen=STDERR_CHUNKS)
            endpoint, exited = _Endpoint(), trio.Event()
            tasks.start_soon(_drain, stderr_fd, stderr, endpoint)
            try:
                try:
                    tasks.start_soon(_watch, process, os.pidfd_open(process.pid), exited, endpoint)
                    note_group(profile, process.pid)
                except OSError as error:
                    raise LaunchError(f"cannot watch over {executable}: {error}") from error
                with trio.move_on_after(START_TIMEOUT_S):
                    await endpoint.known.wait()
                if not endpoint.url:
                    said = b"".join(stderr)[-2000:].decode(errors="replace").strip()
                    state = "ended at its start" if exited.is_set() else f"did not listen within {START_TIMEOUT_S:g} s"
                    raise LaunchError(f"{executable} {state}" + (f": {said}" if said else ""))
                yield BrowserProcess(process.pid, endpoint.url, stderr, exited)
            finally:
                with trio.CancelScope(shield=True):
                    await _end_group(process)
    finally:
        with trio.move_on_after(EXIT_TIMEOUT_S, shield=True):
            with contextlib.suppress(OSError):
                await in_thread(_remove, profile, abandon_on_cancel=True)


class _Endpoint:
    """Where the browser listens; `known` is set by the reader of stderr, or by the browser's exit with no URL."""

    def __init__(self) -> None:
        self.url = ""
        self.known = trio.Event()


def _spawn(executable: Path, profile: Path, switches: Iterable[str]) -> tuple[subprocess.Popen[bytes], int]:
    command = [str(executable), f"--user-data-dir={profile}", *SWITCHES]
    if "headless" not in executable.name:
        command.append("--headless=new")
    if os.geteuid() == 0:
        # Chromium refuses to start its sandbox as root.
        command.append("--no-sandbox")
    if _shared_memory_bytes() < SHARED_MEMORY_BYTES:
        command.append("--disable-dev-shm-usage")
    command += [*switches, "about:blank"]
    if setpriv := shutil.which("setpriv"):
        # The signal belongs to the thread that forks: this one, which lives as long as the process. From one of trio's
        # worker threads it killed healthy browsers after 10 s.
        command = [setpriv, "--pdeathsig", "KILL", "--", *command]
    temporary = profile / "tmp"
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    # Relative to its folder: full Chromium makes a Unix socket in there, whose path must not be long.
    environment |= {"TMPDIR": temporary.name, "TZ": "UTC", "XDG_CONFIG_HOME": str(profile / "config")}
    try:
        temporary.mkdir()
        read_fd, write_fd = os.pipe()
    except OSError as error:
        raise LaunchError(f"cannot start {executable}: {error}") from error
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=write_fd,
            env=environment,
            cwd=profile,
            start_new_session=True,
        )
    except OSError as error:
        os.close(read_fd)
        raise LaunchError(f"cannot start {executable}: {error}") from error
    finally:
        os.close(write_fd)
    return process, read_fd


def _shared_memory_bytes() -> int:
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return 0
    return room.f_blocks * room.f_frsize


async def _drain(stderr_fd: int, tail: deque[bytes], endpoint: _Endpoint) -> None:
    """Read stderr for ever into a bounded tail (a full pipe would stop the browser) and find the endpoint in it."""
    async with trio.lowlevel.FdStream(stderr_fd) as stream:
        head = b""
        async for chunk in stream:
            tail.append(bytes(chunk[-STDERR_CHUNK_BYTES:]))
            if not endpoint.known.is_set():
                head += chunk
                found = _LISTENING.search(head)
                head = head[-ENDPOINT_BYTES:]
                if found:
                    endpoint.url = found[1].decode()
                    endpoint.known.set()


async def _watch(process: subprocess.Popen[bytes], pidfd: int, exited: trio.Event, endpoint: _Endpoint) -> None:
    """Reap the main process when it ends and tell so."""
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        trio.lowlevel.notify_closing(pidfd)
        os.close(pidfd)
    process.wait()
    exited.set()
    endpoint.known.set()


async def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole group and wait, at most `EXIT_TIMEOUT_S`, until nobody runs in it.

    The browser is not asked first: its state is a temporary profile, and a hung one would not answer.
    """
    deadline, pause = trio.current_time() + EXIT_TIMEOUT_S, 0.002
    while trio.current_time() < deadline:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            break
        # The leader looks like a zombie while its other threads still die: only the reaping tells.
        if process.poll() is not None and not of_group(process.pid):
            break
        # Each look goes through all processes of the machine.
        await trio.sleep(pause)
        pause = min(2 * pause, 0.05)
    process.poll()


def _remove(profile: Path) -> None:
    # The last helpers may still write while they die; what they leave is removed with the second try.
    shutil.rmtree(profile, ignore_errors=True)
    shutil.rmtree(profile, ignore_errors=True)
