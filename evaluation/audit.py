"""Find inconsistencies in the published tables from the published numbers alone.

Run it with `python -m evaluation.published audit`. Each check takes the numbers of one paper, as
`published.load` returns them, and yields findings. No check refers to a particular paper.
"""

import itertools
import json
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import claims, metrics
from evaluation.claims import Cells, by_table, comparisons, gain_readings
from evaluation.published import CELL, FOLDER, QUOTED, decimals, is_average, load, papers

ROW = ["row", "metric", "split"]
ROUNDING = 1e-9  # rounding error of our arithmetic, not of the paper
OUTLIER = 6.0  # in robust standard deviations of the residuals


def audit(printed: pd.DataFrame) -> Iterator[dict]:
    """Yield every finding on the published numbers of one paper."""
    for check in (out_of_range, wrong_mean, given_twice, odd_mixture, two_names, padded_digits):
        for finding in check(printed):
            yield {"kind": check.__name__.replace("_", " "), **finding}


def out_of_range(printed: pd.DataFrame) -> Iterator[dict]:
    """Yield values outside the bounds of their metric."""
    for name, metric in metrics.METRICS.items():
        low, high = metric.bounds
        outside = (printed["metric"] == name) & ~printed["number"].between(low, high)
        for cell in printed[outside].to_dict("records"):
            yield _finding(cell, f"{low:g} to {high:g}", f"{name} cannot be so large or small")


def recomputable_means(printed: pd.DataFrame) -> Iterator[tuple[dict, list[dict]]]:
    """Yield each published mean with the published labels that it averages."""
    rows: dict[tuple, dict] = {}
    labels: dict[tuple, dict] = {}
    for cell in printed.to_dict("records"):
        table = cell["table"], cell["metric"]
        rows.setdefault((table, cell["row"], cell["split"]), {})[cell["column"]] = cell
        if not is_average(cell["column"]):
            labels.setdefault(table, {})[cell["column"]] = None
    for (table, *_), row in rows.items():
        wanted = labels.get(table, {})
        if "mean" in row and len(wanted) > 1 and wanted.keys() <= row.keys():
            yield row["mean"], [row[label] for label in wanted]


def wrong_mean(printed: pd.DataFrame) -> Iterator[dict]:
    """Yield published means that differ from the rounded mean of the published labels."""
    for mean, parts in recomputable_means(printed):
        computed, unit = np.mean([cell["number"] for cell in parts]), _unit(mean["value"])
        off = abs(computed - mean["number"])
        if off <= unit / 2 + ROUNDING:
            continue
        slack = unit / 2 + np.mean([_unit(cell["value"]) for cell in parts]) / 2
        detail = (
            "possible if averaged before rounding"
            if off <= slack + ROUNDING
            else f"off by {off:.2g}: no rounding of the {len(parts)} labels explains it"
        )
        yield _finding(mean, f"{computed:.{decimals(mean['value']) + 1}f}", detail)


def given_twice(printed: pd.DataFrame) -> Iterator[dict]:
    """Yield cells that are published in several places with different values."""
    cell = [*CELL, "dataset", "split"]
    repeated = printed[printed.duplicated(cell, keep=False)]
    for _, cells in repeated.groupby(cell, sort=False):
        first, *others = cells.to_dict("records")
        for other in others:
            if other["number"] == first["number"]:
                continue
            fits = [cell["value"] for cell in (first, other) if _fits_its_mean(cell, printed)]
            detail = [f"{first['table']} has {first['value']}", _slip(first, other)]
            if len(fits) == 1:
                detail.append(f"the printed mean recomputes with {fits[0]}")
            yield _finding(other, first["value"], "; ".join(filter(None, detail)))


def _fits_its_mean(cell: dict, printed: pd.DataFrame) -> bool:
    """Return True if this cell's value agrees with the published mean of its row."""
    same_row = printed[[*ROW]].eq([cell[name] for name in ROW]).all(axis=1)
    for mean, parts in recomputable_means(printed[same_row]):
        if cell["column"] in {part["column"] for part in parts}:
            used = [cell if part["column"] == cell["column"] else part for part in parts]
            computed = np.mean([part["number"] for part in used])
            return abs(computed - mean["number"]) <= _unit(mean["value"]) / 2 + ROUNDING
    return False


def odd_mixture(printed: pd.DataFrame) -> Iterator[dict]:
    """Yield AUCs that violate mean = a D + b N + c, which the other rows of their table obey.

    A label's negatives are images with another finding (D) or with none (N), so its AUC is a
    mixture of both. The fit is the least median of squares over all triples of rows, which is
    robust to outliers in up to half of the rows.
    """
    for _, table in printed[printed["metric"] == "AUC"].groupby("table", sort=False):
        wide = table.pivot_table(index="row", columns="column", values="number", sort=False)
        if not {"mean", "D", "N"} <= {*wide.columns} or len(wide := wide.dropna()) < 6:
            continue
        auc, terms = wide["mean"].to_numpy(), wide[["D", "N"]].assign(one=1.0).to_numpy()
        fits = [
            np.linalg.lstsq(terms[list(rows)], auc[list(rows)], rcond=None)[0]
            for rows in itertools.combinations(range(len(auc)), 3)
        ]
        best = min(fits, key=lambda fit: np.median((auc - terms @ fit) ** 2))
        deviation = 1.4826 * np.median(np.abs(auc - terms @ best))
        cells = table[table["column"] == "mean"].set_index("row").loc[wide.index]
        threshold = max(OUTLIER * deviation, 5 * cells["value"].map(_unit).max())
        inlier = np.abs(auc - terms @ best) <= threshold
        fit = np.linalg.lstsq(terms[inlier], auc[inlier], rcond=None)[0]
        typical = np.abs(auc - terms @ fit)[inlier].max()
        for row in np.flatnonzero(~inlier):
            cell = cells.reset_index().iloc[row].to_dict()
            computed = f"{terms[row] @ fit:.{decimals(cell['value'])}f}"
            detail = [
                f"D and N of its row give {computed}; the other {inlier.sum()} rows fit to "
                f"{typical:.5f}, this one is off by {abs(auc[row] - terms[row] @ fit):.4f}",
                _slip(cell, {"value": computed}),
            ]
            yield _finding(cell, computed, "; ".join(filter(None, detail)))


def two_names(printed: pd.DataFrame) -> Iterator[dict]:
    """Yield averages that are published in two tables under two names.

    Two different rows count only if the value has four decimals; fewer can agree by chance.
    """
    averages = printed[printed["column"].map(is_average)].to_dict("records")
    for first, other in itertools.combinations(averages, 2):
        same = first["value"] == other["value"] and first["metric"] == other["metric"]
        if not same or first["table"] == other["table"]:
            continue
        if first["row"] == other["row"] and first["column"] != other["column"]:
            names = f"{first['column']!r} in {first['table']}, {other['column']!r} here"
        elif first["row"] != other["row"] and first["column"] == other["column"]:
            if decimals(first["value"]) < 4:
                continue
            names = f"{first['row']!r} in {first['table']}, {other['row']!r} here"
        else:
            continue
        yield _finding(other, first["value"], f"the same value is {names}")


def padded_digits(printed: pd.DataFrame) -> Iterator[dict]:
    """Yield rows whose labels all end in zero, so they are known to fewer digits than printed."""
    labels = printed[~printed["column"].map(is_average)]
    for _, row in labels.groupby(["table", "row", "metric"], sort=False):
        known = row["value"].str.rstrip("0").map(decimals).max()
        printed_digits = row["value"].map(decimals).min()
        if len(row) >= 5 and known < printed_digits:
            cell = row.iloc[0].to_dict() | {
                "column": f"all {len(row)} labels",
                "value": f"{printed_digits} decimals",
            }
            detail = f"every value ends in {'0' * (printed_digits - known)}"
            yield _finding(cell, f"{known} decimals", detail)


def claims_that_fail(printed: pd.DataFrame, checked: pd.DataFrame) -> Iterator[dict]:
    """Yield claims that the paper's own numbers contradict, or support in some readings only."""
    tables = by_table(printed)
    for line in checked.to_dict("records"):
        finding = {
            "where": f"{line['table']}, {line['left_row']} {line['relation']} {line['right_row']}, "
            f"{line['column']} {line['metric']}",
            "printed": line["amount"],
            "computed": line["published_margin"],
        }
        if line["published"] == "does not hold":
            detail = f"claimed in line {line['line']}: “{line['quote']}”"
            yield {"kind": "claim", **finding, "detail": detail}
        elif line["published"] == "holds":
            if line["amount"].endswith("%"):
                yield from _percentage(line, finding, tables)
            if line["column"] == "mean" and line["relation"] == ">":
                yield from _mean_only(line, finding, tables)


def _percentage(line: dict, finding: dict, tables: dict[str, Cells]) -> Iterator[dict]:
    """Yield a gain in percent unless it fits both as points of the metric and as a ratio."""
    claimed, readings = line["amount"].rstrip("%"), gain_readings(line, tables)
    if np.isnan([*readings.values()]).any():
        return  # several columns, or a row without numbers
    slack = _unit(claimed) / 2 + ROUNDING
    fitting = [name for name, value in readings.items() if abs(value - float(claimed)) <= slack]
    if len(fitting) < 2:
        shown = ", ".join(f"{value:.2f} {name}" for name, value in readings.items())
        detail = "fits neither as points nor relative"
        if fitting:
            detail = f"fits as {fitting[0]} only"
        yield {"kind": "percentage", **finding, "computed": shown, "detail": detail}


def _mean_only(line: dict, finding: dict, tables: dict[str, Cells]) -> Iterator[dict]:
    """Yield a gain in the mean if single labels do not share it."""
    labels = [cell for cell in comparisons(line | {"column": "*"}, tables) if cell.margin < 0]
    if labels:
        one = "|" not in line["right_row"] and line["right_row"] not in ("*", QUOTED)
        worse = [
            f"{cell.column} {cell.margin:+.4f}" + ("" if one else f" against {cell.right_row}")
            for cell in labels
        ]
        yield {"kind": "mean only", **finding, "detail": f"not shared by {', '.join(worse)}"}


def _finding(cell: dict, computed: str, detail: str) -> dict:
    where = f"{cell['table']}, {cell['row']}, {cell['column']} {cell['metric']}"
    return {"where": where, "printed": cell["value"], "computed": computed, "detail": detail}


def _unit(value: str) -> float:
    """Return one unit of the last decimal of a printed number."""
    return 10.0 ** -decimals(value)


def _slip(first: dict, second: dict) -> str:
    """Describe the typing error that turns one printed value into the other; empty if none does."""
    one, two = first["value"], second["value"]
    positions = [i for i, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]]
    if len(one) != len(two) or len(positions) > 2:
        return ""
    if len(positions) == 1:
        return "one digit differs"
    swapped = [one[i] for i in positions] == [two[i] for i in reversed(positions)]
    return "two digits are swapped" if swapped else "two digits differ"


# The report


def report(names: list[str] | None = None, folder: Path = FOLDER) -> dict:
    """Return the findings of the papers, and counts of what was checked."""
    findings, looked_at = [], {}
    for paper in names or papers(folder):
        printed, checked = load(paper, folder), claims.check(paper, folder=folder)
        verdicts = checked["published"].tolist()
        looked_at[paper] = {
            "numbers": len(printed),
            "means recomputed": sum(1 for _ in recomputable_means(printed)),
            "comparisons claimed": len(checked),
            "hold": verdicts.count("holds"),
            "do not hold": verdicts.count("does not hold"),
            "without numbers": verdicts.count("no numbers"),
        }
        every = itertools.chain(audit(printed), claims_that_fail(printed, checked))
        findings += [{"paper": paper, **finding} for finding in every]
    return {"papers": looked_at, "findings": findings}


def as_json(result: dict) -> str:
    return json.dumps(result, indent=1, ensure_ascii=False)


def as_text(result: dict, width: int | None = None) -> str:
    """Return the report as text for a terminal of this width."""
    width = width or max(60, shutil.get_terminal_size((100, 24)).columns)
    parts = []
    for paper, counts in result["papers"].items():
        findings = [finding for finding in result["findings"] if finding["paper"] == paper]
        summary = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        parts += [*textwrap.wrap(f"{paper}: {summary}", width), *_columns(findings, width), ""]
    total = len(result["findings"])
    return "\n".join([*parts, f"{total} findings; docs/published.md says how to read them."])


def _columns(findings: list[dict], width: int) -> Iterator[str]:
    """Yield lines with kind, cell, printed and computed value in columns, and the detail below."""
    heads = ("kind", "where", "printed", "computed")
    lines = [{name: name for name in heads} | {"detail": ""}, *findings] if findings else []
    widths = {name: max((len(line[name]) for line in lines), default=0) for name in heads}
    widths["where"] = min(widths["where"], width - 8 - sum(widths.values()) + widths["where"])
    for line in lines:
        cells = [textwrap.wrap(line[name], size) or [""] for name, size in widths.items()]
        for pieces in itertools.zip_longest(*cells, fillvalue=""):
            padded = [text.ljust(size) for text, size in zip(pieces, widths.values(), strict=True)]
            yield ("  " + "  ".join(padded)).rstrip()
        indent = " " * (widths["kind"] + 6)
        yield from textwrap.wrap(
            line["detail"], width, initial_indent=indent, subsequent_indent=indent
        )
