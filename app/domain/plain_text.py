"""Text from outside as plain text: what a reader sees is all that the text contains.

Names, errors and outputs come from users, models and other servers. An escape sequence in such a
text could change what a terminal shows. A right-to-left mark, or a character that cannot be seen,
could make a name look like another name. A sign at the beginning of a cell could make a spreadsheet
calculate. Every output shows such a character as the same escape, and no new name may contain one.
"""

import re
import unicodedata

# The control characters of ASCII and Latin-1, and halves of surrogate pairs.
_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff"
# What Unicode calls default ignorable: marks of direction, joiners, fillers, selectors of variants
# and tags. The separators of lines and paragraphs, the marks of annotations and the empty pattern
# of Braille are not seen either.
_UNSEEN = (
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Code points that have no meaning in Unicode, so each font may show something else or nothing.
_MEANINGLESS = r"\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff"
_PLAIN_FAULTS = f"{_CONTROLS}{_UNSEEN}{_MEANINGLESS}"
_IN_TEXT = re.compile(f"[{_PLAIN_FAULTS}]")
_IN_LINE = re.compile(f"[{_PLAIN_FAULTS}\t\n]")
_BLANKS = re.compile(r"(?:\r\n|[ \t\n])+")
#: Categories of Unicode whose characters no name may contain.
_NO_NAME = frozenset(("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"))
#: Blanks that names may contain: the space, and the wide space of Japanese texts.
_NAME_BLANKS = " \u3000"

_NON_JOINER, _JOINER = "\u200c", "\u200d"
_VARIANTS = "\ufe0e\ufe0f"
_KEYCAP = "\u20e3"
#: The combining class of a virama, which joins two letters of an Indian script.
_VIRAMA = 9

#: Signs with which a formula begins in a spreadsheet, also in their full-width and small forms.
FORMULA_SIGNS = "=+-@＝＋－＠﹦﹢﹣﹫"  # noqa: RUF001  these are the other forms
# Spreadsheets split a line at a comma, a semicolon or a bar, depending on the country; a quote may
# begin a cell, too. Some spreadsheets skip blanks before a formula.
_FORMULA = re.compile(rf'(^|[,;|"])(\s*)(?=[{re.escape(FORMULA_SIGNS)}])')


def _letters_with(form: str) -> frozenset[str]:
    """Return the Arabic letters that have a form for a place in a word, such as ``<initial>``."""
    codes = (*range(0xFB50, 0xFC00), *range(0xFE70, 0xFF00))
    forms = (unicodedata.decomposition(chr(code)).split() for code in codes)
    return frozenset(
        chr(int(parts[1], 16))
        for parts in forms
        if len(parts) == 2 and parts[0] == form  # noqa: PLR2004  a form of one letter
    )


_JOIN_THE_NEXT, _JOIN_THE_LAST = _letters_with("<initial>"), _letters_with("<final>")


def shown(text: str) -> str:
    r"""Return a text for people; a character that cannot be seen becomes visible: ``\x1b``.

    Line breaks and tabs stay as they are, and the two characters of a line break of Windows become
    one. Joiners of letters and of emoji stay where they change the form of their neighbours,
    because ordinary words have them.
    """
    return _IN_TEXT.sub(_escape_unless_ordinary, text.replace("\r\n", "\n"))


def shown_line(text: str) -> str:
    """Like ``shown``, but in one line: blanks, tabs and line breaks become one space."""
    return one_line(shown(text))


def one_line(text: str) -> str:
    """Return a text for people in one line, before the text is shown: blanks become one space."""
    return _BLANKS.sub(" ", text).strip(" ")


def shown_cell(text: str) -> str:
    r"""Return a text for a cell of CSV; no spreadsheet takes the text for a formula.

    An apostrophe, the sign of a text, precedes each sign with which a formula may begin. It does so
    also inside the text, because a spreadsheet may split the text at another separator than the
    writer. Tabs and line breaks become ``\t`` and ``\n``.
    """
    return _FORMULA.sub(r"\1\2'", _IN_LINE.sub(_escape_unless_ordinary, text))


def json_shown(document: str) -> str:
    """Return a JSON text with the same values, in which characters that are not seen are escaped.

    The escape is that of JSON, so U+E0041 becomes the escapes of a surrogate pair.
    """
    return _IN_TEXT.sub(
        lambda found: found[0] if _is_ordinary(found) else _json_escaped(found[0]), document
    )


def find_name_problem(name: str) -> str | None:
    r"""Return the reason why a text cannot be a name; None if there is no reason.

    Two names that look alike would be two budgets, two tenants or two lines of a report. Therefore
    a name has only characters that are seen, in one spelling. The caller checks the length.

    Example:
        find_name_problem("a\u200bb")  # 'contains the character \\u200b, which ...: remove it'
    """
    for place, character in enumerate(name):
        if not _is_seen(name, place):
            return (
                f"contains the character {_escaped(character)}, which controls terminals, turns "
                "text around or cannot be seen: remove it"
            )
        if unicodedata.category(character) == "Zs" and character not in _NAME_BLANKS:
            return f"contains the character {_escaped(character)}, a blank: use a space"
    if name != name.strip(_NAME_BLANKS):
        return "has blanks around it: remove them"
    if name and unicodedata.category(name[0]).startswith("M"):
        return f"begins with {_escaped(name[0])}, a mark of the text before it: remove it"
    if not unicodedata.is_normalized("NFC", name):
        return "has letters in parts that look like whole letters: give it in Unicode's form NFC"
    return None


def _is_seen(name: str, place: int) -> bool:
    character = name[place]
    if _IN_LINE.match(character) or unicodedata.category(character) in _NO_NAME:
        return _joins_letters(name, place)
    return True


def _escape_unless_ordinary(found: re.Match[str]) -> str:
    return found[0] if _is_ordinary(found) else _escaped(found[0])


def _is_ordinary(found: re.Match[str]) -> bool:
    """Whether an unseen character changes the form of the characters around it, as it should."""
    text, place = found.string, found.start()
    if found[0] not in (_NON_JOINER, _JOINER, *_VARIANTS) or not place:
        return False
    return _joins_letters(text, place) or _forms_emoji(text, place)


def _joins_letters(text: str, place: int) -> bool:
    """Whether a joiner stands where it changes letters: the rules A.1 and A.2 of RFC 5892."""
    if text[place] not in (_NON_JOINER, _JOINER) or not place:
        return False
    if unicodedata.combining(text[place - 1]) == _VIRAMA:
        return True
    before = _beyond_marks(text, place, -1)
    after = _beyond_marks(text, place, 1)
    joined = before in _JOIN_THE_NEXT and after in _JOIN_THE_LAST
    return text[place] == _NON_JOINER and joined


def _beyond_marks(text: str, place: int, step: int) -> str:
    place += step
    while 0 <= place < len(text) and unicodedata.category(text[place]) == "Mn":
        place += step
    return text[place] if 0 <= place < len(text) else ""


def _forms_emoji(text: str, place: int) -> bool:
    """Whether a joiner stands between two pictures, or a selector behind a picture."""
    before, after = text[place - 1], text[place + 1 : place + 2]
    if text[place] == _JOINER:
        return (_is_picture(before) or before in _VARIANTS) and _is_picture(after)
    return text[place] in _VARIANTS and (_is_picture(before) or after == _KEYCAP)


def _is_picture(character: str) -> bool:
    # A modifier of the skin's colour has the category Sk, and an arrow has Sm.
    return unicodedata.category(character) in ("So", "Sk", "Sm") if character else False


def _escaped(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:  # noqa: PLR2004  beyond the four digits of \u
        return f"\\U{code:08x}"
    # The repr of a string writes these three characters in this way, too.
    short = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}.get(character)
    return short or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")  # noqa: PLR2004  Latin-1


def _json_escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
