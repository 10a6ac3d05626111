"""The command line in processes of its own: what it loads, pipes, odd bytes, Ctrl-C, a terminal."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import simstore

pytest.importorskip("typer")
pytest.importorskip("rich")
ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "simstore"]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "100"}


def run(*words: str | bytes, input: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *words], input=input, capture_output=True, timeout=60, env=ENV, cwd=cwd, check=False)


@pytest.fixture
def path(tmp_path: Path) -> str:
    with simstore.open(tmp_path / "a.sim", background=False) as store:
        store.add([f"key {i}" for i in range(3000)], np.random.default_rng(0).normal(size=(3000, 4)))
    return str(tmp_path / "a.sim")


@pytest.mark.parametrize("words", [["--help"], ["search", "--help"], ["index", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = f"import sys; sys.argv = ['simstore', *{words!r}]\nimport atexit, json\n" + (
        "atexit.register(lambda: sys.stderr.write(json.dumps(sorted(sys.modules))))\nfrom simstore.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=ENV, check=True)
    loaded = json.loads(done.stderr)
    assert "simstore.cli.app" in loaded
    assert [name for name in ("numpy", "tensorflow", "keras", "PIL", "pyarrow", "lmdb", "hnswlib") if name in loaded] == []


def test_search_loads_no_tensorflow(path: str) -> None:
    code = "import sys, atexit; atexit.register(lambda: print('tensorflow' in sys.modules, 'PIL' in sys.modules))\n"
    code += f"sys.argv = ['simstore', 'search', {path!r}, '--key', 'key 1', '--json']\nfrom simstore.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=ENV, check=True)
    assert len(done.stdout.splitlines()) == 11 and done.stdout.endswith("False False\n")


def test_without_typer_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None\nfrom simstore.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=ENV, check=False)
    assert done.returncode == 3 and "pip install 'simstore[cli]'" in done.stderr and "Traceback" not in done.stderr


def test_a_pipe_that_closes_ends_it_silently(path: str) -> None:
    child = subprocess.Popen([*COMMAND, "list", path, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert (child.stderr.read(), child.wait(60)) == (b"", 0)
    child.stderr.close()


def test_keys_and_paths_of_any_bytes(tmp_path: Path) -> None:
    store, key = bytes(tmp_path) + b"/\xff\n.sim", b"a\xff\xfe"
    assert run("add", store, "--key", key, "--vector", "1,2").returncode == 0
    assert json.loads(run("get", store, key, "--json").stdout)["key"] == "a\udcff\udcfe"
    assert run("get", store, key).stdout.splitlines()[1].startswith(b"a\\udcff\\udcfe\t")
    assert run("export", store, "-").stdout.count(b"\n") == 3
    wrong = run("get", bytes(tmp_path) + b"/\xfe", "a")
    assert wrong.returncode == 3 and b"\\udcfe" in wrong.stderr


def on_terminal(*words: str, keys: bytes = b"", until: bytes = b"") -> tuple[int, str]:
    """Runs it on a terminal of its own; types keys once it has said what to wait for."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        os.execve(sys.executable, [*COMMAND, *words], ENV)
    said, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                piece = os.read(terminal, 1 << 16)
            except OSError:  # the child has ended
                break
            if not piece:
                break
            said += piece
        if keys and until in said:
            os.write(terminal, keys)
            keys = b""
    else:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    return code, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode())


def test_on_a_terminal(path: str) -> None:
    code, said = on_terminal("list", path)
    assert code == 0 and "────" in said and "50 of 3,000 items: --limit 0 lists all" in said
    code, said = on_terminal("delete", path, "--where", "true", keys=b"n\n", until=b"Delete them?")
    assert code == 1 and "3,000 items: key 0, key 1" in said and "nothing was deleted" in said
    code, said = on_terminal("delete", path, "--where", "true", keys=b"y\n", until=b"Delete them?")
    assert code == 0 and "3,000 items deleted" in said
    with simstore.open(path, mode="r") as store:
        assert len(store) == 0


def test_ctrl_c(path: str) -> None:
    code, said = on_terminal("delete", path, "--where", "true", keys=b"\x03", until=b"Delete them?")
    assert code == 130 and "Traceback" not in said
    child = subprocess.Popen(
        [*COMMAND, "add", path], stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV
    )
    assert child.stdin is not None
    child.stdin.write(b'{"key": "x", "vector": [1, 2, 3, 4]}\n')
    child.stdin.flush()
    time.sleep(1.5)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and b"interrupted" in err and b"Traceback" not in err


def test_tensorflow_is_silent_when_it_is_imported_and_heard_when_that_fails(tmp_path: Path) -> None:
    (tmp_path / "tensorflow").mkdir()
    noise = "import os, sys\nos.write(2, b'noise ')\nif os.environ.get('FAILS'):\n    raise ImportError('no')\n"
    (tmp_path / "tensorflow/__init__.py").write_text(noise)
    (tmp_path / "tensorflow/inner.py").write_text("value = 3\n")
    code = "from simstore.cli.quiet import quieten_tensorflow as q\nq()\nq()\nimport os, importlib.util\n"
    code += "assert importlib.util.find_spec('tensorflow')\n"
    code += (
        "import tensorflow, tensorflow.inner\nos.write(2, b'after')\nprint(tensorflow.inner.value, tensorflow.__spec__.loader)"
    )
    env = {**ENV, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=env, check=True)
    assert done.stderr == "after" and done.stdout.startswith("3 <_frozen_importlib_external.SourceFileLoader")
    failed = subprocess.run(words, capture_output=True, text=True, timeout=60, env={**env, "FAILS": "1"}, check=False)
    assert failed.returncode == 1 and failed.stderr.startswith("noise ") and "ImportError: no" in failed.stderr


def test_a_shell_is_told_what_completes() -> None:
    env = {**ENV, "_SIMSTORE_COMPLETE": "complete_bash", "COMP_WORDS": "simstore snapshot re", "COMP_CWORD": "2"}
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=60, env=env, check=False)
    assert done.stdout.split() == ["restore"]


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["info"], ["check"], ["--help"], ["get", "nothing"]])
def test_closed_and_full_streams(words: list[str], path: str) -> None:
    full = [words[0], path, *words[1:]] if words[0] != "--help" else words
    expected = 1 if words[0] == "get" else 0
    closed = subprocess.run(["sh", "-c", '"$@" >&- 2>&- <&-', "sh", *COMMAND, *full], timeout=60, env=ENV, check=False)
    assert closed.returncode == expected
    half = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, *full], stderr=subprocess.PIPE, timeout=60, env=ENV, check=False
    )
    assert (half.returncode, b"Traceback" in half.stderr) == (expected, False)
    with open("/dev/full", "wb") as file:
        failed = subprocess.run([*COMMAND, *full], stdout=file, stderr=subprocess.PIPE, timeout=60, env=ENV, check=False)
    assert b"Traceback" not in failed.stderr and (words[0] == "get" or b"No space left" in failed.stderr)
    assert failed.returncode == (3 if words[0] != "get" else failed.returncode)


def test_stdin_that_is_closed(tmp_path: Path) -> None:
    for words in (["add", str(tmp_path / "x.sim")], ["search", str(tmp_path / "x.sim"), "--vector", "-"]):
        done = subprocess.run(
            ["sh", "-c", '"$@" <&-', "sh", *COMMAND, *words], stderr=subprocess.PIPE, timeout=60, env=ENV, check=False
        )
        assert done.returncode in (2, 3) and b"Traceback" not in done.stderr


def test_an_encoding_that_lacks_characters(tmp_path: Path) -> None:
    assert run("add", str(tmp_path / "a.sim"), "--key", "\u6f22\u00e9", "--vector", "1,2", "--data", '"\u2026"').returncode == 0
    env = {**ENV, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([*COMMAND, "list", str(tmp_path / "a.sim")], capture_output=True, timeout=60, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[1] == b'\\u6f22\xe9\t\xe2\x80\x93\t"\\u2026"'.replace(b"\xe2\x80\x93", b"\\u2013")
