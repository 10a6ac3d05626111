"""SimilarityModel: a functional Keras model with an index."""

from typing import Any

import keras

from simstore.errors import InvalidArgumentError
from simstore.similarity.models.compiling import Compiling

__all__ = ["SimilarityModel"]


@keras.saving.register_keras_serializable("simstore.similarity")
class SimilarityModel(Compiling, keras.Model):
    """A functional Keras model whose output is an embedding, and which indexes, looks up, matches and evaluates.

    Made, trained, saved and loaded like any functional model.

    Example:
        >>> inputs = keras.layers.Input((8, 8))  # doctest: +SKIP
        >>> outputs = MetricEmbedding(16)(keras.layers.Flatten()(inputs))  # doctest: +SKIP
        >>> model = SimilarityModel(inputs, outputs)  # doctest: +SKIP
        >>> model.compile("adam", loss=MultiSimilarityLoss())  # doctest: +SKIP
        >>> history = model.fit(sampler, epochs=5)  # doctest: +SKIP
        >>> keys = model.index(images, labels)  # doctest: +SKIP
        >>> model.single_lookup(image)[0].label  # doctest: +SKIP
        7
    """

    def _embedding_model(self) -> Any:
        outputs, at = self.outputs, self._parts.embedding_output
        if not 0 <= at < len(outputs):
            raise InvalidArgumentError(f"embedding_output={at}, and the model {self.name!r} has {len(outputs)} outputs, from 0")
        return keras.Model(self.inputs[0] if len(self.inputs) == 1 else self.inputs, outputs[at])
