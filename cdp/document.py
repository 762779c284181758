"""What a document says besides its HTML: text, Markdown, links, metadata. Pure Python, no browser.

    tree = parse(html)
    text(tree), markdown(tree, url), links(tree, url), metadata(tree, url)

Each function takes HTML too and parses it itself. All of them use the processor and take no notice of cancellation: of
24 MB with 200,000 elements, 4 s to parse, 5 s for Markdown, 1 s for text or links. Call them in a thread. No document
makes them raise, however broken, but TooLarge; none recurses or takes more than linear time, whatever the nesting.

A reader sees a shadow root (`<template shadowrootmode>`) in place of its host's own children, which show where a
`<slot>` takes them. Scripts count as running: what `<noscript>` holds is not read.

The Markdown is our own: justhtml's has raw HTML for tables and images and no language of code, markdownify recurses.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Protocol
from urllib.parse import quote, urljoin, urlsplit

import attrs
from justhtml import Element, Node, SelectorError, Template, Text, query
from justhtml.parser.engine import ParseEngine, compile_raw_engine_plan

from .errors import InvalidSelector, TooLarge
from .network import parse_url

# Lists and quotations inside each other in Markdown; deeper ones go on without further indentation. Each level is a
# prefix of every line within, so that without a limit the result would grow with the square of the nesting.
MAX_INDENTATION = 16
# Of one table cell in Markdown; a cell that spans more is as good as any layout.
MAX_COLSPAN = 10
# Levels of JSON-LD inside each other: what is passed on must not exhaust the stack of whoever writes it.
MAX_JSON_DEPTH = 64
# Elements of a document count two, attributes one, and one for every 256 characters of theirs; about 300 bytes each.
# HTML lets 10 kB make 400,000 elements: formatting that is left open is repeated in every paragraph.
MAX_WEIGHT = 2_000_000
# Characters of links or of Markdown. A document can make them far longer than itself, by a long `<base href>`.
MAX_OUTPUT_CHARS = 64 * 2**20


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Elements whose content is not read: no text, shown by other means, or not shown at all.
_UNREAD = _names(
    "head title desc script style noscript template noframes noembed iframe audio video canvas datalist textarea rp"
)
# Elements whose content is text that is not a part of the document, or another document.
_UNPARSED = _names("script style noscript template noframes noembed iframe textarea")
_HEADINGS = _names("h1 h2 h3 h4 h5 h6")
_LISTS = _names("ul ol menu dir")
_PREFORMATTED = _names("pre listing xmp plaintext")
_CELLS = _names("td th")
# Elements that HTML gives a line of their own (HTML Standard, "Rendering").
_BLOCKS = (_HEADINGS | _LISTS | _PREFORMATTED) | _names(
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure "
    "footer form header hgroup hr html legend li main nav optgroup option p search section summary table tbody "
    "tfoot thead tr"
)
_SPACES = re.compile(r"[ \t\n\f\r]+")


def _folded(text: str) -> str:
    return _SPACES.sub(" ", text).strip(" ")


# ---- URLs ------------------------------------------------------------------------------------------------------------

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_C0_AND_SPACE = "".join(map(chr, range(0x21)))
_WEB = ("http", "https")
_SLASHES = re.compile(r"\A(https?:)?/{2,}", re.IGNORECASE)
# What a link with them leads to is no document, and may be the whole document's weight.
_NO_LINKS = _names("javascript vbscript data")


def _scheme_of(url: str) -> str:
    scheme = _SCHEME.match(url)
    return scheme[0].lower() if scheme is not None else ""


def _stripped(reference: str) -> str:
    return re.sub("[\t\n\r]", "", reference.strip(_C0_AND_SPACE))


def absolute_url(base_url: str | None, reference: str) -> str | None:
    """The URL that a browser reads in a reference, percent-encoded; None for none.

    Without a base, or with one that nothing is relative to (`about:blank`), a relative reference is left as it is.
    """
    reference = _stripped(reference)
    if _scheme_of(reference) in ("", *_WEB):
        path, mark, rest = re.split(r"([?#]|$)", reference, maxsplit=1)
        # Browsers take any number of slashes before a host, but no empty host.
        path = _SLASHES.sub(r"\1//", path.replace("\\", "/"))
        if path.endswith("//") and _SLASHES.fullmatch(path):
            return None
        reference = path + mark + rest
    try:
        url = urljoin(base_url or "", reference)
        if reference.endswith(("?", "#")) and not url.endswith(reference[-1]):
            # Python drops an empty query or fragment; to a server they may matter.
            url += reference[-1]
        parts = urlsplit(url)
        if parts.scheme in _WEB and not parts.netloc.isascii():
            url = parse_url(url.replace(" ", "%20"))
        elif parts.scheme in _WEB and not parts.path:
            url = url.replace(parts.netloc, f"{parts.netloc}/", 1)
        if not url.startswith(parts.scheme):
            url = parts.scheme + url[len(parts.scheme) :]
    except ValueError:
        return None
    return quote(url, safe="!#$%&'()*+,/:;=?@[\\]^_`{|}~-.")


class _References:
    """What the references of a document lead to; counts what is made of them."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._left = MAX_OUTPUT_CHARS

    def resolve(self, reference: str) -> str | None:
        """The absolute URL; None for one that leads to no document (empty, `javascript:`, `data:`)."""
        reference = _stripped(reference)
        if not reference or _scheme_of(reference) in _NO_LINKS:
            return None
        self.spend(len(self.base_url) + len(reference))
        return absolute_url(self.base_url, reference)

    def spend(self, count: int) -> None:
        """Raise TooLarge when the output gets longer than any document should make it."""
        self._left -= count
        if self._left < 0:
            raise TooLarge(
                f"what the document gives is over the limit of {MAX_OUTPUT_CHARS // 2**20} million characters"
            )


# ---- The tree --------------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Tree:
    """A parsed document."""

    root: Node
    shown: dict[int, list[Node | Text]]
    """What a reader sees in shadow hosts and slots, by the element's `id()`, instead of their children."""

    def children(self, node: Node) -> Iterable[Node | Text]:
        """The children as a reader sees them."""
        return self.shown.get(id(node), node.children or ())


class _Engine(ParseEngine):
    """The library's parser with a limit on what it makes; its private method sees every element."""

    def __init__(self, html: str, *, scripting: bool) -> None:
        # Not sanitised: the library would leave out what it holds to be dangerous.
        plan = compile_raw_engine_plan(False, scripting)
        super().__init__(html, fragment=False, scripting_enabled=scripting, plan=plan)
        self._weight_left = MAX_WEIGHT

    def _prepare_raw_element(self, name: str, attrs: dict[str, str | None]) -> tuple[str, dict[str, str | None], str]:
        self._weight_left -= 2
        for value in attrs.values():
            self._weight_left -= 1 + len(value or "") // 256
        if self._weight_left < 0:
            raise TooLarge(f"the document has more elements and attributes than the limit of {MAX_WEIGHT // 2:,}")
        return super()._prepare_raw_element(name, attrs)


def _parsed(html: str, *, scripting: bool) -> Node:
    # Halves of surrogate pairs, which the browser lets through, have no place in any output.
    html = html.encode(errors="replace").decode().removeprefix("\ufeff")
    return _Engine(html, scripting=scripting).parse()


def parse(html: str | Tree) -> Tree:
    """The tree of a document, made by the rules of the HTML Standard. Raises TooLarge over `MAX_WEIGHT`."""
    if isinstance(html, Tree):
        return html
    root = _parsed(html, scripting=True)
    return Tree(root, _projected(root) if "shadowrootmode" in html.lower() else {})


def _shadow_root(node: Node) -> Node | None:
    """The content of the declarative shadow root among an element's children."""
    for child in node.children or ():
        if isinstance(child, Template) and "shadowrootmode" in child.attrs:
            return child.template_content
    return None


def _projected(root: Node) -> dict[int, list[Node | Text]]:
    """`Tree.shown` of a document: light children go to the slot of their name, once."""
    shown: dict[int, list[Node | Text]] = {}
    stack: list[tuple[Node, dict[str, list[Node | Text]]]] = [(root, {})]
    while stack:
        node, slots = stack.pop()
        if node.name == "slot":
            taken = slots.pop(_attribute(node, "name"), None)
            if taken is not None:
                shown[id(node)] = taken
        shadow = _shadow_root(node)
        if shadow is not None:
            shown[id(node)] = shadow.children or []
            inner: dict[str, list[Node | Text]] = {}
            for child in node.children or ():
                if not isinstance(child, Template):
                    name = _attribute(child, "slot") if isinstance(child, Node) else ""
                    inner.setdefault(name, []).append(child)
            stack.append((shadow, inner))
        stack.extend((child, slots) for child in reversed(node.children or ()) if isinstance(child, Node))
    return shown


def _attribute(node: Node, name: str) -> str:
    return (node.attrs or {}).get(name) or ""


class _Visitor(Protocol):
    def text(self, data: str) -> None: ...

    def enter(self, node: Node) -> bool:
        """Whether to go into the element; `leave` follows then."""
        ...

    def leave(self, node: Node) -> None: ...


def _walk(tree: Tree, visitor: _Visitor) -> None:
    """Show a visitor all elements and texts in order, without recursion."""
    stack: list[tuple[Node | Text, bool]] = [(tree.root, False)]
    while stack:
        node, over = stack.pop()
        if over:
            visitor.leave(node)  # type: ignore[arg-type]  # only what was entered
        elif isinstance(node, Text):
            visitor.text(node.data or "")
        elif node is tree.root:
            stack.extend((child, False) for child in reversed([*tree.children(node)]))
        elif isinstance(node, Element) and visitor.enter(node):
            stack.append((node, True))
            stack.extend((child, False) for child in reversed([*tree.children(node)]))


def _elements(tree: Tree) -> Iterator[Node]:
    """All elements in order, without those of templates."""
    stack: list[Node | Text] = [tree.root]
    while stack:
        node = stack.pop()
        if isinstance(node, Element):
            yield node
        if isinstance(node, Node):
            stack.extend(reversed([*tree.children(node)]))


def _is_read(node: Node) -> bool:
    if node.name in _UNREAD:
        return False
    attributes = node.attrs or {}
    return "hidden" not in attributes and (node.name != "dialog" or "open" in attributes)


def _text_within(tree: Tree, node: Node) -> str:
    """All text of an element, white space as it is."""
    parts: list[str] = []
    stack: list[Node | Text] = [node]
    while stack:
        current = stack.pop()
        if isinstance(current, Text):
            parts.append(current.data or "")
        elif current.name == "br":
            parts.append("\n")
        elif current is node or _is_read(current):
            stack.extend(reversed([*tree.children(current)]))
    return "".join(parts)


# ---- Text ------------------------------------------------------------------------------------------------------------


class _TextWriter:
    """Text as `innerText` lays it out: blocks on lines of their own, cells parted by tabs, `pre` as it is."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        # Due before the next word: line breaks, else a space. Nothing is due at the very start, of a cell too.
        self._breaks = 0
        self._space = False
        self._fresh = True
        self._preformatted = 0
        # A cell has ended in this row.
        self._tab = False

    def _flush(self) -> None:
        if not self._fresh:
            self.parts.append("\n" * self._breaks or " " * self._space)
        self._breaks, self._space, self._fresh = 0, False, False

    def text(self, data: str) -> None:
        if self._preformatted:
            self._flush()
            self.parts.append(data)
            return
        data = _SPACES.sub(" ", data)
        self._space = self._space or data.startswith(" ")
        if data != " ":
            self._flush()
            self.parts.append(data.strip(" "))
            self._space = data.endswith(" ")

    def enter(self, node: Node) -> bool:
        if not _is_read(node):
            return False
        name = node.name
        if name == "br":
            # One empty line at most, however many there are.
            self._breaks = min(self._breaks + 1, 2)
        elif name in _CELLS:
            self._flush()
            if self._tab:
                self.parts.append("\t")
            self._fresh, self._tab = True, False
        else:
            self._around(name)
        self._preformatted += name in _PREFORMATTED
        return True

    def leave(self, node: Node) -> None:
        self._preformatted -= node.name in _PREFORMATTED
        if node.name in _CELLS:
            self._breaks, self._tab = 0, True
        else:
            self._around(node.name)

    def _around(self, name: str) -> None:
        if name in _BLOCKS:
            # Paragraphs have an empty line around them (HTML Standard, "rendered text collection steps").
            self._breaks = max(self._breaks, 2 if name == "p" else 1)
            self._tab = False
            if name == "tr":
                # Its line is due even if the last cell was empty.
                self._fresh = not self.parts


def text(html: str | Tree) -> str:
    """What a reader sees, white space folded, blocks on lines of their own.

    What style sheets hide is not known here; only the `hidden` attribute is honoured.
    """
    tree, writer = parse(html), _TextWriter()
    _walk(tree, writer)
    return "".join(writer.parts).strip("\n")


# ---- Links -----------------------------------------------------------------------------------------------------------


class _LinkCollector:
    def __init__(self, references: _References) -> None:
        self.links: list[dict[str, str]] = []
        self._references = references
        # Links that are open, with their texts; text counts for the innermost, as links inside links are a fault.
        self._open: list[tuple[Node, dict[str, str], list[str]]] = []

    def text(self, data: str) -> None:
        if self._open:
            self._open[-1][2].append(data)

    def enter(self, node: Node) -> bool:
        if node.name in _UNPARSED:
            return False
        if node.name in ("a", "area"):
            url = self._references.resolve(_attribute(node, "href"))
            if url is not None:
                link = {"url": url, "text": _folded(_attribute(node, "alt")), "rel": _folded(_attribute(node, "rel"))}
                self.links.append(link)
                if node.name == "a":
                    self._open.append((node, link, []))
        elif node.name == "img":
            self.text(_attribute(node, "alt"))
        elif node.name in _BLOCKS or node.name in _CELLS or node.name == "br":
            self.text(" ")
        return True

    def leave(self, node: Node) -> None:
        if self._open and self._open[-1][0] is node:
            _, link, texts = self._open.pop()
            link["text"] = _folded("".join(texts))
        elif node.name in _BLOCKS or node.name in _CELLS:
            self.text(" ")


def links(html: str | Tree, base_url: str) -> list[dict[str, str]]:
    """`{url, text, rel}` of every `<a href>` and `<area href>`, in order, repeated ones too.

    URLs are absolute. Those that lead to no document (empty, `javascript:`, `data:`) are left out. A link's text is
    what a reader sees, images by their `alt`; hidden links count. Raises TooLarge.
    """
    tree = parse(html)
    collector = _LinkCollector(_references_of(tree, base_url))
    _walk(tree, collector)
    return collector.links


def _references_of(tree: Tree, url: str) -> _References:
    """The references of a document at a URL, or relative to its first `<base href>`."""
    for node in _elements(tree):
        if node.name == "base" and "href" in (node.attrs or {}):
            return _References(_References(url).resolve(_attribute(node, "href")) or url)
    return _References(url)


# ---- Metadata --------------------------------------------------------------------------------------------------------

_ICON_RELS = _names("icon apple-touch-icon apple-touch-icon-precomposed mask-icon fluid-icon")
# Vocabularies of Open Graph besides its own.
_OPEN_GRAPH = ("article:", "book:", "music:", "product:", "profile:", "video:")


def metadata(html: str | Tree, url: str) -> dict[str, Any]:
    """What the document says about itself, always with the same keys.

    `title`, `description`, `canonical` (absolute), `language`: texts, or None; `open_graph` and `twitter`: by name
    without the prefix `og:` or `twitter:`, the first of each; `json_ld`: the values of all blocks that parse; `icons`:
    `{url, rel, sizes, type}`, absolute.
    """
    tree = parse(html)
    references = _references_of(tree, url)
    found: dict[str, Any] = dict.fromkeys(("title", "description", "canonical", "language"))
    found |= {"open_graph": {}, "twitter": {}, "json_ld": [], "icons": []}
    for node in _elements(tree):
        if node.namespace != "html":
            continue
        if node.name == "html" and found["language"] is None:
            found["language"] = _folded(_attribute(node, "lang")) or None
        elif node.name == "title" and found["title"] is None:
            found["title"] = _folded(_text_within(tree, node))
        elif node.name == "meta":
            _read_meta(node, found)
        elif node.name == "link":
            _read_link(node, references, found)
        elif node.name == "script" and _folded(_attribute(node, "type")).lower() == "application/ld+json":
            try:
                value = json.loads(_text_within(tree, node))
            except (ValueError, RecursionError):
                continue
            if _is_plain(value):
                found["json_ld"].append(value)
    return found


def _read_meta(node: Node, found: dict[str, Any]) -> None:
    content = _folded(_attribute(node, "content"))
    name = _folded(_attribute(node, "property") or _attribute(node, "name")).lower()
    if name == "description" and found["description"] is None:
        found["description"] = content
    elif name.startswith("og:"):
        found["open_graph"].setdefault(name.removeprefix("og:"), content)
    elif name.startswith(_OPEN_GRAPH):
        found["open_graph"].setdefault(name, content)
    elif name.startswith("twitter:"):
        found["twitter"].setdefault(name.removeprefix("twitter:"), content)
    elif _attribute(node, "http-equiv").lower() == "content-language" and found["language"] is None:
        found["language"] = content or None


def _read_link(node: Node, references: _References, found: dict[str, Any]) -> None:
    rels = _folded(_attribute(node, "rel")).lower().split(" ")
    if "canonical" not in rels and _ICON_RELS.isdisjoint(rels):
        return
    url = references.resolve(_attribute(node, "href"))
    if url is None:
        return
    if "canonical" in rels and found["canonical"] is None:
        found["canonical"] = url
    if not _ICON_RELS.isdisjoint(rels):
        icon = {"url": url, "rel": " ".join(rels)}
        found["icons"].append(icon | {key: _folded(_attribute(node, key)) or None for key in ("sizes", "type")})


def _is_plain(value: object) -> bool:
    """Whether a JSON value can be passed on: no NaN, no halves of surrogate pairs, not too deep."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        nested = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = list(itertools.chain.from_iterable(nested))
        if not level:
            return True
    return False


# ---- Markdown --------------------------------------------------------------------------------------------------------

# CommonMark with the tables and strikethrough of GitHub Flavored Markdown.
_SPECIAL = re.compile(
    r"[\\`*]|~(?=~)|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|&(?=#?[A-Za-z0-9]{1,32};)|\](?=\()|!(?=\[)"
)
_LINE_START = re.compile(r"(#{1,6}|[-+])(?=\s|$)|>|(?:=+|-{2,})\s*$|\[(?=[^\]]+\]:)")
_NUMBER_START = re.compile(r"([0-9]{1,9})(?=[.)](?:\s|$))")
_LANGUAGE = re.compile(
    r"(?:^|\s)(?:language-|lang-|highlight-source-|highlight-|brush:\s*|sourceCode\s+)([\w+#.-]{1,30})", re.IGNORECASE
)
_NO_LANGUAGE = _names("default none text plaintext nohighlight source")
_CODE = _names("code kbd samp tt")
_MARKS = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "s": "struck",
    "del": "struck",
    "strike": "struck",
}


def _bracketed(words: str) -> str:
    """Escaped words as they stand between the brackets of a link."""
    return re.sub(r"(?<!\\)[\[\]]", r"\\\g<0>", words)


def _fence_for(code: str, minimum: int) -> str:
    return "`" * max(minimum, 1 + max(map(len, re.findall("`+", code)), default=0))


def _code_span(code: str) -> str:
    code = _folded(code)
    if not code:
        return ""
    fence = _fence_for(code, 1)
    pad = " " if code.startswith("`") or code.endswith("`") else ""
    return f"{fence}{pad}{code}{pad}{fence}"


def _destination(url: str) -> str:
    """A URL as a link has it; parentheses might end it."""
    return f"<{url}>" if "(" in url or ")" in url else url


def _language_of(node: Node) -> str:
    """The language of a code block, as the usual highlighters note it at the block or near it."""
    code = next((child for child in node.children or () if isinstance(child, Element)), None)
    parent = node.parent
    for place in (node, code, parent, parent and parent.parent):
        if place is None:
            continue
        said = _LANGUAGE.search(_attribute(place, "class")[:500])
        language = said[1] if said else _attribute(place, "data-lang") or _attribute(place, "data-language")
        if re.fullmatch(r"[\w+#.-]{1,30}", language) and language.lower() not in _NO_LANGUAGE:
            return language
    return ""


@attrs.frozen
class _Style:
    """What a piece of text is wrapped in, the outermost first."""

    href: str = ""
    bold: bool = False
    italic: bool = False
    struck: bool = False

    def marks(self) -> list[tuple[str, str]]:
        """Opening and closing mark of each."""
        link = [("[", f"]({_destination(self.href)})")] if self.href else []
        plain = [("**", self.bold), ("*", self.italic), ("~~", self.struck)]
        return link + [(mark, mark) for mark, on in plain if on]


@attrs.frozen
class _Run:
    """A piece of a paragraph: text to be folded, or an atom (code, image); None is a line break."""

    text: str | None
    style: _Style = _Style()
    is_atom: bool = False


def _paragraph(runs: Iterable[_Run], line_break: str) -> str:
    """The Markdown of one paragraph. White space stands outside marks, where they would not count otherwise."""
    out: list[str] = []
    marks: list[tuple[str, str]] = []
    due = ""
    for run in runs:
        if run.text is None:
            due = line_break
            continue
        words = run.text if run.is_atom else _SPACES.sub(" ", run.text)
        if words.startswith(" "):
            due = due or " "
        core = words if run.is_atom else words.strip(" ")
        if not core:
            continue
        wanted = run.style.marks()
        kept = 0
        while kept < min(len(marks), len(wanted)) and marks[kept] == wanted[kept]:
            kept += 1
        out += [closing for _, closing in reversed(marks[kept:])]
        if out:
            out.append(due)
        out += [opening for opening, _ in wanted[kept:]]
        out.append(core)
        marks, due = wanted, " " if words.endswith(" ") and not run.is_atom else ""
    out += [closing for _, closing in reversed(marks)]
    return "".join(out)


def _line(text: str) -> str:
    """A line of a paragraph that nobody takes for a heading, a list item or a quotation."""
    text = _LINE_START.sub(r"\\\g<0>", text, count=1) if _LINE_START.match(text) else text
    return _NUMBER_START.sub(r"\1\\", text, count=1) if _NUMBER_START.match(text) else text


@attrs.define(eq=False)
class _Table:
    rows: list[list[str]] = attrs.field(factory=list)
    header: bool = False
    """Its first row is all headings."""

    def lines(self) -> list[str]:
        rows = [row for row in self.rows if row]
        if not rows:
            return []
        # Rows may be shorter than the header, never longer.
        width = max(map(len, rows))
        header, body = (rows[0], rows[1:]) if self.header else ([], rows)
        header = header + [""] * (width - len(header))
        return [f"| {' | '.join(row)} |" for row in (header, ["---"] * width, *body)]


class _LayoutTables:
    """Finds the tables that hold what no Markdown cell can: they are written as plain blocks."""

    def __init__(self) -> None:
        self.found: set[int] = set()
        self._open: list[Node] = []

    def text(self, data: str) -> None:
        pass

    def enter(self, node: Node) -> bool:
        if not _is_read(node):
            return False
        if self._open and (node.name == "table" or node.name in _HEADINGS or node.name in _PREFORMATTED):
            self.found.add(id(self._open[-1]))
        if node.name == "table":
            self._open.append(node)
            if _attribute(node, "role").lower() in ("presentation", "none"):
                self.found.add(id(node))
        return True

    def leave(self, node: Node) -> None:
        if node.name == "table":
            self._open.pop()


@attrs.frozen(eq=False)
class _Container:
    """A list item or quotation that is open, and what to go back to."""

    node: Node
    prefix: str
    first: str | None


class _MarkdownWriter:
    def __init__(self, tree: Tree, references: _References, layout_tables: set[int]) -> None:
        self.out: list[str] = []
        self._tree = tree
        self._references = references
        self._layout_tables = layout_tables
        self._runs: list[_Run] = []
        # Marks that are open: the same may be nested. Links cannot be, but for faults; the innermost counts.
        self._depth = {"bold": 0, "italic": 0, "struck": 0}
        self._hrefs: list[str] = []
        self._style = _Style()
        self._containers: list[_Container] = []
        # Of each line; of the next line instead, where a list item has not begun.
        self._prefix = ""
        self._first: str | None = None
        # An empty line is due before the next block.
        self._gap = False
        # The numbers of ordered lists; the first item of a list has not come yet.
        self._lists: list[Iterator[int] | None] = []
        self._at_first_item = False
        self._table: _Table | None = None
        # Inside this element, a heading or a cell, everything is one line: what becomes of line breaks.
        self._flat: Node | None = None

    # Blocks

    def _write(self, lines: list[str]) -> None:
        if self.out and self._gap:
            self.out.append(self._prefix.rstrip())
        for line in lines:
            prefix, self._first = self._prefix if self._first is None else self._first, None
            self.out.append(prefix + line if line else prefix.rstrip())
            self._references.spend(len(prefix) + len(line))
        self._gap = True

    def flush(self) -> None:
        """End the paragraph."""
        if self._flat is not None:
            self._runs.append(_Run(None))
            return
        runs, self._runs = self._runs, []
        paragraph = _paragraph(runs, "  \n")
        if paragraph:
            self._write([_line(line) for line in paragraph.split("\n")])

    def _open(self, node: Node, marker: str, indentation: str) -> None:
        """Begin a container whose first line has the marker, and whose others are indented."""
        if len(self._containers) == MAX_INDENTATION:
            return
        self._containers.append(_Container(node, self._prefix, self._first))
        self._first = (self._prefix if self._first is None else self._first) + marker
        self._prefix += indentation

    def _close(self, node: Node) -> None:
        if self._containers and self._containers[-1].node is node:
            container = self._containers.pop()
            self._prefix = container.prefix
            if self._first is not None:
                # Nothing was in it.
                self._first = container.first

    # The walk

    def text(self, data: str) -> None:
        words = _SPECIAL.sub(r"\\\g<0>", data)
        if self._style.href:
            words = _bracketed(words)
        self._runs.append(_Run(words, self._style))

    def _add_atom(self, text: str) -> None:
        if text:
            self._runs.append(_Run(text, self._style, is_atom=True))

    def enter(self, node: Node) -> bool:
        name = node.name
        if not _is_read(node) or name in ("svg", "select", "annotation", "annotation-xml"):
            return False
        if name in _MARKS or name == "a":
            self._mark(node, 1)
        elif name == "br":
            self._runs.append(_Run(None))
        elif name == "img":
            self._add_image(node)
        elif name in _CODE:
            self._add_atom(_code_span(_text_within(self._tree, node)))
            return False
        elif name == "hr":
            self.flush()
            if self._flat is None:
                self._write(["---"])
        elif name in _PREFORMATTED:
            self._add_code_block(node)
            return False
        elif name in _BLOCKS or name in _CELLS:
            self.flush()
            self._enter_block(node)
        return True

    def _enter_block(self, node: Node) -> None:
        name = node.name
        if self._flat is not None:
            return
        if name in _HEADINGS:
            self._flat = node
        elif name in _LISTS:
            if self._first is None and self._containers and self._containers[-1].node.name == "li":
                self._gap = False
            start = re.fullmatch(r"\s*([0-9]{1,9})\s*", _attribute(node, "start"))
            self._lists.append(itertools.count(int(start[1]) if start else 1) if name == "ol" else None)
            self._at_first_item = True
        elif name == "li":
            self._enter_item(node)
        elif name == "blockquote":
            self._open(node, "> ", "> ")
        elif name == "table" and id(node) not in self._layout_tables and self._table is None:
            self._table = _Table()
        elif name == "tr" and self._table is not None:
            self._table.rows.append([])
        elif name in _CELLS and self._table is not None:
            self._flat = node

    def _enter_item(self, node: Node) -> None:
        numbers = self._lists[-1] if self._lists else None
        marker = f"{next(numbers)}. " if numbers is not None else "- "
        if not self._at_first_item:
            self._gap = False
        self._at_first_item = False
        self._open(node, marker, " " * len(marker))

    def leave(self, node: Node) -> None:
        name = node.name
        if name in _MARKS or name == "a":
            self._mark(node, -1)
        elif name in _BLOCKS or name in _CELLS:
            if self._flat is node:
                self._leave_flat(node)
                return
            self.flush()
            if self._flat is not None:
                return
            if name in _LISTS:
                self._lists.pop()
                self._at_first_item = False
            elif name == "table" and self._table is not None and id(node) not in self._layout_tables:
                lines, self._table = self._table.lines(), None
                if lines:
                    self._write(lines)
            self._close(node)

    def _leave_flat(self, node: Node) -> None:
        self._flat = None
        runs, self._runs = self._runs, []
        if node.name in _HEADINGS:
            heading = _paragraph(runs, " ")
            if heading:
                self._write([f"{'#' * int(node.name[1])} {heading}"])
        elif self._table is not None:
            self._add_cell(self._table, node, _paragraph(runs, "<br>").replace("|", "\\|"))

    def _add_cell(self, table: _Table, node: Node, cell: str) -> None:
        row = table.rows[-1]
        span = re.fullmatch(r"\s*([0-9]{1,4})\s*", _attribute(node, "colspan"))
        row += [cell] + [""] * (min(int(span[1]) if span else 1, MAX_COLSPAN) - 1)
        if len(table.rows) == 1:
            in_head = node.parent is not None and node.parent.parent is not None and node.parent.parent.name == "thead"
            table.header = (node.name == "th" or in_head) and (table.header or len(row) == 1)

    # Inside a paragraph

    def _mark(self, node: Node, change: int) -> None:
        if node.name != "a":
            self._depth[_MARKS[node.name]] += change
        elif change > 0:
            self._hrefs.append(self._references.resolve(_attribute(node, "href")) or "")
        else:
            self._hrefs.pop()
        on = {mark: depth > 0 for mark, depth in self._depth.items()}
        self._style = _Style(self._hrefs[-1] if self._hrefs else "", **on)

    def _add_image(self, node: Node) -> None:
        alt = _bracketed(_SPECIAL.sub(r"\\\g<0>", _folded(_attribute(node, "alt"))))
        # Without those that are written out (`data:`), which would drown the text.
        url = self._references.resolve(_attribute(node, "src"))
        self._add_atom(f"![{alt}]({_destination(url)})" if url else alt)

    def _add_code_block(self, node: Node) -> None:
        code = _text_within(self._tree, node)
        self.flush()
        if self._flat is not None:
            self._add_atom(_code_span(code))
            self.flush()
        elif code.strip():
            fence = _fence_for(code, 3)
            self._write([fence + _language_of(node), *code.strip("\n").split("\n"), fence])


def markdown(html: str | Tree, base_url: str) -> str:
    """The document as Markdown: headings, lists, quotations, tables, code blocks, links and images (absolute).

    Tables that lay out a page, and those with blocks in their cells, become plain blocks; what spans several rows
    stands in the first. Left out: what is hidden, scripts, drawings, form fields, images that are written out as
    `data:`. Raises TooLarge.
    """
    tree, layout_tables = parse(html), _LayoutTables()
    _walk(tree, layout_tables)
    writer = _MarkdownWriter(tree, _references_of(tree, base_url), layout_tables.found)
    _walk(tree, writer)
    writer.flush()
    return "\n".join(writer.out)


# ---- Selectors -------------------------------------------------------------------------------------------------------


def select(html: str, selector: str) -> str | None:
    """The outer HTML of the first element that matches a CSS selector, as in a browser without JavaScript, or None.

    Shadow roots and templates are not looked into. Raises InvalidSelector for what does not parse, for `xpath=` and
    `text=`, and for what only browsers know, such as `:has()` and `:is()`.
    """
    if selector.startswith(("xpath=", "text=")):
        kind = selector.partition("=")[0]
        raise InvalidSelector(f"selector {selector!r}: {kind}= needs a browser, which render: false does without")
    # Without scripting the content of <noscript> is elements, so that it is written out as it was.
    root = _parsed(html, scripting=False)
    try:
        matches = query(root, selector)
    except SelectorError as error:
        raise InvalidSelector(f"selector {selector!r}: {error} (without a browser)") from error
    # The library looks into templates too.
    wanted = {id(match) for match in matches}
    found = next((node for node in _elements(Tree(root, {})) if id(node) in wanted), None)
    return found.to_html(pretty=False) if found is not None else None
