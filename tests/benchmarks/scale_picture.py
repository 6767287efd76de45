"""The curve of docs/performance.md as an SVG without text: the table has the figures."""

from collections.abc import Sequence
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 240, 20
LINES = 4
TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<rect width="{width}" height="{height}" fill="#ffffff"/>
{lines}
<polyline points="{points}" fill="none" stroke="#2563eb" stroke-width="3"/>
{dots}
</svg>
"""


def draw(file: Path, curve: Sequence[tuple[float, float]]) -> None:
    """Draw a curve over a ground line at 0, with a grey line at each quarter of its height.

    Args:
        file: File to write.
        curve: Agents, and milliseconds of CPU that one takes.
    """
    most_x, most_y = (max(values) for values in zip(*curve, strict=True))
    places = [
        (
            MARGIN + x / most_x * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN - y / most_y * (HEIGHT - 2 * MARGIN),
        )
        for x, y in curve
    ]
    heights = [MARGIN + number * (HEIGHT - 2 * MARGIN) / LINES for number in range(LINES + 1)]
    file.write_text(
        TEMPLATE.format(
            width=WIDTH,
            height=HEIGHT,
            lines="\n".join(
                f'<path d="M{MARGIN} {y:.0f}H{WIDTH - MARGIN}" stroke="#d1d5db"/>' for y in heights
            ),
            points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places),
            dots="\n".join(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#2563eb"/>' for x, y in places
            ),
        ),
        encoding="utf-8",
    )
