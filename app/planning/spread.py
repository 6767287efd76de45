"""The range of a run's cost, from the spread of the lengths of answers in earlier runs.

The cost is a sum over all answers. An answer costs its own tokens, and its text again in each
prompt that has it. The lengths of answers are taken as independent. The sum is approximated by a
lognormal distribution with the same mean and variance (Fenton, 1960), because lengths of answers
are skewed. The uncertainty of a mean over few earlier answers is added to the variance.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping

from app.domain.agent import Agent
from app.domain.data_flow import DataFlow, templates
from app.domain.earlier import EarlierAgent
from app.domain.for_each import ITEM, lists_of
from app.domain.prompt import placeholders

#: Standard deviations from the mean of a normal distribution that leave out one case in twenty.
ONE_IN_TWENTY = 1.6449


def reads_of(agent: Agent, flow: DataFlow, names: Collection[str]) -> Counter[str]:
    """Count how often the prompt of an agent has the output of each other agent.

    An element of another agent's list counts as the agent's whole list; the caller divides. A
    single element by its index, such as ``{each[0]}``, is left out.
    """
    found: Counter[str] = Counter()
    sources = flow.sources(agent)
    lists = lists_of(agent, names)
    writers = flow.seen_writers(agent)
    for _, template in templates(agent):
        for place in placeholders(template):
            root = sources[place.root].root if place.root in sources else place.root
            if root == ITEM and place.path and place.path[0] in lists:
                root = str(place.path[0])
            if root in lists:
                root = lists[root].root
            if root in writers:
                root = writers[root][0].agent
            is_one = bool(place.path) and isinstance(place.path[0], int)
            if root in names and not is_one:
                found[root] += 1
    return found


def variance_of(known: EarlierAgent, answers: float, usd_per_token: float) -> float:
    """Return the variance of the cost of an agent's answers, in square dollars.

    Args:
        known: Figures of earlier runs.
        answers: Number of answers of the run.
        usd_per_token: Cost of a token of the answers, with all prompts that have the token.
    """
    one = (known.output_sd * usd_per_token) ** 2
    return answers * one + answers**2 * one / max(known.answers, 1)


def range_of(mean_usd: float, variance: float) -> tuple[float, float]:
    """Return the range that contains 9 of 10 values of a lognormal distribution."""
    if mean_usd <= 0:
        return 0.0, 0.0
    spread = math.log1p(variance / mean_usd**2)
    middle = math.log(mean_usd) - spread / 2
    away = ONE_IN_TWENTY * math.sqrt(spread)
    return math.exp(middle - away), math.exp(middle + away)


def usd_per_output_token(
    own_usd: float, readers: Mapping[str, float], input_usd: Mapping[str, float]
) -> float:
    """Return the cost of a token of an answer, with all prompts that have the token.

    Args:
        own_usd: Price of an output token.
        readers: Name of another agent -> how often its prompts, together, have the token.
        input_usd: Name of an agent -> price of an input token.
    """
    return own_usd + sum(times * input_usd.get(name, 0.0) for name, times in readers.items())
