"""``python -m simstore``: the command line."""

from simstore.cli import main

main()
