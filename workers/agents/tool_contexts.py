"""The contexts of tool calls and of functions, with the keys that stay the same.

The key of a tool call consists of the agent run, the tool, the arguments, and the number of equal
calls that have succeeded before. So a call that is made again has the key of the first call:

    conversation            key
    pay(7)  failed          a
    pay(7)  unknown         a
    pay(7)  completed       a
    pay(7)  running         b
"""

from collections.abc import Iterator, Sequence
from itertools import count

from app.domain.json_text import read_json, write_json
from app.domain.json_values import plain_json
from app.domain.tool_context import ToolContext, idempotency_key
from app.errors import InvalidJson
from app.llm.base import ToolCall
from workers.agents.conversation import OpenTurn
from workers.jobs import Job


def tool_context(job: Job, turns: Sequence[OpenTurn], position: int) -> ToolContext:
    """Return the context of a tool call.

    Args:
        job: The attempt.
        turns: The turns of the conversation, in order; the last turn asks for the tool call.
        position: The tool call's place among the tool calls of the last turn.
    """
    call = turns[-1].tool_calls[position]
    repetition = _repetitions(turns, call)[position]
    key = idempotency_key(job.claimed.id, "tool", repetition, call.name, _canonical(call))
    return _context(job, key, call_id=call.id)


def function_context(job: Job) -> ToolContext:
    """Return the context of a function agent; the key depends on the inputs of the function."""
    return _context(job, idempotency_key(job.claimed.id, "function", job.seen or ""))


def _context(job: Job, key: str, call_id: str | None = None) -> ToolContext:
    return ToolContext(
        run_id=str(job.run.run_id),
        workflow=job.run.workflow.name,
        agent=job.agent.name,
        attempt=job.claimed.attempt,
        idempotency_key=key,
        tenant=job.run.tenant,
        index=job.claimed.item_index,
        # The tool may change the element.
        element=plain_json(job.element),
        call_id=call_id,
    )


def _repetitions(turns: Sequence[OpenTurn], call: ToolCall) -> dict[int, int]:
    """Return a number for each call of the last turn that equals a call, by position.

    Each call gets the smallest number that no completed call of an earlier turn has, and no equal
    call of the same turn. The numbers of a turn do not depend on the results of this turn, so an
    attempt that repeats the turn finds the same numbers.
    """
    taken: set[int] = set()
    numbers: dict[int, int] = {}
    canonical = _canonical(call)
    for turn in turns:
        free = _free(taken)
        numbers = {
            position: next(free)
            for position, other in enumerate(turn.tool_calls)
            if other.name == call.name and _canonical(other) == canonical
        }
        taken = taken | {
            number
            for position, number in numbers.items()
            if position in turn.answers and not turn.answers[position].is_error
        }
    return numbers


def _free(taken: set[int]) -> Iterator[int]:
    return (number for number in count() if number not in taken)


def _canonical(call: ToolCall) -> str:
    """Return the arguments of a call as JSON with sorted keys and without spaces."""
    try:
        return write_json(read_json(call.arguments or "{}"), sort_keys=True).decode()
    except InvalidJson:
        return call.arguments
