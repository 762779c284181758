"""Nothing of one page is there for another: beside it in the same browser, and after it.

Each test has its control: the page that left something finds it itself. Both see the same site, the same origin.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

import cdp
from cdp.actions import perform
from cdp.errors import ActionFailed, NavigationError, TargetCrashed
from cdp.options import Auth, Click, Cookie, Geolocation, PageOptions, Press, Viewport

from .site import AUTH_PASSWORD, AUTH_USER, HTML_TYPE, Site, open_site, page

QUICK_S = 20
"""Far longer than anything here takes: only a hang gets there."""
SCRIPT_TYPE = "text/javascript"
EMPTY = page("<p>empty</p>")


@pytest.fixture
async def home(site: Site) -> str:
    """The URL of an empty page."""
    return site.add("/home", EMPTY)


@asynccontextmanager
async def at(browser: cdp.Browser, url: str, **options: Any) -> AsyncIterator[cdp.Page]:
    """A new page that shows a URL."""
    with trio.fail_after(QUICK_S):
        async with browser.open_page() as page:
            await page.prepare(PageOptions(url=url, **options))
            await page.navigate(url)
            yield page


async def traces(
    browser: cdp.Browser, url: str, leave: Callable[[cdp.Page], Awaitable[object]], look: Callable[[cdp.Page], Any]
) -> tuple[Any, Any, Any]:
    """What is found of what one page leaves: by itself, by one beside it, and by one after it."""
    async with at(browser, url) as writer:
        await leave(writer)
        own = await look(writer)
        async with at(browser, url) as reader:
            beside = await look(reader)
    async with at(browser, url) as reader:
        return own, beside, await look(reader)


# What scripts keep


@attrs.frozen
class Script:
    """What a page's script leaves, and how one looks for it: `mine`, or null."""

    leave: str
    look: str


DATABASE = """
const database = await new Promise((resolve, reject) => {
  const opening = indexedDB.open('kept', 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore('kept');
  opening.onsuccess = () => resolve(opening.result);
  opening.onerror = reject;
});
const store = mode => database.transaction('kept', mode).objectStore('kept');
const ask = request => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result ?? null);
  request.onerror = reject;
});
"""
# A worker that all pages of an origin share keeps what the first one says.
SHARED_WORKER = """
let kept = null;
onconnect = ({ports: [port]}) => { port.onmessage = ({data}) => { kept ??= data; port.postMessage(kept) } };
"""
SERVICE_WORKER = """
onactivate = event => event.waitUntil(clients.claim());
onfetch = event => { if (event.request.url.endsWith('/kept')) event.respondWith(new Response('mine')) };
"""
ASK_SHARED_WORKER = """
(said => new Promise(resolve => {
  const {port} = new SharedWorker('/shared-worker.js');
  port.onmessage = ({data}) => resolve(data);
  port.postMessage(said);
}))"""
SCRIPTS = {
    "cookie": Script("document.cookie = 'kept=mine; max-age=999'", "document.cookie.match('kept=(\\\\w+)')?.[1]"),
    "cookieStore": Script("await cookieStore.set('kept', 'mine')", "(await cookieStore.get('kept'))?.value"),
    "localStorage": Script("localStorage.kept = 'mine'", "localStorage.kept"),
    "sessionStorage": Script("sessionStorage.kept = 'mine'", "sessionStorage.kept"),
    "indexedDB": Script(
        f"{{ {DATABASE} await ask(store('readwrite').put('mine', 'kept')) }}",
        f"{{ {DATABASE} await ask(store('readonly').get('kept')) }}",
    ),
    "caches": Script(
        "await (await caches.open('kept')).put('/kept', new Response('mine'))",
        "await (await caches.match('/kept'))?.text()",
    ),
    "file-system": Script(
        "{ const root = await navigator.storage.getDirectory();"
        "  const file = await (await root.getFileHandle('kept', {create: true})).createWritable();"
        "  await file.write('mine'); await file.close() }",
        "await (await navigator.storage.getDirectory()).getFileHandle('kept').then(() => 'mine', () => null)",
    ),
    "bucket": Script(
        "await navigator.storageBuckets.open('mine')",
        "(await navigator.storageBuckets.keys()).find(one => one == 'mine')",
    ),
    "quota": Script(
        "await (await caches.open('kept')).put('/kept', new Response('m'.repeat(1e6)))",
        "(await navigator.storage.estimate()).usage ? 'mine' : null",
    ),
    "lock": Script(
        "await new Promise(held => navigator.locks.request('kept', () => new Promise(() => held())))",
        "await navigator.locks.request('kept', {ifAvailable: true}, lock => lock ? null : 'mine')",
    ),
    "shared-worker": Script(f"await {ASK_SHARED_WORKER}('mine')", f"await {ASK_SHARED_WORKER}(null)"),
    "service-worker": Script(
        "await navigator.serviceWorker.register('/service-worker.js'); await navigator.serviceWorker.ready;"
        "if (!navigator.serviceWorker.controller)"
        "  await new Promise(taken => { navigator.serviceWorker.oncontrollerchange = taken })",
        "await fetch('/kept').then(async got => got.ok ? await got.text() : null)",
    ),
    "window-name": Script("window.name = 'mine'", "window.name || null"),
    "history-state": Script("history.replaceState('mine', '')", "history.state"),
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_page_sees_nothing_that_another_s_scripts_keep(
    browser: cdp.Browser, site: Site, home: str, name: str
) -> None:
    site.add("/shared-worker.js", SHARED_WORKER, SCRIPT_TYPE)
    site.add("/service-worker.js", SERVICE_WORKER, SCRIPT_TYPE)
    script = SCRIPTS[name]

    async def leave(page: cdp.Page) -> None:
        await page.evaluate(script.leave)

    async def look(page: cdp.Page) -> Any:
        return await page.evaluate(script.look)

    assert await traces(browser, home, leave, look) == ("mine", None, None)


HEAR = """
globalThis.heard = [];
globalThis.channel = new BroadcastChannel('talk');
channel.onmessage = ({data}) => heard.push(data);
"""


async def test_page_hears_no_broadcast_of_another(browser: cdp.Browser, home: str) -> None:
    async with at(browser, home) as one, at(browser, home) as other:
        await one.evaluate(HEAR)
        await other.evaluate("new BroadcastChannel('talk').postMessage('other')")
        # Its own, sent last, comes last.
        await one.evaluate(
            "await new Promise(came => { channel.addEventListener('message', came);"
            " new BroadcastChannel('talk').postMessage('own') })"
        )
        assert await one.evaluate("heard") == ["own"]


async def test_page_hears_no_storage_event_of_another(browser: cdp.Browser, home: str) -> None:
    async with at(browser, home) as one, at(browser, home) as other:
        await one.evaluate(
            "globalThis.heard = []; onstorage = ({key}) => heard.push(key);"
            "document.body.append(globalThis.frame = document.createElement('iframe')); frame.src = '/home';"
            "await new Promise(loaded => { frame.onload = loaded })"
        )
        await other.evaluate("localStorage.other = 1")
        await one.evaluate(
            "await new Promise(came => { addEventListener('storage', came); frame.contentWindow.localStorage.own = 1 })"
        )
        assert await one.evaluate("heard") == ["own"]


async def test_page_loads_no_blob_of_another(browser: cdp.Browser, home: str) -> None:
    load = "await fetch({!r}).then(got => got.text(), () => null)"
    async with at(browser, home) as one, at(browser, home) as other:
        url = await one.evaluate("URL.createObjectURL(new Blob(['mine']))")
        assert [await page.evaluate(load.format(url)) for page in (one, other)] == ["mine", None]


# What the client gives


async def title(page: cdp.Page) -> str:
    return (await page.info()).title


async def test_page_has_no_cookie_that_another_was_given(browser: cdp.Browser, site: Site) -> None:
    url = site.url("/echo-cookies")
    async with at(browser, url, cookies=(Cookie(name="kept", value="mine", http_only=True),)) as one:
        async with at(browser, url) as other:
            seen = ["mine" in await page.html() for page in (one, other)]
    async with at(browser, url) as later:
        assert [*seen, "mine" in await later.html()] == [True, False, False]


async def test_page_has_no_credentials_that_another_was_given(browser: cdp.Browser, site: Site) -> None:
    url = site.url("/auth")
    async with at(browser, url, auth=Auth(AUTH_USER, AUTH_PASSWORD)) as one:
        async with at(browser, url) as other:
            seen = [await title(page) for page in (one, other)]
    async with at(browser, url) as later:
        assert [*seen, await title(later)] == ["Let in", "Kept out", "Kept out"]


async def test_page_has_no_credentials_of_another_s_url(browser: cdp.Browser, site: Site) -> None:
    url = site.url("/auth")
    async with at(browser, url.replace("//", f"//{AUTH_USER}:{AUTH_PASSWORD}@")) as one:
        # The browser itself keeps these, and gives them unasked.
        await one.navigate(url)
        async with at(browser, url) as other:
            seen = [await title(page) for page in (one, other)]
    async with at(browser, url) as later:
        assert [*seen, await title(later)] == ["Let in", "Kept out", "Kept out"]


EMULATED: dict[str, tuple[dict[str, Any], str, object]] = {
    "user-agent": ({"user_agent": "Mine/1.0"}, "navigator.userAgent", "Mine/1.0"),
    "timezone": ({"timezone": "Asia/Tokyo"}, "Intl.DateTimeFormat().resolvedOptions().timeZone", "Asia/Tokyo"),
    "locale": ({"locale": "de-CH"}, "navigator.language + Intl.NumberFormat().resolvedOptions().locale", "de-CHde-CH"),
    "color-scheme": ({"color_scheme": "dark"}, "matchMedia('(prefers-color-scheme: dark)').matches", True),
    "media": ({"media": "print"}, "matchMedia('print').matches", True),
    "viewport": ({"viewport": Viewport(width=333, height=222)}, "innerWidth", 333),
    "scale": ({"viewport": Viewport(device_scale_factor=3)}, "devicePixelRatio", 3),
    "touch": ({"viewport": Viewport(touch=True)}, "navigator.maxTouchPoints > 0", True),
    "permission": (
        {"geolocation": Geolocation(1, 2)},
        "(await navigator.permissions.query({name: 'geolocation'})).state",
        "granted",
    ),
    "geolocation": (
        {"geolocation": Geolocation(1, 2)},
        "await new Promise(tell => navigator.geolocation.getCurrentPosition(at => tell(at.coords.latitude), tell))"
        ".then(at => at === 1)",
        True,
    ),
    "header": ({"headers": {"X-Kept": "mine"}}, "document.body.textContent.includes('x-kept')", True),
    "referer": ({"referer": "https://kept.example/"}, "document.referrer", "https://kept.example/"),
    "blocked-kind": (
        {"block_resources": ("xhr", "fetch")},
        "await fetch('/ok').then(() => 'loaded', () => 'blocked')",
        "blocked",
    ),
    "blocked-url": ({"block_urls": ("*/ok",)}, "await fetch('/ok').then(() => 'loaded', () => 'blocked')", "blocked"),
}


@pytest.mark.parametrize("name", EMULATED)
async def test_page_meets_nothing_that_another_was_told_to(browser: cdp.Browser, site: Site, name: str) -> None:
    options, look, mine = EMULATED[name]
    url = site.url("/echo")
    async with at(browser, url, **options) as one, at(browser, url) as other:
        seen = [await page.evaluate(look) == mine for page in (one, other)]
    async with at(browser, url) as later:
        assert [*seen, await later.evaluate(look) == mine] == [True, False, False]


@pytest.mark.parametrize(
    ("option", "look"),
    [
        ({"js": ("globalThis.kept = 'mine'",)}, "globalThis.kept"),
        (
            {"css": ("body { quotes: 'm' 'n' }",)},
            "getComputedStyle(document.body).quotes.includes('m') ? 'mine' : null",
        ),
        (
            {"hide_selectors": ("p",)},
            "getComputedStyle(document.querySelector('p')).visibility == 'hidden' ? 'mine' : null",
        ),
    ],
    ids=["js", "css", "hide"],
)
async def test_page_has_nothing_injected_that_another_was_given(
    browser: cdp.Browser, home: str, option: dict[str, Any], look: str
) -> None:
    async with at(browser, home, **option) as one, at(browser, home) as other:
        for page in (one, other):
            await page.dress()
            await page.run_scripts()
        assert [await page.evaluate(look) for page in (one, other)] == ["mine", None]


async def test_page_checks_certificates_though_another_does_not(browser: cdp.Browser) -> None:
    async with open_site(tls=True) as site:
        url = site.url("/ok")
        async with at(browser, url, ignore_tls_errors=True):
            with pytest.raises(NavigationError, match="ERR_CERT_AUTHORITY_INVALID"):
                async with at(browser, url):
                    pass
        with pytest.raises(NavigationError, match="ERR_CERT_AUTHORITY_INVALID"):
            async with at(browser, url):
                pass


async def test_page_runs_scripts_though_another_does_not(browser: cdp.Browser, site: Site) -> None:
    url = site.add("/title", "<title>off</title><script>document.title = 'on'</script>")
    async with at(browser, url, javascript=False) as one, at(browser, url) as other:
        assert [await title(page) for page in (one, other)] == ["off", "on"]


# What the browser keeps


@attrs.frozen
class Cached:
    """An answer that a browser keeps, and what its server sees of that: requests, or their header `If-None-Match`."""

    headers: tuple[tuple[str, str], ...]
    asks_again: bool = False


CACHED = {
    "max-age": Cached((("Cache-Control", "max-age=3600"),)),
    "immutable": Cached((("Cache-Control", "max-age=3600, immutable"),)),
    "etag": Cached((("Cache-Control", "no-cache"), ("ETag", '"mine"')), asks_again=True),
}


@pytest.mark.parametrize("name", CACHED)
async def test_page_gets_nothing_that_another_cached(browser: cdp.Browser, site: Site, home: str, name: str) -> None:
    cached = CACHED[name]
    site.add("/cached", "cached", HTML_TYPE, headers=cached.headers)

    async def leave(page: cdp.Page) -> None:
        await page.evaluate("await (await fetch('/cached')).text()")

    async def look(page: cdp.Page) -> bool:
        """Whether the page's browser context had it."""
        site.requests.clear()
        await page.evaluate("await (await fetch('/cached')).text()")
        asked = [request.header("if-none-match") for request in site.requests if request.path == "/cached"]
        return asked == (['"mine"'] if cached.asks_again else [])

    assert await traces(browser, home, leave, look) == (True, False, False)


async def test_page_tells_no_server_what_another_was_asked_for(browser: cdp.Browser, site: Site) -> None:
    url = site.add("/hints", EMPTY, headers=[("Accept-CH", "Sec-CH-Viewport-Width")])

    async def leave(page: cdp.Page) -> None:
        await page.navigate(url)

    async def look(page: cdp.Page) -> bool:
        site.requests.clear()
        await page.evaluate("await fetch('/home')")
        return site.requests[0].header("sec-ch-viewport-width") is not None

    assert await traces(browser, site.add("/home", EMPTY), leave, look) == (True, False, False)


async def test_page_s_process_is_no_other_page_s(policy: cdp.AddressPolicy, home: str) -> None:
    # Chromium shares them within a context where it has many.
    async with cdp.open_browser(policy=policy, switches=["--renderer-process-limit=1"]) as browser:
        async with at(browser, home) as other:
            with pytest.raises(TargetCrashed):
                async with at(browser, home) as page:
                    await page.session.send("Page.crash")
            assert await other.evaluate("'here'") == "here"


async def test_page_uses_no_connection_of_another(browser: cdp.Browser, site: Site, home: str) -> None:
    async with at(browser, home) as one:
        await one.navigate(home)
        own = site.open_connections
        async with at(browser, home):
            assert (own, site.open_connections) == (1, 2)


async def test_page_s_connections_end_with_it(browser: cdp.Browser, site: Site, home: str) -> None:
    async with at(browser, home):
        pass
    with trio.fail_after(QUICK_S):
        await site.connections_settled()


FIELD = page('<textarea id="field"></textarea><textarea id="own">mine</textarea>')


SELECT = (Click(type="click", selector="#own"), Press(type="press", key="Control+A"))
COPY = {"type": "rawKeyDown", "key": "c", "code": "KeyC", "windowsVirtualKeyCode": 67, "modifiers": 2}
PASTE = {"type": "rawKeyDown", "key": "v", "code": "KeyV", "windowsVirtualKeyCode": 86, "modifiers": 2}


async def pasted(page: cdp.Page, action: Any) -> str:
    """What is in the field after an action, be it refused."""
    with contextlib.suppress(ActionFailed):
        await perform(page, action, 0)
    return await in_field(page)


async def in_field(page: cdp.Page) -> str:
    # The browser's answer to what pastes may come after the answer to the key; this one comes after both.
    await page.session.send("Input.dispatchKeyEvent", type="keyUp", key="F2", code="F2", windowsVirtualKeyCode=113)
    return str(await page.evaluate("field.value"))


@pytest.mark.parametrize(
    "action",
    [
        Press(type="press", selector="#field", key="Control+V"),
        Press(type="press", selector="#field", key="Control+Shift+V"),
        Press(type="press", selector="#field", key="Shift+Insert"),
        Click(type="click", selector="#field", button="middle"),
    ],
    ids=["control-v", "control-shift-v", "shift-insert", "middle-button"],
)
async def test_page_pastes_nothing_that_another_copied(browser: cdp.Browser, site: Site, action: Any) -> None:
    url = site.add("/field", FIELD)

    async def leave(page: cdp.Page) -> None:
        for index, step in enumerate(SELECT):
            await perform(page, step, index)
        await page.session.send("Input.dispatchKeyEvent", **COPY)

    async with at(browser, url) as one, at(browser, url) as other:
        await leave(one)
        beside = await pasted(other, action)
        # As nobody may: it is there.
        await one.evaluate("field.focus()")
        await one.session.send("Input.dispatchKeyEvent", **PASTE)
        own = await in_field(one)
    async with at(browser, url) as later:
        assert (own, beside, await pasted(later, action)) == ("mine", "", "")
