"""Data and stamp of an example, packed as an item holds them."""

from collections.abc import Sequence
from typing import Any

from simstore.errors import InvalidDataError
from simstore.ingest.stamps import FIELD, Stamp
from simstore.readers import SourceFile
from simstore.storage.encoding import pack, packer

__all__ = ["Packing"]

_MAP_OF_1, _MAP_OF_6, _UINT64 = b"\x81", b"\x86", b"\xcf"


class Packing:
    """Packs. Stamps are not packed entry by entry: in the rows of a file they differ in row and hash alone. For one thread."""

    def __init__(self) -> None:
        self._packer = packer()

    def rows(
        self, source: str, file: SourceFile, rows: Sequence[int], digests: Sequence[int], data: Sequence[dict[str, Any]]
    ) -> list[bytes | InvalidDataError]:
        """For each row of a file what its item holds as data; or why it cannot be stored."""
        of = self._packer.pack
        head = of(FIELD) + _MAP_OF_6 + of("source") + of(source) + of("file") + of(file.path) + of("row")
        tail = of("size") + of(file.size) + of("mtime_ns") + of(file.mtime_ns) + of("hash") + _UINT64
        alone = _MAP_OF_1 + head
        return [
            self._beside(more, head + of(row) + tail + digest.to_bytes(8, "big"))
            if more
            else alone + of(row) + tail + digest.to_bytes(8, "big")
            for row, digest, more in zip(rows, digests, data, strict=True)
        ]

    def one(self, data: dict[str, Any], mark: Stamp) -> bytes | InvalidDataError:
        """What the item of a file holds as data; or why it cannot be stored."""
        try:
            return pack(self._packer, {**data, FIELD: mark})
        except InvalidDataError as err:
            return err

    def _beside(self, more: Any, entry: bytes) -> bytes | InvalidDataError:
        """The map of more and a packed entry."""
        if not isinstance(more, dict):  # whose bytes would begin with no map's header
            return InvalidDataError(f"the data of an example is a dict, not {type(more).__name__}")
        try:
            packed = pack(self._packer, more)
        except InvalidDataError as err:
            return err
        header = self._packer.pack_map_header
        joined: bytes = header(len(more) + 1) + packed[len(header(len(more))) :] + entry
        return joined
