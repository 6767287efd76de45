"""Checks the price, parameters and limits of an agent's calls before the workflow is stored."""

from collections.abc import Sequence

from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.domain.model_limits import limits_of
from app.domain.protocols import PROTOCOLS
from app.domain.providers import Provider, provider_named
from app.domain.server_tools import server_tools_in
from app.domain.workflow import Workflow
from app.errors import UnknownModel, WorkflowError
from app.llm.models import reads_only_text
from app.llm.parameters import NOT_PARAMETERS, ParameterRefused, adapted


def check_calls(
    workflow: Workflow,
    *,
    providers: Sequence[Provider],
    pricing: Pricing,
    default_max_tokens: int,
) -> None:
    """Refuse an agent if its calls, or the calls of its fallbacks, could not be made.

    Args:
        workflow: A workflow with a provider for each agent (``app.domain.providers.routed``).
        providers: All providers.
        pricing: Prices.
        default_max_tokens: Largest number of tokens that an agent without max_tokens may generate.

    Raises:
        UnknownModel: If a model has no price, or if a tool of the model's provider has no price;
            the message names the agent.
        WorkflowError: If a model does not take a parameter or attachments, or if the model's
            provider does not have a tool. The message names the agent.
    """
    for index, agent in enumerate(workflow.agents):
        if not agent.llm_config.get("model"):  # a kind other than llm
            continue
        for place, option in enumerate(agent.options()):
            field = f"fallbacks[{place - 1}]" if place else "llm_config"
            try:
                pricing.price_of(option.provider, option.model, option.llm_config)
                pricing.check_fees(option)
            except UnknownModel as error:
                raise UnknownModel(f"agent {agent.name!r}: {error}") from error
            if agent.attachments and reads_only_text(option.model):
                raise WorkflowError(
                    f"agent {agent.name!r}: model {option.model!r} reads only text: remove the "
                    "attachments, or give a model that reads images",
                    field=f"agents[{index}].{field}",
                )
            try:
                _check_parameters(option, providers, default_max_tokens)
            except ParameterRefused as error:
                called = f"in {field}, " if place else ""
                raise WorkflowError(
                    f"agent {agent.name!r}: {called}{error}",
                    field=f"agents[{index}].{field}",
                ) from error


def _check_parameters(agent: Agent, providers: Sequence[Provider], default_max_tokens: int) -> None:
    most = limits_of(agent.model).max_output_tokens or default_max_tokens
    provider = provider_named(agent.provider, providers)
    adapted(
        PROTOCOLS[provider.protocol],
        agent.model,
        {key: value for key, value in agent.llm_config.items() if key not in NOT_PARAMETERS},
        max_tokens=agent.llm_config.get("max_tokens") or min(most, default_max_tokens),
        tools=bool(agent.tools),
        server_tools=server_tools_in(agent.tools),
        api=provider.api,
        additions=provider.parameters,
    )
