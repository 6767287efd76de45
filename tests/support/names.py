"""Names of agents and elements, as the short form of a text names them."""

import re


def spelled_out(text: str) -> list[str]:
    """Every name of a text that :func:`names` wrote."""
    found: list[str] = []
    for part in re.split(r", (?![^\[]*\])", text) if text else []:
        head, bracket, tail = part.rpartition("[")
        if not bracket:
            found.append(part)
            continue
        inside, _, rest = tail.partition("]")
        for interval in inside.split(", "):
            first, _, last = interval.partition("-")
            found += [f"{head}[{n}]{rest}" for n in range(int(first), int(last or first) + 1)]
    return found


def named_in(text: str) -> set[str]:
    """Return the names of all agents, elements and inner agents that a text names."""
    paths = re.findall(r"[A-Za-z_][\w-]*(?:\[[\d, -]+\])?(?:/[\w-]+(?:\[[\d, -]+\])?)*", text)
    return {name for path in paths for name in spelled_out(path)}
