"""Embedders turn inputs into vectors: Keras models, or any function. Importing this package does not import Keras."""

from simstore.embedders.function import FunctionEmbedder
from simstore.embedders.keras import KerasEmbedder
from simstore.embedders.protocol import Embedder
from simstore.embedders.record import check_same, from_record, model_bytes, to_record

__all__ = [
    "Embedder",
    "FunctionEmbedder",
    "KerasEmbedder",
    "check_same",
    "from_record",
    "model_bytes",
    "to_record",
]
