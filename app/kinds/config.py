"""Checks of settings that several kinds share."""

from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from app.domain.suggestions import did_you_mean, listed, shortened
from app.errors import WorkflowError
from app.kinds.base import Config


def refuse(path: str, problem: str) -> NoReturn:
    """Refuse a setting.

    Args:
        path: Path of the setting in the config, such as ``headers.Accept``; an empty path means
            the whole config.
        problem: Rest of the sentence after the path, such as ``is 5: give a string``.

    Raises:
        WorkflowError: Always.
    """
    field = f"config.{path}" if path else "config"
    raise WorkflowError(f"{field} {problem}", field=field)


def check_keys(config: Config, known: Collection[str], required: Collection[str] = ()) -> None:
    """Refuse unknown keys and missing required keys.

    Raises:
        WorkflowError: If a key is unknown or missing; the message names the key.
    """
    for key in config:
        if key not in known:
            hint = did_you_mean(key, known) or f"; known: {listed(known)}"
            refuse(key, f"is not a setting of this kind{hint}")
    for key in required:
        if key not in config:
            refuse("", f"lacks {key!r}: add it")


def check_operations(names: Sequence[Any], known: Sequence[str]) -> None:
    """Refuse unknown operations.

    Raises:
        WorkflowError: If an operation is unknown; the message names the operation.
    """
    for place, name in enumerate(names):
        if name not in known:
            refuse(
                f"operations[{place}]",
                f"is {shortened(name)}: give some of {listed(known)}"
                f"{did_you_mean(str(name), known)}",
            )
