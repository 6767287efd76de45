"""Checks the price, parameters and limits of an agent's calls before the workflow is stored."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.domain.mistakes import Mistake, refuse
from app.domain.model_limits import limits_of
from app.domain.protocols import PROTOCOLS
from app.domain.providers import Provider, provider_named
from app.domain.server_tools import server_tools_in
from app.domain.workflow import Workflow
from app.errors import UnknownModel, WorkflowError
from app.llm.models import reads_only_text
from app.llm.parameters import (
    NOT_PARAMETERS,
    ParameterRefused,
    adapted,
    unknown_parameters,
)


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
            provider does not have a tool. The message names the agent. Several mistakes are raised
            as ``SeveralMistakes``.
    """
    checks = _Calls(providers, pricing, default_max_tokens)
    refuse(
        mistake
        for index, agent in enumerate(workflow.agents)
        if agent.llm_config.get("model")  # other kinds have no model
        for place, option in enumerate(agent.options())
        for mistake in checks.mistakes(agent, option, index, place)
    )


class _Calls:
    """The checks of one option of an agent: its price, its attachments and its parameters."""

    def __init__(
        self, providers: Sequence[Provider], pricing: Pricing, default_max_tokens: int
    ) -> None:
        self._providers = providers
        self._pricing = pricing
        self._default_max_tokens = default_max_tokens

    def mistakes(self, agent: Agent, option: Agent, index: int, place: int) -> Iterator[Mistake]:
        """Yield the mistakes of an option; ``place`` is 0 for the agent, then 1 per fallback."""
        own = agent.fallbacks[place - 1] if place else agent.llm_config
        name = f"fallbacks[{place - 1}]" if place else "llm_config"
        what, field = f"agent {agent.name!r}", f"agents[{index}].{name}"
        try:
            self._pricing.price_of(option.provider, option.model, option.llm_config)
            self._pricing.check_fees(option)
        except UnknownModel as error:
            yield UnknownModel(f"{what}: {error}", field=field)
        if agent.attachments and reads_only_text(option.model):
            yield WorkflowError(
                f"{what}: model {option.model!r} reads only text: remove the "
                "attachments, or give a model that reads images",
                field=field,
            )
        called = f"in {name}, " if place else ""
        provider = provider_named(option.provider, self._providers)
        given = _parameters(option.llm_config)
        unknown = unknown_parameters(PROTOCOLS[provider.protocol], given, provider.parameters)
        for key, problem in unknown.items():
            if key in own:  # a fallback inherits the other keys, which are checked with the agent
                yield WorkflowError(f"{what}: {called}{problem}", field=f"{field}.{key}")
        known = {key: value for key, value in given.items() if key not in unknown}
        try:
            self._check_parameters(option, provider, known)
        except ParameterRefused as error:
            yield WorkflowError(f"{what}: {called}{error}", field=field)

    def _check_parameters(
        self, option: Agent, provider: Provider, params: Mapping[str, Any]
    ) -> None:
        most = limits_of(option.model).max_output_tokens or self._default_max_tokens
        adapted(
            PROTOCOLS[provider.protocol],
            option.model,
            params,
            max_tokens=option.llm_config.get("max_tokens") or min(most, self._default_max_tokens),
            tools=bool(option.tools),
            server_tools=server_tools_in(option.tools),
            api=provider.api,
            additions=provider.parameters,
        )


def _parameters(llm_config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in llm_config.items() if key not in NOT_PARAMETERS}
