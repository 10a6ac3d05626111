"""A store to damage, what it should answer, and what becomes of it. Run as a script it flips random bits, a process for each:

python tests/damaged.py TEMPLATE WORK FIRST_SEED STOP_SEED
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import simstore
from simstore import SimstoreError, Store

DIM, N = 16, 900
SECONDS = 60  # until a case counts as hanging


def key_of(i: int) -> str | int:
    return f"key-{i}" if i % 3 else i


def fill(path: Path, *, metric: str = "l2", dim: int = DIM, seed: int = 1, n: int = N) -> dict[Any, Any]:
    """Writes a store: a segment with dead rows and equal vectors in it, a tail; returns {key: (vector, label, data)}."""
    vectors = np.random.default_rng(seed).standard_normal((n + 200, dim)).astype(np.float32)
    vectors[20:40] = vectors[3]
    items: dict[Any, Any] = {}
    with simstore.open(path, metric=metric, background=False, ef_construction=40) as store:

        def upsert(which: range, start: int) -> None:
            keys = [key_of(i) for i in which]
            labels = [None if i % 5 == 0 else f"label {i % 7}" for i in which]
            data = [{"number": i, "text": "x" * (i % 50)} for i in which]
            store.upsert(keys, vectors[start : start + len(which)], labels=labels, data=data)
            for j, key in enumerate(keys):
                items[key] = (vectors[start + j], labels[j], data[j])

        upsert(range(n), 0)
        store.optimize()
        gone = [key_of(i) for i in range(100, 200)]
        store.delete(gone)
        for key in gone:
            del items[key]
        upsert(range(300, 400), n)  # replaced, in the tail now
        upsert(range(n, n + 60), n + 100)
        upsert(range(n + 60, n + 61), n + 160)  # alone: carries its vector
    return items


def oracle(items: dict[Any, Any], query: NDArray[np.float32]) -> tuple[list[Any], NDArray[np.float64]]:
    """Keys and l2 distances of all items, nearest first."""
    keys = list(items)
    vectors = np.array([items[key][0] for key in keys], np.float64)
    distances = np.sqrt(((vectors - query.astype(np.float64)) ** 2).sum(axis=1))
    order = np.argsort(distances, kind="stable")
    return [keys[i] for i in order], distances[order]


def queries_of(items: dict[Any, Any], n: int = 8) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(2)
    some = list(items.values())[:: max(1, len(items) // n)][:n]
    return [(vector + rng.normal(0, 0.3, len(vector))).astype(np.float32) for vector, _, _ in some]


def wrong_hits(items: dict[Any, Any], hits: Any, query: NDArray[np.float32], k: int, *, exact: bool) -> str | None:
    """What is wrong with an answer; None if nothing is."""
    keys, distances = oracle(items, query)
    true = dict(zip(keys, distances.tolist(), strict=True))
    if len(hits) != k or len(set(hits.keys)) != k:
        return f"{len(hits)} hits, {len(set(hits.keys))} different ones, where {k} were asked for"
    for hit in hits:
        if hit.key not in true or abs(true[hit.key] - hit.distance) > 1e-4:
            return f"{hit.key!r} at {hit.distance}, where {true.get(hit.key)} is right"
        if (hit.label, hit.data) != items[hit.key][1:]:
            return f"{hit.key!r} has {hit.label!r}, {hit.data!r}"
    if exact and not np.allclose(hits.distances, distances[:k], atol=1e-4):
        return f"distances {hits.distances} where {distances[:k]} are right"
    return None


def first_wrong(store: Store, items: dict[Any, Any], *, searches_only: bool = False) -> str | None:
    """Compares everything a store answers with what it should; the first difference, or None."""
    queries = queries_of(items)
    right = 0
    for exact in (False, True):
        for query in queries:
            hits = store.search(query, 10, exact=exact)
            if (what := wrong_hits(items, hits, query, 10, exact=exact)) is not None:
                return f"search(exact={exact}): {what}"
            right += len(set(hits.keys) & set(oracle(items, query)[0][:10]))
    if right < 0.97 * 20 * len(queries):
        return f"recall {right / (20 * len(queries))}"
    for query, hits in zip(queries, store.search_many(np.array(queries), 10, threads=2), strict=True):
        if (what := wrong_hits(items, hits, query, 10, exact=False)) is not None:
            return f"search_many: {what}"
    keys, distances = oracle(items, queries[0])
    within = store.search(queries[0], None, max_distance=float(distances[30] + distances[31]) / 2)
    if set(within.keys) != set(keys[:31]):
        return f"search(max_distance=…): {within.keys}"
    if searches_only:
        return None
    if len(store) != len(items):
        return f"len {len(store)}"
    for name, found in (("scan", list(store.scan())), ("get_many", store.get_many(list(items)))):
        for item in found:
            if item is None or item.key not in items:
                return f"{name}: {item!r}"
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
    return "a deleted key is there" if key_of(150) in store else None


def outcome(path: Path, items: dict[Any, Any]) -> tuple[str, str]:
    """Opens the store and uses all of it: ("right" | "raised" | "listed" | "SILENT" | "error", details)."""
    try:
        store = simstore.open(path, background=False)
    except SimstoreError as err:
        return "raised", f"open: {err}"
    except Exception as err:
        return "error", f"open: {type(err).__name__}: {err}"
    kinds: list[tuple[str, str]] = []
    calls: list[tuple[str, Callable[[], str | None]]] = [
        ("searches", lambda: first_wrong(store, items, searches_only=True)),
        ("all", lambda: first_wrong(store, items)),
        ("info", lambda: None if store.info().count == len(items) else f"info: {store.info()}"),
        ("gone", lambda: "a deleted key is there" if store.get_many([key_of(150)]) != [None] else None),
    ]
    for name, call in calls:
        kinds.append(_kind(name, call))
    listed = _kind("check", lambda: "; ".join(f"{p.where}: {p.what}" for p in store.check(deep=True)) or None)
    if listed[0] == "wrong":  # what check() says is no error but what it is there for
        listed = ("listed", listed[1])
    _kind("close", store.close)
    for kind in ("error", "wrong", "raised"):
        for one in (*kinds, listed):
            if one[0] == kind and not (kind == "wrong" and listed[0] == "listed"):
                return ("SILENT" if kind == "wrong" else kind), one[1]
    return listed if listed[0] == "listed" else ("right", "")


def _kind(name: str, call: Callable[[], str | None]) -> tuple[str, str]:
    try:
        what = call()
    except SimstoreError as err:
        return "raised", f"{name}: {type(err).__name__}: {err}"
    except Exception as err:
        where = traceback.extract_tb(err.__traceback__)[-1]
        return "error", f"{name}: {type(err).__name__}: {err} ({Path(where.filename).name}:{where.lineno})"
    return ("right", "") if what is None else ("wrong", f"{name}: {what}")


# -- random flips, in processes of their own ----------------------------------------------------------------------------


def flip_one(path: Path, seed: int) -> str:
    """Flips one bit of data.mdb: half of the time anywhere, else in a page that is not free and all zeros."""
    content = bytearray((path / "data.mdb").read_bytes())
    rng = np.random.default_rng(seed)
    at = int(rng.integers(len(content)))
    while seed % 2 and not any(content[at // 64 * 64 : at // 64 * 64 + 64]):
        at = int(rng.integers(len(content)))
    content[at] ^= 1 << int(rng.integers(8))
    (path / "data.mdb").write_bytes(content)
    return f"byte {at} (page {at // 4096}, {at % 4096})"


def in_child(work: Callable[[], tuple[str, str]], result: Path) -> tuple[str, str]:
    """Runs work in a forked process; ("CRASH", …) if a signal ended it."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        try:
            result.write_text(json.dumps(work()))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return ("HANG" if name == "SIGALRM" else "CRASH"), name
    kind, what = json.loads(result.read_text())
    return kind, what


def main(template: Path, work: Path, first: int, stop: int) -> None:
    """Prints a line of JSON for each seed."""
    items = fill(template) if not template.exists() else None
    assert items is not None, "the template is made here, so that what it should hold is known"
    for seed in range(first, stop):
        target = work / f"flip-{seed}.sim"
        shutil.copytree(template, target)
        where = flip_one(target, seed)
        kind, what = in_child(lambda target=target: outcome(target, items), work / "result.json")  # type: ignore[misc]
        print(json.dumps([seed, kind, where, what[:300]]), flush=True)
        shutil.rmtree(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
