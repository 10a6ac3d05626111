"""Embedders: what turns inputs into vectors. ``simstore.embedders.keras.KerasEmbedder`` takes a Keras model."""

from typing import Any

from simstore.embedders.function import FunctionEmbedder
from simstore.embedders.protocol import Embedder, check_same
from simstore.embedders.saving import from_record, model_bytes, to_record

__all__ = ["Embedder", "FunctionEmbedder", "KerasEmbedder", "check_same", "from_record", "model_bytes", "to_record"]


def __getattr__(name: str) -> Any:
    if name == "KerasEmbedder":
        from simstore.embedders.keras import KerasEmbedder

        return KerasEmbedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
