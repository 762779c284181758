"""The egress door in every channel: what a page tries and a request asks for, against what arrives and what is sent."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import cdp
from cdp.egress import AddressPolicy, open_door
from cdp.tasks import open_tasks
from tests.dns_server import ToThisMachine
from tests.site import Site
from tests.vector_run import REBINDING, Plan, report_of
from tests.vectors import MARKUP, NEVER, NEVER_ASKED, NOT_EVERYWHERE, REQUESTS, SCRIPTS, UNREACHABLE

Report = dict[str, Any]


@attrs.frozen
class Run:
    """One run of all vectors; tests share its report."""

    plan: Plan
    isolated: bool = True


RUNS = {
    "checks-on": Run(Plan(checks=True, allow=False, full=False)),
    "checks-off": Run(Plan(checks=False, allow=False, full=False)),
    "allowed": Run(Plan(checks=False, allow=True, full=False)),
    "all-targets-checks-on": Run(Plan(checks=True, allow=False, full=True)),
    "all-targets-checks-off": Run(Plan(checks=False, allow=False, full=True)),
    "all-targets-allowed": Run(Plan(checks=False, allow=True, full=True)),
    "full-chromium": Run(Plan(checks=False, allow=False, full=False, browser="chromium")),
    "udp-on": Run(Plan(checks=False, allow=False, full=False, switches=("--force-webrtc-ip-handling-policy=default",))),
    "without-namespace": Run(Plan(checks=False, allow=False, full=True), isolated=False),
    "without-namespace-allowed": Run(Plan(checks=False, allow=True, full=False), isolated=False),
}
SLOW = [name for name in RUNS if name not in ("checks-on", "checks-off", "allowed")]


def runs(*names: str) -> Any:
    """The parameter of a fixture."""
    marks = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else (), id=name) for name in names]
    return pytest.fixture(params=marks, scope="session")


@pytest.fixture(scope="session")
def report_named(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Report]:
    """A run's report, made once by whoever asks first, of all processes of this test run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def get(name: str) -> Report:
        file = folder / f"vectors-{name}.json"
        with (folder / f"vectors-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                run = RUNS[name]
                file.write_text(json.dumps(report_of(run.plan, folder, isolated=run.isolated)))
        report: Report = json.loads(file.read_text())
        return report

    return get


CLOSED = ("checks-on", "checks-off", "all-targets-checks-on", "all-targets-checks-off", "full-chromium")


@runs(*CLOSED, "without-namespace")
def closed(request: pytest.FixtureRequest, report_named: Callable[[str], Report]) -> Report:
    """Of a run in which the targets are not allowed."""
    if request.param == "full-chromium" and shutil.which("chromium") is None:
        pytest.skip("full Chromium is not installed")
    return report_named(request.param)


@runs("allowed", "all-targets-allowed", "without-namespace-allowed")
def allowed(request: pytest.FixtureRequest, report_named: Callable[[str], Report]) -> Report:
    """Of a run in which they are."""
    return report_named(request.param)


def jobs(report: Report, *vectors: str) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """Vector, target, status and body of the jobs, all or of some vectors."""
    for key, (status, body) in report["jobs"].items():
        vector, target = key.rsplit(" ", 1)
        if not vectors or vector in vectors:
            yield vector, target, status, body


def ours_reached(report: Report) -> list[str]:
    """Hosts and ports of the service itself that answered a page."""
    ((_, _, _, body),) = jobs(report, "own ports")
    return [at for at in body["meta"]["actions"][0]["value"] if not at.endswith(f":{report['web_port']}")]


# ---- Closed ----------------------------------------------------------------------------------------------------------


def test_closed_no_target_is_connected_to(closed: Report) -> None:
    assert (closed["accepted"], closed["datagrams"]) == ([], [])


def test_closed_no_packet_goes_past_the_door(closed: Report) -> None:
    if not closed["namespace"]:
        pytest.skip("packets are counted in a network namespace, and this user may make none")
    assert closed["packets"] == []


def test_closed_every_page_tried(closed: Report) -> None:
    """What did not arrive was asked for: the pages ran to their end, and the door refused most of it."""
    pages = [(status, body) for _, _, status, body in jobs(closed, "page", "secure page")]
    assert {status for status, _ in pages} == {200}
    assert max(body["meta"]["network"]["blocked_connections"] for _, body in pages) > 50
    assert closed["faults"] == []


def test_closed_the_browser_asks_no_name_server(closed: Report) -> None:
    """Chromium asks for records of other types too, and for names that no connection needs, `wpad` among them."""
    asked = {name.removesuffix(".corp.test") for name, _ in (line.split() for line in closed["asked"])}
    assert asked <= set(closed["names"])
    assert not asked & set(NEVER_ASKED)
    assert {line.split()[1] for line in closed["asked"]} == {"1", "28"}


def test_closed_no_port_of_ours_is_reached(closed: Report) -> None:
    """The API, the debugging port and the relays: three at least, by every spelling of this machine."""
    assert {closed["api_port"]} < set(closed["own_ports"])
    assert len(closed["own_ports"]) >= 3
    assert ours_reached(closed) == []


FIRST = (
    "first-url",
    "first-url-tls",
    "first-redirect",
    "first-redirect-twice",
    "plain",
    "plain-redirect",
    "plain-auto",
)


def test_closed_first_url_is_a_blocked_target(closed: Report) -> None:
    wrong = [
        (vector, target, status, body)
        for vector, target, status, body in jobs(closed, *FIRST)
        # Half of what these names answer is public.
        if not target.startswith(("flip", "both", "families"))
        and (status, body.get("error", {}).get("code")) != (400, "blocked_target")
    ]
    assert wrong == []


def test_closed_refusal_of_a_first_url_names_the_setting(closed: Report) -> None:
    ((_, _, _, body),) = [job for job in jobs(closed, "first-url") if job[1] == "alias.test"]
    assert body["error"]["message"].endswith("--allow-network alias.test would allow it")


def test_closed_blocked_resource_is_a_warning_that_names_the_setting(closed: Report) -> None:
    ((_, _, status, body),) = [job for job in jobs(closed, "html") if job[1] == "alias.test"]
    assert status == 200
    assert [warning for warning in body["meta"]["warnings"] if "--allow-network alias.test" in warning]


def test_closed_no_answer_tells_what_a_name_resolved_to(closed: Report) -> None:
    hidden = re.compile("|".join(rf"(?<![\w.:/]){re.escape(address)}(?![\w.:])" for address in closed["hidden"]))
    told = {
        (vector, target): found[0]
        for vector, target, _, body in jobs(closed)
        if target.endswith(".test") and (found := hidden.search(json.dumps(body)))
    }
    assert told == {}


@pytest.mark.parametrize("vector", ["first-url", "plain"])
def test_closed_open_and_closed_ports_look_the_same(closed: Report, vector: str) -> None:
    seen = {}
    for name, target, status, body in jobs(closed, vector, f"{vector}-closed"):
        if target == "alias.test":
            seen[name] = (status, {key: value for key, value in body["error"].items() if key != "job_id"})
    assert len(seen) == 2
    assert seen[vector] == seen[f"{vector}-closed"]


# ---- Allowed ---------------------------------------------------------------------------------------------------------


def test_allowed_every_vector_reaches_its_target(allowed: Report) -> None:
    """So that what did not arrive in a closed run was held up there, and not forgotten by the test."""
    # Over TLS it asks at port 443 only.
    never = {*NEVER, *(() if allowed["namespace"] else ("passkey",))}
    assert [vector for vector in allowed["vectors"] if vector not in allowed["reached"] and vector not in never] == []


@pytest.mark.slow
def test_allowed_every_vector_reaches_every_target(report_named: Callable[[str], Report]) -> None:
    report = report_named("all-targets-allowed")
    vectors = [vector for vector in report["vectors"] if vector not in (*NEVER, *NOT_EVERYWHERE)]
    targets = [target for target in report["targets"] if target not in (*UNREACHABLE, REBINDING)]
    missing = {
        (vector, target) for vector in vectors for target in targets if target not in report["reached"].get(vector, ())
    }
    assert missing == set()


@pytest.mark.slow
def test_packets_of_what_a_switch_stops_are_seen_without_it(report_named: Callable[[str], Report]) -> None:
    """The counters of UDP count: a closed run, but for one switch of cdp/launcher.py."""
    report = report_named("udp-on")
    assert {"webrtc-stun-udp", "webrtc-turn-udp", "webrtc-peer-udp"} <= report["reached"].keys()
    if report["namespace"]:
        assert {protocol for protocol, *_ in report["packets"]} == {"udp"}


def test_allowed_own_ports_stay_closed(allowed: Report) -> None:
    """Beside a port of the same machine that is none of them."""
    assert ours_reached(allowed) == []
    ((_, _, _, body),) = jobs(allowed, "own ports")
    assert len(body["meta"]["actions"][0]["value"]) > (10 if allowed["namespace"] else 0)


def test_never_has_a_reason_for_known_vectors_only() -> None:
    assert NEVER.keys() <= {*MARKUP, *SCRIPTS, *REQUESTS}


# ---- Other schemes ---------------------------------------------------------------------------------------------------

TOKEN = "a secret of this machine"
# Everything that shows or runs what is at a URL; `told` hears of it.
LOOK = """<script>
const told = [];
const add = (tag, fields) => new Promise((done, failed) => {
  document.body.append(Object.assign(document.createElement(tag), fields, {onload: done, onerror: failed}));
});
const tries = url => ({
  script: add('script', {src: url + '.js'}).then(() => window.leaked || Promise.reject()),
  module: import(url + '.js'),
  image: add('img', {src: url + '.svg'}),
  style: add('link', {rel: 'stylesheet', href: url + '.css'}).then(() => [...document.styleSheets].at(-1).cssRules),
  fetch: fetch(url + '.html'),
  opaque: fetch(url + '.html', {mode: 'no-cors'}),
  xhr: new Promise((done, failed) => {
    const x = new XMLHttpRequest();
    x.open('GET', url + '.html');
    x.onload = done;
    x.onerror = failed;
    x.send();
  }),
  worker: new Promise((done, failed) => {
    const worker = new Worker(URL.createObjectURL(new Blob([`importScripts('${url}.js'); postMessage(0)`])));
    worker.onmessage = done;
    worker.onerror = failed;
  }),
});
const look = async url => {
  for (const [name, attempt] of Object.entries(tries(url))) await attempt.then(() => told.push(name), () => 0);
  for (const tag of ['iframe', 'embed', 'object'])
    document.body.append(Object.assign(document.createElement(tag), {src: url + '.html', data: url + '.html'}));
  open(url + '.html');
  const form = Object.assign(document.createElement('form'), {action: url + '.html', target: 'within'});
  document.body.append(Object.assign(document.createElement('iframe'), {name: 'within'}), form);
  form.submit();
  await new Promise(done => setTimeout(done, 100));
  return told;
};
</script>"""
SEEN = {"script", "module", "image", "style", "fetch", "opaque", "xhr", "worker"}


def files_of(folder: Path) -> None:
    """What `LOOK` can show: the secret in every form."""
    (folder / "x.html").write_text(f"<p>{TOKEN}</p>")
    (folder / "x.js").write_text(f"globalThis.leaked = '{TOKEN}'")
    (folder / "x.css").write_text(f"p::before {{ content: '{TOKEN}' }}")
    (folder / "x.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')


async def shown(page: cdp.Page) -> str:
    """Everything in the page and its frames."""
    await page.session.send("DOM.enable")
    return json.dumps(await page.session.send("DOM.getDocument", depth=-1, pierce=True))


@pytest.mark.parametrize(
    "url",
    [
        "file://{folder}/x",
        "file://localhost{folder}/x",
        "FILE:{folder}/x",
        "view-source:file://{folder}/x",
        "filesystem:file://{folder}/x",
        "devtools://devtools/bundled/inspector",
        "chrome://version/x",
        "chrome-untrusted://version/x",
        "chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai/x",
        "view-source:http://127.0.0.1:{port}/files/x",
    ],
)
async def test_page_gets_nothing_of_another_scheme(page: cdp.Page, site: Site, tmp_path: Path, url: str) -> None:
    files_of(tmp_path)
    site.add_folder("/files/", tmp_path)
    url = url.format(folder=tmp_path, port=site.port)
    await page.navigate(site.add("/look", f"<!doctype html><body>{LOOK}"))
    assert await page.evaluate(f"look({url!r})") == []
    before = await shown(page)
    await page.evaluate(f"location = '{url}.html'")
    await page.arrive()
    after = await shown(page)
    assert TOKEN not in before + after
    schemes = {one.partition(":")[0] for text in (before, after) for one in documents(json.loads(text))}
    assert schemes <= {"http", "about", "chrome-error"}


def documents(node: Any) -> Iterator[str]:
    """The URLs of a document and all within it."""
    if isinstance(node, dict):
        yield from [node["documentURL"]] if "documentURL" in node else []
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from documents(part)


async def test_page_gets_everything_of_its_own_site(page: cdp.Page, site: Site, tmp_path: Path) -> None:
    """The same tries where they may succeed."""
    files_of(tmp_path)
    await page.navigate(site.add("/look", f"<!doctype html><body>{LOOK}"))
    site.add_folder("/files/", tmp_path)
    assert set(await page.evaluate(f"look({site.url('/files/x')!r})")) == SEEN
    assert TOKEN in await shown(page)


# ---- The relay, spoken to by somebody else ---------------------------------------------------------------------------


def named(host: bytes) -> bytes:
    """A name as an address of SOCKS5 (RFC 1928, section 5)."""
    return b"\x03" + bytes([len(host)]) + host


CONNECT, BIND, UDP, RESOLVE = b"\x05\x01\x00", b"\x05\x02\x00", b"\x05\x03\x00", b"\x05\xf0\x00"
THIS_MACHINE = b"\x01\x7f\x00\x00\x01"
MESSAGES = {
    "bind": BIND + THIS_MACHINE,
    "udp": UDP + THIS_MACHINE,
    "udp-anywhere": UDP + b"\x01\x00\x00\x00\x00",
    "resolve": RESOLVE + named(b"inner.test"),
    "command-0": b"\x05\x00\x00" + THIS_MACHINE,
    "literal": CONNECT + THIS_MACHINE,
    "reserved-byte": b"\x05\x01\xff" + THIS_MACHINE,
    "any": CONNECT + b"\x01\x00\x00\x00\x00",
    "loopback-v6": CONNECT + b"\x04" + bytes(15) + b"\x01",
    "any-v6": CONNECT + b"\x04" + bytes(16),
    "mapped": CONNECT + b"\x04" + bytes(10) + b"\xff\xff\x7f\x00\x00\x01",
    "address-type-0": CONNECT + b"\x00\x7f\x00\x00\x01",
    "address-type-2": CONNECT + b"\x02\x7f\x00\x00\x01",
    "address-type-255": CONNECT + b"\xff\x7f\x00\x00\x01",
    **{
        text: CONNECT + named(text.encode())
        for text in ("127.0.0.1", "127.1", "0x7f.1", "localhost", "inner.test", "::1", "[::1]", "::1%lo", "fe80::1%1")
    },
    "nul-behind": CONNECT + named(b"127.0.0.1\0.public.test"),
    "nul-before": CONNECT + named(b"public.test\0127.0.0.1"),
    "nul-only": CONNECT + named(b"\0"),
    "new-line": CONNECT + named(b"127.0.0.1\n"),
    "space": CONNECT + named(b" 127.0.0.1"),
    "port-in-name": CONNECT + named(b"127.0.0.1:80"),
    "user-in-name": CONNECT + named(b"public.test@127.0.0.1"),
    "no-name": CONNECT + named(b""),
    "dots": CONNECT + named(b"." * 255),
    "long-name": CONNECT + named(b"a" * 255),
    "long-labels": CONNECT + named(b".".join([b"a" * 63] * 4)[:255]),
    "no-utf-8": CONNECT + named(b"\xff\xfe127.0.0.1"),
    "wide-digits": CONNECT + named("１２７.0.0.1".encode()),
}


async def spoken(policy: AddressPolicy, message: bytes) -> tuple[bytes, int]:
    """What a relay answers to a message for a port of this machine, and how many connections that port got."""
    accepted = 0

    async def accept(stream: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        await stream.send_all(b"reached")
        await stream.aclose()

    trio.socket.set_custom_hostname_resolver(ToThisMachine())
    async with open_tasks() as tasks, open_door(policy) as door:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tasks.start_soon(trio.serve_listeners, accept, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", door.port) as client:
            await client.send_all(b"\x05\x01\x00" + message + port.to_bytes(2, "big"))
            await client.send_eof()
            answer = b""
            # It hangs up on what it has not read.
            with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
                async for part in client:
                    answer += part
    return answer, accepted


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
async def test_relay_connects_no_stranger_to_this_machine(message: bytes) -> None:
    answer, accepted = await spoken(AddressPolicy.parse([]), message)
    assert (accepted, answer[:2]) == (0, b"\x05\x00")
    assert answer[2:4] not in (b"", b"\x05\x00")


@pytest.mark.parametrize("name", ["bind", "udp", "udp-anywhere", "resolve", "command-0", "address-type-0"])
async def test_relay_does_nothing_but_connect(name: str) -> None:
    answer, accepted = await spoken(AddressPolicy.parse(["127.0.0.0/8"]), MESSAGES[name])
    assert (accepted, answer[2:4]) in ((0, b"\x05\x07"), (0, b"\x05\x08"))


@pytest.mark.parametrize("name", ["literal", "mapped", "127.0.0.1", "inner.test"])
async def test_relay_connects_to_what_is_allowed(name: str) -> None:
    answer, accepted = await spoken(AddressPolicy.parse(["127.0.0.0/8"]), MESSAGES[name])
    assert (accepted, answer[-7:]) == (1, b"reached")
