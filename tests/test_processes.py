"""cdp/processes.py: what /proc tells of a group, and what is left of a killed service's browsers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import cdp
from cdp.launcher import find_browser, launch
from cdp.processes import NOTE, end_leftovers, note_group, of_group

from .site import Site

MB = 2**20
QUICK_S = 20


@contextmanager
def sleeper(*, session: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a group of its own, and would do so for long."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=session) as process:
        try:
            yield process
        finally:
            process.kill()


def test_group_is_not_misled_by_the_name_of_a_process(tmp_path: Path) -> None:
    # /proc tells the name between brackets, right before the state.
    odd = tmp_path / "x) Z 1 1"
    shutil.copy("/bin/sleep", odd)
    with subprocess.Popen([odd, "1000"], start_new_session=True) as process:
        try:
            seen = [one.pid for one in of_group(process.pid)]
        finally:
            process.kill()
    assert (seen, of_group(process.pid)) == ([process.pid], [])


def test_group_counts_nobody_who_only_waits_to_be_reaped() -> None:
    # Helpers of a dead browser stay like this until PID 1 takes them, for ever in a container without an init.
    with subprocess.Popen(["true"], start_new_session=True) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not of_group(process.pid)


def test_group_has_the_children_too() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 1000 & echo; wait"], start_new_session=True, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(of_group(process.pid)) == 2
        os.killpg(process.pid, signal.SIGKILL)


def test_held_memory_is_what_the_process_filled() -> None:
    program = "import sys; kept = b'x' * int(sys.argv[1]); print(flush=True); sys.stdin.read()"
    held = []
    for size in (0, 64 * MB):
        command = [sys.executable, "-c", program, str(size)]
        with subprocess.Popen(command, stdin=-1, stdout=-1, start_new_session=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            held.append(of_group(process.pid)[0].held_bytes())
            process.communicate()
    assert held[1] - held[0] == pytest.approx(64 * MB, rel=0.05)


def test_held_memory_of_a_process_that_is_gone_is_none() -> None:
    with sleeper() as process:
        (seen,) = of_group(process.pid)
    assert (seen.held_bytes(), seen.is_renderer()) == (0, False)


async def test_page_has_a_renderer(tmp_path: Path, policy: cdp.AddressPolicy, site: Site) -> None:
    async with cdp.open_browser(policy=policy) as browser, browser.open_page() as page:
        await page.navigate(site.url("/ok"))
        assert browser.pid is not None
        assert any(process.is_renderer() for process in of_group(browser.pid))


# What a killed service leaves


async def test_profile_names_the_group_that_runs_on_it(tmp_path: Path) -> None:
    async with launch(find_browser(), profile_root=tmp_path) as process:
        (profile,) = tmp_path.iterdir()
        assert (profile / NOTE).read_text().split()[-2] == str(process.pid)


def test_leftovers_are_killed(tmp_path: Path) -> None:
    with sleeper() as process:
        (tmp_path / "profile").mkdir()
        note_group(tmp_path / "profile", process.pid)
        assert end_leftovers(tmp_path) == 1
        assert process.wait(QUICK_S) == -signal.SIGKILL


async def test_stopped_helpers_of_a_dead_browser_are_killed(tmp_path: Path) -> None:
    # What is stopped does not notice that its browser is gone.
    async with launch(find_browser(), profile_root=tmp_path) as process:
        for helper in of_group(process.pid):
            if helper.pid != process.pid:
                os.kill(helper.pid, signal.SIGSTOP)
        os.kill(process.pid, signal.SIGKILL)
        await process.exited.wait()
        stopped = [psutil.Process(one.pid) for one in of_group(process.pid)]
        assert end_leftovers(tmp_path) == len(stopped) > 0
        psutil.wait_procs(stopped, timeout=QUICK_S)
        assert not of_group(process.pid)


@pytest.mark.parametrize("field", [0, 1, 3], ids=["boot", "namespace", "start"])
def test_number_that_is_somebody_else_s_by_now_is_left_alone(field: int, tmp_path: Path) -> None:
    with sleeper() as process:
        (tmp_path / "profile").mkdir()
        note_group(tmp_path / "profile", process.pid)
        note = tmp_path / "profile" / NOTE
        fields = note.read_text().split(" ")
        fields[field] = "1"
        note.write_text(" ".join(fields))
        assert (end_leftovers(tmp_path), process.poll()) == (0, None)


@pytest.mark.parametrize("text", ["", "nonsense", "a b c d", "a b -1 x"])
def test_note_that_says_nothing_kills_nobody(text: str, tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / NOTE).write_text(text)
    assert end_leftovers(tmp_path) == 0
