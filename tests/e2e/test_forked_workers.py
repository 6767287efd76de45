"""Forked workers on real services: they share all imports, and so does what they cost."""

import subprocess
import sys

from app import Agent, Workflow, enqueue
from app.domain.protocols import PROTOCOLS
from tests.support.pace import scaled
from tests.support.stack import Stack, search_path

#: What the configuration names, and what each process makes for itself.
OWN = ("app.examples", "celeryconfig", "runpy", "tests")
#: Celery's shell and Flower, which only other commands of Celery need, and the SDKs' resources.
NEEDLESS = ("anthropic.resources", "click_repl", "flower", "openai.resources", "prompt_toolkit")
IMPORTED = """
import sys
from app.local_stack.forking import load
load(sys.argv[1:])
print(*sys.modules)
"""


def test_a_worker_imports_nothing_that_the_fork_server_could_import(stack: Stack) -> None:
    agents = [
        Agent(
            name="modules",
            kind="function",
            config={"function": "tests.support.agent_functions:modules"},
            dependencies=["gpt", "claude", "gpt_stream", "claude_stream"],
        ),
        *(
            Agent(
                name=f"{name}{'_stream' * stream}",
                prompt_template="Say hello.",
                llm_config={"model": model, "stream": stream},
            )
            for name, model in (("gpt", "gpt-4o-mini"), ("claude", "claude-haiku-4-5"))
            for stream in (False, True)
        ),
    ]
    run = enqueue(Workflow(name="modules", agents=agents))
    assert run.wait(timeout=scaled(60.0)) == "completed", run.error
    shared = subprocess.run(
        [sys.executable, "-c", IMPORTED, *PROTOCOLS],
        env={"PYTHONPATH": search_path()},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    late = set(run.result("modules")) - set(shared)

    assert sorted(name for name in late if not name.startswith(OWN)) == []
    assert [name for name in run.result("modules") if name.startswith(NEEDLESS)] == []
