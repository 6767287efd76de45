"""Structured logs: readable in a terminal, JSON elsewhere, without secrets in both."""

import logging
import sys
from contextvars import Context, copy_context
from typing import Protocol

import structlog

from app.telemetry.redaction import Redactor


class LoggingSettings(Protocol):
    """What has to be known: level name, and format ``auto``, ``console`` or ``json``."""

    @property
    def level(self) -> str:
        """DEBUG, INFO, WARNING or ERROR."""

    @property
    def format(self) -> str:
        """``auto``, ``console`` or ``json``."""


def configure_logging(settings: LoggingSettings, redactor: Redactor | None = None) -> None:
    """Send structlog and the standard library's logging to standard error in one form.

    Args:
        settings: Level and format.
        redactor: What hides secrets in every line; by default only what looks like a key.
    """
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redactor or Redactor(),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    # Celery announces every received message, which says nothing that the history does not.
    for noisy in ("alembic", "celery.worker.strategy", "celery.app.trace", "httpx2", "kombu"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def of_nobody() -> Context:
    """The context of a task that works for many: its log lines have the ids of none of them."""
    context = copy_context()
    context.run(structlog.contextvars.clear_contextvars)
    return context
