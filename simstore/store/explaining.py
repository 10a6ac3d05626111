"""explain(): how a search is done, part by part, and what it cost."""

import time

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.index import Found, scan
from simstore.metrics import METRICS
from simstore.storage import Transaction
from simstore.store.request import Request
from simstore.store.sight import Sight, search_segment
from simstore.types import Plan, PlanPart

__all__ = ["explained"]


def explained(sight: Sight, query: NDArray[np.float32], request: Request) -> Plan:
    """The plan of a search for one prepared query [1, dim], by carrying it out.

    Raises:
        CorruptStoreError: A segment's file is damaged.
    """
    view, chosen = sight.view, sight.chosen
    k = sight.n if request.k is None else min(request.k, sight.n)
    found = Found(1, max(1, k))
    parts = []
    for segment in view.segments:
        before, began = found.n_compared, time.perf_counter()
        path = search_segment(sight, segment, query, request, found) if k else "none"
        parts.append(
            PlanPart(
                f"segment {segment.first_row}-{segment.last_row}", path, segment.n_rows, sight.allowed(segment)[1],
                found.n_compared - before, time.perf_counter() - began,
            )  # fmt: skip
        )
    for first, vectors, coarse in sight.loose:
        began = time.perf_counter()
        if k:
            scan(vectors, first, query, METRICS[view.schema.metric], sight.words, found, coarse)
        n_allowed = sight.visible.count(first, first + len(vectors))
        parts.append(
            PlanPart(
                f"tail {first}-{first + len(vectors) - 1}", "exact" if n_allowed else "none", len(vectors), n_allowed, n_allowed,
                time.perf_counter() - began,
            )  # fmt: skip
        )
    return Plan(
        where=None if request.where is None else repr(request.where),
        k=request.k, ef=request.ef,
        estimate=view.state.n_live if chosen is None or chosen.estimate is None else min(chosen.estimate, view.state.n_live),
        is_indexed=chosen is None or chosen.estimate is not None and not chosen.n_read,
        n_read=0 if chosen is None else chosen.n_read,
        count=sight.n,
        parts=tuple(parts),
        cost=sum(part.cost for part in parts),
    )  # fmt: skip
