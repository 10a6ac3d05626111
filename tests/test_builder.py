"""Building graphs: equal vectors share a node, extended graphs hold what they should, none of it in an unlucky shape."""

import struct

import graphs
import numpy as np
import pytest
from graphs import Found, answers, image_of, normal, oracle, rows_from, segment_of, whole_numbers

from simstore.index import Build, BuildOptions, Segment, build_graph, builder, extend_graph, prepared
from simstore.metrics import METRICS


def rows_by_vector(built: Build, dim: int, M: int = 8) -> dict[bytes, list[int]]:
    """Each vector in the file with all the rows it stands for."""
    image, size = image_of(built), graphs.node_bytes(dim, M)
    copies: dict[int, list[int]] = {}
    for i, node in enumerate(built.copy_nodes.tolist()):
        copies[node] = built.copy_rows[int(built.copy_starts[i]) : int(built.copy_starts[i + 1])].tolist()
    held = {}
    for node in range(built.n_nodes):
        at = 96 + node * size
        vector = image[at + 4 + 8 * M : at + size - 8]
        assert vector not in held, "two nodes for one vector"
        held[vector] = sorted([*struct.unpack_from("<Q", image, at + size - 8), *copies.pop(node, [])])
    assert copies == {}
    return held


def naive_groups(vectors: graphs.Floats, rows: graphs.Rows) -> dict[bytes, list[int]]:
    groups: dict[bytes, list[int]] = {}
    for vector, row in zip(vectors, rows.tolist(), strict=True):
        groups.setdefault(vector.tobytes(), []).append(row)
    return {vector: sorted(members) for vector, members in groups.items()}


def levels_of(built: Build, dim: int, M: int = 8) -> list[int]:
    image = image_of(built)
    at, levels = 96 + built.n_nodes * graphs.node_bytes(dim, M), []
    for _ in range(built.n_nodes):
        (size,) = struct.unpack_from("<I", image, at)
        levels.append(size // (4 + 4 * M))
        at += 4 + size
    return levels


@pytest.mark.parametrize("is_ip", [False, True])
@pytest.mark.parametrize("largest", [0, 1, 2, 50])
def test_equal_vectors_share_a_node(largest: int, is_ip: bool) -> None:
    vectors = whole_numbers(1, 500, 3, largest)
    rows = np.random.default_rng(2).permutation(rows_from(100, 900))[:500]
    built = graphs.build(vectors, rows, is_ip)
    assert built.n_rows == 500
    assert rows_by_vector(built, 3) == naive_groups(vectors, rows)
    assert (np.diff(built.copy_nodes.astype(np.int64)) > 0).all()


def test_equal_hashes_of_unequal_vectors_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "xxh3_64_intdigest", lambda content: bytes(content)[0] % 3)
    vectors = whole_numbers(3, 300, 2, 2)
    built = graphs.build(vectors)
    held: dict[bytes, list[int]] = {}
    image, size = image_of(built), graphs.node_bytes(2, 8)
    copies = np.repeat(built.copy_nodes, np.diff(built.copy_starts).astype(np.int64)).tolist()
    for node in range(built.n_nodes):
        at = 96 + node * size
        members = held.setdefault(image[at + 68 : at + size - 8], [])
        members += [*struct.unpack_from("<Q", image, at + size - 8)]
        members += [row for owner, row in zip(copies, built.copy_rows.tolist(), strict=True) if owner == node]
    assert {vector: sorted(members) for vector, members in held.items()} == naive_groups(vectors, rows_from(0, 300))


def test_one_thread_builds_the_same_graph_every_time() -> None:
    vectors = normal(1, 400, 8)
    first = image_of(graphs.build(vectors, seed=5))
    assert image_of(graphs.build(vectors, seed=5)) == first
    assert image_of(graphs.build(vectors, seed=6)) != first


def test_header_says_what_was_asked() -> None:
    image = image_of(graphs.build(normal(1, 100, 5), M=7, ef_construction=33))
    values = struct.unpack_from("<QQQQQQiIQQQdQ", image)
    assert values[:6] == (0, 100, 100, 4 + 56 + 20 + 8, 4 + 56 + 20, 4 + 56)
    assert values[8:11] == (7, 14, 7) and values[11] == pytest.approx(1 / np.log(7)) and values[12] == 33


def stops_at(at: int) -> BuildOptions:
    asked: list[int] = []

    def proceed(done: int, total: int) -> bool:
        asked.append(done)
        return len(asked) <= at

    return BuildOptions(8, 20, 1, 1, proceed)


def test_stops_when_told() -> None:
    vectors, rows = normal(1, 5000, 2), rows_from(0, 5000)
    for at in (0, 1, 2):
        assert build_graph(vectors, rows, False, stops_at(at)) is None
    assert build_graph(vectors, rows, False, stops_at(3)) is not None
    base = segment_of(graphs.build(vectors[:10]), 2, last_row=9)
    assert extend_graph(base, vectors[10:], rows[10:], False, stops_at(1)) is None


# -- extending ----------------------------------------------------------------------------------------------------------


def extended(base: Build, n_base: int, vectors: graphs.Floats, rows: graphs.Rows, dim: int, is_ip: bool = False) -> Build:
    segment: Segment = segment_of(base, dim, is_ip=is_ip, last_row=n_base - 1)
    segment.verify()
    built = extend_graph(segment, vectors, rows, is_ip, graphs.options(seed=77))
    assert built is not None
    return built


@pytest.mark.parametrize("is_ip", [False, True])
@pytest.mark.parametrize("largest", [1, 2, 50])
def test_extended_graph_holds_both(largest: int, is_ip: bool) -> None:
    vectors = whole_numbers(4, 600, 3, largest)
    base = graphs.build(vectors[:350], is_ip=is_ip)
    rows = np.random.default_rng(1).permutation(rows_from(350, 250))
    built = extended(base, 350, vectors[350:], rows, 3, is_ip)
    all_rows = np.concatenate([rows_from(0, 350), rows])
    assert built.n_rows == 600
    assert rows_by_vector(built, 3) == naive_groups(vectors, all_rows)


def test_extended_graph_finds_as_well_as_a_fresh_one() -> None:
    vectors, queries = normal(5, 3000, 16), normal(6, 100, 16)
    built = extended(graphs.build(vectors[:1000]), 1000, vectors[1000:], rows_from(1000, 2000), 16)
    recalls = []
    for one in (built, graphs.build(vectors)):
        segment, found = segment_of(one, 16, last_row=2999), Found(100, 10)
        segment.search(queries, 60, None, found, 0)
        truth = [set(oracle(vectors, rows_from(0, 3000), query, 10)[1].tolist()) for query in queries]
        recalls.append(sum(len(set(rows.tolist()) & truth[i]) for i, (_, rows) in enumerate(answers(found))) / 1000)
    assert recalls[0] > recalls[1] - 0.02 and recalls[1] > 0.9


def test_levels_of_added_nodes_follow_their_law() -> None:
    """After a plain load hnswlib starts its generator anew, and nodes that come in small lots all land on level 0."""
    n, dim = 400, 4
    vectors = normal(7, n + 40 * 5, dim)
    built = graphs.build(vectors[:n])
    for at in range(n, n + 200, 5):
        segment = segment_of(built, dim, last_row=at - 1)
        segment.verify()
        more = extend_graph(segment, vectors[at : at + 5], rows_from(at, 5), False, graphs.options(seed=at))
        assert more is not None
        assert levels_of(more, dim)[: built.n_nodes] == levels_of(built, dim)
        built = more
    added = sum(level > 0 for level in levels_of(built, dim)[n:])
    assert 10 <= added <= 45  # 200 / 8 = 25 are expected
    assert rows_by_vector(built, dim) == naive_groups(vectors, rows_from(0, len(vectors)))


def test_extending_by_nothing_new() -> None:
    vectors = normal(8, 50, 4)
    base = graphs.build(vectors)
    built = extended(base, 50, vectors[:20], rows_from(50, 20), 4)
    assert built.n_nodes == 50
    assert rows_by_vector(built, 4) == naive_groups(np.concatenate([vectors, vectors[:20]]), rows_from(0, 70))


# -- many copies of one vector ------------------------------------------------------------------------------------------


def found_themselves(n: int, n_copies: int, dim: int, metric: str, in_two_steps: bool) -> float:
    """The share of the other items that a search for their own vector finds."""
    rng = np.random.default_rng(9)
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    copies = rng.permutation(n)[:n_copies]
    vectors[copies] = vectors[copies[0]]
    ready, is_ip = prepared(vectors, METRICS[metric]), METRICS[metric].is_ip
    if in_two_steps:
        half = graphs.build(ready[: n // 2], is_ip=is_ip, M=16, ef_construction=200, threads=2)
        built = extended(half, n // 2, ready[n // 2 :], rows_from(n // 2, n - n // 2), dim, is_ip)
    else:
        built = graphs.build(ready, is_ip=is_ip, M=16, ef_construction=200, threads=2)
    bare = segment_of(built, dim, is_ip=is_ip, last_row=n - 1)
    segment = segment_of(built, dim, is_ip=is_ip, last_row=n - 1, orphans=bare.unreachable())
    others = np.setdiff1d(np.arange(n), copies)
    found = Found(len(others), 1)
    segment.search(ready[others], 128, None, found, 1)
    return float((found.rows[:, 0] == others).mean())


@pytest.mark.parametrize("in_two_steps", [False, True])
def test_copies_hide_nothing(in_two_steps: bool) -> None:
    assert found_themselves(3000, 1500, 16, "l2", in_two_steps) >= 0.999


@pytest.mark.parametrize("metric", ["l2", pytest.param("cosine", marks=pytest.mark.slow)])
@pytest.mark.parametrize("in_two_steps", [False, True])
def test_ten_thousand_copies_among_twenty_thousand_items(in_two_steps: bool, metric: str) -> None:
    assert found_themselves(20_000, 10_000, 32, metric, in_two_steps) >= 0.999
