"""Stored limits and configured ones together: the number in force, and its source."""

from typing import Any

import pytest

from app.configuration.sections import UNLIMITED, ProviderLimits
from app.domain.policies import RateLimitConfig
from app.errors import ConfigurationError
from app.rate_limits.overview import overview
from app.rate_limits.stored import LimitTable, check_block, limit_table, read_assignments
from app.storage.limits import StoredBlock

CONFIGURED = {
    "default": {"requests_per_minute": 600, "concurrent_requests": 100, "burst": 10},
    "models": {"gpt-4o*": {"requests_per_minute": 500}},
}


def stored(model: str = "default", provider: str = "openai", **limits: Any) -> StoredBlock:
    return StoredBlock(provider=provider, model=model, limits=limits)


def table(*blocks: StoredBlock) -> LimitTable:
    return limit_table({"openai": ProviderLimits.model_validate(CONFIGURED)}, blocks)


def source(found: LimitTable, bucket: str, key: str) -> tuple[Any, str, bool]:
    value = found.values[bucket][key]
    return value.value, value.source, value.inherited


def test_without_stored_limits_the_configuration_is_in_force() -> None:
    configured = ProviderLimits.model_validate(CONFIGURED)

    found = table()

    for model in ("gpt-4o-mini", "o3"):
        block, limits = configured.bucket_of(model)
        assert found.resolve("openai", model) == (f"openai/{block}", limits)
    assert found.resolve("anthropic", "any") == ("anthropic/default", RateLimitConfig())


def test_stored_limits_go_before_the_configuration_key_by_key() -> None:
    _, limits = table(stored(requests_per_minute=1200)).resolve("openai", "o3")

    assert (limits.requests_per_minute, limits.concurrent_requests, limits.burst) == (1200, 100, 10)
    assert limits.requests_per_hour is None


def test_stored_limits_change_single_numbers_of_the_built_in_ones() -> None:
    _, limits = table(stored(provider="anthropic", burst=3)).resolve("anthropic", "any")

    assert limits == RateLimitConfig(burst=3)


def test_a_stored_null_means_unlimited() -> None:
    _, limits = table(stored(concurrent_requests=None)).resolve("openai", "o3")

    assert limits.concurrent_requests is None


def test_a_stored_default_is_inherited_except_where_a_model_names_the_limit() -> None:
    found = table(stored(requests_per_minute=1200, burst=20))

    _, limits = found.resolve("openai", "gpt-4o-mini")

    assert (limits.requests_per_minute, limits.burst) == (500, 20)


def test_a_stored_pattern_of_its_own_makes_a_bucket_that_inherits_from_default() -> None:
    found = table(stored("o3*", requests_per_minute=5))

    name, limits = found.resolve("openai", "o3-mini")

    assert name == "openai/o3*"
    assert (limits.requests_per_minute, limits.concurrent_requests) == (5, 100)
    assert found.resolve("openai", "o1")[0] == "openai/default"


def test_every_value_says_where_it_comes_from() -> None:
    found = table(stored(burst=20), stored("gpt-4o*", tokens_per_minute=7))

    assert source(found, "openai/default", "burst") == (20, "stored", False)
    assert source(found, "openai/default", "concurrent_requests") == (100, "configuration", False)
    assert source(found, "openai/gpt-4o*", "burst") == (20, "stored", True)
    assert source(found, "openai/gpt-4o*", "tokens_per_minute") == (7, "stored", False)
    assert source(found, "openai/gpt-4o*", "requests_per_minute") == (500, "configuration", False)
    assert source(found, "anthropic/default", "requests_per_minute") == (60, "built-in", False)


def test_stored_limits_that_this_version_does_not_know_are_left_out() -> None:
    strange = stored("o3", requests_per_fortnight=1)

    found = table(strange, stored(burst=0), stored(provider="acme", burst=1))

    assert found == table()


@pytest.mark.parametrize(
    ("provider", "model", "words", "message"),
    [
        ("opnai", "default", ["burst=1"], "no provider 'opnai' .*did you mean 'openai'"),
        ("openai", "default", ["requests_per_minuet=1"], "did you mean 'requests_per_minute'"),
        ("openai", "default", ["speed=1"], "there is no limit 'speed'; there is 'requests_per_min"),
        ("openai", "default", ["burst"], "'burst' sets nothing: write requests_per_minute=600"),
        (
            "openai",
            "default",
            ["burst=0"],
            "burst is 0: give a whole number from 1 to 1,000,000,000,000",
        ),
        ("openai", "default", ["burst=many"], "burst is 'many'"),
        ("openai", "default", ["enforcement=hard"], "give 'bucket' or 'window'"),
        ("openai", " ", ["burst=1"], "the model is empty"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could_be_meant(
    provider: str, model: str, words: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_block(provider, model, read_assignments(words))


def test_limits_are_read_as_they_are_typed() -> None:
    words = ["requests_per_minute=1_200", "burst=none", "tokens_per_minute=Null"]

    read = read_assignments([*words, "enforcement=window"])

    assert read == {
        "requests_per_minute": 1200,
        "burst": None,
        "tokens_per_minute": None,
        "enforcement": "window",
    }


def test_the_overview_has_idle_live_and_former_buckets() -> None:
    tier = {"tier": "requests", "limit": 600, "level": 3.5, "capacity": 10, "rate": 9.9}
    state = {"waiting": 4, "concurrency": 100, "in_flight": 2}
    live = [{"bucket": name, "tiers": [tier], **state} for name in ("openai/default", "openai/old")]

    found = {bucket["bucket"]: bucket for bucket in overview(table(), live)}

    assert found["openai/gpt-4o*"]["state"] is None
    assert found["openai/default"]["state"]["waiting"] == 4
    assert found["openai/default"]["limits"]["requests_per_minute"]["live"]["level"] == 3.5
    assert found["openai/default"]["limits"]["burst"]["live"] is None
    assert found["openai/old"]["limits"]["requests_per_minute"]["source"] == "former"


def test_the_overview_leaves_out_the_counts_of_prompts_while_they_have_no_limit() -> None:
    idle = {"tiers": [], "waiting": 0, "concurrency": 0, "in_flight": 1, "paused_s": 0.0}
    live = [
        {"bucket": "openai/token_count", **idle},
        {"bucket": "anthropic/token_count", **idle, "paused_s": 3.0},
        {"bucket": "anthropic/default", **idle},
    ]

    found = {bucket["bucket"] for bucket in overview(table(), live)}
    limited = overview(table(stored("token_count", requests_per_minute=60)), live)

    assert "openai/token_count" not in found
    assert {"anthropic/token_count", "anthropic/default"} <= found
    assert "openai/token_count" in {bucket["bucket"] for bucket in limited}


def test_counts_of_prompts_have_no_limits_but_their_own() -> None:
    given = {"token_count": {"requests_per_minute": 60}, "*": {"concurrent_requests": 1}}
    configured = ProviderLimits.model_validate(CONFIGURED | {"models": given})
    without = ProviderLimits.model_validate(CONFIGURED | {"models": {"*": {}}})
    changed = limit_table({"openai": configured}, [stored("token_count", burst=2)])

    for found in (configured, changed.providers["openai"]):
        bucket, limits = found.bucket_of("token_count")
        assert (bucket, limits.requests_per_minute) == ("token_count", 60)
        assert (limits.concurrent_requests, limits.requests_per_hour) == (None, None)
    assert changed.resolve("openai", "token_count")[1].burst == 2
    assert without.bucket_of("token_count") == ("token_count", UNLIMITED)
    assert table().resolve("anthropic", "token_count") == ("anthropic/token_count", UNLIMITED)
    assert source(changed, "openai/token_count", "burst") == (2, "stored", False)
    assert source(changed, "openai/token_count", "tokens_per_minute") == (None, "built-in", False)
