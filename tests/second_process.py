"""A second process that has the same store open, and does what it is told over a pipe. Run as a script it is that process."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import simstore
from simstore import BatchHits, Hits, Item, SimstoreError


class SecondProcess:
    """Another process' Store: ``call("search", query, 3, where=…)`` does what the store's method does there."""

    def __init__(self, path: Path | None = None, **options: Any) -> None:
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if path is not None:
            self.open(path, **options)

    def open(self, path: Path, **options: Any) -> None:
        """Opens a store there, in place of the one before."""
        self._ask(("open", (str(path),), options))

    def _ask(self, what: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump(what, self._process.stdin)
        self._process.stdin.flush()
        kind, value = pickle.load(self._process.stdout)
        if kind == "raised":
            raise value
        return value

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        """What the method returns, as plain values; what it raises is raised here."""
        return self._ask((name, args, options))

    def close(self) -> None:
        """Closes the store there, and ends the process."""
        try:
            self._ask(("close", (), {}))
        finally:
            self.end()

    def end(self) -> None:
        """Ends the process."""
        self._process.communicate(timeout=60)

    def __enter__(self) -> "SecondProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def plain(result: Any) -> Any:
    """A result as it goes through the pipe: items and hits as tuples."""
    if isinstance(result, Hits):
        return [(hit.key, hit.distance, hit.label, hit.data) for hit in result]
    if isinstance(result, BatchHits):
        return [plain(hits) for hits in result]
    if isinstance(result, Item):
        return result.key, result.label, result.data, result.vector.tobytes()
    return [plain(one) for one in result] if hasattr(result, "__next__") else result


def main() -> None:
    """Does what each message says: a name, arguments and options."""
    store: Any = None
    while True:
        try:
            message = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            name, args, options = message
            if name == "open":
                store = simstore.open(*args, background=False, **options)
                answer = "opened", None
            else:
                answer = "returned", plain(getattr(store, name)(*args, **options))
        except SimstoreError as err:
            answer = "raised", type(err)(str(err))
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
