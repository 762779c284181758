"""cdp/selectors.py: which element a selector finds, what state it is in, and pages that are in the way."""

from __future__ import annotations

import pytest
import trio

import cdp
from cdp.errors import InvalidSelector, SelectorNotFound
from cdp.options import PageOptions, WaitFor
from cdp.selectors import ELEMENT_BOX, ELEMENT_STATE, FIND, reached

from .site import OK_TEXT, Site

QUICK_S = 20
FOUND_ID = "selector => {" + FIND + "return find(selector)?.id ?? null}"

PAGE = """<!DOCTYPE html><title>Words in the title</title>
<script>const a = "words in a script"</script><style>/* words in a style */</style>
<div id="intro"><p id="first">Hello   <b id="bold">big</b>
  world</p><p id="second">Hello again</p></div>
<ul id="list"><li id="one">Sign in now</li><li id="two">Sign in</li><li id="three"><a id="link">Sign in</a></li></ul>
<form id="form"><input id="send" type="submit" value="Send it"><input id="text" value="typed"></form>
<p id="quotes">He said "no"</p><p id="math">1 + 1 = (2)*[3].</p><p id="umlaut">GRÜSSE ÖL</p>
<noscript><p id="fallback">words without scripts</p></noscript><template><p id="inert">inert words</p></template>
"""


# Finding


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param(
            {"p": "first", "#list > li:nth-child(2)": "two", "ul a, #first": "first", "#nobody": None}, id="css"
        ),
        pytest.param(
            {
                "xpath=//li[2]": "two",
                "xpath=//li[contains(., 'Sign in')]/a": "link",
                "xpath=//a/text()": "link",
                "xpath=//a/@id": "link",
                "xpath=id('second')": "second",
                "xpath=//nobody": None,
            },
            id="xpath",
        ),
        pytest.param(
            {
                "text=again": "second",
                "text=HELLO AGAIN": "second",
                "text=big": "bold",
                "text=hello big world": "first",
                "text=  hello \n big   WORLD ": "first",
                "text=hello": "first",
                "text=sign in": "one",
                "text=1 + 1 = (2)*[3].": "math",
                "text=grüsse": "umlaut",
                'text=said "no"': "quotes",
                "text=nobody says this": None,
            },
            id="text",
        ),
        pytest.param({"text=send": "send", "text=typed": "text", 'text="Send it"': "send"}, id="text of inputs"),
        pytest.param(
            {
                "text=words in the title": None,
                "text=words in a": None,
                "text=words without scripts": None,
                "text=inert words": None,
            },
            id="text that nobody sees",
        ),
        pytest.param(
            {
                'text="Sign in"': "two",
                "text='Sign in'": "two",
                'text="Sign in now"': "one",
                'text="Hello big world"': "first",
                'text="sign in"': None,
                'text="Sign"': None,
                'text="GRÜSSE ÖL"': "umlaut",
            },
            id="quoted text",
        ),
    ],
)
async def test_selector_finds(page: cdp.Page, expected: dict[str, str | None]) -> None:
    await page.set_content(PAGE, None)
    assert {selector: await page.call(FOUND_ID, selector) for selector in expected} == expected


async def test_selector_by_quoted_text_gives_the_innermost_element(page: cdp.Page) -> None:
    await page.set_content('<p id="other">Other</p><div id="outer"><p id="inner">Hello</p></div>', None)
    assert await page.call(FOUND_ID, 'text="Hello"') == "inner"


async def test_selector_by_text_finds_nothing_in_a_document_without_a_body(page: cdp.Page, site: Site) -> None:
    url = site.add("/image.svg", '<svg xmlns="http://www.w3.org/2000/svg"><text>hello</text></svg>', "image/svg+xml")
    await page.navigate(url)
    assert await page.call(FOUND_ID, "text=hello") is None


async def test_selector_invalid_is_told_at_once(page: cdp.Page) -> None:
    await page.set_content(PAGE, None)
    for selector in ("#", "p:nope", "p >", "xpath=//[", "xpath=", "xpath=1", "1a", "]"):
        with trio.fail_after(QUICK_S), pytest.raises(InvalidSelector):
            await page.wait_for(WaitFor(selector))


async def test_selector_invalid_is_named(page: cdp.Page) -> None:
    await page.set_content(PAGE, None)
    with pytest.raises(InvalidSelector, match=r"selector 'p:nope': .*not a valid selector"):
        await page.wait_for(WaitFor("p:nope"))


# States


async def test_element_state_of_styles(page: cdp.Page) -> None:
    expected = {
        "width:1px;height:1px": "visible",
        "display:none": "hidden",
        "visibility:hidden;height:9px": "hidden",
        "visibility:collapse;height:9px": "hidden",
        "height:0": "empty",
        "width:0;height:9px": "empty",
        "height:9px;position:absolute;left:-500px;width:9px": "visible",
        "height:9px;opacity:0": "visible",
    }
    await page.set_content("".join(f'<div style="{style}"></div>' for style in expected), None)
    seen = [await page.call(ELEMENT_STATE, f"div:nth-child({at})") for at in range(1, len(expected) + 1)]
    assert seen == [{"state": state} for state in expected.values()]


async def test_element_state_of_an_element_within_a_hidden_one(page: cdp.Page) -> None:
    await page.set_content('<div style="display:none"><p id="box">text</p></div>', None)
    assert await page.call(ELEMENT_STATE, "#box") == {"state": "hidden"}


async def test_element_state_of_a_missing_element(page: cdp.Page) -> None:
    assert await page.call(ELEMENT_STATE, "#box") == {"state": "detached"}


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        ("attached", {"visible", "hidden"}),
        ("visible", {"visible"}),
        ("hidden", {"hidden", "detached"}),
        ("detached", {"detached"}),
    ],
)
def test_reached_takes_the_right_states(wanted: cdp.selectors.State, seen: set[str]) -> None:
    assert {state for state in ("visible", "hidden", "detached") if reached(wanted, state)} == seen


async def test_element_box_is_in_page_coordinates(page: cdp.Page) -> None:
    await page.set_content('<div id="box" style="position:absolute;left:3000px;top:5000px;width:9px;height:7px">', None)
    assert await page.call(ELEMENT_BOX, "#box") == {"x": 3000, "y": 5000, "width": 9, "height": 7}


@pytest.mark.parametrize(("selector", "expected"), [("#nobody", "not in the document"), ("#hidden", "not visible")])
async def test_element_box_tells_what_is_missing(page: cdp.Page, selector: str, expected: str) -> None:
    await page.set_content('<div id="hidden" style="display:none"></div>', None)
    assert await page.call(ELEMENT_BOX, selector) == {"missing": expected}


# Waiting


@pytest.mark.parametrize(
    ("selector", "state"),
    [
        ("#late", "visible"),
        ("#late", "attached"),
        ("text=late but here", "visible"),
        ("xpath=//p[@id='late']", "visible"),
        ("#gone", "detached"),
        ("#gone", "hidden"),
        ("#hidden", "attached"),
        ("#hidden", "hidden"),
        ("#nobody", "detached"),
        ("#nobody", "hidden"),
    ],
)
async def test_wait_for_ends_with_the_state(
    page: cdp.Page, site: Site, selector: str, state: cdp.selectors.State
) -> None:
    await page.navigate(site.url("/late-element"))
    with trio.fail_after(QUICK_S):
        await page.wait_for(WaitFor(selector, state))


async def test_wait_for_waits_until_the_state_is_there(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/late-element"))
    await page.wait_for(WaitFor("#late"))
    assert "late but here" in await page.html()


@pytest.mark.parametrize(("selector", "state"), [("#hidden", "visible"), ("#nobody", "attached"), ("#gone", "visible")])
async def test_wait_for_gives_up_after_its_own_time(
    page: cdp.Page, site: Site, selector: str, state: cdp.selectors.State
) -> None:
    site.add("/still", '<p id="hidden" style="display:none"></p>')
    await page.navigate(site.url("/still"))
    with pytest.raises(SelectorNotFound, match=f"'{selector}' was not {state} within 100 ms"):
        await page.wait_for(WaitFor(selector, state, timeout_ms=100))


async def test_wait_for_of_0_ms_looks_once(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    await page.wait_for(WaitFor("#box", timeout_ms=0))


async def test_wait_for_goes_on_in_the_document_that_comes_next(page: cdp.Page, site: Site) -> None:
    site.add("/first", '<p>first</p><script>onload = () => setTimeout(() => location = "/ok", 50)</script>')
    await page.navigate(site.url("/first"))
    with trio.fail_after(QUICK_S):
        await page.wait_for(WaitFor("#box"))
    assert (await page.info()).url == site.url("/ok")


async def test_wait_for_works_without_javascript(page: cdp.Page, site: Site) -> None:
    await page.prepare(PageOptions(url=site.url("/ok"), javascript=False))
    await page.navigate(site.url("/ok"))
    with trio.fail_after(QUICK_S):
        await page.wait_for(WaitFor(f"text={OK_TEXT}"))


# Pages that are in the way


@pytest.mark.parametrize("selector", ["#text", "xpath=//p", "text=page that tampers"])
async def test_selector_finds_in_a_page_that_replaced_built_ins(page: cdp.Page, site: Site, selector: str) -> None:
    await page.navigate(site.url("/tamper"))
    assert await page.call(FOUND_ID, selector) == "text"


async def test_element_box_is_right_in_a_page_that_replaced_built_ins(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/tamper"))
    assert await page.call(ELEMENT_BOX, "#box") == {"x": 200, "y": 100, "width": 80, "height": 40}


@pytest.mark.parametrize(
    ("name", "selector"),
    [
        ("querySelector", "#box"),
        ("evaluate", "xpath=//*[@id='box']"),
        ("body", "text=here"),
        ("createTreeWalker", "text=here"),
    ],
)
async def test_selector_finds_where_a_form_has_the_name_of_a_built_in(page: cdp.Page, name: str, selector: str) -> None:
    # `document.NAME` is that form then, in every world.
    await page.set_content(f'<form name="{name}"></form><p id="box">here</p>', None)
    with trio.fail_after(QUICK_S):
        await page.wait_for(WaitFor(selector))


async def test_element_box_is_right_for_a_form_with_fields_named_like_built_ins(page: cdp.Page) -> None:
    fields = "".join(f'<input name="{name}">' for name in ("getBoundingClientRect", "scrollIntoView", "children"))
    await page.set_content(
        f'<form id="box" style="position:absolute;left:5px;top:6px;width:70px;height:80px">{fields}</form>', None
    )
    assert await page.call(ELEMENT_BOX, "#box") == {"x": 5, "y": 6, "width": 70, "height": 80}


async def test_element_in_closed_details_is_hidden(page: cdp.Page) -> None:
    await page.set_content('<details><summary>more</summary><p id="box">inside</p></details>', None)
    assert (await page.call(ELEMENT_STATE, "#box"))["state"] != "visible"
