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


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses a flag in one sentence instead of listing all flags."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parse the arguments; refuse --flag=--, which Python 3.11 reads as an empty list."""
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
