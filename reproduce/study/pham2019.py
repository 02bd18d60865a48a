"""Pham et al. 2019: which policy for uncertain labels is best, and the value of template matching.

Training labels are true except for those made uncertain: for each label as many images as 60 % of
its positives. Either the knob is the share of these that are truly positive, or each label has its
own share, as five radiologists found it behind the released labeler's uncertain labels, and the
knob is the share of the other positives that the labels leave blank. Each policy is scored against
the true labels of the test set.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from data import labels
from evaluation.metrics import Group
from reproduce import pham2019 as script
from reproduce.study.contrasts import PIXELS, Contrast
from reproduce.study.measures import AUC, Effect, Panel
from reproduce.study.wording import at, change, mean, select

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
LEAD, SMOOTHING = "lead over Ignore, mean AUC of five labels", "gain by label smoothing"
CENTRE = "U-Ones" + script.CENTRE
# Share of uncertain labels that five radiologists call present, in 500 studies of CheXpert's test
# set (`python -m reproduce.rescore uncertain`); 249 of 515 positives are blank (.48).
PRESENT = {
    "Atelectasis": 0.54,
    "Cardiomegaly": 0.40,
    "Consolidation": 0.03,
    "Edema": 0.52,
    "Pleural Effusion": 0.29,
}


def make_uncertain(frame: pd.DataFrame, true_share: float) -> None:
    """Make labels uncertain, in place; `true_share` of these are truly positive."""
    rng = np.random.default_rng(round(1000 * true_share))
    for label in labels.CHEXPERT[1:]:
        _make_uncertain(frame, label, true_share, rng)


def hide(frame: pd.DataFrame, blank: float) -> None:
    """Leave a share of each label's positives blank, and make others uncertain, in place.

    Every policy reads a blank as absent.
    """
    rng = np.random.default_rng(round(1000 * blank))
    for label, true_share in PRESENT.items():
        positive = np.flatnonzero(frame[label] == 1)
        _make_uncertain(frame, label, true_share, rng)
        positive = positive[frame[label].to_numpy()[positive] == 1]
        hidden = rng.choice(positive, round(blank * len(positive)), replace=False)
        frame.loc[frame.index[hidden], label] = 0.0


def _make_uncertain(
    frame: pd.DataFrame, label: str, true_share: float, rng: np.random.Generator
) -> None:
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


def conclude_policies(effects: pd.DataFrame) -> str:
    ones, zeros = (change(effects, f"{name} − Ignore") for name in PLAIN)
    smooth = "; ".join(f"{name}+LSR: {mean(effects, f'{name}+LSR − Ignore')}" for name in PLAIN)
    return (
        f"Over the knob, the lead over Ignore changes by {ones} for U-Ones and by {zeros} for "
        f"U-Zeros. Averaged over the knob, the smoothed policies lead by {smooth}. Smoothing "
        f"itself gains {mean(effects, 'U-Ones+LSR − U-Ones')} (U-Ones) and "
        f"{mean(effects, 'U-Zeros+LSR − U-Zeros')} (U-Zeros)."
    )


def conclude_blanks(effects: pd.DataFrame) -> str:
    leads = "; ".join(f"{name}: {mean(effects, f'{name} − Ignore')}" for name in POLICIES)
    most = effects["knob"].max()
    without = select(effects, "Ignore itself").set_index("knob")["value"]
    return (
        f"With each label's own share behind uncertain, averaged over both values, the lead over "
        f"Ignore is: {leads}. Blanks that hide {most:.0%} of the positives change the lead of "
        f"U-Ones by {change(effects, 'U-Ones − Ignore')}. They take Ignore itself from "
        f"{without.iloc[0]:.3f} to {without.loc[most]:.3f}."
    ).replace(" 0.", " .")


def conclude_alignment(effects: pd.DataFrame) -> str:
    shift = (CONFIG.resize - CONFIG.size) / 2 / CONFIG.resize
    template = "template − centre crop"
    values = ", ".join(
        f"{at(effects, template, '', value)} at {value:g}" for value in CONTRASTS[2].values
    )
    return (
        f"Template matching against a centre crop gains {values}. On average that is "
        f"{mean(effects, template)}. As in the paper, the template shifts by at most {shift:.1%} "
        "of the side in each direction and does not rotate, so it cannot mend more."
    )


POLICY_PANELS = (
    Panel(LEAD, FIVE, tuple(Effect(f"{policy} − Ignore", policy, "Ignore") for policy in POLICIES)),
    Panel(
        SMOOTHING,
        FIVE,
        tuple(Effect(f"{name}+LSR − {name}", f"{name}+LSR", name) for name in PLAIN),
    ),
)
POLICY = Contrast(
    name="pham2019-uncertain",
    script=script,
    question="Which policy is best, depending on what is hidden behind uncertain labels?",
    knob="share of uncertain labels that are truly positive",
    values=(0.0, 0.5, 1.0),
    dataset="chexpert",
    labels="visualchexbert",
    config=CONFIG,
    damage=make_uncertain,
    wanted=("Ignore", *POLICIES),
    panels=POLICY_PANELS,
    conclude=conclude_policies,
    claims=("lsr-raises-mean", "policies-of-14-improve-on-ignore"),
)
CONTRASTS = [
    POLICY,
    replace(
        POLICY,
        name="pham2019-blanks",
        question="Which policy is best with the shares that radiologists found?",
        knob="share of the other positives that are blank",
        values=(0.0, 0.48),
        damage=hide,
        panels=POLICY_PANELS[:1],
        conclude=conclude_blanks,
        claims=("best-single-model", "gain-over-u-ones"),
    ),
    Contrast(
        name="pham2019-misaligned",
        script=script,
        question="What is template matching worth on misaligned images?",
        knob="shift (of the side) and turn (of 90 degrees), at most",
        values=(0.0, 0.1, 0.2),
        dataset="chexpert",
        labels="visualchexbert",
        config=replace(CONFIG, template=True),
        drawn="misaligned",
        wanted=("U-Ones", CENTRE),
        panels=(
            Panel(
                "gain in mean AUC of five labels",
                FIVE,
                (Effect("template − centre crop", "U-Ones", CENTRE),),
            ),
        ),
        conclude=conclude_alignment,
    ),
]
