"""Structured output: reads an answer as JSON and checks the JSON against the agent's schema."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.concurrency.user_code import run_in_thread
from app.domain.agent import Agent
from app.domain.answer_text import bare_json, json_in_prose
from app.domain.json_text import read_json
from app.domain.json_values import find_json_problem
from app.errors import InvalidJson, OutputInvalid, ResultTooLarge
from app.llm.base import LLMResponse
from app.llm.tokens import text_bytes
from app.registration.output_schemas import OutputSchemas
from app.sandbox.turns import Turn
from workers.agents.answer_ends import CUT

#: Longer answers are read in a thread, so that the process's other agents go on meanwhile.
INLINE_BYTES = 20_000
_REMEDY = "correct the schema or the prompt, or take another model"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The JSON value of an answer that fits the schema."""

    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Unfit:
    """An answer that does not fit the schema.

    Attributes:
        problem: The path of the wrong value, and the fault of this value.
        remedy: The advice to the user.
        repairable: Whether a second request to the model may help. If the answer ended at
            ``max_tokens``, a second request does not help, because the second answer would end at
            ``max_tokens``, too.
    """

    problem: str
    remedy: str
    repairable: bool = True

    def to_repair(self, response: LLMResponse) -> Sequence[Mapping[str, Any]]:
        """Return the messages that ask the model to correct its answer."""
        request = {
            "role": "user",
            "content": f"Your answer does not fit its JSON Schema: {self.problem}. Answer again: "
            "the whole JSON document, corrected, and nothing else.",
        }
        # OpenAI and Anthropic both refuse an empty message of the assistant.
        return [response.as_message(), request] if response.content.strip() else [request]

    def error(self, agent: Agent) -> OutputInvalid:
        """Return the failure of an agent whose answer does not fit the schema."""
        return OutputInvalid(
            f"agent {agent.name!r}: the answer does not fit output_schema"
            f"{', and the answer before it did not fit either' if self.repairable else ''}: "
            f"{self.problem}: {self.remedy}"
        )


async def read_answer(
    agent: Agent, response: LLMResponse, *, schemas: OutputSchemas, turn: Turn, max_bytes: int
) -> Fit | Unfit:
    """Read an answer as the JSON value that the agent's schema describes.

    Args:
        agent: An agent with an ``output_schema``.
        response: The model's answer.
        schemas: Applies the schema.
        turn: The run of the agent.
        max_bytes: Largest answer that is read.

    Raises:
        ResultTooLarge: If the answer is longer than ``max_bytes``.
        OutputInvalid: If the check against the schema exceeds a limit.
    """
    size = text_bytes(response.content)
    if size > max_bytes:
        raise ResultTooLarge(
            f"agent {agent.name!r} answered {size:,} bytes, the limit is {max_bytes:,}: "
            "lower its max_tokens or raise engine.max_output_bytes"
        )
    if response.tool_calls:
        return Unfit(problem="output: it asks for a tool", remedy="correct the prompt")
    schema = agent.output_schema
    if size <= INLINE_BYTES:
        answer = _read(response, schema)
    else:
        answer = await run_in_thread(lambda: _read(response, schema))
    if isinstance(answer, Unfit):
        return answer
    if problem := await schemas.find_problem(answer.value, schema, "output", turn):
        return Unfit(problem=problem, remedy=_REMEDY)
    return answer


def _read(response: LLMResponse, schema: Mapping[str, Any]) -> Fit | Unfit:
    cut = response.finish_reason == CUT
    try:
        value = _value(response.content, schema, cut=cut)
    except InvalidJson as error:
        return Unfit(
            problem="output: it ends at max_tokens" if cut else str(error),
            remedy="raise its max_tokens" if cut else _REMEDY,
            repairable=not cut,
        )
    if found := find_json_problem(value, "output"):
        return Unfit(problem=" ".join(found), remedy=_REMEDY)
    return Fit(value=value)


def _value(text: str, schema: Mapping[str, Any], *, cut: bool) -> Any:
    """Read a text as JSON.

    The function tries the whole text first. Then the function tries the text without thoughts and
    without the fence. Last, the function tries the only value in this shorter text.

    Raises:
        InvalidJson: If the text is not JSON and does not contain exactly one object or list.
    """
    try:
        return read_json(text, "output")
    except InvalidJson:
        bare = bare_json(text)
    try:
        return read_json(bare, "output")
    except InvalidJson:
        # If the answer was cut, the wanted value may be the incomplete value at the answer's end.
        piece = None if cut else json_in_prose(bare, _brackets(schema))
        if piece is None:
            raise
    return read_json(piece, "output")


def _brackets(schema: Mapping[str, Any]) -> str:
    """Return the opening brackets of the values that fit the schema."""
    kinds = schema.get("type", ["object", "array"])
    each = [kinds] if isinstance(kinds, str) else kinds
    return ("{" if "object" in each else "") + ("[" if "array" in each else "")
