"""VICReg's loss."""

from typing import Any, Unpack

import keras
from keras import ops

from simstore.similarity.losses.metric_loss import ContrastiveLoss, LossOptions, check_positive
from simstore.similarity.losses.mining import is_diagonal

__all__ = ["VicReg", "vicreg_loss"]


def vicreg_loss(za: Any, zb: Any, std_const: float = 1e-4, lambda_: float = 25.0, mu: float = 25.0, nu: float = 1.0) -> Any:
    """Invariance of each example, variance and covariance of the batch: see VicReg.

    Args:
        za: Float tensor [n, dim].
        zb: Float tensor [n, dim]: other views of the same examples.
        std_const: See VicReg.
        lambda_: See VicReg.
        mu: See VicReg.
        nu: See VicReg.

    Returns:
        Float tensor [n]: each example's own invariance, and the rest of the batch.
    """
    invariance = ops.mean(ops.square(za - zb), axis=1)
    (spread_a, redundancy_a), (spread_b, redundancy_b) = _of_batch(za, std_const), _of_batch(zb, std_const)
    return lambda_ * invariance + mu * (spread_a + spread_b) / 2.0 + nu * (redundancy_a + redundancy_b)


def _of_batch(z: Any, std_const: float) -> tuple[Any, Any]:
    """Σ max(0, 1 − std) / dim, and Σ of the squared covariances of different dimensions / dim."""
    centered = z - ops.mean(z, axis=0)
    n = ops.maximum(ops.sum(ops.ones_like(z[:, 0])) - 1.0, 1.0)  # one example alone has no variance
    covariances = ops.matmul(ops.transpose(centered), centered) / n
    variances = ops.sum(ops.square(centered), axis=0) / n
    spread = ops.mean(ops.maximum(1.0 - ops.sqrt(variances + std_const), 0.0))
    others = ops.where(is_diagonal(covariances), 0.0, covariances)
    return spread, ops.mean(ops.sum(ops.square(others), axis=0))


@keras.saving.register_keras_serializable("simstore.similarity")
class VicReg(ContrastiveLoss):
    """lambda mean_d (a_d − b_d)² + mu (v(a) + v(b)) / 2 + nu (c(a) + c(b)).

    v is the mean over the dimensions of max(0, 1 − √(variance + std_const)), c the sum of the squared covariances of
    different dimensions, by dim. Variances and covariances are those of a sample, by n − 1, as in the paper's code.

    Source: Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization", https://arxiv.org/abs/2105.04906.

    Args:
        std_const: Keeps the root's gradient finite; positive.
        lambda_: The weight of invariance.
        mu: The weight of variance.
        nu: The weight of covariance.
        options: ``name``, ``reduction``, ``dtype``.
    """

    def __init__(
        self,
        std_const: float = 1e-4,
        lambda_: float = 25.0,
        mu: float = 25.0,
        nu: float = 1.0,
        **options: Unpack[LossOptions],
    ) -> None:
        check_positive(std_const=std_const)
        settings = {"std_const": std_const, "lambda_": lambda_, "mu": mu, "nu": nu}
        super().__init__(vicreg_loss, settings, **options)
