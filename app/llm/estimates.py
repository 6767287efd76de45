"""Expected prompt sizes that learn from what providers count.

Each process learns for itself, by provider and model: the average of the last prompts, the longer
ones counting more. What it has not seen yet is what ``app.llm.tokens`` makes of the text.
"""

from dataclasses import dataclass

#: What is thought before anything is known counts as much as a prompt of so many tokens.
PRIOR_TOKENS = 500.0
#: How much of what was learned is kept with each new prompt: the last fifty or so count.
MEMORY = 0.98
#: A server that counts differently by more than this is not believed any further.
MOST_FACTOR = 5.0


@dataclass(slots=True)
class _Seen:
    """Prompts of one model: what was thought of them, and what they had, both fading."""

    thought: float = PRIOR_TOKENS
    counted: float = PRIOR_TOKENS


class PromptEstimates:
    """The estimates of a process."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}

    def corrected(self, provider: str, model: str, tokens: int) -> int:
        """An estimate as it should have been so far.

        Args:
            provider: Provider name.
            model: Model name.
            tokens: The estimate, from ``expected_tokens``.

        Returns:
            Tokens, at least 1.
        """
        seen = self._seen.get((provider, model))
        if seen is None:
            return tokens
        factor = min(max(seen.counted / seen.thought, 1 / MOST_FACTOR), MOST_FACTOR)
        return max(round(tokens * factor), 1)

    def learn(self, provider: str, model: str, tokens: int, counted: int) -> None:
        """Take what a provider counted.

        Args:
            provider: Provider name.
            model: Model name.
            tokens: The estimate before its correction.
            counted: Tokens of the prompt.
        """
        if counted <= 0:
            return
        seen = self._seen.setdefault((provider, model), _Seen())
        seen.thought = seen.thought * MEMORY + tokens
        seen.counted = seen.counted * MEMORY + counted
