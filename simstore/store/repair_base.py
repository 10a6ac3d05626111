"""What all parts of repair() share: the transaction, what has been done, and what must be taken out."""

from simstore.storage import Database, Transaction
from simstore.storage.mending import Mender
from simstore.store.quarantine import Lost
from simstore.types import Progress

__all__ = ["Repair"]


class Repair:
    """One run of repair(), within its write transaction.

    Attributes:
        rebuilt: What has been set right so far.
        lost: The items that are taken out.
        newest_seq: The newest transaction that anything names.
    """

    def __init__(self, txn: Transaction, database: Database, tell: Progress) -> None:
        self.txn, self.database = txn, database
        self.tell = tell
        self.mender = Mender()
        self.rebuilt: list[str] = []
        self.lost: list[Lost] = []
        self.newest_seq = 0

    def note(self, what: str) -> None:
        """Says that something has been set right."""
        if what not in self.rebuilt:
            self.rebuilt.append(what)

    def seen(self, seq: int) -> None:
        """Learns of a transaction."""
        self.newest_seq = max(self.newest_seq, seq)
