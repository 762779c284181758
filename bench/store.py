"""What the store costs at size: python -m bench.store [JOBS]

Start and memory are measured in a process of its own, on JOBS ended jobs with their artifact files; the cost of one
change (without its fsync) on stores of 100 jobs and more; submits, lists and a fold on the large store. The targets:
start below 3 s, 3,072 bytes a job, a change that costs the same at any size, no list over 30 ms.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
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
from cdp.tasks import open_tasks
from cleariflow import Artifact, Job, Step, Store, transition

JOBS = 100_000
CHANGES = 500
CLIENTS = 64
SUBMIT_S = 3.0


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
    """Open a store and print its figures; runs in a process of its own."""
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    started = time.perf_counter(), time.process_time()
    store = Store(folder)
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    gc.collect()
    jobs = len(store.jobs)
    print(f"start with {jobs:,} ended jobs: {wall:.2f} s, {cpu:.2f} s of CPU")
    print(f"memory: {(process.memory_info().rss - before) / jobs:,.0f} bytes an ended job")


def milliseconds(call: Callable[[], Any], times: int = 1) -> float:
    """The median of some calls."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


async def measure_changes(folder: Path, jobs: int) -> None:
    """Three changes a job: queued, running, done."""
    make_folder(folder, jobs)
    store = Store(folder)
    async with open_tasks() as tasks:
        await tasks.start(store.run)
        taken: dict[str, list[float]] = {"queued": [], "running": [], "done": []}
        for _ in range(CHANGES):
            job = make_job(store.next_number())
            store.add(job)
            for name, step in (("queued", None), ("running", Step.LEASED), ("done", Step.SUCCEEDED)):
                if step is Step.LEASED:
                    transition(job, step)
                elif step is Step.SUCCEEDED:
                    end(job)
                taken[name].append(milliseconds(lambda job=job: store.put(job)) * 1000)
        shown = ", ".join(f"{name} {statistics.median(each):3.0f}" for name, each in taken.items())
        print(f"one change at {jobs:7,} jobs (us): {shown}")


async def measure_large(folder: Path) -> None:
    """Submits, lists and a fold of a store that is there."""
    store = Store(folder)
    async with open_tasks() as tasks:
        await tasks.start(store.run)
        filters: dict[str, Any] = {"service": None, "state": None, "before": None, "limit": 101}
        for name, given in {
            "the newest 100": {},
            "the oldest 100, by cursor": {"before": 101},
            "1,000": {"limit": 1001},
            "filter that fits none": {"service": "scrape", "state": "failed"},
        }.items():
            print(f"list, {name}: {milliseconds(lambda given=given: store.newest(**filters | given), 7):.1f} ms")
        lines = list(store._storage.lines("jobs").values())
        taken = milliseconds(lambda: store._storage._file._fold(lines))
        print(f"fold of {len(lines):,} lines, in a thread: {taken:.0f} ms")
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
        print(f"durable submits, {CLIENTS} clients: {submitted / SUBMIT_S:,.0f}/s")


def main(jobs: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_folder(folder / "large", jobs)
        for _ in range(3):
            subprocess.run([sys.executable, "-m", "bench.store", "--load", folder / "large"], check=True)
        for size in (100, 1_000, 10_000, 100_000):
            trio.run(measure_changes, folder / str(size), size)
        trio.run(measure_large, folder / "large")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        load(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else JOBS)
