"""Run designed experiments on phantoms, which are synthetic radiographs with a known truth.

    bash reproduce/study.sh                            everything, hours on two cores
    bash reproduce/study.sh --only chen2019-deleted    one contrast
    bash reproduce/study.sh --quick                    a smoke run: tiny images, one epoch

Each contrast turns one knob of the images, the labels or the settings and trains a paper's own rows
at each of its values. Finished runs are kept; rerun the command to resume. The page is written
after every contrast, to docs/study.md in the results folder, or where --docs says. A contrast that
has no results there yet keeps the numbers that the suite's own docs/study has.
"""

import argparse
import logging
from pathlib import Path

from reproduce import ROOT, Parser, RunError
from reproduce.engine import options
from reproduce.engine.options import Options
from reproduce.study import asadi2025, chen2019, contrasts, ge2018, mo2019, page, pham2019
from reproduce.study.contrasts import Contrast

CONTRASTS: dict[str, Contrast] = {
    contrast.name: contrast
    for module in (chen2019, pham2019, mo2019, ge2018, asadi2025)
    for contrast in module.CONTRASTS
}


def main() -> None:
    given = _arguments()
    own = _options(given)
    docs = given.docs or own.results_dir / "docs"

    if given.quick:  # TensorFlow warns about so few steps per row
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    written = page.write(CONTRASTS, own.results_dir, docs)
    for name in _chosen(given):
        with page.counted(name, own.results_dir):
            effects = contrasts.compute(CONTRASTS[name], own, given.quick)
            page.save(name, effects, own.results_dir)
        written = page.write(CONTRASTS, own.results_dir, docs)
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


def _chosen(given: argparse.Namespace) -> list[str]:
    """Return the names of the contrasts that are asked for."""
    if given.only == ["none"]:
        return []
    if unknown := [name for name in given.only or () if name not in CONTRASTS]:
        raise RunError(f"--only {unknown[0]}: choose from {', '.join(CONTRASTS)}.")
    if given.quick and not given.only:
        return [*{contrast.paper: name for name, contrast in CONTRASTS.items()}.values()]
    return given.only or [*CONTRASTS]


def _arguments() -> argparse.Namespace:
    parser = Parser(
        prog="bash reproduce/study.sh",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", help=f"of {', '.join(CONTRASTS)}; none: only the page")
    add("--quick", action="store_true", help="tiny images, one epoch, one contrast per paper")
    add("--seeds", type=options.seeds, default=(0, 1, 2, 3, 4), metavar="0,1,...")
    add("--results-dir", type=Path, default=ROOT / "results" / "study", metavar="DIR")
    add("--cache-dir", type=Path, default=ROOT / ".cache", metavar="DIR")
    add(
        "--docs",
        type=Path,
        metavar="DIR",
        help="where study.md goes; default: docs in the results folder",
    )
    add("--device", choices=("auto", "cpu", "gpu"), default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    with options.one_sentence():
        main()
