"""A store with a history (purged rows, an index, two snapshots, dead rows, a tail), what it should answer, and tools to damage it."""

import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import numpy as np

import simstore
from simstore import Store, field

DIM = 16
Items = dict[Any, tuple[np.ndarray, Any, Any]]


class Past(NamedTuple):
    """What a store holds, and what its snapshots see, by key."""

    now: Items
    snapshots: dict[str, Items]
    rows: dict[Any, int]  # of the present items


def open_at(path: Path, **options: Any) -> Store:
    return simstore.open(path, background=False, ef_construction=40, **options)


class _Life:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.rng = np.random.default_rng(7)
        self.now: Items = {}
        self.rows: dict[Any, int] = {}
        self.next_row = 0

    def upsert(self, numbers: range | list[int]) -> None:
        keys = [f"key {i}" if i % 4 else i for i in numbers]
        vectors = self.rng.standard_normal((len(keys), DIM)).astype(np.float32)
        labels = [None if i % 5 == 0 else f"label {i % 3}" for i in numbers]
        data = [{"number": i, "tags": ["even" if i % 2 == 0 else "odd", i % 7]} for i in numbers]
        self.store.upsert(keys, vectors, labels=labels, data=data)
        for j, key in enumerate(keys):
            self.now[key] = vectors[j], labels[j], data[j]
            self.rows[key] = self.next_row + j
        self.next_row += len(keys)

    def delete(self, numbers: range) -> None:
        keys = [f"key {i}" if i % 4 else i for i in numbers]
        self.store.delete(keys)
        for key in keys:
            del self.now[key], self.rows[key]


def fill(path: Path, *, metric: str = "l2") -> Past:
    """Rows 0-399 in a segment, 40-59 of them purged; 400-469 in the tail; row 469 carries its vector."""
    snapshots = {}
    with open_at(path, metric=metric) as store:
        life = _Life(store)
        life.upsert(range(400))
        life.delete(range(40, 60))
        store.optimize()
        store.compact()
        store.create_index("number")
        store.create_index("tags")
        store.snapshot("monday")
        snapshots["monday"] = dict(life.now)
        life.delete(range(100, 130))
        life.upsert(range(200, 230))
        store.snapshot("tuesday", note="after a change")
        snapshots["tuesday"] = dict(life.now)
        life.upsert(range(400, 439))
        life.delete(range(420, 430))  # dead, and no snapshot sees them
        life.upsert([500])
    return Past(life.now, snapshots, life.rows)


def wrong_with(path: Path, past: Past, without: set[Any] = frozenset()) -> str | None:  # type: ignore[assignment]
    """Compares all that a store and its snapshots answer, with what they should, but for some items; the first difference."""
    with open_at(path) as store:
        for name, items in {"now": past.now, **past.snapshots}.items():
            expected = {key: item for key, item in items.items() if key not in without}
            if name == "now":
                what = _wrong(store, expected)
            else:
                with open_at(path, snapshot=name) as then:
                    what = _wrong(then, expected)
                counted = {info.name: info.count for info in store.snapshots()}
                if what is None and counted[name] != len(expected):
                    what = f"{counted[name]} counted"
            if what is not None:
                return f"{name}: {what}"
    return None


def _wrong(store: Store, items: Items) -> str | None:
    if len(store) != len(items):
        return f"len {len(store)}, not {len(items)}"
    for name, found in (("scan", list(store.scan())), ("get_many", store.get_many(list(items)))):
        if [item.key for item in found if item is not None and item.key in items] != [item and item.key for item in found]:
            return f"{name}: a stranger"
        for item in found:
            vector, label, data = items[item.key]
            if item.vector.tobytes() != vector.tobytes() or (item.label, item.data) != (label, data):
                return f"{name}: {item!r}"
        if len(found) != len(items):
            return f"{name}: {len(found)} items"
    labels: dict[Any, int] = {}
    for _, label, _ in items.values():
        labels[label] = labels.get(label, 0) + 1
    if store.labels() != labels:
        return f"labels: {store.labels()}"
    return _wrong_search(store, items)


def _wrong_search(store: Store, items: Items) -> str | None:
    keys, vectors = list(items), np.array([item[0] for item in items.values()])
    for exact in (True, False):
        hits = store.search_many(vectors, 1, exact=exact)
        right = sum(key == hit for key, hit in zip(keys, hits.keys[:, 0], strict=True))
        if right < (len(keys) if exact else 0.97 * len(keys)):
            return f"{right} of {len(keys)} find themselves, exact={exact}"
    for where, matches in (
        (field("number") >= 300, lambda data: data["number"] >= 300),
        (field("tags").contains("odd"), lambda data: "odd" in data["tags"]),
    ):
        expected = {key for key, (_, _, data) in items.items() if matches(data)}
        if {item.key for item in store.scan(where=where)} != expected:
            return f"scan(where={where!r})"
    return None


# -- damage ------------------------------------------------------------------------------------------------------------


@contextmanager
def editing(path: Path) -> Any:
    """Calls (table, None for the unnamed) -> (transaction, handle), all in one LMDB transaction over a closed store."""
    environment = lmdb.open(str(path), max_dbs=16)
    try:
        with environment.begin(write=True) as txn:

            def table(name: str | None) -> Any:
                if name is None:
                    return None
                is_list = name in ("keys", "labels", "fields")
                return environment.open_db(name.encode(), txn, create=False, dupsort=is_list, dupfixed=is_list)

            yield txn, table
    finally:
        environment.close()


def entries(path: Path, table: str | None) -> list[tuple[bytes, bytes]]:
    with editing(path) as (txn, tables), txn.cursor(db=tables(table)) as cursor:
        return [(bytes(key), bytes(value)) for key, value in cursor]


def change(
    path: Path, table: str | None, key: bytes, how: Callable[[bytes], bytes] | None, value: bytes | None = None
) -> bytes:
    """Changes an entry's value, or removes the entry; what it was. For tables of postings the value says which."""
    with editing(path) as (txn, tables):
        handle = tables(table)
        old = bytes(txn.get(key, db=handle)) if value is None else value
        if value is not None:
            assert txn.delete(key, value, db=handle)
        if how is None:
            if value is None:
                assert txn.delete(key, db=handle)
        else:
            assert txn.put(key, how(old), db=handle)
    return old


def rekey(path: Path, table: str, key: bytes, new: bytes) -> None:
    """Has an entry stand under another key."""
    with editing(path) as (txn, tables):
        handle = tables(table)
        value = bytes(txn.get(key, db=handle))
        assert txn.delete(key, db=handle)
        assert txn.put(new, value, db=handle, overwrite=False)


def flip(at: int, bit: int = 2) -> Callable[[bytes], bytes]:
    def flipped(value: bytes) -> bytes:
        bad = bytearray(value)
        bad[at] ^= 1 << bit
        return bytes(bad)

    return flipped


def garble(value: bytes) -> bytes:
    """Another value of the same length: no single bit explains it."""
    middle = len(value) // 2
    return bytes(byte ^ (0x5A if middle - 4 <= i < middle + 4 else 0) for i, byte in enumerate(value))


def row_key(row: int) -> bytes:
    return row.to_bytes(8, "big")


def copy_of(template: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(template, target)
    return target
