"""The forward pass of a model: of one input, by the embedder that a store can have, or of several."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from simstore.embedders import KerasEmbedder
from simstore.embedders.batches import checked_vectors, fitted, pieces
from simstore.embedders.keras import compiled, output_dim
from simstore.errors import InvalidArgumentError

__all__ = ["OneInput", "SeveralInputs"]


class OneInput:
    """The forward pass of a model of one input.

    Args:
        model: A functional model with one output [None, dim].
        batch_size: How many examples the model gets at once, at most.
        name: What a store calls it.
    """

    def __init__(self, model: keras.Model, batch_size: int, name: str) -> None:
        # Its compiled function reads the variables at each call, and is made once. Its fingerprint grows old.
        self._embedder = KerasEmbedder(model, batch_size=batch_size, name=name)
        self.dim = self._embedder.spec.dim

    def by_input(self, x: Any) -> list[Any]:
        """What the input gets, as a list of one."""
        return list(x.values()) if isinstance(x, Mapping) and len(x) == 1 else [x]

    def together(self, parts: list[Any]) -> Any:
        """What ``by_input`` takes, of what each input gets."""
        return parts[0]

    def embed(self, batches: list[Any]) -> NDArray[np.float32]:
        """The vectors of n examples, float32 [n, dim]."""
        return self._embedder.embed(batches[0])


class SeveralInputs:
    """The forward pass of a model of several inputs.

    Args:
        model: A functional model of a list of inputs, with one output [None, dim].
        batch_size: How many examples the model gets at once, at most.
        name: What errors call it.
    """

    def __init__(self, model: keras.Model, batch_size: int, name: str) -> None:
        self.model, self.batch_size, self.name = model, batch_size, name
        self.dim = output_dim(model)
        self._call = compiled(model)

    def by_input(self, x: Any) -> list[Any]:
        """What each input gets, of a list or tuple in their order, or a dict by their names.

        Raises:
            InvalidArgumentError: It is something else.
        """
        names = [tensor.name for tensor in self.model.inputs]
        if isinstance(x, Mapping) and set(x) == set(names):
            return [x[name] for name in names]
        if isinstance(x, (list, tuple)) and len(x) == len(names):
            return list(x)
        given = f"{type(x).__name__} of {', '.join(map(repr, x))}" if isinstance(x, Mapping) else type(x).__name__
        length = f" of {len(x)}" if isinstance(x, (list, tuple)) else ""
        raise InvalidArgumentError(
            f"the model {self.name!r} has the inputs {', '.join(map(repr, names))}: give a list with what each gets, or "
            f"a dict by name, not {given}{length}"
        )

    def together(self, parts: list[Any]) -> Any:
        """What ``by_input`` takes, of what each input gets."""
        return parts

    def embed(self, batches: list[Any]) -> NDArray[np.float32]:
        """The vectors of n examples, float32 [n, dim], of what each input gets of them."""
        out = np.empty((len(batches[0]), self.dim), np.float32)
        for cut in zip(*(pieces(batch, self.batch_size) for batch in batches), strict=True):
            first, count, _ = cut[0]
            output = self._call([self._tensor(piece, i) for i, (_, _, piece) in enumerate(cut)])
            array = keras.ops.convert_to_numpy(output)
            vectors = checked_vectors(array, len(cut[0][2]), self.dim, f"the model {self.name!r}")
            out[first : first + count] = vectors[:count]
        return out

    def _tensor(self, piece: Any, i: int) -> Any:
        wanted = self.model.inputs[i]
        name = f"{self.name}, input {wanted.name}"
        return keras.ops.convert_to_tensor(fitted(piece, wanted, name), dtype=wanted.dtype)
