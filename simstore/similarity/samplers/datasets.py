"""Data sets by name: five places are looked at in turn, and the error tells what each of them said."""

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from simstore.errors import InvalidArgumentError
from simstore.similarity.samplers.selection import as_numpy, label_vector

__all__ = ["load_dataset", "register_dataset"]

Splits = Mapping[str, tuple[Any, Any]]
Preprocess = Callable[[Any, Any], tuple[Any, Any]]
_BUNDLED = ("digits", "iris", "wine", "breast_cancer")
_registered: dict[str, Callable[[], Any]] = {}


class _NotHereError(Exception):
    """This place does not have it, and why."""


def register_dataset(name: str, fn: Callable[[], Any]) -> None:
    """Has ``load_dataset(name)`` and ``TFDatasetMultiShotMemorySampler(name)`` call fn, before they look anywhere else.

    Args:
        name: Of the data set. A second function under the same name replaces the first.
        fn: Called without arguments. It returns a dict of splits, {"train": (x, y), …}, or ((x_train, y_train),
            (x_test, y_test)) as ``load_data`` of keras.datasets does.

    Example:
        >>> register_dataset("blobs", lambda: {"train": (np.zeros((4, 2)), [0, 0, 1, 1])})
        >>> load_dataset("blobs", splits="train")[1].tolist()
        [0, 0, 1, 1]
    """
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(f"name is the name of a data set, not {name!r}")
    if not callable(fn):
        raise InvalidArgumentError(f"fn is a function that returns the data, not {type(fn).__name__}")
    _registered[name] = fn


def load_dataset(
    name: str | Path,
    splits: str | Sequence[str] = ("train", "test"),
    *,
    x_key: str = "image",
    y_key: str = "label",
    preprocess_fn: Preprocess | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A data set as arrays, its splits one after the other.

    It is looked for in this order: functions given to ``register_dataset``; the file name.npz in the working directory, with
    x_train, y_train, x_test, y_test as in Keras' mnist.npz; what scikit-learn bundles (digits, iris, wine, breast_cancer:
    every fifth example is the test split; digits become uint8 from 0 to 255, as images elsewhere are); keras.datasets;
    tensorflow-datasets. Grey images, uint8 [n, height, width], get their channel axis: [n, height, width, 1].

    Args:
        name: Of the data set, or the path of an .npz file.
        splits: Which to take.
        x_key: The feature of a tensorflow-datasets example that is x.
        y_key: The one that is y.
        preprocess_fn: Called as preprocess_fn(x, y) with each example; returns both.

    Returns:
        x [n, …] and y [n].

    Raises:
        InvalidArgumentError: No place has it, or it has no such split, or it is no data set of examples and labels.
    """
    wanted = [splits] if isinstance(splits, str) else list(splits)
    found = _found(name, wanted, x_key, y_key)
    missing = [split for split in wanted if split not in found]
    if missing or not wanted:
        raise InvalidArgumentError(f"data set {str(name)!r} has the splits {sorted(found)}, not {missing or 'none at all'}")
    x = _joined([_with_channels(found[split][0]) for split in wanted])
    y = _joined([label_vector(found[split][1]) for split in wanted])
    if len(x) != len(y):
        raise InvalidArgumentError(f"data set {str(name)!r} has {len(x)} examples and {len(y)} labels")
    if preprocess_fn is None:
        return as_numpy(x), as_numpy(y)
    pairs = [preprocess_fn(one, label) for one, label in zip(x, y, strict=True)]
    return as_numpy([as_numpy(pair[0]) for pair in pairs]), as_numpy([as_numpy(pair[1]) for pair in pairs])


def _found(name: str | Path, splits: list[str], x_key: str, y_key: str) -> Splits:
    if isinstance(name, Path) or name.endswith(".npz") or "/" in name:
        return _read(Path(name).expanduser())
    places: dict[str, Callable[[], Splits]] = {
        "registered": lambda: _from_registered(name),
        "local file": lambda: _from_working_directory(name),
        "scikit-learn": lambda: _from_sklearn(name),
        "keras.datasets": lambda: _from_keras(name),
        "tensorflow-datasets": lambda: _from_tfds(name, splits, x_key, y_key),
    }
    said = []
    for place, find in places.items():
        try:
            return find()
        except _NotHereError as err:
            said.append(f"- {place}: {err}")
    raise InvalidArgumentError("\n".join([f"data set {name!r} was found in none of these places:", *said]))


def _from_registered(name: str) -> Splits:
    if name not in _registered:
        raise _NotHereError(f"none of that name; samplers.register_dataset({name!r}, fn) makes one")
    return _as_splits(_registered[name](), f"what is registered as {name!r} returned")


def _from_working_directory(name: str) -> Splits:
    path = Path.cwd() / f"{name}.npz"
    if not path.is_file():
        raise _NotHereError(f"no {path}; save one with x_train, y_train, x_test and y_test, or give the path as dataset_name")
    return _read(path)


def _read(path: Path) -> Splits:
    """The splits of an .npz file; never unpickled."""
    if not path.is_file():
        raise InvalidArgumentError(f"there is no file {path}: a dataset_name that is a path is that of an .npz file")
    try:
        with path.open("rb") as file:  # numpy does not close a torn one
            arrays = np.load(file, allow_pickle=False)
            named = {key: arrays[key] for key in arrays} if isinstance(arrays, np.lib.npyio.NpzFile) else {}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as err:
        raise InvalidArgumentError(
            f"{path} cannot be read ({err}): it is an .npz file of plain arrays; pickled objects are never loaded"
        ) from err
    names = [key.removeprefix("x_") for key in named if key.startswith("x_") and f"y_{key.removeprefix('x_')}" in named]
    if not names:
        raise InvalidArgumentError(f"{path} holds {sorted(named)}, not x_train and y_train, as Keras' files do")
    return {split: (named[f"x_{split}"], named[f"y_{split}"]) for split in names}


def _from_sklearn(name: str) -> Splits:
    if name not in _BUNDLED:
        raise _NotHereError(f"bundles {', '.join(_BUNDLED)}")
    try:
        from sklearn import datasets
    except ImportError as err:
        raise _NotHereError("not installed; pip install scikit-learn") from err
    bunch = getattr(datasets, f"load_{name}")()
    is_image = name == "digits"  # from 0 to 16
    x = np.rint(bunch.images * (255 / 16)).astype(np.uint8) if is_image else bunch.data.astype(np.float32)
    is_test = np.arange(len(x)) % 5 == 4
    return {"train": (x[~is_test], bunch.target[~is_test]), "test": (x[is_test], bunch.target[is_test])}


def _from_keras(name: str) -> Splits:
    load = getattr(getattr(keras.datasets, name, None), "load_data", None)
    if load is None:
        known = [one for one in dir(keras.datasets) if hasattr(getattr(keras.datasets, one), "load_data")]
        raise _NotHereError(f"has {', '.join(known)}")
    try:
        return _as_splits(load(), f"keras.datasets.{name} has")
    except InvalidArgumentError:
        raise
    except Exception as err:  # a failed download is a bare Exception
        raise _NotHereError(f"cannot be downloaded ({err}); download it where there is a network") from err


def _from_tfds(name: str, splits: list[str], x_key: str, y_key: str) -> Splits:
    try:
        import tensorflow_datasets as tfds
    except ImportError as err:
        raise _NotHereError("not installed; pip install tensorflow-datasets") from err
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
    except Exception as err:  # unknown names, failed downloads: each has its own class there
        raise _NotHereError(f"{type(err).__name__}: {str(err).strip().partition(chr(10))[0]}") from err
    unknown = [key for key in (x_key, y_key) if key not in builder.info.features]
    if unknown:
        raise InvalidArgumentError(f"{name} of tensorflow-datasets has {list(builder.info.features)}, not {unknown}")
    found = {}
    for split in splits:
        try:
            examples = list(tfds.as_numpy(builder.as_dataset(split=split)))
        except ValueError as err:
            raise InvalidArgumentError(f"{name} of tensorflow-datasets has no split {split!r}: {err}") from err
        found[split] = ([one[x_key] for one in examples], [one[y_key] for one in examples])
    return found


def _as_splits(value: Any, whose: str) -> Splits:
    if isinstance(value, Mapping):
        pairs = dict(value)
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        pairs = dict(zip(("train", "test"), value, strict=True))
    else:
        pairs = {}
    if not pairs or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs.values()):
        raise InvalidArgumentError(
            f"{whose} no splits: they are {{'train': (x, y), …}} or ((x_train, y_train), (x_test, y_test))"
        )
    return {str(split): (x, y) for split, (x, y) in pairs.items()}


def _with_channels(x: Any) -> Any:
    """Grey images with a channel axis; anything else as it is."""
    x = as_numpy(x) if not isinstance(x, list) else x
    is_grey = isinstance(x, np.ndarray) and x.ndim == 3 and x.dtype == np.uint8
    return x[..., None] if is_grey else x


def _joined(parts: list[Any]) -> Any:
    """Splits one after the other; a list where one is a list."""
    if all(isinstance(part, np.ndarray) for part in parts):
        try:
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        except ValueError as err:
            raise InvalidArgumentError(f"the splits do not fit together ({err})") from err
    return [one for part in parts for one in part]
