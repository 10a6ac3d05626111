"""where= in every call against the items tried one by one, and an exact search of those that match: indexed or not."""

# ruff: noqa: E711

import datetime
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest import mock

import naive_where
import numpy as np
import pytest
from conftest import OpenStore
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import assert_nearest
from numpy.typing import NDArray
from random_where import as_dict, as_expression, conditions
from random_where import data as random_data
from random_where import keys as random_keys
from random_where import labels as random_labels
from second_process import SecondProcess
from test_properties import new_store, same

import simstore
from simstore import Hits, Store, field, key, label
from simstore.errors import (
    CorruptStoreError,
    IndexExistsError,
    IndexNotFoundError,
    InvalidArgumentError,
    InvalidDataError,
    InvalidFilterError,
    ReadOnlyStoreError,
)
from simstore.index import Segment, segment
from simstore.storage import steps
from simstore.storage.encoding import pack, packer, unpack
from simstore.store import candidates, filters, searcher
from simstore.where import where_of

Model = dict[Any, tuple[Any, Any, NDArray[np.float32]]]
"""Label, data and vector of each key, in the order of writing."""

Condition = Any
"""As naive_where has it."""

DIM = 5
FIELDS = ("n", "group", "tags", "deep.er", ("a.b",), "none")

NUMBER: Condition = (("n",), "$lt", 40)
CONDITIONS: dict[str, Condition] = {
    "number": NUMBER,
    "range": ("and", [(("n",), "$gte", 20), (("n",), "$lt", 90)]),
    "one": (("n",), "$eq", 7),
    "none match": (("n",), "$gt", 10**6),
    "all match": (("n",), "$exists", True),
    "everything": ("and", []),
    "nothing": ("or", []),
    "group": (("group",), "$in", ["a", "c", 3]),
    "prefix": (("group",), "$startswith", "b"),
    "tag": (("tags",), "$contains", "red"),
    "nested": (("deep", "er"), "$eq", True),
    "not split": (("a.b",), "$gte", 1.5),
    "None": (("none",), "$eq", None),
    "no index": (("other",), "$lt", 3),
    "label": ("label", "$eq", "x"),
    "labels": ("label", "$in", ["x", 0, None]),
    "no label": ("label", "$eq", None),
    "some label": ("label", "$ne", None),
    "key": ("key", "$startswith", "k1"),
    "keys": ("key", "$in", [3, "k4", "k5", "missing"]),
    "int keys": ("key", "$gte", 30),
    "both": ("and", [NUMBER, ("label", "$eq", "x")]),
    "indexed and not": ("and", [NUMBER, (("other",), "$eq", 2)]),
    "indexed or not": ("or", [(("n",), "$lt", 10), (("other",), "$eq", 2)]),
    "not": ("not", NUMBER),
    "not both": ("not", ("and", [NUMBER, (("other",), "$eq", 2)])),
    "missing or many": ("or", [("not", (("group",), "$exists", True)), (("tags",), "$contains", 1)]),
}


def value_of(i: int) -> Any:
    """Data in which each field is there for some."""
    out: dict[str, Any] = {"n": i, "other": i % 7}
    if i % 3:
        out["group"] = ("a", "b", "bb", 3, None)[i % 5]
    if i % 2:
        out["tags"] = [["red", 1], ["blue"], [], "red"][i % 4]
    if i % 4:
        out["deep"] = {"er": i % 8 < 4}
    out["a.b"] = i / 20
    out["none"] = None if i % 6 == 0 else 0
    return out


def vectors_of(numbers: Any, dim: int = DIM) -> NDArray[np.float32]:
    """Some of them equal, none of them zero."""
    out = np.array([np.random.default_rng(i // 2 * 2 if i % 5 == 0 else i).standard_normal(dim) for i in numbers])
    return np.round(out, 1).astype(np.float32) + np.float32(0.05)


def upsert(store: Store, model: Model, numbers: Any, *, shift: int = 0) -> None:
    """Items whose content tells from number + shift."""
    keys = [i if i % 3 == 0 else f"k{i}" for i in numbers]
    content = [i + shift for i in numbers]
    labels = [("x", "y", 0, None)[i % 4] for i in content]
    data = [value_of(i) for i in content]
    vectors = vectors_of(content)
    store.upsert(keys, vectors, labels=labels, data=data)
    for row in zip(keys, labels, data, vectors, strict=True):
        model.pop(row[0], None)
        model[row[0]] = row[1:]


def matching(model: Model, condition: Condition) -> Model:
    return {key: row for key, row in model.items() if naive_where.matches(condition, key, row[0], row[1])}


def assert_hits(hits: Hits, right: Model, query: Any, metric: str, k: int | None, max_distance: float | None = None) -> None:
    assert_nearest(hits.keys, hits.distances, query, {key: row[2] for key, row in right.items()}, metric, k, max_distance)
    for hit in hits:
        found_label, found_data, found_vector = right[hit.key]
        assert hit.label == found_label and same(hit.data, found_data)
        assert hit.vector is None or hit.vector.tobytes() == found_vector.tobytes()


def assert_right(store: Store, model: Model, condition: Condition, metric: str = "l2", *, ef: int | None = None) -> None:
    """Every call that takes a filter answers as the items tried one by one."""
    where, right = as_expression(condition), matching(model, condition)
    assert store.count(where) == len(right)
    found = [(item.key, item.label, item.vector.tobytes()) for item in store.scan(where)]
    assert found == [(key, row[0], row[2].tobytes()) for key, row in right.items()]
    for item in store.scan(where):
        assert same(item.data, right[item.key][1])
    labels = [row[0] for row in right.values()]
    assert store.labels(where) == {one: labels.count(one) for one in labels}
    if not model:
        return
    queries = vectors_of([1001, 1002], len(next(iter(model.values()))[2]))
    distances = sorted(float(d) for d in store.search(queries[0], len(model) + 1, exact=True).distances)
    middle = distances[len(distances) // 2]
    for k, exact in ((1, False), (4, True), (4, False), (len(right) + 3, False)):
        for query in queries:
            assert_hits(store.search(query, k, where=where, exact=exact, ef=ef, with_vectors=exact), right, query, metric, k)
        batch = store.search_many(queries, k, where=where, exact=exact, ef=ef, threads=2)
        for query, hits in zip(queries, batch, strict=True):
            assert_hits(hits, right, query, metric, k)
    for k_or_none in (None, 3):
        hits = store.search(queries[0], k_or_none, where=where, max_distance=middle, ef=ef)
        assert_hits(hits, right, queries[0], metric, k_or_none, middle)
    assert store.search(queries[0], None, where=where, max_distance=-1e9).keys == []


@contextmanager
def walking() -> Iterator[None]:
    """Along the graph, and past what the filter leaves out, where a scan would do for so few."""
    with mock.patch.object(Segment, "exact_is_cheaper", return_value=False):
        yield


# -- every call, at every stage of a store's life ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "indexed", "walk"),
    [
        *[("cosine", True, False), ("l2", False, False), ("ip", True, False)],
        *[("cosine", False, True), ("l2", True, True), ("ip", False, True)],
    ],
)
def test_every_call_through_a_life(stores: OpenStore, metric: str, indexed: bool, walk: bool) -> None:
    store = stores(metric=metric, index_fields=FIELDS if indexed else (), M=8, ef_construction=60)
    model: Model = {}

    turns = cycle(range(3))

    def right() -> None:
        for condition in list(CONDITIONS.values())[next(turns) :: 3]:
            assert_right(store, model, condition, metric, ef=300)

    with walking() if walk else mock.patch.object(filters, "_FEW_NEW", 50):
        right()
        upsert(store, model, range(100))  # the tail
        right()
        store.optimize()  # a segment
        right()
        upsert(store, model, range(100, 170))  # both
        right()
        for i in range(0, 170, 3):  # dead in both
            del model[i]
        store.delete(list(range(0, 170, 3)))
        right()
        upsert(store, model, range(20, 60), shift=50)  # what matched matches no more, and the other way round
        some = [key for key in model if isinstance(key, str)][::4]
        store.update(some, data=[{"n": 1000, "tags": ["red"]}] * len(some), labels=["z"] * len(some))
        for key_ in some:
            model[key_] = ("z", {"n": 1000, "tags": ["red"]}, model.pop(key_)[2])
        right()
        store.optimize()
        right()
        doomed = matching(model, ("not", (("n",), "$in", [*range(30), 1000])))
        assert store.delete(where=~field("n").is_in([*range(30), 1000])) == len(doomed)
        for key_ in doomed:
            del model[key_]
        right()
        upsert(store, model, range(200, 201))  # alone
        right()
    path = Path(store.info().path)
    store.close()
    store = stores(path, mode="r")
    right()
    assert store.check(deep=True) == []


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.tuples(random_keys, random_labels, random_data),
        min_size=1,
        max_size=25,
        unique_by=lambda row: (type(row[0]), row[0]),
    ),
    st.lists(conditions, min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "b", "0", "a.b", ("a.b",), (0,), (), "a.0", "a.a"]), unique=True, max_size=9),
    st.data(),
)
def test_random_conditions_on_random_data(rows: Any, some: list[Condition], indexed: Any, data: st.DataObject) -> None:
    """An index changes nothing but the time it takes; what is true of an item is what naive_where says."""
    model: Model = {}
    vectors = vectors_of(range(len(rows)), 3)
    for (one, its_label, content), vector in zip(rows, vectors, strict=True):
        try:
            model[one] = (its_label, unpack(pack(packer(), content)), vector)
        except InvalidDataError:  # an int of more than 64 bits
            model[one] = (its_label, None, vector)
    with new_store(metric="l2", index_fields=indexed, dim=3) as store, new_store(metric="l2", dim=3) as bare:
        n_first = data.draw(st.integers(0, len(model)))
        for part in (list(model)[:n_first], list(model)[n_first:]):
            if part:
                for one_store in (store, bare):
                    columns = {
                        "vectors": np.array([model[one][2] for one in part]), "labels": [model[one][0] for one in part],
                        "data": [model[one][1] for one in part],
                    }  # fmt: skip
                    one_store.add(part, **columns)
                    if part is not list(model)[n_first:] and data.draw(st.booleans()):
                        one_store.optimize()
        gone = data.draw(st.lists(st.sampled_from(list(model)), unique_by=lambda one: (type(one), one)))
        for one_store in (store, bare):
            one_store.delete(gone)
        alive = {one: row for one, row in model.items() if one not in gone}
        for condition in some:
            where, right = as_expression(condition), matching(alive, condition)
            expected = store.search([1, 0, 0], 30, where=where)
            for one_store in (store, bare):
                assert [item.key for item in one_store.scan(where)] == list(right), where
                assert one_store.count(where) == len(right) and one_store.count(as_dict(condition)) == len(right)
                hits = one_store.search([1, 0, 0], 30, where=as_dict(condition))
                assert_hits(hits, right, [1, 0, 0], "l2", 30)
                assert (hits.keys, hits.distances.tolist()) == (expected.keys, expected.distances.tolist())


# -- paths of a search ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_what_matches_lies_far_from_the_query(stores: OpenStore, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk that would pass most of the graph is given up, and what is allowed is compared one by one."""
    monkeypatch.setattr(segment, "_LEAST_BUDGET", 100)
    rng = np.random.default_rng(5)
    n, n_far = 3000, 300
    vectors = rng.standard_normal((n, 8)).astype(np.float32) * np.float32(0.3) + np.float32(4) * np.eye(8, dtype=np.float32)[0]
    far = rng.choice(n, n_far, replace=False)
    vectors[far] -= np.float32(8) * np.eye(8, dtype=np.float32)[0]
    store = stores(metric=metric, ef_construction=40)
    store.add(None, vectors, labels=["far" if i in set(far.tolist()) else "near" for i in range(n)])
    store.optimize()
    right = {int(i): ("far", None, vectors[i]) for i in far}
    queries = vectors[np.setdiff1d(np.arange(n), far)[:20]]
    with walking():
        assert store.explain(queries[0], 10, where=label == "far").parts[0].path == "rows"
        for query in queries[:5]:
            assert_hits(store.search(query, 10, where=label == "far"), right, query, metric, 10)
        for query, hits in zip(queries, store.search_many(queries, 10, where=label == "far", threads=2), strict=True):
            assert_hits(hits, right, query, metric, 10)
        near = store.search_many(queries, 10, where=label == "near")
        exact = store.search_many(queries, 10, where=label == "near", exact=True)
        assert store.explain(queries[0], 10, where=label == "near").parts[0].path == "graph"
    shares = [len(set(a.keys) & set(b.keys)) / 10 for a, b in zip(near, exact, strict=True)]
    assert np.mean(shares) > 0.97


def test_many_queries_in_threads(stores: OpenStore) -> None:
    store = stores(metric="l2", index_fields=["n"])
    model: Model = {}
    upsert(store, model, range(400))
    store.optimize()
    upsert(store, model, range(400, 500))
    queries = vectors_of(range(2000, 2300))
    for name in ("number", "no index", "none match", "both"):
        where, right = as_expression(CONDITIONS[name]), matching(model, CONDITIONS[name])
        batch = store.search_many(queries, 6, where=where, threads=4)
        assert len(batch) == 300 and batch.keys.shape == (300, 6)
        for i in range(0, 300, 7):
            assert_hits(batch[i], right, queries[i], "l2", 6)
            alone = store.search(queries[i], 6, where=where)
            assert (batch[i].keys, batch[i].distances.tolist()) == (alone.keys, alone.distances.tolist())
        within = store.search_many(queries, None, where=where, max_distance=2.0, threads=3)
        for i in range(0, 300, 7):
            assert_hits(within[i], right, queries[i], "l2", None, 2.0)


def test_more_answers_than_are_sorted(stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searcher, "_SORTED_K", 10)
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(80))
    store.optimize()
    upsert(store, model, range(80, 120))
    store.delete(where=field("n") < 10)
    model = matching(model, ("not", (("n",), "$lt", 10)))
    for condition in CONDITIONS.values():
        assert_right(store, model, condition)
        where, right = as_expression(condition), matching(model, condition)
        assert_hits(store.search(vectors_of([7])[0], 50, where=where), right, vectors_of([7])[0], "l2", 50)
    plan = store.explain(vectors_of([7])[0], 30, where=field("n") < 100)
    assert [part.path for part in plan.parts] == ["exact", "tail"]
    assert plan.cost == plan.parts[0].n_rows - 8 + plan.parts[1].n_rows  # equal vectors share a node


# -- what is remembered --------------------------------------------------------------------------------------------------


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each look at them takes, from now on."""
    counts: list[int] = []
    original = filters._matching

    def counting(txn: Any, database: Any, where: Any, rows: Any) -> Any:
        counts.append(len(rows))
        return original(txn, database, where, rows)

    monkeypatch.setattr(filters, "_matching", counting)
    return counts


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "indexed"])
def test_what_is_remembered_across_writes(stores: OpenStore, monkeypatch: pytest.MonkeyPatch, indexed: bool) -> None:
    monkeypatch.setattr(filters, "_FEW_NEW", 30)
    store = stores(metric="l2", index_fields=["n"] if indexed else ())
    counts, model = looked_at(monkeypatch), Model()
    some = [CONDITIONS[name] for name in ("number", "not", "indexed and not", "label", "both", "none match")]

    def right() -> None:
        for condition in some:
            assert_right(store, model, condition)

    upsert(store, model, range(60))
    assert store.count(field("n") < 40) == 40
    assert counts == [0 if indexed else 60]
    assert store.count(field("n") < 40) == len(list(store.scan(field("n") < 40))) == 40
    assert len(counts) == 1, "the same filter on the same state was looked at again"
    right()
    upsert(store, model, range(60, 70))  # few new rows: those are looked at, and no others
    counts.clear()
    assert store.count(field("n") < 40) == 40
    assert counts == [10]
    right()
    upsert(store, model, range(70, 101))  # more than few
    counts.clear()
    assert store.count(field("n") < 40) == 40
    assert counts == [0 if indexed else 101]
    right()
    store.delete([0, "k1", "k50"])  # no new rows
    for one in (0, "k1", "k50"):
        del model[one]
    counts.clear()
    assert store.count(field("n") < 40) == 38
    assert counts == [0]
    right()
    upsert(store, model, range(10, 20), shift=100)  # old rows die, new ones do not match
    assert store.count(field("n") < 40) == 28
    right()
    for i in range(200, 260, 12):
        upsert(store, model, range(i, i + 12), shift=-200)
        right()
    store.optimize()
    right()


def test_more_filters_than_are_remembered(stores: OpenStore) -> None:
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(150))
    for _ in range(2):
        for i in range(150):
            assert store.count(field("n") < i) == i
        upsert(store, model, range(150, 155))


def test_filters_that_look_alike(store: Store) -> None:
    """1 and 1.0 are one number; True, "1" and b"1" are something else, and so are the paths "0" and 0 in a dict."""
    values = [1, 1.0, True, "1", b"1", None, {"0": 1}, {0: 1}, [1], np.float32(1)]
    store.add(None, np.ones((len(values), 2)), data=[{"v": value} for value in values])
    for _ in range(2):
        assert [item.key for item in store.scan(field("v") == 1)] == [0, 1, 9]
        assert [item.key for item in store.scan(field("v") == 1.0)] == [0, 1, 9]
        assert [item.key for item in store.scan(field("v") == True)] == [2]  # noqa: E712
        assert [item.key for item in store.scan(field("v") == "1")] == [3]
        assert [item.key for item in store.scan(field("v") == b"1")] == [4]
        assert [item.key for item in store.scan(field("v") == None)] == [5]
        assert [item.key for item in store.scan(field("v.0") == 1)] == [6, 8]
        assert [item.key for item in store.scan(field(("v", 0)) == 1)] == [7, 8]
        store.create_index("v") if not store.info().indexed_fields else store.create_index(("v", 0))


def test_an_old_view_goes_on(stores: OpenStore) -> None:
    """A scan, or a batch of queries, sees what was there when it began, and others see what is there now."""
    for indexed in (False, True):
        store = stores(f"old-{indexed}.sim", metric="l2", index_fields=["n"] if indexed else ())
        model: Model = {}
        upsert(store, model, range(1000))
        where, before = field("n") < 900, matching(model, (("n",), "$lt", 900))
        scan = store.scan(where)
        started = [next(scan)]
        store.delete([0, 3, 600, "k700"])
        upsert(store, model, range(100, 500), shift=2000)
        assert store.count(where) == 900 - 4 - 400
        store.optimize()
        store.create_index("group")
        started += scan
        assert [item.key for item in started] == list(before)
        assert all(same(item.data, before[item.key][1]) for item in started)
        assert store.count(where) == 900 - 4 - 400


def test_a_view_older_than_what_is_remembered(stores: OpenStore) -> None:
    """A thread that began to read before a write, and filters after another has: it sees rows that are dead to the other."""
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(50))
    core, where = store._core, field("n") < 40
    with core.environment.read() as txn:
        view = core.views.current(txn)
        store.delete(["k1", "k2"])
        assert store.count(where) == 38
        selection = core.filters.selection(txn, view, where)
        assert selection.count == 40
        assert core.filters.selection(txn, view, where).count == 40
    assert store.count(where) == 38


# -- indexes -------------------------------------------------------------------------------------------------------------


def test_an_index_comes_and_goes_between_uses(stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_FEW_NEW", 5)
    store = stores(metric="l2")
    model: Model = {}
    some = list(CONDITIONS.values())

    def right() -> None:
        for condition in some:
            assert_right(store, model, condition)

    upsert(store, model, range(90))
    store.optimize()
    store.delete(where=field("n") < 5)
    model = matching(model, ("not", (("n",), "$lt", 5)))
    right()
    done: list[tuple[str, int, int]] = []
    store.create_index("n", progress=lambda *step: done.append(step))
    assert done[-1] == ("index", 90, 90)
    assert store.info().indexed_fields == ("n",)
    right()
    upsert(store, model, range(90, 100))
    right()
    for path in FIELDS[1:]:
        store.create_index(path)
    right()
    store.drop_index("n")
    upsert(store, model, range(100, 107))  # written while there is no index
    right()
    store.create_index("other")  # takes the number of the one that went
    right()
    store.create_index(("n",))
    right()
    assert set(store.info().indexed_fields) == {"n", "other", *FIELDS}
    for path in ("n", "other", *FIELDS[1:]):
        store.drop_index(path)
    assert store.info().indexed_fields == ()
    right()
    with store._core.environment.read() as txn:
        assert list(store._core.database.postings(txn, "fields")) == []


def test_index_fields_of_open(stores: OpenStore) -> None:
    store = stores(metric="l2", index_fields=["n", "deep.er"])
    model: Model = {}
    upsert(store, model, range(30))
    path = store.info().path
    for names in ((), ["n"], ["group", "n"], ("group", ("deep", "er"))):
        store.close()
        store = stores(path, index_fields=names)
        for condition in CONDITIONS.values():
            assert_right(store, model, condition)
    assert store.info().indexed_fields == ("n", "deep.er", "group")
    store.close()
    reader = stores(path, mode="r", index_fields=["n"])
    assert reader.count(field("n") < 10) == 10
    reader.close()
    for options in ({"mode": "r"},):
        with pytest.raises(ReadOnlyStoreError):
            stores(path, index_fields=["other"], **options)
    for names in ("n", 5, None, [5], ["a..b"], [("a", 1.5)]):
        with pytest.raises(InvalidFilterError):
            stores(path, index_fields=names)
    assert stores(path).info().indexed_fields == ("n", "deep.er", "group")


def test_what_cannot_be_indexed(stores: OpenStore) -> None:
    store = stores(metric="l2")
    upsert(store, {}, range(10))
    store.create_index("n")
    before = content(store)
    for call, error, message in (
        (lambda: store.create_index("n"), IndexExistsError, 'there is an index on "n" already'),
        (lambda: store.create_index(("n",)), IndexExistsError, 'there is an index on "n" already'),
        (lambda: store.drop_index("group"), IndexNotFoundError, 'there is no index on "group"; there are: "n"'),
        (lambda: store.create_index(""), InvalidFilterError, "empty segment"),
        (lambda: store.create_index(5), InvalidFilterError, "takes a path"),
        (lambda: store.create_index(["n"]), InvalidFilterError, "takes a path"),
        (lambda: store.drop_index(None), InvalidFilterError, "takes a path"),
        (lambda: store.create_index(field("n")), InvalidFilterError, "takes a path"),
    ):
        with pytest.raises(error, match=message):
            call()  # type: ignore[no-untyped-call]
        assert content(store) == before
    for i in range(63):
        store.create_index(f"f{i}")
    before = content(store)
    with pytest.raises(InvalidFilterError, match="at most 64 indexed fields"):
        store.create_index("one too many")
    assert content(store) == before
    store.drop_index("f7")
    store.create_index("one more")
    assert store.count(field("n") < 3) == 3


def test_a_field_that_is_the_data_itself(stores: OpenStore) -> None:
    values = [1, 2.5, "text", [1, "a"], None, {"a": 1}, b"\x00", datetime.date(2024, 5, 1)]
    store = stores(metric="l2", index_fields=[()])
    store.add(None, np.ones((len(values), 2)), data=values)
    for where, keys in (
        (field(()) == 1, [0]), (field(()) > 1, [1]), (field(()) == "text", [2]), (field(()).contains("a"), [3]),
        (field(()) == None, [4]), (field(()).exists(), list(range(8))), (field(()) == datetime.date(2024, 5, 1), [7]),
        (field("a") == 1, [5]), (field(()) != None, [0, 1, 2, 3, 5, 6, 7]),
    ):  # fmt: skip
        assert [item.key for item in store.scan(where)] == keys
        plan = store.explain([1, 1], where=where)
        assert plan.is_indexed == (where not in (field("a") == 1, field(()).contains("a")))  # a str is looked into


# -- several processes, and snapshots ------------------------------------------------------------------------------------


def test_another_process_writes_and_indexes(stores: OpenStore) -> None:
    store = stores(metric="l2")
    model: Model = {}
    upsert(store, model, range(50))
    where = field("n") < 40
    with SecondProcess(store.info().path) as other:
        assert other.call("count", where) == store.count(where) == 40
        other.call("delete", ["k1", "k2"])
        assert store.count(where) == 38
        other.call("create_index", "n")
        assert store.explain(vectors_of([1])[0], where=where).count == 38
        assert store.info().indexed_fields == ("n",)
        upsert(store, model, range(50, 60), shift=-40)
        assert other.call("count", where) == store.count(where) == 48
        other.call("upsert", ["other"], np.ones((1, DIM)), data=[{"n": 3}])
        assert [item.key for item in store.scan(field("n") == 3)] == [3, "other"]
        store.drop_index("n")
        assert other.call("count", where) == 49
        assert store.delete(where=field("n") == 3) == 2
        assert other.call("count", where) == store.count(where) == 47
        store.create_index("group")  # takes the number
        assert other.call("count", where) == store.count(where) == 47
        assert other.call("count", field("group") == "a") == store.count(field("group") == "a") > 0
        assert other.call("delete", where=where) == 47
        assert store.count(where) == 0 and len(list(store.scan(where))) == 0
        hits = store.search(np.ones(DIM), 3, where=field("n") >= 40)
        assert other.call("search", np.ones(DIM), 3, where=field("n") >= 40) == [
            (hit.key, hit.distance, hit.label, hit.data) for hit in hits
        ]


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "indexed"])
def test_filters_in_a_snapshot(stores: OpenStore, indexed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens later does not show: neither items, nor indexes that come and go."""
    store = stores(metric="l2", index_fields=["n"] if indexed else ())
    model: Model = {}
    upsert(store, model, range(80))
    store.optimize()
    upsert(store, model, range(80, 100))
    store.delete(["k1", "k2"])
    del model["k1"], model["k2"]
    store.snapshot("s")
    then = dict(model)
    past = stores(store.info().path, snapshot="s")

    turns = cycle(range(4))

    def right() -> None:
        for condition in list(CONDITIONS.values())[next(turns) :: 4]:
            assert_right(past, then, condition)
            assert_right(store, model, condition)

    right()
    upsert(store, model, range(150), shift=30)
    right()
    store.drop_index("n") if indexed else store.create_index("n")
    right()
    store.create_index("other")
    upsert(store, model, range(140, 500), shift=7)
    store.optimize()
    right()
    store.drop_index("other")
    store.create_index("group")
    store.create_index("tags")
    right()
    monkeypatch.setattr(filters, "_FEW_NEW", 5)
    assert store.delete(where=field("n") > 60) == len(matching(model, (("n",), "$gt", 60)))
    model = matching(model, ("not", (("n",), "$gt", 60)))
    right()
    store.compact()
    right()
    with pytest.raises(ReadOnlyStoreError):
        past.delete(where=field("n") > 60)
    past.close()
    store.restore("s")
    for condition in CONDITIONS.values():
        assert {item.key for item in store.scan(as_expression(condition))} == set(matching(then, condition))


# -- delete --------------------------------------------------------------------------------------------------------------


def test_delete_where_is_all_or_nothing(stores: OpenStore) -> None:
    store = stores(metric="l2", index_fields=["n"])
    model: Model = {}
    upsert(store, model, range(100))
    store.optimize()
    before = content(store)
    for step in ("write.begun", "write.buried", "write.put"):

        def fail(name: str, step: str = step) -> None:
            if name == step:
                raise ZeroDivisionError(name)

        steps.set_observer(fail)
        try:
            with pytest.raises(ZeroDivisionError):
                store.delete(where=field("n") < 50)
        finally:
            steps.set_observer(None)
        assert content(store) == before
        for condition in CONDITIONS.values():
            assert_right(store, model, condition)
    assert store.delete(where=field("n") > 10**9) == 0
    assert content(store) == before, "a delete of nothing writes nothing"
    assert store.delete(where=field("n") < 50) == 50
    assert store.delete(where=field("n") < 50) == 0
    assert store.delete(where={}) == 50 and len(store) == 0
    assert store.delete(where={}) == 0


def test_delete_where_beside_writers(stores: OpenStore) -> None:
    """Each deletes what is there when its turn comes: in the end nothing that matches is left, and nothing else is gone."""
    store = stores(metric="l2", index_fields=["n"])
    n_each, n_threads = 60, 3
    counts: list[int] = []
    failures: list[BaseException] = []

    def guarded(work: Callable[[int], None], name: int) -> Callable[[], None]:
        def run() -> None:
            try:
                work(name)
            except BaseException as err:
                failures.append(err)

        return run

    def write(name: int) -> None:
        for i in range(n_each):
            store.add([f"{name}-{i}-{j}" for j in range(2)], np.ones((2, 3)), data=[{"n": 1}, {"n": 2}])

    def delete(_: int) -> None:
        for _ in range(40):
            counts.append(store.delete(where=field("n") == 1))
            assert all(item.data == {"n": 2} for item in store.scan(field("n") == 2))

    threads = [threading.Thread(target=guarded(write, name)) for name in range(n_threads)]
    threads += [threading.Thread(target=guarded(delete, name)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    counts.append(store.delete(where=field("n") == 1))
    assert sum(counts) == n_each * n_threads == len(store) == store.count(field("n") == 2)
    assert store.count(field("n") == 1) == 0


# -- damage --------------------------------------------------------------------------------------------------------------


def flip(store: Store, table: str, entry: bytes, row: int, wrong: int) -> None:
    """Lists another row under an entry of the postings in a row's place."""
    database = store._core.database
    handle = database._handle(table)

    def work(txn: Any) -> None:
        assert txn.delete(entry, row.to_bytes(8, "big"), db=handle)
        txn.put(entry, wrong.to_bytes(8, "big"), db=handle)

    store._core.environment.write(work)


def listed(store: Store, which: Any) -> list[tuple[bytes, list[int]]]:
    with store._core.environment.read() as txn:
        return [(entry, rows.tolist()) for entry, rows in store._core.database.postings(txn, which)]


@pytest.mark.parametrize("which", ["fields", "labels", "keys"])
@pytest.mark.parametrize("optimized", [False, True], ids=["tail", "segment"])
def test_a_flipped_bit_in_a_posting_gives_no_wrong_hit(tmp_path: Path, which: str, optimized: bool) -> None:
    """A row that is listed where it does not belong is noticed when it would be an answer."""
    condition = {"fields": (("n",), "$lt", 40), "labels": ("label", "$eq", "x"), "keys": ("key", "$lt", 50)}[which]
    store = simstore.open(tmp_path / "s.sim", metric="l2", background=False, index_fields=["n"])
    model: Model = {}
    upsert(store, model, range(100))
    if optimized:
        store.optimize()
    where, right = as_expression(condition), matching(model, condition)
    order = list(model)
    n_flips = 0
    for entry, rows in listed(store, which):
        for row in rows[:3]:
            others = [row ^ 1 << bit for bit in range(7)]
            wrong = next((other for other in others if other < 100 and order[other] not in right), None)
            if order[row] not in right or wrong is None:
                continue
            flip(store, which, entry, row, wrong)
            n_flips += 1
            for ask in (
                lambda: store.search(vectors_of([1])[0], 100, where=where),
                lambda: store.search(vectors_of([1])[0], 100, where=where, exact=True),
                lambda: store.search_many(vectors_of([1, 2]), 100, where=where),
                lambda: list(store.scan(where)),
                lambda: store.delete(where=where),
            ):
                store._core.filters.forget()
                with pytest.raises(CorruptStoreError, match="does not match"):
                    ask()
            store._core.filters.forget()
            assert len(store) == 100
            flip(store, which, entry, wrong, row)
            store._core.filters.forget()
            assert store.count(where) == len(right)
    assert n_flips >= 3
    store.close()


def test_a_row_that_does_not_exist_in_a_posting(tmp_path: Path) -> None:
    store = simstore.open(tmp_path / "s.sim", metric="l2", background=False, index_fields=["n"])
    upsert(store, {}, range(20))
    (entry, rows) = listed(store, "fields")[3]
    for wrong in (20, 21, 500, 1 << 40, (1 << 64) - 1):
        flip(store, "fields", entry, rows[0], wrong)
        store._core.filters.forget()
        hits = store.search(vectors_of([1])[0], 30, where=field("n") < 10)
        assert all(hit.data["n"] < 10 for hit in hits) and len(hits) == 9
        assert store.search(vectors_of([1])[0], 30, where=field("n") >= 10).keys
        flip(store, "fields", entry, wrong, rows[0])
    store.close()


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "indexed"])
def test_a_damaged_item_is_told_of(tmp_path: Path, indexed: bool) -> None:
    """Where it has to be looked at nothing is silently left out; what postings rule out is not looked at."""
    store = simstore.open(tmp_path / "s.sim", metric="l2", background=False, index_fields=["n"] if indexed else ())
    model: Model = {}
    upsert(store, model, range(50))

    def damage(txn: Any) -> None:
        value = store._core.database.item(txn, 30)
        txn.put((30).to_bytes(8, "big"), value[:-1] + bytes([value[-1] ^ 1]), db=store._core.database._items)

    store._core.environment.write(damage)
    store._core.filters.forget()
    for call in (store.search, store.explain):
        with pytest.raises(CorruptStoreError, match="the item in row 30 is damaged"):
            call(model["k31"][2], 60, where=field("other") < 8)
    for ask in (store.count, lambda where: list(store.scan(where)), store.labels, lambda where: store.delete(where=where)):
        with pytest.raises(CorruptStoreError, match="the item in row 30 is damaged"):
            ask(field("other") < 8)
    assert store.delete(30) == 1
    del model[30]
    for condition in CONDITIONS.values():
        assert_right(store, model, condition)
    store.close()


# -- explain -------------------------------------------------------------------------------------------------------------


def test_explain_says_what_is_done(stores: OpenStore) -> None:
    store = stores(metric="l2", index_fields=["n"])
    model: Model = {}
    upsert(store, model, range(300))
    store.optimize()
    upsert(store, model, range(300, 330))
    store.delete(where=field("n") < 5)
    query = vectors_of([1])[0]
    plan = store.explain(query, 7)
    assert (plan.where, plan.k, plan.ef, plan.count, plan.estimate, plan.n_read) == (None, 7, 128, 325, 325, 0)
    assert [(part.name, part.n_rows, part.n_allowed) for part in plan.parts] == [
        ("segment 0-299", 300, 295),
        ("tail 300-329", 30, 30),
    ]
    plan = store.explain(query, 7, where=field("n") < 50, ef=40)
    assert plan.where == 'field("n") < 50' and (plan.k, plan.ef) == (7, 40)
    assert plan.is_indexed and (plan.count, plan.estimate, plan.n_read) == (45, 50, 0)
    assert [(part.path, part.n_allowed, part.cost) for part in plan.parts] == [("rows", 45, plan.parts[0].cost), ("none", 0, 0)]
    assert 40 <= plan.parts[0].cost <= 45 and plan.cost == plan.parts[0].cost  # equal vectors share a node
    assert "from postings" in str(plan) and "45 match (estimate 50)" in str(plan)
    assert str(plan).count("\n") == 3
    upsert(store, model, range(330, 340), shift=-300)
    plan = store.explain(query, 7, where=field("n") < 50)
    assert plan.is_indexed and (plan.count, plan.estimate, plan.n_read) == (55, 60, 0)
    plan = store.explain(query, 7, where=field("other") < 3)
    n = len(matching(matching(model, ("not", ("key", "$in", [0, "k1", "k2", 3, "k4"]))), (("other",), "$lt", 3)))
    assert not plan.is_indexed and (plan.count, plan.n_read) == (n, 335) and plan.estimate == 335
    assert "335 items were looked at" in str(plan)
    plan = store.explain(query, 7, where=(field("n") < 50) & (field("other") < 3))
    assert not plan.is_indexed and plan.estimate == 60 and plan.n_read == 55
    for where, paths in ((field("n") > 10**6, ["none", "none"]), (field("n") >= 0, ["rows", "tail"])):
        assert [part.path for part in store.explain(query, 200, where=where).parts] == paths
    plan = store.explain(query, 7, exact=True)
    assert plan.parts[0].path in ("exact", "rows") and plan.parts[1].path == "tail"
    assert store.explain(query, 100_000).k == 100_000
    with pytest.raises(InvalidArgumentError):
        store.explain(query, None)  # type: ignore[arg-type]


def test_explain_takes_the_path_that_the_search_takes(stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stores(metric="l2", index_fields=["n"])
    model: Model = {}
    upsert(store, model, range(400))
    store.optimize()
    paths: list[str] = []
    original = searcher.search_segment

    def noting(*args: Any) -> Any:
        path = original(*args)
        paths.append(path)
        return path

    monkeypatch.setattr(searcher, "search_segment", noting)
    for walk in (False, True):
        for k in (1, 10, 150):
            for exact in (False, True):
                for where in (None, field("n") < 300, field("n") < 60, field("n") < 3, field("n") < 0):
                    with walking() if walk else mock.patch.object(filters, "_FEW_NEW", 50):
                        paths.clear()
                        store.search(vectors_of([5])[0], k, where=where, exact=exact)
                        plan = store.explain(vectors_of([5])[0], k, where=where, exact=exact)
                        assert [part.path for part in plan.parts] == [*paths[:1]] or (
                            plan.count == 0 and plan.parts[0].path == "none"
                        )


def test_explain_an_empty_store(store: Store) -> None:
    plan = store.explain([1.0, 2.0], where=field("n") == 1)
    assert plan.count == plan.cost == 0 and plan.parts == ()
    assert store.count(field("n") == 1) == 0 and store.labels(label == "x") == {} and list(store.scan(key == 1)) == []
    assert store.search([1.0, 2.0], where=key == 1).keys == [] and store.delete(where=key == 1) == 0


# -- dicts, and what is refused ------------------------------------------------------------------------------------------


def test_dicts_are_the_same_filters(stores: OpenStore) -> None:
    store = stores(metric="l2", index_fields=["n"])
    model: Model = {}
    upsert(store, model, range(60))
    query = vectors_of([3])[0]
    for condition in CONDITIONS.values():
        if condition in (("and", []), ("or", [])):
            continue
        given = as_dict(condition)
        where = where_of(given)
        assert store.count(given) == store.count(where)
        assert [item.key for item in store.scan(given)] == [item.key for item in store.scan(where)]
        assert store.labels(given) == store.labels(where)
        assert store.search(query, 5, where=given).keys == store.search(query, 5, where=where).keys
        assert store.search_many([query], 5, where=given)[0].keys == store.search(query, 5, where=where).keys
        assert store.explain(query, 5, where=given).where == repr(where)
    assert store.count({}) == 60 and store.count({"n": {"$gte": 5, "$lt": 9}, "$label": "x"}) == 1
    assert store.delete(where={"n": 3}) == 1


def content(store: Store) -> Any:
    info = store.info()
    items = [(item.key, item.label, repr(item.data), item.vector.tobytes()) for item in store.scan()]
    return info.seq, info.indexed_fields, items, store.labels(), listed(store, "fields")


def nested(levels: int) -> Any:
    given: Any = {"n": 1}
    for _ in range(levels):
        given = {"$not": given}
    return given


LOOP: dict[str, Any] = {}
LOOP["$not"] = LOOP
BAD: list[Any] = [
    "n", 5, [], [field("n") == 1], ("n", 1), True, field("n"), key, label, {"n": {}}, {"$nin": [1]}, {"n": {"$nin": [1]}},
    {"n": {"$regex": "a"}}, {"$gt": 1}, {"n": [1]}, {"n": {"$in": 5}}, {"n": {"$lt": None}}, {"$and": []}, {"$or": {}},
    {"$not": []}, {"": 1}, {5: 1}, {"n": {"$exists": 1}}, {"$label": 1.5}, {"$key": None}, {"$label": {"$contains": "a"}},
    {"n": float("nan")}, {"n": {"m": 1}}, nested(100), LOOP, {"$unknown": 1}, {"n": object()},
]  # fmt: skip


@pytest.mark.parametrize("where", BAD, ids=lambda where: repr(where)[:40])
def test_bad_filters_change_nothing(stores: OpenStore, where: Any) -> None:
    store = stores(metric="l2", index_fields=["n"])
    upsert(store, {}, range(10))
    before = content(store)
    query = vectors_of([1])[0]
    for call in (
        lambda: store.search(query, where=where), lambda: store.search_many([query], where=where),
        lambda: store.scan(where), lambda: store.count(where), lambda: store.labels(where),
        lambda: store.delete(where=where), lambda: store.explain(query, where=where),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r".") as caught:
            call()
        assert type(caught.value) is InvalidFilterError and len(str(caught.value)) < 1000
        assert content(store) == before


def test_delete_takes_keys_or_a_filter(stores: OpenStore) -> None:
    store = stores(metric="l2")
    upsert(store, {}, range(10))
    before = content(store)
    for call in (lambda: store.delete(), lambda: store.delete("k1", where=key == "k1"), lambda: store.delete([], where={})):
        with pytest.raises(InvalidArgumentError, match="one of them, not both"):
            call()
        assert content(store) == before


@pytest.mark.parametrize("levels", [1, 50, 99])
def test_deep_conditions_work(stores: OpenStore, levels: int) -> None:
    store = stores(metric="l2", index_fields=["n"])
    upsert(store, {}, range(10))
    for subject in ("n", "other"):
        where: Any = field(subject) == 1
        for _ in range(levels):
            where = ~where
        right = 10 - store.count(field(subject) == 1) if levels % 2 else store.count(field(subject) == 1)
        assert store.count(where) == right == len(list(store.scan(where)))


def test_many_values(stores: OpenStore) -> None:
    """is_in of tens of thousands, and labels and keys longer than any that is stored."""
    store = stores(metric="l2", index_fields=["n"])
    model: Model = {}
    upsert(store, model, range(50))
    for values in (range(20, 50_000), [*range(20, 50_000), *map(str, range(20_000))]):
        assert store.count(field("n").is_in(values)) == 30
        assert store.count(key.is_in(values)) == len([one for one in model if isinstance(one, int) and one >= 20])
    for long in ("x" * 499, "x" * 500, "x" * 5000, "k" * 2000, "\ud800" * 400):
        for where in (key == long, label == long, field("n") == long, key.startswith(long), label.startswith(long)):
            assert store.count(where) == 0 and store.count(~where) == 50
        assert store.count(key < long) == len([one for one in model if isinstance(one, str) and one < long])
        assert store.count(label >= long) == len([row for row in model.values() if isinstance(row[0], str) and row[0] >= long])
    for number in (-(10**30), 10**30, 2**64, -(2**63) - 1):
        assert store.count(key == number) == 0
        assert store.count(key < number) == (len([one for one in model if isinstance(one, int)]) if number > 0 else 0)
        assert store.count(label > number) == (len([r for r in model.values() if r[0] == 0]) if number < 0 else 0)
    assert candidates._LONGEST == 505


@pytest.mark.parametrize("others", [[], ["year"]])
def test_a_dropped_index_leaves_a_sound_store(others: list[str], stores: OpenStore) -> None:
    """LMDB goes on counting pages of the many rows of a term that it has dropped."""
    store = stores(index_fields=["kind", *others])
    store.add(None, np.eye(1000, 8) + 1, data=[{"kind": "a", "year": n} for n in range(1000)])
    store.drop_index("kind")
    assert store.check(deep=True) == [] and store.repair().rebuilt == []
    store.create_index("kind")
    assert store.count(field("kind") == "a") == 1000 and store.check(deep=True) == []
