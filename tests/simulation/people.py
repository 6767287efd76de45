"""The users of a simulation: they enqueue, cancel, pause, resume and retry runs at drawn moments.

Each step is taken by a separate client process, which may die or freeze during this step.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app import Workflow, WorkflowStatus
from app.bootstrap import Platform
from app.domain.budgets import BudgetTerms, Period, StandingScope
from app.domain.run_options import RunOptions
from app.domain.sub_workflow import all_workflows
from app.storage import new_runs, runs, standing
from app.storage.group_commit import persist
from tests.simulation.loop import Process
from tests.simulation.worker import Cluster, platform_of
from tests.simulation.workflows import draw_repairable, draw_workflow

TENANT = "acme"
#: Share of simulations with a run that has something to repair.
REPAIRED_SHARE = 0.3
PLACED = """
    SELECT count(*) FROM simulation.placed p JOIN runs r ON r.id = p.run_id
    WHERE r.id = %(id)s OR r.ancestors @> ARRAY[%(id)s]
"""
STATUS = "SELECT status FROM runs WHERE id = %s"
FINAL = {"completed", "partially_completed", "failed", "cancelled"}
Step = Callable[[Platform], Awaitable[object]]


@dataclass(kw_only=True)
class Story:
    """One run, and the steps that people take with this run.

    Attributes:
        number: The run's number among the simulation's runs.
        workflow: The run's workflow.
        cases: A list in the run's input.
        run_id: The run's id; None before the client knows the id.
        placed: Number of holds that had been placed when the run was cancelled or paused. None
            while calls of the run may start.
        opening: Client processes that may be resuming or retrying the run.
        opened: Number of processes that have begun to resume or retry the run.
        broken: The faults that were found.
        repaired: Whether the run is always retried after the last fault.
    """

    number: int
    workflow: Workflow
    cases: Sequence[str]
    run_id: UUID | None = None
    placed: int | None = None
    opening: list[Process] = field(default_factory=list)
    opened: int = 0
    broken: list[str] = field(default_factory=list)
    repaired: bool = False


class People:
    """The users of a simulation.

    Args:
        generator: Draws the steps of the users and their times.
        window_s: Seconds in which the users take these steps.
    """

    def __init__(self, generator: random.Random, *, window_s: float) -> None:
        self._generator = generator
        self._window_s = window_s
        self._clients = 0
        self._busy: list[Process] = []
        self.stories: list[Story] = []
        self.cluster: Cluster

    def begin(self, cluster: Cluster) -> None:
        """Draw the steps of the users."""
        self.cluster = cluster
        generator = self._generator
        tight = generator.random() < 0.3
        if generator.random() < 0.5:
            terms = BudgetTerms(
                scope=StandingScope.TENANT,
                subject=TENANT,
                limit_usd=Decimal("0.06") if tight else Decimal(10),
                period=generator.choice((Period.DAY, Period.NONE)),
            )
            self._do(
                "set budget",
                lambda p: persist(
                    p.engine, partial(standing.set_budget, terms=terms), name="set_budget"
                ),
            )
        for number in range(generator.choice((1, 2, 3))):
            story = Story(
                number=number,
                workflow=draw_workflow(generator, number),
                cases=[f"case {n}" for n in range(generator.choice((0, 1, 2, 2, 3)))],
            )
            self.stories.append(story)
            for each in all_workflows(story.workflow):
                cached = [agent for agent in each.agents if agent.cache]
                cluster.provider.prompts |= {a.name: a.prompt_template for a in cached}
            begins_s = generator.uniform(0.2, self._window_s / 2)
            cluster.loop.at(begins_s, partial(self._enqueue, story))
            steps = (self.pause, self.resume, self.cancel, self.retry)
            for step in generator.choices(steps, (4, 4, 3, 2), k=generator.choice((0, 2, 4))):
                then_s = begins_s + generator.uniform(0.1, self._window_s / 2)
                cluster.loop.at(then_s, partial(step, story))

        if generator.random() < REPAIRED_SHARE:
            number = len(self.stories)
            repaired = Story(
                number=number,
                workflow=draw_repairable(generator, number),
                cases=[f"case {n}" for n in range(generator.choice((2, 3, 4)))],
                repaired=True,
            )
            self.stories.append(repaired)
            begins_s = generator.uniform(0.2, self._window_s / 2)
            cluster.loop.at(begins_s, partial(self._enqueue, repaired))

    @property
    def rest(self) -> bool:
        """Whether every run has ended, and no client is about to start a run again."""
        self._busy = [client for client in self._busy if client.alive]
        return not self._busy and all(self.status(story) in FINAL for story in self.stories)

    def status(self, story: Story) -> str:
        """Return the committed status of the run; the text is empty before the run exists."""
        if story.run_id is None:
            return ""
        row = self.cluster.database.inspector.execute(STATUS, [story.run_id]).fetchone()
        return "" if row is None else str(row[0])

    def pause(self, story: Story) -> None:
        """Pause a run."""
        self._close(story, "pause", lambda platform, id_: platform.scheduler.pause(id_))

    def cancel(self, story: Story) -> None:
        """Cancel a run."""
        self._close(
            story,
            "cancel",
            lambda platform, id_: platform.scheduler.stop(
                id_, as_=WorkflowStatus.CANCELLED, reason="not needed"
            ),
        )

    def resume(self, story: Story) -> None:
        """Resume a run."""
        self._open(story, "resume", lambda platform, id_: platform.scheduler.resume(id_))

    def retry(self, story: Story, cost_budget: Decimal | None = None) -> None:
        """Retry the failed agents of a run."""
        self._open(
            story,
            "retry_failed",
            lambda platform, id_: platform.scheduler.retry_failed(id_, cost_budget=cost_budget),
        )

    def look(self, story: Story) -> None:
        """Note holds that were placed although no call was allowed to start."""
        if story.placed is not None and (now := self._placed(story)) != story.placed:
            story.broken.append(
                f"{now - story.placed} holds committed after run{story.number} was stopped"
            )

    def _enqueue(self, story: Story) -> None:
        """Enqueue a run; repeat this with the same key until a client knows the run's id."""

        async def enqueue(platform: Platform) -> None:
            async def create(connection: AsyncConnection) -> UUID:
                options = RunOptions(tenant=TENANT, key=f"run{story.number}")
                workflow_id = await runs.store_workflow(connection, story.workflow)
                given = {"case": story.number, "cases": story.cases}
                return await new_runs.create_run(
                    connection, story.workflow, workflow_id, given, options
                )

            story.run_id = await persist(platform.engine, create, name="enqueue")
            self.cluster.trace.name(story.run_id, f"run{story.number}")
            await platform.scheduler.ask_for_admission(story.run_id)

        client = self._do(f"enqueue run{story.number}", enqueue)

        def again() -> None:
            if story.run_id is None and not client.alive:
                self._enqueue(story)
            elif story.run_id is None:
                self.cluster.loop.at(5.0, again)

        self.cluster.loop.at(5.0, again)

    def _close(
        self, story: Story, what: str, step: Callable[[Platform, UUID], Awaitable[bool]]
    ) -> None:
        async def close(platform: Platform) -> None:
            assert story.run_id is not None
            opened = story.opened
            done = await step(platform, story.run_id)
            self.cluster.trace.tell(f"{what} returned {done}")
            story.opening = [p for p in story.opening if p.alive]
            stays = not story.opening and story.opened == opened
            if done and stays and story.placed is None:
                story.placed = self._placed(story)

        if story.run_id is not None:
            self._do(f"{what} run{story.number}", close)

    def _open(
        self, story: Story, what: str, step: Callable[[Platform, UUID], Awaitable[bool]]
    ) -> None:
        async def open_(platform: Platform) -> None:
            assert story.run_id is not None
            done = await step(platform, story.run_id)
            self.cluster.trace.tell(f"{what} returned {done}")

        if story.run_id is not None:
            self.look(story)
            story.placed = None
            story.opened += 1
            story.opening.append(self._do(f"{what} run{story.number}", open_))

    def _placed(self, story: Story) -> int:
        row = self.cluster.database.inspector.execute(PLACED, {"id": story.run_id}).fetchone()
        assert row is not None
        return int(row[0])

    def _do(self, what: str, step: Step) -> Process:
        self._clients += 1
        process = Process(f"client{self._clients}")
        self._busy.append(process)
        self.cluster.trace.tell(f"{process}: {what}")

        async def act() -> None:
            try:
                await step(platform_of(self.cluster, f"client{self._clients % 4}"))
            finally:
                self.cluster.loop.kill(process)
                self.cluster.database.drop_process(process)

        self.cluster.loop.spawn(process, act(), what)
        return process
