"""Decides whether a condition is true. The time is limited for every expression and value.

Most conditions take microseconds. The worker evaluates these conditions in its own process. The
work for a condition without loops is at most in proportion to the length of the expression,
multiplied by the size of the values. If a condition has a macro or a pattern, or if this product is
large, the sandbox evaluates the condition. The time and the memory of the sandbox are limited.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from app.conditions.program import bound, compiled, nulls_of, verdict
from app.domain.condition import Condition
from app.domain.json_values import is_small
from app.domain.suggestions import shortened
from app.errors import ConditionFailed
from app.sandbox.processes import Sandbox, SandboxLimit
from app.sandbox.program import for_cel
from app.sandbox.turns import Turn

#: If a condition has no loops and reads at most this many values and characters, the worker itself
#: evaluates the condition.
INLINE_SIZE = 20_000
#: Largest product of the expression's length and the values' size that the worker itself evaluates.
#: CEL needs less than 100 ns for a unit of this product.
INLINE_WORK = 1_000_000


class ConditionEvaluator:
    """Evaluates conditions for all agents of a process.

    If a condition has a loop, or reads large values, a separate process evaluates the condition,
    and the runs take turns. If many agents test large values, map only a small part of the values
    into the context, and test this part.

    Args:
        sandbox: Evaluates the conditions with loops or large values.

    Example:
        evaluator = ConditionEvaluator(Sandbox())
        turn = Turn(tenant, run_id)
        if await evaluator.holds(condition, run_input={"total": 12}, values=values, turn=turn):
            ...
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def holds(
        self,
        condition: Condition,
        *,
        run_input: Mapping[str, Any],
        values: Mapping[str, Any],
        turn: Turn,
    ) -> bool:
        """Decide whether a condition is true.

        Args:
            condition: The condition.
            run_input: The run's input.
            values: Outputs of agents and values of the context, by name, as JSON values.
            turn: The run whose agent has the condition.

        Raises:
            ConditionFailed: If the condition cannot be evaluated, exceeds a limit, or is neither
                true nor false.
        """
        # Large texts may contain JSON, and are parsed in a thread.
        if is_small((run_input, values), INLINE_SIZE):
            data = bound(condition, run_input, values)
        else:
            data = await asyncio.to_thread(bound, condition, run_input, values)
        inline_size = min(INLINE_SIZE, INLINE_WORK // len(condition.text))
        if condition.loops or not is_small(data, inline_size):
            return await self._apart(condition, data, turn)
        try:
            answer = compiled(condition).eval(data=for_cel(data))
        except Exception as error:  # CEL's errors have undocumented classes
            raise ConditionFailed(
                f"condition {shortened(condition.text)} cannot be evaluated: {error}"
            ) from error
        nulls = nulls_of(condition, data)
        return verdict(condition.text, answer.type().name(), answer.value(), nulls=nulls)

    async def _apart(self, condition: Condition, data: Mapping[str, Any], turn: Turn) -> bool:
        task = {"text": condition.text, "variables": data}
        try:
            kind, value = await self._sandbox.run("condition", task, turn)
        except SandboxLimit as error:
            raise ConditionFailed(
                f"condition {shortened(condition.text)} {error}: simplify the condition, or map "
                "the part that it needs into the context"
            ) from error
        return verdict(condition.text, kind, value, nulls=nulls_of(condition, data))
