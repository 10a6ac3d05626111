"""Embedders turn inputs into vectors: Keras models, or any function. Importing this package does not import Keras."""

from simstore.embedders.catalogue import EmbedderInfo, embedder_names
from simstore.embedders.function import FunctionEmbedder
from simstore.embedders.inputs import input_of
from simstore.embedders.keras import KerasEmbedder
from simstore.embedders.named import named_embedder, same_name
from simstore.embedders.protocol import Embedder
from simstore.embedders.record import check_same, from_record, model_bytes, to_record

__all__ = [
    "Embedder",
    "EmbedderInfo",
    "FunctionEmbedder",
    "KerasEmbedder",
    "check_same",
    "embedder_names",
    "from_record",
    "input_of",
    "model_bytes",
    "named_embedder",
    "same_name",
    "to_record",
]
