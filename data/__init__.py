from safefiles import UserError


class DataError(UserError):
    """The user's data cannot be used; the message says why and what to do next."""


class BadImage(DataError):
    """An image file that cannot be used; `reason` is the message without the path."""

    def __init__(self, path, reason: str):
        super().__init__(f"{path} {reason}")
        self.reason = reason
