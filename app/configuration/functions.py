"""Functions that the configuration names in the form ``package.module:function``.

Only the operator writes these paths, so the modules in the paths may be imported. A workflow never
names a function in this way, because workflows are data, and data must not choose the code that a
worker loads.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

from pydantic import AfterValidator

from app.errors import ConfigurationError


def _check_path(value: str) -> str:
    module, _, name = value.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        # The value is not shown, because a careless operator may have written a key here.
        raise ValueError("write package.module:function")
    return value


#: Type of a setting that names a function.
FunctionPath = Annotated[str, AfterValidator(_check_path)]


def load_function(setting: str, path: str) -> Callable[..., Any]:
    """Import the function that a setting names.

    Args:
        setting: Name of the setting, for messages.
        path: ``package.module:function``.

    Returns:
        The function.

    Raises:
        ConfigurationError: If the path cannot be imported or does not name a function.
    """
    # Most processes that read settings run no code of users.
    from app.concurrency.user_code import UserCodeFailed, call

    module, _, name = path.partition(":")
    try:
        function = call(lambda: getattr(import_module(module), name))
    except UserCodeFailed as error:
        raise ConfigurationError(
            f"{setting}: {path!r} cannot be imported ({error}): write "
            "package.module:function, and put its folder on PYTHONPATH"
        ) from error.error
    if not callable(function):
        raise ConfigurationError(
            f"{setting}: {path!r} is a {type(function).__name__}, not a function"
        )
    found: Callable[..., Any] = function
    return found
