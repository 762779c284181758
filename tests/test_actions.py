"""cdp/actions.py: each kind of step on a real page, what it waits for, how it fails, and pages that are in the way."""

from __future__ import annotations

import functools
import json
import socket
from typing import Any

import pytest
import trio

import cdp
from cdp.actions import KEYS, MAX_VALUE_BYTES, Record, action_faults, parse_keys, perform
from cdp.errors import ActionFailed, SessionClosed, TargetCrashed, TooLarge
from cdp.options import Action, CaptureOptions, PageOptions, Viewport
from cdp.validation import structure

from .site import OK_TITLE, Answer, Exchange, Site

QUICK_S = 20
"""Far longer than anything here takes: only a hang gets there."""

LOG = """<script>
var log = [];
var note = (...words) => log.push(words.join(' '));
var watch = (node, ...types) => types.forEach(type => node.addEventListener(type, event => note(type,
  event.isTrusted ? 'trusted' : 'own')));
</script>"""
BUTTON = '<button id="a" onclick="note(\'clicked\')">Go on</button>'
OVERLAY = '<div id="over" class="veil" style="position:fixed;inset:0;background:#0008"><p>Cookies!</p></div>'


def step(kind: str, **fields: object) -> Action:
    """An action as a client's JSON gives it."""
    return structure({"type": kind, **fields}, Action)  # type: ignore[arg-type]


async def do(page: cdp.Page, kind: str, **fields: object) -> Record:
    """Perform one step as the second of a job."""
    with trio.fail_after(QUICK_S):
        return await perform(page, step(kind, **fields), 1)


async def failure(page: cdp.Page, kind: str, **fields: object) -> str:
    """Why a step fails."""
    with pytest.raises(ActionFailed) as failed:
        await do(page, kind, **fields)
    return str(failed.value).removeprefix(f"action 1 ({kind}) failed: ")


async def awaited(page: cdp.Page, kind: str, **fields: object) -> str:
    """What a step says first that it waits for, once the page has answered."""
    told: list[str] = []

    def tell(sentence: str) -> None:
        told.append(sentence)
        if len(told) == 2:
            scope.cancel()

    with trio.fail_after(QUICK_S), trio.CancelScope() as scope:
        await perform(page, step(kind, **fields), 0, tell=tell)
    return told[1]


async def logged(page: cdp.Page) -> list[str]:
    """What the page noted."""
    found: list[str] = await page.evaluate("log")
    return found


async def show(page: cdp.Page, body: str) -> None:
    """A page with a log of its own."""
    await page.set_content(f"<!DOCTYPE html><title>Test</title>{LOG}{body}", None)


# What a step gives


def test_record_as_meta_has_what_every_step_has() -> None:
    assert Record(3, "click", True, 12).as_meta() == {"index": 3, "type": "click", "ok": True, "elapsed_ms": 12}


@pytest.mark.parametrize("value", [None, 0, [], {"a": 1}])
def test_record_as_meta_has_the_value_of_evaluate(value: object) -> None:
    assert Record(0, "evaluate", True, 1, value=value).as_meta()["value"] == value


def test_record_as_meta_has_the_error_of_a_failed_step() -> None:
    meta = Record(0, "evaluate", False, 1, error="it threw").as_meta()
    assert (meta["error"], "value" in meta) == ("it threw", False)


async def test_perform_names_step_and_time(page: cdp.Page) -> None:
    record = await do(page, "wait", ms=30)
    assert (record.index, record.type, record.ok, record.error) == (1, "wait", True, None)
    assert 30 <= record.elapsed_ms < 5000


async def test_perform_raises_for_a_step_that_fails(page: cdp.Page) -> None:
    with pytest.raises(ActionFailed, match=r"^action 1 \(evaluate\) failed: Error: no") as failed:
        await do(page, "evaluate", script="throw new Error('no')")
    assert failed.value.index == 1


async def test_perform_notes_the_failure_of_an_optional_step(page: cdp.Page) -> None:
    record = await do(page, "evaluate", script="throw new Error('no')", optional=True)
    assert (record.ok, (record.error or "").splitlines()[0]) == (False, "Error: no")


async def test_perform_ends_an_optional_step_at_its_own_time(page: cdp.Page) -> None:
    record = await do(page, "click", selector="#nobody", timeout_ms=150, optional=True)
    assert record.error == "not done within 150 ms: the element '#nobody' is not in the document"
    assert record.elapsed_ms >= 150


async def test_perform_of_0_ms_looks_once(page: cdp.Page) -> None:
    await show(page, BUTTON)
    assert (await do(page, "wait", selector="#a", timeout_ms=0)).ok


async def test_perform_lets_the_outer_deadline_through(page: cdp.Page) -> None:
    with trio.move_on_after(0.1) as scope:
        await perform(page, step("click", selector="#nobody", timeout_ms=60_000, optional=True), 0)
    assert scope.cancelled_caught


async def test_perform_tells_what_it_waits_for_when_that_changes(page: cdp.Page) -> None:
    await show(page, '<button id="a" hidden disabled>x</button>')
    told: list[str] = []
    expected = ["the page has not answered yet", "the element '#a' is not visible", "the element '#a' is disabled"]
    seen = {sentence: trio.Event() for sentence in expected}

    def tell(sentence: str) -> None:
        told.append(sentence)
        seen[sentence].set()

    with trio.fail_after(QUICK_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(perform, page, step("click", selector="#a"), 0, tell=tell))
            await seen[expected[1]].wait()
            await page.evaluate("a.hidden = false")
            await seen[expected[2]].wait()
            nursery.cancel_scope.cancel()
    assert told == expected


async def test_perform_fails_at_once_for_an_invalid_selector(page: cdp.Page) -> None:
    fields: dict[str, dict[str, object]] = {"select": {"value": "x"}, "type": {"text": "x"}}
    for kind in ("click", "wait", "select", "check", "type", "scroll"):
        with pytest.raises(ActionFailed, match=r"selector 'p:nope': .*not a valid selector"):
            await do(page, kind, selector="p:nope", **fields.get(kind, {}))


@pytest.mark.parametrize("optional", [False, True])
async def test_perform_lets_a_crash_through(page: cdp.Page, optional: bool) -> None:
    await page.session.post("Page.crash")
    with trio.fail_after(QUICK_S), pytest.raises(TargetCrashed):
        await perform(page, step("wait", selector="#never", optional=optional), 0)


async def test_perform_lets_a_closed_page_through(page: cdp.Page) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(page.session.post, "Page.close")
        with trio.fail_after(QUICK_S), pytest.raises(SessionClosed):
            await perform(page, step("wait", ms=60_000, optional=True), 0)


async def test_perform_lets_the_loss_of_the_page_s_socket_through(
    browser_endpoint: str, policy: cdp.AddressPolicy
) -> None:
    async with cdp.connect_browser(browser_endpoint, policy=policy, max_message_bytes=2**17) as browser:
        async with browser.open_page() as page:
            with pytest.raises(TooLarge):
                await do(page, "evaluate", script="'x'.repeat(2**18)", optional=True)


# Clicking


async def test_click_sends_the_events_of_a_real_mouse(page: cdp.Page) -> None:
    await show(page, BUTTON + "<script>watch(a, 'pointerover', 'mousedown', 'mouseup', 'click', 'dblclick')</script>")
    await do(page, "click", selector="#a")
    names = ["pointerover", "mousedown", "mouseup"]
    assert await logged(page) == [*(f"{name} trusted" for name in names), "clicked", "click trusted"]


async def test_click_twice_is_a_double_click(page: cdp.Page) -> None:
    await show(
        page,
        '<p id="a">word</p><script>for (const type of ["mousedown", "click", "dblclick"])'
        "a.addEventListener(type, event => note(type, event.detail))</script>",
    )
    await do(page, "click", selector="#a", count=2)
    assert await logged(page) == ["mousedown 1", "click 1", "mousedown 2", "click 2", "dblclick 2"]


async def test_click_with_another_button(page: cdp.Page) -> None:
    await show(
        page,
        '<p id="a">word</p><script>a.onmousedown = event => note("down", event.button, event.buttons);'
        'a.oncontextmenu = () => note("contextmenu"); a.onauxclick = event => event.button == 1 && note("auxclick")'
        "</script>",
    )
    await do(page, "click", selector="#a", button="right")
    await do(page, "click", selector="#a", button="middle")
    assert await logged(page) == ["down 2 2", "contextmenu", "down 1 4", "auxclick"]


async def test_click_finds_by_every_kind_of_selector(page: cdp.Page) -> None:
    await show(page, BUTTON)
    for selector in ("text=go on", "xpath=//button", "button >  *, #a"):
        await do(page, "click", selector=selector)
    assert await logged(page) == ["clicked"] * 3


async def test_click_hits_the_middle_of_what_is_visible(page: cdp.Page) -> None:
    await show(
        page,
        '<div style="position:absolute;left:100px;top:50px;width:60px;height:40px;overflow:hidden">'
        '<div id="a" style="width:900px;height:900px" onclick="note(event.clientX, event.clientY)"></div></div>',
    )
    await do(page, "click", selector="#a")
    assert await logged(page) == ["130 70"]


async def test_click_hits_a_link_that_is_broken_into_lines(page: cdp.Page) -> None:
    await show(
        page,
        '<div style="width:100px;font:20px/30px monospace">xxxxxx <a id="a" href="#" onclick="note(\'link\')">'
        "bb bbbbbbbb</a></div>",
    )
    await do(page, "click", selector="#a")
    assert await logged(page) == ["link"]


async def test_click_scrolls_into_view(page: cdp.Page) -> None:
    places = (
        '<div style="height:5000px"></div>{}',
        '<div style="height:200px;overflow:auto"><div style="height:3000px"></div>{}</div>',
        '<style>html {{ scroll-behavior: smooth }}</style><div style="height:9000px"></div>{}',
        '<div style="width:4000px;height:9000px"></div><div style="margin-left:3000px">{}</div>',
    )
    for place in places:
        await show(page, place.format(BUTTON))
        await do(page, "click", selector="#a")
        assert await logged(page) == ["clicked"]


async def test_click_leaves_the_page_where_it_is_for_what_is_in_view(page: cdp.Page) -> None:
    await show(page, BUTTON + '<div style="height:5000px"></div>')
    await do(page, "click", selector="#a")
    await do(page, "click", selector="html")
    assert await page.evaluate("scrollY") == 0


@pytest.mark.parametrize("zoom", ["width=1200", "width=device-width, initial-scale=2"])
async def test_click_hits_in_a_mobile_page_that_is_zoomed(page: cdp.Page, site: Site, zoom: str) -> None:
    head = f'<!DOCTYPE html><meta name="viewport" content="{zoom}">{LOG}<div style="width:800px;height:3000px"></div>'
    place = f'<div style="position:absolute;left:330px;top:1900px">{BUTTON}</div>'
    await page.prepare(PageOptions(url=site.url("/zoom"), viewport=Viewport(400, 600, mobile=True)))
    await page.navigate(site.add("/zoom", head + place))
    await do(page, "click", selector="#a")
    assert await logged(page) == ["clicked"]


async def test_click_works_without_javascript(page: cdp.Page, site: Site) -> None:
    await page.prepare(PageOptions(url=site.url("/ok"), javascript=False))
    await page.navigate(site.add("/link", '<a id="a" href="/ok">on</a>'))
    await do(page, "click", selector="#a")
    assert (await page.info()).title == OK_TITLE


async def test_click_waits_until_the_element_rests(page: cdp.Page) -> None:
    await show(
        page,
        BUTTON + "<style>#a { position: fixed; left: 0; width: 50px; animation: move .3s linear forwards }"
        "@keyframes move { to { left: 600px } }</style>"
        "<script>a.onclick = () => note(a.getBoundingClientRect().left)</script>",
    )
    await do(page, "click", selector="#a")
    assert await logged(page) == ["600"]


async def test_click_waits_until_the_element_is_uncovered(page: cdp.Page) -> None:
    await show(page, BUTTON + OVERLAY + "<script>setTimeout(() => over.remove(), 60)</script>")
    await do(page, "click", selector="#a")
    assert await logged(page) == ["clicked"]


async def test_click_finds_an_element_that_is_made_anew(page: cdp.Page) -> None:
    await show(
        page,
        f'<div id="box"></div><script>let left = 12; const draw = () => {{ box.innerHTML = `{BUTTON}`;'
        "if (--left) setTimeout(draw, 10) }; draw()</script>",
    )
    await do(page, "click", selector="#a")
    assert await logged(page) == ["clicked"]


async def test_click_tells_why_it_waits(page: cdp.Page) -> None:
    slide = "<style>@keyframes m { to { margin-left: 900px } }</style>"
    expected = {
        "": "is not in the document",
        '<button id="a" style="visibility:hidden">x</button>': "is not visible",
        '<fieldset disabled><button id="a">x</button></fieldset>': "is disabled",
        '<button disabled><b id="a">x</b></button>': "is disabled",
        BUTTON + OVERLAY: 'is covered by <p> in <div id="over" class="veil">',
        BUTTON + '<i class="veil" style="position:fixed;inset:0"></i>': 'is covered by <i class="veil">',
        '<button id="a" style="position:absolute;left:-300px">x</button>': "is outside of what the window shows",
        f'{slide}<button id="a" style="animation:m 9s infinite">x</button>': "is moving",
    }
    seen = {}
    for body in expected:
        await show(page, body)
        seen[body] = await awaited(page, "click", selector="#a")
    assert seen == {body: f"the element '#a' {reason}" for body, reason in expected.items()}


async def test_click_does_not_press_what_is_covered(page: cdp.Page) -> None:
    await show(page, BUTTON + OVERLAY + "<script>over.onmousedown = () => note('overlay')</script>")
    await do(page, "click", selector="#a", timeout_ms=200, optional=True)
    assert await logged(page) == []


async def test_click_brings_out_what_a_fixed_bar_covers(page: cdp.Page) -> None:
    bar = '<div style="position:fixed;left:0;right:0;top:0;height:60%;background:#ccc">bar</div>'
    await show(page, f'{bar}<div style="height:3000px"></div>{BUTTON}<div style="height:3000px"></div>')
    await do(page, "click", selector="#a")
    assert await logged(page) == ["clicked"]


async def test_click_waits_when_the_mouse_itself_opens_something_over_the_element(page: cdp.Page) -> None:
    await show(
        page,
        BUTTON + "<script>a.onmouseenter = () => { a.onmouseenter = null;"
        f"document.body.insertAdjacentHTML('beforeend', `{OVERLAY}`); over.onclick = () => note('overlay');"
        "setTimeout(() => over.remove(), 60) }</script>",
    )
    await do(page, "click", selector="#a")
    assert await logged(page) == ["clicked"]


async def test_click_takes_a_label_for_its_field(page: cdp.Page) -> None:
    await show(
        page,
        '<label style="position:absolute;left:0;top:0;width:90px;height:30px;background:#fff;z-index:1" for="a">x'
        '</label><input id="a" type="checkbox" onclick="note(\'box\')">',
    )
    await do(page, "click", selector="#a")
    assert await logged(page) == ["box"]


async def test_click_takes_what_lies_in_the_shadow_of_the_element(page: cdp.Page) -> None:
    await show(
        page,
        '<x-button id="a" onclick="note(\'host\')">words</x-button><script>a.attachShadow({mode: "open"}).innerHTML ='
        "'<button style=\"padding:20px\"><slot></slot></button>'</script>",
    )
    await do(page, "click", selector="#a")
    assert await logged(page) == ["host"]


async def test_click_names_what_covers_within_a_shadow(page: cdp.Page) -> None:
    await show(
        page,
        '<x-box id="box"><b id="a">words</b></x-box><script>box.attachShadow({mode: "open"}).innerHTML ='
        '\'<slot></slot><i class="lid" style="position:fixed;inset:0"></i>\'</script>',
    )
    assert await awaited(page, "click", selector="#a") == """the element '#a' is covered by <i class="lid">"""


async def test_click_that_opens_a_dialog_goes_on(page: cdp.Page) -> None:
    for event in ("onmousemove", "onmousedown", "onmouseup", "onclick"):
        await show(page, f'<button id="a" {event}="note(confirm(`sure?`))">x</button>')
        await do(page, "click", selector="#a")
        assert "false" in await logged(page)


async def test_click_waits_for_the_page_it_leads_to(page: cdp.Page, site: Site) -> None:
    target = site.url("/ok", "localhost")
    bodies = (
        f'<a id="a" href="{target}">on</a>',
        f'<form action="{target}"><button id="a">send</button></form>',
        f"""<button id="a" onclick="setTimeout(() => location = '{target}')">on</button>""",
        f"""<button id="a" onmousedown="location = '{target}'">on</button>""",
    )
    for body in bodies:
        await page.navigate(site.add("/start", body))
        await do(page, "click", selector="#a")
        assert (await page.info()).title == OK_TITLE


async def test_click_waits_until_the_page_it_leads_to_is_loaded(page: cdp.Page, site: Site) -> None:
    async def slow(exchange: Exchange) -> Answer:
        await exchange.hold(0.3)
        return Answer(b"document.title = 'loaded'", "text/javascript")

    site.add_route("/slow.js", slow)
    site.add("/next", '<script async src="/slow.js"></script>')
    await page.navigate(site.add("/start", '<a id="a" href="/next">on</a>'))
    await do(page, "click", selector="#a")
    assert (await page.info()).title == "loaded"


async def test_click_waits_for_a_server_that_takes_its_time_without_a_warning(
    page: cdp.Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdp.settle.FRAMES_BUDGET_S", 0.1)

    async def slow(exchange: Exchange) -> Answer:
        await exchange.hold(0.3)
        return Answer(b"<title>slow</title>")

    site.add_route("/slow", slow)
    await page.navigate(site.add("/start", '<a id="a" href="/slow">on</a>'))
    await do(page, "click", selector="#a")
    assert ((await page.info()).title, page.warnings) == ("slow", [])


async def test_click_works_in_a_page_that_replaced_built_ins(page: cdp.Page) -> None:
    await show(
        page,
        BUTTON + "<script>const no = () => { throw new Error('mine') };"
        "for (var name of ['matches', 'closest', 'getBoundingClientRect', 'getClientRects', 'scrollIntoView'])"
        "Element.prototype[name] = no;"
        "Document.prototype.elementFromPoint = Document.prototype.querySelector = no;"
        "for (var name of ['some', 'every', 'filter', 'includes', 'at']) Array.prototype[name] = no;"
        "Object.getOwnPropertyDescriptor = requestAnimationFrame = no; IntersectionObserver = Promise = null</script>",
    )
    await do(page, "click", selector="#a")
    assert await logged(page) == ["clicked"]


async def test_click_works_on_a_form_with_fields_named_like_built_ins(page: cdp.Page) -> None:
    names = ("parentNode", "matches", "closest", "assignedSlot", "shadowRoot", "isConnected", "getAttribute", "host")
    fields = "".join(f'<input name="{name}">' for name in names)
    await show(
        page,
        f'<form id="a" style="padding-bottom:400px" onclick="note(\'form\')">{fields}</form>'
        f'<form id="over" style="position:fixed;inset:0">{fields}</form>'
        "<script>setTimeout(() => over.remove(), 100)</script>",
    )
    await do(page, "click", selector="#a")
    assert await logged(page) == ["form"]


async def test_hover_moves_the_mouse_over_the_element(page: cdp.Page) -> None:
    await show(page, '<p id="a">word</p><style>#a:hover { color: red }</style><script>watch(a, "mouseenter")</script>')
    await do(page, "hover", selector="#a")
    assert await logged(page) == ["mouseenter trusted"]
    assert await page.evaluate("getComputedStyle(a).color") == "rgb(255, 0, 0)"


# Check boxes

BOXES = """<input id="box" type="checkbox"><input id="full" type="checkbox" checked>
<input id="one" type="radio" name="r" checked><input id="two" type="radio" name="r">
<label id="label">Words <input id="inner" type="checkbox"></label>
<label id="drawn" for="unseen" style="padding:5px">Drawn</label><input id="unseen" type="checkbox" style="display:none">
<script>document.addEventListener('click', event => note(event.target.id, event.isTrusted))</script>"""


async def test_check_brings_the_box_into_the_state(page: cdp.Page) -> None:
    cases = (
        ("check", "#box", "box"),
        ("uncheck", "#full", "full"),
        ("check", "#two", "two"),
        ("check", "#label", "inner"),
        ("uncheck", "text=words", "inner"),
        ("check", "#unseen", "unseen"),
        ("uncheck", "#drawn", "unseen"),
    )
    await show(page, BOXES)
    for kind, selector, box in cases:
        await do(page, kind, selector=selector)
        assert await page.evaluate(f"{box}.checked") == (kind == "check")
    # A label's click makes another one on its box, which counts as the user's too.
    assert {line.split()[1] for line in await logged(page)} == {"true"}


async def test_check_leaves_a_box_that_is_in_the_state(page: cdp.Page) -> None:
    await show(page, BOXES)
    for kind, selector in (("uncheck", "#box"), ("check", "#full"), ("uncheck", "#two")):
        await do(page, kind, selector=selector)
    assert await logged(page) == []


async def test_uncheck_of_a_radio_button_fails_at_once(page: cdp.Page) -> None:
    await show(page, BOXES)
    with pytest.raises(ActionFailed, match="'#one' is a radio button: only checking another one unchecks it"):
        await do(page, "uncheck", selector="#one")


async def test_check_of_something_else_fails_at_once(page: cdp.Page) -> None:
    await show(page, '<p id="a" class="x">words</p>')
    with pytest.raises(ActionFailed, match='is no check box or radio button but <p id="a" class="x">'):
        await do(page, "check", selector="#a")


async def test_check_that_the_page_undoes_fails(page: cdp.Page) -> None:
    await show(page, '<input id="a" type="checkbox" onclick="return false">')
    with pytest.raises(ActionFailed, match="the click on '#a' did not check it"):
        await do(page, "check", selector="#a")


async def test_check_may_lead_to_another_page(page: cdp.Page, site: Site) -> None:
    body = '<title>{}</title><input id="a" type="checkbox" onchange="location = `/next`">'
    site.add("/next", body.format("next"))
    await page.navigate(site.add("/start", body.format("start")))
    await do(page, "check", selector="#a")
    assert (await page.info()).title == "next"


# Typing

FIELD = '<input id="a" value="old">'
TEXT = "Hello, World! 50% #~{|}"


async def test_type_writes_behind_what_is_there(page: cdp.Page) -> None:
    values = {
        FIELD: "a.value",
        '<textarea id="a">old</textarea>': "a.value",
        '<input id="a" type="email" value="old">': "a.value",
        '<div id="a" contenteditable>old</div>': "a.textContent",
        '<label id="a">Name <input id="in" value="old"></label>': "document.querySelector('#in').value",
        '<div contenteditable><p>other</p><p id="a">old</p></div>': "a.textContent",
    }
    seen = {}
    for field, value in values.items():
        await show(page, field)
        await do(page, "type", selector="#a", text="-x1")
        seen[field] = await page.evaluate(value)
    assert seen == dict.fromkeys(values, "old-x1")


async def test_type_clears_first(page: cdp.Page) -> None:
    values = {
        FIELD: "a.value",
        '<textarea id="a">old\n\nlines</textarea>': "a.value",
        '<input id="a" type="number" value="12">': "a.value",
        '<div id="a" contenteditable>old <b>and</b> <p>more</p></div>': "a.innerText",
    }
    seen = {}
    for field, value in values.items():
        await show(page, field + "<p>rest of the page</p><script>watch(a, 'input')</script>")
        await do(page, "type", selector="#a", text="7", clear=True)
        seen[field] = (await page.evaluate(value), await logged(page))
    assert seen == dict.fromkeys(values, ("7", ["input trusted"] * 2))


async def test_type_of_nothing_clears_only(page: cdp.Page) -> None:
    await show(page, FIELD)
    await do(page, "type", selector="#a", text="", clear=True)
    assert await page.evaluate("a.value") == ""


async def test_type_writes_every_character_of_the_keyboard(page: cdp.Page) -> None:
    text = "".join(chr(code) for code in range(32, 127))
    await show(page, '<input id="a">')
    await do(page, "type", selector="#a", text=text)
    assert await page.evaluate("a.value") == text


async def test_type_writes_what_no_keyboard_has(page: cdp.Page) -> None:
    text = "grüße 日本語 👩‍👩‍👧 🇨🇭👍🏽 e\u0301 1️⃣"
    await show(page, '<input id="a">')
    await do(page, "type", selector="#a", text=text)
    assert await page.evaluate("a.value") == text


async def test_type_sends_the_events_of_real_keys(page: cdp.Page) -> None:
    await show(
        page,
        '<input id="a"><script>for (const type of ["keydown", "keypress", "input", "keyup"])'
        "a.addEventListener(type, e => note(type, e.key ?? e.data, e.code ?? '', e.keyCode ?? '', e.shiftKey ?? '',"
        "e.isTrusted))</script>",
    )
    await do(page, "type", selector="#a", text="B")
    assert await logged(page) == [
        "keydown B KeyB 66 true true",
        "keypress B KeyB 66 true true",
        "input B    true",
        "keyup B KeyB 66 true true",
    ]


async def test_type_of_a_line_end_presses_enter(page: cdp.Page) -> None:
    await show(page, '<textarea id="a"></textarea><script>a.onkeydown = event => note(event.key)</script>')
    await do(page, "type", selector="#a", text="a\nb\r\nc")
    assert await page.evaluate("a.value") == "a\nb\nc"
    assert await logged(page) == ["a", "Enter", "b", "Enter", "c"]


async def test_type_of_a_line_end_sends_the_form_and_waits_for_its_page(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/form", '<form action="/ok"><input id="a" name="q"></form>'))
    await do(page, "type", selector="#a", text="what\n")
    info = await page.info()
    assert (info.url, info.title) == (site.url("/ok?q=what"), OK_TITLE)


async def test_type_of_a_tab_goes_to_the_next_field(page: cdp.Page) -> None:
    await show(page, '<input id="a"><input id="b">')
    await do(page, "type", selector="#a", text="one\ttwo")
    assert await page.evaluate("[a.value, b.value]") == ["one", "two"]


async def test_type_without_a_selector_goes_where_the_focus_is(page: cdp.Page) -> None:
    await show(page, '<input><input id="b" autofocus>')
    await page.evaluate("b.focus()")
    await do(page, "type", text="here")
    assert await page.evaluate("b.value") == "here"


async def test_type_keeps_the_caret_of_a_field_that_has_the_focus(page: cdp.Page) -> None:
    await show(page, '<input id="a">')
    await do(page, "type", selector="#a", text="ac")
    await do(page, "press", key="ArrowLeft")
    await do(page, "type", selector="#a", text="b")
    assert await page.evaluate("a.value") == "abc"


async def test_type_waits_between_keys(page: cdp.Page) -> None:
    await show(page, '<input id="a"><script>a.onkeydown = event => note(event.timeStamp)</script>')
    await do(page, "type", selector="#a", text="abc", delay_ms=40)
    first, second, third = map(float, await logged(page))
    assert min(second - first, third - second) > 30


async def test_type_tells_why_it_waits(page: cdp.Page) -> None:
    expected = {
        '<input id="a" readonly>': "is read-only",
        '<input id="a" disabled>': "is disabled",
        '<input id="a" style="display:none">': "is not visible",
        '<p id="a">words</p>': "is not a field that takes text",
        '<input id="a" type="checkbox">': "is not a field that takes text",
        '<input id="a" onfocus="this.blur()">': "does not take the focus",
    }
    seen = {}
    for field in expected:
        await show(page, field)
        seen[field] = await awaited(page, "type", selector="#a", text="x")
    assert seen == {field: f"the element '#a' {reason}" for field, reason in expected.items()}


async def test_type_reaches_a_field_in_the_shadow_of_the_element(page: cdp.Page) -> None:
    await show(
        page,
        '<x-field id="a"></x-field><script>a.attachShadow({mode: "open", delegatesFocus: true}).innerHTML = "<input>"'
        "</script>",
    )
    await do(page, "type", selector="#a", text="deep")
    assert await page.evaluate("a.shadowRoot.querySelector('input').value") == "deep"


async def test_type_works_where_the_page_hides_focus(page: cdp.Page) -> None:
    await show(
        page,
        '<form id="f" contenteditable><input name="focus"><p id="a">text</p></form>'
        "<script>HTMLElement.prototype.focus = () => { throw new Error('mine') }</script>",
    )
    await do(page, "type", selector="#f", text="x", clear=True)
    assert await page.evaluate("f.innerText.trim()") == "x"


async def test_type_goes_on_after_a_dialog_of_the_page(page: cdp.Page) -> None:
    await show(page, '<input id="a" onkeydown="if (!log.length) { note(1); alert(`typed`) }">')
    await do(page, "type", selector="#a", text="abc")
    assert (await page.evaluate("a.value")).endswith("bc")


# Keys


@pytest.mark.parametrize(
    ("text", "names", "key", "code"),
    [
        ("a", (), "a", "KeyA"),
        ("A", (), "A", "KeyA"),
        ("Shift+a", ("Shift",), "A", "KeyA"),
        ("Control+A", ("Control",), "a", "KeyA"),
        ("Control+Shift+a", ("Control", "Shift"), "A", "KeyA"),
        ("Shift+1", ("Shift",), "!", "Digit1"),
        ("+", (), "+", "Equal"),
        ("Control++", ("Control",), "+", "Equal"),
        ("Space", (), " ", "Space"),
        ("F12", (), "F12", "F12"),
        ("Shift", (), "Shift", "ShiftLeft"),
        ("Alt+Control+Delete", ("Alt", "Control"), "Delete", "Delete"),
    ],
)
def test_parse_keys(text: str, names: tuple[str, ...], key: str, code: str) -> None:
    modifiers, found = parse_keys(text)
    assert (modifiers, found.key, found.code) == (names, key, code)


@pytest.mark.parametrize("text", ["", "Control+", "+a", "enter", "Entr", "Control+Nope", "Hyper+a", "ß", "a+b", "++a"])
def test_parse_keys_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"^there is no key|is no modifier"):
        parse_keys(text)


def test_parse_keys_names_some_keys() -> None:
    with pytest.raises(ValueError, match=r"'Entr': Enter, Tab, .* are some; did you mean Enter\?"):
        parse_keys("Entr")


async def test_press_names_every_key_as_the_browser_does(page: cdp.Page) -> None:
    names = ["Enter", "ArrowDown", "F5", "A", "?", "Delete", "Space", "Meta"]
    await show(
        page,
        '<p id="a" tabindex="0">x</p><script>document.addEventListener("keydown", event => {'
        "note(event.key, event.code, event.keyCode, event.isTrusted); event.preventDefault() })</script>",
    )
    for name in names:
        await do(page, "press", key=name, selector="#a")
    assert await logged(page) == [f"{KEYS[name].key} {KEYS[name].code} {KEYS[name].key_code} true" for name in names]


async def test_press_holds_the_modifiers(page: cdp.Page) -> None:
    await show(
        page,
        "<script>for (const type of ['keydown', 'keyup']) document.addEventListener(type, e =>"
        "note(type, e.key, [e.ctrlKey, e.shiftKey, e.altKey, e.metaKey].map(Number)))</script>",
    )
    await do(page, "press", key="Control+Shift+A")
    assert await logged(page) == [
        "keydown Control 1,0,0,0",
        "keydown Shift 1,1,0,0",
        "keydown A 1,1,0,0",
        "keyup A 1,1,0,0",
        "keyup Shift 1,0,0,0",
        "keyup Control 0,0,0,0",
    ]


async def test_press_edits_as_the_keyboard_does(page: cdp.Page) -> None:
    expected = {
        ('<input id="a" value="one two">', "Control+A"): "one two",
        ('<div id="a" contenteditable>one two</div>', "Control+A"): "one two",
        ('<input id="a" value="one two">', "Control+Shift+ArrowLeft"): "two",
    }
    seen = {}
    for field, key in expected:
        await show(page, field)
        await do(page, "press", key=key, selector="#a")
        seen[field, key] = await page.evaluate("getSelection().toString()")
    assert seen == expected


async def test_press_of_a_printed_key_types_it(page: cdp.Page) -> None:
    await show(page, '<input id="a">')
    for key in ("a", "A", "Shift+b", "Space", "Shift+1", "+"):
        await do(page, "press", key=key, selector="#a")
    assert await page.evaluate("a.value") == "aAB !+"


async def test_press_of_tab_moves_the_focus(page: cdp.Page) -> None:
    await show(page, '<input id="a"><input id="b">')
    await do(page, "press", key="Tab", selector="#a")
    assert await page.evaluate("document.activeElement.id") == "b"


async def test_press_of_enter_sends_the_form_and_waits_for_its_page(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/form", '<form action="/ok"><input id="a" name="q" value="1"></form>'))
    await do(page, "press", key="Enter", selector="#a")
    assert (await page.info()).title == OK_TITLE


async def test_press_of_an_unknown_key_fails(page: cdp.Page) -> None:
    with pytest.raises(ActionFailed, match=r"there is no key 'Return': Enter, "):
        await do(page, "press", key="Return")


# Choosing

CHOICES = """<select id="a"><option value="">none</option><option value="v1">First
 one</option><option value="v2" label="Second">x</option><option disabled>Third</option></select>
<select id="many" multiple><option selected>A</option><option>B</option><option>C</option></select>
<script>for (const one of document.querySelectorAll('select')) for (const type of ['input', 'change'])
one.addEventListener(type, event => note(type, event.bubbles))</script>"""
CHOSEN = "[...document.querySelectorAll('#{} option:checked')].map(one => one.index)"


async def test_select_chooses_by_value_or_label(page: cdp.Page) -> None:
    expected = {"v1": 1, "Second": 2, "First one": 1, "x": 2, " First  one ": 1}
    await show(page, CHOICES)
    seen = {}
    for value in expected:
        await do(page, "select", selector="#a", value=value)
        seen[value] = (await page.evaluate(CHOSEN.format("a")))[0]
    assert seen == expected
    assert await logged(page) == ["input true", "change true"] * 5


async def test_select_chooses_several(page: cdp.Page) -> None:
    await show(page, CHOICES)
    for value, indexes in ((["B", "C"], [1, 2]), (["A"], [0]), ([], [])):
        await do(page, "select", selector="#many", value=value)
        assert await page.evaluate(CHOSEN.format("many")) == indexes


async def test_select_of_what_is_chosen_fires_nothing(page: cdp.Page) -> None:
    await show(page, CHOICES)
    await do(page, "select", selector="#a", value="")
    assert await logged(page) == []


async def test_select_waits_until_the_option_is_there(page: cdp.Page) -> None:
    await show(
        page, '<select id="a"><option>x</select><script>setTimeout(() => a.add(new Option("late")), 60)</script>'
    )
    await do(page, "select", selector="#a", value="late")
    assert await page.evaluate("a.value") == "late"


async def test_select_tells_why_it_waits(page: cdp.Page) -> None:
    many = "".join(f"<option>{number}" for number in range(30))
    first_ten = ", ".join(f'"{number}"' for number in range(10))
    expected = {
        (CHOICES, "nope"): 'has no option "nope", but "none", "First one", "Second", "Third"',
        (CHOICES, "Third"): 'has its option "Third" disabled',
        ('<select id="a"></select>', "x"): 'has no option "x", but none at all',
        ('<select id="a" disabled><option>x</select>', "x"): "is disabled",
        (f'<select id="a">{many}</select>', "x"): f'has no option "x", but {first_ten}, …',
    }
    seen = {}
    for body, value in expected:
        await show(page, body)
        seen[body, value] = await awaited(page, "select", selector="#a", value=value)
    assert seen == {case: f"the element '#a' {reason}" for case, reason in expected.items()}


async def test_select_that_can_never_be_fails_at_once(page: cdp.Page) -> None:
    await show(page, CHOICES)
    assert (
        await failure(page, "select", selector="#a", value=["v1", "v2"]) == "the element '#a' takes one option, not 2"
    )
    said = await failure(page, "select", selector="option", value="x")
    assert said == "the element 'option' is no <select> but <option>"


async def test_select_waits_for_the_page_it_leads_to(page: cdp.Page, site: Site) -> None:
    body = '<select id="a" onchange="location = this.value"><option>-<option value="/ok">on</select>'
    await page.navigate(site.add("/start", body))
    await do(page, "select", selector="#a", value="on")
    assert (await page.info()).title == OK_TITLE


# Scrolling

TALL = """<style>body { margin: 0; height: 6000px; width: 4000px }</style>
<div id="mark" style="position:absolute;top:3000px;left:0;height:10px;width:10px"></div>
<div id="box" style="height:100px;width:100px;overflow:scroll"><div style="height:900px;width:900px"></div></div>
<script>addEventListener('scroll', () => note('scrolled'))</script>"""


async def test_scroll_moves_the_page(page: cdp.Page) -> None:
    cases: list[tuple[dict[str, object], list[float]]] = [
        ({}, [100, 900]),
        ({"to": "top"}, [100, 0]),
        ({"to": "bottom"}, [100, 5200]),
        ({"to": {"x": 30, "y": 40}}, [30, 40]),
        ({"to": "#mark"}, [0, 3000]),
        ({"by": 50}, [100, 150]),
        ({"by": -50}, [100, 50]),
        ({"by": {"x": 10, "y": 20}}, [110, 120]),
    ]
    await show(page, TALL)
    seen = []
    for fields, _ in cases:
        await page.evaluate("scrollTo(100, 100)")
        await do(page, "scroll", **fields)
        seen.append((fields, await page.evaluate("[scrollX, scrollY]")))
    assert seen == cases


async def test_scroll_moves_the_element_of_its_selector(page: cdp.Page) -> None:
    cases: list[tuple[dict[str, object], list[float]]] = [
        ({}, [100, 0]),
        ({"to": "bottom"}, [800, 0]),
        ({"by": 70}, [70, 0]),
        ({"to": {"y": 90}}, [90, 0]),
    ]
    await show(page, TALL + "<style>#box { scrollbar-width: none }</style>")
    seen = []
    for fields, _ in cases:
        await page.evaluate("box.scrollTo(0, 0)")
        await do(page, "scroll", selector="#box", **fields)
        seen.append((fields, await page.evaluate("[box.scrollTop, scrollY]")))
    assert seen == cases


async def test_scroll_fires_its_events_before_it_ends(page: cdp.Page) -> None:
    await show(page, TALL + "<style>html { scroll-behavior: smooth }</style>")
    await do(page, "scroll", to="bottom")
    assert await logged(page) == ["scrolled"]


async def test_scroll_brings_up_what_is_loaded_in_view(page: cdp.Page) -> None:
    await show(
        page,
        TALL + "<script>new IntersectionObserver(all => all[0].isIntersecting && note('seen')).observe(mark)</script>",
    )
    await do(page, "scroll", to="#mark")
    assert "seen" in await logged(page)


async def test_scroll_moves_a_page_in_quirks_mode(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.add("/quirks", '<div style="height:5000px"></div>'))
    await do(page, "scroll", by=200)
    assert await page.evaluate("[document.compatMode, scrollY]") == ["BackCompat", 200]


async def test_scroll_waits_for_the_element_to_go_to(page: cdp.Page) -> None:
    await show(page, TALL)
    assert await awaited(page, "scroll", to="#nobody") == "the element '#nobody' is not in the document"


async def test_scroll_names_the_selector_that_does_not_parse(page: cdp.Page) -> None:
    await show(page, TALL)
    for fields in ({"to": "p >"}, {"to": "#mark", "selector": "p >"}, {"to": "p >", "selector": "#box"}):
        assert (await failure(page, "scroll", **fields)).startswith("selector 'p >': ")


# Waiting


async def test_wait_for_an_element_that_is_visible(page: cdp.Page) -> None:
    await show(page, '<p id="a" hidden>x</p><script>setTimeout(() => a.hidden = false, 100)</script>')
    await do(page, "wait", selector="#a")
    assert await page.evaluate("a.hidden") is False


async def test_wait_for_an_expression_that_throws_at_first(page: cdp.Page) -> None:
    await show(page, "<script>setTimeout(() => globalThis.late = {deep: document.body}, 100)</script>")
    await do(page, "wait", expression="late.deep")
    assert await page.evaluate("'late' in globalThis")


async def test_wait_for_an_expression_that_does_not_parse_fails_at_once(page: cdp.Page) -> None:
    with pytest.raises(ActionFailed, match="SyntaxError"):
        await do(page, "wait", expression="1 +")


async def test_wait_tells_what_for(page: cdp.Page) -> None:
    await show(page, '<p id="a" hidden>x</p>')
    for fields, reason in (
        ({"ms": 60_000}, "the wait of 60000 ms is not over"),
        ({"selector": "#a"}, "the element '#a' is not visible"),
        ({"expression": "false"}, "the expression is not true"),
    ):
        assert await awaited(page, "wait", **fields) == reason


# Going elsewhere


def dead_url() -> str:
    """A URL whose port nobody listens at."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


async def test_goto_opens_a_page(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tall"))
    await do(page, "goto", url=site.url("/ok"))
    assert (await page.info()).title == OK_TITLE


async def test_goto_a_dead_address_fails(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    with pytest.raises(ActionFailed, match=r"action 1 \(goto\) failed: navigation failed: net::ERR_CONNECTION_REFUSED"):
        await do(page, "goto", url=dead_url())


async def test_goto_that_is_optional_keeps_the_page(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    record = await do(page, "goto", url=dead_url(), optional=True)
    assert (record.ok, (await page.info()).title) == (False, OK_TITLE)


async def test_goto_tells_what_is_loading(page: cdp.Page, site: Site) -> None:
    with pytest.raises(ActionFailed, match=r"within 300 ms: the page is not loaded: http.*/never-loads"):
        await do(page, "goto", url=site.url("/never-loads"), timeout_ms=300)


# Scripts


async def test_evaluate_gives_the_value(page: cdp.Page) -> None:
    expected = {
        "1 + 1": 2,
        "({a: [1, null, 'ü😀']})": {"a": [1, None, "ü😀"]},
        "undefined": None,
        "await Promise.resolve(5)": 5,
        "const a = 2; a * 3": 6,
        r"'a\ud800b'": "a?b",
    }
    assert {script: (await do(page, "evaluate", script=script)).value for script in expected} == expected


async def test_evaluate_takes_a_value_up_to_the_limit(page: cdp.Page) -> None:
    record = await do(page, "evaluate", script=f"'x'.repeat({MAX_VALUE_BYTES - 2})")
    assert len(json.dumps(record.value)) == MAX_VALUE_BYTES


async def test_evaluate_refuses_a_value_over_the_limit(page: cdp.Page) -> None:
    for script in (f"'x'.repeat({MAX_VALUE_BYTES - 1})", "Array(200000).fill(1)", "'ü'.repeat(140000)"):
        assert await failure(page, "evaluate", script=script) == "the value is over the limit of 256 KiB of JSON"


async def test_evaluate_takes_or_refuses_a_value_that_is_nested_deeply(page: cdp.Page) -> None:
    script = "let value = []; for (let n = 0; n < {}; n++) value = [value]; value"
    assert (await do(page, "evaluate", script=script.format(250))).ok
    assert (await do(page, "evaluate", script=script.format(400))).value is None
    assert page.warnings[0].startswith("the value of a script is not told: ")


async def test_evaluate_waits_for_the_page_it_leads_to(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tall"))
    await do(page, "evaluate", script="location = '/ok'")
    assert (await page.info()).title == OK_TITLE


# Pictures


async def test_screenshot_shows_the_viewport_in_the_request_s_format(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tall"))
    options = CaptureOptions(format="webp")
    record = await perform(page, step("screenshot", name="top"), 0, picture_options=options)
    assert record.picture is not None
    assert (record.name, record.picture.content_type) == ("top", "image/webp")
    assert (record.picture.width, record.picture.height) == (1280, 800)


async def test_screenshot_of_an_element_waits_for_it(page: cdp.Page) -> None:
    await show(
        page,
        '<div id="a" hidden style="width:70px;height:30px"></div>'
        "<script>setTimeout(() => a.hidden = false, 60)</script>",
    )
    record = await do(page, "screenshot", name="a", selector="#a")
    assert record.picture is not None
    assert (record.picture.width, record.picture.height) == (70, 30)


async def test_screenshot_keeps_the_limit_of_pixels(page: cdp.Page) -> None:
    with pytest.raises(ActionFailed, match="over the limit of 1000 pixels"):
        await perform(page, step("screenshot", name="a"), 0, max_pixels=1000)


# Pages that are in the way


async def test_step_on_a_page_that_hangs_ends_at_its_own_time(page: cdp.Page) -> None:
    await show(page, '<button id="a" onclick="for (;;);">x</button>')
    with pytest.raises(ActionFailed, match="within 500 ms: the page has not answered the click"):
        await do(page, "click", selector="#a", timeout_ms=500)


async def test_click_goes_on_in_the_page_that_comes_meanwhile(page: cdp.Page, site: Site) -> None:
    site.add("/next", LOG + BUTTON)
    await page.navigate(site.add("/start", "<script>onload = () => setTimeout(() => location = '/next', 50)</script>"))
    await do(page, "click", selector="#a")
    assert await logged(page) == ["clicked"]


# Faults of a list of steps


def faults(*steps: dict[str, Any]) -> dict[str, str]:
    return {fault.field: fault.message for fault in action_faults(structure(one, Action) for one in steps)}  # type: ignore[arg-type]


def test_action_faults_of_good_steps() -> None:
    good: list[dict[str, Any]] = [
        {"type": "wait", "milliseconds": 5},
        {"type": "wait", "expression": "1"},
        {"type": "scroll"},
        {"type": "scroll", "to": "top"},
        {"type": "goto", "url": "example.org"},
        {"type": "press", "key": "Control+A"},
        {"type": "screenshot", "name": "a.b-C_1"},
        {"type": "screenshot", "name": "a"},
    ]
    assert faults(*good) == {}


@pytest.mark.parametrize(
    ("bad", "field", "message"),
    [
        ({"type": "wait"}, "actions[0]", "needs exactly one of ms, selector and expression"),
        ({"type": "wait", "ms": 0, "selector": "p"}, "actions[0]", "needs exactly one of ms, selector and expression"),
        ({"type": "scroll", "to": "top", "by": 0}, "actions[0].by", "cannot go with to: give one of them"),
        ({"type": "goto", "url": "file:///x"}, "actions[0].url", "scheme 'file' is not allowed; http and https are"),
        ({"type": "press", "key": "Any"}, "actions[0].key", "there is no key 'Any'"),
        ({"type": "screenshot", "name": ".a"}, "actions[0].name", "may have letters, digits"),
        ({"type": "screenshot", "name": "a/b"}, "actions[0].name", "may have letters, digits"),
        ({"type": "screenshot", "name": "a\n"}, "actions[0].name", "may have letters, digits"),
    ],
)
def test_action_faults_names(bad: dict[str, Any], field: str, message: str) -> None:
    ((found, said),) = faults(bad).items()
    assert (found, said.startswith(message)) == (field, True)


def test_action_faults_names_a_screenshot_s_name_that_stands_twice() -> None:
    twice = [{"type": "screenshot", "name": "a"}, {"type": "wait", "ms": 1}, {"type": "screenshot", "name": "a"}]
    assert faults(*twice) == {"actions[2].name": "is the name of an earlier screenshot"}
