"""Circle loss."""

from typing import Any, Unpack

import keras
from keras import ops

from simstore.similarity.distances import Distance
from simstore.similarity.losses.metric_loss import LossOptions, PairLoss, check_positive
from simstore.similarity.losses.mining import Pairs, log_sum_exp

__all__ = ["CircleLoss", "circle_loss"]


def circle_loss(pairs: Pairs, gamma: float = 80.0, margin: float = 0.4) -> Any:
    """Each pair pulled or pushed by how far it is from its optimum: see CircleLoss.

    Args:
        pairs: Of a batch.
        gamma: See CircleLoss.
        margin: See CircleLoss.

    Returns:
        Float tensor [n_anchors]; 0 for an anchor without a positive or without a negative.
    """
    distances = pairs.distances
    pull = ops.stop_gradient(ops.maximum(distances + margin, 0.0))  # weights are no variables of the loss
    push = ops.stop_gradient(ops.maximum(1.0 + margin - distances, 0.0))
    positive = log_sum_exp(gamma * pull * (distances - margin), pairs.positives)
    negative = log_sum_exp(gamma * push * (1.0 - margin - distances), pairs.negatives)
    found = ops.logical_and(ops.any(pairs.positives, axis=1), ops.any(pairs.negatives, axis=1))
    return ops.where(found, ops.softplus(positive + negative), 0.0)


@keras.saving.register_keras_serializable("simstore.similarity")
class CircleLoss(PairLoss):
    """log(1 + Σ_p exp(gamma w_p (d(a, p) − m)) · Σ_n exp(gamma w_n (1 − m − d(a, n)))).

    The weights are w_p = max(d(a, p) + m, 0) and w_n = max(1 + m − d(a, n), 0), and no gradient goes through them: it is
    the paper's loss, with its similarity as 1 − d. TensorFlow Similarity adds the two logarithms instead.

    Source: Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization",
    https://arxiv.org/abs/2002.10857.

    Args:
        distance: Between embeddings; made for the cosine distance.
        gamma: Scale: the larger, the more the hardest pair decides alone.
        margin: m: positives are to be closer than it, negatives farther away than 1 − m.
        options: ``name``, ``reduction``, ``dtype``.
    """

    def __init__(
        self,
        distance: Distance | str = "cosine",
        gamma: float = 80.0,
        margin: float = 0.4,
        **options: Unpack[LossOptions],
    ) -> None:
        check_positive(gamma=gamma)
        super().__init__(circle_loss, distance, {"gamma": gamma, "margin": margin}, **options)
