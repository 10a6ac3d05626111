"""Patterns of paths: *, ?, [abc] within a name, and ** for any number of folders."""

import fnmatch
import glob
from collections.abc import Iterator

from simstore.readers.walking import Found, Note, walk

__all__ = ["fixed_folder", "is_pattern", "matches"]


def is_pattern(path: str) -> bool:
    """Whether a path holds *, ? or [."""
    return glob.has_magic(path)


def fixed_folder(pattern: str) -> str:
    """The folder above the first part of a pattern that is not fixed.

    Args:
        pattern: Absolute.
    """
    fixed = []
    for part in pattern.split("/"):
        if is_pattern(part):
            break
        fixed.append(part)
    return "/".join(fixed) or "/"


def matches(pattern: str, *, note: Note) -> Iterator[Found]:
    """The files that a pattern names, in sorted order, and those below folders that it names.

    Args:
        pattern: Absolute, with *, ? or [ in it.

    Raises:
        RejectedError: Its fixed folder cannot be listed.
    """
    root = fixed_folder(pattern)
    parts = [part for part in pattern[len(root) :].split("/") if part]
    for found in walk(root, note=note, enter=lambda key: _may_hold(key.split("/"), parts)):
        names = str(found.key).split("/")
        if _matches(names, parts) or ("**" not in parts and _matches(names[: len(parts)], parts)):
            yield found


def _matches(names: list[str], parts: list[str]) -> bool:
    if not parts or not names:
        return not parts and not names
    if parts[0] != "**":
        return _fits(names[0], parts[0]) and _matches(names[1:], parts[1:])
    if len(parts) == 1:
        return not any(name.startswith(".") for name in names)
    return _matches(names, parts[1:]) or (not names[0].startswith(".") and _matches(names[1:], parts))


def _fits(name: str, part: str) -> bool:
    """As in a shell, * and ? match no leading dot."""
    return fnmatch.fnmatchcase(name, part) and (part[0] == "." or name[0] != ".")


def _may_hold(names: list[str], parts: list[str]) -> bool:
    """Whether a folder may hold something that the parts match; below what they match, everything is entered."""
    for name, part in zip(names, parts, strict=False):
        if part == "**":
            return True
        if not _fits(name, part):
            return False
    return True
