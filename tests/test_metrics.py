"""`/metrics`: it parses, it is named as Prometheus wants it, and every counter moves by what was done."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from trio.testing import MockClock, wait_all_tasks_blocked

import cdp
from cdp.egress import Failure, FailureKind
from cdp.errors import NavigationError
from cdp.pool import PageCounts, Usage
from cleariflow import (
    ERROR_CODES,
    LOOK_AGE_S,
    LOSSES_ALLOWED,
    Config,
    JournalFile,
    State,
    create_app,
    open_service,
)
from tests.site import OK_TEXT, Site
from tests.test_http import Api, open_api, serve_api
from tests.test_pool import Factory, open_filled
from tests.test_service import URL, FakePool, Gate, left_behind

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
Figures = dict[tuple[str, ...], float]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """Every page loads at once."""
    async with open_api(tmp_path) as api:
        yield api


async def text_of(api: Api) -> str:
    """What a scraper gets."""
    answer = await api.get("/metrics")
    assert answer.status_code == 200
    return await answer.get_data(as_text=True)


async def figures(api: Api) -> Figures:
    """All samples, by name and the values of the labels, which are in the order of their names."""
    return samples(await text_of(api))


def samples(text: str) -> Figures:
    return {
        (one.name.removeprefix("cleariflow_"), *one.labels.values()): one.value
        for family in parse_text(text)
        for one in family.samples
    }


def moved(before: Figures, after: Figures, *prefixes: str) -> Figures:
    """The samples that changed, and by how much; without buckets."""
    return {
        key: after[key] - before[key]
        for key in after
        if key[0].startswith(prefixes) and not key[0].endswith(("_bucket", "_sum")) and after[key] != before[key]
    }


# ---- Format ----------------------------------------------------------------------------------------------------------


async def test_default_format_is_the_text_one(api: Api) -> None:
    answer = await api.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_openmetrics_is_given_to_who_asks_for_it(api: Api) -> None:
    answer = await api.get("/metrics", Accept=OPENMETRICS)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert list(parse_openmetrics(await answer.get_data(as_text=True)))


@pytest.mark.parametrize("version", ["x", "1.0.0 \xe9", "", "1.0.0;escaping=x"])
async def test_odd_version_is_answered(api: Api, version: str) -> None:
    answer = await api.get("/metrics", Accept=f"application/openmetrics-text;version={version}")
    assert answer.status_code == 200


@pytest.mark.parametrize("prefix", ["/screenshot", "/scrape"])
async def test_metrics_are_below_each_service(api: Api, prefix: str) -> None:
    assert (await api.get(f"{prefix}/metrics")).status_code == 200


async def test_names_follow_the_conventions(api: Api) -> None:
    families = list(parse_openmetrics(await (await api.get("/metrics", Accept=OPENMETRICS)).get_data(as_text=True)))
    assert [family.name for family in families if breaks_conventions(family)] == []


def breaks_conventions(family: Metric) -> bool:
    """As `promtool check metrics`; the parser has seen to `_total`."""
    odd = ("milliseconds", "ms", "kilobytes", "megabytes", "percent", "count", "sum", "bucket", "gauge", "counter")
    known = family.name.startswith(("cleariflow_", "process_"))
    return not (known and family.documentation) or not set(odd).isdisjoint(family.name.split("_"))


@pytest.mark.slow
async def test_promtool_finds_nothing(api: Api) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: apt install prometheus")
    done = await trio.run_process(
        [promtool, "check", "metrics"], stdin=(await text_of(api)).encode(), capture_stderr=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


async def test_labels_come_from_fixed_sets(api: Api) -> None:
    before = await figures(api)
    await api.ended("scrape", "http://8.8.8.8/hush?hush", headers={"X-Hush": "hush"}, user_agent="hush")
    text = await text_of(api)
    assert samples(text).keys() == before.keys()
    assert "hush" not in text


async def test_services_of_one_process_count_apart(tmp_path: Path) -> None:
    async with open_api(tmp_path / "a") as one, open_api(tmp_path / "b") as other:
        await one.ended()
        submitted = ("jobs_submitted_total", "scrape")
        assert ((await figures(one))[submitted], (await figures(other))[submitted]) == (1, 0)


async def test_durations_are_in_their_buckets(api: Api) -> None:
    for seconds in (0.1, 0.3, 600.0):
        api.service.tally.attempts["scrape"].observe(seconds)
    seen = {key[1:]: value for key, value in (await figures(api)).items() if key[0] == "attempt_seconds_bucket"}
    assert [seen[bound, "scrape"] for bound in ("0.1", "0.25", "0.5", "120.0", "+Inf")] == [1, 1, 2, 2, 3]
    assert {value for (_, service), value in seen.items() if service == "screenshot"} == {0}


async def test_times_of_making_are_left_out(api: Api) -> None:
    assert "_created" not in await text_of(api)


# ---- Jobs ------------------------------------------------------------------------------------------------------------


async def test_done_job_is_counted_once(api: Api) -> None:
    before = await figures(api)
    await api.ended("scrape")
    assert moved(before, await figures(api), "jobs_", "attempt_", "queue_") == {
        ("jobs_submitted_total", "scrape"): 1,
        ("jobs_ended_total", "", "scrape", "done"): 1,
        ("attempt_seconds_count", "scrape"): 1,
        ("queue_wait_seconds_count", "scrape"): 1,
    }


async def test_phases_of_an_attempt_are_counted(api: Api) -> None:
    before = await figures(api)
    await api.ended("screenshot", wait_for="p")
    phases = {key[1] for key in moved(before, await figures(api), "phase_")}
    assert {"open", "prepare", "navigate", "wait_for", "capture", "close"} <= phases
    assert "actions" not in phases


async def test_phase_in_which_an_attempt_ended_is_counted(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_api(tmp_path, Gate()) as api:
        before = await figures(api)
        await api.ended(timeout_ms=3000)
        after = await figures(api)
    assert after["phase_seconds_sum", "navigate"] - before["phase_seconds_sum", "navigate"] == pytest.approx(3)
    assert after["attempt_seconds_sum", "scrape"] == pytest.approx(3)


async def test_failed_job_is_counted_by_its_code(tmp_path: Path) -> None:
    async def visit(url: str) -> None:
        raise NavigationError("net::ERR_CERT_DATE_INVALID")

    async with open_api(tmp_path, visit) as api:
        before = await figures(api)
        await api.ended("screenshot")
        assert moved(before, await figures(api), "jobs_ended") == {
            ("jobs_ended_total", "navigation_failed", "screenshot", "failed"): 1
        }


@pytest.mark.parametrize("running", [True, False])
async def test_cancelled_job_is_counted(tmp_path: Path, running: bool) -> None:
    async with open_api(tmp_path, Gate()) as api:
        jobs = [await api.submit(), await api.submit()]
        await api.pool.reached(1)
        before = await figures(api)
        api.service.cancel(jobs[0] if running else jobs[1])
        assert moved(before, await figures(api), "jobs_ended") == {
            ("jobs_ended_total", "cancelled", "scrape", "failed"): 1
        }


async def test_job_that_a_restart_ends_is_counted(tmp_path: Path) -> None:
    await left_behind(tmp_path, state=State.RUNNING, attempts=1, losses=LOSSES_ALLOWED)
    async with open_api(tmp_path) as api:
        assert (await figures(api))["jobs_ended_total", "worker_lost", "scrape", "failed"] == 1


async def test_every_code_is_there_before_it_is_needed(api: Api) -> None:
    codes = {key[1] for key in await figures(api) if key[0] == "jobs_ended_total"}
    assert codes == {"", *ERROR_CODES}


async def test_attempts_of_a_job_are_counted_each(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def visit(url: str) -> None:
        raise NavigationError("net::ERR_CONNECTION_RESET")

    async with open_api(tmp_path, visit) as api:
        before = await figures(api)
        await api.ended(retries=2)
        assert moved(before, await figures(api), "attempt_", "queue_wait") == {
            ("attempt_seconds_count", "scrape"): 3,
            ("queue_wait_seconds_count", "scrape"): 1,
        }


async def test_wait_is_counted_at_the_first_attempt_only(tmp_path: Path) -> None:
    await left_behind(tmp_path, state=State.RUNNING, attempts=1, queue_ms=5)
    async with open_api(tmp_path) as api:
        (job,) = api.service.store.jobs.values()
        await api.service.wait(api.service.job(job.id))
        seen = await figures(api)
    assert (seen["attempt_seconds_count", "scrape"], seen["queue_wait_seconds_count", "scrape"]) == (1, 0)


async def test_queue_is_shown_by_service(tmp_path: Path) -> None:
    async with open_api(tmp_path, Gate(), queue_limit=9) as api:
        await api.submit("scrape")
        await api.pool.reached(1)
        for service in ("scrape", "screenshot", "screenshot"):
            await api.submit(service)
        seen = await figures(api)
    assert (seen["jobs_queued", "scrape"], seen["jobs_queued", "screenshot"]) == (1, 2)
    assert (seen["jobs_running",], seen["workers",]) == (1, api.service.config.workers)


async def test_age_of_the_queue_is_that_of_its_oldest_job(tmp_path: Path) -> None:
    await left_behind(tmp_path, created_at="2026-01-01T00:00:00.000Z")
    async with open_api(tmp_path, Gate(), pool=without_browser()) as api:
        await api.submit()
        assert (await figures(api))["queue_oldest_seconds",] > 24 * 3600


async def test_empty_queue_has_no_age(api: Api) -> None:
    assert (await figures(api))["queue_oldest_seconds",] == 0


def without_browser() -> FakePool:
    pool = FakePool()
    pool.browser, pool.fault = None, "no Chromium was found"
    return pool


async def test_service_that_is_not_ready_is_shown(tmp_path: Path) -> None:
    async with open_api(tmp_path / "a") as api:
        assert (await figures(api))["ready",] == 1
    async with open_api(tmp_path / "b", pool=without_browser()) as api:
        assert (await figures(api))["ready",] == 0


@pytest.mark.parametrize("reason", ["ended", "uses", "memory", "idle"])
async def test_each_reason_to_give_a_browser_up_is_shown(api: Api, reason: str) -> None:
    api.pool.retired[reason] += 1
    assert (await figures(api))["browser_retirements_total", reason] == 1


async def test_streams_of_events_are_shown(api: Api) -> None:
    api.service.events.followers += 2
    assert (await figures(api))["event_streams",] == 2


async def test_open_connections_are_shown(api: Api) -> None:
    async with serve_api(api) as server, await server.connect() as idle:
        await idle.send_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await idle.receive_some(2**16)
        stream = await server.connect()
        async with stream:
            await stream.send_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b"".join([piece async for piece in stream])
    assert b"\ncleariflow_connections 2.0\n" in answer


# ---- Store -----------------------------------------------------------------------------------------------------------


async def test_commits_of_the_store_are_counted(api: Api) -> None:
    before = await figures(api)
    await api.submit()
    after = moved(before, await figures(api), "store_commits", "store_fsync", "store_folds", "store_jobs")
    # The lease may have come into the same one.
    assert after[("store_commits_total",)] == after[("store_fsync_seconds_count",)] >= 1
    assert after[("store_jobs",)] == 1
    assert ("store_folds_total",) not in after


async def test_journal_is_as_large_as_its_file(api: Api, tmp_path: Path) -> None:
    await api.ended()
    await api.service.store.flushed()
    seen = await figures(api)
    size = os.path.getsize(tmp_path / "jobs.journal")
    assert (seen["store_journal_bytes",], seen["store_written_bytes_total",]) == (size, size)


async def test_faults_of_the_disk_are_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await figures(api)

    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, "a bad block")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        assert (await api.post("/scrape/v1/jobs", {"request": {"url": URL}})).status_code == 503
    assert moved(before, await figures(api), "store_faults")[("store_faults_total",)] >= 1


def test_refused_fold_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, refusals = JournalFile(tmp_path / "journal", {}), [OSError(errno.ENOSPC, "full")]
    sync = os.fsync

    def refuse_once(fd: int) -> None:
        for refusal in refusals:
            refusals.clear()
            raise refusal
        sync(fd)

    monkeypatch.setattr(os, "fsync", refuse_once)
    assert not file.save(b"00000000 []\n", [])
    file.close()
    assert (file.counts.faults, file.counts.folds, file.counts.commits) == (1, 1, 1)


async def test_artifacts_are_shown(api: Api, tmp_path: Path) -> None:
    for _ in range(2):
        await api.ended()
    size = sum(path.stat().st_size for path in (tmp_path / "artifacts").iterdir())
    seen = await figures(api)
    assert (seen["artifacts",], seen["artifact_bytes",]) == (2, size)
    assert seen["disk_free_bytes",] > 0


# ---- Egress ----------------------------------------------------------------------------------------------------------


def test_totals_of_a_policy_outlive_its_ledgers(policy: cdp.AddressPolicy) -> None:
    for _ in range(2):
        ledger = policy.ledger()
        ledger.count(received=5, sent=3)
        ledger.connected("a.b", 80)
        ledger.record("a.b", 81, Failure(FailureKind.blocked, "why"))
        ledger.count_ad()
    totals = policy.totals
    assert (totals.bytes_received, totals.bytes_sent, totals.connections, totals.ads_blocked) == (10, 6, 2, 2)
    assert totals.failures == {FailureKind.blocked: 2}


def test_what_a_ledger_includes_is_not_counted_twice(policy: cdp.AddressPolicy) -> None:
    first, second = policy.ledger(), policy.ledger()
    first.count(received=5)
    first.connected("a.b", 80)
    second.include(first)
    assert (policy.totals.bytes_received, policy.totals.connections) == (5, 1)
    assert (second.bytes_received, second.connections) == (5, 1)


async def test_plain_fetch_is_counted(site: Site, tmp_path: Path) -> None:
    async with open_api(tmp_path, allow_network=("127.0.0.0/8",)) as api:
        before = await figures(api)
        job = await api.ended(url=site.url("/ok"), render=False)
        seen = moved(before, await figures(api), "egress_")
        network = cast(dict[str, Any], job.result_meta)["network"]
    assert seen == {
        ("egress_bytes_total", "received"): network["bytes_received"],
        ("egress_bytes_total", "sent"): network["bytes_sent"],
        ("egress_connections_total",): 1,
    }


async def test_bytes_of_both_directions_are_shown(api: Api) -> None:
    api.service.policy.ledger().count(received=5, sent=3)
    seen = await figures(api)
    assert (seen["egress_bytes_total", "received"], seen["egress_bytes_total", "sent"]) == (5, 3)


async def test_refused_connection_is_counted_by_its_kind(site: Site, tmp_path: Path) -> None:
    async with open_api(tmp_path, allow_network=("127.0.0.0/8",)) as api:
        before = await figures(api)
        await api.ended(url="http://127.0.0.1:1081/", render=False)
        assert moved(before, await figures(api), "egress_") == {("egress_failures_total", "connection_refused"): 1}


# ---- The real thing --------------------------------------------------------------------------------------------------


async def test_real_browsers_are_counted(site: Site, tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path), workers=1, allow_network=("127.0.0.0/8",))
    async with open_service(config) as service:
        api = Api(create_app(service).test_client(), service, cast(FakePool, service.pool))
        job = await api.ended("scrape", site.url("/ok"))
        await until(api, lambda seen: seen["browser_pages", "in_use"] == 0)
        seen = await figures(api)
        assert seen["browser_launches_total",] == 1
        assert (seen["browser_pages", "ahead"], seen["browser_pages_opened_total",]) == (1, 2)
        assert seen["egress_bytes_total", "received"] == cast(Any, job.result_meta)["network"]["bytes_received"]
        assert seen["egress_bytes_total", "received"] > len(OK_TEXT)
        assert seen["browser_processes",] > 2
        assert seen["browser_memory_bytes",] > 2**24
        assert seen["browser_cpu_seconds_total",] > 0
        assert seen["process_resident_memory_bytes",] > 2**24

        assert service.pool.browser is not None
        assert service.pool.browser.pid is not None
        os.kill(service.pool.browser.pid, signal.SIGKILL)
        await until(api, lambda now: now["browser_retirements_total", "ended"] == 1)
        await service.pool.ready()
        now = await figures(api)
    assert now["browser_launches_total",] == 2
    assert sum(value for key, value in now.items() if key[0] == "browser_retirements_total") == 1
    # Those of the one that is gone, too.
    assert now["browser_pages_opened_total",] >= seen["browser_pages_opened_total",]


async def until(api: Api, fits: Callable[[Figures], bool]) -> None:
    """Wait until the figures are so."""
    with trio.fail_after(20):
        while not fits(await figures(api)):  # noqa: ASYNC110  # figures tell nobody that they change
            await trio.sleep(0.01)


async def test_cpu_time_never_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([(3, 30, 5.0), (2, 20, 4.0), (1, 10, 1.0)])
    monkeypatch.setattr(cdp.pool, "_usage", lambda group: next(found))
    factory = Factory()
    async with open_filled(factory, 0) as pool:
        # A process has ended between the first two looks.
        looks = [await pool.usage(), await pool.usage()]
        factory.fakes[0].ended.set()
        while len(factory.fakes) < 2 or pool.browser is None:
            await pool.changed()
        looks.append(await pool.usage())
    assert looks == [Usage(3, 30, 5.0), Usage(2, 20, 5.0), Usage(1, 10, 6.0)]


async def test_browser_that_starts_again_says_why(autojump_clock: MockClock) -> None:
    factory = Factory()
    async with open_filled(factory, 0) as pool:
        assert pool.state == "Fake/1 runs"
        factory.fakes[0].condemn("it answered nothing")
        await wait_all_tasks_blocked()
        assert pool.state == "the browser is starting; the one before was given up: it answered nothing"


async def test_pages_of_a_pool_are_counted(autojump_clock: MockClock) -> None:
    async with open_filled(Factory(), 2) as pool:
        assert pool.pages == PageCounts(in_use=0, ahead=2, opened=2)
        async with pool.open_page(), pool.alone() as open_alone, open_alone():
            await wait_all_tasks_blocked()
            assert pool.pages == PageCounts(in_use=2, ahead=1, opened=3)
        await trio.sleep(1)
        assert pool.pages == PageCounts(in_use=0, ahead=2, opened=4)


async def test_browser_that_cannot_start_is_counted_and_told(tmp_path: Path) -> None:
    async with open_service(Config(data_dir=str(tmp_path), workers=1, browser="/bin/false")) as service:
        api = Api(create_app(service).test_client(), service, cast(FakePool, service.pool))
        await until(api, lambda seen: seen["browser_launch_failures_total",] >= 1)
        error = (await (await api.get("/readyz")).get_json())["error"]
        assert (await api.get("/livez")).status_code == 200
    assert error["code"] == "no_browser"
    assert "/bin/false ended at its start" in error["message"]
    assert "cleariflow doctor" in error["message"]


async def test_processes_are_looked_at_once_a_second(
    api: Api, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    looks = 0
    look = api.pool.usage

    async def count() -> cdp.pool.Usage:
        nonlocal looks
        looks += 1
        return await look()

    monkeypatch.setattr(api.pool, "usage", count)
    for _ in range(3):
        await figures(api)
    await trio.sleep(LOOK_AGE_S)
    await figures(api)
    assert looks == 2
