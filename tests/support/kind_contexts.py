"""A made-up context for a kind of agent, for tests that run no worker."""

from typing import Any

from app.kinds.base import AgentContext


def agent_context(config: Any = None, *, attempt: int = 1, **inputs: Any) -> AgentContext:
    return AgentContext(
        agent="a",
        module="General",
        workflow="w",
        run_id="r",
        agent_run_id="ar",
        attempt=attempt,
        tenant=None,
        config=config or {},
        inputs=inputs,
        timeout_s=10.0,
        max_output_bytes=1000,
    )
