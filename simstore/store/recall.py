"""How well the graphs find: measured against the exact scan, on the store's own vectors.

A stored vector is an easy query: the walk meets its node, whose links are the answer. So each is searched as if its node were
not there (``Segment.search_without``), which comes close to what a new query of the same kind would find.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore.index import Found, Segment, scan
from simstore.metrics import METRICS
from simstore.reports import RecallEstimate
from simstore.store.view import Loose, View
from simstore.types import Progress

__all__ = ["Recalls", "measured"]

_SAMPLE = 200
_LADDER = (8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
_MOST_KNOWN = 32
_Z95, _Z90 = 1.959964, 1.644854  # of a normal distribution: 95 % lie within, 95 % lie above


class _Sample(NamedTuple):
    """Nodes of one segment whose vectors serve as queries, and the true distance of each one's k-th neighbour, itself aside."""

    segment: Segment
    nodes: NDArray[np.uint32]
    queries: NDArray[np.float32]
    bounds: NDArray[np.float32]


def _samples(view: View, loose: list[Loose], k: int, n: int, seed: int, proceed: Callable[[int], None]) -> list[_Sample]:
    rng = np.random.default_rng(seed)
    plain = [_alive(view, segment) for segment in view.segments]
    total = sum(map(len, plain))
    chosen = np.sort(rng.choice(total, min(n, total), replace=False))
    samples, start = [], 0
    for segment, nodes in zip(view.segments, plain, strict=True):
        part = nodes[chosen[(chosen >= start) & (chosen < start + len(nodes))] - start]
        start += len(nodes)
        if len(part):
            queries = np.ascontiguousarray(segment.vectors()[part])
            samples.append(_Sample(segment, part, queries, _bounds(view, loose, segment, part, queries, k, proceed)))
    return samples


def _alive(view: View, segment: Segment) -> NDArray[np.uint32]:
    segment.verify()
    nodes = segment.plain_nodes()
    return nodes[view.alive.of_rows(segment.node_rows()[nodes])]


def _bounds(
    view: View,
    loose: list[Loose],
    own: Segment,
    nodes: NDArray[np.uint32],
    queries: NDArray[np.float32],
    k: int,
    proceed: Callable[[int], None],
) -> NDArray[np.float32]:
    """For each query the raw distance of its k-th nearest, itself aside."""
    rows, out = own.node_rows()[nodes], []
    for i in range(len(queries)):
        found = Found(1, k + 1)
        for segment in view.segments:
            segment.scan(queries[i : i + 1], view.allowed(segment)[0], found)
        _scan_loose(view, loose, queries[i : i + 1], found)
        proceed(1)
        numbers, distances = found.only()
        others = distances[np.array(numbers, np.uint64) != rows[i]]
        out.append(others[min(k, len(others)) - 1] if len(others) else np.inf)
    return np.array(out, np.float32)


def _scan_loose(view: View, loose: list[Loose], queries: NDArray[np.float32], found: Found) -> None:
    words = None if view.alive.is_full else view.alive.words
    for first, vectors, coarse in loose:
        scan(vectors, first, queries, METRICS[view.schema.metric], words, found, coarse)


def _found_shares(view: View, loose: list[Loose], samples: list[_Sample], k: int, ef: int) -> NDArray[np.float64]:
    """Of each query's k nearest, itself aside, the share that the graphs find."""
    shares = []
    for own, nodes, queries, bounds in samples:
        found = Found(len(queries), k)
        for segment in view.segments:
            allowed, n_alive = view.allowed(segment)
            if segment is own:
                segment.search_without(queries, ef, allowed, found, nodes)
            elif n_alive and not segment.search(queries, ef, allowed, found, min(k, n_alive)):
                segment.scan(queries, allowed, found)
        _scan_loose(view, loose, queries, found)
        is_there = np.arange(k) < found.counts[:, None]
        n_true = max(1, min(k, view.state.n_live - 1))
        shares.append(((found.distances <= bounds[:, None]) & is_there).sum(axis=1) / n_true)
    return np.minimum(np.concatenate(shares), 1.0) if shares else np.ones(0)


def measured(
    view: View, loose: list[Loose], k: int, ef: int, sample: int, seed: int, progress: Progress | None
) -> RecallEstimate:
    """The recall of the graphs at an ef, with its 95 % interval.

    The interval is Wilson's ("Probable inference, the law of succession, and statistical inference", JASA 1927), with as many
    trials as queries: the k answers of one query are no independent trials.

    Raises:
        CorruptStoreError: A segment's file is damaged.
    """
    done = 0

    def proceed(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress("recall", done, sample)

    samples = _samples(view, loose, k, sample, seed, proceed)
    shares = _found_shares(view, loose, samples, k, ef)
    if not len(shares):
        return RecallEstimate(1.0, 1.0, 1.0, k, ef, 0)
    low, high = _wilson(float(shares.mean()), len(shares), _Z95)
    return RecallEstimate(float(shares.mean()), low, high, k, ef, len(shares))


def _wilson(share: float, n: int, z: float) -> tuple[float, float]:
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), 1.0 if share == 1 else min(1.0, centre + half)


class Recalls:
    """Which ef reaches a recall, for the segments that there are: measured when first asked, and again when they change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sight: tuple[View, list[Loose]] | None = None  # what was measured
        self._samples: OrderedDict[int, list[_Sample]] = OrderedDict()
        self._curves: dict[int, dict[int, float]] = {}

    def forget(self) -> None:
        """Lets go of the segments."""
        with self._lock:
            self._sight = None
            self._samples.clear()
            self._curves.clear()

    def ef_for(self, view: View, loose: list[Loose], k: int, recall: float) -> int | None:
        """The smallest ef seen to reach the recall with a margin (the mean less 1.64 standard errors); None if none did.

        Raises:
            CorruptStoreError: A segment's file is damaged.
        """
        with self._lock:  # whoever asks for the same meanwhile waits for the answer
            if self._sight is None or self._sight[0].segments != view.segments:
                self._sight = view, loose
                self._samples.clear()
                self._curves.clear()
            curve = self._curves.setdefault(k, {})
            for ef in (max(k, _LADDER[0]), *(ef for ef in _LADDER if ef > k)):
                if ef not in curve:
                    curve[ef] = self._low(*self._sight, k, ef)
                if curve[ef] >= recall:
                    return ef
            return None

    def _low(self, view: View, loose: list[Loose], k: int, ef: int) -> float:
        if k not in self._samples:
            self._samples[k] = _samples(view, loose, k, _SAMPLE, 0, lambda n: None)
            if len(self._samples) > _MOST_KNOWN:
                self._samples.popitem(last=False)
        shares = _found_shares(view, loose, self._samples[k], k, ef)
        if len(shares) < 2:
            return 1.0
        return float(shares.mean() - _Z90 * shares.std(ddof=1) / math.sqrt(len(shares)))
