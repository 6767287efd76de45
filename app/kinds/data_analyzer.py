"""The kind ``data_analyzer``, which checks and describes records with the standard library."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.domain.prompt import parsed_text
from app.domain.suggestions import did_you_mean, listed, shortened
from app.errors import InputRefused
from app.kinds.base import AgentContext, Config
from app.kinds.config import check_keys, check_operations, refuse

KEYS = ("required", "types", "unique", "operations")
OPERATIONS = ("validation", "statistics")
MAX_RECORDS = 1_000_000
MAX_PROBLEMS = 100
MAX_COMMON = 5
#: The only field of a record that is a plain number or a plain string has this name.
VALUE = "value"
Record = Mapping[str, Any]


class DataAnalyzer:
    """Agents that check and describe the input ``data``: a list of records, or of plain values.

    All records are in memory. More than 1,000,000 records are refused. For more data, use a
    function agent that reads a database.

    Example:
        Agent(name="stock", kind="data_analyzer", config={"required": ["sku"]})
    """

    def validate(self, config: Config) -> None:
        """Check the settings."""
        check_keys(config, KEYS)
        for key in ("required", "unique", "operations"):
            names = config.get(key, [])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                refuse(key, f"is {shortened(names)}: give a list of names")
        check_operations(config.get("operations", []), OPERATIONS)
        types = config.get("types", {})
        if not isinstance(types, Mapping):
            refuse("types", f"is {shortened(types)}: give a type by field")
        for name, kind in types.items():
            if not isinstance(kind, str) or kind not in _TYPES:
                hint = did_you_mean(str(kind), _TYPES)
                refuse(f"types.{name}", f"is {shortened(kind)}: give {listed(_TYPES)}{hint}")

    def run(self, context: AgentContext) -> dict[str, Any]:
        """Check the records, then describe the valid records."""
        config = context.config
        values = _values(context)
        clean, problems = check_records(values, config)
        found: dict[str, Any] = {}
        wanted = config.get("operations") or OPERATIONS
        if "validation" in wanted:
            found |= {
                "clean_data": [values[place] for place in clean],
                "valid": len(clean),
                "invalid": len(values) - len(clean),
                "problems": problems[:MAX_PROBLEMS],
            }
        if "statistics" in wanted:
            found["stats"] = describe([_record(values[place]) for place in clean])
        return found


def check_records(values: Sequence[Any], config: Config) -> tuple[list[int], list[dict[str, Any]]]:
    """Separate valid records from invalid records.

    Args:
        values: The records.
        config: The settings ``required`` (fields), ``types`` (by field) and ``unique`` (fields).

    Returns:
        The indices of the valid records, and a dict with ``index`` and ``problem`` for each
        invalid record.
    """
    seen: dict[str, set[str]] = {name: set() for name in config.get("unique", [])}
    clean: list[int] = []
    problems: list[dict[str, Any]] = []
    for index, value in enumerate(values):
        problem = _problem(value, config, seen)
        if problem is None:
            clean.append(index)
        else:
            problems.append({"index": index, "problem": problem})
    return clean, problems


def describe(records: Sequence[Record]) -> dict[str, Any]:
    """Describe the number of records, and the values of each field.

    Args:
        records: The records, as dicts.

    Returns:
        A dict with ``records`` and ``fields``. A field of numbers has count, missing, sum, min,
        max, mean, median, stdev and quartiles. Any other field has count, missing, distinct and the
        most common values.
    """
    names = dict.fromkeys(name for record in records for name in record)
    fields = {name: _describe_field([record.get(name) for record in records]) for name in names}
    return {"records": len(records), "fields": fields}


def _describe_field(values: Sequence[Any]) -> dict[str, Any]:
    present = [value for value in values if value is not None]
    about: dict[str, Any] = {"count": len(present), "missing": len(values) - len(present)}
    if present and all(map(_is_number, present)):
        return about | _describe_numbers(present)
    texts = [value if isinstance(value, str) else repr(value) for value in present]
    common = Counter(texts).most_common(MAX_COMMON)
    return about | {
        "kind": "category",
        "distinct": len(set(texts)),
        "most_common": [{"value": value, "count": count} for value, count in common],
    }


def _describe_numbers(values: Sequence[float]) -> dict[str, Any]:
    several = len(values) > 1
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive") if several else [values[0]] * 3
    )
    return {
        "kind": "number",
        "sum": math.fsum(values),
        "min": min(values),
        "max": max(values),
        "mean": statistics.fmean(values),
        "median": middle,
        "stdev": statistics.stdev(values) if several else 0.0,
        "quartiles": [low, middle, high],
    }


def _values(context: AgentContext) -> list[Any]:
    data = context.inputs.get("data")
    data = parsed_text(data) if isinstance(data, str) else data
    if not isinstance(data, list):
        raise InputRefused(
            f"agent {context.agent!r} works on the input 'data', which is "
            f"{'missing' if data is None else shortened(data)}: give a list of records"
        )
    if len(data) > MAX_RECORDS:
        raise InputRefused(
            f"agent {context.agent!r}: {len(data):,} records are too many: give at most "
            f"{MAX_RECORDS:,}"
        )
    return data


def _problem(value: Any, config: Config, seen: Mapping[str, set[str]]) -> str | None:
    if value is None or isinstance(value, list):
        return f"is {shortened(value)}, not a record"
    record = _record(value)
    if not record:
        return "is empty"
    for name in config.get("required", []):
        if record.get(name) in (None, ""):
            return f"{name!r} is missing"
    return _type_problem(record, config) or _repetition(record, seen)


def _type_problem(record: Record, config: Config) -> str | None:
    for name, kind in config.get("types", {}).items():
        if record.get(name) is not None and not _TYPES[kind](record[name]):
            return f"{name!r} is {shortened(record[name])}, not of the type {kind}"
    return None


def _repetition(record: Record, seen: Mapping[str, set[str]]) -> str | None:
    for name, known in seen.items():
        if record.get(name) is not None and repr(record[name]) in known:
            return f"{name!r} is {shortened(record[name])}, as in an earlier record"
    # The values are remembered only now, because the record has passed every check.
    for name, known in seen.items():
        known.add(repr(record.get(name)))
    return None


def _record(value: Any) -> Record:
    return value if isinstance(value, Mapping) else {VALUE: value}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "number": _is_number,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "text": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
}
