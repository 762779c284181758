"""cleariflow.html: the page at `/`, driven in a real browser by our own `cdp`, as a person would."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
from PIL import Image

import cdp
from cdp.actions import perform
from cdp.options import Click, PageOptions, Press, TypeText, Viewport, WaitFor
from cdp.tasks import open_tasks

from .site import OK_TEXT, RED, WHITE, Site
from .test_end_to_end import LISTENING, PROGRAM, Gate, ended, open_server, program, submit

QUICK_S = 20
"""Far longer than anything here takes: only a hang gets there."""


@attrs.frozen
class Running:
    """A service that the tests of this file share."""

    url: str
    folder: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("people")
    with subprocess.Popen([*program(folder), "--workers", "2"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = next(found for line in process.stderr if (found := LISTENING.search(line)))
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        yield Running(found[1], folder)
        process.terminate()
        process.wait(QUICK_S)
        drain.join(QUICK_S)


@pytest.fixture
async def client(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=running.url, timeout=QUICK_S, trust_env=False) as client:
        yield client


@attrs.frozen
class Person:
    """Who looks at a page, clicks and types."""

    page: cdp.Page

    async def click(self, selector: str) -> None:
        """Click an element."""
        with trio.fail_after(QUICK_S):
            await perform(self.page, Click(type="click", selector=selector), 0)

    async def type(self, selector: str | None, text: str) -> None:
        """Type into a field, in place of what it has; into the focused one without a selector."""
        with trio.fail_after(QUICK_S):
            await perform(self.page, TypeText(type="type", selector=selector, text=text, clear=selector is not None), 0)

    async def press(self, key: str) -> None:
        """Press a key."""
        with trio.fail_after(QUICK_S):
            await perform(self.page, Press(type="press", key=key), 0)

    async def ask(self, expression: str) -> Any:
        """What the page's own script finds."""
        return await self.page.evaluate(expression)

    async def until(self, expression: str) -> None:
        """Wait until that is so."""
        with trio.fail_after(QUICK_S):
            await self.page.wait_for_expression(expression)

    async def sees(self, text: str, within: str = "body") -> None:
        """Wait for a text."""
        await self.until(f"document.querySelector({json.dumps(within)})?.innerText.includes({json.dumps(text)})")

    async def submits(self, url: str) -> None:
        """Fill in a URL and press Enter."""
        await self.type("#url", url)
        await self.press("Enter")

    async def tabs_to(self, expression: str) -> None:
        """Press Tab until that is so of `at`, the element that has the focus."""
        for _ in range(100):
            await self.press("Tab")
            if await self.ask(f"(at => {expression})(document.activeElement)"):
                return
        raise AssertionError(f"Tab does not get to {expression}")


@asynccontextmanager
async def looking(page: cdp.Page, url: str) -> AsyncIterator[Person]:
    """Somebody who opens a page, whose scripts must not break."""
    with page.session.subscribe("Runtime.exceptionThrown") as broken:
        await page.session.send("Runtime.enable")
        await page.navigate(url)
        yield Person(page)
        assert [(await anext(broken)).text for _ in range(len(broken))] == []


@pytest.fixture
async def person(page: cdp.Page, running: Running) -> AsyncIterator[Person]:
    """Who has opened the shared service's page."""
    async with looking(page, running.url) as person:
        yield person


def row(url: str, *more: str) -> str:
    """The selector of a job's row, or of something in it."""
    return f"xpath=//ul[@id='jobs']/li[.//button[@title='{url}']]" + "".join(more)


async def until_state(person: Person, url: str, state: str) -> None:
    """Wait until the row of a job says so."""
    with trio.fail_after(QUICK_S):
        await person.page.wait_for(WaitFor(row(url, f"//span[@data-state='{state}']")))


# ---- How it comes


async def test_page_may_run_and_load_nothing_but_its_own(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    policy = dict(part.partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split("; "))
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (policy["default-src"], policy["img-src"], policy["frame-ancestors"]) == ("'none'", "'self' blob:", "'none'")
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in "".join(policy.values())
    assert policy["script-src"].startswith("'sha256-")


async def test_page_loads_without_a_fault_and_asks_nobody_else(page: cdp.Page, running: Running) -> None:
    faults, asked = (
        ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"),
        "Network.requestWillBeSent",
    )
    with page.session.subscribe(*faults, asked) as events:
        for domain in ("Runtime", "Log"):
            await page.session.send(f"{domain}.enable")
        await page.navigate(running.url)
        person = Person(page)
        await person.until("document.querySelector('#live').textContent === 'Live'")
        await person.until("!document.querySelector('#no-jobs').textContent.includes('Loading')")
        seen = [await anext(events) for _ in range(len(events))]
    assert [event.text for event in seen if event.method != asked] == []
    urls = [str(event.params()["request"]["url"]) for event in seen if event.method == asked]
    assert [url for url in urls if not url.startswith((f"{running.url}/", "blob:"))] == []


@pytest.mark.parametrize("width_px", [360, pytest.param(1280, marks=pytest.mark.slow)])
async def test_page_fits_its_width(
    page: cdp.Page, running: Running, client: httpx.AsyncClient, site: Site, width_px: int
) -> None:
    url = site.url(f"/ok?{'long' * 100}")
    await ended(client, await submit(client, "screenshot", url=url))
    await page.prepare(PageOptions(viewport=Viewport(width_px, 740, mobile=width_px < 500)))
    await page.navigate(running.url)
    person = Person(page)
    await person.click(row(url, "//button[@title]"))
    await person.until("document.querySelector('.picture img')?.complete")
    assert await person.ask("document.documentElement.scrollWidth") == width_px


# ---- Try it


async def test_screenshot_is_submitted_by_enter_and_its_picture_shown(person: Person, site: Site) -> None:
    await person.submits(site.url("/ok"))
    await person.until("document.querySelector('.picture img')?.naturalWidth")
    pixel = """(x, y) => {
        const canvas = new OffscreenCanvas(1280, 800).getContext("2d", {willReadFrequently: true});
        canvas.drawImage(document.querySelector(".picture img"), 0, 0);
        return [...canvas.getImageData(x, y, 1, 1).data.slice(0, 3)];
    }"""
    img = "document.querySelector('.picture img')"
    assert await person.ask(f"[{img}.naturalWidth, {img}.naturalHeight]") == [1280, 800]
    # A JPEG's colours are near.
    assert await person.ask(f"({pixel})(50, 50)") == pytest.approx(RED, abs=8)
    assert await person.ask(f"({pixel})(700, 500)") == pytest.approx(WHITE, abs=8)


@pytest.mark.slow
async def test_result_tells_times_and_size(person: Person, site: Site) -> None:
    await person.submits(site.url("/ok"))
    await person.sees("1280 × 800 px", ".facts")
    await person.sees("navigate", ".times")


@pytest.mark.slow
async def test_options_become_the_request(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    await person.type("#width", "300")
    await person.type("#height", "200")
    await person.click("#format")
    await person.type(None, "PNG")
    await person.press("Enter")
    await person.click("xpath=//summary[contains(., 'JSON')]")
    await person.type("#further", '{"color_scheme": "dark", "wait_ms": 1}')
    await person.submits(site.url("/ok"))
    await person.sees("300 × 200 px", ".facts")
    assert await person.ask("document.querySelector('#result a[download]').download.endsWith('.png')")


async def test_scrape_shows_its_html_as_text(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    await person.click("xpath=//label[.='Scrape']")
    await person.submits(site.url("/ok"))
    await person.sees(OK_TEXT, "#result pre")
    (job,) = [job for job in (await client.get("/v1/jobs?limit=1")).json()["jobs"] if job["url"] == site.url("/ok")]
    result = (await client.get(f"/v1/jobs/{job['job_id']}/result")).text
    assert await person.ask("document.querySelector('#result pre').textContent") == result


async def test_saved_html_is_no_document_of_this_origin(person: Person, site: Site) -> None:
    await person.click("xpath=//label[.='Scrape']")
    await person.submits(site.add("/scripted", "<!DOCTYPE html><script>document.title = `ran ${origin}`</script>"))
    await person.sees("ran", "#result pre")
    await person.page.navigate(await person.ask("document.querySelector('#result a[download]').href"))
    assert await person.ask("[document.contentType, document.title]") == ["text/plain", ""]


@pytest.mark.slow
async def test_long_output_is_cut_and_says_so(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    url = site.add("/long", "<!DOCTYPE html>" + "long " * 50_000)
    await ended(client, await submit(client, "scrape", url=url, render=False))
    await person.click(row(url, "//button[@title]"))
    await person.sees("The first 200,000 of", "#result")
    assert await person.ask("document.querySelector('#result pre').textContent.length") == 200_000


@pytest.mark.slow
async def test_picture_is_given_back_when_another_job_is_chosen(person: Person, site: Site) -> None:
    await person.submits(site.url("/ok?1"))
    await person.until("document.querySelector('.picture img')?.naturalWidth")
    url = json.dumps(await person.ask("document.querySelector('.picture img').src"))
    await person.submits(site.url("/ok?2"))
    await person.until(f"![undefined, {url}].includes(document.querySelector('.picture img')?.src)")
    image = "Object.assign(new Image(), {src: %s}).decode().then(() => 'there', () => 'gone')"
    assert await person.ask(image % url) == "gone"


@pytest.mark.parametrize(
    ("field", "text", "told"),
    [
        ("quality", "400", "must be at least 1 and at most 100"),
        pytest.param("height", "x", "must be an integer", marks=pytest.mark.slow),
    ],
)
async def test_fault_is_told_at_its_field(person: Person, site: Site, field: str, text: str, told: str) -> None:
    await person.type(f"#{field}", text)
    await person.submits(site.url("/ok"))
    await person.until(f"document.activeElement.id === '{field}'")
    fault = f"document.getElementById(document.querySelector('#{field}').getAttribute('aria-describedby')).textContent"
    assert told in await person.ask(fault)


async def test_fault_of_a_further_field_is_told_at_its_box(person: Person, site: Site) -> None:
    await person.click("xpath=//summary[contains(., 'JSON')]")
    await person.type("#further", '{"retries": 9}')
    await person.submits(site.url("/ok"))
    await person.sees("retries: must be at least 0 and at most 5", ".field:has(#further) .fault")


# ---- The queue


async def test_job_of_another_client_appears(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    await person.sees("Live", "#live")
    await submit(client, "scrape", url=site.url("/ok"))
    await until_state(person, site.url("/ok"), "done")


async def test_running_job_is_cancelled(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    gate = Gate(site)
    await person.submits(gate.url)
    await until_state(person, gate.url, "running")
    await person.click(row(gate.url, "//button[.='Cancel']"))
    await until_state(person, gate.url, "failed")
    await person.sees("cancelled", "#result .wrong")
    (job,) = [job for job in (await client.get("/v1/jobs?status=failed")).json()["jobs"] if job["url"] == gate.url]
    assert (await client.get(f"/v1/jobs/{job['job_id']}")).json()["error_detail"]["code"] == "cancelled"


async def test_failed_job_is_retried(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    url = site.add("/comes-back", "not yet", status=500)
    await ended(client, await submit(client, "screenshot", url=url, fail_on_status=[500]))
    await person.sees("500", "#jobs")
    site.add("/comes-back", "now")
    await person.click(row(url, "//button[.='Retry']"))
    await person.until("document.querySelector('.picture img')?.naturalWidth")


async def test_retry_without_what_was_wiped_says_so(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    url = site.add("/with-a-cookie", "no", status=500)
    await ended(client, await submit(client, "screenshot", url=url, fail_on_status=[500], cookies="a=b"))
    await person.click(row(url, "//button[.='Retry']"))
    await person.sees("request.cookies: was wiped when the job ended", "#toast")


@pytest.mark.slow
async def test_filter_shows_jobs_of_one_state(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    await person.click("xpath=//label[.='Failed']")
    await ended(client, await submit(client, "scrape", url=site.url("/ok?done")))
    never = {"selector": "#never", "timeout_ms": 1}
    await ended(client, await submit(client, "scrape", url=site.url("/ok?failed"), wait_for=never))
    await until_state(person, site.url("/ok?failed"), "failed")
    states = "[...new Set([...document.querySelectorAll('#jobs .state')].map(at => at.textContent))]"
    assert await person.ask(states) == ["Failed"]


@pytest.mark.slow
async def test_many_jobs_are_shown_as_they_are(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    await person.sees("Live", "#live")
    async with trio.open_nursery() as nursery:
        for number in range(400):
            nursery.start_soon(functools.partial(submit, client, "scrape", url=site.url(f"/ok?{number}"), render=False))
    await person.until("!document.querySelector('#jobs [data-state=queued], #jobs [data-state=running]')")
    shown = await person.ask("[...document.querySelectorAll('#jobs li')].map(row => row.dataset.job)")
    listed = [job["job_id"] for job in (await client.get("/v1/jobs?limit=40")).json()["jobs"]]
    # The order of those of one millisecond is not told.
    assert (set(listed) - set(shown), len(set(shown)) == len(shown) <= 300) == (set(), True)


async def test_events_that_were_missed_are_made_up_for(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    await ended(client, await submit(client, "scrape", url=site.url("/ok"), render=False))
    await until_state(person, site.url("/ok"), "done")
    await person.ask("[...known.keys()].forEach(forget); source.dispatchEvent(new MessageEvent('reset', {data: '{}'}))")
    await until_state(person, site.url("/ok"), "done")


async def test_event_is_newer_than_the_list_that_is_read_meanwhile(person: Person, site: Site) -> None:
    gate = Gate(site)
    await person.submits(gate.url)
    await until_state(person, gate.url, "running")
    # The answer is there, and is kept back.
    await person.ask("""const real = fetch; fetch = async (path, options) => {
        const answer = await real(path, options);
        if (path.includes("status=running")) await new Promise(resolve => window.goOn = resolve);
        return answer;
    }; null""")
    await person.click("xpath=//label[.='Running']")
    await person.until("window.goOn !== undefined")
    gate.open()
    await person.until("document.querySelector('#result .state').dataset.state === 'done'")
    await person.ask("goOn(), null")
    await person.until("touched === null")
    assert await person.ask("document.querySelectorAll('#jobs li').length") == 0


async def test_chosen_job_that_is_gone_is_told(person: Person) -> None:
    job = {"job_id": "00000000-0000-4000-8000-000000000000", "service": "scrape", "url": "x", "status": "queued"}
    await person.sees("Live", "#live")
    await person.ask(f"choose({json.dumps(job | {'meta': {}})}); reload()")
    await person.sees("there is no job of this id", "#result-body")
    assert await person.ask("document.querySelector('#result-does').childElementCount") == 0


async def test_hidden_tab_holds_no_connection(person: Person) -> None:
    await person.sees("Live", "#live")
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
    turn = f"{hide}; document.dispatchEvent(new Event('visibilitychange'))"
    await person.ask(turn % "true")
    assert await person.ask("source.readyState === EventSource.CLOSED") is True
    await person.ask(turn % "false")
    await person.until("source.readyState === EventSource.OPEN")


@pytest.mark.slow
async def test_row_that_leaves_gives_its_focus_to_the_queue(person: Person, site: Site) -> None:
    gate = Gate(site)
    await person.click("xpath=//label[.='Running']")
    await person.submits(gate.url)
    await until_state(person, gate.url, "running")
    await person.tabs_to("at.textContent === 'Cancel' && at.closest('#jobs') !== null")
    await person.press("Enter")
    await person.until("!document.querySelector('#jobs li')")
    assert await person.ask("document.activeElement.id") == "queue-title"


@pytest.mark.slow
async def test_gallery_keeps_the_newest(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    await person.sees("Live", "#live")
    for number in range(13):
        await ended(client, await submit(client, "screenshot", url=site.url(f"/ok?{number}")))
    await person.until(f"document.querySelector('#gallery button[title={json.dumps(site.url('/ok?12'))}]')")
    titles = await person.ask("[...document.querySelectorAll('#gallery button')].map(tile => tile.title)")
    assert titles == [site.url(f"/ok?{number}") for number in range(12, 0, -1)]


async def test_gallery_shows_small_copies(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    await ended(client, await submit(client, "screenshot", url=site.url("/ok")))
    tile = f"document.querySelector('#gallery button[title={json.dumps(site.url('/ok'))}]')"
    await person.until(f"{tile} && ({tile}.scrollIntoView(), true)")
    await person.until(f"{tile}.querySelector('img').naturalWidth === 360")


# ---- Keyboard


async def test_keyboard_alone_submits_and_cancels(person: Person, site: Site) -> None:
    gate = Gate(site)
    await person.tabs_to("at.id === 'url'")
    await person.type(None, gate.url)
    await person.press("Enter")
    await until_state(person, gate.url, "running")
    await person.tabs_to("at.textContent === 'Cancel' && at.closest('#jobs') !== null")
    await person.press("Enter")
    await until_state(person, gate.url, "failed")
    # The button is gone: the focus stays in its row.
    assert await person.ask("document.activeElement.title") == gate.url


# ---- Hostile texts


HOSTILE = "<img/src=x/onerror=document.title='hacked'>"


async def test_hostile_texts_are_shown_as_they_are(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    text = HOSTILE.replace("<", "&lt;")
    body = f'<title>{text}</title><p>{text}</p><a href="odd:scheme">odd</a><a href="/ok">{text}</a>'
    site.add("/hostile", f"<!DOCTYPE html>{body}")
    url = site.url(f"/hostile?{HOSTILE.replace(chr(39), '')}")
    await ended(client, await submit(client, "scrape", url=url, outputs=["text", "links"]))
    await person.click(row(url, "//button[@title]"))
    await person.sees(HOSTILE, "#result pre")
    await person.sees(HOSTILE, ".facts")
    await person.click("xpath=//div[@id='result-body']//label[.='links']")
    await person.sees(HOSTILE, ".links")
    await person.sees("odd:scheme", ".links")
    strange = "document.querySelectorAll('img[src=x], [href^=odd], iframe').length"
    assert (await person.ask(strange), await person.ask("document.title")) == (0, "Cleariflow")


@pytest.mark.slow
async def test_links_of_a_page_learn_nothing_of_this_one(person: Person, client: httpx.AsyncClient, site: Site) -> None:
    url = site.add("/linked", '<!DOCTYPE html><a href="/ok">a link</a>')
    await ended(client, await submit(client, "scrape", url=url, outputs=["links"]))
    await person.click(row(url, "//button[@title]"))
    await person.sees("a link", ".links")
    rels = await person.ask("[...document.querySelectorAll('#result a[target]')].map(link => link.rel)")
    assert rels == ["noopener noreferrer"] * 2


# ---- The key


@pytest.fixture
def key(running: Running) -> Iterator[str]:
    """A key that the shared service asks for during the test."""
    command = [sys.executable, str(PROGRAM), "keys", "add", "people", "--data-dir", str(running.folder)]
    yield subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (running.folder / "keys.json").unlink()


async def test_key_is_asked_for_and_used(key: str, person: Person, site: Site) -> None:
    await person.until("document.querySelector('dialog').open")
    await person.type(None, key)
    await person.press("Enter")
    await person.sees("API key: set", "header")
    await person.sees("Live", "#live")
    await person.submits(site.url("/ok"))
    await person.until("document.querySelector('.picture img')?.naturalWidth")
    shown = await person.ask(
        "document.documentElement.outerHTML + location + document.querySelector('#key-text').value"
    )
    assert (key in shown, "$CLEARIFLOW_API_KEY" in shown) == (False, True)
    assert await person.ask("Object.values(localStorage).length + document.cookie") == "0"


async def test_wrong_key_is_asked_for_again_and_forgotten(key: str, person: Person) -> None:
    await person.until("document.querySelector('dialog').open")
    await person.type(None, "wrong")
    await person.press("Enter")
    await person.sees("does not know this key", "dialog[open]")
    await person.click("#key-forget")
    await person.sees("needs an API key", "dialog[open]")
    assert await person.ask("sessionStorage.length") == 0


@pytest.mark.slow
async def test_key_that_no_header_can_carry_is_not_taken(key: str, person: Person) -> None:
    await person.until("document.querySelector('dialog').open")
    await person.type(None, "ключ")
    await person.press("Enter")
    assert await person.ask("[document.querySelector('dialog').open, sessionStorage.length]") == [True, 0]


@pytest.mark.slow
async def test_escape_closes_the_question_for_the_key(key: str, person: Person) -> None:
    await person.until("document.querySelector('dialog').open")
    await person.press("Escape")
    await person.sees("No key", "#live")


# ---- Behind a proxy, and after a loss


@asynccontextmanager
async def open_prefix_proxy(target: str, prefix: str, port: int = 0) -> AsyncIterator[str]:
    """A reverse proxy that takes a prefix off the path: the URL that leads to the target."""

    async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)

    async def serve(client: trio.SocketStream) -> None:
        # What a browser sends first is a whole head.
        method, path, rest = bytes(await client.receive_some() or b"- - -").split(b" ", 2)
        if not path.startswith(prefix.encode()):
            return
        # One request for each connection: no other head is looked for.
        rest = rest.replace(b"Connection: keep-alive", b"Connection: close")
        path = path.removeprefix(prefix.encode()) or b"/"
        async with await trio.open_tcp_stream("127.0.0.1", int(target.rpartition(":")[2])) as server:
            async with open_tasks() as tasks:
                await server.send_all(b" ".join((method, path, rest)))
                tasks.start_soon(pump, client, server)
                await pump(server, client)
                tasks.cancel_scope.cancel()

    (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
    async with open_tasks() as tasks:
        tasks.start_soon(trio.serve_listeners, serve, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}{prefix}"


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", "/"])
async def test_page_works_below_a_prefix(page: cdp.Page, site: Site, tmp_path: Path, ending: str) -> None:
    async with open_server(tmp_path, "--root-path", "/shots") as server:
        async with open_prefix_proxy(server.url, "/shots") as url:
            await page.navigate(url + ending)
            person = Person(page)
            await person.sees("Live", "#live")
            await person.submits(site.url("/ok"))
            await person.until("document.querySelector('.picture img')?.naturalWidth")
            assert f"{url}/v1/screenshot" in await person.ask("document.querySelector('#snippet').textContent")


@pytest.mark.slow
async def test_stream_that_was_refused_is_opened_again(person: Person) -> None:
    await person.sees("Live", "#live")
    await person.ask("""const real = EventSource; EventSource = function (url) {
        EventSource = real;
        return new real(new URL("unknown", url));
    }; start()""")
    await person.sees("Reconnecting", "#live")
    await person.sees("Live", "#live")


@pytest.mark.slow
async def test_page_comes_back_after_a_loss(page: cdp.Page, running: Running, site: Site) -> None:
    async with open_prefix_proxy(running.url, "") as url:
        await page.navigate(url)
        person = Person(page)
        await person.sees("Live", "#live")
    await person.sees("Reconnecting", "#live")
    async with open_prefix_proxy(running.url, "", int(url.rpartition(":")[2])):
        await person.sees("Live", "#live")
        await person.submits(site.url("/ok"))
        await person.until("document.querySelector('.picture img')?.naturalWidth")


# ---- The request as code


@pytest.mark.slow
@pytest.mark.parametrize("language", ["curl", "Python"])
async def test_code_of_the_request_makes_the_picture(person: Person, site: Site, tmp_path: Path, language: str) -> None:
    await person.click("#code summary")
    await person.click(f"xpath=//label[.='{language}']")
    await person.type("#width", "320")
    await person.type("#url", site.url('/ok?it\'s="quoted"'))
    code = await person.ask("document.querySelector('#snippet').textContent")
    command = ["sh", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    environment = {**os.environ, "NO_PROXY": "*"}
    await trio.run_process(command, cwd=tmp_path, env=environment, capture_stderr=True)
    assert Image.open(BytesIO((tmp_path / "page.jpg").read_bytes())).size == (320, 800)
