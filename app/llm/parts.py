"""The parts of a message's content: text, images and files.

A content is a string, or a list of parts. Each client translates the parts to its protocol::

    {"type": "text", "text": "What is the total?"}
    {"type": "image", "media_type": "image/png", "data": "iVBORw0..."}
    {"type": "file", "media_type": "application/pdf", "data": "JVBERi0...", "name": "invoice.pdf"}

``data`` is base64. An image may have a ``detail`` ("low" or "high"). ``part_of`` makes a part from
the bytes of a file, and adds the ``size`` and the ``sha256`` of the bytes. Neither ``size`` nor
``sha256`` is ever sent.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.errors import BadRequest
from app.media.sizes import Size, size_of
from app.media.types import PDF, TEXT, MediaRefused, media_type_of

if TYPE_CHECKING:
    from app.llm.base import Message

Part = Mapping[str, Any]
AUTO = "auto"


def part_of(content: bytes, *, name: str | None = None, detail: str | None = None) -> Part:
    """Make the part that sends a file.

    Args:
        content: The whole file: a PNG, JPEG, GIF or WebP image, a PDF, or a text in UTF-8.
        name: Name of the file; the model sees this name if the file is a PDF or a text.
        detail: Level of detail at which an image is read, "low" or "high"; None leaves the choice
            to the provider.

    Raises:
        MediaRefused: If the file is of another type, or cannot be measured.

    Example:
        with open("invoice.pdf", "rb") as file:
            part = part_of(file.read(), name="invoice.pdf")
        prompt = {"type": "text", "text": "What is the total?"}
        message = {"role": "user", "content": [part, prompt]}
    """
    media_type = media_type_of(content)
    if media_type == TEXT:
        text = content.decode("utf-8-sig")
        return {"type": "text", "text": f"{name}:\n\n{text}" if name else text}
    part: dict[str, Any] = {
        "type": "file" if media_type == PDF else "image",
        "media_type": media_type,
        "data": base64.b64encode(content).decode(),
        "size": size_of(content, media_type),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    if media_type == PDF:
        return part | {"name": name} if name else part
    return part | {"detail": detail} if detail else part


def is_media(part: Any) -> bool:
    """Return whether a part of a content is an image or a file."""
    return isinstance(part, Mapping) and part.get("type") in ("image", "file")


def media_in(messages: "Sequence[Message]") -> Iterator[Part]:
    """Yield the images and files of a conversation."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, list | tuple):
            yield from filter(is_media, content)


def size_in(part: Part) -> Size:
    """Return the size of an image or a file; read it from the bytes if the part has no size.

    Raises:
        BadRequest: If the bytes cannot be read, or are of another type than the part says.
    """
    if size := part.get("size"):
        return size  # type: ignore[no-any-return]
    try:
        content = base64.b64decode(part["data"], validate=True)
        media_type = media_type_of(content)
        if media_type != part["media_type"]:
            raise MediaRefused(f"is {media_type}, not {part['media_type']}")
        return size_of(content, media_type)
    except (KeyError, TypeError, binascii.Error) as error:
        raise BadRequest(
            f"a message has a part of type {part['type']!r} without media_type and base64 data: "
            "make it with app.llm.parts.part_of",
            reached=False,
        ) from error
    except MediaRefused as error:
        raise BadRequest(
            f"a message has a part of type {part['type']!r} whose content {error}", reached=False
        ) from error


def bound_tokens(part: Part, model: str) -> int:
    """Return the most tokens that a model can count for an image or a file."""
    return size_in(part).bound_tokens(model, part.get("detail") or AUTO)


def expected_tokens(part: Part, model: str) -> int:
    """Return the tokens that a model will probably count for an image or a file."""
    return size_in(part).expected_tokens(model, part.get("detail") or AUTO)


def without_data(message: "Message") -> "Message":
    """Return a message in which a hash stands for the bytes of each image and file."""
    content = message.get("content")
    if not isinstance(content, list | tuple) or not any(map(is_media, content)):
        return message
    return {**message, "content": [_hashed(part) if is_media(part) else part for part in content]}


def _hashed(part: Part) -> Part:
    digest = part.get("sha256") or hashlib.sha256(part["data"].encode()).hexdigest()
    left_out = ("data", "size")
    return {key: value for key, value in part.items() if key not in left_out} | {"sha256": digest}
