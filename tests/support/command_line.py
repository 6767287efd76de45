"""The commands, options and queues of `agentchord`, for tests of texts that name these."""

import re
from functools import cache
from typing import Any

from app.cli.application import COMMANDS
from app.domain.agent import PROVIDERS
from app.domain.kinds import QUEUES_OF_KINDS

QUEUES = {*PROVIDERS, *QUEUES_OF_KINDS.values(), "agents", "scheduler"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def is_known(command: str, arguments: str) -> bool:
    """Return whether a command exists with these options; for a worker, also with these queues."""
    longer = f"{command} {arguments.split(maxsplit=1)[0]}" if arguments.split() else command
    known = options().get(longer, options().get(command))
    named = set(OPTION.findall(arguments.partition(" -- ")[0]))
    if known is None or (known and not named <= known):
        return False
    words = arguments.partition(" -")[0].split() if command == "worker" else []
    return {word for word in words if word.isalpha()} <= QUEUES


@cache
def options() -> dict[str, set[str]]:
    """Return the options by command and subcommand; the set is empty for a foreign command."""
    commands: dict[str, Any] = {each.name: each.load() for each in COMMANDS}
    for name, command in list(commands.items()):
        inner = getattr(command, "commands", {})
        commands |= {f"{name} {own}": part for own, part in inner.items()}
    found: dict[str, set[str]] = {}
    for name, command in commands.items():
        words = {word for part in command.params for word in (*part.opts, *part.secondary_opts)}
        found[name] = set() if name == "simulator" else words | {"--help", "--debug"}
    return found
