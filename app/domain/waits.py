"""Long waits, known in advance: an attempt gives its place back meanwhile."""


class LongWait(Exception):
    """The wait is so long that lease and place are given back until its end.

    Attributes:
        wait_s: Seconds until it is worth trying again.
        waits_for: Name of the limit, circuit or budget: ``openai/default requests_per_day``.
    """

    def __init__(self, *, wait_s: float, waits_for: str) -> None:
        super().__init__(f"waits {wait_s:.1f} s for {waits_for}")
        self.wait_s = wait_s
        self.waits_for = waits_for
