"""The queues that a worker process serves, as the command line names them."""

import pytest
import typer

from app.cli.processes import queues_of


@pytest.mark.parametrize(
    ("words", "queues"),
    [
        ([], ("openai", "vllm", "scheduler")),
        (["agents"], ("openai", "vllm")),
        (["vllm", "agents", "scheduler"], ("vllm", "openai", "scheduler")),
        (["scheduler"], ("scheduler",)),
    ],
)
def test_a_worker_serves_the_queues_that_are_named(
    words: list[str], queues: tuple[str, ...]
) -> None:
    assert queues_of(words, ("openai", "vllm")) == queues


def test_a_queue_that_there_is_not_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match=r"no queue 'vlm'.*did you mean 'vllm'"):
        queues_of(["vlm"], ("openai", "vllm"))
