"""Files in the directory of an open store that belong to nothing: what was left behind, and what others put there."""

from pathlib import Path

from simstore.storage import Database, Environment, Files, Transaction
from simstore.storage.files import TEMPORARY, is_own
from simstore.store import opening
from simstore.store.findings import Look
from simstore.store.models import EMBEDDERS
from simstore.store.opening import COMPACTED, Opened

__all__ = ["foreign", "left_behind", "remove_left_behind", "remove_spare_models"]


def left_behind(look: Look) -> list[Path]:
    """The files that no transaction names. Who can only read cannot tell them from those that are being published: none."""
    environment = look.environment
    if environment.readonly:
        return []

    def unnamed(txn: Transaction) -> list[Path]:
        opened = Opened(look.path, environment, look.database, look.database.schema(txn))
        return [file for file in opening.left_behind(txn, opened, look.files) if not is_own(file.name)]

    with environment.reading() as txn:
        is_clean = not unnamed(txn)
    return [] if is_clean else environment.write(unnamed)


def remove_left_behind(look: Look) -> list[Path]:
    """Removes them; returns which."""
    with look.environment.reading() as txn:
        opened = Opened(look.path, look.environment, look.database, look.database.schema(txn))
    return opening.remove_left_behind(opened, look.files, lambda file: not is_own(file.name))


def remove_spare_models(environment: Environment, database: Database, path: Path, files: Files) -> None:
    """Removes the files of models that neither the store nor a snapshot needs any more."""
    if not files.list_dir(path / EMBEDDERS):
        return
    with environment.reading() as txn:
        opened = Opened(path, environment, database, database.schema(txn))
    opening.remove_left_behind(opened, files, lambda file: file.parent.name == EMBEDDERS and not is_own(file.name))


def foreign(path: Path, files: Files) -> list[str]:
    """The names in a store's directory that are none of a store's."""
    return [name for name in files.list_dir(path) if name not in opening.OURS and not name.startswith((TEMPORARY, COMPACTED))]
