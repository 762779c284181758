"""A document in the forms that a scrape asks for: HTML, text, Markdown, links, metadata, a picture."""

from __future__ import annotations

import functools
import html as html_text
import json
import re
from collections.abc import Callable

import attrs
import trio

from . import document
from .errors import SelectorNotFound
from .fetch import Fetched
from .options import CaptureOptions, ScrapeOptions
from .page import Page
from .selectors import ROOTS

# A document is searched for scripts in slices; a single tag that is longer than the overlap may be missed.
SEARCH_SLICE = 2**20
SEARCH_OVERLAP = 2**14
# A title further down is not found.
MAX_TITLE_AT = 2**18
# What makes a document another one once a browser has it. Words first, and every place looked at once: a regular
# expression holds up everybody for as long as it takes.
_BROWSER_WORDS = ("<script", "<iframe", "<frame", "shadowrootmode")
_BROWSER_PATTERNS = (re.compile(r"<meta[^<>]*refresh"), re.compile(r"on(?<=[\s\"'/]on)[a-z]+\s*="))


# What is not shown gets the attribute `hidden`, which text and Markdown heed. Of an element that is invisible, but may
# hold a visible one, only the innermost.
_MARK_UNSEEN = (
    "() => {"
    + ROOTS
    + """
  for (const root of roots) {
    for (const node of root.querySelectorAll('*')) {
      if (!(node instanceof HTMLElement) || node.closest('head')) continue;
      const seen = more => Element.prototype.checkVisibility.call(node, more);
      if (!seen({}) || !seen({visibilityProperty: true}) && node.firstElementChild === null) {
        Element.prototype.setAttribute.call(node, 'hidden', '');
      }
    }
  }
}"""
)


@attrs.frozen
class Part:
    """One thing that an attempt made."""

    data: bytes
    content_type: str

    @property
    def extension(self) -> str:
        """Of a file that holds it."""
        kind = self.content_type.partition(";")[0]
        return {"text/plain": "txt", "text/markdown": "md"}.get(kind, kind.rpartition("/")[2])


async def scrape_page(page: Page, options: ScrapeOptions, url: str, *, max_pixels: int) -> dict[str, Part]:
    """The outputs of a page that is at a URL, the HTML first, by their names.

    Raises SelectorNotFound, InvalidSelector, TooLarge.
    """
    shadow = options.include_shadow_dom
    html = whole = await page.html(options.selector, include_shadow_dom=shadow)
    if "metadata" in options.outputs and options.selector is not None:
        whole = await page.html(include_shadow_dom=shadow)
    # What a browser shows knows the styles, but nothing of shadow roots.
    text = await page.text(options.selector) if "text" in options.outputs and not shadow else None
    picture = None
    if "screenshot" in options.outputs:
        picture = await page.screenshot(CaptureOptions(selector=options.selector), max_pixels=max_pixels)
    read = html
    if "markdown" in options.outputs or ("text" in options.outputs and text is None):
        # Last, as it changes the document.
        await page.call(_MARK_UNSEEN)
        read = await page.html(options.selector, include_shadow_dom=shadow)
    parts = await _derived(options, html, whole, read, url, text)
    if picture is not None:
        parts["screenshot"] = Part(picture.data, picture.content_type)
    return parts


async def scrape_document(fetched: Fetched, options: ScrapeOptions) -> dict[str, Part]:
    """The outputs of a document that no browser has seen. Raises SelectorNotFound, InvalidSelector."""
    html = fetched.html
    if options.selector is not None:
        found = await trio.to_thread.run_sync(document.select, html, options.selector, abandon_on_cancel=True)
        if found is None:
            raise SelectorNotFound(f"the element of selector {options.selector!r} is not in the document")
        html = found
    return await _derived(options, html, fetched.html, html, fetched.url, None)


async def _derived(
    options: ScrapeOptions, html: str, whole: str, read: str, url: str, text: str | None
) -> dict[str, Part]:
    """The outputs that are made of a document's HTML.

    `whole` is that of the whole document, `read` that of what a reader sees, `text` what a browser shows; each where
    there is another.
    """
    tree = functools.cache(lambda: document.parse(html))
    seen = functools.cache(lambda: tree() if read is html else document.parse(read))
    makers: dict[str, tuple[str, Callable[[], str]]] = {
        "html": ("text/html", lambda: html),
        "text": ("text/plain", lambda: document.text(seen()) if text is None else text),
        "markdown": ("text/markdown", lambda: document.markdown(seen(), url)),
        "links": ("application/json", lambda: json.dumps(document.links(tree(), url))),
        "metadata": (
            "application/json",
            lambda: json.dumps(document.metadata(tree() if whole is html else whole, url)),
        ),
    }
    # The HTML first, whatever the client's order: it is what the artifact's own route gives.
    names = sorted(makers.keys() & set(options.outputs), key=lambda name: (name != "html", options.outputs.index(name)))

    def make() -> dict[str, Part]:
        return {
            name: Part(makers[name][1]().encode(errors="replace"), f"{makers[name][0]}; charset=utf-8")
            for name in names
        }

    parsing = {"markdown", "links", "metadata"} & set(names) or ("text" in names and text is None)
    # It takes seconds for a document of 20 MB.
    return await trio.to_thread.run_sync(make, abandon_on_cancel=True) if parsing else make()


def has_scripts(html: str) -> bool:
    """Whether a browser may make another document of this one.

    Takes up to 1.2 s for the largest document, and lets other threads have the interpreter meanwhile.
    """
    for at in range(0, len(html), SEARCH_SLICE):
        lowered = html[at : at + SEARCH_SLICE + SEARCH_OVERLAP].lower()
        if any(word in lowered for word in _BROWSER_WORDS) or any(one.search(lowered) for one in _BROWSER_PATTERNS):
            return True
    return False


def title_of(html: str) -> str:
    """What stands between the tags of a document's title, white space folded."""
    found = re.search(r"<title[^<>]*>([^<]*)", html[:MAX_TITLE_AT], re.IGNORECASE)
    return " ".join(html_text.unescape(found[1]).split()) if found else ""
