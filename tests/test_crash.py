"""kill -9 at every step, at lines, at random: what was acknowledged is there, what was not is there wholly or not at all."""

import ast
import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import crash_child
import pytest
from crash_child import Server
from crash_model import NOTHING, NOTHING_CHANGES, OPTIONS, read_log, verify

import simstore
from simstore.errors import NotAStoreError, StoreNotFoundError

SOURCE = Path(simstore.__file__).parent
KILLED = -signal.SIGKILL

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here, and no kill -9")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with crash_child.server() as running:
        yield running


@pytest.fixture(scope="module")
def all_steps(server: Server, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The steps of the scripted workload, in order, by running it to its end."""
    directory = tmp_path_factory.mktemp("steps")
    assert server.run(work="scripted", path=directory / "s.sim", log=directory / "log") == 0
    world, pending, reached, wrong = read_log(directory / "log", NOTHING)
    assert pending == [] and wrong == [] and len(world.items) == 48
    assert world.snapshots.keys() == {"before-restore-one"} and world.backups.keys() == {"first.backup"}
    verify(directory / "s.sim", world, [])
    return reached


def steps_in_source() -> set[str]:
    """The names of all steps: each is a literal, so that none can be missed."""
    names = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("steps.reached", "reached"):
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{file.name}:{node.lineno}: a step's name is a literal"
                names.add(argument.value)
    return names


def test_every_step_is_reached(all_steps: list[str]) -> None:
    assert steps_in_source() == set(all_steps)


def killed_at_steps(server: Server, directory: Path, all_steps: list[str], places: Iterable[int]) -> None:
    for at in places:
        name = all_steps[at]
        path, log = directory / f"{at}" / "s.sim", directory / f"{at}.log"
        path.parent.mkdir()
        assert server.run(work="scripted", path=path, log=log, kill_at=at) == KILLED
        world, pending, reached, wrong = read_log(log, NOTHING)
        assert reached[-1] == name and len(reached) == at + 1 and wrong == []
        try:
            held = verify(path, world, pending, seed=at)
        except Exception as err:
            raise AssertionError(f"killed at step {at}, {name}") from err
        if name == "write.committed":  # it was on the disk, though nobody was told
            assert pending and (held != world or pending[0]["kind"] in NOTHING_CHANGES)
        else:
            assert held == world
        shutil.rmtree(path.parent)


def test_killed_at_every_step(server: Server, all_steps: list[str], tmp_path: Path) -> None:
    """The first time, the last time, and once between."""
    places = [[at for at, name in enumerate(all_steps) if name == step] for step in steps_in_source()]
    assert all(places)
    killed_at_steps(server, tmp_path, all_steps, sorted({at for of in places for at in (of[0], of[len(of) // 2], of[-1])}))


@pytest.mark.slow
def test_killed_at_every_step_each_time(server: Server, all_steps: list[str], tmp_path: Path) -> None:
    killed_at_steps(server, tmp_path, all_steps, range(len(all_steps)))


# -- at lines: whatever has no name yet ---------------------------------------------------------------------------------

MAKING = ("store/opening.py", "storage/environment.py", "storage/files.py", "storage/database.py")
REMEMBERING = (
    "store/remembering.py", "store/compaction.py", "store/opening.py", "storage/copying.py", "store/backup.py", "store/core.py",
)  # fmt: skip
PUBLISHING = ("store/maintenance.py", "storage/files.py", "store/writer.py", "storage/environment.py")


def killed_at_lines(server: Server, directory: Path, work: str, files: tuple[str, ...], n: int | None) -> int:
    """Kills a workload at n of the lines that it runs in some files (all of them if None), evenly spread; how many kills."""
    (directory / "whole").mkdir()
    assert server.run(work=work, path=directory / "whole" / "s.sim", log=directory / "whole.log", lines_of=files) == 0
    total = read_log(directory / "whole.log", NOTHING)[2][-1]
    assert isinstance(total, int) and total > 60
    places = range(total) if n is None else sorted({i * total // n for i in range(n)})
    for at in places:
        path, log = directory / f"{at}" / "s.sim", directory / f"{at}.log"
        path.parent.mkdir()
        assert server.run(work=work, path=path, log=log, kill_at=at, lines_of=files) == KILLED
        world, pending, reached, wrong = read_log(log, NOTHING)
        assert wrong == []
        try:
            if work == "make" and at % 2:
                readable_or_not_there(path)
            verify(path, world, pending, seed=at)
        except Exception as err:
            raise AssertionError(f"killed at line event {at}, {reached[-1]}") from err
        shutil.rmtree(path.parent)
    return len(places)


def readable_or_not_there(path: Path) -> None:
    """Opens what may be half made in order to read: it is whole, or refused as not being a store."""
    try:
        simstore.open(path, mode="r").close()
    except (StoreNotFoundError, NotAStoreError):
        assert not (path / "store.json").exists()


def test_killed_while_a_store_is_made(server: Server, tmp_path: Path) -> None:
    killed_at_lines(server, tmp_path, "make", MAKING, 40)


@pytest.mark.slow
def test_killed_at_every_line_while_a_store_is_made(server: Server, tmp_path: Path) -> None:
    killed_at_lines(server, tmp_path, "make", MAKING, None)


def test_killed_at_lines_of_writing_and_publishing(server: Server, tmp_path: Path) -> None:
    killed_at_lines(server, tmp_path, "scripted", PUBLISHING, 30)


@pytest.mark.slow
def test_killed_at_many_lines_of_writing_and_publishing(server: Server, tmp_path: Path) -> None:
    killed_at_lines(server, tmp_path, "scripted", PUBLISHING, 300)


def test_killed_at_lines_of_remembering_and_compacting(server: Server, tmp_path: Path) -> None:
    killed_at_lines(server, tmp_path, "scripted", REMEMBERING, 30)


@pytest.mark.slow
def test_killed_at_many_lines_of_remembering_and_compacting(server: Server, tmp_path: Path) -> None:
    killed_at_lines(server, tmp_path, "scripted", REMEMBERING, 300)


# -- at random ----------------------------------------------------------------------------------------------------------


def random_kills(server: Server, directory: Path, n: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Kills a mixed load n times, in stores that live on; returns how many calls of each kind were acknowledged, and how
    many were pending.
    """
    rnd = random.Random(seed)
    path, world = directory / "0" / "s.sim", NOTHING
    n_calls, n_pending = Counter[str](), Counter[str]()
    for i in range(n):
        if i % 40 == 39:
            path, world = directory / f"{i}" / "s.sim", NOTHING
        path.parent.mkdir(exist_ok=True)
        log = directory / f"{i}.log"
        request = {"kill_at": rnd.randrange(250)} if rnd.random() < 0.5 else {"kill_after_s": rnd.random() ** 2 * 0.6}
        assert server.run(work="mixed", path=path, log=log, seed=i, **request) == KILLED
        world, pending, _, wrong = read_log(log, world)
        assert wrong == []
        n_calls += calls_in(log)
        n_pending.update(op["kind"] for op in pending)
        world = verify(path, world, pending, seed=i)
        for name in world.backups:
            shutil.rmtree(path.parent / name)
        world = world._replace(backups={})
    return n_calls, n_pending


def calls_in(log: Path) -> Counter[str]:
    """How many calls of each kind a log acknowledges."""
    kinds: dict[str, str] = {}
    counted = Counter[str]()
    for entry in map(json.loads, log.read_bytes().splitlines() if log.exists() else []):
        if "op" in entry:
            kinds[entry["who"]] = entry["op"]["kind"]
        elif "done" in entry:
            counted[kinds[entry["who"]]] += 1
    return counted


KINDS = {
    "add", "upsert", "update", "delete", "delete_where", "create_index", "drop_index", "snapshot", "delete_snapshot", "restore",
    "backup", "compact",
}  # fmt: skip


def test_killed_at_random(server: Server, tmp_path: Path) -> None:
    n_calls, n_pending = random_kills(server, tmp_path, 25, seed=1)
    assert n_calls.total() > 100 and n_pending.total() > 5  # else nothing was tried


@pytest.mark.slow
def test_killed_at_random_many_times(server: Server, tmp_path: Path) -> None:
    n_calls, n_pending = random_kills(server, tmp_path, 200, seed=2)
    assert n_calls.total() > 1500 and n_pending.total() > 100
    assert n_calls.keys() == KINDS and min(n_calls.values()) > 15, n_calls
    assert n_pending.keys() >= {"snapshot", "restore", "compact", "upsert"}, n_pending


def test_a_killed_store_can_be_made_with_mode_w(server: Server, tmp_path: Path) -> None:
    assert server.run(work="make", path=tmp_path / "s.sim", log=tmp_path / "log", kill_at=20, lines_of=MAKING) == KILLED
    assert not (tmp_path / "s.sim" / "data.mdb").exists()
    simstore.open(tmp_path / "s.sim", mode="w", background=False, **OPTIONS).close()
