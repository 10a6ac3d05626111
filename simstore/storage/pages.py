"""LMDB's pages, looked at from outside: what its own offline checker finds, and whether the entries of each page fill it."""

import os
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lmdb import verify

from simstore.errors import StorageError

__all__ = ["Pages", "look_at_pages"]

_NODE_HEADER, _OVERFLOW_ENTRY = 8, 8  # bytes: of an entry's header, and of what it holds if its value has pages of its own
_BIG = 0x01
_UPPER = struct.Struct("=H")
_Verifier: Any = verify._Verifier  # its public function does not say in which table something is


@dataclass(frozen=True, slots=True)
class Pages:
    """What is wrong with a database's pages.

    Attributes:
        problems: Told by LMDB's checker: reading on can kill the process.
        misfits: How many pages there are, by table, whose entries do not fill them exactly: the size of one is wrong. Such
            pages can be read, and their table be dropped; changing an entry would damage others.
    """

    problems: list[str]
    misfits: dict[str, int] = field(default_factory=dict)


class _Measuring(_Verifier):  # type: ignore[misc]
    """The checker, which also adds up the sizes of the entries of each leaf page."""

    misfits: Counter[str]
    _used = 0

    def _walk_leaf(self, ctx: dict[str, Any], pgno: int, buf: bytes) -> None:
        outer, self._used = self._used, 0
        super()._walk_leaf(ctx, pgno, buf)
        upper = _UPPER.unpack_from(buf, self.hdrsz - 2)[0] + self.pagebase
        if self._used != self.psize - upper:
            table = ctx["name"].partition("/")[2].partition("[")[0]
            if table:
                self.misfits[table] += 1
            else:
                self.err(f"{ctx['name']} DB: page {pgno}: its entries do not fill it")
        self._used = outer

    def _verify_tree(self, name: str, db: Any, key_cmp: Any, dup_cmp: Any, is_free: bool) -> Any:
        if db.flags & verify.MDB_DUPSORT and not (db.entries or db.depth):
            db.branch_pages = db.leaf_pages = 0
        return super()._verify_tree(name, db, key_cmp, dup_cmp, is_free)

    def _check_counts(self, name: str, db: Any, ctx: dict[str, Any]) -> None:
        """LMDB (0.9.36) goes on counting a page of each tree of values that it has dropped with its key; nothing reads that."""
        if db.flags & verify.MDB_DUPSORT:
            db.branch_pages = min(db.branch_pages, ctx["branch"] + ctx["dup_branch"])
            db.leaf_pages = min(db.leaf_pages, ctx["leaf"] + ctx["dup_leaf"])
        super()._check_counts(name, db, ctx)

    def _leaf_value(
        self, ctx: dict[str, Any], pgno: int, i: int, buf: bytes, o: int, nflags: int, ksize: int, dsize: int, key: bytes
    ) -> None:
        size = _NODE_HEADER + ksize + (_OVERFLOW_ENTRY if nflags & _BIG else dsize)
        self._used += size + size % 2
        super()._leaf_value(ctx, pgno, i, buf, o, nflags, ksize, dsize, key)


def look_at_pages(path: Path) -> Pages:
    """Reads the pages of the database in a directory, except those that hold nothing but a value.

    Where others may write meanwhile, the caller holds a read transaction, so that no page in use is used anew.

    Raises:
        StorageError: The file could not be read.
    """
    file = path / "data.mdb"
    try:
        while True:
            with open(file, "rb") as opened:
                before = os.fstat(opened.fileno())
                pages = _pages(opened, before.st_size)
                after = os.fstat(opened.fileno())
            if pages == Pages([]) or (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                return pages  # else somebody wrote meanwhile, and made the file longer perhaps
    except OSError as err:
        raise StorageError(f"{file} could not be read ({err}): try again") from err


def _pages(opened: BinaryIO, size: int) -> Pages:
    verifier = _Measuring(opened, size)
    verifier.misfits = Counter()
    try:
        return Pages([str(problem) for problem in verifier.verify()], dict(verifier.misfits))
    except verify.VerifyError as err:
        return Pages([str(err)])
