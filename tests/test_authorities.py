"""Authorities of one's own (`--ca-file`): what they sign is trusted, by a browser and by a plain fetch, and no more."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trustme

import cdp
from cdp.authorities import Authorities
from cdp.errors import LaunchError, NavigationError
from cdp.fetch import fetch
from cdp.launcher import find_browser, launch
from cdp.options import PageOptions
from cleariflow import State, load_config, open_service
from tests.dns_server import ToThisMachine

from .conftest import LOOPBACK

QUICK_S = 20
HOST = "127.0.0.1"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\nConnection: close\r\n"
    b"Strict-Transport-Security: max-age=9999\r\n\r\nhere"
)
PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
# Alike in name, so that only a signature tells them apart.
OWN, FORGER = (trustme.CA(organization_name="Own", organization_unit_name="Own") for _ in range(2))
MIDDLE = OWN.create_child_ca()


@attrs.frozen
class Server:
    """A server's certificates, and what a client says that trusts an authority; None when it is content."""

    chain: Callable[[], tuple[trustme.Blob, list[trustme.Blob]]]
    """Makes the key, and the certificates that the server sends."""
    fault: str | None
    trusted: trustme.CA = OWN


def issued(
    authority: trustme.CA, host: str = HOST, **when: datetime.datetime
) -> Callable[[], tuple[trustme.Blob, list[trustme.Blob]]]:
    def make() -> tuple[trustme.Blob, list[trustme.Blob]]:
        leaf = authority.issue_cert(host, **when)
        return leaf.private_key_pem, leaf.cert_chain_pems

    return make


def forged() -> tuple[trustme.Blob, list[trustme.Blob]]:
    """Not signed by the authority whose certificate it shows."""
    leaf = FORGER.issue_cert(HOST)
    return leaf.private_key_pem, [leaf.cert_chain_pems[0], OWN.cert_pem]


SERVERS = {
    "own": Server(issued(OWN), None),
    "below-own": Server(issued(MIDDLE), None),
    "below-one-that-another-signed": Server(issued(MIDDLE), None, trusted=MIDDLE),
    "other": Server(issued(trustme.CA()), "net::ERR_CERT_AUTHORITY_INVALID"),
    "other-host": Server(issued(OWN, "other.example"), "net::ERR_CERT_COMMON_NAME_INVALID"),
    "other-address": Server(issued(OWN, "127.0.0.2"), "net::ERR_CERT_COMMON_NAME_INVALID"),
    "expired": Server(
        issued(OWN, not_before=PAST, not_after=PAST + datetime.timedelta(9)), "net::ERR_CERT_DATE_INVALID"
    ),
    "forged": Server(forged, "net::ERR_CERT_AUTHORITY_INVALID"),
}


@asynccontextmanager
async def served(server: Server, tmp_path: Path, reused: list[bool] | None = None) -> AsyncIterator[str]:
    """The URL of a document that is always to be had by https; tells which connections went on with a session."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    key, certificates = server.chain()
    file = tmp_path / "server.pem"
    file.write_bytes(b"".join(blob.bytes() for blob in (key, *certificates)))
    context.load_cert_chain(file)

    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                asked = await stream.receive_some()
                if reused is not None and asked.startswith(b"GET / "):
                    reused.append(stream.session_reused)
                await stream.send_all(ANSWER)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_ssl_over_tcp_listeners(0, context, host=HOST, https_compatible=True)
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield f"https://{HOST}:{listener.transport_listener.socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()


def authorities(tmp_path: Path, *pems: trustme.Blob) -> Authorities:
    file = tmp_path / "authorities.pem"
    file.write_bytes(b"# ours: \xc3\xa9\n" + b"".join(pem.bytes() for pem in pems))
    return Authorities.read(file)


async def with_browser(url: str, trusted: Authorities) -> str:
    policy = cdp.AddressPolicy.parse([LOOPBACK])
    async with cdp.open_browser(policy=policy, authorities=trusted) as browser, browser.open_page() as page:
        await page.navigate(url)
        return await page.html()


async def with_fetch(url: str, trusted: Authorities) -> str:
    policy = cdp.AddressPolicy.parse([LOOPBACK])
    return (await fetch(policy, PageOptions(url=url), authorities=trusted)).html


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("get", [with_browser, with_fetch], ids=["browser", "fetch"])
async def test_authority_is_trusted_with_what_it_signed(
    tmp_path: Path, name: str, get: Callable[[str, Authorities], object]
) -> None:
    server = SERVERS[name]
    # Several in one file, one of them twice.
    trusted = authorities(tmp_path, trustme.CA().cert_pem, server.trusted.cert_pem, server.trusted.cert_pem)
    said = None
    with trio.fail_after(QUICK_S):
        async with served(server, tmp_path) as url:
            try:
                assert "here" in await get(url, trusted)
            except NavigationError as error:
                said = error.net_error
    assert said == server.fault


@pytest.mark.parametrize("folder", [".pki/nssdb", ".local/share/pki/nssdb"])
async def test_browser_trusts_no_authority_of_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    # Before Chromium 146 the first place is the only one.
    database = tmp_path / folder
    database.mkdir(parents=True)
    await authorities(tmp_path, OWN.cert_pem).install(database)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    policy = cdp.AddressPolicy.parse([LOOPBACK])
    async with served(SERVERS["own"], tmp_path) as url, cdp.open_browser(policy=policy) as browser:
        async with browser.open_page() as page:
            with pytest.raises(NavigationError, match="ERR_CERT_AUTHORITY_INVALID"):
                await page.navigate(url)


async def test_service_trusts_the_authorities_of_its_ca_file(tmp_path: Path) -> None:
    authorities(tmp_path, OWN.cert_pem)
    settings = {"data_dir": str(tmp_path / "data"), "allow_network": [LOOPBACK]}
    config = load_config(settings | {"ca_file": str(tmp_path / "authorities.pem")}, {})
    async with served(SERVERS["own"], tmp_path) as url, open_service(config) as service:
        jobs = [await service.submit("scrape", {"url": url, "render": render}) for render in (True, False)]
        for job in jobs:
            await service.wait(job)
        assert [job.state for job in jobs] == [State.DONE] * 2


# What a browser keeps of TLS


async def test_page_keeps_to_https_only_where_it_was_told_itself(tmp_path: Path) -> None:
    # An address or localhost cannot ask for that.
    trio.socket.set_custom_hostname_resolver(ToThisMachine())
    policy = cdp.AddressPolicy.parse([LOOPBACK])
    trusted = authorities(tmp_path, OWN.cert_pem)
    async with served(Server(issued(OWN, "kept.example"), None), tmp_path) as url:
        url = url.replace(HOST, "kept.example")
        async with cdp.open_browser(policy=policy, authorities=trusted) as browser:
            async with browser.open_page() as page:
                await page.navigate(url)
                await page.navigate(url.replace("https:", "http:"))
                assert (await page.info()).url == url
                async with browser.open_page() as other:
                    with pytest.raises(NavigationError, match="ERR_EMPTY_RESPONSE"):
                        await other.navigate(url.replace("https:", "http:"))


async def test_page_goes_on_with_no_session_of_another(tmp_path: Path) -> None:
    policy = cdp.AddressPolicy.parse([LOOPBACK])
    reused: list[bool] = []
    async with served(SERVERS["own"], tmp_path, reused) as url:
        trusted = authorities(tmp_path, OWN.cert_pem)
        async with cdp.open_browser(policy=policy, authorities=trusted) as browser:
            async with browser.open_page() as page, browser.open_page() as other:
                await page.navigate(url)
                await page.navigate(url)
                await other.navigate(url)
            async with browser.open_page() as later:
                await later.navigate(url)
    assert reused == [False, True, False, False]


# Files

GARBAGE = b"-----BEGIN CERTIFICATE-----\nMIIB\xc3\xa9\n-----END CERTIFICATE-----\n"
LEAF = OWN.issue_cert(HOST)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no certificate"),
        (b"\x30\x82\x01\x00", "holds no certificate"),
        (OWN.cert_pem.bytes() + LEAF.private_key_pem.bytes(), "holds a private key"),
        (OWN.cert_pem.bytes() + GARBAGE, "certificate 2 cannot be read"),
        (LEAF.cert_chain_pems[0].bytes(), "certificate 1 is not an authority's"),
    ],
    ids=["absent", "empty", "binary", "private-key", "garbage", "server"],
)
def test_read_names_the_fault_of_a_file(tmp_path: Path, content: bytes | None, fault: str) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=fault):
        Authorities.read(file)


def test_read_names_the_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="apt install libnss3-tools"):
        authorities(tmp_path, OWN.cert_pem)


def test_read_gives_each_certificate_once(tmp_path: Path) -> None:
    assert len(authorities(tmp_path, OWN.cert_pem, FORGER.cert_pem, OWN.cert_pem).certificates) == 2


async def test_launch_names_the_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable, trusted = find_browser(), authorities(tmp_path, OWN.cert_pem)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LaunchError, match="apt install libnss3-tools"):
        async with launch(executable, authorities=trusted, profile_root=tmp_path):
            pass


async def test_launch_tells_what_certutil_says(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="certutil"):
        async with launch(find_browser(), authorities=Authorities((b"garbage",)), profile_root=tmp_path):
            pass
