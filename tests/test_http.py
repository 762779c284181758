"""The HTTP contract: every route, every status, over a real store and pages without a browser; then what
needs a socket: bounds of connections, large answers, the end; last what needs a browser: clients that leave."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import logging
import os
import random
import re
import resource
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import attrs
import hypercorn.trio.run
import psutil
import pytest
import trio
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import TrioSingleTask
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from quart.wrappers import Response
from trio.testing import wait_all_tasks_blocked

import cleariflow
from cdp import errors
from cdp.options import Geolocation
from cleariflow import (
    HTTP_GRACE_S,
    LOSSES_ALLOWED,
    PIECE_BYTES,
    ROUTES,
    Config,
    Connections,
    Job,
    OneConnection,
    Service,
    StoreError,
    create_app,
    open_listener,
    open_service,
    raise_file_limit,
    serve_http,
    tame_hypercorn,
)
from tests.site import Site, bare_stream
from tests.test_service import URL, FakePool, Gate, at_once, open_disk, open_house

JSON = "application/json"
PREFIXES = ("", "/screenshot", "/scrape")


@attrs.define
class Api:
    """A client of a running service."""

    client: Any
    service: Service
    pool: FakePool

    async def get(self, path: str, **headers: str) -> Response:
        return await self.client.get(path, headers=named(headers))

    async def post(self, path: str, body: object, **headers: str) -> Response:
        """A POST of JSON, or of bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(path, data=data, headers={"Content-Type": JSON} | named(headers))

    async def submit(self, service: str = "scrape", url: str = URL, priority: int = 0, **fields: Any) -> Job:
        body = {"request": {"url": url, **fields}, "priority": priority}
        answer = await self.post(f"/{service}/v1/jobs", body)
        assert answer.status_code == 202
        return self.service.job((await answer.get_json())["job_id"])

    async def ended(self, service: str = "scrape", url: str = URL, **fields: Any) -> Job:
        return await self.service.wait(await self.submit(service, url, **fields))


def named(headers: dict[str, str]) -> dict[str, str]:
    """Keyword arguments as header names."""
    return {name.replace("_", "-"): value for name, value in headers.items()}


@asynccontextmanager
async def open_api(
    folder: Path, visit: Callable[[str], Awaitable[None]] = at_once, *, pool: FakePool | None = None, **settings: Any
) -> AsyncIterator[Api]:
    pool = pool or FakePool(visit)
    async with open_disk(folder, pool, **settings) as service:
        yield Api(create_app(service).test_client(), service, pool)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """Every page loads at once."""
    async with open_api(tmp_path) as api:
        yield api


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Api]:
    """No page ever loads."""
    async with open_api(tmp_path, Gate()) as api:
        yield api


async def error(answer: Response, status: int, code: str) -> dict[str, Any]:
    """The error of an answer, which must be one of the contract's."""
    text = await answer.get_data(as_text=True)
    assert (answer.status_code, answer.mimetype) == (status, JSON), text
    assert "Traceback" not in text
    body = json.loads(text)
    assert body.keys() == {"ok", "error"}
    assert body["ok"] is False
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    members: dict[str, Any] = body["error"]
    return members


async def faults(answer: Response, code: str = "invalid_request") -> list[str]:
    """The names of the faults of a 400."""
    told = await error(answer, 400, code)
    assert told["field"] == told["faults"][0]["field"]
    return [fault["field"] for fault in told["faults"]]


# ---- Creating jobs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", PREFIXES[1:])
async def test_create_answers_202_with_the_id_and_nothing_else(api: Api, prefix: str) -> None:
    answer = await api.post(f"{prefix}/v1/jobs", {"request": {"url": URL}})
    body = await answer.get_json()
    assert (answer.status_code, answer.mimetype, list(body)) == (202, JSON, ["job_id"])
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", body["job_id"])


async def test_create_tells_the_location(api: Api) -> None:
    answer = await api.post("/scrape/v1/jobs", {"request": {"url": URL}})
    assert answer.headers["Location"] == f"/v1/jobs/{(await answer.get_json())['job_id']}"


async def test_location_begins_with_the_root_path(tmp_path: Path) -> None:
    async with open_api(tmp_path, root_path="/pictures") as api:
        answer = await api.post("/scrape/v1/jobs", {"request": {"url": URL}})
        assert answer.headers["Location"].startswith("/pictures/v1/jobs/")


async def test_create_passes_the_priority_on(held: Api) -> None:
    assert (await held.submit(priority=-7)).priority == -7


@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "Application/JSON"])
async def test_create_takes_json_by_its_type(api: Api, content_type: str) -> None:
    answer = await api.post("/scrape/v1/jobs", {"request": {"url": URL}}, Content_Type=content_type)
    assert answer.status_code == 202


# ---- Which service ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "path", "field", "service"),
    [
        ("localhost", "/screenshot/v1/jobs", None, "screenshot"),
        ("localhost", "/scrape/v1/jobs", None, "scrape"),
        ("screenshot.localhost", "/v1/jobs", None, "screenshot"),
        ("scrape.localhost:8000", "/v1/jobs", None, "scrape"),
        ("SCRAPE.LOCALHOST", "/v1/jobs", None, "scrape"),
        ("scrape.localhost.", "/v1/jobs", None, "scrape"),
        ("scrape.localhost", "/screenshot/v1/jobs", None, "scrape"),
        ("localhost", "/v1/jobs", "screenshot", "screenshot"),
        ("127.0.0.1:8000", "/v1/jobs", "scrape", "scrape"),
        ("scrape.localhost", "/v1/jobs", "scrape", "scrape"),
        ("localhost", "/scrape/v1/jobs", "scrape", "scrape"),
        ("screenshots.localhost", "/v1/jobs", "scrape", "scrape"),
    ],
)
async def test_service_is_chosen_by_host_then_prefix_then_field(
    api: Api, host: str, path: str, field: str | None, service: str
) -> None:
    body = {"request": {"url": URL}} | ({"service": field} if field else {})
    answer = await api.post(path, body, Host=host)
    assert answer.status_code == 202
    assert api.service.job((await answer.get_json())["job_id"]).service == service


async def test_service_left_open_names_the_three_ways(api: Api) -> None:
    answer = await api.post("/v1/jobs", {"request": {"url": URL}})
    message = (await error(answer, 400, "invalid_request"))["message"]
    assert all(way in message for way in ("screenshot.localhost", "/scrape/v1/jobs", '"service"'))


@pytest.mark.parametrize(("host", "path"), [("localhost", "/screenshot/v1/jobs"), ("screenshot.localhost", "/v1/jobs")])
async def test_service_field_must_not_contradict(api: Api, host: str, path: str) -> None:
    answer = await api.post(path, {"request": {"url": URL}, "service": "scrape"}, Host=host)
    assert await faults(answer) == ["service"]


@pytest.mark.parametrize(
    "host", ["evil.com", "localhost.evil.com", "screenshot.evil.com", "xlocalhost", "127.0.0.1.nip.io"]
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/livez", "/screenshot/v1/screenshot?url=http://a.b", "/nothing"])
async def test_unknown_host_is_refused_on_every_route(api: Api, host: str, path: str) -> None:
    assert await faults(await api.get(path, Host=host)) == ["Host"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "a.localhost", "127.0.0.1", "192.168.0.9:80", "[::1]", "[::1]:8000", "localhost."],
)
async def test_host_of_this_machine_is_known(api: Api, host: str) -> None:
    assert (await api.get("/livez", Host=host)).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"), [("scrape.example.org", 202), ("example.org", 400), ("a.example.org.evil.com", 400)]
)
async def test_allow_host_is_a_glob(tmp_path: Path, host: str, status: int) -> None:
    async with open_api(tmp_path, allow_host=("*.Example.org",)) as api:
        answer = await api.post("/scrape/v1/jobs", {"request": {"url": URL}}, Host=host)
        assert answer.status_code == status


async def test_open_service_knows_every_host(tmp_path: Path) -> None:
    async with open_api(tmp_path, open=True) as api:
        assert (await api.get("/livez", Host="evil.com")).status_code == 200


# ---- Reading jobs ----------------------------------------------------------------------------------------------------

META = {"service", "priority", "attempts", "attempt_errors", "created_at", "started_at", "finished_at", "queue_ms"}
RESULT_META = {"url", "status_code", "title", "redirects", "elapsed_ms", "timings", "warnings", "browser"}


async def test_queued_job_has_its_members(held: Api) -> None:
    await held.submit()
    await held.pool.reached(1)
    job = await held.submit()
    body = await (await held.get(f"/v1/jobs/{job.id}")).get_json()
    assert body.keys() == {"job_id", "status", "meta"}
    assert (body["job_id"], body["status"], body["meta"]["position"]) == (job.id, "queued", 0)
    assert body["meta"].keys() == META | {"position"}


async def test_running_job_has_its_members(held: Api) -> None:
    job = await held.submit()
    await held.pool.reached(1)
    body = await (await held.get(f"/v1/jobs/{job.id}")).get_json()
    assert body == {"job_id": job.id, "status": "running", "meta": body["meta"]}
    assert body["meta"].keys() == META


async def test_done_picture_has_its_members(api: Api) -> None:
    job = await api.ended("screenshot")
    body = await (await api.get(f"/v1/jobs/{job.id}")).get_json()
    assert body.keys() == {"job_id", "status", "result", "meta"}
    assert (body["status"], body["meta"].keys()) == ("done", META)
    result = body["result"]
    assert result.keys() == {"ok", "image_base64", "content_type", "meta"}
    assert (result["ok"], result["content_type"]) == (True, "image/jpeg")
    assert base64.b64decode(result["image_base64"], validate=True) == URL.encode()
    assert result["meta"].keys() >= RESULT_META | {"width", "height"}


async def test_done_scrape_has_its_members(api: Api) -> None:
    job = await api.ended("scrape")
    result = (await (await api.get(f"/v1/jobs/{job.id}")).get_json())["result"]
    assert result.keys() == {"ok", "html", "meta"}
    assert (result["ok"], result["html"]) == (True, f"<html>{URL}</html>")
    assert result["meta"].keys() >= RESULT_META | {"duration_ms"}
    assert (result["meta"]["url"], result["meta"]["status_code"]) == (URL, 200)


SHOT = {"type": "screenshot", "name": "first.step"}
PICTURE = {"image_base64": base64.b64encode(URL.encode()).decode(), "content_type": "image/jpeg"}


async def test_outputs_of_a_scrape_have_their_names(api: Api) -> None:
    outputs = ["screenshot", "links", "text", "markdown", "metadata", "html"]
    job = await api.ended("scrape", outputs=outputs)
    result = (await (await api.get(f"/v1/jobs/{job.id}")).get_json())["result"]
    assert result.keys() == {"ok", "meta", *outputs}
    assert (result["html"], result["text"], result["links"]) == (f"<html>{URL}</html>", URL, [])
    assert result["screenshot"] == PICTURE
    assert isinstance(result["markdown"], str)
    assert isinstance(result["metadata"], dict)


async def test_scrape_without_html_has_none(api: Api) -> None:
    job = await api.ended("scrape", outputs=["text"])
    result = (await (await api.get(f"/v1/jobs/{job.id}")).get_json())["result"]
    assert (result.keys(), result["text"]) == ({"ok", "meta", "text"}, URL)


@pytest.mark.parametrize("service", ["screenshot", "scrape"])
async def test_pictures_of_actions_have_their_names(api: Api, service: str) -> None:
    job = await api.ended(service, actions=[SHOT])
    result = (await (await api.get(f"/v1/jobs/{job.id}")).get_json())["result"]
    assert result["screenshots"] == {"first.step": PICTURE}
    assert result.keys() >= ({"image_base64"} if service == "screenshot" else {"html"})
    assert [action["type"] for action in result["meta"]["actions"]] == ["screenshot"]


async def test_failed_action_is_told_with_its_index(api: Api) -> None:
    actions = [{"type": "wait", "ms": 0}, {"type": "evaluate", "script": "throw"}]
    job = await api.ended("scrape", actions=actions)
    body = await (await api.get(f"/v1/jobs/{job.id}")).get_json()
    assert body["error_detail"] == {"code": "action_failed", "retryable": False, "index": 1}


async def test_failures_of_former_attempts_are_told(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash_once(url: str) -> None:
        if len(api.pool.visited) == 1:
            raise errors.TargetCrashed("the page crashed")

    monkeypatch.setattr(cleariflow, "RETRY_DELAYS_S", (0.0,))
    api.pool.visit = crash_once
    job = await api.ended(retries=1)
    body = await (await api.get(f"/v1/jobs/{job.id}")).get_json()
    assert (body["status"], body["meta"]["attempts"]) == ("done", 2)
    assert body["meta"]["attempt_errors"] == [{"attempt": 1, "code": "page_crashed", "error": "the page crashed"}]


async def test_failed_job_has_its_members(tmp_path: Path) -> None:
    async def visit(url: str) -> None:
        raise errors.NavigationError("net::ERR_NAME_NOT_RESOLVED")

    async with open_api(tmp_path, visit) as api:
        job = await api.ended()
        body = await (await api.get(f"/v1/jobs/{job.id}")).get_json()
    assert body == {
        "job_id": job.id,
        "status": "failed",
        "error": "navigation failed: net::ERR_NAME_NOT_RESOLVED",
        "error_detail": {"code": "navigation_failed", "retryable": True},
        "meta": body["meta"],
    }


async def test_result_false_leaves_the_output_out(api: Api) -> None:
    job = await api.ended()
    body = await (await api.get(f"/v1/jobs/{job.id}?result=false")).get_json()
    assert body == {"job_id": job.id, "status": "done", "meta": body["meta"]}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("host", ["localhost", "screenshot.localhost", "scrape.localhost"])
async def test_job_is_found_on_every_route(api: Api, prefix: str, host: str) -> None:
    job = await api.ended()
    assert (await api.get(f"{prefix}/v1/jobs/{job.id}", Host=host)).status_code == 200


@pytest.mark.parametrize("job_id", ["nothing", "%00", "..", "%2e%2e%2fjobs.journal", "A" * 5000, "%ff", "550e8400"])
@pytest.mark.parametrize("rest", ["", "/result"])
async def test_unknown_job_is_404(api: Api, job_id: str, rest: str) -> None:
    await error(await api.get(f"/v1/jobs/{job_id}{rest}"), 404, "not_found")


async def test_wait_returns_when_the_job_ends(held: Api) -> None:
    job = await held.submit()
    assert isinstance(held.pool.visit, Gate)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            body = await (await held.get(f"/v1/jobs/{job.id}?wait=30")).get_json()
            assert body["status"] == "done"

        nursery.start_soon(read)
        await held.pool.reached(1)
        held.pool.visit.open.set()


async def test_wait_returns_the_job_as_it_is_when_its_time_is_over(held: Api) -> None:
    job = await held.submit()
    body = await (await held.get(f"/v1/jobs/{job.id}?wait=0.05")).get_json()
    assert body["status"] == "running"


async def test_longer_wait_counts_as_the_longest(held: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "MAX_WAIT_S", 0.05)
    job = await held.submit()
    with trio.fail_after(10):
        assert (await held.get(f"/v1/jobs/{job.id}?wait=1e9")).status_code == 200


async def test_wait_for_an_ended_job_returns_at_once(api: Api) -> None:
    job = await api.ended()
    with trio.fail_after(5):
        assert (await api.get(f"/v1/jobs/{job.id}?wait=60")).status_code == 200


@pytest.mark.parametrize(
    ("query", "names"),
    [
        *[(f"wait={text}", ["wait"]) for text in ("-1", "x", "", "nan", "inf", "-inf", "1s", "%00", "1,5")],
        *[(f"result={text}", ["result"]) for text in ("x", "", "2", "no")],
        ("wait=1&wait=2", ["wait"]),
        ("wiat=1", ["wiat"]),
        ("wait=-1&result=x", ["wait", "result"]),
    ],
)
async def test_faulty_query_is_named(api: Api, query: str, names: list[str]) -> None:
    job = await api.ended()
    assert await faults(await api.get(f"/v1/jobs/{job.id}?{query}")) == names


# ---- The result ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "content_type", "data"),
    [
        ("screenshot", "image/jpeg", URL.encode()),
        ("scrape", "text/html; charset=utf-8", f"<html>{URL}</html>".encode()),
    ],
)
async def test_result_is_the_artifact_itself(api: Api, service: str, content_type: str, data: bytes) -> None:
    job = await api.ended(service)
    answer = await api.get(f"/v1/jobs/{job.id}/result")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)
    assert await answer.get_data() == data


@pytest.mark.parametrize(
    ("name", "content_type", "data"),
    [
        ("html", "text/html; charset=utf-8", f"<html>{URL}</html>".encode()),
        ("text", "text/plain; charset=utf-8", URL.encode()),
        ("links", "application/json; charset=utf-8", b"[]"),
        ("screenshot", "image/jpeg", URL.encode()),
        ("first.step", "image/jpeg", URL.encode()),
    ],
)
async def test_result_of_a_name_is_that_artifact(api: Api, name: str, content_type: str, data: bytes) -> None:
    job = await api.ended("scrape", outputs=["html", "text", "links", "screenshot"], actions=[SHOT])
    answer = await api.get(f"/v1/jobs/{job.id}/result/{name}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)
    assert await answer.get_data() == data
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    # What a browser might run, it saves.
    disposition = f'attachment; filename="{job.id}.html"' if name == "html" else None
    assert answer.headers.get("Content-Disposition") == disposition


async def test_main_picture_has_a_name_too(api: Api) -> None:
    job = await api.ended("screenshot")
    assert (await api.get(f"/v1/jobs/{job.id}/result/image")).headers["Content-Type"] == "image/jpeg"


async def test_result_without_html_is_the_first_output(api: Api) -> None:
    job = await api.ended("scrape", outputs=["text", "links"])
    answer = await api.get(f"/v1/jobs/{job.id}/result")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("name", ["text", "..", "x" * 500, "first", "%2e%2e%2fjobs.journal"])
async def test_result_of_an_unknown_name_tells_what_there_is(api: Api, name: str) -> None:
    job = await api.ended("scrape", actions=[SHOT])
    told = await error(await api.get(f"/v1/jobs/{job.id}/result/{name}"), 404, "not_found")
    if "%" not in name:
        assert "it has html, first.step" in told["message"]
        assert len(told["message"]) < 200


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [({"timeout_ms": 20}, 424, "job_failed"), ({}, 409, "not_ended")],
)
async def test_result_of_a_name_is_refused_as_the_main_one(
    held: Api, fields: dict[str, Any], status: int, code: str
) -> None:
    job = await held.submit(**fields)
    if fields:
        await held.service.wait(job)
    await error(await held.get(f"/v1/jobs/{job.id}/result/html"), status, code)


async def test_result_carries_the_headers_of_the_contract(api: Api) -> None:
    job = await api.ended()
    headers = (await api.get(f"/v1/jobs/{job.id}/result")).headers
    assert headers["Cache-Control"] == "private, no-cache"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "sandbox"
    assert headers["ETag"]
    assert "Expires" not in headers


async def test_result_known_to_the_client_is_304(api: Api) -> None:
    job = await api.ended()
    etag = (await api.get(f"/v1/jobs/{job.id}/result")).headers["ETag"]
    answer = await api.get(f"/v1/jobs/{job.id}/result", If_None_Match=etag)
    assert (answer.status_code, await answer.get_data()) == (304, b"")


async def test_other_etag_gets_the_result(api: Api) -> None:
    job = await api.ended()
    assert (await api.get(f"/v1/jobs/{job.id}/result", If_None_Match='"other"')).status_code == 200


async def test_range_is_a_part_of_the_result(api: Api) -> None:
    job = await api.ended("screenshot")
    answer = await api.get(f"/v1/jobs/{job.id}/result", Range="bytes=2-5")
    assert (answer.status_code, await answer.get_data()) == (206, URL.encode()[2:6])
    assert answer.headers["Content-Range"] == f"bytes 2-5/{len(URL)}"


async def test_range_beyond_the_result_is_416(api: Api) -> None:
    job = await api.ended("screenshot")
    answer = await api.get(f"/v1/jobs/{job.id}/result", Range="bytes=500-")
    await error(answer, 416, "invalid_request")
    assert answer.headers["Content-Range"] == f"bytes */{len(URL)}"


async def test_head_of_the_result_has_its_length(api: Api) -> None:
    job = await api.ended("screenshot")
    answer = await api.client.head(f"/v1/jobs/{job.id}/result")
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, str(len(URL)))


@pytest.mark.parametrize("rest", ["", "/result"])
async def test_result_that_vanished_is_expired(api: Api, rest: str) -> None:
    job = await api.ended()
    (api.service.store.artifacts / api.service.artifact(job).file).unlink()
    await error(await api.get(f"/v1/jobs/{job.id}{rest}"), 410, "expired")


@pytest.mark.parametrize("rest", ["", "/result"])
async def test_expired_result_is_410_then_404(api: Api, rest: str) -> None:
    job = await api.ended()
    end = time.monotonic()
    api.service.store.expire(100, end + 100)
    await error(await api.get(f"/v1/jobs/{job.id}{rest}"), 410, "expired")
    api.service.store.expire(100, end + 200)
    await error(await api.get(f"/v1/jobs/{job.id}{rest}"), 404, "not_found")


async def test_result_of_a_job_that_has_not_ended_is_409(held: Api) -> None:
    job = await held.submit()
    await error(await held.get(f"/v1/jobs/{job.id}/result"), 409, "not_ended")


async def test_result_of_a_failed_job_is_424_with_its_error(held: Api) -> None:
    job = await held.submit()
    held.service.cancel(job)
    told = await error(await held.get(f"/v1/jobs/{job.id}/result"), 424, "job_failed")
    assert told["message"] == "the job was cancelled"


# ---- Deleting and listing --------------------------------------------------------------------------------------------


async def test_delete_answers_with_the_cancelled_job(held: Api) -> None:
    job = await held.submit()
    answer = await held.client.delete(f"/v1/jobs/{job.id}")
    body = await answer.get_json()
    assert (answer.status_code, body["status"], body["error_detail"]) == (
        200,
        "failed",
        {"code": "cancelled", "retryable": False},
    )


async def test_cancel_that_the_disk_refuses_is_not_confirmed(held: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await held.submit()

    async def refuse() -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("cannot write the store: no room")

    monkeypatch.setattr(held.service.store, "flushed", refuse)
    told = await error(await held.client.delete(f"/v1/jobs/{job.id}"), 503, "storage_full")
    assert "cancelled" in told["message"]


async def test_delete_of_an_ended_job_changes_nothing(api: Api) -> None:
    job = await api.ended()
    answer = await api.client.delete(f"/v1/jobs/{job.id}")
    assert (answer.status_code, (await answer.get_json())["status"]) == (200, "done")
    assert (await api.get(f"/v1/jobs/{job.id}/result")).status_code == 200


async def test_list_has_rows_of_the_contract_newest_first(held: Api) -> None:
    jobs = [await held.submit(url=f"{URL}{index}") for index in range(3)]
    body = await (await held.get("/v1/jobs")).get_json()
    assert body.keys() == {"jobs", "next"}
    assert [row["job_id"] for row in body["jobs"]] == [job.id for job in reversed(jobs)]
    assert body["jobs"][0].keys() == {"job_id", "service", "status", "url", "meta"}
    assert (body["jobs"][0]["url"], body["next"]) == (f"{URL}2", None)


async def test_list_goes_on_at_its_cursor(held: Api) -> None:
    jobs = [await held.submit() for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        body = await (await held.get(f"/v1/jobs?limit=2{cursor}")).get_json()
        seen += [row["job_id"] for row in body["jobs"]]
        cursor = f"&cursor={body['next']}"
    assert body["next"] is None
    assert seen == [job.id for job in reversed(jobs)]


async def test_list_of_exactly_one_page_has_no_next(held: Api) -> None:
    for _ in range(2):
        await held.submit()
    assert (await (await held.get("/v1/jobs?limit=2")).get_json())["next"] is None


async def test_list_by_status(held: Api) -> None:
    running = await held.submit()
    await held.pool.reached(1)
    await held.submit()
    body = await (await held.get("/v1/jobs?status=running")).get_json()
    assert [row["job_id"] for row in body["jobs"]] == [running.id]


@pytest.mark.parametrize("service", ["screenshot", "scrape"])
async def test_list_below_a_prefix_shows_its_service(held: Api, service: str) -> None:
    for name in ("screenshot", "scrape"):
        await held.submit(name)
    body = await (await held.get(f"/{service}/v1/jobs")).get_json()
    assert [row["service"] for row in body["jobs"]] == [service]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=1.5", "cursor=-1", "cursor=x", "status=ended", "status=", "state=done"],
)
async def test_faulty_list_query_is_named(api: Api, query: str) -> None:
    assert await faults(await api.get(f"/v1/jobs?{query}")) == [query.partition("=")[0]]


async def test_key_in_the_query_is_no_fault_of_a_list(api: Api) -> None:
    assert (await api.get("/v1/jobs?api_key=hush")).status_code == 200


# ---- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/screenshot/", "/v1", "/v1/", "/v1/jobs/", "/v2/jobs", "/scrape", "/print/v1/jobs", "/v1/jobs/a/b/c"]
)
async def test_unknown_path_is_404(api: Api, path: str) -> None:
    await error(await api.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("prefix", "path"),
    # (The page is at the root only.)
    sorted({(prefix, route.path) for prefix in PREFIXES for route in ROUTES if not prefix or route.path != "/"}),
)
async def test_other_method_is_405_with_those_allowed(api: Api, prefix: str, path: str) -> None:
    answer = await api.client.put(prefix + path.replace("<job_id>", "x"))
    await error(answer, 405, "method_not_allowed")
    allowed = {name.strip() for name in answer.headers["Allow"].split(",")}
    assert allowed - {"HEAD", "OPTIONS"} == {route.method for route in ROUTES if route.path == path}


BODY_ROUTES = ("/v1/jobs", "/scrape/v1/jobs", "/v1/screenshot", "/v1/scrape", "/scrape/v1/scrape")


@pytest.mark.parametrize("path", BODY_ROUTES)
@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "text/json", "json"])
async def test_body_that_is_not_json_is_415(api: Api, path: str, content_type: str) -> None:
    answer = await api.post(path, {"request": {"url": URL}}, Content_Type=content_type)
    await error(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("path", BODY_ROUTES)
async def test_body_over_its_limit_is_413(tmp_path: Path, path: str) -> None:
    async with open_api(tmp_path, max_body=2000) as api:
        told = await error(await api.post(path, b" " * 2001), 413, "body_too_large")
        assert "2000" in told["message"]


async def test_body_of_the_limit_is_read(tmp_path: Path) -> None:
    async with open_api(tmp_path, max_body=2000) as api:
        body = json.dumps({"request": {"url": URL}}).encode().ljust(2000)
        assert (await api.post("/scrape/v1/jobs", body)).status_code == 202


async def test_full_queue_is_429_with_a_time(tmp_path: Path) -> None:
    async with open_api(tmp_path, Gate(), queue_limit=1) as api:
        await api.submit()
        await api.pool.reached(1)
        await api.submit()
        answer = await api.post("/scrape/v1/jobs", {"request": {"url": URL}})
        assert "--queue-limit" in (await error(answer, 429, "queue_full"))["message"]
        assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("path", "body"), [("/scrape/v1/jobs", {"request": {"url": URL}}), ("/v1/scrape", {"url": URL})]
)
async def test_draining_service_is_503(api: Api, path: str, body: dict[str, Any]) -> None:
    await api.service.drain(0)
    answer = await api.post(path, body)
    await error(answer, 503, "draining")
    assert answer.headers["Retry-After"]


async def test_full_disk_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse() -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(api.service.store, "flushed", refuse)
    answer = await api.post("/scrape/v1/jobs", {"request": {"url": URL}})
    await error(answer, 503, "storage_full")
    assert answer.headers["Retry-After"]


BLOCKED = [
    "http://127.0.0.1/",
    "http://localhost/",
    "http://10.1.2.3/",
    "http://[::1]/",
    "http://a.test:6379/",
    "http://8.8.8.8:22/",
]


@pytest.mark.parametrize("url", BLOCKED)
@pytest.mark.parametrize("path", ["/scrape/v1/jobs", "/v1/scrape"])
async def test_blocked_target_is_400(api: Api, url: str, path: str) -> None:
    body = {"request": {"url": url}} if path.endswith("jobs") else {"url": url}
    assert await faults(await api.post(path, body), "blocked_target") == ["url"]


async def test_bug_is_500_without_a_traceback(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(**_: object) -> list[Job]:
        raise RuntimeError("a bug in /srv/cleariflow.py")

    monkeypatch.setattr(api.service.store, "newest", break_down)
    answer = await api.get("/v1/jobs")
    await error(answer, 500, "internal")
    assert "/srv" not in await answer.get_data(as_text=True)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None


@pytest.mark.parametrize("path", ["/livez", "/v1/jobs", "/nothing", "/v1/jobs/x", "/v1/jobs?limit=x"])
async def test_every_answer_forbids_sniffing(api: Api, path: str) -> None:
    assert (await api.get(path)).headers["X-Content-Type-Options"] == "nosniff"


MALFORMED: list[tuple[bytes, list[str]]] = [
    *[(body, [""]) for body in (b"", b"{", b"null", b"[]", b'"x"', b"1", b"\xff\xfe", b"NaN", b"[" * 10**5)],
    (b"{}", ["request"]),
    (b'{"request": null}', ["request"]),
    (b'{"request": "http://a.b"}', ["request"]),
    (b'{"request": {}}', ["url"]),
    (b'{"request": {"url": 5}}', ["url"]),
    (b'{"request": {"url": "ftp://a.b"}}', ["url"]),
    (b'{"request": {"url": "http://a.b", "quality": 1e999}}', ["quality"]),
    (b'{"request": {"url": "http://a.b", "selector": "\\ud800"}}', ["selector"]),
    (b'{"request": {"url": "http://a.b", "selector": "\\u0000"}}', ["selector"]),
    (b'{"request": {"url": "http://a.b", "headers": {"X-A": "a\\r\\nb"}}}', ["headers.X-A"]),
    (
        b'{"request": {"url": "http://a.b", "viewport": {"width": "wide", "hight": 1}}}',
        ["viewport.width", "viewport.hight"],
    ),
    (b'{"request": {"url": "http://a.b", "\\ud800": 1}}', ["\ud800"]),
    (b'{"request": {"url": "http://a.b"}, "priority": 1e2}', ["priority"]),
    (b'{"request": {"url": "http://a.b"}, "priority": 99999999999999999999}', ["priority"]),
    (b'{"request": {"url": "http://a.b"}, "priorty": 1}', ["priorty"]),
    (b'{"request": {"url": "http://a.b"}, "job_id": "x"}', ["job_id"]),
    (b'{"request": {"url": "http://a.b", "wait_for": ' + b"[" * 500 + b"]" * 500 + b"}}", ["wait_for[0]"]),
]


@pytest.mark.parametrize(("body", "names"), MALFORMED, ids=[body.decode("latin-1")[:60] for body, _ in MALFORMED])
async def test_malformed_body_is_400_with_its_fields(api: Api, body: bytes, names: list[str]) -> None:
    assert sorted(await faults(await api.post("/screenshot/v1/jobs", body))) == sorted(names)
    assert api.service.store.jobs == {}


any_body = st.binary(max_size=50) | st.builds(
    lambda value: json.dumps(value).encode(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["request", "url", "priority", "viewport"]), inner)
        ),
        max_leaves=5,
    ),
)


@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=any_body)
async def test_any_body_is_a_client_error(body: bytes) -> None:
    async with open_house(Gate()) as house:
        api = Api(create_app(house.service).test_client(), house.service, house.pool)
        for path in BODY_ROUTES:
            assert 400 <= (await api.post(path, body)).status_code < 500


# ---- Synchronous forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_synchronous_picture_is_a_result(api: Api, prefix: str) -> None:
    answer = await api.post(f"{prefix}/v1/screenshot", {"url": URL})
    body = await answer.get_json()
    assert (answer.status_code, answer.mimetype) == (200, JSON)
    assert body.keys() == {"ok", "image_base64", "content_type", "meta"}
    assert body["meta"].keys() >= RESULT_META


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_synchronous_scrape_is_a_result(api: Api, prefix: str) -> None:
    body = await (await api.post(f"{prefix}/v1/scrape", {"url": URL})).get_json()
    assert body.keys() == {"ok", "html", "meta"}
    assert body["html"] == f"<html>{URL}</html>"


@pytest.mark.parametrize(
    ("path", "accept", "content_type"),
    [
        ("/v1/screenshot", "image/*", "image/jpeg"),
        ("/v1/screenshot", "image/jpeg", "image/jpeg"),
        ("/v1/screenshot", "image/avif,image/webp,image/*;q=0.8,*/*;q=0.5", "image/jpeg"),
        ("/v1/screenshot", "image/png", JSON),
        ("/v1/screenshot", "*/*", JSON),
        ("/v1/screenshot", "", JSON),
        ("/v1/screenshot", "application/json, image/*;q=0.5", JSON),
        ("/v1/screenshot", "application/json;q=0.5, image/*", "image/jpeg"),
        ("/v1/screenshot", "text/html", JSON),
        ("/v1/scrape", "text/html", "text/html; charset=utf-8"),
        ("/v1/scrape", "text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        ("/v1/scrape", "application/json", JSON),
        ("/v1/scrape", "image/*", JSON),
        ("/v1/scrape", "nonsense", JSON),
    ],
)
async def test_accept_chooses_the_form(api: Api, path: str, accept: str, content_type: str) -> None:
    answer = await api.post(path, {"url": URL}, Accept=accept)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)


async def test_bare_artifact_is_whole(api: Api) -> None:
    answer = await api.post("/v1/screenshot", {"url": URL}, Accept="image/*")
    assert await answer.get_data() == URL.encode()


FAILURES: list[tuple[Exception, int, str, bool]] = [
    (errors.InvalidSelector("x"), 400, "invalid_request", False),
    (errors.NavigationError("net::ERR_FAILED", blocked="private"), 400, "blocked_target", False),
    (errors.NavigationError("net::ERR_CONNECTION_REFUSED"), 424, "navigation_failed", True),
    (errors.NavigationError("net::ERR_TOO_MANY_REDIRECTS"), 424, "navigation_failed", False),
    (errors.ScriptError("x"), 424, "script_error", False),
    (errors.SelectorNotFound("x"), 424, "selector_not_found", False),
    (errors.NotAPage("a download", "application/zip", 1234), 424, "not_a_page", False),
    (errors.TooLarge("x"), 424, "too_large", False),
    (errors.TargetCrashed("x"), 424, "page_crashed", True),
    (errors.ConnectionClosed("x"), 503, "browser_lost", True),
    (RuntimeError("a bug"), 500, "internal", True),
]


@pytest.mark.parametrize(
    ("fault", "status", "code", "retryable"), FAILURES, ids=[f"{row[2]}-{row[3]}" for row in FAILURES]
)
async def test_failed_call_has_the_status_of_its_code(
    tmp_path: Path, fault: Exception, status: int, code: str, retryable: bool
) -> None:
    async def visit(url: str) -> None:
        raise fault

    async with open_api(tmp_path, visit) as api:
        told = await error(await api.post("/v1/scrape", {"url": URL}, Accept="text/html"), status, code)
        (job,) = api.service.store.newest(service=None, state=None, before=None, limit=2)
        assert (told["retryable"], told["job_id"]) == (retryable, job.id)
        assert job.attempts == (LOSSES_ALLOWED + 1 if code == "browser_lost" else 1)


async def test_failed_action_of_a_call_is_told_with_its_index(api: Api) -> None:
    body = {"url": URL, "actions": [{"type": "evaluate", "script": "throw"}]}
    assert (await error(await api.post("/v1/scrape", body), 424, "action_failed"))["index"] == 0


async def test_unwanted_status_of_a_call_is_424(api: Api) -> None:
    told = await error(await api.post("/v1/scrape", {"url": URL, "fail_on_status": [200]}), 424, "http_error")
    assert "200" in told["message"]


async def test_goto_to_a_blocked_target_is_400(api: Api) -> None:
    body = {"url": URL, "actions": [{"type": "goto", "url": "http://127.0.0.1/"}]}
    assert await faults(await api.post("/v1/screenshot", body), "blocked_target") == ["actions[0].url"]


async def test_call_with_several_outputs_gives_the_bare_main_one(api: Api) -> None:
    body = {"url": URL, "outputs": ["screenshot", "html"]}
    answer = await api.post("/v1/scrape", body, Accept="text/html")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


async def test_legacy_form_takes_the_fields_of_objects_and_lists(api: Api) -> None:
    pairs = {
        "url": URL,
        "css": "p{color:red}",
        "actions": json.dumps([SHOT]),
        "outputs": '["text"]',
        "geolocation.latitude": "47",
        "geolocation.longitude": "8.5",
        "render": '{"wait_ms": 1}',
        "retries": "1",
    }
    answer = await api.get(f"/v1/scrape?{urlencode(pairs)}")
    assert (answer.status_code, (await answer.get_json()).keys()) == (200, {"ok", "text", "screenshots", "meta"})
    (options,) = api.pool.prepared
    assert (options.css, options.wait_ms, options.geolocation) == (("p{color:red}",), 1, Geolocation(47, 8.5))


async def test_call_that_takes_too_long_is_504(held: Api) -> None:
    await error(await held.post("/v1/scrape", {"url": URL, "timeout_ms": 50}), 504, "timeout")


async def test_call_without_a_free_worker_is_504(held: Api) -> None:
    await held.submit()
    await held.pool.reached(1)
    await error(await held.post("/v1/scrape", {"url": URL, "timeout_ms": 50}), 504, "deadline")


async def test_cancelled_call_is_424(held: Api) -> None:
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            await error(await held.post("/v1/scrape", {"url": URL}), 424, "cancelled")

        nursery.start_soon(call)
        await held.pool.reached(1)
        (job,) = held.service.store.jobs.values()
        await held.client.delete(f"/v1/jobs/{job.id}")


async def test_call_without_a_browser_is_503(tmp_path: Path) -> None:
    pool = FakePool()
    pool.browser, pool.fault = None, "no Chromium was found"
    async with open_api(tmp_path, pool=pool) as api:
        told = await error(await api.post("/v1/scrape", {"url": URL}), 503, "no_browser")
        assert "no Chromium was found" in told["message"]


@pytest.mark.parametrize("path", ["/v1/screenshot", "/v1/scrape"])
async def test_call_names_its_faults(api: Api, path: str) -> None:
    assert await faults(await api.post(path, {"url": "x", "wait_ms": -1})) == ["wait_ms", "url"]


# ---- The legacy form -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_legacy_form_is_a_call(api: Api, prefix: str) -> None:
    answer = await api.get(f"{prefix}/v1/scrape?url=http%3A%2F%2F8.8.8.8%2F&api_key=hush")
    assert (await answer.get_json())["html"] == f"<html>{URL}</html>"


async def test_legacy_form_takes_dotted_fields(api: Api) -> None:
    query = "url=8.8.8.8&viewport.width=800&viewport.mobile=true&wait_ms=1&javascript=false&headers.X-A=1&cookies=a%3Db"
    assert (await api.get(f"/v1/screenshot?{query}&format=webp")).status_code == 200
    (options,) = api.pool.prepared
    assert (options.url, options.viewport.width, options.viewport.mobile) == ("https://8.8.8.8/", 800, True)
    assert (options.wait_ms, options.javascript, dict(options.headers)) == (1, False, {"X-A": "1"})
    assert options.cookies[0].name == "a"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["url"]),
        ("url=", ["url"]),
        ("url=http://a.b&viewport.widht=5", ["viewport.widht"]),
        ("url=http://a.b&quality=best", ["quality"]),
        ("url=http://a.b&url=http://c.d", ["url"]),
        ("url=http://a.b&full_page=maybe", ["full_page"]),
        ("url=http://a.b&width=5", ["width"]),
        ("url=http://a.b%00", ["url"]),
        ("url=http://a.b&viewport.width.x=1", ["viewport.width"]),
    ],
)
async def test_faulty_legacy_form_is_named(api: Api, query: str, names: list[str]) -> None:
    assert await faults(await api.get(f"/v1/screenshot?{query}")) == names


MOZILLA = "Mozilla/5.0 (X11; Linux x86_64) Safari/605.1.15"


@pytest.mark.parametrize("path", ["/v1/screenshot", "/v1/scrape"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        # Another port of this machine.
        {"Sec_Fetch_Site": "same-site"},
        # A browser that does not say: over plain HTTP to a name.
        {"User_Agent": MOZILLA},
    ],
    ids=["other-site", "other-port", "silent-browser"],
)
async def test_legacy_form_is_refused_to_other_sites(api: Api, path: str, headers: dict[str, str]) -> None:
    answer = await api.get(f"{path}?url={URL}", **headers)
    assert await faults(answer) == ["Sec-Fetch-Site"]
    assert api.service.store.jobs == {}


@pytest.mark.parametrize("site", ["none", "same-origin"])
async def test_legacy_form_is_open_to_its_own_site(api: Api, site: str) -> None:
    answer = await api.get(f"/v1/scrape?url={URL}", Sec_Fetch_Site=site, User_Agent=MOZILLA)
    assert answer.status_code == 200


@pytest.mark.parametrize(("path", "kept"), [("/v1/jobs", "no-store"), ("/livez", "no-store"), ("/nothing", "no-store")])
async def test_answer_is_kept_by_no_cache(api: Api, path: str, kept: str) -> None:
    assert (await api.get(path)).headers["Cache-Control"] == kept


# ---- Health ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_healthy_service_is_live_and_ready(api: Api, prefix: str, path: str) -> None:
    answer = await api.get(prefix + path)
    assert (answer.status_code, (await answer.get_json())["ok"]) == (200, True)


async def test_service_without_a_browser_is_live_but_not_ready(tmp_path: Path) -> None:
    pool = FakePool()
    pool.browser, pool.fault = None, "no Chromium was found"
    async with open_api(tmp_path, pool=pool) as api:
        assert (await api.get("/livez")).status_code == 200
        told = await error(await api.get("/readyz"), 503, "no_browser")
        assert "no Chromium was found" in told["message"]


async def test_service_whose_browser_starts_is_not_ready(tmp_path: Path) -> None:
    pool = FakePool()
    pool.browser = None
    async with open_api(tmp_path, pool=pool) as api:
        told = await error(await api.get("/readyz"), 503, "no_browser")
        assert "starting" in told["message"]


async def test_draining_service_is_not_ready(api: Api) -> None:
    await api.service.drain(0)
    await error(await api.get("/readyz"), 503, "draining")
    assert (await api.get("/livez")).status_code == 200


async def test_service_whose_disk_refuses_is_not_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(api.service.store), "fault", property(lambda _: OSError(28, "No space left on device")))
    told = await error(await api.get("/readyz"), 503, "storage_full")
    assert "No space left on device" in told["message"]


async def test_jobs_are_taken_without_a_browser(tmp_path: Path) -> None:
    pool = FakePool()
    pool.browser, pool.fault = None, "no Chromium was found"
    async with open_api(tmp_path, pool=pool) as api:
        assert (await api.submit()).state == "queued"


# ---- Over a restart --------------------------------------------------------------------------------------------------


async def test_ended_job_reads_the_same_after_a_restart(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        job = await api.ended()
        before = await (await api.get(f"/v1/jobs/{job.id}")).get_json()
    async with open_api(tmp_path) as api:
        assert await (await api.get(f"/v1/jobs/{job.id}")).get_json() == before


async def test_connection_that_breaks_ends_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_self: TCPServer) -> None:
        raise KeyError("a stream")

    monkeypatch.setattr(TCPServer, "run", broken)
    async with served(tmp_path) as server, await server.connect() as stream:
        await ends(stream)
    assert "a connection broke" in caplog.text


def test_hypercorn_still_has_what_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn.trio.run, "TCPServer", hypercorn.trio.run.TCPServer)
    monkeypatch.setattr(H11Protocol, "_check_protocol", H11Protocol._check_protocol)
    tame_hypercorn(Connections(1, trio.Event()))
    assert cast(Any, hypercorn.trio.run.TCPServer).func is OneConnection
    assert {"restart", "stop"} < set(dir(TrioSingleTask))


@pytest.mark.parametrize(
    "host",
    [
        "a_b.evil.com",
        "a!b.evil.com",
        "a..evil.com",
        "127.0.0.1@evil.com",
        "[::1].evil.com",
        f"{'a' * 64}.evil.com",
        "(",
    ],
)
async def test_host_that_werkzeug_does_not_take_is_refused(api: Api, host: str) -> None:
    # They are names that browsers send and that DNS can rebind, or that break quart's routing.
    assert await faults(await api.get("/v1/jobs", Host=host)) == ["Host"]


# ---- Results as streams ----------------------------------------------------------------------------------------------


def grow(api: Api, job: Job, data: bytes, name: str | None = None) -> Path:
    """Put other bytes in the place of an artifact; returns its path."""
    path = api.service.store.artifacts / api.service.artifact(job, name).file
    path.write_bytes(data)
    return path


# Neither a letter nor a group of base64 may be cut where a piece ends.
LETTERS = 'a\u00f6\u6f22\U0001f600"\\\n\x00</script>'


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 2])
async def test_picture_of_any_size_is_whole(api: Api, size: int) -> None:
    job = await api.ended("screenshot")
    data = random.Random(size).randbytes(size)
    grow(api, job, data)
    answer = await (await api.get(f"/v1/jobs/{job.id}")).get_json()
    assert base64.b64decode(answer["result"]["image_base64"], validate=True) == data


@pytest.mark.parametrize("shift", range(4))
async def test_long_document_is_whole(api: Api, shift: int) -> None:
    job = await api.ended("scrape")
    text = "x" * shift + LETTERS * (2 * PIECE_BYTES // len(LETTERS))
    grow(api, job, text.encode())
    answer = await api.get(f"/v1/jobs/{job.id}")
    assert (await answer.get_json())["result"]["html"] == text


async def test_long_list_of_links_is_whole(api: Api) -> None:
    job = await api.ended("scrape", outputs=["html", "links"])
    links = [{"url": f"http://a.b/{index}", "text": LETTERS} for index in range(5000)]
    grow(api, job, json.dumps(links).encode(), "links")
    result = (await (await api.get(f"/v1/jobs/{job.id}")).get_json())["result"]
    assert (result["links"], result["html"]) == (links, f"<html>{URL}</html>")


async def test_large_result_of_a_call_is_whole(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(2 * PIECE_BYTES)

    async def save(name: str, _: bytes) -> None:
        (api.service.store.artifacts / name).write_bytes(data)

    monkeypatch.setattr(api.service.store, "save_artifact", save)
    answer = await api.post("/v1/screenshot", {"url": URL})
    assert base64.b64decode((await answer.get_json())["image_base64"]) == data


async def test_small_answer_tells_its_length(api: Api) -> None:
    job = await api.ended("screenshot")
    answer = await api.get(f"/v1/jobs/{job.id}")
    assert answer.headers["Content-Length"] == str(len(await answer.get_data()))


@pytest.mark.parametrize("rest", ["", "/result"])
@pytest.mark.parametrize("read_bytes", [None, 0, 3, 10], ids=["not there", "nothing", "a part", "all"])
async def test_small_result_is_whole_whatever_of_it_is_in_memory(
    api: Api, monkeypatch: pytest.MonkeyPatch, rest: str, read_bytes: int | None
) -> None:
    def preadv(*_: object) -> int:
        if read_bytes is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return read_bytes

    job = await api.ended("screenshot")
    path = grow(api, job, b"0123456789")
    monkeypatch.setattr(os, "preadv", preadv)
    answer = await api.get(f"/v1/jobs/{job.id}{rest}")
    data = await answer.get_data() if rest else base64.b64decode((await answer.get_json())["result"]["image_base64"])
    assert data == path.read_bytes()


@pytest.mark.parametrize("rest", ["", "/result"])
async def test_result_that_is_not_in_memory_is_not_read_in_the_event_loop(
    api: Api, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    threads: list[threading.Thread] = []
    run_sync = trio.to_thread.run_sync

    async def in_thread(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        threads.append(threading.current_thread())
        return await run_sync(call, *arguments, **options)

    job = await api.ended("screenshot")
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    monkeypatch.setattr(trio.to_thread, "run_sync", in_thread)
    assert (await api.get(f"/v1/jobs/{job.id}{rest}")).status_code == 200
    assert len(threads) == 1


def open_artifacts(api: Api) -> list[str]:
    """Artifacts that this process has open."""
    folder = str(api.service.store.artifacts)
    return [one.path for one in psutil.Process().open_files() if one.path.startswith(folder)]


@pytest.mark.parametrize("size", [10, 3 * PIECE_BYTES])
async def test_answer_leaves_no_file_open(api: Api, size: int) -> None:
    job = await api.ended("screenshot", actions=[SHOT])
    grow(api, job, bytes(size))
    await (await api.get(f"/v1/jobs/{job.id}")).get_data()
    assert open_artifacts(api) == []


# ---- Over a socket ---------------------------------------------------------------------------------------------------

# More than all buffers between a server and a client that does not read.
LARGE_BYTES = 64 * 2**20


@attrs.define
class Served(Api):
    """A service behind hypercorn."""

    port: int
    stopped: trio.Event

    async def connect(self, *, receive_bytes: int | None = None) -> trio.SocketStream:
        """A connection, with a small receive buffer where one is given."""
        return await bare_stream(self.port, receive_bytes=receive_bytes)


@asynccontextmanager
async def serve_api(api: Api, *, most: int = 100) -> AsyncIterator[Served]:
    """Serve on a free port until the body ends."""
    async with trio.open_nursery() as nursery:
        listener = open_listener(Config(port=0))
        port, stopped = listener.getsockname()[1], trio.Event()
        await nursery.start(serve_http, api.service, listener, stopped, most)
        try:
            yield Served(api.client, api.service, api.pool, port, stopped)
        finally:
            stopped.set()


@asynccontextmanager
async def served(
    folder: Path, visit: Callable[[str], Awaitable[None]] = at_once, *, most: int = 100
) -> AsyncIterator[Served]:
    """A service without a browser, served."""
    async with open_api(folder, visit) as api, serve_api(api, most=most) as server:
        yield server


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


async def receive(stream: trio.SocketStream, end: bytes) -> bytes:
    """What comes until these bytes have come."""
    data = b""
    with trio.fail_after(5):
        while end not in data:
            chunk = await stream.receive_some()
            assert chunk, data
            data += chunk
    return data


async def ends(stream: trio.SocketStream, within_s: float = 5) -> bytes:
    """What comes until the server closes."""
    data = bytearray()
    with trio.fail_after(within_s), contextlib.suppress(trio.BrokenResourceError):
        async for chunk in stream:
            data += chunk
    return bytes(data)


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT", head("GET", "/livez"), head("GET", "/livez") + b"GET /"])
async def test_connection_without_a_request_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(cleariflow, "IDLE_S", 0.2)
    async with served(tmp_path) as server, await server.connect() as stream:
        await stream.send_all(sent)
        assert (await ends(stream, 2)).count(b"200") == sent.count(b"Host")


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
async def test_large_bodies_have_room_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framing: str) -> None:
    monkeypatch.setattr(cleariflow, "MAX_BODIES_BYTES", 1)
    begun = head("POST", "/v1/jobs", "Content-Type: application/json", framing)
    async with served(tmp_path) as server:
        async with await server.connect() as first:
            # Room for one, of whatever size.
            await first.send_all(
                head("POST", "/v1/jobs", "Content-Type: application/json", "Transfer-Encoding: chunked")
            )
            await wait_all_tasks_blocked(0.05)
            async with await server.connect() as second:
                await second.send_all(begun)
                told = await receive(second, b"}}")
            assert told.startswith(b"HTTP/1.1 429 ")
            assert b"retry-after: 5" in told
            async with await server.connect() as small:
                await small.send_all(
                    head("POST", "/v1/jobs", "Content-Type: application/json", "Content-Length: 2") + b"{}"
                )
                assert (await receive(small, b"}}")).startswith(b"HTTP/1.1 400 ")
        await wait_all_tasks_blocked(0.05)
        async with await server.connect() as third:
            await third.send_all(begun)
            with trio.move_on_after(0.2) as waiting:
                await third.receive_some()
            assert waiting.cancelled_caught


async def test_dripping_head_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "IDLE_S", 0.2)
    async with served(tmp_path) as server, await server.connect() as stream:
        with trio.fail_after(2), contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"G")
                await trio.sleep(0.05)


async def test_long_poll_is_not_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "IDLE_S", 0.1)
    async with served(tmp_path, Gate()) as server, await server.connect() as stream:
        job = await server.service.submit("scrape", {"url": URL})
        await stream.send_all(head("GET", f"/v1/jobs/{job.id}?wait=0.5"))
        await receive(stream, b'"running"')


async def test_half_a_body_is_408_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "BODY_S", 0.2)
    async with served(tmp_path) as server, await server.connect() as stream:
        await stream.send_all(head("POST", "/v1/jobs", f"Content-Type: {JSON}", "Content-Length: 10") + b"{")
        assert (await ends(stream)).startswith(b"HTTP/1.1 408")


async def test_pipelined_requests_are_answered_in_turn(tmp_path: Path) -> None:
    async with served(tmp_path) as server, await server.connect() as stream:
        await stream.send_all(
            head("GET", "/livez") + head("GET", "/nothing") + head("GET", "/livez", "Connection: close")
        )
        assert re.findall(rb"HTTP/1.1 (\d+)", await ends(stream)) == [b"200", b"404", b"200"]


async def test_head_is_sent_with_its_body(tmp_path: Path) -> None:
    async with served(tmp_path) as server, await server.connect() as stream:
        await stream.send_all(head("GET", "/livez"))
        assert (await stream.receive_some()).endswith(b'{"ok": true}')


async def test_client_is_told_to_go_on(tmp_path: Path) -> None:
    async with served(tmp_path) as server, await server.connect() as stream:
        lines = (f"Content-Type: {JSON}", "Content-Length: 2", "Expect: 100-continue")
        await stream.send_all(head("POST", "/scrape/v1/jobs", *lines))
        await receive(stream, b"HTTP/1.1 100")
        await stream.send_all(b"{}")
        await receive(stream, b"HTTP/1.1 400")


async def test_idle_connections_make_room(tmp_path: Path) -> None:
    async with served(tmp_path, most=5) as server, contextlib.AsyncExitStack() as stack:
        flood = [await stack.enter_async_context(await server.connect()) for _ in range(30)]
        stream = await stack.enter_async_context(await server.connect())
        await stream.send_all(head("GET", "/livez"))
        await receive(stream, b'{"ok": true}')
        for one in flood[:26]:
            await ends(one, 1)


async def test_no_more_connections_than_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served(tmp_path, Gate(), most=2) as server, contextlib.AsyncExitStack() as stack:
        job = await server.service.submit("scrape", {"url": URL})
        polls = [await stack.enter_async_context(await server.connect()) for _ in range(2)]
        for stream in polls:
            await stream.send_all(head("GET", f"/v1/jobs/{job.id}?wait=60"))
        await wait_all_tasks_blocked(0.1)
        for _ in range(3):
            async with await server.connect() as more:
                await ends(more, 1)
        assert caplog.text.count("2 connections are open") == 1
        await polls[0].aclose()
        await wait_all_tasks_blocked(0.1)
        async with await server.connect() as more:
            await more.send_all(head("GET", "/livez"))
            await receive(more, b'{"ok": true}')


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_connection_with_one_request_too_many_ends_with_its_client(tmp_path: Path, how: str) -> None:
    # hypercorn's reader waits before the second one, and hears of nothing.
    async with served(tmp_path, most=2) as server:
        job = await server.ended("screenshot")
        grow(server, job, bytes(LARGE_BYTES))
        for _ in range(2):
            stream = await server.connect(receive_bytes=4096)
            await stream.send_all(2 * head("GET", f"/v1/jobs/{job.id}/result"))
            await receive(stream, b"HTTP/1.1 200")
            if how == "reset":
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
        await wait_all_tasks_blocked(0.2)
        async with await server.connect() as more:
            await more.send_all(head("GET", "/livez"))
            await receive(more, b'{"ok": true}')


def test_files_are_left_to_others(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert (raise_file_limit(1), limits) == (128, [(1024, 1024)])
    assert "only 1024 files may be open" in caplog.text


@pytest.mark.parametrize("rest", ["", "/result"])
async def test_slow_reader_holds_little_of_a_large_result(tmp_path: Path, rest: str) -> None:
    async with served(tmp_path) as server, await server.connect(receive_bytes=4096) as stream:
        job = await server.ended("screenshot")
        path = grow(server, job, bytes(LARGE_BYTES))
        await stream.send_all(head("GET", f"/v1/jobs/{job.id}{rest}"))
        await receive(stream, b"HTTP/1.1 200")
        await wait_all_tasks_blocked(0.3)
        (file,) = [one for one in psutil.Process().open_files() if one.path == str(path)]
        assert cast(Any, file).position < LARGE_BYTES / 4


@pytest.mark.parametrize("rest", ["", "/result"])
async def test_client_that_leaves_a_stream_leaves_no_file_open(tmp_path: Path, rest: str) -> None:
    async with served(tmp_path) as server:
        job = await server.ended("screenshot")
        grow(server, job, bytes(LARGE_BYTES))
        async with await server.connect(receive_bytes=4096) as stream:
            await stream.send_all(head("GET", f"/v1/jobs/{job.id}{rest}"))
            await receive(stream, b"HTTP/1.1 200")
        await wait_all_tasks_blocked(0.3)
        assert open_artifacts(server) == []


@pytest.mark.parametrize("rest", ["", "/result"])
async def test_result_that_expires_meanwhile_is_whole(tmp_path: Path, rest: str) -> None:
    async with served(tmp_path) as server, await server.connect() as stream:
        job = await server.ended("screenshot")
        path = grow(server, job, bytes(LARGE_BYTES))
        await stream.send_all(head("GET", f"/v1/jobs/{job.id}{rest}", "Connection: close"))
        await receive(stream, b"HTTP/1.1 200")
        path.unlink()
        assert len(await ends(stream, 20)) > LARGE_BYTES - 2**20


@pytest.mark.parametrize("rest", ["", "/result"])
async def test_client_that_never_reads_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    monkeypatch.setattr(cleariflow, "ANSWER_S", 0.3)
    monkeypatch.setattr(cleariflow, "SLOWEST_BYTES_PER_S", 10 * LARGE_BYTES)
    async with served(tmp_path) as server, await server.connect(receive_bytes=4096) as stream:
        job = await server.ended("screenshot")
        grow(server, job, bytes(LARGE_BYTES))
        await stream.send_all(head("GET", f"/v1/jobs/{job.id}{rest}"))
        await receive(stream, b"HTTP/1.1 200")
        await trio.sleep(cleariflow.ANSWER_S + 0.2)
        await wait_all_tasks_blocked(0.1)
        assert open_artifacts(server) == []
        assert len(await ends(stream)) < LARGE_BYTES


@pytest.mark.parametrize("rest", ["", "/result"])
async def test_large_answer_has_time_for_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    monkeypatch.setattr(cleariflow, "ANSWER_S", 0.1)
    async with served(tmp_path) as server, await server.connect() as stream:
        job = await server.ended("screenshot")
        grow(server, job, bytes(LARGE_BYTES))
        await stream.send_all(head("GET", f"/v1/jobs/{job.id}{rest}", "Connection: close"))
        await receive(stream, b"HTTP/1.1 200")
        await trio.sleep(0.3)
        assert len(await ends(stream, 20)) > LARGE_BYTES - 2**20


# ---- Its end ---------------------------------------------------------------------------------------------------------


async def test_idle_connection_does_not_hold_the_exit(tmp_path: Path) -> None:
    async with served(tmp_path) as server, await server.connect() as used, await server.connect() as unused:
        await used.send_all(head("GET", "/livez"))
        await receive(used, b'{"ok": true}')
        server.stopped.set()
        await ends(used, HTTP_GRACE_S / 2)
        await ends(unused, HTTP_GRACE_S / 2)


@pytest.mark.parametrize("rest", ["", "/result"])
async def test_slow_reader_does_not_hold_the_exit(tmp_path: Path, rest: str) -> None:
    async with trio.open_nursery() as nursery:

        async def sip(stream: trio.SocketStream) -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                async for _ in stream:
                    await trio.sleep(0.02)

        async with served(tmp_path) as server:
            job = await server.ended("screenshot")
            grow(server, job, bytes(LARGE_BYTES))
            stream = await server.connect(receive_bytes=4096)
            await stream.send_all(head("GET", f"/v1/jobs/{job.id}{rest}"))
            await receive(stream, b"HTTP/1.1 200")
            nursery.start_soon(sip, stream)
            stopped_at = trio.current_time()
        assert trio.current_time() - stopped_at < HTTP_GRACE_S + 1
        nursery.cancel_scope.cancel()
    await stream.aclose()


@pytest.mark.parametrize("prefix", ["", "/screenshot"])
async def test_draining_service_still_shows_jobs(held: Api, prefix: str) -> None:
    job = await held.submit()
    await held.pool.reached(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.service.drain, 60)
        await wait_all_tasks_blocked()
        answer = await held.get(f"{prefix}/v1/jobs/{job.id}")
        assert (await answer.get_json())["status"] == "running"
        nursery.cancel_scope.cancel()


async def test_draining_service_tells_when_to_come_again(api: Api) -> None:
    await api.service.drain(0)
    answer = await api.post("/scrape/v1/jobs", {"request": {"url": URL}})
    assert int(answer.headers["Retry-After"]) > 0


# ---- Leaving, on Chromium --------------------------------------------------------------------------------------------


@asynccontextmanager
async def real(folder: Path) -> AsyncIterator[Served]:
    """A service with a browser, served."""
    config = Config(data_dir=str(folder), allow_network=("127.0.0.0/8",), workers=1)
    async with open_service(config) as service, serve_api(Api(None, service, cast(FakePool, service.pool))) as server:
        yield server


@pytest.mark.parametrize("path", ["/never", "/never-loads"])
async def test_call_of_a_client_that_leaves_stops_the_page(tmp_path: Path, site: Site, path: str) -> None:
    async with real(tmp_path) as server:
        body = json.dumps({"url": site.url(path)}).encode()
        async with await server.connect() as stream:
            await stream.send_all(
                head("POST", "/v1/scrape", f"Content-Type: {JSON}", f"Content-Length: {len(body)}") + body
            )
            await site.seen("/never")
        with trio.fail_after(1):
            await site.connections_settled()


@pytest.mark.parametrize("path", ["/never", "/never-loads"])
async def test_delete_of_a_running_job_stops_the_page(tmp_path: Path, site: Site, path: str) -> None:
    async with real(tmp_path) as server, await server.connect() as stream:
        job = await server.service.submit("scrape", {"url": site.url(path)})
        await site.seen("/never")
        await stream.send_all(head("DELETE", f"/v1/jobs/{job.id}"))
        with trio.fail_after(1):
            await receive(stream, b'"cancelled"')
            await site.connections_settled()
