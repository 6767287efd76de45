"""Decides whether a condition is true. The time is limited for every expression and value.

Most conditions take microseconds. The worker evaluates these conditions in its own process. The
work for a condition without loops depends only on the length of the expression and the size of the
values, which are small. If a condition has a macro, a pattern or large values, a separate process
evaluates the condition. The system stops that process after two seconds of CPU. A thread waits some
50 ms for a separate process. At most two separate processes run at once.
"""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.conditions import sandbox
from app.conditions.program import bound, compiled, verdict
from app.domain.condition import Condition
from app.domain.json_text import read_json, write_json
from app.domain.suggestions import shortened
from app.errors import ConditionFailed

#: If a condition has no loops and at most this many values and characters, the worker itself
#: evaluates the condition.
INLINE_SIZE = 20_000
MAX_BYTES = 20_000_000
MAX_PROCESSES = 2
# The sandbox limits the CPU time of its process. This limit also ends a process that gets no CPU
# time.
WALL_S = 60.0


class ConditionEvaluator:
    """Evaluates conditions for all agents of a process.

    If a condition has a loop, or reads more than 20,000 values and characters, each evaluation
    starts a process. If many agents test large values, map only a small part of the values into the
    context, and test this part.

    Example:
        evaluator = ConditionEvaluator()
        if await evaluator.holds(condition, run_input={"total": 12}, values={"screen": "ok"}):
            ...
    """

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_PROCESSES)

    async def holds(
        self, condition: Condition, run_input: Mapping[str, Any], values: Mapping[str, Any]
    ) -> bool:
        """Decide whether a condition is true.

        Args:
            condition: The condition.
            run_input: The run's input.
            values: Outputs of agents and values of the context, by name, as JSON values.

        Raises:
            ConditionFailed: If the condition cannot be evaluated, exceeds a limit, or is neither
                true nor false.
        """
        data = bound(condition, run_input, values)
        if condition.loops or not _is_small(data):
            return await self._apart(condition, data)
        try:
            answer = compiled(condition).eval(data=_for_cel(data))
        except Exception as error:  # CEL's errors have undocumented classes
            raise ConditionFailed(
                f"condition {shortened(condition.text)} cannot be evaluated: {error}"
            ) from error
        return verdict(condition.text, answer.type().name(), answer.value())

    async def _apart(self, condition: Condition, data: Mapping[str, Any]) -> bool:
        document = write_json({"text": condition.text, "variables": data})
        if len(document) > MAX_BYTES:
            raise ConditionFailed(
                f"condition {shortened(condition.text)} reads {len(document):,} bytes, and the "
                f"limit is {MAX_BYTES:,}: map the part that the condition needs into the context"
            )
        async with self._places:
            kind, value = await asyncio.to_thread(_evaluate, document, condition.text)
        return verdict(condition.text, kind, value)


def _evaluate(document: bytes, text: str) -> tuple[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(Path(sandbox.__file__))],
            input=document,
            capture_output=True,
            timeout=WALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConditionFailed(f"condition {shortened(text)} took over {WALL_S:g} s") from error
    if done.returncode:
        raise ConditionFailed(
            f"condition {shortened(text)} took over {sandbox.CPU_S} s of CPU, or too much memory: "
            "simplify the condition, or map the part that it needs into the context"
        )
    kind, value = read_json(done.stdout)
    return kind, value


def _for_cel(value: Any) -> Any:
    """Return a copy of small data with the integers that CEL has; the sandbox does the same."""
    if isinstance(value, dict):
        return {key: _for_cel(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_for_cel(part) for part in value]
    return sandbox.integer(value) if type(value) is int else value


def _is_small(data: Any) -> bool:
    """Return whether the data has at most INLINE_SIZE values and characters.

    The count stops as soon as it exceeds the limit.
    """
    waiting = [data]
    size = 0
    while waiting and size <= INLINE_SIZE:
        value = waiting.pop()
        size += 1
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, dict):
            size += sum(map(len, value))
            waiting.extend(value.values())
        elif isinstance(value, list):
            size += len(value)
            waiting.extend(value if size <= INLINE_SIZE else ())
    return size <= INLINE_SIZE
