"""What the readers of files of rows share: the files in turn, each as it is when its turn comes."""

from collections.abc import Iterator, Sequence

from simstore.errors import RejectedError
from simstore.readers.files import check_regular, source_file, stat_of
from simstore.readers.options import ReadOptions
from simstore.readers.path_labels import no_label, path_label
from simstore.readers.reader import Batch, InputKind, Notes, Refused, RowBatch, SourceFile
from simstore.readers.walking import FoundFile
from simstore.types import Label

__all__ = ["FilesReader", "unreadable"]


class FilesReader:
    """Rows in files, each one an example; keys are in a column, or "file#row".

    Args:
        source: The file or pattern, absolute.
        files: The files, in their order.
        format: One of FORMATS.
        input_kind: What the rows are.
        options: How to read them.
        guesses: What was guessed, a sentence each.
        n_examples: How many there are, if that is known.
    """

    def __init__(
        self,
        source: str,
        files: Sequence[FoundFile],
        *,
        format: str,
        input_kind: InputKind,
        options: ReadOptions,
        guesses: Sequence[str] = (),
        n_examples: int | None = None,
    ) -> None:
        self.source = source
        self.format = format
        self.input_kind: InputKind = input_kind
        self.n_examples = n_examples
        self._files, self._guesses = files, tuple(guesses)
        self._label = path_label(options.label_from, default=no_label)

    def notes(self) -> Notes:
        """What was guessed."""
        return Notes(self._guesses, ())

    def batches(self, size: int) -> Iterator[Batch]:
        """The rows, file by file, at most size at once."""
        for one in self._files:
            try:
                status = stat_of(one.path)
                check_regular(one.path, status)
            except RejectedError as err:
                yield unreadable(source_file(one.path, one.status), one.key, err)
            else:
                yield from self._file_batches(one, source_file(one.path, status), size)

    def _file_batches(self, one: FoundFile, file: SourceFile, size: int) -> Iterator[Batch]:
        """The rows of one file."""
        raise NotImplementedError

    def _label_of(self, one: FoundFile) -> Label:
        """The label of the rows of a file that has no column for them."""
        return self._label(one.path, one.key)


def unreadable(file: SourceFile, key: str, err: RejectedError) -> RowBatch:
    """A batch without rows, for a file of which nothing can be read."""
    return RowBatch(file, [], [], [], [], [], (Refused(file, None, key, err.reason, str(err)),))
