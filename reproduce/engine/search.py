"""Hyper-parameter search: every row trained at every value, the best chosen on validation.

    --search learning_rate=3e-5,1e-4,3e-4

Every row gets the same values of the settings that it does not ignore. Its candidates are rows of
their own, in folders of their own; the row itself becomes a copy of the one whose best epoch scored
highest on validation, and rows that start from it start from that one.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from reproduce import RunError
from reproduce.engine import ranges
from reproduce.engine.rows import Combined, Data, Row


@dataclass(frozen=True)
class Candidate(Row):
    """A row at one value of what is searched."""

    config: Any = None
    candidate_of: str = ""


@dataclass(frozen=True)
class Chosen(Combined):
    """The candidate with the highest score on validation."""

    values: Sequence[str] = ()  # of each candidate, such as "learning_rate=0.0001"


def parse(config: Any, texts: Sequence[str]) -> dict[str, list]:
    """The values of every setting that --search names, as the setting's type and in its range."""
    hints, found = get_type_hints(type(config)), {}
    for text in texts:
        name, equals, values = text.partition("=")
        field = name.strip().replace("-", "_")
        if field not in hints or not equals:
            raise RunError(
                f"--search {text}: give SETTING=VALUE,VALUE, such as learning_rate=1e-4,3e-4."
            )
        kind: Callable[[str], Any] = type(getattr(config, field))
        if kind is bool or get_origin(hints[field]) is Literal:
            kind = {str(each): each for each in get_args(hints[field]) or (True, False)}.__getitem__
        try:
            found[field] = [kind(value.strip()) for value in values.split(",")]
        except (KeyError, ValueError) as error:
            raise RunError(f"--search {text}: {error} is no value of {field}.") from error
        for value in found[field]:
            ranges.check(dataclasses.replace(config, **{field: value}))
    return found


def table(rows: Callable, config: Any, data: Data, options) -> list[Row | Combined]:
    """The script's rows; those that are searched as candidates and the chosen one."""
    plain = rows(config, data)
    values = parse(config, options.search)
    if not values:
        return plain
    made: list[Row | Combined] = []
    for row in plain:
        searched = [field for field in values if not _ignores(row, field)]
        if not searched:
            made.append(row)
            continue
        candidates = []
        for chosen in itertools.product(*(values[field] for field in searched)):
            setting = dict(zip(searched, chosen, strict=True))
            text = ", ".join(f"{field}={value}" for field, value in setting.items())
            other = dataclasses.replace(config, **setting)
            at_value = next(each for each in rows(other, data) if each.name == row.name)
            fields = {
                field.name: getattr(at_value, field.name) for field in dataclasses.fields(Row)
            }
            fields |= {"name": f"{row.name} ({text})", "config": other, "candidate_of": row.name}
            candidates.append(Candidate(**fields))
        texts = [each.name.removeprefix(f"{row.name} (")[:-1] for each in candidates]
        names = [each.name for each in candidates]
        made += [*candidates, Chosen(row.name, names, note=row.note, values=texts)]
    return made


def _ignores(row: Row | Combined, field: str) -> bool:
    return not isinstance(row, Row) or not row.fit.epochs or field in row.ignores


def config_of(row: Row | Combined, config: Any) -> Any:
    """The settings that a row runs with."""
    return row.config if isinstance(row, Candidate) else config
