"""cdp/injection.py and cdp/interception.py: what is put into pages and their requests."""

from __future__ import annotations

from typing import Any

import pytest

import cdp
from cdp.errors import InvalidSelector, NavigationError, ScriptError
from cdp.options import Auth, PageOptions

from .site import AUTH_PASSWORD, AUTH_USER, OK_TEXT, Answer, Exchange, Site, open_site

CSP = ("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'")
VISIBLE = "id => getComputedStyle(document.getElementById(id)).visibility"
THERE = "id => document.getElementById(id) !== null"


async def dressed(page: cdp.Page, url: str, **options: Any) -> None:
    """Open a page with what the options put into it."""
    await page.prepare(PageOptions(url=url, **options))
    await page.navigate(url)
    await page.dress()
    await page.run_scripts()


# ---- Style sheets ----------------------------------------------------------------------------------------------------


async def test_css_is_added(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.url("/ok"), css=("body { color: rgb(1, 2, 3) }", "body { top: 5px }"))
    style = "() => [getComputedStyle(document.body).color, getComputedStyle(document.body).top]"
    assert await page.call(style) == ["rgb(1, 2, 3)", "5px"]


async def test_css_passes_the_page_s_policy(page: cdp.Page, site: Site) -> None:
    url = site.add("/strict", "<p>strict", headers=(CSP,))
    await dressed(page, url, css=("body { color: rgb(1, 2, 3) }",))
    assert await page.call("() => getComputedStyle(document.body).color") == "rgb(1, 2, 3)"


async def test_css_may_import(page: cdp.Page, site: Site) -> None:
    site.add("/more.css", "body { color: rgb(1, 2, 3) }", "text/css")
    await dressed(page, site.url("/ok"), css=("@import '/more.css';",))
    await page.settle()
    assert await page.call("() => getComputedStyle(document.body).color") == "rgb(1, 2, 3)"


async def test_css_is_added_without_javascript(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.url("/ok"), css=("body { color: rgb(1, 2, 3) }",), javascript=False)
    assert await page.call("() => getComputedStyle(document.body).color") == "rgb(1, 2, 3)"


async def test_css_follows_the_page_to_its_next_document(page: cdp.Page, site: Site) -> None:
    url = site.add("/moves", "<script>onload = () => setTimeout(() => { location = '/ok' }, 50)</script>")
    await dressed(page, url, css=("body { color: rgb(1, 2, 3) }",))
    await page.settle()
    assert (await page.info()).url == site.url("/ok")
    assert await page.call("() => getComputedStyle(document.body).color") == "rgb(1, 2, 3)"


async def test_css_is_added_once_to_a_document(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.url("/ok"), css=("p {}",))
    await page.settle()
    assert await page.call("() => document.adoptedStyleSheets.length") == 1


# ---- Elements --------------------------------------------------------------------------------------------------------

PARTS = '<p id="a">first</p><p id="b" class="x">second <b id="c" style="visibility:visible">inner</b></p><p id="d">last'


@pytest.mark.parametrize("selector", ["#b", ".x, #none", 'xpath=//p[@class="x"]', 'text="second inner"'])
async def test_hidden_elements_keep_their_room(page: cdp.Page, site: Site, selector: str) -> None:
    await dressed(page, site.add("/parts", PARTS), hide_selectors=(selector,))
    assert [await page.call(VISIBLE, one) for one in "abcd"] == ["visible", "hidden", "hidden", "visible"]
    assert await page.call("() => document.getElementById('b').offsetHeight") > 0


async def test_hidden_elements_may_come_later(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.url("/late-element"), hide_selectors=("#late",))
    await page.settle()
    await page.call(
        "() => new Promise(done => { const look = () => window.late ? done() : setTimeout(look, 20); look() })"
    )
    assert await page.call(VISIBLE, "late") == "hidden"


@pytest.mark.parametrize("selector", ["p.x", "xpath=//p[2]", "text=second"])
async def test_removed_elements_are_gone(page: cdp.Page, site: Site, selector: str) -> None:
    await dressed(page, site.add("/parts", PARTS), remove_selectors=(selector,))
    assert [await page.call(THERE, one) for one in "abcd"] == [True, False, False, True]


async def test_removed_elements_that_come_later_are_not_in_the_picture(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.add("/parts", PARTS), remove_selectors=("#banner",))
    await page.call("() => { document.body.insertAdjacentHTML('beforeend', '<p id=banner>') }")
    await page.screenshot()
    assert not await page.call(THERE, "banner")


async def test_removed_elements_that_come_later_are_not_in_the_document(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.add("/parts", PARTS), remove_selectors=("#banner",))
    await page.call("() => { document.body.insertAdjacentHTML('beforeend', '<p id=banner>') }")
    assert "banner" not in await page.html()


async def test_all_elements_of_a_selector_are_removed(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.add("/parts", PARTS), remove_selectors=("p",))
    assert await page.call("() => document.querySelectorAll('p').length") == 0


@pytest.mark.parametrize("field", ["hide_selectors", "remove_selectors"])
async def test_selector_that_does_not_parse_is_told(page: cdp.Page, site: Site, field: str) -> None:
    with pytest.raises(InvalidSelector, match="p\\[\\["):
        await dressed(page, site.url("/ok"), **{field: ("p[[",)})


async def test_form_with_names_of_built_ins_is_removed(page: cdp.Page, site: Site) -> None:
    url = site.add("/form", '<form id="f"><input name="remove"><input name="setAttribute"></form>')
    await dressed(page, url, remove_selectors=("#f",))
    assert not await page.call(THERE, "f")


# ---- Scripts ---------------------------------------------------------------------------------------------------------


async def test_js_runs_in_the_page_in_order(page: cdp.Page, site: Site) -> None:
    url = site.add("/page", "<script>window.all = ['page']</script>")
    await dressed(page, url, js=("await new Promise(done => setTimeout(done, 50)); all.push(1)", "all.push(2)"))
    assert await page.evaluate("all") == ["page", 1, 2]


async def test_js_passes_the_page_s_policy(page: cdp.Page, site: Site) -> None:
    url = site.add("/strict", "<p>", headers=(("Content-Security-Policy", "script-src 'none'"),))
    await dressed(page, url, js=("document.title = 'ran'",))
    assert (await page.info()).title == "ran"


async def test_js_that_throws_is_told(page: cdp.Page, site: Site) -> None:
    with pytest.raises(ScriptError, match="my own words"):
        await dressed(page, site.url("/ok"), js=("throw new Error('my own words')",))


async def test_js_that_leads_elsewhere_is_followed(page: cdp.Page, site: Site) -> None:
    url = site.add("/start", "<p>start")
    await dressed(page, url, js=("location = '/slow?seconds=0.3'", "document.body.append(' and on')"))
    html = await page.html()
    assert "slow but sure" in html
    assert "and on" in html


@pytest.mark.parametrize(
    ("script", "value"),
    [
        ("1 + 1", 2),
        ("Promise.resolve({a: [1]})", {"a": [1]}),
        ("(async () => 7)()", 7),
        ("await Promise.resolve('x')", "x"),
        ("const a = 3; a * 2", 6),
        ("undefined", None),
        ("0/0", "NaN"),
        ("document.body", {}),
    ],
)
async def test_evaluate_gives_the_value(page: cdp.Page, script: str, value: Any) -> None:
    assert await page.evaluate(script) == value


@pytest.mark.parametrize(
    "expression", ["window.ready", "({})", "[]", "Promise.resolve(window.ready);", "document.body"]
)
async def test_wait_for_expression_ends_when_it_is_true(page: cdp.Page, expression: str) -> None:
    await page.evaluate("setTimeout(() => { window.ready = true }, 60); 0")
    await page.wait_for_expression(expression)


async def test_wait_for_expression_takes_a_throw_for_not_yet(page: cdp.Page) -> None:
    await page.evaluate("setTimeout(() => { window.app = {ready: true} }, 60); 0")
    await page.wait_for_expression("app.ready")


async def test_wait_for_expression_that_does_not_parse_is_told(page: cdp.Page) -> None:
    with pytest.raises(ScriptError, match="SyntaxError"):
        await page.wait_for_expression("1 +")


# ---- The page's own rules --------------------------------------------------------------------------------------------

STRICT = "<script>document.title = 'ran'</script>"


@pytest.mark.parametrize(("bypass_csp", "title"), [(True, "ran"), (False, "")])
async def test_bypass_csp_lets_blocked_scripts_run(page: cdp.Page, site: Site, bypass_csp: bool, title: str) -> None:
    url = site.add("/strict", STRICT, headers=(("Content-Security-Policy", "script-src 'none'"),))
    await dressed(page, url, bypass_csp=bypass_csp)
    assert (await page.info()).title == title


async def test_ignore_tls_errors_opens_what_nobody_vouches_for(page: cdp.Page) -> None:
    async with open_site(tls=True) as site:
        await dressed(page, site.url("/ok"), ignore_tls_errors=True)
        assert OK_TEXT in await page.html()


async def test_tls_errors_are_errors_by_default(page: cdp.Page) -> None:
    async with open_site(tls=True) as site:
        with pytest.raises(NavigationError, match="ERR_CERT_AUTHORITY_INVALID"):
            await dressed(page, site.url("/ok"))


# ---- Requests --------------------------------------------------------------------------------------------------------


async def test_auth_opens_the_page(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.url("/auth"), auth=Auth(AUTH_USER, AUTH_PASSWORD))
    assert page.status_code == 200


async def test_auth_that_is_wrong_is_401(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.url("/auth"), auth=Auth(AUTH_USER, "wrong"))
    assert page.status_code == 401


async def test_auth_is_for_the_own_origin_only(page: cdp.Page, site: Site) -> None:
    other = site.url("/auth", host="localhost")
    url = site.add("/page", f'<iframe src="{other}"></iframe>')
    await dressed(page, url, auth=Auth(AUTH_USER, AUTH_PASSWORD))
    assert all(request.header("authorization") is None for request in site.requests)
    assert any(request.path == "/auth" for request in site.requests)


async def test_auth_opens_what_the_page_fetches(page: cdp.Page, site: Site) -> None:
    url = site.add("/app", "<script>fetch('/auth').then(r => { document.title = r.status })</script>")
    await dressed(page, url, auth=Auth(AUTH_USER, AUTH_PASSWORD))
    await page.settle()
    assert (await page.info()).title == "200"


async def test_digest_auth_opens_the_page(page: cdp.Page, site: Site) -> None:
    async def digest(exchange: Exchange) -> Answer:
        given = exchange.request.header("authorization") or ""
        challenge = (("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'),)
        return (
            Answer(b"in")
            if given.startswith('Digest username="user"')
            else Answer(b"no", status=401, headers=challenge)
        )

    await dressed(page, site.add_route("/digest", digest), auth=Auth(AUTH_USER, AUTH_PASSWORD))
    assert page.status_code == 200


async def test_referer_is_sent_with_the_first_request(page: cdp.Page, site: Site) -> None:
    url = site.add("/start", '<img src="/image.png"><script>document.title = document.referrer</script>')
    await dressed(page, url, referer="https://news.example/story?id=1")
    assert (await site.seen("/start")).header("referer") == "https://news.example/story?id=1"
    assert (await page.info()).title == "https://news.example/story?id=1"
    assert (await site.seen("/image.png")).header("referer") == url


async def test_goto_after_the_referer_says_where_it_comes_from(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.url("/ok"), referer="https://news.example/")
    await page.navigate(site.url("/echo"))
    assert (await site.seen("/echo")).header("referer") is None


async def test_client_s_own_navigation_that_fails_is_no_warning(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.url("/ok"))
    with pytest.raises(NavigationError, match=r"ERR_EMPTY_RESPONSE|ERR_FAILED"):
        await page.navigate(site.url("/empty"))
    assert page.warnings == []
    assert OK_TEXT in await page.html()


# ---- Windows ---------------------------------------------------------------------------------------------------------


async def test_new_windows_are_told_and_make_no_request(page: cdp.Page, site: Site) -> None:
    url = site.add("/opens", "<script>open('/popup'); open('/popup')</script>")
    await dressed(page, url)
    assert page.warnings == [f"a new window was not opened: {site.url('/popup')}"] * 2
    assert [request.path for request in site.requests] == ["/opens"]


async def test_storm_of_windows_is_told_so_often_only(page: cdp.Page, site: Site) -> None:
    await dressed(page, site.add("/storm", "<script>for (let i = 0; i < 200; i++) open('/popup')</script>"))
    assert len(page.warnings) == 20
