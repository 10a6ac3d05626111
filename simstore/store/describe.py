"""What is in a store, in numbers."""

from pathlib import Path

import numpy as np

from simstore.errors import CorruptStoreError
from simstore.reports import StoreInfo
from simstore.storage import DATA_FILE, Database, Files, Schema, Transaction
from simstore.storage.encoding import decode_key
from simstore.store.filters import Selection
from simstore.store.opening import SEGMENTS, directory_size
from simstore.store.view import View
from simstore.types import EmbedderSpec, Label
from simstore.where.paths import Path as FieldPath

__all__ = ["described", "embedder_of", "label_counts"]


def label_counts(txn: Transaction, database: Database, view: View, chosen: Selection | None = None) -> dict[Label, int]:
    """How many live items, or of those that a filter has chosen, each label has; None counts those without one.

    Raises:
        CorruptStoreError: A label leads to a row that does not exist.
    """
    counts: dict[Label, int] = {}
    visible, total = (view.alive, view.state.n_live) if chosen is None else (chosen.rows, chosen.count)
    n_rows = database.state(txn).next_row  # a snapshot sees fewer
    for name, rows in database.postings(txn, "labels"):
        if int(rows.max(initial=0)) >= n_rows:
            raise CorruptStoreError(
                f"label {name!r} leads to a row that does not exist: check(deep=True) lists all damage, repair() mends it"
            )
        counts[decode_key(name)] = int(np.count_nonzero(visible.of_rows(rows[rows < view.state.next_row])))
    counts[None] = total - sum(counts.values())
    return {label: count for label, count in counts.items() if count}


def embedder_of(schema: Schema) -> EmbedderSpec | None:
    """The embedder that a schema names."""
    record = schema.embedder
    return None if record is None else EmbedderSpec(record["name"], record["dim"], record["fingerprint"])


def described(txn: Transaction, database: Database, view: View, files: Files, directory: Path) -> StoreInfo:
    """Counts, sizes and settings."""
    schema, state = view.schema, view.state
    return StoreInfo(
        path=str(directory),
        count=state.n_live,
        n_labels=sum(label is not None for label in label_counts(txn, database, view)),
        dim=schema.dim,
        metric=schema.metric,
        M=schema.M,
        ef_construction=schema.ef_construction,
        embedder=embedder_of(schema),
        seq=state.seq,
        n_rows=state.next_row,
        n_dead=view.alive.n_dead,
        n_segments=len(view.records),
        n_tail=max(0, state.next_row - view.tail_first),  # a segment may hold rows that a snapshot does not see
        database_size_bytes=max(0, files.size(directory / DATA_FILE)),
        segments_size_bytes=directory_size(directory / SEGMENTS),
        format_version=schema.format,
        indexed_fields=tuple(_as_given(field.path) for field in schema.indexed),
    )


def _as_given(path: FieldPath) -> str | FieldPath:
    """A field's path as a str with dots, if it can be one."""
    names = [part for part in path if isinstance(part, str) and part and "." not in part]
    return ".".join(names) if path and len(names) == len(path) else path
