"""Threads that make a process's first call at the same moment, also in forked children."""

import pytest

from app import Agent, Run, Workflow, enqueue
from tests.support.pace import scaled
from tests.support.stack import Stack

# From Python 3.12 on, a fork of a process with threads warns.
PROGRAM = ("-W", "ignore::DeprecationWarning", "-m", "tests.support.first_calls")
END_S = scaled(90.0)


@pytest.fixture
def run(stack: Stack) -> Run:
    """A run that has ended; its key is ``first``."""
    agent = Agent(
        name="where",
        kind="function",
        config={"function": "tests.support.agent_functions:where_async"},
    )
    run = enqueue(Workflow(name="first calls", agents=[agent]), key="first")
    assert run.wait(timeout=scaled(30)) == "completed"
    return run


@pytest.mark.parametrize("threads", [2, 64])
def test_threads_that_make_the_first_call_of_a_process_all_return(
    stack: Stack, run: Run, threads: int
) -> None:
    program = stack.start_python(*PROGRAM, run.id, "0", str(threads))

    said, _ = program.communicate(timeout=END_S)

    assert (said, program.returncode) == (f"{threads} of {threads} calls returned, 1 loops\n", 0)


@pytest.mark.parametrize("used", [(), ("used",)], ids=["new", "used before the fork"])
def test_threads_that_make_the_first_call_of_a_forked_child_all_return(
    stack: Stack, run: Run, used: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    forks = request.config.getoption("--seeds") // 2
    program = stack.start_python(*PROGRAM, run.id, str(forks), "2,8,64,3,34,5,21,13", *used)

    said, _ = program.communicate(timeout=END_S + 10 * forks)

    assert program.returncode == 0, said
    assert said.count("1 loops") == forks


def test_a_forked_child_ends_in_silence_although_its_parent_has_used_a_client(
    stack: Stack, run: Run
) -> None:
    ended = stack.python(*PROGRAM, run.id, "1", "2", "used")

    assert (ended.returncode, ended.stderr) == (0, "")
