"""From neighbours to a label: which label a query's neighbours stand for, and at which distance."""

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError
from simstore.similarity.classification_metrics import Counts
from simstore.similarity.labels import Labels, LookupLabels, labels_of, same_label
from simstore.types import Label

__all__ = ["ClassificationMatch", "MatchMajorityVote", "MatchNearest", "make_classification_matcher"]

Distances = NDArray[np.floating[Any]]


class ClassificationMatch:
    """A way from neighbours to a label.

    Attributes:
        name: What it is called.
    """

    name: ClassVar[str]

    def predict(self, lookup_labels: LookupLabels, lookup_distances: Distances) -> tuple[Labels, Distances]:
        """The label and the distance of each query's match.

        Args:
            lookup_labels: Labels of the k neighbours, closest first, object [n, k]; None where there are fewer.
            lookup_distances: Their distances, [n, k]; inf where there are fewer.

        Returns:
            Labels [n] (None for no match), and distances [n] (inf for no match).
        """
        raise NotImplementedError

    def matches(self, lookup_labels: LookupLabels, lookup_distances: Distances) -> tuple[Labels, Distances]:
        """As predict, with every match that has no label at the distance inf: it is never accepted."""
        labels, distances = self.predict(lookup_labels, lookup_distances)
        labelled = np.array([label is not None for label in labels], bool)
        return labels, np.where(labelled, distances, np.inf)

    def counts(
        self, query_labels: Any, lookup_labels: LookupLabels, lookup_distances: Distances, distance_thresholds: Any
    ) -> Counts:
        """What is right and accepted at each threshold. Time n log n and memory n, however many thresholds there are.

        Args:
            query_labels: The true labels [n].
            lookup_labels, lookup_distances: See predict.
            distance_thresholds: Distances [m]; a match is accepted if it has a label and its distance is at most that.
        """
        expected, thresholds = labels_of(query_labels), np.asarray(distance_thresholds)
        check_lookups(expected, lookup_labels, lookup_distances)
        labels, distances = self.matches(lookup_labels, lookup_distances)
        is_right, there = same_label(labels, expected), np.isfinite(distances)  # what is at inf is not accepted within inf
        right, wrong = np.sort(distances[is_right & there]), np.sort(distances[~is_right & there])
        tp, fp = (np.searchsorted(each, thresholds, side="right").astype(float) for each in (right, wrong))
        n_right = is_right.sum()
        return Counts(tp, fp, len(expected) - n_right - fp, n_right - tp, len(expected))


class MatchNearest(ClassificationMatch):
    """The label of the nearest neighbour, at its distance."""

    name = "match_nearest"

    def predict(self, lookup_labels: LookupLabels, lookup_distances: Distances) -> tuple[Labels, Distances]:
        """The first column."""
        return lookup_labels[:, 0], lookup_distances[:, 0]


class MatchMajorityVote(ClassificationMatch):
    """The most frequent label of the neighbours; of equally frequent ones the one that stands closest.

    Neighbours without a label have no vote.

    Args:
        dist_agg: Called as dist_agg(distances of the neighbours that there are, 0) for the match's distance; by default their
            mean.
    """

    name = "match_majority_vote"

    def __init__(self, dist_agg: Callable[[Any, int], Any] = np.mean) -> None:
        self.dist_agg = dist_agg

    def predict(self, lookup_labels: LookupLabels, lookup_distances: Distances) -> tuple[Labels, Distances]:
        """A vote for each query."""
        labels = np.empty(len(lookup_labels), object)
        labels[:] = [_majority(row) for row in lookup_labels.tolist()]
        distances = np.full(len(labels), np.inf, lookup_distances.dtype)
        for i, row in enumerate(lookup_distances):
            there = row[np.isfinite(row)]
            if len(there):
                distances[i] = self.dist_agg(there, 0)
        return labels, distances


def _majority(labels: list[Label]) -> Label:
    votes = Counter(label for label in labels if label is not None)
    return votes.most_common(1)[0][0] if votes else None  # of equals the one that was met first


def check_lookups(query_labels: Labels, lookup_labels: Any, lookup_distances: Any) -> None:
    """Raises InvalidArgumentError unless the neighbours' labels and distances are both [n, k], k at least 1."""
    shapes = [list(np.shape(each)) for each in (lookup_labels, lookup_distances)]
    if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][0] != len(query_labels) or shapes[0][1] < 1:
        raise InvalidArgumentError(
            f"lookup_labels and lookup_distances have the shape [{len(query_labels)}, k], k neighbours for each query label; "
            f"not {shapes[0]} and {shapes[1]}"
        )


_NAMED: dict[str, type[ClassificationMatch]] = {
    "match_nearest": MatchNearest,
    "nearest": MatchNearest,
    "match_majority_vote": MatchMajorityVote,
    "majority_vote": MatchMajorityVote,
}


_AGGREGATES: dict[str, Callable[[Any, int], Any]] = {"mean": np.mean, "median": np.median, "min": np.min, "max": np.max}


def config_of(matcher: ClassificationMatch) -> dict[str, str] | None:
    """What matcher_again needs beside the name; None if only whoever has made the matcher can make it again."""
    if type(matcher) is MatchNearest:
        return {}
    if type(matcher) is MatchMajorityVote:
        names = [name for name, aggregate in _AGGREGATES.items() if aggregate is matcher.dist_agg]
        return {"dist_agg": names[0]} if names else None
    return None


def matcher_again(name: str, config: dict[str, str] | None) -> ClassificationMatch | None:
    """The matcher of a name and what config_of gave; None without that."""
    if config is None:
        return None
    if "dist_agg" in config:
        return MatchMajorityVote(_AGGREGATES[config["dist_agg"]])
    return make_classification_matcher(name)


def make_classification_matcher(matcher: str | ClassificationMatch) -> ClassificationMatch:
    """The matcher of a name; a ClassificationMatch as it is.

    Raises:
        InvalidArgumentError: There is none of that name.
    """
    if isinstance(matcher, ClassificationMatch):
        return matcher
    kind = _NAMED.get(matcher.lower()) if isinstance(matcher, str) else None
    if kind is None:
        raise InvalidArgumentError(
            f"a matcher is 'match_nearest', 'match_majority_vote' or a ClassificationMatch, not {matcher!r}"
        )
    return kind()
