"""The figures of a plan: calls, dollars and the least time, each checked by hand."""

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.cli.application import execute
from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.domain.attachments import Source
from app.domain.policies import RateLimitConfig
from app.domain.workflow import Workflow
from app.examples.tools import check_total
from app.llm.parts import Part, part_of
from app.planning.calls import CallPlanner
from app.planning.figures import Forecast
from app.planning.forecast import forecast
from app.planning.time_bounds import TimeBound, time_bounds
from tests.support.media import png

UNLIMITED = {
    "requests_per_minute": None,
    "requests_per_hour": None,
    "requests_per_day": None,
    "tokens_per_minute": None,
    "concurrent_requests": None,
}
OPENAI = {"model": "gpt-4o-mini", "max_tokens": 1000}
PLANNER = CallPlanner(Pricing(), default_max_tokens=4096)
ANTHROPIC = {"model": "claude-haiku-4-5", "max_tokens": 1000}


def agent(name: str, *dependencies: str, prompt: str = "x" * 400, **fields: Any) -> Agent:
    fields.setdefault("llm_config", OPENAI)
    return Agent(name=name, prompt_template=prompt, dependencies=dependencies, **fields)


def planned(*agents: Agent, output_tokens: int = 100, **given: Any) -> Forecast:
    return forecast(
        Workflow(name="w", agents=agents),
        given,
        planner=PLANNER,
        output_tokens=output_tokens,
    )


def bounds_of(
    found: Forecast, latency_s: float | None = None, places: int = 10, **limits: Any
) -> list[TimeBound]:
    config = RateLimitConfig(**UNLIMITED | limits)
    return time_bounds(
        found,
        lambda provider, model: (f"{provider}/default", config),
        max_parallel_agents=places,
        latency_s=latency_s,
    )


def test_agents_of_other_kinds_make_no_calls_and_cost_nothing() -> None:
    function = Agent(name="f", kind="function", config={"function": "m:f"})

    found = planned(function, agent("a", "f", prompt="{f}", cost_limit=0.5))
    bounds = bounds_of(found, latency_s=2.0, requests_per_minute=60)

    f, a = found.agents
    assert not f.calls
    assert (f.most_calls, f.worst_usd, f.provider) == (0, Decimal(0), "function")
    assert found.calls == len(a.calls) == 1
    # Only the size of a function's output is bounded, so the cost limit bounds its reader.
    assert found.bounds.once_usd > planned(agent("a")).bounds.once_usd
    assert found.bounds.limit_usd == Decimal("0.5")
    assert {bound.bucket for bound in bounds} == {"openai/default", "run"}
    assert max(bound.seconds for bound in bounds) == 2.0


def test_an_agent_costs_its_prompt_and_an_answer_of_the_assumed_size() -> None:
    found = planned(agent("a"))

    (a,) = found.agents
    (call,) = a.calls
    # A quarter of the bytes, and some for the message.
    assert call.usage.input_tokens == 105
    assert a.expected_usd == Decimal("105e-6") * Decimal("0.15") + Decimal("100e-6") * Decimal(
        "0.6"
    )
    assert a.expected_usd < a.worst_usd <= found.bounds.once_usd < found.bounds.limit_usd


def test_what_an_agent_reads_of_another_is_as_long_as_its_answer() -> None:
    found = planned(agent("a"), agent("b", "a", prompt="{a.total} of {given}"), given="y" * 400)

    a, b = found.agents
    assert (a.level, b.level) == (0, 1)
    assert b.calls[0].usage.input_tokens == 1 + (400 + 4 + 400) // 4 + 4


def test_an_agent_with_tools_calls_twice_and_may_use_up_its_turns_and_retries() -> None:
    found = planned(agent("a", tools=[check_total], max_turns=5, max_retries=2, cost_limit=0.7))

    (a,) = found.agents
    assert (len(a.calls), a.most_calls) == (2, 15)
    assert a.calls[1].usage.input_tokens == a.calls[0].usage.input_tokens + 200
    assert a.worst_usd == Decimal("0.7")


def test_an_agent_that_is_continued_may_use_up_its_turns_and_its_cost_limit() -> None:
    found = planned(agent("a", on_cut="continue", max_turns=5, max_retries=2, cost_limit=0.7))

    (a,) = found.agents
    assert (len(a.calls), a.most_calls) == (1, 15)
    assert a.worst_usd == Decimal("0.7")


def test_the_critical_path_has_the_most_calls_in_a_row() -> None:
    found = planned(
        agent("start"),
        agent("plain", "start"),
        agent("tooled", "start", tools=[check_total]),
        agent("end", "plain", "tooled"),
        agent("aside"),
    )

    assert found.critical_path == ("start", "tooled", "end")
    assert (found.calls, len(found.levels())) == (6, 3)


def test_requests_beyond_the_burst_wait_for_the_rate() -> None:
    found = planned(*(agent(f"a{n}") for n in range(31)))

    (bound,) = bounds_of(found, requests_per_minute=600, burst=1)

    assert (bound.limit, bound.allowed, bound.amount) == ("requests_per_minute", 600, 31)
    # Thirty intervals of a tenth of a second, and the margin of pacing.
    assert 3.0 <= bound.seconds <= 3.1


def test_tokens_count_as_the_provider_counts_them() -> None:
    openai = planned(*(agent(f"a{n}") for n in range(30)))
    anthropic = planned(*(agent(f"a{n}", llm_config=ANTHROPIC) for n in range(30)))

    (reserved,) = bounds_of(openai, tokens_per_minute=6000)
    both = bounds_of(anthropic, input_tokens_per_minute=600, output_tokens_per_minute=6000)

    assert (reserved.limit, reserved.amount) == ("tokens_per_minute", 30 * 1000)
    assert reserved.seconds == pytest.approx(240, rel=0.02)
    assert [(bound.limit, bound.amount) for bound in both] == [
        ("input_tokens_per_minute", 30 * 116),
        ("output_tokens_per_minute", 30 * 100),
    ]
    assert both[0].seconds == pytest.approx(60 * (3480 - 600) / 600, rel=0.02)
    assert both[1].seconds == 0


def test_a_window_admits_its_limit_at_once_and_then_nothing() -> None:
    found = planned(*(agent(f"a{n}") for n in range(25)))

    (bound,) = bounds_of(found, requests_per_minute=10, enforcement="window")

    assert bound.seconds == pytest.approx(120, rel=0.01)


def test_with_a_latency_levels_places_and_concurrency_count_too() -> None:
    found = planned(*(agent(f"a{n}") for n in range(40)), agent("last", "a0"))

    bounds = bounds_of(found, latency_s=2.0, places=10, concurrent_requests=4)

    assert [(bound.limit, bound.seconds) for bound in bounds] == [
        ("concurrent_requests", 20.5),
        ("max_parallel_agents", 10.0),
        ("levels", 4.0),
    ]


def test_a_list_in_the_input_counts_each_of_its_elements() -> None:
    found = forecast(
        Workflow(name="w", agents=[agent("each", prompt="{item}", for_each="documents")]),
        {"documents": ["x" * 400] * 7},
        planner=PLANNER,
        output_tokens=100,
    )

    (each,) = found.agents
    assert (each.label, len(each.calls), each.in_a_row) == ("each x 7", 7, 1)
    assert each.expected_usd == 7 * planned(agent("one")).expected_usd
    assert found.bounds.limit_usd == 7


def test_of_a_list_that_is_not_known_one_element_is_told_and_the_budget_is_the_bound() -> None:
    found = planned(agent("list"), agent("each", "list", prompt="{item}", for_each="list"))

    assert [one.label for one in found.agents] == ["list", "each (per item)"]
    assert found.bounds.limit_usd == found.bounds.once_usd == 100


def test_agents_of_a_sub_workflow_are_planned_with_it() -> None:
    inner = Workflow(name="inner", agents=[agent("a"), agent("b", "a")])
    found = planned(
        Agent(name="sub", kind="workflow", config={"workflow": inner}), agent("end", "sub")
    )

    assert [one.name for one in found.agents] == ["sub/a", "sub/b", "end"]
    assert (found.critical_path, found.in_a_row) == (("sub", "end"), 3)
    assert found.bounds.limit_usd == 2


def test_without_limits_nothing_makes_a_run_wait() -> None:
    assert bounds_of(planned(agent("a"))) == []


@pytest.fixture
def workflow_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    limits = tmp_path / "limits.yaml"
    limits.write_text("rate_limits: {openai: {default: {requests_per_minute: 60, burst: 1}}}")
    monkeypatch.setenv("AGENTCHORD_CONFIG", str(limits))
    # Nothing listens there: a plan needs neither service.
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    file = tmp_path / "w.json"
    names = [f"a{n}" for n in range(11)]
    agents = [{"name": n, "prompt_template": "{text}", "llm_config": OPENAI} for n in names]
    file.write_text(json.dumps({"name": "letters", "agents": agents}))
    return file


def test_the_command_needs_no_services_and_names_the_binding_limit(
    workflow_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = execute(["plan", str(workflow_file), "--input", "text=hello"])

    out = capsys.readouterr().out
    assert code == 0
    assert "letters: 11 agents in 1 level" in out
    assert "at least 10.2 s: openai/default requests_per_minute (60): 11 wanted" in out


def test_the_plan_as_json(workflow_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", str(workflow_file), "--input", "text=hello", "--latency", "20", "--json"]
    execute(words)

    plan = json.loads(capsys.readouterr().out)

    assert plan["levels"] == [[f"a{n}" for n in range(11)]]
    assert plan["calls"] == {"expected": 11, "most": 44}
    assert plan["time"]["binding"]["limit"] == "max_parallel_agents"
    assert plan["time"]["at_least_s"] == 22.0
    costs = [
        Decimal(plan["cost_usd"][name]) for name in ("expected", "worst_at_first_try", "limit")
    ]
    assert costs == sorted(costs)
    assert plan["assumed"] == {"output_tokens": 300, "latency_s": 20.0}


def test_a_missing_input_is_told_as_before_a_run(
    workflow_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = execute(["plan", str(workflow_file)])

    assert code == 1
    assert "text" in capsys.readouterr().err


def test_a_plan_follows_mappings_and_counts_a_repair() -> None:
    workflow = Workflow(
        name="mapped",
        agents=[
            Agent(
                name="judge",
                prompt_template="Judge {text}",
                llm_config={"model": "gpt-4o-mini", "max_tokens": 100},
                input_mapping={"text": "mail.body"},
                output_mapping={"verdict": "verdict"},
                output_schema={"type": "object"},
            ),
            Agent(
                name="answer",
                prompt_template="Answer {verdict} and {why}",
                llm_config={"model": "gpt-4o-mini", "max_tokens": 100},
                dependencies=["judge"],
                input_mapping={"why": "judge.why"},
                condition="verdict == good",
            ),
        ],
    )

    found = forecast(
        workflow,
        {"mail": {"body": "x" * 4000}},
        planner=PLANNER,
        output_tokens=100,
    )

    judge, answer = found.agents
    assert (len(judge.calls), judge.most_calls, answer.most_calls) == (1, 8, 4)
    assert judge.calls[0].usage.input_tokens > 1000
    assert answer.calls[0].usage.input_tokens > 200
    assert judge.worst_usd > 2 * answer.worst_usd > 0


def test_the_worst_case_is_that_of_the_most_expensive_fallback_and_the_expected_one_is_not() -> (
    None
):
    plain = planned(agent("a"))
    cheaper = planned(agent("a", fallbacks=[{"model": "gpt-4o-mini", "max_tokens": 10}]))
    dearer = planned(agent("a", fallbacks=[{"model": "gpt-4o"}, {"model": "claude-haiku-4-5"}]))

    assert cheaper.agents[0].worst_usd == plain.agents[0].worst_usd
    assert dearer.agents[0].worst_usd > 10 * plain.agents[0].worst_usd
    assert dearer.agents[0].expected_usd == plain.agents[0].expected_usd
    assert dearer.agents[0].most_calls == 3 * plain.agents[0].most_calls


@pytest.mark.parametrize(
    ("llm_config", "tokens", "pays_from", "write_usd", "saved_usd"),
    [
        # claude-sonnet-5: $2 fresh, $0.20 read, $2.50 and $4 written, per million.
        ({"model": "claude-sonnet-5", "prompt_cache": True}, 1384, 2, "0.000692", "0.0024912"),
        ({"model": "claude-sonnet-5", "prompt_cache": "1h"}, 1384, 3, "0.002768", "0.0024912"),
        # gpt-4o writes for nothing and reads at half the price.
        ({"model": "gpt-4o", "prompt_cache": True}, 1005, None, "0", "0.00125625"),
    ],
)
def test_a_plan_tells_from_which_request_on_a_prompt_cache_pays(
    llm_config: dict[str, Any],
    tokens: int,
    pays_from: int | None,
    write_usd: str,
    saved_usd: str,
) -> None:
    config = {**llm_config, "system": "x" * 4000, "max_tokens": 50}
    (found,) = planned(agent("a", llm_config=config)).agents

    assert found.cache is not None
    assert (found.cache.tokens, found.cache.pays_from) == (tokens, pays_from)
    assert found.cache.write_usd == Decimal(write_usd)
    assert found.cache.saved_usd == Decimal(saved_usd)
    assert found.cache.too_short is (tokens < 1024)


def test_an_agent_that_asks_for_no_cache_has_none_in_the_plan() -> None:
    assert planned(agent("a")).agents[0].cache is None


def test_a_plan_counts_the_attachments_that_it_can_read() -> None:
    def read(sources: Sequence[Source]) -> list[Part]:
        return [part_of(png(1024, 1024), detail=source.detail) for source in sources]

    def plan(*entries: Any, **given: Any) -> Forecast:
        reader = agent("reader", attachments=entries, llm_config={"model": "gpt-4o"})
        workflow = Workflow(name="w", agents=[reader])
        return forecast(workflow, given, planner=PLANNER, output_tokens=100, read=read)

    def prompt_of(found: Forecast) -> int:
        return found.agents[0].calls[0].usage.input_tokens

    plain, low = plan(), plan({"path": "{file}", "detail": "low"}, file="a.png")
    two = plan("{files}", files=["a.png", "b.png"])

    assert prompt_of(low) - prompt_of(plain) == pytest.approx(85, abs=8)
    assert prompt_of(two) - prompt_of(plain) == pytest.approx(2 * 765, abs=8)
    assert plain.bounds.once_usd < low.bounds.once_usd < two.bounds.once_usd < Decimal("0.1")
    assert not any(found.agents[0].unread for found in (plain, low, two))


def test_attachments_that_are_not_known_are_bounded_by_the_cost_limit() -> None:
    finder = agent("finder")
    reader = agent("reader", "finder", attachments=["{finder}"], cost_limit=0.4)
    elsewhere = agent("elsewhere", attachments=["{file}"], cost_limit=0.3)

    found = planned(finder, reader, elsewhere, file="https://example.org/a.pdf")

    assert {each.name: each.unread for each in found.agents} == {
        "finder": False,
        "elsewhere": True,
        "reader": True,
    }
    worst = {each.name: each.worst_usd for each in found.agents}
    assert (worst["reader"], worst["elsewhere"]) == (Decimal("0.4"), Decimal("0.3"))


def test_the_plan_says_first_that_a_budget_will_stop_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "dear.json"
    config = {"model": "gpt-4o", "max_tokens": 1000}
    agents = [{"name": "a", "prompt_template": "go", "llm_config": config}]
    file.write_text(json.dumps({"name": "dear", "agents": agents, "cost_budget": 0.005}))

    assert execute(["plan", str(file)]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert execute(["plan", str(file), "--json"]) == 0
    (stop,) = json.loads(capsys.readouterr().out)["stops"]

    assert first.startswith("cost_budget of $0.005 will stop agent 'a': ")
    assert (stop["agent"], stop["budget"]) == ("a", "cost_budget")
