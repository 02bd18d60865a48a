class ModelError(Exception):
    """A network cannot be built as asked; the message says why and what to do next."""
