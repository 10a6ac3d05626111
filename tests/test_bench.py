"""The benchmarks run, and measure what they say: nothing here depends on how fast the machine is."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

import simstore

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from bench.cli import CASES, main, parse  # noqa: E402  # tools is on the path only now
from bench.context import working  # noqa: E402
from bench.datasets import Dataset, MissingDataError, clustered, load_dataset, near  # noqa: E402
from bench.filtered import Filter, Filters, FilterTruth  # noqa: E402
from bench.load import COMPACTING, Outcome, Work, read, write  # noqa: E402
from bench.peers import found_by_hnsw, new_hnsw, table_sizes  # noqa: E402
from bench.process import pss_bytes, seconds_beyond, waiting  # noqa: E402
from bench.report import Report, Row, at_least, at_most  # noqa: E402
from bench.stores import SMALL, disk_size, fill, found_by_store, made_once, overwrite  # noqa: E402
from bench.timing import interleave, ratio_of  # noqa: E402
from bench.truth import cached_truth, exact_truth, smallest_ef, true_distances  # noqa: E402

TINY = (
    "--data clustered --n 600 --queries 20 --repeats 1 --tail 8 --copies 150 --turnover-n 100 --single-adds 4 "
    "--small-n 200 --readers 2 --searches 5 --seconds 2 --threads 3 --epochs 1 --steps 3 --seeds 2 --gigabytes 0.07"
).split()

pytestmark = pytest.mark.slow  # timings of tiny data under load decide nothing


def small(metric: str, n: int = 300, dim: int = 5) -> Dataset:
    base, queries = clustered(n, 7, seed=3, dim=dim)
    return Dataset("small", metric, base, queries)


def naive_distance(metric: str, a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    if metric == "ip":
        return 1 - dot
    if metric == "l2":
        return float(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5)
    return float(1 - dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5)


# -- truth and recall


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_the_exact_scan_agrees_with_a_naive_loop(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.truth._BLOCK", 64)  # several blocks, the last one not full
    dataset = small(metric)
    truth = exact_truth(dataset, k=4)
    for query, rows, distances in zip(dataset.queries, truth.rows, truth.distances, strict=True):
        naive = sorted((naive_distance(metric, query.tolist(), v.tolist()), row) for row, v in enumerate(dataset.base))
        assert rows.tolist() == [row for _, row in naive[:4]]
        assert distances == pytest.approx([distance for distance, _ in naive[:4]], abs=1e-12)


def test_recall_counts_what_was_found_once() -> None:
    line = np.arange(10, dtype=np.float32)[:, None]
    dataset = Dataset("line", "l2", line, np.array([[0.1], [8.8]], np.float32))  # nearest: 0 1 2 3 and 9 8 7 6
    truth = exact_truth(dataset, k=4)
    assert truth.recall([[0, 1, 2, 3], [9, 8, 7, 6]]) == 1.0
    assert truth.recall([[3, 1, 0, 2], [9, 8, 7, 0]]) == 7 / 8
    assert truth.recall([[0, 0, 0, 0], [-1, -1, -1, -1]]) == 1 / 8


def test_recall_takes_any_of_equally_near_items() -> None:
    twins = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], np.float32)
    truth = exact_truth(Dataset("twins", "l2", twins, np.array([[0.1, 1.0]], np.float32)), k=2)
    assert [truth.recall([pair]) for pair in ([1, 2], [2, 3], [1, 3], [0, 3])] == [1.0, 1.0, 1.0, 0.5]


def test_the_truth_is_cached_by_content(tmp_path: Path) -> None:
    first, other = small("l2"), small("l2", n=299)
    assert cached_truth(first, tmp_path).rows.tolist() == exact_truth(first).rows.tolist()
    assert cached_truth(first, tmp_path).distances.tolist() == exact_truth(first).distances.tolist()
    assert cached_truth(other, tmp_path).rows.max() < 299
    assert len(list(tmp_path.iterdir())) == 2


def test_hnswlib_numbers_rows_as_the_truth_does() -> None:
    dataset = small("cosine")
    settings = parse(["search", "--M", "32"])
    index = new_hnsw(dataset, settings)
    index.add_items(dataset.base, np.arange(len(dataset.base)))
    truth = exact_truth(dataset)
    assert truth.recall(found_by_hnsw(index, dataset.queries, ef=300)) == 1.0
    assert true_distances(dataset, dataset.base[5], np.array([5]))[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("needed", [1, 10, 11, 37, 40, 1000])
def test_the_smallest_ef_is_found(needed: int) -> None:
    assert smallest_ef(lambda ef: 0.97 if ef >= needed else 0.5) == max(needed, 10)


def test_an_ef_that_never_suffices_ends() -> None:
    assert smallest_ef(lambda _ef: 0.5) == 4096


# -- filters


def test_filters_choose_the_share_they_say(tmp_path: Path) -> None:
    settings = parse(
        [*"filters --data clustered --n 500 --queries 9".split(), "--out", str(tmp_path), "--workdir", str(tmp_path)]
    )
    with working(settings) as context:
        filters, base = Filters(context), context.dataset.base
        with simstore.open(filters.store_path, mode="r") as store:
            for by, percent, n in [("r", 50, 250), ("r", 10, 50), ("near", 10, 50), ("near", 0.1, 1)]:
                chosen = filters.of(by, percent)
                assert len(chosen.rows) == n
                for where in (chosen.where(), chosen.where(is_indexed=False), chosen.where(less=0.25)):
                    assert sorted(item.key for item in store.scan(where)) == chosen.rows.tolist()
                assert chosen.where() != chosen.where(less=0.25) != chosen.where(less=0.5)
            assert store.count(filters.of("r", 10).between(400)) == 50
            truth = FilterTruth(context, filters.of("near", 10), context.dataset.queries)
            assert (
                truth.recall(found_by_store(store, context.dataset.queries, None, where=filters.of("near", 10).where())) == 1.0
            )
            assert store.info().indexed_fields == ("r", "near")
        distances = np.linalg.norm(base - filters.anchor, axis=1)
        nearest = filters.of("near", 10).rows
        assert distances[nearest].max() <= np.delete(distances, nearest).min()
        to_far = np.linalg.norm(filters.queries_far_away() - filters.anchor, axis=1)
        assert (
            len(to_far) == 2 and to_far.min() == np.sort(np.linalg.norm(context.dataset.queries - filters.anchor, axis=1))[-2]
        )


def test_recall_under_a_filter_counts_only_what_it_lets_through(tmp_path: Path) -> None:
    settings = parse(
        [*"filters --data clustered --n 100 --queries 2".split(), "--out", str(tmp_path), "--workdir", str(tmp_path)]
    )
    with working(settings) as context:
        context.dataset = Dataset("line", "l2", np.arange(100, dtype=np.float32)[:, None], np.array([[0.1], [90]], np.float32))
        truth = FilterTruth(context, Filter("r", 4.0, 40, np.array([10, 20, 30, 40])), context.dataset.queries)
        assert truth.recall(np.array([[10, 20, 30, 40], [40, 30, 20, 10]])) == 1.0
        assert truth.recall(np.array([[10, 20, 30, 40]])) == 1.0  # of the first query alone
        assert truth.recall(np.array([[0, 1, 2, 3], [99, 40, -1, -1]])) == 1 / 8


# -- timing and reporting


def test_two_sides_are_timed_in_turns() -> None:
    now, order = [0.0], []

    def takes(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds

    ratio = interleave(
        lambda: takes("A", 3.0),
        lambda: takes("B", 2.0),
        repeats=3,
        between=lambda: takes("-", 100.0),
        clock=lambda: now[0],
    )
    assert "".join(order) == "AB-BA-AB-"
    assert (ratio.median, ratio.low, ratio.high, ratio.first_s, ratio.second_s) == (1.5, 1.5, 1.5, 3.0, 2.0)


def test_the_ratio_is_the_median_of_the_ratios() -> None:
    ratio = ratio_of([1.0, 4.0, 9.0], [1.0, 2.0, 1.0])
    assert (ratio.median, ratio.first_s, ratio.second_s) == (2.0, 4.0, 1.0)


def test_a_ratio_is_told_for_one_of_each() -> None:
    ratio = ratio_of([6.0, 12.0], [4.0, 4.0]).each(2, 8)  # 3 and 6 seconds for one, to half a second
    assert (ratio.median, ratio.first_s, ratio.second_s) == (9.0, 4.5, 0.5)


def test_rows_are_marked_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(tmp_path / "deep" / "out.json", {"commit": "abc"})
    report.add(Row("fast enough", 1.0, "x", "", at_least(1.0), 0.9, 1.1))
    report.add(Row("too large", 2.7, "x", "", at_most(2.6)))
    report.add(Row("only told", 0.5, "s", "why"))
    written = json.loads(report.path.read_text("utf-8"))
    assert [row["mark"] for row in written["rows"]] == ["pass", "MISS", ""]
    assert written["commit"] == "abc"
    lines = capsys.readouterr().out.splitlines()
    assert "0.90x … 1.10x" in lines[1] and ">= 1.00x" in lines[1] and "pass" in lines[1]
    assert "MISS" in lines[2] and "why" in lines[3]


# -- sizes and processes


def test_tables_are_weighed(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=2) as env:
        plain, many = env.open_db(b"plain"), env.open_db(b"many", dupsort=True, dupfixed=True)
        with env.begin(write=True) as transaction:
            transaction.put(b"key", b"12345", db=plain)
            transaction.put(b"a", b"11111111", db=many)
            transaction.put(b"a", b"22222222", db=many)
    sizes = table_sizes(tmp_path)
    assert {name: (table.records, table.content) for name, table in sizes.items()} == {"plain": (1, 8), "many": (2, 18)}
    assert sizes["plain"].pages % 512 == 0 and sizes["plain"].pages > 0


def test_folders_are_weighed(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 1000)
    (tmp_path / "inner" / "b").write_bytes(b"x" * 23)
    size = disk_size(tmp_path)
    assert size.apparent == 1023
    assert size.allocated % 512 == 0


def test_processes_wait_until_they_are_weighed() -> None:
    with waiting([("numpy",), ("numpy",)]) as pids:
        try:
            sizes = [pss_bytes(pid) for pid in pids]
        except FileNotFoundError:
            pytest.skip("this system does not tell the PSS of a process")
    assert len(set(pids)) == 2 and min(sizes) > 1_000_000


def test_a_task_that_fails_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="ended before it was ready"):
        seconds_beyond([("no such task",)], repeats=1)
    assert "KeyError" in capfd.readouterr().err


def test_what_was_made_once_is_taken(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        path.mkdir()
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        made_once(tmp_path / "a", fails)
    assert not (tmp_path / "a").exists()
    assert made_once(tmp_path / "a", Path.mkdir) == tmp_path / "a"
    assert made_once(tmp_path / "a", fails) == tmp_path / "a"


# -- the load of several processes


@pytest.fixture
def work(tmp_path: Path) -> Work:
    base, queries = clustered(50, 5, seed=3, dim=4)
    with simstore.open(tmp_path / "a.sim", dim=4, background=False) as store:
        fill(store, base)
    return Work(tmp_path / "a.sim", len(base), queries, seconds=0.2, seed=1)


def outcome_of(work: Work, task: Any, *args: Any) -> tuple[Outcome, list[Any]]:
    spawning = multiprocessing.get_context("spawn")
    told, result = spawning.Pipe(duplex=False)
    task(work, spawning.Barrier(1), *args, result)
    result.close()
    messages = []
    while told.poll():
        try:
            messages.append(told.recv())
        except EOFError:
            break
    return messages[-1], messages[:-1]


def test_the_writer_tells_each_count_and_the_last_one_is_there(work: Work) -> None:
    tells = [multiprocessing.Pipe(duplex=False) for _ in range(2)]
    outcome, before = outcome_of(work, write, [tell for _, tell in tells])
    assert outcome.errors == [] and before == [COMPACTING]
    counts = []
    for told, _ in tells:
        counts.append([told.recv() for _ in range(outcome.n_written // 21 + 20)])
        with pytest.raises(EOFError):
            told.recv()
    assert counts[0] == counts[1] == list(range(1, len(counts[0]) + 1))
    with simstore.open(work.path) as store:
        assert store.get("counter").data == {"count": len(counts[0])}
        assert len(store) == work.n + 1 and store.get(7).data == SMALL.of(7) and store.get(7).label == 7
        assert store.check(deep=True) == []


@pytest.mark.parametrize("kind", ["get", "search", "filter", "count"])
def test_a_reader_notes_what_it_does_not_see(work: Work, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import load

    monkeypatch.setattr(load, "_LOOKS", (getattr(load, f"_by_{kind}"),))
    with simstore.open(work.path) as store:
        if kind != "count":
            store.upsert("counter", work.vectors[0], data={"count": 4})
    for count, n_stale in [(4, 0), (5, 1)] if kind != "count" else [(4, 1)]:
        told, tell = multiprocessing.Pipe(duplex=False)
        tell.send(1)
        tell.send(count)  # the newest counts
        tell.close()
        outcome, _ = outcome_of(work, read, told)
        assert outcome.errors == []
        assert (outcome.n_told, len(outcome.stale)) == (1, n_stale)


def test_errors_are_noted(work: Work) -> None:
    told, tell = multiprocessing.Pipe(duplex=False)
    with simstore.open(work.path) as store:
        store.delete(list(range(work.n)))
    tell.send(1)
    tell.close()
    outcome, _ = outcome_of(work, read, told)
    assert "KeyNotFoundError" in outcome.errors[0]


def test_items_are_overwritten_as_they_were(work: Work) -> None:
    with simstore.open(work.path, background=False) as store:
        before = store.get(7)
        overwrite(store, [7, 9], work.vectors[:2])
        after = store.get(7)
        assert len(store) == work.n and (after.label, after.data) == (before.label, before.data)
        assert after.vector.tolist() == work.vectors[0].tolist() != before.vector.tolist()


# -- data


def test_made_data_depends_on_the_seed_alone() -> None:
    one, same, other = (clustered(50, 5, seed=seed)[0] for seed in (1, 1, 2))
    assert (one == same).all() and not (one == other).all()
    assert one.dtype == np.float32 and one.flags.c_contiguous


def test_new_vectors_are_near_and_distinct() -> None:
    base = small("l2").base
    new = near(base, 40, seed=1)
    assert len(np.unique(np.vstack([base, new]), axis=0)) == len(np.unique(base, axis=0)) + 40


def test_a_part_of_the_data_is_taken() -> None:
    dataset = load_dataset(parse(["search", "--data", "clustered", "--n", "70", "--queries", "6"]))
    assert dataset.base.shape == (70, 128) and dataset.queries.shape == (6, 128)


def test_missing_data_says_how_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["open", "--data", "mnist", "--mnist", str(tmp_path / "none.npz"), "--out", str(tmp_path)]) == 2
    assert "--mnist" in capsys.readouterr().err
    with pytest.raises(MissingDataError, match="apt install dataset-fashion-mnist"):
        load_dataset(parse(["search", "--data", "fashion", "--fashion", str(tmp_path)]))


def test_mnist_is_read_and_flattened(tmp_path: Path) -> None:
    images = np.arange(3 * 784, dtype=np.uint64).astype(np.uint8).reshape(3, 28, 28)
    np.savez(tmp_path / "mnist.npz", x_train=images, x_test=images[:2])
    dataset = load_dataset(parse(["search", "--data", "mnist", "--mnist", str(tmp_path / "mnist.npz"), "--queries", "1"]))
    assert dataset.base.tolist() == images.reshape(3, 784).tolist()
    assert dataset.queries.shape == (1, 784) and dataset.metric == "l2"


# -- the whole


def test_help_names_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for cases in CASES.values() for name in cases)


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["open", "--only", "nonsense"])
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize("command", CASES)
def test_every_case_runs_on_tiny_data(command: str, tmp_path: Path) -> None:
    if command == "memory" and not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not tell the PSS of a process")
    out, work = tmp_path / "out", tmp_path / "work"
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "bench"), command, *TINY, "--out", str(out), "--workdir", str(work)],
        capture_output=True, text=True, encoding="utf-8", timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads((out / f"{command}-clustered-600.json").read_text("utf-8"))
    assert {"python", "numpy", "hnswlib", "lmdb", "simstore", "cpu", "commit"} <= set(written)
    assert len(written["rows"]) >= len(CASES[command])
    assert all(np.isfinite(row["value"]) for row in written["rows"])
    assert list(work.iterdir()) == []  # stores are removed
    for row in written["rows"] if command != "similarity" else ():  # three steps of training find little
        if row["unit"] == "%" and "off 1" not in row["case"]:  # what was found, not how fast
            assert row["mark"] == "pass", row
        if row["unit"] in ("n", "KB"):
            assert row["mark"] == "pass", row
        if row["unit"] == "":  # a difference in recall; few queries are coarse
            assert row["value"] > -0.1, row
