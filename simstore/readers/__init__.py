"""Readers of data sets: images, texts, vectors, in files or in memory. Importing this package imports no library for them."""

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

__all__ = ["Batch", "Decoded", "Example", "FileBatch", "InputKind", "Notes", "Reader", "Refused", "RowBatch", "SourceFile"]
