"""The signature of a request to a remote agent: an HMAC-SHA256 of all that the request says.

The first form of the signature, ``v1``, covers only the time and the body. With it, a copied
request could be sent to another URL of a server with the same secret, or with another key.
"""

import hashlib
import hmac

TIMESTAMP_HEADER = "AgentChord-Timestamp"
SIGNATURE_HEADER = "AgentChord-Signature-V2"
OLD_SIGNATURE_HEADER = "AgentChord-Signature"
KEY_HEADER = "Idempotency-Key"


def signature(secret: str, *, timestamp: str, method: str, url: str, key: str, body: bytes) -> str:
    """Compute the value of the header AgentChord-Signature-V2.

    No part before the body can contain a line break. Therefore two different requests never have
    the same text.

    Args:
        secret: The secret that both sides know.
        timestamp: Value of the header AgentChord-Timestamp, in seconds since 1970.
        method: HTTP method, in capital letters.
        url: URL of the request as it is sent, without a fragment.
        key: Value of the header Idempotency-Key.
        body: The request's body, exactly as it is sent.

    Returns:
        ``v2=``, followed by the HMAC in hexadecimal digits.
    """
    head = f"v2\n{timestamp}\n{method}\n{url}\n{key}\n"
    return f"v2={_hmac(secret, head.encode() + body)}"


def old_signature(secret: str, timestamp: str, body: bytes) -> str:
    """Compute the value of the header AgentChord-Signature, for servers that know only ``v1``."""
    return f"v1={_hmac(secret, timestamp.encode() + b'.' + body)}"


def _hmac(secret: str, message: bytes) -> str:
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
