"""Which rows a run has met: those that were there before, one bit each, and those that it has written."""

import threading
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

__all__ = ["Claims"]


class Claims:
    """The rows of a run. Keys would take a hundred times the memory.

    Attributes:
        next_row: Rows from here on were not there when the run began.
    """

    def __init__(self, next_row: int) -> None:
        self.next_row = next_row
        self._bits = bytearray(next_row // 8 + 1)
        self._starts: list[int] = []  # of ranges of rows that were written, ascending
        self._stops: list[int] = []
        self._lock = threading.Lock()

    def claim(self, row: int) -> bool:
        """Claims a row that was there before; False if it is claimed already."""
        at, bit = row >> 3, 1 << (row & 7)
        known = self._bits[at]
        self._bits[at] = known | bit
        return not known & bit

    def claimed(self, rows: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of rows that were there before are claimed."""
        octets = np.frombuffer(self._bits, np.uint8)[rows >> np.uint64(3)]
        bits: NDArray[np.uint8] = octets >> (rows & np.uint64(7)).astype(np.uint8) & np.uint8(1)
        return bits.astype(bool)

    def wrote(self, rows: range) -> None:
        """Notes rows that the run has written."""
        if not rows:
            return
        with self._lock:
            if self._stops and self._stops[-1] == rows.start:
                self._stops[-1] = rows.stop
            else:
                self._starts.append(rows.start)
                self._stops.append(rows.stop)

    def has_written(self, row: int) -> bool:
        """Whether the run has written a row."""
        with self._lock:
            at = bisect_right(self._starts, row) - 1
            return at >= 0 and row < self._stops[at]
