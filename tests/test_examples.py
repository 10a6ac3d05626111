"""The scripts in tools/examples, on a small budget."""

import asyncio
import json
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import simstore

pytest.importorskip("tensorflow", reason="needs the extra simstore[keras]")
pytest.importorskip("sklearn", reason="its digits are the data")
pytest.importorskip("matplotlib", reason="needs the extra simstore[viz]").use("Agg")

TOOLS = Path(__file__).resolve().parents[1] / "tools"
EXAMPLES = sorted((TOOLS / "examples").glob("*.py"))
sys.path.insert(0, str(TOOLS))

Run = Callable[..., str]


@pytest.fixture
def output_of(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script with options; returns what it prints."""

    def run(name: str, *options: str | Path) -> str:
        assert import_module(f"examples.{name}").main([str(option) for option in options]) == 0
        return capsys.readouterr().out

    return run


def percentages(output: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+)%", output)]


def test_hello_world(output_of: Run, tmp_path: Path) -> None:
    output = output_of("hello_world", "--dataset", "digits", "--epochs", "1", "--steps", "20", "--out", tmp_path)
    found = re.search(r"\{'precision@1': ([\d.]+)\}", output)
    assert found is not None and float(found[1]) > 0.8
    assert {"neighbors.png", "confusion.png", "map.html"} == {path.name for path in tmp_path.iterdir()}


def test_unseen_classes(output_of: Run) -> None:
    output = output_of("unseen_classes", "--dataset", "digits", "--steps", "10")
    found = re.search(r"\{'precision@1': ([\d.]+)\}", output)
    assert found is not None and 0.25 < float(found[1]) <= 1  # of four classes


@pytest.mark.parametrize("algorithm", ["simclr", "simsiam", "barlow", "vicreg"])
def test_self_supervised(algorithm: str, output_of: Run, tmp_path: Path) -> None:
    options = ["--dataset", "digits", "--algorithm", algorithm, "--epochs", "1", "--steps", "3", "--out", str(tmp_path)]
    learned, pixels = percentages(output_of("self_supervised", *options))
    assert learned > 25 and pixels > 80  # of ten classes
    assert (tmp_path / "views.png").is_file()


def test_text_search(output_of: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.text_search.folders", lambda: [Path(json.__file__).parent, Path(asyncio.__file__).parent])
    output = output_of("text_search", "--pairs", "100", "--epochs", "2", "--store", tmp_path / "texts.sim")
    first, ten, *_ = percentages(output)
    assert "90 pairs to train on, 10 held out" in output and 0 <= first <= ten <= 100
    with simstore.open(tmp_path / "texts.sim") as store:
        assert len(store) == 100 and store.check(deep=True) == []


def test_knowledge_graph(output_of: Run, tmp_path: Path) -> None:
    output = output_of("knowledge_graph", "--epochs", "2", "--steps", "60", "--store", tmp_path / "letters.sim")
    first, ten, guessed_first, guessed_ten = percentages(output)
    assert first > guessed_first and ten > guessed_ten
    with simstore.open(tmp_path / "letters.sim") as store:
        assert store.labels()["fact"] > 5000 and store.check() == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_help_is_the_docstring(path: Path, output_of: Run, capsys: pytest.CaptureFixture[str]) -> None:
    doc = path.read_text("utf-8").split('"""')[1]
    assert doc.splitlines()[2].strip().startswith(f"python tools/examples/{path.name} ")
    with pytest.raises(SystemExit, match="0"):
        output_of(path.stem, "--help")
    assert doc.strip() in capsys.readouterr().out
