"""Reads an attempt's attachments, and checks that earlier attempts sent the same attachments."""

from collections.abc import Sequence

from app.attachments.reader import AttachmentReader, digest_of
from app.domain.attachments import Source
from app.errors import AddressRefused, AttachmentRefused
from app.llm.parts import Part
from app.storage.attachments import Attached
from app.storage.group_commit import GroupCommit
from workers.inflight import LeaseGone, StopReason
from workers.jobs import Job


class Attachments:
    """Reads attachments anew for each attempt, so that no conversation stores the bytes of files.

    Its weakness: a file must not change until the agent of the file has ended. For files that
    change, the alternative is base64 in the run's input, because the input is stored with the run.

    Args:
        reader: Reads the files.
        fixed: Stores the hash of the attachments that the first attempt sends.

    Example:
        parts = await attachments.read(job, sources_of(agent, values))
    """

    def __init__(self, reader: AttachmentReader, fixed: GroupCommit[Attached, str | None]) -> None:
        self._reader = reader
        self._fixed = fixed

    async def read(self, job: Job, sources: Sequence[Source]) -> list[Part]:
        """Return the parts that send the attachments.

        Raises:
            AttachmentRefused: If a file cannot be sent, or has changed since an earlier attempt.
            AddressRefused: If a URL leads to an address that agents must not reach.
            LeaseGone: If the attempt does not own its agent any more.
        """
        if not sources:
            return []
        name = job.agent.name
        try:
            parts = await self._reader.read(sources)
        except (AttachmentRefused, AddressRefused) as error:
            raise type(error)(f"agent {name!r}: {error}") from error
        digest = digest_of(parts)
        claimed = job.claimed
        stored = await self._fixed.submit(
            Attached(id=claimed.id, attempt=claimed.attempt, digest=digest)
        )
        if stored is None:
            raise LeaseGone(StopReason.LEASE_LOST)
        if stored != digest:
            raise AttachmentRefused(
                f"agent {name!r}: its attachments have changed since an earlier attempt, so this "
                "attempt would send other bytes: keep files as they are until the agent has "
                f"ended; `agentchord retry {job.run.run_id}` sends them as they are now"
            )
        return parts
