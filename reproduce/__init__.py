import os
from pathlib import Path

# Before anything imports TensorFlow, whose start-up notes would stand above every table.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).parents[1]


class RunError(Exception):
    """A run cannot go on as asked; the message says why and what to do next."""
