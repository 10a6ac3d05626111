"""compile() of every similarity model, which also sets the distance of the index."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from simstore.errors import InvalidArgumentError
from simstore.similarity import distances
from simstore.similarity.distances import Distance
from simstore.similarity.losses import set_training, track
from simstore.similarity.models.has_index import refuse_objects
from simstore.similarity.models.matching import Matching

__all__ = ["Compiling"]


class Compiling(Matching):
    """A model that is compiled with a distance, saves it, and is loaded with it."""

    built: bool
    loss: Any
    trainable_variables: Any

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
        embedding_output: int | str | None = None,
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
            distance: By which items are compared; "auto" takes that of the loss.
            embedding_output: Which output of a model with several is the embedding: its name, or its place. By default that of
                the first loss that has a distance, else the first.
            kv_store, search, evaluator, stat_buffer_size: TensorFlow Similarity's; without effect.

        Raises:
            InvalidArgumentError: distance="auto", and the output's loss has none; there is no such output; the index holds
                items by another metric.
        """
        refuse_objects(search=search, kv_store=kv_store, evaluator=evaluator)
        self._check_metrics(metrics, weighted_metrics)
        at = self._output_at(embedding_output)
        losses = self._losses_of_outputs(loss)
        if at is None and len(losses) > 1:
            at = next((place for place, one in losses.items() if distance_of(one) is not None), None)
        own = losses.get(self._parts.embedding_output if at is None else at, None if isinstance(loss, Mapping) else loss)
        self._set_distance(self._distance_of(own) if distance == "auto" else distance, at)
        track(self, loss)
        super().compile(  # type: ignore[misc]
            optimizer=optimizer, loss=loss, metrics=metrics, loss_weights=loss_weights, weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly, steps_per_execution=steps_per_execution, jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )  # fmt: skip

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """As in Keras; tells losses that remember (XBM) whether it is training."""
        set_training(self.loss, training)
        return super().compute_loss(x, y, y_pred, sample_weight, training)  # type: ignore[misc]

    def get_compile_config(self) -> dict[str, Any]:
        """Keras' and the distance."""
        config: dict[str, Any] = super().get_compile_config()  # type: ignore[misc]
        parts = self._parts
        if not config or parts.distance is None:
            return config
        return config | {"distance": distances.to_config(parts.distance), "embedding_output": parts.embedding_output}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as the model that was saved; called when one is loaded."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def _check_metrics(self, *metrics: Any) -> None:
        """Raises InvalidArgumentError for metrics that the model cannot compute."""

    def _losses_of_outputs(self, loss: Any) -> dict[int | None, Any]:
        """The loss of each output, by its place, in the order they are given."""
        if isinstance(loss, Mapping):
            return {self._output_at(name): one for name, one in loss.items()}
        if isinstance(loss, Sequence) and not isinstance(loss, str):
            return dict(enumerate(loss))
        return {0: loss}

    def _distance_of(self, loss: Any) -> Distance | str:
        """The distance that a loss stands for."""
        distance = distance_of(loss)
        if distance is None:
            raise InvalidArgumentError(
                f"distance='auto' takes the distance of a metric loss, and the loss {loss!r} has none: give distance='cosine'"
            )
        return distance


def distance_of(loss: Any) -> Distance | str | None:
    """The distance of a loss; None if it has none."""
    distance: Distance | str | None = getattr(loss, "distance", None)
    return distance
