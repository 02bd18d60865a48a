"""Compare ten models of the CheXpert leaderboard with Pham et al.'s on the 500 test studies.

The repository of the test labels holds their predictions. Differences are paired: a bootstrap of
the mean over the five labels, and DeLong's test of each label. Holm's method corrects both. Two
models are equivalent if the paired 90 % interval of their difference lies within ±.01, which is two
one-sided tests (TOST) at 5 %.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtr

import safefiles
from data import DataError, labels, reading
from evaluation import EvaluationError, bootstrap, delong, metrics, tables
from reproduce.rescore.score import text_width
from reproduce.tables import authors, details

FIVE = list(labels.CHEXPERT_COMPETITION)
TITLE = "CheXpert leaderboard: models released with the test labels, 500 studies"
CLAIM = "outperforms all previous state-of-the-art results"
ENDING = "_predictions.csv"
PHAM = "hieupham"
SOURCE = authors.SOURCES["leaderboard"]
MODELS = {  # name -> SHA-256 of the released file
    Path(path).name.removesuffix(ENDING): sha256
    for path, sha256 in SOURCE.files.items()
    if path.endswith(ENDING)
}
MEAN_AUC = (metrics.Group("mean", metrics=("AUC",)),)
SURE = 0.05  # of a p-value after Holm's correction
EQUIVALENT = 0.01  # mean AUC: smaller differences do not matter
ALIKE = 0.99  # rank correlation with Pham's in every label: nearly the same model


def read(folder: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray], list[str]]:
    """Return the truth by study, the probabilities by model, and remarks on the files."""
    truth_path = authors.find("leaderboard", folder, "groundtruth.csv")[0]
    truth = pd.read_csv(truth_path, index_col="Study")
    models: dict[str, np.ndarray] = {}
    remarks = []
    for path in sorted(folder.rglob(f"*{ENDING}")):
        name = path.name.removesuffix(ENDING)
        if name in MODELS and safefiles.sha256(path) != MODELS[name]:
            raise EvaluationError(
                f"{path} is not the file that was released (another SHA-256); fetch it again with "
                "--download into an empty folder."
            )
        probabilities = _read_model(path, truth)
        if name in models and not np.array_equal(models[name], probabilities):
            raise EvaluationError(f"{folder} holds two different files of {name}; keep one.")
        if name not in MODELS and name not in models:
            remarks.append(f"{path.name} is not one of the ten released models; scored as it is.")
        models[name] = probabilities
    if PHAM not in models or len(models) < 2:
        raise EvaluationError(
            f"{folder} holds {len(models)} of the ten models' CSVs; the comparison needs Pham's "
            f"({PHAM}{ENDING}) and at least one other. Add --download, or put the files of "
            f"example_models/predictions/standard of github.com/{SOURCE.repository} into it."
        )
    if missing := [name for name in MODELS if name not in models]:
        remarks.append(f"Not found, so not compared: {', '.join(missing)}.")
    return truth, models, remarks


def _read_model(path: Path, truth: pd.DataFrame) -> np.ndarray:
    """Return a model's five probabilities in the order of the truth's studies."""
    try:
        table = reading.read_table(path, ["Study"], FIVE).set_index("Study")
    except DataError as error:
        raise EvaluationError(str(error)) from error
    if table.index.duplicated().any() or {*table.index} != {*truth.index}:
        raise EvaluationError(
            f"{path} has {len(table)} rows of {table.index.nunique()} studies; it must have each "
            f"of the {len(truth)} test studies once."
        )
    values = table.loc[truth.index, FIVE].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if not np.isfinite(values).all():
        raise EvaluationError(f"{path} has predictions that are no numbers; fetch it again.")
    return values


def compare(
    truth: pd.DataFrame, models: dict[str, np.ndarray], resamples: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the AUC of every model and label, and the differences to Pham's, with intervals."""
    targets, patients = truth[FIVE].to_numpy(float), authors.patients(truth.index)
    pham = models[PHAM]
    draws = {
        name: bootstrap.scores(targets, values, patients, resamples, seed).auc
        for name, values in models.items()
    }
    scored, differences = [], []
    for name, values in models.items():
        arrays = values, FIVE, patients, MEAN_AUC
        table = bootstrap.table(targets, *arrays, resamples=resamples, seed=seed)
        scored.append(table[table["metric"] == "AUC"].assign(model=name))
        if name == PHAM:
            continue
        gap = bootstrap.compare(targets, pham, *arrays, resamples=resamples, seed=seed)
        gap = gap[gap["metric"] == "AUC"].assign(model=name)
        tested = delong.table(targets, pham, values, FIVE, patients).set_index("label")["p"]
        gap["p"] = gap["group"].map(tested)
        is_mean = gap["group"] == "mean"
        deviation = (draws[name] - draws[PHAM]).mean(axis=1).std(ddof=1)
        if deviation > 0:
            gap.loc[is_mean, "p"] = 2 * ndtr(-gap.loc[is_mean, "difference"].abs() / deviation)
        else:  # no resample distinguishes the two models
            gap.loc[is_mean, "p"] = 1.0
        low, high = bootstrap.interval((draws[name] - draws[PHAM]).mean(axis=1), 0.9)
        gap["equivalent"] = is_mean & (low > -EQUIVALENT) & (high < EQUIVALENT)
        differences.append(gap)
    gaps = pd.concat(differences, ignore_index=True)
    is_mean = gaps["group"] == "mean"
    for family in (is_mean, ~is_mean):  # the means and the labels are two questions
        gaps.loc[family, "p_holm"] = delong.holm(gaps.loc[family, "p"].to_numpy(float))
    return pd.concat(scored, ignore_index=True), gaps


def verdict(scored: pd.DataFrame, gaps: pd.DataFrame) -> tuple[str, str]:
    """Judge the claim that Pham's mean AUC is the best; return the verdict and a sentence."""
    mean = scored[scored["group"] == "mean"].set_index("model")["value"]
    others = gaps[gaps["group"] == "mean"]
    sure = others["p_holm"] < SURE
    better = int((sure & (others["low"] > 0)).sum())
    worse = int((sure & (others["high"] < 0)).sum())
    word = "does not hold" if better else "holds" if worse == len(others) else "within noise"
    rank = int((mean > mean[PHAM]).sum()) + 1
    sentence = (
        f"Pham's model is number {rank} of {len(mean)} by mean AUC (the highest, "
        f"{tables.number(mean.max(), 4)}, is {mean.idxmax()}'s). Of the {len(others)} others, "
        f"{others['equivalent'].sum()} are equivalent to it: the whole 90 % interval of the "
        f"difference lies within ±{tables.number(EQUIVALENT, 2)}. After Holm's correction {worse} "
        f"are worse and {better} better."
    )
    return word, sentence


def alike(models: dict[str, np.ndarray]) -> list[str]:
    """Name the models that have identical columns, or rank the studies nearly as Pham's does."""
    labels_of: dict[tuple[str, ...], list[str]] = {}
    for column, label in enumerate(FIVE):
        names_of: dict[bytes, list[str]] = {}
        for name, values in models.items():
            names_of.setdefault(values[:, column].tobytes(), []).append(name)
        for names in names_of.values():
            if len(names) > 1:
                labels_of.setdefault(tuple(names), []).append(label)
    sentences = [
        f"{_listed(names)} have identical probabilities of {_listed(shared)}."
        for names, shared in labels_of.items()
    ]
    ranks = {name: pd.DataFrame(values).rank() for name, values in models.items()}
    least = {name: ranks[PHAM].corrwith(each).min() for name, each in ranks.items()}
    sentences += [
        f"{name} is nearly Pham's model: for every finding, the ranks of the studies correlate by "
        f"{tables.number(correlation, 3)} or more."
        for name, correlation in least.items()
        if name != PHAM and correlation >= ALIKE
    ]
    return sentences


def _listed(names: Sequence[str]) -> str:
    """Return names as `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def for_people(scored: pd.DataFrame, gaps: pd.DataFrame) -> pd.DataFrame:
    """Return one row per model, best mean first: mean AUC, difference to Pham's, each label."""
    cells = scored.assign(cell=details.with_intervals(scored, digits=4))
    cells = cells.pivot(index="model", columns="group", values="cell")
    order = scored[scored["group"] == "mean"].sort_values("value", ascending=False)["model"]
    others = gaps[gaps["group"] == "mean"].set_index("model")
    columns = {
        "difference to Pham's": details.with_intervals(others, "difference", digits=4),
        "equivalent": others["equivalent"].map({True: "yes", False: ""}),
        "p (Holm)": others["p_holm"].map("{:.2g}".format),
    }
    wide = cells[["mean"]].rename(columns={"mean": "mean AUC"})
    wide = wide.join(pd.DataFrame(columns, others.index)).join(cells[FIVE]).loc[order].fillna("")
    return wide.rename(index={PHAM: f"{PHAM} (Pham)"}).rename_axis(index=None, columns=None)


def write(options: argparse.Namespace, results: Path) -> None:
    """Print the leaderboard and write its tables below `results`."""
    truth, models, remarks = read(options.released)
    scored, gaps = compare(truth, models, options.resamples, options.seed)
    word, sentence = verdict(scored, gaps)
    claim_line = f"Claim: Pham et al.'s method {CLAIM!r}: {word}. {sentence}"
    lines = [claim_line, *alike(models), *remarks, str(SOURCE)]
    out = results / "leaderboard" / "released"
    tables.to_csv(scored, out / "models.csv")
    tables.to_csv(gaps, out / "differences.csv")
    claim = {"claim": CLAIM, "ours": word, "note": sentence}
    tables.to_csv(pd.DataFrame([claim]), out / "state-of-the-art.csv")
    shown = for_people(scored, gaps)
    text = [f"# {TITLE}", *lines, tables.to_markdown(shown)]
    safefiles.write(out / "table.md", "\n\n".join(text))
    print(tables.titled(TITLE, tables.to_text(shown, text_width())))
    print("\n".join(lines) + f"\n\nWritten to {out}: table.md, models.csv, differences.csv.")
