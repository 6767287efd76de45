"""The supervisor: a process that cannot start ends the stack, however slowly it fails."""

import io
import os
from collections.abc import Iterator

import pytest

from app.local_stack import supervisor
from app.local_stack.fork_server import ForkServer
from app.local_stack.process_output import Output
from app.local_stack.supervisor import ProcessFailed, Program, Supervisor


@pytest.fixture(params=[False, True], ids=["spawned", "forked"])
def server(request: pytest.FixtureRequest) -> Iterator[ForkServer | None]:
    """The server from which processes are forked, or None."""
    if not request.param:
        yield None
        return
    with ForkServer(os.environ, []) as server:
        yield server


@pytest.mark.anyio
async def test_a_process_that_was_never_ready_is_no_healthy_one(
    server: ForkServer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine a start that fails takes seconds. Zero seconds stand for these here."""
    monkeypatch.setattr(supervisor, "HEALTHY_AFTER_S", 0.0)
    said: list[str] = []
    broken = Supervisor(
        [Program(name="broken", arguments=("--no-such-option",))],
        environment=os.environ,
        output=Output(stream=io.BytesIO(), folder=None, say=said.append),
        grace_s=5.0,
        server=server,
    )

    with pytest.raises(ProcessFailed, match=r"broken ended with code \d, 3 times at its start"):
        async with broken:
            pass

    # A slow machine is also told that the process is waited for.
    assert len([line for line in said if line.startswith("broken ended")]) == 2
