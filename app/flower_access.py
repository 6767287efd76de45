"""Access to Flower: a password by default, also for the plain ``celery -A app flower``.

Flower itself asks for no password by default. Flower imports the application's modules after Flower
has read its options and before Flower listens; at that moment, ``protect`` is called. If the
configuration cannot work, this module ends Flower with one line, because Celery and tornado would
show a traceback.
"""

import atexit
import logging
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import click
from celery import Celery
from kombu.exceptions import OperationalError

LOCAL = "127.0.0.1"
USER = "agentchord"
#: If no worker has answered after this number of seconds, a message reports the silence.
ANSWER_S = 2.0


def is_flower() -> bool:
    """Return whether the command line of Celery is starting Flower in this process."""
    context = click.get_current_context(silent=True)
    return context is not None and context.info_name == "flower"


def protect(celery: Celery, *, prepare: Callable[[str], None]) -> None:
    """Make Flower ask for an account and, by default, listen only on this machine.

    The accounts of Flower's own options (``--basic-auth``, ``--auth``), of Flower's environment
    variables and of Flower's configuration file take precedence over the setting
    ``flower_basic_auth``. If no account is configured, a new password is made and printed once.

    Args:
        celery: Celery application of the workers that are asked for an answer.
        prepare: Checks the broker at a URL, and prepares Flower for this broker.

    Raises:
        SystemExit: If the account cannot be used, or the port is not free. Before this error, the
            reason is printed in one line.
    """
    from flower.views.monitor import Metrics  # type: ignore[import-untyped]
    from tornado.options import options
    from tornado.web import authenticated

    from app.errors import AgentChordError

    if not options.address and not options.unix_socket:
        options.address = LOCAL
    # Flower's metrics contain the names of all agents, but by default these metrics need no
    # password.
    Metrics.get = authenticated(Metrics.get)
    try:
        accounts = _accounts(options)
        _check_port(options)
        # Reading the URL starts the built-in services, and registers their exit handlers.
        prepare(celery.conf.broker_url)
    except (AgentChordError, click.ClickException) as error:
        # The error does not go on to Celery, because Celery logs the traceback of an error that
        # is raised in a signal.
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(1) from error
    sys.stdout.write(f"Flower at {_place(options)}, {accounts}\n")
    sys.stdout.flush()
    # When Flower ends, the built-in services end before the thread of Flower that listens to the
    # services. The error of that thread does not matter, so an exit handler silences the log of
    # that thread. Exit handlers run in reverse order, so the exit handlers of the services run
    # last.
    atexit.register(logging.getLogger("flower.events").setLevel, logging.CRITICAL)
    threading.Thread(target=_miss_workers, args=(celery,), name="workers", daemon=True).start()


def _accounts(options: Any) -> str:
    """Describe the accounts that can log in; if no account is configured, make an account."""
    if options.auth:
        if not (options.auth_provider and options.oauth2_key):
            raise click.ClickException(
                "Flower's --auth needs an OAuth provider: add --auth-provider, --oauth2-key, "
                "--oauth2-secret and --oauth2-redirect-uri, or give --basic-auth instead"
            )
        return "for the accounts of its OAuth provider"
    new = not any(options.basic_auth or ())
    if new and (stored := _stored()) is not None:
        options.basic_auth, new = [stored], False
    if new:
        password = secrets.token_urlsafe(12)
        options.basic_auth = [f"{USER}:{password}"]
        return f"user {USER}, password {password}"
    users = []
    for account in options.basic_auth:
        user, _, password = account.partition(":")
        if not user or not password:
            raise click.ClickException(
                "Flower's account needs a name and a password: write it as user:password"
            )
        users.append(user)
    return f"{'user' if len(users) == 1 else 'users'} {', '.join(users)}"


def _stored() -> str | None:
    """Return the configured ``user:password``, or None if no account is configured."""
    from app.configuration.settings import load_settings

    stored = load_settings().flower_basic_auth
    return None if stored is None else stored.get_secret_value()


def _check_port(options: Any) -> None:
    if options.unix_socket:
        return
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    try:
        socket.create_server((options.address, options.port), family=family).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.ClickException(
            f"Flower cannot listen on port {options.port} of {options.address}: {reason}; "
            "choose another port with --port (or another address with --address)"
        ) from error


def _place(options: Any) -> str:
    if options.unix_socket:
        return str(options.unix_socket)
    scheme = "https" if options.certfile and options.keyfile else "http"
    prefix = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
    return f"{scheme}://{options.address}:{options.port}{prefix}"


def _miss_workers(celery: Celery) -> None:
    """Report if no worker answers, because Flower's pages would be empty without an explanation."""
    try:
        answers = celery.control.ping(timeout=ANSWER_S, limit=1)
    except (OperationalError, OSError):
        return  # Flower reports a broker that does not answer
    if not answers:
        sys.stderr.write("no worker answers yet: start workers with `agentchord up`\n")
        sys.stderr.flush()
