"""The signature of a request to a remote agent: HMAC-SHA256 over the time and the body."""

import hashlib
import hmac

TIMESTAMP_HEADER = "AgentChord-Timestamp"
SIGNATURE_HEADER = "AgentChord-Signature"
KEY_HEADER = "Idempotency-Key"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Compute the header AgentChord-Signature.

    Args:
        secret: The secret that both sides know.
        timestamp: Value of AgentChord-Timestamp: seconds since 1970.
        body: The request's body, exactly as it is sent.

    Returns:
        ``v1=`` and the HMAC in hexadecimal digits.
    """
    message = timestamp.encode() + b"." + body
    return f"v1={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"
