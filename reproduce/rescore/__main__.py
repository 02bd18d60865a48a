"""Scores predictions that exist already: the authors' released ones, or anyone's.

    python -m reproduce.rescore pham2019 --released DIR [--download]
    python -m reproduce.rescore asadi2025 --released DIR [--download]
    python -m reproduce.rescore --predictions FILE --truth FILE [--compare FILE] [--results-dir DIR]
    python -m reproduce.rescore --predictions results/.../predictions.npz
    python -m reproduce.rescore --predictions preds.csv --truth Data_Entry_2017_v2020.csv

A CSV (or .csv.gz) has ids in its first column and one column a label, named LABEL, prob_LABEL,
LABEL_pred or, for truth, LABEL_GT. The official label file of ChestX-ray14 is read as it is, with
its patients. A predictions.npz of a run holds its own truth. Images that only one file has are left
out and counted. Intervals are of 1,000 resamples of the patients.

A paper's tables go to DIR/PAPER/released (DIR is results, unless --results-dir names another).
Anyone's go to DIR/rescored/NAME where --results-dir is given, and are only printed otherwise; NAME
is the file's with its folder's, or the run's: chen2019-plco-HLCP-seed-0.
"""

import argparse
import sys
from pathlib import Path

from data import label_tree
from reproduce.engine.flags import one_sentence
from reproduce.rescore import score


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m reproduce.rescore",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paper", nargs="?", choices=[*score.PAPERS], help="whose released predictions"
    )
    parser.add_argument(
        "--results-dir",
        type=Path,
        metavar="DIR",
        help="for tables and figures, in a folder of their own below it",
    )
    parser.add_argument("--resamples", type=int, default=1000, help="of the patients (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (%(default)s)")
    theirs = parser.add_argument_group("released by a paper's authors")
    theirs.add_argument("--released", type=Path, metavar="DIR", help="where their files lie")
    theirs.add_argument("--download", action="store_true", help="fetch what is missing there")
    theirs.add_argument("--base-url", metavar="URL", help="fetch from this mirror instead")
    theirs.add_argument("--write-docs", action="store_true", help="also into docs/papers")
    own = parser.add_argument_group("anyone's predictions")
    own.add_argument("--predictions", type=Path, metavar="FILE", help="CSV or predictions.npz")
    own.add_argument("--truth", type=Path, metavar="FILE", help="CSV of 0, 1 or blank")
    own.add_argument("--compare", type=Path, metavar="FILE", help="a second model's predictions")
    own.add_argument(
        "--labels", type=lambda text: text.split(","), metavar="A,B", help="only these"
    )
    own.add_argument("--id-column", metavar="C", help="which matches rows (the first)")
    own.add_argument("--patient-column", metavar="C", help="in truth or predictions")
    # earlier commands have it; images without a prediction are now left out and counted
    own.add_argument("--allow-missing", action="store_true", help=argparse.SUPPRESS)
    own.add_argument(
        "--tree",
        choices=[*label_tree.HIERARCHIES],
        help="adds leaf and high-level means, violations",
    )
    own.add_argument("--ge", action="store_true", help="adds W-, D- and N-AUC of Ge et al. 2018")
    options = parser.parse_args(arguments)
    if [] in vars(options).values():  # what Python 3.11 makes of --results-dir=--
        parser.error("a flag lacks its value")
    if bool(options.paper) == bool(options.predictions):
        parser.error("name a paper (pham2019, asadi2025), or --predictions FILE")
    if options.paper and not options.released:
        parser.error(f"say with --released DIR where the files of {options.paper} lie, or belong")
    for_own = [options.truth, options.compare, options.tree, options.labels, options.ge]
    for_own += [options.id_column, options.patient_column]
    if options.paper and any(for_own):
        parser.error("flags for anyone's predictions do not go with a paper's released ones")
    for_paper = (options.released, options.download, options.base_url, options.write_docs)
    if options.predictions and any(for_paper):
        parser.error("flags for a paper's released predictions do not go with --predictions")
    if options.base_url and not options.download:
        parser.error("--base-url says where --download fetches from; give both")
    if options.resamples < 1:
        parser.error("--resamples must be at least 1")
    if options.seed < 0:
        parser.error("--seed must be a whole number, 0 or more")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    with one_sentence("Stopped."):
        (score.released_command if options.paper else score.own_command)(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
