"""Files that were read and decoded become examples, or rejections, or no more than a new stamp."""

from collections.abc import Sequence

from simstore.ingest.deciding import restamped, same_label
from simstore.ingest.examples import Aside, Before, Examples, Update
from simstore.ingest.stamps import FIELD, Stamp, place_of, rejection, stamp
from simstore.ingest.workers import Failed, Outcome, Same, Taken, Task

__all__ = ["gathered"]


def gathered(tasks: Sequence[Task], outcomes: Sequence[Outcome], aside: Aside, at: float) -> Examples:
    """The files that were decoded, as examples; what is known of the others comes aside.

    Args:
        outcomes: What became of each task.
        at: When the run began.
    """
    examples = Examples([], [], [], [], [])
    for task, outcome in zip(tasks, outcomes, strict=True):
        batch, i = task.batch, task.at
        digest = outcome.digest if isinstance(outcome, (Same, Taken)) else 0
        mark = stamp(task.source, batch.files[i], None, digest)
        if isinstance(outcome, Failed):
            record = rejection(place_of(mark), batch.files[i], batch.keys[i], outcome.reason, outcome.message, at)
            aside.rejected.append(record)
        elif isinstance(outcome, Same):
            _keep(task, mark, aside)
        elif isinstance(outcome, Taken):
            _append(examples, task, outcome, mark)
    return examples


def _append(examples: Examples, task: Task, taken: Taken, mark: Stamp) -> None:
    batch, i, found = task.batch, task.at, task.found
    examples.keys.append(batch.keys[i])
    examples.labels.append(batch.labels[i])
    examples.data.append({**taken.decoded.data, FIELD: mark})
    examples.inputs.append(taken.decoded.input)
    is_new = found is None and not task.was_rejected
    examples.before.append(None if is_new else Before(None if found is None else found.row, task.was_rejected))


def _keep(task: Task, mark: Stamp, aside: Aside) -> None:
    """The item gets the new stamp, and its label if that has changed."""
    key, label, found = task.batch.keys[task.at], task.batch.labels[task.at], task.found
    if found is None:
        return
    if task.was_rejected:
        aside.cleared.append(place_of(mark))
    aside.updates.append(Update(key, label, restamped(found.data, mark), not same_label(label, found.label)))
