"""repair(): each kind of damage is found, is mended or put in quarantine, and everything else is there with the right answers."""

import ast
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ailing
import damaged
import lmdb
import msgpack
import numpy as np
import pytest
from ailing import Past, change, copy_of, entries, flip, garble, open_at, rekey, row_key, wrong_with
from numpy.typing import NDArray

from simstore import Repaired, Store, field
from simstore.errors import CorruptStoreError, ReadOnlyStoreError, SimstoreError, StorageFullError
from simstore.storage import LocalFiles, steps
from simstore.storage.encoding import encode_key
from simstore.storage.schema import Epoch
from simstore.store.entry import open_through

IN_SEGMENT, IN_TAIL, ALONE = 300, 435, 469  # rows that are alive
SEEN, UNSEEN = 110, 455  # dead rows: monday sees the one, nobody the other
RECORD = 4 * ailing.DIM + 8


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Past]:
    path = tmp_path_factory.mktemp("template") / "store.sim"
    return path, ailing.fill(path)


@pytest.fixture
def copied(template: tuple[Path, Past], tmp_path: Path) -> tuple[Path, Past]:
    return copy_of(template[0], tmp_path / "store.sim"), template[1]


def key_at(past: Past, row: int) -> Any:
    return next(key for key, at in past.rows.items() if at == row)


def found_by(store: Store) -> set[str]:
    return {problem.where for problem in store.check(deep=True)}


def repaired(path: Path) -> Repaired:
    """Repairs a store; afterwards the check finds what repair says, and a second repair has nothing to do."""
    with open_at(path) as store:
        done = store.repair()
        assert store.check(deep=True) == done.unrepaired
        again = store.repair()
        assert (again.rebuilt, again.quarantined, again.quarantine) == ([], [], None)
        assert again.unrepaired == done.unrepaired
    return done


def quarantined(done: Repaired) -> list[dict[str, Any]]:
    assert done.quarantine is not None and done.quarantine.parent.name == "quarantine"
    content: dict[str, Any] = msgpack.unpackb(done.quarantine.read_bytes())
    assert content["quarantine"] == 1 and content["store"] and content["metric"] == "l2"
    return content["items"]  # type: ignore[no-any-return]


# -- what can be mended ------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    damage: Callable[[Path], object]
    found: set[str]
    rebuilt: set[str]


def posting(table: str, at: int) -> Callable[[Path], tuple[bytes, bytes]]:
    return lambda path: entries(path, table)[at]


def vector_flip(run: int, at: int) -> Callable[[Path], object]:
    return lambda path: change(path, "vectors", entries(path, "vectors")[run][0], flip(at))


def posting_moved(table: str, at: int, how: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        key, value = entries(path, table)[at]
        change(path, table, key, how, value)

    return damage


def posting_lost(table: str, at: int) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        key, value = entries(path, table)[at]
        change(path, table, key, None, value)

    return damage


def table_lost(table: str) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        with ailing.editing(path) as (txn, tables):
            txn.drop(tables(table), delete=False)

    return damage


def added(table: str, key: bytes, value: bytes) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        with ailing.editing(path) as (txn, tables):
            txn.put(key, value, db=tables(table))

    return damage


def segment_file(how: Callable[[bytes], bytes] | None) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        (file,) = (path / "segments").iterdir()
        content = file.read_bytes()
        file.unlink()
        if how is not None:
            file.write_bytes(how(content))

    return damage


MENDED = {
    "a bit of an item": Case(lambda p: change(p, "items", row_key(IN_SEGMENT), flip(25)), {"items"}, {"items"}),
    "a bit of an item's checksum": Case(lambda p: change(p, "items", row_key(IN_TAIL), flip(3)), {"items"}, {"items"}),
    "a bit of an item that carries its vector": Case(
        lambda p: change(p, "items", row_key(ALONE), flip(60)), {"items", "vectors"}, {"items"}
    ),
    "a bit of an item that only a snapshot sees": Case(
        lambda p: change(p, "items", row_key(SEEN), flip(25)), {"items"}, {"items"}
    ),
    "a bit of an item's row": Case(
        lambda p: rekey(p, "items", row_key(ALONE), row_key(ALONE + 512)), {"items", "vectors"}, {"items"}
    ),
    "a bit of the row of an item beside purged ones": Case(
        lambda p: rekey(p, "items", row_key(60), row_key(56)), {"items"}, {"items"}
    ),
    "a bit of a vector": Case(vector_flip(1, 100 * RECORD + 5), {"vectors"}, {"vectors"}),
    "a bit of a vector's checksum": Case(vector_flip(2, 10 * RECORD - 3), {"vectors"}, {"vectors"}),
    "a bit of a vector that only a snapshot sees": Case(vector_flip(1, (SEEN - 60) * RECORD + 5), {"vectors"}, {"vectors"}),
    "a bit of a run's row": Case(lambda p: rekey(p, "vectors", row_key(430), row_key(431)), {"vectors"}, {"vectors"}),
    "a bit of a tombstone": Case(lambda p: change(p, "tombstones", row_key(SEEN), flip(10)), {"tombstones"}, {"tombstones"}),
    "a bit of a tombstone's row": Case(
        lambda p: rekey(p, "tombstones", row_key(129), row_key(131)), {"tombstones"}, {"tombstones"}
    ),
    "a tombstone": Case(lambda p: change(p, "tombstones", row_key(UNSEEN), garble), {"tombstones"}, {"tombstones"}),
    "a lost tombstone": Case(
        lambda p: change(p, "tombstones", row_key(SEEN), None), {"tombstones", "state", "snapshots"}, {"tombstones"}
    ),
    "lost tombstones": Case(table_lost("tombstones"), {"tombstones", "state", "snapshots"}, {"tombstones"}),
    "a tombstone of no row": Case(
        lambda p: rekey(p, "tombstones", row_key(459), row_key(9999)), {"tombstones"}, {"tombstones"}
    ),
    "a bit of the state": Case(lambda p: change(p, None, b"state", flip(20)), {"state"}, {"state"}),
    "the state": Case(lambda p: change(p, None, b"state", garble), {"state"}, {"state"}),
    "a lost state": Case(lambda p: change(p, None, b"state", None), {"state"}, {"state"}),
    "a log entry": Case(lambda p: change(p, "log", entries(p, "log")[1][0], garble), {"log"}, {"log"}),
    "the newest log entry": Case(lambda p: change(p, "log", entries(p, "log")[-1][0], None), {"log"}, {"log"}),
    "a log entry between": Case(lambda p: change(p, "log", entries(p, "log")[1][0], None), {"log"}, {"log"}),
    "a key that leads elsewhere": Case(posting_moved("keys", 20, flip(7)), {"keys"}, {"keys"}),
    "a key that leads nowhere": Case(posting_moved("keys", 20, flip(2)), {"keys"}, {"keys"}),
    "a key that leads to a purged row": Case(posting_moved("keys", 20, lambda value: row_key(45)), {"keys"}, {"keys"}),
    "a lost key": Case(posting_lost("keys", 77), {"keys"}, {"keys"}),
    "a key too many": Case(added("keys", encode_key("stranger"), row_key(IN_TAIL)), {"keys"}, {"keys"}),
    "no key": Case(table_lost("keys"), {"keys"}, {"keys"}),
    "a label that leads elsewhere": Case(posting_moved("labels", 200, lambda value: row_key(0)), {"labels"}, {"labels"}),
    "a lost label": Case(posting_lost("labels", 200), {"labels"}, {"labels"}),
    "no label": Case(table_lost("labels"), {"labels"}, {"labels"}),
    "a value that leads elsewhere": Case(posting_moved("fields", 700, lambda value: row_key(3)), {"fields"}, {"fields"}),
    "a lost value": Case(posting_lost("fields", 700), {"fields"}, {"fields"}),
    "no value": Case(table_lost("fields"), {"fields"}, {"fields"}),
    "a bit of the purged rows": Case(lambda p: change(p, "purged", row_key(0), flip(13)), {"purged"}, {"purged"}),
    "the purged rows": Case(lambda p: change(p, "purged", row_key(0), garble), {"purged"}, {"purged"}),
    "a bit of a snapshot": Case(lambda p: change(p, "snapshots", b"monday", flip(12)), {"snapshots"}, {"snapshot 'monday'"}),
    "a bit of a snapshot's name": Case(
        lambda p: rekey(p, "snapshots", b"monday", b"oonday"), {"snapshots"}, {"snapshot 'monday'"}
    ),
    "a segment's record": Case(lambda p: change(p, "segments", row_key(0), garble), {"segment 0-"}, {"segment 0-"}),
    "a bit of a segment's record": Case(
        lambda p: change(p, "segments", row_key(0), flip(30)), {"segment 0-"}, {"segment 0-399"}
    ),
    "a segment's file": Case(segment_file(garble), {"segment 0-399"}, {"segment 0-399"}),
    "a lost segment": Case(segment_file(None), {"segment 0-399"}, {"segment 0-399"}),
    "half a segment": Case(segment_file(lambda content: content[: len(content) // 2]), {"segment 0-399"}, {"segment 0-399"}),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_can_be_mended(name: str, copied: tuple[Path, Past]) -> None:
    path, past = copied
    damage, found, rebuilt = MENDED[name]
    damage(path)
    with open_at(path, mode="r") as store:
        assert found <= found_by(store)
    done = repaired(path)
    assert done.quarantined == [] and done.unrepaired == []
    assert rebuilt <= set(done.rebuilt)
    assert wrong_with(path, past) is None


def test_the_lost_state_of_an_empty_store(tmp_path: Path) -> None:
    path = tmp_path / "s.sim"
    open_at(path, metric="l2", dim=4).close()
    change(path, None, b"state", None)
    assert repaired(path) == Repaired(["state"], [], None, [])
    with open_at(path) as store:
        assert store.add(None, np.ones((1, 4))) == [0] and store.check(deep=True) == []


def test_a_sound_store_is_left_alone(copied: tuple[Path, Past]) -> None:
    path, _ = copied
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "lock.mdb"}
    with open_at(path) as store:
        assert store.repair() == Repaired([], [], None, [])
        store._finalizer()  # no folding
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "lock.mdb"} == before


# -- what cannot -------------------------------------------------------------------------------------------------------


def value_of(path: Path, table: str, row: int) -> bytes:
    return dict(entries(path, table))[row_key(row)]


def garble_vector(path: Path, row: int) -> bytes:
    """Damages a vector in its run; the record as it is then."""
    run = max(int.from_bytes(key, "big") for key, _ in entries(path, "vectors") if int.from_bytes(key, "big") <= row)
    at = (row - run) * RECORD
    change(path, "vectors", row_key(run), lambda value: value[:at] + garble(value[at : at + RECORD]) + value[at + RECORD :])
    return value_of(path, "vectors", run)[at : at + RECORD]


@pytest.mark.parametrize("bit", [1, 2, 16, 64])
def test_the_size_of_a_key_is_damaged(bit: int, tmp_path: Path) -> None:
    """LMDB takes the beginning of an item for the rest of its key."""
    path = tmp_path / "store.sim"
    with open_at(path) as store:
        store.add(None, np.eye(64), data=list(range(64)))
    content = (path / "data.mdb").read_bytes()
    sound, damaged = (struct.pack("<H", size) + row_key(40) for size in (8, 8 ^ bit))
    (path / "data.mdb").write_bytes(content.replace(sound, damaged))  # a page no longer in use may hold the entry, too
    with open_at(path) as store:
        assert any("size" in problem.what for problem in store.check(deep=True))
        with pytest.raises(CorruptStoreError):
            store.count(field("n") == 1)
        assert "items" in store.repair().rebuilt and store.check(deep=True) == []
        assert store.get(40).data == 40 and [item.data for item in store] == list(range(64))


@pytest.mark.parametrize("row", [IN_SEGMENT, IN_TAIL, ALONE, 0, 210])
def test_a_damaged_item_goes_to_quarantine(row: int, copied: tuple[Path, Past]) -> None:
    path, past = copied
    key = next(k for items in (past.now, *past.snapshots.values()) for k in items if row_of(path, k, row))
    change(path, "items", row_key(row), garble)
    raw = value_of(path, "items", row)
    done = repaired(path)
    assert [(one.key, one.row) for one in done.quarantined] == [(key, row)] and "item is damaged" in done.quarantined[0].what
    (entry,) = quarantined(done)
    assert (entry["row"], entry["key"], entry["encoded_key"], entry["item"]) == (row, key, encode_key(key), raw)
    if row == ALONE:
        assert entry["vector"] is None  # the item carried it
    else:
        assert any(
            entry["vector"][:-8] == items[key][0].tobytes() for items in (past.now, past.snapshots["monday"]) if key in items
        )
    assert done.unrepaired == [] and set(done.rebuilt) <= {"snapshot 'monday'", "snapshot 'tuesday'"}
    assert wrong_but_for_row(path, past, key, row) is None
    with open_at(path) as store:
        store.upsert([key], np.ones((1, ailing.DIM)), data=["anew"])
        assert store.get(key).data == "anew" and store.check(deep=True) == []


def row_of(path: Path, key: Any, row: int) -> bool:
    return (encode_key(key), row_key(row)) in entries(path, "keys")


def wrong_but_for_row(path: Path, past: Past, key: Any, row: int) -> str | None:
    """As wrong_with, where a row is gone: the key is missing in the states that saw that row, and nowhere else."""
    if past.rows.get(key) == row:
        if row < 400 and key in past.snapshots["monday"]:  # unchanged since
            return wrong_with(path, past, {key})
        return wrong_with(path, Past({k: v for k, v in past.now.items() if k != key}, past.snapshots, past.rows))
    monday = {k: v for k, v in past.snapshots["monday"].items() if k != key}
    return wrong_with(path, Past(past.now, {**past.snapshots, "monday": monday}, past.rows))


@pytest.mark.parametrize("row", [IN_SEGMENT, IN_TAIL, SEEN])
def test_a_damaged_vector_goes_to_quarantine(row: int, copied: tuple[Path, Past]) -> None:
    path, past = copied
    (file,) = (path / "segments").iterdir()
    record, item = garble_vector(path, row), value_of(path, "items", row)
    key = next(key for key in [*past.now, *past.snapshots["monday"]] if row_of(path, key, row))
    file.write_bytes(garble(file.read_bytes()))  # else the graph has a copy of it
    done = repaired(path)
    assert [(one.key, one.row) for one in done.quarantined] == [(key, row)]
    (entry,) = quarantined(done)
    assert (entry["item"], entry["vector"], entry["dim"]) == (item, record, ailing.DIM)
    assert done.unrepaired == []
    assert wrong_but_for_row(path, past, key, row) is None


def test_a_vector_of_which_a_segment_has_a_copy(copied: tuple[Path, Past]) -> None:
    path, past = copied
    for row in (IN_SEGMENT, SEEN, 399):
        garble_vector(path, row)
    with open_at(path, mode="r") as store:
        assert found_by(store) == {"vectors"}
    assert repaired(path) == Repaired(["vectors"], [], None, [])
    assert wrong_with(path, past) is None


def test_runs_of_vectors_of_which_a_segment_has_copies(copied: tuple[Path, Past]) -> None:
    path, past = copied
    change(path, "vectors", row_key(60), lambda value: value[: 100 * RECORD + 30])
    change(path, "vectors", row_key(0), None)
    with open_at(path, mode="r") as store:
        assert len(store.check(deep=True)) == 101
    assert repaired(path) == Repaired(["vectors"], [], None, [])
    assert wrong_with(path, past) is None


def test_copies_of_unit_vectors_serve_if_their_checksum_matches(tmp_path: Path) -> None:
    path = tmp_path / "s.sim"
    vectors = np.random.default_rng(3).standard_normal((300, ailing.DIM)).astype(np.float32)
    vectors[:150] = 0
    vectors[range(150), np.arange(150) % ailing.DIM] = 1.0  # unit vectors, many of them equal
    with open_at(path, metric="cosine") as store:
        store.add(range(300), vectors)
        store.optimize()
    for row in (20, 200):
        garble_vector(path, row)
    done = repaired(path)
    assert done.rebuilt == ["vectors"] and [one.key for one in done.quarantined] == [200]
    with open_at(path) as store:
        assert store.get(20).vector.tolist() == vectors[20].tolist()


@pytest.mark.parametrize("bit", [3, 5, 7])
@pytest.mark.parametrize("table", ["items", "keys", "tombstones"])
def test_an_entry_of_a_wrong_size(table: str, bit: int, copied: tuple[Path, Past]) -> None:
    """Nothing is changed on its page: that would damage the entries beside it."""
    path, past = copied
    row = SEEN if table == "tombstones" else IN_SEGMENT
    key, value = next(entry for entry in entries(path, table) if row_key(row) in entry)
    content = bytearray((path / "data.mdb").read_bytes())
    place = content.find(key + value)
    while place >= 0:
        content[place - 8] ^= 1 << bit  # the size of the value
        place = content.find(key + value, place + 1)
    (path / "data.mdb").write_bytes(content)
    with open_at(path, mode="r") as store:
        assert table in {problem.where for problem in store.check() if "size" in problem.what} or "data.mdb" in found_by(store)
        is_readable = "data.mdb" not in found_by(store)
    done = repaired(path)
    if is_readable:
        assert table in done.rebuilt and done.unrepaired == []
        assert [one.row for one in done.quarantined] == ([row] if table == "items" else [])
        key = next(key for key in [*past.now, *past.snapshots["monday"]] if past.rows.get(key) == IN_SEGMENT)
        assert wrong_with(path, past, {key} if table == "items" else set()) is None


@pytest.mark.parametrize("row", [IN_SEGMENT, IN_TAIL, SEEN, ALONE])
def test_a_missing_item_is_told(row: int, copied: tuple[Path, Past]) -> None:
    path, past = copied
    key = next(key for key in [*past.now, *past.snapshots["monday"]] if row_of(path, key, row))
    change(path, "items", row_key(row), None)
    done = repaired(path)
    assert [(one.key, one.row) for one in done.quarantined] == [(key, row)] and "missing" in done.quarantined[0].what
    assert quarantined(done)[0]["item"] is None and done.unrepaired == []
    assert wrong_but_for_row(path, past, key, row) is None


def test_a_damaged_item_that_nobody_sees_is_no_problem(copied: tuple[Path, Past]) -> None:
    path, past = copied
    change(path, "items", row_key(UNSEEN), garble)
    with open_at(path) as store:
        assert store.check(deep=True) == [] and store.repair() == Repaired([], [], None, [])
    posting = next(entry for entry in entries(path, "keys") if entry[1] == row_key(UNSEEN))
    change(path, "keys", posting[0], None, posting[1])  # now nobody knows anything of it
    assert repaired(path) == Repaired(["purged"], [], None, [])
    assert wrong_with(path, past) is None


def test_a_missing_item_that_nobody_sees(copied: tuple[Path, Past]) -> None:
    path, past = copied
    change(path, "items", row_key(UNSEEN), None)
    assert repaired(path) == Repaired(["purged"], [], None, [])
    assert wrong_with(path, past) is None
    with open_at(path) as store:
        store.compact()
        assert store.check(deep=True) == []
    assert wrong_with(path, past) is None


def test_much_damage_at_once(copied: tuple[Path, Past]) -> None:
    path, past = copied
    lost = [*range(300, 310), 331, *range(431, 440)]
    for row in lost[:11]:
        change(path, "items", row_key(row), garble)
    for row in lost[11:]:
        garble_vector(path, row)
    for damage in (
        "the state",
        "no key",
        "lost tombstones",
        "a log entry",
        "a lost label",
        "half a segment",
        "the purged rows",
    ):
        MENDED[damage].damage(path)
    done = repaired(path)
    assert sorted(one.row for one in done.quarantined) == lost and done.unrepaired == []
    assert len(quarantined(done)) == len(lost)
    keys = {key for key, row in past.rows.items() if row in lost}
    assert {one.key for one in done.quarantined} >= {key for key, row in past.rows.items() if row in lost[11:]}
    snapshots = {
        name: {key: item for key, item in items.items() if key not in keys or past.rows[key] >= 400}
        for name, items in past.snapshots.items()
    }
    now = {key: item for key, item in past.now.items() if key not in keys}
    assert wrong_with(path, Past(now, snapshots, past.rows)) is None


def test_a_tombstone_that_nobody_knows_of(copied: tuple[Path, Past]) -> None:
    """Who is alive again is not known; that somebody is, the count tells."""
    path, past = copied
    change(path, "tombstones", row_key(UNSEEN), None)
    with ailing.editing(path) as (txn, tables):
        txn.drop(tables("log"), delete=False)
    done = repaired(path)
    assert any("1 items that had been deleted" in what for what in done.rebuilt)
    with open_at(path) as store:
        (back,) = {item.key for item in store.scan()} - past.now.keys()
        store.delete(back)
    assert wrong_with(path, past) is None


# -- what is left to the user ------------------------------------------------------------------------------------------


def test_a_damaged_snapshot_stays_until_it_is_deleted(copied: tuple[Path, Past]) -> None:
    path, past = copied
    change(path, "snapshots", b"monday", garble)
    done = repaired(path)
    assert (done.rebuilt, done.quarantined) == ([], [])
    assert [problem.where for problem in done.unrepaired] == ["snapshots"] and "delete_snapshot" in done.unrepaired[0].remedy
    with open_at(path) as store:
        assert store.compact().n_purged == 0
        with pytest.raises(CorruptStoreError, match="monday"):
            open_at(path, snapshot="monday").search(np.ones(ailing.DIM))
        store.delete_snapshot("monday")
        assert store.check(deep=True) == []
        assert store.compact().n_purged == 70
    assert wrong_with(path, Past(past.now, {"tuesday": past.snapshots["tuesday"]}, past.rows)) is None


def test_files_that_belong_to_nothing(copied: tuple[Path, Past]) -> None:
    path, past = copied
    with open_at(path) as store:
        (path / "segments" / "0-9-0123.hnsw").write_bytes(b"left")
        (path / "embedder").mkdir()
        (path / "embedder" / "left.keras").write_bytes(b"left")
        (path / "compacted-12.mdb").write_bytes(b"left")
        (path / "notes.txt").write_text("mine")
        assert len(store.check(deep=True)) == 4 and store.check() == []
        done = store.repair()
        assert done.rebuilt == ["files"] and [problem.what for problem in done.unrepaired] == [
            "notes.txt is no part of a store"
        ]
        assert store.check(deep=True) == done.unrepaired
        assert (path / "notes.txt").exists() and len(list((path / "segments").iterdir())) == 1
    assert wrong_with(path, past) is None


def test_damaged_pages_are_left_alone(copied: tuple[Path, Past]) -> None:
    path, _ = copied
    content = bytearray((path / "data.mdb").read_bytes())
    at = content.find(b"label 0")
    while at >= 0:
        page = at // 4096 * 4096
        content[page] ^= 1  # its own number
        at = content.find(b"label 0", page + 4096)
    (path / "data.mdb").write_bytes(content)
    with open_at(path, mode="r") as store, pytest.raises(ReadOnlyStoreError):
        store.repair()
    with open_at(path) as store:
        done = store.repair()
        assert (done.rebuilt, done.quarantined) == ([], []) and {problem.where for problem in done.unrepaired} == {"data.mdb"}
        assert "backup" in done.unrepaired[0].remedy
        store._finalizer()
    assert (path / "data.mdb").read_bytes() == content


def test_a_lost_model(tmp_path: Path) -> None:
    path, vectors = tmp_path / "s.sim", np.eye(4, dtype=np.float32)
    with open_at(path) as store:
        store.add(["a", "b"], vectors[:2])
        record = {"name": "x", "dim": 4, "fingerprint": "f" * 16, "saved": True, "model_xxh3": "0" * 16}
        database = store._core.database
        store._core.environment.write(lambda txn: database.change_schema(txn, replace(database.schema(txn), embedder=record)))
        done = store.repair()
        assert (done.rebuilt, done.quarantined) == ([], [])
        assert [problem.where for problem in done.unrepaired] == ["embedder"] and "embedder=" in done.unrepaired[0].remedy
        store._finalizer()


def test_a_store_that_is_open_to_be_read(copied: tuple[Path, Past]) -> None:
    path, _ = copied
    for options in ({"mode": "r"}, {"snapshot": "monday"}):
        with open_at(path, **options) as store:
            assert store.check() == [] and store.check(deep=True) == []
            with pytest.raises(ReadOnlyStoreError):
                store.repair()


# -- past epochs -------------------------------------------------------------------------------------------------------


def with_two_widths(path: Path) -> NDArray[np.float32]:
    """Rows 0-99 of 8 numbers, which only the snapshot "old" sees; rows 100-149 of 4."""
    old = np.random.default_rng(1).standard_normal((100, 8)).astype(np.float32)
    with open_at(path, metric="l2") as store:
        store.add([f"old {i}" for i in range(100)], old)
        store.snapshot("old")
        database = store._core.database

        def turn(txn: Any) -> None:
            state, schema = database.state(txn), database.schema(txn)
            database.bury(txn, range(100), state.seq + 1)
            database.put_schema(txn, replace(schema, dim=4, epoch_row=100, past=(Epoch(0, 8),)))
            database.put_state(txn, replace(state, seq=state.seq + 1, n_live=0))

        store._core.environment.write(turn)
        store._finalizer()
    with open_at(path) as store:
        store.add(range(50), np.random.default_rng(2).standard_normal((50, 4)))
        assert store.check(deep=True) == [] and store.repair() == Repaired([], [], None, [])
    return old


def test_vectors_of_another_width_that_only_a_snapshot_sees(tmp_path: Path) -> None:
    path = tmp_path / "s.sim"
    old = with_two_widths(path)
    record = 8 * 4 + 8
    change(path, "vectors", row_key(0), flip(7 * record + 3))
    assert repaired(path) == Repaired(["vectors"], [], None, [])
    change(
        path,
        "vectors",
        row_key(0),
        lambda value: value[: 7 * record] + garble(value[7 * record :][:record]) + value[8 * record :],
    )
    with open_at(path, mode="r") as store:
        assert found_by(store) == {"vectors"}
    done = repaired(path)
    assert [(one.key, one.row) for one in done.quarantined] == [("old 7", 7)] and done.rebuilt == ["snapshot 'old'"]
    assert quarantined(done)[0]["dim"] == 8
    with open_at(path, snapshot="old") as then:
        assert len(then) == 99 and "old 7" not in then
        assert then.search_many(old, 1).keys[:, 0].tolist()[:7] == [f"old {i}" for i in range(7)]


def test_tombstones_of_past_epochs(tmp_path: Path) -> None:
    path = tmp_path / "s.sim"
    with_two_widths(path)
    change(path, "tombstones", row_key(50), None)
    with open_at(path, mode="r") as store:
        assert "tombstones" in {problem.where for problem in store.check()}
    assert set(repaired(path).rebuilt) == {"tombstones"}
    with open_at(path, snapshot="old") as then:
        assert len(list(then.scan())) == 100


# -- while others are at work ------------------------------------------------------------------------------------------


def test_filters_of_an_open_store_learn_of_it(copied: tuple[Path, Past]) -> None:
    path, past = copied
    lost = next(entry for entry in entries(path, "fields") if entry[1] == row_key(IN_TAIL))
    change(path, "fields", lost[0], None, lost[1])
    with open_at(path) as store:
        where = field("number") == past.now[key_at(past, IN_TAIL)][2]["number"]
        assert list(store.scan(where=where)) == []
        assert store.repair().rebuilt == ["fields"]
        assert [item.key for item in store.scan(where=where)] == [key_at(past, IN_TAIL)]


CHILD = """
import sys, numpy as np, simstore
from simstore import field
store = simstore.open(sys.argv[1], mode="r", background=False)
then = simstore.open(sys.argv[1], snapshot="monday", background=False)
vector, where = np.array(eval(sys.argv[2]), np.float32), field("number") >= 0
def look():
    hits = [s.search(vector, 1, exact=True).keys for s in (store, then)]
    print([len(store), len(list(store.scan(where=where))), len(then), hits], flush=True)
look()
sys.stdin.readline()
look()
"""


def test_another_process_learns_of_it(copied: tuple[Path, Past]) -> None:
    path, past = copied
    vector = past.now["key 101"][0] if "key 101" in past.now else past.snapshots["monday"]["key 101"][0]
    change(path, "tombstones", row_key(101), None)  # key 101 is back, it seems
    arguments = [sys.executable, "-c", CHILD, str(path), str(vector.tolist())]
    child = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None
    before = ast.literal_eval(child.stdout.readline())
    assert before == [380, 381, 380, [["key 101"], ["key 101"]]]
    with open_at(path) as store:
        assert "tombstones" in store.repair().rebuilt
        hit = store.search(vector, 1, exact=True).keys
    after, _ = child.communicate("go\n")
    assert ast.literal_eval(after) == [380, 380, 380, [hit, ["key 101"]]] and hit != ["key 101"]
    assert child.returncode == 0


def test_damage_of_the_newest_state_is_no_trap_for_others(copied: tuple[Path, Past]) -> None:
    """The state is told anew with a seq that is above all that another process may have seen."""
    path, past = copied
    with open_at(path, mode="r") as store:
        seq = store.info().seq
    change(path, None, b"state", None)
    repaired(path)
    with open_at(path) as store:
        assert store.info().seq > seq + 1000
        store.upsert(["new"], np.ones((1, ailing.DIM)))
        store.delete("new")
    assert wrong_with(path, past) is None


def test_writers_go_on_after_it(copied: tuple[Path, Past]) -> None:
    path, past = copied
    change(path, "items", row_key(IN_TAIL), garble)
    with open_at(path) as store:
        store.search(np.ones(ailing.DIM), 3)
        (gone,) = store.repair().quarantined
        store.add([gone.key], np.ones((1, ailing.DIM)))
        assert store.add(None, np.ones((1, ailing.DIM))) == [501]
        assert store.search(np.ones(ailing.DIM), 2).keys == [gone.key, 501]
        store.restore("monday")
        assert {item.key for item in store.scan()} == set(past.snapshots["monday"])
        assert store.check(deep=True) == []
        store.compact()
        assert store.check(deep=True) == []


# -- when it fails -----------------------------------------------------------------------------------------------------


class FullFiles(LocalFiles):
    """No space for anything in quarantine."""

    def rename(self, source: Path, target: Path) -> None:
        if target.parent.name == "quarantine":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().rename(source, target)


def test_no_space_for_the_quarantine(copied: tuple[Path, Past]) -> None:
    path, _past = copied
    change(path, "items", row_key(IN_TAIL), garble)
    with open_through(FullFiles(), path, background=False) as store:
        problems = store.check(deep=True)
        with pytest.raises(StorageFullError):
            store.repair()
        assert store.check(deep=True) == problems and list((path / "quarantine").iterdir()) == []
        assert not [name for name in os.listdir(path) if name.startswith("tmp-")]
    assert len(repaired(path).quarantined) == 1


@pytest.mark.parametrize("step", ["file.written", "file.synced", "file.renamed", "file.directory-synced"])
def test_killed_before_the_transaction(step: str, copied: tuple[Path, Past]) -> None:
    path, past = copied
    change(path, "items", row_key(IN_TAIL), garble)
    child = os.fork()
    if child == 0:
        store = open_at(path)
        steps.set_observer(lambda name: os._exit(9) if name == step else None)
        try:
            store.repair()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with open_at(path) as store:
        assert found_by(store) == {"items"}
        assert len(store) == len(past.now)
    done = repaired(path)
    assert [one.row for one in done.quarantined] == [IN_TAIL] and len(quarantined(done)) == 1
    assert wrong_but_for_row(path, past, key_at(past, IN_TAIL), IN_TAIL) is None


def test_progress_is_told_and_may_stop_it(copied: tuple[Path, Past]) -> None:
    path, _past = copied
    change(path, "items", row_key(IN_TAIL), garble)
    told: list[tuple[str, int, int]] = []
    with open_at(path) as store:
        store.check(deep=True, progress=lambda *args: told.append(args))
        assert {stage for stage, _, _ in told} == {"items", "vectors", "segments"}
        assert all(0 <= done <= total for _, done, total in told)

        def stop(stage: str, done: int, total: int) -> None:
            raise KeyError(stage)

        for call in (store.repair, lambda progress: store.check(deep=True, progress=progress)):
            with pytest.raises(KeyError):
                call(progress=stop)
        begun = iter(range(1000))

        def stop_within(stage: str, done: int, total: int) -> None:
            if (stage, done) == ("items", 0) and next(begun) == 1:  # the second reading: in the transaction
                raise ValueError(stage)

        with pytest.raises(ValueError, match="items"):
            store.repair(progress=stop_within)
        assert found_by(store) == {"items"} and not list(path.glob("quarantine/*"))


def test_many_problems_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "s.sim"
    with open_at(path) as store:
        store.add(range(1000), np.random.default_rng(0).standard_normal((1000, 4)))
        store._finalizer()
    with ailing.editing(path) as (txn, tables):
        for row in range(300):
            txn.put(row_key(row), garble(bytes(txn.get(row_key(row), db=tables("items")))), db=tables("items"))
    with open_at(path) as store:
        problems = [problem for problem in store.check(deep=True) if problem.where == "items"]
        assert len(problems) == 101 and problems[-1].what == "and 200 more"
        done = store.repair()
        assert sorted(one.key for one in done.quarantined) == list(range(300))
        assert len(store) == 700 and store.check(deep=True) == []


# -- whatever it is ----------------------------------------------------------------------------------------------------

TABLES = ("items", "vectors", "keys", "labels", "fields", "tombstones", "log", "segments", "snapshots", "purged", None)


def damage_at_random(path: Path, seed: int) -> None:
    """Changes up to six values, each in one bit or in many."""
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(1, 7)):
        table = TABLES[rng.integers(len(TABLES))]
        stored = [entry for entry in entries(path, table) if table is not None or entry[0] == b"state"]
        if not stored:
            continue
        key, value = stored[rng.integers(len(stored))]
        bad = flip(int(rng.integers(len(value))), int(rng.integers(8)))(value)
        if rng.integers(2):
            bad = bytes(byte ^ int(rng.integers(256)) if rng.integers(4) == 0 else byte for byte in bad)
        if table in ("items", "vectors", "tombstones", "segments", "snapshots") and rng.integers(4) == 0:
            new = flip(int(rng.integers(len(key))), int(rng.integers(8)))(key)
            if new not in dict(stored):
                rekey(path, table, key, new)
            continue
        if rng.integers(8) == 0 and table not in ("tombstones", "log"):  # nobody can tell what died
            change(path, table, key, None, value if table in ("keys", "labels", "fields") else None)
        else:
            with suppress(lmdb.Error):
                change(path, table, key, lambda old, bad=bad: bad, value if table in ("keys", "labels", "fields") else None)


@pytest.mark.parametrize("table", TABLES)
def test_single_bits_at_random_lose_nothing(table: str | None, template: tuple[Path, Past], tmp_path: Path) -> None:
    path, rng = tmp_path / "store.sim", np.random.default_rng(5)
    for _ in range(5):
        copy_of(template[0], path)
        stored = [entry for entry in entries(path, table) if table is not None or entry[0] == b"state"]
        for at in set(rng.integers(len(stored), size=3).tolist()):
            key, value = stored[at]
            how = flip(int(rng.integers(len(value))), int(rng.integers(8)))
            change(path, table, key, how, value if table in ("keys", "labels", "fields") else None)
        done = repaired(path)
        assert (done.quarantined, done.unrepaired) == ([], [])
        assert wrong_with(path, template[1]) is None


def check_random_damage(template: tuple[Path, Past], path: Path, seed: int) -> None:
    past = template[1]
    copy_of(template[0], path)
    damage_at_random(path, seed)
    done = repaired(path)
    assert all(problem.where == "snapshots" for problem in done.unrepaired), (seed, done.unrepaired)
    taken = {one.key for one in done.quarantined}
    with open_at(path) as store:
        items = {item.key: item for item in store.scan()}
        for key in past.now.keys() - items.keys():
            assert key in taken or None in taken, (seed, key)
        for key, item in items.items():
            expected = past.now.get(key)
            assert expected is not None, (seed, key)
            assert item.vector.tobytes() == expected[0].tobytes(), (seed, key)
            assert (item.label, item.data) == expected[1:], (seed, key)
        assert len(store) == len(items)
        for info in store.snapshots() if not done.unrepaired else ():
            with open_at(path, snapshot=info.name) as then:
                for item in then.scan():
                    assert item.vector.tobytes() == past.snapshots[info.name][item.key][0].tobytes(), (seed, item.key)
                assert len(then) == info.count


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_random_damage(first: int, template: tuple[Path, Past], tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        check_random_damage(template, tmp_path / "store.sim", seed)


@pytest.mark.slow
def test_much_random_damage(template: tuple[Path, Past], tmp_path: Path) -> None:
    for seed in range(1000, 1500):
        check_random_damage(template, tmp_path / "store.sim", seed)


def after_a_flip(path: Path, past: Past) -> tuple[str, str]:
    """Repairs a store of which a bit was flipped anywhere: ("sound" | "mended" | "unrepaired" | "raised" | "wrong", details)."""
    try:
        store = open_at(path)
    except SimstoreError as err:
        return "raised", str(err)
    found, done, again = store.check(deep=True), store.repair(), store.repair()
    left = store.check(deep=True)
    store._finalizer()
    if left != done.unrepaired or again != Repaired([], [], None, left):
        return "wrong", f"{done}, then {again}"
    if done.unrepaired:
        return "unrepaired", str(done)
    what = None if done.quarantined else wrong_with(path, past)
    return ("mended" if found else "sound", str(done)) if what is None else ("wrong", f"{found}, {done}: {what}")


def run_flips(template: tuple[Path, Past], tmp_path: Path, seeds: range) -> None:
    kinds = set()
    for seed in seeds:
        path = copy_of(template[0], tmp_path / "store.sim")
        where = damaged.flip_one(path, seed)
        kind, what = damaged.in_child(lambda path=path: after_a_flip(path, template[1]), tmp_path / "result.json")  # type: ignore[misc]
        assert kind in ("sound", "mended", "unrepaired", "raised"), (seed, where, kind, what)
        kinds.add(kind)
    assert {"sound", "mended"} <= kinds


def test_flips_anywhere(template: tuple[Path, Past], tmp_path: Path) -> None:
    run_flips(template, tmp_path, range(30))


@pytest.mark.slow
def test_many_flips_anywhere(template: tuple[Path, Past], tmp_path: Path) -> None:
    run_flips(template, tmp_path, range(2000, 2300))
