"""Pages that nobody here wrote, out of packages from the index (dev dependencies, pinned in pyproject.toml).

    pages = mount(site)
    pages.swagger_url     a single-page app: Swagger UI showing a small API description of our own
    pages.document_url    a long document: the reference manual of the Roundup issue tracker, made by Sphinx
    pages.guide_url       its user's guide, which fits into one picture

None asks for anything outside the site. The facts that tell a right render are constants of this module, measured with
chromium-headless-shell 156 at 1280x800 without scroll bars; colours are of single pixels, (x, y), inside plain areas.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import attrs
import jinja2

from tests.site import Site

SWAGGER_PREFIX = "/swagger/"
DOCUMENT_PREFIX = "/manual/"

API_DESCRIPTION = {
    "openapi": "3.0.3",
    "info": {"title": "Lighthouse keeper", "version": "1.2.3", "description": "Lamps, fog and the log book."},
    "tags": [{"name": "lamps", "description": "What shines"}, {"name": "log", "description": "What happened"}],
    "paths": {
        "/lamps": {
            "get": {"tags": ["lamps"], "summary": "List the lamps", "responses": {"200": {"description": "All lamps"}}},
            "post": {"tags": ["lamps"], "summary": "Add a lamp", "responses": {"201": {"description": "Added"}}},
        },
        "/lamps/{id}": {
            "delete": {
                "tags": ["lamps"],
                "summary": "Remove a lamp",
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
                "responses": {"204": {"description": "Gone"}},
            }
        },
        "/log": {
            "put": {"tags": ["log"], "summary": "Write the log", "responses": {"200": {"description": "Written"}}}
        },
    },
}
"""What Swagger UI shows; none of these words is in its own files, so they prove that the app ran and fetched."""

SWAGGER_TITLE = "Swagger UI"
SWAGGER_READY = ".opblock"
"""There are four once the app has fetched and shown the description, some 100 ms after the load event."""
SWAGGER_TEXTS = (
    "Lighthouse keeper",
    "Lamps, fog and the log book.",
    "List the lamps",
    "Remove a lamp",
    "Write the log",
)
"""In the text and in the HTML of the finished page; none is in the HTML that the server sends."""
SWAGGER_COLOURS = {
    (300, 30): (27, 27, 27),
    (30, 345): (97, 175, 254),
    (30, 400): (73, 204, 144),
    (30, 455): (249, 62, 62),
    (30, 580): (252, 161, 48),
    (700, 700): (250, 250, 250),
}
"""The dark bar, the buttons GET, POST, DELETE and PUT, the ground."""

DOCUMENT_TITLE = "Roundup Reference - Roundup 2.6.0 documentation"
DOCUMENT_TEXTS = (
    "Trackers in a Nutshell",
    "Security / Access Controls",
    "templates immediately when they are changed,",
    "Copyright 2009-2025, Richard Jones, Roundup-Team.",
)
"""From its top to its last line, in the HTML as in the visible text (some 195,000 characters)."""
DOCUMENT_COLOURS = {
    (1200, 400): (245, 245, 245),
    (600, 700): (247, 247, 247),
    (600, 550): (223, 223, 223),
    (273, 300): (128, 128, 128),
    (200, 215): (255, 255, 255),
}
"""The ground, the text's column, the box "Welcome", its left edge, the current entry of the contents: styles loaded."""
DOCUMENT_HEIGHT_PX = 137_061
"""Too tall for any JPEG (65,535) and, 1280 wide, more than 64 million pixels: a whole picture of it must be refused."""

GUIDE_TITLE = "User Guide - Roundup 2.6.0 documentation"
GUIDE_HEIGHT_PX = 26_201


@attrs.frozen
class ForeignPage:
    """A page on disk."""

    folder: Path
    """What has to be served."""
    start: str
    """The file in it to begin with."""


@attrs.frozen
class MountedPages:
    """Where the pages are on a site."""

    swagger_url: str
    document_url: str
    guide_url: str


def _locate(distribution: str, ending: str) -> Path:
    """The one file of an installed distribution whose path ends with `ending`."""
    files = importlib.metadata.files(distribution) or []
    (file,) = [file for file in files if file.as_posix().endswith(ending)]
    return Path(str(file.locate())).resolve()


def swagger_ui() -> ForeignPage:
    """Swagger UI (Apache-2.0) as flask-swagger-ui (MIT) ships it; its start page is a Jinja template beside it."""
    template = _locate("flask-swagger-ui", "templates/index.template.html")
    return ForeignPage(template.parent.parent / "dist", "../templates/" + template.name)


def long_document() -> ForeignPage:
    """The reference manual of Roundup (MIT): 426 kB of HTML with styles, scripts and its other chapters beside it.

    One of its scripts, `_static/jquery.js`, is not in the package: 404, and an error on the console, as in real life.
    """
    file = _locate("roundup", "html/reference.html")
    return ForeignPage(file.parent, file.name)


def mount(site: Site) -> MountedPages:
    """Serve both from `site`, with the API description beside Swagger UI."""
    app, manual = swagger_ui(), long_document()
    site.add_folder(SWAGGER_PREFIX, app.folder)
    site.add_folder(DOCUMENT_PREFIX, manual.folder)
    site.add(SWAGGER_PREFIX + "openapi.json", json.dumps(API_DESCRIPTION), "application/json")
    # The configuration that the package's own blueprint passes; without validatorUrl the app would ask a public
    # validator about every description that is not on localhost.
    config = {
        "dom_id": "#swagger-ui",
        "url": SWAGGER_PREFIX + "openapi.json",
        "layout": "StandaloneLayout",
        "deepLinking": True,
        "validatorUrl": None,
    }
    template = jinja2.Template((app.folder / app.start).read_text("utf-8"), autoescape=True)
    start = template.render(
        base_url=SWAGGER_PREFIX.rstrip("/"), app_name="Swagger UI", config_json=json.dumps(config), version="5"
    )
    return MountedPages(
        swagger_url=site.add(SWAGGER_PREFIX, start),
        document_url=site.url(DOCUMENT_PREFIX + manual.start),
        guide_url=site.url(DOCUMENT_PREFIX + "user_guide.html"),
    )
