"""Findings, which consist of a reason for programs and a text for people."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from app.monitoring.wording import names


class Reason(StrEnum):
    """Kinds of findings; programs distinguish the cases by these values."""

    PAUSED = "paused"
    ADMISSION = "admission"
    DEPENDENCY = "dependency"
    LEVEL = "level"
    NO_WORKER = "no_worker"
    NOT_LOADED = "not_loaded"
    PLACE = "place"
    LIMIT = "limit"
    PROVIDER_PAUSE = "provider_pause"
    MONEY = "money"
    CIRCUIT = "circuit"
    BACKOFF = "backoff"
    CALLING = "calling"
    TOOL = "tool"
    WORKING = "working"
    SUB_RUN = "sub_run"
    ITEMS = "items"
    FAILED = "failed"
    UPSTREAM = "upstream"
    CANCELLED = "cancelled"
    PARTIAL = "partial"
    SKIPPED = "skipped"
    RUN_ENDED = "run_ended"
    RETRIED = "retried"
    RECOVERED = "recovered"
    FALLBACK = "fallback"
    CUT = "cut"
    EMPTY = "empty"
    SLOW = "slow"
    EXPENSIVE = "expensive"


PLURALS = {
    "is": "are",
    "was": "were",
    **{f"{verb}s": verb for verb in ("wait", "call", "run", "work")},
}
ITS = re.compile(r"\bits\b")

#: One text for many findings of a reason, without their details.
GENERAL = {
    Reason.DEPENDENCY: "waits for its dependencies",
    Reason.LEVEL: "waits for earlier levels",
    Reason.BACKOFF: "waits for its next try",
    Reason.MONEY: "waits for money",
    Reason.CALLING: "calls a model",
    Reason.FAILED: "failed, too",
    Reason.UPSTREAM: "was cancelled because a dependency failed",
    Reason.CANCELLED: "was cancelled, too",
    Reason.PARTIAL: "completed in part, too",
    Reason.SKIPPED: "did not run because its condition was false",
    Reason.RETRIED: "was retried, too",
    Reason.RECOVERED: "was started again because its worker had died",
    Reason.FALLBACK: "went on with another model",
    Reason.CUT: "was cut at max_tokens, too",
    Reason.EMPTY: "has no text, either",
}
#: Reasons of agent runs without a whole result; a text names every one of these agent runs.
INCOMPLETE = frozenset(
    (Reason.FAILED, Reason.UPSTREAM, Reason.CANCELLED, Reason.PARTIAL, Reason.SKIPPED)
)
#: Maximum number of names and of series of elements in a text.
MOST_NAMED, FEW_NAMED = 100, 5
#: Reasons of agents that are working, not waiting.
AT_WORK = frozenset((Reason.CALLING, Reason.TOOL, Reason.WORKING, Reason.SUB_RUN, Reason.ITEMS))


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One explanation.

    Attributes:
        reason: Kind of the explanation.
        agents: Agents that the finding concerns, or paths of agent runs such as
            ``handled[20]/draft``; empty for the whole run.
        text: The explanation; in a sentence, the explanation follows the names of the agents.
        remedy: Possible remedy; empty if no remedy is known.
    """

    reason: Reason
    agents: tuple[str, ...] = ()
    text: str
    remedy: str = ""

    @property
    def subject(self) -> str:
        """The names of the agents; if agents have no whole result, each of them is named."""
        if not self.agents:
            return "the run"
        return names(self.agents, MOST_NAMED if self.reason in INCOMPLETE else FEW_NAMED)

    @property
    def predicate(self) -> str:
        """The text; for several agents, the verb and its pronoun are in the plural."""
        verb, rest = self.text.partition(" ")[::2]
        if len(self.agents) > 1:
            return f"{PLURALS.get(verb, verb)} {ITS.sub('their', rest)}"
        return f"{verb} {rest}"


def grouped(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Merge findings that say the same about several agents."""
    groups: dict[tuple[Reason, str, str], tuple[Finding, dict[str, None]]] = {}
    for finding in findings:
        key = finding.reason, finding.text, finding.remedy
        _, agents = groups.setdefault(key, (finding, {}))
        agents.update(dict.fromkeys(finding.agents))
    return tuple(replace(finding, agents=tuple(agents)) for finding, agents in groups.values())


def condensed(findings: Iterable[Finding], most: int) -> list[Finding]:
    """Keep some findings of each reason; the last kept finding represents all dropped findings.

    Args:
        findings: The findings.
        most: Number of findings to keep for each reason, at least 1.
    """
    by_reason: dict[Reason, list[Finding]] = {}
    for finding in findings:
        by_reason.setdefault(finding.reason, []).append(finding)
    shown: list[Finding] = []
    for reason, same in by_reason.items():
        if len(same) <= most or reason not in GENERAL:
            shown += same
        else:
            agents = dict.fromkeys(name for each in same[most - 1 :] for name in each.agents)
            rest = Finding(reason=reason, agents=tuple(agents), text=GENERAL[reason])
            shown += [*same[: most - 1], rest]
    return shown
