"""Group commit: calls from many threads share a transaction, and with it the wait for the disk."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from types import NoneType
from typing import Any, TypeVar, cast

from simstore.errors import SimstoreError
from simstore.storage import REFUSALS, Attempt, Environment, Transaction

__all__ = ["Commits"]

T = TypeVar("T")
_MOST = 256  # works in one transaction
_LOOK_AGAIN_S = 0.05
_GATHER_S = 0.00005  # within which the next call comes, where threads write all the time
_CLEAR_READERS_S = 1.0
_log = logging.getLogger(__name__)


class _Ticket(Attempt):
    """A call: its work, and what came of it."""

    # What follows stands in the class, so that a lone call need not set it
    result: Any = None  # ``committed`` is for when it gets a transaction of its own
    error: BaseException | None = None
    taken = False  # it is in a group
    settled = False  # result or error is the call's
    withdrawn = False  # the call was interrupted: nobody waits any more
    wake: Any = None  # a lock that the call waits to acquire
    after: "_Ticket | None" = None  # the call that this one wakes

    def __init__(self, work: Callable[[Transaction], Any], thread: int) -> None:
        self.work = work
        self.thread = thread

    def run(self, txn: Transaction) -> None:
        """Does the work. That it is refused is a result like another: see ``REFUSALS``, nothing was put."""
        self.error = None
        try:
            self.result = self.work(txn)
        except REFUSALS as err:
            self.error = err

    def rouse(self) -> None:
        """Has the call look again at how things are."""
        if self.wake is not None:
            try:  # noqa: SIM105 - suppress costs more than the release
                self.wake.release()
            except RuntimeError:
                pass  # it was told already

    def settle(self) -> None:
        """Tells the call that result or error is there."""
        self.settled = True
        if self.wake is not None:
            self.rouse()


class _Group(Attempt):
    """Works that share a transaction; or, once that has failed, that get one each."""

    def __init__(self, queue: deque[_Ticket]) -> None:
        self.committed = False
        self.failure: Exception | None = None
        self.failed_again = False
        self.tickets: list[_Ticket] = []
        self._queue = queue

    def take(self) -> bool:
        """Moves the next call of the queue into the group."""
        queue = self._queue
        while queue and len(self.tickets) < _MOST:
            ticket = queue[0]
            fresh = not ticket.taken and not ticket.withdrawn
            if fresh:
                ticket.taken = True
                self.tickets.append(ticket)
            queue.popleft()  # only leaders do; an interrupt before it leaves the ticket in both, marked
            if fresh:
                return True
        return False

    def struck(self) -> bool:
        """Whether what failed is an interrupt of the leader's thread: no work raises it, and it did not come again."""
        return not self.failed_again and not isinstance(self.failure, (NoneType, SimstoreError, MemoryError))

    def run(self, txn: Transaction) -> None:
        """Does the works, those that are queued meanwhile as well. From the beginning, if the map had to grow."""
        at = 0
        while at < len(self.tickets) or (self._queue and self.take()):
            if not self.tickets[at].withdrawn:
                self.tickets[at].run(txn)
            at += 1


class Commits:
    """Runs works in write transactions, those of calls that come at the same time in one.

    The first call leads: it takes all works that are queued, its own among them, runs them one after the other in one
    transaction in its thread, commits, and settles the calls. Those that come while it waits for the disk queue up for the next
    leader. A refused work (REFUSALS) fails its own call only. Any other failure undoes the transaction, and each of its works
    runs again in one of its own: a work may run several times, so it keeps nothing outside the transaction.

    Calls that shared a commit come again together. The next leader waits until as many are there, or until none has come for a
    moment: a commit of its own for the first of them would have all others wait for the disk once more. And each call wakes
    the next: woken all at once they would fight for Python's lock.

    Interrupts (Ctrl-C, SystemExit, PyThreadState_SetAsyncExc) strike where they like: in CPython when a call returns, when a
    function begins and where a loop jumps back, and nowhere else. However many strike, it is guaranteed that

    - the interrupted call raises. Its work may be written or not.
    - no other call is lost, done twice or told a wrong outcome. What is under way lies in ``_queue`` and ``_group``, never only
      in a leader's variables, and each step leaves it whole: whoever leads next finishes what an interrupted leader began.
      Whether a transaction was committed says its Attempt, not the exception.
    - nothing hangs. Leadership ends in a ``finally`` that begins without a call. It is never handed over, only free to take: a
      call that is woken to lead and dies instead takes nothing along. All that an interrupt can swallow is a wake-up, and
      who waits looks for itself after ``_LOOK_AGAIN_S``.

    The exception to it: where a group has failed and its works run one by one, an interrupt of a class under Exception that
    strikes the leader is taken for an error of the work that runs.
    """

    def __init__(self, environment: Environment) -> None:
        self.n_commits = 0
        self.n_writes = 0
        self._environment = environment
        self._queue: deque[_Ticket] = deque()
        self._group: _Group | None = None  # the leader's, or what an interrupted leader left
        self._leader: _Ticket | None = None
        self._n_last = 1  # calls in the last transaction
        self._mutex = threading.Lock()  # for becoming the leader; held for no call, so that nobody ever waits for it
        self._clear_at = time.monotonic() + _CLEAR_READERS_S

    def write(self, work: Callable[[Transaction], T]) -> T:
        """What work(transaction) returns, when that is on the disk; or raises what it raised, and nothing of it was written.

        Raises:
            StorageFullError: No space; nothing was written.
            StorageError, CorruptStoreError: LMDB refused; nothing was written.
        """
        self._environment.check_usable()  # before any lock: in a forked child some thread that is no more may hold it
        leader, thread = self._leader, threading.get_ident()
        if leader is not None and leader.thread == thread:  # a signal handler's call, or a finalizer's
            return self._environment.write(work)  # LMDB says whether a transaction is open
        ticket = _Ticket(work, thread)
        try:
            if self._takes_lead(ticket) and self._n_last == 1 and not self._queue and self._group is None:
                ticket.result = self._environment.write(work)  # alone: nothing to leave behind for a next leader
                self.n_commits += 1
                self.n_writes += 1
                ticket.settled = True
                self._clear_dead_readers()
            else:
                self._queue.append(ticket)
                while not ticket.settled:
                    self._lead_or_wait(ticket)
        finally:
            led = self._leader is ticket
            if led:
                self._leader = None
            if ticket.after is not None:
                ticket.after.rouse()
            if not ticket.settled:
                ticket.withdrawn = True
                self._rouse_next()
            elif led and (self._queue or self._group is not None):
                self._rouse_next()
        if ticket.error is None:
            return cast(T, ticket.result)
        try:
            raise ticket.error
        finally:
            ticket.error = None  # it refers to this frame, which refers to the ticket

    def _takes_lead(self, ticket: _Ticket) -> bool:
        with self._mutex:
            if self._leader is None:
                self._leader = ticket
            return self._leader is ticket

    def _lead_or_wait(self, ticket: _Ticket) -> None:
        if self._takes_lead(ticket):
            self._lead(ticket)
        elif ticket.wake is None:  # once it can be woken, look again before the wait
            ticket.wake = _acquired_lock()
        else:
            ticket.wake.acquire(timeout=_LOOK_AGAIN_S)

    def _rouse_next(self) -> None:
        """Wakes a call that can lead: the newest, as an older one may lie under a signal handler that waits in its own call."""
        group = self._group
        waiting = [*([] if group is None else group.tickets), *self._queue.copy()]
        for ticket in reversed(waiting):
            if not ticket.settled and not ticket.withdrawn:
                ticket.rouse()
                return

    # -- the leader's --

    def _lead(self, own: _Ticket) -> None:
        while not own.settled:
            group = self._group
            if group is None:
                group = self._group = _Group(self._queue)
            begins = not group.committed and group.failure is None
            if begins:
                self._attempt(group)
            if group.committed:
                self._settle(group)
            else:
                self._settle_each(group)
            self._group = None
            try:
                if begins and group.struck():
                    raise group.failure  # type: ignore[misc]
            finally:
                group.failure = None  # it refers to frames that refer to the group
        self._clear_dead_readers()

    def _attempt(self, group: _Group) -> None:
        """Runs a group's works in one transaction."""
        self._gather(group)
        try:
            self._environment.write(group.run, attempt=group)
        except Exception as err:
            if group.committed:
                raise  # it struck this thread after the commit
            group.failure = err
        self._n_last = len(group.tickets)

    def _gather(self, group: _Group) -> None:
        """Moves the queue into the group, and waits for those that are about to come."""
        while group.take():
            pass
        n = 0
        while n < len(group.tickets) < self._n_last:
            n = len(group.tickets)
            time.sleep(_GATHER_S)
            while group.take():
                pass

    def _settle(self, group: _Group) -> None:
        self.n_commits += 1
        first = None
        for ticket in reversed(group.tickets):
            if not ticket.settled:
                self.n_writes += ticket.error is None
                ticket.after = first
                ticket.settled = True
                if ticket.wake is not None and not ticket.withdrawn:
                    first = ticket
        if first is not None:
            first.rouse()

    def _settle_each(self, group: _Group) -> None:
        """Gives each work what it would have got alone."""
        for ticket in group.tickets:
            if ticket.settled or ticket.withdrawn:
                continue
            if len(group.tickets) == 1:
                ticket.error, group.failed_again = group.failure, True
            elif not ticket.committed:
                self._run_alone(ticket, group)
            if ticket.committed:
                self.n_commits += 1
                self.n_writes += ticket.error is None
            ticket.settle()

    def _run_alone(self, ticket: _Ticket, group: _Group) -> None:
        try:
            self._environment.write(ticket.run, attempt=ticket)
        except Exception as err:
            if ticket.committed:
                raise  # it struck this thread after the commit
            ticket.error = err
            if type(err) is type(group.failure):
                group.failed_again = True

    def _clear_dead_readers(self) -> None:
        now = time.monotonic()
        if now < self._clear_at:
            return
        self._clear_at = now + _CLEAR_READERS_S
        try:
            self._environment.clear_dead_readers()
        except SimstoreError as err:  # what was written stays written
            _log.debug("dead readers were not cleared: %s", err)


def _acquired_lock() -> Any:
    lock = threading.Lock()
    lock.acquire()
    return lock
