"""Load the published numbers as printed, and compare them with ours in computed verdicts.

`results/published/NAME.csv` holds one published number per line, and `claims.csv` one claimed
comparison per line. A paper that is added later brings its claims in `NAME.claims.csv`. A paper's
name and its dataset are defined by these files: see `papers` and `dataset`.
"""

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import EvaluationError

FOLDER = Path(__file__).parents[2] / "results" / "published"
COLUMNS = ["table", "row", "column", "metric", "dataset", "split", "value", "note"]
CELL = ["row", "column", "metric"]  # identifies a number in all tables of a paper
SIDE_BY_SIDE = ["table", *CELL, "published", "ours", "low", "high", "difference", "verdict", "note"]
FAILED = "failed: "  # prefix of the verdict of a row that ended without predictions
RELEASED = "released"  # verdict of a row whose predictions were released by its authors
QUOTED = "quoted"  # prefix of the note of a number that the paper took from another paper
T_THREE = 4.303  # 97.5 % quantile of Student's t for three runs, whose deviation `sd` is printed
MISPRINT = "misprint"  # verdict of a number whose note says "misprint of READING"
# verdicts of numbers that are computed again from the predictions that the paper scored
EQUAL, DIFFERS = "equal", "same images, differs"  # and by how much
COMPATIBLE = "compatible with other patients"  # the images may not be the same
RUNNING_TEXT = ("abstract", "text", "TL;DR")
AVERAGES = {"mean", "weighted mean", "leaf", "high-level", "W", "W normalised", "D", "N"}
RESTORE = "restore the suite's own files with git checkout -- results/published"


def papers(folder: Path = FOLDER) -> list[str]:
    """Return the names of all papers whose numbers are transcribed."""
    return sorted(path.stem for path in folder.glob("*.csv") if path not in claim_files(folder))


def dataset(paper: str, folder: Path = FOLDER) -> str:
    """Return the name of a paper's dataset as the readers know it, such as `chestxray14`."""
    printed = load(paper, folder)["dataset"]
    return printed[0].lower().replace("-", "") if len(printed) else ""


def load(paper: str, folder: Path = FOLDER) -> pd.DataFrame:
    """Return a paper's published numbers: `value` as printed (text) and `number` as a float."""
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
    deviation = pd.to_numeric(frame.get("sd", pd.Series("", frame.index)), errors="coerce")
    return frame.assign(number=number, margin=T_THREE * deviation.fillna(0) / 3**0.5)


def claim_files(folder: Path) -> list[Path]:
    """Return the files of claimed comparisons."""
    return [folder / "claims.csv", *sorted(folder.glob("*.claims.csv"))]


def is_average(column: str) -> bool:
    """Return True if a column is an average over labels, and False if it is a single label."""
    return column in AVERAGES or column.startswith(("leaf given", "mean of", "weighted mean of"))


def reading(note: str) -> str:
    """Return the number that a misprint stands for by its note, or an empty text."""
    named = re.search(rf"\b{MISPRINT} of (\d*\.?\d+)", note)
    return named[1] if named else ""


def decimals(printed: str) -> int:
    """Return the number of decimals of a printed number."""
    return len(printed.partition(".")[2])


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """Return a CSV file as texts; raise EvaluationError if columns or fields of a line are missing.

    Unlike pandas' reader, it refuses lines with too few or too many fields.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, line) for line in reader if line]
    except FileNotFoundError as error:
        raise EvaluationError(f"There is no file {path}; {RESTORE}.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} is not a CSV file in UTF-8; {RESTORE}.") from error
    header = lines[0][1] if lines else []
    if missing := [name for name in columns if name not in header]:
        raise EvaluationError(f"{path} lacks the column(s) {', '.join(missing)}; {RESTORE}.")
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise EvaluationError(
                f"{path}, line {number}: {len(line)} fields instead of {len(header)}; put a text "
                "that contains a comma in quotes."
            )
    return pd.DataFrame([line for _, line in lines[1:]], columns=header, dtype=str)


def rounding(printed: str) -> float:
    """Return half a unit of the last printed digit: .903 stands for .9025 to .9035."""
    return 0.5 * 10.0 ** -decimals(printed)


# Compare our numbers with the published ones


def verdict(
    published: float,
    low: float,
    high: float,
    not_comparable: str | None = None,
    margin: float = 0.0,
) -> str:
    """Return where the published value, give or take its margin, lies to our interval."""
    if not_comparable:
        return f"not comparable ({not_comparable})"
    if np.isnan([published, low, high]).any():
        return "no interval"
    if published + margin < low:
        return "below"
    return "above" if published - margin > high else "within"


def verdict_kind(verdict: str) -> str:
    """Return a verdict without its reason or amount: "not comparable", "failed", "equal", …"""
    return "failed" if verdict.startswith(FAILED) else re.split(r" \(| (?:to|by) [\d.]", verdict)[0]


def compare(
    published: pd.DataFrame,
    ours: pd.DataFrame,
    not_comparable: str | None = None,
    failed: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Return published and our values side by side: one line per cell, each with its verdict.

    `ours` has the columns row, column (or group), metric, value, and optionally low, high, note and
    split. `failed` maps rows that ended without predictions to the reason; their verdict is
    "failed: REASON". Numbers of running text that a table prints too are left out. Rows that only
    we ran are added to the table that prints their column.
    """
    ours, failed = our_values(ours), failed or {}
    keys = [*CELL, "split"] if "split" in ours else CELL
    if "split" not in ours and (clash := _in_two_splits(published, ours)):
        raise EvaluationError(
            f"{clash} is published on two splits; add a `split` column to our values, or pass only "
            "the published numbers of the split that was scored."
        )
    if ours.duplicated(keys).any():
        twice = ours.loc[ours.duplicated(keys), CELL].iloc[0].tolist()
        raise EvaluationError(f"Our values have {' / '.join(twice)} twice; give each cell once.")
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
    side[["note", "our note"]] = side[["note", "our note"]].fillna("")
    side["difference"] = (side["ours"] - side["published"]).where(side["note"].map(reading) == "")
    side["verdict"] = [
        _cell_verdict(cell, not_comparable, failed) for cell in side.to_dict("records")
    ]
    side["note"] = (side["note"] + "; " + side["our note"]).str.strip("; ")
    return side[[*SIDE_BY_SIDE, "printed"]].reset_index(drop=True)


def our_values(ours: pd.DataFrame) -> pd.DataFrame:
    """Return our values with only the columns that are compared, and defaults for the rest."""
    if "column" not in ours and "group" in ours:
        ours = ours.rename(columns={"group": "column"})
    if missing := [name for name in [*CELL, "value"] if name not in ours]:
        raise EvaluationError(f"Our values lack the column(s) {', '.join(missing)}.")
    optional = {"low": np.nan, "high": np.nan, "note": ""}
    ours = ours.assign(**{name: fill for name, fill in optional.items() if name not in ours})
    return ours[[name for name in [*CELL, "split", "value", *optional] if name in ours]]


def _in_two_splits(published: pd.DataFrame, ours: pd.DataFrame) -> str:
    """Return the first of our cells that is published on two splits, or an empty text."""
    scored = published.merge(ours[CELL].drop_duplicates(), on=CELL)
    splits = scored.groupby(CELL)["split"].nunique()
    return " / ".join(splits.index[splits > 1][0]) if (splits > 1).any() else ""


def _without_repeats(published: pd.DataFrame) -> pd.DataFrame:
    """Drop the numbers of running text that a table, or earlier text, prints too."""
    in_text = published["table"].isin(RUNNING_TEXT)
    tables_first = pd.concat([published[~in_text], published[in_text]])
    repeated = tables_first.duplicated([*CELL, "dataset", "split"])
    return tables_first[~repeated | ~in_text]


def _empty_cells(rows: list[str], published: pd.DataFrame) -> pd.DataFrame:
    """Return cells without numbers in the first table, for rows that the paper does not print."""
    first = pd.DataFrame([{"table": "ours", "column": "mean", "metric": "AUC"}])
    if len(published):
        first = published[published["table"] == published["table"].iloc[0]]
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
    if reading(cell["note"]):
        return MISPRINT
    margin = rounding(cell["printed"]) + cell.get("margin", 0.0)
    return verdict(cell["published"], cell["low"], cell["high"], not_comparable, margin)
