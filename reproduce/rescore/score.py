"""Anyone's predictions: scores, differences between two models, tables and figures."""

import argparse
import hashlib
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import safefiles
from data import label_tree
from evaluation import (
    EvaluationError,
    bootstrap,
    delong,
    hierarchy,
    metrics,
    tables,
    uncertainty,
)
from evaluation.metrics import Group
from evaluation.predictions import VALIDATION
from reproduce.engine import attributes
from reproduce.rescore import analyses, lists, matching, reading
from reproduce.tables import details
from reproduce.tables.radiologists import one_line_each
from reproduce.tables.sample import Sample

SCORED_FROM = "scored-from.txt"  # the paths of the files that a folder's numbers are of


def score(data: matching.Matched, groups: tuple[Group, ...], resamples: int, seed: int):
    """Long form: every label and group, then calibration and what the uncertainty tells."""
    members = data.models[0]
    mean = members.mean(axis=0)
    table = bootstrap.table(
        data.targets, mean, data.labels, data.patients, groups, resamples=resamples, seed=seed
    )
    if mean.min() < 0 or mean.max() > 1:
        return table
    extra = {
        "Brier": uncertainty.brier(data.targets, mean),
        "ECE": uncertainty.calibration_error(data.targets, mean),
    }
    if len(members) > 1:
        spread = uncertainty.spread(members)
        wrong = uncertainty.errors(data.targets, mean)
        extra["errors found (AUC of the spread)"] = metrics.auroc(wrong, spread)
        extra["AURC"] = uncertainty.risk_coverage_area(wrong, spread)
    frames = [
        pd.DataFrame({"group": data.labels, "metric": name, "value": values})
        for name, values in extra.items()
    ]
    return pd.concat([table, *frames], ignore_index=True)


def tree_groups(name: str, predicted: list[str]) -> tuple[tuple[Group, ...], np.ndarray, list[str]]:
    """Chen's groups over a hierarchy, its parent matrix, and its labels as they are predicted."""
    names, tree = label_tree.HIERARCHIES[name]
    written = {reading.key(label): label for label in predicted}
    missing = [label for label in names if reading.key(label) not in written]
    if missing:
        raise EvaluationError(
            f"The tree {name!r} needs {len(missing)} labels more: {', '.join(missing)}."
        )
    own = [written[reading.key(label)] for label in names]
    leaves = label_tree.leaves(tree)
    groups = [
        Group("leaf", [own[label] for label in leaves]),
        Group("high-level", [own[label] for label in label_tree.inner(tree)]),
    ]
    if "Abnormal" in names:
        root = names.index("Abnormal")
        below = [own[leaf] for leaf in leaves if label_tree.ancestor_matrix(tree)[leaf, root]]
        groups += metrics.chen(below, (), own[root])[2:]
    return tuple(groups), label_tree.parent_matrix(tree), own


def normal_share(table: pd.DataFrame, targets: np.ndarray) -> pd.DataFrame:
    """Whether AUC, D-AUC and N-AUC fit the images that were scored; a wrong split shows here."""
    values = table[table["metric"] == "AUC"].set_index("group")["value"]
    implied = metrics.normal_share(values["mean"], values["D"], values["N"])
    actual = metrics.macro_mean(metrics.actual_normal_share(targets))
    return pd.DataFrame({"implied by AUC, D and N": [float(implied)], "counted": [float(actual)]})


def notes(table: pd.DataFrame) -> str:
    """What is undefined, and where resamples had to be left out."""
    noted = table[(table["metric"] == "AUC") & (table["note"] != "")]
    return "".join(f"- {row['group']}: {row['note']}\n" for row in noted.to_dict("records"))


def compare(data: matching.Matched, groups: tuple[Group, ...], resamples: int, seed: int):
    """Paired differences with bootstrap intervals, and DeLong's test of every label's AUC."""
    first, second = (model.mean(axis=0) for model in data.models)
    arrays = data.targets, first, second, data.labels, data.patients
    frame = bootstrap.compare(*arrays, groups, resamples=resamples, seed=seed)
    tested = delong.table(data.targets, first, second, data.labels)
    tested = tested.rename(columns={"label": "group"}).assign(metric="AUC")
    columns = ["group", "metric", "p", "p_holm", "p_bh"]
    return frame.merge(tested[columns], "left", ["group", "metric"])


def compared_for_people(frame: pd.DataFrame) -> pd.DataFrame:
    shown = frame[["group", "metric", "first", "second"]].copy()
    cells = frame[["difference", "low", "high"]].to_numpy()
    shown["second − first"] = [tables.interval(value, low, high, 4) for value, low, high in cells]
    for column, heading in (("p", "DeLong p"), ("p_holm", "Holm"), ("p_bh", "BH")):
        shown[heading] = ["" if np.isnan(p) else f"{p:.2g}" for p in frame[column]]
    return shown


def own_command(options: argparse.Namespace) -> None:
    data = matching.match(
        options.predictions,
        options.truth,
        options.compare,
        id_column=options.id_column,
        patient_column=options.patient_column,
        labels=options.labels,
    )
    groups: tuple[Group, ...] = metrics.ASADI
    violated = None
    if options.ge:
        groups += metrics.GE[1:]  # the mean is there
    if options.tree:
        tree_means, parents, names = tree_groups(options.tree, data.labels)
        groups += tree_means
        columns = [data.labels.index(label) for label in names]
        violated = hierarchy.violations(data.models[0].mean(axis=0)[:, columns], parents, names)
    frames = {"table": score(data, groups, options.resamples, options.seed)}
    parts = {"Scores": one_line_each(frames["table"])}
    data.warnings.extend(notes(frames["table"]).replace("- ", "").splitlines())
    if options.compare:
        frames["compare"] = compare(data, groups, options.resamples, options.seed)
        name = f"{options.compare} (second) against {options.predictions} (first)"
        parts[name] = compared_for_people(frames["compare"])
    if options.ge:
        parts["Images without a finding among the negatives"] = normal_share(
            frames["table"], data.targets
        )
    of_run = (options.predictions.parent / "config.json").is_file()
    if of_run:  # what its script wrote beside its tables
        data.about.update(attributes.of_images(options.predictions.absolute().parents[2], data.ids))
        _use_validation_of_run(options)
    sample, validation = of_matched(data), _validation(options, data.labels)
    if which := lists.describe(data.ids):
        print(which)
    more, shown, remarks = analyses.further(sample, options, validation)
    parts |= shown
    if violated is not None:
        frames["violations"] = parts["Children above their parents"] = violated
    for warning in data.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for title, part in parts.items():
        print(tables.titled(title, tables.to_text(part, text_width())))
    for remark in remarks:
        print(remark)
    if options.results_dir:
        write_own(options, data, frames | more, parts)


def of_matched(data: matching.Matched) -> Sample:
    """The first model of two matched files."""
    mean = data.models[0].mean(axis=0)
    return Sample(data.labels, data.targets, mean, data.patients, data.ids, data.about)


def _use_validation_of_run(options: argparse.Namespace) -> None:
    """A run's own validation predictions choose thresholds, unless --validation names others."""
    own = options.predictions.parent / VALIDATION
    if not options.validation and options.predictions.name != VALIDATION and own.is_file():
        options.validation = own


def _validation(options: argparse.Namespace, wanted: list[str]) -> Sample | None:
    """The same model on the images of --validation, with the truth of --truth."""
    if options.validation is None:
        return None
    truth = None if options.validation.suffix == ".npz" else options.truth
    columns = {"id_column": options.id_column, "patient_column": options.patient_column}
    data = matching.match(options.validation, truth, labels=wanted, **columns)
    for warning in data.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return of_matched(data)


def text_width() -> int:
    """The terminal's width; a pipe or a file gets tables of any width, in one block."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def own_folder(results: Path, predictions: Path, compared: Path | None) -> Path:
    """results/rescored/NAME, which is the same for the same files and never another's.

    NAME is the file's and its folder's: chexnet-preds. A run's predictions.npz is named after the
    run, chen2019-plco-HLCP-seed-0. Where another file of that name was scored before, the start of
    a hash of the path follows.
    """
    paths = [path.absolute() for path in (predictions, compared) if path]
    name = "-against-".join(map(_file_name, paths))
    folder, text = results / "rescored" / name, "".join(f"{path}\n" for path in paths)
    scored_from = folder / SCORED_FROM
    if scored_from.is_file() and scored_from.read_text(encoding="utf-8", errors="replace") != text:
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
        folder = folder.with_name(f"{name}-{digest}")
    safefiles.write(folder / SCORED_FROM, text.encode("utf-8", "replace"))
    return folder


def _file_name(path: Path) -> str:
    of_run = (path.parent / "config.json").is_file()
    folders = path.parts[-5:-1] if of_run else path.parts[-2:-1]
    stem = path.name.removesuffix(".gz").removesuffix(path.suffix if of_run else ".csv")
    stem = stem.removesuffix(".npz")
    parts = [*folders] if of_run and stem == "predictions" else [*folders, stem]
    return re.sub(r"[^\w.+-]+", "-", "-".join(parts)).strip("-.")[:150]


def write_own(
    options: argparse.Namespace,
    data: matching.Matched,
    frames: dict[str, pd.DataFrame],
    parts: dict[str, pd.DataFrame],
) -> None:
    """The frames as CSV, what was printed as table.md, and the figures."""
    from evaluation import figures  # Matplotlib takes half a second

    out = own_folder(options.results_dir, options.predictions, options.compare)
    for name in ("violations", *details.CSVS):  # of an earlier command with more flags
        (out / f"{name}.csv").unlink(missing_ok=True)
    for name, frame in frames.items():
        tables.to_csv(frame, out / f"{name}.csv")
    pages = [f"## {title}\n\n{tables.to_markdown(part)}" for title, part in parts.items()]
    warned = "".join(f"- {warning}\n" for warning in data.warnings)
    text = "\n".join([f"# {options.predictions}\n", *([warned] if warned else []), *pages])
    safefiles.write(out / "table.md", text)
    means = [model.mean(axis=0) for model in data.models]
    figures.roc_curves(out / "roc.svg", data.targets, means[0], data.labels)
    if len(means) == 2:
        tested = delong.table(data.targets, means[0], means[1], data.labels)
        names = options.predictions.stem, options.compare.stem
        figures.auc_comparison(out / "compare.svg", tested, names)
    details.draw(frames, out, str(options.predictions))
    print(f"Written to {out}.")
