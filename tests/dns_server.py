"""Names that rebind: one table, answered by an authoritative DNS server or by a resolver inside the process."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import attrs
import trio

A, CNAME, AAAA = 1, 5, 28


@attrs.frozen
class Name:
    """What one name answers; the n-th question of a type gets the n-th turn, and after the last the first again."""

    v4: Sequence[Sequence[str]] = ()
    v6: Sequence[Sequence[str]] = ()
    cname: str | None = None


def name(*addresses: str) -> Name:
    """A name whose every answer has all these addresses."""
    v4 = [address for address in addresses if ":" not in address]
    v6 = [address for address in addresses if ":" in address]
    return Name([v4] if v4 else (), [v6] if v6 else ())


@attrs.define
class Zone:
    """All names there are, with a time to live of 0; `asked` has every question, in lower case."""

    names: dict[str, Name]
    asked: list[tuple[str, int]] = attrs.field(factory=list)
    _turns: Counter[tuple[str, int]] = attrs.field(factory=Counter)

    def answer(self, asked: str, kind: int) -> list[tuple[str, int, str]] | None:
        """The records (owner, type, value) for a question, CNAME first; None where there is no such name."""
        owner = asked.lower().rstrip(".")
        self.asked.append((owner, kind))
        found, records = self.names.get(owner), list[tuple[str, int, str]]()
        while found is not None and found.cname is not None:
            records.append((owner, CNAME, found.cname))
            owner = found.cname
            found = self.names.get(owner)
        if found is None:
            return None
        turns = {A: found.v4, AAAA: found.v6}.get(kind, ())
        if turns:
            turn = self._turns[owner, kind] % len(turns)
            self._turns[owner, kind] += 1
            records += [(owner, kind, value) for value in turns[turn]]
        return records


def _wire_name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def _wire_value(kind: int, value: str) -> bytes:
    return _wire_name(value) if kind == CNAME else ipaddress.ip_address(value).packed


def reply(zone: Zone, query: bytes) -> bytes:
    """The answer to one query (RFC 1035); raises ValueError, IndexError or struct.error for what is none."""
    at, labels = 12, list[str]()
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    kind, _ = struct.unpack_from("!HH", query, at + 1)
    records = zone.answer(".".join(labels), kind)
    # A response with authority, recursion as asked for; 3: no such name.
    flags = 0x8580 | (3 if records is None else 0)
    message = struct.pack("!2sHHHHH", query[:2], flags, 1, len(records or ()), 0, 0) + query[12 : at + 5]
    for owner, type_, value in records or ():
        data = _wire_value(type_, value)
        message += _wire_name(owner) + struct.pack("!HHIH", type_, 1, 0, len(data)) + data
    return message


async def serve(zone: Zone, host: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Answer queries over UDP at port 53 of an address."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind((host, 53))
        task_status.started()
        while True:
            query, client = await sock.recvfrom(4096)
            with suppress(ValueError, IndexError, struct.error):
                await sock.sendto(reply(zone, query), client)


class Resolver(trio.abc.HostnameResolver):
    """The same answers where no server can stand between: for `trio.socket.set_custom_hostname_resolver`."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    async def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        asked = host if isinstance(host, str) else host.decode()
        answers = [
            (socket.AF_INET6, type, 6, "", (value, port, 0, 0))
            if kind == AAAA
            else (socket.AF_INET, type, 6, "", (value, port))
            for question in (A, AAAA)
            for _, kind, value in self.zone.answer(asked, question) or ()
            if kind != CNAME
        ]
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answers

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


class ToThisMachine(trio.abc.HostnameResolver):
    """Every name leads to loopback, whatever it is."""

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError
