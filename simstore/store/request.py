"""What a search is asked for, checked."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from simstore.storage import Schema
from simstore.store import arguments
from simstore.where import Where, where_of

__all__ = ["OutdatedError", "Request", "refuse_outdated", "request_of"]

_DEFAULT_EF = 128
_DEFAULT_EF_FILTERED = 160  # a walk through what a filter leaves out sees less (GloVe, half of it, far away: 0.975 at 128)
_LARGEST_EF = 1 << 30


class OutdatedError(Exception):
    """The store has gone over to other vectors since a query was made: it is to be made anew."""


def refuse_outdated(made_for: Schema, now: Schema) -> None:
    """Raises OutdatedError if a query that was made for one schema is no query for another."""
    if made_for.dim != now.dim or made_for.fingerprint != now.fingerprint:
        raise OutdatedError


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of each query.

    Attributes:
        ef: To be used unless a recall is wanted.
        recall: The recall that is wanted of the graphs, or None.
    """

    k: int | None
    ef: int
    recall: float | None
    exact: bool
    max_distance: float | None
    with_vectors: bool
    where: Where | None


def request_of(k: Any, ef: Any, recall: Any, exact: bool, max_distance: Any, with_vectors: bool, where: Any) -> Request:
    """What is asked, checked; the same again costs nothing."""
    try:
        return _checked(k, ef, recall, exact, max_distance, with_vectors, where)
    except TypeError:  # an argument that cannot be hashed: a filter that is a dict
        return _checked.__wrapped__(k, ef, recall, exact, max_distance, with_vectors, where)


@lru_cache(64, typed=True)
def _checked(k: Any, ef: Any, recall: Any, exact: bool, max_distance: Any, with_vectors: bool, where: Any) -> Request:
    arguments.check_max_distance(max_distance)
    arguments.check_k(k, max_distance)
    arguments.check_positive("ef", ef)
    arguments.check_recall(recall, ef)
    if max_distance is not None:
        try:
            with np.errstate(over="ignore"):
                max_distance = float(np.float32(max_distance))
        except OverflowError:  # an int beyond all floats
            max_distance = np.inf if max_distance > 0 else -np.inf
    ef = min(int(ef or (_DEFAULT_EF if where is None else _DEFAULT_EF_FILTERED)), _LARGEST_EF)
    condition = None if where is None else where_of(where)
    is_exact = bool(exact) or recall == 1
    wanted = None if recall is None or is_exact else float(recall)
    return Request(None if k is None else int(k), ef, wanted, is_exact, max_distance, bool(with_vectors), condition)
