"""The operator's proxy (cdp/proxy.py): what it is asked for by door and fetch, what it is not, and its faults."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import cdp
from cdp import egress
from cdp.egress import AddressPolicy, FailureKind, connect, open_door
from cdp.errors import NavigationError
from cdp.fetch import fetch
from cdp.options import PageOptions
from cdp.proxy import MAX_HEAD_BYTES, Proxy
from cdp.tasks import open_tasks
from tests.site import OK_TEXT, Site
from tests.test_egress import (
    NOT_ALLOWED,
    Resolver,
    Server,
    connected,
    nothing_left,
    read,
    read_all,
    refused,
    reset,
    same_inputs,
    serving,
    stay,
    unused_port,
)

_ = nothing_left  # for each test here too

USER, WORD = "user", "s3cret:%/@word"
QUOTED = "s3cret%3A%25%2F%40word"
QUICK_S = 5.0

# ---- The setting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.example:3128", ("http", "proxy.example", 3128, None, "")),
        ("http://proxy.example:3128/", ("http", "proxy.example", 3128, None, "")),
        (" SOCKS5://10.0.0.1:1080 ", ("socks5", "10.0.0.1", 1080, None, "")),
        ("http://[fd00::1]:8080", ("http", "fd00::1", 8080, None, "")),
        (f"http://{USER}:{QUOTED}@p:1", ("http", "p", 1, USER, WORD)),
        (f"socks5://{USER}:{QUOTED}@p:65535", ("socks5", "p", 65535, USER, WORD)),
        ("http://user@p:80", ("http", "p", 80, "user", "")),
        ("http://user:a@b@p:80", ("http", "p", 80, "user", "a@b")),
    ],
)
def test_parse_of_a_proxy(url: str, expected: tuple[str, str, int, str | None, str]) -> None:
    proxy = Proxy.parse(url)
    assert (proxy.scheme, proxy.host, proxy.port, proxy.username, proxy.password) == expected


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", "must begin with"),
        ("proxy.example:3128", "must begin with"),
        ("https://proxy.example:3128", "must begin with"),
        ("socks5h://proxy.example:3128", "--proxy-dns"),
        ("http://proxy.example", "no port"),
        ("http://proxy.example:0", "no port"),
        ("http://proxy.example:65536", "no port"),
        ("http://proxy.example:s3cret", "no port"),
        ("http://:3128", "no valid host"),
        ("http://[::1:3128", "no valid host"),
        ("http://\u2100:3128", "no valid host"),
        ("http://p:80/s3cret", "must end with the port"),
        ("http://p:80?s3cret", "must end with the port"),
        ("http://user:s3cret/x@p:80/y", "must end with the port"),
        ("http://us%3Aer:s3cret@p:80", "colon"),
        ("socks5://user@p:80", "1 to 255 bytes"),
        (f"socks5://user:{'s3cret' * 50}@p:80", "1 to 255 bytes"),
    ],
)
def test_parse_names_the_fault_and_no_part_of_the_url(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        Proxy.parse(url)
    assert "s3cret" not in str(caught.value)


def test_parse_names_every_fault() -> None:
    with pytest.raises(ValueError, match=r"must end with the port.*no valid host.*no port.*colon"):
        Proxy.parse("http://a%3Ab:x@/path")


def test_proxy_is_shown_without_its_credentials() -> None:
    shown = repr(AddressPolicy.parse([], proxy=Proxy.parse(f"http://{USER}:{QUOTED}@p:1")))
    assert "s3cret" not in shown
    assert USER not in shown


# ---- A proxy ---------------------------------------------------------------------------------------------------------


class SmallProxy:
    """A real one, for HTTP's CONNECT and SOCKS5; every name leads to 127.0.0.1 for it. `asked` is what it was asked."""

    def __init__(self, *, wants: tuple[str, str] | None = None) -> None:
        self.wants = wants
        self.asked: list[tuple[str, int]] = []

    async def http(self, stream: trio.SocketStream) -> None:
        lines = (await read_head(stream)).decode().split("\r\n")
        method, authority, version = lines[0].split(" ")
        assert (method, version) == ("CONNECT", "HTTP/1.1")
        headers = {name: value for line in lines[1:] if line for name, value in [line.split(": ", 1)]}
        assert headers.pop("Host") == authority
        given = headers.pop("Proxy-Authorization", None)
        assert headers == {}
        if self.wants is not None:
            expected = "Basic " + base64.b64encode(":".join(self.wants).encode()).decode()
            if given != expected:
                await stream.send_all(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\n\r\nsome page")
                return
        host, _, port = authority.rpartition(":")
        await self.tunnel(stream, host.strip("[]"), int(port), b"HTTP/1.1 200 OK\r\nVia: small\r\n\r\n")

    async def socks(self, stream: trio.SocketStream) -> None:
        _, count = await read(stream, 2)
        methods = await read(stream, count)
        if self.wants is not None:
            if 2 not in methods:
                await stream.send_all(b"\x05\xff")
                return
            await stream.send_all(b"\x05\x02")
            assert await read(stream, 1) == b"\x01"
            given = tuple([(await read(stream, (await read(stream, 1))[0])).decode() for _ in range(2)])
            await stream.send_all(b"\x01" + bytes([given != self.wants]))
            if given != self.wants:
                return
        else:
            await stream.send_all(b"\x05\x00")
        assert await read(stream, 3) == b"\x05\x01\x00"
        kind = (await read(stream, 1))[0]
        if kind == 3:
            host = (await read(stream, (await read(stream, 1))[0])).decode()
        else:
            family, size = {1: (socket.AF_INET, 4), 4: (socket.AF_INET6, 16)}[kind]
            host = socket.inet_ntop(family, await read(stream, size))
        port = int.from_bytes(await read(stream, 2), "big")
        await self.tunnel(stream, host, port, b"\x05\x00\x00\x03\x05small\x12\x34")

    async def tunnel(self, stream: trio.SocketStream, host: str, port: int, reply: bytes) -> None:
        self.asked.append((host, port))
        numeric = set(host) <= set("0123456789abcdef.:")
        async with await trio.open_tcp_stream(host if numeric else "127.0.0.1", port) as upstream:
            await stream.send_all(reply)

            async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                async for chunk in source:
                    await sink.send_all(chunk)
                await sink.send_eof()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(copy, stream, upstream)
                nursery.start_soon(copy, upstream, stream)


async def read_head(stream: trio.SocketStream) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await read(stream, 1)
    return head


Handler = Callable[[trio.SocketStream], Awaitable[object]]


def through(server: Server, scheme: str, *specs: str, userinfo: str = "", resolves: bool = False) -> AddressPolicy:
    proxy = Proxy.parse(f"{scheme}://{userinfo}127.0.0.1:{server.port}", resolves=resolves)
    return AddressPolicy.parse(specs or ["127.0.0.0/8", "::1"], proxy=proxy)


@asynccontextmanager
async def proxied(
    scheme: str, *specs: str, resolves: bool = False, wants: tuple[str, str] | None = None, userinfo: str = ""
) -> AsyncIterator[tuple[SmallProxy, AddressPolicy]]:
    small = SmallProxy(wants=wants)
    async with serving(small.http if scheme == "http" else small.socks) as server:
        yield small, through(server, scheme, *specs, userinfo=userinfo, resolves=resolves)


async def failure_of(policy: AddressPolicy, host: str, port: int) -> egress.Failure:
    found = await connect(policy, host, port)
    assert isinstance(found, egress.Failure)
    return found


both = pytest.mark.parametrize("scheme", ["http", "socks5"])

# ---- What it is asked ------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_proxy_connects_to_an_address(scheme: str, host: str) -> None:
    async with serving(host=host) as server, proxied(scheme) as (small, policy), open_door(policy) as door:
        async with connected(door, host, server.port) as client:
            await client.send_all(b"hello")
            assert await read(client, 5) == b"hello"
    assert small.asked == [(host, server.port)]


@both
async def test_proxy_is_asked_for_exactly_the_address_that_was_judged(scheme: str) -> None:
    """A name that rebinds: the first answer may be reached, every later one is the victim's."""
    resolver = Resolver(["127.0.0.2"], ["127.0.0.1"])
    async with (
        serving() as victim,
        serving(host="127.0.0.2", port=victim.port) as allowed,
        proxied(scheme, "127.0.0.2") as (small, policy),
        open_door(policy) as door,
        connected(door, "rebind.example", victim.port),
    ):
        pass
    assert (small.asked, resolver.asked) == ([("127.0.0.2", victim.port)], ["rebind.example"])
    assert (allowed.hits, victim.hits) == (1, 0)


@both
@pytest.mark.parametrize("host", ["127.0.0.1", "10.1", "localhost", "inside.example", "169.254.169.254"])
async def test_proxy_is_not_asked_for_what_is_refused(scheme: str, host: str) -> None:
    Resolver(["10.0.0.1"])
    async with proxied(scheme, "192.168.0.0/16") as (small, policy), open_door(policy) as door:
        assert await refused(door, host, 8080) == NOT_ALLOWED
    assert small.asked == []


@both
async def test_proxy_gets_the_name_with_proxy_dns(scheme: str) -> None:
    resolver = Resolver(["10.0.0.1"])
    async with (
        serving() as server,
        proxied(scheme, resolves=True) as (small, policy),
        open_door(policy) as door,
        connected(door, "B\u00fccher.example.", server.port),
    ):
        pass
    assert (small.asked, resolver.asked) == ([("xn--bcher-kva.example", server.port)], [])


@both
@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "0x7f.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "a.localhost",
        "intranet",
        "printer.local",
        "metadata.google.internal",
        "router.home.arpa",
        "localhost.localdomain",
    ],
)
async def test_proxy_dns_leaves_nothing_inside_to_the_proxy(scheme: str, host: str) -> None:
    async with proxied(scheme, "192.168.0.0/16", resolves=True) as (small, policy):
        found = await failure_of(policy, host, 80)
    assert (found.kind, small.asked) == (FailureKind.blocked, [])
    assert "--allow-network" in found.text


@both
@pytest.mark.parametrize(
    "host", ["1.2.3.4.5", "256.256", "a.0x7f", "a b.example", "a\r\nX.example", "a:1.b", "*.example", "%31.0.0.1%20.b"]
)
async def test_proxy_dns_leaves_nothing_to_the_proxy_that_is_no_name(scheme: str, host: str) -> None:
    async with proxied(scheme, resolves=True) as (small, policy):
        found = await failure_of(policy, host, 80)
    assert (found.kind, small.asked) == (FailureKind.name_not_resolved, [])


async def test_proxy_dns_leaves_an_allowed_name_to_the_proxy() -> None:
    async with serving() as server, proxied("http", "intranet", resolves=True) as (small, policy):
        stream = await connect(policy, "intranet", server.port)
        assert not isinstance(stream, egress.Failure)
        await stream.aclose()
    assert small.asked == [("intranet", server.port)]


async def test_name_without_address_is_told_which_flag_would_help() -> None:
    Resolver([])
    async with proxied("http") as (_, policy):
        found = await failure_of(policy, "far.example", 80)
    assert (found.kind, "--proxy-dns" in str(found.error())) == (FailureKind.name_not_resolved, True)


@both
async def test_proxy_gets_the_credentials(scheme: str) -> None:
    async with (
        serving() as server,
        proxied(scheme, wants=(USER, WORD), userinfo=f"{USER}:{QUOTED}@") as (small, policy),
        open_door(policy) as door,
        connected(door, "127.0.0.1", server.port),
    ):
        pass
    assert small.asked == [("127.0.0.1", server.port)]


@both
@pytest.mark.parametrize(
    ("userinfo", "told"), [("", "wants credentials"), ("user:s3cret@", "does not take the credentials")]
)
async def test_proxy_that_wants_other_credentials_is_told(scheme: str, userinfo: str, told: str) -> None:
    async with proxied(scheme, wants=("a", "b"), userinfo=userinfo) as (_, policy):
        found = await failure_of(policy, "127.0.0.1", 8080)
    assert (found.kind, told in found.text, "s3cret" in found.text) == (FailureKind.proxy_failed, True, False)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "0.0.0.0", "[::ffff:127.0.0.1]", "localhost", "named.example"]
)
@pytest.mark.parametrize("resolves", [False, True])
async def test_proxy_itself_is_no_page_s_to_reach(host: str, resolves: bool) -> None:
    Resolver(["127.0.0.1"])
    async with proxied("http", "0.0.0.0/0", "::/0", resolves=resolves) as (small, policy):
        assert policy.proxy is not None
        if host != "named.example" or not resolves:  # that one it must answer for
            found = await failure_of(policy, host, policy.proxy.port)
            assert (found.kind, small.asked) == (FailureKind.blocked, [])


@pytest.mark.parametrize("host", ["10.9.9.9", "proxy.example", "other.example", "[64:ff9b::a09:909]"])
async def test_proxy_elsewhere_is_no_page_s_to_reach(host: str) -> None:
    Resolver(["10.9.9.9"])
    policy = AddressPolicy.parse(["10.0.0.0/8", "*.example"], proxy=Proxy.parse("http://Proxy.example:3128"))
    assert (await failure_of(policy, host, 3128)).kind is FailureKind.blocked


async def test_proxy_by_name_is_no_page_s_to_reach_with_proxy_dns() -> None:
    Resolver(["10.9.9.9"])
    proxy = Proxy.parse("http://Proxy.example:3128", resolves=True)
    found = await failure_of(AddressPolicy.parse(["*.example"], proxy=proxy), "proxy.EXAMPLE.", 3128)
    assert found.kind is FailureKind.blocked


async def test_proxy_gets_the_next_address_after_a_fault() -> None:
    async def only_the_second(stream: trio.SocketStream) -> None:
        second = b"CONNECT 127.0.0.3:" in await read_head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n" if second else b"HTTP/1.1 503 No\r\n\r\n")
        await stay(stream)

    Resolver(["127.0.0.2", "127.0.0.3"])
    async with serving(only_the_second) as server:
        stream = await connect(through(server, "http"), "two.example", 80)
        assert not isinstance(stream, egress.Failure)
        await stream.aclose()


# ---- Its answers -----------------------------------------------------------------------------------------------------


def answering(*parts: bytes, end: Handler = stay) -> Handler:
    """Reads the first request, and sends the parts one after the other."""

    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        for part in parts:
            await stream.send_all(part)
            await trio.testing.wait_all_tasks_blocked()
        await end(stream)

    return handler


async def leave(stream: trio.SocketStream) -> None:
    """Close at once."""


GREETED = b"\x05\x00"


@pytest.mark.parametrize(
    ("scheme", "parts"),
    [
        ("http", (b"HTTP/1.1 200 OK\r\n\r\nhello",)),
        ("http", (b"H", b"TTP/1.0 200\r\nA: b\r\n\r", b"\nhe", b"llo")),
        ("http", (b"HTTP/1.1 200 OK\r\n\r", b"\nhello\r\n\r\n")),
        ("socks5", (GREETED, b"\x05\x00\x00\x01\x01\x02\x03\x04\x05\x06hello")),
        ("socks5", (GREETED, b"\x05\x00\x00\x04" + bytes(18) + b"hello")),
        ("socks5", (GREETED, b"\x05\x00", b"\x00\x03\x02", b"ab\x00", b"\x01hel", b"lo")),
    ],
)
async def test_what_follows_the_proxy_s_answer_is_the_host_s(scheme: str, parts: tuple[bytes, ...]) -> None:
    async with serving(answering(*parts)) as server:
        stream = await connect(through(server, scheme), "127.0.0.2", 80)
        assert not isinstance(stream, egress.Failure)
        async with stream:
            assert await read(stream, 5) == b"hello"


FAULTS = [
    ("http", answering(end=leave), "hung up"),
    ("http", answering(end=reset), "hung up"),
    ("http", answering(b"HTTP/1.1 200 OK\r\nA: b\r\n", end=leave), "hung up"),
    ("http", answering(b"\x05\x00"), "no HTTP"),
    ("http", answering(b"HTTP/2 200\r\n\r\n"), "no HTTP"),
    ("http", answering(b"HTTP/1.1 OK\r\n\r\n"), "no HTTP"),
    ("http", answering(b"HTTP/1.1 2000 OK\r\n\r\n"), "no HTTP"),
    ("http", answering(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * MAX_HEAD_BYTES), "without end"),
    ("http", answering(b"HTTP/1.1 403 127.0.0.2 is forbidden\r\n\r\n"), r"to port 80 \(403\)"),
    ("http", answering(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2/\r\n\r\n"), r"\(302\)"),
    ("socks5", answering(end=leave), "hung up"),
    ("socks5", answering(GREETED, b"\x05\x00\x00\x03\xff", end=leave), "hung up"),
    ("socks5", answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "no SOCKS5"),
    ("socks5", answering(GREETED, b"HTTP"), "no SOCKS5"),
    ("socks5", answering(b"\x05\xff"), "credentials"),
    ("socks5", answering(b"\x05\x02"), "credentials"),
    ("socks5", answering(GREETED, b"\x05\x01\x00\x01"), "reply 1"),
    ("socks5", answering(GREETED, b"\x05\x02\x00\x01"), "reply 2"),
]


@pytest.mark.parametrize(("scheme", "handler", "told"), FAULTS, ids=range(len(FAULTS)))
async def test_fault_of_the_proxy_is_told_as_such(scheme: str, handler: Handler, told: str) -> None:
    Resolver(["127.0.0.2"])
    async with serving(handler) as server:
        with pytest.raises(NavigationError, match=rf"ERR_PROXY_CONNECTION_FAILED \(the proxy \(--proxy\) .*{told}"):
            raise (await failure_of(through(server, scheme), "named.example", 80)).error()


@pytest.mark.parametrize(("scheme", "handler", "told"), FAULTS, ids=range(len(FAULTS)))
async def test_fault_of_the_proxy_tells_no_address(scheme: str, handler: Handler, told: str) -> None:
    Resolver(["127.0.0.2"])
    async with serving(handler) as server:
        found = await failure_of(through(server, scheme), "named.example", 80)
    assert "127.0.0" not in found.text


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (3, FailureKind.unreachable),
        (4, FailureKind.unreachable),
        (5, FailureKind.connection_refused),
        (6, FailureKind.timed_out),
    ],
)
async def test_what_the_proxy_says_of_the_host_is_the_host_s(code: int, kind: FailureKind) -> None:
    async with serving(answering(GREETED, bytes([5, code, 0, 1]))) as server:
        assert (await failure_of(through(server, "socks5"), "127.0.0.2", 80)).kind is kind


@same_inputs
@given(
    st.sampled_from(["http", "socks5"]),
    st.sampled_from([b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\n", GREETED, GREETED + b"\x05\x00\x00"]),
    st.binary(max_size=30),
)
async def test_answers_of_every_kind_are_survived(scheme: str, start: bytes, rest: bytes) -> None:
    async with serving(answering(start + rest, end=leave)) as server:
        found = await connect(through(server, scheme), "127.0.0.2", 80)
        if isinstance(found, trio.SocketStream):
            await found.aclose()


async def test_proxy_that_is_not_there_is_told() -> None:
    policy = AddressPolicy.parse(["127.0.0.0/8"], proxy=Proxy.parse(f"http://127.0.0.1:{unused_port()}"))
    found = await failure_of(policy, "127.0.0.2", 80)
    assert (found.kind, found.text) == (FailureKind.proxy_failed, "the proxy (--proxy) refused the connection")


async def test_proxy_without_an_address_is_told() -> None:
    Resolver([])
    policy = AddressPolicy.parse(["127.0.0.0/8"], proxy=Proxy.parse("http://nobody.example:3128"))
    found = await failure_of(policy, "127.0.0.2", 80)
    assert (found.kind, "its name has no address" in found.text) == (FailureKind.proxy_failed, True)


async def drip(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nA: ")
    while True:
        await stream.send_all(b"b")
        await trio.sleep(1)


@pytest.mark.parametrize(("scheme", "handler"), [("http", stay), ("socks5", stay), ("http", drip)])
async def test_proxy_that_hangs_is_not_waited_for(
    scheme: str, handler: Handler, mock_clock: trio.testing.MockClock
) -> None:
    found: list[egress.Failure] = []

    async def ask(policy: AddressPolicy) -> None:
        found.append(await failure_of(policy, "127.0.0.2", 80))

    async with serving(handler) as server, trio.open_nursery() as nursery:
        nursery.start_soon(ask, through(server, scheme))
        while not server.hits:
            await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(egress.CONNECT_S)
    assert (found[0].kind, "(--proxy)" in str(found[0].error())) == (FailureKind.timed_out, True)


async def test_connection_by_a_proxy_is_closed_when_cancelled() -> None:
    closed = trio.Event()

    async def listen(stream: trio.SocketStream) -> None:
        await read_all(stream)
        closed.set()

    async with serving(listen) as server, open_tasks() as tasks:
        tasks.start_soon(connect, through(server, "http"), "127.0.0.2", 80)
        while not server.hits:
            await trio.testing.wait_all_tasks_blocked(0.01)
        tasks.cancel_scope.cancel()
    async with serving(listen) as server:
        with trio.move_on_after(0.05):
            await connect(through(server, "http"), "127.0.0.2", 80)
        with trio.fail_after(QUICK_S):
            await closed.wait()


# ---- Pages and fetches -----------------------------------------------------------------------------------------------


@both
async def test_fetch_goes_through_the_proxy(scheme: str, site: Site) -> None:
    async with proxied(scheme) as (small, policy):
        fetched = await fetch(policy, PageOptions(url=site.url("/ok")))
    assert (OK_TEXT in fetched.html, small.asked) == (True, [("127.0.0.1", site.port)])


async def test_fetch_tells_the_fault_of_the_proxy(site: Site) -> None:
    async with serving(answering(b"HTTP/1.1 403 No\r\n\r\n")) as server:
        with pytest.raises(NavigationError, match=r"ERR_PROXY_CONNECTION_FAILED .*\(--proxy\)"):
            await fetch(through(server, "http"), PageOptions(url=site.url("/ok")))


@both
async def test_page_goes_through_the_proxy(scheme: str, site: Site, browser_endpoint: str) -> None:
    async with proxied(scheme) as (small, policy), cdp.connect_browser(browser_endpoint, policy=policy) as browser:
        async with browser.open_page() as page:
            await page.navigate(site.url("/ok"))
            assert OK_TEXT in await page.html()
    assert set(small.asked) == {("127.0.0.1", site.port)}


async def test_page_tells_the_fault_of_the_proxy(site: Site, browser_endpoint: str) -> None:
    async with serving(answering(b"HTTP/1.1 403 No\r\n\r\n")) as server:
        async with cdp.connect_browser(browser_endpoint, policy=through(server, "http")) as browser:
            async with browser.open_page() as page:
                with pytest.raises(NavigationError, match=r"ERR_PROXY_CONNECTION_FAILED .*\(--proxy\)"):
                    await page.navigate(site.url("/ok"))


# ---- Proxies of Debian -----------------------------------------------------------------------------------------------


@contextmanager
def running(folder: Path, name: str, port: int) -> Iterator[None]:
    """One of Debian's proxies, with credentials where it takes some."""
    config = folder / "proxy.conf"
    texts = {
        "tinyproxy": f"Port {port}\nListen 127.0.0.1\nTimeout 60\nBasicAuth {USER} word\n",
        "squid": f"http_port 127.0.0.1:{port}\nhttp_access allow all\npid_filename none\ncache_log {folder}/log\n"
        "access_log none\ncache deny all\nshutdown_lifetime 0 seconds\n"
        f"visible_hostname proxy\nnetdb_filename none\ncoredump_dir {folder}\n",
        "danted": f"logoutput: {folder}/log\ninternal: 127.0.0.1 port = {port}\nexternal: 127.0.0.1\n"
        "clientmethod: none\nsocksmethod: none\n"
        "client pass { from: 0/0 to: 0/0 }\nsocks pass { from: 0/0 to: 0/0 }\n",
        "microsocks": "",
    }
    config.write_text(texts[name])
    folder.chmod(0o777)
    commands = {
        "tinyproxy": ["-d", "-c", str(config)],
        "squid": ["-N", "-f", str(config)],
        "danted": ["-f", str(config), "-p", str(folder / "pid")],
        "microsocks": ["-i", "127.0.0.1", "-p", str(port), "-u", USER, "-P", "word"],
    }
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen([path, *commands[name]], stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + QUICK_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "out").read_text()
                assert time.monotonic() < deadline, (folder / "out").read_text()
                time.sleep(0.05)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("tinyproxy", f"http://{USER}:word@127.0.0.1"),
        ("squid", "http://127.0.0.1"),
        ("danted", "socks5://127.0.0.1"),
        ("microsocks", f"socks5://{USER}:word@127.0.0.1"),
    ],
)
async def test_debian_s_proxies_do_what_they_are_asked(name: str, url: str, tmp_path: Path, site: Site) -> None:
    port = unused_port()
    with running(tmp_path, name, port):
        policy = AddressPolicy.parse(["127.0.0.0/8"], proxy=Proxy.parse(f"{url}:{port}"))
        fetched = await fetch(policy, PageOptions(url=site.url("/ok")))
        gone = await failure_of(policy, "127.0.0.1", unused_port())
        wrong = Proxy.parse(f"{url.replace(':word@', ':other@')}:{port}")
        untold = await connect(AddressPolicy.parse(["127.0.0.0/8"], proxy=wrong), "127.0.0.1", site.port)
    assert OK_TEXT in fetched.html
    if "@" in url:
        assert isinstance(untold, egress.Failure)
        assert "does not take the credentials" in untold.text
    else:
        assert isinstance(untold, trio.SocketStream)
        await untold.aclose()
    # HTTP has no word for which of the two it was.
    assert gone.kind is (FailureKind.proxy_failed if url.startswith("http") else FailureKind.connection_refused)
