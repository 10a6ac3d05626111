"""A mixed load: what the writing process does, and what each of the reading ones does."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import simstore
from bench.settings import K
from bench.stores import overwrite

__all__ = ["COMPACTING", "Outcome", "Work", "read", "write"]

COMPACTING = "compacting"
"""What the writer sends before it compacts."""

_COUNTER = "counter"
_BATCH = 20
_PAUSE_S = 0.02
_SEARCH_EVERY = 10  # commits: a search is what makes the maintenance look
_AFTERWARDS = 20  # commits after compact()
_EF = 64
_READY_S = 120.0
_MOST_ERRORS = 10


@dataclass(frozen=True, slots=True)
class Work:
    """What a process is told.

    Attributes:
        path: The store.
        n: It has the keys 0 … n - 1.
        vectors: What is written, or asked for; float32 [any number, dim].
        seconds: How long the writer writes before it compacts.
        seed: Of what the process draws.
    """

    path: Path
    n: int
    vectors: NDArray[np.float32] = field(repr=False)
    seconds: float
    seed: int


@dataclass(slots=True)
class Outcome:
    """What a process tells at its end.

    Attributes:
        errors: Tracebacks.
        n_calls: Calls of the store.
        n_told: How many commits a reader was told of and looked for.
        stale: The looks that did not see theirs.
        search_s: The times of a reader's other searches.
        n_written: Items that the writer wrote before it compacted.
    """

    errors: list[str] = field(default_factory=list)
    n_calls: int = 0
    n_told: int = 0
    stale: list[str] = field(default_factory=list)
    search_s: list[float] = field(default_factory=list)
    n_written: int = 0

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Notes an error in the block, and goes on."""
        try:
            yield
        except Exception:
            self.errors.append(traceback.format_exc())


# -- writing -----------------------------------------------------------------------------------------------------------


def write(work: Work, ready: Barrier, tells: Sequence[Connection], result: Connection) -> None:
    """Overwrites items and a counter, and tells the readers each count when the call that wrote it has returned."""
    outcome = Outcome()
    with outcome.noting(), simstore.open(work.path) as store:
        writer = _Writer(work, store, tells, outcome)
        ready.wait(_READY_S)
        end = time.monotonic() + work.seconds
        while time.monotonic() < end and len(outcome.errors) < _MOST_ERRORS:
            writer.commit()
        outcome.n_written = writer.n_written
        result.send(COMPACTING)
        with outcome.noting():
            store.compact()
        for _ in range(_AFTERWARDS):
            writer.commit()
    if outcome.errors:
        ready.abort()
    for tell in tells:
        tell.close()
    result.send(outcome)


class _Writer:
    def __init__(self, work: Work, store: simstore.Store, tells: Sequence[Connection], outcome: Outcome) -> None:
        self._work, self._store, self._tells, self._outcome = work, store, tells, outcome
        self._rng = np.random.default_rng(work.seed)
        self._count = 0
        self.n_written = 0

    def commit(self) -> None:
        """Two commits: some items, and the counter; now and then a search."""
        work, store, rng = self._work, self._store, self._rng
        with self._outcome.noting():
            keys = rng.choice(work.n, min(_BATCH, work.n), replace=False).tolist()
            overwrite(store, keys, work.vectors[rng.integers(len(work.vectors), size=len(keys))])
            count = self._count + 1
            store.upsert(_COUNTER, work.vectors[0], data={"count": count})
            self._count = count
            for tell in self._tells:
                tell.send(count)
            self.n_written += len(keys) + 1
            self._outcome.n_calls += 2
            if count % _SEARCH_EVERY == 0:
                store.search(work.vectors[count % len(work.vectors)], K, ef=_EF)
                self._outcome.n_calls += 1
        time.sleep(_PAUSE_S)


# -- reading -----------------------------------------------------------------------------------------------------------


def read(work: Work, ready: Barrier, told: Connection, result: Connection) -> None:
    """Searches and reads; when told of a commit, the next call must see it. Ends when the writer does."""
    outcome = Outcome()
    with outcome.noting(), simstore.open(work.path, mode="r") as store:
        rng, looks = np.random.default_rng(work.seed), cycle(_LOOKS)
        ready.wait(_READY_S)
        while len(outcome.errors) < _MOST_ERRORS:
            try:
                count = _newest(told)
            except EOFError:
                break
            if count is not None:
                with outcome.noting():
                    _look(store, work, next(looks), count, outcome)
            with outcome.noting():
                start = time.perf_counter()
                list(store.search(work.vectors[rng.integers(len(work.vectors))], K, ef=_EF))
                outcome.search_s.append(time.perf_counter() - start)
                store.get(int(rng.integers(work.n)))
                outcome.n_calls += 2
    result.send(outcome)


def _newest(told: Connection) -> int | None:
    """The newest count that has been told since the last look, None if none has.

    Raises:
        EOFError: None will be any more.
    """
    newest: int | None = None
    while told.poll():
        try:
            newest = told.recv()
        except EOFError:
            if newest is None:
                raise
            break
    return newest


Look = Callable[[simstore.Store, Work, int], int]


def _look(store: simstore.Store, work: Work, look: Look, count: int, outcome: Outcome) -> None:
    seen = look(store, work, count)
    outcome.n_calls += 1
    outcome.n_told += 1
    if seen < count:
        outcome.stale.append(f"{look.__name__} saw {seen} where {count} was told")


def _by_get(store: simstore.Store, _work: Work, _count: int) -> int:
    return int(store.get(_COUNTER).data["count"])


def _by_search(store: simstore.Store, work: Work, _count: int) -> int:
    hits = store.search(work.vectors[0], 1, where=simstore.key == _COUNTER)
    return int(hits[0].data["count"]) if hits else -1


def _by_count(store: simstore.Store, _work: Work, count: int) -> int:
    return count if store.count(simstore.key == _COUNTER) == 1 else -1


def _by_filter(store: simstore.Store, work: Work, count: int) -> int:
    where = (simstore.key == _COUNTER) & (simstore.field("count") >= count)
    return count if store.search(work.vectors[0], 1, where=where).keys == [_COUNTER] else -1


_LOOKS: tuple[Look, ...] = (_by_get, _by_search, _by_filter, _by_count)
