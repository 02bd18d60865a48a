"""Pham et al. 2019: which policy for uncertain labels is best, and the value of template matching.

Training labels are true except for those made uncertain: for each label as many images as 60 % of
its positives. The knob is the share of these that are truly positive. Each policy is scored against
the true labels of the test set.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from data import labels
from evaluation.metrics import Group
from reproduce import pham2019 as script
from reproduce.engine.rows import Combined, Readout, Row
from reproduce.study.contrasts import PIXELS, Contrast, Why, row_named
from reproduce.study.measures import AUC, Effect, Panel
from reproduce.study.wording import select, verdict

CONFIG = script.Config(
    backbone="tiny",
    members="tiny",
    weights="none",
    size=PIXELS,
    resize=37,
    batch_size=64,
    epochs=6,
    learning_rate=4e-3,
    decay=0.7,
    held_out=0.1,
    template=False,
)
FIVE = AUC(Group("mean of five", labels.CHEXPERT_COMPETITION))
UNCERTAIN = 0.6  # uncertain images of a label per positive image of it
PLAIN = ("U-Ones", "U-Zeros")
POLICIES = ("U-Ones", "U-Ones+LSR", "U-Zeros", "U-Zeros+LSR")
SMOOTHING = "gain by label smoothing, mean AUC of five labels"
CENTRE, TTA = "U-Ones" + script.CENTRE, "U-Ones" + script.TTA


def make_uncertain(frame: pd.DataFrame, true_share: float) -> None:
    """Make labels uncertain, in place; `true_share` of these are truly positive."""
    rng = np.random.default_rng(round(1000 * true_share))
    for label in labels.CHEXPERT[1:]:
        value = frame[label].to_numpy(copy=True)
        positive, negative = np.flatnonzero(value == 1), np.flatnonzero(value != 1)
        count = round(UNCERTAIN * min(len(positive), len(negative)))
        positives = round(true_share * count)
        chosen = [
            rng.choice(positive, positives, replace=False),
            rng.choice(negative, count - positives, replace=False),
        ]
        value[np.concatenate(chosen)] = -1
        frame[label] = value


def rows_with_tta(config: script.Config, dataset: str) -> list[Row | Combined]:
    """Return the script's rows, and U-Ones averaged over augmented views."""
    table = script.rows(config, dataset)
    flat, views = (
        row_named(table, "U-Ones"),
        row_named(table, script.BEST + script.REPAIRED + script.TTA),
    )
    averaged = Readout(passes=views.readout.passes)
    return [*table, replace(flat, name=TTA, start_from="U-Ones", fit=views.fit, readout=averaged)]


def conclude_policies(effects: pd.DataFrame) -> str:
    ones, smooth_ones, zeros, smooth_zeros = (
        select(effects, f"{name} − Ignore") for name in POLICIES
    )
    gains = [select(effects, f"{name}+LSR − {name}") for name in PLAIN]
    return (
        f"Against Ignore, U-Ones is {verdict(ones)}; U-Zeros is {verdict(zeros)}. With label "
        f"smoothing, U-Ones is {verdict(smooth_ones)}; U-Zeros is {verdict(smooth_zeros)}. "
        f"Smoothing itself, for U-Ones: {verdict(gains[0])}; for U-Zeros: {verdict(gains[1])}."
    )


def conclude_alignment(effects: pd.DataFrame) -> str:
    template, views = (select(effects, name) for name in ("template", "TTA"))
    shift = (CONFIG.resize - CONFIG.size) / 2 / CONFIG.resize
    return (
        f"Template matching against a centre crop: {verdict(template)}. TTA against one view: "
        f"{verdict(views)}. As in the paper, the template shifts by at most {shift:.1%} of the "
        "side in each direction and does not rotate."
    )


CONTRASTS = [
    Contrast(
        name="pham2019-uncertain",
        script=script,
        question="Which policy is best, depending on what is hidden behind uncertain labels?",
        knob="share of uncertain labels that are truly positive",
        values=(0.0, 0.25, 0.5, 0.75, 1.0),
        dataset="chexpert",
        labels="visualchexbert",
        config=CONFIG,
        damage=make_uncertain,
        wanted=("Ignore", *POLICIES),
        panels=(
            Panel(
                "lead over Ignore, mean AUC of five labels",
                FIVE,
                tuple(Effect(f"{policy} − Ignore", policy, "Ignore") for policy in POLICIES),
            ),
            Panel(
                SMOOTHING,
                FIVE,
                tuple(Effect(f"{name}+LSR − {name}", f"{name}+LSR", name) for name in PLAIN),
            ),
        ),
        conclude=conclude_policies,
    ),
    Contrast(
        name="pham2019-misaligned",
        script=script,
        question="What are template matching and TTA worth on misaligned images?",
        knob="shift (of the side) and turn (of 90 degrees), at most",
        values=(0.0, 0.05, 0.1, 0.2),
        dataset="chexpert",
        labels="visualchexbert",
        config=replace(CONFIG, template=True),
        drawn="misaligned",
        rows=rows_with_tta,
        wanted=("U-Ones", CENTRE, TTA),
        panels=(
            Panel(
                "gain in mean AUC of five labels",
                FIVE,
                (
                    Effect("template − centre crop", "U-Ones", CENTRE),
                    Effect("TTA − one view", TTA, "U-Ones"),
                ),
            ),
        ),
        conclude=conclude_alignment,
    ),
]
SMOOTHED = Why("pham2019-uncertain", "U-", SMOOTHING)  # both policies
SMOOTHED_ONES = Why("pham2019-uncertain", "U-Ones", SMOOTHING)
CLAIMS = {
    "lsr-raises-mean": SMOOTHED,
    "policies-of-14-improve-on-ignore": Why("pham2019-uncertain", "U-Ones "),
    "best-single-model": SMOOTHED_ONES,
    "gain-over-u-ones": SMOOTHED_ONES,
    "lsr-improves-the-policies-of-14": SMOOTHED,
    "ensemble-with-tta-helps": Why("pham2019-misaligned", "TTA"),
    "tta-helps": Why("pham2019-misaligned", "TTA"),
}
