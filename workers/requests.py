"""Celery's requests, with the task's name in every event.

Celery sends the name of a task only when the task is received. A Flower server that has started
later would therefore show the tasks in progress without a name.
"""

from typing import Any

from celery.worker.request import Request


class NamedRequest(Request):
    """A request whose events all contain the task's name and arguments; the arguments are ids."""

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002  Celery's name
        """Send an event with the name and arguments of the task; see Celery."""
        about = {"name": self.name, "args": self.argsrepr, "kwargs": self.kwargsrepr}
        super().send_event(type, **about, **fields)
