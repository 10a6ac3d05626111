"""Soft nearest neighbour loss."""

from typing import Any, Unpack

import keras
from keras import ops

from simstore.similarity.distances import Distance
from simstore.similarity.losses.metric_loss import LossOptions, PairLoss, check_positive
from simstore.similarity.losses.mining import Pairs, log_sum_exp

__all__ = ["SoftNearestNeighborLoss", "soft_nn_loss"]


def soft_nn_loss(pairs: Pairs, temperature: float = 1.0) -> Any:
    """How unlikely it is that a neighbour drawn at random is of the anchor's class: see SoftNearestNeighborLoss.

    Args:
        pairs: Of a batch.
        temperature: See SoftNearestNeighborLoss.

    Returns:
        Float tensor [n_anchors]; 0 for an anchor without a positive.
    """
    logits = pairs.distances / -temperature
    everyone = log_sum_exp(logits, ops.logical_or(pairs.positives, pairs.negatives))
    return ops.where(ops.any(pairs.positives, axis=1), everyone - log_sum_exp(logits, pairs.positives), 0.0)


@keras.saving.register_keras_serializable("simstore.similarity")
class SoftNearestNeighborLoss(PairLoss):
    """−log(Σ_p exp(−d(a, p) / T) / Σ_k exp(−d(a, k) / T)), over the positives p and all others k of the batch.

    Source: Frosst et al., "Analyzing and Improving Representations with the Soft Nearest Neighbor Loss",
    https://arxiv.org/abs/1902.01889.

    Args:
        distance: Between embeddings.
        temperature: T, in units of the distance: the smaller, the more the closest ones decide alone.
        options: ``name``, ``reduction``, ``dtype``.
    """

    def __init__(self, distance: Distance | str = "sql2", temperature: float = 1.0, **options: Unpack[LossOptions]) -> None:
        check_positive(temperature=temperature)
        super().__init__(soft_nn_loss, distance, {"temperature": temperature}, **options)
