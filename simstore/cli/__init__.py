"""The command line: every capability of a store for people who do not write Python."""
