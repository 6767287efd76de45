"""The command line as a whole: the commands, and the handling of the commands' errors.

A command's module is imported only when the command runs or the command's own help is printed.
Until then the command is represented by its name and one line of help, so ``agentchord --help``
takes almost no time.

Every error is one line on standard error. Exit code 0 means that the command succeeded, 1 that the
command failed, 2 that the command line is wrong, and 130 that the user interrupted the command. If
a command has other exit codes, the command's help states these codes.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from app.cli.messages import say
from app.concurrency.error_texts import class_name, message_of
from app.domain.plain_text import shown
from app.errors import AgentChordError, SeveralMistakes

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
DEBUG = "--debug"


class Command(NamedTuple):
    """A command that is not imported yet.

    Attributes:
        name: The command's name in a command line; a name of two words has a space.
        place: A module of this package, and the function or ``typer.Typer`` in this module.
        summary: The first line of the command's help.
        context: Settings of the command's Click context.
    """

    name: str
    place: str
    summary: str
    context: Mapping[str, object] = {}

    def load(self) -> Any:
        """Import the Click command, with its parameters and its whole help."""
        module, _, attribute = self.place.partition(":")
        found = getattr(import_module(f"app.cli.{module}"), attribute)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(rich_markup_mode=None, add_completion=False)
            alone.command(self.name, context_settings=dict(self.context))(found)
            found = alone
        return get_command(found)


#: All commands, in the order of the help.
COMMANDS = (
    Command("demo", "demo:demo", "Run the ERP example on this machine and show its costs."),
    Command("up", "up:up", "Run the whole stack in this terminal."),
    Command("run", "run:run", "Start a workflow and print the id of its run."),
    Command("plan", "plan:plan", "Forecast what a run needs, without any call."),
    Command("schema", "schema:schema", "Print the JSON Schema of workflow files, for editors."),
    Command("runs", "runs:runs", "List the newest runs."),
    Command("status", "runs:status", "Show a run: its levels, agents, states, errors and costs."),
    Command(
        "output", "results:output", "Print the whole outputs of a run's agents, or of one agent."
    ),
    Command("watch", "watch:watch", "Watch a run live: levels, agents, cost and waits."),
    Command("logs", "logs:logs", "Show the history of a run, from Postgres: a line per event."),
    Command(
        "explain", "explain:explain", "Explain why a run waits or failed, is slow or expensive."
    ),
    Command("report", "report:report", "Write a report of a run: one page of HTML."),
    Command("pause", "control:pause", "Pause a run until it is resumed."),
    Command("resume", "control:resume", "Resume a paused run."),
    Command("cancel", "runs:cancel", "Stop a run."),
    Command(
        "retry",
        "control:retry",
        "Repair a run: repeat what failed or completed in part.",
    ),
    Command("rerun", "control:rerun", "Run a workflow again from one of its agents on."),
    Command("costs", "costs:costs", "Show the costs of calls, including failed calls."),
    Command("costs reprice", "reprice:reprice", "Price calls again and book the difference."),
    Command(
        "psql", "psql:psql", "Open psql on the database of the runs and the ledger.", PASSED_ON
    ),
    Command("prices", "prices:prices", "Show the price of a million tokens for each model."),
    Command("prune", "prune:prune", "Remove the payload of old runs, but never their costs."),
    Command("doctor", "doctor:doctor", "Check that everything a run needs is in place."),
    Command("migrate", "database:migrate", "Migrate the database to the schema of this version."),
    Command(
        "worker", "processes:worker", "Run one worker process: a plain Celery worker.", PASSED_ON
    ),
    Command("beat", "processes:beat", "Run Celery beat for your own schedules.", PASSED_ON),
    Command("flower", "processes:flower", "Run Flower, which shows workers and agents.", PASSED_ON),
    Command("exporter", "exporter:exporter", "Serve the cluster's metrics for Prometheus."),
    Command(
        "simulator",
        "simulator:simulator",
        "Serve simulated OpenAI and Anthropic APIs.",
        {**PASSED_ON, "help_option_names": []},
    ),
    Command("version", "version:version", "Print the version."),
    Command("limits", "limits:group", "Show the current rate limits, or change them."),
    Command("budgets", "budgets:group", "List the standing budgets, or change them."),
)


class Commands(TyperGroup):
    """The commands, by name and with one line of help; only the command that runs is imported."""

    def __init__(self, **attributes: Any) -> None:
        named = {
            each.name: TyperCommand(each.name, help=each.summary, rich_markup_mode=None)
            for each in COMMANDS
        }
        super().__init__(**attributes | {"commands": named})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find a command by its name, to run the command or to complete its options."""
        name, command, rest = super().resolve_command(ctx, args)
        found = next((each.load() for each in COMMANDS if each.name == name), command)
        return name, found, rest


def create() -> typer.Typer:
    """Return the Typer application."""
    application = typer.Typer(
        name="agentchord",
        cls=Commands,
        help="Runs fleets of LLM agents on Celery, with shared rate limits, budgets and a ledger.",
        epilog="Start with `agentchord demo`: it needs no keys and spends nothing.",
        no_args_is_help=True,
        # Plain help starts twice as fast as Rich help. In a pipe, plain help and Rich help look the
        # same.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    application.callback()(_global_options)
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
        say(f"{_one_line(error.format_message())}{_usage_hint(error)}")
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except SystemExit:
        raise  # a command ends the program
    except BaseException as error:  # an object of a user may raise any exception
        if debug:
            raise
        say(explain(error))
        return 1
    return code if isinstance(code, int) else 0


def explain(error: BaseException) -> str:
    """Return an error as one readable line; several mistakes have one line each."""
    if isinstance(error, SeveralMistakes):
        return str(error)
    text = _one_line(message_of(error))
    if isinstance(error, AgentChordError):
        return text or type(error).__name__
    if isinstance(error, OSError):
        return text
    kind = class_name(error)
    return f"{f'{kind}: {text}' if text else kind} (add {DEBUG} to see where)"


def _global_options(
    debug: Annotated[
        bool,
        typer.Option(
            DEBUG, help="Show a traceback if the command fails; allowed anywhere in the line."
        ),
    ] = False,
) -> None:
    """Take the options that every command has."""


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split at ``--``, because the words after ``--`` are for another program."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:end]), list(arguments[end:])


def _joined(words: list[str]) -> list[str]:
    """Join the two words of a command such as ``costs reprice``."""
    command = " ".join(words[:2])
    known = any(command == each.name for each in COMMANDS)
    return [command, *words[2:]] if known else words


def _usage_hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context is not None else ""


def _one_line(text: str) -> str:
    # Only a line break begins a line; str.splitlines would also split at characters that are shown.
    return " | ".join(line.strip() for line in shown(text).split("\n") if line.strip())
