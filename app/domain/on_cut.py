"""The treatment of an answer that was cut at ``max_tokens``, or that is empty."""

from enum import StrEnum


class OnCut(StrEnum):
    """The values of ``Agent.on_cut``."""

    FAIL = "fail"
    ACCEPT = "accept"
    CONTINUE = "continue"


def on_cut_of(given: str | None, *, needs_whole: bool) -> OnCut:
    """Return the treatment of a cut answer.

    Args:
        given: The agent's own ``on_cut``, or None.
        needs_whole: Whether half an answer would do harm, because another agent reads the output or
            because the output must fit a schema.

    Example:
        >>> on_cut_of(None, needs_whole=False)
        <OnCut.ACCEPT: 'accept'>
    """
    if given is not None:
        return OnCut(given)
    return OnCut.FAIL if needs_whole else OnCut.ACCEPT


def accepts_empty(given: str | None, *, needs_whole: bool) -> bool:
    """Return whether an answer without a text is accepted, by the rules for a cut answer.

    ``continue`` says nothing about empty answers, because an empty answer has no place where a
    model could go on.

    Args:
        given: As in ``on_cut_of``.
        needs_whole: As in ``on_cut_of``.
    """
    chosen = None if given == OnCut.CONTINUE else given
    return on_cut_of(chosen, needs_whole=needs_whole) is OnCut.ACCEPT
