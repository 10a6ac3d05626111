"""Positive-negative loss, as Ivis uses it."""

from typing import Any

import keras
from keras import ops

from simstore.similarity.losses.mining import Pairs, mine_negatives, mine_positives
from simstore.similarity.losses.triplet_loss import MinedLoss, hinge

__all__ = ["PNLoss", "pn_loss"]


def pn_loss(
    pairs: Pairs,
    positive_mining_strategy: str = "hard",
    negative_mining_strategy: str = "semi-hard",
    margin: float | None = None,
) -> Any:
    """One triplet per anchor, whose negative is to be far from both others: see PNLoss.

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
    from_positives = pairs.from_keys(positives.indices)
    between = ops.squeeze(ops.take_along_axis(from_positives, ops.expand_dims(negatives.indices, 1), axis=1), axis=1)
    losses = hinge(positives.distances - ops.minimum(negatives.distances, between), margin)
    return ops.where(ops.logical_and(positives.found, negatives.found), losses, 0.0)


@keras.saving.register_keras_serializable("simstore.similarity")
class PNLoss(MinedLoss):
    """max(d(a, p) − min(d(a, n), d(p, n)) + margin, 0): a triplet loss that pushes n from the anchor and the positive.

    The soft margin, margin=None, is log(1 + exp(…)).

    Source: Szubert et al., "Structure-preserving visualisation of high dimensional single-cell datasets", Sci Rep 9, 8914
    (2019), https://doi.org/10.1038/s41598-019-45301-0.

    Args:
        distance: Between embeddings.
        positive_mining_strategy: As in TripletLoss.
        negative_mining_strategy: As in TripletLoss.
        margin: As in TripletLoss.
        options: ``name``, ``reduction``, ``dtype``.
    """

    of_mined = staticmethod(pn_loss)
