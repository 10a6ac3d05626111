"""Labels from paths."""

import os
import re
from collections.abc import Callable

from simstore.types import Label

__all__ = ["PathLabel", "no_label", "path_label", "subfolder_label"]

PathLabel = Callable[[str, str], Label]
"""Called as label(path, key): the absolute path, and the one relative to the root."""


def path_label(label_from: str | None, *, default: PathLabel) -> PathLabel:
    """What makes labels of paths.

    Args:
        label_from: As in ReadOptions.
        default: For label_from=None.
    """
    if label_from is None:
        return default
    if label_from == "none":
        return no_label
    if label_from == "parent":
        return lambda path, key: os.path.basename(os.path.dirname(path)) or None
    pattern = re.compile(label_from)
    group: int | str = "label" if "label" in pattern.groupindex else min(1, pattern.groups)

    def label(path: str, key: str) -> Label:
        match = pattern.search(key)
        return None if match is None else match.group(group)

    return label


def no_label(path: str, key: str) -> Label:
    """No label."""
    return None


def subfolder_label(path: str, key: str) -> Label:
    """The name of the folder that a file lies in, where that is not the root."""
    return os.path.basename(os.path.dirname(key)) or None
