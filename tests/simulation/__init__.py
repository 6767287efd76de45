"""The whole cluster in one process: real code and real SQL, a clock that jumps, faults by seed.

``world`` puts a cluster together and runs it to its end; ``loop``, ``database`` and ``clock.sql``
make it deterministic; ``broker``, ``messenger`` and ``provider`` stand for what is outside;
``worker`` is one worker process; ``backends`` stands for what
workers share over Redis: limits, circuits and answers; ``people`` enqueue and control runs,
``faults`` break things, ``invariants`` and ``conversations`` judge, ``trace`` remembers, and
``mutations`` break the protocol on purpose.
"""
