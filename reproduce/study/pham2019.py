"""Pham et al. 2019: which policy for uncertain labels is best, and what template matching gives.

Training labels are the truth but for those made uncertain: of each label, as many images as 60 % of
its positives, of which a share is truly positive. What each policy makes of them is scored against
the truth of the test set.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from data import labels
from data.phantom.knobs import Knobs
from evaluation.metrics import Group
from reproduce import pham2019 as script
from reproduce.engine.rows import Combined, Data, Readout, Row
from reproduce.study.contrasts import PIXELS, Contrast, Images, Point, Why, damaged, row_named
from reproduce.study.measures import Effect, Panel, auc
from reproduce.study.wording import of, trend, verdict

CONFIG = script.Config(
    backbone="tiny", members="tiny", weights="none", size=PIXELS, resize=37, batch_size=64,
    epochs=6, learning_rate=4e-3, decay=0.7, held_out=0.1, template=False,
)  # fmt: skip
FIVE = auc(Group("mean of five", labels.CHEXPERT_COMPETITION))
UNCERTAIN = 0.6  # uncertain images of a label, to one positive image of it
PLAIN = ("U-Ones", "U-Zeros")
POLICIES = ("U-Ones", "U-Ones+LSR", "U-Zeros", "U-Zeros+LSR")
SMOOTHING = "gain by label smoothing, mean AUC of five labels"
SMOOTHED = Why("pham2019-uncertain", "U-", SMOOTHING)  # both policies
SMOOTHED_ONES = Why("pham2019-uncertain", "U-Ones", SMOOTHING)
CENTRE, TTA = script.CENTRE_CROP, "U-Ones" + script.TTA


def make_uncertain(true_share: float, frame: pd.DataFrame) -> None:
    """Make labels uncertain in place, `true_share` of which are truly positive."""
    rng = np.random.default_rng(round(1000 * true_share))
    for label in labels.CHEXPERT[1:]:
        value = frame[label].to_numpy(copy=True)
        positive, negative = np.flatnonzero(value == 1), np.flatnonzero(value != 1)
        count = round(UNCERTAIN * min(len(positive), len(negative)))
        of_positives = round(true_share * count)
        chosen = [
            rng.choice(positive, of_positives, replace=False),
            rng.choice(negative, count - of_positives, replace=False),
        ]
        value[np.concatenate(chosen)] = -1
        frame[label] = value


def with_tta(config: script.Config, data: Data) -> Sequence[Row | Combined]:
    """The script's rows, and U-Ones read over augmented views."""
    table = script.rows(config, data)
    flat, views = row_named(table, "U-Ones"), row_named(table, script.BEST + script.TTA)
    averaged = Readout(passes=views.readout.passes)
    read_again = replace(flat, name=TTA, start_from="U-Ones", fit=views.fit, readout=averaged)
    return [*table, replace(read_again, ignores=("members",))]


def _of_uncertain(effects: pd.DataFrame) -> str:
    ones, smooth_ones, zeros, smooth_zeros = (of(effects, f"{name} − Ignore") for name in POLICIES)
    gains = [of(effects, f"{name}+LSR − {name}") for name in PLAIN]
    return (
        f"Against leaving uncertain labels out (Ignore): U-Ones is {verdict(ones)}, from "
        f"{trend(ones)} of truly positive ones; U-Zeros is {verdict(zeros)}, from {trend(zeros)}. "
        f"With label smoothing, U-Ones is {verdict(smooth_ones)} and U-Zeros "
        f"{verdict(smooth_zeros)}. Against the same policy without it, smoothing is "
        f"{verdict(gains[0])} for U-Ones, from {trend(gains[0])}, and {verdict(gains[1])} for "
        f"U-Zeros, from {trend(gains[1])}."
    )


def _of_misaligned(effects: pd.DataFrame) -> str:
    cut, views = (of(effects, name) for name in ("template", "TTA"))
    return (
        f"Template matching against a centre crop: {verdict(cut)}, from {trend(cut)}. TTA against "
        f"one view: {verdict(views)}, from {trend(views)}. The template moves by at most "
        f"{(CONFIG.resize - CONFIG.size) / 2 / CONFIG.resize:.1%} of the side either way, as the "
        "paper's 224 of 256 pixels do, and does not turn."
    )


CONTRASTS = [
    Contrast(
        name="pham2019-uncertain",
        script=script,
        question="Which policy is best, depending on what is hidden behind uncertain labels?",
        knob="share of uncertain labels that are truly positive",
        points=[
            Point(share, CONFIG, damage=damaged(functools.partial(make_uncertain, share)))
            for share in (0.0, 0.25, 0.5, 0.75, 1.0)
        ],
        images=Images("chexpert", {"labels": "visualchexbert"}),
        rows=script.rows,
        wanted=["Ignore", *POLICIES],
        panels=[
            Panel(
                "lead over Ignore, mean AUC of five labels",
                FIVE,
                [Effect(f"{policy} − Ignore", policy, "Ignore") for policy in POLICIES],
            ),
            Panel(
                SMOOTHING,
                FIVE,
                [Effect(f"{name}+LSR − {name}", f"{name}+LSR", name) for name in PLAIN],
            ),
        ],
        conclude=_of_uncertain,
    ),
    Contrast(
        name="pham2019-misaligned",
        script=script,
        question="What are template matching and TTA worth on misaligned images?",
        knob="shift (of the side) and turn (of 90 degrees), at most",
        points=[
            Point(share, replace(CONFIG, template=True), Knobs(label_noise=0, misaligned=share))
            for share in (0.0, 0.05, 0.1, 0.2)
        ],
        images=Images("chexpert", {"labels": "visualchexbert"}, template=True),
        rows=with_tta,
        wanted=["U-Ones", CENTRE, TTA],
        panels=[
            Panel(
                "gain in mean AUC of five labels",
                FIVE,
                [
                    Effect("template − centre crop", "U-Ones", CENTRE),
                    Effect("TTA − one view", TTA, "U-Ones"),
                ],
            )
        ],
        conclude=_of_misaligned,
    ),
]
CLAIMS = {
    "lsr-raises-mean": SMOOTHED,
    "policies-of-14-improve-on-ignore": Why("pham2019-uncertain", "U-Ones "),
    "best-single-model": SMOOTHED_ONES,
    "gain-over-u-ones": SMOOTHED_ONES,
    "lsr-improves-the-policies-of-14": SMOOTHED,
    "ensemble-helps": Why("pham2019-misaligned", "TTA"),
}
