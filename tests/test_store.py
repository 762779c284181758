"""Jobs and artifacts on disk: what comes back, what is swept, what expires."""

from __future__ import annotations

import errno
import inspect
import math
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import cleariflow
from cdp.tasks import open_tasks
from cleariflow import Artifact, Ended, Job, JobFailed, State, Step, Store, StoreError, fail, transition


@asynccontextmanager
async def open_store(folder: Path, disk_budget: float = math.inf) -> AsyncIterator[Store]:
    """A store with its writer, closed at the end."""
    store = Store(folder, disk_budget)
    async with open_tasks() as tasks:
        await tasks.start(store.run)
        yield store


def new_job(store: Store, **fields: Any) -> Job:
    """A job that the store knows, in memory only."""
    number = store.next_number()
    given: dict[str, Any] = {"id": f"job-{number}", "service": "scrape", "request": {"url": "http://a.b/"}}
    job = Job(number=number, **given | fields)
    store.add(job)
    return job


# Filters of a list that holds all jobs.
EVERY: dict[str, Any] = {"service": None, "state": None, "before": None, "limit": 999}


async def ended_job(
    store: Store, seconds_ago: float = 0.0, artifact: bytes = b"<html>", outputs: tuple[str, ...] = ("html",)
) -> Job:
    """A job that is done since then, with its artifacts."""
    job = new_job(store, state=State.RUNNING)
    artifacts = {name: Artifact(f"{job.id}.{name}", "text/plain; charset=utf-8", len(artifact)) for name in outputs}
    for one in artifacts.values():
        await store.save_artifact(one.file, artifact)
    transition(job, Step.SUCCEEDED, artifacts=artifacts, result_meta={})
    job.finished_at = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()
    store.put(job)
    row(store, job).ended -= seconds_ago
    return job


def row(store: Store, job: Job) -> Ended:
    """What the store holds of an ended job."""
    found = store.jobs[job.id]
    assert isinstance(found, Ended)
    return found


def known(store: Store, job: Job) -> Job:
    """The job as the store has it."""
    found = store.get(job.id)
    assert found is not None
    return found


def expire(store: Store, later_s: float = 0.0) -> bool:
    """Have the store expire what should have after this time."""
    return store.expire(TTL_S, time.monotonic() + later_s)


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that open hundreds of stores and cut no power."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


# ---- Putting and reopening -------------------------------------------------------------------------------------------


async def test_flushed_job_is_there_after_reopening(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store, priority=7)
        store.put(job)
        await store.flushed()
    async with open_store(tmp_path) as store:
        assert known(store, job).document() == job.document()


async def test_flushed_job_is_on_disk_before_the_store_closes(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store)
        store.put(job)
        await store.flushed()
        assert job.id.encode() in (tmp_path / "jobs.journal").read_bytes()


async def test_last_state_wins(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store)
        store.put(job)
        transition(job, Step.LEASED)
        store.put(job)
        await store.flushed()
    async with open_store(tmp_path) as store:
        assert known(store, job).state is State.RUNNING
        assert len(store.jobs) == 1


async def test_job_only_added_is_not_stored(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        new_job(store)
        await store.flushed()
    async with open_store(tmp_path) as store:
        assert store.jobs == {}


async def test_later_changes_of_a_job_are_not_stored_by_themselves(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store)
        store.put(job)
        job.request["url"] = "http://c.d/"
    async with open_store(tmp_path) as store:
        assert known(store, job).url == "http://a.b/"


async def test_removed_job_is_gone_after_reopening(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store)
        store.put(job)
        store.remove(job)
        assert job.id not in store.jobs
    async with open_store(tmp_path) as store:
        assert store.jobs == {}


async def test_job_that_was_never_stored_can_be_removed(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store)
        store.remove(job)
        store.remove(job)
        assert store.jobs == {}


async def test_what_waits_is_written_when_the_store_closes(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for _ in range(3):
            store.put(new_job(store))
    async with open_store(tmp_path) as store:
        assert len(store.jobs) == 3


async def test_numbers_go_on_above_those_of_the_former_run(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        last = max((new_job(store) for _ in range(3)), key=lambda job: job.number)
        store.put(last)
    async with open_store(tmp_path) as store:
        assert store.next_number() > last.number


async def test_jobs_are_in_order_of_their_numbers_after_reopening(tmp_path: Path) -> None:
    # A synchronous job is stored at its end only: after jobs that came later.
    async with open_store(tmp_path) as store:
        jobs = [new_job(store) for _ in range(3)]
        for job in (jobs[1], jobs[2], jobs[0]):
            store.put(job)
    async with open_store(tmp_path) as store:
        assert [job.number for job in store.jobs.values()] == [1, 2, 3]


async def test_job_that_has_not_ended_is_one_object_for_all(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store)
        store.put(job)
        transition(job, Step.LEASED)
        store.put(job)
        assert store.get(job.id) is job


async def test_ended_job_is_read_from_its_line(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store)
        assert isinstance(store.jobs[job.id], Ended)
        assert known(store, job) is not job
        assert known(store, job).document() == job.document()


async def test_unknown_id_is_no_job(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        assert store.get("no-such-job") is None


async def test_change_visits_no_other_job(tmp_path: Path) -> None:
    def walk(*_: object) -> Any:
        raise AssertionError("walks through the jobs")

    class Unwalkable(dict[str, Job | Ended]):
        __iter__ = keys = values = items = copy = walk

    async with open_store(tmp_path, disk_budget=15) as store:
        for _ in range(3):
            await ended_job(store)
        store.jobs = Unwalkable(store.jobs)
        job = await ended_job(store)
        assert known(store, job).state is State.DONE
        expire(store, 500)


@pytest.mark.parametrize("reopened", [False, True], ids=["same run", "former run"])
async def test_secrets_of_a_job_that_ended_leave_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reopened: bool
) -> None:
    monkeypatch.setattr(cleariflow, "SCRUB_S", 0.0)
    async with open_store(tmp_path) as store:
        job = new_job(store, request={"url": "http://a.b/", "headers": {"X-A": "hush"}})
        store.put(job)
        await store.flushed()
        if not reopened:
            fail(job, JobFailed("internal", "x"))
            store.put(job)
        await store.flushed()
    if reopened:
        assert b"hush" in (tmp_path / "jobs.journal").read_bytes()
        async with open_store(tmp_path) as store:
            job = known(store, job)
            fail(job, JobFailed("internal", "x"))
            store.put(job)
    assert b"hush" not in (tmp_path / "jobs.journal").read_bytes()


async def test_secrets_of_a_job_that_was_removed_leave_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleariflow, "SCRUB_S", 0.0)
    async with open_store(tmp_path) as store:
        job = new_job(store, request={"url": "http://a.b/", "headers": {"X-A": "hush"}})
        store.put(job)
        await store.flushed()
        store.remove(job)
    assert b"hush" not in (tmp_path / "jobs.journal").read_bytes()


async def test_folder_among_the_artifacts_is_left_alone(tmp_path: Path) -> None:
    # As where a volume is mounted.
    (tmp_path / "artifacts" / "lost+found").mkdir(parents=True)
    async with open_store(tmp_path):
        assert (tmp_path / "artifacts" / "lost+found").is_dir()


async def test_store_that_breaks_while_it_loads_is_unlocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_load", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Store(tmp_path)
    async with open_store(tmp_path):
        pass


async def test_change_without_secrets_folds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "SCRUB_S", 0.0)
    async with open_store(tmp_path) as store:
        await ended_job(store)
        await ended_job(store)
        assert store.journal._scrub_at == math.inf


# ---- Lists -----------------------------------------------------------------------------------------------------------


def numbers(store: Store, **filters: Any) -> list[int]:
    """Of the newest jobs that pass."""
    return [job.number for job in store.newest(**EVERY | filters)]


async def test_newest_jobs_come_first(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for _ in range(2):
            await ended_job(store)
            new_job(store)
        assert numbers(store) == [4, 3, 2, 1]
        assert numbers(store, limit=3) == [4, 3, 2]


async def test_list_goes_on_below_a_number(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for _ in range(2):
            await ended_job(store)
            new_job(store)
        assert numbers(store, before=3) == [2, 1]
        assert numbers(store, before=4, limit=2) == [3, 2]


async def test_list_of_a_service_and_state(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        done = await ended_job(store)
        queued, other = new_job(store), new_job(store, service="screenshot")
        assert numbers(store, service="scrape") == [queued.number, done.number]
        assert numbers(store, state="queued") == [other.number, queued.number]
        assert numbers(store, service="scrape", state="done") == [done.number]
        assert numbers(store, service="screenshot", state="done") == []


async def test_list_shows_ended_jobs_whole(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store)
    async with open_store(tmp_path) as store:
        (found,) = store.newest(service=None, state=None, before=None, limit=9)
        assert found.document() == job.document()


# ---- The folder ------------------------------------------------------------------------------------------------------


async def test_folders_are_for_the_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "data"
    async with open_store(folder):
        for path in (folder, folder / "artifacts", folder / "tmp"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700


async def test_journal_is_for_the_owner_only(tmp_path: Path) -> None:
    async with open_store(tmp_path):
        assert stat.S_IMODE((tmp_path / "jobs.journal").stat().st_mode) == 0o600


async def test_second_store_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        store.put(new_job(store))
        with pytest.raises(StoreError, match="in use"):
            Store(tmp_path)


async def test_refused_store_takes_nothing_away(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        (store.temporary / "profile").mkdir()
        await store.save_artifact("x.html", b"x")
        with pytest.raises(StoreError):
            Store(tmp_path)
        assert (store.temporary / "profile").is_dir()
        assert (store.artifacts / "x.html").is_file()


async def test_folder_can_be_used_again_after_closing(tmp_path: Path) -> None:
    for _ in range(2):
        async with open_store(tmp_path):
            pass


@pytest.mark.parametrize("kind", ["file", "below a file"])
async def test_folder_that_cannot_be_is_a_store_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" if kind == "file" else tmp_path / "file" / "data"
    with pytest.raises(StoreError, match="file"):
        Store(folder)


async def test_journal_of_something_else_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "jobs.journal").write_text("This is no journal.\n")
    with pytest.raises(StoreError, match=r"jobs\.journal"):
        Store(tmp_path)


# ---- Artifacts -------------------------------------------------------------------------------------------------------


async def test_artifact_is_saved_whole(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    async with open_store(tmp_path) as store:
        await store.save_artifact("x.png", data)
        assert (store.artifacts / "x.png").read_bytes() == data
        assert os.listdir(store.artifacts) == ["x.png"]


async def test_artifact_has_its_name_only_once_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    sync = os.fsync
    async with open_store(tmp_path) as store:

        def look(fd: int) -> None:
            seen.append(os.listdir(store.artifacts))
            sync(fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", look)
            await store.save_artifact("x.png", b"data")
    # The file itself under another name, then the folder with the new one.
    assert len(seen) == 2
    assert "x.png" not in seen[0]
    assert seen[1] == ["x.png"]


async def test_artifact_is_not_written_in_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    sync = os.fsync

    def look(fd: int) -> None:
        threads.append(threading.current_thread())
        sync(fd)

    async with open_store(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", look)
            await store.save_artifact("x.png", b"data")
    assert threading.main_thread() not in threads


async def test_artifact_that_cannot_be_removed_is_swept_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async with open_store(tmp_path) as store:
        job = await ended_job(store)
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", read_only)
            expire(store, 150)
        assert known(store, job).expired
        assert len(os.listdir(store.artifacts)) == 1
    async with open_store(tmp_path) as store:
        assert os.listdir(store.artifacts) == []


async def test_dropping_an_artifact_twice_is_no_fault(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.save_artifact("x.png", b"data")
        store.drop_artifacts({"image": Artifact("x.png", "image/png")})
        store.drop_artifacts({"image": Artifact("x.png", "image/png")})
        assert os.listdir(store.artifacts) == []


# ---- Sweeping --------------------------------------------------------------------------------------------------------


async def test_artifact_of_no_job_is_swept(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store, outputs=("html", "text"))
        await store.save_artifact("orphan.png", b"data")
    (tmp_path / "artifacts" / "half.png.new").write_bytes(b"ha")
    async with open_store(tmp_path) as store:
        assert sorted(os.listdir(store.artifacts)) == [f"{job.id}.html", f"{job.id}.text"]


async def test_artifacts_come_back_in_their_order(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store, outputs=("text", "html", "a"))
    async with open_store(tmp_path) as store:
        assert list(known(store, job).artifacts.items()) == list(job.artifacts.items())


async def test_store_of_version_0_1_keeps_its_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def old_document(job: Job) -> dict[str, Any]:
        main = {"artifact": f"{job.id}.html", "content_type": "text/html; charset=utf-8"}
        return {"id": job.id, "service": job.service, "request": job.request, "state": job.state.value} | main

    async with open_store(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(Job, "document", old_document)
            job = await ended_job(store)
            await store.flushed()
    async with open_store(tmp_path) as store:
        again = known(store, job)
        assert again.artifacts == {"html": Artifact(f"{job.id}.html", "text/html; charset=utf-8")}
        assert (again.expired, os.listdir(store.artifacts)) == (False, [f"{job.id}.html"])


async def test_temporary_folders_are_swept(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        (store.temporary / "profile" / "Default").mkdir(parents=True)
        (store.temporary / "profile" / "Default" / "Cookies").write_text("x")
    async with open_store(tmp_path) as store:
        assert os.listdir(store.temporary) == []


async def test_missing_artifact_counts_as_expired(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store)
    (tmp_path / "artifacts" / f"{job.id}.html").unlink()
    async with open_store(tmp_path) as store:
        again = known(store, job)
        assert (again.artifacts, again.expired, again.state) == ({}, True, State.DONE)


async def test_one_missing_artifact_takes_the_others_with_it(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store, outputs=("html", "text"))
    (tmp_path / "artifacts" / f"{job.id}.text").unlink()
    async with open_store(tmp_path) as store:
        assert (known(store, job).artifacts, os.listdir(store.artifacts)) == ({}, [])


async def test_missing_artifact_is_reported_once(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store)
    (tmp_path / "artifacts" / f"{job.id}.html").unlink()
    async with open_store(tmp_path) as store:
        (report,) = store.reports()
        assert job.id in report
        assert store.reports() == []
    async with open_store(tmp_path) as store:
        assert store.reports() == []


async def test_sweeping_is_reported(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for name in ("a.png", "b.png"):
            await store.save_artifact(name, b"data")
    async with open_store(tmp_path) as store:
        assert store.reports() == ["2 artifact files of no job were removed"]


@pytest.mark.usefixtures("unsynced")
async def test_journal_cut_anywhere_leaves_whole_jobs_with_whole_artifacts(tmp_path: Path) -> None:
    async with open_store(tmp_path / "whole") as store:
        for _ in range(2):
            job = new_job(store)
            for step in (None, Step.LEASED):
                if step:
                    transition(job, step)
                store.put(job)
                await store.flushed()
            await store.save_artifact(f"{job.id}.html", b"<html>")
            transition(job, Step.SUCCEEDED, artifacts={"html": Artifact(f"{job.id}.html", "text/html", 6)})
            store.put(job)
            await store.flushed()
    content = (tmp_path / "whole" / "jobs.journal").read_bytes()
    lines = content.splitlines(keepends=True)
    ends = [sum(map(len, lines[: number + 1])) for number in range(len(lines))]
    cuts = {*range(0, len(content), 37), *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:-1])}
    for cut in sorted(cuts):
        folder = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "whole", folder)
        os.truncate(folder / "jobs.journal", cut)
        async with open_store(folder) as store:
            # Header, then queued, running and done of one job after the other.
            whole = sum(end <= cut for end in ends)
            states = [("queued", "running", "done")[min(2, whole - first)] for first in (2, 5) if whole >= first]
            assert [known_job.state for known_job in reversed(store.newest(**EVERY))] == states, cut
            kept = [one.file for each in store.newest(**EVERY) for one in each.artifacts.values()]
            assert sorted(os.listdir(store.artifacts)) == sorted(kept), cut
            assert len(kept) == states.count("done"), cut


async def test_missing_journal_begins_anew(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await ended_job(store)
    (tmp_path / "jobs.journal").unlink()
    async with open_store(tmp_path) as store:
        assert (store.jobs, os.listdir(store.artifacts), len(store.reports())) == ({}, [], 1)
        await ended_job(store)
    async with open_store(tmp_path) as store:
        assert len(store.jobs) == 1


# ---- Expiry ----------------------------------------------------------------------------------------------------------

TTL_S = 100.0


@pytest.mark.parametrize(("seconds_ago", "there"), [(99.0, True), (100.0, False), (199.0, False)])
@pytest.mark.parametrize("reopened", [False, True], ids=["same run", "former run"])
async def test_artifact_expires_after_its_time(tmp_path: Path, seconds_ago: float, there: bool, reopened: bool) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store, seconds_ago, outputs=("html", "text"))
        expire(store, 0 if not reopened else -1000)
    async with open_store(tmp_path) as store:
        expire(store)
        again = known(store, job)
        assert (list(again.artifacts), not again.expired) == (["html", "text"] if there else [], there)
        assert len(os.listdir(store.artifacts)) == 2 * there


@pytest.mark.parametrize(("seconds_ago", "there"), [(199.0, True), (200.0, False), (10_000.0, False)])
async def test_expired_job_is_forgotten_after_as_long_again(tmp_path: Path, seconds_ago: float, there: bool) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store, seconds_ago)
        expire(store)
        assert (job.id in store.jobs) == there


async def test_forgotten_job_leaves_no_artifact(tmp_path: Path) -> None:
    # As after a stop of the service that lasted longer than both times.
    async with open_store(tmp_path) as store:
        await ended_job(store, 10_000, outputs=("html", "text"))
    async with open_store(tmp_path) as store:
        expire(store)
        assert (store.jobs, os.listdir(store.artifacts)) == ({}, [])


async def test_expiry_is_stored(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        expired, forgotten = await ended_job(store, 150), await ended_job(store, 250)
    async with open_store(tmp_path) as store:
        expire(store)
    async with open_store(tmp_path) as store:
        assert forgotten.id not in store.jobs
        assert known(store, expired).expired


async def test_expired_job_is_forgotten_after_reopening(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await ended_job(store, 150)
        expire(store)
    async with open_store(tmp_path) as store:
        expire(store)
        assert len(store.jobs) == 1
        expire(store, 50)
        assert store.jobs == {}


async def test_failed_job_expires_too(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store, state=State.RUNNING)
        fail(job, JobFailed("internal", "x"))
        store.put(job)
        expire(store, 250)
        assert store.jobs == {}


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
async def test_job_that_has_not_ended_never_expires(tmp_path: Path, state: State) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store, state=state, created_at="2000-01-01T00:00:00.000Z")
        store.put(job)
        expire(store, 10_000)
        assert store.get(job.id) is job
        assert not job.expired


async def test_only_old_jobs_expire(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        old, young = await ended_job(store, 150), await ended_job(store, 50)
        expire(store)
        assert (known(store, old).expired, known(store, young).expired) == (True, False)


async def test_order_of_the_ends_does_not_matter_after_reopening(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        young, old = await ended_job(store, 50), await ended_job(store, 250)
    async with open_store(tmp_path) as store:
        expire(store)
        assert list(store.jobs) == [young.id]
        assert old.id not in store.jobs


async def test_what_is_long_in_a_request_goes_with_the_job_s_end(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        long = "x" * (cleariflow.KEPT_FIELD_CHARS + 1)
        job = new_job(store, state=State.RUNNING, request={"html": long, "css": [long], "wait_ms": 5})
        fail(job, JobFailed("internal", "x"))
        store.put(job)
        assert known(store, job).request == {"wait_ms": 5}


async def test_many_jobs_expire_bit_by_bit(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for _ in range(cleariflow.EXPIRE_SLICE + 10):
            job = new_job(store, state=State.RUNNING)
            fail(job, JobFailed("internal", "x"))
            store.put(job)
        assert expire(store, 150)
        assert sum(one.expired for one in store.newest(**EVERY)) == cleariflow.EXPIRE_SLICE
        assert not expire(store, 150)
        assert all(one.expired for one in store.newest(**EVERY))


@pytest.mark.parametrize(
    "finished_at", ["2000-01-01T00:00:00.000Z", "2100-01-01T00:00:00.000Z"], ids=["past", "future"]
)
async def test_age_of_a_job_does_not_jump_with_the_clock(tmp_path: Path, finished_at: str) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store, state=State.RUNNING)
        transition(job, Step.SUCCEEDED)
        job.finished_at = finished_at
        store.put(job)
        expire(store, 99)
        assert not known(store, job).expired
        expire(store, 100)
        assert known(store, job).expired


async def test_job_that_ended_in_the_future_is_not_kept_for_ever(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await ended_job(store, -(10.0**9))
    async with open_store(tmp_path) as store:
        expire(store, 200)
        assert store.jobs == {}


# ---- The disk budget -------------------------------------------------------------------------------------------------


async def test_artifacts_over_the_budget_go_oldest_first(tmp_path: Path) -> None:
    async with open_store(tmp_path, disk_budget=250) as store:
        jobs = [await ended_job(store, artifact=b"x" * 100) for _ in range(4)]
        assert [known(store, job).expired for job in jobs] == [True, True, False, False]
        assert sorted(os.listdir(store.artifacts)) == [f"{job.id}.html" for job in jobs[2:]]


async def test_artifacts_within_the_budget_stay(tmp_path: Path) -> None:
    async with open_store(tmp_path, disk_budget=400) as store:
        jobs = [await ended_job(store, artifact=b"x" * 50, outputs=("html", "text")) for _ in range(4)]
        assert not any(known(store, job).expired for job in jobs)


async def test_job_that_ended_last_is_never_evicted(tmp_path: Path) -> None:
    async with open_store(tmp_path, disk_budget=10) as store:
        first, last = [await ended_job(store, artifact=b"x" * 100) for _ in range(2)]
        assert (known(store, first).expired, known(store, last).expired) == (True, False)
    async with open_store(tmp_path, disk_budget=10) as store:
        assert not known(store, last).expired


async def test_lower_budget_evicts_at_the_next_start(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        # The order of their ends counts, not that of their numbers.
        jobs = [await ended_job(store, seconds_ago, b"x" * 100) for seconds_ago in (10, 30, 20)]
    async with open_store(tmp_path, disk_budget=250) as store:
        assert [known(store, job).expired for job in jobs] == [False, True, False]


async def test_evicted_job_is_told_as_expired_for_one_more_time_to_live(tmp_path: Path) -> None:
    async with open_store(tmp_path, disk_budget=10) as store:
        job, _ = await ended_job(store), await ended_job(store)
        expire(store, 199)
        assert known(store, job).expired
        expire(store, 200)
        assert job.id not in store.jobs


async def test_eviction_is_stored(tmp_path: Path) -> None:
    async with open_store(tmp_path, disk_budget=10) as store:
        job, _ = await ended_job(store), await ended_job(store)
    async with open_store(tmp_path) as store:
        assert known(store, job).expired
        assert store.reports() == []


async def test_what_expired_leaves_its_room_to_others(tmp_path: Path) -> None:
    async with open_store(tmp_path, disk_budget=250) as store:
        for _ in range(2):
            await ended_job(store, 150, b"x" * 100)
        expire(store)
        jobs = [await ended_job(store, artifact=b"x" * 100) for _ in range(2)]
        assert not any(known(store, job).expired for job in jobs)


async def test_failed_job_is_not_evicted(tmp_path: Path) -> None:
    async with open_store(tmp_path, disk_budget=10) as store:
        failed = new_job(store, state=State.RUNNING)
        fail(failed, JobFailed("internal", "x"))
        store.put(failed)
        for _ in range(2):
            await ended_job(store)
        assert not known(store, failed).expired


async def test_artifact_of_a_former_version_counts_with_its_size(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        jobs = [await ended_job(store, 5 - number, b"x" * 100) for number in range(3)]
        for job in jobs:
            job.artifacts = {"html": Artifact(job.artifacts["html"].file, "text/html")}
            store.put(job)
    async with open_store(tmp_path, disk_budget=250) as store:
        assert [known(store, job).expired for job in jobs] == [True, False, False]


# ---- A disk that is full or fails ------------------------------------------------------------------------------------


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many bytes of the disk are free."""
    free = {"bytes": 2**40}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free["bytes"]))
    return free


def refusing(number: int, times: float = math.inf) -> Callable[[int], None]:
    """An fsync of a disk that refuses so often."""
    sync, calls = os.fsync, 0

    def call(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise OSError(number, os.strerror(number))
        sync(fd)

    return call


@pytest.mark.parametrize(
    ("missing", "number"), [(-1, None), (0, None), (1, errno.ENOSPC)], ids=["more", "enough", "less"]
)
async def test_disk_below_its_reserve_is_a_fault(
    tmp_path: Path, room: dict[str, int], missing: int, number: int | None
) -> None:
    async with open_store(tmp_path) as store:
        room["bytes"] = cleariflow.DISK_RESERVE_BYTES - missing
        assert (store.fault and store.fault.errno) == number


async def test_fault_passes_when_there_is_room(tmp_path: Path, room: dict[str, int], autojump_clock: MockClock) -> None:
    async with open_store(tmp_path) as store, open_tasks() as tasks:
        with trio.fail_after(1):
            await store.writable()
        room["bytes"] = 0
        leased = trio.Event()

        async def lease() -> None:
            await store.writable()
            leased.set()

        tasks.start_soon(lease)
        await trio.sleep(100)
        assert not leased.is_set()
        room["bytes"] = 2**40
        with trio.fail_after(2):
            await leased.wait()
        assert store.fault is None


async def test_journal_that_cannot_be_written_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_store(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refusing(errno.EIO))
            job = new_job(store)
            store.put(job)
            with pytest.raises(StoreError):
                await store.flushed()
            assert store.fault is not None
            assert store.fault.errno == errno.EIO
        with trio.fail_after(10):
            await store.writable()
    async with open_store(tmp_path) as store:
        assert job.id in store.jobs


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
async def test_refused_artifact_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, autojump_clock: MockClock
) -> None:
    async with open_store(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refusing(number, 20))
            await store.save_artifact("x.png", b"data")
        assert trio.current_time() == 20
        assert (store.artifacts / "x.png").read_bytes() == b"data"


async def save_in_vain(store: Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Save an artifact on a disk that refuses it with this error."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refusing(number))
        with pytest.raises(OSError, match=os.strerror(number)):
            await store.save_artifact("x.png", b"data")


async def test_artifact_that_stays_refused_fails_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_store(tmp_path) as store:
        await save_in_vain(store, monkeypatch, errno.ENOSPC)
        assert trio.current_time() == cleariflow.ARTIFACT_RETRY_S
        assert os.listdir(store.artifacts) == []


async def test_artifact_that_can_never_be_saved_fails_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_store(tmp_path) as store:
        await save_in_vain(store, monkeypatch, errno.EFBIG)
        assert (trio.current_time(), store.fault) == (0, None)


async def test_saving_that_is_cancelled_while_it_waits_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_store(tmp_path) as store:
        with monkeypatch.context() as patch, trio.move_on_after(5) as scope:
            patch.setattr(os, "fsync", refusing(errno.ENOSPC))
            await store.save_artifact("x.png", b"data")
        assert (scope.cancelled_caught, os.listdir(store.artifacts)) == (True, [])


async def test_quota_that_an_artifact_met_is_a_fault_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    asked: list[int] = []

    def over_quota(fd: int, offset: int, size: int) -> None:
        asked.append(size)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    async with open_store(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refusing(errno.EDQUOT))
            with pytest.raises(OSError, match="quota"):
                await store.save_artifact("x.png", b"x" * 1000)
            patch.setattr(os, "posix_fallocate", over_quota)
            fault = store.fault
            assert fault is not None
            assert (fault.errno, asked) == (errno.EDQUOT, [1000])
            # Room for it is not asked for by every client.
            assert store.fault is not None
            assert asked == [1000]
        await trio.sleep(cleariflow.STORE_RETRY_S)
        assert store.fault is None
        assert os.listdir(store.temporary) == []


# ---- The real thing --------------------------------------------------------------------------------------------------

ROOT = Path(inspect.getfile(Store)).parent

# Imports once and forks: each child works on the folder until it is killed, the next begins with what it finds.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import trio
import cleariflow as c
from cdp.tasks import open_tasks

c.FOLD_MIN_BYTES = 5000
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
EVERY = dict(service=None, state=None, before=None, limit=10**9)

def content(job_id):
    return job_id.encode() * (1 + sum(job_id.encode()) % 4000)

async def work(told):
    store = c.Store(folder, disk_budget=300_000)
    tell = lambda word, job_id: os.write(told, f"{word} {job_id}\\n".encode())
    for job in store.newest(**EVERY):
        if job.expired:
            tell("evicted", job.id)

    async def client(name):
        for turn in range(10**6):
            job = c.Job(id=f"{os.getpid()}-{name}-{turn}", number=store.next_number(), service="scrape",
                request={"url": "http://a.b/", "headers": {"a": "b"}})
            store.add(job)
            store.put(job)
            await store.flushed()
            tell("queued", job.id)
            c.transition(job, c.Step.LEASED)
            store.put(job)
            data = content(job.id)
            artifacts = {"html": c.Artifact(f"{job.id}.html", "text/html", len(data))}
            await store.save_artifact(f"{job.id}.html", data)
            c.transition(job, c.Step.SUCCEEDED, artifacts=artifacts)
            store.put(job)
            await store.flushed()
            tell("done", job.id)

    async with open_tasks() as tasks:
        await tasks.start(store.run)
        for name in range(4):
            tasks.start_soon(client, name)
        await trio.sleep_forever()

def look(told):
    store = c.Store(folder)
    assert not [each for each in store.reports() if "damaged" in each], "damaged"
    jobs = {job.id: job for job in store.newest(**EVERY)}
    for word, job_id in told:
        assert job_id in jobs, (word, job_id)
        assert word != "done" or jobs[job_id].state == "done", job_id
    for job in jobs.values():
        if job.state == "done" and not job.expired:
            assert (store.artifacts / f"{job.id}.html").read_bytes() == content(job.id), job.id
        assert job.expired or bool(job.artifacts) == (job.state == "done"), job.id
    assert len(os.listdir(store.artifacts)) == sum(len(job.artifacts) for job in jobs.values())
    store.journal.close()

random.seed(4)
confirmed = []
for number in range(rounds):
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        trio.run(work, writing)
    os.close(writing)
    with open(reading, "rb") as told:
        # From its first word on; before that it imports nothing, but it loads, folds and sweeps.
        first = told.readline() if number % 4 else b""
        time.sleep(random.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        words = (first + told.read()).decode().splitlines(keepends=True)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    confirmed += [tuple(each.split()) for each in words if each.endswith("\\n")]
    if not (pid := os.fork()):
        try:
            look(confirmed)
        except BaseException as error:
            os.write(2, f"round {number}: {error!r}\\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, number
print(sum(word == "done" for word, _ in confirmed), sum(word == "evicted" for word, _ in confirmed))
"""


def test_killed_store_keeps_every_confirmed_job_and_artifact(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr, done.stderr
    assert done.returncode == 0
    confirmed, evicted = map(int, done.stdout.split())
    assert confirmed > 0
    assert evicted > 0


# In a mount namespace of its own, where a small disk is mounted; the program runs without a browser: jobs stay queued.
FULL_DISK = """
import os, re, signal, subprocess, sys, time
from contextlib import contextmanager
from pathlib import Path
import httpx
import trio
import cleariflow as c
from cdp.tasks import open_tasks

disk = Path(sys.argv[1])
filler = disk / "filler"
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)

def fill(free_bytes):
    with filler.open("ab") as file:
        found = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, file.tell() + found.f_bavail * found.f_frsize - free_bytes)

@contextmanager
def served():
    command = [sys.executable, "cleariflow.py", "--port", "0", "--data-dir", disk / "data", "--browser", "/bin/false"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        url = next(found[1] for line in process.stderr if (found := re.search(r"(http://[0-9.]+:\\d+)", line)))
        with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
            yield client
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()

def submit(client):
    return client.post("/scrape/v1/jobs", json={"request": {"url": "http://example.com/"}})

def states(client):
    listed = client.get("/scrape/v1/jobs?limit=1000").json()["jobs"]
    return {job["job_id"]: job["status"] for job in listed}

def refused(client):
    answer = submit(client)
    return (answer.status_code, answer.json()["error"]["code"], "Retry-After" in answer.headers)

REFUSED = (503, "storage_full", True)
with served() as client:
    known = {submit(client).json()["job_id"] for _ in range(20)}
    fill(c.DISK_RESERVE_BYTES - 2**20)
    assert refused(client) == REFUSED
    assert states(client) == dict.fromkeys(known, "queued")
    fill(0)
    # A change that is not refused: the journal has no room for it now.
    cancelled = min(known)
    client.delete(f"/v1/jobs/{cancelled}")
    assert refused(client) == REFUSED
    assert "cannot be written" in client.get("/readyz").text
    filler.unlink()
    deadline = time.monotonic() + 5
    while (answer := submit(client)).status_code == 503:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    known.add(answer.json()["job_id"])
    fill(0)
# Killed, and started again on the full disk.
with served() as client:
    assert refused(client) == REFUSED
    assert states(client) == dict.fromkeys(known, "queued") | {cancelled: "failed"}
    filler.unlink()

async def save():
    store = c.Store(disk / "data")
    async with open_tasks() as tasks:
        await tasks.start(store.run)
        fill(0)
        async def free():
            while store.fault is None or not store._refused_bytes:
                await trio.sleep(0.01)
            assert os.listdir(store.artifacts) == []
            filler.unlink()
        tasks.start_soon(free)
        await store.save_artifact("x.png", b"x" * 10**6)
        assert os.listdir(store.artifacts) == ["x.png"]
        await store.writable()

trio.run(save)
"""


def test_full_disk_refuses_new_jobs_and_keeps_the_old_ones(tmp_path: Path) -> None:
    namespace = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run(
        [*namespace, "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True, check=False
    ).returncode:
        pytest.skip("this user may not mount a disk in a namespace")
    command = [*namespace, sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr, done.stderr
    assert done.returncode == 0
