"""What one search looks at, and by which path: a segment's graph, all of it, or the rows that are allowed."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simstore.index import Found, Segment
from simstore.store.bitmap import Bitmap
from simstore.store.filters import Selection
from simstore.store.request import Request
from simstore.store.view import Loose, View

__all__ = ["PATHS", "Path", "Sight", "path_through", "search_segment"]

Path = Literal["graph", "rows", "exact", "tail", "none"]
"""Along the graph; the allowed rows one by one; all rows one by one; the rows that no graph covers; nothing is allowed."""

PATHS: tuple[Path, ...] = ("graph", "rows", "exact", "tail", "none")


class Sight(NamedTuple):
    """A view, the vectors of its loose ranges, and the rows that a filter has chosen, if there is one."""

    view: View
    loose: list[Loose]
    chosen: Selection | None

    @property
    def n(self) -> int:
        """How many rows are in sight."""
        return self.view.state.n_live if self.chosen is None else self.chosen.count

    @property
    def visible(self) -> Bitmap:
        """Which they are."""
        return self.view.alive if self.chosen is None else self.chosen.rows

    @property
    def words(self) -> NDArray[np.uint64] | None:
        """The bitmap's words, None if all rows are in sight."""
        visible = self.visible
        return None if visible.is_full else visible.words

    def allowed(self, segment: Segment) -> tuple[NDArray[np.uint64] | None, int]:
        """The bitmap that a search of the segment needs, None if all its rows are in sight; and how many are."""
        if self.chosen is None:
            return self.view.allowed(segment)
        n = self.chosen.count_in(segment)
        return (None if n == segment.n_rows else self.chosen.rows.words), n


def path_through(segment: Segment, n_allowed: int, is_whole: bool, request: Request, k: int) -> Path:
    """How to search a segment for k of its n_allowed rows; is_whole if those are all it has."""
    if n_allowed == 0:
        return "none"
    if not is_whole and segment.exact_is_cheaper(n_allowed, max(request.ef, k)):
        return "rows"
    if request.exact or k * 4 >= n_allowed:
        return "exact" if is_whole or 2 * n_allowed > segment.n_rows else "rows"
    return "graph"


def search_segment(sight: Sight, segment: Segment, queries: NDArray[np.float32], request: Request, found: Found) -> Path:
    """Adds a segment's nearest of each query to found; by which path.

    Raises:
        CorruptStoreError: The segment's file is damaged.
    """
    allowed, n_allowed = sight.allowed(segment)
    path = path_through(segment, n_allowed, allowed is None, request, found.k)
    if path == "graph":
        n_filtered, nodes = None, None
        if sight.chosen is not None and allowed is not None:
            n_filtered, nodes = n_allowed, sight.chosen.node_words(segment)
        if segment.search(queries, request.ef, allowed, found, min(found.k, n_allowed), n_filtered, nodes):
            return path
        path = "exact" if allowed is None or 2 * n_allowed > segment.n_rows else "rows"  # it met too few, or too many
    if path == "rows":
        segment.scan(queries, allowed, found, _nodes(sight, segment))
    elif path == "exact":
        segment.scan(queries, allowed, found)
    return path


def _nodes(sight: Sight, segment: Segment) -> NDArray[np.uint32]:
    if sight.chosen is not None:
        return sight.chosen.nodes(segment)
    return np.unique(segment.nodes_of(sight.view.alive.rows(segment.first_row, segment.last_row + 1)))
