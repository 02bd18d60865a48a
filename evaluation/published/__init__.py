"""The published numbers: loaded as printed, and compared with ours in computed verdicts.

`results/published/NAME.csv` holds one printed number a line, `claims.csv` one claimed comparison;
a paper that was added later brings its claims in `NAME.claims.csv`.
"""

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import EvaluationError

FOLDER = Path(__file__).parents[2] / "results" / "published"
COLUMNS = ["table", "row", "column", "metric", "dataset", "split", "value", "note"]
CELL = ["row", "column", "metric"]  # what identifies a number, wherever it is printed
SIDE_BY_SIDE = ["table", *CELL, "published", "ours", "low", "high", "difference", "verdict", "note"]
FAILED = "failed: "  # begins the verdict of a row that ended without predictions
RELEASED = "released"  # the verdict of a row that others predicted and released
QUOTED = "quoted"  # begins the note of a number that the paper took from another paper
RUNNING_TEXT = ("abstract", "text", "TL;DR")
AVERAGES = {"mean", "weighted mean", "leaf", "high-level", "W", "W normalised", "D", "N"}


def papers(folder: Path = FOLDER) -> list[str]:
    """The papers whose numbers are transcribed."""
    return sorted(path.stem for path in folder.glob("*.csv") if path not in claim_files(folder))


def load(paper: str, folder: Path = FOLDER) -> pd.DataFrame:
    """A paper's printed numbers: `value` as printed (text), `number` as a float."""
    path = folder / f"{paper}.csv"
    if not path.is_file():
        known = ", ".join(papers(folder)) or "none"
        raise EvaluationError(f"No published numbers of {paper!r} in {folder}; known: {known}.")
    frame = read_csv(path, COLUMNS)
    number = pd.to_numeric(frame["value"], errors="coerce")
    if number.isna().any():
        line = int(number.isna().idxmax())
        value = frame["value"][line]
        raise EvaluationError(f"{path}, line {line + 2}: the value {value!r} is not a number.")
    return frame.assign(number=number)


def claim_files(folder: Path) -> list[Path]:
    """The files of claimed comparisons."""
    return [folder / "claims.csv", *sorted(folder.glob("*.claims.csv"))]


def is_average(column: str) -> bool:
    """Whether a column is a group's average rather than one label."""
    named = ("leaf given", "mean of", "weighted mean of")
    return column in AVERAGES or column.startswith(named)


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """A CSV of texts that has these columns, and in every line as many fields as its header."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, line) for line in reader if line]
    except FileNotFoundError as error:
        raise EvaluationError(f"There is no file {path}; {RESTORE}.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} is no CSV file in UTF-8; {RESTORE}.") from error
    header = lines[0][1] if lines else []
    if missing := [name for name in columns if name not in header]:
        raise EvaluationError(f"{path} lacks the column(s) {', '.join(missing)}; {RESTORE}.")
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise EvaluationError(
                f"{path}, line {number}: {len(line)} fields instead of {len(header)}; is a comma "
                "in a text without quotes?"
            )
    return pd.DataFrame([line for _, line in lines[1:]], columns=header, dtype=str)


RESTORE = "the suite's own files come back by git checkout -- results/published"


# Ours beside theirs


def verdict(published: float, low: float, high: float, not_comparable: str | None = None) -> str:
    """Where the published value lies relative to our interval."""
    if not_comparable:
        return f"not comparable ({not_comparable})"
    if np.isnan([published, low, high]).any():
        return "no interval"
    return "below" if published < low else "above" if published > high else "within"


def verdict_kind(verdict: str) -> str:
    """A verdict without its reason: "not comparable", "failed", "within", …"""
    return "failed" if verdict.startswith(FAILED) else verdict.partition(" (")[0]


def compare(
    published: pd.DataFrame,
    ours: pd.DataFrame,
    not_comparable: str | None = None,
    failed: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Published and our values side by side, one cell a line, each with its verdict.

    `ours`: row, column (or group), metric, value and, where known, low, high, note, split.
    `failed`: rows that ended without predictions -> why; their cells say "failed: REASON".
    Numbers that running text repeats from a table are left out; rows that only we ran come
    with the table that prints their column.
    """
    ours, failed = our_values(ours), failed or {}
    keys = [*CELL, "split"] if "split" in ours else CELL
    if "split" not in ours and (clash := _in_two_splits(published, ours)):
        raise EvaluationError(
            f"{clash} is published on two splits; give our values a `split` column, or pass only "
            "the published numbers of the split that was scored."
        )
    if ours.duplicated(keys).any():
        twice = ours.loc[ours.duplicated(keys), CELL].iloc[0].tolist()
        raise EvaluationError(f"Our values hold {' / '.join(twice)} twice; give each cell once.")
    theirs = _without_repeats(published).rename(columns={"number": "published", "value": "printed"})
    ours = ours.rename(columns={"value": "ours", "note": "our note"}).assign(ran=True)
    side = theirs.merge(ours, "left", keys)
    known = pd.MultiIndex.from_frame(theirs[keys])
    extra = ours[~pd.MultiIndex.from_frame(ours[keys]).isin(known)]
    tables = theirs.drop_duplicates(["column", "metric"]).set_index(["column", "metric"])["table"]
    at = tables.reindex(pd.MultiIndex.from_frame(extra[["column", "metric"]]))
    extra = extra.assign(table=at.fillna("ours").to_numpy())
    unlisted = [row for row in failed if row not in {*theirs["row"], *ours["row"]}]
    side = pd.concat([side, extra, _empty_cells(unlisted, theirs)])
    order = {name: rank for rank, name in enumerate([*theirs["table"].unique(), "ours"])}
    side = side.sort_values("table", key=lambda table: table.map(order), kind="stable")
    side["difference"] = side["ours"] - side["published"]
    side[["note", "our note"]] = side[["note", "our note"]].fillna("")
    side["verdict"] = [
        _cell_verdict(cell, not_comparable, failed) for cell in side.to_dict("records")
    ]
    side["note"] = (side["note"] + "; " + side["our note"]).str.strip("; ")
    return side[[*SIDE_BY_SIDE, "printed"]].reset_index(drop=True)


def our_values(ours: pd.DataFrame) -> pd.DataFrame:
    """Our values with the columns that they are compared by."""
    if "column" not in ours and "group" in ours:
        ours = ours.rename(columns={"group": "column"})
    if missing := [name for name in [*CELL, "value"] if name not in ours]:
        raise EvaluationError(f"Our values lack the column(s) {', '.join(missing)}.")
    optional = {"low": np.nan, "high": np.nan, "note": ""}
    ours = ours.assign(**{name: fill for name, fill in optional.items() if name not in ours})
    return ours[[name for name in [*CELL, "split", "value", *optional] if name in ours]]


def _in_two_splits(published: pd.DataFrame, ours: pd.DataFrame) -> str:
    scored = published.merge(ours[CELL].drop_duplicates(), on=CELL)
    splits = scored.groupby(CELL)["split"].nunique()
    return " / ".join(splits.index[splits > 1][0]) if (splits > 1).any() else ""


def _without_repeats(published: pd.DataFrame) -> pd.DataFrame:
    """Without the numbers of running text that a table, or earlier text, prints too."""
    spoken = published["table"].isin(RUNNING_TEXT)
    tables_first = pd.concat([published[~spoken], published[spoken]])
    repeated = tables_first.duplicated([*CELL, "dataset", "split"])
    return tables_first[~repeated | ~spoken]


def _empty_cells(rows: list[str], published: pd.DataFrame) -> pd.DataFrame:
    """Cells without numbers in the first printed table, for rows that the paper does not print."""
    first = published[published["table"] == published["table"].iloc[0]] if len(published) else None
    if first is None:
        first = pd.DataFrame([{"table": "ours", "column": "mean", "metric": "AUC"}])
    cells = first[["table", "column", "metric"]].drop_duplicates()
    return pd.concat([cells.iloc[:0].assign(row=""), *(cells.assign(row=row) for row in rows)])


def _cell_verdict(cell: dict, not_comparable: str | None, failed: dict[str, str]) -> str:
    if cell["ran"] is not True and cell["row"] in failed:
        return FAILED + failed[cell["row"]]
    if np.isnan(cell["published"]):
        return "not published"
    if cell["note"].startswith(QUOTED):
        return QUOTED
    if cell["ran"] is not True:
        return "not run"
    if np.isnan(cell["ours"]):
        return "undefined"
    return verdict(cell["published"], cell["low"], cell["high"], not_comparable)
