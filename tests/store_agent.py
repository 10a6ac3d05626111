"""A process that has a store open and does what it is told: a JSON request for each line of stdin, its answer on stdout."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from crash_model import OPTIONS, Model, assert_finds, assert_holds, call, vectors_of

import simstore
from simstore import Store
from simstore.store import maintenance

SECONDS = 60  # until an agent counts as hanging
_STOP = 100


class Board:
    """What several processes know of each other: how often each of a few writers has been told that a write is on the disk."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT)

    def put(self, place: int, n: int) -> None:
        os.pwrite(self._handle, n.to_bytes(8, "little"), 8 * place)

    def get(self, place: int) -> int:
        return int.from_bytes(os.pread(self._handle, 8, 8 * place), "little")

    def stop(self) -> None:
        """Has the others come to an end."""
        self.put(_STOP, 1)

    @property
    def goes_on(self) -> bool:
        return not self.get(_STOP)


def write_on(store: Store, board: Board, place: int) -> int:
    """Counts in one item, adds others and deletes them again; how far it got."""
    who, n = f"writer {place}", board.get(place)
    while board.goes_on:
        n += 1
        store.upsert([who, f"{who} {n}"], vectors_of([n, n + 1]), labels=[who, "passing"], data=[{"n": n}, {"n": n}])
        board.put(place, n)
        store.delete(f"{who} {n}")
    return n


def read_on(store: Store, board: Board, n_writers: int) -> int:
    """Sees what each writer was told to be written, in the next call; how many calls it made."""
    n_calls = 0
    while board.goes_on:
        for place in range(n_writers):
            n = board.get(place)
            if n == 0:
                continue
            who = f"writer {place}"
            item = (store.get, lambda key: next(item for item in store.scan() if item.key == key))[n_calls % 2](who)
            assert item.data["n"] >= n, f"{item.data['n']} is read where {n} was written"
            hit = store.search(item.vector, 2, exact=bool(n_calls % 3), with_vectors=True)[0]
            assert hit.vector is not None and abs(hit.distance - np.linalg.norm(hit.vector - item.vector)) < 1e-4
            assert who in store and len(store) >= 1
            n_calls += 1
    return n_calls


class _Agent:
    def __init__(self) -> None:
        self.store: Any = None

    def open(self, path: str, **options: Any) -> None:
        self.store = simstore.open(path, **({"background": False, **OPTIONS} | options))

    def close(self) -> None:
        self.store.close()

    def call(self, op: dict[str, Any]) -> Any:
        return call(self.store, op)

    def compact(self) -> int:
        n: int = self.store.compact().n_purged
        return n

    def holds(self, items: dict[str, Any]) -> None:
        model: Model = {key: (entry[0], entry[1], entry[2]) for key, entry in items.items()}
        assert_holds(self.store, model)
        assert_finds(self.store, model, 1)

    def check(self) -> list[str]:
        return [str(problem) for problem in self.store.check(deep=True)]

    def write_on(self, board: str, place: int) -> int:
        return write_on(self.store, Board(Path(board)), place)

    def read_on(self, board: str, n_writers: int) -> int:
        return read_on(self.store, Board(Path(board)), n_writers)


def _serve() -> None:
    maintenance.FOLD_BYTES, maintenance.FOLD_ROWS = 1, 8
    agent = _Agent()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"answer": getattr(agent, name)(**arguments)}
        except Exception as err:
            answer = {"error": f"{type(err).__name__}: {err}"}
        print(json.dumps(answer), flush=True)


class Agent:
    """The agent, from the test's side."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def tell(self, name: str, **arguments: Any) -> None:
        """Has it begin."""
        assert self._process.stdin is not None
        request = {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()}
        self._process.stdin.write(json.dumps([name, request]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """What came of it."""
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], SECONDS)[0], "the agent hangs"
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["answer"]

    def do(self, name: str, **arguments: Any) -> Any:
        """Has it do something, and waits for the answer."""
        self.tell(name, **arguments)
        return self.answer()


@contextmanager
def agents(n: int) -> Iterator[list[Agent]]:
    """Some agents."""
    processes = [
        subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(n)
    ]
    try:
        yield [Agent(process) for process in processes]
    finally:
        for process in processes:
            with process:
                assert process.stdin is not None
                process.stdin.close()
                process.wait(SECONDS)


if __name__ == "__main__":
    _serve()
