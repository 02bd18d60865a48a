"""Designed experiments on drawn phantoms, whose truth is known, and the papers' claims on them.

    bash reproduce/study.sh                            everything, hours on two cores
    bash reproduce/study.sh --only chen2019-deleted    one contrast
    bash reproduce/study.sh --quick                    that it runs: tiny images, one epoch

Each contrast turns one knob of the phantoms and trains a paper's own rows at each of its values.
What is finished stays; the same command goes on where it stopped. The page is written after every
part, to docs/study.md in the results folder; the suite's own docs/study.md is replaced when all
parts are there.
"""

import argparse
import functools
import logging
from pathlib import Path

from reproduce import ROOT, Parser, RunError
from reproduce.engine import flags
from reproduce.study import asadi2025, chen2019, contrasts, ge2018, mo2019, page, papers, pham2019
from reproduce.study.contrasts import Contrast

OF_PAPER = {
    "chen2019": chen2019,
    "pham2019": pham2019,
    "mo2019": mo2019,
    "ge2018": ge2018,
    "asadi2025": asadi2025,
}
CONTRASTS: dict[str, Contrast] = {
    contrast.name: contrast for module in OF_PAPER.values() for contrast in module.CONTRASTS
}
CLAIMS = {paper: module.CLAIMS for paper, module in OF_PAPER.items()}
ROWS = {f"{paper}-rows": paper for paper in OF_PAPER}  # the papers' own tables


def main() -> None:
    given = _arguments()
    options = flags.defaults(["chestxray14", "chexpert", "plco"])
    options.device, options.cache_dir, options.quick = given.device, given.cache_dir, given.quick
    options.seeds = (0,) if given.quick else given.seeds
    options.resamples = 50 if given.quick else 1000
    options.results_dir = given.results_dir / "quick" if given.quick else given.results_dir
    chosen = given.only or [*CONTRASTS, *ROWS]
    if given.quick:
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of so few steps a row
        chosen = given.only or [module.CONTRASTS[0].name for module in OF_PAPER.values()]
    if chosen == ["none"]:
        chosen = []
    if unknown := [name for name in chosen if name not in {**CONTRASTS, **ROWS}]:
        raise RunError(f"--only {unknown[0]}: choose from {', '.join([*CONTRASTS, *ROWS])}.")
    write = functools.partial(page.write, CONTRASTS, CLAIMS, options.results_dir)
    docs = given.docs or options.results_dir / "docs"
    written = write(docs)
    for name in chosen:
        with page.counted(name, options.results_dir):
            if name in CONTRASTS:
                page.save(name, contrasts.compute(CONTRASTS[name], options), options.results_dir)
            else:
                papers.tabulate(ROWS[name], options)
        write(docs)
    if given.docs is None and not given.quick and page.is_whole(written):
        written = write(ROOT / "docs")
    print(f"\nWritten: {written}")


def _arguments() -> argparse.Namespace:
    parser = Parser(
        prog="bash reproduce/study.sh",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join([*CONTRASTS, *ROWS])
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", help=f"of {names}; none: only the page")
    add(
        "--quick",
        action="store_true",
        help="a few tiny images, one epoch, a contrast a paper",
    )
    add("--seeds", type=flags.seeds, default=(0, 1, 2), metavar="0,1,2")
    add("--results-dir", type=Path, default=ROOT / "results" / "study", metavar="DIR")
    add("--cache-dir", type=Path, default=ROOT / ".cache", metavar="DIR")
    add("--docs", type=Path, metavar="DIR", help="where study.md goes, whole or not")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    with flags.one_sentence():
        main()
