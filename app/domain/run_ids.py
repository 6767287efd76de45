"""Short ids of runs: the last digits, which are random, and by which every command finds a run.

Ids of runs begin with the time, so that runs of the same minute begin with the same digits. The
beginning of an id is therefore long if it is to be unique.
"""

import re
from collections.abc import Iterable
from uuid import UUID

#: Digits of a whole id, and fewest digits of a short id.
ID_DIGITS, SHORT_ID = 32, 8
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def short_id(id_: UUID) -> str:
    """Return the end of one run's id."""
    return id_.hex[-SHORT_ID:]


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return the shortest ends of ids, with at least eight digits, that are unique among them.

    Texts that are no ids are left out.

    Example:
        >>> short_ids(["019a8f3e-4c1d-7b22-9a01-5f3c9d27e8b4"])
        {'019a8f3e-4c1d-7b22-9a01-5f3c9d27e8b4': '9d27e8b4'}
    """
    digits = {id_: UUID(id_).hex for id_ in ids if _ID.fullmatch(id_)}
    length = SHORT_ID
    while len({each[-length:] for each in digits.values()}) < len(digits):
        length += 1
    return {id_: each[-length:] for id_, each in digits.items()}


def digits_of(name: str) -> str | None:
    """Return the hexadecimal digits of an id or of its part; None if the text cannot be one."""
    digits = name.replace("-", "").lower()
    wrong = not digits or len(digits) > ID_DIGITS or set(digits) - set("0123456789abcdef")
    return None if wrong else digits
