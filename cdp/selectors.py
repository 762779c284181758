"""Selectors: CSS, `xpath=...` and `text=...`, found by scripts that run in an isolated world.

There a page that replaced `querySelector` or `Promise` does no harm.
"""

from __future__ import annotations

from typing import Literal

# `text=`: the innermost element whose text contains the words, upper and lower case and white space aside; in quotes:
# whose whole text they are, to the letter. A syntax error is returned, not thrown: it is the client's.
FIND = r"""
const find = selector => {
  if (selector.startsWith('xpath=')) {
    const type = XPathResult.FIRST_ORDERED_NODE_TYPE;
    const node = document.evaluate(selector.slice(6), document, null, type, null).singleNodeValue;
    return node === null || node.nodeType === Node.ELEMENT_NODE ? node : node.ownerElement ?? node.parentElement;
  }
  if (!selector.startsWith('text=')) return document.querySelector(selector);
  let wanted = selector.slice(5).replace(/\s+/g, ' ').trim();
  const quoted = /^(["'])(.*)\1$/.exec(wanted);
  wanted = quoted ? quoted[2] : wanted.toLowerCase();
  const unread = /^(script|style|noscript|template|head)$/i;
  const text = root => {
    if (root instanceof HTMLInputElement) return root.value;
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, node =>
      node.nodeType === Node.TEXT_NODE ? NodeFilter.FILTER_ACCEPT
        : unread.test(node.localName) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_SKIP);
    let all = '';
    while (walker.nextNode()) all += walker.currentNode.data;
    return all;
  };
  const fits = node => {
    if (unread.test(node.localName)) return false;
    const words = text(node).replace(/\s+/g, ' ').trim();
    return quoted ? words === wanted : words.toLowerCase().includes(wanted);
  };
  let found = null;
  for (const node of document.body ? [document.body, ...document.body.querySelectorAll('*')] : []) {
    if (found !== null && !Node.prototype.contains.call(found, node)) break;
    if (fits(node)) found = node;
  }
  return found;
};
// A form's fields hide its methods of the same name, in every world.
const boxOf = node => Element.prototype.getBoundingClientRect.call(node);
const visible = node => {
  const box = boxOf(node);
  return box.width > 0 && box.height > 0 && getComputedStyle(node).visibility === 'visible'
    && Element.prototype.checkVisibility.call(node);
};
"""

# The document and every open shadow root in it.
ROOTS = """
const roots = [document];
for (const root of roots) {
  for (const {shadowRoot} of root.querySelectorAll('*')) if (shadowRoot instanceof ShadowRoot) roots.push(shadowRoot);
}
"""

# -> {state: "detached" | "empty" | "hidden" | "visible"} or {error}
ELEMENT_STATE = (
    "selector => {"
    + FIND
    + """
  try {
    const node = find(selector);
    if (node === null) return {state: 'detached'};
    if (visible(node)) return {state: 'visible'};
    const laidOut = node.getClientRects().length > 0 && getComputedStyle(node).visibility === 'visible';
    return {state: laidOut ? 'empty' : 'hidden'};
  } catch (error) { return {error: error.message}; }
}"""
)

# -> the node or null; throws what the client's syntax error is
ELEMENT = "selector => {" + FIND + "return find(selector); }"

# The element's box in page coordinates.
# -> {x, y, width, height} or {missing: "not in the document" | "not visible"} or {error}
ELEMENT_BOX = (
    "selector => {"
    + FIND
    + """
  try {
    const node = find(selector);
    if (node === null) return {missing: 'not in the document'};
    if (!visible(node)) return {missing: 'not visible'};
    const {x, y, width, height} = boxOf(node);
    // A page that runs from right to left begins where its left end is, far left of the origin.
    const root = document.scrollingElement;
    const style = root === null ? {} : getComputedStyle(root);
    const leftwards = style.writingMode === 'horizontal-tb' ? style.direction === 'rtl'
      : /^(vertical|sideways)-rl$/.test(style.writingMode);
    return {x: x + scrollX + (leftwards ? root.scrollWidth - root.clientWidth : 0), y: y + scrollY, width, height};
  } catch (error) { return {error: error.message}; }
}"""
)

State = Literal["attached", "visible", "hidden", "detached"]
_REACHED: dict[State, frozenset[str]] = {
    "attached": frozenset({"visible", "hidden", "empty"}),
    "visible": frozenset({"visible"}),
    "hidden": frozenset({"hidden", "empty", "detached"}),
    "detached": frozenset({"detached"}),
}


# What an element's state is called in a sentence.
SEEN_AS = {
    "detached": "it is not in the document",
    "empty": "it has no size",
    "hidden": "it is hidden",
    "visible": "it is visible",
}


def reached(wanted: State, seen: str) -> bool:
    """Whether an element seen in one of the states of `ELEMENT_STATE` is in the one wanted."""
    return seen in _REACHED[wanted]
