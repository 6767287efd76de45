"""The whole cluster in one process: real code and real SQL, a clock that jumps, faults by seed.

``world`` puts a cluster together and runs it to its end. ``loop``, ``database`` and ``clock.sql``
make this deterministic. ``broker``, ``messenger`` and ``provider`` replace the services outside.
``worker`` is one worker process. ``backends`` replaces what workers share over Redis: limits,
circuits and answers. ``people`` enqueue and control runs, ``faults`` break parts of the cluster,
``invariants`` and ``conversations`` judge the result, ``trace`` keeps the steps, and ``mutations``
break the protocol on purpose.
"""
