"""Conditions as people write them: ``year>=2020 and label in (cat, dog)``.

A comparison is a path, an operator and a value: ``= == != < <= > >=``, ``in (…)``, ``not in (…)``, ``startswith``,
``contains``; or ``exists`` and a path. They are joined by ``and``, ``or``, ``not`` and parentheses; ``true`` holds for every
item, ``false`` for none.

**Paths.** ``a.b`` is a field of the items' data, ``a[0]`` has an int in it, ``.`` is the data itself; ``key`` and ``label`` are
the item's own. A name with anything but letters, digits, _ and - is put in quotes, and so is a field that is named key, label,
or like a word above: ``"year of birth"."a.b" > 3``.

**Values.** What looks like a number is one; ``2024-05-01`` is a date, ``2024-05-01T12:00`` a datetime (``…+02:00`` or ``…Z``
with a time zone); ``true``, ``false``, ``null``; ``b"\\xff"`` are bytes; everything else is a str, and so is all that stands in
quotes, single or double, with escapes as in JSON.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from simstore.errors import InvalidFilterError
from simstore.where.builders import compare, ops_of
from simstore.where.expressions import MAX_DEPTH, And, Compare, Not, Op, Or, Subject, Where, all_of, any_of
from simstore.where.literals import QUOTED, unquoted, value_of

__all__ = ["KEYWORDS", "parse"]

T = TypeVar("T")

KEYWORDS: Final = frozenset("and or not in exists startswith contains true false key label".split())
_SEGMENT = re.compile(rf"({QUOTED})|([\w-]+)|\[\s*([+-]?\d{{1,30}})\s*\]")
_WORD = re.compile(r"[\w-]+")
_OPERATOR = re.compile(r"==|!=|<=|>=|<>|=|<|>|(?:not\s+in|in|startswith|contains)(?![\w-])", re.IGNORECASE)
_VALUE = re.compile(rf"b?(?:{QUOTED})|[^\s(),\"'=<>!\[\]]+")
_SPACE = re.compile(r"\s*")
_N_SHOWN = 60
_OPS: Final[dict[str, Op]] = {"=": "==", "<>": "!=", "not in": "in"}


def parse(text: str) -> Where:
    """The condition that a text is.

    Raises:
        InvalidFilterError: It cannot be understood; the message shows where, and what was expected there.

    >>> parse("year >= 2020 and not label in (cat, dog)")
    (field("year") >= 2020) & ~label.is_in(["cat", "dog"])
    """
    parser = _Parser(text)
    where = parser.condition(1)
    if parser.at < len(text):
        parser.fail("and, or, or the end")
    return where


class _Parser:
    """Goes through a text once, from left to right; ``at`` is the next character that is no space."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0
        self._go_to(0)

    def condition(self, level: int) -> Where:
        """Everything up to a parenthesis that is not open, or to the end."""
        start = self.at
        return self._checked(start, lambda: self._joined("or", any_of, lambda: self._every(level)))

    def _every(self, level: int) -> Where:
        return self._joined("and", all_of, lambda: self._part(level))

    def _joined(self, word: str, join: Callable[[tuple[Where, ...]], Where], part: Callable[[], Where]) -> Where:
        parts = [part()]
        while self._takes_word(word):
            parts.append(part())
        return join(tuple(parts))

    def _part(self, level: int) -> Where:
        start = self.at
        if level > MAX_DEPTH:
            self.wrong(f"a condition may nest {MAX_DEPTH} levels")
        if self._takes_word("not"):
            return self._checked(start, lambda: Not(self._part(level + 1)))
        if self._takes("("):
            where = self.condition(level + 1)
            if not self._takes(")"):
                self.fail("and, or, or )")
            return where
        if self._takes_word("true") or self._takes_word("false"):
            return And(()) if self._text[start] in "tT" else Or(())
        return self._comparison()

    def _comparison(self) -> Where:
        start = self.at
        if self._takes_word("exists"):
            subject = self._subject("a path, as exists a.b")
            return self._checked(start, lambda: self._compare(subject, "exists", start, None))
        subject = self._subject("a comparison, as year >= 2020")
        place = self.at
        symbol = self._operator(subject)
        op: Any = _OPS.get(symbol, symbol)
        operand = self.at
        given = self._values(symbol) if op == "in" else self._value(symbol)
        found = self._checked(operand, lambda: self._compare(subject, op, place, given))
        return Not(found) if symbol == "not in" else found

    def _compare(self, subject: Subject, op: Op, place: int, given: Any) -> Compare:
        if op not in ops_of(subject):
            self.at = place
            self.wrong(f"{subject.kind} has no {op}, but {' '.join(ops_of(subject))}")
        return compare(subject, op, given, place=f"{subject.kind} {op}" if subject.kind != "field" else op)

    def _operator(self, subject: Subject) -> str:
        match = _OPERATOR.match(self._text, self.at)
        if match is None:
            self.fail(" ".join(op for op in ops_of(subject) if op != "exists") + ", or not in")
        self._go_to(match.end())
        return " ".join(match[0].lower().split())

    def _subject(self, expected: str) -> Subject:
        word = _WORD.match(self._text, self.at)
        if word and word[0] in ("key", "label") and not self._starts_path(word):
            self._go_to(word.end())
            return Subject("key" if word[0] == "key" else "label")
        if word and word[0].lower() in KEYWORDS - {"key", "label"} and not self._starts_path(word):
            self.fail(f'{expected}; a field of this name is written "{word[0]}", in quotes')
        if self._takes("."):
            return Subject("field", ())
        return Subject("field", self._path(expected))

    def _path(self, expected: str) -> tuple[str | int, ...]:
        path: list[str | int] = []
        at = self.at
        while match := _SEGMENT.match(self._text, at):
            path.append(self._name(match))
            at = match.end()
            if self._text[at : at + 1] == ".":
                at += 1
            elif self._text[at : at + 1] != "[":
                self._go_to(at)
                return tuple(path)
        self._go_to(at)
        return self.fail("a name after the dot" if path else expected)

    def _name(self, match: re.Match[str]) -> str | int:
        if match[3] is not None:
            return int(match[3])
        try:
            return unquoted(match[1]) if match[1] else match[2]
        except ValueError as err:
            self.at = match.start()
            self.fail(str(err))

    def _values(self, symbol: str) -> list[Any]:
        close = {"(": ")", "[": "]"}.get(self._text[self.at : self.at + 1], "")
        if not close:
            self.fail(f"( and values, as {symbol} (cat, dog)")
        self._go_to(self.at + 1)
        values: list[Any] = []
        while not self._takes(close):
            if values and not self._takes(","):
                self.fail(f", or {close}")
            values.append(self._value(", or in the list" if values else symbol))
        return values

    def _value(self, after: str) -> Any:
        match = _VALUE.match(self._text, self.at)
        if match is None or match[0].lower() in ("and", "or", "not", "in"):
            is_open = self._text[self.at : self.at + 1] in ('"', "'")
            self.fail("a closing quote" if is_open else f"a value after {after}; quotes make anything a str")
        try:
            value = value_of(match[0])
        except ValueError as err:
            self.fail(str(err))
        self._go_to(match.end())
        return value

    def _takes(self, char: str) -> bool:
        if self._text[self.at : self.at + 1] != char:
            return False
        self._go_to(self.at + 1)
        return True

    def _takes_word(self, word: str) -> bool:
        match = _WORD.match(self._text, self.at)
        if match is None or match[0].lower() != word or self._starts_path(match):
            return False
        self._go_to(match.end())
        return True

    def _starts_path(self, word: re.Match[str]) -> bool:
        return self._text[word.end() : word.end() + 1] in (".", "[")

    def _go_to(self, at: int) -> None:
        space = _SPACE.match(self._text, at)
        self.at = space.end() if space else at

    def _checked(self, at: int, made: Callable[[], T]) -> T:
        """made(), whose refusals are shown at a place; those that have a place already stay."""
        try:
            return made()
        except _PlacedError:
            raise
        except InvalidFilterError as err:
            self.at = at
            self.wrong(str(err))

    def fail(self, expected: str) -> NoReturn:
        """Raises InvalidFilterError: something else was expected here."""
        self.wrong(f"expected {expected}")

    def wrong(self, what: str) -> NoReturn:
        """Raises InvalidFilterError, which shows what is wrong here."""
        before, after = self._text[: self.at], self._text[self.at :]
        shown = [_visible(part) for part in (before[-_N_SHOWN:], after[:_N_SHOWN])]
        cut = "…" if len(before) > _N_SHOWN else ""
        end = "…" if len(after) > _N_SHOWN else ""
        indent = " " * (2 + len(cut) + len(shown[0]))
        raise _PlacedError(f"{what}\n  {cut}{shown[0]}{shown[1]}{end}\n{indent}^")


class _PlacedError(InvalidFilterError):
    """Its message shows the place."""


def _visible(text: str) -> str:
    """The text with a space for each character that would move the caret."""
    return "".join(char if char.isprintable() else " " for char in text)
