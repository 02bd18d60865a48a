import os

# Before anything imports TensorFlow, whose start-up notes would stand above every table.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


class RunError(Exception):
    """A run cannot go on as asked; the message says why and what to do next."""
