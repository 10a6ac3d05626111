"""Stores of inputs that are embedded by small linear functions, and what they must then hold. No pytest: children import it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from naive import assert_nearest
from numpy.typing import NDArray

from simstore import Store
from simstore.embedders import FunctionEmbedder
from simstore.embedders.saved import SavedEmbedder

DIMS = {"a": 4, "b": 10, "c": 4, "wide": 300}
WEIGHTS = {name: np.random.default_rng(ord(name[0])).standard_normal((3, dim)) for name, dim in DIMS.items()}
World = Mapping[str | int, NDArray[np.float32]]
"""What a store holds: the input of each key."""


class Counted:
    """The function of an embedder: counts what it is given, and does something before a batch."""

    def __init__(self, name: str, before: Callable[[int], Any] | None = None) -> None:
        self.name, self.before = name, before
        self.sizes: list[int] = []

    def __call__(self, batch: Any) -> NDArray[np.float64]:
        if self.before is not None:
            self.before(len(self.sizes))
        self.sizes.append(len(batch))
        return np.asarray(batch) @ WEIGHTS[self.name]


def embedder(name: str, fn: Callable[[Any], Any] | None = None) -> FunctionEmbedder:
    return FunctionEmbedder(fn or Counted(name), name=name, dim=DIMS[name])


def raising_at(n: int, error: BaseException | None = None) -> Callable[[int], None]:
    def before(batch: int) -> None:
        if batch == n:
            raise RuntimeError("the GPU is on fire") if error is None else error

    return before


def inputs_of(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, 3)).astype(np.float32)


def world_of(n: int, seed: int = 0) -> dict[str | int, NDArray[np.float32]]:
    return {f"k{i}": x for i, x in enumerate(inputs_of(n, seed))}


class Kept(SavedEmbedder):
    """Stands for a Keras model that the store keeps: its file holds the name alone."""

    def __init__(self, name: str, directory: Path) -> None:
        path = directory / f"{name}.model"
        path.write_text(name)
        record = {"kind": "keras", "name": name, "dim": DIMS[name], "fingerprint": f"f-{name}", "batch_size": 8}
        super().__init__(record | {"preprocess": None, "saved": True}, path)

    def embed(self, batch: Any) -> NDArray[np.float32]:
        return (np.asarray(batch) @ WEIGHTS[self.spec.name]).astype(np.float32)


def write(store: Store, world: World) -> None:
    keys = list(world)
    given = np.stack(list(world.values()))
    store.upsert(keys, inputs=given, data=list(given), labels=[f"label {i % 3}" for i in range(len(keys))])


def assert_holds(store: Store, world: World, name: str, metric: str = "l2") -> None:
    """The store is the one that the embedder of that name would have made of the world."""
    expected = {key: x.astype(np.float64) @ WEIGHTS[name] for key, x in world.items()}
    items = {item.key: item for item in store.scan()}
    assert set(items) == set(world) and len(store) == len(world)
    for key, item in items.items():
        np.testing.assert_allclose(item.vector, expected[key], atol=1e-5)
        np.testing.assert_array_equal(item.data, world[key])
        assert store.get(key).vector.tobytes() == item.vector.tobytes()
    info = store.info()
    assert info.embedder is not None and (info.embedder.name, info.dim) == (name, DIMS[name])
    queries = inputs_of(4, 99)
    batch = store.search_many(inputs=queries, k=5)
    for i, x in enumerate(queries):
        query = x.astype(np.float64) @ WEIGHTS[name]
        for hits in (
            store.search(input=x, k=5),
            store.search(query, k=5),
            batch[i],
            store.search(list(query), k=5, exact=True),
        ):
            assert_nearest(hits.keys, hits.distances.tolist(), query, expected, metric, 5)
    assert store.check(deep=True) == []
