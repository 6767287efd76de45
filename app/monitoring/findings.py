"""What explains something: a reason that programs know, and words for people."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Reason(StrEnum):
    """Why something is as it is; programs tell the cases apart by these words."""

    PAUSED = "paused"
    ADMISSION = "admission"
    STOPPING = "stopping"
    DEPENDENCY = "dependency"
    LEVEL = "level"
    NO_WORKER = "no_worker"
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
    SKIPPED = "skipped"
    RUN_ENDED = "run_ended"
    RETRIED = "retried"
    RECOVERED = "recovered"
    FALLBACK = "fallback"
    SLOW = "slow"
    EXPENSIVE = "expensive"


PLURALS = {
    "is": "are",
    "was": "were",
    **{f"{verb}s": verb for verb in ("wait", "rest", "call", "run", "work")},
}

#: What many findings of one reason have in common, without their details.
GENERAL = {
    Reason.DEPENDENCY: "waits for what it depends on",
    Reason.LEVEL: "waits for the levels before its own",
    Reason.BACKOFF: "waits for its next try",
    Reason.MONEY: "waits for money",
    Reason.CALLING: "calls a model",
    Reason.FAILED: "failed, too",
    Reason.UPSTREAM: "was cancelled because something it depends on failed",
    Reason.SKIPPED: "did not run because its condition was false",
    Reason.RETRIED: "was retried, too",
    Reason.RECOVERED: "was begun again because its worker was gone",
    Reason.FALLBACK: "went on with another model",
}
#: In these an agent does what it is there for.
AT_WORK = frozenset((Reason.CALLING, Reason.TOOL, Reason.WORKING, Reason.SUB_RUN, Reason.ITEMS))


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that explains something.

    Attributes:
        reason: What kind of thing it is.
        agents: Whom it concerns; empty if it is the whole run.
        text: It in words, to be read after the names.
        remedy: What could be done, or empty.
    """

    reason: Reason
    agents: tuple[str, ...] = ()
    text: str
    remedy: str = ""

    @property
    def predicate(self) -> str:
        """The text with its verb in the number of those whom it concerns."""
        verb, rest = self.text.partition(" ")[::2]
        return f"{PLURALS.get(verb, verb) if len(self.agents) > 1 else verb} {rest}"


def grouped(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The same with those that say the same of several agents made one."""
    groups: dict[tuple[Reason, str, str], Finding] = {}
    for finding in findings:
        key = finding.reason, finding.text, finding.remedy
        known = groups.get(key)
        agents = dict.fromkeys((*known.agents, *finding.agents)) if known else finding.agents
        groups[key] = replace(finding, agents=tuple(agents))
    return tuple(groups.values())


def condensed(findings: Iterable[Finding], most: int) -> list[Finding]:
    """The same with at most so many of each reason: the last of them stands for all others.

    Args:
        findings: What has been found.
        most: How many of a reason, from 1.
    """
    by_reason: dict[Reason, list[Finding]] = {}
    for finding in findings:
        by_reason.setdefault(finding.reason, []).append(finding)
    shown: list[Finding] = []
    for reason, same in by_reason.items():
        if len(same) <= most or reason not in GENERAL:
            shown += same
            continue
        agents = dict.fromkeys(name for each in same[most - 1 :] for name in each.agents)
        rest = Finding(reason=reason, agents=tuple(agents), text=GENERAL[reason])
        shown += [*same[: most - 1], rest]
    return shown
