"""`agentchord worker`, `beat` and `flower`: the plain Celery commands, with their arguments."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from app.configuration.settings import load_settings
from app.domain.suggestions import did_you_mean, listed
from app.local_stack.command_lines import worker_arguments
from app.local_stack.stack import AGENTS, SCHEDULER, SCHEDULER_THREADS
from app.local_stack.supervisor import inherited_environment


def worker(
    queues: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[QUEUES]...",
            help="Queues: providers, 'function', 'http', 'scheduler', or 'agents' for all queues "
            "but the scheduler's; by default, every queue.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Number of lanes at a time; the default is in the settings."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="First part of the node's name.")] = None,
) -> None:
    """Run one worker process: a plain Celery worker.

    Options that are not listed here, such as --loglevel debug, go to Celery.
    """
    settings = load_settings()
    words, passed_on = _split(list(queues or []))
    wanted = queues_of(words, settings.agent_queues)
    default = SCHEDULER_THREADS if wanted == (SCHEDULER,) else settings.engine.worker_threads
    _become(
        *worker_arguments(
            wanted,
            threads=threads or default,
            name=name or "-".join(words) or "worker",
        ),
        *passed_on,
    )


def beat(context: typer.Context) -> None:
    """Run Celery beat for your own schedules.

    AgentChord itself needs no beat: its watchdog runs in every worker. Other options go to Celery.
    """
    _become("-A", "app", "beat", *context.args, keyless=True)


def flower(
    context: typer.Context,
    address: Annotated[
        str, typer.Option(help="Address to listen on.", envvar="FLOWER_ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on.", envvar="FLOWER_PORT", min=0, max=65535)
    ] = 5555,
    logging: Annotated[
        str,
        typer.Option(help="Level of Flower's log: info, warning, error.", envvar="FLOWER_LOGGING"),
    ] = "error",
) -> None:
    """Run Flower, which shows workers and agents.

    Other options go to Flower. Flower asks for a user and a password. FLOWER_BASIC_AUTH
    (user:password) or the setting flower_basic_auth gives this user and password. If neither is
    set, a new password is made and printed together with the user.
    """
    own = f"--address={address}", f"--port={port}", f"--logging={logging}"
    _become("-A", "app", "flower", *own, *context.args, keyless=True)


def queues_of(words: Sequence[str], agents: Sequence[str]) -> tuple[str, ...]:
    """Return the queues that a worker serves.

    Args:
        words: Names of queues. The word ``agents`` means all queues except the scheduler's queue.
            An empty list means every queue.
        agents: Names of the queues that carry agents.

    Raises:
        typer.BadParameter: If a word is not the name of a queue.
    """
    known = (*agents, SCHEDULER)
    wanted: list[str] = []
    for word in words:
        if word == AGENTS:
            wanted += agents
        elif word in known:
            wanted.append(word)
        else:
            raise typer.BadParameter(
                f"there is no queue {word!r}, only {listed((*known, AGENTS))}"
                f"{did_you_mean(word, known)}"
            )
    return tuple(dict.fromkeys(wanted)) or known


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Separate the queues from Celery's options; the options come after the queues."""
    end = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:end], words[end:]


def _become(*arguments: str, keyless: bool = False) -> NoReturn:
    """Replace this process with Celery's command, without the keys of providers if they are none.

    Args:
        *arguments: Arguments of Celery.
        keyless: Whether the new process gets no keys.
    """
    sys.stdout.flush()
    environment = load_settings().environment_without_keys() if keyless else None
    kept = environment or inherited_environment()
    os.execve(sys.executable, [sys.executable, "-m", "celery", *arguments], kept)  # noqa: S606
