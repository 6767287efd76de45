"""The protocols that providers speak: one registry, and what follows from a protocol.

A further protocol needs an entry here, and a module ``app.llm.NAME`` whose ``DIALECT`` has the code
(see ``app.llm.dialect``). Every place that asks how a provider counts, caches or is called asks
this registry: a provider's name decides nothing, because an operator chooses it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounting:
    """How a provider's limits count the tokens of a call.

    Attributes:
        reserves_output: A limit on all tokens takes the larger of the prompt and ``max_tokens``
            before the call and gives nothing back; else it counts the prompt and the output that
            was generated. A limit on output tokens alone always counts what was generated.
        counts_cached: Whether prompt tokens that were read from the provider's cache count.
    """

    reserves_output: bool
    counts_cached: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """A protocol, and what a provider that speaks it has in common with all others that do.

    Attributes:
        name: Its name in the configuration, and that of its module in ``app.llm``.
        counting: How limits count tokens.
        caches_on_request: Whether prompts are written to the provider's cache, at a price, only
            where a request asks for it; else the provider writes by itself, and charges for it if
            its price list has a price of writes.
    """

    name: str
    counting: TokenCounting
    caches_on_request: bool


#: All protocols by name.
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="openai",
            counting=TokenCounting(reserves_output=True, counts_cached=True),
            caches_on_request=False,
        ),
        Protocol(
            name="anthropic",
            counting=TokenCounting(reserves_output=False, counts_cached=False),
            caches_on_request=True,
        ),
    )
}
