"""What a Store works with while its database is one file; compact() puts another file in its place."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from simstore.errors import StoreClosedError
from simstore.reports import Stats
from simstore.storage import Database, Environment, Files, MovedError, SnapshotRecord
from simstore.store import opening
from simstore.store.filters import Filters
from simstore.store.leases import leave, release
from simstore.store.maintenance import Maintenance
from simstore.store.searcher import Searcher, Threads
from simstore.store.statistics import Statistics
from simstore.store.view import View, Views
from simstore.store.writer import Writer

__all__ = ["Core", "Cores", "Setting"]

T = TypeVar("T")
_OWN_THREADS = ("simstore-maintenance", "simstore-build", "simstore-search")  # which close() waits for


@dataclass(frozen=True, slots=True)
class Setting:
    """How a store was opened."""

    path: Path
    files: Files
    readonly: bool
    background: bool
    snapshot: SnapshotRecord | None
    map_size: int | None


class Core:
    """The parts of a Store, all over one open database."""

    def __init__(
        self, setting: Setting, environment: Environment, database: Database, threads: Threads, statistics: Statistics
    ) -> None:
        self.environment, self.database = environment, database
        segments_dir = setting.path / opening.SEGMENTS
        self.views = Views(database, setting.files, segments_dir, snapshot=setting.snapshot)
        self.writer = Writer(environment, database, statistics)
        self.maintenance = Maintenance(
            environment, database, self.views, setting.files, segments_dir, statistics,
            background=setting.background and not setting.readonly,
        )  # fmt: skip
        consider = None if setting.readonly else self.maintenance.consider
        self.filters = Filters(database)
        self.searcher = Searcher(environment, database, self.views, self.filters, threads, statistics, consider)

    def view(self) -> View:
        """The newest state."""
        with self.environment.reading() as txn:
            return self.views.current(txn)


class _Ended:
    """What stands in a core's place after close(): another store may have the same database open."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getattr__(self, name: str) -> NoReturn:
        raise _closed(self._path)


def _closed(path: Path) -> StoreClosedError:
    return StoreClosedError(f"the store {path} was closed: open it again with simstore.open(path)")


class Cores:
    """The core that serves now; a call that finds its database replaced goes on with the next one."""

    def __init__(self, setting: Setting, opened: opening.Opened) -> None:
        self.setting = setting
        self.is_closed = False
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._threads = Threads()
        self.statistics = Statistics()
        self._past = 0, 0  # works and commits of earlier cores
        self.current: Core | Any = Core(setting, opened.environment, opened.database, self._threads, self.statistics)

    def run(self, work: Callable[[Core], T]) -> T:
        """work(core), with the newest core."""
        while True:
            core = self.current
            try:
                return work(core)
            except MovedError as moved:
                self.follow(core, moved.name)

    def follow(self, old: Core, name: str) -> None:
        """Goes over to the database that has taken the old core's place. What still reads the old one reads on there."""
        with self._lock:
            self.refuse_closed()
            if self.current is not old:
                return
            old.maintenance.stop()
            setting = self.setting
            opened = opening.follow(
                setting.path, setting.files, name, readonly=setting.readonly, map_size=setting.map_size,
                for_snapshot=setting.snapshot is not None, instead_of=old.environment,
            )  # fmt: skip
            self.current = Core(self.setting, opened.environment, opened.database, self._threads, self.statistics)
            leave(setting.path, old.environment, for_snapshot=setting.snapshot is not None)
            self._past = self._past[0] + old.writer.commits.n_writes, self._past[1] + old.writer.commits.n_commits

    def stats(self) -> Stats:
        """What all cores have done."""
        commits = self.current.writer.commits
        return self.statistics.now(self._past[0] + commits.n_writes, self._past[1] + commits.n_commits)

    def refuse_closed(self) -> None:
        """Raises StoreClosedError after close()."""
        if self.is_closed:
            raise _closed(self.setting.path)

    def close(self) -> None:
        """Ends threads and gives the database back; in a forked child there is nothing to end."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self.is_closed = True
            core, self.current = self.current, _Ended(self.setting.path)
        if threading.current_thread().name.startswith(_OWN_THREADS):  # a Store that nobody holds was found there
            threading.Thread(target=self._end, args=(core,), name="simstore-closing").start()
        else:
            self._end(core)

    def _end(self, core: Core) -> None:
        try:
            core.maintenance.stop()
            self._threads.close()
            core.views.forget()
            core.filters.forget()
        finally:
            release(self.setting.path, core.environment, for_snapshot=self.setting.snapshot is not None)
