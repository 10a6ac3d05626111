"""Supervised contrastive loss."""

from typing import Any, Unpack

import keras
from keras import ops

from simstore.similarity.distances import Distance
from simstore.similarity.losses.metric_loss import LossOptions, PairLoss, check_positive
from simstore.similarity.losses.mining import Pairs, log_sum_exp

__all__ = ["SupConLoss", "supcon_loss"]


def supcon_loss(pairs: Pairs, temperature: float = 0.1) -> Any:
    """The mean cross-entropy of finding each positive among all others: see SupConLoss.

    Args:
        pairs: Of a batch.
        temperature: See SupConLoss.

    Returns:
        Float tensor [n_anchors]; 0 for an anchor without a positive.
    """
    logits = pairs.distances / -temperature
    n_positives = ops.sum(ops.cast(pairs.positives, logits.dtype), axis=1)
    mean = ops.sum(ops.where(pairs.positives, logits, 0.0), axis=1) / ops.maximum(n_positives, 1.0)
    everyone = log_sum_exp(logits, ops.logical_or(pairs.positives, pairs.negatives))
    return ops.where(n_positives > 0, everyone - mean, 0.0)


@keras.saving.register_keras_serializable("simstore.similarity")
class SupConLoss(PairLoss):
    """−1/|P| Σ_{p in P} log(exp(−d(a, p) / T) / Σ_k exp(−d(a, k) / T)), over the positives P and all others k of the batch.

    With the cosine distance, exp(−d / T) is the paper's exp(z_a · z_k / T) up to a factor that cancels.

    Source: Khosla et al., "Supervised Contrastive Learning", https://arxiv.org/abs/2004.11362.

    Args:
        distance: Between embeddings.
        temperature: T, in units of the distance.
        options: ``name``, ``reduction``, ``dtype``.
    """

    def __init__(self, distance: Distance | str = "cosine", temperature: float = 0.1, **options: Unpack[LossOptions]) -> None:
        check_positive(temperature=temperature)
        super().__init__(supcon_loss, distance, {"temperature": temperature}, **options)
