"""Chest X-rays classification: a multi-label and fine-grained problem.

Ge, Mahapatra, Sedai, Garnavi, Chakravorty. 2018. Tables 1 to 3.

    bash reproduce/ge2018.sh                               on drawn phantoms, minutes on a laptop
    bash reproduce/ge2018.sh --data-dir ChestX-ray14       the paper's, about 12 GPU hours *
    * estimated: 99 epochs of 78,500 images, half of them through two networks, at 300 a second.

BL pools a network's last feature map with itself (outer products, averaged over positions). F-MSML
pools the maps of two copies of a network, each trained by a loss of its own: cross-entropy (CE) on
the first, the multi-label softmax loss (MSML) on the second, cross-entropy on both pooled (FCE).

Deviations, each explained in docs/papers/ge2018.md:
1. Eq. (2) lacks its -log, without which it trains the opposite (--msml as_printed).
2. The width of the 1x1 convolution is unstated: 512 on 512 channels, 128 on DenseNet's 1024.
3. VGG is VGG-16 without batch normalisation; the paper does not say which VGG it took.
4. F-MSML is read at FCE. It is scored alone, with its own CE head, and with a separate R18 or D121,
   which is what the printed rows are compared with; R18 + R18 shows what any second network gives.
5. Table 2 is scored with R18 beside each strategy, as its Global has the value of Table 1's fusion.
6. 9 epochs at batch 32, best epoch by validation AUC, no flips, centre crops at test: unstated.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

import losses
import models
from data import labels, splits
from data.augment import Augment
from evaluation.probabilities import sigmoid
from reproduce.engine import dataset, flags, loop, schedules
from reproduce.engine.ranges import Backbone, BatchSize, Count, Dimensions, Pixels, Rate, Weight
from reproduce.engine.rows import Combined, Data, Fit, Readout, Row, Task
from reproduce.tables import ge2018 as tables

CE, MSML, FCE = range(3)  # the outputs of a two-stream network


@dataclass(frozen=True)
class Readings:
    """What the paper leaves open of its losses, its bilinear pooling and its split."""

    msml: Literal["corrected", "as_printed"] = "corrected"  # eq. 2, with the -log of its slope
    over_labels: Literal["sum", "mean"] = "sum"  # eq. 1; a mean makes MSML weigh 14 times more
    projection: Count = 512  # §2.3's 1x1 convolution, channels unstated; ours
    projection_densenet: Count = 128  # unstated; ours: 1024² x 128 weights as 512² x 512
    reduce: Dimensions = 0  # ours: 0 keeps every channel, as §2.2
    sketch: Dimensions = 0  # ours: 0 for the outer product, else the dimensions of its count sketch
    split: Literal["random", "official", "chexnet"] = "random"  # §3, 70/10/20; others are lists


@dataclass(frozen=True)
class Networks:
    """The networks that carry the method."""

    resnet: Backbone = "resnet18"  # §3.1
    densenet: Backbone = "densenet121"  # §3.1
    vgg: Backbone = "vgg16"  # §3, depth unstated; ours
    weights: str = "imagenet"  # §3
    normalise: Literal["network", "imagenet"] = "network"  # §3, "mean and std": as its weights ask


@dataclass(frozen=True)
class Config(Readings, Networks):
    size: Pixels = 224  # §3
    resize: Pixels = 256  # §3: training crops `size` out of it at random
    batch_size: BatchSize = 32  # unstated; ours
    epochs: Count = 9  # unstated; ours: three steps of the learning rate
    learning_rate: Rate = 1e-4  # §3, Adam
    step: Count = 3  # §3: epochs until the rate is divided by 10
    alpha: Weight = 0.2  # eq. 5
    beta: Weight = 0.6  # eq. 5
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # unstated; ours


DEMO = {  # three small networks instead of ResNet-18, DenseNet-121 and VGG-16
    "resnet": "tiny_residual", "densenet": "tiny", "vgg": "tiny_plain", "weights": "none",
    "size": 32, "resize": 36, "batch_size": 64, "epochs": 6, "step": 4,
    "learning_rate": 2e-3, "projection": 64, "projection_densenet": 64, "reduce": 64,
}  # fmt: skip


def split(frame: pd.DataFrame, config: Config) -> tuple[pd.DataFrame, str]:
    """The sets, and why their scores cannot be compared with published ones."""
    if config.split == "random":
        return splits.by_patient(frame, seed=0), ""
    if config.split == "chexnet":
        return splits.chexnet(frame), "another 70/10/20 split by patient, CheXNet's"
    return splits.held_out(
        frame, 1 / 8, seed=0, train="train_val"
    ), "another split, the official lists"


def rows(config: Config, data: Data) -> list[Row | Combined]:
    """Tables 1 and 2, the readings of F-MSML and the control of deviation 4."""
    truth = data.frame[list(labels.CHESTXRAY14)].to_numpy(np.float32)
    task = Task(labels.CHESTXRAY14, truth, truth)
    rate = schedules.steps(config.learning_rate, 0.1, config.step)
    fit = Fit(config.epochs, rate, augment=Augment(random_crop=True))
    backbones = {"R18": config.resnet, "D121": config.densenet, "VGG": config.vgg}

    def ce():
        return losses.masking.MaskedBCE(config.over_labels)

    def fine_grained(alpha: float, beta: float):  # eq. 5
        msml = config.msml, config.over_labels
        return lambda: losses.multilabel_softmax.FineGrained(alpha, beta, *msml)

    def head(*wanted: int) -> Readout:
        def probabilities(outputs: np.ndarray) -> np.ndarray:
            of_heads = np.stack(np.split(outputs, 3, axis=-1))[list(wanted)]
            return sigmoid(of_heads).mean(axis=0)

        return Readout(probabilities)

    def bilinear(streams: int, frozen: bool = False):
        def build(**network):
            of_densenet = network["backbone"] == config.densenet
            return models.bilinear.build(
                **network,
                projection=config.projection_densenet if of_densenet else config.projection,
                reduce=config.reduce,
                sketch=config.sketch,
                streams=streams,
                frozen=frozen,
            )

        return build

    flat = Readout()
    networks = ("resnet", "densenet", "vgg")
    loss_settings = ("alpha", "beta", "msml")
    pooling_settings = ("projection", "projection_densenet", "reduce", "sketch")
    global_loss = fine_grained(config.alpha, config.beta)

    def row(name, loss=ce, fit=fit, readout=flat, ignores=(), **more) -> Row:
        backbone = backbones[name.partition("-")[0].partition(" ")[0]]
        network = {"backbone": backbone, "normalise": config.normalise}
        ignores = (*networks, *ignores)
        return Row(name, task, loss, fit, readout, network=network, ignores=ignores, **more)

    def plain(name, **more) -> Row:
        return row(name, ignores=(*pooling_settings, *loss_settings), **more)

    def pooled(name) -> Row:
        return row(name, build=bilinear(1), ignores=loss_settings)

    def two_streams(name, loss=global_loss, readout=None, frozen=False, **more) -> Row:
        return row(name, loss, readout=readout or head(FCE), build=bilinear(2, frozen), **more)

    def own_ce(name) -> Row:
        read = replace(fit, epochs=0)
        both = two_streams(name, readout=head(CE, FCE), start_from=name, note="mean of FCE and CE")
        return replace(both, name=f"{name} + own CE", fit=read)

    def fusion(*names, note="") -> Combined:
        return Combined(" + ".join(names), names, note=note)

    stage_1 = "R18-F-MSML Local stage 1"
    stage_2 = {"loss": fine_grained(0, 1), "start_from": stage_1, "note": "read at FCE"}
    in_table_2 = "in Table 2, whose Global has the value of R18 + R18-F-MSML"
    return [
        plain("R18"),
        plain("R18 again", fit=replace(fit, reseed=1000), note="another seed"),
        pooled("R18-BL"),
        two_streams("R18-F-MSML", note="alone, read at FCE"),
        own_ce("R18-F-MSML"),
        plain("D121"),
        pooled("D121-BL"),
        two_streams("D121-F-MSML", note="alone, read at FCE"),
        own_ce("D121-F-MSML"),
        two_streams("VGG-F-MSML", note="alone, read at FCE"),
        fusion("R18", "R18 again"),
        fusion("R18", "R18-BL"),
        fusion("R18", "R18-F-MSML"),
        fusion("D121", "D121-BL"),
        fusion("D121", "D121-F-MSML"),
        fusion("R18", "D121"),
        fusion("R18", "VGG-F-MSML"),
        fusion("D121", "VGG-F-MSML"),
        two_streams(stage_1, fine_grained(1, 0), head(CE), note="read at CE"),
        two_streams("R18-F-MSML Local alone", **stage_2),
        two_streams("R18-F-MSML Local-Fixed alone", frozen=True, **stage_2),
        fusion("R18", "R18-F-MSML Local alone", note=in_table_2),
        fusion("R18", "R18-F-MSML Local-Fixed alone", note=in_table_2),
    ]


def main() -> None:
    config, options = flags.arguments(Config, DEMO, __doc__, datasets=["chestxray14"])
    data = dataset.load(options, config, split, rows, phantoms=8000, resize=config.resize)
    runs = loop.train("ge2018", rows, data, config, options)
    tables.write(runs, data, options)
    loop.finish(runs)


if __name__ == "__main__":
    with flags.one_sentence():
        main()
