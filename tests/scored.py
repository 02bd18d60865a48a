"""Build scores of a row that are the same in every resample."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reproduce.tables import scoring


def scores_of(value: float, cells: Sequence[tuple[str, str]]) -> scoring.Scored:
    """Return a row with this value in each cell (group, metric)."""
    table = pd.DataFrame(cells, columns=scoring.KEYS).assign(
        value=value, low=value, high=value, positives=9, images=99, note=""
    )
    index = pd.MultiIndex.from_frame(table[scoring.KEYS])
    return scoring.Scored(table, pd.DataFrame(np.full((len(cells), 20), value), index=index), [])
