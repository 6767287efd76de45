"""Import all commands of `agentchord`, for a server from which the commands of tests are forked."""

import threading

from app.cli.application import COMMANDS

for command in COMMANDS:
    command.load()
assert threading.active_count() == 1, "a thread of the server would be missing in its forks"
