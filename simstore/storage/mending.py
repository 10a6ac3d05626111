"""Undoing a single flipped bit, which is how most damage of an idle disk looks: the checksum tells which one it was.

A checksum of 64 bits is matched by chance once in 10¹⁹ tries: what matches is what was written.
"""

from xxhash import xxh3_64_intdigest

from simstore.storage.records import record_bytes

__all__ = ["Mender"]

_CHECKSUM_BYTES = 8
_MOST_BYTES = 1 << 14  # a longer value takes too many tries
_MOST_TRIES = 1 << 24  # of one repair: ten seconds


class Mender:
    """Finds the one bit whose flip explains why a checksum does not match.

    Attributes:
        n_mended: How many values have been set right.
    """

    def __init__(self) -> None:
        self.n_mended = 0
        self._left = _MOST_TRIES

    def sealed(self, value: bytes, seed: int) -> bytes | None:
        """A sealed value set right, or None."""
        body = self._content(value[_CHECKSUM_BYTES:], int.from_bytes(value[:_CHECKSUM_BYTES], "big"), seed)
        return None if body is None else xxh3_64_intdigest(body, seed).to_bytes(_CHECKSUM_BYTES, "big") + body

    def seed(self, value: bytes, seed: int) -> int | None:
        """The number one bit from the seed under which a sealed value is sound, or None: its key was damaged, not itself."""
        body, checksum = value[_CHECKSUM_BYTES:], int.from_bytes(value[:_CHECKSUM_BYTES], "big")
        return self._counted(next((s for s in _one_bit_off(seed) if xxh3_64_intdigest(body, s) == checksum), None))

    def vector(self, record: bytes, dim: int, row: int) -> bytes | None:
        """The record of a row's vector set right, or None."""
        if len(record) != record_bytes(dim):
            return None
        content = self._content(record[: 4 * dim], int.from_bytes(record[-_CHECKSUM_BYTES:], "little"), row)
        if content is None:
            return None
        checksum = xxh3_64_intdigest(content, row).to_bytes(_CHECKSUM_BYTES, "little")
        return content.ljust(len(record) - _CHECKSUM_BYTES, b"\0") + checksum

    def first_row(self, run: bytes, dim: int, row: int) -> int | None:
        """The row one bit from the given one whose vector a run starts with, or None."""
        record = run[: record_bytes(dim)]
        content, checksum = record[: 4 * dim], int.from_bytes(record[-_CHECKSUM_BYTES:], "little")
        return self._counted(next((r for r in _one_bit_off(row) if xxh3_64_intdigest(content, r) == checksum), None))

    def _counted(self, found: int | None) -> int | None:
        self.n_mended += found is not None
        return found

    def _content(self, content: bytes, checksum: int, seed: int) -> bytes | None:
        if (xxh3_64_intdigest(content, seed) ^ checksum).bit_count() == 1:  # it was the checksum's
            self.n_mended += 1
            return content
        if len(content) > _MOST_BYTES or self._left < 8 * len(content):
            return None
        self._left -= 8 * len(content)
        tried = bytearray(content)
        for at in range(len(tried)):
            for bit in range(8):
                tried[at] ^= 1 << bit
                if xxh3_64_intdigest(tried, seed) == checksum:
                    self.n_mended += 1
                    return bytes(tried)
                tried[at] ^= 1 << bit
        return None


def _one_bit_off(number: int) -> list[int]:
    return [number ^ 1 << bit for bit in range(64)]
