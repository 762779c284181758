"""What `wait_until: auto` costs over `load`: python -m bench.auto [ROUNDS]

Pages are opened by turns in one run, with `load` and with `auto`; the table shows the milliseconds that settling took
after the load event, and what it gave up on. Pages without scripts should stay below 50 ms, most of it two frames;
pages with scripts below 500 ms unless they were still loading something.
"""

from __future__ import annotations

import statistics
import sys

import numpy as np
import trio

import cdp
from bench.tables import Table, show
from tests import pages
from tests.site import Answer, Exchange, open_site

ROUNDS = 15


async def measure(rounds: int) -> Table:
    """A row for each page."""
    policy = cdp.AddressPolicy.parse(["127.0.0.0/8"])
    async with open_site() as site, cdp.open_browser(policy=policy) as browser:
        mounted = pages.mount(site)

        async def later(exchange: Exchange) -> Answer:
            await exchange.hold(0.3)
            return Answer(b"late", "text/plain")

        site.add_route("/in-300-ms", later)
        site.add("/paragraphs", "<p>words</p>" * 2000)
        site.add("/pictures", "<img src=/image.png>" * 20)
        site.add(
            "/app", "<div id=a></div><script>fetch('/in-300-ms').then(r => r.text()).then(t => a.append(t))</script>"
        )
        site.add("/clock", "<div id=a></div><script>setInterval(() => a.textContent = Math.random(), 20)</script>")
        site.add("/poll", "<script>fetch('/never')</script>")
        site.add("/unread", "<script>fetch('/ok')</script>")
        cases = {
            "without scripts: a line": site.url("/ok"),
            "without scripts: 2,000 paragraphs": site.url("/paragraphs"),
            "without scripts: 20 pictures": site.url("/pictures"),
            "without scripts: web font": site.url("/fonts"),
            "with scripts: Swagger UI": mounted.swagger_url,
            "with scripts: 26,000 px guide": mounted.guide_url,
            "with scripts: fetch of 300 ms": site.url("/app"),
            "with scripts: body never read": site.url("/unread"),
            "with scripts: a clock": site.url("/clock"),
            "with scripts: a poll that never ends": site.url("/poll"),
        }
        settled: dict[str, list[float]] = {name: [] for name in cases}
        loaded: dict[str, list[float]] = {name: [] for name in cases}
        warnings: dict[str, str] = {}
        for _ in range(rounds):
            for name, url in cases.items():
                async with browser.open_page() as page:
                    started = trio.current_time()
                    await page.navigate(url)
                    at_load = trio.current_time()
                    await page.settle()
                    loaded[name].append((at_load - started) * 1000)
                    settled[name].append((trio.current_time() - at_load) * 1000)
                    warnings[name] = "; ".join(page.warnings)
    columns = ("page", "load ms", "settling: p10 ms", "median", "p90", "max", "given up")
    table = Table("What `wait_until: auto` costs after the load event", columns)
    for name in cases:
        quantiles = map(float, np.quantile(settled[name], (0.1, 0.5, 0.9, 1)))
        table.rows.append((name, statistics.median(loaded[name]), *quantiles, warnings[name]))
    return table


if __name__ == "__main__":
    show([trio.run(measure, int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)])
