"""Models that are trained to embed, and keep an index."""

from simstore.similarity.models.contrastive_model import ContrastiveModel, create_contrastive_model
from simstore.similarity.models.similarity_model import SimilarityModel

__all__ = ["ContrastiveModel", "SimilarityModel", "create_contrastive_model"]
