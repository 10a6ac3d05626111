"""kill -9 at every step, at lines, at random: what was acknowledged is there, what was not is there wholly or not at all."""

import ast
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import crash_child
import pytest
from crash_child import OPTIONS, Model, Server, read_log, verify

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
    model, pending, reached, wrong = read_log(directory / "log", {})
    assert pending is None and wrong == [] and len(model) == 53
    verify(directory / "s.sim", model, [])
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


def test_killed_at_every_step(server: Server, all_steps: list[str], tmp_path: Path) -> None:
    killed = set()
    for at, name in enumerate(all_steps):
        path, log = tmp_path / f"{at}.sim", tmp_path / f"{at}.log"
        assert server.run(work="scripted", path=path, log=log, kill_at=at) == KILLED
        model, pending, reached, wrong = read_log(log, {})
        assert reached[-1] == name and len(reached) == at + 1 and wrong == []
        after_write = verify(path, model, [pending] if pending else [], seed=at)
        if name == "write.committed":  # it was on the disk, though nobody was told
            assert pending is not None and after_write != model
        elif name.startswith("write."):
            assert after_write == model
        killed.add(name)
        shutil.rmtree(path)
    assert killed == steps_in_source()


# -- at lines: whatever has no name yet ---------------------------------------------------------------------------------

MAKING = ("store/opening.py", "storage/environment.py", "storage/files.py", "storage/database.py")
PUBLISHING = ("store/maintenance.py", "storage/files.py", "store/writer.py", "storage/environment.py")


def killed_at_lines(server: Server, directory: Path, work: str, files: tuple[str, ...], n: int | None) -> int:
    """Kills a workload at n of the lines that it runs in some files (all of them if None), evenly spread; how many kills."""
    assert server.run(work=work, path=directory / "whole.sim", log=directory / "whole.log", lines_of=files) == 0
    total = read_log(directory / "whole.log", {})[2][-1]
    assert isinstance(total, int) and total > 60
    places = range(total) if n is None else sorted({i * total // n for i in range(n)})
    for at in places:
        path, log = directory / f"{at}.sim", directory / f"{at}.log"
        assert server.run(work=work, path=path, log=log, kill_at=at, lines_of=files) == KILLED
        model, pending, reached, wrong = read_log(log, {})
        assert wrong == []
        try:
            if work == "make" and at % 2:
                readable_or_not_there(path)
            verify(path, model, [pending] if pending else [], seed=at)
        except Exception as err:
            raise AssertionError(f"killed at line event {at}, {reached[-1]}") from err
        shutil.rmtree(path)
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


# -- at random ----------------------------------------------------------------------------------------------------------


def random_kills(server: Server, directory: Path, n: int, seed: int) -> tuple[int, int]:
    """Kills a mixed load n times, in stores that live on; returns how many calls were acknowledged, and how many pending."""
    rnd = random.Random(seed)
    path, model = directory / "0.sim", Model()
    n_calls = n_pending = 0
    for i in range(n):
        if i % 40 == 39:
            path, model = directory / f"{i}.sim", Model()
        request = {"kill_at": rnd.randrange(150)} if rnd.random() < 0.5 else {"kill_after_s": rnd.random() ** 2 * 0.6}
        assert server.run(work="mixed", path=path, log=directory / f"{i}.log", seed=i, **request) == KILLED
        pendings = []
        for name in ("a", "b"):
            file = crash_child._log_of(path, i, name)
            n_calls += file.read_bytes().count(b'"done"') if file.exists() else 0
            model, pending, _, wrong = read_log(file, model)
            assert wrong == []
            pendings += [pending] if pending else []
        assert read_log(directory / f"{i}.log", {})[3] == []
        n_pending += len(pendings)
        model = verify(path, model, pendings, seed=i)
    return n_calls, n_pending


def test_killed_at_random(server: Server, tmp_path: Path) -> None:
    n_calls, n_pending = random_kills(server, tmp_path, 25, seed=1)
    assert n_calls > 100 and n_pending > 5  # else nothing was tried


@pytest.mark.slow
def test_killed_at_random_many_times(server: Server, tmp_path: Path) -> None:
    n_calls, n_pending = random_kills(server, tmp_path, 200, seed=2)
    assert n_calls > 1500 and n_pending > 100


def test_a_killed_store_can_be_made_with_mode_w(server: Server, tmp_path: Path) -> None:
    assert server.run(work="make", path=tmp_path / "s.sim", log=tmp_path / "log", kill_at=20, lines_of=MAKING) == KILLED
    assert not (tmp_path / "s.sim" / "data.mdb").exists()
    simstore.open(tmp_path / "s.sim", mode="w", background=False, **OPTIONS).close()
