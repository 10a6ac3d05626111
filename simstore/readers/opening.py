"""From what a user names as a data set to readers of it."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from simstore.errors import InvalidArgumentError, RejectedError, SourceError
from simstore.readers.compression import bare_name
from simstore.readers.datasets import DatasetReader, is_dataset
from simstore.readers.examples import ExampleReader
from simstore.readers.file_readers import file_reader
from simstore.readers.files import check_regular, shown, stat_of
from simstore.readers.globs import is_pattern
from simstore.readers.image_files import ImageReader, image_head
from simstore.readers.image_formats import image_format, looks_like_image
from simstore.readers.options import ReadOptions
from simstore.readers.patterns import pattern_readers
from simstore.readers.reader import Example, Reader
from simstore.readers.sniffing import format_of
from simstore.readers.store_folders import store_around
from simstore.readers.walking import Found, FoundFile, walk

__all__ = ["open_sources"]

_LOOKED_AT = 10_000  # files of a folder without images that are counted to say what it holds instead

Source = str | Path | Reader | Iterable[Example] | Callable[[], Iterable[Example]]


def open_sources(sources: Any, options: ReadOptions | None = None) -> list[Reader]:
    """Readers of a data set, or of several.

    A file is read by what it holds, whatever it is called; a folder stands for the images in it and below; a pattern may
    hold ``*``, ``?``, ``[abc]`` and ``**``.

    Args:
        sources: A path or pattern, a Reader, a tf.data.Dataset, an iterable of Example or a function that returns one; or
            a list of these.
        options: How to read them.

    Raises:
        SourceError: There is no such file, nothing in it can be read, a column is not there, or it is a simstore store.
        InvalidArgumentError: An option is not allowed.
        PackageMissingError: A package for this format is not installed.

    Example:
        >>> open_sources(["photos", "texts/*.csv.gz"], ReadOptions(label_from="parent"))  # doctest: +SKIP
    """
    options = options or ReadOptions()
    listed = list(sources) if isinstance(sources, (list, tuple)) and not _are_examples(sources) else [sources]
    if not listed:
        raise SourceError("no source was given: name a file, a folder or a pattern")
    return [reader for source in listed for reader in _opened(source, options)]


def _are_examples(sources: Any) -> bool:
    return bool(sources) and all(isinstance(source, Example) for source in sources)


def _opened(source: Any, options: ReadOptions) -> list[Reader]:
    if isinstance(source, (str, bytes, os.PathLike)):
        return _opened_path(os.fsdecode(source), options)
    if isinstance(source, Reader):
        return [source]
    if is_dataset(source):
        return [DatasetReader(source, options)]
    if callable(source) or isinstance(source, Iterable):
        return [ExampleReader(source, options)]
    raise InvalidArgumentError(
        f"a source is a path, a pattern, a Reader, a tf.data.Dataset or an iterable of Example, not {type(source).__name__}"
    )


def _opened_path(given: str, options: ReadOptions) -> list[Reader]:
    if not given:
        raise SourceError("an empty path was given: name a file, a folder or a pattern, as . for this folder")
    if "\0" in given:
        raise SourceError(f"{given!r} is no path: it holds a NUL byte")
    path = os.path.abspath(given)
    try:
        if not os.path.lexists(path) and is_pattern(given):
            return pattern_readers(path, options)
        if (store := store_around(path)) is not None:
            raise SourceError(f"{shown(given)} lies in the simstore directory {shown(store)}: export it, and index the export")
        if os.path.isdir(path):
            return [_folder(path, options)]
        return [_file(path, options)]
    except RejectedError as err:
        what = "there is no such file" if err.reason == "vanished" else str(err)
        raise SourceError(f"{shown(given)}: {what}" if err.reason == "vanished" else what) from err


def _file(path: str, options: ReadOptions) -> Reader:
    status = stat_of(path)
    check_regular(path, status)
    format = options.format or format_of(path)
    return file_reader(format, path, [FoundFile(path, os.path.basename(path), status)], options)


def _folder(path: str, options: ReadOptions) -> Reader:
    if options.format not in (None, "images"):
        raise SourceError(
            f"{shown(path)} is a folder: give a pattern, as '{path}/**/*', to read files of format {options.format}"
        )

    if not any(_is_image(one) for one in islice(walk(path, note=lambda path, why: None), _LOOKED_AT)):
        raise SourceError(_what_else(path))
    return ImageReader(path, lambda note: walk(path, note=note), options)


def _is_image(one: Found) -> bool:
    """Whether a reader of images has something to tell of it."""
    if not isinstance(one, FoundFile) or looks_like_image(one.path):
        return True
    try:
        return image_format(image_head(one.path)) is not None
    except RejectedError:
        return True


def _what_else(path: str) -> str:
    """What a folder without images holds, and how to ask for that."""
    found = islice(walk(path, note=lambda path, why: None), _LOOKED_AT)
    suffixes = Counter(os.path.splitext(bare_name(one.path))[1] for one in found if isinstance(one, FoundFile))
    if not suffixes:
        return f"{shown(path)} holds no files"
    held = ", ".join(f"{n} {suffix or 'without a suffix'}" for suffix, n in suffixes.most_common(4))
    likely = suffixes.most_common(1)[0][0]
    return f"{shown(path)} holds no images, but {held}: give a pattern, as '{path}/**/*{likely}*', to read those"
