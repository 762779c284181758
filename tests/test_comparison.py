"""Our pictures against puppeteer's and playwright's, pixel by pixel (tests/compare says how)."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from . import compare
from .compare.cases import CASES


@pytest.mark.slow
async def test_pictures_equal_those_of_puppeteer(tmp_path: Path) -> None:
    rows = await compare.compare(tmp_path)
    assert len(rows) >= 100
    assert compare.unexplained(rows) == {}, compare.report(rows)


@pytest.mark.slow
async def test_comparison_sees_a_difference_of_one_pixel(tmp_path: Path) -> None:
    rows = await compare.compare(tmp_path, "mixed-1x")
    picture = tmp_path / "mixed-1x.us"
    with Image.open(picture) as image:
        changed = image.convert("RGBA")
    changed.putpixel((400, 300), (1, 2, 3, 255))
    changed.save(picture, "PNG")
    case = next(case for case in CASES if case.name == "mixed-1x")
    assert [row.differs for row in rows] == [None]
    assert "first at 400,300" in (compare.row(tmp_path, case).differs or "")
