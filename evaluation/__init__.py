from collections.abc import Sequence

import numpy as np

Names = Sequence[str] | np.ndarray  # of labels, images or patients


class EvaluationError(Exception):
    """Predictions, truth or published numbers cannot be scored; the message says what to do."""
