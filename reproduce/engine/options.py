"""The command line of every script: flags from its Config and from Options, and how errors end it.

A paper's Config says what is run; each of its fields becomes a flag. Options say how it is run, and
are the same for all scripts. The types below say which values a setting may have:
`size: Pixels = 224`. Flags, --search and rebuilt runs are checked alike.
"""

import argparse
import contextlib
import dataclasses
import inspect
import io
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import downloads
from data.datasets import DATASETS
from evaluation import operating_points, subgroups
from models.backbones import BACKBONES
from reproduce import ROOT, Parser, RunError
from reproduce.engine import backend
from safefiles import UserError

# Which values a setting may have


class Range(NamedTuple):
    """The numbers from `low` to `high`, described in words for error messages."""

    low: float
    high: float
    words: str
    open_low: bool = False
    open_high: bool = False

    def problem(self, value: object) -> str:
        """Return what is wrong with a value; empty if nothing is."""
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return f"give {self.words}"
        below = value <= self.low if self.open_low else value < self.low
        above = value >= self.high if self.open_high else value > self.high
        return f"give {self.words}" if below or above else ""


class Networks(NamedTuple):
    """One backbone, or several separated by commas."""

    several: bool = False

    def problem(self, value: object) -> str:
        """Return what is wrong with a value; empty if nothing is."""
        names = str(value).split(",") if self.several else [str(value)]
        unknown = [name for name in names if name not in BACKBONES]
        if unknown:
            known = ", ".join(BACKBONES)
            return f"there is no backbone {unknown[0]!r}; give one of {known}"
        return "give each network once" if len({*names}) < len(names) else ""


class SeedList(NamedTuple):
    """One seed, or several separated by commas."""

    def problem(self, value: object) -> str:
        """Return what is wrong with a value; empty if nothing is."""
        try:
            seeds(str(value))
        except argparse.ArgumentTypeError:
            return "give whole numbers from 0 to 2147483647, such as 0,1,2"
        return ""


Pixels = Annotated[int, Range(16, 4096, "a whole number of pixels from 16 to 4096")]
Count = Annotated[int, Range(1, 100_000, "a whole number from 1 to 100,000")]
Levels = Annotated[int, Range(1, 4, "a whole number from 1 to 4")]
BatchSize = Annotated[int, Range(1, 4096, "a whole number from 1 to 4096")]
Rate = Annotated[float, Range(0, math.inf, "a number above 0", open_low=True)]
Share = Annotated[float, Range(0, 1, "a share between 0 and 1, ends excluded", True, True)]
Dropout = Annotated[float, Range(0, 1, "a share from 0 to 1, 1 excluded", open_high=True)]
Decay = Annotated[float, Range(0, 1, "a factor above 0 and up to 1", open_low=True)]
Weight = Annotated[float, Range(0, 1e6, "a number from 0 to 1,000,000")]
Dimensions = Annotated[int, Range(0, 1_000_000, "a whole number from 0 to 1,000,000")]
Precision = Literal["float32", "bfloat16", "float16"]
Backbone = Annotated[str, Networks()]
Members = Annotated[str, Networks(several=True)]
Seeds = Annotated[str, SeedList()]


def check(config: Any) -> None:
    """Raise a RunError that names the flag, its value and the values it may have."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for allowed in get_args(hints[field.name])[1:]:
            if isinstance(allowed, (Range, Networks, SeedList)) and (
                problem := allowed.problem(value)
            ):
                shown = f"{value:g}" if isinstance(value, float) else value
                raise RunError(f"{_flag_of(field.name)} {shown}: {problem}.")
    resize = getattr(config, "resize", None)
    if resize is not None and resize < config.size:
        raise RunError(
            f"--resize {resize} is smaller than --size {config.size}, which is cut out of it: "
            f"give --resize of at least {config.size}."
        )


# How a script is run


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least 1")
    return int(text)


def _gpus(text: str) -> float:
    try:
        count = float(text)
    except ValueError:
        count = -1.0
    if not (0 <= count < 1 or (1 <= count < 1000 and count == int(count))):
        raise argparse.ArgumentTypeError(
            f"{text!r}: give a whole number of GPUs, or a part such as 0.5"
        )
    return count


def seeds(text: str) -> tuple[int, ...]:
    """Return the numbers of a --seeds flag."""
    try:
        given = tuple(dict.fromkeys(int(seed) for seed in text.split(",")))
    except ValueError:
        given = (-1,)
    if not all(0 <= seed < 2**31 for seed in given):
        raise argparse.ArgumentTypeError(
            f"{text!r}: give whole numbers from 0 to {2**31 - 1}, such as 0,1,2"
        )
    return given


RUN = "how to run"
TABLES = "tables, which never train a row anew"
CLUSTER = "rows on several GPUs and hosts, docs/cluster.md"


def _flag(group: str, default: Any, about: str, **argument: Any) -> Any:
    """Return a field of Options with the arguments of its flag."""
    metadata = {"group": group, "argument": {"help": about, **argument}}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass
class Options:
    """How a script is run; every field is a flag."""

    data_dir: str | None = _flag(
        RUN, None, "the dataset as released; none: phantoms (synthetic radiographs)", metavar="DIR"
    )
    dataset: str = _flag(RUN, "", "which dataset --data-dir holds")
    download: bool = _flag(RUN, False, "get the dataset first, to --data-dir or .cache/downloads")
    base_url: str | None = _flag(RUN, None, "download from this mirror instead", metavar="URL")
    keep_archives: bool = _flag(RUN, False, "keep ChestX-ray14's archives after --download")
    patients: str | None = _flag(
        RUN, None, "only their images: 1-3922, or a file of ids", metavar="IDS"
    )
    preset: str | None = _flag(
        RUN, None, "default: paper with --data-dir", choices=("demo", "paper")
    )
    rows: Sequence[str] | None = _flag(
        RUN, None, "only these, and what they need", nargs="+", metavar="ROW"
    )
    search: Sequence[str] = _flag(RUN, (), "best on validation", nargs="+", metavar="SETTING=A,B")
    seeds: tuple[int, ...] = _flag(RUN, (0,), "default: 0", type=seeds, metavar="0,1,2")
    split_file: Path | None = _flag(
        RUN, None, "run on this split.csv.gz", type=Path, metavar="FILE"
    )
    retry_failed: bool = _flag(RUN, False, "try rows again that failed before")
    results_dir: Path = _flag(RUN, ROOT / "results", "default: results", type=Path, metavar="DIR")
    cache_dir: Path = _flag(RUN, ROOT / ".cache", "default: .cache", type=Path, metavar="DIR")
    device: str = _flag(RUN, "auto", "default: auto", choices=("auto", "cpu", "gpu"))
    deterministic: bool = _flag(RUN, False, "bit for bit on GPUs too, slower")
    jit: bool | None = _flag(
        RUN, None, "compile with XLA; default: as Keras, not on TensorFlow's CPU"
    )
    steps_per_execution: int | None = _flag(
        RUN, None, "default: 8 on TensorFlow's GPUs", type=_positive, metavar="N"
    )
    fast: bool = _flag(
        RUN, True, "fused layers, on TensorFlow", action=argparse.BooleanOptionalAction
    )
    allow_missing: bool = _flag(RUN, False, "continue without missing images")
    skip_corrupt: bool = _flag(RUN, False, "continue without unreadable images")
    phantoms: int | None = _flag(
        RUN, None, "images to generate for the demo", type=_positive, metavar="N"
    )
    resamples: int = _flag(TABLES, 1000, "of patients", type=_positive, metavar="N")
    operating_point: operating_points.Rule = _flag(
        TABLES,
        operating_points.Rule(operating_points.YOUDEN),
        "youden (default), sensitivity=0.9 or specificity=0.9; chosen on validation",
        type=operating_points.parse,
        metavar="RULE",
    )
    by: tuple[str, ...] = _flag(
        TABLES, (), "subgroups: sex, age, view", type=subgroups.parse, metavar="A,B"
    )
    calibrate: bool = _flag(TABLES, False, "reliability; temperature fitted on validation")
    released: Path | None = _flag(
        TABLES,
        None,
        "predictions that others released, shown as rows of their own",
        type=Path,
        metavar="DIR",
    )
    on: str = _flag(CLUSTER, "here", "ray: rows at once; default: here", choices=("here", "ray"))
    address: str | None = _flag(
        CLUSTER, None, "a running Ray cluster; default: RAY_ADDRESS, none", metavar="HOST:PORT"
    )
    gpus_per_row: float | None = _flag(
        CLUSTER, None, "default: 1, or 0 where there are none", type=_gpus, metavar="N"
    )
    cpus_per_row: int | None = _flag(
        CLUSTER, None, "default: the GPU's share of its host", type=_positive, metavar="N"
    )
    devices_per_row: int = _flag(CLUSTER, 1, "of one host; JAX only", type=_positive, metavar="N")
    only_train: str | None = _flag(CLUSTER, None, argparse.SUPPRESS)  # what a Ray task trains

    @property
    def has_data(self) -> bool:
        """Return True if a dataset is given or downloaded, False for phantoms."""
        return bool(self.data_dir or self.download)

    @property
    def cluster(self) -> str:
        """Return the HOST:PORT of the Ray cluster; empty to start one on this machine."""
        return (self.address or os.environ.get("RAY_ADDRESS", "")).removeprefix("ray://")


def parse(
    config: type,
    demo: dict[str, Any],
    about: str | None,
    datasets: Sequence[str],
    only_for: Mapping[str, Sequence[str]] | None = None,
    released: str = "",
) -> tuple[Any, Options]:
    """Return the Config to run and the Options of how to run it, from the command line.

    Without --data-dir the demo's settings run on phantoms, with it the paper's on the data.
    `only_for` names the only datasets that a setting applies to. `released` names the subcommand of
    reproduce.rescore that gets predictions of others; only such a script has the flag --released.
    """
    parser = Parser(
        description=about,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(parser, datasets, without=() if released else ("released",))
    _add_settings(parser, config, demo)
    given = vars(parser.parse_args())
    settings = {field.name: given.pop(field.name) for field in dataclasses.fields(config)}
    chosen = {name: value for name, value in settings.items() if value is not None}
    options = Options(**given)
    _refuse_contradictions(options, chosen, only_for or {}, released)
    backend.check_choice()
    options.preset = options.preset or ("paper" if options.has_data else "demo")
    preset = config(**demo) if options.preset == "demo" else config()
    if "size" in chosen and "resize" not in chosen and hasattr(config, "resize"):
        # what is cut out of the decoded image stays the same share of it
        chosen["resize"] = round(preset.resize * chosen["size"] / preset.size)
    made = dataclasses.replace(preset, **chosen)
    check(made)
    backend.check_devices(options.devices_per_row, made.batch_size)
    return made, options


def _add_options(
    parser: argparse.ArgumentParser, datasets: Sequence[str], without: Sequence[str]
) -> None:
    groups = {title: parser.add_argument_group(title) for title in (RUN, TABLES, CLUSTER)}
    for field in dataclasses.fields(Options):
        argument = dict(field.metadata["argument"])
        default = field.default
        if field.name == "dataset":
            default, argument["choices"] = datasets[0], datasets
        if field.name == "jit":
            argument["action"] = argparse.BooleanOptionalAction
        elif default is False:
            argument["action"] = "store_true"
        if field.name in without:
            continue
        group = groups[field.metadata["group"]]
        group.add_argument(_flag_of(field.name), default=default, **argument)


def _add_settings(parser: argparse.ArgumentParser, config: type, demo: dict[str, Any]) -> None:
    group = parser.add_argument_group(
        "settings, with the paper's value [the demo's] and its origin"
    )
    types = get_type_hints(config)
    annotated = get_type_hints(config, include_extras=True)
    for name, origin in origins(config).items():
        default = getattr(config, name)
        argument: dict[str, Any] = {"type": _number(type(default), annotated[name]), "metavar": ""}
        if isinstance(default, bool):
            argument = {"action": argparse.BooleanOptionalAction}
        elif get_origin(types[name]) is Literal:
            argument = {"type": type(default), "choices": get_args(types[name])}
        shown = f"{default} [{demo[name]}]" if name in demo else f"{default}"
        about = f"{shown}: {origin}".replace("%", "%%")
        group.add_argument(_flag_of(name), help=about, default=None, **argument)


def origins(config: type) -> dict[str, str]:
    """Return the comment behind each field of a Config, which says where its value comes from."""
    declared = [each for each in config.__mro__ if dataclasses.is_dataclass(each)]
    text = "\n".join(map(inspect.getsource, declared))
    comments = dict(re.findall(r"^    (\w+): .*?  # (.*)$", text, re.MULTILINE))
    fields = [field.name for field in dataclasses.fields(config)]
    if lacking := [field for field in fields if field not in comments]:
        raise TypeError(f"Config.{lacking[0]} needs a comment behind it that names its origin")
    return {field: comments[field] for field in fields}


def _flag_of(field: str) -> str:
    return "--" + field.replace("_", "-")


def _number(kind: type, hint: object) -> Callable[[str], Any]:
    """Return the type of a flag: a number, or an error that says which numbers are allowed."""
    words = [each.words for each in get_args(hint)[1:] if isinstance(each, Range)]

    def number(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: give {words[0]}") from None

    return number if words else kind


def _refuse_contradictions(
    options: Options, chosen: dict[str, Any], only_for: Mapping[str, Sequence[str]], released: str
) -> None:
    """Raise a RunError for flags that would have no effect, or that exclude each other."""
    for field, names in only_for.items():
        if field in chosen and options.dataset not in names:
            listed = " or ".join(names)
            raise RunError(f"{_flag_of(field)} is for --dataset {listed} alone: leave it out.")
    if options.released and not options.released.is_dir():
        raise RunError(
            f"There is no folder {options.released}, which --released names. Get the files first: "
            f"python -m reproduce.rescore {released} --released {options.released} --download"
        )
    if options.base_url:
        downloads.check_base_url(options.base_url)
        if not options.download:
            raise RunError("--base-url says where --download fetches from: give both.")
    if options.keep_archives and not options.download:
        raise RunError("--keep-archives is for --download: give both.")
    if options.download and not DATASETS[options.dataset].download:
        free = ", ".join(record.name for record in DATASETS.values() if record.download)
        raise RunError(
            f"{DATASETS[options.dataset].title} needs a registration, see docs/data.md; --download "
            f"gets {free}."
        )
    if options.released and not options.has_data:
        raise RunError("--released is compared on real radiographs only: give --data-dir as well.")
    if options.has_data and options.phantoms:
        raise RunError("--phantoms generates images if there is no --data-dir: leave one of them.")
    for flag in ("allow_missing", "skip_corrupt", "patients"):
        if getattr(options, flag) and not options.has_data:
            raise RunError(f"{_flag_of(flag)} is for a dataset: give its folder with --data-dir.")
    for flag in ("address", "gpus_per_row", "cpus_per_row"):
        given = getattr(options, flag) is not None
        if given and options.on != "ray" and not options.only_train:
            raise RunError(
                f"{_flag_of(flag)} is for rows on a Ray cluster: add --on ray, or leave it out."
            )
    if options.on == "ray":
        from reproduce.engine.cluster import connection

        connection.check(options.cluster)
        _check_gpus(options)


def _check_gpus(options: Options) -> None:
    """Raise a RunError if the GPUs asked for a row contradict the other flags."""
    if options.device == "cpu" and options.gpus_per_row:
        raise RunError("--device cpu and --gpus-per-row contradict each other: leave one of them.")
    if options.gpus_per_row and options.gpus_per_row < options.devices_per_row > 1:
        raise RunError(
            f"--devices-per-row {options.devices_per_row} needs as many GPUs: leave --gpus-per-row."
        )


# How a command ends


class Terminated(BaseException):
    """SIGTERM, which a cluster sends before it takes the machine away."""


def _terminate(*_: Any) -> None:
    raise Terminated


@contextlib.contextmanager
def one_sentence(
    stopped: str = "Stopped; the same command resumes after the last whole epoch.",
) -> Iterator[None]:
    """End with a user's error as one sentence and exit code 2; Ctrl-C with 130, SIGTERM with 143.

    A pipe whose reader has closed it (`| head -1`) ends the command silently.
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
        # Python flushes the stream once more when it exits
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
