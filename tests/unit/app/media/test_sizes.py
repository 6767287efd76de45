"""Types, dimensions and tokens of images: the formulas of the providers, and hostile headers."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.media.image_tokens import (
    DETAILS,
    image_bound,
    image_tokens,
    page_bound,
    page_tokens,
)
from app.media.images import dimensions_of
from app.media.sizes import ImageSize, PdfSize, size_of
from app.media.types import IMAGES, MediaRefused, media_type_of
from tests.support.media import gif, jpeg, pdf, png, webp

MODELS = (
    *("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "o1", "o3", "o4-mini"),
    *("gpt-5", "gpt-5-mini", "gpt-5.2", "gpt-5.4", "gpt-5.4-nano", "gpt-5.5", "gpt-6-astra"),
    *("claude-haiku-4-5", "claude-opus-4-7", "claude-sonnet-5", "qwen-vl", ""),
)
sides = st.integers(1, 70_000)


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (png(3, 4), "image/png"),
        (jpeg(3, 4), "image/jpeg"),
        (gif(3, 4), "image/gif"),
        (webp(3, 4), "image/webp"),
        (webp(3, 4, kind=b"VP8L"), "image/webp"),
        (webp(3, 4, kind=b"VP8X"), "image/webp"),
    ],
)
def test_images_are_told_by_their_bytes_and_measured_by_their_headers(
    content: bytes, media_type: str
) -> None:
    assert media_type_of(content) == media_type
    assert size_of(content, media_type) == ImageSize(width=3, height=4)


def test_pdfs_and_texts_are_told_by_their_bytes() -> None:
    assert media_type_of(pdf("a")) == "application/pdf"
    assert media_type_of(b"\n\n" + pdf("a")) == "application/pdf"
    assert media_type_of("Rechnung über 12 €\r\n\tSumme".encode()) == "text/plain"


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x7fELF\x02\x01", b"PK\x03\x04\x14\x00"),
        *(b"\xff\xfea\x00b\x00", b"a\x00b", b"\xe9t\xe9"),
    ],
)
def test_other_files_are_refused_with_a_remedy(content: bytes) -> None:
    with pytest.raises(MediaRefused, match=r"empty|give a PNG, JPEG, GIF or WebP image, a PDF"):
        media_type_of(content)


def test_a_thumbnail_in_a_photo_does_not_count_as_the_photo() -> None:
    inner = jpeg(160, 120)
    photo = jpeg(4000, 3000, before=b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner)

    assert dimensions_of(photo, "image/jpeg") == (4000, 3000)


def test_a_frame_that_is_larger_than_its_gif_counts() -> None:
    assert dimensions_of(gif(1, 1, frame=(5000, 4000)), "image/gif") == (5000, 4000)


@pytest.mark.parametrize("content", [png(0, 5), gif(7, 0), jpeg(0, 0)])
def test_an_image_without_pixels_is_refused(content: bytes) -> None:
    with pytest.raises(MediaRefused, match="shows nothing"):
        dimensions_of(content, media_type_of(content))


@given(st.data())
def test_no_cut_or_changed_header_breaks_the_reader(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([png(9, 9), jpeg(9, 9), gif(9, 9), webp(9, 9)]))
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for position, byte in data.draw(
        st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=8)
    ):
        if position < len(content):
            content[position] = byte

    try:
        media_type = media_type_of(bytes(content))
        if media_type in IMAGES:
            width, height = dimensions_of(bytes(content), media_type)
            assert width > 0
            assert height > 0
    except MediaRefused:
        pass


@pytest.mark.parametrize(
    ("model", "width", "height", "detail", "tokens"),
    [
        # The examples of OpenAI's guide.
        ("gpt-4o", 1024, 1024, "high", 765),
        ("gpt-4o", 2048, 4096, "high", 1105),
        ("gpt-4o", 4096, 8192, "low", 85),
        ("gpt-4.1-mini", 1024, 1024, "auto", 1659),
        ("gpt-4o-mini", 1024, 1024, "high", 2833 + 4 * 5667),
        ("o1", 1024, 1024, "high", 75 + 4 * 150),
        # Counts that providers have answered.
        ("gpt-6-astra", 1024, 1024, "auto", 1229),
        ("gpt-6-astra", 4032, 3024, "auto", 14364),
        ("gpt-5.5", 1920, 1080, "auto", 2448),
        ("claude-haiku-4-5", 1024, 1024, "auto", 1369),
        ("claude-opus-4-7", 1920, 1080, "auto", 2691),
        ("claude-opus-5-5", 1000, 1000, "auto", 1296),
        ("anthropic/claude-sonnet-4.6", 8000, 8000, "auto", 1600),
        ("claude-sonnet-4-20250514", 8000, 8000, "auto", 1600),
        ("claude-sonnet-5", 8000, 8000, "auto", 4784),
    ],
)
def test_the_formulas_give_the_numbers_of_the_providers(
    model: str, width: int, height: int, detail: str, tokens: int
) -> None:
    assert image_tokens(model, width, height, detail) == tokens


@given(st.sampled_from(MODELS), sides, sides, st.sampled_from(DETAILS))
def test_no_image_has_more_tokens_than_its_bound(
    model: str, width: int, height: int, detail: str
) -> None:
    bound = image_bound(model, width, height, detail)

    assert 0 < image_tokens(model, width, height, detail) <= bound <= 100_000


@given(sides, sides, st.sampled_from(DETAILS))
def test_the_bound_of_an_unknown_model_covers_every_known_model(
    width: int, height: int, detail: str
) -> None:
    unknown = image_bound("a-model-of-tomorrow", width, height, detail)

    assert all(unknown >= image_bound(model, width, height, detail) for model in MODELS)


@given(st.sampled_from(MODELS), sides, sides)
def test_low_detail_never_costs_more(model: str, width: int, height: int) -> None:
    low, high = (image_bound(model, width, height, detail) for detail in ("low", "high"))

    assert low <= max(high, image_bound(model, 512, 512, "high"))


@given(st.sampled_from(MODELS), st.integers(1, 500), st.integers(0, 10**6))
def test_no_pdf_has_more_tokens_than_its_bound(model: str, pages: int, text_bytes: int) -> None:
    size = PdfSize(pages=pages, text_bytes=text_bytes)

    assert page_tokens(model) <= page_bound(model)
    assert size.expected_tokens(model, "auto") <= size.bound_tokens(model, "auto")
