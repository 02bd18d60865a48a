"""Check the machine, and a dataset's folder if one is given, before hours are spent on them.

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
from typing import Any

from data.datasets import DATASETS
from reproduce import ROOT, Parser
from reproduce.doctor import machine, speed
from reproduce.doctor.machine import OK, PROBLEM, WARNING, Finding, ok, problem

WIDTH = 100
ESTIMATE = """\
The times are estimates, right within a factor of about three: one seed at the paper's settings,
every epoch counted as one of DenseNet-121 at the measured speed, scaled by the pixels. VGG-16 and
the large networks of ensembles take longer, ResNet-18 and frozen layers less; validation and test
come on top. On a CPU steps are measured uncompiled, at about half the speed of a long run.
"""


def checkup(options: argparse.Namespace) -> Iterator[Finding]:
    """Run every check; yield each finding as soon as it is known."""
    yield machine.python()
    yield machine.packages((ROOT / "requirements.txt").read_text("utf-8"))
    load = os.getloadavg()[0]
    facts = machine.ask_keras(options.seconds)
    yield machine.backend(facts)
    yield machine.gpu(machine.driver(), facts, os.environ, machine.wheels())
    try:
        from reproduce.doctor import dataset, papers
    except ImportError as error:
        yield problem(
            "imports", f"{error}", "Install the packages first: the other checks need them."
        )
        return
    frame = None
    if options.data_dir:
        frame = dataset.read(options.data_dir, options.dataset)
        if isinstance(frame, Finding):
            yield frame
            return
        folder = Path(frame.attrs.get("folder", options.data_dir))
        yield from dataset.findings(folder, options.dataset, frame, 256)
    needs = papers.needs(frame)
    folders = {
        "cache": (options.cache_dir, sum(need.cache for need in needs)),
        "results": (options.results_dir, sum(need.results for need in needs)),
    }
    if options.data_dir:
        yield from machine.disk_space(folders)
    else:  # the demos need almost no space
        purpose = "for all papers on whole datasets"
        yield from machine.disk_space(folders, short=WARNING, needs=purpose)
    if options.seconds and "backend" in facts:
        yield training_speed(facts, load)
    for need in needs:
        yield papers.starting_weights(need.paper, need.weights)
        yield papers.training(need, facts.get("images_a_second"), measured_at=speed.SIZE)


def training_speed(facts: dict[str, Any], load: float) -> Finding:
    """Say how fast the network of reproduce.doctor.speed trained; `load` is that before it ran."""
    if "images_a_second" not in facts:
        fix = f"Look at the whole error: {sys.executable} -m reproduce.doctor.speed"
        return problem("speed", f"cannot train: {facts.get('ended')}", fix)
    rate, cores = facts["images_a_second"], len(os.sched_getaffinity(0))
    text = f"DenseNet-121 trains on {rate:.3g} images of 224 px per second, batch {facts['batch']}"
    if load > cores and not facts["gpus"]:
        text += f"; faster once other programs leave the {cores} cores (load was {load:.0f})"
    return ok("speed", text)


def show(finding: Finding) -> None:
    """Print one finding, its text aligned."""
    heading = f"{finding.state:<8} {finding.topic:<11} "
    width = WIDTH - len(heading)
    lines: list[str] = []
    for line in finding.text.split("\n"):
        lines += textwrap.wrap(line, width, break_on_hyphens=False) or [""]
    print(heading + f"\n{' ' * len(heading)}".join(lines), flush=True)


def sum_up(findings: list[Finding]) -> int:
    """Print what to do, problems first, and return the exit code."""
    print()
    if any(finding.topic == "speed" and finding.state == OK for finding in findings):
        print(ESTIMATE)
    problems = [finding for finding in findings if finding.state == PROBLEM]
    warnings = [finding for finding in findings if finding.state == WARNING]
    for number, finding in enumerate([*problems, *warnings], 1):
        show(Finding(f"{number}.", finding.topic, finding.fix))
    print(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}.")
    return 1 if problems else 0


def _count(findings: list[Finding], word: str) -> str:
    return f"{len(findings) or 'no'} {word}{'' if len(findings) == 1 else 's'}"


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 3600:  # false for nan
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: give seconds from 0 to 3,600")


def user_errors() -> contextlib.AbstractContextManager[None]:
    """Return the suite's error handling, or none if a package that it imports is missing."""
    try:
        from reproduce.engine.options import one_sentence
    except ImportError:
        return contextlib.nullcontext()
    return one_sentence("Stopped.")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        "python -m reproduce.doctor",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data-dir", type=Path, metavar="DIR", help="the dataset as released")
    add("--dataset", choices=[*DATASETS])
    add("--cache-dir", type=Path, default=ROOT / ".cache", metavar="DIR")
    add("--results-dir", type=Path, default=ROOT / "results", metavar="DIR")
    add("--seconds", type=_seconds, default=10, metavar="N", help="of measured training; 0: none")
    options = parser.parse_args()
    if bool(options.data_dir) != bool(options.dataset):
        parser.error("--data-dir and --dataset go together: a folder, and which dataset it holds")
    return options


def main() -> int:
    """Print every finding, then what to do; return the exit code."""
    options, findings = arguments(), []
    with user_errors():
        for finding in checkup(options):
            show(finding)
            findings.append(finding)
        return sum_up(findings)


if __name__ == "__main__":
    sys.exit(main())
