"""Keras models as embedders. Keras is imported when the first one is made, and nowhere else in this package."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.embedders.batches import as_array, as_batch, checked_vectors, fitted, pieces
from simstore.embedders.fingerprint import canonical, fingerprint_of
from simstore.errors import InvalidArgumentError, KerasMissingError
from simstore.types import EmbedderSpec

__all__ = ["KerasEmbedder", "import_keras", "model_fingerprint", "serialised"]


class KerasEmbedder:
    """Embeds with a Keras model. A store saves the model and loads it again by itself.

    The model is called directly on batches, never through ``predict``, and on TensorFlow as one compiled graph, which
    takes a single input several times faster than calling the model. Make the embedder when training is over: its
    fingerprint is taken once, here.

    Args:
        model: Any Keras 3 model with one output [None, dim].
        preprocess: Runs before the model. A Keras layer or model is saved with it. A function, called as
            preprocess(batch) with an array [n, …] or a list, cannot be saved: the store then has to be given the
            embedder whenever it is opened, and knows the function by its name alone.
        batch_size: How many inputs the model gets at once, at most.
        name: What the store calls it; by default the model's name.
        save: Whether a store keeps a copy of the model. Without one it has to be given whenever the store is opened.

    Raises:
        KerasMissingError: Keras or its backend is not installed.
        PackageMissingError: A layer of the model needs another package, as text-minilm's does.
        InvalidArgumentError: The model's output is not [None, dim], or another argument is wrong.

    Example:
        >>> embedder = KerasEmbedder(model, preprocess=keras.layers.Rescaling(1 / 255))  # doctest: +SKIP
        >>> embedder.embed(images).shape  # doctest: +SKIP
        (1000, 64)
    """

    def __init__(
        self, model: Any, *, preprocess: Any = None, batch_size: int = 64, name: str | None = None, save: bool = True
    ) -> None:
        keras = import_keras()
        if not isinstance(model, keras.Model):
            raise InvalidArgumentError(f"model is a keras.Model (Keras {keras.__version__}), not {type(model).__name__}")
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise InvalidArgumentError(f"batch_size is a whole number of at least 1, not {batch_size!r}")
        if preprocess is not None and not callable(preprocess):
            raise InvalidArgumentError(f"preprocess is a Keras layer or a function, not {type(preprocess).__name__}")
        check_installed(model)
        self.model = model
        self.preprocess = preprocess
        self.batch_size = int(batch_size)
        self._keras = keras
        self._is_layer = isinstance(preprocess, keras.layers.Layer)
        self._save = save
        dim = output_dim(model)
        fingerprint = model_fingerprint(model, serialised(model), preprocess, self._preprocess_config())
        self._spec = EmbedderSpec(name or model.name, dim, fingerprint)
        self._call = compiled(model)

    @property
    def spec(self) -> EmbedderSpec:
        """Name, dim, and the fingerprint of model and preprocess."""
        return self._spec

    @property
    def preprocess_name(self) -> str | None:
        """What runs before the model, to be told to people."""
        if self.preprocess is None:
            return None
        return str(self.preprocess.name) if self._is_layer else function_name(self.preprocess)

    @property
    def is_saveable(self) -> bool:
        """Whether a store is to keep the model."""
        return self._save and (self.preprocess is None or self._is_layer)

    def embed(self, batch: Any) -> NDArray[np.float32]:
        """The vectors of a batch, float32 [n, dim].

        Args:
            batch: n inputs: an array [n, …], a list of n arrays, or a list of n texts for a model that takes texts.

        Raises:
            InvalidArgumentError: It is no batch, or the model takes inputs of another shape.
            InvalidVectorError: The model returned something else.
        """
        inputs = as_batch(batch)
        out = np.empty((len(inputs), self._spec.dim), np.float32)
        for first, count, piece in pieces(inputs, self.batch_size):
            vectors = self._vectors(piece)[:count]
            if count == len(inputs):
                return vectors
            out[first : first + count] = vectors
        return out

    def _vectors(self, piece: Any) -> NDArray[np.float32]:
        output = self._call(self._prepared(piece))
        array = self._keras.ops.convert_to_numpy(output)
        return checked_vectors(array, len(piece), self._spec.dim, f"the model {self._spec.name!r}")

    def _prepared(self, piece: Any) -> Any:
        if self._is_layer:
            return self.preprocess(self._keras.ops.convert_to_tensor(as_array(piece)), training=False)
        if self.preprocess is None:
            return as_array(piece)
        # A copy: keras.applications.*.preprocess_input, for one, works in place on float32.
        return self.preprocess(piece.copy())

    def check_unchanged(self) -> None:
        """Raises InvalidArgumentError if the model is another one than when the embedder was made, as by training."""
        now = model_fingerprint(self.model, serialised(self.model), self.preprocess, self._preprocess_config())
        if now != self._spec.fingerprint:
            raise InvalidArgumentError(
                f"the model {self._spec.name!r} has changed since its KerasEmbedder was made (was it trained? fingerprint "
                f"{self._spec.fingerprint} then, {now} now): make a new KerasEmbedder of it"
            )

    def known_as(self, fingerprint: str) -> None:
        """Keeps the fingerprint of the file that the model was loaded from; its own may be worded by another Keras."""
        self._spec = EmbedderSpec(self._spec.name, self._spec.dim, fingerprint)

    def _preprocess_config(self) -> Any:
        return serialised(self.preprocess) if self._is_layer else None

    def __repr__(self) -> str:
        return f"<KerasEmbedder {self._spec.name!r}, dim {self._spec.dim}, fingerprint {self._spec.fingerprint}>"


def import_keras() -> Any:
    """The keras module.

    Raises:
        KerasMissingError: It or its backend is not installed.
    """
    try:
        import keras
    except ImportError as err:
        raise KerasMissingError(
            f"this needs Keras and TensorFlow, and one of them cannot be imported ({err}): pip install 'simstore[keras]'"
        ) from err
    return keras


def check_installed(model: Any) -> None:
    """Raises PackageMissingError if a layer of this package needs one that is not installed."""
    for layer in model._flatten_layers():
        if type(layer).__module__.startswith("simstore.") and hasattr(layer, "check_installed"):
            layer.check_installed()


# -- calling ------------------------------------------------------------------------------------------------------------


def output_dim(model: Any) -> int:
    """The width of a model's vectors.

    Raises:
        InvalidArgumentError: It has another output than [None, dim], or does not know it.
    """
    try:
        shape = model.output_shape
    except (AttributeError, ValueError) as err:
        raise InvalidArgumentError(
            f"the model {model.name!r} does not know its output shape: call it once; or, if its class is your own, "
            "make it functional: inputs = keras.Input(shape), keras.Model(inputs, model(inputs))"
        ) from err
    is_single = isinstance(shape, tuple) and not any(isinstance(axis, (tuple, list)) for axis in shape)
    if is_single and shape[0] is not None and len(model.inputs) == 1:  # a Sequential keeps the size of its first batch
        shape = tuple(model.compute_output_shape((None, *model.inputs[0].shape[1:])))
    if not is_single or len(shape) != 2 or shape[0] is not None or shape[1] is None:
        raise InvalidArgumentError(
            f"the model {model.name!r} has the output {shape}, not one of shape (None, dim): take the layer that holds "
            "the embedding, keras.Model(model.inputs, layer.output), and pool or flatten it if it has more axes"
        )
    return int(shape[1])


def compiled(model: Any) -> Callable[[Any], Any]:
    """A function that calls the model on a batch, thread-safe.

    On TensorFlow it is traced once, for batches of any size: calling the model itself costs milliseconds of Python each
    time. A model that was compiled with run_eagerly=True is not traced, and other backends are called as they are.
    """
    keras = import_keras()

    def direct(inputs: Any) -> Any:
        return model(inputs, training=False)

    is_traced = keras.config.backend() == "tensorflow" and not getattr(model, "run_eagerly", False)
    inputs_of_model = getattr(model, "inputs", None) or []
    if len(inputs_of_model) != 1:
        return traced(direct, None) if is_traced else direct
    wanted = inputs_of_model[0]
    run = traced(direct, wanted) if is_traced else direct

    def call(inputs: Any) -> Any:
        return run(keras.ops.convert_to_tensor(fitted(inputs, wanted, model.name), dtype=wanted.dtype))

    return call


def traced(direct: Callable[[Any], Any], wanted: Any) -> Callable[[Any], Any]:
    """A TensorFlow graph of a function; with what it wants known, one graph for batches of every size."""
    import tensorflow as tf

    if wanted is None:
        anything: Callable[[Any], Any] = tf.function(direct, autograph=False, reduce_retracing=True)
        return anything
    one: Callable[[Any], Any] = tf.function(
        direct, input_signature=[tf.TensorSpec((None, *wanted.shape[1:]), wanted.dtype)], autograph=False
    )
    return one


# -- fingerprints ----------------------------------------------------------------------------------------------------


def serialised(layer: Any) -> Any:
    """A layer's or model's configuration, as plain JSON values.

    Raises:
        InvalidArgumentError: It cannot describe itself.
    """
    keras = import_keras()
    try:
        return json.loads(json.dumps(keras.saving.serialize_keras_object(layer)["config"]))
    except (NotImplementedError, TypeError, ValueError) as err:
        raise InvalidArgumentError(
            f"{layer.name!r} cannot be described ({err}): "
            "give its class a get_config() that returns the arguments it is made with"
        ) from err


def model_fingerprint(model: Any, config: Any, preprocess: Any, preprocess_config: Any) -> str:
    """The fingerprint of a model and what runs before it.

    The configurations are arguments because a saved model's is read from its file: after an upgrade of Keras the loaded
    model may describe itself in other words.
    """
    parts = ["keras", canonical(config), *state_of(model)]
    if preprocess_config is not None:
        parts += ["layer", canonical(preprocess_config), *state_of(preprocess)]
    elif preprocess is not None:
        parts += ["function", function_name(preprocess)]
    return fingerprint_of(parts)


def state_of(layer: Any) -> Iterator[str | NDArray[Any]]:
    """What a layer has learned: its weights, and the vocabularies within."""
    keras = import_keras()
    for weight in layer.weights:
        yield keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(weight))
    for part in layer._flatten_layers():
        if hasattr(part, "get_vocabulary"):
            yield "\0".join(map(str, part.get_vocabulary()))


def function_name(fn: Any) -> str:
    """A function by its name, without the module: a script's functions are in __main__ today and elsewhere tomorrow."""
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    return str(name)
