"""What every similarity model can do with labels: calibrate thresholds, match, evaluate."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from simstore.errors import InvalidArgumentError, NotCalibratedError
from simstore.similarity import evaluators
from simstore.similarity.calibration import Calibration
from simstore.similarity.classification_metrics import (
    ClassificationMetric,
    make_classification_metric,
    make_classification_metrics,
)
from simstore.similarity.evaluators import Neighbors
from simstore.similarity.indexer import Index
from simstore.similarity.labels import Labels, labels_of
from simstore.similarity.matchers import ClassificationMatch, config_of, make_classification_matcher
from simstore.similarity.models.indexing import Indexing
from simstore.similarity.retrieval_metrics import RetrievalMetric, make_retrieval_metrics
from simstore.similarity.types import CalibrationResults
from simstore.types import Label

__all__ = ["Matching"]

logger = logging.getLogger("simstore.similarity")

Metrics = Sequence[str | ClassificationMetric]
_REPORTED = ("precision", "recall")


class Matching(Indexing):
    """An index whose neighbours' labels are evaluated, and believed within calibrated thresholds."""

    def calibrate(
        self,
        x: Any,
        y: Any,
        thresholds_targets: Mapping[str, float] | None = None,
        k: int = 1,
        calibration_metric: str | ClassificationMetric = "f1",
        matcher: str | ClassificationMatch = "match_nearest",
        extra_metrics: Metrics = _REPORTED,
        rounding: int = 2,
        verbose: int = 1,
    ) -> CalibrationResults:
        """Finds the distances within which a match is to be believed, and keeps them with the index.

        Args:
            x: A batch of examples that are not in the index.
            y: Their labels. Those of classes that the index does not have (or None) are unknowns, to be rejected.
            thresholds_targets: Operating points beside "optimal": a name, and the value of the calibration metric to reach,
                as in ``{"keeps_95": 0.95}`` with calibration_metric="recall": the tightest threshold that keeps 95 %.
            k: How many neighbours the matcher is given.
            calibration_metric: What "optimal" is the best of; equally good thresholds give the tightest.
            matcher: "match_nearest", "match_majority_vote" or a ClassificationMatch. One of your own (or a majority vote with
                another dist_agg than numpy's mean, median, min or max) is not kept in files: give it to match again there.
            extra_metrics: What else is told of each threshold.
            rounding: Digits of the calibration metric that make a step in the result's thresholds.
            verbose: 1 shows progress, and logs the operating points.

        Raises:
            InvalidArgumentError: The index is empty; another argument.
        """
        index, metric, match = (
            self._current_index(surely=True),
            make_classification_metric(calibration_metric),
            make_classification_matcher(matcher),
        )
        labels, neighbors = self._neighbors(index, x, y, k, verbose)
        results = evaluators.calibrate(labels, neighbors, thresholds_targets, metric, match, extra_metrics, rounding)
        found = Calibration(
            results, metric.canonical_name, k, match.name, index.distance.name, self._fingerprint(), config_of(match)
        )
        index.calibrate(found, match)
        if verbose:
            for cutpoint in results.cutpoints.values():
                logger.info("calibrated %s", cutpoint)
        return results

    def match(
        self,
        x: Any,
        cutpoint: str = "optimal",
        no_match_label: Label = -1,
        k: int | None = None,
        matcher: str | ClassificationMatch | None = None,
        verbose: int = 0,
    ) -> Any:
        """The labels of a batch of examples, as far as their matches are within the threshold.

        Args:
            x: A batch.
            cutpoint: Which threshold; "all" matches by each.
            no_match_label: The label of those that match nothing.
            k, matcher: By default those of the calibration.
            verbose: 1 shows progress.

        Returns:
            Labels [n], a list; with cutpoint="all" a dict of such lists by cutpoint.

        Raises:
            NotCalibratedError: There is no calibration for this model and this index.
            InvalidArgumentError: There is no such cutpoint, or no threshold reaches it; the matcher is to be given.
        """
        index, found = self._calibrated()
        names = list(found.results.cutpoints) if cutpoint == "all" else [cutpoint]
        thresholds = {name: found.threshold(name) for name in names}
        match = _matcher_of(index, found) if matcher is None else make_classification_matcher(matcher)
        labels, distances = match.matches(*index.neighbors(self._embedded(x, verbose), found.k if k is None else k))
        pairs = list(zip(labels.tolist(), distances.tolist(), strict=True))
        matches = {
            name: [label if distance <= at and label is not None else no_match_label for label, distance in pairs]
            for name, at in thresholds.items()
        }
        return matches if cutpoint == "all" else matches[cutpoint]

    def evaluate_retrieval(
        self, x: Any, y: Any, retrieval_metrics: Sequence[str | RetrievalMetric], verbose: int = 1
    ) -> dict[str, float]:
        """How good the neighbours of a batch of examples are: each metric by its name.

        Args:
            x: A batch; one that is indexed takes metrics with drop_closest_lookup=True.
            y: Its labels.
            retrieval_metrics: RetrievalMetrics, or names of some; no two of one name.
            verbose: 1 shows progress, and logs the result.

        Raises:
            InvalidArgumentError: The index is empty; another argument.
        """
        metrics = make_retrieval_metrics(retrieval_metrics)
        k = max((metric.n_lookups for metric in metrics), default=1)
        results = evaluators.evaluate_retrieval(*self._neighbors(self._current_index(), x, y, k, verbose), metrics)
        if verbose:
            logger.info("retrieval %s", results)
        return results

    def evaluate_classification(
        self,
        x: Any,
        y: Any,
        k: int | None = None,
        extra_metrics: Metrics = _REPORTED,
        matcher: str | ClassificationMatch | None = None,
        verbose: int = 1,
    ) -> dict[str, dict[str, Any]]:
        """How good the calibrated thresholds are on a batch of examples.

        Args:
            x, y: Examples and their labels, unknowns as in calibrate.
            k, matcher: By default those of the calibration, as in match.
            extra_metrics: As in calibrate.
            verbose: 1 shows progress, and logs the result.

        Returns:
            For each cutpoint its name, its distance, and the calibration metric and the extra metrics by name.

        Raises:
            NotCalibratedError: There is no calibration for this model and this index.
            InvalidArgumentError: The index is empty; another argument.
        """
        index, found = self._calibrated()
        match = _matcher_of(index, found) if matcher is None else make_classification_matcher(matcher)
        labels, neighbors = self._neighbors(index, x, y, found.k if k is None else k, verbose)
        names = list(found.results.cutpoints)
        table = evaluators.evaluate_classification(
            labels,
            neighbors,
            [found.threshold(name) for name in names],
            [found.metric, *make_classification_metrics(extra_metrics)],
            match,
        )
        results = {
            name: {"name": name} | {key: float(column[i]) for key, column in table.items()} for i, name in enumerate(names)
        }
        if verbose:
            logger.info("classification %s", results)
        return results

    def _neighbors(self, index: Index, x: Any, y: Any, k: int, verbose: int) -> tuple[Labels, Neighbors]:
        """The labels and the neighbours of a batch.

        Raises:
            InvalidArgumentError: The index is empty.
        """
        if not len(index.store):
            raise InvalidArgumentError("the index is empty: index() examples to compare these with")
        vectors = self._embedded(x, verbose)
        return labels_of(y, len(vectors)), index.neighbors(vectors, k)

    def _calibrated(self) -> tuple[Index, Calibration]:
        index = self._current_index()
        found = index.calibration_of(self._fingerprint())
        if found is None:
            has = "none" if index.calibration is None else "one of another model or distance, or of this model before training"
            raise NotCalibratedError(
                f"match and evaluate_classification need a calibration, and the index has {has}: calibrate(x, y)"
            )
        return index, found


def _matcher_of(index: Index, found: Calibration) -> ClassificationMatch:
    if index.matcher is None:
        raise InvalidArgumentError(
            f"the thresholds were calibrated with a matcher {found.matcher!r} that no file keeps: give it again, as in "
            "match(x, matcher=MyMatch())"
        )
    return index.matcher
