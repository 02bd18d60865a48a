class EvaluationError(Exception):
    """Predictions, truth or published numbers cannot be scored; the message says what to do."""
