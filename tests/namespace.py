"""A network of one's own: an internet in which every address leads to this process, a name server of choice, every
packet seen.

For a process that `unshare --net --mount` started (see `command`): that is the machine under test. A second namespace,
joined by a pair of virtual interfaces, is the rest of the world.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TypeVar

import trio

T = TypeVar("T")

RESOLV_CONF = Path("/etc/resolv.conf")
# As root, else in a user namespace too.
_WAYS = (("unshare", "--net", "--mount"), ("unshare", "--user", "-r", "--net", "--mount"))
_CLONE_NEWNET = 0x40000000
_UP, _SIOCSIFFLAGS = 0x1, 0x8914
_NEWLINK, _NEWADDR, _NEWROUTE = 16, 20, 24
_ACKNOWLEDGED_REQUEST, _CREATE = 0x1 | 0x4, 0x400
_NO_DUPLICATES_SOUGHT = 0x02
# Of this machine, as a server on the internet has them; and of its router.
OWN_V4, OWN_V6 = "93.184.216.1", "2606:2800:220:1::1"
_HERE = {socket.AF_INET: (OWN_V4, 24), socket.AF_INET6: (OWN_V6, 64)}
_THERE = {socket.AF_INET: ("93.184.216.2", 24), socket.AF_INET6: ("2606:2800:220:1::2", 64)}
_ETH_P_ALL, _OUTGOING, _SO_ATTACH_FILTER = 3, 4, 26
_MARK = ("127.0.0.53", 9999)


@functools.cache
def command() -> tuple[str, ...] | None:
    """What a command must be preceded by to run in new namespaces; None where this user can have none that work."""
    for way in _WAYS:
        # What a container's profile or another kernel may refuse shows only when it is tried.
        trial = [*way, sys.executable, "-m", "tests.namespace"]
        try:
            root = Path(__file__).parent.parent
            if subprocess.run(trial, cwd=root, capture_output=True, timeout=20).returncode == 0:
                return way
        except (OSError, subprocess.TimeoutExpired):
            pass
    return None


class Outside:
    """The rest of the world: whatever is not this machine's own address is an address there."""

    def __init__(self, name_server: str, folder: Path) -> None:
        file = folder / "resolv.conf"
        file.write_text(f"nameserver {name_server}\nsearch corp.test\n")
        subprocess.run(["mount", "--bind", str(file), str(RESOLV_CONF)], check=True, timeout=20)
        self._namespace = _in_thread(_new_namespace)
        _add_pair(self._namespace)
        # An address that comes by itself, a second later, is a change of the network: Chromium then ends what it does.
        _set_no_address("v0")
        for interface in ("lo", "v0"):
            _switch_on(interface)
        for family, (address, bits) in _HERE.items():
            _add_address("v0", family, address, bits)
        self.run(_set_up_outside)
        for family, (address, _) in _THERE.items():
            _add_route(family, "v0", via=address)

    def run(self, make: Callable[[], T]) -> T:
        """Call something out there; sockets that it makes stay there."""

        def call() -> T:
            _checked(_libc.setns(self._namespace, _CLONE_NEWNET))
            return make()

        return _in_thread(call)


_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _in_thread(make: Callable[[], T]) -> T:
    """Call something in a thread of its own, as the namespace belongs to the thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


def _new_namespace() -> int:
    _checked(_libc.unshare(_CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _set_up_outside() -> None:
    for interface in ("lo", "v1"):
        _switch_on(interface)
    for family, (address, bits) in _THERE.items():
        _add_address("v1", family, address, bits)
        _add_route(family, "lo")


def _switch_on(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", interface.encode(), _UP))


# rtnetlink(7)


def _ask(kind: int, body: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, _ACKNOWLEDGED_REQUEST | _CREATE, 1, 0) + body)
        (fault,) = struct.unpack_from("=i", sock.recv(4096), 16)
    if fault:
        raise OSError(-fault, f"netlink message {kind}: {errno.errorcode.get(-fault)}")


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _add_pair(namespace: int) -> None:
    """`ip link add v0 type veth peer name v1 netns ...`."""
    link = bytes(16)
    peer = link + _attribute(3, b"v1\0") + _attribute(28, struct.pack("=I", namespace))
    info = _attribute(1, b"veth\0") + _attribute(2, _attribute(1, peer))
    _ask(_NEWLINK, link + _attribute(3, b"v0\0") + _attribute(18, info))


def _set_no_address(interface: str) -> None:
    """`ip link set ... addrgenmode none`."""
    mode = _attribute(26, _attribute(socket.AF_INET6, _attribute(8, b"\x01")))
    _ask(_NEWLINK, struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(interface), 0, 0) + mode)


def _add_address(interface: str, family: int, address: str, bits: int) -> None:
    packed = ip_address(address).packed
    head = struct.pack("=BBBBI", family, bits, _NO_DUPLICATES_SOUGHT, 0, socket.if_nametoindex(interface))
    _ask(_NEWADDR, head + _attribute(2, packed) + _attribute(1, packed))


def _add_route(family: int, interface: str, via: str | None = None) -> None:
    """`ip route add default via ...`, or `ip route add local default`: every address is one of this namespace."""
    scope, kind = (0, 1) if via else (254, 2)
    gateway = _attribute(5, ip_address(via).packed) if via else b""
    # In the main table: in the local one, of IPv6, it would also take what goes back.
    head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 254, 4, scope, kind, 0)
    _ask(_NEWROUTE, head + gateway + _attribute(4, struct.pack("=I", socket.if_nametoindex(interface))))


# Classic BPF (socket(7)) on the IP header: every UDP packet, and of TCP those that open a connection.
_FILTER = [
    (0x30, 0, 0, 0),  # 0: the first byte
    (0x54, 0, 0, 0xF0),
    (0x15, 5, 0, 0x40),  # IPv4: to 8
    (0x30, 0, 0, 6),
    (0x15, 10, 0, 17),  # UDP: to 15
    (0x15, 0, 10, 6),  # not TCP: to 16
    (0x30, 0, 0, 53),
    (0x05, 0, 0, 5),  # to 13
    (0x30, 0, 0, 9),  # 8
    (0x15, 5, 0, 17),  # UDP: to 15
    (0x15, 0, 5, 6),  # not TCP: to 16
    (0xB1, 0, 0, 0),
    (0x50, 0, 0, 13),
    (0x54, 0, 0, 0x12),  # 13: SYN and ACK
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 64),  # 15: kept, so many bytes of it
    (0x06, 0, 0, 0),  # 16: passed over
]


class Sniffer:
    """Every datagram and every attempt to open a TCP connection on this machine, counted in `seen`."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str, int]] = Counter()
        """By protocol (`tcp`, `udp`), destination address and port; without what name servers answer."""
        self._marked = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with _open_sniffer() as plain:
            task_status.started()
            while True:
                await trio.lowlevel.wait_readable(plain)
                packet, (_, _, kind, *_) = plain.recvfrom(64)
                # What leaves; the loopback interface also shows it as what arrives.
                if kind == _OUTGOING:
                    self._note(packet)

    def _note(self, packet: bytes) -> None:
        if packet[0] >> 4 == 4:
            header, protocol, address = 4 * (packet[0] & 0xF), packet[9], str(IPv4Address(packet[16:20]))
        else:
            header, protocol, address = 40, packet[6], str(IPv6Address(packet[24:40]))
        from_port, port = struct.unpack_from("!HH", packet, header)
        if (address, port) == _MARK:
            self._marked.set()
        elif protocol == 6 or from_port != 53:
            self.seen["tcp" if protocol == 6 else "udp", address, port] += 1

    async def caught_up(self) -> None:
        """Return once everything that was sent before has been counted."""
        self._marked = trio.Event()
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.sendto(b"", _MARK)
        await self._marked.wait()


def _open_sniffer() -> socket.socket:
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _FILTER))
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
    pointer = struct.pack("@HP", len(_FILTER), ctypes.addressof(program))
    sniffer.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)
    sniffer.setblocking(False)
    return sniffer


def main() -> None:
    """Fail where any part of this does not work."""
    with tempfile.TemporaryDirectory() as folder, _open_sniffer():
        outside = Outside("127.0.0.53", Path(folder))
        for address, family in (("10.1.2.3", socket.AF_INET), ("fd00::9", socket.AF_INET6)):
            with outside.run(functools.partial(socket.create_server, ("", 80), family=family)):
                socket.create_connection((address, 80), timeout=5).close()


if __name__ == "__main__":
    main()
