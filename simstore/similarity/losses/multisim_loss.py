"""Multi-similarity loss."""

from typing import Any, Unpack

import keras
from keras import ops

from simstore.similarity.distances import Distance
from simstore.similarity.losses.metric_loss import LossOptions, PairLoss, check_positive
from simstore.similarity.losses.mining import Pairs, log_sum_exp, masked_max, masked_min

__all__ = ["MultiSimilarityLoss", "multisimilarity_loss"]


def multisimilarity_loss(
    pairs: Pairs, alpha: float = 2.0, beta: float = 40.0, epsilon: float = 0.1, lmda: float = 0.5, center: float = 1.0
) -> Any:
    """The pairs that are hard for their anchor, weighted by how hard: see MultiSimilarityLoss.

    Args:
        pairs: Of a batch.
        alpha: See MultiSimilarityLoss.
        beta: See MultiSimilarityLoss.
        epsilon: See MultiSimilarityLoss.
        lmda: See MultiSimilarityLoss.
        center: See MultiSimilarityLoss.

    Returns:
        Float tensor [n_anchors]; 0 for an anchor without a hard positive or without a hard negative.
    """
    closest_negative = masked_min(pairs.distances, pairs.negatives).distances
    farthest_positive = masked_max(pairs.distances, pairs.positives).distances
    is_far = pairs.distances > ops.expand_dims(closest_negative - epsilon, 1)
    is_close = pairs.distances < ops.expand_dims(farthest_positive + epsilon, 1)
    positives, negatives = ops.logical_and(pairs.positives, is_far), ops.logical_and(pairs.negatives, is_close)
    shifted = pairs.distances + (lmda - center)
    pull = ops.softplus(log_sum_exp(alpha * shifted, positives)) / alpha
    push = ops.softplus(log_sum_exp(-beta * shifted, negatives)) / beta
    return ops.where(ops.logical_and(ops.any(positives, axis=1), ops.any(negatives, axis=1)), pull + push, 0.0)


@keras.saving.register_keras_serializable("simstore.similarity")
class MultiSimilarityLoss(PairLoss):
    """log(1 + Σ_p exp(alpha s(a, p))) / alpha + log(1 + Σ_n exp(−beta s(a, n))) / beta, with s = d + lmda − center.

    Only hard pairs count: positives p with d(a, p) > min_n d(a, n) − epsilon, and negatives n with
    d(a, n) < max_p d(a, p) + epsilon.

    Source: Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning",
    https://arxiv.org/abs/1904.06627.

    Args:
        distance: Between embeddings.
        alpha: How much more the farthest positives weigh than the others.
        beta: How much more the closest negatives weigh than the others.
        epsilon: How near to being wrong a pair has to be, in units of the distance.
        lmda: Pairs around ``center − lmda`` weigh half.
        center: A middling distance: 1 for the cosine distance; of others it depends on the data.
        options: ``name``, ``reduction``, ``dtype``.
    """

    def __init__(
        self,
        distance: Distance | str = "cosine",
        alpha: float = 2.0,
        beta: float = 40.0,
        epsilon: float = 0.1,
        lmda: float = 0.5,
        center: float = 1.0,
        **options: Unpack[LossOptions],
    ) -> None:
        check_positive(alpha=alpha, beta=beta)
        settings = {"alpha": alpha, "beta": beta, "epsilon": epsilon, "lmda": lmda, "center": center}
        super().__init__(multisimilarity_loss, distance, settings, **options)
