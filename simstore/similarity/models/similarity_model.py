"""SimilarityModel: a functional Keras model with an index."""

from typing import Any

import keras

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
        output = self.outputs[self._parts.embedding_output]
        return keras.Model(self.inputs[0] if len(self.inputs) == 1 else self.inputs, output)

    def _outputs_by_name(self) -> tuple[dict[str, int], int]:
        if not getattr(self, "outputs", None):
            return {}, 1
        keys = sorted(self.output) if isinstance(self.output, dict) else self.output_names  # Keras lists them sorted
        return {name: place for place, name in enumerate(keys)}, len(self.outputs)
