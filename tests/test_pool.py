"""cdp/pool.py: with browsers that are none, in virtual time, and with real ones that are killed."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import cdp
from cdp.browser import DISPOSE_TIMEOUT_S
from cdp.errors import ConnectionClosed, LaunchError, SessionClosed, TargetCrashed
from cdp.pool import BACK_OFF_S, HUNG_S, LOOK_S, MAX_CLOSING, NO_LIMITS, STABLE_S, WATCH_S, Limits, Pool, open_pool
from cdp.processes import of_group
from cdp.tasks import open_tasks

from .site import OK_TEXT, Site

QUICK_S = 20
MOST_RENDERERS = 3
"""Of two pages, and one in reserve that Chromium keeps."""


@attrs.define(eq=False)
class FakePage:
    """A page that is none."""

    browser: Fake
    gone: bool = False
    closed: bool = False


@attrs.define(eq=False)
class Fake:
    """A browser that only counts its pages; as of a real one, what its end does to a page is ConnectionClosed."""

    pid: int
    product: str = "Fake/1"
    pages_open: int = 0
    pages_opened: int = 0
    pages: list[FakePage] = attrs.field(factory=list)
    """All that were opened."""
    opening: trio.Event = attrs.field(factory=trio.Event)
    """Pages are opened once this is set."""
    closing: trio.Event = attrs.field(factory=trio.Event)
    """And closed once this is."""
    buggy: trio.Event = attrs.field(factory=trio.Event)
    """Then a task of each page raises KeyError."""
    condemned: str | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)
    closed: bool = False
    hung: bool = False

    @asynccontextmanager
    async def open_page(self) -> AsyncIterator[FakePage]:
        self.pages_open += 1
        self.pages_opened += 1
        page, fault = FakePage(self), None
        try:
            with trio.CancelScope(shield=True):
                await self.opening.wait()
            if self.ended.is_set():
                raise ConnectionClosed("it ended")
            self.pages.append(page)
            async with open_tasks() as tasks:
                tasks.start_soon(self._fail)
                yield page
        except (SessionClosed, TargetCrashed, trio.Cancelled) as error:
            fault = error
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self.closing.wait()
            page.closed = True
            self.pages_open -= 1
            if self.ended.is_set() and fault is not None:
                raise ConnectionClosed("it ended") from fault

    async def _fail(self) -> None:
        await self.buggy.wait()
        raise KeyError("a bug")

    def condemn(self, reason: str) -> None:
        self.condemned = reason
        self.ended.set()

    async def answers(self, within_s: float) -> bool:
        with trio.move_on_after(within_s):
            await self.ended.wait() if self.hung else await trio.lowlevel.checkpoint()
            return True
        return False


@attrs.define
class Factory:
    """Opens fakes; `faults` are raised by the first launches."""

    faults: list[Exception] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)
    """When launches were tried."""
    fakes: list[Fake] = attrs.field(factory=list)
    slow_to_open: bool = False
    slow_to_close: bool = False

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Any]:
        self.times.append(trio.current_time())
        if self.faults:
            raise self.faults.pop(0)
        fake = Fake(pid=len(self.fakes) + 1)
        if not self.slow_to_open:
            fake.opening.set()
        if not self.slow_to_close:
            fake.closing.set()
        self.fakes.append(fake)
        try:
            yield fake
        finally:
            fake.closed = True


def of(page: cdp.Page) -> Fake:
    """The fake that a page is of."""
    return cast(Fake, cast(Any, page).browser)


async def test_pool_launches_as_many_browsers_as_asked_for() -> None:
    factory = Factory()
    async with open_pool(factory, browsers=3):
        await wait_all_tasks_blocked()
        assert len(factory.fakes) == 3


async def test_pool_opens_pages_in_the_browser_with_the_fewest() -> None:
    factory = Factory()
    async with open_pool(factory, browsers=3) as pool:
        await wait_all_tasks_blocked()
        for fake, pages in zip(factory.fakes, (2, 1, 3), strict=True):
            fake.pages_open = pages
        async with pool.open_page() as page:
            assert of(page) is factory.fakes[1]


async def test_pool_waits_with_a_page_for_a_browser(autojump_clock: MockClock) -> None:
    factory = Factory([LaunchError("not yet")])
    async with open_pool(factory) as pool, pool.open_page() as page:
        assert of(page) is factory.fakes[0]


async def test_pool_closes_a_browser_that_ended() -> None:
    factory = Factory()
    async with open_pool(factory):
        await wait_all_tasks_blocked()
        factory.fakes[0].ended.set()
        await wait_all_tasks_blocked()
        assert factory.fakes[0].closed


async def test_pool_launches_anew_what_ended(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory) as pool:
        await wait_all_tasks_blocked()
        factory.fakes[0].ended.set()
        await pool.ready()
        assert (pool.browser, pool.launches) == (factory.fakes[1], 2)


async def test_pool_offers_no_browser_that_ended() -> None:
    factory = Factory()
    async with open_pool(factory, browsers=2) as pool:
        await wait_all_tasks_blocked()
        factory.faults.append(LaunchError("gone"))
        factory.fakes[0].ended.set()
        await wait_all_tasks_blocked()
        assert pool.browser is factory.fakes[1]


async def test_pool_offers_no_browser_from_the_moment_it_ended() -> None:
    factory = Factory()
    async with open_pool(factory, browsers=2) as pool:
        await wait_all_tasks_blocked()
        factory.fakes[0].ended.set()
        assert pool.browser is factory.fakes[1]


async def test_pool_closes_its_browsers_at_its_end() -> None:
    factory = Factory()
    async with open_pool(factory, browsers=2):
        await wait_all_tasks_blocked()
    assert [fake.closed for fake in factory.fakes] == [True, True]


async def test_pool_without_a_browser_has_none() -> None:
    async with open_pool(Factory([LaunchError("gone")])) as pool:
        assert pool.browser is None


@pytest.mark.parametrize("error", [LaunchError("no Chromium found"), ConnectionClosed("no Chromium found")])
async def test_pool_tells_the_fault_of_a_launch(error: Exception) -> None:
    async with open_pool(Factory([error])) as pool:
        await wait_all_tasks_blocked()
        assert pool.fault == "no Chromium found"


async def test_pool_wakes_who_waits_when_a_launch_failed() -> None:
    async with open_pool(Factory([LaunchError("gone")])) as pool:
        with trio.fail_after(QUICK_S):
            await pool.changed()
        assert pool.fault == "gone"


async def test_pool_forgets_the_fault_when_a_browser_runs(autojump_clock: MockClock) -> None:
    async with open_pool(Factory([LaunchError("gone")])) as pool:
        await pool.ready()
        assert pool.fault is None


async def test_pool_backs_off_after_failed_launches(autojump_clock: MockClock) -> None:
    factory = Factory([LaunchError("gone")] * 7)
    async with open_pool(factory) as pool:
        await pool.ready()
    waits = [after - before for before, after in zip(factory.times, factory.times[1:], strict=False)]
    assert waits == pytest.approx([*BACK_OFF_S, BACK_OFF_S[-1], BACK_OFF_S[-1]])


async def test_pool_backs_off_anew_after_a_success(autojump_clock: MockClock) -> None:
    factory = Factory([LaunchError("gone")] * 3)
    async with open_pool(factory) as pool:
        await pool.ready()
        await trio.sleep(STABLE_S)
        factory.faults.append(LaunchError("again"))
        factory.fakes[0].ended.set()
        await wait_all_tasks_blocked()
        await pool.ready()
    assert factory.times[-1] - factory.times[-2] == pytest.approx(BACK_OFF_S[0])


async def test_pool_backs_off_from_a_browser_that_ends_at_once(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory) as pool:
        await pool.ready()
        factory.fakes[0].ended.set()
        await wait_all_tasks_blocked()
        await pool.ready()
    assert factory.times[1] - factory.times[0] == pytest.approx(BACK_OFF_S[0])


async def test_pool_leaves_the_body_s_exception_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_pool(Factory()):
            raise KeyError("mine")


# Pages ahead


@asynccontextmanager
async def open_filled(factory: Factory, pages_ahead: int, limits: Limits = NO_LIMITS) -> AsyncIterator[Pool]:
    """A pool of one browser, once nothing happens any more."""
    async with open_pool(factory, limits=limits, pages_ahead=pages_ahead) as pool:
        await wait_all_tasks_blocked()
        yield pool


def open_pages(fake: Fake) -> list[FakePage]:
    return [page for page in fake.pages if not page.closed]


async def test_page_ahead_is_the_next_one_taken() -> None:
    factory = Factory()
    async with open_filled(factory, 1) as pool:
        (ahead,) = factory.fakes[0].pages
        async with pool.open_page() as page:
            assert cast(Any, page) is ahead


async def test_pages_ahead_are_as_many_as_asked_for() -> None:
    factory = Factory()
    async with open_filled(factory, 3):
        assert len(factory.fakes[0].pages) == 3


async def test_pages_ahead_are_shared_out_among_browsers() -> None:
    factory = Factory()
    async with open_pool(factory, browsers=2) as pool:
        await wait_all_tasks_blocked()
        pool._pages_ahead = 4
        async with pool.open_page():
            pass
        await wait_all_tasks_blocked()
        assert [len(open_pages(fake)) for fake in factory.fakes] == [2, 2]


@pytest.mark.parametrize(("users", "ahead"), [(1, 2), (2, 1), (3, 1), (5, 1)])
async def test_pages_ahead_are_those_that_are_not_in_use(users: int, ahead: int) -> None:
    factory = Factory()
    async with open_filled(factory, 3) as pool, AsyncExitStack() as stack:
        for _ in range(users):
            await stack.enter_async_context(pool.open_page())
            await wait_all_tasks_blocked()
        assert len(open_pages(factory.fakes[0])) == users + ahead


async def test_no_page_is_opened_ahead_where_none_is_asked_for() -> None:
    factory = Factory()
    async with open_filled(factory, 0) as pool, pool.open_page():
        await wait_all_tasks_blocked()
        assert len(factory.fakes[0].pages) == 1


async def test_pages_ahead_are_no_more_than_asked_for_after_many_uses() -> None:
    factory = Factory()
    async with open_filled(factory, 2) as pool:
        for _ in range(10):
            async with pool.open_page():
                pass
        await wait_all_tasks_blocked()
        assert len(open_pages(factory.fakes[0])) == 2


async def test_page_that_is_open_is_taken_before_one_that_will_be(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_filled(factory, 1) as pool:
        fake = factory.fakes[0]
        (ready,), fake.opening = fake.pages, trio.Event()
        pool._pages_ahead = 2
        pool._open_ahead()
        pool._lives[0].ahead.reverse()
        with trio.fail_after(1):
            async with pool.open_page() as page:
                assert cast(Any, page) is ready
        fake.opening.set()


async def test_pages_ahead_of_a_browser_that_lost_something_are_replaced() -> None:
    factory = Factory()
    async with open_filled(factory, 2) as pool:
        former = set(map(id, factory.fakes[0].pages))
        with pytest.raises(ConnectionClosed):
            async with pool.open_page():
                raise ConnectionClosed("the browser lost its network service")
        await wait_all_tasks_blocked()
        assert former.isdisjoint(map(id, open_pages(factory.fakes[0])))


async def test_user_waits_for_the_page_that_is_on_its_way() -> None:
    factory = Factory(slow_to_open=True)
    async with open_filled(factory, 1) as pool:
        fake = factory.fakes[0]
        fake.opening.set()
        async with pool.open_page() as page:
            assert cast(Any, page) is fake.pages[0]


@pytest.mark.parametrize(("uses", "ahead"), [(1, 0), (2, 1), (3, 2), (4, 2)])
async def test_last_use_of_a_browser_is_not_opened_ahead(uses: int, ahead: int) -> None:
    factory = Factory()
    async with open_filled(factory, 2, Limits(uses=uses)):
        assert (len(factory.fakes), len(factory.fakes[0].pages)) == (1, ahead)


async def test_pages_ahead_change_nothing_about_how_many_a_browser_gets(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_filled(factory, 2, Limits(uses=3)) as pool:
        seen = []
        for _ in range(7):
            async with pool.open_page() as page:
                seen.append(factory.fakes.index(of(page)))
        assert seen == [0, 0, 0, 1, 1, 1, 2]


async def test_pages_ahead_of_a_retired_browser_are_closed(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_filled(factory, 2) as pool:
        pool._retire(pool._lives[0], "memory", "it holds too much")
        await trio.sleep(2 * LOOK_S)
        assert (len(open_pages(factory.fakes[0])), factory.fakes[0].closed) == (0, True)


async def test_pages_ahead_are_opened_in_the_successor(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_filled(factory, 2) as pool:
        await trio.sleep(STABLE_S)
        pool._retire(pool._lives[0], "memory", "it holds too much")
        await wait_all_tasks_blocked()
        assert len(open_pages(factory.fakes[1])) == 2


async def test_pages_ahead_do_not_keep_an_idle_browser(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_filled(factory, 2, Limits(idle_s=60)):
        await trio.sleep(60 + 3 * LOOK_S)
        assert (len(factory.fakes), factory.fakes[0].closed, open_pages(factory.fakes[0])) == (1, True, [])


async def test_pages_ahead_are_opened_again_on_demand(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_filled(factory, 2, Limits(idle_s=60)) as pool:
        await trio.sleep(1000)
        async with pool.open_page():
            await wait_all_tasks_blocked()
            assert len(open_pages(factory.fakes[1])) == 2


async def test_page_ahead_of_a_browser_that_ended_is_not_taken(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_filled(factory, 2) as pool:
        factory.fakes[0].ended.set()
        async with pool.open_page() as page:
            assert of(page) is factory.fakes[1]


async def test_pages_ahead_of_a_browser_that_ended_are_closed(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_filled(factory, 2):
        factory.fakes[0].ended.set()
        await wait_all_tasks_blocked()
        assert (open_pages(factory.fakes[0]), factory.fakes[0].closed) == ([], True)


async def test_page_ahead_whose_renderer_died_is_not_taken() -> None:
    factory = Factory()
    async with open_filled(factory, 2) as pool:
        dead, alive = (cast(Any, hosted.page) for hosted in pool._lives[0].ahead)
        dead.gone = True
        async with pool.open_page() as page:
            await wait_all_tasks_blocked()
            assert (cast(Any, page), dead.closed) == (alive, True)


async def test_page_ahead_that_died_is_made_up_for() -> None:
    factory = Factory()
    async with open_filled(factory, 1) as pool:
        factory.fakes[0].pages[0].gone = True
        async with pool.open_page() as page:
            await wait_all_tasks_blocked()
            assert len(open_pages(factory.fakes[0])) == 2
            assert not cast(Any, page).gone


async def test_page_ahead_with_a_bug_is_told_of_and_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    factory = Factory()
    async with open_filled(factory, 1) as pool:
        fake = factory.fakes[0]
        fake.buggy.set()
        await wait_all_tasks_blocked()
        fake.buggy = trio.Event()
        async with pool.open_page() as page:
            assert cast(Any, page) in fake.pages[1:]
    assert "a bug" in caplog.text


async def test_pool_closes_its_pages_at_its_end() -> None:
    factory = Factory()
    async with open_filled(factory, 3) as pool:
        async with pool.open_page():
            pass
    assert (factory.fakes[0].pages_open, open_pages(factory.fakes[0])) == (0, [])


# How the use of a page ends


class Mine(Exception):
    """An error of the body's own."""


async def test_page_is_closed_behind_its_use() -> None:
    factory = Factory(slow_to_close=True)
    async with open_filled(factory, 0) as pool:
        async with pool.open_page():
            pass
        fake = factory.fakes[0]
        assert len(open_pages(fake)) == 1
        fake.closing.set()
        await wait_all_tasks_blocked()
        assert open_pages(fake) == []


async def test_page_is_closed_behind_a_use_that_failed_by_itself() -> None:
    factory = Factory(slow_to_close=True)
    async with open_filled(factory, 0) as pool:
        with pytest.raises(Mine):
            async with pool.open_page():
                raise Mine
        assert len(open_pages(factory.fakes[0])) == 1
        factory.fakes[0].closing.set()
        await wait_all_tasks_blocked()
        assert open_pages(factory.fakes[0]) == []


async def test_pages_that_are_closed_behind_their_use_are_bounded(autojump_clock: MockClock) -> None:
    factory = Factory(slow_to_close=True)
    async with open_filled(factory, 0) as pool:
        for _ in range(MAX_CLOSING):
            async with pool.open_page():
                pass
        with trio.move_on_after(60) as waiting:
            async with pool.open_page():
                pass
        assert waiting.cancelled_caught
        factory.fakes[0].closing.set()


async def test_pages_in_use_do_not_count_as_closing(autojump_clock: MockClock) -> None:
    factory = Factory(slow_to_close=True)
    async with open_filled(factory, 3) as pool, AsyncExitStack() as stack:
        for _ in range(MAX_CLOSING):
            await stack.enter_async_context(pool.open_page())
        with trio.fail_after(60):
            async with pool.open_page():
                pass
        factory.fakes[0].closing.set()


@pytest.mark.parametrize("error", [SessionClosed("the session"), TargetCrashed("the target")])
async def test_loss_of_a_page_that_was_its_browser_s_end_is_that(error: Exception) -> None:
    factory = Factory()
    async with open_filled(factory, 1) as pool:
        with pytest.raises(ConnectionClosed, match="it ended") as caught:  # noqa: PT012
            async with pool.open_page():
                factory.fakes[0].ended.set()
                raise error
        assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [SessionClosed("the session"), TargetCrashed("the target"), Mine()])
async def test_error_of_a_use_leaves_as_it_is(error: Exception) -> None:
    async with open_filled(Factory(), 1) as pool:
        with pytest.raises(type(error)) as caught:
            async with pool.open_page():
                raise error
        assert caught.value is error


async def test_loss_of_a_page_is_told_when_the_page_is_closed(autojump_clock: MockClock) -> None:
    factory = Factory(slow_to_close=True)
    async with open_filled(factory, 0) as pool:
        fake = factory.fakes[0]

        async def lose() -> None:
            with pytest.raises(ConnectionClosed):
                async with pool.open_page():
                    raise SessionClosed("the session")

        async with open_tasks() as tasks:
            tasks.start_soon(lose)
            await wait_all_tasks_blocked()
            assert fake.pages_open == 1
            fake.condemn("it closed no context")
            fake.closing.set()
            await wait_all_tasks_blocked()


async def test_timeout_that_was_the_browser_s_end_is_that(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_filled(factory, 1) as pool:
        with pytest.raises(ConnectionClosed, match="it ended"), trio.move_on_after(1):  # noqa: PT012
            async with pool.open_page():
                factory.fakes[0].ended.set()
                await trio.sleep_forever()


async def test_timeout_closes_the_page_before_it_ends(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_filled(factory, 0) as pool:
        with trio.move_on_after(1) as scope:
            async with pool.open_page():
                await trio.sleep_forever()
        assert (scope.cancelled_caught, open_pages(factory.fakes[0])) == (True, [])


async def test_page_that_nobody_waits_for_any_more_is_closed_once_it_is_open(autojump_clock: MockClock) -> None:
    factory = Factory(slow_to_open=True)
    async with open_filled(factory, 0) as pool, open_tasks() as tasks:
        fake = factory.fakes[0]

        async def open_late() -> None:
            await trio.sleep(5)
            fake.opening.set()

        tasks.start_soon(open_late)
        with trio.move_on_after(1) as scope:
            async with pool.open_page():
                await trio.sleep_forever()
        assert (scope.cancelled_caught, len(fake.pages), open_pages(fake)) == (True, 1, [])


async def test_users_that_do_not_wait_pile_up_no_pages(autojump_clock: MockClock) -> None:
    factory = Factory(slow_to_open=True)
    async with open_filled(factory, 2) as pool, open_tasks() as tasks:
        fake, most = factory.fakes[0], 0

        async def impatient() -> None:
            for _ in range(10):
                with trio.move_on_after(0.1):
                    async with pool.open_page():
                        await trio.sleep_forever()

        for _ in range(2):
            tasks.start_soon(impatient)
        for _ in range(50):
            await trio.sleep(0.1)
            most = max(most, fake.pages_open)
        assert most <= 4
        fake.opening.set()


async def test_bug_in_a_task_of_the_page_reaches_its_user() -> None:
    factory = Factory()
    async with open_filled(factory, 1) as pool:
        with pytest.raises(ExceptionGroup) as caught, trio.fail_after(QUICK_S):  # noqa: PT012
            async with pool.open_page():
                factory.fakes[0].buggy.set()
                await trio.sleep_forever()
        assert caught.value.split(KeyError)[0] is not None


async def test_bug_that_shows_behind_a_use_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    factory = Factory()
    async with open_filled(factory, 0) as pool:
        async with pool.open_page():
            # The page's task waits for it.
            await wait_all_tasks_blocked()
            factory.fakes[0].buggy.set()
        await wait_all_tasks_blocked()
    assert "a bug" in caplog.text


async def test_use_of_a_page_whose_pool_is_closed_is_told() -> None:
    errors: list[Exception] = []
    started = trio.Event()

    async def use(pool: Pool) -> None:
        try:
            async with pool.open_page():
                started.set()
                await trio.sleep_forever()
        except ConnectionClosed as error:
            errors.append(error)

    async with open_tasks() as tasks:
        async with open_filled(Factory(), 1) as pool:
            tasks.start_soon(use, pool)
            await started.wait()
        await wait_all_tasks_blocked()
    assert [str(error) for error in errors] == ["the pool is closed"]


async def test_browser_that_ends_while_it_opens_a_page_is_its_user_s_fault(autojump_clock: MockClock) -> None:
    factory = Factory(slow_to_open=True)
    async with open_filled(factory, 0) as pool:
        fake = factory.fakes[0]

        async def end() -> None:
            await trio.sleep(1)
            fake.ended.set()
            fake.opening.set()

        async with open_tasks() as tasks:
            tasks.start_soon(end)
            with pytest.raises(ConnectionClosed, match="it ended"):
                async with pool.open_page():
                    pass


# Real browsers


def opener(policy: cdp.AddressPolicy) -> Callable[[], AbstractAsyncContextManager[cdp.Browser]]:
    return lambda: cdp.open_browser(policy=policy)


async def test_pool_replaces_a_browser_that_was_killed(policy: cdp.AddressPolicy, site: Site) -> None:
    with trio.fail_after(QUICK_S):
        async with open_pool(opener(policy)) as pool:
            await pool.ready()
            first = pool.browser
            assert first is not None
            assert first.pid is not None
            os.kill(first.pid, signal.SIGKILL)
            await first.ended.wait()
            async with pool.open_page() as page:
                await page.navigate(site.url("/ok"))
                assert OK_TEXT in await page.html()
            assert (pool.browser is not first, pool.launches) == (True, 2)


async def test_pool_tells_that_the_executable_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "cdp")
    async with open_pool(lambda: cdp.open_browser(Path("/nowhere/chromium"))) as pool:
        with trio.fail_after(QUICK_S):
            await pool.changed()
        assert pool.fault is not None
        assert "/nowhere/chromium" in pool.fault
        assert pool.fault in caplog.text


# Replacement of browsers that run


async def test_pool_replaces_a_browser_that_hangs(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory) as pool:
        await pool.ready()
        factory.fakes[0].hung = True
        started = trio.current_time()
        await factory.fakes[0].ended.wait()
        assert trio.current_time() - started <= WATCH_S + HUNG_S
        await pool.ready()
        assert (pool.browser, pool.retired) == (factory.fakes[1], {"ended": 1})


async def test_pool_tells_why_a_browser_is_given_up(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    factory = Factory()
    async with open_pool(factory) as pool:
        await pool.ready()
        factory.fakes[0].hung = True
        await factory.fakes[0].ended.wait()
        await wait_all_tasks_blocked()
    assert f"browser 1 is given up (ended): it answered nothing for {HUNG_S:g} s" in caplog.text


async def test_pool_gives_a_browser_so_many_pages(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory, limits=Limits(uses=2)) as pool:
        seen = []
        for _ in range(5):
            async with pool.open_page() as page:
                seen.append(factory.fakes.index(of(page)))
        assert (seen, pool.retired) == ([0, 0, 1, 1, 2], {"uses": 2})


async def test_pool_replaces_a_used_browser_without_delay(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory, limits=Limits(uses=1)) as pool:
        for _ in range(5):
            async with pool.open_page():
                pass
        assert factory.times[-1] == factory.times[0]


async def test_pool_closes_a_used_browser_with_its_last_page(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory, limits=Limits(uses=2)) as pool:
        async with pool.open_page():
            async with pool.open_page():
                pass
            await trio.sleep(60)
            assert (factory.fakes[0].closed, len(factory.fakes)) == (False, 2)
        await trio.sleep(2 * LOOK_S)
        assert (factory.fakes[0].closed, factory.fakes[1].closed) == (True, False)


async def test_pool_closes_a_used_browser_that_ends_before_its_pages(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory, limits=Limits(uses=1)) as pool, pool.open_page():
        await wait_all_tasks_blocked()
        factory.fakes[0].ended.set()
        await wait_all_tasks_blocked()
        assert (factory.fakes[0].closed, pool.retired) == (True, {"uses": 1})


async def test_browser_alone_is_for_its_body_only(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory) as pool:
        async with pool.open_page() as shared, pool.alone() as open_page:
            await trio.sleep(100)
            async with open_page() as alone, pool.open_page() as third:
                assert [of(page).pid for page in (shared, alone, third)] == [1, 2, 1]
        await trio.sleep(2 * LOOK_S)
        assert [fake.closed for fake in factory.fakes] == [False, True]


async def test_browser_alone_is_closed_though_no_page_was_opened(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory) as pool:
        await pool.ready()
        async with pool.alone():
            pass
        await trio.sleep(2 * LOOK_S)
        assert [fake.closed for fake in factory.fakes] == [False, True]


async def test_browsers_alone_are_no_more_than_the_pool_keeps(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory) as pool:
        async with pool.alone():
            with trio.move_on_after(100) as waiting:
                async with pool.alone():
                    pass
        assert waiting.cancelled_caught


async def test_browser_alone_that_cannot_be_started_is_that_of_the_pool() -> None:
    factory = Factory()
    async with open_pool(factory) as pool:
        await pool.ready()
        factory.faults.append(LaunchError("gone"))
        async with pool.alone() as open_page, open_page() as page:
            assert of(page) is factory.fakes[0]


async def test_browser_alone_closes_a_cancelled_page_at_once(policy: cdp.AddressPolicy) -> None:
    async with open_pool(opener(policy)) as pool:
        started = trio.current_time()
        with trio.move_on_after(0.5):
            async with pool.alone() as open_page, open_page():
                await trio.sleep_forever()
        assert trio.current_time() - started < DISPOSE_TIMEOUT_S / 2


async def test_browser_alone_that_ends_costs_no_other(policy: cdp.AddressPolicy, site: Site) -> None:
    with trio.fail_after(QUICK_S):
        async with open_pool(opener(policy)) as pool, pool.open_page() as neighbour:
            async with pool.alone() as open_page, open_page():
                (own,) = {life.browser.pid for life in pool._lives} - {cast(Any, pool.browser).pid}
                assert own is not None
                os.kill(own, signal.SIGKILL)
            await neighbour.navigate(site.url("/ok"))
            assert OK_TEXT in await neighbour.html()


async def test_pool_given_up_waits_for_no_browser(policy: cdp.AddressPolicy) -> None:
    started = trio.current_time()
    async with open_pool(opener(policy), limits=Limits(uses=1)) as pool:
        await pool.ready()
        first = pool.browser
        assert first is not None
        assert first.pid is not None
        # Retired by its only use, and hung.
        async with pool.open_page():
            os.kill(first.pid, signal.SIGSTOP)
            pool.give_up()
    assert trio.current_time() - started < DISPOSE_TIMEOUT_S


async def test_pool_closes_browsers_that_nobody_needs(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory, browsers=2, limits=Limits(idle_s=60)) as pool:
        async with pool.open_page():
            await trio.sleep(100)
        await trio.sleep(59)
        assert [fake.closed for fake in factory.fakes] == [False, False]
        await trio.sleep(3)
        assert [fake.closed for fake in factory.fakes] == [True, True]
        assert (pool.browser, pool.available) == (None, True)


async def test_pool_starts_a_browser_again_on_demand(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory, limits=Limits(idle_s=60)) as pool:
        await trio.sleep(1000)
        assert len(factory.fakes) == 1
        began = trio.current_time()
        async with pool.open_page() as page:
            assert (of(page), trio.current_time()) == (factory.fakes[1], began)


async def test_pool_without_a_limit_keeps_its_browser(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_pool(factory) as pool:
        for _ in range(100):
            async with pool.open_page():
                await trio.sleep(100)
        assert len(factory.fakes) == 1


async def test_pool_without_a_browser_is_not_available() -> None:
    async with open_pool(Factory([LaunchError("gone")])) as pool:
        await wait_all_tasks_blocked()
        assert not pool.available


EATER = "<script>const kept = []; setInterval(() => kept.push(new Uint8Array(2 ** 24).fill(kept.length)), 20)</script>"


async def test_pool_kills_the_renderer_that_holds_too_much(policy: cdp.AddressPolicy, site: Site) -> None:
    async with open_pool(opener(policy), limits=Limits(memory_bytes=2**29)) as pool:
        with trio.fail_after(QUICK_S):
            async with pool.open_page() as neighbour, pool.open_page() as eater:
                await neighbour.navigate(site.url("/ok"))
                await eater.set_content(EATER, None)
                with pytest.raises(TargetCrashed):
                    await eater.evaluate("new Promise(() => {})")
                assert OK_TEXT in await neighbour.html()
        assert (pool.launches, pool.renderers_killed, pool.retired) == (1, 1, {})


async def test_pool_replaces_a_browser_that_holds_too_much(policy: cdp.AddressPolicy, site: Site) -> None:
    # No page alone has half of it.
    async with open_pool(opener(policy), limits=Limits(memory_bytes=2**26)) as pool:
        with trio.fail_after(QUICK_S):
            async with pool.open_page() as page:
                await page.navigate(site.url("/ok"))
                while not pool.retired:
                    await pool.changed()
                assert OK_TEXT in await page.html()
        assert pool.retired == {"memory": 1}


async def test_page_ahead_has_its_own_cookies_and_storage(policy: cdp.AddressPolicy, site: Site) -> None:
    keep = "document.cookie = 'a=1; max-age=999'; localStorage.a = 1; caches.open('a').then(() => 0)"
    kept = "caches.keys().then(names => [document.cookie, localStorage.length, names.length])"
    async with open_pool(opener(policy), pages_ahead=1) as pool:
        # The second is opened while the first is in use.
        async with pool.open_page() as first, pool.open_page() as second:
            await first.navigate(site.url("/ok"))
            await first.evaluate(keep)
            await second.navigate(site.url("/ok"))
            assert await second.evaluate(kept) == ["", 0, 0]


async def test_page_ahead_that_was_killed_is_not_taken(policy: cdp.AddressPolicy, site: Site) -> None:
    async with open_pool(opener(policy), pages_ahead=2) as pool:
        with trio.fail_after(QUICK_S):
            async with pool.open_page() as page:
                await page.navigate(site.url("/ok"))
            (life,) = pool._lives
            for hosted in life.ahead:
                await hosted.opened.wait()
            assert life.browser.pid is not None
            waiting = [hosted.page for hosted in life.ahead if hosted.page is not None]
            for process in of_group(life.browser.pid):
                if process.is_renderer():
                    os.kill(process.pid, signal.SIGKILL)
            for one in waiting:
                await one.session.ended.wait()
            async with pool.open_page() as page:
                await page.navigate(site.url("/ok"))
                assert OK_TEXT in await page.html()
        assert pool.launches == 1


async def test_pool_with_pages_ahead_ends_without_a_warning(
    policy: cdp.AddressPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool(opener(policy), pages_ahead=2) as pool, pool.open_page():
        caplog.clear()
    assert caplog.messages == []


async def test_pages_ahead_leave_nothing_behind(policy: cdp.AddressPolicy, site: Site) -> None:
    async with open_pool(opener(policy), pages_ahead=2) as pool:

        async def use() -> None:
            async with pool.open_page() as page:
                await page.navigate(site.url("/ok"))

        async def renderers() -> int:
            """How many there are once those of closed pages are gone."""
            (life,) = pool._lives
            assert life.browser.pid is not None
            while len(life.hosts) > 2 or any(not hosted.opened.is_set() for hosted in life.hosts):  # noqa: ASYNC110
                await trio.sleep(0.01)
            group, count = life.browser.pid, math.inf
            for _ in range(100):
                count = min(count, sum(process.is_renderer() for process in of_group(group)))
                if count <= MOST_RENDERERS:
                    break
                await trio.sleep(0.05)
            return int(count)

        with trio.fail_after(2 * QUICK_S):
            for _ in range(30):
                await use()
            assert await renderers() <= MOST_RENDERERS
            assert (pool._lives[0].browser.pages_open, len(pool._lives[0].hosts)) == (2, 2)


# The watchdog's question


async def test_browser_answers(browser: cdp.Browser) -> None:
    assert await browser.answers(QUICK_S)


async def test_stopped_browser_does_not_answer(policy: cdp.AddressPolicy) -> None:
    async with cdp.open_browser(policy=policy) as browser:
        assert browser.pid is not None
        os.kill(browser.pid, signal.SIGSTOP)
        assert not await browser.answers(1)


async def test_lag_of_our_own_is_not_counted(policy: cdp.AddressPolicy) -> None:
    async with cdp.open_browser(policy=policy) as browser, open_tasks() as tasks:
        assert browser.pid is not None
        os.kill(browser.pid, signal.SIGSTOP)

        async def lag() -> None:
            # The whole loop, as when this process is stopped; the browser could not show that it lives.
            await trio.lowlevel.checkpoint()
            time.sleep(2.5)  # noqa: ASYNC251
            os.kill(cast(int, browser.pid), signal.SIGCONT)

        tasks.start_soon(lag)
        assert await browser.answers(1)
