"""Items whose example is no longer there: told, and deleted where that is wanted and safe."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore
from sources import FolderReader, MemoryReader, contents, write_file
from worlds import embedder

from simstore import Store
from simstore.embedders import FunctionEmbedder
from simstore.errors import PruneRefusedError, SimstoreError, SourceError


def rows(names: range, source: str = "/data/a.npy") -> MemoryReader:
    every = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    return MemoryReader([f"k{i}" for i in names], every[names.start : names.stop], source=source)


@pytest.fixture
def filled(store: Store) -> Store:
    store.add(["mine", "stamped"], np.ones((2, 4)), data=[None, {"_source": "odd"}])
    store.ingest(rows(range(3000)))
    store.ingest(rows(range(4000, 4010), "/data/b.npy"))
    return store


def test_what_vanished_is_told_and_stays(filled: Store) -> None:
    before = contents(filled)
    report = filled.ingest(rows(range(2980)))
    assert (report.vanished, report.pruned, report.unchanged) == (20, 0, 2980)
    assert report.vanished_keys == tuple(f"k{i}" for i in range(2980, 2990))
    assert contents(filled) == before and "20 vanished, 0 deleted" in str(report)


def test_prune_deletes_it_and_nothing_else(filled: Store) -> None:
    before = contents(filled)
    seen: list[tuple[str, int, int]] = []
    report = filled.ingest(rows(range(2700)), prune=True, progress=lambda *told: seen.append(told))
    assert (report.vanished, report.pruned) == (300, 300) and ("prune", 300, 300) in seen
    gone = {f"k{i}" for i in range(2700, 3000)}
    assert contents(filled) == {key: value for key, value in before.items() if key not in gone}
    assert filled.ingest(rows(range(2700)), prune=True).vanished == 0


@pytest.mark.parametrize("left", [2699, 1, 0])
def test_prune_of_more_than_a_tenth_is_refused(filled: Store, left: int) -> None:
    before = contents(filled)
    why = "nothing that was there is left" if not left else "more than 10%"
    with pytest.raises(PruneRefusedError, match=rf"{3000 - left:,} of the 3,000 items of '/data/a.npy': {why}") as caught:
        filled.ingest(rows(range(left)), prune=True)
    assert isinstance(caught.value, SimstoreError) and contents(filled) == before
    assert caught.value.report.vanished == 3000 - left  # type: ignore[attr-defined]
    report = filled.ingest(rows(range(left)), prune=True, force=True)
    assert report.pruned == 3000 - left and len(filled) == left + 12


def test_each_source_counts_by_itself(filled: Store) -> None:
    with pytest.raises(PruneRefusedError, match=r"2 of the 10 items of '/data/b.npy'"):
        filled.ingest([rows(range(3000)), rows(range(4000, 4008), "/data/b.npy")], prune=True)
    assert len(filled) == 3012


def test_what_is_new_does_not_make_up_for_what_is_gone(filled: Store) -> None:
    changed = rows(range(2000, 5000))
    changed.inputs[:1000] += 1
    with pytest.raises(PruneRefusedError, match="2,000 of the 3,000"):
        filled.ingest(changed, prune=True)
    assert len(filled) == 5002 and filled.get("k2000").vector[0] == changed.inputs[0, 0]  # the ingest itself is done


def test_a_run_that_fails_or_stops_deletes_nothing(filled: Store) -> None:
    class Stop:
        n = 0

        def is_set(self) -> bool:
            self.n += 1
            return self.n > 1

    report = filled.ingest(rows(range(2990)), prune=True, stop=Stop())
    assert report.is_interrupted and (report.vanished, report.pruned) == (0, 0)

    def fail(first: int) -> None:
        if first:
            raise RuntimeError("the disk is gone")

    failing = rows(range(2990))
    failing.before = fail
    with pytest.raises(RuntimeError, match="the disk is gone"):
        filled.ingest(failing, prune=True)
    assert len(filled) == 3012


def test_what_another_writes_meanwhile_is_no_longer_gone(filled: Store) -> None:
    """Items that are written while a run goes on were not there when it began."""

    def write(_first: int) -> None:
        filled.upsert(["k2999"], np.ones((1, 4)), data=[filled.get("k2999").data])

    reader = rows(range(2990))
    reader.before = write
    report = filled.ingest(reader, prune=True)
    assert (report.vanished, report.pruned) == (9, 9) and filled.get("k2999").vector[0] == 1


def test_files_that_vanished(stores: OpenStore, tmp_path: Path) -> None:
    store = stores(metric="l2", embedder=embedder("a"))
    for i in range(40):
        write_file(tmp_path / "f", f"{i:02}.bin", f"{i} 0 1")
    store.ingest(FolderReader(tmp_path / "f"))
    (tmp_path / "f" / "07.bin").unlink()
    (tmp_path / "f" / "08.bin").rename(tmp_path / "f" / "99.bin")
    report: Any = store.ingest(FolderReader(tmp_path / "f"), prune=True)
    assert (report.added, report.unchanged, report.pruned, report.vanished_keys) == (1, 38, 2, ("07.bin", "08.bin"))


def test_a_source_of_which_nothing_is_left(stores: OpenStore, tmp_path: Path) -> None:
    store = stores(metric="l2")
    np.save(tmp_path / "a.npy", np.eye(4))
    np.save(tmp_path / "b.npy", np.ones((2, 4)))
    both: list[Any] = [tmp_path / "a.npy", str(tmp_path / "b.npy")]
    assert store.ingest(both).added == 6
    (tmp_path / "a.npy").unlink()
    for options in ({}, {"force": True}):
        with pytest.raises(SourceError, match=r"no such file$"):
            store.ingest(both, **options)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=r"no such file\. The store has 4 items of it; prune with force=True deletes them"):
        store.ingest(both, prune=True)
    assert len(store) == 6
    report = store.ingest(both, prune=True, force=True)
    assert (report.unchanged, report.pruned, len(store)) == (2, 4, 2)
    assert (str(tmp_path / "a.npy"), "nothing is there") in report.ignored
    with pytest.raises(SourceError, match=r"no such file$"):  # nothing of it is in the store, either
        store.ingest(both, prune=True, force=True)


@pytest.mark.parametrize("how", ["empty", "cut off", "another column"])
def test_the_rows_of_a_file_that_cannot_be_read_are_kept(stores: OpenStore, tmp_path: Path, how: str) -> None:
    """Nobody knows what has vanished from it: rows behind a tear are not gone."""
    store = stores(
        metric="l2", embedder=FunctionEmbedder(lambda texts: np.array([[len(t), 1] for t in texts]), name="n", dim=2)
    )

    def write(i: int, n: int, *, column: str = "text") -> Path:
        path = tmp_path / f"{i:02}.csv.gz"
        path.write_bytes(gzip.compress("".join([f"id,{column}\n", *(f"{i}-{j},{i} {j * j}\n" for j in range(n))]).encode()))
        return path

    for i in range(12):
        write(i, 400)
    assert store.ingest(tmp_path / "*.gz").added == 4_800
    write(3, 390)
    bad = write(7, 400, column="body" if how == "another column" else "text")
    if how != "another column":
        os.truncate(bad, 0 if how == "empty" else bad.stat().st_size // 2)
    report = store.ingest(tmp_path / "*.gz", prune=True)
    assert sum(report.rejected.values()) == 1 and (report.vanished, report.pruned, len(store)) == (10, 10, 4_790)
    again = store.ingest(tmp_path / "*.gz", prune=True)
    assert again.rejected_before == 1 and (again.vanished, len(store)) == (0, 4_790)
    bad.unlink()
    assert store.ingest(tmp_path / "*.gz", prune=True, force=True).pruned == 400


def test_what_lies_in_a_folder_that_cannot_be_read_is_kept(stores: OpenStore, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    store = stores(metric="l2", embedder=FunctionEmbedder(lambda images: np.ones((len(images), 2)), name="n", dim=2))
    for i in range(30):
        path = tmp_path / "photos" / ("there" if i < 28 else "disk/deep") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (2, 2)).save(path)
    assert store.ingest(tmp_path / "photos").added == 30
    (tmp_path / "photos/disk").rename(tmp_path / "away")
    (tmp_path / "photos/disk").symlink_to(tmp_path / "not mounted")
    report = store.ingest(tmp_path / "photos", prune=True)
    assert report.rejected == {"dangling link": 1} and (report.vanished, report.pruned, len(store)) == (0, 0, 30)
    (tmp_path / "photos/disk").unlink()
    assert store.ingest(tmp_path / "photos", prune=True).pruned == 2
