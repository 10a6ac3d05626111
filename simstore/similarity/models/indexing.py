"""What every similarity model can do with its index: fill it, look things up, save it."""

import logging
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from simstore.errors import InvalidArgumentError, PackageMissingError
from simstore.similarity.indexer import Index
from simstore.similarity.labels import labels_of
from simstore.similarity.models.has_index import HasIndex
from simstore.similarity.types import IndexSummary, Lookup
from simstore.types import Key

__all__ = ["Indexing"]

logger = logging.getLogger("simstore.similarity")

_MANY = 256  # examples: to embed so many costs more than to read the weights once


class Indexing(HasIndex):
    """An index that is filled, asked, and saved."""

    def index(
        self, x: Any, y: Any = None, data: Any = None, build: bool = True, verbose: int = 1, *, keys: Any = None
    ) -> list[Key]:
        """Indexes examples, all or none; the next lookup finds them.

        Args:
            x: A batch: an array [n, …], or a list of n. For a model of several inputs a list or tuple of such, one for each,
                or a dict by their names.
            y: Labels [n] or [n, 1]: int, str or None.
            data: What lookups are to give with each item: an array [n, …] or a sequence of n, of what msgpack can hold,
                arrays included; None for nothing.
            build: Without effect: nothing is ever rebuilt.
            verbose: 1 shows progress, and logs what is done.
            keys: A str or int for each; an item of a key that is there is replaced. None numbers them.

        Returns:
            The items' keys.

        Raises:
            EmbedderMismatchError: The index is of the model before it was trained on.
            InvalidVectorError: An embedding is not finite, or is zero with cosine distance.
            InvalidArgumentError, InvalidLabelError, InvalidKeyError, InvalidDataError: Shapes or values.
        """
        index = self._current_index()
        vectors = self._embedded(x, verbose)
        # What comes first into an index says of which weights all of it is
        index = self._current_index(surely=len(vectors) >= _MANY or not len(index.store))
        labels = None if y is None else labels_of(y, len(vectors)).tolist()
        added = index.add(vectors, labels, _rows_of(data), keys, self._fingerprint(), self.embedder)
        if verbose:
            logger.info("indexed %d items; the index holds %d", len(added), len(index.store))
        return added

    def index_single(
        self, x: Any, y: Any = None, data: Any = None, build: bool = True, verbose: int = 1, *, key: Key | None = None
    ) -> Key:
        """Indexes one example, at the cost of one small commit. Arguments and errors as in index, for one item.

        Returns:
            The item's key.
        """
        return self.index(
            self._embedding.alone(x),
            None if y is None else _alone(y),
            [data],
            build,
            verbose,
            keys=None if key is None else [key],
        )[0]

    def lookup(self, x: Any, k: int = 5, verbose: int = 1) -> list[list[Lookup]]:
        """The k nearest items of each example, closest first; fewer where there are fewer.

        Args:
            x: A batch, as in index.
            k: How many.
            verbose: 1 shows progress, and logs what is done.
        """
        index = self._current_index()
        found = index.lookups(self._embedded(x, verbose), k)
        if verbose:
            logger.info("looked up %d examples among %d items", len(found), len(index.store))
        return found

    def single_lookup(self, x: Any, k: int = 5) -> list[Lookup]:
        """The k nearest items of one example, closest first; fewer where there are fewer."""
        return self._current_index().lookups(self._embedding.of_one(x), k)[0]

    def index_size(self) -> int:
        """How many items the index holds."""
        return 0 if self._parts.index is None else len(self._parts.index.store)

    def index_summary(self) -> IndexSummary:
        """What the index is, to be printed.

        Raises:
            InvalidArgumentError: There is none yet.
        """
        index, now = self._existing, self._fingerprint(surely=True)
        made_by, stats, found = index.made_by, index.store.stats(), index.calibration_of(now)
        return IndexSummary(
            path=str(index.directory),
            is_temporary=index.is_temporary,
            size=len(index.store),
            distance=index.distance.name,
            dim=self._embedding.dim,
            made_by=made_by,
            is_current=made_by in (None, now),
            calibrated_by=None if found is None else found.metric,
            cutpoints={} if found is None else {name: found.threshold(name) for name in found.results.cutpoints},
            n_lookups=stats.searches,
            median_lookup_s=stats.latency_s(0.5),
        )

    def to_data_frame(self, num_items: int = 0) -> Any:
        """The index as a pandas DataFrame: key, label, embedding, data.

        Args:
            num_items: At most so many, in the order they were indexed; 0 for all.

        Raises:
            PackageMissingError: pandas is not installed.
            InvalidArgumentError: num_items is negative.
        """
        try:
            import pandas as pd
        except ImportError as err:
            raise PackageMissingError(f"to_data_frame needs pandas ({err}): pip install 'simstore[viz]'") from err
        if num_items < 0:
            raise InvalidArgumentError(f"num_items is at least 1, or 0 for all items, not {num_items!r}")
        items = () if self._parts.index is None else islice(self._parts.index.store.scan(), num_items or None)
        rows = [(item.key, item.label, item.vector, item.data) for item in items]
        return pd.DataFrame(rows, columns=["key", "label", "embedding", "data"])

    # -- files --

    def save(self, filepath: Any, *args: Any, save_index: bool = False, compression: bool = True, **kwargs: Any) -> None:
        """As in Keras: the model, without its index.

        Args:
            filepath, args, kwargs: See keras.Model.save.
            save_index, compression: TensorFlow Similarity's. An index is saved by save_index(path), to a path of its own.

        Raises:
            InvalidArgumentError: save_index=True.
        """
        if save_index:
            raise InvalidArgumentError(
                "save(path, save_index=True): an index has a path of its own here: save(path), and then save_index('….sim')"
            )
        super().save(filepath, *args, **kwargs)  # type: ignore[misc]

    def save_index(self, filepath: Any, compression: bool = True, *, with_model: bool = True) -> None:
        """Writes a copy of the index: a store, which simstore.open opens. An earlier one is replaced when the new one is whole.

        Args:
            filepath: A directory of its own; nothing but a store may be there.
            compression: Without effect.
            with_model: Save the model in it, too, so that it answers raw inputs by itself; False for a model that Keras cannot
                load again, which load_index needs beside it.

        Raises:
            StoreExistsError: Something else is at the path.
            EmbedderMismatchError: The index is of the model before it was trained on.
            StorageFullError, StorageError: It could not be written; what was there is as it was.
            InvalidArgumentError: Keras cannot load the model again; it has several inputs.
        """
        self._embedding.check_storable()
        self._current_index(surely=True).save(filepath, self.embedder(save=with_model))

    def load_index(self, filepath: Any) -> None:
        """Puts a copy of what save_index has written in the place of the index. ``attach`` uses the store itself.

        Raises:
            StoreNotFoundError, NotAStoreError: There is no store at the path.
            EmbedderMismatchError: It is of another model, or of this one with other weights.
        """
        self._embedding.check_storable()
        index = Index.copied(filepath, self._embedding.dim, self._parts.distance)
        index.check_made_by(self._fingerprint(surely=True), self.name)
        self._parts.distance = index.distance
        self._replace_index(index)


def _alone(label: Any) -> list[Any]:
    """Labels of one."""
    return [np.asarray(label) if hasattr(label, "__array__") else label]


def _rows_of(data: Any) -> Sequence[Any] | None:
    """One entry of data for each item; tensors become arrays."""
    if data is None:
        return None
    rows = np.asarray(data) if hasattr(data, "__array__") else data
    if isinstance(rows, (str, bytes, dict)) or not hasattr(rows, "__iter__"):
        raise InvalidArgumentError(f"data is a sequence with one entry for each item, not {type(data).__name__}")
    return [np.asarray(row) if hasattr(row, "__array__") and not isinstance(row, np.generic) else row for row in rows]
