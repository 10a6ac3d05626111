"""What is on disk: files, LMDB tables, encodings. It knows rows and bytes, never a distance."""

from simstore.storage.database import FORMAT_VERSION, Database, NewRows, Schema
from simstore.storage.environment import (
    DATA_FILE,
    REFUSALS,
    Attempt,
    EngineError,
    Environment,
    Transaction,
    check_size,
    translate,
)
from simstore.storage.files import Files, LocalFiles
from simstore.storage.records import LogEntry, SegmentRecord, State

__all__ = [
    "DATA_FILE",
    "FORMAT_VERSION",
    "REFUSALS",
    "Attempt",
    "Database",
    "EngineError",
    "Environment",
    "Files",
    "LocalFiles",
    "LogEntry",
    "NewRows",
    "Schema",
    "SegmentRecord",
    "State",
    "Transaction",
    "check_size",
    "translate",
]
