"""cdp/network.py: URLs, origins, headers and cookies."""

from __future__ import annotations

import fnmatch
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp.network import (
    check_header,
    cookie_faults,
    cookie_params,
    endpoint_of,
    merged_headers,
    origin_of,
    parse_cookies,
    parse_url,
    url_pattern,
)
from cdp.options import Cookie

# The same inputs in every run, and nothing left in the checkout.
same_inputs = settings(derandomize=True, database=None, deadline=None, max_examples=500)

# URLs

url_parts = st.sampled_from(
    [
        *(
            "http",
            "https",
            "ftp",
            ":",
            "//",
            "/",
            "\\",
            "@",
            "[",
            "]",
            "::1",
            "fe80::1%25eth0",
            ".",
            "..",
            "?",
            "#",
            "&",
        ),
        *("%", "%2e", "%00", "=", "*", "+", "-", "_", "a", "b.c", "localhost", "xn--", "xn--a", "user:pass"),
        *(
            "127.0.0.1",
            "0x7f",
            "1",
            "00",
            "256",
            "65535",
            "65536",
            "99999999999",
            "é",
            "日本",
            "。",
            "．",
            "ß",
            "⅓",
            "０",
        ),
        *("\u00ad", "\u200d", "\ud800", "\x00", "\x7f", "\t", "\n", " "),
    ]
)
urls = st.one_of(
    st.text(max_size=40),
    st.lists(url_parts, max_size=12).map("".join),
    st.lists(url_parts, max_size=10).map(lambda parts: "http://" + "".join(parts)),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://example.com", "http://example.com/"),
        ("https://example.com/a/b?c=d#e", "https://example.com/a/b?c=d#e"),
        ("HTTP://EXAMPLE.Com/Path", "http://example.com/Path"),
        ("  http://example.com/ ", "http://example.com/"),
        ("http://example.com:80/", "http://example.com/"),
        ("https://example.com:443/", "https://example.com/"),
        ("https://example.com:80/", "https://example.com:80/"),
        ("http://example.com:/", "http://example.com/"),
        ("http://example.com:08080/", "http://example.com:8080/"),
        ("http://example.com./", "http://example.com/"),
        ("http://user:pass@example.com/", "http://user:pass@example.com/"),
        ("http://example.com?a", "http://example.com/?a"),
        ("http://example.com#a", "http://example.com/#a"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://日本語。jp/", "http://xn--wgv71a119e.jp/"),
        ("http://127.1/", "http://127.0.0.1/"),
        ("http://0x7f000001/", "http://127.0.0.1/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://017700000001/", "http://127.0.0.1/"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("http://[0:0::0:1]/", "http://[::1]/"),
        ("http://[::ffff:127.0.0.1]/", "http://127.0.0.1/"),
        ("http://a_b.example/", "http://a_b.example/"),
        ("http://example.com/a b".replace(" ", "%20"), "http://example.com/a%20b"),
        ("http://example.com/ü?ü#ü", "http://example.com/ü?ü#ü"),
        # A bare host name
        ("example.com", "https://example.com/"),
        ("example.com:8080/a", "https://example.com:8080/a"),
        ("Example.com?a=http://b/", "https://example.com/?a=http://b/"),
        ("localhost", "https://localhost/"),
        ("localhost:8000/a", "https://localhost:8000/a"),
        ("LOCALHOST:8000", "https://localhost:8000/"),
        ("127.0.0.1:8000", "https://127.0.0.1:8000/"),
        ("[::1]:8000", "https://[::1]:8000/"),
    ],
)
def test_parse_url_gives_the_canonical_one(text: str, expected: str) -> None:
    assert parse_url(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not an absolute"),
        ("   ", "not an absolute"),
        ("/path", "not an absolute"),
        ("//example.com/", "not an absolute"),
        ("example", "not an absolute"),
        ("example:8080", "'example' is not allowed"),
        ("http:example.com", "not an absolute"),
        ("http:/example.com", "not an absolute"),
        ("http:\\\\example.com", "not an absolute"),
        ("file:///etc/passwd", "'file' is not allowed"),
        ("FILE:///etc/passwd", "'file' is not allowed"),
        ("chrome://version", "'chrome' is not allowed"),
        ("data:text/html,a", "'data' is not allowed"),
        ("javascript:alert(1)", "'javascript' is not allowed"),
        ("view-source:http://example.com/", "'view-source' is not allowed"),
        ("about:blank", "'about' is not allowed"),
        ("blob:http://example.com/1", "'blob' is not allowed"),
        ("filesystem:http://example.com/", "'filesystem' is not allowed"),
        ("ftp://example.com/", "'ftp' is not allowed"),
        ("ws://example.com/", "'ws' is not allowed"),
        ("devtools://devtools/", "'devtools' is not allowed"),
        ("http://", "no valid host"),
        ("http:///path", "no valid host"),
        ("http://?a", "no valid host"),
        ("http://:80/", "no valid host"),
        ("http://user@/", "no valid host"),
        ("http://exa%6dple.com/", "no valid host"),
        ("http://exa mple.com/", "white space"),
        ("http://exam\tple.com/", "white space"),
        ("http://example.com/\n", "white space"),
        ("http://example.com/\0", "control"),
        ("java\nscript:alert(1)", "control"),
        ("http://example.com\\@evil.example/", "not an absolute"),
        ("http://a!b/", "no valid host"),
        ("http://<script>/", "no valid host"),
        ("http://example.com:99999/", "port"),
        ("http://example.com:a/", "port"),
        ("http://example.com:-1/", "port"),
        ("http://1.2.3.4.5/", "no valid host"),
        ("http://256.0.0.1/", "no valid host"),
        ("http://a.1/", "no valid host"),
        ("http://a.0x1/", "no valid host"),
        ("http://[::1/", "Invalid IPv6"),
        ("http://[::1]a/", "no valid host|IPv6"),
        ("http://a[::1]:80/", "no valid host|IPv6"),
        ("http://example.com[::1]/", "no valid host|IPv6"),
        ("http://[fe80::1%25eth0]/", "no valid host|IPv6"),
        ("http://::1/", "port|no valid host"),
    ],
)
def test_parse_url_refuses(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_url(text)


@same_inputs
@given(urls)
def test_parse_url_raises_nothing_but_value_errors(text: str) -> None:
    with suppress(ValueError):
        parse_url(text)


@same_inputs
@given(urls)
def test_parse_url_is_idempotent(text: str) -> None:
    try:
        url = parse_url(text)
    except ValueError:
        return
    assert parse_url(url) == url


@same_inputs
@given(urls)
def test_parse_url_gives_http_and_a_plain_host(text: str) -> None:
    try:
        url = parse_url(text)
    except ValueError:
        return
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    assert scheme in ("http", "https")
    assert host.isascii()
    assert host == host.lower()


@pytest.mark.parametrize("length", [10_000, 2**20])
def test_parse_url_takes_a_long_one(length: int) -> None:
    url = "http://example.com/" + "a" * length
    assert parse_url(url) == url


@pytest.mark.parametrize("text", ["http://" + "9" * 2**20, "http://a:" + "9" * 10_000, "a" * 2**20 + "://b/"])
def test_parse_url_repeats_no_long_text_in_its_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"^.{,100}$"):
        parse_url(text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.com/a", ("example.com", 80)),
        ("https://example.com/a", ("example.com", 443)),
        ("https://user:pass@example.com:8443/a", ("example.com", 8443)),
        ("http://[::1]:8080/", ("::1", 8080)),
        ("about:blank", ("", 0)),
    ],
)
def test_endpoint_of_is_host_and_port(url: str, expected: tuple[str, int]) -> None:
    assert endpoint_of(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.com/a?b#c", "http://example.com"),
        ("https://example.com:8443/a", "https://example.com:8443"),
        ("http://user:p%40ss@example.com/a", "http://example.com"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_origin_of_is_scheme_host_and_port(url: str, expected: str) -> None:
    assert origin_of(url) == expected


# Patterns of the Fetch domain: fnmatch reads `*` and `?` alike, and brackets instead of backslashes.


@pytest.mark.parametrize("prefix", ["http://example.com/", "http://a/?b=*", "http://a/x?", "http://a/\\d"])
def test_url_pattern_matches_what_begins_with_the_prefix(prefix: str) -> None:
    assert fnmatch.fnmatchcase(prefix + "rest", _as_glob(url_pattern(prefix)))


@pytest.mark.parametrize(
    ("prefix", "url"),
    [("http://a/x?y", "http://a/xzy"), ("http://a/*/b", "http://a/c/b"), ("http://a/", "https://a/")],
)
def test_url_pattern_matches_nothing_else(prefix: str, url: str) -> None:
    assert not fnmatch.fnmatchcase(url, _as_glob(url_pattern(prefix)))


def _as_glob(pattern: str) -> str:
    for character in "\\*?":
        pattern = pattern.replace("\\" + character, f"[{character}]")
    return pattern


# Headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Test", "value"),
        ("Authorization", "Bearer a.b.c"),
        ("x_1!#$%&'*+.^`|~-", ""),
        ("X-Test", "tab\tand space"),
        ("X-Test", "latin é"),
        ("Referer", "http://a/"),
    ],
)
def test_check_header_takes(name: str, value: str) -> None:
    check_header(name, value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("", "a", "not a header name"),
        ("X Test", "a", "not a header name"),
        ("X:Test", "a", "not a header name"),
        ("X-Tést", "a", "not a header name"),
        ("X-Test\n", "a", "not a header name"),
        (":path", "a", "not a header name"),
        ("Host", "a", "set by the browser"),
        ("HOST", "a", "set by the browser"),
        ("Content-Length", "1", "set by the browser"),
        ("Transfer-Encoding", "chunked", "set by the browser"),
        ("Connection", "close", "set by the browser"),
        ("Proxy-Authorization", "a", "set by the browser"),
        ("Sec-Fetch-Site", "none", "set by the browser"),
        ("Cookie", "a=b", "field cookies"),
        ("User-Agent", "a", "field user_agent"),
        ("X-Test", "a\r\nX-Other: b", "cannot carry"),
        ("X-Test", "a\n", "cannot carry"),
        ("X-Test", "a\0", "cannot carry"),
        ("X-Test", "日本", "cannot carry"),
        ("X-Test", "\x7f", "cannot carry"),
    ],
)
def test_check_header_refuses(name: str, value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_header(name, value)


@same_inputs
@given(st.text(max_size=10), st.text(max_size=10))
def test_check_header_lets_no_line_end_through(name: str, value: str) -> None:
    try:
        check_header(name, value)
    except ValueError:
        return
    assert not set(name + value) & set("\r\n\0")


def test_merged_headers_adds_to_a_request_s_own() -> None:
    assert merged_headers({"Accept": "*/*"}, {"X-Test": "1"}) == [
        {"name": "Accept", "value": "*/*"},
        {"name": "X-Test", "value": "1"},
    ]


def test_merged_headers_replaces_without_regard_to_case() -> None:
    assert merged_headers({"Accept": "*/*", "Origin": "null"}, {"ACCEPT": "text/html"}) == [
        {"name": "Origin", "value": "null"},
        {"name": "ACCEPT", "value": "text/html"},
    ]


# Cookies


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ; ", []),
        ("a=b", [("a", "b")]),
        ("a=b; c=d", [("a", "b"), ("c", "d")]),
        ("a=b;c=d;", [("a", "b"), ("c", "d")]),
        (" a = b ", [("a", "b")]),
        ("a=", [("a", "")]),
        ("a=b=c==", [("a", "b=c==")]),
        ('a="b c"', [("a", '"b c"')]),
    ],
)
def test_parse_cookies_reads(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(cookie["name"], cookie["value"]) for cookie in parse_cookies(text)] == expected


@pytest.mark.parametrize("text", ["a", "a=b; c", "=b", "a=b; =d"])
def test_parse_cookies_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="has no name=value"):
        parse_cookies(text)


def test_cookie_belongs_to_the_page_by_default() -> None:
    params = cookie_params(Cookie("a", "b"), "http://example.com/x")
    assert params == {"name": "a", "value": "b", "secure": False, "httpOnly": False, "url": "http://example.com/x"}


def test_cookie_with_a_domain_does_not_belong_to_the_page() -> None:
    params = cookie_params(Cookie("a", "b", domain=".example.org"), "http://example.com/x")
    assert (params["domain"], "url" in params) == (".example.org", False)


def test_cookie_with_a_url_belongs_to_that() -> None:
    assert cookie_params(Cookie("a", "b", url="http://o.example/"), "http://example.com/")["url"] == "http://o.example/"


def test_cookie_without_a_page_has_no_url() -> None:
    assert "url" not in cookie_params(Cookie("a", "b"), None)


def test_cookie_passes_every_attribute_on() -> None:
    cookie = Cookie("a", "b", path="/p", expires=0, http_only=True, secure=True, same_site="None")
    assert cookie_params(cookie, "https://example.com/") == {
        "name": "a",
        "value": "b",
        "url": "https://example.com/",
        "path": "/p",
        "expires": 0,
        "httpOnly": True,
        "secure": True,
        "sameSite": "None",
    }


@pytest.mark.parametrize(
    "name", ["Set-Cookie", "Cookie2", "X-HTTP-Method", "x-http-method-override", "X-Method-Override"]
)
def test_check_header_refuses_what_chromium_holds_up(name: str) -> None:
    with pytest.raises(ValueError, match="is refused by the browser"):
        check_header(name, "TRACE")


@pytest.mark.parametrize(
    ("field", "cookie"),
    [
        ("value", Cookie("a", " x")),
        ("domain", Cookie("a", "b", domain=".")),
        ("secure", Cookie("a", "b", same_site="None")),
        ("http_only", Cookie("__Http-a", "b", secure=True)),
    ],
)
def test_cookie_faults_name_what_chromium_refuses(field: str, cookie: Cookie) -> None:
    assert field in [name for name, _ in cookie_faults(cookie)]


def test_cookie_of_a_bare_host_gets_its_url() -> None:
    assert cookie_params(Cookie("a", "b", url="example.com"), None)["url"] == "https://example.com/"
