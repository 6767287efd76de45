"""Claims of lanes: a lane claims agents of its level and, after this level, of the next level."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.scheduler.lanes import Lane
from app.storage.claims import Claim, ClaimRequest, claim
from app.storage.fetch import Row
from app.storage.group_commit import GroupCommit
from app.storage.progress import LevelPlan, Progress, advance
from workers.run_contexts import RunContext, RunContexts


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A lane's request to advance the run.

    Attributes:
        run_id: The run.
        level: The level that is done, as far as the lane knows.
        provider: The lane's provider.
        goes_on: Whether the lane is ready to go on with the next level. The lane goes on only if
            one lane of the provider is enough for that level.
    """

    run_id: UUID
    level: int
    provider: str
    goes_on: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """The result of a step.

    Attributes:
        progress: The changes of the run.
        lane: The only lane of the next level. None if the lane that made the step does not go on
            with that level.
        claim: The claim of the next level's agents for ``lane``; None if ``lane`` is None.
    """

    progress: Progress
    lane: Lane | None = None
    claim: Claim | None = None

    @property
    def agents(self) -> Sequence[object]:
        """The claimed agents."""
        return self.claim.agents if self.claim else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """The result of a lane's first claim.

    Attributes:
        run: The run. None if no such run exists, or if the lane knows the run already.
        claim: The claim; None if no such run exists.
    """

    run: RunContext | None
    claim: Claim | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ask:
    request: ClaimRequest
    reads: bool = False


class Claims:
    """Makes the claims of a process in batches; the claims of a batch share a transaction.

    Its weakness: a claim locks the run's row, so the lanes of one run claim one after the other.
    The alternative is ``SKIP LOCKED`` on the agents. Then the lanes could claim at the same time,
    but together the lanes could exceed ``max_parallel_agents``.

    Args:
        engine: The process's engine.
        contexts: Reads runs.
        worker: The owner of the leases.
        lease_s: Seconds after which a lease ends unless it is renewed.
        max_recoveries: Number of recoveries after which an agent is claimed alone.
        max_collected_bytes: Largest output that is collected from items or from a sub-workflow.
        lanes: Divides a level into lanes.

    Example:
        request = ClaimRequest(run_id=run_id, level=0, provider="openai", width=50)
        for agent in (await claims.claim(request)).agents:
            ...
    """

    def __init__(
        self,
        engine: AsyncEngine,
        contexts: RunContexts,
        *,
        worker: str,
        lease_s: float,
        max_recoveries: int,
        max_collected_bytes: int,
        lanes: Callable[[LevelPlan], Sequence[Lane]],
    ) -> None:
        self._claim = partial(claim, worker=worker, lease_s=lease_s, max_recoveries=max_recoveries)
        self._contexts = contexts
        self._advance = partial(advance, max_collected_bytes=max_collected_bytes)
        self._lanes = lanes
        self._claims: GroupCommit[_Ask, Begun] = GroupCommit(
            engine, self._make, name="claim", key=lambda ask: ask.request.run_id
        )
        self._steps: GroupCommit[Step, Move] = GroupCommit(
            engine, self.step, name="move_on", key=lambda step: step.run_id
        )

    async def begin(self, request: ClaimRequest) -> Begun:
        """Read the run of a lane, and make the lane's first claim in the same transaction."""
        return await self._claims.submit(_Ask(request=request, reads=True))

    async def claim(self, request: ClaimRequest) -> Claim:
        """Claim agents of a level of a run that exists; see ``app.storage.claims``."""
        claim = (await self._claims.submit(_Ask(request=request))).claim
        assert claim is not None, "only the claim of a run that does not exist is None"
        return claim

    async def move_on(self, step: Step) -> Move:
        """Advance a run whose level is done, and claim the next level's agents for the lane."""
        return await self._steps.submit(step)

    async def _make(self, connection: AsyncConnection, asks: Sequence[_Ask]) -> list[Begun]:
        new = [ask.request.run_id for ask in asks if ask.reads]
        runs = dict(
            zip(new, await self._contexts.read(connection, new) if new else (), strict=True)
        )
        requests = [ask.request for ask in asks if runs.get(ask.request.run_id, ask)]
        claimed = await self._claim(connection, requests) if requests else []
        claims = dict(zip((request.run_id for request in requests), claimed, strict=True))
        return [
            Begun(run=runs.get(ask.request.run_id), claim=claims.get(ask.request.run_id))
            for ask in asks
        ]

    async def step(
        self,
        connection: AsyncConnection,
        steps: Sequence[Step],
        locked: Sequence[Row] | None = None,
    ) -> list[Move]:
        """Make steps of different runs inside a transaction; see ``move_on``.

        Args:
            connection: Inside a transaction.
            steps: The steps.
            locked: The runs of these steps, if this transaction has locked the runs already.
        """
        levels = [(step.run_id, step.level) for step in steps]
        done = await self._advance(connection, levels, locked=locked)
        moves = [
            Move(progress=progress, lane=self._only_lane(step, progress.plan))
            for step, progress in zip(steps, done, strict=True)
        ]
        requests = [
            ClaimRequest(
                run_id=move.progress.plan.run_id,
                level=move.progress.plan.level,
                provider=move.lane.provider,
                width=move.lane.width,
                pending=sum(move.progress.plan.agents.values()),
            )
            for move in moves
            if move.progress.plan and move.lane
        ]
        claims = iter(await self._claim(connection, requests, locked=True) if requests else ())
        return [replace(move, claim=next(claims)) if move.lane else move for move in moves]

    def _only_lane(self, step: Step, plan: LevelPlan | None) -> Lane | None:
        if plan is None or not step.goes_on:
            return None
        lanes = self._lanes(plan)
        alone = len(lanes) == 1 and lanes[0].provider == step.provider
        return lanes[0] if alone else None
