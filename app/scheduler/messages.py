"""Writes messages of Celery, so that a process sends them over the connection that it has already.

Celery's own way to send a message needs a thread, a producer and a second connection, and three
times the CPU. The text of a message is the same, which a test compares with the installed versions.
Only chords are sent by Celery itself.
"""

from bisect import bisect
from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu.transport.redis import PRIORITY_STEPS, Channel
from kombu.transport.virtual.base import Base64
from kombu.utils.json import dumps
from kombu.utils.uuid import uuid


def message_of(
    celery: Celery, task: str, args: Sequence[Any], *, queue: str, priority: int
) -> tuple[str, str]:
    """Return the key of the list in Redis to which a message belongs, and the text of the message.

    Args:
        celery: The Celery instance.
        task: Name of the task.
        args: The arguments of the task, as JSON values.
        queue: The queue, which is bound to the exchange of the same name.
        priority: 0 to 9; the message with the lowest number is served first.

    Example:
        key, text = message_of(celery, LANE, (run_id, 0, "openai", 1), queue="openai", priority=5)
        await redis.lpush(key, text)
    """
    made = celery.amqp.create_task_message(uuid(), task, args, {}, ignore_result=True)
    message = {
        "body": Base64().encode(dumps(made.body)),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": made.headers,
        "properties": {
            **made.properties,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": priority,
            "body_encoding": "base64",
            "delivery_tag": uuid(),
        },
    }
    step = PRIORITY_STEPS[bisect(PRIORITY_STEPS, priority) - 1]
    return queue_key(queue, step), dumps(message)


def queue_key(queue: str, step: int) -> str:
    """Return the key of the list with a queue's messages of one step of priorities."""
    return f"{queue}{Channel.sep}{step}" if step else queue
