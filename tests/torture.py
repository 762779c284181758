"""The torture run: the real program under hostile pages, kills, hangs, cancels and clients that misbehave.

    python -m tests.torture --minutes 20 --seed 1
    python -m tests.torture --minutes 3 --folder /tmp/torture --flag=--browser-uses=50

One trio program submits jobs (half on harmless pages, whose results are checked, half on hostile ones), injects faults,
and keeps an account: what was acknowledged, what was cancelled, what was done to the service, when. In the end every
job must be in a state that the written table (`Kind.outcomes`, `FAULT_OUTCOMES`, `Judge`) allows for what was done to
it, and the service must be back at the figures that it had when it was new. The last third runs in one process of the
service: browsers and clients go on failing, the service itself is left alone, and its memory is compared.

Contents: constants - the account - requests - results - the service under test - figures - the log - the written table
- the run - clients that misbehave - faults - the report - command line.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import itertools
import json
import math
import os
import random
import re
import signal
import socket
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from time import time
from typing import Any, Literal

import attrs
import httpx
import psutil
import trio
from PIL import Image

from cdp.tasks import open_tasks
from cleariflow import LATE_CAPTURE_S, LOSSES_ALLOWED, RETRIED_CODES
from tests.hostile import BAND_PX, BANDS, BIG_BYTES, KINDS, PARAGRAPHS, TOKEN, Kind, Pages, colour_of, mount, small
from tests.site import Site, bare_stream, open_site
from tests.test_end_to_end import LISTENING, PROGRAM, Server, is_alive, raw_request

# ---- Constants -------------------------------------------------------------------------------------------------------

# What an end takes beyond its grace: a client that stops reading is cut off after 5 s, hypercorn's own 1 s.
EXIT_S = 10
# Until a hung browser is gone: the watchdog's 10 s, and its next look.
HANG_S = 30
# Until the processes of a killed service are gone.
ORPHANS_S = 5
# Between a client's or the contract's clock and the service's.
SLACK_S = 1.0
# Opening and closing of a page are bounded by 5 and 10 s; the rest is a busy machine.
CLEANUP_S = 17.0
CANCEL_S = 1.0
LOOK_S = 0.05
# When jobs are cancelled, in turn.
CANCELS: tuple[Literal["", "queued", "running"], ...] = ("", "", "running", "", "", "", "queued", "")
MEMORY_RATIO = 1.05
# Longest wait for the queue to run empty, and for figures to settle.
DRAIN_S = 180
SETTLE_S = 20
HARMLESS_TIMEOUT_MS = 30_000
HOSTILE_TIMEOUTS_MS = (1000, 1000, 1000, 1500, 2000, 4000)
SIZES = ((800, 600), (1280, 800), (400, 700))
# Of flat colours: lossy formats move them a little.
TOLERANCE = {"png": 0, "jpeg": 8, "webp": 10}
TEMPORARY_NAMES = ("cleariflow-*", "*chromium*", "*Chromium*", "scoped_dir*")

# ---- The account -----------------------------------------------------------------------------------------------------


@attrs.define(eq=False, kw_only=True)
class Record:
    """One job: what was asked for, what was done to it, and what became of it."""

    token: str
    kind: Kind
    service: Literal["screenshot", "scrape"]
    sync: bool
    request: dict[str, Any]
    priority: int
    submitted: float = attrs.field(factory=time)
    job_id: str | None = None
    """Set with the acknowledgement."""
    cancel_while: Literal["", "queued", "running"] = ""
    """When it is to be cancelled."""
    cancelled: float | None = None
    """When the first DELETE was sent, or a synchronous caller left."""
    confirmed: tuple[str, str | None] | None = None
    """State and code that the first answered DELETE showed."""
    outcome: str | None = None
    """`done`, the code of a failed job, or what became of the call: `broken`, `draining`, `deadline`, `no_browser`,
    `unsent` (never acknowledged), `left`."""
    meta: dict[str, Any] = attrs.field(factory=dict)
    error: str = ""
    ended: float = math.inf
    fault: str | None = None
    """What is wrong with the result."""
    digest: str | None = None

    @property
    def window(self) -> tuple[float, float]:
        """From its first lease to its end, as far as is known."""
        start, end = self.submitted, self.ended
        if "created_at" in self.meta and self.meta.get("queue_ms") is not None:
            start = seconds_of(self.meta["created_at"]) + self.meta["queue_ms"] / 1000
        if self.meta.get("finished_at"):
            end = min(end, seconds_of(self.meta["finished_at"]))
        return start, end

    @property
    def label(self) -> str:
        """How it is called in reports."""
        return f"{self.job_id or self.token} ({self.kind.name}, {self.service}{', sync' if self.sync else ''})"


@attrs.define(eq=False)
class Fault:
    """Something that was done to the service or its browser."""

    name: str
    at: float = attrs.field(factory=time)
    until: float = 0.0
    pid: int | None = None

    def within(self, window: tuple[float, float]) -> bool:
        """Whether it fell into a time, or nearly."""
        return self.at <= window[1] + SLACK_S and max(self.at, self.until) >= window[0] - SLACK_S


def seconds_of(text: str) -> float:
    """A time of the service's on the clock of `time()`."""
    return datetime.fromisoformat(text).timestamp()


# ---- Requests --------------------------------------------------------------------------------------------------------


def choose(rng: random.Random, pages: Pages, plan: Plan) -> Record:
    """The next job: half of them harmless, a quarter synchronous."""
    hostile = rng.random() < 0.5
    kinds = [kind for kind in KINDS.values() if kind.hostile == hostile]
    kind = rng.choices(kinds, [kind.weight for kind in kinds])[0]
    token = f"torture-{rng.getrandbits(64):016x}"
    request: dict[str, Any] = {"url": pages.url(kind.name, token), "retries": rng.choice((0, 0, 0, 1, 2))}
    service: Literal["screenshot", "scrape"] = rng.choice(("screenshot", "scrape"))
    if kind.hostile:
        # Where the table has no timeout, a busy machine must not make one.
        hasty = "timeout" in kind.outcomes
        request["timeout_ms"] = rng.choice(plan.hostile_timeouts_ms) if hasty else HARMLESS_TIMEOUT_MS
        if kind.eats_memory:
            request["url"] += f"&megabytes={plan.megabytes}"
        if rng.random() < plan.late_captures:
            request["on_timeout"] = "capture"
        if rng.random() < 0.1:
            request["full_page" if service == "screenshot" else "outputs"] = (
                True if service == "screenshot" else ["html", "text", "links", "metadata", "screenshot"]
            )
    else:
        request |= harmless_request(rng, kind, token, service)
        if "html" in request:
            del request["url"]
    sync = rng.random() < 0.2
    return Record(
        token=token, kind=kind, service=service, sync=sync, request=request, priority=rng.choice((0, 0, 0, 5, -5))
    )


def harmless_request(rng: random.Random, kind: Kind, token: str, service: str) -> dict[str, Any]:
    """Fields that make a result in which the job is known again."""
    request: dict[str, Any] = {"timeout_ms": HARMLESS_TIMEOUT_MS}
    if kind.name == "app":
        request["wait_for"] = "#ready"
    if kind.name == "button":
        request["actions"] = [{"type": "click", "selector": "#go"}, {"type": "wait", "selector": "#ready"}]
    if service == "screenshot":
        width, height = rng.choice(SIZES)
        request |= {
            "format": rng.choice(("png", "png", "jpeg", "webp")),
            "viewport": {"width": width, "height": height},
        }
        request["full_page"] = kind.name == "bands"
    elif kind.name in ("small", "long") and rng.random() < 0.3:
        request["render"] = rng.choice((False, "auto"))
    elif rng.random() < 0.3:
        request["outputs"] = ["html", "text", "markdown", "metadata", "screenshot"]
    if kind.name == "small" and "render" not in request and rng.random() < 0.2:
        request["html"] = small(token).decode()
    return request


# ---- Results ---------------------------------------------------------------------------------------------------------


def result_fault(record: Record, result: dict[str, Any]) -> str | None:
    """What is wrong with a result; None for a right one."""
    try:
        if record.service == "screenshot":
            return picture_fault(record, result)
        return document_fault(record, result)
    except (KeyError, OSError, ValueError) as error:
        return f"cannot be read: {error!r}"


def picture_fault(record: Record, result: dict[str, Any]) -> str | None:
    """Of a screenshot: size and colours."""
    picture = Image.open(BytesIO(base64.b64decode(result["image_base64"], validate=True))).convert("RGB")
    if record.kind.hostile:
        return None
    size = record.request.get("viewport", {"width": 1280, "height": 800})
    width, height = size["width"], size["height"]
    places = {(width - 3, height - 3): colour_of(record.token)}
    if record.kind.name == "bands":
        height = BANDS * BAND_PX
        places = {(width - 3, i * BAND_PX + at): colour_of(record.token, i) for i in range(BANDS) for at in (20, 480)}
    if picture.size != (width, height):
        return f"the picture is {picture.size}, not {(width, height)}"
    for place, colour in places.items():
        found = picture.getpixel(place)
        assert isinstance(found, tuple)
        if any(abs(a - b) > TOLERANCE[record.request["format"]] for a, b in zip(found, colour, strict=True)):
            return f"{place} is {found}, not {colour}"
    return None


def document_fault(record: Record, result: dict[str, Any]) -> str | None:
    """Of a scrape: nobody else's token in it, and its own parts all there."""
    token, html = record.token, result["html"]
    found = set(TOKEN.findall(json.dumps(result)))
    if found - {token}:
        return f"it shows another job: {sorted(found)}"
    wanted = {
        "long": f"{token} {PARAGRAPHS - 1}</p>",
        "app": f'<p id="ready">{token}</p>',
        "button": "clicked</p>",
        "bands": f"{token}</div>",
        "small": token,
    }.get(record.kind.name, "")
    if record.kind.name == "big_document" and not result["meta"]["warnings"]:
        wanted = f"{token} ends"
        if len(html) < BIG_BYTES:
            return f"it has {len(html)} characters"
    if wanted not in html:
        return f"{wanted!r} is missing in {html[:200]!r}"
    if record.kind.hostile:
        return None
    for name in record.request.get("outputs", ()):
        if name == "screenshot":
            data = base64.b64decode(result[name]["image_base64"], validate=True)
            Image.open(BytesIO(data)).load()
        elif token not in json.dumps(result[name]):
            return f"the output {name} is not of this page"
    return None


# ---- The service under test ------------------------------------------------------------------------------------------


def role_of(process: psutil.Process) -> str:
    """What a process of Chromium is: `browser`, `renderer`, `gpu-process`, ...; empty when it is gone."""
    with contextlib.suppress(psutil.Error):
        if not is_alive(process):
            return ""
        for argument in process.cmdline():
            if argument.startswith("--type="):
                return str(argument.removeprefix("--type="))
        name = str(process.name())
        return "browser" if "chrom" in name or "headless" in name else name
    return ""


class Supervised:
    """The program on one port and one folder, started again after each end."""

    def __init__(self, folder: Path, flags: list[str]) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "service.log"
        # Of the whole service, so that what it leaves there can be told from what others do.
        self.temporary = folder / "TMPDIR"
        self.temporary.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.flags = flags
        self.server: Server | None = None
        self.starts = 0
        self.up = trio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> Server:
        """The server; it must run."""
        assert self.server is not None
        return self.server

    async def start(self) -> None:
        """Start it and wait until it listens."""
        command = [sys.executable, str(PROGRAM), "--port", str(self.port), "--data-dir", str(self.data)]
        command += ["--allow-network", "127.0.0.0/8", "--log-format", "json", *self.flags]
        with self.log.open("ab") as log:
            size = log.tell()
            process = await trio.lowlevel.open_process(
                command, stderr=log, stdout=log, env={**os.environ, "TMPDIR": str(self.temporary)}
            )
        self.server = Server(process, self.data, self.url)
        self.starts += 1
        with trio.fail_after(60):
            while not LISTENING.search(self.log.read_bytes()[size:].decode(errors="replace")):
                if process.poll() is not None:
                    raise RuntimeError(f"the service ended with {process.returncode} before it listened: {self.log}")
                await trio.sleep(0.05)
        self.up.set()

    async def end(self, *signals: signal.Signals, gap_s: float = 0.0) -> tuple[int, float]:
        """Send signals; its exit code, and how long it took."""
        server, self.up = self.running, trio.Event()
        server.look()
        started = trio.current_time()
        for number in signals:
            server.process.send_signal(number)
            await trio.sleep(gap_s)
        with trio.fail_after(120):
            code = await server.process.wait()
        return code, trio.current_time() - started

    async def kill(self) -> None:
        """End it without any clean-up."""
        if self.server is not None and self.server.process.returncode is None:
            self.server.process.kill()
            with trio.CancelScope(shield=True):
                await self.server.process.wait()

    def children(self, role: str) -> list[psutil.Process]:
        """Its processes of one role."""
        try:
            return [child for child in self.running.look() if role_of(child) == role]
        except psutil.NoSuchProcess:
            return []


async def until(met: Callable[[], bool]) -> None:
    """Look until it is so: other processes tell nobody when they change."""
    for _ in iter(met, True):
        await trio.sleep(0.1)


async def all_gone(processes: set[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Wait; those that are still alive then."""
    with trio.move_on_after(within_s):
        await until(lambda: not any(map(is_alive, processes)))
    return list(filter(is_alive, processes))


# ---- Figures ---------------------------------------------------------------------------------------------------------


def figures_of(supervised: Supervised) -> dict[str, int]:
    """What the service holds: processes by role, open files by kind, threads, entries of temporary folders."""
    pid = supervised.running.process.pid
    found: Counter[str] = Counter()
    for child in supervised.running.look():
        if role := role_of(child):
            found[f"process {role}"] += 1
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(entry)
            kind = target.partition(":")[0] if ":[" in target and not target.startswith("anon") else target
            found[f"file {kind.replace(str(supervised.folder), '')}"] += 1
    found["threads"] = psutil.Process(pid).num_threads()
    found["entries data/tmp"] = len(os.listdir(supervised.data / "tmp"))
    found["entries TMPDIR"] = len(os.listdir(supervised.temporary))
    return dict(found)


def shared_entries() -> set[str]:
    """What Chromium or the service may have left in folders that all processes share."""
    return {str(path) for root in ("/tmp", "/dev/shm") for glob in TEMPORARY_NAMES for path in Path(root).glob(glob)}


def memory_of(pid: int) -> int:
    """Resident bytes."""
    return int(psutil.Process(pid).memory_info().rss)


# ---- The log ---------------------------------------------------------------------------------------------------------


GIVEN_UP = re.compile(r"browser (\d+) is given up \((\w+)\): (.*)", re.DOTALL)
# The service's own end gives its browsers up too; that is no loss.
CLOSED = "the pool is closed"
# Browsers that lose no page: they are closed when their last one is.
DRAINED = ("uses", "idle")


class Log:
    """The service's log, read when all is over."""

    def __init__(self, path: Path) -> None:
        self.by_job: dict[str, list[str]] = defaultdict(list)
        self.errors: list[tuple[float, str]] = []
        """Lines of level error, tracebacks, and what is no line of the log at all."""
        self.given_up: list[tuple[float, int, str, str]] = []
        """Time, pid, kind of reason and reason of each browser that was lost or replaced."""
        self.renderers_killed: list[float] = []
        """By the service itself, for their memory."""
        self.warnings: Counter[str] = Counter()
        """That are of no job, without their figures."""
        self.browsers = 0
        last = 0.0
        for text in path.read_text(errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if isinstance(line, dict) and "message" in line:
                last = seconds_of(line["time"])
                self._take(line, last)
            else:
                self.errors.append((last, text))

    def _take(self, line: dict[str, Any], at: float) -> None:
        message: str = line["message"]
        if "job_id" in line:
            self.by_job[line["job_id"]].append(f"{line['time'][11:23]} {line['level']} {message}")
        elif line["level"] == "warning":
            self.warnings[re.sub("[0-9]+", "N", message)[:100]] += 1
        if line["level"] in ("error", "critical") or "traceback" in line:
            self.errors.append((at, f"{line['time']} {message}\n{line.get('traceback', '')}".strip()))
        if message.startswith("browser started"):
            self.browsers += 1
        elif message.startswith("renderer ") and " is killed: " in message:
            self.renderers_killed.append(at)
        elif (found := GIVEN_UP.fullmatch(message)) and found[3] != CLOSED:
            self.given_up.append((at, int(found[1]), found[2], found[3]))


# ---- The written table -----------------------------------------------------------------------------------------------

# Faults and what they may make of a job that ran meanwhile, beyond what its page may (`Kind.outcomes`). Losses of the
# browser or of the service are no outcomes: jobs run again, `LOSSES_ALLOWED` times.
FAULT_OUTCOMES: dict[str, frozenset[str]] = {
    "renderer killed": frozenset({"page_crashed"}),
    "gpu process killed": frozenset({"page_crashed"}),
    "browser stopped": frozenset({"timeout"}),
    "browser killed": frozenset(),
    "service killed": frozenset(),
    "service terminated": frozenset(),
    "service terminated twice": frozenset(),
}
# Of synchronous calls, whose connection ends with the service.
SYNC_FAULT_OUTCOMES: dict[str, frozenset[str]] = {
    "service killed": frozenset({"broken"}),
    "service terminated": frozenset({"broken", "draining"}),
    "service terminated twice": frozenset({"broken", "draining"}),
    "browser killed": frozenset({"no_browser"}),
    "browser stopped": frozenset({"no_browser"}),
    "gpu process killed": frozenset({"no_browser"}),
}
# Why the service gives a browser up that nobody harmed: its own settings.
OWN_REASONS = (*DRAINED, "memory")
ENDS = ("service killed", "service terminated", "service terminated twice")


class Judge:
    """Says of each job what the table forbids."""

    def __init__(self, faults: list[Fault], log: Log) -> None:
        self.faults = faults
        self.log = log

    def count(self, window: tuple[float, float], *names: str) -> int:
        """How many faults of these names fell into a time."""
        return sum(fault.name in names and fault.within(window) for fault in self.faults)

    def losses(self, window: tuple[float, float]) -> int:
        """How many browsers were lost within a time."""
        start, end = window[0] - 2, window[1] + 2
        lost = {pid for at, pid, kind, _ in self.log.given_up if kind not in DRAINED and start <= at <= end}
        # Of one that was given up before, its end is not told again.
        harmed = (fault for fault in self.faults if fault.name in ("browser killed", "browser stopped"))
        return len(lost | {fault.pid for fault in harmed if fault.within((start, end))})

    def allowed(self, record: Record) -> set[str]:
        """The outcomes that page and faults allow."""
        window = record.window
        outcomes = set(record.kind.outcomes)
        if record.request.get("on_timeout") == "capture" and "timeout" in outcomes:
            outcomes.add("done")
        for fault in self.faults:
            if fault.within(window):
                outcomes |= FAULT_OUTCOMES[fault.name]
                if record.sync:
                    outcomes |= SYNC_FAULT_OUTCOMES.get(fault.name, frozenset())
        if any(window[0] - SLACK_S <= at <= window[1] + SLACK_S for at in self.log.renderers_killed):
            outcomes.add("page_crashed")
        losses = self.losses(window) + self.count(window, "service killed")
        if losses > LOSSES_ALLOWED:
            outcomes |= {"browser_lost", "worker_lost"}
        if record.sync:
            # The queue is never empty, and jobs of a larger priority go first.
            outcomes.add("deadline")
        return outcomes

    def faults_of(self, record: Record) -> Iterator[str]:
        """What is wrong with one job, as sentences."""
        window, outcome = record.window, record.outcome
        if record.fault is not None:
            yield f"wrong result: {record.fault}"
        if outcome == "unsent":
            if not self.count((record.submitted, record.ended), *ENDS):
                yield f"was not accepted though nothing was done to the service: {record.error}"
            return
        if outcome is None:
            yield "never ended"
            return
        if outcome == "left":
            return
        allowed = self.allowed(record)
        if outcome == "cancelled":
            if record.cancelled is None:
                yield "is cancelled, and nobody did that"
        elif outcome not in allowed:
            yield f"ended as {outcome} ({record.error}); allowed: {', '.join(sorted(allowed))}"
        if record.confirmed is not None:
            state, code = record.confirmed
            if state not in ("done", "failed"):
                yield f"DELETE answered {state}"
            elif outcome != ("done" if state == "done" else code):
                yield f"DELETE answered {state} {code}, and the job ended as {outcome}"
        if not record.sync:
            yield from self._faults_of_attempts(record, allowed, window)

    def _faults_of_attempts(self, record: Record, allowed: set[str], window: tuple[float, float]) -> Iterator[str]:
        attempts, errors = record.meta["attempts"], record.meta["attempt_errors"]
        codes = Counter(error["code"] for error in errors)
        for code in codes.keys() & set(RETRIED_CODES) - allowed:
            yield f"an attempt failed with {code}; allowed: {', '.join(sorted(allowed))}"
        page_failures = sum(codes[code] for code in RETRIED_CODES)
        if page_failures > record.request["retries"] + 1:
            yield f"{page_failures} attempts for {record.request['retries']} retries"
        # A page that dies while it opens is lost too: nothing of what it was to show was in it.
        lost = self.losses(window) + self.count(window, "renderer killed")
        limits = {"browser_lost": lost, "worker_lost": self.count(window, "service killed")}
        for code, limit in limits.items():
            if codes[code] > limit:
                yield f"{codes[code]} attempts {code} where {limit} were lost"
        losses = codes["browser_lost"] + codes["worker_lost"]
        gave_up = record.outcome in ("browser_lost", "worker_lost")
        if losses > LOSSES_ALLOWED + 1 or (gave_up and losses <= LOSSES_ALLOWED):
            yield f"{losses} losses"
        # Each attempt but the last left an error, or was put back when the service ended in order.
        unnoted = attempts - len(errors)
        returned = self.count(window, *ENDS)
        least = 1 if record.outcome == "done" else 0
        if not least <= unnoted <= (0 if record.outcome not in ("done", "cancelled") else 1) + returned:
            yield f"{attempts} attempts and {len(errors)} errors, with {returned} ends of the service"

    def overrun_s(self, record: Record) -> float | None:
        """By how much the only attempt of a job exceeded its time; None where there were several."""
        meta = record.meta
        if record.sync or meta.get("attempts") != 1 or not meta.get("finished_at"):
            return None
        took_s = seconds_of(meta["finished_at"]) - seconds_of(meta["started_at"])
        late_s = LATE_CAPTURE_S if record.request.get("on_timeout") == "capture" else 0.0
        return took_s - float(record.request["timeout_ms"]) / 1000 - late_s

    def unexplained(self, records: list[Record]) -> list[str]:
        """Browsers that were given up though nobody harmed them."""
        harmful = ("browser killed", "browser stopped", "gpu process killed")
        found = []
        for at, pid, kind, reason in self.log.given_up:
            harmed = any(
                fault.pid == pid and fault.name in harmful and fault.at <= at + SLACK_S for fault in self.faults
            )
            if not harmed and kind not in OWN_REASONS:
                shown = ", ".join(one.label for one in records if one.window[0] <= at <= one.window[1] + 2)
                text = f"browser {pid} was given up at {clock(at)} though nobody harmed it: {reason}; running: {shown}"
                found.append(text)
        return found

    def unexpected_errors(self) -> list[str]:
        """Errors in the log; a browser that was killed while it started is none."""
        found = []
        for at, text in self.log.errors:
            killed = self.count((at - 2, at + 2), "browser killed", "browser stopped", "gpu process killed", *ENDS)
            if not ("browser not started" in text and killed):
                found.append(text)
        return found


def clock(at: float) -> str:
    """A time as the log has it."""
    return datetime.fromtimestamp(at, tz=UTC).strftime("%H:%M:%S.%f")[:-3]


# ---- The run ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Plan:
    """How long, how much, and what counts."""

    seed: int
    folder: Path
    chaos_s: float
    """With kills of the service; at least until each fault has been once."""
    calm_s: float
    """In one process of the service; likewise."""
    chaos_faults: tuple[str, ...]
    calm_faults: tuple[str, ...]
    rounds: tuple[str, ...] = ("half", "end")
    """Of the last process: figures are taken after each."""
    workers: int = 3
    outstanding: int = 24
    """Jobs at once, queued ones included."""
    grace_s: float = 3
    settle_s: float = 12
    """Idle time before the first figures are taken: trio's threads end after 10 s of it."""
    uncompared: tuple[str, ...] = ("memory",)
    """Figures that may have grown; memory has a limit of its own."""
    result_ttl_s: float = 120
    fault_gap_s: tuple[float, float] = (2.0, 8.0)
    client_gap_s: tuple[float, float] = (0.2, 3.0)
    """Between clients that misbehave."""
    hostile_timeouts_ms: tuple[int, ...] = HOSTILE_TIMEOUTS_MS
    late_captures: float = 0.15
    """Part of the hostile jobs with `on_timeout: capture`, which last 5 s longer."""
    megabytes: int = 1500
    """What a page that eats memory takes."""
    cancel_s: float = CANCEL_S
    memory_counts: bool = True
    """Whether growth of the service's memory is a violation: in a short run the process is still warming up."""
    shared_folders_count: bool = True
    """Whether entries in /tmp and /dev/shm are: not while others run browsers here."""
    flags: tuple[str, ...] = ()


class Run:
    """One torture run; made by `torture`."""

    def __init__(self, plan: Plan, site: Site, pages: Pages, nursery: trio.Nursery) -> None:
        self.plan = plan
        self.site = site
        self.pages = pages
        self.rng = random.Random(plan.seed)
        flags = ["--workers", str(plan.workers), "--grace", str(plan.grace_s)]
        flags += ["--result-ttl", str(plan.result_ttl_s), *plan.flags]
        self.service = Supervised(plan.folder, flags)
        self.records: list[Record] = []
        self.faults: list[Fault] = []
        self.violations: list[str] = []
        self.notes: Counter[str] = Counter()
        self.memory: list[tuple[float, int]] = []
        self.figures: dict[str, dict[str, int]] = {}
        self.lags: list[tuple[float, float]] = []
        """When this program was late, and how much."""
        self.large: str | None = None
        """A job with a large result."""
        # In turn, so that a short run has them too.
        self.clients = itertools.cycle(CLIENTS)
        self._cancels = itertools.cycle(CANCELS)
        self._leaves = itertools.cycle((False, False, True, False))
        self._nursery = nursery
        self._room = trio.CapacityLimiter(plan.outstanding)
        self._client = self._new_client()

    def _new_client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        return httpx.AsyncClient(base_url=self.service.url, timeout=60, trust_env=False, limits=limits)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        """An answer; None when the connection broke."""
        try:
            return await self._client.request(method, path, **more)
        except httpx.TimeoutException:
            self.violations.append(f"{method} {path} was not answered within 60 s at {clock(time())}")
        except httpx.TransportError:
            pass
        return None

    async def back(self) -> None:
        """Wait until the service runs again; called after a broken connection."""
        await trio.sleep(0.1)
        await self.service.up.wait()

    # Jobs

    async def submit(self) -> None:
        """Keep the service busy for ever."""
        while True:
            await self.service.up.wait()
            record = choose(self.rng, self.pages, self.plan)
            record.cancel_while = "" if record.sync else next(self._cancels)
            if record.cancel_while == "running":
                # Only the cancel ends it.
                record.request["timeout_ms"] = HARMLESS_TIMEOUT_MS
            await self._room.acquire_on_behalf_of(record)
            self.records.append(record)
            self._nursery.start_soon(self.follow, record)

    async def follow(self, record: Record) -> None:
        """One job from its submission to its end."""
        try:
            if record.sync:
                await self.call(record)
            elif await self.create(record):
                if record.cancel_while:
                    self._nursery.start_soon(self.cancel, record)
                await self.poll(record)
        finally:
            self._room.release_on_behalf_of(record)

    async def create(self, record: Record) -> bool:
        """Whether the job was acknowledged."""
        body = {"request": record.request, "priority": record.priority}
        answer = await self.ask("POST", f"/{record.service}/v1/jobs", json=body)
        if answer is not None and answer.status_code == 202:
            record.job_id = answer.json()["job_id"]
            return True
        # Perhaps it runs all the same: nobody was told.
        record.outcome, record.ended = "unsent", time()
        record.error = answer.text if answer is not None else "the connection broke"
        return False

    async def poll(self, record: Record) -> None:
        """Follow a job by long-polls, some of which are left half-way."""
        while True:
            with trio.move_on_after(math.inf if self.rng.random() < 0.8 else self.rng.random()) as patience:
                answer = await self.ask("GET", f"/v1/jobs/{record.job_id}?wait={self.rng.choice((1, 5, 20))}")
            if patience.cancelled_caught:
                self.notes["long-polls left"] += 1
                continue
            if answer is None:
                await self.back()
                continue
            if answer.status_code != 200:
                record.outcome, record.error, record.ended = f"HTTP {answer.status_code}", answer.text, time()
                return
            job = answer.json()
            if job["status"] in ("done", "failed"):
                self.end(record, job)
                return

    def end(self, record: Record, job: dict[str, Any]) -> None:
        """Take down a job's end."""
        record.ended, record.meta, record.error = time(), job["meta"], job.get("error", "")
        if job["status"] == "failed":
            record.outcome = job["error_detail"]["code"]
            return
        record.outcome, record.fault = "done", result_fault(record, job["result"])
        record.digest = digest_of(job["result"])
        if record.kind.name == "big_document":
            self.large = record.job_id

    async def call(self, record: Record) -> None:
        """A synchronous call; some clients leave."""
        leaves = next(self._leaves)
        with trio.move_on_after(self.rng.uniform(0.05, 2) if leaves else math.inf) as patience:
            answer = await self.ask("POST", f"/v1/{record.service}", json=record.request)
        record.ended = time()
        if patience.cancelled_caught:
            record.outcome, record.cancelled = "left", record.ended
            self.notes["synchronous callers left"] += 1
        elif answer is None:
            record.outcome = "broken"
            await self.back()
        elif answer.status_code == 200:
            record.outcome, record.fault = "done", result_fault(record, answer.json())
        else:
            error = answer.json()["error"]
            record.outcome, record.error, record.job_id = error["code"], error["message"], error.get("job_id")

    async def cancel(self, record: Record) -> None:
        """DELETE a job soon, or once it has run for a moment."""
        if record.cancel_while == "running":
            await until(lambda: record.outcome is not None or self.pages.attempts[record.token] > 0)
            await trio.sleep(self.rng.uniform(0, 1))
        else:
            await trio.sleep(self.rng.uniform(0, 3))
        while record.outcome is None:
            record.cancelled = record.cancelled or time()
            answer = await self.ask("DELETE", f"/v1/jobs/{record.job_id}")
            if answer is not None and answer.status_code == 200:
                job = answer.json()
                record.confirmed = job["status"], job.get("error_detail", {}).get("code")
                self.notes[f"cancelled while {record.cancel_while}"] += 1
                return
            await self.back()

    async def audit(self, most: int) -> None:
        """Look again at jobs that ended: they must be as they were, their results too, until their time is over."""
        ttl_s = self.plan.result_ttl_s
        known = [one for one in self.records if not one.sync and one.meta and time() - one.ended < 2.5 * ttl_s]
        cancelled = [one for one in known if one.outcome == "cancelled"]
        for record in self.rng.sample(known, min(most, len(known))) + cancelled[-most:]:
            await self._look_again(record, ttl_s)

    async def _look_again(self, record: Record, ttl_s: float) -> None:
        age_s = time() - seconds_of(record.meta["finished_at"])
        answer = await self.ask("GET", f"/v1/jobs/{record.job_id}")
        if answer is None:
            return
        self.notes["ended jobs looked at again"] += 1
        late_s = time() - seconds_of(record.meta["finished_at"])
        # Retention looks every quarter of its time.
        if answer.status_code == 404:
            fault = None if late_s > 2 * ttl_s else "is not known any more"
        elif answer.status_code == 410:
            fault = None if late_s > ttl_s and record.outcome == "done" else "is expired already"
        else:
            job = answer.json()
            now = "done" if job["status"] == "done" else job.get("error_detail", {}).get("code", job["status"])
            fault = None if now == record.outcome else f"was {record.outcome} and is {now}"
            if not fault and age_s > 1.25 * ttl_s + 5 and now == "done":
                fault = f"has its result still after {age_s:.0f} s"
            if not fault and now == "done" and digest_of(job["result"]) != record.digest:
                fault = "has another result than before"
        if fault:
            self.violations.append(f"job {record.label} looked at again at {clock(time())}: {fault}")

    # Phases

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Jobs, bad clients and looks back while the body runs."""
        async with open_tasks() as tasks:
            tasks.start_soon(self.submit)
            tasks.start_soon(misbehave, self)
            tasks.start_soon(self.watch)
            tasks.start_soon(self.listen)
            yield

    async def listen(self) -> None:
        """Note when this program itself was late: what it saw then, it saw too late."""
        while True:
            due = time() + LOOK_S
            await trio.sleep(LOOK_S)
            if (late_s := time() - due) > LOOK_S:
                self.lags.append((time(), late_s))

    def lag_s(self, start: float, end: float) -> float:
        """How late this program was within a time, all in all."""
        return sum(late_s for at, late_s in self.lags if start <= at and at - late_s <= end)

    async def watch(self) -> None:
        """Now and then: memory, ended jobs; and the site's own record of requests is not needed."""
        while True:
            await trio.sleep(3)
            await self.service.up.wait()
            self.site.requests.clear()
            with contextlib.suppress(psutil.Error):
                self.memory.append((time(), memory_of(self.service.running.process.pid)))
            asked = time()
            if (await self.ask("GET", "/livez")) is not None:
                took_s = time() - asked - self.lag_s(asked, time())
                self.notes["livez: longest, ms"] = max(self.notes["livez: longest, ms"], round(took_s * 1000))
            await self.audit(3)

    async def harm(self, names: tuple[str, ...], seconds: float) -> None:
        """Faults, each once and then at random until the time is over."""
        until = trio.current_time() + seconds
        ahead = self.rng.sample(names, len(names))
        while ahead or trio.current_time() < until:
            await trio.sleep(self.rng.uniform(*self.plan.fault_gap_s))
            name = ahead.pop() if ahead else self.rng.choices(names, [FAULTS[name][1] for name in names])[0]
            await FAULTS[name][0](self)

    async def drain(self) -> None:
        """Wait until no job is left; connections of our own are closed then."""
        unended = -1
        with trio.move_on_after(DRAIN_S):
            await until(lambda: not self._room.borrowed_tokens)
            # Also those of callers that left, and of clients that no answer reached.
            while unended:
                unended = await self.unended()
                await trio.sleep(0.2)
        if unended:
            self.violations.append(f"jobs had not ended after {DRAIN_S} s, at {clock(time())}")
        await self.close()
        self._client = self._new_client()

    async def unended(self) -> int:
        """How many jobs the service itself calls queued or running."""
        lists = [await self.ask("GET", f"/v1/jobs?status={status}") for status in ("queued", "running")]
        return sum(len(answer.json()["jobs"]) if answer is not None else 1 for answer in lists)

    async def close(self) -> None:
        """End our own connections."""
        with trio.CancelScope(shield=True):
            await self._client.aclose()

    async def settle(self, name: str, start: dict[str, int] | None = None) -> None:
        """Take the figures of an idle service, once they are no more than at its start, or its time is over."""
        await self.drain()
        await until(lambda: all(fault.until < math.inf for fault in self.faults))
        with trio.move_on_after(SETTLE_S if start is not None else self.plan.settle_s):
            await until(lambda: start is not None and not self.excess(start, figures_of(self.service)))
        samples = []
        for _ in range(5 if self.plan.memory_counts else 1):
            samples.append(memory_of(self.service.running.process.pid))
            await trio.sleep(0.5)
        self.figures[name] = figures_of(self.service) | {"memory": int(statistics.median(samples))}

    def excess(self, start: dict[str, int], now: dict[str, int]) -> dict[str, tuple[int, int]]:
        """Figures that have grown, as pairs."""
        return {
            name: (start.get(name, 0), value)
            for name, value in now.items()
            if value > start.get(name, 0) and name not in self.plan.uncompared
        }

    async def chaos(self) -> None:
        """Everything may fail."""
        async with self.load():
            await self.harm(self.plan.chaos_faults, self.plan.chaos_s)

    async def calm(self) -> None:
        """One process of the service; the browser and the clients go on failing."""
        async with self.load():
            await trio.sleep(min(30.0, 1 + self.plan.calm_s / 8))
            if self.plan.memory_counts:
                await self.warm_up()
        await self.settle("start")
        for name in self.plan.rounds:
            async with self.load():
                await self.harm(self.plan.calm_faults, self.plan.calm_s / len(self.plan.rounds))
                # A short run goes on until everything has been.
                await until(lambda: all(self.notes[note] for note in NOTES))
            await self.settle(name, self.figures["start"])

    async def warm_up(self) -> None:
        """Have the largest trees built, twice each: what the interpreter keeps of them depends on luck else.

        100,000 elements, all outputs: 60 MB become 93 to 98, and stay there however often it is done again.
        """
        for name in ("many_elements", "big_document") * 2:
            outputs = ["html", "text", "markdown", "links", "metadata"]
            request = {"url": self.pages.url(name, "torture-warm-up"), "outputs": outputs, "timeout_ms": 60_000}
            await self.ask("POST", "/v1/scrape", json=request)

    async def stop(self) -> None:
        """SIGTERM of an idle service: nothing may be left."""
        await end_in_order(self, signal.SIGTERM)


def digest_of(result: dict[str, Any]) -> str:
    """Of a result without what may differ between two readings: nothing."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


async def torture(plan: Plan) -> Report:
    """Carry out a plan."""
    began, shared = time(), shared_entries()
    async with open_site() as site, open_tasks() as nursery:
        run = Run(plan, site, mount(site), nursery)
        try:
            await run.service.start()
            await run.chaos()
            # The jobs that wait are the next process's.
            await end_in_order(run, signal.SIGTERM)
            await run.service.start()
            await run.calm()
            await run.stop()
            await run.service.start()
            await run.audit(200)
            await run.stop()
        finally:
            await run.service.kill()
            await run.close()
        if plan.shared_folders_count:
            left = shared_entries() - shared
            with trio.move_on_after(SETTLE_S):
                await until(lambda: not any(map(os.path.lexists, left)))
            if left := set(filter(os.path.lexists, left)):
                run.violations.append(f"left behind: {', '.join(sorted(left))}")
        return Report(run, began)


# ---- Clients that misbehave ------------------------------------------------------------------------------------------


async def misbehave(run: Run) -> None:
    """One bad client after the other, several at once."""
    async with trio.open_nursery() as nursery:
        for name in run.clients:
            await run.service.up.wait()
            run.notes[f"clients: {name}"] += 1
            nursery.start_soon(bad_client, run, CLIENTS[name])
            await trio.sleep(run.rng.uniform(*run.plan.client_gap_s))


async def bad_client(run: Run, act: Callable[[Run, trio.SocketStream], Awaitable[None]]) -> None:
    """A bare connection with a small buffer, for at most 10 s."""
    with contextlib.suppress(OSError, trio.BrokenResourceError), trio.move_on_after(10):
        async with await bare_stream(run.service.port, receive_bytes=4096) as stream:
            await act(run, stream)


async def half_a_head(run: Run, stream: trio.SocketStream) -> None:
    await stream.send_all(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-")
    await trio.sleep(run.rng.uniform(0, 8))


async def half_a_body(run: Run, stream: trio.SocketStream) -> None:
    whole = raw_request("POST", "/v1/jobs", b" " * 1000)
    await stream.send_all(whole[:-500])
    await trio.sleep(run.rng.uniform(0, 8))


async def nonsense(run: Run, stream: trio.SocketStream) -> None:
    await stream.send_all(run.rng.randbytes(200) + b"\r\n\r\n")
    await stream.receive_some(1000)


async def stop_reading(run: Run, stream: trio.SocketStream) -> None:
    path = f"/v1/jobs/{run.large}" if run.large else "/v1/jobs?limit=1000"
    await stream.send_all(raw_request("GET", path + run.rng.choice(("", "/result") if run.large else ("",))))
    await stream.receive_some(100)
    await trio.sleep(run.rng.uniform(0, 10))


async def read_slowly(run: Run, stream: trio.SocketStream) -> None:
    await stream.send_all(raw_request("GET", "/v1/jobs?limit=100"))
    async for _ in stream:
        await trio.sleep(0.05)


async def leave_at_once(run: Run, stream: trio.SocketStream) -> None:
    url = run.pages.url("never", f"torture-{run.rng.getrandbits(64):016x}")
    await stream.send_all(raw_request("POST", "/v1/scrape", json.dumps({"url": url, "timeout_ms": 2000}).encode()))


CLIENTS: dict[str, Callable[[Run, trio.SocketStream], Awaitable[None]]] = {
    "half a head": half_a_head,
    "half a body": half_a_body,
    "nonsense": nonsense,
    "stops reading": stop_reading,
    "reads slowly": read_slowly,
    "leaves at once": leave_at_once,
}

# What clients do that must have been in each run.
NOTES = (
    *(f"clients: {name}" for name in CLIENTS),
    "cancelled while queued",
    "cancelled while running",
    "long-polls left",
    "synchronous callers left",
)

# ---- Faults ----------------------------------------------------------------------------------------------------------


async def victim(run: Run, role: str) -> psutil.Process | None:
    """A process of the browser; waits for one, since the browser may just be starting."""
    with trio.move_on_after(20):
        while True:
            if found := run.service.children(role):
                return run.rng.choice(found)
            await trio.sleep(0.1)
    run.violations.append(f"no {role} process for 20 s at {clock(time())}")
    return None


def killing(name: str, role: str) -> Callable[[Run], Awaitable[None]]:
    """`kill -9` of one process of the browser."""

    async def kill(run: Run) -> None:
        if (process := await victim(run, role)) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                # Of the browser's main process, by which the log calls it.
                main = next((one.pid for one in [process, *process.parents()] if role_of(one) == "browser"), None)
                process.kill()
                run.faults.append(Fault(name, pid=main))

    return kill


async def stop_browser(run: Run) -> None:
    """SIGSTOP of the browser's main process; the service must notice."""
    process = await victim(run, "browser")
    if process is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process.suspend()
    fault = Fault("browser stopped", until=math.inf, pid=process.pid)
    run.faults.append(fault)

    async def follow() -> None:
        alive = await all_gone({process}, HANG_S)
        fault.until = time()
        if alive:
            run.violations.append(f"browser {process.pid} hung from {clock(fault.at)} on, and was never replaced")
            process.kill()
        else:
            run.notes["seconds until a hung browser was gone"] += round(fault.until - fault.at)

    run._nursery.start_soon(follow)


async def kill_service(run: Run) -> None:
    """`kill -9` of the service: its processes must go with it, or at the latest with its next start."""
    processes = set(run.service.running.look())
    run.faults.append(fault := Fault("service killed"))
    await run.service.end(signal.SIGKILL)
    alive = await all_gone(processes, ORPHANS_S)
    await run.service.start()
    if alive:
        run.notes["kills that left processes until the next start"] += 1
        if alive := await all_gone(set(alive), ORPHANS_S):
            run.violations.append(f"a killed service left {alive} at {clock(fault.at)}")
    fault.until = time()
    await run.audit(20)


async def end_in_order(run: Run, *signals: signal.Signals) -> None:
    """SIGTERM, once or more: exit code 0, in time, and nothing is left."""
    name = "service terminated" if len(signals) == 1 else "service terminated twice"
    run.faults.append(fault := Fault(name, until=math.inf))
    processes = set(run.service.running.look())
    code, took_s = await run.service.end(*signals, gap_s=run.rng.uniform(0.05, 1) if len(signals) > 1 else 0)
    fault.until = time()
    limit_s = (run.plan.grace_s if len(signals) == 1 else 1) + EXIT_S
    if code != 0 or took_s > limit_s:
        run.violations.append(f"{name} at {clock(fault.at)}: exit code {code} after {took_s:.1f} s")
    run.notes[f"{name}: longest, ms"] = max(run.notes[f"{name}: longest, ms"], round(took_s * 1000))
    alive = await all_gone(processes | run.service.running.children, 1)
    left = os.listdir(run.service.data / "tmp") + os.listdir(run.service.temporary)
    if alive or left:
        run.violations.append(f"{name} at {clock(fault.at)}: left {alive} {left}")


def ending(*signals: signal.Signals) -> Callable[[Run], Awaitable[None]]:
    """The service ends in order and starts again."""

    async def end(run: Run) -> None:
        await end_in_order(run, *signals)
        await run.service.start()
        run.faults[-1].until = max(run.faults[-1].until, time())
        await run.audit(20)

    return end


# With how often, against the others.
FAULTS: dict[str, tuple[Callable[[Run], Awaitable[None]], float]] = {
    "renderer killed": (killing("renderer killed", "renderer"), 8),
    "gpu process killed": (killing("gpu process killed", "gpu-process"), 2),
    "browser killed": (killing("browser killed", "browser"), 3),
    "browser stopped": (stop_browser, 1),
    "service killed": (kill_service, 1.5),
    "service terminated": (ending(signal.SIGTERM), 1),
    "service terminated twice": (ending(signal.SIGTERM, signal.SIGTERM), 0.7),
}

# ---- The report ------------------------------------------------------------------------------------------------------


class Report:
    """What a run found."""

    def __init__(self, run: Run, began: float) -> None:
        self.run = run
        self.seconds = time() - began
        self.log = Log(run.service.log)
        self.judge = Judge(run.faults, self.log)
        self.violations = [*run.violations, *self._of_jobs(), *self._of_cancels(), *self._of_figures()]
        self.violations += self.judge.unexplained(run.records)
        self.violations += [f"error in the log: {text}" for text in self.judge.unexpected_errors()]
        self.violations += [f"the site broke: {fault!r}" for fault in run.site.faults]

    def _of_jobs(self) -> Iterator[str]:
        for record in self.run.records:
            overrun_s = self.judge.overrun_s(record)
            faults = list(self.judge.faults_of(record))
            if overrun_s is not None and overrun_s > CLEANUP_S:
                faults.append(f"took {overrun_s:.1f} s more than its time")
            if faults:
                window = " to ".join(clock(at) if at < math.inf else "?" for at in record.window)
                lines = self.log.by_job.get(record.job_id or "", [])
                yield "\n    ".join([f"job {record.label}, {window}: {'; '.join(faults)}", *lines])

    def cancel_latencies(self) -> dict[Record, float]:
        """By job: from the DELETE, or the caller's leaving, to the last that the site heard of its page."""
        judged = {}
        for record in self.run.records:
            if record.cancelled is not None and record.outcome in ("cancelled", "left"):
                heard = self.run.pages.last.get(record.token, 0.0)
                window = record.cancelled, max(heard, record.cancelled)
                if not self.judge.count(window, *ENDS):
                    judged[record] = max(0.0, heard - record.cancelled - self.run.lag_s(*window))
        return judged

    def _of_cancels(self) -> Iterator[str]:
        for record, latency_s in self.cancel_latencies().items():
            if latency_s > self.run.plan.cancel_s:
                at = clock(record.cancelled or 0)
                yield f"job {record.label}: its page made requests for {latency_s:.1f} s after it was cancelled at {at}"
        for token, count in self.run.pages.open.items():
            yield f"{count} requests of job {token} are still open"

    def _of_figures(self) -> Iterator[str]:
        figures = self.run.figures
        for name in self.run.plan.rounds:
            for what, (before, now) in self.run.excess(figures["start"], figures[name]).items():
                yield f"leak at the {name}: {what}: {before} at the start, {now}"
        if self.run.plan.memory_counts and self.memory_ratio > MEMORY_RATIO:
            yield f"memory at the end is {self.memory_ratio:.3f} times that at half time"

    @property
    def memory_ratio(self) -> float:
        """End of the last process against its half time."""
        first, last = self.run.plan.rounds[0], self.run.plan.rounds[-1]
        return self.run.figures[last]["memory"] / self.run.figures[first]["memory"]

    def summary(self) -> dict[str, Any]:
        """All figures."""
        records, latencies = self.run.records, sorted(self.cancel_latencies().values())
        overruns = [(late_s, one.label) for one in records if (late_s := self.judge.overrun_s(one)) is not None]
        outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        for record in records:
            outcomes[record.kind.name][record.outcome or "none"] += 1
        slowest = sorted(records, key=lambda one: one.ended - one.submitted, reverse=True)[:5]
        return {
            "seconds": round(self.seconds),
            "seed": self.run.plan.seed,
            "jobs": len(records),
            "acknowledged": sum(one.job_id is not None and not one.sync for one in records),
            "hostile": sum(one.kind.hostile for one in records),
            "synchronous": sum(one.sync for one in records),
            "outcomes by kind": {name: dict(counts.most_common()) for name, counts in outcomes.items()},
            "outcomes": dict(Counter(one.outcome or "none" for one in records).most_common()),
            "attempts": dict(sorted(Counter(one.meta["attempts"] for one in records if one.meta).items())),
            "faults": dict(Counter(fault.name for fault in self.run.faults).most_common()),
            "largest lag of this program, s": round(max((late_s for _, late_s in self.run.lags), default=0), 2),
            "notes": dict(sorted(self.run.notes.items())),
            "starts of the service": self.run.service.starts,
            "browsers started": self.log.browsers,
            "browsers given up": dict(Counter(f"{kind}: {reason}" for _, _, kind, reason in self.log.given_up)),
            "renderers killed by the service": len(self.log.renderers_killed),
            "warnings of no job": dict(self.log.warnings.most_common(12)),
            "slowest jobs, s": {one.label: round(one.ended - one.submitted, 1) for one in slowest},
            "largest overruns, s": {label: round(late_s, 2) for late_s, label in sorted(overruns, reverse=True)[:5]},
            "cancels": len(latencies),
            "cancel latency, s: median, 99 %, largest": [
                round(latencies[min(len(latencies) - 1, int(len(latencies) * part))], 2) for part in (0.5, 0.99, 1)
            ]
            if latencies
            else [],
            "figures": self.run.figures,
            "memory ratio": round(self.memory_ratio, 4),
            "memory, MB": [round(value / 2**20) for _, value in self.run.memory[:: max(1, len(self.run.memory) // 40)]],
            "violations": self.violations,
        }

    def text(self) -> str:
        """The figures to be read."""
        lines = []
        for name, value in self.summary().items():
            if name == "violations":
                continue
            if isinstance(value, dict) and name != "figures" and len(str(value)) > 100:
                lines.append(f"{name}:")
                lines += [
                    f"    {key}: {each if not isinstance(each, dict) else words(each)}" for key, each in value.items()
                ]
            elif name == "figures":
                keys = sorted({key for figures in value.values() for key in figures})
                lines.append(f"{'figures':40}" + "".join(f"{one:>14}" for one in value))
                lines += [f"    {key:36}" + "".join(f"{value[one].get(key, 0):14,}" for one in value) for key in keys]
            else:
                lines.append(f"{name}: {words(value) if isinstance(value, dict) else value}")
        lines.append(f"violations: {len(self.violations)}")
        lines += [f"- {violation}" for violation in self.violations]
        return "\n".join(lines)


def words(counts: dict[str, Any]) -> str:
    """Counts on one line."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


# ---- Command line ----------------------------------------------------------------------------------------------------


def main() -> int:
    """Run, print, write JSON; 1 when there are violations."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for data, log and torture.json; default: a new one in /tmp")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--flag", action="append", default=[], help="one more for the service, as --flag=--browsers=2")
    given = parser.parse_args()
    seconds = given.minutes * 60
    # Half of the last process is several times what ended jobs are kept, so that their number is steady.
    calm_s = max(seconds / 3, 480.0) if given.minutes >= 20 else seconds / 3
    plan = Plan(
        seed=given.seed,
        folder=given.folder or Path(tempfile.mkdtemp(prefix="torture-")),
        chaos_s=seconds - calm_s,
        calm_s=calm_s,
        chaos_faults=tuple(FAULTS),
        calm_faults=tuple(name for name in FAULTS if name not in ENDS),
        workers=given.workers,
        result_ttl_s=max(10.0, calm_s / 5),
        memory_counts=given.minutes >= 20,
        flags=tuple(given.flag),
    )
    print(f"{given.minutes:g} minutes, seed {given.seed}, log in {plan.folder}", flush=True)
    report = trio.run(torture, plan)
    faults = [[clock(fault.at), clock(fault.until) if fault.until else "", fault.name] for fault in report.run.faults]
    (plan.folder / "torture.json").write_text(json.dumps(report.summary() | {"faults in order": faults}, indent=1))
    print(report.text())
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
