"""What waits until there is a batch of it for the embedder."""

from simstore.ingest.examples import Aside, Examples

__all__ = ["Pending"]

MOST_BYTES = 64 << 20  # of inputs; a batch of large ones has fewer


class Pending:
    """Examples in their order, cut into batches of one size.

    Args:
        size: How many examples a batch has.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[Examples] = []
        self._n = self._n_bytes = 0
        self._aside = Aside()

    def __bool__(self) -> bool:
        return bool(self._parts or self._aside)

    def add(self, examples: Examples | None, aside: Aside) -> None:
        """Adds examples after those that are there, and what is to be written with the next batch."""
        self._aside.add(aside)
        if examples is not None and len(examples):
            self._parts.append(examples)
            self._n += len(examples)
            self._n_bytes += examples.size_bytes

    def takes(self, examples: Examples | None) -> bool:
        """Whether examples may stand in one batch with those that are there."""
        return not self._parts or examples is None or examples.are_vectors == self._parts[0].are_vectors

    @property
    def is_enough(self) -> bool:
        """Whether a whole batch is there."""
        return bool(self._parts) and (self._parts[0].are_vectors or self._n >= self._size or self._n_bytes >= MOST_BYTES)

    def take(self) -> tuple[Examples | None, Aside]:
        """The next batch, or all that there is; vectors are not cut."""
        aside, self._aside = self._aside, Aside()
        if not self._parts:
            return None, aside
        joined = Examples.joined(self._parts)
        n = len(joined) if joined.are_vectors else min(self._size, len(joined))
        batch, rest = joined.part(0, n), joined.part(n, len(joined))
        self._parts, self._n, self._n_bytes = [], 0, 0
        self.add(rest, Aside())
        return batch, aside
