"""The kernel against plain hnswlib on the same file, and against naive loops."""

import struct
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import graphs
import hnswlib
import numpy as np
import pytest
from graphs import answers, asked, bitmap, graph_of, image_of, normal, oracle, rows_from, whole_numbers

from simstore.index import Build, Found, cpu_levels, prepared
from simstore.index._kernel import (
    CORRUPT,
    FEW,
    NOT_FINITE,
    OK,
    TOO_LARGE,
    ZERO,
    Graph,
    parse_upper,
    prepare,
    row_distances,
    scan_rows,
)
from simstore.metrics import METRICS
from simstore.store import Store

DIMS = (1, 3, 8, 15, 16, 17, 50, 128, 130, 784)
LEVELS = cpu_levels()
N = 500
M = 8


@lru_cache(maxsize=64)
def made(dim: int, metric: str) -> tuple[Build, bytes, graphs.Floats]:
    vectors = normal(dim, N, dim)
    if METRICS[metric].normalises:  # on the circle of dim 1 there are but two unit vectors
        vectors = prepared(vectors, METRICS[metric])
    built = graphs.build(vectors, is_ip=METRICS[metric].is_ip, M=M)
    return built, image_of(built), vectors


def queries_of(dim: int, metric: str, n: int = 20) -> graphs.Floats:
    return prepared(normal(1000 + dim, n, dim), METRICS[metric])


def graph_for(dim: int, metric: str, level: str | None = None, **more: Any) -> Graph:
    built, image, _ = made(dim, metric)
    return graph_of(image, built.n_nodes, dim, is_ip=METRICS[metric].is_ip, made=built, level=level, **more)


# -- plain hnswlib ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("metric", METRICS)
def test_answers_as_plain_hnswlib_does(metric: str, dim: int, tmp_path: Path) -> None:
    built, image, _ = made(dim, metric)
    is_ip = METRICS[metric].is_ip
    index = graphs.plain_index(tmp_path / "graph.hnsw", image, "ip" if is_ip else "l2", dim)
    queries = queries_of(dim, metric)
    k = min(10, built.n_nodes)
    for ef in (k, 40):
        index.set_ef(ef)
        expected_rows, expected = index.knn_query(queries, k, num_threads=1)
        for level in LEVELS:
            graph = graph_of(image, built.n_nodes, dim, is_ip=is_ip, level=level)
            found, flags = asked(graph.search, queries, k, ef, None)
            assert flags == 0
            tolerance = 1e-5 * max(1.0, float(np.abs(expected).max()))
            for i, (distances, rows) in enumerate(found):
                np.testing.assert_allclose(distances, expected[i], rtol=1e-5, atol=tolerance)
                apart = expected[i] < expected[i][-1] - tolerance  # whoever ties with the last may take its place
                assert set(expected_rows[i][apart].tolist()) <= set(rows.tolist()), (level, ef, i)
                differ = rows != expected_rows[i]
                gaps = np.diff(expected[i], prepend=-np.inf, append=np.inf)
                assert (np.minimum(gaps[:-1], gaps[1:])[differ] <= tolerance).all(), (level, ef, i)  # only near ties


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("level", LEVELS)
def test_walks_as_the_paper_has_it(level: str, metric: str) -> None:
    """Bit for bit: with every distance computed to its end beforehand, the walk ends with the same nodes."""
    for dim in (3, 130, 784):
        built, image, _ = made(dim, metric)
        graph = graph_of(image, built.n_nodes, dim, is_ip=METRICS[metric].is_ip, level=level)
        nodes_of = {int(row): node for node, row in enumerate(graph.node_rows()[0])}
        distances = np.empty(built.n_nodes, np.float32)
        for query in queries_of(dim, metric, 8):
            graph.distances_to_all(query, distances)
            for ef in (1, 5, 30):
                expected = graphs.naive_walk(image, built.n_nodes, dim, distances, ef)
                ((got, rows),), _ = asked(graph.search, query[None], ef, ef, None)
                assert got.tolist() == [distance for distance, _ in expected]
                assert [nodes_of[row] for row in rows.tolist()] == [node for _, node in expected]


@pytest.mark.parametrize("metric", METRICS)
def test_published_file_is_one_of_plain_hnswlib(metric: str, stores: Callable[..., Store], tmp_path: Path) -> None:
    vectors, queries = normal(1, 1500, 12), normal(2, 30, 12)
    store = stores(metric=metric)
    store.add([f"k{i}" for i in range(1500)], vectors)
    store.optimize()
    (file,) = (tmp_path / "store.sim" / "segments").iterdir()
    index = hnswlib.Index({"cosine": "cosine", "l2": "l2", "ip": "ip"}[metric], 12)
    index.load_index(str(file))
    index.set_ef(128)
    rows, raw = index.knn_query(queries, 10, num_threads=1)
    expected = np.sqrt(raw) if metric == "l2" else raw
    assert index.get_current_count() == 1500
    for i, hits in enumerate(store.search_many(queries, 10, ef=128)):
        assert hits.rows.tolist() == rows[i].tolist()
        assert hits.keys == [f"k{row}" for row in rows[i]]
        np.testing.assert_allclose(hits.distances, expected[i], rtol=1e-4, atol=1e-5)


# -- distances ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("is_ip", [False, True])
def test_a_distance_has_the_same_bits_on_every_path(is_ip: bool, level: str) -> None:
    for dim in (1, 7, 8, 9, 31, 32, 33, 127, 128, 129, 144, 200, 255, 256, 257, 384, 511, 784):
        n = 150
        vectors, query = normal(dim, n, dim), normal(dim + 1, 1, dim)
        built = graphs.build(vectors, is_ip=is_ip, M=M)
        graph = graph_of(image_of(built), n, dim, is_ip=is_ip, level=level)
        reference = np.empty(n, np.float32)
        row_distances(vectors, query[0], is_ip, reference, level)
        by_node = np.empty(n, np.float32)
        graph.distances_to_all(query[0], by_node)
        assert by_node.tobytes() == reference[graph.node_rows()[0].astype(np.int64)].tobytes()
        for k in (1, 7, n):
            ((walked, walked_rows),), _ = asked(graph.search, query, k, 20, None)
            ((scanned, scanned_rows),), _ = asked(graph.scan, query, k, None, None)
            ((tail, tail_rows),), _ = asked(
                lambda q, found, vectors=vectors: scan_rows(vectors, 0, q, is_ip, None, found, level), query, k
            )
            order = np.lexsort((rows_from(0, n), reference))[:k]
            assert walked.tobytes() == reference[walked_rows.astype(np.int64)].tobytes()
            assert scanned.tobytes() == tail.tobytes() == reference[order].tobytes()
            assert scanned_rows.tolist() == tail_rows.tolist() == order.tolist()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("is_ip", [False, True])
def test_distances_are_right(is_ip: bool, level: str) -> None:
    for dim in range(1, 300):
        vectors, query = whole_numbers(dim, 5, dim), whole_numbers(dim + 1, 1, dim)[0]
        out = np.empty(5, np.float32)
        row_distances(vectors, query, is_ip, out, level)
        wide = vectors.astype(np.float64)
        assert out.tolist() == (1 - wide @ query if is_ip else ((wide - query) ** 2).sum(axis=1)).tolist()


def test_other_paths_do_not_take_another_instruction_set() -> None:
    """Real vectors, whose sums depend on the order of summing: the levels may differ, but only by rounding."""
    vectors, query = normal(1, 200, 130), normal(2, 1, 130)[0]
    outs = []
    for level in LEVELS:
        out = np.empty(200, np.float32)
        row_distances(vectors, query, False, out, level)
        outs.append(out)
    wide = ((vectors.astype(np.float64) - query) ** 2).sum(axis=1)
    for out in outs:
        np.testing.assert_allclose(out, wide, rtol=1e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_early_abandoning_changes_no_result(level: str) -> None:
    """Vectors that differ from the query at their start, at their end, or only just: abandoned late, early, at the bound."""
    dim, n = 400, 600
    vectors = whole_numbers(3, n, dim, largest=1)
    vectors[::3, :200] = 0  # differ at their end only
    vectors[1::3, 200:] = 0  # differ at their start only
    vectors[n // 2 :] = np.roll(vectors[: n // 2], 128, axis=1)  # the same distances, summed in another order
    query = np.zeros((1, dim), np.float32)
    built = graphs.build(vectors, M=16)
    graph = graph_of(image_of(built), built.n_nodes, dim, made=built, level=level)
    lost = np.isin(rows_from(0, n), graph.node_rows()[0][graph.unreachable()[0]])
    assert built.n_nodes == n and lost.sum() < 50  # the walk does not meet them
    expected, expected_rows = oracle(vectors, rows_from(0, n), query[0], n)
    reached, reached_rows = oracle(vectors[~lost], rows_from(0, n)[~lost], query[0], n)
    for k in (1, 2, 50, 64, 65, 200, n):
        for found in (
            asked(lambda q, found: scan_rows(vectors, 0, q, False, None, found, level), query, k)[0],
            asked(graph.scan, query, k, None, None)[0],
        ):
            assert found[0][0].tolist() == expected[:k].tolist()
            assert found[0][1].tolist() == expected_rows[:k].tolist()
        ((distances, rows),), _ = asked(graph.search, query, k, n, None)
        assert (distances.tolist(), rows.tolist()) == (reached[:k].tolist(), reached_rows[:k].tolist())


# -- bitmap, copies, orphans: against brute force -----------------------------------------------------------------------


@lru_cache(maxsize=4)
def whole(is_ip: bool) -> tuple[Build, bytes, graphs.Floats, graphs.Rows]:
    """800 rows with gaps between them, many of equal vectors; distances without rounding."""
    vectors = whole_numbers(5, 800, 6, largest=3)
    vectors[::4] = vectors[1::4]  # pairs
    vectors[400:440] = vectors[3]
    rows = rows_from(0, 800) * np.uint64(3) + np.uint64(100)
    built = graphs.build(vectors, rows, is_ip, M=16)
    assert built.n_nodes < 700 and len(built.copy_rows) + built.n_nodes == 800
    return built, image_of(built), vectors, rows


def whole_graph(is_ip: bool, **more: Any) -> tuple[Graph, graphs.Floats, graphs.Rows]:
    built, image, vectors, rows = whole(is_ip)
    graph = graph_of(image, built.n_nodes, 6, is_ip=is_ip, made=built, first_row=100, last_row=2497, **more)
    return graph, vectors, rows


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("how", ["normal", "whole numbers", "one far dimension"])
def test_coarse_vectors_change_no_answer(how: str, level: str) -> None:
    dim, rng = 100, np.random.default_rng(5)
    vectors = whole_numbers(3, N, dim) if how == "whole numbers" else normal(3, N, dim)
    if how == "one far dimension":
        vectors[:, 7] += 1e4  # where rounding is coarse, too
    vectors[11] = np.nan
    queries = np.ascontiguousarray(vectors[100:140] + (how == "normal") * rng.normal(0, 0.5, (40, dim)).astype(np.float32))
    for dims in (np.arange(100), np.array([7]), np.sort(rng.permutation(dim)[:32])):
        few = {"coarse": np.ascontiguousarray(vectors[:, dims]), "coarse_queries": np.ascontiguousarray(queries[:, dims])}
        plain, coarse = Found(len(queries), 12), Found(len(queries), 12)
        scan_rows(vectors, 0, queries, False, None, plain, level)
        scan_rows(vectors, 0, queries, False, None, coarse, level, **few)
        assert coarse.rows.tolist() == plain.rows.tolist()
        assert coarse.distances.tobytes() == plain.distances.tobytes()


def test_coarse_vectors_have_to_fit() -> None:
    vectors = normal(1, 20, 8)
    query, found = vectors[:1], Found(1, 3)
    bad: list[dict[str, Any]] = [
        {"coarse": vectors[:, :4].copy()},
        {"coarse": vectors[:19, :4].copy(), "coarse_queries": query[:, :4].copy()},
        {"coarse": vectors[:, :4].copy(), "coarse_queries": query[:, :3].copy()},
        {"coarse": vectors[:, :4].copy(), "coarse_queries": vectors[:2, :4].copy()},
    ]
    for few in bad:
        with pytest.raises(ValueError, match="do not fit"):
            scan_rows(vectors, 0, query, False, None, found, **few)
    with pytest.raises(ValueError, match="do not fit"):
        scan_rows(vectors, 0, query, True, None, found, coarse=vectors, coarse_queries=query)
    assert found.counts.tolist() == [0]


@pytest.mark.parametrize("is_ip", [False, True])
def test_copies_answer_for_themselves(is_ip: bool) -> None:
    graph, vectors, rows = whole_graph(is_ip)
    lost, _ = graph.unreachable()
    graph, _, _ = whole_graph(is_ip, orphans=lost)
    for query in whole_numbers(6, 10, 6, largest=3):
        for k in (1, 3, 50, 800, 1000):
            expected, expected_rows = oracle(vectors, rows, query, k, is_ip)
            for found, flags in (
                asked(graph.search, query[None], k, 800, None),
                asked(graph.scan, query[None], k, None, None),
            ):
                assert flags == 0
                assert found[0][0].tolist() == expected.tolist()
                assert found[0][1].tolist() == expected_rows.tolist()


@pytest.mark.parametrize("is_ip", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.01, 0.0])
def test_bitmap(share: float, is_ip: bool) -> None:
    graph, vectors, rows = whole_graph(is_ip)
    graph, _, _ = whole_graph(is_ip, orphans=graph.unreachable()[0])
    rng = np.random.default_rng(int(share * 100))
    for round_, query in enumerate(whole_numbers(7, 10, 6, largest=3)):
        keep = rng.random(800) < share
        allowed = bitmap(rows[keep], 2500)
        if round_ % 2:
            allowed = allowed[: max(1, len(allowed) // 2)]  # rows beyond the bitmap are not allowed
            keep &= rows < len(allowed) * 64
        for k in (1, 10, 900):
            expected, expected_rows = oracle(vectors[keep], rows[keep], query, k, is_ip)
            for run, first in ((graph.search, 800), (graph.scan, None)):
                ((distances, found),), flags = asked(run, query[None], k, first, allowed)
                assert flags == 0
                assert (distances.tolist(), found.tolist()) == (expected.tolist(), expected_rows.tolist())


@pytest.mark.parametrize("is_ip", [False, True])
def test_bitmap_of_a_scan_of_rows(is_ip: bool) -> None:
    vectors = whole_numbers(11, 300, 6)
    keep = np.random.default_rng(1).random(300) < 0.3
    rows = rows_from(1000, 300)
    for allowed in (bitmap(rows[keep], 1300), bitmap(rows[keep], 1300)[: 1152 // 64]):  # rows from 1152 on are beyond it
        keep &= rows < len(allowed) * 64
        for query in whole_numbers(12, 5, 6):
            for k in (1, 10, 400):
                ((distances, found),), _ = asked(
                    lambda q, found, allowed=allowed: scan_rows(vectors, 1000, q, is_ip, allowed, found), query[None], k
                )
                expected, expected_rows = oracle(vectors[keep], rows[keep], query, k, is_ip)
                assert (distances.tolist(), found.tolist()) == (expected.tolist(), expected_rows.tolist())


def test_bitmap_recall_at_a_moderate_ef() -> None:
    _, image, vectors = made(16, "l2")
    graph = graph_of(image, N, 16)
    keep = np.random.default_rng(1).random(N) < 0.3
    allowed, right = bitmap(np.flatnonzero(keep).astype(np.uint64), N), 0
    queries = queries_of(16, "l2", 50)
    found, _ = asked(graph.search, queries, 10, 64, allowed)
    for query, (_, rows) in zip(queries, found, strict=True):
        assert keep[rows.astype(np.int64)].all()
        right += len(np.intersect1d(rows, oracle(vectors[keep], np.flatnonzero(keep), query, 10)[1]))
    assert right >= 0.97 * 500


def test_scan_of_listed_nodes() -> None:
    graph, vectors, rows = whole_graph(False)
    node_rows = graph.node_rows()[0]
    built = whole(False)[0]
    listed = np.array([5, 17, 300, 301], np.uint32)
    owners = np.repeat(built.copy_nodes, np.diff(built.copy_starts).astype(np.int64))
    expected_rows = np.concatenate([node_rows[listed], built.copy_rows[np.isin(owners, listed)]])
    keep = np.isin(rows, expected_rows)
    query = vectors[:1]
    ((distances, got),), _ = asked(graph.scan, query, 100, listed, None)
    expected, expected_rows = oracle(vectors[keep], rows[keep], query[0], 100)
    assert (distances.tolist(), got.tolist()) == (expected.tolist(), expected_rows.tolist())
    ((distances, _),), _ = asked(graph.scan, query, 100, np.empty(0, np.uint32), None)
    assert len(distances) == 0
    with pytest.raises(ValueError, match="not in the graph"):
        asked(graph.scan, query, 5, np.array([built.n_nodes], np.uint32), None)


def test_orphans_are_found() -> None:
    _, image, vectors = made(8, "l2")
    cut = bytearray(image)
    size = graphs.node_bytes(8, M)
    for node in range(N):  # no node links to any other
        struct.pack_into("<H", cut, 96 + node * size, 0)
    query = queries_of(8, "l2", 5)
    bare = graph_of(bytes(cut), N, 8)
    lost, flags = bare.unreachable()
    assert flags == 0 and len(lost) == N - 1
    assert max(len(rows) for _, rows in asked(bare.search, query, 20, 100, None)[0]) <= 1
    graph = graph_of(bytes(cut), N, 8, orphans=lost)
    keep = np.arange(N) % 3 != 0
    for allowed, which in ((None, np.ones(N, bool)), (bitmap(np.flatnonzero(keep).astype(np.uint64), N), keep)):
        found, flags = asked(graph.search, query, 20, 10, allowed)
        assert flags == 0
        for q, (distances, rows) in zip(query, found, strict=True):
            expected, expected_rows = oracle(vectors[which], np.flatnonzero(which).astype(np.uint64), q, 20)
            # the entry is the start of the walk on level 0, or another node of an upper level is; either is found once
            assert len(set(rows.tolist())) == len(rows)
            missing = set(expected_rows.tolist()) - set(rows.tolist())
            assert missing <= {int(graph.node_rows()[0][read_entry(image)])}
            if not missing:
                np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-6)
                assert rows.tolist() == expected_rows.tolist()


def read_entry(image: bytes) -> int:
    entry: int = struct.unpack_from("<I", image, 52)[0]
    return entry


def test_unreachable_is_what_a_naive_walk_misses() -> None:
    _, image, _ = made(16, "l2")
    cut = bytearray(image)
    size = graphs.node_bytes(16, M)
    rng = np.random.default_rng(4)
    for node in rng.permutation(N)[:400].tolist():
        struct.pack_into("<H", cut, 96 + node * size, 0)
    met, todo = {read_entry(image)}, [read_entry(image)]
    while todo:
        for link in graphs.links_of(bytes(cut), todo.pop(), 16, M):
            if link not in met:
                met.add(link)
                todo.append(link)
    lost, flags = graph_of(bytes(cut), N, 16).unreachable()
    assert flags == 0 and 0 < len(met) < N
    assert lost.tolist() == sorted(set(range(N)) - met)


# -- k, ef, what is held already ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_k_beyond_n(n: int) -> None:
    vectors = normal(n, n, 5)
    graph = graph_of(image_of(graphs.build(vectors, M=2)), n, 5)
    for found in (asked(graph.search, vectors, 50, 1, None)[0], asked(graph.scan, vectors, 50, None, None)[0]):
        for i, (distances, rows) in enumerate(found):
            assert rows.tolist() == oracle(vectors, rows_from(0, n), vectors[i], 50)[1].tolist()
            assert distances[0] == 0.0 and rows[0] == i


def test_ef_below_k_is_k() -> None:
    graph, queries = graph_for(16, "l2"), queries_of(16, "l2")
    expected, _ = asked(graph.search, queries, 12, 12, None)
    for ef in (-5, 0, 1, 11):
        found, _ = asked(graph.search, queries, 12, ef, None)
        assert [rows.tolist() for _, rows in found] == [rows.tolist() for _, rows in expected]


def test_more_ef_finds_no_less() -> None:
    _, _, vectors = made(50, "l2")
    graph, queries = graph_for(50, "l2"), queries_of(50, "l2", 50)
    truth = [set(oracle(vectors, rows_from(0, N), query, 10)[1].tolist()) for query in queries]
    recalls = []
    for ef in (10, 30, 100, N):
        found, _ = asked(graph.search, queries, 10, ef, None)
        recalls.append(sum(len(truth[i] & set(rows.tolist())) for i, (_, rows) in enumerate(found)) / 500)
    assert recalls == sorted(recalls) and recalls[0] < 1.0 and recalls[-1] == 1.0


def test_adds_to_what_was_found() -> None:
    """Two graphs and a tail, one after the other, hold what one scan over all of it finds."""
    vectors = whole_numbers(9, 900, 7)
    rows = rows_from(0, 900)
    parts = [graphs.build(vectors[at : at + 300], rows[at : at + 300], M=16) for at in (0, 300)]
    k, query = 25, whole_numbers(10, 4, 7)
    found = Found(4, k)
    scan_rows(vectors[600:], 600, query, False, None, found)
    for part in parts:
        graph = graph_of(image_of(part), part.n_nodes, 7, made=part)
        assert graph.search(query, 300, None, found) == 0
    for i, (distances, found_rows) in enumerate(answers(found)):
        expected, expected_rows = oracle(vectors, rows, query[i], k)
        assert (distances.tolist(), found_rows.tolist()) == (expected.tolist(), expected_rows.tolist())


def test_says_when_there_are_too_few() -> None:
    graph, queries = graph_for(16, "l2"), queries_of(16, "l2", 2)
    few = bitmap(rows_from(0, 4), N)
    for expected, flags in ((3, 0), (4, 0), (5, FEW)):
        assert graph.search(queries, 10, few, Found(2, 10), expected) == flags
    assert graph.search(queries, 10, None, Found(2, 10), 10) == 0


def test_found_is_copied_and_put_back() -> None:
    graph, queries = graph_for(16, "l2"), queries_of(16, "l2", 3)
    found = Found(3, 5)
    graph.search(queries, 20, None, found)
    before, same = found.copy(), [(d.copy(), r.copy()) for d, r in answers(found)]
    scan_rows(queries, 10_000, queries, False, None, found)  # the queries themselves: nearer than all else
    assert [rows[0] for _, rows in answers(found)] == [10_000, 10_001, 10_002]
    for (distances, rows), (other, other_rows) in zip(answers(before), same, strict=True):
        assert (distances.tolist(), rows.tolist()) == (other.tolist(), other_rows.tolist())
    found.become(before)
    assert [rows.tolist() for _, rows in answers(found)] == [rows.tolist() for _, rows in same]
    found.become(None)
    assert found.counts.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="at least 1"):
        Found(1, 0)
    with pytest.raises(ValueError, match="number of queries"):
        graph.search(queries, 20, None, Found(2, 5))
    with pytest.raises(ValueError, match="number of queries"):
        graph.scan(queries, None, None, Found(4, 5))


def test_many_threads_on_one_graph() -> None:
    graph = graph_for(50, "l2")
    queries = queries_of(50, "l2", 64)
    allowed = bitmap(rows_from(0, 250) * np.uint64(2), N)
    cases = [(10, 20, None), (3, 60, None), (10, 20, allowed), (100, 100, None), (1, 1, allowed)]
    expected = [asked(graph.search, queries, k, ef, bits)[0] for k, ef, bits in cases]
    wrong: list[Any] = []

    def work(which: int) -> None:
        k, ef, bits = cases[which % len(cases)]
        for _ in range(15):
            found, flags = asked(graph.search, queries, k, ef, bits)
            for (got, got_rows), (right, right_rows) in zip(found, expected[which % len(cases)], strict=True):
                if flags or got.tobytes() != right.tobytes() or got_rows.tobytes() != right_rows.tobytes():
                    wrong.append(which)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- out of bounds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [(0, "<H", 2 * M + 1), (0, "<H", 65_535), (4, "<I", N), (4, "<I", 1 << 31), (4, "<I", (1 << 32) - 1)],
)
def test_links_out_of_bounds_are_reported(at: int, form: str, value: int) -> None:
    _, image, _ = made(8, "l2")
    bad, size = bytearray(image), graphs.node_bytes(8, M)
    for node in range(N):
        struct.pack_into(form, bad, 96 + node * size + at, value)
    graph = graph_of(bytes(bad), N, 8)
    for allowed in (None, bitmap(rows_from(0, N), N)):
        found, flags = asked(graph.search, queries_of(8, "l2"), 10, 50, allowed)
        assert flags & CORRUPT
        assert all((rows < N).all() for _, rows in found)
    assert graph.unreachable()[1] & CORRUPT


def test_rows_out_of_bounds_are_reported() -> None:
    graph = graph_for(8, "l2", last_row=N - 2)
    found, flags = asked(graph.scan, queries_of(8, "l2"), N, None, None)
    assert flags & CORRUPT and all((rows < N - 1).all() for _, rows in found)
    assert graph.node_rows()[1] & CORRUPT
    assert graph_for(8, "l2", last_row=N - 1).node_rows()[1] == 0
    assert graph_for(8, "l2", first_row=1).node_rows()[1] & CORRUPT


def test_graphs_that_cannot_be() -> None:
    _, image, _ = made(8, "l2")
    bare: dict[str, Any] = {
        "n": N, "dim": 8, "M": M, "M0": 2 * M, "entry": 0, "max_level": 0, "upper_ids": np.empty(0, np.uint32),
        "upper_at": np.empty(0, np.uint64), "upper_levels": np.empty(0, np.uint8), "is_ip": False, "first_row": 0,
        "last_row": N,
    }  # fmt: skip
    one, two = np.array([0], np.uint32), np.array([0, 1], np.uint64)
    assert Graph(image, **bare).node_rows()[1] == 0
    for change in (
        {"n": 0}, {"n": 2 * N}, {"entry": N}, {"dim": 500}, {"M0": 5000}, {"blocks": np.zeros(0, np.uint8)},
        {"orphans": np.array([N], np.uint32)},
        {"copy_nodes": np.array([N], np.uint32), "copy_starts": two, "copy_rows": np.zeros(1, np.uint64)},
        {"copy_nodes": one, "copy_starts": two, "copy_rows": np.empty(0, np.uint64)},
        {"copy_nodes": one, "copy_starts": two[:1], "copy_rows": np.zeros(1, np.uint64)},
        {"copy_nodes": one, "copy_starts": two[::-1].copy(), "copy_rows": np.zeros(1, np.uint64)},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"graph|orphan|copies|block"):
            Graph(image, **(bare | change))


def test_widths_that_do_not_fit() -> None:
    graph, wide = graph_for(8, "l2"), np.zeros((1, 9), np.float32)
    for run in (graph.search, graph.scan):
        with pytest.raises(ValueError, match="width"):
            asked(run, wide, 3, *((5, None) if run == graph.search else (None, None)))
    with pytest.raises(ValueError, match="width"):
        graph.distances_to_all(wide[0], np.empty(N, np.float32))
    with pytest.raises(ValueError, match="width"):
        graph.distances_to_all(wide[0, :8], np.empty(N - 1, np.float32))
    with pytest.raises(ValueError, match="width"):
        row_distances(np.zeros((2, 8), np.float32), wide[0], False, np.empty(2, np.float32))
    with pytest.raises(ValueError, match="width"):
        scan_rows(np.zeros((2, 8), np.float32), 0, wide, False, None, Found(1, 3))


def test_parse_upper_reads_what_the_file_holds() -> None:
    _, image, _ = made(16, "l2")
    start = 96 + N * graphs.node_bytes(16, M)
    (max_level,) = struct.unpack_from("<i", image, 48)
    parsed = parse_upper(image, start, N, M, max_level)
    assert parsed is not None
    ids, offsets, levels, end = parsed
    expected, at = [], start
    for node in range(N):
        (size,) = struct.unpack_from("<I", image, at)
        if size:
            expected.append((node, at + 4, size // (4 + 4 * M)))
        at += 4 + size
    assert list(zip(ids.tolist(), offsets.tolist(), levels.tolist(), strict=True)) == expected and expected
    assert end == at == len(image)
    assert parse_upper(image, start, N + 1, M, max_level) is None
    assert parse_upper(image, start, N, M, max_level - 1) is None
    assert parse_upper(image, len(image) + 5, N, M, max_level) is None
    assert parse_upper(image[:-1], start, N, M, max_level) is None


# -- vectors as they are compared ---------------------------------------------------------------------------------------

TINY = np.float32(1e-45)  # the smallest denormal


def run_prepare(vectors: Any, normalise: bool) -> tuple[tuple[int, int], graphs.Floats]:
    given = np.ascontiguousarray(vectors, np.float32)
    out = np.full_like(given, 55.0)
    return prepare(given, normalise, out), out


@pytest.mark.parametrize("dim", DIMS)
def test_prepare_normalises(dim: int) -> None:
    vectors = normal(dim, 50, dim) * np.logspace(-17, 16, 50, dtype=np.float32)[:, None]
    why, out = run_prepare(vectors, True)
    wide = vectors.astype(np.float64)
    assert why == (OK, 50)
    np.testing.assert_allclose(out, wide / np.linalg.norm(wide, axis=1, keepdims=True), rtol=2e-7, atol=1e-45)
    np.testing.assert_allclose(np.linalg.norm(out.astype(np.float64), axis=1), 1.0, rtol=1e-6)


def test_prepare_of_others_changes_nothing_but_negative_zeros() -> None:
    vectors = normal(1, 5, 4)
    vectors[2] = [-0.0, 0.0, 1.0, -TINY]
    vectors[3] = 0.0
    why, out = run_prepare(vectors, False)
    assert why == (OK, 5)
    np.testing.assert_array_equal(out, vectors)
    assert not np.signbit(out[2, :2]).any() and out[2, 3] == -TINY


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("at", [0, 3])
def test_prepare_finds_what_is_not_finite(at: int, normalise: bool, bad: float) -> None:
    vectors = np.ones((5, 20), np.float32)
    vectors[at, 13] = bad
    vectors[4, 0] = bad
    assert run_prepare(vectors, normalise)[0] == (NOT_FINITE, at)


@pytest.mark.parametrize("normalise", [False, True])
def test_prepare_finds_what_is_too_large(normalise: bool) -> None:
    vectors = np.ones((4, 4), np.float32)
    vectors[0] = [9.9e17, 0, 0, 0]
    vectors[2] = 5.1e17  # 1.02e18 long
    assert run_prepare(vectors, normalise)[0] == (TOO_LARGE, 2)
    vectors[2] = np.finfo(np.float32).max
    assert run_prepare(vectors, normalise)[0] == (TOO_LARGE, 2)
    vectors[2] = 4.9e17
    (why, n), out = run_prepare(vectors, normalise)
    assert (why, n) == (OK, 4)
    distances = np.empty(4, np.float32)
    row_distances(out, -out[0], False, distances)
    assert np.isfinite(distances).all()


def test_prepare_of_zero_vectors() -> None:
    vectors = np.ones((4, 3), np.float32)
    vectors[3] = [0.0, -0.0, 0.0]
    assert run_prepare(vectors, True)[0] == (ZERO, 3)
    assert run_prepare(vectors, False)[0] == (OK, 4)


def test_prepare_of_denormals() -> None:
    why, out = run_prepare([[TINY, 0, 0], [0, -TINY, 0], [TINY, TINY, 0], [1e-40, -2e-40, 2e-40]], True)
    assert why == (OK, 4)
    np.testing.assert_allclose(out, [[1, 0, 0], [0, -1, 0], [0.5**0.5, 0.5**0.5, 0], [1 / 3, -2 / 3, 2 / 3]], rtol=1e-4)
    assert not np.signbit(out[out == 0]).any()
    (why, _), out = run_prepare([[1e17, -1e-33, -0.0]], True)  # what is divided away leaves no negative zero
    assert why == OK and out.tolist() == [[1, 0, 0]] and not np.signbit(out).any()


def test_prepare_of_nothing_and_of_other_shapes() -> None:
    assert run_prepare(np.empty((0, 3)), True)[0] == (OK, 0)
    with pytest.raises(ValueError, match="shape"):
        prepare(np.ones((2, 3), np.float32), True, np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match="shape"):
        prepare(np.ones((2, 3), np.float32), True, np.ones((1, 3), np.float32))
