"""Settings and their refusals; over 400 lines because each refusal is spelled out."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from app.configuration.sections import ProviderSettings
from app.configuration.settings import (
    KEYLESS,
    SECRETS,
    Settings,
    load_settings,
)
from app.documents.files import read_document
from app.domain.policies import CostConfig, RateLimitConfig
from app.domain.retry import RetryPolicy, RetryStrategy
from app.errors import ConfigurationError

DOCS = Path(__file__).parents[4] / "docs"
EXAMPLE = DOCS / "agentchord.example.yaml"
# Keys that the example shows with a value of its own, because the default shows nothing.
SHOWN_OTHERWISE = {
    *("imports", "providers", "rate_limits", "costs", "openai_base_url", "anthropic_base_url"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, which is also the home directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    return tmp_path


@pytest.fixture
def configure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes the YAML file and names it in the environment."""

    def write(text: str) -> Path:
        path = folder / "agentchord.yaml"
        path.write_text(text)
        monkeypatch.setenv("AGENTCHORD_CONFIG", str(path))
        return path

    return write


def refusal(**overrides: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_any_configuration_the_defaults_hold(folder: Path) -> None:
    settings = load_settings()

    assert settings.database_url is None
    assert settings.openai_api_key is None
    assert settings.home == folder / ".local/share/agentchord"
    assert settings.engine.max_concurrent_workflows == 50
    assert settings.engine.default_max_tokens == 4096
    assert settings.engine.worker_threads == 128
    assert settings.retry == RetryPolicy()
    assert settings.logging.format == "auto"


def test_the_data_folder_follows_xdg(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))

    assert load_settings().home == folder / "data/agentchord"


def test_the_documented_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "DATABASE_URL": "postgresql://ada:secret@db/chord",
        "REDIS_URL": "redis://:secret@cache/0",
        "AGENTCHORD_DATABASE_PASSWORD": "secret 1",
        "AGENTCHORD_REDIS_PASSWORD": "secret 2",
        "OPENAI_API_KEY": "sk-1",
        "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
        "ANTHROPIC_API_KEY": "sk-2",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:2",
        "AGENTCHORD_HOME": "~/chord",
        "AGENTCHORD_FLOWER_BASIC_AUTH": "ada:secret",
        "AGENTCHORD_IMPORTS": "shop.tools, shop.functions",
        "AGENTCHORD_LOGGING__LEVEL": "debug",
        "AGENTCHORD_ENGINE": '{"lane_width": 7}',
        "AGENTCHORD_RETRY__STRATEGY": "immediate",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    settings = load_settings()

    secrets = [getattr(settings, name).get_secret_value() for name in SECRETS]
    assert secrets == [
        "postgresql://ada:secret@db/chord",
        "redis://:secret@cache/0",
        "secret 1",
        "secret 2",
        "sk-1",
        "sk-2",
        "ada:secret",
    ]
    assert settings.openai_base_url == "http://127.0.0.1:1/v1"
    assert settings.anthropic_base_url == "http://127.0.0.1:2"
    assert settings.home == Path.home() / "chord"
    assert settings.imports == ["shop.tools", "shop.functions"]
    assert settings.logging.level == "DEBUG"
    assert settings.engine.lane_width == 7
    assert settings.retry.strategy is RetryStrategy.IMMEDIATE


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada:hidden@db/chord")
    monkeypatch.setenv("OPENAI_API_KEY", "hidden")

    settings = load_settings(flower_basic_auth="ada:hidden")

    assert "hidden" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_the_environment_goes_before_dotenv_before_yaml_before_defaults(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "chord.yaml").write_text(
        "engine: {lane_width: 1, lease_s: 21, watchdog_s: 11, drain_grace_s: 1}\n"
    )
    (folder / ".env").write_text(
        "AGENTCHORD_CONFIG=chord.yaml\n"
        "AGENTCHORD_ENGINE__LANE_WIDTH=2\nAGENTCHORD_ENGINE__LEASE_S=22\n"
        "AGENTCHORD_ENGINE__DRAIN_GRACE_S=2\nSOMETHING_ELSE=1\n"
    )
    monkeypatch.setenv("AGENTCHORD_ENGINE__LANE_WIDTH", "3")
    monkeypatch.setenv("AGENTCHORD_ENGINE__DRAIN_GRACE_S", "3")

    engine = load_settings(engine={"drain_grace_s": 4}).engine

    assert engine.drain_grace_s == 4  # argument
    assert engine.lane_width == 3  # environment
    assert engine.lease_s == 22  # .env
    assert engine.watchdog_s == 11  # YAML
    assert engine.heartbeat_s == 5  # default


def test_an_argument_of_none_hides_a_key_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")

    assert load_settings(openai_api_key=None).openai_api_key is None


@pytest.mark.parametrize("name", ["DATABASE_URL", "OPENAI_API_KEY", "AGENTCHORD_CONFIG"])
def test_an_empty_variable_is_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_settings()
    monkeypatch.setenv(name, "")

    assert load_settings() == before


@pytest.mark.parametrize("text", ["", "# nothing\n", "engine:\n  # lane_width: 1\n", "imports:\n"])
def test_a_file_with_everything_commented_out_changes_nothing(
    text: str, configure: Callable[[str], Path]
) -> None:
    before = load_settings()
    path = configure(text)

    after = load_settings()

    assert after.config == path
    assert after.model_dump(exclude={"config"}) == before.model_dump(exclude={"config"})


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("engin:\n  lane_width: 1\n", "1: engin", "there is no such key; did you mean 'engine'?"),
        ("engine:\n  lane_widht: 1\n", "2: engine.lane_widht", "did you mean 'lane_width'?"),
        ("engine:\n  lane_width: 0\n", "2: engine.lane_width", "is 0: input should be greater"),
        ("engine:\n  lane_width: many\n", "2: engine.lane_width", "is 'many': input should be a v"),
        ("engine:\n  lane_width: true\n", "2: engine.lane_width", "true and false have no meaning"),
        ("engine:\n  lease_s: 1e999\n", "2: engine.lease_s", "is too large a number"),
        ("engine:\n  lease_s: 9\n", "1: engine", "make the lease at least twice as long"),
        ("engine: fast\n", "1: engine", "is 'fast': input should be a valid dictionary"),
        ("retry:\n  max_delai: 1\n", "2: retry.max_delai", "did you mean 'max_delay'?"),
        ("retry:\n\n  max_delay: -1\n", "3: retry.max_delay", "max_delay is -1.0: give a number"),
        ("retry:\n  strategy: soon\n", "2: retry.strategy", "is 'soon': input should be 'expon"),
        ("retry:\n  max_retries: true\n", "2: retry.max_retries", "true and false have no meaning"),
        (
            "rate_limits:\n  openai:\n    default:\n      requests_per_minuet: 5\n",
            "4: rate_limits.openai.default.requests_per_minuet",
            "did you mean 'requests_per_minute'?",
        ),
        (
            "rate_limits:\n  openai:\n    default:\n      burst: 5\n      requests_per_hour: 0\n",
            "5: rate_limits.openai.default.requests_per_hour",
            "requests_per_hour is 0: give a whole number from 1 to 1,000,000,000,000",
        ),
        (
            "rate_limits:\n  openai:\n    models:\n      gpt-4*: {enforcement: hard}\n",
            "4: rate_limits.openai.models.gpt-4*.enforcement",
            "is 'hard': input should be 'bucket' or 'window'",
        ),
        ("rate_limits:\n  openai: 5\n", "2: rate_limits.openai", "is 5: input should be"),
        ("rate_limits:\n  openai:\n    defult: {}\n", "3: rate_limits.openai.defult", "'default'"),
        (
            "costs:\n  model_costs:\n    m: {input: 1, ouput: 1}\n",
            "2: costs.model_costs",
            "model_costs of 'm' has 'input', 'ouput': give 'input' and 'output'",
        ),
        ("logging: {level: loud}\n", "1: logging.level", "is 'LOUD': input should be 'DEBUG'"),
        ("tools:\n  sql:\n    db: sqlite://hidden\n", "3: tools.sql.db", "with the key url"),
        ("tools: {files: {folder: here}}\n", "1: tools.files.folder", "is not an absolute path"),
        ("imports: [shop-tools]\n", "1: imports", "'shop-tools' is not a module's name"),
        ("database_url: sqlite:///hidden\n", "1: database_url", "must begin with postgresql://"),
        ("config: other.yaml\n", "1: config", "there is no such key"),
    ],
)
def test_a_mistake_in_the_file_is_refused_with_file_line_and_field(
    text: str, place: str, message: str, configure: Callable[[str], Path]
) -> None:
    path = configure(text)

    refused = refusal()

    assert refused.startswith(f"{path}:{place}: ")
    assert message in refused
    assert "hidden" not in refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "give a mapping of settings"),
        ("engine: {}\nengine: {}\n", "the key 'engine' occurs twice, first in line 1"),
        ("engine: [\n", "is not valid YAML"),
        ("engine: !!python/object:x {}\n", "the tag "),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(
    text: str, message: str, configure: Callable[[str], Path]
) -> None:
    path = configure(text)

    refused = refusal()

    assert refused.startswith(str(path))
    assert message in refused


def test_a_file_that_is_not_there_is_refused_with_who_named_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTCHORD_CONFIG", "/nowhere/chord.yaml")

    refused = refusal()

    assert refused == (
        "/nowhere/chord.yaml: cannot be read: No such file or directory "
        "(the file is named by AGENTCHORD_CONFIG)"
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DATABASE_URL", "mysql://ada:hidden@db", "must begin with postgresql://"),
        ("REDIS_URL", "ada:hidden@cache", "must begin with redis://"),
        ("OPENAI_BASE_URL", "api.example.com", "must begin with http://"),
        ("AGENTCHORD_ENGINE__LANE_WIDTH", "0", "is '0': input should be greater than"),
        ("AGENTCHORD_ENGINE__LANE_WIDHT", "1", "did you mean 'lane_width'?"),
        ("AGENTCHORD_ENGINE", "{", "is not JSON: give a JSON object, or a variable per key"),
        ("AGENTCHORD_ENGINE", '{"lane_width": 0}', ": engine.lane_width: is 0: input should"),
        ("AGENTCHORD_IMPORTS", "a;b", "'a;b' is not a module's name"),
    ],
)
def test_a_mistake_in_a_variable_is_refused_with_its_name(
    name: str, value: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv(name, value)
        in_environment = refusal()
    (folder / ".env").write_text(f"{name}='{value}'\n")
    in_dotenv = refusal()

    assert in_environment.startswith(f"environment variable {name}")
    assert in_dotenv.startswith(f".env {name}")
    assert message in in_environment
    assert message in in_dotenv
    assert "hidden" not in in_environment + in_dotenv


def test_a_mistake_in_an_argument_is_refused() -> None:
    assert "setting engine.lane_width: is 0" in refusal(engine={"lane_width": 0})
    assert "setting enginn: there is no such setting; did you" in refusal(enginn={})


def test_a_dotenv_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / ".env").write_bytes(b"OPENAI_API_KEY=\xff")

    assert refusal() == ".env:1: is not UTF-8 text: save it as UTF-8"


def test_the_chain_of_a_refusal_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://ada:hidden@db")

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert "hidden" not in f"{caught.value.__cause__!r} {caught.value.__cause__}"


LIMITS = """\
rate_limits:
  openai:
    default: {requests_per_minute: 600, burst: 10}
    models:
      "gpt-4o*": {requests_per_minute: 500}
      gpt-4o: {burst: null}
      "gpt*": {concurrent_requests: 3}
  anthropic:
    models:
      big: {requests_per_minute: 5}
"""


@pytest.mark.parametrize(
    ("provider", "model", "bucket", "named"),
    [
        ("openai", "o3", "openai/default", {"requests_per_minute": 600, "burst": 10}),
        ("openai", "gpt-4o", "openai/gpt-4o", {"requests_per_minute": 600}),
        ("openai", "gpt-4o-mini", "openai/gpt-4o*", {"requests_per_minute": 500, "burst": 10}),
        (
            "openai",
            "gpt-5",
            "openai/gpt*",
            {"requests_per_minute": 600, "burst": 10, "concurrent_requests": 3},
        ),
        ("openai", "GPT-5", "openai/default", {"requests_per_minute": 600, "burst": 10}),
    ],
)
def test_a_block_replaces_the_built_in_limits_and_models_inherit_from_it(
    provider: str,
    model: str,
    bucket: str,
    named: dict[str, Any],
    configure: Callable[[str], Path],
) -> None:
    configure(LIMITS)
    unlimited: dict[str, Any] = dict.fromkeys(vars(RateLimitConfig()))

    name, limits = load_settings().rate_limit_for(provider, model)

    assert name == bucket
    assert limits == RateLimitConfig(**(unlimited | {"enforcement": "bucket"} | named))


def test_a_provider_without_a_default_block_has_the_built_in_limits(
    configure: Callable[[str], Path],
) -> None:
    configure(LIMITS)
    settings = load_settings()

    assert settings.rate_limit_for("anthropic", "x") == ("anthropic/default", RateLimitConfig())
    assert settings.rate_limit_for("anthropic", "big") == (
        "anthropic/big",
        RateLimitConfig(requests_per_minute=5),
    )


def test_an_empty_default_block_limits_nothing(configure: Callable[[str], Path]) -> None:
    configure("rate_limits: {openai: {default: {}}}")

    _, limits = load_settings().rate_limit_for("openai", "any")

    assert {value for name, value in vars(limits).items() if name != "enforcement"} == {None}


def test_limits_of_an_unknown_provider_are_refused(configure: Callable[[str], Path]) -> None:
    configure("rate_limits: {opnai: {default: {burst: 1}}}")

    assert "there is no provider 'opnai'" in refusal()
    assert "did you mean 'openai'?" in refusal()


def test_limits_by_environment_are_merged_into_those_of_the_file(
    configure: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(LIMITS)
    monkeypatch.setenv("AGENTCHORD_RATE_LIMITS__OPENAI__DEFAULT__BURST", "4")
    monkeypatch.setenv("AGENTCHORD_RATE_LIMITS", '{"openai": {"models": {"o3": {"burst": 2}}}}')

    settings = load_settings()

    assert settings.rate_limit_for("openai", "gpt-4o-mini")[1].burst == 4
    assert settings.rate_limit_for("openai", "o3")[1].burst == 2
    assert settings.rate_limit_for("openai", "o3")[1].requests_per_minute == 600


def test_limits_by_environment_need_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = "AGENTCHORD_RATE_LIMITS__OPENAI"
    monkeypatch.setenv(f"{limits}__DEFAULT__REQUESTS_PER_MINUTE", "1200")
    monkeypatch.setenv(f"{limits}__MODELS", '{"gpt-4o*": {"requests_per_minute": 500}}')

    settings = load_settings()

    assert settings.rate_limit_for("openai", "o3")[1].requests_per_minute == 1200
    assert settings.rate_limit_for("openai", "o3")[1].requests_per_hour is None
    assert settings.rate_limit_for("openai", "gpt-4o")[1].requests_per_minute == 500


def test_a_wrong_limit_in_the_environment_is_refused_with_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTCHORD_RATE_LIMITS__OPENAI__MODELS", '{"gpt-4o*": {"burts": 5}}')

    assert "AGENTCHORD_RATE_LIMITS__OPENAI__MODELS" in refusal()
    assert "did you mean 'burst'?" in refusal()


def test_the_example_loads_and_shows_every_key_with_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTCHORD_CONFIG", str(EXAMPLE))
    example = read_document(EXAMPLE).value

    settings = load_settings()

    assert set(example) == set(Settings.model_fields) - {"config"}
    defaults = load_settings(config=None)
    for name in set(example) - SHOWN_OTHERWISE:
        assert getattr(settings, name) == getattr(defaults, name), name
    for name in set(example) - {"providers", "rate_limits", "costs"}:
        assert names_in(getattr(settings, name)) <= names_in_example(example[name]), name


def test_the_example_shows_every_tier_and_every_price() -> None:
    example = read_document(EXAMPLE).value

    tiers = {
        name
        for provider in example["rate_limits"].values()
        for block in (provider["default"], *provider.get("models", {}).values())
        for name in block
    }

    assert tiers == {field.name for field in fields(RateLimitConfig)}
    assert set(example["costs"]) == {field.name for field in fields(CostConfig)}


def test_the_example_shows_every_key_of_a_provider() -> None:
    example = read_document(EXAMPLE).value

    assert {name for given in example["providers"].values() for name in given} == set(
        ProviderSettings.model_fields
    )


def test_the_documentation_names_every_variable() -> None:
    text = (DOCS / "configuration.md").read_text()

    for name, field in Settings.model_fields.items():
        prefix = "" if field.validation_alias else "AGENTCHORD_"
        sections = (
            "providers",
            "rate_limits",
            "costs",
            "retry",
            "circuit_breaker",
            "engine",
            "logging",
            "monitoring",
            "tools",
            "attachments",
        )
        expected = f"`{name}`" if name in sections else f"`{prefix}{name.upper()}`"
        assert expected in text


def test_settings_are_immutable() -> None:
    settings = load_settings()

    with pytest.raises(ValueError, match="frozen"):
        setattr(settings.engine, "lane_width", 1)  # noqa: B010 - mypy refuses it too


def test_reading_settings_needs_no_yaml_parser_without_a_file() -> None:
    code = (
        "import sys, app.configuration.settings as s; s.load_settings(); "
        "print('yaml' in sys.modules)"
    )

    output = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(DOCS.parent)},
    ).stdout

    assert output.strip() == "False"


def names_in(value: Any) -> set[str]:
    """Names of the fields of a section; nothing for a plain value."""
    if isinstance(value, BaseModel):
        return set(type(value).model_fields)
    return {field.name for field in fields(value)} if is_dataclass(value) else set()


def names_in_example(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to own a file as somebody else")
def test_a_dotenv_of_another_user_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dotenv = tmp_path / ".env"
    dotenv.write_text("AGENTCHORD_ON_FAILURE=os:system\nOPENAI_BASE_URL=http://stranger")
    os.chown(dotenv, 12345, 12345)

    with pytest.raises(
        ConfigurationError, match=r"\.env in .* belongs to user id 12345"
    ) as refused:
        load_settings()
    os.chown(dotenv, 0, 0)
    loaded = load_settings()

    assert "\n" not in str(refused.value)
    assert loaded.openai_base_url == "http://stranger"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_dotenv_that_only_its_owner_may_write_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write_under(umask, tmp_path / ".env")

    assert load_settings().openai_base_url == "http://mine"


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o007, 0o020])
def test_a_dotenv_that_a_group_or_others_may_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write_under(umask, tmp_path / ".env")

    with pytest.raises(ConfigurationError, match=r"other users may write to \.env") as refused:
        load_settings()

    assert "chmod go-w .env" in str(refused.value)
    assert "\n" not in str(refused.value)


def write_under(umask: int, dotenv: Path) -> None:
    before = os.umask(umask)
    try:
        dotenv.write_text("OPENAI_BASE_URL=http://mine")
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "name",
    [
        *("AGENTCHORD_DATABASE_PASSWORD", "AGENTCHORD_REDIS_PASSWORD", "DATABASE_URL", "REDIS_URL"),
        *("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AGENTCHORD_FLOWER_BASIC_AUTH"),
    ],
)
def test_bytes_that_are_not_utf_8_are_refused_by_the_name_of_their_variable(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada@db/chord")
    monkeypatch.setenv("REDIS_URL", "redis://ada:@cache")
    before = {"DATABASE_URL": "postgresql://ada:", "REDIS_URL": "redis://ada:"}.get(name, "")
    after = "@db" if before else ""
    monkeypatch.setenv(name, f"{before}Zq9\udcffq{after}")

    with pytest.raises(ConfigurationError) as refused:
        load_settings()

    assert f"{name}: has bytes that are not UTF-8 text" in str(refused.value)
    assert "Zq9" not in str(refused.value)
    assert "udcff" not in str(refused.value)


def test_the_line_end_of_a_file_with_a_secret_belongs_to_no_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada:pw@db/chord\n")
    monkeypatch.setenv("REDIS_URL", " redis://cache/1 \r\n")

    settings = load_settings()

    assert settings.database_url == SecretStr("postgresql://ada:pw@db/chord")
    assert settings.redis_url == SecretStr("redis://cache/1")


def test_a_process_without_keys_reads_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("ANTHROPIC_API_KEY=in-dotenv\nACME_PASS=in-dotenv\n")
    (tmp_path / ".env").chmod(0o600)
    monkeypatch.setenv("OPENAI_API_KEY", "in-environment")
    monkeypatch.setenv("openai_api_key", "in-small-letters")
    monkeypatch.setenv(
        "AGENTCHORD_PROVIDERS",
        '{"acme": {"protocol": "openai", "base_url": "http://h", "api_key_env": "ACME_PASS"}}',
    )

    environment = load_settings().environment_without_keys()
    assert environment is not None
    monkeypatch.setenv(KEYLESS, environment[KEYLESS])
    settings = load_settings()

    assert [name for name in environment if name.upper() == "OPENAI_API_KEY"] == []
    assert settings.openai_api_key is None
    assert settings.anthropic_api_key is None
    assert settings.access_to("acme").api_key is None
    assert settings.environment_without_keys() is not None
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("openai_api_key")
    assert settings.environment_without_keys() is None


def test_the_variables_of_keys_are_those_that_only_agents_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agentchord.yaml"
    path.write_text(
        "providers: {acme: {protocol: openai, base_url: 'http://h', api_key_env: ACME_PASS,"
        " headers: {X-Team: '${TEAM}'}}}"
    )
    monkeypatch.setenv("AGENTCHORD_CONFIG", str(path))
    monkeypatch.setenv("AGENT_SECRET_REVIEW", "hush")

    names = load_settings().key_variables()

    assert names == {
        *("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ACME_PASS", "TEAM", "AGENT_SECRET_REVIEW"),
    }
