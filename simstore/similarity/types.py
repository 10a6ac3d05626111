"""What an index and a calibration give: frozen values. Names as in TensorFlow Similarity, with the item's key besides."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.types import Key, Label

__all__ = ["CalibrationResults", "IndexSummary", "Lookup"]


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """A neighbour of a query.

    Attributes:
        rank: Its place, from 1.
        key: The item's key in the store.
        distance: The true distance to the query, by the index's distance; smaller is closer.
        label: The item's label, None if it has none.
        embedding: The item's vector, float32 [dim].
        data: What was indexed with it.
    """

    rank: int
    key: Key
    distance: float
    label: Label = None
    embedding: NDArray[np.float32] | None = field(default=None, repr=False)
    data: Any = field(default=None, repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lookup):
            return NotImplemented
        plain = (self.rank, self.key, self.distance, self.label) == (other.rank, other.key, other.distance, other.label)
        return plain and _same(self.embedding, other.embedding) and _same(self.data, other.data)

    def __hash__(self) -> int:
        return hash((self.rank, self.key, self.distance, self.label))


def _same(a: Any, b: Any) -> bool:
    """Equality that looks into arrays, whose ``==`` is an array."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


@dataclass(frozen=True, slots=True)
class CalibrationResults:
    """At which distances a neighbour's label is to be believed, and what that yields on the calibration set.

    Attributes:
        cutpoints: The named operating points, "optimal" and those asked for: for each its name, its distance (the threshold),
            its value (the calibration metric) and every metric.
        thresholds: The same as columns, ascending by distance: one entry wherever the calibration metric, rounded, changes.
        unmet: The operating points that no threshold reaches, with the best value there is.
    """

    cutpoints: dict[str, dict[str, Any]]
    thresholds: dict[str, list[float]]
    unmet: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """What a model's index is. ``print(summary)`` shows it.

    Attributes:
        path: The store's directory.
        is_temporary: Whether it goes with the model.
        size: How many items it holds.
        distance: By which neighbours are found.
        dim: How many numbers an embedding has.
        made_by: The fingerprint of the model whose embeddings it holds, None as long as it is empty.
        is_current: Whether that is the model as it is now; if not, it was trained since, and index anew.
        calibrated_by: The calibration metric; None if there is no calibration that holds for this model and distance.
        cutpoints: The thresholds of the calibration, by name.
        n_lookups: Searches since the store was opened.
        median_lookup_s: An upper bound of half of them, without the embedding, less than twice too much.
    """

    path: str
    is_temporary: bool
    size: int
    distance: str
    dim: int
    made_by: str | None
    is_current: bool
    calibrated_by: str | None
    cutpoints: dict[str, float]
    n_lookups: int
    median_lookup_s: float

    def __str__(self) -> str:
        calibration = "none"
        if self.calibrated_by is not None:
            calibration = f"{self.calibrated_by}: " + ", ".join(f"{k} ≤ {v:.4g}" for k, v in self.cutpoints.items())
        rows = [
            ("items", f"{self.size:,} of {self.dim} numbers, by {self.distance} distance"),
            ("store", self.path + (" (temporary)" if self.is_temporary else "")),
            ("made by", f"{self.made_by}, {'this model' if self.is_current else 'NOT this model as it is now'}"),
            ("calibration", calibration),
            ("lookups", f"{self.n_lookups:,}, median at most {self.median_lookup_s * 1e3:.2g} ms without the embedding"),
        ]
        return "\n".join(f"{name:12} {value}" for name, value in rows)
