"""A reader of files that hold rows: CSV, JSON Lines, plain lines, Parquet, TFRecord."""

from collections.abc import Callable, Iterator, Sequence

from simstore.errors import RejectedError
from simstore.readers.columns import Columns
from simstore.readers.files import check_regular, source_file, stat_of
from simstore.readers.json_rows import Row
from simstore.readers.noting import NoteBook
from simstore.readers.options import ReadOptions
from simstore.readers.path_labels import no_label, path_label
from simstore.readers.reader import Batch, InputKind, Notes, Refused, RowBatch, SourceFile
from simstore.readers.row_batches import Gatherer
from simstore.readers.row_examples import RowExamples
from simstore.readers.walking import FoundFile

__all__ = ["RowReader", "fresh", "unreadable"]

ReadRows = Callable[[str], Iterator[Row | RejectedError]]
"""Called as read(path): the rows of a file. Raises RejectedError where the rest cannot be read."""


class RowReader:
    """Rows in files, each one an example; keys are in a column, or "file#row".

    Args:
        source: The file or pattern, absolute.
        files: The files, in their order.
        columns: What is in which column.
        read: Reads the rows of a file.
        format: One of FORMATS.
        options: How to read them.
        n_examples: How many there are, if that is known.
        notes: What has been guessed and ignored so far.
    """

    def __init__(
        self,
        source: str,
        files: Sequence[FoundFile],
        *,
        columns: Columns,
        read: ReadRows,
        format: str,
        options: ReadOptions,
        n_examples: int | None = None,
        notes: NoteBook | None = None,
    ) -> None:
        self.source = source
        self.format = format
        self.input_kind: InputKind = columns.kind
        self.n_examples = n_examples
        self._files, self._columns, self._read, self._options = files, columns, read, options
        self._label = path_label(options.label_from, default=no_label)
        self._book = notes or NoteBook()
        for guess in columns.guesses:
            self._book.guess(guess)

    def notes(self) -> Notes:
        """Which columns were guessed."""
        return self._book.notes()

    def batches(self, size: int) -> Iterator[Batch]:
        """The rows, file by file, at most size at once."""
        examples = RowExamples(self._columns, self._options)
        for one in self._files:
            try:
                rows = Gatherer(fresh(one), size, self.input_kind)
            except RejectedError as err:
                yield unreadable(source_file(one.path, one.status), one.key, err)
            else:
                yield from self._file_batches(one, rows, examples)

    def _file_batches(self, one: FoundFile, rows: Gatherer, examples: RowExamples) -> Iterator[Batch]:
        failed: RejectedError | None = None
        label = self._label(one.path, one.key)
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


def fresh(one: FoundFile) -> SourceFile:
    """A file's size and time as they are now.

    Raises:
        RejectedError: It is gone, or no file any more.
    """
    status = stat_of(one.path)
    check_regular(one.path, status)
    return source_file(one.path, status)


def unreadable(file: SourceFile, key: str, err: RejectedError) -> RowBatch:
    """A batch without rows, for a file of which nothing can be read."""
    return RowBatch(file, [], [], [], [], [], (Refused(file, None, key, err.reason, str(err)),))
