"""Properties of the phantoms that designed experiments change, one at a time.

The defaults draw the phantoms of the demos. reproduce/study/ changes one knob at a time, so a
difference between two results has one known cause.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data import DataError

TEST_ODDS = 4  # negatives per positive in the test set, whatever `odds` the training set has


@dataclass(frozen=True)
class Knobs:
    """How the synthetic patients differ from those of the demos."""

    label_noise: float = 0.05  # share of positives whose label is missed; as many are invented
    odds: float = 0.0  # training images without a finding per image with it; 0: as released
    findings: tuple[str, ...] = ()  # with `odds`: the only findings drawn; (): every leaf label
    together: float = 0.0  # with `odds`: findings are independent (0) or come together (1)
    alike: float = 0.0  # findings look as usual (0) or like those they are hard to tell from (1)
    misaligned: float = 0.0  # shifts up to this share of the side, turns up to that of 90 degrees

    def changed(self) -> dict:
        """Return the knobs that differ from their defaults, as JSON stores them."""
        changes = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        return {name: [*value] if name == "findings" else value for name, value in changes.items()}

    def check(self, labels: Sequence[str]) -> None:
        """Raise a DataError that names the first knob whose value cannot be drawn."""
        highest = {"label_noise": 0.5, "odds": 10_000, "together": 1, "alike": 1, "misaligned": 0.5}
        for name, high in highest.items():
            if not 0 <= getattr(self, name) <= high:
                raise DataError(
                    f"The knob {name} is {getattr(self, name)}; give a number from 0 to {high:,}."
                )
        if not self.odds and (self.findings or self.together):
            raise DataError("The knobs findings and together need odds; give it too.")
        if unknown := [label for label in self.findings if label not in labels]:
            raise DataError(f"There is no finding {unknown[0]}; choose from {', '.join(labels)}.")

    def chance(self, trained: np.ndarray) -> np.ndarray:
        """Return the chance of every finding in each image, by the odds of its set."""
        return 1 / (1 + np.where(trained, self.odds, TEST_ODDS))


DEFAULT_KNOBS = Knobs()
