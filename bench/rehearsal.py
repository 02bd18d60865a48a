"""Rehearse both large datasets at full size on phantoms: time and memory of every step.

    python -m bench.rehearsal --labels DIR --write     DIR has NIH's label file and its two lists
    python -m bench.rehearsal --quick                  200 and 800 images of each, about a minute

ChestX-ray14's phantoms (synthetic radiographs) follow NIH's own label file; CheXpert's get label
files of the same shape. Each step runs at 1/16, 1/4 and the whole of both, in its own process. The
sizes take turns, so that a machine that is slower for a while slows all of them; each step except
drawing and training runs three times, and the quickest counts. Images and runs are deleted at the
end. With --folder DIR the measurements stay there, and the same command resumes with the dataset
that is missing.
"""

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

import bench
from bench import nih_phantoms
from data import DataError
from data.datasets import DATASETS
from data.phantom import drawing
from evaluation import metrics
from reproduce import asadi2025, mo2019
from reproduce.engine import backend, dataset, runs, search
from reproduce.engine.options import parse
from reproduce.engine.train import train_table
from reproduce.report import page
from reproduce.tables import asadi2025 as asadi2025_tables
from reproduce.tables import scoring

PIXELS = 64  # per side, drawn and trained
CHEXPERT_IMAGES = 223_414  # the size of its training set; here of all three sets together
SHARES = (16, 4, 1)  # 1/16, 1/4 and the whole of a dataset
QUICK = (200, 800)  # images
SLACK = 1.15  # growth is faster than linear if a step takes this many times the linear time
SECONDS = 0.5  # and also this much longer; less is noise
KB_PER_IMAGE = 8  # bound for labels, targets, names and predictions; images stay on the disk
TURNS = 3  # of each step that is not in ONCE; the first may have to read its files from the disk
POLL = 0.02  # seconds between two readings of a step's memory


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
    """The time and memory of a step."""

    seconds: float
    cpu: float  # seconds of all its processes
    megabytes: float  # peak, without files in the kernel's cache

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.cpu:.1f} s, {self.megabytes:.0f} MB"


Costs = dict[int, dict[str, Cost]]  # images -> step -> cost
Measured = dict[str, Costs]  # by dataset


# Steps: each prepares what it needs and returns the function that is measured.


class Stage(NamedTuple):
    """A dataset drawn at one size, and the folder that its steps share."""

    rehearsed: Rehearsed
    folder: Path  # of everything that is deleted afterwards
    images: int
    released: Path | None  # the folder with NIH's label file

    @property
    def data_folder(self) -> Path:
        return self.folder / "drawn"

    def settings(self):
        """Return (Config, options) of the paper's script, parsed from flags."""
        released = self.data_folder
        if self.rehearsed.name == "chexpert":
            released = released / DATASETS["chexpert"].phantom_folder
        words = ["--data-dir", released, "--preset", "demo", "--size", PIXELS, "--epochs", 1]
        words += ["--rows", self.rehearsed.row, "--device", "cpu"]
        words += ["--results-dir", self.folder / "results", "--cache-dir", self.folder / "cache"]
        sys.argv = [self.rehearsed.script, *map(str, words)]
        paper = self.rehearsed.paper
        return parse(paper.Config, paper.DEMO, __doc__, [self.rehearsed.name])

    def reader_options(self, config) -> dict:
        return {"labels": config.labels} if self.rehearsed.name == "chexpert" else {}

    def load(self, config, options):
        """Load the data as the script does."""
        paper = self.rehearsed.paper
        more = {"phantoms": 0, "resize": PIXELS, **self.reader_options(config)}
        return dataset.load(options, config, paper.split, **more)

    def train(self, config, options, data):
        """Train the row, unless it is finished; return the runs."""
        table = search.table(self.rehearsed.paper.rows, config, options)
        return train_table(self.rehearsed.script, table, config, data, options)

    def finished(self):
        """Return the data, the runs that an earlier step trained, and the options."""
        config, options = self.settings()
        data = self.load(config, options)
        return data, self.train(config, options, data), options


def draw(stage: Stage) -> Callable:
    if stage.rehearsed.name == "chexpert":
        return lambda: drawing.write("chexpert", stage.data_folder, stage.images, PIXELS, seed=0)
    assert stage.released is not None
    released = stage.released
    return lambda: nih_phantoms.draw(stage.data_folder, stage.images, PIXELS, released)


def read(stage: Stage) -> Callable:
    config, options = stage.settings()
    return lambda: dataset.read(options, PIXELS, 0, PIXELS, **stage.reader_options(config))


def prepare(stage: Stage) -> Callable:
    config, options = stage.settings()
    shutil.rmtree(stage.folder / "cache", ignore_errors=True)  # from an earlier turn
    released = dataset.read(options, PIXELS, 0, PIXELS, **stage.reader_options(config))
    frame, reason = stage.rehearsed.paper.split(released, config)
    return lambda: dataset.decode(options, frame, released.attrs, reason, PIXELS, None)


def epoch(stage: Stage) -> Callable:
    config, options = stage.settings()
    data = stage.load(config, options)
    backend.start("cpu")
    return lambda: stage.train(config, options, data)


def evaluate(stage: Stage) -> Callable:
    _, trained, options = stage.finished()
    return lambda: scoring.score(trained, stage.rehearsed.groups, options.resamples)


def tables(stage: Stage) -> Callable:
    data, trained, options = stage.finished()
    scored = scoring.score(trained, stage.rehearsed.groups, options.resamples)
    folder = runs.paper_folder(stage.rehearsed.script, options, data)
    failed = runs.failed_rows(trained)
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


# Measuring.


def measure(step: Callable, stage: Stage) -> Cost:
    """Return a step's cost in a forked process, which has imported all but the backend."""
    context = get_context("fork")
    answers, answer = context.Pipe(duplex=False)
    log = stage.folder / "log.txt"
    child = context.Process(target=_in_child, args=(step, stage, log, answer))
    child.start()
    answer.close()
    try:
        cost = answers.recv()
    except EOFError:
        cost = "its process was killed, perhaps for lack of memory"
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
    """Return the MB of this process and its children, without mapped files."""
    pids, total = [os.getpid()], 0.0
    for pid in pids:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
            total += bench.megabytes("RssAnon", pid)
        except OSError:  # it has ended meanwhile
            continue
    return total


def rehearse(stages: Sequence[Stage], folder: Path, turns: int) -> Costs:
    """Run every step on every size of a dataset in turn, and delete the files that they made."""
    costs: Costs = {stage.images: {} for stage in stages}
    shutil.rmtree(folder, ignore_errors=True)  # left by a command that was killed
    try:
        for stage in stages:
            stage.folder.mkdir(parents=True)
        for name, step in STEPS.items():
            for stage in [*stages] * (1 if name in ONCE else turns):
                cost, known = measure(step, stage), costs[stage.images].get(name)
                costs[stage.images][name] = cost if known is None else least(cost, known)
                title = f"{stage.rehearsed.name}, {stage.images:,} images, {name}"
                print(f"{title}: {cost}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return costs


def least(one: Cost, other: Cost) -> Cost:
    """Return the quicker of two turns with the larger memory."""
    return min(one, other, key=lambda cost: cost.cpu)._replace(
        megabytes=max(one.megabytes, other.megabytes)
    )


def grows_faster(costs: Costs, step: str) -> bool:
    """Return True if CPU time grows faster than linearly between the two largest sizes."""
    if len(costs) < 2:
        return False
    few, many = sorted(costs)[-2:]
    linear = costs[few][step].cpu * many / few
    return costs[many][step].cpu > max(SLACK * linear, linear + SECONDS)


def kilobytes_per_image(costs: Costs, step: str) -> float:
    """Return how much memory a step needs per further image, from the smallest to the largest."""
    few, many = min(costs), max(costs)
    if few == many:
        return float("nan")
    grown = costs[many][step].megabytes - costs[few][step].megabytes
    return max(0.0, 1024 * grown / (many - few))


def table(measured: Measured) -> str:
    """Return the section of docs/performance.md."""
    parts = [
        f"{bench.machine()}. Each cell: seconds, CPU seconds, peak memory without cached files; "
        f"except for drawing and training, the quickest of up to {TURNS} turns.",
        f"Bounds: no step grows faster than linearly; memory grows by at most {KB_PER_IMAGE} KB "
        "per image.",
    ]
    for name, costs in measured.items():
        sizes = sorted(costs)
        rows = []
        for step in STEPS:
            growth, memory = "–", "–"
            if len(sizes) > 1:
                faster, kilobytes = grows_faster(costs, step), kilobytes_per_image(costs, step)
                growth = "**faster than linear**" if faster else "linear or less"
                memory = f"{kilobytes:.1f}" if kilobytes <= KB_PER_IMAGE else f"**{kilobytes:.1f}**"
            rows.append([step, *(str(costs[size][step]) for size in sizes), growth, memory])
        heading = [name, *(f"{size:,} images" for size in sizes), "CPU growth", "KB per image"]
        parts.append(bench.table(heading, rows, f"l{'r' * len(sizes)}lr"))
    return "\n\n".join([*parts, conclusion(measured)])


def conclusion(measured: Measured) -> str:
    """Return a sentence that names the steps beyond the bounds."""
    pairs = [(name, step) for name, costs in measured.items() if len(costs) > 1 for step in STEPS]
    if not pairs:
        return "One size alone says nothing about growth."
    slow, large = [], []
    for name, step in pairs:
        if grows_faster(measured[name], step):
            slow.append(f"{step} ({name})")
        if kilobytes_per_image(measured[name], step) > KB_PER_IMAGE:
            large.append(f"{step} ({name})")
    return (
        f"Faster than linear: {', '.join(slow) or 'none'}. "
        f"More memory per image than the bound: {', '.join(large) or 'none'}."
    )


def _known(path: Path) -> Measured:
    """Return the measurements that an earlier command left in a file."""
    datasets = json.loads(path.read_text()) if path.exists() else {}
    measured: Measured = {}
    for name, sizes in datasets.items():
        measured[name] = {}
        for images, costs in sizes.items():
            measured[name][int(images)] = {step: Cost(*cost) for step, cost in costs.items()}
    return measured


def sizes_of(rehearsed: Rehearsed, released: Path | None, quick: bool) -> list[int]:
    """Return the sizes at which a dataset is rehearsed, or none if NIH's label file is missing."""
    total = CHEXPERT_IMAGES
    if rehearsed.name == "chestxray14":
        if released is None:
            print("ChestX-ray14 is left out: give NIH's label file with --labels.", file=sys.stderr)
            return []
        total = len(nih_phantoms.rows(released))
    if quick:
        return [min(size, total) for size in QUICK]
    return [total // share for share in SHARES]


def main() -> None:
    parser = bench.parser(__doc__, quick=f"{QUICK[0]} and {QUICK[1]} images")
    add = parser.add_argument
    add("--labels", type=Path, metavar="DIR", help="NIH's label file and lists; default: no NIH")
    add("--datasets", nargs="+", choices=[each.name for each in REHEARSED])
    add("--folder", type=Path, help="for temporary files, and for measurements, which stay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measured = _known(folder / "measured.json")
        for rehearsed in REHEARSED:
            if options.datasets and rehearsed.name not in options.datasets:
                continue
            sizes = sizes_of(rehearsed, options.labels, options.quick)
            if measured.get(rehearsed.name, {}).keys() >= {*sizes}:
                continue
            scratch = folder / "under-way"
            stages = [Stage(rehearsed, scratch / str(n), n, options.labels) for n in sizes]
            measured[rehearsed.name] = rehearse(stages, scratch, 1 if options.quick else TURNS)
            (folder / "measured.json").write_text(json.dumps(measured))
    bench.publish("rehearsal", table(measured), options.write)


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"{error}")
