"""Change flags of a command line, which refuses a flag that is repeated with another value."""

from collections.abc import Sequence


def with_changes(flags: Sequence[str], changes: Sequence[str]) -> list[str]:
    """Return `changes` after those of the flags, with their values, that they do not give anew."""
    again = {str(word).partition("=")[0] for word in changes if str(word).startswith("--")}
    kept, keep = [], True
    for word in flags:
        if str(word).startswith("--"):
            keep = str(word).partition("=")[0] not in again
        if keep:
            kept.append(word)
    return [*kept, *changes]
