"""One agent for contenders that have no agents: a call of the provider's SDK.

The client is the one AgentChord's workers use. Peers import this in environments of their own.
"""

import httpx2
from openai import AsyncOpenAI, DefaultAioHttpClient

from tests.benchmarks.workloads import MAX_TOKENS, MODEL

# Like the workers' setting: connections outlive the pause between two measurements.
LIMITS = httpx2.Limits(max_connections=1000, keepalive_expiry=30)


async def open_client() -> AsyncOpenAI:
    """A client for the running loop."""
    return AsyncOpenAI(http_client=DefaultAioHttpClient(limits=LIMITS), max_retries=0)


async def ask(client: AsyncOpenAI, text: str) -> str:
    """The answer to a prompt."""
    completion = await client.chat.completions.create(
        model=MODEL,
        max_tokens=MAX_TOKENS,
        messages=[{"role": "user", "content": text}],
    )
    return completion.choices[0].message.content or ""
