"""TensorFlow without what it writes to stderr when it is loaded, none of which concerns who searches for a picture."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["quieten_tensorflow", "silenced"]


def quieten_tensorflow() -> None:
    """From now on it is silent when it is imported, whoever does so; nothing is imported here."""
    if "tensorflow" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds TensorFlow as the others do, and has its loader silenced. Many only look whether it is there."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See MetaPathFinder."""
        if fullname != "tensorflow":
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                spec.loader = None if spec.loader is None else _Silent(spec.loader)
                return spec
        return None


class _Silent(Loader):
    """A loader, silenced."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See Loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """See Loader."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader  # what is asked of it later is its own affair
        with silenced():
            self._loader.exec_module(module)


@contextmanager
def silenced() -> Iterator[None]:
    """What is written to file 2 within, by whatever language, is dropped; it is shown after all if something is raised."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            _show(said.fileno(), kept)
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _show(said: int, where: int) -> None:
    os.lseek(said, 0, os.SEEK_SET)
    while content := os.read(said, 1 << 16):
        os.write(where, content)
