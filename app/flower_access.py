"""Who may look at Flower: a password by default, also for the plain ``celery -A app flower``.

Flower knows no default for any of this. It imports the application's modules after it has read its
options and before it listens, which is when ``protect`` is called. What cannot work is refused
here in one line, because Celery and tornado show a traceback for it.
"""

import atexit
import logging
import secrets
import socket
import sys
import threading
from typing import Any

import click
from celery import Celery
from kombu.exceptions import OperationalError

LOCAL = "127.0.0.1"
USER = "agentchord"
#: How long workers have to answer before they are missed.
ANSWER_S = 2.0


def is_flower() -> bool:
    """Whether this process is being made Flower by the command line of Celery."""
    context = click.get_current_context(silent=True)
    return context is not None and context.info_name == "flower"


def protect(celery: Celery) -> None:
    """Have Flower ask for an account, and listen on this machine only unless told otherwise.

    What Flower was given, ``--basic-auth``, ``--auth``, its variables or its configuration file,
    goes before the setting ``flower_basic_auth``. Without any of them the password is a new one,
    which is printed once.

    Args:
        celery: Whose workers are missed if none answers.

    Raises:
        SystemExit: If it has no account, or the port is not free, after one line that says so.
    """
    from flower.views.monitor import Metrics  # type: ignore[import-untyped]
    from tornado.options import options
    from tornado.web import authenticated

    from app.errors import AgentChordError

    if not options.address and not options.unix_socket:
        options.address = LOCAL
    # Flower leaves its metrics, which have the names of all agents, open to everybody.
    Metrics.get = authenticated(Metrics.get)
    try:
        accounts = _accounts(options)
        _check_port(options)
    except (AgentChordError, click.ClickException) as error:
        # Not left to Celery: of what is raised in a signal it logs the traceback first.
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(1) from error
    sys.stdout.write(f"Flower at {_place(options)}, {accounts}\n")
    sys.stdout.flush()
    # When Flower ends, built-in services end before the thread that listens to them, which is no
    # error. Reading the settings has them started, and so their end comes after what is registered
    # from here on.
    _ = celery.conf.broker_url
    atexit.register(logging.getLogger("flower.events").setLevel, logging.CRITICAL)
    threading.Thread(target=_miss_workers, args=(celery,), name="workers", daemon=True).start()


def _accounts(options: Any) -> str:
    """Who may look, in words; without any account there is one from now on."""
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
    """The configured ``user:password``."""
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
            "give it another one with --port (or --address)"
        ) from error


def _place(options: Any) -> str:
    if options.unix_socket:
        return str(options.unix_socket)
    scheme = "https" if options.certfile and options.keyfile else "http"
    prefix = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
    return f"{scheme}://{options.address}:{options.port}{prefix}"


def _miss_workers(celery: Celery) -> None:
    """Say so if no worker runs: Flower's pages would stay empty without a word."""
    try:
        answers = celery.control.ping(timeout=ANSWER_S, limit=1)
    except (OperationalError, OSError):
        return  # Flower tells of a broker that is away
    if not answers:
        sys.stderr.write("no worker answers yet: start them with `agentchord up`\n")
        sys.stderr.flush()
