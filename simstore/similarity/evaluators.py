"""Neighbours against the truth: retrieval, classification at thresholds, and the thresholds themselves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError
from simstore.similarity.classification_metrics import (
    ClassificationMetric,
    Counts,
    Values,
    make_classification_metric,
    make_classification_metrics,
)
from simstore.similarity.labels import LookupLabels, labels_of, same_label
from simstore.similarity.matchers import ClassificationMatch, check_lookups, make_classification_matcher
from simstore.similarity.retrieval_metrics import RetrievalMetric, make_retrieval_metrics
from simstore.similarity.types import CalibrationResults

__all__ = ["Neighbors", "calibrate", "evaluate_classification", "evaluate_retrieval"]

OPTIMAL = "optimal"


class Neighbors(NamedTuple):
    """The k nearest items of n queries, closest first.

    Attributes:
        labels: object [n, k]; None where an item has none, or where there are fewer than k.
        distances: float32 [n, k], ascending; inf where there are fewer than k.
    """

    labels: LookupLabels
    distances: NDArray[np.float32]


def evaluate_retrieval(
    target_labels: Any, neighbors: Neighbors, retrieval_metrics: Sequence[str | RetrievalMetric]
) -> dict[str, float]:
    """Metrics of neighbours, by name.

    Args:
        target_labels: The queries' labels [n].
        neighbors: At least as many for each query as the metrics need.
        retrieval_metrics: RetrievalMetrics, or names of some; no two of one name.
    """
    labels = labels_of(target_labels)
    check_lookups(labels, *neighbors)
    mask = same_label(neighbors.labels, labels[:, None])
    return {
        metric.name: metric.compute(query_labels=labels, match_mask=mask, lookup_distances=neighbors.distances)
        for metric in make_retrieval_metrics(retrieval_metrics)
    }


def evaluate_classification(
    query_labels: Any,
    neighbors: Neighbors,
    distance_thresholds: Any,
    metrics: Sequence[str | ClassificationMetric],
    matcher: str | ClassificationMatch = "match_nearest",
) -> dict[str, NDArray[Any]]:
    """Metrics at thresholds, by name: float64 [m]; and "distance", the thresholds.

    Args:
        query_labels: The queries' labels [n].
        neighbors: Theirs.
        distance_thresholds: [m]; a match is accepted if its distance is at most that.
        metrics: ClassificationMetrics, or names of some.
        matcher: What makes a label of neighbours.
    """
    thresholds = np.atleast_1d(np.asarray(distance_thresholds))
    counts = make_classification_matcher(matcher).counts(query_labels, *neighbors, thresholds)
    return {"distance": thresholds} | {metric.name: metric.compute(*counts) for metric in make_classification_metrics(metrics)}


def calibrate(
    target_labels: Any,
    neighbors: Neighbors,
    thresholds_targets: Mapping[str, float] | None = None,
    calibration_metric: str | ClassificationMetric = "f1",
    matcher: str | ClassificationMatch = "match_nearest",
    extra_metrics: Sequence[str | ClassificationMetric] = ("precision", "recall"),
    rounding: int = 2,
) -> CalibrationResults:
    """The thresholds worth using. Candidates are the distances of the matches; nothing changes between two of them.

    Args:
        target_labels: The queries' labels [n]; labels that the index does not hold, or None, are unknowns to be rejected.
            A match without a label counts as rejected at every threshold, as it is by match().
        neighbors: Theirs.
        thresholds_targets: Names of operating points, each with the value of the calibration metric that it is to reach.
        calibration_metric: "optimal" is where it is best, and the tightest such threshold.
        matcher: What makes a label of neighbours.
        extra_metrics: What else is told of each threshold.
        rounding: Digits of the calibration metric that make a step in ``thresholds``; cutpoints are not rounded.

    Raises:
        InvalidArgumentError: No neighbour has a label; a target is named "optimal"; another argument.
    """
    targets = _checked_targets(thresholds_targets)
    metric = make_classification_metric(calibration_metric)
    match = make_classification_matcher(matcher)
    _, distances = match.matches(*neighbors)
    candidates = np.unique(distances[np.isfinite(distances)])
    if not len(candidates):
        raise InvalidArgumentError(
            "no query has a neighbour with a label: index items with labels before calibrating, and give queries"
        )
    counts = match.counts(target_labels, *neighbors, candidates)
    columns: dict[str, Values] = {"distance": candidates.astype(float)}
    columns |= {each.name: each.compute(*counts) for each in (metric, *make_classification_metrics(extra_metrics))}
    return _chosen(metric, columns, counts, targets, rounding)


def _checked_targets(targets: Any) -> dict[str, float]:
    """The targets by name.

    Raises:
        InvalidArgumentError: It is no dict of numbers, or one is named "optimal".
    """
    if targets is None:
        return {}
    if not isinstance(targets, Mapping):
        raise InvalidArgumentError(
            f"thresholds_targets is a dict of names and the values to reach, as {{'sure': 0.95}}, not {targets!r:.60}"
        )
    for name, target in targets.items():
        if not isinstance(name, str) or name == OPTIMAL:
            why = "is the best threshold" if name == OPTIMAL else "is no str"
            raise InvalidArgumentError(f"thresholds_targets: {name!r} {why}; give yours another name")
        is_number = isinstance(target, (int, float, np.number)) and not isinstance(target, bool)
        if not is_number or math.isnan(target):
            raise InvalidArgumentError(f"thresholds_targets: the value to reach for {name!r} is a number, not {target!r}")
    return dict(targets)


def _chosen(
    metric: ClassificationMetric, columns: dict[str, Values], counts: Counts, targets: dict[str, float], rounding: int
) -> CalibrationResults:
    values = columns[metric.name]
    places, unmet = {OPTIMAL: metric.best(values)}, {}
    for name, target in targets.items():
        meeting = np.flatnonzero(metric.meets(values, target))
        if not len(meeting):
            unmet[name] = float(values[metric.best(values)])
        else:
            places[name] = int(meeting[counts.tp[meeting].argmax()] if metric.falls_off else meeting[0])
    cutpoints = {
        name: {"name": name, "value": float(values[at])} | {key: float(column[at]) for key, column in columns.items()}
        for name, at in places.items()
    }
    rounded = np.round(values, rounding)
    steps = np.flatnonzero(np.diff(rounded, prepend=np.inf))
    thresholds = {"value": rounded[steps].tolist()} | {key: column[steps].tolist() for key, column in columns.items()}
    return CalibrationResults(cutpoints, thresholds, unmet)
