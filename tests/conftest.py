"""Every test that opens a store through the ``stores`` fixture ends with a clean check()."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import simstore
from simstore import Store

# A shell has what it starts in the background ignore Ctrl-C, and so would the children here that are sent one.
signal.signal(signal.SIGINT, signal.default_int_handler)

OpenStore = Callable[..., Store]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[OpenStore]:
    """Opens stores (by default at one path, without a background thread); at the end each is checked and closed."""
    opened: list[Store] = []

    def open_store(path: str | Path = "store.sim", **options: Any) -> Store:
        options.setdefault("background", False)
        store = simstore.open(tmp_path / path, **options)
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        if "(closed)" not in repr(store):
            assert store.check(deep=True) == []
            store.close()


@pytest.fixture
def store(stores: OpenStore) -> Store:
    """An empty store of l2 vectors."""
    return stores(metric="l2")
