"""Reads the arrays of a PyTorch checkpoint without PyTorch, and without running what the file asks for."""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError

__all__ = ["read_checkpoint"]

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4"}


class _Tensor(NamedTuple):
    """A tensor in the checkpoint: shape and strides, in elements, of a storage."""

    storage: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Values(OrderedDict[str, Any]):
    """The checkpoint's dictionary, which PyTorch gives attributes of its own."""


class _Unpickler(pickle.Unpickler):
    """Knows tensors, the types of their storages, and dictionaries; whatever else a file names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): _Values,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        kind, dtype, key, _, _, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"it holds {pid!r}")
        return key, dtype


def _tensor(storage: tuple[str, str], offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage[0], storage[1], offset, tuple(shape), tuple(strides))


def read_checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a checkpoint that torch.save has written before version 1.6, by name.

    Raises:
        InvalidArgumentError: It is something else, is damaged, or holds more than tensors.
    """
    try:
        with path.open("rb") as file:
            tensors = _header(file)
            storages = _storages(file, {tensor.storage: tensor.dtype for tensor in tensors.values()})
        return {name: _array(tensor, storages[tensor.storage]) for name, tensor in tensors.items()}
    except (pickle.UnpicklingError, AttributeError, EOFError, IndexError, KeyError, TypeError, ValueError) as err:
        raise InvalidArgumentError(f"{path} is no checkpoint of weights that PyTorch wrote before 1.6: {err}") from err


def _header(file: BinaryIO) -> dict[str, _Tensor]:
    if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
        raise ValueError("it does not begin like one")
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("it was written on a big-endian machine")
    tensors = _Unpickler(file).load()
    if not isinstance(tensors, dict) or not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise ValueError("it holds something else than named tensors")
    return dict(tensors)


def _storages(file: BinaryIO, dtypes: dict[str, str]) -> dict[str, NDArray[Any]]:
    """What the tensors are views of: for each key, in the order of the keys, its length and its elements."""
    storages = {}
    for key in _Unpickler(file).load():
        dtype = np.dtype(dtypes[key])
        length = int.from_bytes(file.read(8), "little")
        content = file.read(length * dtype.itemsize)
        if len(content) < length * dtype.itemsize:
            raise ValueError("it is cut off")
        storages[key] = np.frombuffer(content, dtype)
    return storages


def _array(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0 or (0 not in tensor.shape and last >= len(storage)):
        raise ValueError("a tensor lies outside its storage")
    steps = [stride * storage.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, steps)
    return np.array(view, order="C")
