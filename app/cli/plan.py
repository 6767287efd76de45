"""`agentchord plan`: a forecast of a run's needs, before the run starts and without any call."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from math import isfinite
from typing import Annotated, Any

import typer
from rich.console import Group

from app.attachments.reader import AttachmentReader
from app.bootstrap import call_planner
from app.cli.output import console, print_json
from app.cli.parameters import Wide
from app.cli.run_input import File, Inputs, load_workflow, read_input
from app.cli.styles import RED
from app.cli.tables import number, table, words
from app.cli.wrapping import Facts, facts, item
from app.client.acceptance import Acceptance
from app.client.knowledge import Knowledge, read_knowledge
from app.concurrency.user_code import run_in_thread
from app.configuration.settings import Settings, load_settings
from app.domain.counts import counted
from app.domain.money import aligned_dollars, dollars, round_up
from app.domain.sub_workflow import named_workflows
from app.domain.workflow import Workflow
from app.planning.expected_calls import UNREAD_TOKENS
from app.planning.figures import AgentForecast, Forecast
from app.planning.forecast import forecast
from app.planning.time_bounds import TimeBound, time_bounds
from app.sandbox.processes import Sandbox

COLUMNS = (
    number("level", drop=3),
    words("agent", 10),
    words("model", 10, drop=5),
    number("calls", drop=1),
    number("at most", drop=4),
    number("input tokens", drop=6),
    number("output tokens", drop=7),
    number("expected"),
    number("worst", drop=2),
)
SHOWN_BOUNDS = 5
#: Width of the labels below the table.
LABEL = 15


def plan(
    file: File,
    inputs: Inputs = None,
    output_tokens: Annotated[
        int, typer.Option(min=1, help="Number of tokens that the plan assumes for each answer.")
    ] = 300,
    latency: Annotated[
        float | None,
        typer.Option(min=0, help="Number of seconds that the plan assumes for each call."),
    ] = None,
    wide: Wide = False,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Forecast what a run needs, without any call."""
    if latency is not None and not isfinite(latency):
        raise typer.BadParameter("give a number of seconds", param_hint="--latency")
    given = read_input(inputs or [])
    loaded = load_workflow(file)
    run_input = {**loaded.input, **given}
    settings = load_settings()
    providers = settings.all_providers()
    with loaded.located(given):
        workflow, known = asyncio.run(_checked(settings, loaded.workflow, run_input))
    found = forecast(
        workflow,
        run_input,
        planner=call_planner(settings),
        output_tokens=output_tokens,
        retry=settings.retry,
        providers=providers,
        read=AttachmentReader(settings.attachments, in_thread=run_in_thread).read_here,
        earlier=known.earlier,
    )
    bounds = time_bounds(
        found,
        settings.rate_limit_for,
        max_parallel_agents=workflow.max_parallel_agents,
        latency_s=latency,
        providers=providers,
    )
    assumed = {"output_tokens": output_tokens, "latency_s": latency}
    if json:
        print_json(_as_json(workflow, found, bounds, assumed))
    else:
        console(wide=wide).print(plan_page(workflow, found, bounds, assumed))


async def _checked(
    settings: Settings, workflow: Workflow, run_input: Mapping[str, Any]
) -> tuple[Workflow, Knowledge]:
    known = await read_knowledge(settings, workflow)
    sandbox = Sandbox()
    try:
        acceptance = Acceptance(settings, sandbox)
        checked = await acceptance.check_run(known.workflow, run_input, workers=known.workers)
        return checked, known
    finally:
        sandbox.close()


def plan_page(
    workflow: Workflow,
    found: Forecast,
    bounds: Sequence[TimeBound],
    assumed: Mapping[str, Any],
) -> Group:
    """Return a plan as a page: budgets that stop the run, a table of the agents, and the sums."""
    agents = counted(len(found.agents), "agent")
    title = f"{workflow.name}: {agents} in {counted(len(found.levels()), 'level')}"
    return Group(
        *(item(line, "", style=f"bold {RED}") for line in _stops(found, workflow)),
        table(COLUMNS, [_row(agent) for agent in found.agents], title=title),
        "",
        facts([("critical path", " -> ".join(found.critical_path))], margin=LABEL),
        _sums(found),
        facts(_conditions(workflow, found, bounds, assumed), margin=LABEL),
    )


def _sums(found: Forecast) -> Facts:
    """Return the calls and the dollars, each with its number aligned to the right."""
    told = [
        ("calls", f"{found.calls:,}", "expected"),
        ("", f"{found.most_calls:,}", "at most, with all turns and retries"),
        ("cost", aligned_dollars(found.expected_usd), f"expected{_range(found)}"),
        ("", aligned_dollars(found.bounds.once_usd), "at most, if nothing is retried"),
        ("", aligned_dollars(found.bounds.limit_usd), "at most, with every retry (the limits)"),
    ]
    width = max(len(figure) for _, figure, _ in told)
    return facts([(f"{name:<{LABEL}}{figure:>{width}}", text) for name, figure, text in told])


def _conditions(
    workflow: Workflow,
    found: Forecast,
    bounds: Sequence[TimeBound],
    assumed: Mapping[str, Any],
) -> list[tuple[str, str]]:
    latency_s = assumed["latency_s"]
    calls = "calls take no time" if latency_s is None else f"{latency_s:g} s a call"
    lengths = _lengths(found, assumed["output_tokens"])
    return [
        ("time", _binding(bounds)),
        *(("", _bound(bound)) for bound in bounds[1:SHOWN_BOUNDS] if bound.seconds),
        *(("prompt cache", _cache(agent)) for agent in found.agents if agent.cache),
        ("assumed", f"{lengths}, no retry, no other run on the limits, {calls}"),
        *(("", hint) for hint in _not_counted(workflow, found)),
    ]


def _usd(amount_usd: Decimal) -> str:
    return dollars(amount_usd, most=6)


def _stops(found: Forecast, workflow: Workflow) -> list[str]:
    """Return a line for each budget that will, or may, stop the run."""
    lines = [
        f"{stop.budget} of {_usd(stop.limit_usd)} will stop agent {stop.agent!r}: "
        f"{_usd(stop.spent_usd)} is expected to be spent before its call, which may cost "
        f"{_usd(stop.hold_usd)}"
        for stop in found.stops
    ]
    budget_usd = Decimal(str(workflow.cost_budget))
    if not lines and found.range_usd is not None and found.range_usd[1] > budget_usd:
        lines.append(
            f"cost_budget of {_usd(budget_usd)} may stop the run: 9 of 10 runs cost between "
            f"{_usd(found.range_usd[0])} and {_usd(found.range_usd[1])}"
        )
    return lines


def _range(found: Forecast) -> str:
    if found.range_usd is None:
        return ""
    low, high = found.range_usd
    return f"; {_usd(low)} to {_usd(high)} in 9 of 10 runs"


def _lengths(found: Forecast, output_tokens: int) -> str:
    calling = [agent for agent in found.agents if agent.calls]
    known = [agent for agent in calling if agent.earlier_runs]
    if calling and len(known) == len(calling):
        return f"answers as long as in {counted(found.earlier_runs, 'earlier run')}"
    assumed = f"{counted(output_tokens, 'token')} an answer, one round of tools"
    if not known:
        return assumed
    names = ", ".join(agent.name for agent in calling if not agent.earlier_runs)
    return f"answers as long as in earlier runs, but for {names}: {assumed}"


def _not_counted(workflow: Workflow, found: Forecast) -> list[str]:
    hints = []
    if any(agent.per_element for agent in found.agents):
        hints.append("one element of each list that comes from an agent's answer (per item)")
    if unread := [agent.name for agent in found.agents if agent.unread]:
        hints.append(
            f"{UNREAD_TOKENS:,} tokens for each attachment that is not here: {', '.join(unread)}"
        )
    if names := sorted(named_workflows(workflow)):
        hints.append(f"nothing for stored sub-workflows: {', '.join(names)}")
    return hints


def _row(agent: AgentForecast) -> tuple[object, ...]:
    return (
        agent.level + 1,
        agent.label,
        f"{agent.provider}/{agent.model}",
        f"{len(agent.calls):,}",
        f"{agent.most_calls:,}",
        f"{sum(call.usage.input_tokens for call in agent.calls):,}",
        f"{sum(call.usage.output_tokens for call in agent.calls):,}",
        aligned_dollars(agent.expected_usd),
        aligned_dollars(agent.worst_usd),
    )


def _cache(agent: AgentForecast) -> str:
    cache = agent.cache
    assert cache is not None
    if cache.too_short:
        return (
            f"{agent.name}: its requests begin with about {counted(cache.tokens, 'equal token')}, "
            f"but {agent.model} caches nothing below {cache.least_tokens:,}"
        )
    tokens = counted(cache.tokens, "equal token")
    alike = f"{agent.name}: about {tokens}, kept {cache.lifetime}"
    if cache.pays_from is None:
        return f"{alike}; caching never pays, because cached tokens cost as much as other tokens"
    return (
        f"{alike}; caching pays from the {_ordinal(cache.pays_from)} request within that time: "
        f"{_usd(round_up(cache.write_usd))} more for the first, "
        f"{_usd(round_up(cache.saved_usd))} less for each later one"
    )


def _ordinal(number: int) -> str:
    return f"{number}{ {2: 'nd', 3: 'rd'}.get(number, 'th') }"


def _binding(bounds: Sequence[TimeBound]) -> str:
    if not bounds or not bounds[0].seconds:
        return "no limit makes the run wait"
    return f"at least {bounds[0].seconds:,.1f} s: {_bound(bounds[0])}"


def _bound(bound: TimeBound) -> str:
    if bound.bucket == "run":
        reason = (
            f"the run's {bound.limit} ({bound.allowed:,.0f}): {bound.amount:,.1f} calls in a row"
        )
    else:
        amount = f"{bound.amount:,.0f} wanted"
        reason = f"{bound.bucket} {bound.limit} ({bound.allowed:,.0f}): {amount}"
    return f"{reason}, {bound.seconds:,.1f} s"


def _as_json(
    workflow: Workflow,
    found: Forecast,
    bounds: Sequence[TimeBound],
    assumed: dict[str, Any],
) -> dict[str, Any]:
    least_s = bounds[0].seconds if bounds else 0.0
    return {
        "workflow": workflow.name,
        "levels": [[agent.name for agent in level] for level in found.levels()],
        "critical_path": found.critical_path,
        "calls": {"expected": found.calls, "most": found.most_calls},
        "cost_usd": {
            "expected": round_up(found.expected_usd),
            "range": found.range_usd and [round_up(each) for each in found.range_usd],
            "worst_at_first_try": round_up(found.bounds.once_usd),
            "limit": round_up(found.bounds.limit_usd),
        },
        "stops": [asdict(stop) for stop in found.stops],
        "earlier_runs": found.earlier_runs,
        "time": {
            "at_least_s": least_s,
            "binding": asdict(bounds[0]) if least_s else None,
            "bounds": [asdict(bound) for bound in bounds],
        },
        "agents": [
            {
                "name": agent.name,
                "level": agent.level,
                "provider": agent.provider,
                "model": agent.model,
                "items": agent.elements,
                "per_item": agent.per_element,
                "calls": len(agent.calls),
                "most_calls": agent.most_calls,
                "input_tokens": sum(call.usage.input_tokens for call in agent.calls),
                "output_tokens": sum(call.usage.output_tokens for call in agent.calls),
                "expected_usd": round_up(agent.expected_usd),
                "worst_usd": round_up(agent.worst_usd),
                "earlier_runs": agent.earlier_runs,
                "attachments_unread": agent.unread,
                "prompt_cache": agent.cache and asdict(agent.cache),
            }
            for agent in found.agents
        ],
        "assumed": assumed,
    }
