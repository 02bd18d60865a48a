"""Time training on one GPU: ours on JAX and on TensorFlow against PyTorch with torch.compile.

    python -m bench.gpu --write --torch PYTHON     PYTHON is an interpreter with PyTorch and timm
    python -m bench.gpu --quick                    the same steps, small and on the processor

Each method trains in its own process, timed by bench.train. The table says "not measured" where
a framework is missing.
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

import bench
from bench.spread import finished, script, unequal
from bench.train import Way, Worker

NETWORKS = {"densenet121": 128, "resnet50": 128, "nasnetlarge": 64}  # network -> images per batch
PRECISIONS = ("float32", "tf32", "bfloat16")
PARTS = ("networks", "input", "epoch", "gather", "deterministic")
MISSING = "not measured"


class Plan(NamedTuple):
    """The size of each measurement."""

    device: str  # "gpu"; "cpu" for --quick
    networks: dict[str, int]
    precisions: tuple[str, ...]
    size: int
    matrix: int  # rows and columns of the multiplied matrices
    turns: int
    steps: int
    phantoms: int
    flags: tuple[str, ...]  # of chen2019, for one epoch of phantoms


FULL = Plan(
    device="gpu",
    networks=NETWORKS,
    precisions=PRECISIONS,
    size=224,
    matrix=16384,
    turns=3,
    steps=32,
    phantoms=20_000,
    flags=("--preset", "paper"),
)
QUICK = Plan(
    device="cpu",
    networks={"tiny": 8},
    precisions=("float32",),
    size=32,
    matrix=256,
    turns=1,
    steps=2,
    phantoms=120,
    flags=("--size", "32", "--batch-size", "16"),
)


def gpu() -> str:
    """Return the name of the first GPU, or an empty string if there is none."""
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
    """Return the median seconds per step of each method (with its Python) that runs here.

    They run one after another, because a GPU's memory may be too small for two.
    """
    medians = {}
    for name, (way, python) in ways.items():
        try:
            worker = Worker(way, python)
            for _ in range(plan.turns + 1):  # the first turn warms up
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
    """Call a function of IN_A_PROCESS in a new process, which may open the GPU."""
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
    """Return the multiply-adds of one image in convolutions and matrix products of a network."""
    count = 0
    for layer in model.layers:
        places = int(np.prod(layer.output.shape[1:-1])) if layer.weights else 0  # 1 after pooling
        kernels = [weight.shape for weight in layer.weights if len(weight.shape) > 1]
        count += places * sum(int(np.prod(shape)) for shape in kernels)
    return count


def count_multiply_adds(backbone: str, size: str) -> int:
    from models import classifier

    return multiply_adds(classifier.build(backbone, 14, int(size), fast=False))


def hlup_gradient(targets: np.ndarray, logits: np.ndarray, ancestors: np.ndarray) -> np.ndarray:
    """Return the gradient of HLUP's sum over labels in float64 (docs/losses.md)."""
    exp = np.exp(-logits.astype(float))
    s = np.log1p(exp) @ ancestors.T
    return (((1 - targets) / np.expm1(s) - targets) @ ancestors) * exp / (1 + exp)


def gather_error() -> float:
    """Return the largest error of the exact HLUP gradient, relative to its largest true value."""
    import keras

    from data import label_tree
    from losses.hierarchical import hlup

    ancestors = label_tree.ancestor_matrix(label_tree.PLCO)
    generator = np.random.default_rng(0)
    logits = generator.uniform(-20, 20, (32, len(ancestors))).astype(np.float32)
    logits[:3] = np.abs(logits[:3])  # some images with large logits only
    closed = label_tree.close(generator.random(logits.shape) < 0.05, label_tree.PLCO)
    targets = closed.astype(np.float32)
    true = hlup_gradient(targets, logits, ancestors)

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


def table_of_networks(plan: Plan, torch_python: str, images: Path | None) -> str:
    """Return the images per second of each network and precision, ours and PyTorch's."""
    heading = [
        "network, precision",
        "JAX",
        "TensorFlow",
        "PyTorch, compiled",
        "ours / PyTorch",
        "share of a matrix product's FLOP/s",
        "JAX with the input pipeline",
        "goal",
    ]
    rows = []
    for backbone, batch in plan.networks.items():
        for precision in plan.precisions:
            cells = cells_of(plan, backbone, batch, precision, torch_python, str(images))
            rows.append([f"{backbone}, {precision}", *cells, "≥ 1.0× PyTorch"])
    return bench.table(heading, rows, "lrrrrrrl")


def cells_of(
    plan: Plan, backbone: str, batch: int, precision: str, torch_python: str, images: str
) -> list[str]:
    """Return the figures of one network in one precision."""
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
        # one step is the forward pass, and twice as much for its two gradients
        shown["share"] = f"{3 * 2 * counted * ours / peak:.0%}"
    columns = ("JAX", "TensorFlow", "PyTorch", "ratio", "share", "fed")
    return [shown.get(column, MISSING) for column in columns]


def prepared_phantoms(plan: Plan, folder: Path) -> Path:
    """Prepare a cache of phantoms, a little larger than the crops."""
    from data import plco, prepare
    from data.phantom import drawing

    count = max(64, plan.phantoms // 10)
    drawn = drawing.write("plco", folder / "plco", count, max(plan.size, 64) + 32, seed=0)
    return prepare.prepare(
        drawn, plco.read(drawn)["image_path"], folder / "images", plan.size * 8 // 7
    )


def input_row(plan: Plan, images: Path | None) -> list[str]:
    """Compare the rate of batches drawn alone with that of the first network."""
    title, goal = "input pipeline alone, images/s", "≥ 3×"
    backbone, batch = next(iter(plan.networks.items()))
    way = Way("input", backbone, plan.size, batch, images=str(images))
    backend = "jax" if importlib.util.find_spec("jax") else "tensorflow"
    precision = plan.precisions[-1]
    step = Way("fast", backbone, plan.size, batch, precision, backend=backend, device=plan.device)
    seconds = seconds_of_steps(
        plan, {"input": (way, sys.executable), "step": (step, sys.executable)}
    )
    factor = seconds["step"] / seconds["input"]
    against = f"{factor:.1f}× what {backbone} takes in {precision}"
    return [title, f"{batch / seconds['input']:,.0f}", against, goal]


def run_of_chen2019(plan: Plan, folder: Path, name: str, *flags: str) -> Path:
    """Train a row of chen2019 on phantoms by its command; return the folder of its results."""
    command = ["--rows", "BR-all", "--weights", "none", "--resamples", "20", *plan.flags]
    command += ["--device", plan.device, *flags]
    log = folder / f"{name}.log"
    finished(script(command, folder / name, folder / "cache", log), log)
    return folder / name


def epoch_row(plan: Plan, folder: Path) -> list[str]:
    """Time the second epoch of a row, validation and files included."""
    title = f"an epoch of {plan.phantoms:,} phantoms, end to end (chen2019, BR-all)"
    flags = ["--epochs", "2", "--phantoms", str(plan.phantoms)]
    results = run_of_chen2019(plan, folder, "epoch", *flags)
    first, second = pd.read_csv(next(results.rglob("history.csv")))["seconds"]
    return [title, f"{second:.1f} s", f"the first, with compiling: {first:.1f} s", ""]


def gather_row(plan: Plan, backend: str) -> list[str]:
    """Measure the error of sums along paths, which must not be rounded to TF32."""
    title, goal = f"exact HLUP by `gather` on {backend}: gradient's largest error", "≤ 1e-6"
    if not importlib.util.find_spec(backend):
        return [title, MISSING, "", goal]
    error = own_process("gather", backend=backend, device=plan.device)
    return [title, f"{error:.1e}", "of the largest, in float64", goal]


def deterministic_row(plan: Plan, folder: Path) -> list[str]:
    """Train the same row twice and compare the predictions."""
    title, goal = "`--deterministic` twice", "equal bytes"
    flags = ["--deterministic", "--epochs", "2", "--phantoms", str(min(plan.phantoms, 600))]
    one, other = (run_of_chen2019(plan, folder, name, *flags) for name in ("one", "other"))
    count, wrong = unequal(one, other)
    return [title, f"{len(wrong)} of {count} files differ", "", goal]


def measure(plan: Plan, parts: list[str], torch_python: str) -> str:
    """Return the section of docs/performance.md without its first line."""
    tables, rows = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        needs_images = {"networks", "input"} & {*parts}
        images = prepared_phantoms(plan, folder) if needs_images else None
        if "networks" in parts:
            tables.append(table_of_networks(plan, torch_python, images))
        if "input" in parts:
            rows.append(input_row(plan, images))
        if "epoch" in parts:
            rows.append(epoch_row(plan, folder))
        if "gather" in parts:
            rows += [gather_row(plan, backend) for backend in ("jax", "tensorflow")]
        if "deterministic" in parts:
            rows.append(deterministic_row(plan, folder))
    return "\n\n".join([*tables, bench.table(["", "measured", "against", "goal"], rows)])


def main() -> None:
    parser = bench.parser(__doc__, quick="small, on the processor: a smoke run")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter with PyTorch and timm")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        from reproduce.engine import backend

        part, device, *arguments = options.part
        backend.start(device)
        print(json.dumps(IN_A_PROCESS[part](*arguments)))
        return
    name = gpu()
    if options.quick:
        plan, hardware = QUICK, f"On the processor, small (--quick): {bench.machine()}"
    elif name:
        plan, hardware = FULL, f"{name}; {bench.machine()}"
    else:
        parser.error("No GPU is visible. Use a machine with one, or --quick for the processor.")
    torch_python = options.torch or (sys.executable if importlib.util.find_spec("torch") else "")
    rate = f"Images per second in training, {plan.size} px, medians of {plan.turns} turns."
    tables = measure(plan, options.only, torch_python)
    bench.publish("gpu", f"{hardware}. {rate}\n\n{tables}", options.write)


if __name__ == "__main__":
    main()
