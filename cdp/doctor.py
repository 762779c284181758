"""What a system lacks for a browser to do its work: each finding says what is wrong, and how to mend it.

Nothing here raises for what is wrong with the system: that is what it looks for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import attrs
import trio

from .authorities import Authorities
from .browser import connect_browser
from .errors import CDPError, LaunchError
from .launcher import (
    INSTALL_HINT,
    NAMESPACE_SETTINGS,
    SHARED_MEMORY_BYTES,
    WEAKENING,
    find_browser,
    launch,
    shared_memory_bytes,
)
from .options import Viewport
from .page import Page
from .processes import memory_bytes
from .proxy import Proxy

# For the whole look at a browser, which takes 2 s.
BROWSER_S = 60.0
PROXY_S = 5.0
# A folder on a network, or a worn disk: every submission waits for this.
SLOW_FSYNC_S = 0.1
# The tests run with 156. A major version comes every four weeks: an older one has had a year's holes mended since.
OLDEST_MAJOR = 143
# A browser with three pages has 9 processes with 99 threads, which count alike, and 126 MB (Chromium 156).
FEWEST_PROCESSES = 512
LEAST_MEMORY_BYTES = 2**30
# Certificates that are in use are valid at any time after this.
EARLIEST = datetime(2025, 6, 1, tzinfo=UTC)

# In no font: what is drawn for it is drawn for every letter that is missing.
MISSING = "\U0010fffd"
# Letters that are drawn differently where there is a font for them; and Debian's package of one.
LATIN, LATIN_PACKAGE = "A\u00e9", "fonts-liberation"
SCRIPTS = (
    ("Chinese, Japanese and Korean", "\u6f22\u3042\ud55c", "fonts-noto-cjk"),
    ("Greek, Cyrillic, Arabic, Hebrew, Devanagari and Thai", "\u03a9\u0416\u0639\u05e9\u0915\u0e01", "fonts-noto-core"),
)
EMOJI, EMOJI_PACKAGE = "\U0001f600", "fonts-noto-color-emoji"
SAMPLE = "<meta charset=utf-8><style>html{{margin:8px;font:40px/1 sans-serif;filter:{look}}}</style>{letters}"


@attrs.frozen
class Finding:
    """What was seen of one thing."""

    subject: str
    level: Literal["ok", "warning", "error"]
    """`error`: nothing works, or next to nothing; `warning`: worse than it could be."""
    text: str
    mend: str | None = None
    """What to do."""


Tell = Callable[[Finding], None]

# ---- The browser -----------------------------------------------------------------------------------------------------


async def examine_browser(
    tell: Tell, name: str | None = None, *, switches: Iterable[str] = (), authorities: Authorities | None = None
) -> None:
    """Start the browser that the settings name, and see what it draws."""
    switches = tuple(switches)
    try:
        path = find_browser(name)
    except LaunchError as error:
        tell(Finding("browser", "error", str(error).removesuffix(f": {INSTALL_HINT}"), INSTALL_HINT))
        return
    with trio.move_on_after(BROWSER_S) as scope:
        try:
            async with launch(path, switches, authorities=authorities) as process:
                async with connect_browser(process.endpoint) as browser:
                    tell(judge_version(path, browser.product))
                    tell(judge_sandbox(process.sandbox_fault, switches))
                    async with browser.open_page(viewport=Viewport(width=320, height=64)) as page:
                        await _examine_pictures(tell, page)
        except LaunchError as error:
            # The end of its stderr: the last words say it.
            text, by_hand = " ".join(str(error).split()), f"see what it says by itself: {path} --version"
            install = "apt install --reinstall chromium-headless-shell: it brings the libraries"
            lacks = "error while loading shared libraries" in text
            tell(Finding("browser", "error", text[-500:], install if lacks else by_hand))
        except CDPError as error:
            tell(Finding("picture", "error", f"it draws no page: {error}", f"reinstall the browser, {path}"))
    if scope.cancelled_caught:
        tell(Finding("picture", "error", f"it drew no page within {BROWSER_S:g} s", "look at the load of this machine"))


def judge_version(path: Path, product: str) -> Finding:
    """Whether a browser is too old."""
    found = re.search(r"/(\d+)", product)
    if found is None or int(found[1]) >= OLDEST_MAJOR:
        return Finding("browser", "ok", f"{product}, {path}")
    text = f"{product}, {path}: old; its known holes are open to every page"
    return Finding("browser", "warning", text, "apt update && apt upgrade, or rebuild the image")


def judge_sandbox(fault: str | None, switches: Iterable[str], proc: Path = Path("/proc")) -> Finding:
    """What to do where pages run without Chromium's sandbox."""
    if fault is None:
        return Finding("sandbox", "ok", "pages run in Chromium's sandbox")
    mend = "apt install chromium-sandbox, or allow user namespaces (SECURITY.md)"
    given = [switch for switch in switches if switch.partition("=")[0] in WEAKENING]
    if given:
        mend = f"leave {given[0]} out"
    elif os.geteuid() == 0:
        mend = "run it as another user (systemd: User=; container: --user 10001)"
    else:
        for setting, forbids, allows in NAMESPACE_SETTINGS:
            with contextlib.suppress(OSError):
                if (proc / "sys" / setting).read_text().strip() == forbids:
                    mend = f"sysctl -w {setting.replace('/', '.')}={allows}, or apt install chromium-sandbox"
        if "seccomp" in fault:
            mend = "container: --security-opt seccomp=FILE, one that allows user namespaces (SECURITY.md)"
    return Finding("sandbox", "warning", f"pages run without Chromium's sandbox: {fault}", mend)


async def _examine_pictures(tell: Tell, page: Page) -> None:
    """Whether text is drawn, and each script with letters of its own."""

    async def draw(letters: str, look: str = "none") -> bytes:
        await page.set_content(SAMPLE.format(letters=letters, look=look), None)
        return (await page.screenshot()).data

    async def boxes(letters: str) -> list[str]:
        return [letter for letter in letters if await draw(letter) in (blank, missing)]

    began = trio.current_time()
    blank, missing = await draw(""), await draw(MISSING)
    took_ms = (trio.current_time() - began) / 2 * 1000
    if await boxes(LATIN):
        tell(Finding("picture", "error", "text is not drawn: there is no font", f"apt install {LATIN_PACKAGE}"))
    else:
        tell(Finding("picture", "ok", f"pages are drawn, with text, in {took_ms:.0f} ms each"))
    for scripts, letters, package in SCRIPTS:
        if lacking := await boxes(letters):
            text = f"{scripts} letters show as boxes: {' '.join(lacking)}"
            tell(Finding("fonts", "warning", text, f"apt install {package}"))
        else:
            tell(Finding("fonts", "ok", f"{scripts} letters are drawn"))
    if await draw(EMOJI) == await draw(EMOJI, "grayscale(1)"):
        tell(Finding("fonts", "warning", "emoji have no colours, or show as boxes", f"apt install {EMOJI_PACKAGE}"))
    else:
        tell(Finding("fonts", "ok", "emoji are drawn, in colours"))


# ---- The system ------------------------------------------------------------------------------------------------------


def examine_system(files_needed: int) -> Iterator[Finding]:
    """Shared memory, limits and the clock. `files_needed` is how many files the process should be able to open."""
    yield judge_shared_memory(shared_memory_bytes())
    yield judge_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1], files_needed)
    yield judge_processes(processes_left())
    yield judge_memory(memory_bytes())
    yield judge_clock(datetime.now(UTC))


def judge_shared_memory(size_bytes: int) -> Finding:
    """Whether /dev/shm is large enough for pictures."""
    shown = f"/dev/shm has {size_bytes >> 20} MiB" if size_bytes else "there is no /dev/shm"
    if size_bytes >= SHARED_MEMORY_BYTES:
        return Finding("shared memory", "ok", shown)
    text = f"{shown}: the browser uses files instead (--disable-dev-shm-usage), which is slower"
    return Finding("shared memory", "warning", text, "container: --shm-size=1g (compose: shm_size: 1g)")


def judge_files(most: int, needed: int) -> Finding:
    """Whether enough files can be open; every connection is one."""
    if most >= needed or most == resource.RLIM_INFINITY:
        return Finding("open files", "ok", "as many as are needed may be open")
    text = f"only {most} may be open, where {needed} are needed for all connections"
    mend = f"systemd: LimitNOFILE={needed}; container: --ulimit nofile={needed}; shell: ulimit -n {needed}"
    return Finding("open files", "warning", text, mend)


def judge_processes(left: int | None) -> Finding:
    """Whether browsers can start as many processes and threads as they do; None: there is no limit."""
    if left is None or left >= FEWEST_PROCESSES:
        return Finding("processes", "ok", "as many as are needed may run")
    text = f"only {left} more processes and threads may run; a browser alone takes 100 and more"
    mend = f"container: --pids-limit={2 * FEWEST_PROCESSES}; systemd: TasksMax={2 * FEWEST_PROCESSES}"
    return Finding("processes", "warning", text, mend)


def judge_memory(size_bytes: int) -> Finding:
    """Whether there is room for a browser."""
    shown = f"this machine, or container, has {size_bytes >> 20} MiB"
    if size_bytes >= LEAST_MEMORY_BYTES:
        return Finding("memory", "ok", shown)
    mend = f"give it {LEAST_MEMORY_BYTES >> 30} GiB (container: --memory=2g), or use --workers 1"
    return Finding("memory", "warning", f"{shown}: heavy pages will be killed", mend)


def judge_clock(now: datetime) -> Finding:
    """Whether certificates can be judged by the clock."""
    shown = f"it is {now:%Y-%m-%d %H:%M} UTC"
    if now >= EARLIEST:
        return Finding("clock", "ok", shown)
    return Finding("clock", "error", f"{shown}: no certificate is valid yet", "timedatectl set-ntp true")


def processes_left(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """By the control groups that this process is in (version 1 or 2); None without a limit."""
    own = "/"
    with contextlib.suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own = path if controllers in ("", "pids") else own
    left = []
    for folder in (root, root / "pids", root / own.strip("/"), root / "pids" / own.strip("/")):
        # `max` is no number.
        with contextlib.suppress(OSError, ValueError):
            left.append(int((folder / "pids.max").read_text()) - int((folder / "pids.current").read_text()))
    return min(left, default=None)


# ---- The data folder -------------------------------------------------------------------------------------------------


def examine_folder(folder: Path, reserve_bytes: int, budget_bytes: int) -> Iterator[Finding]:
    """Whether the data folder can be written, has the room that is kept in reserve, and as much as all results take."""
    folder = place = folder.absolute()
    # It is made at the first start. Where one may not look, Path.exists raises.
    while not os.path.exists(place):
        place = place.parent
    mend = f"chown -R {os.geteuid()} {shlex.quote(str(folder))} as root, mount a volume there, or choose --data-dir"
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(2**16))
            file.flush()
            began = time.monotonic()
            os.fsync(file.fileno())
            took_s = time.monotonic() - began
        free = shutil.disk_usage(place).free
    except OSError as error:
        yield Finding("data folder", "error", f"{folder} cannot be written: {error.strerror}", mend)
        return
    slow = took_s > SLOW_FSYNC_S
    text = f"{folder} can be written; one fsync takes {took_s * 1000:.1f} ms"
    yield Finding("data folder", "warning" if slow else "ok", text, "use a faster disk (--data-dir)" if slow else None)
    held = 0
    with contextlib.suppress(OSError):
        held = sum(one.stat().st_size for one in os.scandir(folder / "artifacts"))
    text, room = f"{free >> 20} MiB are free in it", f"free some, or lower --disk-budget ({budget_bytes >> 20} MiB)"
    if free < reserve_bytes:
        yield Finding("disk", "error", f"{text}: no job is taken with less than {reserve_bytes >> 20} MiB", room)
    elif free + held < budget_bytes:
        yield Finding("disk", "warning", f"{text}, less than all results may take", room)
    else:
        yield Finding("disk", "ok", text)


def is_locked(path: Path) -> bool:
    """Whether a process holds the file, as a service its journal."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# ---- The network -----------------------------------------------------------------------------------------------------


async def examine_proxy(proxy: Proxy) -> Finding:
    """Whether the operator's proxy takes connections."""
    place = f"{proxy.host}:{proxy.port}"
    began = time.monotonic()
    try:
        with trio.fail_after(PROXY_S):
            stream = await trio.open_tcp_stream(proxy.host, proxy.port)
            await stream.aclose()
    except trio.TooSlowError:
        why = f"answered nothing within {PROXY_S:g} s"
    except OSError as error:
        why = f"takes no connection: {error}"
    else:
        return Finding("proxy", "ok", f"{place} takes connections, within {(time.monotonic() - began) * 1000:.0f} ms")
    return Finding("proxy", "error", f"{place} {why}", "start the proxy, or correct --proxy")
