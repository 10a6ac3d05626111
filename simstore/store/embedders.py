"""The embedders that an open store has at hand; which one counts, the newest state tells."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simstore.embedders import Embedder, from_record
from simstore.errors import EmbedderMismatchError, EmbedderRequiredError
from simstore.storage import Schema
from simstore.store.models import model_path

__all__ = ["Embedders"]


class Embedders:
    """Has the embedder for each schema of the store: reembed() and restore(), here or in another process, change it.

    Args:
        path: The store's directory.
        given: What the store was opened with, if anything.
        record: What the store remembers of its embedder.
        readonly: The store was opened to be read: where it names no embedder, the given one serves all the same.
    """

    def __init__(self, path: Path, given: Embedder | None, record: dict[str, Any] | None, *, readonly: bool) -> None:
        self._path = path
        self._unnamed = given if readonly and record is None else None
        self._at_hand: dict[str, Embedder] = {}  # those that could not be loaded again
        self._saved: Embedder | None = None  # of the others, the last one used
        if given is not None and record is not None:
            with self.taking(given, record):
                pass

    def of(self, schema: Schema) -> Embedder:
        """The embedder that makes vectors like those of a schema.

        Raises:
            EmbedderRequiredError: There is none, or it was not saved and is to be given.
            EmbedderMismatchError: The one that was given is another.
        """
        record = schema.embedder
        if record is None:
            if self._unnamed is None:
                raise EmbedderRequiredError(
                    "this store has no embedder to turn inputs into vectors: give vectors, or open it with embedder=…"
                )
            return self._unnamed
        fingerprint = record["fingerprint"]
        known = self._at_hand.get(fingerprint) or self._saved
        if known is None or known.spec.fingerprint != fingerprint:
            known = from_record(record, model_path(self._path, record))
            if known is None:
                raise self._missing(record)
            self._saved = known
        return known

    @contextmanager
    def taking(self, embedder: Embedder, record: dict[str, Any]) -> Iterator[None]:
        """Has an embedder at hand from the moment on when the store goes over to it, which it does within."""
        self._at_hand[record["fingerprint"]] = embedder
        try:
            yield
            if record["saved"]:
                self._saved = embedder
        finally:
            if record["saved"]:  # its place may be needed for another model, and it can be loaded again
                self._at_hand.pop(record["fingerprint"], None)

    def _missing(self, record: dict[str, Any]) -> EmbedderRequiredError | EmbedderMismatchError:
        names = ", ".join(repr(one.spec.name) for one in (*self._at_hand.values(), self._saved or self._unnamed) if one)
        if not names:
            return EmbedderRequiredError(
                f"this store's embedder {record['name']!r} could not be saved with it: open it with embedder=… (its "
                f"fingerprint is {record['fingerprint']})"
            )
        return EmbedderMismatchError(
            f"the store's vectors are now those of the embedder {record['name']!r} (dim {record['dim']}, fingerprint "
            f"{record['fingerprint']}), which could not be saved with it, and this Store has {names}: reembed() or restore() "
            "has changed that since it was opened. Close it, and open it with embedder=… that one"
        )
