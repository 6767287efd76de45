"""Evaluates one condition in a process of its own, whose time and memory the system limits.

``evaluator`` runs this file as a script. It reads one JSON document, writes one, and imports
nothing of the application.
"""

import json
import resource
import sys

CPU_S = 2
MEMORY_BYTES = 1 << 30
MAX_SHOWN_CHARS = 1000


def main() -> None:
    """Read ``{text, variables}``, write ``[kind, value]``."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from cel_expr_python import cel

    given = json.load(sys.stdin)
    names = dict.fromkeys(given["variables"], cel.Type.DYN)
    answer = cel.NewEnv(variables=names).compile(given["text"]).eval(data=given["variables"])
    kind = answer.type().name()
    value = answer.value() if kind == "BOOL" else str(answer.value())[:MAX_SHOWN_CHARS]
    json.dump([kind, value], sys.stdout)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, MemoryError, ValueError, OverflowError) as error:
        json.dump(["ERROR", str(error) or type(error).__name__], sys.stdout)
