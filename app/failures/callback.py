"""Imports the callback that the configuration names as ``package.module:function``."""

from importlib import import_module

from app.errors import ConfigurationError
from app.failures.handler import OnFailure


def load_callback(path: str) -> OnFailure:
    """Import a callback.

    Args:
        path: ``package.module:function``; its module may be imported, because the operator wrote
            the path.

    Returns:
        The callback.

    Raises:
        ConfigurationError: If the path cannot be imported or does not name a function.
    """
    module, _, name = path.partition(":")
    try:
        callback = getattr(import_module(module), name)
    # The user's module may raise any error while it is imported, or call sys.exit().
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"on_failure: {path!r} cannot be imported ({type(error).__name__}: {error}): write "
            "package.module:function, and put its folder on PYTHONPATH"
        ) from error
    if not callable(callback):
        raise ConfigurationError(
            f"on_failure: {path!r} is a {type(callback).__name__}, not a function"
        )
    found: OnFailure = callback
    return found
