"""Makes ``python tools/bench …`` work: the checkout's simstore is what is measured."""

import sys
from pathlib import Path

_TOOLS = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(_TOOLS.parent), str(_TOOLS)]

from bench.cli import main  # noqa: E402  # the path comes first

if __name__ == "__main__":
    sys.exit(main())
