"""The protocols that providers speak: one registry of the protocols and their properties.

A further protocol needs an entry here, and a module ``app.llm.NAME`` whose ``DIALECT`` has the code
(see ``app.llm.dialect``). All code whose behaviour depends on the provider reads this registry.
A provider's name decides nothing, because an operator chooses the name.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounting:
    """The rules for counting the tokens of a call against a provider's limits.

    Attributes:
        reserves_output: Whether a limit on all tokens counts, before the call, the larger of two
            numbers (the tokens of the prompt and ``max_tokens``), and never corrects the counted
            number. If not, the limit counts the prompt and the generated output. A limit on output
            tokens alone always counts the generated output.
        counts_cached: Whether prompt tokens that were read from the provider's cache count against
            limits.
    """

    reserves_output: bool
    counts_cached: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """A protocol, and the properties that all providers with this protocol share.

    Attributes:
        name: Name of the protocol in the configuration, and of the protocol's module in
            ``app.llm``.
        counting: The rules for counting tokens against limits.
        caches_on_request: Whether the provider caches a prompt only if the request asks for
            caching; such a provider charges for the write. Any other provider caches prompts by
            itself, and charges for the write only if the price list of the provider has a price for
            writes.
        regional: Whether a request, or the account's settings, may choose the region in which the
            model runs (``inference_geo``); some regions have a surcharge.
        apis: Names of the protocol's request forms, if the protocol has several forms. The forms
            share the provider's key, limits and prices; only requests and answers are written
            differently.
    """

    name: str
    counting: TokenCounting
    caches_on_request: bool
    regional: bool = False
    apis: tuple[str, ...] = ()


#: All protocols by name.
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="openai",
            counting=TokenCounting(reserves_output=True, counts_cached=True),
            caches_on_request=False,
            apis=("chat", "responses"),
        ),
        Protocol(
            name="anthropic",
            counting=TokenCounting(reserves_output=False, counts_cached=False),
            caches_on_request=True,
            regional=True,
        ),
    )
}
