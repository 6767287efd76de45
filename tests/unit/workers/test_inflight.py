from contextlib import ExitStack
from decimal import Decimal
from uuid import uuid4

import pytest

from app.storage.claims import ClaimedAgent
from workers.inflight import COMMIT_DELAY_S, ENOUGH, SIBLINGS, InFlight

pytestmark = pytest.mark.anyio


def claimed() -> ClaimedAgent:
    return ClaimedAgent(
        id=uuid4(),
        run_id=uuid4(),
        name="a",
        attempt=1,
        retries=0,
        limit_usd=Decimal(1),
        spent_usd=Decimal(0),
        outputs={},
    )


async def test_records_wait_for_company_only_while_there_may_be_some() -> None:
    inflight = InFlight()

    with ExitStack() as leases:
        for _ in range(SIBLINGS + 1):
            leases.enter_context(inflight.lease(claimed()))

        assert inflight.commit_delay_s(1) == COMMIT_DELAY_S
        assert inflight.commit_delay_s(2) == 0.0  # too few are left that could come
        leases.enter_context(inflight.lease(claimed()))
        assert inflight.commit_delay_s(2) == COMMIT_DELAY_S

    assert inflight.commit_delay_s(0) == 0.0


async def test_records_that_are_enough_do_not_wait() -> None:
    inflight = InFlight()

    with ExitStack() as leases:
        for _ in range(SIBLINGS + 2 * ENOUGH):
            leases.enter_context(inflight.lease(claimed()))

        assert inflight.commit_delay_s(ENOUGH - 1) == COMMIT_DELAY_S
        assert inflight.commit_delay_s(ENOUGH) == 0.0
