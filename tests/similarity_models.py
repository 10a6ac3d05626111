"""Small models and data for the tests of similarity models."""

from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from simstore.similarity.models import SimilarityModel

Array = NDArray[np.float32]


def plain_model(dim: int = 3, distance: str = "euclidean", **options: Any) -> Any:
    """A model whose embedding is its input: what is found can be reckoned by hand."""
    inputs = keras.Input((dim,))
    outputs = layers.Dense(dim, use_bias=False, kernel_initializer="identity")(inputs)
    model = SimilarityModel(inputs, outputs, **options)
    model.compile("sgd", loss="mse", distance=distance)
    return model


def digits() -> tuple[Array, NDArray[np.int64]]:
    """The 1,797 digits of 8 × 8 pixels, 0 to 1, in a fixed random order."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return (images[order].reshape(-1, 8, 8) / 16).astype(np.float32), labels[order]


def digits_model(dim: int = 16, seed: int = 1) -> Any:
    """A small model of digits, not compiled."""
    from simstore.similarity.layers import MetricEmbedding

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8))
    x = layers.Dense(64, activation="relu")(layers.Flatten()(inputs))
    return SimilarityModel(inputs, MetricEmbedding(dim)(x))


def batches(images: Array, labels: NDArray[np.int64], size: int = 64, seed: int = 0) -> Any:
    """The same batches every time."""
    order = np.random.default_rng(seed).permutation(len(images))

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(images) // size

        def __getitem__(self, i: int) -> tuple[Array, NDArray[np.int64]]:
            rows = order[i * size : (i + 1) * size]
            return images[rows], labels[rows]

    return Batches()


def values(weight: Any) -> Array:
    """What a weight is now; what Keras returns may be the weight's own memory, and change with it."""
    return np.array(keras.ops.convert_to_numpy(weight))
