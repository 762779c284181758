"""The job's life as data: its transition table, what each step writes, and how it is stored."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp import errors
from cdp.options import Range
from cdp.validation import fields_of
from cleariflow import (
    ERROR_CODES,
    FAILURE_CODES,
    JOB_TRANSITIONS,
    RETRIED_CODES,
    RETRY_DELAYS_S,
    RETRYABLE_NET_ERRORS,
    Artifact,
    BaseRequest,
    Job,
    JobFailed,
    State,
    StatusPattern,
    Step,
    fail,
    failure_of,
    milliseconds_between,
    now_text,
    transition,
)

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def new_job(state: State = State.QUEUED, **fields: Any) -> Job:
    """A job of a small request."""
    given: dict[str, Any] = {"id": "an-id", "number": 1, "service": "screenshot", "request": {"url": "http://a.b/"}}
    return Job(state=state, **given | fields)


# ---- The table -------------------------------------------------------------------------------------------------------


def test_table_is_the_one_of_the_design() -> None:
    assert {(state.value, step.value): new.value for (state, step), new in JOB_TRANSITIONS.items()} == {
        ("queued", "leased"): "running",
        ("queued", "failed"): "failed",
        ("running", "succeeded"): "done",
        ("running", "failed"): "failed",
        ("running", "returned"): "queued",
    }


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_step_outside_the_table_changes_nothing(state: State, step: Step) -> None:
    job = new_job(state)
    before = job.document()
    if (state, step) in JOB_TRANSITIONS:
        transition(job, step)
        assert job.state is JOB_TRANSITIONS[state, step]
    else:
        with pytest.raises(AssertionError, match=f"job an-id is {state}"):
            transition(job, step, error="x")
        assert job.document() == before


@given(st.lists(st.sampled_from(Step), max_size=12))
def test_random_steps_never_leave_the_table(steps: list[Step]) -> None:
    job = new_job()
    leases = 0
    for step in steps:
        expected = JOB_TRANSITIONS.get((job.state, step))
        if expected is None:
            with pytest.raises(AssertionError):
                transition(job, step)
            continue
        transition(job, step)
        leases += step is Step.LEASED
        assert job.state is expected
        assert job.attempts == leases
        assert job.ended == (job.state in ("done", "failed"))
        assert (job.finished_at is not None) == job.ended
        assert (job.started_at is not None) == (leases > 0)


@pytest.mark.parametrize("state", [State.DONE, State.FAILED])
def test_ended_job_takes_no_step(state: State) -> None:
    assert not [step for known, step in JOB_TRANSITIONS if known is state]


# ---- What steps write ------------------------------------------------------------------------------------------------


def test_transition_sets_the_fields_given() -> None:
    job = new_job(State.RUNNING)
    artifacts = {"image": Artifact("x.png", "image/png")}
    transition(job, Step.SUCCEEDED, artifacts=artifacts, result_meta={"title": "x"})
    assert (job.artifacts, job.result_meta) == (artifacts, {"title": "x"})


def test_queue_time_is_that_of_the_first_lease() -> None:
    job = new_job(created_at="2020-01-01T00:00:00.000Z", submitted=None)
    transition(job, Step.LEASED)
    first = job.queue_ms
    transition(job, Step.RETURNED)
    job.created_at = "2000-01-01T00:00:00.000Z"
    transition(job, Step.LEASED)
    assert job.queue_ms == first
    assert first is not None
    assert first > 0


@pytest.mark.parametrize("created_at", ["2000-01-01T00:00:00.000Z", "2100-01-01T00:00:00.000Z"])
def test_queue_time_does_not_jump_with_the_clock(created_at: str) -> None:
    job = new_job(created_at=created_at, submitted=time.monotonic() - 3)
    transition(job, Step.LEASED)
    assert job.queue_ms is not None
    assert 3000 <= job.queue_ms < 4000


def test_queue_time_of_a_former_runs_job_goes_by_its_creation() -> None:
    former = new_job(created_at="2020-01-01T00:00:00.000Z")
    job = Job.from_document(1, former.document())
    transition(job, Step.LEASED)
    assert job.queue_ms == milliseconds_between(job.created_at, job.started_at)


def test_returned_job_keeps_its_attempts() -> None:
    job = new_job()
    transition(job, Step.LEASED)
    transition(job, Step.RETURNED)
    assert job.attempts == 1


SECRETS = {
    "cookies": [{"name": "a", "value": "hush"}],
    "headers": {"X-A": "hush"},
    "auth": {"username": "a", "password": "hush"},
}


@pytest.mark.parametrize(
    ("state", "step"), [(state, step) for (state, step), new in JOB_TRANSITIONS.items() if new in ("done", "failed")]
)
def test_secrets_are_wiped_at_the_end(state: State, step: Step) -> None:
    job = new_job(state, request={"url": "http://a.b/", "wait_ms": 5, **SECRETS})
    transition(job, step)
    assert job.request == {"url": "http://a.b/", "wait_ms": 5}


@pytest.mark.parametrize(
    ("state", "step"), [(state, step) for (state, step), new in JOB_TRANSITIONS.items() if new in ("queued", "running")]
)
def test_secrets_stay_before_the_end(state: State, step: Step) -> None:
    job = new_job(state, request={"url": "http://a.b/", **SECRETS})
    transition(job, step)
    assert job.request == {"url": "http://a.b/", **SECRETS}


def test_fail_tells_what_happened() -> None:
    job = new_job(State.RUNNING)
    fail(job, JobFailed("page_crashed", "the page crashed"))
    assert (job.state, job.error, job.error_code, job.retryable) == ("failed", "the page crashed", "page_crashed", True)
    assert job.error_index is None


def test_fail_tells_which_action_failed() -> None:
    job = new_job(State.RUNNING)
    fail(job, JobFailed("action_failed", "action 3 (click) failed", index=3))
    assert (job.error_code, job.error_index, job.retryable) == ("action_failed", 3, False)


def test_failures_are_noted_with_their_attempts() -> None:
    job = new_job()
    transition(job, Step.LEASED)
    job.note_failure(JobFailed("timeout", "too slow"))
    transition(job, Step.RETURNED)
    transition(job, Step.LEASED)
    job.note_failure(JobFailed("page_crashed", "the page crashed"))
    assert job.attempt_errors == [
        {"attempt": 1, "code": "timeout", "error": "too slow"},
        {"attempt": 2, "code": "page_crashed", "error": "the page crashed"},
    ]


def test_noted_failure_leaves_a_document_made_before_alone() -> None:
    job = new_job()
    before = job.document()
    job.note_failure(JobFailed("timeout", "too slow"))
    assert before["attempt_errors"] == []


# ---- Times -----------------------------------------------------------------------------------------------------------


def test_now_is_rfc_3339_in_utc() -> None:
    assert RFC_3339.fullmatch(now_text())
    assert abs((datetime.fromisoformat(now_text()) - datetime.now(UTC)).total_seconds()) < 5


@pytest.mark.parametrize(
    ("start", "end", "ms"),
    [
        ("2020-01-01T00:00:00.000Z", "2020-01-01T00:00:01.500Z", 1500),
        ("2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00.000Z", 0),
        ("2020-01-01T00:00:01.000Z", "2020-01-01T00:00:00.000Z", 0),
        (None, "2020-01-01T00:00:00.000Z", None),
        ("2020-01-01T00:00:00.000Z", None, None),
    ],
)
def test_milliseconds_between_two_times(start: str | None, end: str | None, ms: int | None) -> None:
    assert milliseconds_between(start, end) == ms


def test_times_of_a_job_are_rfc_3339() -> None:
    job = new_job()
    transition(job, Step.LEASED)
    transition(job, Step.SUCCEEDED)
    meta = job.meta()
    assert all(RFC_3339.fullmatch(meta[name]) for name in ("created_at", "started_at", "finished_at"))


def test_meta_has_the_members_of_the_contract() -> None:
    assert set(new_job().meta()) == {
        *("service", "priority", "attempts", "attempt_errors"),
        *("created_at", "started_at", "finished_at", "queue_ms"),
    }


# ---- Documents -------------------------------------------------------------------------------------------------------


@given(
    st.builds(
        Job,
        id=st.uuids().map(str),
        number=st.integers(1, 2**40),
        service=st.sampled_from(["screenshot", "scrape"]),
        request=st.dictionaries(st.text(), st.text() | st.integers() | st.booleans() | st.none(), max_size=3),
        priority=st.integers(-(2**31), 2**31 - 1),
        sync=st.booleans(),
        state=st.sampled_from(State),
        attempts=st.integers(0, 9),
        losses=st.integers(0, 4),
        started_at=st.none() | st.just("2020-01-01T00:00:00.000Z"),
        queue_ms=st.none() | st.integers(0),
        artifacts=st.dictionaries(
            st.text(), st.builds(Artifact, st.text(), st.text(), st.none() | st.integers(0)), max_size=3
        ),
        result_meta=st.none() | st.dictionaries(st.text(), st.lists(st.text())),
        error=st.none() | st.text(),
        error_index=st.none() | st.integers(0, 99),
        attempt_errors=st.lists(st.dictionaries(st.text(), st.text() | st.integers()), max_size=2),
        retryable=st.booleans(),
        expired=st.booleans(),
    )
)
def test_job_survives_its_document(job: Job) -> None:
    stored = json.loads(json.dumps(job.document()))
    again = Job.from_document(job.number, stored)
    assert again.number == job.number
    assert again.state is State(job.state)
    assert again.document() == job.document()
    assert list(again.artifacts.items()) == list(job.artifacts.items())


def test_document_has_no_number() -> None:
    # It is the store's own id; twice would be two truths.
    assert "number" not in new_job().document()


def test_document_of_a_later_version_opens() -> None:
    document = new_job().document() | {"mood": "cheerful"}
    assert Job.from_document(1, document).id == "an-id"


def test_document_of_an_earlier_version_opens() -> None:
    document = {"id": "x", "service": "scrape", "request": {}, "state": "queued"}
    job = Job.from_document(1, document)
    assert (job.losses, job.artifacts, job.attempt_errors) == (0, {}, [])


@pytest.mark.parametrize(
    ("service", "name", "artifact"),
    [
        ("screenshot", "image", Artifact("x.png", "image/png")),
        ("scrape", "html", Artifact("x.html", "text/html; charset=utf-8")),
    ],
)
def test_artifact_as_version_0_1_wrote_it_becomes_the_main_one(service: str, name: str, artifact: Artifact) -> None:
    document = {"id": "x", "service": service, "request": {}, "state": "done"}
    document |= {"artifact": artifact.file, "content_type": artifact.content_type}
    assert Job.from_document(1, document).artifacts == {name: artifact}


def test_document_of_version_0_1_without_an_artifact_opens() -> None:
    document = {"id": "x", "service": "scrape", "request": {}, "state": "failed"}
    assert Job.from_document(1, document | {"artifact": None, "content_type": None}).artifacts == {}


@pytest.mark.parametrize(
    ("request_document", "url"),
    [
        ({"url": "http://a.b/"}, "http://a.b/"),
        ({"html": "x", "base_url": "http://c.d/"}, "http://c.d/"),
        ({"html": "x"}, "about:blank"),
    ],
)
def test_url_is_what_the_job_shows(request_document: dict[str, Any], url: str) -> None:
    assert new_job(request=request_document).url == url


# ---- What errors mean ------------------------------------------------------------------------------------------------


def test_retryable_codes_are_those_of_the_contract() -> None:
    assert {code for code, retryable in ERROR_CODES.items() if retryable} == {
        *("timeout", "page_crashed", "browser_lost", "worker_lost", "internal")
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidSelector("x"), "invalid_request"),
        (errors.InvalidOption("timezone: x"), "invalid_request"),
        (errors.SelectorNotFound("x"), "selector_not_found"),
        (errors.ScriptError("x"), "script_error"),
        (errors.ActionFailed(2, "click", "x"), "action_failed"),
        (errors.NotAPage("a download"), "not_a_page"),
        (errors.TooLarge("x"), "too_large"),
        (errors.TargetCrashed("x"), "page_crashed"),
        (errors.SessionClosed("x"), "page_crashed"),
        (errors.ConnectionClosed("x"), "browser_lost"),
        (errors.NavigationError("net::ERR_FAILED"), "navigation_failed"),
        (errors.NavigationError("net::ERR_FAILED", blocked="private"), "blocked_target"),
    ],
)
def test_error_of_the_browser_has_its_code(error: errors.CDPError, code: str) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.code == code


def test_failed_action_keeps_its_index() -> None:
    failure = failure_of(errors.ActionFailed(2, "click", "it is covered"))
    assert failure is not None
    assert (failure.index, str(failure)) == (2, "action 2 (click) failed: it is covered")


@pytest.mark.parametrize("code", [code for _, code in FAILURE_CODES])
def test_codes_of_failures_are_known(code: str) -> None:
    assert code in ERROR_CODES


def test_refused_command_is_our_fault() -> None:
    assert failure_of(errors.CommandError("Page.navigate", -32000, "x")) is None


@pytest.mark.parametrize("net_error", sorted(RETRYABLE_NET_ERRORS))
def test_network_trouble_is_retryable(net_error: str) -> None:
    failure = failure_of(errors.NavigationError(net_error))
    assert failure is not None
    assert failure.retryable


@pytest.mark.parametrize(
    "name",
    ["CERT_AUTHORITY_INVALID", "SSL_PROTOCOL_ERROR", "TOO_MANY_REDIRECTS", "UNSAFE_PORT", "INVALID_RESPONSE", "FAILED"],
)
def test_other_navigation_failures_are_not_retryable(name: str) -> None:
    failure = failure_of(errors.NavigationError(f"net::ERR_{name}"))
    assert failure is not None
    assert not failure.retryable


def test_blocked_target_is_not_retryable_whatever_the_net_error() -> None:
    failure = failure_of(errors.NavigationError("net::ERR_CONNECTION_REFUSED", blocked="private"))
    assert failure is not None
    assert not failure.retryable


def test_every_retry_has_its_delay() -> None:
    (limit,) = [part for part in get_args(fields_of(BaseRequest)["retries"]) if isinstance(part, Range)]
    assert len(RETRY_DELAYS_S) == limit.maximum


@pytest.mark.parametrize("code", RETRIED_CODES)
def test_code_that_is_retried_is_known(code: str) -> None:
    assert code in ERROR_CODES


@pytest.mark.parametrize(
    ("text", "status_code", "fits"),
    [
        *[("404", 404, True), ("404", 403, False), ("404", 40, False)],
        *[("4xx", 400, True), ("4xx", 499, True), ("4xx", 500, False), ("4xx", 399, False), ("2xx", 200, True)],
    ],
)
def test_status_pattern_fits(text: str, status_code: int, fits: bool) -> None:
    assert StatusPattern(text).fits(status_code) is fits
