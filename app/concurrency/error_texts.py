"""Texts of any exception. The methods of a user's exception may raise any exception themselves."""

import traceback

#: Longer messages of exceptions are cut.
MAX_MESSAGE_CHARS = 100_000
MAX_NAME_CHARS = 200
MAX_TRACEBACK_CHARS = 20_000


def described(error: BaseException) -> str:
    """Return the class and the message of any exception, even if its methods fail."""
    return f"{class_name(error)}: {message_of(error)}".removesuffix(": ")


def class_name(error: BaseException) -> str:
    """Return the name of an exception's class, as at most 200 characters that can be shown."""
    try:
        name = str.__getitem__(type(error).__name__, slice(MAX_NAME_CHARS))
    except BaseException:  # noqa: BLE001  a metaclass of a user may raise any exception
        name = ""
    return "".join(each if each.isprintable() else "?" for each in name) or "an exception"


def message_of(error: BaseException) -> str:
    """Return the message of any exception, even if its methods fail."""
    # str() of a user's exception may raise any exception, or return a subclass of str.
    try:
        return str.__getitem__(str(error), slice(MAX_MESSAGE_CHARS))
    except BaseException as odd:  # noqa: BLE001
        return f"(its message cannot be read: {class_name(odd)})"


def traceback_of(error: BaseException) -> str:
    """Return the traceback of any exception, for a log.

    A log gets this text and not the exception, because some loggers call methods of the exception.
    """
    try:
        lines = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001  a property of a user's exception may raise any exception
        lines = described(error)
    return lines[:MAX_TRACEBACK_CHARS]
