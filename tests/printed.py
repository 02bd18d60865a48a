"""Build published numbers, claims and our values for the tests of evaluation/."""

from pathlib import Path

import pandas as pd

from evaluation.claims import CLAIM_COLUMNS

PAPERS = ["asadi2025", "chen2019", "ge2018", "mo2019", "pham2019"]
HEADER = "table,row,column,metric,dataset,split,value,note"


def frame(cells: list[tuple[str, str, str, str, str]]) -> pd.DataFrame:
    """Return cells (table, row, column, metric, value) as `published.load` does."""
    printed = pd.DataFrame(cells, columns=["table", "row", "column", "metric", "value"])
    printed = printed.assign(dataset="D", split="test", note="")
    return printed.assign(number=pd.to_numeric(printed["value"]))


def our_row(
    row: str, column: str = "mean", value: float = 0.9, metric: str = "AUC", **more
) -> dict:
    """Return one of our values."""
    return {"row": row, "column": column, "metric": metric, "value": value} | more


def write_paper(folder: Path, rows: dict[str, dict[str, float]], claims: list[str]) -> None:
    """Write new2030.csv with values per row and column of a table T, and claims.csv."""
    cells = [
        f"T,{row},{column},AUC,D,test,{value},"
        for row, values in rows.items()
        for column, value in values.items()
    ]
    (folder / "new2030.csv").write_text("\n".join([HEADER, *cells, ""]))
    lines = [f"new2030,{claim}" for claim in claims]
    (folder / "claims.csv").write_text("\n".join([",".join(CLAIM_COLUMNS), *lines, ""]))
