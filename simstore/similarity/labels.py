"""Labels as users hand them over, and which of them are the same."""

from collections.abc import Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError, InvalidLabelError
from simstore.storage.encoding import encode_label, plain_value
from simstore.types import Label

__all__ = ["Labels", "LookupLabels", "labels_of", "same_label"]

Labels = NDArray[np.object_]
"""[n] of str, int or None."""

LookupLabels = NDArray[np.object_]
"""[n, k] of str, int or None; None, too, where a query has fewer than k neighbours."""


def labels_of(y: Any, n: int | None = None) -> Labels:
    """Labels as an object array [n].

    Args:
        y: An array, tensor or sequence [n] or [n, 1] of int, str or None; floats that are whole count as int.
        n: How many there should be; None for any number.

    Raises:
        InvalidArgumentError: Another shape or number.
        InvalidLabelError: One of them is no label; it is named.
    """
    given = np.asarray(y) if hasattr(y, "__array__") else y
    if isinstance(given, np.ndarray):
        if given.ndim == 2 and given.shape[1] == 1:
            given = given[:, 0]
        if given.ndim != 1:
            shape = list(given.shape)
            raise InvalidArgumentError(f"labels have the shape [n] or [n, 1], one for each example, not {shape}")
        given = given.tolist()
    if isinstance(given, (str, bytes, Mapping, Set)) or not hasattr(given, "__iter__"):
        raise InvalidArgumentError(f"labels are a sequence with one for each example, not {type(y).__name__} ({y!r:.60})")
    plain = [_label(i, label) for i, label in enumerate(given)]
    if n is not None and len(plain) != n:
        raise InvalidArgumentError(f"{len(plain)} labels for {n} examples: give one for each")
    out = np.empty(len(plain), object)
    out[:] = plain
    return out


def _label(i: int, label: Any) -> Label:
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        label = int(label)
    elif hasattr(label, "__array__") and np.size(label) == 1:  # a tensor, or [3] among [n, 1]
        label = np.asarray(label).item()
    elif isinstance(label, (list, tuple)) and len(label) == 1:
        label = label[0]
    try:
        encode_label(label)
    except InvalidLabelError as err:
        raise InvalidLabelError(f"labels[{i}]: {err}") from err.__cause__
    plain: Label = plain_value(label)
    return plain


def same_label(a: NDArray[np.object_], b: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Where labels are the same. None is no label: it is never the same as another."""
    labelled = np.array([label is not None for label in a.flat], bool).reshape(a.shape)
    same: NDArray[np.bool_] = np.asarray(a == b, bool) & labelled
    return same
