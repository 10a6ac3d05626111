"""Examples in, vectors out; what an embedder fails on is found."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError, EmbedderMismatchError, EmbedderRequiredError, IngestError
from simstore.ingest.examples import Examples
from simstore.ingest.places import shown
from simstore.ingest.stamps import place_of, rejection
from simstore.ingest.tally import Tally
from simstore.readers import SourceFile
from simstore.storage import RejectedRecord
from simstore.store.intake import Intake

__all__ = ["Embedding"]

_MOST_IN_A_ROW = 8  # examples that failed, and none between that did not: then it is not the examples
# What concerns all examples
_GENERAL = ImportError, CorruptStoreError, EmbedderMismatchError, EmbedderRequiredError


class Embedding:
    """Embeds examples with the store's embedder.

    Args:
        intake: The store.
        at: When the run began.
    """

    def __init__(self, intake: Intake, tally: Tally, at: float) -> None:
        self._intake, self._tally, self._at = intake, tally, at
        self._n_in_a_row = 0
        self._made_by: str | None = None

    def embedded(self, examples: Examples) -> tuple[Examples, list[RejectedRecord], str | None]:
        """The examples with vectors as inputs, less those on which the embedder fails; these; the embedder's fingerprint.

        Where it fails on a batch, each half is tried, down to single ones.

        Raises:
            IngestError: It fails on every example.
        """
        failed: dict[int, Exception] = {}
        with self._tally.timing("embed"):
            parts = self._parts(examples.inputs, 0, failed)
        n = len(examples) - len(failed)
        self._tally.count("n_embedded", n)
        self._n_in_a_row = self._n_in_a_row + len(failed) if not n else 0
        if self._n_in_a_row >= _MOST_IN_A_ROW:
            at, err = next(iter(failed.items()))
            where = shown(place_of(examples.marks[at]))
            raise IngestError(f"the embedder fails on every example, as on {where}: {_told(err)}") from err
        kept = examples.only([i for i in range(len(examples)) if i not in failed])
        kept.inputs = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty((0, 1), np.float32)
        return kept, [self._rejected(examples, i, err) for i, err in failed.items()], self._made_by

    def _parts(self, inputs: Any, first: int, failed: dict[int, Exception]) -> list[NDArray[np.float32]]:
        """The vectors of inputs, the first of which has the number first, in parts."""
        try:
            vectors, self._made_by = self._intake.embed(inputs)
            return [vectors]
        except _GENERAL:
            raise
        except Exception as err:
            if len(inputs) == 1:
                failed[first] = err
                return []
        half = len(inputs) // 2
        return self._parts(inputs[:half], first, failed) + self._parts(inputs[half:], first + half, failed)

    def _rejected(self, examples: Examples, i: int, err: Exception) -> RejectedRecord:
        mark = examples.marks[i]
        file = SourceFile(mark["file"], mark["size"], mark["mtime_ns"])
        return rejection(place_of(mark), file, examples.keys[i], "embedder failed", _told(err), self._at)


def _told(err: Exception) -> str:
    lines = str(err).strip().splitlines()
    return f"{type(err).__name__}: {lines[0]}" if lines else type(err).__name__
