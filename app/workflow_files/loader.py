"""Loads a workflow from a YAML, JSON or Python file; an error names the file, line and field."""

import importlib
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from app.concurrency.user_code import UserCodeFailed, call
from app.configuration.settings import load_settings
from app.documents.files import Document, Place, place_of, read_document
from app.domain.agent import Agent
from app.domain.json_values import find_json_problem, plain_json
from app.domain.kinds import LLM, WORKFLOW
from app.domain.mistakes import Mistake, refuse
from app.domain.path_validation import find_missing_parts
from app.domain.providers import routed
from app.domain.retry import RetryPolicy
from app.domain.suggestions import did_you_mean, listed, shortened
from app.domain.workflow import Workflow
from app.errors import (
    ConfigurationError,
    InvalidJson,
    SeveralMistakes,
    UnknownFunction,
    UnknownModel,
    WorkflowError,
    WorkflowFileError,
)
from app.kinds.registry import KindRegistry
from app.registration.workflows import check_workflow, mistakes_everywhere
from app.workflow_files.python_lines import line_of
from app.workflow_files.steps import agent_of_step, step_keys, step_place

FILLED_BY_ENGINE = ("status", "result", "total_cost")
AGENT_KEYS = [field.name for field in fields(Agent) if field.name not in FILLED_BY_ENGINE]
WORKFLOW_KEYS = [
    field.name for field in fields(Workflow) if field.init and field.name not in FILLED_BY_ENGINE
]
STEP_KEYS = step_keys(AGENT_KEYS)
#: Key whose value tells editors the schema of a JSON file.
EDITORS_KEY = "$schema"
RETRY_KEYS = [field.name for field in fields(RetryPolicy)]


@dataclass(frozen=True, kw_only=True)
class WorkflowFile:
    """The content of a workflow file.

    Attributes:
        workflow: The workflow.
        input: The file's own input for a run: JSON values by key.
        locate: Function that returns a mistake as an error with the file and the line.
    """

    workflow: Workflow
    input: Mapping[str, Any]
    locate: Callable[[Mistake], WorkflowFileError]

    @contextmanager
    def located(self, given: Collection[str] = ()) -> Iterator[None]:
        """Raise the mistakes of checks in the ``with`` block with the file and the line.

        Args:
            given: Keys of the input that do not come from the file. Mistakes in the values of these
                keys are raised unchanged.
        """
        try:
            yield
        except (WorkflowError, UnknownModel) as error:
            mistakes = error.mistakes if isinstance(error, WorkflowError) else (error,)
            own = {f"input.{key}" for key in self.input if key not in given}
            found = [each if _is_elsewhere(each, own) else self.locate(each) for each in mistakes]
            with_places = found[0] if len(found) == 1 else SeveralMistakes(found)
            raise with_places from error


def _is_elsewhere(mistake: Mistake, own: Collection[str]) -> bool:
    """Whether a mistake has its place already, or concerns an input that is not in the file."""
    if isinstance(mistake, WorkflowFileError):
        return True
    key = re.match(r"input\.[^.\[]*", mistake.field or "")
    return key is not None and key.group() not in own


def load(path: Path | str, *, checked: bool = True) -> WorkflowFile:
    """Load a workflow from any file.

    Args:
        path: A ``.yaml``, ``.yml``, ``.json`` or ``.py`` file; ``FILE.py:name`` picks one of
            several workflows of a Python file.
        checked: Whether to make the checks of ``load_workflow_file`` that need the whole workflow.

    Raises:
        WorkflowFileError: If the file cannot be read, or does not contain an acceptable workflow.
        SeveralMistakes: If there are several mistakes; each of them is a ``WorkflowFileError``.
    """
    file, colon, attribute = str(path).rpartition(":")
    if colon and file.endswith(".py"):
        return load_python_workflow(file, attribute)
    suffix = Path(path).suffix
    if suffix == ".py":
        return load_python_workflow(path)
    if suffix in (".yaml", ".yml", ".json"):
        return load_workflow_file(path, checked=checked)
    raise WorkflowFileError(
        f"has the suffix {suffix!r}: give a .yaml, .yml, .json or .py file", file=str(path)
    )


def load_workflow_file(path: Path | str, *, checked: bool = True) -> WorkflowFile:
    """Load a workflow from YAML or JSON.

    The keys are ``input`` and the fields of ``Workflow`` and ``Agent``. A file may have ``steps``
    instead of ``agents``.

    Args:
        path: Path of the file.
        checked: Whether to check providers, kinds, conditions, schemas, and paths into outputs. A
            caller that checks the workflow together with its input and its calls does not need
            these checks.

    Raises:
        WorkflowFileError: If the file cannot be read, or does not contain an acceptable workflow
            for the configured providers.
        SeveralMistakes: If there are several mistakes; each of them is a ``WorkflowFileError``.
        ConfigurationError: If the configuration is wrong.
    """
    document = read_document(path)
    value = document.value
    workflow = _workflow(document, (), value, ("input", EDITORS_KEY))
    run_input = value.get("input") or {}
    if not isinstance(run_input, dict):
        raise document.error("give a mapping with one key per placeholder", "input")
    if found := find_json_problem(run_input, "input"):
        raise document.error(" ".join(found), found[0])
    file = WorkflowFile(workflow=workflow, input=run_input, locate=partial(_located, document))
    if checked:
        with file.located():
            _check(workflow)
    return file


def _check(workflow: Workflow) -> None:
    route = partial(routed, providers=load_settings().all_providers())
    checks = (route, KindRegistry().validate, check_workflow)
    refuse([*mistakes_everywhere(workflow, checks), *find_missing_parts(workflow)])


def _located(document: Document, mistake: Mistake) -> WorkflowFileError:
    place = step_place(document.value, place_of(mistake.field or ""))
    return document.error(str(mistake), place)


def load_python_workflow(path: Path | str, attribute: str | None = None) -> WorkflowFile:
    """Load a workflow from a Python file, which is imported as a module.

    Args:
        path: Path of the file. A variable ``INPUT`` in the file is the input for a run.
        attribute: Name of the Workflow in the file; None means ``workflow``, or else the only
            Workflow in the file.

    Raises:
        WorkflowFileError: If the file cannot be imported, if it has no workflow, or if it has
            several workflows and the choice is not clear.
    """
    module = _import(Path(path), str(path))
    try:
        found, run_input, problem, is_program = call(partial(_content, module))
    except UserCodeFailed as failed:
        raise WorkflowFileError(f"cannot be read: {failed}", file=str(path)) from failed.error
    if problem:
        raise WorkflowFileError(problem, file=str(path))
    if not found and is_program:
        raise WorkflowFileError(
            "defines no Workflow: it is a program, which is started with "
            f"`python -m {module.__name__}`",
            file=str(path),
        )
    workflow = _choose(found, attribute, str(path))
    locate = partial(_located_in_python, Path(path), workflow)
    return WorkflowFile(workflow=workflow, input=run_input, locate=locate)


def _located_in_python(path: Path, workflow: Workflow, mistake: Mistake) -> WorkflowFileError:
    line = line_of(path, workflow, place_of(mistake.field or ""))
    return WorkflowFileError(str(mistake), file=str(path), line=line, field=mistake.field)


def _check_keys(
    document: Document, place: Place, value: Any, known: Collection[str], required: Collection[str]
) -> None:
    if not isinstance(value, dict):
        raise document.error(
            f"is {shortened(value)}: give a mapping with {listed(required)}", place
        )
    unknown = []
    for key in value:
        if key not in known:
            hint = did_you_mean(key, known) or f"; known: {listed(known)}"
            unknown.append(document.error(f"there is no such key{hint}", (*place, key)))
    refuse(unknown)
    for key in required:
        if key not in value:
            raise document.error(f"the key {key!r} is missing: add it", place)


def _workflow(
    document: Document, place: Place, value: Any, besides: Collection[str] = ()
) -> Workflow:
    """Build the workflow at a place of a document; keys in ``besides`` are skipped."""
    is_steps = isinstance(value, dict) and "steps" in value
    word, make = ("steps", _step) if is_steps else ("agents", _agent)
    known = [*(key for key in WORKFLOW_KEYS if key != "agents"), word, *besides]
    _check_keys(document, place, value, known, ("name", word))
    values = {key: each for key, each in value.items() if key not in (*besides, word)}
    if not isinstance(value[word], list):
        raise document.error(f"give a list of {word}", (*place, word))
    agents: list[Agent] = []
    mistakes: list[Mistake] = []
    for index, each in enumerate(value[word]):
        try:
            agents.append(make(document, (*place, word, index), each))
        except WorkflowError as error:
            mistakes += error.mistakes
    refuse(mistakes)
    try:
        return Workflow(**{**values, "agents": agents})
    except WorkflowError as error:
        places = [(each, step_place(value, place_of(each.field or ""))) for each in error.mistakes]
        refuse(document.error(str(each), (*place, *inner)) for each, inner in places)
        raise
    except InvalidJson as error:
        raise document.error(str(error), (*place, "input_schema")) from error


def _step(document: Document, place: Place, value: Any) -> Agent:
    is_group = isinstance(value, dict) and "agents" in value
    required = ("name",) if is_group else ("name", "agent_type")
    _check_keys(document, place, value, STEP_KEYS, required)
    return _agent(document, place, agent_of_step(value), kind_key="agent_type")


def _agent(document: Document, place: Place, value: Any, kind_key: str = "kind") -> Agent:
    kind = value.get("kind", LLM) if isinstance(value, dict) else LLM
    is_group = isinstance(value, dict) and "agents" in value
    required = ("name", "prompt_template") if kind == LLM and not is_group else ("name",)
    _check_keys(document, place, value, AGENT_KEYS, required)
    if is_group:
        value = value | {"agents": _group(document, (*place, "agents"), value["agents"])}
    if isinstance(kind, str) and kind not in (LLM, WORKFLOW):
        # The kind is checked first, because the other fields can be checked only for a known kind.
        try:
            KindRegistry().get(kind)
        except UnknownFunction as error:
            raise document.error(f"agent {value['name']!r}: {error}", (*place, kind_key)) from error
    config = value.get("config")
    if kind == WORKFLOW and isinstance(config, dict) and isinstance(config.get("workflow"), dict):
        inner = _workflow(document, (*place, "config", "workflow"), config["workflow"])
        value = value | {"config": {**config, "workflow": inner}}
    policy = value.get("retry_policy")
    if policy is not None:
        _check_keys(document, (*place, "retry_policy"), policy, RETRY_KEYS, ())
    try:
        return Agent.from_definition(value)
    except ConfigurationError as error:
        raise document.error(str(error), (*place, "retry_policy")) from error
    except InvalidJson as error:
        raise document.error(str(error), (*place, "output_schema")) from error


def _group(document: Document, place: Place, value: Any) -> list[Agent]:
    if not isinstance(value, list):
        raise document.error("give a list of agents", place)
    return [_agent(document, (*place, index), each) for index, each in enumerate(value)]


def _choose(found: Mapping[str, Workflow], attribute: str | None, file: str) -> Workflow:
    if attribute is not None:
        if attribute in found:
            return found[attribute]
        raise WorkflowFileError(
            f"defines no Workflow named {attribute!r}; it defines {listed(found)}"
            f"{did_you_mean(attribute, found)}",
            file=file,
        )
    if "workflow" in found or len({id(workflow) for workflow in found.values()}) == 1:
        return found.get("workflow") or next(iter(found.values()))
    if not found:
        raise WorkflowFileError("defines no Workflow: assign one to `workflow`", file=file)
    raise WorkflowFileError(
        f"defines several workflows, {listed(found)}: "
        f"name one, such as {file}:{next(iter(found))}, or call one of them `workflow`",
        file=file,
    )


def _content(module: ModuleType) -> tuple[dict[str, Workflow], Any, str | None, bool]:
    """Return the workflows of a module, its INPUT, the INPUT's problem, and whether it has a main.

    A module and its values may have methods that answer for them, such as ``__getattr__``.
    """
    found = {name: value for name, value in vars(module).items() if isinstance(value, Workflow)}
    run_input = getattr(module, "INPUT", {})
    problem = " ".join(find_json_problem(run_input, "INPUT") or ())
    if not problem and not isinstance(run_input, dict):
        problem = f"INPUT is {shortened(run_input)}: give a dict"
    is_program = callable(getattr(module, "main", None))
    return found, run_input if problem else plain_json(run_input), problem, is_program


def _import(path: Path, file: str) -> ModuleType:
    """Import a file under the module name that workers will use."""
    if not path.is_file():
        raise WorkflowFileError("cannot be read: there is no such file", file=file)
    if "." in path.stem:
        raise WorkflowFileError(
            "has a dot in its name: rename it, so that it can be imported", file=file
        )
    path = path.resolve()
    root, name = path.parent, path.stem
    while (root / "__init__.py").is_file():
        root, name = root.parent, f"{root.name}.{name}"
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        module, origin = call(partial(_module_and_origin, name))
    except UserCodeFailed as failed:
        raise _import_error(failed, path, file) from failed.error
    if Path(origin).resolve() != path:
        raise WorkflowFileError(
            f"cannot be imported as {name!r}, which is {origin or 'built in'}: rename the file",
            file=file,
        )
    return module


def _module_and_origin(name: str) -> tuple[ModuleType, str]:
    module = importlib.import_module(name)
    return module, str(module.__file__ or "")


def _import_error(failed: UserCodeFailed, path: Path, file: str) -> WorkflowFileError:
    error = failed.error
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__ if error is not None else None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    known = isinstance(error, WorkflowError)
    problem = failed.message if known else f"cannot be imported: {failed}"
    return WorkflowFileError(problem, file=file, line=line)
