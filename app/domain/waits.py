"""Waits that are known to be long: whoever has to wait so long gives his place back meanwhile."""


class LongWait(Exception):
    """What is waited for comes so late that lease and place are given back until then.

    Attributes:
        wait_s: Seconds until it is worth trying again.
        waits_for: What it is, such as ``openai/default requests_per_day``.
    """

    def __init__(self, *, wait_s: float, waits_for: str) -> None:
        super().__init__(f"waits {wait_s:.1f} s for {waits_for}")
        self.wait_s = wait_s
        self.waits_for = waits_for
