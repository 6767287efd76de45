"""The callback that the configuration names, as ``package.module:function``."""

from importlib import import_module

from app.errors import ConfigurationError
from app.failures.handler import OnFailure


def load_callback(path: str) -> OnFailure:
    """Import a callback.

    Args:
        path: ``package.module:function``; the operator wrote it, so its module may be imported.

    Returns:
        The function.

    Raises:
        ConfigurationError: If there is no such function.
    """
    module, _, name = path.partition(":")
    try:
        callback = getattr(import_module(module), name)
    # A module of the user's may raise anything while it is imported, or call sys.exit().
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"on_failure: {path!r} cannot be imported ({type(error).__name__}: {error}): write "
            "package.module:function, and put its folder on PYTHONPATH"
        ) from error
    if not callable(callback):
        raise ConfigurationError(
            f"on_failure: {path!r} is a {type(callback).__name__}, no function"
        )
    found: OnFailure = callback
    return found
