"""The papers' claims about their numbers, each checked on their numbers and on ours.

`results/published/claims.csv` holds one claimed comparison a line.
"""

import itertools
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
    *("relation", "amount", "scope", "quote", "line"),
]
CHECKED = ["published", "published_margin", "ours", "margin", "size", "our_note"]
NOT_RUN = "not run"
NO_INTERVAL = "no interval: by sign only"
SCOPES = ("", "count", "most", "tree")
RELATIONS = (">", ">=", "=", "<=", "<")


def load_claims(paper: str, folder: Path = FOLDER) -> pd.DataFrame:
    """A paper's directional claims, one comparison a line (docs/published.md has the columns)."""
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
    """What cannot be judged in a line of a claims file; empty where all can."""
    if line["relation"] not in RELATIONS:
        return f"{line['claim']} has the unknown relation {line['relation']!r}"
    if line["scope"] not in SCOPES:
        return f"{line['claim']} has the unknown scope {line['scope']!r}"
    amount = line["amount"].removesuffix("%")
    if line["scope"] == "count" or amount:
        number = pd.to_numeric(amount, errors="coerce")
        if not number >= 0 or (line["scope"] == "count" and number != int(number)):
            return f"{line['claim']} has the amount {line['amount']!r}, which is no number"
    return ""


Cells = dict[tuple[str, str, str], float]  # (row, column, metric) -> value


class ClaimedDifference(NamedTuple):
    """One cell of one row set against the same cell of another."""

    column: str
    metric: str
    right_row: str
    margin: float  # left minus right; NaN where either is unknown


def check(
    paper: str,
    values: pd.DataFrame | None = None,
    differences: pd.DataFrame | None = None,
    folder: Path = FOLDER,
    *,
    failed: dict[str, str] | None = None,
    judged: dict[str, dict] | None = None,
) -> pd.DataFrame:
    """Each claimed comparison judged by the paper's own numbers and by ours.

    `values`: row, column (or group), metric, value. `differences`: left_row, right_row, column
    (or group), metric, low, high: the paired-bootstrap interval of left minus right. `failed`:
    rows that ended without predictions, and why. `judged`: claim -> `ours`, `margin`, `our_note`
    of those that a paper's own table judges (scope `tree`).

    `published` is "holds", "does not hold" or "no numbers". `ours` is "holds" where the relation
    is true in the whole interval, "does not hold" where it is true nowhere in it, else "within
    noise"; or "not run", or "failed: REASON". `size` judges a printed gain ("by 2 %") in the same
    way: that ours is at least as large. Margins are left minus right.
    """
    printed = load(paper, folder)
    tables, quoted = by_table(printed), _quoted_rows(printed)
    our_cells = {}
    if values is not None:
        our_cells = _cells(our_values(values).rename(columns={"value": "number"}))
    intervals, checked = _intervals(differences), []
    for line in load_claims(paper, folder).to_dict("records"):
        cells = _our_comparisons(line, tables, our_cells)
        ours = _not_judged(line, tables, our_cells, failed or {}, quoted)
        ours = ours or (judged or {}).get(line["claim"]) or _our_verdict(line, cells, intervals)
        size = {"size": _our_size(line, cells, intervals, tables, our_cells)}
        printed_verdict = _published_verdict(line, comparisons(line, tables))
        checked.append(line | printed_verdict | size | ours)
    return pd.DataFrame(checked, columns=[*CLAIM_COLUMNS, *CHECKED])


def _quoted_rows(printed: pd.DataFrame) -> set[str]:
    """Rows of which every number is taken from another paper: they cannot be run here."""
    quoted = printed["note"].str.startswith(QUOTED).groupby(printed["row"]).all()
    return {*quoted.index[quoted]}


def _not_judged(
    line: dict, tables: dict[str, Cells], ours: Cells, failed: dict[str, str], quoted: set[str]
) -> dict | None:
    """The verdict of a claim on rows that failed or cannot be run; None where ours decide."""
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


def by_table(printed: pd.DataFrame) -> dict[str, Cells]:
    """The numbers of each printed table, and under `quoted` those that are not the paper's own."""
    tables = {name: _cells(table) for name, table in printed.groupby("table", sort=False)}
    return {**tables, QUOTED: _cells(printed[printed["note"].str.startswith(QUOTED)])}


def _cells(frame: pd.DataFrame) -> Cells:
    """The numbers by their cell; the first where a cell is given twice."""
    cells: Cells = {}
    for *cell, number in frame[[*CELL, "number"]].itertuples(index=False):
        cells.setdefault(tuple(cell), number)
    return cells


def comparisons(line: dict, tables: dict[str, Cells]) -> list[ClaimedDifference]:
    """What a claim compares, in the numbers of the tables that it names."""
    return _compare_cells(line, named_cells(line, tables), _rows_against(line, tables))


def _our_comparisons(line: dict, tables: dict[str, Cells], mine: Cells) -> list[ClaimedDifference]:
    """The same in our values; none where a row that the claim needs was not run."""
    against = _rows_against(line, tables)
    if line["right_row"] == "*":
        quoted = {row for row, *_ in tables[QUOTED]}
        against = [row for row in against if row not in quoted]
    ran = {row for row, *_ in mine}
    return _compare_cells(line, mine, against) if ran >= {*against, line["left_row"]} else []


def named_cells(line: dict, tables: dict[str, Cells]) -> Cells:
    """The cells of the tables that a claim names; the first of them wins."""
    cells: Cells = {}
    for name in line["table"].split("|"):
        cells |= {cell: value for cell, value in tables.get(name, {}).items() if cell not in cells}
    return cells


def _rows_against(line: dict, tables: dict[str, Cells]) -> list[str]:
    """The rows that a claim compares with: by name, `quoted`, or `*` for every other."""
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
        # "every other" row or label: those that the table leaves empty are not compared
        return [cell for cell in differences if not np.isnan(cell.margin)]
    return differences


def _margins(cells: list[ClaimedDifference]) -> np.ndarray:
    return np.array([cell.margin for cell in cells]).round(9)  # 0.857 - 0.852 is not above 0.005


def _meets(line: dict, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the relation is true of every margin between low and high, and where of any."""
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


def _rank(line: dict, cells: list[ClaimedDifference]) -> int:
    """The rank of the named column among all labels by gain, 1 for the largest."""
    gains = {cell.column: cell.margin for cell in cells}
    return 1 + sum(gain > gains.get(line["column"], np.nan) for gain in gains.values())


def _published_verdict(line: dict, cells: list[ClaimedDifference]) -> dict:
    margins = _margins(cells)
    if not cells or np.isnan(margins).any():
        return {"published": "no numbers", "published_margin": ""}
    meets = _meets(line, margins, margins)[0]
    holds = bool(meets.all())
    if line["scope"] == "most":
        holds = _rank(line, cells) == 1
    elif line["scope"] == "count":
        holds = meets.sum() == int(line["amount"])
    words = "holds" if holds else "does not hold"
    return {"published": words, "published_margin": _margin_text(line, cells, meets)}


def _margin_text(line: dict, cells: list[ClaimedDifference], meets: np.ndarray) -> str:
    if line["scope"] == "most":
        return f"gain {_rank(line, cells)} of {len(cells)}"
    if line["scope"] == "count":
        return f"{meets.sum()} of {len(cells)}"
    margins = _margins(cells)
    return " to ".join(dict.fromkeys(f"{end:+.4f}" for end in (margins.min(), margins.max())))


def _intervals(differences: pd.DataFrame | None) -> dict[tuple, tuple[float, float]]:
    """(left, right, column, metric) -> the interval of left minus right, for both directions."""
    if differences is None:
        return {}
    if "column" not in differences:
        differences = differences.rename(columns={"group": "column"})
    intervals = {}
    for row in differences.to_dict("records"):
        cell = row["column"], row["metric"]
        intervals[row["left_row"], row["right_row"], *cell] = row["low"], row["high"]
        intervals[row["right_row"], row["left_row"], *cell] = -row["high"], -row["low"]
    return intervals


def _our_verdict(line: dict, cells: list[ClaimedDifference], intervals: dict) -> dict:
    margins = _margins(cells)
    if not cells or np.isnan(margins).any() or line["scope"] == "tree":
        return {"ours": NOT_RUN, "margin": "", "our_note": ""}
    low, high = _interval_ends(line, cells, intervals)
    no_interval = line["scope"] == "most" or bool(np.isnan(low).any())
    if no_interval:
        low = high = margins
    sure, possible = _meets(line, low, high)
    need = int(line["amount"]) if line["scope"] == "count" else len(cells)
    holds, may_hold = sure.sum() >= need, possible.sum() >= need
    if line["scope"] == "most":
        holds = may_hold = _rank(line, cells) == 1
    return {
        "ours": _word(holds, may_hold),
        "margin": _margin_text(line, cells, _meets(line, margins, margins)[0]),
        "our_note": NO_INTERVAL if no_interval else "",
    }


def _word(holds: bool, may_hold: bool) -> str:
    return "holds" if holds else "within noise" if may_hold else "does not hold"


def _interval_ends(line: dict, cells: list[ClaimedDifference], intervals: dict) -> np.ndarray:
    """Low and high of each comparison: (2, cells), NaN where there is no interval."""
    unknown = (np.nan, np.nan)
    keys = [(line["left_row"], cell.right_row, cell.column, cell.metric) for cell in cells]
    return np.array([intervals.get(key, unknown) for key in keys]).reshape(-1, 2).T


# Printed gains: "by 2 %"


def gain_readings(line: dict, tables: dict[str, Cells]) -> dict[str, float]:
    """A printed gain as the paper's own numbers have it: in points of the metric, and relative."""
    cell = line["column"], line["metric"]
    cells = named_cells(line, tables)
    left, right = (cells.get((line[row], *cell), np.nan) for row in ("left_row", "right_row"))
    relative = 100 * (left / right - 1) if right else np.nan
    return {"points": 100 * (left - right), "relative": relative}


def _our_size(
    line: dict,
    cells: list[ClaimedDifference],
    intervals: dict,
    tables: dict[str, Cells],
    ours: Cells,
) -> str:
    """Whether our gain is at least the printed one, rounded as it is printed.

    "2 %" is read as points or as a relative gain, whichever the paper's own numbers are closer to;
    a relative one is of our value of the right row. Empty where no gain is printed or ours is not
    known.
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
    low, high = _interval_ends(line, cells, intervals)
    note = ""
    if np.isnan(low).any():
        low, high, note = margins, margins, ", no interval"
    word = _word(bool((low >= needed).all()), bool((high >= needed).all()))
    return f"{word} (at least {needed.max():.4f}: {claimed} % {reading}{note})"
