"""How long answers will probably be, where the provider counts real output.

A call that may answer 4,096 tokens usually answers a few hundred. Who reserved them all would let
most of the limit lie idle while calls are under way, so the reservation follows what calls with
such a ``max_tokens`` lately used: the most that was seen, and more while little was seen. An answer
that is longer is charged when it is known, like every correction.
"""

from collections import defaultdict, deque

from app.rate_limits.base import LimitRequest

#: Answers remembered per model and size of ``max_tokens``.
_SAMPLES = 100
#: Share added to the largest of n answers: this, divided by n.
_CAUTION = 4.0


class Forecast:
    """The share of ``max_tokens`` that answers use, by model and magnitude of ``max_tokens``."""

    def __init__(self) -> None:
        self._shares: defaultdict[tuple[str, int], deque[float]] = defaultdict(
            lambda: deque(maxlen=_SAMPLES)
        )

    def learn(self, request: LimitRequest, output_tokens: int) -> None:
        """A call has answered so many tokens."""
        if request.output_tokens > 0:
            self._shares[_key(request)].append(output_tokens / request.output_tokens)

    def output_tokens(self, request: LimitRequest) -> float:
        """Tokens to reserve for an answer, at most what the request names."""
        shares = self._shares.get(_key(request))
        if not shares:
            return float(request.output_tokens)
        share = max(shares) * (1 + _CAUTION / len(shares))
        return request.output_tokens * min(share, 1.0)


def _key(request: LimitRequest) -> tuple[str, int]:
    return request.model, request.output_tokens.bit_length()
