"""The orders of the fault suite's workers, and their effect."""

import json
import os
import subprocess
import sys

from tests.faults.seams import Orders
from tests.support.pace import scaled
from tests.support.stack import search_path

AHEAD_S = 300.0
CLOCKS = f"""
import json, time
right = time.time
from datetime import UTC
from tests.faults.seams import Orders, _bend_clock
orders = Orders()
_bend_clock(orders)
orders.take({{"clock_s": {AHEAD_S}}})
import app.costs.pricing, app.llm.headers, kombu.transport.redis
import workers.calls.provider, workers.pipeline
print(json.dumps([moment - right() for moment in (
    time.time(),
    kombu.transport.redis.time(),
    app.costs.pricing.datetime.now(UTC).timestamp(),
    app.llm.headers.datetime.now(UTC).timestamp(),
    workers.pipeline.datetime.now(UTC).timestamp(),
    (workers.calls.provider.uuid7().int >> 80) / 1000,
)]))
"""


def test_new_orders_take_the_place_of_the_old_ones() -> None:
    orders = Orders()

    orders.take({"lost": 1.0, "clock_s": AHEAD_S})
    orders.take({"doubled": 1.0})

    assert (orders.lost, orders.clock_s, orders.doubled) == (0.0, 0.0, 1.0)


def test_messages_are_lost_doubled_and_late_by_their_shares() -> None:
    orders = Orders()
    found = {}

    for share in ("lost", "doubled", "late"):
        orders.take({share: 1.0})
        found[share] = orders.copies()

    assert found == {"lost": (0, False), "doubled": (2, False), "late": (1, True)}


def test_a_bent_clock_is_what_everything_in_a_worker_reads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLOCKS],
        env=os.environ | {"PYTHONPATH": search_path()},
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )

    assert done.returncode == 0, done.stderr
    errors_s = json.loads(done.stdout)
    assert len(errors_s) == 6
    assert all(abs(error_s - AHEAD_S) < 1 for error_s in errors_s)
