"""The egress door: a SOCKS5 relay for every browser context, and the policy of what it may reach.

A connection goes these steps: read the host, refuse it by name, resolve it once, judge every address, connect to one
that was judged (no second lookup, so no DNS rebinding), copy bytes. Chromium reports every failure before the copying
as `ERR_SOCKS_CONNECTION_FAILED`; what really happened is in the door's `Ledger`.

What no such check can see: addresses that lead back inside by somebody else's translation (a router or a container
engine that forwards a public address inwards, a NAT64 prefix of the operator's own), what an allowed host name resolves
to, and what a proxy of the operator's makes of a name that it is given.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import functools
import ipaddress
import itertools
import math
import re
import socket
import struct
import termios
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, MutableSet, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from urllib.parse import unquote

import attrs
import trio

from .errors import NavigationError
from .proxy import Proxy, ProxyFault, ask, read_exactly
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
PROXIED_STAGGER_S = 2.0
"""The same through a proxy, which takes its own time."""
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
MAX_DIALS = 64
"""Per door, sockets that are not connected yet: a hostile name takes one for each of its addresses."""
LOOKUP_THREADS = 64
"""Of all doors: each look-up holds one for as long as its name server is silent, also when nobody waits any more."""
MAX_ADDRESSES = 16
"""Tried per connection: a hostile name can have hundreds."""
MAX_FAILURES = 256
"""Kept per ledger, the newest: a page can invent hosts without end."""
MAX_REFUSALS = 20
"""Told per ledger, the newest."""
MAX_TRAFFIC_BYTES = 2**29
"""Of one attempt, both ways: a long page with films takes some tens of MB."""
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


_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def _is_of_this_host(address: Address) -> bool:
    """Whether a connection to the address would end here; doubt counts as yes."""
    if address.is_loopback or address.is_unspecified:
        return True
    try:
        # Sends nothing. The system chooses where it would send from: to itself, from that very address.
        with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ipaddress.ip_address(str(probe.getsockname()[0]).partition("%")[0]) == address
    except OSError as error:
        return error.errno not in _NO_ROUTE


# ---- Host names ------------------------------------------------------------------------------------------------------

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!\d+\Z|0x[0-9a-f]*\Z){_LABEL}")
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


# ---- Ports -----------------------------------------------------------------------------------------------------------

_NO_BROWSER = (
    "0 1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113 115 117 119 123 "
    "135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601 636 989 990 993 "
    "995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665 6666 6667 6668 6669 6679 6697 10080"
)
BAD_PORTS = frozenset(map(int, _NO_BROWSER.split()))
"""Bad ports of the Fetch Standard: Chromium opens them for no page, so nothing allows them here."""
# Beyond these, the usual ports of servers that speak no HTTP, or speak it with programs only. A list of what is closed,
# as browsers have one: pages live on every other port, 81 and 8086 included.
_NO_PAGE = (
    "88 445 464 873 3268 3269 "  # Kerberos, file shares, directories
    "3389 5900 5901 5985 5986 "  # shells and desktops from afar
    "1433 1521 3050 3306 5432 6432 7687 9042 27017 27018 27019 28015 "  # databases
    "6379 6380 9200 9300 11211 16379 26379 "  # caches and search: Redis, Elasticsearch, memcached
    "1883 4222 5671 5672 8883 9092 61613 61616 "  # message queues
    "2181 2375 2376 2377 2379 2380 4369 6443 8009 10250 10255 "  # what commands containers, clusters and servers
    "1099 10050 10051"  # Java's remote calls, Zabbix's agents
)
SERVICE_PORTS = frozenset(map(int, _NO_PAGE.split()))
"""Opened only by an allowance that names the port."""


class Ports(MutableSet[int]):
    """A set of ports in which each stays until it was taken out as often as it was put in.

    Several listeners may have one number, on different addresses, and several users one listener.
    """

    def __init__(self, ports: Iterable[int] = ()) -> None:
        self._counts = Counter(ports)

    def add(self, value: int) -> None:
        """Once more."""
        self._counts[value] += 1

    def discard(self, value: int) -> None:
        """Once less."""
        self._counts -= Counter([value])

    def __contains__(self, value: object) -> bool:
        return value in self._counts

    def __iter__(self) -> Iterator[int]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


# ---- Policy ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Allowance:
    """One value of `--allow-network`."""

    target: Network | str
    """A network, an IPv6 one with all the IPv4 addresses embedded in it; or a canonical name, whatever it resolves to,
    `*.` before it for its subdomains without itself."""
    port: int | None = None
    """The only port it opens, be it one of `SERVICE_PORTS`; None for all but these."""

    @classmethod
    def parse(cls, spec: str) -> Allowance:
        """Raises ValueError with what is wrong, to be read after the value."""
        port = None
        if found := re.fullmatch(r"\s*(\[[^\]]*\]|[^:\[\]]*):([0-9]{1,5})\s*", spec):
            spec, port = found[1], int(found[2])
            if not 0 < port < 2**16:
                raise ValueError("has no port between 1 and 65535")
            if port in BAD_PORTS:
                raise ValueError(
                    f"has port {port}, which no browser opens for a page (bad ports of the Fetch Standard)"
                )
        return cls(_parse_target(spec), port)

    def covers_name(self, name: str) -> bool:
        """Whether the canonical name is meant, not what it resolves to."""
        if not isinstance(self.target, str):
            return False
        return name.endswith(self.target[1:]) if self.target.startswith("*") else name == self.target

    def covers(self, address: Address) -> bool:
        """Whether the address lies in the network."""
        return not isinstance(self.target, str) and address in self.target


@attrs.define(eq=False)
class AddressPolicy:
    """What a door may reach: every globally routable address, and what the operator allowed. By which way, how much."""

    allowances: tuple[Allowance, ...] = ()
    proxy: Proxy | None = None
    """Every connection goes through it."""
    max_bytes: int | None = MAX_TRAFFIC_BYTES
    """That one door, or one fetch, may send and receive."""
    own_ports: Ports = attrs.field(factory=Ports)
    """Ports of our own listeners; whoever opens one adds it and removes it on close. Nothing allows them here."""
    totals: Totals = attrs.field(factory=lambda: Totals())
    """Of all its doors and fetches."""

    @classmethod
    def parse(
        cls, specs: Iterable[str], *, proxy: Proxy | None = None, max_bytes: int | None = MAX_TRAFFIC_BYTES
    ) -> AddressPolicy:
        """The policy for values of `--allow-network`: CIDR, IP literal, host name, or `*.` and a host name.

        Each may end with `:port`; IPv6 then stands in brackets. Raises ValueError that names every bad value and its
        fault.
        """
        allowances, faults = list[Allowance](), list[str]()
        for spec in specs:
            try:
                allowances.append(Allowance.parse(spec))
            except ValueError as error:
                faults.append(f"{spec!r} {error}")
        if faults:
            raise ValueError("--allow-network: " + "; ".join(faults))
        return cls(tuple(allowances), proxy, max_bytes)

    def ledger(self) -> Ledger:
        """A new one, for one door or fetch."""
        return Ledger(self.max_bytes, totals=self.totals)

    def judge(self, address: Address, port: int, host: str | None = None) -> str | None:
        """Why a connection to the address is refused, or None. `host` is what the page asked for.

        The reason goes to clients: it does not tell what a name resolved to, or they could map the network with it.
        """
        address = _without_mapping(address)
        shown = str(address) if host is None else canonical_host(host)
        if closed := self._judge_port(port, shown, address):
            return closed
        if not self._allows_name(shown, port) and not self._allows(address, port):
            is_name = host is not None and host_literal(host) is None
            fault = "does not lead to a public address" if is_name else "is not a public address"
            return f"{shown} {fault}; --allow-network {shown} would allow it"
        # A proxy on this host is no page's business either, nor what a proxy elsewhere has on its own loopback.
        own = port in self.own_ports or (self.proxy is not None and port == self.proxy.port)
        if own and any(map(_is_of_this_host, (address, *embedded_addresses(address)))):
            return _own_port(shown, port)
        return None

    def judge_host(self, host: str, port: int = 443) -> str | None:
        """Why a host is refused before resolving it, or None.

        That are IP literals in every spelling, `localhost`, and ports that no page needs; of names that are left to a
        proxy, those that mean something inside only.
        """
        literal = host_literal(host)
        if literal is not None:
            return self.judge(literal, port)
        name = canonical_host(host)
        if closed := self._judge_port(port, name, None):
            return closed
        if self._allows_name(name, port):
            return None
        if _is_local(name):
            if any(self._allows(address, port) for address in _LOCAL):
                return None
            return f"{name} is this host; --allow-network {name} would allow it"
        if self.proxy is not None and self.proxy.resolves and _INSIDE_NAME.fullmatch(name):
            return f"{name} does not lead to a public address; --allow-network {name} would allow it"
        return None

    def _judge_port(self, port: int, shown: str, address: Address | None) -> str | None:
        """Why the port is closed, or None; of a name without an address yet, only what is closed whatever it is."""
        if port in BAD_PORTS:
            return f"port {port} of {shown} is closed: no browser opens it for a page, and no setting does"
        if port not in SERVICE_PORTS:
            return None
        for one in self.allowances:
            if one.port == port and (
                one.covers_name(shown)
                or (one.covers(address) if address is not None else not isinstance(one.target, str))
            ):
                return None
        place = f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
        return f"port {port} of {shown} is closed: no web page lives there; --allow-network {place} would allow it"

    def _allows_name(self, name: str, port: int) -> bool:
        return any(one.covers_name(name) for one in self.allowances if one.port in (None, port))

    def _allows(self, address: Address, port: int) -> bool:
        networks = [one for one in self.allowances if one.port in (None, port)]
        if any(one.covers(address) for one in networks):
            return True
        embedded = embedded_addresses(address)
        inside = all(_is_global(inner) or any(one.covers(inner) for one in networks) for inner in embedded)
        # A public address of this host's own is reached without passing what guards it from outside.
        return _is_global(address) and inside and not _is_of_this_host(address)


def _own_port(shown: str, port: int) -> str:
    return f"port {port} of {shown} is this service's own; no --allow-network opens it"


_LOCAL: tuple[Address, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


def _is_local(name: str) -> bool:
    """Whether a canonical name means `_LOCAL`, whatever a name server would say (RFC 6761, and browsers)."""
    return f".{name}".endswith(".localhost")


# Names without a dot, and domains for private use (RFC 6762, RFC 8375, ICANN's .internal): nobody outside knows them.
_INSIDE_NAME = re.compile(r"[^.]*|.*\.(?:local|localdomain|internal|home\.arpa)")


def _parse_target(spec: str) -> Network | str:
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
    if len(name) > _NAME_CHARS_MAX or not _HOST_NAME.fullmatch(name.removeprefix("*.")):
        raise ValueError("is not a network, an IP address or a host name")
    return name


# ---- Ledger ----------------------------------------------------------------------------------------------------------


class FailureKind(enum.Enum):
    """What became of a connection: Chromium's name for it, and the SOCKS5 reply (RFC 1928 section 6)."""

    blocked = ("net::ERR_BLOCKED_BY_CLIENT", 2)
    name_not_resolved = ("net::ERR_NAME_NOT_RESOLVED", 4)
    connection_refused = ("net::ERR_CONNECTION_REFUSED", 5)
    proxy_failed = ("net::ERR_PROXY_CONNECTION_FAILED", 1)
    connection_reset = ("net::ERR_CONNECTION_RESET", 1)
    timed_out = ("net::ERR_CONNECTION_TIMED_OUT", 6)
    unreachable = ("net::ERR_ADDRESS_UNREACHABLE", 3)


@attrs.frozen
class Failure:
    """Why one connection failed."""

    kind: FailureKind
    text: str
    """For the client: without any address that a name resolved to."""
    by_proxy: bool = False
    """The operator's proxy has a part in it: the text tells more than the kind."""

    def error(self) -> NavigationError:
        """What it means for a page that was to come from there."""
        if self.kind is FailureKind.blocked:
            return NavigationError(self.net_error, blocked=self.text)
        if self.by_proxy:
            return NavigationError(self.net_error, detail=self.text)
        return NavigationError(self.net_error)

    @property
    def net_error(self) -> str:
        """What Chromium would have reported without a proxy."""
        return self.kind.value[0]


@attrs.define
class Totals:
    """What passed all doors and fetches, for as long as the process lives; as in `Ledger`."""

    connections: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    ads_blocked: int = 0
    failures: Counter[FailureKind] = attrs.field(factory=lambda: Counter[FailureKind]())
    """Connections by what became of them; those with `blocked` were refused."""


@attrs.define
class Ledger:
    """What passed one door, or one fetch."""

    max_bytes: int | None = None
    """Of both ways together."""
    totals: Totals = attrs.field(factory=Totals, repr=False, kw_only=True)
    """Count everything once more."""
    over: trio.Event = attrs.field(factory=trio.Event, repr=False)
    """Set by the first byte over `max_bytes`; from then on there is no connection."""
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
    refusals: dict[str, str] = attrs.field(factory=dict)
    """`host:port` and why it was refused, oldest first, the newest `MAX_REFUSALS`; also when it was reached later."""
    refused: int = 0
    """Connections that were."""

    @property
    def blocked(self) -> list[str]:
        """`host:port` of the newest refusals."""
        return list(self.refusals)

    @property
    def warnings(self) -> list[str]:
        """A sentence for each of the newest refusals."""
        return [f"{place} was not reached: {why}" for place, why in self.refusals.items()]

    def as_meta(self) -> dict[str, Any]:
        """`network` of a result's `meta`."""
        return {
            "bytes_received": self.bytes_received,
            "bytes_sent": self.bytes_sent,
            "connections": self.connections,
            "blocked": self.blocked,
            "blocked_connections": self.refused,
        }

    def count(self, *, received: int = 0, sent: int = 0) -> None:
        """Note bytes that passed."""
        self.totals.bytes_received += received
        self.totals.bytes_sent += sent
        self._add(received, sent)

    def _add(self, received: int, sent: int) -> None:
        self.bytes_received += received
        self.bytes_sent += sent
        if self.max_bytes is not None and self.bytes_received + self.bytes_sent > self.max_bytes:
            self.over.set()

    @property
    def over_text(self) -> str:
        """What there was too much of, once there was."""
        return f"the page's traffic is over the limit of {self.max_bytes} bytes (--max-traffic)"

    def include(self, other: Ledger) -> None:
        """Count what passed before, elsewhere, for the same client; the totals have it."""
        self.connections += other.connections
        self._add(other.bytes_received, other.bytes_sent)

    def count_ad(self) -> None:
        """Note a connection that the door's `refuse` did not want."""
        self.ads_blocked += 1
        self.totals.ads_blocked += 1

    def connected(self, host: str, port: int) -> None:
        """Note a connection that was made; the door calls it."""
        self.connections += 1
        self.totals.connections += 1
        self.record(host, port, None)

    def failure_at(self, host: str, port: int) -> Failure | None:
        """The failure that stands for a host, in any spelling, and a port."""
        return self.failures.get((canonical_host(host), port))

    def record(self, host: str, port: int, failure: Failure | None) -> None:
        """Note how a connection ended, None for a success; the door calls it."""
        key = (canonical_host(host), port)
        self.failures.pop(key, None)  # so that the newest is last
        if failure is not None:
            self.failures[key] = failure
            self.totals.failures[failure.kind] += 1
            if failure.kind is FailureKind.blocked:
                self.refused += 1
                _keep_newest(self.refusals, f"[{key[0]}]:{port}" if ":" in key[0] else f"{key[0]}:{port}", failure.text)
        if len(self.failures) > MAX_FAILURES:
            del self.failures[next(iter(self.failures))]


def _keep_newest(refusals: dict[str, str], place: str, why: str) -> None:
    refusals.pop(place, None)
    refusals[place] = why
    if len(refusals) > MAX_REFUSALS:
        del refusals[next(iter(refusals))]


def _failure(error: BaseException | None, host: str) -> Failure:
    """The one place where the operating system's errors become failures."""
    if isinstance(error, ProxyFault):
        return Failure(FailureKind.proxy_failed, str(error), by_proxy=True)
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


Reach = Callable[[Address | str], Awaitable[trio.SocketStream]]


async def _addresses(host: str, port: int) -> list[Address]:
    literal = host_literal(host)
    return await _resolve(host, port) if literal is None else [literal]


async def _dial(
    targets: Sequence[Address | str],
    reach: Reach,
    *,
    stagger_s: float = STAGGER_S,
    dials: trio.CapacityLimiter | None = None,
) -> trio.SocketStream:
    """A connection to the first target that answers; the next is tried when one fails, or is silent for `stagger_s`.

    `dials` limits how many are tried at once.

    Raises the OSError of the first host that said no, else of the first target. Closes every other connection, also
    when cancelled.
    """
    won: trio.SocketStream | None = None
    errors: list[OSError] = []

    async def attempt(target: Address | str, failed: trio.Event) -> None:
        nonlocal won
        try:
            async with dials or trio.CapacityLimiter(1):
                stream = await reach(target)
        except OSError as error:
            errors.append(error)
            failed.set()
            return
        if won is None:
            won = stream
            nursery.cancel_scope.cancel()
        else:
            stream.socket.close()

    try:
        async with trio.open_nursery() as nursery:
            for target in targets:
                failed = trio.Event()
                nursery.start_soon(attempt, target, failed)
                with trio.move_on_after(stagger_s):
                    await failed.wait()
    except BaseException:  # cancelled from outside, perhaps just when one answered
        if won is not None:
            won.socket.close()
        raise
    if won is None:
        raise next((error for error in errors if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET)), errors[0])
    return won


async def _reach(target: Address | str, port: int) -> trio.SocketStream:
    """A connection to an address; raises OSError."""
    assert not isinstance(target, str)
    sock = trio.socket.socket(_family(target), socket.SOCK_STREAM)
    try:
        await sock.connect((str(target), port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def _reach_through(
    proxy: Proxy, gateways: Sequence[Address], target: Address | str, port: int
) -> trio.SocketStream:
    """A connection to an address, or a name, by the proxy; raises OSError."""
    try:
        stream = await _dial(gateways, functools.partial(_reach, port=proxy.port))
    except OSError as error:
        why = "refused the connection" if error.errno == errno.ECONNREFUSED else "cannot be reached"
        raise ProxyFault(why) from error
    try:
        await ask(proxy, stream, str(target), port)
    except BaseException:
        stream.socket.close()
        raise
    return stream


async def connect(
    policy: AddressPolicy,
    host: str,
    port: int,
    *,
    lookups: trio.CapacityLimiter | None = None,
    dials: trio.CapacityLimiter | None = None,
) -> trio.SocketStream | Failure:
    """A connection to a host that may be reached, or why there is none; the two limits are for those at once."""
    reason = policy.judge_host(host, port)
    if reason is not None:
        return Failure(FailureKind.blocked, reason)
    proxy = policy.proxy
    with trio.move_on_after(CONNECT_S):
        gateways = [] if proxy is None else await _addresses(canonical_host(proxy.host), proxy.port)
        targets = await _targets(policy, host, port, lookups or trio.CapacityLimiter(1), gateways)
        if isinstance(targets, Failure):
            return targets
        try:
            if proxy is None:
                return await _dial(targets, functools.partial(_reach, port=port), dials=dials)
            if not gateways:
                raise ProxyFault("cannot be reached: its name has no address")
            return await _dial(
                targets,
                functools.partial(_reach_through, proxy, gateways[:MAX_ADDRESSES], port=port),
                stagger_s=PROXIED_STAGGER_S,
                dials=dials,
            )
        except OSError as error:
            return _failure(error, host)
    if proxy is not None:
        return Failure(
            FailureKind.timed_out, f"the proxy (--proxy) gave no connection to {host} in time", by_proxy=True
        )
    return _failure(TimeoutError(errno.ETIMEDOUT, "no connection within the limit"), host)


async def _targets(
    policy: AddressPolicy, host: str, port: int, lookups: trio.CapacityLimiter, gateways: list[Address]
) -> list[Address | str] | Failure:
    """What to connect to, judged: addresses, or a name that is left to the proxy."""
    name, literal, proxy = canonical_host(host), host_literal(host), policy.proxy
    addresses = list[Address]()
    if literal is not None:
        addresses = [literal]
    elif _is_local(name):
        addresses = list(_LOCAL)
    elif proxy is not None and proxy.resolves:
        if (name, port) == (canonical_host(proxy.host), proxy.port):
            return Failure(FailureKind.blocked, _own_port(name, port))
        # Nothing that the proxy might take for an address.
        if len(name) <= _NAME_CHARS_MAX and _HOST_NAME.fullmatch(name):
            return [name]
    else:
        with trio.move_on_after(RESOLVE_S):
            async with lookups:
                addresses = await _resolve(host, port)
    if not addresses:
        if proxy is None or proxy.resolves:
            return Failure(FailureKind.name_not_resolved, f"{host} has no address")
        return Failure(
            FailureKind.name_not_resolved, f"{host} has no address here; --proxy-dns leaves names to the proxy", True
        )
    judged, refusals = list[Address | str](), list[str]()
    for address in addresses:
        refusal = policy.judge(address, port, host)
        if refusal is None and proxy is not None and port == proxy.port:
            # In any form; with the addresses of its name only known now.
            own = not set(gateways).isdisjoint((address, *embedded_addresses(address)))
            refusal = _own_port(name, port) if own else None
        if refusal is None:
            judged.append(address)
        else:
            refusals.append(refusal)
    return judged[:MAX_ADDRESSES] or Failure(FailureKind.blocked, refusals[0])


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
                        ledger.count(received=len(data))
                    else:
                        ledger.count(sent=len(data))
                    if ledger.over.is_set():
                        return  # whoever made the ledger ends all connections
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
    ledger: Ledger = attrs.field(init=False)
    refuse: Callable[[str], bool] | None = None
    """Hosts, by their canonical names, that the page can do without (`blocking.ad_filter`)."""
    _tunnels: dict[trio.CancelScope, tuple[str, int]] = attrs.field(factory=dict, init=False)
    _lookups: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(MAX_LOOKUPS))
    _dials: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(MAX_DIALS))
    _connections: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(MAX_CONNECTIONS))

    def __attrs_post_init__(self) -> None:
        self.ledger = self.policy.ledger()

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

    async def _run(self, listener: trio.SocketListener) -> None:
        """Serve clients until the ledger is over its limit, and none from then on."""
        async with trio.open_nursery() as clients:
            clients.start_soon(self._accept, listener, clients)
            await self.ledger.over.wait()
            clients.cancel_scope.cancel()
        listener.socket.close()

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
            self.ledger.count_ad()
            await client.send_all(_reply(2))
            return
        upstream = await connect(self.policy, host, port, lookups=self._lookups, dials=self._dials)
        if isinstance(upstream, Failure):
            self.ledger.record(host, port, upstream)
            await client.send_all(_reply(upstream.kind.value[1]))
            return
        try:
            self.ledger.connected(host, port)
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
    """A relay on a loopback port of its own, serving until the body ends, or until `policy.max_bytes` have passed.

    Resource handling: its port is among the policy's own ports while it is open. On leaving, every connection is closed
    at once, whatever state it is in; cancellation does the same. A lookup may outlive it in its thread, without effect.

    Error handling: no fault of a client, a server or the network leaves the door; the ledger has them.
    """
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    door = Door(policy, listener.socket.getsockname()[1])
    policy.own_ports.add(door.port)
    try:
        async with open_tasks() as tasks:
            tasks.start_soon(door._run, listener)
            yield door
    finally:
        listener.socket.close()
        policy.own_ports.discard(door.port)


# SOCKS5 (RFC 1928)


def _reply(code: int) -> bytes:
    return bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0))


async def _read_request(client: trio.SocketStream) -> tuple[str, int] | None:
    """Host and port of a CONNECT without authentication; None for anything else, which has got its reply."""
    version, methods = await read_exactly(client, 2)
    if version != 5:
        return None
    if 0 not in await read_exactly(client, methods):
        await client.send_all(b"\x05\xff")
        return None
    await client.send_all(b"\x05\x00")
    version, command, _, kind = await read_exactly(client, 4)
    if version != 5:
        return None
    if kind == 1:
        host = str(IPv4Address(await read_exactly(client, 4)))
    elif kind == 4:
        host = str(_without_mapping(IPv6Address(await read_exactly(client, 16))))
    elif kind == 3:
        (length,) = await read_exactly(client, 1)
        host = canonical_host((await read_exactly(client, length)).decode("utf-8", "replace"))
    else:
        await client.send_all(_reply(8))
        return None
    port = int.from_bytes(await read_exactly(client, 2), "big")
    if command != 1:
        await client.send_all(_reply(7))
        return None
    return host, port
