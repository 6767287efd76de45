"""The figures of an agent in earlier runs, from which a plan expects the next run."""

from collections.abc import Mapping
from dataclasses import dataclass

#: With fewer earlier runs than this, the figures of an agent are not used.
LEAST_RUNS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierAgent:
    """Figures of an agent in earlier runs of workflows with the same name, with the same model.

    Attributes:
        runs: Number of these runs.
        answers: Number of the agent's executions that called the model and completed; each element
            of a list is one execution.
        executions: Mean number of these executions in a run; less than 1 if a condition has skipped
            the agent in some runs.
        executions_sd: Standard deviation of this number.
        calls: Mean number of calls of an execution.
        input_tokens: Mean number of input tokens of an execution.
        output_tokens: Mean number of output tokens of an execution.
        output_sd: Standard deviation of the output tokens.
        reasoning_tokens: Mean number of those output tokens that are no part of the answer's text.
    """

    runs: int
    answers: int
    executions: float
    executions_sd: float
    calls: float
    input_tokens: float
    output_tokens: float
    output_sd: float
    reasoning_tokens: float

    @property
    def text_tokens(self) -> float:
        """Mean number of tokens of the answer's text."""
        return max(self.output_tokens - self.reasoning_tokens, 0.0)


#: (name of the workflow, name of the agent) -> figures; agents with too few runs are left out.
Earlier = Mapping[tuple[str, str], EarlierAgent]
