"""Plans of calls, and the highest cost of each call, for workers and for ``agentchord plan``.

The code is pure: it makes a plan from a price, tokens and limits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from math import ceil
from typing import Any

from app.costs.price import Price
from app.costs.pricing import Pricing
from app.costs.quote import Quote
from app.domain.agent import Agent
from app.domain.protocols import TokenCounting
from app.domain.providers import BUILT_IN, Provider, protocol_of
from app.domain.schemas import schema_of
from app.domain.server_tools import (
    CODE_EXECUTION,
    ServerUses,
    gigabytes_of,
    server_tools_in,
    uses_of,
)
from app.llm.base import Message
from app.llm.parameters import NOT_PARAMETERS
from app.llm.structured import OUTPUT_SCHEMA
from app.llm.tokens import (
    expected_tokens,
    media_tokens,
    upper_bound_tokens,
    usual_tokens,
)

# A provider's own count is an estimate, which may differ a little from the number that is billed.
_COUNT_FACTOR, _COUNT_ALLOWANCE = 1.05, 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class CallPlan:
    """One call as it will be made, with its tokens and its price.

    Attributes:
        quote: The prices at which the provider may serve the request.
        parameters: Parameters of the request, except messages and tools.
        max_tokens: Largest number of tokens that the answer may have.
        cache_writes: Whether the call asks the provider to cache the beginning of the prompt.
        writes_for_an_hour: Whether the call may ask for a cache that keeps this for an hour.
        summary_tokens: Largest number of tokens of the summary. If the request asks for compaction,
            the provider may summarise the prompt before the answer; otherwise the number is 0.
        bound_tokens: Number of tokens that the prompt cannot exceed.
        guessed_tokens: Number of tokens that the prompt's text will probably have.
        media_tokens: Number of tokens that the prompt's images and PDFs will probably have.
        counted: Whether the provider has counted the prompt; ``guessed_tokens`` is then the count.
        least_tokens: Smallest number of tokens that the prompt can have. The number assumes 4 bytes
            of text per token, or is a little less than the provider's count.
        context_window: Largest number of tokens that the model can read, or None if the
            number is not known.
        counting: The rules for counting the tokens against the provider's limits.
        server_uses: The largest counts that tools of the provider can add to the call.
        quote_answered: Gets the name of the model in the answer, or None. Returns the prices of
            that model, if another model than the requested one has answered; otherwise ``quote``.
    """

    quote: Quote
    parameters: Mapping[str, Any]
    max_tokens: int
    cache_writes: bool
    writes_for_an_hour: bool
    summary_tokens: int
    bound_tokens: int
    guessed_tokens: int
    media_tokens: int
    counted: bool
    least_tokens: int
    context_window: int | None
    counting: TokenCounting
    server_uses: ServerUses
    quote_answered: Callable[[str | None], Quote] = field(compare=False)

    @property
    def price(self) -> Price:
        """Price of the call if the provider serves the request as asked."""
        return self.quote.usual

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
        output_tokens = self.max_tokens + self.summary_tokens
        if self.summary_tokens:
            # The model reads the prompt twice: once for the summary, and once for the answer. For
            # the answer, the model also reads the summary.
            prompt_tokens = 2 * prompt_tokens + self.summary_tokens
        uses = self.server_uses
        return self.quote.worst_case(
            uses.prompt_tokens(prompt_tokens, output_tokens, self.context_window),
            output_tokens,
            cache_writes=self.cache_writes,
            web_searches=uses.searches,
            container_seconds=uses.container_seconds,
        )


class CallPlanner:
    """Plans calls; ``agentchord plan`` shows the worst case that workers reserve for a plan.

    The planner has a weakness. The bound counts one token for each byte of the prompt's text. For
    prose, this is about four times the real number. A tokenizer for each model would give a closer
    bound, but would have to be right for every model. Therefore workers let the provider count the
    tokens of long prompts (``workers.calls.counting``), and give the count to the planner.

    Args:
        pricing: The prices and the limits of models.
        default_max_tokens: Largest number of tokens of an answer if the agent sets no
            ``max_tokens``.
        providers: The providers of this cluster; a provider's protocol has the rules of the
            provider's limits.

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
        counted_tokens: int | None = None,
    ) -> CallPlan:
        """Plan one call.

        Args:
            agent: The agent, or one of its ``options()``.
            messages: The conversation so far.
            tools: Tools that the model may ask for.
            affordable_usd: Dollars that are left of the agent's ``cost_limit``. If the agent has no
                ``max_tokens``, these dollars limit the length of the answer. None means that no
                amount limits the answer.
            counted_tokens: Tokens of the prompt by the provider's own count, which may differ a
                little from the number that is billed. A count above the upper bound is not the
                count of this prompt, and is ignored. None means that nobody has counted.

        Raises:
            UnknownModel: If the model has no price, or if a tool of the provider has no fee.
            BadRequest: If a message has a part that is no text, image or PDF.
            ConfigurationError: If the provider is not configured.
        """
        quote = self.pricing.quote(agent.provider, agent.model, agent.llm_config)
        self.pricing.check_fees(agent)
        protocol = protocol_of(agent.provider, self._providers)
        uses = uses_of(agent.tools, protocol, agent.timeout)
        parameters = {
            key: value for key, value in agent.llm_config.items() if key not in NOT_PARAMETERS
        }
        if agent.output_schema is not None:
            parameters[OUTPUT_SCHEMA] = schema_of(agent.output_schema)
        if quote.service_tier is not None:
            parameters["service_tier"] = quote.service_tier
        media = media_tokens(messages, agent.model)
        guessed = expected_tokens(messages, tools, parameters, model=agent.model) - media
        bound = upper_bound_tokens(messages, tools, parameters, model=agent.model)
        least = usual_tokens(guessed, agent.model)
        is_counted = counted_tokens is not None and counted_tokens <= bound
        if counted_tokens is not None and is_counted:
            bound = min(bound, ceil(counted_tokens * _COUNT_FACTOR) + _COUNT_ALLOWANCE)
            guessed, media = counted_tokens, 0
            least = int(counted_tokens / _COUNT_FACTOR)
        window = self.pricing.context_window(agent.provider, agent.model)
        asked = str(parameters)
        return CallPlan(
            quote=quote,
            parameters=parameters,
            max_tokens=self._affordable(agent, quote, bound, uses, window, affordable_usd),
            cache_writes="cache_control" in asked or bool(parameters.get("prompt_cache")),
            writes_for_an_hour="'1h'" in asked,
            summary_tokens=self._summary_tokens(agent),
            bound_tokens=bound,
            guessed_tokens=guessed,
            media_tokens=media,
            counted=is_counted,
            least_tokens=least,
            context_window=window,
            counting=protocol.counting,
            server_uses=uses,
            quote_answered=partial(
                self.pricing.quote_answered, agent.provider, agent.model, agent.llm_config
            ),
        )

    def price_of(self, agent: Agent) -> Price:
        """Return the price of an agent's model; raise UnknownModel if the model has no price."""
        return self.pricing.price_of(agent.provider, agent.model, agent.llm_config)

    def container_seconds(self, agent: Agent, call_s: float, *, ran: bool) -> int:
        """Return the time of containers that is booked for a usual call, as in ``Usage``.

        Args:
            agent: The agent.
            call_s: Seconds of the call.
            ran: Whether a program runs in the call.
        """
        programs = [tool for tool in server_tools_in(agent.tools) if tool.name == CODE_EXECUTION]
        if not programs:
            return 0
        protocol = protocol_of(agent.provider, self._providers)
        shown = protocol.containers.count(0, ran=ran) * gigabytes_of(programs[0], protocol)
        return protocol.containers.seconds(call_s, shown)

    def _summary_tokens(self, agent: Agent) -> int:
        """Return the largest number of tokens of the summary that the agent's requests ask for."""
        # Anthropic's API summarises a conversation inside a request, and counts the summary
        # separately.
        edits, asked = (agent.llm_config.get(name) for name in ("context_management", "compaction"))
        if asked is None and "compact" not in str(edits):
            return 0
        limit = self.pricing.max_output_tokens(agent.provider, agent.model)
        return limit or self.max_tokens(agent)

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
        self,
        agent: Agent,
        quote: Quote,
        bound: int,
        uses: ServerUses,
        window: int | None,
        affordable_usd: Decimal | None,
    ) -> int:
        cap = self.max_tokens(agent)
        if affordable_usd is None or agent.llm_config.get("max_tokens") is not None:
            return cap
        # If the provider runs tools, the model reads its own answer again. The longest answer
        # counts here.
        bound = uses.prompt_tokens(bound, cap, window)
        prompt_usd, one_token_usd = (
            quote.worst_case(
                bound,
                tokens,
                web_searches=uses.searches,
                container_seconds=uses.container_seconds,
            )
            for tokens in (0, 1)
        )
        per_token_usd = one_token_usd - prompt_usd
        if not per_token_usd:
            return max(cap, 1)
        return max(min(cap, int((affordable_usd - prompt_usd) / per_token_usd)), 1)
