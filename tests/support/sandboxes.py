"""The processes of sandboxes."""

import psutil

from app.sandbox import program


def sandbox_processes() -> list[psutil.Process]:
    """Return the sandbox processes of this process, zombies included."""
    found = []
    for child in psutil.Process().children():
        try:
            if child.status() == psutil.STATUS_ZOMBIE or program.__file__ in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found
