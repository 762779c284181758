"""Files of results: names that URLs and texts give on any file system, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# Of a name, in UTF-8: numbers and endings are put to it, and file systems take 255.
MAX_NAME_BYTES = 100
# Windows opens devices by these, whatever follows the dot.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


def safe_name(text: str) -> str:
    """A text as part of a file's name: letters, digits, `.` and `_` are kept, all else is `-`.

    Never empty, nor a hidden file, a device or a way out of a folder. One that is cut has a digest of the whole.
    """
    text = unicodedata.normalize("NFC", text)
    kept = "".join(one if one in "._" or unicodedata.category(one)[0] in "LMN" else "-" for one in text)
    kept = re.sub("-+", "-", kept).strip(".-") or "page"
    if len(kept.encode()) > MAX_NAME_BYTES:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        kept = kept.encode()[: MAX_NAME_BYTES - len(digest) - 1].decode(errors="ignore") + f"-{digest}"
    return f"_{kept}" if _RESERVED.match(kept) else kept


def unique(names: Iterable[str], others: Iterable[str] = ()) -> Iterator[str]:
    """The names, numbered from the second of the same on: no two are one, also with `-` and one of `others` behind.

    Case makes no difference: to some file systems it makes none.
    """
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    ends = ["", *(f"-{other}" for other in others)]
    for name in names:
        while True:
            numbers[name] += 1
            made = f"{name}-{numbers[name]}" if numbers[name] > 1 else name
            files = {(made + end).casefold() for end in ends}
            if taken.isdisjoint(files):
                break
        taken |= files
        yield made


def named(pattern: str, addresses: Sequence[str], others: Iterable[str] = ()) -> Iterator[str]:
    """A name for each URL without its scheme: the pattern, in which `{name}`, `{host}` and `{number}` are known.

    All differ, as of `unique`.
    """
    width, stems = len(str(len(addresses))), []
    for number, address in enumerate(addresses, 1):
        words = {"name": address, "host": address.partition("/")[0], "number": f"{number:0{width}}"}
        stem = pattern
        for word, text in words.items():
            stem = stem.replace(f"{{{word}}}", safe_name(text))
        stems.append(stem)
    return unique(stems, others)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is as it was, or not there, until all of it is written. Raises OSError."""
    if path.exists() and not path.is_file():
        # A pipe or a device, such as /dev/stdout.
        path.write_bytes(data)
        return
    # What a link leads to, not the link.
    path = path.resolve()
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    # Never another's: in a folder that is open to others it may be a link to anywhere.
    with partial.open("xb") as file:
        try:
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(path, partial)
            file.write(data)
            file.flush()
            partial.replace(path)
        except BaseException:
            partial.unlink()
            raise
