"""Run `python -m reproduce.rescore` in this process."""

from reproduce.rescore import __main__ as command


def rescore(*arguments) -> int:
    """Return the exit code of the command."""
    try:
        return command.main([*map(str, arguments)])
    except SystemExit as end:
        return end.code
