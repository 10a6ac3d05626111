"""SimilarityModel: a functional Keras model with an index."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from simstore.errors import InvalidArgumentError
from simstore.similarity.distances import Distance
from simstore.similarity.models.matching import Matching

__all__ = ["SimilarityModel"]


@keras.saving.register_keras_serializable("simstore.similarity")
class SimilarityModel(Matching, keras.Model):  # type: ignore[misc]
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

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        distance: Distance | str = "auto",
        embedding_output: int | None = None,
        kv_store: str = "memory",
        search: str = "nmslib",
        evaluator: str = "memory",
        stat_buffer_size: int = 1000,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """As in Keras; and sets the distance of the index. An index that holds items is kept.

        Args:
            optimizer, loss, metrics, loss_weights, weighted_metrics, run_eagerly, steps_per_execution, jit_compile,
                auto_scale_loss: See keras.Model.compile.
            distance: By which items are compared; "auto" takes that of the (first) loss.
            embedding_output: Which output of a model with several is the embedding; by default the first.
            kv_store, search, evaluator, stat_buffer_size: TensorFlow Similarity's; without effect.

        Raises:
            InvalidArgumentError: distance="auto", and the loss has none; the index holds items by another metric.
        """
        chosen = _distance_of(loss) if distance == "auto" else distance
        self._set_distance(chosen, embedding_output, search, kv_store, evaluator, stat_buffer_size)
        super().compile(
            optimizer=optimizer, loss=loss, metrics=metrics, loss_weights=loss_weights, weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly, steps_per_execution=steps_per_execution, jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )  # fmt: skip

    def get_compile_config(self) -> dict[str, Any]:
        """Keras' and the distance."""
        config: dict[str, Any] = super().get_compile_config()
        if not config:
            return config
        own = {"distance": keras.saving.serialize_keras_object(self._parts.distance)}
        return config | own | {"embedding_output": self._parts.embedding_output}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as the model that was saved; called when one is loaded."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def _embedding_model(self) -> Any:
        outputs, at = self.outputs, self._parts.embedding_output
        if not 0 <= at < len(outputs):
            raise InvalidArgumentError(f"embedding_output={at}, and the model {self.name!r} has {len(outputs)} outputs, from 0")
        return keras.Model(self.inputs[0] if len(self.inputs) == 1 else self.inputs, outputs[at])


def _distance_of(loss: Any) -> Distance | str:
    """The distance of a loss, or of the first of several."""
    first = loss
    if isinstance(loss, Mapping):
        first = next(iter(loss.values()), None)
    elif isinstance(loss, Sequence) and not isinstance(loss, str):
        first = loss[0] if loss else None
    distance: Distance | str | None = getattr(first, "distance", None)
    if distance is None:
        raise InvalidArgumentError(
            f"distance='auto' takes the distance of a metric loss, and the loss {loss!r} has none: give distance='cosine'"
        )
    return distance
