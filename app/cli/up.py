"""`agentchord up`: the whole stack in one terminal."""

import asyncio
import contextlib
import signal
import sys
from asyncio import get_running_loop
from collections.abc import Collection, Mapping
from json import dumps
from typing import Annotated, Any, NoReturn

import typer

from app.cli.messages import say, tell
from app.cli.preparation import Limit, Preparation, Prepared
from app.configuration.settings import Settings, load_settings
from app.embedded.connected import launch_services
from app.local_stack import stack
from app.local_stack.reloader import Reloader
from app.local_stack.supervisor import Supervisor, inherited_environment

STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(
    workers: Annotated[
        int,
        typer.Option(min=1, help="Number of worker processes; each serves every provider's queue."),
    ] = 2,
    scheduler_threads: Annotated[
        int, typer.Option(min=1, help="Number of threads of the scheduler's process.")
    ] = 16,
    simulator: Annotated[
        bool, typer.Option("--simulator", help="Use simulated providers: no keys, no cost.")
    ] = False,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload", help="Restart the workers when the files of their modules change."
        ),
    ] = False,
    log_files: Annotated[
        bool,
        typer.Option("--log-files", help="Write one log per process to the home's log folder."),
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65_535,
            help="First port of the workers' metrics for Prometheus; each process takes the next "
            "free port.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the ready line as JSON.")] = False,
) -> None:
    """Run the whole stack in this terminal.

    The stack has the workers and the scheduler. If no URLs are given, the stack also has Postgres
    and Redis. The command first migrates the database, and prints one line when every process is
    ready. If a process dies, the command starts it again. Ctrl-C or SIGTERM ends the whole stack;
    calls in flight get engine.drain_grace_s to finish.
    """
    for number in STOPPING_SIGNALS:
        signal.signal(number, _leave)

    with contextlib.ExitStack() as services:
        settings = load_settings()
        server = services.enter_context(
            stack.fork_server(settings, inherited_environment(), simulator=simulator)
        )
        preparation = services.enter_context(Preparation())
        launch_services(settings)
        variables: dict[str, str] = {}
        # The simulator has no limits, so only limits that somebody has chosen apply to it.
        lifted = set(settings.provider_names) - settings.rate_limits.keys() if simulator else set()
        if simulator:
            from app.simulator import run_in_process

            simulated = stack.simulated(services.enter_context(run_in_process()), settings)
            variables = simulated | stack.unlimited(lifted)
            # Users of the simulator often run the examples.
            examples = ("app.examples.tools", "app.examples.functions")
            imports = dict.fromkeys([*settings.imports, *examples])
            variables["AGENTCHORD_IMPORTS"] = ",".join(imports)
        if settings.logging.format == "auto" and sys.stderr.isatty() and not log_files:
            variables["AGENTCHORD_LOGGING__FORMAT"] = "console"
        if metrics_port is not None:
            variables["AGENTCHORD_MONITORING__METRICS_PORT"] = str(metrics_port)
        environment = inherited_environment(**variables)
        supervisor = stack.supervisor(
            settings,
            environment,
            workers=workers,
            scheduler_threads=scheduler_threads,
            log_folder=settings.home / "log" if log_files else None,
            server=server,
        )
        prepared = preparation.result()
        facts = _facts(settings, workers, prepared) | {"limits": _told(prepared.limits, lifted)}
        if simulator:
            facts["simulator"] = {key: variables[key] for key in variables if "BASE_URL" in key}
        reloader = (
            stack.reloader(settings, environment, supervisor, workers=workers) if reload else None
        )
        asyncio.run(_serve(supervisor, facts, reloader, json=json))


async def _serve(
    supervisor: Supervisor, facts: dict[str, Any], reloader: Reloader | None, *, json: bool
) -> None:
    loop = get_running_loop()
    for number in STOPPING_SIGNALS:
        loop.add_signal_handler(number, supervisor.stop)
    async with supervisor:
        if not supervisor.stopping:
            _say_ready(facts | {"pids": supervisor.pids}, json=json)
        watching = asyncio.create_task(reloader.run()) if reloader else None
        try:
            await supervisor.wait()
        finally:
            if watching:
                watching.cancel()
        say("stopping; a second Ctrl-C kills the processes")


def _facts(settings: Settings, workers: int, prepared: Prepared) -> dict[str, Any]:
    return {
        "ready": True,
        "workers": workers,
        "postgres": prepared.postgres,
        "redis": prepared.redis,
        "home": str(settings.home),
    }


def _told(limits: Mapping[str, Limit], lifted: Collection[str]) -> dict[str, str]:
    """Return the limit of each provider's requests, for the ready line.

    Args:
        limits: The limits by provider.
        lifted: The providers whose built-in limits do not apply.
    """
    told = {}
    for provider, limit in limits.items():
        per_minute = limit.requests_per_minute
        if per_minute is None or (limit.built_in and provider in lifted):
            told[provider] = "none"
        else:
            told[provider] = f"{per_minute:,}/min{' (built-in)' if limit.built_in else ''}"
    return told


def _say_ready(facts: dict[str, Any], *, json: bool) -> None:
    count = facts["workers"]
    text = (
        f"ready: {count} {'worker' if count == 1 else 'workers'}, scheduler, "
        f"Postgres at {facts['postgres']}, Redis at {facts['redis']}"
    )
    if simulator := facts.get("simulator"):
        text += f", simulator at {simulator['OPENAI_BASE_URL']}"
    limits = ", ".join(f"{provider} {limit}" for provider, limit in facts["limits"].items())
    text += f"; limits of requests: {limits}"
    tell(dumps(facts) if json else text)


def _leave(_number: int, _frame: object) -> NoReturn:
    """Exit at once, because a stack that has not started has no calls to drain."""
    raise SystemExit(0)
