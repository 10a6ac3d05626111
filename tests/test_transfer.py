"""Export and import: what comes back is what went out, bit for bit, and a damaged file changes nothing."""

import datetime
import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from conftest import OpenStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_where import data as random_data

import simstore
from simstore import Store, label
from simstore.embedders import FunctionEmbedder
from simstore.errors import (
    DimensionError,
    EmbedderMismatchError,
    InvalidArgumentError,
    InvalidDataError,
    KeyExistsError,
    SourceError,
    StorageError,
)
from simstore.storage.encoding import pack, packer, unpack
from simstore.transfer import FORMATS, check_file, export_store, file_info, from_json, import_file, to_json

NAN = struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=30, seconds=7))
ODD: list[Any] = [
    *[
        None,
        True,
        0,
        -0.0,
        2**64 - 1,
        -(2**63),
        1.5,
        5e-324,
        math.inf,
        -math.inf,
        math.nan,
        NAN,
        "",
        "a\0",
        "\ud800",
        "\ud83d\ude00",
    ],
    *["é😀", b"", b"\x00\xff", [], {}, [[]], {"$date": "2024-05-01"}, {"$x": {"$y": 1}}, {"$a": 1, "b": 2}, {1: 2, "1": 3}],
    *[{"\ud83d\ude00": 1}, {None: 1, b"a": 2, 1.5: 3, True: 4}, {"a": {"b": [1, {"c": b"x"}]}}],
    *[np.float32(0.1), np.int8(-1), np.bool_(True), np.str_("a"), np.bytes_(b"a"), np.datetime64("NaT"), np.complex64(1j)],
    *[
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.array(1.5),
        np.zeros((0, 3), np.float16),
        np.array(["a", "bc"]),
        np.array([b"a"]),
    ],
    *[np.array(["2024-05-01"], "M8[D]"), np.array([True, False]), np.array([NAN]), np.asfortranarray(np.eye(2))],
    *[datetime.datetime(2024, 5, 1, 12, 0, 0, 1), datetime.datetime(1, 1, 1, tzinfo=EAST), datetime.date(9999, 12, 31)],
    *[msgpack.ExtType(17, b"x"), msgpack.Timestamp(1, 2), np.void(b"abc")],
]


def packed(value: Any) -> bytes:
    return pack(packer(), value)


def stored(value: Any) -> Any:
    """As a store gives it back."""
    return unpack(packed(value))


def deep(n: int) -> Any:
    value: Any = 1
    for i in range(n):
        value = [value] if i % 2 else {"a": value}
    return value


@pytest.mark.parametrize("value", [*ODD, deep(59), deep(62), deep(300)], ids=lambda value: repr(value)[:30])
def test_json_form_is_exact(value: Any) -> None:
    value = stored(value)
    back = from_json(json.loads(json.dumps(to_json(value), allow_nan=False)))
    assert packed(back) == packed(value)
    assert type(back) is type(value)


@given(random_data)
def test_json_form_of_anything(value: Any) -> None:
    try:
        value = stored(value)
    except InvalidDataError:
        return
    assert packed(from_json(json.loads(json.dumps(to_json(value), allow_nan=False)))) == packed(value)


@pytest.mark.parametrize(
    "value",
    [{"$what": 1}, {"$array": {"dtype": "O", "shape": [1], "base64": ""}}, {"$bytes": "é"}, {"$dict": [1]}, {"$date": 3}],
)
def test_json_form_refuses_what_it_does_not_write(value: Any) -> None:
    with pytest.raises(ValueError, match=r"is no type|holds"):
        from_json(value)


KEYS = st.one_of(
    st.text(max_size=5), st.integers(-(2**63), 2**64 - 1), st.sampled_from(["a\0", "\ud800", "\ud83d\ude00", "1", "é\n", ""])
)
LABELS = st.one_of(st.none(), KEYS)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**50), max_value=2.0**50)
ITEMS = st.lists(
    st.tuples(KEYS, LABELS, st.one_of(st.sampled_from(ODD), random_data), st.lists(FLOATS, min_size=3, max_size=3)), max_size=6
)


def content(store: Store) -> list[tuple[Any, Any, bytes, bytes]]:
    return [(item.key, item.label, packed(item.data), item.vector.tobytes()) for item in store.scan()]


def storable(items: list[Any]) -> list[Any]:
    """Those of different keys whose data msgpack holds."""
    chosen: dict[Any, Any] = {}
    for item in items:
        try:
            packed(item[2])
        except InvalidDataError:
            continue
        chosen.setdefault((type(item[0]), item[0]), item)
    return list(chosen.values())


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=ITEMS)
def test_round_trip(format: str, items: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, items = tmp_path_factory.mktemp("trip"), storable(items)
    file = folder / f"all.{format}"
    with (
        simstore.open(folder / "a.sim", dim=3, metric="l2", background=False) as a,
        simstore.open(folder / "b.sim", metric="l2", background=False) as b,
    ):
        if items:
            keys, labels, data, vectors = map(list, zip(*items, strict=True))
            a.add(keys, vectors, labels=labels, data=data)
        assert export_store(a, file).count == len(items)
        assert import_file(b, file).added == len(items)
        assert content(b) == content(a)
        assert b.check(deep=True) == []


def filled(store: Store, n: int = 2500) -> Store:
    rng = np.random.default_rng(0)
    keys = [f"k{i}" if i % 3 else i for i in range(n)]
    store.add(
        keys,
        rng.normal(size=(n, 4)),
        labels=[None, "a", 3, "b"] * (n // 4),
        data=[{"n": i, "x": b"\x00" * (i % 7)} for i in range(n)],
    )
    return store


@pytest.mark.parametrize("format", FORMATS)
def test_many_items_settings_and_a_filter(format: str, stores: OpenStore, tmp_path: Path) -> None:
    a = filled(stores("a.sim", metric="ip", M=8, ef_construction=50, index_fields=["n", ("a.b", 0)]))
    said: list[tuple[str, int, int]] = []
    file = tmp_path / f"all.{format}"
    exported = export_store(a, file, progress=lambda *args: said.append(args))
    assert (exported.path, exported.format, exported.count, exported.size_bytes) == (file, format, 2500, file.stat().st_size)
    assert said[-1] == ("export", 2500, 2500)
    info = file_info(file)
    assert (info.format, info.count, info.dim, info.metric, info.M, info.ef_construction) == (format, 2500, 4, "ip", 8, 50)
    assert info.indexed_fields == ("n", ("a.b", 0)) and info.embedder is None
    b = stores("b.sim", metric=info.metric)
    said.clear()
    import_file(b, file, progress=lambda *args: said.append(args))
    assert content(b) == content(a)
    assert said[-1] == ("import", 2500, 2500) and ("verify", 2500, 2500) in said
    assert export_store(a, file, where=label == 3, overwrite=True).count == 625
    assert import_file(stores("c.sim"), file).added == 625


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_file_changes_nothing(format: str, stores: OpenStore, tmp_path: Path) -> None:
    a, b = filled(stores("a.sim"), 1200), stores("b.sim")
    file = tmp_path / f"all.{format}"
    export_store(a, file)
    whole = file.read_bytes()
    rng = np.random.default_rng(1)
    n_noticed = 0
    for i in range(40):
        at = int(rng.integers(len(whole)))
        damaged = whole[:at] if i % 4 == 0 else whole[:at] + bytes([whole[at] ^ (1 << int(rng.integers(8)))]) + whole[at + 1 :]
        file.write_bytes(damaged)
        try:
            import_file(b, file)
        except SourceError as err:
            said = str(err)
        else:  # a byte that means nothing, as a date in a zip's directory
            said = ""
        n_noticed += bool(said)
        assert (str(file) in said and len(b) == 0) or content(b) == content(a)
        b.delete(where={})
    assert n_noticed >= 36


@pytest.mark.parametrize("format", FORMATS)
def test_changed_settings_are_damage(format: str, stores: OpenStore, tmp_path: Path) -> None:
    file = tmp_path / f"all.{format}"
    export_store(filled(stores("a.sim"), 20), file)
    whole = file.read_bytes()
    true = file_info(file)
    file.write_bytes(whole.replace(b'"M": 16', b'"M": 17'))
    try:
        check_file(file)
    except SourceError as err:
        said = str(err)
    else:
        said = ""
    assert "damaged" in said or file_info(file) == true  # compressed, or stored twice


def test_a_footer_that_hides_rows(stores: OpenStore, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    export_store(filled(stores("a.sim"), 2400), tmp_path / "all.parquet")
    with parquet.ParquetFile(tmp_path / "all.parquet") as whole:
        table, metadata = whole.read(), whole.metadata.metadata
    with parquet.ParquetWriter(tmp_path / "less.parquet", table.schema, write_page_checksum=True) as writer:
        writer.write_table(table.slice(0, 2000))
        writer.add_key_value_metadata({b"simstore.xxh3_64": metadata[b"simstore.xxh3_64"]})
    b = stores("b.sim")
    with pytest.raises(SourceError, match="not those that were written"):
        import_file(b, tmp_path / "less.parquet")
    assert len(b) == 0


def test_keys_that_are_there(stores: OpenStore, tmp_path: Path) -> None:
    a, b = filled(stores("a.sim"), 1200), stores("b.sim")
    file = tmp_path / "all.jsonl"
    export_store(a, file)
    b.add(["k1100"], np.ones((1, 4)))
    with pytest.raises(KeyExistsError, match="'k1100' is in the store already; nothing was imported"):
        import_file(b, file)
    assert len(b) == 1
    done = import_file(b, file, upsert=True)
    assert (done.added, done.replaced) == (1199, 1)
    assert sorted(content(b), key=repr) == sorted(content(a), key=repr)


def test_another_width(stores: OpenStore, tmp_path: Path) -> None:
    export_store(filled(stores("a.sim"), 4), tmp_path / "all.npz")
    with pytest.raises(DimensionError):
        import_file(stores("b.sim", dim=5), tmp_path / "all.npz")


def test_the_embedder_goes_along_by_name(stores: OpenStore, tmp_path: Path) -> None:
    ones = FunctionEmbedder(lambda batch: np.ones((len(batch), 3)), name="ones", dim=3)
    twos = FunctionEmbedder(lambda batch: np.ones((len(batch), 3)) * 2, name="twos", dim=3)
    a = stores("a.sim", embedder=ones)
    a.add(["a"], inputs=["x"])
    export_store(a, tmp_path / "all.jsonl")
    assert file_info(tmp_path / "all.jsonl").embedder == a.embedder
    assert import_file(stores("b.sim", embedder=ones), tmp_path / "all.jsonl").embedder == a.embedder
    c = stores("c.sim", embedder=twos)
    with pytest.raises(EmbedderMismatchError, match=r"'twos'.*'ones'"):
        import_file(c, tmp_path / "all.jsonl")
    assert len(c) == 0


def test_files_appear_whole(stores: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = filled(stores("a.sim"), 1200)
    with pytest.raises(InvalidArgumentError, match=r"all\.txt does not end in one of parquet, jsonl, npz"):
        export_store(a, tmp_path / "all.txt")
    with pytest.raises(InvalidArgumentError, match="format is one of parquet, jsonl, npz, not 'csv'"):
        export_store(a, tmp_path / "all.npz", format="csv")
    (tmp_path / "all.npz").write_bytes(b"mine")
    with pytest.raises(StorageError, match="exists already"):
        export_store(a, tmp_path / "all.npz")

    def stops(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    for format in FORMATS:
        with pytest.raises(KeyboardInterrupt):
            export_store(a, tmp_path / "new" / ".." / f"stopped.{format}", progress=stops)
    with pytest.raises(StorageError, match="No such file"):
        export_store(a, tmp_path / "none" / "all.npz")
    assert (tmp_path / "all.npz").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.sim", "all.npz"]


def test_a_stream(stores: OpenStore, tmp_path: Path) -> None:
    a = filled(stores("a.sim"), 8)
    stream = io.BytesIO()
    assert export_store(a, stream).count == 8
    (tmp_path / "x").write_bytes(stream.getvalue())
    b = stores("b.sim")
    import_file(b, tmp_path / "x")
    assert content(b) == content(a)


def test_other_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(2))
    (tmp_path / "b.jsonl").write_text('{"simple": 1}\n')
    (tmp_path / "c.txt").write_text("hello")
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "d.parquet")
    for name in ("a.npz", "b.jsonl", "c.txt", "d.parquet"):
        with pytest.raises(SourceError, match=r"simstore index|settings"):
            file_info(tmp_path / name)
    with pytest.raises(SourceError, match=r"^\S+a\.npz was not written by"):
        file_info(tmp_path / "a.npz")
    with pytest.raises(SourceError, match="there is no file"):
        file_info(tmp_path / "none")
    with pytest.raises(SourceError, match="is no file"):
        file_info(tmp_path)


def test_npz_for_numpy(stores: OpenStore, tmp_path: Path) -> None:
    a = stores("a.sim")
    a.add(["é", 5], np.eye(2), labels=[None, "x"])
    export_store(a, tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz", allow_pickle=False) as arrays:
        assert arrays["keys"].tolist() == ["é", "5"]
        assert arrays["key_types"].tolist() == ["str", "int"]
        assert arrays["label_types"].tolist() == ["none", "str"]
        assert arrays["vectors"].dtype == np.float32 and arrays["vectors"].tolist() == [[1, 0], [0, 1]]
