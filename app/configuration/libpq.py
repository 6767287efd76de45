"""The parameters of libpq: their names, their defaults, and libpq's own check of their values.

libpq takes a parameter that a URL lacks from a variable of the environment (PGSSLMODE), so the
check includes these variables. The imports are late, because they take longer than all other
imports of the settings.
"""

import re
from collections.abc import Mapping

from app.concurrency.once import once

#: A folder in which no socket can be, so that libpq checks all parameters and then connects to
#: nothing.
NOWHERE = "/dev/null"
#: The beginning of libpq's message if it has accepted all parameters and has tried to connect.
TRIED = "connection to server"
# libpq says this only because the check uses a socket.
_OF_THE_CHECK = "GSSAPI encryption required but it is not supported over a local socket"
#: Defaults that libpq does not tell, for parameters that cannot be empty.
UNTOLD_DEFAULTS = {
    "sslcertmode": "allow",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
}
#: Parameters that the check replaces.
_REPLACED = {"host": NOWHERE, "hostaddr": "", "port": "1", "password": "none"}
#: Parameters that every connection of AgentChord has, so no variable counts for them.
_ALWAYS_GIVEN = {"target_session_attrs": "any", "client_encoding": "UTF8", "connect_timeout": "2"}


@once(survives_fork=True)
def variables() -> Mapping[str, str]:
    """Return the variable of each parameter; the name is empty if there is no variable."""
    from psycopg.pq import Conninfo

    return {
        option.keyword.decode(): (option.envvar or b"").decode()
        for option in Conninfo.get_defaults()
    }


def default(name: str) -> str:
    """Return the value that libpq uses if a URL does not give the parameter; empty if none."""
    from psycopg.pq import Conninfo

    found = {option.keyword.decode(): option.val for option in Conninfo.get_defaults()}
    return (found[name] or b"").decode(errors="replace")


def set_by_environment() -> set[str]:
    """Return the parameters that variables of the environment (or a service) set."""
    from psycopg.pq import Conninfo

    return {
        option.keyword.decode()
        for option in Conninfo.get_defaults()
        if option.envvar and option.val is not None and option.val != option.compiled
    }


def own_defaults() -> dict[str, str]:
    """Return a value for each parameter, with which no variable of the environment counts.

    PGSERVICE cannot be replaced by a parameter, so ``service`` is missing. If the service exists,
    its values count only for parameters that are missing.
    """
    from psycopg.pq import Conninfo

    found = {
        option.keyword.decode(): (option.compiled or b"").decode()
        for option in Conninfo.get_defaults()
        if option.envvar and option.keyword != b"service"
    }
    return found | {name: UNTOLD_DEFAULTS[name] for name in found.keys() & UNTOLD_DEFAULTS.keys()}


def refusal(given: Mapping[str, str]) -> str | None:
    """Return the reason why libpq would not even try to connect, without any value; or None.

    Args:
        given: The parameters of a URL.
    """
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import ConnStatus, PGconn

    tried = make_conninfo(**{**_ALWAYS_GIVEN, **given, **_REPLACED})
    connection = PGconn.connect_start(tried.encode())
    try:
        said = connection.get_error_message()
        if connection.status != ConnStatus.BAD or said.startswith(TRIED) or _OF_THE_CHECK in said:
            return None
    finally:
        connection.finish()
    return _without_values(said, given)


def _without_values(said: str, given: Mapping[str, str]) -> str:
    known = variables()
    named = next((word for word in re.findall(r"\w+", said) if word in known), "")
    said = re.sub(rf'"({"|".join(known)})"', r"\1", said)
    # The value itself may have quotes, so everything between the first and the last is dropped.
    reason = " ".join(re.sub(r':?\s*".*"', "", said, flags=re.DOTALL).strip("() \n").split())
    if named not in given and named in set_by_environment():
        reason += f" in the environment variable {known[named]}"
    return reason
