"""Callbacks that evaluate neighbours at the end of each epoch, on an index of their own."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError, PackageMissingError
from simstore.similarity import distances
from simstore.similarity.classification_metrics import ClassificationMetric, make_classification_metrics
from simstore.similarity.distances import Distance
from simstore.similarity.evaluators import Neighbors, evaluate_classification, evaluate_retrieval
from simstore.similarity.indexer import Index, metric_of
from simstore.similarity.labels import Labels, labels_of
from simstore.similarity.matchers import ClassificationMatch, make_classification_matcher
from simstore.similarity.models.has_index import HasIndex
from simstore.similarity.retrieval_metrics import RetrievalMetric, make_retrieval_metrics

__all__ = ["EvalCallback", "SplitValidationLoss"]


class EvalCallback(keras.callbacks.Callback):
    """Indexes targets with the weights of each epoch, and evaluates the neighbours of queries among them.

    Results are in the epoch's logs: History has them, and callbacks that come after this one (EarlyStopping, TensorBoard). The
    index is temporary, and exact; the model's own is not touched.

    Args:
        queries: A batch of examples, as the model's index() takes them.
        query_labels: Their labels.
        targets: A batch of examples, to be indexed.
        target_labels: Their labels.
        distance: By which neighbours are found; "auto" is the model's.
        metrics: ClassificationMetrics, or names of some, of matches within the distance_thresholds.
        tb_logdir: Where to write the results for TensorBoard, in the folder "index".
        k: How many neighbours the matcher is given.
        matcher: "match_nearest", "match_majority_vote" or a ClassificationMatch.
        distance_thresholds: Within which distance a match is accepted: a number, or several, named as "f1_within_0.1";
            by default any.
        known_classes: The labels seen in training. Results are then told for the queries of these, as "f1_known_classes", and
            of all others, as "f1_unknown_classes".
        retrieval_metrics: RetrievalMetrics, or names of some.

    Raises:
        InvalidArgumentError: Shapes or names.
        PackageMissingError: There is a tb_logdir, and no TensorBoard.
    """

    def __init__(
        self,
        queries: Any,
        query_labels: Any,
        targets: Any,
        target_labels: Any,
        distance: Distance | str = "auto",
        metrics: Sequence[str | ClassificationMetric] = ("binary_accuracy",),
        tb_logdir: Any = None,
        k: int = 1,
        matcher: str | ClassificationMatch = "match_nearest",
        distance_thresholds: Any = None,
        known_classes: Any = None,
        retrieval_metrics: Sequence[str | RetrievalMetric] = (),
    ) -> None:
        super().__init__()
        self.queries, self.query_labels = queries, _labels_for(query_labels, queries)
        self.targets, self.target_labels = targets, _labels_for(target_labels, targets)
        if not len(self.query_labels) or not len(self.target_labels):
            raise InvalidArgumentError("there are no queries, or no targets: give some of each")
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise InvalidArgumentError(f"k is a whole number of at least 1, not {k!r}")
        self.distance = None if distance == "auto" else distances.get(distance)
        self.metrics = make_classification_metrics(metrics)
        self.retrieval_metrics = make_retrieval_metrics(retrieval_metrics)
        self.k, self.matcher = k, make_classification_matcher(matcher)
        self.distance_thresholds = np.atleast_1d(np.inf if distance_thresholds is None else np.asarray(distance_thresholds))
        self._groups = _groups_of(self.query_labels, known_classes)
        self._board = None
        if tb_logdir is not None:
            if find_spec("tensorboard") is None:
                raise PackageMissingError("tb_logdir needs TensorBoard: pip install tensorboard")
            self._board = keras.callbacks.TensorBoard(str(Path(tb_logdir) / "index"), write_graph=False)

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuses a model without an index, and a distance that has none."""
        if not isinstance(self.model, HasIndex):
            raise InvalidArgumentError(f"{type(self).__name__} evaluates similarity models, not a {type(self.model).__name__}")
        metric_of(self._distance)
        if self._board is not None:
            self._board.set_model(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Evaluates."""
        results = self.evaluate()
        if logs is not None:
            logs.update(results)
        if self._board is not None:
            self._board.on_epoch_end(epoch, results)

    def on_train_end(self, logs: Any = None) -> None:
        """Ends the log."""
        if self._board is not None:
            self._board.on_train_end(logs)

    @property
    def _distance(self) -> Distance:
        distance: Distance = self.distance or self.model._parts.distance or distances.CosineDistance()
        return distance

    def evaluate(self) -> dict[str, float]:
        """The results with the model's weights as they are, by name."""
        targets, queries = self.model._embedded(self.targets), self.model._embedded(self.queries)
        index = Index.temporary(targets.shape[1], self._distance, background=False)
        index.store.add(None, targets, labels=self.target_labels)
        k = max(self.k, *(metric.n_lookups for metric in self.retrieval_metrics), 1)
        neighbors = index.neighbors(queries, k, exact=True)
        results: dict[str, float] = {}
        for suffix, rows in self._groups.items():
            found = self._evaluated(self.query_labels[rows], Neighbors(neighbors.labels[rows], neighbors.distances[rows]))
            results |= {name + suffix: value for name, value in found.items()}
        return results

    def _evaluated(self, labels: Labels, neighbors: Neighbors) -> dict[str, float]:
        nearest = Neighbors(neighbors.labels[:, : self.k], neighbors.distances[:, : self.k])
        table = evaluate_classification(labels, nearest, self.distance_thresholds, self.metrics, self.matcher)
        thresholds = table.pop("distance")
        single = len(thresholds) == 1
        found = {
            name if single else f"{name}_within_{threshold:g}": float(value)
            for name, column in table.items()
            for threshold, value in zip(thresholds, column, strict=True)
        }
        return found | evaluate_retrieval(labels, neighbors, self.retrieval_metrics)


class SplitValidationLoss(EvalCallback):
    """An EvalCallback with known_classes, in TensorFlow Similarity's order of arguments.

    Args:
        queries, query_labels, targets, target_labels, known_classes, distance, metrics, tb_logdir, k, matcher,
            distance_thresholds: See EvalCallback.
    """

    def __init__(
        self,
        queries: Any,
        query_labels: Any,
        targets: Any,
        target_labels: Any,
        known_classes: Any,
        distance: Distance | str = "auto",
        metrics: Sequence[str | ClassificationMetric] = ("binary_accuracy", "f1score"),
        tb_logdir: Any = None,
        k: int = 1,
        matcher: str | ClassificationMatch = "match_nearest",
        distance_thresholds: Any = None,
    ) -> None:
        super().__init__(
            queries, query_labels, targets, target_labels, distance, metrics, tb_logdir, k, matcher, distance_thresholds,
            known_classes,
        )  # fmt: skip


def _labels_for(y: Any, x: Any) -> Labels:
    """One label for each example. Which model is to come is not known: a list may be one of inputs, each with a batch."""
    labels = labels_of(y)
    parts = list(x.values()) if isinstance(x, Mapping) else x if isinstance(x, (list, tuple)) else []
    if parts and all(hasattr(part, "__len__") and len(part) == len(labels) for part in parts):
        return labels
    return labels_of(labels, len(x))


def _groups_of(labels: Labels, known_classes: Any) -> dict[str, NDArray[np.bool_]]:
    """Which queries results are told of, by the suffix of their names; a group without any is left out."""
    if known_classes is None:
        return {"": np.ones(len(labels), bool)}
    known = set(labels_of(known_classes))
    is_known = np.array([label in known for label in labels], bool)
    groups = {"_known_classes": is_known, "_unknown_classes": ~is_known}
    return {suffix: rows for suffix, rows in groups.items() if rows.any()}
