"""What a snapshot costs: to take it, to open it, to search it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

import simstore
from bench.context import Context
from bench.datasets import near
from bench.process import Task, seconds_beyond
from bench.progress import progress
from bench.report import Row, at_least, at_most, row_of
from bench.search import search_each
from bench.stores import copy_store, disk_size, found_by_store, made_once, overwrite
from bench.timing import interleave, ratio_of, seconds

__all__ = ["open_snapshot_case", "search_snapshot_case", "take_case"]

_REPEATS = 11
_SEARCH_REPEATS = 9
_CHANGED = 20  # one of so many items is replaced after the snapshot
_BATCH = 1_000
_EF = 64
_NAME = "before"
_STATES = {"of the present": False, "and much has changed since": True}


def take_case(context: Context) -> Iterator[Row]:
    """Snapshots of one store, one after the other."""
    times, grown = [], []
    path = copy_store(context.store_path, context.fresh("taken.sim"))
    with simstore.open(path, background=False) as store:
        for at in range(context.settings.repeats_or(_REPEATS)):
            before = disk_size(path)
            times.append(seconds(partial(store.snapshot, f"snapshot {at}")) * 1e3)
            after = disk_size(path)
            grown.append(max(after.apparent - before.apparent, after.allocated - before.allocated) / 1024)
        n = store.count()
    low, high = np.percentile(times, [10, 90])
    note = f"{len(times)} in all, the longest {max(times):.2f} ms"
    yield Row(f"snapshot of {n:,} items", median(times), "ms", note, at_most(10.0), float(low), float(high))
    note = f"the largest growth of {len(grown)}; all together {sum(grown):,.0f} KB"
    yield Row("  and how much larger the files become", max(grown), "KB", note, at_most(64.0))


def open_snapshot_case(context: Context) -> Iterator[Row]:
    """New processes, from their start to the first answer, beyond interpreter and numpy: a snapshot, and its store to read."""
    query = str(context.fresh("query.npy"))
    np.save(query, context.dataset.queries[:1])
    paths = {state: _remembered(context, is_changed) for state, is_changed in _STATES.items()}
    tasks: list[Task] = [("numpy",)]
    for path in paths.values():
        tasks += [("open", str(path), query, "r", _NAME), ("open", str(path), query, "r"), ("open", str(path), query)]
    with progress("opens in new processes"):
        times = seconds_beyond(tasks, repeats=context.settings.repeats_or(_REPEATS))
    for at, state in enumerate(paths):
        snapshot_s, store_s, writable_s = times[3 * at : 3 * at + 3]
        ratio = ratio_of(snapshot_s, store_s)
        note = f"{ratio.first_s:.3f} s, the store itself {ratio.second_s:.3f} s, to be written {median(writable_s):.3f} s"
        yield row_of(f"open a snapshot, {state}", ratio, note, at_most(1.2))


def search_snapshot_case(context: Context) -> Iterator[Row]:
    """Searches of a snapshot, beside those of a store that holds just these items."""
    queries, truth = context.dataset.queries, context.truth
    with simstore.open(context.store_path, mode="r") as plain:
        for state, is_changed in _STATES.items():
            with simstore.open(_remembered(context, is_changed), snapshot=_NAME) as remembered:
                ratio = interleave(
                    partial(search_each, remembered, queries, _EF),
                    partial(search_each, plain, queries, _EF),
                    repeats=context.settings.repeats_or(_SEARCH_REPEATS),
                )
                ours, theirs = (truth.recall(found_by_store(store, queries, _EF)) for store in (remembered, plain))
                share = len(remembered) / len(context.dataset.base)
            n = len(queries)
            note = f"{ratio.first_s / n * 1e6:.0f} µs a query, a plain store {ratio.second_s / n * 1e6:.0f} µs, at ef {_EF}"
            yield row_of(f"search a snapshot, {state}", ratio, note, at_most(1.2))
            note = f"recall {ours:.4f}, a plain store {theirs:.4f}"
            yield Row("  its recall, less a plain store's", ours - theirs, "", note, at_least(-0.005))
            yield Row("  and its items are all there", share, "%", "", at_least(1.0))


def _remembered(context: Context, is_changed: bool) -> Path:
    """A closed store with a snapshot, optimized; since then a part of its items may have been replaced."""
    if not is_changed:
        return made_once(context.folder / context.name_of(context.dataset, "remembered"), lambda path: _remember(context, path))
    return made_once(context.folder / context.name_of(context.dataset, "changed"), lambda path: _change(context, path))


def _remember(context: Context, path: Path) -> None:
    with simstore.open(copy_store(context.store_path, path), background=False) as store:
        store.snapshot(_NAME)


def _change(context: Context, path: Path) -> None:
    base, seed = context.dataset.base, context.settings.seed + 30
    n = max(1, len(base) // _CHANGED)
    keys = np.random.default_rng(seed).choice(len(base), n, replace=False).tolist()
    _remember(context, path)
    with simstore.open(path, background=False) as store:
        with progress(f"replaces {n:,} items after the snapshot"):
            vectors = near(base, n, seed)
            for start in range(0, n, _BATCH):
                overwrite(store, keys[start : start + _BATCH], vectors[start : start + _BATCH])
        with progress("optimize after the changes"):
            store.optimize()
