"""The embedder that a store has saved: known at once, loaded when it is first needed."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.embedders.protocol import Embedder
from simstore.types import EmbedderSpec

__all__ = ["SavedEmbedder"]


class SavedEmbedder:
    """A store's own embedder. Keras is imported and the model loaded at the first ``embed``, once for all threads.

    Attributes:
        record: What the store remembers of it.
        path: The model's file.
    """

    def __init__(self, record: dict[str, Any], path: Path) -> None:
        self.record = record
        self.path = path
        self._spec = EmbedderSpec(record["name"], record["dim"], record["fingerprint"])
        self._lock = threading.Lock()
        self._loaded: Embedder | None = None

    @property
    def spec(self) -> EmbedderSpec:
        """Name, dim and fingerprint, as the store remembers them."""
        return self._spec

    def embed(self, batch: Any) -> NDArray[np.float32]:
        """The vectors of a batch, float32 [n, dim].

        Raises:
            CorruptStoreError: The model's file is missing, damaged or another model's.
            EmbedderRequiredError: Keras cannot load it here.
            KerasMissingError: Keras or its backend is not installed.
            InvalidArgumentError, InvalidVectorError: See KerasEmbedder.embed.
        """
        return self.loaded().embed(batch)

    def loaded(self) -> Embedder:
        """The embedder itself, loaded if it is not yet.

        Raises:
            CorruptStoreError, EmbedderRequiredError, KerasMissingError: See embed.
        """
        loaded = self._loaded
        return self._load() if loaded is None else loaded

    def _load(self) -> Embedder:
        from simstore.embedders.keras_file import load_embedder

        with self._lock:
            if self._loaded is None:
                self._loaded = load_embedder(self.path, self.record)
            return self._loaded

    def __repr__(self) -> str:
        state = "not loaded yet" if self._loaded is None else "loaded"
        return f"<SavedEmbedder {self._spec.name!r}, dim {self._spec.dim}, {state}>"
