"""An embedded Chrome DevTools Protocol client for trio: launches Chromium, opens pages, takes pictures and documents.

    async with cdp.open_browser() as browser, browser.open_page() as page:
        await page.navigate("https://example.com")
        picture = await page.screenshot()
        html = await page.html()

Usable without the service. Pages reach the public internet only, unless an `AddressPolicy` allows more. Timeouts are
the caller's cancel scopes.
"""

from . import errors, options
from .authorities import Authorities
from .browser import Browser, connect_browser, open_browser
from .capture import Picture
from .egress import AddressPolicy
from .page import Page, max_message_bytes
from .pool import Limits, Pool, open_pool
from .processes import end_leftovers, memory_bytes

__all__ = [
    "AddressPolicy",
    "Authorities",
    "Browser",
    "Limits",
    "Page",
    "Picture",
    "Pool",
    "connect_browser",
    "end_leftovers",
    "errors",
    "max_message_bytes",
    "memory_bytes",
    "open_browser",
    "open_pool",
    "options",
]
