"""Text from outside as plain text: without characters that control a terminal or turn text around.

Names, errors and outputs come from users, models and other servers. An escape sequence in such a
text could change what a terminal shows, and a right-to-left mark could make a name look like
another name.
"""

import re

# The control characters of ASCII and Latin-1, the separators of lines and paragraphs, and the marks
# that change the direction of text. Joiners of letters and of emoji are not among them, because
# ordinary words have them.
_CONTROLS = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029"
    r"\u202a-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
)
_IN_TEXT = re.compile(f"[{_CONTROLS}]")
_IN_NAME = re.compile(f"[{_CONTROLS}\t\n]")


def shown(text: str) -> str:
    r"""Return a text for a terminal; a control character becomes visible, such as ``\x1b``.

    Line breaks and tabs stay as they are.
    """
    return _IN_TEXT.sub(_escape, text)


def find_control(name: str) -> str | None:
    r"""Return the first character of a name that is no plain text, such as ``\x1b``, or None."""
    found = _IN_NAME.search(name)
    return None if found is None else _escape(found)


def json_shown(document: str) -> str:
    """Return a JSON text with the same values, in which control characters are escaped."""
    return _IN_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(
        code,
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}",  # noqa: PLR2004  Latin-1
    )
