"""Readers of what a pattern of paths names: one for each format."""

from collections.abc import Callable, Iterator, Sequence

from simstore.errors import RejectedError, SourceError
from simstore.readers.file_readers import file_reader
from simstore.readers.files import shown, source_file
from simstore.readers.globs import fixed_folder, matches
from simstore.readers.image_files import ImageReader
from simstore.readers.image_formats import looks_like_image
from simstore.readers.noting import NoteBook
from simstore.readers.options import ReadOptions
from simstore.readers.reader import Batch, InputKind, Notes, Reader, Refused, RowBatch, SourceFile
from simstore.readers.sniffing import format_of
from simstore.readers.store_folders import store_around
from simstore.readers.walking import Found, FoundFile, Note

__all__ = ["pattern_readers"]


class _WithRefused:
    """A reader that also tells of files that no reader could be made for.

    Args:
        reader: Reads the rest.
        refused: These files.
        book: What was passed over.
    """

    def __init__(self, reader: Reader, refused: Sequence[Refused], book: NoteBook) -> None:
        self.source = reader.source
        self.format = reader.format
        self.input_kind: InputKind = reader.input_kind
        self.n_examples = reader.n_examples
        self._reader, self._refused, self._book = reader, refused, book

    def notes(self) -> Notes:
        """What was guessed and what was passed over."""
        guesses, ignored = self._reader.notes()
        return Notes(guesses, self._book.notes().ignored + ignored)

    def batches(self, size: int) -> Iterator[Batch]:
        """The files that could not be read, then all others."""
        for first in range(0, len(self._refused), size):
            yield RowBatch(SourceFile("", 0, 0), [], [], [], [], [], tuple(self._refused[first : first + size]))
        yield from self._reader.batches(size)


class _Sorted:
    """The files that a pattern names, by their format; images are only counted, since they may be very many."""

    def __init__(self, pattern: str, options: ReadOptions) -> None:
        self.book = NoteBook()
        self.has_images = False
        self.files: dict[str, list[FoundFile]] = {}
        self.refused: list[Refused] = []
        self.n_files = 0
        for one in matches(pattern, note=self.book.ignore):
            self.n_files += 1
            if isinstance(one, Refused):
                self.refused.append(one)
            else:
                self._sort_in(one, options)

    def _sort_in(self, one: FoundFile, options: ReadOptions) -> None:
        if options.format is None and looks_like_image(one.path):
            self.has_images = True
            return
        try:
            format = options.format or format_of(one.path)
        except (RejectedError, SourceError) as err:
            self.refuse(one, err)
            return
        if format == "images":
            self.has_images = True
        else:
            self.files.setdefault(format, []).append(one)

    def leave_out_texts(self) -> None:
        """Passes over plain texts beside other formats: a README is not meant by a pattern for data."""
        if self.has_images or len(self.files) > 1:
            for one in self.files.pop("lines", []):
                self.book.ignore(one.path, "plain text beside other formats: name it by a pattern of its own")

    def refuse(self, one: FoundFile, err: Exception) -> None:
        """Remembers why a file is not read."""
        reason = err.reason if isinstance(err, RejectedError) else "unknown format"
        self.refused.append(Refused(source_file(one.path, one.status), None, one.key, reason, str(err)))


def pattern_readers(pattern: str, options: ReadOptions) -> list[Reader]:
    """Readers of what a pattern names, one for each format, images first.

    Args:
        pattern: Absolute.

    Raises:
        SourceError: Nothing that it names can be read.
    """
    root = fixed_folder(pattern)
    if (store := store_around(root)) is not None:
        raise SourceError(f"{shown(pattern)} lies in the simstore directory {shown(store)}: export it, and index the export")
    found = _Sorted(pattern, options)
    found.leave_out_texts()
    readers = [reader for format in found.files if (reader := _opened(format, pattern, found, options)) is not None]
    if found.has_images:
        images = ImageReader(pattern, _images(pattern, found), options)
        return [_WithRefused(images, (), found.book), *readers]
    if not readers:
        raise SourceError(_nothing(pattern, found))
    return [_WithRefused(readers[0], found.refused, found.book), *readers[1:]]


def _opened(format: str, pattern: str, found: _Sorted, options: ReadOptions) -> Reader | None:
    """A reader of the files of one format, of which the first that can be opened tells the columns."""
    files = found.files[format]
    for i, one in enumerate(files):
        try:
            return file_reader(format, pattern, files[i:], options)
        except RejectedError as err:
            found.refuse(one, err)
    return None


def _images(pattern: str, found: _Sorted) -> Callable[[Note], Iterator[Found]]:
    """What finds the images anew, at each reading, with all that is refused."""
    read_by_others = {one.path for files in found.files.values() for one in files}
    refused = {one.file.path: one for one in found.refused}

    passed_over = {path for path, _ in found.book.notes().ignored}

    def find(note: Note) -> Iterator[Found]:
        for one in matches(pattern, note=lambda path, why: None):  # noted already
            path = one.file.path if isinstance(one, Refused) else one.path
            if path in refused:
                yield refused[path]
            elif path not in read_by_others and path not in passed_over:
                yield one

    return find


def _nothing(pattern: str, found: _Sorted) -> str:
    if not found.n_files:
        ignored = "".join(f"; {shown(path)} is {why}" for path, why in found.book.notes().ignored[:1])
        return f"{shown(pattern)} names no file (quote it, so that ** is not the shell's){ignored}"
    return f"{shown(pattern)}: none of {found.n_files} files can be read; the first: {found.refused[0].message}"
