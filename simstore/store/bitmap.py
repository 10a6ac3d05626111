"""Sets of rows, one bit each: those that are alive, or kept, or that a filter lets through."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError

__all__ = ["Bitmap"]

_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


class Bitmap:
    """A bitmap over rows that never changes; burying rows makes another.

    Bits of rows that do not exist yet are set, so that adding rows changes nothing here; unless it is ``closed``, as that of a
    snapshot, for which later rows are dead: segments and postings know more rows than it has bits.

    Attributes:
        words: uint64, bit ``row & 63`` of word ``row >> 6``; rows beyond are dead. An open one reaches beyond every row.
        n_dead: How many rows have been buried.
        is_full: No bit is cleared.
    """

    __slots__ = ("is_full", "n_dead", "words")

    def __init__(self, words: NDArray[np.uint64], n_dead: int, *, is_full: bool) -> None:
        self.words = words
        self.n_dead = n_dead
        self.is_full = is_full

    @classmethod
    def of(cls, n_rows: int, dead: NDArray[np.uint64]) -> "Bitmap":
        """The bitmap of n_rows rows of which those in dead are buried."""
        return cls(np.full(n_rows // 64 + 1, _ONES), 0, is_full=True).without(dead, n_rows)

    def closed(self, n_rows: int) -> "Bitmap":
        """This bitmap with all rows from n_rows on dead."""
        words = self.words[: n_rows // 64 + 1].copy()
        words[-1] &= (np.uint64(1) << np.uint64(n_rows & 63)) - np.uint64(1)
        return Bitmap(words, self.n_dead, is_full=False)

    def without(self, rows: Iterable[int], n_rows: int) -> "Bitmap":
        """This bitmap, for n_rows rows, with more rows buried."""
        dead = rows if isinstance(rows, np.ndarray) else np.fromiter(rows, np.uint64)
        if len(dead) and int(dead.max()) >= n_rows:
            raise CorruptStoreError(
                f"row {int(dead.max())} was deleted but does not exist: check(deep=True) lists all damage, repair() mends it"
            )
        short = n_rows // 64 + 1 - len(self.words)
        if not len(dead) and short <= 0:
            return self
        if short > 0:
            words = np.concatenate([self.words, np.full(short + len(self.words) // 2 + 64, _ONES)])
        else:
            words = self.words.copy()
        bits = np.left_shift(np.uint64(1), dead & np.uint64(63))
        np.bitwise_and.at(words, dead >> np.uint64(6), ~bits)
        return Bitmap(words, self.n_dead + len(dead), is_full=self.is_full and not len(dead))

    def __contains__(self, row: int) -> bool:
        return row >> 6 < len(self.words) and bool(int(self.words[row >> 6]) >> (row & 63) & 1)

    def mask(self, first: int, stop: int) -> NDArray[np.bool_]:
        """Whether each of rows first … stop - 1 is alive."""
        words = self.words[first >> 6 : (stop + 63) >> 6]
        bits = np.unpackbits(words.astype("<u8", copy=False).view(np.uint8), bitorder="little")
        mask: NDArray[np.bool_] = bits[first & 63 : (first & 63) + stop - first].view(bool)
        return mask if len(mask) == stop - first else np.concatenate([mask, np.zeros(stop - first - len(mask), bool)])

    def rows(self, first: int, stop: int) -> NDArray[np.uint64]:
        """The rows of first … stop - 1 that are alive."""
        return np.flatnonzero(self.mask(first, stop)).astype(np.uint64) + np.uint64(first)

    def count(self, first: int, stop: int) -> int:
        """How many of rows first … stop - 1 are alive."""
        stop = min(stop, 64 * len(self.words))
        if first >= stop:
            return 0
        words = self.words[first >> 6 : (stop + 63) >> 6].copy()
        words[0] &= _ONES << np.uint64(first & 63)
        if stop & 63:
            words[-1] &= _ONES >> np.uint64(64 - (stop & 63))
        return int(np.bitwise_count(words).sum())

    def of_rows(self, rows: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Whether each of rows is alive."""
        within = rows < np.uint64(64 * len(self.words))
        rows = np.where(within, rows, np.uint64(0))
        bits: NDArray[np.uint64] = self.words[rows >> np.uint64(6)] >> (rows & np.uint64(63)) & np.uint64(1)
        return bits.astype(bool) & within
