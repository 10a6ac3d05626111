"""Damaged graph files without the protection of checksums: no byte may lead the kernel out of bounds, or in circles.

Each case runs with a seed of its own; ``SIMSTORE_FUZZ_CASES`` says how many (tools/asan runs more of them).
"""

import os
import struct
from collections.abc import Callable
from functools import lru_cache

import graphs
import numpy as np
import pytest
from graphs import Found, image_of

from simstore.errors import CorruptStoreError
from simstore.index import Build, Segment, block_checksums, cpu_levels
from simstore.index._kernel import CORRUPT, Graph

CASES = int(os.environ.get("SIMSTORE_FUZZ_CASES", "80"))  # of each kind of damage
BATCH = 20
FIRST, M = 7, 8


@lru_cache(maxsize=8)
def made(which: int) -> tuple[Build, bytes, graphs.Floats, bool]:
    n, dim, is_ip = ((900, 8, False), (300, 130, False), (500, 17, True), (2, 3, False))[which]
    vectors = graphs.normal(which, n, dim)
    vectors[n // 2 : n // 2 + n // 20] = vectors[0]
    built = graphs.build(vectors, graphs.rows_from(FIRST, n), is_ip, M=M)
    return built, image_of(built), vectors, is_ip


Damage = Callable[[np.random.Generator, bytearray, Build, int], None]


def anywhere(rng: np.random.Generator, image: bytearray) -> int:
    return int(rng.integers(len(image)))


def one_bit(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    image[anywhere(rng, image)] ^= 1 << int(rng.integers(8))


def header_bit(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    image[int(rng.integers(96))] ^= 1 << int(rng.integers(8))


def header_field(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    form, places = ("<Q", (0, 8, 16, 24, 32, 40, 56, 64, 72, 80, 88)) if rng.random() < 0.6 else ("<I", (48, 52))
    at = int(rng.choice(places))
    largest = 0xFFFFFFFF if form == "<I" else 0xFFFFFFFFFFFFFFFF
    old = struct.unpack_from(form, image, at)[0]
    values = [0, 1, 2, 65, largest, largest // 2, largest // 2 + 1, max(old - 1, 0), old + 1, 2 * old, built.n_nodes - 1]
    struct.pack_into(form, image, at, values[int(rng.integers(len(values)))] % (largest + 1))


def some_bytes(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    for _ in range(int(rng.integers(1, 60))):
        image[anywhere(rng, image)] = int(rng.integers(256))


def node_at(rng: np.random.Generator, built: Build, dim: int) -> int:
    return 96 + int(rng.integers(built.n_nodes)) * graphs.node_bytes(dim, M)


def link_ids(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    n = built.n_nodes
    values = [n, n + 1, n - 1, 0, 1 << 31, (1 << 32) - 1, (1 << 31) - 1, int(rng.integers(1 << 32)), int(rng.integers(n))]
    for _ in range(int(rng.integers(1, 400))):
        at = node_at(rng, built, dim) + 4 + 4 * int(rng.integers(2 * M))
        struct.pack_into("<I", image, at, values[int(rng.integers(len(values)))])


def link_counts(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    for _ in range(int(rng.integers(1, 400))):
        count = int(rng.choice([0, 1, 2 * M, 2 * M + 1, 255, 65_535, int(rng.integers(65_536))]))
        struct.pack_into("<H", image, node_at(rng, built, dim), count)


def upper_levels(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    start = 96 + built.n_nodes * graphs.node_bytes(dim, M)
    for _ in range(int(rng.integers(1, 30))):
        at = int(rng.integers(start, len(image) - 3)) // 4 * 4
        values = [0, 1, 4 + 4 * M, 8 + 8 * M, 65_535, 65_536, (1 << 32) - 1, int(rng.integers(1 << 32)), built.n_nodes]
        struct.pack_into("<I", image, min(at, len(image) - 4), values[int(rng.integers(len(values)))])


def upper_links(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    """The lists of the upper levels only: their sizes stay, so that the file is accepted."""
    at = 96 + built.n_nodes * graphs.node_bytes(dim, M)
    for _ in range(built.n_nodes):
        (size,) = struct.unpack_from("<I", image, at)
        for one in range(at + 4, at + 4 + size, 4):
            if rng.random() < 0.5:
                image[one : one + 4] = rng.bytes(4) if rng.random() < 0.7 else b"\xff" * 4
        at += 4 + size


def numbers(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    """NaN, infinities and the largest floats in the vectors."""
    values = [float("nan"), float("inf"), float("-inf"), 3.4e38, -3.4e38, 1e-45]
    for _ in range(int(rng.integers(1, 300))):
        at = node_at(rng, built, dim) + 4 + 8 * M + 4 * int(rng.integers(dim))
        struct.pack_into("<f", image, at, values[int(rng.integers(len(values)))])


def row_numbers(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    last = FIRST + built.n_rows - 1
    for _ in range(int(rng.integers(1, 100))):
        value = [0, FIRST - 1, last + 1, (1 << 64) - 1, 1 << 63, FIRST, last][int(rng.integers(7))]
        struct.pack_into("<Q", image, node_at(rng, built, dim) + 4 + 8 * M + 4 * dim, value)


def page(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    at = anywhere(rng, image) // 4096 * 4096
    stop = min(at + 4096, len(image))
    image[at:stop] = bytes(stop - at) if rng.random() < 0.5 else rng.bytes(stop - at)


def cut(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    if rng.random() < 0.7:
        del image[anywhere(rng, image) :]
    else:
        image += rng.bytes(int(rng.integers(1, 5000)))


def shifted(rng: np.random.Generator, image: bytearray, built: Build, dim: int) -> None:
    at, size = anywhere(rng, image), int(rng.integers(1, 200))
    piece = bytes(image[at : at + size])
    del image[at : at + size]
    place = anywhere(rng, image)
    image[place:place] = piece


DAMAGES: tuple[Damage, ...] = (
    one_bit, header_bit, header_field, some_bytes, link_ids, link_counts, upper_levels, upper_links, numbers, row_numbers,
    page, cut, shifted,
)  # fmt: skip


def use(graph: Graph, queries: graphs.Floats, built: Build) -> int:
    """Everything the kernel does with a graph; the flags of all of it."""
    last = FIRST + built.n_rows - 1
    half = graphs.bitmap(graphs.rows_from(FIRST, built.n_rows)[::2], last + 1)
    flags = 0
    for k, ef, allowed in ((10, 50, None), (1, 1, None), (30, 10, half), (built.n_rows + 5, 10, half[:1]), (5, 3000, None)):
        for run, first in ((graph.search, ef), (graph.scan, None)):
            found = Found(len(queries), k)
            flags |= run(queries, first, allowed, found)
            for distances, rows in graphs.answers(found):
                assert ((rows >= FIRST) & (rows <= last)).all()
                assert (distances[1:] >= distances[:-1]).all()
                assert not np.isnan(distances).any()
                if allowed is not None:
                    assert ((rows % 2 == FIRST % 2) & (rows < len(allowed) * 64)).all()
    graph.distances_to_all(queries[0], np.empty(built.n_nodes, np.float32))
    nodes, more = graph.unreachable()
    assert (nodes < built.n_nodes).all()
    return flags | more | graph.node_rows()[1]


@pytest.mark.parametrize("batch", range(-(-CASES // BATCH)))
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_graphs(damage: Damage, batch: int) -> None:
    refused = 0
    for case in range(batch * BATCH, (batch + 1) * BATCH):
        rng = np.random.default_rng([DAMAGES.index(damage), case])
        built, image, vectors, is_ip = made(case % 3 if case % 20 else 3)
        dim = vectors.shape[1]
        bad = bytearray(image)
        damage(rng, bad, built, dim)
        level = cpu_levels()[case % len(cpu_levels())]
        orphans = np.array([0, built.n_nodes - 1], np.uint32)
        heap = np.frombuffer(bytes(bad), np.uint8).copy()  # a block of memory of just that size, for the sanitizer
        try:
            graph = graphs.graph_of(
                heap.data, built.n_nodes, dim, is_ip=is_ip, made=built, first_row=FIRST,
                last_row=FIRST + built.n_rows - 1, level=level, orphans=orphans,
            )  # fmt: skip
        except (CorruptStoreError, ValueError):
            refused += 1
            continue
        flags = use(graph, vectors[:3], built)
        if damage is row_numbers:
            assert flags in (0, CORRUPT)
    if damage is cut:
        assert refused == BATCH
    elif damage not in (upper_levels, shifted, header_field):  # which seldom leave a file that is accepted
        assert refused < BATCH


@pytest.mark.parametrize("batch", range(-(-CASES // BATCH)))
def test_damaged_segments(batch: int) -> None:
    """The same through Segment, with checksums that match the damage: what it refuses, it refuses with one error."""
    for case in range(batch * BATCH, (batch + 1) * BATCH):
        rng = np.random.default_rng([99, case])
        damage = DAMAGES[case % len(DAMAGES)]
        built, image, vectors, is_ip = made(case % 3)
        dim, bad = vectors.shape[1], bytearray(image)
        damage(rng, bad, built, dim)
        heap = np.frombuffer(bytes(bad), np.uint8).copy()
        last = FIRST + built.n_rows - 1
        try:
            segment = Segment(
                heap.data, checksums=block_checksums(heap.data), n_nodes=built.n_nodes, dim=dim, is_ip=is_ip,
                first_row=FIRST, last_row=last, copy_nodes=built.copy_nodes, copy_starts=built.copy_starts,
                copy_rows=built.copy_rows, orphans=np.empty(0, np.uint32),
            )  # fmt: skip
        except CorruptStoreError:
            continue
        found = Found(3, 10)
        for call in (
            lambda: segment.search(vectors[:3], 50, None, found, 10),  # noqa: B023
            lambda: segment.scan(vectors[:3], None, found),  # noqa: B023
            lambda: segment.nodes_of(graphs.rows_from(FIRST, built.n_rows)),  # noqa: B023
            segment.rows, segment.unreachable, segment.verify, segment.vectors,
        ):  # fmt: skip
            try:
                call()
            except CorruptStoreError:
                continue
        for _, rows in graphs.answers(found):
            assert ((rows >= FIRST) & (rows <= last)).all()


def test_pure_noise() -> None:
    for case in range(50):
        rng = np.random.default_rng([100, case])
        built, image, vectors, is_ip = made(case % 3)
        bad = np.frombuffer(image[:96] + rng.bytes(len(image) - 96), np.uint8).copy()  # a header that fits, and noise
        size = graphs.node_bytes(vectors.shape[1], M) * built.n_nodes
        bad[96 + size :] = np.frombuffer(image, np.uint8)[96 + size :]
        graph = graphs.graph_of(
            bad.data, built.n_nodes, vectors.shape[1], is_ip=is_ip, made=built, first_row=FIRST,
            last_row=FIRST + built.n_rows - 1,
        )  # fmt: skip
        assert use(graph, vectors[:3], built) & CORRUPT
