"""Conditions written as simstore.where.text reads them."""

import re

from simstore.errors import InvalidFilterError
from simstore.where.expressions import And, Compare, Not, Or, Subject, Where
from simstore.where.literals import literal, quoted_text
from simstore.where.operands import Operand, Operands
from simstore.where.text import KEYWORDS

__all__ = ["text_of"]

_NAME = re.compile(r"[\w-]+")


def text_of(where: Where) -> str:
    """The condition as a text that parse() reads back.

    >>> from simstore.where import field, label
    >>> text_of((field("year") >= 2020) & ~label.is_in(["cat", "a dog"]))
    'year >= 2020 and not label in ("a dog", cat)'
    """
    if isinstance(where, Not):
        return f"not {_grouped(where.part)}"
    if isinstance(where, (And, Or)):
        word = " and " if isinstance(where, And) else " or "
        return word.join(map(_grouped, where.parts)) or ("true" if isinstance(where, And) else "false")
    if isinstance(where, Compare):
        return _comparison(where)
    raise InvalidFilterError(f"no condition: {where!r:.60}")


def _grouped(where: Where) -> str:
    needs = isinstance(where, (And, Or)) and len(where.parts) > 1
    return f"({text_of(where)})" if needs else text_of(where)


def _comparison(where: Compare) -> str:
    subject = _subject(where.subject)
    if isinstance(where.operand, Operands):
        values = [Operand(kind, value) for kind, group in where.operand.by_kind for value in group]
        return f"{subject} in ({', '.join(sorted(map(literal, values)))})"
    return f"exists {subject}" if where.operand is None else f"{subject} {where.op} {literal(where.operand)}"


def _subject(subject: Subject) -> str:
    if subject.kind != "field":
        return subject.kind
    text = ""
    for part in subject.path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _is_plain(part) else quoted_text(part))
    return text or "."


def _is_plain(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name.lower() not in KEYWORDS
