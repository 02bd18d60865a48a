"""An estimate of the time left for a table, from the epochs trained so far."""


class TimeLeft:
    """Count the epochs of a table and estimate when the rest will be trained."""

    def __init__(self, epochs: int):
        self.ahead, self.done, self.spent = epochs, 0, 0.0

    def skip(self, epochs: int) -> None:
        """Leave out epochs that need no training: done before, or stopped early."""
        self.ahead -= epochs

    def after(self, seconds: float) -> str:
        """Count one epoch, which took these seconds, and return the time left for the table."""
        self.ahead, self.done, self.spent = self.ahead - 1, self.done + 1, self.spent + seconds
        left = self.ahead * self.spent / self.done
        if left < 90:
            return f"{left:.0f} s left"
        return f"{left / 60:.0f} min left" if left < 5400 else f"{left / 3600:.1f} h left"
