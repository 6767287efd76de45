"""The supervisor: a process that cannot start ends the stack, however slowly it fails."""

import io
import os

import pytest

from app.local_stack import supervisor
from app.local_stack.process_output import Output
from app.local_stack.supervisor import ProcessFailed, Program, Supervisor


@pytest.mark.anyio
async def test_a_process_that_was_never_ready_is_no_healthy_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a busy machine a start that fails takes seconds. Zero seconds stand for these here."""
    monkeypatch.setattr(supervisor, "HEALTHY_AFTER_S", 0.0)
    said: list[str] = []
    broken = Supervisor(
        [Program(name="broken", arguments=("--no-such-option",))],
        environment=os.environ,
        output=Output(stream=io.BytesIO(), folder=None, say=said.append),
        grace_s=5.0,
    )

    with pytest.raises(ProcessFailed, match=r"broken ended with code \d, 3 times at its start"):
        async with broken:
            pass

    assert len(said) == 2
