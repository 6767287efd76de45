"""A callback for ``on_failure``, called for each agent that has failed and is not retried."""

import structlog

from app.domain.agent import Agent, AgentResult

log = structlog.get_logger(__name__)


def log_failure(agent: Agent, result: AgentResult) -> None:
    """Log the failure; a callback in production could alert the engineer on call."""
    log.warning(
        "agent_failed_for_good",
        agent=agent.name,
        status=str(result.status),
        error=result.error,
        **result.metadata,
    )
