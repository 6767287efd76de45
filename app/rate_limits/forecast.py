"""The probable length of answers, for limits that count the real output.

An answer that may have 4,096 tokens usually has only a few hundred tokens. If each call reserved
4,096 tokens, most of the limit would be unused while calls are under way. The reservation is
therefore based on the last answers to calls with a similar ``max_tokens``: the reservation is the
length of the longest of these answers. While only few answers are known, a share of this length is
added. If an answer is longer than its reservation, the difference is charged when the call has
ended, like every correction.
"""

from collections import defaultdict, deque

from app.domain.usage import Usage
from app.rate_limits.base import LimitRequest, WaitingRequest
from app.rate_limits.charges import cost_s, counts_real_output, expected_amounts
from app.rate_limits.clock import BackendClock
from app.rate_limits.tiers import BucketSpec

#: Number of answers that are kept per model and size of ``max_tokens``.
_SAMPLES = 100
#: The share that is added to the longest of n answers is this number divided by n.
_CAUTION = 4.0


class Forecast:
    """The share of ``max_tokens`` that answers use, by model and magnitude of ``max_tokens``."""

    def __init__(self) -> None:
        self._shares: defaultdict[tuple[str, int], deque[float]] = defaultdict(
            lambda: deque(maxlen=_SAMPLES)
        )

    def learn(self, request: LimitRequest, output_tokens: int) -> None:
        """Take the length of a call's answer into account."""
        if request.output_tokens > 0:
            self._shares[_key(request)].append(output_tokens / request.output_tokens)

    def output_tokens(self, request: LimitRequest) -> float:
        """Return the tokens to reserve for an answer, at most the number in the request."""
        shares = self._shares.get(_key(request))
        if not shares:
            return float(request.output_tokens)
        share = max(shares) * (1 + _CAUTION / len(shares))
        return request.output_tokens * min(share, 1.0)


def _key(request: LimitRequest) -> tuple[str, int]:
    return request.model, request.output_tokens.bit_length()


class LimitRequests:
    """Converts the requests for one bucket, with their amounts, to the form that a backend reads.

    Args:
        clock: The clock of the backend.
    """

    def __init__(self, clock: BackendClock) -> None:
        self._clock = clock
        self._forecast = Forecast()

    def new(self, number: int, request: LimitRequest, spec: BucketSpec) -> WaitingRequest:
        """Convert a request that arrives now."""
        arrival_ms = int(self._clock.backend_time_s() * 1000)
        return self._as_waiting(number, request, arrival_ms, spec)

    def again(self, old: WaitingRequest, request: LimitRequest, spec: BucketSpec) -> WaitingRequest:
        """Convert a waiting request again, under other limits."""
        return self._as_waiting(old.id, request, old.arrival_ms, spec)

    def refreshed(
        self, old: WaitingRequest, request: LimitRequest, spec: BucketSpec
    ) -> WaitingRequest:
        """Convert a waiting request again if the forecast for its answer may have changed."""
        if not _counts_real_output(request, spec):
            return old
        return self.again(old, request, spec)

    def learn(self, request: LimitRequest, usage: Usage, spec: BucketSpec) -> None:
        """Take the usage of a whole answer into account."""
        if usage.total_tokens and _counts_real_output(request, spec):
            self._forecast.learn(request, usage.output_tokens)

    def _as_waiting(
        self, number: int, request: LimitRequest, arrival_ms: int, spec: BucketSpec
    ) -> WaitingRequest:
        amounts = expected_amounts(request, spec, self._forecast.output_tokens(request))
        return WaitingRequest(number, request.priority, arrival_ms, cost_s(amounts, spec), amounts)


def _counts_real_output(request: LimitRequest, spec: BucketSpec) -> bool:
    return any(counts_real_output(tier, request.counting) for tier in spec.tiers)
