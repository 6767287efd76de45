"""Deliveries of messages from Redis to a worker; a malformed message is dropped and ends nothing.

Any client that may write to Redis can write anything into a queue. kombu passes the errors of such
a message on to Celery's loop, and these errors end the worker. A message of AgentChord is only a
permission, and the watchdog sends lost messages again. Therefore a message can be dropped.
"""

import contextlib
from queue import Empty
from typing import Any

import structlog
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError

from app.storage import celery_redis

MAX_SHOWN_CHARS = 200
#: Errors of the connection or of the process; a message is not their cause.
_NOT_OF_A_MESSAGE = (Empty, RedisError, OSError, OperationalError, MemoryError)

log = structlog.get_logger(__name__)


# kombu's stubs lack the methods that the classes below extend.
_Channel: Any = celery_redis.Channel
_Transport: Any = celery_redis.Transport


class Channel(_Channel):  # type: ignore[misc]
    """A channel that drops what is no message."""

    def _brpop_read(self, **options: Any) -> Any:
        """Read an item of a queue; see kombu."""
        try:
            return super()._brpop_read(**options)
        except ResponseError as error:
            if not _is_wrong_type(error):
                raise
            self.drop_foreign_keys()
        except _NOT_OF_A_MESSAGE:
            raise
        except Exception as error:  # noqa: BLE001  a stranger's bytes may cause any error
            _tell("an item of a queue", error)
        return True

    def _receive_one(self, c: Any) -> Any:
        """Read a published message; see kombu."""
        try:
            return super()._receive_one(c)
        except _NOT_OF_A_MESSAGE:
            raise
        except Exception as error:
            _tell("a published message", error)
            raise Empty from error

    def drop_foreign_keys(self) -> None:
        """Delete the queues of this channel that are no lists, so that the worker can go on."""
        keys = {
            self._q_for_pri(queue, priority): b"list"
            for queue in self.active_queues
            for priority in self.priority_steps
        }
        keys |= {self.unacked_key: b"hash", self.unacked_index_key: b"zset"}
        with self.conn_or_acquire() as client:
            for key, kind in keys.items():
                if client.type(key) not in (kind, b"none"):
                    client.delete(key)
                    log.warning("foreign_key_deleted", key=key, expected=kind.decode())


class Transport(_Transport):  # type: ignore[misc]
    """Redis, as a worker reads it."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        """Hand a message to its consumer; see kombu."""
        try:
            _refuse_compressed(message)
            super()._deliver(message, queue)
        except ResponseError as error:
            if not _is_wrong_type(error):
                raise
            for channel in self.channels:
                channel.drop_foreign_keys()
        except _NOT_OF_A_MESSAGE:
            raise
        except Exception as error:  # noqa: BLE001  a stranger's bytes may cause any error
            _tell(f"a message in {queue!r}", error)
            self._forget(message)

    def _forget(self, message: Any) -> None:
        """Take a message out of the deliveries in progress, so that it is not delivered again."""
        properties = message.get("properties") if isinstance(message, dict) else None
        tag: Any = properties.get("delivery_tag") if isinstance(properties, dict) else None
        for channel in self.channels:
            with contextlib.suppress(KeyError, TypeError):  # a tag may be any value
                channel.qos.get(tag)
                channel.basic_reject(tag, requeue=False)


def install() -> None:
    """Make Celery's worker in this process use this transport."""
    celery_redis.BrokerConnection.transport_class = Transport


def _refuse_compressed(message: Any) -> None:
    """Refuse a compressed message: its body may become gigabytes, and AgentChord sends none."""
    headers = message.get("headers") if isinstance(message, dict) else None
    if isinstance(headers, dict) and headers.get("compression"):
        raise ValueError("a message is compressed")


def _is_wrong_type(error: ResponseError) -> bool:
    return str(error).startswith("WRONGTYPE")


def _tell(what: str, error: Exception) -> None:
    problem = f"{type(error).__name__}: {error}"
    log.warning("message_dropped", message=what, error=problem[:MAX_SHOWN_CHARS])
