"""How good neighbours are: metrics of which of a query's k nearest have its label.

With ``drop_closest_lookup`` the nearest one is left out, which is the query itself where the queries are indexed, and the k
after it count: the metric needs k + 1 lookups. A neighbour beyond ``distance_threshold`` is no match, and neither is one that
is missing since the index is smaller than k.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError
from simstore.similarity.classification_metrics import Values, ratio
from simstore.similarity.labels import Labels, labels_of
from simstore.types import Label

__all__ = ["BNDCG", "MapAtK", "PrecisionAtK", "RecallAtK", "RetrievalMetric", "make_retrieval_metric", "make_retrieval_metrics"]

Average = Literal["micro", "macro"]


class RetrievalMetric:
    """A metric of neighbours.

    Args:
        name: Under which results list it, followed by @k.
        k: How many neighbours count.
        distance_threshold: A neighbour that is farther is no match.
        average: "micro" is the mean over the queries, "macro" the mean over the classes of the mean over their queries.
        drop_closest_lookup: Leave out the nearest neighbour.
    """

    canonical_name: ClassVar[str]
    default_name: ClassVar[str]

    def __init__(
        self,
        name: str = "",
        k: int = 5,
        distance_threshold: float = math.inf,
        average: Average = "micro",
        drop_closest_lookup: bool = False,
    ) -> None:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise InvalidArgumentError(f"k is a whole number of at least 1, not {k!r}")
        if average not in ("micro", "macro"):
            raise InvalidArgumentError(f"average is 'micro' or 'macro', not {average!r}")
        self._name = name or self.default_name
        self.k = int(k)
        self.distance_threshold = distance_threshold
        self.average = average
        self.drop_closest_lookup = drop_closest_lookup

    @property
    def name(self) -> str:
        """The name that results have."""
        threshold = "" if self.distance_threshold == math.inf else f" : distance_threshold@{self.distance_threshold}"
        return f"{self._name}@{self.k}{threshold}"

    @property
    def n_lookups(self) -> int:
        """How many neighbours of each query it is to be given."""
        return self.k + self.drop_closest_lookup

    def compute(self, *, query_labels: Any, match_mask: Any, lookup_distances: Any = None, lookup_labels: Any = None) -> float:
        """The metric.

        Args:
            query_labels: [n].
            match_mask: Which neighbours have their query's label, bool [n, n_lookups or more], closest first.
            lookup_distances: Their distances, likewise; needed if there is a distance_threshold.
            lookup_labels: Not needed: what counts is in the mask.

        Raises:
            InvalidArgumentError: They do not have these shapes.
        """
        labels, mask = labels_of(query_labels), np.asarray(match_mask, bool)
        self._check_shape(labels, mask)
        if self.distance_threshold != math.inf:
            if np.shape(lookup_distances) != mask.shape:
                raise InvalidArgumentError(f"with a distance_threshold lookup_distances are needed, {list(mask.shape)}")
            mask = mask & (np.asarray(lookup_distances) <= self.distance_threshold)
        return self._averaged(labels, self._per_query(labels, mask[:, int(self.drop_closest_lookup) : self.n_lookups]))

    def _per_query(self, query_labels: Labels, matches: NDArray[np.bool_]) -> Values:
        """The metric of each query, of which of its k neighbours match."""
        raise NotImplementedError

    def _check_shape(self, query_labels: Labels, mask: NDArray[np.bool_]) -> None:
        if mask.ndim != 2 or len(mask) != len(query_labels) or mask.shape[1] < self.n_lookups or not len(mask):
            raise InvalidArgumentError(
                f"{self.name} needs a query, and {self.n_lookups} neighbours for each of the {len(query_labels)} query labels; "
                f"not a match_mask of shape {list(mask.shape)}"
            )

    def _averaged(self, query_labels: Labels, per_query: Values) -> float:
        if self.average == "micro":
            return float(per_query.mean())
        of_class: dict[Label, list[float]] = {}
        for label, value in zip(query_labels, per_query.tolist(), strict=True):
            of_class.setdefault(label, []).append(value)
        return float(np.mean([np.mean(values) for values in of_class.values()]))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "name": self._name,
            "k": self.k,
            "distance_threshold": self.distance_threshold,
            "average": self.average,
            "drop_closest_lookup": self.drop_closest_lookup,
        }

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class RecallAtK(RetrievalMetric):
    """How many queries have a match among their k nearest: 1 for a query with any, else 0.

    Args:
        name, k, distance_threshold, average, drop_closest_lookup: See RetrievalMetric.
    """

    canonical_name, default_name = "recall@k", "recall"

    def _per_query(self, query_labels: Labels, matches: NDArray[np.bool_]) -> Values:
        return matches.any(axis=1).astype(float)


class BNDCG(RetrievalMetric):
    """Binary normalised discounted cumulative gain: Σ match_i / log2(i + 1), to what it were with all matches first.

    Ranks i count from 1. A query without a match has 0.

    Args:
        name, k, distance_threshold, average, drop_closest_lookup: See RetrievalMetric.
    """

    canonical_name, default_name = "ndcg@k", "ndcg"

    def _per_query(self, query_labels: Labels, matches: NDArray[np.bool_]) -> Values:
        gains = 1.0 / np.log2(np.arange(2, self.k + 2))
        ideal = np.concatenate([[0.0], np.cumsum(gains)])[matches.sum(axis=1)]  # the first m ranks, m matches
        return ratio(matches @ gains, ideal)


class PrecisionAtK(RetrievalMetric):
    """How many of the k nearest match, to k; or to the number of the class' items, R.

    Args:
        r: How many items of each label the index holds; the query itself counts, and is taken off with drop_closest_lookup.
            With it, what is divided by is R in place of k. A label that is not there has 0.
        clip_at_r: Count only the R nearest: R-precision, section 3.2 of Musgrave et al., "A Metric Learning Reality Check",
            2020. k is then to be at least the largest R.
        name, k, distance_threshold, average, drop_closest_lookup: See RetrievalMetric.
    """

    canonical_name, default_name = "precision@k", "precision"

    def __init__(
        self,
        r: Mapping[Any, int] | None = None,
        clip_at_r: bool = False,
        name: str = "",
        k: int = 5,
        distance_threshold: float = math.inf,
        average: Average = "micro",
        drop_closest_lookup: bool = False,
    ) -> None:
        super().__init__(name, k, distance_threshold, average, drop_closest_lookup)
        if clip_at_r and r is None:
            raise InvalidArgumentError("clip_at_r=True needs r, how many items of each label the index holds")
        self.r = r
        self.clip_at_r = clip_at_r

    @property
    def name(self) -> str:
        """The name that results have; without k, where R stands for it."""
        return self._name if self.clip_at_r else super().name

    def _per_query(self, query_labels: Labels, matches: NDArray[np.bool_]) -> Values:
        counts = np.full(len(matches), float(self.k))
        if self.r is not None:
            counts = np.array([float(max(0, self.r.get(label, 0) - self.drop_closest_lookup)) for label in query_labels])
        if self.clip_at_r:
            matches = matches & (np.arange(matches.shape[1]) < counts[:, None])
        return ratio(self._gained(matches), counts)

    def _gained(self, matches: NDArray[np.bool_]) -> Values:
        gained: Values = matches.sum(axis=1).astype(float)
        return gained

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"r": self.r, "clip_at_r": self.clip_at_r}


class MapAtK(PrecisionAtK):
    """Mean average precision: the sum over the matches among the k nearest of the precision up to there, to R.

    Without ``r`` it is divided by k. With clip_at_r it is MAP@R (see PrecisionAtK).

    Args:
        r, clip_at_r, name, k, distance_threshold, average, drop_closest_lookup: See PrecisionAtK.
    """

    canonical_name, default_name = "map@k", "map"

    def _gained(self, matches: NDArray[np.bool_]) -> Values:
        precisions = np.cumsum(matches, axis=1) / np.arange(1, matches.shape[1] + 1)
        gained: Values = (precisions * matches).sum(axis=1)
        return gained


_KINDS: tuple[type[RetrievalMetric], ...] = (RecallAtK, PrecisionAtK, MapAtK, BNDCG)
_NAMED = {name: kind for kind in _KINDS for name in (kind.canonical_name, kind.canonical_name.removesuffix("@k"))} | {
    "bndcg": BNDCG,
    "bndcg@k": BNDCG,
}


def make_retrieval_metric(metric: str | RetrievalMetric, k: int = 5) -> RetrievalMetric:
    """The metric of a name, of k neighbours; a RetrievalMetric as it is.

    Raises:
        InvalidArgumentError: There is none of that name.
    """
    if isinstance(metric, RetrievalMetric):
        return metric
    kind = _NAMED.get(metric.lower()) if isinstance(metric, str) else None
    if kind is None:
        known = ", ".join(repr(kind.canonical_name) for kind in _KINDS)
        raise InvalidArgumentError(f"a retrieval metric is one of {known} or a RetrievalMetric, not {metric!r}")
    return kind(k=k)


def make_retrieval_metrics(metrics: Any, k: int = 5) -> list[RetrievalMetric]:
    """Several metrics, of names or as they are; one alone is a list of one.

    Raises:
        InvalidArgumentError: There is none of a name; two would have the same name in the results.
    """
    is_one = isinstance(metrics, (str, RetrievalMetric))
    made = [make_retrieval_metric(metric, k) for metric in ([metrics] if is_one else metrics or ())]
    names = [metric.name for metric in made]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidArgumentError(
            f"two retrieval metrics are named {twice!r}, and one result would hide the other: give one a name, as in "
            "RecallAtK(name='macro_recall', average='macro')"
        )
    return made
