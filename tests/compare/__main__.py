"""See the package."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import trio

from tests.compare import CACHE, compare, report, unexplained


def main() -> int:
    parser = argparse.ArgumentParser(description="compare our pictures with puppeteer's and playwright's")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of cases")
    parser.add_argument("--out", type=Path, default=CACHE / "pictures", metavar="FOLDER", help="where pictures go")
    arguments = parser.parse_args()
    began = time.monotonic()
    rows = trio.run(compare, arguments.out, arguments.only)
    print(report(rows), end="")
    print(f"{len(rows)} cases in {time.monotonic() - began:.0f} s; pictures in {arguments.out}")
    wrong = unexplained(rows)
    for name, said in wrong.items():
        print(f"WRONG {name}: {said}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
