"""The protocols that providers speak: one registry of the protocols and their properties.

A further protocol needs an entry here, and a module ``app.llm.NAME`` whose ``DIALECT`` has the code
(see ``app.llm.dialect``). All code whose behaviour depends on the provider reads this registry.
A provider's name decides nothing, because an operator chooses the name.
"""

from dataclasses import dataclass

from app.domain.containers import ContainerRules


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
        containers: The rules by which providers run programs of the model.
        one_use_limit: Whether a request has one limit for the uses of all tools that run at the
            provider. Otherwise each tool has a limit of its own.
        apis: Names of the protocol's request forms, if the protocol has several forms. The forms
            share the provider's key, limits and prices; only requests and answers are written
            differently.
    """

    name: str
    counting: TokenCounting
    caches_on_request: bool
    containers: ContainerRules
    one_use_limit: bool = False
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
            # developers.openai.com/api/docs/guides/tools-code-interpreter: a container expires if
            # it is not used for 20 minutes. The mode "auto" makes one before the model decides to
            # run a program.
            containers=ContainerRules(
                idle_s=20 * 60,
                kept_s=19 * 60,
                made_unasked=True,
                memories={"1g": 1, "4g": 4, "16g": 16, "64g": 64},
            ),
            one_use_limit=True,
            apis=("chat", "responses"),
        ),
        Protocol(
            name="anthropic",
            counting=TokenCounting(reserves_output=False, counts_cached=False),
            caches_on_request=True,
            # platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool: each
            # request runs in one container, which is put aside after 5 minutes without use, and
            # expires after 30 days.
            containers=ContainerRules(
                idle_s=5 * 60, kept_s=29 * 86_400, one_per_request=True, max_rounds=10
            ),
            regional=True,
        ),
    )
}
