"""A callback for ``on_failure``: what to do about an agent that has failed for good."""

import structlog

from app.domain.agent import Agent, AgentResult

log = structlog.get_logger(__name__)


def log_failure(agent: Agent, result: AgentResult) -> None:
    """Log the failure; a real one might page somebody."""
    log.warning(
        "agent_failed_for_good",
        agent=agent.name,
        status=str(result.status),
        error=result.error,
        **result.metadata,
    )
