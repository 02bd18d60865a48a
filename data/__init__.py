class DataError(Exception):
    """The user's data cannot be used as asked; the message says why and what to do next."""
