"""How a level is cut into lanes, and how these share messages: pure functions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

#: Lanes that a message carries at most; and messages that there are before any carries more than
#: one, so that all workers get some.
MOST_LANES, MANY_MESSAGES = 8, 16

Sent = TypeVar("Sent")


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
        max_parallel_agents: Places of the run in all.
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


def share_messages(
    lanes: Sequence[tuple[Sent, Lane]], *, lane_width: int, many_messages: int = MANY_MESSAGES
) -> Iterator[list[tuple[Sent, Lane]]]:
    """Put lanes that are to be sent at once into messages.

    A message costs sender and receiver 2 to 3 ms of CPU.

    Args:
        lanes: Lanes on one queue, each with the sender's own data.
        lane_width: Widest lane; those of a message together are no wider.
        many_messages: There are so many messages at least, or one for each lane.
    """
    most = min(max(len(lanes) // many_messages, 1), MOST_LANES)
    message: list[tuple[Sent, Lane]] = []
    width = 0
    for item in lanes:
        if message and (len(message) == most or width + item[1].width > lane_width):
            yield message
            message, width = [], 0
        message.append(item)
        width += item[1].width
    if message:
        yield message


def _shares(wanted: list[int], room: int) -> list[int]:
    """Share places in proportion to the wanted ones, one for each as long as there is room."""
    total = sum(wanted)
    if total <= room:
        return wanted
    shares = [
        max(1, room * want // total) if place < room else 0 for place, want in enumerate(wanted)
    ]
    while sum(shares) > room:  # the minimum of one may have given out too much
        shares[shares.index(max(shares))] -= 1
    place = 0
    while sum(shares) < room:  # places that rounding down has left over
        shares[place % len(shares)] += shares[place % len(shares)] < wanted[place % len(shares)]
        place += 1
    return shares
