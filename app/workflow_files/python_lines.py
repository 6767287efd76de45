"""Finds the line of an agent's field in a Python file, for messages about mistakes.

The file is read, not executed. An agent is found by its name, if the file writes the name and the
call as in ``Agent(name="reader", ...)``. A name that the program computes is not found.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.documents.files import Place
from app.domain.sub_workflow import embedded
from app.domain.workflow import Workflow


def line_of(path: Path, workflow: Workflow, place: Place) -> int | None:
    """Return the line of the field at a place of a workflow, or of the nearest outer value.

    Args:
        path: The Python file.
        workflow: The workflow that the file defines.
        place: Path of the field, such as ``("agents", 2, "llm_config", "max_token")``.

    Returns:
        The line, from 1; None if the file does not show the place.
    """
    try:
        calls = list(_calls(ast.parse(path.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return None
    if place[:1] == ("input",):
        return _line_of_input(path, place[1:])
    name, kind, fields = workflow.name, "Workflow", place
    while len(fields) > 1 and fields[0] == "agents" and isinstance(fields[1], int):
        agent = workflow.agents[fields[1]]
        name, kind, fields = agent.name, "Agent", fields[2:]
        inner = embedded(agent)
        if inner is not None and fields[:2] == ("config", "workflow"):
            workflow, name, kind, fields = inner, inner.name, "Workflow", fields[2:]
    found = [call for call in calls if _is_named(call, kind, name)]
    return _line(found[0], fields) if len(found) == 1 else None


def _line_of_input(path: Path, fields: Place) -> int | None:
    for node in ast.parse(path.read_bytes()).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "INPUT" for target in targets):
            assert isinstance(node, ast.Assign)
            return _line(node.value, fields)
    return None


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _is_named(call: ast.Call, kind: str, name: str) -> bool:
    called = call.func.attr if isinstance(call.func, ast.Attribute) else call.func
    called = called.id if isinstance(called, ast.Name) else called
    return called == kind and any(
        keyword.arg == "name"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value == name
        for keyword in call.keywords
    )


def _line(node: ast.expr, fields: Sequence[str | int]) -> int:
    """Return the line of a part of an expression, or of the nearest outer part in the file."""
    line = node.lineno
    for field in fields:
        inside = _part(node, field)
        if inside is None:
            return line
        line, node = inside
    return line


def _part(node: ast.expr, field: str | int) -> tuple[int, ast.expr] | None:
    if isinstance(node, ast.Call):
        keywords = [each for each in node.keywords if each.arg == field]
        return (keywords[0].lineno, keywords[0].value) if keywords else None
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == field:
                return key.lineno, value
    if isinstance(node, ast.List | ast.Tuple) and isinstance(field, int):
        return (node.elts[field].lineno, node.elts[field]) if field < len(node.elts) else None
    return None
