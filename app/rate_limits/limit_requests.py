"""Requests as a backend hears of them: what each will probably take from every tier."""

from app.domain.usage import Usage
from app.rate_limits.base import Candidate, LimitRequest
from app.rate_limits.charges import cost_s, counts_real_output, expected_amounts
from app.rate_limits.clock import BackendClock
from app.rate_limits.forecast import Forecast
from app.rate_limits.tiers import BucketSpec


class Candidates:
    """Makes the candidates of one bucket, and learns from answers how long they are.

    Args:
        clock: The backend's.
    """

    def __init__(self, clock: BackendClock) -> None:
        self._clock = clock
        self._forecast = Forecast()

    def new(self, number: int, request: LimitRequest, spec: BucketSpec) -> Candidate:
        """A request that arrives now."""
        arrival_ms = int(self._clock.backend_time_s() * 1000)
        return self._candidate(number, request, arrival_ms, spec)

    def again(self, old: Candidate, request: LimitRequest, spec: BucketSpec) -> Candidate:
        """The same under other limits."""
        return self._candidate(old[0], request, old[2], spec)

    def refreshed(self, old: Candidate, request: LimitRequest, spec: BucketSpec) -> Candidate:
        """The same after more has been learned of how long answers are."""
        if not _counts_real_output(request, spec):
            return old
        return self.again(old, request, spec)

    def learn(self, request: LimitRequest, usage: Usage, spec: BucketSpec) -> None:
        """A whole answer has come."""
        if usage.total_tokens and _counts_real_output(request, spec):
            self._forecast.learn(request, usage.output_tokens)

    def _candidate(
        self, number: int, request: LimitRequest, arrival_ms: int, spec: BucketSpec
    ) -> Candidate:
        amounts = expected_amounts(request, spec, self._forecast.output_tokens(request))
        return number, request.priority, arrival_ms, cost_s(amounts, spec), amounts


def _counts_real_output(request: LimitRequest, spec: BucketSpec) -> bool:
    return any(counts_real_output(tier, request.provider) for tier in spec.tiers)
