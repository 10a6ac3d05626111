"""The stages of a run: bounded, in order, and how they end."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore
from sources import FolderReader, MemoryReader, contents, write_file
from worlds import Counted, embedder

import simstore
from simstore import Store
from simstore.embedders import FunctionEmbedder
from simstore.errors import DuplicateKeyError, IngestError, SourceError, TooManyRejectedError
from simstore.ingest import claims, pending, workers, writing


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while names := [one.name for one in threading.enumerate() if one.name.startswith("simstore-")]:
        assert time.monotonic() < deadline, names
        time.sleep(0.01)


def inputs_of(n: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)


def arrays(n: int, **more: Any) -> MemoryReader:
    return MemoryReader([f"k{i}" for i in range(n)], inputs_of(n), input_kind="array", **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(300):
        write_file(tmp_path / "f", f"{i:03}.bin", f"{i} 0 1")
    return tmp_path / "f"


@pytest.fixture
def embedding(stores: OpenStore) -> Store:
    return stores("embedding.sim", metric="l2", embedder=embedder("a"))


# -- bounds and order ----------------------------------------------------------------------------------------------------


def test_a_reader_is_not_read_far_ahead(stores: OpenStore) -> None:
    n_embedded = 0
    furthest = 0

    def before(_batch: int) -> None:
        nonlocal n_embedded
        time.sleep(0.002)
        n_embedded += 64

    def ahead(first: int) -> None:
        nonlocal furthest
        furthest = max(furthest, first - n_embedded)

    store = stores(metric="l2", embedder=embedder("a", Counted("a", before)))
    store.ingest(arrays(10_000, before=ahead))
    assert len(store) == 10_000 and 0 < furthest <= 64 * 8


def test_a_slow_writer_holds_up_all_before_it(stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    n_written = furthest = 0
    put = writing.Writing._put_once

    def slow(self: Any, examples: Any, *args: Any) -> None:
        nonlocal n_written
        time.sleep(0.02)
        put(self, examples, *args)
        n_written += len(examples)

    def ahead(first: int) -> None:
        nonlocal furthest
        furthest = max(furthest, first - n_written)

    monkeypatch.setattr(writing.Writing, "_put_once", slow)
    store = stores(metric="l2")
    keys = list(range(40_000))
    store.ingest(MemoryReader(keys, inputs_of(40_000), before=ahead))
    assert len(store) == 40_000 and 0 < furthest <= 14_000


def test_decoded_files_wait_for_the_embedder(stores: OpenStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decoded ahead is bounded in bytes, whatever the batches hold."""
    monkeypatch.setattr(workers, "_AHEAD_BYTES", 5 * 12)
    monkeypatch.setattr(pending, "MOST_BYTES", 4 * 12)
    reader = FolderReader(folder)
    furthest = 0
    function = Counted("a")

    def embed(batch: Any) -> Any:
        nonlocal furthest
        furthest = max(furthest, len(reader.n_decoded) - sum(function.sizes))
        return function(batch)

    store = stores(metric="l2", embedder=embedder("a", embed))
    store.ingest(reader, workers=3)
    assert len(store) == 300 and 0 < furthest <= 64 + 5 + 3 + 4  # a batch of files that is taken whole, and these bounds


def test_rows_come_in_the_order_of_the_reader(stores: OpenStore, folder: Path) -> None:
    lags = iter(np.random.default_rng(1).uniform(0, 0.002, 300))

    class Lagging(FolderReader):
        def _batch(self, paths: Any) -> Any:
            batch = super()._batch(paths)
            decode = batch.decode
            object.__setattr__(batch, "decode", lambda i, content: (time.sleep(next(lags)), decode(i, content))[1])
            return batch

    store = stores(metric="l2", embedder=embedder("a"))
    store.ingest(Lagging(folder), workers=5)
    assert [item.key for item in store.scan()] == [f"{i:03}.bin" for i in range(300)]


def test_a_slow_embedder_loses_little(stores: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BATCH_S", 0.0)
    seen = []

    def before(batch: int) -> None:
        if batch:
            time.sleep(0.3)
            seen.append(len(store))

    store = stores(metric="l2", embedder=embedder("a", Counted("a", before)))
    store.ingest(arrays(200))
    assert seen[-1] >= 64  # written before the whole batch of 1,000 was there


# -- how it ends ---------------------------------------------------------------------------------------------------------


def test_a_decoder_that_hangs_is_left_to_itself(embedding: Store, folder: Path) -> None:
    go_on = threading.Event()
    for name in ("003.bin", "070.bin", "071.bin"):
        write_file(folder, name, "hang")
    reader = FolderReader(folder, hanging=lambda: go_on.wait(60))
    report = embedding.ingest(reader, timeout_s=0.2, workers=2)
    assert report.rejected == {"timed out": 3} and report.added == 297 and report.seconds < 30
    assert {one.key for one in embedding.rejected()} == {"003.bin", "070.bin", "071.bin"}
    go_on.set()


def test_too_many_that_hang_are_an_error(embedding: Store, folder: Path) -> None:
    go_on = threading.Event()
    for i in range(100, 120):
        write_file(folder, f"{i}.bin", "hang")
    with pytest.raises(IngestError, match=r"8 files were not decoded within 0.05 s each.*'.*/107.bin'"):
        embedding.ingest(FolderReader(folder, hanging=lambda: go_on.wait(60)), timeout_s=0.05, workers=1)
    assert len(embedding) >= 64
    go_on.set()


def test_stop_ends_it_after_the_batch_in_hand(stores: OpenStore) -> None:
    stop = threading.Event()
    store = stores(metric="l2", embedder=embedder("a", Counted("a", lambda batch: stop.set() if batch == 5 else None)))
    report = store.ingest(arrays(3000), stop=stop)
    assert report.is_interrupted and report.added == len(store) == 6 * 64 and "stopped before the end" in str(report)
    stop.clear()
    report = store.ingest(arrays(3000), stop=stop)
    assert not report.is_interrupted and (report.unchanged, report.added) == (384, 3000 - 384)


def test_stop_ends_a_run_whose_decoder_hangs(embedding: Store, folder: Path) -> None:
    stop, go_on = threading.Event(), threading.Event()
    write_file(folder, "100.bin", "hang")

    def hang() -> None:
        stop.set()
        go_on.wait(60)

    threading.Timer(1.0, go_on.set).start()
    start = time.monotonic()
    report = embedding.ingest(FolderReader(folder, hanging=hang), stop=stop)
    assert report.is_interrupted and time.monotonic() - start < 20 and len(embedding) in (0, 64)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupt_loses_no_more_than_the_batch_in_hand(stores: OpenStore, error: BaseException) -> None:
    errors = [error]

    def before(batch: int) -> None:
        if batch == 5 and errors:
            raise errors.pop()

    store = stores(metric="l2", embedder=embedder("a", Counted("a", before)))
    with pytest.raises(type(error)):
        store.ingest(arrays(3000))
    assert [item.key for item in store.scan()] == [f"k{i}" for i in range(5 * 64)]
    assert store.ingest(arrays(3000)).added == 3000 - 320


def test_an_interrupt_while_it_waits_for_files(embedding: Store, folder: Path) -> None:
    go_on = threading.Event()
    write_file(folder, "010.bin", "hang")

    def progress(*_told: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedding.ingest(FolderReader(folder, hanging=lambda: go_on.wait(0.5)), progress=progress)
    assert embedding.check() == []


@pytest.mark.parametrize("error", [SourceError("no such column"), KeyError("x"), OSError(5, "Input/output error")])
def test_a_reader_that_fails(stores: OpenStore, error: Exception) -> None:
    def before(first: int) -> None:
        if first >= 1000:
            raise error

    store = stores(metric="l2", embedder=embedder("a"))
    with pytest.raises(type(error)) as caught:
        store.ingest(arrays(3000, before=before))
    assert caught.value is error and len(store) == 1024  # all that was read before it


def test_progress_that_fails(store: Store) -> None:
    def progress(*_told: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.ingest(MemoryReader(list(range(5000)), inputs_of(5000)), progress=progress)
    assert store.check() == []


def test_too_many_rejections_end_it_and_are_noted(stores: OpenStore, folder: Path) -> None:
    for i in range(0, 300, 3):
        write_file(folder, f"{i:03}.bin", "bad")
    store = stores(metric="l2", embedder=embedder("a"))
    with pytest.raises(TooManyRejectedError, match=r"store.rejected"):
        store.ingest(FolderReader(folder), max_errors=20)
    assert len(store.rejected()) > 20 and len(store) > 0
    report = store.ingest(FolderReader(folder), max_errors=99)
    assert len(store) == 200 and report.rejected_before + sum(report.rejected.values()) == 100


def test_an_embedder_that_is_replaced_meanwhile(stores: OpenStore) -> None:
    """reembed() of another thread: the run ends in a clear error, or goes on with the new embedder; the next one resumes."""

    def before(batch: int) -> None:
        if batch == 20:
            store.reembed(FunctionEmbedder(lambda x: np.asarray(x)[:, :2] + 1, name="new", dim=2), inputs=by_key)

    def by_key(item: Any) -> Any:
        return inputs[int(item.key[1:])]

    inputs = inputs_of(3000)
    store = stores(metric="l2", embedder=embedder("a", Counted("a", before)))
    with pytest.raises((simstore.errors.EmbedderMismatchError, simstore.errors.InvalidVectorError, IngestError)):
        store.ingest(arrays(3000))
    store.ingest(arrays(3000))
    assert {item.key: item.vector.tolist() for item in store.scan()} == {
        f"k{i}": (x[:2] + 1).tolist() for i, x in enumerate(inputs)
    }


def test_duplicates_across_batches_stop_all_stages(stores: OpenStore) -> None:
    store = stores(metric="l2", embedder=embedder("a"))
    reader = arrays(5000)
    reader.keys[4999] = "k0"
    with pytest.raises(DuplicateKeyError):
        store.ingest(reader)
    assert 0 < len(store) < 5000 and contents(store).keys() <= set(reader.keys)


def test_claims_take_a_bit_for_each_row() -> None:
    some = claims.Claims(1000)
    assert all(some.claim(row) for row in range(0, 1000, 7)) and not some.claim(7)
    assert some.claimed(np.arange(1000, dtype=np.uint64)).nonzero()[0].tolist() == list(range(0, 1000, 7))
    for rows in (range(1000, 1010), range(1010, 1020), range(1030, 1031), range(0, 0)):
        some.wrote(rows)
    assert [row for row in range(990, 1040) if some.has_written(row)] == [*range(1000, 1020), 1030]
    assert len(some._bits) == 126
