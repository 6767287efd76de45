"""`agentchord demo`: starts everything, runs an example, shows the costs, stops everything."""

import asyncio
import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from app.bootstrap import call_planner
from app.cli.cluster import connect, quiet_logs
from app.cli.demo_home import cancel_leftovers, enter_home, set_variables
from app.cli.demo_report import compare_ledgers, print_costs
from app.cli.follow import follow
from app.cli.messages import say, tell
from app.cli.progress_views import best_view
from app.cli.run import outputs_of, show_outputs
from app.configuration.settings import load_settings
from app.domain.counts import counted
from app.domain.money import dollars
from app.domain.workflow import Workflow
from app.embedded.connected import connected_settings, database_url
from app.embedded.locks import FileLock
from app.errors import RunConflict
from app.examples import erp
from app.local_stack import stack
from app.local_stack.supervisor import inherited_environment
from app.monitoring.progress import RunProgress
from app.planning.worst_case import worst_case
from app.simulator import SimulatorProcess, run_in_process
from app.storage import schema

WORKERS = 2
LATENCY_S, JITTER_S = 0.25, 0.25


def demo(
    live: Annotated[
        bool, typer.Option("--live", help="Use the real providers, or the configured base URLs.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask for agreement; only for --live.")
    ] = False,
) -> int:
    """Run the ERP example on this machine and show its costs.

    The demo starts services and workers, uses the simulator, spends nothing and ignores keys in the
    environment. With --live the demo calls real providers; before these calls, the demo shows the
    worst-case cost and asks for agreement.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    program = _program()
    home = enter_home(live=live)
    try:
        if live and not _agreed(erp.WORKFLOW, yes=yes):
            return 1
        return _run(home, program, live=live)
    except KeyboardInterrupt:
        tell(file=sys.stderr)
        say("interrupted; everything is stopped")
        return 0


def _run(home: Path, program: str, *, live: bool) -> int:
    quiet_logs()
    with contextlib.ExitStack() as services:
        services.enter_context(_only_one(home))
        simulator: SimulatorProcess | None = None
        if not live:
            with _step("simulated OpenAI and Anthropic APIs"):
                latency = ("--latency", str(LATENCY_S), "--jitter", str(JITTER_S))
                simulator = services.enter_context(run_in_process(*latency))
            set_variables(stack.simulated(simulator))
        with _step("Postgres and Redis"):
            settings = connected_settings()
        with _step("database schema"):
            schema.upgrade(database_url(settings))
        run = asyncio.run(_work(home))
        return _show(run, simulator, program, home)


async def _work(home: Path) -> RunProgress:
    """Start the workers, run the example, and stop the workers."""
    connected = connect()
    await cancel_leftovers()
    supervisor = stack.supervisor(
        connected_settings(),
        inherited_environment(),
        workers=WORKERS,
        log_folder=home / "log",
    )
    async with contextlib.AsyncExitStack() as running:
        with _step(f"{WORKERS} workers and the scheduler"):
            await running.enter_async_context(supervisor)
        tell()
        run_id = await connected.run_async(
            lambda client: client.runs.enqueue(erp.WORKFLOW, erp.INPUT)
        )
        with best_view() as view:
            return await follow(run_id, view)


def _show(run: RunProgress, simulator: SimulatorProcess | None, program: str, home: Path) -> int:
    """Print outputs, costs, the comparison and the next steps; return the exit code."""
    show_outputs(outputs_of(run.id))
    tell()
    lines = print_costs(run.id)
    equal = simulator is None or compare_ledgers(lines, simulator.summary())
    tell(_what_next(run, program, home))
    return 0 if run.status == "completed" and equal else 1


def _agreed(workflow: Workflow, *, yes: bool) -> bool:
    bounds = worst_case(workflow, erp.INPUT, call_planner(load_settings()))
    once, limit = dollars(bounds.once_usd, most=6), dollars(bounds.limit_usd, most=6)
    tell(
        f"{counted(len(workflow.agents), 'agent')} on real providers: at most {once} if every call "
        f"succeeds at its first try, and never more than {limit} (the budgets)."
    )
    if yes:
        return True
    if not sys.stdin.isatty():
        say("there is no terminal to ask on: add --yes to agree")
        return False
    return typer.confirm("Spend it?")


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Refuse a second demo, because the second demo's workers would claim agents of the first."""
    lock = FileLock.attempt(home / "demo.lock")
    if lock is None:
        raise RunConflict(f"another demo is running in {str(home)!r}: wait for its end")
    with lock:
        yield


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    """Print the name of a step, and the seconds that the step took."""
    started_s = time.monotonic()
    tell(f"starting {name} ...", end=" ")
    yield
    tell(f"{time.monotonic() - started_s:.1f} s")


def _what_next(run: RunProgress, program: str, home: Path) -> str:
    here = f"AGENTCHORD_HOME={home} {program}"
    return f"""
What to try next:
  {here} status {run.id}
      shows the same run again, from Postgres
  {program} up --simulator
      runs the whole stack in this terminal; then, in another terminal:
  {program} run app.examples.basic --follow
      runs three agents and a tool; the source is app/examples/basic.py
  {program} doctor
      shows what is missing for real providers, or for your own Postgres and Redis"""


def _program() -> str:
    """Return the command that started this process; the working directory must not have changed."""
    called = Path(sys.argv[0]).absolute()
    if called.name != "agentchord":
        return f"{sys.executable} -m app.cli"
    return "agentchord" if shutil.which("agentchord") == str(called) else str(called)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """End the demo on SIGTERM in the same way as on Ctrl-C."""
    raise KeyboardInterrupt
