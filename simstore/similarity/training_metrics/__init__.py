"""How distances within and between classes develop during training, for ``model.compile(metrics=…)``."""

from simstore.similarity.training_metrics.class_ratio import batch_class_ratio
from simstore.similarity.training_metrics.distance_metrics import (
    DistanceGapMetric,
    DistanceMetric,
    avg_neg,
    avg_pos,
    dist_gap,
    max_neg,
    max_pos,
    min_neg,
    min_pos,
    sum_neg,
    sum_pos,
)

__all__ = [
    "DistanceGapMetric",
    "DistanceMetric",
    "avg_neg",
    "avg_pos",
    "batch_class_ratio",
    "dist_gap",
    "max_neg",
    "max_pos",
    "min_neg",
    "min_pos",
    "sum_neg",
    "sum_pos",
]
