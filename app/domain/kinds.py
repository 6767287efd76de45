"""Kinds of agents, and the queues of the kinds that call no provider."""

#: An agent that has a conversation with a model. Its queue is the queue of the model's provider.
LLM = "llm"
FUNCTION = "function"
HTTP = "http"
#: An agent that runs a sub-workflow. Such an agent only starts another run, so the agent needs only
#: the scheduler's queue.
WORKFLOW = "workflow"
#: Queues that belong to no provider. The kinds that plugins define are not
#: listed here. An agent of a plugin's kind computes in the worker process, as a function does, and
#: runs on the queue of functions.
QUEUES_OF_KINDS = {FUNCTION: "function", HTTP: "http"}


def queue_of(kind: str) -> str:
    """Return the queue that carries agents of a kind other than ``llm``."""
    if kind == WORKFLOW:
        return "scheduler"
    return QUEUES_OF_KINDS.get(kind, QUEUES_OF_KINDS[FUNCTION])
