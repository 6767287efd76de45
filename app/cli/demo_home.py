"""The demo's home, and an environment without the user's keys, so that the demo is free."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from uuid import UUID

from app.cli.cluster import connect
from app.client.client import Client
from app.configuration.settings import Settings, load_settings
from app.domain.status import WorkflowStatus
from app.embedded.folders import open_home
from app.local_stack.supervisor import inherited_environment
from app.storage.runs import RunRecord

HOME = "AGENTCHORD_HOME"
CONFIG = "AGENTCHORD_CONFIG"
MAX_LEFTOVERS = 1000
FOREIGN = ("OPENAI_", "ANTHROPIC_", "AGENTCHORD_", "DATABASE_URL", "REDIS_URL")
#: The simulator has no limits; the default limits would make the demo wait.
SIMULATED = """\
# Written by `agentchord demo`.
rate_limits:
  openai: &unhurried
    default: {requests_per_minute: 6000, burst: 100, concurrent_requests: 100}
  anthropic: *unhurried
imports: [app.examples.tools]
engine: {worker_threads: 16, drain_grace_s: 5}
"""
LIVE = """\
# Written by `agentchord demo --live`.
imports: [app.examples.tools]
engine: {worker_threads: 16, drain_grace_s: 30}
"""


def enter_home(*, live: bool) -> Path:
    """Let this process and its children see only the demo's settings.

    Without ``live``, the user's keys, URLs and configuration are removed from the environment. The
    working directory becomes the demo's home, so that no ``.env`` file sets these variables again.
    With ``live``, the providers' keys and base URLs stay.

    Returns:
        The demo's home: ``demo`` inside the user's home.
    """
    variables = inherited_environment()
    kept = _providers(load_settings()) if live else {}
    for name in variables:
        if name.startswith(FOREIGN):
            del os.environ[name]  # noqa: TID251  the environment is cleaned here
    given = variables.get(HOME)
    base = Path(given).expanduser().absolute() if given else None
    os.chdir("/")
    home = (base or load_settings().home) / "demo"
    home = open_home(home)
    config = home / "demo.yaml"
    config.write_text(LIVE if live else SIMULATED, encoding="utf-8")
    os.chdir(home)
    set_variables({HOME: str(home), CONFIG: str(config), **kept})
    return home


def set_variables(variables: dict[str, str]) -> None:
    """Set environment variables for this process and its children."""
    os.environ.update(variables)  # noqa: TID251  set, not read


def _providers(settings: Settings) -> dict[str, str]:
    """Return the providers' variables, including those from a ``.env`` file."""
    found = {
        "OPENAI_API_KEY": settings.openai_api_key and settings.openai_api_key.get_secret_value(),
        "OPENAI_BASE_URL": settings.openai_base_url,
        "ANTHROPIC_API_KEY": settings.anthropic_api_key
        and settings.anthropic_api_key.get_secret_value(),
        "ANTHROPIC_BASE_URL": settings.anthropic_base_url,
    }
    return {name: value for name, value in found.items() if value}


async def cancel_leftovers() -> None:
    """Cancel unfinished runs of earlier demos, because this demo would count the runs' calls."""
    connected = connect()
    for status in (WorkflowStatus.PENDING, WorkflowStatus.RUNNING, WorkflowStatus.PAUSED):
        left = await connected.run_async(partial(_list, status))
        for run in left:
            await connected.run_async(partial(_cancel, run.id))


async def _list(status: WorkflowStatus, client: Client) -> Sequence[RunRecord]:
    return await client.runs.list(status, MAX_LEFTOVERS)


async def _cancel(run_id: UUID, client: Client) -> None:
    await client.control.cancel(run_id, "left behind by an earlier demo")
