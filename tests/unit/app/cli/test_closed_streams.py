"""A standard stream that is closed or full leads to one clear line, and never to a traceback."""

import subprocess
import sys

import pytest

AGENTCHORD = f"{sys.executable} -m app.cli"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["version", "runs", "schema"])
def test_a_closed_output_is_told_in_one_line_and_nothing_runs(command: str) -> None:
    done = shell(f"{AGENTCHORD} {command} >&-")

    assert done.returncode == 1
    assert done.stderr.startswith("agentchord: the standard output is closed: redirect it")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "code"), [("version 2>&-", 0), ("nonsense 2>&-", 2), ("version <&-", 0)]
)
def test_a_command_works_without_the_other_streams(line: str, code: int) -> None:
    done = shell(f"{AGENTCHORD} {line}")

    assert (done.returncode, done.stderr) == (code, "")


def test_a_full_output_is_told_in_one_line() -> None:
    done = shell(f"{AGENTCHORD} schema >/dev/full")

    assert done.returncode == 1
    assert done.stderr.startswith("agentchord: ")
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_a_reader_that_goes_away_leaves_no_message() -> None:
    done = shell(f"{AGENTCHORD} schema | head -c 1")

    assert (done.stdout, done.stderr) == ("{", "")
