"""A saved model, loaded when it is needed: a store opens without importing Keras."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import EmbedderMismatchError
from simstore.types import EmbedderSpec

if TYPE_CHECKING:
    from simstore.embedders.keras import KerasEmbedder

__all__ = ["LazyKerasEmbedder"]


class LazyKerasEmbedder:
    """The embedder that a store keeps in ``path``."""

    def __init__(self, spec: EmbedderSpec, path: Path, batch_size: int) -> None:
        self._spec = spec
        self._path = path
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._loaded: KerasEmbedder | None = None

    @property
    def spec(self) -> EmbedderSpec:
        """As the store remembers it; known without loading."""
        return self._spec

    def embed(self, batch: Any) -> NDArray[np.float32]:
        """The model's vectors of n inputs, float32 [n, dim].

        Raises:
            CorruptStoreError: The model's file is missing or damaged.
            EmbedderMismatchError: The file holds another model.
            ImportError: Keras is not installed.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
        return self._loaded.embed(batch)

    def _load(self) -> "KerasEmbedder":
        from simstore.embedders.keras import load_embedder

        loaded = load_embedder(self._path, name=self._spec.name, batch_size=self._batch_size)
        if loaded.spec.fingerprint != self._spec.fingerprint:
            raise EmbedderMismatchError(
                f"{self._path} holds a model with fingerprint {loaded.spec.fingerprint}, and the store was made with "
                f"{self._spec.fingerprint}: restore that file from a backup, or open the store with embedder=…"
            )
        return loaded
