"""A reader of tf.data.Dataset. TensorFlow is not imported: whoever has such a data set has done it."""

from collections.abc import Iterator
from typing import Any

from simstore.errors import RejectedError, SourceError
from simstore.readers.columns import ColumnType, choose_columns
from simstore.readers.json_rows import Row
from simstore.readers.options import ReadOptions
from simstore.readers.reader import Batch, Notes, SourceFile
from simstore.readers.row_batches import Gatherer
from simstore.readers.row_examples import RowExamples

__all__ = ["DatasetReader", "is_dataset"]


def is_dataset(source: Any) -> bool:
    """Whether something is a tf.data.Dataset."""
    return hasattr(source, "element_spec") and hasattr(source, "as_numpy_iterator")


class DatasetReader:
    """The examples of a tf.data.Dataset of x, (x, y) or dicts, batched or not.

    Keys are in a column, or "dataset#number": the number means the same example in each run only if the data set comes in
    the same order, so do not shuffle it.

    Args:
        dataset: Its elements are tensors; x and y are the columns "x" and "y".
        options: How to read them.

    Raises:
        SourceError: Its elements are something else, or there is no such column.
    """

    format = "dataset"

    def __init__(self, dataset: Any, options: ReadOptions) -> None:
        self.source = options.name or "dataset"
        self._dataset, self._options = dataset, options
        specs = _columns(dataset.element_spec)
        if not specs or not all(hasattr(spec, "dtype") and hasattr(spec, "shape") for spec in specs.values()):
            raise SourceError(
                f"{self.source}: elements that are x, (x, y) or a dict of tensors were expected: {dataset.element_spec}"
            )
        shapes = {name: None if spec.shape.rank is None else tuple(spec.shape) for name, spec in specs.items()}
        self._is_batched = _is_batched(shapes) if options.batched is None else options.batched
        types = {name: _type(specs[name].dtype.name, shape, self._is_batched) for name, shape in shapes.items()}
        self._choice = choose_columns(types, options, self.source)
        self.input_kind = self._choice.kind
        self.n_examples = self._count()

    def _count(self) -> int | None:
        n = int(self._dataset.cardinality())
        return None if n < 0 or self._is_batched else n

    def notes(self) -> Notes:
        """Which columns were guessed."""
        return Notes(self._choice.guesses, ())

    def batches(self, size: int) -> Iterator[Batch]:
        """The examples, at most size at once."""
        rows = Gatherer(SourceFile("", 0, 0), size, self.input_kind)
        examples = RowExamples(self._choice, self._options)
        for row in self._rows():
            key, example = examples.example(row, key=f"{self.source}#{rows.row}", label=None)
            rows.put(example, key)
            if rows.is_full:
                yield rows.take()
        last = rows.end()
        if last is not None:
            yield last

    def _rows(self) -> Iterator[Row | RejectedError]:
        for element in self._dataset.as_numpy_iterator():
            columns = _columns(element)
            if not self._is_batched:
                yield self._row(columns)
                continue
            for i in range(len(next(iter(columns.values())))):
                yield self._row({name: column[i] for name, column in columns.items()})

    def _row(self, columns: dict[str, Any]) -> Row | RejectedError:
        try:
            return {name: self._plain(name, value) for name, value in columns.items()}
        except UnicodeDecodeError as err:
            return RejectedError("not UTF-8", f"a text is no UTF-8: {err.reason} at {err.start}")

    def _plain(self, name: str, value: Any) -> Any:
        """A value as Python's own, where it is a single one."""
        if isinstance(value, bytes):
            return value if name == self._options.image_column else value.decode()
        return value.item() if getattr(value, "ndim", None) == 0 else value


def _columns(element: Any) -> dict[str, Any]:
    """The parts of an element, or of its spec, by name."""
    if isinstance(element, dict):
        return element
    if isinstance(element, tuple):
        return dict(zip(("x", "y", "weight"), element, strict=False))
    return {"x": element}


def _is_batched(shapes: dict[str, tuple[int | None, ...] | None]) -> bool:
    """Whether a first axis is that of a batch: all parts have it, of the same or of no fixed length, and one has no other."""
    known = [shape for shape in shapes.values() if shape is not None]
    if not known or not all(known):  # a single value: elements are examples
        return False
    firsts = {shape[0] for shape in known}
    return len(firsts) == 1 and (None in firsts or len(known) > 1)


def _type(dtype: str, shape: tuple[int | None, ...] | None, is_batched: bool) -> ColumnType:
    rank = None if shape is None else len(shape) - is_batched
    if dtype == "string":
        return "text" if rank in (0, None) else "other"
    if rank is None:
        return "array"
    return "number" if rank == 0 else "vector" if rank == 1 else "array"
