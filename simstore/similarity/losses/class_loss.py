"""Losses that learn one vector per class, beside the model."""

from typing import Any, Unpack

import keras
from keras import ops

from simstore.errors import InvalidArgumentError
from simstore.similarity.losses.metric_loss import LossOptions, MetricLoss, check_positive

__all__ = ["ClassLoss", "is_of_class"]


class ClassLoss(MetricLoss):
    """A loss of embeddings and one trainable vector per class, by cosine.

    Args:
        fn: Called as fn(labels, embeddings, class_vectors, **settings), returns one loss per example, [n].
        num_classes: Labels are 0 … num_classes − 1. The loss of any other is not a number.
        embedding_size: The width of the embeddings, where ``build`` is not to ask the model for it.
        settings: The other arguments, as ``get_config`` returns them.
        options: See LossOptions.
    """

    has_weights = True

    def __init__(
        self,
        fn: Any,
        num_classes: int,
        embedding_size: int | None,
        settings: dict[str, Any],
        **options: Unpack[LossOptions],
    ) -> None:
        check_positive(num_classes=num_classes)
        super().__init__("cosine", settings, **options)
        self.fn = fn
        self.num_classes = num_classes
        self.embedding_size = embedding_size

    def build(self, embedding_size: int) -> None:
        """Makes the class vectors, once.

        Raises:
            InvalidArgumentError: They are of another width already, or are to be.
        """
        if self.embedding_size not in (None, embedding_size):
            raise InvalidArgumentError(
                f"{self.name} is made for embeddings of {self.embedding_size} numbers, and the model's have {embedding_size}"
            )
        self.embedding_size = embedding_size
        if self.layer is None:
            self.layer = _ClassVectors(self.num_classes, dtype=self.dtype)
            self.layer.build((None, embedding_size))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One loss per example, [n].

        Raises:
            InvalidArgumentError: It has no class vectors yet, or these are of another width.
        """
        if self.layer is None:
            raise InvalidArgumentError(
                f"{self.name} learns a vector for each class, and no model trains these: compile it with a SimilarityModel; "
                "for another functional keras.Model call track(model, loss) before compile(); in a training loop of your "
                "own call loss.build(embedding_size) and train loss.layer.trainable_weights, too"
            )
        self.build(y_pred.shape[1])
        return self.fn(y_true, y_pred, self.layer.vectors, **self.settings)

    def get_config(self) -> dict[str, Any]:
        """Its arguments."""
        config = {**super().get_config(), "num_classes": self.num_classes, "embedding_size": self.embedding_size}
        del config["distance"]  # always the cosine
        return config


def is_of_class(labels: Any, class_vectors: Any) -> Any:
    """Whether an example is of a class, bool [n, num_classes]."""
    classes = ops.cast(ops.arange(class_vectors.shape[0]), labels.dtype)
    return ops.equal(ops.expand_dims(labels, 1), ops.expand_dims(classes, 0))


class _ClassVectors(keras.layers.Layer):
    """Holds one vector per class."""

    def __init__(self, num_classes: int, *, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.num_classes = num_classes

    def build(self, input_shape: tuple[int | None, int]) -> None:
        shape = (self.num_classes, input_shape[1])
        # only directions count; vectors this short are turned fast by Adam, whose steps are of one length
        self.vectors = self.add_weight(shape=shape, initializer="random_normal", name="vectors")
