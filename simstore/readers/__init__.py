"""Readers of data sets: images, texts, vectors, in files or in memory. Importing this package imports no library for them."""

from simstore.readers.image_formats import image_format
from simstore.readers.images import decode_image
from simstore.readers.opening import open_sources
from simstore.readers.options import ReadOptions
from simstore.readers.reader import (
    Batch,
    Decoded,
    Example,
    FileBatch,
    InputKind,
    Notes,
    Reader,
    Refused,
    RowBatch,
    SourceFile,
)

__all__ = [
    "Batch",
    "Decoded",
    "Example",
    "FileBatch",
    "InputKind",
    "Notes",
    "ReadOptions",
    "Reader",
    "Refused",
    "RowBatch",
    "SourceFile",
    "decode_image",
    "image_format",
    "open_sources",
]
