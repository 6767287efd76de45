"""The protocols that providers speak: one registry of the protocols and their properties.

A further protocol needs an entry here, and a module ``app.llm.NAME`` with a ``DIALECT`` that has
the code (see ``app.llm.dialect``). All code that depends on a provider's counting, caching or calls
reads this registry. A provider's name decides nothing, because an operator chooses the name.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounting:
    """The rules by which a provider's limits count the tokens of a call.

    Attributes:
        reserves_output: Whether a limit on all tokens takes the larger of the prompt and
            ``max_tokens`` before the call and gives nothing back. Otherwise the limit counts the
            prompt and the generated output. A limit on output tokens alone always counts the
            generated output.
        counts_cached: Whether prompt tokens that were read from the provider's cache count.
    """

    reserves_output: bool
    counts_cached: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """A protocol, and the properties that all providers with this protocol share.

    Attributes:
        name: Name of the protocol in the configuration, and of its module in ``app.llm``.
        counting: The rules by which limits count tokens.
        caches_on_request: Whether the provider writes a prompt to its cache, at a price, only if
            the request asks for it. Otherwise the provider writes prompts by itself, and charges
            for the writes only if its price list has a price for them.
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
