"""Rows of text: CSV, JSON Lines, plain lines, Parquet."""

import bz2
import csv
import datetime
import decimal
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reader_contract import ReaderContract, read_all, reasons, refused_by

from simstore.errors import InvalidArgumentError, PackageMissingError, SourceError
from simstore.readers import Reader, ReadOptions, csv_rows, open_sources, text_lines

TABLE = 'id,text,label,year\na1,hello,cat,2020\na2,"wör,ld\nof two lines",dog,\na3,"a ""b""",,-7\n'


def opened(source: Any, **options: Any) -> Reader:
    [reader] = open_sources(source, ReadOptions(**options))
    return reader


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


class TestCsv(ReaderContract):
    n = 3

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        return lambda: opened(write(tmp_path / "a.csv", TABLE))


class TestJsonLines(ReaderContract):
    n = 2

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        return lambda: opened(write(tmp_path / "a", '{"title": "x", "more": [1, {"a": null}]}\n\n{"title": "y"}\n'))


class TestJsonVectors(ReaderContract):
    n = 2

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        return lambda: opened(write(tmp_path / "a.jsonl", '{"id": 7, "embedding": [1, 2.5]}\n{"id": 8, "embedding": [3, 4]}\n'))


class TestLines(ReaderContract):
    n = 3

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        return lambda: opened(write(tmp_path / "a.txt.gz", gzip.compress(b"one\r\n\r\ntwo, three\nfour")))


def parquet_file(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pytest.importorskip("pyarrow", reason="needs the extra simstore[parquet]")
    from pyarrow import parquet, table

    parquet.write_table(table(columns), path, **options)
    return path


class TestParquetTexts(ReaderContract):
    n = 4

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        columns = {"text": list("abcd"), "when": [datetime.datetime(2020, 1, 2)] * 4, "n": [1, None, 3, 4]}
        return lambda: opened(parquet_file(tmp_path / "a.parquet", columns, row_group_size=3))


class TestParquetVectors(ReaderContract):
    n = 4

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        columns = {
            "key": [1, 2, 3, 4],
            "vector": np.arange(8.0).reshape(4, 2).tolist(),
            "label": list("xyxy"),
            "n": [1, 2, 3, 4],
        }
        return lambda: opened(parquet_file(tmp_path / "a.parquet", columns))


class TestPattern(ReaderContract):
    n = 6

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        for name in ("b/x.csv", "a.csv"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            write(tmp_path / name, TABLE.replace("id,", "no,"))
        return lambda: opened(f"{tmp_path}/**/*.csv")


# -- CSV -------------------------------------------------------------------------------------------------------------


def test_csv_columns_types_and_guesses(tmp_path: Path) -> None:
    reader = opened(write(tmp_path / "a.csv", TABLE))
    found = read_all(reader)
    assert [(one.row, one.key, one.label, one.input) for one in found] == [
        (0, "a1", "cat", "hello"), (1, "a2", "dog", "wör,ld\nof two lines"), (2, "a3", None, 'a "b"'),
    ]  # fmt: skip
    assert [one.data for one in found] == [
        {"text": one.input, "year": year} for one, year in zip(found, (2020, None, -7), strict=True)
    ]
    assert reader.notes().guesses == ("column 'text' is the text", "column 'id' is the key", "column 'label' is the label")
    assert (reader.source, reader.format) == (str(tmp_path / "a.csv"), "csv")


def test_a_column_is_a_number_only_if_nothing_is_lost(tmp_path: Path) -> None:
    rows = ["zip;price;ok;mixed;big;text", "007;1.5;true;1;123456789012345678901;a", "010;2e3;FALSE;x;1;b"]
    found = read_all(opened(write(tmp_path / "a.csv", "\n".join(rows)), text_column="text"))
    assert found[1].data == {"zip": "010", "price": 2000.0, "ok": False, "mixed": "x", "big": 1.0, "text": "b"}
    assert found[0].data["zip"] == "007" and found[0].data["ok"] is True


def test_a_late_value_that_does_not_fit_stays_as_written(tmp_path: Path) -> None:
    rows = ["text,n"] + [f"t,{i}" for i in range(300)] + ["t,many"]
    found = read_all(opened(write(tmp_path / "a.csv", "\n".join(rows))))
    assert [found[0].data["n"], found[299].data["n"], found[300].data["n"]] == [0, 299, "many"]


@pytest.mark.parametrize("delimiter", list(",;\t|"))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_and_encodings(tmp_path: Path, delimiter: str, encoding: str) -> None:
    text = "\r\n".join(delimiter.join(row) for row in (["id", "text"], ["1", "grün"], ["2", "中文"], ["3", "x y"]))
    found = read_all(opened(write(tmp_path / "a.csv", text.encode(encoding))))
    assert [(one.key, one.input) for one in found] == [("1", "grün"), ("2", "中文"), ("3", "x y")]


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("bz2", lambda content: bz2.compress(content, 1)), ("xz", lzma.compress)]
)
def test_compressed(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    for name in (f"a.csv.{suffix}", "misleading.png"):
        assert len(read_all(opened(write(tmp_path / name, compress(TABLE.encode())), format="csv"))) == 3
    rows = "text\n" + "".join(f"row {i} {i * 7919 % 1000}\n" for i in range(60_000))
    content = compress(rows.encode())
    reader = opened(write(tmp_path / f"cut.csv.{suffix}", content[: len(content) * 3 // 4]))
    assert len(read_all(reader, 1000)) > 10_000
    [refused] = refused_by(reader, 1000)
    assert refused.reason == "truncated" and refused.row and "nothing behind row" in refused.message


def test_zstd_or_how_to_get_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv.zst", b"\x28\xb5\x2f\xfd" + bytes(20))
    try:
        import zstandard
    except ImportError:
        with pytest.raises(PackageMissingError, match=r"pip install 'simstore\[zstd\]'"):
            opened(path)
    else:
        content = zstandard.compress(("text\n" + "".join(f"row {i}\n" for i in range(50_000))).encode())
        assert len(read_all(opened(write(path, content + content)))) == 100_001
        assert len(read_all(opened(write(path, content[: len(content) * 3 // 4])))) > 1000
        assert [one.reason for one in refused_by(opened(path), 1000)] == ["truncated"]


def test_broken_rows_are_refused_with_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "_MAX_FIELD", 200_000)
    before = csv.field_size_limit(1000)
    rows = [
        b"id,text",
        b"0,fine",
        b"1,too,many",
        b"2",
        b"3,nul\0byte",
        b"4,latin \xe9",
        b'5,"quote" then',
        b"6," + b"x" * 250_000,
        b"7,good",
    ]
    reader = opened(write(tmp_path / "a.csv", b"\n".join(rows) + b"\n"))
    assert [one.key for one in read_all(reader)] == ["0", "7"]
    assert reasons(reader) == {
        1: "wrong number of fields", 2: "wrong number of fields", 3: "NUL bytes", 4: "not UTF-8", 5: "broken CSV", 6: "field too large",
    }  # fmt: skip
    csv.field_size_limit(before)
    assert "line 6" in refused_by(reader)[3].message and "iconv" in refused_by(reader)[3].message
    open_quote = opened(write(tmp_path / "b.csv", b'id,text\n1,a\n2,"never closed\n3,b\n'))
    assert [one.key for one in read_all(open_quote)] == ["1"]
    assert [(one.row, one.reason) for one in refused_by(open_quote)] == [(1, "broken CSV")]


def test_a_line_without_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_CHARS", 1000)
    reader = opened(write(tmp_path / "a.txt", "short\n" + "x" * 5500 + "\nafter\n"))
    assert [one.input for one in read_all(reader)] == ["short", "after"] and reasons(reader) == {1: "line too long"}


def test_unnamed_and_repeated_columns(tmp_path: Path) -> None:
    found = read_all(opened(write(tmp_path / "a.csv", ",text,text\n0,a,b\n"), text_column="text"))
    assert found[0].input == "a" and found[0].data == {"column 1": 0, "text": "a", "text (3)": "b"}


def test_a_key_is_guessed_only_where_it_is_one(tmp_path: Path) -> None:
    twice = opened(write(tmp_path / "a.csv", "id,text\n1,a\n1,b\n"))
    assert [one.key for one in read_all(twice)] == ["a.csv#0", "a.csv#1"]
    missing = opened(write(tmp_path / "a.jsonl", '{"id": 1, "text": "a"}\n{"text": "b"}\n'))
    assert [one.key for one in read_all(missing)] == ["a.jsonl#0", "a.jsonl#1"]
    asked = opened(tmp_path / "a.jsonl", key_column="id")
    assert [one.key for one in read_all(asked)] == [1] and reasons(asked) == {1: "no key"}


def test_an_empty_name_is_no_column_and_no_guess(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,label,text\n7,x,hello\n")
    reader = opened(path, key_column="", label_column="")
    [one] = read_all(reader)
    assert (one.key, one.label, one.data) == ("a.csv#0", None, {"id": 7, "label": "x", "text": "hello"})
    assert reader.notes().guesses == ("column 'text' is the text",)


def test_a_text_that_is_its_own_key_or_label(tmp_path: Path) -> None:
    path = write(tmp_path / "words.csv", "word,n\nhello,1\nworld,2\n")
    keyed = read_all(opened(path, text_column="word", key_column="word"))
    assert [(one.key, one.label, one.input, one.data) for one in keyed] == [
        ("hello", None, "hello", {"word": "hello", "n": 1}), ("world", None, "world", {"word": "world", "n": 2}),
    ]  # fmt: skip
    assert [one.label for one in read_all(opened(path, text_column="word", label_column="word"))] == ["hello", "world"]
    [beside] = read_all(opened(write(tmp_path / "b.csv", "text,body\na,b\n"), key_column="text"))
    assert (beside.key, beside.input) == ("a", "b")
    vector = write(tmp_path / "v.jsonl", '{"vector": [1, 2]}\n')
    with pytest.raises(InvalidArgumentError, match="column 'vector' is the vector: it cannot be the key, too"):
        opened(vector, vector_column="vector", key_column="vector")


def test_fractions_are_neither_guessed_as_labels_nor_floats_as_keys(tmp_path: Path) -> None:
    """What is to be predicted is often called "y", or "target"."""
    values, ids = [0.5, 2.0, float("nan")], [1.0, 2.0, 3.0]
    lines = [f'{{"text": "t{i}", "y": {y}, "id": {key}}}\n' for i, (y, key) in enumerate(zip([0.5, 2.0, 3], ids, strict=True))]
    np.savez(tmp_path / "a.npz", text=np.array(["t0", "t1", "t2"]), y=np.array(values), id=np.array(ids))
    readers = [
        opened(write(tmp_path / "a.csv", "text,y,n\nt0,0.5,1\nt1,2.0,2\nt2,,3\n")),
        opened(write(tmp_path / "a.jsonl", "".join(lines))),
        opened(tmp_path / "a.npz"),
    ]
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": ["t0", "t1", "t2"], "y": values, "id": ids}), tmp_path / "a.parquet")
    for reader in [*readers, opened(tmp_path / "a.parquet")]:
        name = Path(reader.source).name
        found = read_all(reader)
        assert [(one.key, one.label, one.input) for one in found] == [(f"{name}#{i}", None, f"t{i}") for i in range(3)]
        assert [one.data["y"] for one in found[:2]] == [0.5, 2.0] and reasons(reader) == {}
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [1.0, None]}), tmp_path / "b.parquet")  # as pandas does
    assert [one.label for one in read_all(opened(tmp_path / "b.parquet"))] == [1, None]


# -- JSON Lines ------------------------------------------------------------------------------------------------------


def test_json_values_keep_their_types(tmp_path: Path) -> None:
    row = {
        "text": "x",
        "n": 1,
        "f": 0.5,
        "b": True,
        "none": None,
        "list": [1, "a"],
        "deep": {"a": {"b": 2}},
        "label": 3,
        "_source": 1,
    }
    [one] = read_all(opened(write(tmp_path / "a.jsonl", json.dumps(row))))
    assert one.label == 3 and one.data == {name: value for name, value in row.items() if name not in ("label", "_source")}


def test_json_rows_that_are_refused(tmp_path: Path) -> None:
    lines = ['{"text": "a", "label": 1}', "[1]", "{broken", '{"text": 5}', '{"text": null}', '{"text": "\\ud800"}', '{"text": "b", "label": [1]}',
             "3", '{"text": "c", "label": true}', "[" * 100_000]  # fmt: skip
    reader = opened(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert [(one.row, one.label) for one in read_all(reader)] == [(0, 1), (8, 1)]
    found = {one.row: one.reason for one in refused_by(reader)}
    assert found == {
        1: "no JSON object", 2: "broken JSON", 3: "wrong type", 4: "no text", 5: "not UTF-8", 6: "wrong type", 7: "no JSON object",
        9: "broken JSON",
    }  # fmt: skip
    with pytest.raises(SourceError, match="JSON array"):
        opened(write(tmp_path / "a.json", '[{"text": "a"}]'))
    with pytest.raises(SourceError, match="no line that is a JSON object"):
        opened(write(tmp_path / "b.json", '{\n"text": "a"\n}'))


def test_json_vectors_of_another_width_are_refused(tmp_path: Path) -> None:
    lines = [{"v": [1, 2]}, {"v": [1, 2, 3]}, {"v": "x"}, {"v": None}, {"v": [[1], [2, 3]]}, {"v": [3, 4]}]
    reader = opened(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))), vector_column="v")
    assert reasons(reader) == {
        f"a.jsonl#{i}": reason for i, reason in enumerate(["", "wrong width", "wrong type", "no vector", "wrong type"]) if i
    }
    assert [batch.inputs.tolist() for batch in reader.batches(10)] == [[[1, 2], [3, 4]]]  # type: ignore[union-attr]


# -- Parquet ---------------------------------------------------------------------------------------------------------


def test_parquet_types(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9)
    columns = {
        "text": ["a"], "id": [5], "label": [2.0], "day": [moment.date()], "when": [moment], "price": [decimal.Decimal("1.20")],
        "at": [moment.time()], "for": [datetime.timedelta(seconds=90)], "tags": [["x", "y"]], "in": [{"a": 1}], "raw": [b"\0\1"], "nan": [float("nan")],
    }  # fmt: skip
    [one] = read_all(opened(parquet_file(tmp_path / "a", columns)))
    nan = one.data.pop("nan")
    assert nan != nan and (one.key, one.label) == (5, 2)
    assert one.data == {
        "text": "a", "day": moment.date(), "when": moment, "price": "1.20", "at": "07:08:09", "for": 90.0, "tags": ["x", "y"],
        "in": {"a": 1}, "raw": b"\0\1",
    }  # fmt: skip


def test_parquet_rows_that_are_refused(tmp_path: Path) -> None:
    vectors = [[1.0, 2.0], None, [3.0], [4.0, 5.0], [6.0, 7.0]]
    reader = opened(parquet_file(tmp_path / "a", {"emb": vectors, "id": ["a", "b", "c", None, "e"], "n": range(5)}))
    found = read_all(reader, 2)
    assert [(one.row, one.key, one.input.tolist(), one.data) for one in found] == [
        (0, "a", [1, 2], {"n": 0}),
        (4, "e", [6, 7], {"n": 4}),
    ]
    assert {one.row: one.reason for one in refused_by(reader)} == {1: "no vector", 2: "wrong width", 3: "no key"}


def test_parquet_that_is_damaged(tmp_path: Path) -> None:
    content = parquet_file(
        tmp_path / "a.parquet", {"text": [f"{i * 7919}" for i in range(5000)]}, row_group_size=1000
    ).read_bytes()
    with pytest.raises(SourceError, match="Parquet"):
        opened(write(tmp_path / "cut.parquet", content[: len(content) // 2]))
    middle = bytearray(content)
    middle[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    reader = opened(write(tmp_path / "damaged.parquet", bytes(middle)))
    n = len(read_all(reader))
    assert n >= 1000 and [one.reason for one in refused_by(reader)] in (["damaged"], [])


def test_images_in_parquet(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs the extra simstore[images]")
    import io

    out = io.BytesIO()
    image.new("RGB", (3, 2), (9, 8, 7)).save(out, "PNG")
    for cell in (out.getvalue(), {"bytes": out.getvalue(), "path": "x.png"}):
        bad = b"no" if isinstance(cell, bytes) else {"bytes": None, "path": None}
        reader = opened(parquet_file(tmp_path / "a", {"image": [cell, bad], "label": [1, 2]}))
        [one] = read_all(reader)
        assert reader.input_kind == "image" and one.input.shape == (2, 3, 3) and (one.input == (9, 8, 7)).all()
        assert list(reasons(reader).values()) == ["no image"]


# -- what is asked for wrongly ---------------------------------------------------------------------------------------


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", TABLE)
    for role in ("text", "key", "label", "vector"):
        with pytest.raises(
            SourceError, match=f"no column 'nope', which was to be the {role}: it has 'id', 'text', 'label', 'year'"
        ):
            opened(path, **{f"{role}_column": "nope"})
    with pytest.raises(InvalidArgumentError, match="text_column and vector_column at once"):
        opened(path, text_column="text", vector_column="year")
    with pytest.raises(SourceError, match=r"no column is plainly the input; it has 'a' \(text\), 'b' \(text\)"):
        opened(write(tmp_path / "b.csv", "a,b\nx,y\n"))
    with pytest.raises(InvalidArgumentError, match="format='xls'"):
        opened(path, format="xls")


def test_a_file_of_a_pattern_without_the_column_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text\nx\n")
    write(tmp_path / "b.csv", "other\ny\n")
    write(tmp_path / "c.csv", "text\nz\n")
    reader = opened(f"{tmp_path}/*.csv")
    assert [one.key for one in read_all(reader)] == ["a.csv#0", "c.csv#0"] and reasons(reader) == {None: "unknown column"}
    (tmp_path / "c.csv").unlink()
    assert [(one.key, one.reason) for one in refused_by(reader)][1] == ("c.csv", "vanished")


def test_labels_from_the_paths_of_rows(tmp_path: Path) -> None:
    for name in ("pos.txt", "neg.txt"):
        write(tmp_path / name, "x\ny\n")
    found = read_all(opened(f"{tmp_path}/*.txt", label_from=r"(\w+)\.txt"))
    assert [one.label for one in found] == ["neg", "neg", "pos", "pos"] and found[0].key == "neg.txt#0"
