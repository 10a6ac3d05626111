"""What a file of a store says of itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simstore.errors import SourceError
from simstore.reports import StoreInfo
from simstore.transfer.json_form import from_json, to_json
from simstore.types import EmbedderSpec, Key, Label

__all__ = ["Chunk", "Content", "FileInfo", "Lines", "info_of", "info_text", "read_info"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a file holds.

    Attributes:
        format: "parquet", "jsonl" or "npz".
        count: How many items.
        dim: How many numbers a vector has; None if the store never had one.
        metric, M, ef_construction, indexed_fields: The store's settings.
        embedder: What made the vectors; None if they were given.
    """

    format: str
    count: int
    dim: int | None
    metric: str
    M: int
    ef_construction: int
    indexed_fields: tuple[str | tuple[str | int, ...], ...]
    embedder: EmbedderSpec | None


class Lines(NamedTuple):
    """Items to be written. ``data`` is JSON text in the form of json_form; vectors are float32 [n, dim]."""

    keys: list[Key]
    labels: list[Label]
    data: list[str]
    vectors: NDArray[np.float32]


class Chunk(NamedTuple):
    """Items that were read; vectors are float32 [n, dim]."""

    keys: list[Key]
    labels: list[Label]
    data: list[Any]
    vectors: NDArray[np.float32]


class Content(Protocol):
    """An open file of a store."""

    info: FileInfo

    def chunks(self, *, decoding: bool = True) -> Iterator[Chunk]:
        """The items, from the first. Without decoding, chunks whose data are empty: to see whether the file is whole.

        Raises:
            SourceError: It is damaged.
        """
        ...

    def close(self) -> None:
        """Gives it back."""
        ...


def info_text(info: StoreInfo) -> str:
    """The settings of a store, as JSON."""
    embedder = info.embedder
    return json.dumps(
        {
            "version": VERSION,
            "dim": info.dim,
            "metric": info.metric,
            "M": info.M,
            "ef_construction": info.ef_construction,
            "indexed_fields": [to_json(list(path) if isinstance(path, tuple) else path) for path in info.indexed_fields],
            "embedder": None if embedder is None else [to_json(embedder.name), embedder.dim, embedder.fingerprint],
        }
    )


def read_info(path: Path, format: str, text: str | bytes) -> dict[str, Any]:
    """What info_text wrote.

    Raises:
        SourceError: It is something else, or of a newer version.
    """
    try:
        given = json.loads(text)
        version = int(given["version"])
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise SourceError(f"{path} is damaged: what it says of the store cannot be read ({err})") from err
    if version > VERSION:
        raise SourceError(f"{path} is of version {version}; this simstore reads up to {VERSION}: upgrade simstore")
    return {"format": format, **given}


def info_of(path: Path, given: dict[str, Any], count: int) -> FileInfo:
    """The FileInfo of what read_info gave.

    Raises:
        SourceError: Something is missing.
    """
    try:
        fields = [from_json(field) for field in given["indexed_fields"]]
        embedder = given["embedder"]
        return FileInfo(
            given["format"], count, given["dim"], given["metric"], given["M"], given["ef_construction"],
            tuple(tuple(field) if isinstance(field, list) else field for field in fields),
            None if embedder is None else EmbedderSpec(from_json(embedder[0]), embedder[1], embedder[2]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, IndexError) as err:
        raise SourceError(f"{path} is damaged: what it says of the store cannot be read ({err!r})") from err
