"""A rehearsal at full size, on drawn phantoms: the time and memory of each step to the report.

    python -m bench.rehearsal --labels DIR --write     DIR has NIH's label file and its two lists
    python -m bench.rehearsal --quick                  200 and 800 images of each, about a minute

ChestX-ray14 is drawn by NIH's own label file: the findings, patients, sex and views of its rows,
and its two official lists. CheXpert is drawn with label files of the same shape, made here. Each
step runs at 1/16, 1/4 and the whole of both, in a process of its own. The sizes take turns, so that
a machine that is slower for a while is slower for all of them; but for drawing and training there
are three turns, of which the quickest counts. What is drawn and trained is deleted; with --folder
DIR the measurements stay there, and the same command goes on with the dataset that is missing.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from bench import machine, nih_phantoms, publish
from data import DataError
from data.datasets import DATASETS
from data.phantom import drawing
from evaluation import metrics
from reproduce import asadi2025, mo2019
from reproduce.engine import backend, dataset, flags, loop, plan
from reproduce.report import page
from reproduce.tables import asadi2025 as asadi2025_tables
from reproduce.tables import scoring

PIXELS = 64  # a side, drawn and trained
CHEXPERT_IMAGES = 223_414  # as many as its training set has; here in all three sets together
QUICK = (200, 800)  # images
SLACK = 1.15  # a step grows faster than linearly if it takes this many times longer than linear
SECONDS = 0.5  # and so much longer: less is noise
KB_AN_IMAGE = 8  # stated: labels, targets, names and predictions; images stay on the disk
TURNS = 3  # of a step that is not among ONCE; the first may find the files on the disk alone
POLL = 0.02  # seconds between two looks at a step's memory


class Rehearsed(NamedTuple):
    """A dataset, and the row of a paper that is trained on it."""

    name: str  # of the dataset
    paper: Any  # its script
    row: str
    groups: Callable  # label names -> the groups that its tables score

    @property
    def script(self) -> str:
        return self.paper.__name__.rpartition(".")[2]


REHEARSED = (
    Rehearsed("chestxray14", mo2019, mo2019.BASELINE, lambda names: metrics.MEAN),
    Rehearsed("chexpert", asadi2025, "BCE", asadi2025_tables.groups),
)


class Cost(NamedTuple):
    """What a step took."""

    seconds: float
    cpu: float  # seconds of all its processes
    megabytes: float  # its own memory at most, without the files that the kernel caches


# The steps: each prepares what it needs, and returns the part that is measured


class Stage(NamedTuple):
    """A dataset drawn at one size, and the folders that its steps share."""

    rehearsed: Rehearsed
    folder: Path  # of everything that is deleted afterwards
    images: int
    released: Path | None  # the folder with NIH's label file

    @property
    def data_folder(self) -> Path:
        return self.folder / "drawn"

    def settings(self):
        """(Config, options) of the paper's script, as if its flags had been given."""
        released = self.data_folder
        if self.rehearsed.name == "chexpert":
            released = released / DATASETS["chexpert"].phantom_folder
        script_flags = {
            "--data-dir": released, "--preset": "demo", "--size": PIXELS, "--epochs": 1,
            "--rows": self.rehearsed.row, "--device": "cpu",
            "--results-dir": self.folder / "results", "--cache-dir": self.folder / "cache",
        }  # fmt: skip
        sys.argv = [self.rehearsed.script, *map(str, sum(script_flags.items(), ()))]
        paper = self.rehearsed.paper
        return flags.arguments(paper.Config, paper.DEMO, __doc__, [self.rehearsed.name])

    def reader_options(self, config) -> dict:
        return {"labels": config.labels} if self.rehearsed.name == "chexpert" else {}

    def load(self, config, options):
        """The data as the script has it."""
        paper = self.rehearsed.paper
        more = {"phantoms": 0, "resize": PIXELS, **self.reader_options(config)}
        return dataset.load(options, config, paper.split, paper.rows, **more)

    def finished(self):
        """The data and the runs, trained before."""
        config, options = self.settings()
        data = self.load(config, options)
        rows = self.rehearsed.paper.rows
        return data, loop.train(self.rehearsed.script, rows, data, config, options), options


def draw(stage: Stage) -> Callable:
    if stage.rehearsed.name == "chexpert":
        return lambda: drawing.write("chexpert", stage.data_folder, stage.images, PIXELS, seed=0)
    assert stage.released is not None
    released = stage.released
    return lambda: nih_phantoms.draw(stage.data_folder, stage.images, PIXELS, released)


def read(stage: Stage) -> Callable:
    config, options = stage.settings()
    return lambda: dataset.read(options, PIXELS, 0, **stage.reader_options(config))


def prepare(stage: Stage) -> Callable:
    config, options = stage.settings()
    shutil.rmtree(stage.folder / "cache", ignore_errors=True)  # of an earlier turn
    released = dataset.read(options, PIXELS, 0, **stage.reader_options(config))
    frame, reason = stage.rehearsed.paper.split(released, config)
    return lambda: dataset.decode(options, frame, released.attrs, reason, PIXELS, None)


def epoch(stage: Stage) -> Callable:
    config, options = stage.settings()
    data = stage.load(config, options)
    backend.start("cpu")
    rows = stage.rehearsed.paper.rows
    return lambda: loop.train(stage.rehearsed.script, rows, data, config, options)


def evaluate(stage: Stage) -> Callable:
    _, runs, options = stage.finished()
    return lambda: scoring.score(runs, stage.rehearsed.groups, options.resamples)


def tables(stage: Stage) -> Callable:
    data, runs, options = stage.finished()
    scored = scoring.score(runs, stage.rehearsed.groups, options.resamples)
    folder = loop.paper_folder(stage.rehearsed.script, options, data)
    failed = plan.failed_rows(runs)
    return lambda: scoring.write(stage.rehearsed.script, folder, scored, data, failed=failed)


def report(stage: Stage) -> Callable:
    results = stage.folder / "results"
    return lambda: page.build(results, results / "index.html")


STEPS = {
    "draw": draw,
    "read the label files": read,
    "prepare the images": prepare,
    "train an epoch, predict": epoch,
    "evaluate, 1,000 resamples": evaluate,
    "tables": tables,
    "report": report,
}
ONCE = ("draw", "train an epoch, predict")  # minutes each


# Measuring


def measure(step: Callable, stage: Stage) -> Cost:
    """A step's cost, in a forked child: it has everything imported but the backend."""
    context = get_context("fork")
    answers, answer = context.Pipe(duplex=False)
    log = stage.folder / "log.txt"
    child = context.Process(target=_in_child, args=(step, stage, log, answer))
    child.start()
    answer.close()
    try:
        cost = answers.recv()
    except EOFError:
        cost = "its process was killed, of too little memory perhaps"
    child.join()
    if isinstance(cost, str):
        raise RuntimeError(f"{step.__name__} failed: {cost}\n{log.read_text(errors='replace')}")
    return cost


def _in_child(step: Callable, stage: Stage, log: Path, answer) -> None:
    sys.stdout.flush()
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        work = step(stage)
        most = [_own_memory()]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(POLL):
                most[0] = max(most[0], _own_memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        began, cpu = time.perf_counter(), _cpu()
        try:
            work()
        finally:
            done.set()
            watcher.join()
        answer.send(Cost(time.perf_counter() - began, _cpu() - cpu, max(most[0], _own_memory())))
    except Exception:
        answer.send(traceback.format_exc())


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _own_memory() -> float:
    """MB of this process and its children, without mapped files such as the image cache."""
    pids, total = [os.getpid()], 0
    for pid in pids:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # it has ended meanwhile
            continue
        total += next(
            (int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0
        )
    return total / 1024


Measured = dict[str, dict[int, dict[str, Cost]]]  # dataset -> images -> step -> cost


def rehearse(stages: Sequence[Stage], folder: Path, turns: int) -> dict[int, dict[str, Cost]]:
    """Every step on every size of a dataset, in turns; what they made is deleted."""
    costs: dict[int, dict[str, Cost]] = {stage.images: {} for stage in stages}
    shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
    try:
        for stage in stages:
            stage.folder.mkdir(parents=True)
        for name, step in STEPS.items():
            for stage in [*stages] * (1 if name in ONCE else turns):
                cost, known = measure(step, stage), costs[stage.images].get(name)
                costs[stage.images][name] = cost if known is None else least(cost, known)
                shown = "{:.1f} s, {:.1f} s of CPU, {:.0f} MB".format(*cost)
                where = f"{stage.rehearsed.name}, {stage.images:,} images"
                print(f"{where}, {name}: {shown}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return costs


def least(one: Cost, other: Cost) -> Cost:
    """The quicker of two turns, with the larger memory."""
    return min(one, other, key=lambda cost: cost.cpu)._replace(
        megabytes=max(one.megabytes, other.megabytes)
    )


def grows_faster(costs: dict[int, dict[str, Cost]], step: str) -> bool:
    """Whether a step's CPU time grows faster than the images, between the two largest sizes."""
    if len(costs) < 2:
        return False
    few, many = sorted(costs)[-2:]
    linear = costs[few][step].cpu * many / few
    return costs[many][step].cpu > max(SLACK * linear, linear + SECONDS)


def kilobytes_an_image(costs: dict[int, dict[str, Cost]], step: str) -> float:
    """By how much a step's memory grows with an image, from the smallest size to the largest."""
    few, many = min(costs), max(costs)
    if few == many:
        return float("nan")
    grown = costs[many][step].megabytes - costs[few][step].megabytes
    return max(0.0, 1024 * grown / (many - few))


def table(measured: Measured) -> str:
    """The section of docs/performance.md."""
    lines = [
        f"{machine()}. A cell: seconds, seconds of CPU, own memory at most; but for drawing and "
        f"training the quickest of up to {TURNS} turns.",
        *("", f"Stated: no step grows faster than linearly; memory by at most {KB_AN_IMAGE} KB an "
          "image, which images themselves never need."),
    ]  # fmt: skip
    for name, costs in measured.items():
        sizes = sorted(costs)
        heads = [f"{images:,} images" for images in sizes]
        lines += ["", f"| {name} | {' | '.join(heads)} | CPU grows | KB an image |"]
        lines.append("|---|" + "---:|" * len(sizes) + "---|---:|")
        for step in STEPS:
            cells = [
                "{:.1f} s, {:.1f} s, {:.0f} MB".format(*costs[images][step]) for images in sizes
            ]
            grows, memory = "–", "–"
            if len(sizes) > 1:
                faster, kilobytes = grows_faster(costs, step), kilobytes_an_image(costs, step)
                grows = "**faster than linearly**" if faster else "linearly or less"
                memory = f"{kilobytes:.1f}" if kilobytes <= KB_AN_IMAGE else f"**{kilobytes:.1f}**"
            lines.append(f"| {step} | {' | '.join(cells)} | {grows} | {memory} |")
    lines += ["", *findings(measured)]
    return "\n".join(lines)


def findings(measured: Measured) -> list[str]:
    """In words: what grows faster than stated."""
    several = {name: costs for name, costs in measured.items() if len(costs) > 1}
    if not several:
        return ["One size alone says nothing about growth."]
    pairs = [(name, costs, step) for name, costs in several.items() for step in STEPS]
    quick = [f"{step} ({name})" for name, costs, step in pairs if grows_faster(costs, step)]
    large = [
        f"{step} ({name})"
        for name, costs, step in pairs
        if kilobytes_an_image(costs, step) > KB_AN_IMAGE
    ]
    return [
        f"Faster than linearly: {', '.join(quick) or 'none'}. "
        f"More memory an image than stated: {', '.join(large) or 'none'}."
    ]


def _known(folder: Path) -> Measured:
    """The measurements of an earlier command in this folder."""
    path = folder / "measured.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return {
        name: {
            int(images): {step: Cost(*cost) for step, cost in costs.items()}
            for images, costs in sizes.items()
        }
        for name, sizes in found.items()
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m bench.rehearsal",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--labels", type=Path, metavar="DIR", help="NIH's label file and lists; else no NIH")
    add("--datasets", nargs="+", choices=[each.name for each in REHEARSED])
    add("--shares", type=int, nargs="+", default=[16, 4, 1], metavar="N", help="1/N of each")
    add("--quick", action="store_true", help=f"{QUICK[0]} and {QUICK[1]} images")
    add("--folder", type=Path, help="for temporary files and measurements that stay")
    add("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measured = _known(folder)
        for rehearsed in REHEARSED:
            if options.datasets and rehearsed.name not in options.datasets:
                continue
            total = CHEXPERT_IMAGES
            if rehearsed.name == "chestxray14":
                if options.labels is None:
                    print("No --labels: NIH's rows are not rehearsed.", file=sys.stderr)
                    continue
                total = len(nih_phantoms.rows(options.labels))
            sizes = [total // share for share in options.shares]
            if options.quick:
                sizes = [min(images, total) for images in QUICK]
            if measured.get(rehearsed.name, {}).keys() >= {*sizes}:
                continue
            at = folder / "under-way"
            stages = [Stage(rehearsed, at / str(n), n, options.labels) for n in sorted(sizes)]
            measured[rehearsed.name] = rehearse(stages, at, 1 if options.quick else TURNS)
            (folder / "measured.json").write_text(json.dumps(measured))
    publish("rehearsal", table(measured), options.write)


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"{error}")
