"""The provider as simulated processes see it: answers, errors, silence, and a ledger of its own."""

import asyncio
import json
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID
from zlib import crc32

from app.domain.money import HoldRequest
from app.domain.usage import Usage
from app.errors import (
    BadRequest,
    ConnectionFailed,
    Overloaded,
    ProviderError,
    RateLimited,
    ServerFailure,
)
from app.llm.base import LLMClient, LLMResponse, Message, ToolCall
from tests.simulation.backends import HOLD
from tests.simulation.database import Boundary
from tests.simulation.loop import CURRENT
from tests.simulation.trace import Trace

#: Dollars per 1,000 tokens of input, and per 1,000 tokens of output.
INPUT_USD, OUTPUT_USD = Decimal("0.01"), Decimal("0.03")
#: A conversation with fewer messages goes on with a tool, so it has three turns.
MESSAGES_WITH_TOOLS = 6
#: Beginning of the prompts of which the provider refuses a third.
REFUSED = "repaired"
ANSWER = re.compile(r"<[^<>]+>")
ERRORS: tuple[tuple[type[ProviderError], int], ...] = (
    (Overloaded, 503),
    (ServerFailure, 500),
    (RateLimited, 429),
    (BadRequest, 400),
)
#: Retry-After of a refusal; after the longest one, agents do not wait but are handed back.
RETRY_AFTER_S = (None, 2.0, 9.0)


@dataclass(kw_only=True)
class Served:
    """A request that reached the provider.

    Attributes:
        number: Number of the request, so that no two answers are the same.
        hold: The hold of the request.
        prompt: The user's message.
        agent: The agent that asked.
        turns: Answers of earlier calls that the request contains.
        answer: The answer; None if the client left before the answer.
        cost_usd: Dollars that the provider bills for its answer; zero without an answer.
        status: HTTP status; 0 if the connection was cut or the client left.
        answered_at: Time of the answer, in seconds since the epoch.
    """

    number: int
    hold: HoldRequest
    prompt: str
    agent: str
    turns: int
    answer: str | None = None
    cost_usd: Decimal = Decimal(0)
    status: int = 0
    answered_at: float = 0.0


@dataclass
class Provider:
    """All providers of the cluster.

    Attributes:
        trouble: Share of calls that meet an error, silence or a cut.
        down: Models that fail for all agents.
        refuses: Whether the provider refuses some items of the workflow that is to be repaired.
        served: Requests that have reached the provider, by call.
        prompts: Prompts of agents with a cache, by the agent's name.
    """

    generator: random.Random
    trace: Trace
    boundary: Boundary
    trouble: float = 0.0
    refuses: bool = True
    down: set[str] = field(default_factory=set)
    served: dict[UUID, Served] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    in_flight: int = 0

    async def serve(self, hold: HoldRequest, messages: Sequence[Message]) -> Served:
        """Answer a request, late or never.

        Raises:
            ProviderError: In the form into which the clients map the SDKs' errors.
        """
        await self._boundary("call_before")
        if self.generator.random() < self.trouble / 4:
            raise ConnectionFailed("connection refused", reached=False)
        prompt = str(messages[0]["content"])
        agent = prompt.partition(":")[0]
        assert hold.call_id not in self.served, f"call of {agent} was sent twice under one hold"
        served = self.served[hold.call_id] = Served(
            number=len(self.served) + 1,
            hold=hold,
            prompt=prompt,
            agent=agent,
            turns=sum(message["role"] == "assistant" for message in messages),
        )
        self.trace.name(hold.call_id, f"call{len(self.served)}")
        self.trace.tell(f"{self.trace.called(hold.call_id)}: {agent} attempt {hold.attempt} sent")
        try:
            await self._boundary("call_sent")
            await asyncio.sleep(self._latency_s())
            if hold.model in self.down:
                served.status = 503
                raise Overloaded("down", status=503, request_id=str(hold.call_id))
            if self.refuses and agent.startswith(REFUSED) and crc32(agent.encode()) % 3 == 0:
                served.status = 400
                raise BadRequest("refused", status=400, request_id=str(hold.call_id))
            if self.generator.random() < self.trouble:
                await self._fail(served)
        except asyncio.CancelledError:
            self.trace.tell(f"{self.trace.called(hold.call_id)}: {agent} left")
            raise
        served.status = 200
        served.answered_at = time.time()
        served.answer = f"<{agent} {hold.attempt} {served.number}>"
        return served

    def asked_by(self, agent: str) -> str | None:
        """Return the prompt of an agent with a cache; see ``workflows``."""
        return self.prompts.get(agent)

    async def answered(self, served: Served) -> None:
        """Let a billed answer travel back to the client."""
        self.trace.tell(f"{self.trace.called(served.hold.call_id)}: {served.agent} answered")
        await self._boundary("call_answered")

    def _latency_s(self) -> float:
        slow = self.generator.random() < 0.05
        return self.generator.uniform(5, 20) if slow else self.generator.expovariate(1 / 1.5)

    async def _fail(self, served: Served) -> None:
        draw = self.generator.random()
        if draw < 0.15:
            await asyncio.sleep(10_000)  # silence: the agent's timeout ends it
        if draw < 0.35:
            raise ConnectionFailed("the connection was lost")
        kind, status = self.generator.choices(ERRORS, weights=(4, 4, 4, 1))[0]
        served.status = status
        raise kind(
            f"status {status}",
            status=status,
            request_id=str(served.hold.call_id),
            retry_after_s=self.generator.choice(RETRY_AFTER_S) if kind is RateLimited else None,
        )

    async def _boundary(self, name: str) -> None:
        process = CURRENT.get()
        assert process is not None, "only processes call"
        await asyncio.sleep(0)
        self.boundary(name, process)
        if not process.alive or process.frozen:
            await asyncio.sleep(0)


def _tool_call(tool: Mapping[str, Any], served: Served) -> ToolCall:
    """Make a tool call with a unique key, by which its executions can be counted."""
    key = f"{served.hold.call_id} {tool['name']}"
    return ToolCall(id=key, name=tool["name"], arguments=json.dumps({"key": key}))


class SimulatedClient(LLMClient):
    """The client of one process for one provider."""

    def __init__(self, name: str, provider: Provider) -> None:
        self.provider = name
        self._provider = provider

    async def complete_with_tools(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        max_tokens: int | None = None,
        before_sent: Callable[[], Awaitable[None]] | None = None,
        **kwargs: Any,
    ) -> LLMResponse:
        """See ``LLMClient``."""
        if before_sent is not None:
            await before_sent()
        served = await self._provider.serve(HOLD.get(), messages)
        # The tokens are computed from the text, so that the cost stays below the hold.
        usage = Usage(
            input_tokens=len(served.prompt) // 8 + 1, output_tokens=(max_tokens or 8) // 2 + 1
        )
        served.cost_usd = (usage.input_tokens * INPUT_USD + usage.output_tokens * OUTPUT_USD) / 1000
        await self._provider.answered(served)
        tool_calls = []
        if tools and len(messages) < MESSAGES_WITH_TOOLS:
            tool_calls = [_tool_call(tool, served) for tool in tools]
        return LLMResponse(
            content=served.answer or "",
            model=model,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            usage=usage,
            request_id=str(served.hold.call_id),
            tool_calls=tool_calls or None,
        )

    def get_model_info(self, model: str) -> dict[str, Any]:
        """See ``LLMClient``."""
        return {"provider": self.provider, "context_window": None, "max_output_tokens": None}

    async def close(self) -> None:
        """Do nothing, because nothing is open."""
