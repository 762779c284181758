"""When a loaded page is ready for its picture: what `wait_until: auto` waits for after the load event.

Each wait has a budget of its own, so that one dead image, an endless poll or a stream that never ends costs its budget
and a warning. A page without scripts only waits for what it was loading, its fonts, its images and two frames.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
import trio

from .selectors import ROOTS

if TYPE_CHECKING:
    from .page import Page

# What each wait may take before it is given up with a warning.
MOVE_BUDGET_S = 10.0
REQUESTS_BUDGET_S = 3.0
QUIET_BUDGET_S = 0.5
CANVAS_BUDGET_S = 1.5
FONTS_BUDGET_S = 3.0
IMAGES_BUDGET_S = 3.0
FRAMES_BUDGET_S = 1.0
# For fonts and images once requests were given up, which are likely theirs.
LATE_BUDGET_S = 0.25
SCROLL_BUDGET_S = 10.0
# A document that did not change for so long, with nothing in flight, is quiet; looked at so often.
QUIET_S = 0.1
QUIET_POLL_S = 0.025
# A canvas looks the same so often, at such distances.
CANVAS_POLL_MS = 60
CANVAS_ALIKE = 2
# `networkidle`, as other tools have it.
IDLE_S = 0.5
# One document after the other is followed so often.
MAX_MOVES = 10

# -> ms since the document changed last; 0 while it shows that it is busy. The first call begins to watch.
# (What is kept in the isolated world is under a symbol: a frame's name is a global variable there too.)
_CHANGED_MS_AGO = """() => {
  const kept = globalThis[Symbol.for('cleariflow')] ??= {};
  if (kept.changedAt === undefined) {
    kept.changedAt = performance.now();
    new MutationObserver(() => { kept.changedAt = performance.now(); })
      .observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
  }
  const busy = [...document.querySelectorAll('[aria-busy=true], #nprogress, body > [role=progressbar]')].some(node => {
    const box = Element.prototype.getBoundingClientRect.call(node);
    return box.width * box.height > 0
      && Element.prototype.checkVisibility.call(node, {opacityProperty: true, visibilityProperty: true});
  });
  return busy ? 0 : performance.now() - kept.changedAt;
}"""
# The world of the page's scripts begins with the first of them, and then this one runs before it (Chromium 156).
# Asked from ours, it answers, whatever became of the scripts since.
WITNESS = "addEventListener('cleariflow', event => event.preventDefault())"
# Whether anything may change the document after its load: scripts that ran, frames, scripts and handlers that may run,
# the focus and the lazy pictures that come with the first frame.
_SCRIPTED = """
const scripted = () => frames.length > 0 || document.querySelector('[autofocus], [loading=lazy]') !== null
  || !dispatchEvent(new Event('cleariflow', {cancelable: true}))
  || [...document.scripts].some(script => /^$|javascript|ecmascript|module/i.test(script.type))
  || document.evaluate('boolean(//@*[starts-with(name(), "on")])', document, null, 3, null).booleanValue;
"""
# Whether an element has a box, and one that meets the viewport.
_IN_VIEW = """
const hasBox = ({width, height}) => width > 0 && height > 0;
const inView = node => {
  const box = node.getBoundingClientRect();
  return hasBox(box) && box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
};
"""
# Charts draw their opening on a canvas, which changes nothing in the document: each is looked at, small, until it stays
# the same for some looks. One with pictures of another origin cannot be looked at and counts as still.
# -> "none" | "still"
_CANVASES_STILL = (
    "(whole, everyMs, alike) => {"
    + _IN_VIEW
    + """
  const shown = [...document.querySelectorAll('canvas')]
    .filter(canvas => whole ? hasBox(canvas.getBoundingClientRect()) : inView(canvas)).slice(0, 50);
  if (shown.length === 0) return 'none';
  const small = new OffscreenCanvas(48, 48).getContext('2d', {willReadFrequently: true});
  small.imageSmoothingQuality = 'high';
  const look = canvas => {
    try {
      small.clearRect(0, 0, 48, 48);
      small.drawImage(canvas, 0, 0, 48, 48);
      const pixels = new Uint32Array(small.getImageData(0, 0, 48, 48).data.buffer);
      return pixels.reduce((sum, pixel) => Math.imul(sum, 31) + pixel | 0, 0);
    } catch { return 0; }
  };
  let before = null, same = 0;
  return new Promise(done => {
    const step = () => requestAnimationFrame(() => {
      const now = shown.map(look).join();
      same = now === before ? same + 1 : 0;
      before = now;
      if (same >= alike) done('still');
      else setTimeout(step, everyMs);
    });
    step();
  });
}"""
)
# What is not ready: whether a font is on its way, and whether there are images. The layout asks for either.
_MISSING = (
    _IN_VIEW
    + """
const missing = whole => {
  const images = [...document.images].some(image => whole || inView(image));
  document.documentElement?.getBoundingClientRect();
  return {images, fonts: document.fonts.status !== 'loaded'};
};
"""
)
_NOW_MISSING = "whole => {" + _MISSING + "return missing(whole); }"
# All that is asked of a document that stays as it is, in one call. -> what makes a `Glance`
GLANCE = (
    "(javascript, limit) => {"
    + _SCRIPTED
    + _MISSING
    + "const roots = () => {"
    + ROOTS
    + """
    return roots;
  };
  const told = {url: document.URL.slice(0, limit), title: document.title.slice(0, limit)};
  if (javascript && scripted()) return {scripted: true, ...told};
  const {images, fonts} = missing(true);
  return {
    scripted: false,
    images,
    images_in_view: missing(false).images,
    fonts,
    moves: roots().some(root => root.getAnimations().length > 0
      || root.activeElement !== null && root.activeElement !== document.body),
    ...told,
  };
}"""
)
_FONTS_READY = "() => document.fonts.ready.then(() => true)"
# Images whose box meets the viewport, or all; one that fails to load counts as done. Those of the whole page are told
# to load even when the page would only do so near the viewport.
_IMAGES_READY = (
    "whole => {"
    + _IN_VIEW
    + """
  if (whole) for (const node of document.querySelectorAll('[loading=lazy]')) node.setAttribute('loading', 'eager');
  const wanted = [...document.images].filter(image => whole || inView(image));
  return Promise.allSettled(wanted.map(image => image.decode())).then(() => true);
}"""
)
_TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
# -> the height of the whole
_SCROLL_TO = """top => {
  window.scrollTo({top, left: 0, behavior: 'instant'});
  return document.scrollingElement?.scrollHeight ?? 0;
}"""


@attrs.frozen(kw_only=True)
class Glance:
    """A document as it is."""

    url: str
    title: str
    scripted: bool
    """It may change by itself. Of one that does, the rest is not looked at."""
    images: bool = True
    images_in_view: bool = True
    fonts: bool = True
    """There are some on their way."""
    moves: bool = True
    """There are animations, or a caret."""


def quietly(step: str) -> None:
    """Tell nobody."""


async def settle(page: Page, tell: Callable[[str], None] = quietly, *, whole_page: bool = False) -> None:
    """Wait until a loaded page is ready, and follow it where it moves on to.

    `tell` hears of each wait: `requests`, `quiet`, `canvas`, `fonts`, `images`, `frames`. `whole_page` waits for the
    images below the viewport too.
    """
    for _ in range(MAX_MOVES):
        await page.arrive(MOVE_BUDGET_S)
        await page.dress()
        if await page.while_here(lambda: _settle_document(page, tell, whole_page)) and not page.moving:
            return
    await page.stay(f"the page moved on more than {MAX_MOVES} times")
    await _settle_document(page, tell, whole_page)


async def _settle_document(page: Page, tell: Callable[[str], None], whole_page: bool) -> None:
    glance = await page.glance()
    scripted = glance.scripted
    if scripted:
        await page.call(_CHANGED_MS_AGO)
    tell("requests")
    pending = page.traffic.in_flight(trio.current_time())
    in_time = await _within(
        page,
        REQUESTS_BUDGET_S,
        lambda: _answered(page, pending),
        lambda: f"requests in flight: {page.still_loading(pending)}",
    )
    # What was given up is not waited for again.
    page.traffic.give_up(pending)
    if scripted:
        tell("quiet")
        await _within(page, QUIET_BUDGET_S, lambda: _quiet(page), lambda: _still_busy(page))
        page.traffic.give_up(page.traffic.in_flight(trio.current_time()))
        tell("canvas")
        # What never rests is shown as it is: an animation has no better moment.
        with trio.move_on_after(CANVAS_BUDGET_S):
            await page.call(_CANVASES_STILL, whole_page, CANVAS_POLL_MS, CANVAS_ALIKE)
    fonts, images = glance.fonts, glance.images if whole_page else glance.images_in_view
    if scripted or pending:
        missing = await page.call(_NOW_MISSING, whole_page)
        fonts, images = missing["fonts"], missing["images"]
    tell("fonts")
    if fonts:
        fonts_s = FONTS_BUDGET_S if in_time else LATE_BUDGET_S
        await _within(page, fonts_s, lambda: page.call(_FONTS_READY), lambda: "fonts are not ready")
    tell("images")
    if images:
        await images_ready(page, IMAGES_BUDGET_S if in_time else LATE_BUDGET_S, whole_page=whole_page)
    tell("frames")
    if scripted:
        # Some scripts wait for frames. Without any, the one that a picture makes the browser draw is enough.
        await frames_painted(page)


async def images_ready(page: Page, budget_s: float = IMAGES_BUDGET_S, *, whole_page: bool) -> None:
    """Images in view, or all of the page, are decoded."""
    where = "of the page" if whole_page else "in view"
    await _within(page, budget_s, lambda: page.call(_IMAGES_READY, whole_page), lambda: f"images {where} are not ready")


async def frames_painted(page: Page) -> None:
    """Two painted frames: what was changed is on the screen."""
    await _within(page, FRAMES_BUDGET_S, lambda: page.call(_TWO_FRAMES), lambda: "no frame is painted")


async def frames_passed(page: Page) -> None:
    """Two painted frames, unless the page paints none.

    One that is on its way elsewhere does not answer before the next document begins (Chromium 156).
    """
    with trio.move_on_after(FRAMES_BUDGET_S):
        await page.call(_TWO_FRAMES)


async def _within(
    page: Page, budget_s: float, wait: Callable[[], Awaitable[object]], given_up: Callable[[], str]
) -> bool:
    """Whether the wait was over within its budget."""
    with trio.move_on_after(budget_s) as scope:
        await wait()
    if scope.cancelled_caught:
        warning = f"given up after {budget_s:g} s: {given_up()}"
        if warning not in page.warnings:
            page.warnings.append(warning)
    return not scope.cancelled_caught


async def _answered(page: Page, request_ids: list[str]) -> None:
    while page.traffic.in_flight(trio.current_time(), request_ids):
        # A silent stream ends by the clock.
        with trio.move_on_after(QUIET_S):
            await page.until_event()


async def _quiet(page: Page) -> None:
    while (changed_ago_s := await page.call(_CHANGED_MS_AGO) / 1000) < QUIET_S or page.traffic.in_flight(
        trio.current_time()
    ):
        await page.sleep(max(QUIET_S - changed_ago_s, QUIET_POLL_S))


def _still_busy(page: Page) -> str:
    loading = page.still_loading()
    return f"requests in flight: {loading}" if loading else "the document keeps changing"


async def network_idle(page: Page) -> None:
    """Wait until nothing has been in flight for `IDLE_S`."""
    while (quiet_s := page.traffic.quiet_s(trio.current_time())) < IDLE_S:
        with trio.move_on_after(IDLE_S - quiet_s):
            await page.until_event()


async def scroll_through(page: Page, max_height: int | None = None) -> None:
    """Scroll down the page, a viewport at a time, until its height stays, and back to the top.

    What appears on the way is waited for, image by image. Given up with a warning after `SCROLL_BUDGET_S`.
    """

    async def down() -> None:
        top = 0
        while True:
            height = await page.call(_SCROLL_TO, top)
            await page.call(_TWO_FRAMES)
            with trio.move_on_after(QUIET_BUDGET_S):
                await _answered(page, page.traffic.in_flight(trio.current_time()))
                await page.call(_IMAGES_READY, False)
            grown = await page.call(_SCROLL_TO, top)
            end = grown if max_height is None else min(grown, max_height)
            if top + page.viewport.height >= end and grown <= height:
                return
            top = min(top + page.viewport.height, max(0, int(end) - page.viewport.height))

    await _within(page, SCROLL_BUDGET_S, down, lambda: "the page is not scrolled through")
    await page.call(_SCROLL_TO, 0)
