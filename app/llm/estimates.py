"""Estimates of prompt sizes, corrected by the counts of the providers.

Each process learns its own corrections, by provider and model. A correction is the ratio of counted
to expected tokens in the last prompts; longer prompts have more weight in this ratio. If a process
has not called a model yet, the process takes the estimate of ``app.llm.tokens`` without a
correction.
"""

from dataclasses import dataclass

#: The uncorrected estimate has the weight of one prompt with this number of tokens.
PRIOR_TOKENS = 500.0
#: Each new prompt first reduces the learned sums to this part, so only about the last fifty prompts
#: count.
MEMORY = 0.98
#: Largest factor by which a correction raises or lowers an estimate.
MOST_FACTOR = 5.0


@dataclass(slots=True)
class _Seen:
    """Sums of the expected and the counted tokens of one model; old prompts fade in these sums."""

    thought: float = PRIOR_TOKENS
    counted: float = PRIOR_TOKENS


class PromptEstimates:
    """The corrections that one process has learned."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}

    def corrected(self, provider: str, model: str, tokens: int) -> int:
        """Correct an estimate by the counts so far.

        Args:
            provider: Provider name.
            model: Model name.
            tokens: The estimate from ``expected_tokens``.

        Returns:
            The corrected number of tokens, at least 1.
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
            counted: Number of tokens that the provider counted for the prompt.
        """
        if counted <= 0:
            return
        seen = self._seen.setdefault((provider, model), _Seen())
        seen.thought = seen.thought * MEMORY + tokens
        seen.counted = seen.counted * MEMORY + counted
