"""Tools that run at the provider: searches of the web, fetched pages, and programs of the model.

An entry with the key ``server`` in an agent's ``tools`` asks for a tool that runs at the provider::

    {"server": "web_search", "max_uses": 3, "allowed_domains": ["who.int"]}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.bounds import Bounds
from app.domain.bounds import find_problem as find_number_problem
from app.domain.protocols import Protocol
from app.domain.suggestions import did_you_mean, listed, shortened

#: The key that marks a tool of the provider.
SERVER = "server"
WEB_SEARCH, WEB_FETCH, CODE_EXECUTION = "web_search", "web_fetch", "code_execution"
CONTEXT_SIZES = ("low", "medium", "high")
#: Sizes of containers, of which some providers have several.
MEMORIES = ("1g", "4g", "16g", "64g")
BOUNDS = {
    "max_uses": Bounds(low=1, high=100, whole=True),
    "max_result_tokens": Bounds(low=1000, high=1_000_000, whole=True),
}
_DOMAINS = ("allowed_domains", "blocked_domains")
#: The options of each tool, by the tool's name.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    WEB_SEARCH: (*_DOMAINS, "user_location", "search_context_size"),
    WEB_FETCH: (*_DOMAINS, "citations"),
    CODE_EXECUTION: ("memory",),
}
LOCATION = ("city", "region", "country", "timezone")
# The model reads the prompt once for each use. It also reads the prompt once before the first use,
# and once after an attempt to use the tool more often than is allowed.
_FURTHER_READS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerTool:
    """A tool that runs at the provider.

    Attributes:
        name: ``web_search``, ``web_fetch`` or ``code_execution``.
        max_uses: Largest number of uses in one call; the provider enforces this number.
        limits_uses: Whether the entry gives ``max_uses``. Some providers accept no ``max_uses`` for
            programs.
        max_result_tokens: Number of prompt tokens that a hold includes for the result of one use.
            The provider cuts fetched texts at about this number; nothing cuts the results of
            searches and the outputs of programs.
        options: Further options, such as ``allowed_domains``.
    """

    name: str
    max_uses: int = 2
    limits_uses: bool = False
    max_result_tokens: int = 30_000
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerUses:
    """The largest counts that the provider's tools can add to one call.

    Attributes:
        searches: Largest number of searches of the web.
        uses: Largest number of uses of all tools.
        result_tokens: Largest number of tokens of all results.
        container_seconds: Longest time of all containers, as in ``Usage``.
    """

    searches: int = 0
    uses: int = 0
    result_tokens: int = 0
    container_seconds: int = 0

    def prompt_tokens(self, prompt_tokens: int, output_tokens: int, window: int | None) -> int:
        """Return the largest number of prompt tokens that the provider bills for one call.

        After each use, the model reads the whole prompt again, together with all results and with
        the text that the model has written so far. The provider bills the sum.

        Args:
            prompt_tokens: Upper bound of the tokens of the request's prompt.
            output_tokens: Largest number of tokens that the model may generate.
            window: Largest number of tokens that the model can read at once; None if this number is
                not known.

        Example:
            >>> ServerUses(uses=1, result_tokens=20_000).prompt_tokens(1000, 500, None)
            44000
        """
        if not self.uses:
            return prompt_tokens
        grown = prompt_tokens + output_tokens + self.result_tokens
        if window is not None:
            grown = min(grown, window)
        return prompt_tokens + (self.uses + _FURTHER_READS - 1) * grown


def is_server_tool(tool: object) -> bool:
    """Return whether an entry of ``tools`` is a tool that runs at the provider."""
    return isinstance(tool, Mapping) and SERVER in tool


def server_tool_of(entry: Mapping[str, Any]) -> ServerTool:
    """Return the tool of an entry in which ``find_problem`` finds none."""
    name = entry[SERVER]
    fields = _defaults(name) | {key: value for key, value in entry.items() if key in BOUNDS}
    options = {key: value for key, value in entry.items() if key in OPTIONS[name]}
    return ServerTool(name=name, limits_uses="max_uses" in entry, options=options, **fields)


def server_tools_in(tools: Sequence[Any]) -> list[ServerTool]:
    """Return the given tools that run at the provider."""
    return [server_tool_of(tool) for tool in tools if is_server_tool(tool)]


def uses_of(tools: Sequence[Any], protocol: Protocol, timeout_s: float) -> ServerUses:
    """Return the most that the provider's tools among these add to one call.

    Args:
        tools: The entries of ``tools``.
        protocol: The protocol that the provider speaks.
        timeout_s: Seconds that the call may take.
    """
    found, rules = server_tools_in(tools), protocol.containers
    of_each = {tool.name: _uses_of_one(tool, protocol) for tool in found}
    uses = sum(of_each.values())
    result_tokens = sum(of_each[tool.name] * tool.max_result_tokens for tool in found)
    if protocol.one_use_limit:
        # The model may spend all uses on any of the tools.
        of_each = dict.fromkeys(of_each, uses)
        result_tokens = uses * max((tool.max_result_tokens for tool in found), default=0)
    return ServerUses(
        searches=of_each.get(WEB_SEARCH, 0),
        uses=uses,
        result_tokens=result_tokens,
        container_seconds=sum(
            rules.most_seconds(
                timeout_s, rules.most(of_each[tool.name]) * gigabytes_of(tool, protocol)
            )
            for tool in found
            if tool.name == CODE_EXECUTION
        ),
    )


def gigabytes_of(tool: ServerTool, protocol: Protocol) -> int:
    """Return how often a container of the model's programs counts."""
    return protocol.containers.gigabytes(tool.options.get("memory"))


def _uses_of_one(tool: ServerTool, protocol: Protocol) -> int:
    """Return the largest number of uses of a tool in one call, if it has a limit of its own.

    A provider that takes no ``max_uses`` for programs pauses its answer after a number of rounds.
    A round counts as one use, also if several programs run in it, because the model reads the
    results of a round together.
    """
    rounds = protocol.containers.max_rounds
    return rounds if tool.name == CODE_EXECUTION and rounds is not None else tool.max_uses


def find_problem(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """Find a problem of an entry.

    Returns:
        The key with the problem (or an empty string), and the rest of the message; None if there
        is no problem.
    """
    name = entry[SERVER]
    if not isinstance(name, str) or name not in OPTIONS:
        return SERVER, (
            f"is {shortened(name)}: give one of {listed(OPTIONS)}{did_you_mean(str(name), OPTIONS)}"
        )
    known = (SERVER, *BOUNDS, *OPTIONS[name])
    if unknown := next((key for key in entry if key not in known), None):
        return "", (
            f"has the key {shortened(unknown)}, which {name} does not have: give some of "
            f"{listed(known)}{did_you_mean(str(unknown), known)}"
        )
    return find_number_problem({**_defaults(name), **entry}, BOUNDS) or _in_options(entry)


def _defaults(name: str) -> dict[str, Any]:
    """Return the numbers of a tool whose entry gives none; outputs of programs are short texts."""
    defaults = {key: getattr(ServerTool(name=name), key) for key in BOUNDS}
    return defaults | ({"max_result_tokens": 5000} if name == CODE_EXECUTION else {})


def _in_options(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    for key in _DOMAINS:
        domains = entry.get(key, [""])
        each = domains if isinstance(domains, list | tuple) else ()
        if not each or not all(isinstance(domain, str) for domain in each):
            return key, f'is {shortened(domains)}: give a list of domains, such as ["who.int"]'
    if all(key in entry for key in _DOMAINS):
        return "", f"has both {listed(_DOMAINS)}: remove one of them"
    for key, known in (("search_context_size", CONTEXT_SIZES), ("memory", MEMORIES)):
        if (size := entry.get(key, known[0])) not in known:
            return key, f"is {shortened(size)}: give one of {listed(known)}"
    if not isinstance(citations := entry.get("citations", True), bool):
        return "citations", f"is {shortened(citations)}: give true or false"
    place = entry.get("user_location", {})
    is_place = isinstance(place, Mapping) and all(key in LOCATION for key in place)
    if not is_place or not all(isinstance(value, str) for value in place.values()):
        return (
            "user_location",
            f"is {shortened(place)}: give strings for some of {listed(LOCATION)}",
        )
    return None
