"""The browser process: found, started in a process group and a profile folder of its own, ended without a trace."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from .authorities import Authorities
from .errors import LaunchError
from .processes import note_group, of_group
from .tasks import in_thread, open_tasks

logger = logging.getLogger("cdp")

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
    # Pages have the size that is emulated. What their window shows of it is drawn for nobody: 5 % of a capture's CPU.
    "--window-size=1,1",
    # A desktop has a mouse: else `(hover: hover)` and `(pointer: fine)` are false, as on a phone. And a browser has one
    # clipboard for what is selected: a click with the middle button pasted what another context's page had selected.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"
    ",selectionClipboardBufferAvailable=false",
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
    # Our pages navigate once and never go back: a frame of its own for each document (RenderDocument) costs 6 % of a
    # capture's CPU. Nor does full Chromium ask Google about the forms of pages.
    "--disable-features=RenderDocument,BackForwardCache,IsolateOrigins,site-per-process,Translate,MediaRouter"
    ",OptimizationHints,DialMediaRouteProvider,AutofillServerCommunication",
    # Nothing passes the egress door by: no UDP, no name look-up and no direct connection by the browser itself. Each
    # context has a proxy of its own; whoever has none meets the discard port.
    "--disable-quic",
    # The headless shell's name for it, and full Chromium's.
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--proxy-server=socks5://127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--lang=en-US",
)
# Containers give /dev/shm 64 MB by default, less than one large picture; below this size files in TMPDIR are used.
SHARED_MEMORY_BYTES = 2**29

# In a profile folder.
TEMPORARY = "tmp"
# The first place where Chromium looks for certificates (before 146, the only one).
DATABASE = ".pki/nssdb"

START_TIMEOUT_S = 20.0
EXIT_TIMEOUT_S = 3.0
# What is kept of stderr: a page's console output can arrive there whole (40 MB were seen).
STDERR_CHUNKS = 64
STDERR_CHUNK_BYTES = 2**10
ENDPOINT_BYTES = 2**14
_LISTENING = re.compile(rb"DevTools listening on (ws://[^\s/]+:\d+/\S*)\s")

# What a browser gets of our own environment. The rest is not for processes that run pages: keys and tokens, proxies,
# SSLKEYLOGFILE, the way to the session bus.
_INHERITED = re.compile(
    r"PATH|LANG|LANGUAGE|LC_[A-Z]+|LD_LIBRARY_PATH|FONTCONFIG_[A-Z]+|XDG_(CACHE_HOME|DATA_HOME|DATA_DIRS)"
    r"|CHROME_DEVEL_SANDBOX"
)

# Where a browser ends for want of a sandbox: it has none, its zygote died making one (chroot forbidden, a setuid helper
# without rights), or what tries user namespaces met an errno that it does not expect (ENOSYS of a seccomp filter).
_NO_SANDBOX = re.compile(rb"zygote_host_impl_linux|FATAL:\S*sandbox/")
# Browsers that had one are not started without it later, whatever fails then: a zygote may also want for memory.
_sandboxed: set[Path] = set()
# Switches with which pages run without a sandbox, or with less of one.
WEAKENING = ("--no-sandbox", "--single-process", "--disable-seccomp-filter-sandbox", "--disable-namespace-sandbox")
# Below /proc/sys: what keeps user namespaces from a plain user, at which value, and one that does not. The third is
# Ubuntu's.
NAMESPACE_SETTINGS = (
    ("user/max_user_namespaces", "0", "15000"),
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
)


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
    `sandbox_fault` says why its pages run without Chromium's sandbox; None when they have it.
    """

    pid: int
    endpoint: str
    stderr: deque[bytes]
    exited: trio.Event
    sandbox_fault: str | None


class _NoSandbox(LaunchError):
    """The browser found no way to make a sandbox."""


@asynccontextmanager
async def launch(
    executable: Path,
    switches: Iterable[str] = (),
    *,
    profile_root: Path | None = None,
    authorities: Authorities | None = None,
) -> AsyncIterator[BrowserProcess]:
    """Start a browser and wait until it listens; `authorities` are trusted beside its own.

    Its sandbox is on wherever Chromium can have one. It knows best (AppArmor, for one, tells programs apart): only a
    browser that ends for want of it is started again without. The log tells of that, and why.

    Raises LaunchError with the last lines of its stderr when it does not listen. Resource handling: when the body ends
    the whole process group is killed, its main process reaped and the profile folder removed, all of it shielded and
    bounded. The browser also dies with this process (parent-death signal, where `setpriv` exists).
    """
    switches = tuple(switches)
    fault = _sandbox_fault(switches)
    async with AsyncExitStack() as stack:

        async def start() -> BrowserProcess:
            return await stack.enter_async_context(_started(executable, switches, profile_root, authorities, fault))

        try:
            process = await start()
        except _NoSandbox:
            if executable in _sandboxed:
                raise
            fault = _system_fault()
            process = await start()
        if fault is None:
            _sandboxed.add(executable)
        else:
            logger.warning("pages run without Chromium's sandbox: %s", fault)
        yield process


def _sandbox_fault(switches: Iterable[str]) -> str | None:
    """Why a browser cannot have a sandbox, whatever the system allows."""
    for switch in switches:
        if switch.partition("=")[0] in WEAKENING:
            return f"{switch} is given"
    return "Chromium has none for root; run it as another user" if os.geteuid() == 0 else None


def _system_fault(proc: Path = Path("/proc")) -> str:
    """Why a plain user's browser could make no sandbox, as far as the system tells."""
    for name, value, _ in NAMESPACE_SETTINGS:
        with contextlib.suppress(OSError):
            if (proc / "sys" / name).read_text().strip() == value:
                return f"it takes user namespaces, and sysctl {name.replace('/', '.')} is {value}"
    with contextlib.suppress(OSError):
        if re.search(r"^Seccomp:\s*2$", (proc / "self/status").read_text(), re.MULTILINE):
            return "a seccomp filter, as containers have, forbids the system calls that make it"
    return "the system does not let a plain user make it"


@asynccontextmanager
async def _started(
    executable: Path,
    switches: tuple[str, ...],
    profile_root: Path | None,
    authorities: Authorities | None,
    sandbox_fault: str | None,
) -> AsyncIterator[BrowserProcess]:
    """One start of a browser; `launch` without its second try."""
    try:
        profile = Path(tempfile.mkdtemp(prefix="cleariflow-profile-", dir=profile_root))
    except OSError as error:
        raise LaunchError(f"cannot make a profile folder: {error}") from error
    try:
        await _furnish(profile, authorities)
        if sandbox_fault is not None:
            switches = ("--no-sandbox", *switches)
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
                    said = b"".join(stderr)
                    tail = said[-2000:].decode(errors="replace").strip()
                    state = "ended at its start" if exited.is_set() else f"did not listen within {START_TIMEOUT_S:g} s"
                    no_sandbox = exited.is_set() and sandbox_fault is None and _NO_SANDBOX.search(said)
                    message = f"{executable} {state}" + (f": {tail}" if tail else "")
                    raise _NoSandbox(message) if no_sandbox else LaunchError(message)
                yield BrowserProcess(process.pid, endpoint.url, stderr, exited, sandbox_fault)
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
    if shared_memory_bytes() < SHARED_MEMORY_BYTES:
        command.append("--disable-dev-shm-usage")
    command += [*switches, "about:blank"]
    if setpriv := shutil.which("setpriv"):
        # The signal belongs to the thread that forks: this one, which lives as long as the process. From one of trio's
        # worker threads it killed healthy browsers after 10 s.
        command = [setpriv, "--pdeathsig", "KILL", "--", *command]
    try:
        read_fd, write_fd = os.pipe()
    except OSError as error:
        raise LaunchError(f"cannot start {executable}: {error}") from error
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=write_fd,
            env=_environment(profile),
            cwd=profile,
            start_new_session=True,
        )
    except OSError as error:
        os.close(read_fd)
        raise LaunchError(f"cannot start {executable}: {error}") from error
    finally:
        os.close(write_fd)
    return process, read_fd


async def _furnish(profile: Path, authorities: Authorities | None) -> None:
    """Make the folders that a browser finds in its profile, which is its home, too."""
    try:
        (profile / TEMPORARY).mkdir()
        (profile / DATABASE).mkdir(parents=True)
        if authorities is not None:
            await authorities.install(profile / DATABASE)
    except OSError as error:
        raise LaunchError(f"cannot make a profile folder: {error}") from error


def _environment(profile: Path) -> dict[str, str]:
    """A browser's environment."""
    environment = {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}
    if home := os.environ.get("HOME"):
        # The user's fonts, and the cache of them, for which all fonts are read anew where it is missing.
        environment = {"XDG_DATA_HOME": f"{home}/.local/share", "XDG_CACHE_HOME": f"{home}/.cache"} | environment
    return environment | {
        # Not the user's own: its certificates, with their keys, are none of the pages' business.
        "HOME": str(profile),
        "XDG_CONFIG_HOME": str(profile / "config"),
        # Relative to its folder: full Chromium makes a Unix socket in there, whose path must not be long.
        "TMPDIR": TEMPORARY,
        "TZ": "UTC",
    }


def shared_memory_bytes() -> int:
    """Size of /dev/shm; 0 where there is none."""
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
