"""Values in the readable form of conditions: text to value, and back."""

import json
import re
from datetime import date, datetime
from typing import Any, Final

from simstore.where.operands import Operand

__all__ = ["QUOTED", "literal", "quoted_text", "unquoted", "value_of"]

QUOTED: Final = r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'"
_INT = re.compile(r"[+-]?(?:\d{1,4000}|0x[0-9a-f]+)", re.IGNORECASE | re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|nan)", re.IGNORECASE | re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.,]+(?:Z|[+-][\d:.]+)?", re.ASCII)
_CONSTANTS: Final = {"true": True, "false": False, "null": None, "none": None}
_PLAIN = re.compile(r"(?!b['\"])[^\s(),\"'=<>!\[\]\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_MAX_DECIMAL_BITS = 12_000  # 4,000 digits: Python reads no longer decimals
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_NAMED: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", "'": "'", '"': '"', "/": "/"}


def value_of(token: str) -> Any:
    """The value of a token: a quoted text, b"…", a constant, a number, a date, or a str.

    Raises:
        ValueError: An escape, a date or b"…" that is none; says which.
    """
    if token[0] in "\"'":
        return unquoted(token)
    if token[:2] in ("b'", 'b"'):
        try:
            return unquoted(token[1:]).encode("latin-1")
        except UnicodeEncodeError:
            raise ValueError('bytes from \\x00 to \\xff, as b"a\\xff"') from None
    if token.lower() in _CONSTANTS:
        return _CONSTANTS[token.lower()]
    if _INT.fullmatch(token):
        return int(token, 16 if "x" in token.lower() else 10)
    if _FLOAT.fullmatch(token):
        return float(token)
    for shape, kind in ((_DATE, date), (_DATETIME, datetime)):
        if shape.fullmatch(token):
            try:
                return kind.fromisoformat(token)
            except ValueError:
                raise ValueError(f"a {kind.__name__} that there is; or quotes, which make it a str") from None
    return token


def unquoted(token: str) -> str:
    """The str that stands in quotes.

    Raises:
        ValueError: An escape that is none.
    """

    def char(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        if code and int(code, 16) <= 0x10FFFF:
            return chr(int(code, 16))
        if match[4] in _NAMED:
            return _NAMED[match[4]]
        raise ValueError(f'\\n, \\t, \\\\, \\", \\x.., \\u.... or the like, not {match[0]}')

    return _ESCAPE.sub(char, token[1:-1])


def literal(operand: Operand) -> str:
    """An operand as a token that value_of reads back."""
    value = operand.value
    if isinstance(value, str):
        return value if _is_plain(value) else quoted_text(value)
    if isinstance(value, bytes):
        return 'b"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\x{b:02x}" for b in value) + '"'
    if isinstance(value, date):
        return value.isoformat()
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return hex(value) if isinstance(value, int) and value.bit_length() > _MAX_DECIMAL_BITS else repr(value)


def _is_plain(text: str) -> bool:
    """Whether it needs no quotes: as a token it is the same str. Words that have a meaning get them, to be clear."""
    if not _PLAIN.fullmatch(text) or text.lower() in ("and", "or", "not", "in"):
        return False
    try:
        return bool(value_of(text) == text)
    except ValueError:
        return False


def quoted_text(text: str) -> str:
    """A str in double quotes; what is no printable character is escaped, surrogates one by one."""
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
