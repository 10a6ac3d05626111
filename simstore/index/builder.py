"""Building graphs. The only module that imports hnswlib, and all that it does there is add vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from simstore.errors import BuildError
from simstore.index.image import image_chunks, state_of
from simstore.index.segment import Segment

__all__ = ["Build", "build_graph", "extend_graph"]

_CHUNK = 4096  # vectors added between two looks at whether to stop


@dataclass(frozen=True, slots=True, eq=False)
class Build:
    """A graph in memory: the chunks of its file, and what its nodes stand for."""

    chunks: list[Any]
    n_nodes: int
    n_rows: int
    copy_nodes: NDArray[np.uint32]
    copy_starts: NDArray[np.uint64]
    copy_rows: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build.

    Attributes:
        threads: How many add at once; one gives the same graph every time.
        proceed: Called as proceed(done, total); returns False to give up.
    """

    M: int
    ef_construction: int
    seed: int
    threads: int
    proceed: Callable[[int, int], bool]


def build_graph(vectors: NDArray[np.float32], rows: NDArray[np.uint64], is_ip: bool, options: BuildOptions) -> Build | None:
    """A graph over prepared vectors [n, dim] in rows [n]; equal vectors share a node. None if told to stop."""
    firsts, owners = _groups(vectors)
    index = _index(is_ip, vectors.shape[1])
    index.init_index(max_elements=len(firsts), M=options.M, ef_construction=options.ef_construction, random_seed=options.seed)
    if not _add(index, vectors, rows, firsts, options):
        return None
    copies = np.setdiff1d(np.arange(len(rows)), firsts)
    return _finish(index, len(rows), rows[firsts[owners[copies]]], rows[copies])


def extend_graph(
    base: Segment, vectors: NDArray[np.float32], rows: NDArray[np.uint64], is_ip: bool, options: BuildOptions
) -> Build | None:
    """The graph of a verified segment with prepared vectors [n, dim] in rows [n] added. None if told to stop."""
    old_vectors, old_rows = np.ascontiguousarray(base.vectors()), base.node_rows()
    n_old = len(old_rows)
    firsts, owners = _groups(np.concatenate([old_vectors, vectors]))
    all_rows = np.concatenate([old_rows, rows])
    nodes = np.union1d(firsts, np.arange(n_old))  # a node of the base stays one, whatever it equals
    new_nodes = nodes[nodes >= n_old]
    state = state_of(base.image, base.header, room=n_old + len(new_nodes), seed=options.seed, is_ip=is_ip)
    del old_vectors
    index = _hnswlib().Index(params=state)
    del state
    if not _add(index, vectors, rows, new_nodes - n_old, options):
        return None
    copies = np.setdiff1d(np.arange(n_old, len(all_rows)), new_nodes)
    copy_nodes, copy_starts, copy_rows = base.copies()
    old_owners = np.repeat(old_rows[copy_nodes], np.diff(copy_starts).astype(np.int64)) if len(copy_nodes) else old_rows[:0]
    return _finish(
        index,
        n_old + len(copy_rows) + len(rows),
        np.concatenate([old_owners, all_rows[firsts[owners[copies]]]]),
        np.concatenate([copy_rows, all_rows[copies]]),
    )


def _hnswlib() -> Any:
    import hnswlib  # here: a store that only reads never needs it

    return hnswlib


def _index(is_ip: bool, dim: int) -> Any:
    # cosine is l2 here, of unit vectors, which ranks the same: the file then holds exactly the floats that the tail holds
    return _hnswlib().Index("ip" if is_ip else "l2", dim)


def _groups(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which vectors are the first with their bytes, ascending, and for each vector which of those it equals."""
    hashes = np.array([xxh3_64_intdigest(vector.data) for vector in vectors], np.uint64)
    _, first_at, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    first_of = first_at[inverse]
    strays = np.flatnonzero(first_of != np.arange(len(vectors)))
    same = np.array([vectors[i].tobytes() == vectors[first_of[i]].tobytes() for i in strays.tolist()], bool)
    first_of[strays[~same]] = strays[~same]  # equal hashes of unequal vectors
    firsts = np.flatnonzero(first_of == np.arange(len(vectors)))
    return firsts, np.searchsorted(firsts, first_of)


def _add(
    index: Any, vectors: NDArray[np.float32], rows: NDArray[np.uint64], which: NDArray[np.int64], options: BuildOptions
) -> bool:
    try:
        for start in range(0, len(which), _CHUNK):
            if not options.proceed(start, len(which)):
                return False
            part = which[start : start + _CHUNK]
            index.add_items(vectors[part], rows[part], num_threads=options.threads)
    except RuntimeError as err:
        raise BuildError(f"hnswlib could not add vectors ({err}); the items are safe and are searched exactly") from err
    return options.proceed(len(which), len(which))


def _finish(index: Any, n_rows: int, owners: NDArray[np.uint64], copies: NDArray[np.uint64]) -> Build:
    """The build of an index in which each row of copies shares the node of the row beside it in owners."""
    state = index.__getstate__()[0]
    external, internal = state["label_lookup_external"], state["label_lookup_internal"]
    order = np.argsort(external)
    nodes = (
        internal[order[np.searchsorted(external[order], owners)]].astype(np.uint32) if len(owners) else np.empty(0, np.uint32)
    )
    by_node = np.lexsort((copies, nodes))
    copy_nodes, counts = np.unique(nodes, return_counts=True)
    return Build(
        chunks=image_chunks(state),
        n_nodes=state["cur_element_count"],
        n_rows=n_rows,
        copy_nodes=copy_nodes.astype(np.uint32),
        copy_starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64),
        copy_rows=copies[by_node].astype(np.uint64),
    )
