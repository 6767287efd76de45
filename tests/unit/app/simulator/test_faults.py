import pytest

from app.simulator.config import SimulatorConfig, config_as_json, config_with, options_in
from app.simulator.faults import Fault, FaultPlan, FaultRule
from app.simulator.markers import active, markers_in, without_markers


def kinds(plan: FaultPlan, count: int, model: str = "gpt-4o", prompt: str = "hello") -> list[bool]:
    return [plan.fault_for("openai", model, prompt) is not None for _ in range(count)]


def test_the_first_so_many_matching_requests_fail() -> None:
    plan = FaultPlan([FaultRule(fault=Fault(kind="hang"), first=2)], seed=0)

    assert kinds(plan, 4) == [True, True, False, False]


def test_every_nth_matching_request_fails() -> None:
    plan = FaultPlan([FaultRule(fault=Fault(kind="drop"), every=3)], seed=0)

    assert kinds(plan, 6) == [False, False, True, False, False, True]


def test_a_rate_fails_its_share_of_requests_and_the_same_ones_for_the_same_seed() -> None:
    rule = FaultRule(fault=Fault(kind="status", status=503), rate=0.3)

    first, second = (kinds(FaultPlan([rule], seed=7), 1000) for _ in range(2))

    assert first == second
    assert 250 < sum(first) < 350
    assert first != kinds(FaultPlan([rule], seed=8), 1000)


def test_a_rule_counts_only_the_requests_that_it_matches() -> None:
    rule = FaultRule(
        fault=Fault(kind="status"), model="gpt-4o*", prompt_contains="invoice", first=1
    )
    plan = FaultPlan([rule], seed=0)

    assert kinds(plan, 2, prompt="resume") == [False, False]
    assert kinds(plan, 2, model="o3", prompt="invoice") == [False, False]
    assert kinds(plan, 2, model="gpt-4o-mini", prompt="an invoice") == [True, False]


def test_the_first_rule_that_fires_decides() -> None:
    rules = [
        FaultRule(fault=Fault(kind="status", status=429), first=1),
        FaultRule(fault=Fault(kind="status", status=500)),
    ]
    plan = FaultPlan(rules, seed=0)

    faults = [plan.fault_for("openai", "gpt-4o", "hello") for _ in range(2)]

    assert [fault and fault.status for fault in faults] == [429, 500]


def test_markers_follow_one_another_by_their_times() -> None:
    markers = markers_in("Do it [[sim:status=500,times=1]] now [[sim:status=429,times=3]]")

    faults = [active(markers, nth).fault for nth in (1, 2, 3, 4)]

    assert [fault and fault.status for fault in faults] == [500, 429, 429, None]


def test_a_marker_holds_several_settings() -> None:
    (marker,) = markers_in("[[sim:latency=2.5, output_tokens=300, cached_tokens=20, ttft=0.1]]")

    assert (marker.latency_s, marker.output_tokens) == (2.5, 300)
    assert (marker.cached_tokens, marker.time_to_first_token_s) == (20, 0.1)
    assert marker.fault is None


def test_a_reply_marker_takes_everything_up_to_its_end() -> None:
    (marker,) = markers_in("[[sim:reply=approved, but only a=b]]")

    assert marker.reply == "approved, but only a=b"


def test_the_model_does_not_see_markers() -> None:
    assert without_markers("Check this. [[sim:hang]]") == "Check this."


@pytest.mark.parametrize("wrong", ["[[sim:explode]]", "[[sim:latency=soon]]", "[[sim:status=200]]"])
def test_a_wrong_marker_is_an_error_and_not_ignored(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"marker|fault status"):
        markers_in(wrong)


def test_the_configuration_survives_json() -> None:
    changes = {
        "latency_s": 0.2,
        "limits": [{"provider": "openai", "rpm": 60, "burst": 1}],
        "faults": [{"kind": "status", "status": 503, "rate": 0.1, "prompt": "invoice"}],
    }

    config = config_with(SimulatorConfig(), changes)
    as_json = config_as_json(config)
    as_json.pop("invalid_keys")

    assert config.limits[0].requests_per_minute == 60
    assert config.faults[0].prompt_contains == "invoice"
    assert config_with(SimulatorConfig(), as_json) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency": 1},
        {"latency_s": -1},
        {"cached_share": 2},
        {"output_tokens": 0},
        {"limits": [{"provider": "openai", "rps": 1}]},
        {"faults": [{"kind": "explode"}]},
        {"faults": [{"kind": "hang", "rate": 0.5, "first": 2}]},
    ],
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        config_with(SimulatorConfig(), wrong)


def test_options_on_the_command_line_become_numbers_where_they_are() -> None:
    assert options_in("provider=openai,rpm=60,rate=0.5") == {
        "provider": "openai",
        "rpm": 60,
        "rate": 0.5,
    }
    with pytest.raises(ValueError, match="key=value"):
        options_in("rpm")
