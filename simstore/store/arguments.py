"""What the public methods are given, checked and brought into one form before anything is read or written."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore.errors import (
    DimensionError,
    DuplicateKeyError,
    InvalidArgumentError,
    InvalidVectorError,
    SimstoreError,
)
from simstore.storage.encoding import encode_key, encode_label, pack, packer, plain_value
from simstore.types import Key, Label

__all__ = [
    "NOW",
    "Batch",
    "Keys",
    "NewItems",
    "batch_of",
    "check_k",
    "check_max_distance",
    "check_snapshot_name",
    "keys_of",
    "path_of",
    "vector_of",
    "vectors_of",
]

NOW = "now"
"""What stands for the present where a snapshot's name may stand."""

_MOST_NAME_BYTES = 200


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys as given and as stored."""

    plain: list[Key]
    encoded: list[bytes]


@dataclass(frozen=True, slots=True)
class Batch:
    """Items to write, valid and encoded.

    Attributes:
        keys: None if the store is to number the items.
        labels: Labels as stored in an item.
        label_keys: Labels as keys of the postings; None has none.
        data: Each item's data as msgpack.
    """

    keys: Keys | None
    labels: list[Label]
    label_keys: list[bytes | None]
    data: list[bytes]

    def __len__(self) -> int:
        return len(self.labels)


class NewItems(NamedTuple):
    """Items and their vectors [n, dim], and the fingerprint of the embedder that made those; None if they were given."""

    batch: Batch
    vectors: NDArray[np.float32]
    made_by: str | None


def is_single(keys: Any) -> bool:
    """Whether one key was given and not a sequence of them."""
    return isinstance(keys, (str, int, np.integer))


def _is_sequence(values: Any) -> bool:
    """Whether values stand one after the other, in an order of their own."""
    if isinstance(values, np.ndarray):
        return values.ndim > 0
    return isinstance(values, Iterable) and not isinstance(values, (str, bytes, dict, set, frozenset))


def sized(name: str, values: Any) -> Any:
    """The values, with a length.

    Raises:
        InvalidArgumentError: They are no sequence.
    """
    if not _is_sequence(values):
        raise InvalidArgumentError(
            f"{name} is a sequence or an array with one entry for each item, not {type(values).__name__}"
        )
    return values if hasattr(values, "__len__") else list(values)


def keys_of(keys: Any, *, unique: bool = True) -> Keys:
    """The keys of a call; one alone is a batch of one.

    Raises:
        InvalidKeyError: One of them is no key.
        DuplicateKeyError: One stands there twice.
        InvalidArgumentError: They are no sequence.
    """
    if is_single(keys):
        keys = [keys]
    if not _is_sequence(keys):
        raise InvalidArgumentError(f"keys is a key or a sequence of keys (str or int), not {type(keys).__name__}")
    given = list(keys.tolist() if isinstance(keys, np.ndarray) else keys)
    encoded = [_named("keys", i, encode_key, key) for i, key in enumerate(given)]
    if unique and len(set(encoded)) < len(encoded):
        seen: set[bytes] = set()
        for i, key in enumerate(encoded):
            if key in seen:
                raise DuplicateKeyError(f"keys[{i}]: {given[i]!r} stands twice in one call; each key may stand once")
            seen.add(key)
    return Keys([plain_value(key) for key in given], encoded)


def _named(what: str, i: int, work: Any, value: Any) -> Any:
    """work(value), with the place added to the error's message."""
    try:
        return work(value)
    except SimstoreError as err:
        raise type(err)(f"{what}[{i}]: {err}") from err.__cause__


def batch_of(keys: Keys | None, labels: Any, data: Any, n: int, *, single: bool = False) -> Batch:
    """The batch of a call that writes n items.

    Args:
        keys: None if the store is to number the items.
        single: One item was given, and its label and data stand alone.

    Raises:
        InvalidArgumentError: Nothing to write, or lengths that differ.
        InvalidLabelError, InvalidDataError: See there; names the first bad item.
    """
    count = n if keys is None else len(keys.plain)
    if count != n:
        raise InvalidArgumentError(f"{count} keys for {n} vectors: give one key for each")
    if count == 0:
        raise InvalidArgumentError("nothing to write: the batch is empty")
    label_list = column("labels", labels, count, single)
    data_list = column("data", data, count, single)
    with_packer = packer()
    batch = packed_batch(keys, label_list, [])
    batch.data.extend(_named("data", i, lambda value: pack(with_packer, value), value) for i, value in enumerate(data_list))
    return batch


def packed_batch(keys: Keys | None, labels: Sequence[Any], packed: list[bytes]) -> Batch:
    """The same, of data that is packed already.

    Raises:
        InvalidLabelError: Names the first bad one.
    """
    if labels.count(None) == len(labels):
        return Batch(keys, [None] * len(labels), [None] * len(labels), packed)
    label_keys = [_named("labels", i, encode_label, label) for i, label in enumerate(labels)]
    return Batch(keys, [plain_value(label) for label in labels], label_keys, packed)


def column(name: str, values: Any, count: int, single: bool) -> list[Any]:
    """A value for each of count items.

    Raises:
        InvalidArgumentError: It is no sequence, or has another length.
    """
    if values is None:
        return [None] * count
    if single:
        return [values]
    if not _is_sequence(values):
        raise InvalidArgumentError(f"{name} is a sequence with one entry for each of the {count} items, not {values!r:.60}")
    column = list(values) if name == "data" or not isinstance(values, np.ndarray) else values.tolist()
    if len(column) != count:
        raise InvalidArgumentError(f"{len(column)} {name} for {count} items: give one for each, or leave {name} out")
    return column


# -- vectors ---------------------------------------------------------------------------------------------------------


def vectors_of(vectors: Any, dim: int | None, *, single: bool = False, what: str = "vectors") -> NDArray[np.float32]:
    """Vectors as float32 [n, dim], C-contiguous.

    Args:
        dim: The width they should have, or None for any.
        single: One vector [dim] is wanted; it becomes [1, dim].

    Raises:
        InvalidVectorError: Wrong type or number of axes.
        DimensionError: Another width.
    """
    if isinstance(vectors, np.ma.MaskedArray):
        raise InvalidVectorError(f"{what} are a masked array, whose mask would be lost: fill it first")
    if isinstance(vectors, Iterator):
        vectors = list(vectors)
    try:
        array = np.asarray(vectors)
    except ValueError as err:
        raise InvalidVectorError(f"{what} do not form an array ({err}): give all of them the same length") from err
    if array.shape == (0,) and not single:
        array = array.reshape(0, dim or 0)
    if array.dtype.kind not in "fiu":
        raise InvalidVectorError(f"{what} hold numbers (float32, or what converts to it), not dtype {array.dtype}")
    if single and array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or (single and len(array) != 1):
        wanted = "one vector [dim]" if single else "an array [n, dim]"
        raise InvalidVectorError(f"{what} should be {wanted}, not an array of shape {list(array.shape)}")
    if dim is not None and array.shape[1] != dim:
        have = f"has {array.shape[1]} numbers" if what == "query" else f"have {array.shape[1]} numbers each"
        raise DimensionError(f"{what} {have}; this store holds vectors of {dim}")
    if array.shape[1] == 0 and len(array):
        raise DimensionError(f"{what} have no numbers: a vector needs at least one")
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused as such
        return np.ascontiguousarray(array, np.float32)


def vector_of(query: Any, dim: int | None) -> NDArray[np.float32]:
    """A query as float32 [1, dim]."""
    if type(query) is np.ndarray and query.dtype == np.float32 and query.shape == (dim,) and query.flags.c_contiguous:
        return query[None]
    return vectors_of(query, dim, single=True, what="query")


def check_k(k: Any, max_distance: float | None) -> None:
    """Raises InvalidArgumentError unless k is a positive int, or None beside max_distance."""
    if k is None:
        if max_distance is None:
            raise InvalidArgumentError("k=None returns everything within max_distance: give max_distance, too")
    elif isinstance(k, (bool, np.bool_)) or not isinstance(k, (int, np.integer)):
        raise InvalidArgumentError(f"k is a whole number of answers, or None; not {k!r}")
    elif k < 1:
        raise InvalidArgumentError(f"k is at least 1, not {k}")


def check_max_distance(max_distance: Any) -> None:
    """Raises InvalidArgumentError unless max_distance is a number or None."""
    if max_distance is None:
        return
    number = isinstance(max_distance, (int, float, np.integer, np.floating)) and not isinstance(max_distance, bool)
    if not number or max_distance != max_distance:
        raise InvalidArgumentError(f"max_distance is a number, not {max_distance!r}")


def check_positive(name: str, value: Any) -> None:
    """Raises InvalidArgumentError unless value is None or an int of at least 1."""
    if value is None:
        return
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InvalidArgumentError(f"{name} is a whole number of at least 1, not {value!r}")


def check_recall(recall: Any, ef: Any) -> None:
    """Raises InvalidArgumentError unless recall is None, or a share above 0 that stands in place of ef."""
    if recall is None:
        return
    number = isinstance(recall, (int, float, np.integer, np.floating)) and not isinstance(recall, bool)
    if not number or not 0 < recall <= 1:
        raise InvalidArgumentError(f"recall is a share of the true neighbours, above 0 and at most 1, as 0.95; not {recall!r}")
    if ef is not None:
        raise InvalidArgumentError("give ef, or the recall for which the store chooses it: one of them, not both")


def embedded(vectors: Any, n: int | None, dim: int | None) -> NDArray[np.float32]:
    """What an embedder returned, as float32 [n, dim].

    Raises:
        InvalidVectorError: It is something else.
    """
    array = vectors_of(vectors, None, what="the embedder's vectors")
    if (n is not None and len(array) != n) or (dim is not None and array.shape[1] != dim):
        raise InvalidVectorError(f"the embedder returned an array {list(array.shape)} where [{n}, {dim}] was expected")
    return array


# -- names -----------------------------------------------------------------------------------------------------------


def path_of(path: Any, name: str) -> Path:
    """The absolute path of an argument.

    Raises:
        InvalidArgumentError: It is none.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidArgumentError(f"{name} is a str or a path, not {type(path).__name__}")
    text = os.fsdecode(path)
    if "\0" in text:
        raise InvalidArgumentError(f"{name} holds a NUL character, which no file system allows: {text!r}")
    return Path(os.path.abspath(text))


def check_snapshot_name(name: Any) -> None:
    """Raises InvalidArgumentError unless it can be a snapshot's name."""
    if not isinstance(name, str):
        raise InvalidArgumentError(f"a snapshot's name is a str, not {type(name).__name__} ({name!r:.60})")
    if not 0 < len(utf8("a snapshot's name", name)) <= _MOST_NAME_BYTES or "\0" in name or name == NOW:
        raise InvalidArgumentError(
            f"a snapshot's name has 1 to {_MOST_NAME_BYTES} bytes, no NUL, and is not {NOW!r} (the present); not {name!r:.60}"
        )


def utf8(what: str, text: str) -> bytes:
    """The text's bytes.

    Raises:
        InvalidArgumentError: It has none.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{what} is valid Unicode, not {text!r:.60}") from None
