"""OrchestrationEngine: the asynchronous API that registers workflows and executes them."""

import asyncio
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any
from uuid import UUID

from app.client.client import Client
from app.client.process import process, transaction
from app.client.run import Run
from app.domain.policies import EngineConfig, RateLimitConfig
from app.domain.retry import RetryPolicy
from app.domain.run_options import RunOptions
from app.domain.workflow import Workflow
from app.embedded.connected import connected_settings
from app.errors import ConfigurationError, UnknownWorkflow
from app.llm.base import LLMClient
from app.monitoring import status

LIMITS_HINT = ", or use `agentchord limits set`"


class OrchestrationEngine:
    """Registers and executes workflows on the cluster.

    The workers do the work. Only the workers need the keys and the clients. The ``llm_client`` only
    names a provider: the limits in ``config.rate_limit_config`` are meant for that provider.

    ``execute_workflow`` returns when the run has ended. If the caller ends first, the run goes on,
    and the caller can find the run again only by a ``key``. ``enqueue`` returns a handle at once.

    Args:
        llm_client: A client of the default provider.
        config: The configuration that this program expects; a value that contradicts the cluster's
            configuration is refused, because the workers would not use that value.

    Raises:
        ConfigurationError: If the config contradicts the cluster's configuration.
        ServiceUnavailable: If the config has limits while Postgres cannot be reached. Postgres has
            the stored limits, which are compared with the limits of the config.

    Example:
        engine = OrchestrationEngine(OpenAIClient())
        workflow_id = await engine.register_workflow(workflow)
        done = await engine.execute_workflow(workflow_id, {"topic": "tides"}, key="tides-1")
        print(done.status, done.total_cost)
    """

    def __init__(self, llm_client: LLMClient, config: EngineConfig | None = None) -> None:
        self._config = config or EngineConfig()
        _refuse_contradictions(self._config, llm_client.provider)

    async def register_workflow(self, workflow: Workflow) -> str:
        """Store a workflow; agents without a retry policy get the default policy of the config.

        Returns:
            The id of the workflow; equal content keeps the same id.

        Raises:
            WorkflowError: If the workflow is not acceptable. This is a ValueError.
        """
        prepared = self._with_retry_policy(workflow)
        return str(await process().run_async(lambda client: client.workflows.register(prepared)))

    async def execute_workflow(
        self,
        workflow_id: str,
        input: dict[str, Any] | None = None,  # noqa: A002
        *,
        key: str | None = None,
    ) -> Workflow:
        """Execute a registered workflow and wait for its end.

        Args:
            workflow_id: Id from ``register_workflow``.
            input: JSON object for the placeholders of the workflow's prompts.
            key: A name for the run; a second call with the same key waits for the same run.

        Returns:
            The workflow with its status, its total_cost, and the status and result of every agent.

        Raises:
            ValueError: If there is no such workflow.
            RunConflict: If the run with that key has another workflow or input.
        """
        id_ = _workflow_uuid(workflow_id)

        async def execute(client: Client) -> Workflow:
            workflow = await client.workflows.read(id_)
            run_id = await client.runs.enqueue(workflow, input or {}, RunOptions(key=key))
            await client.runs.wait(run_id, None)
            return await client.results.workflow(run_id)

        return await process().run_async(execute)

    async def execute_multiple_workflows(self, workflow_ids: Sequence[str]) -> list[Workflow]:
        """Execute registered workflows at the same time; return results in the order of the ids."""
        return list(await asyncio.gather(*(self.execute_workflow(id_) for id_ in workflow_ids)))

    def get_workflow_status(self, workflow_id: str) -> dict[str, Any] | None:
        """Return the state of a workflow's newest run; without any run, the state is ``pending``.

        Returns:
            A dict with workflow_id, name, status, run_id, total_cost, and agents by status. The
            result is None if there is no such workflow.
        """
        try:
            id_ = _workflow_uuid(workflow_id)
        except UnknownWorkflow:
            return None
        return transaction(partial(status.workflow_status, id_=id_))

    def get_system_status(self) -> dict[str, Any]:
        """Return metrics of the whole cluster: monitoring, rate_limiting, cost_tracking."""
        return transaction(status.system_status)

    def run(self, run_id: str) -> Run:
        """Return a handle of any run."""
        return Run(run_id)

    async def cancel(self, run_id: str, reason: str = "cancelled by the user") -> bool:
        """Stop a run; see ``Run.cancel``."""
        return await asyncio.to_thread(Run(run_id).cancel, reason)

    async def pause(self, run_id: str) -> bool:
        """Pause a run; see ``Run.pause``."""
        return await asyncio.to_thread(Run(run_id).pause)

    async def resume(self, run_id: str) -> bool:
        """Continue a paused run; see ``Run.resume``."""
        return await asyncio.to_thread(Run(run_id).resume)

    async def retry_failed(
        self, run_id: str, cost_budget: float | None = None, *, agent: str | None = None
    ) -> bool:
        """Repair an ended run, or only one agent or item of it; see ``Run.retry_failed``."""
        return await asyncio.to_thread(Run(run_id).retry_failed, cost_budget, agent=agent)

    async def rerun(self, run_id: str, agent: str) -> Run:
        """Repeat an agent, and all agents that depend on it, in a new run; see ``Run.rerun``."""
        return await asyncio.to_thread(Run(run_id).rerun, agent)

    async def shutdown(self) -> None:
        """Do nothing, because runs go on without the engine and nothing is lost."""

    def _with_retry_policy(self, workflow: Workflow) -> Workflow:
        policy = self._config.default_retry_policy
        if policy == RetryPolicy():
            return workflow
        agents = [
            agent if agent.retry_policy else replace(agent, retry_policy=policy)
            for agent in workflow.agents
        ]
        return Workflow.from_definition(
            workflow.definition() | {"agents": [agent.definition() for agent in agents]}
        )


def _refuse_contradictions(config: EngineConfig, provider: str) -> None:
    """Refuse values that differ from the cluster's values; a default value counts as not given."""
    settings = connected_settings()
    defaults = EngineConfig()
    if config.rate_limit_config is not None:
        # If an operator has stored limits, workers use these limits, not the limits of the file.
        table = process().run(lambda client: client.limits.read())
        _, stored = table.resolve(provider, "")
        for field in fields(RateLimitConfig):
            wanted = getattr(config.rate_limit_config, field.name)
            has = getattr(stored, field.name)
            if wanted not in (has, field.default):
                name = f"rate_limit_config.{field.name}"
                raise _contradiction(name, "rate_limits", wanted, has, LIMITS_HINT)
    for name, section, has in (
        ("cost_config", "costs", settings.costs),
        ("monitor_config", "monitoring", settings.monitoring),
        (
            "max_concurrent_workflows",
            "engine.max_concurrent_workflows",
            settings.engine.max_concurrent_workflows,
        ),
    ):
        wanted = getattr(config, name)
        if wanted not in (has, getattr(defaults, name)):
            raise _contradiction(name, section, wanted, has)


def _contradiction(
    name: str, section: str, wanted: Any, has: Any, hint: str = ""
) -> ConfigurationError:
    return ConfigurationError(
        f"{name} is {wanted!r}, but in the cluster it is {has!r}: change {section} in the file at "
        f"AGENTCHORD_CONFIG, which all workers read{hint}"
    )


def _workflow_uuid(workflow_id: str) -> UUID:
    try:
        return UUID(workflow_id)
    except ValueError as error:
        raise UnknownWorkflow(f"no workflow has the id {workflow_id!r}") from error
