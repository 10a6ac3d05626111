"""What the demo works on: scikit-learn's digits, or a file of the user's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_TRAINING, N_QUERIES = 10_000, 2_000  # at most, of a large dataset


@dataclass(frozen=True, slots=True)
class Digits:
    """Images [n, height, width, channels] as they were read, and their labels [n], ints or texts."""

    images: NDArray[Any]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> "Digits":
        return Digits(self.images[rows], self.labels[rows])


@dataclass(frozen=True, slots=True)
class Parts:
    """What the model is trained on, what is indexed, and what is searched for: that is in neither of the others."""

    training: Digits
    indexed: Digits
    queries: Digits
    is_training_indexed: bool


def load_digits() -> Parts:
    """scikit-learn's digits: 600 to train on, 400 to search for, the rest to index."""
    from sklearn import datasets

    data = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    digits = Digits(as_images(data.images.astype(np.uint8)), data.target)[order]
    return Parts(digits[:600], digits[1000:], digits[600:1000], is_training_indexed=False)


def load_file(path: Path) -> Parts:
    """A dataset of the user's: all but its test part (or a fifth) is indexed, and the model trained on some of that."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            indexed, queries = split(arrays)
    except (OSError, ValueError, KeyError, EOFError) as err:
        raise SystemExit(f"{path} cannot be used: {err}. It should hold x_train, y_train, x_test, y_test, or x, y") from err
    random = np.random.default_rng(0)
    training = indexed[random.permutation(len(indexed))[:N_TRAINING]]
    return Parts(training, indexed, queries[random.permutation(len(queries))[:N_QUERIES]], is_training_indexed=True)


def split(arrays: Any) -> tuple[Digits, Digits]:
    """What to index and what to search for, of the arrays in a file."""
    if "x_train" in arrays:
        return paired(arrays["x_train"], arrays["y_train"]), paired(arrays["x_test"], arrays["y_test"])
    both = paired(arrays["x"], arrays["y"])
    order = np.random.default_rng(0).permutation(len(both))
    return both[order[len(both) // 5 :]], both[order[: len(both) // 5]]


def paired(images: NDArray[Any], labels: NDArray[Any]) -> Digits:
    """Images with their labels."""
    digits = Digits(as_images(images), labels.reshape(-1))
    if len(digits.labels) != len(digits) or len(digits) < 10:
        raise ValueError(f"{len(digits)} images and {len(digits.labels)} labels: ten or more of each are needed")
    return digits


def as_images(array: NDArray[Any]) -> NDArray[Any]:
    """Images [n, height, width, channels] of [n, height, width], or of rows that are square images."""
    if array.ndim == 2 and (side := round(array.shape[1] ** 0.5)) ** 2 == array.shape[1]:
        array = array.reshape(-1, side, side)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.dtype.kind not in "uif" or array.shape[3] not in (1, 3):
        raise ValueError(f"an array of shape {array.shape} and dtype {array.dtype} does not hold images")
    return array
