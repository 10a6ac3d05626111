"""reembed() and other processes: those that are killed on the way, and those that go on searching and writing."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore
from naive import assert_nearest
from numpy.typing import NDArray
from worlds import WEIGHTS, Counted, Kept, World, assert_holds, embedder, inputs_of, raising_at, world_of, write

from simstore import Reembedded
from simstore.errors import InvalidArgumentError

Ask = Callable[..., Any]


@pytest.fixture
def world() -> dict[str | int, NDArray[np.float32]]:
    return world_of(100)


@contextmanager
def child(*arguments: Any) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(__file__).with_name("reembed_child.py")), *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(path: Path, mode: str, name: str = "") -> Iterator[Ask]:
    """A process that has the store open; ask(method, argument=…) has it call a method, and returns what came of it."""
    with child("serve", path, mode, name) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def ask(method: str, **arguments: Any) -> Any:
            assert process.stdin is not None and process.stdout is not None
            plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in arguments.items()}
            process.stdin.write(json.dumps([method, plain]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()
        assert process.wait(60) == 0


def assert_answers(said: Any, query: NDArray[np.float32], world: World, name: str) -> None:
    keys, distances = said
    expected = {key: x.astype(np.float64) @ WEIGHTS[name] for key, x in world.items()}
    assert_nearest(keys, distances, query.astype(np.float64) @ WEIGHTS[name], expected, "l2", 5)


def test_kill_minus_nine_again_and_again(stores: OpenStore, tmp_path: Path, world: World) -> None:
    store = stores(embedder=embedder("a"), metric="l2")
    write(store, world)
    store.close()
    for n in (3, 2, 1):
        with child("move", tmp_path / "store.sim", "", "") as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(n + 1)] == [f"batch {i}\n" for i in range(n + 1)]
        between = stores(embedder=embedder("a"))
        assert_holds(between, world, "a")
        between.close()
    rest = Counted("b")
    last = stores(embedder=embedder("a"))
    done = last.reembed(embedder("b", rest))
    assert done.n_items == 100 and 60 <= done.n_resumed < 100
    assert sum(rest.sizes) == 100 - done.n_resumed
    assert_holds(last, world, "b")


@pytest.mark.parametrize("death", ["before the commit", "after the commit", "file.written", "file.synced", "file.renamed"])
def test_killed_at_the_switch(stores: OpenStore, tmp_path: Path, world: World, death: str) -> None:
    store = stores(embedder=Kept("a", tmp_path), metric="l2")
    write(store, world)
    store.close()
    with child("move", tmp_path / "store.sim", death, tmp_path) as process:
        assert process.wait(60) == 9
    after = "b" if death == "after the commit" else "a"
    again = stores(embedder=Kept(after, tmp_path))
    assert_holds(again, world, after)
    assert [path.name for path in (tmp_path / "store.sim" / "embedder").iterdir()] == [f"f-{after}.keras"]
    if after == "a":
        assert again.reembed(Kept("b", tmp_path)) == Reembedded(100, 10, 100)
        assert_holds(again, world, "b")


@pytest.mark.parametrize("new", ["b", "c"])
def test_another_process_searches_and_writes_all_the_while(
    stores: OpenStore, tmp_path: Path, world: dict[str | int, NDArray[np.float32]], new: str
) -> None:
    store = stores(embedder=embedder("a"), metric="l2")
    write(store, world)
    store.snapshot("before")
    x, added = inputs_of(2, 3)
    with serving(tmp_path / "store.sim", "a", "a") as ask, serving(tmp_path / "store.sim", "r") as read:

        def during(batch: int) -> None:
            if batch == 4:
                assert ask("upsert", keys="added", inputs=added, data=added) == "Counts(added=1, replaced=0)"
            now = {**world, "added": added} if batch >= 4 else world
            assert_answers(ask("search", input=x, k=5), x, now, "a")
            assert_answers(read("search", query=x @ WEIGHTS["a"], k=5), x, now, "a")

        assert store.reembed(embedder(new, Counted(new, during)), batch_size=20).n_items == 101
        world = {**world, "added": added}
        for one in (read, ask):  # neither has looked at the store since the switch
            assert_answers(one("search", query=x @ WEIGHTS[new], k=5), x, world, new)
        for method, arguments in (
            ("search", {"input": x}),
            ("add", {"keys": "no", "inputs": x}),
            ("upsert", {"keys": "added", "inputs": x}),
        ):
            assert ask(method, **arguments).startswith(
                f"EmbedderMismatchError: the store's vectors are now those of the embedder {new!r}"
            )
        assert read("search", input=x).startswith("EmbedderRequiredError")
        if new == "b":
            assert (
                ask("search", query=x @ WEIGHTS["a"]) == "DimensionError: query has 4 numbers; this store holds vectors of 10"
            )
            assert ask("add", keys="no", vectors=x @ WEIGHTS["a"]).startswith("DimensionError: vectors have 4 numbers each")
        assert ask("upsert", keys="added", vectors=x @ WEIGHTS[new]) == "Counts(added=0, replaced=1)"
        np.testing.assert_allclose(store.get("added").vector, x @ WEIGHTS[new], atol=1e-5)
        assert ask("check") == "[]"
        store.restore("before")
        del world["added"]
        assert_answers(ask("search", input=x, k=5), x, world, "a")
        assert ask("add", keys="last", inputs=added, data=added) == "['last']"
        assert_holds(store, {**world, "last": added}, "a")
        ask("compact")
        assert_holds(store, {**world, "last": added}, "a")
        assert read("check") == "[]"


def test_another_process_goes_on_with_the_move(stores: OpenStore, tmp_path: Path, world: World) -> None:
    """A call that was interrupted here is finished there; and what is written between the two is embedded there."""
    store = stores(embedder=embedder("a"), metric="l2")
    write(store, world)
    calls = Counted("b", raising_at(3, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        store.reembed(embedder("b", calls), batch_size=20)
    write(store, {"late": world["k1"]})
    with child("move", tmp_path / "store.sim", "", "") as process:
        assert process.stdout is not None
        assert process.stdout.read().split("\n")[:-1] == [f"batch {i}" for i in range(5)] + ["done"]
    calls.before = None
    assert_holds(store, {**world, "late": world["k1"]}, "b")  # it was given that embedder


def test_keras_models_are_loaded_by_whoever_needs_them(stores: OpenStore, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras", reason="needs the extra simstore[keras]")
    from simstore.embedders import KerasEmbedder

    def model(dim: int, seed: int) -> Any:
        made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(dim)])
        made.layers[0].set_weights([np.random.default_rng(seed).standard_normal((3, dim)), np.zeros(dim)])
        return made

    inputs = inputs_of(50)
    old, new = KerasEmbedder(model(4, 1)), KerasEmbedder(model(6, 2), preprocess=keras.layers.Rescaling(0.5))

    def right(said: Any, which: KerasEmbedder) -> None:
        vectors = dict(zip(map(str, range(50)), which.embed(inputs), strict=True))
        assert_nearest(said[0], said[1], which.embed(inputs[7:8])[0], vectors, "cosine", 3)

    store = stores(embedder=old)
    store.add([str(i) for i in range(50)], inputs=inputs, data=list(inputs))
    store.snapshot("before")
    with serving(tmp_path / "store.sim", "a") as ask:
        right(ask("search", input=inputs[7], k=3), old)
        done: list[int] = []

        def progress(stage: str, n: int, total: int) -> None:
            right(ask("search", input=inputs[7], k=3), old)
            done.append(n)

        assert store.reembed(new, batch_size=20, progress=progress) == Reembedded(50, 6, 0)
        assert done == [20, 40, 50]
        right(ask("search", input=inputs[7], k=3), new)
        assert ask("upsert", keys="7", inputs=inputs[7], data=inputs[7]) == "Counts(added=0, replaced=1)"
        store.restore("before")
        right(ask("search", input=inputs[7], k=3), old)
        hits = store.search(input=inputs[7], k=3)
        right((hits.keys, hits.distances.tolist()), old)
        assert ask("check") == "[]"
    new.model.layers[0].set_weights([np.ones((3, 6)), np.zeros(6)])
    with pytest.raises(InvalidArgumentError, match=r"has changed since.*make a new KerasEmbedder"):
        store.reembed(new)
