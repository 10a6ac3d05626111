"""A process beside the tests' own: moves a store and dies on the way, or answers what it is asked on stdin."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from worlds import Counted, Kept, embedder

import simstore
from simstore.errors import SimstoreError
from simstore.storage import Database, steps
from simstore.store.move import Move


def main(what: str, path: str, *arguments: str) -> None:
    if what == "serve":
        serve(path, *arguments)
    else:
        move(path, *arguments)


def move(path: str, death: str, models: str) -> None:
    """Moves the store to b, or to a kept b; says when a batch begins."""
    sys.modules[Move.__module__]._COMMIT_S = 0.0  # type: ignore[attr-defined]
    prepare(death)
    store = simstore.open(path, background=False)
    to: Any = Kept("b", Path(models)) if models else embedder("b", Counted("b", lambda n: print("batch", n, flush=True)))
    store.reembed(to, batch_size=10)
    print("done", flush=True)


def prepare(death: str) -> None:
    if death == "before the commit":
        end_staging = Database.end_staging

        def ended(self: Database, txn: Any) -> bool:
            end_staging(self, txn)
            os._exit(9)

        Database.end_staging = ended  # type: ignore[method-assign]
    elif death == "after the commit":
        alone = Move._alone

        def done(self: Move, work: Any) -> Any:
            alone(self, work)
            os._exit(9)

        Move._alone = done  # type: ignore[method-assign]
    elif death:
        steps.set_observer(lambda name: os._exit(9) if name == death else None)


def serve(path: str, mode: str, name: str) -> None:
    """Does what each line of stdin says, with a store that it opened before."""
    store = simstore.open(path, mode=mode, embedder=embedder(name) if name else None, background=False)  # type: ignore[arg-type]
    print("ready", flush=True)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        arguments = {key: np.array(value) if isinstance(value, list) else value for key, value in arguments.items()}
        try:
            result = getattr(store, method)(**arguments)
            said: Any = [result.keys, result.distances.tolist()] if method == "search" else repr(result)
        except SimstoreError as err:
            said = f"{type(err).__name__}: {err}"
        print(json.dumps(said), flush=True)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
