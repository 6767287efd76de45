"""The rings of a call: their order, and that they talk through requests and outcomes alone."""

import ast
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from app import Agent, LLMResponse
from tests.support.jobs import ID, job_of
from workers.calls.base import INSIDE_OUT, CallOutcome, CallRequest, CallRing, surround

FOLDER = Path(__file__).parents[4] / "workers" / "calls"
MODULES = sorted(FOLDER.glob("*.py"))
PROVIDER_NEEDS = {
    "workers.history",
    "workers.texts",
    "workers.calls.base",
    "workers.calls.money",
    "workers.calls.records",
}
TARGETED = ast.AugAssign | ast.AnnAssign | ast.For | ast.AsyncFor | ast.NamedExpr
#: What changes a collection; a ring may do so to its own only.
CHANGES = {"add", "append", "clear", "discard", "extend", "insert", "pop", "remove", "update"}

pytestmark = pytest.mark.anyio


def targets(tree: ast.AST) -> Iterator[ast.expr]:
    """All that is assigned to, deleted, or changed by a method of a collection."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            yield from node.targets
        elif isinstance(node, TARGETED):
            yield node.target
        elif isinstance(node, ast.Delete):
            yield from node.targets
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            yield node.optional_vars
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
                yield node.func.value
            elif isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
                yield ast.Attribute(value=node.args[0], attr="*", ctx=ast.Store())


def root_of(target: ast.expr) -> str | None:
    """The name that an attribute belongs to in the end; None for a plain name."""
    if isinstance(target, ast.Tuple | ast.List):
        return next(filter(None, map(root_of, target.elts)), None)
    inside = False
    while isinstance(target, ast.Attribute | ast.Subscript | ast.Starred):
        inside = inside or isinstance(target, ast.Attribute)
        target = target.value
    return target.id if inside and isinstance(target, ast.Name) else None


def foreign_assignments(source: str) -> list[str]:
    """Assignments to fields of anything but the object itself."""
    return [
        ast.unparse(target)
        for target in targets(ast.parse(source))
        if root_of(target) not in (None, "self")
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_ring_assigns_to_a_field_of_the_job_or_of_another_ring(path: Path) -> None:
    assert foreign_assignments(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "statement",
    [
        "request.job.option = 1",
        "job.calls += calls",
        "job.prompt: str = 'x'",
        "request.job.lease.phase, calls = phase, []",
        "del job.ticket",
        "request.job.calls.append(call)",
        "outcome.response.metadata['a'] = 1",
        "setattr(job, 'a', 1)",
        "for job.turn in turns: pass",
        "with waiting() as job.wait: pass",
    ],
)
def test_an_assignment_to_something_else_is_noticed(statement: str) -> None:
    assert foreign_assignments(statement) != []
    assert foreign_assignments(f"self.a = b\nfor c in d: pass\n{statement}") != []


def test_the_innermost_ring_needs_no_other_ring() -> None:
    tree = ast.parse((FOLDER / "provider.py").read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {
        a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    }

    assert {name for name in modules if name and name.startswith("workers")} <= PROVIDER_NEEDS


class Ring:
    """Adds its name to the answer of the ring inside."""

    def __init__(self, inner: CallRing, name: str) -> None:
        self._inner, self._name = inner, name

    async def call(self, request: CallRequest) -> CallOutcome:
        outcome = await self._inner.call(request)
        content = f"{self._name}({outcome.response.content})"
        response = LLMResponse(content=content, model="m", input_tokens=1, output_tokens=1)
        return CallOutcome(response=response, call_id=outcome.call_id)


class Innermost:
    """Answers."""

    async def call(self, request: CallRequest) -> CallOutcome:
        response = LLMResponse(content="provider", model="m", input_tokens=1, output_tokens=1)
        return CallOutcome(response=response, call_id=ID)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (INSIDE_OUT, "fallback(cache(circuit(provider)))"),
        (("fallback", "circuit"), "fallback(circuit(provider))"),
        ((), "provider"),
    ],
)
async def test_the_list_gives_the_order(names: tuple[str, ...], expected: str) -> None:
    agent = Agent(name="a", prompt_template="go", llm_config={"model": "gpt-4o"})
    request = CallRequest(job=job_of(agent), agent=agent, messages=[])
    rings = {name: cast("type[Ring]", partial(Ring, name=name)) for name in reversed(names)}

    outcome = await surround(Innermost(), rings).call(request)

    assert outcome.response.content == expected


def test_a_ring_without_a_place_in_the_order_is_refused() -> None:
    with pytest.raises(AssertionError):
        surround(Innermost(), {"unknown": partial(Ring, name="unknown")})
