"""Names of files made of URLs and other texts, and files that are whole or not there."""

from __future__ import annotations

import os
import resource
import stat
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp.files import MAX_NAME_BYTES, named, safe_name, unique, write_whole

# ---- Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.com/docs/intro", "example.com-docs-intro"),
        ("example.com/", "example.com"),
        ("example.com:8080/a?b=1&c=2#d", "example.com-8080-a-b-1-c-2-d"),
        ("[::1]/x", "1-x"),
        ("ja.wikipedia.org/wiki/日本", "ja.wikipedia.org-wiki-日本"),
        ("a.b/gru\u0308n", "a.b-grün"),
        ("a.b/हिन्दी", "a.b-हिन्दी"),
        ("../../etc/passwd", "etc-passwd"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("...", "page"),
        ("", "page"),
        ("nul.example/x", "_nul.example-x"),
        ("COM1", "_COM1"),
        ("company.com", "company.com"),
        ('a\\b:c*d?"e<f>g|h\0i\nj', "a-b-c-d-e-f-g-h-i-j"),
    ],
)
def test_name_is_made_of_what_every_file_system_takes(text: str, name: str) -> None:
    assert safe_name(text) == name


@given(st.text())
def test_name_is_one_plain_part_of_a_path(text: str) -> None:
    name = safe_name(text)
    assert 0 < len(name.encode()) <= MAX_NAME_BYTES + 1
    assert name[0] not in ".-"
    assert name[-1] not in ".-"
    assert all(one in "._-" or unicodedata.category(one)[0] in "LMN" for one in name)
    assert unicodedata.normalize("NFC", name) == name


def test_long_names_that_differ_late_differ() -> None:
    names = [safe_name("é" * 200 + end) for end in "ab"]
    assert names[0] != names[1]
    assert all(len(name.encode()) <= MAX_NAME_BYTES for name in names)


def test_same_name_is_numbered() -> None:
    assert list(unique(["a", "b", "a", "A", "a-2", "a"])) == ["a", "b", "a-2", "A-3", "a-2-2", "a-4"]


def test_name_leaves_room_for_further_outputs() -> None:
    assert list(unique(["a", "a-links"], ["links"])) == ["a", "a-links-2"]


@given(st.lists(st.sampled_from(["a", "A", "a-2", "a-2-2", "a-x", "b"]), max_size=12))
def test_names_with_their_further_outputs_are_all_different(names: list[str]) -> None:
    made = list(unique(names, ["x"]))
    files = [file.casefold() for name in made for file in (name, f"{name}-x")]
    assert len(set(files)) == len(files)


@given(st.lists(st.sampled_from(["a", "A", "a-2", "b"]), max_size=6), st.sampled_from(["a", "b"]))
def test_names_stay_when_one_more_follows(names: list[str], more: str) -> None:
    assert list(unique([*names, more]))[:-1] == list(unique(names))


def test_pattern_is_filled_for_each_address() -> None:
    addresses = ["a.b/{host}", "a.b/c", "a.b/c"]
    assert list(named("{host}/{number}", addresses)) == ["a.b/1", "a.b/2", "a.b/3"]
    assert list(named("x-{name}", addresses)) == ["x-a.b-host", "x-a.b-c", "x-a.b-c-2"]


# ---- Writing ---------------------------------------------------------------------------------------------------------


def test_file_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"before")
    write_whole(file, b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"after")]


def test_file_is_as_it_was_until_all_is_written(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"before")
    broken: bytes = "not bytes"  # type: ignore[assignment]
    with pytest.raises(TypeError):
        write_whole(file, broken)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"before")]


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"before")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(file, bytes(2**21))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"before")]


def test_link_of_the_partial_name_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"before")
    (tmp_path / f".{os.getpid()}-a").symlink_to("victim")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", b"after")
    assert victim.read_bytes() == b"before"


def test_mode_of_a_replaced_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"before")
    file.chmod(0o600)
    write_whole(file, b"after")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_link_stays_one(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    file.write_bytes(b"before")
    link.symlink_to("file")
    write_whole(link, b"after")
    assert link.is_symlink()
    assert file.read_bytes() == b"after"


def test_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, b"data")
        assert os.read(reader, 10) == b"data"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
