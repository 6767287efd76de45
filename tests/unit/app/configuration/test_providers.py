"""Providers by configuration: their names, their access, and the provider of a model."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import client_factories
from app.configuration.settings import load_settings
from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.domain.policies import CostConfig
from app.domain.providers import BUILT_IN, Provider, routed
from app.domain.workflow import Workflow
from app.errors import ConfigurationError, UnknownModel, WorkflowError
from app.llm.anthropic import AnthropicClient
from app.llm.openai import OpenAIClient
from app.local_stack.stack import simulated
from app.registration.calls import check_calls
from app.simulator import run_in_process

VLLM = "vllm: {protocol: openai, base_url: 'http://127.0.0.1:9/v1'}"
CONFIGURED = (
    *BUILT_IN,
    Provider(name="vllm", protocol="openai", models=("llama-*", "gpt-4o")),
    Provider(name="big", protocol="anthropic", models=("llama-3-*", "llama-3-405b")),
)


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> None:
        path = tmp_path / "agentchord.yaml"
        path.write_text(text)
        monkeypatch.setenv("AGENTCHORD_CONFIG", str(path))

    return write


def workflow(**fields: Any) -> Workflow:
    fields.setdefault("llm_config", {"model": "gpt-4o-mini"})
    return Workflow(name="w", agents=[Agent(name="a", prompt_template="go", **fields)])


def refusal(**fields: Any) -> WorkflowError:
    with pytest.raises(WorkflowError) as caught:
        routed(workflow(**fields), CONFIGURED)
    return caught.value


def test_a_provider_of_the_configuration_has_a_queue_a_client_and_limits(
    configure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "sk-from-the-environment")
    configure(
        f"providers:\n  {VLLM}\n"
        "  gateway: {protocol: anthropic, base_url: 'http://h', api_key_env: GATEWAY_KEY}\n"
        "rate_limits: {vllm: {default: {concurrent_requests: 3}}}\n"
    )

    settings = load_settings()
    clients = {name: make() for name, make in client_factories(settings).items()}

    assert settings.provider_names == ("openai", "anthropic", "vllm", "gateway")
    assert settings.rate_limit_for("vllm", "any")[0] == "vllm/default"
    assert settings.rate_limit_for("vllm", "any")[1].concurrent_requests == 3
    assert isinstance(clients["vllm"], OpenAIClient)
    assert isinstance(clients["gateway"], AnthropicClient)
    assert (clients["vllm"].provider, clients["gateway"].provider) == ("vllm", "gateway")
    assert settings.access_to("gateway").api_key is not None
    assert settings.access_to("vllm").api_key_env is None
    assert "from-the-environment" not in repr(settings.access_to("gateway"))


def test_headers_take_secrets_from_the_environment_or_from_dotenv(
    configure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_TOKEN", "t-1")
    Path(".env").write_text("OTHER_TOKEN=t-2\n")
    configure(
        "providers:\n  gateway:\n    protocol: openai\n    base_url: https://h/v1\n"
        "    headers: {api-key: '${TEAM_TOKEN}', X-Other: 'a ${OTHER_TOKEN} ${NOT_SET}'}\n"
    )

    access = load_settings().access_to("gateway")

    shown = {name: value.get_secret_value() for name, value in access.headers.items()}
    assert shown == {"api-key": "t-1", "X-Other": "a t-2 "}
    assert access.missing == ("NOT_SET",)


def test_a_built_in_provider_may_get_headers_and_a_variable_of_its_own(
    configure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("TEAM_KEY", "sk-team")
    configure("providers: {openai: {api_key_env: TEAM_KEY, headers: {X-Team: erp}}}")

    access = load_settings().access_to("openai")

    assert access.base_url == "http://127.0.0.1:9/v1"
    assert access.api_key is not None
    assert access.api_key.get_secret_value() == "sk-team"
    assert access.headers["X-Team"].get_secret_value() == "erp"


def test_a_function_takes_the_place_of_the_key(
    configure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-team")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    configure("providers: {openai: {credentials: 'acme.cloud:token'}}")

    access = load_settings().access_to("openai")

    assert access.credentials == "acme.cloud:token"
    assert (access.api_key, access.api_key_env) == (None, None)
    assert access.base_url == "http://127.0.0.1:9/v1"


def test_the_simulator_needs_no_function_of_the_configuration(
    configure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(f"providers: {{{VLLM[:-1]}, credentials: 'not_installed_here:token'}}}}")
    with run_in_process() as simulator:
        for name, value in simulated(simulator, load_settings()).items():
            monkeypatch.setenv(name, value)

    settings = load_settings()

    assert settings.access_to("vllm").base_url == simulator.openai_base_url
    assert client_factories(settings)["vllm"]().provider == "vllm"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("providers: {vllm: {base_url: 'http://h/v1'}}", "the key 'protocol' is missing: add it"),
        ("providers: {vllm: {protocol: openai}}", "the key 'base_url' is missing"),
        ("providers: {vllm: {protocol: grpc, base_url: 'http://h'}}", "'openai' or 'anthropic'"),
        ("providers: {vllm: {protocol: openai, base_url: 'h:80'}}", "must begin with http://"),
        (
            "providers: {a: {protocol: openai, base_url: 'http://u:p@h/v1'}}",
            "has a user, a password or a query",
        ),
        ("providers: {scheduler: {protocol: openai, base_url: 'http://h'}}", "of another queue"),
        ("providers: {'my llm': {protocol: openai, base_url: 'http://h'}}", "cannot name a queue"),
        ("providers: {openai: {protocol: anthropic}}", "speaks openai"),
        ("providers: {openai: {api: batch}}", "has api 'batch': give 'chat' or 'responses'"),
        ("providers: {anthropic: {api: chat}}", "only one request form: remove the key"),
        ("providers: {vllm: {protocol: openai, base_ulr: 'http://h'}}", "did you mean 'base_url'"),
        (f"providers: {{ {VLLM} }}\nrate_limits: {{vlm: {{}}}}", "did you mean 'vllm'?"),
        ("providers: {openai: {models: [a]}, anthropic: {models: [a]}}", "which 'openai' also has"),
        (
            "providers: {openai: {credentials: 'acme.cloud:token', api_key_env: TEAM_KEY}}",
            "providers.openai: has credentials and api_key_env, which both give the key: remove",
        ),
        (
            "providers: {openai: {credentials: 'a:b', headers: {authorization: '${TEAM_KEY}'}}}",
            "has credentials and a header Authorization",
        ),
    ],
)
def test_a_provider_that_cannot_work_is_refused_in_one_line(
    configure: Callable[[str], None], text: str, message: str
) -> None:
    configure(text)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "secret",
    [
        "api_key_env: sk-live-0123",
        "headers: {Authorization: Bearer sk-live-0123}",
        "credentials: sk-live-0123",
    ],
)
def test_a_key_in_the_file_is_refused_and_not_shown(
    configure: Callable[[str], None], secret: str
) -> None:
    configure(f"providers: {{vllm: {{protocol: openai, base_url: 'http://h/v1', {secret}}}}}")

    with pytest.raises(
        ConfigurationError, match=r"environment variable|package\.module:function"
    ) as caught:
        load_settings()

    assert "0123" not in str(caught.value)


@pytest.mark.parametrize(
    ("llm_config", "provider"),
    [
        ({"model": "llama-2"}, "vllm"),
        ({"model": "llama-3-70b"}, "big"),  # the longer pattern
        ({"model": "llama-3-405b"}, "big"),
        ({"model": "gpt-4o"}, "vllm"),  # configured models take precedence over known names
        ({"model": "gpt-4o-mini"}, "openai"),
        ({"model": "llama-2", "provider": "openai"}, "openai"),
        ({"model": "anything", "provider": "vllm"}, "vllm"),
    ],
)
def test_a_model_goes_to_the_provider_that_serves_it(
    llm_config: dict[str, str], provider: str
) -> None:
    (agent,) = routed(workflow(llm_config=llm_config), CONFIGURED).agents

    assert agent.provider == provider


def test_a_workflow_that_says_everything_itself_stays_the_same() -> None:
    written = workflow(fallbacks=[{"model": "claude-haiku-4-5"}])

    assert routed(written, CONFIGURED) is written


def test_a_fallback_to_another_model_brings_its_own_provider_along() -> None:
    written = workflow(
        llm_config={"model": "x", "provider": "vllm", "max_tokens": 9},
        fallbacks=[{"model": "llama-3-8b"}, {"model": "gpt-4.1"}, {"provider": "big"}],
    )

    (agent,) = routed(written, CONFIGURED).agents

    called = [(option.provider, option.model) for option in agent.options()]
    assert called == [("vllm", "x"), ("big", "llama-3-8b"), ("openai", "gpt-4.1"), ("big", "x")]
    assert {option.llm_config["max_tokens"] for option in agent.options()} == {9}


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        (
            {"llm_config": {"model": "mixtral"}},
            "agents[0].llm_config.model",
            "configured: 'openai', 'anthropic', 'vllm', 'big'",
        ),
        (
            {"llm_config": {"model": "gpt-4o", "provider": "vlm"}},
            "agents[0].llm_config.provider",
            "(known: 'openai', 'anthropic', 'vllm', 'big'); describe it under providers",
        ),
        (
            {"fallbacks": [{"model": "gpt-4o"}, {"model": "mixtral"}]},
            "agents[0].fallbacks[1].model",
            "unknown model 'mixtral'",
        ),
    ],
)
def test_a_provider_that_there_is_not_is_refused_with_those_that_there_are(
    fields: dict[str, Any], field: str, message: str
) -> None:
    error = refusal(**fields)

    assert error.field == field
    assert message in str(error)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fallbacks": "gpt-4o"}, "fallbacks is 'gpt-4o': give a list"),
        ({"fallbacks": ["gpt-4o"]}, "fallbacks[0] is 'gpt-4o': give the keys of llm_config"),
        ({"fallbacks": [{"max_tokens": 5}]}, 'which must include "model" or "provider"'),
        ({"fallbacks": [{"model": "gpt-4o", "max_tokens": 0}]}, "fallbacks[0].max_tokens is 0"),
        ({"fallback_on": ["Overlaoded"]}, "did you mean 'Overloaded'?"),
        ({"fallback_on": ["AgentTimeout"]}, "fallback_on[0] is 'AgentTimeout'"),
        ({"cache": 600}, 'cache is 600: give True, False or {"ttl": seconds}'),
        ({"cache": {"ttl": 0}}, "cache.ttl is 0"),
        ({"cache": {"tll": 9}}, "cache is {'tll': 9}"),
    ],
)
def test_fallbacks_and_caches_that_mean_nothing_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(WorkflowError) as caught:
        workflow(**fields)

    assert str(caught.value).startswith("agent 'a': ")
    assert message in str(caught.value)


def test_the_new_fields_survive_being_stored() -> None:
    agent = Agent(
        name="a",
        prompt_template="go",
        llm_config={"model": "gpt-4o"},
        fallbacks=[{"model": "o3"}],
        fallback_on=["BadRequest"],
        cache={"ttl": 60},
    )

    assert Agent.from_definition(agent.definition()).definition() == agent.definition()
    assert (agent.cache_ttl_s, Agent(name="b", prompt_template="go").cache_ttl_s) == (60, None)


def test_every_option_needs_a_price_before_anything_is_called() -> None:
    written = workflow(fallbacks=[{"model": "gpt-99"}])

    with pytest.raises(UnknownModel, match="agent 'a': no price is known for model 'gpt-99'"):
        check_calls(written, providers=BUILT_IN, pricing=Pricing(), default_max_tokens=100)


def test_what_a_fallback_does_not_take_is_refused_with_the_agent_and_the_fallback() -> None:
    written = workflow(
        llm_config={"model": "gpt-4o", "temperature": 0.3},
        fallbacks=[{"model": "o3", "temperature": None}, {"model": "gpt-5"}],
    )

    with pytest.raises(WorkflowError, match=r"in fallbacks\[1], .* no temperature") as found:
        check_calls(written, providers=BUILT_IN, pricing=Pricing(), default_max_tokens=100)

    assert found.value.field == "agents[0].fallbacks[1]"


TOOLS_ON_CHAT = {"model": "gpt-6.1-terra", "api": "chat"}


@pytest.mark.parametrize(
    ("llm_config", "api", "message"),
    [
        (TOOLS_ON_CHAT, None, "set api to 'responses' in llm_config"),
        ({"model": "gpt-6.1-terra"}, "chat", "also under providers in the configuration"),
        (TOOLS_ON_CHAT | {"model": "gpt-6-astra"}, None, r"configuration\)$"),
        ({"model": "gpt-6.1-terra", "seed": 1}, None, "which this request uses: remove it"),
        ({"model": "gpt-6.1-terra", "max_tokens": 9}, None, "no max_tokens below 16"),
        ({"model": "gpt-4o", "api": "batch"}, None, "use one of 'chat', 'responses'"),
        ({"model": "gpt-4o", "background": True}, None, "has no hold, no limit"),
    ],
)
def test_a_request_that_its_form_does_not_take_is_refused_before_it_is_stored(
    llm_config: dict[str, Any], api: str | None, message: str
) -> None:
    written = workflow(llm_config=llm_config, tools=["look_up"])
    given = [replace(provider, api=api) for provider in BUILT_IN]

    with pytest.raises(WorkflowError, match=message):
        check_calls(written, providers=given, pricing=Pricing(), default_max_tokens=100)


@pytest.mark.parametrize(
    "llm_config",
    [
        {"model": "gpt-6.1-terra"},
        {"model": "gpt-6.1-terra", "api": "responses"},
        {"model": "gpt-6.1-terra", "api": "chat", "reasoning_effort": "none"},
        {"model": "claude-sonnet-5", "api": "responses"},
    ],
)
def test_tools_of_the_newest_models_are_accepted(llm_config: dict[str, Any]) -> None:
    written = workflow(llm_config=llm_config, tools=["look_up"])

    check_calls(written, providers=BUILT_IN, pricing=Pricing(), default_max_tokens=100)


def test_all_models_of_a_provider_may_have_one_price() -> None:
    pricing = Pricing(
        CostConfig(
            model_costs={
                "vllm/*": {"input": 0, "output": 0},
                "vllm/dear": {"input": 1, "output": 1},
            }
        )
    )

    assert pricing.price_of("vllm", "llama").output == 0
    assert pricing.price_of("vllm", "dear").output == Decimal("0.001")
    with pytest.raises(UnknownModel):
        pricing.price_of("other", "llama")
