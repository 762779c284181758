"""A browser's processes as /proc shows them: one process group, whose leader is the main process; and their memory."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path

import attrs

# In a profile folder: which group runs on it, for who finds the folder after its owner was killed.
NOTE = "group"
# Bytes: a process may have any name, also one cut inside a letter.
_HELD = re.compile(rb"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)


@attrs.frozen
class Process:
    """A process that is alive."""

    pid: int
    started: int
    """Clock ticks after boot: with the pid it names a process."""

    def cpu_s(self) -> float:
        """CPU seconds that it took, with those of the children it waited for."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return 0.0
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def held_bytes(self) -> int:
        """Memory that only its end gives back: without the mapped files, which are most of a small renderer's RSS."""
        try:
            return sum(map(int, _HELD.findall(Path(f"/proc/{self.pid}/status").read_bytes()))) * 1024
        except OSError:
            return 0

    def is_renderer(self) -> bool:
        """Whether it holds pages, of one browser context only."""
        try:
            return b"--type=renderer" in Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False


def _read(pid: int) -> Process | None:
    """The process of a number; None for one that is gone, or only waits for PID 1 to reap it."""
    try:
        # The name in field 2 may hold anything, `)` included; state is field 3 of proc(5).
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in b"ZX" else Process(pid, int(fields[19]))


def of_group(group: int) -> list[Process]:
    """The live processes of a group; none where the system has no file left to look with."""
    members = []
    with contextlib.suppress(OSError):
        for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            with contextlib.suppress(OSError):
                # 50 times as fast as to read a file of each.
                if os.getpgid(pid) == group and (process := _read(pid)) is not None:
                    members.append(process)
    return members


def memory_bytes() -> int:
    """What this machine has, or this container may use."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int(Path(limit).read_text()))
    return min(sizes)


def note_group(profile: Path, leader: int) -> None:
    """Leave a note in a profile folder of the group that runs on it; raises OSError."""
    process = _read(leader)
    if process is not None:
        (profile / NOTE).write_text(f"{_system()} {leader} {process.started}")


def end_leftovers(profiles: Path) -> int:
    """Kill what still runs on the profile folders of a killed process, by their notes; returns how many processes."""
    killed = 0
    for note in profiles.glob(f"*/{NOTE}"):
        try:
            system, leader, started = note.read_text().rsplit(" ", 2)
            members = of_group(int(leader))
        except (OSError, ValueError):
            continue
        # The number may be somebody else's by now.
        if system != _system() or any(one.pid == int(leader) and one.started != int(started) for one in members):
            continue
        for member in members:
            with contextlib.suppress(OSError):
                os.kill(member.pid, signal.SIGKILL)
                killed += 1
    return killed


def _system() -> str:
    """Names the run of the system, or of the container, in which process numbers mean something."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
