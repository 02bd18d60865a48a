from importlib import import_module


def __getattr__(name):
    """Import `losses.NAME` on first use: the modules import Keras, which takes seconds."""
    try:
        return import_module(f"losses.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(name) from error
