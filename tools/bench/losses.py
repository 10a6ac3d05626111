"""What a loss of pairs adds to a training step."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.context import Context
from bench.progress import progress
from bench.report import Row, at_most, row_of
from bench.timing import interleave

__all__ = ["step_case"]

_BATCH = 256
_DIM = 128
_CLASSES = 10
_BOUND = 1.1


def step_case(context: Context) -> Iterator[Row]:
    """MNIST's model from the README, trained with MultiSimilarityLoss; beside it with a loss that costs nothing."""
    from simstore.similarity.losses import MultiSimilarityLoss  # here: nothing else of the bench needs Keras

    settings = context.settings
    random = np.random.default_rng(settings.seed)
    x = random.integers(0, 256, (_BATCH, 28, 28, 1)).astype("float32")
    y = np.arange(_BATCH) % _CLASSES
    ours, bare = _model(MultiSimilarityLoss()), _model(_trivial)
    with progress("tracing"):
        for model in (ours, bare):
            for _ in range(3):
                model.train_on_batch(x, y)
    ratio = interleave(lambda: ours.train_on_batch(x, y), lambda: bare.train_on_batch(x, y), repeats=settings.repeats_or(60))
    note = f"{ratio.first_s * 1e3:.1f} ms to {ratio.second_s * 1e3:.1f} ms a step"
    yield row_of(f"MultiSimilarityLoss, {_BATCH} x {_DIM}, to the bare model", ratio, note, at_most(_BOUND))


def _trivial(y_true: Any, y_pred: Any) -> Any:
    from keras import ops

    return ops.mean(y_pred, axis=-1)


def _model(loss: Any) -> Any:
    import keras

    from simstore.similarity.layers import MetricEmbedding

    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(64, 3, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    model = keras.Model(inputs, MetricEmbedding(_DIM)(x))
    model.compile("adam", loss)
    return model
