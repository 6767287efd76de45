"""The providers of agents: names, protocols, and the provider that serves a model.

The properties of a protocol are in ``app.domain.protocols``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from app.domain.agent import Agent, merged_config, provider_of
from app.domain.mistakes import Mistake, refuse
from app.domain.protocols import PROTOCOLS, Protocol
from app.domain.suggestions import did_you_mean, listed, shortened
from app.domain.workflow import Workflow
from app.errors import ConfigurationError, WorkflowError


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """A provider that workers can call.

    Attributes:
        name: Name of the provider, which is also the name of the provider's queue, buckets and
            prices.
        protocol: Name of the protocol that the provider speaks, a key of ``PROTOCOLS``.
        models: Names and patterns (``llama-*``) of the models that the provider serves unless an
            agent names another provider.
        service_tier: The service tier of requests whose agents name no service tier. None means the
            standard tier for models that also have other tiers in the price list; ``auto`` lets the
            account's settings decide.
        api: Request form of the calls, one of the protocol's ``apis``; None means that the model
            and the agent's tools decide.
        parameters: Parameters that agents may give in ``llm_config`` in addition to the protocol's
            known parameters.
    """

    name: str
    protocol: str
    models: tuple[str, ...] = ()
    service_tier: str | None = None
    api: str | None = None
    parameters: tuple[str, ...] = ()


#: Providers that need no configuration.
BUILT_IN = (
    Provider(name="openai", protocol="openai"),
    Provider(name="anthropic", protocol="anthropic"),
)
#: Published fees in dollars for an hour of a container in which programs of the model run, by the
#: names of the providers' prices.
CONTAINER_HOUR_USD: Mapping[str, Decimal] = {
    # $0.03 for 20 minutes of 1 GB, and as much for each further GB; see
    # developers.openai.com/api/docs/pricing.
    "openai": Decimal("0.09"),
    # Beyond the free hours of the organization, which no answer tells; see
    # platform.claude.com/docs/en/about-claude/pricing.
    "anthropic": Decimal("0.05"),
}


def routed(workflow: Workflow, providers: Sequence[Provider] = BUILT_IN) -> Workflow:
    """Return the workflow with a configured provider for each of its agents.

    An agent without a ``provider`` in its ``llm_config`` gets the provider whose ``models`` match
    the name of the agent's model. An exact name takes precedence over patterns. A longer pattern
    takes precedence over a shorter pattern. If no ``models`` match, the prefix of the name decides.

    Args:
        workflow: The workflow as its author wrote it.
        providers: The providers of this cluster.

    Returns:
        The workflow with these providers, or the given workflow itself if no provider was missing.

    Raises:
        WorkflowError: If the provider of an agent is not configured or not known; the message names
            the agent.
    """
    agents: list[Agent] = []
    mistakes: list[Mistake] = []
    for index, agent in enumerate(workflow.agents):
        try:
            agents.append(_routed(agent, index, providers))
        except WorkflowError as error:
            mistakes.append(error)
    refuse(mistakes)
    if all(new is old for new, old in zip(agents, workflow.agents, strict=True)):
        return workflow
    return replace(workflow, agents=agents)


def protocol_of(name: str, providers: Sequence[Provider] = BUILT_IN) -> Protocol:
    """Return the protocol that a provider speaks; see ``provider_named``."""
    return PROTOCOLS[provider_named(name, providers).protocol]


def provider_named(name: str, providers: Sequence[Provider] = BUILT_IN) -> Provider:
    """Return a provider by its name.

    Args:
        name: Name of the provider.
        providers: The providers of this cluster.

    Raises:
        ConfigurationError: If no such provider is configured.
    """
    for provider in providers:
        if provider.name == name:
            return provider
    names = [provider.name for provider in providers]
    raise ConfigurationError(
        f"provider {name!r} is not configured (known: {listed(names)}){did_you_mean(name, names)}"
    )


def _routed(agent: Agent, index: int, providers: Sequence[Provider]) -> Agent:
    if not agent.llm_config.get("model"):  # a kind other than llm
        return agent
    config = _with_provider(agent.llm_config, providers)
    _check(agent, config, index, "llm_config", providers)
    fallbacks = []
    for place, fallback in enumerate(agent.fallbacks):
        merged = merged_config(config, fallback)
        found = _with_provider(merged, providers)
        _check(agent, found, index, f"fallbacks[{place}]", providers)
        fallbacks.append(
            fallback if found is merged else {**fallback, "provider": found["provider"]}
        )
    if config is agent.llm_config and fallbacks == list(agent.fallbacks):
        return agent
    return replace(agent, llm_config=config, fallbacks=fallbacks)


def _check(
    agent: Agent,
    llm_config: Mapping[str, Any],
    index: int,
    field: str,
    providers: Sequence[Provider],
) -> None:
    if problem := _problem(llm_config, providers):
        key, text = problem
        raise WorkflowError(
            f"agent {agent.name!r}: {field}.{key} {text}", field=f"agents[{index}].{field}.{key}"
        )


def _with_provider(
    llm_config: Mapping[str, Any], providers: Sequence[Provider]
) -> Mapping[str, Any]:
    if llm_config.get("provider"):
        return llm_config
    found = _owner(str(llm_config.get("model")), providers)
    return llm_config if found is None else {**llm_config, "provider": found.name}


def _owner(model: str, providers: Sequence[Provider]) -> Provider | None:
    matching = [
        ((pattern == model, len(pattern), provider.name), provider)
        for provider in providers
        for pattern in provider.models
        if fnmatchcase(model, pattern)
    ]
    return max(matching, key=lambda match: match[0])[1] if matching else None


def _problem(
    llm_config: Mapping[str, Any], providers: Sequence[Provider]
) -> tuple[str, str] | None:
    names = [provider.name for provider in providers]
    try:
        name = provider_of(llm_config)
    except WorkflowError as error:
        return "model", f"is an {error} (configured: {listed(names)})"
    if name in names:
        return None
    return "provider", (
        f"is {shortened(name)}: no such provider is configured (known: {listed(names)}); "
        f"describe it under providers in the configuration{did_you_mean(name, names)}"
    )
