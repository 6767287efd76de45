"""The ledger has the price of what was served: real SDKs, a provider's answers, a real Postgres.

The file is over 400 lines because the cases share the way in which a call is made and booked.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from app.costs.pricing import Pricing
from app.costs.reprice import Repricing, reprice
from app.domain.agent import Agent
from app.domain.money import round_to_ledger, round_up
from app.domain.policies import CostConfig
from app.domain.providers import BUILT_IN
from app.domain.usage import Partial, Usage
from app.errors import ConnectionFailed, ProviderError
from app.planning.calls import CallPlanner
from app.rate_limits.base import LimitRequest
from app.storage.records import TOKENS
from tests.support.database_cluster import Cluster, ending, hold_request
from tests.support.jobs import job_of
from tests.support.llm_clients import client_of
from tests.support.wire_server import provider_server, serving
from workers.calls.base import CallRequest
from workers.calls.records import PreparedCall, answered, failed

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "Say hello. " * 200}]
Change = Callable[[dict[str, Any]], None]


@dataclass
class Booked:
    """A call that was made and booked, and the row of the ledger."""

    cluster: Cluster
    row: Any
    held_usd: Decimal
    sent: dict[str, Any]

    async def reprice(self, pricing: Pricing) -> Repricing:
        return await self.cluster.commit(lambda c: reprice(c, [self.row.run_id], pricing))


def pricing_of(tier: str | None = None, costs: CostConfig | None = None) -> Pricing:
    return Pricing(costs, [replace(each, service_tier=tier) for each in BUILT_IN])


async def book(
    cluster: Cluster,
    config: dict[str, Any],
    change: Change,
    *,
    pricing: Pricing,
    conversation: str = "text",
) -> Booked:
    agent = Agent(name="a", prompt_template="go", llm_config=config, cost_limit=50.0)
    run_id = await cluster.start(agent, cost_budget=50.0)
    (claimed,) = (await cluster.claim(run_id, provider=agent.provider)).agents
    ((workflow_id,),) = await cluster.rows("SELECT workflow_id FROM runs WHERE id = :id", id=run_id)
    plan = CallPlanner(pricing, default_max_tokens=4096).plan(agent, MESSAGES)
    hold = hold_request(claimed, str(round_up(plan.worst_usd)))
    await cluster.hold(hold)
    call = PreparedCall(
        request=CallRequest(job=job_of(agent), agent=agent, messages=MESSAGES),
        plan=plan,
        hold=hold,
        limit=LimitRequest(
            provider=agent.provider,
            model=agent.model,
            run_id=str(run_id),
            input_tokens=plan.guessed_tokens,
            output_tokens=plan.max_tokens,
            counting=plan.counting,
        ),
    )
    broken: list[Partial] = []

    def answer(data: dict[str, Any]) -> None:
        if "model" in (message := data.get("message", data)):
            message["model"] = agent.model
        change(data)

    async with serving(agent.provider, conversation, answer) as server:
        client = client_of(agent.provider, server.url)
        try:
            response = await client.complete_with_tools(
                MESSAGES,
                agent.model,
                max_tokens=plan.max_tokens,
                on_broken=broken.append,
                **plan.parameters,
            )
            record = answered(call, response, 1.0)
        except ConnectionFailed as error:
            record = failed(call, error, broken[0], 1.0)
        finally:
            await client.close()
    ids = {"run_id": run_id, "agent_run_id": claimed.id, "workflow_id": workflow_id}
    record = replace(record, **ids, call_id=hold.call_id, attempt=claimed.attempt)
    await cluster.record(ending(claimed, calls=[record]))
    (row,) = await cluster.rows("SELECT * FROM cost_entries WHERE run_id = :id", id=run_id)
    return Booked(cluster, row, hold.amount_usd, server.requests[0])


def cost_of(row: Any, params: dict[str, Any], times: str = "1") -> Decimal:
    """The cost of the row's counts at the price of a request with these parameters."""
    price = Pricing().price_of(row.provider, row.model, params)
    millions = (
        row.input_tokens * price.input
        + row.cached_tokens * price.cached_input
        + row.cache_write_tokens * price.cache_write
        + row.output_tokens * price.output
    )
    return round_to_ledger(millions * Decimal(times))


def tier(served: str | None) -> Change:
    def change(data: dict[str, Any]) -> None:
        data["service_tier"] = served

    return change


def usage_with(**facts: Any) -> Change:
    """Change the usage of a message, which the first event of a stream has inside the message."""

    def change(data: dict[str, Any]) -> None:
        usage = data.get("message", data).get("usage")
        if usage is not None and data["type"] != "message_delta":
            usage |= facts

    return change


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("asked", "served", "priced", "kind"),
    [
        ("auto", "priority", "priority", "actual"),
        ("auto", "default", None, "actual"),
        ("priority", "default", None, "actual"),
        ("fast", "priority", "priority", "actual"),
        ("flex", "default", None, "actual"),
        ("auto", "scale", "priority", "estimated"),
        ("auto", None, "priority", "estimated"),
        (None, "default", None, "actual"),
    ],
)
async def test_openais_tier_is_booked_as_it_was_served(
    cluster: Cluster,
    asked: str | None,
    served: str | None,
    priced: str | None,
    kind: str,
    stream: bool,
) -> None:
    config = {"model": "gpt-5", "service_tier": asked, "stream": stream}
    pricing = pricing_of()

    booked = await book(cluster, config, tier(served), pricing=pricing)

    row = booked.row
    assert row.output_tokens > 0
    assert (row.cost_usd, row.kind) == (cost_of(row, {"service_tier": priced}), kind)
    assert row.served == ({"service_tier": served} if served else {})
    assert row.cost_usd <= booked.held_usd
    assert booked.sent["service_tier"] == (asked or "default")
    assert (await booked.reprice(pricing)).changes == []


async def test_where_the_account_decides_nothing_is_sent_and_the_dearest_is_held(
    cluster: Cluster,
) -> None:
    config = {"model": "gpt-5"}

    booked = await book(cluster, config, tier("priority"), pricing=pricing_of("auto"))
    plain = await book(cluster, config, tier("default"), pricing=pricing_of())

    assert "service_tier" not in booked.sent
    assert booked.row.cost_usd == 2 * plain.row.cost_usd <= booked.held_usd
    assert booked.held_usd >= 2 * plain.held_usd - Decimal("0.0001")
    # A later look at the ledger finds the tier that was served, whatever is configured then.
    assert (await booked.reprice(pricing_of())).changes == []


async def test_a_repricing_finds_the_tier_that_was_served(cluster: Cluster) -> None:
    booked = await book(cluster, {"model": "gpt-5"}, tier("priority"), pricing=pricing_of("auto"))
    own: dict[str, Any] = {"input": 2.5, "output": 20, "cached_input": 0.25}
    own["factors"] = {"service_tier": {"priority": 3}}
    dearer = pricing_of(costs=CostConfig(model_prices={"gpt-5": [own]}))

    (change,) = (await booked.reprice(dearer)).changes

    assert change.booked_usd == booked.row.cost_usd
    # Twice the usual price was booked; three times the double price is right now.
    assert change.difference_usd == 2 * booked.row.cost_usd
    assert (await booked.reprice(dearer)).changes == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("asked", "facts", "times", "kind"),
    [
        ({}, {"inference_geo": "global"}, "1", "actual"),
        ({}, {"inference_geo": "us"}, "1.1", "actual"),
        ({}, {"inference_geo": None}, "1.1", "estimated"),
        ({"inference_geo": "us"}, {"inference_geo": "us"}, "1.1", "actual"),
        ({}, {"inference_geo": "global", "service_tier": "priority"}, "1", "estimated"),
        ({"speed": "fast"}, {"inference_geo": "global", "speed": "standard"}, "1", "actual"),
        ({"speed": "fast"}, {"inference_geo": "us", "speed": "fast"}, "2.2", "actual"),
    ],
)
async def test_anthropics_region_and_speed_are_booked_as_they_were_served(
    cluster: Cluster,
    asked: dict[str, str],
    facts: dict[str, str | None],
    times: str,
    kind: str,
    stream: bool,
) -> None:
    config = {"model": "claude-opus-5-5", "stream": stream, **asked}

    booked = await book(cluster, config, usage_with(**facts), pricing=pricing_of())

    row = booked.row
    assert (row.cost_usd, row.kind) == (cost_of(row, {}, times), kind)
    assert row.served["inference_geo"] == facts["inference_geo"] if facts["inference_geo"] else True
    assert row.cost_usd <= booked.held_usd
    assert "service_tier" not in booked.sent
    assert (await booked.reprice(pricing_of())).changes == []


def named(model: str) -> Change:
    def change(data: dict[str, Any]) -> None:
        if "model" in (message := data.get("message", data)):
            message["model"] = model

    return change


OWN = {"input": 50, "output": 400}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("asked", "answered", "own", "priced"),
    [
        ("gpt-5-nano", "gpt-5", {}, "gpt-5"),
        ("gpt-5", "gpt-5-nano", {}, "gpt-5-nano"),
        ("gpt-5", "gpt-5-2025-08-07", {}, "gpt-5"),
        ("gpt-5", "gpt-5-2025-08-07", {"gpt-5": [OWN]}, "gpt-5"),
        ("gpt-5", "ours", {"openai/ours": [OWN]}, "ours"),
        ("gpt-5", "gpt-5-2031-01-01", {}, "gpt-5"),
        ("gpt-5", "gpt-5-latest", {}, "gpt-5"),
        ("llama", "models/llama-3.gguf", {"openai/*": [OWN]}, "llama"),
        ("our-deployment", "gpt-5-nano", {"openai/our-deployment": [OWN]}, "our-deployment"),
        ("any", "gpt-5", {"openai/*": [OWN], "gpt-5": [OWN | {"input": 70}]}, "gpt-5"),
    ],
)
async def test_the_model_that_answers_is_priced(
    cluster: Cluster, asked: str, answered: str, own: dict[str, Any], priced: str, stream: bool
) -> None:
    config = {"model": asked, "provider": "openai", "stream": stream}
    pricing = pricing_of(costs=CostConfig(model_prices=own))

    booked = await book(cluster, config, named(answered), pricing=pricing)

    row = booked.row
    usage = Usage(**{name: getattr(row, name) for name in TOKENS})
    assert (row.model, row.model_answered) == (asked, answered)
    assert row.cost_usd == round_to_ledger(pricing.price_of("openai", priced).cost(usage)) > 0
    assert (await booked.reprice(pricing)).changes == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("asked", "answered", "own"),
    [
        ("gpt-5-nano", "a-name-without-a-price", {}),
        ("gpt-5-nano", "openai/gpt-5-nano", {}),
        ("gpt-5-nano", "claude-opus-5-5@fast", {}),
        ("gpt-4o-mini", "gpt-4o-mini-search-preview", {}),
        ("gpt-5-nano", "gpt-5-nano:online", {"gpt-5-nano": [OWN]}),
        ("our-deployment", "our-deployment:nitro", {"openai/our-deployment": [OWN]}),
    ],
)
async def test_an_answer_of_a_model_that_is_not_understood_costs_at_least_its_hold(
    cluster: Cluster, asked: str, answered: str, own: dict[str, Any], stream: bool
) -> None:
    config = {"model": asked, "provider": "openai", "stream": stream}
    pricing = pricing_of(costs=CostConfig(model_prices=own))

    booked = await book(cluster, config, named(answered), pricing=pricing)

    assert booked.row.model_answered == answered
    assert booked.row.kind == "estimated"
    assert booked.row.cost_usd >= booked.held_usd
    assert (await booked.reprice(pricing)).changes == []
    # A price for the name tells the cost of the calls that were made before.
    with_fee = {**own, f"openai/{answered}": [OWN | {"requests": 0}]}
    priced = pricing_of(costs=CostConfig(model_prices=with_fee))
    (change,) = (await booked.reprice(priced)).changes
    usage = Usage(**{name: getattr(booked.row, name) for name in TOKENS})
    right = round_to_ledger(priced.price_of("openai", answered).cost(usage))
    assert change.difference_usd == right - booked.row.cost_usd
    assert (await booked.reprice(priced)).changes == []


def in_turns(*changes: Change) -> Change:
    """Change the first event with the first of these changes, and so on; then with the last."""
    rest = list(changes)

    def change(data: dict[str, Any]) -> None:
        (rest.pop(0) if len(rest) > 1 else rest[0])(data)

    return change


def tier_and_model(served: str, model: str) -> Change:
    def change(data: dict[str, Any]) -> None:
        data["service_tier"], data["model"] = served, model

    return change


async def test_a_stream_that_names_several_models_and_tiers_costs_the_dearest_of_them(
    cluster: Cluster,
) -> None:
    config = {"model": "gpt-5-nano", "provider": "openai", "stream": True}
    told = [("priority", "gpt-5"), ("flex", "gpt-5"), ("default", "gpt-5-nano")]
    change = in_turns(*(tier_and_model(*each) for each in told))

    booked = await book(cluster, config, change, pricing=pricing_of())

    usage = Usage(**{name: getattr(booked.row, name) for name in TOKENS})
    dearest = Pricing().price_of("openai", "gpt-5", {"service_tier": "priority"})
    assert booked.row.model_answered == "gpt-5 | gpt-5-nano"
    assert booked.row.served == {"service_tier": "priority | flex | default"}
    assert booked.row.cost_usd == round_to_ledger(dearest.cost(usage)) > 0
    assert booked.row.kind == "estimated"
    assert (await booked.reprice(pricing_of())).changes == []


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
async def test_a_stream_that_breaks_off_is_priced_by_what_it_had_told(
    cluster: Cluster, protocol: str
) -> None:
    models = {"openai": "gpt-5", "anthropic": "claude-opus-5-5"}
    changes = {"openai": tier("priority"), "anthropic": usage_with(inference_geo="us")}
    times = {"openai": "2", "anthropic": "1.1"}
    config = {"model": models[protocol], "stream": True}

    booked = await book(
        cluster,
        config,
        changes[protocol],
        pricing=pricing_of("auto") if protocol == "openai" else pricing_of(),
        conversation="cut_off",
    )

    assert booked.row.kind == "estimated"
    assert booked.row.cost_usd == cost_of(booked.row, {}, times[protocol]) <= booked.held_usd
    assert (await booked.reprice(pricing_of("auto"))).changes == []


async def test_a_summary_of_the_conversation_is_billed_beside_the_totals(cluster: Cluster) -> None:
    config = {
        "model": "claude-opus-5-5",
        "context_management": {"edits": [{"type": "compact_20260112"}]},
    }
    entry = {"type": "compaction", "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    totals = {"type": "message", "input_tokens": 1, "output_tokens": 1}
    iterations = [{**entry, "input_tokens": 2000, "output_tokens": 3500}, totals]

    booked = await book(cluster, config, usage_with(iterations=iterations), pricing=pricing_of())
    plain = await book(cluster, {"model": "claude-opus-5-5"}, usage_with(), pricing=pricing_of())

    row = booked.row
    assert row.input_tokens == plain.row.input_tokens + 2000
    assert row.output_tokens == plain.row.output_tokens + 3500
    assert row.cost_usd == cost_of(row, {}) <= booked.held_usd
    assert row.kind == "actual"


async def test_searches_requests_and_citations_are_in_the_ledger(cluster: Cluster) -> None:
    own: dict[str, Any] = {"input": 1, "output": 8, "reasoning": 3, "citation": 2}
    own |= {"requests": 5, "web_searches": 10, "max_web_searches": 30}
    own |= {"max_citation_tokens": 50_000}
    pricing = pricing_of(costs=CostConfig(model_prices={"openai/sonar": [own]}))

    def change(data: dict[str, Any]) -> None:
        data["usage"] |= {
            "citation_tokens": 20_000,
            "num_search_queries": 18,
            "reasoning_tokens": 700,
            "completion_tokens_details": None,
        }

    booked = await book(cluster, {"model": "sonar", "provider": "openai"}, change, pricing=pricing)

    row = booked.row
    assert (row.citation_tokens, row.web_searches, row.reasoning_tokens) == (20_000, 18, 700)
    millionths = row.input_tokens + (row.output_tokens - 700) * 8 + 700 * 3 + 20_000 * 2
    fees = Decimal("0.005") + 18 * Decimal("0.01")
    assert row.cost_usd == Decimal(millionths) / 1_000_000 + fees <= booked.held_usd
    assert (await booked.reprice(pricing)).changes == []


HOURLY = {"model": "claude-haiku-4-5", "max_tokens": 50, "system": "Be brief."}


@pytest.mark.parametrize(
    ("breakdown", "minutes"),
    [
        (None, 0),
        ({}, 0),
        ({"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0}, 100),
        ({"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}, 0),
        ({"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 4900}, 100),
    ],
)
@pytest.mark.parametrize("asked", ["1h", True])
async def test_written_tokens_without_a_lifetime_have_the_lifetime_that_was_asked(
    cluster: Cluster, breakdown: dict[str, int] | None, minutes: int, asked: str | bool
) -> None:
    written = usage_with(cache_creation_input_tokens=5000, cache_creation=breakdown)

    booked = await book(cluster, HOURLY | {"prompt_cache": asked}, written, pricing=pricing_of())

    told_1h = (breakdown or {}).get("ephemeral_1h_input_tokens", 0)
    hourly = 5000 - minutes if asked == "1h" else told_1h
    assert booked.row.cache_write_1h_tokens == hourly
    assert booked.row.cache_write_tokens == 5000 - hourly


@pytest.mark.parametrize("prompt", [None, -5, float("nan"), "many"])
async def test_what_a_usage_tells_is_paid_also_without_a_count_of_the_prompt(
    cluster: Cluster, prompt: Any
) -> None:
    told = usage_with(
        input_tokens=prompt,
        cache_creation_input_tokens=5000,
        cache_creation=None,
        server_tool_use={"web_search_requests": 3},
    )
    config = {"model": "claude-haiku-4-5", "max_tokens": 50}

    booked = await book(cluster, config, told, pricing=pricing_of())

    price = Pricing().price_of("anthropic", "claude-haiku-4-5", config)
    assert booked.row.kind == "estimated"
    assert booked.row.web_searches == 3
    assert booked.row.cost_usd >= round_to_ledger(
        5000 * price.cache_write + 3 * price.web_search + booked.row.output_tokens * price.output
    )


@pytest.mark.parametrize(
    "usage",
    [
        {"completion_tokens": 90},
        {"total_tokens": 500},
        {"prompt_tokens": -1, "completion_tokens": 90},
        {"num_search_queries": 2},
    ],
)
async def test_an_error_that_counts_tokens_is_paid(usage: dict[str, Any]) -> None:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"error": {"message": "x", "code": 503}, "usage": usage})

    async with provider_server(handle) as url:
        client = client_of("openai", url)
        with pytest.raises(ProviderError) as failed_:
            await client.complete_with_tools(MESSAGES, "gpt-4o-mini", max_tokens=50)
        await client.close()

    partial = failed_.value.partial
    assert partial is not None
    given = max(usage.get("completion_tokens", 0), usage.get("total_tokens", 0))
    assert partial.usage.total_tokens >= given
    assert partial.usage.web_searches == usage.get("num_search_queries", 0)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}])
async def test_an_error_that_counts_nothing_is_free(usage: Any) -> None:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"error": {"message": "x", "code": 503}, "usage": usage})

    async with provider_server(handle) as url:
        client = client_of("openai", url)
        with pytest.raises(ProviderError) as failed_:
            await client.complete_with_tools(MESSAGES, "gpt-4o-mini", max_tokens=50)
        await client.close()

    assert failed_.value.partial is None
