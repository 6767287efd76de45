"""What follows from a protocol follows from it under any name, and from one registry."""

import ast
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.bootstrap import client_factories
from app.configuration.settings import load_settings
from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.domain.containers import ContainerRules
from app.domain.policies import CostConfig, RateLimitConfig
from app.domain.protocols import PROTOCOLS, Protocol, TokenCounting
from app.domain.providers import BUILT_IN, Provider, protocol_of
from app.domain.usage import Usage
from app.domain.workflow import Workflow
from app.errors import ConfigurationError, WorkflowError
from app.llm.anthropic import AnthropicClient
from app.llm.base import LLMClient
from app.llm.dialect import Dialect, dialect_of
from app.llm.openai import OpenAIClient
from app.llm.parameters import ParameterRefused, adapted
from app.planning.prompt_cache import cache_forecast
from app.planning.time_bounds import time_bounds
from app.rate_limits.base import LimitRequest, Permit
from app.rate_limits.charges import (
    charged_amounts,
    expected_amounts,
    returned_amounts,
    too_large,
)
from app.rate_limits.tiers import BucketSpec, spec_of
from app.registration.calls import check_calls

NAMES = ("azure", "claude-eu", "acme")
ROOT = Path(__file__).parents[4]
USAGE = Usage(input_tokens=100, cached_tokens=40, cache_write_tokens=20, output_tokens=50)
OWN: dict[str, float | str] = {
    "input": 3,
    "output": 15,
    "cached_input": 0.3,
    "cache_write": 3.75,
}

each_name = pytest.mark.parametrize("name", NAMES)


def providers(name: str, protocol: str) -> tuple[Provider, ...]:
    return (*BUILT_IN, Provider(name=name, protocol=protocol))


def call(name: str, protocol: str) -> LimitRequest:
    found = protocol_of(name, providers(name, protocol))
    return LimitRequest(
        provider=name,
        model="m",
        counting=found.counting,
        run_id="run",
        input_tokens=200,
        output_tokens=1000,
    )


def spec(name: str, **given: Any) -> BucketSpec:
    limits: dict[str, Any] = {
        "requests_per_minute": None,
        "requests_per_hour": None,
        "requests_per_day": None,
        "tokens_per_minute": 100_000,
        "input_tokens_per_minute": 100_000,
        "output_tokens_per_minute": 100_000,
    }
    return spec_of(f"{name}/default", RateLimitConfig(**limits | given))


@each_name
@pytest.mark.parametrize(
    ("protocol", "expected", "charged"),
    [
        # All tokens, input tokens, output tokens.
        ("openai", (1000, 200, 80), (1000, 160, 50)),
        ("anthropic", (280, 200, 80), (170, 120, 50)),
    ],
)
def test_limits_count_as_the_protocol_does_whatever_the_provider_is_called(
    name: str, protocol: str, expected: tuple[int, ...], charged: tuple[int, ...]
) -> None:
    request, bucket = call(name, protocol), spec(name)
    taken = expected_amounts(request, bucket, 80)
    permit = Permit(
        bucket=bucket.bucket,
        request_id=1,
        request=request,
        spec=bucket,
        taken=taken,
        granted_at=0.0,
        starts_at_s=0.0,
    )

    returned = returned_amounts(permit, USAGE)

    assert taken == expected
    assert charged_amounts(request, USAGE, bucket) == charged
    assert returned == tuple(one - other for one, other in zip(expected, charged, strict=True))


@each_name
@pytest.mark.parametrize(("protocol", "needed"), [("openai", 1000), ("anthropic", None)])
def test_a_call_is_too_large_for_a_limit_by_what_its_protocol_reserves(
    name: str, protocol: str, needed: float | None
) -> None:
    found = too_large(call(name, protocol), spec(name, tokens_per_minute=500))

    assert (found and found[1]) == needed


@each_name
@pytest.mark.parametrize(("protocol", "charged"), [("openai", "3.75"), ("anthropic", "3")])
def test_cache_writes_are_held_for_where_the_protocol_writes_without_being_asked(
    name: str, protocol: str, charged: str
) -> None:
    costs = CostConfig(model_prices={f"{name}/m": [OWN]})
    pricing = Pricing(costs, providers(name, protocol))

    price = pricing.price_of(name, "m")

    assert price.worst_case(1_000_000, 0) == Decimal(charged)
    assert price.worst_case(1_000_000, 0, cache_writes=True) == 6
    assert price.cost(USAGE) * 1_000_000 == Decimal(1137)
    assert Pricing(costs).price_of(name, "m").writes_unasked  # the protocol is not known here


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_published_prices_are_those_of_the_name_and_their_cache_that_of_the_protocol(
    protocol: str,
) -> None:
    pricing = Pricing(None, providers("azure", protocol))

    listed = pricing.price_of("azure", "gpt-4.1")

    assert listed.version.startswith("genai-prices")
    assert listed.cached_input < listed.input
    assert not listed.writes_unasked  # the list has no price of writes there


@each_name
@pytest.mark.parametrize(
    ("protocol", "least", "write_usd"), [("openai", 1024, "0"), ("anthropic", 4096, "0.75")]
)
def test_the_plan_of_a_prompts_cache_is_that_of_the_protocol(
    name: str, protocol: str, least: int, write_usd: str
) -> None:
    agent = Agent(
        name="a",
        prompt_template="go",
        llm_config={
            "provider": name,
            "model": "claude-haiku-4-5",
            "system": "rules",
            "prompt_cache": True,
        },
    )
    given = providers(name, protocol)
    own = {key: rate for key, rate in OWN.items() if key != "cache_write"}
    price = Pricing(CostConfig(model_prices={f"{name}/*": [own]}), given).price_of(name, "m")

    forecast = cache_forecast(agent, price, given)

    assert forecast is not None
    assert forecast.least_tokens == least
    assert forecast.write_usd * 1_000_000 == forecast.tokens * Decimal(write_usd)


@each_name
@pytest.mark.parametrize(
    ("protocol", "given", "sent"),
    [
        ("openai", {"stop": "END", "seed": 1}, {"stop": "END", "seed": 1}),
        ("anthropic", {"stop": "END"}, {"stop_sequences": ["END"]}),
    ],
)
def test_parameters_are_those_of_the_protocol(
    name: str, protocol: str, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    found = protocol_of(name, providers(name, protocol))

    assert adapted(found, "m", given) == sent


@each_name
@pytest.mark.parametrize(
    ("protocol", "client"), [("openai", OpenAIClient), ("anthropic", AnthropicClient)]
)
def test_clients_are_those_of_the_protocol(
    name: str,
    protocol: str,
    client: type[LLMClient],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = tmp_path / "agentchord.yaml"
    path.write_text(f"providers: {{{name}: {{protocol: {protocol}, base_url: 'http://h'}}}}")
    monkeypatch.setenv("AGENTCHORD_CONFIG", str(path))

    made = client_factories(load_settings())[name]()

    assert type(made) is client
    assert made.provider == name


def test_every_protocol_of_the_registry_has_its_code() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert isinstance(dialect_of(protocol), Dialect)


def test_a_provider_that_is_not_configured_speaks_no_protocol() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'openai'"):
        protocol_of("opnai")


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> Protocol:
    """A protocol unlike both others: registered, with code of its own."""

    def adapt(model: str, params: dict[str, Any], max_tokens: int | None) -> dict[str, Any]:
        if "seed" in params:
            raise ParameterRefused(f"{model} takes no seed")
        return {"limit": max_tokens, **params}

    protocol = Protocol(
        name="third",
        counting=TokenCounting(reserves_output=True, counts_cached=False),
        caches_on_request=True,
        containers=ContainerRules(idle_s=60, kept_s=60),
    )
    dialect = Dialect(
        client=lambda *_, **given: SimpleNamespace(**given),  # type: ignore[arg-type]
        known=frozenset({"seed", "top_k"}),
        refused={"stop": "it never stops"},
        adapt=adapt,
        least_cached_tokens=lambda _: 7,
        server_tool=lambda _, tool: {"type": tool.name},
    )
    monkeypatch.setitem(PROTOCOLS, "third", protocol)
    monkeypatch.setitem(sys.modules, "app.llm.third", SimpleNamespace(DIALECT=dialect))
    return protocol


def test_a_third_protocol_needs_its_entry_and_its_module_only(
    third: Protocol, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "agentchord.yaml"
    path.write_text("providers: {acme: {protocol: third, base_url: 'http://h', models: ['a-*']}}")
    monkeypatch.setenv("AGENTCHORD_CONFIG", str(path))
    settings = load_settings()
    given = settings.all_providers()
    request, bucket = call("acme", "third"), spec("acme")
    pricing = Pricing(CostConfig(model_prices={"acme/*": [OWN]}), given)
    agent = Agent(
        name="a",
        prompt_template="go",
        llm_config={"provider": "acme", "model": "a-1", "prompt_cache": True},
    )
    refused = Agent(name="b", prompt_template="go", llm_config={**agent.llm_config, "seed": 1})

    def check(agent: Agent) -> None:
        workflow = Workflow(name="w", agents=[agent])
        check_calls(workflow, providers=given, pricing=pricing, default_max_tokens=100)

    assert protocol_of("acme", given) is third
    assert client_factories(settings)["acme"]().provider == "acme"
    assert adapted(third, "a-1", {"top_k": 2}, max_tokens=5) == {"limit": 5, "top_k": 2}
    with pytest.raises(ParameterRefused, match="it never stops"):
        adapted(third, "a-1", {"stop": "x"})
    check(agent)
    with pytest.raises(WorkflowError, match="a-1 takes no seed"):
        check(refused)
    # Reserves like the one, and counts cached tokens like the other.
    assert expected_amounts(request, bucket, 80) == (1000, 200, 80)
    assert charged_amounts(request, USAGE, bucket) == (1000, 120, 50)
    assert not pricing.price_of("acme", "a-1").writes_unasked
    forecast = cache_forecast(agent, pricing.price_of("acme", "a-1"), given)
    assert forecast is not None
    assert (forecast.least_tokens, forecast.write_usd > 0) == (7, True)


def test_the_time_that_limits_allow_a_plan_counts_as_the_protocol_does(third: Protocol) -> None:
    made = SimpleNamespace(
        calls=[SimpleNamespace(usage=USAGE, max_tokens=120_000)],
        provider="acme",
        model="m",
    )
    planned: Any = SimpleNamespace(agents=[made])
    limits = RateLimitConfig(tokens_per_minute=60_000)

    def amount(protocol: str) -> float:
        bounds = time_bounds(
            planned,
            lambda *_: ("acme/default", limits),
            max_parallel_agents=1,
            latency_s=None,
            providers=providers("acme", protocol),
        )
        return next(bound.amount for bound in bounds if bound.limit == "tokens_per_minute")

    assert [amount(name) for name in ("openai", "anthropic", third.name)] == [120_000, 170, 120_000]


#: Where the names of the built-in providers and protocols stand, and why.
MAY_NAME = {
    "app/cli/checks.py": "packages to look for",
    "app/domain/agent.py": "the built-in providers of known models",
    "app/domain/protocols.py": "the registry",
    "app/domain/providers.py": "the built-in providers",
    "app/llm/anthropic.py": "the protocol's own module",
    "app/llm/openai_base.py": "the protocol's own module",
}


def test_no_code_decides_by_the_name_of_a_provider_or_a_protocol() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("app", "workers")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "simulator" not in path.parts
        for node in literals(path)
        if str(path.relative_to(ROOT)) not in MAY_NAME
    ]

    assert found == [], "ask the registry, app.domain.protocols, in place of comparing names"


def test_even_where_the_names_may_stand_nothing_is_compared_with_them() -> None:
    for name in MAY_NAME:
        tree = ast.parse((ROOT / name).read_text())
        compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
        assert not [node for node in compared for part in ast.walk(node) if is_name(part)], name


def literals(path: Path) -> Iterator[ast.Constant]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and is_name(node):
            yield node


def is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value in [each.name for each in BUILT_IN]
