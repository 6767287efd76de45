"""The whole cluster in one process: real code and real SQL, a clock that jumps, faults by seed.

``world`` puts a cluster together and runs it to its end; ``loop`` and ``database`` make it
deterministic; ``broker``, ``messenger`` and ``provider`` stand for what is outside; ``worker`` is
one worker process, ``client`` what people do; ``faults`` break things and ``invariants`` judge.
"""
