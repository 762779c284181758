"""The journal behind the store: nothing confirmed is ever lost, nothing damaged stops the rest."""

from __future__ import annotations

import errno
import inspect
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from tinydb import Query, TinyDB
from tinydb.table import Document, Table
from trio.testing import MockClock, wait_all_tasks_blocked

import cleariflow
from cleariflow import JournalStorage, JournalTable, StoreError


def line(value: Any) -> bytes:
    """A line of the file, made by other means than the journal's."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


HEADER = line({"format": "cleariflow-journal", "version": 1})
# Two hold what a record begins with in their texts.
LINES = [
    HEADER,
    *(line(["jobs", str(n), {"n": n, "text": '00000000 ["' * (n % 2) + "\udc80é\n" * (n % 3)}]) for n in range(1, 5)),
    line(["other", "1", {"n": 0}]),
]


def meaning(lines: list[bytes]) -> dict[str, Any]:
    """The tables that these whole lines stand for."""
    tables: dict[str, Any] = {}
    for each in lines:
        match json.loads(each[9:]):
            case [name, doc_id, document]:
                tables.setdefault(name, {})[doc_id] = document
    return tables


def memory(storage: JournalStorage) -> dict[str, Any]:
    """A copy of what the store holds."""
    return {name: dict(documents) for name, documents in storage.read().items() if documents}


def live_lines(storage: JournalStorage) -> list[bytes]:
    """What a fold writes."""
    return [line for documents in storage._tables.values() for line in documents.values()]


def read_back(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What a file reads as, and what is reported; the file is not mended."""
    storage = JournalStorage(path)
    storage.close()
    return memory(storage), storage.reports


def on_disk(path: Path) -> dict[str, Any]:
    """What would be read back if the process were killed now; the store itself may go on."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(path.parent, folder, dirs_exist_ok=True)
        return read_back(Path(folder, path.name))[0]


async def write_and_close(storage: JournalStorage) -> None:
    """The life of a writer that is cancelled before it starts."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await storage.run()


@contextmanager
def opened(path: Path) -> Iterator[tuple[JournalStorage, JournalTable]]:
    """A store for a test without an event loop; on leaving, what waits is written and the file closed."""
    storage = JournalStorage(path)
    try:
        yield storage, JournalTable(storage, "jobs")
    finally:
        trio.run(write_and_close, storage)


@contextmanager
def wrapped(name: str, call: Callable[..., Any]) -> Iterator[None]:
    """Calls of `os.<name>` go to `call`, which gets the real function first."""
    real = getattr(os, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, lambda *args, **kwargs: call(real, *args, **kwargs))
        yield


@contextmanager
def failing(name: str, number: int, fails: Callable[[int], bool] = lambda call: True) -> Iterator[list[Any]]:
    """The calls of `os.<name>`; those that `fails` picks by number (from 0) raise the error."""
    calls: list[Any] = []

    def call(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if fails(len(calls) - 1):
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    with wrapped(name, call):
        yield calls


def counted(name: str) -> Any:
    """The calls of `os.<name>`, none of which fails."""
    return failing(name, 0, lambda call: False)


class Running(NamedTuple):
    """A store and its writer, which waits for changes."""

    path: Path
    storage: JournalStorage
    table: JournalTable

    async def put(self, n: int) -> None:
        """Insert a document and wait until it is confirmed."""
        self.table.insert({"n": n})
        await self.flush()

    async def flush(self) -> None:
        """Wait until all is confirmed; who is forgotten fails."""
        with trio.fail_after(30):
            await self.storage.flushed()

    async def put_in_vain(self, n: int, number: int) -> None:
        """Insert a document that is not confirmed, because of this error."""
        with pytest.raises(StoreError, match=f"cannot write the store: {os.strerror(number)}") as caught:
            await self.put(n)
        assert caught.value.errno == number

    def assert_sound(self) -> None:
        """The disk holds what memory holds, and there is no fault."""
        assert (self.storage.fault, on_disk(self.path)) == (None, memory(self.storage))


async def start(path: Path, nursery: trio.Nursery) -> Running:
    """Open a store and start its writer."""
    storage = JournalStorage(path)
    await nursery.start(storage.run)
    await wait_all_tasks_blocked()
    return Running(path, storage, JournalTable(storage, "jobs"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the journal, in a folder of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "jobs.journal"


@pytest.fixture
async def store(path: Path, nursery: trio.Nursery) -> Running:
    """A store and its writer."""
    return await start(path, nursery)


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that open thousands of files and cut no power: fsync is most of their time."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


# ---- TinyDB stays TinyDB ---------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
).map(lambda value: json.loads(json.dumps(value)))  # Two lone surrogates side by side become one character.
DOCUMENTS = st.dictionaries(st.sampled_from(["state", "url", "n", "nested"]), VALUES, max_size=4)
# By their ids, or by what their "n" is.
SELECTIONS = st.lists(st.integers(1, 6), max_size=3, unique=True).map(lambda ids: ("ids", ids)) | VALUES.map(
    lambda value: ("n", value)
)
STEPS = st.one_of(
    st.tuples(st.just("insert"), st.lists(DOCUMENTS, max_size=3)),
    st.tuples(st.just("upsert"), st.integers(1, 6), DOCUMENTS),
    st.tuples(st.just("update"), SELECTIONS, DOCUMENTS),
    st.tuples(st.just("remove"), SELECTIONS),
    st.sampled_from([("truncate",), ("drop",)]),
)


def select(jobs: dict[int, Any], selection: tuple[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """The arguments that select documents in TinyDB, and which they select in the model."""
    match selection:
        case ("ids", ids):
            return {"doc_ids": ids}, [doc_id for doc_id in ids if doc_id in jobs]
        case (_, value):
            return {"cond": Query().n == value}, [key for key, job in jobs.items() if "n" in job and job["n"] == value]


def take_step(db: TinyDB, jobs: dict[int, Any], step: tuple[Any, ...]) -> None:
    """Change a TinyDB and its model, and compare what TinyDB answers."""
    table = db.table("jobs")
    match step:
        case ("insert", [document]):
            jobs |= {table.insert(document): dict(document)}
        case ("insert", documents):
            jobs |= zip(table.insert_multiple(documents), map(dict, documents), strict=True)
        case ("upsert", doc_id, document):
            assert table.upsert(Document(document, doc_id)) == [doc_id]
            jobs[doc_id] = jobs.get(doc_id, {}) | document
        case ("update", selection, document):
            arguments, hit = select(jobs, selection)
            assert table.update(document, **arguments) == hit
            jobs |= {doc_id: jobs[doc_id] | document for doc_id in hit}
        case ("remove", selection):
            arguments, hit = select(jobs, selection)
            assert table.remove(**arguments) == hit
            for doc_id in hit:
                del jobs[doc_id]
        case _:
            table.truncate() if step == ("truncate",) else db.drop_tables()
            jobs.clear()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lives=st.lists(st.lists(STEPS, max_size=8), min_size=1, max_size=4))
def test_any_sequence_of_changes_reads_back_as_a_plain_dict(
    tmp_path_factory: pytest.TempPathFactory, lives: list[list[tuple[Any, ...]]]
) -> None:
    path, model = tmp_path_factory.mktemp("data") / "jobs.journal", dict[int, Any]()
    for number, steps in enumerate([*lives, []]):
        with opened(path) as (storage, _):
            storage._file._fold_at = 2**40 if number % 2 else -1
            db = TinyDB(storage=lambda storage=storage: storage)
            db.table_class = JournalTable
            for step in [None, *steps]:
                if step:
                    take_step(db, model, step)
                # As texts: 1 is not True, and the order is kept.
                assert repr({doc.doc_id: dict(doc) for doc in db.table("jobs")}) == repr(model)
            assert storage.reports == []


def test_dropped_table_does_not_come_back(path: Path) -> None:
    with opened(path) as (storage, table):
        table.insert({"n": 1})
        TinyDB(storage=lambda: storage).drop_table("jobs")
    assert read_back(path) == ({}, [])


def test_search_by_query_finds_documents_with_their_ids(path: Path) -> None:
    with opened(path) as (_, table):
        table.insert_multiple({"state": "queued" if n % 2 else "done", "n": n} for n in range(10))
        found = table.search((Query().state == "queued") & (Query().n > 4))
        assert [(doc.doc_id, doc["n"]) for doc in found] == [(6, 5), (8, 7), (10, 9)]


def test_search_sees_a_change_made_after_it_was_cached(path: Path) -> None:
    with opened(path) as (_, table):
        table.insert({"state": "queued"})
        assert table.search(Query().state == "done") == []
        table.update({"state": "done"}, doc_ids=[1])
        assert table.search(Query().state == "done") == [{"state": "done"}]


def test_document_that_is_not_json_is_refused_and_changes_nothing(path: Path) -> None:
    with opened(path) as (storage, table):
        table.insert({"n": 1})
        with pytest.raises(TypeError, match="not JSON serializable"):
            table.insert_multiple([{"n": 2}, {"n": object()}])
    assert read_back(path)[0] == memory(storage) == {"jobs": {"1": {"n": 1}}}


def test_updater_that_raises_changes_nothing(path: Path) -> None:
    def spoil(document: Any) -> None:
        document["n"] = 2
        raise LookupError

    with opened(path) as (storage, table):
        table.insert({"n": 1})
        with pytest.raises(LookupError):
            table.update(spoil, doc_ids=[1])
    assert read_back(path)[0] == memory(storage) == {"jobs": {"1": {"n": 1}}}


def test_change_of_a_document_that_was_read_changes_nothing(path: Path) -> None:
    with opened(path) as (_, table):
        inner = [1]
        table.insert({"n": inner})
        inner.append(2)
        table.all()[0]["n"].append(3)
        assert table.all() == [{"n": [1]}]


def test_memory_holds_the_lines_of_the_file(path: Path) -> None:
    path.write_bytes(b"".join(LINES))
    with opened(path) as (storage, _):
        assert live_lines(storage) == LINES[1:]
    assert all(isinstance(each, bytes) for each in live_lines(storage))


def test_table_of_any_name_reads_back(path: Path) -> None:
    name = 'é"\\'
    with opened(path) as (storage, _):
        JournalTable(storage, name).insert({"n": 1})
    assert read_back(path) == ({name: {"1": {"n": 1}}}, [])


def test_removal_of_an_unknown_id_writes_nothing(path: Path) -> None:
    with opened(path) as (_, table):
        assert table.remove(doc_ids=[2]) == []
    assert path.read_bytes() == HEADER


def test_change_by_id_visits_and_serialises_its_own_document_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(*args: Any) -> Any:
        raise AssertionError("walks through the table")

    class Unwalkable(dict[int, bytes]):
        __iter__ = keys = values = items = copy = walk

    serialised: list[Any] = []
    real = cleariflow._encode_json
    with opened(path) as (storage, table):
        table.insert_multiple({"n": n} for n in range(1000))
        with monkeypatch.context() as patch:
            patch.setattr(cleariflow, "_encode_json", lambda value: (serialised.append(value), real(value))[1])
            patch.setitem(storage._tables, "jobs", Unwalkable(storage._tables["jobs"]))
            table.upsert(Document({"n": -1}, doc_id=7))
            table.upsert(Document({"n": -2}, doc_id=2000))
            table.remove(doc_ids=[8])
            assert table.contains(doc_id=2000)
    assert serialised == [["jobs", "7", {"n": -1}], ["jobs", "2000", {"n": -2}], ["jobs", "8", None]]


def test_truncate_does_not_walk_through_the_table_for_each_document(path: Path) -> None:
    walks: list[Any] = []
    real = cleariflow._Changes.__iter__
    with opened(path) as (_, table), pytest.MonkeyPatch.context() as patch:
        table.insert_multiple({"n": n} for n in range(100))
        patch.setattr(cleariflow._Changes, "__iter__", lambda self: (walks.append(self), real(self))[1])
        table.truncate()
    assert len(walks) <= 1


def test_table_of_another_class_is_refused(path: Path) -> None:
    with opened(path) as (storage, _):
        with pytest.raises(TypeError, match="JournalTable"):
            Table(storage, "jobs").insert({"n": 1})
        assert memory(storage) == {}


def test_tinydb_touches_its_storage_only_where_the_journal_expects_it() -> None:
    def methods(cls: type, name: str) -> set[str]:
        functions = {key: value for key, value in vars(cls).items() if inspect.isfunction(value)}
        return {key for key, function in functions.items() if name in function.__code__.co_names}

    assert version("tinydb").startswith("4.")
    assert methods(Table, "_storage") == {"__init__", "__repr__", "_read_table", "_update_table"}
    assert list(inspect.signature(Table._update_table).parameters) == ["self", "updater"]
    changing = {"__init__", "insert", "insert_multiple", "update", "update_multiple", "remove", "truncate"}
    assert methods(Table, "_update_table") == changing
    assert methods(Table, "_read_table") == {"get", "search", "__len__", "__iter__", "_get_next_id"}
    assert methods(TinyDB, "write") == {"drop_table", "drop_tables"}


# ---- The file --------------------------------------------------------------------------------------------------------


def test_file_is_readable_lines_with_checksums(path: Path) -> None:
    with opened(path) as (storage, table):
        table.insert({"n": 1})
        table.upsert(Document({"n": 2}, 1))
        table.remove(doc_ids=[1])
        JournalTable(storage, "other").insert({"é": "\udc80\n"})
    # Of what is written at once, the newest of each document.
    records = [["jobs", "1", None], ["other", "1", {"é": "\udc80\n"}]]
    assert path.read_bytes() == HEADER + b"".join(map(line, records))


@pytest.mark.usefixtures("unsynced")
def test_file_cut_at_any_byte_reads_up_to_its_last_whole_line(path: Path) -> None:
    content = b"".join(LINES)
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = LINES[: content[:cut].count(b"\n")]
        torn = cut - len(b"".join(whole))
        reports = [f"{path}: dropped an unfinished last line of {torn} bytes."] if torn else []
        assert read_back(path) == (meaning(whole), reports), cut
        assert list(path.parent.iterdir()) == [path], cut


@pytest.mark.usefixtures("unsynced")
def test_file_cut_at_any_byte_takes_further_changes(path: Path) -> None:
    content, new = b"".join(LINES), line(["jobs", "99", {"n": "new"}])
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        with opened(path) as (_, table):
            table.upsert(Document({"n": "new"}, 99))
        assert path.read_bytes() == b"".join(LINES[: content[:cut].count(b"\n")] or [HEADER]) + new, cut


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize(
    "flip", [lambda byte, at: byte ^ 1 << at % 8, lambda byte, at: 10 if byte != 10 else 0x8A], ids=["bit", "newline"]
)
def test_damaged_byte_anywhere_costs_its_own_line_alone(path: Path, flip: Callable[[int, int], int]) -> None:
    aside = path.with_name("jobs.journal.bad")
    for hit, whole in enumerate(LINES):
        for at in range(len(whole)):
            damaged = bytearray(whole)
            damaged[at] = flip(damaged[at], at)
            path.write_bytes(b"".join([*LINES[:hit], damaged, *LINES[hit + 1 :]]))
            found, reports = read_back(path)
            assert (found, len(reports)) == (meaning(LINES[:hit] + LINES[hit + 1 :]), 1), (hit, at)
            assert aside.read_bytes().replace(b"\n", b"") == damaged.replace(b"\n", b""), (hit, at)
            aside.unlink()


def test_damaged_line_is_set_aside_once(path: Path) -> None:
    path.write_bytes(b"".join([*LINES[:3], b"rubbish\n", *LINES[3:]]))
    with opened(path) as (storage, _):
        assert storage.reports == [f"{path}: 1 damaged lines set aside in {path}.bad, {len(LINES)} lines read."]
    assert read_back(path) == (meaning(LINES), [])
    assert path.with_name("jobs.journal.bad").read_bytes() == b"rubbish\n"


NO_RECORDS = ([1, 2, 3], ["jobs", "1"], ["jobs", 1, {}], {"format": "other"}, 7, ["jobs", "1", [2]])


@pytest.mark.parametrize("value", NO_RECORDS, ids=repr)
def test_whole_line_that_is_no_record_is_set_aside(path: Path, value: Any) -> None:
    path.write_bytes(HEADER + line(value) + line(["jobs", "1", {}]))
    found, reports = read_back(path)
    assert (found, len(reports)) == ({"jobs": {"1": {}}}, 1)
    assert path.with_name("jobs.journal.bad").read_bytes() == line(value)


def test_files_are_private(path: Path) -> None:
    modes = []
    # A new file; then one that is folded because of the line to set aside.
    for _ in range(2):
        with opened(path):
            path.write_bytes(HEADER + b"rubbish\n")
        modes.append({each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()})
    assert modes == [{"jobs.journal": 0o600}, {"jobs.journal": 0o600, "jobs.journal.bad": 0o600}]


NEWER = line({"format": "cleariflow-journal", "version": 2}) + line(["jobs", "1", {}]) + b"torn"


@pytest.mark.parametrize(
    ("content", "message"),
    [(NEWER, r"jobs\.journal.* version 2 .*newer Cleariflow: start that one")]
    + [(content, "not a journal") for content in (b'{"_default": {}}', b"some\ntext\n", b"\n", b"\0" * 5000)],
    ids=["newer version", "tinydb", "text", "newline", "zeros"],
)
def test_file_that_is_not_ours_is_refused_and_left_as_it_is(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match=message):
        JournalStorage(path)
    assert (path.read_bytes(), list(path.parent.iterdir())) == (content, [path])


def test_file_in_use_is_refused_until_it_is_closed(path: Path) -> None:
    with opened(path) as (storage, _):
        for _ in range(2):
            with pytest.raises(StoreError, match="in use by another process"):
                JournalStorage(path)
            # The lock moves to the new file.
            storage._file.save(b"", live_lines(storage))
    JournalStorage(path).close()


def test_file_replaced_between_opening_and_locking_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow.fcntl, "flock", lambda fd, operation: path.unlink())
    with pytest.raises(StoreError, match="in use by another process"):
        JournalStorage(path)


def test_file_that_cannot_be_opened_names_the_cause(path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot open .*missing.*No such file") as caught:
        JournalStorage(path.parent / "missing" / "jobs.journal")
    assert caught.value.errno == errno.ENOENT


def test_leftover_of_an_interrupted_fold_is_removed(path: Path) -> None:
    path.write_bytes(b"".join(LINES))
    path.with_name("jobs.journal.new").write_bytes(HEADER + b"half a li")
    reports = [f"{path}: a fold had been interrupted; its unfinished file was removed."]
    assert read_back(path) == (meaning(LINES), reports)
    assert list(path.parent.iterdir()) == [path]


# ---- The writer ------------------------------------------------------------------------------------------------------


async def test_hundred_changes_cost_one_write_and_one_fsync(store: Running) -> None:
    with counted("fsync") as syncs, counted("pwrite") as writes:
        async with trio.open_nursery() as clients:
            for n in range(100):
                clients.start_soon(store.put, n)
    assert (len(store.table), len(syncs), len(writes)) == (100, 1, 1)
    store.assert_sound()


@contextmanager
def steps_taken() -> Iterator[list[str]]:
    """What is done to files, in its order."""
    taken: list[str] = []

    def call(real: Callable[..., Any], *args: Any) -> Any:
        folder = isinstance(args[0], int) and stat.S_ISDIR(os.fstat(args[0]).st_mode)
        result = real(*args)
        taken.append(f"{real.__name__} folder" if folder else real.__name__)
        return result

    with wrapped("pwrite", call), wrapped("fsync", call), wrapped("replace", call):
        yield taken


@pytest.mark.parametrize(
    ("content", "steps"),
    [
        (b"", ["pwrite", "fsync", "replace", "fsync folder"]),
        (HEADER, ["fsync"]),
        (HEADER + b"rubbish\n", ["fsync", "fsync folder", "fsync"]),
    ],
    ids=["new", "known", "damaged"],
)
def test_file_is_open_after_these_steps(path: Path, content: bytes, steps: list[str]) -> None:
    path.write_bytes(content)
    with steps_taken() as taken:
        JournalStorage(path).close()
    assert taken == steps


@pytest.mark.parametrize(
    ("fold_at", "steps"),
    [(2**40, ["pwrite", "fsync"]), (-1, ["pwrite", "pwrite", "fsync", "replace", "fsync folder"])],
    ids=["append", "fold"],
)
async def test_change_is_confirmed_after_these_steps(store: Running, fold_at: int, steps: list[str]) -> None:
    store.storage._file._fold_at = fold_at
    with steps_taken() as taken:
        await store.put(1)
        assert taken == steps


async def test_cancelled_wait_undoes_nothing(store: Running) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.put(1)
    assert scope.cancelled_caught
    await store.put(2)
    assert on_disk(store.path) == {"jobs": {"1": {"n": 1}, "2": {"n": 2}}}


async def test_cancelled_writer_writes_what_waits_and_closes(path: Path) -> None:
    async with trio.open_nursery() as nursery:
        store = await start(path, nursery)
        store.table.insert({"n": 1})
        nursery.cancel_scope.cancel()
    assert read_back(path) == ({"jobs": {"1": {"n": 1}}}, [])


async def test_writer_cancelled_in_its_thread_writes_all_the_same(path: Path) -> None:
    in_thread = trio.Event()

    def write(real: Callable[..., int], *args: Any) -> int:
        trio.from_thread.run_sync(in_thread.set)
        return real(*args)

    async with trio.open_nursery() as nursery:
        store = await start(path, nursery)
        with wrapped("pwrite", write):
            store.table.insert({"n": 1})
            await in_thread.wait()
            store.table.insert({"n": 2})
            nursery.cancel_scope.cancel()
    assert path.read_bytes() == HEADER + line(["jobs", "1", {"n": 1}]) + line(["jobs", "2", {"n": 2}])


def test_closed_store_refuses_changes_and_keeps_its_memory(path: Path) -> None:
    with opened(path) as (_, table):
        table.insert({"n": 1})
    with pytest.raises(StoreError, match="is closed"):
        table.insert({"n": 2})
    assert table.all() == [{"n": 1}]


async def test_close_writes_nothing_and_fails_those_who_wait(path: Path) -> None:
    storage = JournalStorage(path)
    store = Running(path, storage, JournalTable(storage, "jobs"))

    async def wait() -> None:
        with pytest.raises(StoreError, match="is closed"):
            await store.put(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        storage.close()
    assert path.read_bytes() == HEADER


# ---- Folding ---------------------------------------------------------------------------------------------------------

STEPS_OF_A_FOLD = ("open", "pwrite", "fsync", "replace", "unlink", "close", "ftruncate")


def fill(storage: JournalStorage) -> dict[str, Any]:
    """Put documents in two tables on disk; returns the tables."""
    for n in range(1, 10):
        JournalTable(storage, ("jobs", "other")[n % 2]).upsert(Document({"n": n}, n))
    storage._file.save(b"".join(storage._pending.values()), None)
    storage._pending.clear()
    return memory(storage)


async def test_journal_that_outgrew_its_data_is_folded(store: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "FOLD_MIN_BYTES", 2000)
    store.storage._file._fold_at, sizes = 2000, list[int]()
    with counted("replace") as folds:
        for n in range(200):
            store.table.upsert(Document({"n": n, "text": "x" * 50}, 1 + n % 3))
            await store.flush()
            sizes.append(store.path.stat().st_size)
    assert len(folds) > 1
    assert max(sizes) < 3000
    store.assert_sound()


def test_fold_is_not_due_again_after_reopening(path: Path) -> None:
    with opened(path) as (storage, table):
        table.insert_multiple({"text": "x" * 1000} for _ in range(2000))
        storage._file._fold_at = -1
    with opened(path) as (storage, _):
        assert not storage._file.must_fold(b"")
        assert storage._file.must_fold(b"x" * 5_000_000)


async def test_changes_made_during_a_fold_follow_it(store: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "FOLD_SLICE", 1)

    def write(real: Callable[..., int], *args: Any) -> int:
        if store.path.with_name("jobs.journal.new").exists():
            trio.from_thread.run_sync(lambda: store.table.update({"n": 2}, doc_ids=[1]))
            trio.from_thread.run_sync(lambda: store.table.insert({"n": 3}))
        return real(*args)

    await store.put(1)
    store.storage._file._fold_at = -1
    with wrapped("pwrite", write):
        await store.put(4)
    await store.flush()
    assert [job["n"] for job in store.table] == [2, 4, 3, 3, 3]
    store.assert_sound()


async def test_writer_folds_a_damaged_file_at_once(path: Path, nursery: trio.Nursery) -> None:
    path.write_bytes(HEADER + b"rubbish\n")
    folded = trio.Event()
    with wrapped("replace", lambda real, *args: (real(*args), trio.from_thread.run_sync(folded.set))[0]):
        await start(path, nursery)
        with trio.fail_after(30):
            await folded.wait()
    assert path.read_bytes() == HEADER


@pytest.mark.usefixtures("unsynced")
def test_kill_between_any_steps_of_a_fold_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "FOLD_SLICE", 2)
    snapshots: list[dict[str, bytes]] = []

    def look(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        snapshots.append({each.name: each.read_bytes() for each in path.parent.iterdir()})
        return result

    with opened(path) as (storage, _):
        confirmed = fill(storage)
        with ExitStack() as stack:
            for name in STEPS_OF_A_FOLD:
                stack.enter_context(wrapped(name, look))
            storage._file.save(b"", live_lines(storage))
    assert len(snapshots) > 10
    for number, files in enumerate(snapshots):
        folder = path.parent.with_name(f"snapshot-{number}")
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        assert read_back(folder / path.name)[0] == confirmed, number


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("name", STEPS_OF_A_FOLD)
def test_fault_at_any_step_of_a_fold_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(cleariflow, "FOLD_SLICE", 2)
    for step in range(12):
        path.unlink(missing_ok=True)
        with opened(path) as (storage, table):
            allowed = [fill(storage)]
            table.insert({"n": "more"})
            with failing(name, errno.EIO, step.__eq__) as calls:
                try:
                    storage._file.save(b"".join(storage._pending.values()), live_lines(storage))
                    allowed = [memory(storage)]
                except OSError:
                    # Not confirmed: with or without the last change.
                    allowed.append(memory(storage))
            assert on_disk(path) in allowed, step
            table.update({"n": "again"}, doc_ids=[2])
        assert read_back(path) == (memory(storage), []), step
        if len(calls) <= step:
            return
    raise AssertionError("a fold has more such steps")


async def test_scrub_without_room_is_tried_again(store: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "SCRUB_S", 0.05)
    await store.put(1)
    store.table.update({"n": 2}, doc_ids=[1])
    inode = store.path.stat().st_ino
    with failing("open", errno.ENOSPC):
        store.storage.scrub()
        await trio.sleep(0.1)
        await store.flush()
        assert store.path.stat().st_ino == inode
    await trio.sleep(0.2)
    assert store.path.stat().st_ino != inode


async def test_scrub_on_a_disk_that_refuses_is_no_busy_loop(store: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "SCRUB_S", 0.0)
    with failing("open", errno.ENOSPC) as folds, failing("pwrite", errno.ENOSPC) as writes:
        store.storage.scrub()
        await store.put_in_vain(1, errno.ENOSPC)
        await trio.sleep(0.3)
        assert len(folds) + len(writes) <= 4
    await store.flush()
    store.assert_sound()


async def test_faults_of_the_disk_are_reported_once(store: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "STORE_RETRY_S", 0.02)
    with failing("pwrite", errno.EIO) as tries:
        await store.put_in_vain(1, errno.EIO)
        await trio.sleep(0.3)
        assert len(tries) > 2
    await store.flush()
    said = store.storage.reports
    assert [report.partition(":")[0] for report in said] == [
        "the store cannot be written",
        "the store can be written again",
    ]


async def test_fold_without_room_is_put_off_and_appending_goes_on(store: Running) -> None:
    inode = store.path.stat().st_ino
    store.storage._file._fold_at = -1
    with failing("open", errno.ENOSPC):
        await store.put(1)
    store.assert_sound()
    assert store.path.stat().st_ino == inode
    assert "could not be folded" in store.storage.reports[0]
    assert not store.storage._file.must_fold(b"")


async def test_former_lines_of_a_killed_process_are_folded_away(
    path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    # They may hold secrets.
    monkeypatch.setattr(cleariflow, "SCRUB_S", 0.0)
    path.write_bytes(HEADER + line(["jobs", "1", {"n": "secret"}]) + line(["jobs", "1", {"n": 2}]))
    folded = trio.Event()
    with wrapped("replace", lambda real, *args: (real(*args), trio.from_thread.run_sync(folded.set))[0]):
        await start(path, nursery)
        with trio.fail_after(30):
            await folded.wait()
    assert path.read_bytes() == HEADER + line(["jobs", "1", {"n": 2}])


# ---- Faults of the disk ----------------------------------------------------------------------------------------------


async def test_full_disk_fails_all_who_wait_and_leaves_the_file_as_it_was(store: Running) -> None:
    with failing("pwrite", errno.ENOSPC):
        async with trio.open_nursery() as clients:
            for n in range(3):
                clients.start_soon(store.put_in_vain, n, errno.ENOSPC)
    assert store.path.read_bytes() == HEADER
    assert (store.storage.fault.errno, len(store.table)) == (errno.ENOSPC, 3)


async def test_failed_write_is_tried_again_after_a_second(store: Running, autojump_clock: MockClock) -> None:
    # No timeouts of our own here: to this clock a busy thread is no reason to wait.
    store.table.insert({"n": 1})
    with failing("pwrite", errno.ENOSPC), pytest.raises(StoreError):
        await store.storage.flushed()
    failed_at = trio.current_time()
    await store.storage.flushed()
    assert trio.current_time() - failed_at == 1
    store.assert_sound()


async def test_change_after_a_fault_is_tried_at_once(store: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleariflow, "STORE_RETRY_S", 1000)
    with failing("pwrite", errno.EIO):
        await store.put_in_vain(1, errno.EIO)
    await store.put(2)
    store.assert_sound()


async def test_write_that_stops_half_way_is_cut_off_and_made_good(store: Running) -> None:
    limits, size = resource.getrlimit(resource.RLIMIT_FSIZE), store.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, limits[1]))
    try:
        await store.put_in_vain(1, errno.EFBIG)
        assert store.path.stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await store.put(2)
    store.assert_sound()


async def test_half_line_that_could_not_be_cut_off_is_cut_off_later(store: Running) -> None:
    def write(real: Callable[..., int], fd: int, data: Any, offset: int) -> int:
        if len(data) > 10:
            return real(fd, data[:10], offset)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with wrapped("pwrite", write), failing("ftruncate", errno.EIO, lambda call: call > 0):
        await store.put_in_vain(1, errno.EIO)
    assert store.path.stat().st_size > len(HEADER)
    await store.put(2)
    assert store.path.read_bytes() == HEADER + line(["jobs", "1", {"n": 1}]) + line(["jobs", "2", {"n": 2}])


async def test_failed_fsync_leads_to_a_new_file(store: Running) -> None:
    inode = store.path.stat().st_ino
    # Of the old file, then of the first new one.
    with failing("fsync", errno.EIO, lambda call: call < 2):
        for n in range(2):
            await store.put_in_vain(n, errno.EIO)
            assert (store.path.read_bytes(), store.path.stat().st_ino) == (HEADER, inode)
        await store.put(3)
    assert store.path.stat().st_ino != inode
    store.assert_sound()


async def test_failed_fsync_of_the_folder_confirms_nothing_until_folded_again(store: Running) -> None:
    store.storage._file._fold_at = -1
    # The second is of the first fold's folder.
    with counted("replace") as folds, failing("fsync", errno.EIO, lambda call: call == 1):
        await store.put_in_vain(1, errno.EIO)
        await store.put(2)
    assert len(folds) == 2
    store.assert_sound()


async def test_last_write_that_fails_closes_the_file_and_confirms_nothing(path: Path) -> None:
    with failing("pwrite", errno.ENOSPC, lambda call: call > 0):
        async with trio.open_nursery() as nursery:
            store = await start(path, nursery)
            store.table.insert({"n": 1})
            nursery.cancel_scope.cancel()
    with pytest.raises(StoreError, match="is closed"):
        await store.flush()
    assert store.storage.fault is not None
    assert read_back(path) == ({}, [])


# ---- The real thing --------------------------------------------------------------------------------------------------

CHILD = """
import sys
import trio
from tinydb.table import Document
import cleariflow

cleariflow.FOLD_MIN_BYTES = 3000

async def main():
    storage = cleariflow.JournalStorage(sys.argv[1])
    table = cleariflow.JournalTable(storage, "jobs")

    async def client(first):
        for n in range(first, 10**6, 5):
            table.upsert(Document({"n": n}, n))
            if n > 100:
                table.update({"old": True}, doc_ids=[n - 100])
            await storage.flushed()
            print(n, flush=True)

    async with trio.open_nursery() as nursery:
        await nursery.start(storage.run)
        for first in range(5):
            nursery.start_soon(client, first)

trio.run(main)
"""


@pytest.mark.parametrize("confirmations", [1, 17, 120, 401, 900])
def test_killed_process_has_every_confirmed_change_on_disk(path: Path, confirmations: int) -> None:
    root = Path(inspect.getfile(JournalStorage)).parent
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, cwd=root)
    assert child.stdout is not None
    with child:
        confirmed = [int(child.stdout.readline()) for _ in range(confirmations)]
        child.send_signal(signal.SIGKILL)
        confirmed += [int(each) for each in child.stdout.read().splitlines(keepends=True) if each.endswith(b"\n")]
    found, reports = read_back(path)
    jobs = found["jobs"]
    assert not [each for each in reports if "damaged" in each]
    assert [n for n in confirmed if jobs.get(str(n), {}).get("n") != n] == []
    assert [n for n in confirmed if n > 100 and "old" not in jobs[str(n - 100)]] == []


def test_what_waits_is_the_newest_line_of_each_document(path: Path) -> None:
    # While the disk refuses, refused jobs come and go: 3.7 GB of their lines were seen.
    with opened(path) as (storage, table):
        for number in range(1, 101):
            table.upsert(Document({"n": number}, 1))
            table.upsert(Document({"n": number}, 2))
        assert len(storage._pending) == 2
