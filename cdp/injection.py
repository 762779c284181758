"""What the client puts into a page's document: style sheets, scripts, and elements hidden or taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .errors import InvalidSelector
from .options import PageOptions
from .selectors import FIND

if TYPE_CHECKING:
    from .page import Page


@attrs.frozen
class Injected:
    """As in `PageOptions`."""

    css: tuple[str, ...] = ()
    js: tuple[str, ...] = ()
    hide_selectors: tuple[str, ...] = ()
    remove_selectors: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: PageOptions) -> Injected:
        """Those of the options."""
        return cls(**{field.name: getattr(options, field.name) for field in attrs.fields(cls)})

    @property
    def into_document(self) -> bool:
        """Whether a new document has to get something."""
        return bool(self.css or self.hide_selectors or self.remove_selectors)


# An adopted style sheet passes the page's Content-Security-Policy but cannot import others: one that does becomes an
# element. A CSS selector is hidden by a rule, which holds for elements that come later.
# -> null, or {selector, error} of the first selector that does not parse
_DRESS = (
    "(sheets, hide, remove) => {"
    + FIND
    + r"""
  const all = selector => {
    if (selector.startsWith('text=')) { const node = find(selector); return node === null ? [] : [node]; }
    if (!selector.startsWith('xpath=')) return [...document.querySelectorAll(selector)];
    const type = XPathResult.ORDERED_NODE_SNAPSHOT_TYPE;
    const found = document.evaluate(selector.slice(6), document, null, type, null);
    return Array.from({length: found.snapshotLength}, (_, at) => found.snapshotItem(at));
  };
  const add = text => {
    if (text.includes('@import')) {
      const style = document.createElement('style');
      style.textContent = text;
      (document.head ?? document.documentElement)?.append(style);
      return;
    }
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(text);
    document.adoptedStyleSheets.push(sheet);
  };
  for (const text of sheets) add(text);
  const invisible = '{ visibility: hidden !important; }';
  if (hide.length) add(`[data-cleariflow-hidden], [data-cleariflow-hidden] * ${invisible}`);
  for (const selector of [...hide, ...remove]) {
    try {
      const found = all(selector);
      if (remove.includes(selector)) for (const node of found) Element.prototype.remove.call(node);
      else if (/^(xpath|text)=/.test(selector)) {
        for (const node of found) Element.prototype.setAttribute.call(node, 'data-cleariflow-hidden', '');
      } else add(`:is(${selector}), :is(${selector}) * ${invisible}`);
    } catch (error) { return {selector, error: error.message}; }
  }
  return null;
}"""
)


async def dress(page: Page, injected: Injected) -> None:
    """Put style sheets into the document, hide and remove elements. Raises InvalidSelector."""
    await _call(page, injected.css, injected.hide_selectors, injected.remove_selectors)


async def remove_again(page: Page, injected: Injected) -> None:
    """Take out what came after the first time."""
    await _call(page, (), (), injected.remove_selectors)


async def _call(page: Page, *arguments: tuple[str, ...]) -> None:
    fault = await page.call(_DRESS, *map(list, arguments))
    if fault is not None:
        field = "remove_selectors" if fault["selector"] in arguments[-1] else "hide_selectors"
        raise InvalidSelector(f"{field}: selector {fault['selector']!r}: {fault['error']}")
