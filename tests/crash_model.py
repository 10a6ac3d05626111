"""What may be done to a store, what it must hold afterwards, and how to see whether it does."""

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import simstore
from simstore import Store

DIM = 8
OPTIONS: dict[str, Any] = {"metric": "l2", "ef_construction": 30, "M": 8}

Model = dict[str | int, tuple[int, str | None, Any]]
"""What a store holds: for each key the number of its vector, its label and its data."""

Op = dict[str, Any]


class World(NamedTuple):
    """What a store holds now, what its snapshots remember by name, and what its backups hold by the name of their directory."""

    items: Model
    snapshots: dict[str, Model]
    backups: dict[str, "World"]


NOTHING = World({}, {}, {})
NOTHING_CHANGES = {"compact", "create_index", "drop_index"}


def vectors_of(numbers: list[int]) -> NDArray[np.float32]:
    """The vector of each number, always the same."""
    return np.array([_vector(n) for n in numbers], np.float32).reshape(len(numbers), DIM)


@cache
def _vector(number: int) -> NDArray[np.float64]:
    return np.random.default_rng([77, number]).standard_normal(DIM)


# -- operations ---------------------------------------------------------------------------------------------------------


def writing(kind: str, keys: list[Any] | None, first: int, n: int | None = None) -> Op:
    """An add or upsert of vectors first, first + 1, …; every ninth vector is one that many items have."""
    n = len(keys) if keys is not None else n or 0
    numbers = [0 if (first + i) % 9 == 0 else first + i for i in range(n)]
    labels = [None if (first + i) % 4 == 0 else f"label {(first + i) % 5}" for i in range(n)]
    return {"kind": kind, "keys": keys, "vectors": numbers, "labels": labels, "data": [{"n": first + i} for i in range(n)]}


def updating(keys: list[Any], first: int) -> Op:
    """An update of labels and data."""
    return {**writing("update", keys, first), "vectors": None}


def deleting(keys: list[Any]) -> Op:
    """A delete."""
    return {"kind": "delete", "keys": keys}


def deleting_where(store: Store, prefix: str, label: str) -> Op:
    """A delete of all items with a label whose key begins so; with the keys that these are."""
    keys = [item.key for item in store.scan(where=_condition(prefix, label))]
    return {"kind": "delete_where", "prefix": prefix, "label": label, "keys": keys}


def _condition(prefix: str, label: str) -> Any:
    return simstore.key.startswith(prefix) & (simstore.label == label)


def naming(kind: str, name: str) -> Op:
    """A snapshot, restore, or delete_snapshot of a name; a backup to a directory of that name beside the store; an index
    made or dropped.
    """
    return {"kind": kind, "name": name}


def call(store: Store, op: Op) -> Any:
    """Does the operation; returns the keys that an add gave, or the snapshot that undoes a restore."""
    kind = op["kind"]
    if kind == "add":
        return list(store.add(op["keys"], vectors_of(op["vectors"]), labels=op["labels"], data=op["data"]))
    if kind == "upsert":
        store.upsert(op["keys"], vectors_of(op["vectors"]), labels=op["labels"], data=op["data"])
    elif kind == "update":
        store.update(op["keys"], labels=op["labels"], data=op["data"])
    elif kind == "delete":
        store.delete(op["keys"])
    elif kind == "delete_where":
        store.delete(where=_condition(op["prefix"], op["label"]))
    elif kind in ("create_index", "drop_index"):
        {"create_index": store.create_index, "drop_index": store.drop_index}[kind](op["name"])
    elif kind == "restore":
        return store.restore(op["name"]).undo
    elif kind == "backup":
        store.backup(store._path.parent / op["name"])
    elif kind == "compact":
        store.compact()
    else:
        {"snapshot": store.snapshot, "delete_snapshot": store.delete_snapshot}[kind](op["name"])
    return None


def applied(model: Model, op: Op, keys: list[Any] | None = None) -> Model:
    """What a store with this content holds after an operation on items."""
    new = dict(model)
    if op["kind"] == "delete_where":
        begin, label = op["prefix"], op["label"]
        chosen = [key for key, entry in model.items() if str(key).startswith(begin) and entry[1] == label]
        assert sorted(chosen) == sorted(op["keys"])
    keys = op["keys"] if op["keys"] is not None else keys or []
    for i, key in enumerate(keys):
        if op["kind"] in ("delete", "delete_where"):
            del new[key]
        else:
            vector = new[key][0] if op["kind"] == "update" else op["vectors"][i]
            new[key] = (vector, op["labels"][i], op["data"][i])
    return new


def after(world: World, op: Op, result: Any = None) -> World:
    """The world after any operation; result is what the call returned, if that is known."""
    kind, name, (items, snapshots, backups) = op["kind"], op.get("name", ""), world
    if kind == "snapshot":
        return world._replace(snapshots={**snapshots, name: items})
    if kind == "delete_snapshot":
        return world._replace(snapshots={other: held for other, held in snapshots.items() if other != name})
    if kind == "restore":
        return world._replace(items=snapshots[name], snapshots={**snapshots, result or undo_of(world, name): items})
    if kind == "backup":
        return world._replace(backups={**backups, name: world._replace(backups={})})
    if kind in NOTHING_CHANGES:
        return world
    return world._replace(items=applied(items, op, result))


def undo_of(world: World, name: str) -> str:
    """What restore(name) calls the state before."""
    n, undo = 1, f"before-restore-{name}"
    while undo in world.snapshots:
        n += 1
        undo = f"before-restore-{name}-{n}"
    return undo


def read_log(path: Path, world: World) -> tuple[World, list[Op], list[Any], list[str]]:
    """The world after all acknowledged calls, the calls that were not acknowledged, steps reached, and what went wrong."""
    pending: dict[str, Op] = {}
    reached, wrong = [], []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        entry = json.loads(line)
        if "op" in entry:
            pending[entry["who"]] = entry["op"]
        elif "done" in entry:
            world = after(world, pending.pop(entry["who"]), entry["done"])
        elif "step" in entry:
            reached.append(entry["step"])
        else:
            wrong.append(entry["wrong"])
    return world, list(pending.values()), reached, wrong


# -- what the store must hold -------------------------------------------------------------------------------------------


def verify(path: Path, world: World, pending: Iterable[Op], *, seed: int = 0, rebuilds: bool = False) -> World:
    """Opens a store after a crash and compares all of it; returns what it holds, the pending calls that came through included.

    Args:
        pending: Calls that were not acknowledged: each must be there entirely, or not at all.
        rebuilds: Segments may be damaged; they are right after optimize(), and answers are right before.
    """
    world = _verified(path, world, pending, seed, rebuilds)
    for name, held in world.backups.items():
        _verified(path.parent / name, held, [], seed, rebuilds)
    made = {name for name in os.listdir(path.parent) if name.endswith(".backup")}
    assert made == world.backups.keys(), "a backup that nobody knows of"
    return world


def _verified(path: Path, world: World, pending: Iterable[Op], seed: int, rebuilds: bool) -> World:
    with simstore.open(path, background=False, **OPTIONS) as store:
        assert_tidy(path, store)
        for op in pending:
            world = _settled(store, world, op)
        assert_remembers(store, world, seed)
        if rebuilds:
            store.optimize()
            assert_remembers(store, world, seed)
        assert store.check(deep=True) == []
        _assert_writable(store, world, seed)
        assert_tidy(path, store)
        assert store.check(deep=True) == []
    return world


def _settled(store: Store, world: World, op: Op) -> World:
    """The world with the operation, or without it: what the store has."""
    kind = op["kind"]
    if kind in NOTHING_CHANGES:
        return world
    if kind == "backup":
        return after(world, op) if (store._path.parent / op["name"]).exists() else world
    if kind in ("snapshot", "delete_snapshot", "restore"):
        names = {snapshot.name for snapshot in store.snapshots()}
        came_through = after(world, op)
        assert names in (world.snapshots.keys(), came_through.snapshots.keys()), f"half a call: {op}"
        return came_through if names == came_through.snapshots.keys() else world
    return world._replace(items=_settled_items(store, world.items, op))


def _settled_items(store: Store, model: Model, op: Op) -> Model:
    keys = op["keys"]
    if keys is None:
        found = sorted(item.key for item in store.scan() if isinstance(item.key, int) and item.key not in model)
        assert len(found) in (0, len(op["vectors"])), f"half an add: {len(found)} of {len(op['vectors'])} items"
        return applied(model, op, found) if found else model
    came_through = applied(model, op)
    held = [_content(item) for item in store.get_many(keys)]
    without, with_it = ([_expected(side.get(key)) for key in keys] for side in (model, came_through))
    assert held in (without, with_it), f"half a call: {op['kind']} of {keys}"
    return came_through if held == with_it else model


def _content(item: Any) -> Any:
    return None if item is None else (item.vector.tobytes(), item.label, item.data)


def _expected(entry: Any) -> Any:
    return None if entry is None else (vectors_of([entry[0]])[0].tobytes(), entry[1], entry[2])


def assert_tidy(path: Path, store: Store) -> None:
    """No file is there that does not belong to the store."""
    assert set(os.listdir(path)) == {"store.json", "data.mdb", "lock.mdb", "segments"}
    with store._core.environment.read() as txn:
        named = {record.file for record in store._core.database.segments(txn)}
    assert set(os.listdir(path / "segments")) <= named


def assert_remembers(store: Store, world: World, seed: int) -> None:
    """The store and each of its snapshots hold what they must, and search finds it."""
    assert_holds(store, world.items)
    assert_finds(store, world.items, seed)
    assert {info.name: info.count for info in store.snapshots()} == {name: len(held) for name, held in world.snapshots.items()}
    for name, held in world.snapshots.items():
        with simstore.open(store._path, snapshot=name) as remembered:
            assert_holds(remembered, held)
            assert_finds(remembered, held, seed, n=3)


def assert_holds(store: Store, model: Model) -> None:
    """Exactly the items of the model are there, however one asks."""
    assert len(store) == len(model)
    assert {item.key: _content(item) for item in store.scan()} == {key: _expected(entry) for key, entry in model.items()}
    assert [_content(item) for item in store.get_many(list(model))] == [_expected(entry) for entry in model.values()]
    labels: dict[Any, int] = {}
    for _, label, _ in model.values():
        labels[label] = labels.get(label, 0) + 1
    assert store.labels() == labels
    for n in sorted(data["n"] for _, _, data in model.values() if isinstance(data, dict))[:: max(1, len(model) // 3)]:
        chosen = [key for key, (_, _, data) in model.items() if isinstance(data, dict) and data["n"] >= n]
        assert sorted(map(str, chosen)) == sorted(str(item.key) for item in store.scan(where=simstore.field("n") >= n))


def assert_finds(store: Store, model: Model, seed: int, n: int = 6) -> None:
    """Searches are right: the exact one and the one by graph (whose recall on so few items is all but perfect)."""
    if not model:
        assert store.info().dim is None or list(store.search(np.ones(DIM))) == []
        return
    keys, vectors = list(model), vectors_of([entry[0] for entry in model.values()]).astype(np.float64)
    found = 0
    for query in np.random.default_rng([seed, 5]).standard_normal((n, DIM)).astype(np.float32):
        distances = np.sqrt(((vectors - query.astype(np.float64)) ** 2).sum(axis=1))
        true = dict(zip(keys, distances.tolist(), strict=True))
        best = np.sort(distances)[:10]
        for exact in (True, False):
            hits = store.search(query, 10, exact=exact)
            assert len(set(hits.keys)) == len(hits.keys) == len(best)
            for hit in hits:
                assert abs(hit.distance - true[hit.key]) < 1e-4
                assert (hit.label, hit.data) == model[hit.key][1:]
            if exact:
                np.testing.assert_allclose(hits.distances, best, atol=1e-4)
            else:
                found += sum(hit.distance <= best[-1] + 1e-4 for hit in hits) == len(best)
    assert found >= n - 2, f"{n - found} of {n} searches missed something"


def _assert_writable(store: Store, world: World, seed: int) -> None:
    """The store takes writes; with some seeds the graphs are built anew, or it is compacted."""
    op = writing("add", ["after the crash"], 10_000_000 + seed)
    call(store, op)
    hit = store.search(vectors_of(op["vectors"])[0], 1)[0]
    assert hit.distance == 0
    if seed % 3 == 0:
        store.optimize()
        assert_finds(store, applied(world.items, op), seed, n=2)
    store.delete("after the crash")
    assert len(store) == len(world.items)
    if seed % 8 == 1:
        store.compact()
        assert_remembers(store, world, seed)
