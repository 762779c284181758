"""The operator's own proxy on the way out: its setting, and how it is asked for a connection (CONNECT, or SOCKS5)."""

from __future__ import annotations

import errno
import re
import socket
from base64 import b64encode
from typing import Literal
from urllib.parse import unquote, urlsplit

import attrs
import trio

MAX_HEAD_BYTES = 2**14
"""Of the answer to a CONNECT; those of Squid have some hundred."""

_HOST = re.compile(r"[!-~]{1,253}")
# What a SOCKS5 proxy says of the host, not of itself (RFC 1928 section 6).
_HOST_FAULTS = {3: errno.ENETUNREACH, 4: errno.EHOSTUNREACH, 5: errno.ECONNREFUSED, 6: errno.ETIMEDOUT}


class ProxyFault(OSError):
    """The proxy gave no connection; the text has neither its credentials nor the address it was asked for."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the proxy (--proxy) {what}")


@attrs.frozen
class Proxy:
    """Where all connections go out, and whether names are left to it; made by `Proxy.parse`."""

    scheme: Literal["http", "socks5"]
    host: str
    port: int
    username: str | None = attrs.field(default=None, repr=False)
    password: str = attrs.field(default="", repr=False)
    resolves: bool = False
    """Names are handed over as they are (`--proxy-dns`); else it is given nothing but judged addresses."""

    @classmethod
    def parse(cls, url: str, *, resolves: bool = False) -> Proxy:
        """The proxy of `http://[user:password@]host:port` or `socks5://...`; the two parts percent-encoded if need be.

        Raises ValueError that names every fault and repeats nothing of the URL, which may hold a password.
        """
        scheme, separator, rest = url.strip().partition("://")
        scheme = scheme.lower()
        if not separator or scheme not in ("http", "socks5"):
            why = "; --proxy-dns leaves names to it" if scheme == "socks5h" else ""
            raise ValueError(f"must begin with http:// or socks5://{why}")
        faults = []
        userinfo, at, place = rest.rpartition("@")
        try:
            parts = urlsplit(f"//{place}")
            host, path = parts.hostname or "", parts.path + parts.query + parts.fragment
        except ValueError:
            host, path = "", ""
        if path not in ("", "/"):
            faults.append("must end with the port; in a user name or a password, / ? # @ : and % are written as %XX")
        if not _HOST.fullmatch(host):
            faults.append("has no valid host")
        number = re.search(r":([0-9]{1,5})/?\Z", place)
        port = int(number[1]) if number else 0
        if not 0 < port < 2**16:
            faults.append("has no port between 1 and 65535")
        name, _, word = userinfo.partition(":")
        username, password = unquote(name), unquote(word)
        if scheme == "http" and ":" in username:
            faults.append("has a user name with a colon, which HTTP cannot tell")
        if scheme == "socks5" and at and not all(0 < len(part.encode()) < 256 for part in (username, password)):
            faults.append("must have a user name and a password of 1 to 255 bytes for SOCKS5, or neither")
        if faults:
            raise ValueError("; ".join(faults))
        kind: Literal["http", "socks5"] = "http" if scheme == "http" else "socks5"
        return cls(kind, host, port, username if at else None, password, resolves)


async def ask(proxy: Proxy, stream: trio.SocketStream, host: str, port: int) -> None:
    """Have the proxy at the other end of a stream connect it to a host: an IP address, or a name in ASCII.

    Raises ProxyFault for the proxy's own faults, and another OSError for what it says of the host. Not one byte more
    than its answer is read. The caller closes, and bounds the time.
    """
    try:
        if proxy.scheme == "http":
            await _ask_http(proxy, stream, host, port)
        else:
            await _ask_socks(proxy, stream, host, port)
    except trio.BrokenResourceError:
        raise ProxyFault("hung up") from None


async def _ask_http(proxy: Proxy, stream: trio.SocketStream, host: str, port: int) -> None:
    """CONNECT (RFC 9110 section 9.3.6)."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.username is not None:
        credentials = b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    await stream.send_all("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # What follows the head is the host's: looked at first, and only the head taken.
        ahead = await _received(stream, MAX_HEAD_BYTES, socket.MSG_PEEK)
        end = (head + ahead).find(b"\r\n\r\n")
        head += await _received(stream, len(ahead) if end < 0 else end + 4 - len(head))
        if not head.startswith(b"HTTP/1."[: len(head)]):
            raise ProxyFault("answers something that is no HTTP")
        if len(head) > MAX_HEAD_BYTES:
            raise ProxyFault("answers with headers without end")
    status = re.match(rb"HTTP/1\.[0-9] ([0-9]{3})[ \r]", head)
    if status is None:
        raise ProxyFault("answers something that is no HTTP")
    code = int(status[1])
    if code in (401, 407):  # tinyproxy says the former of wrong ones
        told = "wants credentials" if proxy.username is None else "does not take the credentials"
        raise ProxyFault(f"{told} ({code})")
    if not 200 <= code < 300:
        raise ProxyFault(f"refused a CONNECT to port {port} ({code})")


async def _ask_socks(proxy: Proxy, stream: trio.SocketStream, host: str, port: int) -> None:
    """CONNECT of SOCKS5, with user name and password where there are some (RFC 1928, RFC 1929)."""
    await stream.send_all(b"\x05\x01\x00" if proxy.username is None else b"\x05\x02\x00\x02")
    version, method = await read_exactly(stream, 2)
    if version != 5:
        raise ProxyFault("answers something that is no SOCKS5")
    if method == 2 and proxy.username is not None:
        name, word = proxy.username.encode(), proxy.password.encode()
        await stream.send_all(bytes((1, len(name))) + name + bytes((len(word),)) + word)
        _, status = await read_exactly(stream, 2)
        if status != 0:
            raise ProxyFault("does not take the credentials")
    elif method != 0:
        raise ProxyFault("wants credentials" if proxy.username is None else "takes no user name and password")
    await stream.send_all(b"\x05\x01\x00" + _socks_host(host) + port.to_bytes(2, "big"))
    version, code, _, kind = await read_exactly(stream, 4)
    if version != 5:
        raise ProxyFault("answers something that is no SOCKS5")
    if code in _HOST_FAULTS:
        raise OSError(_HOST_FAULTS[code], "said the proxy")
    if code != 0:
        raise ProxyFault(f"refused a connection to port {port} (SOCKS5 reply {code})")
    # The address it connects from, which nobody needs.
    length = {1: 4, 4: 16}.get(kind)
    if length is None:
        (length,) = await read_exactly(stream, 1)
    await read_exactly(stream, length + 2)


def _socks_host(host: str) -> bytes:
    for kind, family in ((b"\x01", socket.AF_INET), (b"\x04", socket.AF_INET6)):
        try:
            return kind + socket.inet_pton(family, host)
        except OSError:
            pass
    return b"\x03" + bytes((len(host),)) + host.encode()


async def _received(stream: trio.SocketStream, count: int, flags: int = 0) -> bytes:
    try:
        data = await stream.socket.recv(count, flags)
    except OSError as error:
        raise trio.BrokenResourceError from error
    if not data:
        raise trio.BrokenResourceError("the other side left during the handshake")
    return data


async def read_exactly(stream: trio.SocketStream, count: int) -> bytes:
    """So many bytes and no more: what follows is the tunnel's. Raises BrokenResourceError at the other side's end."""
    data = b""
    while len(data) < count:
        data += await _received(stream, count - len(data))
    return data
