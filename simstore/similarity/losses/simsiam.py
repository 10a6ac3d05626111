"""SimSiam's loss."""

import math
from typing import Any, Unpack

import keras
from keras import ops

from simstore.errors import InvalidArgumentError
from simstore.similarity.distances import safe_sqrt, unit
from simstore.similarity.losses.metric_loss import ContrastiveLoss, LossOptions

__all__ = ["SimSiamLoss", "simsiam_loss"]

_PROJECTIONS = ("negative_cosine_sim", "cosine_distance", "angular_distance")


def simsiam_loss(projector: Any, predictor: Any, projection_type: str = "negative_cosine_sim", margin: float = 0.001) -> Any:
    """Half a distance of the directions of two vectors: see SimSiamLoss.

    Args:
        projector: Float tensor [n, dim].
        predictor: Float tensor [n, dim].
        projection_type: See SimSiamLoss.
        margin: See SimSiamLoss.

    Returns:
        Float tensor [n].
    """
    a, b = unit(projector), unit(predictor)
    if projection_type == "angular_distance":  # acos has no gradient where the vectors agree; this is the same angle
        lengths = [safe_sqrt(ops.sum(ops.square(c), axis=1)) for c in (a - b, a + b)]
        return ops.arctan2(*lengths) / math.pi + margin
    cosine = ops.sum(a * b, axis=1)
    return 0.5 * (1.0 - cosine if projection_type == "cosine_distance" else -cosine) + margin


@keras.saving.register_keras_serializable("simstore.similarity")
class SimSiamLoss(ContrastiveLoss):
    """distance(z, p) / 2 + margin, of the projection z of one view and the prediction p from the other.

    Called as ``loss(z, p)`` for both ways round. z has to be given without its gradient, ``keras.ops.stop_gradient(z)``:
    with it the model finds the trivial solution. The loss is symmetric, and cannot know which is which.

    Source: Chen and He, "Exploring Simple Siamese Representation Learning", https://arxiv.org/abs/2011.10566.

    Args:
        projection_type: "negative_cosine_sim" (−cos), "cosine_distance" (1 − cos) or "angular_distance" (angle / π).
        margin: Added, so that the loss of a perfect match is no 0.
        options: ``name``, ``reduction``, ``dtype``.
    """

    def __init__(
        self, projection_type: str = "negative_cosine_sim", margin: float = 0.001, **options: Unpack[LossOptions]
    ) -> None:
        if projection_type not in _PROJECTIONS:
            raise InvalidArgumentError(f"projection_type is one of {', '.join(_PROJECTIONS)}, not {projection_type!r}")
        super().__init__(simsiam_loss, {"projection_type": projection_type, "margin": margin}, **options)
