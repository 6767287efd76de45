"""A reader sees every character of a text, and no two names look alike."""

import csv
import io
import json
import re
import sys
import unicodedata
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.budgets import BudgetTerms, StandingScope
from app.domain.plain_text import (
    FORMULA_SIGNS,
    find_name_problem,
    json_shown,
    shown,
    shown_cell,
    shown_line,
)
from app.domain.run_options import RunOptions
from app.domain.scope import Scope
from app.errors import AgentChordError

#: The code points that Unicode calls default ignorable (DerivedCoreProperties.txt).
IGNORABLE = {
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810)),
    *(*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164),
    *(*range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0, *range(0xFFF0, 0xFFF9)),
    *(*range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)),
}
JOINERS = "\u200c\u200d"
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
TEXTS = st.text(st.characters() | st.sampled_from(sorted(map(chr, IGNORABLE))) | st.just("="))
NAMES_ONCE_ACCEPTED = (
    *("a\u200bb", "\u2060", "\ufeffacme", "acme\U000e0041", "ac\u00adme", "a\ufe0f", "\u3164"),
    *("\u115f", "\uffa0", "\u0301", "\u20dd", "\u2800", "a\u2028b", "a\xa0b", "a\u2007b", " a"),
    *("a\u3000", "e\u0301", "\ue000", "\u0378", "a\u200db", "a\u200cb", "\ud800", "\u180e"),
)


def is_control(character: str) -> bool:
    return unicodedata.category(character) in UNSEEN and character not in "\t\n"


def unseen_characters() -> list[str]:
    every = map(chr, range(sys.maxunicode + 1))
    ignorable = {chr(each) for each in IGNORABLE}
    return [each for each in every if each in ignorable or unicodedata.category(each) in UNSEEN]


def is_drawn(character: str) -> bool:
    """Whether fonts draw a character although no name may have it.

    These are the signs of numbers in Arabic and other scripts (Cf), and pictures that this Python
    does not know yet (Cn).
    """
    category = unicodedata.category(character)
    ignorable = ord(character) in IGNORABLE or 0xFFF9 <= ord(character) <= 0xFFFB
    return category in ("Cf", "Cn") and not ignorable


def test_every_character_that_is_not_seen_is_refused_in_a_name_and_shown_in_a_text() -> None:
    for character in unseen_characters():
        assert find_name_problem(f"a{character}b") is not None, hex(ord(character))
        if character not in "\t\n" and not is_drawn(character):
            assert shown(f"a{character}b").isascii(), hex(ord(character))


@pytest.mark.parametrize("name", NAMES_ONCE_ACCEPTED)
def test_no_name_looks_like_another_name_or_like_nothing(name: str) -> None:
    problem = find_name_problem(name)

    assert problem is not None
    assert problem.isascii()


@pytest.mark.parametrize(
    "name",
    [
        *("Überprüfung", "検査　一", "👩💻", "می‌خواهم", "श्री", "க்‍ஷ", "Kraków - 2", "a/b:c"),
        *("日本語", "한국어", "ไทย", "עברית", "Ελλάδα", "invoices_2026", "R&D (EU)"),
    ],
)
def test_a_name_in_any_language_is_accepted(name: str) -> None:
    assert find_name_problem(name) is None
    assert shown(name) == name


@given(st.text(max_size=5), st.text(max_size=5), st.sampled_from(sorted(map(chr, IGNORABLE))))
def test_a_name_with_one_more_character_that_is_not_seen_is_refused(
    before: str, after: str, unseen: str
) -> None:
    if unseen in JOINERS:
        before, after = f"{before}a", f"b{after}"  # letters that nothing joins

    assert find_name_problem(before + unseen + after) is not None


CHECKS: dict[str, Callable[[str], object]] = {
    "tenant of a run": lambda name: RunOptions(tenant=name).check_tenant(),
    **{
        scope.value: lambda name, scope=scope: BudgetTerms(  # type: ignore[misc]
            scope=scope, subject=name, limit_usd=Decimal(1)
        )
        for scope in StandingScope
        if scope is not StandingScope.ALL
    },
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES_ONCE_ACCEPTED)
def test_each_sort_of_name_follows_the_same_rule(check: str, name: str) -> None:
    with pytest.raises(AgentChordError) as refused:
        CHECKS[check](name)

    assert not any(map(is_control, str(refused.value)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("\x1b]8;;http://x\x07y\x1b]8;;\x07", r"\x1b]8;;http://x\x07y\x1b]8;;\x07"),
        ("a\x85b\x9bc", r"a\x85b\x9bc"),
        ("a\rb\r\nc", "a\\rb\nc"),
        ("\u202egpj", r"\u202egpj"),
        ("a\U000e0041", r"a\U000e0041"),
        ("a\xadb\u200b", r"a\xadb\u200b"),
        ("👩‍💻 ⚙️ 1️⃣", "👩‍💻 ⚙️ 1️⃣"),
        ("a\u200db\ufe0f", r"a\u200db\ufe0f"),
        ("tab\tline\n", "tab\tline\n"),
    ],
)
def test_a_text_has_one_spelling(text: str, form: str) -> None:
    assert shown(text) == form
    assert shown(shown(text)) == form


@given(TEXTS)
def test_a_line_is_the_text_without_its_line_breaks(text: str) -> None:
    line = shown_line(text)

    assert not set(line) & set("\t\n\r")
    assert line == " ".join(each for each in re.split(r"[ \t\n]", shown(text)) if each)


@given(TEXTS)
@example("\U000e0041\u202e\x9b")
def test_json_keeps_its_values(text: str) -> None:
    document = json_shown(json.dumps({text: [text]}, ensure_ascii=False))

    assert json.loads(document) == {text: [text]}
    assert shown(document) == document


SEPARATORS = (",", ";", "\t", "|")
CELLS = st.lists(
    st.sampled_from([*FORMULA_SIGNS, *SEPARATORS, '"', "'", " ", "\xa0", "\n", "\r", "1", "a"])
    | st.characters(),
    max_size=8,
).map("".join)


@given(st.lists(CELLS, min_size=1, max_size=3))
@example(["a;=1+1"])
@example(["x", "a;=1+1"])
@example(["x", 'a;"=1+1'])
@example([" =cmd|' /C calc'!A0"])
@example(["\t=1", "\r=1", "a\n=1", "\uff1d1", "\ufe621"])
@pytest.mark.parametrize("separator", SEPARATORS)
def test_no_cell_begins_with_a_formula_at_any_separator(separator: str, texts: list[str]) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="").writerow(map(shown_cell, texts))

    rows = list(csv.reader(io.StringIO(written.getvalue()), delimiter=separator))

    assert len(rows) == 1
    for cell in rows[0]:
        assert not cell.lstrip().startswith(tuple(FORMULA_SIGNS))
        assert not any(map(is_control_of_cells, cell))


def is_control_of_cells(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def test_the_tenant_of_a_stored_run_stays_valid_for_its_sub_runs() -> None:
    assert RunOptions(tenant="a\u3164").tenant == "a\u3164"
    assert Scope(tenant="a\u3164").tenant == "a\u3164"
