"""Plans of calls, and the highest cost of each call, for workers and for ``agentchord plan``.

The code is pure: it makes a plan from a price, tokens and limits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.costs.price import Price
from app.costs.pricing import Pricing
from app.domain.agent import Agent, schema_of
from app.domain.protocols import TokenCounting
from app.domain.providers import BUILT_IN, Provider, protocol_of
from app.llm.base import Message
from app.llm.parameters import NOT_PARAMETERS
from app.llm.structured import OUTPUT_SCHEMA
from app.llm.tokens import (
    expected_tokens,
    media_tokens,
    upper_bound_tokens,
    usual_tokens,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CallPlan:
    """One call as it will be made, with its tokens and its price.

    Attributes:
        price: Price of the call's model.
        parameters: Parameters of the request, except messages and tools.
        max_tokens: Largest number of tokens that the answer may have.
        cache_writes: Whether the call asks the provider to cache the beginning of the prompt.
        bound_tokens: Number of tokens that the prompt cannot exceed.
        guessed_tokens: Number of tokens that the prompt's text will probably have.
        media_tokens: Number of tokens that its images and PDFs will probably have.
        least_tokens: Smallest number of tokens into which a tokenizer splits the prompt's text.
        context_window: Largest number of tokens that the model can read, or None if the
            number is not known.
        counting: The rules by which the provider's limits count the tokens.
    """

    price: Price
    parameters: Mapping[str, Any]
    max_tokens: int
    cache_writes: bool
    bound_tokens: int
    guessed_tokens: int
    media_tokens: int
    least_tokens: int
    context_window: int | None
    counting: TokenCounting

    @property
    def worst_usd(self) -> Decimal:
        """Highest possible cost of the call, in dollars."""
        return self.worst_usd_of(self.bound_tokens)

    @property
    def fits_window(self) -> bool:
        """Whether the prompt fits the context window; true if the window's size is not known."""
        return self.context_window is None or self.least_tokens <= self.context_window

    def worst_usd_of(self, prompt_tokens: int) -> Decimal:
        """Return the highest possible cost with this number of prompt tokens, in dollars."""
        return self.price.worst_case(prompt_tokens, self.max_tokens, cache_writes=self.cache_writes)


class CallPlanner:
    """Plans calls; workers hold the worst case of a plan, and ``agentchord plan`` shows it.

    The planner has a weakness. The bound counts one token for each byte of the prompt's text. For
    prose, this is about four times the real number. A tokenizer for each model would give a closer
    bound, but would have to be right for every model.

    Args:
        pricing: The prices and the limits of models.
        default_max_tokens: Largest number of tokens of an answer if the agent sets no
            ``max_tokens``.
        providers: The providers of this cluster; a provider's protocol has the rules of its limits.

    Attributes:
        pricing: The prices that the planner uses.

    Example:
        >>> planner = CallPlanner(Pricing(), default_max_tokens=4096)
        >>> agent = Agent(name="a", prompt_template="Hi", llm_config={"model": "gpt-4o-mini"})
        >>> planner.plan(agent, [{"role": "user", "content": "Hi"}]).max_tokens
        4096
    """

    def __init__(
        self,
        pricing: Pricing,
        *,
        default_max_tokens: int,
        providers: Sequence[Provider] = BUILT_IN,
    ) -> None:
        self.pricing = pricing
        self._providers = providers
        self._default_max_tokens = default_max_tokens

    def plan(
        self,
        agent: Agent,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        affordable_usd: Decimal | None = None,
    ) -> CallPlan:
        """Plan one call.

        Args:
            agent: The agent, or one of its ``options()``.
            messages: The conversation so far.
            tools: Tools that the model may ask for.
            affordable_usd: Dollars that are left of the agent's ``cost_limit``. If the agent has no
                ``max_tokens``, these dollars limit the length of the answer. None means that they
                do not limit the answer.

        Raises:
            UnknownModel: If the model has no price.
            BadRequest: If a message has a part that is no text, image or PDF.
            ConfigurationError: If the provider is not configured.
        """
        price = self.price_of(agent)
        parameters = {
            key: value for key, value in agent.llm_config.items() if key not in NOT_PARAMETERS
        }
        if agent.output_schema is not None:
            parameters[OUTPUT_SCHEMA] = schema_of(agent.output_schema)
        media = media_tokens(messages, agent.model)
        guessed = expected_tokens(messages, tools, parameters, model=agent.model) - media
        bound = upper_bound_tokens(messages, tools, parameters, model=agent.model)
        return CallPlan(
            price=price,
            parameters=parameters,
            max_tokens=self._affordable(agent, price, bound, affordable_usd),
            cache_writes="cache_control" in str(parameters) or bool(parameters.get("prompt_cache")),
            bound_tokens=bound,
            guessed_tokens=guessed,
            media_tokens=media,
            least_tokens=usual_tokens(guessed, agent.model),
            context_window=self.pricing.context_window(agent.provider, agent.model),
            counting=protocol_of(agent.provider, self._providers).counting,
        )

    def price_of(self, agent: Agent) -> Price:
        """Return the price of an agent's model; raise UnknownModel if the model has no price."""
        return self.pricing.price_of(agent.provider, agent.model, agent.llm_config)

    def max_tokens(self, agent: Agent) -> int:
        """Return the largest number of tokens that an answer may have.

        The agent's own ``max_tokens`` decides. If the agent has none, the smaller of the default
        and the model's limit decides.
        """
        own = agent.llm_config.get("max_tokens")
        if own is not None:
            return int(own)
        limit = self.pricing.max_output_tokens(agent.provider, agent.model)
        return min(limit or self._default_max_tokens, self._default_max_tokens)

    def _affordable(
        self, agent: Agent, price: Price, bound: int, affordable_usd: Decimal | None
    ) -> int:
        cap = self.max_tokens(agent)
        if affordable_usd is None or agent.llm_config.get("max_tokens") is not None:
            return cap
        prompt_usd = price.worst_case(bound, 0)
        per_token_usd = price.worst_case(bound, 1) - prompt_usd
        if not per_token_usd:
            return max(cap, 1)
        return max(min(cap, int((affordable_usd - prompt_usd) / per_token_usd)), 1)
