"""SECURITY.md: what it promises is proved by tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = (TESTS.parent / "SECURITY.md").read_text()


def test_every_promise_names_its_proof() -> None:
    promises = DOCUMENT.partition("## What is promised")[2].partition("## What is not")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ")]
    assert [row for row in rows if "`test" not in row] == ["| promise | proved by |"]


def test_every_proof_is_there() -> None:
    known = {f"tests/{file.name}" for file in TESTS.glob("test_*.py")}
    for file in TESTS.glob("test_*.py"):
        known.update(re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE))
    named = set(re.findall(r"`((?:tests/)?test_[\w.]+)`", DOCUMENT))
    assert named
    assert named - known == set()
