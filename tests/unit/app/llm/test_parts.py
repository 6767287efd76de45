"""The parts of a message: made from files, counted before a call, and told apart by their bytes."""

import base64
import json

import pytest

from app.errors import BadRequest
from app.llm.base import Message
from app.llm.models import reads_only_text
from app.llm.openai_content import responses_content
from app.llm.parts import part_of, without_data
from app.llm.tokens import expected_tokens, media_tokens, upper_bound_tokens
from app.media.image_tokens import image_bound, page_bound
from app.media.types import MediaRefused
from tests.support.media import pdf, png

PNG = png(1024, 1024)


def user(*parts: object) -> Message:
    return {"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}


def test_a_text_becomes_text_and_names_itself() -> None:
    part = part_of("\ufeffSumme: 12 €".encode(), name="beleg.txt")

    assert part == {"type": "text", "text": "beleg.txt:\n\nSumme: 12 €"}


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-nano", "claude-sonnet-5", "unknown"])
def test_the_tokens_of_an_image_are_those_of_its_model(model: str) -> None:
    image, plain = user(part_of(PNG)), user()

    more = upper_bound_tokens([image], model=model) - upper_bound_tokens([plain], model=model)

    assert more >= image_bound(model, 1024, 1024)
    assert more < image_bound(model, 1024, 1024) + 50
    assert expected_tokens([image], model=model) <= upper_bound_tokens([image], model=model)
    assert media_tokens([image], model) > 0


def test_low_detail_costs_what_low_detail_costs() -> None:
    low, auto = (user(part_of(PNG, detail=detail)) for detail in ("low", None))

    fewer = upper_bound_tokens([auto], model="gpt-4o") - upper_bound_tokens([low], model="gpt-4o")

    assert fewer == 765 - 85


def test_the_pages_and_the_text_of_a_pdf_are_counted() -> None:
    two = upper_bound_tokens([user(part_of(pdf("a" * 500, "b")))], model="gpt-4o")
    one = upper_bound_tokens([user(part_of(pdf("a" * 500)))], model="gpt-4o")

    assert two - one >= page_bound("gpt-4o")
    assert one >= page_bound("gpt-4o") + 500


def test_a_part_without_a_size_is_measured_by_its_bytes() -> None:
    bare = {
        "type": "image",
        "media_type": "image/png",
        "data": base64.b64encode(PNG).decode(),
    }

    assert upper_bound_tokens([user(bare)], model="gpt-4o") == upper_bound_tokens(
        [user(part_of(PNG))], model="gpt-4o"
    )


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image"},
        {"type": "image", "media_type": "image/png", "data": "no base64!"},
        {"type": "image", "media_type": "image/jpeg", "data": base64.b64encode(PNG).decode()},
        {"type": "file", "media_type": "application/pdf", "data": "JVBERi0xLjcK"},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
    ],
)
def test_a_part_that_cannot_be_priced_is_refused_before_a_call(part: object) -> None:
    with pytest.raises(BadRequest, match="has a part of type") as refused:
        upper_bound_tokens([user(part)], model="gpt-4o")

    assert not refused.value.reached


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_cannot_be_sent_is_refused(content: bytes) -> None:
    with pytest.raises(MediaRefused):
        part_of(content)


def test_a_hash_stands_for_the_bytes_and_differs_with_each_byte() -> None:
    one, other = (without_data(user(part_of(png(8, side)))) for side in (8, 9))

    assert "data" not in json.dumps(one)
    assert one != other
    assert one == without_data(user(part_of(png(8, 8))))
    assert without_data(user(part_of(PNG, detail="low"))) != without_data(user(part_of(PNG)))


def test_the_responses_api_gets_its_own_parts() -> None:
    image, file = part_of(PNG, detail="low"), part_of(pdf("x"), name="x.pdf")

    content = responses_content([image, file, {"type": "text", "text": "Sum?"}])

    assert [part["type"] for part in content] == ["input_image", "input_file", "input_text"]
    assert content[0]["detail"] == "low"
    assert content[0]["image_url"] == f"data:image/png;base64,{image['data']}"
    assert content[1]["filename"] == "x.pdf"
    assert content[1]["file_data"] == f"data:application/pdf;base64,{file['data']}"


@pytest.mark.parametrize(
    ("model", "only_text"),
    [
        *((name, True) for name in ("gpt-3.5-turbo", "gpt-4", "gpt-4-0613", "o3-mini", "o1-mini")),
        *((name, True) for name in ("openai/gpt-oss-20b", "claude-2.1", "gpt-4o-audio-preview")),
        *((name, False) for name in ("gpt-4o", "gpt-4-turbo", "gpt-4.1", "o1", "o3", "gpt-5")),
        *((name, False) for name in ("claude-3-haiku-20240307", "claude-sonnet-5", "qwen-vl")),
    ],
)
def test_models_that_read_only_text_are_known_by_name(model: str, only_text: bool) -> None:
    assert reads_only_text(model) is only_text
