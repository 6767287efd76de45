"""The kinds of agents: the built-in kinds, and the kinds of installed packages."""

import inspect
from collections.abc import Callable, Collection, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from pydantic import SecretStr

from app.concurrency.user_code import UserCodeFailed, call, result_of, run_in_thread
from app.domain.agent import Agent
from app.domain.json_values import is_plain
from app.domain.kinds import FUNCTION, HTTP, LLM, WORKFLOW
from app.domain.mistakes import refuse_all
from app.domain.suggestions import did_you_mean, listed
from app.domain.workflow import Workflow
from app.errors import UnknownFunction, WorkflowError
from app.kinds.base import AgentContext, AgentKind, Config, private
from app.kinds.config import refuse
from app.kinds.data_analyzer import DataAnalyzer
from app.kinds.functions import FunctionKind
from app.kinds.http import HttpKind, no_secret
from app.kinds.text_processor import TextProcessor

GROUP = "agentchord.agents"


class KindRegistry:
    """Finds kinds by name.

    A kind of a package is loaded at the first use of the kind, and is kept from then on. A process
    does not see a package that is installed after the start of the process; start the process
    again.

    Args:
        imports: Modules whose functions agents may call.
        allow_addresses: Non-public hosts, addresses and networks that remote agents may reach.
        secret: Function that returns the secret in an environment variable, or None.

    Example:
        kinds = KindRegistry(imports=["my_functions"])
        kinds.validate(workflow)
        output = await kinds.run("function", context)
    """

    def __init__(
        self,
        *,
        imports: Sequence[str] = (),
        allow_addresses: Collection[str] = (),
        secret: Callable[[str], SecretStr | None] = no_secret,
    ) -> None:
        self._kinds: dict[str, AgentKind] = {
            FUNCTION: FunctionKind(imports),
            HTTP: HttpKind(allow=allow_addresses, secret=secret),
            "text_processor": TextProcessor(),
            "data_analyzer": DataAnalyzer(),
        }
        self._own = frozenset(self._kinds)
        # ``run`` is read once, because it may be a property of a user.
        self._runs: dict[str, Callable[[AgentContext], Any]] = {}

    def get(self, name: str) -> AgentKind:
        """Return the kind with this name; all calls return the same object.

        Raises:
            UnknownFunction: If no installed package has the kind, or the kind cannot be loaded.
        """
        if name not in self._kinds:
            self._kinds[name] = self._load(name)
        return self._kinds[name]

    def names(self) -> list[str]:
        """Return the names of all kinds that this process can load, except llm and workflow."""
        return list(dict.fromkeys([*self._kinds, *sorted(entry_points(group=GROUP).names)]))

    async def run(self, name: str, context: AgentContext) -> Any:
        """Do the work of an attempt; no code of a package runs on the loop of the caller.

        Args:
            name: Name of the kind.
            context: The attempt.

        Returns:
            The output, which may be any object.

        Raises:
            UserCodeFailed: If the kind of a package raised any exception.
            Exception: The error of a built-in kind, or UnknownFunction if there is no such kind.
        """
        if name not in self._runs:
            self._runs[name] = await result_of(lambda: self.get(name).run)
        run = self._runs[name]
        if name in self._own and inspect.iscoroutinefunction(run):
            return await run(context)
        if is_plain(context.inputs):
            own_context = private(context)
        else:
            own_context = await run_in_thread(partial(private, context))
        return await result_of(partial(run, own_context))

    def validate(self, workflow: Workflow) -> None:
        """Check the kinds and settings of all agents, before a workflow is stored.

        Raises:
            WorkflowError: If a kind or a setting is wrong; the message names the agent. The error
                has the path of the field.
        """
        refuse_all(
            partial(self._validate, agent, f"agents[{index}]")
            for index, agent in enumerate(workflow.agents)
            if agent.kind not in (LLM, WORKFLOW)
        )

    def _validate(self, agent: Agent, field: str) -> None:
        try:
            kind = self.get(agent.kind)
        except UnknownFunction as error:
            raise WorkflowError(f"agent {agent.name!r}: {error}", field=f"{field}.kind") from error
        try:
            call(partial(kind.validate, agent.config))
        except UserCodeFailed as failed:
            raise _refusal(agent, field, failed) from failed.error

    def _load(self, name: str) -> AgentKind:
        offered = entry_points(group=GROUP)
        if name not in offered.names:
            known = [LLM, WORKFLOW, *self._kinds, *sorted(offered.names)]
            raise UnknownFunction(
                f"there is no kind {name!r} of agents here (known: {listed(dict.fromkeys(known))})"
                f"{did_you_mean(name, known)}"
            )
        try:
            return call(lambda: _as_kind(name, offered[name].load()))
        except UserCodeFailed as error:
            raise UnknownFunction(f"kind {name!r} cannot be loaded: {error}") from error.error


class _Callable:
    """A kind that is a plain function of the context and takes no settings."""

    def __init__(self, run: Callable[[AgentContext], Any]) -> None:
        self.run = run

    def validate(self, config: Config) -> None:
        for key in config:
            refuse(key, "is not a setting of this kind, because this kind has no settings")


def _refusal(agent: Agent, field: str, failed: UserCodeFailed) -> WorkflowError:
    """Return the refusal of an agent whose settings its kind does not accept."""
    match failed.error:
        case WorkflowError(field=path):
            where = f"{field}.{path or 'config'}"
            return WorkflowError(f"agent {agent.name!r}: {failed.message}", field=where)
        case ValueError():
            problem = failed.message
        case _:
            problem = f"the kind {agent.kind!r} failed to check it: {failed}"
    return WorkflowError(f"agent {agent.name!r}: config: {problem}", field=f"{field}.config")


def _as_kind(name: str, found: Any) -> AgentKind:
    if isinstance(found, type):
        found = found()
    if callable(getattr(found, "run", None)) and callable(getattr(found, "validate", None)):
        kind: AgentKind = found
        return kind
    if callable(found):
        return _Callable(found)
    raise TypeError(
        f"{name!r} is a {type(found).__name__}: give a class with validate and run, or a function"
    )
