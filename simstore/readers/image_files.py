"""A reader of images: the files of a folder, or of a pattern."""

import os
from collections.abc import Callable, Iterator
from typing import Literal

from simstore.errors import RejectedError, SourceError
from simstore.readers.compression import reading
from simstore.readers.files import open_regular, shown
from simstore.readers.image_formats import image_format, looks_like_image
from simstore.readers.images import decoded_image, import_pillow
from simstore.readers.noting import NoteBook
from simstore.readers.options import ReadOptions
from simstore.readers.path_labels import path_label, subfolder_label
from simstore.readers.reader import Batch, Decoded, FileBatch, Notes, Refused, SourceFile
from simstore.readers.walking import Found, FoundFile, Note
from simstore.types import Key, Label

__all__ = ["ImageReader", "image_head", "read_image"]

_MAX_BYTES = 1 << 29  # no image that fits into max_pixels is larger; a disk image called .png would fill the memory


class ImageReader:
    """Images in files, each one an example; keys are paths relative to the root.

    Args:
        source: The root, file or pattern, absolute.
        find: find(note) → the files, in a fixed order.
        options: How to read them.

    Raises:
        PackageMissingError: Pillow is not installed.
    """

    format = "images"
    input_kind: Literal["image"] = "image"

    def __init__(self, source: str, find: Callable[[Note], Iterator[Found]], options: ReadOptions) -> None:
        import_pillow()
        self.source = source
        self._find = find
        self._options = options
        self._label = path_label(options.label_from, default=subfolder_label)
        self._book = NoteBook()

    @property
    def n_examples(self) -> int | None:
        """How many files end like images: as many are examples, if all are what they seem to be."""
        if os.path.isdir(self.source):
            return sum(looks_like_image(name) for _, _, names in os.walk(self.source) for name in names)
        try:
            return sum(isinstance(one, FoundFile) and looks_like_image(one.path) for one in self._find(lambda path, why: None))
        except RejectedError:
            return None

    def notes(self) -> Notes:
        """That labels were taken from folders; and files that are no images."""
        return self._book.notes()

    def batches(self, size: int) -> Iterator[Batch]:
        """The images, at most size at once."""
        self._book.forget_ignored()
        found: list[FoundFile] = []
        refused: list[Refused] = []
        try:
            for one in self._find(self._book.ignore):
                if isinstance(one, Refused):
                    refused.append(one)
                else:
                    self._sort_in(one, found, refused)
                if len(found) == size or len(refused) == size:
                    yield self._batch(found, refused)
                    found, refused = [], []
        except RejectedError as err:
            raise SourceError(f"{shown(self.source)} cannot be read any more: {err}") from err
        if found or refused:
            yield self._batch(found, refused)

    def _sort_in(self, one: FoundFile, found: list[FoundFile], refused: list[Refused]) -> None:
        """Takes a file that ends like an image, or begins like one."""
        if looks_like_image(one.path):
            found.append(one)
            return
        try:
            head = image_head(one.path)
        except RejectedError as err:
            refused.append(Refused(_file(one), None, one.key, err.reason, str(err)))
            return
        if image_format(head) is None:
            self._book.ignore(one.path, "no image")
        else:
            found.append(one)

    def _batch(self, found: list[FoundFile], refused: list[Refused]) -> FileBatch:
        labels: list[Label] = [self._label(one.path, one.key) for one in found]
        if self._options.label_from is None and any(label is not None for label in labels):
            self._book.guess("labels are the names of the folders that images lie in")
        keys: list[Key] = [one.key for one in found]
        paths = [one.path for one in found]

        def read(i: int) -> bytes:
            return read_image(paths[i])

        def decode(i: int, content: bytes) -> Decoded:
            return decoded_image(content, self._options.image_input, max_pixels=self._options.max_pixels)

        return FileBatch([_file(one) for one in found], keys, labels, read, decode, tuple(refused))


def _file(one: FoundFile) -> SourceFile:
    return SourceFile(one.path, one.status.st_size, one.status.st_mtime_ns)


def image_head(path: str) -> bytes:
    """The first bytes of a file: image_format() tells what they are of.

    Raises:
        RejectedError: It cannot be read.
    """
    with open_regular(path) as file, reading(path):
        return file.read(32)


def read_image(path: str) -> bytes:
    """What an image file holds; of a file that is no image not more than its beginning is read.

    Raises:
        RejectedError: It cannot be read, is empty, no image or too large to be one.
    """
    with open_regular(path) as file, reading(path):
        head = file.read(32)
        if not head:
            raise RejectedError("empty", f"{shown(path)} holds nothing")
        if image_format(head) is None:
            raise RejectedError("no image", f"{shown(path)} begins with {head[:16]!r}, as no image that can be read here does")
        content = head + file.read(_MAX_BYTES - 32)
        if len(content) == _MAX_BYTES and file.read(1):
            raise RejectedError("file too large", f"{shown(path)} is larger than {_MAX_BYTES >> 20} MiB")
        return content
