"""The signature of a request to a remote agent: an HMAC-SHA256 of the time and the body."""

import hashlib
import hmac

TIMESTAMP_HEADER = "AgentChord-Timestamp"
SIGNATURE_HEADER = "AgentChord-Signature"
KEY_HEADER = "Idempotency-Key"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Compute the value of the header AgentChord-Signature.

    Args:
        secret: The secret that both sides know.
        timestamp: Value of the header AgentChord-Timestamp, in seconds since 1970.
        body: The request's body, exactly as it is sent.

    Returns:
        ``v1=``, followed by the HMAC in hexadecimal digits.
    """
    message = timestamp.encode() + b"." + body
    return f"v1={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"
