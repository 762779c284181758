"""The log: one line an event, whose job it is on every line that is about one, and no line that a page wrote."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from cdp.errors import ConnectionClosed, NavigationError
from cleariflow import LOSSES_ALLOWED, WORKING_FOR, Job, LineFormatter, State, printable
from tests.test_pool import Factory, Fake, open_filled
from tests.test_service import URL, FakePool, Gate, left_behind, open_disk, open_house

FORGED = "2026-01-01 00:00:00,000 INFO    job x: done"
BREAKS = ("\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029")


def record(**fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "cleariflow", "levelname": "INFO", "msg": "said", "args": ()} | fields)


def traceback_of(error: Exception) -> Any:
    try:
        raise error
    except type(error):
        return sys.exc_info()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """The JSON lines of the loggers that begin so."""
    caplog.set_level(logging.INFO)

    def lines(logger: str = "") -> list[dict[str, Any]]:
        shown = [json.loads(LineFormatter("json").format(one)) for one in caplog.records]
        return [line for line in shown if line["logger"].startswith(logger)]

    return lines


Told = Callable[..., list[dict[str, Any]]]

# ---- Lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("separator", BREAKS)
def test_message_makes_one_line(log_format: str, separator: str) -> None:
    line = LineFormatter(log_format).format(record(msg="%s", args=(f"a{separator}{FORGED}",)))
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("letter", ["\x1b", "\x07", "\b", "\x9b", "\u202e", "\u2066", "\u200f"])
def test_what_moves_a_terminal_is_escaped(letter: str) -> None:
    assert letter not in LineFormatter("text").format(record(msg=f"a{letter}[2Jb"))


def test_letters_of_all_scripts_stay_as_they_are() -> None:
    assert printable("Zoë \u6f22 \U0001f600 \\n") == "Zoë \u6f22 \U0001f600 \\n"


def test_half_a_character_is_escaped() -> None:
    assert printable("a\ud800") == "a\\ud800"


@pytest.mark.parametrize("separator", BREAKS)
def test_traceback_makes_no_line_of_ours(separator: str) -> None:
    error = traceback_of(ValueError(f"a{separator}{FORGED}"))
    first, *others = LineFormatter("text").format(record(exc_info=error)).splitlines()
    assert first.endswith("said")
    assert others
    assert [line for line in others if not line.startswith("    ")] == []


def test_what_moves_a_terminal_is_escaped_in_a_traceback() -> None:
    line = LineFormatter("text").format(record(exc_info=traceback_of(ValueError("a\x1b[2Jb"))))
    assert "\x1b" not in line
    assert "a\\x1b[2Jb" in line


# ---- Whose line it is ------------------------------------------------------------------------------------------------


def visiting(say: Callable[[], Awaitable[None]]) -> Callable[[str], Awaitable[None]]:
    """A visit that says something on the way."""

    async def visit(url: str) -> None:
        await trio.lowlevel.checkpoint()
        await say()

    return visit


async def say_in_task() -> None:
    logging.getLogger("cdp").warning("odd")


async def say_in_child() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say_in_task)


async def say_in_thread() -> None:
    await trio.to_thread.run_sync(logging.getLogger("cdp").warning, "odd")


async def test_line_about_another_job_keeps_its_name(told: Told) -> None:
    async def say() -> None:
        logging.getLogger("cdp").warning("odd", extra={"job_id": "other"})

    async with open_house(visiting(say)) as house:
        await house.service.wait(await house.submit())
    assert [line["job_id"] for line in told("cdp")] == ["other"]


@pytest.mark.parametrize("say", [say_in_task, say_in_child, say_in_thread])
async def test_line_of_cdp_inside_an_attempt_names_the_job(told: Told, say: Callable[[], Awaitable[None]]) -> None:
    async with open_house(visiting(say)) as house:
        job = await house.service.wait(await house.submit())
    (line,) = told("cdp")
    assert (line["job_id"], line["service"], line["attempt"]) == (job.id, "scrape", 1)


async def test_jobs_of_one_worker_are_told_apart(told: Told) -> None:
    async with open_house(visiting(say_in_task)) as house:
        jobs = [await house.service.wait(await house.submit(number)) for number in range(3)]
    assert [line["job_id"] for line in told("cdp")] == [job.id for job in jobs]


async def test_jobs_that_run_at_once_are_told_apart(told: Told) -> None:
    gate = Gate()

    async def visit(url: str) -> None:
        await gate(url)
        logging.getLogger("cdp").warning(url)

    async with open_house(visit, workers=2) as house:
        jobs = [await house.submit(number) for number in range(2)]
        await house.pool.reached(2)
        gate.open.set()
        for job in jobs:
            await house.service.wait(job)
    assert {line["message"]: line["job_id"] for line in told("cdp")} == {job.url: job.id for job in jobs}


async def test_line_between_jobs_names_none(told: Told) -> None:
    class Telling(FakePool):
        async def ready(self) -> None:
            logging.getLogger("cdp").warning("between")
            await super().ready()

    async with open_house(pool=Telling()) as house:
        await house.service.wait(await house.submit())
        await wait_all_tasks_blocked()
        await house.service.wait(await house.submit())
    outside = [line for line in told("cdp") if "job_id" not in line]
    # Before the worker takes a job, each time; inside, `open_page` asks too.
    assert len(outside) == len(told("cdp")) - 2


async def test_line_has_the_number_of_the_attempt(told: Told, autojump_clock: MockClock) -> None:
    async def visit(url: str) -> None:
        await say_in_task()
        raise NavigationError("net::ERR_CONNECTION_RESET")

    async with open_house(visit) as house:
        await house.service.wait(await house.submit(retries=2))
    assert [line["attempt"] for line in told("cdp")] == [1, 2, 3]


async def test_page_ahead_is_opened_for_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Job | None] = []

    async def note(fake: Fake) -> None:
        seen.append(WORKING_FOR.get())

    monkeypatch.setattr(Fake, "_fail", note)
    async with open_filled(Factory(), 1) as pool:
        in_context = WORKING_FOR.set(Job(number=1, service="scrape", request={}))
        async with pool.open_page():
            # This task has the next one opened.
            await wait_all_tasks_blocked()
        WORKING_FOR.reset(in_context)
    assert seen == [None, None]


async def test_page_is_of_the_job_that_took_it(told: Told) -> None:
    factory = Factory()
    async with open_filled(factory, 1) as pool:
        job = Job(number=1, service="scrape", request={})
        in_context = WORKING_FOR.set(job)
        async with pool.open_page():
            factory.fakes[0].closing = trio.Event()
        WORKING_FOR.reset(in_context)
        # Behind its use.
        factory.fakes[0].buggy.set()
        factory.fakes[0].closing.set()
        await wait_all_tasks_blocked()
    assert job.id in [line.get("job_id") for line in told("cdp") if "a bug" in line.get("traceback", "")]


# ---- One line for each end -------------------------------------------------------------------------------------------


def ends(told: Told) -> list[dict[str, Any]]:
    return [line for line in told("cleariflow") if "state" in line]


async def test_done_job_has_one_line_of_its_end(told: Told) -> None:
    async with open_house() as house:
        job = await house.service.wait(await house.submit())
    (line,) = ends(told)
    assert (line["job_id"], line["state"], line["attempt"]) == (job.id, "done", 1)
    assert line["elapsed_ms"] >= 0
    assert "code" not in line


async def test_failed_job_has_one_line_of_its_end(told: Told) -> None:
    async def visit(url: str) -> None:
        raise NavigationError("net::ERR_CERT_DATE_INVALID")

    async with open_house(visit) as house:
        job = await house.service.wait(await house.submit())
    (line,) = ends(told)
    assert (line["job_id"], line["state"], line["code"]) == (job.id, "failed", "navigation_failed")
    assert "net::ERR_CERT_DATE_INVALID" in line["message"]


@pytest.mark.parametrize("running", [True, False])
async def test_cancelled_job_has_one_line_of_its_end(told: Told, running: bool) -> None:
    async with open_house(Gate()) as house:
        jobs = [await house.submit(number) for number in range(2)]
        await house.pool.reached(1)
        job = jobs[0] if running else jobs[1]
        house.service.cancel(job)
        await wait_all_tasks_blocked()
    (line,) = ends(told)
    assert (line["job_id"], line["code"]) == (job.id, "cancelled")


async def test_job_that_a_restart_ends_has_one_line_of_its_end(told: Told, tmp_path: Path) -> None:
    job_id = await left_behind(tmp_path, state=State.RUNNING, attempts=1, losses=LOSSES_ALLOWED)
    async with open_disk(tmp_path, FakePool()):
        (line,) = ends(told)
    assert (line["job_id"], line["code"]) == (job_id, "worker_lost")


async def test_attempts_that_are_made_again_are_told(told: Told, autojump_clock: MockClock) -> None:
    losses = iter([ConnectionClosed("it ended")])

    async def visit(url: str) -> None:
        for error in losses:
            raise error

    async with open_house(visit) as house:
        job = await house.service.wait(await house.submit())
    warnings = [line for line in told("cleariflow") if line["level"] == "warning"]
    assert [(line["job_id"], line["attempt"]) for line in warnings] == [(job.id, 1)]
    assert warnings[0]["message"] == "attempt 1 failed with browser_lost: it ended"


async def test_error_text_of_a_page_makes_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def visit(url: str) -> None:
        raise NavigationError(f"net::ERR_ODD\n{FORGED}")

    async with open_house(visit) as house:
        job = await house.service.wait(await house.submit())
    assert "\n" in cast(str, job.error)
    lines = [LineFormatter("text").format(one) for one in caplog.records if one.name == "cleariflow"]
    assert [line for line in lines if "\n" in line or f"job {job.id}: " not in line] == []
    assert [line for line in lines if URL in line] == []
