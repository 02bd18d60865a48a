"""Format tables of our numbers next to the published ones, as Markdown, terminal text or CSV."""

import itertools
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import safefiles
from evaluation.published import FAILED, RELEASED, decimals, reading, verdict_kind

WIDTH = 100  # characters of a terminal line
MANY_COLUMNS = 8  # a table with more (Mo's 14 labels) is transposed
HEADING = 9  # the least width of a column, in characters
pd.set_option("mode.string_storage", "python")  # pyarrow refuses names that are not UTF-8
DECIMALS = 3  # decimals of numbers without a published counterpart
MISSING = "n/a"
NOT_RUN = ("not run", "quoted")
LONGEST_REASON = 40  # characters of "failed: REASON" that fit next to the name of a row
NOT_COMPARABLE = "not comparable ("
HOW_CLAIMS_ARE_JUDGED = (
    "Ours: a claim *holds* where it is true in the whole 95 % interval of the difference between "
    "our rows, *does not hold* where it is true nowhere in it, and is *within noise* where it is "
    "true in a part of it. Their numbers are judged as they are printed. *No interval* says that "
    "ours were judged by point values too."
)


def without_leading_zero(text: str) -> str:
    """Return a formatted number as the papers print it: `.873`, `-.02` or `+.02`."""
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


def number(value: float, digits: int = DECIMALS) -> str:
    """Return a value with this many decimals and no leading zero, `.873`; NaN is `n/a`."""
    return MISSING if pd.isna(value) else without_leading_zero(f"{value:.{digits}f}")


def with_interval(value: float, low: float, high: float, digits: int = DECIMALS) -> str:
    """Return `.873 [.861, .884]`, or the value alone if its interval is unknown."""
    if pd.isna(low) or pd.isna(high):
        return number(value, digits)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def as_read(printed: str, note: str) -> str:
    """Return a published number as the papers print it; of a misprint also what it stands for."""
    texts = filter(None, [printed, reading(note)])
    return " read as ".join(map(without_leading_zero, texts))


def as_printed(side_by_side: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return each table in the paper's shape: a published row, then our row and the verdicts."""
    tables = side_by_side.groupby("table", sort=False)
    return {_title(name, cells): _printed(cells) for name, cells in tables}


def _title(name: str, cells: pd.DataFrame) -> str:
    metrics = cells["metric"].unique()
    return name if len(metrics) > 1 else f"{name} ({metrics[0]})"


def _printed(cells: pd.DataFrame) -> pd.DataFrame:
    digits = cells["printed"].dropna().map(decimals).max()
    digits = DECIMALS if pd.isna(digits) else digits  # for our cells without a published number
    cells = cells.assign(
        heading=cells["column"] + (" " + cells["metric"] if cells["metric"].nunique() > 1 else ""),
        printed=[*map(as_read, cells["printed"].fillna(""), cells["note"])],
        ours=[_our_cell(cell, digits) for cell in cells.to_dict("records")],
        verdict=cells["verdict"].map(verdict_kind),  # the reason is printed above the table
        failed=cells["verdict"].where(cells["verdict"].str.startswith(FAILED), ""),
    )
    rows = list(cells["row"].unique())
    fullest = cells[cells["row"] == cells["row"].value_counts(sort=False).idxmax()]
    columns = list(dict.fromkeys([*fullest["heading"], *cells["heading"]]))
    printed, ours, verdicts = (
        cells.pivot(index="row", columns="heading", values=values).reindex(rows, columns=columns)
        for values in ("printed", "ours", "verdict")
    )
    reasons = cells.groupby("row")["failed"].max()
    lines = {}
    for row in rows:
        words = set(verdicts.loc[row].dropna())
        ran = not words <= {*NOT_RUN}
        if printed.loc[row].fillna("").ne("").any():
            shown = (
                "published" if ran else "quoted" if words == {"quoted"} else "published, not run"
            )
            lines[row, shown] = printed.loc[row]
        verdict_words = words - {"undefined"}  # an undefined cell already shows n/a
        if verdict_words == {"failed"}:
            lines[row, f"ours, {_shortened(reasons[row])}"] = ours.loc[row]
        elif verdict_words == {RELEASED}:
            lines[row, "not ours"] = ours.loc[row]
        elif verdict_words in ({"not comparable"}, {"not published"}):
            lines[row, f"ours, {verdict_words.pop()}"] = ours.loc[row]
        elif ran:
            lines[row, "ours"] = ours.loc[row]
            lines[row, "verdict"] = verdicts.loc[row]
    wide = pd.DataFrame(lines, index=pd.Index(columns)).fillna("")
    return wide if len(columns) > MANY_COLUMNS else wide.T


def _shortened(reason: str) -> str:
    short = len(reason) <= LONGEST_REASON
    return reason if short else reason[: LONGEST_REASON - 1].rstrip() + "…"


def _our_cell(cell: dict, digits: int) -> str:
    if cell["verdict"] in NOT_RUN or cell["verdict"].startswith(FAILED):
        return ""
    if not pd.isna(cell["printed"]):
        digits = decimals(cell["printed"])
    return with_interval(cell["ours"], cell["low"], cell["high"], digits)


def to_markdown(table: pd.DataFrame) -> str:
    """Return a frame as Markdown; a side-by-side frame is split into the papers' tables."""
    if not _is_side_by_side(table):
        return "\n".join(_markdown_lines(table)) + "\n"
    parts = [f"**{warning}**\n" for warning in warnings(table)]
    for name, printed in as_printed(table).items():
        parts += [f"### {name}\n", "\n".join(_markdown_lines(printed)) + "\n"]
    if notes := footnotes(table):
        parts.append("\n".join(f"- {line}" for line in notes) + "\n")
    return "\n".join(parts)


def titled(title: str, text: str) -> str:
    """Return a text under its underlined title."""
    return f"{title}\n{'-' * len(title)}\n{text}"


def to_text(table: pd.DataFrame, width: int = WIDTH) -> str:
    """Return a frame as aligned text; wide tables continue in further blocks of columns."""
    if not _is_side_by_side(table):
        return "\n\n".join(_text_blocks(table, width)) + "\n"
    parts = [f"*** {warning} ***" for warning in warnings(table)]
    for name, printed in as_printed(table).items():
        parts += [titled(name, "\n\n".join(_text_blocks(printed, width)))]
    notes = "\n".join(textwrap.fill(line, width) for line in footnotes(table))
    return "\n\n".join([*parts, notes]).rstrip() + "\n"


def to_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a frame as CSV, atomically."""
    return _write(path, table.to_csv(index=False))


def write(table: pd.DataFrame, folder: str | Path, stem: str) -> tuple[Path, Path]:
    """Write a frame to `folder/stem.csv` and `folder/stem.md`, and return both paths."""
    folder = Path(folder)
    return (
        to_csv(table, folder / f"{stem}.csv"),
        _write(folder / f"{stem}.md", to_markdown(table)),
    )


def warnings(side_by_side: pd.DataFrame) -> list[str]:
    """Return each reason why our numbers are not comparable with the published ones, once."""
    verdicts = side_by_side["verdict"]
    reasons = verdicts[verdicts.str.startswith(NOT_COMPARABLE)].drop_duplicates()
    reasons = reasons.str.removeprefix(NOT_COMPARABLE).str.removesuffix(")")
    return [warning(reason) for reason in reasons]


def warning(reason: str) -> str:
    """Return the warning above numbers that are not comparable with the published ones."""
    return f"{reason}, not comparable with the published values"


def claims_page(checked: pd.DataFrame, title: str, not_comparable: str | None) -> str:
    """Return judged claims as Markdown: each quote once, with one line per comparison."""
    counts = checked["ours"].str.split(":").str[0].value_counts()
    parts = [f"# {title}\n", *([f"**{warning(not_comparable)}**\n"] if not_comparable else [])]
    parts += [f"{HOW_CLAIMS_ARE_JUDGED}\n"]
    words = ", ".join(f"{word} {count}" for word, count in counts.items())
    parts += [f"**Of {len(checked)} comparisons, ours:** {words}.\n"]
    lines = []
    records = checked.fillna("").to_dict("records")
    for (name, quote), group in itertools.groupby(records, lambda c: (c["claim"], c["quote"])):
        for i, line in enumerate(group):
            theirs = _with_details(line["published"], line["published_margin"])
            ours = _with_details(line["ours"], line["margin"], line["size"], line["our_note"])
            claim = "" if i else f"{name}: “{quote}”"
            lines.append([claim, ": ".join(claim_in_words(line)), theirs, ours])
    columns = ["claim", "comparison", "their numbers", "ours"]
    return "\n".join([*parts, left_aligned(pd.DataFrame(lines, columns=columns))])


def claim_in_words(line: dict) -> tuple[str, str]:
    """Return a line of claims.csv as two texts: `A > B by 2 %` and `leaf AUC (Table 1)`."""
    rows = "every other row" if line["right_row"] == "*" else line["right_row"].replace("|", ", ")
    columns = "every label" if line["column"] == "*" else line["column"].replace("|", ", ")
    amount = ""
    if line["scope"] == "count":
        among = "the labels" if line["column"] == "*" else columns
        columns = f"at least {line['amount']} of {among}"
    elif line["amount"]:
        amount = f" {'by' if line['relation'] in '<>' else 'to within'} {line['amount']}"
    gain = ", more than for any other label" if line["scope"] == "most" else ""
    relation = {">=": "≥", "<=": "≤"}.get(line["relation"], line["relation"])
    metric, table = line["metric"].replace("|", " and "), line["table"].replace("|", ", ")
    return f"{line['left_row']} {relation} {rows}{amount}", f"{columns} {metric}{gain} ({table})"


def _with_details(verdict: str, *details: str) -> str:
    return "; ".join(filter(None, [f"**{verdict}**", *details]))


def left_aligned(table: pd.DataFrame) -> str:
    """Return a Markdown table whose columns are aligned to the left, for text."""
    heading, ruler, *lines = _markdown_lines(table)
    return "\n".join([heading, ruler.replace("---:", "---"), *lines]) + "\n"


def footnotes(side_by_side: pd.DataFrame) -> list[str]:
    """Return each note on cells once; sources of quoted numbers are only in the CSV."""
    noted = side_by_side[side_by_side["note"].ne("") & side_by_side["verdict"].ne("quoted")]
    sizes = side_by_side.groupby(["table", "row"]).size()
    ran_here = side_by_side["ours"].notna() & side_by_side["verdict"].ne(RELEASED)
    our_cells = {*side_by_side.index[ran_here]}
    cells_of: dict[str, set] = {}
    where_of: dict[str, list[str]] = {}
    split = noted.assign(note=noted["note"].str.split("; ")).explode("note")
    for (note, table, row), cells in split.groupby(["note", "table", "row"], sort=False):
        whole = 1 < len(cells) == sizes[table, row]
        columns = [""] if whole else ", " + cells["column"] + " " + cells["metric"]
        where_of.setdefault(note, []).extend(f"{table}, {row}{column}" for column in columns)
        cells_of.setdefault(note, set()).update(cells.index)
    lines = []
    for note, cell_names in where_of.items():
        more = f"; and {len(cell_names) - 2} more cells" if len(cell_names) > 3 else ""
        where = f"{'; '.join(cell_names[: 2 if more else 3])}{more}"
        if len(cell_names) > 1 and cells_of[note] >= our_cells:
            where = "All of ours"
        lines.append(f"{where}: {note}")
    verdicts = side_by_side[["row", "verdict"]].drop_duplicates().itertuples(index=False)
    failures = [each for each in verdicts if each.verdict.startswith(FAILED)]
    return lines + [f"{row}: {text}" for row, text in failures if text != _shortened(text)]


def _is_side_by_side(table: pd.DataFrame) -> bool:
    return {"published", "ours", "verdict", "printed"} <= {*table.columns}


def _grid(table: pd.DataFrame) -> tuple[list[str], list[list[str]], int]:
    """Return header and rows as text, and the number of leading columns that name the row."""
    named = not isinstance(table.index, pd.RangeIndex)
    names = table.index.nlevels if named else 0
    header = [""] * names + [
        f"{column[0]} ({column[1]})" if isinstance(column, tuple) else str(column)
        for column in table.columns
    ]
    rows, above = [], None
    for key, values in zip(table.index, table.itertuples(index=False), strict=True):
        key = key if isinstance(key, tuple) else (key,)
        shown = ["" if names > 1 and key[0] == above else str(key[0]), *map(str, key[1:])]
        rows.append(shown[:names] + [_text(value) for value in values])
        above = key[0]
    return header, rows, names


def _text(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    return MISSING if value is None or value is pd.NA else str(value)


def _markdown_lines(table: pd.DataFrame) -> Iterator[str]:
    header, rows, names = _grid(table)
    yield "| " + " | ".join(header) + " |"
    yield "|" + "".join(" --- |" if i < names else " ---: |" for i in range(len(header)))
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _text_blocks(table: pd.DataFrame, width: int) -> Iterator[str]:
    """Yield aligned blocks of columns that fit the width; each repeats the names of the rows."""
    header, rows, names = _grid(table)
    columns = [*zip(*rows, strict=True)] or [()] * len(header)  # a table may have no rows
    widths = [
        max([HEADING if i >= names else 1, *map(len, column)]) for i, column in enumerate(columns)
    ]
    heads = [
        textwrap.wrap(name, widths[i], break_long_words=False) for i, name in enumerate(header)
    ]
    widths = [max([width, *map(len, head)]) for width, head in zip(widths, heads, strict=True)]
    tall = max(map(len, heads))
    lines = [*zip(*([""] * (tall - len(head)) + head for head in heads), strict=True), *rows]
    start = names
    while start < len(header):
        stop, used = start + 1, sum(widths[:names]) + 2 * names + widths[start]
        while stop < len(header) and used + 2 + widths[stop] <= width:
            used += 2 + widths[stop]
            stop += 1
        block = [*range(names), *range(start, stop)]
        yield "\n".join(
            "  ".join(
                line[i].ljust(widths[i]) if i < names else line[i].rjust(widths[i]) for i in block
            ).rstrip()
            for line in lines
            if any(line[i] for i in block)
        )
        start = stop


def _write(path: str | Path, text: str) -> Path:
    """Write UTF-8 atomically; bytes of a file name that are not UTF-8 become \\udcXX."""
    return safefiles.write(path, text.encode("utf-8", "backslashreplace"))
