"""Where the map must grow, where a file is short, and where two open one path at once."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from crash_model import DIM, OPTIONS, Model, applied, assert_finds, assert_holds, assert_tidy, call, vectors_of, writing

import simstore
from simstore import Store
from simstore.errors import AlreadyOpenError, KeyExistsError, KeyNotFoundError, NotAStoreError, StoreNotFoundError
from simstore.storage import LocalFiles, check_size, history
from simstore.store import maintenance
from simstore.store.entry import open_through

DATA = {"text": "x" * 1500}


def open_growing(path: Path, *, background: bool = True, map_size: int = 1 << 20) -> Store:
    return open_through(
        LocalFiles(),
        path,
        metric="l2",
        background=background,
        map_size=map_size,
        M=OPTIONS["M"],
        ef_construction=OPTIONS["ef_construction"],
    )


def map_size_of(store: Store) -> int:
    return int(store._core.environment._env.info()["map_size"])


# -- growing ------------------------------------------------------------------------------------------------------------


def test_the_map_grows_many_times_beside_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads write and four read and search while the map doubles again and again: nothing is lost, nothing raises."""
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 60)
    store = open_growing(tmp_path / "s.sim")
    sizes = {map_size_of(store)}
    models: list[Model] = [Model() for _ in range(4)]
    wrong: list[str] = []
    done = threading.Event()

    def write(name: int) -> None:
        for n in range(25):
            op = writing("upsert" if n % 3 else "add", [f"{name}-{n}-{i}" for i in range(30)], 10_000 * name + 100 * n)
            op["data"] = [DATA] * 30
            call(store, op)
            models[name] = applied(models[name], op)
            if n % 5 == 4:
                op = {"kind": "delete", "keys": [f"{name}-{n}-{i}" for i in range(10)]}
                call(store, op)
                models[name] = applied(models[name], op)
            sizes.add(map_size_of(store))

    def read() -> None:
        query = vectors_of([5])[0]
        while not done.is_set():
            if store.info().dim is None:
                continue
            hits = store.search(query, 5, with_vectors=True)
            true = [float(np.linalg.norm(hit.vector - query)) for hit in hits if hit.vector is not None]
            if not np.allclose(hits.distances, true, atol=1e-4) or [hit.data for hit in hits] != [DATA] * len(hits):
                wrong.append(f"hits at {hits.distances}, where {true} is right")
            for item in store.get_many([hit.key for hit in hits]):
                if item is not None and item.data != DATA:
                    wrong.append(f"{item}")
            sum(1 for _ in zip(range(300), store.scan(), strict=False))

    def guarded(work: Callable[..., None], *args: Any) -> Callable[[], None]:
        def run() -> None:
            try:
                work(*args)
            except BaseException as err:
                wrong.append(f"{type(err).__name__}: {err}")
                raise

        return run

    writers = [threading.Thread(target=guarded(write, name), daemon=True) for name in range(4)]
    readers = [threading.Thread(target=guarded(read), daemon=True) for _ in range(4)]
    stop = time.monotonic() + 20  # it takes two seconds where no writer waits for the readers to be quiet
    for thread in writers + readers:
        thread.start()
    try:
        for thread in writers:
            thread.join(max(0, stop - time.monotonic()))
            assert not thread.is_alive(), "a writer hangs"
    finally:
        done.set()
    for thread in readers:
        thread.join(20)
        assert not thread.is_alive(), "a reader hangs"
    assert wrong == []
    store.optimize()
    model: Model = {key: value for part in models for key, value in part.items()}
    model = {key: (number, label, DATA) for key, (number, label, _) in model.items()}
    assert len(sizes) >= 3 and max(sizes) >= 4 << 20
    assert_holds(store, model)
    assert_finds(store, model, 1)
    assert store.check(deep=True) == []
    assert_tidy(tmp_path / "s.sim", store)
    store.close()
    with open_growing(tmp_path / "s.sim") as again:  # the file is longer than the map that is asked for
        assert_holds(again, model)
        assert again.check(deep=True) == []


def test_the_map_grows_while_a_segment_is_published(tmp_path: Path) -> None:
    """A transaction that runs again because the map is full publishes its file once, and one that fails leaves none."""
    store = open_growing(tmp_path / "s.sim", background=False)
    model: Model = {}
    grown = set()
    for n in range(30):
        op = writing("add", [f"{n}-{i}" for i in range(20)], 100 * n)
        op["vectors"] = [7] * 20  # many copies of one vector: the record of the segment takes pages of its own
        call(store, op)
        model = applied(model, op)
        before = map_size_of(store)
        # little room left: the record of the segment, its log entry and the state need pages that are not there
        used = (store._core.environment._env.info()["last_pgno"] + 1) * 4096
        store._core.environment._env.set_mapsize(used)
        shrunk = map_size_of(store)
        store.optimize()
        if map_size_of(store) > shrunk:
            grown.add(n)
        store._core.environment._env.set_mapsize(max(before, map_size_of(store)))
        assert_tidy(tmp_path / "s.sim", store)
        assert store.info().n_segments == 1
    assert len(grown) > 3
    assert_holds(store, model)
    assert_finds(store, model, 3)
    assert store.check(deep=True) == []
    store.close()


def refuse_beside_readers(directory: str) -> None:
    path = Path(directory) / "s.sim"
    store = simstore.open(path, background=False, **OPTIONS)
    store.add([f"k{i}" for i in range(600)], vectors_of(list(range(600))), data=[DATA] * 600)
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            sum(1 for _ in store.scan())

    readers = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    for thread in readers:
        thread.start()
    calls: list[tuple[type[Exception], Callable[[], object]]] = [
        (KeyExistsError, lambda: store.add(["new", "k7"], np.ones((2, DIM)))),
        (KeyNotFoundError, lambda: store.delete(["k1", "no such key"])),
        (KeyNotFoundError, lambda: store.update(["k1", "no such key"], labels=["x", "y"])),
    ]
    seconds = []
    for _ in range(10):
        for error, work in calls:
            start = time.monotonic()
            with pytest.raises(error):
                work()
            seconds.append(time.monotonic() - start)
    done.set()
    for thread in readers:
        thread.join()
    assert len(store) == 600 and store.check(deep=True) == []
    store.close()
    assert float(np.median(seconds)) < 0.25, seconds


def test_a_write_that_is_refused_does_not_wait_until_nobody_reads(tmp_path: Path) -> None:
    """py-lmdb 3.0 aborts a write transaction only when no other thread is within a call of LMDB: beside busy readers that is
    never, and no one else can write until then."""
    in_process(refuse_beside_readers, tmp_path)


GROW_IN_A_CHILD = """
import sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_growing_map import open_growing
from crash_model import call, writing
store = open_growing(Path(sys.argv[1]))
for n in range(30):
    op = writing("add", [f"child-{n}-{i}" for i in range(30)], 100_000 + 100 * n)
    op["data"] = [{"text": "x" * 1500}] * 30
    call(store, op)
store.close()
"""


def test_another_process_makes_the_map_grow(tmp_path: Path) -> None:
    with open_growing(tmp_path / "s.sim") as store:
        op = writing("add", ["mine"], 1)
        call(store, op)
        before = map_size_of(store)
        child = subprocess.Popen([sys.executable, "-c", GROW_IN_A_CHILD, tmp_path / "s.sim", Path(__file__).parent])
        n = 0
        while child.poll() is None:
            n += 1
            call(store, writing("upsert", [f"mine {n % 50}"], n))
            assert store.get("mine").vector.tobytes() == vectors_of([1])[0].tobytes()
            assert store.search(vectors_of([1])[0], 1)[0].key == "mine"
        assert child.returncode == 0
        assert len(store) == 1 + min(n, 50) + 900
        assert map_size_of(store) > before
        assert store.check(deep=True) == []


# -- the size of data.mdb -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "s.sim"
    with simstore.open(path, background=False, **OPTIONS) as store:
        store.add([f"k{i}" for i in range(300)], vectors_of(list(range(300))), data=[DATA] * 300)
        store.optimize()
        store.upsert([f"k{i}" for i in range(100)], vectors_of(list(range(300, 400))))
    return path


CUTS: dict[str, Callable[[int], int]] = {
    "half": lambda size: size // 2,
    "8 KB": lambda size: size - 8192,
    "5 KB": lambda size: size - 5120,
    "a page": lambda size: size - 4096,
    "a byte": lambda size: size - 1,
    "to three pages": lambda size: 3 * 4096,
    "to two pages": lambda size: 2 * 4096,
    "to one page": lambda size: 4096,
    "to 100 bytes": lambda size: 100,
    "to nothing": lambda size: 0,
}

OPEN_IN_A_CHILD = """
import sys, simstore
from simstore.errors import CorruptStoreError
try:
    store = simstore.open(sys.argv[1], mode=sys.argv[2])
except CorruptStoreError as err:
    print(err)
    sys.exit(3)
print(sum(len(item.vector) for item in store.scan()), store.check(deep=True), len(store.search([1.0] * 8, 1000)))
store.close()
"""


def opened_in_a_child(path: Path, mode: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", OPEN_IN_A_CHILD, path, mode]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_whole_store_is_opened_in_a_child(template: Path, tmp_path: Path) -> None:
    shutil.copytree(template, tmp_path / "s.sim")
    for mode in "ra":
        result = opened_in_a_child(tmp_path / "s.sim", mode)
        assert (result.returncode, result.stdout) == (0, f"{300 * DIM} [] 300\n"), result.stderr


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_off_database_is_refused(template: Path, tmp_path: Path, cut: str, mode: str) -> None:
    path = tmp_path / "s.sim"
    shutil.copytree(template, path)
    with open(path / "data.mdb", "r+b") as file:
        file.truncate(CUTS[cut](os.path.getsize(path / "data.mdb")))
    content = (path / "data.mdb").read_bytes()
    result = opened_in_a_child(path, mode)
    assert result.returncode == 3, f"{result.returncode} {result.stdout} {result.stderr}"
    assert "backup" in result.stdout and "data.mdb" in result.stdout
    assert (path / "data.mdb").read_bytes() == content


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_missing_database_is_refused_and_not_made_anew(template: Path, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "s.sim"
    shutil.copytree(template, path)
    (path / "data.mdb").unlink()
    before = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
    result = opened_in_a_child(path, mode)
    assert result.returncode == 3 and "data.mdb is missing" in result.stdout
    assert sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file()) == before


@pytest.mark.parametrize("seed", range(6))
def test_no_sound_store_is_refused_for_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """After each commit of a long life, with pages freed in all ways that a store frees them, check_size is content."""
    rnd = random.Random(seed)
    monkeypatch.setattr(history, "LOG_KEPT", rnd.choice([4, 16, 64]))
    monkeypatch.setattr(maintenance, "FOLD_BYTES", 1)
    monkeypatch.setattr(maintenance, "FOLD_ROWS", 2)
    monkeypatch.setattr(maintenance, "MERGE_RATIO", rnd.choice([0, 1, 4]))
    path = tmp_path / "s.sim"
    vectors = np.random.default_rng(seed).standard_normal((300, DIM)).astype(np.float32)
    store = simstore.open(path, background=False, **OPTIONS)
    held: Any = None
    for _ in range(200):
        if held is None and rnd.random() < 0.03:  # a reader that keeps pages from being used again
            held = store._core.environment.read()
            held.__enter__()
        elif held is not None and rnd.random() < 0.05:
            held.__exit__(None, None, None)
            held = None
        what, size = rnd.random(), rnd.choice([1, 3, 30, 300])
        if what < 0.7 or len(store) < 400:
            keys = [f"{rnd.randrange(10)}-{i}" for i in range(size)]
            chosen = vectors[:size] if rnd.random() < 0.7 else np.repeat(vectors[:1], size, 0)
            store.upsert(keys, chosen, data=["x" * rnd.choice([0, 100, 3000])] * size)
        elif what < 0.8:
            store.delete([item.key for _, item in zip(range(size), store.scan(), strict=False)])
        elif what < 0.97:
            store._core.maintenance.run()
        else:
            store.optimize()
        check_size(path / "data.mdb")
    if held is not None:
        held.__exit__(None, None, None)
    assert store.check(deep=True) == []
    store.close()
    simstore.open(path).close()


def short_but_sound(directory: Path) -> int:
    """An LMDB database that is shorter than its meta page says, though whole: LMDB never writes a page that a transaction
    took from the end of the file and gave back. Returns how many bytes are lacking."""
    for seed in range(50):
        rnd = random.Random(seed)
        path = directory / f"{seed}.mdb"
        path.mkdir()
        with lmdb.open(os.fspath(path), map_size=1 << 30, max_dbs=8) as env:
            table = env.open_db(b"a")
            for _ in range(10):
                with env.begin(write=True) as txn:
                    for _ in range(rnd.randrange(1, 60)):
                        txn.put(rnd.randbytes(8), b"x" * rnd.randrange(8, 300), db=table)
                    keys = list(txn.cursor(db=table).iternext(values=False))
                    for key in keys[: rnd.randrange(len(keys))]:
                        txn.delete(key, db=table)
                lacking = (env.info()["last_pgno"] + 1) * 4096 - (path / "data.mdb").stat().st_size
                if lacking > 0:
                    shutil.copy(path / "data.mdb", directory / "data.mdb")
                    return int(lacking)
    raise AssertionError("LMDB writes all pages after all")


def test_a_database_that_lmdb_left_shorter_than_it_says_is_no_damage(tmp_path: Path) -> None:
    assert short_but_sound(tmp_path) % 4096 == 0
    check_size(tmp_path / "data.mdb")


WRITE_IN_A_CHILD = """
import sys, time, numpy as np, simstore
store = simstore.open(sys.argv[1], background=False)
print("ready", flush=True)
stop = time.monotonic() + float(sys.argv[2])
while time.monotonic() < stop:
    store.add(None, np.ones((20, 64)), data=["x" * 2000] * 20)
"""


def test_a_store_that_another_process_is_writing_can_be_opened(tmp_path: Path) -> None:
    """The file grows while its size is looked at."""
    path = tmp_path / "s.sim"
    simstore.open(path).close()
    n = 0
    with subprocess.Popen([sys.executable, "-c", WRITE_IN_A_CHILD, path, "3"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        while child.poll() is None:
            simstore.open(path, mode="r", background=False).close()
            check_size(path / "data.mdb")
            n += 1
    assert child.returncode == 0 and n > 50


# -- who opens what -------------------------------------------------------------------------------------------------------

WATCHED = """
import os, sys
names = set()
def watch(event, args):
    if event in ("open", "os.open", "os.truncate", "os.link", "os.rename", "os.remove", "shutil.copyfile"):
        names.update((event, os.path.basename(os.fsdecode(arg))) for arg in args if isinstance(arg, (str, bytes, os.PathLike)))
import numpy as np, simstore
sys.addaudithook(watch)
path = sys.argv[1]
rng = np.random.default_rng(1)
for _ in range(2):
    with simstore.open(path, metric="l2") as store:
        store.upsert(list(range(50)), rng.standard_normal((50, 8)), labels=["x"] * 50)
        store.optimize()
        store.search(rng.standard_normal(8)), list(store.scan()), store.check(deep=True), store.info(), store.labels()
        store.delete(3)
with simstore.open(path, mode="r") as store:
    store.check(deep=True)
for event, name in sorted(names):
    print(event, name)
"""


def test_lock_mdb_is_opened_by_lmdb_alone(tmp_path: Path) -> None:
    """Closing any handle of it would drop LMDB's locks. (What making a store removes aside was never this store's lock.mdb.)"""
    result = subprocess.run([sys.executable, "-c", WATCHED, tmp_path / "s.sim"], capture_output=True, text=True, check=True)
    seen = {tuple(line.split(" ", 1)) for line in result.stdout.splitlines()}
    assert ("open", "data.mdb") in seen and ("open", "store.json") in seen
    assert {event for event, name in seen if name == "lock.mdb"} <= {"os.remove"}


OPEN_AT_ONCE = """
import sys, time, json, numpy as np, simstore
name, rounds, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
for i in range(rounds):
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        with simstore.open(f"{directory}/{i}.sim", metric="l2", background=False) as store:
            store.add([f"{name}-{j}" for j in range(5)], np.eye(5, 8) + (name == "a"))
            store.add(None, np.ones((1, 8)))
            n, found = len(store), len(store.search(np.ones(8), 100))
        print(json.dumps([n, found]), flush=True)
    except Exception as err:
        print(json.dumps(f"{type(err).__name__}: {err}"), flush=True)
"""


@contextmanager
def children(directory: Path, rounds: int) -> Iterator[list["subprocess.Popen[str]"]]:
    command = [sys.executable, "-c", OPEN_AT_ONCE]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, name, str(rounds), directory], **pipes) for name in "ab"]
    try:
        yield both
    finally:
        for child in both:
            child.stdin.close()  # type: ignore[union-attr]
            child.wait(30)
            child.stdout.close()  # type: ignore[union-attr]


def test_two_processes_make_one_store_at_once(tmp_path: Path) -> None:
    rounds = 20
    with children(tmp_path, rounds) as both:
        for i in range(rounds):
            for child in both:
                assert child.stdout is not None and child.stdout.readline() == "ready\n"
            for child in both:
                assert child.stdin is not None
                child.stdin.write("go\n")
                child.stdin.flush()
            answers = [json.loads(child.stdout.readline()) for child in both if child.stdout is not None]
            assert all(isinstance(answer, list) for answer in answers), (i, answers)
            assert max(n for n, _ in answers) == 12
            with simstore.open(tmp_path / f"{i}.sim", metric="l2") as store:
                assert_tidy(tmp_path / f"{i}.sim", store)
                keys = {item.key for item in store.scan()}
                assert keys == {*(f"{name}-{j}" for name in "ab" for j in range(5)), 0, 1}
                assert store.check(deep=True) == []


def test_threads_make_one_store_at_once(tmp_path: Path) -> None:
    """One of them has it, the others are told so; in a process of its own, since LMDB hangs when a path is opened twice."""
    in_process(open_in_threads, tmp_path)


def in_process(function: Callable[..., None], directory: Path) -> None:
    command = [sys.executable, __file__, function.__name__, str(directory)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr[-4000:]}"


def open_in_threads(directory: str) -> None:
    for i in range(20):
        opened: list[Store] = []
        refused: list[Exception] = []
        path, barrier = Path(directory) / f"{i}.sim", threading.Barrier(3)
        if i % 2:
            simstore.open(path, metric="l2").close()

        def make(
            path: Path = path,
            opened: list[Store] = opened,
            refused: list[Exception] = refused,
            barrier: threading.Barrier = barrier,
        ) -> None:
            barrier.wait()
            try:
                opened.append(simstore.open(path, metric="l2", background=False))
            except Exception as err:
                refused.append(err)

        threads = [threading.Thread(target=make) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(opened) == 1
        assert {type(error) for error in refused} <= {AlreadyOpenError}, refused
        opened[0].add(["a"], np.ones((1, 8)))
        assert opened[0].check(deep=True) == []
        opened[0].close()


def test_opening_a_store_that_is_being_made_to_read(tmp_path: Path) -> None:
    """A reader that looks too early is told that there is no store; it never sees half of one."""
    for i in range(10):
        path = tmp_path / f"{i}.sim"
        thread = threading.Thread(target=lambda path=path: opened_in_a_child(path, "a"), daemon=True)  # type: ignore[misc]
        thread.start()
        deadline = time.monotonic() + 20
        while thread.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(StoreNotFoundError, NotAStoreError):
                simstore.open(path, mode="r").close()
        thread.join(20)
        simstore.open(path, mode="r").close()


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
