"""The workloads: the same agents, prompts and answers for every contender.

Peers import this in environments of their own, where nothing of AgentChord is installed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

MODEL = "gpt-4o-mini"
MAX_TOKENS = 50


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A number of equal runs, each of ``levels`` times ``width`` agents.

    Attributes:
        name: Short name.
        title: Its description.
        runs: Runs that are started at once.
        levels: Agents in a row, each of which reads the answer of the one before.
        width: Agents side by side.
        latency_s: Seconds that the provider takes to answer.
        threads: Threads among which a client shares the runs: each thread starts its runs, and then
            waits for each of them. 0 means coroutines on one loop. Only AgentChord has such a
            client, and the other contenders do the same work as without threads.
        pause_s: Seconds of rest before each run; the runs then come one after the other, in one
            thread. 0 means that all runs are started at once.
    """

    name: str
    title: str
    runs: int
    levels: int
    width: int
    latency_s: float
    threads: int = 0
    pause_s: float = 0.0

    @property
    def agents(self) -> int:
        """Agents in all."""
        return self.runs * self.levels * self.width

    @property
    def ideal_s(self) -> float:
        """Seconds if nothing but the provider took any time."""
        return self.levels * self.latency_s

    def places(self) -> Iterator[tuple[int, int]]:
        """Level and item of each agent of a run, level by level."""
        return ((level, item) for level in range(self.levels) for item in range(self.width))


def agent_name(level: int, item: int) -> str:
    """Name of an agent, and the placeholder of its answer."""
    return f"step{level}_item{item:03}"


def prompt(level: int, item: int) -> str:
    """Prompt with ``{placeholder}`` for the batch and for the answer of the level before."""
    if level == 0:
        return f"Describe item {item} of batch {{batch}} in two sentences."
    return (
        f"Step {level}, item {item}, batch {{batch}}: go on from {{{agent_name(level - 1, item)}}}"
    )


def filled_prompt(batch: int, level: int, item: int, previous: str | None) -> str:
    """Prompt with its placeholders filled in, for contenders without templates.

    Args:
        batch: Number of the run.
        level: Level of the agent.
        item: Item of the agent.
        previous: Answer of the same item on the level before.
    """
    known = {"batch": batch, agent_name(level - 1, item): previous}
    return prompt(level, item).format_map(known)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(name="W1", title="5 levels x 100", runs=1, levels=5, width=100, latency_s=0.0),
        Workload(name="W2", title="5 levels x 100", runs=1, levels=5, width=100, latency_s=0.2),
        Workload(name="W3", title="100 chains of 5", runs=100, levels=5, width=1, latency_s=0.2),
        Workload(name="W4", title="500 at once", runs=1, levels=1, width=500, latency_s=1.0),
        Workload(
            name="W5",
            title="W3 from 16 threads",
            runs=100,
            levels=5,
            width=1,
            latency_s=0.2,
            threads=16,
        ),
        Workload(name="W6", title="1,000 runs of one", runs=1000, levels=1, width=1, latency_s=0.0),
    )
}
#: One agent at a time, while nothing else happens.
AT_REST = Workload(
    name="at rest",
    title="one run of one agent at a time",
    runs=40,
    levels=1,
    width=1,
    latency_s=0.05,
    pause_s=0.15,
)
