"""What the cases of one run share, made when first asked for and removed at the end."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import hnswlib

import simstore
from bench.datasets import Dataset, load_dataset
from bench.peers import cached_hnsw, found_by_hnsw, load_hnsw
from bench.progress import progress
from bench.report import Row
from bench.settings import Settings
from bench.stores import SMALL, Payload, build_store, found_by_store, made_once
from bench.truth import Truth, cached_truth, smallest_ef

__all__ = ["Case", "Context", "working"]


class Context:
    """The data, its truth, the hnswlib index and the store of a run.

    Args:
        settings: The command line.
        folder: Where stores are made.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.cache = settings.out / "cache"

    @cached_property
    def dataset(self) -> Dataset:
        """The data set of --data."""
        return load_dataset(self.settings)

    @cached_property
    def truth(self) -> Truth:
        """Its exact neighbours."""
        return cached_truth(self.dataset, self.cache)

    @cached_property
    def hnsw_path(self) -> Path:
        """The file of hnswlib's index of it."""
        return cached_hnsw(self.dataset, self.settings, self.cache)

    @cached_property
    def hnsw(self) -> hnswlib.Index:
        """That index, loaded."""
        return load_hnsw(self.hnsw_path, self.dataset)

    @cached_property
    def store_path(self) -> Path:
        """A closed store of it, with labels and data, optimized. Not to be changed: copy it."""
        return self.store_of(self.dataset)

    @cached_property
    def efs(self) -> tuple[int, int]:
        """The smallest ef that reaches the recall: simstore's and hnswlib's. Opens the store: have it closed."""
        queries, truth = self.dataset.queries, self.truth
        with simstore.open(self.store_path, mode="r") as store, progress("the smallest ef of simstore"):
            ours = smallest_ef(lambda ef: truth.recall(found_by_store(store, queries, ef)))
        with progress("the smallest ef of hnswlib"):
            theirs = smallest_ef(lambda ef: truth.recall(found_by_hnsw(self.hnsw, queries, ef)))
        return ours, theirs

    def store_of(self, dataset: Dataset, payload: Payload = SMALL) -> Path:
        """The same for another data set, or with another payload."""
        name = self.name_of(dataset, "" if payload is SMALL else payload.name)
        return made_once(self.folder / name, lambda path: build_store(path, dataset, self.settings, payload))

    def name_of(self, dataset: Dataset, kind: str = "") -> str:
        """The name of a store of a data set: other data, other graph parameters or another kind have another."""
        s = self.settings
        name = f"{dataset.name}-{len(dataset.base)}-{dataset.fingerprint}-M{s.M}-ef{s.ef_construction}"
        return f"{name}-{kind}.sim" if kind else f"{name}.sim"

    def fresh(self, name: str) -> Path:
        """A path in the work folder where nothing is."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        return path


Case = Callable[[Context], Iterator[Row]]


@contextmanager
def working(settings: Settings) -> Iterator[Context]:
    """A context whose stores are removed at the end, unless --keep was given."""
    parent = settings.workdir
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    if settings.keep:
        folder = (parent or Path(tempfile.gettempdir())) / "simstore-bench"
        folder.mkdir(exist_ok=True)
        yield Context(settings, folder)
        return
    with tempfile.TemporaryDirectory(prefix="simstore-bench-", dir=parent) as name:
        yield Context(settings, Path(name))
