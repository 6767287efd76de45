"""Progress bars on a terminal."""

import io

import pytest

from app.cli.progress_bar import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "max_wait_s", "is_shown"),
    [(Terminal(), 0.0, True), (Terminal(), 60.0, False), (io.StringIO(), 0.0, False)],
)
def test_a_bar_is_shown_on_a_terminal_to_whoever_has_waited(
    stream: io.StringIO, max_wait_s: float, is_shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")

    with ProgressBar("runs", 10, max_wait_s=max_wait_s) as bar:
        bar.advance(4)

    assert ("4/10" in stream.getvalue()) is is_shown
