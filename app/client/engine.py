"""OrchestrationEngine: the asynchronous API that registers workflows and executes them."""

import asyncio
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any
from uuid import UUID

from app.bootstrap import connected_settings
from app.client.client import process
from app.client.run import Run, finished_workflow
from app.domain.policies import EngineConfig, RateLimitConfig
from app.domain.retry import RetryPolicy
from app.domain.run_options import RunOptions
from app.domain.workflow import Workflow
from app.errors import ConfigurationError, UnknownWorkflow
from app.llm.base import LLMClient
from app.monitoring import status

LIMITS_HINT = ", or use `agentchord limits set`"


class OrchestrationEngine:
    """Registers and executes workflows on the cluster.

    The work is done by the workers, which hold the keys and the clients; ``llm_client`` only
    names the provider whose limits ``config.rate_limit_config`` means.

    Args:
        llm_client: A client of the default provider.
        config: What this program takes for granted; a value that contradicts the cluster's
            configuration is refused, because the workers would not keep to it.

    Raises:
        ConfigurationError: If the config contradicts the cluster's.
        ServiceUnavailable: If it has limits and Postgres, which has the stored ones, is away.
    """

    def __init__(self, llm_client: LLMClient, config: EngineConfig | None = None) -> None:
        self._config = config or EngineConfig()
        _refuse_contradictions(self._config, llm_client.provider)

    async def register_workflow(self, workflow: Workflow) -> str:
        """Store a workflow for execution; agents without a retry policy get the config's.

        Returns:
            Its id; the same content keeps the same id.

        Raises:
            WorkflowError: (a ValueError) if it is not acceptable.
        """
        prepared = self._with_retry_policy(workflow)
        return str(await process().loop.run_async(process().client.register(prepared)))

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
            input: JSON object for the placeholders of its prompts.
            key: A name for the run: executing with it again waits for the same run.

        Returns:
            The workflow with status, total_cost, and status and result of every agent.

        Raises:
            ValueError: If there is no such workflow.
            RunConflict: If the run of that key is one of another workflow or input.
        """
        id_ = _workflow_uuid(workflow_id)

        async def execute() -> Workflow:
            client = process().client
            run_id = await client.enqueue(
                await client.workflow(id_), input or {}, RunOptions(key=key)
            )
            await client.wait(run_id, None)
            return await finished_workflow(run_id)

        return await process().loop.run_async(execute())

    async def execute_multiple_workflows(self, workflow_ids: Sequence[str]) -> list[Workflow]:
        """Execute several registered workflows at once; their results in the same order."""
        return list(await asyncio.gather(*(self.execute_workflow(id_) for id_ in workflow_ids)))

    def get_workflow_status(self, workflow_id: str) -> dict[str, Any] | None:
        """State of the newest run of a workflow (``pending`` before the first), or None.

        Returns:
            A dict with workflow_id, name, status, run_id, total_cost, and agents by status.
        """
        try:
            id_ = _workflow_uuid(workflow_id)
        except UnknownWorkflow:
            return None
        return process().loop.run(
            process().client.transaction(lambda c: status.workflow_status(c, id_))
        )

    def get_system_status(self) -> dict[str, Any]:
        """Metrics of the whole cluster: monitoring, rate_limiting, cost_tracking."""
        return process().loop.run(process().client.transaction(status.system_status))

    def run(self, run_id: str) -> Run:
        """A handle of any run."""
        return Run(run_id)

    async def cancel(self, run_id: str, reason: str = "cancelled by the user") -> bool:
        """Stop a run; see ``Run.cancel``."""
        return await asyncio.to_thread(Run(run_id).cancel, reason)

    async def pause(self, run_id: str) -> bool:
        """Have a run rest; see ``Run.pause``."""
        return await asyncio.to_thread(Run(run_id).pause)

    async def resume(self, run_id: str) -> bool:
        """Let a paused run go on; see ``Run.resume``."""
        return await asyncio.to_thread(Run(run_id).resume)

    async def retry_failed(self, run_id: str, cost_budget: float | None = None) -> bool:
        """Run what failed of a run again; see ``Run.retry_failed``."""
        return await asyncio.to_thread(Run(run_id).retry_failed, cost_budget)

    async def rerun(self, run_id: str, agent: str) -> Run:
        """Run an agent and all that depends on it again, as a new run; see ``Run.rerun``."""
        return await asyncio.to_thread(Run(run_id).rerun, agent)

    async def shutdown(self) -> None:
        """Nothing of the cluster stops with the engine: runs go on, and nothing is lost."""

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
    """What is left at its default is not given, so it contradicts nothing."""
    settings = connected_settings()
    defaults = EngineConfig()
    if config.rate_limit_config is not None:
        # What an operator stored is what the workers keep to, whatever the file says.
        table = process().loop.run(process().client.limits())
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
        f"{name} is {wanted!r}, but the cluster's is {has!r}: change {section} in the file at "
        f"AGENTCHORD_CONFIG, which all workers read{hint}"
    )


def _workflow_uuid(workflow_id: str) -> UUID:
    try:
        return UUID(workflow_id)
    except ValueError as error:
        raise UnknownWorkflow(f"no workflow has the id {workflow_id!r}") from error
