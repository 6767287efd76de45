"""The ``steps`` form of workflow files: a step is an agent with other keys."""

from collections.abc import Mapping
from typing import Any

from app.documents.files import Place
from app.domain.kinds import LLM

#: Keys of a step -> fields of an agent.
FIELD_OF = {"agent_type": "kind", "depends_on": "dependencies"}
#: Fields of an agent -> keys of a step.
_WORD_OF = {field: word for word, field in FIELD_OF.items()}


def step_keys(agent_keys: list[str]) -> list[str]:
    """Return the keys of a step: the fields of an agent, some fields under other names."""
    return [*FIELD_OF, *(key for key in agent_keys if key not in FIELD_OF.values())]


def agent_of_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a step to the keys of an agent.

    The ``config`` of a step of the type ``llm`` contains the ``prompt_template`` and the keys of
    ``llm_config``. The ``config`` of a step of any other type is the agent's ``config``.
    """
    agent = {FIELD_OF.get(key, key): value for key, value in step.items()}
    config = agent.get("config")
    if agent.get("kind") == LLM and isinstance(config, dict):
        del agent["config"]
        settings = dict(config)
        if "prompt_template" in settings:
            agent.setdefault("prompt_template", settings.pop("prompt_template"))
        if settings and isinstance(agent.get("llm_config", {}), dict):
            agent["llm_config"] = settings | agent.get("llm_config", {})
    return agent


def step_place(document: Any, place: Place) -> Place:
    """Translate a place in a workflow, such as ``agents[1].kind``, to the place in its file.

    Args:
        document: The content of the file, in which each workflow has agents or steps. A group of
            agents stands in the file without the ``config.workflow`` that it becomes.
        place: The place in the workflow.
    """
    found: list[str | int] = []
    value = document
    for key, before in zip(place, (None, *place), strict=False):
        if isinstance(value, Mapping) and "agents" in value and "name" in value:
            is_group = found[-2:-1] == ["agents"]
            if is_group and (key == "config" or (before, key) == ("config", "workflow")):
                continue
        words: tuple[str | int, ...] = (key,)
        if key == "agents" and isinstance(value, Mapping) and "steps" in value:
            words = ("steps",)
        elif found[-2:-1] == ["steps"]:
            words = _words_of(str(key), value)
        found += words
        for word in words:
            value = _inside(value, word)
    return tuple(found)


def _words_of(field: str, step: Any) -> tuple[str | int, ...]:
    """Return the keys under which a step has a field of its agent."""
    config = step.get("config") if isinstance(step, Mapping) else None
    if isinstance(config, Mapping) and field not in step:
        if field == "llm_config":
            return ("config",)
        if field in config and field == "prompt_template":
            return ("config", field)
    return (_WORD_OF.get(field, field),)


def _inside(value: Any, key: str | int) -> Any:
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        return None
