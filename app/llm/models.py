"""The parameters that a model takes or refuses, by the model's name.

The rules come from the providers' migration pages (2026). If a name is not known here, all
parameters are sent, and the provider decides about them.
"""

import re

# o1 and newer, gpt-5 and newer, also after a gateway's prefix such as "openai/"; not gpt-oss-20b.
_REASONING = re.compile(r"(?:^|[/:])(?:o\d|gpt-(?:[5-9]|[1-9]\d)(?![\d]))")
# gpt-5.1 to gpt-5.4 reason only if the request asks for it; otherwise they sample.
_SAMPLES_BY_DEFAULT = re.compile(r"gpt-5\.[1-4](?!\d)")
# Finds the version, not the date: claude-3-5-sonnet, claude-opus-4-7, claude-sonnet-4-20250514.
_CLAUDE_VERSION = re.compile(r"claude-(?:[a-z]+-)*v?(\d{1,2})(?!\d)(?:[.-](\d{1,2})(?!\d))?")
_OF_OPENAI = re.compile(r"(?:^|[/:])(?:o\d|chatgpt-|gpt-\d)")
# Models whose weights are open: their servers show all that they generate, reasoning included.
_OPEN = re.compile(
    r"gpt-oss|llama|(?:mini?|code|magi|dev|pix|mi)stral|mixtral|qwen|qwq|gemma|phi-?\d|deepseek|kimi|"
    r"moonshot|glm|olmo|granite|nemotron|smollm|command-|hermes|vicuna|falcon|minimax",
    re.IGNORECASE,
)
_LAST_CLAUDE_THAT_SAMPLES = (4, 6)
_FIRST_CLAUDE_WITH_SCHEMAS = (4, 5)
# gpt-4.1, gpt-5 and newer, o1 and newer, gpt-4o except its first version, and fine-tuned models
# of these.
_TAKES_SCHEMA = re.compile(r"(?:^|[/:])(?:gpt-4o|gpt-4\.[1-9]|gpt-(?:[5-9]|[1-9]\d)(?!\d)|o\d)")
_TAKES_NO_SCHEMA = re.compile(r"gpt-4o-2024-05-13|o1-(?:mini|preview)|audio|realtime")
# Models that are known to read only text; some names end with a date.
_READS_ONLY_TEXT = re.compile(
    r"(?:^|[/:])(?:gpt-3|gpt-4(?:-32k)?(?:-\d{4})?$|gpt-4-(?:1106|0125)-preview|o1-(?:mini|preview)|"
    r"o3-mini|davinci|babbage)|gpt-oss|gpt-(?:4o-|4o-mini-)?audio|claude-(?:v?[12](?!\d)|instant)|"
    r"deepseek-r1"
)


def reads_only_text(model: str) -> bool:
    """Return whether a model is known to take neither images nor PDFs."""
    return _READS_ONLY_TEXT.search(model) is not None


def is_of_openai(model: str) -> bool:
    """Return whether a model is one of OpenAI's own, also behind a gateway."""
    return _OF_OPENAI.search(model) is not None


def is_openai_reasoning(model: str) -> bool:
    """Return whether a model takes max_completion_tokens and not max_tokens."""
    return _REASONING.search(model) is not None


def openai_samples(model: str, reasoning_effort: object = None) -> bool:
    """Return whether a model of OpenAI takes a temperature and top_p.

    Args:
        model: Model name.
        reasoning_effort: Reasoning effort of the request, or None for the model's default.
    """
    if not is_openai_reasoning(model) or "-chat" in model or reasoning_effort == "none":
        return True
    return reasoning_effort is None and _SAMPLES_BY_DEFAULT.search(model) is not None


def generates_openly(model: str) -> bool:
    """Return whether it is known that a model shows all that it generates unless asked not to.

    The models of OpenAI that sample do not reason. A model with another name may reason unseen.
    """
    return is_of_openai(model) or _OPEN.search(model) is not None


def anthropic_samples(model: str) -> bool:
    """Return whether a model of Anthropic takes temperature, top_p and top_k (Claude up to 4.6)."""
    if "claude" not in model:
        return True
    version = claude_version(model)
    if version is None:
        return model.startswith("claude-instant")
    return version <= _LAST_CLAUDE_THAT_SAMPLES


def claude_version(model: str) -> tuple[int, int] | None:
    """Return the version of a model of Anthropic, such as (4, 6); None if its name has none."""
    found = _CLAUDE_VERSION.search(model)
    return None if found is None else (int(found[1]), int(found[2] or 0))


def anthropic_thinks_unasked(model: str) -> bool:
    """Return whether a model of Anthropic may think without a request for it (after Claude 4.6).

    Some of these models always think, and show their thinking only if the request asks for that.
    """
    return not anthropic_samples(model)


def openai_takes_schema(model: str) -> bool:
    """Return whether a model of OpenAI is known to take a JSON Schema for its answer."""
    return bool(_TAKES_SCHEMA.search(model)) and not _TAKES_NO_SCHEMA.search(model)


def anthropic_takes_schema(model: str) -> bool:
    """Return whether a model of Anthropic takes a JSON Schema for its answer.

    These models are Claude 4.5 and newer, and Opus 4.1.
    """
    version = claude_version(model)
    if version is None:
        return False
    return version >= _FIRST_CLAUDE_WITH_SCHEMAS or ("opus" in model and version == (4, 1))
