"""Like a provider, checks the images and files of a request, and counts the tokens of the files."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.media.sizes import size_of
from app.media.types import PDF, TEXT, MediaRefused, media_type_of
from app.simulator.chat import Refusal

_HASH_CHARS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """An image or a file.

    `sha256` is the beginning of the hash of the bytes. `tokens` is the number of input tokens.
    """

    sha256: str
    tokens: int


def openai_media(content: Any, model: str) -> list[Media]:
    """Return the images and files of a message of OpenAI's chat completions.

    Raises:
        Refusal: If the provider would refuse one of them with 400.
    """
    found = []
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "image_url":
            image = part.get("image_url") or {}
            found.append(_image(image.get("url"), image.get("detail"), model))
        elif kind == "file":
            found.append(_file(part.get("file") or {}, "file.filename", model))
    return found


def responses_media(content: Any, model: str) -> list[Media]:
    """Return the images and files of a message of OpenAI's Responses API.

    Raises:
        Refusal: If the provider would refuse one of them with 400.
    """
    found = []
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "input_image":
            found.append(_image(part.get("image_url"), part.get("detail"), model))
        elif kind == "input_file":
            found.append(_file(part, "filename", model))
    return found


def anthropic_media(content: Any, model: str) -> list[Media]:
    """Return the images and documents of a message of Anthropic's API.

    Raises:
        Refusal: If the provider would refuse one of them with 400.
    """
    found = []
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, Mapping) or block.get("type") not in ("image", "document"):
            continue
        source = block.get("source") or {}
        if source.get("type") != "base64":
            raise Refusal(400, f"{block['type']}.source: the simulator takes base64 only.")
        if (source.get("media_type") == PDF) != (block["type"] == "document"):
            raise Refusal(400, f"{block['type']}.source.base64.media_type: unexpected value.")
        found.append(_media(source.get("data"), source.get("media_type"), model, "auto"))
    return found


def _image(url: Any, detail: Any, model: str) -> Media:
    content_type, data = _data_url(url)
    return _media(data, content_type, model, str(detail or "auto"))


def _file(file: Mapping[str, Any], name: str, model: str) -> Media:
    if not file.get("filename"):
        raise Refusal(400, f"Missing required parameter: '{name}'.")
    content_type, data = _data_url(file.get("file_data"))
    if content_type != PDF:
        raise Refusal(400, f"Invalid file data: {content_type!r} is not supported.")
    return _media(data, content_type, model, "auto")


def _media(data: Any, media_type: Any, model: str, detail: str) -> Media:
    try:
        content = base64.b64decode(data, validate=True)
        if media_type_of(content) != media_type or media_type == TEXT:
            raise Refusal(400, f"The content does not match the media type {media_type!r}.")
        size = size_of(content, media_type)
    except (MediaRefused, TypeError, binascii.Error) as error:
        raise Refusal(400, f"Could not process the image or file: {error}.") from error
    digest = hashlib.sha256(content).hexdigest()[:_HASH_CHARS]
    return Media(sha256=digest, tokens=size.expected_tokens(model, detail))


def _data_url(url: Any) -> tuple[str, str]:
    head, comma, data = str(url).partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise Refusal(400, "The simulator loads nothing: give a data URL with base64.")
    return head.removeprefix("data:").removesuffix(";base64"), data
