"""The scenario of the fault suite: its sizes, its workflows, and its cluster's configuration."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from app import Agent, RetryPolicy, Workflow

LEVELS = 5
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
PER_MINUTE = 600
BURST = 10
AT_ONCE = 20
ANSWER_TOKENS = 40
MOST_TOKENS, TIGHT_TOKENS = 60, 300
#: Above the cost of an agent, and above the most that one call may cost: enough for all of them,
#: but so little that only a few calls can be under way at a time.
PER_AGENT_USD = 0.00014
SPARE_USD = 0.0019
#: Requests that the suite allows for the delay from a permit to the simulator on a busy machine.
JITTER = 2


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A size of the suite.

    Attributes:
        name: Its name.
        width: Agents of a level, of which there are five, on two providers.
        tight: Agents of the second run, whose budget makes calls wait for each other.
        latency_s: Seconds until an answer, and up to as many more.
        lease_s: The cluster's ``engine.lease_s``.
        beat_s: Its ``heartbeat_s`` and its ``watchdog_s``.
        stop_s: Duration of a stopped process, a pause or a cut: longer than a lease.
        trouble_s: Duration of faults of a provider or of messages.
        timeout_s: Timeout of the agents, which ends a call that hangs; longer than ``stop_s``, so
            that a stopped worker wakes up with answers.
        moves_in_s: Seconds after the fault within which work must move again.
        ends_in_s: Seconds after the fault within which all runs must have ended.
    """

    name: str
    width: int
    tight: int
    latency_s: float
    lease_s: float
    beat_s: float
    stop_s: float
    trouble_s: float
    timeout_s: float
    moves_in_s: float = 30.0
    ends_in_s: float = 120.0

    @property
    def agents(self) -> int:
        """Agents of a case, in both of its runs."""
        return LEVELS * self.width + self.tight

    def configuration(self) -> str:
        """The YAML file of its cluster."""
        limits = (
            f"{{requests_per_minute: {PER_MINUTE}, burst: {BURST}, concurrent_requests: {AT_ONCE}}}"
        )
        return f"""\
imports: [app.examples.tools]
rate_limits:
  openai: {{default: {limits}}}
  anthropic: {{default: {limits}}}
engine:
  lease_s: {self.lease_s}
  heartbeat_s: {self.beat_s}
  watchdog_s: {self.beat_s}
  lane_width: {max(self.width // 8, 2)}
  drain_grace_s: 1
circuit_breaker: {{open_s: 1, max_open_s: 2}}
"""


#: The users' settings: leases, heartbeats, watchdog.
FULL = Scale(
    name="full",
    width=40,
    tight=20,
    latency_s=0.5,
    lease_s=15.0,
    beat_s=5.0,
    stop_s=20.0,
    trouble_s=10.0,
    timeout_s=24.0,
)
#: The same with shorter times, for every day.
SHORT = Scale(
    name="short",
    width=8,
    tight=10,
    latency_s=0.2,
    lease_s=1.6,
    beat_s=0.4,
    stop_s=3.0,
    trouble_s=1.0,
    timeout_s=4.0,
    ends_in_s=80.0,
)


def layered(scale: Scale, name: str) -> Workflow:
    """Five levels on two providers; every agent quotes two of the level above.

    Some stream, some use a tool. The prompt of each begins with its own name, so that the
    simulator's ledger shows the agent of each request.
    """
    chances = random.Random(name)
    agents: list[Agent] = []
    for level in range(LEVELS):
        above = [agent.name for agent in agents[-scale.width :]] if level else []
        for place in range(scale.width):
            needs = chances.sample(above, 2) if above else []
            talks = place % 8 == 3
            agents.append(_agent(scale, name, f"l{level}_{place:02}", place, needs, talks=talks))
    return Workflow(
        name="faults layered",
        agents=agents,
        max_parallel_agents=scale.width,
        cost_budget=1.0,
        timeout=600,
    )


def tight(scale: Scale, name: str) -> Workflow:
    """Agents side by side with so little money that most have to wait for it.

    The budget is enough for all of them unless calls are lost.
    """
    agents = [
        _agent(scale, name, f"tight{place:02}", place, most_tokens=TIGHT_TOKENS)
        for place in range(scale.tight)
    ]
    return Workflow(
        name="faults tight",
        agents=agents,
        max_parallel_agents=scale.tight,
        cost_budget=SPARE_USD + PER_AGENT_USD * scale.tight,
        timeout=600,
    )


def _agent(
    scale: Scale,
    run: str,
    name: str,
    place: int,
    needs: Sequence[str] = (),
    *,
    talks: bool = False,
    most_tokens: int = MOST_TOKENS,
) -> Agent:
    provider, streams = ("openai", "anthropic")[place % 2], place % 3 == 0
    quotes = " ".join(f"{{{need}}}" for need in needs)
    steer = f"[[sim:output_tokens={ANSWER_TOKENS}{',tool_turns=1' if talks else ''}]]"
    return Agent(
        name=name,
        prompt_template=f"{name} of {run} {steer} goes on from: {quotes}",
        tools=["check_total"] if talks else [],
        llm_config={
            "model": MODELS[provider],
            "max_tokens": most_tokens,
            **({"stream": True} if streams and not talks else {}),
        },
        dependencies=list(needs),
        timeout=scale.timeout_s,
        retry_policy=RetryPolicy(max_retries=30, base_delay=0.2, max_delay=2.0),
    )
