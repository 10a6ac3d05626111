"""Mapped segments: blocks are verified before they count, and what is in one is what was built into it."""

import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import lru_cache

import graphs
import numpy as np
import pytest
from graphs import NO_ROWS, Found, answers, bitmap, image_of, normal, oracle, rows_from, segment_of, whole_numbers

from simstore.errors import CorruptStoreError
from simstore.index import Build, Segment, block_checksums
from simstore.index.image import read_header
from simstore.index.segment import BLOCK_BYTES
from simstore.store import Store

DIM, N, FIRST = 32, 3000, 1000
NODE = graphs.node_bytes(DIM, 8)


@lru_cache(maxsize=1)
def made() -> tuple[Build, bytes, graphs.Floats]:
    """A file of ten blocks."""
    vectors = normal(1, N, DIM)
    vectors[:, 0] = np.sort(vectors[:, 0]) * 30  # neighbours stand in the same block: a search reads few
    vectors[10:20] = vectors[5]
    vectors[2000:2500:50] = vectors[7]
    built = graphs.build(vectors, rows_from(FIRST, N))
    image = image_of(built)
    assert len(image) > 9 * BLOCK_BYTES and len(built.copy_rows) == 20
    return built, image, vectors


def opened(image: bytes | None = None) -> Segment:
    return segment_of(made()[0], DIM, first_row=FIRST, last_row=FIRST + N - 1, image=image)


def flipped(image: bytes, at: int, bit: int = 0) -> bytes:
    bad = bytearray(image)
    bad[at] ^= 1 << bit
    return bytes(bad)


def level0_of(block: int) -> int:
    return block * BLOCK_BYTES + 4321


def n_level0_blocks() -> int:
    return (96 + made()[0].n_nodes * NODE) // BLOCK_BYTES  # without the one in which the upper levels start


def searched(segment: Segment, queries: graphs.Floats, k: int = 10, ef: int = 40) -> list[tuple[list[float], list[int]]]:
    found = Found(len(queries), k)
    assert segment.search(queries, ef, None, found, 0)
    return [(distances.tolist(), rows.tolist()) for distances, rows in answers(found)]


def test_answers_once_with_and_once_without_verified_blocks() -> None:
    _, _, vectors = made()
    lazy, eager = opened(), opened()
    eager.verify()
    assert searched(lazy, vectors[:50]) == searched(eager, vectors[:50])
    assert searched(lazy, vectors[:50]) == searched(eager, vectors[:50])


def test_a_flip_in_any_block_is_found_by_the_first_search_that_reads_it() -> None:
    """A search that does not touch the block is right; one that does raises, and goes on raising."""
    _, image, vectors = made()
    queries = vectors[:200:4].copy()
    right = searched(opened(), queries)
    raised = untouched = 0
    for block in range(1, n_level0_blocks()):
        for bit in (0, 7):
            segment = opened(flipped(image, level0_of(block), bit))
            for i, query in enumerate(queries):
                try:
                    answer = searched(segment, query[None])
                except CorruptStoreError:
                    raised += 1
                    with pytest.raises(CorruptStoreError, match=f"between bytes {block * BLOCK_BYTES} and"):
                        segment.verify()
                    with pytest.raises(CorruptStoreError, match=f"between bytes {block * BLOCK_BYTES} and"):
                        searched(segment, query[None])
                else:
                    assert answer == [right[i]]
                    untouched += 1
    assert raised > 100 and untouched > 100


@pytest.mark.parametrize("call", ["scan", "distances", "node_rows", "rows", "unreachable", "nodes_of", "verify"])
def test_what_reads_everything_finds_every_flip(call: str) -> None:
    _, image, vectors = made()
    for block in range(1, n_level0_blocks()):
        segment = opened(flipped(image, level0_of(block)))
        calls: dict[str, Callable[[], object]] = {
            "scan": lambda segment=segment: segment.scan(vectors[:1], None, Found(1, 3)),
            "distances": lambda segment=segment: segment.distances(vectors[0]),
            "nodes_of": lambda segment=segment: segment.nodes_of(rows_from(FIRST, 1)),
        }
        work = calls.get(call) or getattr(segment, call)
        with pytest.raises(CorruptStoreError, match="damaged"):
            work()


def test_header_and_upper_levels_are_verified_at_once() -> None:
    _, image, _ = made()
    upper_at = 96 + made()[0].n_nodes * NODE
    for at in (0, 50, 95, BLOCK_BYTES - 1, upper_at, upper_at + 700, len(image) - 1):
        with pytest.raises(CorruptStoreError):
            opened(flipped(image, at))


def test_other_sizes_are_refused() -> None:
    built, image, _ = made()
    for bad in (b"", image[:50], image[:96], image[:-1], image + b"\0", image[:BLOCK_BYTES], image + bytes(BLOCK_BYTES)):
        with pytest.raises(CorruptStoreError):
            opened(bad)
    for n_nodes, dim in ((built.n_nodes + 1, DIM), (built.n_nodes - 1, DIM), (built.n_nodes, DIM + 1), (0, DIM)):
        with pytest.raises(CorruptStoreError, match="header does not fit"):
            Segment(
                memoryview(image), checksums=block_checksums(memoryview(image)), n_nodes=n_nodes, dim=dim, is_ip=False,
                first_row=0, last_row=9999, copy_nodes=np.empty(0, np.uint32), copy_starts=NO_ROWS, copy_rows=NO_ROWS,
                orphans=np.empty(0, np.uint32),
            )  # fmt: skip


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        (0, "<Q", 1), (8, "<Q", 1), (16, "<Q", N), (24, "<Q", 1), (32, "<Q", 8), (40, "<Q", 0), (48, "<i", -1),
        (48, "<i", 65), (48, "<i", 0), (52, "<I", N), (52, "<I", 0xFFFFFFFF), (56, "<Q", 9), (64, "<Q", 32),
        (72, "<Q", 1), (72, "<Q", 1 << 40),
    ],
)  # fmt: skip
def test_headers_that_contradict_themselves(at: int, form: str, value: int) -> None:
    """With checksums that match: of a file that was written so."""
    built, image, _ = made()
    bad = bytearray(image)
    struct.pack_into(form, bad, at, value)
    with pytest.raises(CorruptStoreError, match=r"header|entry point|upper levels"):
        Segment(
            memoryview(bad), checksums=block_checksums(memoryview(bad)), n_nodes=built.n_nodes, dim=DIM, is_ip=False,
            first_row=FIRST, last_row=FIRST + N, copy_nodes=built.copy_nodes, copy_starts=built.copy_starts,
            copy_rows=built.copy_rows, orphans=np.empty(0, np.uint32),
        )  # fmt: skip


def test_links_out_of_bounds_behind_matching_checksums() -> None:
    built, image, vectors = made()
    bad = bytearray(image)
    for node in range(built.n_nodes):
        struct.pack_into("<I", bad, 96 + node * NODE + 4, 1 << 30)
    segment = Segment(
        memoryview(bad), checksums=block_checksums(memoryview(bad)), n_nodes=built.n_nodes, dim=DIM, is_ip=False,
        first_row=FIRST, last_row=FIRST + N, copy_nodes=built.copy_nodes, copy_starts=built.copy_starts,
        copy_rows=built.copy_rows, orphans=np.empty(0, np.uint32),
    )  # fmt: skip
    with pytest.raises(CorruptStoreError, match="out of bounds"):
        searched(segment, vectors[:1])
    segment.verify()
    with pytest.raises(CorruptStoreError, match="out of bounds"):
        searched(segment, vectors[:1])


# -- what is in it, against naive loops ---------------------------------------------------------------------------------


def naive_node_rows() -> list[int]:
    built, image, _ = made()
    return [struct.unpack_from("<Q", image, 96 + (node + 1) * NODE - 8)[0] for node in range(built.n_nodes)]


def naive_owner_of() -> dict[int, int]:
    """The node of each row: by comparing the vectors in the file with those that were built in."""
    built, image, vectors = made()
    node_of_vector = {image[96 + node * NODE + 4 + 64 : 96 + (node + 1) * NODE - 8]: node for node in range(built.n_nodes)}
    return {FIRST + i: node_of_vector[vector.tobytes()] for i, vector in enumerate(vectors)}


def test_rows_and_nodes() -> None:
    segment, owner_of = opened(), naive_owner_of()
    assert segment.node_rows().tolist() == naive_node_rows()
    assert sorted(segment.rows().tolist()) == list(range(FIRST, FIRST + N))
    assert segment.n_rows == N
    rows = np.random.default_rng(1).permutation(rows_from(FIRST, N))
    assert segment.nodes_of(rows).tolist() == [owner_of[row] for row in rows.tolist()]
    assert segment.nodes_of(NO_ROWS).tolist() == []


def test_nodes_of_leaves_out_what_is_not_there() -> None:
    vectors = normal(3, 50, 4)
    segment = segment_of(graphs.build(vectors, rows_from(0, 50) * np.uint64(2) + np.uint64(10)), 4, first_row=10, last_row=109)
    node_rows = segment.node_rows()
    nodes = segment.nodes_of(np.array([10, 11, 12, 13, 108, 109], np.uint64))
    assert node_rows[nodes].tolist() == [10, 12, 108]


def test_distances_to_every_row() -> None:
    _, _, vectors = made()
    distances, rows = opened().distances(vectors[2])
    assert sorted(rows.tolist()) == list(range(FIRST, FIRST + N))
    wide = ((vectors.astype(np.float64) - vectors[2]) ** 2).sum(axis=1)
    np.testing.assert_allclose(distances, wide[(rows - np.uint64(FIRST)).astype(np.int64)], rtol=1e-5, atol=1e-9)


def test_vectors_are_those_that_were_built_in() -> None:
    segment, (_, _, vectors) = opened(), made()
    np.testing.assert_array_equal(segment.vectors(), vectors[(segment.node_rows() - np.uint64(FIRST)).astype(np.int64)])


def test_scan_of_some_rows() -> None:
    vectors = whole_numbers(4, 400, 6, largest=2)
    rows = rows_from(FIRST, 400)
    segment = segment_of(graphs.build(vectors, rows), 6, first_row=FIRST, last_row=FIRST + 399)
    rng = np.random.default_rng(2)
    for query in whole_numbers(5, 10, 6, largest=2):
        keep = rng.random(400) < 0.3
        for among in (None, np.unique(segment.nodes_of(rows[keep]))):
            found = Found(1, 20)
            segment.scan(query[None], bitmap(rows[keep], 1400), found, among)
            expected, expected_rows = oracle(vectors[keep], rows[keep], query, 20)
            ((distances, got),) = answers(found)
            assert (distances.tolist(), got.tolist()) == (expected.tolist(), expected_rows.tolist())


def test_unreachable() -> None:
    built, image, _ = made()
    cut = bytearray(image)
    for node in np.random.default_rng(4).permutation(built.n_nodes)[:2300].tolist():
        struct.pack_into("<H", cut, 96 + node * NODE, 0)
    entry = read_header(memoryview(image), built.n_nodes, DIM).entry
    met, todo = {entry}, [entry]
    while todo:
        for link in graphs.links_of(bytes(cut), todo.pop(), DIM, 8):
            if link not in met:
                met.add(link)
                todo.append(link)
    segment = Segment(
        memoryview(cut), checksums=block_checksums(memoryview(cut)), n_nodes=built.n_nodes, dim=DIM, is_ip=False,
        first_row=FIRST, last_row=FIRST + N - 1, copy_nodes=built.copy_nodes, copy_starts=built.copy_starts,
        copy_rows=built.copy_rows, orphans=np.empty(0, np.uint32),
    )  # fmt: skip
    assert 0 < len(met) < built.n_nodes
    assert segment.unreachable().tolist() == sorted(set(range(built.n_nodes)) - met)


def test_too_few_leave_found_as_it_was() -> None:
    segment, (_, _, vectors) = opened(), made()
    few = bitmap(rows_from(FIRST, 3), FIRST + N)
    found = Found(1, 10)
    assert not segment.search(vectors[:1], 40, few, found, 5)
    assert found.counts.tolist() == [0]
    assert segment.search(vectors[:1], 40, few, found, 3)
    before = [rows.tolist() for _, rows in answers(found)]
    assert before == [oracle(vectors[:3], rows_from(FIRST, 3), vectors[0], 10)[1].tolist()]
    assert not segment.search(vectors[:1], 40, few, found, 9)
    assert [rows.tolist() for _, rows in answers(found)] == before


def test_what_is_nowhere_linked_is_found_once(stores: Callable[..., Store]) -> None:
    """Sparse vectors, far from one another: most nodes are orphans, and some of those stand on the upper levels."""
    rng = np.random.default_rng(3)
    vectors = np.zeros((1500, 300), np.float32)
    vectors[np.arange(1500), rng.integers(0, 300, 1500)] = rng.integers(1, 50, 1500)
    vectors[np.arange(0, 1500, 3), rng.integers(0, 300, 500)] += 1
    store = stores(metric="l2")
    store.add(None, vectors)
    store.optimize()
    for hits in store.search_many(vectors[:500], 10):
        assert len(set(hits.keys)) == 10
    for hits in store.search_many(vectors[:500], 10, ef=2000):  # wide enough to meet all that can be met
        assert len(set(hits.keys)) == 10
        assert hits.distances[0] == 0


# -- threads ------------------------------------------------------------------------------------------------------------


def test_many_threads_verify_one_segment() -> None:
    _, _, vectors = made()
    right = searched(opened(), vectors[:64])
    for _ in range(5):
        segment, wrong = opened(), []

        def work(segment: Segment = segment, wrong: list[int] = wrong) -> None:
            for at in np.random.default_rng(threading.get_ident() % 1000).permutation(8).tolist():
                if searched(segment, vectors[at * 8 : at * 8 + 8]) != right[at * 8 : at * 8 + 8]:
                    wrong.append(at)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


RACE = """
import threading
import numpy as np
import graphs
vectors = graphs.normal(0, 3000, 8)
built = graphs.build(vectors)
image = graphs.image_of(built)
for _ in range(100):
    segment = graphs.segment_of(built, 8, last_row=2999, image=image)
    begun, done = threading.Event(), threading.Event()

    def work():
        out = np.empty(3000, np.float32)
        while not done.is_set():
            segment._graph.distances_to_all(vectors[0], out)
            begun.set()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    segment.verify()
    done.set()
    thread.join()
"""


def test_verifying_beside_searches_does_not_crash() -> None:
    """In a process of its own: what would go wrong is a segmentation fault."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", RACE], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
