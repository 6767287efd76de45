"""The stored form of an agent's tools."""

from collections.abc import Mapping
from typing import Any

from app.errors import WorkflowError


def tool_reference(tool: Any) -> dict[str, Any] | str:
    """Return the stored form of a tool: its name, or a dict with name, schema and origin."""
    if isinstance(tool, str):
        return tool
    if isinstance(tool, Mapping):
        return dict(tool)
    if hasattr(tool, "reference"):
        reference: dict[str, Any] = tool.reference()
        return reference
    raise WorkflowError(
        f"{tool!r} is not a tool: decorate the function with @tool, "
        "or give the name of a tool that the workers load"
    )
