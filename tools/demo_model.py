"""The demo's embedder: a small convolutional network, trained so that images of one class point in one direction."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from demo_data import Digits

DIM = 32
SCALE = 16  # of the cosines, before the softmax
N_STEPS = 900


def trained_model(digits: Digits, progress: Callable[[str, int, int], None]) -> Any:
    """A Keras model from images as they were read to unit vectors [DIM]."""
    with quiet_stderr():
        return _trained(digits, progress)


def _trained(digits: Digits, progress: Callable[[str, int, int], None]) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    classes, targets = np.unique(digits.labels, return_inverse=True)
    model = embedding_model(digits.images.shape[1:], float(digits.images.max()) or 1.0)
    images = keras.Input(digits.images.shape[1:])
    embedded = model(keras.layers.RandomTranslation(0.08, 0.08, fill_mode="constant")(images))
    # One learned direction a class; the logits are the cosines to them (NormFace, Wang et al. 2017).
    directions = keras.layers.Dense(len(classes), use_bias=False, kernel_constraint=keras.constraints.UnitNorm(axis=0))
    classifier = keras.Model(images, keras.layers.Rescaling(SCALE)(directions(embedded)))
    classifier.compile(keras.optimizers.Adam(2e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    n_epochs = max(5, N_STEPS * 64 // len(digits))
    tell = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: progress("epoch", epoch + 1, n_epochs))
    classifier.fit(digits.images.astype(np.float32), targets, 64, epochs=n_epochs, verbose=0, callbacks=[tell])
    return model


def embedding_model(shape: tuple[int, ...], brightest: float) -> Any:
    """The untrained network."""
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input(shape), layers.Rescaling(1 / brightest)], name="digits")
    side = min(shape[:2])
    while side > 4:
        n_filters = 16 if side > 16 else 32  # of large images, few: they cost the time
        model.add(layers.Conv2D(n_filters, 3, padding="same", activation="relu"))
        model.add(layers.Conv2D(n_filters * 3 // 2, 3, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D())
        side //= 2
    for layer in (layers.Flatten(), layers.Dropout(0.3), layers.Dense(DIM), layers.UnitNormalization()):
        model.add(layer)
    return model


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """TensorFlow writes to stderr whatever its log level is; that is shown only if something fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
