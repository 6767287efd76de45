"""The break-even of a provider's prompt cache, which keeps the beginning of an agent's prompts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.costs.price import Price
from app.domain.agent import Agent
from app.domain.providers import BUILT_IN, Provider, protocol_of
from app.llm.prompt_cache import least_tokens
from app.llm.tokens import expected_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheForecast:
    """Cost and saving of a provider's cache for an agent with ``prompt_cache``.

    Attributes:
        tokens: Expected tokens of the common beginning of its requests: tools and instructions.
        least_tokens: Tokens below which the provider caches nothing.
        lifetime: Time for which they are kept after each use: ``5m`` or ``1h``.
        write_usd: Additional cost of the first request.
        saved_usd: Saving of each later request.
        pays_from: Number of requests within the lifetime from which on the cache saves money; None
            if it never does.
    """

    tokens: int
    least_tokens: int
    lifetime: str
    write_usd: Decimal
    saved_usd: Decimal
    pays_from: int | None

    @property
    def too_short(self) -> bool:
        """Whether the beginning is too short to be cached."""
        return self.tokens < self.least_tokens


def cache_forecast(
    agent: Agent, price: Price, providers: Sequence[Provider] = BUILT_IN
) -> CacheForecast | None:
    """Compute the break-even of an agent's ``prompt_cache``; None if it does not ask for one.

    Args:
        agent: The agent.
        price: Price of its model.
        providers: All providers.
    """
    asked = agent.llm_config.get("prompt_cache")
    if not asked:
        return None
    # A tool that is given by its name only has no schema here to be counted.
    specs = [tool.reference() for tool in agent.tools if hasattr(tool, "reference")]
    system = agent.llm_config.get("system")
    messages = [{"role": "system", "content": str(system)}] if system else []
    tokens = expected_tokens(messages, specs, model=agent.model)
    protocol = protocol_of(agent.provider, providers)
    lifetime = asked if isinstance(asked, str) else "5m"
    rate = price.cache_write_1h if lifetime == "1h" else price.cache_write
    charged = protocol == "anthropic" or price.writes_unasked
    write_usd = tokens * (rate - price.input) if charged else Decimal(0)
    saved_usd = tokens * (price.input - price.cached_input)
    least = least_tokens(protocol, agent.model)
    pays = saved_usd > 0 and tokens >= least
    return CacheForecast(
        tokens=tokens,
        least_tokens=least,
        lifetime=lifetime,
        write_usd=write_usd,
        saved_usd=saved_usd,
        pays_from=1 + max(math.ceil(write_usd / saved_usd), 1) if pays else None,
    )
