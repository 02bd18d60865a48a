"""Check the papers' claims about their numbers, on their numbers and on ours.

`results/published/claims.csv` holds one claimed comparison per line.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluation import EvaluationError
from evaluation.published import (
    CELL,
    FOLDER,
    QUOTED,
    claim_files,
    is_average,
    load,
    our_values,
    read_csv,
)

CLAIM_COLUMNS = [
    *("paper", "claim", "table", "left_row", "right_row", "column", "metric"),
    *("relation", "amount", "scope", "quote", "line", "reason"),
]
CHECKED = ["published", "published_margin", "ours", "margin", "size", "our_note"]
NOT_RUN = "not run"
NO_INTERVAL = "no interval: by sign only"
NO_INTERVAL_OF_RANK = "no interval: by rank only"
SCOPES = ("", "count", "most", "tree")
RELATIONS = (">", ">=", "=", "<=", "<")


def load_claims(paper: str, folder: Path = FOLDER) -> pd.DataFrame:
    """Return a paper's claims, one comparison per line (docs/published.md lists the columns)."""
    frames = []
    for path in claim_files(folder):
        frame = read_csv(path, CLAIM_COLUMNS)
        for number, line in enumerate(frame.to_dict("records"), 2):
            if problem := _problem(line):
                raise EvaluationError(f"{path}, line {number}: {problem}.")
        frames.append(frame)
    frame = pd.concat(frames)
    return frame[frame["paper"] == paper].reset_index(drop=True)


def _problem(line: dict) -> str:
    """Return why a line of a claims file cannot be judged; empty if it can."""
    if line["relation"] not in RELATIONS:
        return f"{line['claim']} has the unknown relation {line['relation']!r}"
    if line["scope"] not in SCOPES:
        return f"{line['claim']} has the unknown scope {line['scope']!r}"
    amount = line["amount"].removesuffix("%")
    if line["scope"] == "count" or amount:
        number = pd.to_numeric(amount, errors="coerce")
        if not number >= 0 or (line["scope"] == "count" and number != int(number)):
            return f"{line['claim']} has the amount {line['amount']!r}, which is not a number"
    return ""


Cells = dict[tuple[str, str, str], float]  # (row, column, metric) -> value
SUPERIOR, EQUAL = 0.95, 0.9  # levels: of > and <, and of two one-sided tests at 5 % (=, >=, <=)


class Ends(NamedTuple):
    """The intervals of several differences: each alone, and all together."""

    low: np.ndarray
    high: np.ndarray
    joint_low: np.ndarray
    joint_high: np.ndarray


# (left row, (right row, column, metric) of each comparison, level) -> intervals; None if unknown
Intervals = Callable[[str, Sequence[tuple[str, str, str]], float], Ends | None]


class ClaimedDifference(NamedTuple):
    """The difference between the same cell of two rows."""

    column: str
    metric: str
    right_row: str
    margin: float  # left minus right; NaN if either is unknown


def check(
    paper: str,
    values: pd.DataFrame | None = None,
    intervals: Intervals | None = None,
    folder: Path = FOLDER,
    *,
    failed: dict[str, str] | None = None,
    judged: dict[str, dict] | None = None,
    absent: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Judge each claimed comparison by the paper's own numbers and by ours.

    Args:
        values: Our numbers: row, column (or group), metric, value.
        intervals: The paired-bootstrap intervals of left minus right.
        failed: Rows that ended without predictions, with the reason.
        judged: `ours`, `margin` and `our_note` per claim that a paper's own table judges (scope
            `tree`).
        absent: Rows that cannot be run on this dataset, with the reason.

    Returns:
        The claims with verdicts. `published` is "holds", "does not hold" or "no numbers". `ours` is
        "holds" if the relation is true in the whole interval of each comparison, "does not hold" if
        it is true nowhere in one of their simultaneous intervals, else "within noise"; or "not
        run", or "failed: REASON". A claim over all rows (`*`)
        of which some are quoted from other papers is "not run" unless the others contradict it.
        `size` judges in the same way whether our gain is at least the printed one ("by 2 %").
        Margins are left minus right.
    """
    printed = load(paper, folder)
    tables, quoted = by_table(printed), _quoted_rows(printed)
    our_cells = {}
    if values is not None:
        our_cells = _cells(our_values(values).rename(columns={"value": "number"}))
    checked = []
    for line in load_claims(paper, folder).to_dict("records"):
        cells = _our_comparisons(line, tables, our_cells)
        ours = _not_judged(line, tables, our_cells, failed or {}, quoted)
        ours = ours or (judged or {}).get(line["claim"]) or _our_verdict(line, cells, intervals)
        if line["right_row"] == "*":
            ours = _with_quoted(ours, [row for row in _rows_against(line, tables) if row in quoted])
        if ours["ours"] == NOT_RUN and not ours["our_note"]:
            needed = [line["left_row"], *_rows_against(line, tables)]
            reasons = [absent[row] for row in needed if row in absent] if absent else []
            ours = ours | {"our_note": "".join(reasons[:1])}
        size = {"size": _our_size(line, cells, intervals, tables, our_cells)}
        printed_verdict = _published_verdict(line, comparisons(line, tables))
        checked.append(line | printed_verdict | size | ours)
    return pd.DataFrame(checked, columns=[*CLAIM_COLUMNS, *CHECKED])


def _quoted_rows(printed: pd.DataFrame) -> set[str]:
    """Return the rows whose numbers are all taken from another paper; they cannot be run here."""
    quoted = printed["note"].str.startswith(QUOTED).groupby(printed["row"]).all()
    return {*quoted.index[quoted]}


def _not_judged(
    line: dict, tables: dict[str, Cells], ours: Cells, failed: dict[str, str], quoted: set[str]
) -> dict | None:
    """Return the verdict of a claim on rows that failed or cannot be run, or None."""
    needed = [line["left_row"], *_rows_against(line, tables)]
    if line["right_row"] == "*":
        needed = [row for row in needed if row not in quoted]
    if reasons := [f"{row} failed: {failed[row]}" for row in needed if row in failed]:
        first = next(failed[row] for row in needed if row in failed)
        return {"ours": f"failed: {first}", "margin": "", "our_note": "; ".join(reasons)}
    never_run = [row for row in needed[1:] if row in quoted]
    if never_run and any(row == line["left_row"] for row, *_ in ours):
        names = ", ".join(dict.fromkeys(never_run))
        note = f"no interval: quoted from another paper, not run here ({names})"
        return {"ours": NOT_RUN, "margin": "", "our_note": note}
    return None


def _with_quoted(ours: dict, quoted: list[str]) -> dict:
    """Return the verdict on all rows, of which those quoted from other papers were not run."""
    if not quoted or ours["ours"] not in ("holds", "within noise"):
        return ours
    note = f"{ours['ours']} against the rows that ran; quoted from other papers, not run here"
    notes = [ours["our_note"], f"{note}: {', '.join(quoted)}"]
    return ours | {"ours": NOT_RUN, "our_note": "; ".join(filter(None, notes))}


def by_table(printed: pd.DataFrame) -> dict[str, Cells]:
    """Return the numbers of each published table, and under `quoted` those of other papers."""
    tables = {name: _cells(table) for name, table in printed.groupby("table", sort=False)}
    return {**tables, QUOTED: _cells(printed[printed["note"].str.startswith(QUOTED)])}


def _cells(frame: pd.DataFrame) -> Cells:
    """Return the numbers by cell; of repeated cells, the first counts."""
    cells: Cells = {}
    for *cell, number in frame[[*CELL, "number"]].itertuples(index=False):
        cells.setdefault(tuple(cell), number)
    return cells


def comparisons(line: dict, tables: dict[str, Cells]) -> list[ClaimedDifference]:
    """Return the differences that a claim is about, in the tables that it names."""
    return _compare_cells(line, named_cells(line, tables), _rows_against(line, tables))


def _our_comparisons(line: dict, tables: dict[str, Cells], mine: Cells) -> list[ClaimedDifference]:
    """Return the differences in our values; none if a row that the claim needs was not run."""
    against = _rows_against(line, tables)
    if line["right_row"] == "*":
        quoted = {row for row, *_ in tables[QUOTED]}
        against = [row for row in against if row not in quoted]
    ran = {row for row, *_ in mine}
    return _compare_cells(line, mine, against) if ran >= {*against, line["left_row"]} else []


def named_cells(line: dict, tables: dict[str, Cells]) -> Cells:
    """Return the cells of the tables that a claim names; the first table takes precedence."""
    cells: Cells = {}
    for name in line["table"].split("|"):
        cells |= {cell: value for cell, value in tables.get(name, {}).items() if cell not in cells}
    return cells


def _rows_against(line: dict, tables: dict[str, Cells]) -> list[str]:
    """Return the right-hand rows of a claim: by name, `quoted`, or `*` for all other rows."""
    if line["right_row"] not in ("*", QUOTED):
        return line["right_row"].split("|")
    cells = named_cells(line, tables)
    wanted = cells if line["right_row"] == "*" else cells.keys() & tables[QUOTED].keys()
    rows = dict.fromkeys(row for row, *_ in cells)
    return [row for row in rows if row != line["left_row"] and row in {name for name, *_ in wanted}]


def _compare_cells(line: dict, cells: Cells, against: list[str]) -> list[ClaimedDifference]:
    left, columns = line["left_row"], line["column"].split("|")
    if columns == ["*"] or line["scope"] == "most":
        labels = (column for row, column, _ in cells if row == left)
        columns = [column for column in dict.fromkeys(labels) if not is_average(column)]
        if line["scope"] == "most" and line["column"] not in columns:
            return []
    differences = [
        ClaimedDifference(
            column,
            metric,
            right,
            cells.get((left, column, metric), np.nan) - cells.get((right, column, metric), np.nan),
        )
        for column, metric, right in itertools.product(columns, line["metric"].split("|"), against)
    ]
    if line["column"] == "*" or line["right_row"] in ("*", QUOTED):
        # "every other" row or label: cells that the table leaves empty are not compared
        return [cell for cell in differences if not np.isnan(cell.margin)]
    return differences


def _margins(cells: list[ClaimedDifference]) -> np.ndarray:
    return np.array([cell.margin for cell in cells]).round(9)  # 0.857 - 0.852 is not above 0.005


def _meets(line: dict, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the relation holds for all margins between low and high, and where for any."""
    relation = line["relation"]
    slack = float(line["amount"] or 0) if relation in ("=", "<=", ">=") else 0.0
    match relation:
        case ">":
            return low > 0, high > 0
        case "<":
            return high < 0, low < 0
        case ">=":
            return low >= -slack, high >= -slack
        case "<=":
            return high <= slack, low <= slack
        case "=":
            return (low >= -slack) & (high <= slack), (low <= slack) & (high >= -slack)
    raise EvaluationError(f"claims.csv: {line['claim']} has the unknown relation {relation!r}.")


def _holds(
    line: dict, cells: list[ClaimedDifference], low: np.ndarray, high: np.ndarray
) -> tuple[bool, bool]:
    """Return whether a claim holds for all margins between low and high, and whether for any.

    `count` asks for at least `amount` comparisons. `most` asks that no label gains more than the
    named one. The rule is the same for printed numbers, of which low and high are the margins.
    """
    if line["scope"] == "most":
        best, worst = _ranks(line, cells, low, high)
        return worst == 1, best == 1
    sure, possible = _meets(line, low, high)
    need = int(line["amount"]) if line["scope"] == "count" else len(cells)
    return bool(sure.sum() >= need), bool(possible.sum() >= need)


def _ranks(
    line: dict, cells: list[ClaimedDifference], low: np.ndarray, high: np.ndarray
) -> tuple[int, int]:
    """Return the best and the worst rank of the named label by gain; 1 is the largest."""
    named = np.array([cell.column == line["column"] for cell in cells])
    own_low, own_high = low[named].min(), high[named].max()
    return 1 + int((low[~named] > own_high).sum()), 1 + int((high[~named] > own_low).sum())


def _published_verdict(line: dict, cells: list[ClaimedDifference]) -> dict:
    margins = _margins(cells)
    if not cells or np.isnan(margins).any():
        return {"published": "no numbers", "published_margin": ""}
    holds, _ = _holds(line, cells, margins, margins)
    words = "holds" if holds else "does not hold"
    return {"published": words, "published_margin": _margin_text(line, cells)}


def _margin_text(
    line: dict,
    cells: list[ClaimedDifference],
    interval: tuple[np.ndarray, np.ndarray] | None = None,
) -> str:
    """Return the margins in words; of counts and ranks also the range within the intervals."""
    margins = _margins(cells)
    if line["scope"] not in ("count", "most"):
        return " to ".join(dict.fromkeys(f"{end:+.4f}" for end in (margins.min(), margins.max())))
    if line["scope"] == "most":
        text = f"gain {_ranks(line, cells, margins, margins)[0]} of {len(cells)}"
        ends = _ranks(line, cells, *interval) if interval else (0, 0)
    else:
        text = f"{_meets(line, margins, margins)[0].sum()} of {len(cells)}"
        ends = tuple(each.sum() for each in _meets(line, *interval)) if interval else (0, 0)
    return f"{text} ({ends[0]} to {ends[1]} within the intervals)" if interval else text


def _our_verdict(line: dict, cells: list[ClaimedDifference], intervals: Intervals | None) -> dict:
    margins = _margins(cells)
    if not cells or np.isnan(margins).any() or line["scope"] == "tree":
        undefined = [f"{each.column} {each.metric}" for each in cells if np.isnan(each.margin)]
        note = f"undefined here: {', '.join(dict.fromkeys(undefined))}" if undefined else ""
        return {"ours": NOT_RUN, "margin": "", "our_note": note}
    level = EQUAL if "=" in line["relation"] else SUPERIOR
    ends = _ends(line, cells, intervals, level)
    if ends is None:
        by_point = NO_INTERVAL_OF_RANK if line["scope"] == "most" else NO_INTERVAL
        word = _word(*_holds(line, cells, margins, margins))
        return {"ours": word, "margin": _margin_text(line, cells), "our_note": by_point}
    joint = ends.joint_low, ends.joint_high
    holds, may_hold = _holds(line, cells, *joint)
    if not line["scope"]:  # a claim that holds in each interval holds in all of them
        holds, _ = _holds(line, cells, ends.low, ends.high)
    text = _margin_text(line, cells, joint)
    return {"ours": _word(holds, may_hold), "margin": text, "our_note": ""}


def _word(holds: bool, may_hold: bool) -> str:
    return "holds" if holds else "within noise" if may_hold else "does not hold"


def _ends(
    line: dict, cells: list[ClaimedDifference], intervals: Intervals | None, level: float
) -> Ends | None:
    """Return the intervals of the comparisons, or None if one of them has none."""
    keys = [(cell.right_row, cell.column, cell.metric) for cell in cells]
    ends = intervals(line["left_row"], keys, level) if intervals else None
    return None if ends is None or np.isnan([*ends]).any() else ends


# Printed gains: "by 2 %"


def gain_readings(line: dict, tables: dict[str, Cells]) -> dict[str, float]:
    """Return a gain in the paper's own numbers: in points of the metric, and relative."""
    cell = line["column"], line["metric"]
    cells = named_cells(line, tables)
    left, right = (cells.get((line[row], *cell), np.nan) for row in ("left_row", "right_row"))
    relative = 100 * (left / right - 1) if right else np.nan
    return {"points": 100 * (left - right), "relative": relative}


def _our_size(
    line: dict,
    cells: list[ClaimedDifference],
    intervals: Intervals | None,
    tables: dict[str, Cells],
    ours: Cells,
) -> str:
    """Judge whether our gain is at least the printed one, rounded as printed.

    "2 %" is read as points or as a relative gain, whichever is closer to the paper's own numbers. A
    relative gain refers to our value of the right row. The result is empty if no gain is printed or
    ours is unknown.
    """
    claimed, readings = line["amount"].removesuffix("%"), gain_readings(line, tables)
    margins = _margins(cells)
    if claimed == line["amount"] or np.isnan([*readings.values(), *margins]).any() or not cells:
        return ""
    reading = min(readings, key=lambda name: abs(readings[name] - float(claimed)))
    unit = 10.0 ** -len(claimed.partition(".")[2])
    needed = np.full(len(cells), (float(claimed) - unit / 2) / 100)
    if reading == "relative":
        needed *= [ours[cell.right_row, cell.column, cell.metric] for cell in cells]
    ends, note = _ends(line, cells, intervals, SUPERIOR), ""
    if ends is None:
        ends, note = Ends(*[margins] * 4), ", no interval"
    word = _word(bool((ends.low >= needed).all()), bool((ends.joint_high >= needed).all()))
    return f"{word} (at least {needed.max():.4f}: {claimed} % {reading}{note})"
