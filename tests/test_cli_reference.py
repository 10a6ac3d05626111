"""The README's command line reference is what the help texts say."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("typer")
ROOT = Path(__file__).parents[1]


def test_the_readme_has_the_reference_of_now() -> None:
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "tools/cli_reference.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert tool.written(readme) == readme, "run tools/cli_reference.py"
    assert "**`simstore search STORE`**" in readme


def test_without_the_markers_it_says_so() -> None:
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "tools/cli_reference.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with pytest.raises(ValueError, match="has not the markers"):
        tool.written("nothing")
