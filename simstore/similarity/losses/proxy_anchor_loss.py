"""Proxy anchor loss."""

import math
from typing import Any, Unpack

import keras
from keras import ops

from simstore.similarity.distances import unit
from simstore.similarity.losses.class_loss import ClassLoss, is_of_class
from simstore.similarity.losses.metric_loss import LossOptions, check_positive
from simstore.similarity.losses.mining import log_sum_exp

__all__ = ["ProxyAnchorLoss", "proxy_anchor_loss"]


def proxy_anchor_loss(labels: Any, embeddings: Any, proxies: Any, margin: float = 0.1, alpha: float = 32.0) -> Any:
    """Each class' proxy pulls its examples of the batch and pushes the others: see ProxyAnchorLoss.

    Args:
        labels: Integer tensor [n].
        embeddings: Float tensor [n, dim].
        proxies: Float tensor [num_classes, dim].
        margin: See ProxyAnchorLoss.
        alpha: See ProxyAnchorLoss.

    Returns:
        Float tensor [n]: the loss of the batch, once for each example; not a number where there is no such class.
    """
    cosines = ops.matmul(unit(proxies), ops.transpose(unit(embeddings)))  # [num_classes, n]
    is_own = is_of_class(labels, proxies)
    own = ops.transpose(is_own)
    pull = ops.softplus(log_sum_exp(alpha * (margin - cosines), own))
    push = ops.softplus(log_sum_exp(alpha * (margin + cosines), ops.logical_not(own)))
    n_present = ops.sum(ops.cast(ops.any(own, axis=1), cosines.dtype))
    loss = ops.sum(pull) / ops.maximum(n_present, 1.0) + ops.mean(push)
    return ops.where(ops.any(is_own, axis=1), loss, math.nan)


@keras.saving.register_keras_serializable("simstore.similarity")
class ProxyAnchorLoss(ClassLoss):
    """1/|P⁺| Σ_{p in P⁺} log(1 + Σ_{x of p} e^(−α(s − m))) + 1/|P| Σ_{p in P} log(1 + Σ_{x not of p} e^(α(s + m))).

    P are the proxies, one for each class, P⁺ those with examples in the batch, s the cosine of x and p. It is one loss of
    the whole batch, returned once for each example, so that its mean is the loss. The proxies are weights of the loss, see
    ``track``; the authors train them with a hundred times the model's learning rate.

    Source: Kim et al., "Proxy Anchor Loss for Deep Metric Learning", https://arxiv.org/abs/2003.13911.

    Args:
        num_classes: Labels are 0 … num_classes − 1; the loss of any other is not a number.
        embedding_size: The width of the embeddings, where it is not to be taken from the model.
        margin: m, a cosine.
        alpha: α, the scale.
        options: ``name``, ``reduction``, ``dtype``.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int | None = None,
        margin: float = 0.1,
        alpha: float = 32.0,
        **options: Unpack[LossOptions],
    ) -> None:
        check_positive(alpha=alpha)
        super().__init__(proxy_anchor_loss, num_classes, embedding_size, {"margin": margin, "alpha": alpha}, **options)
