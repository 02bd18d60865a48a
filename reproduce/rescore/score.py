"""Score predictions from any file: metrics, differences between two models, tables and figures."""

import argparse
import hashlib
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import safefiles
from data import label_tree
from data import reading as csv_reading
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
from reproduce.rescore import experts, lists, matching, reading
from reproduce.tables import authors, details
from reproduce.tables.details import Sample
from reproduce.tables.radiologists import one_line_each

SCORED_FROM = "scored-from.txt"  # the paths of the files whose numbers a folder holds


def score(
    data: matching.Matched, groups: tuple[Group, ...], resamples: int, seed: int
) -> pd.DataFrame:
    """Return every label and group in long form, then calibration and uncertainty measures."""
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
    """Return Chen's groups over a hierarchy, its parent matrix, and its labels as predicted."""
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
    """Compare the share of normal images that AUC, D-AUC and N-AUC imply with the real one.

    They differ if the AUCs are of another split.
    """
    values = table[table["metric"] == "AUC"].set_index("group")["value"]
    implied = metrics.normal_share(values["mean"], values["D"], values["N"])
    actual = metrics.macro_mean(metrics.actual_normal_share(targets))
    return pd.DataFrame({"implied by AUC, D and N": [float(implied)], "counted": [float(actual)]})


def notes(table: pd.DataFrame) -> str:
    """List the groups whose AUC is undefined or of few cases, one line per reason."""
    noted = table[(table["metric"] == "AUC") & (table["note"] != "")]
    reasons = noted["note"].str.split(" (", regex=False).str[0]
    groups = noted["group"] + noted["note"].str.extract(r"( \(\d+ patients\))")[0].fillna("")
    by_reason = groups.groupby(reasons, sort=False).agg(", ".join)
    return "".join(f"- {reason}: {names}\n" for reason, names in by_reason.items())


def compare(
    data: matching.Matched, groups: tuple[Group, ...], resamples: int, seed: int
) -> pd.DataFrame:
    """Return paired differences with bootstrap intervals, and DeLong's test of each label's AUC."""
    first, second = (model.mean(axis=0) for model in data.models)
    arrays = data.targets, first, second, data.labels, data.patients
    frame = bootstrap.compare(*arrays, groups, resamples=resamples, seed=seed)
    tested = delong.table(data.targets, first, second, data.labels, data.patients)
    tested = tested.rename(columns={"label": "group"}).assign(metric="AUC")
    columns = ["group", "metric", "p", "p_holm", "p_bh"]
    return frame.merge(tested[columns], "left", ["group", "metric"])


def compared_for_people(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the differences of `compare` with one cell per interval."""
    shown = frame[["group", "metric", "first", "second"]].copy()
    shown["second − first"] = details.with_intervals(frame, "difference", digits=4)
    for column, heading in (("p", "DeLong p"), ("p_holm", "Holm"), ("p_bh", "BH")):
        shown[heading] = ["" if np.isnan(p) else f"{p:.2g}" for p in frame[column]]
    return shown


def networks(
    data: matching.Matched, files: list[Path], resamples: int, seed: int
) -> tuple[pd.DataFrame, str]:
    """Return the mean AUC of each network and of their mean, and how much the best one gains."""
    members = data.models[0]
    mean = members.mean(axis=0)
    about = data.labels, data.patients, metrics.MEAN
    scored = [
        bootstrap.table(data.targets, each, *about, resamples=resamples, seed=seed)
        for each in (*members, mean)
    ]
    table = pd.concat([each[_of_mean_auc(each)] for each in scored], ignore_index=True)
    table.insert(0, "network", [*map(str, files), f"mean of the {len(files)}"])
    best = int(table["value"][: len(files)].argmax())
    gains = bootstrap.compare(
        data.targets, members[best], mean, *about, resamples=resamples, seed=seed
    )
    gain = gains[_of_mean_auc(gains)].iloc[0]
    shown = tables.with_interval(gain["difference"], gain["low"], gain["high"], 4)
    table["gain over the best"] = [np.nan] * len(files) + [gain["difference"]]
    return table[["network", "metric", "value", "low", "high", "gain over the best"]], (
        f"An ensemble is scored: the mean of {len(files)} files. Its mean AUC minus that of "
        f"{files[best]}, the best of them on these images: {shown}."
    )


def _of_mean_auc(table: pd.DataFrame) -> pd.Series:
    return (table["group"] == "mean") & (table["metric"] == "AUC")


def given_thresholds(path: Path, names: Sequence[str]) -> np.ndarray:
    """Return the threshold of each label from a CSV with the columns label and threshold.

    operating-points.csv of an earlier command, whose labels are in the column group, is read too.
    """
    table = csv_reading.read_table(path, (), ("threshold",), ("label", "group"))
    labelled = table[[each for each in ("label", "group") if each in table][:1]]
    if labelled.empty:
        raise EvaluationError(f"{path} has no column 'label'; its columns: label, threshold.")
    stated = table.groupby(labelled.iloc[:, 0].map(reading.key))["threshold"].unique()
    if twice := [name for name in names if len(stated.get(reading.key(name), ())) > 1]:
        raise EvaluationError(f"{path} has two thresholds for {twice[0]}; delete one of them.")
    own = [stated.get(reading.key(name), [None])[0] for name in names]
    numbers = pd.to_numeric(pd.Series(own), errors="coerce")
    if (lacking := numbers.isna()).any():
        unknown = reading.examples(np.asarray(names)[lacking], 20)
        raise EvaluationError(
            f"{path} has no threshold for {unknown}; give a number for each label, or leave "
            "labels out with --labels."
        )
    return numbers.to_numpy(float)


def own_command(options: argparse.Namespace) -> None:
    """Score the files of --predictions and --compare; print, and write with --results-dir."""
    matched = _match(
        options, options.predictions, options.truth, options.labels, options.compare, options.ids
    )
    data, no_finding = matching.apart(matched)
    groups: tuple[Group, ...] = metrics.ASADI
    if options.ge:
        # the first group, the mean, is in metrics.ASADI as well
        groups += metrics.ge(metrics.shares(data.targets, data.labels))[1:]
    violations = {}
    if options.tree:
        tree_means, parents, names = tree_groups(options.tree, data.labels)
        groups += tree_means
        columns = [data.labels.index(label) for label in names]
        predicted = data.models[0].mean(axis=0)[:, columns]
        violations["violations"] = hierarchy.violations(predicted, parents, names)
    sampling = options.resamples, options.seed
    frames = {"table": score(data, groups, *sampling)}
    if no_finding:
        frames["table"] = pd.concat([frames["table"], score(no_finding, (), *sampling)])
        data.remarks.append(
            f"Means are over the {len(data.labels)} findings. No Finding has a line of its own "
            "and is in no mean, subgroup or figure."
        )
    parts = {"Scores": one_line_each(frames["table"])}
    if len(options.predictions) > 1:
        frames["networks"], sentence = networks(data, options.predictions, *sampling)
        data.remarks.append(sentence)
        parts["Networks of the ensemble"] = pd.DataFrame(
            {"mean AUC": details.with_intervals(frames["networks"], digits=4)},
            frames["networks"]["network"].rename(None),
        )
    data.warnings.extend(notes(frames["table"]).replace("- ", "").splitlines())
    if options.compare:
        compared = [compare(data, groups, *sampling)]
        if no_finding:
            compared.append(compare(no_finding, (), *sampling))
        frames["compare"] = pd.concat(compared, ignore_index=True)
        title = f"{options.compare} (second) against {_title(options)} (first)"
        parts[title] = compared_for_people(frames["compare"])
    if options.ge:
        title = "Images without a finding among the negatives"
        parts[title] = normal_share(frames["table"], data.targets)
    if _is_of_run(options.predictions[0]):
        # the paper's script wrote sex, age and view of its images beside its tables
        tables_folder = options.predictions[0].absolute().parents[2]
        data.about.update(attributes.of_images(tables_folder, data.ids))
    sample, validation = _sample(data), _validation(options, data.labels)
    if sentence := lists.describe(data.ids):
        print(sentence)
    more, shown, remarks = further_analyses(sample, options, validation)
    frames |= violations | more
    parts |= shown
    if violations:
        parts["Children above their parents"] = violations["violations"]
    _print_warnings(data)
    print_parts(parts)
    for remark in (*data.remarks, *remarks):
        print(remark)
    if options.results_dir:
        write_own(options, data, frames, parts)


def further_analyses(
    sample: Sample, options: argparse.Namespace, validation: Sample | None
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame], list[str]]:
    """Run the analyses of `details` and, with --truth experts, compare with experts' labels.

    Return frames for CSVs, tables for people by title, and remarks.
    """
    if validation is not None:
        _check_validation(sample, validation)
    frames, parts, remarks = details.analyse(
        sample,
        validation,
        rule=options.operating_point,
        by=options.by or (),
        calibrate=options.calibrate,
        given=given_thresholds(options.thresholds, sample.labels) if options.thresholds else None,
        resamples=options.resamples,
        seed=options.seed,
    )
    by_rule = options.operating_point or options.by or options.calibrate
    if validation is None and by_rule and options.predictions and not options.thresholds:
        remarks.append(
            "To choose them on other images, give the model's predictions there: --validation FILE."
        )
    if options.second_truth:
        more, shown = experts.analyse(sample, options.experts, options.resamples, options.seed)
        frames, parts = frames | more, parts | shown
        licence = authors.SOURCES["experts"].licence
        remarks += [f"Experts' labels: {licence}.", experts.READERS_NOTE]
    return frames, parts, remarks


def _check_validation(sample: Sample, validation: Sample) -> None:
    """Refuse validation predictions of other labels, or of images or patients that are scored."""
    if list(validation.labels) != list(sample.labels):
        raise EvaluationError(
            "The --validation predictions have other labels than the scored ones; name those that "
            "both have with --labels."
        )
    if shared := len({*validation.ids} & {*sample.ids}):
        raise EvaluationError(
            f"{shared:,} images are both in --validation and among the scored ones; thresholds and "
            "temperature must come from other images."
        )
    if sample.patients is None or validation.patients is None:
        return
    if both := len({*map(str, sample.patients)} & {*map(str, validation.patients)}):
        raise EvaluationError(
            f"{both:,} patients have images both in --validation and among the scored ones; leave "
            "them out of one of the files."
        )


def print_parts(parts: dict[str, pd.DataFrame]) -> None:
    """Print each table under its title."""
    for title, part in parts.items():
        print(tables.titled(title, tables.to_text(part, text_width())))


def text_width() -> int:
    """Return the terminal's width; output to a pipe or a file has no limit."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def _title(options: argparse.Namespace) -> str:
    return " + ".join(map(str, options.predictions))


def _match(
    options: argparse.Namespace,
    predictions: list[Path],
    truth: Path | None,
    labels: list[str] | None,
    compare: Path | None = None,
    ids: Path | None = None,
) -> matching.Matched:
    columns = {"id_column": options.id_column, "patient_column": options.patient_column}
    return matching.match(predictions, truth, compare, labels=labels, ids_file=ids, **columns)


def _sample(data: matching.Matched) -> Sample:
    """Return the first model of matched files."""
    mean = data.models[0].mean(axis=0)
    return Sample(data.labels, data.targets, mean, data.patients, data.ids, data.about)


def _validation(options: argparse.Namespace, labels: list[str]) -> Sample | None:
    """Return the same model on validation images: of --validation, or of the run itself."""
    paths = options.validation
    own = [path.with_name(VALIDATION) for path in options.predictions if _is_of_run(path)]
    if not paths and own != options.predictions and all(path.is_file() for path in own):
        paths = own
    if len(paths or ()) != len(options.predictions):
        return None
    stored = all(path.suffix == ".npz" for path in paths)
    data = _match(options, paths, None if stored else options.truth, labels)
    _print_warnings(data)
    return _sample(data)


def _print_warnings(data: matching.Matched) -> None:
    for warning in data.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _is_of_run(path: Path) -> bool:
    return (path.parent / "config.json").is_file()


def own_folder(results: Path, predictions: Sequence[Path], compared: Path | None) -> Path:
    """Return results/rescored/NAME, a folder that only the same files share.

    NAME is the file's name after its folder's: chexnet-preds. A run's predictions.npz has the name
    of the run, chen2019-plco-HLCP-seed-0. If another file of that name was scored before, the start
    of a hash of the path follows.
    """
    paths = [path.absolute() for path in (*predictions, compared) if path]
    name = _file_name(paths[0])
    if len(predictions) > 1:
        name += f"-and-{len(predictions) - 1}-more"
    if compared:
        name += f"-against-{_file_name(paths[-1])}"
    folder = results / "rescored" / name
    content = "".join(f"{path}\n" for path in paths).encode("utf-8", "replace")
    if (folder / SCORED_FROM).is_file() and (folder / SCORED_FROM).read_bytes() != content:
        folder = folder.with_name(f"{name}-{hashlib.sha256(content).hexdigest()[:8]}")
    safefiles.write(folder / SCORED_FROM, content)
    return folder


def _file_name(path: Path) -> str:
    stem = re.sub(r"(\.csv)?(\.gz)?$", "", path.name).removesuffix(".npz")
    parts = [path.parent.name, stem]
    if _is_of_run(path):
        run = path.parts[-5:-1]  # PAPER/DATASET/ROW/seed-N
        parts = [*run] if stem == "predictions" else [*run, stem]
    return re.sub(r"[^\w.+-]+", "-", "-".join(parts)).strip("-.")[:150]


def write_own(
    options: argparse.Namespace,
    data: matching.Matched,
    frames: dict[str, pd.DataFrame],
    parts: dict[str, pd.DataFrame],
) -> None:
    """Write the frames as CSV, the printed tables as table.md, and the figures."""
    from evaluation import figures  # Matplotlib takes half a second

    out = own_folder(options.results_dir, options.predictions, options.compare)
    for name in ("violations", "networks", *details.CSVS):  # of an earlier command with more flags
        (out / f"{name}.csv").unlink(missing_ok=True)
    for name, frame in frames.items():
        tables.to_csv(frame, out / f"{name}.csv")
    pages = [f"## {title}\n\n{tables.to_markdown(part)}" for title, part in parts.items()]
    warned = "".join(f"- {text}\n" for text in (*data.warnings, *data.remarks))
    text = "\n".join([f"# {_title(options)}\n", *([warned] if warned else []), *pages])
    safefiles.write(out / "table.md", text)
    means = [model.mean(axis=0) for model in data.models]
    figures.roc_curves(out / "roc.svg", data.targets, means[0], data.labels)
    if len(means) == 2:
        tested = delong.table(data.targets, means[0], means[1], data.labels, data.patients)
        first = options.predictions[0].stem if len(options.predictions) == 1 else "ensemble"
        names = first, options.compare.stem
        figures.auc_comparison(out / "compare.svg", tested, names)
    details.draw(frames, out, _title(options))
    print(f"Written to {out}.")
