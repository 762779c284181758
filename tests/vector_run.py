"""One run of all vectors (tests/vectors.py) against the real service with a real Chromium; the report goes to stdout.

    python -m tests.vector_run --checks off --allow --full

In a network namespace of its own (tests/namespace.py), where every address of the world leads here and every packet
is counted. Where this user may make none, on addresses of 127.0.0.0/8: 127.0.0.2 stands for the internet and is
allowed, the others for what is not; names are answered inside the process, and only the servers count.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import hashlib
import itertools
import json
import os
import socket
import ssl
import string
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import attrs
import httpx
import psutil
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

import cleariflow
from cdp.launcher import SWITCHES
from cdp.tasks import open_tasks
from tests import dns_server, namespace
from tests.dns_server import Name, Zone, name
from tests.site import Answer, Exchange, Handler, Site
from tests.vectors import (
    MARKUP,
    NEVER,
    NOT_EVERYWHERE,
    RAW,
    REQUESTS,
    SCRIPTS,
    UNREACHABLE,
    Filler,
    Ports,
    Target,
    own_ports_page,
)

# Leads to a public address once: for one vector.
REBINDING = "rebind.test"
DNS_HOST = "127.0.0.53"
API_PORT = 8000
WORKERS = 4
READY_S = 30
RUN_S = 900
# Longest wait for what a page has sent where it may; how long a page that may not goes on.
ARRIVAL_S = 20.0
STRAGGLE_S = 0.3

# Chromium 156, services/network/public/cpp/features.cc. A second switch of the same name takes the place of the first.
CHECKS = (
    "LocalNetworkAccessChecks",
    "LocalNetworkAccessChecksWebRTC",
    "LocalNetworkAccessChecksWebSockets",
    "LocalNetworkAccessChecksWebTransport",
    "LocalNetworkAccessForFencedFrameNavigations",
    "LocalNetworkAccessForNavigations",
    "LocalNetworkAccessForSubframeNavigations",
    "LocalNetworkAccessForWorkers",
)
_FEATURES = next(switch for switch in SWITCHES if switch.startswith("--disable-features="))
WITHOUT_CHECKS = (f"{_FEATURES},{','.join(CHECKS)}", "--disable-web-security", "--allow-running-insecure-content")

# ---- The two worlds --------------------------------------------------------------------------------------------------


@attrs.frozen
class World:
    """Where a run takes place."""

    site: str
    """Host of the attacking pages."""
    listen: tuple[str, ...]
    """Addresses of the servers."""
    public: tuple[str, ...]
    """Those of them that pages may reach."""
    ports: Ports
    names: dict[str, Name]
    targets: tuple[Target, ...]
    short: int
    """So many of them are in the short run: a name for most, a literal, one for rebinding, others for what is cheap."""
    open_to: tuple[str, ...]
    """`--allow-network` in a closed run."""
    forbidden: tuple[str, ...]
    """`--allow-network` that opens all targets."""


PUBLIC_V4, PUBLIC_V6 = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


def namespace_world() -> World:
    ports = Ports(8080, 443, 8444, {vector: 8101 + at for at, vector in enumerate(RAW)})
    literals = {
        "ten": "10.1.2.3",
        "metadata": "169.254.169.254",
        "loopback": "127.0.0.1",
        "metadata-v6": "[fd00:ec2::254]",
        "172": "172.16.5.4",
        "192": "192.168.7.8",
        "carrier": "100.64.9.9",
        "link-local": "169.254.7.7",
        "any": "0.0.0.0",
        "loopback-other": "127.9.9.9",
        "loopback-v6": "[::1]",
        "any-v6": "[::]",
        "unique-local": "[fd12:3456::9]",
        "link-local-v6": "[fe80::9]",
        "mapped": "[::ffff:10.1.2.3]",
        "compatible": "[::10.1.2.3]",
        "nat64": "[64:ff9b::a01:203]",
        "6to4": "[2002:a01:203::1]",
        "teredo": "[2001:0:a01:203::1]",
        "hexadecimal": "0x0a010203",
        "octal": "012.1.2.3",
        "decimal": "2851995906",
        "two-parts": "10.66051",
        "own": namespace.OWN_V4,
        "own-v6": f"[{namespace.OWN_V6}]",
        "full-width": "１０.1.2.3",
        "localhost": "localhost",
        "below-localhost": "a.localhost",
        "localhost-dot": "localhost.",
    }
    names = {
        "public.test": name(PUBLIC_V4, PUBLIC_V6),
        # Public once, then private.
        REBINDING: Name([[PUBLIC_V4], *[["10.1.2.3"]] * 99]),
        # By turns.
        "flip.test": Name([[PUBLIC_V4], ["10.1.2.3"]]),
        "flip-v6.test": Name(v6=[[PUBLIC_V6], ["fd12:3456::9"]]),
        "both.test": name(PUBLIC_V4, "10.1.2.3"),
        "both-turned.test": name("169.254.169.254", PUBLIC_V4),
        "families.test": name(PUBLIC_V4, "fd00:ec2::254"),
        "alias.test": Name(cname="alias-2.test"),
        "alias-2.test": Name(cname="inner.test"),
        "inner.test": name("10.1.2.3"),
        "metadata.test": name("169.254.169.254"),
        "unique-local.test": name("fd12:3456::9"),
        "metadata-v6.test": name("fd00:ec2::254"),
        "link-local-v6.test": name("fe80::9"),
        "mapped.test": name("::ffff:10.1.2.3"),
        "nat64.test": name("64:ff9b::a01:203"),
        "6to4.test": name("2002:a01:203::1"),
        "loopback.test": name("127.0.0.1"),
        "loopback-v6.test": name("::1"),
        "any.test": name("0.0.0.0"),
        "own.test": name(namespace.OWN_V4),
    }
    named = [host for host in names if host not in ("public.test", "alias-2.test")]
    targets = [Target(key, host) for key, host in literals.items()] + [Target(host, host) for host in named]
    short = ("alias.test", "ten", REBINDING, "flip.test", "metadata", "loopback")
    targets.sort(key=lambda target: short.index(target.key) if target.key in short else len(short))
    v4 = (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "127.0.0.0/8",
        "0.0.0.0/8",
    )
    v6 = ("fc00::/7", "fe80::/10", "::/96", "64:ff9b::/96", "2002::/16", "2001::/32")
    return World(
        site="public.test",
        listen=("0.0.0.0", "::"),
        public=(PUBLIC_V4, PUBLIC_V6),
        ports=ports,
        names=names,
        targets=tuple(targets),
        short=len(short),
        open_to=(),
        forbidden=(*v4, *v6, namespace.OWN_V4, namespace.OWN_V6),
    )


def loopback_world() -> World:
    """Ports that are free on all its addresses."""
    public, private, metadata, other = (f"127.0.0.{n}" for n in range(2, 6))
    addresses = (public, private, metadata, other)
    web, tls, chain, *raw = _free_ports(addresses, 3 + len(RAW))
    names = {
        "public.test": name(public),
        REBINDING: Name([[public], *[[private]] * 99]),
        "flip.test": Name([[public], [private]]),
        "both.test": name(public, private),
        "alias.test": Name(cname="inner.test"),
        "inner.test": name(private),
        "mapped.test": name(f"::ffff:{metadata}"),
        "metadata.test": name(metadata),
        "loopback.test": name("127.0.0.1"),
    }
    # They stand for what has these keys in the other world.
    targets = [Target("alias.test", "alias.test"), Target("ten", private), Target(REBINDING, REBINDING)]
    targets += [Target("flip.test", "flip.test"), Target("metadata", metadata), Target("loopback", other)]
    targets += [Target(host, host) for host in ("both.test", "mapped.test", "metadata.test")]
    targets += [
        Target("hexadecimal", "0x7f000003"),
        Target("mapped", f"[::ffff:{private}]"),
    ]
    return World(
        site="public.test",
        listen=addresses,
        public=(public,),
        ports=Ports(web, tls, chain, dict(zip(RAW, raw, strict=True))),
        names=names,
        targets=tuple(targets),
        short=6,
        open_to=(public,),
        forbidden=(private, metadata, other),
    )


def _free_ports(addresses: tuple[str, ...], count: int) -> Iterator[int]:
    """Ports that nobody listens at on any of the addresses."""
    found = 0
    while found < count:
        with socket.socket() as probe:
            probe.bind((addresses[0], 0))
            port = int(probe.getsockname()[1])
            try:
                for address in addresses[1:]:
                    with socket.socket() as other:
                        other.bind((address, port))
            except OSError:
                continue
        found += 1
        yield port


# ---- The servers -----------------------------------------------------------------------------------------------------


class Servers(Site):
    """The attacking site and all its targets: one set of pages at every address."""

    def __init__(self, world: World, expects: bool) -> None:
        super().__init__(world.ports.web, None)
        self.accepted: Counter[tuple[str, int]] = Counter()
        """Connections by the address and port that they came to."""
        self.datagrams: Counter[tuple[str, int]] = Counter()
        self.reached: defaultdict[str, set[str]] = defaultdict(set)
        """Keys of targets by vector."""
        self._certificate = trustme.CA().issue_cert(world.site, *world.public)
        self._world = world
        self._expects = expects
        self.own_ports: list[int] = []
        self.missing: list[str] = []
        """What a page waited for in vain."""
        self._arrived = trio.Event()
        """Set when a vector reaches a target; replaced by who waits."""
        self._vectors = {port: vector for vector, port in world.ports.raw.items()}

    @property
    def key_hash(self) -> str:
        """By which Chromium takes the certificate for a good one, whatever names it has."""
        leaf = x509.load_pem_x509_certificate(self._certificate.cert_chain_pems[0].bytes())
        key = leaf.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return base64.b64encode(hashlib.sha256(key).digest()).decode()

    async def handle(self, exchange: Exchange) -> Answer | None:
        request = exchange.request
        if request.path.startswith("/v/"):
            _, _, target, vector, *_ = request.path.split("/")
            self._arrive(vector, target)
            return Answer(b"<p>reached</p>", headers=(("Access-Control-Allow-Origin", "*"),))
        if request.path == "/.well-known/webauthn":
            self._arrive("passkey", "its name")
        return await super().handle(exchange)

    def _find(self, path: str) -> Handler:
        if path.startswith("/attack"):
            return self._attack
        if path.startswith("/settled"):
            return self._settled
        if path == "/own":
            return self._own
        if path.startswith("/redirect/"):
            return _redirect
        return super()._find(path)

    def _subject(self, exchange: Exchange) -> tuple[Filler, Target]:
        """What a path such as `/attack-secure/KEY` is about."""
        action, key = unquote(exchange.request.path)[1:].split("/", 1)
        filler = Filler(self._world.site, self._world.ports, secure=action.endswith("-secure"))
        return filler, next(target for target in self._world.targets if target.key == key)

    async def _attack(self, exchange: Exchange) -> Answer:
        filler, target = self._subject(exchange)
        return Answer(filler.attack(target))

    async def _settled(self, exchange: Exchange) -> Answer:
        """Answer when the page has done what it could."""
        filler, target = self._subject(exchange)
        if self._expects and target.key not in UNREACHABLE:
            with trio.move_on_after(ARRIVAL_S):
                while self._missing(filler, target):
                    self._arrived = trio.Event()
                    await self._arrived.wait()
            self.missing += [f"{vector} {target.key}" for vector in self._missing(filler, target)]
        else:
            await trio.sleep(STRAGGLE_S)
        return Answer(b"")

    async def _own(self, exchange: Exchange) -> Answer:
        """The page that looks for our API, the debugging port and the relays, and for one port that is none of them."""
        machine, ports = psutil.Process(), set[int]()
        for process in (machine, *machine.children(recursive=True)):
            with suppress(psutil.Error):  # it has ended
                ports |= {
                    connection.laddr.port
                    for connection in process.net_connections("tcp4")
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.ip == "127.0.0.1"
                }
        self.own_ports = sorted(ports)
        return Answer(own_ports_page([*self.own_ports, self._world.ports.web]))

    def _missing(self, filler: Filler, target: Target) -> list[str]:
        """Vectors that the page has tried and nobody has seen."""
        tried = [vector for vector in filler.tried() if vector not in NEVER]
        raw = [vector for vector in tried if vector in RAW and vector not in self.reached]
        return raw + [
            vector
            for vector in tried
            if vector not in NOT_EVERYWHERE and target.key not in self.reached.get(vector, ())
        ]

    def _arrive(self, vector: str, key: str) -> None:
        self.reached[vector].add(key)
        self._arrived.set()

    def open(self, tasks: trio.Nursery, outside: namespace.Outside | None) -> None:
        """Listen at every address and port, on this machine and outside."""
        self.add_route("/answer", _answer)
        ports = self._world.ports
        tls, chain = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), _tls_without_issuer(self._world)
        self._certificate.configure_cert(tls)

        async def serve_tls(stream: trio.SocketStream) -> None:
            await self._count(stream, tls)

        async def serve_chain(stream: trio.SocketStream) -> None:
            await self._count(stream, chain)

        handlers = {ports.web: self._serve_plain, ports.tls: serve_tls, ports.chain: serve_chain}
        handlers |= dict.fromkeys(ports.raw.values(), self._serve_raw)

        def bind() -> tuple[list[socket.socket], list[socket.socket]]:
            hosts = self._world.listen
            streams = [_bound(host, port, socket.SOCK_STREAM) for host in hosts for port in handlers]
            return streams, [_bound(host, port, socket.SOCK_DGRAM) for host in hosts for port in ports.raw.values()]

        for streams, datagrams in (bind(), *([outside.run(bind)] if outside is not None else ())):
            for sock in streams:
                sock.listen(512)
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
                tasks.start_soon(trio.serve_listeners, handlers[sock.getsockname()[1]], [listener])
            for sock in datagrams:
                tasks.start_soon(self._serve_datagrams, trio.socket.from_stdlib_socket(sock))

    def report(self) -> dict[str, Any]:
        """What arrived, as JSON."""
        here = [(address, port, count) for (address, port), count in self.accepted.items()]
        return {
            "accepted": sorted(one for one in here if one[0] not in self._world.public),
            "public_connections": sum(count for address, _, count in here if address in self._world.public),
            "datagrams": sorted((address, port, count) for (address, port), count in self.datagrams.items()),
            "reached": {vector: sorted(keys) for vector, keys in sorted(self.reached.items())},
            "missing": self.missing,
            "own_ports": self.own_ports,
            "faults": [repr(fault) for fault in self.faults],
        }

    async def _count(self, stream: trio.SocketStream, tls: ssl.SSLContext | None) -> None:
        address, port = stream.socket.getsockname()[:2]
        self.accepted[address.removeprefix("::ffff:"), port] += 1
        await self._serve(stream, tls)

    async def _serve_plain(self, stream: trio.SocketStream) -> None:
        await self._count(stream, None)

    async def _serve_raw(self, stream: trio.SocketStream) -> None:
        address, port = stream.socket.getsockname()[:2]
        self.accepted[address, port] += 1
        self._arrive(self._vectors[port], address)
        stream.socket.close()

    async def _serve_datagrams(self, sock: trio.socket.SocketType) -> None:
        host, port = sock.getsockname()[:2]
        with sock:
            while True:
                await sock.recv(64)
                self.datagrams[host, port] += 1
                self._arrive(self._vectors[port], "by UDP")


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((host, port))
    return sock


def _ascii(value: str) -> str:
    """As a header may have it: what else there is in a URL is escaped."""
    return quote(value, safe=string.printable)


async def _redirect(exchange: Exchange) -> Answer:
    """`/redirect/STATUS?to=URL`."""
    status = int(exchange.request.path.rpartition("/")[2])
    to = _ascii(exchange.request.argument("to", "/"))
    return Answer(b"", status=status, headers=(("Location", to), ("Access-Control-Allow-Origin", "*")))


async def _answer(exchange: Exchange) -> Answer:
    """`/answer?body=...&type=...&headers=[...]`."""
    request = exchange.request
    lines = [line.partition(": ") for line in json.loads(request.argument("headers", "[]"))]
    headers = (("Access-Control-Allow-Origin", "*"), *((name, _ascii(value)) for name, _, value in lines))
    kind = request.argument("type", "text/html")
    return Answer(request.argument("body", "").encode(), f"{kind}; charset=utf-8", headers=headers)


def _tls_without_issuer(world: World) -> ssl.SSLContext:
    """A certificate of an authority that nobody has, to be fetched from the first target (RFC 5280, 4.2.2.1)."""
    url = Filler(world.site, world.ports).fill("$url", "certificate-issuer", world.targets[0])
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, world.site)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(world.site)]), critical=False)
        .add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


# ---- The run ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Plan:
    """Which run."""

    checks: bool
    """Chromium's own local-network checks are on."""
    allow: bool
    """The targets are allowed."""
    full: bool
    """All targets."""
    browser: str | None = None
    switches: tuple[str, ...] = ()
    """More for the browser."""


async def _ready(client: httpx.AsyncClient) -> None:
    with trio.fail_after(READY_S):
        while True:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.ConnectError:
                pass
            await trio.sleep(0.02)


def requests(plan: Plan, world: World) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every job of a run: vector (or what the page is called), key of the target, and parameters."""
    script = {"type": "evaluate", "script": "attack()"}
    # Pages are what takes time. Some vectors take only literals, others only names.
    short_pages = ("loopback", "ten") if plan.checks else ("ten", "alias.test")
    for target, secure in itertools.product(world.targets, (False, True)):
        if target.key == short_pages[secure] or (plan.full and target.key != REBINDING):
            page = f"{Filler(world.site, world.ports, secure).origin}/attack{'-secure' if secure else ''}/"
            request = {"url": page + quote(target.key), "wait_until": "load", "actions": [script], "timeout_ms": 60_000}
            yield "secure page" if secure else "page", target.key, request
    filler = Filler(world.site, world.ports)
    yield "own ports", "all", {"url": f"{filler.origin}/own", "actions": [script]}
    for vector, target in itertools.product(REQUESTS, world.targets):
        wanted = target.key in ("alias.test", REBINDING) or vector.startswith(("first-url", "plain"))
        short = target in world.targets[: world.short] and wanted
        if (plan.full or short) and (target.key == REBINDING) == (vector == "rebinding"):
            yield vector, target.key, filler.request(vector, target)


async def run(plan: Plan, world: World, folder: Path, outside: namespace.Outside | None) -> dict[str, Any]:
    """The report of one run; JSON as it is."""
    zone, servers, sniffer = Zone(world.names), Servers(world, plan.allow), namespace.Sniffer()
    switches = (
        f"--ignore-certificate-errors-spki-list={servers.key_hash}",
        "--short-reporting-delay",
        *(() if plan.checks else WITHOUT_CHECKS),
        *plan.switches,
    )
    config = cleariflow.Config(
        port=API_PORT if outside is not None else next(_free_ports(("127.0.0.1",), 1)),
        data_dir=str(folder / "data"),
        workers=WORKERS,
        browser=plan.browser,
        browser_arg=switches,
        allow_network=world.open_to + (world.forbidden if plan.allow else ()),
    )
    jobs: dict[str, Any] = {}
    started = trio.current_time()
    async with open_tasks() as tasks:
        if outside is None:
            trio.socket.set_custom_hostname_resolver(dns_server.Resolver(zone))
        else:
            await tasks.start(sniffer.run)
            await tasks.start(dns_server.serve, zone, DNS_HOST)
        servers.open(tasks, outside)
        tasks.start_soon(cleariflow.serve, config)
        url = f"http://127.0.0.1:{config.port}"
        async with httpx.AsyncClient(base_url=url, timeout=90, trust_env=False) as client:
            await _ready(client)
            limit = trio.Semaphore(WORKERS)

            async def ask(vector: str, key: str, request: dict[str, Any]) -> None:
                async with limit:
                    answer = await client.post("/v1/scrape", json=request)
                    jobs[f"{vector} {key}"] = [answer.status_code, answer.json()]

            async with trio.open_nursery() as nursery:
                for job in requests(plan, world):
                    nursery.start_soon(ask, *job)
        if outside is not None:
            await sniffer.caught_up()
        tasks.cancel_scope.cancel()
    return {
        "namespace": outside is not None,
        "api_port": config.port,
        "asked": sorted({f"{name} {kind}" for name, kind in zone.asked}),
        "jobs": jobs,
        "seconds": round(trio.current_time() - started, 2),
        **servers.report(),
        **_known(world),
        "packets": sorted(
            [protocol, address, port, count]
            for (protocol, address, port), count in sniffer.seen.items()
            if not _is_expected(protocol, address, port, world)
        ),
    }


def _known(world: World) -> dict[str, Any]:
    """What a report is compared with."""
    addresses = {address for one in world.names.values() for turn in (*one.v4, *one.v6) for address in turn}
    return {
        "vectors": [*MARKUP, *SCRIPTS, *REQUESTS],
        "targets": [target.key for target in world.targets],
        "names": sorted({*world.names, *(target.host for target in world.targets)}),
        "hidden": sorted(addresses - {*world.public}),
        "web_port": world.ports.web,
    }


def _is_expected(protocol: str, address: str, port: int, world: World) -> bool:
    """Whether a packet is the internet's, the name server's, or of the service's own machinery on loopback."""
    if protocol == "udp":
        return (address, port) == (DNS_HOST, 53)
    return address in world.public or (address == "127.0.0.1" and port not in world.ports.all)


def report_of(plan: Plan, folder: Path, *, isolated: bool = True) -> dict[str, Any]:
    """Run in a process of its own, in a namespace where there may be one and it is wanted."""
    way = namespace.command() if isolated else None
    command = [*(way or ()), sys.executable, "-m", "tests.vector_run", f"--folder={folder}"]
    command += [f"--checks={'on' if plan.checks else 'off'}", *(f"--switch={switch}" for switch in plan.switches)]
    wanted = {"--allow": plan.allow, "--full": plan.full, "--isolated": way is not None}
    command += [flag for flag, is_wanted in wanted.items() if is_wanted]
    command += [f"--browser={plan.browser}"] if plan.browser else []
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CLEARIFLOW_")}
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=RUN_S, env=environment)
    if done.returncode:
        raise AssertionError(f"the run of the vectors broke:\n{done.stderr[-4000:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checks", choices=("on", "off"), default="on")
    parser.add_argument("--allow", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--isolated", action="store_true", help="this process has a network namespace of its own")
    parser.add_argument("--browser")
    parser.add_argument("--switch", action="append", default=[])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    plan = Plan(given.checks == "on", given.allow, given.full, given.browser, tuple(given.switch))
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        outside = namespace.Outside(DNS_HOST, folder) if given.isolated else None
        world = namespace_world() if given.isolated else loopback_world()
        report = trio.run(run, plan, world, folder, outside)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
