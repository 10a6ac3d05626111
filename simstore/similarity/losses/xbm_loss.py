"""Cross-batch memory."""

from typing import Any, Unpack

import keras
from keras import ops

from simstore.errors import InvalidArgumentError
from simstore.similarity.losses.metric_loss import LossOptions, MetricLoss, PairLoss, check_positive
from simstore.similarity.losses.mining import pairs_of

__all__ = ["XBM"]


@keras.saving.register_keras_serializable("simstore.similarity")
class XBM(MetricLoss):
    """Another loss, with the embeddings of past batches as more keys for the anchors of this one.

    The memory is filled in the call, while ``is_training`` is True: a SimilarityModel sets that, another keras.Model does
    not, and its validation batches are remembered, too. It works without being tracked, and is then not saved.

    Source: Wang et al., "Cross-Batch Memory for Embedding Learning", https://arxiv.org/abs/1912.06798.

    Args:
        loss: A loss of pairs: Triplet, PN, MultiSimilarity, Circle, SoftNearestNeighbor, LiftedStruct or SupCon.
        memory_size: How many embeddings of past batches are kept, the newest.
        warmup_steps: For so many training steps nothing is kept: embeddings change too fast at first.
        options: ``name``, ``reduction``, ``dtype``.

    Example:
        >>> loss = XBM(MultiSimilarityLoss(), memory_size=1000, warmup_steps=100)  # doctest: +SKIP
    """

    has_weights = True

    def __init__(self, loss: PairLoss, memory_size: int, warmup_steps: int = 0, **options: Unpack[LossOptions]) -> None:
        if not isinstance(loss, PairLoss):
            raise InvalidArgumentError(f"XBM takes a loss of pairs, such as MultiSimilarityLoss(), not {loss!r}")
        check_positive(memory_size=memory_size)
        super().__init__(loss.distance, {"memory_size": memory_size, "warmup_steps": warmup_steps}, **options)
        self.loss = loss

    def build(self, embedding_size: int) -> None:
        """Makes the memory, once."""
        if self.layer is None:
            self.layer = _Memory(**self.settings, dtype=self.dtype)
            self.layer.build((None, embedding_size))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One loss per example, [n]. Remembers them."""
        self.build(y_pred.shape[1])
        labels = ops.cast(y_true, "int64")
        keys = self.layer.after(labels, y_pred)
        losses = self.loss.of_pairs(pairs_of(self.distance, labels, y_pred, *keys))
        if self.is_training:
            self.layer.remember(*keys)
        return losses

    def get_config(self) -> dict[str, Any]:
        """Its arguments."""
        config = {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}
        del config["distance"]  # the loss has it
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "XBM":
        """The loss again, with an empty memory."""
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


class _Memory(keras.layers.Layer):
    """A queue of embeddings and their labels, newest first; and how many it has."""

    def __init__(self, memory_size: int, warmup_steps: int, *, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.memory_size = memory_size
        self.warmup_steps = warmup_steps

    def build(self, input_shape: tuple[int | None, int]) -> None:
        def zeros(name: str, shape: tuple[int, ...], dtype: str) -> Any:
            return self.add_weight(shape=shape, dtype=dtype, initializer="zeros", trainable=False, name=name)

        self.embeddings = zeros("embeddings", (self.memory_size, input_shape[1]), self.compute_dtype)
        self.labels = zeros("labels", (self.memory_size,), "int64")
        self.n_kept = zeros("n_kept", (), "int64")
        self.n_steps = zeros("n_steps", (), "int64")

    def after(self, labels: Any, embeddings: Any) -> tuple[Any, Any, Any]:
        """Labels, embeddings and whether they are any, of a batch with the memory behind it."""
        is_kept = ops.arange(self.memory_size, dtype="int64") < self.n_kept
        return (
            ops.concatenate([labels, self.labels]),
            ops.concatenate([embeddings, self.embeddings]),
            ops.concatenate([ops.ones_like(labels, dtype="bool"), is_kept]),
        )

    def remember(self, labels: Any, embeddings: Any, is_any: Any) -> None:
        """Keeps the first of what ``after`` returned."""
        n = ops.minimum(ops.sum(ops.cast(is_any, "int64")), self.memory_size)
        self.n_kept.assign(ops.where(self.n_steps >= self.warmup_steps, n, 0))
        self.n_steps.assign_add(1)
        self.labels.assign(labels[: self.memory_size])
        self.embeddings.assign(ops.stop_gradient(embeddings[: self.memory_size]))
