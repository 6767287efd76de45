"""Explains which answers of models were cut or empty, and whether these ends harm the outputs."""

from collections import Counter

from app.domain.counts import counted
from app.monitoring.findings import Finding, Reason, grouped
from app.monitoring.run_history import RunHistory


def explain_answers(history: RunHistory) -> tuple[Finding, ...]:
    """Explain the answers that were cut at ``max_tokens``, and the answers without a text.

    The ledger has every answer, also the answers that were followed by tools or by a continuation.
    An attempt has the end of its last answer, which is the end of the output.

    Args:
        history: The run.
    """
    answers = Counter(call.name for call in history.calls if call.finish_reason is not None)
    cut = Counter(call.name for call in history.calls if call.finish_reason == "length")
    outputs = Counter(
        (each.name, each.finish_reason) for each in history.attempts if each.outcome == "completed"
    )
    found = [
        Finding(
            reason=Reason.CUT,
            agents=(name,),
            text=f"was cut at max_tokens in {_share(count, answers[name])}"
            + _outputs(outputs[name, "length"]),
            remedy="raise max_tokens, or set on_cut to fail or continue",
        )
        for name, count in cut.items()
    ]
    found += [
        Finding(
            reason=Reason.EMPTY,
            agents=(name,),
            text=f"got {'an answer' if count == 1 else counted(count, 'answer')} without a text",
            remedy="correct the prompt, or set on_cut to fail",
        )
        for (name, end), count in outputs.items()
        if end == "empty"
    ]
    return grouped(found)


def _share(count: int, answers: int) -> str:
    return "the only answer" if answers == 1 else f"{count:,} of {counted(answers, 'answer')}"


def _outputs(count: int) -> str:
    if not count:
        return ""
    return (
        ", and the output ends there"
        if count == 1
        else f", and {counted(count, 'output')} end there"
    )
