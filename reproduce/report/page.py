"""The whole report as one HTML page, from what lies in a results folder."""

import ast
import base64
import hashlib
import itertools
import json
from datetime import datetime
from pathlib import Path

import jinja2
import pandas as pd

from evaluation import audit, claims, published
from reproduce import ROOT, RunError
from reproduce.engine.provenance import provenance
from reproduce.report import grids, html, results_folder

BESIDE = Path(__file__).parent
LEDGERS = ROOT / "docs" / "papers"
LONGEST = 300  # lines of a further CSV; beyond that it is only named


def paper(
    name: str, sets: list[results_folder.ResultSet], numbers: itertools.count, out: Path
) -> dict:
    """What the page says of one paper."""
    ledger, script = LEDGERS / f"{name}.md", ROOT / "reproduce" / f"{name}.py"
    text = ledger.read_text(encoding="utf-8") if ledger.is_file() else ""
    heading, _, rest = text.partition("\n")
    title = heading.removeprefix("# ").strip() if heading.startswith("# ") else ""
    if not title and script.is_file():  # the citation on top of it
        said = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        title = " ".join(said.split("\n\n")[:2])
    shown = [result_set(each, numbers, out) for each in sets]
    transcribed = name in published.papers()
    if transcribed and not any(each["tables"] for each in shown):
        shown.append(nothing_run(name, numbers, "As published" if shown else "Not run yet"))
    return {
        "name": name,
        "title": title,
        "sets": shown,
        "audit": audit.report([name])["findings"] if transcribed else [],
        "ledger": html.markdown(rest, ledger.parent, out) if text else "",
    }


def nothing_run(name: str, numbers: itertools.count, title: str) -> dict:
    """The printed tables and claims of a paper that has no table of ours yet."""
    nothing = pd.DataFrame(columns=[*published.CELL, "split", "value"]).astype({"value": float})
    printed = published.compare(published.load(name), nothing)
    return {
        "title": title,
        "id": f"{name}-published",
        "phantom": False,
        "facts": {},
        **dict.fromkeys(("problems", "labels", "figures", "others", "runs"), ()),
        "tables": grids.printed_tables(printed, numbers),
        "claims": [("claims", grouped_claims(claims.check(name)))],
    }


def result_set(each: results_folder.ResultSet, numbers: itertools.count, out: Path) -> dict:
    """One paper on one dataset."""
    run_ids = {run.path: f"run-{next(numbers)}" for run in each.runs}
    base = f"{each.paper}/{each.name}"
    links = {path.removeprefix(base + "/"): name for path, name in run_ids.items()}
    figures, problems = [], list(each.problems)
    for path in each.figures:
        label = f"{each.paper}, {each.title}: {path.stem}"
        try:
            if path.suffix == ".png":
                drawing = html.png(path, label)
            else:
                drawing = html.svg(path, f"s{next(numbers)}-", label)
        except (OSError, ValueError) as error:
            problems.append(f"{base}/{path.name} cannot be shown ({error}).")
            continue
        figures.append((path.stem.replace("-", " "), drawing))
    runs = [
        {"id": run_ids[run.path], "run": run, "href": html.link(run.folder, out)}
        for run in each.runs
    ]
    problems += [f"{run.path}: {run.problem}." for run in each.runs if run.problem]
    return {
        "title": each.title,
        "id": f"{each.paper}-{each.name}",
        "phantom": each.phantom,
        "problems": problems,
        "facts": facts(each),
        "tables": [] if each.table is None else grids.printed_tables(each.table, numbers, links),
        "labels": [] if each.values is None else grids.label_tables(each.values, numbers, links),
        "claims": [(stem, grouped_claims(frame)) for stem, frame in each.claims],
        "figures": figures,
        "others": [other(stem, frame, numbers) for stem, frame in each.others],
        "runs": runs,
    }


def facts(each: results_folder.ResultSet) -> dict:
    """A result set in the overview: what is done, what it says, when and on what."""
    rows = {run.row for run in each.runs}
    finished = {run.row for run in each.finished}
    started = sorted(str(run.provenance.get("started", "")) for run in each.runs)
    when = started[-1] if started else ""
    if not when and (tables := sorted(each.folder.glob("table.csv"))):
        when = f"{datetime.fromtimestamp(tables[0].stat().st_mtime):%Y-%m-%d %H:%M:%S}"
    made_on = [run.provenance for run in each.runs if run.provenance.get("device")]
    machines = dict.fromkeys(
        ", ".join(str(one.get(key, "")) for key in ("host", "machine", "device")) for one in made_on
    )
    sizes = [run.settings.get("data", {}).get("sets", {}) for run in each.runs if run.settings]
    return {
        "rows": (len(finished), len(rows)),
        "printed": grids.rows_run(each.table),
        "verdicts": grids.verdict_counts(each.table),
        "when": when[:16],
        "machines": list(machines),
        "sizes": max(sizes, key=len, default={}),
        "seconds": sum(run.seconds for run in each.runs),
        "commits": sorted({str(run.provenance.get("commit", "unknown")) for run in each.runs}),
    }


def grouped_claims(frame: pd.DataFrame) -> list[dict]:
    """Claims with their comparisons; several lines with one name and quote are one claim."""
    lines = frame.fillna("").astype(str).to_dict("records")
    key = lambda line: (line["claim"], line.get("quote", ""))  # noqa: E731
    return [
        {"claim": name, "quote": quote, "lines": list(group)}
        for (name, quote), group in itertools.groupby(lines, key)
    ]


def other(stem: str, frame: pd.DataFrame, numbers: itertools.count) -> dict:
    """Any further CSV as it is, its decimals shortened."""
    shown = frame.head(LONGEST).map(_short)
    return {
        "id": f"t{next(numbers)}",
        "title": stem,
        "columns": [str(name) for name in frame.columns],
        "rows": shown.values.tolist(),
        "left_out": len(frame) - len(shown),
    }


def _short(text: str) -> str:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return text
    return f"{number:.4g}" if "." in text else text


def environment() -> jinja2.Environment:
    """Everything that comes from a file is escaped; only html.py hands out HTML."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(BESIDE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["duration"] = duration
    made.filters["settings"] = lambda found: json.dumps(found, indent=1, ensure_ascii=False)
    made.globals["VERDICTS"] = grids.VERDICTS
    return made


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def build(results: Path, out: Path) -> str:
    """The whole page."""
    if not results.is_dir():
        raise RunError(f"There is no folder {results}; run bash reproduce/chen2019.sh first.")
    sets = results_folder.result_sets(results)
    if not sets:
        raise RunError(
            f"No results lie in {results}; run bash reproduce/chen2019.sh, or all papers by "
            "bash reproduce/all.sh, then this again."
        )
    names = {*published.papers(), *(each.paper for each in sets)}
    numbers, ran = itertools.count(1), {each.paper for each in sets}
    papers = [
        paper(name, [each for each in sets if each.paper == name], numbers, out)
        for name in sorted(names, key=lambda name: (name not in ran, name[-4:], name))  # by year
    ]
    script, style = ((BESIDE / f"page.{kind}").read_text("utf-8") for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made = provenance("")
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            papers=papers,
            columns=list(dict.fromkeys(each.title for each in sets)),
            across=grids.across(sets, numbers),
            script=script,
            style=style,
            digest=digest,
            when=f"{datetime.now():%Y-%m-%d %H:%M}",
            commit=made["commit"],
            results=results,
        )
    )
