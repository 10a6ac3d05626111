"""The Barlow Twins' loss."""

from typing import Any, Unpack

import keras
from keras import ops

from simstore.similarity.losses.metric_loss import ContrastiveLoss, LossOptions
from simstore.similarity.losses.mining import is_diagonal

__all__ = ["Barlow", "barlow_loss"]

_EPSILON = 1e-12  # of a variance: a dimension below it is constant, and correlates with nothing


def barlow_loss(za: Any, zb: Any, lambda_: float = 5e-3, margin: float = 1e-12) -> Any:
    """How far the dimensions of two views are from being the same, and independent of each other: see Barlow.

    Args:
        za: Float tensor [n, dim].
        zb: Float tensor [n, dim]: other views of the same examples.
        lambda_: See Barlow.
        margin: See Barlow.

    Returns:
        Float tensor [n]: the loss of the batch, once for each example.
    """
    n = ops.sum(ops.ones_like(za[:, 0]))
    correlations = ops.matmul(ops.transpose(_standard(za)), _standard(zb)) / n
    is_own = is_diagonal(correlations)
    squares = ops.where(is_own, ops.square(1.0 - correlations), lambda_ * ops.square(correlations))
    return ops.ones_like(za[:, 0]) * (ops.sum(squares) + margin)


def _standard(z: Any) -> Any:
    """The columns with mean 0 and variance 1; a constant one is 0."""
    centered = z - ops.mean(z, axis=0)
    variance = ops.mean(ops.square(centered), axis=0)
    is_varied = variance > _EPSILON
    return ops.where(is_varied, centered * ops.rsqrt(ops.where(is_varied, variance, 1.0)), 0.0)


@keras.saving.register_keras_serializable("simstore.similarity")
class Barlow(ContrastiveLoss):
    """Σ_d (1 − c_dd)² + lambda Σ_{d ≠ e} c_de² + margin, of the correlations c of the dimensions of two views.

    It is one loss of the whole batch, returned once for each example, so that its mean is the loss.

    Source: Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
    https://arxiv.org/abs/2103.03230.

    Args:
        lambda_: The weight of redundancy.
        margin: Added, so that the loss is never 0.
        options: ``name``, ``reduction``, ``dtype``.
    """

    def __init__(self, lambda_: float = 5e-3, margin: float = 1e-12, **options: Unpack[LossOptions]) -> None:
        super().__init__(barlow_loss, {"lambda_": lambda_, "margin": margin}, **options)
