"""What a reader passed over, as it is remembered: a bounded number of paths, and how many more."""

from simstore.readers.reader import Notes

__all__ = ["NoteBook"]

_MOST = 1000


class NoteBook:
    """Collects what a reader has to tell."""

    def __init__(self) -> None:
        self._guesses: dict[str, None] = {}
        self._ignored: dict[str, str] = {}
        self._more = 0

    def guess(self, sentence: str) -> None:
        """Remembers a guess, once."""
        self._guesses[sentence] = None

    def ignore(self, path: str, why: str) -> None:
        """Remembers a path that was passed over, once."""
        if path in self._ignored or len(self._ignored) < _MOST:
            self._ignored[path] = why
        else:
            self._more += 1

    def forget_ignored(self) -> None:
        """Begins anew: the source is read once more."""
        self._ignored.clear()
        self._more = 0

    def notes(self) -> Notes:
        """All of it."""
        ignored = tuple(self._ignored.items())
        return Notes(tuple(self._guesses), ignored + ((("", f"and {self._more:,} more"),) if self._more else ()))
