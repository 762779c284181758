"""Text, Markdown, links, metadata and elements of documents, without a browser."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cdp
from cdp import document
from cdp.document import (
    MAX_COLSPAN,
    MAX_INDENTATION,
    MAX_JSON_DEPTH,
    absolute_url,
    links,
    markdown,
    metadata,
    parse,
    select,
    text,
)
from cdp.errors import InvalidSelector, TooLarge

from . import pages
from .site import Site

URL = "https://site.example/dir/page?q#f"


@pytest.fixture(scope="module")
def manual() -> str:
    """The HTML of the long document."""
    page = pages.long_document()
    return (page.folder / page.start).read_text("utf-8")


# URLs


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("a", "https://site.example/dir/a"),
        ("/a", "https://site.example/a"),
        ("../a", "https://site.example/a"),
        ("?a", "https://site.example/dir/page?a"),
        ("#a", "https://site.example/dir/page?q#a"),
        ("#", "https://site.example/dir/page?q#"),
        ("a?", "https://site.example/dir/a?"),
        ("//other.example", "https://other.example/"),
        (r"\\other.example\a", "https://other.example/a"),
        ("///other.example/a", "https://other.example/a"),
        ("HTTP://other.example", "http://other.example/"),
        (" \n/a\tb c ", "https://site.example/ab%20c"),
        ("/ü?ü#ü", "https://site.example/%C3%BC?%C3%BC#%C3%BC"),
        ("http://münchen.example/", "http://xn--mnchen-3ya.example/"),
        ("/a//b", "https://site.example/a//b"),
        ("/100%25", "https://site.example/100%25"),
        ("mailto:a@b.example", "mailto:a@b.example"),
        ("tel:+41 1", "tel:+41%201"),
        ("http://[::bad/", None),
        ("http:///", None),
        ("http://a b.ü/", None),
    ],
)
def test_absolute_url(reference: str, url: str | None) -> None:
    assert absolute_url(URL, reference) == url


def test_absolute_url_without_a_base_is_left() -> None:
    assert absolute_url("about:blank", "/a") == "/a"


# Text


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>one<p>two", "one\n\ntwo"),
        ("<div>one</div><div>two</div>three", "one\ntwo\nthree"),
        ("<p> one \n\t two <b> three</b> </p>", "one two three"),
        ("a<b>b</b>c", "abc"),
        ("one<br>two<br><br><br>three", "one\ntwo\n\nthree"),
        ("<div>one<br></div>two", "one\ntwo"),
        ("<pre>\n one\n   two </pre>three", " one\n   two \nthree"),
        ("<ul><li>one<li>two</ul>", "one\ntwo"),
        ("<table><tr><th>a<th>b<tr><td>c<td><p>d</table>", "a\tb\nc\td"),
        ("<table><tr><td>a<td><tr><td><td>d</table>", "a\t\n\td"),
        ("<p>one</p><p> </p><p>two</p>", "one\n\ntwo"),
        ("<title>no</title><style>no</style><script>no</script><noscript>no</noscript>yes", "yes"),
        ("<template>no</template><iframe>no</iframe><textarea>no</textarea>yes", "yes"),
        ("<p hidden>no</p><dialog>no</dialog><dialog open>yes</dialog>", "yes"),
        ("<svg><title>no</title><text>yes</text></svg>", "yes"),
        ("&lt;b&gt; &amp;amp; &nbsp;x", "<b> &amp; \xa0x"),
        ("", ""),
    ],
)
def test_text(html: str, expected: str) -> None:
    assert text(html) == expected


async def test_text_is_what_the_browser_says(page: cdp.Page, site: Site, manual: str) -> None:
    await page.navigate(pages.mount(site).document_url)
    said = await page.call("() => document.querySelector('section').innerText")
    # The words; style sheets have a say in where lines end.
    assert text(select(manual, "section") or "").split() == said.split()


# Shadow roots

SHADOW = (
    '<x-card><template shadowrootmode="open"><h2><slot name="title">untitled</slot></h2><a href="/in">inner</a> '
    "<slot></slot></template><b slot='title'>Title</b>light <a href='/out'>outer</a><i slot='lost'>lost</i></x-card>"
)


def test_text_reads_shadow_roots_through_their_slots() -> None:
    assert text(SHADOW) == "Title\ninner light outer"


def test_text_reads_what_a_slot_falls_back_to() -> None:
    assert text('<div><template shadowrootmode="closed"><slot>fallback</slot></template></div>') == "fallback"


def test_text_reads_shadow_roots_within_each_other() -> None:
    inner = '<u><template shadowrootmode="open">[<slot></slot>]</template><slot></slot></u>'
    assert text(f'<div><template shadowrootmode="open">{inner}</template>light</div>') == "[light]"


def test_markdown_reads_shadow_roots() -> None:
    got = markdown(SHADOW, URL)
    assert got == ("## **Title**\n\n[inner](https://site.example/in) light [outer](https://site.example/out)")


def test_links_reads_shadow_roots() -> None:
    assert [link["text"] for link in links(SHADOW, URL)] == ["inner", "outer"]


# Links


def test_links_have_url_text_and_rel() -> None:
    html = '<a href="/a" rel="nofollow  noopener"> one <b>two</b>\n three</a>'
    expected = {"url": "https://site.example/a", "text": "one two three", "rel": "nofollow noopener"}
    assert links(html, URL) == [expected]


def test_links_keep_order_and_duplicates() -> None:
    html = '<a href="b">1</a><map><area href="a" alt="2"></map><a href="b">3</a>'
    got = [(link["url"].rpartition("/")[2], link["text"]) for link in links(html, URL)]
    assert got == [("b", "1"), ("a", "2"), ("b", "3")]


def test_links_leave_out_what_leads_nowhere() -> None:
    html = '<a href="">1</a><a href=" javaScript:x">2</a><a>3</a><a href="data:,x">4</a><a href="http://[::x">5</a>'
    assert links(html, URL) == []


def test_links_keep_mail_and_telephone() -> None:
    got = [link["url"] for link in links('<a href="mailto:a@b.example">1</a><a href="tel:117">2</a>', URL)]
    assert got == ["mailto:a@b.example", "tel:117"]


def test_links_are_relative_to_the_base_of_the_document() -> None:
    html = '<base target="x"><base href="/other/"><base href="/late/"><a href="a">x</a>'
    assert links(html, URL)[0]["url"] == "https://site.example/other/a"


def test_links_have_the_texts_of_images_and_blocks() -> None:
    html = '<a href="a"><img alt="Logo"><div>Home</div>page<script>no</script></a>'
    assert links(html, URL)[0]["text"] == "Logo Home page"


def test_links_leave_out_what_is_no_element() -> None:
    html = '<template><a href="a">1</a></template><noscript><a href="b">2</a></noscript><!--<a href="c">3</a>-->'
    assert links(html, URL) == []


async def test_links_are_those_of_the_browser(page: cdp.Page, site: Site, manual: str) -> None:
    url = pages.mount(site).document_url
    await page.navigate(url)
    said = await page.call("() => [...document.links].map(link => link.href)")
    assert [link["url"] for link in links(manual, url)] == said


# Metadata

HEAD = """<html lang="de-CH"><head><title> The
 title</title><meta name="Description" content=" What it says "><link rel="canonical" href="/canonical">
<meta property="og:title" content="First"><meta property="og:title" content="Second">
<meta property="article:author" content="Anna"><meta name="twitter:card" content="summary">
<link rel="shortcut ICON" href="/f.ico" sizes="16x16" type="image/x-icon"><link rel="apple-touch-icon" href="t.png">
<script type="application/ld+json">{"@type": "Article", "n": [1]}</script>
<script type="application/ld+json">{bad</script><script type="application/ld+json">[2]</script></head>
<svg><title>drawing</title></svg>"""


def test_metadata_of_a_full_head() -> None:
    assert metadata(HEAD, URL) == {
        "title": "The title",
        "description": "What it says",
        "canonical": "https://site.example/canonical",
        "language": "de-CH",
        "open_graph": {"title": "First", "article:author": "Anna"},
        "twitter": {"card": "summary"},
        "json_ld": [{"@type": "Article", "n": [1]}, [2]],
        "icons": [
            {"url": "https://site.example/f.ico", "rel": "shortcut icon", "sizes": "16x16", "type": "image/x-icon"},
            {"url": "https://site.example/dir/t.png", "rel": "apple-touch-icon", "sizes": None, "type": None},
        ],
    }


def test_metadata_of_nothing_has_the_same_keys() -> None:
    empty = {"title": None, "description": None, "canonical": None, "language": None}
    assert metadata("", URL) == empty | {"open_graph": {}, "twitter": {}, "json_ld": [], "icons": []}


def test_metadata_takes_the_title_of_the_document_not_of_a_drawing() -> None:
    assert metadata("<svg><title>no</title></svg><title>yes</title>", URL)["title"] == "yes"


@pytest.mark.parametrize(
    "block", ["{", "[NaN]", "[" * 100_000, "[" * 200 + "]" * 200, '["\\ud800"]', "1" * 5000, '{"\\udfff": 1}']
)
def test_metadata_skips_json_that_cannot_be_passed_on(block: str) -> None:
    assert metadata(f'<script type="application/ld+json">{block}</script>', URL)["json_ld"] == []


def test_metadata_takes_json_as_deep_as_allowed() -> None:
    block = "[" * (MAX_JSON_DEPTH - 1) + "]" * (MAX_JSON_DEPTH - 1)
    assert metadata(f'<script type="application/ld+json">{block}</script>', URL)["json_ld"] == [json.loads(block)]


# Markdown


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<h1>One</h1><p>two</p><h3>Thr<br>ee</h3>", "# One\n\ntwo\n\n### Thr ee"),
        ("<p>a <b>bold</b>, <em>it</em> and <s>no</s></p>", "a **bold**, *it* and ~~no~~"),
        ("x<b> bold </b>y <i><b>both</b></i>", "x **bold** y ***both***"),
        ("<b>a<b>b</b>c</b>", "**abc**"),
        ("<b><p>one</p><p>two</p></b>", "**one**\n\n**two**"),
        ("<p>one<br>two</p>", "one  \ntwo"),
        ("one<hr>two", "one\n\n---\n\ntwo"),
        ("<ul><li>a<li>b<ul><li>c</ul><li><p>d</p><p>e</p></ul>f", "- a\n- b\n  - c\n- d\n\n  e\n\nf"),
        ("<ol start=9><li>a<li>b<br>c</ol>", "9. a\n10. b  \n    c"),
        ("<p>x</p><ol><li>a</ol>", "x\n\n1. a"),
        ("<ul><li></li><li>b</li></ul>", "- b"),
        ("<ul><li><ul><li>deep</ul></ul>", "- - deep"),
        ("<blockquote><p>a</p><p>b</p></blockquote>c", "> a\n>\n> b\n\nc"),
        ("<ul><li><blockquote>a<pre>b\n\nc</pre></blockquote></ul>", "- > a\n  >\n  > ```\n  > b\n  >\n  > c\n  > ```"),
        ("use <code>a`b</code>", "use ``a`b``"),
        ("<pre>a\n  b\n</pre>", "```\na\n  b\n```"),
        ("<pre>```</pre>", "````\n```\n````"),
        ("<a href='x'>a <b>b</b></a>", "[a **b**](https://site.example/dir/x)"),
        ("<a href='/a(b)'>x</a>", "[x](<https://site.example/a(b)>)"),
        ("<a href='javascript:x'>x</a> <a name=y>y</a> <a href=z></a>", "x y"),
        ("<a href=x><h2>T</h2><p>p</p></a>", "## [T](https://site.example/dir/x)\n\n[p](https://site.example/dir/x)"),
        ("<img src=a.png alt='A [b]'>", r"![A \[b\]](https://site.example/dir/a.png)"),
        ("<img src='data:image/png;base64,AAAA' alt='A'>", "A"),
        ("<a href=x><img src=y></a>", "[![](https://site.example/dir/y)](https://site.example/dir/x)"),
        ("<dl><dt>t<dd>d</dl>", "t\n\nd"),
        ("<script>no</script><style>no</style><noscript>no</noscript><template>no</template>yes", "yes"),
        ("<title>no</title><p hidden>no</p><select><option>no</select><svg><text>no</text></svg>yes", "yes"),
    ],
)
def test_markdown(html: str, expected: str) -> None:
    assert markdown(html, URL) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("*a* _b_ `c` \\d", r"\*a\* \_b\_ \`c\` \\d"),
        ("snake_case 2 < 3 & a[0]", "snake_case 2 < 3 & a[0]"),
        ("<b> &amp; ~~x~~ [a](b)", r"\<b> \&amp; \~~x\~~ [a\](b)"),
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("1.5 a", "1.5 a"),
        ("> a", r"\> a"),
        ("---", r"\---"),
        ("[a]: b", r"\[a]: b"),
        ("a - b # c", "a - b # c"),
    ],
)
def test_markdown_escapes_what_would_be_markup(words: str, expected: str) -> None:
    escaped = words.replace("&", "&amp;").replace("<", "&lt;")
    assert markdown(f"<p>{escaped}</p>", URL) == expected


@pytest.mark.parametrize(
    "html",
    [
        '<pre><code class="language-python">x</code></pre>',
        '<pre class="brush: python">x</pre>',
        '<div class="highlight-python notranslate"><div class="highlight"><pre>x</pre></div></div>',
        '<div class="highlight highlight-source-python"><pre>x</pre></div>',
        '<pre data-lang="python">x</pre>',
        '<pre class="sourceCode python"><code>x</code></pre>',
    ],
)
def test_markdown_tells_the_language_of_code(html: str) -> None:
    assert markdown(html, URL) == "```python\nx\n```"


@pytest.mark.parametrize("name", ["highlight-default", "language-none", "lang-`x", "plain"])
def test_markdown_tells_no_language_that_is_none(name: str) -> None:
    assert markdown(f'<pre class="{name}">x</pre>', URL).startswith("```\n")


def test_markdown_of_a_table() -> None:
    html = (
        "<table><caption>Cap</caption><thead><tr><th>A<th>B</thead><tr><td>1|2<td><p>x<p>y<tr>"
        "<td colspan=2><a href=/z>z</a></table>after"
    )
    lines = ["| A | B |", "| --- | --- |", "| 1\\|2 | x<br>y |", "| [z](https://site.example/z) |  |"]
    assert markdown(html, URL) == "Cap\n\n" + "\n".join(lines) + "\n\nafter"


def test_markdown_of_a_table_without_headings() -> None:
    assert markdown("<table><tr><td>a<td>b</table>", URL) == "|  |  |\n| --- | --- |\n| a | b |"


def test_markdown_of_a_table_within_a_list() -> None:
    assert markdown("<ul><li>x<table><tr><th>a</table></ul>", URL) == "- x\n\n  | a |\n  | --- |"


@pytest.mark.parametrize(
    "html",
    [
        "<table role=presentation><tr><td>a<td>b</table>",
        "<table><tr><td><table role=none><tr><td>a</table><td>b</table>",
    ],
)
def test_markdown_of_a_table_for_the_layout_is_plain(html: str) -> None:
    assert markdown(html, URL) == "a\n\nb"


def test_markdown_of_a_table_with_code_blocks_is_plain() -> None:
    assert markdown("<table><tr><td>1<td><pre>x</pre></table>", URL) == "1\n\n```\nx\n```"


def test_markdown_of_the_long_document(manual: str) -> None:
    got = markdown(manual, URL)
    assert "# Roundup Reference\n" in got
    assert "\n```ini\n[main]\n" in got
    assert "\n| Tracker File | Description |\n| --- | --- |\n| config.ini | Holds the basic " in got
    assert "](https://site.example/dir/glossary.html)" in got


# Selectors


def test_select_gives_the_outer_html_of_the_first() -> None:
    html = '<p class="a" title="x &amp; y">one <b>two</b></p><p class="a">three</p>'
    assert select(html, "p.a") == '<p class="a" title="x &amp; y">one <b>two</b></p>'


@pytest.mark.parametrize("selector", ["body > p:nth-child(2)", "[data-x]", "p + p", "#last", "p:not(:first-child)"])
def test_select_understands_css(selector: str) -> None:
    assert select('<p>one</p><p id="last" data-x>two</p>', selector) == '<p id="last" data-x>two</p>'


def test_select_gives_none_without_a_match() -> None:
    assert select("<p>x</p>", "h1") is None


def test_select_does_not_look_into_templates() -> None:
    html = "<template><p>no</p></template><div><template shadowrootmode=open><p>no</p></template></div><p>yes</p>"
    assert select(html, "p") == "<p>yes</p>"


def test_select_writes_special_elements_as_they_are() -> None:
    html = '<div><script>if (a<b) "&amp;"</script><noscript><img src="x"></noscript></div>'
    assert select(html, "div") == html


@pytest.mark.parametrize("selector", ["p[", "", "p::before", ":has(p)", ">"])
def test_select_refuses_what_it_does_not_know(selector: str) -> None:
    with pytest.raises(InvalidSelector):
        select("<p>x</p>", selector)


@pytest.mark.parametrize("selector", ["xpath=//p", "text=x"])
def test_select_says_what_needs_a_browser(selector: str) -> None:
    with pytest.raises(InvalidSelector, match="needs a browser"):
        select("<p>x</p>", selector)


# Hostile documents


def read_all(html: str) -> list[object]:
    """What all functions make of a document."""
    tree = parse(html)
    read = [text(tree), markdown(tree, URL), links(tree, URL), metadata(tree, URL)]
    return [*read, select(html, "div p > a:nth-child(2)")]


HOSTILE: dict[str, Callable[[int], str]] = {
    "blocks": lambda n: "<div>" * n + "x",
    "marks": lambda n: "<b><p>" * n + "x",
    "links": lambda n: "<a href=x><object>" * n + "x",
    "quotations": lambda n: "<blockquote>" * n + "x",
    "lists": lambda n: "<ul><li>" * n + "x",
    "tables": lambda n: "<table><tr><td>" * n + "x",
    "ragged table": lambda n: "<table><tr>" + "<td>x" * n + "<tr><td>" * n,
    "wide cells": lambda n: "<table>" + "<tr><td colspan=1000 rowspan=1000>x" * n,
    "code": lambda n: "<pre>" * n + "x",
    "shadow roots": lambda n: "<div><template shadowrootmode=open><slot></slot>" * n + "x",
    "slots": lambda n: "<u><template shadowrootmode=open><slot></slot><slot></slot></template>" * n + "x",
    "comments in a list": lambda n: "<ul>" + "<!-- -->" * n + "<li>x" * n,
    "misnested": lambda n: "<a><div>" * n + "</a>" * n,
    "drawing": lambda n: "<svg>" + "<g>" * n + "</p>" * n,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_nesting_is_read_in_linear_time(name: str) -> None:
    def elapsed(count: int) -> float:
        html = HOSTILE[name](count)
        start = time.process_time()
        read_all(html)
        return time.process_time() - start

    elapsed(50)
    # Ten times as much; quadratic work would take a hundred times as long.
    assert elapsed(1000) < 40 * elapsed(100) + 0.1


def test_nesting_of_twenty_thousand_is_read() -> None:
    tree = parse("<div>" * 20_000 + "deep")
    assert text(tree) == markdown(tree, URL) == "deep"


def test_markdown_indents_no_deeper_than_its_limit() -> None:
    got = markdown("<blockquote>" * 1000 + "x", URL)
    assert got == "> " * MAX_INDENTATION + "x"


def test_markdown_widens_no_cell_beyond_its_limit() -> None:
    assert markdown("<table><tr><td colspan=999>x</table>", URL).count("---") == MAX_COLSPAN


@pytest.mark.parametrize("read", [parse, lambda html: select(html, "p")])
def test_open_formatting_cannot_multiply_a_document(
    read: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "MAX_WEIGHT", 20_000)
    formatting = "".join(f"<font color={number}>" for number in range(100))
    # 600 elements by their tags, 40,000 in the tree.
    with pytest.raises(TooLarge, match="limit of 10,000"):
        read(f"<p>{formatting}</p>" + "<p>x" * 400)


def test_elements_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_WEIGHT", 2 * 100)
    assert text("<p>x</p>" * 90).startswith("x\n\nx")
    with pytest.raises(TooLarge):
        parse("<p>x</p>" * 101)


def test_attributes_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_WEIGHT", 2 * 100)
    with pytest.raises(TooLarge):
        parse("<p " + " ".join(f"a{number}" for number in range(200)) + ">")


@pytest.mark.parametrize("read", [links, markdown])
def test_long_base_cannot_multiply_a_document(read: Callable[[str, str], object]) -> None:
    html = f"<base href='http://x.example/{'a' * 10**6}/'>" + "<a href=b>x</a>" * 100
    with pytest.raises(TooLarge):
        read(html, URL)


_PIECES = st.sampled_from(
    [
        *(
            "<p>",
            "</p>",
            "<b>",
            "</b>",
            "<a href=x>",
            "</a>",
            "<a href='http://[x'>",
            "<ul>",
            "<li>",
            "</ul>",
            "<ol start=x>",
        ),
        *("<table>", "<tr>", "<td>", "<th colspan=3>", "</td>", "</table>", "<caption>", "<pre>", "</pre>", "<code>"),
        *("<h1>", "</h1>", "<blockquote>", "</blockquote>", "<template shadowrootmode=open>", "</template>", "<slot>"),
        *(
            "<svg>",
            "<title>",
            "</title>",
            "<math>",
            "<select>",
            "<option>",
            "<br>",
            "<hr>",
            "<img src=x alt=y>",
            "<!--",
        ),
        *(
            "-->",
            "<script>",
            "</script>",
            "<base href='//'>",
            "<meta property>",
            "<link rel=icon href=' '>",
            "<html lang>",
        ),
        *("text", " ", "\n", "&lt;", "\ud800", "\0", "<", "&#x110000;", "<plaintext>", "<frameset>", "</body>", "]](("),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PIECES, max_size=40).map("".join))
def test_no_document_makes_a_reader_raise(html: str) -> None:
    json.dumps(read_all(html), ensure_ascii=False).encode()


def test_tree_serves_all_readers() -> None:
    tree = parse("<title>t</title><a href=x>y</a>")
    assert (text(tree), metadata(tree, URL)["title"], len(links(tree, URL))) == ("y", "t", 1)
    assert markdown(tree, URL) == "[y](https://site.example/dir/x)"
