"""What LMDB's meta pages say of the file's size."""

import os
import struct
from pathlib import Path

from simstore.errors import CorruptStoreError
from simstore.storage.pages import look_at_pages

__all__ = ["check_size"]

# A page starts with 16 bytes of header; a meta page goes on with magic, version, address, map size, two tables of 48 bytes
# (the first one's u32 is the page size), the last page's number and the transaction's. LMDB 0.9, lmdb.h / mdb.c: MDB_meta.
_PAGE_HEADER = 16
_META = struct.Struct("<II Q Q I 44x 48x Q Q")
_MAGIC = 0xBEEFC0DE


def check_size(path: Path) -> None:
    """Refuses a database file that is shorter than its own meta pages say: reading it would kill the process.

    Raises:
        CorruptStoreError: The file is missing, empty, short or no LMDB database.
    """
    remedy = "restore the store from a backup; nothing was changed"
    try:
        with open(path, "rb") as file:
            head = file.read(_PAGE_HEADER + _META.size)
            size = os.fstat(file.fileno()).st_size
            if len(head) < _PAGE_HEADER + _META.size:
                raise CorruptStoreError(f"{path} holds {size} bytes and no database: {remedy}")
            page_size = _META.unpack_from(head, _PAGE_HEADER)[4]
            file.seek(page_size if 0 < page_size <= 1 << 16 else 4096)
            second = file.read(_PAGE_HEADER + _META.size)
            size = os.fstat(file.fileno()).st_size  # after the meta pages: another process may be making it longer
    except FileNotFoundError:
        raise CorruptStoreError(f"{path} is missing: {remedy}") from None
    needed = 0
    for page in (head, second):
        if len(page) < _PAGE_HEADER + _META.size:
            raise CorruptStoreError(f"{path} is cut off after {size} bytes: {remedy}")
        magic, _version, _address, _map_size, pages, last_page, txn = _META.unpack_from(page, _PAGE_HEADER)
        if magic != _MAGIC or pages != page_size:
            raise CorruptStoreError(f"{path} has a damaged meta page: {remedy}")
        if txn:  # the older one names fewer pages, or as many: files only grow
            needed = max(needed, (last_page + 1) * page_size)
    if size < needed and ((needed - size) % page_size or look_at_pages(path.parent).problems):
        raise CorruptStoreError(f"{path} is cut off: {size} bytes where its meta page names {needed}: {remedy}")
