"""Every public method and property of a store, as an application uses them."""

import datetime
import enum
import gc
import math
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore
from naive import assert_nearest, distance, tolerance
from numpy.typing import NDArray

import simstore
from simstore import BatchHits, Hit, Hits, Item, Store, StoreInfo
from simstore.embedders import FunctionEmbedder
from simstore.errors import KeyExistsError, KeyNotFoundError
from simstore.store import maintenance
from simstore.types import EmbedderSpec

METRICS = ("cosine", "l2", "ip")
LINE = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [6.0, 8.0], [0.0, 2.0]])  # from the origin: 0, 5, 1, 10, 2


def random_vectors(n: int, dim: int = 8, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def same(a: Any, b: Any) -> bool:
    """Equal in type, too; arrays by dtype, shape and bytes."""
    if isinstance(b, (np.ndarray, np.generic)):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(b, dict):
        return type(a) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in b)
    if isinstance(b, list):
        return type(a) is list and len(a) == len(b) and all(map(same, a, b))
    if isinstance(b, float) and math.isnan(b):
        return type(a) is float and math.isnan(a)
    return type(a) is type(b) and bool(a == b)


@pytest.fixture
def line(store: Store) -> Store:
    store.add(["zero", "five", "one", "ten", "two"], LINE, labels=["a", "b", "a", None, 7], data=[0, 5, 1, 10, None])
    return store


# -- opening and closing ------------------------------------------------------------------------------------------------


def test_a_new_store_is_empty(stores: OpenStore) -> None:
    store = stores()
    assert len(store) == 0 and list(store.scan()) == [] and store.labels() == {}
    assert store.get_many(["a", 1]) == [None, None] and "a" not in store
    for options in ({}, {"exact": True}, {"with_vectors": True}, {"k": None, "max_distance": 9.0}):
        assert list(store.search([1.0, 2.0], **options)) == []
        assert [list(hits) for hits in store.search_many([[1.0, 2.0], [3.0, 4.0]], **options)] == [[], []]
    store.optimize()
    assert store.delete([], missing="raise") == 0 and store.delete(["a", 2], missing="ignore") == 0
    assert store.info().dim is None and store.info().seq == 0


def test_what_open_sets(stores: OpenStore, tmp_path: Path) -> None:
    store = stores("a.sim", dim=3, metric="ip", M=5, ef_construction=33)
    info = store.info()
    assert (info.dim, info.metric, info.M, info.ef_construction) == (3, "ip", 5, 33)
    assert info.path == str(tmp_path / "a.sim")
    other = stores("b.sim").info()
    assert (other.dim, other.metric, other.M, other.ef_construction, other.embedder) == (None, "cosine", 16, 200, None)


def test_numpy_numbers_set_what_ints_do(stores: OpenStore) -> None:
    store = stores(dim=np.int64(3), M=np.int32(8), ef_construction=np.uint16(50))
    info = store.info()
    assert (info.dim, info.M, info.ef_construction) == (3, 8, 50)
    assert {type(info.dim), type(info.M), type(info.ef_construction)} == {int}


def test_the_first_add_settles_the_width(stores: OpenStore) -> None:
    store = stores()
    store.add("a", [1.0, 2.0, 3.0])
    assert store.info().dim == 3
    store.close()
    again = stores(dim=3)
    assert again.info().dim == 3
    again.delete("a")
    assert again.info().dim == 3


@pytest.mark.parametrize("as_path", [str, Path])
def test_open_takes_a_str_or_a_path(tmp_path: Path, as_path: Callable[[Path], Any]) -> None:
    with simstore.open(as_path(tmp_path / "s"), background=False) as store:
        store.add(1, [1.0])
        assert store.check(deep=True) == []
    assert repr(store) == f"<Store {tmp_path / 's'} (closed)>"


def test_modes(stores: OpenStore) -> None:
    created = stores(mode="w", metric="l2")
    created.add("a", [1.0, 2.0], labels="x", data={"n": 1})
    created.close()
    read = stores(mode="r")
    assert read.get("a") == Item("a", "x", {"n": 1}, np.array([1, 2], np.float32))
    assert read.search([1.0, 2.0]).keys == ["a"]
    assert read.check(deep=True) == [] and read.info().metric == "l2"
    read.close()
    both = stores(mode="a")
    both.add("b", [0.0, 0.0])
    assert len(both) == 2


def test_an_empty_directory_becomes_a_store(stores: OpenStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    stores("empty", mode="w").add("a", [1.0])
    assert (tmp_path / "empty" / "store.json").is_file()


def test_with_closes_also_after_an_error(tmp_path: Path) -> None:
    store = simstore.open(tmp_path / "s", background=False)
    store.add("a", [1.0, 2.0])
    with pytest.raises(ZeroDivisionError), store:
        raise ZeroDivisionError
    assert "(closed)" in repr(store)
    with simstore.open(tmp_path / "s", background=False) as store:
        assert len(store) == 1 and store.check(deep=True) == []


def test_closing_twice_does_nothing(store: Store) -> None:
    store.add("a", [1.0])
    assert store.check(deep=True) == []
    store.close()
    store.close()
    assert "(closed)" in repr(store)


@pytest.mark.parametrize("background", [False, True])
def test_a_store_that_nobody_holds_is_closed(tmp_path: Path, background: bool) -> None:
    store = simstore.open(tmp_path / "s", background=background)
    store.add("a", [1.0])
    assert store.search([1.0]).keys == ["a"]
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None
    with simstore.open(tmp_path / "s") as again:  # else it would be refused as open already
        assert again.get("a").vector.tolist() == [1.0] and again.check(deep=True) == []


def test_two_stores_side_by_side(stores: OpenStore) -> None:
    one, two = stores("one"), stores("two", metric="l2")
    one.add("a", [1.0, 0.0])
    two.add("b", [1.0, 0.0, 0.0])
    assert one.search([1, 0]).keys == ["a"] and two.search([1, 0, 0]).keys == ["b"]


def test_repr(line: Store) -> None:
    assert repr(line) == f"<Store {line.info().path}: 5 items, dim 2, l2>"


# -- keys ---------------------------------------------------------------------------------------------------------------


def test_an_int_and_its_digits_are_two_keys(store: Store) -> None:
    store.add([1, "1", -1, "-1"], np.eye(4), data=["int", "str", "minus int", "minus str"])
    assert [store.get(key).data for key in (1, "1", -1, "-1")] == ["int", "str", "minus int", "minus str"]
    store.delete("1")
    assert 1 in store and "1" not in store
    assert [type(item.key) for item in store.scan()] == [int, int, str]


STRANGE = [
    "",
    " ",
    "a/b",
    "\x00",
    "\x00\x00",
    "é",
    "e\u0301",
    "😀",
    "\ud800",
    "\udcff",
    "x" * 499,
    0,
    2**64 - 1,
    -(2**63),
    255,
    256,
    -256,
]


def test_strange_keys(stores: OpenStore) -> None:
    store = stores(metric="l2")
    vectors = random_vectors(len(STRANGE))
    store.add(STRANGE, vectors, labels=STRANGE)
    for reopened in (False, True):
        if reopened:
            store.close()
            store = stores()
        for key, vector in zip(STRANGE, vectors, strict=True):
            item = store.get(key)
            assert (type(item.key), item.key, item.label) == (type(key), key, key)
            assert store.search(vector, k=1).keys == [key]
        assert store.labels() == dict.fromkeys(STRANGE, 1)


def test_a_key_of_400_bytes(store: Store) -> None:
    long, other = "k" * 400, "k" * 399 + "K"
    store.add([long, other], np.eye(2))
    assert store.get(long).vector.tolist() == [1, 0] and store.get(other).vector.tolist() == [0, 1]
    assert store.delete(long) == 1 and long not in store and other in store


def test_numpy_and_subclassed_keys_come_back_plain(store: Store) -> None:
    class Name(str):
        pass

    keys = [np.int64(3), np.uint8(4), np.str_("five"), Name("six")]
    assert store.add(keys, np.eye(4), labels=keys) == [3, 4, "five", "six"]
    items = list(store.scan())
    assert [type(item.key) for item in items] == [type(item.label) for item in items] == [int, int, str, str]
    hits = store.search([1, 1, 1, 1])
    assert {type(key) for key in hits.keys + hits.labels} == {int, str}
    assert np.int16(3) in store and store.get(Name("five")).key == "five"


@pytest.mark.parametrize(
    "given",
    [["a", "b"], ("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], object), dict.fromkeys("ab").keys()],
    ids=["list", "tuple", "str array", "object array", "dict keys"],
)
def test_any_sequence_of_keys(store: Store, given: Any) -> None:
    assert store.add(given, np.eye(2)) == ["a", "b"]
    assert [item and item.key for item in store.get_many(given)] == ["a", "b"]
    assert store.delete(given) == 2


def test_generators(store: Store) -> None:
    assert store.add((c for c in "ab"), np.eye(2), labels=(c for c in "xy"), data=(n for n in (1, 2))) == ["a", "b"]
    store.update((c for c in "ba"), data=(n for n in (3, 4)))
    assert [(item.key, item.label, item.data) for item in store.scan()] == [("b", "y", 3), ("a", "x", 4)]


def test_keys_none_numbers_the_items(stores: OpenStore) -> None:
    store = stores(metric="l2")
    assert store.add(None, np.eye(3)) == [0, 1, 2]
    assert store.add(["a", "7"], np.eye(3)[:2]) == ["a", "7"]
    assert store.add(None, np.eye(3)[:1]) == [3]
    assert store.add([10, -4], np.eye(3)[:2]) == [10, -4]
    assert store.add(None, np.eye(3)[:2]) == [11, 12]
    store.delete([11, 12])
    store.close()
    again = stores()
    assert again.add(None, np.eye(3)[:1]) == [13]  # a number is not given twice
    assert again.upsert(None, np.eye(3)) == (3, 0)
    assert [item.key for item in again.scan()][-3:] == [14, 15, 16]


def test_keys_none_in_a_store_of_negative_keys_starts_at_zero(store: Store) -> None:
    store.add([-5, -6], np.eye(2))
    assert store.add(None, np.eye(2)) == [0, 1]


def test_one_key_alone_is_one_item(store: Store) -> None:
    assert store.add("a", [1, 2], labels="x", data=["a", "list"]) == ["a"]
    assert store.add(5, np.array([[3, 4]])) == [5]
    assert store.get("a") == Item("a", "x", ["a", "list"], np.array([1, 2], np.float32))
    assert store.upsert("a", [5, 6], labels=3, data=(1, 2)) == (0, 1)
    assert store.get("a") == Item("a", 3, [1, 2], np.array([5, 6], np.float32))
    store.update("a", data={"x": 1})
    store.update("a", labels="y")
    assert store.get("a") == Item("a", "y", {"x": 1}, np.array([5, 6], np.float32))
    assert store.delete(5) == 1 and len(store) == 1


# -- labels and data ----------------------------------------------------------------------------------------------------


def test_labels_are_counted(store: Store) -> None:
    store.add(range(6), np.eye(6), labels=["x", 1, "1", None, 1, "x"])
    assert store.labels() == {"x": 2, 1: 2, "1": 1, None: 1}
    store.delete(5)
    store.update([0, 3], labels=[None, "new"])
    assert store.labels() == {1: 2, "1": 1, None: 1, "new": 1}
    store.delete([1, 4])
    assert store.labels() == {"1": 1, None: 1, "new": 1}


@pytest.mark.parametrize("labels", [np.array([3, 3, 4]), np.array(["3", "3", "4"]), (3, 3, 4)], ids=["ints", "strs", "tuple"])
def test_labels_from_arrays(store: Store, labels: Any) -> None:
    store.add(None, np.eye(3), labels=labels)
    kind = str if isinstance(labels, np.ndarray) and labels.dtype.kind == "U" else int
    assert store.labels() == {kind(3): 2, kind(4): 1}


UTC = datetime.UTC
INDIA = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
DATA: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "bytes": b"\x00\xff" * 1000,
    "text": "é😀\x00",
    "surrogates": ["\ud800", {"\udcff": "\ud83d"}],
    "floats": [0.1, -0.0, 1e300, math.inf, -math.inf],
    "nan": math.nan,
    "largest ints": [2**64 - 1, -(2**63), 2**63, 0],
    "nested": {"a": [{"b": [[[]], {}]}, None, b"x"], "c": {1: "int key", "1": "str key", None: 0, b"k": 1}},
    "naive": datetime.datetime(2024, 2, 29, 23, 59, 59, 999999),
    "utc": datetime.datetime(2024, 2, 29, tzinfo=UTC),
    "aware": [datetime.datetime(1, 1, 1, 0, 0, 1, tzinfo=INDIA), datetime.datetime.max],
    "date": {"day": datetime.date(1969, 12, 31)},
    "date as key": {datetime.date(2000, 1, 1): 1},
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float16": np.array([1.5, np.nan, -np.inf], np.float16),
    "big-endian": np.array([1, 2, 3], ">i4"),
    "uint8 image": np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
    "bool array": np.array([[True], [False]]),
    "complex": np.array([1 + 2j]),
    "strings": np.array(["a", "bcd", "é"]),
    "byte strings": np.array([b"a", b"bcd"]),
    "times": np.array(["2024-01-01", "NaT"], "M8[ns]"),
    "0-d": np.array(3.5),
    "no elements": np.zeros((3, 0, 2), np.int16),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "strided": np.arange(20)[::-3],
    "float32 scalar": np.float32(0.1),
    "float64 scalar": np.float64(0.1),
    "int scalars": [np.int8(-1), np.uint64(2**64 - 1)],
    "bool scalar": np.bool_(True),
    "str scalar": np.str_("é"),
    "empty str scalar": np.str_(""),
    "empty bytes scalar": np.bytes_(b""),
    "time scalar": np.datetime64("2024-01-01T00:00:00", "ms"),
    "arrays inside": {"box": [np.zeros(4, np.int32), {"mask": np.ones((2, 2), bool)}]},
}


@pytest.mark.parametrize("name", DATA)
def test_data_comes_back(stores: OpenStore, name: str) -> None:
    store, value = stores(metric="l2"), DATA[name]
    store.add(["a", "b"], np.eye(2), data=[value, [value]])
    for reopened in (False, True):
        if reopened:
            store.close()
            store = stores()
        assert same(store.get("a").data, value)
        (hit, other) = store.search([1, 0], k=2)
        assert same(hit.data, value) and same(other.data, [value])
    if name in ("aware", "utc"):
        found = store.get("b").data[0]
        assert [when.utcoffset() for when in np.ravel(found)] == [when.utcoffset() for when in np.ravel(value)]


def test_data_of_other_types_becomes_what_it_is_like(store: Store) -> None:
    class Text(str):
        pass

    class Number(int):
        pass

    class Color(str, enum.Enum):  # noqa: UP042  a StrEnum prints as its value, this one does not
        RED = "red"

    given = {
        "t": (1, (2,)),
        "b": bytearray(b"xy"),
        "m": memoryview(b"abc"),
        Text("s"): Text("v"),
        "n": Number(3),
        "e": Color.RED,
    }
    store.add("a", [1.0], data=given)
    assert same(store.get("a").data, {"t": [1, [2]], "b": b"xy", "m": b"abc", "s": "v", "n": 3, "e": "red"})


def test_a_strided_memoryview_is_refused(store: Store) -> None:
    with pytest.raises(simstore.errors.InvalidDataError, match="contiguous"):
        store.add("a", [1.0], data=memoryview(b"abcdef")[::2])


def test_each_get_gives_data_of_its_own(store: Store) -> None:
    store.add("a", [1.0], data={"list": [1], "array": np.zeros(2)})
    for _ in range(2):
        for data in (store.get("a").data, store.search([1.0])[0].data):
            assert data["list"] == [1] and data["array"].tolist() == [0, 0]
            data["list"].append(2)
            data["array"][:] = 9  # writable, and nobody else's


def test_large_data(store: Store) -> None:
    blob = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8)
    store.add(["a", "b"], np.eye(2), data=[blob, blob.tobytes()])
    assert np.array_equal(store.get("a").data, blob) and store.get("b").data == blob.tobytes()


# -- writing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int8, np.uint64, np.int32, ">f4", list])
def test_vectors_of_any_number_type(store: Store, dtype: Any) -> None:
    rows = [[1, 2, 3], [4, 5, 6]]
    store.add(None, rows if dtype is list else np.array(rows, dtype))
    item = store.get(1)
    assert item.vector.dtype == np.float32 and item.vector.tolist() == [4, 5, 6]


def test_vectors_of_any_layout(store: Store) -> None:
    base = random_vectors(10, 6)
    store.add(range(5), base[::2, ::-2])
    store.add(range(5, 8), np.asfortranarray(base[:3, :3]))
    for key in range(5):
        assert np.array_equal(store.get(key).vector, base[2 * key, ::-2])
    assert np.array_equal(store.get(7).vector, base[2, :3])


@pytest.mark.parametrize("metric", METRICS)
def test_a_vector_comes_back_bit_for_bit(stores: OpenStore, metric: str) -> None:
    store = stores(metric=metric)
    vectors = np.array([[1e-20, -0.0, 3.0], [1e17, 1.0, 1e-45], [0.1, 0.2, -0.3]], np.float32)
    store.add(["a", "b", "c"], vectors)
    store.optimize()
    store.close()
    again = stores()
    for key, vector in zip("abc", vectors, strict=True):
        assert again.get(key).vector.tobytes() == vector.tobytes()
        found = {hit.key: hit.vector.tobytes() for hit in again.search(vector, k=3, with_vectors=True)}
        assert found == {key: vector.tobytes() for key, vector in zip("abc", vectors, strict=True)}


def test_an_items_vector_is_read_only_and_the_given_array_stays_the_callers(store: Store) -> None:
    given = np.eye(2, dtype=np.float32)
    store.add(["a", "b"], given)
    given[:] = 7
    vector = store.get("a").vector
    assert vector.tolist() == [1, 0]
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 5
    assert store.search([1, 0], k=1).distances.tolist() == [0]


def test_add_refuses_a_live_key_and_writes_nothing(store: Store) -> None:
    store.add(["a", "b"], np.eye(2))
    with pytest.raises(KeyExistsError, match=r"keys\[1\]: 'b' is in the store already"):
        store.add(["c", "b"], np.eye(2))
    assert len(store) == 2 and "c" not in store and store.info().seq == 1
    store.delete("b")
    assert store.add(["c", "b"], np.eye(2)) == ["c", "b"]


def test_upsert_counts_and_replaces_whole(store: Store) -> None:
    counts = store.upsert(["a", "b"], np.eye(2), labels=["x", "y"], data=[1, 2])
    assert counts == (2, 0) and counts.added == 2 and counts.replaced == 0
    assert store.upsert(["b", "c", "a"], [[5, 5], [6, 6], [7, 7]], labels=["z", None, None]) == (1, 2)
    assert list(store.scan()) == [
        Item("b", "z", None, np.zeros(2)), Item("c", None, None, np.zeros(2)), Item("a", None, None, np.zeros(2)),
    ]  # fmt: skip
    assert store.get("b").vector.tolist() == [5, 5]
    assert len(store) == 3 and store.labels() == {"z": 1, None: 2}
    assert store.search([1, 0], k=9).keys == ["b", "c", "a"]


def test_update_keeps_what_it_is_not_given(line: Store) -> None:
    before = {item.key: item.vector.tobytes() for item in line.scan()}
    line.update(["zero", "five"], labels=["new", None])
    line.update("ten", data={"d": 1})
    line.update(["one"], labels=[5], data=["both"])
    found = {item.key: (item.label, item.data) for item in line.scan()}
    assert found == {
        "zero": ("new", 0), "five": (None, 5), "ten": (None, {"d": 1}), "one": (5, "both"), "two": (7, None),
    }  # fmt: skip
    assert {item.key: item.vector.tobytes() for item in line.scan()} == before
    hits = line.search([0, 0], k=5)
    assert hits.keys == ["zero", "one", "two", "five", "ten"] and hits.labels == ["new", 5, 7, None, None]
    assert [hit.data for hit in hits] == [0, "both", None, 5, {"d": 1}]


def test_update_with_none_takes_labels_and_data_away(line: Store) -> None:
    line.update(["zero", "five"], labels=None, data=None)
    assert [(line.get(key).label, line.get(key).data) for key in ("zero", "five")] == [(None, None)] * 2


def test_update_in_a_segment(line: Store) -> None:
    line.optimize()
    line.update(["zero", "ten"], labels=["q", "r"])
    assert line.search([0, 0], k=1)[0] == Hit(0, "zero", 0.0, "q", 0)
    line.optimize()
    assert line.search([6, 8], k=1)[0] == Hit(0, "ten", 0.0, "r", 10)


def test_delete(line: Store) -> None:
    assert line.delete(["zero", "ten"]) == 2
    assert line.search([0, 0], k=5).keys == ["one", "two", "five"]
    assert line.search_many([[6, 8]], k=1).keys.tolist() == [["five"]]
    with pytest.raises(KeyNotFoundError, match=r"keys\[1\]: 'zero' is not in the store"):
        line.delete(["one", "zero"])
    assert "one" in line and len(line) == 3
    assert line.delete(["one", "zero", "never"], missing="ignore") == 1
    assert line.delete(["zero"], missing="ignore") == 0
    assert [item.key for item in line.scan()] == ["five", "two"]


def test_delete_everything_and_start_again(stores: OpenStore) -> None:
    store = stores(metric="l2")
    store.add(range(20), random_vectors(20))
    store.optimize()
    assert store.delete(range(20)) == 20
    for _ in range(2):
        assert len(store) == 0 and store.search(np.zeros(8)).keys == [] and store.labels() == {}
        store.optimize()
    store.add("new", np.ones(8))
    store.optimize()
    store.close()
    assert stores().search(np.ones(8)).keys == ["new"]


def test_everything_in_two_segments_deleted(stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 8)
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    store = stores(metric="l2")
    for first, n in ((0, 100), (100, 10)):
        store.add(range(first, first + n), random_vectors(n))
        store._core.maintenance.run()
    assert store.info().n_segments == 2
    store.delete(range(110))
    store.close()
    again = stores()
    assert len(again) == 0 and again.search(np.ones(8)).keys == []
    again.add("new", np.ones(8))
    again.optimize()
    assert again.search(np.ones(8)).keys == ["new"] and again.check(deep=True) == []


# -- reading ------------------------------------------------------------------------------------------------------------


def test_get(line: Store) -> None:
    item = line.get("five")
    assert isinstance(item, Item) and (item.key, item.label, item.data) == ("five", "b", 5)
    assert item.vector.dtype == np.float32 and item.vector.tolist() == [3, 4]
    with pytest.raises(KeyNotFoundError, match="'six' is not in the store"):
        line.get("six")
    with pytest.raises(KeyError):
        line.get("six")


def test_get_many(line: Store) -> None:
    items = line.get_many(["two", "no", "zero", "two"])
    assert [item and item.key for item in items] == ["two", None, "zero", "two"]
    assert line.get_many([]) == [] and [item and item.key for item in line.get_many("one")] == ["one"]


def test_in(line: Store) -> None:
    assert "five" in line and "six" not in line
    for no_key in (5, 5.0, None, b"five", True, ["five"], "x" * 501, 2**64):
        assert no_key not in line


def test_len_and_truth(store: Store) -> None:
    assert len(store) == 0
    store.add([1, 2, 3], np.eye(3))
    store.upsert([3, 4], np.eye(3)[:2])
    assert len(store) == 4
    store.delete(1)
    assert len(store) == 3


def test_scan_is_in_order_of_writing_and_of_one_state(store: Store) -> None:
    vectors = random_vectors(600)
    store.add(range(600), vectors, data=list(range(600)))
    scan = store.scan()
    first = next(scan)
    store.delete(range(100, 600))
    store.upsert(5, vectors[0], data="later")
    store.optimize()
    items = [first, *scan]
    assert [item.key for item in items] == [item.data for item in items] == list(range(600))
    assert all(np.array_equal(item.vector, vectors[item.key]) for item in items)
    assert [item.key for item in store] == [key for key in range(100) if key != 5] + [5]


def test_info(stores: OpenStore) -> None:
    store = stores(metric="l2")
    store.add(range(10), random_vectors(10), labels=[0, 1] * 5)
    info = store.info()
    assert isinstance(info, StoreInfo)
    assert (info.count, info.n_labels, info.n_rows, info.n_dead, info.n_segments, info.n_tail) == (10, 2, 10, 0, 0, 10)
    assert info.seq == 1 and info.dim == 8 and info.format_version == 1 and info.segments_size_bytes == 0
    assert info.database_size_bytes >= 10 * 8 * 4
    store.optimize()
    store.upsert([3, 10], random_vectors(2))
    store.delete(4)
    info = store.info()
    assert (info.count, info.n_rows, info.n_dead, info.n_segments, info.n_tail) == (10, 12, 2, 1, 2)
    assert info.segments_size_bytes >= 10 * 8 * 4 and info.seq == 4
    store.close()
    assert stores(mode="r").info() == info


def test_info_counts_no_label_for_items_without_one(store: Store) -> None:
    store.add(range(3), np.eye(3), labels=["x", None, "x"])
    assert store.info().n_labels == 1


# -- searching ----------------------------------------------------------------------------------------------------------


def test_search_by_hand(line: Store) -> None:
    hits = line.search([0, 0], k=4)
    assert isinstance(hits, Hits) and isinstance(hits[0], Hit)
    assert hits.keys == ["zero", "one", "two", "five"] and hits.labels == ["a", "a", 7, "b"]
    assert hits.distances.tolist() == [0, 1, 2, 5] and hits.distances.dtype == np.float32
    assert [tuple(hit) for hit in hits] == [
        (0, "zero", 0.0, "a", 0, None), (1, "one", 1.0, "a", 1, None),
        (2, "two", 2.0, 7, None, None), (3, "five", 5.0, "b", 5, None),
    ]  # fmt: skip
    assert type(hits[0].distance) is float and hits[3].rank == 3


def test_hits_are_a_sequence(line: Store) -> None:
    hits = line.search([0, 0], k=5)
    assert len(hits) == 5 and hits[-1] == hits[4] == list(hits)[4] and hits[-5].key == "zero"
    assert [hit.key for hit in hits[1:3]] == ["one", "two"] and [hit.rank for hit in hits[::-2]] == [4, 2, 0]
    assert [hit.key for hit in reversed(hits)] == hits.keys[::-1] and hits[1] in hits
    for outside in (5, -6):
        with pytest.raises(IndexError, match="hit"):
            hits[outside]
    assert hits.rows.tolist() == [0, 2, 4, 1, 3]
    assert repr(line.search([0, 0], k=2)) == "<Hits 2: 'zero': 0, 'one': 1>"


@pytest.mark.parametrize(
    "query", [[0, 2], (0.0, 2.0), np.array([0, 2]), np.array([[0, 2]], np.float32), np.array([0, 0, 2, 0], np.float32)[1:3]]
)
def test_queries_of_any_form(line: Store, query: Any) -> None:
    assert line.search(query, k=2).keys == ["two", "one"]


def test_every_k(line: Store) -> None:
    expected = ["zero", "one", "two", "five", "ten"]
    for optimized in (False, True):
        if optimized:
            line.optimize()
        for k in (1, 2, 3, 4, 5, 6, 100, 2000, 10**12, np.int64(3)):
            for options in ({}, {"exact": True}, {"ef": 1}, {"ef": 10_000}):
                assert line.search([0, 0], k, **options).keys == expected[:k]


def test_max_distance(line: Store) -> None:
    for optimized in (False, True):
        if optimized:
            line.optimize()
        for far, n in ((-1.0, 0), (0, 1), (1, 2), (4.999, 3), (5.0, 4), (math.inf, 5)):
            expected = ["zero", "one", "two", "five", "ten"][:n]
            assert line.search([0, 0], k=None, max_distance=far).keys == expected
            assert line.search([0, 0], k=3, max_distance=far).keys == expected[:3]
            batch = line.search_many([[0, 0], [100, 0]], k=None, max_distance=far)
            assert batch[0].keys == expected and len(batch[1]) == (5 if far == math.inf else 0)


def test_a_max_distance_beyond_float32_is_no_limit(line: Store) -> None:
    assert len(line.search([0, 0], k=None, max_distance=1e300)) == 5
    assert len(line.search([0, 0], k=None, max_distance=10**400)) == 5


def test_with_vectors(line: Store) -> None:
    hits = line.search([0, 0], k=2, with_vectors=True)
    assert [hit.vector.tolist() for hit in hits] == [[0, 0], [0, 1]]
    assert hits[1].vector.dtype == np.float32
    batch = line.search_many([[6, 8], [0, 0]], k=2, with_vectors=True)
    assert [[hit.vector.tolist() for hit in hits] for hits in batch] == [[[6, 8], [3, 4]], [[0, 0], [0, 1]]]
    assert line.search([0, 0])[0].vector is None


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 3, 8, 17, 100])
def test_distances_are_true(stores: OpenStore, metric: str, dim: int) -> None:
    store = stores(metric=metric)
    vectors = random_vectors(60, dim) * np.float32(3)
    given = dict(enumerate(vectors))
    store.add(list(given), vectors)
    queries = np.concatenate([random_vectors(4, dim, seed=1), vectors[:2]])
    for folded in (False, True):
        if folded:
            store.optimize()
        for query in queries:
            for k, options in ((5, {}), (60, {"exact": True}), (None, {"max_distance": 1.0}), (3, {"max_distance": 0.5})):
                hits = store.search(query, k, **options)
                assert_nearest(hits.keys, hits.distances, query, given, metric, k, options.get("max_distance"))
    own = store.search(vectors[7], k=60)
    at = own.keys.index(7)
    assert abs(own.distances[at] - distance(vectors[7], vectors[7], metric)) <= tolerance(vectors[7], vectors[7], metric)


def test_distances_by_hand(stores: OpenStore) -> None:
    expected = {"l2": [math.sqrt(2), 2, 2], "cosine": [0.0, 1.0, 2.0], "ip": [-1.0, 1.0, 3.0]}
    for metric, distances in expected.items():
        store = stores(metric, metric=metric)
        store.add(["along", "across", "against"], [[2, 0], [0, 1], [-2, 0]] if metric != "l2" else [[2, 1], [1, 2], [-1, 0]])
        hits = store.search([1, 0], k=3)
        assert hits.keys == ["along", "across", "against"]
        assert np.allclose(hits.distances, distances, rtol=0, atol=1e-6)


def test_more_than_a_thousand_answers(store: Store) -> None:
    values = np.random.default_rng(3).permutation(3000).astype(np.float32)
    store.add(range(3000), values[:, None])
    store.optimize()
    store.upsert(range(0, 3000, 3), values[::3, None])
    expected = np.argsort(values).tolist()
    for k in (1, 1024, 1025, 2500, 3000, 5000):
        hits = store.search([-1.0], k)
        assert hits.keys == expected[:k] and hits.distances.tolist() == [float(i + 1) for i in range(min(k, 3000))]
    batch = store.search_many([[-1.0], [3000.0]], 1500)
    assert batch.keys[0].tolist() == expected[:1500] and batch.keys[1].tolist() == expected[:-1501:-1]
    assert store.search([-1.0], None, max_distance=2000.0).keys == expected[:2000]


@pytest.mark.parametrize("metric", METRICS)
def test_equal_vectors(stores: OpenStore, metric: str) -> None:
    store = stores(metric=metric)
    store.add([f"copy {i}" for i in range(50)], np.tile([1.0, 2.0], (50, 1)))
    store.add("other", [2.0, 1.0])
    for _ in range(3):
        hits = store.search([1.0, 2.0], k=51)
        assert set(hits.keys) == {f"copy {i}" for i in range(50)} | {"other"}
        assert len(set(hits.distances[:50].tolist())) == 1
        assert store.search([2.0, 0.0], k=1).keys == ["other"]
        store.optimize()
    store.delete([f"copy {i}" for i in range(0, 50, 2)])
    hits = store.search([1.0, 2.0], k=51)
    assert set(hits.keys) == {f"copy {i}" for i in range(1, 50, 2)} | {"other"}


# -- search_many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_search_many_is_search_of_each(stores: OpenStore, metric: str) -> None:
    store = stores(metric=metric)
    store.add(range(300), random_vectors(300), labels=[i % 7 for i in range(300)], data=[[i] for i in range(300)])
    store.optimize()
    store.upsert(range(290, 310), random_vectors(20, seed=5))
    store.delete(range(10))
    queries = random_vectors(150, seed=2)
    for options in (
        {"k": 7},
        {"k": 500},
        {"k": 3, "exact": True},
        {"k": 5, "max_distance": 0.8},
        {"k": None, "max_distance": 0.6},
    ):
        single = [store.search(query, **options) for query in queries]
        for threads in (1, 3, None):
            batch = store.search_many(queries, **options, threads=threads)
            assert isinstance(batch, BatchHits) and len(batch) == 150
            assert [hits.keys for hits in batch] == [hits.keys for hits in single]
            assert [list(hits) for hits in batch] == [list(hits) for hits in single]
            assert [hits.rows.tolist() for hits in batch] == [hits.rows.tolist() for hits in single]
            assert batch.counts.tolist() == [len(hits) for hits in single]


def test_batch_hits_as_arrays(line: Store) -> None:
    batch = line.search_many([[0, 0], [6, 8]], k=3)
    assert batch.keys.dtype == object and batch.labels.dtype == object and batch.distances.dtype == np.float32
    assert batch.keys.tolist() == [["zero", "one", "two"], ["ten", "five", "two"]]
    assert batch.labels.tolist() == [["a", "a", 7], [None, "b", 7]]
    assert np.allclose(batch.distances, [[0, 1, 2], [0, 5, math.sqrt(72)]])
    assert batch[1].keys == batch[-1].keys == ["ten", "five", "two"] and [h.keys[0] for h in batch[:]] == ["zero", "ten"]
    for outside in (2, -3):
        with pytest.raises(IndexError, match="query"):
            batch[outside]
    assert repr(batch) == "<BatchHits of 2 queries, k=3>"


def test_batch_hits_with_fewer_answers_are_filled_up(line: Store) -> None:
    batch = line.search_many([[0, 0], [100, 0], [0, 2]], k=3, max_distance=1.0)
    assert batch.counts.tolist() == [2, 0, 2]
    assert batch.keys.tolist() == [["zero", "one", None], [None] * 3, ["two", "one", None]]
    assert batch.labels.tolist() == [["a", "a", None], [None] * 3, [7, "a", None]]
    assert batch.distances.tolist() == [[0, 1, math.inf], [math.inf] * 3, [0, 1, math.inf]]
    assert [len(hits) for hits in batch] == [2, 0, 2] and batch[2].keys == ["two", "one"]
    within = line.search_many([[0, 0], [100, 0], [0, 2]], k=None, max_distance=2.0)
    assert within.keys.tolist() == [["zero", "one", "two"], [None] * 3, ["two", "one", "zero"]]


def test_no_queries(line: Store) -> None:
    batch = line.search_many(np.zeros((0, 2)), k=3)
    assert len(batch) == 0 and batch.keys.shape == batch.distances.shape == batch.labels.shape == (0, 3)


# -- embedders ----------------------------------------------------------------------------------------------------------


def lengths(texts: list[str]) -> NDArray[np.float64]:
    return np.array([[len(text), text.count("a")] for text in texts], float)


def test_inputs(stores: OpenStore) -> None:
    embedder = FunctionEmbedder(lengths, name="lengths", dim=2)
    store = stores(embedder=embedder, metric="l2")
    assert store.info().embedder == EmbedderSpec("lengths", 2, embedder.spec.fingerprint) and store.info().dim == 2
    assert store.add(["x", "y"], inputs=["banana", "kiwi"]) == ["x", "y"]
    assert store.add("z", inputs="aa", labels="short") == ["z"]
    assert store.upsert(None, inputs=["", "aaa"]) == (2, 0)
    store.add("v", [6, 2])  # vectors go, too
    assert store.get("x").vector.tolist() == [6, 3] and store.get("z").vector.tolist() == [2, 2]
    assert store.search(input="potata", k=1).keys == ["v"]
    assert [hits.keys for hits in store.search_many(inputs=["kiwi", "banana"], k=1)] == [["y"], ["x"]]
    store.close()
    without = stores()
    assert without.search([6, 3], k=1).keys == ["x"] and without.info().embedder.name == "lengths"
    without.close()
    again = stores(embedder=FunctionEmbedder(lengths, name="lengths", dim=2))
    assert again.search(input="banana", k=1).keys == ["x"]


# -- the same answers, whatever happened --------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_the_same_answers_before_and_after_optimize_close_and_reopen(stores: OpenStore, metric: str) -> None:
    store = stores(metric=metric)
    vectors = random_vectors(500)
    store.add(range(500), vectors, labels=[i % 3 for i in range(500)], data=[{"i": i} for i in range(500)])
    store.delete(range(0, 500, 9))
    store.update(range(1, 500, 9), data=["new"] * 56)
    queries = random_vectors(20, seed=1)

    def answers() -> list[list[Hit]]:
        return [list(store.search(query, ef=500)) for query in queries]

    before = answers()
    live = {item.key: item.vector for item in store.scan()}
    for query, hits in zip(queries, before, strict=True):
        assert_nearest([hit.key for hit in hits], [hit.distance for hit in hits], query, live, metric, 10)
    store.optimize()
    assert store.info().n_segments == 1
    assert answers() == before
    store.close()
    for mode in ("r", "a"):
        store = stores(mode=mode)
        assert answers() == before
        assert store.check(deep=True) == []
        store.close()


def test_a_search_with_an_old_log(stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more was written since the last search than the log holds, everything is read anew."""
    monkeypatch.setattr("simstore.storage.history.LOG_KEPT", 4)
    store = stores(metric="l2")
    for i in range(40):
        store.upsert(i % 6, [float(i), 0.0])
        if i % 9 == 8:
            live = {key: [float(max(j for j in range(i + 1) if j % 6 == key)), 0.0] for key in range(min(i + 1, 6))}
            hits = store.search([0, 0])
            assert_nearest(hits.keys, hits.distances, [0, 0], live, "l2", 10)


def test_progress(store: Store) -> None:
    seen: list[tuple[str, int, int]] = []
    store.add(range(100), random_vectors(100))
    store.optimize(progress=lambda stage, done, total: seen.append((stage, done, total)))
    assert seen[0] == ("fold", 0, 100) and seen[-1] == ("fold", 100, 100)


# -- threads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [False, True])
def test_searches_beside_writes(stores: OpenStore, monkeypatch: pytest.MonkeyPatch, background: bool) -> None:
    """Key and version tell where an item is, so that each hit proves itself: a key's label and data fit its distance."""
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 64)
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    store = stores(metric="l2", background=background)
    keys = list(range(40))
    store.add("fixed", [-5.0, 0.0], data=0)
    store.add(keys, [[key, 0] for key in keys], labels=keys, data=[0] * 40)
    stop, wrong = threading.Event(), []

    def wrong_hit(hits: Hits) -> str | None:
        found = {}
        for hit in hits:
            where = (-5.0, 0.0) if hit.key == "fixed" else (float(hit.label or 0), float(hit.data))
            if hit.key != "fixed" and hit.key != hit.label:
                return f"label of another item: {hit}"
            if abs(hit.distance - math.hypot(where[0] + 5, where[1])) > 1e-3:
                return f"distance of another version: {hit}"
            found[hit.key] = hit
        return None if len(found) == len(hits) and hits[0].key == "fixed" else f"{hits}"

    def search(many: bool) -> None:
        try:
            while not stop.is_set():
                query = np.array([-5.0, 0.0], np.float32)
                for hits in store.search_many(np.tile(query, (70, 1)), 50, threads=2) if many else [store.search(query, 50)]:
                    if (what := wrong_hit(hits)) is not None:
                        wrong.append(what)
                        return
        except BaseException as err:
            wrong.append(repr(err))

    threads = [threading.Thread(target=search, args=(many,)) for many in (False, False, True)]
    for thread in threads:
        thread.start()
    rng = np.random.default_rng(0)
    for version in range(1, 120):
        some = rng.choice(keys, 5, replace=False).tolist()
        store.upsert(some, [[key, version] for key in some], labels=some, data=[version] * 5)
        store.delete(rng.choice(keys, 3, replace=False).tolist(), missing="ignore")
        if version % 40 == 0:
            store.optimize()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_search_that_began_before_a_delete_still_sees_its_own_state(
    stores: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores(metric="l2")
    store.add(range(5), [[float(i), 3.0] for i in range(5)])
    store.close()
    store = stores()
    assert len(store) == 5  # a view is there, and no vectors yet
    current, done = store._core.views.current, []

    def delete_between(txn: Any) -> Any:
        view = current(txn)
        if not done:
            done.append(True)

            def work() -> None:
                store.delete(2)
                store.search([0.0, 0.0])

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        return view

    monkeypatch.setattr(store._core.views, "current", delete_between)
    hits = store.search([2.0, 3.0], k=5)
    assert done and len(store) == 4
    assert hits.keys[0] == 2 and hits.distances[0] == 0
    assert_nearest(hits.keys, hits.distances, [2.0, 3.0], {i: [float(i), 3.0] for i in range(5)}, "l2", 5)


def test_closing_while_others_read(stores: OpenStore) -> None:
    """Each reader gets answers or a StoreClosedError, nothing else."""
    ends: list[BaseException] = []
    queries = random_vectors(200)
    for _ in range(6):
        store = stores(metric="l2")
        if len(store) == 0:
            store.add(range(2000), random_vectors(2000))
        reads: list[Callable[[Store], Any]] = [
            lambda store: store.search(queries[0]), lambda store: store.search_many(queries, threads=2),
            lambda store: list(store.scan()), lambda store: store.get(1),
        ]  # fmt: skip

        def work(read: Callable[[Store], Any], store: Store = store) -> None:
            try:
                while True:
                    read(store)
            except BaseException as err:
                ends.append(err)

        threads = [threading.Thread(target=work, args=(read,)) for read in reads]
        for thread in threads:
            thread.start()
        time.sleep(0.03)
        store.close()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert {type(err).__name__ for err in ends} == {"StoreClosedError"}, [repr(err) for err in ends]


def test_the_background_folds_a_long_tail_after_a_query_saw_it(stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 100)
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    store = stores(metric="l2", background=True)
    vectors = random_vectors(150)
    store.add(range(150), vectors)
    assert store.info().n_segments == 0
    assert store.search(vectors[3], k=1).keys == [3]
    give_up = time.monotonic() + 60
    while store.info().n_segments == 0 and time.monotonic() < give_up:
        time.sleep(0.01)
    assert store.info().n_segments == 1 and store.info().n_tail == 0
    assert store.search(vectors[3], k=1).keys == [3]


def test_without_background_only_optimize_and_close_fold(stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 100)
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    store = stores(metric="l2")
    store.add(range(150), random_vectors(150))
    store.search(np.zeros(8))
    assert store._core.maintenance._thread is None and store.info().n_segments == 0
    store.close()
    store = stores()
    assert store.info().n_segments == 1 and store.info().n_tail == 0
    store.add("one", np.zeros(8))
    store.close()
    store = stores()
    assert store.info().n_tail == 1  # too few to fold
    store.optimize()
    assert store.info().n_tail == 0


def test_a_long_tail_of_wide_vectors_is_exact(stores: OpenStore) -> None:
    """Wide enough, and many enough, for the scan that looks at some dimensions first."""
    rng = np.random.default_rng(9)
    vectors = (rng.normal(size=(700, 120)) * rng.uniform(0.1, 3, 120)).astype(np.float32)
    store = stores(metric="l2")
    alive: set[int] = set()
    for first, stop in ((0, 1), (1, 90), (90, 300), (300, 301), (301, 700)):
        store.add(range(first, stop), vectors[first:stop])
        alive |= set(range(first, stop))
        gone = sorted(alive)[3::7]
        store.delete(gone)
        alive -= set(gone)
        rows = np.array(sorted(alive))
        for query in vectors[rng.integers(0, stop, 10)] + rng.normal(0, 0.2, (10, 120)).astype(np.float32):
            true = np.sqrt(((vectors[rows].astype(np.float64) - query) ** 2).sum(axis=1))
            order = np.argsort(true)[:10]
            hits = store.search(query, 10)
            assert hits.keys == rows[order].tolist()
            assert np.allclose(hits.distances, true[order], rtol=1e-5)
    assert store.info().n_tail == 700
