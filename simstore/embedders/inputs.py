"""What inputs an embedder takes."""

from typing import Any

from simstore.embedders.keras import KerasEmbedder, import_keras
from simstore.embedders.protocol import Embedder
from simstore.embedders.saved import SavedEmbedder
from simstore.types import ArrayInput, ImageInput, TextInput

__all__ = ["input_of", "recorded"]

Input = ImageInput | TextInput | ArrayInput


def input_of(embedder: Embedder) -> Input | None:
    """What inputs an embedder takes; None where it does not say, as functions do not.

    A model's input [h, w, 1 or 3] is an image, and so is [h, w]: Keras fits images of one channel to it. A store's saved
    embedder is loaded for this, unless its record tells.

    Raises:
        CorruptStoreError, EmbedderRequiredError, KerasMissingError: The saved embedder cannot be loaded.
    """
    if isinstance(embedder, SavedEmbedder):
        if "input" in embedder.record:
            return _of_record(embedder.record["input"])
        embedder = embedder.loaded()
    if not isinstance(embedder, KerasEmbedder):
        return None
    keras, first = import_keras(), embedder.preprocess
    if isinstance(first, keras.layers.TextVectorization):
        return TextInput()
    if first is not None and not isinstance(first, keras.layers.Layer):
        return None
    # A layer that was never called has no inputs; most leave the shape as it is, and Resizing takes the model's, too.
    own = _inputs(first)
    inputs = own if own is not None else _inputs(embedder.model)
    return _kind_of(inputs[0]) if inputs is not None and len(inputs) == 1 else None


def _inputs(layer: Any) -> list[Any] | None:
    """The symbolic inputs of a model, or of a layer that was called on one."""
    try:
        inputs = layer.inputs if hasattr(layer, "inputs") else layer.input
    except (AttributeError, ValueError):
        return None
    return inputs if isinstance(inputs, list) else [inputs]


def recorded(taken: Input | None) -> list[Any] | None:
    """What a store remembers of the inputs that an embedder takes: what they are, and their shape."""
    if isinstance(taken, ImageInput):
        return ["image", taken.height, taken.width, taken.channels]
    if isinstance(taken, ArrayInput):
        return ["array", *taken.shape]
    return None if taken is None else ["text"]


def _of_record(value: list[Any] | None) -> Input | None:
    if value is None:
        return None
    kind, *shape = value
    return ImageInput(*shape) if kind == "image" else TextInput() if kind == "text" else ArrayInput(tuple(shape))


def _kind_of(tensor: Any) -> Input:
    shape = tuple(tensor.shape[1:])
    if tensor.dtype == "string":
        return TextInput()
    if len(shape) == 3 and shape[2] in (1, 3):
        return ImageInput(shape[0], shape[1], shape[2])
    if len(shape) == 2:
        return ImageInput(shape[0], shape[1], 1)
    return ArrayInput(shape)
