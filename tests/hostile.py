"""Pages for the torture run: harmless ones that name their job, hostile ones, and what may become of a job on each.

    pages = mount(site)
    url = pages.url("small", token)

Every job has a token of its own, which its page shows and its background is coloured by, so that results that were
mixed up are noticed. Hostile pages hold a connection open, which tells when they are gone.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from string import Template
from time import time

import attrs
import trio

from tests.site import Answer, ClientGone, Exchange, Site, css_colour, page

TOKEN = re.compile(r"torture-[0-9a-f]{16}")
PARAGRAPHS = 2000
BANDS, BAND_PX = 6, 500
BIG_BYTES = 20 * 2**20
# As fast as this, a page that never ends is not what keeps the site busy.
ENDLESS_CHUNK, ENDLESS_PAUSE_S = b"<p>and so on</p>" * 1000, 0.02


def colour_of(token: str, index: int = 0) -> tuple[int, int, int]:
    """The background of a job's page, or of one of its bands."""
    red, green, blue = hashlib.sha256(f"{token}/{index}".encode()).digest()[:3]
    return red, green, blue


@attrs.frozen
class Kind:
    """A kind of page: what it is, and the written table's row: what may become of a job on it without any fault.

    `outcomes` are `done` or codes of failed jobs.
    """

    name: str
    outcomes: frozenset[str]
    make: Callable[[Exchange, str], Awaitable[Answer | None]]
    hostile: bool = True
    weight: float = 1.0
    eats_memory: bool = False


KINDS: dict[str, Kind] = {}


# ---- Harmless pages --------------------------------------------------------------------------------------------------


def _harmless(name: str, markup: Callable[[str], bytes], *, weight: float = 1.0) -> None:
    async def make(_exchange: Exchange, token: str) -> Answer:
        return Answer(markup(token))

    KINDS[name] = Kind(name, frozenset({"done"}), make, hostile=False, weight=weight)


def style_of(token: str) -> str:
    """The page's own background."""
    return f"<style>body{{margin:0;background:{css_colour(colour_of(token))}}}</style>"


def small(token: str) -> bytes:
    """One line."""
    return page(f'<p id="token">{token}</p>', style_of(token), token)


def _long(token: str) -> bytes:
    return page("".join(f"<p>{token} {number}</p>" for number in range(PARAGRAPHS)), style_of(token), token)


def _bands(token: str) -> bytes:
    bands = "".join(
        f'<div style="height:{BAND_PX}px;background:{css_colour(colour_of(token, index))}">{token}</div>'
        for index in range(BANDS)
    )
    return page(bands, "<style>body{margin:0}</style>", token)


def _app(token: str) -> bytes:
    # Everything comes by script, in two steps.
    script = Template("""<script>
onload = async () => {
    const ask = async step => (await fetch(`/torture/data?token=$token&step=$${step}`)).json()
    const {text} = await ask(1), {colour} = await ask(2)
    document.title = text
    document.body.style.background = colour
    document.body.innerHTML = `<p id="ready">$${text}</p>`
}</script>""")
    return page("<p>loading</p>", "<style>body{margin:0}</style>" + script.substitute(token=token))


def _button(token: str) -> bytes:
    script = "document.body.insertAdjacentHTML('beforeend', `<p id=ready>clicked</p>`)"
    return page(f'<p>{token}</p><button id="go" onclick="{script}">go</button>', style_of(token), token)


_harmless("small", small, weight=5)
_harmless("long", _long)
_harmless("bands", _bands)
_harmless("app", _app, weight=2)
_harmless("button", _button)


# ---- Hostile pages ---------------------------------------------------------------------------------------------------

# A page that does not let itself be captured in time, and one that may.
STUCK = frozenset({"timeout"})
SLOW = frozenset({"timeout", "done"})
# A page that may also break its own renderer or the channel to it.
CRASHING = SLOW | {"page_crashed", "too_large"}

HOLDING = """<script>
const address = (part, more) => `/torture/$${part}?token=$token&random=$${Math.random()}$${more || ""}`
fetch(address("hold")).catch(() => 0)
const work = code => new Worker(URL.createObjectURL(new Blob([code])))
const megabytes = Number(new URLSearchParams(location.search).get("megabytes"))
const later = work => addEventListener("load", () => setTimeout(work))
</script>"""
# Random numbers, which no memory manager makes smaller.
EAT = """
const kept = []
let x = 1
function eat() {
    const part = new Uint32Array(1 << 22)
    for (let i = 0; i < part.length; i++) { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; part[i] = x }
    kept.push(part)
    if (kept.length * 16 < megabytes) setTimeout(eat)
}
eat()
"""


def _hostile(
    name: str, outcomes: frozenset[str], script: str, body: str = "", *, weight: float = 1.0, eats_memory: bool = False
) -> None:
    """A page that holds a connection and then runs a script; `$token` and `$$` as in string.Template."""
    template = Template(f"{HOLDING}{body}<p>$token</p><script>{script}</script>")

    async def make(_exchange: Exchange, token: str) -> Answer:
        return Answer(page(template.substitute(token=token), title=token))

    KINDS[name] = Kind(name, outcomes, make, weight=weight, eats_memory=eats_memory)


_hostile("endless_script", STUCK, "for (;;);")
_hostile("endless_script_later", SLOW, "later(() => { for (;;); })")
_hostile("endless_promises", STUCK, "(function again() { Promise.resolve().then(again) })()")
_hostile(
    "endless_timers", SLOW, "for (let i = 0; i < 50; i++) setInterval(() => { document.title = Math.random() }, 0)"
)
_hostile("endless_worker", SLOW, "work('for (;;);'); work('for (;;);')")
_hostile(
    "synchronous_request", STUCK, "const q = new XMLHttpRequest(); q.open('GET', address('hold'), false); q.send()"
)
# Chromium ends it itself after some rounds: ERR_TOO_MANY_REDIRECTS.
_hostile("location_loop", SLOW | {"navigation_failed"}, "location.replace(address('location_loop'))")
_hostile("reload_storm", SLOW, "setInterval(() => location.reload(), 10)")
_hostile(
    "dialog_storm",
    SLOW,
    "addEventListener('beforeunload', event => { event.preventDefault(); event.returnValue = 'stay' });"
    "for (let i = 0; i < 100; i++) { alert(i); confirm(i); prompt(i) }"
    "setInterval(() => { alert('again'); confirm('again'); prompt('again'); print() }, 5)",
)
_hostile("leaving_dialogs", SLOW, "onbeforeunload = () => 'stay'; setInterval(() => { location.href = '/ok' }, 20)")
_hostile("print_storm", SLOW, "later(() => setInterval(() => print(), 10))")
_hostile("memory", CRASHING, EAT, weight=0.6, eats_memory=True)
_hostile(
    "memory_of_worker",
    CRASHING,
    "work(`const megabytes = $${megabytes};" + EAT + "`)",
    weight=0.6,
    eats_memory=True,
)
_hostile(
    "growing_document",
    CRASHING,
    "setInterval(() => { for (let i = 0; i < 500; i++) "
    "document.body.append(Object.assign(document.createElement('p'), {textContent: 'more '.repeat(20)})) }, 0)",
)
_hostile(
    "growing_text", CRASHING, "for (let text = 'x'; ; text += text) document.body.textContent = text.slice(0, 1e7)"
)
_hostile("popup_storm", SLOW, "setInterval(() => { for (let i = 0; i < 20; i++) open(address('beat')) }, 10)")
_hostile(
    "download_storm",
    SLOW,
    "setInterval(() => { for (let i = 0; i < 5; i++) "
    "Object.assign(document.createElement('a'), {href: address('attachment'), download: 'file'}).click() }, 20)",
)
_hostile("long_address", CRASHING, "later(() => history.pushState(null, '', '#' + 'a'.repeat(40e6)))")
_hostile("long_console", CRASHING, "later(() => console.log('a'.repeat(40e6)))")
_hostile(
    "console_storm",
    SLOW,
    "setInterval(() => { for (let i = 0; i < 200; i++) console[i % 2 ? 'log' : 'error']('a'.repeat(1000)) }, 1)",
)
_hostile(
    "huge_canvas",
    CRASHING,
    "const c = document.createElement('canvas'); c.width = c.height = 16000; document.body.append(c);"
    "const b = c.getContext('2d'); setInterval(() => { b.fillStyle = 'red'; b.fillRect(0, 0, 16000, 16000);"
    "b.getImageData(0, 0, 4000, 4000) }, 0)",
)
_hostile(
    "webgl_storm",
    CRASHING,
    "setInterval(() => { const c = document.createElement('canvas'); c.width = c.height = 4096;"
    "const g = c.getContext('webgl'); if (g) { g.clearColor(1, 0, 0, 1); g.clear(g.COLOR_BUFFER_BIT) }"
    "document.body.append(c) }, 5)",
)
_hostile(
    "websocket_storm",
    SLOW,
    "setInterval(() => { for (let i = 0; i < 5; i++) new WebSocket('ws://' + location.host + address('beat')) }, 20)",
)
_hostile("service_worker", SLOW, "navigator.serviceWorker.register(address('service_worker.js'))")
_hostile(
    "history_loop",
    SLOW,
    "later(() => { for (let i = 0; i < 100; i++) history.pushState(i, '', '#' + i);"
    "setInterval(() => history.go(Math.random() < .5 ? 1 : -1), 1) })",
)
_hostile(
    "deep_recursion",
    SLOW,
    "const deep = () => deep(); for (let i = 0; i < 200; i++) { try { deep() } catch (error) { error } }",
)
_hostile(
    "deep_document",
    CRASHING,
    "let place = document.body; for (let i = 0; i < 50000; i++) place.append(place = document.createElement('div'))",
)
_hostile("many_elements", SLOW, "document.body.innerHTML = '<i>$token</i><b>x</b>'.repeat(50000)")
_hostile(
    "animations",
    SLOW,
    "document.body.innerHTML = '<i>x</i>'.repeat(2000); (function frame() { requestAnimationFrame(frame);"
    "document.body.style.paddingTop = Math.random() * 99 + 'px' })()",
    "<style>@keyframes turn { to { transform: rotate(1turn); filter: blur(5px) } }"
    "i { display: inline-block; animation: turn .3s infinite linear }</style>",
)
_hostile("fetch_loop", CRASHING, "for (;;) fetch(address('beat')).catch(() => 0)")
_hostile("fetch_storm", SLOW, "for (let i = 0; i < 6; i++) (async () => { for (;;) await fetch(address('beat')) })()")
_hostile("storage_flood", SLOW, "for (let i = 0; ; i++) { try { localStorage[i] = 'x'.repeat(1e5) } catch { break } }")
_hostile("silent_image", SLOW, "", '<img src="/torture/hold?token=$token&image">')


def _by_hand(
    name: str, outcomes: frozenset[str], *, weight: float = 1.0
) -> Callable[[Callable[[Exchange, str], Awaitable[Answer | None]]], None]:
    def register(make: Callable[[Exchange, str], Awaitable[Answer | None]]) -> None:
        KINDS[name] = Kind(name, outcomes, make, weight=weight)

    return register


@_by_hand("never", STUCK, weight=2)
async def _never(exchange: Exchange, _token: str) -> None:
    await exchange.hold()


HTML_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n\r\n<!DOCTYPE html>"


@_by_hand("endless_body", CRASHING)
async def _endless_body(exchange: Exchange, token: str) -> None:
    await exchange.send_raw(HTML_HEAD + token.encode())
    while True:
        await exchange.send_raw(ENDLESS_CHUNK)
        await trio.sleep(ENDLESS_PAUSE_S)


@_by_hand("dripping_body", SLOW)
async def _dripping_body(exchange: Exchange, token: str) -> None:
    await exchange.send_raw(HTML_HEAD + token.encode())
    while True:
        await exchange.send_raw(b"<p>drip</p>")
        await exchange.hold(0.2)


@_by_hand("reset", frozenset({"navigation_failed"}), weight=0.5)
async def _reset(exchange: Exchange, _token: str) -> None:
    await exchange.reset()


@_by_hand("bad_http", frozenset({"navigation_failed"}), weight=0.5)
async def _bad_http(exchange: Exchange, _token: str) -> None:
    await exchange.send_raw(b"This is not an HTTP answer.\r\n\r\n")


@_by_hand("redirect_loop", frozenset({"navigation_failed"}), weight=0.5)
async def _redirect_loop(exchange: Exchange, token: str) -> Answer:
    return Answer(status=302, headers=(("Location", f"/torture/redirect_loop?token={token}"),))


@_by_hand("attachment", frozenset({"not_a_page"}), weight=0.5)
async def _attachment(_exchange: Exchange, _token: str) -> Answer:
    headers = (("Content-Disposition", "attachment"),)
    return Answer(bytes(10**6), "application/octet-stream", headers=headers)


@_by_hand("big_document", CRASHING)
async def _big_document(_exchange: Exchange, token: str) -> Answer:
    head, tail = page(f"<p>{token} begins</p>|<p>{token} ends</p>", title=token).split(b"|")
    line = b"<p>" + b"x" * 92 + b"</p>\n"
    return Answer(head + line * (BIG_BYTES // len(line)) + tail)


@_by_hand("frames_in_frames", SLOW)
async def _frames_in_frames(exchange: Exchange, token: str) -> Answer:
    depth = int(exchange.request.argument("depth", "0")) + 1
    frames = f'<iframe src="/torture/frames_in_frames?token={token}&depth={depth}"></iframe>' * 2
    return Answer(page(Template(HOLDING).substitute(token=token) + frames if depth == 1 else frames, title=token))


# ---- What pages ask for, and the watch over them ---------------------------------------------------------------------


async def _data(exchange: Exchange, token: str) -> Answer:
    await exchange.hold(0.05)
    colour = css_colour(colour_of(token))
    body = f'{{"text": "{token}"}}' if exchange.request.argument("step", "1") == "1" else f'{{"colour": "{colour}"}}'
    return Answer(body.encode(), "application/json")


async def _hold(exchange: Exchange, _token: str) -> None:
    await exchange.hold()


async def _beat(_exchange: Exchange, _token: str) -> Answer:
    return Answer(b"beat", "text/plain")


async def _service_worker(exchange: Exchange, token: str) -> Answer:
    script = f"(async () => {{ for (;;) await fetch('/torture/beat?token={token}&random=' + Math.random()) }})()"
    return Answer(script.encode(), "text/javascript")


PARTS = {"data": _data, "hold": _hold, "beat": _beat, "service_worker.js": _service_worker}


class Pages:
    """The mounted pages and what was seen of each job; made by `mount`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.attempts: Counter[str] = Counter()
        """How often a job's own page was asked for."""
        self.last: dict[str, float] = {}
        """When a job was last heard of: a request came, or one that was being answered ended."""
        self.open: Counter[str] = Counter()
        """Requests that are being answered, by job."""

    def url(self, kind: str, token: str) -> str:
        return self._site.url(f"/torture/{kind}?token={token}")

    def watched(self, name: str, make: Callable[[Exchange, str], Awaitable[Answer | None]]) -> None:
        """Serve something, noting when."""

        async def handler(exchange: Exchange) -> Answer | None:
            token = exchange.request.argument("token", "")
            if name in KINDS:
                self.attempts[token] += 1
            self.last[token] = time()
            self.open[token] += 1
            try:
                return await make(exchange, token)
            except (ClientGone, trio.BrokenResourceError):
                return None
            finally:
                self.last[token] = time()
                self.open[token] -= 1
                if not self.open[token]:
                    del self.open[token]

        self._site.add_route(f"/torture/{name}", handler)


def mount(site: Site) -> Pages:
    """Serve all of it below /torture/."""
    pages = Pages(site)
    for name, make in PARTS.items():
        pages.watched(name, make)
    for kind in KINDS.values():
        pages.watched(kind.name, kind.make)
    return pages
