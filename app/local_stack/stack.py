"""The stack of one machine: the names and the command lines of the processes."""

import contextlib
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from app.domain.json_text import write_json
from app.domain.plain_text import shown
from app.domain.policies import RateLimitConfig
from app.embedded.folders import open_home, private_folder
from app.local_stack.command_lines import worker_arguments
from app.local_stack.fork_server import CAN_FORK, ForkServer
from app.local_stack.process_output import Output
from app.local_stack.reloader import Reloader
from app.local_stack.supervisor import Program, Supervisor
from app.tools.sources import user_modules

if TYPE_CHECKING:
    from app.configuration.settings import Settings
    from app.simulator import SimulatorProcess

SCHEDULER = "scheduler"
#: The word for every queue except the scheduler's queue.
AGENTS = "agents"
SCHEDULER_THREADS = 16
#: Seconds after the grace period of the calls. In these seconds, results are stored and Celery
#: shuts down.
WIND_UP_S = 10.0


def programs(settings: "Settings", *, workers: int, scheduler_threads: int) -> list[Program]:
    """Return the workers, which serve the queues of all agents, and the scheduler's worker."""
    served = [
        (f"worker{number}", settings.agent_queues, settings.engine.worker_threads)
        for number in range(1, workers + 1)
    ]
    return [
        Program(
            name=name,
            arguments=worker_arguments(queues, threads=threads, name=name),
            # The scheduler calls no provider.
            without=settings.key_variables() if queues == (SCHEDULER,) else frozenset(),
        )
        for name, queues, threads in (*served, (SCHEDULER, (SCHEDULER,), scheduler_threads))
    ]


def supervisor(
    settings: "Settings",
    environment: Mapping[str, str],
    *,
    workers: int,
    scheduler_threads: int = SCHEDULER_THREADS,
    log_folder: Path | None = None,
    server: ForkServer | None = None,
) -> Supervisor:
    """Return the supervisor of a stack.

    Args:
        settings: The settings, which the processes read, too.
        environment: Environment of the processes.
        workers: Number of worker processes for the agents' queues.
        scheduler_threads: Number of threads of the scheduler's worker.
        log_folder: Folder for one log per process; None sends all lines to standard error.
        server: The server from which the processes are forked, or None; see ``fork_server``.
    """
    if log_folder is not None:
        private_folder(open_home(log_folder.parent) / log_folder.name)
    return Supervisor(
        programs(settings, workers=workers, scheduler_threads=scheduler_threads),
        environment=environment,
        output=Output(
            stream=None if log_folder else sys.stderr.buffer,
            folder=log_folder,
            say=lambda text: print(shown(f"agentchord: {text}"), file=sys.stderr, flush=True),
        ),
        grace_s=settings.engine.drain_grace_s + WIND_UP_S,
        server=server,
    )


@contextlib.contextmanager
def fork_server(
    settings: "Settings", environment: Mapping[str, str], *, simulator: bool = False
) -> Iterator[ForkServer | None]:
    """Run the server that imports everything that workers need; None where nothing can be forked.

    Args:
        settings: The settings, which name the providers and the keys.
        environment: Environment of the processes.
        simulator: Whether the simulator stands in for every provider.
    """
    if not CAN_FORK:
        yield None
        return
    keys = settings.key_variables()
    keyless = {name: value for name, value in environment.items() if name.upper() not in keys}
    # Without a key, no worker loads the SDK of a provider.
    protocols = {
        provider.protocol
        for provider in settings.all_providers()
        if simulator or settings.access_to(provider.name).usable
    }
    with ForkServer(keyless, sorted(protocols)) as server:
        yield server


def reloader(
    settings: "Settings", environment: Mapping[str, str], kept: Supervisor, *, workers: int
) -> Reloader:
    """Return the object that restarts the workers of a stack when their Python files change.

    Args:
        settings: The settings, which the processes read, too.
        environment: Environment of the processes.
        kept: The supervisor of the stack.
        workers: Number of worker processes for the agents' queues.
    """
    return Reloader(
        kept,
        workers=[f"worker{number}" for number in range(1, workers + 1)],
        imports=settings.imports,
        modules=user_modules(settings),
        environment=environment,
        output=kept.output,
    )


def simulated(simulator: "SimulatorProcess", settings: "Settings | None" = None) -> dict[str, str]:
    """Return environment variables that direct every provider's client to the simulator.

    Args:
        simulator: The simulator.
        settings: The settings that name further providers, or None.
    """
    variables = {} if settings is None else _simulated_providers(simulator, settings)
    return variables | {
        "OPENAI_BASE_URL": simulator.openai_base_url,
        "OPENAI_API_KEY": "simulated",
        "ANTHROPIC_BASE_URL": simulator.anthropic_base_url,
        "ANTHROPIC_API_KEY": "simulated",
    }


def unlimited(providers: Collection[str]) -> dict[str, str]:
    """Return environment variables that lift the built-in limits of providers."""
    limits = {name: None for name in vars(RateLimitConfig()) if name != "enforcement"}
    none = write_json(limits).decode()
    return {f"AGENTCHORD_RATE_LIMITS__{name.upper()}__DEFAULT": none for name in providers}


def simulated_token() -> str:
    """Return a token for the simulator, in place of a function of the configuration."""
    return "sim"


def _simulated_providers(simulator: "SimulatorProcess", settings: "Settings") -> dict[str, str]:
    variables: dict[str, str] = {}
    for provider in settings.all_providers():
        if given := settings.providers.get(provider.name):
            url = simulator.base_url_of(provider.protocol)
            variables[f"AGENTCHORD_PROVIDERS__{provider.name.upper()}__BASE_URL"] = url
            if given.api_key_env:
                variables[given.api_key_env] = "simulated"
            if given.credentials:
                path = f"{__name__}:{simulated_token.__name__}"
                variables[f"AGENTCHORD_PROVIDERS__{provider.name.upper()}__CREDENTIALS"] = path
    return variables
