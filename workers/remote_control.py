"""Celery's remote control: by default, a worker obeys only the commands that Flower reads with.

Any client that may write to Redis can send commands to all workers, such as ``shutdown`` or
``cancel_consumer``. The setting ``engine.remote_control`` lets workers obey all commands.
"""

from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

import structlog
from celery.worker.control import Panel
from celery.worker.pidbox import Pidbox

#: Commands that only read, and ``enable_events``, by which Flower asks for the events of tasks.
READING = frozenset(
    {"ping", "stats", "active_queues", "registered", "scheduled", "active", "reserved", "revoked"}
    | {"conf", "enable_events"}
)

MAX_SHOWN_CHARS = 200

_Handler = Callable[..., Any]
_OnMessage = Callable[[Pidbox, Any, Any], None]

log = structlog.get_logger(__name__)


def install(*, obey_all: bool) -> None:
    """Make Celery's worker in this process read remote commands with care.

    Args:
        obey_all: Whether the worker obeys the commands that change something, too.
    """
    celery: Any = Pidbox
    celery.on_message = careful(celery.on_message)
    if not obey_all:
        restrict(Panel.data)


def careful(obey: _OnMessage) -> _OnMessage:
    """Return the handler of a worker's mailbox, but drop what is no command.

    Celery opens its mailbox anew after each malformed command, and may lose later commands
    meanwhile. A pattern for the names of workers would be evaluated without a limit of time.
    """

    def on_message(box: Pidbox, body: Any, message: Any) -> None:
        if _is_command(body) and _is_clocked(message.headers):
            obey(box, body, message)
        else:
            log.warning("command_dropped", command=repr(body)[:MAX_SHOWN_CHARS])

    return on_message


def restrict(commands: MutableMapping[str, _Handler]) -> None:
    """Replace every command that changes something by a refusal with one line of text."""
    reading = {commands[name] for name in READING}
    for name, handler in list(commands.items()):
        if handler not in reading:  # a command that reads keeps its other names, too
            commands[name] = partial(_refuse, name)


def _refuse(name: str, _state: Any, **_arguments: Any) -> dict[str, str]:
    return {
        "error": f"this worker does not obey the remote command {name!r}: set "
        "engine.remote_control to true in the configuration of the workers, and restart them"
    }


def _is_command(body: Any) -> bool:
    if not isinstance(body, Mapping) or body.get("pattern") is not None:
        return False
    kinds = {"arguments": Mapping, "destination": list, "reply_to": Mapping, "ticket": str}
    fit = all(isinstance(body.get(name), kind | None) for name, kind in kinds.items())
    return fit and isinstance(body.get("method"), str)


def _is_clocked(headers: Any) -> bool:
    return isinstance(headers, Mapping) and isinstance(headers.get("clock"), int | None)
