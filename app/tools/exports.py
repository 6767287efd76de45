"""The functions that a module offers to workflows; a stored name reaches no other function.

A module usually imports more than it offers. If a workflow could name an imported function, a
module with ``from subprocess import getoutput`` would offer a shell.
"""

from types import ModuleType
from typing import Any


def is_private(name: str) -> bool:
    """Return whether a name belongs to its module alone."""
    return name.startswith("_")


def exports_of(module: ModuleType) -> dict[str, Any]:
    """Return the public values that a module defines itself, or lists in ``__all__``, by name."""
    listed = getattr(module, "__all__", ())
    return {
        name: value
        for name, value in vars(module).items()
        if not is_private(name)
        and (name in listed or getattr(value, "__module__", None) == module.__name__)
    }
