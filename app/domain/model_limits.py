"""Token limits of models, by the models' names, from the providers' pages (2026)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelLimits:
    """Token limits of a model; an unknown limit is None.

    Attributes:
        context_window: Largest number of tokens of a prompt and its output in total.
        max_output_tokens: Largest number of tokens that the model generates in one answer.
    """

    context_window: int | None = None
    max_output_tokens: int | None = None


# If several prefixes fit the name of a model, the longest prefix decides.
_LIMITS = {
    "chatgpt-4o": (128_000, 16_384),
    "gpt-3.5-turbo": (16_385, 4_096),
    "gpt-4": (8_192, 8_192),
    "gpt-4-turbo": (128_000, 4_096),
    "gpt-4.1": (1_047_576, 32_768),
    "gpt-4o": (128_000, 16_384),
    "gpt-5": (400_000, 128_000),
    "gpt-5-chat": (128_000, 16_384),
    "gpt-5-pro": (400_000, 272_000),
    "gpt-5.3-chat": (128_000, 16_384),
    "o1": (200_000, 100_000),
    "o1-mini": (128_000, 65_536),
    "o3": (200_000, 100_000),
    "o4-mini": (200_000, 100_000),
    "claude-3-5-haiku": (200_000, 8_192),
    "claude-3-5-sonnet": (200_000, 8_192),
    "claude-3-7-sonnet": (200_000, 64_000),
    "claude-3-haiku": (200_000, 4_096),
    "claude-3-opus": (200_000, 4_096),
    "claude-fable-5": (1_000_000, 128_000),
    "claude-haiku-4-5": (200_000, 64_000),
    "claude-haiku-5": (1_000_000, 128_000),
    "claude-opus-4": (200_000, 32_000),
    "claude-opus-4-5": (200_000, 64_000),
    "claude-opus-4-6": (1_000_000, 128_000),
    "claude-opus-4-7": (1_000_000, 128_000),
    "claude-opus-5": (1_000_000, 128_000),
    "claude-sonnet-4": (200_000, 64_000),
    "claude-sonnet-4-6": (1_000_000, 64_000),
    "claude-sonnet-5": (1_000_000, 128_000),
}
# Prefixes of the names of models with unknown limits. For these names, a shorter prefix above does
# not count, although the shorter prefix also fits.
_UNKNOWN = (
    *("gpt-4-0125", "gpt-4-1106", "gpt-4-32k", "gpt-4-vision"),
    *("gpt-5.4", "gpt-5.5", "gpt-5.6", "o1-preview", "claude-opus-4-8"),
)


def limits_of(model: str) -> ModelLimits:
    """Return the known limits of a model."""
    fitting = [prefix for prefix in (*_LIMITS, *_UNKNOWN) if model.startswith(prefix)]
    if not fitting or (best := max(fitting, key=len)) in _UNKNOWN:
        return ModelLimits()
    context_window, max_output_tokens = _LIMITS[best]
    return ModelLimits(context_window=context_window, max_output_tokens=max_output_tokens)
