"""The parameters that a model takes or refuses, by the model's name.

The rules come from the providers' migration pages (2026). If a name is not known here, all
parameters are sent, and the provider decides about the parameters.
"""

import re

from app.domain.claude import claude_version

# o1 and newer, gpt-5 and newer, also after a gateway's prefix such as "openai/"; not gpt-oss-20b.
_REASONING = re.compile(r"(?:^|[/:])(?:o\d|gpt-(?:[5-9]|[1-9]\d)(?![\d]))")
# gpt-5.1 to gpt-5.4 reason only if the request asks for reasoning; otherwise they sample.
_SAMPLES_BY_DEFAULT = re.compile(r"gpt-5\.[1-4](?!\d)")
_OF_OPENAI = re.compile(r"(?:^|[/:])(?:o\d|chatgpt-|gpt-\d)")
# Models with open weights. The servers of these models show all that the models generate.
_OPEN = re.compile(
    r"gpt-oss|llama|(?:mini?|code|magi|dev|pix|mi)stral|mixtral|qwen|qwq|gemma|phi-?\d|deepseek|kimi|"
    r"moonshot|glm|olmo|granite|nemotron|smollm|command-|hermes|vicuna|falcon|minimax",
    re.IGNORECASE,
)
# The names of these models say that the models reason. The servers of these models may leave out
# the reasoning from the answer.
_SAYS_IT_REASONS = re.compile(
    r"reason|think|(?:^|[-/:.])r\d(?!\d)|magistral|qwq|minimax-?m|gpt-oss", re.IGNORECASE
)
# While these models reason, they take tools only in the Responses API. The models are gpt-5.5 and
# newer, and also gpt-5.2 to gpt-5.4 if the request sets an effort. The names here have no prefix.
# Gateways such as OpenRouter use names with a prefix, but gateways translate chat completions
# themselves.
_TOOLS_IN_RESPONSES = re.compile(r"gpt-(?:5\.(?:[5-9]|[1-9]\d)|[6-9]|[1-9]\d)(?!\d)(?!.*-chat)")
_EFFORT_IN_RESPONSES = re.compile(r"gpt-5\.[2-4](?!\d)(?!.*-chat)")
# gpt-5 (not gpt-5.1 and newer), o1 and newer, and two models of version 6.
_ALWAYS_REASONS = re.compile(r"(?:^|[/:])(?:o\d|gpt-5(?![.\d]|-chat)|gpt-6-astra|gpt-6\.1-sol)")
# These models are served only by the Responses API.
_ONLY_IN_RESPONSES = re.compile(
    r"(?:o\d|gpt-5|gpt-5\.[5-9])-pro|gpt-[\d.]+-codex|(?:o\d.*-deep-research|computer-use)"
)
_LAST_CLAUDE_THAT_SAMPLES = (4, 6)
_FIRST_CLAUDE_WITH_SCHEMAS = (4, 5)
# gpt-4.1, gpt-5 and newer, o1 and newer, gpt-4o except its first version, and fine-tuned versions
# of these models.
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
    """Return whether a model is known to show, by default, all that it generates.

    The models of OpenAI that sample do not reason. A model with another name may reason unseen. A
    model whose name says that it reasons may reason unseen, too.
    """
    if is_of_openai(model):
        return True
    return _OPEN.search(model) is not None and _SAYS_IT_REASONS.search(model) is None


def openai_always_reasons(model: str) -> bool:
    """Return whether a model of OpenAI refuses the reasoning effort ``none``."""
    return _ALWAYS_REASONS.search(model) is not None


def needs_responses(model: str, reasoning_effort: object = None, *, tools: bool) -> bool:
    """Return whether OpenAI serves a request only in its Responses API.

    Args:
        model: Model name.
        reasoning_effort: Reasoning effort of the request, or None for the model's default.
        tools: Whether the request has tools.
    """
    if _ONLY_IN_RESPONSES.match(model):
        return True
    if not tools or reasoning_effort == "none":
        return False
    if reasoning_effort is not None and _EFFORT_IN_RESPONSES.match(model):
        return True
    return _TOOLS_IN_RESPONSES.match(model) is not None


def anthropic_samples(model: str) -> bool:
    """Return whether a model of Anthropic takes temperature, top_p and top_k (Claude up to 4.6)."""
    if "claude" not in model:
        return True
    version = claude_version(model)
    if version is None:
        return model.startswith("claude-instant")
    return version <= _LAST_CLAUDE_THAT_SAMPLES


def anthropic_thinks_unasked(model: str) -> bool:
    """Return whether a model of Anthropic may think without being asked (after Claude 4.6).

    Some of these models always think, and show thoughts only if the request asks for thoughts.
    A model of another vendor that is served in Anthropic's form thinks if the model's name says so.
    """
    return not anthropic_samples(model) or (
        "claude" not in model and _SAYS_IT_REASONS.search(model) is not None
    )


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
