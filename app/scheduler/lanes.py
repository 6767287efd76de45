"""How a level is cut into lanes: a pure function."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """The permission to run up to ``width`` agents at a time on one provider's queue."""

    provider: str
    width: int


def cut_lanes(
    agents: Mapping[str, int], *, max_parallel_agents: int, lane_width: int
) -> list[Lane]:
    """Share the permitted parallelism among providers, then cut each share into lanes.

    The widths never add up to more than the run may use. A provider that gets no lane, because
    the run may use fewer places than it has providers, is served when another lane passes its
    permission on.

    Args:
        agents: Pending agents by provider.
        max_parallel_agents: What the run may use in all.
        lane_width: Widest lane.

    Returns:
        The lanes, those of the provider with most agents first.
    """
    order = sorted(agents, key=lambda name: (-agents[name], name))
    shares = _shares([agents[name] for name in order], max_parallel_agents)
    lanes = []
    for provider, share in zip(order, shares, strict=True):
        count = -(-share // lane_width)
        for index in range(count):
            width = share // count + (index < share % count)
            lanes.append(Lane(provider=provider, width=width))
    return lanes


def _shares(wanted: list[int], room: int) -> list[int]:
    """Shares in proportion to what is wanted, one place for each as long as there is room."""
    total = sum(wanted)
    if total <= room:
        return wanted
    shares = [
        max(1, room * want // total) if place < room else 0 for place, want in enumerate(wanted)
    ]
    while sum(shares) > room:  # the minimum of one may have given out too much
        shares[shares.index(max(shares))] -= 1
    place = 0
    while sum(shares) < room:  # what rounding down has left over
        shares[place % len(shares)] += shares[place % len(shares)] < wanted[place % len(shares)]
        place += 1
    return shares
