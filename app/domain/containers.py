"""Containers in which providers run the programs of a model, and the time of them that is booked.

No answer tells how long a container is billed. So the booked time is the longest that it may be:
the time of the call, and the time for which a container stays ready after its last use. This sum is
never below a provider's least time of a container.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

_MINUTE_S = 60
# A call may end a little after its timeout if the process is busy at that moment.
_LATE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerRules:
    """The rules by which the providers of a protocol run programs.

    Attributes:
        idle_s: Longest time for which a container stays ready after its last use, in seconds; the
            provider may bill this time.
        kept_s: Seconds after an answer in which a later request can use its container again.
        one_per_request: Whether all programs of a request run in the same container.
        made_unasked: Whether a request may make a container although no program runs.
        max_rounds: Number of rounds of programs after which the provider pauses an answer, if it
            takes no ``max_uses`` for programs; otherwise None.
        memories: Gigabytes of each size of container that a request can ask for; empty if there is
            only one size. The fee of a container grows with its gigabytes.

    Example:
        >>> ContainerRules(idle_s=300, kept_s=3600).seconds(10.0, 1)
        360
    """

    idle_s: float
    kept_s: float
    one_per_request: bool = False
    made_unasked: bool = False
    max_rounds: int | None = None
    memories: Mapping[str, int] = field(default_factory=dict)

    def gigabytes(self, memory: object) -> int:
        """Return how often a container of this size counts; by default it has 1 GB."""
        return self.memories.get(str(memory), 1)

    def count(self, shown: int, *, ran: bool) -> int:
        """Return the largest number of containers of an answer.

        Args:
            shown: Number of different containers that the answer names.
            ran: Whether the answer shows that a program ran.
        """
        return max(shown, int(ran or self.made_unasked))

    def most(self, max_uses: int) -> int:
        """Return the largest number of containers of a request with that many programs."""
        return 1 if self.one_per_request else max_uses

    def seconds(self, elapsed_s: float, containers: int) -> int:
        """Return the longest time for which containers may be billed, in whole minutes.

        Args:
            elapsed_s: Seconds from the request to the end of its answer.
            containers: Number of containers, each multiplied by its gigabytes.
        """
        return ceil((elapsed_s + self.idle_s) / _MINUTE_S) * _MINUTE_S * containers

    def most_seconds(self, timeout_s: float, containers: int) -> int:
        """Return the largest result of ``seconds`` for a request with this timeout."""
        return self.seconds(timeout_s + _LATE_S, containers)
