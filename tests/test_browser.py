"""cdp/browser.py: what pages of one browser share (nothing), and what becomes of them when the browser goes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import trio

import cdp
from cdp import browser as module
from cdp.browser import connect_browser, open_browser
from cdp.connection import Connection, open_connection
from cdp.errors import ConnectionClosed, LaunchError, NavigationError, NotAPage, SessionClosed, TargetCrashed
from cdp.launcher import BrowserProcess, find_browser, launch
from cdp.processes import of_group
from cdp.tasks import open_tasks

from .site import OK_TEXT, Site

QUICK_S = 20
"""Far longer than anything here takes: only a hang gets there."""


@pytest.fixture
async def observer(browser_endpoint: str) -> AsyncIterator[Connection]:
    """A second connection to the shared browser, which sees what the first one leaves."""
    async with open_connection(browser_endpoint) as connection:
        yield connection


async def inventory(observer: Connection) -> tuple[set[str], set[str]]:
    """The ids of the browser's targets and of its contexts."""
    targets, contexts = await observer.send_all(("Target.getTargets", {}), ("Target.getBrowserContexts", {}))
    return {target["targetId"] for target in targets["targetInfos"]}, set(contexts["browserContextIds"])


def kill(browser: cdp.Browser, signal_number: int = signal.SIGKILL) -> None:
    assert browser.pid is not None
    os.kill(browser.pid, signal_number)


# Isolation


async def test_page_sees_no_cookie_of_another(browser: cdp.Browser, site: Site) -> None:
    async with browser.open_page() as one, browser.open_page() as other:
        await one.navigate(site.url("/set-cookie?name=secret&value=1"))
        await one.navigate(site.url("/echo-cookies"))
        await other.navigate(site.url("/echo-cookies"))
        seen = ["secret" in await page.html() for page in (one, other)]
    assert seen == [True, False]


async def test_page_sees_no_storage_of_another(browser: cdp.Browser, site: Site) -> None:
    site.add("/store", "<script>document.title = localStorage.length; localStorage.secret = 1</script>")
    async with browser.open_page() as one, browser.open_page() as other:
        await one.navigate(site.url("/store"))
        await one.navigate(site.url("/store"))
        await other.navigate(site.url("/store"))
        seen = [(await page.info()).title for page in (one, other)]
    assert seen == ["1", "0"]


async def test_page_sees_no_cookie_of_an_earlier_one(browser: cdp.Browser, site: Site) -> None:
    async with browser.open_page() as page:
        await page.navigate(site.url("/set-cookie?name=secret&value=1"))
    async with browser.open_page() as page:
        await page.navigate(site.url("/echo-cookies"))
        assert "secret" not in await page.html()


async def test_page_gets_nothing_out_of_the_cache_of_another(browser: cdp.Browser, site: Site) -> None:
    site.add("/cached", "cached", headers=[("Cache-Control", "max-age=3600")])
    for _ in range(2):
        async with browser.open_page() as page:
            await page.navigate(site.url("/cached"))
    assert len([request for request in site.requests if request.path == "/cached"]) == 2


# Closing


async def close_in_order(browser: cdp.Browser, site: Site) -> None:
    async with browser.open_page() as page:
        await page.navigate(site.url("/ok"))


async def close_by_exception(browser: cdp.Browser, site: Site) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with browser.open_page():
            raise KeyError("mine")


async def close_by_cancellation(browser: cdp.Browser, site: Site) -> None:
    with trio.CancelScope() as scope:
        async with browser.open_page() as page:
            site.add_route("/cancel", lambda exchange: cancel(scope))
            await page.navigate(site.url("/cancel"))


async def cancel(scope: trio.CancelScope) -> None:
    scope.cancel()


async def close_a_crashed_one(browser: cdp.Browser, site: Site) -> None:
    with pytest.raises(TargetCrashed):
        async with browser.open_page() as page:
            await page.session.send("Page.crash")


async def close_a_busy_one(browser: cdp.Browser, site: Site) -> None:
    async with browser.open_page() as page:
        await page.navigate(site.url("/endless-script"), wait_until="commit")


async def close_one_with_a_popup(browser: cdp.Browser, site: Site) -> None:
    site.add("/popup", "<script>open('/ok'); new Worker('data:text/javascript,for(;;);')</script>")
    async with browser.open_page() as page:
        await page.navigate(site.url("/popup"))
        assert page.warnings == [f"a new window was not opened: {site.url('/ok')}"]


@pytest.mark.parametrize(
    "close",
    [
        close_in_order,
        close_by_exception,
        close_by_cancellation,
        close_a_crashed_one,
        close_a_busy_one,
        close_one_with_a_popup,
    ],
)
async def test_open_page_leaves_no_target_and_no_context(
    browser: cdp.Browser,
    site: Site,
    observer: Connection,
    close: Callable[[cdp.Browser, Site], Awaitable[None]],
) -> None:
    before = await inventory(observer)
    with trio.fail_after(QUICK_S):
        await close(browser, site)
    assert await inventory(observer) == before


@pytest.mark.parametrize("after_ms", [0, 1, 2, 4, 8, 16, 32])
async def test_open_page_cancelled_at_any_moment_leaves_no_context(
    browser: cdp.Browser, observer: Connection, after_ms: int
) -> None:
    before = await inventory(observer)
    with trio.move_on_after(after_ms / 1000):
        async with browser.open_page():
            await trio.sleep_forever()
    assert await inventory(observer) == before


async def test_open_page_counts_the_open_ones(browser: cdp.Browser) -> None:
    counts = [browser.pages_open]
    async with browser.open_page():
        counts.append(browser.pages_open)
    assert [*counts, browser.pages_open] == [0, 1, 0]


async def test_open_page_closes_its_door(browser: cdp.Browser, policy: cdp.AddressPolicy) -> None:
    ports = set(policy.own_ports)
    async with browser.open_page():
        assert len(policy.own_ports - ports) == 1
    assert policy.own_ports == ports


async def test_connection_takes_its_pages_along(
    browser_endpoint: str, policy: cdp.AddressPolicy, observer: Connection
) -> None:
    before = await inventory(observer)
    async with open_connection(browser_endpoint) as connection:
        await connection.send("Target.createBrowserContext", disposeOnDetach=True)
    with trio.fail_after(QUICK_S):
        # Chromium notices the end of the socket when it does; asking costs it nothing.
        while await inventory(observer) != before:  # noqa: ASYNC110
            await trio.sleep(0.01)


# Browsers that end or hang


async def test_browser_killed_raises_connection_closed_to_a_page_s_user(policy: cdp.AddressPolicy, site: Site) -> None:
    async with open_browser(policy=policy) as browser, trio.open_nursery() as nursery:

        async def kill_when_asked() -> None:
            await site.seen("/never")
            kill(browser)

        nursery.start_soon(kill_when_asked)
        with trio.fail_after(QUICK_S), pytest.raises(ConnectionClosed):
            async with browser.open_page() as page:
                await page.navigate(site.url("/never"))


async def test_browser_killed_is_ended(policy: cdp.AddressPolicy) -> None:
    async with open_browser(policy=policy) as browser:
        assert not browser.ended.is_set()
        kill(browser)
        with trio.fail_after(QUICK_S):
            await browser.ended.wait()


async def test_browser_killed_opens_no_page(policy: cdp.AddressPolicy) -> None:
    async with open_browser(policy=policy) as browser:
        kill(browser)
        await browser.ended.wait()
        with trio.fail_after(QUICK_S), pytest.raises(ConnectionClosed):
            async with browser.open_page():
                pass


async def test_browser_killed_does_not_change_the_body_s_exception(policy: cdp.AddressPolicy) -> None:
    async def use(browser: cdp.Browser) -> None:
        async with browser.open_page():
            kill(browser)
            await browser.ended.wait()
            raise KeyError("mine")

    async with open_browser(policy=policy) as browser:
        with pytest.raises(KeyError, match="mine"):
            await use(browser)


async def test_browser_that_hangs_opens_no_page_and_is_given_up(
    policy: cdp.AddressPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONTEXT_TIMEOUT_S", 0.2)
    async with open_browser(policy=policy) as browser:
        kill(browser, signal.SIGSTOP)
        with pytest.raises(ConnectionClosed):
            async with browser.open_page():
                pass
        assert browser.ended.is_set()
        assert browser.condemned == "it opened no page"


async def test_browser_that_hangs_when_a_page_closes_is_given_up(
    policy: cdp.AddressPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISPOSE_TIMEOUT_S", 0.2)
    async with open_browser(policy=policy) as browser:
        async with browser.open_page():
            kill(browser, signal.SIGSTOP)
        assert browser.ended.is_set()
        assert browser.condemned == "it closed no context within 0.2 s"


async def test_browser_that_hangs_when_a_cancelled_page_closes_is_given_up(
    policy: cdp.AddressPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISPOSE_TIMEOUT_S", 0.2)

    async def use(browser: cdp.Browser, scope: trio.CancelScope) -> None:
        async with browser.open_page():
            kill(browser, signal.SIGSTOP)
            scope.cancel()
            await trio.sleep_forever()

    async with open_browser(policy=policy) as browser:
        # Whoever's time ran out is told that it was the browser's fault.
        with trio.CancelScope() as scope, pytest.raises(ConnectionClosed, match="closed no context"):
            await use(browser, scope)
        assert browser.condemned == "it closed no context within 0.2 s"


async def test_open_browser_leaves_the_body_s_exception_as_it_is(policy: cdp.AddressPolicy) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_browser(policy=policy):
            raise KeyError("mine")


async def test_connect_browser_needs_one_that_listens(policy: cdp.AddressPolicy) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(LaunchError):
        async with connect_browser(f"ws://127.0.0.1:{port}/devtools/browser/A", policy=policy):
            pass


async def test_connect_browser_gives_its_port_back(browser_endpoint: str, policy: cdp.AddressPolicy) -> None:
    async with connect_browser(browser_endpoint, policy=policy):
        assert len(policy.own_ports) == 1
    assert policy.own_ports == set()


async def test_browser_tells_its_product(browser: cdp.Browser) -> None:
    assert re.fullmatch(r"(Headless)?Chrome/\d+[.\d]+", browser.product)


async def test_open_connection_to_a_target_that_is_gone_raises_its_error(browser_endpoint: str) -> None:
    url = browser_endpoint.partition("/devtools/")[0] + "/devtools/page/0123456789ABCDEF0123456789ABCDEF"
    with pytest.raises(SessionClosed):
        async with open_connection(url, lost=SessionClosed):
            pass


# Pages that end


def renderers(browser: cdp.Browser) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(browser.pid).children(recursive=True):
        try:
            if "--type=renderer" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


async def test_renderer_killed_is_a_crash_of_the_page(policy: cdp.AddressPolicy, site: Site) -> None:
    async with open_browser(policy=policy) as browser, trio.open_nursery() as nursery:

        async def kill_when_asked() -> None:
            await site.seen("/never")
            for process in renderers(browser):
                process.kill()

        nursery.start_soon(kill_when_asked)
        with trio.fail_after(QUICK_S), pytest.raises(TargetCrashed):
            async with browser.open_page() as page:
                await page.navigate(site.url("/never-loads"))


async def test_renderer_killed_leaves_the_browser_usable(policy: cdp.AddressPolicy, site: Site) -> None:
    async def use(browser: cdp.Browser) -> None:
        async with browser.open_page() as page:
            await page.navigate(site.url("/ok"))
            for process in renderers(browser):
                process.kill()
            await page.session.ended.wait()
            await page.screenshot()

    async with open_browser(policy=policy) as browser:
        with trio.fail_after(QUICK_S), pytest.raises(TargetCrashed):
            await use(browser)
        async with browser.open_page() as page:
            await page.navigate(site.url("/ok"))
            assert OK_TEXT in await page.html()


async def test_crash_costs_no_other_page(browser: cdp.Browser, site: Site) -> None:
    async with browser.open_page() as other:
        await other.navigate(site.url("/ok"))
        with pytest.raises(TargetCrashed):
            async with browser.open_page() as page:
                await page.session.send("Page.crash")
        assert OK_TEXT in await other.html()


async def test_crash_does_not_end_the_browser(browser: cdp.Browser) -> None:
    with pytest.raises(TargetCrashed):
        async with browser.open_page() as page:
            await page.session.send("Page.crash")
    assert not browser.ended.is_set()


async def test_target_closed_under_a_page_is_a_closed_session(browser: cdp.Browser, observer: Connection) -> None:
    before, _ = await inventory(observer)

    async def use() -> None:
        async with browser.open_page() as page:
            (target_id,) = (await inventory(observer))[0] - before
            await observer.send("Target.closeTarget", targetId=target_id)
            await page.session.ended.wait()
            await page.info()

    with trio.fail_after(QUICK_S), pytest.raises(SessionClosed):
        await use()


# What a page may reach


async def blocked(browser: cdp.Browser, url: str) -> str:
    """The reason why a page may not go there."""
    async with browser.open_page() as page:
        with pytest.raises(NavigationError) as caught:
            await page.navigate(url)
    assert caught.value.net_error == "net::ERR_BLOCKED_BY_CLIENT"
    assert caught.value.blocked is not None
    return caught.value.blocked


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::1]", "[::ffff:127.0.0.1]"])
async def test_loopback_is_refused_without_a_policy(browser_endpoint: str, site: Site, host: str) -> None:
    async with connect_browser(browser_endpoint) as browser:
        assert "--allow-network" in await blocked(browser, site.url("/ok", host=host))
    assert site.requests == []


async def test_loopback_in_a_redirect_is_refused(browser_endpoint: str, site: Site) -> None:
    # The policy lets the first site in by its name only.
    policy = cdp.AddressPolicy.parse(["localhost"])
    async with connect_browser(browser_endpoint, policy=policy) as browser:
        url = site.url(f"/redirect-to?url={site.url('/ok')}", host="localhost")
        assert "127.0.0.1 is not a public address" in await blocked(browser, url)
    assert [request.path for request in site.requests] == ["/redirect-to"]


async def test_own_debugging_port_is_refused_whatever_is_allowed(browser: cdp.Browser, browser_endpoint: str) -> None:
    port = browser_endpoint.removeprefix("ws://").partition("/")[0]
    assert "is this service's own" in await blocked(browser, f"http://{port}/json/version")


async def test_own_door_is_refused_whatever_is_allowed(browser: cdp.Browser, policy: cdp.AddressPolicy) -> None:
    async with browser.open_page() as page:
        for port in policy.own_ports:
            with pytest.raises(NavigationError) as caught:
                await page.navigate(f"http://127.0.0.1:{port}/")
            assert caught.value.blocked is not None


async def test_context_without_a_door_reaches_nothing(observer: Connection, browser_endpoint: str, site: Site) -> None:
    target = await observer.send("Target.createTarget", url="about:blank")
    url = browser_endpoint.partition("/devtools/")[0] + "/devtools/page/" + target["targetId"]
    async with open_connection(url) as session:
        reply = await session.send("Page.navigate", url=site.url("/ok"))
    await observer.send("Target.closeTarget", targetId=target["targetId"])
    assert reply["errorText"] == "net::ERR_PROXY_CONNECTION_FAILED"
    assert site.requests == []


async def look_ups(process: BrowserProcess, log: Path, browser: Connection) -> list[str]:
    """Close a browser in order, so that its network log is written to the end; the events of its own name look-ups."""
    await browser.post("Browser.close")
    with trio.fail_after(QUICK_S):
        await process.exited.wait()
    content = json.loads(log.read_text())
    numbers, seen = content["constants"]["logEventTypes"], {event["type"] for event in content["events"]}
    # Every request of a URL asks the resolver something; a real look-up becomes a job, and the system or DNS is asked.
    names = ("HOST_RESOLVER_MANAGER_JOB", "HOST_RESOLVER_SYSTEM_TASK", "DNS_TRANSACTION")
    return [name for name in names if numbers[name] in seen]


async def test_browser_resolves_no_name_of_a_page_itself(policy: cdp.AddressPolicy, site: Site, tmp_path: Path) -> None:
    site.add(
        "/names",
        '<link rel="dns-prefetch" href="//prefetch.invalid"><link rel="preconnect" href="//preconnect.invalid">'
        '<img src="http://image.invalid/">'
        '<script>onload = () => fetch("http://fetch.invalid/").catch(() => 0)</script>',
    )
    log = tmp_path / "net.json"
    async with launch(find_browser(), [f"--log-net-log={log}"]) as process:
        async with connect_browser(process.endpoint, policy=policy) as browser:
            async with browser.open_page() as page:
                await page.navigate(site.url("/names"), wait_until="networkidle")
                asked = {host for host, _ in page.ledger.failures}
            looked_up = await look_ups(process, log, browser._connection)
    assert asked >= {"image.invalid", "fetch.invalid"}
    assert looked_up == []


async def test_browser_resolves_no_name_without_any_proxy(tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    async with launch(find_browser(), ["--proxy-server=direct://", f"--log-net-log={log}"]) as process:
        async with open_connection(process.endpoint) as browser:
            target = await browser.send("Target.createTarget", url="about:blank")
            url = process.endpoint.partition("/devtools/")[0] + "/devtools/page/" + target["targetId"]
            async with open_connection(url) as session:
                reply = await session.send("Page.navigate", url="http://name.invalid/")
            looked_up = await look_ups(process, log, browser)
    assert (reply["errorText"], looked_up) == ("net::ERR_NAME_NOT_RESOLVED", [])


async def test_door_gets_names_and_no_addresses(page: cdp.Page) -> None:
    with pytest.raises(NavigationError):
        await page.navigate("http://name.invalid/")
    assert list(page.ledger.failures) == [("name.invalid", 80)]


# Limits


async def test_download_is_kept_nowhere(
    policy: cdp.AddressPolicy, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with open_browser(policy=policy, profile_root=tmp_path) as browser, browser.open_page() as page:
        with pytest.raises(NotAPage):
            await page.navigate(site.url("/download"))
        found = [path.name for path in tmp_path.rglob("*") if re.search(r"\.zip|crdownload", path.name)]
    assert found == []


async def test_message_over_the_limit_costs_its_own_page_only(
    browser_endpoint: str, policy: cdp.AddressPolicy, site: Site
) -> None:
    async with connect_browser(browser_endpoint, policy=policy, max_message_bytes=2**20) as browser:
        async with browser.open_page() as other:
            await other.navigate(site.url("/ok"))
            async with browser.open_page() as page:
                await page.navigate(site.url("/big-html?bytes=2000000"))
                with pytest.raises(cdp.errors.TooLarge):
                    await page.html()
            assert OK_TEXT in await other.html()


def test_default_viewport_is_that_of_the_options() -> None:
    assert cdp.options.Viewport() == module.DEFAULT_VIEWPORT == cdp.options.PageOptions().viewport


async def test_open_page_takes_a_viewport(browser: cdp.Browser) -> None:
    viewport = cdp.options.Viewport(width=321, height=123)
    async with browser.open_page(viewport=viewport) as page:
        picture = await page.screenshot()
    assert (picture.width, picture.height) == (321, 123)


async def test_many_pages_open_at_once(browser: cdp.Browser, site: Site) -> None:
    texts: dict[int, str] = {}

    async def visit(number: int) -> None:
        site.add(f"/number-{number}", f"<title>{number}</title>")
        async with browser.open_page() as page:
            await page.navigate(site.url(f"/number-{number}"))
            texts[number] = (await page.info()).title

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(visit, number)
    assert texts == {number: str(number) for number in range(8)}


async def test_nothing_of_a_closed_page_makes_a_request(browser: cdp.Browser, site: Site) -> None:
    beat = "setInterval(() => fetch('/beat?' + Math.random()), 5)"
    site.add("/worker.js", beat, "text/javascript")
    url = site.add("/beats", f"<script>{beat}; new Worker('/worker.js'); new SharedWorker('/worker.js')</script>")
    async with browser.open_page() as page:
        await page.navigate(url)
        await site.seen("/beat", 20)
    await site.connections_settled()
    before = len(site.requests)
    async with browser.open_page() as page:
        await page.navigate(site.url("/slow?seconds=0.5"))
    assert [request.path for request in site.requests[before:]] == ["/slow"]


async def test_renderer_killed_while_its_page_opens_costs_no_browser(policy: cdp.AddressPolicy) -> None:
    async def kill_renderers(browser: cdp.Browser) -> None:
        assert browser.pid is not None
        for pause_ms in itertools.cycle(range(5, 60, 7)):
            await trio.sleep(pause_ms / 1000)
            for renderer in [process for process in of_group(browser.pid) if process.is_renderer()]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(renderer.pid, signal.SIGKILL)

    crashed = 0
    async with open_browser(policy=policy) as browser:
        for _ in range(15):
            async with open_tasks() as tasks:
                tasks.start_soon(kill_renderers, browser)
                try:
                    async with browser.open_page():
                        pass
                except ConnectionClosed:
                    crashed += 1
            async with browser.open_page():
                pass
        assert not browser.ended.is_set()
    assert crashed > 0
