from importlib import import_module


def __getattr__(name):
    """`losses.hierarchical` and the others on first use: they import Keras, which takes seconds."""
    try:
        return import_module(f"losses.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(name) from error
