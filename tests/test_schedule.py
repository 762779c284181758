"""The queue's order, against a sorted list, and its waiters."""

from __future__ import annotations

import itertools

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trio.testing import MockClock, wait_all_tasks_blocked

from cleariflow import POSITION_AGE_S, Job, Schedule

numbers = itertools.count(1)


def new_job(priority: int = 0, *, sync: bool = False, number: int | None = None) -> Job:
    """A queued job, numbered in order."""
    number = next(numbers) if number is None else number
    return Job(id=f"job-{number}", number=number, service="scrape", request={}, priority=priority, sync=sync)


def filled(*jobs: Job) -> Schedule:
    schedule = Schedule()
    for job in jobs:
        schedule.push(job)
    return schedule


def taken(schedule: Schedule) -> list[Job]:
    """All jobs, in the order in which they are taken."""
    return list(iter(schedule.take, None))


# ---- Order -----------------------------------------------------------------------------------------------------------


def test_larger_priority_goes_first() -> None:
    jobs = [new_job(priority) for priority in (0, 10, 5, 10)]
    assert [job.priority for job in taken(filled(*jobs))] == [10, 10, 5, 0]


def test_equal_priorities_go_in_order_of_their_numbers() -> None:
    first, second, third = new_job(5), new_job(5), new_job(5)
    assert taken(filled(second, third, first)) == [first, second, third]


def test_synchronous_job_goes_before_its_equals() -> None:
    early, late = new_job(), new_job(sync=True)
    assert taken(filled(early, late)) == [late, early]


def test_synchronous_job_goes_after_larger_priorities() -> None:
    urgent, call = new_job(1), new_job(sync=True)
    assert taken(filled(call, urgent)) == [urgent, call]


def test_extreme_priorities_are_in_order() -> None:
    jobs = [new_job(priority) for priority in (-(2**31), 0, 2**31 - 1)]
    assert [job.priority for job in taken(filled(*jobs))] == [2**31 - 1, 0, -(2**31)]


def test_take_of_an_empty_schedule_is_none() -> None:
    assert Schedule().take() is None


def test_removed_job_is_not_taken() -> None:
    first, second = new_job(), new_job()
    schedule = filled(first, second)
    schedule.remove(first)
    assert taken(schedule) == [second]


def test_removed_jobs_are_kept_by_nobody() -> None:
    schedule = filled(new_job(1))
    for _ in range(1000):
        job = new_job()
        schedule.push(job)
        schedule.remove(job)
    assert len(schedule._heap) < 100


def test_removed_job_is_not_counted() -> None:
    job = new_job()
    schedule = filled(job)
    schedule.remove(job)
    assert (len(schedule), list(schedule)) == (0, [])


def test_job_pushed_again_after_its_removal_is_taken_once() -> None:
    job = new_job()
    schedule = filled(job)
    schedule.remove(job)
    schedule.push(job)
    assert taken(schedule) == [job]


def test_job_returned_to_the_queue_goes_before_later_ones() -> None:
    returned, later = new_job(), new_job()
    schedule = filled(returned)
    assert schedule.take() is returned
    schedule.push(later)
    schedule.push(returned)
    assert taken(schedule) == [returned, later]


def test_iteration_allows_removal() -> None:
    schedule = filled(*[new_job() for _ in range(5)])
    for job in schedule:
        schedule.remove(job)
    assert len(schedule) == 0


class ScheduleMachine(RuleBasedStateMachine):
    """Any order of pushes, removals and takes, beside a list that is sorted anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule()
        self.queued: list[Job] = []
        self.gone: list[Job] = []

    def expected(self) -> list[Job]:
        return sorted(self.queued, key=lambda job: (-job.priority, not job.sync, job.number))

    @rule(priority=st.integers(-2, 2), sync=st.booleans())
    def push(self, priority: int, sync: bool) -> None:
        job = new_job(priority, sync=sync)
        self.schedule.push(job)
        self.queued.append(job)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def push_again(self, data: st.DataObject) -> None:
        job = self.gone.pop(data.draw(st.integers(0, len(self.gone) - 1)))
        self.schedule.push(job)
        self.queued.append(job)

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        job = self.queued.pop(data.draw(st.integers(0, len(self.queued) - 1)))
        self.schedule.remove(job)
        self.gone.append(job)

    @rule()
    def take(self) -> None:
        expected = next(iter(self.expected()), None)
        assert self.schedule.take() is expected
        if expected is not None:
            self.queued.remove(expected)
            self.gone.append(expected)

    @invariant()
    def counts(self) -> None:
        assert len(self.schedule) == len(self.queued)
        assert {job.id for job in self.schedule} == {job.id for job in self.queued}


test_schedule_is_a_sorted_list = ScheduleMachine.TestCase


# ---- Positions -------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans()), min_size=1, max_size=20))
def test_position_is_the_number_of_jobs_before(kinds: list[tuple[int, bool]]) -> None:
    async def positions() -> None:
        jobs = [new_job(priority, sync=sync) for priority, sync in kinds]
        schedule = filled(*jobs)
        positions = {job.id: schedule.position(job) for job in jobs}
        assert positions == {job.id: index for index, job in enumerate(taken(schedule))}

    trio.run(positions)


async def test_position_of_a_short_queue_is_always_right(autojump_clock: MockClock) -> None:
    first, second = new_job(), new_job()
    schedule = filled(first, second)
    assert schedule.position(second) == 1
    schedule.take()
    assert schedule.position(second) == 0


async def test_position_counts_no_removed_job(autojump_clock: MockClock) -> None:
    first, second = new_job(), new_job()
    schedule = filled(first, second)
    schedule.remove(first)
    assert schedule.position(second) == 0


async def test_position_in_a_long_queue_is_worked_out_once_in_a_while(autojump_clock: MockClock) -> None:
    jobs = [new_job() for _ in range(1001)]
    schedule = filled(*jobs)
    assert schedule.position(jobs[-1]) == 1000
    schedule.take()
    assert schedule.position(jobs[-1]) == 1000
    await trio.sleep(POSITION_AGE_S)
    assert schedule.position(jobs[-1]) == 999


async def test_position_of_a_new_job_in_a_long_queue_is_known_at_once(autojump_clock: MockClock) -> None:
    schedule = filled(*[new_job() for _ in range(1001)])
    schedule.position(next(iter(schedule)))
    late = new_job()
    schedule.push(late)
    assert schedule.position(late) == 1001


# ---- Arrival ---------------------------------------------------------------------------------------------------------


async def test_arrival_returns_at_once_when_jobs_wait(autojump_clock: MockClock) -> None:
    schedule = filled(new_job())
    with trio.fail_after(0):
        await schedule.arrival()


async def test_arrival_wakes_on_a_push(autojump_clock: MockClock) -> None:
    schedule = Schedule()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(schedule.arrival)
            await wait_all_tasks_blocked()
            schedule.push(new_job())


@pytest.mark.parametrize("workers", [2, 3, 8])
async def test_arrival_wakes_every_waiting_worker(workers: int, autojump_clock: MockClock) -> None:
    schedule = Schedule()
    done: list[Job] = []

    async def work() -> None:
        while True:
            await schedule.arrival()
            if (job := schedule.take()) is not None:
                done.append(job)
                await trio.sleep(10)

    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(workers):
                nursery.start_soon(work)
            await wait_all_tasks_blocked()
            for _ in range(workers):
                schedule.push(new_job())
                await wait_all_tasks_blocked()
    assert len(done) == workers


async def test_arrival_waits_on_when_another_worker_was_faster(autojump_clock: MockClock) -> None:
    schedule = Schedule()
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(schedule.arrival)
            await wait_all_tasks_blocked()
            job = new_job()
            schedule.push(job)
            schedule.remove(job)
    assert scope.cancelled_caught


async def test_cancelled_arrival_loses_no_job(autojump_clock: MockClock) -> None:
    schedule = Schedule()
    with trio.move_on_after(1):
        await schedule.arrival()
    job = new_job()
    schedule.push(job)
    await schedule.arrival()
    assert schedule.take() is job
