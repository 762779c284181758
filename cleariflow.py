# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "attrs>=24.3",
#     "cattrs>=25.1",
#     "certifi>=2025.1.31",
#     "click>=8.1",
#     "flask-swagger-ui>=5.21",
#     "h11>=0.16,<0.17",
#     "hypercorn>=0.18,<0.19",
#     "imagesize>=2.0",
#     "justhtml>=3.16,<3.17",
#     "prometheus-client>=0.22",
#     "quart>=0.20",
#     "quart-trio>=0.12",
#     "tinydb>=4.8,<5",
#     "trio>=0.30",
#     "trio-websocket>=0.12",
#     "webencodings>=0.5.1",
# ]
# ///
"""Cleariflow: a self-hosted service that turns web pages into pictures and documents.

    python cleariflow.py                                    serve on http://127.0.0.1:8000
    python cleariflow.py screenshot URL -o page.png         pictures, without a server
    python cleariflow.py scrape URL                         documents, without a server
    async with cleariflow.open_service(config) as service:  inside any trio program

The life of a job: a request is parsed into a frozen value (every fault named), becomes a `Job` in state `queued`, is
put into the store and the schedule in one synchronous step, and is acknowledged once it is on disk. A worker takes it,
opens a page in its own browser context, and makes one attempt under one cancel scope. The artifact is written to a
file, then the job is `done` or `failed`, and whoever waits for it is woken. What knows the browser is in `cdp`.

Invariants
    I1  A job's state changes in `transition` only, along `JOB_TRANSITIONS`.
    I2  Memory is the truth while running; the disk holds every acknowledged change. There is no await between a change
        of a job and its `store.put`.
    I3  A queued job is in the schedule; a running one has exactly one worker; an ended one is in neither.
    I4  `done` implies that its artifact is complete on disk.
    I5  Every await on a page is under the attempt's deadline; what cleans up is shielded and bounded.
    I6  Nothing of the client's secrets (key, cookies, headers, auth) is logged, or kept once its job has ended; the
        journal's older lines lose them within `SCRUB_S`. Only what is set aside as damaged is left as it is.

Sections: constants, errors, log, configuration, requests, jobs and transitions, policies, keys, schedule, journal file,
journal storage, store, attempt, events, counts, service, metrics, HTTP messages, HTTP handlers, openapi, HTTP
application, HTTP server, doctor, captures without a server, command line.
"""

from __future__ import annotations

import argparse
import base64
import codecs
import contextlib
import ctypes
import enum
import errno
import fcntl
import fnmatch
import functools
import gc
import hashlib
import heapq
import hmac
import importlib.resources
import inspect
import ipaddress
import itertools
import json
import logging
import math
import os
import re
import resource
import secrets
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
import types
import uuid
import zlib
from collections import Counter, deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, cast, get_args
from urllib.parse import parse_qsl, unquote

import attrs
import h11
import hypercorn
import hypercorn.trio.run
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import TrioSingleTask
from hypercorn.typing import ASGIFramework
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from quart import Response, request, send_file
from quart_trio import QuartTrio
from quart_trio.wrappers.response import TrioFileBody, TrioIterableBody
from tinydb.storages import Storage
from tinydb.table import Document, Table
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException, RequestedRangeNotSatisfiable

import cdp
from cdp import doctor
from cdp.actions import action_faults
from cdp.devices import names as device_names
from cdp.doctor import Finding
from cdp.egress import FailureKind, Ledger
from cdp.emulation import viewport_of
from cdp.fetch import fetch
from cdp.files import named, write_whole
from cdp.network import credentials_of, endpoint_of, parse_url, without_credentials
from cdp.options import (
    Auth,
    CaptureOptions,
    Goto,
    Length,
    OutputName,
    PageOptions,
    Range,
    RenderOptions,
    ScrapeOptions,
    Shoot,
    WaitFor,
)
from cdp.page import MAX_REPORTED_CHARS
from cdp.pool import OpenPage, Retirement
from cdp.proxy import Proxy
from cdp.schema import NULL, Schema, Schemas, ref, shape
from cdp.scrape import Part, has_scripts, scrape_document, scrape_page, title_of
from cdp.tasks import in_thread, open_tasks
from cdp.terminal import Display, write_out
from cdp.texts import add_flags, nested, printable, value_of, with_values
from cdp.validation import (
    MAX_ECHO,
    MAX_FAULTS,
    Fault,
    ValidationError,
    bare_type,
    capture_faults,
    converter,
    fields_of,
    kind_of,
    load_json,
    nearest,
    page_faults,
    strict,
    structure,
    valid_part,
)
from cdp.visit import PHASES, Progress, Visit

logger = logging.getLogger("cleariflow")

# The only place (pyproject.toml reads it here).
__version__ = "0.1.0"

# ---------------------------------------------------------------- constants

# An attempt lost by us (browser ended, service restarted) is made again this often; after that the job fails.
LOSSES_ALLOWED = 3
# With `on_timeout: capture` the capture itself has this much more.
LATE_CAPTURE_S = 5.0
# A synchronous call that comes while the first browser starts waits for it this long.
BROWSER_START_S = 30.0
# Longest long-poll; a longer wait counts as this.
MAX_WAIT_S = 60.0
# Of all queued requests as JSON: memory has each twice, and the disk.
MAX_QUEUED_CHARS = 2**28
# `position` is worked out anew at most this often: it costs a sort of the queue.
POSITION_AGE_S = 1.0
LIST_LIMIT = 1000
# What happened last, for streams of events that are slow or come again; a small job makes about twenty.
EVENTS_KEPT = 4096
# A stream on which nothing happens says so: who stands between would close it.
KEEP_ALIVE_S = 15.0
# Open at once: each event costs 0.2 ms for each.
MAX_STREAMS = 256

# Bounds of a connection. Without a request, or with half the head of one, it is closed after this.
IDLE_S = 5.0
# Half a body is refused (408) after this.
BODY_S = 60.0
# A client that takes no bytes for this long is cut off; an answer as a whole must go out within ANSWER_S and the time
# its bytes take at the slowest rate.
USER_TIMEOUT_MS = 5000
ANSWER_S = 60.0
SLOWEST_BYTES_PER_S = 2**14
# A thousand long-polls, several times over; 40 KB each. One more takes the place of the one idle for longest, or is
# closed where none is idle.
MAX_CONNECTIONS = 4096
# Open files that connections leave to browsers and the store, and to each page: two for each connection of its own, and
# 64 that are being made.
FILES_KEPT = 512
FILES_OF_A_PAGE = 320
BACKLOG = 1024
MAX_KEY_CHARS = 4096
# A shorter key may be found by trying.
GUESSED_CHARS = 16
# Answers are read, encoded and sent in pieces of this; a multiple of 3, as base64 has no padding inside.
PIECE_BYTES = 3 * 2**16
# Of all bodies above the second size that are being read.
MAX_BODIES_BYTES = 2**28
SMALL_BODY_BYTES = 2**16
# Request line and headers, and how many headers there are.
MAX_HEAD_BYTES = 2**16
MAX_HEADERS = 100
MAX_ACCEPT_BYTES = 1000
# Between two returns of freed memory to the system; one takes up to 50 ms.
TRIM_S = 10.0
# Open connections have this long to take the answers that are ready when the service stops.
HTTP_GRACE_S = 1.0

# ---------------------------------------------------------------- errors


class ConfigError(ValidationError):
    """Settings that cannot be used."""


class ServiceError(Exception):
    """A refusal by the service; `code` is one of the contract's (api.md section 4)."""

    def __init__(self, code: str, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


class JobFailed(Exception):
    """Why a job's attempt gave no result; `code` is one of `ERROR_CODES`."""

    def __init__(self, code: str, message: str, *, retryable: bool | None = None, index: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        # Of the action that failed.
        self.index = index
        self.retryable = ERROR_CODES[code] if retryable is None else retryable


INTERNAL_ERROR = "internal error; the service's log has its cause"
# The contract's codes of failed jobs and whether trying again can help; RETRYABLE_NET_ERRORS says when for navigations.
ERROR_CODES = {
    "invalid_request": False,
    "blocked_target": False,
    "navigation_failed": False,
    "http_error": False,
    "timeout": True,
    "selector_not_found": False,
    "action_failed": False,
    "script_error": False,
    "not_a_page": False,
    "too_large": False,
    "page_crashed": True,
    "browser_lost": True,
    "cancelled": False,
    "worker_lost": True,
    "internal": True,
}

# ---------------------------------------------------------------- log

# Whose attempt this task, and whatever it starts, works for.
WORKING_FOR: ContextVar[Job | None] = ContextVar("working_for", default=None)
# What a line tells beside its message: `extra` of the log's calls.
LOG_FIELDS = ("job_id", "service", "attempt", "state", "code", "elapsed_ms")


def about(job: Job) -> dict[str, Any]:
    """`extra` of a line about a job."""
    return {"job_id": job.id, "service": job.service, "attempt": job.attempts or None}


def note_job(record: logging.LogRecord) -> bool:
    """A filter that lets every line pass, and adds to those from inside an attempt which job they are about."""
    job = WORKING_FOR.get()
    if job is not None and not hasattr(record, "job_id"):
        record.__dict__.update(about(job))
    return True


# Of loggers, not of a handler: a program that embeds the service has handlers of its own.
logger.addFilter(note_job)
logging.getLogger("cdp").addFilter(note_job)


class LineFormatter(logging.Formatter):
    """One line an event, as text or as a JSON object, with its job's id; below a text its traceback, indented."""

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self._as_json = log_format == "json"

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        known = {field: getattr(record, field, None) for field in LOG_FIELDS}
        traceback = self.formatException(record.exc_info) if record.exc_info else None
        if self._as_json:
            line = {
                "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
                **known,
                "traceback": traceback,
            }
            return json.dumps({name: value for name, value in line.items() if value is not None})
        job = f"job {known['job_id']}: " if known["job_id"] else ""
        text = printable(f"{self.formatTime(record)} {record.levelname:7} {job}{record.getMessage()}")
        return "\n    ".join([text, *map(printable, traceback.splitlines() if traceback else ())])


def set_up_logging(log_format: str, level: int) -> None:
    """All logs to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(log_format))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # They log each connection and message.
    for name in ("hypercorn", "trio-websocket", "quart"):
        logging.getLogger(name).setLevel(logging.WARNING)


# ---------------------------------------------------------------- configuration


@attrs.frozen(kw_only=True)
class Config:
    """Every setting: a flag, and an environment variable named `CLEARIFLOW_` and the flag in capitals."""

    host: Annotated[str, "address to listen on; a non-loopback one needs API keys, or --open"] = "127.0.0.1"
    port: Annotated[int, Range(0, 65535), "port to listen on; 0: a free one"] = 8000
    open: Annotated[bool, "serve everybody who can reach the port without any key, by every Host name"] = False
    api_key: (
        Annotated[str, Length(1, MAX_KEY_CHARS), "one key for both services; the others are made by `keys add`"] | None
    ) = attrs.field(default=None, repr=False)
    data_dir: Annotated[str, Length(1), "folder of the store and the artifacts"] = "./cleariflow-data"
    workers: Annotated[int, Range(1, 256), "attempts at once; default: number of cores"] = attrs.field(
        factory=lambda: os.cpu_count() or 1
    )
    browser: Annotated[str, Length(1), "the Chromium to launch: a path or a name on PATH"] | None = None
    browsers: Annotated[int, Range(1, 64), "how many browsers to keep running"] = 1
    pages_ahead: (
        Annotated[int, Range(0, 256), "pages to keep open for jobs that come; default: as many as workers"] | None
    ) = None
    browser_arg: Annotated[tuple[str, ...], "one more switch for the browser; repeatable"] = ()
    browser_uses: Annotated[int, Range(0), "pages after which a browser is replaced; 0: never"] = 1000
    browser_memory: (
        Annotated[int, Range(2**28), "bytes that a browser may hold; default: half of this machine's, shared by all"]
        | None
    ) = None
    browser_idle: Annotated[float, Range(0), "seconds unused after which browsers are closed; 0: never"] = 0.0
    allow_host: Annotated[tuple[str, ...], "glob of Host names to accept; repeatable"] = ()
    root_path: Annotated[str, "path prefix behind a reverse proxy"] = ""
    allow_network: Annotated[
        tuple[str, ...],
        "CIDR or host, each with :port or without, that pages may reach beyond the internet; repeatable",
    ] = ()
    ca_file: Annotated[str, Length(1), "PEM file of authorities that are trusted beside the public ones"] | None = None
    proxy: (
        Annotated[str, Length(1), "proxy for all pages: http://[user:password@]host:port, or socks5://..."] | None
    ) = attrs.field(default=None, repr=False)
    proxy_dns: Annotated[bool, "leave host names to the proxy, and with them what they lead to"] = False
    max_traffic: Annotated[int, Range(0), "bytes that one attempt may send and receive; 0: no limit"] = 512 * 2**20
    queue_limit: Annotated[int, Range(1, 1_000_000), "queued jobs; more are refused with 429"] = 10_000
    result_ttl: Annotated[float, Range(1), "seconds that ended jobs and their artifacts are kept"] = 86_400.0
    disk_budget: Annotated[int, Range(1), "bytes of artifacts; above, those that ended first go"] = 10 * 2**30
    max_body: Annotated[int, Range(1024), "bytes of a request body"] = 5 * 2**20
    max_timeout: Annotated[float, Range(above=0, maximum=3600), "seconds; ceiling of timeout_ms"] = 120.0
    max_pixels: Annotated[int, Range(1), "width x height x scale squared of one picture"] = cdp.capture.MAX_PIXELS
    grace: Annotated[float, Range(0, 3600), "seconds that SIGTERM waits for running attempts"] = 20.0
    log_format: Annotated[Literal["text", "json"], "one line per event"] = "text"

    @property
    def keys_file(self) -> Path:
        """Where the API keys are."""
        return Path(self.data_dir) / "keys.json"

    @property
    def policy(self) -> cdp.AddressPolicy:
        """What pages may reach; a new value each time."""
        proxy = Proxy.parse(self.proxy, resolves=self.proxy_dns) if self.proxy is not None else None
        return cdp.AddressPolicy.parse(self.allow_network, proxy=proxy, max_bytes=self.max_traffic or None)

    @property
    def authorities(self) -> cdp.Authorities | None:
        """Those of `ca_file`, read anew each time. Raises ValueError."""
        return cdp.Authorities.read(Path(self.ca_file)) if self.ca_file is not None else None

    @property
    def browser_limits(self) -> cdp.Limits:
        """When a browser is replaced."""
        return cdp.Limits(
            uses=self.browser_uses or None,
            memory_bytes=self.browser_memory or cdp.memory_bytes() // 2 // self.browsers,
            idle_s=self.browser_idle or None,
        )


ENV_PREFIX = "CLEARIFLOW_"


def load_config(
    flags: Mapping[str, object] = types.MappingProxyType({}),
    environ: Mapping[str, str] | None = None,
    *,
    serves: bool = True,
) -> Config:
    """The configuration of flags (texts, lists of texts, booleans; None is not given) over environment variables.

    `serves` is for a server, which must not be open to others by oversight. Raises ConfigError naming all faults.
    """
    config, faults = read_config(flags, environ, serves=serves)
    if faults:
        raise ConfigError(faults)
    return config


def read_config(
    flags: Mapping[str, object], environ: Mapping[str, str] | None = None, *, serves: bool = True
) -> tuple[Config, list[Fault]]:
    """As `load_config`, with the faults: settings that are of the wrong type or out of range have their defaults."""
    environ = os.environ if environ is None else environ
    known = fields_of(Config)
    values: dict[str, Any] = {}
    faults = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in known or variable != variable.upper():
            variables = [ENV_PREFIX + setting.upper() for setting in known]
            faults.append(Fault(variable, f"unknown setting{nearest(variable.upper(), variables)}"))
        else:
            is_list = bare_type(known[name]) == tuple[str, ...]
            try:
                values[name] = shlex.split(text) if is_list else value_of(text, known[name])
            except ValueError as error:
                faults.append(Fault(variable, f"cannot be split: {error}"))
    for name, value in flags.items():
        if name in known and value is not None:
            values[name] = value_of(value, known[name]) if isinstance(value, str) else value
    try:
        config = structure(values, Config)
    except ValidationError as error:
        faults += [_named_setting(fault) for fault in error.faults]
        config = valid_part(values, Config)
    faults += [_named_setting(fault) for fault in _config_faults(config)]
    if serves:
        faults += _entry_faults(config)
    return config, faults


def _named_setting(fault: Fault) -> Fault:
    name = fault.field.partition("[")[0]
    if name not in flag_settings():
        return Fault(ENV_PREFIX + name.upper(), fault.message)
    return Fault(f"--{name.replace('_', '-')} ({ENV_PREFIX}{name.upper()})", fault.message)


def flag_settings() -> dict[str, Any]:
    """The settings that have flags: not the key, which the list of processes would show."""
    return {name: kind for name, kind in fields_of(Config).items() if name != "api_key"}


def _entry_faults(config: Config) -> list[Fault]:
    """What is wrong with the keys, and whether they are needed and not there."""
    try:
        usable = Keys(config).usable
    except ConfigError as error:
        return error.faults
    if config.open or usable or _is_loopback(config.host):
        return []
    folder = config.keys_file.parent
    way = f"set CLEARIFLOW_API_KEY, make a key in {folder} (cleariflow keys add NAME), or add --open"
    reached = f"{config.host!r} can be reached by others, who could use every network of this host: {way}"
    return [_named_setting(Fault("host", reached))]


def _config_faults(config: Config) -> Iterator[Fault]:
    if config.api_key is not None and not re.fullmatch("[!-~]+", config.api_key):
        yield Fault("api_key", "must be printable ASCII without spaces: headers carry nothing else")
    if config.root_path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", config.root_path):
        yield Fault("root_path", "must look like /prefix, without a slash at its end")
    try:
        cdp.AddressPolicy.parse(config.allow_network)
    except ValueError as error:
        yield Fault("allow_network", str(error).removeprefix("--allow-network: "))
    try:
        _ = config.authorities
    except ValueError as error:
        yield Fault("ca_file", str(error))
    if config.proxy is not None:
        try:
            Proxy.parse(config.proxy)
        except ValueError as error:
            yield Fault("proxy", str(error))
    elif config.proxy_dns:
        yield Fault("proxy_dns", "needs --proxy")


def _is_loopback(host: str) -> bool:
    address = _address_of(host)
    return address.is_loopback if address is not None else host == "localhost"


def _address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# ---------------------------------------------------------------- requests


Render = Literal[True, False, "auto"]
RENDER_TEXT = (
    "true: in a browser; false: without JavaScript, and a scrape without any browser; auto: a scrape of a document "
    "without scripts needs no browser; an object: fields of waiting and emulation, as at top level"
)
# What a screenshot's picture is called beside those of its actions.
PICTURE = "image"


@attrs.frozen
class StatusPattern:
    """A status of `fail_on_status`: 404, or all that begin alike, `4xx`."""

    text: str

    def fits(self, status_code: int) -> bool:
        """Whether a status is one of these."""
        return str(status_code) == self.text or f"{status_code // 100}xx" == self.text


def _status_pattern(value: object, _: Any) -> StatusPattern:
    text = str(value).lower() if type(value) in (int, str) else ""
    if not re.fullmatch("[1-5]([0-9]{2}|xx)", text):
        raise ValueError("must be a status such as 404, or a class of them such as 4xx")
    return StatusPattern(text)


converter.register_structure_hook(StatusPattern, _status_pattern)


@attrs.frozen(kw_only=True, slots=False)
class RenderFields(RenderOptions):
    """What an object of `render` may hold."""

    timeout_ms: Annotated[int, Range(1), "for the whole attempt, queue excluded"] = 30_000
    on_timeout: Annotated[Literal["fail", "capture"], "capture: the best result so far, with warnings"] = "fail"


@attrs.frozen(kw_only=True, slots=False)
class BaseRequest(PageOptions, RenderFields):
    """What both services take."""

    api_key: Annotated[str, Length(1, MAX_KEY_CHARS), "the key; also taken from the headers and the query"] | None = (
        attrs.field(default=None, repr=False)
    )
    render: Annotated[Render, RenderFields, RENDER_TEXT] = True
    fail_on_status: Annotated[
        tuple[StatusPattern, ...], Length(0, 100), 'HTTP statuses that fail the job, such as `["4xx", 500]`'
    ] = ()
    retries: Annotated[int, Range(0, 5), "further attempts after a retryable failure that the page caused"] = 0


@attrs.frozen(kw_only=True, slots=False)
class ScreenshotRequest(BaseRequest, CaptureOptions):
    """A picture of a page."""


@attrs.frozen(kw_only=True, slots=False)
class ScrapeRequest(BaseRequest, ScrapeOptions):
    """A page's document, in one or several forms."""


Request = ScreenshotRequest | ScrapeRequest
ServiceName = Literal["screenshot", "scrape"]
REQUEST_CLASSES: dict[ServiceName, type[Request]] = {"screenshot": ScreenshotRequest, "scrape": ScrapeRequest}
# Wiped from the store when the job ends; and so are the documents and scripts that are longer than this: 5 MiB in each
# of a day's jobs would fill the memory.
SECRET_FIELDS = ("cookies", "headers", "auth")
KEPT_FIELD_CHARS = 2048


def parse_request(service: ServiceName, given: object, config: Config) -> Request:
    """The request that a JSON value stands for, its URLs canonical.

    Raises ValidationError with every fault, those of fields and those between them.
    """
    cls = REQUEST_CLASSES[service]
    if not isinstance(given, dict):
        raise ValidationError([Fault("request", f"must be an object, not {kind_of(given)}")])
    given, inner, faults = _flattened(given)
    if (ceiling_ms := int(config.max_timeout * 1000)) < attrs.fields(cls).timeout_ms.default:
        given.setdefault("timeout_ms", ceiling_ms)
    try:
        parsed = structure(given, cls)
    except ValidationError as error:
        # Those between fields are told in the same answer.
        faults, parsed = faults + error.faults, valid_part(given, cls)
    faults += [fault for fault in _request_faults(parsed, given, config) if fault not in faults]
    if faults:
        places = {name: f"render.{name}" for name in inner}
        first = re.compile(r"[^.\[]*")
        raise ValidationError(
            [
                Fault(first.sub(lambda name: places.get(name[0], name[0]), fault.field, 1), fault.message)
                for fault in faults
            ]
        )
    url = parse_url(parsed.url) if parsed.url is not None else None
    # What stands in a URL would be shown with it.
    credentials = credentials_of(url) if url is not None else None
    return attrs.evolve(
        parsed,
        url=without_credentials(url) if url is not None else None,
        base_url=without_credentials(parse_url(parsed.base_url)) if parsed.base_url is not None else None,
        auth=Auth(*credentials) if credentials is not None else parsed.auth,
        actions=tuple(
            attrs.evolve(action, url=parse_url(action.url)) if isinstance(action, Goto) else action
            for action in parsed.actions
        ),
    )


def _flattened(given: Mapping[str, Any]) -> tuple[dict[str, Any], set[str], list[Fault]]:
    """The request with the fields of a `render` object at top level, where one there wins.

    Also which came from it, and a fault for each of its that is unknown.
    """
    inner = given.get("render")
    if not isinstance(inner, dict):
        return dict(given), set(), []
    allowed = fields_of(RenderFields)
    unknown = sorted(name[:MAX_ECHO] for name in inner if name not in allowed)[:MAX_FAULTS]
    faults = [Fault(f"render.{name}", f"unknown field{nearest(name, allowed)}") for name in unknown]
    outer = {name: value for name, value in given.items() if name != "render"}
    known = {name: value for name, value in inner.items() if name in allowed and name not in outer}
    return known | outer, set(known), faults


def _request_faults(parsed: Request, given: Mapping[str, object], config: Config) -> Iterator[Fault]:
    """Faults that show only between fields, or against the configuration."""
    yield from page_faults(parsed, given)
    if parsed.timeout_ms > config.max_timeout * 1000:
        yield Fault("timeout_ms", f"must be at most {config.max_timeout * 1000:g} (--max-timeout)")
    yield from action_faults(parsed.actions)
    if parsed.auth is not None and parsed.url is not None and "@" in parsed.url.partition("//")[2].partition("/")[0]:
        yield Fault("auth", "cannot go with credentials in url: give one of them")
    if not parsed.render:
        for name in SCRIPT_FIELDS:
            if given.get(name):
                yield Fault(name, "contradicts render: false, which runs no script")
        if isinstance(parsed, ScrapeRequest):
            untouched = ScrapeRequest()
            for name in BROWSER_FIELDS:
                # (A client that was generated sends defaults, too.)
                if given.get(name) and getattr(parsed, name) != getattr(untouched, name):
                    yield Fault(name, "needs a browser, and render is false")
            if is_found_by_browser(parsed.selector):
                yield Fault("selector", "xpath= and text= need a browser, and render is false")
            if parsed.on_timeout == "capture":
                yield Fault("on_timeout", "capture needs a browser, and render is false")
            if "screenshot" in parsed.outputs:
                yield Fault("outputs", "screenshot needs a browser, and render is false")
    if isinstance(parsed, ScreenshotRequest):
        yield from capture_faults(parsed, viewport_of(parsed), config.max_pixels)
    names = {PICTURE, *get_args(OutputName)}
    for index, action in enumerate(parsed.actions):
        if isinstance(action, Shoot) and action.name in names:
            yield Fault(f"actions[{index}].name", "is the name of an output")


# What only a page that runs scripts can do, and what only a browser can.
SCRIPT_FIELDS = ("javascript", "js", "wait_for_expression")
BROWSER_FIELDS = (
    "html",
    "device",
    "viewport",
    "timezone",
    "color_scheme",
    "reduced_motion",
    "media",
    "geolocation",
    "wait_until",
    "wait_for",
    "wait_ms",
    "bypass_csp",
    "block_resources",
    "block_urls",
    "block_ads",
    "css",
    "hide_selectors",
    "remove_selectors",
    "actions",
    "include_shadow_dom",
)


def is_found_by_browser(selector: str | None) -> bool:
    """Whether only a browser can look for it."""
    return selector is not None and selector.startswith(("xpath=", "text="))


def request_document(parsed: Request) -> dict[str, Any]:
    """The request as JSON that parses to the same value; never with the key."""
    values = attrs.asdict(parsed, filter=lambda field, value: field.name != "api_key" and value != field.default)
    if parsed.fail_on_status:
        values["fail_on_status"] = [pattern.text for pattern in parsed.fail_on_status]
    return cast(dict[str, Any], json.loads(json.dumps(values)))


# ---------------------------------------------------------------- jobs and transitions


class State(enum.StrEnum):
    """The four states of the contract."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Step(enum.StrEnum):
    """What happens to a job."""

    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    # By a restart or a drain.
    RETURNED = "returned"


JOB_TRANSITIONS: Mapping[tuple[State, Step], State] = {
    (State.QUEUED, Step.LEASED): State.RUNNING,
    (State.QUEUED, Step.FAILED): State.FAILED,
    (State.RUNNING, Step.SUCCEEDED): State.DONE,
    (State.RUNNING, Step.FAILED): State.FAILED,
    (State.RUNNING, Step.RETURNED): State.QUEUED,
}


def now_text() -> str:
    """The time as RFC 3339 in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds_between(start: str | None, end: str | None) -> int | None:
    """Between two such times; never negative, since clocks are set back."""
    if start is None or end is None:
        return None
    return max(0, round((datetime.fromisoformat(end) - datetime.fromisoformat(start)) / timedelta(milliseconds=1)))


META_FIELDS = (
    "service",
    "priority",
    "attempts",
    "attempt_errors",
    "created_at",
    "started_at",
    "finished_at",
    "queue_ms",
)


@attrs.frozen
class Artifact:
    """A file in the artifact folder, and what it holds."""

    file: str
    content_type: str
    size_bytes: int | None = None
    """None in stores of version 0.2 and before."""


@attrs.define(eq=False, kw_only=True)
class Job:
    """What a client submitted and what became of it."""

    id: str = attrs.field(factory=lambda: str(uuid.uuid4()))
    """UUID4, so that it cannot be guessed."""
    number: int
    """The store's document id: rises with each job; the order of lists and, inside one priority, of the queue."""
    service: ServiceName
    request: dict[str, Any]
    """The request as JSON; loses its secrets when the job ends."""
    priority: int = 0
    key: str | None = None
    """The name of the API key that submitted it."""
    sync: bool = False
    """Of a synchronous call: goes before its equals, and is not stored before it ends."""
    state: State = State.QUEUED
    attempts: int = 0
    """Counted up by each lease and each further attempt within one."""
    losses: int = 0
    """Attempts lost by us: counted by the worker when a browser is lost, and by recovery."""
    created_at: str = attrs.field(factory=now_text)
    started_at: str | None = None
    """Of the last lease."""
    finished_at: str | None = None
    submitted: float | None = attrs.field(factory=time.monotonic)
    """`created_at` by the monotonic clock, in this process only: the system's clock can jump."""
    queue_ms: int | None = None
    """From creation to the first lease."""
    artifacts: dict[str, Artifact] = attrs.field(factory=dict)
    """By the name of the output or of the action's picture, the main one first; set with `done`, taken away when they
    expire."""
    result_meta: dict[str, Any] | None = None
    error: str | None = None
    error_code: str | None = None
    error_index: int | None = None
    """Of the action that failed."""
    retryable: bool = False
    attempt_errors: list[dict[str, Any]] = attrs.field(factory=list)
    """`{attempt, code, error}` of each attempt that failed, the one that ended the job too."""
    expired: bool = False
    """Set by retention: the artifact is gone, the answer is 410 for one more `result_ttl`."""
    wiped: list[str] | None = attrs.field(factory=list)
    """Fields of the request that went when the job ended; a retry needs them anew. None: of a former version."""
    phase: str | None = None
    """Of the attempt that runs; with `progress`, in this process only."""
    progress: float = 0.0
    """From 0 to 1; never falls while the job runs."""

    @property
    def ended(self) -> bool:
        """Whether it is in a final state."""
        return self.state in (State.DONE, State.FAILED)

    @property
    def url(self) -> str:
        """What it shows, for lists, which may have a thousand of them."""
        return str(self.request.get("url") or self.request.get("base_url") or "about:blank")[:KEPT_FIELD_CHARS]

    @functools.cached_property
    def request_chars(self) -> int:
        """Of the request as JSON, secrets too."""
        return len(json.dumps(self.request))

    @property
    def error_detail(self) -> dict[str, Any]:
        """The contract's, of a failed job."""
        detail = {"code": self.error_code, "retryable": self.retryable}
        return detail if self.error_index is None else detail | {"index": self.error_index}

    def meta(self) -> dict[str, Any]:
        """The contract's `meta` about the execution."""
        return {name: getattr(self, name) for name in META_FIELDS}

    def row(self) -> dict[str, Any]:
        """The job as lists and events show it: without its output."""
        row: dict[str, Any] = {"job_id": self.id, "service": self.service, "status": self.state, "url": self.url}
        row["meta"] = self.meta()
        if self.state is State.RUNNING:
            row |= {"phase": self.phase, "progress": self.progress}
        if self.state is State.FAILED:
            row |= {"error": self.error, "error_detail": self.error_detail}
        return row

    def document(self) -> dict[str, Any]:
        """The job as it is stored."""
        stored = {name: getattr(self, name) for name in STORED_FIELDS}
        return stored | {"artifacts": {name: attrs.asdict(one) for name, one in self.artifacts.items()}}

    @classmethod
    def from_document(cls, number: int, stored: Mapping[str, Any]) -> Job:
        """The stored job; fields of a later version are left out."""
        values = {name: stored[name] for name in STORED_FIELDS if name in stored}
        values |= {"state": State(stored["state"]), "artifacts": stored_artifacts(stored)}
        values.setdefault("wiped", None)
        return cls(number=number, submitted=None, **values)

    def note_failure(self, failure: JobFailed) -> None:
        """Record the error of the attempt that was made last."""
        error = {"attempt": self.attempts, "code": failure.code, "error": str(failure)}
        # Anew: documents made before keep theirs.
        self.attempt_errors = [*self.attempt_errors, error]


STORED_FIELDS = tuple(
    field.name for field in attrs.fields(Job) if field.name not in ("number", "submitted", "phase", "progress")
)


def stored_artifacts(stored: Mapping[str, Any]) -> dict[str, Artifact]:
    """The artifacts of a stored job."""
    if stored.get("artifact") is not None:
        # As version 0.1 wrote it.
        main = PICTURE if stored["service"] == "screenshot" else "html"
        return {main: Artifact(stored["artifact"], stored["content_type"])}
    return {name: Artifact(**one) for name, one in stored.get("artifacts", {}).items()}


def is_secret(name: str, value: Any) -> bool:
    """Whether a field of a stored request must go with its job's end; a URL of an action may hold credentials."""
    if name == "actions":
        return any(credentials_of(step["url"]) is not None for step in value if "url" in step)
    return name in SECRET_FIELDS and bool(value)


def transition(job: Job, step: Step, **changes: Any) -> None:
    """Change a job's state, and the fields that go with it. An impossible step is a bug of ours."""
    state = JOB_TRANSITIONS.get((job.state, step))
    if state is None:
        raise AssertionError(f"job {job.id} is {job.state}: it cannot be {step}")
    job.state = state
    for name, value in changes.items():
        setattr(job, name, value)
    if step is Step.LEASED:
        job.started_at = now_text()
        job.attempts += 1
        job.phase, job.progress = None, 0.0
        if job.queue_ms is None and job.submitted is not None:
            job.queue_ms = round((time.monotonic() - job.submitted) * 1000)
        elif job.queue_ms is None:
            # Of a former run.
            job.queue_ms = milliseconds_between(job.created_at, job.started_at)
    elif job.ended:
        job.finished_at = now_text()
        # Anew: documents made before keep theirs.
        kept = {
            name: value
            for name, value in job.request.items()
            if not is_secret(name, value) and len(str(value)) <= KEPT_FIELD_CHARS
        }
        job.wiped = [name for name in job.request if name not in kept]
        job.request = kept


def fail(job: Job, failure: JobFailed) -> None:
    """End a job with an error."""
    transition(
        job,
        Step.FAILED,
        error=str(failure),
        error_code=failure.code,
        error_index=failure.index,
        retryable=failure.retryable,
    )


# ---------------------------------------------------------------- policies

RETRYABLE_NET_ERRORS = frozenset(
    f"net::ERR_{name}"
    for name in (
        "NAME_NOT_RESOLVED",
        "CONNECTION_REFUSED",
        "CONNECTION_RESET",
        "CONNECTION_CLOSED",
        "CONNECTION_TIMED_OUT",
        "TIMED_OUT",
        "EMPTY_RESPONSE",
        # Of the host's interfaces: Chromium drops all connections then, though ours are on loopback.
        "NETWORK_CHANGED",
        "PROXY_CONNECTION_FAILED",
    )
)

# Before another attempt of a page that failed; the job keeps its worker meanwhile.
# (Failures of the page, by their codes; `navigation_failed` only when its error says that it may pass.)
RETRIED_CODES = ("navigation_failed", "timeout", "page_crashed")
RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0)

# By class of the error, the first that fits. What is in no row is our own fault.
FAILURE_CODES: tuple[tuple[type[cdp.errors.CDPError], str], ...] = (
    (cdp.errors.InvalidOption, "invalid_request"),
    (cdp.errors.SelectorNotFound, "selector_not_found"),
    (cdp.errors.ScriptError, "script_error"),
    (cdp.errors.NotAPage, "not_a_page"),
    (cdp.errors.TooLarge, "too_large"),
    (cdp.errors.TargetCrashed, "page_crashed"),
    (cdp.errors.SessionClosed, "page_crashed"),
    (cdp.errors.ConnectionClosed, "browser_lost"),
)


def is_tried_again(failure: JobFailed, losses: int, page_failures: int, retries: int) -> bool:
    """Whether another attempt follows a failure, before which there were so many of each kind."""
    if failure.code == "browser_lost":
        return losses < LOSSES_ALLOWED
    return failure.code in RETRIED_CODES and failure.retryable and page_failures < retries


def failure_of(error: cdp.errors.CDPError) -> JobFailed | None:
    """What an error of the browser means for the job; None for one that must not happen."""
    if isinstance(error, cdp.errors.NavigationError):
        if error.blocked is not None:
            return JobFailed("blocked_target", f"blocked target: {error.blocked}")
        return JobFailed("navigation_failed", str(error), retryable=error.net_error in RETRYABLE_NET_ERRORS)
    if isinstance(error, cdp.errors.ActionFailed):
        return JobFailed("action_failed", str(error), index=error.index)
    for kind, code in FAILURE_CODES:
        if isinstance(error, kind):
            return JobFailed(code, str(error))
    return None


# ---------------------------------------------------------------- keys


@attrs.frozen(kw_only=True)
class KeyLimits:
    """What a key is good for."""

    service: Annotated[ServiceName, "the only service it is for; default: both"] | None = None
    rate: Annotated[float, Range(1e-6, 1e6), "submissions a second; more are refused with 429"] | None = None
    quota: Annotated[int, Range(1), "submissions in all; more are refused with 422"] | None = None
    concurrency: Annotated[int, Range(1), "jobs that run at once; more wait in the queue"] | None = None


@attrs.frozen(kw_only=True)
class Key(KeyLimits):
    """A client's key, without the key."""

    name: str
    digest: str
    """SHA-256 in hexadecimal. A key has 256 random bits: neither salt nor a slow hash would add to that."""
    created_at: str


# Of `CLEARIFLOW_API_KEY`; no key of the file can be called so.
OWN_KEY = "CLEARIFLOW_API_KEY"
KEY_NAME_TEXT = f"1 to 64 letters, digits, dots, - and _, and not {OWN_KEY}"
KEY_PREFIX = "cf_"
KEY_NAME = re.compile(r"(?!CLEARIFLOW_API_KEY\Z)[A-Za-z0-9._-]{1,64}")


def digest_of(key: str) -> str:
    """By which a key is known."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


class Keys:
    """The API keys of a data folder: `keys.json`, read anew when it changes, and the one of the environment.

    Where the file exists, be it without keys, and on an address that others reach, nobody submits without one. Raises
    ConfigError when it cannot be read; a running service then goes on with the keys it had.
    """

    def __init__(self, config: Config) -> None:
        self._file = config.keys_file
        own = config.api_key
        self._own = [Key(name=OWN_KEY, digest=digest_of(own), created_at=now_text())] if own is not None else []
        self._closed = not (config.open or _is_loopback(config.host))
        # What the file was when it was read; None: not there.
        self._read: tuple[int, ...] | None = None
        self._keys: dict[str, Key] = {}
        # Submissions that a key with a rate may make now, and when that was so.
        self._turns: dict[str, tuple[float, float]] = {}
        self._look()

    def _look(self) -> None:
        """Read the file if it changed."""
        try:
            found = os.stat(self._file)
            seen: tuple[int, ...] = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError) and not self._file.is_symlink():
                self._read, self._keys = None, {}
                return
            # Reading it says why; a link to nothing is a secret that is not mounted, and opens nothing.
            seen = ()
        if seen != self._read:
            # Before the reading: a fault is told once.
            self._read = seen
            self._keys = {key.name: key for key in read_keys(self._file)}

    def refresh(self) -> None:
        """Take in what `keys add` and `keys revoke` did meanwhile."""
        try:
            self._look()
        except ConfigError as error:
            logger.error("%s; the keys known before stay in force", error)

    @property
    def usable(self) -> bool:
        """Whether there is a key at all."""
        return bool(self._keys or self._own)

    @property
    def required(self) -> bool:
        """Whether nobody may come in without a key."""
        return self._closed or self._read is not None or bool(self._own)

    def find(self, texts: Iterable[str]) -> Key | None:
        """The key that one of the texts is, compared in a time that tells nothing of it."""
        digests = [digest_of(text).encode() for text in texts]
        found = None
        for key in (*self._keys.values(), *self._own):
            for digest in digests:
                if hmac.compare_digest(key.digest.encode(), digest):
                    found = key
        return found

    def holds(self, key: Key | None) -> bool:
        """Whether a key that was found is still in force; None: whether none is needed."""
        self.refresh()
        if key is None:
            return not self.required
        return any(known.digest == key.digest for known in (*self._keys.values(), *self._own))

    def concurrency(self, name: str | None) -> int | None:
        """How many jobs of a key may run at once; None: any number."""
        key = self._keys.get(name or "")
        return key.concurrency if key is not None else None

    def take_turn(self, key: Key) -> None:
        """Count a submission against the key's rate, which lets one second's worth come at once.

        Raises ServiceError `rate_limited`.
        """
        if key.rate is None:
            return
        now, most = time.monotonic(), max(1.0, key.rate)
        left, at = self._turns.get(key.name, (most, now))
        left = min(most, left + (now - at) * key.rate)
        if left < 1:
            message = f"the key's limit is {key.rate:g} submissions a second (keys add --rate)"
            raise ServiceError("rate_limited", message, retry_after_s=math.ceil((1 - left) / key.rate))
        self._turns[key.name] = (left - 1, now)


def read_keys(path: Path) -> list[Key]:
    """The keys of a file; none where it is not there. Raises ConfigError."""
    if not os.path.lexists(path):
        return []
    try:
        if not path.is_file():
            # A pipe would be waited for.
            raise ValueError("it is no file")
        keys: list[Key] = [structure(one, Key) for one in json.loads(path.read_bytes())["keys"]]
        names = [key.name for key in keys]
        if len(set(names)) < len(names) or not all(map(KEY_NAME.fullmatch, names)):
            raise ValueError(f"each name must be another, and {KEY_NAME_TEXT}")
        return keys
    except ValidationError as error:
        raise ConfigError([Fault(f"{path}: {fault.field}", fault.message) for fault in error.faults]) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError([Fault(str(path), f"cannot be read as keys: {error}; mend it, or remove it")]) from error


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[int]:
    """One process at a time; the folder itself is locked, as a file in it could be a link. Yields its descriptor."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


@contextlib.contextmanager
def edited_keys(config: Config) -> Iterator[list[Key]]:
    """The keys of the data folder, to change in place; written as a whole when the body ends. One process at a time.

    Raises ConfigError.
    """
    path, folder = config.keys_file, config.keys_file.parent
    partial = folder / "keys.json.new"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with folder_lock(folder) as lock:
            keys = read_keys(path)
            yield keys
            # Of an edit that broke off; or a link by which the folder's owner would lead root's hand elsewhere.
            partial.unlink(missing_ok=True)
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(json.dumps({"keys": [attrs.asdict(key) for key in keys]}, indent=2).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
                if os.geteuid() == 0:
                    # The service may be another user's, and must read it.
                    owner = os.fstat(lock)
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            partial.replace(path)
            sync_folder(folder)
    except OSError as error:
        raise ConfigError([Fault(str(path), f"cannot be written: {error.strerror}")]) from error


# ---------------------------------------------------------------- schedule


# By which jobs are ordered, and the job.
Entry = tuple[int, bool, int, Job]


class Schedule:
    """Queued jobs: larger priority first, synchronous before others, then in order of their numbers.

    Jobs of a key that has as many running as it may are held back. Everything but `arrival` is synchronous, so that a
    job is never between the schedule and a worker.
    """

    def __init__(self, concurrency: Callable[[str | None], int | None] = lambda key: None) -> None:
        # How many jobs of a key may run at once; None: any number.
        self._concurrency = concurrency
        self._running = Counter[str | None]()
        # Removed jobs stay in their heap until they come up.
        self._heap: list[Entry] = []
        self._held: dict[str | None, list[Entry]] = {}
        self._queued: dict[str, Job] = {}
        self._chars = 0
        # Those of them that are in the heap.
        self._ready: set[str] = set()
        self._arrived = trio.Event()
        self._positions: dict[str, int] = {}
        self._positions_until = -math.inf

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def chars(self) -> int:
        """Of all requests in it."""
        return self._chars

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._queued.values()))

    def push(self, job: Job) -> None:
        """Add a queued job."""
        self._queued[job.id] = job
        self._chars += job.request_chars
        self._make_ready((-job.priority, not job.sync, job.number, job))

    def _make_ready(self, entry: Entry) -> None:
        heapq.heappush(self._heap, entry)
        self._ready.add(entry[-1].id)
        # Every waiting worker wakes; who comes later waits for the next.
        self._arrived.set()
        self._arrived = trio.Event()

    def remove(self, job: Job) -> None:
        """Take a job out, wherever it stands."""
        self._drop(job)
        if job.id in self._ready:
            self._ready.discard(job.id)
            # It may have come up for one that ended: then another must.
            self._release(job.key)
        if len(self._heap) + sum(map(len, self._held.values())) > 2 * len(self._queued) + 64:
            # Behind a busy higher priority, or a busy key, they would never come up.
            for heap in (self._heap, *self._held.values()):
                heap[:] = filter(self._is_queued, heap)
                heapq.heapify(heap)

    def _drop(self, job: Job) -> None:
        del self._queued[job.id]
        self._chars -= job.request_chars

    def _is_queued(self, entry: Entry) -> bool:
        return self._queued.get(entry[-1].id) is entry[-1]

    def take(self) -> Job | None:
        """The next job that may run, or None; `done` must follow."""
        while self._heap:
            entry = heapq.heappop(self._heap)
            job = entry[-1]
            if not self._is_queued(entry):
                continue
            self._ready.discard(job.id)
            most = self._concurrency(job.key)
            if most is not None and self._running[job.key] >= most:
                heapq.heappush(self._held.setdefault(job.key, []), entry)
                continue
            self._drop(job)
            self._running[job.key] += 1
            if most is None or self._running[job.key] < most:
                # The limit was raised meanwhile.
                self._release(job.key)
            return job
        return None

    def done(self, job: Job) -> None:
        """A job that was taken runs no more: one of its key that is held back may."""
        self._running[job.key] -= 1
        if not self._running[job.key]:
            del self._running[job.key]
        self._release(job.key)

    def _release(self, key: str | None) -> None:
        """Let the first job of a key that is held back come up again; `take` judges it anew."""
        held = self._held.get(key, [])
        while held:
            if self._is_queued(entry := heapq.heappop(held)):
                self._make_ready(entry)
                break
        if not held:
            self._held.pop(key, None)

    async def arrival(self) -> None:
        """Wait until there is a job that may run, as far as is known."""
        while not self._ready:
            await self._arrived.wait()

    def position(self, job: Job) -> int:
        """How many jobs go before this one, as of at most `POSITION_AGE_S` ago."""
        now = trio.current_time()
        if now >= self._positions_until:
            order = sorted(filter(self._is_queued, itertools.chain(self._heap, *self._held.values())))
            self._positions = {entry[-1].id: index for index, entry in enumerate(order)}
            self._positions_until = now + (POSITION_AGE_S if len(order) > 100 else 0)
        # One that came since then stands behind the others, as far as is known.
        return self._positions.get(job.id, len(self._positions))


# ---------------------------------------------------------------- journal file

JOURNAL_VERSION = 1
# The file is folded when it has grown by this, and by twice its live data: a third of all bytes written, at any size.
FOLD_MIN_BYTES = 2**20
# Lines joined between two writes of a fold, about 0.2 ms; a write lets go of the interpreter.
FOLD_SLICE = 256
# A failed write is tried again by itself after this; a change tries at once.
STORE_RETRY_S = 1.0
# Lines that must not stay are folded away within this time: not at once, since a fold writes all that is live.
SCRUB_S = 60.0

# The newest line of each document, by table and id, as it is in the file: a quarter of the memory that the document
# takes, and a fold copies it. The document is made from it when somebody asks.
Tables = dict[str, dict[int, bytes]]

_encode_json = json.JSONEncoder(separators=(",", ":")).encode
# Quotes inside JSON strings are escaped: inside a whole record this is found at its beginning and next to nowhere else.
_RECORD_START = re.compile(rb'[0-9a-f]{8} \["')
# Of a record's JSON, what is before the document.
_RECORD_HEAD = re.compile(rb'\[("(?:[^"\\]|\\.)*"),"(-?\d{1,18})",')
_decode_name = functools.lru_cache(json.loads)


class StoreError(Exception):
    """The store cannot be opened or written: says what to do, or the cause. `errno` is the system's number or None."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number


def _journal_line(text: str) -> bytes:
    body = text.encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _record(table: str, doc_id: int, document: Mapping[str, Any] | None) -> bytes:
    """The line of one change; None removes the document."""
    return _journal_line(_encode_json([table, str(doc_id), document]))


def _document(line: bytes) -> dict[str, Any]:
    """The document of a record."""
    return cast("dict[str, Any]", json.loads(line[9:].decode("ascii"))[2])


_HEADER = _journal_line(_encode_json({"format": "cleariflow-journal", "version": JOURNAL_VERSION}))


def _apply(line: bytes, tables: Tables) -> bool:
    """Apply the record that a whole line is; False where it is damaged. Raises `StoreError` on a newer header."""
    body = line[9:-1]
    if line[:9] != b"%08x " % zlib.crc32(body):
        return False
    if head := _RECORD_HEAD.match(body):
        # The document is not looked at: the checksum is ours, and all lines but a job's last would be parsed in vain.
        if body.startswith(b"{", head.end()) and body.endswith(b"}]"):
            tables.setdefault(_decode_name(head[1]), {})[int(head[2])] = line
            return True
        if body[head.end() :] == b"null]":
            tables.setdefault(_decode_name(head[1]), {}).pop(int(head[2]), None)
            return True
    with contextlib.suppress(ValueError, RecursionError):
        match json.loads(body.decode("ascii")):
            case {"format": "cleariflow-journal", "version": int(version)}:
                if version > JOURNAL_VERSION:
                    raise StoreError(f"journal version {version} is of a newer Cleariflow: start that one")
                return True
    return False


def _replay(line: bytes, tables: Tables) -> bytes:
    """Apply the record in `line`, whose last byte is its newline; returns what of the line is damaged.

    A damaged newline joins two lines: the second is found by its beginning. Raises `StoreError` on a newer header.
    """
    if _apply(line, tables):
        return b""
    for found in _RECORD_START.finditer(line, 1):
        if _apply(line[found.start() :], tables):
            return line[: found.start()]
    return line


def _write_all(fd: int, data: bytes, offset: int) -> int:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset, view = offset + written, view[written:]
    return offset


def sync_folder(folder: Path) -> None:
    """Make what was renamed or created in a folder survive a loss of power."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@attrs.define
class JournalCounts:
    """What a `JournalFile` did since it was opened."""

    commits: int = 0
    """Groups of changes that came to disk, folds included."""
    folds: int = 0
    faults: int = 0
    """Commits and folds that the disk refused."""
    written_bytes: int = 0
    fsyncs: int = 0
    fsync_s: float = 0.0


class JournalFile:
    """The file on disk: a header and one line per change, each with its CRC32. Calls block; one at a time, any thread.

    Opening locks the file, reads it into `tables` and collects in `reports` what was damaged. Raises `OSError`, or
    `StoreError`: in use, not a journal, of a newer version; the file is then as it was. Resource handling: `close`.
    """

    def __init__(self, path: Path, tables: Tables) -> None:
        self.path = path
        self.reports: list[str] = []
        # Bytes known to be good (what is behind them is cut off), and beyond which size to fold.
        self._end = self._fold_at = 0
        # Only a fold may write.
        self._suspect = False
        # Whether it was opened with lines that newer ones replace.
        self.holds_former = False
        self.counts = JournalCounts()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Without a name in the folder: its owner folded between our open and our lock.
                if os.fstat(self._fd).st_nlink:
                    self._load(tables)
                    return
            raise StoreError(f"{path} is in use by another process: stop that one first", errno.EWOULDBLOCK)
        except BaseException:
            os.close(self._fd)
            raise

    def _load(self, tables: Tables) -> None:
        good, bad, line = 0, list[bytes](), b"\n"
        with open(self._fd, "rb", closefd=False) as file:
            try:
                for line in file:
                    if line.endswith(b"\n"):
                        self._end += len(line)
                        damaged = _replay(line, tables)
                        good += damaged != line
                        bad += [damaged] if damaged else []
            except StoreError as error:
                raise StoreError(f"{self.path}: {error}, or move the file away to begin anew") from None
        if not good and os.fstat(self._fd).st_size and not _HEADER.startswith(line):
            raise StoreError(f"{self.path} has no readable line, not a journal? Move it away to begin anew")
        if not line.endswith(b"\n"):
            if _replay(line, {}):
                # A damaged newline joins it to the line before, which was confirmed.
                if begin := max((found.start() for found in _RECORD_START.finditer(line)), default=0):
                    bad.append(line[:begin])
                self.reports.append(f"{self.path}: dropped an unfinished last line of {len(line)} bytes.")
            else:
                # Whole but for its newline: it was confirmed, and damaged since.
                bad.append(line)
        if bad:
            aside = self.path.with_name(self.path.name + ".bad")
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
                file.writelines(part.rstrip(b"\n") + b"\n" for part in bad)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self.path.parent)
            self.reports.append(f"{self.path}: {len(bad)} damaged lines set aside in {aside}, {good} lines read.")
        with contextlib.suppress(FileNotFoundError):
            self.path.with_name(self.path.name + ".new").unlink()
            self.reports.append(f"{self.path}: a fold had been interrupted; its unfinished file was removed.")
        if self._end:
            # Lines of a killed process may be in the page cache only.
            os.fsync(self._fd)
            live = sum(len(kept) for documents in tables.values() for kept in documents.values())
            self.holds_former = good - 1 > sum(map(len, tables.values()))
            # Damaged lines leave with the first save, so that they are set aside once.
            self._fold_at = -1 if bad else live + max(FOLD_MIN_BYTES, 2 * live)
        else:
            self._fold([])

    def must_fold(self, data: bytes) -> bool:
        """Whether saving `data` needs all lines, even where `data` is empty."""
        return self._suspect or self._end + len(data) > self._fold_at

    def save(self, data: bytes, lines: list[bytes] | None) -> bool:
        """Fold `lines` where given, else append `data`; returns whether it folded.

        After an `OSError` the good part of the file is as it was.
        """
        if lines is not None:
            try:
                self._fold(lines)
                self.counts.commits += 1
                return True
            except OSError as error:
                self.counts.faults += 1
                if self._suspect:
                    raise
                # The file is whole and takes more; the next try to fold comes when it has grown again.
                self._fold_at = self._end + len(data) + FOLD_MIN_BYTES
                self.reports.append(f"{self.path} could not be folded ({error}); appending goes on.")
        try:
            os.ftruncate(self._fd, self._end)
            end = _write_all(self._fd, data, self._end)
            # After a failed fsync Linux takes the lost pages for clean and the next fsync succeeds: this file, whose
            # last page holds older lines too, is not trusted again. Cut: a restart must not read what is only cached.
            self._suspect = True
            self._sync(self._fd)
            self._suspect, self._end = False, end
            self.counts.commits += 1
            self.counts.written_bytes += len(data)
        except OSError:
            self.counts.faults += 1
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise
        return False

    def _fold(self, lines: list[bytes]) -> None:
        """Replace the file by one that holds `lines` and nothing else, or raise `OSError`."""
        temporary = self.path.with_name(self.path.name + ".new")
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end = _write_all(fd, _HEADER, 0)
            for first in range(0, len(lines), FOLD_SLICE):
                end = _write_all(fd, b"".join(lines[first : first + FOLD_SLICE]), end)
            self._sync(fd)
            # Until the folder is synced a crash may bring the old file back, without what is appended to the new one.
            self._suspect = True
            os.replace(temporary, self.path)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        old, self._fd = self._fd, fd
        self._end, self._fold_at = end, end + max(FOLD_MIN_BYTES, 2 * end)
        with contextlib.suppress(OSError):
            os.close(old)
        sync_folder(self.path.parent)
        self._suspect = False
        self.counts.folds += 1
        self.counts.written_bytes += end

    def _sync(self, fd: int) -> None:
        began = time.monotonic()
        try:
            os.fsync(fd)
        finally:
            self.counts.fsyncs += 1
            self.counts.fsync_s += time.monotonic() - began

    @property
    def size_bytes(self) -> int:
        """Of what is known to be good."""
        return self._end

    def close(self) -> None:
        """Close and unlock the file."""
        os.close(self._fd)


# ---------------------------------------------------------------- journal storage (TinyDB)


class JournalStorage(Storage):
    """A TinyDB storage: all tables in memory, every change in a `JournalFile`.

    A change is synchronous: visible in memory, serialised, waiting for the writer (`run`), which puts all that waits on
    disk with one write and one fsync. `reports` are sentences for the log: damage found at opening, a fold that failed.
    `fault` is the error of the last attempt to write, None after a good one.

    Raises StoreError when the file cannot be opened. Resource handling: the end of `run` closes it, or `close`.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.fault: OSError | None = None
        self._tables: Tables = {}
        # The newest line of each document that is not on disk yet: while the disk refuses, they do not pile up.
        self._pending: dict[tuple[str, int], bytes] = {}
        # How many lines were handed over, and how many of them are on disk.
        self._put = self._durable = 0
        self._closed = False
        # When to fold for the sake of what older lines hold.
        self._scrub_at = math.inf
        # trio's own threads are shared with name look-ups, which hostile pages can make last.
        self._limiter = trio.CapacityLimiter(1)
        # Something was put; something was written, or could not be.
        self._changed, self._attempted = trio.Event(), trio.Event()
        try:
            self._file = JournalFile(Path(path), self._tables)
        except OSError as error:
            raise StoreError(f"cannot open the store {path}: {error.strerror}", error.errno) from error
        self.reports, self.counts = self._file.reports, self._file.counts

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return self._file.size_bytes

    def read(self) -> dict[str, dict[str, Any]]:
        """All tables: to look at, not to change; from the outer dict TinyDB takes the table that it drops."""
        return cast("dict[str, dict[str, Any]]", {name: _Documents(lines) for name, lines in self._tables.items()})

    def write(self, data: Mapping[str, Mapping[str, Any]]) -> None:
        """Only to drop tables: documents come by `apply`."""
        if not all(isinstance(documents, _Documents) for documents in data.values()):
            raise TypeError("documents come from JournalTable only")
        for name in self._tables.keys() - data.keys():
            self.apply(name, dict.fromkeys(self._tables[name]))

    def lines(self, table: str) -> dict[int, bytes]:
        """The lines of a table's documents: to look at, not to change."""
        return self._tables.get(table, {})

    def apply(self, table: str, changes: Mapping[int, Mapping[str, Any] | None]) -> None:
        """Set or, where None, remove documents of a table."""
        if self._closed:
            raise StoreError("the store is closed")
        records = {doc_id: _record(table, doc_id, document) for doc_id, document in changes.items()}
        self._put += len(records)
        lines = self._tables.setdefault(table, {})
        for doc_id, record in records.items():
            self._pending[table, doc_id] = record
            if changes[doc_id] is None:
                lines.pop(doc_id, None)
            else:
                lines[doc_id] = record
        self._changed.set()

    def scrub(self) -> None:
        """Have older lines of changed documents taken from the disk, within `SCRUB_S` or when the writer ends."""
        self._scrub_at = min(self._scrub_at, trio.current_time() + SCRUB_S)
        self._changed.set()

    async def flushed(self) -> None:
        """Return when all changes made so far are on disk.

        Raises StoreError when an attempt to write them fails: they stay in memory and are tried again. Cancelling the
        wait undoes nothing.
        """
        position = self._put
        while self._durable < position:
            if self._closed:
                raise StoreError("the store is closed")
            await self._attempted.wait()
            if self._durable < position and self.fault is not None:
                raise StoreError(f"cannot write the store: {self.fault.strerror}", self.fault.errno)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The writer; faults of the disk do not end it.

        Cancelled, it tries once more to write what waits and closes the file. That is shielded, and its thread never
        abandoned: a process that hangs in its disk could not exit either.
        """
        task_status.started()
        try:
            if self._file.holds_former:
                # A killed process did not live to scrub.
                self.scrub()
            while True:
                # At once after loading too: something may have to be mended.
                await self._commit()
                due = self._scrub_at if self.fault is None else trio.current_time() + STORE_RETRY_S
                with trio.CancelScope(deadline=due):
                    await self._changed.wait()
        finally:
            if self._scrub_at < math.inf:
                self._scrub_at = -math.inf
            with trio.CancelScope(shield=True):
                await self._commit()
            self.close()

    def close(self) -> None:
        """Close and unlock the file; what waits is not written."""
        if not self._closed:
            self._closed = True
            self._file.close()
            self._attempted.set()

    async def _commit(self) -> None:
        """Try once to bring the disk up to memory."""
        self._changed = trio.Event()
        position, taken, self._pending = self._put, self._pending, {}
        data = b"".join(taken.values())
        # Not while the disk refuses: each try copies all that is live.
        scrubbing = trio.current_time() >= self._scrub_at and (self.fault is None or self._scrub_at == -math.inf)
        folding = scrubbing or self._file.must_fold(data)
        if not (data or folding):
            return
        lines = [line for documents in self._tables.values() for line in documents.values()] if folding else None
        try:
            with trio.CancelScope(shield=True):
                folded = await in_thread(self._file.save, data, lines, limiter=self._limiter)
        except OSError as error:
            if self.fault is None:
                self.reports.append(f"the store cannot be written: {error}")
            self.fault = error
            self._pending = taken | self._pending
        else:
            if self.fault is not None:
                self.reports.append("the store can be written again")
            self.fault, self._durable = None, position
            if folded:
                self._scrub_at = math.inf
            elif scrubbing:
                self._scrub_at = trio.current_time() + SCRUB_S
        attempted, self._attempted = self._attempted, trio.Event()
        attempted.set()


class _Documents(Mapping[str, dict[str, Any]]):
    """A table as TinyDB reads it; each look makes the document anew."""

    def __init__(self, lines: Mapping[int, bytes]) -> None:
        self._lines = lines

    def __getitem__(self, doc_id: str) -> dict[str, Any]:
        return _document(self._lines[int(doc_id)])

    def __iter__(self) -> Iterator[str]:
        return map(str, self._lines)

    def __len__(self) -> int:
        return len(self._lines)


class _Changes(MutableMapping[int, Any]):
    """A table as TinyDB's updaters see it; `changed` is what they did to it, None for a removed document."""

    def __init__(self, lines: Mapping[int, bytes]) -> None:
        self._lines = lines
        self.changed: dict[int, dict[str, Any] | None] = {}

    def __getitem__(self, doc_id: int) -> Any:
        if doc_id not in self.changed:
            # Whoever gets it may change it.
            self.changed[doc_id] = _document(self._lines[doc_id])
        if self.changed[doc_id] is None:
            raise KeyError(doc_id)
        return self.changed[doc_id]

    def __setitem__(self, doc_id: int, document: Any) -> None:
        self.changed[doc_id] = document

    def __delitem__(self, doc_id: int) -> None:
        _ = self[doc_id]
        self.changed[doc_id] = None

    def __iter__(self) -> Iterator[int]:
        both = dict.fromkeys(self._lines, True) | {doc_id: one is not None for doc_id, one in self.changed.items()}
        return (doc_id for doc_id, present in both.items() if present)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        # Inherited, it would walk through the table for each document.
        self.changed = dict.fromkeys([*self._lines, *self.changed])


class JournalTable(Table):
    """A TinyDB table over `JournalStorage`: changing a document by its id costs the same however many there are.

    A query walks through the table, as in every TinyDB. Overrides `_update_table`, which is private to tinydb 4.
    """

    _storage: JournalStorage

    def _update_table(self, updater: Callable[[dict[int, Mapping[str, Any]]], None]) -> None:
        changes = _Changes(self._storage.lines(self.name))
        updater(cast("dict[int, Mapping[str, Any]]", changes))
        self._storage.apply(self.name, changes.changed)
        self.clear_cache()


# ---------------------------------------------------------------- store

# With less free, no job is taken or begun: room for what is under way, its artifacts (a few MB each), the journal's
# lines, the browsers' profiles.
DISK_RESERVE_BYTES = 16 * 2**20
# What a disk says that is full, over a quota, failing, or read-only since it failed, and a system without a thread or
# a file to spare: it may come back.
DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS),
    *(errno.EAGAIN, errno.EMFILE, errno.ENFILE),
)
# An artifact that the disk refuses is tried again for this long, and its job fails then.
ARTIFACT_RETRY_S = 30.0
# Jobs that expire between two turns of other tasks, about 10 ms.
EXPIRE_SLICE = 50


@attrs.define(eq=False, weakref_slot=False)
class Ended:
    """What memory holds of an ended job beside its line; `Store.get` makes the job of both."""

    id: str
    number: int
    service: ServiceName
    state: State
    ended: float
    """By `time.monotonic`; of a former run's job by the system's clock as it was at loading."""
    key: str | None
    artifact_bytes: int
    expired: bool


class Store:
    """All jobs in memory, every acknowledged change of them in the journal, their artifacts as files.

    One folder: `jobs.journal`, `artifacts/<id>.<ext>`, and `tmp/` for what does not outlive the process. A job that has
    not ended is one `Job` for all; of one that has, each look makes another. Raises StoreError when the folder cannot
    be used or another process uses it.
    """

    def __init__(self, folder: Path, disk_budget: float = math.inf) -> None:
        self.artifacts = folder / "artifacts"
        self.temporary = folder / "tmp"
        try:
            for path in (folder, self.artifacts, self.temporary):
                if not path.is_dir():
                    path.mkdir(mode=0o700, parents=True, exist_ok=True)
                    sync_folder(path.parent)
        except OSError as error:
            raise StoreError(f"cannot use the data folder {folder}: {error}", error.errno) from error
        self.journal = JournalStorage(folder / "jobs.journal")
        self._table = JournalTable(self.journal, "jobs")
        # How often each key with a quota was used.
        self._uses = JournalTable(self.journal, "uses")
        # The journal's own; see there.
        self.flushed, self.run = self.journal.flushed, self.journal.run
        # Threads for artifacts of our own, as the journal's.
        self.file_limiter = trio.CapacityLimiter(8)
        # By number, newest last; lists rely on it.
        self.jobs: dict[str, Job | Ended] = {}
        self._disk_budget = disk_budget
        self.artifact_bytes = 0
        # In the order they ended: those younger than the time to live, the others, and those that have artifacts.
        self._young, self._old, self.holding = deque[Ended](), deque[Ended](), deque[Ended]()
        # Numbers of jobs whose stored requests have secrets.
        self._secretive: set[int] = set()
        # The size of an artifact that the disk refused; it must have room for as much before it is trusted again.
        self._refused_bytes = 0
        self._tried_at = -math.inf
        collecting = gc.isenabled()
        # Many new objects, none of them garbage.
        gc.disable()
        try:
            self._load()
        except BaseException:
            self.journal.close()
            raise
        finally:
            if collecting:
                gc.enable()
        self._used = {document["digest"]: document for document in self._uses}
        self._last_number = max((job.number for job in self.jobs.values()), default=0)
        self._evict()

    def _load(self) -> None:
        """Read the jobs, and remove what a killed process left: temporary folders, and files that no job knows."""
        if killed := cdp.end_leftovers(self.temporary):
            self.journal.reports.append(f"{killed} processes of a former run's browsers were still there; killed")
        for path in self.temporary.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        unknown = set(os.listdir(self.artifacts))
        jobs: list[Job | Ended] = []
        ended, incomplete = list[Ended](), list[Ended]()
        wall, now = datetime.now(UTC), time.monotonic()
        for document in self._table:
            if document["state"] in (State.QUEUED, State.RUNNING):
                job = Job.from_document(document.doc_id, document)
                jobs.append(job)
                self._note_secrets(job.number, job.request)
                continue
            artifacts = stored_artifacts(document).values()
            files = {one.file for one in artifacts}
            missing = not (document.get("expired") or files <= unknown)
            unknown -= files
            finished = datetime.fromisoformat(document.get("finished_at") or now_text())
            row = Ended(
                document["id"],
                document.doc_id,
                document["service"],
                State(document["state"]),
                # Not in the future: a clock that was set back would keep it for ever.
                now - max(0.0, (wall - finished).total_seconds()),
                document.get("key"),
                0 if missing else sum(self._size(one) for one in artifacts),
                document.get("expired", False),
            )
            ended.append(row)
            if missing:
                incomplete.append(row)
        self.jobs = {job.id: job for job in sorted([*jobs, *ended], key=lambda job: job.number)}
        for row in sorted(ended, key=lambda row: row.ended):
            self._note_end(row)
        for row in incomplete:
            self.journal.reports.append(f"an artifact of job {row.id} is missing; it counts as expired")
            self._strip(row)
        for name in unknown:
            # Where a volume is mounted, a folder `lost+found` too.
            with contextlib.suppress(OSError):
                (self.artifacts / name).unlink()
        if unknown:
            self.journal.reports.append(f"{len(unknown)} artifact files of no job were removed")

    def _size(self, artifact: Artifact) -> int:
        if artifact.size_bytes is None:
            return os.path.getsize(f"{self.artifacts}/{artifact.file}")
        return artifact.size_bytes

    @property
    def fault(self) -> OSError | None:
        """Why nothing should be taken or begun: the last write failed, or there is too little room; else None."""
        if self.journal.fault is not None:
            return self.journal.fault
        try:
            if shutil.disk_usage(self.temporary).free < DISK_RESERVE_BYTES:
                return OSError(errno.ENOSPC, f"less than {DISK_RESERVE_BYTES >> 20} MiB are free in the data folder")
            if self._refused_bytes:
                if trio.current_time() < self._tried_at + STORE_RETRY_S:
                    return OSError(errno.ENOSPC, "an artifact was refused a moment ago")
                self._tried_at = trio.current_time()
                # A quota does not show otherwise.
                with tempfile.TemporaryFile(dir=self.temporary) as file:
                    os.posix_fallocate(file.fileno(), 0, self._refused_bytes)
                self._refused_bytes = 0
        except OSError as error:
            return error
        return None

    async def writable(self) -> None:
        """Return when there is no `fault`."""
        while True:
            if self.fault is None:
                return
            await trio.sleep(STORE_RETRY_S)

    def reports(self) -> list[str]:
        """Sentences for the log that nobody has taken yet."""
        reports, self.journal.reports[:] = list(self.journal.reports), []
        return reports

    def next_number(self) -> int:
        """A number above all others."""
        self._last_number += 1
        return self._last_number

    def get(self, job_id: str) -> Job | None:
        """The job of an id."""
        found = self.jobs.get(job_id)
        return self._job_of(found) if isinstance(found, Ended) else found

    def _job_of(self, row: Ended) -> Job:
        return Job.from_document(row.number, cast("Document", self._table.get(doc_id=row.number)))

    def newest(
        self, *, service: str | None, state: str | None, before: int | None, limit: int, key: str | None = None
    ) -> list[Job]:
        """Jobs, newest first, at most `limit`, with numbers below `before`; of one key only, where one is given."""
        fitting = (
            job
            for job in reversed(self.jobs.values())
            if (before is None or job.number < before)
            and (service is None or job.service == service)
            and (state is None or job.state == state)
            and (key is None or job.key == key)
        )
        return [self._job_of(job) if isinstance(job, Ended) else job for job in itertools.islice(fitting, limit)]

    def add(self, job: Job) -> None:
        """Know a new job; in memory only."""
        self.jobs[job.id] = job

    def put(self, job: Job) -> None:
        """Store a job as it is now; on disk once `flushed` has returned. One that ended may have others evicted."""
        self._note_secrets(job.number, job.request)
        self._table.upsert(Document(job.document(), doc_id=job.number))
        if job.ended and not isinstance(self.jobs.get(job.id), Ended):
            size = sum(self._size(one) for one in job.artifacts.values())
            row = Ended(job.id, job.number, job.service, job.state, time.monotonic(), job.key, size, job.expired)
            self.jobs[job.id] = row
            self._note_end(row)
            self._evict()

    def uses(self, key: Key) -> int:
        """How often a key with a quota was used."""
        return int(self._used[key.digest]["uses"]) if key.digest in self._used else 0

    def count_use(self, key: Key, by: int) -> None:
        """Count it once more, or once less; on disk with the job that it is about."""
        # Not their number: damage may have taken one.
        doc_id = max(self.journal.lines("uses"), default=0) + 1
        if key.digest in self._used:
            doc_id = self._used[key.digest].doc_id
        self._used[key.digest] = Document({"digest": key.digest, "uses": self.uses(key) + by}, doc_id)
        self._uses.upsert(self._used[key.digest])

    def _note_secrets(self, number: int, request: Mapping[str, Any]) -> None:
        if any(is_secret(name, value) for name, value in request.items()):
            self._secretive.add(number)
        elif number in self._secretive:
            self._secretive.remove(number)
            self.journal.scrub()

    def _note_end(self, row: Ended) -> None:
        self._young.append(row)
        if row.artifact_bytes:
            self.holding.append(row)
            self.artifact_bytes += row.artifact_bytes

    def remove(self, job: Job | Ended) -> None:
        """Forget a job that has no artifacts."""
        self._note_secrets(job.number, {})
        if self.jobs.pop(job.id, None) is not None and job.number in self.journal.lines("jobs"):
            self._table.remove(doc_ids=[job.number])

    async def save_artifact(self, name: str, data: bytes) -> None:
        """Write a file so that it is whole on disk or not there; raises OSError.

        Where the disk has no room for it, there is a `fault` until it has, and `ARTIFACT_RETRY_S` to wait for that.
        """
        give_up_at = trio.current_time() + ARTIFACT_RETRY_S
        while True:
            try:
                return await in_thread(self._save_artifact, name, data, limiter=self.file_limiter)
            except OSError as error:
                if error.errno not in DISK_ERRORS:
                    raise
                self._refused_bytes = max(1, len(data))
                if trio.current_time() >= give_up_at:
                    raise
            await trio.sleep(STORE_RETRY_S)

    def _save_artifact(self, name: str, data: bytes) -> None:
        partial = self.artifacts / f"{name}.new"
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.artifacts / name)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(self.artifacts)

    def drop_artifacts(self, artifacts: Mapping[str, Artifact]) -> None:
        """Remove files, if they are there; what a failing disk keeps is swept at the next start."""
        for one in artifacts.values():
            with contextlib.suppress(OSError):
                (self.artifacts / one.file).unlink()

    def expire(self, ttl_s: float, now: float) -> bool:
        """Expire jobs that ended `ttl_s` ago, forget them after as long again; True when that was not all yet.

        `now` is of `time.monotonic`.
        """
        for _ in range(EXPIRE_SLICE):
            if self._old and now - self._old[0].ended >= 2 * ttl_s:
                self.remove(self._old.popleft())
            elif self._young and now - self._young[0].ended >= ttl_s:
                self._strip(self._young[0])
                self._old.append(self._young.popleft())
            else:
                return False
        return True

    def _evict(self) -> None:
        """Keep to the disk budget, but for the job that ended last: its client has had no time to read it."""
        while self.artifact_bytes > self._disk_budget and len(self.holding) > 1:
            self._strip(self.holding[0])

    def _strip(self, row: Ended) -> None:
        """Take an ended job's artifacts away."""
        if row.expired:
            return
        job = self._job_of(row)
        self.drop_artifacts(job.artifacts)
        job.artifacts, job.expired = {}, True
        self.put(job)
        if row.artifact_bytes:
            self.holding.remove(row)
            self.artifact_bytes -= row.artifact_bytes
        row.artifact_bytes, row.expired = 0, True


# ---------------------------------------------------------------- attempt


@attrs.frozen
class Output:
    """What a successful attempt made: outputs and pictures of actions by their names, the main one first."""

    parts: dict[str, Part]
    meta: dict[str, Any]

    @property
    def main(self) -> Part:
        """What the client gets when it asks for the artifact itself."""
        return next(iter(self.parts.values()))


def result_of(service: ServiceName, parts: Mapping[str, Part], meta: object) -> dict[str, Any]:
    """The contract's `result`."""
    result: dict[str, Any] = {"ok": True}
    pictures = {}
    for name, part in parts.items():
        kind = part.content_type.partition(";")[0]
        if kind.startswith("image/"):
            shown: Any = {"image_base64": base64.b64encode(part.data).decode(), "content_type": part.content_type}
        else:
            shown = json.loads(part.data) if kind == "application/json" else part.data.decode()
        if service == "screenshot" and name == PICTURE:
            result |= shown
        elif name in get_args(OutputName):
            result[name] = shown
        else:
            pictures[name] = shown
    if pictures:
        result["screenshots"] = pictures
    return result | {"meta": meta}


async def attempt(
    open_page: OpenPage,
    parsed: Request,
    *,
    policy: cdp.AddressPolicy,
    authorities: cdp.Authorities | None = None,
    max_pixels: int,
    progress: Progress,
) -> Output:
    """Open, prepare, load, wait, act and capture within `timeout_ms`, with `on_timeout: capture` `LATE_CAPTURE_S` more.

    Raises JobFailed; CDPError only for what must not happen. The page is gone when this returns.
    """
    deadline = trio.current_time() + parsed.timeout_ms / 1000
    late_s = LATE_CAPTURE_S if parsed.on_timeout == "capture" else 0.0
    ledger = policy.ledger()
    try:
        with trio.CancelScope(deadline=deadline) as fetching:
            if isinstance(parsed, ScrapeRequest) and parsed.render is not True:
                output = await fetch_output(policy, authorities, parsed, progress, ledger)
                if output is not None:
                    return output
        if not fetching.cancelled_caught:
            with trio.CancelScope(deadline=deadline + late_s) as whole:
                async with open_page() as page:
                    page.ledger.include(ledger)
                    visit = visit_of(page, parsed, progress, max_pixels)
                    try:
                        with trio.CancelScope(deadline=deadline):
                            await visit.open()
                            check_status(parsed, page.status_code)
                            await visit.make_ready()
                            output = await capture(visit, parsed, max_pixels)
                            # Closing has bounds of its own, and must not cost what was made in time.
                            whole.deadline = math.inf
                            return output
                    finally:
                        if progress.phase == "navigate" and page.has_document:
                            in_flight = page.still_loading()
                            progress.unfinished = (
                                f"the document did not get as far as wait_until: {parsed.wait_until}"
                                + (f"; requests in flight: {in_flight}" if in_flight else "")
                            )
                    if late_s and page.has_document:
                        page.warnings.append(f"captured after {parsed.timeout_ms} ms: {progress.unfinished}")
                        await page.stop()
                        output = await capture(visit, parsed, max_pixels)
                        whole.deadline = math.inf
                        return output
    except cdp.errors.CDPError as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise failure from error
    if progress.phase == "actions":
        raise JobFailed("action_failed", f"{progress.unfinished}, within {parsed.timeout_ms} ms", index=progress.index)
    if progress.phase == "wait_for":
        raise JobFailed("selector_not_found", f"{progress.unfinished} within {parsed.timeout_ms} ms")
    raise JobFailed("timeout", f"timeout after {parsed.timeout_ms} ms: {progress.unfinished}")


def visit_of(page: cdp.Page, parsed: Request, progress: Progress, max_pixels: int) -> Visit:
    """The way that a request asks a page to go; `render: false` is a page without JavaScript."""
    options: PageOptions = parsed if parsed.render else attrs.evolve(parsed, javascript=False)
    shot = parsed if isinstance(parsed, ScreenshotRequest) else None
    needed = None
    if parsed.selector is not None:
        needed = WaitFor(parsed.selector, "visible" if shot is not None else "attached")
    return Visit(page, options, progress, shot=shot, selector=needed, max_pixels=max_pixels)


async def capture(visit: Visit, parsed: Request, max_pixels: int) -> Output:
    """The picture or the document of a page that is ready, and what is told about it."""
    page, progress = visit.page, visit.progress
    progress.enter("capture", "the page did not let itself be captured")
    check_status(parsed, page.status_code)
    info = await page.info()
    meta: dict[str, Any] = {"url": info.url, "status_code": page.status_code, "title": info.title}
    meta["redirects"] = [url[:MAX_REPORTED_CHARS] for url in page.redirects]
    if parsed.html is not None:
        meta |= {"url": parsed.base_url or "about:blank", "status_code": 200}
    if isinstance(parsed, ScreenshotRequest):
        picture = await page.screenshot(parsed, max_pixels=max_pixels)
        parts = {PICTURE: Part(picture.data, picture.content_type)}
        meta |= {"width": picture.width, "height": picture.height}
    else:
        parts = await scrape_page(page, parsed, info.url, max_pixels=max_pixels)
    for record in visit.records:
        if record.picture is not None and record.name is not None:
            parts[record.name] = Part(record.picture.data, record.picture.content_type)
    if visit.records:
        meta["actions"] = [record.as_meta() for record in visit.records]
    progress.enter("close", "the page could not be closed")
    return Output(parts, finished_meta(parsed, meta, progress, page.ledger, page.warnings, page.product))


def check_status(parsed: Request, status_code: int | None) -> None:
    """Raise JobFailed for a status that the client does not want."""
    if status_code is not None and any(pattern.fits(status_code) for pattern in parsed.fail_on_status):
        raise JobFailed("http_error", f"the server answered {status_code}, which fail_on_status names")


def finished_meta(
    parsed: Request,
    meta: dict[str, Any],
    progress: Progress,
    ledger: Ledger,
    warnings: list[str],
    product: str | None,
) -> dict[str, Any]:
    """`result.meta` with what is known at the end."""
    meta |= {"elapsed_ms": progress.elapsed_ms, "timings": progress.timings, "browser": product}
    # A move to a host that was refused is told already, with the same reason.
    refusals = [text for text in ledger.warnings if not any(text.partition(": ")[2] in told for told in warnings)]
    meta |= {"warnings": [*warnings, *refusals], "network": ledger.as_meta()}
    if isinstance(parsed, ScrapeRequest):
        meta["duration_ms"] = meta["elapsed_ms"]
    return meta


async def fetch_output(
    policy: cdp.AddressPolicy,
    authorities: cdp.Authorities | None,
    parsed: ScrapeRequest,
    progress: Progress,
    ledger: Ledger,
) -> Output | None:
    """A scrape without a browser; with `render: auto` None when it takes one."""
    auto = parsed.render == "auto"
    if auto and needs_browser(parsed):
        return None
    assert parsed.url is not None
    progress.enter("navigate", "the server did not answer")
    try:
        fetched = await fetch(policy, parsed, authorities=authorities, ledger=ledger)
    except cdp.errors.NotAPage:
        if auto:
            return None
        raise
    if auto and await trio.to_thread.run_sync(has_scripts, fetched.html, abandon_on_cancel=True):
        return None
    check_status(parsed, fetched.status_code)
    progress.enter("capture", "the document was not read")
    parts = await scrape_document(fetched, parsed)
    progress.enter("close", "")
    title, url = title_of(fetched.html)[:MAX_REPORTED_CHARS], fetched.url[:MAX_REPORTED_CHARS]
    meta = {"url": url, "status_code": fetched.status_code, "title": title}
    meta["redirects"] = [url[:MAX_REPORTED_CHARS] for url in fetched.redirects]
    return Output(parts, finished_meta(parsed, meta, progress, ledger, [], None))


def needs_browser(parsed: ScrapeRequest) -> bool:
    """Whether a request says by itself that only a browser will do."""
    default = ScrapeRequest()
    asked = any(getattr(parsed, name) != getattr(default, name) for name in (*SCRIPT_FIELDS, *BROWSER_FIELDS))
    return asked or is_found_by_browser(parsed.selector) or "screenshot" in parsed.outputs


# ---------------------------------------------------------------- events

# Who waits for the next event of any job; a job's own topic is its id, its end's (END, id).
ALL, END = "*", "end"


@attrs.frozen(slots=False)
class JobEvent:
    """What is told to those who follow jobs, as api.md has it; `quiet` is that nothing happened for a while."""

    name: Literal["job", "progress", "hello", "reset", "quiet"]
    id: str
    data: dict[str, Any]
    job_id: str | None = None
    key: str | None = None

    @functools.cached_property
    def text(self) -> bytes:
        """As a stream of server-sent events has it; one without data moves the id on, and is no event."""
        told = f"event: {self.name}\ndata: {json.dumps(self.data)}" if self.name != "quiet" else ": keep-alive"
        return f"id: {self.id}\n{told}\n\n".encode()

    def is_for(self, job: Job | None, key: Key | None) -> bool:
        """Whether who follows one job, or all that a key may see, is told of it. The end of one is told apart."""
        if job is None:
            return key is None or self.key == key.name
        return self.job_id == job.id and self.data["status"] not in (State.DONE, State.FAILED)


class Broadcast:
    """What happened to jobs, kept once for all who follow; each reads at his own pace. `followers` counts them."""

    def __init__(self) -> None:
        # Numbers begin anew with each run of the service.
        self._run = uuid.uuid4().hex[:8]
        self._kept = deque[JobEvent](maxlen=EVENTS_KEPT)
        self.last = 0
        self.followers = 0
        self._arrivals: dict[object, trio.Event] = {}

    def publish(self, name: Literal["job", "progress"], job: Job, data: dict[str, Any]) -> None:
        """Tell all who follow the job."""
        self.last += 1
        self._kept.append(JobEvent(name, self.id_of(self.last), data, job.id, job.key))
        self.wake(ALL)
        self.wake(job.id)

    def wake(self, topic: object) -> None:
        """Let who waits for a topic go on."""
        if (event := self._arrivals.pop(topic, None)) is not None:
            event.set()

    def wake_all(self) -> None:
        """Let everybody go on."""
        for topic in list(self._arrivals):
            self.wake(topic)

    async def arrival(self, topic: object) -> None:
        """Wait until a topic is woken."""
        await self._arrivals.setdefault(topic, trio.Event()).wait()

    def after(self, number: int) -> list[JobEvent] | None:
        """What came after a number; None where some of it is not kept any more."""
        if self.last - number > len(self._kept):
            return None
        return list(itertools.islice(reversed(self._kept), self.last - number))[::-1]

    def id_of(self, number: int) -> str:
        """What a client calls a number."""
        return f"{self._run}-{number}"

    def number_of(self, event_id: str | None) -> int | None:
        """The number that a client was told; None for one that is not of this run."""
        run, _, digits = (event_id or "").partition("-")
        if run != self._run or not re.fullmatch("[0-9]{1,18}", digits):
            return None
        return number if (number := int(digits)) <= self.last else None


# ---------------------------------------------------------------- counts

# Upper bounds of the buckets of histograms.
PHASE_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ATTEMPT_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
WAIT_BOUNDS_S = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
# By the value of their label: finding it costs as much as the rest.
Durations = dict[str, Histogram]


class Tally:
    """What a service did since it began; `Metrics` shows it."""

    def __init__(self) -> None:
        self.submitted = Counter[ServiceName]()
        # By service, state and error code.
        self.ended = Counter[tuple[ServiceName, State, str]]()
        # Has the durations.
        self.registry = CollectorRegistry()

        def durations(name: str, text: str, label: str, values: Iterable[str], bounds_s: Sequence[float]) -> Durations:
            family = Histogram(f"cleariflow_{name}_seconds", text, [label], buckets=bounds_s, registry=self.registry)
            return {value: family.labels(value) for value in values}

        text = "From a job's submission to its first attempt"
        self.waits = durations("queue_wait", text, "service", REQUEST_CLASSES, WAIT_BOUNDS_S)
        text = "Whole attempts, however they ended"
        self.attempts = durations("attempt", text, "service", REQUEST_CLASSES, ATTEMPT_BOUNDS_S)
        text = "Phases of attempts; settling is several of them"
        self.phases = durations("phase", text, "phase", PHASES, PHASE_BOUNDS_S)

    def note_attempt(self, service: ServiceName, progress: Progress) -> None:
        """Count an attempt, however it ended."""
        self.attempts[service].observe(progress.elapsed_ms / 1000)
        for phase, seconds in progress.phases_s.items():
            self.phases[phase].observe(seconds)


# ---------------------------------------------------------------- service

NO_JOB = "there is no job of this id"
RESULT_GONE = "the result is gone: --result-ttl is over, or --disk-budget needed its room"


@contextlib.contextmanager
def artifact_present() -> Iterator[None]:
    """An artifact may expire between the look at its job and its reading: that is `expired` too."""
    try:
        yield
    except FileNotFoundError:
        raise ServiceError("expired", RESULT_GONE) from None


class Service:
    """The service without HTTP; made by `open_service`."""

    def __init__(
        self,
        config: Config,
        store: Store,
        pool: cdp.Pool,
        policy: cdp.AddressPolicy,
        authorities: cdp.Authorities | None = None,
    ) -> None:
        self.config = config
        self.store = store
        self.pool = pool
        self.policy = policy
        self.authorities = authorities
        self.keys = Keys(config)
        self.draining = False
        # The grace is over: nobody waits any more.
        self.stopped = False
        self._schedule = Schedule(self.keys.concurrency)
        self._running: dict[str, trio.CancelScope] = {}
        self.events = Broadcast()
        self.tally = Tally()
        self._idle = trio.Event()

    # Submitting

    async def submit(
        self, service: ServiceName, given: Mapping[str, Any], priority: int = 0, key: Key | None = None
    ) -> Job:
        """Queue a job of a request as JSON has it; returns once it is on disk. `key` is the client's, where it has one.

        Raises ValidationError and ServiceError (`draining`, `queue_full`, `storage_full`, and for the key
        `unauthorized`, `rate_limited`, `quota_reached`). Cancelled while it waits for the disk, the job stays.
        """
        job = self._accept(service, given, priority, key, sync=False)
        try:
            await self.store.flushed()
        except StoreError as error:
            # The client will try again.
            if job.state is State.QUEUED:
                self._schedule.remove(job)
                self.store.remove(job)
                fail(job, JobFailed("cancelled", "the job could not be stored"))
                self._note_end(job)
                self._wake(job)
                if key is not None and key.quota is not None:
                    self.store.count_use(key, -1)
            else:
                self.cancel(job)
            raise ServiceError("storage_full", f"the job could not be stored: {error}", retry_after_s=10) from error
        return job

    async def capture(self, service: ServiceName, given: Mapping[str, Any], key: Key | None = None) -> Job:
        """Run a job before queued ones of its priority and return it when it has ended.

        Raises as `submit`, and ServiceError `no_browser` or, when no worker was free within the request's own
        `timeout_ms`, `deadline`. Cancelled, the job is cancelled too.
        """
        if not await self._has_browser():
            raise ServiceError("no_browser", f"no browser can be started: {self.pool.fault}", retry_after_s=10)
        job = self._accept(service, given, 0, key, sync=True)
        try:
            timeout_s = job.request.get("timeout_ms", BaseRequest().timeout_ms) / 1000
            with trio.move_on_after(timeout_s):
                await self.wait(job)
            if job.state is State.QUEUED:
                busy = (
                    "no worker was free" if key is None else "no worker was free, or the key's --concurrency reached,"
                )
                raise ServiceError("deadline", f"{busy} within {timeout_s:g} s: submit a job instead")
            await self.wait(job)
            if not job.ended or (self.draining and job.error_code == "cancelled"):
                raise ServiceError("draining", "the service is stopping", retry_after_s=10)
        finally:
            self.cancel(job)
        return job

    def unready(self) -> dict[str, str]:
        """Why no job can be run now: by the contract's codes, the one that counts first."""
        reasons = {}
        if self.draining:
            reasons["draining"] = "the service is stopping"
        if (fault := self.store.fault) is not None:
            reasons["storage_full"] = f"the store cannot be written: {fault}; jobs go on when it can (see --data-dir)"
        if not self.pool.available:
            hint = "" if self.pool.fault is None else "; `cleariflow doctor` looks for the cause"
            reasons["no_browser"] = self.pool.state + hint
        return reasons

    async def _has_browser(self) -> bool:
        self.pool.wake()
        with trio.move_on_after(BROWSER_START_S):
            while self.pool.browser is None and self.pool.fault is None:
                await self.pool.changed()
        return self.pool.browser is not None

    def _accept(
        self, service: ServiceName, given: Mapping[str, Any], priority: int, key: Key | None, *, sync: bool
    ) -> Job:
        """Check a request and queue its job, in one synchronous step."""
        if key is not None:
            if key.service not in (None, service):
                raise ServiceError("unauthorized", f"the API key is for {key.service} only")
            self.keys.take_turn(key)
        parsed = parse_request(service, given, self.config)
        targets = {"url": parsed.url} if parsed.url is not None else {}
        targets |= {f"actions[{at}].url": step.url for at, step in enumerate(parsed.actions) if isinstance(step, Goto)}
        for field, url in targets.items():
            if reason := self.policy.judge_host(*endpoint_of(url)):
                raise ValidationError([Fault(field, f"blocked target: {reason}")], code="blocked_target")
        if self.draining:
            raise ServiceError("draining", "the service is stopping", retry_after_s=10)
        if (fault := self.store.fault) is not None:
            raise ServiceError("storage_full", f"the store cannot be written: {fault}", retry_after_s=10)
        if len(self._schedule) >= self.config.queue_limit:
            message = f"the queue is full: --queue-limit is {self.config.queue_limit}"
            raise ServiceError("queue_full", message, retry_after_s=5)
        if self._schedule.chars > MAX_QUEUED_CHARS:
            message = f"the queue is full: its requests have more than {MAX_QUEUED_CHARS} characters in all"
            raise ServiceError("queue_full", message, retry_after_s=5)
        if key is not None and key.quota is not None:
            if self.store.uses(key) >= key.quota:
                raise ServiceError(
                    "quota_reached", f"the key's quota is used up: {key.quota} submissions (keys add --quota)"
                )
            self.store.count_use(key, 1)
        number, document = self.store.next_number(), request_document(parsed)
        name = key.name if key is not None else None
        job = Job(number=number, service=service, request=document, priority=priority, key=name, sync=sync)
        self.store.add(job)
        self._put(job)
        self._schedule.push(job)
        self.tally.submitted[service] += 1
        logger.info("%s queued", service, extra=about(job))
        return job

    def _put(self, job: Job) -> None:
        """Store a job; a synchronous one needs no durability until it ends."""
        if not job.sync or job.ended:
            self.store.put(job)
        if job.ended:
            self._note_end(job)
        else:
            self._tell(job)

    async def retry(self, job: Job, given: Mapping[str, Any], key: Key | None = None) -> Job:
        """Queue the request of a job that ended once more; `given` has the fields of it that were wiped then.

        Raises as `submit`, ServiceError `not_ended`, and ValidationError `conflict` for fields that are missing.
        """
        if not job.ended:
            raise ServiceError("not_ended", f"the job is {job.state}: it can be retried when it has ended")
        if job.wiped is not None:
            stays = "is none of the fields that were wiped: " + (", ".join(job.wiped) or "there are none")
            if others := [Fault(f"request.{name[:MAX_ECHO]}", stays) for name in given if name not in job.wiped]:
                raise ValidationError(others[:MAX_FAULTS])
            gone = "was wiped when the job ended: give it anew"
            if missing := [Fault(f"request.{name}", gone) for name in job.wiped if name not in given]:
                raise ValidationError(missing, code="conflict")
        return await self.submit(job.service, job.request | dict(given), job.priority, key)

    # Following

    def job(self, job_id: str) -> Job:
        """The job of an id; raises ServiceError `not_found`."""
        job = self.store.get(job_id)
        if job is None:
            raise ServiceError("not_found", NO_JOB)
        return job

    async def wait(self, job: Job, timeout_s: float = math.inf) -> Job:
        """The job once it has ended, or after the time, or when the service begins to stop, as it is then."""
        if not (job.ended or self.stopped):
            with trio.move_on_after(timeout_s):
                await self.events.arrival((END, job.id))
        return job

    def _wake(self, job: Job) -> None:
        """Tell of a job's end."""
        self._tell(job)
        self.events.wake((END, job.id))

    def _note_end(self, job: Job) -> None:
        """Count and log a job's end."""
        code, elapsed_ms = job.error_code, milliseconds_between(job.started_at, job.finished_at) or 0
        self.tally.ended[job.service, job.state, code or ""] += 1
        why = f" with {code}: {job.error}" if code else ""
        extra = about(job) | {"state": job.state, "code": code, "elapsed_ms": elapsed_ms}
        logger.info("%s in %d ms, attempts: %d%s", job.state, elapsed_ms, job.attempts, why, extra=extra)

    def _tell(self, job: Job) -> None:
        self.events.publish("job", job, job.row() | {"queue": self.queue()})

    def _enter(self, job: Job, phase: str) -> None:
        if job.ended:
            # Cancelled; its page is about to be closed.
            return
        job.phase, job.progress = phase, max(job.progress, round(PHASES.index(phase) / len(PHASES), 2))
        data = {"job_id": job.id, "status": job.state, "phase": phase, "progress": job.progress}
        self.events.publish("progress", job, data)

    def queued(self) -> Iterable[Job]:
        """The jobs that wait for a worker."""
        return self._schedule

    def queue(self) -> dict[str, int]:
        """How many jobs wait and run, and how many could run."""
        # One that has ended has its worker for a moment longer.
        known = map(self.store.jobs.get, self._running)
        running = sum(1 for job in known if job is not None and job.state is State.RUNNING)
        return {"queued": len(self._schedule), "running": running, "workers": self.config.workers}

    async def follow(
        self, job: Job | None = None, *, key: Key | None = None, after: str | None = None
    ) -> AsyncGenerator[JobEvent, None]:
        """What happens to a job until its end, or to all jobs (of a key), until the service stops.

        `after` is the id of the event that was read last. Who is too slow for what is kept gets the job as it is, or
        `reset`: the lists must be read again.
        """
        async with contextlib.aclosing(self.news(job, key=key, after=after)) as news:
            async for events in news:
                for event in events:
                    yield event

    async def news(
        self,
        job: Job | None = None,
        *,
        key: Key | None = None,
        after: str | None = None,
        quiet_s: float = math.inf,
        allowed: Callable[[], bool] = lambda: True,
    ) -> AsyncGenerator[list[JobEvent], None]:
        """As `follow`, with all that is there at once, and `quiet` when nothing was told for so long.

        It ends, too, when it is not `allowed` any more.
        """
        events = self.events
        number = events.last if after is None and job is None else events.number_of(after)
        told = list[JobEvent]()
        if job is None:
            hello = {"queue": self.queue(), "version": __version__}
            told.append(JobEvent("hello", events.id_of(events.last if number is None else number), hello))
        told_at = trio.current_time()
        events.followers += 1
        try:
            while allowed():
                new = events.after(number) if number is not None else None
                number = events.last
                if new is not None:
                    told += [event for event in new if event.is_for(job, key)]
                elif job is None:
                    told.append(JobEvent("reset", events.id_of(number), {}))
                elif not job.ended:
                    told.append(JobEvent("job", events.id_of(number), job.row()))
                if job is not None and job.ended:
                    yield [*told, JobEvent("job", END, job.row())]
                    return
                if told:
                    yield told
                    told, told_at = [], trio.current_time()
                if self.stopped:
                    return
                if number == events.last:
                    with trio.move_on_at(told_at + quiet_s) as quiet:
                        await events.arrival(ALL if job is None else job.id)
                    if quiet.cancelled_caught:
                        told.append(JobEvent("quiet", events.id_of(number), {}))
        finally:
            events.followers -= 1

    def position(self, job: Job) -> int:
        """How many jobs go before a queued one."""
        return self._schedule.position(job)

    def artifact(self, job: Job, name: str | None = None) -> Artifact:
        """A job's main output, or the one of a name; raises ServiceError `not_ended`, `expired`, `job_failed`."""
        if not job.ended:
            raise ServiceError("not_ended", f"the job is {job.state}")
        if job.expired:
            raise ServiceError("expired", RESULT_GONE)
        if not job.artifacts:
            raise ServiceError("job_failed", job.error or "the job failed")
        if name is None:
            return next(iter(job.artifacts.values()))
        if name not in job.artifacts:
            raise ServiceError("not_found", f"the job has no {name[:MAX_ECHO]!r}; it has {', '.join(job.artifacts)}")
        return job.artifacts[name]

    async def output(self, job: Job, name: str | None = None) -> bytes:
        """The bytes of a job's main output, or of the one of a name; raises as `artifact`."""
        path = self.store.artifacts / self.artifact(job, name).file
        with artifact_present():
            return await in_thread(path.read_bytes, limiter=self.store.file_limiter)

    def cancel(self, job: Job) -> None:
        """End a job as `cancelled`: a queued one never starts, a running one's page is closed; an ended one stays."""
        if job.ended:
            return
        if job.state is State.QUEUED:
            self._schedule.remove(job)
        fail(job, JobFailed("cancelled", "the job was cancelled"))
        self._put(job)
        if (scope := self._running.get(job.id)) is not None:
            scope.cancel()
        self._wake(job)

    # Working

    async def work(self) -> None:
        """Run jobs one after the other until the service drains; one task for each attempt at once."""
        while True:
            await self._schedule.arrival()
            await self.store.writable()
            await self.pool.ready()
            if self.draining:
                return
            if (job := self._schedule.take()) is not None:
                await self._run(job)

    async def _run(self, job: Job) -> None:
        transition(job, Step.LEASED)
        self._put(job)
        if job.attempts == 1:
            self.tally.waits[job.service].observe((job.queue_ms or 0) / 1000)
        scope = self._running[job.id] = trio.CancelScope()
        in_context = WORKING_FOR.set(job)
        try:
            with scope:
                outcome = await self._attempts(job)
                try:
                    await self._finish(job, outcome)
                except Exception:
                    # As in an attempt: else the next start of the service would meet the same job first.
                    logger.exception("its end broke")
                    await self._finish(job, JobFailed("internal", INTERNAL_ERROR))
        finally:
            del self._running[job.id]
            self._schedule.done(job)
            if job.state is State.RUNNING:
                # The service stops before the job has ended.
                if job.sync:
                    self.cancel(job)
                else:
                    transition(job, Step.RETURNED)
                    self._put(job)
                    self._schedule.push(job)
            WORKING_FOR.reset(in_context)
            if not self._running:
                self._idle.set()

    async def _attempts(self, job: Job) -> Output | JobFailed:
        """Attempts until one ends the job; a lost browser costs one of `LOSSES_ALLOWED`, a page one of `retries`."""
        while True:
            try:
                parsed = parse_request(job.service, job.request, self.config)
                # After two losses it may be the page that takes browsers with it.
                alone = job.losses > 1
                async with self.pool.alone() if alone else contextlib.nullcontext(self.pool.open_page) as open_page:
                    progress = Progress(functools.partial(self._enter, job))
                    try:
                        return await attempt(
                            open_page,
                            parsed,
                            policy=self.policy,
                            authorities=self.authorities,
                            max_pixels=self.config.max_pixels,
                            progress=progress,
                        )
                    finally:
                        self.tally.note_attempt(job.service, progress)
            except ValidationError as error:
                # Settings became narrower between two runs of the service.
                return JobFailed("invalid_request", str(error))
            except JobFailed as error:
                failure = error
            except Exception:
                # The one place where a bug of ours meets a job: it must not take the worker with it.
                logger.exception("attempt %d broke", job.attempts)
                failure = JobFailed("internal", INTERNAL_ERROR)
            # A stop or a cancel that came meanwhile is no failure.
            await trio.lowlevel.checkpoint()
            lost = failure.code == "browser_lost"
            page_failures = sum(1 for noted in job.attempt_errors if noted["code"] in RETRIED_CODES)
            job.note_failure(failure)
            if not is_tried_again(failure, job.losses, page_failures, parsed.retries):
                return failure
            logger.warning("attempt %d failed with %s: %s", job.attempts, failure.code, failure)
            # Before any wait: a kill in it must not make the allowance new.
            job.losses += lost
            self._put(job)
            if not lost:
                await trio.sleep(RETRY_DELAYS_S[page_failures])
            if job.sync and not await self._has_browser():
                return failure
            await self.pool.ready()
            # A cancel changes the job while this task is about to go on.
            await trio.lowlevel.checkpoint()
            job.attempts += 1
            self._put(job)

    async def _finish(self, job: Job, outcome: Output | JobFailed) -> None:
        """Artifacts first, then the job's end, then whoever waits."""
        artifacts: dict[str, Artifact] = {}
        try:
            if isinstance(outcome, Output):
                for number, (name, part) in enumerate(outcome.parts.items()):
                    file = f"{job.id}{f'-{number}' if number else ''}.{part.extension}"
                    artifacts[name] = Artifact(file, part.content_type, len(part.data))
                    await self.store.save_artifact(file, part.data)
                if not job.ended:
                    transition(job, Step.SUCCEEDED, artifacts=artifacts, result_meta=outcome.meta)
        except OSError as error:
            logger.error("its result could not be stored: %s", error)
            outcome = JobFailed("internal", f"the result could not be stored: {os.strerror(error.errno or 0)}")
        finally:
            if job.state is not State.DONE:
                # Cancelled meanwhile, or not stored as a whole.
                self.store.drop_artifacts(artifacts)
        if isinstance(outcome, JobFailed) and not job.ended:
            fail(job, outcome)
        elif job.state is not State.DONE:
            return
        self._put(job)
        try:
            await self.store.flushed()
        except StoreError:
            # The writer tries again; what ended has ended.
            pass
        finally:
            self._wake(job)

    # Beginning and end

    def recover(self) -> None:
        """Put what a former run left where it belongs: queued and lost jobs into the schedule, or to their end."""
        self._tell_reports()
        for job in [job for job in self.store.jobs.values() if isinstance(job, Job)]:
            if job.state is State.RUNNING:
                lost = JobFailed(
                    "worker_lost", f"the service or its browser ended {job.losses + 1} times while the job ran"
                )
                # Else it ended in the pause before the next attempt.
                if all(noted["attempt"] != job.attempts for noted in job.attempt_errors):
                    job.losses += 1
                    job.note_failure(lost)
                if job.losses > LOSSES_ALLOWED:
                    fail(job, lost)
                    self._note_end(job)
                else:
                    transition(job, Step.RETURNED)
                self.store.put(job)
            if job.state is State.QUEUED:
                self._schedule.push(job)
        if len(self._schedule):
            logger.info("%d jobs queued by a former run", len(self._schedule))

    def _tell_reports(self) -> None:
        for report in self.store.reports():
            logger.warning("%s", report)

    async def retain(self) -> None:
        """Expire ended jobs for ever, and tell what the store has to say."""
        while True:
            self._tell_reports()
            more = self.store.expire(self.config.result_ttl, time.monotonic())
            await trio.sleep(0 if more else min(60.0, self.config.result_ttl / 4))

    async def drain(self, grace_s: float) -> None:
        """Take no more work, give running attempts this long to end; synchronous calls in the queue fail at once."""
        self.draining = True
        for job in self._schedule:
            if job.sync:
                self.cancel(job)
        try:
            with trio.move_on_after(grace_s):
                while self._running:
                    self._idle = trio.Event()
                    await self._idle.wait()
        finally:
            self.stop()

    def stop(self) -> None:
        """Let nobody wait any more: long-polls see their job as it is."""
        self.draining = self.stopped = True
        self.events.wake_all()


def open_browser(
    config: Config, policy: cdp.AddressPolicy, authorities: cdp.Authorities | None, profiles: Path | None = None
) -> AbstractAsyncContextManager[cdp.Browser]:
    """A browser as the settings want it."""
    return cdp.open_browser(
        config.browser,
        switches=config.browser_arg,
        policy=policy,
        authorities=authorities,
        profile_root=profiles,
        max_message_bytes=cdp.max_message_bytes(config.max_pixels),
    )


@asynccontextmanager
async def open_service(config: Config | None = None) -> AsyncIterator[Service]:
    """Run the service, without HTTP, until the body ends.

    Raises StoreError, ConfigError. Resource handling: on leaving, running jobs go back to the queue, all is flushed,
    the browsers are gone. Call `drain` first to let them finish.
    """
    config = config or load_config(serves=False)
    store = Store(Path(config.data_dir), config.disk_budget)
    policy, authorities = config.policy, config.authorities
    open_one = functools.partial(open_browser, config, policy, authorities, store.temporary)
    async with open_tasks() as writer:
        await writer.start(store.run)
        async with (
            cdp.open_pool(
                open_one,
                browsers=config.browsers,
                limits=config.browser_limits,
                pages_ahead=config.workers if config.pages_ahead is None else config.pages_ahead,
            ) as pool,
            open_tasks() as workers,
        ):
            service = Service(config, store, pool, policy, authorities)
            service.recover()
            workers.start_soon(service.retain)
            for _ in range(config.workers):
                workers.start_soon(service.work)
            try:
                yield service
            finally:
                service.stop()
                workers.cancel_scope.cancel()
                # A browser that hangs could hold their clean-up for some seconds.
                pool.give_up()


# ---------------------------------------------------------------- metrics

# Anybody may scrape: all processes of the machine are looked at once in this time.
LOOK_AGE_S = 1.0
# Each with its labels.
Values = Iterable[tuple[tuple[str, ...], float]]


def family(
    cls: type[CounterMetricFamily] | type[GaugeMetricFamily], name: str, text: str, values: float | Values, *labels: str
) -> Metric:
    """A counter or a gauge: one value, or several by their labels."""
    made = cls(f"cleariflow_{name}", text, labels=labels)
    for shown, value in values if isinstance(values, Iterable) else [((), values)]:
        made.add_metric(shown, value)
    return made


counter, gauge = functools.partial(family, CounterMetricFamily), functools.partial(family, GaugeMetricFamily)


class Metrics(Collector):
    """What Prometheus scrapes: each time the service is read as it is then.

    Labels come from fixed sets. There is no URL in it, no key's name and nothing that a client or a page gave.
    """

    def __init__(self, service: Service, connections: Callable[[], int]) -> None:
        self._service = service
        self._connections = connections
        # Not the global one: a process may have several services.
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._usage = cdp.pool.Usage(0, 0, 0.0)
        self._look_at = -math.inf

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """The text in the format that the header `Accept` asks for, and its content type."""
        if trio.current_time() >= self._look_at:
            self._look_at = trio.current_time() + LOOK_AGE_S
            self._usage = await self._service.pool.usage()
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):
            # The version is no number.
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """All metrics but those of the process."""
        yield from self._jobs()
        yield from self._browsers()
        yield from self._egress()
        yield from self._store()
        yield gauge("build_info", "Which version runs", [((__version__,), 1)], "version")
        yield gauge("connections", "Open connections of HTTP clients", self._connections())
        yield gauge("event_streams", "Open streams of events", self._service.events.followers)

    def _jobs(self) -> Iterator[Metric]:
        service, tally = self._service, self._service.tally
        yield gauge("ready", "1 where /readyz answers 200", not service.unready())
        submitted = [((name,), tally.submitted[name]) for name in REQUEST_CLASSES]
        yield counter("jobs_submitted_total", "Jobs that were accepted", submitted, "service")
        ends = [(State.DONE, ""), *((State.FAILED, code) for code in ERROR_CODES)]
        ended = [((name, *end), tally.ended[name, *end]) for name in REQUEST_CLASSES for end in ends]
        yield counter("jobs_ended_total", "Jobs that ended, by error code", ended, "service", "state", "code")
        waiting = Counter(job.service for job in service.queued())
        queued = [((name,), waiting[name]) for name in REQUEST_CLASSES]
        yield gauge("jobs_queued", "Jobs that wait for a worker", queued, "service")
        oldest = min((job.created_at for job in service.queued()), default=None)
        age_s = (milliseconds_between(oldest, now_text()) or 0) / 1000
        yield gauge("queue_oldest_seconds", "Since the submission of the job that waits for longest", age_s)
        yield gauge("jobs_running", "Jobs that have a worker", service.queue()["running"])
        yield gauge("workers", "Jobs that may run at once", service.config.workers)
        for durations in tally.registry.collect():
            # When a label was first known tells nothing here.
            durations.samples = [one for one in durations.samples if not one.name.endswith("_created")]
            yield durations

    def _browsers(self) -> Iterator[Metric]:
        pool, usage, pages = self._service.pool, self._usage, self._service.pool.pages
        yield counter("browser_launches_total", "Browsers that were started", pool.launches)
        yield counter("browser_launch_failures_total", "Browsers that could not be started", pool.failures)
        retired = [((reason,), pool.retired[reason]) for reason in get_args(Retirement)]
        yield counter("browser_retirements_total", "Browsers that were given up, and why", retired, "reason")
        yield counter("browser_renderers_killed_total", "Pages that held too much memory", pool.renderers_killed)
        used = [(("in_use",), pages.in_use), (("ahead",), pages.ahead)]
        yield gauge("browser_pages", "Pages that are open, for a job or ahead of one", used, "use")
        yield counter("browser_pages_opened_total", "Pages that were opened", pages.opened)
        yield gauge("browser_processes", "Processes of all browsers", usage.processes)
        yield gauge("browser_memory_bytes", "Held by them, without mapped files (--browser-memory)", usage.held_bytes)
        yield counter("browser_cpu_seconds_total", "CPU time of all browsers, as far as scrapes saw it", usage.cpu_s)

    def _egress(self) -> Iterator[Metric]:
        totals = self._service.policy.totals
        passed = [(("received",), totals.bytes_received), (("sent",), totals.bytes_sent)]
        yield counter("egress_bytes_total", "Between pages and servers", passed, "direction")
        yield counter("egress_connections_total", "Connections to servers", totals.connections)
        failures = [((kind.name,), totals.failures[kind]) for kind in FailureKind]
        text = "Connections that failed or broke; blocked: refused as --allow-network does not allow it"
        yield counter("egress_failures_total", text, failures, "kind")
        yield counter("egress_ads_blocked_total", "Connections refused by block_ads", totals.ads_blocked)

    def _store(self) -> Iterator[Metric]:
        store, counts = self._service.store, self._service.store.journal.counts
        yield counter("store_commits_total", "Groups of changes that came to disk", counts.commits)
        yield counter("store_folds_total", "Times that the journal was written anew", counts.folds)
        yield counter("store_faults_total", "Writes that the disk refused", counts.faults)
        yield counter("store_written_bytes_total", "Written to the journal", counts.written_bytes)
        text = "Calls of fsync for the journal"
        yield SummaryMetricFamily("cleariflow_store_fsync_seconds", text, counts.fsyncs, counts.fsync_s)
        yield gauge("store_journal_bytes", "Size of the journal", store.journal.size_bytes)
        yield gauge("store_jobs", "Jobs that are known, those that ended too", len(store.jobs))
        yield gauge("artifacts", "Ended jobs whose artifacts are kept", len(store.holding))
        yield gauge("artifact_bytes", "Size of all artifacts (--disk-budget)", store.artifact_bytes)
        with contextlib.suppress(OSError):
            yield gauge("disk_free_bytes", "Free in the data folder", shutil.disk_usage(store.temporary).free)


# ---------------------------------------------------------------- HTTP messages

# Of refusals, and of synchronous calls whose jobs failed; every other code of those is 424.
HTTP_STATUS = {
    "invalid_request": 400,
    "blocked_target": 400,
    "unauthorized": 401,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_ended": 409,
    "conflict": 409,
    "expired": 410,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "quota_reached": 422,
    "job_failed": 424,
    "queue_full": 429,
    "rate_limited": 429,
    "internal": 500,
    "draining": 503,
    "no_browser": 503,
    "storage_full": 503,
    "browser_lost": 503,
    "worker_lost": 503,
    "deadline": 504,
    "timeout": 504,
}
# Where the scope has the client's Host header, and the stack that closes files when the request is over.
HOST_KEY = "cleariflow.host"
FILES_KEY = "cleariflow.files"
# No route has it.
NO_PATH = "/?"
# What quart refuses by itself.
HTTP_ERROR_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
# More in one request are not looked at.
MAX_KEYS_SHOWN = 4
KEY_HINT = (
    'send it as "api_key" in the request, as Authorization: Bearer, as X-API-Key or as ?api_key=; '
    "the operator makes one with `cleariflow.py keys add NAME`"
)
SERVICE_HINT = (
    "which service? send it to the host screenshot.localhost or scrape.localhost, to /screenshot/v1/jobs or "
    '/scrape/v1/jobs, or add "service": "screenshot" or "scrape" beside "request"'
)


@attrs.frozen
class Submission:
    """The body of `POST /v1/jobs`."""

    request: Annotated[dict[str, Any], "the request of the service"]
    priority: Annotated[int, Range(-(2**31), 2**31 - 1), "larger first"] = 0
    service: Annotated[ServiceName, "where host and path do not say it"] | None = None


converter.register_structure_hook_func(
    lambda kind: kind == dict[str, Any], lambda value, _: strict(value, "an object", (dict,))
)


def error_body(code: str, message: str, faults: list[Fault] | None = None) -> dict[str, Any]:
    """The contract's error object."""
    error: dict[str, Any] = {"code": code, "message": message}
    if faults:
        error["field"] = faults[0].field
        error["faults"] = [attrs.asdict(fault) for fault in faults]
    return {"ok": False, "error": error}


def json_response(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(json.dumps(body), status, {"Content-Type": "application/json", **(headers or {})})


def json_pieces(text: str, files: Mapping[str, tuple[BinaryIO, str]]) -> Iterator[bytes]:
    """A JSON text in pieces; in place of each mark in `files` stands that file, shown as its content type is."""
    for mark in sorted(files, key=text.index):
        before, _, text = text.partition(mark)
        yield before.encode()
        file, kind = files[mark]
        blocks = iter(functools.partial(file.read, PIECE_BYTES), b"")
        if kind == "application/json":
            yield from blocks
        elif kind.startswith("image/"):
            yield from map(base64.b64encode, blocks)
        else:
            yield from (json.dumps(letters)[1:-1].encode() for letters in codecs.iterdecode(blocks, "utf-8"))
    yield text.encode()


@attrs.frozen
class Retry:
    """The body of `POST /v1/jobs/{id}/retry`, which may be left out."""

    request: Annotated[dict[str, Any], "fields that were wiped when the job ended, and the key"] = attrs.field(
        factory=dict
    )


@attrs.frozen
class ReadQuery:
    """Of `GET /v1/jobs/{id}`."""

    wait: Annotated[float, Range(0), "seconds to wait for the job's end; at most 60 count"] = 0.0
    result: Annotated[bool, "false leaves the output out"] = True


@attrs.frozen
class ListQuery:
    """Of `GET /v1/jobs`."""

    status: Annotated[Literal["queued", "running", "done", "failed"], "only jobs in this state"] | None = None
    limit: Annotated[int, Range(1, LIST_LIMIT), "how many"] = 100
    cursor: Annotated[int, Range(0), "`next` of the page before"] | None = None


def read_query(cls: Any, query: bytes) -> Any:
    """The query parameters, without the key, as one value of a class; raises ValidationError."""
    pairs = parse_qsl(query.decode(), keep_blank_values=True)
    return _structured(cls, tuple((name, text) for name, text in pairs if name != "api_key"))


# Every long-poll has the same.
@functools.lru_cache(256)
def _structured(cls: Any, pairs: tuple[tuple[str, str], ...]) -> Any:
    return structure(nested(pairs, cls), cls)


def is_cached(file: BinaryIO) -> bool:
    """Whether a small file is in memory, as that of a moment ago: a thread to read it in costs 0.1 to 0.3 ms."""
    try:
        return os.preadv(file.fileno(), [bytearray(PIECE_BYTES)], 0, os.RWF_NOWAIT) == os.fstat(file.fileno()).st_size
    except OSError:
        # It is not, or nobody can say.
        return False


def range_within(size: int, given: str) -> str:
    """A header `Range` as quart understands it, which takes no end beyond the file's, and no last bytes (`-5`)."""
    found = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", given)
    if found is None or found[0] == "bytes=-":
        return given
    begin = int(found[1]) if found[1] else max(0, size - int(found[2]))
    end = min(int(found[2]), size - 1) if found[1] and found[2] else size - 1
    return f"bytes={begin}-{end}"


def client_host() -> str:
    """The Host header's name in lower case, without port and brackets; empty where HTTP/1.0 has none."""
    host = str(cast("dict[str, Any]", request.scope)[HOST_KEY])
    bracketed = re.fullmatch(r"\[([^\]]*)\](:[0-9]*)?", host)
    return (bracketed[1] if bracketed else host.partition(":")[0]).lower().removesuffix(".")


def head_faults(scope: Mapping[str, Any]) -> Iterator[Fault]:
    """What is too long in the head of a request, or may mean one thing here and another in what stands before us."""
    headers = scope["headers"]
    size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) for name, value in headers)
    if size > MAX_HEAD_BYTES:
        yield Fault("headers", f"with the request line they have {size} bytes, at most {MAX_HEAD_BYTES} are allowed")
    if len(headers) > MAX_HEADERS:
        yield Fault("headers", f"there are {len(headers)} of them, at most {MAX_HEADERS} are allowed")
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
        yield Fault("Content-Length", "cannot go with Transfer-Encoding")


def is_of_a_page(headers: Headers) -> bool:
    """Whether a browser sends a request for a page of another origin, or may do so.

    Browsers say it to loopback and over TLS only. They all call themselves Mozilla, which no page can change unasked.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is None:
        return headers.get("User-Agent", "").startswith("Mozilla/")
    return site not in ("same-origin", "none")


@functools.cache
def read_page(root_path: str) -> tuple[str, str]:
    """The page for people, and the Content-Security-Policy that lets nothing run and load but what is its own."""
    # Of a zip too.
    loader: Any = sys.modules[__name__].__loader__
    page = loader.get_data(str(Path(__file__).with_name("cleariflow.html"))).decode()
    options = "".join(f"<option>{name}</option>" for name in device_names())
    page = page.replace('<datalist id="devices">', f'<datalist id="devices">{options}')
    if root_path:
        page = page.replace('<base href="./">', f'<base href="{root_path}/">')
    policy = ["default-src 'none'", "connect-src 'self'", "img-src 'self' blob:", "base-uri 'self'"]
    for tag in ("script", "style"):
        content = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        policy.append(f"{tag}-src 'sha256-{digest}'")
    policy += ["form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types"]
    return page, "; ".join(policy)


# ---------------------------------------------------------------- HTTP handlers


class Api:
    """The handlers; `ROUTES` says which path each serves. Bound to one service."""

    def __init__(self, service: Service, connections: Callable[[], int]) -> None:
        self.service = service
        self._metrics = Metrics(service, connections)

    # What every handler begins with

    async def check_head(self) -> None:
        """Refuse a request whose head is too long, or can be read in more than one way."""
        if faults := list(head_faults(cast("dict[str, Any]", request.scope))):
            raise ValidationError(faults)

    async def refresh_keys(self) -> None:
        """Know what the command line did to the keys meanwhile."""
        self.service.keys.refresh()

    async def check_host(self) -> None:
        """Refuse a Host that only a web page rebinding its DNS name to this machine would send."""
        config = self.service.config
        if self.service.keys.required:
            return
        host = client_host()
        known = not host or _address_of(host) is not None or f".{host}".endswith(".localhost")
        if not (config.open or known or any(fnmatch.fnmatchcase(host, glob.lower()) for glob in config.allow_host)):
            message = f"the host {host[:MAX_ECHO]!r} is not known here; --allow-host {host[:MAX_ECHO]} would accept it"
            raise ValidationError([Fault("Host", message)])

    def service_name(self) -> ServiceName | None:
        """The service that the Host header, else the path's prefix, names."""
        named = (client_host().partition(".")[0], request.path.split("/")[1])
        return next((name for label in named for name in REQUEST_CLASSES if name == label), None)

    def key(self, given: object = None) -> Key | None:
        """The client's key, from the request that it gave, the headers or the query; None where none is needed.

        Raises ServiceError `unauthorized`.
        """
        keys = self.service.keys
        if not keys.required:
            return None
        scheme, *token = request.headers.get("Authorization", "").split(None, 1) or [""]
        texts = [
            given.get("api_key") if isinstance(given, dict) else None,
            *(token if scheme.lower() == "bearer" else []),
            request.headers.get("X-API-Key"),
            *request.args.getlist("api_key"),
        ]
        shown = [text for text in texts if isinstance(text, str) and 0 < len(text) <= MAX_KEY_CHARS]
        key = keys.find(shown[:MAX_KEYS_SHOWN])
        if key is None:
            wrong = "the API key is not known here" if shown else "an API key is needed"
            raise ServiceError("unauthorized", f"{wrong}: {KEY_HINT}")
        return key

    async def body(self) -> Any:
        """The JSON body."""
        if request.mimetype != "application/json":
            raise ServiceError("unsupported_media_type", "the body must be sent as Content-Type: application/json")
        if (encoding := request.headers.get("Content-Encoding", "identity")).lower() != "identity":
            message = f"the body must be sent without Content-Encoding: {encoding[:MAX_ECHO]}"
            raise ServiceError("unsupported_media_type", message)
        data = await request.get_data(cache=False)
        assert isinstance(data, bytes)
        return load_json(data)

    # Jobs

    async def create_job(self) -> Response:
        body = await self.body()
        inner = body.get("request") if isinstance(body, dict) else None
        key = self.key(inner)
        submission = structure(body, Submission)
        name = self.service_name() or submission.service
        if name is None:
            raise ValidationError([Fault("service", SERVICE_HINT)])
        if submission.service not in (None, name):
            raise ValidationError([Fault("service", f"contradicts host or path, which say {name}")])
        return self.accepted(await self.service.submit(name, submission.request, submission.priority, key))

    def accepted(self, job: Job) -> Response:
        """Of a new job."""
        return json_response({"job_id": job.id}, 202, {"Location": f"{self.service.config.root_path}/v1/jobs/{job.id}"})

    async def retry_job(self, job_id: str) -> Response:
        body = await self.body() if await request.get_data() else {}
        inner = body.get("request") if isinstance(body, dict) else None
        key = self.key(inner)
        job = self.own_job(job_id, key)
        given = structure(body, Retry).request
        fields = {name: value for name, value in given.items() if name != "api_key"}
        return self.accepted(await self.service.retry(job, fields, key))

    async def read_job(self, job_id: str) -> Response:
        job = self.service.job(job_id)
        query: ReadQuery = read_query(ReadQuery, request.query_string)
        if query.wait:
            await self.service.wait(job, min(query.wait, MAX_WAIT_S))
        return await self.job_response(job, with_result=query.result)

    async def job_response(self, job: Job, *, with_result: bool) -> Response:
        """A job as the contract shows it."""
        body: dict[str, Any] = {"job_id": job.id, "status": job.state}
        meta = job.meta()
        if job.state is State.DONE and with_result:
            return await self.result_response(job, lambda result: body | {"result": result, "meta": meta})
        if job.state is State.FAILED:
            body |= {"error": job.error, "error_detail": job.error_detail}
        if job.state is State.QUEUED:
            meta["position"] = self.service.position(job)
        return json_response(body | {"meta": meta})

    async def result_response(self, job: Job, around: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
        """A JSON answer around the result of a job that is done; `result_of` gets a mark in place of each artifact."""
        self.service.artifact(job)
        files: dict[str, tuple[BinaryIO, str]] = {}
        marks: dict[str, Part] = {}
        for name, one in job.artifacts.items():
            kind = one.content_type.partition(";")[0]
            # A number is the same as a text and as JSON.
            mark = str(uuid.uuid4().int)
            marks[name] = Part(mark.encode(), one.content_type)
            if kind.startswith("image/"):
                mark = base64.b64encode(mark.encode()).decode()
            files[mark] = self.open_artifact(one), kind
        pieces = json_pieces(json.dumps(around(result_of(job.service, marks, job.result_meta))), files)
        size = sum(os.fstat(file.fileno()).st_size for file, _ in files.values())
        response = Response(content_type="application/json")
        await self.fill(response, pieces, size, (file for file, _ in files.values()))
        return response

    def open_artifact(self, one: Artifact) -> BinaryIO:
        """Open before the answer begins, until the request is over: one that expires meanwhile stays readable."""
        stack: contextlib.ExitStack = cast("dict[str, Any]", request.scope)[FILES_KEY]
        with artifact_present():
            return stack.enter_context(open(self.service.store.artifacts / one.file, "rb"))

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What reads an artifact."""
        return await in_thread(call, *arguments, limiter=self.service.store.file_limiter)

    async def fill(self, response: Response, pieces: Iterator[bytes], size: int, files: Iterable[BinaryIO]) -> None:
        """Give an answer its pieces, made of files, in a thread where that may take long; size: of all, about."""
        if size > PIECE_BYTES:
            self.stream(response, pieces, size)
        elif all(map(is_cached, files)):
            response.set_data(b"".join(pieces))
        else:
            response.set_data(await self.in_thread(b"".join, pieces))

    def stream(self, response: Response, pieces: Iterator[bytes], size: int) -> None:
        """Give an answer its pieces one by one, while they are sent."""

        async def body() -> AsyncGenerator[bytes, None]:
            try:
                while piece := await self.in_thread(next, pieces, b""):
                    yield piece
            except OSError as error:
                logger.error("an artifact cannot be read: %s", error)
                raise

        response.response = TrioIterableBody(body())
        response.timeout = ANSWER_S + size / SLOWEST_BYTES_PER_S

    async def read_result(self, job_id: str) -> Response:
        return await self.artifact_response(self.service.artifact(self.service.job(job_id)))

    async def read_output(self, job_id: str, name: str) -> Response:
        return await self.artifact_response(self.service.artifact(self.service.job(job_id), name))

    async def artifact_response(self, artifact: Artifact) -> Response:
        """The artifact itself, with ETag and ranges."""
        path = self.service.store.artifacts / artifact.file
        with artifact_present():
            size = path.stat().st_size
            if "Range" in request.headers:
                request.headers["Range"] = range_within(size, request.headers["Range"])
            try:
                response = await send_file(path, mimetype=artifact.content_type, conditional=True)
            except RequestedRangeNotSatisfiable:
                # quart leaves out the length, which tells the client what it may ask for.
                raise RequestedRangeNotSatisfiable(size) from None
            except OverflowError:
                # What werkzeug does not expect of a date: a year of many digits.
                raise ValidationError([Fault("If-Modified-Since", "this, or If-Range, is no date")]) from None
        if isinstance(given := response.response, TrioFileBody):
            # quart's own opens the file too late, may leave it open, and makes 28 MiB/s.
            file = self.open_artifact(artifact)
            file.seek(given.begin)
            blocks = iter(lambda: file.read(min(PIECE_BYTES, given.end - file.tell())), b"")
            await self.fill(response, blocks, given.end - given.begin, [file])
        response.headers["Content-Type"] = artifact.content_type
        response.headers["Cache-Control"] = "private, no-cache"
        response.headers.pop("Expires", None)
        response.headers["Content-Security-Policy"] = "sandbox"
        if artifact.content_type.startswith("text/html"):
            # A browser saves it, and does not show what may be hostile.
            response.headers["Content-Disposition"] = f'attachment; filename="{artifact.file}"'
        return response

    def own_job(self, job_id: str, key: Key | None) -> Job:
        """A job that the client may change."""
        job = self.service.job(job_id)
        if key is not None and job.key != key.name:
            # In the words for one that is not there: whose it is is nobody's business.
            raise ServiceError("not_found", NO_JOB)
        return job

    async def delete_job(self, job_id: str) -> Response:
        job = self.own_job(job_id, self.key())
        if job.ended:
            return await self.job_response(job, with_result=False)
        self.service.cancel(job)
        try:
            await self.service.store.flushed()
        except StoreError as error:
            message = f"the job is cancelled, but after a restart it might not be: {error}"
            raise ServiceError("storage_full", message, retry_after_s=10) from error
        return await self.job_response(job, with_result=False)

    async def list_jobs(self) -> Response:
        key = self.key()
        query: ListQuery = read_query(ListQuery, request.query_string)
        found = self.service.store.newest(
            service=self.service_name(),
            state=query.status,
            before=query.cursor,
            limit=query.limit + 1,
            key=key.name if key is not None else None,
        )
        rows = [job.row() for job in found[: query.limit]]
        more = len(found) > query.limit
        return json_response({"jobs": rows, "next": str(found[query.limit - 1].number) if more else None})

    # Events

    async def job_events(self, job_id: str) -> Response:
        """Server-sent events: `job` with a `Row` of the job, now and at each change of its state, and `progress`.

        The stream ends with the job. The header `Last-Event-ID` goes on where another stream broke off.
        """
        job, given = self.service.job(job_id), request.headers.get("Last-Event-ID")
        if given == END:
            # A browser comes again after the stream's end, until it is told not to.
            return Response(b"", 204)
        return self.event_stream(self.service.news(job, after=given, quiet_s=KEEP_ALIVE_S))

    async def all_events(self) -> Response:
        """Server-sent events of the key's jobs: `hello`; `job` with a `Row` at each change of state; and `progress`.

        `reset` says that some were missed: read the lists again. The header `Last-Event-ID` goes on where another
        stream broke off.
        """
        key, given = self.key(), request.headers.get("Last-Event-ID")
        allowed = functools.partial(self.service.keys.holds, key)
        return self.event_stream(self.service.news(key=key, after=given, quiet_s=KEEP_ALIVE_S, allowed=allowed))

    def event_stream(self, news: AsyncGenerator[list[JobEvent], None]) -> Response:
        """An answer without a limit of time, which ends with the events. Raises ServiceError `rate_limited`."""
        if self.service.events.followers >= MAX_STREAMS:
            raise ServiceError("rate_limited", f"{MAX_STREAMS} streams of events are open", retry_after_s=10)

        async def body() -> AsyncGenerator[bytes, None]:
            async with contextlib.aclosing(news):
                yield b"retry: 2000\n\n"
                async for events in news:
                    yield b"".join(event.text for event in events)

        # nginx would keep small pieces back.
        response = Response(content_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        if request.method == "HEAD":
            response.set_data(b"")
        else:
            response.response = TrioIterableBody(body())
            response.timeout = None
        return response

    # The synchronous forms

    async def capture_body(self, name: ServiceName) -> Response:
        return await self.capture(name, await self.body())

    async def capture_query(self, name: ServiceName) -> Response:
        """The legacy form: every field is a query parameter."""
        if not self.service.keys.required and is_of_a_page(request.headers):
            message = "pages of other sites may not drive this service; with API keys (keys add) they may"
            raise ValidationError([Fault("Sec-Fetch-Site", message)])
        return await self.capture(name, nested(request.args.items(multi=True), REQUEST_CLASSES[name]))

    async def capture(self, name: ServiceName, given: Any) -> Response:
        """Run a job now; its result, or the bare artifact where the client would rather have that."""
        job = await self.service.capture(name, given, self.key(given))
        if job.state is State.FAILED:
            error = job.error_detail | {"message": job.error, "job_id": job.id}
            return json_response({"ok": False, "error": error}, HTTP_STATUS.get(error["code"], 424))
        accept, artifact = request.accept_mimetypes, self.service.artifact(job)
        if accept.quality(artifact.content_type.partition(";")[0]) > accept.quality("application/json"):
            return await self.artifact_response(artifact)
        return await self.result_response(job, lambda result: result)

    # For people

    async def page(self) -> Response:
        content, policy = read_page(self.service.config.root_path)
        headers = {"Content-Security-Policy": policy, "Referrer-Policy": "same-origin"}
        return Response(content, content_type="text/html; charset=utf-8", headers=headers)

    # Health

    async def live(self) -> Response:
        return json_response({"ok": True})

    async def ready(self) -> Response:
        if reasons := self.service.unready():
            raise ServiceError(next(iter(reasons)), "; ".join(reasons.values()))
        return json_response({"ok": True, "browser": self.service.pool.state, "store": "it can be written"})

    async def metrics(self) -> Response:
        text, content_type = await self._metrics.scrape(request.headers.get("Accept", ""))
        return Response(text, content_type=content_type)

    # Documentation

    async def openapi(self) -> Response:
        config = self.service.config
        return Response(openapi_document(config.root_path, config.max_timeout), content_type="application/json")

    async def docs(self) -> Response:
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": DOCS_POLICY}
        return Response(DOCS_PAGE, headers=headers)

    async def docs_file(self, name: str) -> Response:
        if name not in DOCS_FILES:
            raise ServiceError("not_found", "the documentation has no file of this name")
        headers = {"Content-Type": DOCS_FILES[name], "Cache-Control": "private, max-age=3600"}
        return Response(await trio.to_thread.run_sync(docs_bytes, name), headers=headers)


Handler = Callable[..., Awaitable[Response]]


@attrs.frozen
class Route:
    """A row of `ROUTES`, from which the application and the schema are made."""

    method: str
    path: str
    """As werkzeug writes it; also served below the name of each service."""
    handler: Handler
    summary: str
    answer: str | None = None
    """Of the answer's JSON: a name in `ANSWERS`; None where it is no JSON."""
    status: int = 200
    kinds: tuple[str, ...] = ()
    """Content types of other answers of this status."""
    body: type | None = None
    query: type | None = None
    errors: tuple[str, ...] = ()
    """Codes of its refusals, beside those of every route."""
    also: Mapping[int, str] = attrs.field(factory=dict)
    """Further answers, which have no body."""


# Codes of all routes, and of those that need a key, find a job, cancel it, read an artifact, take a new job.
ALWAYS = ("invalid_request", "internal")
OF_KEY = ("unauthorized",)
OF_JOB = ("not_found",)
OF_CANCEL = (*OF_JOB, *OF_KEY, "storage_full")
OF_RESULT = ("not_found", "not_ended", "expired", "job_failed")
OF_SUBMIT = (
    *("unauthorized", "blocked_target", "quota_reached", "rate_limited"),
    *("queue_full", "draining", "storage_full"),
)
OF_CAPTURE = (*OF_SUBMIT, *ERROR_CODES, "no_browser", "deadline")
OF_READY = ("draining", "storage_full", "no_browser")
OF_FILE = {206: "the range that was asked for", 304: "not changed: `If-None-Match` knows it"}
PICTURES = ("image/jpeg", "image/png", "image/webp")
ARTIFACTS = (*PICTURES, "text/html", "text/plain", "text/markdown", "application/json")
EVENTS = ("text/event-stream",)
DOCS = ("text/javascript", "text/css", "image/png")
SCRAPED = ("text/plain", "application/openmetrics-text")
ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/jobs", Api.create_job, "Submit a job", "Submitted", 202, body=Submission, errors=OF_SUBMIT),
    Route("GET", "/v1/jobs", Api.list_jobs, "List the newest jobs", "Jobs", query=ListQuery, errors=OF_KEY),
    Route("GET", "/v1/jobs/<job_id>", Api.read_job, "Read a job", "Job", query=ReadQuery, errors=OF_JOB),
    Route("DELETE", "/v1/jobs/<job_id>", Api.delete_job, "Cancel a job", "Job", errors=OF_CANCEL),
    Route(
        *("POST", "/v1/jobs/<job_id>/retry", Api.retry_job, "Submit an ended job once more", "Submitted", 202),
        body=Retry,
        errors=(*OF_SUBMIT, *OF_JOB, "not_ended", "conflict"),
    ),
    Route(
        *("GET", "/v1/jobs/<job_id>/events", Api.job_events, "Follow a job until its end", None),
        kinds=EVENTS,
        errors=(*OF_JOB, "rate_limited"),
        also={204: "its end was told: `Last-Event-ID` is that event's"},
    ),
    Route("GET", "/v1/events", Api.all_events, "Follow all jobs", None, kinds=EVENTS, errors=(*OF_KEY, "rate_limited")),
    Route(
        *("GET", "/v1/jobs/<job_id>/result", Api.read_result, "Fetch the artifact itself"),
        kinds=ARTIFACTS,
        errors=OF_RESULT,
        also=OF_FILE,
    ),
    Route(
        *("GET", "/v1/jobs/<job_id>/result/<name>", Api.read_output, "Fetch one output, or an action's picture"),
        kinds=ARTIFACTS,
        errors=OF_RESULT,
        also=OF_FILE,
    ),
    *(
        Route(
            *("POST", f"/v1/{name}", functools.partial(Api.capture_body, name=name)),
            *(f"Make a {name} now", f"{name.title()}Result"),
            kinds=ARTIFACTS[:-1],
            body=cls,
            errors=OF_CAPTURE,
        )
        for name, cls in REQUEST_CLASSES.items()
    ),
    *(
        Route(
            *("GET", f"/v1/{name}", functools.partial(Api.capture_query, name=name)),
            *(f"Make a {name} now, of query parameters", f"{name.title()}Result"),
            kinds=ARTIFACTS[:-1],
            query=cls,
            errors=OF_CAPTURE,
        )
        for name, cls in REQUEST_CLASSES.items()
    ),
    Route("GET", "/", Api.page, "The page for people", None, kinds=("text/html",)),
    Route("GET", "/livez", Api.live, "Whether the process answers", "Ok"),
    Route("GET", "/readyz", Api.ready, "Whether jobs can be run", "Ready", errors=OF_READY),
    Route("GET", "/metrics", Api.metrics, "Figures for Prometheus", kinds=SCRAPED),
    Route("GET", "/openapi.json", Api.openapi, "This description", "OpenAPI"),
    Route("GET", "/docs", Api.docs, "This description, to read and to try", kinds=("text/html",)),
    Route("GET", "/docs/<name>", Api.docs_file, "What the reader needs", kinds=DOCS, errors=("not_found",)),
)


# ---------------------------------------------------------------- openapi

EXAMPLES: Mapping[str, list[dict[str, Any]]] = {
    "ScreenshotRequest": [
        {"url": "https://example.com/"},
        {"url": "https://example.com/", "format": "png", "full_page": True, "viewport": {"width": 390, "height": 844}},
        {"html": "<h1>Hello</h1>", "selector": "h1", "padding": 8, "actions": [{"type": "wait", "ms": 100}]},
    ],
    "ScrapeRequest": [
        {"url": "https://example.com/", "outputs": ["markdown", "links", "metadata"]},
        {"url": "https://example.com/", "wait_for": "h1", "cookies": "theme=dark; lang=en", "fail_on_status": ["4xx"]},
    ],
    "Submission": [
        {"service": "screenshot", "request": {"url": "https://example.com/", "format": "webp"}},
        {"service": "scrape", "request": {"url": "https://example.com/", "outputs": ["text"]}, "priority": 10},
    ],
    "Retry": [{"request": {"cookies": "session=3f9a"}}],
}
ABOUT = f"""Which service takes a job: {SERVICE_HINT.partition("? ")[2]}.

Where an API key is needed, {KEY_HINT}."""
SERVICES, STATES = list(REQUEST_CLASSES), list(State)
RESULT_META = {
    "url title": "string",
    "status_code": "integer?",
    "elapsed_ms": "integer",
    "redirects warnings": ["string"],
    "timings network": "object",
    "browser": "string?",
    "actions?": ["object"],
}
# In the notation of `shape`.
ANSWERS: Mapping[str, Any] = {
    "Ok": {"ok": "boolean"},
    "Ready": {"ok": "boolean", "browser store": "string"},
    "OpenAPI": "object",
    "Submitted": {"job_id": "string"},
    "Job": {
        "job_id": "string",
        "status": STATES,
        "result?": ("ScreenshotResult", "ScrapeResult"),
        "error?": "string",
        "error_detail?": "ErrorDetail",
        "meta": "Meta",
    },
    "Jobs": {"jobs": ["Row"], "next": "string?"},
    "Row": {
        "job_id url": "string",
        "service": SERVICES,
        "status": STATES,
        "phase?": "string?",
        "progress?": "number",
        "error?": "string",
        "error_detail?": "ErrorDetail",
        "meta": "Meta",
    },
    "Meta": {
        "service": SERVICES,
        "priority attempts position?": "integer",
        "attempt_errors": [{"attempt": "integer", "code error": "string"}],
        "queue_ms": "integer?",
        "created_at": "string",
        "started_at finished_at": "string?",
    },
    "Event": {"event": ["job", "progress", "hello", "reset"], "id data": "string"},
    "ErrorDetail": {"code": list(ERROR_CODES), "retryable": "boolean", "index?": "integer"},
    "Picture": {"image_base64 content_type": "string"},
    "ScreenshotResult": {
        "ok": "boolean",
        "image_base64 content_type": "string",
        "screenshots?": "object",
        "meta": {**RESULT_META, "width height": "integer"},
    },
    "ScrapeResult": {
        "ok": "boolean",
        "html? text? markdown?": "string",
        "links?": [{"url text rel": "string"}],
        "metadata? screenshots?": "object",
        "screenshot?": "Picture",
        "meta": {**RESULT_META, "duration_ms": "integer"},
    },
    "Error": {
        "ok": "boolean",
        "error": {
            "code": list(dict.fromkeys((*HTTP_STATUS, *ERROR_CODES))),
            "message field? job_id?": "string",
            "faults?": [{"field message": "string"}],
            "retryable?": "boolean",
            "index?": "integer",
        },
    },
}
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "query": {"type": "apiKey", "in": "query", "name": "api_key"},
}
ANSWER_HEADERS = {202: ("Location", "of the job"), 429: ("Retry-After", "seconds"), 503: ("Retry-After", "seconds")}
# One of the two, and not both.
URL_OR_HTML: Schema = {
    "if": {"required": ["url"], "properties": {"url": {"type": "string"}}},
    "then": {"properties": {"html": NULL}},
    "else": {"required": ["html"], "properties": {"html": {"type": "string"}}},
}
STATUS_PATTERN: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 100, "maximum": 599},
        {"type": "string", "pattern": "^[1-5]([0-9]{2}|[xX]{2})$"},
    ]
}


def answers_of(route: Route) -> dict[str, Any]:
    """What a route may answer, by status."""
    kinds: dict[str, Any] = {kind: {"schema": shape("string")} if kind[:5] == "text/" else {} for kind in route.kinds}
    if route.kinds == EVENTS:
        # (Of each event: OpenAPI 3.2 says so in another place.)
        kinds["text/event-stream"]["schema"] = ref("Event")
    good = ({"application/json": {"schema": ref(route.answer)}} if route.answer is not None else {}) | kinds
    found: dict[int, dict[str, Any]] = {route.status: {"description": route.summary, "content": good}}
    found |= {status: {"description": text} for status, text in route.also.items()}
    refusals = [(HTTP_STATUS.get(code, 424), code) for code in (*ALWAYS, *route.errors)]
    if route.body is not None:
        refusals += [(408, "invalid_request"), (413, "body_too_large"), (415, "unsupported_media_type")]
    if 206 in found:
        found[206]["content"] = good
        refusals.append((416, "invalid_request"))
    for status in {status for status, _ in refusals}:
        phrase = HTTPStatus(status).phrase
        examples = {code: {"value": error_body(code, phrase)} for of, code in refusals if of == status}
        content = {"application/json": {"schema": ref("Error"), "examples": examples}}
        found[status] = {"description": f"{phrase}: `{'`, `'.join(examples)}`", "content": content}
    for status in found.keys() & ANSWER_HEADERS.keys():
        name, text = ANSWER_HEADERS[status]
        found[status]["headers"] = {name: {"description": text, "schema": {"type": "string"}}}
    return {str(status): found[status] for status in sorted(found)}


def operation(route: Route, schemas: Schemas) -> dict[str, Any]:
    """A row of `ROUTES` as OpenAPI has it."""
    named = route.handler.keywords if isinstance(route.handler, functools.partial) else {}
    handler = route.handler.func if isinstance(route.handler, functools.partial) else route.handler
    places = re.findall(r"<(\w+)>", route.path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in places]
    if route.query is not None:
        parameters += [
            {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema}
            for name, schema in schemas.parameters(route.query)
            # (Which is a security scheme.)
            if name != "api_key"
        ]
    made: dict[str, Any] = {
        "operationId": "_".join((handler.__name__, *named.values())),
        "summary": route.summary,
        "description": inspect.getdoc(handler) or "",
        "tags": ["jobs" if route.path.startswith("/v1/") else "service"],
        "parameters": parameters,
        "responses": answers_of(route),
    }
    if route.kinds == EVENTS:
        parameters.append({"name": "Last-Event-ID", "in": "header", "schema": shape("string")})
    if route.body is not None:
        content = {"application/json": {"schema": schemas.of(route.body)}}
        made["requestBody"] = {"required": route.body is not Retry, "content": content}
    if "unauthorized" in route.errors:
        made["security"] = [{}, *({name: []} for name in SECURITY)]
    return made


@functools.lru_cache(4)
def openapi_document(root_path: str, max_timeout_s: float) -> str:
    """The description of the HTTP interface, OpenAPI 3.1, from `ROUTES` and the classes of requests."""
    schemas = Schemas({StatusPattern: STATUS_PATTERN}, ceilings={"timeout_ms": int(max_timeout_s * 1000)})
    servers = [{"url": root_path or "/", "description": "the body says which service, or the host"}]
    servers += [{"url": f"{root_path}/{name}", "description": f"the {name} service"} for name in REQUEST_CLASSES]
    paths: dict[str, Any] = {}
    for route in ROUTES:
        # (The page is served at the root only.)
        only = {"servers": servers[:1]} if route.path == "/" else {}
        path = re.sub(r"<(\w+)>", r"{\1}", route.path)
        paths.setdefault(path, only)[route.method.lower()] = operation(route, schemas)
    components = schemas.components | {name: shape(given) for name, given in ANSWERS.items()}
    for cls in REQUEST_CLASSES.values():
        components[cls.__name__] |= URL_OR_HTML
    either = {"anyOf": [ref(cls.__name__) for cls in REQUEST_CLASSES.values()]}
    components["Submission"]["properties"]["request"] |= either
    for name, examples in EXAMPLES.items():
        components[name]["examples"] = examples
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Cleariflow",
            "version": __version__,
            "description": f"Pictures and documents of web pages.\n\n{ABOUT}",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": servers,
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": SECURITY},
    }
    return json.dumps(document)


# What Swagger UI needs. Its package is a blueprint for Flask too, which Quart is made of.
DOCS_PACKAGE = "flask_swagger_ui"
DOCS_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
    "start.js": "text/javascript",
}
DOCS_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Cleariflow API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon-32x32.png">
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
# (Its validator is a service of others.)
DOCS_START = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null, defaultModelsExpandDepth: 0,
});
"""
# The style sheet has pictures as data, pictures that were tried are blobs, and a script sets styles.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@functools.cache
def docs_bytes(name: str) -> bytes:
    """One of `DOCS_FILES`."""
    if name == "start.js":
        return DOCS_START.encode()
    return importlib.resources.files(DOCS_PACKAGE).joinpath("dist", name).read_bytes()


# ---------------------------------------------------------------- HTTP application


def create_app(service: Service, connections: Callable[[], int] = lambda: 0) -> QuartTrio:
    """The ASGI application; starts nothing by itself."""
    app = QuartTrio("cleariflow", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = service.config.max_body
    app.config["BODY_TIMEOUT"] = BODY_S
    app.config["RESPONSE_TIMEOUT"] = ANSWER_S
    api = Api(service, connections)

    for route in ROUTES:
        # (Without its slash, /screenshot/ would be sent on to another URL.)
        names = REQUEST_CLASSES if route.path != "/" else ()
        for rule in (route.path, *(f"/{name}{route.path}" for name in names)):
            handler = functools.partial(route.handler, api)
            app.add_url_rule(rule, f"{route.method} {rule}", handler, methods=[route.method])
    # (`//v1/jobs` would be sent on to another URL.)
    app.url_map.merge_slashes = False
    app.before_request(api.check_head)
    app.before_request(api.refresh_keys)
    app.before_request(api.check_host)

    @app.after_request
    async def harden(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        # A cache in front does not know that a key is one.
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.errorhandler(ValidationError)
    async def invalid(error: ValidationError) -> Response:
        return json_response(error_body(error.code, str(error), error.faults), HTTP_STATUS[error.code])

    @app.errorhandler(ServiceError)
    async def refused(error: ServiceError) -> Response:
        headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        if error.code == "unauthorized":
            headers["WWW-Authenticate"] = "Bearer"
        return json_response(error_body(error.code, str(error)), HTTP_STATUS[error.code], headers)

    @app.errorhandler(HTTPException)
    async def refused_by_quart(error: HTTPException) -> Response:
        status = error.code or 500
        code = HTTP_ERROR_CODES.get(status, "invalid_request" if status < 500 else "internal")
        over = f"the body is over --max-body, {service.config.max_body} bytes"
        message = over if status == 413 else error.description or error.name
        headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Content-Range")}
        return json_response(error_body(code, message), status, headers)

    @app.errorhandler(Exception)
    async def broken(error: Exception) -> Response:
        logger.error("%s %s broke", request.method, request.path, exc_info=error)
        return json_response(error_body("internal", INTERNAL_ERROR), 500)

    app.asgi_app = behind_hypercorn(app.asgi_app, service.config.max_body)  # type: ignore[method-assign,assignment]  # quart's way to wrap itself
    return app


def behind_hypercorn(app: ASGIFramework, max_body: int) -> ASGIFramework:
    """The application, made safe for what hypercorn 0.18, quart-trio 0.12 and werkzeug 3.1 leave open.

    Body: a stranger may send one too, as the key may stand in it: large ones that are being read have room together,
    and above that they are 429. Hypercorn hands a body on through a queue of ten pieces and waits for its reader for
    ever: what an early answer (413, 415) left unread is read and dropped until the client has sent all or is gone, and
    the connection is closed after such an answer.
    Close: quart-trio cancels itself when hypercorn tells of the answer's end, while hypercorn still closes the
    connection: sending the last message is shielded, for `USER_TIMEOUT_MS`.
    Host: werkzeug takes a name with odd characters for none, and breaks at some. It never sees the client's; handlers
    find that in the scope. Websockets, which no route has, are refused before it.
    Path: only what begins with one slash has routes (quart breaks at others, and drops a second), and an encoded slash
    parts nothing: who stands before us may allow one path and mean another.
    Accept: werkzeug takes quadratic time for white space within it, so only its beginning counts. If-Match: it refuses
    what fits with 412 and the whole result; a result never changes, so that it always fits.
    """
    room = max(MAX_BODIES_BYTES, max_body)

    async def call(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        nonlocal room
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        complete = headers.keys().isdisjoint((b"content-length", b"transfer-encoding"))
        others = [
            (name, value[:MAX_ACCEPT_BYTES] if name == b"accept" else value)
            for name, value in scope["headers"]
            if name not in (b"host", b"if-match")
        ]
        host = headers.get(b"host", b"").decode("latin-1")
        files = contextlib.ExitStack()
        is_plain = re.match(rb"/(?!/)(?!.*%2f)", scope["raw_path"], re.IGNORECASE)
        path = scope["path"] if is_plain else NO_PATH
        known = {HOST_KEY: host, FILES_KEY: files, "path": path, "headers": [*others, (b"host", b"localhost")]}
        scope = {**scope, **known}

        # Of one in chunks nothing is known.
        size = 0 if complete else max_body
        if headers.keys() & {b"content-length", b"transfer-encoding"} == {b"content-length"}:
            size = min(int(headers[b"content-length"]), max_body)
        taken = size if size > SMALL_BODY_BYTES else 0

        async def noting_receive() -> Any:
            nonlocal complete, room, taken
            message = await receive()
            complete = complete or message["type"] == "http.disconnect" or not message.get("more_body", False)
            if complete:
                room, taken = room + taken, 0
            return message

        async def closing_send(message: Any) -> None:
            if message["type"] == "http.response.start" and not complete:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                with trio.move_on_after(USER_TIMEOUT_MS / 1000, shield=True):
                    await send(message)
            else:
                await send(message)

        if taken > room:
            taken = 0
            message = "the bodies that are being read are too large together; try again"
            content = json.dumps(error_body("queue_full", message)).encode()
            head = [(b"content-type", b"application/json"), (b"retry-after", b"5")]
            await closing_send({"type": "http.response.start", "status": 429, "headers": head})
            await closing_send({"type": "http.response.body", "body": content})
        else:
            room -= taken
            try:
                with files:
                    await app(scope, noting_receive, closing_send)
            finally:
                room, taken = room + taken, 0
        while not complete:
            await noting_receive()

    return cast(ASGIFramework, call)


# ---------------------------------------------------------------- HTTP server


class Connections:
    """How many are open, at most so many, and those without a request, which are closed in time or for a newer one."""

    def __init__(self, most: int, stopped: trio.Event) -> None:
        self._most = most
        self._stopped = stopped
        self.open = 0
        self._full_until = -math.inf
        # Since when; the longest first.
        self._idle: dict[trio.SocketStream, float] = {}

    @contextlib.contextmanager
    def admitted(self, stream: trio.SocketStream) -> Iterator[bool]:
        """Count a connection while the body runs; False: it is one too many."""
        if (full := self.open >= self._most) and self._idle:
            self._close(next(iter(self._idle)))
            full = False
        if full and trio.current_time() >= self._full_until:
            self._full_until = trio.current_time() + 60
            logger.warning("%d connections are open, none is idle: more are closed at once", self.open)
        self.open += 1
        try:
            yield not full
        finally:
            self.open -= 1
            self._idle.pop(stream, None)

    def note(self, stream: trio.SocketStream, *, idle: bool) -> None:
        """Whether a connection has no request."""
        self._idle.pop(stream, None)
        if idle:
            self._idle[stream] = trio.current_time()
            if self._stopped.is_set():
                self._close(stream)

    def _close(self, stream: trio.SocketStream) -> None:
        """Its task wakes, and ends."""
        del self._idle[stream]
        stream.socket.close()

    async def sweep(self) -> None:
        """Close what is idle for `IDLE_S`, until the service stops; then all that is idle."""
        while not self._stopped.is_set():
            with trio.move_on_after(IDLE_S / 5):
                await self._stopped.wait()
            until = math.inf if self._stopped.is_set() else trio.current_time() - IDLE_S
            for stream in [stream for stream, since in self._idle.items() if since <= until]:
                self._close(stream)


class OneConnection(TCPServer):
    """A connection of hypercorn 0.18 that is bounded, and whose faults end it alone: there they end the server.

    Idle times are kept in one table; hypercorn spends two tasks on each. Sending may be cancelled, which hypercorn
    forbids without end; then the connection is closed. The head of an answer waits for what follows: one packet less.
    """

    def __init__(self, connections: Connections, *given: Any) -> None:
        super().__init__(*given)
        # There is no TLS here.
        self._plain = cast(trio.SocketStream, self.stream)
        self._connections = connections
        self._head = b""
        self._reading = trio.CancelScope()
        self.idle_task = cast(TrioSingleTask, self)

    async def run(self) -> None:
        """Serve the connection until it is closed."""
        with self._connections.admitted(self._plain) as admitted:
            if not admitted:
                await trio.aclose_forcefully(self.stream)
                return
            try:
                await super().run()
            except* OSError:
                # The client is gone.
                pass
            except* Exception as group:
                logger.warning("a connection broke: %r", group.exceptions[0])

    async def _read_data(self) -> None:
        # Paused before a further request, hypercorn's reader does not learn that the connection was closed.
        with self._reading:
            await super()._read_data()

    async def restart(self, *_: object) -> None:
        """The connection is idle from now on; as of hypercorn's idle task."""
        self._connections.note(self._plain, idle=True)

    async def stop(self) -> None:
        """It is not; as of hypercorn's idle task."""
        self._connections.note(self._plain, idle=False)

    async def protocol_send(self, event: Event) -> None:
        """Send what h11 has made of an event."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            if isinstance(event, Closed):
                self._reading.cancel()
            return
        data, self._head = self._head + event.data, b""
        if event.data.startswith(b"HTTP/1.1 ") and not event.data.startswith(b"HTTP/1.1 1"):
            self._head = data
        elif data:
            try:
                await self.stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                # It may be the reader itself that hears of it: the application first.
                await self.protocol.handle(Closed())
                self._reading.cancel()
            except trio.Cancelled:
                # Half a message may be out: nothing can follow it.
                self._reading.cancel()
                await trio.aclose_forcefully(self.stream)
                raise


async def stay_with_http1(self: H11Protocol, event: object) -> None:
    """Instead of hypercorn's switch to HTTP/2, whose streams can be made to wait for ever; nobody needs it here."""


async def refuse_with_json(self: H11Protocol, status_code: int) -> None:
    """Instead of hypercorn's empty answer to what is no HTTP; h11 has 501 for some of it, the client's fault too."""
    status_code = status_code if status_code < 500 else 400
    over = f"the request line and the headers are over {MAX_HEAD_BYTES} bytes"
    message = over if status_code == 431 else "this is no HTTP/1.1"
    body = json.dumps(error_body("invalid_request", message, [Fault("", message)])).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(b"connection", b"close"), *self.config.response_headers("h11")]
    for event in (h11.Response(headers=headers, status_code=status_code), h11.Data(data=body), h11.EndOfMessage()):
        await self._send_h11_event(event)


def tame_hypercorn(connections: Connections) -> None:
    """Put these in hypercorn's places; they are private to 0.18, which is pinned."""
    hypercorn.trio.run.TCPServer = functools.partial(OneConnection, connections)  # type: ignore[attr-defined,assignment]
    H11Protocol._check_protocol = stay_with_http1  # type: ignore[method-assign]
    H11Protocol._send_error_response = refuse_with_json  # type: ignore[method-assign]


def raise_file_limit(workers: int) -> int:
    """Let the process have as many open files as the system allows; returns what is left of them for connections."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        limit = most
    # Each has its socket, and while it is answered an artifact.
    left = min(max((limit - FILES_KEPT - FILES_OF_A_PAGE * workers) // 2, limit // 8), MAX_CONNECTIONS)
    if left < MAX_CONNECTIONS:
        logger.warning("only %d files may be open (ulimit -n): at most %d connections at once", limit, left)
    return left


def open_listener(config: Config) -> socket.socket:
    """The listening socket; raises ConfigError when the address cannot be had."""
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Inherited by what it accepts: see USER_TIMEOUT_MS.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        message = f"cannot listen on {config.host} port {config.port}: {error.strerror}; choose another --port"
        raise ConfigError([Fault("--port", message)]) from None
    return listener


async def serve_http(
    service: Service, listener: socket.socket, stopped: trio.Event, most: int, *, task_status: trio.TaskStatus[Any]
) -> None:
    """Serve connections, at most so many at once, until the event; the listener is closed then."""
    connections = Connections(most, stopped)
    tame_hypercorn(connections)
    settings = hypercorn.Config()
    # hypercorn closes it.
    settings.bind = [f"fd://{listener.detach()}"]
    settings.backlog = BACKLOG
    settings.graceful_timeout = HTTP_GRACE_S
    settings.include_server_header = False
    settings.h11_max_incomplete_size = MAX_HEAD_BYTES
    settings.errorlog = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connections.sweep)
        app = create_app(service, lambda: connections.open)
        await hypercorn.trio.serve(app, settings, shutdown_trigger=stopped.wait, task_status=task_status)


async def give_memory_back() -> None:
    """Return to the system what was freed, for ever; glibc alone keeps a good part of it, more with each hour."""
    try:
        libc = ctypes.CDLL(None)
        # Larger blocks are mapped alone: their end frees them at once. By itself glibc stops that after the first.
        m_mmap_threshold = -3
        libc.mallopt(m_mmap_threshold, 2**20)
        trim = libc.malloc_trim
    except (OSError, AttributeError):
        # Another library, which has no such call.
        return
    while True:
        await trio.sleep(TRIM_S)
        with contextlib.suppress(OSError):
            await in_thread(trim, 0)


async def serve(config: Config) -> None:
    """Serve HTTP until SIGTERM or SIGINT, then drain and return; a second signal skips the waiting."""
    with (
        contextlib.closing(open_listener(config)) as listener,
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
    ):
        host, port = listener.getsockname()[:2]
        most = raise_file_limit(config.workers)
        # Signals are read outermost: one that comes while all is closed must not cut that off.
        async with open_tasks() as outer, open_service(config) as service, trio.open_nursery() as nursery:
            service.policy.own_ports.add(port)
            stopped = trio.Event()
            outer.start_soon(stop_on_signal, signals, service, stopped)
            outer.start_soon(give_memory_back)
            await nursery.start(serve_http, service, listener, stopped, most)
            shown = f"[{host}]" if ":" in host else host
            logger.info("listening on http://%s:%d, %d workers", shown, port, config.workers)
            if not (service.keys.required or _is_loopback(config.host)):
                logger.warning(
                    "--open: everybody who can reach this port can have it open any page; no key is asked for"
                )
            if config.api_key is not None and len(config.api_key) < GUESSED_CHARS:
                logger.warning("CLEARIFLOW_API_KEY has %d characters: it can be guessed", len(config.api_key))
    # All is closed; one more signal must not change the exit code while the interpreter ends.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


async def stop_on_signal(signals: AsyncIterator[int], service: Service, stopped: trio.Event) -> None:
    """The first signal drains the service, within its grace; the second ends the waiting; others change nothing."""
    name = signal.Signals(await anext(signals)).name
    logger.info("%s: stopping within %g s; once more: at once", name, service.config.grace)
    async with trio.open_nursery() as nursery:

        async def drain() -> None:
            await service.drain(service.config.grace)
            nursery.cancel_scope.cancel()

        nursery.start_soon(drain)
        await anext(signals)
        nursery.cancel_scope.cancel()
    stopped.set()
    async for _ in signals:
        pass


# ---------------------------------------------------------------- doctor

LIVE_S = 2.0


async def examine_port(config: Config) -> Finding:
    """Whether the port is free, or a service of ours answers there."""
    place = f"port {config.port} of {config.host}"
    running = doctor.is_locked(Path(config.data_dir) / "jobs.journal")
    try:
        open_listener(config).close()
    except ConfigError as error:
        wanted, answer = json.dumps({"ok": True}).encode(), b""
        with contextlib.suppress(OSError, trio.BrokenResourceError), trio.move_on_after(LIVE_S):
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
            stream = await trio.open_tcp_stream(host, config.port)
            async with stream:
                await stream.send_all(b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n")
                while wanted not in answer and len(answer) < 2**12 and (piece := await stream.receive_some()):
                    answer += piece
        if wanted in answer:
            whose = "this data folder" if running else "another data folder"
            return Finding("port", "ok", f"a Cleariflow with {whose} answers at {place}")
        mend = f"stop what has it (ss -ltnp 'sport = :{config.port}'), or choose --port"
        return Finding("port", "error", error.faults[0].message, mend)
    if running:
        return Finding("port", "ok", f"{place} is free; a service with this data folder runs at another")
    return Finding("port", "ok", f"{place} is free")


async def examine(config: Config, faults: list[Fault], tell: doctor.Tell) -> None:
    """Look at all that the service needs, with the settings as far as they have no faults."""
    python = ".".join(map(str, sys.version_info[:3]))
    tell(Finding("version", "ok", f"cleariflow {__version__}, Python {python}"))
    for fault in faults:
        tell(Finding("settings", "error", f"{fault.field}: {fault.message}", "correct this setting"))
    for finding in doctor.examine_folder(Path(config.data_dir), DISK_RESERVE_BYTES, config.disk_budget):
        tell(finding)
    tell(await examine_port(config))
    for finding in doctor.examine_system(FILES_KEPT + FILES_OF_A_PAGE * config.workers + 2 * MAX_CONNECTIONS):
        tell(finding)
    authorities = None
    # What is wrong with them is among the faults.
    with contextlib.suppress(ValueError):
        authorities = config.authorities
    with contextlib.suppress(ValueError):
        if config.proxy is not None:
            tell(await doctor.examine_proxy(Proxy.parse(config.proxy)))
    await doctor.examine_browser(tell, config.browser, switches=config.browser_arg, authorities=authorities)


def run_doctor(flags: Mapping[str, Any]) -> int:
    """`doctor`: tell what was found; returns 1 where something is an error, else 0."""
    findings: list[Finding] = []
    as_json = flags["json"]

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            print(f"{finding.level:8} {finding.subject:14} {printable(finding.text)}", flush=True)
            if finding.mend is not None:
                print(f"{'':23} -> {finding.mend}", flush=True)

    config, faults = read_config(flags)
    trio.run(examine, config, faults, tell)
    ok = all(finding.level != "error" for finding in findings)
    if as_json:
        print(json.dumps({"ok": ok, "findings": [attrs.asdict(finding) for finding in findings]}, indent=2))
    return 0 if ok else 1


# ---------------------------------------------------------------- captures without a server

# Exit codes of captures: what they mean, and the codes of the failures that end so.
EXITS = {
    0: ("all is captured", ()),
    1: ("failed in several ways, or in one that is not below", ()),
    2: ("wrong usage: nothing was captured", ("invalid_request",)),
    3: ("no page could be opened", ("navigation_failed", "http_error", "not_a_page")),
    4: ("time ran out", ("timeout",)),
    5: ("a page is where pages must not go", ("blocked_target",)),
    6: ("there is no browser, or it was lost", ("no_browser", "browser_lost")),
    7: ("a selector, an action or a script failed", ("selector_not_found", "action_failed", "script_error")),
    130: ("interrupted", ()),
    141: ("nobody reads standard output", ()),
    143: ("terminated", ()),
}
EXIT_CODES = {failure: code for code, (_, failures) in EXITS.items() for failure in failures}


class Faults(list[Fault]):
    """All that is wrong, to be told at once."""

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Keep the faults that the body raises as ValidationError."""
        try:
            yield
        except ValidationError as error:
            self.extend(error.faults)


@attrs.frozen(eq=False)
class Capture:
    """One capture of a run, and the file of its main output; without a file it goes to standard output."""

    request: Request
    path: Path | None = None

    @property
    def address(self) -> str:
        """Its URL without the scheme."""
        return (self.request.url or "//document").partition("//")[2]

    @property
    def others(self) -> list[str]:
        """The names that its further outputs may have."""
        outputs = self.request.outputs if isinstance(self.request, ScrapeRequest) else ()
        return [*outputs, *(action.name for action in self.request.actions if isinstance(action, Shoot))]

    @property
    def main(self) -> str:
        """The name of its main output."""
        if isinstance(self.request, ScreenshotRequest):
            return PICTURE
        # The first of `scrape_page`.
        return min(self.request.outputs, key=lambda name: (name != "html", name == "screenshot"))

    @property
    def extension(self) -> str:
        """Of the main output's file."""
        if isinstance(self.request, ScreenshotRequest):
            return self.request.format
        return {"html": "html", "text": "txt", "markdown": "md", "screenshot": "jpeg"}.get(self.main, "json")


def plan(name: ServiceName, flags: Mapping[str, Any], config: Config) -> list[Capture]:
    """The captures that a command line asks for, folders made. Raises ValidationError with all faults."""
    cls, faults, place = REQUEST_CLASSES[name], Faults(), flags["output"]
    known = fields_of(cls).keys() - {"url"}
    urls: list[tuple[str, str]] = []
    given: dict[str, Any] = {}
    with faults.noted():
        urls = urls_of(flags)
    with faults.noted():
        texts = [(key, text) for key, text in flags.items() if text is not None and key.partition(".")[0] in known]
        given = nested(texts, cls)
    with faults.noted():
        check_place(name, flags, len(urls))
        if name == "screenshot" and place not in (None, "-") and not is_folder(place):
            check_format(Path(place), given)
    captures = []
    for where, url in [(where, {"url": url}) for where, url in urls] or [("", {})]:
        try:
            captures.append(Capture(parse_request(name, given | url, config)))
        except ValidationError as error:
            of_url = where if len(urls) > 1 else "url"
            # That a file gave no URL is told already.
            found = [fault for fault in error.faults if fault.field != "url" or where or flags["urls"] is None]
            faults += [Fault(of_url, fault.message) if fault.field == "url" else fault for fault in found]
    if faults:
        raise ValidationError(list(dict.fromkeys(faults)))
    return captures if place in (None, "-") else with_paths(captures, place)


def urls_of(flags: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All URLs, each with what faults call it. Raises ValidationError for a file that cannot be read."""
    urls = [(f"URL {number}", url) for number, url in enumerate(flags["url"], 1)]
    if (file := flags["urls"]) is not None:
        try:
            data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
            lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ValidationError([Fault("--urls", f"{file!r} cannot be read: {reason}")]) from None
        found = [(f"--urls line {at}", line) for at, line in enumerate(lines, 1) if line and not line.startswith("#")]
        if not found:
            raise ValidationError([Fault("--urls", f"{file!r} has no URL")])
        urls += found
    return urls


def is_folder(place: str) -> bool:
    """Whether `-o` means one; it need not be there."""
    return place.endswith("/") or Path(place).is_dir()


def check_place(name: ServiceName, flags: Mapping[str, Any], count: int) -> None:
    """Raise ValidationError, before any capture, where the results of so many URLs cannot go."""
    place, fault = flags["output"], ""
    if place in (None, "-"):
        if count > 1 and not flags["json"]:
            fault = "is required for several URLs: a folder (-o results/) or a pattern (-o '{host}-{number}.png')"
        elif place is None and name == "screenshot" and not flags["json"]:
            fault = "is required: -o page.png, or -o - for standard output"
    elif not is_folder(place):
        if unknown := sorted(set(re.findall(r"\{(.*?)\}", place)) - {"name", "host", "number"}):
            fault = f"{{{unknown[0]}}} is unknown: {{name}}, {{host}} and {{number}} are known"
        elif "{" not in place and count > 1:
            fault = f"{place!r} is one file: a folder ends with a slash, and a pattern has {{name}} or {{number}}"
        elif "{" not in place and not Path(place).parent.is_dir():
            fault = f"{place!r} cannot be written: there is no such folder"
    if fault:
        raise ValidationError([Fault("-o", fault)])


# By the ending of -o.
SUFFIX_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def check_format(path: Path, given: dict[str, Any]) -> None:
    """Let a picture's name say its format; raises ValidationError for a name that would lie."""
    meant = SUFFIX_FORMATS.get(path.suffix.lower())
    if meant is None and path.suffix and "format" not in given:
        raise ValidationError([Fault("-o", f"no format is named {path.suffix}: use {', '.join(SUFFIX_FORMATS)}")])
    if meant is not None and given.setdefault("format", meant) != meant:
        raise ValidationError([Fault("-o", f"{path.suffix} contradicts --format {given['format']}")])


def with_paths(captures: list[Capture], place: str) -> list[Capture]:
    """The captures with their files, as `-o` says; makes their folders. Raises ValidationError where it cannot."""
    if "{" not in place and not is_folder(place):
        return [attrs.evolve(wanted, path=Path(place)) for wanted in captures]
    base = place if is_folder(place) else ""
    suffix = "" if base else re.split(r"(\.\w+)?$", place)[1] or ""
    addresses = [unquote(wanted.address) for wanted in captures]
    names = named("{name}" if base else place.removesuffix(suffix), addresses, captures[0].others)
    paths = [
        Path(base, name + (suffix or f".{wanted.extension}")) for wanted, name in zip(captures, names, strict=True)
    ]
    try:
        for folder in {path.parent for path in paths}:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValidationError([Fault("-o", f"{place!r} cannot be made: {error.strerror}")]) from None
    return [attrs.evolve(wanted, path=path) for wanted, path in zip(captures, paths, strict=True)]


class Run:
    """The captures of one command, some at once, on one browser."""

    def __init__(self, name: ServiceName, flags: Mapping[str, Any], config: Config, captures: list[Capture]) -> None:
        self._name, self._config, self._captures = name, config, captures
        self._policy, self._authorities = config.policy, config.authorities
        self._as_json, self._keeps = flags["json"], flags["no_clobber"]
        # A scrape by plain fetches needs none.
        self._browsers = int(name == "screenshot" or any(wanted.request.render for wanted in captures))
        self._display = Display(len(captures), flags["quiet"])
        # Of the failures.
        self._codes: list[str] = []
        self._writing = trio.Lock()
        self._scope = trio.CancelScope()
        self._signal = 0
        self._nobody_reads = False

    async def whole(self) -> int:
        """Make all captures and return the exit code; all pages and the browser are gone then, after a signal too.

        Raises BrokenPipeError when nobody reads standard output.
        """
        most, pending = min(self._config.workers, len(self._captures)), iter(self._captures)
        ahead = most if len(self._captures) > 1 else 0
        open_one = functools.partial(open_browser, self._config, self._policy, self._authorities)
        limits = self._config.browser_limits
        try:
            async with open_tasks() as tasks:
                await tasks.start(self._heed_signals)
                async with cdp.open_pool(open_one, browsers=self._browsers, limits=limits, pages_ahead=ahead) as pool:
                    try:
                        with self._scope:
                            async with trio.open_nursery() as nursery:
                                for _ in range(most):
                                    nursery.start_soon(self._work, pool, pending)
                    finally:
                        pool.give_up()
        finally:
            self._display.end()
        if self._nobody_reads:
            raise BrokenPipeError
        if self._signal and self._scope.cancelled_caught:
            return 128 + self._signal
        kinds = {EXIT_CODES.get(code, 1) for code in self._codes}
        return kinds.pop() if len(kinds) == 1 else min(len(kinds), 1)

    async def _heed_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Cancel the captures, and nothing else: by itself SIGTERM would end the process before its browser."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                self._signal = self._signal or number
                self._scope.cancel()

    async def _work(self, pool: cdp.Pool, pending: Iterator[Capture]) -> None:
        """Make captures as long as there are any; several tasks share what is pending."""
        for wanted in pending:
            try:
                line = await self._made(pool, wanted)
            except Exception as error:
                line = self._failed(wanted, error)
            if self._as_json:
                line = {"url": wanted.request.url} | line
                # Names of files may have bytes that are no UTF-8, halves of characters to Python, as JSON writes them.
                await self._write(json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
            self._display.leave(wanted)

    async def _made(self, pool: cdp.Pool, wanted: Capture) -> dict[str, Any]:
        """Make a result and write it; returns what JSON has of it. Raises JobFailed, LaunchError."""
        path, url = wanted.path, f"{wanted.request.url}: " if len(self._captures) > 1 else ""
        if self._keeps and path is not None and path.exists():
            self._display.tell(f"{path}: is there already")
            return {"ok": True, "files": {wanted.main: str(path)}, "skipped": True}
        made = await self._captured(pool, wanted)
        if path is not None:
            line = {"ok": True, "files": await self._saved(path, made), "meta": made.meta}
        else:
            line = result_of(self._name, made.parts, made.meta)
            if not self._as_json:
                several = json.dumps(line, ensure_ascii=False).encode()
                await self._write(made.main.data if len(made.parts) == 1 else several)
        for warning in made.meta["warnings"]:
            self._display.tell(f"warning: {url}{warning}")
        size = f"{made.meta['width']} x {made.meta['height']} px, " if "width" in made.meta else ""
        kind, count = made.main.content_type.partition(";")[0], len(made.main.data)
        where = f"{path}: " if path is not None else url or "standard output: "
        self._display.tell(f"{where}{kind}, {size}{count} bytes, {made.meta['elapsed_ms']} ms")
        return line

    async def _captured(self, pool: cdp.Pool, wanted: Capture) -> Output:
        """Attempts until one gives a result; as in the service a lost browser costs no `retries`."""
        parsed, losses, failures = wanted.request, 0, 0
        while True:
            while self._browsers and not pool.available:
                if pool.fault is not None:
                    raise cdp.errors.LaunchError(pool.fault)
                await pool.changed()
            try:
                async with pool.alone() if losses > 1 else contextlib.nullcontext(pool.open_page) as open_page:
                    return await attempt(
                        open_page,
                        parsed,
                        policy=self._policy,
                        authorities=self._authorities,
                        max_pixels=self._config.max_pixels,
                        progress=Progress(functools.partial(self._display.show, wanted, wanted.address)),
                    )
            except JobFailed as error:
                if not is_tried_again(error, losses, failures, parsed.retries):
                    raise
                if error.code == "browser_lost":
                    losses += 1
                else:
                    await trio.sleep(RETRY_DELAYS_S[failures])
                    failures += 1

    async def _saved(self, path: Path, made: Output) -> dict[str, str]:
        """Write the files of a result; returns their names. Raises JobFailed."""
        files = {}
        # The main one last: where it is, the others are.
        for name, part in reversed(made.parts.items()):
            file = path if part is made.main else path.with_name(f"{path.stem}-{name}.{part.extension}")
            try:
                await in_thread(write_whole, file, part.data)
            except OSError as error:
                raise JobFailed("internal", f"{file} cannot be written: {error.strerror}") from None
            files[name] = str(file)
        return dict(reversed(files.items()))

    async def _write(self, data: bytes) -> None:
        """Write to standard output; where that fails, all is over."""
        async with self._writing:
            self._display.clear()
            try:
                await in_thread(write_out, data, abandon_on_cancel=True)
            except OSError as error:
                self._nobody_reads = isinstance(error, BrokenPipeError)
                if not self._nobody_reads:
                    self._codes.append("internal")
                    self._display.tell(f"cleariflow: standard output cannot be written: {error.strerror}", always=True)
                self._scope.cancel()
                await trio.lowlevel.checkpoint()

    def _failed(self, wanted: Capture, error: Exception) -> dict[str, Any]:
        """Tell of a failure; returns what JSON has of it."""
        code, message = "internal", "internal error; its cause is above"
        if isinstance(error, JobFailed):
            code, message = error.code, str(error)
        elif isinstance(error, cdp.errors.LaunchError):
            code, message = "no_browser", str(error)
        else:
            # A bug; it must not take the other captures with it.
            logger.critical("a capture broke", exc_info=error)
        # All others have the same to tell of a missing browser.
        if code != "no_browser" or code not in self._codes:
            url = f"{wanted.request.url}: " if len(self._captures) > 1 and code != "no_browser" else ""
            self._display.tell(f"cleariflow: {url}{message}", always=True)
        self._codes.append(code)
        self._display.failed += 1
        return {"ok": False, "error": {"code": code, "message": message}}


# ---------------------------------------------------------------- command line

# The settings that make sense without a server.
CAPTURE_SETTINGS = (
    *("browser", "browser_arg", "allow_network", "ca_file", "proxy", "proxy_dns", "max_traffic"),
    *("max_timeout", "max_pixels"),
)
# The fields of requests as `--help` groups them; each service shows those that it has.
FIELD_GROUPS = {
    "the result": """outputs full_page selector clip format quality transparent resize max_height padding scroll_page
        disable_animations optimize_for_speed include_shadow_dom""",
    "what to open instead of a URL": "html base_url",
    "the browser it meets": """viewport device user_agent locale timezone color_scheme reduced_motion media geolocation
        javascript render""",
    "when it is ready": """wait_until wait_for wait_for_expression wait_ms timeout_ms on_timeout retries
        fail_on_status""",
    "who it thinks you are": "cookies headers auth referer ignore_tls_errors",
    "what is put in, taken out": """css js hide_selectors remove_selectors bypass_csp block_resources block_urls
        block_ads""",
    "steps before the capture": "actions",
}
COMMANDS = {
    "serve": "serve HTTP (the default)",
    "screenshot": "pictures of pages, without a server",
    "scrape": "documents of pages, without a server",
    "keys": "make, list and revoke API keys",
    "doctor": "look for what is wrong with this system, and tell how to mend it",
}
TOP_FLAGS = ("-h", "--help", "--version")
KEY_ACTIONS = {
    "add": "make a key and print it, once; a running service knows it at once",
    "list": "list the keys, without the keys themselves",
    "revoke": "take a key out of force, at once; its jobs go on",
}
MAIN_EPILOG = """
examples:
  cleariflow                                      serve on 127.0.0.1:8000
  cleariflow screenshot example.com -o page.png   one picture
  cleariflow screenshot -i urls.txt -o shots/     one for each URL of a file
  cleariflow scrape example.com > page.html       one document
  cleariflow COMMAND --help                       all flags of a command

environment variables:
  Every setting of `cleariflow serve --help` is one, too: --data-dir is
  CLEARIFLOW_DATA_DIR; the items of a list stand between white space.
  CLEARIFLOW_API_KEY, a key for both services, has no flag.
"""
CAPTURE_EPILOG = """
lists and objects:
  JSON, such as --headers '{"X-A": "1"}' or --hide-selectors '["#a", "#b"]'.
  Lists of words may be written --block-resources image,font.

files:
  The result of one URL goes to -o FILE. Those of several go to -o FOLDER/, and
  are named by host and path (example.com-docs-intro.png), or to names of your
  own, in which {name} is that name, {host} the host, {number} the place in the
  list. A name that comes again gets -2. Further outputs, and pictures that
  actions take, lie beside (page-links.json). A file that exists is replaced,
  once its successor is complete; -n leaves it.

examples:
  cleariflow screenshot example.com -o page.png --full-page
  cleariflow screenshot -i urls.txt -o 'shots/{host}-{number}.webp' -j 4 -n
  cleariflow scrape example.com example.org -o pages/ --outputs markdown,links
  some-program | cleariflow scrape -i - --json --outputs text > texts.jsonl

exit codes, and the codes of errors that end so:
"""


def help_format(prog: str) -> argparse.HelpFormatter:
    """As wide as the terminal, as long as that can be read."""
    columns = min(shutil.get_terminal_size().columns, 100)
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=columns - 2)


def build_parser() -> argparse.ArgumentParser:
    """The command line; `serve` is what runs without a command."""
    parser = argparse.ArgumentParser(
        prog="cleariflow",
        usage="cleariflow [COMMAND] [FLAG ...]",
        description="Turn web pages into pictures and documents.\n\ncommands:\n" + listing(COMMANDS),
        epilog=MAIN_EPILOG,
        formatter_class=help_format,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cleariflow {__version__}")
    commands = parser.add_subparsers(dest="command", help=argparse.SUPPRESS)

    def add(command: str, usage: str, more: str = "", epilog: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(command, formatter_class=help_format, epilog=epilog, allow_abbrev=False)
        made.usage, made.description = f"cleariflow {command} {usage}", f"{COMMANDS[command]}{more}"
        made.set_defaults(parser=made)
        return made

    exits = {code: text + bool(names) * f"\n{'':14}{', '.join(names)}" for code, (text, names) in EXITS.items()}
    add_flags(add("serve", "[FLAG ...]").add_argument_group("settings"), Config, flag_settings())
    for name, cls in REQUEST_CLASSES.items():
        command = add(name, "[FLAG ...] URL [URL ...]", epilog=CAPTURE_EPILOG + listing(exits))
        add_run_flags(command, name)
        for title, names in FIELD_GROUPS.items():
            if shown := [field for field in names.split() if field in fields_of(cls)]:
                add_flags(command.add_argument_group(title), cls, shown)
        add_flags(command.add_argument_group("settings"), Config, CAPTURE_SETTINGS)
    command = add("doctor", "[FLAG ...]")
    command.add_argument("--json", action="store_true", help="the findings as one JSON object")
    add_flags(command.add_argument_group("settings, as for serve"), Config, flag_settings())
    keys_command = add("keys", "ACTION [FLAG ...]", "\n\nactions:\n" + listing(KEY_ACTIONS))
    actions = keys_command.add_subparsers(dest="action", metavar="ACTION", help=argparse.SUPPRESS, required=True)
    for action, text in KEY_ACTIONS.items():
        command = actions.add_parser(action, description=text, formatter_class=help_format, allow_abbrev=False)
        command.set_defaults(parser=command)
        if action != "list":
            command.add_argument("name", metavar="NAME", help="what it is called, not the key itself")
        if action == "add":
            add_flags(command.add_argument_group("limits"), KeyLimits)
        add_flags(command.add_argument_group("settings"), Config, ["data_dir"])
    return parser


def add_run_flags(command: argparse.ArgumentParser, name: ServiceName) -> None:
    """Those of a capture that are neither the request's nor settings."""
    default = "" if name == "screenshot" else ", the default of one URL"
    lone: dict[str, Any] = {"action": "store_true"}
    command.add_argument("url", nargs="*", metavar="URL", help="a page; a bare example.com means https")
    output = f"a file, a folder or a pattern of names (see below); - is standard output{default}"
    command.add_argument("-o", "--output", metavar="PLACE", action="append", help=output)
    urls = "more URLs, one a line; empty lines and # comments are skipped; - is standard input"
    command.add_argument("-i", "--urls", metavar="FILE", action="append", help=urls)
    jobs = "captures at once (1 to 256; default: number of cores)"
    command.add_argument("-j", "--jobs", "--workers", metavar="N", action="append", dest="workers", help=jobs)
    command.add_argument("-n", "--no-clobber", **lone, help="leave out URLs whose file is there already")
    lines = "a JSON object for each URL on standard output, with the result where -o is not given"
    command.add_argument("--json", **lone, help=lines)
    command.add_argument("-q", "--quiet", **lone, help="tell of failures only")


def listing(texts: Mapping[Any, str]) -> str:
    """Names and what they are, for `--help`."""
    return "\n".join(f"  {name:<12}{text}" for name, text in texts.items())


def edit_keys(action: str, flags: Mapping[str, Any], config: Config) -> None:
    """`keys add`, `keys list`, `keys revoke`. Raises ConfigError."""
    if action == "list":
        for key in read_keys(config.keys_file):
            values = {name: getattr(key, name) for name in fields_of(KeyLimits)}
            told = "".join(f"  {name} {value}" for name, value in values.items() if value is not None)
            print(f"{key.name}  since {key.created_at}{told}")
        return
    name = flags["name"]
    with edited_keys(config) as keys:
        known = [key.name for key in keys]
        if action == "revoke":
            if name not in known:
                raise ConfigError([Fault("NAME", f"no key is called {name[:MAX_ECHO]!r}{nearest(name, known)}")])
            keys[:] = [key for key in keys if key.name != name]
        else:
            if name in known or not KEY_NAME.fullmatch(name):
                wrong = "is taken: revoke it first" if name in known else f"must be {KEY_NAME_TEXT}"
                raise ConfigError([Fault("NAME", f"{name[:MAX_ECHO]!r} {wrong}")])
            given = [(field, flags[field]) for field in fields_of(KeyLimits) if flags.get(field) is not None]
            limits: KeyLimits = structure(nested(given, KeyLimits), KeyLimits)
            text = KEY_PREFIX + secrets.token_urlsafe(32)
            keys.append(Key(name=name, digest=digest_of(text), created_at=now_text(), **attrs.asdict(limits)))
    if action == "add":
        try:
            print(text, flush=True)
        except OSError:
            print(f"cleariflow: nobody has seen the key: revoke {name} and add it again", file=sys.stderr)
            raise
    elif not keys:
        removed = f"or {config.keys_file} is removed"
        print(f"no key is left: nobody can submit until there is one, {removed}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 failed, 2 wrong usage; `EXITS` has those of captures."""
    for name, mode in (("stdin", os.O_WRONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_RDWR)):
        if getattr(sys, name) is None:
            # It is closed: using it fails as for any program; what is said on stderr is lost.
            setattr(sys, name, os.fdopen(os.open(os.devnull, mode), "r" if name == "stdin" else "w"))
    try:
        try:
            code = run_command(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except (ValidationError, StoreError) as error:
        for fault in getattr(error, "faults", None) or [Fault("", str(error))]:
            print("cleariflow: " + (f"{fault.field}: " if fault.field else "") + fault.message, file=sys.stderr)
        return 2
    except OSError as error:
        # Else the interpreter would try once more, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        print(f"cleariflow: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def run_command(arguments: list[str]) -> int:
    """Run a command and return its exit code. Raises ValidationError with all faults, StoreError."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in TOP_FLAGS):
        arguments = ["serve", *arguments]
    if arguments[0] not in (*COMMANDS, *TOP_FLAGS):
        hint = nearest(arguments[0], COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        raise ConfigError([Fault("", f"there is no such command{hint}")])
    parsed, extras = build_parser().parse_known_args(with_values(arguments, (Config, *REQUEST_CLASSES.values())))
    command, captures = parsed.command, []
    flags, twice = given_once(vars(parsed))
    faults = Faults([*sort_out(extras, flags), *twice])
    if command == "doctor" and not faults:
        set_up_logging("text", logging.CRITICAL)
        return run_doctor(flags)
    config, wrong = read_config(flags, serves=command == "serve")
    faults += wrong
    if command in REQUEST_CLASSES:
        with faults.noted():
            captures = plan(command, flags, config)
    if faults:
        raise ConfigError(faults)
    if command == "keys":
        edit_keys(flags["action"], flags, config)
    elif command == "serve":
        set_up_logging(config.log_format, logging.INFO)
        trio.run(serve, config)
    else:
        # What a capture says is told by itself.
        set_up_logging(config.log_format, logging.CRITICAL)
        return trio.run(Run(command, flags, config, captures).whole)
    return 0


def sort_out(extras: list[str], flags: dict[str, Any]) -> Iterator[Fault]:
    """Give words that argparse left over to the URLs, of which it takes those that stand together only.

    A flag that is unknown is a fault, with the nearest of the command's `--help`.
    """
    after_flag = False
    known = re.findall(r"--[a-z][\w.-]+", flags["parser"].format_help())
    for word in extras:
        if word.startswith("-") and word != "-":
            flag, equals, _ = word.partition("=")
            yield Fault(flag[:MAX_ECHO], f"unknown flag{nearest(flag[:MAX_ECHO], known)}")
            # The next word is its value, as likely as not.
            after_flag = not equals
        elif after_flag:
            after_flag = False
        elif "url" in flags:
            flags["url"].append(word)
        else:
            yield Fault("", f"{flags['command']} takes no further arguments")


def given_once(flags: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The flags' values, and a fault for each that stands twice and is no list."""
    lists = {name for name, kind in fields_of(Config).items() if bare_type(kind) == tuple[str, ...]} | {"url"}
    several = {name for name, value in flags.items() if isinstance(value, list) and name not in lists}
    twice = [Fault(f"--{name.replace('_', '-')}", "is given twice") for name in several if len(flags[name]) > 1]
    return {name: value[0] if name in several else value for name, value in flags.items()}, twice


if __name__ == "__main__":
    sys.exit(main())
