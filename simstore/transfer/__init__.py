"""Whole stores as Parquet, JSONL or npz files, and back: keys, labels, data and vectors come back exactly.

A file holds one state: no snapshots, no graphs, and of the embedder its name and fingerprint. ``Store.backup`` copies all of
that.
"""

from simstore.transfer.exporting import Exported, export_store
from simstore.transfer.file_info import FileInfo
from simstore.transfer.formats import FORMATS, file_info
from simstore.transfer.importing import Imported, check_file, import_file
from simstore.transfer.json_form import from_json, to_json

__all__ = [
    "FORMATS",
    "Exported",
    "FileInfo",
    "Imported",
    "check_file",
    "export_store",
    "file_info",
    "from_json",
    "import_file",
    "to_json",
]
