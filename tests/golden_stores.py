"""Stores that are checked in, one for each format, so that every later simstore is seen to read them.

python tests/golden_stores.py     writes tests/golden/format-N.tar.xz for the format of this checkout
"""

import datetime
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import simstore

FOLDER = Path(__file__).parent / "golden"
DIM, N = 12, 400

Content = dict[str | int, tuple[NDArray[np.float32], str | int | None, Any]]


def vector(i: int) -> NDArray[np.float32]:
    """A vector by whole-number arithmetic: the same on every machine, for ever."""
    j = np.arange(DIM)
    return ((i * i * (j + 3) + i * (7 * j + 1)) % 101 - 50).astype(np.float32) / 8


def data(i: int) -> Any:
    """One of everything that data may be, in turn."""
    kinds = (
        None, {"number": i, "nested": {"list": [1, 2.5, "drei"]}}, b"\x00\xff" * (i % 9), f"text {i}", -i, i / 7, True,
        np.arange(i % 5, dtype=np.int16), np.float64(i), datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC), datetime.date(2026, 2, 3),
    )  # fmt: skip
    return kinds[i % len(kinds)]


def content() -> Content:
    """What a golden store holds."""
    items: Content = {}
    for i in range(N):
        key: str | int = f"schlüssel {i}" if i % 3 else i - 40
        label = (None, f"label {i % 7}", i % 4, -1)[i % 4]
        items[key] = (vector(3 if 20 <= i < 40 else i), label, data(i))
    return items


def write(path: Path) -> None:
    """A store with a segment, equal vectors, dead rows in it, a tail, an item that was written alone."""
    items = content()
    keys = list(items)
    with simstore.open(path, metric="l2", M=8, ef_construction=40, background=False) as store:

        def upsert(chosen: list[str | int], **changed: Any) -> None:
            vectors, labels, values = zip(*(items[key] for key in chosen), strict=True)
            store.upsert(chosen, np.stack(vectors), **{"labels": labels, "data": values} | changed)

        upsert(keys[:300], labels=["old"] * 300)
        store.upsert(["gone"], vector(1)[None])
        store.optimize()
        upsert(keys[:300:2])
        store.update(keys[1:300:2], labels=[items[key][1] for key in keys[1:300:2]])
        upsert(keys[300:-1])
        upsert(keys[-1:])
        store.delete("gone")


def main() -> None:
    """Writes the store of this format."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "golden.sim"
        write(path)
        (path / "lock.mdb").unlink()
        with simstore.open(path, mode="r") as store:
            version = store.info().format_version
        (path / "lock.mdb").unlink()
        with tarfile.open(FOLDER / f"format-{version}.tar.xz", "w:xz") as archive:
            archive.add(path, "golden.sim")


if __name__ == "__main__":
    main()
