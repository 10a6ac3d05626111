"""Threads that read and decode files; what they do comes back in the order in which it was asked for."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from simstore.errors import IngestError, RejectedError
from simstore.ingest.channel import AbandonedError
from simstore.ingest.examples import size_bytes
from simstore.ingest.tally import Tally
from simstore.readers import Decoded, FileBatch
from simstore.store.intake import Found

__all__ = ["MOST_HANGING", "Failed", "Outcome", "Same", "Taken", "Task", "Workers"]

MOST_HANGING = 8
_AHEAD_BYTES = 256 << 20  # decoded and not fetched yet, before no other file is begun
_CLOSE_S = 5.0  # how long a thread may take to end
_LOOK_S = 0.1  # how often who waits looks whether the run is to end


class Same(NamedTuple):
    """The file holds what it held."""

    digest: int


class Taken(NamedTuple):
    """The file was decoded."""

    decoded: Decoded
    digest: int


class Failed(NamedTuple):
    """The file cannot be taken in."""

    reason: str
    message: str


Outcome = Same | Taken | Failed | BaseException


class Task:
    """A file to be read, and decoded unless it holds what its item remembers.

    Attributes:
        at: Which file of the batch it is.
        found: The item under its key, or None.
        known: The hash that the item remembers, or None.
        was_rejected: Whether it was rejected in an earlier run.
        source: The reader's.
    """

    __slots__ = ("at", "batch", "found", "is_abandoned", "known", "outcome", "source", "started", "was_rejected")

    def __init__(
        self, batch: FileBatch, at: int, source: str, *, found: Found | None, known: int | None, was_rejected: bool
    ) -> None:
        self.batch, self.at, self.source = batch, at, source
        self.found, self.known, self.was_rejected = found, known, was_rejected
        self.outcome: Outcome | None = None
        self.started = 0.0
        self.is_abandoned = False

    def run(self) -> Outcome:
        """Reads the file, and decodes it if need be. What is no error of this one file is returned to be raised."""
        try:
            content = self.batch.read(self.at)
        except RejectedError as err:
            return Failed(err.reason, str(err))
        except ImportError as err:  # a package is missing: so it is for every other file
            return err
        except Exception as err:
            return Failed("unreadable", f"{type(err).__name__}: {err}")
        digest = xxh3_64_intdigest(content)
        if digest == self.known:
            return Same(digest)
        try:
            return Taken(self.batch.decode(self.at, content), digest)
        except RejectedError as err:
            return Failed(err.reason, str(err))
        except ImportError as err:
            return err
        except Exception as err:
            return Failed("decoder failed", f"{type(err).__name__}: {err}")


class Workers:
    """Threads that run tasks, begun in the order in which they come.

    A task that takes longer than timeout_s has failed, and its thread is left to itself: another takes its place. Python
    cannot end a thread.

    Args:
        n: How many threads.
        timeout_s: How long a task may take.
        tally: Counts the time spent.
    """

    def __init__(self, n: int, timeout_s: float, tally: Tally) -> None:
        self._n, self._timeout_s, self._tally = n, timeout_s, tally
        self._waiting: deque[Task] = deque()
        self._running: dict[Task, threading.Thread] = {}
        self._changed = threading.Condition()
        self._ahead_bytes = 0
        self._is_closed = False
        self._threads: set[threading.Thread] = set()
        self._hanging: set[threading.Thread] = set()

    def submit(self, tasks: Sequence[Task]) -> None:
        """Has tasks run, after those before them. Threads are made when first needed."""
        if not tasks:
            return
        with self._changed:
            self._waiting.extend(tasks)
            while len(self._threads) < self._n and not self._is_closed:
                self._start()
            self._changed.notify_all()

    def outcome(self, task: Task, is_stopped: Callable[[], bool]) -> Outcome | None:
        """What became of a task, once that is known; to be asked in the order of the tasks. None if the run is to end.

        Raises:
            IngestError: Too many decoders hang.
            AbandonedError: The workers were closed.
        """
        with self._changed:
            while task.outcome is None:
                if self._is_closed:
                    raise AbandonedError
                if is_stopped():
                    return None
                self._changed.wait(_LOOK_S)
                self._abandon_hanging()
            if isinstance(task.outcome, Taken):
                self._ahead_bytes -= size_bytes(task.outcome.decoded.input)
                self._changed.notify_all()
            return task.outcome

    def close(self) -> None:
        """Ends the threads, but for those that hang. What is not begun is dropped."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()
        deadline = time.monotonic() + min(self._timeout_s, _CLOSE_S)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # -- within the lock --

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="simstore-decode", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _abandon_hanging(self) -> None:
        latest = time.monotonic() - self._timeout_s
        for task in [one for one in self._running if one.started < latest]:
            task.is_abandoned = True
            task.outcome = Failed("timed out", f"not decoded within {self._timeout_s:g} s")
            thread = self._running.pop(task)
            self._threads.discard(thread)
            self._hanging.add(thread)
            if len(self._hanging) >= MOST_HANGING:
                raise IngestError(
                    f"{len(self._hanging)} files were not decoded within {self._timeout_s:g} s each, and the threads that try "
                    f"cannot be ended; the last one is {task.batch.files[task.at].path!r}. Is a disk or network slow? "
                    "A larger timeout_s waits longer. What was committed stays"
                )
            self._start()

    # -- in the threads --

    def _work(self) -> None:
        task = self._next()
        while task is not None:
            start = time.perf_counter()
            outcome = task.run()
            self._tally.spent("decode", time.perf_counter() - start)
            if not self._settle(task, outcome):
                return
            task = self._next()

    def _next(self) -> Task | None:
        with self._changed:
            while not self._is_closed and (not self._waiting or self._ahead_bytes >= _AHEAD_BYTES):
                self._changed.wait()
            if self._is_closed:
                return None
            task = self._waiting.popleft()
            task.started = time.monotonic()
            self._running[task] = threading.current_thread()
            return task

    def _settle(self, task: Task, outcome: Outcome) -> bool:
        """Tells what became of a task; False if nobody waits for this thread any more."""
        with self._changed:
            if task.is_abandoned:
                return False
            del self._running[task]
            if isinstance(outcome, Taken):
                self._ahead_bytes += size_bytes(outcome.decoded.input)
            task.outcome = outcome
            self._changed.notify_all()
            return True
