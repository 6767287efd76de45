"""What a call may cost is the same to the plan that shows it and to the worker that holds it."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.domain.policies import CostConfig
from app.errors import UnknownModel
from app.planning.calls import CallPlanner
from app.planning.worst_case import worst_case_of

PLANNER = CallPlanner(Pricing(), default_max_tokens=4096)
SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}}}


def agent(**fields: Any) -> Agent:
    fields.setdefault("llm_config", {"model": "gpt-4o-mini"})
    return Agent(name="a", prompt_template="{text}", cost_limit=100.0, **fields)


@pytest.mark.parametrize(
    "config",
    [
        {"model": "gpt-4o-mini"},
        {"model": "gpt-4o-mini", "max_tokens": 7},
        {"model": "claude-haiku-4-5", "system": "Be brief.", "temperature": 0.5},
        {"model": "claude-haiku-4-5", "prompt_cache": "1h"},
        {"model": "gpt-3.5-turbo", "stream": True},
    ],
)
def test_a_plan_shows_what_the_worker_will_hold(config: dict[str, Any]) -> None:
    asked = agent(llm_config=config)
    messages = [{"role": "user", "content": "x" * 1000}]
    if system := config.get("system"):
        messages.insert(0, {"role": "system", "content": system})

    held = PLANNER.plan(asked, messages, [], affordable_usd=Decimal(100)).worst_usd

    assert worst_case_of(asked, {"text": "x" * 1000}, PLANNER) == held > 0


def test_a_schema_adds_to_the_bound_and_a_repair_to_the_worst_case() -> None:
    plain, structured = agent(), agent(output_schema=SCHEMA)
    messages = [{"role": "user", "content": "x"}]

    bound = PLANNER.plan(structured, messages).bound_tokens

    assert bound > PLANNER.plan(plain, messages).bound_tokens + 600
    assert worst_case_of(structured, {"text": "x"}, PLANNER) > 2 * worst_case_of(
        plain, {"text": "x"}, PLANNER
    )


@pytest.mark.parametrize(
    ("model", "config", "expected"),
    [
        ("gpt-4o-mini", {}, 4096),
        ("gpt-4o-mini", {"max_tokens": 100_000}, 100_000),
        ("gpt-4", {}, 4096),
        ("claude-3-haiku-20240307", {}, 4096),
    ],
)
def test_an_answer_is_capped_by_the_agent_or_the_default(
    model: str, config: dict[str, Any], expected: int
) -> None:
    assert PLANNER.max_tokens(agent(llm_config={"model": model} | config)) == expected


def test_a_model_that_answers_less_than_the_default_caps_it() -> None:
    planner = CallPlanner(Pricing(), default_max_tokens=1_000_000)

    assert planner.max_tokens(agent(llm_config={"model": "gpt-4o-mini"})) == 16_384


@pytest.mark.parametrize(("left_usd", "expected"), [("1", 4096), ("0.0102", 20), ("0.001", 1)])
def test_what_is_left_of_the_money_caps_an_answer_without_a_cap_of_its_own(
    left_usd: str, expected: int
) -> None:
    prices = CostConfig(default_input_cost=0.1, default_output_cost=0.01)
    planner = CallPlanner(Pricing(prices), default_max_tokens=4096)
    asked = agent(llm_config={"model": "unpriced", "provider": "openai"})
    messages = [{"role": "user", "content": "x" * 68}]

    plan = planner.plan(asked, messages, affordable_usd=Decimal(left_usd))
    own = planner.plan(
        agent(llm_config={"model": "unpriced", "provider": "openai", "max_tokens": 50}),
        messages,
        affordable_usd=Decimal(left_usd),
    )

    assert plan.bound_tokens == 100
    assert plan.max_tokens == expected
    assert own.max_tokens == 50


def test_a_prompt_that_no_model_could_read_does_not_fit_its_window() -> None:
    asked = agent(llm_config={"model": "gpt-4"})

    short = PLANNER.plan(asked, [{"role": "user", "content": "x"}])
    long = PLANNER.plan(asked, [{"role": "user", "content": "x" * 100_000}])

    assert short.fits_window
    assert not long.fits_window


def test_a_request_names_the_tier_that_its_hold_covers() -> None:
    messages = [{"role": "user", "content": "x"}]
    unasked = PLANNER.plan(agent(llm_config={"model": "gpt-5"}), messages)
    auto = PLANNER.plan(agent(llm_config={"model": "gpt-5", "service_tier": "auto"}), messages)
    alone = PLANNER.plan(agent(llm_config={"model": "gpt-3.5-turbo"}), messages)

    assert unasked.parameters["service_tier"] == "default"
    assert auto.parameters["service_tier"] == "auto"
    assert "service_tier" not in alone.parameters
    assert unasked.price == auto.price
    assert (
        auto.worst_usd > unasked.worst_usd == unasked.price.worst_case(unasked.bound_tokens, 4096)
    )


def test_a_summary_by_the_provider_reads_the_prompt_again() -> None:
    edits = {"edits": [{"type": "compact_20260112"}]}
    messages = [{"role": "user", "content": "x" * 1000}]
    config = {"model": "claude-opus-5-5", "inference_geo": "global"}
    cleared = {"edits": [{"type": "clear_tool_uses_20250919"}]}

    plan = PLANNER.plan(agent(llm_config={**config, "context_management": edits}), messages)
    other = PLANNER.plan(agent(llm_config={**config, "context_management": cleared}), messages)

    assert (plan.summary_tokens, other.summary_tokens) == (128_000, 0)
    assert plan.worst_usd == plan.price.worst_case(2 * plan.bound_tokens + 128_000, 4096 + 128_000)
    assert other.worst_usd == other.price.worst_case(other.bound_tokens, 4096)


def test_a_model_without_a_price_has_no_plan() -> None:
    with pytest.raises(UnknownModel):
        PLANNER.plan(agent(llm_config={"model": "gpt-99"}), [])


@given(
    text=st.text(min_size=1, max_size=200),
    times=st.integers(1, 2000),
    counted=st.integers(1, 3_000_000),
)
def test_a_count_lowers_the_bound_and_never_below_itself(
    text: str, times: int, counted: int
) -> None:
    messages = [{"role": "user", "content": text * times}]
    plain = PLANNER.plan(agent(), messages)

    plan = PLANNER.plan(agent(), messages, counted_tokens=counted)

    if counted > plain.bound_tokens:  # a prompt cannot have so many tokens
        assert plan == plain
        return
    assert counted <= plan.bound_tokens <= plain.bound_tokens
    assert plan.bound_tokens <= 1.05 * counted + 1001
    assert plan.least_tokens <= plan.guessed_tokens == counted
    assert plan.counted
    assert plan.worst_usd <= plain.worst_usd
    assert plan.worst_usd >= plan.worst_usd_of(counted)


def test_a_count_is_no_reason_to_refuse_a_prompt_that_it_exceeds_only_by_a_little() -> None:
    messages = [{"role": "user", "content": "x" * 600_000}]

    counts = {n: PLANNER.plan(agent(), messages, counted_tokens=n) for n in (130_000, 140_000)}

    assert counts[130_000].context_window == 128_000
    assert [plan.fits_window for plan in counts.values()] == [True, False]


def test_a_shorter_bound_leaves_more_of_the_money_for_the_answer() -> None:
    messages = [{"role": "user", "content": "x" * 200_000}]
    left = Decimal("0.0315")

    by_bytes = PLANNER.plan(agent(), messages, affordable_usd=left)
    counted = PLANNER.plan(agent(), messages, affordable_usd=left, counted_tokens=50_000)

    assert by_bytes.max_tokens < counted.max_tokens == 4096


def test_tools_of_the_provider_are_held_with_their_fees_and_every_read() -> None:
    config = {"model": "claude-haiku-4-5", "max_tokens": 1000}
    search = {"server": "web_search", "max_uses": 2, "max_result_tokens": 10_000}
    messages = [{"role": "user", "content": "x"}]
    plain, searching = agent(llm_config=config), agent(llm_config=config, tools=[search])

    without = PLANNER.plan(plain, messages)
    plan = PLANNER.plan(searching, messages, [search])

    per_token = Decimal("0.000001")
    reads = plan.bound_tokens + 3 * (plan.bound_tokens + 1000 + 20_000)
    assert plan.bound_tokens > without.bound_tokens + 4000
    assert plan.worst_usd == reads * per_token + 1000 * 5 * per_token + Decimal("0.02")


def test_an_answer_is_no_longer_than_the_money_allows_beside_searches() -> None:
    config = {"model": "claude-haiku-4-5"}
    search = {"server": "web_search", "max_uses": 1, "max_result_tokens": 5000}
    messages = [{"role": "user", "content": "x"}]
    asked = agent(llm_config=config, tools=[search])

    plan = PLANNER.plan(asked, messages, [search], affordable_usd=Decimal("0.05"))

    assert 1 < plan.max_tokens < 4096
    assert plan.worst_usd <= Decimal("0.05")


def test_a_plan_with_one_turn_shows_the_hold_and_otherwise_the_cost_limit() -> None:
    search = {"server": "web_search", "max_uses": 1}
    once = agent(tools=[search], max_turns=1)
    messages = [{"role": "user", "content": "x"}]

    held = PLANNER.plan(once, messages, [search]).worst_usd

    assert worst_case_of(once, {"text": "x"}, PLANNER) == held > Decimal("0.01")
    assert worst_case_of(agent(tools=[search]), {"text": "x"}, PLANNER) == 100


def test_a_search_without_a_fee_has_no_plan() -> None:
    prices = CostConfig(model_prices={"gpt-4o-mini": [{"input": 1, "output": 2}]})
    planner = CallPlanner(Pricing(prices), default_max_tokens=100)

    with pytest.raises(UnknownModel, match="no fee for searches"):
        planner.plan(agent(tools=[{"server": "web_search"}]), [])

    prices = CostConfig(
        model_prices={"gpt-4o-mini": [{"input": 1, "output": 2, "web_searches": 5}]}
    )
    planner = CallPlanner(Pricing(prices), default_max_tokens=100)
    assert planner.plan(agent(tools=[{"server": "web_search"}]), []).worst_usd > 0


@pytest.mark.parametrize(
    ("model", "entry", "containers_usd"),
    [
        # 11 minutes: the timeout, a minute for a busy process, and 5 minutes of idle time.
        ("claude-haiku-4-5", {}, Decimal("0.05") * 11 / 60),
        # 26 minutes of each container, of which each use may have made one.
        ("gpt-5.4-mini", {"max_uses": 3}, Decimal("0.09") * 3 * 26 / 60),
        ("gpt-5.4-mini", {"max_uses": 3, "memory": "16g"}, Decimal("0.09") * 16 * 3 * 26 / 60),
    ],
)
def test_a_hold_counts_the_longest_time_of_the_containers(
    model: str, entry: dict[str, Any], containers_usd: Decimal
) -> None:
    asked = agent(
        llm_config={"model": model, "max_tokens": 500},
        tools=[{"server": "code_execution", **entry}],
        timeout=300.0,
    )
    free = CostConfig(model_prices={model: [{"input": 1, "output": 5, "container_hours": 0}]})
    paid = CostConfig(
        model_prices={
            model: [
                {"input": 1, "output": 5, "container_hours": 0.05 if "claude" in model else 0.09}
            ]
        }
    )
    messages = [{"role": "user", "content": "x"}]

    fee_usd = PLANNER.plan(asked, messages).price.containers_usd(
        PLANNER.plan(asked, messages).server_uses.container_seconds
    )
    worst_usd, without_fee_usd = (
        CallPlanner(Pricing(prices), default_max_tokens=4096).plan(asked, messages).worst_usd
        for prices in (paid, free)
    )

    assert fee_usd == pytest.approx(containers_usd)
    assert worst_usd - without_fee_usd == fee_usd


def test_the_reads_of_programs_are_held_as_those_of_searches() -> None:
    def held(model: str, **entry: Any) -> int:
        tools = [{"server": "code_execution", **entry}]
        config = {"model": model, "max_tokens": 500}
        plan = PLANNER.plan(
            agent(llm_config=config, tools=tools), [{"role": "user", "content": "x"}], tools
        )
        return plan.server_uses.prompt_tokens(plan.bound_tokens, 500, plan.context_window)

    prompt = held("gpt-5.4-mini", max_uses=1) - 2 * (500 + 5000)

    # The prompt, and three reads of it with the answer and two outputs of 5,000 tokens.
    assert held("gpt-5.4-mini", max_uses=2) == pytest.approx(prompt * 4 / 3 + 3 * 10_500, rel=0.01)
    assert held("claude-haiku-4-5") > 11 * 50_000
    assert held("claude-haiku-4-5", max_result_tokens=1_000_000) > 11 * 200_000


def test_an_unpriced_container_is_no_plan() -> None:
    prices = CostConfig(model_costs={"m": {"input": 0.001, "output": 0.002}})
    planner = CallPlanner(Pricing(prices), default_max_tokens=100)
    config = {"model": "m", "provider": "openai"}

    with pytest.raises(UnknownModel, match="no fee for containers"):
        planner.plan(agent(llm_config=config, tools=[{"server": "code_execution"}]), [])
