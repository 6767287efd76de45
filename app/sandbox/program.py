"""The program of a sandbox process: it evaluates one task after the other, within limits.

``processes`` runs this file as a script. A task is a JSON document ``[name, arguments]`` on the
standard input, and the answer is a JSON document on the standard output. The length of each
document stands before the document. The script imports no other module of the application, so that
it starts quickly and has no secrets; a process for queries also loads ``queries`` and gets the
passwords of databases. If a task exceeds a limit, the process ends, and the next task gets a new
process.
"""

import contextlib
import importlib.util
import json
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any

#: Seconds of CPU time that a task may take, by the name of the task. A query has a time of its own.
CPU_S = {"condition": 2, "schema": 2, "page": 5}
#: Memory for data. With the code of Python and its libraries, a process has at most 200 MB.
MEMORY_BYTES = 160_000_000
#: If a process still has more memory than this after a task, the process ends. Therefore earlier
#: tasks leave enough memory for a task.
KEPT_BYTES = 100_000_000
MAX_SHOWN_CHARS = 1000
INTEGER_BITS = 64
#: Stands before a task: the length of the task.
LENGTH = struct.Struct(">Q")
#: Stands before an answer: the length of the answer, and whether the process ends after it.
HEADER = struct.Struct(">Q?")


def integer(number: int) -> Any:
    """Return an integer for CEL, whose integers have 64 bits.

    A longer integer becomes a map with the digits of the integer. Therefore the integer is equal
    only to itself, and CEL refuses to calculate with the integer or to order it. A condition on
    other values can still be evaluated.
    """
    fits = -(1 << INTEGER_BITS - 1) <= number < 1 << INTEGER_BITS - 1
    return number if fits else {"integer": str(number)}


def for_cel(value: Any) -> Any:
    """Return a copy of a JSON value with the integers that CEL has."""
    if isinstance(value, dict):
        return {key: for_cel(part) for key, part in value.items()}
    if isinstance(value, list):
        return [for_cel(part) for part in value]
    return integer(value) if type(value) is int else value


def schema_validator(schema: Any, retriever: Any) -> Any:
    """Make the validator of a JSON Schema; its patterns are matched in linear time."""
    import jsonschema_rs

    return jsonschema_rs.validator_for(
        schema, pattern_options=jsonschema_rs.RegexOptions(), retriever=retriever
    )


def first_problem(validator: Any, value: Any) -> tuple[list[str | int], str] | None:
    """Return the path and the message of the first problem of a value; None if the value fits."""
    # The validator gives its verdict without an error, because an error copies values and schemas.
    if validator.is_valid(value):
        return None
    try:
        validator.validate(value)
    except ValueError as error:
        return list(getattr(error, "instance_path", ())), shown(getattr(error, "message", error))
    return None


def shown(message: object) -> str:
    """Cut out the middle of a long message, because a message can quote megabytes."""
    text, most = str(message), 300
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}...{text[-most // 2 :]}"


def _condition(given: Any) -> Any:
    """Evaluate ``{text, variables}``; the answer is ``[kind, value]``."""
    from cel_expr_python import cel

    names = dict.fromkeys(given["variables"], cel.Type.DYN)
    data = for_cel(given["variables"])
    answer = cel.NewEnv(variables=names).compile(given["text"]).eval(data=data)
    kind = answer.type().name()
    value = answer.value() if kind == "BOOL" else str(answer.value())[:MAX_SHOWN_CHARS]
    return [kind, value]


def _schema(given: Any) -> Any:
    """Apply ``{schema, value}``; the answer is ``["FIT", None]`` or ``["UNFIT", problem]``."""
    found = first_problem(schema_validator(given["schema"], None), given["value"])
    return ["FIT", None] if found is None else ["UNFIT", found]


def _page(given: Any) -> Any:
    """Read ``{page, url}``; the answer is ``["TEXT", text]`` with the page's text in Markdown."""
    import trafilatura

    text = trafilatura.extract(
        given["page"],
        url=given["url"],
        output_format="markdown",
        include_links=True,
        favor_recall=True,
    )
    return ["TEXT", text or trafilatura.html2txt(given["page"])]


def _query(given: Any) -> Any:
    """Read a database; see ``queries`` for the arguments and the answers."""
    # Rows are in memory several times until they are an answer.
    limit = max(MEMORY_BYTES, MEMORY_BYTES // 2 + 8 * given["max_bytes"])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    kind, value = _queries().answer(given)
    return [kind, shown(value) if kind == "REFUSED" else value]


def _queries() -> Any:
    """Load ``queries``; the folder of this script is not among the folders for imports."""
    if "queries" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "queries", Path(__file__).with_name("queries.py")
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules["queries"] = module
    return sys.modules["queries"]


TASKS = {"condition": _condition, "schema": _schema, "page": _page, "query": _query}


def main() -> None:
    """Evaluate tasks until standard input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, resource.RLIM_INFINITY))
    # A stray line of a library must not become a part of an answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while length := sys.stdin.buffer.read(LENGTH.size):
        document = sys.stdin.buffer.read(*LENGTH.unpack(length))
        answer = _answer(document)
        del document
        ends = _memory_bytes() > KEPT_BYTES
        answers.write(HEADER.pack(len(answer), ends) + answer)
        answers.flush()
        if ends:
            break


def _memory_bytes() -> int:
    """Return the memory that the process has now; 0 if the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


def _answer(document: bytes) -> bytes:
    try:
        name, given = json.loads(document)
        # The timer counts the CPU time of this task. At its end, the system ends the process.
        signal.setitimer(signal.ITIMER_PROF, CPU_S.get(name, 0))
        answer = json.dumps(TASKS[name](given), ensure_ascii=False, allow_nan=False)
    except MemoryError:
        answer = json.dumps(["MEMORY", None])
    except Exception as error:  # noqa: BLE001  the errors of libraries have undocumented classes
        answer = json.dumps(["ERROR", shown(error) or type(error).__name__], ensure_ascii=False)
    signal.setitimer(signal.ITIMER_PROF, 0)
    # A page may contain half a surrogate pair, for example.
    return answer.encode("utf-8", "replace")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main()
