"""The README's examples run, each line prints or returns what stands behind it."""

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 7


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=["quick start", "filters", "snapshots", "health", "keras", "index", "similarity"]
)
def test_an_example(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines, names = example.splitlines(), {"__name__": "readme"}
    n_compared = compared(ast.parse(example).body, lines, names)
    assert n_compared >= 1


def compared(statements: list[ast.stmt], lines: list[str], names: dict[str, Any]) -> int:
    """Runs statements one by one; compares what they print, or return, with the comment behind them; how many were."""
    n = 0
    for statement in statements:
        if isinstance(statement, ast.With):  # its body, line by line, too
            with contextlib.ExitStack() as stack:
                for item in statement.items:
                    value = eval(compile(ast.Expression(item.context_expr), "README", "eval"), names)
                    assert isinstance(item.optional_vars, ast.Name)
                    names[item.optional_vars.id] = stack.enter_context(value)
                n += compared(statement.body, lines, names)
            continue
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            if not isinstance(statement, ast.Expr):
                exec(compile(ast.Module([statement], []), "README", "exec"), names)
                continue
            value = eval(compile(ast.Expression(statement.value), "README", "eval"), names)
        said = shown.getvalue().strip() if value is None else repr(value)
        comment = lines[statement.lineno - 1].partition("  # ")[2]
        if said and comment:
            assert comment.startswith(said), (lines[statement.lineno - 1], said)
            n += 1
        echoes = statement.col_offset == 0  # typed in an interpreter
        assert value is None or comment or not echoes, f"{lines[statement.lineno - 1]} returns {said}: say so"
    return n
