"""Keras models as embedders. The only module that imports Keras and TensorFlow, and only when an embedder is made or loaded."""

import json
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128

from simstore.embedders.protocol import checked_spec
from simstore.errors import CorruptStoreError, InvalidArgumentError, InvalidVectorError
from simstore.types import EmbedderSpec

__all__ = ["KerasEmbedder", "load_embedder"]


def _keras() -> Any:
    try:
        import keras
    except ImportError as err:
        raise ImportError("this needs Keras: pip install 'simstore[keras]'") from err
    return keras


class KerasEmbedder:
    """Embeds with a Keras model, called directly on batches of one size (``model.predict`` takes 50 ms for a single input).

    A store that is opened with it saves the model as ``.keras`` and needs it no more.

    Args:
        model: Takes one input [n, …], gives one output [n, dim].
        preprocess: Runs on each batch before the model. A Keras layer or model is saved with the model. Any other function is
            not: a store then wants this embedder again at each open.
        batch_size: How many inputs the model gets at once.

    Raises:
        InvalidArgumentError: The model is no Keras model, or gives something else than one [n, dim].

    Example:
        >>> import keras, numpy as np                                                        # doctest: +SKIP
        >>> model = keras.Sequential([keras.Input((8, 8)), keras.layers.Flatten(), keras.layers.Dense(16)])  # doctest: +SKIP
        >>> KerasEmbedder(model).embed(np.zeros((3, 8, 8))).shape                            # doctest: +SKIP
        (3, 16)
    """

    def __init__(self, model: Any, *, preprocess: Callable[[Any], Any] | None = None, batch_size: int = 128) -> None:
        keras = _keras()
        if not isinstance(model, keras.Model):
            raise InvalidArgumentError(f"model is a keras.Model, not a {type(model).__name__}")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InvalidArgumentError(f"batch_size is a whole number of at least 1, not {batch_size!r}")
        if preprocess is not None and not callable(preprocess):
            raise InvalidArgumentError(f"preprocess is a function or a Keras layer, not a {type(preprocess).__name__}")
        self._function: Callable[[Any], Any] | None = None
        if isinstance(preprocess, keras.layers.Layer):
            model = _joined(keras, preprocess, model)
        else:
            self._function = preprocess
        self.batch_size = batch_size
        self._model = model
        self._lock = threading.Lock()
        self._spec = checked_spec(model.name, _output_dim(model), _fingerprint(model, self._function))

    @property
    def spec(self) -> EmbedderSpec:
        """The model's name, its output's width, and a fingerprint of its config and weights."""
        return self._spec

    @property
    def is_saveable(self) -> bool:
        """Whether a store can keep it: without a preprocess function."""
        return self._function is None

    def embed(self, batch: Any) -> NDArray[np.float32]:
        """The model's vectors of n inputs, float32 [n, dim].

        Args:
            batch: An array [n, …], or a sequence of n inputs of one shape.

        Raises:
            InvalidVectorError: The inputs do not fit the model.
        """
        inputs = self._array(self._function(batch) if self._function is not None else batch)
        n = len(inputs)
        out = np.empty((n, self._spec.dim), np.float32)
        for start in range(0, n, self.batch_size):
            part = inputs[start : start + self.batch_size]
            out[start : start + len(part)] = self._call(part, alone=n == 1)[: len(part)]
        return out

    def _array(self, inputs: Any) -> NDArray[Any]:
        try:
            array = np.asarray(inputs)
        except ValueError as err:
            raise InvalidVectorError(f"the inputs have different shapes ({err}): give all of them the same") from err
        return array if array.dtype.kind != "U" else array.astype(object)

    def _call(self, part: NDArray[Any], *, alone: bool) -> NDArray[np.float32]:
        """The model on one batch, filled up to the fixed size: another size would be traced and compiled again."""
        missing = self.batch_size - len(part)
        if missing and not alone:
            part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
        tensor: Any = part
        if part.dtype == object:
            from tensorflow import constant, string

            tensor = constant(part.tolist(), string)
        try:
            return np.asarray(self._model(tensor, training=False), np.float32)
        except (TypeError, ValueError, RuntimeError) as err:
            shape = list(part.shape[1:])
            raise InvalidVectorError(
                f"the model {self._spec.name!r} takes inputs {self._model.input_shape}, and got {shape} {part.dtype}: {err}"
            ) from err

    def saved_model(self) -> bytes:
        """The content of a ``.keras`` file, loaded once to see that it can be.

        Raises:
            InvalidArgumentError: Keras cannot save the model, or not load it again without running code from the file.
        """
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "model.keras"
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._model.save(path)
                loaded = load_embedder(path, name=self._spec.name, batch_size=self.batch_size)
            except (CorruptStoreError, TypeError, ValueError, NotImplementedError, OSError) as err:
                raise InvalidArgumentError(
                    f"the model {self._spec.name!r} cannot be saved and loaded again ({err}): a Lambda layer or an unregistered "
                    "custom layer, perhaps; use keras.saving.register_keras_serializable, or FunctionEmbedder"
                ) from err
            if loaded.spec != self._spec:
                raise InvalidArgumentError(f"the model {self._spec.name!r} is another one after saving and loading it")
            return path.read_bytes()


def load_embedder(path: Path, *, name: str, batch_size: int) -> KerasEmbedder:
    """The embedder of a saved model.

    Raises:
        CorruptStoreError: The file is missing or damaged.
    """
    keras = _keras()
    remedy = "restore that file from a backup, or open the store with embedder=…"
    if not path.exists():
        raise CorruptStoreError(f"the store's model {path} is missing: {remedy}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as err:  # whatever a damaged archive makes Keras raise
        raise CorruptStoreError(f"the store's model {path} cannot be loaded ({err}): {remedy}") from err
    return KerasEmbedder(model, batch_size=batch_size)


def _joined(keras: Any, preprocess: Any, model: Any) -> Any:
    """One model that preprocesses first."""
    shape, dtype = model.input_shape, getattr(model, "input_dtype", None)
    first = preprocess.input_shape if isinstance(preprocess, keras.Model) else shape
    inputs = keras.Input(first[1:], dtype=dtype)
    return keras.Model(inputs, model(preprocess(inputs)), name=model.name)


def _output_dim(model: Any) -> int:
    try:
        shape = model.output_shape
    except AttributeError as err:
        raise InvalidArgumentError(
            f"the model {model.name!r} has not been built: call it on an input once, or give it an Input layer"
        ) from err
    if isinstance(shape, list) or not isinstance(shape, tuple) or len(shape) != 2 or shape[1] is None:
        raise InvalidArgumentError(f"the model {model.name!r} gives {shape}; an embedder gives one vector for each input: (None, dim)")
    return int(shape[1])


def _fingerprint(model: Any, function: Callable[[Any], Any] | None) -> str:
    """Of config and weights, and of the preprocess function's name; the same after saving and loading."""
    digest = xxh3_128(json.dumps(model.get_config(), sort_keys=True, default=str).encode())
    for weight in model.get_weights():
        digest.update(f"{weight.shape} {weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    if function is not None:
        digest.update(f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(type(function)))}".encode())
    return digest.hexdigest()
