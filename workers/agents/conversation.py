"""The conversation of an llm agent: its messages, and the turn that still waits for tools.

With the stored conversation, an attempt goes on where an earlier attempt stopped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from app.llm.base import LLMResponse, Message, ToolCall
from app.storage.turns import StoredTurn, ToolCallRecord, ToolState, TurnRecord
from app.tools.tool import ToolOutput
from workers.agents.answer_ends import CUT
from workers.texts import storable

OUTCOME_UNKNOWN = (
    "This call was started and then interrupted: its outcome is unknown. It may have done its work "
    "in full, in part or not at all, and it was not repeated. Find out what has happened before "
    "you ask for it again."
)
#: The result that every tool call of a cut answer gets. The end of the last call is missing, and
#: the model meant the earlier calls together with the last call.
CALL_CUT = (
    "This call was not executed: your answer was cut at max_tokens, so the arguments may be "
    "incomplete. If you still need the call, ask for it again with shorter arguments, or with "
    "fewer calls in one answer."
)


@dataclass(kw_only=True)
class OpenTurn:
    """A turn that waits for its tools.

    Attributes:
        id: Id of the turn.
        tool_calls: The tool calls that the model asks for.
        answers: The known results that the model gets, by the position of the tool call.
        interrupted: Positions of the tool calls with an unknown outcome. An earlier attempt has
            started these tool calls.
        record: The record of the turn that must be stored, or None if the turn is stored already.

    If the turn is not stored yet, the turn's answers are not stored either.
    """

    id: UUID
    tool_calls: Sequence[ToolCall]
    answers: dict[int, ToolOutput] = field(default_factory=dict)
    interrupted: set[int] = field(default_factory=set)
    record: TurnRecord | None = None

    def tool_call(
        self,
        position: int,
        state: ToolState,
        result: str | None = None,
        seconds: float | None = None,
    ) -> ToolCallRecord:
        """Return the record of a tool call in a state."""
        tool_call = self.tool_calls[position]
        return ToolCallRecord(
            turn_id=self.id,
            position=position,
            call_id=storable(tool_call.id),
            tool=storable(tool_call.name),
            arguments=storable(tool_call.arguments),
            state=state,
            result=result,
            seconds=seconds,
        )


class Conversation:
    """The messages between an agent and its model, in order.

    Args:
        opening: The first messages: system instructions and the prompt.
        stored: The turns that earlier attempts have stored.

    Attributes:
        turns: Number of answers so far that asked for tools or that the provider paused.
        open_turn: The turn whose tool calls are not all answered; None if all tool calls are
            answered.
        closed: The earlier turns, in order.
        option: Index of the model that answers: 0 is the agent's own model, and 1 is the agent's
            first fallback. The conversation stays with the model that answers.
    """

    def __init__(self, opening: Sequence[Message], stored: Sequence[StoredTurn] = ()) -> None:
        self._messages = list(opening)
        self.turns = 0
        self.option = 0
        self.open_turn: OpenTurn | None = None
        self.closed: list[OpenTurn] = []
        for turn in stored:
            self._take_up(turn)

    @property
    def messages(self) -> Sequence[Message]:
        """The messages that the next call sends to the model."""
        return self._messages

    def ask(self, response: LLMResponse, call_id: UUID) -> None:
        """Add an answer that asks for tools, or that the provider has paused.

        The tool calls of a cut answer are not executed. The result of each of these calls says that
        the call was not executed.

        Args:
            response: The answer.
            call_id: The ledger's id of the call that returned the answer.
        """
        calls, answers = response.tool_calls or (), dict[int, ToolOutput]()
        if response.finish_reason == CUT:
            answers = dict.fromkeys(range(len(calls)), ToolOutput(CALL_CUT, is_error=True))
            response = replace(response, tool_calls=[_readable(call) for call in calls])
        message = response.as_message()
        id_: UUID = uuid7()
        record = TurnRecord(
            id=id_, number=self.turns, call_id=call_id, message=encode_message(message)
        )
        turn = OpenTurn(id=id_, tool_calls=calls, answers=answers, record=record)
        self._open(message, turn)

    def close(self) -> None:
        """Close the open turn, whose tool calls all have answers."""
        turn = self.open_turn
        assert turn is not None, "only a turn that asks for tools is closed"
        for position, tool_call in enumerate(turn.tool_calls):
            text, is_error = turn.answers[position]
            self._messages.append(
                {
                    "role": "tool",
                    "tool_call_id": tool_call.id,
                    "content": text,
                    "is_error": is_error,
                }
            )
        self.closed.append(turn)
        self.open_turn = None

    def _take_up(self, stored: StoredTurn) -> None:
        if self.open_turn is not None:
            # After this turn the model was asked again, so the model knows the unknown outcomes.
            self.tell_unknown(self.open_turn.interrupted)
            self.close()
        message = decode_message(stored.turn.message)
        turn = OpenTurn(id=stored.turn.id, tool_calls=message["tool_calls"])
        for position, call in stored.calls.items():
            if call.result is None:
                turn.interrupted.add(position)
            else:
                failed = call.state is ToolState.FAILED
                turn.answers[position] = ToolOutput(call.result, is_error=failed)
        self._open(message, turn)

    def tell_unknown(self, positions: set[int]) -> None:
        """Answer tool calls of the open turn with a text that says: the outcome is unknown."""
        assert self.open_turn is not None, "only an open turn has calls without an answer"
        unknown = ToolOutput(OUTCOME_UNKNOWN, is_error=True)
        self.open_turn.answers |= dict.fromkeys(positions, unknown)

    def _open(self, message: Message, turn: OpenTurn) -> None:
        self._messages.append(message)
        self.open_turn = turn
        self.turns += 1


def _readable(call: ToolCall) -> ToolCall:
    """Return a call; drop incomplete arguments, because some servers refuse half JSON."""
    try:
        is_whole = isinstance(json.loads(call.arguments), dict)
    except (RecursionError, ValueError):
        is_whole = False
    return call if is_whole else replace(call, arguments="{}")


def encode_message(message: Message) -> str:
    """Encode an assistant's message as JSON; lone surrogates and NUL are kept."""
    calls = [
        {"id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.get("tool_calls") or ()
    ]
    return json.dumps({**message, "tool_calls": calls}, separators=(",", ":"))


def decode_message(text: str) -> Mapping[str, Any]:
    """Decode a message that ``encode_message`` has encoded."""
    message: dict[str, Any] = json.loads(text)
    return message | {"tool_calls": [ToolCall(**call) for call in message["tool_calls"]]}
