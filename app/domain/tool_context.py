"""The context of one tool call: the run, the agent, and a key for services that must act once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from uuid import UUID, uuid5


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """The run, the agent and the call for which a tool works.

    A tool asks for the context with a parameter of this type. The parameter may have any name. The
    model does not see the parameter and cannot give it. Functions of function agents can have such
    a parameter, too.

    The ``idempotency_key`` is for services that act once for each key, such as an API for payments.
    The key stays the same:

    - for each try of ``@tool(retries=...)``;
    - for each attempt of the agent that repeats the call: after the death of the worker during the
      tool, after a failed attempt, after a pause, and after a restart of the workers;
    - if the model asks again for the same tool with the same arguments, because the first call
      failed or because its outcome is unknown;
    - after ``agentchord retry``, if the model asks for the same tool with the same arguments.

    The key is different for another agent, element of a list or run, for another tool, for other
    arguments, and for a call that the model repeats after the same call has succeeded in the same
    conversation. ``agentchord rerun`` makes another run, so its keys are different. A key that must
    also hold for several runs consists of your own data, such as the number of an invoice.

    Attributes:
        run_id: Id of the run. In a sub-workflow, this is the id of the inner run.
        workflow: Name of the workflow.
        agent: Name of the agent.
        attempt: Number of the agent's attempt, from 1.
        idempotency_key: A UUID as text (36 characters).
        tenant: Tenant that the run belongs to, or None.
        index: Index of the list's element, from 0; None if the agent has no ``for_each``.
        element: The element by its names in prompts, such as ``item``; empty without ``for_each``.
        call_id: The provider's id of the tool call, as in the table ``tool_calls``; None in a
            function agent, which no model calls.

    Example:
        @tool(idempotent=True)
        def pay(invoice: str, usd: float, context: ToolContext) -> str:
            "Pay an invoice."
            return bank.pay(invoice, usd, idempotency_key=context.idempotency_key)
    """

    run_id: str
    workflow: str
    agent: str
    attempt: int
    idempotency_key: str
    tenant: str | None = None
    index: int | None = None
    element: Mapping[str, Any] = field(default_factory=dict)
    call_id: str | None = None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> NoReturn:
        """Refuse to be a part of another type; otherwise a model could make up a context."""
        raise TypeError(
            "a ToolContext cannot be a part of another type: "
            "give the function a parameter of the type ToolContext"
        )


def idempotency_key(agent_run_id: UUID, *parts: str | int) -> str:
    """Return the key of the work that an agent run and these parts describe, as a UUID.

    Args:
        agent_run_id: Id of the agent run; all attempts of the agent run have the same id.
        *parts: The facts that distinguish this work from other work of the agent run. The last
            part may contain line breaks.
    """
    return str(uuid5(agent_run_id, "\n".join(map(str, parts))))
