"""Kinds of agents, and the queues of those that call no provider."""

#: A conversation with a model; its queue is that of its provider.
LLM = "llm"
FUNCTION = "function"
HTTP = "http"
#: A sub-workflow: it starts a run of its own, which needs no more than the scheduler's queue.
WORKFLOW = "workflow"
#: Queues beside the providers'. A kind without a queue of its own, such as a plugin's, computes in
#: the worker process like a function, and runs on the queue of functions.
QUEUES_OF_KINDS = {FUNCTION: "function", HTTP: "http"}


def queue_of(kind: str) -> str:
    """Return the queue that carries agents of a kind other than ``llm``."""
    if kind == WORKFLOW:
        return "scheduler"
    return QUEUES_OF_KINDS.get(kind, QUEUES_OF_KINDS[FUNCTION])
