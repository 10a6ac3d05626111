"""TFRecord, read without TensorFlow and compared with what TensorFlow wrote; and tf.data."""

import gzip
import io
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_contract import ReaderContract, read_all, reasons, refused_by

from simstore.errors import InvalidArgumentError, SourceError
from simstore.readers import Reader, ReadOptions, open_sources
from simstore.readers.crc32c import crc32c, masked_crc32c
from simstore.readers.tf_example import parse_example


def opened(source: Any, **options: Any) -> Reader:
    [reader] = open_sources(source, ReadOptions(**options))
    return reader


def framed(records: list[bytes]) -> bytes:
    out = b""
    for record in records:
        length = struct.pack("<Q", len(record))
        out += length + struct.pack("<I", masked_crc32c(length)) + record + struct.pack("<I", masked_crc32c(record))
    return out


def message(*fields: tuple[int, bytes]) -> bytes:
    """A protocol buffer message of fields that have a length."""

    def varint(n: int) -> bytes:
        return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)

    return b"".join(varint(number << 3 | 2) + varint(len(body)) + body for number, body in fields)


def serialized(**features: Any) -> bytes:
    entries = []
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], (bytes, str)):
            kind, inner = 1, message(*((1, one.encode() if isinstance(one, str) else one) for one in values))
        elif isinstance(values[0], float):
            kind, inner = 2, message((1, np.array(values, "<f4").tobytes()))
        else:
            kind, inner = 3, message((1, bytes(values)))  # ints below 128
        entries.append((1, message((1, name.encode()), (2, message((kind, inner))))))
    return message((1, message(*entries)))


RECORDS = [serialized(text=f"text {i}", id=f"k{i}", label=i, weights=[0.5, float(i)]) for i in range(6)]


class TestTfRecord(ReaderContract):
    n = 6

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        (tmp_path / "a").write_bytes(gzip.compress(framed(RECORDS)))
        return lambda: opened(tmp_path / "a")


def test_crc32c_of_known_bytes() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the CRC
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43  # RFC 3720, B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E and crc32c(b"") == 0 and crc32c(b"a") == 0xC1D04330


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 5000))
def test_crc32c_of_any_bytes(content: bytes, more: int) -> None:
    content += bytes(i * 31 & 255 for i in range(more))
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(content) == crc ^ 0xFFFFFFFF


def test_features_and_guesses(tmp_path: Path) -> None:
    (tmp_path / "a.tfrecord").write_bytes(framed(RECORDS))
    reader = opened(tmp_path / "a.tfrecord")
    found = read_all(reader)
    assert [(one.key, one.label, one.input) for one in found] == [(f"k{i}", i, f"text {i}") for i in range(6)]
    assert found[3].data == {"text": "text 3", "weights": [0.5, 3.0]}
    spec = {"weights": [float], "label": int}
    vectors = opened(tmp_path / "a.tfrecord", features=spec)
    assert vectors.input_kind == "vector" and read_all(vectors)[5].input.tolist() == [0.5, 5.0]
    assert [one.data for one in read_all(vectors)] == [{}] * 6
    for bad, error in (({"text": list}, InvalidArgumentError), ({"nothing": str, "more": str}, SourceError)):
        with pytest.raises(error):
            opened(tmp_path / "a.tfrecord", features=bad)


def test_damage(tmp_path: Path) -> None:
    content = framed(RECORDS)
    size = len(content) // len(RECORDS)
    garbled = bytearray(content)
    garbled[size * 2 + 20] ^= 1  # within the third record
    (tmp_path / "a").write_bytes(garbled)
    reader = opened(tmp_path / "a")
    assert [one.row for one in read_all(reader)] == [0, 1, 3, 4, 5] and reasons(reader) == {2: "wrong checksum"}
    garbled = bytearray(content)
    garbled[size * 2 + 1] ^= 1  # its length
    for damaged, reason in (
        (garbled, "damaged"),
        (content[: size * 2 + 30], "truncated"),
        (content[: size * 2 + 5], "truncated"),
    ):
        (tmp_path / "a").write_bytes(damaged)
        assert [one.row for one in read_all(opened(tmp_path / "a"))] == [0, 1]
        assert [(one.row, one.reason) for one in refused_by(opened(tmp_path / "a"))] == [(2, reason)]


def test_records_of_the_wrong_kind(tmp_path: Path) -> None:
    odd = [
        RECORDS[0],
        b"\xff\xff",
        serialized(text=[b"\xff"], id="a"),
        serialized(text=1.5, id="b"),
        serialized(id="c"),
        serialized(text=["x", "y"], id="d"),
    ]
    (tmp_path / "a").write_bytes(framed(odd))
    assert {one.row: one.reason for one in refused_by(opened(tmp_path / "a"))} == {
        1: "no tf.train.Example", 2: "not UTF-8", 3: "wrong type", 4: "no text", 5: "wrong type",
    }  # fmt: skip
    (tmp_path / "a").write_bytes(framed([b"no message at all"]))
    with pytest.raises(SourceError, match=r"no tf\.train\.Example"):
        opened(tmp_path / "a")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_an_example_or_a_value_error(content: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(parse_example(content), dict)


def test_images_in_records(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs the extra simstore[images]")
    out = io.BytesIO()
    image.new("RGB", (3, 2), (9, 8, 7)).save(out, "PNG")
    (tmp_path / "a").write_bytes(framed([serialized(image=out.getvalue(), label=1), serialized(image=b"no")]))
    reader = opened(tmp_path / "a")
    assert (
        reader.input_kind == "image"
        and (read_all(reader)[0].input == (9, 8, 7)).all()
        and reasons(reader) == {"a#1": "no image"}
    )


# -- with TensorFlow -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tf() -> Any:
    return pytest.importorskip("tensorflow", reason="needs the extra simstore[keras]")


def test_what_tensorflow_wrote(tf: Any, tmp_path: Path) -> None:
    feature = tf.train.Feature
    ints = [0, 1, -1, 300, 2**62, -(2**62)]
    features = {
        "text": feature(bytes_list=tf.train.BytesList(value=["grün".encode()])),
        "ints": feature(int64_list=tf.train.Int64List(value=ints)),
        "floats": feature(float_list=tf.train.FloatList(value=[0.5, -2.0])),
        "empty": feature(),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    for compression in ("", "GZIP"):
        path = tmp_path / f"a{compression}"
        with tf.io.TFRecordWriter(str(path), compression) as writer:
            for _ in range(3):
                writer.write(example)
        [*_, last] = read_all(opened(path))
        assert last.row == 2 and last.input == "grün"
        assert last.data == {"text": "grün", "ints": ints, "floats": [0.5, -2.0]}


class TestDataset(ReaderContract):
    n = 7
    is_in_memory = True

    @pytest.fixture
    def make(self, tf: Any) -> Callable[[], Reader]:
        data = {
            "text": [f"t{i}" for i in range(7)],
            "label": list(range(7)),
            "id": [f"k{i}" for i in range(7)],
            "more": np.ones((7, 2)),
        }
        return lambda: opened(tf.data.Dataset.from_tensor_slices(data).batch(3))


def test_datasets(tf: Any) -> None:
    x, y = np.arange(7 * 4 * 4, dtype=np.uint8).reshape(7, 4, 4), np.arange(7)
    pairs = tf.data.Dataset.from_tensor_slices((x, y))
    for dataset in (pairs, pairs.batch(3), pairs.take(6).batch(3, drop_remainder=True)):
        reader = opened(dataset)
        found = read_all(reader)
        assert reader.input_kind == "array" and len(found) in (6, 7)
        assert [(one.key, one.label) for one in found] == [(f"dataset#{i}", i) for i in range(len(found))]
        assert all((one.input == x[i]).all() for i, one in enumerate(found))
    vectors = opened(tf.data.Dataset.from_tensor_slices(x.reshape(7, 16).astype("f4")).batch(2), name="mine")
    assert (vectors.input_kind, vectors.source, read_all(vectors)[6].key) == ("vector", "mine", "mine#6")
    texts = opened(tf.data.Dataset.from_tensor_slices((["a", b"\xff"], [1, 2])))
    assert [one.input for one in read_all(texts)] == ["a"] and reasons(texts) == {1: "not UTF-8"} and texts.n_examples == 2
    with pytest.raises(SourceError, match="no column 'z'"):
        opened(pairs, key_column="z")
    with pytest.raises(SourceError, match="dict of tensors"):
        opened(tf.data.Dataset.from_tensor_slices({"a": {"b": [1]}}))


def test_reading_does_not_import_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(framed(RECORDS))
    code = (
        "import sys; from simstore.readers import open_sources; [r] = open_sources(sys.argv[1]); print(sum(len(b.keys) for b in r.batches(2)));"
        "print([m for m in ('tensorflow', 'keras', 'PIL', 'pyarrow', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["6", "[]"]
