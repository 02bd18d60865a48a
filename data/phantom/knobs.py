"""What a designed experiment changes of the drawn patients, one knob each, with known truth.

The defaults draw the phantoms of the demos. reproduce/study/ turns one knob at a time, so that a
difference between two results has one cause.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data import DataError

TEST_ODDS = 4  # negatives to a positive in the test set, whatever `odds` the training set has


@dataclass(frozen=True)
class Knobs:
    """How the drawn patients differ from those of the demos."""

    label_noise: float = 0.05  # positives whose label is missed; as many labels are invented
    odds: float = 0.0  # training images without a finding to one with it; 0: as released
    findings: tuple[str, ...] = ()  # of `odds`: the only findings drawn; (): every leaf label
    together: float = 0.0  # of `odds`: 0, findings are independent, to 1, they come together
    alike: float = 0.0  # 0, a finding looks as ever, to 1, like the one it is hard to tell from
    misaligned: float = 0.0  # shifted by up to this share of the side, turned by that of 90 degrees

    def changed(self) -> dict:
        """The knobs that are not at their defaults, as JSON has them."""
        changes = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        return {name: [*value] if name == "findings" else value for name, value in changes.items()}

    def check(self, labels: Sequence[str]) -> None:
        """A DataError that names the knob whose value cannot be drawn."""
        for name, high in (
            *(("label_noise", 0.5), ("odds", 10_000), ("together", 1)),
            *(("alike", 1), ("misaligned", 0.5)),
        ):
            if not 0 <= getattr(self, name) <= high:
                raise DataError(f"The knob {name} is {getattr(self, name)}: from 0 to {high:,}.")
        if not self.odds and (self.findings or self.together):
            raise DataError("The knobs findings and together need odds: give it too.")
        if unknown := [label for label in self.findings if label not in labels]:
            raise DataError(f"There is no finding {unknown[0]}; choose from {', '.join(labels)}.")

    def chance(self, trained: np.ndarray) -> np.ndarray:
        """The chance of every finding in each image: of `odds` in training, else of the test."""
        return 1 / (1 + np.where(trained, self.odds, TEST_ODDS))


AS_EVER = Knobs()
