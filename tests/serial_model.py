"""Operations on a few keys that several processes do at once, and what each of them does and returns when they are done in turn."""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore import Store
from simstore.errors import KeyExistsError, KeyNotFoundError, SnapshotExistsError, SnapshotNotFoundError

KEYS: tuple[str | int, ...] = ("a", "b", "c", "d", 0, 1, 7)
NAMES = ("one", "two")
REFUSALS = (KeyExistsError, KeyNotFoundError, SnapshotExistsError, SnapshotNotFoundError)
DIM = 4

Op = dict[str, Any]


class Value(NamedTuple):
    """What an item holds: which vector, and the number of the operation that wrote label and data."""

    vector: int
    number: int


def vector_of(number: int) -> NDArray[np.float32]:
    return np.array([number, 1, -number, 0.5], np.float32)


def label_of(number: int) -> str | None:
    return None if number % 4 == 0 else f"label {number % 3}"


def data_of(number: int) -> dict[str, int]:
    return {"number": number, "group": number % 5}


def random_op(rnd: random.Random, number: int) -> Op:
    """Any operation; what it writes carries the number."""
    keys = rnd.sample(KEYS, rnd.choice([1, 1, 2, 3]))
    kind = rnd.choices(
        ["upsert", "add", "add_numbered", "update", "delete", "delete_where", "snapshot", "delete_snapshot", "restore"],
        [30, 12, 8, 15, 20, 6, 5, 2, 2],
    )[0]
    if kind == "add_numbered":
        keys = [None] * rnd.choice([1, 2])
    return {
        "kind": kind, "keys": keys, "number": number, "missing": rnd.choice(["raise", "ignore"]), "group": rnd.randrange(5),
        "name": rnd.choice(NAMES),
    }  # fmt: skip


def done(store: Store, op: Op) -> Any:
    """Does it; what it returned, or the name of the error that refused it."""
    keys, number, n = op["keys"], op["number"], len(op["keys"])
    columns: dict[str, Any] = {"labels": [label_of(number)] * n, "data": [data_of(number)] * n}
    try:
        match op["kind"]:
            case "upsert":
                return tuple(store.upsert(keys, np.stack([vector_of(number)] * n), **columns))
            case "add":
                return store.add(keys, np.stack([vector_of(number)] * n), **columns)
            case "add_numbered":
                return store.add(None, np.stack([vector_of(number)] * n), **columns)
            case "update":
                return store.update(keys, **columns)
            case "delete":
                return store.delete(keys, missing=op["missing"])
            case "delete_where":
                return store.delete(where={"group": op["group"]})
            case "snapshot":
                return store.snapshot(op["name"]).count
            case "delete_snapshot":
                return store.delete_snapshot(op["name"])
            case "restore":
                restored = store.restore(op["name"])
                return restored.undo, restored.n_restored, restored.n_removed
    except REFUSALS as err:
        return type(err).__name__
    raise AssertionError(op["kind"])


class Row(NamedTuple):
    key: str | int
    value: Value
    created_seq: int


class Serial:
    """A store that does one operation after the other."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.buried: dict[int, int] = {}  # row → seq
        self.live: dict[str | int, int] = {}  # key → row
        self.snapshots: dict[str, dict[str | int, int]] = {}
        self._next_number = 0

    def apply(self, op: Op, seq: int) -> Any:
        """What the operation returns when it is the next; what it changes, it changes in transaction seq."""
        keys, number = op["keys"], op["number"]
        present = [key for key in keys if key in self.live]
        match op["kind"]:
            case "upsert":
                self._write(keys, [Value(number, number)] * len(keys), seq)
                return len(keys) - len(present), len(present)
            case "add":
                if present:
                    return "KeyExistsError"
                self._write(keys, [Value(number, number)] * len(keys), seq)
                return keys
            case "add_numbered":
                keys = [self._next_number + i for i in range(len(keys))]
                self._write(keys, [Value(number, number)] * len(keys), seq)
                return keys
            case "update":
                if len(present) < len(keys):
                    return "KeyNotFoundError"
                self._write(keys, [Value(self.rows[self.live[key]].value.vector, number) for key in keys], seq)
                return None
            case "delete":
                if op["missing"] == "raise" and len(present) < len(keys):
                    return "KeyNotFoundError"
                return self._bury(present, seq)
            case "delete_where":
                return self._bury([key for key in self.live if self.value(key).number % 5 == op["group"]], seq)
        return self._remember(op["kind"], op["name"], seq)

    def value(self, key: str | int) -> Value:
        return self.rows[self.live[key]].value

    def _write(self, keys: list[Any], values: list[Value], seq: int) -> None:
        for key, value in zip(keys, values, strict=True):
            self._bury([key] if key in self.live else [], seq)
            self.live[key] = len(self.rows)
            self.rows.append(Row(key, value, seq))
            if isinstance(key, int):
                self._next_number = max(self._next_number, key + 1)

    def _bury(self, keys: list[Any], seq: int) -> int:
        for key in keys:
            self.buried[self.live.pop(key)] = seq
        return len(keys)

    def _remember(self, kind: str, name: str, seq: int) -> Any:
        if (name in self.snapshots) == (kind == "snapshot"):
            return "SnapshotExistsError" if kind == "snapshot" else "SnapshotNotFoundError"
        if kind == "snapshot":
            self.snapshots[name] = dict(self.live)
            return len(self.live)
        if kind == "delete_snapshot":
            del self.snapshots[name]
            return None
        held = self.snapshots[name]
        same = {key for key, row in held.items() if key in self.live and self.value(key) == self.rows[row].value}
        then = {row for key, row in held.items() if key not in same}
        now = {row for key, row in self.live.items() if key not in same}
        undo = next(
            undo for n in range(1, 1000) if (undo := f"before-restore-{name}" + f"-{n}" * (n > 1)) not in self.snapshots
        )
        self.snapshots[undo] = dict(self.live)
        self._bury([self.rows[row].key for row in now], seq)
        for row in sorted(then):
            self._write([self.rows[row].key], [self.rows[row].value], seq)
        return undo, len(then), len(now)


def changes_nothing(op: Op, result: Any) -> bool:
    """Whether a call that returned this has left the state as it was."""
    return isinstance(result, str) or (op["kind"] in ("delete", "delete_where") and result == 0)


def contents(items: Mapping[str | int, Value]) -> dict[Any, Any]:
    """Keys with vector, label and data."""
    return {
        key: (vector_of(value.vector).tolist(), label_of(value.number), data_of(value.number)) for key, value in items.items()
    }
