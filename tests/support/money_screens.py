"""Screens of the command line about money and limits, with hard content."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from rich.console import RenderableType

from app.cli.budgets import budgets_table, history_page
from app.cli.costs import cost_table, estimates_table
from app.cli.limits import picture as limits_picture
from app.cli.prices import prices_table
from app.cli.reprice import changes_table
from app.costs.budgets import BudgetAccount, BudgetHistory, BurnDown
from app.costs.estimates import EstimateLine
from app.costs.price_table import PriceLine
from app.costs.reports import CostLine
from app.costs.reprice import Repriced
from app.domain.budgets import Period
from tests.support.histories import START
from tests.support.screen_content import BIG, CJK, LONG, TINY, run_ids


def plain_budgets() -> RenderableType:
    return budgets_table(
        [
            account("all", "", "month", Decimal(500), waiting=1),
            account("tenant", "acme-industries", "month", Decimal(50)),
            account("module", "HumanResources", "day", Decimal("0.005"), soft=True),
        ]
    )


def cost_lines() -> list[CostLine]:
    """Return costs from the highest to the lowest."""

    def line(key: str, calls: int, usd: Decimal, **more: Any) -> CostLine:
        given: dict[str, Any] = {
            "input_tokens": calls * 1234,
            "cached_tokens": 0,
            "output_tokens": calls * 56,
            "wasted_usd": Decimal(0),
            "unconfirmed_usd": Decimal(0),
            "saved_usd": Decimal(0),
        }
        return CostLine(keys=(key,), calls=calls, cost_usd=usd, **given | more)

    return [
        line(
            *("anthropic/claude-haiku-4-5-20251001", 12_345_678, BIG),
            wasted_usd=Decimal("1.25"),
            unconfirmed_usd=TINY,
            cached_tokens=987_654_321,
            saved_usd=Decimal("-0.5"),
        ),
        line("openai/gpt-4o-mini", 1, Decimal("0.019251")),
        line(CJK, 1, TINY),
        line(LONG, 0, Decimal(0)),
    ]


def total_of(lines: list[CostLine]) -> CostLine:
    names = [name for name in CostLine.__dataclass_fields__ if name != "keys"]
    sums: dict[str, Any] = {name: sum(getattr(line, name) for line in lines) for name in names}
    return CostLine(keys=(), **sums)


def costs() -> RenderableType:
    lines = cost_lines()
    return cost_table(lines, total_of(lines), ["model"])


def plain_costs() -> RenderableType:
    lines = [
        replace(line, cached_tokens=0, wasted_usd=Decimal(0), unconfirmed_usd=Decimal(0))
        for line in cost_lines()[1:3]
    ]
    return cost_table(lines, total_of(lines), ["agent"], title="Cost by agent, from Postgres")


def costs_by_run() -> RenderableType:
    ids = run_ids(4)
    lines = [replace(line, keys=(str(id_),)) for line, id_ in zip(cost_lines(), ids, strict=True)]
    return cost_table(lines, total_of(lines), ["run"])


def estimates() -> RenderableType:
    lines = [
        EstimateLine(
            provider=provider,
            model=model,
            calls=calls,
            prompt_tokens=calls * 1000,
            bias_percent=Decimal("12.5"),
            error_percent=Decimal("14.1"),
            bound_factor=Decimal("3.9"),
            most_of_bound=Decimal("0.81"),
            above_bound=0,
        )
        for provider, model, calls in (
            ("openai", "gpt-4o-mini", 1),
            ("anthropic", "claude-haiku-4-5-20251001", 12_345_678),
        )
    ]
    return estimates_table(lines)


def account(scope: str, subject: str, period: str, limit: Decimal, **fields: Any) -> BudgetAccount:
    """Return a budget."""
    given: dict[str, Any] = {
        "id": None,
        "period_start": None if period == "none" else START,
        "soft": False,
        "thresholds": (50, 80, 100),
        "spent_usd": limit / 3,
        "held_usd": Decimal("0.019251"),
        "overdrawn_usd": Decimal(0),
        "waiting": 0,
    } | fields
    return BudgetAccount(
        scope=scope, subject=subject, period=Period(period), limit_usd=limit, **given
    )


def budgets() -> RenderableType:
    tenants = [account("tenant", f"customer-{place}", "month", Decimal(50)) for place in range(20)]
    return budgets_table(
        [
            account("all", "", "none", BIG * 100, waiting=12_345),
            account("module", CJK, "day", Decimal(5), soft=True, spent_usd=Decimal(6)),
            account("workflow", LONG, "month", Decimal(0), spent_usd=TINY),
            *tenants,
        ]
    )


def budget_history() -> RenderableType:
    days = [
        BurnDown(at=START + timedelta(days=place), spent_usd=BIG, left_usd=BIG * (5 - place))
        for place in range(3)
    ]
    current = account("tenant", "customer-1", "month", BIG * 5)
    past = [
        replace(current, period_start=START - timedelta(days=31 * place)) for place in range(1, 4)
    ]
    return history_page(
        BudgetHistory(current=(current,), burn_down={Period.MONTH: tuple(days)}, past=tuple(past))
    )


def bucket(name: str, *, busy: bool) -> dict[str, Any]:
    live = {"limit": 500, "level": 311.4, "capacity": 500.0, "rate": 8.333, "learned_limit": 450}
    state = {
        "waiting": 12_345,
        "concurrency": 128,
        "in_flight": 101,
        "paused_s": 12.5,
        "next_free_s": 0.0,
        "ramp": 0.25,
    }

    def limit(value: Any, source: str, *, inherited: bool = False) -> dict[str, Any]:
        return {
            "value": value,
            "source": source,
            "inherited": inherited,
            "live": live if busy else None,
        }

    return {
        "bucket": name,
        "state": state if busy else None,
        "limits": {
            "requests_per_minute": limit(500, "stored"),
            "input_tokens_per_minute": limit(2_000_000, "configuration", inherited=True),
            "concurrent_requests": limit(None, "stored"),
        },
        "circuits": [
            {
                "provider": "anthropic",
                "model": "claude-haiku-4-5-20251001",
                "state": "half_open",
                "wait_s": 4.5,
                "bad": 1_234,
                "ok": 1,
                "opening": 1,
            }
        ]
        if busy
        else [],
    }


def limits() -> RenderableType:
    names = ("openai/default", "anthropic/claude-haiku-4-5-20251001-long-context")
    return limits_picture([bucket(names[0], busy=False), bucket(names[1], busy=True)])


def prices() -> RenderableType:
    def line(model: str, rates: str, **fields: Any) -> PriceLine:
        names = ("input", "cached_input", "cache_write", "cache_write_1h", "output")
        numbers = map(Decimal, rates.split())
        given: dict[str, Any] = (
            dict(zip(names, numbers, strict=True))
            | {
                "provider": "anthropic",
                "case": "",
                "others": {},
                "source": "genai-prices 0.0.42",
                "set_by": None,
                "published": None,
            }
            | fields
        )
        return PriceLine(model=model, **given)

    return prices_table(
        [
            line("claude-haiku-4-5-20251001", "1 0.1 1.25 2 5"),
            line("claude-haiku-4-5-20251001", "0.5 0.05 0.625 1 2.5", case="batch"),
            line(
                *("gpt-4o-search-preview-2025-03-11", "2.5 2.5 2.5 2.5 10"),
                provider="openai",
                case="prompts above 200,000",
                others={"web_searches": Decimal(25), "container_hours": Decimal("0.036")},
            ),
            line(
                *("local-llama", "0.000001 0 0 0 150"),
                provider="vllm",
                source="operator from 2026-01-01",
                set_by="costs.model_prices['local-llama'][0]",
                published=(Decimal("2.5"), Decimal(10)),
            ),
        ]
    )


def reprice() -> RenderableType:
    small, large = run_ids(2)
    return changes_table(
        [
            Repriced(
                run_id=small,
                provider="openai",
                model="gpt-4o-mini",
                price_version="genai-prices 0.0.42",
                calls=1,
                booked_usd=TINY,
                difference_usd=-TINY,
            ),
            Repriced(
                run_id=large,
                provider="anthropic",
                model="claude-haiku-4-5-20251001",
                price_version="operator from 2026-01-01",
                calls=12_345,
                booked_usd=BIG,
                difference_usd=BIG / 2,
            ),
        ]
    )
