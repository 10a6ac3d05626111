"""Vectors and arrays in files: npy, npz, fvecs and its kin."""

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reader_contract import ReaderContract, read_all, reasons, refused_by

from simstore.errors import SourceError
from simstore.readers import Reader, ReadOptions, RowBatch, open_sources, row_batches
from simstore.readers.npy_files import npy_chunks

NUMBERS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def opened(source: Any, **options: Any) -> Reader:
    [reader] = open_sources(source, ReadOptions(**options))
    return reader


def saved(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


def vecs(path: Path, rows: Any) -> Path:
    rows = np.asarray(rows)
    path.write_bytes(b"".join(np.int32(len(row)).tobytes() + row.tobytes() for row in rows))
    return path


class TestNpy(ReaderContract):
    n = 7

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        return lambda: opened(saved(tmp_path / "a.npy", NUMBERS))


class TestNpyImages(ReaderContract):
    n = 5

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        return lambda: opened(saved(tmp_path / "a.npy", np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)))


class TestNpz(ReaderContract):
    n = 7

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        np.savez_compressed(
            tmp_path / "a.npz", vectors=NUMBERS, keys=np.array(list("abcdefg")), labels=np.arange(7), year=np.arange(7.0)
        )
        return lambda: opened(tmp_path / "a.npz")


class TestFvecs(ReaderContract):
    n = 7

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        return lambda: opened(vecs(tmp_path / "a.fvecs", NUMBERS))


class TestSeveralNpy(ReaderContract):
    n = 14

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        saved(tmp_path / "a.npy", NUMBERS)
        saved(tmp_path / "b.npy", NUMBERS + 1)
        return lambda: opened(f"{tmp_path}/*.npy")


def array_of(reader: Reader, size: int = 3) -> Any:
    batches = [batch for batch in reader.batches(size) if isinstance(batch, RowBatch)]
    return np.concatenate([batch.inputs for batch in batches if batch.keys])


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f2", "f8", ">i4", "u1", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_type_becomes_float32(tmp_path: Path, dtype: str, order: Any) -> None:
    array = np.asarray(NUMBERS * 10 % 3, dtype, order=order)
    for path in (saved(tmp_path / "a.npy", array), tmp_path / "a.npy.gz"):
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress((tmp_path / "a.npy").read_bytes()))
        reader = opened(path)
        assert (array_of(reader) == array.astype(np.float32)).all() and reader.n_examples == 7
        assert read_all(reader)[5].key == f"{path.name}#5"


def test_what_an_array_is(tmp_path: Path) -> None:
    rows = saved(tmp_path / "a.npy", NUMBERS.astype(np.uint8))
    assert (opened(rows).input_kind, opened(rows, as_vectors=False).input_kind) == ("vector", "array")
    assert array_of(opened(rows, as_vectors=False)).dtype == np.uint8
    images = saved(tmp_path / "b.npy", np.zeros((4, 2, 2, 3), np.uint8))
    assert opened(images).input_kind == "array" and array_of(opened(images)).shape == (4, 2, 2, 3)
    assert "inputs for the embedder" in opened(images).notes().guesses[0]
    texts = opened(saved(tmp_path / "c.npy", np.array(["a", "bé"])))
    assert texts.input_kind == "text" and [one.input for one in read_all(texts)] == ["a", "bé"]
    for array in (
        np.zeros(3),
        np.float64(3),
        np.array([{}, []], object),
        np.zeros(2, [("a", "i4")]),
        np.zeros((2, 2), complex),
    ):
        with pytest.raises(SourceError):
            opened(saved(tmp_path / "d.npy", array))
    with pytest.raises(SourceError):
        opened(images, as_vectors=True)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    np.save(tmp_path / "a.npy", np.array([Evil(), 1], object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", vectors=NUMBERS, x=np.array([Evil()] * 7, object))
    with pytest.raises(SourceError, match="dtype object"):
        opened(tmp_path / "a.npy")
    assert len(read_all(opened(tmp_path / "b.npz"))) == 7 and not (tmp_path / "touched").exists()


def test_npy_that_is_cut_or_lies(tmp_path: Path) -> None:
    content = saved(tmp_path / "a.npy", NUMBERS).read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-20])
    reader = opened(tmp_path / "a.npy")
    assert [one.row for one in read_all(reader, 2)] == [0, 1, 2, 3]
    assert [(one.row, one.reason) for one in refused_by(reader, 2)] == [(4, "truncated")]
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)})
    (tmp_path / "b.npy").write_bytes(huge.getvalue() + bytes(100))
    assert reasons(opened(tmp_path / "b.npy")) == {"b.npy": "truncated"}
    (tmp_path / "c.npy").write_bytes(content[:30])
    with pytest.raises(SourceError, match="no npy data"):
        opened(tmp_path / "c.npy")


def test_files_of_another_width_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a.npy", NUMBERS)
    saved(tmp_path / "b.npy", NUMBERS[:, :2])
    (tmp_path / "0.npy").write_bytes(b"\x93NUMPY and then nothing")
    reader = opened(f"{tmp_path}/*.npy")
    assert len(read_all(reader)) == 7 and reasons(reader) == {"b.npy": "wrong width", "0.npy": "damaged"}


def test_a_batch_of_large_rows_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simstore.readers import npy_files

    monkeypatch.setattr(npy_files, "MAX_BATCH_BYTES", 1000)
    chunks = list(
        npy_chunks(str(saved(tmp_path / "a.npy", np.zeros((9, 100), np.float32))), 5, kind="vector", row_shape=(100,))
    )
    assert [chunk.n_rows for chunk in chunks] == [2, 2, 2, 2, 1] and row_batches.MAX_BATCH_BYTES > 1000


# -- npz -------------------------------------------------------------------------------------------------------------


def test_npz_members_are_columns(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz", vectors=NUMBERS, keys=np.array(list("abcdefg")), labels=np.array([1.0, np.nan] + [3.0] * 5),
        tag=np.array([b"x"] * 7), year=np.arange(7), other=np.arange(5),
    )  # fmt: skip
    reader = opened(tmp_path / "a.npz")
    found = read_all(reader)
    assert [one.key for one in found] == list("abcdefg") and [one.label for one in found][:3] == [1, None, 3]
    assert found[2].data == {"tag": "x", "year": 2} and (array_of(reader) == NUMBERS).all()
    assert reader.notes().guesses[-1] == "'other' not read: another number of rows, or no single values"


def test_npz_like_mnist(tmp_path: Path) -> None:
    x, y = np.zeros((6, 4, 4), np.uint8), np.arange(6)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    reader = opened(tmp_path / "a.npz")
    assert (reader.input_kind, reader.n_examples) == ("array", 6) and [one.label for one in read_all(reader)] == y.tolist()
    test = opened(tmp_path / "a.npz", vector_column="x_test", label_column="y_test")
    assert (test.n_examples, array_of(test).shape) == (2, (2, 4, 4)) and [one.label for one in read_all(test)] == [0, 1]
    with pytest.raises(SourceError, match="cannot be the label of the 2 rows"):
        opened(tmp_path / "a.npz", vector_column="x_test", label_column="y_train")
    with pytest.raises(SourceError, match="no column 'z'"):
        opened(tmp_path / "a.npz", vector_column="z")


def test_npz_of_texts_and_one_that_is_damaged(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", text=np.array(["x", "y"]), id=np.array([4, 5]))
    assert [(one.key, one.input, one.data) for one in read_all(opened(tmp_path / "a.npz"))] == [
        (4, "x", {"text": "x"}), (5, "y", {"text": "y"}),
    ]  # fmt: skip
    np.savez_compressed(tmp_path / "b.npz", x=np.random.default_rng(0).normal(size=(2000, 40)))
    content = bytearray((tmp_path / "b.npz").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 50] = bytes(50)
    (tmp_path / "b.npz").write_bytes(content)
    assert list(reasons(opened(tmp_path / "b.npz")).values()) == ["damaged"]
    (tmp_path / "b.npz").write_bytes(content[:-200])
    with pytest.raises(SourceError, match="zip file"):
        opened(tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as members:
        members.writestr("a.txt", "no arrays")
    with pytest.raises(SourceError, match="no known format"):
        opened(tmp_path / "c.zip")


# -- fvecs -----------------------------------------------------------------------------------------------------------


def test_vecs(tmp_path: Path) -> None:
    assert (array_of(opened(vecs(tmp_path / "a.fvecs", NUMBERS))) == NUMBERS).all()
    whole = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert (array_of(opened(vecs(tmp_path / "a.ivecs", whole))) == whole).all()
    assert (array_of(opened(vecs(tmp_path / "a.bvecs", whole.astype(np.uint8)))) == whole).all()
    (tmp_path / "b.fvecs.gz").write_bytes(gzip.compress((tmp_path / "a.fvecs").read_bytes()))
    packed = opened(tmp_path / "b.fvecs.gz")
    assert packed.n_examples is None and (array_of(packed) == NUMBERS).all()


def test_vecs_that_are_damaged(tmp_path: Path) -> None:
    content = vecs(tmp_path / "a.fvecs", NUMBERS).read_bytes()
    changed = bytearray(content)
    changed[16 * 4] = 9
    (tmp_path / "a.fvecs").write_bytes(changed)
    reader = opened(tmp_path / "a.fvecs")
    for size in (2, 4, 100):
        assert [one.row for one in read_all(reader, size)] == [0, 1, 2, 3]
        assert [(one.row, one.reason) for one in refused_by(reader, size)] == [(4, "wrong width")]
    (tmp_path / "a.fvecs").write_bytes(content[:-3])
    with pytest.raises(SourceError, match="no multiple"):
        opened(tmp_path / "a.fvecs")
    (tmp_path / "a.fvecs").write_bytes(b"text in it")
    with pytest.raises(SourceError, match=r"no \.fvecs file"):
        opened(tmp_path / "a.fvecs")


@pytest.mark.parametrize("value", [0, 0x0A, ord("("), ord("-"), ord("9"), 0x95, 0xFF])
def test_a_garbled_header_is_read_or_refused(tmp_path: Path, value: int) -> None:
    content = saved(tmp_path / "a.npy", NUMBERS).read_bytes()
    n_refused = 0
    for at in range(6, 72):
        garbled = content[:at] + bytes([value]) + content[at + 1 :]
        (tmp_path / "a.npy").write_bytes(garbled)
        try:
            read_all(opened(tmp_path / "a.npy"))
        except SourceError:
            n_refused += 1
    assert n_refused > 30
