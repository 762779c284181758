"""Background tasks in a context manager: whose exception leaves it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from cdp.tasks import open_tasks


async def test_body_s_exception_leaves_as_it_is() -> None:
    async def use() -> None:
        async with open_tasks() as tasks:
            tasks.start_soon(trio.sleep_forever)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await use()


async def test_body_s_exception_leaves_when_all_is_cancelled_too() -> None:
    async def use(scope: trio.CancelScope) -> None:
        async with open_tasks() as tasks:
            tasks.start_soon(trio.sleep_forever)
            scope.cancel()
            raise KeyError("mine")

    with trio.CancelScope() as scope, pytest.raises(KeyError, match="mine"):
        await use(scope)


async def test_cancellation_leaves_as_cancellation(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with open_tasks() as tasks:
            tasks.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_bug_of_a_task_ends_the_body() -> None:
    async def broken() -> None:
        raise ValueError("a bug")

    async def use() -> None:
        async with open_tasks() as tasks:
            tasks.start_soon(broken)
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await use()
    assert caught.group_contains(ValueError, match="a bug")


async def test_tasks_end_with_the_body(autojump_clock: MockClock) -> None:
    ended = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    async with open_tasks() as tasks:
        tasks.start_soon(task)
        await trio.sleep(1)
    assert ended == [True]
