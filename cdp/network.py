"""URLs, origins, headers and cookies, as the protocol wants them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from .egress import canonical_host, host_literal
from .options import MAX_HEADER_CHARS, MAX_ITEMS, Cookie

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
# (The look ahead and what is possessive are never tried again: in place of two stars, whose time is quadratic.)
_BARE = re.compile(r"(?:(?=[^/?#@:]*\.)[^/?#@:]*+|localhost|\[[0-9A-Fa-f:.]+\])(?::[0-9]*+)?(?:[/?#]|$)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_BRACKETED = re.compile(r"\[[0-9A-Fa-f:.]+\](:[0-9]*)?")
_HOST = re.compile(r"[a-z0-9._-]+")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_AUTHORITY = re.compile(r"//([^/?#]*+)")
# Of user name, password and host, and of the host alone, which has 253 at most and three for each of them: what the
# rules of Unicode make of each takes its time.
_MAX_AUTHORITY_CHARS = 2**14
_MAX_HOST_CHARS = 1000
_DEFAULT_PORTS = {"http": 80, "https": 443}

# Set by the browser itself, or by a field of their own: in `headers` they would be ignored or would break the request.
REFUSED_HEADERS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "connection",
            "content-length",
            "expect",
            "host",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ),
        "is set by the browser",
    ),
    # Chromium 156 refuses these, or some of their values; the request would stay held up.
    **dict.fromkeys(
        ("cookie2", "set-cookie", "x-http-method", "x-http-method-override", "x-method-override"),
        "is refused by the browser",
    ),
    "cookie": "is set by the field cookies",
    "user-agent": "is set by the field user_agent",
}
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def parse_url(text: str) -> str:
    """The absolute http(s) URL that the text means, canonical in its scheme, host and port.

    A bare host name (with a dot, or `localhost`) means https. Raises ValueError with a reason. Stricter than browsers
    in one point: what they would read as another host than we do (backslashes, white space) is refused.
    """
    text = text.strip(" ")
    if _CONTROL.search(text):
        raise ValueError("has white space or control characters")
    if _BARE.match(text):
        text = f"https://{text}"
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise ValueError("is not an absolute http or https URL")
    if scheme[1].lower() not in _DEFAULT_PORTS:
        raise ValueError(f"scheme {scheme[1].lower()[:40]!r} is not allowed; http and https are")
    authority = _AUTHORITY.match(text, scheme.end())
    if authority is None or "\\" in authority[1]:
        raise ValueError("is not an absolute http or https URL")
    _check_length(authority[1], _MAX_AUTHORITY_CHARS, "user name, password and host")
    _check_length(authority[1].rpartition("@")[2], _MAX_HOST_CHARS, "a host name")
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        raise ValueError("has a port that is not a number between 0 and 65535") from None
    userinfo, at, host_and_port = parts.netloc.rpartition("@")
    if "[" in host_and_port and not _BRACKETED.fullmatch(host_and_port):
        raise ValueError("has no valid host name")
    host = _canonical_host(parts.hostname or "")
    netloc = userinfo + at + host
    if port is not None and port != _DEFAULT_PORTS[parts.scheme]:
        netloc += f":{port}"
    return parts._replace(netloc=netloc, path=parts.path or "/").geturl()


def _check_length(text: str, most: int, name: str) -> None:
    if len(text) > most:
        raise ValueError(f"has {name} of {len(text)} characters, at most {most} are allowed")


def _canonical_host(host: str) -> str:
    literal = host_literal(host)
    if literal is not None:
        return f"[{literal}]" if literal.version == 6 else str(literal)
    name = canonical_host(host)
    if "%" in host or not _HOST.fullmatch(name) or _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        raise ValueError("has no valid host name")
    return name


def endpoint_of(url: str) -> tuple[str, int]:
    """Host (no brackets) and port that the browser connects to for a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


def origin_of(url: str) -> str:
    """Scheme, host and port of a canonical URL, as the browser writes them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def without_credentials(url: str) -> str:
    """A URL without user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def credentials_of(url: str) -> tuple[str, str] | None:
    """User name and password of a canonical URL."""
    userinfo, at, _ = urlsplit(url).netloc.rpartition("@")
    name, _, password = userinfo.partition(":")
    return (unquote(name), unquote(password)) if at else None


def check_header(name: str, value: str) -> None:
    """Raise ValueError when a request cannot carry this header."""
    if not TOKEN.fullmatch(name):
        raise ValueError("is not a header name")
    reason = REFUSED_HEADERS.get(name.lower())
    if reason is None and name.lower().startswith(("proxy-", "sec-")):
        reason = "is set by the browser"
    if reason is not None:
        raise ValueError(reason)
    if (count := len(name) + len(value)) > MAX_HEADER_CHARS:
        raise ValueError(f"has {count} characters with its name, at most {MAX_HEADER_CHARS} are allowed")
    check_header_value(value)


def url_pattern(prefix: str) -> str:
    """A pattern of the Fetch domain for exactly the URLs that begin with this text."""
    return re.sub(r"([*?\\])", r"\\\1", prefix) + "*"


def merged_headers(own: Mapping[str, str], extra: Mapping[str, str]) -> list[dict[str, str]]:
    """A request's own headers with the extra ones over them, names compared without case."""
    replaced = {name.lower() for name in extra}
    kept = [(name, value) for name, value in own.items() if name.lower() not in replaced]
    return [{"name": name, "value": value} for name, value in (*kept, *extra.items())]


def parse_cookies(text: str) -> list[dict[str, str]]:
    """The cookies of a `"a=b; c=d"` string as `{name, value}`; raises ValueError."""
    cookies = []
    # One more than are allowed, so that too many are seen and a hostile text costs nothing.
    for part in text.split(";", MAX_ITEMS + 1):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"has no name=value in {part.strip()[:40]!r}")
        cookies.append({"name": name.strip(), "value": value.strip()})
    return cookies


def cookie_params(cookie: Cookie, page_url: str | None) -> dict[str, Any]:
    """One cookie as `Network.setCookies` takes it; it belongs to the page's URL unless it says otherwise."""
    owner = parse_url(cookie.url) if cookie.url else None if cookie.domain else page_url
    return {
        "name": cookie.name,
        "value": cookie.value,
        "secure": cookie.secure,
        "httpOnly": cookie.http_only,
        **({"url": owner} if owner else {}),
        **({"domain": cookie.domain} if cookie.domain else {}),
        **({"path": cookie.path} if cookie.path else {}),
        **({"expires": cookie.expires} if cookie.expires is not None else {}),
        **({"sameSite": cookie.same_site} if cookie.same_site else {}),
    }


_COOKIE_TEXT = re.compile(r"[^\x00-\x1f\x7f;]*")
# Name and value together; Chromium refuses more.
MAX_COOKIE_BYTES = 4096


def cookie_faults(cookie: Cookie) -> Iterator[tuple[str, str]]:
    """Field and fault for all that would make the browser refuse the cookie (RFC 6265bis, Chromium 156)."""
    for field in ("name", "value", "domain", "path"):
        if not _COOKIE_TEXT.fullmatch(getattr(cookie, field) or ""):
            yield field, "has a semicolon or a control character"
    for field in ("name", "value"):
        if (text := getattr(cookie, field)) != text.strip():
            yield field, "has white space at an end"
    if "=" in cookie.name:
        yield "name", "has an equals sign"
    if cookie.domain is not None and not cookie.domain.removeprefix(".").strip("."):
        yield "domain", "is no host name"
    if cookie.path is not None and not cookie.path.startswith("/"):
        yield "path", "must begin with a slash"
    if len(cookie.name.encode()) + len(cookie.value.encode()) > MAX_COOKIE_BYTES:
        yield "value", f"makes more than {MAX_COOKIE_BYTES} bytes with its name"
    if cookie.same_site == "None" and not cookie.secure:
        yield "secure", "must be true with same_site None, or the browser drops the cookie"
    prefix = cookie.name.lower()
    if prefix.startswith(("__secure-", "__host-")) and not cookie.secure:
        yield "secure", "must be true for a name with this prefix"
    if prefix.startswith(("__http-", "__host-http-")) and not (cookie.http_only and cookie.secure):
        yield "http_only", "must be true, and secure too, for a name with this prefix"
    if prefix.startswith("__host-") and (cookie.path != "/" or cookie.domain is not None):
        yield "path", 'must be "/", and domain left out, for a name with this prefix'


def check_header_value(text: str) -> None:
    """Raise ValueError for what no header can carry."""
    if not HEADER_VALUE.fullmatch(text):
        raise ValueError("has characters that a header cannot carry")
