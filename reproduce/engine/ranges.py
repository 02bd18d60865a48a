"""What a setting may be, declared behind its name in a Config: `size: Pixels = 224`.

Flags, a rebuilt run and the doctor use the same check.
"""

import dataclasses
import math
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

from models import backbones
from reproduce import RunError


class Range(NamedTuple):
    """The numbers from `low` to `high`, in words for whoever gave another."""

    low: float
    high: float
    words: str
    open_low: bool = False
    open_high: bool = False

    def problem(self, value: object) -> str:
        """What is wrong with a value; empty if nothing is."""
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return f"give {self.words}"
        below = value <= self.low if self.open_low else value < self.low
        above = value >= self.high if self.open_high else value > self.high
        return f"give {self.words}" if below or above else ""


class Networks(NamedTuple):
    """One backbone, or several separated by commas."""

    several: bool = False

    def problem(self, value: object) -> str:
        """What is wrong with a value; empty if nothing is."""
        names = str(value).split(",") if self.several else [str(value)]
        unknown = [name for name in names if name not in backbones.BACKBONES]
        twice = len({*names}) < len(names)
        known = ", ".join(backbones.BACKBONES)
        if unknown:
            return f"there is no backbone {unknown[0]!r}; give one of {known}"
        return "give each network once" if twice else ""


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


def words_of(hint: object) -> str:
    """What a setting may be, in words, by its annotated type; empty where nothing is declared."""
    return next((each.words for each in get_args(hint)[1:] if isinstance(each, Range)), "")


def check(config: Any) -> None:
    """A RunError that names the flag, its value and what it may be."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for allowed in get_args(hints[field.name])[1:]:
            if isinstance(allowed, (Range, Networks)) and (problem := allowed.problem(value)):
                shown = f"{value:g}" if isinstance(value, float) else value
                raise RunError(f"--{field.name.replace('_', '-')} {shown}: {problem}.")
    resize = getattr(config, "resize", None)
    if resize is not None and resize < config.size:
        raise RunError(
            f"--resize {resize} is smaller than --size {config.size}, which is cut out of it: "
            f"give --resize of at least {config.size}."
        )
