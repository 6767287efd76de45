"""The sizes that a plan expects: from earlier runs where there are enough, otherwise assumed."""

from dataclasses import dataclass

from app.domain.agent import Agent
from app.domain.earlier import Earlier, EarlierAgent
from app.domain.kinds import LLM
from app.planning.calls import CallPlanner


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedSizes:
    """The sizes of expected outputs; see ``app.planning.outputs.Sizes``.

    Attributes:
        planner: The planner of calls.
        output_tokens: Assumed tokens of each output without earlier runs.
        earlier: Figures of earlier runs.
        escape_factor: Usual text has few quotes and line breaks.
    """

    planner: CallPlanner
    output_tokens: int
    earlier: Earlier
    escape_factor: float = 1.0

    def known(self, workflow: str, agent: Agent) -> EarlierAgent | None:
        """Return the figures of an agent in earlier runs, if there are enough runs."""
        return self.earlier.get((workflow, agent.name)) if agent.kind == LLM else None

    def tokens(self, workflow: str, agent: Agent) -> int:
        """Return the expected tokens of the text of an output."""
        if known := self.known(workflow, agent):
            return round(known.text_tokens)
        return self.answer_tokens(workflow, agent)

    def answer_tokens(self, workflow: str, agent: Agent) -> int:
        """Return the expected output tokens of a call, which include reasoning."""
        if agent.kind != LLM:
            return self.output_tokens
        most = self.planner.max_tokens(agent)
        if known := self.known(workflow, agent):
            return min(round(known.output_tokens / max(known.calls, 1.0)), most)
        return min(self.output_tokens, most)

    def elements(self, workflow: str, agent: Agent) -> int | None:
        """Return the usual length of an agent's list; None without enough earlier runs."""
        known = self.known(workflow, agent)
        return None if known is None else max(round(known.executions), 1)

    def elements_otherwise(self) -> int:
        """Return 1, because the figures then apply to one element."""
        return 1
