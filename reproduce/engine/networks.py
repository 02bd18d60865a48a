"""A row's Keras network: building, compiling and resuming it.

Keras' BackupAndRestore loses dropout seeds and the state of callbacks, so a run resumes from a
state of its own (runs.py): every variable that training changes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from models import backbones, classifier, fast
from reproduce.engine import backend, runs
from reproduce.engine.options import Options
from reproduce.engine.rows import Fit, Row, Run


def build(row: Row, fast_layers: bool) -> keras.Model:
    """Build the network of a row, with the initial weights that the row names."""
    network = row.network
    return network.build(
        backbone=network.backbone,
        labels=row.task.width,
        size=network.size,
        weights=backbones.weights_of(network.weights, network.backbone),
        precision=network.precision,
        fast=fast_layers,
    )


def compile_for(
    model: keras.Model, fit: Fit, weights: Path | None, loss: Any, options: Options
) -> None:
    """Load the weights that the row starts from, freeze what stays, and compile."""
    if weights is not None:
        classifier.load_weights(model, weights)
    if fit.head_only:
        for layer in model.layers[:-1]:
            layer.trainable = False
    adam = fast.Adam if options.fast else keras.optimizers.Adam
    model.compile(
        adam(fit.learning_rate(0, []), weight_decay=fit.weight_decay or None),
        loss,
        jit_compile=backend.jit(options.jit, options.deterministic),
        steps_per_execution=backend.steps_per_execution(options.steps_per_execution),
    )
    fast.build_optimizer(model)


def resume(model: keras.Model, run: Run[Row]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Set every variable to its value after the last whole epoch; return history and best file."""
    shapes = [tuple(variable.shape) for variable in variables(model)]
    saved, history, best = runs.load_epoch(run, shapes)
    if history:
        for variable, array in zip(variables(model), saved, strict=True):
            variable.assign(array)
        runs.say(run, f"resumes after epoch {len(history)} of {run.row.fit.epochs}")
    return history, best


def variables(model: keras.Model) -> list[Any]:
    """Return all that training changes: weights, statistics, dropout seeds, optimizer moments."""
    of_metrics = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in of_metrics]
    return [*own, *model.optimizer.variables]


def arrays(model: keras.Model) -> Iterator[np.ndarray]:
    """Yield the value of every variable that training changes."""
    return map(keras.ops.convert_to_numpy, variables(model))


def size(model: keras.Model) -> int:
    """Return the bytes of a model's weights."""
    return sum(int(np.prod(variable.shape)) * 4 for variable in model.variables)
