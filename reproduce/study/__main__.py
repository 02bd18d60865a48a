"""Run designed experiments on phantoms, whose truth is known, and check the papers' claims on them.

    bash reproduce/study.sh                            everything, hours on two cores
    bash reproduce/study.sh --only chen2019-deleted    one contrast
    bash reproduce/study.sh --quick                    a smoke run: tiny images, one epoch

Each contrast turns one knob of the phantoms (synthetic radiographs) and trains a paper's own rows
at each of its values. Finished parts are kept; rerun the command to resume. The page is written
after every part, to docs/study.md in the results folder; the suite's own docs/study.md is replaced
when all parts are finished.
"""

import argparse
import logging
from pathlib import Path

from reproduce import ROOT, Parser, RunError
from reproduce.engine import options
from reproduce.engine.options import Options
from reproduce.study import asadi2025, chen2019, contrasts, ge2018, mo2019, page, papers, pham2019
from reproduce.study.contrasts import Contrast

MODULES = {
    "chen2019": chen2019,
    "pham2019": pham2019,
    "mo2019": mo2019,
    "ge2018": ge2018,
    "asadi2025": asadi2025,
}
CONTRASTS: dict[str, Contrast] = {
    contrast.name: contrast for module in MODULES.values() for contrast in module.CONTRASTS
}
CLAIMS = {paper: module.CLAIMS for paper, module in MODULES.items()}
ROWS = {f"{paper}-rows": paper for paper in MODULES}  # the papers' own tables
PARTS = [*CONTRASTS, *ROWS]


def main() -> None:
    given = _arguments()
    own = _options(given)
    docs = given.docs or own.results_dir / "docs"

    def write(folder: Path) -> Path:
        return page.write(CONTRASTS, CLAIMS, own.results_dir, folder)

    if given.quick:  # TensorFlow warns about so few steps per row
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    written = write(docs)
    for name in _parts(given):
        with page.counted(name, own.results_dir):
            if name in CONTRASTS:
                effects = contrasts.compute(CONTRASTS[name], own, given.quick)
                page.save(name, effects, own.results_dir)
            else:
                papers.tabulate(ROWS[name], own, given.quick)
        write(docs)
    if given.docs is None and not given.quick and page.is_complete(written):
        written = write(ROOT / "docs")
    print(f"\nWritten: {written}")


def _options(given: argparse.Namespace) -> Options:
    """Return the engine's options for these flags."""
    return Options(
        device=given.device,
        cache_dir=given.cache_dir,
        results_dir=given.results_dir / "quick" if given.quick else given.results_dir,
        seeds=(0,) if given.quick else given.seeds,
        resamples=50 if given.quick else 1000,
    )


def _parts(given: argparse.Namespace) -> list[str]:
    """Return the parts that are asked for."""
    if given.only == ["none"]:
        return []
    if given.only:
        if unknown := [name for name in given.only if name not in PARTS]:
            raise RunError(f"--only {unknown[0]}: choose from {', '.join(PARTS)}.")
        return given.only
    if given.quick:
        return [module.CONTRASTS[0].name for module in MODULES.values()]
    return PARTS


def _arguments() -> argparse.Namespace:
    parser = Parser(
        prog="bash reproduce/study.sh",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", help=f"of {', '.join(PARTS)}; none: only the page")
    add("--quick", action="store_true", help="tiny images, one epoch, one contrast per paper")
    add("--seeds", type=options.seeds, default=(0, 1, 2), metavar="0,1,2")
    add("--results-dir", type=Path, default=ROOT / "results" / "study", metavar="DIR")
    add("--cache-dir", type=Path, default=ROOT / ".cache", metavar="DIR")
    add("--docs", type=Path, metavar="DIR", help="where study.md goes, complete or not")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    with options.one_sentence():
        main()
