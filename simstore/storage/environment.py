"""LMDB, behind what a store needs of it. Only this module, and pages.py, import lmdb."""

import ctypes
import errno
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from simstore.errors import (
    AlreadyOpenError,
    CorruptStoreError,
    ForkedStoreError,
    SimstoreError,
    StorageError,
    StorageFullError,
    StoreClosedError,
)
from simstore.storage.attempts import REFUSALS, Attempt, MovedError
from simstore.storage.gate import Gate

__all__ = ["DATA_FILE", "EngineError", "Environment", "Table", "Transaction", "translate"]

T = TypeVar("T")
EngineError = lmdb.Error
Transaction = Any  # lmdb.Transaction: py-lmdb carries no types
Table = Any

DATA_FILE = "data.mdb"
_MOVED = b"moved"
_TERABYTE = 1 << 40
_NEVER_GROWS = sys.platform == "linux" and sys.maxsize > 1 << 32
_MAP_SIZE = _TERABYTE if _NEVER_GROWS else (1 << 30 if sys.maxsize > 1 << 32 else 1 << 28)
_GROWTH = 2


def translate(err: Exception) -> SimstoreError:
    """The simstore error for one of LMDB's."""
    text = str(err)
    full = isinstance(err, (lmdb.MapFullError, lmdb.DiskError)) or any(
        os.strerror(number) in text for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    )
    if full:
        return StorageFullError(f"no space left for the database ({text}): free some space and call again; nothing was changed")
    # LMDB says so, too, when a write was cut short; a copy, which goes past the page cache, cannot go on from an odd place then
    if os.strerror(errno.EIO) in text or ("mdb_env_copy" in text and os.strerror(errno.EINVAL) in text):
        return StorageFullError(
            f"the database could not be written ({text}), most likely for lack of space or for a limit on the size of files "
            "(ulimit -f): free some space and call again; nothing was changed"
        )
    if isinstance(err, (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError)):
        return CorruptStoreError(f"the database is damaged ({text}): restore the store from a backup")
    if isinstance(err, lmdb.ReadersFullError):
        return StorageError("too many processes and threads read the store at once: close some, or try again")
    if os.strerror(errno.ENOMEM) in text:
        return StorageError(
            f"no address space left for the database ({text}): a store reserves a terabyte of it (not of memory); close other "
            "stores of this process, or raise its limit (ulimit -v)"
        )
    if os.strerror(errno.EACCES) in text:
        return StorageError(f"the database refused ({text}): whoever reads a store needs to write its lock.mdb, too")
    return StorageError(f"the database refused: {text}")


class _GatedTransaction:
    """A transaction that counts at the gate; only where maps grow."""

    def __init__(
        self, gate: Gate, begin: Callable[[], Transaction], resize: Callable[[], None], attempt: Attempt | None
    ) -> None:
        self._gate = gate
        self._begin = begin
        self._resize = resize
        self._attempt = attempt

    def __enter__(self) -> Transaction:
        while True:
            self._gate.enter()
            try:
                self._transaction = self._begin()
                break
            except lmdb.MapResizedError:  # another process made the map larger
                self._gate.leave()
                self._gate.alone(self._resize)
            except BaseException:
                self._gate.leave()
                raise
        return self._transaction.__enter__()

    def __exit__(self, *exc: object) -> None:
        if exc[0] is not None:
            self._gate.hold(1)
        try:
            if exc[0] is None and self._attempt is not None:
                self._attempt.committed = True
            self._transaction.__exit__(*exc)
        except lmdb.Error:
            if self._attempt is not None:
                self._attempt.committed = False
            raise
        finally:
            if exc[0] is not None:
                self._gate.hold(-1)
            self._gate.leave()


_live: "weakref.WeakSet[Environment]" = weakref.WeakSet()


def _keep_in_child() -> None:
    """A forked child must never free what it inherits: closing it would clear its parent's reader slots in the lock file."""
    for environment in list(_live):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(environment._env))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_in_child)


class Environment:
    """An open LMDB database: read and write transactions over its tables.

    Attributes:
        inode: Which file it is.

    Args:
        path: The store's directory.
        readonly: No writes.
        create: Make the database if it is missing.
        map_size: Address space to reserve, in bytes; by default a terabyte where that is free, and growing elsewhere.
        grows: Whether the map is enlarged when it is full.
    """

    def __init__(
        self,
        path: Path,
        *,
        readonly: bool = False,
        create: bool = False,
        map_size: int = _MAP_SIZE,
        grows: bool = not _NEVER_GROWS,
    ) -> None:
        self.readonly = readonly
        self._pid = os.getpid()
        self._gate = Gate() if grows else None
        self._path = path
        self._closed = False
        self._writing = threading.RLock()  # close() waits for it: py-lmdb crashes, hangs or loses a commit if a write goes on
        self._tables: dict[str, Table] = {}
        try:
            self._env = lmdb.open(
                os.fsencode(path), readonly=readonly, create=create, map_size=max(map_size, _file_size(path)), max_dbs=16,
                max_readers=1024, max_spare_txns=4, meminit=False,
            )  # fmt: skip
            self._env.reader_check()
            self.inode = (path / DATA_FILE).stat().st_ino
            _live.add(self)
        except lmdb.Error as err:
            if "already open" in str(err).lower():
                if any(other._path == path and other._pid != self._pid for other in list(_live)):
                    raise ForkedStoreError(
                        f"{path} was open when this process was forked, and LMDB cannot open it once more here: close the "
                        "parent's store before forking, or start the child anew (multiprocessing's 'spawn')"
                    ) from err
                raise AlreadyOpenError(
                    f"{path} is open in this process already: use that Store object, or close it first"
                ) from err
            raise translate(err) from err

    def tables(self, needed: Mapping[str, bool], optional: Mapping[str, bool], *, create: bool) -> dict[str, Table | None]:
        """The tables of those names; True for one that holds many 8-byte values for one key.

        Each is opened once, within a transaction that this begins: LMDB's binding, left to itself, waits for the process that
        writes without letting this one's other threads run, and for one of those it waits for ever.

        Args:
            optional: These are None if they are not there.
            create: Make those that are missing.

        Raises:
            CorruptStoreError: One is missing.
        """
        both = {**needed, **optional}
        missing = [name for name in both if name not in self._tables]

        def opened(txn: Transaction | None) -> dict[str, Table]:
            found = {}
            for name in missing:
                try:
                    found[name] = self._env.open_db(
                        name.encode(), txn=txn, create=create, dupsort=both[name], dupfixed=both[name]
                    )
                except lmdb.NotFoundError:
                    if name in needed:
                        raise CorruptStoreError(
                            f"{self._path} has no table {name!r}: it is no simstore database, or damaged"
                        ) from None
            return found

        if missing:
            try:
                self._tables |= opened(None) if self.readonly else self.write(opened)
            except lmdb.Error as err:
                raise translate(err) from err
        return {name: self._tables.get(name) for name in both}

    def read(self) -> AbstractContextManager[Transaction]:
        """A read transaction for a with-statement: it sees one state, whatever is written beside it."""
        self.check_usable()
        return self._begin(False)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Like read, with LMDB's errors translated; ``read`` is for where a microsecond counts."""
        try:
            with self.read() as transaction:
                yield transaction
        except lmdb.Error as err:
            raise self.translated(err) from err

    def translated(self, err: Exception) -> SimstoreError:
        """The simstore error for one of LMDB's: that the store was closed, if another thread has closed it."""
        try:
            self.check_usable()
        except SimstoreError as closed:
            return closed
        return translate(err)

    def _begin(self, write: bool, attempt: Attempt | None = None) -> AbstractContextManager[Transaction]:
        if self._gate is None:
            transaction: AbstractContextManager[Transaction] = self._env.begin(write=write)
            return transaction
        return _GatedTransaction(self._gate, lambda: self._env.begin(write=write), lambda: self._env.set_mapsize(0), attempt)

    def write(self, work: Callable[[Transaction], T], *, attempt: Attempt | None = None) -> T:
        """Runs work(transaction) and commits; where it raises, nothing is written. It runs again if the map had to grow.

        Args:
            work: Puts nothing before it raises one of REFUSALS.
            attempt: Learns whether it was committed, also where an interrupt (KeyboardInterrupt and the like) is raised.

        Raises:
            StorageFullError: No space; nothing was written.
            StorageError, CorruptStoreError: LMDB refused; nothing was written.
        """
        self.check_usable()  # before the lock: in a forked child some thread that is no more may hold it
        with self._writing:
            while True:
                if self._closed:
                    self.check_usable()
                try:
                    return self._written(work, attempt)
                except lmdb.Error as err:
                    if attempt is not None:
                        attempt.committed = False
                    if self._gate is None or not isinstance(err, lmdb.MapFullError):
                        raise self.translated(err) from err
                self._gate.alone(lambda: self._env.set_mapsize(self._env.info()["map_size"] * _GROWTH))

    def _written(self, work: Callable[[Transaction], T], attempt: Attempt | None) -> T:
        with self._begin(True, attempt) as transaction:
            try:
                self.refuse_moved(transaction)
                result = work(transaction)
                if attempt is not None and self._gate is None:
                    # Interrupts strike when a call returns: none from here until LMDB has committed, or has raised
                    attempt.committed = True
                return result
            except (*REFUSALS, MovedError) as err:
                refused = err  # nothing was put: py-lmdb's abort waits until no thread reads, its commit does not
        try:
            raise refused
        finally:
            del refused  # with this frame in its traceback it would keep itself, and a database that was replaced

    def clear_dead_readers(self) -> int:
        """Frees the slots of readers whose process is gone: they would keep old pages from being used again."""
        try:
            n: int = self._env.reader_check()
            return n
        except lmdb.Error as err:
            raise self.translated(err) from err

    @staticmethod
    def refuse_moved(txn: Transaction) -> None:
        """Raises MovedError if a compact copy has taken the database's place."""
        name = txn.get(_MOVED)
        if name is not None:
            raise MovedError(bytes(name).decode())

    @staticmethod
    def put_moved(txn: Transaction, name: str) -> None:
        """Says that the file of that name, in the same directory, takes the database's place."""
        txn.put(_MOVED, name.encode())

    def copy_to(self, directory: Path) -> None:
        """Writes the newest state to data.mdb in another directory, not synced, while others go on.

        A plain copy: LMDB's compacting one (0.9.36) dies of dupfixed tables with many values for a key.

        Raises:
            StorageFullError, StorageError: It could not be written.
        """
        self.check_usable()
        failed: list[lmdb.Error] = []

        def copy() -> None:
            try:
                self._env.copy(os.fspath(directory))
            except lmdb.Error as err:
                failed.append(err)

        # It begins with a moment under LMDB's lock, and py-lmdb's abort waits for it: it must not begin beside a write that
        # may be aborted, as that would wait for the copy, which waits for that. The first bytes come out of that moment.
        thread = threading.Thread(target=copy, name="simstore-copy")
        with self._writing:
            thread.start()
            try:
                while thread.is_alive() and not _file_size(directory):
                    thread.join(0.001)
            except BaseException:  # interrupted
                thread.join()
                raise
        thread.join()
        if failed:
            err = failed.pop()  # kept there it would refer to itself, by its traceback
            raise self.translated(err) from err

    def is_usable(self) -> bool:
        """Whether this process opened it, and has not closed it."""
        return not self._closed and self._pid == os.getpid()

    def check_usable(self) -> None:
        """Raises ForkedStoreError in a forked child, StoreClosedError after close()."""
        if self._pid != os.getpid():
            raise ForkedStoreError(
                f"{self._path} was opened in process {self._pid}, and this is process {os.getpid()}, forked from it: "
                "close the parent's store before forking, and open it in the child by simstore.open(path)"
            )
        if self._closed:
            raise StoreClosedError(f"the store {self._path} was closed: open it again with simstore.open(path)")

    def close(self) -> None:
        """Closes the database. Buffers that transactions handed out must be gone."""
        if not self._closed and self._pid == os.getpid():
            self._closed = True
            try:
                with self._writing:
                    self._env.close()
            except BaseException:  # interrupted while it waited: it is closed all the same
                with self._writing:
                    self._env.close()
                raise


def _file_size(path: Path) -> int:
    try:
        return (path / DATA_FILE).stat().st_size
    except FileNotFoundError:
        return 0
