"""A file among others that cannot be read."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from simstore.errors import RejectedError
from simstore.readers.files import source_file
from simstore.readers.reader import Batch, InputKind, Notes, Refused, RowBatch, SourceFile

__all__ = ["UnreadReader"]


@dataclass(frozen=True, slots=True)
class UnreadReader:
    """A file of which no reader could be made: it has no examples, and tells why.

    Args:
        source: Its path, absolute.
        error: What was found.
    """

    source: str
    error: RejectedError
    format: str = "examples"
    input_kind: InputKind = "vector"
    n_examples: int = 0

    def notes(self) -> Notes:
        """Nothing."""
        return Notes((), ())

    def batches(self, size: int) -> Iterator[Batch]:
        """One, of what is refused."""
        try:
            status = os.lstat(self.source)
        except OSError:
            status = None
        file, key = source_file(self.source, status), os.path.basename(self.source)
        refused = Refused(file, None, key, self.error.reason, str(self.error))
        yield RowBatch(SourceFile("", 0, 0), [], [], [], [], [], (refused,))
