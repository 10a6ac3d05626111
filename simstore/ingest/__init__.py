"""Data sets, taken into a store: read, decoded, embedded, written; run again it goes on from where it was. See DESIGN.md."""

from simstore.ingest.fitting import texts_of
from simstore.ingest.run import ingest
from simstore.ingest.settings import Settings, Stop

__all__ = ["Settings", "Stop", "ingest", "texts_of"]
