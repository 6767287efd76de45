"""The rules for one agent; these rules do not depend on the rest of the workflow.

This file is over 400 lines because it has one rule for each field of an agent.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from app.domain import attachments, server_tools
from app.domain.agent import FALLBACK_ON, Agent, merged_config
from app.domain.attachments import MAX_ENTRIES
from app.domain.bounds import MAX_DOLLARS, YEAR_S, Bounds, find_problem
from app.domain.for_each import INPUT, ITEM_NAMES, source_of
from app.domain.json_values import find_json_problem, find_text_problem
from app.domain.kinds import LLM, WORKFLOW
from app.domain.on_cut import OnCut
from app.domain.paths import KEY, WHOLE, parse_output_path, parse_path
from app.domain.prompt import malformed_placeholders
from app.domain.retry import RetryPolicy
from app.domain.schemas import schema_of
from app.domain.suggestions import did_you_mean, listed, shortened
from app.errors import AuthenticationFailed, BadRequest, BudgetExceeded, WorkflowError

MAX_NAME_CHARS = 200
#: Longest template of a prompt, and most braces in it. A brace may open a placeholder.
MAX_TEMPLATE_CHARS = 500_000
MAX_BRACES = 20_000
# Placeholders, dependencies and queues contain these names without any escaping.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
BOUNDS = {
    "priority": Bounds(low=1, high=10, whole=True),
    "max_retries": Bounds(high=1000, whole=True),
    "max_turns": Bounds(low=1, high=1000, whole=True),
    "timeout": Bounds(high=YEAR_S, positive=True),
    "cost_limit": Bounds(high=MAX_DOLLARS),
}
LLM_BOUNDS = {
    "max_tokens": Bounds(low=1, high=10_000_000, whole=True, optional=True),
    "temperature": Bounds(high=2, optional=True),
}

CACHE_TTL = Bounds(low=1, high=30 * 86_400, whole=True, optional=True)
#: Errors that may lead to a fallback. Each of these errors can end a call before the agent's
#: timeout.
FALLBACK_CLASSES = tuple(
    sorted(
        {*FALLBACK_ON}
        | {error.__name__ for error in (AuthenticationFailed, BadRequest, BudgetExceeded)}
    )
)

# A problem of a field: the name or path of the field, and the rest of the message.
Problem = tuple[str, str]


def validate_agent(agent: Agent, index: int) -> None:
    """Check one agent.

    Args:
        agent: The agent.
        index: Index of the agent in the workflow, from 0.

    Raises:
        WorkflowError: If the agent breaks a rule. The message names the agent. The error has the
            path of the field.
    """
    for find in _CHECKS:
        if found := find(agent):
            field, problem = found
            place = f"agents[{index}]" if find is _in_name else f"agent {agent.name!r}"
            raise WorkflowError(f"{place}: {field} {problem}", field=f"agents[{index}].{field}")


def _in_name(agent: Agent) -> Problem | None:
    name: object = agent.name
    if isinstance(name, str) and NAME.fullmatch(name) and len(name) <= MAX_NAME_CHARS:
        return None
    return "name", (
        f"is {shortened(name)}: give a name that begins with a letter or _, goes on with letters, "
        f"digits, _ and -, and has at most {MAX_NAME_CHARS} characters"
    )


def _in_kind(agent: Agent) -> Problem | None:
    kind: object = agent.kind
    if not isinstance(kind, str) or not NAME.fullmatch(kind) or len(kind) > MAX_NAME_CHARS:
        return "kind", f'is {shortened(kind)}: give the name of a kind, such as "function"'
    config: object = agent.config
    if not isinstance(config, Mapping):
        return "config", f"is {shortened(config)}: give a dict of settings"
    if kind == LLM:
        problem = 'is for other kinds: use llm_config, or give another kind, such as "function"'
        return ("config", problem) if config else None
    for field in _ONLY_OF_LLM + (("output_schema",) if kind == WORKFLOW else ()):
        if getattr(agent, field):
            return field, f"does not apply to an agent of the kind {kind!r}: remove it"
    if kind != WORKFLOW:
        return find_json_problem(dict(config), "config")
    return _in_sub_workflow(config, agent.sub_workflow, agent.sub_workflow_name)


def find_group_problem(agent: Agent) -> Problem | None:
    """Find a problem of a group of agents; the agents themselves are checked as a workflow."""
    group: object = agent.agents
    if isinstance(group, str | Mapping) or not isinstance(group, Sequence) or not group:
        return "agents", f"is {shortened(group)}: give a list of agents"
    for field in (*_ONLY_OF_LLM, "output_schema", "config"):
        if getattr(agent, field):
            return field, "does not apply to a group of agents: give it to one of the agents in it"
    if agent.kind != LLM:
        return "kind", f"is {agent.kind!r}, but a group of agents has no kind: remove it"
    return None


def _in_texts(agent: Agent) -> Problem | None:
    if isinstance(agent.condition, str) and (problem := find_text_problem(agent.condition)):
        return "condition", problem
    for field in ("module", "description", "prompt_template"):
        value = getattr(agent, field)
        if problem := find_text_problem(value):
            return field, problem
        optional = field == "description" or (field == "prompt_template" and agent.kind != LLM)
        if not value.strip() and not optional:
            return field, "is empty: give a string"
    if len(agent.module) > MAX_NAME_CHARS:
        return "module", f"is {shortened(agent.module)}: give at most {MAX_NAME_CHARS} characters"
    problem = _in_template(agent.prompt_template)
    return ("prompt_template", problem) if problem else None


def _in_template(template: str) -> str | None:
    if len(template) > MAX_TEMPLATE_CHARS:
        return (
            f"has {len(template):,} characters, the limit is {MAX_TEMPLATE_CHARS:,}: "
            "put long texts into the input"
        )
    braces = template.count("{") + template.count("}")
    if braces > MAX_BRACES:
        return f"has {braces:,} braces, the limit is {MAX_BRACES:,}: put long JSON into the input"
    return None


def _in_sub_workflow(config: Mapping[str, object], given: object, name: str) -> Problem | None:
    if unknown := [key for key in config if key != "workflow"]:
        return f"config.{unknown[0]}", "is not known: a sub-workflow has the key 'workflow' only"
    if isinstance(given, Mapping):
        if found := find_json_problem(dict(given), "config.workflow"):
            return found
    elif isinstance(given, str):
        if problem := find_text_problem(given):
            return "config.workflow", problem
    elif not hasattr(given, "definition"):
        name = ""
    if name:
        return None
    return "config.workflow", (
        f"is {shortened(given)}: give a Workflow, its definition, or the name of a stored workflow"
    )


def _in_for_each(agent: Agent) -> Problem | None:
    given: object = agent.for_each
    if given is None:
        return None
    if not isinstance(given, Mapping):
        return _in_list(given, "for_each")
    if not given:
        return "for_each", "is empty: give a name and the path of a list, such as mail: input.mails"
    for name, path in given.items():
        if not isinstance(name, str) or not KEY.fullmatch(name) or name in (*ITEM_NAMES, INPUT):
            return "for_each", (
                f"has the name {shortened(name)}: give the element of each list a name for the "
                f"prompt, other than {', '.join((*ITEM_NAMES, INPUT))}, such as mail: input.mails"
            )
        if found := _in_list(path, f"for_each.{name}"):
            return found
    return None


def _in_list(path: object, field: str) -> Problem | None:
    if not isinstance(path, str):
        return field, f"is {shortened(path)}: give the path of a list, such as 'documents'"
    try:
        source = source_of(path, ())
    except WorkflowError as error:
        return field, str(error)
    if source.root in ITEM_NAMES:
        return field, (
            f"is {path!r}: {source.root!r} is reserved for its elements: rename the agent or the "
            "key of the input"
        )
    return None


def _in_prompt(agent: Agent) -> Problem | None:
    if malformed := malformed_placeholders(agent.prompt_template):
        text = shortened(malformed[0])
        return "prompt_template", (
            f"contains {text}, which is not a placeholder: write {{name}}, {{name.field}} or "
            "{name.items[0]}, or double its braces to have it as literal text"
        )
    return None


def _in_attachments(agent: Agent) -> Problem | None:
    entries: object = agent.attachments
    if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence):
        example = f", such as [{shortened(entries)}]" if isinstance(entries, str) else ""
        return "attachments", f"is {shortened(entries)}: give a list{example}"
    if len(entries) > MAX_ENTRIES:
        return "attachments", f"has {len(entries):,} entries, the limit is {MAX_ENTRIES}"
    for place, entry in enumerate(entries):
        if problem := attachments.find_problem(entry):
            return f"attachments[{place}]", problem
        if found := find_json_problem(entry, f"attachments[{place}]"):
            return found
    return None


def _in_values(agent: Agent) -> Problem | None:
    if found := find_problem(vars(agent), BOUNDS):
        return found
    if not isinstance(agent.accept_missing_inputs, bool):
        value = shortened(agent.accept_missing_inputs)
        return "accept_missing_inputs", f"is {value}: give True or False"
    if agent.retry_policy is not None and not isinstance(agent.retry_policy, RetryPolicy):
        return "retry_policy", f"is {shortened(agent.retry_policy)}: give a RetryPolicy(...)"
    return None


def _in_llm_config(agent: Agent) -> Problem | None:
    if agent.kind != LLM:
        return None
    config: object = agent.llm_config
    if not isinstance(config, Mapping):
        return "llm_config", f'is {shortened(config)}: give a dict such as {{"model": "gpt-4o"}}'
    if found := find_json_problem(dict(config), "llm_config"):
        return found
    if found := find_problem({**dict.fromkeys(LLM_BOUNDS), **config}, LLM_BOUNDS):
        key, problem = found
        return f"llm_config.{key}", problem
    for key in ("model", "provider", "system"):
        if config.get(key) is not None and not isinstance(config[key], str):
            return f"llm_config.{key}", f"is {shortened(config[key])}: give a string"
    return _in_model(agent)


def _in_model(agent: Agent) -> Problem | None:
    # ``app.domain.providers`` checks the providers, because the configuration defines the
    # providers.
    if not agent.llm_config.get("model"):
        return "llm_config", 'names no model: add one, such as "model": "gpt-4o-mini"'
    if len(agent.model) > MAX_NAME_CHARS:
        return "llm_config.model", f"is over {MAX_NAME_CHARS} characters long: shorten it"
    return None


def _in_mappings(agent: Agent) -> Problem | None:
    for field in ("input_mapping", "output_mapping"):
        mapping: object = getattr(agent, field)
        if not isinstance(mapping, Mapping):
            return field, f"is {shortened(mapping)}: give a mapping of names to paths"
        for key, value in mapping.items():
            incoming = field == "input_mapping"
            name, path = (key, value) if incoming else (value, key)
            if not isinstance(name, str) or not KEY.fullmatch(name) or len(name) > MAX_NAME_CHARS:
                word = "parameter" if incoming else "key of the context"
                return field, (
                    f"has the {word} {shortened(name)}: give a name that begins with a letter or "
                    "_, and goes on with letters, digits, _ and -"
                )
            if incoming and parse_path(path) is None:
                return f"{field}.{key}", (
                    f"is {shortened(path)}: give a path, such as name, name.field or name.items[0]"
                )
            if not incoming and parse_output_path(path) is None:
                return field, (
                    f"has the path {shortened(path)}: give a part of the output, such as field or "
                    f"field.items[0], or {WHOLE} for the whole output"
                )
    keys = list(agent.output_mapping.values())
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        return "output_mapping", f"has two paths for the key {twice!r}: remove one path"
    return _in_schema(agent)


def _in_schema(agent: Agent) -> Problem | None:
    if agent.output_schema is None:
        return None
    return schema_problem("output_schema", agent.output_schema)


def schema_problem(field: str, given: object) -> Problem | None:
    """Return the problem of a field whose value is not a JSON object or a pydantic model."""
    schema = schema_of(given)
    if not isinstance(schema, dict) or not schema:
        return field, f"is {shortened(given)}: give a JSON Schema or a pydantic model"
    return find_json_problem(schema, field)


def _in_lists(agent: Agent) -> Problem | None:
    for field in ("tools", "dependencies"):
        value = getattr(agent, field)
        if isinstance(value, str) or not isinstance(value, Sequence):
            example = f", such as [{shortened(value)}]" if isinstance(value, str) else ""
            return field, f"is {shortened(value)}: give a list{example}"
    for place, name in enumerate(agent.dependencies):
        if not isinstance(name, str):
            return f"dependencies[{place}]", f"is {shortened(name)}: give the name of an agent"
    return None


def _in_tools(agent: Agent) -> Problem | None:
    for place, tool in enumerate(agent.tools):
        if isinstance(tool, Mapping):
            if found := find_json_problem(dict(tool), f"tools[{place}]"):
                return found
            if found := _in_server_tool(agent, place, tool):
                return found
        elif not (isinstance(tool, str) and tool.strip()) and not hasattr(tool, "reference"):
            return f"tools[{place}]", (
                f"is {shortened(tool)}: decorate the function with @tool, "
                "or give the name of a tool that the workers load"
            )
        elif isinstance(tool, str) and (problem := find_text_problem(tool)):
            return f"tools[{place}]", problem
    return None


def _in_server_tool(agent: Agent, place: int, tool: Mapping[str, object]) -> Problem | None:
    if server_tools.SERVER not in tool:
        return None
    if found := server_tools.find_problem(tool):
        key, problem = found
        return f"tools[{place}]{key and f'.{key}'}", problem
    name = tool[server_tools.SERVER]
    others = filter(server_tools.is_server_tool, agent.tools[:place])
    if any(other[server_tools.SERVER] == name for other in others):
        return f"tools[{place}]", f"is {name!r} once more: give each tool of the provider once"
    return None


def _in_fallbacks(agent: Agent) -> Problem | None:
    for field in ("fallbacks", "fallback_on"):
        value = getattr(agent, field)
        if isinstance(value, str) or not isinstance(value, Sequence):
            return field, f"is {shortened(value)}: give a list"
    for place, fallback in enumerate(agent.fallbacks):
        if not isinstance(fallback, Mapping) or not {"model", "provider"} & fallback.keys():
            return f"fallbacks[{place}]", (
                f"is {shortened(fallback)}: give the keys of llm_config that it changes, "
                'which must include "model" or "provider"'
            )
        # A call of the fallback uses the merged configuration. So a problem of this configuration
        # is reported as a problem of the fallback.
        merged = replace(agent, llm_config=merged_config(agent.llm_config, fallback))
        if found := _in_llm_config(merged):
            field, problem = found
            return field.replace("llm_config", f"fallbacks[{place}]", 1), problem
    for place, name in enumerate(agent.fallback_on):
        if name not in FALLBACK_CLASSES:
            return f"fallback_on[{place}]", (
                f"is {shortened(name)}: give one of {listed(FALLBACK_CLASSES)}"
                f"{did_you_mean(str(name), FALLBACK_CLASSES)}"
            )
    return None


def _in_cache(agent: Agent) -> Problem | None:
    cache: object = agent.cache
    if isinstance(cache, bool):
        return None
    if not isinstance(cache, Mapping) or cache.keys() - {"ttl"}:
        return "cache", f'is {shortened(cache)}: give True, False or {{"ttl": seconds}}'
    found = find_problem({"ttl": None, **cache}, {"ttl": CACHE_TTL})
    return None if found is None else (f"cache.{found[0]}", found[1])


def _in_on_cut(agent: Agent) -> Problem | None:
    if agent.on_cut is None:
        return None
    known = tuple(each.value for each in OnCut)
    if agent.on_cut not in known:
        return "on_cut", (
            f"is {shortened(agent.on_cut)}: give one of {listed(known)}"
            f"{did_you_mean(str(agent.on_cut), known)}"
        )
    if agent.on_cut == OnCut.CONTINUE and agent.output_schema is not None:
        return "on_cut", (
            "is 'continue', but under an output_schema a model begins a new document instead of "
            "going on: raise max_tokens, or give 'fail' or 'accept'"
        )
    return None


#: Fields that apply only to agents of the kind ``llm``.
_ONLY_OF_LLM = (
    *("prompt_template", "llm_config", "attachments", "tools", "fallbacks", "cache", "on_cut"),
)
_CHECKS = (
    *(_in_name, _in_kind, _in_texts, _in_prompt, _in_attachments, _in_values, _in_llm_config),
    *(_in_lists, _in_tools, _in_fallbacks, _in_cache, _in_mappings, _in_for_each, _in_on_cut),
)
