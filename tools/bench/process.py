"""Processes of their own: started, timed up to their first answer, weighed, and ended."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.settings import ROOT

__all__ = ["Task", "pss_bytes", "ready_s", "seconds_beyond", "waiting"]

Task = Sequence[str]

_CHILD = Path(__file__).with_name("child.py")


def ready_s(task: Task) -> float:
    """Seconds from the start of a process to the moment when its task is done."""
    start = time.perf_counter()
    with _started(task) as process:
        _await_ready(process, task)
        return time.perf_counter() - start


def seconds_beyond(tasks: Sequence[Task], *, repeats: int) -> list[list[float]]:
    """For each task but the first, the seconds it takes beyond the first; in turns, and once unmeasured before."""
    for task in tasks:
        ready_s(task)
    times = [[ready_s(task) for task in tasks] for _ in range(repeats)]
    return [[run[at] - run[0] for run in times] for at in range(1, len(tasks))]


@contextmanager
def waiting(tasks: Sequence[Task]) -> Iterator[list[int]]:
    """Process ids of processes that have done their tasks and wait; they end with the block."""
    with ExitStack() as stack:
        processes = [stack.enter_context(_started(task)) for task in tasks]
        for process, task in zip(processes, tasks, strict=True):
            _await_ready(process, task)
        yield [process.pid for process in processes]


def pss_bytes(pid: int) -> int:
    """The process' memory; of pages that several processes map, its share. Linux only.

    Raises:
        FileNotFoundError: The system does not tell.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise FileNotFoundError(f"no Pss in /proc/{pid}/smaps_rollup")


@contextmanager
def _started(task: Task) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(ROOT)
    process = subprocess.Popen(
        [sys.executable, "-P", str(_CHILD), *task],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        with process:  # leaving closes its stdin, which ends it
            yield process
    except BaseException:
        process.kill()
        raise


def _await_ready(process: subprocess.Popen[str], task: Task) -> None:
    line = process.stdout.readline() if process.stdout else ""
    if line.strip() != "ready":
        raise RuntimeError(f"the process for {' '.join(task)} ended before it was ready; its error stands above")
