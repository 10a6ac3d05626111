"""The npy format as a stream: from a file, through a compression, or out of an npz file. Pickled objects are never read."""

import math
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from simstore.errors import RejectedError

__all__ = ["NpyStream"]


class NpyStream:
    """An array that is read row by row.

    Args:
        stream: Stands at the beginning of the npy data; whoever opened it closes it.
        name: What it is called in errors.

    Attributes:
        shape, dtype: Of the whole array.

    Raises:
        RejectedError: It is damaged, or holds objects, records or a single value.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.shape, is_fortran, self.dtype = self._header()
        if self.dtype.hasobject or self.dtype.names or self.dtype.kind not in "biufUS" or not self.shape:
            what = f"an array of shape {list(self.shape)} and dtype {self.dtype}"
            raise RejectedError("not numbers or texts", f"{name} holds {what}: only arrays [n, …] of numbers or texts are read")
        self._whole = self._transposed() if is_fortran and len(self.shape) > 1 else None
        self._row = 0

    def _header(self) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        try:
            version = npy.read_magic(self._stream)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"version {version} of the format, which holds records")
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, is_fortran, dtype = read(self._stream)
            if min(shape, default=0) < 0:
                raise ValueError(f"shape {shape}")
        except (EOFError, OSError):
            raise
        except Exception as err:  # numpy reads the header with Python's own parser, which raises what it likes
            raise RejectedError("damaged", f"{self._name} is no npy data that can be read: {err}") from err
        return shape, is_fortran, dtype

    @property
    def row_bytes(self) -> int:
        """The size of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def _transposed(self) -> NDArray[Any]:
        """An array that is stored column by column: it comes as a whole."""
        return self._read(self.shape[::-1]).T

    def read(self, n: int) -> NDArray[Any]:
        """The next rows, at most n: [n, …].

        Raises:
            RejectedError: The data ends before.
        """
        n = min(n, self.shape[0] - self._row)
        first, self._row = self._row, self._row + n
        if self._whole is not None:
            return np.ascontiguousarray(self._whole[first : self._row])
        return self._read((n, *self.shape[1:]))

    def _read(self, shape: tuple[int, ...]) -> NDArray[Any]:
        wanted = math.prod(shape) * self.dtype.itemsize
        taken = bytearray(wanted) if wanted <= 1 << 26 else bytearray()
        if not taken:  # a header may claim anything: no more is asked for than comes
            while len(taken) < wanted and (more := self._stream.read(min(1 << 26, wanted - len(taken)))):
                taken += more
        elif (n := _fill(self._stream, memoryview(taken))) < wanted:
            del taken[n:]
        if len(taken) < wanted:
            raise RejectedError("truncated", f"{self._name} ends {wanted - len(taken):,} bytes before its array does")
        array = np.frombuffer(taken, self.dtype).reshape(shape)
        return array if self.dtype.isnative else array.astype(self.dtype.newbyteorder("="))


def _fill(stream: Any, buffer: memoryview) -> int:
    at = 0
    while at < len(buffer) and (n := stream.readinto(buffer[at:])):
        at += n
    return at
