"""Write all results to one page that works offline: results/index.html.

    python -m reproduce.report [--results-dir DIR] [--out FILE]

The page shows every published table with our numbers beside it, the claims, figures, audit
findings, deviations and the run behind every number. The command only reads the results folder
and names every file that it cannot read.
"""

import argparse
import sys
import time
from pathlib import Path

import safefiles
from reproduce import ROOT, Parser
from reproduce.engine.options import one_sentence
from reproduce.report.page import build


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(
        "python -m reproduce.report",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results-dir", type=Path, default=ROOT / "results", metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: DIR/index.html")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    results = options.results_dir.expanduser().absolute()
    out = (options.out or results / "index.html").expanduser().absolute()
    page = build(results, out).encode("utf-8", "replace")
    safefiles.write(out, page)
    seconds = time.perf_counter() - started
    print(f"Wrote {out} ({len(page) / 1e6:.1f} MB, {seconds:.1f} s). Open it in a browser.")


if __name__ == "__main__":
    with one_sentence("Stopped; nothing was written."):
        main(sys.argv[1:])
