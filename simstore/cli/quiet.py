"""TensorFlow without what it writes to stderr when it is loaded, none of which concerns who searches for a picture."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["load_keras", "silenced"]


def load_keras() -> None:
    """Loads Keras and its backend, if they are not loaded yet.

    Raises:
        KerasMissingError: They are not installed.
    """
    if "keras" in sys.modules:
        return
    from simstore.embedders.keras import import_keras

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silenced():
        import_keras()


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
