"""OrchestrationEngine against the real stack."""

from typing import Any

import pytest

from app import (
    Agent,
    AnthropicClient,
    CostConfig,
    EngineConfig,
    MonitorConfig,
    OpenAIClient,
    OrchestrationEngine,
    RateLimitConfig,
    RetryPolicy,
    Workflow,
)
from app.errors import ConfigurationError
from tests.support.stack import Stack

pytestmark = pytest.mark.anyio

# The complete example of the API that this engine supports; only its imports are changed.
COMPLETE_EXAMPLE = """\
import asyncio
from app import OrchestrationEngine, EngineConfig
from app import Agent
from app import Workflow
from app import OpenAIClient
from app import RateLimitConfig
from app import CostConfig
from app import MonitorConfig
from app import RetryPolicy

async def main():
    # Initialize client
    llm_client = OpenAIClient(api_key="your-key")

    # Configure engine
    config = EngineConfig(
        rate_limit_config=RateLimitConfig(requests_per_minute=60),
        cost_config=CostConfig(),
        monitor_config=MonitorConfig(),
        default_retry_policy=RetryPolicy(max_retries=3)
    )

    # Create engine
    engine = OrchestrationEngine(llm_client, config)

    # Define workflow
    agent = Agent(
        name="analyzer",
        module="Finance",
        description="Analyze data",
        llm_config={"model": "gpt-4"},
        prompt_template="Analyze..."
    )

    workflow = Workflow(
        name="analysis",
        description="Data analysis",
        agents=[agent],
        cost_budget=5.0
    )

    # Execute
    wf_id = await engine.register_workflow(workflow)
    result = await engine.execute_workflow(wf_id)

    # Get results
    print(f"Status: {result.status.value}")
    print(f"Cost: ${result.total_cost:.4f}")

    # Get system status
    status = engine.get_system_status()
    print(f"Total calls: {status['rate_limiting']['total_requests']}")

asyncio.run(main())
"""


def test_the_complete_example_runs(stack: Stack) -> None:
    (before,) = stack.sql(
        "SELECT coalesce(sum(calls), 0) AS calls FROM costs_by_kind WHERE kind <> 'cached'"
    )

    done = stack.python("-c", COMPLETE_EXAMPLE)

    (entry,) = stack.sql("SELECT cost_usd FROM cost_entries ORDER BY id DESC LIMIT 1")
    assert done.stdout.splitlines() == [
        "Status: completed",
        f"Cost: ${entry['cost_usd']:.4f}",
        f"Total calls: {before['calls'] + 1}",
    ], done.stderr


async def test_a_registered_workflow_comes_back_with_its_results(stack: Stack) -> None:
    engine = make_engine()

    result = await engine.execute_workflow(
        await engine.register_workflow(two_agents()), {"text": "[[sim:reply=a fact]]"}
    )

    reader, writer = result.agents
    assert result.status == "completed"
    assert reader.result is not None
    assert reader.result.output == "a fact"
    assert writer.result is not None
    assert writer.result.is_success()
    assert writer.result.tokens_used > 0
    assert result.total_cost == pytest.approx(reader.result.cost + writer.result.cost)


async def test_the_same_content_keeps_its_id_and_other_content_gets_another(stack: Stack) -> None:
    engine = make_engine()

    ids = [
        await engine.register_workflow(two_agents()),
        await engine.register_workflow(two_agents()),
        await engine.register_workflow(two_agents(cost_budget=7)),
    ]

    assert ids[0] == ids[1] != ids[2]
    versions = stack.sql("SELECT version FROM workflows WHERE id::text = ANY(%s)", ids)
    assert sorted(row["version"] for row in versions) == [1, 2]


@pytest.mark.parametrize(
    "id_", ["no id at all", "01900000-0000-7000-8000-000000000000"], ids=["malformed", "unknown"]
)
async def test_an_unknown_workflow_is_a_value_error(stack: Stack, id_: str) -> None:
    engine = make_engine()

    with pytest.raises(ValueError, match="no workflow has the id"):
        await engine.execute_workflow(id_)

    assert engine.get_workflow_status(id_) is None


async def test_several_workflows_run_at_once_and_come_back_in_order(stack: Stack) -> None:
    engine = make_engine()
    stack.simulator.configure(latency_s=0.5)
    names = ["first", "second", "third"]
    ids = [await engine.register_workflow(one_agent(name)) for name in names]

    results = await engine.execute_multiple_workflows(ids)

    assert [result.name for result in results] == names
    assert {result.status.value for result in results} == {"completed"}
    assert stack.simulator.summary()["peak_in_flight"] == 3


async def test_the_status_of_a_workflow_is_that_of_its_newest_run(stack: Stack) -> None:
    engine = make_engine()
    id_ = await engine.register_workflow(one_agent("status of a workflow"))
    before = engine.get_workflow_status(id_)

    result = await engine.execute_workflow(id_)

    after = engine.get_workflow_status(id_)
    assert before is not None
    assert (before["status"], before["run_id"], before["agents"]) == ("pending", None, {})
    assert after is not None
    assert (after["status"], after["agents"]) == ("completed", {"completed": 1})
    assert after["total_cost"] == pytest.approx(result.total_cost)
    assert (await engine.run(after["run_id"]).state()).status == "completed"


async def test_the_status_of_the_system_counts_what_was_done(stack: Stack) -> None:
    engine = make_engine()
    before = engine.get_system_status()

    id_ = await engine.register_workflow(two_agents())
    result = await engine.execute_workflow(id_, {"text": "nothing"})

    after = engine.get_system_status()
    assert grown(before, after, "monitoring", "workflows", "completed") == 1
    assert grown(before, after, "monitoring", "agents", "executed") == 2
    assert grown(before, after, "rate_limiting", "total_requests") == 2
    assert grown(before, after, "cost_tracking", "total_cost") == pytest.approx(result.total_cost)


async def test_a_limit_that_the_cluster_does_not_keep_is_refused(stack: Stack) -> None:
    config = EngineConfig(rate_limit_config=RateLimitConfig(concurrent_requests=7))

    with pytest.raises(ConfigurationError, match=r"concurrent_requests is 7, .* is 500"):
        OrchestrationEngine(OpenAIClient(api_key="any"), config)


async def test_runs_go_on_after_the_engine_is_shut_down(stack: Stack) -> None:
    engine = OrchestrationEngine(AnthropicClient(api_key="any"))
    id_ = await engine.register_workflow(one_agent("goes on"))

    await engine.shutdown()

    assert (await engine.execute_workflow(id_)).status == "completed"


def make_engine() -> OrchestrationEngine:
    return OrchestrationEngine(OpenAIClient(api_key="any"), EngineConfig())


def one_agent(name: str) -> Workflow:
    agent = Agent(name="only", prompt_template=name, llm_config={"model": "gpt-4o-mini"})
    return Workflow(name=name, agents=[agent])


def two_agents(**rules: Any) -> Workflow:
    reader = Agent(
        name="reader", prompt_template="Read {text}", llm_config={"model": "gpt-4o-mini"}
    )
    writer = Agent(
        name="writer",
        prompt_template="Write about {reader}",
        llm_config={"model": "claude-haiku-4-5"},
        dependencies=["reader"],
    )
    return Workflow(name="two agents", agents=[reader, writer], **rules)


def grown(before: dict[str, Any], after: dict[str, Any], *path: str) -> Any:
    for key in path:
        before, after = before[key], after[key]
    return after - before  # type: ignore[operator]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"rate_limit_config": RateLimitConfig(requests_per_minute=7)}, "requests_per_minute"),
        ({"max_concurrent_workflows": 7}, "max_concurrent_workflows"),
        ({"cost_config": CostConfig(default_input_cost=1, default_output_cost=1)}, "cost_config"),
        ({"monitor_config": MonitorConfig(metrics_interval=1.0)}, "monitor_config"),
    ],
)
async def test_a_config_that_contradicts_any_value_of_the_cluster_is_refused(
    stack: Stack, config: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        OrchestrationEngine(OpenAIClient(api_key="any"), EngineConfig(**config))


async def test_agents_without_a_retry_policy_get_the_configs(stack: Stack) -> None:
    policy = RetryPolicy(max_retries=1, base_delay=0.1)
    engine = OrchestrationEngine(
        OpenAIClient(api_key="any"), EngineConfig(default_retry_policy=policy)
    )
    agent = Agent(
        name="a",
        prompt_template="[[sim:status=500]] always fails",
        llm_config={"model": "gpt-4o-mini"},
    )

    id_ = await engine.register_workflow(Workflow(name="retried", agents=[agent]))
    result = await engine.execute_workflow(id_)

    assert result.agents[0].result is not None
    assert result.agents[0].result.retry_count == 1
