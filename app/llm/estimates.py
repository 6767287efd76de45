"""Expected prompt sizes that learn from what providers count.

Each process learns for itself, by provider and model: the average of the last prompts, the longer
ones counting more. For a model that it has not seen yet, ``app.llm.tokens`` decides alone.
"""

from dataclasses import dataclass

#: The estimate of ``app.llm.tokens`` counts as much as one prompt of so many tokens.
PRIOR_TOKENS = 500.0
#: The part of the learned sums that is kept with each prompt: about the last fifty count.
MEMORY = 0.98
#: Corrections go no further, however differently a server counts.
MOST_FACTOR = 5.0


@dataclass(slots=True)
class _Seen:
    """Prompts of one model: tokens that were expected and counted, both fading."""

    thought: float = PRIOR_TOKENS
    counted: float = PRIOR_TOKENS


class PromptEstimates:
    """The estimates of a process."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}

    def corrected(self, provider: str, model: str, tokens: int) -> int:
        """Correct an estimate by what was learned so far.

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
        """Take a provider's count into account.

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
