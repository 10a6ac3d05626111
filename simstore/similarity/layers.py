"""Layers for embedding models."""

import math
from typing import Any, ClassVar

import keras
from keras import ops

from simstore.errors import InvalidArgumentError
from simstore.similarity.distances import at_least_float32, unit

__all__ = [
    "ActivationStdLoggingLayer",
    "GeneralizedMeanPooling1D",
    "GeneralizedMeanPooling2D",
    "MetricEmbedding",
]

_PACKAGE = "simstore.similarity"
_NEAR_ZERO = 1e-5  # a power below it is 0, that of the geometric mean
_LEAST_POWER = 1e-3  # that a trainable one may come to: 1/p has to be a number


@keras.saving.register_keras_serializable(_PACKAGE)
class MetricEmbedding(keras.layers.Dense):
    """A Dense layer whose outputs have length 1 (L2): y / ‖y‖, y = activation(x W + b).

    The usual last layer of an embedding model. An output of zeros stays one. Lengths are taken in float32, also under a
    float16 policy, whose squares overflow.

    Args:
        units: The width of the embedding. The other arguments are those of ``keras.layers.Dense``.

    Example:
        >>> outputs = MetricEmbedding(64)(x)  # doctest: +SKIP
    """

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Float tensor […, units]."""
        outputs = super().call(inputs, *args, **kwargs)
        return ops.cast(unit(at_least_float32(outputs)), outputs.dtype)


class _GeneralizedMeanPooling(keras.layers.Layer):
    """The generalized mean over the axes between the batch and the features.

    Args:
        p, data_format, keepdims, trainable_p, kwargs: See the layers.
    """

    rank: ClassVar[int]  # of the inputs

    def __init__(
        self,
        p: float = 3.0,
        data_format: str | None = None,
        keepdims: bool = False,
        *,
        trainable_p: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if math.isnan(p) or (trainable_p and (math.isinf(p) or abs(p) < _LEAST_POWER)):
            raise InvalidArgumentError(f"p is a number, and finite and not 0 to be trained, not {p}")
        self.p = p
        self.data_format = data_format or keras.config.image_data_format()
        self.keepdims = keepdims
        self.trainable_p = trainable_p
        self.input_spec = keras.layers.InputSpec(ndim=self.rank)
        if self.data_format not in ("channels_last", "channels_first"):
            raise InvalidArgumentError(f"data_format is 'channels_last' or 'channels_first', not {data_format!r}")
        self._axes = tuple(range(1, self.rank - 1) if self.data_format == "channels_last" else range(2, self.rank))

    def build(self, input_shape: Any) -> None:
        """Makes the trainable power, if it is to be one."""
        if self.trainable_p:
            self.power = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.p), name="power")

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """[n, features]; with keepdims the pooled axes are 1."""
        kept = [1 if axis in self._axes else size for axis, size in enumerate(input_shape)]
        return tuple(size for axis, size in enumerate(kept) if self.keepdims or axis not in self._axes)

    def call(self, inputs: Any) -> Any:
        """The pooled features."""
        values = at_least_float32(inputs)
        offset = ops.min(values, axis=self._axes, keepdims=True) - 1.0  # a generalized mean is one of positive numbers
        means = self._mean(values - offset) + offset
        return ops.cast(means if self.keepdims else ops.squeeze(means, axis=self._axes), self.compute_dtype)

    def _mean(self, values: Any) -> Any:
        """Of numbers of 1 and more."""
        if not self.trainable_p and math.isinf(self.p):
            return (ops.max if self.p > 0 else ops.min)(values, axis=self._axes, keepdims=True)
        logs = ops.log(values)
        if not self.trainable_p and abs(self.p) < _NEAR_ZERO:
            return ops.exp(ops.mean(logs, axis=self._axes, keepdims=True))
        power = self._trained_power(logs.dtype) if self.trainable_p else self.p
        scaled = logs * power
        largest = ops.stop_gradient(ops.max(scaled, axis=self._axes, keepdims=True))  # x^p overflows, this does not
        mean = ops.mean(ops.exp(scaled - largest), axis=self._axes, keepdims=True)
        return ops.exp((ops.log(mean) + largest) / power)

    def _trained_power(self, dtype: str) -> Any:
        """The weight, not nearer to 0 than it may come; the gradient passes as if it were."""
        power = ops.cast(self.power, dtype)
        kept = ops.where(power < 0, ops.minimum(power, -_LEAST_POWER), ops.maximum(power, _LEAST_POWER))
        return power + ops.stop_gradient(kept - power)

    def get_config(self) -> dict[str, Any]:
        """Its arguments."""
        own = {name: getattr(self, name) for name in ("p", "data_format", "keepdims", "trainable_p")}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(_PACKAGE)
class GeneralizedMeanPooling1D(_GeneralizedMeanPooling):
    """(mean over the steps of x^p)^(1/p) of each feature, shifted so that the smallest x is 1, and back.

    p = 1 is the average, p = ∞ the maximum, p = −∞ the minimum, p = 0 the geometric mean.

    Source: Radenović et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", https://arxiv.org/abs/1711.02512.

    Args:
        p: The power.
        data_format: "channels_last", [n, steps, features], or "channels_first", [n, features, steps]; by default Keras'
            setting.
        keepdims: Whether the pooled axis stays, with size 1.
        trainable_p: Whether the power is learned, from p on.
        kwargs: As of ``keras.layers.Layer``.
    """

    rank = 3


@keras.saving.register_keras_serializable(_PACKAGE)
class GeneralizedMeanPooling2D(_GeneralizedMeanPooling):
    """(mean over the pixels of x^p)^(1/p) of each channel: see GeneralizedMeanPooling1D.

    Args:
        p: The power.
        data_format: "channels_last", [n, rows, columns, channels], or "channels_first", [n, channels, rows, columns]; by
            default Keras' setting.
        keepdims: Whether the pooled axes stay, with size 1.
        trainable_p: Whether the power is learned, from p on.
        kwargs: As of ``keras.layers.Layer``.
    """

    rank = 4


@keras.saving.register_keras_serializable(_PACKAGE)
class ActivationStdLoggingLayer(keras.layers.Layer):
    """Passes its inputs on, and logs under its name how they spread: std over the batch of x / ‖x‖, mean over the features.

    Embeddings that collapse to one point have 0, those spread over the whole sphere 1 / √features. The log shows the
    mean over an epoch's batches.

    Args:
        name: In the logs of fit() and evaluate().
        kwargs: As of ``keras.layers.Layer``.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.std = keras.metrics.Mean(name=name)

    def call(self, inputs: Any) -> Any:
        """The inputs."""
        self.std.update_state(ops.std(unit(at_least_float32(inputs)), axis=0))
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the inputs."""
        return input_shape
