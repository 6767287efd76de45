"""Commands of tests in forks of a process that has imported them: they are like any process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forked_commands import run_command
from tests.support.pace import scaled
from tests.support.stack import search_path

END_S = scaled(30)


def variables(folder: Path, **own: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": search_path(), "AGENTCHORD_HOME": str(folder), **own}


@pytest.mark.parametrize(
    "words", [("version",), ("nonsense",), ("plan", "missing.yaml"), ("run", "--help")]
)
def test_a_fork_says_and_returns_the_same_as_a_new_process(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    environment = variables(tmp_path)

    started = subprocess.run(
        [sys.executable, "-m", "app.cli", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=END_S,
    )
    forked = run_command(*words, cwd=tmp_path, environment=environment, timeout_s=END_S)

    assert (forked.returncode, forked.stdout, forked.stderr) == (
        started.returncode,
        started.stdout,
        started.stderr,
    )


def test_a_fork_has_its_own_folder_and_variables(tmp_path: Path) -> None:
    (tmp_path / "flow.yaml").write_text(
        "name: a\nagents: [{name: b, prompt_template: go, llm_config: {model: gpt-4o-mini}}]\n"
    )

    done, misled = (
        run_command("plan", "flow.yaml", cwd=tmp_path, environment=environment, timeout_s=END_S)
        for environment in (
            variables(tmp_path),
            variables(tmp_path, AGENTCHORD_CONFIG="elsewhere.yaml"),
        )
    )

    assert (done.returncode, misled.returncode) == (0, 1), done.stderr
    assert "elsewhere.yaml" in misled.stderr


def test_a_command_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_command(
            *("simulator", "--port", "0"),
            cwd=tmp_path,
            environment=variables(tmp_path),
            timeout_s=0.5,
        )
