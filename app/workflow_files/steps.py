"""The ``steps`` form of workflow files: a step is an agent with other keys."""

from collections.abc import Mapping
from typing import Any

from app.domain.kinds import LLM

#: Keys of a step -> fields of an agent.
FIELD_OF = {"agent_type": "kind", "depends_on": "dependencies"}
#: Fields of an agent -> keys of a step. Each field and each key begins with a dot, because a key
#: replaces its field in a path.
_WORD_OF = {f".{field}": f".{word}" for word, field in FIELD_OF.items()}


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


def step_place(field: str) -> str:
    """Translate the path of an agent's field, such as ``agents[1].kind``, to the step's path."""
    path = field.replace("agents[", "steps[", 1) if field.startswith("agents") else field
    for name, word in _WORD_OF.items():
        path = path.replace(name, word, 1)
    return "steps" if path == "agents" else path
