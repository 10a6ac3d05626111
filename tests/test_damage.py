"""Damaged files, through the store: right answers or a clear error, never a crash, and never silently wrong."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import damaged
import lmdb
import numpy as np
import pytest
from damaged import first_wrong, outcome

import simstore
from simstore import Store
from simstore.errors import CorruptStoreError, SimstoreError
from simstore.store import maintenance

Items = dict[Any, Any]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Items]:
    """A closed store and what it holds; tests damage copies of it."""
    path = tmp_path_factory.mktemp("template") / "store.sim"
    items = damaged.fill(path)
    return path, items


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Segment files of other stores, by what is different about them."""
    directory = tmp_path_factory.mktemp("others")
    damaged.fill(directory / "vectors.sim", seed=2)
    damaged.fill(directory / "dim.sim", dim=24)
    damaged.fill(directory / "n.sim", n=damaged.N - 10)
    return {name: segment_of(directory / f"{name}.sim") for name in ("vectors", "dim", "n")}


@pytest.fixture
def copied(template: tuple[Path, Items], tmp_path: Path) -> tuple[Path, Items]:
    path = tmp_path / "store.sim"
    shutil.copytree(template[0], path)
    return path, template[1]


def segment_of(path: Path) -> Path:
    (file,) = (path / "segments").iterdir()
    return file


# -- segment files ------------------------------------------------------------------------------------------------------

LEVEL0 = 96 + 5 * (4 + 8 * 16 + 4 * damaged.DIM + 8)  # the sixth node


def flipped(at: int, bit: int = 3) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        bad = bytearray(content)
        bad[at] ^= 1 << bit
        return bytes(bad)

    return flip


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "cut to the header": lambda content: content[:96],
    "cut in half": lambda content: content[: len(content) // 2],
    "cut at a block": lambda content: content[: 1 << 16],
    "last byte missing": lambda content: content[:-1],
    "a byte more": lambda content: content + b"\0",
    "a page more": lambda content: content + bytes(4096),
    "zeros": lambda content: bytes(len(content)),
    "ones": lambda content: b"\xff" * len(content),
    "garbage": lambda content: np.random.default_rng(1).bytes(len(content)),
    "garbage after the header": lambda content: content[:96] + np.random.default_rng(1).bytes(len(content) - 96),
    "text": lambda content: b"no graph at all\n",
    "a page of zeros": lambda content: content[:8192] + bytes(4096) + content[12288:],
    "shifted by a byte": lambda content: content[1:] + b"\0",
    "flip in the first byte": flipped(0),
    "flip in the count": flipped(16),
    "flip in the level": flipped(48),
    "flip in the entry": flipped(52),
    "flip in M": flipped(72),
    "flip in a link count": flipped(LEVEL0, 0),
    "flip in a link": flipped(LEVEL0 + 5),
    "flip in a vector": flipped(LEVEL0 + 4 + 8 * 16 + 5),
    "flip in a row": flipped(LEVEL0 + 4 + 8 * 16 + 4 * damaged.DIM),
    "flip in the second block": flipped((1 << 16) + 999),
    "flip in the third block": flipped((2 << 16) + 999),
    "flip in the last byte": flipped(-1),
    "flip in the upper levels": flipped(-3000),
}
OTHERS = ("vectors", "dim", "n")
DAMAGES = ("deleted", "a directory", "a dangling link", *CONTENTS, *(f"another's: {name}" for name in OTHERS))


def some_by_default(names: tuple[str, ...]) -> list[Any]:
    """Every third, and the others as slow tests."""
    return [name if i % 3 == 0 else pytest.param(name, marks=pytest.mark.slow) for i, name in enumerate(names)]


def damage(path: Path, how: str, others: dict[str, Path]) -> None:
    """Damages the segment file, by a file that takes its place: what is mapped of the old one stays."""
    file = segment_of(path)
    aside = path / "aside"
    if how in CONTENTS:
        aside.write_bytes(CONTENTS[how](file.read_bytes()))
    elif how.startswith("another's"):
        shutil.copy(others[how.split(": ")[1]], aside)
    else:
        file.unlink()
        if how == "a directory":
            file.mkdir()
        elif how == "a dangling link":
            file.symlink_to(path / "nowhere")
        return
    os.replace(aside, file)


def open_copy(path: Path, **options: Any) -> Store:
    options.setdefault("background", False)
    return simstore.open(path, **options)


def lists_the_segment(store: Store) -> bool:
    return any(problem.where.startswith("segment ") and problem.remedy for problem in store.check(deep=True))


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_before_opening(how: str, copied: tuple[Path, Items], others: dict[str, Path]) -> None:
    path, items = copied
    damage(path, how, others)
    with open_copy(path, mode="r") as store:
        assert lists_the_segment(store)
        assert first_wrong(store, items) is None
        assert lists_the_segment(store)
    with open_copy(path) as store:
        assert first_wrong(store, items) is None
        assert lists_the_segment(store)
        store.optimize()
        assert store.check(deep=True) == []
        assert first_wrong(store, items) is None
    with open_copy(path, mode="r") as store:
        assert store.check(deep=True) == []
        assert store.info().n_segments == 1
        assert first_wrong(store, items) is None


@pytest.mark.parametrize("how", some_by_default(DAMAGES))
def test_optimize_right_after_opening_rebuilds(how: str, copied: tuple[Path, Items], others: dict[str, Path]) -> None:
    """What no search has met yet is found, too."""
    path, items = copied
    damage(path, how, others)
    with open_copy(path) as store:
        store.optimize()
        assert store.check(deep=True) == []
        assert first_wrong(store, items) is None


@pytest.mark.parametrize(
    "how",
    ["deleted", "cut in half", "flip in a link", "flip in the third block", "garbage", "another's: vectors", "another's: dim"],
)
def test_optimize_rebuilds_a_damaged_segment_that_is_all_there_is(how: str, tmp_path: Path, others: dict[str, Path]) -> None:
    """No tail and no dead rows: there is nothing else to be done."""
    path = tmp_path / "store.sim"
    vectors = np.random.default_rng(1).standard_normal((1500, damaged.DIM)).astype(np.float32)
    with open_copy(path, metric="l2") as store:
        store.add([damaged.key_of(i) for i in range(1500)], vectors)
        store.optimize()
    damage(path, how, others)
    with open_copy(path) as store:
        store.optimize()
        assert store.check(deep=True) == []
        keys = np.array([damaged.key_of(i) for i in range(1500)], object)
        assert (store.search_many(vectors, 1, exact=True).keys[:, 0] == keys).all()
        assert (
            store.search_many(vectors, 1).keys[:, 0] == keys
        ).mean() > 0.99  # two threads build it: no graph is like another


@pytest.mark.parametrize("how", some_by_default(DAMAGES))
def test_damaged_while_open(how: str, copied: tuple[Path, Items], others: dict[str, Path]) -> None:
    path, items = copied
    with open_copy(path) as store:
        assert first_wrong(store, items, searches_only=True) is None
        damage(path, how, others)
        assert first_wrong(store, items) is None
        assert lists_the_segment(store)
        assert first_wrong(store, items) is None
        store.upsert(["new"], np.ones((1, damaged.DIM), np.float32))
        assert store.search(np.ones(damaged.DIM), 1).keys == ["new"]
        store.delete("new")
    with open_copy(path) as store:
        assert first_wrong(store, items) is None
        store.optimize()
        assert store.check(deep=True) == []
        assert first_wrong(store, items) is None


@pytest.mark.parametrize("how", ["deleted", "cut in half", "flip in a link", "garbage", "another's: vectors"])
def test_optimize_of_an_open_store_replaces_what_check_lists(
    how: str, copied: tuple[Path, Items], others: dict[str, Path]
) -> None:
    path, items = copied
    with open_copy(path) as store:
        store.optimize()  # nothing else is left to do
        damage(path, how, others)
        assert lists_the_segment(store)
        store.optimize()
        assert store.check(deep=True) == []
        assert first_wrong(store, items) is None


@pytest.mark.parametrize(
    "how", ["deleted", "cut in half", "zeros", "garbage", "flip in a link", "flip in the entry", "another's: dim"]
)
@pytest.mark.parametrize("when", ["before", "while open"])
def test_rebuilt_in_the_background(when: str, how: str, copied: tuple[Path, Items], others: dict[str, Path]) -> None:
    path, items = copied
    if when == "before":
        damage(path, how, others)
    with open_copy(path, background=True) as store:
        if when == "while open":
            damage(path, how, others)
        assert first_wrong(store, items) is None
        deadline = time.monotonic() + 20
        if when == "before":  # else what is mapped is sound, and goes on answering
            while store.check(deep=True) != [] and time.monotonic() < deadline:
                assert first_wrong(store, items, searches_only=True) is None
            assert store.check(deep=True) == []
        assert first_wrong(store, items) is None
    with open_copy(path) as store:
        store.optimize()
        assert store.check(deep=True) == []
        assert first_wrong(store, items) is None


def test_flips_in_a_mapped_file_that_nobody_has_read_yet(copied: tuple[Path, Items]) -> None:
    path, items = copied
    with open_copy(path) as store:
        store.info()  # the segment is open
        with open(segment_of(path), "rb+") as file:
            size = os.path.getsize(segment_of(path))
            for at in range(1 << 16, size - (1 << 16), 997):
                file.seek(at)
                file.write(b"\xa5")
        assert first_wrong(store, items) is None
        assert lists_the_segment(store)
        store.optimize()
        assert store.check(deep=True) == []
        assert first_wrong(store, items) is None


def test_noise_in_a_mapped_file_that_has_been_verified(copied: tuple[Path, Items]) -> None:
    """What is verified once is trusted: answers may be wrong then, but nothing crashes, and reopening finds it."""
    path, items = copied
    with open_copy(path) as store:
        assert first_wrong(store, items) is None
        file = segment_of(path)
        with open(file, "rb+") as opened:
            opened.seek(96)
            opened.write(np.random.default_rng(1).bytes(file.stat().st_size - 96))
        for query in damaged.queries_of(items):
            for exact in (False, True):
                try:
                    store.search(query, 10, exact=exact)
                except SimstoreError:
                    continue
        assert lists_the_segment(store)
    with open_copy(path) as store:
        assert first_wrong(store, items) is None


def test_random_flips_in_the_segment_file(template: tuple[Path, Items], tmp_path: Path) -> None:
    run_segment_flips(template, tmp_path, range(15))


@pytest.mark.slow
def test_many_random_flips_in_the_segment_file(template: tuple[Path, Items], tmp_path: Path) -> None:
    run_segment_flips(template, tmp_path, range(15, 215))


def run_segment_flips(template: tuple[Path, Items], tmp_path: Path, seeds: range) -> None:
    for seed in seeds:
        rng = np.random.default_rng(seed)
        path = tmp_path / f"{seed}.sim"
        shutil.copytree(template[0], path)
        file = segment_of(path)
        content = bytearray(file.read_bytes())
        for at in rng.integers(len(content), size=int(rng.integers(1, 4))).tolist():
            content[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        with open_copy(path) as store:
            assert first_wrong(store, template[1], searches_only=True) is None, seed
            assert lists_the_segment(store), seed
            store.optimize()
            assert store.check(deep=True) == [], seed
            assert first_wrong(store, template[1]) is None, seed
        shutil.rmtree(path)


# -- data.mdb: values ---------------------------------------------------------------------------------------------------

TABLES = (None, "vectors", "items", "tombstones", "log", "segments")


def values_of(path: Path, table: str | None) -> list[tuple[bytes, bytes]]:
    """Keys and values of a table; with None the schema and the state."""
    environment = lmdb.open(str(path), readonly=True, lock=False, max_dbs=16)
    try:
        handle = environment.open_db(None if table is None else table.encode(), create=False)
        with environment.begin() as txn, txn.cursor(db=handle) as cursor:
            own = [(bytes(key), bytes(value)) for key, value in cursor]
        return own if table is not None else [entry for entry in own if entry[0] in (b"schema", b"state")]
    finally:
        environment.close()


def flip_in_value(path: Path, value: bytes, at: int, bit: int) -> None:
    """Flips a bit of a value, wherever its bytes stand in the file: pages that are no longer used keep copies."""
    content = bytearray((path / "data.mdb").read_bytes())
    place, n = content.find(value), 0
    while place >= 0:
        content[place + at] ^= 1 << bit
        n += 1
        place = content.find(value, place + 1)
    assert n >= 1
    (path / "data.mdb").write_bytes(content)


@pytest.fixture
def another_copy(template: tuple[Path, Items], tmp_path: Path) -> Callable[[], Path]:
    def make() -> Path:
        path = tmp_path / "copy.sim"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(template[0], path)
        return path

    return make


def places_in(value: bytes) -> list[int]:
    """The checksum's ends, the body's, and its middle."""
    return sorted({0, 7, 8, 8 + (len(value) - 8) // 2, len(value) - 1})


@pytest.mark.parametrize("table", TABLES)
def test_flips_in_values(table: str | None, template: tuple[Path, Items], another_copy: Callable[[], Path]) -> None:
    values = values_of(template[0], table)
    if table == "items":  # nobody reads a dead one
        dead = {key for key, _ in values_of(template[0], "tombstones")}
        values = [entry for entry in values if entry[0] not in dead]
    if len(values) > 4:
        values = [values[i] for i in (0, len(values) // 3, len(values) - 1)]
    for key, value in values:
        for at in places_in(value):
            path = another_copy()
            flip_in_value(path, value, at, bit=at % 8)
            kind, what = outcome(path, template[1])
            assert kind in ("raised", "listed"), (table, key, at, kind, what)


def test_a_damaged_item(template: tuple[Path, Items], another_copy: Callable[[], Path]) -> None:
    path, items = another_copy(), template[1]
    value = values_of(path, "items")[777][1]
    flip_in_value(path, value, 20, 0)
    key = damaged.key_of(777)
    with open_copy(path) as store:
        with pytest.raises(CorruptStoreError, match="item in row 777 is damaged"):
            store.get(key)
        with pytest.raises(CorruptStoreError, match="item in row 777 is damaged"):
            store.search(items[key][0], 1)
        with pytest.raises(CorruptStoreError, match="item in row 777 is damaged"):
            list(store.scan())
        assert [(problem.where, f"key {key!r}" in problem.what) for problem in store.check(deep=True)] == [("items", True)]
        other = damaged.key_of(850)
        assert store.get(other).data == items[other][2]
        store.delete(key)  # what its message advises
        assert store.check(deep=True) == []
        assert store.search(items[key][0], 1).keys != [key]


@pytest.mark.parametrize("row", [777, damaged.N + 20], ids=["in a segment", "in the tail"])
def test_a_damaged_vector(row: int, template: tuple[Path, Items], another_copy: Callable[[], Path]) -> None:
    path, items = another_copy(), template[1]
    key = damaged.key_of(row if row < damaged.N else 300 + row - damaged.N)
    flip_in_value(path, items[key][0].tobytes(), 13, 2)
    with open_copy(path) as store:
        with pytest.raises(CorruptStoreError, match=f"vector of key .* .row {row}. is missing or damaged"):
            store.get(key)
        assert [f"vector of key {key!r} (row {row}) is" in problem.what for problem in store.check(deep=True)][:1] == [True]
        if row < damaged.N:
            assert first_wrong(store, items, searches_only=True) is None  # the graph has its own
        else:
            with pytest.raises(CorruptStoreError, match=f"vector of key .* .row {row}. is missing or damaged"):
                store.search(items[key][0], 1)
        vector, label, data = items[key]
        store.upsert([key], vector[None], labels=[label], data=[data])  # what its message advises
        assert first_wrong(store, items) is None
        assert store.check(deep=True) == []


def test_a_damaged_tombstone(template: tuple[Path, Items], another_copy: Callable[[], Path]) -> None:
    key, value = values_of(template[0], "tombstones")[30]
    entry = key + value
    for at in (3, 10, 20):  # its row, its checksum, its seq
        path = another_copy()
        flip_in_value(path, entry, at, 0)
        store = open_copy(path)
        assert any(problem.where in ("tombstones", "data.mdb") for problem in store.check(deep=True)), at
        with contextlib.suppress(CorruptStoreError):  # a row that does not exist is refused wherever it is met
            store.close()


def test_a_damaged_state_and_schema(template: tuple[Path, Items], another_copy: Callable[[], Path]) -> None:
    values = dict(values_of(template[0], None))
    path = another_copy()
    flip_in_value(path, values[b"schema"], 30, 1)
    for mode in ("a", "r"):
        with pytest.raises(CorruptStoreError, match="schema is damaged"):
            open_copy(path, mode=mode)
    path = another_copy()
    flip_in_value(path, values[b"state"], 20, 1)
    store = open_copy(path)
    assert any("state is damaged" in problem.what for problem in store.check(deep=True))
    with pytest.raises(CorruptStoreError, match="state is damaged"):
        store.add(["x"], np.ones((1, damaged.DIM)))
    with pytest.raises(CorruptStoreError, match="state is damaged"):
        store.search(np.ones(damaged.DIM))
    with pytest.raises(CorruptStoreError, match="state is damaged"):
        store.close()
    assert "(closed)" in repr(store)


def test_a_damaged_segment_record(template: tuple[Path, Items], another_copy: Callable[[], Path]) -> None:
    path = another_copy()
    ((_, value),) = values_of(path, "segments")
    flip_in_value(path, value, 100, 1)
    kind, what = outcome(path, template[1])
    assert kind == "listed" and "record of the segment from row 0" in what  # and every answer right
    with open_copy(path) as store:
        store.optimize()
        assert store.check(deep=True) == [] and store.info().n_segments == 1
        assert first_wrong(store, template[1]) is None


def test_a_damaged_log_entry(template: tuple[Path, Items], another_copy: Callable[[], Path]) -> None:
    path = another_copy()
    flip_in_value(path, values_of(path, "log")[-1][1], 12, 1)
    with open_copy(path, mode="r") as store:
        assert any(problem.where in ("log", "state") and "log entry" in problem.what for problem in store.check(deep=True))
        assert first_wrong(store, template[1]) is None


@pytest.mark.parametrize("table", ["keys", "labels"])
def test_flips_in_postings(table: str, template: tuple[Path, Items], another_copy: Callable[[], Path]) -> None:
    """They carry no checksum: items say what they should be."""
    entries = values_of(template[0], table)
    names = [key for key, _ in entries]
    seen = 0
    for i in range(3, len(entries) - 1, len(entries) // 6):
        key, row = entries[i]
        if table == "keys":  # one row: it stands right behind the key
            value, places = key + row, [0, len(key) // 2, len(key) - 1, len(key), len(key) + 7]
            if names.count(key) > 1:
                continue
        else:  # many rows: one stands right behind the other
            value, places = row + entries[i + 1][1], [0, 6, 7]
            if names[i + 1] != key:
                continue
        for at in places:
            path = another_copy()
            flip_in_value(path, value, at, 0)
            kind, what = outcome(path, template[1])
            assert kind in ("raised", "listed"), (key, row, at, kind, what)
            seen += 1
    assert seen >= 9


def test_flips_in_the_names_of_labels(template: tuple[Path, Items], another_copy: Callable[[], Path]) -> None:
    for name in sorted({key for key, _ in values_of(template[0], "labels")} - {b"n"}):
        for at in (0, 1, len(name) - 1):
            for bit in (0, 7):  # bit 7: no UTF-8 any more
                path = another_copy()
                flip_in_value(path, len(name).to_bytes(2, "little") + name, 2 + at, bit)
                kind, what = outcome(path, template[1])
                assert kind in ("raised", "listed"), (name, at, kind, what)


# -- data.mdb: anywhere -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "emptied", "cut in half", "cut at a page", "zeros", "text", "first page zeroed"])
@pytest.mark.parametrize("mode", ["a", "r"])
def test_a_database_that_is_no_more(mode: str, how: str, copied: tuple[Path, Items]) -> None:
    path, _ = copied
    file = path / "data.mdb"
    content = file.read_bytes()
    bad = {
        "deleted": None, "emptied": b"", "cut in half": content[: len(content) // 2], "cut at a page": content[: -10 * 4096],
        "zeros": bytes(len(content)), "text": b"hello " * 10_000, "first page zeroed": bytes(4096) + content[4096:],
    }[how]  # fmt: skip
    file.unlink() if bad is None else file.write_bytes(bad)
    before = {entry.name for entry in path.iterdir()}
    with pytest.raises(CorruptStoreError, match=r"data\.mdb"):
        open_copy(path, mode=mode)
    assert {entry.name for entry in path.iterdir()} - {"lock.mdb"} == before - {"lock.mdb"}
    assert bad is None or file.read_bytes() == bad


def run_flips(tmp_path: Path, first: int, stop: int) -> list[tuple[int, str, str, str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, damaged.__file__, tmp_path / "template.sim", tmp_path, str(first), str(stop)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(results) == stop - first
    return results  # type: ignore[return-value]


def bad_ones(results: list[tuple[int, str, str, str]]) -> list[tuple[int, str, str, str]]:
    return [result for result in results if result[1] not in ("right", "raised", "listed")]


def test_random_flips_in_the_database(tmp_path: Path) -> None:
    results = run_flips(tmp_path, 0, 30)
    assert bad_ones(results) == []
    assert {"right", "raised"} <= {kind for _, kind, _, _ in results}


@pytest.mark.slow
def test_many_random_flips_in_the_database(tmp_path: Path) -> None:
    assert bad_ones(run_flips(tmp_path, 1000, 2000)) == []


@pytest.mark.parametrize("which", [0, 1, 2])
def test_damaged_records_among_other_segments(which: int, tmp_path: Path) -> None:
    path, vectors = tmp_path / "s.sim", np.random.default_rng(4).normal(size=(1900, 4)).astype(np.float32)
    with mock.patch.multiple(maintenance, FOLD_BYTES=1, FOLD_ROWS=8), open_copy(path, metric="l2") as store:
        for first, stop in ((0, 1500), (1500, 1800), (1800, 1860)):  # each less than a quarter: nothing is merged
            store.add(range(first, stop), vectors[first:stop])
            store._core.maintenance.run()
        store.add(range(1860, 1900), vectors[1860:])
        n = store.info().n_segments
        store._finalizer()  # no folding now
    flip_in_value(path, values_of(path, "segments")[which][1], 60, 3)
    with mock.patch.multiple(maintenance, FOLD_BYTES=1, FOLD_ROWS=8), open_copy(path) as store:
        assert (store.search_many(vectors, 1, exact=True).keys[:, 0] == np.arange(1900)).all()
        assert [problem.where.split()[0] for problem in store.check(deep=True)] == ["segment"]
        store._core.maintenance.run()
        assert store.check(deep=True) == [] and n == 3
        assert (store.search_many(vectors, 1, exact=True).keys[:, 0] == np.arange(1900)).all()
        assert (store.search_many(vectors, 1).keys[:, 0] == np.arange(1900)).mean() > 0.99


def test_a_key_that_leads_to_another_item(tmp_path: Path) -> None:
    path = tmp_path / "s.sim"
    with open_copy(path, metric="l2") as store:
        store.add(["a", "b"], np.eye(2), data=["of a", "of b"])
    ((key, row), _) = values_of(path, "keys")
    flip_in_value(path, key + row, len(key) + 7, 0)  # row 0 becomes row 1
    with open_copy(path) as store:
        calls: list[Callable[[], object]] = [
            lambda: store.get("a"), lambda: "a" in store, lambda: store.delete("a"), lambda: store.upsert("a", [1.0, 2.0]),
            lambda: store.update("a", data=1), lambda: store.delete(["a"], missing="ignore"),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(CorruptStoreError, match="key 'a' leads to the item of 'b'"):
                call()
        assert store.get("b").data == "of b" and len(store) == 2
        assert [problem.where for problem in store.check(deep=True)] == ["keys", "keys"]


def test_a_database_without_its_state(template: tuple[Path, Items], another_copy: Callable[[], Path]) -> None:
    path = another_copy()
    environment = lmdb.open(str(path), max_dbs=16)
    with environment.begin(write=True) as txn:
        assert txn.delete(b"state")
    environment.close()
    with open_copy(path) as store:
        for call in (
            lambda: len(store),
            lambda: store.search(np.ones(damaged.DIM)),
            lambda: store.add("x", np.ones(damaged.DIM)),
        ):
            with pytest.raises(CorruptStoreError, match="state is missing"):
                call()
        store._finalizer()


@pytest.mark.parametrize("is_trusted", [False, True])
def test_a_segment_cut_off_while_it_is_mapped(is_trusted: bool, copied: tuple[Path, Items]) -> None:
    path, items = copied
    (file,) = (path / "segments").iterdir()
    with open_copy(path) as store:
        assert first_wrong(store, items, searches_only=True) is None
        if is_trusted:
            view = store._core.views.newest
            assert view is not None
            view.segments[0].verify()
        os.truncate(file, file.stat().st_size // 2)
        time.sleep(0.01)
        assert first_wrong(store, items) is None
        assert lists_the_segment(store)
        store.optimize()
        assert store.check(deep=True) == [] and first_wrong(store, items) is None
