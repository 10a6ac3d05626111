"""What every reader keeps to: a test class inherits this, and gives a reader and what it should read."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from simstore.readers import Batch, FileBatch, Reader, Refused, RowBatch, SourceFile
from simstore.readers.reader import FORMATS
from simstore.storage.encoding import encode_key, encode_label, pack, packer


class Read(NamedTuple):
    """One example, read and decoded."""

    file: SourceFile
    row: int | None
    key: Any
    label: Any
    data: dict[str, Any]
    input: Any


def examples_of(batch: Batch) -> list[Read]:
    if isinstance(batch, RowBatch):
        assert len(batch.rows) == len(batch.keys) == len(batch.labels) == len(batch.data) == len(batch.inputs)
        rows = zip(batch.rows, batch.keys, batch.labels, batch.data, batch.inputs, strict=True)
        return [Read(batch.file, *row) for row in rows]
    assert isinstance(batch, FileBatch) and len(batch.files) == len(batch.keys) == len(batch.labels)
    decoded = [batch.decode(i, batch.read(i)) for i in range(len(batch.files))]
    return [
        Read(file, None, key, label, one.data, one.input)
        for file, key, label, one in zip(batch.files, batch.keys, batch.labels, decoded, strict=True)
    ]


def read_all(reader: Reader, size: int = 100) -> list[Read]:
    return [example for batch in reader.batches(size) for example in examples_of(batch)]


def refused_by(reader: Reader, size: int = 100) -> list[Refused]:
    return [refused for batch in reader.batches(size) for refused in batch.refused]


def reasons(reader: Reader) -> dict[Any, str]:
    """Why each key, or row where it has none, was refused; also what read() and decode() refuse."""
    from simstore.errors import RejectedError

    found: dict[Any, str] = {}
    for batch in reader.batches(100):
        found |= {one.row if one.key is None else one.key: one.reason for one in batch.refused}
        if isinstance(batch, FileBatch):
            for i, key in enumerate(batch.keys):
                try:
                    batch.decode(i, batch.read(i))
                except RejectedError as err:
                    found[key] = err.reason
    return found


def plain(examples: list[Read]) -> list[Any]:
    """Examples as what == compares."""

    def listed(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray) else value

    return [(*one[:4], {name: listed(held) for name, held in one.data.items()}, listed(one.input)) for one in examples]


class ReaderContract:
    """Inherit and override the fixture ``make``: a function that opens the reader anew; and n, how many examples it has."""

    n: int
    is_in_memory = False

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Reader]:
        raise NotImplementedError

    @pytest.fixture
    def reader(self, make: Callable[[], Reader]) -> Reader:
        return make()

    def test_it_is_a_reader(self, reader: Reader) -> None:
        assert isinstance(reader, Reader) and reader.format in FORMATS
        assert reader.n_examples in (None, self.n)
        assert os.path.isabs(reader.source) != self.is_in_memory

    def test_every_size_of_batch_gives_the_same(self, reader: Reader) -> None:
        whole = plain(read_all(reader, 1000))
        assert len(whole) == self.n
        for size in (1, 2, 3, 1000):
            batches = list(reader.batches(size))
            assert all(len(batch.keys) <= size for batch in batches)
            assert plain([one for batch in batches for one in examples_of(batch)]) == whole

    def test_opening_again_gives_the_same(self, make: Callable[[], Reader]) -> None:
        first, second = make(), make()
        assert plain(read_all(first)) == plain(read_all(second))
        assert first.source == second.source and first.notes() == second.notes()

    def test_what_it_gives_can_be_stored(self, reader: Reader) -> None:
        examples = read_all(reader)
        assert len({(type(one.key), one.key) for one in examples}) == self.n
        for one in examples:
            assert type(one.key) in (str, int) and "_source" not in one.data
            encode_key(one.key), encode_label(one.label), pack(packer(), one.data)

    def test_rows_are_numbered_and_files_described(self, reader: Reader) -> None:
        rows: dict[str, list[int]] = {}
        for one in read_all(reader, 2):
            if not self.is_in_memory:
                status = os.stat(one.file.path)
                assert one.file == (one.file.path, status.st_size, status.st_mtime_ns)
            if one.row is not None:
                rows.setdefault(one.file.path, []).append(one.row)
        assert all(found == sorted(set(found)) for found in rows.values())

    def test_inputs_are_of_their_kind(self, reader: Reader) -> None:
        for batch in reader.batches(2):
            if isinstance(batch, RowBatch) and reader.input_kind == "vector" and batch.keys:
                assert batch.inputs.dtype == np.float32 and batch.inputs.ndim == 2 and batch.inputs.flags.c_contiguous
        for one in read_all(reader):
            if reader.input_kind == "text":
                assert type(one.input) is str
            elif reader.input_kind == "image":
                assert one.input.dtype == np.uint8 and one.input.ndim == 3
            else:
                assert isinstance(one.input, np.ndarray) and one.input.dtype.kind in "biuf"

    def test_one_that_is_left_early_leaves_no_file_open(self, reader: Reader) -> None:
        before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
        batches = iter(reader.batches(1))
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        after = set(os.listdir("/proc/self/fd")) if before else set()
        assert len(after) <= len(before)
