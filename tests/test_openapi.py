"""The description of the HTTP interface: valid, complete, of one mind with the service, and used by those who read it:
schemathesis drives the service by it, a client is made of it, and a browser shows it."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs
import httpx
import jsonschema
import pytest
import trio
from openapi_spec_validator import validate
from quart.wrappers import Response

import cdp
from cdp import options
from cdp.options import Length, PageOptions, Range
from cdp.schema import Schemas
from cdp.validation import ValidationError, bare_type, fields_of, structure
from cleariflow import (
    DOCS_FILES,
    ERROR_CODES,
    EXAMPLES,
    HTTP_STATUS,
    REQUEST_CLASSES,
    ROUTES,
    STATUS_PATTERN,
    Config,
    ListQuery,
    ReadQuery,
    RenderFields,
    Retry,
    StatusPattern,
    Submission,
    create_app,
    openapi_document,
    parse_request,
)
from tests.test_end_to_end import open_server
from tests.test_http import open_api, serve_api, served
from tests.test_service import URL, FakePage, FakePool, Gate

BODIES = (*REQUEST_CLASSES.values(), Submission, Retry)
QUERIES = (*REQUEST_CLASSES.values(), ReadQuery, ListQuery)
ACTIONS = get_args(options.Action)
CLASSES = (
    *(*BODIES, RenderFields, *ACTIONS, options.Viewport, options.Cookie, options.WaitFor, options.Clip),
    *(options.Geolocation, options.Auth, options.Point, options.Resize),
)


@functools.cache
def document(root_path: str = "", max_timeout_s: float = 120.0) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(openapi_document(root_path, max_timeout_s))
    return parsed


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document()["paths"].items():
        for method in methods.keys() - {"servers"}:
            yield method.upper(), path, methods[method]


def faults_of(schema: dict[str, Any], value: object) -> list[str]:
    """What a schema of the document has against a value."""
    whole = {**schema, "components": document()["components"]}
    return [error.message for error in jsonschema.Draft202012Validator(whole).iter_errors(value)]


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


# ---- The document ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("root_path", "max_timeout_s"), [("", 120.0), ("/shots", 0.5)])
def test_document_is_valid_openapi(root_path: str, max_timeout_s: float) -> None:
    validate(document(root_path, max_timeout_s))


async def test_document_has_the_routes_of_the_application_and_no_others(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        rules = list(create_app(api.service).url_map.iter_rules())
    served = {(method, re.sub("<(.*?)>", r"{\1}", rule.rule)) for rule in rules for method in rule.methods or ()}
    of_root = {(method, path) for method, path in served if path.split("/")[1] not in REQUEST_CLASSES}
    described = {(method, path) for method, path, _ in operations()}
    assert described == {(method, path) for method, path in of_root if method not in ("HEAD", "OPTIONS")}
    for server in document()["servers"][1:]:
        assert {(method, server["url"] + path) for method, path in described if path != "/"} <= served


def test_operations_keep_their_ids() -> None:
    assert {operation["operationId"] for _, _, operation in operations()} == {
        *("create_job", "list_jobs", "read_job", "delete_job", "retry_job", "read_result", "read_output"),
        *("capture_body_screenshot", "capture_body_scrape", "capture_query_screenshot", "capture_query_scrape"),
        *("job_events", "all_events", "page", "live", "ready", "metrics", "openapi", "docs", "docs_file"),
    }


def test_document_is_the_same_each_time() -> None:
    text = openapi_document("", 120.0)
    openapi_document.cache_clear()
    assert openapi_document("", 120.0) == text


def test_root_path_is_part_of_the_servers() -> None:
    assert [server["url"] for server in document("/shots")["servers"]] == [
        "/shots",
        "/shots/screenshot",
        "/shots/scrape",
    ]


@pytest.mark.parametrize("name", [*(cls.__name__ for cls in REQUEST_CLASSES.values()), "RenderFields"])
def test_ceiling_of_the_settings_is_a_limit(name: str) -> None:
    timeout = document("", 2.5)["components"]["schemas"][name]["properties"]["timeout_ms"]
    assert timeout["maximum"] == 2500


def test_only_routes_that_ask_for_a_key_have_security() -> None:
    asking = {route.path for route in ROUTES if "unauthorized" in route.errors}
    assert {
        re.sub("{(.*?)}", r"<\1>", path) for _, path, operation in operations() if "security" in operation
    } == asking


def test_every_error_code_is_told() -> None:
    codes = document()["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"]
    assert set(codes) == {*HTTP_STATUS, *ERROR_CODES}
    told = {code for _, _, made in operations() for answer in made["responses"].values() for code in codes_of(answer)}
    assert set(codes) - told == {"method_not_allowed"}


# ---- Fields ----------------------------------------------------------------------------------------------------------


def limits_of(kind: Any) -> Iterator[Range | Length]:
    """All limits in a type, but for those of other classes."""
    if isinstance(kind, Range | Length):
        yield kind
    elif not attrs.has(kind) and get_origin(kind) is not Literal:
        for part in (*get_args(kind), *getattr(kind, "__metadata__", ())):
            yield from limits_of(part)


def numbers_in(schema: object) -> set[object]:
    """All numbers in a schema, but for those of other components and of defaults."""
    if isinstance(schema, dict):
        inner: list[object] = [value for name, value in schema.items() if name != "default"]
        return set().union(*map(numbers_in, inner))
    if isinstance(schema, list):
        return set().union(*map(numbers_in, schema))
    return {schema} if type(schema) in (int, float) else set()


def component_of(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = document()["components"]["schemas"][cls.__name__]
    return found


@pytest.mark.parametrize("cls", CLASSES)
def test_class_has_its_fields_with_texts_limits_and_defaults(cls: type) -> None:
    schema = component_of(cls)
    kinds = fields_of(cls)
    assert schema["properties"].keys() - {"milliseconds"} == kinds.keys()
    assert schema["additionalProperties"] is False
    for field in attrs.fields(cls):
        described, default = schema["properties"][field.name], field.default
        assert (field.name in schema.get("required", ())) is (default is attrs.NOTHING)
        if default is not attrs.NOTHING and not hasattr(default, "factory") and default not in (None, ()):
            default = attrs.asdict(default) if attrs.has(type(default)) else default
            assert described["default"] == json.loads(json.dumps(default))
        else:
            assert "default" not in described
        for limit in limits_of(kinds[field.name]):
            wanted = {value for value in attrs.astuple(limit) if value not in (None, 0, Length().maximum)}
            assert wanted <= numbers_in(described), field.name
        if field.name not in ("type", "request"):
            assert described["description"]


def values_for(kind: Any) -> Iterator[Any]:
    """Values at and beyond the limits of a field, of the right kind and of others."""
    yield from (
        None,
        True,
        False,
        0,
        1,
        -1,
        3,
        99,
        600,
        700,
        0.5,
        -0.5,
        10**9,
        -(10**9),
        "",
        "x",
        "a\0b",
        "Ä🦀",
        "auto",
    )
    yield from (
        "4xx",
        "4XX",
        "404",
        "6xx",
        "040",
        " ",
        "a=b; c=d",
        [],
        {},
        [[]],
        ["x"],
        ["4xx", 404],
        [1],
        [None],
        [{}],
    )
    yield from (
        {"selector": "a"},
        [{"selector": "a"}, "b"],
        {"name": "a"},
        [{"name": "a", "value": ""}],
        {"x": 1},
        {"y": "1"},
    )
    yield from (
        {"a": "b"},
        {"a b": "c"},
        {"a": 1},
        {"a": "ü"},
        {"a": "€"},
        {"wait_ms": 5},
        {"username": "", "password": ""},
    )
    yield from (
        {"width": 1},
        {"width": 1, "height": 1, "x": 0, "y": 0},
        {"latitude": 90, "longitude": 180},
        {"fit": "fill"},
    )
    yield from (
        [{"type": "click"}],
        [{"type": "wait", "milliseconds": 1}],
        [{"type": "write", "text": ""}],
        ["x"] * 101,
    )
    yield from (
        [{"type": "hover", "milliseconds": 1, "selector": "a"}],
        [{"type": "nap"}],
        [{"type": None}],
        [{"type": []}],
    )
    for limit in limits_of(kind):
        if isinstance(limit, Range):
            ends = [end for end in (limit.minimum, limit.maximum, limit.above) if end is not None]
            yield from (value for end in ends for value in (end, end - 1, end + 1, end + 0.5))
        else:
            lengths = {
                limit.minimum,
                max(0, limit.minimum - 1),
                min(limit.maximum, 10**6),
                min(limit.maximum + 1, 10**6),
            }
            yield from ("x" * length for length in lengths)
            yield from (["x"] * length for length in lengths if length < 10**4)
            yield from ({f"x{number}": "y" for number in range(length)} for length in lengths if length < 10**4)
    literal = bare_type(kind)
    if get_origin(literal) is Literal:
        yield from get_args(literal)
        yield list(get_args(literal))
        yield [get_args(literal)[0]] * 7


# Of fields that must be there.
NEEDED = {
    **dict.fromkeys(("selector", "text", "key", "value", "url", "script", "name", "username", "password"), "x"),
    **dict.fromkeys(("x", "y", "width", "height", "latitude", "longitude"), 1),
    "request": {},
}


@pytest.mark.parametrize("cls", CLASSES)
def test_field_by_itself_is_taken_by_schema_and_validation_or_by_neither(cls: type) -> None:
    schemas = Schemas({StatusPattern: STATUS_PATTERN}, ceilings={})
    schemas.of(cls)
    kinds = fields_of(cls)
    required = [field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING]
    needed = {name: get_args(kinds[name])[0] if name == "type" else NEEDED[name] for name in required}
    # (Types of actions have other names in a list of them; what a submission requests is more than its type says.)
    for name in kinds.keys() - {"type", *(["request"] if cls is Submission else [])}:
        property_of = schemas.components[cls.__name__]["properties"][name]
        schema = jsonschema.Draft202012Validator({**property_of, "components": {"schemas": schemas.components}})
        for value in values_for(kinds[name]):
            # JSON Schema takes 3.0 for an integer.
            if isinstance(value, float) and value.is_integer():
                continue
            # (Validation looks into this object before it looks at the request.)
            alone = name == "render" and isinstance(value, dict)
            taken = is_taken(value, RenderFields) if alone else is_taken({**needed, name: value}, cls)
            assert schema.is_valid(value) is taken, (name, str(value)[:100])


def is_taken(value: object, cls: type) -> bool:
    try:
        structure(value, cls)
    except ValidationError:
        return False
    return True


def test_query_has_its_fields_as_texts() -> None:
    for route in (route for route in ROUTES if route.query is not None):
        parameters = document()["paths"][re.sub("<(.*?)>", r"{\1}", route.path)]["get"]["parameters"]
        described = {one["name"]: one["schema"] for one in parameters if one["in"] == "query"}
        kinds = fields_of(route.query)
        flat = {name: kind for name, kind in kinds.items() if not attrs.has(bare_type(kind)) and name != "api_key"}
        inner = {
            f"{name}.{leaf}": kind
            for name, outer in kinds.items()
            if attrs.has(bare_type(outer))
            for leaf, kind in fields_of(bare_type(outer)).items()
        }
        assert described.keys() == flat.keys() | inner.keys()
        for name, kind in (flat | inner).items():
            assert "null" not in described[name].get("type", ()), name
            if bare_type(kind) in (int, float, str):
                assert {limit.maximum for limit in limits_of(kind)} - {None} <= numbers_in(described[name]), name


@pytest.mark.parametrize(
    ("query", "taken"),
    [
        ("url=example.com&viewport.width=800&full_page=true&quality=50", True),
        ('url=example.com&wait_for=h1&css=p{}&headers={"X-A":"1"}&fail_on_status=["4xx",500]', True),
        ("url=example.com&viewport.width=0", False),
        ("url=example.com&full_page=perhaps", False),
        ("url=example.com&format=gif", False),
        ("url=example.com&retries=6", False),
    ],
)
async def test_query_is_taken_by_schema_and_service_or_by_neither(tmp_path: Path, query: str, taken: bool) -> None:
    parameters = {one["name"]: one["schema"] for one in document()["paths"]["/v1/screenshot"]["get"]["parameters"]}
    texts = dict(pair.split("=", 1) for pair in query.split("&"))
    values = {
        name: json.loads(text) if re.fullmatch(r"-?[\d.]+|true|false", text) else text for name, text in texts.items()
    }
    assert all(not faults_of(parameters[name], value) for name, value in values.items()) is taken
    async with open_api(tmp_path) as api:
        assert (await api.client.get("/v1/screenshot", query_string=texts)).status_code == (200 if taken else 400)


# ---- Whole requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "example"), [(name, one) for name, given in EXAMPLES.items() for one in given])
async def test_example_is_taken(tmp_path: Path, name: str, example: dict[str, Any]) -> None:
    assert faults_of(ref(name), example) == []
    assert example in document()["components"]["schemas"][name]["examples"]
    async with open_api(tmp_path, Gate()) as api:
        if name == "Submission":
            assert (await api.post("/v1/jobs", example)).status_code == 202
        elif name == "Retry":
            structure(example, Retry)
        else:
            (service,) = [name_of for name_of, cls in REQUEST_CLASSES.items() if cls.__name__ == name]
            parse_request(service, example, api.service.config)


TAKEN: list[dict[str, Any]] = [
    {"url": URL, "html": None},
    {"html": "", "url": None},
    {"url": URL, "render": {"wait_ms": 5, "viewport": {"width": 1}, "timeout_ms": 120_000}},
    {"url": URL, "render": "auto", "geolocation": None, "wait_for": ["a", {"selector": "b", "state": "hidden"}]},
    {"url": URL, "cookies": ""},
    {"url": URL, "cookies": "; a=b;; c d = e=f ;"},
    {"url": URL, "cookies": "a=b", "headers": {"X-A": "ü"}, "css": "p {}", "js": ["1", "2"]},
    {"url": URL, "actions": [{"type": "write", "text": ""}, {"type": "wait", "milliseconds": 1}]},
    {"url": URL, "actions": [{"type": "scroll", "to": "bottom"}, {"type": "scroll", "by": {"y": -5}}]},
    {
        "url": URL,
        "actions": [{"type": "executeJavascript", "script": "1"}, {"type": "select", "selector": "a", "value": "b"}],
    },
    {"url": URL, "fail_on_status": [404, "5xx", "3XX"], "api_key": "x"},
]
REFUSED: list[Any] = [
    {},
    None,
    [],
    {"url": URL, "html": ""},
    {"url": None},
    {"url": ""},
    {"url": 5},
    {"url": URL, "unknown": 1},
    {"url": URL, "viewport": {"width": 7681}},
    {"url": URL, "viewport": {"size": 1}},
    {"url": URL, "viewport": None},
    {"url": URL, "timeout_ms": 120_001},
    {"url": URL, "timeout_ms": 0},
    {"url": URL, "render": "no"},
    {"url": URL, "render": {"url": URL}},
    {"url": URL, "wait_for": {"state": "visible"}},
    {"url": URL, "block_resources": ["images"]},
    {"url": URL, "headers": {"X A": "1"}},
    {"url": URL, "headers": {"X-A": 1}},
    {"url": URL, "cookies": [{"name": "a"}]},
    {"url": URL, "cookies": "a=b; c"},
    {"url": URL, "cookies": "=b"},
    {"url": URL, "css": ["p {}"] * 101},
    {"url": URL, "actions": [{"type": "fly"}]},
    {"url": URL, "actions": [{"type": "click"}]},
    {"url": URL, "actions": [{"type": "click", "selector": "a", "text": "b"}]},
    {"url": URL, "actions": [{"type": "hover", "selector": "a", "milliseconds": 1}]},
    {"url": URL, "fail_on_status": ["600"]},
    {"url": URL, "retries": 6},
    {"url": URL, "locale": "a\0b"},
]


@pytest.mark.parametrize("service", REQUEST_CLASSES)
@pytest.mark.parametrize(("request_of", "taken"), [*((one, True) for one in TAKEN), *((one, False) for one in REFUSED)])
def test_request_is_taken_by_schema_and_service_or_by_neither(
    service: Literal["screenshot", "scrape"], request_of: Any, taken: bool
) -> None:
    assert (faults_of(ref(REQUEST_CLASSES[service].__name__), request_of) == []) is taken
    assert (faults_of(ref("Submission"), {"request": request_of}) == []) is taken
    try:
        parse_request(service, request_of, Config())
    except ValidationError:
        assert not taken
    else:
        assert taken


# ---- Answers ---------------------------------------------------------------------------------------------------------


def codes_of(answer: dict[str, Any]) -> list[str]:
    """The error codes that an answer of the document may have."""
    return re.findall("`([a-z_]+)`", answer["description"]) if answer["description"].count(": `") else []


def strict(schema: Any) -> Any:
    """A schema that takes no members but those it names."""
    if isinstance(schema, dict):
        closed = {"additionalProperties": False} if schema.get("type") == "object" and "properties" in schema else {}
        return {name: strict(value) for name, value in schema.items()} | closed
    return [strict(one) for one in schema] if isinstance(schema, list) else schema


async def check(answer: Response, method: str, path: str) -> Any:
    """The body of an answer, which must be as the document says."""
    described = document()["paths"][path][method.lower()]["responses"][str(answer.status_code)]
    if "content" not in described:
        return await answer.get_data()
    content = described["content"][answer.mimetype]
    if answer.mimetype != "application/json":
        return await answer.get_data()
    body = await answer.get_json()
    whole = {**content.get("schema", {}), "components": strict(document()["components"])}
    jsonschema.Draft202012Validator(whole).validate(body)
    if answer.status_code >= 400:
        assert body["error"]["code"] in codes_of(described)
    return body


async def test_answers_of_a_job_are_as_described(tmp_path: Path) -> None:
    gate = Gate()
    async with open_api(tmp_path, gate) as api:
        running, queued = [await api.submit(url=f"{URL}{number}", outputs=["html", "links"]) for number in range(2)]
        await api.pool.reached(1)
        for job in (running, queued):
            assert (await check(await api.get(f"/v1/jobs/{job.id}"), "GET", "/v1/jobs/{job_id}"))["status"] == job.state
        await check(await api.get(f"/v1/jobs/{queued.id}/result"), "GET", "/v1/jobs/{job_id}/result")
        await check(await api.client.delete(f"/v1/jobs/{queued.id}"), "DELETE", "/v1/jobs/{job_id}")
        await check(await api.get(f"/v1/jobs/{queued.id}"), "GET", "/v1/jobs/{job_id}")
        await check(await api.get(f"/v1/jobs/{queued.id}/result"), "GET", "/v1/jobs/{job_id}/result")
        assert len((await check(await api.get("/v1/jobs"), "GET", "/v1/jobs"))["jobs"]) == 2
        answer = await api.post(f"/v1/jobs/{running.id}/retry", {})
        assert answer.status_code == 409
        await check(answer, "POST", "/v1/jobs/{job_id}/retry")
        again = await check(await api.post(f"/v1/jobs/{queued.id}/retry", {}), "POST", "/v1/jobs/{job_id}/retry")
        await check(await api.client.delete(f"/v1/jobs/{again['job_id']}"), "DELETE", "/v1/jobs/{job_id}")


async def test_answers_of_an_ended_job_are_as_described(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        shot = await api.ended("screenshot", actions=[{"type": "screenshot", "name": "first"}])
        scraped = await api.ended("scrape", outputs=["html", "text", "links", "metadata", "screenshot"])
        for job in (shot, scraped):
            await check(await api.get(f"/v1/jobs/{job.id}"), "GET", "/v1/jobs/{job_id}")
            await check(await api.get(f"/v1/jobs/{job.id}/result"), "GET", "/v1/jobs/{job_id}/result")
            await check(await api.get(f"/v1/jobs/{job.id}/events"), "GET", "/v1/jobs/{job_id}/events")
        for name in ("text", "links", "screenshot", "none"):
            answer = await api.get(f"/v1/jobs/{scraped.id}/result/{name}")
            assert answer.status_code == (404 if name == "none" else 200)
            await check(answer, "GET", "/v1/jobs/{job_id}/result/{name}")
        for headers, status in (({"Range": "bytes=0-1"}, 206), ({"Range": "bytes=999999-"}, 416)):
            answer = await api.get(f"/v1/jobs/{shot.id}/result", **headers)
            assert answer.status_code == status
            await check(answer, "GET", "/v1/jobs/{job_id}/result")
        for service in REQUEST_CLASSES:
            for accept in ("application/json", "image/*, text/html"):
                answer = await api.post(f"/v1/{service}", {"url": URL}, Accept=accept)
                assert answer.status_code == 200
                await check(answer, "POST", f"/v1/{service}")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/jobs", {}, 401),
        (
            "POST",
            "/v1/jobs",
            {"request": {"url": URL, "api_key": "secret" * 4, "quality": 0}, "service": "scrape"},
            400,
        ),
        ("POST", "/v1/jobs", b"{", 400),
        ("POST", "/v1/jobs", b" " * 2000, 413),
        ("POST", "/v1/jobs", "text", 415),
        (
            "POST",
            "/v1/jobs",
            {"request": {"url": "http://10.0.0.1", "api_key": "secret" * 4}, "service": "scrape"},
            400,
        ),
        ("GET", "/v1/jobs", None, 401),
        ("GET", "/v1/jobs/{job_id}", None, 404),
        ("DELETE", "/v1/jobs/{job_id}", None, 401),
        ("POST", "/v1/jobs/{job_id}/retry", None, 401),
        ("GET", "/v1/jobs/{job_id}/events", None, 404),
        ("GET", "/v1/events", None, 401),
        ("GET", "/v1/scrape", None, 401),
        ("POST", "/v1/screenshot", {"url": "http://10.0.0.1", "api_key": "secret" * 4}, 400),
        ("GET", "/docs/{name}", None, 404),
    ],
)
async def test_refusal_is_as_described(tmp_path: Path, method: str, path: str, body: Any, status: int) -> None:
    async with open_api(tmp_path, api_key="secret" * 4, max_body=1024) as api:
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        kind = {"Content-Type": "text/plain" if body == "text" else "application/json"}
        answer = await api.client.open(path, method=method, data=data, headers=kind)
        assert answer.status_code == status
        await check(answer, method, path)


@pytest.mark.parametrize("path", [route.path for route in ROUTES if route.method == "GET" and route.path[:4] != "/v1/"])
async def test_answer_of_the_service_itself_is_as_described(tmp_path: Path, path: str) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.get(path.replace("<name>", "start.js"))
        assert answer.status_code == 200
        await check(answer, "GET", re.sub("<(.*?)>", r"{\1}", path))


async def test_document_is_served_with_the_settings(tmp_path: Path) -> None:
    async with open_api(tmp_path, root_path="/shots", max_timeout=60.0) as api:
        answer = await api.get("/openapi.json")
        assert await answer.get_data(as_text=True) == openapi_document("/shots", 60.0)
        assert answer.mimetype == "application/json"


# ---- Who reads it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/screenshot"])
@pytest.mark.parametrize("name", DOCS_FILES)
async def test_docs_have_their_files(tmp_path: Path, prefix: str, name: str) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.get(f"{prefix}/docs/{name}")
        assert (answer.status_code, answer.mimetype) == (200, DOCS_FILES[name])
        assert len(await answer.get_data()) > 50
        assert name == "start.js" or name in (await (await api.get("/docs")).get_data(as_text=True))


@pytest.mark.parametrize(
    "path",
    ["/docs/", "/docs/..%2fcleariflow.py", "/docs/%2e%2e", "/docs/../docs", "/docs/index.css", "/docs/x/start.js"],
)
async def test_docs_have_no_other_files(tmp_path: Path, path: str) -> None:
    async with open_api(tmp_path) as api:
        assert (await api.get(path)).status_code == 404


async def test_docs_let_nothing_run_but_their_own_files(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        policy = (await api.get("/docs")).headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "unsafe" not in policy
    # These are not in default-src.
    assert {"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))


async def test_docs_show_the_operations_in_a_browser(tmp_path: Path, page: cdp.Page) -> None:
    told = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.requestWillBeSent")
    async with served(tmp_path) as server:
        with page.session.subscribe(*told) as events, trio.fail_after(30):
            for domain in ("Runtime", "Log"):
                await page.session.send(f"{domain}.enable")
            root = f"http://127.0.0.1:{server.port}/scrape"
            await page.prepare(PageOptions(url=f"{root}/docs"))
            await page.navigate(f"{root}/docs")
            await page.wait_for(options.WaitFor(".opblock"))
            await page.wait_for_expression(
                "document.querySelector('.opblock-post .opblock-summary-control').click() || true"
            )
            await page.wait_for(options.WaitFor(".model-example"))
            shown = await page.text()
            # What comes after it has come after all that it caused.
            await page.session.send("Runtime.evaluate", expression="console.debug('end')")
            urls = []
            async for event in events:
                params = event.params()
                if event.method == "Runtime.consoleAPICalled" and params["type"] == "debug":
                    break
                assert event.method == "Network.requestWillBeSent", params
                urls.append(params["request"]["url"])
    for method, path, operation in operations():
        assert method in shown
        assert path in shown
        assert operation["summary"] in shown
    assert {url for url in urls if not url.startswith("data:")} == {
        f"{root}/{name}"
        for name in ("docs", "openapi.json", *(f"docs/{name}" for name in DOCS_FILES if not name.endswith(".png")))
    }


class ReadyPage(FakePage):
    """One that takes every request, and waits for nothing."""

    async def set_content(self, html: str, base_url: str | None, *, wait_until: str) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_for_expression(self, expression: str) -> None:
        await trio.lowlevel.checkpoint()

    async def scroll_through(self, max_height: int | None = None) -> None:
        await trio.lowlevel.checkpoint()

    async def sleep(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()


class ReadyPool(FakePool):
    @asynccontextmanager
    async def open_page(self) -> AsyncIterator[FakePage]:
        yield ReadyPage(self)


async def run_schemathesis(folder: Path, url: str, *arguments: str) -> None:
    """Drive a service by its description; fails with what is found.

    Left out: a stream that never ends; that valid data are taken (what is between fields makes them be refused); that
    what was deleted is gone (a job that was cancelled is not).
    """
    described = folder / "openapi.json"
    async with httpx.AsyncClient(trust_env=False) as client:
        described.write_text((await client.get(f"{url}/openapi.json")).text)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", str(described), "--url", url, "--no-color"),
        *("--exclude-path", "/v1/events", "--exclude-checks", "positive_data_acceptance,use_after_free"),
        *("--generation-deterministic", *arguments),
    ]
    done = await trio.run_process(command, cwd=folder, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    text = done.stdout.decode()
    assert done.returncode == 0, text
    assert "exclude-method" in " ".join(arguments) or f"Selected: {len(ROUTES) - 1}/{len(ROUTES)}" in text


async def test_service_does_what_its_description_says(tmp_path: Path) -> None:
    async with open_api(tmp_path / "data", pool=ReadyPool()) as api, serve_api(api) as server:
        phases = ("--phases", "examples,fuzzing,stateful", "--max-examples", "1")
        await run_schemathesis(tmp_path, f"http://127.0.0.1:{server.port}", *phases)


@pytest.mark.slow
@pytest.mark.parametrize(
    "phases",
    [
        ("--phases", "examples,fuzzing,stateful"),
        # (Of bodies it takes hours: texts of a mebibyte each.)
        ("--phases", "coverage", "--exclude-method", "POST"),
    ],
)
async def test_real_service_does_what_its_description_says(tmp_path: Path, phases: tuple[str, ...]) -> None:
    async with open_server(tmp_path / "data") as server:
        # A request may wait for its `timeout_ms`.
        await run_schemathesis(tmp_path, server.url, *phases, "--max-time", "60", "--request-timeout", "125")
        assert not [line for line in server.log if "Traceback" in line]


# A whole job by a client that `openapi-python-client` made.
CLIENT_SCRIPT = """
import sys
from made_client import Client
from made_client.api.jobs import capture_body_scrape, create_job, read_job, read_result
from made_client.models import Click, ClickType, Error, ScrapeRequest, ScreenshotRequest, ScreenshotRequestFormat
from made_client.models import Submission, SubmissionServiceType0

with Client(base_url=sys.argv[1], timeout=60) as client:
    wanted = ScreenshotRequest(
        html="<button onclick='document.title = 7'>go</button>",
        format_=ScreenshotRequestFormat.PNG,
        actions=[Click(type_=ClickType.CLICK, selector="button")],
    )
    submission = Submission(request=wanted, service=SubmissionServiceType0.SCREENSHOT)
    submitted = create_job.sync(client=client, body=submission)
    job = read_job.sync(submitted.job_id, client=client, wait=60)
    assert (job.status, job.result.meta.title, job.result.meta.width) == ("done", "7", 1280), job
    assert job.result.image_base64.startswith("iVBOR")
    assert read_result.sync_detailed(submitted.job_id, client=client).content.startswith(b"\\x89PNG")
    result = capture_body_scrape.sync(client=client, body=ScrapeRequest(html="<p>Hello</p>"))
    assert "<p>Hello</p>" in result.html
    refused = capture_body_scrape.sync(client=client, body=ScrapeRequest(url="ftp://example.com"))
    assert isinstance(refused, Error) and refused.error.faults[0].field == "url", refused
"""


@pytest.mark.slow
async def test_client_made_of_the_description_does_a_whole_job(tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(document()))
    make = [
        *("openapi_python_client", "generate", "--path", "openapi.json", "--output-path", "made_client"),
        *("--meta", "none", "--fail-on-warning"),
    ]
    # (It would have ruff format what it made.)
    (tmp_path / "settings.yaml").write_text("post_hooks: []")
    await trio.run_process([sys.executable, "-m", *make, "--config", "settings.yaml"], cwd=tmp_path)
    async with open_server(tmp_path / "data") as server:
        await trio.run_process([sys.executable, "-c", CLIENT_SCRIPT, server.url], cwd=tmp_path)
