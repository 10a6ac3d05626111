"""Any function as an embedder."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_hexdigest

from simstore.embedders.protocol import checked_spec
from simstore.errors import InvalidArgumentError, InvalidVectorError
from simstore.types import EmbedderSpec

__all__ = ["FunctionEmbedder"]


class FunctionEmbedder:
    """Calls a function. It is not saved in a store: the store remembers name and dim, and wants it again at each open.

    Args:
        fn: Takes a batch of n inputs, returns numbers [n, dim].
        name: Names what the function computes, version included: the same name and dim pass for the same function.
        dim: The width of its vectors.

    Example:
        >>> import numpy as np
        >>> embedder = FunctionEmbedder(lambda texts: [[len(text), text.count("e")] for text in texts], name="len-e", dim=2)
        >>> embedder.embed(["tree"]).tolist()
        [[4.0, 2.0]]
    """

    def __init__(self, fn: Callable[[Any], Any], *, name: str, dim: int) -> None:
        if not callable(fn):
            raise InvalidArgumentError(f"fn is a function from a batch of inputs to vectors, not {type(fn).__name__}")
        self._fn = fn
        self._spec = checked_spec(name, dim, xxh3_128_hexdigest(f"function {name} {dim}"))

    @property
    def spec(self) -> EmbedderSpec:
        """Name, dim, and a fingerprint of the two."""
        return self._spec

    def embed(self, batch: Any) -> NDArray[np.float32]:
        """The function's vectors of n inputs, float32 [n, dim].

        Raises:
            InvalidVectorError: The function returned something else.
        """
        try:
            vectors = np.ascontiguousarray(self._fn(batch), np.float32)
        except (TypeError, ValueError) as err:
            raise InvalidVectorError(f"the embedder {self._spec.name!r} failed: {err}") from err
        if vectors.shape != (len(batch), self._spec.dim):
            raise InvalidVectorError(
                f"the embedder {self._spec.name!r} returned an array {list(vectors.shape)} where "
                f"[{len(batch)}, {self._spec.dim}] was expected"
            )
        return vectors
