"""The JSON Schema of workflow files, which editors use to complete and check these files.

The schema has the keys, their types and their descriptions. Rules that need the whole graph are
checked when the file is loaded.
"""

import inspect
import re
from typing import Any, get_type_hints

from app.domain.agent import Agent
from app.domain.agent_validation import BOUNDS as AGENT_BOUNDS
from app.domain.agent_validation import NAME
from app.domain.attachments import DETAILS, PLACES
from app.domain.bounds import Bounds
from app.domain.kinds import LLM
from app.domain.labels import KEY, MAX_LABELS, MAX_VALUE_CHARS
from app.domain.on_cut import OnCut
from app.domain.retry import RetryPolicy, RetryStrategy
from app.domain.server_tools import BOUNDS as SERVER_BOUNDS
from app.domain.server_tools import CONTEXT_SIZES, LOCATION, MEMORIES, OPTIONS, SERVER
from app.domain.validation import BOUNDS as WORKFLOW_BOUNDS
from app.domain.workflow import Workflow
from app.workflow_files.loader import AGENT_KEYS, RETRY_KEYS, STEP_KEYS, WORKFLOW_KEYS
from app.workflow_files.steps import FIELD_OF

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)
_TEXT: dict[str, Any] = {"type": "string"}
_TRUTH: dict[str, Any] = {"type": "boolean"}
_OBJECT: dict[str, Any] = {"type": "object"}
_TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
_LABELS: dict[str, Any] = {
    "type": "object",
    "propertyNames": {"pattern": f"^{KEY.pattern}$"},
    "additionalProperties": {"type": "string", "minLength": 1, "maxLength": MAX_VALUE_CHARS},
    "maxProperties": MAX_LABELS,
}
_ATTACHMENT: dict[str, Any] = {
    "type": "object",
    "properties": {**dict.fromkeys(PLACES, _TEXT), "detail": {"enum": list(DETAILS)}},
    "oneOf": [{"required": [place]} for place in PLACES],
    "additionalProperties": False,
}
_SERVER_TOOL: dict[str, Any] = {
    "type": "object",
    "properties": {
        SERVER: {"enum": list(OPTIONS)},
        **{
            name: {"type": "integer", "minimum": bound.low, "maximum": bound.high}
            for name, bound in SERVER_BOUNDS.items()
        },
        "allowed_domains": {"type": "array", "items": _TEXT},
        "blocked_domains": {"type": "array", "items": _TEXT},
        "user_location": {
            "type": "object",
            "properties": dict.fromkeys(LOCATION, _TEXT),
            "additionalProperties": False,
        },
        "search_context_size": {"enum": list(CONTEXT_SIZES)},
        "citations": _TRUTH,
        "memory": {"enum": list(MEMORIES)},
    },
    "required": [SERVER],
    "additionalProperties": False,
}
_OWN_TOOL: dict[str, Any] = {"type": "object", "not": {"required": [SERVER]}}
#: An agent that is not a group of agents.
_SINGLE: dict[str, Any] = {"not": {"required": ["agents"]}}
_TYPES: dict[str, dict[str, Any]] = {
    "name": _TEXT,
    "module": _TEXT,
    "description": _TEXT,
    "kind": _TEXT,
    "prompt_template": _TEXT,
    "condition": _TEXT,
    "accept_missing_inputs": _TRUTH,
    "allow_partial_completion": _TRUTH,
    "jitter": _TRUTH,
    "config": _OBJECT,
    "llm_config": _OBJECT,
    "output_schema": _OBJECT,
    "input_schema": _OBJECT,
    "labels": _LABELS,
    "input_mapping": _TEXTS,
    "output_mapping": _TEXTS,
    "attachments": {"type": "array", "items": {"anyOf": [_TEXT, _ATTACHMENT]}},
    "dependencies": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    "tools": {"type": "array", "items": {"anyOf": [_TEXT, _SERVER_TOOL, _OWN_TOOL]}},
    "for_each": {"anyOf": [_TEXT, {**_TEXTS, "minProperties": 1}]},
    "agents": {"type": "array", "items": {"$ref": "#/$defs/agent"}, "minItems": 1},
    "retry_policy": {"$ref": "#/$defs/retry_policy"},
    "on_cut": {"enum": [str(reaction) for reaction in OnCut]},
    "strategy": {"enum": [str(strategy) for strategy in RetryStrategy]},
}


def workflow_schema() -> dict[str, Any]:
    """Build the schema, in draft 2020-12."""
    agent = _properties(Agent, AGENT_KEYS, AGENT_BOUNDS)
    agent["name"] = {**agent["name"], "pattern": f"^{NAME.pattern}$"}
    step = {word: agent[FIELD_OF.get(word, word)] for word in STEP_KEYS}
    workflow = _properties(
        Workflow, [key for key in WORKFLOW_KEYS if key != "agents"], WORKFLOW_BOUNDS
    )
    for word in ("agents", "steps"):
        items = {"$ref": f"#/$defs/{word.removesuffix('s')}"}
        workflow[word] = {"type": "array", "items": items, "minItems": 1}
    workflow |= {
        "$schema": {
            "type": "string",
            "description": "Schema for editors; AgentChord does not read this key.",
        },
        "input": {
            "type": "object",
            "description": "The file's own input for a run: JSON values by key.",
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "AgentChord workflow",
        **_closed(workflow, ["name"]),
        "oneOf": [{"required": ["agents"]}, {"required": ["steps"]}],
        "$defs": {
            "agent": _closed(agent, ["name"])
            | {
                "if": {"properties": {"kind": {"const": LLM}}, **_SINGLE},
                "then": {"required": ["prompt_template", "llm_config"]},
            },
            "step": _closed(step, ["name"]) | {"if": _SINGLE, "then": {"required": ["agent_type"]}},
            "retry_policy": _closed(_properties(RetryPolicy, RETRY_KEYS, {}), []),
        },
    }


def _closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _properties(kind: type, keys: list[str], bounds: dict[str, Bounds]) -> dict[str, Any]:
    said = {
        name: re.sub(r"\s+", " ", text).replace("``", "`")
        for name, text in _ATTRIBUTE.findall(inspect.getdoc(kind) or "")
    }
    hints = get_type_hints(kind)
    return {
        key: {**_type(key, bounds.get(key), hints[key])}
        | ({"description": said[key]} if key in said else {})
        for key in keys
    }


def _type(key: str, bounds: Bounds | None, hint: Any) -> dict[str, Any]:
    if bounds is not None:
        return _number(bounds)
    # If the type of a field is unknown, any value fits here; the loader checks the value later.
    return _TYPES.get(key, {"type": "number"} if hint in (int, float) else {})


def _number(bounds: Bounds) -> dict[str, Any]:
    number: dict[str, Any] = {"type": "integer" if bounds.whole else "number"}
    low = "exclusiveMinimum" if bounds.positive else "minimum"
    return number | {low: bounds.low, "maximum": bounds.high}
