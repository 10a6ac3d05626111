"""Every store that a format ever wrote opens, and holds what it held."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import OpenStore
from golden_stores import FOLDER, content, write

from simstore import Store
from simstore.storage import FORMAT_VERSION

ARCHIVES = sorted(FOLDER.glob("format-*.tar.xz"))


def test_each_format_has_its_store() -> None:
    assert [archive.name for archive in ARCHIVES] == [f"format-{n}.tar.xz" for n in range(1, FORMAT_VERSION + 1)]


@pytest.fixture(params=[*ARCHIVES, None], ids=lambda archive: "written now" if archive is None else archive.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param is None:
        write(tmp_path / "golden.sim")
    else:
        with tarfile.open(request.param) as archive:
            archive.extractall(tmp_path, filter="data")
    return tmp_path / "golden.sim"


def equal(left: object, right: object) -> bool:
    if isinstance(right, np.ndarray):
        return isinstance(left, np.ndarray) and left.dtype == right.dtype and np.array_equal(left, right)
    return type(left) is type(right) and left == right


def holds(store: Store) -> bool:
    items = content()
    found = {item.key: item for item in store.scan()}
    assert set(found) == set(items) and len(store) == len(items)
    for key, (vector, label, data) in items.items():
        item = found[key]
        assert item.vector.tobytes() == vector.tobytes() and item.label == label and equal(item.data, data), key
    labels = [label for _, label, _ in items.values()]
    assert store.labels() == {label: labels.count(label) for label in labels}
    for key, (vector, _, _) in list(items.items())[::17]:
        exact = store.search(vector, 30, exact=True)
        assert exact.distances[0] == 0 and key in exact.keys
        assert len(set(store.search(vector, 30).keys) & set(exact.keys)) >= 27
    return True


def test_a_golden_store_is_read_and_goes_on(golden: Path, stores: OpenStore) -> None:
    reader = stores(golden, mode="r")
    assert holds(reader) and reader.check(deep=True) == []
    reader.close()
    store = stores(golden)
    assert store.info().n_segments == 1 and store.info().n_tail > 0 and holds(store)
    store.add("new", np.full(12, 99.0))
    store.delete("new")
    store.optimize()
    assert holds(store) and store.info().n_tail == 0
