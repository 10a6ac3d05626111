"""What a store asks of an embedder."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simstore.types import EmbedderSpec

__all__ = ["Embedder"]


@runtime_checkable
class Embedder(Protocol):
    """Turns inputs (images, texts, …) into vectors. ``embed`` may be called from many threads at once.

    Equal fingerprints mean equal vectors: a store refuses an embedder with another fingerprint than it was made with.
    """

    @property
    def spec(self) -> EmbedderSpec:
        """Its name, the width of its vectors and its fingerprint."""
        ...

    def embed(self, batch: Any) -> NDArray[np.float32]:
        """The vectors of a batch, float32 [n, dim].

        Args:
            batch: n inputs: an array [n, …], or a list of n.
        """
        ...
