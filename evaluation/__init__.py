from collections.abc import Sequence

import numpy as np

from safefiles import UserError

Names = Sequence[str] | np.ndarray  # of labels, images or patients


class EvaluationError(UserError):
    """Predictions, targets or published numbers cannot be scored; the message says what to do."""
