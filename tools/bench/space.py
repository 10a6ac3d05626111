"""What is left on the disk of items that were replaced."""

from collections.abc import Iterator

import numpy as np

import simstore
from bench.context import Context
from bench.datasets import Dataset, near
from bench.decay import wait_for_fold
from bench.progress import progress
from bench.report import Row, at_most
from bench.stores import disk_size, fill, new_store, overwrite

__all__ = ["space_case"]

_TURNOVERS = 10
_BATCH = 1_000
_BOUND = 1.3


def space_case(context: Context) -> Iterator[Row]:
    """A store after all its items were replaced ten times, and after compact(); beside a fresh one of the same items."""
    s = context.settings
    live = context.dataset.part(slice(0, min(s.turnover_n, len(context.dataset.base))))
    fresh_path, turned_path = context.fresh("fresh.sim"), context.fresh("turned.sim")
    with progress("a fresh store"), new_store(fresh_path, live, s) as fresh:
        fill(fresh, live.base)
        fresh.optimize()
    with new_store(turned_path, live, s) as store:
        _turn_over(store, live, s.seed)
    before = disk_size(turned_path)
    with progress("compact"), simstore.open(turned_path) as store:
        n_purged = store.compact().n_purged
    with progress("check"), simstore.open(turned_path) as store:
        n_missing, n_wrong = len(live.base) - len(store), len(store.check())
    base, after = disk_size(fresh_path), disk_size(turned_path)
    what = f"{_TURNOVERS} turnovers of {len(live.base):,}"
    note = f"{before.allocated / 1e6:.1f} MB to {base.allocated / 1e6:.1f} MB"
    yield Row(f"{what}: size before compact()", before.allocated / base.allocated, "x", note)
    for how in ("allocated", "apparent"):
        mine, fresh_size = getattr(after, how), getattr(base, how)
        note = f"{mine / 1e6:.1f} MB to {fresh_size / 1e6:.1f} MB; {n_purged:,} rows purged"
        yield Row(f"  and after it, {how}, to a fresh store", mine / fresh_size, "x", note, at_most(_BOUND))
    yield Row("  items missing, and problems found by check()", n_missing + n_wrong, "n", "", at_most(0))


def _turn_over(store: simstore.Store, live: Dataset, seed: int) -> None:
    """Writes all items, then others in their place, again and again, and at last those of the start."""
    n = len(live.base)
    fill(store, live.base)
    with progress(f"{_TURNOVERS} turnovers of {n:,} items", _TURNOVERS * n) as step:
        for turn in range(_TURNOVERS):
            is_last = turn == _TURNOVERS - 1
            vectors = live.base if is_last else near(live.base, n, seed + 50 + turn)
            order = np.random.default_rng(seed + turn).permutation(n)
            for start in range(0, n, _BATCH):
                rows = order[start : start + _BATCH]
                overwrite(store, rows.tolist(), vectors[rows])
                step(turn * n + start)
            wait_for_fold(store, live.queries[0])
