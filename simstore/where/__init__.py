"""Conditions on items: which key, label and data a search, a count or a delete is about.

A condition is data: it prints as the Python that makes it, compares, hashes, and a planner sees inside. It is written with
``field``, ``label`` and ``key``, or as a plain dict, which gives the same objects:

    >>> from simstore.where import field, label, where_of
    >>> (field("year") >= 2020) & ~label.is_in(["cat", "dog"])
    (field("year") >= 2020) & ~label.is_in(["cat", "dog"])
    >>> where_of({"year": {"$gte": 2020}, "$not": {"$label": {"$in": ["cat", "dog"]}}})
    (field("year") >= 2020) & ~label.is_in(["cat", "dog"])

**Paths.** ``field("a.b")`` is what ``data["a"]["b"]`` holds; a decimal segment (no sign, no leading zero) is also the index,
from 0, in a list. ``field(("a.b", 0))`` is not split: its segments are the keys "a.b" and 0 (or the list's first element).
``field(())`` is the data itself.

**Kinds.** A value is of one kind: None; bool; number (int and float together, compared exactly; True is no number); str; bytes;
datetime with a time zone (compared as a moment); datetime without one; date; or none of these (a list, a dict, an array, NaT,
anything else). A numpy scalar or a 0-d array counts as what it holds, a 1-d array or a tuple as a list; datetime64 is a
datetime without a time zone (cut to microseconds), or a date if its unit is a day or coarser; a long double counts as the
nearest float64. Strings sort by code point, bytes by byte, False before True.

**Comparisons** (== != < <= > >=, is_in, startswith) are true only of a value of the operand's kind. A field that is missing,
None or of another kind makes each of them False, ``!=`` too: ``field("x") != 3`` are the numbers other than 3, and
``~(field("x") == 3)`` is everything else than ``field("x") == 3``. NaN compares as False with everything, in ``!=`` too.
``== None`` is: the value is there and is None; ``!= None``: it is there and is not None (whatever else it is). An item without
a label has the label None.

**contains(x)** is true of a list that has an element equal to x by these rules, of a str that has the str x in it, and of bytes
that have the bytes x in them; never of a dict. **exists()** is true if the path is there, even if the value is None.

``parse("year>=2020 and label in (cat, dog)")`` reads a condition as people write it, ``text_of`` writes it so;
simstore.where.text has the rules.

No condition raises while it is matched, whatever the data is. Conditions nest at most 100 levels.
"""

from simstore.where.builders import field, key, label
from simstore.where.dicts import where_of
from simstore.where.expressions import And, Compare, Not, Or, Subject, Where, subjects
from simstore.where.matching import Matcher, compiled
from simstore.where.operands import Operand, Operands
from simstore.where.text import parse
from simstore.where.wording import text_of

__all__ = [
    "And",
    "Compare",
    "Matcher",
    "Not",
    "Operand",
    "Operands",
    "Or",
    "Subject",
    "Where",
    "compiled",
    "field",
    "key",
    "label",
    "parse",
    "subjects",
    "text_of",
    "where_of",
]
