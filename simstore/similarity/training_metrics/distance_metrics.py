"""Metrics of the distances within and between the classes of a batch."""

import math
from typing import Any

import keras
from keras import ops

from simstore.errors import InvalidArgumentError
from simstore.similarity import distances
from simstore.similarity.losses.mining import as_labels, masked_max, masked_min, pairs_of

__all__ = [
    "DistanceGapMetric",
    "DistanceMetric",
    "avg_neg",
    "avg_pos",
    "dist_gap",
    "max_neg",
    "max_pos",
    "min_neg",
    "min_pos",
    "sum_neg",
    "sum_pos",
]

_PACKAGE = "simstore.similarity"
_AGGREGATES = ("mean", "avg", "max", "min", "sum")


@keras.saving.register_keras_serializable(_PACKAGE)
class DistanceMetric(keras.metrics.Metric):
    """An aggregate of one distance per example, over all batches since it was reset.

    The distance is from an example to its farthest ("hard") or closest ("easy") positive, or to its closest ("hard") or
    farthest ("easy") negative in the batch. Examples without one are left out; of none at all the result is not a number,
    the sum 0.

    Args:
        distance: Between embeddings.
        aggregate: "mean" (or "avg"), "max", "min" or "sum".
        anchor: "positive" or "negative": to which of them.
        name: By default as "mean_pos".
        positive_mining_strategy: "hard" or "easy".
        negative_mining_strategy: "hard" or "easy".
        dtype: Of the state, as of ``keras.metrics.Metric``.
    """

    def __init__(
        self,
        distance: distances.Distance | str,
        aggregate: str = "mean",
        anchor: str = "positive",
        name: str | None = None,
        positive_mining_strategy: str = "hard",
        negative_mining_strategy: str = "hard",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name or f"{aggregate}_{anchor[:3]}", dtype=dtype)
        self.distance = distances.get(distance)
        self.aggregate = _one_of("aggregate", aggregate, _AGGREGATES)
        self.anchor = _one_of("anchor", anchor, ("positive", "negative"))
        self.positive_mining_strategy = _one_of("positive_mining_strategy", positive_mining_strategy, ("hard", "easy"))
        self.negative_mining_strategy = _one_of("negative_mining_strategy", negative_mining_strategy, ("hard", "easy"))
        self._start = {"max": -math.inf, "min": math.inf}.get(aggregate, 0.0)
        self.value = self.add_variable((), keras.initializers.Constant(self._start), name="value")
        self.weight = self.add_variable((), "zeros", name="weight")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes in a batch.

        Args:
            y_true: Integer labels [n] or [n, 1].
            y_pred: Embeddings [n, dim].
            sample_weight: Of the examples, [n], for the mean and the sum; the others leave out those of weight 0.
        """
        labels = as_labels(y_true, ops.convert_to_tensor(y_pred).shape[0])
        mined = self._mined(pairs_of(self.distance, labels, y_pred))
        values = ops.cast(mined.distances, self.value.dtype)
        weights = ops.cast(mined.found, values.dtype)
        if sample_weight is not None:
            weights = weights * ops.reshape(ops.cast(sample_weight, values.dtype), (-1,))
        self.weight.assign_add(ops.sum(weights))
        if self.aggregate == "max":
            self.value.assign(ops.maximum(self.value, ops.max(ops.where(weights > 0, values, -math.inf))))
        elif self.aggregate == "min":
            self.value.assign(ops.minimum(self.value, ops.min(ops.where(weights > 0, values, math.inf))))
        else:
            self.value.assign_add(ops.sum(values * weights))

    def _mined(self, pairs: Any) -> Any:
        if self.anchor == "positive":
            return (masked_max if self.positive_mining_strategy == "hard" else masked_min)(pairs.distances, pairs.positives)
        return (masked_min if self.negative_mining_strategy == "hard" else masked_max)(pairs.distances, pairs.negatives)

    def result(self) -> Any:
        """The aggregate, a scalar."""
        if self.aggregate == "sum":
            return ops.convert_to_tensor(self.value)
        is_any = self.weight > 0
        divisor = ops.where(is_any, self.weight, 1.0) if self.aggregate in ("mean", "avg") else 1.0
        return ops.where(is_any, self.value / divisor, math.nan)

    def reset_state(self) -> None:
        """Forgets all batches."""
        self.value.assign(self._start)
        self.weight.assign(0.0)

    def get_config(self) -> dict[str, Any]:
        """Its arguments."""
        names = ("aggregate", "anchor", "positive_mining_strategy", "negative_mining_strategy")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), "distance": distances.to_config(self.distance), **own}


@keras.saving.register_keras_serializable(_PACKAGE)
class DistanceGapMetric(keras.metrics.Metric):
    """The smallest distance between classes less the largest within one, over all batches since it was reset.

    Above 0 one threshold separates all pairs; below it, some are on the wrong side.

    Args:
        distance: Between embeddings.
        name: By default "dist_gap".
        dtype: Of the state, as of ``keras.metrics.Metric``.
    """

    def __init__(self, distance: distances.Distance | str, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name or "dist_gap", dtype=dtype)
        self.distance = distances.get(distance)
        self.max_pos = DistanceMetric(self.distance, "max", dtype=dtype)
        self.min_neg = DistanceMetric(self.distance, "min", "negative", dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes in a batch: see DistanceMetric."""
        self.max_pos.update_state(y_true, y_pred, sample_weight)
        self.min_neg.update_state(y_true, y_pred, sample_weight)

    def result(self) -> Any:
        """The gap, a scalar; not a number before there was a pair of each kind."""
        return self.min_neg.result() - self.max_pos.result()

    def reset_state(self) -> None:
        """Forgets all batches."""
        self.max_pos.reset_state()
        self.min_neg.reset_state()

    def get_config(self) -> dict[str, Any]:
        """Its arguments."""
        return {**super().get_config(), "distance": distances.to_config(self.distance)}


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise InvalidArgumentError(f"{name} is one of {', '.join(map(repr, known))}, not {value!r}")
    return value


def dist_gap(distance: distances.Distance | str) -> DistanceGapMetric:
    """The gap between the smallest distance between classes and the largest within one."""
    return DistanceGapMetric(distance)


def max_pos(distance: distances.Distance | str) -> DistanceMetric:
    """The largest distance within a class."""
    return DistanceMetric(distance, "max")


def max_neg(distance: distances.Distance | str) -> DistanceMetric:
    """The largest distance between classes."""
    return DistanceMetric(distance, "max", "negative", negative_mining_strategy="easy")


def avg_pos(distance: distances.Distance | str) -> DistanceMetric:
    """The mean distance to the farthest positive."""
    return DistanceMetric(distance, "mean")


def avg_neg(distance: distances.Distance | str) -> DistanceMetric:
    """The mean distance to the closest negative."""
    return DistanceMetric(distance, "mean", "negative")


def min_pos(distance: distances.Distance | str) -> DistanceMetric:
    """The smallest distance within a class."""
    return DistanceMetric(distance, "min", positive_mining_strategy="easy")


def min_neg(distance: distances.Distance | str) -> DistanceMetric:
    """The smallest distance between classes."""
    return DistanceMetric(distance, "min", "negative")


def sum_pos(distance: distances.Distance | str) -> DistanceMetric:
    """The sum of the distances to the farthest positives."""
    return DistanceMetric(distance, "sum")


def sum_neg(distance: distances.Distance | str) -> DistanceMetric:
    """The sum of the distances to the closest negatives."""
    return DistanceMetric(distance, "sum", "negative")
