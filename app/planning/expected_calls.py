"""The calls that a plan expects of one execution of an agent."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.agent import Agent
from app.domain.earlier import EarlierAgent
from app.domain.kinds import LLM
from app.domain.schemas import schema_of
from app.domain.server_tools import CODE_EXECUTION, WEB_SEARCH, server_tools_in
from app.domain.usage import Usage
from app.llm.parts import Part
from app.llm.structured import OUTPUT_SCHEMA
from app.llm.tokens import expected_tokens
from app.planning.calls import CallPlanner
from app.planning.figures import ExpectedCall
from app.planning.worst_case import messages_of, specs_of

#: Assumed tokens of an attachment that is not known before the run: about a page.
UNREAD_TOKENS = 2000
#: Assumed tokens of the result when a tool of the provider is used once. Recorded results have
#: about as many tokens.
RESULT_TOKENS = 10_000
OUTPUT_OF_PROGRAM_TOKENS = 500
#: Assumed seconds of a call in which a program runs.
CALL_WITH_PROGRAM_S = 30.0


def calls_as_before(known: EarlierAgent, answer: int, max_tokens: int) -> tuple[ExpectedCall, ...]:
    """Return the calls of a conversation, each as long as the mean of earlier calls.

    Args:
        known: Figures of earlier runs.
        answer: Output tokens of a call if the figures say 0.
        max_tokens: Largest number of output tokens of each call.
    """
    calls = max(round(known.calls), 1)
    usage = Usage(
        input_tokens=round(known.input_tokens / calls),
        output_tokens=min(round(known.output_tokens / calls), max_tokens) or answer,
    )
    return (ExpectedCall(usage=usage, max_tokens=max_tokens),) * calls


def first_calls(
    agent: Agent,
    values: Mapping[str, Any],
    attached: Sequence[Part] | None,
    answer: int,
    max_tokens: int,
    planner: CallPlanner,
) -> tuple[ExpectedCall, ...]:
    """Return the calls of one execution, with assumed uses of tools.

    Args:
        agent: The agent.
        values: The agent's values by name.
        attached: The parts of the agent's attachments; None if they are not known here.
        answer: Output tokens of each call.
        max_tokens: Largest number of output tokens of each call.
        planner: The planner of calls.
    """
    if agent.kind != LLM:
        return ()
    messages = messages_of(agent, values, attached or ())
    schema = {} if agent.output_schema is None else {OUTPUT_SCHEMA: schema_of(agent.output_schema)}
    prompt = expected_tokens(messages, specs_of(agent), schema, model=agent.model)
    if attached is None:
        prompt += UNREAD_TOKENS * len(agent.attachments)
    at_provider = server_tools_in(agent.tools)
    turns = 2 if len(agent.tools) > len(at_provider) and agent.max_turns > 1 else 1
    # After each use of a tool of the provider, the model reads the prompt again.
    results = [
        OUTPUT_OF_PROGRAM_TOKENS if tool.name == CODE_EXECUTION else RESULT_TOKENS
        for tool in at_provider
    ]
    again = sum(prompt + sum(results[: use + 1]) for use in range(len(results)))
    searches = sum(tool.name == WEB_SEARCH for tool in at_provider)
    # With every turn the conversation grows by the request for tools and by the tools' results.
    return tuple(
        ExpectedCall(
            usage=Usage(
                input_tokens=prompt + 2 * turn * answer + (sum(results) if turn else again),
                output_tokens=answer,
                web_searches=0 if turn else searches,
                container_seconds=planner.container_seconds(
                    agent, CALL_WITH_PROGRAM_S, ran=turn == 0
                ),
            ),
            max_tokens=max_tokens,
        )
        for turn in range(turns)
    )
