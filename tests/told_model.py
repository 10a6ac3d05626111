"""A writer's calls in their order, and what a reader may see that was told how many of them have returned."""

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore import Hits, Store, field
from simstore.errors import KeyNotFoundError

DIM = 8
KEYS = tuple(f"key {i}" for i in range(40))
_AHEAD = 5000  # calls that the writer may be ahead of what it told

Op = dict[str, Any]


class Value(NamedTuple):
    """What an item holds: the number of its vector, and the number that label and data tell of."""

    vector: int
    number: int


class State(NamedTuple):
    """Items in the order in which they were written, and the names of the snapshots."""

    items: dict[str, Value]
    snapshots: frozenset[str]


@lru_cache(20_000)
def vector_of(number: int) -> NDArray[np.float32]:
    """Of each number another one, the same in each process."""
    return (np.sin(np.arange(1, DIM + 1) * (number * 0.7391 + 1.0)) * 10).astype(np.float32)


QUERY = vector_of(-12345)
QUERIES = np.stack([vector_of(-i) for i in range(1, 41)])


def label_of(number: int) -> str | None:
    return None if number % 4 == 0 else f"label {number % 3}"


# -- the writer's calls -------------------------------------------------------------------------------------------------


def operations(seed: int) -> Iterator[Op]:
    """The calls, without end."""
    for op, _ in history(seed):
        yield op


def history(seed: int) -> Iterator[tuple[Op, State]]:
    """The calls, and the state after each."""
    rnd, state, number = random.Random(seed), State({}, frozenset()), 0
    while True:
        op = _next(rnd, state, number)
        state = _after(state, op)
        number += 10
        yield op, state


def _next(rnd: random.Random, state: State, number: int) -> Op:
    live, gone = list(state.items), [key for key in KEYS if key not in state.items]
    chance = rnd.random()
    if chance < 0.1 and gone:
        return {"kind": "add", "keys": rnd.sample(gone, min(len(gone), 2)), "number": number}
    if chance < 0.25 and live:
        return {"kind": "update", "keys": rnd.sample(live, min(len(live), 3)), "number": number}
    if chance < 0.35 and live:
        return {"kind": "delete", "keys": rnd.sample(live, min(len(live), 2))}
    if chance < 0.4:
        return {"kind": "delete_where", "group": rnd.randrange(7)}
    if chance < 0.45:
        name = rnd.choice(["one", "two"])
        return {"kind": "delete_snapshot" if name in state.snapshots else "snapshot", "name": name}
    return {"kind": "upsert", "keys": rnd.sample(KEYS, rnd.choice([1, 1, 1, 8])), "number": number}


def _after(state: State, op: Op) -> State:
    kind, items = op["kind"], dict(state.items)
    if kind in ("snapshot", "delete_snapshot"):
        return State(items, state.snapshots ^ {op["name"]})
    if kind == "delete_where":
        return State({key: value for key, value in items.items() if _group(value) != op["group"]}, state.snapshots)
    for i, key in enumerate(op["keys"]):
        old = items.pop(key, None)
        if kind != "delete":
            number = op["number"] + i
            items[key] = Value(old.vector if kind == "update" and old is not None else number, number)
    return State(items, state.snapshots)


def do(store: Store, op: Op) -> None:
    """Does a call on a store."""
    kind, keys = op["kind"], op.get("keys", [])
    numbers = [op.get("number", 0) + i for i in range(len(keys))]
    columns: dict[str, Any] = {
        "labels": [label_of(n) for n in numbers],
        "data": [{"number": n, "group": _group(Value(0, n))} for n in numbers],
    }
    match kind:
        case "add":
            store.add(keys, np.stack([vector_of(n) for n in numbers]), **columns)
        case "upsert":
            store.upsert(keys, np.stack([vector_of(n) for n in numbers]), **columns)
        case "update":
            store.update(keys, **columns)
        case "delete":
            store.delete(keys)
        case "delete_where":
            store.delete(where=field("group") == op["group"])
        case "snapshot":
            store.snapshot(op["name"])
        case "delete_snapshot":
            store.delete_snapshot(op["name"])


def _group(value: Value) -> int:
    return value.number % 7


# -- what may be seen ---------------------------------------------------------------------------------------------------


class States:
    """The states that a reader may see next: from the newest that it has seen, or was told of, on."""

    def __init__(self, seed: int) -> None:
        self._history = history(seed)
        self._states = [State({}, frozenset())]
        self._first = 0  # the number of calls before the first of them

    def have_seen(self, n: int) -> None:
        """What is seen from now on comes after n calls, or later."""
        n_gone = n - self._first
        if n_gone > 0:
            self._ahead(n_gone)
            del self._states[:n_gone]
            self._first = n

    def _ahead(self, n: int) -> State:
        self._states += (state for _, state in islice(self._history, max(0, n + 1 - len(self._states))))
        return self._states[n]

    def ask(self, store: Store, rnd: random.Random) -> int:
        """Asks the store something, and finds the state that the answer tells of; returns 1."""
        question = rnd.choice(QUESTIONS)
        answer, fits = question(store, rnd)
        for n in range(_AHEAD):
            if fits(self._ahead(n)):
                self.have_seen(self._first + n)
                return 1
        raise AssertionError(
            f"{question.__name__} after {self._first} calls: {answer}, which is no state from then on; then it was "
            f"{self._states[0]}"
        )


Fits = Callable[[State], bool]


def _get(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    key = rnd.choice(KEYS)
    try:
        item = _content(store.get(key))
    except KeyNotFoundError:
        item = None
    return (key, item), lambda state: _item(state, key) == item


def _get_many(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    items = [None if item is None else _content(item) for item in store.get_many(KEYS)]
    return items, lambda state: [_item(state, key) for key in KEYS] == items


def _in(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    key = rnd.choice(KEYS)
    is_there = key in store
    return (key, is_there), lambda state: (key in state.items) == is_there


def _len(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    n = len(store)
    return n, lambda state: len(state.items) == n


def _count(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    group = rnd.randrange(7)
    n = store.count(field("group") == group)
    return (group, n), lambda state: sum(_group(value) == group for value in state.items.values()) == n


def _labels(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    labels = store.labels()

    def fits(state: State) -> bool:
        found: dict[Any, int] = {}
        for value in state.items.values():
            found[label_of(value.number)] = found.get(label_of(value.number), 0) + 1
        return found == labels

    return labels, fits


def _scan(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    items = [_content(item) for item in store.scan()]
    return items, lambda state: [_item(state, key) for key in state.items] == items


def _scan_where(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    group = rnd.randrange(7)
    items = [_content(item) for item in store.scan(field("group") == group)]
    return items, lambda state: [_item(state, key) for key, value in state.items.items() if _group(value) == group] == items


def _search_exact(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    hits = store.search(QUERY, 8, exact=True) if store.info().dim else []
    return hits, lambda state: _is_answer(state.items, QUERY, 8, hits)


def _search_where(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    group = rnd.randrange(7)
    hits = store.search(QUERY, 3, where=field("group") == group) if store.info().dim else []
    return hits, lambda state: _is_answer(
        {key: value for key, value in state.items.items() if _group(value) == group}, QUERY, 3, hits
    )


def _search(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    """By the graph, which may miss something; what it finds is right."""
    hits = store.search(QUERY, 3) if store.info().dim else []

    def fits(state: State) -> bool:
        return len(hits) == min(3, len(state.items)) and all(
            hit.key in state.items and state.items[hit.key].number == hit.data["number"] for hit in hits
        )

    return hits, fits


def _search_many(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    batch = list(store.search_many(QUERIES, 4, exact=True, threads=2)) if store.info().dim else []
    return batch, lambda state: all(
        _is_answer(state.items, query, 4, hits) for query, hits in zip(QUERIES, batch, strict=False)
    )


def _info(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    info = store.info()

    def fits(state: State) -> bool:
        labels = {label_of(value.number) for value in state.items.values()} - {None}
        return (info.count, info.n_labels) == (len(state.items), len(labels))

    return info, fits


def _snapshots(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    names = {snapshot.name for snapshot in store.snapshots()}
    return names, lambda state: state.snapshots == names


def _explain(store: Store, rnd: random.Random) -> tuple[Any, Fits]:
    plan = store.explain(QUERY) if store.info().dim else None
    return plan, lambda state: plan is None or plan.count == len(state.items)


QUESTIONS: tuple[Callable[[Store, random.Random], tuple[Any, Fits]], ...] = (
    _get, _get_many, _in, _len, _count, _labels, _scan, _scan_where, _search_exact, _search_where, _search, _search_many, _info,
    _snapshots, _explain,
)  # fmt: skip


def _content(item: Any) -> Any:
    return item.key, item.label, item.data["number"], item.vector.tobytes()


def _item(state: State, key: str) -> Any:
    value = state.items.get(key)
    return None if value is None else (key, label_of(value.number), value.number, vector_of(value.vector).tobytes())


def _is_answer(items: dict[str, Value], query: NDArray[np.float32], k: int, hits: Hits | list[Any]) -> bool:
    """Whether hits are the nearest k of items."""
    true = sorted((float(np.linalg.norm(vector_of(value.vector) - query)), key) for key, value in items.items())[:k]
    return (
        [(hit.key, hit.data["number"]) for hit in hits] == [(key, items[key].number) for _, key in true]
        and np.allclose([hit.distance for hit in hits], [distance for distance, _ in true], atol=1e-4)
    )  # fmt: skip
