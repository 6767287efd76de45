"""The smallest number of requests with which a provider's prompt cache saves money."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.costs.price import Price
from app.domain.agent import Agent
from app.domain.providers import BUILT_IN, Provider, protocol_of
from app.llm.dialect import dialect_of
from app.llm.tokens import expected_tokens
from app.planning.worst_case import specs_of


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheForecast:
    """The effect of a provider's cache on an agent with ``prompt_cache``.

    Attributes:
        tokens: Tokens of the common beginning of the agent's requests: tools and instructions.
        least_tokens: Smallest number of tokens that the provider caches.
        lifetime: Time for which the cache keeps the tokens after each use: ``5m`` or ``1h``.
        write_usd: Additional cost of the first request, which writes the tokens to the cache.
        saved_usd: Dollars that each later request saves.
        pays_from: Smallest number of requests, within the lifetime, with which the cache saves
            money; None means that the cache never saves money.
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
    """Return the effect of an agent's ``prompt_cache``; None if the agent asks for no cache.

    Args:
        agent: The agent.
        price: Price of the agent's model.
        providers: The providers of this cluster.
    """
    asked = agent.llm_config.get("prompt_cache")
    if not asked:
        return None
    system = agent.llm_config.get("system")
    messages = [{"role": "system", "content": str(system)}] if system else []
    tokens = expected_tokens(messages, specs_of(agent), model=agent.model)
    protocol = protocol_of(agent.provider, providers)
    lifetime = asked if isinstance(asked, str) else "5m"
    rate = price.cache_write_1h if lifetime == "1h" else price.cache_write
    charged = protocol.caches_on_request or price.writes_unasked
    write_usd = tokens * (rate - price.input) if charged else Decimal(0)
    saved_usd = tokens * (price.input - price.cached_input)
    least = dialect_of(protocol).least_cached_tokens(agent.model)
    pays = saved_usd > 0 and tokens >= least
    return CacheForecast(
        tokens=tokens,
        least_tokens=least,
        lifetime=lifetime,
        write_usd=write_usd,
        saved_usd=saved_usd,
        pays_from=1 + max(math.ceil(write_usd / saved_usd), 1) if pays else None,
    )
