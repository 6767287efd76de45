"""Modules that a test writes: they are forgotten after the test."""

import sys
from pathlib import Path
from types import ModuleType


def forget_modules(folder: Path) -> None:
    """Forget the modules that were imported from a folder, and no others.

    A library that was forgotten and imported again would register its classes twice. A hostile
    module may have put an object of its own class in its place, so only the class is looked at.
    """
    for name, module in list(sys.modules.items()):
        if issubclass(type(module), ModuleType):
            place = vars(module).get("__file__")
            foreign = not isinstance(place, str) or not Path(place).is_relative_to(folder)
        else:
            foreign = type(module).__module__ != name
        if not foreign:
            del sys.modules[name]
