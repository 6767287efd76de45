"""Kinds of agents, and the queues of those that call no provider."""

#: A conversation with a model; its queue is that of its provider.
LLM = "llm"
FUNCTION = "function"
HTTP = "http"
#: Queues beside the providers'. A kind that has none of its own, as those of plugins, computes in
#: this process like a function, and runs on its queue.
QUEUES_OF_KINDS = {FUNCTION: "function", HTTP: "http"}


def queue_of(kind: str) -> str:
    """The queue that carries agents of a kind other than ``llm``."""
    return QUEUES_OF_KINDS.get(kind, QUEUES_OF_KINDS[FUNCTION])
