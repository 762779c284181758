"""What the store costs at size: python -m bench.store [JOBS]

On folders of 100 ended jobs and more, up to JOBS, with their artifact files. Start and memory are measured in a process
of its own; one change without its fsync. The targets, at 100,000: start below 3 s, 3,072 bytes a job, a change that
costs the same at any size, no list over 30 ms.
"""

from __future__ import annotations

import functools
import gc
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import trio

import cleariflow
from bench.options import Options
from bench.tables import Cell, Table, show
from cdp.tasks import open_tasks
from cleariflow import Artifact, Job, Step, Store, transition

SIZES = (100, 1_000, 10_000, 100_000)
QUICK_JOBS = 10_000
STARTS = 3
CHANGES = 500
CLIENTS = 64
SUBMIT_S = 2.0
COLUMNS = (
    "jobs",
    "start s",
    "bytes a job",
    "queued us",
    "running us",
    "done us",
    "newest 100 ms",
    "oldest 100 ms",
    "1,000 ms",
    "filter ms",
    "fold ms",
    "submits/s",
)


def make_job(number: int) -> Job:
    """A queued job of a common request."""
    request = {"url": f"https://www.example.com/some/page/{number}", "full_page": True, "format": "png"}
    return Job(id=str(uuid.uuid4()), number=number, service="screenshot", request=request)


def end(job: Job) -> None:
    """Bring a running job to its end, as a screenshot does."""
    meta = {
        "url": job.url,
        "status_code": 200,
        "title": "Some example page",
        "redirects": [],
        "width": 1280,
        "height": 2400,
        "elapsed_ms": 352,
        "timings": {"open": 40, "navigate": 22, "settle": 30, "capture": 50, "close": 3},
        "warnings": [],
        "browser": "HeadlessChrome/156.0.8078.79",
    }
    transition(
        job,
        Step.SUCCEEDED,
        artifacts={"image": Artifact(f"{job.id}.png", "image/png", 100_000)},
        result_meta=meta,
    )


def make_folder(folder: Path, jobs: int) -> None:
    """Write a data folder of ended jobs; their artifacts are there and empty."""
    (folder / "artifacts").mkdir(parents=True)
    with (folder / "jobs.journal").open("wb") as file:
        file.write(cleariflow._HEADER)
        for number in range(1, jobs + 1):
            job = make_job(number)
            transition(job, Step.LEASED)
            end(job)
            file.write(cleariflow._record("jobs", number, job.document()))
            (folder / "artifacts" / f"{job.id}.png").touch()


def load(folder: Path) -> None:
    """Open a store and print the seconds and the bytes it took; runs in a process of its own."""
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    started = time.perf_counter()
    store = Store(folder)
    wall_s = time.perf_counter() - started
    gc.collect()
    print(json.dumps([wall_s, (process.memory_info().rss - before) / len(store.jobs)]))


def milliseconds(call: Callable[[], Any], times: int = 1) -> float:
    """The median of some calls."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


async def measure_size(folder: Path, jobs: int) -> tuple[Cell, ...]:
    """One row."""
    make_folder(folder, jobs)
    command = [sys.executable, "-m", "bench.store", "--load", str(folder)]
    starts = [json.loads((await trio.run_process(command, capture_stdout=True)).stdout) for _ in range(STARTS)]
    start_s, job_bytes = (statistics.median(each) for each in zip(*starts, strict=True))
    store = Store(folder)
    async with open_tasks() as tasks:
        await tasks.start(store.run)
        filters: dict[str, Any] = {"service": None, "state": None, "before": None, "limit": 101}
        lists: list[dict[str, Any]] = [{}, {"before": 101}, {"limit": 1001}, {"service": "scrape", "state": "failed"}]
        listed = [milliseconds(functools.partial(store.newest, **filters | given), 7) for given in lists]
        lines = list(store._storage.lines("jobs").values())
        folded = milliseconds(functools.partial(store._storage._file._fold, lines))
        changed = changes(store)
        submitted = await submits(store)
    return jobs, start_s, float(job_bytes), *changed, *listed, folded, submitted


def changes(store: Store) -> list[float]:
    """Microseconds of each of a job's three changes: queued, running, done."""
    taken: list[list[float]] = [[], [], []]
    for _ in range(CHANGES):
        job = make_job(store.next_number())
        store.add(job)
        taken[0].append(milliseconds(functools.partial(store.put, job)))
        transition(job, Step.LEASED)
        taken[1].append(milliseconds(functools.partial(store.put, job)))
        end(job)
        taken[2].append(milliseconds(functools.partial(store.put, job)))
    return [statistics.median(each) * 1000 for each in taken]


async def submits(store: Store) -> float:
    """Jobs a second that are on disk, without HTTP."""
    submitted = 0

    async def submit() -> None:
        nonlocal submitted
        while True:
            job = make_job(store.next_number())
            store.add(job)
            store.put(job)
            await store.flushed()
            submitted += 1

    with trio.move_on_after(SUBMIT_S):
        async with trio.open_nursery() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(submit)
    return submitted / SUBMIT_S


async def measure(most: int) -> list[Table]:
    """A row for each size."""
    table = Table("The store against its number of ended jobs", COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        for size in sorted({*SIZES, most}):
            if size <= most:
                table.rows.append(await measure_size(Path(folder) / str(size), size))
    table.notes.append(
        "start s, bytes a job: what opening the store takes. queued, running, done: one change of a job, its fsync not "
        f"counted. Then lists, the last by a filter that fits none; a fold of the journal; submits of {CLIENTS} tasks, "
        "on disk."
    )
    return [table]


async def measure_store(options: Options) -> list[Table]:
    """Up to 100,000 jobs."""
    return await measure(QUICK_JOBS if options.quick else SIZES[-1])


async def main(jobs: int) -> None:
    """Measure and print."""
    show(await measure(jobs))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        load(Path(sys.argv[2]))
    else:
        trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else SIZES[-1])
