"""Writing: add, upsert, update, delete."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, TypeVar

from simstore.errors import DimensionError, EmbedderMismatchError, InvalidArgumentError, InvalidVectorError
from simstore.index import prepared
from simstore.metrics import METRICS
from simstore.store import arguments, opening
from simstore.store.base import StoreBase
from simstore.store.core import Core
from simstore.store.request import OutdatedError
from simstore.store.writer import UNCHANGED, Writer
from simstore.types import Counts, Key
from simstore.where import Where, where_of

__all__ = ["Writing"]

T = TypeVar("T")


class Writing(StoreBase):
    """Everything that changes items."""

    def add(self, keys: Any, vectors: Any = None, *, inputs: Any = None, labels: Any = None, data: Any = None) -> list[Key]:
        """Adds new items, all or none; on the disk when it returns.

        Args:
            keys: A str or int for each item; None numbers them; one key alone adds one item.
            vectors: Numbers [n, dim].
            inputs: In place of vectors: n inputs for the store's embedder.
            labels: A str, int or None for each item.
            data: Anything msgpack can hold, with numpy arrays and datetimes, for each item. Tuples come back as lists,
                bytearrays as bytes, time zones as fixed offsets.

        Returns:
            The items' keys.

        Raises:
            KeyExistsError: A key is in the store already.
            InvalidKeyError, InvalidLabelError, InvalidDataError, InvalidVectorError, DimensionError, DuplicateKeyError,
            InvalidArgumentError: The first bad item is named; nothing was written.
            StorageFullError, StorageError: Nothing was written.
        """
        return self._put(Writer.add, keys, vectors, inputs, labels, data)

    def upsert(self, keys: Any, vectors: Any = None, *, inputs: Any = None, labels: Any = None, data: Any = None) -> Counts:
        """Adds items, replacing those whose key is in the store. Arguments and errors as in add.

        Returns:
            Counts(added, replaced).
        """
        return self._put(Writer.upsert, keys, vectors, inputs, labels, data)

    def update(self, keys: Any, *, labels: Any = UNCHANGED, data: Any = UNCHANGED) -> None:
        """Gives items another label or other data; the vector stays, and what is not given stays.

        Raises:
            KeyNotFoundError: A key is not in the store; nothing was written.
        """
        self._check_writable()
        if labels is UNCHANGED and data is UNCHANGED:
            raise InvalidArgumentError("update needs labels, data, or both")
        checked = arguments.keys_of(keys)
        single, n = arguments.is_single(keys), len(checked.plain)
        new_labels = None if labels is UNCHANGED else arguments.column("labels", labels, n, single)
        new_data = None if data is UNCHANGED else arguments.column("data", data, n, single)
        arguments.batch_of(checked, new_labels, new_data, n)  # refuses what cannot be stored
        self._run(lambda core: core.writer.update(checked, new_labels, new_data))

    def delete(
        self,
        keys: Any = None,
        *,
        where: Where | dict[str, Any] | None = None,
        missing: Literal["raise", "ignore"] = "raise",
    ) -> int:
        """Deletes items, by their keys or all that match a filter; all or none.

        Args:
            keys: A key, or a sequence of keys.
            where: In place of keys: a filter, as in search.
            missing: What a key that is not in the store does: "raise" or "ignore".

        Returns:
            How many were deleted.

        Raises:
            KeyNotFoundError: A key is not in the store; nothing was deleted.
            InvalidFilterError: The filter cannot be understood.
        """
        self._check_writable()
        if missing not in ("raise", "ignore"):
            raise InvalidArgumentError(f"missing is 'raise' or 'ignore', not {missing!r}")
        if (keys is None) == (where is None):
            raise InvalidArgumentError("delete takes keys, or where= for all items that match: one of them, not both")
        if where is not None:
            condition = where_of(where)
            return self._run(lambda core: core.writer.delete_where(core.views, core.filters, condition))
        checked = arguments.keys_of(keys)
        if not checked.plain:
            return 0
        return self._run(lambda core: core.writer.delete(checked, ignore_missing=missing == "ignore"))

    def _put(
        self, write: Callable[[Writer, arguments.NewItems], T], keys: Any, vectors: Any, inputs: Any, labels: Any, data: Any
    ) -> T:
        """write(writer, items), with vectors of the present embedder: made anew if the store goes over to another meanwhile."""
        keys = _listed(keys)
        if inputs is not None and not arguments.is_single(keys):
            inputs, labels, data = _listed(inputs), _listed(labels), _listed(data)
        while True:
            try:
                return self._run(partial(_written, write, self._new_items(keys, vectors, inputs, labels, data)))
            except OutdatedError:  # only inputs are embedded
                continue

    def _new_items(self, keys: Any, vectors: Any, inputs: Any, labels: Any, data: Any) -> arguments.NewItems:
        """What is to be written, valid."""
        self._check_writable()
        if (vectors is None) == (inputs is None):
            raise InvalidArgumentError("give vectors, or inputs for the store's embedder: one of them, not both")
        schema = self._schema() if inputs is None else self._view().schema  # a new view costs more than one item's write
        single = keys is not None and arguments.is_single(keys)
        named = None if keys is None else arguments.keys_of(keys)
        if named is not None and not named.plain and not _length(inputs if vectors is None else vectors):
            raise InvalidArgumentError("nothing to write: the batch is empty")
        if vectors is not None:
            try:
                checked = arguments.vectors_of(vectors, schema.dim, single=single)
            except DimensionError:  # unless another process has changed the width
                checked = arguments.vectors_of(vectors, self._view().schema.dim, single=single)
            batch = arguments.batch_of(named, labels, data, len(checked), single=single)
        else:
            given = [inputs] if single else arguments.sized("inputs", inputs)
            batch = arguments.batch_of(named, labels, data, len(given), single=single)
            checked = arguments.embedded(self._embedded(schema, given), len(batch), schema.dim)
        if checked.shape[1] > opening.MAX_DIM:
            raise InvalidVectorError(f"vectors of {checked.shape[1]} numbers: {opening.MAX_DIM} is the most")
        prepared(checked, METRICS[schema.metric], "vectors" if len(checked) == 1 else "vector")
        return arguments.NewItems(batch, checked, None if inputs is None else schema.fingerprint)


def _written(write: Callable[[Writer, arguments.NewItems], T], items: arguments.NewItems, core: Core) -> T:
    try:
        return write(core.writer, items)
    except EmbedderMismatchError:
        raise OutdatedError from None


def _listed(values: Any) -> Any:
    """What can be gone through once, as a list."""
    return list(values) if isinstance(values, Iterator) else values


def _length(values: Any) -> int:
    return len(values) if hasattr(values, "__len__") else 1
