"""The Celery instance: ``celery -A app worker``; the settings are in celeryconfig.py."""

from typing import Any

from celery import Celery
from celery.signals import import_modules

from app.flower_access import is_flower, protect

app = Celery("agentchord", amqp="app.storage.celery_redis:AMQP")
app.config_from_object("celeryconfig")

#: Names of the tasks. Tasks are sent by name, so that clients never import the workers.
ADVANCE = "agentchord.advance"
LANE = "agentchord.lane"
LANES = "agentchord.lanes"
SCHEDULER_QUEUE = "scheduler"


@import_modules.connect
def protect_flower(**_: Any) -> None:
    """Make Flower ask for a password, once Flower has read its options and does not listen yet."""
    if is_flower():
        from app.storage.celery_redis import prepare_flower  # noqa: PLC0415  only Flower needs it

        protect(app, prepare=prepare_flower)
