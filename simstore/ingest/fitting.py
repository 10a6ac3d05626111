"""The texts of a data set, for embedders that are fitted to them before the first run."""

from collections.abc import Iterator, Sequence

from simstore.readers import Reader, RowBatch

__all__ = ["texts_of"]

_ROWS = 1_024


def texts_of(readers: Sequence[Reader]) -> Iterator[str]:
    """All texts of readers, in their order, read as they are asked for; what else they read is passed over."""
    for reader in readers:
        if reader.input_kind != "text":
            continue
        for batch in reader.batches(_ROWS):
            if isinstance(batch, RowBatch):
                yield from (text for text in batch.inputs if isinstance(text, str))
