"""A reader of files that hold rows: CSV, JSON Lines, plain lines, Parquet, TFRecord."""

from collections.abc import Callable, Iterator, Sequence

from simstore.errors import RejectedError
from simstore.readers.columns import Columns
from simstore.readers.files_reader import FilesReader
from simstore.readers.images import import_pillow
from simstore.readers.json_rows import Row
from simstore.readers.options import ReadOptions
from simstore.readers.reader import Batch, SourceFile
from simstore.readers.row_batches import Gatherer
from simstore.readers.row_examples import RowExamples
from simstore.readers.walking import FoundFile

__all__ = ["ReadRows", "RowReader"]

ReadRows = Callable[[str], Iterator[Row | RejectedError]]
"""Called as read(path): the rows of a file. Raises RejectedError where the rest cannot be read."""


class RowReader(FilesReader):
    """Rows that are read one by one.

    Args:
        source, files, format, options: See FilesReader.
        columns: What is in which column.
        read: Reads the rows of a file.

    Raises:
        PackageMissingError: They are images, and Pillow is not installed.
    """

    def __init__(
        self, source: str, files: Sequence[FoundFile], *, columns: Columns, read: ReadRows, format: str, options: ReadOptions
    ) -> None:
        if columns.kind == "image":
            import_pillow()
        super().__init__(source, files, format=format, input_kind=columns.kind, options=options, guesses=columns.guesses)
        self._columns, self._read, self._options = columns, read, options

    def batches(self, size: int) -> Iterator[Batch]:
        """The rows, file by file, at most size at once."""
        self._examples = RowExamples(self._columns, self._options)
        return super().batches(size)

    def _file_batches(self, one: FoundFile, file: SourceFile, size: int) -> Iterator[Batch]:
        rows, examples, label = Gatherer(file, size, self.input_kind), self._examples, self._label_of(one)
        failed: RejectedError | None = None
        try:
            for row in self._read(one.path):
                key, example = examples.example(row, key=f"{one.key}#{rows.row}", label=label)
                rows.put(example, key)
                if rows.is_full:
                    yield rows.take()
        except RejectedError as err:
            failed = err
        last = rows.end(failed)
        if last is not None:
            yield last
