import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from safefiles import UserError

__version__ = "0.2.0"

# Before anything imports TensorFlow, whose start-up notes would stand above every table.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).parents[1]


class RunError(UserError):
    """A run cannot go on as asked; the message says why and what to do next."""


class Once(argparse._StoreAction):
    """Store the value of a flag; refuse the flag if it is repeated with another value."""

    def __call__(
        self,
        parser: "Parser",  # type: ignore[override]
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        first = parser.given.setdefault(self.dest, values)
        if option_string and first != values and not parser.last_wins:
            both = " and as ".join(
                " ".join(map(str, each)) if isinstance(each, list | tuple) else str(each)
                for each in (first, values)
            )
            parser.error(f"{option_string} is given twice, as {both}; give it once")
        super().__call__(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses a flag in one sentence instead of listing all flags."""

    last_wins = False  # let a flag replace an earlier one, as a worker's flags replace the user's

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("action", None, Once)
        self.given: dict[str, Any] = {}  # the value of each flag so far

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parse the arguments; refuse --flag=--, which Python 3.11 reads as an empty list."""
        self.given.clear()
        options: argparse.Namespace = super().parse_args(args, namespace)
        for name, value in vars(options).items():
            if value == []:
                self.error(f"--{name.replace('_', '-')} needs a value")
        return options

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (\S+): (?=')", r"\1 ", message)  # --epochs '1.5': give …
        message = re.sub(
            r"^argument (\S+): invalid (int|float) value: (.*)$",
            lambda found: f"{found[1]} {found[3]}: give a {'whole ' * (found[2] == 'int')}number",
            message,
        )
        message = message.replace("unrecognized arguments:", "There is no flag")
        self.exit(2, f"{message.rstrip('.')}. --help lists the flags and what they may be.\n")
