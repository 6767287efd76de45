"""Clients whose connections have died since they were last used."""

from app import Agent, Workflow, enqueue
from tests.support.pace import scaled
from tests.support.stack import Stack


def test_a_client_whose_connections_postgres_has_ended_goes_on(stack: Stack) -> None:
    agent = Agent(name="one", prompt_template="go", llm_config={"model": "gpt-4o-mini"})
    workflow = Workflow(name="before and after", agents=[agent])
    before = enqueue(workflow)
    assert before.wait(scaled(30)) == "completed"

    stack.sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name ~ %s",
        "^agentchord client",
    )
    after = enqueue(workflow)

    assert after.wait(scaled(30)) == "completed"
    assert before.status == "completed"
