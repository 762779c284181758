"""What processes use, as /proc tells: processor time to the nanosecond, where the kernel has it, and memory.

Machine-wide time is what /proc/stat counts as busy, and so includes whoever else is at work. The processes of a browser
come and go: their time is the sum over all descendants of a process that live, and of what those have reaped.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from cdp.processes import Process

TICKS = os.sysconf("SC_CLK_TCK")
# Between two looks at memory: each costs 0.1 ms a process.
LOOK_S = 0.25


def machine_cpu_s() -> float:
    """Busy time of all cores since boot."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def cpu_s(pid: int) -> float:
    """Of one process, its threads that ended too."""
    # clock_getcpuclockid(3); -1 in the kernel's own arithmetic, 2 is the scheduler's clock.
    return time.clock_gettime(~pid << 3 | 2)


def descendants(pid: int) -> list[int]:
    """All that live below a process."""
    children = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                children[int(fields[1])].append(int(name))
    found = [pid]
    for one in found:
        found += children[one]
    return found[1:]


def browser_cpu_s(pid: int) -> float:
    """Of all descendants of a process, and of those that they have reaped."""
    ticks = 0
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_bytes().rpartition(b")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS


def browser_held_bytes(pid: int) -> int:
    """Memory of all descendants of a process, without mapped files; what they share is counted for each."""
    return sum(Process(one, 0).held_bytes() for one in descendants(pid))


def forget_peak(pid: int) -> None:
    """Begin the peak of resident memory anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def memory_kb(pid: int, field: str) -> int:
    """`VmRSS` or `VmHWM`, the peak, of one process."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def open_files(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@attrs.define
class Usage:
    """Of a contender, whose browser is what lives below it, while it did something."""

    machine_cpu_s: float
    own_cpu_s: float
    browser_cpu_s: float
    own_peak_mb: float = 0
    browser_peak_mb: float = 0

    def each(self, count: int) -> Usage:
        """Of one of `count` things that were done."""
        return attrs.evolve(
            self,
            machine_cpu_s=self.machine_cpu_s / count,
            own_cpu_s=self.own_cpu_s / count,
            browser_cpu_s=self.browser_cpu_s / count,
        )


@asynccontextmanager
async def measured(pid: int) -> AsyncIterator[Usage]:
    """What is used while the body runs; filled in at its end."""

    def cpu() -> tuple[float, float, float]:
        return machine_cpu_s(), cpu_s(pid), browser_cpu_s(pid)

    peak = 0

    async def look() -> None:
        nonlocal peak
        while True:
            peak = max(peak, browser_held_bytes(pid))
            await trio.sleep(LOOK_S)

    forget_peak(pid)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        usage = Usage(*(-used for used in cpu()))
        yield usage
        machine, own, browser = cpu()
        usage.machine_cpu_s += machine
        usage.own_cpu_s += own
        usage.browser_cpu_s += browser
        nursery.cancel_scope.cancel()
    usage.own_peak_mb = memory_kb(pid, "VmHWM") / 1000
    usage.browser_peak_mb = max(peak, browser_held_bytes(pid)) / 1e6
