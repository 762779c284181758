"""cdp/pool.py: with browsers that are none, in virtual time, and with real ones that are killed."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import cdp
from cdp.browser import DISPOSE_TIMEOUT_S
from cdp.errors import ConnectionClosed, LaunchError, TargetCrashed
from cdp.pool import BACK_OFF_S, HUNG_S, LOOK_S, STABLE_S, WATCH_S, Limits, open_pool
from cdp.tasks import open_tasks

from .site import OK_TEXT, Site

QUICK_S = 20


@attrs.define(eq=False)
class Fake:
    """A browser that only counts its pages."""

    pid: int
    product: str = "Fake/1"
    pages_open: int = 0
    pages_opened: int = 0
    condemned: str | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)
    closed: bool = False
    hung: bool = False
    gone: bool = False

    @asynccontextmanager
    async def open_page(self) -> AsyncIterator[Fake]:
        self.pages_open += 1
        self.pages_opened += 1
        try:
            yield self
        finally:
            self.pages_open -= 1

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

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Any]:
        self.times.append(trio.current_time())
        if self.faults:
            raise self.faults.pop(0)
        fake = Fake(pid=len(self.fakes) + 1)
        self.fakes.append(fake)
        try:
            yield fake
        finally:
            fake.closed = True


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
            assert page is factory.fakes[1]


async def test_pool_waits_with_a_page_for_a_browser(autojump_clock: MockClock) -> None:
    factory = Factory([LaunchError("not yet")])
    async with open_pool(factory) as pool, pool.open_page() as page:
        assert page is factory.fakes[0]


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
                seen.append(factory.fakes.index(cast(Any, page)))
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
                assert (shared, alone, third) == (factory.fakes[0], factory.fakes[1], factory.fakes[0])
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
            assert page is factory.fakes[0]


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
            assert (page, trio.current_time()) == (factory.fakes[1], began)


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
