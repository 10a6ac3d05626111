"""What ingest() works with: batches with rejections in one transaction, and the table of these."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ailing import change, entries, garble, open_at

from simstore import Store, field
from simstore.errors import DimensionError, EmbedderMismatchError, InvalidKeyError, InvalidVectorError, ReadOnlyStoreError
from simstore.storage import Place, RejectedRecord
from simstore.storage.encoding import pack, packer


def rejection(row: int | None, *, file: str = "/data/a.csv", reason: str = "truncated") -> RejectedRecord:
    return RejectedRecord(Place("/data", file, row), f"a.csv#{row}", reason, "it ends early", 10, 20, 30.5)


def packed(data: Any) -> bytes:
    return pack(packer(), data)


def written(store: Store, n: int, first: int = 0, **more: Any) -> tuple[Any, range]:
    rng = np.random.default_rng(first)
    return store._intake.write(
        [f"k{i}" for i in range(first, first + n)], rng.normal(size=(n, 4)).astype(np.float32),
        labels=[None] * n, packed=[packed({"_source": {"row": i}}) for i in range(n)], made_by=None, **more,
    )  # fmt: skip


def test_a_batch_and_its_rejections_are_one_transaction(store: Store) -> None:
    odd = rejection(None, file="/data/\udcff.png", reason="no image")
    counts, rows = written(store, 3, rejected=[rejection(7), odd, rejection(2)])
    assert (counts.added, counts.replaced, rows) == (3, 0, range(0, 3))
    assert [(one.file, one.row, one.reason) for one in store.rejected()] == [
        ("/data/a.csv", 2, "truncated"), ("/data/a.csv", 7, "truncated"), ("/data/\udcff.png", None, "no image"),
    ]  # fmt: skip
    assert store.rejected()[0].at.timestamp() == 30.5 and store.rejected()[0].key == "a.csv#2"
    with pytest.raises(DimensionError):
        store._intake.write(["x"], np.ones((1, 5)), labels=[None], packed=[packed({})], made_by=None, rejected=[rejection(9)])
    with pytest.raises(EmbedderMismatchError):
        store._intake.write(["x"], np.ones((1, 4)), labels=[None], packed=[packed({})], made_by="another", cleared=[odd.place])
    assert len(store.rejected()) == 3 and len(store) == 3
    counts, rows = written(store, 2, 2, cleared=[odd.place, Place("no", "such", 1)])
    assert (counts.added, counts.replaced, rows) == (1, 1, range(3, 5)) and len(store.rejected()) == 2
    assert store._intake.rejection([rejection(7).place, odd.place]) == [rejection(7), None]


def test_rejections_alone(store: Store) -> None:
    assert store.rejected() == []
    counts, rows = store._intake.write([], np.empty((0, 1)), labels=[], packed=[], made_by=None, rejected=[rejection(1)])
    assert (counts.added, len(rows)) == (0, 0) and len(store.rejected()) == 1 and len(store) == 0


def test_what_is_found(store: Store) -> None:
    written(store, 4)
    found = store._intake.found(["k1", "none", "k3"])
    assert [one and (one.row, one.data["_source"]["row"]) for one in found] == [(1, 1), None, (3, 3)]
    rows = store._intake.rows(field("_source.row") >= 2)
    assert rows.tolist() == [2, 3] and [key for key, _ in store._intake.items(rows.tolist())] == ["k2", "k3"]


def test_refusals_are_told_one_by_one(store: Store) -> None:
    vectors = np.ones((4, 3), np.float32)
    vectors[2, 1] = np.nan
    refusals = store._intake.refusals(["a", "b" * 600, "c", "d"], [None] * 4, vectors)
    assert [type(one) for one in refusals] == [type(None), InvalidKeyError, InvalidVectorError, type(None)]
    assert store._intake.refusals(["a", "a"], [None] * 2, vectors[:2]) == [None, None]


def test_rejections_outlive_compact_backup_and_reopening(tmp_path: Path) -> None:
    with open_at(tmp_path / "store.sim") as store:
        written(store, 5, rejected=[rejection(1)])
        store.delete("k0")
        store.compact()
        written(store, 1, 9, rejected=[rejection(2)])
        store.backup(tmp_path / "copy.sim")
    for name in ("store.sim", "copy.sim"):
        with open_at(tmp_path / name, mode="r") as store:
            assert [one.row for one in store.rejected()] == [1, 2] and store.check(deep=True) == []
            with pytest.raises(ReadOnlyStoreError):
                _ = store._intake


def test_a_damaged_rejection_is_found_and_dropped(tmp_path: Path) -> None:
    path = tmp_path / "store.sim"
    with open_at(path) as store:
        written(store, 2, rejected=[rejection(1), rejection(2)])
    (key, _), *_ = entries(path, "rejected")
    change(path, "rejected", key, garble)
    with open_at(path) as store:
        assert [problem.where for problem in store.check(deep=True)] == ["rejected"]
        known = store._intake.rejection([rejection(1).place, rejection(2).place])
        assert sorted(one is None for one in known) == [False, True]
        assert store.repair().rebuilt == ["rejected"] and store.check(deep=True) == [] and len(store.rejected()) == 1
