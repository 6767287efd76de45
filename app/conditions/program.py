"""Compiles conditions. An error message names the position of the mistake."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from cel_expr_python import cel

from app.domain.condition import INPUT, Condition, place_of
from app.domain.prompt import parsed_text
from app.domain.suggestions import shortened
from app.errors import ConditionFailed, WorkflowError

_PLACE = re.compile(r"<input>:(\d+):(\d+): ([^\n]*)")
_CODES = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")


@lru_cache(maxsize=1024)
def compiled(condition: Condition) -> Any:
    """Compile a condition.

    Raises:
        WorkflowError: If the text is not a CEL expression, or if the expression's result cannot be
            a boolean.
    """
    try:
        expression = environment(tuple(variables(condition))).compile(condition.text)
    except Exception as error:  # CEL's errors have undocumented classes
        raise WorkflowError(_explained(condition.text, str(error))) from error
    kind = expression.return_type()
    if kind not in (cel.Type.BOOL, cel.Type.DYN):
        raise WorkflowError(
            f"is {shortened(condition.text)}, which gives {kind} and not true or false: "
            "compare it with something"
        )
    return expression


def variables(condition: Condition) -> list[str]:
    """Return the variables of a condition, in order."""
    names = {*condition.keys, *condition.words, *condition.elements, *dict(condition.aliases)}
    return sorted(names | {INPUT} if condition.reads_input else names)


@lru_cache(maxsize=1024)
def environment(names: tuple[str, ...]) -> Any:
    """Make the environment of a condition: its variables and the standard functions of CEL."""
    return cel.NewEnv(variables=dict.fromkeys(names, cel.Type.DYN))


def bound(
    condition: Condition, run_input: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of a condition's variables.

    Args:
        condition: The condition.
        run_input: The run's input.
        values: Outputs of agents, values of the context and the element of a for_each, by name, as
            JSON values.
    """
    found: dict[str, Any] = {word: word for word in condition.words}
    found |= {key: values.get(key) for key in condition.keys | condition.elements}
    found |= {variable: values.get(agent) for variable, agent in condition.aliases}
    for name in condition.entered & found.keys():
        if isinstance(found[name], str):
            found[name] = parsed_text(found[name])
    if condition.reads_input:
        found[INPUT] = dict(run_input)
    return found


def nulls_of(condition: Condition, data: Mapping[str, Any]) -> list[str]:
    """Return the variables that are null although the condition reads parts of them."""
    return sorted(name for name in condition.entered if data.get(name) is None)


def verdict(text: str, kind: str, value: Any, *, nulls: Sequence[str] = ()) -> bool:
    """Return the evaluator's result as a bool.

    Args:
        text: The condition's text, for messages.
        kind: CEL's name for the type of the result.
        value: The result.
        nulls: The variables that are null although the condition reads parts of them.

    Raises:
        ConditionFailed: If the result is neither true nor false.
    """
    if kind == "BOOL":
        return bool(value)
    if kind == "ERROR":
        problem = _CODES.sub("", str(value)).replace("Key not found in map :", "there is no key")
        if nulls:
            problem = f"{nulls[0]!r} is null: test {nulls[0]} != null first"
        raise ConditionFailed(f"condition {shortened(text)} cannot be evaluated: {problem}")
    raise ConditionFailed(
        f"condition {shortened(text)} gave {shortened(value)}, which is neither true nor false: "
        "compare it with something"
    )


def _explained(text: str, message: str) -> str:
    found = _PLACE.search(message)
    if found is None:
        return f"is not accepted: {_CODES.sub('', message.splitlines()[0])}"
    line, column, problem = int(found[1]), int(found[2]), found[3]
    problem = _CODES.sub("", problem).removeprefix("Syntax error: ")
    if line < 1:
        return f"is not accepted: {problem}: split the expression into several shorter ones"
    start = sum(len(part) + 1 for part in text.split("\n")[: line - 1])
    return f"is not a CEL expression: {problem} ({place_of(text, start + column - 1)})"
