"""Files that were read and decoded become examples, or rejections, or no more than a new stamp."""

from collections.abc import Sequence

from simstore.ingest.deciding import restamped, same_label
from simstore.ingest.examples import Aside, Before, Examples, Update
from simstore.ingest.packing import Packing
from simstore.ingest.stamps import Stamp, place_of, rejection, stamp
from simstore.ingest.workers import Failed, Outcome, Same, Taken, Task

__all__ = ["Gathering"]


class Gathering:
    """Makes examples of files. For one thread.

    Args:
        at: When the run began.
    """

    def __init__(self, at: float) -> None:
        self._at = at
        self._packing = Packing()

    def gathered(self, tasks: Sequence[Task], outcomes: Sequence[Outcome], aside: Aside) -> Examples:
        """The files that were decoded, as examples; what is known of the others comes aside.

        Args:
            outcomes: What became of each task.
        """
        examples = Examples.none()
        for task, outcome in zip(tasks, outcomes, strict=True):
            digest = outcome.digest if isinstance(outcome, (Same, Taken)) else 0
            mark = stamp(task.source, task.batch.files[task.at], None, digest)
            if isinstance(outcome, Failed):
                self._reject(task, mark, outcome, aside)
            elif isinstance(outcome, Same):
                _keep(task, mark, aside)
            elif isinstance(outcome, Taken):
                self._append(examples, task, outcome, mark, aside)
        return examples

    def _append(self, examples: Examples, task: Task, taken: Taken, mark: Stamp, aside: Aside) -> None:
        packed = self._packing.one(taken.decoded.data, mark)
        if not isinstance(packed, bytes):
            self._reject(task, mark, Failed("bad data", str(packed)), aside)
            return
        found = task.found
        is_new = found is None and not task.was_rejected
        examples.keys.append(task.batch.keys[task.at])
        examples.labels.append(task.batch.labels[task.at])
        examples.marks.append(mark)
        examples.packed.append(packed)
        examples.before.append(None if is_new else Before(None if found is None else found.row, task.was_rejected))
        examples.inputs.append(taken.decoded.input)

    def _reject(self, task: Task, mark: Stamp, failed: Failed, aside: Aside) -> None:
        batch, i = task.batch, task.at
        aside.rejected.append(rejection(place_of(mark), batch.files[i], batch.keys[i], failed.reason, failed.message, self._at))


def _keep(task: Task, mark: Stamp, aside: Aside) -> None:
    """The item gets the new stamp, and its label if that has changed."""
    key, label, found = task.batch.keys[task.at], task.batch.labels[task.at], task.found
    if found is None:
        return
    if task.was_rejected:
        aside.cleared.append(place_of(mark))
    aside.updates.append(Update(key, label, restamped(found.data, mark), not same_label(label, found.label)))
