"""The signature of a request to a remote agent: HMAC-SHA256 over the time and the body."""

import hashlib
import hmac

TIMESTAMP_HEADER = "AgentChord-Timestamp"
SIGNATURE_HEADER = "AgentChord-Signature"
KEY_HEADER = "Idempotency-Key"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What stands in the header AgentChord-Signature.

    Args:
        secret: The secret that both sides know.
        timestamp: Seconds since 1970 as they stand in AgentChord-Timestamp.
        body: The request's body, byte by byte as it is sent.

    Returns:
        ``v1=`` and the HMAC in hexadecimal digits.
    """
    message = timestamp.encode() + b"." + body
    return f"v1={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"
