"""reembed(): another embedder for a whole store, beside reads and writes, across snapshots, and as often as one likes."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore
from naive import assert_nearest
from numpy.typing import NDArray
from worlds import DIMS, WEIGHTS, Counted, Kept, World, assert_holds, embedder, inputs_of, raising_at, world_of, write

import simstore
from simstore import Difference, Item, Reembedded, Repaired, Store
from simstore.embedders import FunctionEmbedder
from simstore.errors import (
    CorruptStoreError,
    DimensionError,
    EmbedderMismatchError,
    EmbedderRequiredError,
    InvalidArgumentError,
    InvalidVectorError,
    ReadOnlyStoreError,
)
from simstore.store import maintenance, move
from simstore.store.request import OutdatedError, request_of


@pytest.fixture
def world() -> dict[str | int, NDArray[np.float32]]:
    return world_of(100)


@pytest.fixture
def full(stores: OpenStore, world: World) -> Store:
    """A store of embedder a with a hundred items."""
    store = stores(embedder=embedder("a"), metric="l2")
    write(store, world)
    return store


# -- the move -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("folded", [False, True])
def test_the_whole_store_moves(stores: OpenStore, world: World, metric: str, folded: bool) -> None:
    store = stores(embedder=embedder("a"), metric=metric, index_fields=["0"])
    write(store, world)
    if folded:
        store.optimize()
    labels = store.labels()
    fn = Counted("b")
    assert store.reembed(embedder("b", fn), batch_size=32) == Reembedded(n_items=100, dim=10, n_resumed=0)
    assert fn.sizes == [32, 32, 32, 4]
    assert_holds(store, world, "b", metric)
    assert store.labels() == labels and store.count(simstore.label == "label 0") == 34
    store.optimize()
    assert_holds(store, world, "b", metric)
    store.close()
    assert_holds(stores(embedder=embedder("b")), world, "b", metric)


def test_the_next_open_knows_the_new_embedder_alone(stores: OpenStore, full: Store, world: World) -> None:
    full.reembed(embedder("b"))
    full.close()
    with pytest.raises(EmbedderMismatchError, match=r"'b'.*'a'.*store\.reembed\(embedder\)"):
        stores(embedder=embedder("a"))
    without = stores()
    with pytest.raises(EmbedderRequiredError, match=r"'b'.*embedder="):
        without.search(input=[1, 2, 3])
    assert without.reembed(embedder("a")).n_items == 100
    assert_holds(without, world, "a")


def test_several_moves_in_a_row(stores: OpenStore, full: Store, world: World) -> None:
    for i, name in enumerate(["b", "c", "wide", "a", "b"]):
        full.snapshot(f"{i}")
        full.reembed(embedder(name))
        full.optimize() if i % 2 else None
        assert_holds(full, world, name)
    full.compact()
    assert_holds(full, world, "b")
    full.close()
    for i, name in enumerate(["a", "b", "c", "wide", "a"]):
        assert_holds(stores(snapshot=f"{i}", embedder=embedder(name)), world, name)


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("b", "a"), ("a", "c"), ("a", "wide"), ("wide", "a")])
def test_items_that_were_written_alone(stores: OpenStore, old: str, new: str) -> None:
    """Their vectors stand in the items, beside runs of another width."""
    store = stores(embedder=embedder(old), metric="l2")
    world = world_of(7)
    for key, x in world.items():
        store.upsert(key, inputs=x, data=x)
    store.reembed(embedder(new), batch_size=3)
    for key, x in (more := {f"new {i}": x for i, x in enumerate(inputs_of(5, 7))}).items():
        store.upsert(key, inputs=x, data=x)
    assert_holds(store, world | more, new)
    store.delete([f"k{i}" for i in range(7)])
    store.reembed(embedder(old))
    assert_holds(store, more, old)
    one = {"new 0": more["new 0"]}
    store.delete(set(more) - set(one) and sorted(set(more) - set(one)))
    store.reembed(embedder(new))
    store.upsert("new 0", inputs=one["new 0"], data=one["new 0"])
    assert_holds(store, one, new)
    store.compact()
    assert_holds(store, one, new)


@pytest.mark.parametrize("dim", [None, 4])
def test_a_store_without_items(stores: OpenStore, dim: int | None, world: World) -> None:
    store = stores(dim=dim, metric="l2")
    store.snapshot("empty")
    for name in ("a", "b"):
        assert store.reembed(embedder(name)) == Reembedded(0, DIMS[name], 0)
        store.snapshot(name)
    write(store, world)
    assert_holds(store, world, "b")
    undo = store.restore("a").undo
    assert len(store) == 0
    write(store, world)
    assert_holds(store, world, "a")
    store.restore("empty")
    assert len(store) == 0 and store.check(deep=True) == []
    store.restore(undo)
    assert_holds(store, world, "b")


def test_plain_vectors_get_an_embedder(stores: OpenStore, world: World) -> None:
    store = stores(metric="l2")
    store.add(list(world), inputs_of(100), data=list(world.values()))
    store.snapshot("plain")
    with pytest.raises(EmbedderRequiredError, match="no embedder"):
        store.search(input=[1, 2, 3])
    store.reembed(embedder("b"))
    assert_holds(store, world, "b")
    store.restore("plain")
    assert store.info().embedder is None and store.info().dim == 3
    for use in (lambda: store.search(input=[1, 2, 3]), lambda: store.add("new", inputs=[1, 2, 3])):
        with pytest.raises(EmbedderRequiredError, match="no embedder"):
            use()
    hits = store.search(world["k5"], k=3)
    assert_nearest(hits.keys, hits.distances, world["k5"], world, "l2", 3)
    store.add("new", [1, 2, 3])


def test_inputs_tells_what_is_embedded(stores: OpenStore, world: World) -> None:
    store = stores(embedder=embedder("a"), metric="l2")
    store.add(list(world), inputs=inputs_of(100), labels=list(range(100)))
    seen: list[Item] = []

    def inputs(item: Item) -> NDArray[np.float32]:
        seen.append(item)
        return world[item.key]

    store.reembed(embedder("b"), inputs=inputs, batch_size=30)
    assert [item.key for item in seen] == list(world) and [item.label for item in seen] == list(range(100))
    np.testing.assert_allclose(seen[8].vector, world["k8"] @ WEIGHTS["a"], atol=1e-5)
    for key, x in world.items():
        np.testing.assert_allclose(store.get(key).vector, x @ WEIGHTS["b"], atol=1e-5)


def test_progress(full: Store) -> None:
    calls: list[tuple[str, int, int]] = []
    full.reembed(embedder("b"), batch_size=40, progress=lambda *call: calls.append(call))
    assert calls == [("reembed", 40, 100), ("reembed", 80, 100), ("reembed", 100, 100)]


# -- beside readers and writers --------------------------------------------------------------------------------------------


def test_old_vectors_answer_until_the_switch(full: Store, world: World) -> None:
    def look(batch: int) -> None:
        assert_holds(full, world, "a")
        if batch == 2:
            full.optimize()

    fn = Counted("b", look)
    full.reembed(embedder("b", fn), batch_size=30)
    fn.before = None
    assert_holds(full, world, "b")


def test_what_others_write_meanwhile_is_embedded_too(full: Store, world: dict[str | int, NDArray[np.float32]]) -> None:
    more = {f"more {i}": x for i, x in enumerate(inputs_of(10, 5))}

    def between(batch: int) -> None:
        if batch == 1:
            full.delete(["k1", "k80"])
            write(full, {"k2": world["k3"], "k81": world["k4"], **more})
            full.update("k5", labels="renamed")
        if batch == 4:  # in the second round
            full.delete("more 0")
            write(full, {"more 1": world["k9"], "late": world["k7"]})

    fn = Counted("b", between)
    assert full.reembed(embedder("b", fn), batch_size=30).n_items == 108
    fn.before = None
    for key in ("k1", "k80"):
        del world[key]
    expected = world | more | {"k2": world["k3"], "k81": world["k4"], "more 1": world["k9"], "late": world["k7"]}
    del expected["more 0"]
    assert full.get("k5").label == "renamed"
    assert_holds(full, expected, "b")


def test_a_store_that_is_written_to_all_the_time_is_moved(full: Store, world: dict[str | int, NDArray[np.float32]]) -> None:
    stop, written, errors = threading.Event(), dict(world), []

    def writing() -> None:
        try:
            for i in range(100_000):
                if stop.is_set():
                    return
                batch = {f"k{i % 150}": inputs_of(1, 1000 + i)[0], f"w{i % 7}": inputs_of(1, 5000 + i)[0]}
                write(full, batch)
                written.update(batch)
        except BaseException as err:
            errors.append(err)

    thread = threading.Thread(target=writing)
    thread.start()
    try:
        done = full.reembed(embedder("b"), batch_size=16)
    finally:
        stop.set()
        thread.join()
    assert not errors and done.n_items >= 100
    assert_holds(full, written, "b")


def test_the_last_are_embedded_within_the_transaction(full: Store, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move, "_ROUNDS", 0)
    more = {f"more {i}": x for i, x in enumerate(inputs_of(5, 5))}
    fn = Counted("b", lambda batch: write(full, more) if batch == 3 else None)
    assert full.reembed(embedder("b", fn), batch_size=30).n_items == 105
    assert fn.sizes == [30, 30, 30, 10, 5]
    assert_holds(full, {**world, **more}, "b")


@pytest.mark.parametrize("new", ["b", "c"])
def test_a_search_that_is_overtaken_by_the_switch(full: Store, world: World, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query was embedded for the old vectors, and meets the new ones, perhaps of the same width."""
    before = full._view()
    once = [lambda: full.reembed(embedder(new))]

    def view() -> Any:
        if once:
            once.pop()()
            return before
        return Store._view(full)

    monkeypatch.setattr(full, "_view", view)
    x = inputs_of(1, 3)[0]
    expected = {key: one @ WEIGHTS[new] for key, one in world.items()}
    hits = full.search(input=x, k=3)
    assert_nearest(hits.keys, hits.distances, x @ WEIGHTS[new], expected, "l2", 3)
    old_query = np.ones((1, DIMS["a"]), np.float32)
    with pytest.raises(OutdatedError):
        full._core.searcher.search(old_query, request_of(3, None, None, False, None, False, None), before.schema)


@pytest.mark.parametrize("new", ["b", "c"])
def test_inputs_that_were_embedded_before_the_switch_are_embedded_again(full: Store, world: World, new: str) -> None:
    once: list[int] = [1]

    def before(batch: int) -> None:
        if once:
            once.pop()
            full.reembed(embedder(new))

    full.reembed(embedder("wide"))  # so that the store has its embedder from reembed()
    full.reembed(FunctionEmbedder(fn := Counted("a"), name="a", dim=4))
    fn.before = before
    x = inputs_of(1, 3)[0]
    assert full.add(iter(["new"]), inputs=iter([x]), data=iter([x])) == ["new"]
    assert_holds(full, {**world, "new": x}, new)
    full.upsert("k1", inputs=x, data=x)
    assert_holds(full, {**world, "new": x, "k1": x}, new)


def test_vectors_of_the_old_width_are_refused(full: Store) -> None:
    full.reembed(embedder("b"))
    for use in (
        lambda: full.add("new", np.ones(4)),
        lambda: full.search(np.ones(4)),
        lambda: full.search_many(np.ones((2, 4))),
        lambda: full.explain(np.ones(4)),
    ):
        with pytest.raises(DimensionError, match="this store holds vectors of 10"):
            use()
    assert len(full.search(np.ones(10), k=3)) == 3


def test_a_fold_that_is_overtaken_by_the_switch(full: Store, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    build = maintenance.Maintenance._build
    once = [lambda: full.reembed(embedder("b"))]

    def built(self: Any, *args: Any) -> Any:
        result = build(self, *args)
        if once:
            once.pop()()
        return result

    monkeypatch.setattr(maintenance.Maintenance, "_build", built)
    full.snapshot("before")
    full.optimize()
    assert_holds(full, world, "b")
    assert full.info().n_segments == 1
    full.close()


# -- interrupted -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_an_interrupted_call_is_gone_on_with(stores: OpenStore, full: Store, world: World, error: BaseException) -> None:
    fn = Counted("b", raising_at(3, error))
    with pytest.raises(type(error)):
        full.reembed(embedder("b", fn), batch_size=20)
    assert fn.sizes == [20, 20, 20]
    assert_holds(full, world, "a")
    full.close()
    again = stores(embedder=embedder("a"))
    assert_holds(again, world, "a")
    rest = Counted("b")
    assert again.reembed(embedder("b", rest), batch_size=30) == Reembedded(100, 10, 60)
    assert rest.sizes == [30, 10]
    assert_holds(again, world, "b")


def test_a_callback_may_interrupt(full: Store, world: World) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        full.reembed(embedder("b"), batch_size=20, progress=stop)
    calls: list[int] = []
    assert full.reembed(embedder("b"), progress=lambda _, done, total: calls.append(done)).n_resumed == 40
    assert calls == [100]
    assert_holds(full, world, "b")


def test_changes_and_compact_between_two_calls(full: Store, world: dict[str | int, NDArray[np.float32]]) -> None:
    with pytest.raises(RuntimeError, match="fire"):
        full.reembed(embedder("b", Counted("b", raising_at(3))), batch_size=20)
    full.delete(["k0", "k70"])
    write(full, {"k1": world["k2"], "k71": world["k2"], "new": world["k2"]})
    full.compact()
    assert full.check(deep=True) == []
    rest = Counted("b")
    assert full.reembed(embedder("b", rest), batch_size=20) == Reembedded(99, 10, 58)
    assert sum(rest.sizes) == 99 - 58
    expected = world | {"k1": world["k2"], "k71": world["k2"], "new": world["k2"]}
    assert_holds(full, {key: x for key, x in expected.items() if key not in ("k0", "k70")}, "b")


def test_another_embedder_starts_anew(full: Store, world: World) -> None:
    with pytest.raises(RuntimeError, match="fire"):
        full.reembed(embedder("b", Counted("b", raising_at(3))), batch_size=20)
    fn = Counted("c")
    assert full.reembed(embedder("c", fn)) == Reembedded(100, 4, 0)
    assert sum(fn.sizes) == 100
    assert_holds(full, world, "c")
    assert full.reembed(embedder("b")).n_resumed == 0


def test_the_present_embedder_gives_up_a_move(full: Store, world: World) -> None:
    with pytest.raises(InvalidArgumentError, match=r"has the embedder 'a' already.*nothing to do"):
        full.reembed(embedder("a"))
    with pytest.raises(RuntimeError, match="fire"):
        full.reembed(embedder("b", Counted("b", raising_at(3))), batch_size=20)
    assert full.reembed(embedder("a")) == Reembedded(0, 4, 0)
    assert_holds(full, world, "a")
    assert full.reembed(embedder("b")).n_resumed == 0


def test_a_move_that_is_overtaken(full: Store, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move, "_COMMIT_S", 0.0)
    given_up = Counted("b", lambda batch: full.reembed(embedder("a")) if batch == 2 else None)
    with pytest.raises(EmbedderMismatchError, match=r"another call of reembed\(\) has dropped .* 'b'"):
        full.reembed(embedder("b", given_up), batch_size=20)
    assert_holds(full, world, "a")
    elsewhere = Counted("b", lambda batch: full.reembed(embedder("c")) if batch == 2 else None)
    with pytest.raises(EmbedderMismatchError, match=r"another call"):
        full.reembed(embedder("b", elsewhere), batch_size=20)
    assert_holds(full, world, "c")
    helped = Counted("b", lambda batch: full.reembed(embedder("b")) if batch == 2 else None)
    assert full.reembed(embedder("b", helped), batch_size=20) == Reembedded(100, 10, 0)
    assert sum(helped.sizes) == 60
    helped.before = None
    assert_holds(full, world, "b")


@pytest.mark.parametrize("what", ["vector", "note"])
def test_damage_in_what_is_staged(full: Store, world: World, what: str) -> None:
    with pytest.raises(RuntimeError, match="fire"):
        full.reembed(embedder("b", Counted("b", raising_at(3))), batch_size=20)

    def damage(txn: Any) -> None:
        database = full._core.database
        if what == "note":
            database.put_mark(txn, "staging", b"x" + database.mark(txn, "staging")[1:])
        else:
            with txn.cursor(db=database._staged) as cursor:
                cursor.first()
                key, value = cursor.item()
                cursor.put(key, value[:-1] + bytes([value[-1] ^ 1]))

    full._core.environment.write(damage)
    problems = full.check(deep=True)
    assert [problem.where for problem in problems] == ["staged"] and "reembed() again" in problems[0].remedy
    assert full.repair() == Repaired(["staged"], [], None, [])
    assert full.reembed(embedder("b")).n_resumed == (59 if what == "vector" else 0)
    assert_holds(full, world, "b")


# -- snapshots -------------------------------------------------------------------------------------------------------------


def test_snapshots_keep_their_vectors_and_their_embedder(
    stores: OpenStore, full: Store, world: dict[str | int, NDArray[np.float32]]
) -> None:
    full.optimize()
    full.snapshot("before")
    fn = Counted("b", lambda batch: full.snapshot("during") if batch == 1 else None)
    open_before = stores(snapshot="before", embedder=embedder("a"))
    full.reembed(embedder("b", fn), batch_size=30)
    fn.before = None
    full.snapshot("after")
    write(full, {"k1": world["k2"]})
    for name, which in (("before", "a"), ("during", "a"), ("after", "b")):
        assert_holds(stores(snapshot=name, embedder=embedder(which)), world, which)
        with pytest.raises(EmbedderMismatchError):
            stores(snapshot=name, embedder=embedder("wide"))
        with pytest.raises(DimensionError):
            stores(snapshot=name, dim=3)
    assert_holds(open_before, world, "a")
    full.compact()
    assert_holds(open_before, world, "a")
    assert_holds(full, {**world, "k1": world["k2"]}, "b")
    assert full.diff("before", "during") == Difference([], [], [])
    assert full.diff("before", "after") == Difference([], list(world), [])
    assert full.diff("after") == Difference([], ["k1"], [])


def test_restore_across_the_switch(full: Store, world: dict[str | int, NDArray[np.float32]]) -> None:
    full.snapshot("before")
    full.reembed(embedder("b"))
    write(full, new := {**world, "new": world["k1"]})
    undo = full.restore("before").undo
    assert_holds(full, world, "a")
    write(full, {**world, "again": world["k1"]})
    assert_holds(full, {**world, "again": world["k1"]}, "a")
    full.restore(undo)
    assert_holds(full, new, "b")
    full.optimize()
    full.restore("before")
    full.optimize()
    assert_holds(full, world, "a")
    for snapshot in full.snapshots():
        full.delete_snapshot(snapshot.name)
    full.compact()
    assert full.info().n_segments == 1
    assert len(list(Path(full.info().path, "segments").iterdir())) == 1
    assert_holds(full, world, "a")


def test_restore_and_an_interrupted_move(full: Store, world: World) -> None:
    full.snapshot("before")
    full.reembed(embedder("b"))
    with pytest.raises(RuntimeError, match="fire"):
        full.reembed(embedder("c", Counted("c", raising_at(3))), batch_size=20)
    full.restore("before")
    assert_holds(full, world, "a")
    assert full.reembed(embedder("c")) == Reembedded(100, 4, 0)
    assert_holds(full, world, "c")


def test_what_snapshots_need_no_more_goes_with_compact(full: Store, world: World) -> None:
    full.optimize()
    full.snapshot("before")
    full.reembed(embedder("b"))
    full.optimize()
    assert full.compact().n_purged == 0
    full.delete_snapshot("before")
    assert full.compact().n_purged == 100
    assert len(list(Path(full.info().path, "segments").iterdir())) == 1
    assert_holds(full, world, "b")


# -- models' files -----------------------------------------------------------------------------------------------------------


def models(store: Store) -> list[str]:
    return sorted(path.name for path in Path(store.info().path, "embedder").iterdir())


def test_models_stay_while_somebody_needs_them(stores: OpenStore, world: World, tmp_path: Path) -> None:
    a, b = Kept("a", tmp_path), Kept("b", tmp_path)
    store = stores(embedder=a, metric="l2")
    write(store, world)
    store.snapshot("before")
    store.reembed(b)
    assert_holds(store, world, "b")
    assert models(store) == ["f-a.keras", "f-b.keras"]
    store.close()
    store = stores(embedder=b)
    backup = stores(store.backup(tmp_path / "backup.sim"))
    assert models(store) == models(backup) == ["f-a.keras", "f-b.keras"]
    b.path.write_text("the same, written by another Keras")
    undo = store.restore("before").undo
    store.reembed(b)
    assert store.check(deep=True) == []
    store.restore(undo)
    assert store.check(deep=True) == []  # that snapshot knows the new file
    for snapshot in store.snapshots():
        store.delete_snapshot(snapshot.name)
    assert models(store) == ["f-b.keras"]
    store.reembed(a)
    assert models(store) == ["f-a.keras"]
    store.reembed(embedder("c"))
    assert models(store) == []
    assert_holds(store, world, "c")


@pytest.mark.parametrize("searching", [True, False])
def test_a_model_that_goes_while_it_is_loaded(stores: OpenStore, world: World, tmp_path: Path, searching: bool) -> None:
    """As in another process that is about to load the old one when this one switches."""

    class Gone(Kept):
        def embed(self, batch: Any) -> NDArray[np.float32]:
            if not is_moved:
                return super().embed(batch)
            if len(is_moved) == 1:
                is_moved.append(True)
                store.reembed(Kept("b", tmp_path))
            raise CorruptStoreError("the model is missing")

    is_moved: list[bool] = []
    store = stores(embedder=Gone("a", tmp_path), metric="l2")
    write(store, world)
    is_moved.append(True)
    x = inputs_of(1, 3)[0]
    if searching:
        expected = {key: one @ WEIGHTS["b"] for key, one in world.items()}
        hits = store.search(input=x, k=3)
        assert_nearest(hits.keys, hits.distances, x @ WEIGHTS["b"], expected, "l2", 3)
        assert_holds(store, world, "b")
    else:
        store.add("new", inputs=x, data=x)
        assert_holds(store, {**world, "new": x}, "b")
    store.snapshot("b")
    store.reembed(embedder("a"))
    store.restore("b")
    assert_holds(store, {**world} if searching else {**world, "new": x}, "b")


def test_a_lost_model_of_a_snapshot_is_listed(stores: OpenStore, world: World, tmp_path: Path) -> None:
    store = stores(embedder=Kept("a", tmp_path), metric="l2")
    write(store, world)
    store.snapshot("before")
    store.reembed(Kept("b", tmp_path))
    path = Path(store.info().path, "embedder", "f-a.keras")
    content = path.read_bytes()
    path.write_bytes(b"x")
    (problem,) = store.check(deep=True)
    assert problem.where == "embedder" and "backup" in problem.remedy
    path.write_bytes(content)


def test_an_embedder_that_changes_on_the_way(full: Store, world: World) -> None:
    other = embedder("b", Counted("b", raising_at(3)))
    with pytest.raises(RuntimeError, match="fire"):
        full.reembed(other, batch_size=20)

    def trained(batch: int) -> None:
        changed._spec = replace(changed.spec, fingerprint="another")

    changed = embedder("b", Counted("b", trained))
    with pytest.raises(InvalidArgumentError, match="another fingerprint than at the beginning"):
        full.reembed(changed)
    assert_holds(full, world, "a")
    assert full.reembed(embedder("b")).n_resumed == 0


# -- errors ------------------------------------------------------------------------------------------------------------------


def test_an_item_without_data(full: Store, world: dict[str | int, NDArray[np.float32]]) -> None:
    full.update("k50", data=None)
    with pytest.raises(InvalidArgumentError, match=r"item 'k50' has no data.*inputs="):
        full.reembed(embedder("b"), batch_size=10)
    full.update("k50", data=world["k50"])
    assert_holds(full, world, "a")
    assert full.reembed(embedder("b"), inputs=lambda item: item.data).n_resumed == 90  # k50 is the newest now
    assert_holds(full, world, "b")


BAD: dict[str, Callable[[NDArray[np.float64]], Any]] = {
    "NaN": lambda vectors: np.where(np.arange(len(vectors))[:, None] == 7, np.nan, vectors),
    "zeros": lambda vectors: np.where(np.arange(len(vectors))[:, None] == 7, 0, vectors),
    "too long": lambda vectors: vectors * np.where(np.arange(len(vectors))[:, None] == 7, 1e30, 1),
    "too few": lambda vectors: vectors[1:],
    "too wide": lambda vectors: np.hstack([vectors, vectors]),
}


@pytest.mark.parametrize("how", list(BAD))
def test_vectors_that_cannot_be_compared(stores: OpenStore, world: World, how: str) -> None:
    store = stores(embedder=embedder("a"), metric="cosine")
    write(store, world)
    bad = embedder("b", lambda batch: BAD[how](np.asarray(batch) @ WEIGHTS["b"]))
    with pytest.raises(
        InvalidVectorError, match="item 'k7'" if "too" not in how or how == "too long" else "should return an array"
    ):
        store.reembed(bad)
    assert_holds(store, world, "a", "cosine")


def test_wrong_arguments(full: Store, world: World) -> None:
    for wrong, message in (
        ({"inputs": "data"}, "inputs is a function"),
        ({"batch_size": 0}, "batch_size is a whole number"),
        ({"batch_size": 2.5}, "batch_size is a whole number"),
        ({"embedder": len}, "embedder has a spec"),
        ({"embedder": FunctionEmbedder(len, name="huge", dim=70_000)}, "vectors of 70000 numbers: 65536 is the most"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            full.reembed(**({"embedder": embedder("b")} | wrong))

    def failing(item: Item) -> Any:
        raise OSError("no such photo")

    with pytest.raises(OSError, match="no such photo") as caught:
        full.reembed(embedder("b"), inputs=failing)
    assert caught.value.__notes__ == ["raised by inputs(item) for the item 'k0'"]
    assert_holds(full, world, "a")


def test_a_store_that_is_only_read(stores: OpenStore, full: Store) -> None:
    full.snapshot("present")
    with pytest.raises(ReadOnlyStoreError, match="which does not change"):
        stores(snapshot="present").reembed(embedder("b"))
    full.close()
    with pytest.raises(ReadOnlyStoreError, match="mode='a'"):
        stores(mode="r").reembed(embedder("b"))


def test_the_example_of_a_reader_with_its_own_embedder(stores: OpenStore, world: World) -> None:
    """A store that is opened to be read, and names no embedder, searches with the one that it is given."""
    store = stores(dim=4, metric="l2")
    store.add(list(world), np.stack(list(world.values())) @ WEIGHTS["a"])
    store.close()
    reader = stores(mode="r", embedder=embedder("a"))
    assert reader.search(input=world["k3"], k=1).keys == ["k3"]
    reader.close()
    with pytest.raises(DimensionError, match="the embedder makes vectors of 10; this store holds vectors of 4"):
        stores(mode="r", embedder=embedder("b"))


# -- everything together -----------------------------------------------------------------------------------------------------


def test_threads_search_across_many_switches(stores: OpenStore, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is that of one embedder, whole: never a query of one among vectors of another."""
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 10)
    store = stores(embedder=embedder("a"), metric="l2", background=True)
    write(store, world)
    queries = inputs_of(20, 77)
    right: dict[str, list[list[float]]] = {}
    for name in ("a", "b", "c"):
        vectors = np.stack(list(world.values())).astype(np.float64) @ WEIGHTS[name]
        right[name] = [sorted(np.linalg.norm(vectors - x @ WEIGHTS[name], axis=1))[:3] for x in queries.astype(np.float64)]
    stop, wrong, n_searches = threading.Event(), [], [0, 0]

    def searching(at: int) -> None:
        try:
            while not stop.is_set():
                for i, x in enumerate(queries):
                    found = [store.search(input=x, k=3)] if at else store.search_many(inputs=queries[i : i + 2], k=3)[:1]
                    distances = found[0].distances.tolist()
                    if not any(np.allclose(distances, right[name][i], atol=1e-4) for name in right):
                        wrong.append((i, distances))
                    n_searches[at] += 1
        except BaseException as err:
            wrong.append((-1, [repr(err)]))

    threads = [threading.Thread(target=searching, args=(at,)) for at in (0, 1)]
    for thread in threads:
        thread.start()
    for name in "cbacbcabacb":
        store.reembed(embedder(name), batch_size=50)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong and min(n_searches) > 20
    assert_holds(store, world, "b")


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_calls(stores: OpenStore, seed: int) -> None:
    rng = np.random.default_rng(seed)
    metric = str(rng.choice(["l2", "cosine", "ip"]))
    world, name = world_of(20, seed), "a"
    store = stores(embedder=embedder(name), metric=metric)
    write(store, world)
    states: dict[str, tuple[dict[str | int, NDArray[np.float32]], str]] = {}
    for step in range(25):
        what = rng.choice(["write", "delete", "move", "stop", "snapshot", "restore", "forget", "optimize", "compact", "reopen"])
        keys = [str(key) for key in rng.choice(list(world), min(3, len(world)), replace=False)] if world else []
        if what == "write":
            fresh = dict(zip([*keys, f"new {step}"], inputs_of(4, 100 * seed + step), strict=False))
            write(store, fresh)
            world = {key: x for key, x in world.items() if key not in fresh} | fresh
        elif what == "delete" and len(world) > 5:
            store.delete(keys)
            world = {key: x for key, x in world.items() if key not in keys}
        elif what in ("move", "stop"):
            new = str(rng.choice([other for other in DIMS if other != name]))
            before = raising_at(int(rng.integers(3))) if what == "stop" else None
            try:
                store.reembed(embedder(new, Counted(new, before)), batch_size=int(rng.integers(1, 8)))
                name = new
            except RuntimeError:
                assert what == "stop"
        elif what == "snapshot":
            store.snapshot(f"{step}")
            states[f"{step}"] = dict(world), name
        elif what in ("restore", "forget") and states:
            chosen = str(rng.choice(list(states)))
            if what == "forget":
                store.delete_snapshot(chosen)
                del states[chosen]
            else:
                undo = store.restore(chosen).undo
                states[undo], (world, name) = (world, name), states[chosen]
        elif what == "optimize":
            store.optimize()
        elif what == "compact":
            store.compact()
        elif what == "reopen":
            store.close()
            store = stores(embedder=embedder(name))
        store._embedders._at_hand[embedder(name).spec.fingerprint] = embedder(name)  # else a reopened store lacks it
        assert_holds(store, world, name, metric)
    for snapshot, (then, which) in states.items():
        reader = stores(snapshot=snapshot, embedder=embedder(which))
        assert_holds(reader, then, which, metric)
        reader.close()
