"""Jobs and artifacts on disk: what comes back, what is swept, what expires."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cdp.tasks import open_tasks
from cleariflow import Artifact, Job, State, Step, Store, StoreError, transition

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@asynccontextmanager
async def open_store(folder: Path) -> AsyncIterator[Store]:
    """A store with its writer, closed at the end."""
    store = Store(folder)
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


async def ended_job(
    store: Store, seconds_ago: float = 0.0, artifact: bytes = b"<html>", outputs: tuple[str, ...] = ("html",)
) -> Job:
    """A job that is done since then, with its artifacts."""
    job = new_job(store, state=State.RUNNING)
    artifacts = {name: Artifact(f"{job.id}.{name}", "text/plain; charset=utf-8") for name in outputs}
    for one in artifacts.values():
        await store.save_artifact(one.file, artifact)
    transition(job, Step.SUCCEEDED, artifacts=artifacts, result_meta={})
    job.finished_at = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    store.put(job)
    return job


# ---- Putting and reopening -------------------------------------------------------------------------------------------


async def test_flushed_job_is_there_after_reopening(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store, priority=7)
        store.put(job)
        await store.flushed()
    async with open_store(tmp_path) as store:
        assert store.jobs[job.id].document() == job.document()


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
        assert store.jobs[job.id].state is State.RUNNING
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
        assert store.jobs[job.id].url == "http://a.b/"


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


async def test_failed_artifact_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    async with open_store(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                await store.save_artifact("x.png", b"data")
        assert os.listdir(store.artifacts) == []


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
        assert list(store.jobs[job.id].artifacts.items()) == list(job.artifacts.items())


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
        again = store.jobs[job.id]
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
        again = store.jobs[job.id]
        assert (again.artifacts, again.expired, again.state) == ({}, True, State.DONE)


async def test_one_missing_artifact_takes_the_others_with_it(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store, outputs=("html", "text"))
    (tmp_path / "artifacts" / f"{job.id}.text").unlink()
    async with open_store(tmp_path) as store:
        assert (store.jobs[job.id].artifacts, os.listdir(store.artifacts)) == ({}, [])


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


# ---- Expiry ----------------------------------------------------------------------------------------------------------

TTL_S = 100.0


@pytest.mark.parametrize(("seconds_ago", "there"), [(99.0, True), (100.0, False), (199.0, False)])
async def test_artifact_expires_after_its_time(tmp_path: Path, seconds_ago: float, there: bool) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store, seconds_ago, outputs=("html", "text"))
        store.expire(TTL_S, NOW)
        assert (list(job.artifacts), not job.expired) == (["html", "text"] if there else [], there)
        assert len(os.listdir(store.artifacts)) == 2 * there


@pytest.mark.parametrize(("seconds_ago", "known"), [(199.0, True), (200.0, False), (10_000.0, False)])
async def test_expired_job_is_forgotten_after_as_long_again(tmp_path: Path, seconds_ago: float, known: bool) -> None:
    async with open_store(tmp_path) as store:
        job = await ended_job(store, seconds_ago)
        store.expire(TTL_S, NOW)
        assert (job.id in store.jobs) == known


async def test_forgotten_job_leaves_no_artifact(tmp_path: Path) -> None:
    # As after a stop of the service that lasted longer than both times.
    async with open_store(tmp_path) as store:
        await ended_job(store, 10_000, outputs=("html", "text"))
    async with open_store(tmp_path) as store:
        store.expire(TTL_S, NOW)
        assert (store.jobs, os.listdir(store.artifacts)) == ({}, [])


async def test_expiry_is_stored(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        expired, forgotten = await ended_job(store, 150), await ended_job(store, 250)
    async with open_store(tmp_path) as store:
        store.expire(TTL_S, NOW)
    async with open_store(tmp_path) as store:
        assert forgotten.id not in store.jobs
        assert store.jobs[expired.id].expired


async def test_expired_job_is_forgotten_after_reopening(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await ended_job(store, 150)
        store.expire(TTL_S, NOW)
    async with open_store(tmp_path) as store:
        store.expire(TTL_S, NOW + timedelta(seconds=50))
        assert store.jobs == {}


async def test_failed_job_expires_too(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store, state=State.RUNNING)
        transition(job, Step.FAILED, error="x", error_code="internal")
        job.finished_at = (NOW - timedelta(seconds=250)).isoformat()
        store.put(job)
        store.expire(TTL_S, NOW)
        assert store.jobs == {}


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
async def test_job_that_has_not_ended_never_expires(tmp_path: Path, state: State) -> None:
    async with open_store(tmp_path) as store:
        job = new_job(store, state=state, created_at="2000-01-01T00:00:00.000Z")
        store.put(job)
        store.expire(TTL_S, NOW)
        assert not job.expired
        assert job.id in store.jobs


async def test_only_old_jobs_expire(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        old, young = await ended_job(store, 150), await ended_job(store, 50)
        store.expire(TTL_S, NOW)
        assert (old.expired, young.expired) == (True, False)


async def test_order_of_the_ends_does_not_matter_after_reopening(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        young, old = await ended_job(store, 50), await ended_job(store, 250)
    async with open_store(tmp_path) as store:
        store.expire(TTL_S, NOW)
        assert list(store.jobs) == [young.id]
        assert old.id not in store.jobs
