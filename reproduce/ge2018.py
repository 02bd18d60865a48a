"""Chest X-rays classification: a multi-label and fine-grained problem.

Ge, Mahapatra, Sedai, Garnavi, Chakravorty. 2018. Tables 1 to 3.

    bash reproduce/ge2018.sh                               on drawn phantoms, minutes on a laptop
    bash reproduce/ge2018.sh --data-dir ChestX-ray14       the paper's, about three GPU days

BL pools a network's last map with itself (outer products, averaged over positions). F-MSML pools
two copies of a network that are kept apart by losses of their own: cross-entropy over the first
(CE), the multi-label softmax loss over the second (MSML), cross-entropy over both pooled (FCE).

Deviations, each explained in docs/papers/ge2018.md:
1. Eq. (2) lacks its -log, without which it teaches the opposite (--msml as_printed).
2. 1024-channel maps are reduced to 512 by a 1x1 convolution before the outer product (--reduce).
3. VGG is VGG-16 without batch normalisation; the paper does not say which VGG it took.
4. F-MSML is read at FCE. It is scored alone, with its own CE head, and with a separate R18 or D121,
   which is what the printed rows are compared with; R18 + R18 shows what any second network gives.
5. Table 2 is scored with R18 beside each strategy, as its Global has the value of Table 1's fusion.
6. 9 epochs at batch 32, best epoch by validation AUC, no flips, centre crops at test: unstated.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

import losses
import models
from data import labels, splits
from data.augment import Augment
from evaluation import predict
from reproduce import flags, ge2018_results, run

CE, MSML, FCE = range(3)  # the outputs of a two-stream network


@dataclass(frozen=True)
class Config:
    resnet: str = "resnet18"  # §3.1
    densenet: str = "densenet121"  # §3.1
    vgg: str = "vgg16"  # §3, depth unstated; ours
    weights: str = "imagenet"  # §3
    size: int = 224  # §3
    resize: int = 256  # §3: training crops `size` out of it at random
    batch_size: int = 32  # unstated; ours
    epochs: int = 9  # unstated; ours: three steps of the learning rate
    learning_rate: float = 1e-4  # §3, Adam
    step: int = 3  # §3: epochs until the rate is divided by 10
    alpha: float = 0.2  # eq. 5
    beta: float = 0.6  # eq. 5
    msml: Literal["corrected", "as_printed"] = "corrected"  # eq. 2, with the -log of its slope
    over_labels: Literal["sum", "mean"] = "sum"  # eq. 1; a mean makes MSML weigh 14 times more
    projection: int = 512  # §2.3's 1x1 convolution, channels unstated; ours
    reduce: int = 512  # ours: a map with more channels is reduced to them
    sketch: int = 0  # ours: 0 for the outer product, else the dimensions of its count sketch
    split: Literal["random", "official"] = "random"  # §3, 70/10/20; or the released test list
    precision: str = "float32"  # unstated; ours


# three small networks in the place of ResNet-18, DenseNet-121 and VGG-16
DEMO = {
    "resnet": "tiny_residual",
    "densenet": "tiny",
    "vgg": "tiny_plain",
    "weights": "none",
    "size": 64,
    "resize": 72,
    "epochs": 4,
    "learning_rate": 1e-3,
    "projection": 64,
    "reduce": 64,
}


def rows(config: Config, options, frame: pd.DataFrame) -> list[run.Row | run.Combined]:
    """Tables 1 and 2, the readings of F-MSML and the control of deviation 4."""
    truth = frame[list(labels.CHESTXRAY14)].to_numpy(np.float32)
    backbones = {"R18": "resnet", "D121": "densenet", "VGG": "vgg"}
    of_head = ("projection", "reduce", "sketch")
    of_loss = ("alpha", "beta", "msml")

    def ce():
        return losses.masking.MaskedBCE(config.over_labels)

    def fine_grained(alpha=config.alpha, beta=config.beta):  # eq. 5
        return lambda: losses.multilabel_softmax.FineGrained(
            alpha, beta, config.msml, config.over_labels
        )

    def head(*wanted: int):
        def probabilities(outputs: np.ndarray) -> np.ndarray:
            of_heads = np.stack(np.split(outputs, 3, axis=-1))[list(wanted)]
            return predict.sigmoid(of_heads).mean(axis=0)

        return probabilities

    def rate(epoch, history) -> float:
        return config.learning_rate * 0.1 ** (epoch // config.step)

    def row(name, streams, loss=ce, probabilities=predict.sigmoid, frozen=False, **more):
        def bilinear(**network):
            above = {key: getattr(config, key) for key in of_head}
            return models.bilinear.build(**network, **above, streams=streams, frozen=frozen)

        backbone = backbones[name.partition("-")[0].partition(" ")[0]]
        unused = [*backbones.values(), *of_head * (streams == 0), *of_loss * (streams < 2)]
        settings = {"epochs": config.epochs, "learning_rate": rate} | more
        return run.Row(
            name,
            labels.CHESTXRAY14,
            truth,
            truth,
            loss,
            augment=Augment(random_crop=True),
            probabilities=probabilities,
            network={"backbone": getattr(config, backbone)},
            build=bilinear if streams else None,
            unused=unused,
            **settings,
        )

    def two_streams(name, loss=None, read=(FCE,), **more):
        return row(name, 2, loss or fine_grained(), head(*read), **more)

    def own_ce(name):
        return two_streams(
            f"{name} + own CE", read=(CE, FCE), epochs=0, start_from=name, note="mean of FCE and CE"
        )

    def fusion(*names, note="") -> run.Combined:
        return run.Combined(" + ".join(names), names, note=note)

    stage_1 = "R18-F-MSML Local stage 1"
    stage_2 = {"loss": fine_grained(0, 1), "start_from": stage_1, "note": "read at FCE"}
    in_table_2 = "in Table 2, whose Global has the value of R18 + R18-F-MSML"
    return [
        row("R18", 0),
        row("R18 again", 0, reseed=1000, note="another seed"),
        row("R18-BL", 1),
        two_streams("R18-F-MSML", note="alone, read at FCE"),
        own_ce("R18-F-MSML"),
        row("D121", 0),
        row("D121-BL", 1),
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
        two_streams(stage_1, fine_grained(1, 0), read=(CE,), note="read at CE"),
        two_streams("R18-F-MSML Local alone", **stage_2),
        two_streams("R18-F-MSML Local-Fixed alone", frozen=True, **stage_2),
        fusion("R18", "R18-F-MSML Local alone", note=in_table_2),
        fusion("R18", "R18-F-MSML Local-Fixed alone", note=in_table_2),
    ]


def main() -> None:
    config, options = flags.arguments(Config, DEMO, __doc__, datasets=["chestxray14"])
    frame = run.read(options, config, phantoms=1800)
    attrs = frame.attrs
    if config.split == "random":
        frame = splits.by_patient(frame, seed=0)
    else:
        frame = splits.held_out(frame, 1 / 8, seed=0, train="train_val")
    data = run.decode(options, frame, attrs, config.resize)
    runs = run.train("ge2018", rows(config, options, data.frame), data, config, options)
    ge2018_results.report(runs, data, options, config.split)


if __name__ == "__main__":
    with flags.one_sentence():
        main()
