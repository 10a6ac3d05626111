"""SimCLR's loss."""

from typing import Any, Unpack

import keras
from keras import ops

from simstore.similarity.distances import unit
from simstore.similarity.losses.metric_loss import ContrastiveLoss, LossOptions, check_positive
from simstore.similarity.losses.mining import is_diagonal, log_sum_exp

__all__ = ["SimCLRLoss", "simclr_loss"]


def simclr_loss(za: Any, zb: Any, temperature: float = 0.05, use_hidden_norm: bool = True) -> Any:
    """The cross-entropy of finding each example's other view among all others: see SimCLRLoss.

    Args:
        za: Float tensor [n, dim].
        zb: Float tensor [n, dim]: other views of the same examples.
        temperature: See SimCLRLoss.
        use_hidden_norm: See SimCLRLoss.

    Returns:
        Float tensor [n].
    """
    if use_hidden_norm:
        za, zb = unit(za), unit(zb)
    to_b = ops.matmul(za, ops.transpose(zb)) / temperature
    to_a = ops.matmul(za, ops.transpose(za)) / temperature
    is_own = is_diagonal(to_b)
    candidates = ops.concatenate([ops.ones_like(is_own), ops.logical_not(is_own)], axis=1)
    own = ops.sum(ops.where(is_own, to_b, 0.0), axis=1)
    return log_sum_exp(ops.concatenate([to_b, to_a], axis=1), candidates) - own


@keras.saving.register_keras_serializable("simstore.similarity")
class SimCLRLoss(ContrastiveLoss):
    """log(Σ_j exp(a_i · b_j / T) + Σ_{j ≠ i} exp(a_i · a_j / T)) − a_i · b_i / T, for the views a of the examples.

    Called as ``loss(za, zb)``, and as ``loss(zb, za)`` for the other views.

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations",
    https://arxiv.org/abs/2002.05709.

    Args:
        temperature: T.
        use_hidden_norm: Whether the vectors are brought to unit length first.
        options: ``name``, ``reduction``, ``dtype``.
    """

    def __init__(self, temperature: float = 0.05, use_hidden_norm: bool = True, **options: Unpack[LossOptions]) -> None:
        check_positive(temperature=temperature)
        super().__init__(simclr_loss, {"temperature": temperature, "use_hidden_norm": use_hidden_norm}, **options)
