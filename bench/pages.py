"""The pages that are captured, on a site in a process of its own (python -m bench.pages).

tiny       a title and a line
document   a user's guide by Sphinx, 26,000 px high, with its styles and scripts
app        a single-page app of our own (app.js), which has rendered by its load event: the same work for everybody
swagger    Swagger UI, which renders on after its load event: what a tool captures depends on when it does
megabytes  2 MB of paragraphs
images     50 pictures of 30 KB
never      does not load
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
from PIL import Image

from bench.batches import lines
from tests import pages
from tests.site import open_site


@attrs.frozen
class Pages:
    """The site's process, and its URLs by name."""

    pid: int
    urls: dict[str, str]


PARAGRAPH = "<p>" + "words of a long document " * 20
DOCUMENT_BYTES = 2_000_000
IMAGES = 50
LAMPS = 200
STYLE = """
body { margin: 0; font: 14px sans-serif } header { background: #123; color: white; padding: 8px 16px; display: flex }
header p { margin-left: auto } .app { display: grid; grid-template-columns: 200px 1fr } header { grid-column: 1 / 3 }
nav { background: #eee } .cards { display: flex; flex-wrap: wrap; gap: 12px; padding: 12px }
.card { border: 1px solid #ccc; border-radius: 8px; padding: 8px; width: 160px; box-shadow: 0 2px 4px #0003 }
.selected { background: #ffc } .tag { background: #06c; color: white; border-radius: 4px; padding: 0 4px; margin: 2px }
td { border-bottom: 1px solid #ddd; padding: 4px 12px }
"""


def app() -> str:
    """The app's document, with its data."""
    chance = random.Random(1)
    lamps = [
        {
            "id": number,
            "name": "".join(chance.choices("aeioulmnrst", k=9)).title(),
            "place": chance.choice(["North Cape", "South Head", "Long Island", "The Narrows"]),
            "range": chance.randrange(5, 30),
            "hours": [chance.randrange(100) for _ in range(30)],
            "tags": chance.sample(["fog", "storm", "rocks", "harbour", "reef"], k=2),
        }
        for number in range(LAMPS)
    ]
    data = f"<script type=application/json id=data>{json.dumps(lamps)}</script>"
    head = f"<title>Lighthouse keeper</title><style>{STYLE}</style><script src=/app.js defer></script>"
    return f"<!DOCTYPE html><html lang=en><meta charset=utf-8>{head}<div id=root></div>{data}"


def noise(seed: int) -> bytes:
    """A picture of 30 KB."""
    file = io.BytesIO()
    Image.frombytes("RGB", (100, 100), random.Random(seed).randbytes(30_000)).save(file, "PNG")
    return file.getvalue()


async def serve() -> None:
    """Run the site until it is killed; its URLs go to standard output."""
    async with open_site() as site:
        mounted = pages.mount(site)
        site.add("/app.js", (Path(__file__).parent / "app.js").read_bytes(), "text/javascript")
        for number in range(IMAGES):
            site.add(f"/image-{number}", noise(number), "image/png")
        urls = {
            "tiny": site.add("/tiny", "<!DOCTYPE html><title>Tiny</title><p>A tiny page."),
            "document": mounted.guide_url,
            "app": site.add("/app", app()),
            "swagger": mounted.swagger_url,
            "megabytes": site.add("/megabytes", PARAGRAPH * (DOCUMENT_BYTES // len(PARAGRAPH))),
            "images": site.add("/images", "".join(f"<img src=/image-{number}>" for number in range(IMAGES))),
            "never": site.url("/never"),
        }
        print(json.dumps(urls), flush=True)
        await trio.sleep_forever()


@asynccontextmanager
async def open_pages() -> AsyncIterator[Pages]:
    """The site, until the body ends."""
    process = await trio.lowlevel.open_process([sys.executable, "-m", "bench.pages"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield Pages(process.pid, json.loads(await anext(lines(process.stdout))))
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


if __name__ == "__main__":
    trio.run(serve)
