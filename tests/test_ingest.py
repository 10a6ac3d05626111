"""What ingest() makes of rows and files, the first time and again."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore
from sources import FolderReader, MemoryReader, contents, write_file
from worlds import Counted, embedder

from simstore import Store
from simstore.embedders import FunctionEmbedder
from simstore.errors import (
    DimensionError,
    DuplicateKeyError,
    EmbedderRequiredError,
    IngestError,
    InvalidArgumentError,
    ReadOnlyStoreError,
    TooManyRejectedError,
)
from simstore.ingest import texts_of
from simstore.readers import Example, Refused, SourceFile

FILE = SourceFile("/data/a.csv", 100, 7)


def vectors(n: int, seed: int = 0, dim: int = 4) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def rows(n: int, **more: Any) -> MemoryReader:
    return MemoryReader([f"k{i}" for i in range(n)], vectors(n), **more)


def counts(report: Any) -> tuple[int, ...]:
    return report.added, report.replaced, report.unchanged, report.relabelled, sum(report.rejected.values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    for i in range(7):
        write_file(root, f"class{i % 2}/{i}.bin", f"{i} 1 2")
    return root


@pytest.fixture
def embedding(stores: OpenStore) -> Store:
    return stores("embedding.sim", metric="l2", embedder=embedder("a"))


# -- rows ----------------------------------------------------------------------------------------------------------------


def test_rows_are_taken_in_and_left_alone_the_next_time(store: Store) -> None:
    data = [{"n": i, "tags": ["a"] * i} if i % 3 else {} for i in range(2500)]
    labels = [f"c{i % 5}" for i in range(2500)]
    report = store.ingest(rows(2500, file=FILE, source="/data/a.csv", labels=labels, data=data))
    assert counts(report) == (2500, 0, 0, 0, 0) and report.n_embedded == 0 and report.embedder is None
    assert report.guesses == ("column 'x' is the vector",) and report.ignored == (("odd.txt", "no vectors"),)
    item = store.get("k1402")
    assert item.label == "c2" and item.vector.tobytes() == vectors(2500)[1402].tobytes()
    assert item.data.pop("_source").keys() == {"source", "file", "row", "size", "mtime_ns", "hash"}
    assert item.data == data[1402]
    seq = store.info().seq
    assert counts(store.ingest(rows(2500, file=FILE, source="/data/a.csv", labels=labels, data=data))) == (0, 0, 2500, 0, 0)
    assert store.info().seq == seq  # nothing was written


def test_the_stamp_says_where_an_item_comes_from(store: Store) -> None:
    store.ingest(rows(3, file=FILE, source="/data/*.csv", data=[{str(i): i for i in range(n)} for n in (1, 15, 70)]))
    for row, n in enumerate((1, 15, 70)):
        data = store.get(f"k{row}").data
        mark = data.pop("_source")
        assert data == {str(i): i for i in range(n)}
        assert isinstance(mark.pop("hash"), int)
        assert mark == {"source": "/data/*.csv", "file": "/data/a.csv", "row": row, "size": 100, "mtime_ns": 7}


@pytest.mark.parametrize("what", ["vector", "label", "data"])
def test_a_row_that_changed_is_replaced(store: Store, what: str) -> None:
    def reader() -> MemoryReader:
        return rows(10, labels=list(range(10)), data=[{"n": i} for i in range(10)])

    store.ingest(reader())
    changed = reader()
    if what == "vector":
        changed.inputs[4, 2] += 1
    elif what == "label":
        changed.labels = [*range(4), 44, *range(5, 10)]
    else:
        changed.data = [{"n": i if i != 4 else "4"} for i in range(10)]
    expected = contents_of(changed)
    assert counts(store.ingest(changed)) == (0, 1, 9, 0, 0)
    assert {item.key: (item.label, item.data["n"], item.vector.tobytes()) for item in store.scan()} == expected


def contents_of(reader: MemoryReader) -> dict[Any, Any]:
    columns = zip(reader.keys, reader.labels or [], reader.data or [], reader.inputs, strict=True)
    return {key: (label, data["n"], vector.tobytes()) for key, label, data, vector in columns}


def test_what_no_run_wrote_is_replaced_and_another_source_is_taken_over(store: Store) -> None:
    store.add(["k0", "k1", "other"], vectors(3), data=[None, {"_source": "me"}, [1]])
    assert counts(store.ingest(rows(3, source="first"))) == (1, 2, 0, 0, 0)
    moved = rows(3, source="second")
    moved.inputs[2] += 1
    assert counts(store.ingest(moved)) == (0, 1, 2, 0, 0)  # two hold what they held, and get the new stamp
    assert [store.get(f"k{i}").data["_source"]["source"] for i in range(3)] == ["second"] * 3
    assert store.get("other").data == [1]


def test_texts_arrays_and_objects_are_told_apart_by_content(stores: OpenStore) -> None:
    function = Counted("a")
    fn = FunctionEmbedder(lambda batch: function(np.array([[len(str(x)), 1, 2] for x in batch])), name="len", dim=4)
    store = stores(metric="l2", embedder=fn)
    inputs: list[Any] = ["one", b"one", {"a": 1}, [1, 2], np.array([1, 2]), np.array([1.0, 2.0]), np.array([[1, 2]]), "\udcff"]

    def reader() -> MemoryReader:
        return MemoryReader(list(range(8)), list(inputs), input_kind="text")

    assert counts(store.ingest(reader())) == (8, 0, 0, 0, 0)
    assert len({item.data["_source"]["hash"] for item in store.scan()}) == 8
    assert counts(store.ingest(reader())) == (0, 0, 8, 0, 0) and sum(function.sizes) == 8
    inputs[5] = np.array([1.0, 2.0], np.float32)
    assert counts(store.ingest(reader())) == (0, 1, 7, 0, 0)


def test_inputs_are_embedded_in_batches_of_one_size(stores: OpenStore) -> None:
    function = Counted("a")
    store = stores(metric="l2", embedder=embedder("a", function))
    inputs = vectors(150, dim=3)
    report = store.ingest(MemoryReader(list(range(150)), inputs, input_kind="array"))
    assert function.sizes == [64, 64, 22] and report.n_embedded == 150
    store.ingest(MemoryReader(list(range(150)), inputs + 1, input_kind="array"), batch_size=100)
    assert function.sizes[3:] == [100, 50]


# -- files ---------------------------------------------------------------------------------------------------------------


def test_files_that_have_not_changed_are_not_read(embedding: Store, folder: Path) -> None:
    first = FolderReader(folder)
    report = embedding.ingest(first)
    assert counts(report) == (7, 0, 0, 0, 0) and len(first.n_decoded) == 7 and report.n_embedded == 7
    item = embedding.get("class1/3.bin")
    assert item.label == "class1" and item.data["n"] == 5 and "row" not in item.data["_source"]
    again = FolderReader(folder)
    assert counts(embedding.ingest(again)) == (0, 0, 7, 0, 0) and again.n_read == []


def test_a_touched_file_is_read_and_not_decoded(embedding: Store, folder: Path) -> None:
    embedding.ingest(FolderReader(folder))
    os.utime(folder / "class0/2.bin", ns=(5, 5))
    touched = FolderReader(folder)
    report = embedding.ingest(touched)
    assert counts(report) == (0, 0, 7, 0, 0) and report.n_embedded == 0
    assert touched.n_read == ["class0/2.bin"] and touched.n_decoded == []
    assert embedding.get("class0/2.bin").data["_source"]["mtime_ns"] == 5
    third = FolderReader(folder)
    assert counts(embedding.ingest(third)) == (0, 0, 7, 0, 0) and third.n_read == []


def test_a_changed_file_is_replaced(embedding: Store, folder: Path) -> None:
    embedding.ingest(FolderReader(folder))
    write_file(folder, "class0/2.bin", "9 9 9", mtime_ns=77)
    changed = FolderReader(folder)
    assert counts(embedding.ingest(changed)) == (0, 1, 6, 0, 0) and changed.n_decoded == ["class0/2.bin"]
    expected = embedder("a").embed(np.array([[9, 9, 9]], np.float32))[0]
    assert embedding.get("class0/2.bin").vector.tobytes() == expected.tobytes()


def test_another_label_needs_no_embedding(embedding: Store, folder: Path) -> None:
    embedding.ingest(FolderReader(folder, labelled=False))
    os.utime(folder / "class0/2.bin", ns=(5, 5))
    labelled = FolderReader(folder)
    report = embedding.ingest(labelled)
    assert counts(report) == (0, 0, 0, 7, 0) and report.n_embedded == 0 and labelled.n_read == ["class0/2.bin"]
    assert embedding.labels() == {"class0": 4, "class1": 3}
    assert embedding.get("class0/2.bin").data["_source"]["mtime_ns"] == 5


def test_a_folder_that_moved_is_read_and_not_decoded(embedding: Store, folder: Path, tmp_path: Path) -> None:
    embedding.ingest(FolderReader(folder))
    folder.rename(tmp_path / "moved")
    moved = FolderReader(tmp_path / "moved")
    report = embedding.ingest(moved)
    assert counts(report) == (0, 0, 7, 0, 0) and report.vanished == 0 and moved.n_decoded == []
    assert {item.data["_source"]["source"] for item in embedding.scan()} == {str(tmp_path / "moved")}


def test_what_users_added_to_the_data_of_an_unchanged_file_stays(embedding: Store, folder: Path) -> None:
    embedding.ingest(FolderReader(folder))
    item = embedding.get("class0/2.bin")
    embedding.update("class0/2.bin", data={**item.data, "mine": 1})
    os.utime(folder / "class0/2.bin", ns=(5, 5))
    assert counts(embedding.ingest(FolderReader(folder))) == (0, 0, 7, 0, 0)
    data = embedding.get("class0/2.bin").data
    assert data["mine"] == 1 and data["_source"]["mtime_ns"] == 5


def test_a_pattern_of_several_formats(store: Store, tmp_path: Path) -> None:
    """It has a reader for each format, all with one source."""
    np.save(tmp_path / "a.npy", vectors(3))
    np.savez(tmp_path / "b.npz", vectors=vectors(2, 9))
    (tmp_path / "c.jsonl").write_text('{"id": "j", "vector": [1, 2, 3, 4]}\n')
    pattern = str(tmp_path / "*")
    assert counts(store.ingest(pattern)) == (6, 0, 0, 0, 0)
    assert {item.key for item in store.scan()} == {"a.npy#0", "a.npy#1", "a.npy#2", "b.npz#0", "b.npz#1", "j"}
    (tmp_path / "c.jsonl").unlink()
    report = store.ingest(pattern, prune=True, force=True)
    assert (report.unchanged, report.pruned, len(store)) == (5, 1, 5)
    for twice in ([pattern, pattern], [tmp_path / "a.npy", pattern, tmp_path / "a.npy"]):
        with pytest.raises(InvalidArgumentError, match="is given twice"):
            store.ingest(twice)


# -- what cannot be taken in ---------------------------------------------------------------------------------------------


def test_each_kind_of_bad_example_is_noted_and_ends_nothing(store: Store) -> None:
    array = vectors(9)
    array[1, 0] = np.nan
    keys = ["k0", "nan", "k" * 600, "label", "data", 5.5, "k6", "k7", "k8"]
    labels: list[Any] = [None, 1, 2, 3.5, 4, 5, 6, 7, 8]
    data: list[dict[str, Any]] = [{} for _ in range(9)]
    data[4] = {"x": object()}
    refused = (Refused(SourceFile("/data/a.csv", 100, 7), 99, None, "broken row", "two quotes"),)
    report = store.ingest(MemoryReader(keys, array, labels, data, file=FILE, source="/data/a.csv", refused=refused))
    assert report.rejected == {"bad vector": 1, "bad key": 2, "bad label": 1, "bad data": 1, "broken row": 1}
    assert report.added == 4 and [item.key for item in store.scan()] == ["k0", "k6", "k7", "k8"]
    noted = {(one.row, one.key, one.reason) for one in store.rejected()}
    assert noted == {
        (1, "nan", "bad vector"), (2, None, "bad key"), (3, "label", "bad label"), (4, "data", "bad data"),
        (5, None, "bad key"), (99, None, "broken row"),
    }  # fmt: skip
    report = store.ingest(MemoryReader(keys, array, labels, data, file=FILE, source="/data/a.csv", refused=refused))
    assert (report.unchanged, report.rejected, report.rejected_before) == (4, {}, 6)
    with pytest.raises(TooManyRejectedError, match="6 examples were rejected, and max_errors=5"):
        store.ingest(
            MemoryReader(keys, array, labels, data, file=FILE, source="/data/a.csv", refused=refused),
            retry_errors=True, max_errors=5,
        )  # fmt: skip


@pytest.mark.parametrize("data", [[1], "text", 5, 0, ""])
def test_data_of_an_example_that_is_no_dict_is_rejected(store: Store, data: Any) -> None:
    """The stamp goes into the dict: beside anything else it would make what nobody can unpack."""
    examples: list[Any] = [
        Example("a", np.ones(4), data={"n": 1}),
        Example("b", np.ones(4), data=data),
        Example("c", np.ones(4)),
    ]
    report = store.ingest(lambda: examples)
    assert (report.added, report.rejected) == (2, {"bad data": 1})
    assert [(item.key, set(item.data)) for item in store.scan()] == [("a", {"n", "_source"}), ("c", {"_source"})]
    [note] = store.rejected()
    assert (note.key, note.row) == ("b", 1) and f"a dict, not {type(data).__name__}" in note.message
    of_ones = MemoryReader(["d", "e"], np.ones((2, 4), np.float32), data=[{"n": 1}, data or [1]])
    assert store.ingest(of_ones).rejected == {"bad data": 1}  # a reader of someone else's


def test_files_that_cannot_be_decoded(embedding: Store, folder: Path) -> None:
    write_file(folder, "class0/bad.bin", "bad")
    write_file(folder, "class0/crash.bin", "no numbers at all")
    write_file(folder, "class0/empty.bin", "")
    write_file(folder, "class0/two.bin", "1 2")  # decoded; the embedder cannot take it
    report = embedding.ingest(FolderReader(folder))
    assert report.rejected == {"no numbers": 1, "decoder failed": 1, "empty": 1, "embedder failed": 1} and report.added == 7
    again = FolderReader(folder)
    report = embedding.ingest(again)
    assert (report.rejected, report.rejected_before, report.unchanged, again.n_read) == ({}, 4, 7, [])
    again = FolderReader(folder)
    assert sum(embedding.ingest(again, retry_errors=True).rejected.values()) == 4 and len(again.n_read) == 3
    write_file(folder, "class0/bad.bin", "1 2 3", mtime_ns=9)
    write_file(folder, "class0/two.bin", "3 3 3", mtime_ns=9)
    (folder / "class0/crash.bin").unlink()
    report = embedding.ingest(FolderReader(folder))
    assert (report.added, report.rejected_before) == (2, 1)
    assert [one.reason for one in embedding.rejected()] == ["empty"]  # the others are in, or no longer there


def test_a_rejected_file_keeps_its_older_item(embedding: Store, folder: Path) -> None:
    embedding.ingest(FolderReader(folder))
    before = contents(embedding)
    write_file(folder, "class0/2.bin", "bad", mtime_ns=9)
    write_file(folder, "class0/4.bin", "", mtime_ns=9)
    for expected in (2, 0):
        report = embedding.ingest(FolderReader(folder), prune=True)
        assert (report.vanished, report.pruned, sum(report.rejected.values())) == (0, 0, expected)
    assert contents(embedding) == before
    write_file(folder, "class0/2.bin", "2 1 2", mtime_ns=11)  # what it was
    report = embedding.ingest(FolderReader(folder))
    assert (report.unchanged, report.rejected_before) == (6, 1) and [one.reason for one in embedding.rejected()] == ["empty"]


def test_a_reader_that_cannot_read_and_one_that_lacks_a_package(embedding: Store, folder: Path) -> None:
    (folder / "class0/0.bin").chmod(0)
    reader = FolderReader(folder)
    batch = next(reader.batches(10))

    class Reader(FolderReader):
        error: type[Exception] = OSError

        def batches(self, size: int) -> Any:
            import dataclasses

            def read(i: int) -> bytes:
                if i == 3:
                    raise self.error("no such luck")
                return batch.read(i)  # type: ignore[union-attr]

            yield dataclasses.replace(batch, read=read)  # type: ignore[type-var]

    report = embedding.ingest(Reader(folder))
    assert report.rejected == {"unreadable": 1} and report.added == 6
    Reader.error = ImportError
    with pytest.raises(ImportError, match="no such luck"):
        embedding.ingest(Reader(folder), retry_errors=True)


def test_an_embedder_that_fails_on_one_example(stores: OpenStore) -> None:
    def function(batch: Any) -> Any:
        if any(x[0] in (13, 77) for x in batch):
            raise RuntimeError("unlucky")
        return np.asarray(batch)

    store = stores(metric="l2", embedder=FunctionEmbedder(function, name="f", dim=3))
    inputs = np.stack([np.arange(100), np.ones(100), np.ones(100)], axis=1).astype(np.float32)
    report = store.ingest(MemoryReader(list(range(100)), inputs, input_kind="array", file=FILE))
    assert report.added == report.n_embedded == 98 and report.rejected == {"embedder failed": 2}
    assert [(one.row, one.message) for one in store.rejected()] == [
        (13, "RuntimeError: unlucky"),
        (77, "RuntimeError: unlucky"),
    ]
    assert all(item.vector[0] == item.key for item in store.scan())


def test_an_embedder_that_fails_on_everything_is_an_error(stores: OpenStore) -> None:
    store = stores(metric="l2", embedder=FunctionEmbedder(lambda batch: np.ones((len(batch), 7)), name="f", dim=3))
    with pytest.raises(IngestError, match=r"fails on every example, as on row 0 of '/data/a.csv': InvalidVectorError"):
        store.ingest(MemoryReader(list(range(30)), vectors(30), input_kind="array", file=FILE))
    assert len(store) == 0 and store.rejected() == []
    with pytest.raises(IngestError, match="fails on every example"):
        store.ingest(MemoryReader(list(range(30)), vectors(30), input_kind="array", file=FILE), batch_size=1)


# -- errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", [3, 7, 1700, 2999])
def test_two_rows_with_one_key(store: Store, second: int) -> None:
    """In one batch, in two of one transaction, and far apart; in an empty store, in one that has the items, and half of them."""
    for have in (0, 3000):
        reader = rows(3000, file=FILE, source="/data/a.csv")
        if have:
            store.ingest(rows(3000, file=FILE, source="/data/a.csv"))
        reader.keys[second] = "k2"
        place = r"two items have the key 'k2': row 2 of '/data/a.csv' and row {} of '/data/a.csv'"
        with pytest.raises(DuplicateKeyError, match=place.format(second)):
            store.ingest(reader)
        assert len(store) == (3000 if have else second // 1000 * 1000)
        store.delete(where={"$key": {"$startswith": "k"}})


def test_two_sources_with_one_key(store: Store) -> None:
    first, second = rows(1500, source="/one"), rows(5, source="/two")
    second.inputs = vectors(5, 9)
    with pytest.raises(DuplicateKeyError, match="'k0': row 0 of '/one' and row 0 of '/two'"):
        store.ingest([first, second])
    assert len(store) == 1000  # the transactions before
    with pytest.raises(DuplicateKeyError, match="'k0'"):  # equal content is no excuse
        store.ingest([rows(1500, source="/one"), rows(5, source="/two")])
    with pytest.raises(InvalidArgumentError, match="'/one' is given twice"):
        store.ingest([first, first])


def test_the_wrong_width_is_told_at_once(store: Store) -> None:
    store.add(["a"], vectors(1))
    reader = MemoryReader(list(range(9000)), vectors(9000, dim=5), source="/data/v.npy")
    with pytest.raises(DimensionError, match=r"'/data/v.npy' has vectors of 5 numbers each, and this store holds vectors of 4"):
        store.ingest(reader)
    assert len(reader.sizes) == 1 and len(store) == 1


def test_single_vectors_of_a_wrong_kind_are_rejected(store: Store) -> None:
    lists: list[Any] = [[1, 2, 3], [1, 2], "text", [4.0, 5, 6], None, np.ones(3), [[1, 2, 3]]]
    report = store.ingest(MemoryReader(list(range(7)), lists, file=FILE))
    assert report.added == 4 and report.rejected == {"bad vector": 3}
    assert [one.row for one in store.rejected()] == [1, 2, 4]
    assert store.get(3).vector.tolist() == [4, 5, 6]
    with pytest.raises(DimensionError, match="vectors of 2 numbers"):
        store.ingest(MemoryReader(["x", "y"], [[1, 2], [3, 4]], source="other"))


def test_raw_inputs_need_an_embedder(store: Store) -> None:
    with pytest.raises(EmbedderRequiredError, match=r"'memory' holds texts, and this store has no embedder.*'text-ngram'"):
        store.ingest(MemoryReader(["a"], ["text"], input_kind="text"))
    with pytest.raises(EmbedderRequiredError, match="'image-thumb'"):
        store.ingest(MemoryReader(["a"], vectors(1), input_kind="image"))


def test_vectors_for_a_store_with_an_embedder(embedding: Store, folder: Path) -> None:
    report = embedding.ingest([FolderReader(folder), rows(70)])
    assert report.added == 77 and report.n_embedded == 7
    with pytest.raises(DimensionError):
        embedding.ingest(MemoryReader(["x"], vectors(1, dim=9)))


def test_arguments_and_a_store_that_is_only_read(store: Store, stores: OpenStore) -> None:
    for wrong in ({"workers": 0}, {"batch_size": -1}, {"max_errors": -1}, {"timeout_s": 0}, {"stop": 5}, {"max_errors": 1.5}):
        with pytest.raises(InvalidArgumentError):
            store.ingest(rows(2), **wrong)  # type: ignore[arg-type]
    store.close()
    with stores("store.sim", mode="r") as readonly, pytest.raises(ReadOnlyStoreError):
        readonly.ingest(rows(2))


# -- what is told --------------------------------------------------------------------------------------------------------


def test_the_report_tells_it_to_people_and_to_json(embedding: Store, folder: Path) -> None:
    write_file(folder, "class0/bad.bin", "bad")
    seen: list[tuple[str, int, int]] = []
    report = embedding.ingest(FolderReader(folder), progress=lambda *told: seen.append(told))
    assert seen[-1] == ("ingest", 8, 8)
    assert str(report).startswith("7 added, 0 unchanged, 1 rejected (no numbers); ")
    told = json.loads(json.dumps(report.as_dict()))
    assert told["added"] == 7 and told["rejected"] == {"no numbers": 1} and told["n_examples"] == 8
    assert told["stage_seconds"].keys() == {"read", "decode", "embed", "write"} and told["embedder"] == report.embedder
    assert report.items_per_s == pytest.approx(8 / report.seconds)


def test_a_dry_run_counts_and_writes_nothing(embedding: Store, folder: Path) -> None:
    embedding.ingest(FolderReader(folder))
    seq, before = embedding.info().seq, contents(embedding)
    for i in range(100, 300):
        write_file(folder, f"class0/{i}.bin", f"{i} 0 0")
    write_file(folder, "class0/2.bin", "9 9 9", mtime_ns=77)
    write_file(folder, "class0/e.bin", "")
    (folder / "class1/3.bin").unlink()
    reader = FolderReader(folder)
    report = embedding.ingest(reader, dry_run=True, prune=True)
    assert report.is_dry_run and counts(report) == (200, 1, 5, 0, 1) and (report.vanished, report.pruned) == (1, 0)
    assert report.estimate is not None and report.estimate.n_sample > 0 and report.estimate.seconds is not None
    assert report.n_embedded == 0 and str(report).startswith("would be: 200 added, 1 replaced")
    assert embedding.info().seq == seq and contents(embedding) == before and embedding.rejected() == []
    assert report.estimate.size_bytes > 201 * 4 * 4 * 2
    assert json.loads(json.dumps(report.as_dict()))["estimate"]["n_sample"] == report.estimate.n_sample


def test_the_texts_of_readers() -> None:
    texts = [f"text {i}" for i in range(2000)]
    readers = [MemoryReader(list(range(2000)), texts, input_kind="text"), rows(5)]
    assert list(texts_of(readers)) == texts
