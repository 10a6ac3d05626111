"""Any function as an embedder."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from simstore.embedders.batches import as_batch, checked_vectors
from simstore.errors import InvalidArgumentError
from simstore.types import EmbedderSpec

__all__ = ["FunctionEmbedder"]


class FunctionEmbedder:
    """Embeds with a function. A store remembers its name, not its code: give it again whenever you open the store.

    Args:
        fn: Called as fn(batch) with an array [n, …], or with a list where the inputs are texts or other objects;
            returns numbers [n, dim]. It should be safe to call from several threads.
        name: What the store knows it by. Change it when the function's vectors change ("clip-v1", "clip-v2"): the
            fingerprint is made of name and dim alone.
        dim: The width of the vectors.

    Raises:
        InvalidArgumentError: One of these is something else.

    Example:
        >>> means = FunctionEmbedder(lambda images: images.mean(axis=(1, 2)), name="mean-colour", dim=3)
        >>> means.embed(np.zeros((2, 8, 8, 3))).shape
        (2, 3)
    """

    def __init__(self, fn: Callable[[Any], Any], *, name: str, dim: int) -> None:
        if not callable(fn):
            raise InvalidArgumentError(f"fn is a function batch → array [n, dim], not {type(fn).__name__}")
        if not isinstance(name, str) or not name:
            raise InvalidArgumentError(f"name is a text to know the function by, not {name!r}")
        if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 1:
            raise InvalidArgumentError(f"dim is how many numbers a vector has, at least 1; not {dim!r}")
        self._fn = fn
        fingerprint = xxhash.xxh3_128_hexdigest(f"function\0{name}\0{dim}".encode())
        self._spec = EmbedderSpec(name, int(dim), fingerprint)

    @property
    def spec(self) -> EmbedderSpec:
        """Name, dim, and a fingerprint made of the two."""
        return self._spec

    def embed(self, batch: Any) -> NDArray[np.float32]:
        """The vectors of a batch, float32 [n, dim].

        Raises:
            InvalidArgumentError: It is no batch.
            InvalidVectorError: The function returned something else.
        """
        inputs = as_batch(batch)
        if len(inputs) == 0:
            return np.empty((0, self._spec.dim), np.float32)
        return checked_vectors(self._fn(inputs), len(inputs), self._spec.dim, f"the embedder function {self._spec.name!r}")

    def __repr__(self) -> str:
        return f"<FunctionEmbedder {self._spec.name!r}, dim {self._spec.dim}>"
