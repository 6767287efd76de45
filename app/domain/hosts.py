"""The names under which a server inside a network may be asked.

A web page on the internet can make its own name point to an address inside a network (DNS
rebinding). The browser of a visitor then sends the page's requests to a server there, and the page
reads the answers. Such a request has the page's name in its header ``Host``.
"""

import ipaddress
import re
from collections.abc import Collection

#: Ends of names that nobody can register on the internet.
PRIVATE_ENDS = (".localhost", ".local", ".internal", ".home.arpa", ".lan", ".svc", ".test")
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.%]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII)


def is_own_host(header: str, allowed: Collection[str] = ()) -> bool:
    """Return whether a request with this header ``Host`` is meant for a server of this network.

    Addresses, names without a dot and names with a private end are accepted, because no page on the
    internet has such a name.

    Args:
        header: Value of the header, with or without a port.
        allowed: Other names of the server.
    """
    found = _HOST.fullmatch(header)
    if found is None:
        return False
    name = found["name"].strip("[]").rstrip(".").lower()
    if name in {each.rstrip(".").lower() for each in allowed} or name.endswith(PRIVATE_ENDS):
        return True
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return bool(name) and "." not in name
    return True


def host_refusal(header: str) -> str:
    """Return the answer to a request under a foreign name, in one line."""
    shown = header if _HOST.fullmatch(header) else "of the request"
    return f"the host {shown} is not a name of this server: use its address, or allow the name\n"
