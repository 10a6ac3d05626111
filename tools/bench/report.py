"""One row per case, with its target beside it; and the same as JSON."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from bench.timing import Ratio

__all__ = ["Report", "Row", "Target", "at_least", "at_most", "header", "row_of"]

_FORMATS = {
    "x": "{:.2f}x",
    "s": "{:.3f} s",
    "ms": "{:.2f} ms",
    "%": "{:.2%}",
    "KB": "{:,.0f} KB",
    "n": "{:,.0f}",
    "": "{:+.4f}",
}
Unit = Literal["x", "s", "ms", "%", "KB", "n", ""]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a result."""

    sign: Literal[">=", "<="]
    bound: float

    def is_met(self, value: float) -> bool:
        """Whether the value keeps to the bound."""
        return value >= self.bound if self.sign == ">=" else value <= self.bound


def at_least(bound: float) -> Target:
    """The value must reach the bound."""
    return Target(">=", bound)


def at_most(bound: float) -> Target:
    """The value must not exceed the bound."""
    return Target("<=", bound)


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one case; without a target it only informs."""

    case: str
    value: float
    unit: Unit
    note: str
    target: Target | None = None
    low: float | None = None
    high: float | None = None

    @property
    def mark(self) -> str:
        """pass, MISS, or nothing."""
        if self.target is None:
            return ""
        return "pass" if self.target.is_met(self.value) else "MISS"

    def line(self) -> str:
        """The row as it is printed."""
        spread = "" if self.low is None or self.high is None else f"{self._as(self.low)} … {self._as(self.high)}"
        target = "" if self.target is None else f"{self.target.sign} {self._as(self.target.bound)}"
        return f"{self.case:<46} {self._as(self.value):>9}  {spread:<19} {target:<12} {self.mark:<5} {self.note}"

    def _as(self, value: float) -> str:
        return _FORMATS[self.unit].format(value)


def row_of(case: str, ratio: Ratio, note: str, target: Target | None = None) -> Row:
    """A row for a timed ratio."""
    return Row(case, ratio.median, "x", note, target, ratio.low, ratio.high)


def header() -> str:
    """Names the columns."""
    return f"{'case':<46} {'result':>9}  {'10 % … 90 %':<19} {'target':<12} {'':<5} what it is made of"


class Report:
    """Prints rows as they come and writes them all at the end."""

    def __init__(self, path: Path, about: dict[str, object]) -> None:
        self.path = path
        self._about = about
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Prints one row, and keeps the JSON file complete up to it."""
        if not self.rows:
            print(header())
        self.rows.append(row)
        print(row.line())
        sys.stdout.flush()
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{**asdict(row), "mark": row.mark} for row in self.rows]
        self.path.write_text(json.dumps({**self._about, "rows": rows}, indent=1, default=str) + "\n", "utf-8")
