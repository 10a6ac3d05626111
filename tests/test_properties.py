"""Whatever keys, labels, data and vectors are: they come back, sort as they should, and are found where they are."""

import datetime
import itertools
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from naive import assert_nearest
from numpy.typing import NDArray

import simstore
from simstore import Store
from simstore.errors import InvalidDataError, InvalidKeyError
from simstore.storage.encoding import decode_key, encode_key, encode_label, pack, packer, unpack
from simstore.storage.records import item_body, item_value, read_item, split_records, vector_checksum, vector_records
from simstore.store.bitmap import Bitmap

QUICK = settings(max_examples=200, deadline=None, derandomize=True, database=None)
WITH_STORE = settings(max_examples=30, deadline=None, derandomize=True, database=None)

INTS = (
    st.integers(-(2**63), 2**64 - 1)
    | st.integers(-300, 300)
    | st.sampled_from([s * 2**e + d for s in (1, -1) for e in range(63) for d in (-1, 0)])
)
TEXT = st.text(st.characters(), max_size=60) | st.text(
    "\x00aé\u0301\ud800\udfff\U0001f600\uffff", max_size=8
)  # surrogates, too
KEYS = INTS | TEXT


@contextmanager
def new_store(**options: Any) -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as directory, simstore.open(Path(directory) / "s", background=False, **options) as store:
        yield store
        assert store.check(deep=True) == []


# -- keys and labels ----------------------------------------------------------------------------------------------------


@QUICK
@given(KEYS)
@example(0)
@example("")
def test_a_key_comes_back(key: Any) -> None:
    encoded = encode_key(key)
    decoded = decode_key(encoded)
    assert type(decoded) is type(key) and decoded == key
    assert 1 <= len(encoded) <= 500
    assert encode_label(key) == encoded


@QUICK
@given(st.lists(INTS, min_size=2))
def test_ints_sort_as_their_bytes(values: list[int]) -> None:
    assert sorted(values) == sorted(values, key=encode_key)


def test_ints_of_all_sizes_sort_as_their_bytes() -> None:
    edges = {s * 2**e + d for s in (1, -1) for e in range(65) for d in (-2, -1, 0, 1, 2)}
    values = sorted(v for v in edges if -(2**63) <= v < 2**64)
    encoded = [encode_key(value) for value in values]
    assert all(a < b for a, b in itertools.pairwise(encoded))


@QUICK
@given(st.lists(TEXT, min_size=2))
def test_strs_sort_as_their_bytes(values: list[str]) -> None:
    assert sorted(values) == sorted(values, key=encode_key)


@QUICK
@given(st.lists(KEYS, unique_by=lambda key: (type(key), key), min_size=2))
def test_different_keys_have_different_bytes(keys: list[Any]) -> None:
    assert len({encode_key(key) for key in keys}) == len(keys)


@QUICK
@given(st.text(st.characters(), min_size=120, max_size=520))
def test_a_key_fits_or_is_refused(key: str) -> None:
    fits = len(key.encode("utf-8", "surrogatepass")) + 1 <= 500
    if fits:
        assert decode_key(encode_key(key)) == key
    else:
        with pytest.raises(InvalidKeyError, match="bytes encoded; 500 is the most"):
            encode_key(key)


# -- data ---------------------------------------------------------------------------------------------------------------

DTYPES = (
    hnp.scalar_dtypes() | hnp.unicode_string_dtypes(max_len=5) | hnp.byte_string_dtypes(max_len=5)
    | hnp.datetime64_dtypes() | hnp.timedelta64_dtypes()
)  # fmt: skip
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
OFFSETS = st.integers(-86_399, 86_399).map(lambda s: datetime.timezone(datetime.timedelta(seconds=s)))
LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT | st.binary(max_size=50)
    | st.datetimes() | st.datetimes(timezones=OFFSETS | st.just(datetime.UTC)) | st.dates()
    | ARRAYS | DTYPES.flatmap(hnp.from_dtype)
)  # fmt: skip
DICT_KEYS = TEXT | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=5) | st.none() | st.dates()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(DICT_KEYS, inner, max_size=4), max_leaves=12
)


def same(a: Any, b: Any) -> bool:
    """Equal in type and bytes."""
    if type(a) is not type(b):
        return False
    if isinstance(b, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(b, dict):
        return (
            list(a) == list(b)
            and [type(key) for key in a] == [type(key) for key in b]
            and all(same(a[key], b[key]) for key in b)
        )
    if isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(b, datetime.datetime):
        return bool(a == b) and a.utcoffset() == b.utcoffset()
    return bool(a == b)


@settings(QUICK, max_examples=400)
@given(VALUES)
@example(np.str_(""))
@example(np.array(["", ""]))
@example(np.zeros((0, 3), ">f2"))
def test_data_comes_back(value: Any) -> None:
    packed = pack(packer(), value)
    assert same(unpack(packed), value)
    assert same(unpack(memoryview(packed)), value)


@QUICK
@given(VALUES)
def test_a_packer_works_on_after_a_refusal(value: Any) -> None:
    one = packer()
    for refused in ([value, {1, 2}], {"a": value, "b": 2**70}):
        with pytest.raises(InvalidDataError):
            pack(one, refused)
        assert pack(one, value) == pack(packer(), value)


@QUICK
@given(KEYS, st.none() | KEYS, VALUES, st.integers(0, 2**64 - 1), st.integers(0, 2**63))
def test_an_item_comes_back(key: Any, label: Any, value: Any, row: int, seq: int) -> None:
    stored = item_value(item_body((key, label, pack(packer(), value))), seq.to_bytes(8, "big"), row)
    found = read_item(stored, row)
    assert found[:2] == (key, label) and type(found[0]) is type(key) and type(found[1]) is type(label)
    assert same(found[2], value)


# -- vectors ------------------------------------------------------------------------------------------------------------


@QUICK
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)), st.integers(0, 2**40))
def test_vector_records_come_back(vectors: NDArray[np.float32], first_row: int) -> None:
    n, dim = vectors.shape
    records = vector_records(vectors, first_row)
    assert records.shape == (n, (4 * dim + 7) // 8 * 8 + 8)
    found, checksums = split_records(records.tobytes(), dim)
    assert found.tobytes() == vectors.tobytes()
    assert [vector_checksum(vector.tobytes(), first_row + i) for i, vector in enumerate(vectors)] == checksums.tolist()


@QUICK
@given(st.integers(0, 300), st.data())
def test_bitmaps_are_sets(n_rows: int, data: st.DataObject) -> None:
    some = st.lists(st.integers(0, max(n_rows - 1, 0)), unique=True) if n_rows else st.just([])
    dead, more = data.draw(some), data.draw(some)
    grown = n_rows + data.draw(st.integers(0, 200))
    alive = Bitmap.of(n_rows, np.array(dead, np.uint64)).without([row for row in more if row not in dead], grown)
    live = [row for row in range(grown) if row not in {*dead, *more}]
    first = data.draw(st.integers(0, grown))
    stop = data.draw(st.integers(first, grown))
    assert alive.n_dead == len({*dead, *more})
    assert [row for row in range(grown) if row in alive] == live
    assert alive.rows(first, stop).tolist() == [row for row in live if first <= row < stop]
    assert alive.count(first, stop) == len([row for row in live if first <= row < stop])
    assert alive.of_rows(np.arange(grown, dtype=np.uint64)).tolist() == [row in live for row in range(grown)]
    closed_at = data.draw(st.integers(0, grown))  # as a snapshot's: what came later is dead
    closed, live = alive.closed(closed_at), [row for row in live if row < closed_at]
    assert [row for row in range(grown) if row in closed] == live
    assert closed.mask(first, stop).tolist() == [row in live for row in range(first, stop)]
    assert closed.rows(first, stop).tolist() == [row for row in live if first <= row < stop]
    assert closed.count(first, stop) == len([row for row in live if first <= row < stop])
    assert closed.of_rows(np.arange(grown, dtype=np.uint64)).tolist() == [row in live for row in range(grown)]


NUMBERS = st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0]) | st.floats(-100, 100, width=32).filter(
    lambda x: x == 0 or abs(x) > 1e-3
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors (some of them equal) and queries."""
    dim = draw(st.integers(1, 20))
    vectors = draw(hnp.arrays(np.float32, (draw(st.integers(1, 40)), dim), elements=NUMBERS))
    vectors = vectors[draw(st.lists(st.integers(0, len(vectors) - 1), min_size=1, max_size=60))]
    queries = draw(hnp.arrays(np.float32, (draw(st.integers(1, 4)), dim), elements=NUMBERS))
    return vectors, np.concatenate([queries, vectors[:2]])


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@settings(WITH_STORE)
@given(worlds(), st.data())
def test_search_is_an_exact_search_in_float64(metric: str, world: Any, data: st.DataObject) -> None:
    vectors, queries = world
    if metric == "cosine":
        assume(np.abs(vectors).max(axis=1).min() > 0 and np.abs(queries).max(axis=1).min() > 0)
    n = len(vectors)
    k = data.draw(st.integers(1, n + 2))
    farthest = data.draw(st.floats(-1, 3) | st.floats(0, 200), label="max_distance")
    dead = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n - 1), label="deleted")
    with new_store(metric=metric) as store:
        store.add(None, vectors)
        live = dict(enumerate(vectors))
        for stage in ("tail", "segment", "segment and dead", "optimized"):
            if stage == "segment and dead":
                store.delete(dead)
                live = {key: vector for key, vector in live.items() if key not in dead}
            elif stage != "tail":
                store.optimize()
            for kwargs in (
                {"k": k},
                {"k": k, "exact": True},
                {"k": k, "max_distance": farthest},
                {"k": None, "max_distance": farthest},
            ):
                batch = store.search_many(queries, **kwargs)
                for query, hits in zip(queries, batch, strict=True):
                    assert_nearest(hits.keys, hits.distances, query, live, metric, kwargs["k"], kwargs.get("max_distance"))
                    alone = store.search(query, **kwargs)
                    assert (alone.keys, alone.distances.tolist()) == (hits.keys, hits.distances.tolist())


@settings(WITH_STORE)
@given(
    st.lists(st.tuples(KEYS, st.none() | KEYS, VALUES), min_size=1, max_size=12, unique_by=lambda t: (type(t[0]), t[0])),
    st.integers(1, 9),
    st.data(),
)
def test_items_come_back_from_a_store(items: list[tuple[Any, Any, Any]], dim: int, data: st.DataObject) -> None:
    finite = st.floats(-(2.0**50), 2.0**50, width=32)
    vectors = data.draw(hnp.arrays(np.float32, (len(items), dim), elements=finite))
    keys, labels, values = (list(column) for column in zip(*items, strict=True))
    with new_store(metric="l2") as store:
        assert store.add(keys, vectors, labels=labels, data=values) == keys
        assert [item.key for item in store.scan()] == keys
        for key, label, value, vector in zip(keys, labels, values, vectors, strict=True):
            item = store.get(key)
            assert (item.key, item.label) == (key, label) and key in store
            assert type(item.key) is type(key) and type(item.label) is type(label)
            assert same(item.data, value) and item.vector.tobytes() == vector.tobytes()
        counts = {(type(label), label): labels.count(label) for label in labels}
        assert {(type(label), label): count for label, count in store.labels().items()} == counts
        assert store.delete(keys) == len(keys) and len(store) == 0
