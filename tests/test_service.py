"""The service without HTTP: in virtual time over a pool and a store in memory, and on a real store and Chromium."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trio
from PIL import Image
from trio.testing import MockClock, wait_all_tasks_blocked

import cdp
import cleariflow
from cdp.capture import Picture
from cdp.egress import Ledger
from cdp.errors import CommandError, ConnectionClosed, NavigationError, ScriptError, TargetCrashed
from cdp.options import PageOptions, WaitFor
from cdp.page import PageInfo
from cdp.pool import PageCounts, Usage
from cdp.tasks import open_tasks
from cdp.validation import ValidationError
from cleariflow import (
    BROWSER_START_S,
    LOSSES_ALLOWED,
    RETRY_DELAYS_S,
    Artifact,
    Config,
    Job,
    Service,
    ServiceError,
    State,
    Store,
    StoreError,
    open_service,
)
from tests.site import Answer, Exchange, Site, css_colour, page

URL = "http://8.8.8.8/"

# ---- Fakes -----------------------------------------------------------------------------------------------------------


class MemoryStore:
    """A store without a disk: `fault` refuses what comes, `saving` holds artifacts back.

    `artifact_fault` is met by the artifact after the first `room`.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.stored: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.artifacts = Path("/artifacts")
        self.fault: StoreError | None = None
        self.artifact_fault: OSError | None = None
        self.room = 0
        self.flushing = self.saving = trio.Event()
        self.flushing.set()
        self._numbers = 0

    def reports(self) -> list[str]:
        return []

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def get(self, job_id: str) -> Job | None:
        return self.jobs.get(job_id)

    async def writable(self) -> None:
        while True:
            if self.fault is None:
                return
            await trio.sleep(1)

    def add(self, job: Job) -> None:
        self.jobs[job.id] = job

    def put(self, job: Job) -> None:
        self.stored[job.id] = job.document()

    def remove(self, job: Job) -> None:
        self.jobs.pop(job.id, None)
        self.stored.pop(job.id, None)

    async def flushed(self) -> None:
        await trio.lowlevel.checkpoint()
        await self.flushing.wait()
        if self.fault is not None:
            raise self.fault

    async def save_artifact(self, name: str, data: bytes) -> None:
        # As a thread: it cannot be cancelled once it has begun.
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            await self.saving.wait()
        if self.artifact_fault is not None and len(self.files) == self.room:
            raise self.artifact_fault
        self.files[name] = data

    def artifact(self, file: str, content_type: str) -> Artifact:
        """As a job should have it."""
        return Artifact(file, content_type, len(self.files[file]))

    def drop_artifacts(self, artifacts: Mapping[str, Artifact]) -> None:
        for one in artifacts.values():
            self.files.pop(one.file, None)


class FakePage:
    """Shows its URL; what happens on the way there is the pool's `visit`."""

    product = "Fake/1"
    status_code = 200
    has_document = False

    def __init__(self, pool: FakePool) -> None:
        self.warnings: list[str] = []
        self.ledger = Ledger()
        self.redirects: list[str] = []
        self.session = SimpleNamespace(check=lambda: None)
        self._pool = pool
        self._url = "about:blank"

    async def prepare(self, options: PageOptions) -> None:
        self._pool.prepared.append(options)

    async def navigate(self, url: str, *, wait_until: str, hold: bool) -> None:
        self._url = url
        self._pool.visited.append(url)
        self._pool.notify()
        await self._pool.visit(url)

    async def arrive(self, budget_s: float = math.inf) -> None:
        await trio.lowlevel.checkpoint()

    async def come_back(self) -> None:
        pass

    async def keep_document(self) -> None:
        pass

    async def dress(self) -> None:
        await trio.lowlevel.checkpoint()

    async def run_scripts(self) -> None:
        await trio.lowlevel.checkpoint()

    async def settle(self, tell: Callable[[str], None], *, whole_page: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        tell("frames")

    async def wait_for(self, wait: WaitFor, tell: Callable[[str], None]) -> None:
        await trio.lowlevel.checkpoint()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def call(self, function: str, *arguments: object) -> None:
        await trio.lowlevel.checkpoint()

    async def evaluate(self, script: str) -> str:
        if script == "throw":
            raise ScriptError("thrown")
        return script

    async def info(self) -> PageInfo:
        return PageInfo(self._url, "title")

    async def html(self, selector: str | None = None, *, include_shadow_dom: bool = False) -> str:
        return f"<html>{self._url}</html>"

    async def text(self, selector: str | None = None) -> str:
        return self._url

    async def screenshot(self, options: object, *, max_pixels: int) -> Picture:
        return Picture(self._url.encode(), "image/jpeg", 1, 1)


async def at_once(url: str) -> None:
    """A page that loads in no time."""
    await trio.lowlevel.checkpoint()


class FakePool:
    """Pages without a browser; `visit` is what a navigation does."""

    def __init__(self, visit: Callable[[str], Awaitable[None]] = at_once) -> None:
        self.visit = visit
        self.visited: list[str] = []
        self.prepared: list[PageOptions] = []
        self.lonely = 0
        self.pages_open = 0
        self.browser: object | None = object()
        self.fault: str | None = None
        self.launches = self.failures = self.renderers_killed = 0
        self.retired = Counter[str]()
        self._changed = trio.Event()

    def notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        await self._changed.wait()

    @property
    def available(self) -> bool:
        return self.browser is not None

    @property
    def state(self) -> str:
        return "runs" if self.available else self.fault or "is starting"

    @property
    def pages(self) -> PageCounts:
        return PageCounts(self.pages_open, 0, len(self.visited))

    async def usage(self) -> Usage:
        await trio.lowlevel.checkpoint()
        return Usage(0, 0, 0.0)

    def wake(self) -> None:
        pass

    async def ready(self) -> None:
        while self.browser is None:
            await self.changed()

    async def reached(self, count: int) -> None:
        """Wait until so many navigations have begun."""
        while len(self.visited) < count:
            await self.changed()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Callable[[], Any]]:
        self.lonely += 1
        yield self.open_page

    @asynccontextmanager
    async def open_page(self) -> AsyncIterator[FakePage]:
        await self.ready()
        self.pages_open += 1
        try:
            yield FakePage(self)
        finally:
            self.pages_open -= 1


class Gate:
    """A visit that waits until it is opened."""

    def __init__(self) -> None:
        self.open = trio.Event()

    async def __call__(self, url: str) -> None:
        await self.open.wait()


@attrs.define
class House:
    """A service and what it stands on."""

    service: Service
    pool: FakePool
    store: MemoryStore

    async def submit(self, number: int = 0, priority: int = 0, **fields: Any) -> Job:
        return await self.service.submit("scrape", {"url": f"{URL}{number}", **fields}, priority)


@asynccontextmanager
async def open_house(
    visit: Callable[[str], Awaitable[None]] = at_once,
    *,
    workers: int = 1,
    pool: FakePool | None = None,
    **settings: Any,
) -> AsyncIterator[House]:
    """A service with its workers, over fakes."""
    config = Config(workers=workers, **settings)
    pool, store = pool or FakePool(visit), MemoryStore()
    service = Service(config, cast(Store, store), cast(cdp.Pool, pool), config.policy)
    service.recover()
    async with open_tasks() as tasks:
        for _ in range(workers):
            tasks.start_soon(service.work)
        await wait_all_tasks_blocked()
        yield House(service, pool, store)


@asynccontextmanager
async def refused(code: str) -> AsyncIterator[None]:
    """The body must be refused with this code."""
    with pytest.raises(ServiceError) as caught:
        yield
    assert caught.value.code == code


# ---- Submitting ------------------------------------------------------------------------------------------------------


async def test_submitted_job_runs_to_its_end(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.submit()
        await house.service.wait(job)
        assert (job.state, job.attempts, job.result_meta and job.result_meta["url"]) == (State.DONE, 1, f"{URL}0")


async def test_submit_returns_only_once_the_job_is_on_disk(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        house.store.flushing = trio.Event()
        with trio.move_on_after(5) as scope:
            await house.submit()
        assert scope.cancelled_caught


async def test_job_is_stored_before_submit_waits(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        house.store.flushing = trio.Event()
        with trio.move_on_after(5):
            await house.submit()
        assert len(house.store.stored) == 1


async def test_cancelled_submit_leaves_the_job(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        house.store.flushing = trio.Event()
        with trio.move_on_after(5):
            await house.submit()
        house.store.flushing.set()
        (job,) = house.store.jobs.values()
        await house.service.wait(job)
        assert job.state is State.DONE


async def test_key_is_in_no_stored_job(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.submit(api_key="hush-hush")
        await house.service.wait(job)
        assert "hush" not in repr(house.store.stored)
        assert "hush" not in repr(job)


async def test_secrets_leave_the_store_with_the_end(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house:
        actions = [{"type": "goto", "url": "http://me:hush@8.8.8.8/"}]
        job = await house.submit(headers={"X-A": "hush"}, cookies="a=hush", actions=actions)
        assert "hush" in repr(house.store.stored)
        gate.open.set()
        await house.service.wait(job)
        assert "hush" not in repr(house.store.stored)


async def test_faulty_request_becomes_no_job(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        with pytest.raises(ValidationError):
            await house.submit(quality=5)
        assert house.store.jobs == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "[::1]", "0x7f.1", "169.254.169.254"])
async def test_blocked_target_becomes_no_job(host: str, autojump_clock: MockClock) -> None:
    async with open_house() as house:
        with pytest.raises(ValidationError, match="blocked target") as caught:
            await house.submit(url=f"http://{host}/")
        assert caught.value.code == "blocked_target"
        assert house.store.jobs == {}


async def test_queue_over_its_limit_is_full(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate, queue_limit=2) as house:
        await house.submit()
        await house.pool.reached(1)
        await house.submit()
        await house.submit()
        async with refused("queue_full"):
            await house.submit()
        assert len(house.store.jobs) == 3


async def test_queue_has_room_again_after_a_job_has_left(autojump_clock: MockClock) -> None:
    async with open_house(Gate(), queue_limit=1) as house:
        await house.submit()
        await house.pool.reached(1)
        house.service.cancel(await house.submit())
        await house.submit()


async def test_queue_full_names_the_setting_and_a_time(autojump_clock: MockClock) -> None:
    async with open_house(Gate(), queue_limit=1) as house:
        await house.submit()
        await house.pool.reached(1)
        await house.submit()
        with pytest.raises(ServiceError, match="--queue-limit is 1") as caught:
            await house.submit()
        assert caught.value.retry_after_s


async def test_disk_that_refuses_is_storage_full(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        await house.submit()
        await house.pool.reached(1)
        house.store.fault = StoreError("No space left on device")
        async with refused("storage_full"):
            await house.submit(1)
        assert len(house.store.jobs) == 1


async def test_job_refused_by_the_disk_never_runs(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house:
        await house.submit()
        await house.pool.reached(1)
        house.store.fault = StoreError("No space left on device")
        async with refused("storage_full"):
            await house.submit(1)
        gate.open.set()
        await wait_all_tasks_blocked()
        assert house.pool.visited == [f"{URL}0"]


async def test_nothing_is_begun_while_the_disk_refuses(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house:
        await house.submit()
        await house.pool.reached(1)
        job = await house.submit(1)
        house.store.fault = StoreError("No space left on device")
        gate.open.set()
        await trio.sleep(100)
        assert (job.state, house.pool.visited) == (State.QUEUED, [f"{URL}0"])
        house.store.fault = None
        await house.service.wait(job)
        assert job.state is State.DONE


async def test_result_that_the_disk_refuses_fails_the_job(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        house.store.artifact_fault = OSError(28, "No space left on device")
        job = await house.service.wait(await house.submit())
        assert (job.state, job.error_code) == (State.FAILED, "internal")
        assert "No space left" in (job.error or "")


async def test_end_is_told_though_the_disk_refuses_it(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house:
        job = await house.submit()
        house.store.fault = StoreError("No space left on device")
        gate.open.set()
        with trio.fail_after(1):
            await house.service.wait(job)
        assert job.state is State.DONE


# ---- Order -----------------------------------------------------------------------------------------------------------


async def test_priorities_with_one_worker(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house:
        await house.submit()
        await house.pool.reached(1)
        jobs = [await house.submit(number, priority) for number, priority in enumerate((0, 10, 5, 10), 1)]
        gate.open.set()
        for job in jobs:
            await house.service.wait(job)
        assert house.pool.visited[1:] == [f"{URL}{number}" for number in (2, 4, 3, 1)]


async def test_synchronous_call_goes_before_queued_jobs(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house, trio.open_nursery() as nursery:
        await house.submit()
        await house.pool.reached(1)
        await house.submit(1)
        nursery.start_soon(house.service.capture, "scrape", {"url": f"{URL}call"})
        await wait_all_tasks_blocked()
        gate.open.set()
        await house.pool.reached(3)
        assert house.pool.visited[1:] == [f"{URL}call", f"{URL}1"]


async def test_workers_run_as_many_attempts_at_once(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate, workers=3) as house:
        for number in range(5):
            await house.submit(number)
        await wait_all_tasks_blocked()
        assert (len(house.pool.visited), house.pool.pages_open) == (3, 3)


async def test_position_is_that_of_the_queue(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        await house.submit()
        await house.pool.reached(1)
        low, high = await house.submit(1), await house.submit(2, 5)
        assert (house.service.position(high), house.service.position(low)) == (0, 1)


# ---- Cancelling ------------------------------------------------------------------------------------------------------


async def test_cancelled_queued_job_never_starts(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house:
        await house.submit()
        await house.pool.reached(1)
        job = await house.submit(1)
        house.service.cancel(job)
        gate.open.set()
        await wait_all_tasks_blocked()
        assert (job.state, job.error_code, job.attempts) == (State.FAILED, "cancelled", 0)
        assert house.pool.visited == [f"{URL}0"]


async def test_cancelled_running_job_has_its_page_closed(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        await house.pool.reached(1)
        house.service.cancel(job)
        await wait_all_tasks_blocked()
        assert (job.state, job.error_code) == (State.FAILED, "cancelled")
        assert house.pool.pages_open == 0


async def test_worker_goes_on_after_a_cancelled_job(autojump_clock: MockClock) -> None:
    async def first_one_hangs(url: str) -> None:
        if url.endswith("/0"):
            await trio.sleep_forever()

    async with open_house(first_one_hangs) as house:
        job, following = await house.submit(0), await house.submit(1)
        await house.pool.reached(1)
        house.service.cancel(job)
        await house.service.wait(following)
        assert following.state is State.DONE


async def test_cancelled_job_is_not_retryable_and_is_stored(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        await house.pool.reached(1)
        house.service.cancel(job)
        assert house.store.stored[job.id] == job.document()
        assert not job.retryable


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
async def test_cancelling_an_ended_job_changes_nothing(end: str, autojump_clock: MockClock) -> None:
    async def visit(url: str) -> None:
        if end == "failed":
            raise TargetCrashed("the page crashed")

    async with open_house(Gate() if end == "cancelled" else visit) as house:
        job = await house.submit()
        if end == "cancelled":
            house.service.cancel(job)
        await house.service.wait(job)
        before = job.document()
        house.service.cancel(job)
        assert job.document() == before


async def test_job_cancelled_while_its_result_is_saved_stays_cancelled(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        house.store.saving = trio.Event()
        job = await house.submit()
        await wait_all_tasks_blocked()
        house.service.cancel(job)
        house.store.saving.set()
        await wait_all_tasks_blocked()
        assert (job.error_code, job.artifacts, house.store.files) == ("cancelled", {}, {})


async def test_cancelling_wakes_who_waits(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.service.wait, job)
            await wait_all_tasks_blocked()
            house.service.cancel(job)


# ---- Waiting ---------------------------------------------------------------------------------------------------------


async def test_wait_returns_when_its_time_is_over(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        started = trio.current_time()
        await house.service.wait(job, 7)
        assert (job.state, trio.current_time() - started) == (State.RUNNING, 7)


async def test_all_who_wait_are_woken(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house:
        job = await house.submit()
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(house.service.wait, job)
                await wait_all_tasks_blocked()
                gate.open.set()


async def test_artifact_is_there_when_the_waiter_wakes(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.service.wait(await house.submit())
        assert house.service.artifact(job) == house.store.artifact(f"{job.id}.html", "text/html; charset=utf-8")
        assert house.store.files[f"{job.id}.html"] == f"<html>{URL}0</html>".encode()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"state": State.QUEUED}, "not_ended"),
        ({"state": State.RUNNING}, "not_ended"),
        ({"state": State.FAILED, "error": "x"}, "job_failed"),
        ({"state": State.DONE, "expired": True}, "expired"),
        ({"state": State.FAILED, "expired": True}, "expired"),
    ],
)
async def test_artifact_of_a_job_without_one_is_refused(
    fields: dict[str, Any], code: str, autojump_clock: MockClock
) -> None:
    async with open_house() as house:
        async with refused(code):
            house.service.artifact(Job(id="x", number=1, service="scrape", request={}, **fields))


async def test_expired_result_names_the_settings_that_keep_results(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.submit()
        await house.service.wait(job)
        job.expired = True
        with pytest.raises(ServiceError, match=r"--result-ttl.*--disk-budget") as caught:
            house.service.artifact(job)
        assert caught.value.code == "expired"


async def test_unknown_job_is_not_found(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        async with refused("not_found"):
            house.service.job("no-such-job")


# ---- Losses and bugs -------------------------------------------------------------------------------------------------


def losing(times: int) -> Callable[[str], Awaitable[None]]:
    """A visit during which the browser ends, the first so many times."""
    left = times

    async def visit(url: str) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise ConnectionClosed("the browser ended")

    return visit


@pytest.mark.parametrize("times", [1, LOSSES_ALLOWED])
async def test_lost_browser_is_made_good(times: int, autojump_clock: MockClock) -> None:
    async with open_house(losing(times)) as house:
        job = await house.service.wait(await house.submit())
        assert (job.state, job.attempts, job.losses) == (State.DONE, times + 1, times)


@pytest.mark.parametrize(("losses", "lonely"), [(1, 0), (2, 1), (3, 2)])
async def test_job_that_lost_two_browsers_gets_one_of_its_own(
    losses: int, lonely: int, autojump_clock: MockClock
) -> None:
    async with open_house(losing(losses)) as house:
        await house.service.wait(await house.submit())
        await house.service.wait(await house.submit(1))
        assert house.pool.lonely == lonely


async def test_browser_lost_too_often_fails_the_job(autojump_clock: MockClock) -> None:
    async with open_house(losing(LOSSES_ALLOWED + 1)) as house:
        job = await house.service.wait(await house.submit())
        assert (job.state, job.error_code, job.attempts) == (State.FAILED, "browser_lost", LOSSES_ALLOWED + 1)
        assert job.retryable


async def test_next_attempt_waits_for_a_browser(autojump_clock: MockClock) -> None:
    async def lose(url: str) -> None:
        pool.browser = None
        raise ConnectionClosed("the browser ended")

    pool = FakePool(lose)
    async with open_house(pool=pool) as house:
        job = await house.submit()
        await wait_all_tasks_blocked()
        assert (job.state, job.attempts) == (State.RUNNING, 1)
        pool.browser, pool.visit = object(), at_once
        pool.notify()
        await house.service.wait(job)
        assert (job.state, job.attempts) == (State.DONE, 2)


async def test_further_attempt_is_stored(autojump_clock: MockClock) -> None:
    gate = Gate()

    async def visit(url: str) -> None:
        if len(house.pool.visited) == 1:
            raise ConnectionClosed("the browser ended")
        await gate(url)

    async with open_house(visit) as house:
        job = await house.submit()
        await house.pool.reached(2)
        assert (house.store.stored[job.id]["attempts"], house.store.stored[job.id]["losses"]) == (2, 1)


async def test_crashed_page_costs_its_job_only(autojump_clock: MockClock) -> None:
    async def visit(url: str) -> None:
        if url.endswith("/0"):
            raise TargetCrashed("the page crashed")

    async with open_house(visit) as house:
        crashed, following = await house.submit(0), await house.submit(1)
        await house.service.wait(following)
        assert (crashed.error_code, crashed.attempts, following.state) == ("page_crashed", 1, State.DONE)


@pytest.mark.parametrize(
    "bug", [RuntimeError("a bug"), CommandError("Page.navigate", -32000, "a bug"), KeyError("bug")]
)
async def test_bug_fails_the_job_as_internal_and_spares_the_worker(bug: Exception, autojump_clock: MockClock) -> None:
    async def visit(url: str) -> None:
        if url.endswith("/0"):
            raise bug

    async with open_house(visit) as house:
        broken, following = await house.submit(0), await house.submit(1)
        await house.service.wait(following)
        assert (broken.state, broken.error_code, following.state) == (State.FAILED, "internal", State.DONE)


async def test_bug_is_logged_once_with_the_job(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    async def visit(url: str) -> None:
        raise RuntimeError("a bug")

    async with open_house(visit) as house:
        job = await house.service.wait(await house.submit())
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.__dict__["job_id"] == job.id
    assert record.exc_info is not None


async def test_bug_is_not_told_to_the_client(autojump_clock: MockClock) -> None:
    async def visit(url: str) -> None:
        raise RuntimeError("a bug in /srv/cleariflow.py")

    async with open_house(visit) as house:
        job = await house.service.wait(await house.submit())
        assert "/srv" not in (job.error or "")


async def test_every_line_about_a_job_has_its_id(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    with caplog.at_level(logging.INFO, "cleariflow"):
        async with open_house(losing(1)) as house:
            job = await house.service.wait(await house.submit())
    assert {record.__dict__.get("job_id") for record in caplog.records if record.name == "cleariflow"} == {job.id}


async def test_no_line_has_a_secret(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    with caplog.at_level(logging.DEBUG):
        async with open_house(losing(1)) as house:
            job = await house.submit(headers={"X-A": "hush"}, cookies="a=hush", api_key="hush")
            await house.service.wait(job)
    assert "hush" not in caplog.text


# ---- Retries ---------------------------------------------------------------------------------------------------------

REFUSED = NavigationError("net::ERR_CONNECTION_REFUSED")
CRASHED = TargetCrashed("the page crashed")
LOST = ConnectionClosed("the browser ended")


def failing(*faults: Exception | None) -> Callable[[str], Awaitable[None]]:
    """A visit that meets one fault after the other, then none."""
    left = iter(faults)

    async def visit(url: str) -> None:
        if (fault := next(left, None)) is not None:
            raise fault

    return visit


async def test_page_that_fails_for_now_is_tried_again(autojump_clock: MockClock) -> None:
    async with open_house(failing(REFUSED, CRASHED)) as house:
        job = await house.service.wait(await house.submit(retries=2))
        assert (job.state, job.attempts, job.losses) == (State.DONE, 3, 0)
        assert job.attempt_errors == [
            {"attempt": 1, "code": "navigation_failed", "error": str(REFUSED)},
            {"attempt": 2, "code": "page_crashed", "error": str(CRASHED)},
        ]


async def test_page_that_is_too_slow_is_tried_again(autojump_clock: MockClock) -> None:
    async def visit(url: str) -> None:
        if len(house.pool.visited) == 1:
            await trio.sleep_forever()

    async with open_house(visit) as house:
        job = await house.service.wait(await house.submit(retries=1, timeout_ms=1000))
        assert (job.state, job.attempts) == (State.DONE, 2)


async def test_retries_wait_longer_each_time(autojump_clock: MockClock) -> None:
    times: list[float] = []

    async def visit(url: str) -> None:
        times.append(trio.current_time())
        raise CRASHED

    async with open_house(visit) as house:
        await house.service.wait(await house.submit(retries=5))
        assert [after - before for before, after in itertools.pairwise(times)] == pytest.approx(RETRY_DELAYS_S)


@pytest.mark.parametrize("retries", [0, 2])
async def test_retries_end_with_the_last_failure(retries: int, autojump_clock: MockClock) -> None:
    async with open_house(failing(*[REFUSED] * 2, *[CRASHED] * 9)) as house:
        job = await house.service.wait(await house.submit(retries=retries))
        code = "page_crashed" if retries else "navigation_failed"
        assert (job.state, job.error_code, job.attempts) == (State.FAILED, code, retries + 1)
        assert [noted["attempt"] for noted in job.attempt_errors] == list(range(1, retries + 2))
        assert job.attempt_errors[-1]["error"] == job.error


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (NavigationError("net::ERR_CERT_DATE_INVALID"), "navigation_failed"),
        (NavigationError("net::ERR_CONNECTION_REFUSED", blocked="private"), "blocked_target"),
        (ScriptError("thrown"), "script_error"),
        (RuntimeError("a bug"), "internal"),
    ],
)
async def test_failure_that_a_retry_cannot_help_ends_the_job(
    fault: Exception, code: str, autojump_clock: MockClock
) -> None:
    async with open_house(failing(fault)) as house:
        job = await house.service.wait(await house.submit(retries=5))
        assert (job.error_code, job.attempts, len(job.attempt_errors)) == (code, 1, 1)


async def test_unwanted_status_is_not_tried_again(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.service.wait(await house.submit(retries=5, fail_on_status=["2xx"]))
        assert (job.error_code, job.attempts, job.retryable) == ("http_error", 1, False)


async def test_losses_cost_no_retry(autojump_clock: MockClock) -> None:
    async with open_house(failing(LOST, CRASHED, LOST, None)) as house:
        job = await house.service.wait(await house.submit(retries=1))
        assert (job.state, job.attempts, job.losses) == (State.DONE, 4, 2)
        assert [noted["code"] for noted in job.attempt_errors] == ["browser_lost", "page_crashed", "browser_lost"]


async def test_retries_cost_no_loss(autojump_clock: MockClock) -> None:
    faults = [CRASHED] * 2 + [LOST] * (LOSSES_ALLOWED + 1)
    async with open_house(failing(*faults)) as house:
        job = await house.service.wait(await house.submit(retries=2))
        assert (job.error_code, job.attempts) == ("browser_lost", len(faults))


async def test_lost_browser_does_not_wait_for_its_next_attempt(autojump_clock: MockClock) -> None:
    async with open_house(failing(*[LOST] * LOSSES_ALLOWED)) as house:
        started = trio.current_time()
        await house.service.wait(await house.submit())
        assert trio.current_time() == started


async def test_job_can_be_cancelled_between_its_attempts(autojump_clock: MockClock) -> None:
    async with open_house(failing(CRASHED)) as house:
        job = await house.submit(retries=1)
        await house.pool.reached(1)
        await trio.sleep(RETRY_DELAYS_S[0] / 2)
        house.service.cancel(job)
        await trio.sleep(RETRY_DELAYS_S[0])
        assert (job.error_code, job.attempts, len(house.pool.visited)) == ("cancelled", 1, 1)


async def test_former_failures_are_stored_with_the_next_attempt(autojump_clock: MockClock) -> None:
    gate = Gate()

    async def visit(url: str) -> None:
        if len(house.pool.visited) == 1:
            raise CRASHED
        await gate(url)

    async with open_house(visit) as house:
        job = await house.submit(retries=1)
        await house.pool.reached(2)
        stored = house.store.stored[job.id]
        assert (stored["attempts"], [noted["code"] for noted in stored["attempt_errors"]]) == (2, ["page_crashed"])


async def test_retries_are_counted_over_a_restart(tmp_path: Path) -> None:
    errors = [{"attempt": 1, "code": "page_crashed", "error": "x"}]
    request = {"url": URL, "retries": 1}
    job_id = await left_behind(tmp_path, state=State.RUNNING, attempts=2, request=request, attempt_errors=errors)
    async with open_disk(tmp_path, FakePool(failing(CRASHED))) as service:
        job = await service.wait(service.job(job_id))
        codes = [noted["code"] for noted in job.attempt_errors]
        assert (job.error_code, codes) == ("page_crashed", ["page_crashed", "worker_lost", "page_crashed"])


async def test_call_has_its_retries_too(autojump_clock: MockClock) -> None:
    async with open_house(failing(CRASHED)) as house:
        job = await house.service.capture("scrape", {"url": URL, "retries": 1})
        assert (job.state, job.attempts) == (State.DONE, 2)


# ---- Several artifacts -----------------------------------------------------------------------------------------------

SHOT = {"type": "screenshot", "name": "first"}
SEVERAL: dict[str, Any] = {"outputs": ["screenshot", "html"], "actions": [SHOT]}


async def test_all_that_an_attempt_made_is_kept(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.service.wait(await house.submit(**SEVERAL))
        assert job.artifacts == {
            "html": house.store.artifact(f"{job.id}.html", "text/html; charset=utf-8"),
            "screenshot": house.store.artifact(f"{job.id}-1.jpeg", "image/jpeg"),
            "first": house.store.artifact(f"{job.id}-2.jpeg", "image/jpeg"),
        }
        assert house.store.files.keys() == {one.file for one in job.artifacts.values()}


async def test_artifact_is_the_main_one_or_that_of_a_name(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.service.wait(await house.submit(**SEVERAL))
        main, first = house.service.artifact(job), house.service.artifact(job, "first")
        assert (main.file, first.file) == (f"{job.id}.html", f"{job.id}-2.jpeg")


async def test_artifact_of_an_unknown_name_tells_the_names(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.service.wait(await house.submit(**SEVERAL))
        with pytest.raises(ServiceError, match="no 'second'; it has html, screenshot, first") as caught:
            house.service.artifact(job, "second")
        assert caught.value.code == "not_found"


async def test_job_without_room_for_its_last_artifact_keeps_none(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        house.store.artifact_fault, house.store.room = OSError(28, "No space left on device"), 2
        job = await house.service.wait(await house.submit(**SEVERAL))
        assert (job.error_code, job.artifacts, house.store.files) == ("internal", {}, {})


async def test_job_cancelled_between_two_artifacts_keeps_none(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        house.store.saving = trio.Event()
        job = await house.submit(**SEVERAL)
        await wait_all_tasks_blocked()
        house.service.cancel(job)
        house.store.saving.set()
        await wait_all_tasks_blocked()
        assert (job.error_code, job.artifacts, house.store.files) == ("cancelled", {}, {})


async def test_stop_between_two_artifacts_keeps_none(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        house.store.saving = trio.Event()
        job = await house.submit(**SEVERAL)
        await wait_all_tasks_blocked()
        trio.lowlevel.spawn_system_task(release_later, house.store.saving)
    assert (job.state, job.artifacts, house.store.files) == (State.QUEUED, {}, {})


async def release_later(event: trio.Event) -> None:
    """Set an event once all others wait."""
    await wait_all_tasks_blocked()
    event.set()


# ---- Actions ---------------------------------------------------------------------------------------------------------


async def test_failed_action_is_named_by_its_index(autojump_clock: MockClock) -> None:
    actions = [{"type": "evaluate", "script": "1"}, {"type": "evaluate", "script": "throw"}]
    async with open_house() as house:
        job = await house.service.wait(await house.submit(actions=actions))
        assert (job.error_code, job.error_index, job.retryable) == ("action_failed", 1, False)


async def test_values_of_actions_are_told(autojump_clock: MockClock) -> None:
    actions = [
        {"type": "evaluate", "script": "throw", "optional": True},
        {"type": "executeJavascript", "script": "1"},
    ]
    async with open_house() as house:
        job = await house.service.wait(await house.submit(actions=actions))
        assert job.result_meta is not None
        assert job.result_meta["actions"] == [
            {"index": 0, "type": "evaluate", "ok": False, "elapsed_ms": 0, "error": "thrown"},
            {"index": 1, "type": "evaluate", "ok": True, "elapsed_ms": 0, "value": "1"},
        ]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.0.0.1"])
async def test_goto_to_a_blocked_target_becomes_no_job(host: str, autojump_clock: MockClock) -> None:
    actions = [{"type": "wait", "ms": 1}, {"type": "goto", "url": f"http://{host}/"}]
    async with open_house() as house:
        with pytest.raises(ValidationError, match="blocked target") as caught:
            await house.submit(actions=actions)
        assert (caught.value.code, [fault.field for fault in caught.value.faults]) == (
            "blocked_target",
            ["actions[1].url"],
        )


# ---- Synchronous calls -----------------------------------------------------------------------------------------------


async def test_call_returns_its_ended_job(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.service.capture("screenshot", {"url": URL})
        assert (job.state, job.sync) == (State.DONE, True)
        assert job.artifacts == {"image": house.store.artifact(f"{job.id}.jpeg", "image/jpeg")}


async def test_call_is_stored_only_at_its_end(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house, trio.open_nursery() as nursery:
        nursery.start_soon(house.service.capture, "scrape", {"url": URL})
        await house.pool.reached(1)
        assert house.store.stored == {}
        gate.open.set()
        await wait_all_tasks_blocked()
        assert [document["state"] for document in house.store.stored.values()] == ["done"]


async def test_call_whose_client_leaves_is_cancelled(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        with trio.move_on_after(1):
            await house.service.capture("scrape", {"url": URL})
        await wait_all_tasks_blocked()
        (job,) = house.store.jobs.values()
        assert (job.error_code, house.pool.pages_open) == ("cancelled", 0)


async def test_queued_call_whose_client_leaves_never_starts(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house:
        await house.submit()
        await house.pool.reached(1)
        with trio.move_on_after(1):
            await house.service.capture("scrape", {"url": f"{URL}call"})
        gate.open.set()
        await wait_all_tasks_blocked()
        assert house.pool.visited == [f"{URL}0"]


async def test_call_without_a_free_worker_ends_at_its_deadline(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house:
        await house.submit()
        await house.pool.reached(1)
        started = trio.current_time()
        async with refused("deadline"):
            await house.service.capture("scrape", {"url": f"{URL}call", "timeout_ms": 1500})
        assert trio.current_time() - started == 1.5
        gate.open.set()
        await wait_all_tasks_blocked()
        assert house.pool.visited == [f"{URL}0"]


async def test_call_that_began_in_time_may_end_later(autojump_clock: MockClock) -> None:
    async def visit(url: str) -> None:
        await trio.sleep(0.8)

    async with open_house(visit) as house:
        await house.submit()
        await house.pool.reached(1)
        job = await house.service.capture("scrape", {"url": URL, "timeout_ms": 1000})
        assert job.state is State.DONE


async def test_call_whose_page_hangs_ends_with_a_timeout(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        started = trio.current_time()
        job = await house.service.capture("scrape", {"url": URL, "timeout_ms": 1000})
        assert (job.error_code, trio.current_time() - started) == ("timeout", 1)


async def test_call_without_a_browser_is_refused_at_once(autojump_clock: MockClock) -> None:
    pool = FakePool()
    pool.browser, pool.fault = None, "no Chromium was found"
    async with open_house(pool=pool) as house:
        with trio.fail_after(0), pytest.raises(ServiceError, match="no Chromium was found") as caught:
            await house.service.capture("scrape", {"url": URL})
        assert caught.value.code == "no_browser"
        assert house.store.jobs == {}


async def test_call_waits_for_the_first_browser(autojump_clock: MockClock) -> None:
    pool = FakePool()
    pool.browser = None
    async with open_house(pool=pool) as house, trio.open_nursery() as nursery:
        nursery.start_soon(house.service.capture, "scrape", {"url": URL})
        await trio.sleep(BROWSER_START_S - 1)
        pool.browser = object()
        pool.notify()
        await pool.reached(1)


async def test_call_does_not_wait_for_a_browser_for_ever(autojump_clock: MockClock) -> None:
    pool = FakePool()
    pool.browser = None
    async with open_house(pool=pool) as house:
        started = trio.current_time()
        async with refused("no_browser"):
            await house.service.capture("scrape", {"url": URL})
        assert trio.current_time() - started == BROWSER_START_S


async def test_job_is_taken_without_a_browser_and_runs_later(autojump_clock: MockClock) -> None:
    pool = FakePool()
    pool.browser, pool.fault = None, "no Chromium was found"
    async with open_house(pool=pool) as house:
        job = await house.submit()
        await wait_all_tasks_blocked()
        assert (job.state, job.attempts) == (State.QUEUED, 0)
        pool.browser = object()
        pool.notify()
        await house.service.wait(job)
        assert job.state is State.DONE


# ---- Draining --------------------------------------------------------------------------------------------------------


async def test_drain_without_work_ends_at_once(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        with trio.fail_after(0):
            await house.service.drain(20)


async def test_drain_waits_for_running_jobs(autojump_clock: MockClock) -> None:
    async def visit(url: str) -> None:
        await trio.sleep(5)

    async with open_house(visit, workers=2) as house:
        jobs = [await house.submit(number) for number in range(2)]
        await house.pool.reached(2)
        await house.service.drain(20)
        assert [job.state for job in jobs] == [State.DONE] * 2


async def test_drain_leases_nothing_more(autojump_clock: MockClock) -> None:
    async def visit(url: str) -> None:
        await trio.sleep(5)

    async with open_house(visit) as house:
        await house.submit()
        queued = await house.submit(1)
        await house.pool.reached(1)
        await house.service.drain(20)
        await wait_all_tasks_blocked()
        assert (queued.state, queued.attempts) == (State.QUEUED, 0)


async def test_drain_ends_with_its_grace(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        await house.submit()
        await house.pool.reached(1)
        started = trio.current_time()
        await house.service.drain(20)
        assert trio.current_time() - started == 20


async def test_job_over_the_grace_is_queued_again(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        await house.pool.reached(1)
        await house.service.drain(1)
    assert (job.state, house.store.stored[job.id]["state"], job.losses) == (State.QUEUED, "queued", 0)
    assert house.pool.pages_open == 0


async def test_stop_without_a_drain_puts_running_jobs_back(autojump_clock: MockClock) -> None:
    async with open_house(Gate(), workers=2) as house:
        jobs = [await house.submit(number) for number in range(2)]
        await house.pool.reached(2)
    assert [job.state for job in jobs] == [State.QUEUED] * 2


async def test_nothing_is_taken_while_draining(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        await house.service.drain(0)
        async with refused("draining"):
            await house.submit()
        async with refused("draining"):
            await house.service.capture("scrape", {"url": URL})


async def ends_as_draining(house: House, number: str) -> None:
    """A call that is refused because the service stops."""
    async with refused("draining"):
        await house.service.capture("scrape", {"url": f"{URL}{number}"})


async def test_queued_call_ends_as_draining_at_once(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        await house.submit()
        await house.pool.reached(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends_as_draining, house, "call")
            await wait_all_tasks_blocked()
            nursery.start_soon(house.service.drain, 20)
            with trio.fail_after(1):
                await wait_all_tasks_blocked()
                assert len(nursery.child_tasks) == 1
            nursery.cancel_scope.cancel()


async def test_running_call_ends_as_draining_after_the_grace(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        with trio.fail_after(25):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends_as_draining, house, "call")
                await house.pool.reached(1)
                await house.service.drain(20)


async def test_running_call_may_end_within_the_grace(autojump_clock: MockClock) -> None:
    ended: list[Job] = []

    async def visit(url: str) -> None:
        await trio.sleep(5)

    async def call() -> None:
        ended.append(await house.service.capture("scrape", {"url": URL}))

    async with open_house(visit) as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await house.pool.reached(1)
            await house.service.drain(20)
        assert [job.state for job in ended] == [State.DONE]


@pytest.mark.parametrize("grace_s", [1, 100], ids=["ends", "is-cut-off"])
async def test_who_waits_for_a_job_is_woken_when_the_drain(grace_s: float, autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        await house.pool.reached(1)
        with trio.fail_after(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(house.service.wait, job)
                await wait_all_tasks_blocked()
                with trio.move_on_after(1.5):
                    await house.service.drain(grace_s)


async def test_bug_at_the_end_of_a_job_fails_it_and_spares_the_worker(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def save(name: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        raise MemoryError

    async with open_house() as house:
        with monkeypatch.context() as patch:
            patch.setattr(house.store, "save_artifact", save)
            job = await house.service.wait(await house.submit())
            assert (job.state, job.error_code) == (State.FAILED, "internal")
        assert (await house.service.wait(await house.submit(1))).state is State.DONE


# ---- Recovery --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_disk(folder: Path, pool: FakePool, *, workers: int = 1, **settings: Any) -> AsyncIterator[Service]:
    """A service over a real store and a fake pool; without workers its jobs stay as recovery leaves them."""
    store = Store(folder)
    config = Config(data_dir=str(folder), **settings)
    async with open_tasks() as writer:
        await writer.start(store.run)
        async with open_tasks() as tasks:
            service = Service(config, store, cast(cdp.Pool, pool), config.policy)
            service.recover()
            for _ in range(workers):
                tasks.start_soon(service.work)
            yield service


async def left_behind(folder: Path, **fields: Any) -> str:
    """The id of a job that a killed run left in this state."""
    store = Store(folder)
    async with open_tasks() as writer:
        await writer.start(store.run)
        number = store.next_number()
        given: dict[str, Any] = {"id": f"job-{number}", "service": "scrape", "request": {"url": f"{URL}{number}"}}
        job = Job(number=number, **given | fields)
        store.add(job)
        store.put(job)
        await store.flushed()
    return job.id


async def test_queued_job_runs_after_a_restart(tmp_path: Path) -> None:
    job_id = await left_behind(tmp_path)
    async with open_disk(tmp_path, FakePool()) as service:
        job = await service.wait(service.job(job_id))
        assert (job.state, job.attempts, job.losses) == (State.DONE, 1, 0)


async def test_queue_keeps_its_order_over_a_restart(tmp_path: Path) -> None:
    ids = [await left_behind(tmp_path, priority=priority) for priority in (0, 10, 5, 10)]
    pool = FakePool()
    async with open_disk(tmp_path, pool) as service:
        for job_id in ids:
            await service.wait(service.job(job_id))
    assert pool.visited == [f"{URL}{number}" for number in (2, 4, 3, 1)]


async def test_running_job_runs_again_after_a_restart(tmp_path: Path) -> None:
    job_id = await left_behind(tmp_path, state=State.RUNNING, attempts=1)
    async with open_disk(tmp_path, FakePool()) as service:
        job = await service.wait(service.job(job_id))
        assert (job.state, job.attempts, job.losses) == (State.DONE, 2, 1)


async def test_recovered_job_is_stored_as_queued(tmp_path: Path) -> None:
    job_id = await left_behind(tmp_path, state=State.RUNNING, attempts=1)
    async with open_disk(tmp_path, FakePool(), workers=0):
        pass
    store = Store(tmp_path)
    async with open_tasks() as writer:
        await writer.start(store.run)
        job = store.get(job_id)
        assert job is not None
        assert (job.state, job.losses) == (State.QUEUED, 1)


@pytest.mark.parametrize("losses", range(LOSSES_ALLOWED))
async def test_job_lost_a_few_times_runs_again(losses: int, tmp_path: Path) -> None:
    job_id = await left_behind(tmp_path, state=State.RUNNING, losses=losses)
    async with open_disk(tmp_path, FakePool(), workers=0) as service:
        assert service.job(job_id).state is State.QUEUED


async def test_end_of_the_service_between_two_attempts_is_no_loss(tmp_path: Path) -> None:
    noted = [{"attempt": 1, "code": "timeout", "error": "too slow"}]
    job_id = await left_behind(tmp_path, state=State.RUNNING, attempts=1, attempt_errors=noted)
    async with open_disk(tmp_path, FakePool(), workers=0) as service:
        job = service.job(job_id)
        assert (job.state, job.losses, job.attempt_errors) == (State.QUEUED, 0, noted)


async def test_job_lost_too_often_is_worker_lost(tmp_path: Path) -> None:
    job_id = await left_behind(tmp_path, state=State.RUNNING, losses=LOSSES_ALLOWED)
    async with open_disk(tmp_path, FakePool()) as service:
        job = service.job(job_id)
        assert (job.state, job.error_code, job.retryable) == (State.FAILED, "worker_lost", True)


async def test_ended_job_can_be_read_after_a_restart(tmp_path: Path) -> None:
    async with open_disk(tmp_path, FakePool()) as service:
        job = await service.wait(await service.submit("scrape", {"url": URL}))
    async with open_disk(tmp_path, FakePool()) as service:
        again = service.job(job.id)
        assert again.document() == job.document()
        assert (service.store.artifacts / service.artifact(again).file).read_text() == f"<html>{URL}</html>"


async def test_job_of_settings_that_became_narrower_is_an_invalid_request(tmp_path: Path) -> None:
    job_id = await left_behind(tmp_path, request={"url": URL, "timeout_ms": 10**6})
    async with open_disk(tmp_path, FakePool()) as service:
        job = await service.wait(service.job(job_id))
        assert (job.state, job.error_code) == (State.FAILED, "invalid_request")


async def test_damage_is_told_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await left_behind(tmp_path)
    with (tmp_path / "jobs.journal").open("ab") as file:
        file.write(b"torn")
    async with open_disk(tmp_path, FakePool()):
        pass
    assert [record for record in caplog.records if "jobs.journal" in record.getMessage()]


async def test_disk_that_is_full_refuses_jobs_and_spares_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    pool = FakePool(Gate())
    async with open_disk(tmp_path, pool) as service:
        job = await service.submit("scrape", {"url": URL})
        await pool.reached(1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            async with refused("storage_full"):
                await service.submit("scrape", {"url": URL})
        assert list(service.store.jobs) == [job.id]
        # The writer tries by itself; until then nothing is taken.
        await service.store.flushed()
        await service.submit("scrape", {"url": URL})
        assert len(service.store.jobs) == 2


# ---- Real Chromium ---------------------------------------------------------------------------------------------------


def settings(tmp_path: Path, **fields: Any) -> Config:
    """For pages of the test site."""
    return Config(data_dir=str(tmp_path / "data"), allow_network=("127.0.0.0/8",), **fields)


async def test_sixteen_jobs_of_both_kinds_never_mix(tmp_path: Path, site: Site) -> None:
    colours = [(16 * index, 255 - 16 * index, 8 * index) for index in range(16)]
    urls = [
        site.add(f"/mix/{index}", page(f"number {index}!", f"<style>body{{background:{css_colour(colour)}}}</style>"))
        for index, colour in enumerate(colours)
    ]
    picture = {"format": "png", "viewport": {"width": 100, "height": 60}}
    with trio.fail_after(60):
        async with open_service(settings(tmp_path, workers=4)) as service:
            jobs = [
                await service.submit(
                    *(("scrape", {"url": url}) if index % 2 else ("screenshot", {"url": url, **picture}))
                )
                for index, url in enumerate(urls)
            ]
            for index, job in enumerate(jobs):
                artifact = service.artifact(await service.wait(job))
                data = (service.store.artifacts / artifact.file).read_bytes()
                if index % 2:
                    assert f"number {index}!" in data.decode()
                else:
                    assert Image.open(BytesIO(data)).convert("RGB").getpixel((90, 50)) == colours[index]
                assert job.result_meta is not None
                assert job.result_meta["url"] == urls[index]


async def test_page_that_fails_once_is_had_by_a_retry(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reset_once(exchange: Exchange) -> Answer | None:
        if len(site.requests) > 1:
            return Answer(page("<p>at last</p>"))
        await exchange.reset()
        return None

    monkeypatch.setattr(cleariflow, "RETRY_DELAYS_S", (0.0,))
    url = site.add_route("/moody", reset_once)
    with trio.fail_after(30):
        async with open_service(settings(tmp_path, workers=1)) as service:
            job = await service.capture("scrape", {"url": url, "retries": 1})
            assert (job.state, job.attempts) == (State.DONE, 2)
            assert [noted["code"] for noted in job.attempt_errors] == ["navigation_failed"]
            assert b"at last" in (service.store.artifacts / service.artifact(job).file).read_bytes()


async def test_cancelled_job_closes_its_page_within_a_second(tmp_path: Path, site: Site) -> None:
    with trio.fail_after(30):
        async with open_service(settings(tmp_path, workers=1)) as service:
            job = await service.submit("scrape", {"url": site.url("/never")})
            await site.seen("/never")
            started = trio.current_time()
            service.cancel(job)
            await site.connections_settled()
            assert trio.current_time() - started < 1


async def test_nothing_is_left_in_the_folder_for_temporary_files(tmp_path: Path, site: Site) -> None:
    with trio.fail_after(30):
        async with open_service(settings(tmp_path)) as service:
            await service.capture("scrape", {"url": site.url("/ok")})
            assert os.listdir(tmp_path / "data" / "tmp")
    assert os.listdir(tmp_path / "data" / "tmp") == []


async def test_hostile_address_costs_no_neighbour_anything(tmp_path: Path, site: Site) -> None:
    with trio.fail_after(60):
        async with open_service(settings(tmp_path, workers=2)) as service:
            hostile = await service.submit("scrape", {"url": site.url("/push-state-40mb")})
            neighbours = [await service.submit("scrape", {"url": site.url("/ok")}) for _ in range(4)]
            for job in (hostile, *neighbours):
                await service.wait(job)
            assert [(job.state, job.attempts) for job in neighbours] == [(State.DONE, 1)] * 4
            assert hostile.attempts == 1
