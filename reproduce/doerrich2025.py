"""Rethinking model prototyping through the MedMNIST+ dataset collection.

Doerrich, Di Salvo, Brockmann, Ledig. Scientific Reports 2025. https://doi.org/10.1038/s41598-025-92156-9
The convolutional networks of its ChestMNIST table, and ResNets of Yang et al. 2023 (MedMNIST v2).

    bash reproduce/doerrich2025.sh                              on phantoms, minutes on a laptop
    bash reproduce/doerrich2025.sh --download --sizes 28 --rows "DenseNet-121 probed 28 px"
    bash reproduce/doerrich2025.sh --download                   all 26 rows, up to 80 GPU hours *
    * estimated: 2600 epochs of 78,468 images, 1400 of them through a network at 400 a second.

ChestMNIST is all of ChestX-ray14 with a public test set, so our numbers can be compared with the
printed ones to the digit: same images, labels and split. Each network is trained end to end, or its
last layer alone ("probed") on features that are computed once.

Deviations, each explained in docs/papers/doerrich2025.md:
1. The ImageNet weights are Keras' and torchvision's; the paper's are timm's.
2. In probing, BatchNormalization keeps ImageNet's statistics; in the authors' code they adapt.
3. The text puts smaller images on black; the authors' code, and ours, on the mean gray.
4. Yang's weights are initialised as He et al. do, not as PyTorch does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from data import chestmnist, labels, splits
from reproduce import RunError
from reproduce.engine import dataset, runs, schedules, search
from reproduce.engine.options import (
    Backbone,
    BatchSize,
    Count,
    Options,
    Pixels,
    Precision,
    Rate,
    Weight,
    one_sentence,
    parse,
)
from reproduce.engine.rows import (
    Combined,
    Data,
    Fit,
    Network,
    Row,
    Run,
    Targets,
    Task,
    bce,
    lowest_loss,
    plain,
)
from reproduce.engine.train import train_table
from reproduce.tables import row_details, scoring

ON = ("chestmnist",)


@dataclass(frozen=True)
class Yang:
    """The settings of Yang et al. 2023, github.com/MedMNIST/experiments."""

    small_resnet18: Backbone = "resnet18_cifar"  # Yang, models.py: for 28 px
    small_resnet50: Backbone = "resnet50_cifar"  # Yang, models.py: for 28 px
    small_batch_size: BatchSize = 128  # Yang §3.1
    small_learning_rate: Rate = 1e-3  # Yang §3.1, Adam; times 0.1 after 50 and 75 epochs


@dataclass(frozen=True)
class Config(Yang):
    vgg: Backbone = "vgg16_hidden"  # timm's vgg16, with its two layers of 4,096 units
    resnet: Backbone = "resnet18"  # Methods
    densenet: Backbone = "densenet121"  # Methods
    weights: str = "imagenet"  # Methods
    sizes: str = "28,64,128,224"  # Methods: pixels of the images
    size: Pixels = 224  # Methods: of the square in which smaller images stand
    batch_size: BatchSize = 64  # Methods
    epochs: Count = 100  # Methods
    learning_rate: Rate = 1e-4  # Methods, AdamW; along a cosine
    weight_decay: Weight = 0.01  # unstated; the default of the authors' AdamW
    patience: Count = 5  # Methods: epochs without a lower validation loss
    precision: Precision = "float32"  # unstated; ours


DEMO = {"vgg": "tiny_plain", "resnet": "tiny_residual", "densenet": "tiny", "weights": "none",
        "small_resnet18": "tiny_residual", "small_resnet50": "tiny_residual_deep",
        "sizes": "28", "size": 32, "epochs": 6, "learning_rate": 4e-3}  # fmt: skip


def split(frame: pd.DataFrame, config: Config) -> tuple[pd.DataFrame, str]:
    """Return the frame with its sets, and why results cannot be compared with published ones."""
    return splits.chexnet(frame), ""  # as released


def targets(frame: pd.DataFrame) -> Targets:
    """Return the released labels, which are both learnt and scored."""
    released = frame[list(labels.CHESTXRAY14)].to_numpy(np.float32)
    return Targets(learnt=released, truth=released)


def sizes_of(config: Config) -> list[int]:
    """Return the pixels of the images to run on; raise a RunError for others than ChestMNIST's."""
    given = [text.strip() for text in config.sizes.split(",")]
    known = [str(pixels) for pixels in chestmnist.FILES]
    if not {*given} <= {*known} or len({*given}) < len(given):
        raise RunError(f"--sizes {config.sizes}: give some of {','.join(known)}, each once.")
    return [int(text) for text in given]


def rows(config: Config, dataset: str) -> list[Row]:
    """Return three networks, end to end and probed, at every size; and Yang's two at 28 px."""
    task, loss = Task(labels.CHESTXRAY14, targets), partial(bce, labels="mean")
    fit = Fit(
        config.epochs,
        schedules.Cosine(config.learning_rate, config.epochs),
        config.batch_size,
        select=lowest_loss,
        stop=schedules.Patience(config.patience),
        weight_decay=config.weight_decay,
    )
    probing = replace(fit, head_only=True, features_once=True)
    steps = schedules.Milestones(config.small_learning_rate, 0.1, after=(50, 75))
    small_fit = Fit(config.epochs, steps, config.small_batch_size)
    framed = partial(plain, frame=config.size)
    backbones = {
        "VGG16": config.vgg,
        "ResNet-18": config.resnet,
        "DenseNet-121": config.densenet,
    }
    table = []
    for size in sizes_of(config):
        for name, backbone in backbones.items():
            network = Network(backbone, size, config.weights, config.precision, framed)
            table.append(Row(f"{name} {size} px", task, loss, fit, network))
            table.append(Row(f"{name} probed {size} px", task, loss, probing, network))
        if size == 28:
            small = {"ResNet-18": config.small_resnet18, "ResNet-50": config.small_resnet50}
            for name, backbone in small.items():
                network = Network(backbone, size, "none", config.precision)
                table.append(Row(f"{name} 28 px (Yang)", task, loss, small_fit, network))
    return table


def train(
    table: Sequence[Row | Combined], size: int, config: Config, options: Options
) -> tuple[list[Run], Data] | None:
    """Train the rows on images of one size; return None if no file with that size is there."""
    ours = [row for row in table if isinstance(row, Row) and row.network.size == size]
    if not ours:
        return None
    if options.data_dir and not options.download:
        present = chestmnist.present(options.data_dir)
        if size not in present:
            shown = ", ".join(map(str, present)) or "no"
            print(f"{options.data_dir} has {shown} px, not {size}: its rows are not run.")
            return None
    data = dataset.load(options, config, split, ours, phantoms=4000, resize=size)
    return train_table("doerrich2025", ours, config, data, options), data


def main() -> None:
    config, options = parse(Config, DEMO, __doc__, ON)
    table, sizes = search.table(rows, config, options), sizes_of(config)
    if len(sizes) > 1 and (options.on == "ray" or options.only_train):
        raise RunError("--on ray trains rows of one image size: give one, such as --sizes 64.")
    done = [result for size in sizes if (result := train(table, size, config, options))]
    if not done:
        raise RunError(f"There are no images of {config.sizes} px: add --download.")
    trained = [run for of_size, _ in done for run in of_size]
    data = next((data for _, data in done if data.not_comparable), done[0][1])
    scored = scoring.score(trained, scoring.labels_and_mean, options.resamples)
    folder, failed = runs.paper_folder("doerrich2025", options, data), runs.failed_rows(trained)
    scoring.write("doerrich2025", folder, scored, data, failed=failed)
    row_details.write(folder, trained, data, options)
    runs.finish(trained)


if __name__ == "__main__":
    with one_sentence():
        main()
