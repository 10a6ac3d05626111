"""Lifted structure loss."""

from typing import Any, Unpack

import keras
from keras import ops

from simstore.similarity.distances import Distance
from simstore.similarity.losses.metric_loss import LossOptions, PairLoss
from simstore.similarity.losses.mining import Pairs, check_strategies, log_sum_exp, mine_positives

__all__ = ["LiftedStructLoss", "lifted_struct_loss"]


def lifted_struct_loss(pairs: Pairs, positive_mining_strategy: str = "hard", margin: float = 1.0) -> Any:
    """One positive per anchor, against the negatives of both: see LiftedStructLoss.

    Args:
        pairs: Of a batch.
        positive_mining_strategy: See LiftedStructLoss.
        margin: See LiftedStructLoss.

    Returns:
        Float tensor [n_anchors]; 0 for an anchor without a positive or without a negative.
    """
    positives = mine_positives(pairs, positive_mining_strategy)
    from_positives = pairs.from_keys(positives.indices)
    negatives = ops.concatenate([pairs.negatives, pairs.negatives], axis=1)  # both are of one class
    push = log_sum_exp(margin - ops.concatenate([pairs.distances, from_positives], axis=1), negatives)
    found = ops.logical_and(positives.found, ops.any(pairs.negatives, axis=1))
    return 0.5 * ops.square(ops.maximum(ops.where(found, push + positives.distances, 0.0), 0.0))


@keras.saving.register_keras_serializable("simstore.similarity")
class LiftedStructLoss(PairLoss):
    """max(J, 0)² / 2, with J = log(Σ_n exp(margin − d(a, n)) + Σ_n exp(margin − d(p, n))) + d(a, p).

    It is the paper's loss with one positive p mined for each anchor a; n are all negatives of the batch, so that there is
    no strategy for them.

    Source: Oh Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", https://arxiv.org/abs/1511.06452.

    Args:
        distance: Between embeddings.
        positive_mining_strategy: "hard" takes the farthest positive, "easy" the closest.
        margin: How far away negatives should be, in units of the distance.
        options: ``name``, ``reduction``, ``dtype``.
    """

    def __init__(
        self,
        distance: Distance | str = "cosine",
        positive_mining_strategy: str = "hard",
        *,
        margin: float = 1.0,
        **options: Unpack[LossOptions],
    ) -> None:
        check_strategies(positive_mining_strategy)
        settings = {"positive_mining_strategy": positive_mining_strategy, "margin": margin}
        super().__init__(lifted_struct_loss, distance, settings, **options)
