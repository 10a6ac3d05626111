"""What a check finds: at most a hundred problems of a kind are listed, the others counted."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from simstore.reports import Problem
from simstore.storage import Database, Environment, Files
from simstore.types import Progress

__all__ = ["BACKUP", "HARMLESS", "REBUILD", "REPAIR", "STAGE", "Finding", "Findings", "Look", "More", "listed"]

MOST = 100
REPAIR = "call repair(), which mends what can be mended and puts what cannot in quarantine; or restore the store from a backup"
BACKUP = "restore the store from a backup"
REBUILD = "open the store with mode='a' and call repair() or optimize(): the items are safe, the segment is rebuilt from them"
STAGE = "call reembed() again: it makes them anew, and nothing is lost"
HARMLESS = "nothing is lost: the log is a shortcut, processes read all tombstones where it does not serve; repair() drops it"


@dataclass(frozen=True, slots=True)
class More:
    """Further problems of a kind, not told one by one."""

    where: str
    n: int
    remedy: str


Finding = Problem | More


def listed(where: str, rows: Iterable[int], describe: Callable[[int], str], remedy: str) -> Iterator[Finding]:
    """A problem for each of the first rows, then how many there are more."""
    n_more = 0
    for i, row in enumerate(rows):
        if i < MOST:
            yield Problem(where, describe(row), remedy)
        else:
            n_more += 1
    if n_more:
        yield More(where, n_more, remedy)


class Findings:
    """Collects problems."""

    def __init__(self) -> None:
        self._problems: dict[Problem, None] = {}
        self._n: dict[str, int] = {}
        self._more: dict[str, More] = {}

    def add(self, finding: Finding) -> None:
        """Lists a problem, or counts it if there are many of its kind; the same one is listed once."""
        kind = finding.where.split()[0]
        if isinstance(finding, Problem):
            if finding in self._problems:
                return
            self._n[kind] = self._n.get(kind, 0) + 1
            if self._n[kind] <= MOST:
                self._problems[finding] = None
                return
            finding = More(kind, 1, finding.remedy)
        known = self._more.get(kind)
        self._more[kind] = More(kind, finding.n + (0 if known is None else known.n), finding.remedy)

    def tells(self, what: str) -> bool:
        """Whether a problem with that text is listed."""
        return any(problem.what == what for problem in self._problems)

    @property
    def problems(self) -> list[Problem]:
        """All of them, in the order they were found, and at the end how many more there are of each kind."""
        return [*self._problems, *(Problem(more.where, f"and {more.n:,} more", more.remedy) for more in self._more.values())]


class Look:
    """What is looked at, and who is told how far it is."""

    def __init__(
        self, environment: Environment, database: Database, files: Files, path: Path, progress: Progress | None
    ) -> None:
        self.environment, self.database = environment, database
        self.files, self.path = files, path
        self._progress = progress
        self.stopped: BaseException | None = None

    def tell(self, stage: str, done: int, total: int) -> None:
        """Calls progress; what it raises ends everything."""
        if self._progress is None:
            return
        try:
            self._progress(stage, done, total)
        except BaseException as err:
            self.stopped = err
            raise
