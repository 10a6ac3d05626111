"""The index of a model: a store, with the distance by which its items are compared."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import simstore
from simstore.embedders import Embedder
from simstore.errors import (
    DimensionError,
    EmbedderMismatchError,
    InvalidArgumentError,
)
from simstore.similarity import calibration, distances
from simstore.similarity.calibration import Calibration
from simstore.similarity.distances import Distance
from simstore.similarity.evaluators import Neighbors
from simstore.similarity.matchers import ClassificationMatch, matcher_again
from simstore.similarity.replacing import bring_back, check_replaceable, put_in_place
from simstore.similarity.types import Lookup
from simstore.storage import DATA_FILE
from simstore.storage.encoding import plain_value
from simstore.storage.files import temporary_name
from simstore.store import Store
from simstore.types import Hits, Key

__all__ = ["Index"]

Vectors = NDArray[np.float32]

_OF_METRIC = {"cosine": "cosine", "l2": "euclidean", "ip": "inner_product"}


class Index:
    """A store whose vectors are all of one model.

    A lasting store remembers the model as its embedder, and keeps it. A temporary one goes with the Index.

    Attributes:
        distance: By which items are compared, and what lookups show.
        calibration: The thresholds found last, if any; kept in the store's directory.
        matcher: What they were found with, None if it is one that only its caller can make again.
    """

    def __init__(self, store: Store, distance: Distance, *, temporary: Path | None = None, closes: bool = False) -> None:
        # The store stands in a list alone, for the finalizer to drop the last reference: a store that nobody holds is closed
        # without building graphs over its newest items, which close() would do.
        self._holder = [store]
        self.distance = distance
        self.directory = Path(store.info().path)
        found = self.calibration = calibration.read(self.directory)
        self.matcher = None if found is None else matcher_again(found.matcher, found.matcher_config)
        self.is_temporary = temporary is not None
        self._closes = closes
        self._made_by: str | None = None
        if temporary is not None:
            weakref.finalize(self, _drop, self._holder, temporary)

    @classmethod
    def temporary(cls, dim: int, distance: Distance, *, background: bool = True) -> "Index":
        """A new one in a directory of its own, which is removed when the Index goes.

        Raises:
            InvalidArgumentError: The distance cannot be an index.
        """
        metric = metric_of(distance)
        directory = Path(tempfile.mkdtemp(prefix="simstore-index-"))
        store = simstore.open(directory / "index.sim", dim=dim, metric=metric, background=background)
        return cls(store, distance, temporary=directory)

    @classmethod
    def lasting(cls, store: Any, dim: int, distance: Distance | None) -> "Index":
        """One on a store that stays.

        Args:
            store: An open Store, or the path of one, which is made if it is not there.
            dim: The width of the model's embeddings.
            distance: None for that which the store's metric stands for.

        Raises:
            DimensionError, InvalidArgumentError: The store's vectors have another width; its metric is another; nobody knows
                which model its items are of.
        """
        opens = not isinstance(store, Store)
        if opens:
            store = _opened(store, dim, distance)
        try:
            return cls(store, _agreed_distance(store, dim, distance), closes=opens)
        except BaseException:
            if opens:
                store.close()
            raise

    @classmethod
    def copied(cls, path: Any, dim: int, distance: Distance | None) -> "Index":
        """A temporary one with what the store at a path holds. Errors as in lasting."""
        source = Path(os.path.abspath(path))
        bring_back(source)
        directory = Path(tempfile.mkdtemp(prefix="simstore-index-"))
        try:
            with simstore.open(source, mode="r") as store:
                distance = _agreed_distance(store, dim, distance)
                store.backup(directory / "index.sim")
            return cls(simstore.open(directory / "index.sim"), distance, temporary=directory)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    @property
    def store(self) -> Store:
        """Where the items are."""
        return self._holder[0]

    @property
    def made_by(self) -> str | None:
        """The fingerprint of the model that made the vectors, None as long as there are none."""
        if not len(self.store):
            return None
        spec = self.store.embedder
        return self._made_by if spec is None else spec.fingerprint

    def check_made_by(self, fingerprint: str, name: str) -> None:
        """Raises EmbedderMismatchError unless the vectors are those of the model of that fingerprint."""
        made_by = self.made_by
        if made_by not in (None, fingerprint):
            raise EmbedderMismatchError(
                f"the index holds {len(self.store)} embeddings of another model than {name!r} is now (fingerprint {made_by} "
                f"there, {fingerprint} here), and the two cannot be compared. Was it trained since? reset_index() and index "
                "again; or, if the items' data are the model's inputs, model.store.reembed(model.embedder())"
            )

    # -- items --

    def add(
        self, vectors: Vectors, labels: list[Any] | None, data: Sequence[Any] | None, keys: Any, made_by: str,
        embedder: Callable[[], Embedder],
    ) -> list[Key]:  # fmt: skip
        """Adds items, all or none, and those of keys that are there are replaced. Returns their keys.

        Args:
            made_by: The model's fingerprint.
            embedder: Makes the embedder that an empty lasting store is to keep.
        """
        spec = self.store.embedder
        if self.is_temporary and spec is None:
            self._made_by = made_by
        elif not len(self.store) and (spec is None or spec.fingerprint != made_by):
            self.store.reembed(embedder())
        if keys is None:
            return self.store.add(None, vectors, labels=labels, data=data)
        named = [keys] if isinstance(keys, (str, int)) else list(keys)
        self.store.upsert(named, vectors, labels=labels, data=data)
        return [plain_value(key) for key in named]

    def lookups(self, vectors: Vectors, k: int) -> list[list[Lookup]]:
        """The k nearest items of each vector [n, dim]; fewer if there are fewer."""
        if len(vectors) == 1:
            return [self._as_lookups(self.store.search(vectors[0], k, with_vectors=True))]
        return [self._as_lookups(hits) for hits in self.store.search_many(vectors, k, with_vectors=True)]

    def _as_lookups(self, hits: Hits) -> list[Lookup]:
        shown = self.distance.of_metric(hits.distances).tolist()
        return [
            Lookup(hit.rank + 1, hit.key, distance, hit.label, hit.vector, hit.data)
            for hit, distance in zip(hits, shown, strict=True)
        ]

    def neighbors(self, vectors: Vectors, k: int, *, exact: bool = False) -> Neighbors:
        """Labels and distances of the k nearest items of each vector [n, dim]."""
        hits = self.store.search_many(vectors, k, exact=exact)
        return Neighbors(hits.labels, self.distance.of_metric(hits.distances))

    def calibration_of(self, made_by: str) -> Calibration | None:
        """The calibration, if it holds for the model of that fingerprint and this distance."""
        found = self.calibration
        holds = found is not None and (found.made_by, found.distance) == (made_by, self.distance.name)
        return found if holds else None

    def calibrate(self, found: Calibration, matcher: ClassificationMatch) -> None:
        """Keeps a calibration, and here the matcher that it was found with."""
        self.store.delete([])  # refuses a store that was opened to be read
        calibration.write(found, self.directory)
        self.calibration, self.matcher = found, matcher

    def clear(self) -> None:
        """Removes all items of a lasting store, and the calibration."""
        self.store.delete([item.key for item in self.store])
        calibration.forget(self.directory)
        self.calibration = self.matcher = None

    # -- files --

    def save(self, path: Any, embedder: Embedder) -> None:
        """Writes a copy, which is a store of its own that knows its embedder, in the place of an earlier one.

        Raises:
            StoreExistsError: There is something else at the path.
            AlreadyOpenError: This process has the store there open.
            StorageFullError, StorageError: It could not be written; what was there is as it was.
        """
        target = Path(os.path.abspath(path))
        if target == self.directory:
            return  # it is there, and every call that returned is on the disk
        bring_back(target)
        if os.path.lexists(target):
            check_replaceable(target)
        aside = target.parent / temporary_name()
        try:
            self.store.backup(aside)
            with simstore.open(aside, embedder=embedder, background=False):
                pass
            put_in_place(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def close(self) -> None:
        """Closes the store if it was opened here."""
        if self._closes:
            self.store.close()


def metric_of(distance: Distance) -> str:
    """The store's metric of a distance.

    Raises:
        InvalidArgumentError: It has none.
    """
    if distance.metric is None:
        able = ", ".join(repr(one.name) for one in distances.DISTANCES if one.metric is not None)
        raise InvalidArgumentError(
            f"the distance {distance.name!r} has no index: train with it, and give one of {able} for the index, as in "
            "create_index(distance='cosine') or compile(…, distance='cosine')"
        )
    return distance.metric


def _opened(path: Any, dim: int, distance: Distance | None) -> Store:
    """The store at a path, whatever it is; where there is none, one that fits."""
    if isinstance(path, (str, os.PathLike)):
        bring_back(Path(path))
    options: dict[str, Any] = {} if distance is None else {"metric": metric_of(distance)}
    try:
        return simstore.open(path, dim=dim, **options)
    except (InvalidArgumentError, DimensionError):
        if not isinstance(path, (str, os.PathLike)) or not Path(path, DATA_FILE).exists():
            raise
    return simstore.open(path)  # what does not fit is told by _agreed_distance, which knows the model


def _agreed_distance(store: Store, dim: int, distance: Distance | None) -> Distance:
    info = store.info()
    if info.dim is not None and info.dim != dim and info.count:
        raise DimensionError(f"the model makes embeddings of {dim} numbers; the store {info.path} holds vectors of {info.dim}")
    if info.embedder is None and info.count:
        raise InvalidArgumentError(
            f"the store {info.path} does not say which model its {info.count} vectors are of. If it is this one, open it with "
            "simstore.open(path, embedder=model.embedder()), and attach that"
        )
    distance = distances.get(_OF_METRIC[info.metric]) if distance is None else distance
    if metric_of(distance) != info.metric:
        raise InvalidArgumentError(
            f"the model's distance is {distance.name!r}, which takes a store of metric {distance.metric!r}; {info.path} has "
            f"{info.metric!r}: give the model a distance of that metric, as in compile(…, distance={_OF_METRIC[info.metric]!r})"
        )
    return distance


def _drop(holder: list[Store], directory: Path) -> None:
    holder.clear()
    shutil.rmtree(directory, ignore_errors=True)
