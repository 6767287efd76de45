"""Pages and texts of PDFs: usual files, files that lie about their size, and files that explode."""

import base64
import time
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.media import pdf_streams
from app.media.pdf import pages_and_text
from app.media.pdf_streams import Allowance, Stream
from app.media.types import MediaRefused
from tests.support.media import document, pdf, stream

CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
PAGE = b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R >>"


def one_page(content: tuple[str, bytes], **further: bytes | tuple[str, bytes]) -> bytes:
    objects: dict[int, bytes | tuple[str, bytes]] = {
        1: CATALOG,
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: PAGE,
        4: content,
    }
    return document(objects | {int(name[1:]): value for name, value in further.items()})


@given(st.lists(st.text(st.characters(codec="latin-1"), max_size=300), min_size=1, max_size=8))
def test_pages_are_counted_and_the_text_is_never_above_its_bound(texts: list[str]) -> None:
    pages, text_bytes = pages_and_text(pdf(*texts))

    assert pages == len(texts)
    assert sum(len(text.encode()) for text in texts) <= text_bytes
    assert text_bytes <= 4 * sum(map(len, texts)) + 10 * len(texts)


def test_objects_in_streams_of_objects_are_found() -> None:
    inner = b"3 0 5 50 " + PAGE.ljust(50) + b"<< /Type /Page /Contents 4 0 R >>"
    content = document(
        {
            1: CATALOG,
            2: b"<< /Type /Pages /Kids [3 0 R 5 0 R] /Count 2 >>",
            4: stream(b"BT (hello) Tj ET"),
            6: stream(inner, "/Type /ObjStm /N 2 /First 9"),
        }
    )

    assert pages_and_text(content) == (2, 2 * 2 * len("hello)"))


def test_a_wrong_number_of_pages_in_the_file_hides_no_page() -> None:
    content = pdf("a", "b", "c").replace(b"/Count 3", b"/Count 1")

    assert pages_and_text(content)[0] == 3


def test_a_form_counts_as_often_as_it_is_shown() -> None:
    once = one_page(
        stream(b"/Fm0 Do"),
        _5=b"<< /Fm0 6 0 R >>",
        _6=stream(b"(0123456789) Tj", "/Type /XObject /Subtype /Form"),
    )
    often = once.replace(b"Fm0 Do", b"Fm0 Do")  # the same file, for a text of the same length
    thrice = one_page(
        stream(b"/Fm0 Do /Fm#30 Do /Fm0%\nDo"),
        _5=b"<< /Fm0 6 0 R >>",
        _6=stream(b"(0123456789) Tj", "/Type /XObject /Subtype /Form"),
    )

    assert pages_and_text(once) == pages_and_text(often) == (1, 22)
    assert pages_and_text(thrice) == (1, 66)


def test_forms_that_show_forms_multiply_without_being_expanded() -> None:
    levels = {
        f"_{10 + level}": stream(
            f"/F{level + 1} Do ".encode() * 10 if level < 20 else b"(0123456789) Tj",
            f"/Subtype /Form /Resources << /F{level + 1} {11 + level} 0 R >>",
        )
        for level in range(21)
    }
    content = one_page(stream(b"/F0 Do"), _5=b"<< /F0 10 0 R >>", **levels)

    assert pages_and_text(content) == (1, 10**9)


def test_codes_that_stand_for_long_texts_count_as_these_texts() -> None:
    table = b"1 beginbfchar <01> <" + b"0041" * 200 + b"> endbfchar"
    content = one_page(stream(b"(\x01) Tj"), _5=b"<< /ToUnicode 6 0 R >>", _6=stream(table))

    assert pages_and_text(content)[1] >= 200


@pytest.mark.parametrize("parameters", ["null", "[null]", "<< >>", "[<< /Predictor 1 >>]"])
def test_parameters_that_change_nothing_are_read(parameters: str) -> None:
    content = one_page(stream(b"(0123456789) Tj", f"/DecodeParms {parameters}"))

    assert pages_and_text(content) == (1, 22)


@pytest.mark.parametrize(
    ("filter_", "raw"),
    [
        ("/ASCIIHexDecode", b"28 48 69 29 20 54 6A>"),
        ("[/ASCII85Decode]", base64.a85encode(b"(Hi) Tj") + b"~>"),
        ("/AHx", b"284869292"),
    ],
)
def test_texts_in_other_encodings_are_read(filter_: str, raw: bytes) -> None:
    assert pages_and_text(one_page((f"/Filter {filter_}", raw)))[1] > 0


def test_an_image_of_a_page_is_no_text() -> None:
    pixels = stream(b"(" * 500_000, "/Type /XObject /Subtype /Image")
    content = one_page(stream(b"/Im0 Do"), _5=b"<< /Im0 6 0 R >>", _6=pixels)

    assert pages_and_text(content) == (1, 0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"%PDF-1.7\n", "has no pages"),
        (document({1: CATALOG, 2: b"<< /Kids 5 >>"}, "/Encrypt 9 0 R"), "is encrypted"),
        (
            document({1: CATALOG, 2: b"<< /Kids [3 0 R 3 0 R] >>", 3: PAGE}),
            "has a page twice",
        ),
        (
            document({1: CATALOG, 2: b"<< /Kids [3 0 R] >>", 3: b"<< /Kids [2 0 R] >>"}),
            "in two lists of pages",
        ),
        (one_page(("/Filter /LZWDecode", b"\x80")), "LZWDecode"),
        (one_page(("/Filter /FlateDecode", b"no deflate")), "a broken stream"),
        (one_page(stream(b"x", "/DecodeParms << /Predictor 12 >>")), "a predictor"),
        (
            one_page(stream(b"/Fm0 Do"), _5=b"<< /Fm0 6 0 R >>",
                     _6=stream(b"/Fm0 Do", "/Subtype /Form")),
            "contains itself",
        ),
        (document({1: b"[" * 1000}), "brackets"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_with_its_reason(content: bytes, problem: str) -> None:
    with pytest.raises(MediaRefused, match=problem):
        pages_and_text(content)


@given(st.binary(max_size=300), st.integers(0, 30))
@example(b"Z", 0)  # its first character is ">"
def test_ascii85_is_decoded_as_by_the_library(content: bytes, zeros: int) -> None:
    encoded = base64.a85encode(content + bytes(4 * zeros) + content)
    stored = Stream({"Filter": "A85"}, b"<~" + b" \n".join([encoded[:7], encoded[7:]]) + b"~>")

    assert Allowance().expanded(stored) == base64.a85decode(encoded)


@pytest.mark.parametrize(
    ("filters", "raw"),
    [
        (["A85"], b"z" * 20_000_000),
        (["Fl", "A85"], zlib.compress(b"z" * 20_000_000, 9)),
        (["Fl", "A85"], zlib.compress(b"!" * 60_000_000, 9)),
        (["Fl", "AHx"], zlib.compress(b"0" * 60_000_000, 9)),
    ],
)
def test_every_filter_is_charged_before_it_decodes(filters: list[str], raw: bytes) -> None:
    with pytest.raises(MediaRefused, match="expands to more than 64,000,000 bytes"):
        Allowance().expanded(Stream({"Filter": filters}, raw))


def test_text_in_ascii85_takes_little_more_memory_than_itself() -> None:
    stored = Stream({"Filter": "A85"}, b"z" * 2_000_000)
    tracemalloc.start()
    try:
        assert Allowance().expanded(stored) == bytes(8_000_000)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_explodes_is_refused_at_the_limit() -> None:
    bomb = zlib.compress(bytes(pdf_streams.MAX_EXPANDED_BYTES + 1), 9)
    content = one_page(("/Filter /FlateDecode", bomb))
    assert len(content) < 100_000

    with pytest.raises(MediaRefused, match="expands to more than 64,000,000 bytes"):
        pages_and_text(content)


@pytest.mark.parametrize(
    "content",
    [
        b"1 0 obj(" * 200_000,
        b"1 0 obj<<>>stream\n" * 100_000,
        b"1 0 obj%" * 200_000,
        b"1%" * 1_000_000,
        b"1 " * 1_000_000,
        b"1 0 obj[" + b"1 0 R " * 1_000_000,
        b"1 0 obj" + b"<<" * 90 + b"/A" * 1_000_000,
    ],
    ids=["texts", "streams", "comments", "numbers", "blanks", "list", "names"],
)
def test_no_file_keeps_the_reader_busy_for_long(content: bytes) -> None:
    started_s = time.process_time()

    with pytest.raises(MediaRefused):
        pages_and_text(b"%PDF-1.7\n" + content, max_steps=100_000)

    assert time.process_time() - started_s < 10


@given(st.data())
def test_no_change_of_a_file_breaks_the_reader(data: st.DataObject) -> None:
    content = bytearray(pdf("one", "two", compressed=data.draw(st.booleans())))
    for position, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=20)
    ):
        content[position] = byte

    try:
        pages, text_bytes = pages_and_text(bytes(content))
        assert pages > 0
        assert text_bytes >= 0
    except MediaRefused:
        pass
