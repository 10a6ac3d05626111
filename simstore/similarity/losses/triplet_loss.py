"""Triplet loss."""

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

import keras
from keras import ops

from simstore.similarity.distances import Distance
from simstore.similarity.losses.metric_loss import LossOptions, PairLoss
from simstore.similarity.losses.mining import Pairs, check_strategies, mine_negatives, mine_positives

__all__ = ["MinedLoss", "TripletLoss", "hinge", "triplet_loss"]


def triplet_loss(
    pairs: Pairs,
    positive_mining_strategy: str = "hard",
    negative_mining_strategy: str = "semi-hard",
    margin: float | None = None,
) -> Any:
    """One triplet per anchor: see TripletLoss.

    Args:
        pairs: Of a batch.
        positive_mining_strategy: See TripletLoss.
        negative_mining_strategy: See TripletLoss.
        margin: See TripletLoss.

    Returns:
        Float tensor [n_anchors]; 0 for an anchor without a positive or without a negative.
    """
    positives = mine_positives(pairs, positive_mining_strategy)
    negatives = mine_negatives(pairs, negative_mining_strategy, positives)
    losses = hinge(positives.distances - negatives.distances, margin)
    return ops.where(ops.logical_and(positives.found, negatives.found), losses, 0.0)


def hinge(differences: Any, margin: float | None) -> Any:
    """max(difference + margin, 0), or without a margin log(1 + exp(difference))."""
    return ops.softplus(differences) if margin is None else ops.maximum(differences + margin, 0.0)


class MinedLoss(PairLoss):
    """A loss of one positive and one negative mined for each anchor of the batch."""

    of_mined: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        distance: Distance | str = "cosine",
        positive_mining_strategy: str = "hard",
        negative_mining_strategy: str = "semi-hard",
        margin: float | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        check_strategies(positive_mining_strategy, negative_mining_strategy)
        settings = {
            "positive_mining_strategy": positive_mining_strategy,
            "negative_mining_strategy": negative_mining_strategy,
            "margin": margin,
        }
        super().__init__(self.of_mined, distance, settings, **options)


@keras.saving.register_keras_serializable("simstore.similarity")
class TripletLoss(MinedLoss):
    """max(d(a, p) − d(a, n) + margin, 0), with one positive p and one negative n mined for each anchor a of the batch.

    The soft margin, margin=None, is log(1 + exp(d(a, p) − d(a, n))): it goes on pulling where a hard one is content.

    Sources: Schroff et al., "FaceNet", https://arxiv.org/abs/1503.03832; Hermans et al., "In Defense of the Triplet Loss",
    https://arxiv.org/abs/1703.07737.

    Args:
        distance: Between embeddings.
        positive_mining_strategy: "hard" takes the farthest positive, "easy" the closest.
        negative_mining_strategy: "hard" takes the closest negative, "easy" the farthest, "semi-hard" the closest that is
            farther away than p, or else the farthest.
        margin: By how much n should be farther away than p, in units of the distance; None for the soft margin.
        options: ``name``, ``reduction``, ``dtype``.
    """

    of_mined = staticmethod(triplet_loss)
