"""Who may look at Flower: a password by default, also for the plain ``celery -A app flower``.

Flower knows no default for any of this. It imports the application's modules after it has read its
options and before it listens, which is when ``protect`` is called.
"""

import secrets
import sys
from typing import Any

import click

LOCAL = "127.0.0.1"
USER = "agentchord"


def is_flower() -> bool:
    """Whether this process is being made Flower by the command line of Celery."""
    context = click.get_current_context(silent=True)
    return context is not None and context.info_name == "flower"


def protect() -> None:
    """Have Flower ask for an account, and listen on this machine only unless told otherwise.

    What Flower was given, ``--basic-auth``, ``--auth``, its variables or its configuration file,
    goes before the setting ``flower_basic_auth``. Without any of them the password is a new one,
    which is printed once.

    Raises:
        ConfigurationError: If the settings cannot be read.
        ClickException: If an account lacks a name or a password.
    """
    from flower.views.monitor import Metrics  # type: ignore[import-untyped]
    from tornado.options import options
    from tornado.web import authenticated

    if not options.address and not options.unix_socket:
        options.address = LOCAL
    # Flower leaves its metrics, which have the names of all agents, open to everybody.
    Metrics.get = authenticated(Metrics.get)
    if options.auth:
        return
    if not any(options.basic_auth or ()):
        options.basic_auth = [_account(options)]
    for account in options.basic_auth:
        user, _, password = account.partition(":")
        if not user or not password:
            raise click.ClickException(
                "Flower's account needs a name and a password: write it as user:password"
            )


def _account(options: Any) -> str:
    """The configured ``user:password``, or a new one."""
    from app.settings import load_settings

    if (stored := load_settings().flower_basic_auth) is not None:
        return stored.get_secret_value()
    password = secrets.token_urlsafe(12)
    place = options.unix_socket or f"http://{options.address}:{options.port}"
    sys.stdout.write(f"Flower at {place}, user {USER}, password {password}\n")
    sys.stdout.flush()
    return f"{USER}:{password}"
