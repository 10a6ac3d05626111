"""The report of `simstore index`, for people and as JSON."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from simstore.cli.printing import as_json, key_text, note, print_table

if TYPE_CHECKING:
    from simstore.reports import IngestReport

__all__ = ["print_report", "write_report"]

_N_IGNORED = 5
_STAGES = {"read": "read", "decode": "decode, all threads", "embed": "embed", "write": "write"}


def print_report(done: "IngestReport") -> None:
    """Counts, speed and time per stage."""
    would, spent = "would be " if done.is_dry_run else "", done.stage_seconds
    rows = [
        (f"{would}added", f"{done.added:,}"),
        (f"{would}replaced", f"{done.replaced:,}"),
        (f"{would}relabelled", f"{done.relabelled:,}"),
        ("unchanged", f"{done.unchanged:,}"),
        *((f"rejected: {reason}", f"{n:,}") for reason, n in sorted(done.rejected.items())),
        *([("rejected before", f"{done.rejected_before:,}")] if done.rejected_before else []),
        *([("vanished", f"{done.vanished:,}"), ("deleted", f"{done.pruned:,}")] if done.vanished else []),
        ("embedded", f"{done.n_embedded:,}"),
        ("seconds", f"{done.seconds:,.1f}"),
        ("items a second", f"{done.items_per_s:,.0f}"),
        *((f"seconds to {name}", f"{spent[one]:,.1f}") for one, name in _STAGES.items() if one in done.stage_seconds),
        *_estimate(done),
    ]
    print_table(["", "how many"], rows, right=["how many"])
    _print_notes(done)


def _estimate(done: "IngestReport") -> list[tuple[str, str]]:
    if done.estimate is None:
        return []
    seconds = "unknown" if done.estimate.seconds is None else f"{done.estimate.seconds:,.0f}"
    return [("would take seconds", seconds), ("would take MB", f"{done.estimate.size_bytes / 1e6:,.1f}")]


def _print_notes(done: "IngestReport") -> None:
    if done.vanished_keys and not done.pruned:
        named = ", ".join(map(key_text, done.vanished_keys))
        note(f"no longer there: {named}{', …' if done.vanished > len(done.vanished_keys) else ''}; --prune deletes such items")
    for path, why in done.ignored[:_N_IGNORED]:
        note(f"passed over: {path}: {why}")
    if len(done.ignored) > _N_IGNORED:
        note(f"… {len(done.ignored) - _N_IGNORED:,} more passed over: --json or --report has all")


def write_report(path: str, done: "IngestReport") -> None:
    """Writes it as a JSON file, which appears when it is whole."""
    from simstore.transfer.publishing import new_file

    with new_file(Path(path), overwrite=True) as file:
        file.write((json.dumps(as_json(done.as_dict()), indent=2) + "\n").encode())
