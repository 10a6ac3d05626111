"""What all parts of a Store share: the core that serves, and its end."""

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from simstore.embedders import Embedder
from simstore.errors import CorruptStoreError, ForkedStoreError, StorageFullError, StoreClosedError
from simstore.storage import Schema, Transaction
from simstore.store import opening
from simstore.store.core import Core, Cores, Setting
from simstore.store.embedders import Embedders
from simstore.store.leftovers import remove_spare_models
from simstore.store.request import OutdatedError
from simstore.store.view import View
from simstore.types import Progress

__all__ = ["StoreBase"]

T = TypeVar("T")


class StoreBase:
    """An open store: its core, its embedder, and how it is closed."""

    def __init__(self, setting: Setting, opened: opening.Opened, embedder: Embedder | None) -> None:
        self._setting = setting
        self._path, self._files = setting.path, setting.files
        self._embedders = Embedders(setting.path, embedder, opened.schema.embedder, readonly=setting.readonly)
        self._cores = Cores(setting, opened)
        self._finalizer = weakref.finalize(self, self._cores.close)
        self._closing = threading.RLock()

    @property
    def _core(self) -> Core:
        core: Core = self._cores.current
        return core

    def _run(self, work: Callable[[Core], T]) -> T:
        """work(core); again with the next core, if the database was replaced meanwhile."""
        return self._cores.run(work)

    def _written(self, work: Callable[[Transaction, Core], T]) -> T:
        """work(transaction, core), committed when it returns."""
        return self._run(lambda core: core.writer.write(lambda txn: work(txn, core)))

    def _view(self) -> View:
        return self._run(Core.view)

    def _schema(self) -> Schema:
        view = self._core.views.newest
        return view.schema if view is not None and view.schema.dim is not None else self._view().schema

    def _embedded(self, schema: Schema, inputs: Any) -> Any:
        """What the embedder of a schema makes of inputs.

        Raises:
            OutdatedError: The store has another embedder by now, and this one's model is gone.
        """
        try:
            return self._embedders.of(schema).embed(inputs)
        except CorruptStoreError:
            if self._view().schema.fingerprint == schema.fingerprint:
                raise
            raise OutdatedError from None

    def _remove_spare_models(self) -> None:
        """Removes models' files that nobody needs any more. Where that cannot be done, a later open does it."""
        with suppress(OSError):
            self._run(lambda core: remove_spare_models(core.environment, core.database, self._path, self._files))

    def _check_usable(self) -> None:
        self._core.environment.check_usable()

    def _check_writable(self) -> None:
        self._check_usable()
        snapshot = self._setting.snapshot
        opening.require_writable(self._path, self._setting.readonly, None if snapshot is None else snapshot.name)

    def close(self, *, progress: Progress | None = None) -> None:
        """Folds a long tail, ends the background work and closes the store. Closing again does nothing.

        Args:
            progress: Called as progress(stage, done, total) now and then.

        Raises:
            StorageFullError: No space to fold the tail. The store is closed all the same, and everything written is in it.
        """
        try:
            self._check_usable()
        except ForkedStoreError:
            self._finalizer()
            raise
        except StoreClosedError:
            pass  # or it is just being closed
        with self._closing:
            if self._finalizer.alive:
                self._close(progress)

    def _close(self, progress: Progress | None) -> None:
        try:
            self._core.maintenance.stop()
            if not self._setting.readonly:
                self._run(lambda core: core.maintenance.run(progress=progress, stoppable=False))
        except StorageFullError as err:
            raise StorageFullError(
                f"the store is closed and holds all that was written; the graph over its newest items found no space: {err}"
            ) from err
        finally:
            self._finalizer()

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        elif isinstance(error, Exception):
            with suppress(StorageFullError):  # a graph is missing; what was not written is worse, and must not be hidden by it
                self.close()
        else:  # interrupted: do not build graphs now
            self._finalizer()
