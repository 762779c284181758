"""The egress door: a SOCKS5 relay for every browser context, and the policy of what it may reach.

A connection goes these steps: read the host, refuse it by name, resolve it once, judge every address, connect to one
that was judged (no second lookup, so no DNS rebinding), copy bytes. Chromium reports every failure before the copying
as `ERR_SOCKS_CONNECTION_FAILED`; what really happened is in the door's `Ledger`.

What no such check can see: addresses that lead back inside by somebody else's translation (a router that forwards its
public address inwards, a NAT64 prefix of the operator's own), and what an allowed host name resolves to.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import ipaddress
import itertools
import math
import re
import socket
import struct
import termios
import unicodedata
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from urllib.parse import unquote

import attrs
import trio

from .tasks import open_tasks

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HANDSHAKE_S = 10.0
"""For a client's greeting and request; Chromium sends both at once."""
RESOLVE_S = 20.0
"""For one lookup, the wait for a slot included; glibc gives up a name server after 10 s (resolv.conf(5))."""
CONNECT_S = 30.0
"""From the request to a connection, the lookup included."""
STAGGER_S = 0.25
"""Before the next address is tried beside a silent one (RFC 8305 section 8)."""
HALF_CLOSED_S = 30.0
"""Longest silence once one side has ended: Chromium's close looks like a half-close, and a server may not answer it."""
DRAIN_S = 5.0
"""For the browser to take what came before a reset; what is still queued then is lost."""
ACCEPT_RETRY_S = 0.1
"""Pause when descriptors or memory ran out, as in `trio.serve_listeners`."""
MAX_CONNECTIONS = 128
"""Per door: twice the 32 sockets and 32 websockets of Chromium through one proxy, as those it gave up still dial."""
MAX_LOOKUPS = 8
"""Per door."""
LOOKUP_THREADS = 64
"""Of all doors: each look-up holds one for as long as its name server is silent, also when nobody waits any more."""
MAX_ADDRESSES = 16
"""Tried per connection: a hostile name can have hundreds."""
MAX_FAILURES = 256
"""Kept per ledger, the newest: a page can invent hosts without end."""
CHUNK_BYTES = 2**17

# ---- Addresses -------------------------------------------------------------------------------------------------------

# A table of our own, as `ipaddress.is_global` differs between patch releases and lets multicast through. Whole blocks,
# without the anycast exceptions inside 192.0.0.0/24 and 2001::/23: no web page lives there.
_NOT_GLOBAL_V4 = [
    IPv4Network(text)
    for text in (
        # IANA IPv4 Special-Purpose Address Registry
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
        "224.0.0.0/4",  # multicast (RFC 5771)
        "192.88.99.0/24",  # 6to4 relays, deprecated (RFC 7526)
        "168.63.129.16/32",  # Azure's platform services: public in form, answers inside the virtual machine's host
    )
]
# Global unicast is 2000::/3 and nothing else (IANA IPv6 Address Space): loopback, fc00::/7, link-local, site-local,
# multicast, 100::/64 and 5f00::/16 lie outside it. NAT64's known prefix is as global as what it carries (RFC 6052).
_GLOBAL_V6 = [IPv6Network("2000::/3"), IPv6Network("64:ff9b::/96")]
_NOT_GLOBAL_V6 = [
    IPv6Network("2001::/23"),  # IETF protocol assignments: Teredo, benchmarking, ORCHID and others
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4, deprecated (RFC 7526)
    IPv6Network("3ffe::/16"),  # 6bone, returned (RFC 3701)
    IPv6Network("3fff::/20"),  # documentation (RFC 9637)
]
# IPv4-mapped, IPv4-translated (RFC 2765), IPv4-compatible, NAT64 (RFC 6052)
_IPV4_IN_LOW_BITS = [IPv6Network(text) for text in ("::ffff:0:0/96", "::ffff:0:0:0/96", "::/96", "64:ff9b::/96")]
_NAT64_LOCAL, _TEREDO, _6TO4 = IPv6Network("64:ff9b:1::/48"), IPv6Network("2001::/32"), IPv6Network("2002::/16")


def embedded_addresses(address: Address) -> list[IPv4Address]:
    """Every IPv4 address that an IPv6 address may carry in one of the standard forms."""
    if isinstance(address, IPv4Address):
        return []
    bits, found = int(address), list[int]()
    if any(address in network for network in _IPV4_IN_LOW_BITS):
        found.append(bits)
    if (
        address in _NAT64_LOCAL
    ):  # prefixes of 96, 64, 56 and 48 bits (RFC 8215), without the octet that RFC 6052 leaves out
        packed = bits >> 64 << 56 | bits & (1 << 56) - 1
        found += [packed >> shift for shift in (0, 24, 32, 40)]
    if address in _6TO4:
        found.append(bits >> 80)
    if address in _TEREDO:  # server, and the client inverted (RFC 4380)
        found += [bits >> 64, ~bits]
    if bits >> 32 & 0xFCFFFFFF == 0x5EFE:  # ISATAP in any prefix, whatever the universal and group bits say (RFC 5214)
        found.append(bits)
    return [IPv4Address(number & 0xFFFFFFFF) for number in found]


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _is_global(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not _within(address, _NOT_GLOBAL_V4)
    return _within(address, _GLOBAL_V6) and not _within(address, _NOT_GLOBAL_V6)


def _without_mapping(address: Address) -> Address:
    """The IPv4 address for its IPv4-mapped form: on the wire they are one."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6


def _is_of_this_host(address: Address) -> bool:
    """Whether a socket can be bound to the address; doubt counts as yes."""
    try:
        with socket.socket(_family(address), socket.SOCK_STREAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


# ---- Host names ------------------------------------------------------------------------------------------------------

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_SPEC_NAME = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)*(?!\d+\Z|0x[0-9a-f]*\Z){_LABEL}")
_LOOKUP_NAME = re.compile(r"(?:[!-\-/-~]{1,63}\.)*[!-\-/-~]{1,63}")
_NAME_CHARS_MAX = 253


def _ascii_name(text: str) -> str:
    """The name as the DNS has it: UTS 46 (non-transitional) as far as the standard library goes."""
    text = "".join(c.lower() for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    text = re.sub("[\ufe00-\ufe0f\u034f]", "", unicodedata.normalize("NFKC", text)).replace("\u3002", ".")
    labels = text.rstrip(".").split(".")
    for index, label in enumerate(labels):
        if not label.isascii() and len(label) <= 63:  # a longer one is no label, and punycode takes quadratic time
            labels[index] = "xn--" + label.encode("punycode").decode()
    return ".".join(labels)


def canonical_host(host: str) -> str:
    """The host in lower-case ASCII without brackets, escapes and trailing dot; an IP literal in its usual spelling."""
    literal = host_literal(host)
    return _ascii_name(unquote(host)) if literal is None else str(literal)


def host_literal(host: str) -> Address | None:
    """The address that the WHATWG URL parser reads in a host, `127.1` and `0x7f000001` included; None for a name."""
    host = re.sub("[\t\n\r]", "", host)  # the URL parser drops them
    if ":" in host:
        with suppress(ValueError):
            return _without_mapping(IPv6Address(host.removeprefix("[").removesuffix("]").partition("%")[0]))
        return None
    *leading, last = [_ipv4_number(part) for part in _ascii_name(unquote(host)).split(".")]
    if last is None or len(leading) > 3 or last >= 256 ** (4 - len(leading)):
        return None
    value = last
    for index, number in enumerate(leading):
        if number is None or number > 255:
            return None
        value += number << 8 * (3 - index)
    return IPv4Address(value)


def _ipv4_number(part: str) -> int | None:
    """One part of an IPv4 literal in hexadecimal, octal or decimal (WHATWG URL, "IPv4 number parser")."""
    base = 16 if part.startswith("0x") else 8 if part.startswith("0") else 10
    digits = part.removeprefix("0x").lstrip("0")  # no int() of a megabyte of digits
    if not part or len(digits) > 11 or not set(digits) <= set("0123456789abcdef"[:base]):
        return None
    return int(digits or "0", base)


# ---- Policy ----------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class AddressPolicy:
    """What a door may reach: every globally routable address, and what the operator allowed."""

    networks: tuple[Network, ...] = ()
    """Allowed although not global; an IPv6 network with all the IPv4 addresses embedded in it."""
    hosts: frozenset[str] = frozenset()
    """Canonical names, allowed whatever they resolve to."""
    suffixes: tuple[str, ...] = ()
    """`.example.org` for an allowed `*.example.org`: its subdomains, not itself."""
    own_ports: set[int] = attrs.field(factory=set)
    """Ports of our own listeners; whoever opens one adds it and removes it on close. Nothing allows them here."""

    @classmethod
    def parse(cls, specs: Iterable[str]) -> AddressPolicy:
        """The policy for values of `--allow-network`: CIDR, IP literal, host name, or `*.` and a host name.

        Raises ValueError that names every bad value and its fault.
        """
        networks, names, faults = list[Network](), list[str](), list[str]()
        for spec in specs:
            try:
                parsed = _parse_spec(spec)
            except ValueError as error:
                faults.append(f"{spec!r} {error}")
            else:
                names.append(parsed) if isinstance(parsed, str) else networks.append(parsed)
        if faults:
            raise ValueError("--allow-network: " + "; ".join(faults))
        globs = tuple(name[1:] for name in names if name.startswith("*"))
        return cls(tuple(networks), frozenset(name for name in names if not name.startswith("*")), globs)

    def judge(self, address: Address, port: int, host: str | None = None) -> str | None:
        """Why a connection to the address is refused, or None. `host` is what the page asked for.

        The reason goes to clients: it does not tell what a name resolved to, or they could map the network with it.
        """
        address = _without_mapping(address)
        shown = str(address) if host is None else canonical_host(host)
        if not self._allows_host(shown) and not self._allows(address):
            is_name = host is not None and host_literal(host) is None
            fault = "does not lead to a public address" if is_name else "is not a public address"
            return f"{shown} {fault}; --allow-network {shown} would allow it"
        if port in self.own_ports and any(map(_is_of_this_host, (address, *embedded_addresses(address)))):
            return f"port {port} of {shown} is this service's own; no --allow-network opens it"
        return None

    def judge_host(self, host: str) -> str | None:
        """Why a host is refused before resolving it, or None: `localhost`, and IP literals in every spelling."""
        literal = host_literal(host)
        if literal is not None:
            return self.judge(literal, 0)
        name = canonical_host(host)
        if not f".{name}".endswith(".localhost") or self._allows_host(name):
            return None
        if self._allows(IPv4Address("127.0.0.1")) or self._allows(IPv6Address("::1")):
            return None
        return f"{name} is this host; --allow-network {name} would allow it"

    def _allows_host(self, name: str) -> bool:
        return name in self.hosts or name.endswith(self.suffixes)

    def _allows(self, address: Address) -> bool:
        if _within(address, self.networks):
            return True
        embedded = embedded_addresses(address)
        return _is_global(address) and all(_is_global(one) or _within(one, self.networks) for one in embedded)


def _parse_spec(spec: str) -> Network | str:
    bare = spec.strip().removeprefix("[").removesuffix("]")
    network: Network | None = None
    if re.fullmatch(r"[0-9a-fA-F:.]+(/[0-9]{1,3})?", bare):  # no netmasks, no zones; names like `cafe` pass too
        with suppress(ValueError):
            network = ipaddress.ip_network(bare, strict=False)
    if network is not None:
        if ipaddress.ip_address(bare.partition("/")[0]) != network.network_address:
            raise ValueError(f"has host bits set: {network} is the network")
        mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
        return network if mapped is None or network.prefixlen < 96 else IPv4Network((mapped, network.prefixlen - 96))
    name = _ascii_name(bare)
    if len(name) > _NAME_CHARS_MAX or not _SPEC_NAME.fullmatch(name):
        raise ValueError("is not a network, an IP address or a host name")
    return name


# ---- Ledger ----------------------------------------------------------------------------------------------------------


class FailureKind(enum.Enum):
    """What became of a connection: Chromium's name for it, and the SOCKS5 reply (RFC 1928 section 6)."""

    blocked = ("net::ERR_BLOCKED_BY_CLIENT", 2)
    name_not_resolved = ("net::ERR_NAME_NOT_RESOLVED", 4)
    connection_refused = ("net::ERR_CONNECTION_REFUSED", 5)
    connection_reset = ("net::ERR_CONNECTION_RESET", 1)
    timed_out = ("net::ERR_CONNECTION_TIMED_OUT", 6)
    unreachable = ("net::ERR_ADDRESS_UNREACHABLE", 3)


@attrs.frozen
class Failure:
    """Why one connection failed."""

    kind: FailureKind
    text: str
    """For the client: without any address that a name resolved to."""

    @property
    def net_error(self) -> str:
        """What Chromium would have reported without a proxy."""
        return self.kind.value[0]


@attrs.define
class Ledger:
    """What passed one door."""

    connections: int = 0
    """Made to servers."""
    bytes_received: int = 0
    """From servers, counted when read."""
    bytes_sent: int = 0
    """To servers, counted when read from the browser."""
    ads_blocked: int = 0
    """Connections that the door's `refuse` did not want; no failure is kept of them."""
    failures: dict[tuple[str, int], Failure] = attrs.field(factory=dict)
    """The last failure of each canonical host and port, oldest first, at most `MAX_FAILURES`; a success removes it."""

    @property
    def blocked(self) -> list[str]:
        """`host:port` of every refusal that stands."""
        refused = [key for key, failure in self.failures.items() if failure.kind is FailureKind.blocked]
        return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in refused]

    def failure_at(self, host: str, port: int) -> Failure | None:
        """The failure that stands for a host, in any spelling, and a port."""
        return self.failures.get((canonical_host(host), port))

    def record(self, host: str, port: int, failure: Failure | None) -> None:
        """Note how a connection ended, None for a success; the door calls it."""
        key = (canonical_host(host), port)
        self.failures.pop(key, None)  # so that the newest is last
        if failure is not None:
            self.failures[key] = failure
        if len(self.failures) > MAX_FAILURES:
            del self.failures[next(iter(self.failures))]


def _failure(error: BaseException | None, host: str) -> Failure:
    """The one place where the operating system's errors become failures."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ECONNREFUSED:
        return Failure(FailureKind.connection_refused, f"{host} refused the connection")
    if number in (errno.ECONNRESET, errno.EPIPE):
        return Failure(FailureKind.connection_reset, f"{host} reset the connection")
    if number == errno.ETIMEDOUT:
        return Failure(FailureKind.timed_out, f"{host} did not answer in time")
    return Failure(FailureKind.unreachable, f"{host} is unreachable ({errno.errorcode.get(number or 0, 'no reason')})")


# ---- Outgoing connections --------------------------------------------------------------------------------------------


_lookup_slots: trio.lowlevel.RunVar[trio.Semaphore] = trio.lowlevel.RunVar("egress look-ups")


async def _look_up(name: str, port: int) -> list[Any]:
    """What getaddrinfo answers; empty where it raises.

    It cannot be stopped. Its slot is held until its thread is free, so that pages that make look-ups last cost others
    no thread: files are read and pictures decoded in trio's 40, which are added to here.
    """
    try:
        slots = _lookup_slots.get()
    except LookupError:
        trio.to_thread.current_default_thread_limiter().total_tokens += LOOKUP_THREADS
        slots = trio.Semaphore(LOOKUP_THREADS)
        _lookup_slots.set(slots)
    answers: list[Any] = []
    ended = trio.Event()

    async def ask(slots: trio.Semaphore) -> None:
        try:
            # RuntimeError: the system gives no thread. Nothing may leave a system task.
            with suppress(OSError, UnicodeError, RuntimeError):
                answers.extend(await trio.socket.getaddrinfo(name.encode("ascii"), port, type=socket.SOCK_STREAM))
        finally:
            slots.release()
            ended.set()

    await slots.acquire()
    # Not a child of the door's: it may outlive it.
    trio.lowlevel.spawn_system_task(ask, slots)
    await ended.wait()
    return answers


async def _resolve(name: str, port: int) -> list[Address]:
    """The addresses of a name, by turns of both families, the resolver's first choice first (RFC 8305 section 4).

    Empty for what has none, and for what is no name.
    """
    if len(name) > _NAME_CHARS_MAX or not _LOOKUP_NAME.fullmatch(name):
        return []
    families: dict[int, dict[Address, None]] = {}  # a dict as a set that keeps its order
    for family, *_, sockaddr in await _look_up(name, port):
        if family in (socket.AF_INET, socket.AF_INET6):
            address = _without_mapping(ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]))
            families.setdefault(address.version, {})[address] = None
    return [address for turn in itertools.zip_longest(*families.values()) for address in turn if address is not None]


async def _dial(addresses: list[Address], port: int) -> trio.SocketStream:
    """A connection to the first address that answers; the next is tried when one fails or is silent for `STAGGER_S`.

    Raises the OSError of the first host that said no, else of the first address. Closes every other socket, also when
    cancelled.
    """
    sockets: list[trio.socket.SocketType] = []
    stream: trio.SocketStream | None = None
    errors: list[OSError] = []

    async def attempt(address: Address, failed: trio.Event) -> None:
        nonlocal stream
        try:
            sockets.append(sock := trio.socket.socket(_family(address), socket.SOCK_STREAM))
            await sock.connect((str(address), port))
        except OSError as error:
            errors.append(error)
            failed.set()
        else:
            stream = trio.SocketStream(sock)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(STAGGER_S):
                    await failed.wait()
    except BaseException:  # cancelled from outside, perhaps just when one answered
        stream = None
        raise
    finally:
        for sock in sockets:
            if stream is None or sock is not stream.socket:
                sock.close()
    if stream is None:
        raise next((error for error in errors if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET)), errors[0])
    return stream


async def connect(
    policy: AddressPolicy, host: str, port: int, lookups: trio.CapacityLimiter | None = None
) -> trio.SocketStream | Failure:
    """A connection to a host that may be reached, or why there is none; `lookups` limits those at once."""
    reason = policy.judge_host(host)
    if reason is not None:
        return Failure(FailureKind.blocked, reason)
    with trio.move_on_after(CONNECT_S):
        literal = host_literal(host)
        addresses = [] if literal is None else [literal]
        if literal is None:
            with trio.move_on_after(RESOLVE_S):
                async with lookups or trio.CapacityLimiter(1):
                    addresses = await _resolve(host, port)
        if not addresses:
            return Failure(FailureKind.name_not_resolved, f"{host} has no address")
        verdicts = {address: policy.judge(address, port, host) for address in addresses}
        open_addresses = [address for address, verdict in verdicts.items() if verdict is None]
        if not open_addresses:
            return Failure(FailureKind.blocked, verdicts[addresses[0]] or "")
        try:
            return await _dial(open_addresses[:MAX_ADDRESSES], port)
        except OSError as error:
            return _failure(error, host)
    return _failure(TimeoutError(errno.ETIMEDOUT, "no connection within the limit"), host)


# ---- Copying ---------------------------------------------------------------------------------------------------------


async def _drained(stream: trio.SocketStream) -> None:
    """Return when the peer's kernel has all that was sent, after `DRAIN_S` at the latest."""
    with suppress(OSError), trio.move_on_after(DRAIN_S):
        # SIOCOUTQ in tcp(7); polled, as nothing wakes a task when the queue gets empty.
        while any(fcntl.ioctl(stream.socket.fileno(), termios.TIOCOUTQ, bytes(4))):  # noqa: ASYNC110
            await trio.sleep(0.005)


async def _tunnel(client: trio.SocketStream, upstream: trio.SocketStream, ledger: Ledger) -> BaseException | None:
    """Copy both ways until both sides have ended; return the upstream's fault, if it had one. The caller closes.

    An orderly end of one side is passed on alone. A fault of one side ends both, with a reset: an end that looks
    orderly would make a cut answer a whole one, and Chromium would report ERR_EMPTY_RESPONSE.
    """
    scopes = {client: trio.CancelScope(), upstream: trio.CancelScope()}  # of the copying from that side
    broken: list[tuple[trio.SocketStream, BaseException | None]] = []  # sides, the first one to blame

    async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        scope, side = scopes[source], source
        with scope:
            try:
                while data := await source.receive_some(CHUNK_BYTES):
                    if source is upstream:
                        ledger.bytes_received += len(data)
                    else:
                        ledger.bytes_sent += len(data)
                    side = sink
                    await sink.send_all(data)
                    side = source
                    if scope.deadline != math.inf:
                        scope.deadline = trio.current_time() + HALF_CLOSED_S
                if not broken:
                    side = sink
                    await sink.send_eof()
            except trio.BrokenResourceError as error:
                broken.append((side, error.__cause__))
                # Only a server that stopped reading may have more for us: its answer, sent before it closed.
                if side is client or side is source:
                    scopes[sink].cancel()
        scopes[sink].deadline = min(scopes[sink].deadline, trio.current_time() + HALF_CLOSED_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, upstream, client)
        nursery.start_soon(copy, client, upstream)
    if not broken:
        return None
    side, fault = broken[0]
    if side is upstream:
        await _drained(client)
    for stream in (client, upstream):
        with suppress(OSError):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends a reset
    return fault if side is upstream else None


# ---- The door --------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Door:
    """One open relay; made by `open_door`."""

    policy: AddressPolicy
    port: int
    ledger: Ledger = attrs.field(factory=Ledger)
    refuse: Callable[[str], bool] | None = None
    """Hosts, by their canonical names, that the page can do without (`blocking.ad_filter`)."""
    _tunnels: dict[trio.CancelScope, tuple[str, int]] = attrs.field(factory=dict)
    _lookups: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(MAX_LOOKUPS))
    _connections: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(MAX_CONNECTIONS))

    @property
    def proxy_url(self) -> str:
        """For `Target.createBrowserContext(proxyServer=...)`."""
        return f"socks5://127.0.0.1:{self.port}"

    def hang_up(self, endpoints: Collection[tuple[str, int]]) -> None:
        """Close the connections to these hosts and ports: who waits for an answer learns that there will be none."""
        wanted = {(canonical_host(host), port) for host, port in endpoints}
        for scope, endpoint in self._tunnels.items():
            if endpoint in wanted:
                scope.cancel()

    async def _accept(self, listener: trio.SocketListener, tasks: trio.Nursery) -> None:
        """Serve every client in a task of its own; those over the limit wait in the listener's backlog."""
        while True:
            await self._connections.acquire()
            try:
                client = await listener.accept()
            except OSError as error:
                self._connections.release()
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    raise
                await trio.sleep(ACCEPT_RETRY_S)
            else:
                tasks.start_soon(self._serve, client)

    async def _serve(self, client: trio.SocketStream) -> None:
        try:
            await self._relay(client)
        except trio.BrokenResourceError:
            pass  # the browser left during the handshake
        finally:
            client.socket.close()
            self._connections.release()

    async def _relay(self, client: trio.SocketStream) -> None:
        request: tuple[str, int] | None = None
        with trio.move_on_after(HANDSHAKE_S):
            request = await _read_request(client)
        if request is None:
            return
        host, port = request
        if self.refuse is not None and self.refuse(host):
            self.ledger.ads_blocked += 1
            await client.send_all(_reply(2))
            return
        upstream = await connect(self.policy, host, port, self._lookups)
        if isinstance(upstream, Failure):
            self.ledger.record(host, port, upstream)
            await client.send_all(_reply(upstream.kind.value[1]))
            return
        try:
            self.ledger.connections += 1
            self.ledger.record(host, port, None)
            await client.send_all(_reply(0))
            with trio.CancelScope() as scope:
                self._tunnels[scope] = (canonical_host(host), port)
                try:
                    fault = await _tunnel(client, upstream, self.ledger)
                    if fault is not None:
                        self.ledger.record(host, port, _failure(fault, host))
                finally:
                    del self._tunnels[scope]
        finally:
            upstream.socket.close()


@asynccontextmanager
async def open_door(policy: AddressPolicy) -> AsyncIterator[Door]:
    """A relay on a loopback port of its own, serving until the body ends.

    Resource handling: its port is among the policy's own ports while it is open. On leaving, every connection is closed
    at once, whatever state it is in; cancellation does the same. A lookup may outlive it in its thread, without effect.

    Error handling: no fault of a client, a server or the network leaves the door; the ledger has them.
    """
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    door = Door(policy, listener.socket.getsockname()[1])
    policy.own_ports.add(door.port)
    try:
        async with open_tasks() as tasks:
            tasks.start_soon(door._accept, listener, tasks)
            yield door
    finally:
        listener.socket.close()
        policy.own_ports.discard(door.port)


# SOCKS5 (RFC 1928)


def _reply(code: int) -> bytes:
    return bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0))


async def _read_exactly(client: trio.SocketStream, count: int) -> bytes:
    """So many bytes and no more, as what follows is the tunnel's. Raises BrokenResourceError at the client's end."""
    data = b""
    while len(data) < count:
        part = await client.receive_some(count - len(data))
        if not part:
            raise trio.BrokenResourceError("the client left during the handshake")
        data += part
    return data


async def _read_request(client: trio.SocketStream) -> tuple[str, int] | None:
    """Host and port of a CONNECT without authentication; None for anything else, which has got its reply."""
    version, methods = await _read_exactly(client, 2)
    if version != 5:
        return None
    if 0 not in await _read_exactly(client, methods):
        await client.send_all(b"\x05\xff")
        return None
    await client.send_all(b"\x05\x00")
    version, command, _, kind = await _read_exactly(client, 4)
    if version != 5:
        return None
    if kind == 1:
        host = str(IPv4Address(await _read_exactly(client, 4)))
    elif kind == 4:
        host = str(_without_mapping(IPv6Address(await _read_exactly(client, 16))))
    elif kind == 3:
        (length,) = await _read_exactly(client, 1)
        host = canonical_host((await _read_exactly(client, length)).decode("utf-8", "replace"))
    else:
        await client.send_all(_reply(8))
        return None
    port = int.from_bytes(await _read_exactly(client, 2), "big")
    if command != 1:
        await client.send_all(_reply(7))
        return None
    return host, port
