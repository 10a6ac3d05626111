"""Vectors by another embedder that wait until all are there."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.storage.environment import Transaction
from simstore.storage.records import row_key, sealed, unsealed
from simstore.storage.tables import STAGING, Tables

__all__ = ["Staging", "StagingTable"]


class Staging(NamedTuple):
    """Whose vectors are being staged: the embedder's fingerprint, and their width."""

    fingerprint: str
    dim: int


class StagingTable(Tables):
    """Staged vectors, by the row whose item they are of."""

    def staging(self, txn: Transaction) -> Staging | None:
        """Whose vectors are being staged, or None.

        Raises:
            CorruptStoreError: The note of it is damaged.
        """
        value = self.mark(txn, STAGING)
        if value is None:
            return None
        return Staging(**msgpack.unpackb(unsealed(value, "the note of which embedder vectors are staged for")))

    def begin_staging(self, txn: Transaction, staging: Staging) -> None:
        """Notes whose vectors are staged from now on, and drops what is there."""
        txn.drop(self._staged, delete=False)
        self.put_mark(txn, STAGING, sealed(msgpack.packb(staging._asdict())))

    def end_staging(self, txn: Transaction) -> bool:
        """Drops everything staged; whether there was anything."""
        txn.drop(self._staged, delete=False)
        was_staging = self.mark(txn, STAGING) is not None
        self.put_mark(txn, STAGING, None)
        return was_staging

    def put_staged(self, txn: Transaction, rows: NDArray[np.uint64], vectors: NDArray[np.float32]) -> None:
        """Stages the vectors [n, dim] of rows [n]."""
        contents = [vector.tobytes() for vector in vectors.astype("<f4", copy=False)]
        with txn.cursor(db=self._staged) as cursor:
            cursor.putmulti(
                [(row_key(row), sealed(content, row)) for row, content in zip(rows.tolist(), contents, strict=True)]
            )

    def drop_staged(self, txn: Transaction, rows: Iterable[int]) -> None:
        """Drops the staged vectors of rows."""
        for row in rows:
            txn.delete(row_key(row), db=self._staged)

    def staged_rows(self, txn: Transaction) -> NDArray[np.uint64]:
        """All rows with a staged vector, ascending."""
        with txn.cursor(db=self._staged) as cursor:
            return np.frombuffer(b"".join(cursor.iternext(values=False)), ">u8").astype(np.uint64)

    def staged_vectors(self, txn: Transaction, rows: NDArray[np.uint64], dim: int) -> NDArray[np.float32]:
        """The staged vectors of rows, [n, dim].

        Raises:
            CorruptStoreError: One is missing or damaged.
        """
        out = np.empty((len(rows), dim), np.float32)
        for i, row in enumerate(rows.tolist()):
            out[i] = _vector(row, txn.get(row_key(row), db=self._staged) or b"", dim)
        return out

    def damaged_staged(self, txn: Transaction, dim: int) -> Iterator[int]:
        """The rows whose staged vector is damaged."""
        for key, value in self.raw(txn, "staged"):
            row = int.from_bytes(key, "big")
            try:
                _vector(row, value, dim)
            except CorruptStoreError:
                yield row


def _vector(row: int, value: bytes, dim: int) -> NDArray[np.float32]:
    with suppress(CorruptStoreError):
        content = unsealed(value, "", row)
        if len(content) == 4 * dim:
            return np.frombuffer(content, "<f4")
    raise CorruptStoreError(
        f"the vector that is staged for row {row} is missing or damaged: reembed() makes it anew when called again"
    )
