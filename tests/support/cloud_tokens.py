"""A function for ``credentials``, which asks the server of ``tests.support.token_server``."""

import json
import os
from urllib.request import Request, urlopen

from app import Credentials
from tests.support.pace import scaled


def token() -> Credentials:
    """Get a token; the environment has the server's address."""
    request = Request(f"{os.environ['TOKEN_SERVER']}/token", method="POST")
    with urlopen(request, timeout=scaled(5)) as answer:
        found = json.load(answer)
    return Credentials(token=found["access_token"], expires_in_s=found["expires_in"])
