"""Hard content of the screens: long and wide names, long errors, large and tiny amounts."""

from decimal import Decimal
from uuid import UUID

#: The longest name that an agent may have.
LONG = "classify_and_route_every_incoming_customer_request_" * 4
LONG = LONG[:200]
CJK = "請求書処理ワークフロー"  # the characters are two columns wide
ERROR = (
    "openai/gpt-4o-mini: 429 Too Many Requests: Rate limit reached for gpt-4o-mini in organization "
    "org-abcdefghijklmnopqrstuvwx on tokens per min (TPM): Limit 200000, Used 199812, Requested "
    "4021. Please try again in 1.149s. Visit https://platform.openai.com/account/rate-limits."
)
BIG, TINY = Decimal("1234567.890123"), Decimal("0.0000000375")


def run_ids(count: int) -> list[UUID]:
    """Return ids as uuid7 makes them within one millisecond: only their ends differ."""
    ends = (f"{0x9E3779B97F4A7C15 * (number + 1) & 0xFFFFFFFF:08x}" for number in range(count))
    return [UUID(f"019ad3f0-5b2e-7c41-8f0a-{number:04x}{end}") for number, end in enumerate(ends)]
