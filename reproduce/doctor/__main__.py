"""Checks the machine, and a dataset's folder if one is given, before hours are spent on them.

    python -m reproduce.doctor
    python -m reproduce.doctor --data-dir ~/data/ChestX-ray14 --dataset chestxray14

Every finding is ok, a warning (it works, but not as in the papers) or a problem (it would fail).
The exit code is 1 if there is a problem, else 0.
"""

import argparse
import contextlib
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from reproduce import ROOT, Parser
from reproduce.doctor import machine
from reproduce.doctor.machine import OK, PROBLEM, WARNING, Finding

WIDTH = 100
ESTIMATE = """\
The times are estimates, right within a factor of about three: one seed at the paper's settings,
every epoch counted as one of DenseNet-121 at the measured speed, scaled by the pixels. VGG-16 and
the large networks of ensembles take longer, ResNet-18 and frozen layers less; validation and test
come on top. On a CPU steps are measured uncompiled, at about half the speed of a long run.
"""


def checkup(options) -> Iterator[Finding]:
    """Every check, each finding as soon as it is known."""
    yield machine.python()
    packages = machine.packages((ROOT / "requirements.txt").read_text("utf-8"))
    yield packages
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    facts = machine.ask_keras(options.seconds)
    yield machine.backend(facts)
    yield machine.gpu(machine.driver(), facts, os.environ, machine.wheels())
    try:
        from reproduce.doctor import dataset, weights
    except ImportError as error:
        yield Finding(
            PROBLEM, "imports", f"{error}", "Mend the packages first: the rest needs them."
        )
        return
    frame = None
    if options.data_dir:
        frame = dataset.read(options.data_dir, options.dataset)
        if isinstance(frame, Finding):
            yield frame
            return
        yield from dataset.findings(options.data_dir, options.dataset, frame, 256)
    needs = dataset.needs(frame)
    folders = {
        "cache": (options.cache_dir, sum(need.cache for need in needs)),
        "results": (options.results_dir, sum(need.results for need in needs)),
    }
    if options.data_dir:
        yield from machine.disk_space(folders)
    else:  # the demos need next to nothing
        yield from machine.disk_space(
            folders, short=WARNING, needs="for all papers on whole datasets"
        )
    rate = facts.get("images_a_second")
    if rate:
        text = (
            f"DenseNet-121 trains on {rate:.3g} images of 224 px a second, batch {facts['batch']}"
        )
        if load > cores and not facts["gpus"]:
            text += f"; more when other programs leave it the {cores} cores (load was {load:.0f})"
        yield Finding(OK, "speed", text)
    elif options.seconds and "backend" in facts:
        fix = f"Look at the whole error: {sys.executable} -m reproduce.doctor.speed"
        yield Finding(PROBLEM, "speed", f"cannot train: {facts.get('ended')}", fix)
    for need in needs:
        yield weights.look(need.paper, need.dataset)
        text = f"{need.epochs:,} epochs of {need.training:,} images at {need.pixels} px"
        text = f"{'at most ' * need.may_stop}{text}, {machine.size(need.cache)} of cache"
        if rate:
            text = f"about {dataset.duration(dataset.time_needed(need, rate, 224))}: {text}"
        yield Finding(OK, need.paper, text)


def show(finding: Finding) -> None:
    """Print one finding, its text aligned."""
    first = f"{finding.state:<8} {finding.what:<11} "
    lines = [
        line
        for part in finding.text.split("\n")
        for line in textwrap.wrap(part, WIDTH - len(first), break_on_hyphens=False) or [""]
    ]
    print(first + ("\n" + " " * len(first)).join(lines), flush=True)


def sum_up(findings: list[Finding]) -> int:
    """Print what to do, problems first; the exit code."""
    print()
    if any(finding.what == "speed" and finding.state == OK for finding in findings):
        print(ESTIMATE)
    to_fix = [f for state in (PROBLEM, WARNING) for f in findings if f.state == state]
    for number, finding in enumerate(to_fix, 1):
        show(Finding(f"{number}.", finding.what, finding.fix))
    problems = sum(finding.state == PROBLEM for finding in findings)
    warnings = len(to_fix) - problems
    print(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}.")
    return int(problems > 0)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' * (number != 1)}"


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 3600:  # false for nan
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: give seconds from 0 to 3,600")


def one_sentence():
    """How errors reach the user; the suite's own way, unless a package lacks that it imports."""
    try:
        from reproduce.engine import flags
    except ImportError:
        return contextlib.nullcontext()
    return flags.one_sentence("Stopped.")


def main() -> int:
    parser = Parser(
        "python -m reproduce.doctor",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the dataset as released")
    parser.add_argument("--dataset", choices=("chestxray14", "chexpert", "plco"))
    parser.add_argument("--cache-dir", type=Path, default=ROOT / ".cache", metavar="DIR")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "results", metavar="DIR")
    parser.add_argument(
        "--seconds", type=_seconds, default=10, metavar="N", help="of measured training; 0: none"
    )
    options = parser.parse_args()
    if lacking := [
        name for name, value in vars(options).items() if value == []
    ]:  # what Python 3.11 makes of --results-dir=--
        parser.error(f"--{lacking[0].replace('_', '-')} needs a value")
    if bool(options.data_dir) != bool(options.dataset):
        parser.error("--data-dir and --dataset go together: a folder, and what it holds")
    findings = []
    with one_sentence():
        for finding in checkup(options):
            show(finding)
            findings.append(finding)
        return sum_up(findings)


if __name__ == "__main__":
    sys.exit(main())
