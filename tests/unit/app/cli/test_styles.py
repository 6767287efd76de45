"""The colours can be read on a dark and on a light background."""

import re

import pytest
from rich.style import Style

from app.cli import styles
from app.domain.status import AgentStatus, WorkflowStatus
from tests.support.markdown import ROOT

#: Colours of the terminal, which each terminal may define itself.
NAMES = "black|red|green|yellow|blue|magenta|cyan|white"
TERMINAL_COLOURS = re.compile(rf"""["'](?:bold |dim )?(?:on )?(?:bright_)?(?:{NAMES})["']""")
LEAST_CONTRAST = 3.5
USED = {name: value for name, value in vars(styles).items() if name.isupper() and name != "STYLES"}


def luminance(red: int, green: int, blue: int) -> float:
    """Return the relative luminance of WCAG 2, from 0 for black to 1 for white."""
    parts = [each / 255 for each in (red, green, blue)]
    linear = [
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", USED)
def test_a_colour_has_contrast_to_black_and_to_white(name: str) -> None:
    style = Style.parse(USED[name])

    if style.color is None:
        assert USED[name] == "dim"  # the terminal's own colour for text, less bright
        return
    assert style.color.number is not None
    assert style.color.number >= 16, "the first sixteen colours differ from terminal to terminal"
    own = luminance(*style.color.get_truecolor())
    assert (own + 0.05) / 0.05 >= LEAST_CONTRAST
    assert 1.05 / (own + 0.05) >= LEAST_CONTRAST


def test_every_state_has_a_style_of_these() -> None:
    assert set(styles.STYLES.values()) <= set(USED.values())
    assert {*AgentStatus, *WorkflowStatus} <= styles.STYLES.keys()


def test_no_other_file_of_the_command_line_names_a_colour() -> None:
    found = [
        f"{path.name}: {line.strip()}"
        for path in (ROOT / "app" / "cli").glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if TERMINAL_COLOURS.search(line) and "typer" not in line
    ]

    assert found == []
