"""A calibration as it is kept beside the items: in the store's directory, so that it goes where the store goes."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_digest

from simstore.errors import CorruptStoreError, InvalidArgumentError
from simstore.similarity.types import CalibrationResults
from simstore.storage.encoding import pack, packer, unpack
from simstore.storage.files import LocalFiles, publish_file, write_file
from simstore.store import CALIBRATION

__all__ = ["Calibration", "forget", "read", "write"]

_CHECKSUM_BYTES = 8
_FILES = LocalFiles()


@dataclass(frozen=True, slots=True)
class Calibration:
    """Results, and what they hold for.

    Attributes:
        results: Thresholds and operating points.
        metric: The calibration metric's canonical name.
        k: How many neighbours the matcher was given.
        matcher: The matcher's name.
        matcher_config: The matcher's arguments by name, None if it is one that cannot be kept.
        distance: The name of the distance that the thresholds are of.
        made_by: The fingerprint of the model.
    """

    results: CalibrationResults
    metric: str
    k: int
    matcher: str
    distance: str
    made_by: str
    matcher_config: dict[str, str] | None = field(default_factory=dict)

    def threshold(self, cutpoint: str) -> float:
        """The distance of an operating point.

        Raises:
            InvalidArgumentError: There is none of that name, or no threshold reaches it.
        """
        found = self.results.cutpoints.get(cutpoint)
        if found is not None:
            return float(found["distance"])
        if cutpoint in self.results.unmet:
            best = self.results.unmet[cutpoint]
            raise InvalidArgumentError(
                f"no threshold reaches the target of {cutpoint!r}: the best {self.metric} there was is {best:.4g}. Set a lower "
                "target, or train on"
            )
        known = ", ".join(map(repr, self.results.cutpoints))
        raise InvalidArgumentError(f"cutpoint is one of {known} or 'all', not {cutpoint!r}: name it in thresholds_targets")


def read(directory: Path) -> Calibration | None:
    """The calibration of the store in a directory, None if it has none.

    Raises:
        CorruptStoreError: The file is damaged.
    """
    path = directory / CALIBRATION
    if _FILES.size(path) < 0:
        return None
    content = _FILES.read(path)
    checksum, body = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
    if xxh3_64_digest(body) != checksum:
        raise CorruptStoreError(f"{path} is damaged: remove it, and calibrate again")
    parts: dict[str, Any] = unpack(body)
    return Calibration(CalibrationResults(**parts.pop("results")), **parts)


def write(calibration: Calibration, directory: Path) -> None:
    """Keeps a calibration in the place of the one before; on the disk when it returns.

    Raises:
        StorageFullError, StorageError: It could not be written; the one before is as it was.
    """
    body = pack(packer(), asdict(calibration))
    written = write_file(_FILES, directory, [xxh3_64_digest(body), body], _CHECKSUM_BYTES + len(body))
    publish_file(_FILES, written, directory / CALIBRATION)


def forget(directory: Path) -> None:
    """Removes the calibration, if there is one."""
    _FILES.remove(directory / CALIBRATION)
