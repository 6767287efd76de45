import json
from datetime import UTC, datetime

import pytest

from app.domain.agent import Agent, AgentResult, provider_of
from app.domain.retry import RetryPolicy, RetryStrategy
from app.domain.status import AgentStatus
from app.domain.tool_references import tool_reference
from app.errors import WorkflowError


class Tool:
    def reference(self) -> dict[str, str]:
        return {"name": "lookup", "module": "tools.stock"}


def test_an_agent_has_the_documented_defaults() -> None:
    agent = Agent(name="analyzer", prompt_template="Analyze...")

    assert agent.module == "General"
    assert agent.max_retries == 3
    assert agent.timeout == 300.0
    assert agent.cost_limit == 1.0
    assert agent.priority == 5
    assert agent.status is AgentStatus.PENDING
    assert agent.result is None


@pytest.mark.parametrize(
    ("llm_config", "provider"),
    [
        ({"model": "gpt-4o-mini"}, "openai"),
        ({"model": "o3-mini"}, "openai"),
        ({"model": "ft:gpt-4o:acme"}, "openai"),
        ({"model": "claude-sonnet-4-5"}, "anthropic"),
        ({"model": "llama-3", "provider": "local"}, "local"),
        ({"model": "gpt-4o", "provider": "azure"}, "azure"),
    ],
)
def test_the_provider_is_given_or_follows_from_the_model(
    llm_config: dict[str, str], provider: str
) -> None:
    assert provider_of(llm_config) == provider


def test_a_model_of_no_known_provider_is_refused_with_the_remedy() -> None:
    with pytest.raises(WorkflowError, match=r"unknown model 'llama-3'.*\"provider\": \"openai\""):
        provider_of({"model": "llama-3"})


def test_an_agent_can_execute_once_all_its_dependencies_completed() -> None:
    agent = Agent(name="report", prompt_template="Report.", dependencies=["extract", "check"])

    assert not agent.can_execute({"extract"})
    assert agent.can_execute({"extract", "check", "other"})


def test_reset_forgets_status_and_result() -> None:
    agent = Agent(name="report", prompt_template="Report.")
    agent.status = AgentStatus.FAILED
    agent.result = AgentResult(agent_id="1", status=AgentStatus.FAILED)

    agent.reset()

    assert agent.status is AgentStatus.PENDING
    assert agent.result is None


@pytest.mark.parametrize(("priority", "critical"), [(7, False), (8, True), (10, True)])
def test_an_agent_is_critical_from_priority_eight(priority: int, critical: bool) -> None:
    agent = Agent(name="report", prompt_template="Report.", priority=priority)

    assert agent.is_critical is critical


def test_a_definition_survives_the_way_through_json() -> None:
    agent = Agent(
        name="report",
        prompt_template="Report {total}.",
        module="Finance",
        llm_config={"model": "gpt-4o", "temperature": 0.3},
        tools=["search"],
        dependencies=["extract"],
        retry_policy=RetryPolicy(strategy=RetryStrategy.LINEAR_BACKOFF, max_retries=1),
        accept_missing_inputs=True,
        on_cut="continue",
    )

    restored = Agent.from_definition(json.loads(json.dumps(agent.definition())))

    assert restored.definition() == agent.definition()
    assert restored.retry_policy == agent.retry_policy


def test_a_definition_shares_nothing_with_the_agent() -> None:
    agent = Agent(name="report", prompt_template="Report.", retry_policy=RetryPolicy())

    agent.definition()["retry_policy"]["max_retries"] = 99

    assert agent.retry_policy == RetryPolicy()


def test_to_dict_adds_the_status() -> None:
    agent = Agent(name="report", prompt_template="Report.")

    assert agent.to_dict() == agent.definition() | {"status": "pending"}


def test_a_tool_is_stored_as_a_reference() -> None:
    assert tool_reference("search") == "search"
    assert tool_reference({"name": "search"}) == {"name": "search"}
    assert tool_reference(Tool()) == {"name": "lookup", "module": "tools.stock"}


def test_a_plain_function_is_no_tool() -> None:
    with pytest.raises(WorkflowError, match="decorate the function with @tool"):
        tool_reference(print)


@pytest.mark.parametrize("status", list(AgentStatus))
def test_a_result_tells_success_and_whether_a_retry_may_help(status: AgentStatus) -> None:
    result = AgentResult(agent_id="1", status=status, started_at=datetime.now(UTC))

    assert result.is_success() is (status is AgentStatus.COMPLETED)
    assert result.is_retriable() is (status in (AgentStatus.FAILED, AgentStatus.RATE_LIMITED))


@pytest.mark.parametrize("status", list(AgentStatus))
def test_a_failure_is_a_final_state(status: AgentStatus) -> None:
    assert status.is_final or not status.is_failure
