"""The output of a stack's processes."""

import asyncio
import io
from pathlib import Path

import pytest

from app.local_stack.process_output import Output
from app.local_stack.supervisor import _how_it_ended

pytestmark = pytest.mark.anyio


async def reading(text: bytes, *, limit: int = 1000) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=limit)
    reader.feed_data(text)
    reader.feed_eof()
    return reader


async def test_lines_get_their_process_name_and_empty_ones_are_left_out() -> None:
    stream = io.BytesIO()
    output = Output(stream=stream, folder=None, say=print)

    await output.copy("worker1", await reading(b"one\n\n  \ntwo"))

    assert stream.getvalue() == b"worker1   | one\nworker1   | two\n"
    assert output.last_words("worker1") == "two"
    assert output.last_words("worker2") == "nothing"


async def test_a_line_without_an_end_is_cut_and_nothing_of_it_is_lost() -> None:
    stream = io.BytesIO()
    output = Output(stream=stream, folder=None, say=print)

    await output.copy("w", await reading(b"x" * 2500 + b"\nend\n", limit=1000))

    lines = stream.getvalue().splitlines()
    assert sum(line.count(b"x") for line in lines) == 2500
    assert lines[-1] == b"w         | end"


async def test_the_reason_of_a_refusal_is_the_last_word() -> None:
    output = Output(stream=None, folder=None, say=print)
    text = b"hello\nagentchord worker: wrong pool\nTraceback (most recent call last):\n  boom\n"

    await output.copy("w", await reading(text))

    assert output.last_words("w") == "agentchord worker: wrong pool"


async def test_a_folder_takes_a_file_per_process_as_it_was_written(tmp_path: Path) -> None:
    output = Output(stream=None, folder=tmp_path, say=print)

    await output.copy("worker1", await reading(b"one\n\ntwo\n"))
    await output.copy("worker1", await reading(b"three\n"))

    assert (tmp_path / "worker1.log").read_bytes() == b"one\n\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "ended with code 0"), (-9, "was killed by SIGKILL"), (-77, "was killed by signal 77")],
)
def test_an_end_is_told_in_words(code: int, words: str) -> None:
    assert _how_it_ended(code) == words
