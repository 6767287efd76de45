"""AgentChord: fleets of LLM agents on Celery, with budgets and limits that hold.

A name is imported at its first use in a program, so that ``import app`` takes almost no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.client.cost_tracker import CostTracker
    from app.client.engine import OrchestrationEngine
    from app.client.event_bus import EventBus
    from app.client.history import Event
    from app.client.many import enqueue_many, enqueue_many_async, wait_all, wait_all_async
    from app.client.monitor import Monitor
    from app.client.run import Run, enqueue, enqueue_async, list_runs
    from app.domain.agent import Agent, AgentResult
    from app.domain.dependencies import DependencyResolver
    from app.domain.events import RunEvent
    from app.domain.policies import CostConfig, EngineConfig, MonitorConfig, RateLimitConfig
    from app.domain.retry import RetryPolicy, RetryStrategy
    from app.domain.run_options import RunOptions
    from app.domain.status import AgentStatus, WorkflowStatus
    from app.domain.tool_context import ToolContext
    from app.domain.workflow import Workflow
    from app.errors import AgentChordError
    from app.failures.handler import FailureHandler
    from app.llm.anthropic import AnthropicClient
    from app.llm.base import LLMClient, LLMResponse
    from app.llm.credentials import Credentials
    from app.llm.openai import OpenAIClient
    from app.monitoring.recent import MetricEvent
    from app.rate_limits.single import RateLimiter
    from app.rate_limits.token_bucket import TokenBucket
    from app.tools.tool import tool

_MODULES = {
    "Agent": "app.domain.agent",
    "AgentChordError": "app.errors",
    "AgentResult": "app.domain.agent",
    "AgentStatus": "app.domain.status",
    "AnthropicClient": "app.llm.anthropic",
    "CostConfig": "app.domain.policies",
    "CostTracker": "app.client.cost_tracker",
    "Credentials": "app.llm.credentials",
    "DependencyResolver": "app.domain.dependencies",
    "EngineConfig": "app.domain.policies",
    "Event": "app.client.history",
    "EventBus": "app.client.event_bus",
    "FailureHandler": "app.failures.handler",
    "LLMClient": "app.llm.base",
    "LLMResponse": "app.llm.base",
    "MetricEvent": "app.monitoring.recent",
    "Monitor": "app.client.monitor",
    "MonitorConfig": "app.domain.policies",
    "OpenAIClient": "app.llm.openai",
    "OrchestrationEngine": "app.client.engine",
    "RateLimitConfig": "app.domain.policies",
    "RateLimiter": "app.rate_limits.single",
    "RetryPolicy": "app.domain.retry",
    "RetryStrategy": "app.domain.retry",
    "Run": "app.client.run",
    "RunEvent": "app.domain.events",
    "RunOptions": "app.domain.run_options",
    "TokenBucket": "app.rate_limits.token_bucket",
    "ToolContext": "app.domain.tool_context",
    "Workflow": "app.domain.workflow",
    "WorkflowStatus": "app.domain.status",
    "enqueue": "app.client.run",
    "enqueue_async": "app.client.run",
    "enqueue_many": "app.client.many",
    "enqueue_many_async": "app.client.many",
    "list_runs": "app.client.run",
    "tool": "app.tools.tool",
    "wait_all": "app.client.many",
    "wait_all_async": "app.client.many",
}

__all__ = [
    "Agent",
    "AgentChordError",
    "AgentResult",
    "AgentStatus",
    "AnthropicClient",
    "CostConfig",
    "CostTracker",
    "Credentials",
    "DependencyResolver",
    "EngineConfig",
    "Event",
    "EventBus",
    "FailureHandler",
    "LLMClient",
    "LLMResponse",
    "MetricEvent",
    "Monitor",
    "MonitorConfig",
    "OpenAIClient",
    "OrchestrationEngine",
    "RateLimitConfig",
    "RateLimiter",
    "RetryPolicy",
    "RetryStrategy",
    "Run",
    "RunEvent",
    "RunOptions",
    "TokenBucket",
    "ToolContext",
    "Workflow",
    "WorkflowStatus",
    "enqueue",
    "enqueue_async",
    "enqueue_many",
    "enqueue_many_async",
    "list_runs",
    "tool",
    "wait_all",
    "wait_all_async",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'app' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
