"""explain(): how a search is done, part by part, and what it cost."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from simstore.index import Found, Segment, scan
from simstore.metrics import METRICS
from simstore.reports import Plan, PlanPart
from simstore.store.request import Request
from simstore.store.sight import Path, Sight, search_segment
from simstore.store.view import Loose

__all__ = ["explained"]


def explained(sight: Sight, query: NDArray[np.float32], request: Request, *, everything: bool) -> Plan:
    """The plan of a search for one prepared query [1, dim], by carrying it out.

    Args:
        everything: So many answers are wanted that all rows are compared.

    Raises:
        CorruptStoreError: A segment's file is damaged.
    """
    view, chosen = sight.view, sight.chosen
    k = sight.n if request.k is None else min(request.k, sight.n)
    found = Found(1, max(1, k))
    parts = []

    def add(name: str, n_rows: int, n_allowed: int, work: Callable[[], Path]) -> None:
        before, began = found.n_compared, time.perf_counter()
        path = work() if k and (n_allowed or everything) else "none"
        parts.append(PlanPart(name, path, n_rows, n_allowed, found.n_compared - before, time.perf_counter() - began))

    for segment in view.segments:
        name, n_allowed = f"segment {segment.first_row}-{segment.last_row}", sight.allowed(segment)[1]
        if everything:
            add(name, segment.n_rows, n_allowed, partial(_compared, segment, query, found))
        else:
            add(name, segment.n_rows, n_allowed, partial(search_segment, sight, segment, query, request, found))
    for loose in sight.loose:
        stop = loose.first + len(loose.vectors)
        n_allowed = sight.visible.count(loose.first, stop)
        work = partial(_scanned, sight, loose, query, found, everything)
        add(f"tail {loose.first}-{stop - 1}", stop - loose.first, n_allowed, work)
    return Plan(
        where=None if request.where is None else repr(request.where),
        k=request.k,
        ef=request.ef,
        estimate=view.state.n_live if chosen is None or chosen.estimate is None else min(chosen.estimate, view.state.n_live),
        is_indexed=chosen is None or (chosen.estimate is not None and not chosen.n_read),
        n_read=0 if chosen is None else chosen.n_read,
        count=sight.n,
        parts=tuple(parts),
        cost=sum(part.cost for part in parts),
    )


def _compared(segment: Segment, query: NDArray[np.float32], found: Found) -> Path:
    segment.distances(query[0])
    found.n_compared += segment.n_nodes
    return "exact"


def _scanned(sight: Sight, loose: Loose, query: NDArray[np.float32], found: Found, everything: bool) -> Path:
    first, stop = loose.first, loose.first + len(loose.vectors)
    scan(loose.vectors, first, query, METRICS[sight.view.schema.metric], sight.words, found, loose.coarse)
    found.n_compared += stop - first if everything else sight.visible.count(first, stop)
    return "tail"
