"""The Celery instance: ``celery -A app worker``; its settings are in celeryconfig.py."""

from celery import Celery

app = Celery("agentchord")
app.config_from_object("celeryconfig")

#: Names of the tasks. Messages are sent by name, so that clients never import the workers.
ADVANCE = "agentchord.advance"
LANE = "agentchord.lane"
SCHEDULER_QUEUE = "scheduler"
