"""Pure functions that cut a level into lanes and put lanes into messages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

#: The largest number of lanes in a message, and a number of messages: more lanes than this number
#: share messages. The second number makes sure that all workers get messages.
MOST_LANES, MANY_MESSAGES = 16, 16

Sent = TypeVar("Sent")


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """The permission to run up to ``width`` agents at once, from the queue of one provider."""

    provider: str
    width: int

    def covers(self, other: "Lane") -> bool:
        """Return whether this permission includes the other permission."""
        return self.provider == other.provider and self.width >= other.width


def cut_lanes(
    agents: Mapping[str, int], *, max_parallel_agents: int, lane_width: int
) -> list[Lane]:
    """Share the permitted parallelism among providers, then cut each share into lanes.

    The sum of the widths is at most ``max_parallel_agents``. If the run has more providers than
    places, some providers get no lane. A provider without a lane is served when a lane of another
    provider passes on its permission.

    Args:
        agents: Number of pending agents by provider.
        max_parallel_agents: Number of agents of the run that may work at once.
        lane_width: Width of the widest lane.

    Returns:
        The lanes; the lanes of the provider with the most agents come first.
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
    """Put lanes that are sent together into messages.

    Lanes share messages because each message costs the sender and the receiver 2 to 3 ms of CPU.

    Args:
        lanes: Lanes on one queue, each with the sender's own data.
        lane_width: Width of the widest lane; the lanes of one message together are not wider than
            this width.
        many_messages: Number of messages into which the lanes are divided, if possible.
    """
    most = min(-(-len(lanes) // many_messages), MOST_LANES)
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
    """Share places in proportion to the wanted places; if possible, each share is at least one."""
    total = sum(wanted)
    if total <= room:
        return wanted
    shares = [
        max(1, room * want // total) if place < room else 0 for place, want in enumerate(wanted)
    ]
    while sum(shares) > room:  # the minimum of one place may have given out too many places
        shares[shares.index(max(shares))] -= 1
    place = 0
    while sum(shares) < room:  # rounding down may have left places over
        shares[place % len(shares)] += shares[place % len(shares)] < wanted[place % len(shares)]
        place += 1
    return shares
