"""One process that writes and several that read, all at once, on one store."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

import simstore
from bench.context import Context
from bench.datasets import near
from bench.load import COMPACTING, Outcome, Work, read, write
from bench.progress import progress
from bench.report import Row, at_most
from bench.stores import copy_store, disk_size

__all__ = ["processes_case"]

_INTERVAL_S = 10.0
_AT_LEAST_SAMPLES = 4
_LAST_S = 600.0  # for compact(), which may build a graph anew
_DATABASE = "data.mdb"
_GROWTH, _COMPACTED = 2.0, 1.3
_SHOWN = 600


def processes_case(context: Context) -> Iterator[Row]:
    """A mixed load: no errors, nothing that a reader sees too late, and a store that does not swell."""
    s = context.settings
    path = copy_store(context.store_path, context.fresh("load.sim"))
    start = disk_size(path).allocated
    with progress(f"{s.seconds} s of load by 1 writer and {s.readers} readers, then compact()"):
        run = _run(context, path)
    with progress("check"), simstore.open(path) as store:
        problems = [f"{problem.where}: {problem.what}" for problem in store.check()]
    end = disk_size(path).allocated
    errors = run.errors
    calls = sum(outcome.n_calls for outcome in run.outcomes)
    times = np.array([took for outcome in run.outcomes for took in outcome.search_s]) * 1e6
    note = f"{calls:,} calls"
    if len(times):
        note += "; searches of a reader: p50 {:,.0f} µs, p99 {:,.0f} µs, max {:,.0f} µs".format(
            *np.percentile(times, [50, 99, 100])
        )
    yield Row(f"{s.seconds} s, 1 writer, {s.readers} readers: errors", len(errors), "n", _first(errors) or note, at_most(0))
    stale = [look for outcome in run.outcomes for look in outcome.stale]
    n_told = sum(outcome.n_told for outcome in run.outcomes)
    note = _first(stale) or f"of {n_told:,} that readers were told of and looked for in their next call"
    yield Row("  commits that a reader's next call missed", len(stale), "n", note, at_most(0))
    yield _growth_row(context, run)
    note = f"{start / 1e6:.1f} MB, at the end {end / 1e6:.1f} MB"
    yield Row("  size after compact(), to that at the start", end / start, "x", note, at_most(_COMPACTED))
    yield Row("  problems found by check()", len(problems), "n", _first(problems), at_most(0))


def _growth_row(context: Context, run: "_Run") -> Row:
    """How much the database grew for each item written, to what one took before: pages that nobody reads are used again."""
    n_written = sum(outcome.n_written for outcome in run.outcomes)
    each = (run.databases[-1] - run.databases[0]) / max(1, n_written)
    before = run.databases[0] / len(context.dataset.base)
    sizes = ", ".join(f"{size / 1e6:.0f}" for size in run.sizes)
    note = (
        f"{n_written:,} items written, {each:,.0f} bytes each, {before:,.0f} before; "
        f"all files every {run.every_s:g} s: {sizes} MB"
    )
    return Row("  growth for an item replaced, to an item's", each / before, "x", note, at_most(_GROWTH))


@dataclass(slots=True)
class _Run:
    """What came of a load.

    Attributes:
        outcomes: Of the processes.
        errors: Theirs, and those of processes that ended without an outcome.
        every_s: The seconds between sizes.
        sizes: What all files took, in bytes, at the start, every so often, and before compact().
        databases: The length of the database's file at the same moments.
    """

    outcomes: list[Outcome]
    errors: list[str]
    every_s: float
    sizes: list[int]
    databases: list[int]

    def weigh(self, path: Path) -> None:
        """Adds the sizes of now."""
        self.sizes.append(disk_size(path).allocated)
        self.databases.append((path / _DATABASE).stat().st_size)


def _run(context: Context, path: Path) -> _Run:
    s, base = context.settings, context.dataset.base
    run = _Run([], [], min(_INTERVAL_S, s.seconds / _AT_LEAST_SAMPLES), [], [])
    spawning = multiprocessing.get_context("spawn")
    ready = spawning.Barrier(s.readers + 1)
    tells = [spawning.Pipe(duplex=False) for _ in range(s.readers)]
    results = [spawning.Pipe(duplex=False) for _ in range(s.readers + 1)]
    written = Work(path, len(base), near(base, 2_000, s.seed + 60), s.seconds, s.seed)
    processes: list[BaseProcess] = [
        spawning.Process(target=write, args=(written, ready, [tell for _, tell in tells], results[0][1]), name="writer")
    ]
    for at, (told, _) in enumerate(tells):
        asked = Work(path, len(base), context.dataset.queries, s.seconds, s.seed + 1 + at)
        processes.append(spawning.Process(target=read, args=(asked, ready, told, results[at + 1][1]), name=f"reader {at + 1}"))
    run.weigh(path)
    try:
        for process in processes:
            process.start()
        for connection in [end for pair in tells for end in pair] + [result for _, result in results]:
            connection.close()  # the processes have their own: one that ends must be noticed
        _watch(run, path, results[0][0], s.seconds + _LAST_S)
        for process, (result, _) in zip(processes, results, strict=True):
            _collect(run, process.name, result)
    finally:
        for process in processes:
            if process.pid is not None:
                process.join(_INTERVAL_S)
                if process.is_alive():
                    process.kill()
                process.join()
    run.errors += [error for outcome in run.outcomes for error in outcome.errors]
    return run


def _watch(run: _Run, path: Path, writer: Connection, longest_s: float) -> None:
    """Weighs the store now and then, until the writer compacts it or ends."""
    for _ in range(int(longest_s / run.every_s) + 1):
        if writer.poll(run.every_s):
            break
        run.weigh(path)
    run.weigh(path)


def _collect(run: _Run, name: str, result: Connection) -> None:
    """Takes a process' outcome."""
    try:
        while result.poll(_LAST_S):
            if (told := result.recv()) != COMPACTING:
                run.outcomes.append(told)
                return
        run.errors.append(f"the {name} has not ended")
    except EOFError:
        run.errors.append(f"the {name} ended without a word")


def _first(findings: list[str]) -> str:
    """The first finding, on one line."""
    return " | ".join(findings[0].strip().splitlines())[-_SHOWN:] if findings else ""
