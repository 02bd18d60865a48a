"""Show predictions that other groups released as rows of their own, on our test images.

A row is shown only if all of our test images are test images of that group too, so that its network
was trained on none of them. It is scored with our labels and our resamples, is not counted as ours,
and does not decide any claim.
"""

from pathlib import Path

import pandas as pd

from data import labels, public_lists
from data.datasets import CHESTXRAY14_FORMS
from evaluation import EvaluationError, bootstrap
from evaluation.predictions import Predictions
from reproduce import ROOT
from reproduce.engine.options import Options
from reproduce.engine.rows import Data
from reproduce.tables import authors
from reproduce.tables.scoring import Groups, Scored, by_key, measure, with_note

ZECH = "released: Zech 2018, DenseNet-121"
FOLDER = ROOT / "released"  # if --released is not given
GET = "python -m reproduce.rescore zech2018 --released released --download"


def add(
    scored: dict[str, Scored],
    data: Data,
    options: Options,
    groups: Groups,
) -> tuple[dict[str, Scored], dict[str, Scored]]:
    """Return our rows and the released rows; ours get a note if a fitting file is missing."""
    if not scored or data.phantom or data.dataset not in CHESTXRAY14_FORMS:
        return scored, {}
    ours = next(iter(scored.values())).predictions[0]
    in_set = public_lists.chexnet_sets()
    on_their_test_list = all(in_set.get(str(patient)) == "test" for patient in ours.patients)
    if not on_their_test_list or list(ours.labels) != list(labels.CHESTXRAY14):
        return scored, {}
    folder = options.released or FOLDER
    try:
        theirs = _zech(ours, authors.find("zech2018", folder, "preds.csv")[0])
    except EvaluationError:
        missing = (
            f"{ZECH} has predictions of these test images, but its file is not in {folder}; get it "
            f"with {GET}, then rerun this command"
        )
        return {name: with_note(row, missing) for name, row in scored.items()}, {}
    return scored, {ZECH: _score(theirs, groups, options.resamples)}


def _zech(ours: Predictions, path: Path) -> Predictions:
    """Return Zech's probabilities of our test images, with our labels."""
    table = pd.read_csv(path, index_col="Image Index")
    names = [str(image).rpartition("/")[2] for image in ours.ids]
    if missing := [name for name in names if name not in table.index]:
        raise EvaluationError(f"{path} has no image {missing[0]}.")
    columns = [f"prob_{label}" for label in ours.labels]
    probabilities = table.loc[names, columns].to_numpy(float)
    return ours._replace(probabilities=probabilities[None], meta={"row": ZECH})


def _score(theirs: Predictions, groups: Groups, resamples: int) -> Scored:
    table, draws = measure(theirs, groups, resamples)
    source = authors.SOURCES["zech2018"]
    note = (
        f"not trained here: predictions that github.com/{source.repository} released, scored on "
        f"the same {len(theirs.ids):,} test images ({source.licence})"
    )
    scored = bootstrap.with_intervals(table, draws)
    return with_note(Scored(scored, by_key(draws, table), [theirs]), note)
