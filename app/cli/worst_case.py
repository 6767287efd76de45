"""What a run may cost, told before it starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.domain.prompt import placeholders, render
from app.domain.workflow import Workflow
from app.llm.tokens import upper_bound_tokens

#: A generated token is rarely longer, and what is, is stopped by the budgets.
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """Bounds of a run's cost.

    Attributes:
        once_usd: Every agent answers at the first try, with all the tokens it may use; one with
            tools uses up its cost limit, for what its tools say to the model has no bound.
        limit_usd: Where the agents' cost limits and the run's budget stop it, retries included.
    """

    once_usd: Decimal
    limit_usd: Decimal


def worst_case(
    workflow: Workflow,
    run_input: Mapping[str, Any],
    *,
    pricing: Pricing,
    default_max_tokens: int,
) -> WorstCase:
    """The bounds of one run.

    Args:
        workflow: What is to be run.
        run_input: Its input.
        pricing: Prices.
        default_max_tokens: Tokens that an agent without a max_tokens may generate.

    Raises:
        UnknownModel: If a model has no price.
    """
    values = dict(run_input)
    for agent in workflow.agents:
        values[agent.name] = "x" * (max_tokens_of(agent, default_max_tokens) * BYTES_PER_TOKEN)
    once = sum(
        (worst_case_of(agent, values, pricing, default_max_tokens) for agent in workflow.agents),
        Decimal(0),
    )
    limits = sum((Decimal(str(agent.cost_limit)) for agent in workflow.agents), Decimal(0))
    budget = Decimal(str(workflow.cost_budget))
    return WorstCase(once_usd=min(once, budget), limit_usd=min(limits, budget))


def worst_case_of(
    agent: Agent, values: Mapping[str, Any], pricing: Pricing, default_max_tokens: int
) -> Decimal:
    """The most that an answer at one agent's first attempt costs, in dollars.

    With fallbacks it is that of the dearest of them.

    Args:
        agent: The agent.
        values: The run's input, and by agent the longest text that it may answer.
        pricing: Prices.
        default_max_tokens: Tokens that an agent without a max_tokens may generate.
    """
    limit_usd = Decimal(str(agent.cost_limit))
    options = agent.options()
    prices = [pricing.price_of(each.provider, each.model, each.llm_config) for each in options]
    if agent.tools and agent.max_turns > 1:
        return limit_usd
    dearest_usd = max(
        price.worst_case(
            upper_bound_tokens(messages_of(option, values)),
            max_tokens_of(option, default_max_tokens),
            cache_writes=bool(option.llm_config.get("prompt_cache")),
        )
        for option, price in zip(options, prices, strict=True)
    )
    return min(dearest_usd, limit_usd)


def messages_of(agent: Agent, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first request's messages, every placeholder filled by the whole of what it leads into."""
    messages = [{"role": "user", "content": _filled(agent, values)}]
    if system := agent.llm_config.get("system"):
        messages.append({"role": "system", "content": str(system)})
    return messages


def _filled(agent: Agent, values: Mapping[str, Any]) -> str:
    template = agent.prompt_template
    for place in placeholders(template):
        template = template.replace(place.text, f"{{{place.root}}}")
    return render(template, values)


def max_tokens_of(agent: Agent, default_max_tokens: int) -> int:
    """Tokens that an agent's answer may have."""
    return int(agent.llm_config.get("max_tokens") or default_max_tokens)
