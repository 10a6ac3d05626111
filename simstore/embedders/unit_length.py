"""The last layer of image-thumb and text-ngram: vectors of length 1."""

from typing import Any

import keras
from keras import ops

__all__ = ["UnitLength"]


@keras.saving.register_keras_serializable("simstore.embedders")
class UnitLength(keras.layers.Layer):
    """Vectors, float32 [n, dim], to vectors of length 1; vectors of zeros stay.

    keras.layers.UnitNormalization sums the squares in float32, in an order that depends on the size of the batch, and what
    an input's vector is would depend on its neighbours. Sums of what needs few digits are exact in float64.
    """

    def call(self, vectors: Any) -> Any:
        """float32 [n, dim]: v / ‖v‖."""
        exact = ops.cast(vectors, "float64")
        lengths = ops.cast(ops.sqrt(ops.sum(exact * exact, axis=-1, keepdims=True)), "float32")
        return vectors / ops.where(lengths == 0, ops.ones_like(lengths), lengths)

    def compute_output_spec(self, vectors: Any) -> Any:
        """As the inputs."""
        return keras.KerasTensor(vectors.shape, "float32")
