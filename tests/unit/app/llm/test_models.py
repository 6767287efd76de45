"""Which parameters models take, by their names."""

import pytest

from app.llm.models import anthropic_samples, is_openai_reasoning, openai_samples


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("gpt-4o", False),
        ("gpt-4.1-mini", False),
        ("gpt-oss-120b", False),
        ("chatgpt-4o-latest", False),
        ("gpt-5", True),
        ("gpt-5.4-mini", True),
        ("gpt-6.1-terra", True),
        ("o1", True),
        ("o4-mini-2025-04-16", True),
        ("openai/gpt-5-mini", True),
        ("llama-o3", False),
    ],
)
def test_a_reasoning_model_of_openai_is_known_by_its_name(model: str, reasons: bool) -> None:
    assert is_openai_reasoning(model) is reasons


@pytest.mark.parametrize(
    ("model", "effort", "samples"),
    [
        ("gpt-4o", None, True),
        ("gpt-5-mini", None, False),
        ("gpt-5-chat-latest", None, True),
        ("gpt-5.2", None, True),
        ("gpt-5.2", "high", False),
        ("gpt-5.6-luna", None, False),
        ("gpt-6-sol", "none", True),
        ("o3", None, False),
    ],
)
def test_which_models_of_openai_take_a_temperature(
    model: str, effort: str | None, samples: bool
) -> None:
    assert openai_samples(model, effort) is samples


@pytest.mark.parametrize(
    ("model", "samples"),
    [
        ("claude-2.1", True),
        ("claude-instant-1.2", True),
        ("claude-3-5-sonnet-20241022", True),
        ("claude-3-opus-latest", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-opus-4-1-20250805", True),
        ("claude-haiku-4-5", True),
        ("claude-opus-4-6", True),
        ("anthropic.claude-sonnet-4-6-v1:0", True),
        ("claude-opus-4-7", False),
        ("claude-opus-5", False),
        ("claude-sonnet-5-5", False),
        ("claude-mythos-preview", False),
        ("glm-5", True),
    ],
)
def test_which_models_of_anthropic_take_a_temperature(model: str, samples: bool) -> None:
    assert anthropic_samples(model) is samples
