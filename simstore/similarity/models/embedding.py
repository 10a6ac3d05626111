"""From inputs to embeddings, through one compiled graph that reads the weights as they are."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from simstore.embedders import KerasEmbedder
from simstore.embedders.batches import as_batch
from simstore.embedders.keras import model_fingerprint, serialised
from simstore.errors import InvalidArgumentError
from simstore.similarity.models.forward import OneInput, SeveralInputs

__all__ = ["Embedding"]

_BATCH_SIZE = 256
_SHOWN_FROM = 16 * _BATCH_SIZE  # examples: fewer take no time worth showing


class Embedding:
    """What a model makes of its inputs.

    Args:
        model: A functional model with one output [None, dim], over the layers that are trained; its inputs as a list, if there
            are several.
        name: What a store calls it.
    """

    def __init__(self, model: keras.Model, name: str) -> None:
        self.model, self.name = model, name
        self._forward = (SeveralInputs if len(model.inputs) > 1 else OneInput)(model, _BATCH_SIZE, name)
        self._version: object = None
        self._fingerprint = ""

    @property
    def dim(self) -> int:
        """How many numbers an embedding has."""
        return self._forward.dim

    def __call__(self, x: Any, *, verbose: int = 0) -> NDArray[np.float32]:
        """The embeddings of a batch, float32 [n, dim]; 1 draws Keras' progress bar while many are made."""
        batches = [as_batch(part) for part in self._forward.by_input(x)]
        n = len(batches[0])
        if any(len(batch) != n for batch in batches):
            raise InvalidArgumentError(f"the inputs have {[len(batch) for batch in batches]} examples: give each as many")
        if not verbose or n < _SHOWN_FROM:
            return self._forward.embed(batches)
        bar, out = keras.utils.Progbar(n, unit_name="example"), np.empty((n, self.dim), np.float32)
        for first in range(0, n, _BATCH_SIZE):
            part = self._forward.embed([batch[first : first + _BATCH_SIZE] for batch in batches])
            out[first : first + len(part)] = part
            bar.add(len(part))
        return out

    def of_one(self, x: Any) -> NDArray[np.float32]:
        """The embedding of one example, float32 [1, dim]."""
        return self(self.alone(x))

    def alone(self, x: Any) -> Any:
        """One example as a batch of one."""
        parts = [[np.asarray(part) if hasattr(part, "__array__") else part] for part in self._forward.by_input(x)]
        return self._forward.together(parts)

    def check_storable(self) -> None:
        """Raises InvalidArgumentError unless a store can have the model as its embedder."""
        if len(self.model.inputs) > 1:
            raise InvalidArgumentError(
                f"the model {self.name!r} has {len(self.model.inputs)} inputs, and what a store embeds with has one: its index "
                "is a temporary one. For one that lasts, simstore.open(path).add(keys, model.predict(x))"
            )

    def embedder(self, *, save: bool = True) -> KerasEmbedder:
        """An embedder of the weights as they are now."""
        self.check_storable()
        return KerasEmbedder(self.model, name=self.name, save=save)

    def fingerprint(self, version: object, *, surely: bool = False) -> str:
        """The fingerprint of the weights as they are now, computed if the version is another than the last time, or surely."""
        if surely or version != self._version:
            self._fingerprint = model_fingerprint(self.model, serialised(self.model), None, None)
            self._version = version
        return self._fingerprint
