"""The ways in which a model's answer ends, and the ends that an agent does not accept.

An agent never uses a cut or refused answer in silence. Either the agent fails, or the agent's
result says how the answer ended.
"""

from collections.abc import Sequence

from app.domain.agent import Agent
from app.domain.on_cut import OnCut, accepts_empty, on_cut_of
from app.errors import OutputInvalid
from app.llm.base import LLMResponse, Message

#: The ends of a cut answer, of a refused answer, and of an answer without text and calls.
CUT, REFUSED, EMPTY = "length", "content_filter", "empty"
#: The end of a paused answer. When the provider gets the paused answer back, the model continues
#: the answer.
PAUSED = "pause"
GO_ON = (
    "Continue your answer exactly where it stopped: it was cut at its length limit. Begin with the "
    "next character, repeat nothing, and add nothing else."
)


def end_of(response: LLMResponse) -> str:
    """Return the ``finish_reason`` of an answer, or ``empty`` if the model stopped without a text.

    Args:
        response: The answer.
    """
    if response.finish_reason != "stop" or response.tool_calls or response.content.strip():
        return response.finish_reason
    return EMPTY


def check_refused(agent: Agent, response: LLMResponse) -> None:
    """Refuse an answer if the model refused to answer, or if a content filter ended the answer.

    Raises:
        OutputInvalid: If the answer ended in one of these two ways. The error contains the words of
            the refusal. A second request would not help.
    """
    if response.finish_reason == REFUSED:
        refusal = response.metadata.get("refusal") or response.content or "it gave no reason"
        raise OutputInvalid(f"agent {agent.name!r}: the model refused to answer: {refusal!s:.300}")


def check_end(agent: Agent, response: LLMResponse, *, is_read: bool) -> None:
    """Refuse the last answer of an agent if the end of the answer is not accepted.

    Args:
        agent: The agent.
        response: An answer without tool calls. If the agent has an ``output_schema``, an empty
            answer is not refused here, because the model may repair the answer.
        is_read: Whether another agent reads the output.

    Raises:
        OutputInvalid: If the model refused to answer, or if the answer is cut or empty and the
            agent does not accept a cut or empty answer.
    """
    check_refused(agent, response)
    if response.finish_reason == PAUSED:
        raise OutputInvalid(
            f"agent {agent.name!r}: the provider paused its tools while the model was to "
            f"{'repair' if agent.output_schema else 'continue'} its answer: raise max_tokens, or "
            "lower max_uses of the provider's tools"
        )
    end, has_schema = end_of(response), agent.output_schema is not None
    needs_whole = is_read or has_schema
    if end == CUT and on_cut_of(agent.on_cut, needs_whole=needs_whole) is not OnCut.ACCEPT:
        raise still_cut(agent, response)
    if end == EMPTY and not has_schema and not accepts_empty(agent.on_cut, needs_whole=needs_whole):
        raise OutputInvalid(
            f"agent {agent.name!r}: the model answered without a text: correct the prompt, or set "
            "on_cut to accept"
        )


def still_cut(agent: Agent, response: LLMResponse) -> OutputInvalid:
    """Return the failure of an agent whose answer was cut."""
    if agent.on_cut != OnCut.CONTINUE:
        others = "accept" if agent.output_schema else "accept or continue"
        remedy = f": raise its max_tokens, or set on_cut to {others}"
    elif response.content.strip():
        remedy = f" after {agent.max_turns} turns: raise its max_tokens or its max_turns"
    else:
        remedy = " before it has a text, so the model cannot go on: raise its max_tokens"
    return OutputInvalid(f"agent {agent.name!r}: the answer ends at max_tokens{remedy}")


def to_go_on(response: LLMResponse) -> Sequence[Message]:
    """Return the messages that ask the model to go on with a cut answer.

    The last message is a message of the user, because some models refuse a conversation that ends
    with a message of the assistant.
    """
    return [response.as_message(), {"role": "user", "content": GO_ON}]
