"""Measure rows spread by Ray: the cost of scheduling, the gain of a second core, lost hosts.

    python -m bench.spread [--only schedule demo kills] [--write]

Ray's own test cluster simulates all hosts on this machine. The demo's figure is meaningful only on
a quiet machine; the load is printed with it.
"""

import filecmp
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench
from reproduce import ROOT, pham2019
from reproduce.engine.cluster import connection, tasks
from reproduce.engine.options import Options
from reproduce.engine.rows import Combined, Row, Run, parents
from reproduce.engine.time_left import TimeLeft

EPOCH_SECONDS = {  # a third of the network's GFLOP for an image of 224 px
    "densenet121": 0.97,
    "densenet169": 1.13,
    "densenet201": 1.43,
    "xception": 1.53,
    "inceptionresnetv2": 2.17,
    "nasnetlarge": 4.0,
}
SMALL = ["--phantoms", "150", "--size", "32", "--batch-size", "16", "--resamples", "20"]
QUICK = [
    *SMALL,
    *("--epochs", "3", "--finetune-epochs", "2", "--rows", "BR-leaf", "HLUP", "HLUP-finetune"),
]


def pham_runs(folder: Path, seeds: int) -> list[Run]:
    """Return the runs of Pham et al.'s tables, parents first."""
    return [
        Run(row, seed, folder / f"{number}-{seed}", {})
        for number, row in enumerate(pham2019.rows(pham2019.Config(), "chexpert"))
        for seed in range(seeds)
    ]


def seconds_of(run: Run) -> float:
    """Return how long a run sleeps in place of training."""
    if isinstance(run.row, Combined):
        return 0.0
    return EPOCH_SECONDS[run.row.network.backbone] * max(run.row.fit.epochs, 1)


def bound(runs: list[Run], needed, workers: int) -> float:
    """Return a lower bound of any schedule: the longest chain, or all seconds spread evenly."""
    ends: dict[Path, float] = {}
    for run in runs:
        begins = max((ends[parent.folder] for parent in needed(run)), default=0.0)
        ends[run.folder] = begins + seconds_of(run)
    return max(*ends.values(), sum(map(seconds_of, runs)) / workers)


def schedule(workers: int, seeds: int) -> tuple[int, float, float]:
    """Return (runs, seconds, lower bound) of Pham's tables with rows that sleep."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = pham_runs(Path(scratch), seeds)
        by_name = {(run.row.name, run.seed): run for run in runs}

        def needed(run: Run) -> list[Run]:
            return [by_name[name, run.seed] for name in parents(run.row)]

        seconds = {(run.row.name, run.seed): seconds_of(run) for run in runs}

        def sleep(job: dict):
            import time

            time.sleep(seconds[job["row"], job["seed"]])
            return {"ended": True, "problem": ""}

        def warm_up(_job: dict):
            import time

            time.sleep(5)  # until every worker has started
            return {"ended": True, "problem": ""}

        with connection.connected("", cpus=workers) as ray:
            options = Options(
                dataset="chexpert",
                on="ray",
                address=ray.get_runtime_context().gcs_address,
                device="cpu",
                cpus_per_row=1,
                results_dir=Path(scratch),
                cache_dir=Path(scratch),
            )
            left = TimeLeft(1)
            firsts = [run for run in runs if isinstance(run.row, Row) and not needed(run)]
            many = [run._replace(seed=-number) for number, run in enumerate(firsts[:workers])]
            tasks.train_on(ray, "pham2019", many, lambda run: [], options, left, task=warm_up)
            began = time.perf_counter()
            tasks.train_on(ray, "pham2019", runs, needed, options, left, task=sleep)
            return len(runs), time.perf_counter() - began, bound(runs, needed, workers)


def script(flags: list[str], folder: Path, cache: Path, log: Path) -> subprocess.Popen:
    """Start chen2019 in a new process."""
    own = ["--results-dir", str(folder), "--cache-dir", str(cache)]
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "reproduce.chen2019", *flags, *own],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def finished(process: subprocess.Popen, log: Path) -> None:
    """Wait for chen2019; exit with the end of its log if it failed."""
    if process.wait():
        sys.exit(f"chen2019 ended with {process.returncode}:\n{log.read_text()[-3000:]}")


def unequal(one: Path, other: Path) -> tuple[int, list[str]]:
    """Return the number of prediction files, and which of them differ."""
    names = sorted(path.relative_to(one) for path in one.rglob("predictions*.npz"))
    wrong = [
        str(name)
        for name in names
        if not (other / name).exists() or not filecmp.cmp(one / name, other / name, shallow=False)
    ]
    return len(names), wrong


def trained_twice(folder: Path) -> list[str]:
    """Return the folders of runs whose log has the last epoch more than once."""
    twice = []
    for log in folder.rglob("log.txt"):
        ends = re.findall(r"  epoch (\d+/\d+)", log.read_text())
        lasts = [end for end in ends if len({*end.split("/")}) == 1]
        twice += [str(log.parent)] if len(lasts) > 1 else []
    return twice


def demo(flags: list[str]) -> tuple[float, float, int, list[str]]:
    """Return (serial seconds, seconds on Ray, prediction files, those that differ) of a demo."""
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        first = [*(SMALL if flags else []), "--rows", "BR-leaf", "--epochs", "1"]
        finished(script(first, at / "cached", at / "cache", at / "log"), at / "log")
        seconds = []
        for name, more in (("serial", []), ("ray", ["--on", "ray", "--cpus-per-row", "1"])):
            began = time.perf_counter()
            finished(script([*flags, *more], at / name, at / "cache", at / "log"), at / "log")
            seconds.append(time.perf_counter() - began)
        count, wrong = unequal(at / "serial", at / "ray")
        return seconds[0], seconds[1], count, wrong


def kills(draw: random.Random, longest_pause: float) -> tuple[int, list[str], list[str]]:
    """Kill two of four hosts; return (prediction files, those that differ, rows trained twice)."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        finished(script(QUICK, at / "serial", at / "cache", at / "log"), at / "log")
        hosts = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        nodes = [hosts.add_node(num_cpus=1) for _ in range(4)]
        hosts.wait_for_nodes()
        flags = [*QUICK, "--on", "ray", "--address", hosts.address, "--cpus-per-row", "1"]
        try:
            process = script(flags, at / "ray", at / "cache", at / "log")
            while not list((at / "ray").rglob("log.txt")):  # until rows are trained
                if process.poll() is not None:
                    break
                time.sleep(0.5)
            for node in draw.sample(nodes, 2):
                time.sleep(draw.uniform(0, longest_pause))
                hosts.remove_node(node, allow_graceful=False)
                print("  a host is killed", file=sys.stderr, flush=True)
            finished(process, at / "log")
        finally:
            hosts.shutdown()
        count, wrong = unequal(at / "serial", at / "ray")
        return count, wrong, trained_twice(at / "ray")


def main() -> None:
    parser = bench.parser(__doc__, quick="4 workers, a demo of minutes")
    parts = ("schedule", "demo", "kills")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    load = os.getloadavg()[0]
    rows = []
    if "schedule" in options.only:
        workers = 4 if options.quick else 16
        count, taken, least = schedule(workers, seeds=5)
        title = f"{count} rows that sleep, in the shape of Pham's tables, {workers} workers"
        against = f"at least {least:.1f} s: {taken / least:.3f}×"
        rows.append([title, f"{taken:.1f} s", against, "≤ 1.05×"])
    if "demo" in options.only:
        one, two, count, wrong = demo(QUICK if options.quick else [])
        against = f"{one:.0f} s serially: {two / one:.2f}×; {len(wrong)} of {count} files differ"
        title = "chen2019's demo, two workers of one core"
        rows.append([title, f"{two:.0f} s", against, "≤ 0.8×, equal bytes"])
    if "kills" in options.only:
        count, wrong, twice = kills(random.Random(0), longest_pause=20)
        measured = f"{len(wrong)} of {count} prediction files differ"
        against = f"{len(twice)} rows trained to the end twice"
        rows.append(["two of four hosts killed", measured, against, "equal bytes, none"])
    heading = f"{bench.machine()}, load {load:.1f} at the start; hosts are simulated."
    table = bench.table(["", "measured", "against", "goal"], rows)
    bench.publish("spread", f"{heading}\n\n{table}", options.write)


if __name__ == "__main__":
    main()
