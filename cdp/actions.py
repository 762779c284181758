"""Steps on a page before it is captured: real mouse and keyboard input, and what goes with it.

    record = await perform(page, Click(type="click", selector="#more"), 0)

The mouse and the keys are the browser's own (`Input` domain), so that handlers see trusted events. An element is looked
for, and judged, in the isolated world, in the main document only: not in frames, not within shadow roots.

Contents: what a step gives - keys - scripts - performing - one function per kind of step - faults of a list of steps.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import trio

from .capture import MAX_PIXELS, Picture
from .emulation import Command
from .errors import ActionFailed, CDPError, ConnectionClosed, InvalidSelector, SessionClosed, TargetCrashed
from .network import parse_url
from .options import (
    Action,
    CaptureOptions,
    Check,
    Click,
    Evaluate,
    Goto,
    Hover,
    Point,
    Press,
    Scroll,
    Select,
    Shoot,
    TypeText,
    Wait,
)
from .page import FIRST_LOOK_S, Page, pause
from .selectors import FIND
from .settle import frames_passed, quietly
from .validation import Fault, nearest

# An optional step without a `timeout_ms` has this long, or a third of what is left.
OPTIONAL_S = 5.0
# UTF-8 bytes of the JSON that an `evaluate` step may give: it is part of every answer about its job.
MAX_VALUE_BYTES = 2**18
_DEFAULT_ENCODING = CaptureOptions()
SCREENSHOT_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,64}")


# ---- What a step gives


@attrs.frozen
class Record:
    """What became of one step; `picture` and `name` are those of a `screenshot`, `value` that of an `evaluate`."""

    index: int
    type: str
    ok: bool
    elapsed_ms: int
    # As JSON has it.
    value: Any = None
    error: str | None = None
    picture: Picture | None = None
    name: str | None = None

    def as_meta(self) -> dict[str, Any]:
        """The step's entry in `result.meta.actions`."""
        meta = {"index": self.index, "type": self.type, "ok": self.ok, "elapsed_ms": self.elapsed_ms}
        if not self.ok:
            meta["error"] = self.error
        elif self.type == "evaluate":
            meta["value"] = self.value
        return meta


class _Refused(Exception):
    """A step cannot succeed, however long it is waited for; the message is the reason."""


# ---- Keys


@attrs.frozen
class Key:
    """A key of a US keyboard, as its events name it."""

    key: str
    code: str
    # The Windows virtual key code, which `KeyboardEvent.keyCode` shows.
    key_code: int
    # What it types; empty for a key that types nothing.
    text: str = ""
    shifted: bool = False


MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
_SHIFT = MODIFIERS["Shift"]
# Code, what is typed without and with Shift, virtual key code.
_PRINTED = (
    *((f"Key{letter}", letter.lower(), letter, ord(letter)) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    *((f"Digit{digit}", digit, above, ord(digit)) for digit, above in zip("0123456789", ")!@#$%^&*(", strict=True)),
    ("Space", " ", "", 32),
    ("Semicolon", ";", ":", 186),
    ("Equal", "=", "+", 187),
    ("Comma", ",", "<", 188),
    ("Minus", "-", "_", 189),
    ("Period", ".", ">", 190),
    ("Slash", "/", "?", 191),
    ("Backquote", "`", "~", 192),
    ("BracketLeft", "[", "{", 219),
    ("Backslash", "\\", "|", 220),
    ("BracketRight", "]", "}", 221),
    ("Quote", "'", '"', 222),
)
_NAMED = {
    "Backspace": 8,
    "Tab": 9,
    "Escape": 27,
    "PageUp": 33,
    "PageDown": 34,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Insert": 45,
    "Delete": 46,
    "ContextMenu": 93,
    **{f"F{number}": 111 + number for number in range(1, 13)},
}
_SHIFTED = {text: above for _, text, above, _ in _PRINTED if above}
# By name: `KeyboardEvent.key`, and `Space`.
KEYS: dict[str, Key] = {
    **{text: Key(text, code, key_code, text) for code, text, _, key_code in _PRINTED},
    **{above: Key(above, code, key_code, above, shifted=True) for code, _, above, key_code in _PRINTED if above},
    **{name: Key(name, name, key_code) for name, key_code in _NAMED.items()},
    "Enter": Key("Enter", "Enter", 13, "\r"),
    "Space": Key(" ", "Space", 32, " "),
    "Shift": Key("Shift", "ShiftLeft", 16),
    "Control": Key("Control", "ControlLeft", 17),
    "Alt": Key("Alt", "AltLeft", 18),
    "Meta": Key("Meta", "MetaLeft", 91),
}


def parse_keys(text: str) -> tuple[tuple[str, ...], Key]:
    """The modifiers, in the order given, and the key of a text such as `Control+Shift+A`.

    A letter after Control, Alt or Meta is the key itself, in lower case unless Shift is named. Raises ValueError, also
    for what pastes: a browser has one clipboard, with what the pages of other contexts copied.
    """
    # The last of them may be the plus sign itself: `+`, or `Control++`.
    found = re.fullmatch(r"((?:[^+]+\+)*)(\+|[^+]+)", text)
    names, last = (found[1].split("+")[:-1], found[2]) if found is not None else ([], text)
    for name in names:
        if name not in MODIFIERS:
            raise ValueError(f"{name[:40]!r} is no modifier: {', '.join(MODIFIERS)} are{nearest(name, MODIFIERS)}")
    if last not in KEYS:
        hint = nearest(last, KEYS)
        raise ValueError(f"there is no key {last[:40]!r}: Enter, Tab, Escape, ArrowDown, F5, a, A are some{hint}")
    if names and len(last) == 1:
        last = last.lower()
    if "Shift" in names:
        last = _SHIFTED.get(last, last)
    key = KEYS[last]
    if (key.code == "KeyV" and "Control" in names) or (key.code == "Insert" and "Shift" in names):
        raise ValueError(f"{text} would paste what others copied; an action of the type `type` enters a text")
    return tuple(dict.fromkeys(names)), key


# ---- Scripts
# They run in the isolated world and give {error}: the selector does not parse; {wrong}: the element will never do;
# {waiting}: not yet, as the rest of a sentence about the element; or what they are for.

_NODES = (
    FIND
    + r"""
// A form's fields hide its properties of the same name, in every world.
const getter = (type, name) => {
  const {get} = Object.getOwnPropertyDescriptor(type.prototype, name);
  return node => get.call(node);
};
const parentOf = getter(Node, 'parentNode'), connected = getter(Node, 'isConnected');
const slotOf = getter(Element, 'assignedSlot'), shadowOf = getter(Element, 'shadowRoot');
const nameOf = getter(Element, 'localName');
const is = (node, selector) => Element.prototype.matches.call(node, selector);
const controlOf = node => node instanceof HTMLLabelElement ? node.control : null;
// What an element lies in, as it is painted.
const above = node => node instanceof Element ? slotOf(node) ?? parentOf(node)
  : node instanceof ShadowRoot ? node.host : null;
const path = node => { const all = []; for (; node; node = above(node)) all.push(node); return all; };
const cut = (text, length) => {
  const line = text.replace(/\s+/g, ' ').trim();
  return (line.length > length ? line.slice(0, length) + '…' : line).toWellFormed();
};
const describe = node => {
  const part = name => {
    const text = Element.prototype.getAttribute.call(node, name);
    return text ? ` ${name}="${cut(text, 60)}"` : '';
  };
  return `<${cut(nameOf(node), 40)}${part('id')}${part('class')}>`;
};
// Words within a disabled button lie on what takes no click.
const disabled = node => is(controlOf(node) ?? node, ':disabled')
  || Element.prototype.closest.call(node, 'button:disabled') !== null;
const scrollTo = (node, block) =>
  Element.prototype.scrollIntoView.call(node, {block, inline: 'nearest', behavior: 'instant'});
// A check box that is drawn by its label is clicked there.
const pointable = (node, kind) => {
  if (kind !== 'check') return node;
  const box = controlOf(node) ?? node;
  return visible(box) ? box : [...box.labels ?? []].find(visible) ?? box;
};
// null, or why the mouse at a point is not on the element.
const missed = (node, x, y) => {
  let hit = Document.prototype.elementFromPoint.call(document, x, y);
  for (let depth = 0; hit && depth < 100; depth++) {
    const root = shadowOf(hit), inner = root && ShadowRoot.prototype.elementFromPoint.call(root, x, y);
    if (!inner || inner === hit) break;
    hit = inner;
  }
  if (!hit) return 'is outside of what the window shows';
  const over = path(hit);
  const label = controlOf(node);
  if (over.some(one => one === node || label !== null && one === label || controlOf(one) === node)) return null;
  // The outermost element that covers it says more than its innermost part.
  const shared = new Set(path(node));
  const elements = over.filter(one => one instanceof Element && !shared.has(one));
  const cover = elements.at(-1);
  if (!cover) return `is covered by ${describe(hit)}`;
  return `is covered by ${describe(hit)}` + (cover === hit ? '' : ` in ${describe(cover)}`);
};
"""
)


def _element_script(parameters: str, body: str, *, asynchronous: bool = False) -> str:
    """A function of a selector and more; in its body `node` is the element, which is in the document."""
    return (
        f"{'async ' if asynchronous else ''}(selector{parameters}) => {{"
        + _NODES
        + "let node; try { node = find(selector); } catch (error) { return {error: error.message}; }"
        + "if (node === null) return {waiting: 'is not in the document'};"
        + body
        + "}"
    )


_SEEN = _element_script("", "return visible(node) ? {} : {waiting: 'is not visible'};")

# -> {x, y, mouse: {x, y}}: where it is hit, in CSS pixels of the layout viewport, and of the visual one, which is
# another in a mobile page that is zoomed in; {waiting, turn}: `turn` is to be given the next time.
_AIM = _element_script(
    ", kind, turn",
    """
  node = pointable(node, kind);
  if (!visible(node)) return {waiting: 'is not visible'};
  if (disabled(node)) return {waiting: 'is disabled'};
  const frame = () => new Promise(requestAnimationFrame);
  const look = async () => {
    // The browser knows what ancestors cut off.
    const seen = new Promise(done => {
      const observer = new IntersectionObserver(entries => { observer.disconnect(); done(entries[0]); });
      observer.observe(node);
    });
    await frame();
    const first = boxOf(node);
    await frame();
    const second = boxOf(node);
    const {intersectionRect: shown, intersectionRatio: ratio} = await seen;
    return {shown, still: ['x', 'y', 'width', 'height'].every(name => first[name] === second[name]),
      enough: ratio > 0.99 || shown.width * shown.height > innerWidth * innerHeight / 2};
  };
  // One that something fixed to the window's edge covers is brought to another place.
  if (turn === 1 || turn === 2) scrollTo(node, turn === 1 ? 'end' : 'start');
  let seen = await look();
  if (!seen.enough && connected(node)) {
    scrollTo(node, 'center');
    seen = await look();
  }
  if (!connected(node)) return {waiting: 'is not in the document'};
  if (!seen.still) return {waiting: 'is moving'};
  const {shown} = seen;
  for (const rect of Element.prototype.getClientRects.call(node)) {
    const left = Math.max(rect.left, shown.left), right = Math.min(rect.right, shown.right);
    const top = Math.max(rect.top, shown.top), bottom = Math.min(rect.bottom, shown.bottom);
    if (right <= left || bottom <= top) continue;
    const x = (left + right) / 2, y = (top + bottom) / 2;
    const waiting = missed(node, x, y);
    if (waiting !== null) return {waiting, turn: turn + 1};
    return {x, y, mouse: {x: x - visualViewport.offsetLeft, y: y - visualViewport.offsetTop}};
  }
  return {waiting: 'is outside of what the window shows', turn};
""",
    asynchronous=True,
)

# -> {}: the mouse at a point is on it, as `_AIM` said
_AIMED = _element_script(
    ", kind, x, y",
    """
  const waiting = missed(pointable(node, kind), x, y);
  return waiting === null ? {} : {waiting};
""",
)

# -> {checked, radio, document}: the last is another one in another document
_CHECKED = _element_script(
    "",
    """
  const box = controlOf(node) ?? node;
  if (!(box instanceof HTMLInputElement) || !/^(checkbox|radio)$/.test(box.type))
    return {wrong: `is no check box or radio button but ${describe(box)}`};
  return {checked: box.checked, radio: box.type === 'radio', document: performance.timeOrigin};
""",
)

# -> {}: the keyboard's focus is in it. `kind`: "field" for one that takes text, else "any".
_FOCUS = _element_script(
    ", kind",
    """
  node = controlOf(node) ?? node;
  if (!visible(node)) return {waiting: 'is not visible'};
  if (disabled(node)) return {waiting: 'is disabled'};
  const active = () => {
    let inner = document.activeElement;
    for (let root; inner && (root = shadowOf(inner)) && root.activeElement;) inner = root.activeElement;
    return inner;
  };
  const editable = getter(HTMLElement, 'isContentEditable');
  const accepts = one => one instanceof HTMLElement && editable(one);
  const isField = one => one instanceof HTMLTextAreaElement || one instanceof HTMLInputElement
    && !/^(button|checkbox|color|file|hidden|image|radio|range|reset|submit)$/.test(one.type);
  const fault = one => isField(one) ? (one.readOnly ? 'is read-only' : null)
    : accepts(one) ? null : 'is not a field that takes text';
  // Before it gets the focus: a caret put into a field that is read-only leaves it.
  if (kind === 'field' && isField(node) && fault(node) !== null) return {waiting: fault(node)};
  // What is within an editable element cannot have the focus itself.
  const host = accepts(node) ? path(node).findLast(accepts) : node;
  const held = () => { const now = active(); return now && path(now).includes(host); };
  if (!held()) {
    (host instanceof HTMLElement ? HTMLElement : SVGElement).prototype.focus.call(host);
    // The caret goes behind what is there, as after a click.
    if (held() && accepts(node)) {
      getSelection().selectAllChildren(node);
      getSelection().collapseToEnd();
    } else if (held() && isField(active())) getSelection().modify('move', 'forward', 'documentboundary');
  }
  const reason = kind === 'field' ? fault(held() ? active() : node) : null;
  if (reason !== null) return {waiting: reason};
  return held() ? {} : {waiting: 'does not take the focus'};
""",
)
_SELECT_ALL = "() => { Document.prototype.execCommand.call(document, 'selectAll'); }"

# -> {}
_CHOOSE = _element_script(
    ", wanted",
    """
  node = controlOf(node) ?? node;
  if (!(node instanceof HTMLSelectElement)) return {wrong: `is no <select> but ${describe(node)}`};
  if (!node.multiple && wanted.length !== 1) return {wrong: 'takes one option, not ' + wanted.length};
  if (disabled(node)) return {waiting: 'is disabled'};
  const options = [...node.options];
  const line = text => text.replace(/\\s+/g, ' ').trim();
  const chosen = [];
  for (const text of wanted) {
    const option = options.find(one => one.value === text)
      ?? options.find(one => line(one.label) === line(text) || one.text === line(text));
    if (!option) {
      const names = options.slice(0, 10).map(one => JSON.stringify(cut(one.label || one.value, 40)));
      if (options.length > 10) names.push('…');
      return {waiting: `has no option ${JSON.stringify(cut(text, 60))}, but ${names.join(', ') || 'none at all'}`};
    }
    if (is(option, ':disabled')) return {waiting: `has its option ${JSON.stringify(cut(text, 60))} disabled`};
    chosen.push(option);
  }
  scrollTo(node, 'nearest');
  if (options.every(one => one.selected === chosen.includes(one))) return {};
  if (node.multiple) for (const one of options) one.selected = chosen.includes(one);
  else chosen[0].selected = true;
  node.dispatchEvent(new Event('input', {bubbles: true, composed: true}));
  node.dispatchEvent(new Event('change', {bubbles: true}));
  return {};
""",
)

# `to` is null, "top", "bottom", {x, y} or a selector; `by` null or {x, y}. -> {}
_SCROLL = (
    "(selector, to, by) => {"
    + _NODES
    + """
  let box = document.scrollingElement ?? document.documentElement, target = null, of = selector;
  try {
    if (selector !== null) box = find(selector);
    if (box === null) return {waiting: 'is not in the document'};
    if (typeof to === 'string' && to !== 'top' && to !== 'bottom') {
      of = to;
      target = find(to);
      if (target === null) return {waiting: 'is not in the document', of};
      if (!visible(target)) return {waiting: 'is not visible', of};
    }
  } catch (error) { return {error: error.message, of}; }
  const go = (how, options) => Element.prototype[how].call(box, {...options, behavior: 'instant'});
  if (target !== null) scrollTo(target, 'start');
  else if (to === 'top') go('scrollTo', {top: 0});
  else if (to === 'bottom') go('scrollTo', {top: getter(Element, 'scrollHeight')(box)});
  else if (to !== null) go('scrollTo', {left: to.x, top: to.y});
  else if (by !== null) go('scrollBy', {left: by.x, top: by.y});
  else go('scrollBy', {top: selector === null ? innerHeight : getter(Element, 'clientHeight')(box)});
  return {};
}"""
)


# ---- Performing

Commands = list[Command]


@attrs.define
class _Step:
    """A step under way: its page, who is told what it waits for, and what it gave."""

    page: Page
    tell: Callable[[str], None]
    encoding: CaptureOptions
    max_pixels: int
    waits_for: str = ""
    value: Any = None
    picture: Picture | None = None

    def say(self, sentence: str) -> None:
        """From now on the step waits for the end of this."""
        if sentence != self.waits_for:
            self.waits_for = sentence
            self.tell(sentence)


async def perform(
    page: Page,
    action: Action,
    index: int,
    *,
    picture_options: CaptureOptions = _DEFAULT_ENCODING,
    max_pixels: int = MAX_PIXELS,
    tell: Callable[[str], None] = quietly,
) -> Record:
    """Do one step, under its own `timeout_ms` when it has one.

    `picture_options` say how a `screenshot` step's picture is encoded, and nothing of what it shows. `tell` hears a
    sentence whenever what the step waits for changes, such as `the element '#a' is covered by <div id="overlay">`: for
    a caller whose own deadline strikes.

    Raises ActionFailed when a step that is not optional fails; the fault of a page that is gone (SessionClosed,
    TargetCrashed, ConnectionClosed) leaves as it is, of optional steps too. When cancelled, the input that was sent may
    still be carried out.
    """
    started = trio.current_time()
    step = _Step(page, tell, picture_options, max_pixels)
    limit_s = math.inf
    if action.timeout_ms is not None:
        # Even a step of 0 ms looks once.
        limit_s = max(action.timeout_ms / 1000, FIRST_LOOK_S)
    elif action.optional:
        # What may fail must not take the time of all that follows.
        limit_s = min(OPTIONAL_S, (trio.current_effective_deadline() - started) / 3)
    error: str | None = None
    cause: Exception | None = None
    with trio.move_on_after(limit_s) as scope:
        try:
            await page.keep_document()
            step.say("the page has not answered yet")
            await _carry_out(step, action)
        except (SessionClosed, TargetCrashed, ConnectionClosed):
            raise
        except (CDPError, _Refused) as fault:
            # Whatever it is called: when the connection has ended, no step after this one can do better.
            page.session.check()
            error, cause = str(fault), fault
    if scope.cancelled_caught:
        error = f"not done within {limit_s * 1000:.0f} ms: {step.waits_for}"
        if isinstance(action, Evaluate):
            await page.session.post("Runtime.terminateExecution")
        if page.moving:
            # Until its next document begins, a page answers nothing.
            await page.stop()
    if error is not None and not action.optional:
        raise ActionFailed(index, action.type, error) from cause
    return Record(
        index,
        action.type,
        error is None,
        round((trio.current_time() - started) * 1000),
        value=step.value,
        error=error,
        picture=step.picture,
        name=action.name if isinstance(action, Shoot) else None,
    )


async def _carry_out(step: _Step, action: Action) -> None:
    may_move = isinstance(action, Click | TypeText | Press | Select | Check | Evaluate)
    match action:
        case Click():
            await _click(step, action.selector, "click", action.button, action.count)
        case Hover():
            await _point_at(step, action.selector, "hover")
        case TypeText():
            await _type(step, action)
        case Press():
            await _press(step, action)
        case Select():
            await _element(step, _CHOOSE, action.selector, action.value)
        case Check():
            await _check(step, action)
        case Scroll():
            await _scroll(step, action)
        case Wait():
            await _wait(step, action)
        case Goto():
            step.say(f"the page is not loaded: {action.url[:200]}")
            await step.page.navigate(action.url)
        case Evaluate():
            step.say("the script has not ended")
            step.value = bounded_json(await step.page.evaluate(action.script))
        case Shoot():
            await _shoot(step, action)
    if may_move:
        # A move that the step caused begins a little later: a form is sent, a link followed in a task of its own.
        step.say("the page has painted no frame")
        await frames_passed(step.page)
        step.say("the page that it moved on to is not loaded")
        await step.page.arrive()


async def _element(step: _Step, script: str, selector: str | None, *arguments: object) -> dict[str, Any]:
    """What a script of ours says about an element (None: the page), once it is not to be waited for any more.

    Raises InvalidSelector, and _Refused for an element that will never do.
    """
    turn = attempt = 0
    while True:
        found: dict[str, Any] = await step.page.call(script, selector, *arguments, turn)
        who = found.get("of", selector)
        if "error" in found:
            raise InvalidSelector(f"selector {who!r}: {found['error']}")
        if "wrong" in found:
            raise _Refused(f"the element {who!r} {found['wrong']}")
        if "waiting" not in found:
            return found
        step.say(f"the element {who!r} {found['waiting']}")
        turn = found.get("turn", turn)
        await pause(attempt)
        attempt += 1


async def _input(step: _Step, groups: Iterable[Commands], *, delay_s: float = 0.0) -> None:
    """Carry out mouse or key events, each group once the one before it was handled by the page.

    Not all at once: Chromium 156 drops what comes while a dialog is open. A group whose document was replaced meanwhile
    is waited for no more.
    """
    left = iter(groups)

    async def send() -> None:
        for group in left:
            await step.page.session.send_all(*group)
            if delay_s:
                await step.page.sleep(delay_s)

    while not await step.page.while_here(send):
        pass


# ---- Mouse

_BUTTONS = {"left": 1, "right": 2, "middle": 4}


async def _point_at(step: _Step, selector: str, kind: str) -> tuple[float, float]:
    """Move the mouse over an element that can be clicked, and say where the mouse is."""
    while True:
        found = await _element(step, _AIM, selector, kind)
        x, y = found["mouse"]["x"], found["mouse"]["y"]
        move = {"type": "mouseMoved", "x": x, "y": y, "button": "none", "buttons": 0}
        await _input(step, [[("Input.dispatchMouseEvent", move)]])
        if kind == "hover":
            return x, y
        # What opens under the mouse may lie over the element now.
        aimed = await step.page.call(_AIMED, selector, kind, found["x"], found["y"])
        if "waiting" not in aimed:
            return x, y
        step.say(f"the element {selector!r} {aimed['waiting']}")


async def _click(step: _Step, selector: str, kind: str, button: str = "left", count: int = 1) -> None:
    x, y = await _point_at(step, selector, kind)
    step.say("the page has not answered the click")
    groups: list[Commands] = []
    for number in range(1, count + 1):
        for event, held in (("mousePressed", _BUTTONS[button]), ("mouseReleased", 0)):
            params = {"type": event, "x": x, "y": y, "button": button, "buttons": held, "clickCount": number}
            groups.append([("Input.dispatchMouseEvent", params)])
    await _input(step, groups)


async def _check(step: _Step, action: Check) -> None:
    wanted = action.type == "check"
    found = await _element(step, _CHECKED, action.selector)
    if found["checked"] == wanted:
        return
    if found["radio"] and not wanted:
        raise _Refused(f"the element {action.selector!r} is a radio button: only checking another one unchecks it")
    await _click(step, action.selector, "check")
    await frames_passed(step.page)
    after = await step.page.call(_CHECKED, action.selector)
    # The click may have taken it away, or moved on to another page.
    if after.get("checked", wanted) != wanted and after["document"] == found["document"]:
        raise _Refused(f"the click on {action.selector!r} did not {action.type} it")


# ---- Keyboard


def _key_events(key: Key, modifiers: int) -> Commands:
    """The commands that press a key and let it go."""
    # With one of the others held, a key types nothing.
    text = key.text if modifiers & ~_SHIFT == 0 else ""
    release: dict[str, Any] = {
        "type": "keyUp",
        "key": key.key,
        "code": key.code,
        "windowsVirtualKeyCode": key.key_code,
        "modifiers": modifiers,
        # The modifiers' own are those on the left.
        "location": 1 if key.key in MODIFIERS else 0,
    }
    press = dict(release)
    press["type"] = "keyDown" if text else "rawKeyDown"
    press["text"] = press["unmodifiedText"] = text or None
    return [("Input.dispatchKeyEvent", press), ("Input.dispatchKeyEvent", release)]


async def _type(step: _Step, action: TypeText) -> None:
    if action.selector is not None:
        await _element(step, _FOCUS, action.selector, "field")
    step.say("the page has not taken all keys")
    if action.clear:
        await step.page.call(_SELECT_ALL)
        await _input(step, [_key_events(KEYS["Delete"], 0)])
    await _input(step, map(_typing, action.text.replace("\r\n", "\n")), delay_s=action.delay_ms / 1000)


_TYPED_KEYS = {"\n": "Enter", "\r": "Enter", "\t": "Tab"}


def _typing(char: str) -> Commands:
    """What types one character."""
    key = KEYS.get(_TYPED_KEYS.get(char, char))
    if key is None:
        return [("Input.insertText", {"text": char})]
    return _key_events(key, _SHIFT if key.shifted else 0)


async def _press(step: _Step, action: Press) -> None:
    try:
        names, key = parse_keys(action.key)
    except ValueError as error:
        raise _Refused(str(error)) from None
    if action.selector is not None:
        await _element(step, _FOCUS, action.selector, "any")
    held = 0
    down: Commands = []
    up: Commands = []
    for name in names:
        press, _ = _key_events(KEYS[name], held | MODIFIERS[name])
        _, release = _key_events(KEYS[name], held)
        held |= MODIFIERS[name]
        down.append(press)
        up.insert(0, release)
    step.say("the page has not taken the key")
    await _input(step, [down, _key_events(key, held | (_SHIFT if key.shifted else 0)), up])


# ---- The others


async def _scroll(step: _Step, action: Scroll) -> None:
    by = Point(0, action.by) if isinstance(action.by, float | int) else action.by
    to = attrs.asdict(action.to) if isinstance(action.to, Point) else action.to
    await _element(step, _SCROLL, action.selector, to, None if by is None else attrs.asdict(by))
    # Scroll events and observers of what came into view run with the next frames.
    step.say("the page has painted no frame")
    await frames_passed(step.page)


async def _wait(step: _Step, action: Wait) -> None:
    if action.ms is not None:
        step.say(f"the wait of {action.ms} ms is not over")
        await step.page.sleep(action.ms / 1000)
    if action.selector is not None:
        await _element(step, _SEEN, action.selector)
    if action.expression is not None:
        step.say("the expression is not true")
        await step.page.wait_for_expression(action.expression)


async def _shoot(step: _Step, action: Shoot) -> None:
    if action.selector is not None:
        await _element(step, _SEEN, action.selector)
    step.say("the picture is not taken")
    options = attrs.evolve(step.encoding, selector=action.selector)
    step.picture = await step.page.screenshot(options, max_pixels=step.max_pixels)


def bounded_json(value: Any) -> Any:
    """The value, without halves of surrogate pairs; raises _Refused when its JSON is over `MAX_VALUE_BYTES`."""
    parts: list[bytes] = []
    size = 0
    # Piece by piece: a page may make the value as large as a message can be. Nested deeper than some 300 levels it does
    # not leave the browser (Chromium 156).
    for part in json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).iterencode(value):
        parts.append(part.encode(errors="replace"))
        size += len(parts[-1])
        if size > MAX_VALUE_BYTES:
            raise _Refused(f"the value is over the limit of {MAX_VALUE_BYTES // 2**10} KiB of JSON")
    return json.loads(b"".join(parts))


# ---- Faults


def action_faults(actions: Iterable[Action]) -> Iterator[Fault]:
    """Faults within and between steps that their types do not show; fields are named as `actions[2].url`."""
    names: set[str] = set()
    for index, action in enumerate(actions):
        field = f"actions[{index}]"
        match action:
            case Wait():
                if [action.ms, action.selector, action.expression].count(None) != 2:
                    yield Fault(field, "needs exactly one of ms, selector and expression")
            case Scroll():
                if action.to is not None and action.by is not None:
                    yield Fault(f"{field}.by", "cannot go with to: give one of them")
            case Goto():
                try:
                    parse_url(action.url)
                except ValueError as error:
                    yield Fault(f"{field}.url", str(error))
            case Press():
                try:
                    parse_keys(action.key)
                except ValueError as error:
                    yield Fault(f"{field}.key", str(error))
            case Shoot():
                if not SCREENSHOT_NAME.fullmatch(action.name):
                    yield Fault(f"{field}.name", "may have letters, digits, `-`, `_` and `.`, not first a dot")
                elif action.name in names:
                    yield Fault(f"{field}.name", "is the name of an earlier screenshot")
                names.add(action.name)
