"""Faults of requests, and the rules that choose the requests.

A rule applies to all matching requests, to a random share of the matching requests, to the first N
matching requests, or to every Nth matching request. All faults are reproducible.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from app.simulator.limits import covers

FaultKind = Literal[
    "status", "hang", "drop", "garbage", "cut_stream", "stream_error", "error_in_200", "slow"
]
FAULT_KINDS: tuple[str, ...] = get_args(FaultKind)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """The fault of one request.

    - `status`: The client gets the provider's error body, with `code` and Retry-After if the fault
      has these values.
    - `hang`: The client gets no answer; the connection stays open until the client leaves.
    - `drop`: The connection is reset before the answer.
    - `garbage`: The client gets status 200 and invalid JSON.
    - `cut_stream`: The connection ends in the middle of the answer.
    - `stream_error`: The client gets an error event in the middle of a stream. If the client did
      not ask for a stream, the client gets the error `status`.
    - `error_in_200`: The client gets status 200 and a body that reports the error `status`. In the
      Responses API, this body is a failed response with the usage.
    - `slow`: The client gets the normal answer `delay_s` seconds later.
    """

    kind: FaultKind
    status: int = 500
    code: str | None = None
    retry_after_s: float | None = None
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise ValueError(f"fault kind is {self.kind!r}: use one of {', '.join(FAULT_KINDS)}")
        if self.status // 100 not in (4, 5):
            raise ValueError(f"fault status is {self.status!r}: use 400 to 599")

    @property
    def label(self) -> str:
        """Name of the fault in the ledger."""
        return f"status={self.status}" if self.kind == "status" else self.kind


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultRule:
    """Applies `fault` to all matching requests, or to some matching requests.

    With `rate` (0 to 1), a random share of the matching requests fails. With `first=N`, the first N
    matching requests fail. With `every=N`, every Nth matching request fails. Without these three
    settings, all matching requests fail. `model` is a pattern such as `gpt-4o*`; only the exact
    name `token_count` means the requests that count tokens.

    Example:
        FaultRule(fault=Fault(kind="status", status=503), rate=0.1)
    """

    fault: Fault
    provider: str = "*"
    model: str = "*"
    prompt_contains: str = ""
    rate: float | None = None
    first: int | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        if sum(choice is not None for choice in (self.rate, self.first, self.every)) > 1:
            raise ValueError("a fault rule has several of rate, first and every: give one of them")
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise ValueError(f"rate is {self.rate!r}: use 0 to 1")
        if self.every is not None and self.every < 1:
            raise ValueError(f"every is {self.every!r}: use 1 or more")

    def matches(self, provider: str, model: str, prompt: str) -> bool:
        """Return whether the rule applies to this request."""
        return (
            self.provider in ("*", provider)
            and covers(self.model, model)
            and self.prompt_contains in prompt
        )


class FaultPlan:
    """The rules with their counters.

    If the same requests come in the same order, the same requests fail.
    """

    def __init__(self, rules: Sequence[FaultRule], seed: int) -> None:
        self._rules = rules
        self._seen = [0] * len(rules)
        self._draws = [random.Random(f"{seed}/{index}") for index in range(len(rules))]

    def fault_for(self, provider: str, model: str, prompt: str) -> Fault | None:
        """Count the request for every matching rule; return the first fault that applies."""
        fault = None
        for index, rule in enumerate(self._rules):
            if rule.matches(provider, model, prompt) and self._fires(index, rule):
                fault = fault or rule.fault
        return fault

    def _fires(self, index: int, rule: FaultRule) -> bool:
        self._seen[index] += 1
        if rule.rate is not None:
            return self._draws[index].random() < rule.rate
        if rule.first is not None:
            return self._seen[index] <= rule.first
        if rule.every is not None:
            return self._seen[index] % rule.every == 0
        return True
