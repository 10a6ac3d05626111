"""Models that are trained to embed, and keep an index."""

from simstore.similarity.models.similarity_model import SimilarityModel

__all__ = ["SimilarityModel"]
