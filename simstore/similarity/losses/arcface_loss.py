"""ArcFace's loss."""

import math
from typing import Any, Unpack

import keras
from keras import ops

from simstore.similarity.distances import safe_sqrt, unit
from simstore.similarity.losses.class_loss import ClassLoss, is_of_class
from simstore.similarity.losses.metric_loss import LossOptions, check_positive

__all__ = ["ArcFaceLoss", "arcface_loss"]


def arcface_loss(labels: Any, embeddings: Any, class_vectors: Any, margin: float = 0.5, scale: float = 64.0) -> Any:
    """The cross-entropy of finding each example's class, made harder by an angle: see ArcFaceLoss.

    Args:
        labels: Integer tensor [n].
        embeddings: Float tensor [n, dim].
        class_vectors: Float tensor [num_classes, dim].
        margin: See ArcFaceLoss.
        scale: See ArcFaceLoss.

    Returns:
        Float tensor [n]; not a number where there is no such class.
    """
    cosines = ops.matmul(unit(embeddings), ops.transpose(unit(class_vectors)))
    is_own = is_of_class(labels, class_vectors)
    own = ops.sum(ops.where(is_own, cosines, 0.0), axis=1)
    widened = own * math.cos(margin) - safe_sqrt(1.0 - ops.square(own)) * math.sin(margin)  # cos(θ + margin), without acos
    widened = ops.where(own > -math.cos(margin), widened, own - margin * math.sin(margin))
    logits = scale * ops.where(is_own, ops.expand_dims(widened, 1), cosines)
    return ops.where(ops.any(is_own, axis=1), ops.logsumexp(logits, axis=1) - scale * widened, math.nan)


@keras.saving.register_keras_serializable("simstore.similarity")
class ArcFaceLoss(ClassLoss):
    """−log(exp(s cos(θ_y + m)) / (exp(s cos(θ_y + m)) + Σ_{c ≠ y} exp(s cos θ_c))), θ_c the angle to class c's vector.

    Where θ_y + m is beyond π, cos θ_y − m sin m stands for cos(θ_y + m), as in the authors' code: the cosine would grow
    again. The class vectors are weights of the loss, see ``track``.

    Source: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", https://arxiv.org/abs/1801.07698.

    Args:
        num_classes: Labels are 0 … num_classes − 1; the loss of any other is not a number.
        embedding_size: The width of the embeddings, where it is not to be taken from the model.
        margin: m, in radians.
        scale: s.
        options: ``name``, ``reduction``, ``dtype``.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int | None = None,
        margin: float = 0.5,
        scale: float = 64.0,
        **options: Unpack[LossOptions],
    ) -> None:
        check_positive(scale=scale)
        super().__init__(arcface_loss, num_classes, embedding_size, {"margin": margin, "scale": scale}, **options)
