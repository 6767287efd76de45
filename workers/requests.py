"""Requests of Celery whose every event says what it is about.

Celery names a task only when it is received. A Flower that has started later would show tasks
without a name: those that were under way.
"""

from typing import Any

from celery.worker.request import Request


class NamedRequest(Request):
    """A request that names its task, and the ids it was given, in each event."""

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002  Celery's name
        """See Celery."""
        about = {"name": self.name, "args": self.argsrepr, "kwargs": self.kwargsrepr}
        super().send_event(type, **about, **fields)
