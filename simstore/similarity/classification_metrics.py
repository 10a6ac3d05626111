"""How good a threshold is: metrics of the counts that a matcher makes at each threshold.

A query is accepted if its match is within the threshold, and right if the match has the query's label. Right and accepted is a
true positive, wrong and accepted a false positive, right and rejected a false negative, wrong and rejected a true negative. A
query of a class that is not in the index can only be wrong. 0 / 0 counts as 0.
"""

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError

__all__ = [
    "BinaryAccuracy",
    "ClassificationMetric",
    "Counts",
    "F1Score",
    "FalsePositiveRate",
    "NegativePredictiveValue",
    "Precision",
    "Recall",
    "make_classification_metric",
    "make_classification_metrics",
]

Values = NDArray[np.float64]


class Counts(NamedTuple):
    """Counts at each of m thresholds, float64 [m], and the number of queries."""

    tp: Values
    fp: Values
    tn: Values
    fn: Values
    n: int


class ClassificationMetric:
    """A metric of counts.

    Attributes:
        canonical_name: What it is called.
        direction: "max" if larger is better, else "min".
        falls_off: Whether it gets worse, by and large, as the threshold grows. A target for it is a limit on how much is
            accepted: it takes the threshold with the most true positives that meets it. Any other target asks for much to be
            accepted, and takes the tightest threshold that meets it.

    Args:
        name: Under which results list it.
    """

    canonical_name: ClassVar[str]
    default_name: ClassVar[str]
    direction: ClassVar[str] = "max"
    falls_off: ClassVar[bool] = False

    def __init__(self, name: str = "") -> None:
        self.name = name or self.default_name

    def compute(self, tp: Values, fp: Values, tn: Values, fn: Values, count: int) -> Values:
        """The metric at each threshold, float64 [m], of the counts [m] there."""
        raise NotImplementedError

    def meets(self, values: Values, target: float) -> NDArray[np.bool_]:
        """Which values are as good as a target, or better."""
        return values >= target if self.direction == "max" else values <= target

    def best(self, values: Values) -> int:
        """Where the best value stands; of equals the first."""
        return int(values.argmax() if self.direction == "max" else values.argmin())

    def get_config(self) -> dict[str, Any]:
        """The argument."""
        return {"name": self.name}

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Precision(ClassificationMetric):
    """TP / (TP + FP): how many of the accepted are right."""

    canonical_name = default_name = "precision"
    falls_off = True

    def compute(self, tp: Values, fp: Values, tn: Values, fn: Values, count: int) -> Values:
        """TP / (TP + FP)."""
        return ratio(tp, tp + fp)


class Recall(ClassificationMetric):
    """TP / (TP + FN): how many of those whose match is right are accepted."""

    canonical_name = default_name = "recall"

    def compute(self, tp: Values, fp: Values, tn: Values, fn: Values, count: int) -> Values:
        """TP / (TP + FN)."""
        return ratio(tp, tp + fn)


class F1Score(ClassificationMetric):
    """2 TP / (2 TP + FP + FN): the harmonic mean of precision and recall."""

    canonical_name, default_name = "f1_score", "f1"

    def compute(self, tp: Values, fp: Values, tn: Values, fn: Values, count: int) -> Values:
        """2 TP / (2 TP + FP + FN)."""
        return ratio(2 * tp, 2 * tp + fp + fn)


class BinaryAccuracy(ClassificationMetric):
    """TP / count: how many of all queries are accepted and right. Rightly rejected ones do not count."""

    canonical_name = default_name = "binary_accuracy"

    def compute(self, tp: Values, fp: Values, tn: Values, fn: Values, count: int) -> Values:
        """TP / count."""
        return ratio(tp, np.full_like(tp, count))


class FalsePositiveRate(ClassificationMetric):
    """FP / (FP + TN): how many of those whose match is wrong are accepted. Smaller is better."""

    canonical_name, default_name = "false_positive_rate", "fpr"
    direction = "min"
    falls_off = True

    def compute(self, tp: Values, fp: Values, tn: Values, fn: Values, count: int) -> Values:
        """FP / (FP + TN)."""
        return ratio(fp, fp + tn)


class NegativePredictiveValue(ClassificationMetric):
    """TN / (TN + FN): how many of the rejected are wrong."""

    canonical_name, default_name = "negative_predictive_value", "npv"

    def compute(self, tp: Values, fp: Values, tn: Values, fn: Values, count: int) -> Values:
        """TN / (TN + FN)."""
        return ratio(tn, tn + fn)


_KINDS: tuple[type[ClassificationMetric], ...] = (
    Precision,
    Recall,
    F1Score,
    BinaryAccuracy,
    FalsePositiveRate,
    NegativePredictiveValue,
)
_NAMED = {name: kind for kind in _KINDS for name in (kind.canonical_name, kind.default_name)} | {
    "f1score": F1Score,
    "accuracy": BinaryAccuracy,
    "negative_predicitve_value": NegativePredictiveValue,  # as TensorFlow Similarity spells it
}


def make_classification_metric(metric: str | ClassificationMetric, name: str = "") -> ClassificationMetric:
    """The metric of a name; a ClassificationMetric as it is, or under another name.

    Raises:
        InvalidArgumentError: There is none of that name.
    """
    if isinstance(metric, ClassificationMetric):
        return type(metric)(name) if name else metric
    kind = _NAMED.get(metric.lower()) if isinstance(metric, str) else None
    if kind is None:
        known = ", ".join(repr(kind.default_name) for kind in _KINDS)
        raise InvalidArgumentError(f"a classification metric is one of {known} or a ClassificationMetric, not {metric!r}")
    return kind(name)


def make_classification_metrics(metrics: Any) -> list[ClassificationMetric]:
    """Several metrics, of names or as they are; one alone is a list of one.

    Raises:
        InvalidArgumentError: There is none of a name.
    """
    is_one = isinstance(metrics, (str, ClassificationMetric))
    return [make_classification_metric(metric) for metric in ([metrics] if is_one else metrics or ())]


def ratio(part: Values, whole: Values) -> Values:
    """part / whole, 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
