"""API keys: made, listed and revoked beside a running service, asked for where they must be, and shown nowhere."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from quart.wrappers import Response

import cleariflow
from cleariflow import Config, ConfigError, Job, Keys, Schedule, State, edited_keys, load_config, main, read_keys
from tests.test_end_to_end import PROGRAM, Server, open_server
from tests.test_http import Api, error, open_api
from tests.test_service import URL, Gate

BODY = {"service": "scrape", "request": {"url": URL}}


def add(folder: Path, name: str = "anna", *flags: str) -> str:
    """A new key of a data folder, made as its operator would."""
    made = subprocess.run(
        [sys.executable, str(PROGRAM), "keys", "add", name, "--data-dir", str(folder), *flags],
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout.strip()


def add_here(folder: Path, name: str = "anna", *flags: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The same in this process, which is faster."""
    assert main(["keys", "add", name, "--data-dir", str(folder), *flags]) == 0
    return capsys.readouterr().out.strip()


@pytest.fixture
def anna(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A key without limits."""
    return add_here(tmp_path, capsys=capsys)


@pytest.fixture
async def keyed(tmp_path: Path, anna: str) -> AsyncIterator[Api]:
    """A service that knows Anna only."""
    async with open_api(tmp_path) as api:
        yield api


async def submit(api: Api, key: str | None, **fields: Any) -> Response:
    headers = {"X_API_Key": key} if key is not None else {}
    return await api.post("/v1/jobs", BODY | fields, **headers)


# ---- The file --------------------------------------------------------------------------------------------------------


def test_key_is_printed_once_and_stored_as_its_hash(tmp_path: Path) -> None:
    key = add(tmp_path)
    stored = (tmp_path / "keys.json").read_text()
    assert len(key) > 40
    assert key not in stored
    assert cleariflow.digest_of(key) in stored


def test_every_key_is_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len({add_here(tmp_path, f"k{at}", capsys=capsys) for at in range(20)}) == 20


def test_key_file_is_for_its_owner_only(tmp_path: Path, anna: str) -> None:
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


def test_data_folder_is_made_for_its_owner_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_here(tmp_path / "new" / "data", capsys=capsys)
    assert stat.S_IMODE((tmp_path / "new" / "data").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_key_file_made_by_root_is_of_the_folders_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.chown(tmp_path, 12345, 12345)
    add_here(tmp_path, capsys=capsys)
    assert {path.stat().st_uid for path in tmp_path.glob("keys.*")} == {12345}


def test_list_shows_names_and_limits_and_no_key(tmp_path: Path, anna: str, capsys: pytest.CaptureFixture[str]) -> None:
    bert = add_here(tmp_path, "bert", "--service", "scrape", "--rate", "2.5", "--quota", "9", capsys=capsys)
    assert main(["keys", "list", "--data-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "anna  since 20" in shown
    assert "service scrape  rate 2.5  quota 9" in shown
    assert not any(secret in shown for secret in (anna, bert, cleariflow.digest_of(anna)))


def test_list_of_no_keys_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list", "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "anna"], "is taken: revoke it first"),
        (["add", "a b"], "must be 1 to 64 letters"),
        (["add", ""], "must be 1 to 64 letters"),
        (["add", "x" * 65], "must be 1 to 64 letters"),
        (["add", "CLEARIFLOW_API_KEY"], "must be 1 to 64 letters"),
        (["add", "b", "--rate", "0"], "rate: must be"),
        (["add", "b", "--rate", "nan"], "rate: "),
        (["add", "b", "--rate", "1e-320"], "rate: "),
        (["add", "b", "--quota", "-1"], "quota: must be at least 1"),
        (["add", "b", "--concurrency", "x"], "concurrency: "),
        (["add", "b", "--service", "pdf"], "service: "),
        (["revoke", "ana"], "no key is called 'ana'; did you mean anna?"),
    ],
    ids=lambda value: "-".join(value)[:30] if isinstance(value, list) else "",
)
def test_wrong_use_of_keys_is_told(
    tmp_path: Path, anna: str, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    before = (tmp_path / "keys.json").read_bytes()
    assert main(["keys", *arguments, "--data-dir", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err
    assert (tmp_path / "keys.json").read_bytes() == before


def test_keys_added_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "keys", "add"]
    flags = ["--data-dir", str(tmp_path)]
    running = [subprocess.Popen([*command, f"k{at}", *flags], stdout=subprocess.DEVNULL) for at in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert {key.name for key in read_keys(tmp_path / "keys.json")} == {"k0", "k1", "k2", "k3"}


def test_edit_that_breaks_off_changes_nothing(tmp_path: Path, anna: str) -> None:
    before = (tmp_path / "keys.json").read_bytes()

    def edit() -> None:
        with edited_keys(Config(data_dir=str(tmp_path))) as keys:
            keys.clear()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        edit()
    assert (tmp_path / "keys.json").read_bytes() == before


@pytest.mark.parametrize("name", ["keys.json", "keys.json.new", "keys.lock"])
def test_links_in_the_folder_lead_nobody_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """As root `keys add` works in the folder of a user whom a hole in the browser may have given away."""
    folder, victim = tmp_path / "data", tmp_path / "victim"
    folder.mkdir()
    victim.write_text('{"keys": []}')
    before = (victim.stat().st_uid, victim.stat().st_mode)
    (folder / name).symlink_to(victim)
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
    add_here(folder, capsys=capsys)
    assert victim.read_text() == '{"keys": []}'
    assert (victim.stat().st_uid, victim.stat().st_mode) == before
    assert not (folder / "keys.json").is_symlink()


def key_document(name: str) -> str:
    return json.dumps({"name": name, "digest": "00", "created_at": ""})


BROKEN = {
    "deep": b"[" * 100_000,
    "two of a name": f'{{"keys": [{key_document("a")}, {key_document("a")}]}}'.encode(),
    "a name not allowed": f'{{"keys": [{key_document("CLEARIFLOW_API_KEY")}]}}'.encode(),
    "no JSON": b"{",
    "no object": b"[]",
    "no list": b'{"keys": 1}',
    "no name": b'{"keys": [{"digest": "00", "created_at": ""}]}',
    "unknown field": b'{"keys": [{"name": "a", "digest": "0", "created_at": "", "admin": true}]}',
    "no text": b"\xff\xff",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_broken_key_file_refuses_the_start(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys.json").write_bytes(content)
    assert main(["--data-dir", str(tmp_path), "--port", "0"]) == 2
    assert "keys.json" in capsys.readouterr().err


def test_link_to_nothing_is_not_no_file(tmp_path: Path) -> None:
    (tmp_path / "keys.json").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="it is no file"):
        Keys(Config(data_dir=str(tmp_path)))


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys.json")
    with pytest.raises(ConfigError, match="it is no file"):
        Keys(Config(data_dir=str(tmp_path)))


def test_broken_key_file_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys.json").write_bytes(b"{")
    assert main(["keys", "add", "anna", "--data-dir", str(tmp_path)]) == 2
    assert (tmp_path / "keys.json").read_bytes() == b"{"


# ---- Who must show one -----------------------------------------------------------------------------------------------


def test_other_host_needs_a_key_or_open(tmp_path: Path) -> None:
    flags = {"host": "0.0.0.0", "data_dir": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"keys add NAME\), or add --open"):
        load_config(flags, {})


def test_other_host_may_be_served_with_a_key(tmp_path: Path, anna: str) -> None:
    assert load_config({"host": "0.0.0.0", "data_dir": str(tmp_path)}, {}).host == "0.0.0.0"


def test_other_host_may_be_served_with_the_key_of_the_environment(tmp_path: Path) -> None:
    config = load_config({"host": "0.0.0.0", "data_dir": str(tmp_path)}, {"CLEARIFLOW_API_KEY": "x"})
    assert config.api_key == "x"


def test_other_host_needs_a_key_that_is_not_revoked(tmp_path: Path, anna: str) -> None:
    main(["keys", "revoke", "anna", "--data-dir", str(tmp_path)])
    with pytest.raises(ConfigError, match="keys add NAME"):
        load_config({"host": "0.0.0.0", "data_dir": str(tmp_path)}, {})


def test_commands_other_than_serve_need_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARIFLOW_HOST", "0.0.0.0")
    assert main(["keys", "add", "anna", "--data-dir", str(tmp_path)]) == 0


def test_key_of_the_environment_is_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--api-key", "hush-hush"]) == 2
    assert capsys.readouterr().err == "cleariflow: --api-key: unknown flag\n"


def test_key_of_the_environment_is_in_no_text_of_the_settings() -> None:
    assert "hush-hush" not in repr(load_config({}, {"CLEARIFLOW_API_KEY": "hush-hush"}))


def test_fault_of_the_key_of_the_environment_names_its_variable_and_not_the_key() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({}, {"CLEARIFLOW_API_KEY": "hush" * 2000})
    (fault,) = caught.value.faults
    assert fault.field == "CLEARIFLOW_API_KEY"
    assert "hush" not in fault.message


@pytest.mark.parametrize(
    "text", ["two words", " hush", "hush\n", "gr\u00fcn"], ids=["words", "space", "line", "umlaut"]
)
def test_key_of_the_environment_that_no_header_carries_is_a_fault(text: str) -> None:
    with pytest.raises(ConfigError, match="CLEARIFLOW_API_KEY: must be printable ASCII"):
        load_config({}, {"CLEARIFLOW_API_KEY": text})


def test_variable_is_known_in_capitals_only() -> None:
    with pytest.raises(ConfigError, match="CLEARIFLOW_api_key: unknown setting; did you mean CLEARIFLOW_API_KEY"):
        load_config({}, {"CLEARIFLOW_api_key": "hush"})


@pytest.mark.parametrize("open_to_all", [True, False])
def test_key_is_needed_on_an_address_that_others_reach(tmp_path: Path, open_to_all: bool) -> None:
    keys = Keys(Config(host="0.0.0.0", open=open_to_all, data_dir=str(tmp_path)))
    assert keys.required is not open_to_all


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/v1/jobs"),
        ("post", "/scrape/v1/jobs"),
        ("post", "/v1/screenshot"),
        ("post", "/v1/scrape"),
        ("get", f"/v1/screenshot?url={URL}"),
        ("get", f"/v1/scrape?url={URL}"),
        ("get", "/v1/jobs"),
        ("get", "/screenshot/v1/jobs"),
        ("get", "//v1/jobs"),
        ("get", "/%76%31/jobs"),
        ("get", "/scrape/../v1/jobs"),
        ("delete", "/v1/jobs/00000000-0000-4000-8000-000000000000"),
    ],
)
@pytest.mark.parametrize("shown", [None, "wrong", ""], ids=["none", "wrong", "empty"])
async def test_nothing_is_done_without_a_key(keyed: Api, method: str, path: str, shown: str | None) -> None:
    headers = {"X-API-Key": shown} if shown is not None else {}
    if method == "post":
        body = json.dumps(BODY if "jobs" in path else {"url": URL}).encode()
        answer = await keyed.client.post(path, data=body, headers={"Content-Type": "application/json"} | headers)
    else:
        answer = await getattr(keyed.client, method)(path, headers=headers)
    if path.startswith(("//", "/scrape/..")) and answer.status_code in (308, 404):
        # Not one of the routes.
        return
    told = await error(answer, 401, "unauthorized")
    assert "keys add NAME" in told["message"]
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert not keyed.service.store.jobs


async def test_job_and_result_need_its_id_only(keyed: Api, anna: str) -> None:
    job_id = (await (await submit(keyed, anna)).get_json())["job_id"]
    assert (await (await keyed.get(f"/v1/jobs/{job_id}?wait=20")).get_json())["status"] == "done"
    assert (await keyed.get(f"/v1/jobs/{job_id}/result")).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_health_needs_no_key(keyed: Api, path: str) -> None:
    assert (await keyed.get(path)).status_code == 200


async def test_key_is_asked_for_before_the_request_is_looked_at(keyed: Api) -> None:
    await error(await keyed.post("/v1/jobs", {"request": {"url": "http://10.0.0.1/", "x": 1}}), 401, "unauthorized")


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b'{"request": []}', b'{"request": {"api_key": 1}}', b'{"request": {"api_key": ["a"]}}']
)
async def test_odd_bodies_show_no_key(keyed: Api, body: bytes) -> None:
    await error(await keyed.post("/v1/jobs", body), 401, "unauthorized")


# ---- Where it is taken from ------------------------------------------------------------------------------------------


async def test_key_is_taken_from_the_request(keyed: Api, anna: str) -> None:
    answer = await keyed.post("/v1/jobs", {"service": "scrape", "request": {"url": URL, "api_key": anna}})
    assert answer.status_code == 202


async def test_key_is_taken_from_the_body_of_a_synchronous_call(keyed: Api, anna: str) -> None:
    assert (await keyed.post("/v1/scrape", {"url": URL, "api_key": anna})).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", "Bearer {}"),
        ("Authorization", "bearer  {}"),
        ("Authorization", "Bearer\t{}"),
        ("X-API-Key", "{}"),
    ],
    ids=["bearer", "lower-case", "tab", "own"],
)
async def test_key_is_taken_from_a_header(keyed: Api, anna: str, header: tuple[str, str]) -> None:
    name, form = header
    assert (await keyed.client.get("/v1/jobs", headers={name: form.format(anna)})).status_code == 200


async def test_key_is_taken_from_the_query(keyed: Api, anna: str) -> None:
    assert (await keyed.get(f"/v1/jobs?api_key={anna}")).status_code == 200
    assert (await keyed.get(f"/v1/scrape?url={URL}&api_key={anna}")).status_code == 200


async def test_key_of_another_scheme_is_none(keyed: Api, anna: str) -> None:
    basic = base64.b64encode(f":{anna}".encode()).decode()
    await error(await keyed.get("/v1/jobs", Authorization=f"Basic {basic}"), 401, "unauthorized")


async def test_one_good_key_is_enough(keyed: Api, anna: str) -> None:
    answer = await keyed.get(f"/v1/jobs?api_key={anna}", Authorization="Bearer of-a-proxy")
    assert answer.status_code == 200


async def test_key_of_the_environment_is_for_both_services(tmp_path: Path) -> None:
    async with open_api(tmp_path, api_key="hush-hush") as api:
        await error(await submit(api, None), 401, "unauthorized")
        for service in ("scrape", "screenshot"):
            assert (await submit(api, "hush-hush", service=service)).status_code == 202


async def test_key_is_not_asked_for_where_there_is_none(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        assert (await submit(api, "of-another-service")).status_code == 202


# ---- What it is good for ---------------------------------------------------------------------------------------------


async def test_key_of_one_service_is_refused_by_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = add_here(tmp_path, "s", "--service", "screenshot", capsys=capsys)
    async with open_api(tmp_path) as api:
        told = await error(await submit(api, key), 401, "unauthorized")
        assert "for screenshot only" in told["message"]
        await error(await api.get(f"/v1/scrape?url={URL}&api_key={key}"), 401, "unauthorized")
        assert (await submit(api, key, service="screenshot")).status_code == 202


async def test_list_shows_the_keys_own_jobs_only(
    keyed: Api, tmp_path: Path, anna: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bert = add_here(tmp_path, "bert", capsys=capsys)
    own = [(await (await submit(keyed, key)).get_json())["job_id"] for key in (anna, bert, anna)]
    for key, expected in ((anna, [own[2], own[0]]), (bert, [own[1]])):
        listed = await (await keyed.get(f"/v1/jobs?api_key={key}")).get_json()
        assert [row["job_id"] for row in listed["jobs"]] == expected


async def test_list_shows_own_jobs_after_a_restart(tmp_path: Path, anna: str) -> None:
    async with open_api(tmp_path) as api:
        job_id = (await (await submit(api, anna)).get_json())["job_id"]
        await api.service.wait(api.service.job(job_id))
        assert (await submit(api, anna, request={"url": "http://8.8.4.4/"})).status_code == 202
    async with open_api(tmp_path) as api:
        listed = await (await api.get(f"/v1/jobs?api_key={anna}")).get_json()
        assert job_id in [row["job_id"] for row in listed["jobs"]]
        assert len(listed["jobs"]) == 2


async def test_cancel_of_anothers_job_is_not_found(
    tmp_path: Path, anna: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bert = add_here(tmp_path, "bert", capsys=capsys)
    async with open_api(tmp_path, Gate()) as api:
        job_id = (await (await submit(api, anna)).get_json())["job_id"]
        path = f"/v1/jobs/{job_id}"
        await error(await api.client.delete(path, headers={"X-API-Key": bert}), 404, "not_found")
        assert not api.service.job(job_id).ended
        assert (await api.client.delete(path, headers={"X-API-Key": anna})).status_code == 200
        assert api.service.job(job_id).error_code == "cancelled"


async def test_quota_ends_with_422(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = add_here(tmp_path, "q", "--quota", "2", capsys=capsys)
    async with open_api(tmp_path) as api:
        assert (await submit(api, key)).status_code == 202
        assert (await api.post("/v1/scrape", {"url": URL, "api_key": key})).status_code == 200
        told = await error(await submit(api, key), 422, "quota_reached")
        assert "2 submissions" in told["message"]
        assert len(api.service.store.jobs) == 2


async def test_quota_is_kept_over_restarts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = add_here(tmp_path, "q", "--quota", "2", capsys=capsys)
    for _ in range(2):
        async with open_api(tmp_path) as api:
            assert (await submit(api, key)).status_code == 202
    async with open_api(tmp_path) as api:
        await error(await submit(api, key), 422, "quota_reached")


async def test_quota_is_nobody_elses_after_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [add_here(tmp_path, f"q{at}", "--quota", "9", capsys=capsys) for at in range(4)]
    async with open_api(tmp_path) as api:
        for text in texts[:3]:
            assert (await submit(api, text)).status_code == 202
    journal = tmp_path / "jobs.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'["uses","2"' not in line))
    async with open_api(tmp_path) as api:
        assert (await submit(api, texts[3])).status_code == 202
    async with open_api(tmp_path) as api:
        keys = {key.name: key for key in read_keys(tmp_path / "keys.json")}
        assert [api.service.store.uses(keys[f"q{at}"]) for at in range(4)] == [1, 0, 1, 1]


async def test_refused_requests_do_not_count_against_the_quota(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = add_here(tmp_path, "q", "--quota", "1", capsys=capsys)
    async with open_api(tmp_path) as api:
        for url in ("http://10.0.0.1/", "nonsense:", None):
            assert (await submit(api, key, request={"url": url})).status_code == 400
        assert (await submit(api, key)).status_code == 202


async def test_new_key_of_an_old_name_has_its_whole_quota(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = add_here(tmp_path, "q", "--quota", "1", capsys=capsys)
    async with open_api(tmp_path) as api:
        assert (await submit(api, key)).status_code == 202
        main(["keys", "revoke", "q", "--data-dir", str(tmp_path)])
        key = add_here(tmp_path, "q", "--quota", "1", capsys=capsys)
        assert (await submit(api, key)).status_code == 202


async def test_rate_ends_with_429_and_says_when_to_come_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = add_here(tmp_path, "r", "--rate", "0.01", capsys=capsys)
    async with open_api(tmp_path) as api:
        assert (await submit(api, key)).status_code == 202
        answer = await submit(api, key)
        told = await error(answer, 429, "rate_limited")
        assert "0.01 submissions a second" in told["message"]
        assert 90 <= int(answer.headers["Retry-After"]) <= 100


def test_rate_lets_a_seconds_worth_come_at_once_and_then_its_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_here(tmp_path, "r", "--rate", "3", capsys=capsys)
    keys, now = Keys(Config(data_dir=str(tmp_path))), 1000.0
    (key,) = read_keys(tmp_path / "keys.json")
    monkeypatch.setattr("cleariflow.time.monotonic", lambda: now)
    passed = []
    for _ in range(50):
        try:
            keys.take_turn(key)
            passed.append(now)
        except cleariflow.ServiceError:
            pass
        now += 0.1
    assert passed.count(1000.0) == 1
    # Three at first, then three a second for five seconds.
    assert 16 <= len(passed) <= 18


async def test_concurrency_holds_a_keys_jobs_back_and_nobody_elses(
    tmp_path: Path, anna: str, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = add_here(tmp_path, "slow", "--concurrency", "1", capsys=capsys)
    gate = Gate()
    async with open_api(tmp_path, gate, workers=3) as api:
        ids = [(await (await submit(api, key)).get_json())["job_id"] for key in (slow, slow, anna)]
        await trio.testing.wait_all_tasks_blocked(0.05)
        first, second, other = (api.service.job(job_id) for job_id in ids)
        assert [job.state for job in (first, second, other)] == [State.RUNNING, State.QUEUED, State.RUNNING]
        api.service.cancel(first)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert second.state is State.RUNNING


def job(number: int, key: str | None) -> Job:
    return Job(number=number, service="scrape", request={}, key=key)


async def test_jobs_held_back_keep_their_order_and_can_be_removed() -> None:
    schedule = Schedule(lambda key: 1 if key == "a" else None)
    one, two, three, four = jobs = [job(number, "a") for number in range(1, 5)]
    for each in jobs:
        schedule.push(each)
    assert schedule.take() is one
    assert schedule.take() is None
    assert [schedule.position(each) for each in (two, three, four)] == [0, 1, 2]
    schedule.remove(two)
    assert len(schedule) == 2
    schedule.done(one)
    assert schedule.take() is three
    schedule.done(three)
    assert schedule.take() is four


def test_job_that_comes_up_and_is_cancelled_lets_the_next_come_up() -> None:
    schedule = Schedule(lambda key: 1)
    one, two, three = jobs = [job(number, "a") for number in range(3)]
    for each in jobs:
        schedule.push(each)
    assert schedule.take() is one
    assert schedule.take() is None
    schedule.done(one)
    schedule.remove(two)
    assert schedule.take() is three


def test_raised_limit_lets_all_come_up() -> None:
    most = 1
    schedule = Schedule(lambda key: most)
    jobs = [job(number, "a") for number in range(5)]
    for each in jobs:
        schedule.push(each)
    assert schedule.take() is jobs[0]
    assert schedule.take() is None
    most = 3
    schedule.done(jobs[0])
    assert [schedule.take() for _ in range(4)] == [*jobs[1:4], None]


def test_schedule_keeps_nothing_of_jobs_held_back_and_removed() -> None:
    schedule = Schedule(lambda key: 1)
    schedule.push(job(0, "a"))
    schedule.take()
    for number in range(1, 1000):
        schedule.push(gone := job(number, "a"))
        schedule.take()
        schedule.remove(gone)
    assert len(schedule._held["a"]) <= 65


async def test_workers_sleep_while_all_jobs_are_held_back() -> None:
    schedule = Schedule(lambda key: 1)
    for number in (1, 2):
        schedule.push(job(number, "a"))
    first = schedule.take()
    assert first is not None
    assert schedule.take() is None
    with trio.move_on_after(0.05) as scope:
        await schedule.arrival()
    assert scope.cancelled_caught
    schedule.done(first)
    with trio.fail_after(1):
        await schedule.arrival()


# ---- A running service -----------------------------------------------------------------------------------------------


async def test_keys_are_in_and_out_of_force_at_once(
    tmp_path: Path, keyed: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    bert = add_here(tmp_path, "bert", capsys=capsys)
    assert (await submit(keyed, bert)).status_code == 202
    main(["keys", "revoke", "bert", "--data-dir", str(tmp_path)])
    assert (await submit(keyed, bert)).status_code == 401


async def test_service_stays_closed_when_the_last_key_is_revoked(tmp_path: Path, keyed: Api, anna: str) -> None:
    main(["keys", "revoke", "anna", "--data-dir", str(tmp_path)])
    assert (await submit(keyed, anna)).status_code == 401
    assert (await submit(keyed, None)).status_code == 401


async def test_first_key_closes_a_running_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_api(tmp_path) as api:
        assert (await submit(api, None)).status_code == 202
        key = add_here(tmp_path, capsys=capsys)
        assert (await submit(api, None)).status_code == 401
        assert (await submit(api, key)).status_code == 202


async def test_key_file_that_breaks_changes_nothing_and_is_told_once(
    tmp_path: Path, keyed: Api, anna: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "keys.json").write_bytes(b"{")
    for _ in range(3):
        assert (await submit(keyed, anna)).status_code == 202
        assert (await submit(keyed, None)).status_code == 401
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "keys.json" in told[0]


@pytest.mark.parametrize("host", ["evil.example", "rebound.example:8000"])
async def test_host_is_not_asked_about_where_keys_are_needed(keyed: Api, anna: str, host: str) -> None:
    assert (await keyed.get("/v1/jobs", Host=host, X_API_Key=anna)).status_code == 200


async def test_pages_of_other_sites_may_use_the_query_form_with_a_key(keyed: Api, anna: str) -> None:
    answer = await keyed.get(f"/v1/scrape?url={URL}&api_key={anna}", Sec_Fetch_Site="cross-site")
    assert answer.status_code == 200


def read_of(server: Server, file: str) -> list[bytes]:
    """What /proc says of its children; of one that ends meanwhile nothing."""
    found = []
    for child in server.look():
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{child.pid}/{file}").read_bytes())
    return found


async def test_key_is_stored_logged_and_shown_nowhere(tmp_path: Path, anna: str, browser_endpoint: str) -> None:
    """With the real process: its log, its folder, its children's command lines and environments, its answers."""
    seen = []
    async with open_server(tmp_path) as server, server.client() as client:
        request = {"url": "http://127.0.0.1:1/", "api_key": anna, "wait_ms": 100}
        for answer in (
            await client.post("/scrape/v1/jobs", json={"request": request}),
            await client.post("/scrape/v1/jobs", json={"request": request | {"x": 1}}),
            await client.get("/v1/scrape", params={"url": "http://127.0.0.1:1/", "api_key": anna}),
            await client.get("/v1/jobs", params={"api_key": anna, "limit": "x"}),
            await client.get("/v1/jobs", params={"api_key": anna}),
            await client.get("/nothing", params={"api_key": anna}),
        ):
            seen.append(answer.content + str(answer.headers).encode())
        seen += read_of(server, "cmdline") + read_of(server, "environ")
        code, _ = await server.end(cleariflow.signal.SIGTERM)
        assert code == 0
    seen += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    seen.append("\n".join(server.log).encode())
    assert len(seen) > 10
    assert not any(anna.encode() in text for text in seen)


async def test_key_of_the_environment_does_not_reach_the_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARIFLOW_API_KEY", "hush-hush-hush-hush")
    async with open_server(tmp_path) as server, server.client() as client:
        headers = {"Authorization": "Bearer hush-hush-hush-hush"}
        await client.get("/v1/scrape", params={"url": "http://127.0.0.1:1/"}, headers=headers)
        environments = read_of(server, "environ")
    assert len(environments) > 2
    assert not any(b"hush-hush" in environment for environment in environments)


async def test_short_key_of_the_environment_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARIFLOW_API_KEY", "hush")
    async with open_server(tmp_path) as server:
        await server.end(cleariflow.signal.SIGTERM)
    assert any("CLEARIFLOW_API_KEY has 4 characters: it can be guessed" in line for line in server.log)


async def test_open_service_is_warned_about(tmp_path: Path) -> None:
    async with open_server(tmp_path, "--host", "0.0.0.0", "--open") as server:
        await server.end(cleariflow.signal.SIGTERM)
    assert any("--open: everybody who can reach this port" in line for line in server.log)
