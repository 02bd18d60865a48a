"""The command line of every script, made from its Config, and how errors reach the user."""

import argparse
import contextlib
import dataclasses
import inspect
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from evaluation import operating_points, subgroups
from reproduce import ROOT, Parser, RunError
from reproduce.engine import backend, cluster, ranges
from safefiles import UserError

YES_NO = argparse.BooleanOptionalAction


def arguments(
    config: type, demo: dict, about: str, datasets: Sequence[str], only_for: dict | None = None
):
    """(Config, options): what to run, from a flag a field of `config`, and how to run it.

    Without --data-dir the demo's settings run on drawn phantoms, with it the paper's on the data.
    `only_for` says which settings belong to one dataset alone.
    """
    parser = Parser(
        description=about,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_how_to_run(parser.add_argument_group("how to run"), datasets)
    fields = [field.name for field in dataclasses.fields(config)]
    _add_tables(parser.add_argument_group("tables, which never train a row anew"), datasets)
    _add_cluster(parser.add_argument_group("rows on several GPUs and hosts, docs/cluster.md"))
    _add_settings(
        parser.add_argument_group("settings, with the paper's value [the demo's] and its origin"),
        config,
        demo,
    )
    given = vars(parser.parse_args())
    chosen = {field: given.pop(field) for field in fields}
    chosen = {field: value for field, value in chosen.items() if value is not None}
    options = argparse.Namespace(**given)
    _refuse_ignored(options, chosen, only_for or {})
    backend.check_choice()
    cluster.check(options)
    options.preset = options.preset or ("paper" if options.data_dir else "demo")
    preset = config(**demo) if options.preset == "demo" else config()
    if "size" in chosen and "resize" not in chosen and hasattr(config, "resize"):
        # what is cut out of the decoded image stays the same share of it
        chosen["resize"] = round(preset.resize * chosen["size"] / preset.size)
    made = dataclasses.replace(preset, **chosen)
    ranges.check(made)
    backend.check_devices(options.devices_per_row, made.batch_size)
    return made, options


def defaults(datasets: Sequence[str]) -> argparse.Namespace:
    """How a script runs if no flag is given, for code that runs its rows."""
    parser = argparse.ArgumentParser()
    _add_how_to_run(parser, datasets)
    _add_tables(parser, datasets)
    _add_cluster(parser)
    return parser.parse_args([])


def _add_how_to_run(group, datasets: Sequence[str]) -> None:
    add = group.add_argument
    add("--data-dir", metavar="DIR", help="the dataset as released; none: phantoms")
    add("--dataset", choices=datasets, default=datasets[0])
    add("--preset", choices=("demo", "paper"), help="default: paper with --data-dir")
    add("--rows", nargs="+", metavar="ROW", help="only these, and what they need")
    add("--search", nargs="+", default=(), metavar="SETTING=A,B", help="best on validation")
    add("--seeds", type=seeds, default=(0,), metavar="0,1,2")
    add("--split-file", type=Path, metavar="FILE", help="run on this split.csv.gz")
    add("--retry-failed", action="store_true", help="try rows again that failed before")
    add("--results-dir", type=Path, default=ROOT / "results", metavar="DIR")
    add("--cache-dir", type=Path, default=ROOT / ".cache", metavar="DIR")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto")
    add("--deterministic", action="store_true", help="bit for bit on GPUs too, slower")
    add("--jit", action=YES_NO, help="compile with XLA; default: as Keras, not on TensorFlow's CPU")
    add(
        "--steps-per-execution", type=_positive, metavar="N", help="default: 8 on TensorFlow's GPUs"
    )
    add("--fast", action=YES_NO, default=True, help="fused layers, on TensorFlow")
    add("--allow-missing", action="store_true", help="go on without missing images")
    add("--skip-corrupt", action="store_true", help="go on without unreadable images")
    add("--phantoms", type=_positive, metavar="N", help="images to draw for the demo")


def _add_tables(group, datasets: Sequence[str]) -> None:
    add, youden = group.add_argument, operating_points.Rule(operating_points.YOUDEN)
    add("--resamples", type=_positive, default=1000, metavar="N", help="of patients")
    add(
        "--operating-point",
        type=operating_points.parse,
        default=youden,
        metavar="RULE",
        help="youden (default), sensitivity=0.9 or specificity=0.9; chosen on validation",
    )
    add("--by", type=subgroups.parse, default=(), metavar="A,B", help="subgroups: sex, age, view")
    add("--calibrate", action="store_true", help="reliability; temperature fitted on validation")
    if [*datasets] == ["chestxray14"]:
        add(
            "--released",
            type=Path,
            metavar="DIR",
            help="with predictions that others released: rows of their own (default: released)",
        )


def _add_cluster(group) -> None:
    add = group.add_argument
    add("--on", choices=("here", "ray"), default="here", help="ray: rows at once; default: here")
    add("--address", metavar="HOST:PORT", help="a running Ray cluster; default: RAY_ADDRESS, none")
    add("--gpus-per-row", type=_share, metavar="N", help="default: 1, or 0 where there are none")
    add("--cpus-per-row", type=_positive, metavar="N", help="default: the GPU's share of its host")
    add("--devices-per-row", type=_positive, default=1, metavar="N", help="of one host; JAX only")
    add("--only-train", help=argparse.SUPPRESS)  # what a task starts: DIGEST of the run


def _add_settings(group, config: type, demo: dict) -> None:
    allowed = get_type_hints(config)
    annotated = get_type_hints(config, include_extras=True)
    for field, origin in origins(config).items():
        default = getattr(config, field)
        words = ranges.words_of(annotated[field])
        kind: dict[str, Any] = {"type": _number(type(default), words), "metavar": ""}
        if isinstance(default, bool):
            kind = {"action": YES_NO}
        elif get_origin(allowed[field]) is Literal:
            kind = {"type": type(default), "choices": get_args(allowed[field])}
        shown = f"{default} [{demo[field]}]" if field in demo else f"{default}"
        flag = "--" + field.replace("_", "-")
        group.add_argument(flag, help=f"{shown}: {origin}".replace("%", "%%"), **kind, default=None)


def origins(config: type) -> dict[str, str]:
    """Each field of a Config and the comment behind it, which says where its value comes from."""
    declared = [each for each in config.__mro__ if dataclasses.is_dataclass(each)]
    text = "\n".join(map(inspect.getsource, declared))
    comments = dict(re.findall(r"^    (\w+): .*?  # (.*)$", text, re.MULTILINE))
    fields = [field.name for field in dataclasses.fields(config)]
    if lacking := [field for field in fields if field not in comments]:
        raise TypeError(f"Config.{lacking[0]} needs a comment behind it that names its origin")
    return {field: comments[field] for field in fields}


def _refuse_ignored(options: argparse.Namespace, chosen: dict, only_for: dict) -> None:
    """A flag that would change nothing is a misunderstanding, so it is refused."""
    for field, dataset in only_for.items():
        if field in chosen and options.dataset != dataset:
            flag = "--" + field.replace("_", "-")
            raise RunError(f"{flag} is for --dataset {dataset} alone: leave it out.")
    released = vars(options).get("released")  # of the scripts on ChestX-ray14
    if released and not released.is_dir():
        raise RunError(
            f"There is no folder {released}, which --released names. Get the files first: "
            f"python -m reproduce.rescore zech2018 --released {released} --download"
        )
    if released and not options.data_dir:
        raise RunError("--released stands beside real radiographs alone: give --data-dir as well.")
    if options.data_dir and options.phantoms:
        raise RunError("--phantoms draws images where no --data-dir is given: leave one of them.")
    for flag, given in (
        ("allow-missing", options.allow_missing),
        ("skip-corrupt", options.skip_corrupt),
    ):
        if given and not options.data_dir:
            raise RunError(f"--{flag} is for a dataset: give its folder with --data-dir.")


def _number(kind: type, words: str) -> Callable[[str], Any]:
    """A flag's type: the number, or a sentence that says which numbers it may be."""

    def number(text: str):
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: give {words}") from None

    return number if words else kind


def seeds(text: str) -> tuple[int, ...]:
    """The numbers of a --seeds flag."""
    try:
        given = tuple(dict.fromkeys(int(seed) for seed in text.split(",")))
    except ValueError:
        given = (-1,)
    if not all(0 <= seed < 2**31 for seed in given):
        raise argparse.ArgumentTypeError(
            f"{text!r}: give whole numbers from 0 to {2**31 - 1}, such as 0,1,2"
        )
    return given


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least 1")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not (0 <= share < 1 or (1 <= share < 1000 and share == int(share))):
        raise argparse.ArgumentTypeError(
            f"{text!r}: give a whole number of GPUs, or a part such as 0.5"
        )
    return share


class Terminated(BaseException):
    """SIGTERM: what a cluster sends before it takes the machine away."""


def _terminate(_signal, _frame):
    raise Terminated


@contextlib.contextmanager
def one_sentence(stopped: str = "Stopped; the same command goes on from the last whole epoch."):
    """A user's error as its sentence and exit code 2; Ctrl-C as 130, SIGTERM as 143.

    The end of a pipe that reads no further (`| head -1`) ends the command without a word.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without Unicode must not end a run
            stream.reconfigure(errors="backslashreplace")
    with contextlib.suppress(ValueError):  # outside the main thread
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
        sys.stdout.flush()  # here, where a closed pipe can still be caught
    except UserError as error:
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
    except Terminated:
        print(f"\n{stopped}", file=sys.stderr)
        raise SystemExit(143) from None
