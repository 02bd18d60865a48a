from importlib import import_module

from safefiles import UserError


class ModelError(UserError):
    """A network cannot be built as requested; the message says why and what to do next."""


def __getattr__(name):
    """Import `models.NAME` on first use: the modules import Keras, which takes seconds."""
    try:
        return import_module(f"models.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(name) from error
