"""Structured logs: text in a terminal, and JSON elsewhere. Both forms hide secrets."""

import logging
import sys
from contextvars import Context, copy_context
from typing import Any, Protocol

import structlog

from app.domain.plain_text import shown
from app.telemetry.redaction import Redactor


class LoggingSettings(Protocol):
    """The settings that ``configure_logging`` needs."""

    @property
    def level(self) -> str:
        """Lowest level that is logged: DEBUG, INFO, WARNING or ERROR."""

    @property
    def format(self) -> str:
        """Format of the lines: ``auto``, ``console`` or ``json``."""


def configure_logging(settings: LoggingSettings, redactor: Redactor | None = None) -> None:
    """Send the logs of structlog and of the standard library to standard error, in one format.

    Args:
        settings: Level and format of the logs.
        redactor: Object that hides secrets in every line; the default hides only strings that look
            like a key.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    console = settings.format == "console" or (settings.format == "auto" and terminal)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # JSON escapes control characters by itself.
    renderers: list[structlog.typing.Processor] = (
        [_plain, structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.JSONRenderer()]
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
                *renderers,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    # At level INFO, Celery logs every message. The history of a run records the same facts.
    for noisy in ("alembic", "celery.worker.strategy", "celery.app.trace", "httpx2", "kombu"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _plain(
    _logger: Any, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Make control characters visible; the renderer writes values of other types as their repr."""
    return {key: shown(each) if isinstance(each, str) else each for key, each in line.items()}


def of_nobody() -> Context:
    """Return a context for a task of several runs; the task's log lines have no run ids."""
    context = copy_context()
    context.run(structlog.contextvars.clear_contextvars)
    return context
