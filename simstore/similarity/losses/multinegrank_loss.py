"""Multiple negatives ranking loss."""

from typing import Any, Unpack

import keras
from keras import ops

from simstore.similarity import distances
from simstore.similarity.losses.metric_loss import ContrastiveLoss, LossOptions, check_positive
from simstore.similarity.losses.mining import is_diagonal

__all__ = ["MultiNegativesRankLoss", "multineg_ranking_loss"]


def multineg_ranking_loss(query_embeddings: Any, key_embeddings: Any, distance: distances.Distance, scale: float = 20.0) -> Any:
    """The cross-entropy of finding each query's own key among all keys: see MultiNegativesRankLoss.

    Args:
        query_embeddings: Float tensor [n, dim].
        key_embeddings: Float tensor [n, dim]: the key of each query.
        distance: See MultiNegativesRankLoss.
        scale: See MultiNegativesRankLoss.

    Returns:
        Float tensor [n].
    """
    logits = -scale * distances.pairwise_distances(distance, query_embeddings, key_embeddings)
    own = ops.sum(ops.where(is_diagonal(logits), logits, 0.0), axis=1)
    return ops.logsumexp(logits, axis=1) - own


@keras.saving.register_keras_serializable("simstore.similarity")
class MultiNegativesRankLoss(ContrastiveLoss):
    """log Σ_j exp(scale ⟨q_i, k_j⟩) − scale ⟨q_i, k_i⟩: for each query, the keys of all others are the negatives.

    Called as ``loss(query_embeddings, key_embeddings)``, both [n, dim]; there are no labels. With unit vectors the inner
    product is the cosine. Of another distance, −scale · d takes its place.

    Source: Henderson et al., "Efficient Natural Language Response Suggestion for Smart Reply",
    https://arxiv.org/abs/1705.00652.

    Args:
        distance: Between queries and keys; also what a model's index uses.
        scale: The inverse of a temperature.
        options: ``name``, ``reduction``, ``dtype``.

    Attributes:
        distance: The Distance.
    """

    def __init__(
        self,
        distance: distances.Distance | str = "inner_product",
        scale: float = 20.0,
        **options: Unpack[LossOptions],
    ) -> None:
        check_positive(scale=scale)
        super().__init__(multineg_ranking_loss, {"scale": scale}, **options)
        self.distance = distances.get(distance)

    def call(self, za: Any, zb: Any) -> Any:
        """One loss per query, [n]."""
        return self.fn(za, zb, self.distance, **self.settings)

    def get_config(self) -> dict[str, Any]:
        """Its arguments."""
        return {**super().get_config(), "distance": distances.to_config(self.distance)}
