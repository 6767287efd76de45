"""Finds the parameters that get a context, by the type hints of a function."""

import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

_UNIONS = (typing.Union, types.UnionType)


def type_hints(function: Callable[..., Any], *contexts: type) -> dict[str, Any]:
    """Return the type hints of a function, with the parts of ``Annotated``.

    A module may import the class of a context only under ``TYPE_CHECKING``. So the names of these
    classes are known even if the function's module does not have them.

    Args:
        function: The function.
        *contexts: The classes of contexts.

    Raises:
        NameError: If a hint is a string with an unknown name.
        TypeError: If a hint is not a type.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError:
        own = getattr(inspect.unwrap(function), "__globals__", {})
        known = {each.__name__: each for each in contexts} | own
        return typing.get_type_hints(function, known, include_extras=True)


def is_context(hint: Any, context: type) -> bool:
    """Return whether a type hint asks for a context; the hint may allow None, too."""
    if typing.get_origin(hint) is Annotated:
        return is_context(typing.get_args(hint)[0], context)
    if typing.get_origin(hint) in _UNIONS:
        members = [each for each in typing.get_args(hint) if each is not types.NoneType]
        return len(members) == 1 and is_context(members[0], context)
    return hint is context
