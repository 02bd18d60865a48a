"""Training on one GPU: ours on JAX and on TensorFlow against PyTorch with torch.compile.

    python -m bench.gpu --write --torch PYTHON     PYTHON is an interpreter with PyTorch and timm
    python -m bench.gpu --quick                    the same way through it, small and on a processor

Every way trains in a process of its own, timed by bench.train. What has no GPU, or no framework,
to be measured with stands as "not measured" in the table.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench import machine, publish
from bench.spread import finished, script, unequal
from bench.train import Way, Worker

NETWORKS = {"densenet121": 128, "resnet50": 128, "nasnetlarge": 64}  # and images a batch
PRECISIONS = ("float32", "tf32", "bfloat16")
PARTS = ("networks", "input", "epoch", "gather", "deterministic")
MISSING = "not measured"


class Plan(NamedTuple):
    """What is measured, and how large."""

    device: str  # "gpu"; "cpu" for --quick; "" where there is no GPU
    networks: dict[str, int]
    precisions: tuple[str, ...]
    size: int
    matrix: int  # a side of those that are multiplied
    turns: int
    steps: int
    phantoms: int
    flags: tuple[str, ...]  # of chen2019, for an epoch of phantoms


FULL = Plan(
    "gpu", NETWORKS, PRECISIONS, size=224, matrix=16384, turns=3, steps=32, phantoms=20_000,
    flags=("--preset", "paper"),
)  # fmt: skip
SMALL = ("--size", "32", "--batch-size", "16")
QUICK = Plan(
    "cpu", {"tiny": 8}, ("float32",), size=32, matrix=256, turns=1, steps=2, phantoms=120,
    flags=SMALL,
)  # fmt: skip


def gpu() -> str:
    """The name of the first GPU; empty where there is none."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
        )
    except OSError:
        return ""
    return "" if listed.returncode else listed.stdout.partition("\n")[0]


def seconds_of_steps(plan: Plan, ways: dict[str, tuple[Way, str]]) -> dict[str, float]:
    """Median seconds of a step of every way (and its Python) that runs here.

    One after another: a GPU's memory may not hold two of them.
    """
    medians = {}
    for name, (way, python) in ways.items():
        try:
            worker = Worker(way, python)
            for _ in range(plan.turns + 1):  # the first does not count
                worker.take(plan.steps)
            worker.close()
        except (RuntimeError, OSError) as problem:
            print(f"  {name}: {problem}", file=sys.stderr)
            continue
        medians[name] = statistics.median(worker.seconds[1:])
        title = f"{way.backbone} {way.precision}, {name}"
        print(f"  {title}: {1e3 * medians[name]:.1f} ms", file=sys.stderr)
    return medians


def own_process(part: str, *arguments: str, backend: str = "tensorflow", device: str = "cpu"):
    """What a function of IN_A_PROCESS returns, in a process that may open the GPU."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--part", part, device, *arguments],
        env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{part} on {backend} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def multiply_adds(model) -> int:
    """Of one image in the convolutions and matrix products of a Keras network."""
    count = 0
    for layer in model.layers:
        places = int(np.prod(layer.output.shape[1:-1])) if layer.weights else 0  # 1 after pooling
        kernels = [weight.shape for weight in layer.weights if len(weight.shape) > 1]
        count += places * sum(int(np.prod(shape)) for shape in kernels)
    return count


def count_multiply_adds(backbone: str, size: str) -> int:
    from models import classifier

    return multiply_adds(classifier.build(backbone, 14, int(size), fast=False))


def gather_error() -> float:
    """Largest error of the exact HLUP loss's gradient, of the largest true one; 50 digits."""
    import keras

    from bench.losses import batch, exact_terms
    from data import label_tree
    from losses.hierarchical import hlup

    tree = label_tree.PLCO
    ancestors = label_tree.ancestor_matrix(tree)
    targets, logits = batch(tree, 32, spread=20)
    true = exact_terms(targets, logits, ancestors)[1].sum(1)

    def loss(logits):
        return keras.ops.sum(hlup(targets, logits, ancestors, sums="gather"))

    if keras.backend.backend() == "jax":
        import jax

        ours = jax.jit(jax.grad(loss))(logits)
    else:
        import tensorflow as tf

        at = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = loss(at)
        ours = tape.gradient(value, at)
    return float(np.abs(np.asarray(ours) - true).max() / np.abs(true).max())


IN_A_PROCESS: dict[str, Callable] = {"multiply_adds": count_multiply_adds, "gather": gather_error}


def table_of_networks(plan: Plan, torch_python: str, images: Path | None) -> list[str]:
    """Images a second of every network and precision, ours against PyTorch's."""
    lines = [
        "| network, precision | JAX | TensorFlow | PyTorch, compiled | ours / PyTorch | share of a "
        "matrix product's FLOP/s | JAX with the input pipeline | goal |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for backbone, batch in plan.networks.items():
        for precision in plan.precisions:
            title = f"{backbone}, {precision}"
            cells = [MISSING] * 6
            if plan.device:
                cells = cells_of(plan, backbone, batch, precision, torch_python, str(images))
            lines.append(f"| {' | '.join([title, *cells, '≥ 1.0× PyTorch'])} |")
    return lines


def cells_of(
    plan: Plan, backbone: str, batch: int, precision: str, torch_python: str, images: str
) -> list[str]:
    """The figures of one network in one precision."""
    way = Way(
        "fast", backbone, plan.size, batch, precision, backend="tensorflow", device=plan.device
    )
    on_jax = dataclasses.replace(way, backend="jax")
    product = dataclasses.replace(on_jax, how="matmul", size=plan.matrix)
    ways = {"TensorFlow": (way, sys.executable)}
    if importlib.util.find_spec("jax"):
        ways["JAX"] = (on_jax, sys.executable)
        ways["product"] = (product, sys.executable)
        ways["fed"] = (dataclasses.replace(on_jax, images=images), sys.executable)
    if torch_python and backbone in NETWORKS:
        ways["PyTorch"] = (dataclasses.replace(way, how="torch"), torch_python)
    seconds = seconds_of_steps(plan, ways)
    rate = {name: batch / each for name, each in seconds.items()}
    shown = {name: f"{each:,.0f}" for name, each in rate.items()}
    ours = max(rate.get("JAX", 0), rate.get("TensorFlow", 0))
    if "PyTorch" in rate and ours:
        shown["ratio"] = f"{ours / rate['PyTorch']:.2f}×"
    if "product" in seconds and ours:
        peak = 2 * plan.matrix**3 / seconds["product"]
        counted = own_process("multiply_adds", backbone, str(plan.size))
        # a step is the forward pass, and twice as much again for its two gradients
        shown["share"] = f"{3 * 2 * counted * ours / peak:.0%}"
    columns = ("JAX", "TensorFlow", "PyTorch", "ratio", "share", "fed")
    return [shown.get(column, MISSING) for column in columns]


def prepared_phantoms(plan: Plan, folder: Path) -> Path:
    """A cache of phantoms, a little larger than what is cut out of them."""
    from data import plco, prepare
    from data.phantom import drawing

    count = max(64, plan.phantoms // 10)
    drawn = drawing.write("plco", folder / "plco", count, max(plan.size, 64) + 32, seed=0)
    return prepare.prepare(
        drawn, plco.read(drawn)["image_path"], folder / "images", plan.size * 8 // 7
    )


def input_row(plan: Plan, images: Path | None) -> str:
    """Batches drawn alone, against what the fastest network of the table takes."""
    goal = "≥ 3×"
    if not plan.device:
        return f"| input pipeline alone, images/s | {MISSING} | | {goal} |"
    backbone, batch = next(iter(plan.networks.items()))
    way = Way("input", backbone, plan.size, batch, images=str(images))
    backend = "jax" if importlib.util.find_spec("jax") else "tensorflow"
    precision = plan.precisions[-1]
    step = Way("fast", backbone, plan.size, batch, precision, backend=backend, device=plan.device)
    seconds = seconds_of_steps(
        plan, {"input": (way, sys.executable), "step": (step, sys.executable)}
    )
    taken = f"{seconds['step'] / seconds['input']:.1f}× what {backbone} takes in {precision}"
    return (
        f"| input pipeline alone, images/s | {batch / seconds['input']:,.0f} | {taken} | {goal} |"
    )


def run_of_chen2019(plan: Plan, at: Path, name: str, *flags: str) -> Path:
    """A row of chen2019 trained on phantoms by its own command; the folder of its results."""
    command = ["--rows", "BR-all", "--weights", "none", "--resamples", "20", *plan.flags]
    device = ["--device", plan.device]
    log = at / f"{name}.log"
    finished(script([*command, *device, *flags], at / name, at / "cache", log), log)
    return at / name


def epoch_row(plan: Plan, at: Path) -> str:
    """The second epoch of a row, validation and files included."""
    title = f"an epoch of {plan.phantoms:,} phantoms, end to end (chen2019, BR-all)"
    if not plan.device:
        return f"| {title} | {MISSING} | | |"
    flags = ["--epochs", "2", "--phantoms", str(plan.phantoms)]
    folder = run_of_chen2019(plan, at, "epoch", *flags)
    history = pd.read_csv(next(folder.rglob("history.csv")))
    first, second = history["seconds"]
    return f"| {title} | {second:.1f} s | the first, with compiling: {first:.1f} s | |"


def gather_row(plan: Plan, backend: str) -> str:
    """The sums along paths that must not be rounded to TF32."""
    title = f"exact HLUP by `gather` on {backend}: gradient's largest error"
    if not plan.device or not importlib.util.find_spec(backend):
        return f"| {title} | {MISSING} | | ≤ 1e-6 |"
    error = own_process("gather", backend=backend, device=plan.device)
    return f"| {title} | {error:.1e} | of the largest, in 50 digits | ≤ 1e-6 |"


def deterministic_row(plan: Plan, at: Path) -> str:
    """The same row twice."""
    title = "`--deterministic` twice"
    if not plan.device:
        return f"| {title} | {MISSING} | | equal bytes |"
    flags = ["--deterministic", "--epochs", "2", "--phantoms", str(min(plan.phantoms, 600))]
    one, other = (run_of_chen2019(plan, at, name, *flags) for name in ("one", "other"))
    count, wrong = unequal(one, other)
    return f"| {title} | {len(wrong)} of {count} files differ | | equal bytes |"


def measure(plan: Plan, parts: list[str], torch_python: str) -> list[str]:
    """The section of docs/performance.md, without its first line."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        drawn = plan.device and {"networks", "input"} & {*parts}
        images = prepared_phantoms(plan, at) if drawn else None
        if "networks" in parts:
            lines += [*table_of_networks(plan, torch_python, images), ""]
        rows = []
        if "input" in parts:
            rows.append(input_row(plan, images))
        if "epoch" in parts:
            rows.append(epoch_row(plan, at))
        if "gather" in parts:
            rows += [gather_row(plan, backend) for backend in ("jax", "tensorflow")]
        if "deterministic" in parts:
            rows.append(deterministic_row(plan, at))
    return [*lines, "| | measured | against | goal |", "|---|---|---|---|", *rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small, on a processor: a smoke run")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter with PyTorch and timm")
    parser.add_argument("--write", action="store_true", help="put the table in the documentation")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        from reproduce.engine import backend

        part, device, *arguments = options.part
        backend.start(device)
        print(json.dumps(IN_A_PROCESS[part](*arguments)))
        return
    name = gpu()
    plan = QUICK if options.quick else FULL if name else FULL._replace(device="")
    where = f"{name or 'No GPU'}; {machine()}"
    if options.quick:
        where = f"On the processor, small (--quick): {machine()}"
    torch_python = options.torch or (sys.executable if importlib.util.find_spec("torch") else "")
    heading = (
        f"{where}. Images a second in training, {plan.size} px, medians of {plan.turns} turns."
    )
    publish(
        "gpu", "\n".join([heading, "", *measure(plan, options.only, torch_python)]), options.write
    )


if __name__ == "__main__":
    main()
