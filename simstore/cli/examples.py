"""Examples under a command's help."""

__all__ = ["examples"]


def examples(*lines: str) -> str:
    """The epilog that shows them, a line each."""
    return "\n\n".join(["Examples:", *lines])
