"""From inputs to embeddings, through one compiled graph that reads the weights as they are."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from simstore.embedders import KerasEmbedder

__all__ = ["Embedding"]

_BATCH_SIZE = 256


class Embedding:
    """What a model makes of its inputs.

    Args:
        model: A functional model with one output [None, dim], over the layers that are trained.
        name: What a store calls it.
    """

    def __init__(self, model: keras.Model, name: str) -> None:
        self.model, self.name = model, name
        # Its compiled function reads the variables at each call, and is made once. Its fingerprint grows old.
        self._forward = KerasEmbedder(model, batch_size=_BATCH_SIZE, name=name)
        self._version: object = None
        self._fingerprint = ""

    @property
    def dim(self) -> int:
        """How many numbers an embedding has."""
        return self._forward.spec.dim

    def __call__(self, x: Any) -> NDArray[np.float32]:
        """The embeddings of a batch, float32 [n, dim]."""
        return self._forward.embed(x)

    def embedder(self, *, save: bool = True) -> KerasEmbedder:
        """An embedder of the weights as they are now."""
        return KerasEmbedder(self.model, name=self.name, save=save)

    def fingerprint(self, version: object, *, surely: bool = False) -> str:
        """The fingerprint of the weights as they are now, computed if the version is another than the last time, or surely."""
        if surely or version != self._version:
            self._fingerprint, self._version = self.embedder().spec.fingerprint, version
        return self._fingerprint
