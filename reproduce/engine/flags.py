"""The command line of every script, made from its Config, and how errors reach the user."""

import argparse
import contextlib
import dataclasses
import inspect
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from data import DataError
from evaluation import EvaluationError
from models import ModelError
from reproduce import ROOT, RunError


def arguments(config: type, demo: dict, about: str, datasets: Sequence[str]):
    """(Config, options): what to run, from a flag a field of `config`, and how to run it.

    Without --data-dir the demo's settings run on drawn phantoms, with it the paper's on the data.
    """
    parser = argparse.ArgumentParser(
        description=about,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    how = parser.add_argument_group("how to run")
    how.add_argument("--data-dir", metavar="DIR", help="the dataset as released; none: phantoms")
    how.add_argument("--dataset", choices=datasets, default=datasets[0])
    how.add_argument("--preset", choices=("demo", "paper"), help="default: paper with --data-dir")
    how.add_argument("--rows", nargs="+", metavar="ROW", help="only these, and what they need")
    how.add_argument("--seeds", type=_seeds, default=(0,), metavar="0,1,2")
    how.add_argument("--results-dir", type=Path, default=ROOT / "results", metavar="DIR")
    how.add_argument("--cache-dir", type=Path, default=ROOT / ".cache", metavar="DIR")
    how.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    yes_no = argparse.BooleanOptionalAction
    how.add_argument("--jit", action=yes_no, help="compile with XLA; default: on a GPU only")
    how.add_argument("--fast", action=yes_no, default=True, help="fused layers, on TensorFlow")
    how.add_argument("--allow-missing", action="store_true", help="go on without missing images")
    how.add_argument("--skip-corrupt", action="store_true", help="go on without unreadable images")
    how.add_argument("--resamples", type=_positive, default=1000, metavar="N", help="of patients")
    how.add_argument("--split-file", type=Path, metavar="FILE", help="run on this split.csv.gz")
    how.add_argument("--phantoms", type=_positive, metavar="N", help="images to draw for the demo")
    what = parser.add_argument_group("settings, with the paper's value [the demo's] and its origin")
    allowed = get_type_hints(config)
    for field, origin in _origins(config).items():
        default = getattr(config, field)
        kind: dict[str, Any] = {"type": type(default), "metavar": ""}
        if isinstance(default, bool):
            kind = {"action": yes_no}
        elif get_origin(allowed[field]) is Literal:
            kind = {"type": type(default), "choices": get_args(allowed[field])}
        shown = f"{default} [{demo[field]}]" if field in demo else f"{default}"
        flag = "--" + field.replace("_", "-")
        what.add_argument(flag, help=f"{shown}: {origin}".replace("%", "%%"), **kind, default=None)
    given = vars(parser.parse_args())
    chosen = {field: given.pop(field) for field in _origins(config)}
    chosen = {field: value for field, value in chosen.items() if value is not None}
    options = argparse.Namespace(**given)
    options.preset = options.preset or ("paper" if options.data_dir else "demo")
    preset = config(**demo) if options.preset == "demo" else config()
    if "size" in chosen and "resize" not in chosen and hasattr(config, "resize"):
        # what is cut out of the decoded image stays the same share of it
        chosen["resize"] = round(preset.resize * chosen["size"] / preset.size)
    return dataclasses.replace(preset, **chosen), options


def _origins(config: type) -> dict[str, str]:
    """Each field of a Config and the comment behind it, which says where its value comes from."""
    declared = [each for each in config.__mro__ if dataclasses.is_dataclass(each)]
    text = "\n".join(map(inspect.getsource, declared))
    origins = dict(re.findall(r"^    (\w+): .*?  # (.*)$", text, re.MULTILINE))
    fields = [field.name for field in dataclasses.fields(config)]
    if lacking := [field for field in fields if field not in origins]:
        raise TypeError(f"Config.{lacking[0]} needs a comment behind it that names its origin")
    return {field: origins[field] for field in fields}


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(int(seed) for seed in text.split(",")))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


@contextlib.contextmanager
def one_sentence(stopped: str = "Stopped; the same command goes on from the last whole epoch."):
    """A user's error as its sentence and exit code 2; Ctrl-C as one sentence and 130.

    The end of a pipe that reads no further (`| head -1`) ends the command without a word.
    """
    try:
        yield
        sys.stdout.flush()  # here, where a closed pipe can still be caught
    except (DataError, EvaluationError, ModelError, RunError) as error:
        print(f"\n{error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        # what Python would still write at its end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:  # a path that no file can have, a full disk, a folder without rights
        where = f"{error.filename}: " if error.filename else ""
        advice = "check the path, the rights to it and the space on its disk, and run this again."
        print(f"\n{where}{error.strerror or error}; {advice}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        raise SystemExit(130) from None
