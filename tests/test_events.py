"""What is told to those who follow jobs, over a service without a browser, and how over HTTP; and retries."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import cleariflow
from cdp.errors import NavigationError
from cdp.visit import PHASES
from cleariflow import END, Config, Job, JobEvent, Key, ServiceError, State, ValidationError
from tests.test_http import Api, Served, head, open_api, receive, served
from tests.test_service import URL, FakePool, Gate, House, open_disk, open_house, refused

Told = tuple[str, str, dict[str, Any]]
LONG = "x" * (cleariflow.KEPT_FIELD_CHARS + 1)


def told_by(event: JobEvent) -> Told:
    return event.name, event.id, event.data


async def followed(events: AsyncIterator[JobEvent], count: int) -> list[Told]:
    """The next events, so many."""
    with trio.fail_after(5):
        return [told_by(await anext(events)) for _ in range(count)]


async def all_of(house: House, job: Job, **given: Any) -> list[Told]:
    """What is told of a job until its end."""
    with trio.fail_after(5):
        return [told_by(event) async for event in house.service.follow(job, **given)]


def statuses(events: list[Told]) -> list[str]:
    return [data["status"] for name, _, data in events if name == "job"]


async def fails(url: str) -> None:
    raise NavigationError("net::ERR_NAME_NOT_RESOLVED")


# ---- One job ---------------------------------------------------------------------------------------------------------


async def test_job_is_followed_through_its_states(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house, trio.open_nursery() as nursery:
        first, job = await house.submit(), await house.submit(1)
        told: list[Told] = []

        async def follow() -> None:
            told.extend(await all_of(house, job))

        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        gate.open.set()
        await house.service.wait(first)
        await house.service.wait(job)
    assert statuses(told) == ["queued", "running", "done"]
    assert {data["job_id"] for _, _, data in told} == {job.id}


async def test_phases_are_told_in_order(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        events = house.service.follow()
        async with aclosing(events):
            await followed(events, 1)
            await house.service.wait(await house.submit())
            told = await followed(events, house.service.events.last)
    phases = [data["phase"] for name, _, data in told if name == "progress"]
    assert phases[:2] == ["prepare", "navigate"]
    assert phases[-2:] == ["capture", "close"]
    assert phases == sorted(phases, key=PHASES.index)


async def test_progress_never_falls_while_phases_come_again(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.submit()
        await house.service.wait(job)
        for phase in ("actions", "requests", "capture"):
            house.service._enter(job, phase)
        told = house.service.events.after(0) or []
    shares = [notice.data["progress"] for notice in told if notice.name == "progress"]
    assert shares == sorted(shares)
    assert 0 < shares[0] <= shares[-1] < 1


async def test_end_is_told_last_and_has_its_own_id(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        (name, event_id, data), *_ = (await all_of(house, await house.submit()))[::-1]
        assert (name, event_id, data["status"]) == ("job", END, "done")


async def test_ended_job_is_told_once(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.service.wait(await house.submit())
        assert await all_of(house, job) == [("job", END, job.row())]


async def test_failed_job_tells_why(autojump_clock: MockClock) -> None:
    async with open_house(fails) as house:
        _, _, data = (await all_of(house, await house.submit()))[-1]
        assert data["error"] == "navigation failed: net::ERR_NAME_NOT_RESOLVED"
        assert data["error_detail"] == {"code": "navigation_failed", "retryable": True}


async def test_further_attempt_is_told(autojump_clock: MockClock) -> None:
    async with open_house(fails) as house:
        told = await all_of(house, await house.submit(retries=1))
        attempts = [data["meta"]["attempts"] for name, _, data in told if name == "job"]
        assert attempts == sorted(attempts)
        assert attempts[-1] == 2


@pytest.mark.parametrize("at", [0, 3])
async def test_who_comes_again_gets_what_came_after(at: int, autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(gate) as house:
        job = await house.submit()
        await house.pool.reached(1)
        everything = house.service.events.after(0) or []
        events = house.service.follow(job, after=house.service.events.id_of(at))
        async with aclosing(events):
            told = await followed(events, len(everything) - at)
        assert [data for _, _, data in told] == [notice.data for notice in everything[at:]]


@pytest.mark.parametrize("after", ["", "other-1", "{run}-99", "{run}--1", "{run}-x", "end"])
async def test_who_comes_with_an_unknown_id_gets_the_job_as_it_is(after: str, autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        await house.pool.reached(1)
        run = house.service.events.id_of(0).partition("-")[0]
        events = house.service.follow(job, after=after.format(run=run))
        async with aclosing(events):
            ((name, _, data),) = await followed(events, 1)
        assert (name, data) == ("job", job.row())


async def test_row_of_a_running_job_has_its_phase(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        await house.pool.reached(1)
        assert job.row() | {"phase": "navigate", "progress": 0.11} == job.row()


# ---- All jobs --------------------------------------------------------------------------------------------------------


async def test_hello_tells_the_queue(autojump_clock: MockClock) -> None:
    async with open_house(Gate(), workers=2) as house:
        for number in range(5):
            await house.submit(number)
        await house.pool.reached(2)
        events = house.service.follow()
        async with aclosing(events):
            ((name, _, data),) = await followed(events, 1)
        queue = {"queued": 3, "running": 2, "workers": 2}
        assert (name, data) == ("hello", {"queue": queue, "version": cleariflow.__version__})


async def test_end_of_the_last_job_tells_an_empty_queue(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        await house.service.wait(await house.submit())
        (*_, notice) = house.service.events.after(0) or []
        assert (notice.data["status"], notice.data["queue"]) == ("done", {"queued": 0, "running": 0, "workers": 1})


async def test_nothing_that_came_before_is_told(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        await house.service.wait(await house.submit())
        events = house.service.follow()
        async with aclosing(events):
            await followed(events, 1)
            job = await house.submit()
            ((_, _, data),) = await followed(events, 1)
        assert (data["job_id"], data["status"]) == (job.id, "queued")


async def test_only_jobs_of_the_key_are_told(autojump_clock: MockClock) -> None:
    anna, bert = (Key(name=name, digest=name, created_at="") for name in ("anna", "bert"))
    async with open_house() as house:
        events = house.service.follow(key=anna)
        async with aclosing(events):
            await followed(events, 1)
            jobs = [await house.service.submit("scrape", {"url": URL}, 0, key) for key in (bert, anna, None, bert)]
            for job in jobs:
                await house.service.wait(job)
            told = [data["job_id"] for _, _, data in await followed(events, 10)]
        assert set(told) == {jobs[1].id}


async def test_who_is_too_slow_is_told_to_read_anew(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.setattr(cleariflow, "EVENTS_KEPT", 20)
    async with open_house() as house:
        events = house.service.follow()
        async with aclosing(events):
            await followed(events, 1)
            for number in range(3):
                await house.service.wait(await house.submit(number))
            ((name, event_id, _),) = await followed(events, 1)
            assert (name, event_id) == ("reset", house.service.events.id_of(house.service.events.last))
            await house.submit(4)
            ((name, _, _),) = await followed(events, 1)
            assert name == "job"


@pytest.mark.parametrize("more", [0, 1])
async def test_all_that_is_kept_is_told(more: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.setattr(cleariflow, "EVENTS_KEPT", 8)
    async with open_house(Gate()) as house:
        job = await house.submit()
        await house.pool.reached(1)
        events = house.service.follow()
        async with aclosing(events):
            await followed(events, 1)
            for _ in range(8 + more):
                house.service._tell(job)
            names = [name for name, _, _ in await followed(events, 1 if more else 8)]
        assert names == (["reset"] if more else ["job"] * 8)


@pytest.mark.parametrize("number", ["99", "²", "٣", "1" * 5000])
async def test_number_that_was_never_told_is_answered_with_reset(number: str, autojump_clock: MockClock) -> None:
    async with open_house() as house:
        run = house.service.events.id_of(0).partition("-")[0]
        events = house.service.follow(after=f"{run}-{number}")
        async with aclosing(events):
            assert [name for name, _, _ in await followed(events, 2)] == ["hello", "reset"]


async def test_number_that_is_not_kept_any_more_is_answered_with_reset(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(cleariflow, "EVENTS_KEPT", 3)
    async with open_house() as house:
        await house.service.wait(await house.submit())
        events = house.service.follow(after=house.service.events.id_of(1))
        async with aclosing(events):
            assert [name for name, _, _ in await followed(events, 2)] == ["hello", "reset"]


async def test_returned_job_begins_its_progress_anew(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        await house.pool.reached(1)
    assert (job.state, "phase" in job.row()) == (State.QUEUED, False)
    cleariflow.transition(job, cleariflow.Step.LEASED)
    assert (job.phase, job.progress) == (None, 0.0)


async def test_id_of_a_former_run_is_answered_with_reset(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        events = house.service.follow(after="0123abcd-5")
        async with aclosing(events):
            assert [name for name, _, _ in await followed(events, 2)] == ["hello", "reset"]


async def test_quiet_is_told_with_the_id_of_what_was_last(autojump_clock: MockClock) -> None:
    anna = Key(name="anna", digest="anna", created_at="")
    async with open_house() as house, trio.open_nursery() as nursery:

        async def keep_others_busy() -> None:
            while True:
                await house.service.wait(await house.submit())
                await trio.sleep(4)

        nursery.start_soon(keep_others_busy)
        news = house.service.news(key=anna, quiet_s=15)
        async with aclosing(news):
            assert [event.name for event in await anext(news)] == ["hello"]
            began = trio.current_time()
            for turn in (1, 2):
                (event,) = await anext(news)
                assert (event.name, trio.current_time() - began) == ("quiet", turn * 15)
                assert event.id == house.service.events.id_of(house.service.events.last)
        nursery.cancel_scope.cancel()


async def test_stream_that_is_not_allowed_any_more_ends(autojump_clock: MockClock) -> None:
    allowed = True
    async with open_house() as house:
        news = house.service.news(allowed=lambda: allowed)
        async with aclosing(news):
            await anext(news)
            allowed = False
            await house.submit()
            assert [events async for events in news] == []


async def test_stream_ends_with_a_service_that_stops_while_an_event_is_sent(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        events = house.service.follow()
        async with aclosing(events):
            await followed(events, 1)
            house.service.stop()
            with trio.fail_after(1):
                assert [event async for event in events] == []


async def test_queue_is_counted_while_an_ended_job_is_forgotten(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        await house.pool.reached(1)
        del house.store.jobs[job.id]
        assert house.service.queue()["running"] == 0


async def test_cancelled_job_has_no_progress(autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        await house.pool.reached(1)
        house.service.cancel(job)
        last = house.service.events.last
        house.service._enter(job, "capture")
        assert house.service.events.last == last


@pytest.mark.parametrize("one", [True, False])
async def test_streams_end_with_the_service(one: bool, autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        job = await house.submit()
        await house.pool.reached(1)

        async def follow() -> None:
            async for _ in house.service.follow(job if one else None):
                pass

        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow)
                await wait_all_tasks_blocked()
                assert house.service.events.followers == 1
                house.service.stop()
        assert house.service.events.followers == 0


# ---- Over HTTP -------------------------------------------------------------------------------------------------------


def parsed(text: bytes) -> list[Told]:
    """The events of a stream."""
    found = []
    for block in text.decode().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines())
        if "event" in fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


async def test_stream_of_a_job_over_http(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        job = await api.submit()
        answer = await api.get(f"/v1/jobs/{job.id}/events")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        text = await answer.get_data()
        assert text.startswith(b"retry: 2000\n\n")
        told = parsed(text)
        assert told[-1] == ("job", END, json.loads(json.dumps(job.row())))


async def test_stream_that_was_read_to_its_end_is_204(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        job = await api.ended()
        answer = await api.get(f"/v1/jobs/{job.id}/events", Last_Event_ID=END)
        assert (answer.status_code, await answer.get_data()) == (204, b"")


async def test_stream_of_no_job_is_404(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        assert (await api.get("/v1/jobs/x/events")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/events", "/v1/jobs/{id}/events"])
async def test_head_of_a_stream_ends(tmp_path: Path, path: str) -> None:
    async with open_api(tmp_path, Gate()) as api:
        job = await api.submit()
        with trio.fail_after(5):
            answer = await api.client.head(path.format(id=job.id))
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")


async def test_stream_of_all_jobs_needs_the_key(tmp_path: Path) -> None:
    async with open_api(tmp_path, api_key="a-key-that-is-long") as api:
        assert (await api.get("/v1/events")).status_code == 401
        assert (await api.client.head("/v1/events?api_key=a-key-that-is-long")).status_code == 200


async def test_stream_of_all_jobs_shows_those_of_the_key_over_http(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("anna", "bert"):
        assert cleariflow.main(["keys", "add", name, "--data-dir", str(tmp_path)]) == 0
    anna, bert = capsys.readouterr().out.split()
    async with served(tmp_path) as server:
        async with await server.connect() as stream:
            await streamed(server, stream, f"/v1/events?api_key={anna}", b"event: hello")
            ids = []
            for key in (bert, anna):
                answer = await server.post("/v1/scrape", {"url": URL, "api_key": key})
                assert answer.status_code == 200
                ids.append(next(reversed(server.service.store.jobs)))
            with trio.fail_after(10):
                text = await receive(stream, b'"status": "done"')
        assert [job_id in text.decode() for job_id in ids] == [False, True]


async def test_stream_goes_on_after_the_id_over_http(tmp_path: Path) -> None:
    async with served(tmp_path, Gate()) as server:
        job = await server.submit()
        await server.pool.reached(1)
        events = server.service.events
        for path in ("/v1/events", f"/v1/jobs/{job.id}/events"):
            async with await server.connect() as stream:
                given = f"Last-Event-ID: {events.id_of(events.last - 1)}"
                text = await streamed(server, stream, path, b"event: progress", given)
                assert b"x-accel-buffering: no" in text.lower()
                assert b"event: job" not in text


async def streamed(server: Served, stream: trio.SocketStream, path: str, end: bytes, *lines: str) -> bytes:
    await stream.send_all(head("GET", path, *lines))
    with trio.fail_after(10):
        return await receive(stream, end)


async def test_stream_ends_when_its_key_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cleariflow, "KEEP_ALIVE_S", 0.05)
    assert cleariflow.main(["keys", "add", "anna", "--data-dir", str(tmp_path)]) == 0
    key = capsys.readouterr().out.strip()
    async with served(tmp_path, Gate()) as server:
        async with await server.connect() as stream:
            await streamed(server, stream, f"/v1/events?api_key={key}", b"event: hello")
            assert cleariflow.main(["keys", "revoke", "anna", "--data-dir", str(tmp_path)]) == 0
            with trio.fail_after(10):
                await receive(stream, b"0\r\n\r\n")


async def test_streams_over_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "MAX_STREAMS", 1)
    async with served(tmp_path, Gate()) as server:
        async with await server.connect() as stream:
            await streamed(server, stream, "/v1/events", b"event: hello")
            answer = await server.get("/v1/events")
            assert (answer.status_code, (await answer.get_json())["error"]["code"]) == (429, "rate_limited")


async def test_stream_outlives_the_time_of_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "ANSWER_S", 0.1)
    monkeypatch.setattr(cleariflow, "KEEP_ALIVE_S", 0.1)
    async with served(tmp_path, Gate()) as server:
        async with await server.connect() as stream:
            await streamed(server, stream, "/v1/events", b"event: hello")
            with trio.fail_after(10):
                for _ in range(5):
                    await receive(stream, b": keep-alive\n\n")


async def test_client_that_leaves_follows_no_more(tmp_path: Path) -> None:
    async with served(tmp_path, Gate()) as server:
        async with await server.connect() as stream:
            await streamed(server, stream, "/v1/events", b"event: hello")
            assert server.service.events.followers == 1
        with trio.fail_after(10):
            while server.service.events.followers:
                await wait_all_tasks_blocked(0.01)


async def test_stream_ends_whole_when_the_service_stops(tmp_path: Path) -> None:
    async with served(tmp_path, Gate()) as server:
        async with await server.connect() as stream:
            await streamed(server, stream, "/v1/events", b"event: hello")
            server.service.stop()
            with trio.fail_after(10):
                # The last piece of a body in pieces.
                await receive(stream, b"0\r\n\r\n")


# ---- Retries ---------------------------------------------------------------------------------------------------------


async def test_retry_is_a_new_job_of_the_same_request(autojump_clock: MockClock) -> None:
    async with open_house(fails) as house:
        job = await house.service.wait(await house.submit(priority=7, wait_ms=5, retries=0))
        house.pool.visit = Gate()
        again = await house.service.retry(job, {})
        assert (again.request, again.priority, again.service) == (job.request, 7, "scrape")
        assert again.id != job.id


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
async def test_job_that_has_not_ended_is_not_retried(state: State, autojump_clock: MockClock) -> None:
    async with open_house(Gate()) as house:
        jobs = [await house.submit(number) for number in range(2)]
        await house.pool.reached(1)
        job = next(job for job in jobs if job.state is state)
        async with refused("not_ended"):
            await house.service.retry(job, {})


WIPED = {"cookies": "a=b", "headers": {"X-A": "b"}, "auth": {"username": "a", "password": "b"}, "user_agent": LONG}


async def test_retry_names_the_fields_that_were_wiped(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.service.wait(await house.submit(**WIPED))
        with pytest.raises(ValidationError) as caught:
            await house.service.retry(job, {"headers": {"X-A": "c"}})
        assert caught.value.code == "conflict"
        missing = {f"request.{name}" for name in WIPED} - {"request.headers"}
        assert {fault.field for fault in caught.value.faults} == missing


async def test_retry_takes_wiped_fields_anew(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.service.wait(await house.submit(**WIPED))
        house.pool.visit = Gate()
        again = await house.service.retry(job, WIPED)
        assert again.request["headers"] == {"X-A": "b"}
        assert again.request["user_agent"] == LONG


async def test_retry_takes_no_other_fields(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        job = await house.service.wait(await house.submit(cookies="a=b"))
        with pytest.raises(
            ValidationError, match=r"request\.url: is none of the fields that were wiped: cookies"
        ) as caught:
            await house.service.retry(job, {"url": URL, "x" * 10_000: 1})
        assert len(str(caught.value)) < 1000


async def test_retry_of_a_former_version_s_job_takes_any_field(tmp_path: Path) -> None:
    async with open_disk(tmp_path, FakePool()) as service:
        job = await service.wait(await service.submit("scrape", {"url": URL, "cookies": "a=b"}))
        stored = job.document()
        del stored["wiped"]
        old = Job.from_document(job.number, stored)
        again = await service.retry(old, {"cookies": "a=c"})
        assert again.request["cookies"][0]["value"] == "c"


async def test_what_was_wiped_is_known_after_a_restart(tmp_path: Path) -> None:
    async with open_disk(tmp_path, FakePool()) as service:
        job = await service.wait(await service.submit("scrape", {"url": URL, "cookies": "a=b"}))
    async with open_disk(tmp_path, FakePool()) as service:
        assert service.job(job.id).wiped == ["cookies"]


async def test_retry_over_http(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        job = await api.ended()
        answer = await api.client.post(f"/v1/jobs/{job.id}/retry")
        assert answer.status_code == 202
        again = (await answer.get_json())["job_id"]
        assert answer.headers["Location"] == f"/v1/jobs/{again}"
        assert (await api.service.wait(api.service.job(again))).state is State.DONE


async def conflict(api: Api, job: Job, body: object) -> tuple[int, dict[str, Any]]:
    answer = await api.post(f"/v1/jobs/{job.id}/retry", body)
    return answer.status_code, (await answer.get_json()).get("error", {})


async def test_retry_without_its_secrets_is_409_over_http(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        job = await api.ended(cookies="a=b")
        status, error = await conflict(api, job, {})
        assert (status, error["code"], error["field"]) == (409, "conflict", "request.cookies")
        status, _ = await conflict(api, job, {"request": {"cookies": "a=b"}})
        assert status == 202


@pytest.mark.parametrize("body", [[], {"request": 1}, {"reqest": {}}, b"{"])
async def test_retry_with_a_wrong_body_is_400(tmp_path: Path, body: object) -> None:
    async with open_api(tmp_path) as api:
        status, error = await conflict(api, await api.ended(), body)
        assert (status, error["code"]) == (400, "invalid_request")


async def test_retry_is_the_key_s_own_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cleariflow.main(["keys", "add", "anna", "--data-dir", str(tmp_path)]) == 0
    key = capsys.readouterr().out.strip()
    async with open_api(tmp_path) as api:
        job = await api.service.wait(await api.submit(cookies="a=b", api_key=key))
        answer = await api.post(f"/v1/jobs/{job.id}/retry", {"request": {"api_key": key, "cookies": "a=b"}})
        assert answer.status_code == 202
        assert api.service.job((await answer.get_json())["job_id"]).key == "anna"


async def test_retry_needs_the_key_of_the_job(tmp_path: Path) -> None:
    async with open_api(tmp_path, api_key="a-key-that-is-long") as api:
        job = await api.service.wait(await api.service.submit("scrape", {"url": URL}))
        path = f"/v1/jobs/{job.id}/retry"
        assert (await api.client.post(path)).status_code == 401
        # Of nobody's key.
        assert (await api.post(path, {"request": {"api_key": "a-key-that-is-long"}})).status_code == 404


async def test_retry_of_a_full_queue_is_refused(autojump_clock: MockClock) -> None:
    async with open_house(queue_limit=1) as house:
        job = await house.service.wait(await house.submit())
        house.pool.visit = Gate()
        await house.submit(1)
        await house.pool.reached(2)
        await house.submit(2)
        with pytest.raises(ServiceError, match="the queue is full"):
            await house.service.retry(job, {})


def test_row_has_no_secret() -> None:
    job = Job(number=1, service="scrape", request={"url": URL, "cookies": "hush", "headers": {"X": "hush"}})
    assert "hush" not in repr(job.row())
    assert Config().api_key is None
