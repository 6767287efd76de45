"""Labels of runs: short texts by key, by which lists and reports of runs are filtered."""

import re
from collections.abc import Mapping
from typing import Any

from app.domain.plain_text import find_name_problem
from app.domain.suggestions import shortened
from app.errors import WorkflowError

MAX_LABELS = 16
MAX_VALUE_CHARS = 200
#: The form of a key; the regular expression of the whole text.
KEY = re.compile(r"[a-z0-9_.-]{1,63}")


def check_labels(labels: object) -> dict[str, str]:
    """Return labels as a dict, or refuse them.

    Args:
        labels: At most 16 texts by key. A key has 1 to 63 characters of ``a-z``, ``0-9``, ``_``,
            ``.`` and ``-``. A value has 1 to 200 characters that can be seen.

    Raises:
        WorkflowError: If the labels break one of these rules; the message names the label.

    Example:
        check_labels({"team": "claims", "batch": "2026-11"})
    """
    if not isinstance(labels, Mapping):
        raise _refusal(f"are {shortened(labels)}: give texts by key, such as team: claims")
    if len(labels) > MAX_LABELS:
        raise _refusal(f"are {len(labels)}: give at most {MAX_LABELS}")
    for key, value in labels.items():
        if problem := find_key_problem(key):
            raise _refusal(f"have the key {shortened(key)}, which {problem}")
        if problem := find_value_problem(value):
            raise _refusal(f"have a value of {key} that {problem}", key)
    return dict(labels)


def merged_labels(defaults: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a run: the defaults of its workflow, overridden by the run's own labels.

    Raises:
        WorkflowError: If there are too many labels in total.
    """
    return check_labels({**defaults, **own})


def find_key_problem(key: object) -> str | None:
    """Return the reason why a value cannot be the key of a label; None if there is no reason."""
    if isinstance(key, str) and KEY.fullmatch(key):
        return None
    return "is not 1 to 63 characters of a-z, 0-9, _, . and -"


def find_value_problem(value: Any) -> str | None:
    """Return the reason why a value cannot be the text of a label; None if there is no reason."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_VALUE_CHARS:
        return f"is {shortened(value)}: give a text of 1 to {MAX_VALUE_CHARS} characters"
    return find_name_problem(value)


def _refusal(problem: str, key: str = "") -> WorkflowError:
    return WorkflowError(f"labels {problem}", field=f"labels.{key}" if key else "labels")
