"""Batches: what users hand over as n inputs, cut into pieces of few sizes, and the vectors that come back, checked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError, InvalidVectorError

__all__ = ["MOST_CHARACTERS", "as_array", "as_batch", "checked_vectors", "fitted", "pieces"]

MOST_CHARACTERS = 1 << 20  # of texts at once

Batch = NDArray[Any] | list[Any]


def as_batch(inputs: Any) -> Batch:
    """The inputs as an array [n, …] of numbers, or as a list where they are no numbers or have different shapes.

    Arrays and numbers of one shape are stacked; texts, images of different sizes and other objects come as a list.

    Args:
        inputs: An array, tensor or column (whatever numpy can read), or a list or tuple.

    Raises:
        InvalidArgumentError: It is one input, or no batch at all.
    """
    if isinstance(inputs, (list, tuple)):
        return _stacked(list(inputs))
    if isinstance(inputs, (str, bytes)) or not hasattr(inputs, "__array__"):
        raise InvalidArgumentError(
            f"a batch is an array [n, …] or a list of n inputs, not {type(inputs).__name__}: give a single input as [input]"
        )
    array = np.asarray(inputs)
    if array.ndim == 0:
        raise InvalidArgumentError("a batch is an array [n, …], not a single number: give a single input as [input]")
    return _stacked(array.tolist()) if array.dtype.kind in "OSU" else array


def _stacked(items: list[Any]) -> Batch:
    numbers = (np.ndarray, np.number, np.bool_, int, float)
    if not items or not all(isinstance(item, numbers) for item in items):
        return items
    arrays = [np.asarray(item) for item in items]
    if any(array.shape != arrays[0].shape or array.dtype.kind in "OSU" for array in arrays):
        return items
    return np.stack(arrays)


def pieces(batch: Batch, size: int) -> Iterator[tuple[int, int, Batch]]:
    """Cuts a batch into pieces as (first, count, piece).

    Every piece is padded, with its own last input, to a power of two or to ``size``: a model then sees few different
    shapes and is compiled for few. Padding a handful of inputs to ``size`` would multiply the time that they take.
    Fewer long texts make a piece: what a model makes of them takes some hundred times their memory.
    """
    first = 0
    while first < len(batch):
        piece = batch[first : first + size]
        if isinstance(piece, list):
            piece = piece[: _fitting(piece)]
        count = len(piece)
        missing = min(1 << (count - 1).bit_length(), size) - count
        if missing and isinstance(piece, list):
            piece = piece + [piece[-1]] * missing
        elif missing:
            piece = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)])
        yield first, count, piece
        first += count


def _fitting(inputs: list[Any]) -> int:
    """How many of the inputs, at least one, have no more than MOST_CHARACTERS."""
    total = 0
    for i, item in enumerate(inputs):
        total += len(item) if isinstance(item, (str, bytes)) else 0
        if total > MOST_CHARACTERS:
            return max(1, i)
    return len(inputs)


def as_array(piece: Any) -> NDArray[Any]:
    """A piece of a batch as one array; texts as an object array.

    Raises:
        InvalidArgumentError: The inputs differ in shape.
    """
    if isinstance(piece, np.ndarray):
        return piece
    if any(isinstance(item, (str, bytes)) for item in piece):
        return np.array(piece, object)  # numpy would make a text of None or 3 beside a text
    try:
        return np.array(piece)
    except ValueError as err:
        raise InvalidArgumentError(
            f"the inputs do not form one array ({err}): give all of them the same shape, or a preprocess function that does"
        ) from err


def fitted(inputs: Any, wanted: Any, name: str) -> Any:
    """The inputs in the shape that the model takes, as Keras itself fits them: a last axis of 1 comes or goes.

    Raises:
        InvalidArgumentError: They do not fit.
    """
    inputs = inputs if hasattr(inputs, "shape") else as_array(inputs)
    check_kind(inputs, wanted, name)
    shape = tuple(wanted.shape)
    if len(inputs.shape) == len(shape) - 1 and shape[-1] == 1:
        inputs = inputs[..., None]
    elif len(inputs.shape) == len(shape) + 1 and inputs.shape[-1] == 1:
        inputs = inputs[..., 0]
    pairs = zip(shape[1:], inputs.shape[1:], strict=False)
    if len(inputs.shape) != len(shape) or any(want not in (None, have) for want, have in pairs):
        raise InvalidArgumentError(
            f"the model {name!r} takes inputs of shape {shape[1:]}, and was given some of shape {tuple(inputs.shape[1:])}"
        )
    return inputs


def check_kind(inputs: Any, wanted: Any, name: str) -> None:
    """Raises InvalidArgumentError for texts where the model takes numbers, the other way round, and for what is cut off.

    Keras would turn 0.5 into 0 for a model that takes uint8, and -1 into 255.
    """
    if not isinstance(inputs, np.ndarray):
        return  # a tensor, made by a preprocess layer
    takes_texts, has_numbers = wanted.dtype == "string", inputs.dtype.kind in "biuf"
    if takes_texts == has_numbers:
        others = (type(item).__name__ for item in inputs.flat if not isinstance(item, (int, float, np.number)))
        given = f"numbers ({inputs.dtype})" if has_numbers else next(others, "other objects")
        raise InvalidArgumentError(f"the model {name!r} takes {'texts' if takes_texts else 'numbers'}, and was given {given}")
    if takes_texts:
        _check_texts(inputs, name)
    elif "int" in wanted.dtype and inputs.dtype != wanted.dtype:
        with np.errstate(invalid="ignore"):
            changed = inputs[inputs != inputs.astype(wanted.dtype)]
        if changed.size:
            raise InvalidArgumentError(f"the model {name!r} takes {wanted.dtype} numbers, and was given {changed.flat[0]!s}")


def _check_texts(texts: NDArray[Any], name: str) -> None:
    for text in texts.flat:
        if not isinstance(text, (str, bytes)):
            raise InvalidArgumentError(f"the model {name!r} takes texts, and was given {type(text).__name__}")
        try:
            if isinstance(text, str):
                text.encode()
        except UnicodeEncodeError as err:
            raise InvalidArgumentError(f"a text holds {text[err.start]!r}, half of a character: {text!r:.80}") from err


def checked_vectors(output: Any, n: int, dim: int, who: str) -> NDArray[np.float32]:
    """What an embedder's function or model returned, as float32 [n, dim], C-contiguous.

    Raises:
        InvalidVectorError: It is something else.
    """
    try:
        array = np.asarray(output)
    except (TypeError, ValueError) as err:
        raise InvalidVectorError(f"{who} should return an array [{n}, {dim}], not {type(output).__name__}: {err}") from err
    if array.shape != (n, dim):
        raise InvalidVectorError(f"{who} should return an array [{n}, {dim}], not one of shape {list(array.shape)}")
    try:
        return np.ascontiguousarray(array, np.float32)
    except (TypeError, ValueError) as err:
        raise InvalidVectorError(f"{who} should return numbers, not dtype {array.dtype}") from err
