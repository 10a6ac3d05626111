"""Each mistake has an error of its own: by class, by the builtin that a user would catch, and by what its message says."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from conftest import OpenStore

import simstore
from simstore import Store, errors, key
from simstore.embedders import FunctionEmbedder
from simstore.errors import (
    AlreadyOpenError,
    CorruptStoreError,
    DimensionError,
    DuplicateKeyError,
    EmbedderMismatchError,
    EmbedderRequiredError,
    FormatVersionError,
    InvalidArgumentError,
    InvalidDataError,
    InvalidKeyError,
    InvalidLabelError,
    InvalidVectorError,
    KeyExistsError,
    KeyNotFoundError,
    NotAStoreError,
    ReadOnlyStoreError,
    SimstoreError,
    StoreClosedError,
    StoreExistsError,
    StoreNotFoundError,
)
from simstore.readers import Example, ReadOptions
from simstore.storage import Database, Environment
from simstore.storage.records import sealed

NAN, INF = float("nan"), float("inf")
V = [1.0, 2.0, 3.0]
VV = [V, [4.0, 5.0, 6.0]]

Case = tuple[str, Callable[[Store], Any], type[Exception], type[Exception], str]


def content(store: Store) -> Any:
    """All there is in a store."""
    items = [(repr(item.key), item.label, repr(item.data), item.vector.tobytes()) for item in store.scan()]
    return len(store), store.info().seq, store.info().dim, items, store.labels()


@pytest.fixture
def filled(store: Store) -> Store:
    """Three items of dim 3, two of them in a segment."""
    store.add(["a", 1], [[1, 0, 0], [0, 1, 0]], labels=["x", None], data=[{"n": 1}, b"two"])
    store.optimize()
    store.add("b", [0, 0, 1], labels=2)
    return store


def cases(table: Sequence[Case]) -> Any:
    return pytest.mark.parametrize(
        ("call", "error", "builtin", "message"), [case[1:] for case in table], ids=[case[0] for case in table]
    )


def assert_refused(
    store: Store, call: Callable[[Store], Any], error: type[Exception], builtin: type[Exception], message: str
) -> None:
    before = content(store)
    with pytest.raises(builtin, match=message) as caught:
        call(store)
    assert type(caught.value) is error and isinstance(caught.value, SimstoreError)
    assert content(store) == before


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_every_error_is_a_simstore_error_and_a_builtin() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, SimstoreError)
        if kind is not SimstoreError:
            assert [
                base
                for base in kind.__mro__
                if base.__module__ == "builtins" and base not in (Exception, BaseException, object)
            ]


def test_a_key_error_prints_its_message_not_its_repr(filled: Store) -> None:
    with pytest.raises(KeyError) as caught:
        filled.get("it's")
    assert str(caught.value) == """"it's" is not in the store"""


# -- what is written ----------------------------------------------------------------------------------------------------

VECTORS: list[Case] = [
    (
        "wider",
        lambda s: s.add(None, [[1, 2, 3, 4]]),
        DimensionError,
        ValueError,
        "have 4 numbers each; this store holds vectors of 3",
    ),
    (
        "narrower",
        lambda s: s.add("n", [1, 2]),
        DimensionError,
        ValueError,
        "have 2 numbers each; this store holds vectors of 3",
    ),
    ("no numbers", lambda s: s.add(None, np.zeros((2, 0))), DimensionError, ValueError, "have 0 numbers each"),
    ("ragged", lambda s: s.add(None, [[1, 2, 3], [1, 2]]), InvalidVectorError, ValueError, "the same length"),
    ("str", lambda s: s.add(None, [["a", "b", "c"]]), InvalidVectorError, ValueError, "hold numbers .* not dtype <U1"),
    ("object", lambda s: s.add(None, [[None, 1, 2]]), InvalidVectorError, ValueError, "hold numbers .* not dtype object"),
    ("complex", lambda s: s.add(None, [[1j, 1, 2]]), InvalidVectorError, ValueError, "hold numbers .* not dtype complex128"),
    ("bool", lambda s: s.add(None, [[True] * 3]), InvalidVectorError, ValueError, "hold numbers .* not dtype bool"),
    ("dates", lambda s: s.add(None, np.zeros((1, 3), "M8[s]")), InvalidVectorError, ValueError, "not dtype datetime64"),
    ("huge ints", lambda s: s.add(None, [[10**30, 1, 2]]), InvalidVectorError, ValueError, "not dtype object"),
    (
        "one for many",
        lambda s: s.add(["c", "d"], V),
        InvalidVectorError,
        ValueError,
        r"an array \[n, dim\], not an array of shape \[3\]",
    ),
    (
        "many for one",
        lambda s: s.add("c", VV),
        InvalidVectorError,
        ValueError,
        r"one vector \[dim\], not an array of shape \[2, 3\]",
    ),
    (
        "three axes",
        lambda s: s.add(None, np.zeros((1, 3, 1))),
        InvalidVectorError,
        ValueError,
        r"not an array of shape \[1, 3, 1\]",
    ),
    ("a number", lambda s: s.add("c", 5.0), InvalidVectorError, ValueError, r"not an array of shape \[\]"),
    ("NaN", lambda s: s.add(None, [V, [1, NAN, 2]]), InvalidVectorError, ValueError, "vector 1 holds NaN or infinity"),
    ("inf", lambda s: s.add("c", [1, -INF, 2]), InvalidVectorError, ValueError, "the vectors? holds? NaN or infinity"),
    (
        "beyond float32",
        lambda s: s.add(None, [V, [1e39, 0, 0]]),
        InvalidVectorError,
        ValueError,
        "vector 1 holds NaN or infinity",
    ),
    ("too large", lambda s: s.add(None, [V, V, [2e18, 0, 0]]), InvalidVectorError, ValueError, "vector 2 is longer than 1e18"),
    ("upsert wider", lambda s: s.upsert(["a"], [[1, 2, 3, 4]]), DimensionError, ValueError, "have 4 numbers each"),
    ("upsert NaN", lambda s: s.upsert(["a", "z"], [V, [NAN, 1, 2]]), InvalidVectorError, ValueError, "vector 1 holds NaN"),
]


@cases(VECTORS)
def test_vectors(filled: Store, call: Any, error: Any, builtin: Any, message: str) -> None:
    assert_refused(filled, call, error, builtin, message)


KEYS: list[Case] = [
    ("too few", lambda s: s.add(["c"], VV), InvalidArgumentError, ValueError, "1 keys for 2 vectors"),
    ("too many", lambda s: s.upsert(["c", "d", "e"], VV), InvalidArgumentError, ValueError, "3 keys for 2 vectors"),
    ("none for two", lambda s: s.add([], VV), InvalidArgumentError, ValueError, "0 keys for 2 vectors"),
    ("twice", lambda s: s.add(["c", "d", "c"], np.ones((3, 3))), DuplicateKeyError, ValueError, r"keys\[2\]: 'c' stands twice"),
    ("twice, as numpy", lambda s: s.add([5, np.int64(5)], VV), DuplicateKeyError, ValueError, r"keys\[1\]: .*5.* stands twice"),
    ("upsert twice", lambda s: s.upsert(["a", "a"], VV), DuplicateKeyError, ValueError, r"keys\[1\]: 'a' stands twice"),
    ("update twice", lambda s: s.update(["a", "a"], data=[1, 2]), DuplicateKeyError, ValueError, "stands twice"),
    ("delete twice", lambda s: s.delete(["a", 1, "a"]), DuplicateKeyError, ValueError, r"keys\[2\]: 'a' stands twice"),
    ("in the store", lambda s: s.add(["c", 1], VV), KeyExistsError, KeyError, r"keys\[1\]: 1 is in the store already: upsert"),
    (
        "too long",
        lambda s: s.add(["c", "x" * 500], VV),
        InvalidKeyError,
        ValueError,
        r"keys\[1\]: .* takes 501 bytes encoded; 500",
    ),
    ("too long in UTF-8", lambda s: s.add("é" * 250, V), InvalidKeyError, ValueError, "takes 501 bytes encoded"),
    ("too large", lambda s: s.add([2**64], [V]), InvalidKeyError, ValueError, r"out of range: .* from -2\*\*63 to 2\*\*64 - 1"),
    ("too negative", lambda s: s.add([-(2**63) - 1], [V]), InvalidKeyError, ValueError, "out of range"),
    (
        "bool",
        lambda s: s.add([True], [V]),
        InvalidKeyError,
        ValueError,
        r"keys\[0\]: a key is a str or an int, not bool \(True\)",
    ),
    ("bool alone", lambda s: s.add(True, V), InvalidKeyError, ValueError, "a str or an int, not bool"),
    ("numpy bool", lambda s: s.add([np.True_], [V]), InvalidKeyError, ValueError, "a str or an int, not bool"),
    ("float", lambda s: s.add(["c", 1.0], VV), InvalidKeyError, ValueError, r"keys\[1\]: .*not float \(1.0\)"),
    ("float array", lambda s: s.add(np.array([1.0, 2.0]), VV), InvalidKeyError, ValueError, "not float"),
    ("None", lambda s: s.add(["c", None], VV), InvalidKeyError, ValueError, "not NoneType"),
    ("bytes", lambda s: s.add([b"c"], [V]), InvalidKeyError, ValueError, r"not bytes \(b'c'\)"),
    ("tuple", lambda s: s.add([("a", 1)], [V]), InvalidKeyError, ValueError, "not tuple"),
    (
        "bytes alone",
        lambda s: s.add(b"c", [V]),
        InvalidArgumentError,
        ValueError,
        "keys is a key or a sequence of keys .*not bytes",
    ),
    ("dict alone", lambda s: s.add({"c": 1}, [V]), InvalidArgumentError, ValueError, "not dict"),
    ("float alone", lambda s: s.add(1.5, [V]), InvalidArgumentError, ValueError, "not float"),
    ("float and vector alone", lambda s: s.add(1.5, V), InvalidArgumentError, ValueError, "keys is a key or .*not float"),
    ("0-d array", lambda s: s.add(np.array(5), [V]), InvalidArgumentError, ValueError, "keys is a key or a sequence"),
    ("array of arrays", lambda s: s.add(np.zeros((2, 2), int), VV), InvalidKeyError, ValueError, "not list"),
    ("set", lambda s: s.add({"c", "d"}, VV), InvalidArgumentError, ValueError, "keys .*not set"),
    ("get float", lambda s: s.get(1.0), InvalidKeyError, ValueError, "not float"),
    ("get too long", lambda s: s.get("x" * 501), InvalidKeyError, ValueError, "takes 502 bytes"),
    ("get missing", lambda s: s.get("zz"), KeyNotFoundError, KeyError, "'zz' is not in the store"),
    ("get the digits", lambda s: s.get("1"), KeyNotFoundError, KeyError, "'1' is not in the store"),
    ("get_many None", lambda s: s.get_many(None), InvalidArgumentError, ValueError, "not NoneType"),
    ("get_many bytes", lambda s: s.get_many(["a", b"a"]), InvalidKeyError, ValueError, r"keys\[1\]: .*not bytes"),
    ("delete missing", lambda s: s.delete(["a", "zz"]), KeyNotFoundError, KeyError, r"keys\[1\]: 'zz' is not in the store"),
    ("delete None", lambda s: s.delete(None), InvalidArgumentError, ValueError, "keys, or where= .*: one of them, not both"),
    ("delete float", lambda s: s.delete([1.0], missing="ignore"), InvalidKeyError, ValueError, "not float"),
    ("missing=", lambda s: s.delete("a", missing="drop"), InvalidArgumentError, ValueError, "'raise' or 'ignore', not 'drop'"),
    ("update missing", lambda s: s.update(["a", "zz"], data=[1, 2]), KeyNotFoundError, KeyError, r"keys\[1\]: 'zz' is not in"),
    ("update of nothing", lambda s: s.update(["a"]), InvalidArgumentError, ValueError, "update needs labels, data, or both"),
]


@cases(KEYS)
def test_keys(filled: Store, call: Any, error: Any, builtin: Any, message: str) -> None:
    assert_refused(filled, call, error, builtin, message)


BATCHES: list[Case] = [
    ("empty list", lambda s: s.add([], []), InvalidArgumentError, ValueError, "nothing to write: the batch is empty"),
    ("empty array", lambda s: s.add([], np.zeros((0, 3))), InvalidArgumentError, ValueError, "nothing to write"),
    ("empty, numbered", lambda s: s.add(None, np.zeros((0, 3))), InvalidArgumentError, ValueError, "nothing to write"),
    ("empty upsert", lambda s: s.upsert([], np.zeros((0, 3))), InvalidArgumentError, ValueError, "nothing to write"),
    ("empty update", lambda s: s.update([], labels=[]), InvalidArgumentError, ValueError, "nothing to write"),
    ("no vectors", lambda s: s.add(["c"]), InvalidArgumentError, ValueError, "give vectors, or inputs"),
    (
        "vectors and inputs",
        lambda s: s.add(["c"], [V], inputs=["i"]),
        InvalidArgumentError,
        ValueError,
        "one of them, not both",
    ),
    ("few labels", lambda s: s.add(None, VV, labels=["x"]), InvalidArgumentError, ValueError, "1 labels for 2 items"),
    ("many data", lambda s: s.add(None, VV, data=[1, 2, 3]), InvalidArgumentError, ValueError, "3 data for 2 items"),
    ("update few", lambda s: s.update(["a", 1], data=[1]), InvalidArgumentError, ValueError, "1 data for 2 items"),
    (
        "labels as str",
        lambda s: s.add(None, VV, labels="xy"),
        InvalidArgumentError,
        ValueError,
        "labels is a sequence .*not 'xy'",
    ),
    ("labels as int", lambda s: s.add(None, VV, labels=5), InvalidArgumentError, ValueError, "labels is a sequence .*not 5"),
    ("labels 0-d", lambda s: s.add(None, VV, labels=np.array(5)), InvalidArgumentError, ValueError, "labels is a sequence"),
    (
        "data as dict",
        lambda s: s.add(None, VV, data={"a": 1}),
        InvalidArgumentError,
        ValueError,
        "data is a sequence .*2 items",
    ),
    ("data 0-d", lambda s: s.add(None, VV, data=np.array(5)), InvalidArgumentError, ValueError, "data is a sequence"),
]


@cases(BATCHES)
def test_batches(filled: Store, call: Any, error: Any, builtin: Any, message: str) -> None:
    assert_refused(filled, call, error, builtin, message)


LABELS_AND_DATA: list[Case] = [
    (
        "label float",
        lambda s: s.add(None, VV, labels=["x", 1.5]),
        InvalidLabelError,
        ValueError,
        r"labels\[1\]: a label is .*not float",
    ),
    ("label bool", lambda s: s.add("c", V, labels=True), InvalidLabelError, ValueError, "a str, an int or None, not bool"),
    ("label bytes", lambda s: s.add("c", V, labels=b"x"), InvalidLabelError, ValueError, "not bytes"),
    ("label list", lambda s: s.add("c", V, labels=["x"]), InvalidLabelError, ValueError, "not list"),
    ("label NaN", lambda s: s.add(None, VV, labels=np.array([1, NAN])), InvalidLabelError, ValueError, "not float"),
    ("label too long", lambda s: s.add("c", V, labels="l" * 600), InvalidLabelError, ValueError, "label 'l.* takes 601 bytes"),
    (
        "label too large",
        lambda s: s.add("c", V, labels=2**64),
        InvalidLabelError,
        ValueError,
        "label 18.* is out of range: an int label",
    ),
    ("update label", lambda s: s.update(["a", 1], labels=["y", 1.5]), InvalidLabelError, ValueError, r"labels\[1\]: .*float"),
    ("upsert label", lambda s: s.upsert(["a"], [V], labels=[1.5]), InvalidLabelError, ValueError, "not float"),
    ("set", lambda s: s.add(None, VV, data=[1, {1}]), InvalidDataError, ValueError, r"data\[1\]: data holds a set \(\{1\}\)"),
    ("set inside", lambda s: s.add("c", V, data={"a": [{1}]}), InvalidDataError, ValueError, "data holds a set"),
    ("object", lambda s: s.add("c", V, data=object()), InvalidDataError, ValueError, "data holds a object"),
    ("function", lambda s: s.add("c", V, data=len), InvalidDataError, ValueError, "data holds a builtin_function"),
    ("complex", lambda s: s.add("c", V, data=1j), InvalidDataError, ValueError, "data holds a complex"),
    ("int of 65 bits", lambda s: s.add("c", V, data=2**64), InvalidDataError, ValueError, "ints up to 64 bits"),
    ("negative int", lambda s: s.add("c", V, data=[-(2**63) - 1]), InvalidDataError, ValueError, "ints up to 64 bits"),
    ("too deep", lambda s: s.add("c", V, data=nested(3000)), InvalidDataError, ValueError, "recursion limit"),
    (
        "object array",
        lambda s: s.add("c", V, data=np.array([{}, 1], object)),
        InvalidDataError,
        ValueError,
        "array of dtype object",
    ),
    ("record array", lambda s: s.add("c", V, data=np.zeros(2, "i4,f4")), InvalidDataError, ValueError, "array of dtype"),
    (
        "masked array",
        lambda s: s.add("c", V, data=np.ma.array([1, 2], mask=[0, 1])),
        InvalidDataError,
        ValueError,
        "data holds a",
    ),
    ("tuple as dict key", lambda s: s.add("c", V, data={(1, 2): 3}), InvalidDataError, ValueError, "key"),
    ("our extension type", lambda s: s.add("c", V, data=msgpack.ExtType(1, b"x")), InvalidDataError, ValueError, "ExtType"),
    ("update data", lambda s: s.update(["a", 1], data=[5, {1}]), InvalidDataError, ValueError, r"data\[1\]: data holds a set"),
    ("upsert data", lambda s: s.upsert(["a"], [V], data=[{1}]), InvalidDataError, ValueError, "data holds a set"),
]


@cases(LABELS_AND_DATA)
def test_labels_and_data(filled: Store, call: Any, error: Any, builtin: Any, message: str) -> None:
    assert_refused(filled, call, error, builtin, message)


def test_a_list_that_holds_itself(filled: Store) -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert_refused(filled, lambda s: s.add("c", V, data=loop), InvalidDataError, ValueError, "recursion limit")


@pytest.mark.parametrize("depth", [500, 511, 512, 1000, 1023, 1024, 1025])
def test_data_is_refused_or_comes_back_however_deep(store: Store, depth: int) -> None:
    try:
        store.add("a", [1.0], data=nested(depth))
    except InvalidDataError:
        assert depth > 500 and len(store) == 0
    else:
        found, n = store.get("a").data, 0
        while found:
            found, n = found[0], n + 1
        assert n == depth


def test_zero_vectors_under_cosine(stores: OpenStore) -> None:
    store = stores(metric="cosine")
    store.add("a", V)
    message = "is all zeros, which has no direction"
    assert_refused(store, lambda s: s.add("z", [0, 0, 0]), InvalidVectorError, ValueError, message)
    assert_refused(store, lambda s: s.add(None, [V, [0, -0.0, 0]]), InvalidVectorError, ValueError, "vector 1 " + message)
    assert_refused(store, lambda s: s.upsert("a", [0, 0, 0]), InvalidVectorError, ValueError, message)
    assert_refused(store, lambda s: s.add("z", [1e-46, 0, 0]), InvalidVectorError, ValueError, message)  # zero in float32
    assert_refused(store, lambda s: s.search([0, 0, 0]), InvalidVectorError, ValueError, "the query " + message)
    assert_refused(store, lambda s: s.search_many([V, [0, 0, 0]]), InvalidVectorError, ValueError, "query 1 " + message)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_zero_vectors_are_welcome_elsewhere(stores: OpenStore, metric: str) -> None:
    store = stores(metric=metric)
    store.add(["z", "a"], [[0, 0, 0], V])
    assert set(store.search([0, 0, 0]).keys) == {"z", "a"}


def test_numbers_run_out(store: Store) -> None:
    store.add(2**64 - 1, V)
    assert_refused(store, lambda s: s.add(None, [V]), InvalidKeyError, ValueError, "used the largest int key")
    assert store.add("named", V) == ["named"]


def test_a_failed_first_add_settles_no_width(store: Store) -> None:
    for call in (
        lambda: store.add(None, [[1, 2, 3, 4], [NAN, 1, 1, 1]]),
        lambda: store.add(["a", "a"], np.ones((2, 4))),
        lambda: store.add("a", np.ones(65_537)),
    ):
        with pytest.raises(ValueError, match=r"NaN|twice|65536"):
            call()
    assert store.info().dim is None
    store.add("a", V)
    assert store.info().dim == 3


# -- what is asked ------------------------------------------------------------------------------------------------------


def both(query: Any, *args: Any, **options: Any) -> list[Callable[[Store], Any]]:
    return [lambda s: s.search(query, *args, **options), lambda s: s.search_many([query], *args, **options)]


SEARCHES: list[tuple[str, list[Callable[[Store], Any]], type[Exception], str]] = [
    ("k=0", both(V, 0), InvalidArgumentError, "k is at least 1, not 0"),
    ("k=-1", both(V, -1), InvalidArgumentError, "k is at least 1, not -1"),
    ("k=2.0", both(V, 2.0), InvalidArgumentError, "k is a whole number of answers, or None; not 2.0"),
    ("k=True", both(V, True), InvalidArgumentError, "k is a whole number .* not True"),
    ("k='3'", both(V, "3"), InvalidArgumentError, "k is a whole number .* not '3'"),
    ("k=[3]", both(V, [3]), InvalidArgumentError, r"k is a whole number .* not \[3\]"),
    ("k=None", both(V, None), InvalidArgumentError, "give max_distance, too"),
    ("ef=0", both(V, ef=0), InvalidArgumentError, "ef is a whole number of at least 1, not 0"),
    ("ef=-5", both(V, ef=-5), InvalidArgumentError, "not -5"),
    ("ef=1.5", both(V, ef=1.5), InvalidArgumentError, "ef is a whole number of at least 1, not 1.5"),
    ("ef=True", both(V, ef=True), InvalidArgumentError, "not True"),
    ("max_distance NaN", both(V, max_distance=NAN), InvalidArgumentError, "max_distance is a number, not nan"),
    ("max_distance str", both(V, max_distance="1"), InvalidArgumentError, "max_distance is a number, not '1'"),
    ("max_distance bool", both(V, max_distance=True), InvalidArgumentError, "max_distance is a number, not True"),
    ("max_distance list", both(V, max_distance=[1]), InvalidArgumentError, r"max_distance is a number, not \[1\]"),
    ("wider", both([1, 2, 3, 4]), DimensionError, "(query has 4 numbers|have 4 numbers each); this store holds vectors of 3"),
    ("narrower", both([1, 2], exact=True), DimensionError, "(query has 2 numbers|have 2 numbers each)"),
    ("NaN", both([1, NAN, 3]), InvalidVectorError, "holds NaN or infinity"),
    ("inf", both([1, INF, 3]), InvalidVectorError, "holds NaN or infinity"),
    ("too large", both([2e18, 1, 1]), InvalidVectorError, "is longer than 1e18"),
    ("str", both(["a", "b", "c"]), InvalidVectorError, "hold numbers"),
    ("object", both([None, 1, 2]), InvalidVectorError, "hold numbers .* dtype object"),
    ("complex", both([1j, 1, 2]), InvalidVectorError, "hold numbers .* dtype complex"),
    ("bool", both([True, False, True]), InvalidVectorError, "hold numbers .* dtype bool"),
    ("many for one", [lambda s: s.search(VV)], InvalidVectorError, r"one vector \[dim\], not an array of shape \[2, 3\]"),
    ("one for many", [lambda s: s.search_many(V)], InvalidVectorError, r"an array \[n, dim\], not an array of shape \[3\]"),
    ("ragged", [lambda s: s.search_many([V, [1.0]])], InvalidVectorError, "the same length"),
    ("the second is NaN", [lambda s: s.search_many([V, [1, NAN, 1]])], InvalidVectorError, "query 1 holds NaN"),
    ("nothing", [lambda s: s.search(), lambda s: s.search_many()], InvalidArgumentError, "one of them, not both"),
    (
        "query and input",
        [lambda s: s.search(V, input="x"), lambda s: s.search_many(VV, inputs=["x"])],
        InvalidArgumentError,
        "one of them, not both",
    ),
    ("threads=0", [lambda s: s.search_many(VV, threads=0)], InvalidArgumentError, "threads is a whole number of at least 1"),
    ("threads=1.5", [lambda s: s.search_many(VV, threads=1.5)], InvalidArgumentError, "threads is a whole number"),
    ("no embedder", [lambda s: s.search(input="x")], EmbedderRequiredError, "has no embedder to turn inputs into vectors"),
    ("no embedder, many", [lambda s: s.search_many(inputs=["x"])], EmbedderRequiredError, "has no embedder"),
]


@pytest.mark.parametrize(("calls", "error", "message"), [case[1:] for case in SEARCHES], ids=[case[0] for case in SEARCHES])
def test_searches(filled: Store, calls: Any, error: Any, message: str) -> None:
    for call in calls:
        assert_refused(filled, call, error, ValueError, message)


@pytest.mark.parametrize("ef", [2**31, 2**40, 10**30])
def test_an_ef_beyond_all_items_is_like_exact(store: Store, ef: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((1000, 4))
    store.add(None, vectors)
    store.optimize()
    assert store.search(vectors[0], ef=ef).keys == store.search(vectors[0], exact=True).keys


# -- opening ------------------------------------------------------------------------------------------------------------


def refused_open(path: Any, error: type[Exception], builtin: type[Exception], message: str, **options: Any) -> None:
    with pytest.raises(builtin, match=message) as caught:
        simstore.open(path, background=False, **options)
    assert type(caught.value) is error and isinstance(caught.value, SimstoreError)


@pytest.fixture
def closed_path(stores: OpenStore) -> Path:
    """A closed store of dim 3, l2, with one item."""
    store = stores(metric="l2", M=8, ef_construction=50)
    store.add("a", V)
    path = Path(store.info().path)
    store.close()
    return path


def reopens(path: Path) -> bool:
    """The store opens, holds what it held, and is sound."""
    with simstore.open(path, background=False) as store:
        return store.get("a").vector.tolist() == V and len(store) == 1 and store.check(deep=True) == []


def test_missing_directory(tmp_path: Path) -> None:
    refused_open(
        tmp_path / "no" / "s", StoreNotFoundError, FileNotFoundError, "the directory .*no does not exist: create it first"
    )
    assert list(tmp_path.iterdir()) == []


def test_missing_store_to_read(tmp_path: Path) -> None:
    refused_open(
        tmp_path / "s", StoreNotFoundError, FileNotFoundError, "there is no store at .*mode='a' would create one", mode="r"
    )
    (tmp_path / "empty").mkdir()
    refused_open(tmp_path / "empty", StoreNotFoundError, FileNotFoundError, "there is no store at", mode="r")
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"] and list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("mode", ["r", "a", "w"])
def test_a_directory_that_is_no_store(tmp_path: Path, mode: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    refused_open(tmp_path, NotAStoreError, ValueError, "is a directory.*no simstore store", mode=mode)
    assert [entry.name for entry in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("mode", ["r", "a", "w"])
def test_a_file(tmp_path: Path, mode: str) -> None:
    (tmp_path / "f").write_bytes(b"precious")
    refused_open(tmp_path / "f", NotAStoreError, ValueError, "is a file; a simstore store is a directory", mode=mode)
    assert (tmp_path / "f").read_bytes() == b"precious"


def test_create_where_a_store_is(closed_path: Path) -> None:
    refused_open(closed_path, StoreExistsError, FileExistsError, "holds a store already: open it with mode='a'", mode="w")
    assert reopens(closed_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "cosine"}, InvalidArgumentError, "metric='cosine', but this store was made with 'l2': leave metric out"),
        ({"M": 16}, InvalidArgumentError, "M=16, but this store was made with 8"),
        ({"ef_construction": 200}, InvalidArgumentError, "ef_construction=200, but this store was made with 50"),
        ({"dim": 4}, DimensionError, "dim=4, but this store holds vectors of 3"),
        ({"embedder": FunctionEmbedder(len, name="n", dim=4)}, DimensionError, "=4, but this store|makes vectors of 4"),
    ],
    ids=["metric", "M", "ef_construction", "dim", "embedder"],
)
@pytest.mark.parametrize("mode", ["r", "a"])
def test_contradicting_the_store(closed_path: Path, options: Any, error: Any, message: str, mode: str) -> None:
    refused_open(closed_path, error, ValueError, message, mode=mode, **options)
    assert reopens(closed_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "euclid"}, "metric must be one of 'cosine', 'l2', 'ip', not 'euclid'"),
        ({"metric": []}, r"metric must be one of .* not \[\]"),
        ({"mode": "x"}, r"mode is 'r' \(read\), .* not 'x'"),
        ({"mode": None}, "mode is 'r' .* not None"),
        ({"dim": 0}, "dim is a whole number from 1 to 65536, not 0"),
        ({"dim": 65_537}, "dim is a whole number from 1 to 65536"),
        ({"dim": 3.0}, "not 3.0"),
        ({"dim": True}, "not True"),
        ({"M": 1}, "M is a whole number from 2 to 512, not 1"),
        ({"M": 2.5}, "not 2.5"),
        ({"ef_construction": 0}, "ef_construction is a whole number from 1 to 10000, not 0"),
        ({"embedder": "keras"}, "embedder has a spec .*str has not"),
        ({"embedder": FunctionEmbedder(len, name="n", dim=4), "dim": 3}, "dim=3, but the embedder makes vectors of 4"),
    ],
    ids=str,
)
def test_arguments_of_open(tmp_path: Path, options: Any, message: str) -> None:
    refused_open(tmp_path / "s", InvalidArgumentError, ValueError, message, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, 5, b"bytes", ["s"]], ids=repr)
def test_a_path_of_a_wrong_type(path: Any) -> None:
    refused_open(path, InvalidArgumentError, ValueError, f"path is a str or a path, not {type(path).__name__}")


@pytest.mark.parametrize("name", ["a\0b", "n" * 300], ids=["NUL", "too long"])
def test_a_path_that_no_file_system_has(tmp_path: Path, name: str) -> None:
    for mode in ("r", "a", "w"):
        with pytest.raises(SimstoreError, match=r"path|name"):
            simstore.open(tmp_path / name, mode=mode)  # type: ignore[arg-type]


def test_a_newer_marker(closed_path: Path) -> None:
    marker = json.loads((closed_path / "store.json").read_text())
    (closed_path / "store.json").write_text(json.dumps(marker | {"format": marker["format"] + 1}))
    for mode in ("r", "a"):
        refused_open(closed_path, FormatVersionError, ValueError, "has format 2; .* reads up to 1: upgrade simstore", mode=mode)
    (closed_path / "store.json").write_text(json.dumps(marker))
    assert reopens(closed_path)


@pytest.mark.parametrize("extra", [{}, {"shards": 4}], ids=["same fields", "another field"])
def test_a_newer_schema(closed_path: Path, extra: dict[str, Any]) -> None:
    environment = Environment(closed_path)
    database = Database(environment)
    with environment.read() as txn:
        schema = database.schema(txn)
    newer = sealed(msgpack.packb(asdict(replace(schema, format=2)) | extra))
    environment.write(lambda txn: txn.put(b"schema", newer))
    environment.close()
    for mode in ("r", "a"):
        refused_open(closed_path, FormatVersionError, ValueError, "has format 2; .* reads up to 1: upgrade simstore", mode=mode)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\x00garbage", b"[]", b'"simstore"', b"{}", b'{"magic": "simstore"}', b'{"magic": "simstore", "format": "new"}',
     b'{"magic": "simstore", "format": Infinity}', b'{"magic": "simstore", "format": null}', b"[" * 100_000],
    ids=lambda content: repr(content[:40]),
)  # fmt: skip
def test_a_garbage_marker(closed_path: Path, content: bytes) -> None:
    (closed_path / "store.json").write_bytes(content)
    for mode in ("r", "a"):
        refused_open(closed_path, CorruptStoreError, OSError, "store.json cannot be read: delete that file", mode=mode)
    (closed_path / "store.json").unlink()  # as the message says
    assert reopens(closed_path) and (closed_path / "store.json").is_file()


def test_somebody_elses_marker(closed_path: Path) -> None:
    (closed_path / "store.json").write_text('{"magic": "shop", "format": 1}')
    refused_open(closed_path, NotAStoreError, ValueError, "store.json is not a simstore marker")


def test_a_marker_without_a_database(closed_path: Path) -> None:
    (closed_path / "data.mdb").unlink()
    for mode in ("r", "a"):
        refused_open(closed_path, CorruptStoreError, OSError, "data.mdb is missing: restore the store from a backup", mode=mode)
    assert not (closed_path / "data.mdb").exists()


# -- open twice, closed, forked, read-only ------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["r", "a"])
def test_open_twice_in_one_process(
    closed_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, stores: OpenStore
) -> None:
    store = stores(closed_path, mode=first)
    (tmp_path / "link").symlink_to(closed_path)
    (tmp_path / "linked parent").symlink_to(closed_path.parent)
    monkeypatch.chdir(closed_path.parent)
    ways = [
        closed_path,
        str(closed_path) + "/.",
        tmp_path / "link",
        closed_path.name,
        tmp_path / "linked parent" / closed_path.name,
    ]
    for way in ways:
        for mode in ("r", "a"):
            refused_open(way, AlreadyOpenError, RuntimeError, "is open in this process already", mode=mode)
    assert store.search(V).keys == ["a"]
    if first == "a":
        store.add("b", V)
    store.close()
    with simstore.open("./" + closed_path.name, background=False) as again:
        assert len(again) == (2 if first == "a" else 1) and again.check(deep=True) == []


def back_up(store: Store) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store.backup(Path(directory) / "backup.sim")


CALLS: dict[str, Callable[[Store], Any]] = {
    "add": lambda s: s.add("z", V),
    "upsert": lambda s: s.upsert("a", V),
    "update": lambda s: s.update("a", labels="l"),
    "delete": lambda s: s.delete("a"),
    "get": lambda s: s.get("a"),
    "get_many": lambda s: s.get_many(["a"]),
    "__contains__": lambda s: "a" in s,
    "__len__": len,
    "__iter__": list,
    "scan": lambda s: list(s.scan()),
    "labels": lambda s: s.labels(),
    "info": lambda s: s.info(),
    "embedder": lambda s: s.embedder,
    "search": lambda s: s.search(V),
    "search_many": lambda s: s.search_many(VV),
    "optimize": lambda s: s.optimize(),
    "check": lambda s: s.check(deep=True),
    "count": lambda s: s.count(),
    "explain": lambda s: s.explain(V),
    "measure_recall": lambda s: s.measure_recall(),
    "create_index": lambda s: s.create_index("a"),
    "drop_index": lambda s: s.drop_index("a"),
    "snapshot": lambda s: s.snapshot("new"),
    "snapshots": lambda s: s.snapshots(),
    "delete_snapshot": lambda s: s.delete_snapshot("s"),
    "restore": lambda s: s.restore("s"),
    "diff": lambda s: s.diff("now"),
    "ingest": lambda s: s.ingest([Example("a", np.ones(3))], options=ReadOptions(as_vectors=True)),
    "rejected": lambda s: s.rejected(),
    "compact": lambda s: s.compact(),
    "backup": back_up,
    "refresh": lambda s: s.refresh(),
    "stats": lambda s: s.stats(),
    "reembed": lambda s: s.reembed(FunctionEmbedder(lambda batch: np.ones((len(batch), 3)), name="other", dim=3)),
    "repair": lambda s: s.repair(),
}
WRITES = (
    *("add", "upsert", "update", "delete", "optimize", "create_index", "drop_index"),
    *("snapshot", "delete_snapshot", "restore", "compact", "reembed", "repair", "ingest"),
)
WHERE = key == "a"
WITH_WHERE: tuple[Callable[[Store], Any], ...] = (
    lambda s: s.search(V, where=WHERE),
    lambda s: s.search_many(VV, where=WHERE),
    lambda s: s.scan(WHERE),
    lambda s: s.count(WHERE),
    lambda s: s.labels(WHERE),
    lambda s: s.delete(where=WHERE),
    lambda s: s.explain(V, where=WHERE),
)


def test_no_method_is_forgotten_here() -> None:
    public = {name for name in dir(Store) if not name.startswith("_")} | {"__contains__", "__len__", "__iter__"}
    assert public - {"close"} == set(CALLS)


@pytest.mark.parametrize("used", [False, True], ids=["untouched", "used before"])
def test_a_closed_store(closed_path: Path, used: bool, stores: OpenStore) -> None:
    store = stores(closed_path)
    scan, some = store.scan(), store.scan(WHERE)
    if used:
        for name in ("search", "search_many", "get", "info", "labels"):
            CALLS[name](store)
        store.search(V, where=WHERE)
    store.close()
    more = (lambda s: next(scan), lambda s: next(some), lambda s: s.get_many([]), lambda s: s.delete([]))
    for call in (*CALLS.values(), *WITH_WHERE, *more):
        with pytest.raises(ValueError, match=r"the store .*store\.sim was closed: open it again") as caught:
            call(store)
        assert type(caught.value) is StoreClosedError
    assert reopens(closed_path)


@pytest.mark.parametrize("name", WRITES)
def test_a_read_only_store_refuses(closed_path: Path, name: str, stores: OpenStore) -> None:
    store = stores(closed_path, mode="r")
    message = "was opened with mode='r': open it with mode='a' to write"
    assert_refused(store, CALLS[name], ReadOnlyStoreError, PermissionError, message)


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_snapshot_refuses_what_would_change_it(closed_path: Path, stores: OpenStore, mode: str) -> None:
    with stores(closed_path) as store:
        store.snapshot("s")
    past = stores(closed_path, snapshot="s", mode=mode)
    for name in WRITES:
        message = "this is the snapshot 's' of .*, which does not change: open the store without snapshot= to write"
        assert_refused(past, CALLS[name], ReadOnlyStoreError, PermissionError, message)
    for name in CALLS.keys() - WRITES:
        CALLS[name](past)


def test_reading_leaves_the_files_as_they_are(closed_path: Path) -> None:
    before = {path: path.read_bytes() for path in closed_path.rglob("*") if path.is_file() and path.name != "lock.mdb"}
    with simstore.open(closed_path, mode="r", background=False) as store:
        for name in CALLS.keys() - WRITES:
            CALLS[name](store)
        store.search(V, where=WHERE)
        assert store.check(deep=True) == []
    assert {path: path.read_bytes() for path in closed_path.rglob("*") if path.is_file() and path.name != "lock.mdb"} == before


FORK = """
import os, sys, traceback
import simstore
from simstore.errors import ForkedStoreError
from test_errors import CALLS, V, WHERE, WITH_WHERE

store = simstore.open(sys.argv[1], background=sys.argv[2] == "background")
store.search(V)
scan, some = store.scan(), store.scan(WHERE)
child = os.fork()
if child == 0:
    try:
        calls = dict(CALLS, close=lambda s: s.close(), next=lambda s: next(scan), some=lambda s: next(some))
        calls |= dict(enumerate(WITH_WHERE))
        for name, call in calls.items():
            try:
                call(store)
            except ForkedStoreError as err:
                assert isinstance(err, RuntimeError) and "forked from it: close the parent's store" in str(err), err
            else:
                raise AssertionError(f"{name} went through in the child")
        try:
            simstore.open(sys.argv[1])
        except ForkedStoreError as err:
            assert "was open when this process was forked" in str(err), err
        else:
            raise AssertionError("the child opened the parent's store")
        del store, scan, some
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
store.add("after", V)
assert store.search(V, k=5).keys == ["a", "after"] and len(store) == 2 and store.check(deep=True) == []
grandchild = os.fork()
if grandchild == 0:
    sys.exit(0)  # an ordinary exit runs finalizers: they must leave the parent's store alone
assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
store.add("later", V)
assert len(store) == 3 and store.check(deep=True) == []
store.close()
fresh = os.fork()
if fresh == 0:
    with simstore.open(sys.argv[1]) as own:
        os._exit(0 if len(own) == 3 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(fresh, 0)[1]) == 0
print("fine")
"""


@pytest.mark.parametrize("background", ["background", "none"])
def test_a_forked_child(closed_path: Path, background: str) -> None:
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    result = subprocess.run(
        [sys.executable, "-c", FORK, str(closed_path), background], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0 and result.stdout == "fine\n", result.stdout + result.stderr


# -- embedders ----------------------------------------------------------------------------------------------------------


def returning(what: Any) -> FunctionEmbedder:
    return FunctionEmbedder(lambda batch: what, name="junk", dim=3)


class Bare:
    """An embedder of a user's own, which nothing checks but the store."""

    def __init__(self, what: Any) -> None:
        self.what = what
        self.spec = simstore.types.EmbedderSpec("bare", 3, "f")

    def embed(self, batch: Any) -> Any:
        return self.what


JUNK = [
    ("one vector", np.zeros(3), r"array .*shape \[3\]"),
    ("another count", np.ones((5, 3)), r"\[5, 3\]"),
    ("another width", np.ones((2, 4)), r"\[2, 4\]"),
    ("text", [["a", "b", "c"]] * 2, "numbers"),
    ("None", None, "array|numbers"),
    ("NaN", np.full((2, 3), NAN), "holds NaN or infinity"),
    ("ragged", [[1.0, 2.0, 3.0], [1.0]], "array|length"),
]


@pytest.mark.parametrize("kind", [returning, Bare])
@pytest.mark.parametrize(("what", "message"), [case[1:] for case in JUNK], ids=[case[0] for case in JUNK])
def test_an_embedder_that_returns_junk(stores: OpenStore, kind: Any, what: Any, message: str) -> None:
    store = stores(embedder=kind(what))
    store.add("a", V)
    for call in (
        lambda s: s.add(["b", "c"], inputs=["x", "y"]),
        lambda s: s.upsert(["a", "c"], inputs=["x", "y"]),
        lambda s: s.search_many(inputs=["x", "y"]),
    ):
        assert_refused(store, call, InvalidVectorError, ValueError, message)


def test_an_embedder_that_raises(stores: OpenStore) -> None:
    def fail(batch: Any) -> Any:
        raise ZeroDivisionError("in the model")

    store = stores(embedder=FunctionEmbedder(fail, name="n", dim=3))
    before = store.info().seq
    for call in (lambda: store.add("a", inputs="x"), lambda: store.search(input="x"), lambda: store.search_many(inputs=["x"])):
        with pytest.raises(ZeroDivisionError, match="in the model"):
            call()
    assert len(store) == 0 and store.info().seq == before


def test_inputs_without_an_embedder(filled: Store) -> None:
    for call in (lambda s: s.add("c", inputs="x"), lambda s: s.upsert(["c"], inputs=["x"])):
        assert_refused(
            filled, call, EmbedderRequiredError, ValueError, "has no embedder to turn inputs into vectors: give vectors"
        )


def test_inputs_of_a_wrong_form(stores: OpenStore) -> None:
    store = stores(embedder=FunctionEmbedder(lambda batch: np.ones((len(batch), 3)), name="n", dim=3))
    store.add("a", inputs="x")
    wrong: list[tuple[Callable[[Store], Any], str]] = [
        (lambda s: s.add(["b"], inputs=["x", "y"]), "1 keys for 2"),
        (lambda s: s.add(None, inputs=[]), "nothing to write"),
        (lambda s: s.add(None, inputs="text"), "sequence"),
        (lambda s: s.add(None, inputs=5), "sequence"),
        (lambda s: s.search_many(inputs=5), "sequence"),
    ]
    for call, message in wrong:
        assert_refused(store, call, InvalidArgumentError, ValueError, message)


def test_another_embedder_or_none(stores: OpenStore) -> None:
    def embedder(name: str, dim: int = 3) -> FunctionEmbedder:
        return FunctionEmbedder(lambda batch: np.ones((len(batch), dim)), name=name, dim=dim)

    store = stores(embedder=embedder("first"))
    store.add("a", inputs="x")
    path = Path(store.info().path)
    store.close()
    for mode in ("r", "a"):
        with pytest.raises(EmbedderMismatchError, match=r"'first'.*'second'") as caught:
            simstore.open(path, embedder=embedder("second"), mode=mode)  # type: ignore[arg-type]
        for name in ("first", "second"):
            assert embedder(name).spec.fingerprint in str(caught.value)
        refused_open(path, EmbedderMismatchError, ValueError, "dim 4, fingerprint", embedder=embedder("first", 4), mode=mode)
    without = stores(path)
    with pytest.raises(EmbedderRequiredError, match=r"'first' could not be saved with it: open it with embedder="):
        without.search(input="x")
    assert len(without) == 1
    without.close()
    assert stores(path, embedder=embedder("first")).search(input="x").keys == ["a"]
