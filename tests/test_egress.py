"""cdp/egress.py: what is refused, and that the relay changes nothing of the rest. All traffic stays on loopback."""

from __future__ import annotations

import errno
import functools
import hashlib
import ipaddress
import os
import random
import signal
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp import egress
from cdp.egress import AddressPolicy, Door, Failure, FailureKind, Ledger, canonical_host, open_door
from cdp.tasks import open_tasks

PUBLIC_V4 = IPv4Address("93.184.215.14")
PUBLIC_V6 = IPv6Address("2606:2800:21f:cb07:6820:80da:af6b:8b2c")

# The same inputs in every run, and nothing left in the checkout.
same_inputs = settings(derandomize=True, database=None, deadline=None)


# ---- Addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "93.184.215.14",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2000::1",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2606:4700::1111",
        "2a00:1450:4001:81b::200e",
        "3ffd:ffff::1",
        "64:ff9b::808:808",  # NAT64 of a public address
        "::ffff:8.8.8.8",
        "2606:4700::5efe:808:808",  # ISATAP of a public address
    ],
)
def test_policy_passes_public_addresses(text: str) -> None:
    assert AddressPolicy().judge(ip_address(text), 443) is None


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",  # Alibaba's metadata
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",  # Azure's platform services
        "169.254.169.254",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.9",
        "192.0.0.170",
        "192.0.0.192",  # Oracle's metadata
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.0",
        "192.168.255.255",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.255",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::808:808",  # IPv4-compatible
        "::ffff:127.0.0.1",
        "::ffff:0:808:808",  # IPv4-translated
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "64:ff9a::1",
        "100::1",
        "100:0:0:1::1",
        "1fff::1",
        "2001::1",  # Teredo
        "2001:0:808:808::f7f7:f7f7",  # Teredo with a public server and client
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "2606:4700::5efe:a00:1",  # ISATAP of 10.0.0.1
        "2606:4700::200:5efe:a00:1",
        "2606:4700::300:5efe:a00:1",
        "3ffe::1",
        "3fff::1",
        "3fff:fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",  # Amazon's metadata
        "fe80::1",
        "fe80::1%eth0",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_policy_refuses_addresses_that_are_not_public(text: str) -> None:
    assert AddressPolicy().judge(ip_address(text), 443)


PRIVATE_V4 = st.sampled_from(
    [ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16")]
).flatmap(lambda network: st.ip_addresses(network=network))
MIDDLE = st.integers(0, 2**32 - 1)


def _embed(prefix: str, number: int) -> IPv6Address:
    return IPv6Address(int(IPv6Address(prefix)) | number)


EMBEDDINGS: dict[str, Callable[[int, int], IPv6Address]] = {
    "mapped": lambda v4, _: _embed("::ffff:0:0", v4),
    "translated": lambda v4, _: _embed("::ffff:0:0:0", v4),
    "compatible": lambda v4, _: _embed("::", v4),
    "nat64": lambda v4, _: _embed("64:ff9b::", v4),
    "nat64 local, /96": lambda v4, _: _embed("64:ff9b:1:fffe::", v4),
    "nat64 local, /48": lambda v4, _: _embed("64:ff9b:1::", (v4 >> 16) << 64 | (v4 & 0xFFFF) << 40),
    "nat64 local, /56": lambda v4, _: _embed("64:ff9b:1:100::", (v4 >> 24) << 64 | (v4 & 0xFFFFFF) << 32),
    "nat64 local, /64": lambda v4, _: _embed("64:ff9b:1:102::", v4 << 24),
    "6to4": lambda v4, middle: _embed("2002::", v4 << 80 | middle),
    "teredo server": lambda v4, middle: _embed("2001::", v4 << 64 | middle),
    "teredo client": lambda v4, middle: _embed("2001::", middle << 64 | v4 ^ 0xFFFFFFFF),
    "isatap": lambda v4, middle: _embed("2a00:1450::", middle << 64 | 0x5EFE << 32 | v4),
    "isatap, universal bit": lambda v4, middle: _embed("2a00:1450::", middle << 64 | 0x02005EFE << 32 | v4),
}


@pytest.mark.parametrize("form", EMBEDDINGS)
@same_inputs
@given(inner=PRIVATE_V4, middle=MIDDLE)
def test_policy_refuses_private_addresses_embedded(form: str, inner: IPv4Address, middle: int) -> None:
    assert AddressPolicy().judge(EMBEDDINGS[form](int(inner), middle), 443)


@pytest.mark.parametrize("form", [form for form in EMBEDDINGS if form != "mapped"])
@same_inputs
@given(inner=st.ip_addresses(v=4), middle=MIDDLE)
def test_embedded_addresses_finds_the_address_inside(form: str, inner: IPv4Address, middle: int) -> None:
    assert inner in egress.embedded_addresses(EMBEDDINGS[form](int(inner), middle))


@same_inputs
@given(st.ip_addresses())
def test_policy_passes_only_what_the_standard_library_calls_global(address: IPv4Address | IPv6Address) -> None:
    plain = (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
    assert AddressPolicy().judge(address, 443) or (plain.is_global and not plain.is_multicast)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("10.0.0.0/8", "10.1.2.3"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "::ffff:127.0.0.1"),
        ("::ffff:10.0.0.0/104", "10.1.2.3"),
        ("10.0.0.0/8", "64:ff9b::a01:203"),
        ("fd00::/8", "fd00::1"),
        ("[::1]", "::1"),
        ("fd00::/8", "fd00::5efe:a00:1"),
        ("0.0.0.0/0", "192.168.1.1"),
    ],
)
def test_policy_passes_an_allowed_network(spec: str, text: str) -> None:
    assert AddressPolicy.parse([spec]).judge(ip_address(text), 80) is None


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("10.0.0.0/8", "192.168.0.1"),
        ("127.0.0.1", "127.0.0.2"),
        ("::/0", "127.0.0.1"),
        ("::/0", "::ffff:127.0.0.1"),
        ("0.0.0.0/0", "::1"),
        ("10.0.0.0/8", "64:ff9b::7f00:1"),
        ("intranet.example", "10.0.0.1"),
    ],
)
def test_policy_refuses_beside_an_allowed_network(spec: str, text: str) -> None:
    assert AddressPolicy.parse([spec]).judge(ip_address(text), 80)


@pytest.mark.parametrize("spec", ["intranet.example", "INTRANET.example.", "*.example"])
def test_policy_passes_an_allowed_host_at_any_address(spec: str) -> None:
    assert AddressPolicy.parse([spec]).judge(ip_address("10.0.0.1"), 80, "Intranet.Example") is None


@pytest.mark.parametrize(
    "host", ["example.org", "notexample.org", "a.example.org.evil.test", "example.orgx", "", "10.0.0.1"]
)
def test_policy_glob_covers_subdomains_only(host: str) -> None:
    assert AddressPolicy.parse(["*.example.org"]).judge(ip_address("10.0.0.1"), 80, host)


@pytest.mark.parametrize("host", ["xn--bcher-kva.example", "B\u00dcCHER.example", "bu\u0308cher.example."])
def test_policy_allows_an_international_name_in_every_form(host: str) -> None:
    policy = AddressPolicy.parse(["b\u00fccher.example"])
    assert policy.judge(ip_address("10.0.0.1"), 80, host) is None


def test_policy_refusal_names_the_setting() -> None:
    assert "--allow-network" in (AddressPolicy().judge(ip_address("10.0.0.1"), 80) or "")


def test_policy_refusal_of_a_name_hides_its_address() -> None:
    reason = AddressPolicy().judge(ip_address("10.0.0.1"), 80, "intranet.example") or ""
    assert "intranet.example" in reason
    assert "10.0.0.1" not in reason


def test_policy_refusal_of_a_literal_shows_its_address() -> None:
    assert "127.0.0.1" in (AddressPolicy().judge(ip_address("127.0.0.1"), 80, "0x7f.1") or "")


def test_policy_own_port_refusal_of_a_name_hides_its_address() -> None:
    policy = AddressPolicy.parse(["intranet.example"])
    policy.own_ports.add(8000)
    assert "127.0.0.1" not in (policy.judge(ip_address("127.0.0.1"), 8000, "intranet.example") or "127.0.0.1")


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.8.9.10", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]
)
def test_policy_refuses_own_ports_whatever_is_allowed(text: str) -> None:
    policy = AddressPolicy.parse(["0.0.0.0/0", "::/0", "this.example"])
    policy.own_ports.add(8000)
    assert policy.judge(ip_address(text), 8000, "this.example")


def test_policy_refuses_own_ports_at_addresses_of_the_interfaces() -> None:
    policy = AddressPolicy.parse(["0.0.0.0/0"])
    policy.own_ports.add(8000)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((str(PUBLIC_V4), 9))  # chooses the source address, sends nothing
        address = ip_address(probe.getsockname()[0])
    assert policy.judge(address, 8000)


def test_policy_refuses_own_ports_where_the_system_does_not_tell() -> None:
    policy = AddressPolicy.parse(["fe80::/10"])
    policy.own_ports.add(8000)
    assert policy.judge(ip_address("fe80::1"), 8000)  # EINVAL without a zone


def test_policy_passes_other_ports_of_this_host_if_allowed() -> None:
    policy = AddressPolicy.parse(["127.0.0.0/8"])
    policy.own_ports.add(8000)
    assert policy.judge(ip_address("127.0.0.1"), 8001) is None


def test_policy_refuses_public_addresses_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an interface; here the loopback's, which are made public for a moment."""
    monkeypatch.setattr(egress, "_NOT_GLOBAL_V4", [])
    assert "is not a public address" in (AddressPolicy().judge(ip_address("127.0.0.1"), 80) or "")
    assert AddressPolicy.parse(["127.0.0.1"]).judge(ip_address("127.0.0.1"), 80) is None


def test_policy_refuses_the_address_of_an_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "_NOT_GLOBAL_V4", [])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((str(PUBLIC_V4), 9))
        address = ip_address(probe.getsockname()[0])
    assert AddressPolicy().judge(address, 80)


def test_ports_stay_until_all_who_added_them_are_gone() -> None:
    ports = egress.Ports([8000, 8000])
    ports.discard(8000)
    assert ports == {8000}
    ports.discard(8000)
    ports.discard(8000)
    ports.add(8000)
    assert (list(ports), len(ports)) == ([8000], 1)


@pytest.mark.parametrize("address", [PUBLIC_V4, PUBLIC_V6])
def test_policy_passes_own_port_numbers_elsewhere(address: IPv4Address | IPv6Address) -> None:
    policy = AddressPolicy()
    policy.own_ports.add(443)
    assert policy.judge(address, 443) is None


# ---- Ports -----------------------------------------------------------------------------------------------------------

WEB_PORTS = [80, 81, 443, 444, 591, 800, 3000, 4000, 4200, 5000, 5173, 5601, 7001, 8000, 8080, 8443, 8888, 9000, 9443]


@pytest.mark.parametrize("port", [*WEB_PORTS, 32768, 60999, 65535])
def test_policy_passes_ports_where_pages_live(port: int) -> None:
    assert AddressPolicy().judge_host("example.com", port) is None
    assert AddressPolicy().judge(PUBLIC_V4, port) is None


@pytest.mark.parametrize("port", [0, 1, 22, 25, 110, 139, 389, 587, 6000, 6667, 10080])
@pytest.mark.parametrize("specs", [[], ["0.0.0.0/0", "example.com"]])
def test_policy_refuses_bad_ports_whatever_is_allowed(port: int, specs: list[str]) -> None:
    policy = AddressPolicy.parse(specs)
    for reason in (policy.judge_host("example.com", port), policy.judge(PUBLIC_V4, port, "example.com")):
        assert f"port {port} of example.com is closed: no browser opens it" in (reason or "")
        assert "--allow-network" not in (reason or "")


@pytest.mark.parametrize("port", [445, 1433, 2375, 3306, 3389, 5432, 6379, 9200, 10250, 11211, 27017])
@pytest.mark.parametrize("specs", [[], ["0.0.0.0/0", "example.com", "example.com:80", "other.example:PORT"]])
def test_policy_refuses_ports_of_services_and_tells_what_opens_them(port: int, specs: list[str]) -> None:
    policy = AddressPolicy.parse([spec.replace("PORT", str(port)) for spec in specs])
    for reason in (policy.judge_host("Example.com.", port), policy.judge(PUBLIC_V4, port, "example.com")):
        assert f"--allow-network example.com:{port} would allow it" in (reason or "")


@pytest.mark.parametrize(
    ("host", "told"), [("8.8.8.8", "8.8.8.8:6379"), ("2a00::1", "[2a00::1]:6379"), ("0x8.0x8.2056", "8.8.8.8:6379")]
)
def test_policy_tells_what_opens_a_port_of_a_literal(host: str, told: str) -> None:
    reason = AddressPolicy().judge_host(host, 6379) or ""
    assert reason.endswith(f"--allow-network {told} would allow it")
    assert AddressPolicy.parse([told]).judge_host(host, 6379) is None


@pytest.mark.parametrize(
    ("spec", "host", "address"),
    [
        ("example.com:6379", "example.com", "8.8.8.8"),
        ("example.com:6379", "Example.com.", "10.0.0.1"),
        ("*.example.com:6379", "a.example.com", "10.0.0.1"),
        ("10.0.0.0/8:6379", "example.com", "10.0.0.1"),
        ("10.0.0.1:6379", "example.com", "::ffff:10.0.0.1"),
        ("[fd00::/8]:6379", "example.com", "fd00::1"),
        ("[::1]:6379", "localhost", "::1"),
    ],
)
def test_allowance_with_a_port_opens_it(spec: str, host: str, address: str) -> None:
    policy = AddressPolicy.parse([spec])
    assert (policy.judge_host(host, 6379), policy.judge(ip_address(address), 6379, host)) == (None, None)


@pytest.mark.parametrize(
    ("spec", "address"),
    [("example.com:8080", "10.0.0.1"), ("10.0.0.1:8080", "10.0.0.1"), ("[fd00::1]:8080", "fd00::1")],
)
def test_allowance_with_a_port_opens_no_other(spec: str, address: str) -> None:
    policy = AddressPolicy.parse([spec])
    assert policy.judge(ip_address(address), 8080, "example.com") is None
    assert policy.judge(ip_address(address), 8081, "example.com")


def test_allowance_of_a_network_with_a_port_opens_it_nowhere_else() -> None:
    policy = AddressPolicy.parse(["10.0.0.0/8:6379"])
    for address in ("8.8.8.8", "192.168.0.1"):
        # In the same words, whatever the name leads to.
        reason = policy.judge(ip_address(address), 6379, "example.com")
        assert reason == AddressPolicy().judge_host("example.com", 6379)


@pytest.mark.parametrize("spec", ["example.com:0", "10.0.0.0/8:65536", "[::1]:99999"])
def test_parse_names_a_bad_port(spec: str) -> None:
    with pytest.raises(ValueError, match="has no port between 1 and 65535"):
        AddressPolicy.parse([spec])


def test_parse_takes_no_port_that_no_browser_opens() -> None:
    with pytest.raises(ValueError, match=r"'example\.com:22' has port 22, which no browser opens"):
        AddressPolicy.parse(["example.com:22"])


# ---- Host names ------------------------------------------------------------------------------------------------------

LOOPBACK_SPELLINGS = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "0x7f.1",
    "0X7F.0x0.0.01",
    "0x7f000001",
    "0x000000000000007f000001",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "127.0x.0.1",
    "[::1]",
    "::1",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "%31%32%37.0.0.1",
    "\uff11\uff12\uff17.0.0.1",
    "127\u30020\u30020\u30021",
    "127\uff610\uff610\uff611",
    "\u2460\u2461\u2466.0.0.1",
    "127.0.\u00ad0.1",
    "127.0.\u200b0.1",
    "127.0.\n0.1",
]


@pytest.mark.parametrize(
    "host",
    [
        *LOOPBACK_SPELLINGS,
        *(
            "0",
            "0x",
            "0.0.0.0",
            "10.1",
            "0xa9fea9fe",
            "3232235521",
            "4294967295",
            "[fe80::1]",
            "[fe80::1%25eth0]",
            "[fd00::1]",
        ),
        *("localhost", "LocalHost", "localhost.", "a.localhost", "a.b.LOCALHOST.", "\u24dbocalhost", "%6cocalhost"),
    ],
)
def test_judge_host_refuses(host: str) -> None:
    assert "--allow-network" in (AddressPolicy().judge_host(host) or "")


@pytest.mark.parametrize(
    "host",
    [
        *(
            "example.com",
            "intranet",
            "localhost.example.com",
            "notlocalhost",
            "1.1.1.1",
            "0x1010101",
            "8.8",
            "[2606:4700::1111]",
        ),
        *(
            "",
            ".",
            "256.0.0.1",
            "1.2.3.4.5",
            "08.1",
            "4294967296",
            "127.0.0.0x1g",
            "127..1",
            "0x7f000001.com",
            "[:",
            ":::1",
        ),
    ],
)
def test_judge_host_passes(host: str) -> None:
    assert AddressPolicy().judge_host(host) is None


@pytest.mark.parametrize("spec", ["127.0.0.0/8", "::1", "localhost"])
def test_judge_host_passes_localhost_if_allowed(spec: str) -> None:
    assert AddressPolicy.parse([spec]).judge_host("localhost") is None


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS[:12])
def test_judge_host_passes_a_literal_if_allowed(host: str) -> None:
    assert AddressPolicy.parse(["127.0.0.0/8"]).judge_host(host) is None


@same_inputs
@given(st.text() | st.from_regex(r"[0-9a-fx.%:\[\]]*", fullmatch=True))
def test_judge_host_never_raises(host: str) -> None:
    AddressPolicy().judge_host(host)


HAN = "".join(map(chr, range(0x4E00, 0x9FA0)))  # 20,000 different characters


@pytest.mark.parametrize("unit", ["\u00fc", "0", "9", "1.", "%31", ":", ".", HAN])
def test_canonical_host_takes_linear_time(unit: str) -> None:
    assert canonical_host(unit * (300_000 // len(unit))) is not None


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        ("Example.COM.", "example.com"),
        ("[2606:4700:0::1111]", "2606:4700::1111"),
        ("[fe80::1%25eth0]", "fe80::1"),
        ("[::ffff:1.2.3.4]", "1.2.3.4"),
        ("0x7f.1", "127.0.0.1"),
        ("\u2102.example", "c.example"),
        ("stra\u00dfe.example", "xn--strae-oqa.example"),  # as browsers do since 2023, not strasse
        ("\u0391\u03a3.example", "xn--mxa0b.example"),  # no final sigma made of a capital one
        ("%65xample.com", "example.com"),
    ],
)
def test_canonical_host_has_one_form(host: str, canonical: str) -> None:
    assert canonical_host(host) == canonical


# ---- Allowances ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        *(
            "",
            "*",
            "*.",
            "**.a",
            "a.*.b",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a/b",
            "http://a",
            "a:port",
            "::1:",
            "[::1]80",
            "a b:80",
            "1:80",
            "127.1",
            "1",
            "0x7f",
            "a.1",
        ),
        *("10.0.0.0/33", "10.0.0.0/255.0.0.0", "10.0.0.0/-1", "10.0.0.0/", "fe80::1%eth0", "::/129", ":::", "a" * 64),
        "b.".join(["a" * 60] * 5),
    ],
)
def test_parse_names_a_bad_spec(spec: str) -> None:
    with pytest.raises(ValueError, match="is not a network") as caught:
        AddressPolicy.parse([spec])
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "network"),
    [("10.0.0.1/8", "10.0.0.0/8"), ("fd00::1/8", "fd00::/8"), ("::ffff:10.0.0.1/104", "::ffff:a00:0/104")],
)
def test_parse_names_host_bits_and_the_network(spec: str, network: str) -> None:
    with pytest.raises(ValueError, match=f"{spec}' has host bits set: {network}"):
        AddressPolicy.parse([spec])


def test_parse_names_every_bad_spec() -> None:
    with pytest.raises(ValueError, match=r"'a b' .*'10\.0\.0\.1/8' .*'\*'"):
        AddressPolicy.parse(["a b", "10.0.0.0/8", "10.0.0.1/8", "*"])


def test_parse_of_nothing_allows_nothing() -> None:
    assert AddressPolicy.parse([]).judge(ip_address("127.0.0.1"), 80)


# ---- Ledger ----------------------------------------------------------------------------------------------------------

REFUSED = Failure(FailureKind.connection_refused, "it refused")
BLOCKED = Failure(FailureKind.blocked, "not allowed")


@pytest.mark.parametrize("host", ["Example.COM", "example.com.", "EXAMPLE.com"])
def test_ledger_finds_a_failure_in_any_spelling(host: str) -> None:
    ledger = Ledger()
    ledger.record("example.com", 80, REFUSED)
    assert ledger.failure_at(host, 80) is REFUSED


def test_ledger_finds_a_failure_of_a_bracketed_literal() -> None:
    ledger = Ledger()
    ledger.record("::1", 80, REFUSED)
    assert ledger.failure_at("[::1]", 80) is REFUSED


def test_ledger_keeps_ports_apart() -> None:
    ledger = Ledger()
    ledger.record("example.com", 80, REFUSED)
    assert ledger.failure_at("example.com", 81) is None


def test_ledger_success_clears_a_failure() -> None:
    ledger = Ledger()
    ledger.record("example.com", 80, REFUSED)
    ledger.record("Example.com", 80, None)
    assert ledger.failures == {}


def test_ledger_drops_the_oldest_failure_over_its_bound() -> None:
    ledger = Ledger()
    for port in range(egress.MAX_FAILURES + 1):
        ledger.record("example.com", port, REFUSED)
    assert list(ledger.failures) == [("example.com", port) for port in range(1, egress.MAX_FAILURES + 1)]


def test_ledger_repeated_failure_counts_as_new() -> None:
    ledger = Ledger()
    for port in (*range(egress.MAX_FAILURES), 0, 5000):
        ledger.record("example.com", port, REFUSED)
    assert ledger.failure_at("example.com", 0) is REFUSED


def test_ledger_lists_refusals_only() -> None:
    ledger = Ledger()
    ledger.record("example.com", 80, REFUSED)
    ledger.record("10.0.0.1", 80, BLOCKED)
    ledger.record("fd00::1", 443, BLOCKED)
    assert ledger.blocked == ["10.0.0.1:80", "[fd00::1]:443"]


def test_ledger_keeps_the_newest_refusals_and_counts_all() -> None:
    ledger = Ledger()
    for port in (*range(egress.MAX_REFUSALS + 5), 7):
        ledger.record("10.0.0.1", port, BLOCKED)
    assert len(ledger.blocked) == egress.MAX_REFUSALS
    assert (ledger.blocked[0], ledger.blocked[-1]) == ("10.0.0.1:5", "10.0.0.1:7")
    assert ledger.refused == egress.MAX_REFUSALS + 6


def test_ledger_keeps_a_refusal_when_the_host_is_reached_later() -> None:
    ledger = Ledger()
    ledger.record("rebind.example", 80, BLOCKED)
    ledger.record("rebind.example", 80, None)
    assert ledger.blocked == ["rebind.example:80"]


def test_ledger_keeps_refusals_however_much_else_fails() -> None:
    ledger = Ledger()
    ledger.record("10.0.0.1", 80, BLOCKED)
    for port in range(egress.MAX_FAILURES):
        ledger.record("example.com", port, REFUSED)
    assert ledger.blocked == ["10.0.0.1:80"]


def test_ledger_warns_once_of_each_refused_host_and_port() -> None:
    ledger = Ledger()
    for port in (80, 81, 80):
        ledger.record("10.0.0.1", port, Failure(FailureKind.blocked, "why"))
    assert ledger.warnings == ["10.0.0.1:81 was not reached: why", "10.0.0.1:80 was not reached: why"]


def test_ledger_as_meta() -> None:
    ledger = Ledger(connections=2)
    ledger.count(received=5, sent=3)
    ledger.record("10.0.0.1", 80, BLOCKED)
    assert ledger.as_meta() == {
        "bytes_received": 5,
        "bytes_sent": 3,
        "connections": 2,
        "blocked": ["10.0.0.1:80"],
        "blocked_connections": 1,
    }


@pytest.mark.parametrize(("limit", "over"), [(None, False), (10, False), (9, True)])
def test_ledger_is_over_its_limit_with_one_byte_more(limit: int | None, over: bool) -> None:
    ledger = Ledger(limit)
    ledger.count(received=7, sent=3)
    assert ledger.over.is_set() is over


def test_ledger_counts_what_it_includes() -> None:
    ledger, other = Ledger(100), Ledger(connections=1, bytes_received=60, bytes_sent=50)
    ledger.include(other)
    assert (ledger.connections, ledger.bytes_received, ledger.bytes_sent, ledger.over.is_set()) == (1, 60, 50, True)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (FailureKind.blocked, "net::ERR_BLOCKED_BY_CLIENT"),
        (FailureKind.name_not_resolved, "net::ERR_NAME_NOT_RESOLVED"),
        (FailureKind.connection_refused, "net::ERR_CONNECTION_REFUSED"),
        (FailureKind.connection_reset, "net::ERR_CONNECTION_RESET"),
        (FailureKind.timed_out, "net::ERR_CONNECTION_TIMED_OUT"),
        (FailureKind.unreachable, "net::ERR_ADDRESS_UNREACHABLE"),
    ],
)
def test_failure_has_the_name_chromium_uses(kind: FailureKind, name: str) -> None:
    assert Failure(kind, "").net_error == name


# ---- The relay: helpers ----------------------------------------------------------------------------------------------

Handler = Callable[[trio.SocketStream], Awaitable[object]]

SUCCEEDED, FAILED, NOT_ALLOWED, NET_UNREACHABLE, HOST_UNREACHABLE, REFUSED_REPLY, EXPIRED = 0, 1, 2, 3, 4, 5, 6


class Server:
    """A TCP server in this process that counts its connections."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.hits = 0
        self.port = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.hits += 1
        async with stream:
            await self.handler(stream)


async def echo(stream: trio.SocketStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def stay(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def serving(handler: Handler = echo, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Server]:
    server = Server(handler)
    async with open_tasks() as tasks:
        (listener,) = await trio.open_tcp_listeners(port, host=host)
        server.port = listener.socket.getsockname()[1]
        tasks.start_soon(trio.serve_listeners, server.serve, [listener])
        yield server


@asynccontextmanager
async def silence(host: str, port: int = 0) -> AsyncIterator[int]:
    """A port that answers no SYN: the backlog of its listener is full."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_STREAM) as listener, trio.socket.socket(family) as filler:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await listener.bind((host, port))
        listener.listen(0)
        await filler.connect((host, listener.getsockname()[1]))
        yield listener.getsockname()[1]


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Resolver(trio.abc.HostnameResolver):
    """DNS from a script: the n-th lookup gets the n-th answer, then the last one again; an empty answer is NXDOMAIN."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.started = trio.Event()
        trio.socket.set_custom_hostname_resolver(self)  # for this run

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]
        self.asked.append(host.decode())
        self.started.set()
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if answer == ["never"]:
            await trio.sleep_forever()
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, type, 6, "", (one, port, 0, 0))
            if ":" in one
            else (socket.AF_INET, type, 6, "", (one, port))
            for one in answer
        ]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
        raise NotImplementedError


async def read(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count and (part := await stream.receive_some(count - len(data))):
        data += part
    return data


async def read_all(stream: trio.SocketStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


def request(host: str | bytes, port: int) -> bytes:
    """A CONNECT as Chromium sends it: the host always as a name."""
    raw = host.encode() if isinstance(host, str) else host
    return b"\x05\x01\x00\x03" + bytes([len(raw)]) + raw + port.to_bytes(2, "big")


async def ask(door: Door, message: bytes) -> tuple[trio.SocketStream, int]:
    """A client after its request, and the reply code."""
    client = await trio.open_tcp_stream("127.0.0.1", door.port)
    try:
        await client.send_all(b"\x05\x01\x00")
        assert await read(client, 2) == b"\x05\x00"
        await client.send_all(message)
        reply = await read(client, 10)
        assert (len(reply), reply[0]) == (10, 5)
    except BaseException:
        client.socket.close()
        raise
    return client, reply[1]


@asynccontextmanager
async def connected(door: Door, host: str, port: int) -> AsyncIterator[trio.SocketStream]:
    client, code = await ask(door, request(host, port))
    assert code == SUCCEEDED
    async with client:
        yield client


async def refused(door: Door, host: str | bytes, port: int) -> int:
    """The reply code of a failing request, after which the door must hang up."""
    client, code = await ask(door, request(host, port))
    async with client:
        assert await client.receive_some() == b""
    return code


def loopback() -> AddressPolicy:
    return AddressPolicy.parse(["127.0.0.0/8", "::1"])


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No descriptor outlives a test, and a test that hangs fails (also under a clock that stands still)."""

    def hung(*_: object) -> None:
        raise RuntimeError("the test hangs")

    before = os.listdir("/proc/self/fd")
    previous = signal.signal(signal.SIGALRM, hung)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    assert len(os.listdir("/proc/self/fd")) == len(before)


# ---- The relay: bytes ------------------------------------------------------------------------------------------------


async def test_door_passes_bytes_both_ways() -> None:
    async with serving() as server, open_door(loopback()) as door, connected(door, "127.0.0.1", server.port) as client:
        await client.send_all(bytes(range(256)))
        assert await read(client, 256) == bytes(range(256))


async def test_door_passes_a_big_transfer_unchanged() -> None:
    data = random.Random(1).randbytes(20_000_000)
    async with serving() as server, open_door(loopback()) as door, connected(door, "127.0.0.1", server.port) as client:

        async def upload() -> None:
            await client.send_all(data)
            await client.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            back = await read_all(client)
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()


async def test_door_passes_what_follows_the_request_at_once() -> None:
    async with serving() as server, open_door(loopback()) as door:
        client, _ = await ask(door, request("127.0.0.1", server.port) + b"early")
        async with client:
            assert await read(client, 5) == b"early"


async def test_door_takes_a_request_byte_by_byte() -> None:
    async with (
        serving() as server,
        open_door(loopback()) as door,
        await trio.open_tcp_stream("127.0.0.1", door.port) as client,
    ):
        for byte in b"\x05\x01\x00" + request("127.0.0.1", server.port) + b"!":
            await client.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert await read(client, 13) == b"\x05\x00\x05\x00\x00\x01" + bytes(6) + b"!"


async def test_door_takes_an_ipv4_address() -> None:
    async with serving() as server, open_door(loopback()) as door:
        client, code = await ask(door, b"\x05\x01\x00\x01\x7f\x00\x00\x01" + server.port.to_bytes(2, "big"))
        await client.aclose()
    assert (code, server.hits) == (SUCCEEDED, 1)


async def test_door_takes_an_ipv6_address() -> None:
    async with serving(host="::1") as server, open_door(loopback()) as door:
        client, code = await ask(door, b"\x05\x01\x00\x04" + bytes(15) + b"\x01" + server.port.to_bytes(2, "big"))
        await client.aclose()
    assert (code, server.hits) == (SUCCEEDED, 1)


async def test_door_takes_an_ipv6_literal_as_a_name() -> None:
    async with serving(host="::1") as server, open_door(loopback()) as door, connected(door, "::1", server.port):
        pass
    assert server.hits == 1


async def test_door_forwards_the_clients_half_close() -> None:
    async def answer_at_the_end(stream: trio.SocketStream) -> None:
        await stream.send_all(b"got " + await read_all(stream))

    async with (
        serving(answer_at_the_end) as server,
        open_door(loopback()) as door,
        connected(door, "127.0.0.1", server.port) as client,
    ):
        await client.send_all(b"all")
        await client.send_eof()
        assert await read_all(client) == b"got all"


async def test_door_forwards_the_servers_half_close() -> None:
    heard: list[bytes] = []

    async def end_first(stream: trio.SocketStream) -> None:
        await stream.send_eof()
        heard.append(await read_all(stream))

    async with (
        serving(end_first) as server,
        open_door(loopback()) as door,
        connected(door, "127.0.0.1", server.port) as client,
    ):
        assert await client.receive_some() == b""
        await client.send_all(b"still here")
        await client.send_eof()
        await trio.testing.wait_all_tasks_blocked()
    assert heard == [b"still here"]


async def test_door_ends_a_half_closed_connection_that_is_silent(mock_clock: trio.testing.MockClock) -> None:
    ended = trio.Event()

    async def never_close(stream: trio.SocketStream) -> None:
        await read_all(stream)
        ended.set()
        await trio.sleep_forever()

    async with (
        serving(never_close) as server,
        open_door(loopback()) as door,
        connected(door, "127.0.0.1", server.port) as client,
    ):
        await client.send_eof()
        await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(egress.HALF_CLOSED_S)
        assert await client.receive_some() == b""


async def test_door_keeps_a_half_closed_connection_that_talks(mock_clock: trio.testing.MockClock) -> None:
    async def drip(stream: trio.SocketStream) -> None:
        await read_all(stream)
        for _ in range(3):
            await trio.sleep(egress.HALF_CLOSED_S * 0.75)
            await stream.send_all(b".")

    async with (
        serving(drip) as server,
        open_door(loopback()) as door,
        connected(door, "127.0.0.1", server.port) as client,
    ):
        await client.send_eof()
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(egress.HALF_CLOSED_S * 0.75)
            assert await client.receive_some() == b"."


async def test_door_keeps_an_open_connection_that_is_silent(mock_clock: trio.testing.MockClock) -> None:
    async with serving() as server, open_door(loopback()) as door, connected(door, "127.0.0.1", server.port) as client:
        for word in (b"before", b"after"):
            await client.send_all(word)
            assert await client.receive_some() == word
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(10_000)
            await trio.testing.wait_all_tasks_blocked()


# ---- The relay: resets -----------------------------------------------------------------------------------------------


async def broken_by(stream: trio.SocketStream) -> tuple[bytes, int | None]:
    """What came before the fault, and its errno; None for an orderly end."""
    data = b""
    try:
        while part := await stream.receive_some():
            data += part
    except trio.BrokenResourceError as error:
        return data, error.__cause__.errno if isinstance(error.__cause__, OSError) else 0
    return data, None


async def test_door_forwards_the_servers_reset_as_a_reset() -> None:
    async with (
        serving(reset) as server,
        open_door(loopback()) as door,
        connected(door, "127.0.0.1", server.port) as client,
    ):
        assert await broken_by(client) == (b"", errno.ECONNRESET)


async def test_door_records_the_servers_reset() -> None:
    async with (
        serving(reset) as server,
        open_door(loopback()) as door,
        connected(door, "127.0.0.1", server.port) as client,
    ):
        await broken_by(client)
        failure = door.ledger.failure_at("127.0.0.1", server.port)
    assert failure is not None
    assert failure.kind is FailureKind.connection_reset


async def test_door_delivers_what_came_before_a_reset() -> None:
    size = 100_000
    received = trio.Event()

    async def answer_and_reset(stream: trio.SocketStream) -> None:
        await stream.send_all(bytes(size))
        await received.wait()
        await reset(stream)

    async with serving(answer_and_reset) as server, open_door(loopback()) as door:
        with trio.socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the rest waits in the door's queue
            await sock.connect(("127.0.0.1", door.port))
            client = trio.SocketStream(sock)
            await client.send_all(b"\x05\x01\x00" + request("127.0.0.1", server.port))
            await read(client, 12)
            while door.ledger.bytes_received < size:
                await trio.testing.wait_all_tasks_blocked()
            received.set()
            await trio.testing.wait_all_tasks_blocked()
            assert await broken_by(client) == (bytes(size), errno.ECONNRESET)


@pytest.mark.parametrize("repeat", range(5))  # both copying tasks wake at once, in random order
async def test_door_delivers_the_answer_of_a_server_that_stops_reading(repeat: int) -> None:
    async def answer_unread(stream: trio.SocketStream) -> None:
        await read(stream, 1)
        await trio.testing.wait_all_tasks_blocked()
        os.write(stream.socket.fileno(), b"413")  # with the reset in one step: no task runs in between
        stream.socket.close()

    faults: list[int | None] = []
    async with (
        serving(answer_unread) as server,
        open_door(loopback()) as door,
        connected(door, "127.0.0.1", server.port) as client,
        trio.open_nursery() as nursery,
    ):

        async def upload() -> None:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await client.send_all(bytes(30_000_000))
            assert isinstance(caught.value.__cause__, OSError)
            faults.append(caught.value.__cause__.errno)

        nursery.start_soon(upload)
        answer, fault = await broken_by(client)
        faults.append(fault)
    # The kernel tells of a reset once, to whichever asks first.
    assert (answer, errno.ECONNRESET in faults) == (b"413", True)


async def test_door_forwards_the_clients_reset() -> None:
    seen: list[tuple[bytes, int | None]] = []
    over = trio.Event()

    async def listen(stream: trio.SocketStream) -> None:
        seen.append(await broken_by(stream))
        over.set()

    async with serving(listen) as server, open_door(loopback()) as door:
        async with connected(door, "127.0.0.1", server.port) as client:
            await reset(client)
        await over.wait()
    assert seen == [(b"", errno.ECONNRESET)]


async def test_door_blames_no_server_for_the_clients_reset() -> None:
    over = trio.Event()

    async def listen(stream: trio.SocketStream) -> None:
        await broken_by(stream)
        over.set()

    async with serving(listen) as server, open_door(loopback()) as door:
        async with connected(door, "127.0.0.1", server.port) as client:
            await reset(client)
        await over.wait()
    assert door.ledger.failures == {}


# ---- The relay: what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "localhost", "::ffff:127.0.0.1", "named.example"])
async def test_door_refuses_before_any_connection(host: str) -> None:
    Resolver(["127.0.0.1"])
    async with serving() as server, open_door(AddressPolicy()) as door:
        code = await refused(door, host, server.port)
    assert (code, server.hits) == (NOT_ALLOWED, 0)


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.1"])
async def test_door_refuses_local_hosts_without_a_lookup(host: str) -> None:
    resolver = Resolver(["127.0.0.1"])
    async with open_door(AddressPolicy()) as door:
        await refused(door, host, 80)
    assert resolver.asked == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("host", ["localhost", "a.LocalHost."])
async def test_door_reaches_local_hosts_without_a_lookup_if_allowed(host: str, address: str) -> None:
    resolver = Resolver([])
    async with (
        serving(host=address) as server,
        open_door(AddressPolicy.parse(["localhost", "a.localhost"])) as door,
        connected(door, host, server.port),
    ):
        pass
    assert (server.hits, resolver.asked) == (1, [])


async def test_door_records_a_refusal() -> None:
    Resolver(["10.0.0.1"])
    async with open_door(AddressPolicy()) as door:
        await refused(door, "Intranet.example.", 8080)
    assert door.ledger.blocked == ["intranet.example:8080"]


async def test_door_refusal_of_a_name_hides_its_address() -> None:
    Resolver(["10.0.0.1"])
    async with open_door(AddressPolicy()) as door:
        await refused(door, "intranet.example", 8080)
    failure = door.ledger.failure_at("intranet.example", 8080)
    assert failure is not None
    assert "10.0.0.1" not in failure.text


async def test_door_connects_to_the_address_it_judged() -> None:
    """A name that rebinds: the first answer may be reached, every later one is the victim's."""
    resolver = Resolver(["127.0.0.2"], ["127.0.0.1"])
    async with (
        serving() as victim,
        serving(host="127.0.0.2", port=victim.port) as allowed,
        open_door(AddressPolicy.parse(["127.0.0.2"])) as door,
    ):
        async with connected(door, "rebind.example", victim.port):
            pass
        assert (allowed.hits, victim.hits, len(resolver.asked)) == (1, 0, 1)


async def test_door_judges_every_connection_anew() -> None:
    Resolver(["127.0.0.2"], ["127.0.0.1"])
    async with (
        serving() as victim,
        serving(host="127.0.0.2", port=victim.port),
        open_door(AddressPolicy.parse(["127.0.0.2"])) as door,
    ):
        async with connected(door, "rebind.example", victim.port):
            pass
        assert await refused(door, "rebind.example", victim.port) == NOT_ALLOWED
    assert victim.hits == 0


async def test_door_leaves_refused_addresses_of_a_name_out() -> None:
    Resolver(["127.0.0.1", "127.0.0.2"])
    async with (
        serving() as victim,
        serving(host="127.0.0.2", port=victim.port) as allowed,
        open_door(AddressPolicy.parse(["127.0.0.2"])) as door,
        connected(door, "both.example", victim.port),
    ):
        pass
    assert (allowed.hits, victim.hits) == (1, 0)


async def test_door_passes_an_allowed_host_at_any_address() -> None:
    Resolver(["127.0.0.1"])
    async with (
        serving() as server,
        open_door(AddressPolicy.parse(["*.example"])) as door,
        connected(door, "intranet.example", server.port),
    ):
        pass
    assert server.hits == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "0.0.0.0", "named.example"])
async def test_door_refuses_own_ports_whatever_is_allowed(host: str) -> None:
    Resolver(["127.0.0.1"])
    policy = AddressPolicy.parse(["0.0.0.0/0", "named.example"])
    async with serving() as server, open_door(policy) as door:
        policy.own_ports.add(server.port)
        code = await refused(door, host, server.port)
    assert (code, server.hits) == (NOT_ALLOWED, 0)


def own_addresses() -> list[str]:
    """This host's, as far as they lead somewhere, and what else leads to a listener on all of them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((str(PUBLIC_V4), 9))
        lan = probe.getsockname()[0]
    return [lan, f"::ffff:{lan}", "0.0.0.0", "::", "::1", "127.0.0.1", "127.77.7.7", "::ffff:127.0.0.1", "localhost"]


async def test_door_refuses_a_service_on_all_addresses_under_every_one() -> None:
    policy = AddressPolicy.parse(["0.0.0.0/0", "::/0", "named.example"])
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as service:
        service.settimeout(0)
        port = service.getsockname()[1]
        policy.own_ports.add(port)
        async with open_door(policy) as door:
            for host in own_addresses():
                assert await refused(door, host, port) == NOT_ALLOWED
                Resolver([host] if host != "localhost" else ["127.0.0.1"])
                assert await refused(door, "named.example", port) == NOT_ALLOWED
        with pytest.raises(BlockingIOError):
            service.accept()


async def test_door_refuses_the_port_of_another_door() -> None:
    policy = loopback()
    async with open_door(policy) as door, open_door(policy) as other:
        assert await refused(door, "127.0.0.1", other.port) == NOT_ALLOWED


async def test_door_port_is_an_own_port_while_open() -> None:
    policy = AddressPolicy()
    async with open_door(policy) as door:
        assert policy.own_ports == {door.port}
    assert policy.own_ports == set()


@pytest.mark.parametrize(
    "message",
    [
        request("example.com", 22),
        request("example.com", 6379),
        request("localhost", 6379),
        b"\x05\x01\x00\x01\x08\x08\x08\x08" + (25).to_bytes(2, "big"),
        b"\x05\x01\x00\x04" + PUBLIC_V6.packed + (11211).to_bytes(2, "big"),
    ],
)
async def test_door_refuses_ports_before_any_lookup(message: bytes) -> None:
    resolver = Resolver(["8.8.8.8"])
    async with open_door(loopback()) as door:
        client, code = await ask(door, message)
        await client.aclose()
    assert (code, resolver.asked, door.ledger.refused) == (NOT_ALLOWED, [], 1)


async def test_door_opens_a_port_that_is_allowed() -> None:
    async with serving() as server, open_door(AddressPolicy.parse([f"127.0.0.1:{server.port}"])) as door:
        async with connected(door, "127.0.0.1", server.port):
            pass
        assert await refused(door, "127.0.0.1", server.port + 1) == NOT_ALLOWED


async def test_doors_of_one_number_are_both_own_ports() -> None:
    """The service may listen on the door's number at another address, and outlives the door."""
    policy = loopback()
    async with open_door(policy) as door:
        policy.own_ports.add(door.port)
    assert policy.judge(IPv4Address("127.0.0.1"), door.port)


@pytest.mark.parametrize(
    "answers",
    [["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["127.0.0.1"], ["169.254.1.1", "127.0.0.1", "::2"]],
)
async def test_refused_connection_tells_nothing_of_refused_addresses(answers: list[str]) -> None:
    """A name with addresses of both kinds: what is told is that of the one that may be reached, whatever the rest."""
    Resolver(answers)
    port = unused_port()
    failure = await egress.connect(AddressPolicy.parse(["127.0.0.1"]), "both.example", port)
    assert failure == Failure(FailureKind.connection_refused, "both.example refused the connection")


@pytest.mark.parametrize("answers", [["10.0.0.1"], ["127.0.0.1"], ["169.254.169.254", "fd00::1"], ["::ffff:10.0.0.1"]])
async def test_refusal_of_a_name_is_the_same_for_every_address(answers: list[str]) -> None:
    Resolver(answers)
    failure = await egress.connect(AddressPolicy(), "inside.example", 80)
    text = "inside.example does not lead to a public address; --allow-network inside.example would allow it"
    assert failure == Failure(FailureKind.blocked, text)


# ---- The relay: how much ---------------------------------------------------------------------------------------------


async def flood(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(bytes(100_000))


def limited(max_bytes: int) -> AddressPolicy:
    return AddressPolicy.parse(["127.0.0.0/8"], max_bytes=max_bytes)


async def test_door_cuts_all_connections_over_the_limit() -> None:
    async with serving(flood) as server, serving() as other, open_door(limited(10**7)) as door:
        async with connected(door, "127.0.0.1", other.port) as neighbour:
            async with connected(door, "127.0.0.1", server.port) as client:
                got, _ = await broken_by(client)
            assert (await broken_by(neighbour))[0] == b""
        assert len(got) <= 10**7
        assert 10**7 < door.ledger.bytes_received <= 10**7 + egress.CHUNK_BYTES


async def test_door_exceeds_the_limit_by_a_chunk_for_each_connection_at_most() -> None:
    limit, clients = 10**7, 20
    ready = trio.Event()

    async def flood_together(stream: trio.SocketStream) -> None:
        await ready.wait()
        await flood(stream)

    async with serving(flood_together) as server, open_door(limited(limit)) as door, AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connected(door, "127.0.0.1", server.port)) for _ in range(clients)]
        ready.set()
        async with trio.open_nursery() as nursery:
            for client in opened:
                nursery.start_soon(broken_by, client)
    assert limit < door.ledger.bytes_received <= limit + clients * egress.CHUNK_BYTES


async def test_door_counts_what_is_sent_against_the_limit() -> None:
    async with serving(read_all) as server, open_door(limited(10**6)) as door:
        async with connected(door, "127.0.0.1", server.port) as client:
            with pytest.raises(trio.BrokenResourceError):
                await client.send_all(bytes(10**8))
    assert door.ledger.bytes_sent <= 10**6 + egress.CHUNK_BYTES


async def test_door_over_the_limit_takes_no_client() -> None:
    async with serving(flood) as server, open_door(limited(10**5)) as door:
        async with connected(door, "127.0.0.1", server.port) as client:
            await broken_by(client)
        with pytest.raises(OSError, match="attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", door.port)
    assert server.hits == 1


async def test_door_has_no_limit_without_one() -> None:
    policy = AddressPolicy.parse(["127.0.0.0/8"], max_bytes=None)
    async with serving() as server, open_door(policy) as door, connected(door, "127.0.0.1", server.port) as client:
        await client.send_all(b"x")
        assert await client.receive_some() == b"x"


# ---- The relay: failures ---------------------------------------------------------------------------------------------


async def kind_of_failure(door: Door, host: str, port: int) -> tuple[int, FailureKind]:
    code = await refused(door, host, port)
    failure = door.ledger.failure_at(host, port)
    assert failure is not None
    return code, failure.kind


async def test_door_reports_a_name_without_address() -> None:
    Resolver([])
    async with open_door(loopback()) as door:
        result = await kind_of_failure(door, "nowhere.example", 80)
    assert result == (HOST_UNREACHABLE, FailureKind.name_not_resolved)


@pytest.mark.parametrize(
    "host", ["", ".", "a..b", "a" * 64, ".".join(["a" * 60] * 4 + ["a" * 11]), "a b", "a\0b", "\x7f"]
)
async def test_door_never_looks_up_what_is_no_name(host: str) -> None:
    resolver = Resolver(["127.0.0.1"])
    async with open_door(loopback()) as door:
        result = await kind_of_failure(door, host, 80)
    assert (result, resolver.asked) == ((HOST_UNREACHABLE, FailureKind.name_not_resolved), [])


@pytest.mark.parametrize("raw", [b"\xff\xfe.example", b"\xed\xa0\x80", "b\u00fccher.example".encode()])
async def test_door_survives_names_that_are_not_ascii(raw: bytes) -> None:
    resolver = Resolver([])
    async with open_door(loopback()) as door:
        assert await refused(door, raw, 80) == HOST_UNREACHABLE
    assert resolver.asked[0].startswith("xn--")


async def test_door_reports_a_lookup_that_takes_too_long(mock_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(["never"])
    results: list[tuple[int, FailureKind]] = []
    async with open_door(loopback()) as door:

        async def client() -> None:
            results.append(await kind_of_failure(door, "slow.example", 80))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client)
            await resolver.started.wait()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(egress.RESOLVE_S)
    assert results == [(HOST_UNREACHABLE, FailureKind.name_not_resolved)]


async def test_door_limits_its_simultaneous_lookups() -> None:
    resolver = Resolver(["never"])
    async with open_door(loopback()) as door, open_tasks() as tasks:
        for number in range(egress.MAX_LOOKUPS + 3):
            tasks.start_soon(ask, door, request(f"{number}.slow.example", 80))
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert len(resolver.asked) == egress.MAX_LOOKUPS


async def test_door_connects_to_a_literal_while_lookups_are_slow() -> None:
    resolver = Resolver(["never"])
    async with serving() as server, open_door(loopback()) as door, open_tasks() as tasks:
        for number in range(egress.MAX_LOOKUPS):
            tasks.start_soon(ask, door, request(f"{number}.slow.example", 80))
        while len(resolver.asked) < egress.MAX_LOOKUPS:
            await trio.testing.wait_all_tasks_blocked()
        async with connected(door, "127.0.0.1", server.port):
            pass
    assert server.hits == 1


async def test_door_reports_a_refused_connection() -> None:
    async with open_door(loopback()) as door:
        result = await kind_of_failure(door, "127.0.0.1", unused_port())
    assert result == (REFUSED_REPLY, FailureKind.connection_refused)


async def test_door_reports_a_connection_that_takes_too_long(mock_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(["127.0.0.2"])
    results: list[tuple[int, FailureKind]] = []
    async with silence("127.0.0.2") as port, open_door(loopback()) as door:

        async def client() -> None:
            results.append(await kind_of_failure(door, "silent.example", port))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client)
            await resolver.started.wait()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(egress.CONNECT_S)
    assert results == [(EXPIRED, FailureKind.timed_out)]


async def test_door_reports_an_unreachable_address() -> None:
    async with open_door(AddressPolicy.parse(["255.255.255.255"])) as door:
        result = await kind_of_failure(door, "255.255.255.255", 80)
    assert result == (NET_UNREACHABLE, FailureKind.unreachable)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ECONNREFUSED, FailureKind.connection_refused),
        (errno.ECONNRESET, FailureKind.connection_reset),
        (errno.EPIPE, FailureKind.connection_reset),
        (errno.ETIMEDOUT, FailureKind.timed_out),
        (errno.ENETUNREACH, FailureKind.unreachable),
        (errno.EHOSTUNREACH, FailureKind.unreachable),
        (errno.EMFILE, FailureKind.unreachable),
        (None, FailureKind.unreachable),
    ],
)
def test_failure_of_an_errno_has_its_kind(number: int | None, kind: FailureKind) -> None:
    assert egress._failure(None if number is None else OSError(number, "text"), "example.com").kind is kind


async def test_door_success_clears_the_failure() -> None:
    port = unused_port()
    async with open_door(loopback()) as door:
        await refused(door, "127.0.0.1", port)
        async with serving(port=port), connected(door, "127.0.0.1", port):
            assert door.ledger.failures == {}


async def test_door_counts_connections_and_bytes() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await read(stream, 5)
        await stream.send_all(bytes(70_000))

    async with serving(answer) as server, open_door(loopback()) as door:
        await refused(door, "10.0.0.1", 80)
        async with connected(door, "127.0.0.1", server.port) as client:
            await client.send_all(b"12345")
            await read_all(client)
    assert (door.ledger.connections, door.ledger.bytes_sent, door.ledger.bytes_received) == (1, 5, 70_000)


# ---- The relay: several addresses ------------------------------------------------------------------------------------


async def test_door_tries_the_next_address_after_a_refusal() -> None:
    Resolver(["127.0.0.2", "127.0.0.1"])
    async with serving() as server, open_door(loopback()) as door, connected(door, "two.example", server.port):
        pass
    assert server.hits == 1


async def test_door_tries_the_next_address_beside_a_silent_one(mock_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(["127.0.0.2", "127.0.0.1"])
    async with (
        serving() as server,
        silence("127.0.0.2", server.port),
        open_door(loopback()) as door,
        trio.open_nursery() as nursery,
    ):

        async def client() -> None:
            async with connected(door, "two.example", server.port):
                pass

        nursery.start_soon(client)
        await resolver.started.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert server.hits == 0
        mock_clock.jump(egress.STAGGER_S)
    assert server.hits == 1


async def test_door_limits_the_addresses_it_tries_at_once(
    mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "MAX_DIALS", 1)
    resolver = Resolver(["127.0.0.2", "127.0.0.1"])
    async with serving() as server, silence("127.0.0.2", server.port), open_door(loopback()) as door:
        async with open_tasks() as tasks:
            tasks.start_soon(ask, door, request("two.example", server.port))
            await resolver.started.wait()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(egress.STAGGER_S)
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert server.hits == 0


async def test_door_takes_both_families_by_turns(mock_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(["127.0.0.2", "127.0.0.3", "::1"])
    async with (
        serving(host="::1") as server,
        silence("127.0.0.2", server.port),
        silence("127.0.0.3", server.port),
        open_door(loopback()) as door,
        trio.open_nursery() as nursery,
    ):

        async def client() -> None:
            async with connected(door, "three.example", server.port):
                pass

        nursery.start_soon(client)
        await resolver.started.wait()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(egress.STAGGER_S)  # one step: the second address is the one of the other family
    assert server.hits == 1


async def test_door_tries_a_bounded_number_of_addresses() -> None:
    Resolver([f"127.0.1.{number}" for number in range(egress.MAX_ADDRESSES)] + ["127.0.0.1"])
    async with serving() as server, open_door(loopback()) as door:
        code = await refused(door, "many.example", server.port)
    assert (code, server.hits) == (REFUSED_REPLY, 0)


async def test_door_reports_the_host_that_said_no_before_an_unreachable_one() -> None:
    Resolver(["255.255.255.255", "127.0.0.1"])
    async with open_door(AddressPolicy.parse(["0.0.0.0/0"])) as door:
        result = await kind_of_failure(door, "two.example", unused_port())
    assert result == (REFUSED_REPLY, FailureKind.connection_refused)


# ---- The relay: clients ----------------------------------------------------------------------------------------------


async def converse(door: Door, data: bytes) -> bytes:
    """What the door says to a client that sends all its data at once."""
    async with await trio.open_tcp_stream("127.0.0.1", door.port) as client:
        with suppress(trio.BrokenResourceError):  # the door may hang up on the first bytes
            await client.send_all(data)
            await client.send_eof()
        answer, _ = await broken_by(client)
    return answer


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", b""),
        (b"\x05", b""),
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b""),  # SOCKS4
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\x05\x00", b"\x05\xff"),
        (b"\x05\x01\x02", b"\x05\xff"),  # only with a password
        (b"\x05\x02\x02\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", b"\x05\x00\x05\x07"),  # BIND
        (b"\x05\x01\x00\x05\x03\x00\x03\x01a\x00\x50", b"\x05\x00\x05\x07"),  # UDP
        (b"\x05\x01\x00\x05\x01\x00\x09\x01a\x00\x50", b"\x05\x00\x05\x08"),  # no such address type
        (b"\x05\x01\x00\x04\x01\x00\x03\x01a\x00\x50", b"\x05\x00"),
        (b"\x05\x01\x00\x05\x01\x00\x03\xffabc", b"\x05\x00"),
    ],
)
async def test_door_answers_a_bad_handshake(data: bytes, answer: bytes) -> None:
    async with open_door(loopback()) as door:
        said = await converse(door, data)
    assert said[:4] == answer


@same_inputs
@given(
    st.binary(max_size=40)
    | st.binary(max_size=40).map(b"\x05\x01\x00".__add__)
    | st.binary(max_size=40).map(b"\x05\x01\x00\x05\x01\x00\x03".__add__)
)
async def test_door_serves_the_next_client_after_garbage(garbage: bytes) -> None:
    Resolver([])
    async with serving() as server, open_door(loopback()) as door:
        await converse(door, garbage)
        async with connected(door, "127.0.0.1", server.port) as client:
            await client.send_all(b"!")
            assert await client.receive_some() == b"!"


async def test_door_serves_the_next_client_after_a_reset_in_the_handshake() -> None:
    async with serving() as server, open_door(loopback()) as door:
        async with await trio.open_tcp_stream("127.0.0.1", door.port) as client:
            await client.send_all(b"\x05\x01\x00")
            await read(client, 2)
            await reset(client)
        async with connected(door, "127.0.0.1", server.port):
            pass


async def test_door_drops_a_client_whose_handshake_takes_too_long(mock_clock: trio.testing.MockClock) -> None:
    async with open_door(loopback()) as door, await trio.open_tcp_stream("127.0.0.1", door.port) as client:
        await client.send_all(b"\x05\x01\x00")
        await read(client, 2)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(egress.HANDSHAKE_S)
        assert await client.receive_some() == b""


async def test_door_lets_clients_over_its_limit_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "MAX_CONNECTIONS", 1)
    order: list[str] = []
    async with serving() as server, open_door(loopback()) as door, trio.open_nursery() as nursery:

        async def second() -> None:
            async with connected(door, "127.0.0.1", server.port):
                order.append("second served")

        async with connected(door, "127.0.0.1", server.port):
            nursery.start_soon(second)
            await trio.testing.wait_all_tasks_blocked(0.05)
            order.append("first leaves")
    assert order == ["first leaves", "second served"]


async def test_door_frees_its_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "MAX_CONNECTIONS", 1)
    async with serving(reset) as server, open_door(loopback()) as door:
        await converse(door, b"GET / HTTP/1.1\r\n\r\n")
        await refused(door, "10.0.0.1", 80)
        async with connected(door, "127.0.0.1", server.port) as client:
            await broken_by(client)
        assert await refused(door, "10.0.0.1", 80) == NOT_ALLOWED


async def test_door_accepts_again_after_running_out_of_descriptors(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "MAX_CONNECTIONS", 1)

    class Listener(trio.abc.Listener[trio.SocketStream]):
        calls = 0

        async def accept(self) -> trio.SocketStream:
            self.calls += 1
            if self.calls == 1:
                raise OSError(errno.EMFILE, "Too many open files")
            return await trio.sleep_forever()

        async def aclose(self) -> None:
            raise NotImplementedError

    listener = Listener()
    async with open_tasks() as tasks:
        tasks.start_soon(Door(AddressPolicy(), 1)._accept, listener, tasks)  # type: ignore[arg-type]  # a fake listener
        await trio.sleep(egress.ACCEPT_RETRY_S * 1.5)
        assert listener.calls == 2


# ---- The relay: its end ----------------------------------------------------------------------------------------------


async def test_door_has_a_proxy_url() -> None:
    async with open_door(AddressPolicy()) as door:
        assert door.proxy_url == f"socks5://127.0.0.1:{door.port}"


async def test_door_listens_on_loopback_only() -> None:
    async with open_door(AddressPolicy()) as door:
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.2", door.port)


async def test_door_drops_open_connections_on_close() -> None:
    async with serving(stay) as server:
        async with open_door(loopback()) as door:
            client, _ = await ask(door, request("127.0.0.1", server.port))
        with trio.fail_after(5):
            async with client:
                assert await client.receive_some() == b""


async def test_door_drops_its_server_connections_on_close() -> None:
    over = trio.Event()

    async def listen(stream: trio.SocketStream) -> None:
        await broken_by(stream)
        over.set()

    async with serving(listen) as server:
        async with open_door(loopback()) as door:
            client, _ = await ask(door, request("127.0.0.1", server.port))
        with trio.fail_after(5):
            await over.wait()
        await client.aclose()


async def test_door_closes_at_once_with_a_full_pipe() -> None:
    async def flood(stream: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(bytes(50_000_000))

    async with serving(flood) as server:
        with trio.fail_after(5):
            async with open_door(loopback()) as door:
                client, _ = await ask(door, request("127.0.0.1", server.port))
                await trio.testing.wait_all_tasks_blocked(0.05)
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.parametrize("stage", ["lookup", "connect"])
async def test_door_closes_at_once_during_a(stage: str) -> None:
    resolver = Resolver(["never"] if stage == "lookup" else ["127.0.0.2", "127.0.0.3"])
    async with silence("127.0.0.2") as port, silence("127.0.0.3", port), open_tasks() as tasks:
        with trio.fail_after(5):
            async with open_door(loopback()) as door:

                async def client() -> None:
                    async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
                        await stream.send_all(b"\x05\x01\x00" + request("slow.example", port))
                        await broken_by(stream)

                tasks.start_soon(client)
                await resolver.started.wait()
                await trio.testing.wait_all_tasks_blocked()


async def test_dial_closes_the_connection_if_cancelled_just_then(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = trio.CancelScope()
    make_stream = trio.SocketStream

    def cancel_and_make(sock: trio.socket.SocketType) -> trio.SocketStream:
        scope.cancel()
        return make_stream(sock)

    async with serving() as server:
        monkeypatch.setattr(trio, "SocketStream", cancel_and_make)
        with scope:
            await egress._dial([ip_address("127.0.0.1")], functools.partial(egress._reach, port=server.port))
    assert scope.cancelled_caught  # and nothing_left


async def test_door_accepts_no_one_after_close() -> None:
    async with open_door(AddressPolicy()) as door:
        pass
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", door.port)


async def test_door_leaves_the_bodys_exception_as_it_is() -> None:
    policy = AddressPolicy()
    with pytest.raises(ZeroDivisionError):
        async with open_door(policy):
            raise ZeroDivisionError
    assert policy.own_ports == set()


async def test_door_closes_when_cancelled() -> None:
    policy = loopback()
    async with serving(stay) as server:
        with trio.CancelScope() as scope:
            async with open_door(policy) as door:
                client, _ = await ask(door, request("127.0.0.1", server.port))
                scope.cancel()
                await trio.sleep_forever()
        await client.aclose()
    assert (scope.cancelled_caught, policy.own_ports) == (True, set())
