"""The command line as a whole: which commands there are, and what becomes of an error.

Every error is one line on standard error. Exit codes: 0 done, 1 it failed, 2 it was asked for in
the wrong way, 130 interrupted; what else a command returns stands in its help.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from app.cli import (
    budgets,
    control,
    costs,
    database,
    demo,
    doctor,
    exporter,
    limits,
    logs,
    plan,
    prices,
    processes,
    prune,
    report,
    reprice,
    run,
    runs,
    schema,
    simulator,
    up,
    version,
    watch,
)
from app.cli import explain as explanations

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
DEBUG = "--debug"
#: In the order of the help: the way of a new user, from top to bottom.
COMMANDS: tuple[tuple[str, Callable[..., Any] | typer.Typer, dict[str, Any]], ...] = (
    ("demo", demo.demo, {}),
    ("up", up.up, {}),
    ("run", run.run, {}),
    ("plan", plan.plan, {}),
    ("schema", schema.schema, {}),
    ("runs", runs.runs, {}),
    ("status", runs.status, {}),
    ("watch", watch.watch, {}),
    ("logs", logs.logs, {}),
    ("explain", explanations.explain, {}),
    ("report", report.report, {}),
    ("pause", control.pause, {}),
    ("resume", control.resume, {}),
    ("cancel", runs.cancel, {}),
    ("retry", control.retry, {}),
    ("rerun", control.rerun, {}),
    ("costs", costs.costs, {}),
    ("costs reprice", reprice.reprice, {}),
    ("prices", prices.prices, {}),
    ("limits", limits.group, {}),
    ("budgets", budgets.group, {}),
    ("prune", prune.prune, {}),
    ("doctor", doctor.doctor, {}),
    ("migrate", database.migrate, {}),
    ("worker", processes.worker, PASSED_ON),
    ("beat", processes.beat, PASSED_ON),
    ("flower", processes.flower, PASSED_ON),
    ("exporter", exporter.exporter, {}),
    ("simulator", simulator.simulator, PASSED_ON | {"help_option_names": []}),
    ("version", version.version, {}),
)


def create() -> typer.Typer:
    """The Typer application."""
    application = typer.Typer(
        name="agentchord",
        help="Runs fleets of LLM agents on Celery, with shared rate limits, budgets and a ledger.",
        epilog="Start with `agentchord demo`: it needs no keys and spends nothing.",
        no_args_is_help=True,
        # Plain help starts twice as fast as one drawn by Rich, and reads the same in a pipe.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    application.callback()(_global_options)
    for name, command, context in COMMANDS:
        if isinstance(command, typer.Typer):
            application.add_typer(command, name=name)
        else:
            application.command(name, context_settings=context)(command)
    return application


def execute(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: Everything after the program's name.

    Returns:
        Exit code.
    """
    own, passed_on = _split(arguments)
    debug = DEBUG in own
    words = _joined([word for word in own if word != DEBUG]) + passed_on
    try:
        code = create()(words, prog_name="agentchord", standalone_mode=False)
    except typer.TyperException as error:
        _say(f"{_one_line(error.format_message())}{_usage_hint(error)}")
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        if debug:
            raise
        _say(explain(error))
        return 1
    return code if isinstance(code, int) else 0


def explain(error: Exception) -> str:
    """An error as one readable line."""
    from app.errors import AgentChordError

    text = _one_line(str(error))
    if isinstance(error, AgentChordError):
        return text or type(error).__name__
    if isinstance(error, OSError):
        return text
    kind = type(error).__name__
    return f"{f'{kind}: {text}' if text else kind} (add {DEBUG} to see where)"


def _global_options(
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show a traceback when something fails; may stand anywhere.")
    ] = False,
) -> None:
    pass


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words up to ``--``, and the rest, which is meant for another program."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:end]), list(arguments[end:])


def _joined(words: list[str]) -> list[str]:
    """The words with a command of two words, such as ``costs reprice``, made one."""
    command = " ".join(words[:2])
    known = any(command == name for name, _, _ in COMMANDS)
    return [command, *words[2:]] if known else words


def _usage_hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context is not None else ""


def _one_line(text: str) -> str:
    return " | ".join(line.strip() for line in text.splitlines() if line.strip())


def _say(text: str) -> None:
    sys.stderr.write(f"agentchord: {text}\n")
