"""Several mistakes of a workflow in one error, so that the author corrects all of them at once."""

from collections.abc import Callable, Iterable, Iterator

from app.errors import SeveralMistakes, UnknownModel, WorkflowError

#: A mistake in a workflow, in its input or in its prices; it has the path of its field.
Mistake = WorkflowError | UnknownModel


def mistakes_of(check: Callable[[], object]) -> list[Mistake]:
    """Run a check, and return the mistakes that the check raises as an error."""
    try:
        check()
    except (WorkflowError, UnknownModel) as error:
        return parts_of(error)
    return []


def parts_of(error: Mistake) -> list[Mistake]:
    """Return the mistakes that an error names; most errors name only themselves."""
    return [error] if isinstance(error, UnknownModel) else list(error.mistakes)


def refuse(mistakes: Iterable[Mistake]) -> None:
    """Raise the mistakes as one error, or do nothing if there is no mistake.

    Raises:
        WorkflowError: A single mistake is raised as it is; several mistakes are raised as
            ``SeveralMistakes``.
        UnknownModel: If the only mistake is a model without a price.
    """
    found = list(mistakes)
    if len(found) == 1:
        raise found[0]
    if found:
        raise SeveralMistakes(found)


def refuse_all(checks: Iterable[Callable[[], object]]) -> None:
    """Run all checks, also after a check has failed, and raise all mistakes as ``refuse`` does."""
    refuse(mistake for check in checks for mistake in mistakes_of(check))


def at_place(mistakes: Iterable[Mistake], place: str) -> Iterator[Mistake]:
    """Yield mistakes of one element of a list; the place, such as ``runs[3]``, begins each one."""
    for mistake in mistakes:
        field = f"{place}.{mistake.field}" if mistake.field else place
        yield _moved(mistake, f"{place}: {mistake}", field)


def inside(mistakes: Iterable[Mistake], agent: str, place: str) -> Iterator[Mistake]:
    """Yield mistakes of a sub-workflow as mistakes of the outer workflow.

    Args:
        mistakes: The mistakes of the sub-workflow.
        agent: Name of the outer agent; it begins the messages.
        place: Path of the sub-workflow, such as ``agents[0].config.workflow``; it begins the paths
            of the fields.
    """
    for mistake in mistakes:
        field = f"{place}.{mistake.field}" if mistake.field else place
        yield _moved(mistake, f"agent {agent!r}: config.workflow: {mistake}", field)


def _moved(mistake: Mistake, message: str, field: str) -> Mistake:
    kind = UnknownModel if isinstance(mistake, UnknownModel) else WorkflowError
    return kind(message, field=field)
