"""docs/request.md: its tables are those of the option classes, and every example does what it says. README.md and the
other documents: their tables are those of the code, and their links lead somewhere.

An example is a whole request, fenced as `json`, after a comment that names its service, the error code where it is to
fail, and itself: `<!-- scrape fails timeout: timeout_ms -->`. It runs against pages of this module, which stand at
`https://example.com` in the document, and its check below must fail when a field does nothing. `python -m
tests.test_docs` makes the tables anew.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import attrs
import pytest
import trio
from PIL import Image
from prometheus_client import Metric

import cdp
import cleariflow
from cdp import devices, options, settle, visit
from cdp.options import Action
from cdp.texts import Row, rows
from cdp.validation import ValidationError, fields_of
from cdp.visit import Progress
from cleariflow import (
    ERROR_CODES,
    REQUEST_CLASSES,
    BaseRequest,
    Config,
    JobFailed,
    Output,
    Request,
    ScrapeRequest,
    ScreenshotRequest,
    ServiceName,
    State,
    StatusPattern,
    attempt,
    open_service,
    parse_request,
    request_document,
    result_of,
)
from tests.site import AUTH_PASSWORD, AUTH_USER, Answer, Exchange, Site, band_colour, css_colour, open_site, page
from tests.test_service import FakePool, open_disk

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "request.md"
HOW = "the tables are not those of the code: python -m tests.test_docs makes them anew"

# ---- Tables ----------------------------------------------------------------------------------------------------------

# In `rows`, what JSON has for a class that only the service knows.
WORDS = {StatusPattern: "integer or text"}
ACTIONS = get_args(Action)
OBJECTS = (
    options.Viewport,
    options.Cookie,
    options.WaitFor,
    options.Clip,
    options.Geolocation,
    options.Auth,
    options.Point,
    options.Resize,
    options.Step,
    *ACTIONS,
)
# By the names of the document's comments: the fields of both services, of each alone, and of objects within.
CLASSES: dict[str, type] = {"request": BaseRequest, **dict(REQUEST_CLASSES.items())}
CLASSES |= {cls.__name__: cls for cls in OBJECTS}
# Where links to a type lead; those of the actions are told together.
LINKED = {cls.__name__: f"type-{cls.__name__.lower()}" for cls in OBJECTS[:8]} | {"Action": "actions"}
TOP = ("request", *REQUEST_CLASSES)

BLOCK = re.compile(r"<!-- (fields|index|devices)(?: (\w+)(?:: ([\w, ]+))?)? -->\n.*?<!-- /\1 -->", re.DOTALL)


def own_rows(group: str) -> list[Row]:
    """The rows of the fields that belong to a name of `CLASSES` and to no other."""
    cls = CLASSES[group]
    if group in TOP:
        others = fields_of(BaseRequest) if group in REQUEST_CLASSES else {}
    else:
        # An action's type is what its heading says.
        others = {field.name: None for field in attrs.fields(cls) if field.inherited}
        others |= {"type": None} if cls in ACTIONS else {}
    return [row for row in rows(cls, WORDS) if row.name not in others]


def anchor(group: str, name: str) -> str:
    """Of a row; the two services have a `selector` each."""
    return f"field-{name}" + ("-scrape" if group == "scrape" and name in fields_of(ScreenshotRequest) else "")


def table(group: str, names: str | None) -> str:
    """The table of some fields of a group, or of all."""
    shown = own_rows(group)
    if names is not None:
        wanted = names.split(", ")
        shown = [row for name in wanted for row in shown if row.name == name]
        assert [row.name for row in shown] == wanted, f"{group} has no such fields: {names}"
    lines = ["| field | type | default | limits | meaning |", "|---|---|---|---|---|"]
    for row in shown:
        kind = re.sub(rf"\b({'|'.join(LINKED)})\b", lambda word: f"[{word[0]}](#{LINKED[word[0]]})", row.type)
        mark = f'<a id="{anchor(group, row.name)}"></a>' if group in TOP else ""
        default = row.default if row.default in ("", "required") else f"`{row.default}`"
        cells = (f"{mark}`{row.name}`", kind, default, row.limits, row.text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if group in TOP:
        return "\n".join(lines)
    title = ""
    if CLASSES[group] in ACTIONS:
        names_of_it = ", ".join(f"`{one}`" for one in get_args(fields_of(CLASSES[group])["type"]))
        title = f"{names_of_it}: {(CLASSES[group].__doc__ or '').partition(chr(10))[0]}\n\n"
    return f'<a id="type-{group.lower()}"></a>\n\n{title}' + "\n".join(lines)


def index() -> str:
    """Links to all fields."""
    fields = sorted((row.name, anchor(group, row.name)) for group in TOP for row in own_rows(group))
    return "All fields: " + ",\n".join(f"[{name}](#{place})" for name, place in fields) + "."


def with_tables(text: str) -> str:
    """The document with its generated parts made anew."""

    def make(block: re.Match[str]) -> str:
        kind, group, names = block.groups()
        if kind == "fields":
            made = table(group, names)
        elif kind == "index":
            made = index()
        else:
            made = ",\n".join(name for name in devices.names() if not name.endswith(" landscape"))
        return f"{block[0].partition(chr(10))[0]}\n{made}\n<!-- /{kind} -->"

    return BLOCK.sub(make, text)


def test_tables_are_those_of_the_options() -> None:
    text = DOCUMENT.read_text()
    # pytest would compare the documents letter by letter.
    assert (with_tables(text) == text) is True, HOW


def all_fields() -> set[tuple[str, str]]:
    """Group and name of every field that a request may have."""
    return {(group, row.name) for group in CLASSES for row in own_rows(group)}


def test_every_field_has_a_row() -> None:
    told = set()
    for kind, group, names in BLOCK.findall(DOCUMENT.read_text()):
        if kind == "fields":
            told |= {(group, name) for name in (names.split(", ") if names else [row.name for row in own_rows(group)])}
    assert all_fields() - told == set()


def test_table_lists_every_class_of_the_request() -> None:
    """A new object, or a new kind of action, cannot be left out of this module's own lists."""

    def within(kind: Any) -> Iterator[type]:
        if isinstance(kind, type) and attrs.has(kind):
            yield kind
            for inner in fields_of(kind).values():
                yield from within(inner)
        for arm in types_in(kind):
            yield from within(arm)

    found = {cls for request in REQUEST_CLASSES.values() for cls in within(request)}
    assert found - {ScreenshotRequest, ScrapeRequest, StatusPattern} <= set(OBJECTS)


def test_errors_are_those_of_the_service() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (yes|no) \|", DOCUMENT.read_text(), re.MULTILINE))
    assert {code: answer == "yes" for code, answer in told.items()} == ERROR_CODES


# ---- Examples --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Example:
    """A request of the document."""

    name: str
    service: ServiceName
    text: str
    # The error code that it fails with.
    fails: str | None = None


EXAMPLE = re.compile(r"(?:<!-- (screenshot|scrape)(?: fails (\w+))?: (\w+) -->\n)?```json\n(.*?)```", re.DOTALL)


def examples() -> Iterator[Example]:
    for service, fails, name, text in EXAMPLE.findall(DOCUMENT.read_text()):
        assert service, f"no comment says what this example is: {text}"
        yield Example(name, service, text, fails or None)


EXAMPLES = {example.name: example for example in examples()}


def places_of(value: Any, group: str, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[str, str], tuple[Any, ...]]]:
    """Group and name of every field in a JSON value that stands for a class, and where in it."""
    kinds = fields_of(CLASSES[group])
    for name, inner in value.items():
        here = (*path, name)
        yield (owner(group, name), name), here
        if name == "render" and isinstance(inner, dict):
            yield from places_of(inner, group, here)
            continue
        items = [((*here, number), item) for number, item in enumerate(inner)] if isinstance(inner, list) else []
        for place, part in items or [(here, inner)]:
            if isinstance(part, dict) and (found := class_within(kinds[name], part)) is not None:
                yield from places_of(part, found.__name__, place)


def owner(group: str, name: str) -> str:
    """Where the row of a field is found."""
    for shared, cls in (("request", BaseRequest), ("Step", options.Step)):
        if issubclass(CLASSES[group], cls) and name in fields_of(cls):
            return shared
    return group


def class_within(kind: Any, part: dict[str, Any]) -> type | None:
    """The class that an object of this field stands for."""
    if isinstance(kind, type) and attrs.has(kind):
        kinds = fields_of(kind).get("type")
        return kind if kinds is None or part.get("type") in get_args(kinds) else None
    return next((found for arm in types_in(kind) if (found := class_within(arm, part))), None)


def types_in(kind: Any) -> tuple[Any, ...]:
    """The types that a generic one is made of, without what only describes it."""
    arms = get_args(kind)
    return arms[:1] if typing.get_origin(kind) is typing.Annotated else arms


def test_every_field_has_an_example() -> None:
    used = {field for example in EXAMPLES.values() for field, _ in places_of(json.loads(example.text), example.service)}
    assert all_fields() - used == set()


def test_every_example_has_its_own_name_and_a_check() -> None:
    names = [example.name for example in examples()]
    assert len(names) == len(set(names))
    assert set(CHECKS) == {name for name in names if EXAMPLES[name].fails is None}


# ---- The pages of example.com ----------------------------------------------------------------------------------------

TEAL, NAVY, WHITE, CARD = (0, 128, 128), (0, 0, 128), (255, 255, 255), (0, 96, 160)
BANNER, ADVERT, STORY, SUBSCRIBE = (200, 0, 0), (220, 220, 0), (0, 0, 200), (0, 200, 0)
BAND_PX, BANDS = 100, 30
LATE = "That came late"
"""Not in the page's source in one piece."""

ARTICLE = (
    "<article><h1>The article</h1><p>First paragraph.</p><ul><li>One</li><li>Two</li></ul>"
    '<a href="/more" rel="nofollow">Read on</a></article><footer>Imprint</footer>'
)
ARTICLE_HEAD = '<meta name="description" content="What it is about"><style>body { height: 2000px }</style>'
BROWSER = """<pre id="told"></pre><script>
const media = query => matchMedia(query).matches;
told.textContent = JSON.stringify({
  width: innerWidth, height: innerHeight, layout: document.documentElement.clientWidth, scale: devicePixelRatio,
  touch: navigator.maxTouchPoints > 0, agent: navigator.userAgent, languages: navigator.languages,
  zone: Intl.DateTimeFormat().resolvedOptions().timeZone, dark: media('(prefers-color-scheme: dark)'),
  reduced: media('(prefers-reduced-motion: reduce)'), print: media('print')});
</script>"""
WHERE = """<script>navigator.geolocation.getCurrentPosition(({coords: {latitude, longitude, accuracy}}) =>
  document.body.insertAdjacentHTML('beforeend', `<p id="place">${[latitude, longitude, accuracy]}</p>`))</script>"""
APP = """<p id="spinner">Loading</p><noscript style="display: block">Without scripts</noscript><script>
document.body.dataset.width = innerWidth;
addEventListener('load', () => setTimeout(() => {
  spinner.remove();
  document.body.insertAdjacentHTML('beforeend', '<p id="late">That came ' + 'late</p>');
}, 450));</script>"""
LIST = """<ul></ul><script>addEventListener('load', () => { for (const ms of [250, 350, 450])
  setTimeout(() => document.querySelector('ul').append(document.createElement('li')), ms) })</script>"""
THREE_FETCHES = """<p id="count">0</p><script>
const next = async number => {
  await fetch('/price.json');
  count.textContent = number;
  if (number < 3) setTimeout(next, 200, number + 1);
};
addEventListener('load', () => setTimeout(next, 200, 1));</script>"""
COOKIES = """<pre id="jar"></pre><img src="/other/dot.png"><script>
cookieStore.getAll().then(all => { jar.textContent = JSON.stringify(all) })</script>"""
NEWS = "".join(
    f'<div {attribute} style="height: 50px; background: {css_colour(colour)}">{text}</div>'
    for attribute, colour, text in (
        ('id="cookie-banner"', BANNER, "We use cookies"),
        ('class="advert"', ADVERT, "Buy"),
        ("", STORY, "The story"),
        ("", SUBSCRIBE, "Subscribe"),
    )
)
HEAVY = """<img src="/image.png"><video src="/film.mp4" preload="auto"></video><p style="font-family: own">Text</p>
<script src="/analytics.js"></script><script src="/kept.js"></script><script>fetch('/chat/poll')</script>"""
HEAVY_HEAD = "<style>@font-face { font-family: own; src: url(/font.ttf) }</style>"
ADVERTS = '<img src="http://ad.doubleclick.net/banner.png">'
LOGIN = """<form action="/welcome"><input id="name" name="name" value="somebody"><input id="password" name="password">
<button>Sign in</button><label><input type="checkbox" name="remember">Remember me</label>
<input type="checkbox" id="newsletter" name="newsletter" checked></form>"""
MENU = """<style>#menu .entry { display: none; width: 60px } #menu:hover .entry { display: block }</style>
<div id="menu">Menu<div class="entry">Entry</div></div><p id="word">Word</p><script>
addEventListener('contextmenu', event => { document.body.dataset.menu = event.target.className });
addEventListener('dblclick', event => { document.body.dataset.word = event.target.id })</script>"""
ORDER = """<form><select id="size" name="size"><option>Small<option value="L">Large</select>
<select id="colours" name="colours" multiple><option>red<option>green<option>blue</select>
<input type="checkbox" id="gift" name="gift"><input type="checkbox" id="invoice" name="invoice" checked></form>
<p id="sum"></p><script>addEventListener('change', () => {
  sum.textContent = new URLSearchParams(new FormData(document.forms[0])) })</script>"""
LONG = (
    '<div id="box" style="position: absolute; width: 50px; height: 50px; overflow: auto">'
    '<div style="width: 500px; height: 500px"></div></div>'
) + "".join(
    f'<div id="band-{i}" style="height: {BAND_PX}px; background: {css_colour(band_colour(i))}"></div>'
    for i in range(BANDS)
)
LAZY = (
    '<div style="height: 1000px"></div>' * 2 + '<div id="end" style="height: 1000px"></div><script>'
    "new IntersectionObserver(([entry]) => { if (entry.isIntersecting) entry.target.style.background = 'teal' })"
    ".observe(end)</script>"
)
CARD_PAGE = f"""<div id="card" style="position: absolute; left: 40px; top: 40px; width: 200px; height: 100px;
background: {css_colour(CARD)}"></div>"""
FADING = """<style>@keyframes fade { from { background: white } to { background: teal } }
body { animation: fade 60s linear forwards }</style>"""
COMPONENTS = """<div><template shadowrootmode="open"><p>In an open root</p></template></div>
<div><template shadowrootmode="closed"><p>In a closed root</p></template></div>"""
NO_MARGIN = "<style>body { margin: 0 }</style>"

PAGES: dict[str, bytes] = {
    "/article": page(ARTICLE, ARTICLE_HEAD, "The article"),
    "/browser": page(BROWSER),
    "/where": page(WHERE),
    "/app": page(APP),
    "/list": page(LIST),
    "/three-fetches": page(THREE_FETCHES),
    "/image-never-comes": page('<p>Text at once</p><img src="/never">'),
    "/cookies/shown": page(COOKIES),
    "/news": page(NEWS, NO_MARGIN),
    "/heavy": page(HEAVY, HEAVY_HEAD),
    "/with-adverts": page(ADVERTS),
    "/login": page(LOGIN),
    "/welcome": page("<h1>Welcome</h1>"),
    "/menu": page(MENU),
    "/order": page(ORDER),
    "/long": page(LONG, NO_MARGIN),
    "/lazy": page(LAZY, NO_MARGIN),
    "/card": page(CARD_PAGE),
    "/fading": page(FADING),
    "/components": page(COMPONENTS),
}


def add_pages(site: Site) -> None:
    """What stands at https://example.com in the document."""
    for path, body in PAGES.items():
        site.add(path, body)
    site.add("/strict", page("<p>Strict"), headers=[("Content-Security-Policy", "style-src 'none'")])
    site.add("/price.json", '{"price": 5}', "application/json")
    for path in ("/analytics.js", "/kept.js"):
        site.add(path, "", "text/javascript")
    tries = iter((False, True))

    async def resets_once(exchange: Exchange) -> Answer | None:
        if next(tries, True):
            return Answer(page("<p>The second time</p>"))
        await exchange.reset()
        return None

    site.add_route("/resets-once", resets_once)


# ---- Running them ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Made:
    """What an example gave."""

    site: Site
    parsed: Request
    output: Output
    result: dict[str, Any]
    # None where no browser was asked.
    page: cdp.Page | None
    # The same request with other values in some fields.
    again: Callable[..., Awaitable[Made]]

    @property
    def meta(self) -> dict[str, Any]:
        return self.output.meta

    @property
    def html(self) -> str:
        return str(self.result["html"])

    @property
    def told(self) -> Any:
        """What /browser says of itself."""
        return json.loads(self.result["text"])

    @property
    def values(self) -> list[Any]:
        """Of the actions `evaluate`."""
        return [action["value"] for action in self.meta["actions"] if action["type"] == "evaluate"]

    @property
    def paths(self) -> set[str]:
        return {request.path for request in self.site.requests}

    def image(self, name: str | None = None) -> Image.Image:
        return Image.open(BytesIO((self.output.main if name is None else self.output.parts[name]).data))

    def pixel(self, x: int, y: int) -> Any:
        return self.image().convert("RGB").getpixel((x, y))


Run = Callable[[ServiceName, Any], Awaitable[Made]]


def placed(text: str, site: Site, tls_site: Site | None) -> Any:
    """A request of the document, for the sites of the test."""
    text = text.replace("https://example.com", site.url("")).replace('"example.com"', f'"{site.host}"')
    if tls_site is not None:
        text = text.replace("https://self-signed.example", tls_site.url(""))
    return json.loads(text)


@asynccontextmanager
async def open_runner(browser: cdp.Browser, policy: cdp.AddressPolicy, site: Site) -> AsyncIterator[Run]:
    """Runs requests as the service does."""

    async def run(service: ServiceName, given: Any) -> Made:
        opened: list[cdp.Page] = []

        @asynccontextmanager
        async def open_page() -> AsyncIterator[cdp.Page]:
            async with browser.open_page() as one:
                opened.append(one)
                yield one

        parsed = parse_request(service, given, Config())
        with trio.fail_after(60):
            output = await attempt(
                open_page, parsed, policy=policy, max_pixels=Config().max_pixels, progress=Progress()
            )
        result = result_of(service, output.parts, output.meta)
        return Made(
            site,
            parsed,
            output,
            json.loads(json.dumps(result)),
            opened[0] if opened else None,
            lambda **others: run(service, copy.deepcopy(given) | others),
        )

    yield run


@asynccontextmanager
async def open_example(
    example: Example, browser: cdp.Browser, policy: cdp.AddressPolicy, site: Site
) -> AsyncIterator[tuple[Any, Run]]:
    """The example's request for the test's sites, and what runs it."""
    add_pages(site)
    async with AsyncExitStack() as stack:
        tls_site = None
        if "self-signed.example" in example.text:
            tls_site = await stack.enter_async_context(open_site(tls=True))
            add_pages(tls_site)
        yield placed(example.text, site, tls_site), await stack.enter_async_context(open_runner(browser, policy, site))


async def fulfilled(example: Example, given: Any, run: Run, tmp_path: Path) -> None:
    """Run a request and hold what it gives against what the document says."""
    if example.fails is not None:
        with pytest.raises(JobFailed) as caught:
            await run(example.service, given)
        assert caught.value.code == example.fails
        assert re.search(FAILURES[example.name], str(caught.value))
    elif example.name == "retries":
        await retried(given, tmp_path)
    else:
        await CHECKS[example.name](await run(example.service, given))


@pytest.mark.parametrize("name", list(EXAMPLES))
async def test_example(name: str, browser: cdp.Browser, policy: cdp.AddressPolicy, site: Site, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    async with open_example(example, browser, policy, site) as (given, run):
        await fulfilled(example, given, run, tmp_path)


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy that lacks what stands at a place."""
    made = copy.deepcopy(value)
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", list(EXAMPLES))
async def test_example_shows_what_its_fields_do(
    name: str, browser: cdp.Browser, policy: cdp.AddressPolicy, tmp_path: Path
) -> None:
    """Without any of its fields the example's check fails, but for those that another example is for."""
    example = EXAMPLES[name]
    unfelt = []
    for field, path in places_of(json.loads(example.text), example.service):
        if field in SHOWN_ELSEWHERE.get(name, ()):
            continue
        async with open_site() as site, open_example(example, browser, policy, site) as (given, run):
            # What then never comes is not waited for half a minute.
            less = {"timeout_ms": 3000} | without(given, path)
            try:
                with trio.fail_after(10):
                    await fulfilled(example, less, run, tmp_path / str(path))
            except (Exception, pytest.fail.Exception):
                continue
            unfelt.append(field)
    assert unfelt == []


# ---- What they must give ---------------------------------------------------------------------------------------------

CHECKS: dict[str, Callable[[Made], Awaitable[None]]] = {}
# By example: fields that it has for other reasons than to show what they do.
SHOWN_ELSEWHERE: dict[str, set[tuple[str, str]]] = {
    "geolocation": {("request", "wait_for")},
    "wait_for": {("WaitFor", "timeout_ms")},
    "selectors": {("request", "wait_for")},
}
# What the message of a failing example says.
FAILURES = {
    "wait_for_timeout": "#never.* within 200 ms",
    "timeout_ms": "timeout after 300 ms: the server did not answer",
    "fail_on_status": "404",
    "action_failed": "action 1 .click. failed: not done within 200 ms: .*#accept-cookies",
}


def check(function: Callable[[Made], Awaitable[None]]) -> Callable[[Made], Awaitable[None]]:
    """The check of the example of the same name."""
    CHECKS[function.__name__] = function
    return function


@check
async def first(made: Made) -> None:
    assert made.image().format == "PNG"
    assert made.image().height >= 2000


@check
async def url(made: Made) -> None:
    assert "<h1>The article</h1>" in made.html
    assert made.meta["url"] == made.site.url("/article")


@check
async def html(made: Made) -> None:
    assert made.pixel(1270, 10) == TEAL
    assert made.meta["url"] == "about:blank"


@check
async def base_url(made: Made) -> None:
    assert made.result["links"] == [{"url": made.site.url("/shop/contact"), "text": "Contact", "rel": ""}]


@check
async def viewport(made: Made) -> None:
    told = made.told
    assert (told["scale"], told["touch"], told["layout"]) == (2, True, 980)
    assert Image.open(BytesIO(made.output.parts["screenshot"].data)).size == (780, 1200)


@check
async def device(made: Made) -> None:
    told = made.told
    assert "iPhone" in told["agent"]
    assert (told["scale"], told["touch"]) == (3, True)


@check
async def guise(made: Made) -> None:
    told, seen = made.told, await made.site.seen("/browser")
    assert (told["languages"], told["zone"]) == (["de-CH", "de"], "Europe/Zurich")
    assert "Windows NT 10.0" in told["agent"]
    assert seen.header("user-agent") == told["agent"]
    assert seen.header("accept-language") == "de-CH,de;q=0.9"


@check
async def media(made: Made) -> None:
    assert (made.told["dark"], made.told["reduced"], made.told["print"]) == (True, True, True)


@check
async def geolocation(made: Made) -> None:
    assert '<p id="place">47.37,8.54,50</p>' in made.html


@check
async def javascript(made: Made) -> None:
    assert "data-width" not in made.html


@check
async def domcontentloaded(made: Made) -> None:
    assert "Text at once" in made.html
    assert made.meta["warnings"] == []


@check
async def networkidle(made: Made) -> None:
    assert '<p id="count">3</p>' in made.html


@check
async def wait_for(made: Made) -> None:
    assert LATE in made.html
    assert "Loading" not in made.html


@check
async def wait_for_expression(made: Made) -> None:
    assert made.html.count("<li>") == 3


@check
async def wait_ms(made: Made) -> None:
    assert LATE in made.html


@check
async def on_timeout(made: Made) -> None:
    assert made.image().size == (1280, 800)
    assert "captured after 600 ms" in made.meta["warnings"][0]


async def retried(given: Any, tmp_path: Path) -> None:
    """Attempts are made anew by the service, in one process with its own browser."""
    config = Config(data_dir=str(tmp_path / "data"), workers=1, allow_network=("127.0.0.0/8",))
    async with open_service(config) as service:
        job = await service.capture("scrape", given)
        assert (job.state, job.attempts) == (State.DONE, 2)


CHECKS["retries"] = typing.cast(Any, retried)


@check
async def cookies(made: Made) -> None:
    here, there = await made.site.seen("/cookies/shown"), await made.site.seen("/other/dot.png")
    assert set((here.header("cookie") or "").split("; ")) == {"session=4711", "seen=yes"}
    assert there.header("cookie") == "session=4711"
    found = re.search('<pre id="jar">(.*?)</pre>', made.html)
    assert found is not None
    jar = {one["name"]: one for one in json.loads(found[1])}
    assert set(jar) == {"seen"}
    assert jar["seen"]["path"] == "/cookies"
    assert jar["seen"]["sameSite"] == "strict"
    assert jar["seen"]["secure"] is True
    assert jar["seen"]["expires"] is not None


@check
async def cookies_text(made: Made) -> None:
    assert (await made.site.seen("/cookies/shown")).header("cookie") == "session=4711; basket=3"


@check
async def headers(made: Made) -> None:
    assert (AUTH_USER, AUTH_PASSWORD) == ("user", "pass")
    assert "let in" in made.html
    seen = await made.site.seen("/auth")
    assert (seen.header("x-campaign"), seen.header("referer")) == ("spring", made.site.url("/start"))


@check
async def ignore_tls_errors(made: Made) -> None:
    assert "The article" in made.html
    assert made.meta["url"].startswith("https:")


@check
async def api_key(made: Made) -> None:
    assert made.parsed.api_key == "the-key-of-this-service"
    assert "api_key" not in request_document(made.parsed)


@check
async def css_and_js(made: Made) -> None:
    assert made.pixel(5, 5) == NAVY
    assert made.meta["title"] == "As we want it"
    assert made.pixel(1200, 40) == TEAL


@check
async def hide_and_remove(made: Made) -> None:
    assert [made.pixel(600, y) for y in (25, 75, 125)] == [WHITE, STORY, WHITE]


@check
async def bypass_csp(made: Made) -> None:
    assert made.pixel(600, 400) == TEAL


@check
async def blocking(made: Made) -> None:
    assert made.paths == {"/heavy", "/kept.js"}


@check
async def block_ads(made: Made) -> None:
    assert made.page is not None
    assert made.page.ledger.ads_blocked > 0


@check
async def actions(made: Made) -> None:
    seen = await made.site.seen("/welcome")
    assert seen.query == "name=ada&password=secret&remember=on"
    assert made.meta["actions"][1]["elapsed_ms"] >= 60
    assert "<h1>Welcome</h1>" in made.html


@check
async def optional(made: Made) -> None:
    (action,) = made.meta["actions"]
    assert action["ok"] is False
    assert "within 200 ms" in action["error"]


@check
async def click(made: Made) -> None:
    assert 'data-menu="entry"' in made.html
    assert 'data-word="word"' in made.html


@check
async def press(made: Made) -> None:
    assert made.values == [["X", "a"]]


@check
async def select(made: Made) -> None:
    assert '<p id="sum">size=L&amp;colours=red&amp;colours=blue&amp;gift=on</p>' in made.html


@check
async def scroll(made: Made) -> None:
    assert made.values == [BANDS * BAND_PX - 800, 200, 350, [20, 40]]


@check
async def wait(made: Made) -> None:
    assert LATE in made.html
    assert made.meta["actions"][2]["elapsed_ms"] >= 50


@check
async def goto(made: Made) -> None:
    assert '{"consent": "yes"}' in made.html


@check
async def evaluate(made: Made) -> None:
    assert made.values == [{"price": 5}]


@check
async def shoot(made: Made) -> None:
    assert set(made.result["screenshots"]) == {"closed", "entry"}
    assert (made.image("closed").format, made.image("closed").size) == ("PNG", (1280, 800))
    assert made.image("entry").width == 60
    assert made.image("closed").tobytes() != made.image().tobytes()


@check
async def full_page(made: Made) -> None:
    assert (made.image().format, made.image().size) == ("PNG", (1280, 1500))
    assert made.pixel(640, 1450) == band_colour(14)


@check
async def scroll_page(made: Made) -> None:
    assert made.image().size == (1280, 3000)
    assert made.pixel(640, 2500) == TEAL


@check
async def selector(made: Made) -> None:
    assert made.image().size == (220, 120)
    assert (made.pixel(5, 5), made.pixel(15, 15)) == (WHITE, CARD)


@check
async def clip(made: Made) -> None:
    assert made.image().size == (200, 100)
    assert (made.pixel(100, 49), made.pixel(100, 50)) == (band_colour(9), band_colour(10))


@check
async def quality(made: Made) -> None:
    image = typing.cast(Any, made.image())
    assert image.format == "JPEG"
    # libjpeg's first coefficient at 40; 6 at 80.
    assert image.quantization[0][0] == 20


@check
async def webp(made: Made) -> None:
    assert made.image().format == "WEBP"
    shown = made.image().convert("RGBA")
    assert (shown.getpixel((5, 5))[3], shown.getpixel((50, 50))[3]) == (0, 255)  # type: ignore[index]


@check
async def optimize_for_speed(made: Made) -> None:
    fast = await made.again(optimize_for_speed=True)
    assert len(made.output.main.data) < len(fast.output.main.data)


@check
async def resize(made: Made) -> None:
    assert made.image().size == (320, 100)
    assert made.pixel(30, 20) == CARD


@check
async def disable_animations(made: Made) -> None:
    assert made.pixel(600, 400)[0] > 200


@check
async def outputs(made: Made) -> None:
    assert set(made.result) == {"ok", "html", "text", "markdown", "links", "metadata", "screenshot", "meta"}
    assert made.html.startswith("<article>")
    assert "Imprint" not in made.result["text"]
    assert made.result["markdown"].startswith("# The article")
    assert made.result["links"] == [{"url": made.site.url("/more"), "text": "Read on", "rel": "nofollow"}]
    assert made.result["metadata"]["description"] == "What it is about"
    assert made.result["screenshot"]["content_type"] == "image/jpeg"


@check
async def include_shadow_dom(made: Made) -> None:
    for text in ("In an open root", "In a closed root"):
        assert text in made.html
        assert text in made.result["text"]


@check
async def render_false(made: Made) -> None:
    assert made.page is None
    assert made.meta["browser"] is None
    assert "First paragraph." in made.result["text"]
    assert made.result["metadata"]["title"] == "The article"


@check
async def render_auto(made: Made) -> None:
    assert made.page is None
    assert "First paragraph." in made.html


@check
async def render_false_screenshot(made: Made) -> None:
    assert made.image().height < 100


@check
async def render_object(made: Made) -> None:
    assert LATE in made.html
    assert 'data-width="800"' in made.html
    assert made.parsed.timeout_ms == 10_000
    assert (await made.site.seen("/app")).header("accept-language") == "fr"


@check
async def selectors(made: Made) -> None:
    assert made.html == '<a href="/more" rel="nofollow">Read on</a>'


# ---- Whatever else the document says ---------------------------------------------------------------------------------


async def test_meta_has_the_keys_that_are_told(browser: cdp.Browser, policy: cdp.AddressPolicy, site: Site) -> None:
    add_pages(site)
    text = DOCUMENT.read_text()
    section = text[text.index("`result.meta`:") : text.index("A dialog that a page opens")]
    cells = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    told = {name for cell in cells for name in re.findall("`([a-z_]+)`", cell)}
    given = {"url": site.url("/article"), "actions": [{"type": "wait", "ms": 1}]}
    async with open_runner(browser, policy, site) as run:
        keys = {key for service in REQUEST_CLASSES for key in (await run(service, given)).meta}
    assert told | {"duration_ms"} == keys


def test_budgets_are_those_of_the_waits() -> None:
    told = re.findall(r"^\| (\w+) \| [^|]* \| ([\d.]+) s \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert list(visit._SETTLING) == [name for name, _ in told]
    assert [float(seconds) for _, seconds in told] == [
        getattr(settle, f"{name.upper()}_BUDGET_S") for name in visit._SETTLING
    ]


def contradictions() -> list[tuple[str, ...]]:
    text = DOCUMENT.read_text()
    section = text[text.index("\n## Contradictions") :]
    return re.findall(r"^\| (screenshot|scrape) \| `(.*?)` \| `(.*?)` \|", section, re.MULTILINE)


@pytest.mark.parametrize(("service", "text", "field"), contradictions())
def test_contradiction_is_refused(service: ServiceName, text: str, field: str) -> None:
    given = json.loads(text)
    if "html" not in given:
        given = {"url": "https://example.com/"} | given
    with pytest.raises(ValidationError) as caught:
        parse_request(service, given, Config())
    assert [fault.field for fault in caught.value.faults] == [field]


def test_contradictions_are_many() -> None:
    assert len(contradictions()) > 20


# ---- The other documents ---------------------------------------------------------------------------------------------


def told_in(name: str) -> str:
    """A document's text."""
    return (ROOT / name).read_text()


def first_cells(name: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    below = f"\n{told_in(name)}".partition(f"\n{heading}\n")[2]
    table = re.search(r"^\|.*?(?=\n\n|\Z)", below, re.DOTALL | re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[0].splitlines()[2:]]


def test_readme_names_every_field() -> None:
    text = told_in("README.md")
    fields = {name for cls in REQUEST_CLASSES.values() for name in fields_of(cls)} - {"api_key"}
    assert [name for name in sorted(fields) if f"`{name}`" not in text] == []


def test_routes_are_those_of_the_service() -> None:
    told = {
        (method, path)
        for cell, *_ in first_cells("docs/api.md", "## Routes")
        for method, path in re.findall(r"`(\w+) ([^`?]+)[^`]*`", cell)
    }
    has = {
        (route.method, route.path.replace("<job_id>", "{id}").replace("<name>", "{name}"))
        for route in cleariflow.ROUTES
    }
    assert told == has


def test_statuses_of_refusals_are_those_of_the_service() -> None:
    told = {code.strip("`"): int(status) for status, code, _ in first_cells("docs/api.md", "## Errors")}
    # Codes that only jobs have are told below the table, and in docs/request.md.
    assert told == {
        code: status
        for code, status in cleariflow.HTTP_STATUS.items()
        if code not in ERROR_CODES or code in ("invalid_request", "blocked_target", "internal")
    }


def test_settings_are_those_of_the_service() -> None:
    flags = [cells[0].strip("`") for cells in first_cells("docs/settings.md", "# Settings")]
    assert sorted(flags) == sorted(f"--{name.replace('_', '-')}" for name in cleariflow.flag_settings())


def test_defaults_of_settings_are_those_of_the_service() -> None:
    config = Config()
    for flag, default, _ in first_cells("docs/settings.md", "# Settings"):
        value = getattr(config, flag.strip("`-").replace("-", "_"))
        if default.startswith("`"):
            assert default.strip("`") == (f"{value:g}" if isinstance(value, float) else str(value)), flag
        else:
            # None, or what depends on the machine.
            assert value in (None, (), "", False) or flag == "`--workers`", flag


def test_commands_are_those_of_the_command_line() -> None:
    told = [cells[0].strip("`") for cells in first_cells("docs/command-line.md", "# The command line")]
    assert sorted(told) == sorted(cleariflow.COMMANDS)


def test_limits_of_keys_are_those_of_the_service() -> None:
    rows = first_cells("docs/settings.md", "## API keys")
    assert [re.findall("`--([a-z]+)`", cells[0]) for cells in rows] == [
        [name] for name in fields_of(cleariflow.KeyLimits)
    ]


def test_diagram_is_the_table_of_transitions() -> None:
    told = re.findall(r"^    (\w+) --> (\w+): (\w+)$", told_in("docs/architecture.md"), re.MULTILINE)
    assert told == [(before, after, step) for (before, step), after in cleariflow.JOB_TRANSITIONS.items()]


def module_table() -> str:
    """The modules of cdp by the first lines of their own texts."""
    lines = ["| module | what it is |", "|---|---|"]
    for path in sorted((ROOT / "cdp").glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text is not None, path
        lines.append(f"| `{path.stem}` | {text.splitlines()[0]} |")
    return "\n".join(lines)


def exit_table() -> str:
    """The exit codes of captures."""
    lines = ["| code | meaning | codes of errors that end so |", "|---|---|---|"]
    for code, (text, names) in cleariflow.EXITS.items():
        lines.append(f"| {code} | {text} | {', '.join(f'`{name}`' for name in names)} |")
    return "\n".join(lines)


def metric_table() -> str:
    """What `/metrics` has of the service itself."""

    async def collect() -> list[Metric]:
        with TemporaryDirectory() as folder:
            async with open_disk(Path(folder), FakePool()) as service:
                return list(cleariflow.Metrics(service, lambda: 0).collect())

    lines = ["| metric | kind | labels | what it is |", "|---|---|---|---|"]
    for metric in trio.run(collect):
        name = metric.name + ("_total" if metric.type == "counter" else "")
        # A bucket's bound is no label of the metric.
        labels = ", ".join(f"`{label}`" for label in metric.samples[0].labels if label != "le")
        lines.append(f"| `{name}` | {metric.type} | {labels} | {metric.documentation} |")
    return "\n".join(lines)


# Between comments of these names.
MADE = {
    "modules": ("docs/architecture.md", module_table),
    "exits": ("docs/command-line.md", exit_table),
    "metrics": ("docs/operations.md", metric_table),
}


def with_made(name: str) -> str:
    """A document with one of its tables made anew."""
    document, make = MADE[name]
    return re.sub(
        rf"(<!-- {name} -->\n).*(\n<!-- /{name} -->)",
        lambda found: f"{found[1]}{make()}{found[2]}",
        told_in(document),
        flags=re.DOTALL,
    )


@pytest.mark.parametrize("name", MADE)
def test_table_is_that_of_the_code(name: str) -> None:
    text = told_in(MADE[name][0])
    assert f"<!-- {name} -->" in text
    assert (with_made(name) == text) is True, HOW


def test_phases_are_those_of_an_attempt() -> None:
    (told,) = re.findall(r"the phases are (.*?)\. Events", told_in("docs/architecture.md"), re.DOTALL)
    waits = {*visit._SETTLING, "wait_for", "wait_for_expression", "wait"}
    assert re.findall("`(\\w+)`", told) == [phase for phase in visit.PHASES if phase not in waits]


def test_comparison_of_the_readme_is_of_the_whole_one() -> None:
    whole = [re.sub(r" \[\w\d\]", "", "|".join(row)) for row in first_cells("docs/comparison.md", "# Beside others")]
    short = ["|".join(row) for row in first_cells("README.md", "## Beside others")]
    assert len(short) >= 8
    assert [row for row in whole if row in short] == short


def test_upgrade_notes_begin_with_this_version() -> None:
    assert first_cells("docs/deployment.md", "## Upgrade")[0][0] == cleariflow.__version__


def test_speeds_of_the_readme_are_the_measured_ones() -> None:
    measured = {cells[0]: cells[2::3] for cells in first_cells("docs/speed.md", "# Speed")}
    names = {"this service, `wait_until: load`": "service-load", "this service, `wait_until: auto`": "service-auto"}
    for name, *shares in first_cells("README.md", "## Speed"):
        # Two at a time.
        assert shares == measured[names.get(name, name)]


def test_every_fact_of_the_comparison_has_a_source() -> None:
    text = told_in("docs/comparison.md")
    sources = [cells[0] for cells in first_cells("docs/comparison.md", "## Sources")]
    assert set(re.findall(r"\[(\w\d)\]", text)) == set(sources)
    for _, ours, *others in first_cells("docs/comparison.md", "# Beside others"):
        assert ours
        # What is about another one has its source, or is not known.
        assert [cell for cell in others if cell not in ("?", "a service") and not re.search(r"\[\w\d\]", cell)] == []


LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


@pytest.mark.parametrize(
    "name", [str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))]
)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for file, place in LINK.findall(path.read_text()):
        aim = (path.parent / file).resolve() if file else path
        assert aim.exists(), file
        if place:
            text = aim.read_text()
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            places = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert place in places | set(re.findall(r'<a id="([^"]+)">', text)), f"{file}#{place}"


def test_every_document_is_linked_from_the_readme() -> None:
    linked = {file for file, _ in LINK.findall(told_in("README.md"))}
    assert {f"docs/{path.name}" for path in ROOT.glob("docs/*.md")} - linked == set()


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
    for name, (document, _) in MADE.items():
        (ROOT / document).write_text(with_made(name))
