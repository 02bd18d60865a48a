"""Build the whole report as one HTML page from a results folder."""

import ast
import base64
import hashlib
import itertools
import json
from datetime import datetime
from pathlib import Path

import jinja2
import pandas as pd

from evaluation import EvaluationError, audit, claims, published, tables
from reproduce import ROOT, RunError
from reproduce.engine.provenance import provenance
from reproduce.report import grids, html, results_folder
from reproduce.report.results_folder import ResultSet

TEMPLATES = Path(__file__).parent
LEDGERS = ROOT / "docs" / "papers"
TITLES = {  # of result folders that are not papers
    "evidence": "Published results, checked on real chest X-rays",
    "leaderboard": "CheXpert leaderboard models compared with those of Pham et al., on 500 studies",
    "rescored": "Predictions from other sources, scored by reproduce.rescore",
}
RELEASED_ROW = "released: "  # begins the name of a row that others predicted
MOST_ROWS = 300  # shown of a further CSV


def build(results: Path, out: Path) -> str:
    """Return the whole page; raise RunError if there are no results."""
    if not results.is_dir():
        problem = "is not a folder" if results.exists() else "does not exist"
        raise RunError(f"{results} {problem}; run bash reproduce/chen2019.sh first.")
    sets = results_folder.result_sets(results)
    if not sets:
        raise RunError(
            f"{results} has no results; run bash reproduce/chen2019.sh, or bash reproduce/all.sh "
            "for all papers, then run the report again."
        )
    numbers = itertools.count(1)
    papers_run = {each.paper for each in sets}
    names = sorted(
        {*published.papers(), *papers_run},
        key=lambda name: (name not in papers_run, name[-4:], name),  # by year
    )
    script = (TEMPLATES / "page.js").read_text("utf-8")
    template = environment().get_template("page.html.j2")
    return template.render(
        papers=[
            paper(name, [each for each in sets if each.paper == name], numbers, out)
            for name in names
        ],
        columns=list(dict.fromkeys(each.title for each in sets)),
        across=across(sets, numbers),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(TEMPLATES / "page.css").read_text("utf-8"),
        when=f"{datetime.now():%Y-%m-%d %H:%M}",
        commit=provenance("")["commit"],
        results=results,
    )


def environment() -> jinja2.Environment:
    """Return the template engine, which escapes all text that comes from files."""
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["duration"] = duration
    engine.filters["json"] = lambda record: json.dumps(record, indent=1, ensure_ascii=False)
    engine.globals["VERDICTS"] = grids.VERDICTS
    return engine


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# One paper


def paper(name: str, sets: list[ResultSet], numbers: itertools.count, out: Path) -> dict:
    """Return one paper's part of the page."""
    problems: list[str] = []
    title, ledger = _title_and_ledger(name, out, problems)
    shown = [result_set(each, numbers, out) for each in sets]
    findings = []
    if name in published.papers():
        try:
            findings = audit.report([name])["findings"]
            if not any(each["tables"] for each in shown):
                heading = "As published" if shown else "Not run yet"
                shown.append(as_published(name, heading, numbers, out))
        except EvaluationError as error:  # a damaged file of published numbers
            problems.append(str(error))
    return {
        "name": name,
        "command": command(name),
        "title": title,
        "problems": problems,
        "sets": shown,
        "audit": findings,
        "ledger": ledger,
    }


def command(name: str) -> str:
    """Return the command that runs a paper, or that scores released predictions."""
    if (ROOT / "reproduce" / f"{name}.py").is_file():
        return f"bash reproduce/{name}.sh"
    return f"python -m reproduce.rescore {name} --released DIR --download"


def _title_and_ledger(name: str, out: Path, problems: list[str]) -> tuple[str, str]:
    """Return the paper's title and its document of deviations, as HTML."""
    if name in TITLES:
        return TITLES[name], ""
    document, script = LEDGERS / f"{name}.md", ROOT / "reproduce" / f"{name}.py"
    try:
        if document.is_file():
            heading, _, text = document.read_text(encoding="utf-8").partition("\n")
            title = heading.removeprefix("# ").strip()
            return title, html.markdown(text, document.parent, out)
        if script.is_file():  # its docstring begins with the citation
            docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
            return " ".join(docstring.split("\n\n")[:2]), ""
    except (OSError, ValueError, SyntaxError) as error:
        problems.append(f"{document} or {script} cannot be read ({error}).")
    return "", ""


def as_published(name: str, title: str, numbers: itertools.count, out: Path) -> dict:
    """Return the printed tables and claims of a paper that has no table of ours yet."""
    nothing = pd.DataFrame(columns=[*published.CELL, "split", "value"]).astype({"value": float})
    printed = ResultSet(name, "published", published.FOLDER / name)
    printed.table = published.compare(published.load(name), nothing)
    printed.claims = [("claims", claims.check(name))]
    return result_set(printed, numbers, out) | {"title": title, "facts": {}}


# One result set


def result_set(each: ResultSet, numbers: itertools.count, out: Path) -> dict:
    """Return the part of the page for one paper on one dataset."""
    problems = [*each.problems, *(problem for run in each.runs for problem in run.problems)]
    runs, links = [], {}
    for run in each.runs:
        run_id = f"run-{next(numbers)}"
        runs.append({"id": run_id, "run": run, "href": html.link(run.folder, out)})
        links[run.folder.relative_to(each.folder).as_posix()] = run_id
    return {
        "title": each.title,
        "id": f"{each.paper}-{each.name}",
        "phantom": each.phantom,
        "failures": [run for run in each.runs if run.failed],
        "facts": facts(each),
        "tables": [] if each.table is None else grids.printed_tables(each.table, numbers, links),
        "labels": [] if each.values is None else grids.label_tables(each.values, numbers, links),
        "claims": [(stem, grouped_claims(frame)) for stem, frame in each.claims],
        "figures": _figures(each, problems),
        "prose": _prose(each, out, problems),
        "others": [further_table(stem, frame, numbers) for stem, frame in each.others],
        "runs": runs,
        "problems": problems,
    }


def _figures(each: ResultSet, problems: list[str]) -> list[tuple[str, str]]:
    """Return the name and HTML of every figure; add a problem for each damaged one."""
    figures = []
    for path in each.figures:
        try:
            content = results_folder.read_bytes(path)
            drawing = html.figure(content, path.suffix, f"{each.paper}, {each.title}: {path.stem}")
            figures.append((path.stem.replace("-", " "), drawing))
        except (OSError, ValueError) as error:
            reason = results_folder.reason_of(error)
            problems.append(f"{each.paper}/{each.name}/{path.name} cannot be shown ({reason}).")
    return figures


def _prose(each: ResultSet, out: Path, problems: list[str]) -> str:
    """Return the text that `rescore evidence` wrote, without its title; other sets have none."""
    document = each.folder / "evidence.md"
    if not document.exists():
        return ""
    try:
        text = results_folder.read_bytes(document).decode("utf-8")
    except (OSError, ValueError) as error:
        problems.append(f"{each.paper}/{each.name}/{document.name} cannot be shown ({error}).")
        return ""
    return html.markdown(text.partition("\n")[2], each.folder, out, below=3)


def facts(each: ResultSet) -> dict:
    """Return the facts of the overview: rows finished, verdicts, date and machines."""
    sessions = [session for run in each.runs for session in run.sessions]
    when = max((str(session.get("started", "")) for session in sessions), default="")
    table = each.folder / "table.csv"
    if not when and table.exists():  # scored without a run
        when = str(datetime.fromtimestamp(table.stat().st_mtime))
    machines = [
        ", ".join(str(session.get(name, "")) for name in ("host", "machine", "device"))
        for session in sessions
        if session.get("device")
    ]
    sizes = [run.settings.get("data", {}).get("sets", {}) for run in each.runs]
    return {
        "rows": (len({run.row for run in each.finished}), len({run.row for run in each.runs})),
        "failed": len({run.row for run in each.runs if run.failed}),
        "printed": grids.rows_run(each.table),
        "verdicts": grids.verdict_counts(each.table),
        "when": when[:16],
        "machines": list(dict.fromkeys(machines)),
        "sizes": max(sizes, key=len, default={}),
        "seconds": sum(run.seconds for run in each.runs),
    }


def grouped_claims(frame: pd.DataFrame) -> list[dict]:
    """Return claims with their comparisons; consecutive rows with one name and quote are one."""
    lines = frame.fillna("").astype(str).to_dict("records")
    for line in lines:
        line["comparison"], line["where"] = tables.claim_in_words(line)
    grouped = itertools.groupby(lines, lambda line: (line["claim"], line.get("quote", "")))
    return [
        {"claim": name, "quote": quote, "lines": list(group)} for (name, quote), group in grouped
    ]


def further_table(stem: str, frame: pd.DataFrame, numbers: itertools.count) -> dict:
    """Return any further CSV as it is, with shortened decimals."""
    shown = frame.head(MOST_ROWS).map(_short)
    return {
        "id": f"t{next(numbers)}",
        "title": stem,
        "columns": list(frame.columns),
        "rows": shown.values.tolist(),
        "left_out": len(frame) - len(shown),
    }


def _short(text: str) -> str:
    try:
        return f"{float(text):.4g}" if "." in text else text
    except ValueError:
        return text


# Across papers


def across(sets: list[ResultSet], numbers: itertools.count) -> list[dict]:
    """Return, per dataset, the AUC of the labels that several papers were scored on."""
    scored = [
        each for each in sets if each.values is not None and each.name != results_folder.RELEASED
    ]
    compared = []
    for name in dict.fromkeys(each.name for each in scored):
        same = [each for each in scored if each.name == name]
        cells = pd.concat(map(_label_aucs, same))
        papers_per_label = cells.groupby("group")["paper"].nunique()
        shared = cells[cells["group"].map(papers_per_label) > 1]
        title = same[0].title
        grid = None
        if len(shared):
            grid = grids.grid(grids.as_cells(shared), numbers)
            grid |= {"title": f"{title}: AUC of every shared label", "notes": []}
        images = [results_folder.test_images(run) for each in same for run in each.finished[:1]]
        compared.append(
            {
                "title": title,
                "phantom": same[0].phantom,
                "papers": [each.paper for each in same],
                "same_images": bool(images) and all(ids and ids == images[0] for ids in images),
                "grid": grid,
            }
        )
    return compared


def _label_aucs(each: ResultSet) -> pd.DataFrame:
    """Return the AUC of every single label of our own rows, named PAPER · ROW."""
    values = pd.DataFrame(each.values)
    single = ~values["group"].map(published.is_average)
    ours = ~values["row"].str.startswith(RELEASED_ROW)
    aucs = values[single & ours & (values["metric"] == "AUC")]
    return aucs.assign(row=each.paper + " · " + aucs["row"], paper=each.paper, runs="")
