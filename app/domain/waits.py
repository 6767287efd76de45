"""Long waits that are known in advance; during such a wait an attempt has no place."""


class LongWait(Exception):
    """The wait is so long that the attempt gives back its lease and its place meanwhile.

    Attributes:
        wait_s: Seconds after which another try may succeed.
        waits_for: Name of the awaited limit, circuit or budget, such as ``openai/default
            requests_per_day``.
    """

    def __init__(self, *, wait_s: float, waits_for: str) -> None:
        super().__init__(f"waits {wait_s:.1f} s for {waits_for}")
        self.wait_s = wait_s
        self.waits_for = waits_for
