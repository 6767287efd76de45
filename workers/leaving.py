"""The end of a level in a lane: the record of the level's last agent also advances the run."""

from collections.abc import Callable

from app.domain.status import AgentStatus
from app.storage.claims import Claim
from app.storage.records import Ending
from workers.claims import Move, Step

#: A failure may end the run before its level is done, so it is recorded before the step.
ENDS_WELL = (AgentStatus.COMPLETED, AgentStatus.SKIPPED)


class Leaving:
    """Knows which record is the last one of a level that a lane has for itself.

    The record of the last agent and the step to the next level share one transaction, because the
    lane would otherwise commit twice, and wait for two batches. Every other lane makes its step
    after its records.

    Its weakness: an agent that is handed back, retried or expanded leaves its level open, so the
    level then ends with a separate step.

    Args:
        step: Returns the lane's step at this moment. None if no record of the run may make a step;
            see ``RunContext.steps_with_records``.

    Attributes:
        move: The result of the step that was written with a record; None if there was no such step.

    Example:
        leaving = Leaving(step)
        leaving.claimed(claim)
        written = await records.finish(record, leaving.step_after(ending))
    """

    def __init__(self, step: Callable[[], Step] | None) -> None:
        self._step = step
        self._unrecorded = 0
        self._alone = False
        self._all_ended = True
        self.move: Move | None = None

    def claimed(self, claim: Claim) -> None:
        """Expect the records of claimed agents."""
        self._unrecorded += len(claim.agents)
        self._alone = claim.alone

    def step_after(self, ending: Ending | None) -> Step | None:
        """Return the step that the record of this ending makes too; None if it makes no step.

        Args:
            ending: The ending that is about to be recorded, once for each claimed agent. None if
                the attempt has no ending that counts.
        """
        self._unrecorded -= 1
        if ending is None or ending.status not in ENDS_WELL:
            self._all_ended = False
        is_last = self._alone and self._all_ended and not self._unrecorded
        return self._step() if is_last and self._step else None
