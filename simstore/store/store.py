"""The Store: what an application writes, asks and closes."""

from simstore.store.ingesting import Ingesting
from simstore.store.reading import Reading
from simstore.store.reembedding import Reembedding
from simstore.store.searching import Searching
from simstore.store.snapshots import Snapshots
from simstore.store.upkeep import Upkeep
from simstore.store.writing import Writing

__all__ = ["Store"]


class Store(Writing, Reading, Searching, Snapshots, Reembedding, Upkeep, Ingesting):
    """An open store. Made by ``simstore.open``; safe to use from many threads, not after a fork."""

    def __repr__(self) -> str:
        if not self._finalizer.alive:
            return f"<Store {self._path} (closed)>"
        view = self._view()
        return f"<Store {self._path}: {view.state.n_live} items, dim {view.schema.dim}, {view.schema.metric}>"
