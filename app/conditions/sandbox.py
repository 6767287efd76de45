"""Evaluates one condition in a separate process with a limit of CPU time and a limit of memory.

``evaluator`` runs this file as a script. The script reads one JSON document, writes another JSON
document, and imports no other module of the application.
"""

import json
import resource
import sys
from typing import Any

CPU_S = 2
MEMORY_BYTES = 1 << 30
MAX_SHOWN_CHARS = 1000
INTEGER_BITS = 64


def integer(number: int) -> Any:
    """Return an integer for CEL, whose integers have 64 bits.

    A longer integer becomes a map with the digits of the integer. Therefore the integer is equal
    only to itself, and CEL refuses to calculate with the integer or to order it. A condition on
    other values can still be evaluated.
    """
    fits = -(1 << INTEGER_BITS - 1) <= number < 1 << INTEGER_BITS - 1
    return number if fits else {"integer": str(number)}


def main() -> None:
    """Read ``{text, variables}`` from standard input, and write ``[kind, value]`` to the output."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from cel_expr_python import cel

    given = json.load(sys.stdin, parse_int=lambda digits: integer(int(digits)))
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
