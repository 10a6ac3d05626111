"""Files that are read through their compression, which is told by their first bytes."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from simstore.errors import PackageMissingError, RejectedError
from simstore.readers.files import open_regular, refusal, shown

__all__ = ["bare_name", "open_stream", "reading"]

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_ZSTD_CHUNK = 1 << 12  # a few bytes of zstd can stand for megabytes: what one call gives stays bounded
_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zstd")


def bare_name(path: str) -> str:
    """A path without the suffix of a compression, in lower case."""
    path = path.lower()
    for suffix in _SUFFIXES:
        path = path.removesuffix(suffix)
    return path


def _compression(head: bytes) -> str | None:
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def open_stream(path: str) -> BinaryIO:
    """A file's content, decompressed if it is compressed. Closing it closes the file.

    Raises:
        RejectedError: It cannot be opened, or is no regular file.
        PackageMissingError: It is compressed by zstd, and zstandard is not installed.
    """
    file = open_regular(path)
    try:
        compression = _compression(file.peek(6)[:6])  # type: ignore[attr-defined]
        return file if compression is None else _decompressed(file, compression)
    except OSError as err:
        file.close()
        raise refusal(path, err) from err
    except BaseException:
        file.close()
        raise


class _Owning:
    """Mixed into a decompressor that would leave its file open."""

    def close(self) -> None:
        """Closes the file, too."""
        try:
            super().close()  # type: ignore[misc]
        finally:
            self.owned.close()  # type: ignore[attr-defined]


class _Gzip(_Owning, gzip.GzipFile):
    owned: BinaryIO


class _Bz2(_Owning, bz2.BZ2File):
    owned: BinaryIO


class _Xz(_Owning, lzma.LZMAFile):
    owned: BinaryIO


def _decompressed(file: BinaryIO, compression: str) -> BinaryIO:
    if compression == "zstd":
        return _zstd(file)
    made: Any = {"gzip": _Gzip, "bz2": _Bz2, "xz": _Xz}[compression]
    stream = made(fileobj=file, mode="rb") if compression == "gzip" else made(file)
    stream.owned = file
    return cast(BinaryIO, stream)


def _zstd(file: BinaryIO) -> BinaryIO:
    try:
        import zstandard
    except ImportError as err:
        raise PackageMissingError.of("files compressed by zstd", "zstandard", "zstd") from err
    return cast(BinaryIO, io.BufferedReader(_Zstd(file, zstandard.ZstdDecompressor)))


class _Zstd(io.RawIOBase):
    """A zstd file, frame by frame. zstandard's own reader takes one that was cut for one that ended.

    Args:
        file: The compressed file, closed with this one.
        decompressor: zstandard.ZstdDecompressor.
    """

    def __init__(self, file: BinaryIO, decompressor: Any) -> None:
        self._file, self._decompressor = file, decompressor
        self._frame: Any = None
        self._waiting = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer as far as what is at hand goes; 0 at the end.

        Raises:
            EOFError: The file ends within a frame.
        """
        while not self._waiting:
            content = self._file.read(_ZSTD_CHUNK)
            if not content:
                if self._frame is not None:
                    raise EOFError("it was cut within a zstd frame")
                return 0
            self._waiting = memoryview(self._decompressed(content))
        n = min(len(buffer), len(self._waiting))
        buffer[:n], self._waiting = self._waiting[:n], self._waiting[n:]
        return n

    def _decompressed(self, content: bytes) -> bytes:
        out = []
        while content:
            self._frame = self._frame or self._decompressor().decompressobj()
            try:
                out.append(self._frame.decompress(content))
            except Exception as err:  # zstandard.ZstdError, and what lies behind the last frame
                raise zlib.error(str(err)) from err
            content = self._frame.unused_data if self._frame.eof else b""
            self._frame = None if self._frame.eof else self._frame
        return b"".join(out)

    def close(self) -> None:
        """Closes the file, too."""
        self._file.close()
        super().close()


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns what goes wrong while a file is read into a RejectedError: unreadable, truncated, damaged."""
    try:
        yield
    except RejectedError:
        raise
    except EOFError as err:
        raise RejectedError("truncated", f"{shown(path)} ends early: {err}") from err
    except (zlib.error, lzma.LZMAError) as err:
        raise RejectedError("damaged", f"{shown(path)} is damaged: {err}") from err
    except OSError as err:
        if err.errno is None:  # gzip.BadGzipFile, and what bz2 raises
            raise RejectedError("damaged", f"{shown(path)} is damaged: {err}") from err
        raise refusal(path, err) from err
