"""What is on disk: files, LMDB tables, encodings. It knows rows and bytes, never a distance."""

from simstore.storage.attempts import REFUSALS, Attempt, MovedError
from simstore.storage.database import Database, NewRows
from simstore.storage.environment import DATA_FILE, EngineError, Environment, Transaction, translate
from simstore.storage.files import Files, LocalFiles
from simstore.storage.meta_pages import check_size
from simstore.storage.records import LogEntry, SegmentRecord, SnapshotRecord, State
from simstore.storage.rejected_table import Place, RejectedRecord
from simstore.storage.schema import FORMAT_VERSION, IndexedField, Schema
from simstore.storage.staging_table import Staging

__all__ = [
    "DATA_FILE",
    "FORMAT_VERSION",
    "REFUSALS",
    "Attempt",
    "Database",
    "EngineError",
    "Environment",
    "Files",
    "IndexedField",
    "LocalFiles",
    "LogEntry",
    "MovedError",
    "NewRows",
    "Place",
    "RejectedRecord",
    "Schema",
    "SegmentRecord",
    "SnapshotRecord",
    "Staging",
    "State",
    "Transaction",
    "check_size",
    "translate",
]
