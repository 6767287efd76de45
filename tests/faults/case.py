"""One case of the fault suite: two runs, their faults, and the checks at the end."""

import heapq
import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.faults.cluster import Cluster, now
from tests.faults.database import BACK_S, BudgetWatch
from tests.faults.injections import Fault, possible_faults
from tests.faults.invariants import (
    Account,
    account_of,
    assert_limits_were_kept,
    assert_money_is_right,
    assert_one_outcome_each,
    assert_only_accepted_results_were_read,
)
from tests.faults.scenario import layered, tight
from tests.support.history_checks import assert_history_is_complete
from tests.support.pace import at_this_pace, scaled
from tests.support.waiting import wait_until

FAULTS_OF_A_MIX = 3
MIX_WITHIN_S = 0.5
OK = 200


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a case, for the table.

    Attributes:
        name: The fault, or the faults of a mix.
        runs: Number of its runs.
        agents: Number of their agents.
        moved_s: Seconds from the fault's end until work moved again: until the next result was
            accepted, and until every agent that lost its worker was started again.
        ended_s: Seconds from the fault's end to the end of all runs.
        repeated: Requests that were answered beyond those of accepted attempts, of agents that
            completed.
        unconfirmed_usd: Dollars that were booked for calls with an unknown end.
    """

    name: str
    runs: int
    agents: int
    moved_s: float
    ended_s: float
    repeated: int
    unconfirmed_usd: Decimal


def run_case(cluster: Cluster, *faults: Fault, name: str = "", seed: int = 0) -> Result:
    """Let the faults happen in the middle of the runs, wait for their ends, and check everything.

    Args:
        cluster: A cluster with idle workers; this process is its client.
        *faults: One fault, or several that may overlap.
        name: Name of the case; by default that of its only fault.
        seed: Seed of the times at which several faults begin.

    Raises:
        AssertionError: If anything does not hold.
    """
    name = name or faults[0].name
    scale, simulator = cluster.scale, cluster.stack.simulator
    cluster.enqueued.clear()
    processes = {name: worker.process.pid for name, worker in cluster.workers.items()}
    cluster.missed.clear()
    simulator.reset()
    simulator.configure(latency_s=scale.latency_s, jitter_s=scale.latency_s, signed=True, seed=seed)
    with BudgetWatch(cluster.stack.urls.database_url) as watch:
        cluster.enqueue(layered(scale, f"{name} {seed}"))
        cluster.enqueue(tight(scale, f"{name} {seed}"))
        wait_until(lambda: _under_way(cluster), timeout_s=BACK_S, what="the runs are under way")
        _let_happen(cluster, faults, random.Random(seed))
        cluster.services_are_back()
        cluster.quiet()
        if any(fault.until_restart for fault in faults):
            cluster.replace_dead()
        ended_at = now()
        cluster.replace_dead()
        wait_until(cluster.ended, timeout_s=scaled(scale.ends_in_s), what="all runs have ended")
        wait_until(cluster.idle, timeout_s=BACK_S, what="the last money is booked")
    ended = {name for name, pid in processes.items() if cluster.workers[name].process.pid != pid}
    assert not ended or not all(fault.outlived for fault in faults), f"{ended} have ended"
    assert not cluster.missed or len(faults) > 1, "the runs ended before the fault could happen"
    account = account_of(cluster)
    assert watch.looks, "nobody looked at the budgets"
    closes_calls = any(fault.closes_calls for fault in faults)
    permits = sum(fault.permits for fault in faults)
    assert_one_outcome_each(account)
    assert_only_accepted_results_were_read(account)
    assert_money_is_right(cluster, account, watch.broken, closes_calls=closes_calls)
    assert_limits_were_kept(account, permits=permits)
    assert_history_is_complete(cluster.sql)
    moved_s = _moved_s(account, ended_at)
    assert moved_s <= at_this_pace(scale.moves_in_s), f"work moved again after {moved_s:.1f} s"
    return Result(
        name=name,
        runs=len(account.runs),
        agents=len(account.agents),
        moved_s=moved_s,
        ended_s=max(
            0.0, (max(run["finished_at"] for run in account.runs) - ended_at).total_seconds()
        ),
        repeated=_repeated(account),
        unconfirmed_usd=_unconfirmed_usd(account),
    )


def mix(seed: int) -> list[Fault]:
    """The faults of a random mix."""
    real = [fault for fault in possible_faults() if fault.name != "nothing"]
    return random.Random(seed).sample(real, FAULTS_OF_A_MIX)


def _let_happen(cluster: Cluster, faults: Sequence[Fault], chances: random.Random) -> None:
    """Enter and leave the faults on a timetable; several may overlap."""
    began_s = time.monotonic()
    length_s = max(fault.lasts_s(cluster.scale) for fault in faults)
    timetable: list[tuple[float, int, str]] = []
    for index in range(len(faults)):
        start_s = 0.0 if len(faults) == 1 else chances.uniform(0, length_s * MIX_WITHIN_S)
        heapq.heappush(timetable, (start_s, index, "begins"))
    happening: dict[int, AbstractContextManager[Any]] = {}
    with ExitStack() as unfinished:
        while timetable:
            due_s, index, what = heapq.heappop(timetable)
            # A fault lasts for a fixed time, so there is no condition to wait for.
            wait_until(lambda: time.monotonic() >= began_s + due_s, timeout_s=due_s + BACK_S)  # noqa: B023
            if what == "begins":
                happening[index] = _Closing(faults[index], cluster)
                unfinished.enter_context(happening[index])
                if faults[index].by_itself:
                    continue
                ends_s = time.monotonic() - began_s + faults[index].lasts_s(cluster.scale)
                heapq.heappush(timetable, (ends_s, index, "ends"))
            else:
                happening[index].__exit__(None, None, None)


class _Closing(AbstractContextManager[None]):
    """A fault that ends once, either at its time or because another one failed."""

    def __init__(self, fault: Fault, cluster: Cluster) -> None:
        self._injection: AbstractContextManager[None] | None = fault.inject(cluster)

    def __enter__(self) -> None:
        assert self._injection is not None
        self._injection.__enter__()

    def __exit__(self, *error: object) -> None:
        injection, self._injection = self._injection, None
        if injection is not None:
            injection.__exit__(None, None, None)


def _under_way(cluster: Cluster) -> bool:
    """Return whether the second level has begun: results accepted, calls under way."""
    (row,) = cluster.sql("SELECT level FROM runs WHERE id = %s", cluster.runs[0].id)
    return row["level"] >= 1 and bool(cluster.stack.simulator.summary()["in_flight"])


def _moved_s(account: Account, ended_at: datetime) -> float:
    """See ``Result.moved_s``; 0 if everything was over with the fault."""
    accepted = [a["finished_at"] for a in account.attempts if a["outcome"] == "completed"]
    later = [moment for moment in accepted if moment > ended_at]
    moments = [min(later)] if later else []
    numbers = {(a["agent_run_id"], a["number"]): a["started_at"] for a in account.attempts}
    for attempt in account.attempts:
        if attempt["outcome"] == "lost":
            again = numbers.get((attempt["agent_run_id"], attempt["number"] + 1))
            moments += [again] if again else []
    return max((max(0.0, (moment - ended_at).total_seconds()) for moment in moments), default=0.0)


def _repeated(account: Account) -> int:
    """Answered requests that no accepted attempt needed; requests of failed agents do not count."""
    accepted = {
        (attempt["agent_run_id"], attempt["number"])
        for attempt in account.attempts
        if attempt["outcome"] == "completed"
    }
    undone = {agent["id"] for agent in account.agents if agent["status"] != "completed"}
    needed = {
        entry["request_id"]
        for entry in account.entries
        if (entry["agent_run_id"], entry["attempt"]) in accepted or entry["agent_run_id"] in undone
    }
    answered = {record["request_id"] for record in account.served if record["status"] == OK}
    return len(answered - needed)


def _unconfirmed_usd(account: Account) -> Decimal:
    """Dollars that were booked as unconfirmed and not corrected."""
    corrected = {e["call_id"] for e in account.entries if e["kind"] == "correction"}
    return sum(
        (
            e["cost_usd"]
            for e in account.entries
            if e["kind"] == "unconfirmed" and e["call_id"] not in corrected
        ),
        Decimal(0),
    )
