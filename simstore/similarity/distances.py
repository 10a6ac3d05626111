"""Distances between embeddings, for losses and for the index; here alone is known which way is closer.

Names and aliases are TensorFlow Similarity's. Every distance normalises or not by itself: none expects unit vectors.
"""

from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError

__all__ = [
    "DISTANCES",
    "CosineDistance",
    "Distance",
    "EuclideanDistance",
    "InnerProductSimilarity",
    "ManhattanDistance",
    "SNRDistance",
    "SquaredEuclideanDistance",
    "distance_canonicalizer",
    "get",
    "pairwise_distances",
]

_PACKAGE = "simstore.similarity"
_EPSILON = 1e-12  # of a squared length: below it the gradient of a root or of a division is no longer a number


class Distance:
    """A distance between embeddings.

    Attributes:
        name: What it is called.
        aliases: Other names for it.
        larger_is_closer: Whether ``call`` returns a similarity.
        metric: The store's metric that sorts neighbours the same way; None if it has none, and no index can use it.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    larger_is_closer: ClassVar[bool] = False
    metric: ClassVar[str | None] = None

    def call(self, query_embeddings: Any, key_embeddings: Any) -> Any:
        """All pairs of two sets.

        Args:
            query_embeddings: Float tensor [n_queries, dim].
            key_embeddings: Float tensor [n_keys, dim].

        Returns:
            Float tensor [n_queries, n_keys].
        """
        raise NotImplementedError

    def __call__(self, query_embeddings: Any, key_embeddings: Any | None = None) -> Any:
        """As ``call``, in float32 or more whatever the embeddings are; with one set, of all its pairs."""
        queries = at_least_float32(query_embeddings)
        return self.call(queries, queries if key_embeddings is None else at_least_float32(key_embeddings))

    def of_metric(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """What a lookup shows, of the store's distances by ``metric``: smaller is closer."""
        return distances

    def to_metric(self, distance: float) -> float:
        """The store's distance of one that a lookup shows."""
        return distance

    def get_config(self) -> dict[str, Any]:
        """Nothing: a distance has no settings."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Distance":
        """The distance again."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@keras.saving.register_keras_serializable(_PACKAGE)
class CosineDistance(Distance):
    """1 − cos(q, k), from 0 (same direction) to 2. A zero vector is at 1 from everything."""

    name = "cosine"
    metric = "cosine"

    def call(self, query_embeddings: Any, key_embeddings: Any) -> Any:
        """1 − cos of all pairs."""
        similarities = ops.matmul(unit(query_embeddings), ops.transpose(unit(key_embeddings)))
        return ops.maximum(1.0 - similarities, 0.0)


@keras.saving.register_keras_serializable(_PACKAGE)
class SquaredEuclideanDistance(Distance):
    """Σ (q − k)²"""

    name = "squared_euclidean"
    aliases = ("sql2", "sqeuclidean")
    metric = "l2"

    def call(self, query_embeddings: Any, key_embeddings: Any) -> Any:
        """Σ (q − k)² of all pairs."""
        return _squared(query_embeddings, key_embeddings)

    def of_metric(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """The squares: the store's metric is the Euclidean one."""
        return np.square(distances)

    def to_metric(self, distance: float) -> float:
        """The root."""
        return float(np.sqrt(distance))


@keras.saving.register_keras_serializable(_PACKAGE)
class EuclideanDistance(Distance):
    """√ Σ (q − k)². The gradient is 0 between equal vectors, where there is none."""

    name = "euclidean"
    aliases = ("l2", "pythagorean")
    metric = "l2"

    def call(self, query_embeddings: Any, key_embeddings: Any) -> Any:
        """√ Σ (q − k)² of all pairs."""
        return safe_sqrt(_squared(query_embeddings, key_embeddings))


@keras.saving.register_keras_serializable(_PACKAGE)
class ManhattanDistance(Distance):
    """Σ |q − k|. It holds n_queries × n_keys × dim numbers in memory."""

    name = "manhattan"
    aliases = ("l1", "taxicab")

    def call(self, query_embeddings: Any, key_embeddings: Any) -> Any:
        """Σ |q − k| of all pairs."""
        return ops.sum(ops.abs(ops.expand_dims(query_embeddings, 1) - ops.expand_dims(key_embeddings, 0)), axis=-1)


@keras.saving.register_keras_serializable(_PACKAGE)
class InnerProductSimilarity(Distance):
    """⟨q, k⟩, a similarity: larger is closer. Losses and lookups use 1 − ⟨q, k⟩."""

    name = "inner_product"
    aliases = ("ip",)
    larger_is_closer = True
    metric = "ip"

    def call(self, query_embeddings: Any, key_embeddings: Any) -> Any:
        """⟨q, k⟩ of all pairs."""
        return ops.matmul(query_embeddings, ops.transpose(key_embeddings))


@keras.saving.register_keras_serializable(_PACKAGE)
class SNRDistance(Distance):
    """Var(k − q) / Var(q), variances over the dimensions: noise to signal. Not symmetric; 0 where q is constant.

    Source: Yuan et al., "Signal-To-Noise Ratio: A Robust Distance Metric for Deep Metric Learning", CVPR 2019.
    """

    name = "snr"
    aliases = ("signal-to-noise-ratio",)

    def call(self, query_embeddings: Any, key_embeddings: Any) -> Any:
        """Var(k − q) / Var(q) of all pairs."""
        queries = query_embeddings - ops.mean(query_embeddings, axis=1, keepdims=True)
        keys = key_embeddings - ops.mean(key_embeddings, axis=1, keepdims=True)
        signal = ops.sum(ops.square(queries), axis=1, keepdims=True)  # dim times the variance, as the noise below
        is_constant = signal <= _EPSILON
        return ops.where(is_constant, 0.0, _squared(queries, keys) / ops.where(is_constant, 1.0, signal))


DISTANCES = (
    CosineDistance(),
    EuclideanDistance(),
    SquaredEuclideanDistance(),
    ManhattanDistance(),
    InnerProductSimilarity(),
    SNRDistance(),
)
_NAMED = {
    name: distance for distance in DISTANCES for name in (distance.name, *distance.aliases, type(distance).__name__.lower())
}


def get(distance: Distance | str | dict[str, Any]) -> Distance:
    """The distance of that name or alias, or of what ``to_config`` returned; a Distance as it is.

    Raises:
        InvalidArgumentError: There is none of that name.
    """
    if isinstance(distance, dict):
        distance = keras.saving.deserialize_keras_object(distance)
    if isinstance(distance, Distance):
        return distance
    found = _NAMED.get(distance.lower().strip()) if isinstance(distance, str) else None
    if found is None:
        known = ", ".join(repr(one.name) for one in DISTANCES)
        raise InvalidArgumentError(f"distance is one of {known}, an alias of these or a Distance object, not {distance!r}")
    return found


def to_config(distance: Distance) -> str | dict[str, Any]:
    """What is saved of a distance: its name, or, of one that is not from here, the object as Keras describes it."""
    if distance in DISTANCES:
        return distance.name
    described: dict[str, Any] = keras.saving.serialize_keras_object(distance)
    return described


distance_canonicalizer = get  # TensorFlow Similarity's name


def pairwise_distances(distance: Distance, query_embeddings: Any, key_embeddings: Any) -> Any:
    """Distances of all pairs, smaller is closer, in float32 or more whatever the embeddings are.

    Args:
        query_embeddings: Float tensor [n_queries, dim].
        key_embeddings: Float tensor [n_keys, dim].

    Returns:
        Float tensor [n_queries, n_keys].
    """
    values = distance(query_embeddings, key_embeddings)
    return 1.0 - values if distance.larger_is_closer else values


def at_least_float32(tensor: Any) -> Any:
    """A tensor whose sums and squares do not overflow, as those of float16 do."""
    tensor = ops.convert_to_tensor(tensor)
    return tensor if keras.backend.standardize_dtype(tensor.dtype) in ("float32", "float64") else ops.cast(tensor, "float32")


def unit(embeddings: Any) -> Any:
    """The vectors along the last axis at length 1. A zero vector stays, without a gradient: it points nowhere."""
    squared = ops.sum(ops.square(embeddings), axis=-1, keepdims=True)
    is_zero = squared <= _EPSILON  # not the other way round: what is no number is to stay none
    return ops.where(is_zero, 0.0, embeddings * ops.rsqrt(ops.where(is_zero, 1.0, squared)))


def safe_sqrt(values: Any) -> Any:
    """The root; 0, with a gradient of 0, of what is 0 or less."""
    is_zero = values <= _EPSILON
    return ops.where(is_zero, 0.0, ops.sqrt(ops.where(is_zero, 1.0, values)))


def _squared(queries: Any, keys: Any) -> Any:
    """Squared Euclidean distances of all pairs, through one matrix product."""
    query_norms = ops.sum(ops.square(queries), axis=1, keepdims=True)
    key_norms = ops.transpose(ops.sum(ops.square(keys), axis=1, keepdims=True))
    return ops.maximum(query_norms + key_norms - 2.0 * ops.matmul(queries, ops.transpose(keys)), 0.0)
