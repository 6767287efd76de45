"""Decides whether a condition holds, in a time that is bounded for every expression and value.

Most conditions take microseconds and are evaluated on the spot: without loops, the work follows
from the length of the expression and the size of the values, and both are small. A condition with
a macro, a pattern or large values goes to a process of its own that the system stops after two
seconds of CPU; that costs some 50 ms, in a thread, and at most two such processes run at once.
"""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from app.conditions import sandbox
from app.conditions.program import bound, compiled, verdict
from app.domain.condition import Condition
from app.domain.suggestions import shortened
from app.errors import ConditionFailed

#: Values and characters up to which an expression without loops is evaluated on the spot.
INLINE_SIZE = 20_000
MAX_BYTES = 20_000_000
MAX_PROCESSES = 2
# The sandbox limits CPU time; this limit is for a process that gets no CPU at all.
WALL_S = 60.0


class ConditionEvaluator:
    """Evaluates conditions for all agents of a process.

    A condition with a loop, or on more than 20,000 values and characters, costs a process each
    time: where many agents test large values, map the part that they need into the context instead.

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
            values: Outputs by agent, and keys of the context, as JSON values.

        Raises:
            ConditionFailed: If the condition cannot be evaluated, is over a limit, or gives neither
                true nor false.
        """
        data = bound(condition, run_input, values)
        if condition.loops or not _is_small(data):
            return await self._apart(condition, data)
        try:
            answer = compiled(condition).eval(data=data)
        except Exception as error:  # such as an integer that has more than 64 bits
            raise ConditionFailed(
                f"condition {shortened(condition.text)} cannot be evaluated: {error}"
            ) from error
        return verdict(condition.text, answer.type().name(), answer.value())

    async def _apart(self, condition: Condition, data: Mapping[str, Any]) -> bool:
        document = orjson.dumps({"text": condition.text, "variables": data})
        if len(document) > MAX_BYTES:
            raise ConditionFailed(
                f"condition {shortened(condition.text)} reads {len(document):,} bytes, the limit "
                f"is {MAX_BYTES:,}: map the part that it needs into the context"
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
            "simplify it, or map the part that it needs into the context"
        )
    kind, value = orjson.loads(done.stdout)
    return kind, value


def _is_small(data: Any) -> bool:
    """Return whether values and characters are few; the search stops at the limit."""
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
